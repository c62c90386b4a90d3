"""The study: maps of a network, spaces of codes, criteria by hand and by bootstrap, the page from rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from ynet_lite import attribution, paths
from ynet_lite.checkpoint import Checkpoint
from ynet_lite.config import Config
from ynet_lite.encoding import encode_floats
from ynet_lite.model import YNet
from ynet_lite.paper import select, statistics, store
from ynet_lite.paper.ambiguity import criteria, embedding, measure, page, plots
from ynet_lite.sets import load_cases

SMALL = {"phantom_cases": 60, "size": 48, "epochs": 1, "planes": (4, 4, 8, 8), "blocks": 1, "fpn": 8, "batch": 16}


def untrained(cfg: Config, cases, seed: int = 0) -> Checkpoint:
    """A network with random weights: what is measured does not depend on how it was trained."""
    torch.manual_seed(seed)
    model = YNet(cfg, len(cases.class_names), len(cases.mask_names)).eval()
    return Checkpoint(model, cfg, cases.fingerprint, cases.class_names, cases.mask_names)


def small(method: str = "ynet", **changes) -> Config:
    return Config.from_preset("quick", "phantom", method, **SMALL, **changes)


@pytest.fixture(scope="module")
def phantom():
    return load_cases(small()).split(1)


# --- what does not depend on the network -----------------------------------------------------------------------------


def test_outlined_rows_leave_out_unknown_and_empty_outlines(tiny_cases):
    cases = replace(tiny_cases, has_mask=np.arange(48) != 3, masks=tiny_cases.masks * (np.arange(48) != 5)[:, None, None])
    assert measure.outlined_rows(cases).tolist() == [i for i in range(48) if i not in (3, 5)]
    some = measure.outlined_rows(cases, 10)
    assert len(set(some)) == 10 and np.array_equal(some, np.sort(some)) and not {3, 5} & set(some)
    assert np.array_equal(some, measure.outlined_rows(cases, 10))
    assert not np.array_equal(some, measure.outlined_rows(cases)[:10])  # not simply the first ones


# --- one network -----------------------------------------------------------------------------------------------------


def test_neighbour_maps_ask_for_the_nearest_code_of_the_own_class(tiny_cases, tiny_config):
    database, queries = tiny_cases.split(1)
    checkpoint = untrained(tiny_config, tiny_cases)
    codes = encode_floats(checkpoint.model, tiny_config, database)["code"]
    maps = measure.neighbour_maps(checkpoint, queries.take([0, 5]), codes, database.labels)
    bits = encode_floats(checkpoint.model, tiny_config, queries.take([5]))["code"] >= 0
    gap = [
        np.sum(bits[0] != (code >= 0)) if label == queries.labels[5] else 99
        for code, label in zip(codes, database.labels, strict=True)
    ]
    target = attribution.similarity_to(codes[int(np.argmin(gap))])
    alone = attribution.grad_cam(checkpoint.model, tiny_config, queries.images[[5]], target, level=4)[0]
    np.testing.assert_array_equal(maps[1], alone)
    gone = measure.neighbour_maps(
        checkpoint, queries.take([0]), codes[database.labels == 1], database.labels[database.labels == 1]
    )
    assert np.isnan(gone).all() == (queries.labels[0] == 0)


# --- the space of codes ----------------------------------------------------------------------------------------------


def test_purity_by_hand():
    # a line of cases at 0, 1, 2, 3; the first two are one patient
    at = np.array([0.0, 1, 2, 3])
    distance = abs(at[:, None] - at)
    labels, groups = ["x", "x", "y", "x"], ["p", "p", "q", "r"]
    # case 0 sees 2, 3 -> 1/2; case 1 sees 2, 3 -> 1/2; case 2 sees a tie of 1 and 3 -> 0; case 3 sees 2, 1 -> 1/2
    assert embedding.knn_purity(distance, labels, groups, 2).tolist() == [0.5, 0.5, 0.0, 0.5]
    # one neighbour: the nearest, or half of a tie
    assert embedding.knn_purity(distance, ["x", "x", "y", "y"], groups, 1).tolist() == [0.0, 0.0, 0.5, 1.0]
    assert embedding.knn_purity(distance, labels, groups, 50).tolist() == [0.5, 0.5, 0.0, pytest.approx(2 / 3)]
    assert np.isnan(embedding.knn_purity(distance, labels, ["p"] * 4)).all()
    numbers = embedding.space_numbers(distance, labels, groups, 1)
    assert numbers["chance"] == pytest.approx((0.5 + 0.5 + 0 + 2 / 3) / 4)
    assert np.isnan(embedding.space_numbers(distance, ["x"] * 4, groups)["silhouette"])
    with pytest.raises(ValueError, match="knn_purity: distances"):
        embedding.knn_purity(distance[:3], labels, groups)


def test_silhouette_by_hand():
    at = np.array([0.0, 1, 10, 11])
    found = embedding.space_numbers(abs(at[:, None] - at), [0, 0, 1, 1], range(4), 1)
    # outer cases: own 1, other (10 + 11) / 2; inner ones: own 1, other (9 + 10) / 2
    assert found["silhouette"] == pytest.approx(((1 - 1 / 10.5) + (1 - 1 / 9.5)) / 2)
    assert found["purity"] == 1


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where `write` leaves runs, which `packed` makes the committed results."""
    monkeypatch.setattr(paths, "results", lambda: tmp_path / "results")
    for name in ("YNET_DATASET", "YNET_PRESET", "YNET_DATA_DIR", "YNET_MANIFEST", "YNET_CHANNELS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "out"


def packed(folder, part="ambiguity") -> pd.DataFrame:
    """What `write` left as committed rows of the study; ``part`` "": of the runs themselves."""
    store.pack(folder, paths.results() / "first" / part)
    return select.published(part)


def levels(lines=()) -> pd.DataFrame:
    """Committed levels."""
    table = pd.DataFrame(lines, columns=["dataset", "fingerprint", "fold", "name", "metric", "k", "value"])
    paths.write_csv(table, paths.results() / "first" / "ambiguity" / "levels.csv")
    return table


def test_rows_and_kept_pictures_become_the_page(folder, phantom, monkeypatch):
    database, queries = phantom
    rng = np.random.default_rng(0)
    kept = {"ids": queries.ids, "answers": np.tile(database.ids[:5], (len(queries), 1)), "maps": np.zeros((len(queries), 16, 16))}
    for method in ("ynet", "ynet-no-seg"):
        for where, names in ((folder, [name for name, *_ in plots.PANELS]), (folder / "own", ["map"])):
            table = {name: dict(zip(queries.ids, rng.random(len(queries)), strict=True)) for name in names}
            write(where, method, 0, table, k=10 if names == ["map"] else 0)
    # the same cases, fewer of them
    monkeypatch.setattr(plots, "load_cases", lambda cfg: load_cases(small().but(size=cfg.size, seed=cfg.seed)))
    rows, _, _ = packed(folder), packed(folder / "own", ""), levels()
    pictures = paths.results() / "first" / "ambiguity" / "pictures"
    pictures.mkdir()
    for run in rows["run_id"].unique():
        np.savez_compressed(pictures / f"{run}.npz", **kept)
    figure = plots.before_after()
    assert len(figure.axes) == 2 * 2 * 7 + len(plots.PANELS)
    plt.close(figure)
    text = page.page()
    assert "## phantom, preset quick" in text and ("reached" in text or "missed" in text)
    assert page.page() == text  # the same rows, the same page


def test_without_rows_the_page_is_empty(folder):
    levels()
    assert page.page() == "" and list(select.published("ambiguity")) == store.COLUMNS


# --- what the rows say -----------------------------------------------------------------------------------------------


def write(folder, method, seed, table, fold=1, config_hash=None, dataset="phantom", k=0):
    """Rows and per-query values of a made-up run: {metric: {case: value}}."""
    run = f"{dataset}-{method}-{config_hash or method}-{fold}-{seed}"
    each = [(case, m, k, v) for m, part in table.items() for case, v in part.items()]
    each = pd.DataFrame(each, columns=["case_id", "metric", "k", "value"])
    each.insert(1, "group", each["case_id"].str.rsplit("-", n=1).str[0])
    paths.write_csv(each, folder / "per_query" / f"{run}.csv")
    about = {"run_id": run, "config_hash": config_hash or method, "dataset": dataset, "fingerprint": f"print{seed}", "fold": fold}
    about |= {
        "seed": seed,
        "encoder": "small",
        "preset": "quick",
        "method": method,
        "variant": "",
        "bits": 64,
        "k": k,
        "seconds": 1.0,
        "device": "cpu",
    }
    about |= {"versions": "", "commit": "abc", "dirty": False, "date": "2026-01-01"}
    rows = [{**about, "metric": m, "value": float(np.nanmean(list(part.values())))} for m, part in table.items()]
    paths.write_csv(pd.DataFrame(rows)[store.COLUMNS], folder / "runs" / f"{run}.csv")


def test_criteria_by_hand(folder):
    cases = [f"p{i:04d}-1" for i in range(4)]
    looks = "pointing"
    ours = {"spdd_error": dict(zip(cases, (0.1, 0.2, 0.3, 0.0), strict=True)), looks: dict.fromkeys(cases, 0.8)}
    twin = {"spdd_error": dict(zip(cases, (0.2, 0.4, 0.6, np.nan), strict=True)), looks: dict.fromkeys(cases, 0.5)}
    write(folder, "ynet", 0, ours | {"flips_background": dict.fromkeys(cases, 0.2)})
    write(folder, "ynet-no-seg", 0, twin | {"flips_background": dict.fromkeys(cases, 0.0)})
    found = criteria.criteria(packed(folder)).set_index("metric")
    spdd = found.loc["spdd_error"]
    # (.1 + .2 + .3) / (.2 + .4 + .6): the query that one method leaves undefined does not count; each query halves
    assert spdd["value"] == pytest.approx(0.5) and spdd["low"] == pytest.approx(0.5) and spdd["high"] == pytest.approx(0.5)
    assert spdd["reached"] and spdd["sure"] and spdd["queries"] == 3 and spdd["patients"] == 3 and spdd["runs"] == "1 x 1"
    pointing = found.loc[looks]
    assert pointing["value"] == pytest.approx(0.8) and not pointing["reached"] and pointing["sure"]
    # nothing to divide by
    flips = found.loc["flips_background"]
    assert np.isnan(flips["value"]) and not flips["reached"] and not flips["sure"]
    assert "flips_lesion" not in found.index and "map" not in found.index
    text = page.criteria_table(found.reset_index())
    assert text["aim"].tolist() == ["at most 70 %", "at most 50 %", "at least .90"]
    assert text["found [95 %]"].tolist() == ["50 [50, 50] %", "-", ".800 [.800, .800]"]
    assert text["verdict"].tolist() == ["reached", "missed, interval crosses the aim", "missed"]


def test_other_readings_are_shown_where_rows_hold_them(folder):
    cases = [f"p{i:04d}-1" for i in range(4)]
    for method, plain, half in (("ynet", 0.6, 0.2), ("ynet-no-seg", 0.55, 0.4)):
        table = {"": plain, "_half_pixel": half}
        energy = {f"energy_ratio{name}": dict.fromkeys(cases, 4 * value) for name, value in table.items()}
        write(folder, method, 0, energy | {f"pointing{name}": dict.fromkeys(cases, value) for name, value in table.items()})
    rows = packed(folder)
    found = criteria.criteria(rows).set_index("criterion")
    assert found.loc["attention energy in the lesion, Y-Net / twin", "value"] == pytest.approx(0.6 / 0.55)
    assert found.loc["other reading: both aligned by half a pixel", "value"] == pytest.approx(0.2 / 0.4)
    mixed = found.loc["other reading: Y-Net by half a pixel, its twin by the receptive field"]
    assert mixed["value"] == pytest.approx(0.2 / 0.55) and mixed["queries"] == 4
    half = found.loc["other reading: aligned by half a pixel"]
    assert half["value"] == half["low"] == pytest.approx(0.2) and half["queries"] == 4
    assert not any("cell by cell" in name for name in found.index)  # these rows lack it
    edges = levels([("phantom", "print0", 1, "edge map", "energy_ratio", 0, 1.25)])
    table = page.means_table(rows, edges, page.LOOKS).set_index("method")
    assert table.loc["edge map", "energy ratio"] == "1.250" and table.loc["edge map", "half-pixel"] == "-"
    assert table["energy ratio"].tolist()[:2] == ["2.400", "2.200"] and table["half-pixel"].tolist()[:2] == [".800", "1.600"]


def test_of_committed_rows_the_plain_names_are_read_by_the_receptive_field():
    rows, keys = select.published("ambiguity"), ["run_id", "case_id"]
    for name in ("energy_ratio", "pointing"):
        for table, key in ((rows, ["run_id"]), (store.per_query(rows["run_id"].unique(), part="ambiguity"), keys)):
            plain, ruled = (table[table["metric"] == n].set_index(key)["value"] for n in (name, f"{name}_receptive_field"))
            pd.testing.assert_series_equal(plain, ruled)


def test_an_interval_over_the_aim_is_said(folder):
    cases = [f"p{i:04d}-1" for i in range(30)]
    values = np.random.default_rng(0).uniform(0.2, 1, 30)
    write(folder, "ynet", 0, {"spdd_error": dict(zip(cases, values * 0.68, strict=True))})
    write(folder, "ynet-no-seg", 0, {"spdd_error": dict(zip(cases, values[::-1], strict=True))})
    found = criteria.criteria(packed(folder))
    one = found.iloc[0]
    assert one["value"] == pytest.approx(0.68) and one["low"] < 0.7 < one["high"]
    assert one["reached"] and not one["sure"]
    assert page.criteria_table(found)["verdict"].item() == "reached, interval crosses the aim"


def test_gain_by_third_by_hand_and_against_a_slow_bootstrap(folder):
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(60), 2)
    cases = np.array([f"bus_{i:04d}-{view}" for i, view in zip(patient, "lr" * 60, strict=True)])
    ambiguous = rng.random(120) < 0.4
    twin = rng.uniform(0, 0.6, 120)
    ours = twin + np.where(ambiguous, 0.2, 0.05) + rng.normal(0, 0.1, 120) + 0.1 * rng.standard_normal(60)[patient]
    parts = {"map_ambiguous": ambiguous, "map_clear": ~ambiguous}

    def table(values):
        return {name: dict(zip(cases[own], values[own], strict=True)) for name, own in parts.items()}

    write(folder, "ynet", 0, table(ours), dataset="busbra")
    write(folder, "ynet-no-seg", 0, table(twin), dataset="busbra")
    one = criteria.criteria(packed(folder)).set_index("metric").loc["map"]
    gain = ours - twin
    assert one["value"] == pytest.approx(100 * (gain[ambiguous].mean() - gain[~ambiguous].mean()), abs=1e-3)
    again = []
    for _ in range(2000):
        rows = (2 * rng.integers(0, 60, 60)[:, None] + (0, 1)).ravel()
        mine = ambiguous[rows]
        again.append(100 * (gain[rows][mine].mean() - gain[rows][~mine].mean()))
    np.testing.assert_allclose([one["low"], one["high"]], np.quantile(again, [0.025, 0.975]), atol=0.6)
    assert one["patients"] == 60 and one["queries"] == 120 and one["kind"] == "thirds"


def test_thirds_of_other_queries_are_an_error():
    a = pd.DataFrame({"fingerprint": "f", "fold": 1, "case_id": ["x", "y"], "value": [0.1, 0.2], "runs": 1})
    with pytest.raises(ValueError, match="must answer the same queries"):
        criteria.third_gain([a, a], [a, a.iloc[:1]])


def test_values_of_the_study_are_read_as_others(folder):
    for seed in range(2):
        write(folder, "ynet", seed, {"pointing": {"p0000-1": float(seed), "p0001-1": 1.0}})
    rows = packed(folder)
    found = statistics.per_query_table(rows.assign(fingerprint="same"), "pointing", part="ambiguity")
    assert found["value"].tolist() == [0.5, 1.0] and found["runs"].tolist() == [2, 2]
    # another draw of the phantom has other queries under the same names
    assert len(statistics.per_query_table(rows, "pointing", part="ambiguity")) == 4
    with pytest.raises(ValueError, match="has no spdd_error"):
        statistics.per_query_table(rows, "spdd_error", part="ambiguity")


def test_shown_queries_follow_their_rule():
    cases = [f"c{i:02d}" for i in range(11)]
    twin = pd.DataFrame({"case_id": cases, "value": np.linspace(0, 1, 11)})
    ours = pd.DataFrame({"case_id": cases[::-1], "value": 1.0})
    assert plots.shown_queries(ours, twin) == ["c01", "c09"]  # gains of .9 and .1
    assert plots.shown_queries(ours, twin.assign(value=[np.nan] * 10 + [0.3]), (1.0,)) == ["c10"]
    with pytest.raises(ValueError, match="no query has a value"):
        plots.shown_queries(ours, twin.assign(value=np.nan))


def test_a_map_lies_on_the_image_whatever_its_size():
    """A bright quarter of a 2 x 2 map covers the same quarter of the drawn image."""
    cases = load_cases(small())
    figure, axis = plt.subplots()
    plots.overlay(axis, cases, 0, np.array([[1.0, 0.0], [0.0, 0.0]]))
    drawn = axis.images[-1]
    assert drawn.get_extent() == [-0.5, 47.5, 47.5, -0.5]
    assert axis.get_xlim() == (-0.5, 47.5) and axis.get_ylim() == (47.5, -0.5)
    plt.close(figure)
