"""The study: the page from rows, the criteria against their rows."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from ynet_lite import paths
from ynet_lite.config import Config
from ynet_lite.paper import select, statistics, store
from ynet_lite.paper.ambiguity import page, plots
from ynet_lite.sets import load_cases

SMALL = {"phantom_cases": 60, "size": 48, "epochs": 1, "planes": (4, 4, 8, 8), "blocks": 1, "fpn": 8, "batch": 16}


def small(method: str = "ynet", **changes) -> Config:
    return Config.from_preset("quick", "phantom", method, **SMALL, **changes)


@pytest.fixture(scope="module")
def phantom():
    return load_cases(small()).split(1)


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


COMMITTED = paths.results() / "first" / "ambiguity"


def levels(lines=()) -> pd.DataFrame:
    """Committed levels."""
    table = pd.DataFrame(lines, columns=["dataset", "fingerprint", "fold", "name", "metric", "k", "value"])
    paths.write_csv(table, paths.results() / "first" / "ambiguity" / "levels.csv")
    return table


def test_rows_and_kept_pictures_become_the_page(folder, phantom, monkeypatch):
    database, queries = phantom
    rng = np.random.default_rng(0)
    kept = {"ids": queries.ids, "answers": np.tile(database.ids[:5], (len(queries), 1)), "maps": np.zeros((len(queries), 16, 16))}
    precision = {}
    for method in ("ynet", "ynet-no-seg"):
        for where, names in ((folder, [name for name, *_ in plots.PANELS]), (folder / "own", ["map"])):
            table = {name: dict(zip(queries.ids, rng.random(len(queries)), strict=True)) for name in names}
            write(where, method, 0, table, k=10 if names == ["map"] else 0)
        precision[method] = table["map"]
    # the same cases, fewer of them
    monkeypatch.setattr(plots, "load_cases", lambda cfg: load_cases(small().but(size=cfg.size, seed=cfg.seed)))
    rows, _, _ = packed(folder), packed(folder / "own", ""), levels()
    shutil.copy(COMMITTED / "criteria.csv", paths.results() / "first" / "ambiguity")
    pictures = paths.results() / "first" / "ambiguity" / "pictures"
    pictures.mkdir()
    for run in rows["run_id"].unique():
        np.savez_compressed(pictures / f"{run}.npz", **kept)
    shown, drawn = [], plots._one_query

    def one_query(*given):
        shown.append(given[3])
        drawn(*given)

    monkeypatch.setattr(plots, "_one_query", one_query)
    figure = plots.before_after()
    assert len(figure.axes) == 2 * 2 * 7 + len(plots.PANELS)
    ranked = sorted(queries.ids, key=lambda case: precision["ynet"][case] - precision["ynet-no-seg"][case])
    assert shown == [ranked[round(share * (len(ranked) - 1))] for share in (0.9, 0.1)]
    plt.close(figure)
    text = page.page()
    assert text.startswith("## phantom, preset quick\n") and "## busbra" not in text
    assert "| at most 70 % | 61 [48, 76] % | reached, interval crosses the aim | 783 | 526 | 5 x 1 |" in text
    (value,) = rows[(rows["method"] == "ynet") & (rows["metric"] == "spdd_error")]["value"]
    assert f"| Y-Net (ours) | 1 | {value:.3f} |".replace(" 0.", " .") in text
    assert page.page() == text  # the same rows, the same page


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


def test_means_stand_beside_the_levels_of_their_sets(folder):
    cases = [f"p{i:04d}-1" for i in range(4)]
    for method, plain, half in (("ynet", 2.4, 0.8), ("ynet-no-seg", 2.2, 1.6)):
        readings = {"energy_ratio": plain, "energy_ratio_half_pixel": half}
        write(folder, method, 0, {name: dict.fromkeys(cases, value) for name, value in readings.items()})
    prints = {"print0": 1.25, "of another phantom": 9}
    edges = levels([("phantom", name, 1, "edge map", "energy_ratio", 0, value) for name, value in prints.items()])
    table = page.means_table(packed(folder), edges, page.LOOKS).set_index("method")
    assert table.loc["edge map", "energy ratio"] == "1.250" and table.loc["edge map", "half-pixel"] == "-"
    assert table["energy ratio"].tolist()[:2] == ["2.400", "2.200"] and table["half-pixel"].tolist()[:2] == [".800", "1.600"]


def test_of_committed_rows_the_plain_names_are_read_by_the_receptive_field():
    rows, keys = select.published("ambiguity"), ["run_id", "case_id"]
    for name in ("energy_ratio", "pointing"):
        for table, key in ((rows, ["run_id"]), (store.per_query(rows["run_id"].unique(), part="ambiguity"), keys)):
            plain, ruled = (table[table["metric"] == n].set_index(key)["value"] for n in (name, f"{name}_receptive_field"))
            pd.testing.assert_series_equal(plain, ruled)


TABLES = pd.read_csv(COMMITTED / "criteria.csv", dtype=store.TEXT).fillna("").groupby(["dataset", "preset", "variant", "part"])


@pytest.fixture(params=[name for name, _ in TABLES], ids="-".join)
def criteria(request):
    """(lines of the committed table, values per query of their rows: a line per query, a column per method and metric)."""
    dataset, preset, variant, part = request.param
    rows = dict(select.parts(select.select(select.published("ambiguity"), dataset, preset, variant)))[part]
    values = store.per_query(rows["run_id"].unique(), part="ambiguity")
    values = values.merge(rows[["run_id", "method", "fingerprint", "fold"]].drop_duplicates(), on="run_id")
    query = ["fingerprint", "fold", "case_id", "group"]
    return TABLES.get_group(request.param), values.pivot(index=query, columns=["method", "metric"], values="value")


def pair_of(line, values) -> pd.DataFrame:
    """What Y-Net (a) and its twin (b) have on the queries of a criterion."""
    other = "energy_ratio" if "its twin by the receptive field" in line.criterion else line.metric
    return pd.DataFrame({"a": values["ynet", line.metric], "b": values["ynet-no-seg", other]}).dropna()


def test_criteria_are_the_means_of_their_rows(criteria):
    table, values = criteria
    assert len(table) == 11
    for line in table.itertuples():
        if line.aim.startswith("above"):  # gain on the ambiguous third minus gain on the clear one
            gains = [values["ynet", name] - values["ynet-no-seg", name] for name in ("map_ambiguous", "map_clear")]
            expected = 100 * (gains[0].mean() - gains[1].mean())
            asked = pd.concat(gains).dropna()
        elif line.aim.endswith("%"):
            asked = pair_of(line, values)
            expected = asked["a"].mean() / asked["b"].mean()
        else:
            asked = values["ynet", line.metric].dropna()
            expected = asked.mean()
        assert line.value == pytest.approx(expected, rel=1e-9), line.criterion
        patients = asked.reset_index()[["fingerprint", "group"]].drop_duplicates()
        assert (line.queries, line.patients) == (len(asked), len(patients)), line.criterion
    sets = values.reset_index()[["fingerprint", "fold"]].drop_duplicates()
    assert set(table["sets x trainings"]) == {f"{len(sets)} x 1"}


def test_intervals_of_criteria_are_those_of_a_bootstrap(criteria):
    table, values = criteria
    for metric in ("flips_background", "pointing"):
        line = next(table[table["metric"] == metric].itertuples())
        both = pair_of(line, values).reset_index()
        a, b = (both.assign(value=both[name]) for name in "ab")
        if metric == "pointing":
            ends = statistics.bootstrap_mean(a, a)[1:]
        else:
            ends = [1 + end / 100 for end in statistics.paired(a, b, a).relative[1:]]
        assert (line.low, line.high) == pytest.approx(tuple(ends), rel=1e-9)


def test_a_gain_by_third_has_the_interval_of_a_slow_bootstrap(criteria):
    table, values = criteria
    lines = table[table["aim"] == "above 0"]
    assert len(lines) == (table["dataset"].iloc[0] == "busbra")  # the phantom has no thirds
    for line in lines.itertuples():
        gain = {name: values["ynet", name] - values["ynet-no-seg", name] for name in ("map_ambiguous", "map_clear")}
        patients = pd.DataFrame(gain).groupby(["fingerprint", "group"])
        sums, counts = patients.sum().to_numpy(), patients.count().to_numpy()
        rng, again = np.random.default_rng(0), []
        for _ in range(2000):
            drawn = rng.integers(0, len(sums), len(sums))
            first, second = sums[drawn].sum(0) / counts[drawn].sum(0)
            again.append(100 * (first - second))
        np.testing.assert_allclose((line.low, line.high), np.quantile(again, [0.025, 0.975]), atol=0.6)


def test_criteria_say_what_their_numbers_say(criteria):
    table, _ = criteria
    for line in table.itertuples():
        numbers, (words, aim) = (line.value, line.low, line.high), re.fullmatch(r"(\D+) ([.\d]+)(?: %)?", line.aim).groups()
        aim = float(aim) / (100 if line.aim.endswith("%") else 1)
        good = [{"at most": one <= aim, "at least": one >= aim, "above": one > aim}[words] for one in numbers]
        crosses = "" if len(set(good)) == 1 else ", interval crosses the aim"
        assert line.verdict == ("reached" if good[0] else "missed") + crosses
        factor, digits, unit = (100, 0, " %") if line.aim.endswith("%") else (1, 1, "") if words == "above" else (1, 3, "")
        value, low, high = (f"{factor * one:.{digits}f}" for one in numbers)
        shown = f"{value} [{low}, {high}]{unit}"
        assert table.loc[line.Index, "found [95 %]"] == (shown.replace("0.", ".") if digits == 3 else shown)


def test_a_map_lies_on_the_image_whatever_its_size():
    """A bright quarter of a 2 x 2 map covers the same quarter of the drawn image."""
    cases = load_cases(small())
    figure, axis = plt.subplots()
    plots.overlay(axis, cases, 0, np.array([[1.0, 0.0], [0.0, 0.0]]))
    drawn = axis.images[-1]
    assert drawn.get_extent() == [-0.5, 47.5, 47.5, -0.5]
    assert axis.get_xlim() == (-0.5, 47.5) and axis.get_ylim() == (47.5, -0.5)
    plt.close(figure)
