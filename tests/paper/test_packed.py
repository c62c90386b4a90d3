"""The first edition is frozen: what the packed tables say is, digit by digit, what the runs wrote."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from ynet_lite import paths
from ynet_lite.config import Config
from ynet_lite.hashing import Codes
from ynet_lite.paper import store

#: Number and sha256 of the sorted lines of one file per run, taken before they were packed.
GOLDEN = {
    "runs": (25647, "0c9b17bc61fa3dab762cfee3775882726bde41a05be15cf0ae6a4f3f69d429b6"),
    "values": (1047292, "0a758666c401dc06387e49f4ab236c88369ea0997e193f3f7ce3c71eeb0001bf"),
    "ambiguity/runs": (880, "5ef1a761e016800317a4ec3c916faf5ca75fac5c5d70b6fc6d1873918b0b1c24"),
    "ambiguity/values": (170933, "5432a0e0b15831e69e4a012d02ea512874502c6e5ddb9b0cb2decc34573a86a6"),
    "tuning/trials": (156, "3eda599088cfd9390486d036a179d4d9995204e40a385178fc04b26c1c500834"),
    "tuning/balance": (12, "a102c7bc19b325fb3bf3797049918d952b6bea122c04766b9ba055bc0a96db0c"),
    "ambiguity/levels": (225, "2bfaac9287a60a814c94977d2adae5657abf11dc58d2df013f47ed00aadf2fac"),
    "ambiguity/alignment": (86, "d9ef55fd73165b707514e97a5dc364af39ed7850744ad85aeb32ee9c744a0e54"),
    "configs": (163, "521c38db77590b798dcc2c2ab52c779aca2939d34061baca6008b18d3735cf17"),
    "codes": (275600, "d308ee1d6e32e67a72b135627cc8aee74e75d54bbab7d2849cd2a58f0f804390"),
    "ambiguity/thirds": (1, "0b906cae0937e610cfe6445e48ce35e231854053276b228ea6d35edbcb1fb9cb"),
    "ambiguity/pictures": (2, "17e4ca59d9ffaf2afdc523b9d99fbbe28b204faae818271dbabaa4cc85a3fd36"),
}

#: Rows that were corrected after they were packed, with the reason: {run_id: reason}. None so far.
CORRECTED: dict[str, str] = {}


def cells(path):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.columns.tolist(), table.to_numpy().tolist()


def values(path):
    """{run: [(case or "", metric, k, text)]} of a wide table; a text of "" is an undefined value."""
    head, lines = cells(path)
    for line in lines:
        own = dict(zip(head, line, strict=True))
        undefined = own["undefined"].split()
        for name in head:
            if "@" in name and (own[name] or name in undefined):
                metric, k = name.split("@")
                yield own["run_id"], own.get("case_id", ""), metric, k, own[name]


def lines_of(kind: str, first):
    folder = first / kind.rpartition("/")[0]
    if kind.endswith("runs"):
        head, lines = cells(folder / "runs.csv")
        about = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
        order = [name for name in store.COLUMNS if name != "encoder"]
        for run, _, metric, k, value in values(folder / "scores.csv"):
            row = about[run] | {"metric": metric, "k": k, "value": value}
            yield "|".join(f"{name}={row[name]}" for name in order)
    elif kind.endswith("values"):
        for path in folder.glob("values-*.csv.gz"):
            for run, case, metric, k, value in values(path):
                yield f"run_id={run}|case_id={case}|metric={metric}|k={k}|value={value}"
    elif kind == "configs":
        for name, settings in json.loads((first / "configs.json").read_text()).items():
            yield f"{name} {json.dumps(settings, sort_keys=True)}"
    elif kind == "codes":
        # a later edition may keep codes of a training that this one only scored
        own = {name.rsplit(".", 1)[0] for path in first.glob("codes-*.npz") for name in np.load(path).files}
        for run in own & set(cells(first / "runs.csv")[1][i][0] for i in range(697)):
            for side, codes in (store.codes(run) or {}).items():
                for case, label, packed in zip(codes.ids, codes.labels, codes.packed, strict=True):
                    yield f"{run}.{side}|{case}|{label}|{packed.tobytes().hex()}|{codes.bits}"
    elif kind.endswith(("thirds", "pictures")):
        for path in (first / kind).iterdir():
            yield f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    else:
        head, lines = cells(first / f"{kind}.csv")
        for line in lines:
            yield "|".join(sorted(f"{name}={text}" for name, text in zip(head, line, strict=True) if text))


@pytest.mark.parametrize("kind", GOLDEN)
def test_not_one_packed_value_changes(kind):
    lines = sorted(lines_of(kind, paths.results() / "first"))
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()) == GOLDEN[kind] and not CORRECTED


def test_committed_tables_fit_together():
    assert store.verify() == []


def test_rows_and_values_per_query_are_the_long_tables_of_the_contract():
    rows, each = store.rows("first"), store.per_query(metric="map", k=10)
    assert list(rows) == store.COLUMNS and len(rows) == GOLDEN["runs"][0] and set(rows["encoder"]) == {"small"}
    assert list(each) == ["run_id", "case_id", "group", "metric", "k", "value"]
    means = each.groupby("run_id")["value"].mean()
    scores = rows[(rows["metric"] == "map") & (rows["k"] == 10)].set_index("run_id")["value"]
    assert (means.reindex(scores.index) - scores).abs().max() < 2e-6
    assert store.rows("first", "lite0").empty and len(store.per_query(part="ambiguity")) == GOLDEN["ambiguity/values"][0]


def left_by_a_runner(folder, seed: int, value: float = 0.25, bit: int = 1) -> str:
    cfg = Config.from_preset("full", "busi", "ynet", seed=seed)
    scores = pd.DataFrame({"metric": ["map", "ndcg"], "k": [10, 10], "value": [value, np.nan]})
    each = pd.DataFrame({"case_id": ["a", "b"], "group": ["p", "q"], "metric": "map", "k": 10, "value": [value, np.nan]})
    path = store.write_run(cfg, "f" * 64, scores, each, 1.0, folder, ("0012", False))
    for side, names in (("queries", ["b", "a"]), ("database", ["d", "c"])):
        codes = Codes(np.full((2, 8), bit, np.uint8), np.array(names), np.array([0, 1]), 64, "network")
        codes.save(folder / "codes" / f"{path.stem}.{side}.npz")
    return path.stem


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_packing_in_steps_again_or_at_once_gives_the_same_bytes(tmp_path, monkeypatch):
    runner, target = tmp_path / "out", tmp_path / "results" / "second" / "some"
    left_by_a_runner(runner, 1)
    store.pack(runner, target)
    runs = [left_by_a_runner(runner, 0, 0.5), left_by_a_runner(runner, 1)]
    assert store.pack(runner, target) == runs
    once = contents(target)
    assert {path.name for path in once} == {"runs.csv", "scores.csv", "configs.json", "values-busi.csv.gz", "codes-busi.npz"}
    store.pack(runner, target)
    store.pack(runner, tmp_path / "other")
    assert contents(target) == once == contents(tmp_path / "other")

    monkeypatch.setattr(paths, "results", lambda: tmp_path / "results")
    expected = store.read_runs(runner)
    pd.testing.assert_frame_equal(store.rows(), expected)  # NaN is kept apart from what was never computed
    pd.testing.assert_frame_equal(store.per_query(), store.per_query(folder=runner))
    assert (
        store.codes(runs[1])["queries"].ids.tolist() == ["b", "a"]
        and store.codes(runs[1])["database"].model == "network"
        and store.verify() == []
    )
    assert store.configs().keys() == {path.stem for path in (runner / "configs").iterdir()}


@pytest.mark.parametrize("change, what", [({"value": 0.75}, "scores"), ({"bit": 2}, "codes")])
def test_a_packed_value_does_not_change(tmp_path, change, what):
    runner, target = tmp_path / "out", tmp_path / "second"
    run = left_by_a_runner(runner, 0)
    store.pack(runner, target)
    left_by_a_runner(runner, 0, **change)
    with pytest.raises(ValueError, match=f"{run} is packed already with other {what}"):
        store.pack(runner, target)


def test_orphans_are_found(tmp_path, monkeypatch):
    target = tmp_path / "results" / "second" / "some"
    run = left_by_a_runner(tmp_path / "out", 0)
    store.pack(tmp_path / "out", target)
    (target / "configs.json").write_text("{}\n")
    left_by_a_runner(tmp_path / "out", 1)
    store.pack(tmp_path / "out", tmp_path / "more")
    for name in ("codes-busi.npz", "values-busi.csv.gz"):
        (target / name).write_bytes((tmp_path / "more" / name).read_bytes())
    monkeypatch.setattr(paths, "results", lambda: tmp_path / "results")
    found = "\n".join(store.verify())
    assert f"run {run}: no configuration" in found
    assert "values per query of" in found and "codes of" in found


def test_a_folder_of_results_that_is_absent_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "results", lambda: tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="part of the checkout, not of the installed package"):
        store.rows()
