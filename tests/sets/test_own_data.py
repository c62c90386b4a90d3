"""Own data through a CSV: everything at once that a real set may bring, from the files to result rows."""

from __future__ import annotations

import numpy as np
import pytest
from own_set import DISEASES, SIDE, disc, make_set
from PIL import Image

from ynet_lite.cases.manifest import ManifestError
from ynet_lite.cases.outlines import outlined
from ynet_lite.config import Config
from ynet_lite.paper import run, store
from ynet_lite.sets import load_cases
from ynet_lite.training import load_or_train

TINY = {"size": SIDE, "planes": (4, 4, 8, 8), "blocks": 1, "fpn": 8, "bits": 16, "epochs": 1, "batch": 8, "validation": 0.2}


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("YNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("YNET_OUT", str(tmp_path / "out"))
    monkeypatch.delenv("YNET_MANIFEST", raising=False)


def config(folder, **changes) -> Config:
    return Config(dataset="csv", manifest=str(folder / "mine.csv"), **TINY).but(**changes)


def test_three_diseases_two_mask_classes_and_missing_masks_are_read(tmp_path):
    table = make_set(tmp_path / "set")
    cases = load_cases(config(tmp_path / "set"))
    assert cases.class_names == DISEASES and np.bincount(cases.labels).tolist() == [16, 16, 16]
    assert cases.mask_names == ("background", "organ", "lesion") and cases.finer == ("finer",)
    assert cases.has_mask.tolist() == [i % 5 != 0 or i % 10 == 0 for i in range(48)]
    assert not cases.masks[~cases.has_mask].any() and not cases.masks[::10].any()
    organ = disc(16, 16, 12)
    for i in (3, 1, 2, 47):  # no lesion, one, two, and the last case with two
        files = table["mask"][i].split(";")
        assert len(files) == 1 + i % 3
        masks = [np.asarray(Image.open(tmp_path / "set" / name)) for name in files]
        expected = np.zeros((SIDE, SIDE), np.uint8)
        for y in range(SIDE):
            for x in range(SIDE):
                expected[y, x] = max(mask[y, x] for mask in masks)
        assert (cases.masks[i] == expected).all() and (expected[organ] >= 1).all()
    assert (cases.masks[2] == 2).sum() > (np.asarray(Image.open(tmp_path / "set" / "2_mask_1.png")) == 2).sum()  # a real union


def test_grey_colour_and_deep_images_stand_side_by_side(tmp_path):
    make_set(tmp_path / "set")
    one, three = load_cases(config(tmp_path / "set")), load_cases(config(tmp_path / "set", channels=3))
    assert one.images.shape == (48, 1, SIDE, SIDE) and three.images.shape == (48, 3, SIDE, SIDE)
    assert (three.images[0] == one.images[0]).all()  # grey, repeated
    assert (three.images[1, 0] != three.images[1, 2]).any()
    luminance = np.array([0.299, 0.587, 0.114]) @ three.images[1].reshape(3, -1)
    assert np.abs(one.images[1].ravel() - luminance).max() <= 1
    deep = one.images[2:4].reshape(2, -1)  # 16 bit: by the bits that the set uses, never stretched one by one
    assert deep.max() > 100 and 0 < deep.max(axis=1).min() < 100


@pytest.mark.parametrize("changes", [{}, {"channels": 3}, {"method": "ynet-no-seg", "balance": 1.0, "pooling": "rmac"}])
def test_one_epoch_from_files_to_rows(tmp_path, changes):
    make_set(tmp_path / "set")
    cfg = config(tmp_path / "set", **changes)
    cases = load_cases(cfg)
    database, queries = cases.split()
    assert len(queries) == 12 and not set(database.groups) & set(queries.groups)
    known = outlined(database, 1.0, 0)
    assert known.any() and not known.all() and (known == database.has_mask).all()
    rows = store.read_run(run.run(cfg, cases, progress=False))
    value = rows.set_index(["metric", "k"])["value"]
    assert 0 < value["map", 5] <= 1 and 0 <= value["ndcg", 5] <= 1 and np.isfinite(value["map_macro", 5])
    assert ("dice" in set(rows["metric"])) == cfg.uses_masks
    model = load_or_train(cfg, database, progress=False)
    assert np.isfinite(model.history["loss"]).all()
    if cfg.uses_masks:
        assert model.model.segmentation.head.out_channels == 3 and (model.history["seg_ce"] > 0).all()


def test_a_set_without_any_mask_trains_without_segmentation(tmp_path):
    table = make_set(tmp_path / "set").drop(columns=["mask", "mask_names", "finer"])
    table.to_csv(tmp_path / "set" / "mine.csv", index=False)
    cfg = config(tmp_path / "set", method="ynet-no-seg", balance=1.0, pooling="rmac")
    cases = load_cases(cfg)
    assert not cases.has_mask.any() and cases.mask_names == ("background", "lesion") and cases.finer == ()
    rows = store.read_run(run.run(cfg, cases, progress=False))
    assert rows[(rows["metric"] == "map") & (rows["k"] == 5)]["value"].between(0, 1).all() and "dice" not in set(rows["metric"])


def test_a_fold_that_is_not_there_is_told_which_ones_are(tmp_path):
    table = make_set(tmp_path / "set")
    table = table.assign(fold=(table["split"] == "test").astype(int))
    table.to_csv(tmp_path / "set" / "mine.csv", index=False)
    with pytest.raises(ManifestError, match="both fold and split"):
        load_cases(config(tmp_path / "set"))
    table.drop(columns="split").to_csv(tmp_path / "set" / "mine.csv", index=False)
    cases = load_cases(config(tmp_path / "set"))
    with pytest.raises(ValueError, match=r"fold 9 has 0 queries of 48 cases; both sides need cases; folds are \[0, 1\]"):
        cases.split(9)


def test_two_csv_sets_differ_in_fingerprint_and_checkpoint(tmp_path):
    # a path to a manifest is no part of the settings' hash: only the fingerprint tells two such runs apart
    sets = []
    for seed in (0, 1):
        make_set(tmp_path / str(seed), seed)
        cfg = config(tmp_path / str(seed))
        cases = load_cases(cfg)
        sets.append((cases.fingerprint, store.read_run(run.run(cfg, cases, folder=tmp_path / f"r{seed}", progress=False))))
    (first, rows), (second, others) = sets
    assert first != second and set(rows["fingerprint"]) == {first} and set(others["fingerprint"]) == {second}
    assert len(list((tmp_path / "out" / "checkpoints").glob("*.safetensors"))) == 2


def test_a_mask_of_half_or_double_size_is_taken_and_others_are_refused(tmp_path):
    table = make_set(tmp_path / "set")
    folder = tmp_path / "set"
    masks = [disc(16, 16, 12).astype(np.uint8), disc(8, 20, 5).astype(np.uint8)]
    small, large = masks[0][::2, ::2], np.kron(masks[1], np.ones((4, 4), np.uint8))
    Image.fromarray(small).save(folder / "1_mask_0.png")
    Image.fromarray(large).save(folder / "2_mask_0.png")
    table.assign(mask=["" if i not in (1, 2) else f"{i}_mask_0.png" for i in range(48)]).to_csv(folder / "mine.csv", index=False)
    cases = load_cases(config(folder))
    assert (cases.masks[1] == np.kron(small, np.ones((2, 2), np.uint8))).all() and (cases.masks[2] == masks[1]).all()
    for shape in ((SIDE, SIDE // 2), (SIDE * 3, SIDE * 3), (SIDE // 2, SIDE * 2), (SIDE - 1, SIDE)):
        Image.fromarray(np.zeros(shape, np.uint8)).save(folder / "2_mask_0.png")
        with pytest.raises(ManifestError, match=rf"row 4: .* the mask has {shape[1]} x {shape[0]} pixels, its image 32 x 32"):
            load_cases(config(folder))


def test_mask_values_are_declared_in_the_manifest(tmp_path):
    table = make_set(tmp_path / "set")
    expected = load_cases(config(tmp_path / "set"))
    for name in {part for cell in table["mask"] for part in str(cell).split(";") if part.endswith(".png")}:
        mask = np.asarray(Image.open(tmp_path / "set" / name))
        Image.fromarray(np.array([0, 128, 255], np.uint8)[mask]).save(tmp_path / "set" / name)
    place = tmp_path / "set" / "mine.csv"
    table.assign(mask_values="0;128;255").to_csv(place, index=False)
    assert (load_cases(config(tmp_path / "set")).masks == expected.masks).all()
    for wrong in ("0;128", "0;128;#ff0000", "0;0;255", "black;grey;white"):
        table.assign(mask_values=wrong).to_csv(place, index=False)
        with pytest.raises(ManifestError, match="mask_values"):
            load_cases(config(tmp_path / "set"))


def test_a_comma_at_the_end_of_the_rows_is_named(tmp_path):
    make_set(tmp_path / "set")
    place = tmp_path / "set" / "mine.csv"
    first, *rows = place.read_text().splitlines()
    place.write_text("\n".join([first, *(row + "," for row in rows)]))
    with pytest.raises(ManifestError, match="comma at the end of the rows"):
        load_cases(config(tmp_path / "set"))
