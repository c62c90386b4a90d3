"""Runs, the grid, `make reproduce`: rows appear once, nothing is repeated, nothing tracked is touched."""

from __future__ import annotations

import os
import subprocess

import joblib
import pandas as pd
import pytest

from ynet_lite import paths, provenance
from ynet_lite.config import Config
from ynet_lite.hashing import Codes
from ynet_lite.methods import RIVALS
from ynet_lite.paper import grids, reproduce, run, store

SMALL = {"phantom_cases": 60, "size": 48, "epochs": 1, "planes": (4, 4, 8, 8), "blocks": 1, "fpn": 8, "batch": 16}


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("YNET_OUT", str(tmp_path))
    for name in ("YNET_DATASET", "YNET_PRESET", "YNET_DATA_DIR", "YNET_MANIFEST", "YNET_CHANNELS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def small(method: str = "ynet", **changes) -> Config:
    return Config.from_preset("quick", "phantom", method, **SMALL, **changes)


def test_a_run_writes_rows_codes_config_and_per_query_values(out, monkeypatch):
    cfg = small()
    assert not run.keeps_codes(cfg)  # those of the phantom are made again in seconds
    monkeypatch.setattr(run, "keeps_codes", lambda cfg: True)
    assert not run.done(cfg, out / "results")
    path = run.run(cfg, progress=False)
    assert run.done(cfg, out / "results")
    rows = store.read_run(path)
    assert set(rows["run_id"]) == {provenance.run_id(cfg)} and set(rows["config_hash"]) == {cfg.hash()}
    assert {"map", "map_macro", "map_hits", "precision", "ndcg", "mask_agreement", "dice", "distinct_codes"} <= set(
        rows["metric"]
    )
    stored = Config.from_json((out / "results" / "configs" / f"{cfg.hash()}.json").read_text())
    assert stored.hash() == cfg.hash()
    codes = Codes.load(out / "results" / "codes" / f"{provenance.run_id(cfg)}.queries.npz")
    each = pd.read_csv(out / "results" / "per_query" / f"{provenance.run_id(cfg)}.csv")
    chosen = each[(each["metric"] == "map") & (each["k"] == 10)]
    assert sorted(chosen["case_id"]) == sorted(codes.ids)
    mean = rows[(rows["metric"] == "map") & (rows["k"] == 10)]["value"].item()
    assert chosen["value"].mean() == pytest.approx(mean, abs=1e-5)


def test_the_twin_has_no_dice_because_it_has_no_outline(out):
    rows = store.read_run(run.run(small("ynet-no-seg"), progress=False))
    assert "dice" not in set(rows["metric"])


def test_released_and_its_sign_share_one_training(out):
    changes = {**SMALL, "size": 64, "channels": 1}
    float_cfg, sign_cfg = (Config.from_preset("paper", "phantom", m, **changes) for m in ("released", "released-sign"))
    assert float_cfg.training_hash() == sign_cfg.training_hash() and float_cfg.hash() != sign_cfg.hash()
    for cfg in (float_cfg, sign_cfg):
        run.run(cfg, progress=False)
    assert len(list((out / "checkpoints").glob("*.safetensors"))) == 1


def test_aggregations_share_one_encoder_and_its_maps(out, monkeypatch):
    encoded = []
    features = run.aggregation.features
    monkeypatch.setattr(run.aggregation, "features", lambda *a: encoded.append(1) or features(*a))
    configs = [small(m, bits=8) for m in ("gap", "gap-itq", "cam", "regional-attention-itq", "crow", "mac", "rmac")]
    assert len({cfg.training_hash() for cfg in configs}) == 1
    assert len({cfg.hash() for cfg in configs}) == len(configs)
    line = run._together(configs, out / "results")
    assert all(provenance.run_id(cfg) in line for cfg in configs)
    assert len(list((out / "checkpoints").glob("*.safetensors"))) == 1
    assert len(encoded) == 2  # queries and database, once
    table = store.read_runs(out / "results")
    map10 = table[(table["metric"] == "map") & (table["k"] == 10)].set_index("method")["value"]
    assert set(map10.index) == {cfg.method for cfg in configs} and map10.between(0, 1).all()
    # a float ranking has no codes to count; the signs of ITQ have
    counted = set(table[table["metric"] == "distinct_codes"]["method"])
    assert counted == {"gap-itq", "regional-attention-itq"}


def test_an_aggregation_that_learned_outlines_is_scored_by_them_too(out):
    """Its codes come from ITQ and its outlines from the network."""
    plain, both = (store.read_run(run.run(small("gap-itq", bits=8, balance=a), progress=False)) for a in (1.0, 0.5))
    assert set(both["metric"]) - set(plain["metric"]) == {"dice", "iou"}
    assert both[both["metric"] == "dice"]["value"].between(0, 1).all()


@pytest.mark.parametrize("method", RIVALS)
def test_each_deep_hashing_rival_trains_without_outlines(out, method):
    table = store.read_run(run.run(small(method, bits=16), progress=False))
    assert "dice" not in set(table["metric"]) and "distinct_codes" in set(table["metric"])
    assert table[(table["metric"] == "map") & (table["k"] == 10)]["value"].between(0, 1).all()


def test_real_grids_have_the_stated_size():
    count = {name: len(grids.grid(name)) for name in grids.GRIDS}
    assert count["headline"] == 3 * 5 * 3
    assert count["rivals"] == 5 * (8 + 2 * 6) + 5 * 3
    assert count["balance"] == 4 * 9 * 2
    trainings = {(c.training_hash(), c.fold, c.seed) for c in grids.grid("rivals")}
    assert len(trainings) == 5 * (8 + 1) + 5 * 3
    # the grids of the real set use no case of folds 2-5 before the settings stand: every ablation that chooses is on fold 1
    assert {c.fold for name in ("bits", "masks", "balance") for c in grids.grid(name)} == {1}


def test_the_command_runs_what_is_missing_and_then_nothing(out, monkeypatch, capsys):
    monkeypatch.setattr(run, "grid", lambda name: [small(seed=s) for s in range(2)])
    assert run.main(["phantom", "--list"]) == 0
    assert "0 done, 2 missing" in capsys.readouterr().out
    assert run.main(["phantom", "--jobs", "1", "--folder", str(out / "results")]) == 0
    assert run.main(["phantom", "--list"]) == 0
    assert "2 done, 0 missing" in capsys.readouterr().out

    def never(*args, **kwargs):
        raise AssertionError("a finished run was repeated")

    monkeypatch.setattr(run, "run", never)
    assert run.main(["phantom", "--jobs", "1", "--folder", str(out / "results")]) == 0


def test_deleting_one_run_recomputes_exactly_that_run_with_the_same_numbers(out, monkeypatch):
    monkeypatch.setattr(run, "grid", lambda name: [small(seed=s) for s in range(2)])
    folder = out / "results"
    line = ["phantom", "--jobs", "1", "--folder", str(folder)]
    assert run.main(line) == 0
    first, second = (folder / "runs" / f"{provenance.run_id(small(seed=s))}.csv" for s in range(2))
    before, untouched = store.read_run(first), second.stat().st_mtime_ns
    first.unlink()
    for weights in (out / "checkpoints").iterdir():
        weights.unlink()  # nothing is left of the training
    assert run.main(line) == 0
    assert second.stat().st_mtime_ns == untouched
    told = ["seconds", "date"]
    pd.testing.assert_frame_equal(store.read_run(first).drop(columns=told), before.drop(columns=told))


def test_only_named_methods_folds_and_seeds_are_run(out, monkeypatch, capsys):
    monkeypatch.setattr(run, "grid", lambda name: [small(m, seed=s) for m in ("ynet", "dsh") for s in range(3)])
    assert run.main(["phantom", "--list", "--methods", "dsh", "--seeds", "1", "2"]) == 0
    assert "0 done, 2 missing" in capsys.readouterr().out
    assert run.main(["phantom", "--list", "--folds", "2"]) == 0
    assert "0 done, 0 missing" in capsys.readouterr().out


def test_what_is_committed_is_done(out, capsys):
    assert run.main(["busbra-quick", "--list"]) == 0
    assert "3 done, 0 missing" in capsys.readouterr().out
    assert run.main(["busbra-quick", "--list", "--anew"]) == 0
    assert "0 done, 3 missing" in capsys.readouterr().out


def test_where_the_runs_are_done_is_joblibs_to_say(out, monkeypatch):
    """As on a cluster: a backend that is set outside is used, here threads of this very process."""
    monkeypatch.setattr(run, "grid", lambda name: [small(seed=s) for s in range(2)])
    seen = []
    monkeypatch.setattr(run, "_together", lambda configs, folder: seen.append(os.getpid()) or "")
    with joblib.parallel_config(backend="threading"):
        assert run.main(["phantom", "--jobs", "2", "--folder", str(out / "results")]) == 0
    assert seen == [os.getpid()] * 2


@pytest.mark.parametrize("name", grids.GRIDS)
def test_grids_name_each_run_once_and_keep_one_hash_per_method(name):
    configs = grids.grid(name)
    ids = [provenance.run_id(cfg) for cfg in configs]
    assert len(ids) == len(set(ids))
    by_method = {}
    for cfg in configs:
        by_method.setdefault((cfg.method, cfg.variant), set()).add(cfg.hash())
    assert all(len(hashes) == 1 for hashes in by_method.values())


def test_a_run_that_several_grids_name_has_one_name():
    """Otherwise the balance a = .5, which is Y-Net itself, would be stored as an ablation by whoever computes all grids anew."""
    variants = {}
    for cfg in (cfg for name in grids.GRIDS for cfg in grids.grid(name)):
        variants.setdefault(provenance.run_id(cfg), set()).add(cfg.variant)
    assert {run: names for run, names in variants.items() if len(names) > 1} == {}
    assert variants[provenance.run_id(Config.from_preset("full", "busbra"))] == {""}


def test_what_another_runner_finished_meanwhile_is_not_repeated(out, monkeypatch):
    made = []
    monkeypatch.setattr(run, "run", lambda cfg, **how: made.append(cfg.seed))
    other = out / "results" / "runs" / f"{provenance.run_id(small(seed=0))}.csv"
    other.parent.mkdir(parents=True)
    other.touch()
    run._together([small(seed=s) for s in range(2)], out / "results")
    assert made == [1]


def test_unknown_grid():
    with pytest.raises(ValueError, match="grid 'nonsense' is not known; known are"):
        grids.grid("nonsense")


def test_reproduce_prints_the_tables_and_changes_no_tracked_file(out, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "configs", lambda: [small(m) for m in reproduce.METHODS])
    status = ["git", "-C", str(paths.root()), "status", "--porcelain"]
    before = subprocess.run(status, capture_output=True, text=True).stdout
    assert reproduce.main([]) == 0
    text = capsys.readouterr().out
    assert "committed | yours | tolerance | same?" in text and "chance (random codes)" in text and "new" in text
    assert (out / "figures" / "phantom_queries.png").is_file()
    assert subprocess.run(status, capture_output=True, text=True).stdout == before
    assert reproduce.main([]) == 0
    assert capsys.readouterr().out.count("trained before, loaded") == 3
