"""Runs: train (or load), encode, evaluate, write rows. ``python -m ynet_lite.experiments --list`` shows what is done."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from . import metrics, paths, results
from .cases import Cases, datasets, load_cases
from .config import METHODS, Config
from .hashing import Codes, pack
from .training import Checkpoint, distances, encode_floats, load_or_train


def evaluate_checkpoint(
    checkpoint: Checkpoint, cfg: Config, database: Cases, queries: Cases
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Codes]]:
    """All metrics of one trained network: (values [metric, k, value], per-query values, codes of both sides)."""
    # Dice is the lesion's: queries without a lesion, or with an unknown outline, have none
    known = np.flatnonzero(queries.has_mask & queries.masks.any((1, 2)))
    has_map = checkpoint.model.segmentation is not None and cfg.uses_masks and len(known) > 0
    found = encode_floats(checkpoint.model, cfg, queries, masks=has_map)
    base = encode_floats(checkpoint.model, cfg, database)
    packed = pack(found["code"])
    codes = {
        "queries": Codes(packed, queries.ids, queries.labels, cfg.bits),
        "database": Codes(pack(base["code"]), database.ids, database.labels, cfg.bits),
    }
    distance = distances(cfg, found, base)
    shown = packed if cfg.ranking == "hamming" else None
    values, per_query = metrics.evaluate(distance, queries, database, cfg.ks, query_codes=shown)
    if has_map:
        predicted, true = found["masks"][known] > 0, queries.masks[known] > 0
        scores = {"dice": metrics.dice(predicted, true), "iou": metrics.iou(predicted, true)}
        extra = pd.DataFrame([{"metric": name, "k": 0, "value": float(np.mean(v))} for name, v in scores.items()])
        values = pd.concat([values, extra], ignore_index=True)
        each = pd.DataFrame({"case_id": queries.ids[known], "metric": "dice", "k": 0, "value": scores["dice"]})
        per_query = pd.concat([per_query, each], ignore_index=True)
    return values, per_query, codes


def run(cfg: Config, cases: Cases | None = None, *, folder: str | Path | None = None, progress: bool = True) -> Path:
    """Do one run and write its rows under ``folder`` (default: the ignored ``out/results``). Returns the file of rows."""
    cases = cases if cases is not None else load_cases(cfg)
    database, queries = cases.split(cfg.fold)
    checkpoint = load_or_train(cfg, database, progress=progress)
    values, per_query, codes = evaluate_checkpoint(checkpoint, cfg, database, queries)
    folder = Path(folder) if folder else paths.out() / "results"
    for side, part in codes.items():
        part.save(folder / "codes" / f"{results.run_id(cfg)}.{side}.npz")
    return results.write_run(cfg, cases.fingerprint, values, per_query, checkpoint.seconds, folder, checkpoint.made_by)


def done(cfg: Config, folder: str | Path | None = None) -> bool:
    """Whether the rows of this run exist (the row file is written last)."""
    folder = Path(folder) if folder else paths.out() / "results"
    return (folder / "runs" / f"{results.run_id(cfg)}.csv").is_file()


PHANTOM_METHODS = ("ynet", "ynet-no-seg", "ynet-rmac", "ynet-selfpool", "ynet-no-cls", "ynet-no-quant", "ynet-circle")
REAL_METHODS = ("ynet", "ynet-no-seg", "ynet-rmac", "released", "released-sign", "ynet-paper")


def grid(name: str) -> list[Config]:
    """The runs of a named grid, most important first.

    ``phantom``: quick preset, seeds 0-4 of the frozen phantom, also without confounding. ``busbra``: full preset, fold 1, seeds
    0-2. ``busbra-quick``: what `make reproduce` does on BUS-BRA.
    """
    if name == "phantom":
        main = [Config.from_preset(method=m, seed=s) for m in PHANTOM_METHODS for s in range(5)]
        plain = [
            Config.from_preset(method=m, seed=s, confounding=0.0, variant="confounding=0")
            for m in ("ynet", "ynet-no-seg")
            for s in range(5)
        ]
        return main + plain
    if name == "busbra":
        return [Config.from_preset("full", "busbra", m, seed=s) for s in range(3) for m in REAL_METHODS]
    if name == "busbra-quick":
        return [Config.from_preset("quick", "busbra", m) for m in ("ynet", "ynet-no-seg", "ynet-rmac")]
    raise ValueError(f"grid {name!r} is not known; known are phantom, busbra, busbra-quick")


GRIDS = ("phantom", "busbra-quick", "busbra")


def write_chance(cfg: Config, folder: str | Path) -> Path:
    """Write what random codes score on this set (closed form) to ``folder/chance/<dataset>-<preset>.csv``."""
    database, queries = load_cases(cfg).split(cfg.fold)
    path = Path(folder) / "chance" / f"{cfg.dataset}-{cfg.preset}.csv"
    return results.write_csv(metrics.chance(queries, database, cfg.ks), path)


def _together(configs: list[Config], folder: Path) -> str:
    """Do runs that share one training one after the other; returns a line for the log."""
    began = time.perf_counter()
    for cfg in configs:
        run(cfg, folder=folder, progress=False)
    return f"{', '.join(results.run_id(cfg) for cfg in configs)} in {time.perf_counter() - began:.0f} s"


def main(argv: list[str] | None = None) -> int:
    """Command line: run what is missing of the named grids, one process per core; interrupt and call again at will."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.experiments", description=main.__doc__)
    parser.add_argument("grids", nargs="*", default=list(GRIDS), help=f"which grids (default: {' '.join(GRIDS)})")
    parser.add_argument("--list", action="store_true", help="show what is done and what is missing, run nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--folder", type=Path, default=paths.out() / "results", help="where rows go")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), help="only these methods")
    given = parser.parse_args(argv)
    configs = [cfg for name in given.grids for cfg in grid(name)]
    if given.methods:
        configs = [cfg for cfg in configs if cfg.method in given.methods]
    missing = [cfg for cfg in configs if not done(cfg, given.folder)]
    if given.list:
        for cfg in configs:
            state = "done   " if done(cfg, given.folder) else "missing"
            print(state, results.run_id(cfg), cfg.variant)
        print(f"{len(configs) - len(missing)} done, {len(missing)} missing")
        return 0
    for name in sorted({cfg.dataset for cfg in missing} & {"busbra", "busi"}):
        datasets.find(name)  # a missing set is an error now, not after an hour of other runs
    # each run writes its own rows, so an interruption loses only the runs under way, and those resume at their last epoch
    # runs that share a training go to one process: two would write one checkpoint
    shared: dict[tuple, list[Config]] = {}
    for cfg in missing:
        shared.setdefault((cfg.dataset, cfg.training_hash(), cfg.fold, cfg.seed), []).append(cfg)
    parallel = joblib.Parallel(n_jobs=given.jobs, return_as="generator_unordered")
    jobs = (joblib.delayed(_together)(configs, given.folder) for configs in shared.values())
    for line in tqdm(parallel(jobs), total=len(shared), desc="trainings"):
        tqdm.write(line)
    for cfg in {(cfg.dataset, cfg.preset): cfg for cfg in reversed(configs) if cfg.preset != "paper"}.values():
        write_chance(cfg, given.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
