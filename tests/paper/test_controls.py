"""What is taken from a training for a control is gone, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ynet_lite import provenance
from ynet_lite.config import Config
from ynet_lite.paper import run, second, store
from ynet_lite.paper.controls import MARGIN, UNSEEN, controlled


@pytest.fixture
def sides(draw_cases):
    return draw_cases(96).split(1)


def test_without_a_control_the_cases_are_those_of_the_split(sides):
    training, database, queries = controlled(Config(), *sides)
    assert training is database is sides[0] and queries is sides[1]


def test_shuffled_labels_are_for_the_training_only(sides):
    training, database, queries = controlled(Config(control="labels shuffled"), *sides)
    assert database is sides[0] and queries is sides[1]
    assert np.bincount(training.labels).tolist() == np.bincount(database.labels).tolist()
    agree = (training.labels == database.labels).mean()
    assert 0.3 < agree < 0.7 and training.images is database.images
    assert [training.class_names[i] for i in training.labels] == training.table["label"].tolist()
    other = controlled(Config(control="labels shuffled", seed=1), *sides)[0]
    assert (other.labels != training.labels).any()


def test_a_blanked_lesion_leaves_the_same_image_whatever_the_lesion_shows(sides):
    cfg, dark = Config(control="lesion blanked"), [replace(s, images=np.where(s.masks[:, None] > 0, 7, s.images)) for s in sides]
    training, database, queries = controlled(cfg, *sides)
    assert training is database and (database.masks == sides[0].masks).all()
    for part, other in zip((database, queries), controlled(cfg, *dark)[1:], strict=True):
        assert (part.images == other.images).all()
    for image, before, mask in zip(database.images, sides[0].images, database.masks, strict=True):
        ys, xs = np.nonzero(mask)
        margin = round(MARGIN * 32)
        y0, y1, x0, x1 = ys.min() - margin, ys.max() + margin, xs.min() - margin, xs.max() + margin
        inside = np.zeros(mask.shape, bool)
        inside[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = True
        assert set(image[0, inside]) == {np.rint(before[0, ~inside].mean())} and (image[0, ~inside] == before[0, ~inside]).all()


def test_padding_around_an_image_is_neither_blanked_nor_counted(draw_cases):
    cases = draw_cases(16)
    images, masks = cases.images.copy(), cases.masks.copy()
    images[:, :, :8], masks[:] = 0, 0
    images[:, :, 8:], masks[:, 8:12, 4:12] = 100, 1
    table = cases.table.assign(box_top=8, box_left=0, box_height=24, box_width=32)
    blanked = controlled(Config(control="lesion blanked"), *replace(cases, images=images, masks=masks, table=table).split(1))[0]
    assert (blanked.images[:, :, :8] == 0).all() and (blanked.images[:, :, 8:] == 100).all()


def test_a_blanked_background_leaves_the_lesion(sides):
    _, database, queries = controlled(Config(control="background blanked"), *sides)
    for part, before in ((database, sides[0]), (queries, sides[1])):
        assert (part.images == np.where(part.masks[:, None] > 0, before.images, 0)).all()


def test_blanking_needs_every_outline(sides):
    database, queries = sides
    lacking = replace(database, has_mask=np.arange(len(database)) != 3)
    with pytest.raises(ValueError, match=f"1 case.s. have no outline to blank by, first {database.ids[3]}"):
        controlled(Config(control="background blanked"), lacking, queries)
    # an outline that is known to be empty leaves nothing, which would give the class away
    with pytest.raises(ValueError, match="no outline to blank by"):
        controlled(Config(control="lesion blanked"), replace(database, masks=database.masks * 0), queries)


def test_masks_of_others_are_all_of_another_patient_and_used_once(sides):
    database = replace(sides[0], has_mask=np.arange(len(sides[0])) % 5 > 0)
    database.masks[:] = np.arange(1, len(database) + 1, dtype=np.uint8)[:, None, None]  # each outline says whose it is
    training, searched, _ = controlled(Config(control="masks other"), database, sides[1])
    assert searched is database
    known = database.has_mask
    origin = training.masks[:, 0, 0].astype(int) - 1
    assert (origin[~known] == np.flatnonzero(~known)).all()
    assert sorted(origin[known]) == np.flatnonzero(known).tolist()
    assert (database.groups[origin[known]] != database.groups[known]).all()
    one = database.take(database.groups == database.groups[0])
    with pytest.raises(ValueError, match="of 1 patients cannot all go to others"):
        controlled(Config(control="masks other"), one, sides[1])


def test_a_share_keeps_whole_patients_of_each_class_and_the_number_of_cases(sides):
    database, queries = sides
    kept = {}
    for share in (0.25, 0.5):
        training, searched, asked = controlled(Config(label_share=share), database, queries)
        assert searched is database and asked is queries and len(training) == len(database)
        kept[share] = set(training.groups)
        for label in (0, 1):
            of_class = set(database.groups[database.labels == label])
            assert len(kept[share] & of_class) == int(share * len(of_class) + 0.5)
        times = training.table["case_id"].value_counts()
        assert set(times.index) == set(database.ids[np.isin(database.groups, list(kept[share]))])
        assert times.max() - times.min() <= 1
    assert kept[0.25] < kept[0.5]
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match="label_share.*at most 1"):
            controlled(Config(label_share=wrong), database, queries)


def test_one_scanner_asks_networks_that_saw_none_of_its_images_or_patients(sides):
    """The fold is left out; a patient seen by two scanners is not in the training."""
    before, left_out = sides
    device = np.where(np.arange(len(before)) % 3 == 0, UNSEEN, "another")
    groups = before.groups.copy()
    groups[1] = groups[0]  # this one was examined with both
    database = replace(before, table=before.table.assign(device=device, group=groups))
    training, searched, queries = controlled(Config(control="scanner"), database, left_out)
    assert set(queries.ids) == set(before.ids[device == UNSEEN])
    assert set(searched.table["device"]) == {"another"} and len(searched) == len(set(searched.ids))
    assert not set(searched.groups) & set(queries.groups) and before.ids[1] not in searched.ids
    alone = set(before.ids[device == "another"]) - set(before.ids[np.isin(groups, groups[device == UNSEEN])])
    assert set(searched.ids) == set(training.ids) == alone
    times = training.table["case_id"].value_counts()
    assert len(training) == len(before) and times.max() - times.min() <= 1
    with pytest.raises(ValueError, match="no case whose device is"):
        controlled(Config(control="scanner"), *sides)


def test_runs_under_a_control_write_rows_of_their_own(tmp_path, monkeypatch, draw_cases, tiny_config):
    monkeypatch.setenv("YNET_OUT", str(tmp_path))
    cases, found = draw_cases(48), {}
    for changes in ({}, {"control": "labels shuffled"}, {"control": "masks other"}, {"label_share": 0.25}):
        cfg = tiny_config.but(**changes)
        rows = store.read_run(run.run(cfg, cases, progress=False))
        assert set(rows["run_id"]) == {provenance.run_id(cfg, cases.fingerprint)}
        found[cfg.hash()] = rows.set_index(["metric", "k"])["value"]
        assert found[cfg.hash()]["map", 10] > 0
    assert len(found) == 4 and len(list((tmp_path / "checkpoints").glob("*.safetensors"))) == 4


def test_planned_controls():
    plans = {name: second.PLANS[name][1]("scratch") for name in ("controls", "outlines")}
    assert {cfg.fold for cfgs in plans.values() for cfg in cfgs} == {2, 3, 4, 5}
    assert {cfg.seed for cfgs in plans.values() for cfg in cfgs} == {0}
    assert len(plans["controls"]) == 3 * 4 and {cfg.method for cfg in plans["controls"]} == {"ynet-no-seg"}
    everything = [cfg for cfgs in plans.values() for cfg in cfgs]
    assert len({provenance.run_id(cfg) for cfg in everything}) == len(everything)
    assert not any(run.keeps_codes(cfg) for cfg in everything)
    assert {(cfg.lr, cfg.pair_sharpness) for cfg in plans["controls"]} == {second.CHOSEN["scratch"]["ynet-no-seg"]}
    scanner = second.PLANS["scanner"][1]("pretrained")
    names = [(cfg.method, cfg.seed, cfg.variant.removeprefix("scanner unseen")) for cfg in scanner]
    same = ", settings of ynet"
    assert names == [(m, s, v) for s in (0, 1) for m, v in (("ynet", ""), ("ynet-no-seg", ""), ("ynet-no-seg", same))]
    assert {cfg.fold for cfg in scanner} == {1} and {cfg.control for cfg in scanner} == {"scanner"}
    rates = {(cfg.method, cfg.variant): (cfg.lr, cfg.pair_sharpness) for cfg in scanner}
    assert rates["ynet-no-seg", "scanner unseen" + same] == rates["ynet", "scanner unseen"] == second.CHOSEN["pretrained"]["ynet"]
    assert rates["ynet-no-seg", "scanner unseen"] == second.CHOSEN["pretrained"]["ynet-no-seg"]
    assert second.PLANS["controls"][1]("busi") == []  # its normal cases have no lesion
