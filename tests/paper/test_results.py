"""Result rows and the tables made from them."""

import numpy as np
import pandas as pd
import pytest

from ynet_lite import paths, provenance
from ynet_lite.config import Config
from ynet_lite.methods import METHOD_NAMES, METHODS
from ynet_lite.paper import store, tables

VALUES = pd.DataFrame(
    [("map", 5, 0.1234567), ("map", 10, 2 / 3), ("precision", 10, 0.5), ("distinct_codes", 0, 87.0)],
    columns=["metric", "k", "value"],
)
PER_QUERY = pd.DataFrame(
    [
        ("a", "map", 10, 0.25),
        ("a", "map", 5, 0.5),
        ("a", "recall", 10, 0.75),
        ("a", "dice", 0, 0.875),
        ("b", "map", 10, 1.0),
    ],
    columns=["case_id", "metric", "k", "value"],
)
PRINT = "0123456789abcdef0123"


def some(method="ynet", seed=0, value=0.5, metric="map", k=10, **more) -> pd.DataFrame:
    """One row as read back from a file."""
    cfg = Config.from_preset(method=method, seed=seed).but(**{key: more.pop(key) for key in ("dataset", "fold") if key in more})
    row = store.run_rows(cfg, PRINT, pd.DataFrame({"metric": [metric], "k": [k], "value": [value]}), 1.0)
    return row.assign(**more)


def table_of(*rows: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(rows, ignore_index=True)


# ---------------------------------------------------------------- rows


def test_a_file_that_is_being_written_is_not_read(tmp_path):
    with paths.replacing(tmp_path / "runs" / "a.csv") as half:
        half.write_text("run_id,metr")
        assert half.exists() and paths.listed(half.parent) == [] and store.read_runs(tmp_path).empty
    assert [path.name for path in paths.listed(tmp_path / "runs")] == ["a.csv"]


def test_columns_are_the_contract():
    assert store.COLUMNS == [
        "run_id", "config_hash", "dataset", "fingerprint", "fold", "seed", "preset", "encoder", "method", "variant", "bits",
        "metric", "k", "value", "seconds", "device", "versions", "commit", "dirty", "date",
    ]  # fmt: skip


def test_rows_say_where_a_number_comes_from():
    cfg = Config.from_preset("full", "busbra", "ynet-rmac", seed=2, fold=3, variant="a=0.25", balance=0.25)
    kept = VALUES.copy()
    table = store.run_rows(cfg, PRINT, VALUES, 12.5)
    assert list(table.columns) == store.COLUMNS and len(table) == 4
    assert not table.isna().any().any()
    pd.testing.assert_frame_equal(table[["metric", "k", "value"]], VALUES)
    first = table.iloc[0]
    assert first["run_id"] == f"busbra-ynet-rmac-{cfg.hash()}-3-2"
    assert first["fingerprint"] == PRINT[:16]
    assert (first["dataset"], first["preset"], first["method"], first["variant"]) == (
        "busbra",
        "full",
        "ynet-rmac",
        "a=0.25",
    )
    assert (first["fold"], first["seed"], first["bits"], first["seconds"]) == (3, 2, cfg.bits, 12.5)
    assert "torch=" in first["versions"] and "numpy=" in first["versions"]
    pd.testing.assert_frame_equal(VALUES, kept)  # not modified


def test_run_id_tells_settings_folds_and_seeds_apart():
    cfg = Config()
    names = [provenance.run_id(c) for c in (cfg, cfg.but(seed=1), cfg.but(fold=2), cfg.but(lr=1.0), cfg.but(method="x"))]
    assert len(set(names)) == 5
    assert provenance.run_id(cfg.but(data_dir="elsewhere")) == names[0]


def test_run_files_round_trip(tmp_path):
    cfg = Config.from_preset(seed=1, data_dir="/elsewhere/images")
    path = store.write_run(cfg, PRINT, VALUES, PER_QUERY, 3.0, tmp_path)
    assert path == tmp_path / "runs" / f"{provenance.run_id(cfg)}.csv"
    back = store.read_runs(tmp_path)
    written = store.run_rows(cfg, PRINT, VALUES, 3.0)
    assert list(back.columns) == store.COLUMNS
    np.testing.assert_allclose(back["value"], written["value"], rtol=1e-5)  # six digits
    for column in store.COLUMNS:
        if column != "value":
            assert back[column].tolist() == written[column].tolist(), column
    assert (back["variant"] == "").all()

    kept = pd.read_csv(tmp_path / "per_query" / path.name)
    assert kept.to_numpy().tolist() == [["a", "map", 10, 0.25], ["a", "dice", 0, 0.875], ["b", "map", 10, 1.0]]

    stored = (tmp_path / "configs" / f"{cfg.hash()}.json").read_text()
    assert Config.from_json(stored).hash() == cfg.hash()
    everything = "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    assert "elsewhere" not in everything  # no path of this machine
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]  # nothing temporary is left
    store.write_run(cfg, PRINT, VALUES, PER_QUERY, 3.0, tmp_path)
    pd.testing.assert_frame_equal(store.read_runs(tmp_path), back)


def test_write_run_defaults_to_the_ignored_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("YNET_OUT", str(tmp_path))
    assert store.write_run(Config(), PRINT, VALUES, PER_QUERY, 1.0).is_relative_to(tmp_path)


def test_hashes_that_look_like_numbers_stay_text(tmp_path):
    table = store.run_rows(Config(), PRINT, VALUES, 1.0).assign(
        fingerprint="0000123456789012", config_hash="12345e6789", commit="0012"
    )
    paths.write_csv(table, tmp_path / "runs" / "x.csv")
    back = store.read_runs(tmp_path).iloc[0]
    assert (back["fingerprint"], back["config_hash"], back["commit"]) == ("0000123456789012", "12345e6789", "0012")


def test_read_runs_in_a_fixed_order_and_none_at_all(tmp_path):
    empty = store.read_runs(tmp_path)
    assert list(empty.columns) == store.COLUMNS and len(empty) == 0
    for seed in (2, 0, 1):
        store.write_run(Config(seed=seed), PRINT, VALUES, PER_QUERY, 1.0, tmp_path)
    assert store.read_runs(tmp_path)["seed"].drop_duplicates().tolist() == [0, 1, 2]


def test_read_runs_names_a_file_that_is_none(tmp_path):
    paths.write_csv(VALUES, tmp_path / "runs" / "odd.csv")
    with pytest.raises(ValueError, match=r"odd.csv: .*columns .*run_id.* are missing"):
        store.read_runs(tmp_path)


def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = paths.write_csv(VALUES, tmp_path / "t.csv")
    before = path.read_bytes()
    assert b"\r" not in before

    def broken(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.paths.os, "replace", broken)
    with pytest.raises(KeyboardInterrupt):
        paths.write_csv(VALUES.assign(value=0.0), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_commit_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(store.paths, "root", lambda: tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    provenance.commit.cache_clear()
    assert provenance.commit() == ("none", True)
    provenance.commit.cache_clear()


def test_versions_do_not_fail_where_a_package_has_another_name(monkeypatch):
    def unknown(name):
        raise provenance.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(provenance.metadata, "version", unknown)
    assert "torch=unknown" in provenance.versions()


# ---------------------------------------------------------------- summaries


def test_summary_by_hand():
    runs = table_of(
        *(some("ynet", s, v) for s, v in enumerate([0.5, 0.6, 0.7])),
        some("ynet-rmac", 0, 0.4),
        some("ynet", 0, 9.0, "precision"),
    )
    found = store.summary(runs, [("map", 10)], by=["method"])
    assert found.loc["ynet", ("map@10", "mean")] == pytest.approx(0.6)
    assert found.loc["ynet", ("map@10", "sd")] == pytest.approx(0.1)  # (0.01 + 0 + 0.01) / 2
    assert found.loc["ynet", ("map@10", "runs")] == 3


def test_summary_of_one_run_has_no_spread():
    found = store.summary(some(value=0.4), [("map", 10)], by=["method"])
    assert found.loc["ynet", ("map@10", "mean")] == pytest.approx(0.4)
    assert np.isnan(found.loc["ynet", ("map@10", "sd")])
    assert found.loc["ynet", ("map@10", "runs")] == 1


def test_summary_keeps_sets_presets_and_variants_apart():
    runs = table_of(
        some(value=0.1),
        some(value=0.2, dataset="busi"),
        some(value=0.3, variant="a=0.1"),
        some(value=0.4, preset="full"),
    )
    found = store.summary(runs, [("map", 10), ("iou", 0)])
    assert sorted(found[("map@10", "mean")]) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert ("iou", "mean") in found.columns and found[("iou", "mean")].isna().all()


# ---------------------------------------------------------------- comparison


def test_compare_verdicts():
    committed = table_of(
        some(value=0.5),
        some(value=0.5, k=5),
        some(value=0.5, k=20),
        some(value=0.5, k=50),
        some(value=0.123457, metric="ndcg"),
    )
    yours = table_of(
        some(value=0.5),
        some(value=0.529, k=5),
        some(value=0.531, k=20),
        some(value=0.469, k=50),
        some(value=0.1234567, metric="ndcg"),  # equal at the six digits that are written
        some(value=0.5, metric="recall"),
        some(value=0.5, seed=1),
        some(value=0.5, fingerprint="f" * 16),
        some(value=np.nan),
    )
    kept = committed.copy(), yours.copy()
    report = store.compare(committed, yours, tolerance=0.03)
    assert list(report.columns) == ["method", "metric", "k", "committed", "yours", "tolerance", "same?"]
    expected = ["identical", "within", "differs", "differs", "identical", "new", "new", "new", "differs"]
    assert report["same?"].tolist() == expected
    assert report["committed"].isna().tolist() == [verdict == "new" for verdict in expected]
    assert (report["tolerance"] == 0.03).all()
    pd.testing.assert_frame_equal(committed, kept[0])
    pd.testing.assert_frame_equal(yours, kept[1])


def test_compare_with_nothing_committed(tmp_path):
    report = store.compare(store.read_runs(tmp_path), some())
    assert report["same?"].tolist() == ["new"]


def test_compare_after_a_round_trip_is_identical(tmp_path):
    values = VALUES.assign(value=[1 / 3, 2 / 3, 1 / 7, 12345 / 7])
    store.write_run(Config(), PRINT, values, PER_QUERY, 1.0, tmp_path)
    report = store.compare(store.read_runs(tmp_path), store.run_rows(Config(), PRINT, values, 2.0))
    assert set(report["same?"]) == {"identical"}


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    "mean, sd, runs, text",
    [
        (0.7654, 0.0041, 3, ".765 ± .004"),
        (0.7654, np.nan, 1, ".765"),
        (0.7654, 0.1, 1, ".765"),
        (np.nan, np.nan, 0, "-"),
        (1.0, 0.0, 2, "1.000 ± .000"),
        (0.9996, 0.0, 1, "1.000"),
        (0.0, 0.0, 1, ".000"),
        (-0.05, 0.0, 1, "-.050"),
        (376.0, 1.5, 3, "376.0 ± 1.5"),
        (2.5, 0.25, 3, "2.500 ± .250"),
    ],
)
def test_number(mean, sd, runs, text):
    assert tables.number(mean, sd, runs) == text


def test_retrieval_table():
    runs = table_of(
        some("ynet-no-seg", 0, 0.4),
        *(some("ynet", s, v) for s, v in enumerate([0.5, 0.6, 0.7])),
        some("ynet", 0, 90.0, "distinct_codes", 0),
    )
    chance = pd.DataFrame({"metric": ["map"], "k": [10], "value": [0.25]})
    table = tables.retrieval_table(runs, {("map", 10): "mAP@10", ("distinct_codes", 0): "distinct"}, chance)
    assert table.to_numpy().tolist() == [
        [METHOD_NAMES["ynet"], 3, ".600 ± .100", "90"],
        [METHOD_NAMES["ynet-no-seg"], 1, ".400", "-"],
        ["chance (random codes)", "", ".250", "-"],
    ]
    assert list(table.columns) == ["method", "runs", "mAP@10", "distinct"]
    assert tables.markdown(table).splitlines() == [
        "| method | runs | mAP@10 | distinct |",
        "| --- | ---: | ---: | ---: |",
        f"| {METHOD_NAMES['ynet']} | 3 | .600 ± .100 | 90 |",
        f"| {METHOD_NAMES['ynet-no-seg']} | 1 | .400 | - |",
        "| chance (random codes) |  | .250 | - |",
    ]


def test_retrieval_table_default_columns_work_on_few_metrics():
    table = tables.retrieval_table(some(value=0.5))
    assert list(table.columns) == ["method", "runs", *tables.MAIN.values()]
    assert table["mAP@10"].tolist() == [".500"] and table["Dice"].tolist() == ["-"]


@pytest.mark.parametrize("column, value", [("dataset", "busi"), ("variant", "a=0.1")])
def test_retrieval_table_does_not_average_sets_or_variants(column, value):
    runs = table_of(some(), some().assign(**{column: value}))
    with pytest.raises(ValueError, match=f"several {column}s.*{value}"):
        tables.retrieval_table(runs)


def test_every_method_has_a_name_in_tables():
    assert set(METHODS) <= set(METHOD_NAMES)


def test_lift_by_hand():
    runs = table_of(
        some("ynet", 0, 0.6), some("ynet", 1, 0.5), some("ynet-no-seg", 0, 0.5), some("ynet-no-seg", 1, 0.4),
        some("ynet", 2, 0.9), some("ynet", 0, 0.1, k=5),
    )  # fmt: skip
    assert tables.lift(runs).to_dict() == pytest.approx({0: 10, 1: 10})  # seed 2 has no partner
    with pytest.raises(ValueError, match="duplicate"):
        tables.lift(table_of(runs, some("ynet", 0, 0.6)))


def test_two_csv_sets_never_share_a_run():
    cfg = Config(dataset="csv")
    one, two = provenance.run_id(cfg, "a" * 64), provenance.run_id(cfg, "b" * 64)
    assert one != two and one.startswith("csv_aaaaaaaa-ynet-")
    assert provenance.run_id(Config(), "a" * 64) == provenance.run_id(Config())  # a named set is known by its name
    values = pd.DataFrame({"metric": ["map"], "k": [10], "value": [0.5]})
    assert set(store.run_rows(cfg, "a" * 64, values, 1.0, ("abc", False))["run_id"]) == {one}
