"""Runs, the grid, `make reproduce`: rows appear once, nothing is repeated, nothing tracked is touched."""

from __future__ import annotations

import subprocess

import pandas as pd
import pytest

from ynet_lite import experiments, paths, reproduce, results
from ynet_lite.config import Config
from ynet_lite.hashing import Codes

SMALL = {"phantom_cases": 60, "size": 48, "epochs": 1, "planes": (4, 4, 8, 8), "blocks": 1, "fpn": 8, "batch": 16}


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("YNET_OUT", str(tmp_path))
    for name in ("YNET_DATASET", "YNET_PRESET", "YNET_DATA_DIR", "YNET_MANIFEST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def small(method: str = "ynet", **changes) -> Config:
    return Config.from_preset("quick", "phantom", method, **SMALL, **changes)


def test_a_run_writes_rows_codes_config_and_per_query_values(out):
    cfg = small()
    assert not experiments.done(cfg)
    path = experiments.run(cfg, progress=False)
    assert experiments.done(cfg)
    rows = results.read_run(path)
    assert set(rows["run_id"]) == {results.run_id(cfg)} and set(rows["config_hash"]) == {cfg.hash()}
    assert {"map", "map_macro", "map_hits", "precision", "ndcg", "mask_agreement", "dice", "distinct_codes"} <= set(
        rows["metric"]
    )
    stored = Config.from_json((out / "results" / "configs" / f"{cfg.hash()}.json").read_text())
    assert stored.hash() == cfg.hash()
    codes = Codes.load(out / "results" / "codes" / f"{results.run_id(cfg)}.queries.npz")
    each = pd.read_csv(out / "results" / "per_query" / f"{results.run_id(cfg)}.csv")
    chosen = each[(each["metric"] == "map") & (each["k"] == 10)]
    assert sorted(chosen["case_id"]) == sorted(codes.ids)
    mean = rows[(rows["metric"] == "map") & (rows["k"] == 10)]["value"].item()
    assert chosen["value"].mean() == pytest.approx(mean, abs=1e-5)


def test_the_twin_has_no_dice_because_it_has_no_outline(out):
    rows = results.read_run(experiments.run(small("ynet-no-seg"), progress=False))
    assert "dice" not in set(rows["metric"])


def test_released_and_its_sign_share_one_training(out):
    changes = {**SMALL, "size": 64, "channels": 1}
    float_cfg, sign_cfg = (Config.from_preset("paper", "phantom", m, **changes) for m in ("released", "released-sign"))
    assert float_cfg.training_hash() == sign_cfg.training_hash() and float_cfg.hash() != sign_cfg.hash()
    for cfg in (float_cfg, sign_cfg):
        experiments.run(cfg, progress=False)
    assert len(list((out / "checkpoints").glob("*.safetensors"))) == 1


def test_the_command_runs_what_is_missing_and_then_nothing(out, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "grid", lambda name: [small(seed=s) for s in range(2)])
    assert experiments.main(["phantom", "--list"]) == 0
    assert "0 done, 2 missing" in capsys.readouterr().out
    assert experiments.main(["phantom", "--jobs", "1", "--folder", str(out / "results")]) == 0
    assert experiments.main(["phantom", "--list"]) == 0
    assert "2 done, 0 missing" in capsys.readouterr().out

    def never(*args, **kwargs):
        raise AssertionError("a finished run was repeated")

    monkeypatch.setattr(experiments, "run", never)
    assert experiments.main(["phantom", "--jobs", "1", "--folder", str(out / "results")]) == 0


@pytest.mark.parametrize("name", experiments.GRIDS)
def test_grids_name_each_run_once_and_keep_one_hash_per_method(name):
    configs = experiments.grid(name)
    ids = [results.run_id(cfg) for cfg in configs]
    assert len(ids) == len(set(ids))
    by_method = {}
    for cfg in configs:
        by_method.setdefault((cfg.method, cfg.variant), set()).add(cfg.hash())
    assert all(len(hashes) == 1 for hashes in by_method.values())


def test_unknown_grid():
    with pytest.raises(ValueError, match="grid 'nonsense' is not known; known are"):
        experiments.grid("nonsense")


def test_reproduce_prints_the_tables_and_changes_no_tracked_file(out, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "configs", lambda: [small(m) for m in reproduce.METHODS])
    status = ["git", "-C", str(paths.root()), "status", "--porcelain"]
    before = subprocess.run(status, capture_output=True, text=True).stdout
    assert reproduce.main() == 0
    text = capsys.readouterr().out
    assert "committed | yours | tolerance | same?" in text and "chance (random codes)" in text and "new" in text
    assert (out / "figures" / "phantom_queries.png").is_file()
    assert subprocess.run(status, capture_output=True, text=True).stdout == before
    assert reproduce.main() == 0
    assert capsys.readouterr().out.count("trained before, loaded") == 3
