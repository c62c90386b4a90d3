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

from . import aggregation, metrics, paths, results
from .cases import Cases, datasets, load_cases
from .config import AGGREGATIONS, METHODS, PAPER_METHODS, RIVALS, Config
from .hashing import Codes, pack
from .training import Checkpoint, distances, encode_floats, load_or_train


def evaluate_checkpoint(
    checkpoint: Checkpoint, cfg: Config, database: Cases, queries: Cases, maps: dict | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Codes]]:
    """All metrics of one trained network: (values [metric, k, value], per-query values, codes of both sides).

    ``maps``: C5 of both sides from an earlier aggregation of the same network (`aggregation.describe`); filled where empty.
    """
    # Dice is the lesion's: queries without a lesion, or with an unknown outline, have none
    known = np.flatnonzero(queries.has_mask & queries.masks.any((1, 2)))
    has_map = checkpoint.model.segmentation is not None and cfg.uses_masks and len(known) > 0
    if cfg.aggregation:
        found, base = aggregation.describe(checkpoint.model, cfg, queries, database, maps)
    else:
        found = encode_floats(checkpoint.model, cfg, queries, masks=has_map)
        base = encode_floats(checkpoint.model, cfg, database)
    codes, shown = {}, None
    if cfg.ranking == "hamming":
        shown = pack(found["code"])
        codes = {
            "queries": Codes(shown, queries.ids, queries.labels, cfg.bits),
            "database": Codes(pack(base["code"]), database.ids, database.labels, cfg.bits),
        }
    distance = distances(cfg, found, base)
    values, per_query = metrics.evaluate(distance, queries, database, cfg.ks, query_codes=shown)
    if has_map:
        predicted, true = found["masks"][known] > 0, queries.masks[known] > 0
        scores = {"dice": metrics.dice(predicted, true), "iou": metrics.iou(predicted, true)}
        extra = pd.DataFrame([{"metric": name, "k": 0, "value": float(np.mean(v))} for name, v in scores.items()])
        values = pd.concat([values, extra], ignore_index=True)
        each = pd.DataFrame({"case_id": queries.ids[known], "metric": "dice", "k": 0, "value": scores["dice"]})
        per_query = pd.concat([per_query, each], ignore_index=True)
    return values, per_query, codes


def keeps_codes(cfg: Config) -> bool:
    """Whether the packed codes of a run belong to the results: seed 0 of each method that ends in a code, on real sets."""
    return cfg.dataset != "phantom" and not cfg.variant and cfg.seed == 0 and cfg.preset != "quick" and cfg.ranking == "hamming"


def run(
    cfg: Config, cases: Cases | None = None, *, folder: str | Path | None = None, progress: bool = True, maps: dict | None = None
) -> Path:
    """Do one run and write its rows under ``folder`` (default: the ignored ``out/results``). Returns the file of rows."""
    cases = cases if cases is not None else load_cases(cfg)
    database, queries = cases.split(cfg.fold)
    checkpoint = load_or_train(cfg, database, progress=progress)
    values, per_query, codes = evaluate_checkpoint(checkpoint, cfg, database, queries, maps)
    folder = Path(folder) if folder else paths.out() / "results"
    for side, part in codes.items() if keeps_codes(cfg) else ():
        part.save(folder / "codes" / f"{results.run_id(cfg, cases.fingerprint)}.{side}.npz")
    return results.write_run(cfg, cases.fingerprint, values, per_query, checkpoint.seconds, folder, checkpoint.made_by)


def done(cfg: Config, folder: str | Path | None = None, fingerprint: str = "") -> bool:
    """Whether the rows of this run exist (the row file is written last). A "csv" set is known by its ``fingerprint``."""
    if cfg.dataset == "csv" and not fingerprint:
        raise ValueError("done: a csv set is known by its fingerprint (Cases.fingerprint), and none was given")
    folder = Path(folder) if folder else paths.out() / "results"
    return (folder / "runs" / f"{results.run_id(cfg, fingerprint)}.csv").is_file()


FOLDS = (1, 2, 3, 4, 5)
#: The balance a of the unified loss; "trainable" starts at .5.
BALANCES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
#: Own settings of each classification loss beside the default one, for the scan of the balance.
LOSSES = ("pairwise", "circle", "ce", "centres")
BITS = (8, 16, 32, 128)
MASK_SHARES = (0.0, 0.1, 0.25, 0.5)
MASK_QUALITIES = ("dilated", "eroded", "box", "shifted")
ABLATIONS = ("ynet-rmac", "ynet-lesion", "ynet-selfpool", "ynet-no-cls", "ynet-no-quant", "ynet-circle")
AGGREGATED = tuple(f"{name}{tail}" for name in AGGREGATIONS for tail in ("", "-itq"))
#: The rivals that are also run on the smaller sets: the three that ranked best on folds 2-5 of BUS-BRA.
BEST_RIVALS = ("hashnet", "dpsh", "ath")


def _balances(preset: str, dataset: str, seeds) -> list[Config]:
    found = []
    for loss in LOSSES:
        tuned = "ynet-circle" if loss == "circle" else "ynet"
        for a in (*BALANCES, "trainable"):
            for seed in seeds:
                name = f"a={a}" if loss == "pairwise" else f"{loss} a={a}"
                how = {"balance_trainable": True} if a == "trainable" else {"balance": a}
                cfg = Config.from_preset(preset, dataset, tuned, cls_loss=loss, variant=name, seed=seed, **how).but(method="ynet")
                default = Config.from_preset(preset, dataset, seed=seed)
                # the point that is Y-Net itself bears Y-Net's name: one run has one name, whichever grid comes first
                found.append(default if results.run_id(cfg) == results.run_id(default) else cfg)
    return found


def _other_ablations(preset: str, dataset: str, seeds) -> dict[str, list[Config]]:
    def of(method: str, variant: str, **changes) -> list[Config]:
        return [Config.from_preset(preset, dataset, method, variant=variant, seed=s, **changes) for s in seeds]

    bits = [cfg for b in BITS for m in ("ynet", "ynet-no-seg") for cfg in of(m, f"bits={b}", bits=b)]
    masks = [cfg for share in MASK_SHARES for cfg in of("ynet", f"masks={share:.0%}", mask_share=share)]
    masks += [cfg for quality in MASK_QUALITIES for cfg in of("ynet", f"masks {quality}", mask_quality=quality)]
    return {"bits": bits, "masks": masks, "balance": _balances(preset, dataset, seeds)}


def grid(name: str) -> list[Config]:
    """The runs of a named grid, most important first. See `GRIDS` for what each holds."""
    if name == "phantom":
        methods = ("ynet", "ynet-no-seg", *ABLATIONS, *RIVALS, *AGGREGATED)
        main = [Config.from_preset(method=m, seed=s) for m in methods for s in range(5)]
        plain = [
            Config.from_preset(method=m, seed=s, confounding=0.0, variant="confounding=0")
            for m in ("ynet", "ynet-no-seg")
            for s in range(5)
        ]
        return main[:10] + plain + main[10:]
    if name == "phantom-ablations":
        return [cfg for part in _other_ablations("quick", "phantom", (0, 1)).values() for cfg in part]
    if name == "busbra-quick":
        return [Config.from_preset("quick", "busbra", m) for m in ("ynet", "ynet-no-seg", "ynet-rmac")]
    if name == "headline":
        order = [(s, f) for s in range(3) for f in FOLDS]
        # ynet-rmac is the same training as ynet here (R-MAC is our aggregation in this preset) and costs an evaluation
        methods = ("ynet", "ynet-rmac", "ynet-no-seg")
        return [Config.from_preset("full", "busbra", m, fold=f, seed=s) for s, f in order for m in methods]
    if name == "rivals":
        methods = (*RIVALS, *AGGREGATED)
        again = [Config.from_preset("full", "busbra", m, fold=f, seed=1) for f in FOLDS for m in BEST_RIVALS]
        return [Config.from_preset("full", "busbra", m, fold=f) for f in FOLDS for m in methods] + again
    if name == "losses":
        return [Config.from_preset("full", "busbra", m, fold=f) for f in FOLDS for m in ABLATIONS]
    if name == "paper":
        runs = [(1, 0), (1, 1), (1, 2), (2, 0), (3, 0), (4, 0), (5, 0)]
        return [Config.from_preset("full", "busbra", m, fold=f, seed=s) for f, s in runs for m in PAPER_METHODS]
    if name in ("bits", "masks", "balance"):
        return _other_ablations("full", "busbra", (0, 1))[name]
    if name in ("busbra-birads", "busi"):
        methods = ("ynet", "ynet-no-seg", *BEST_RIVALS)
        seeds = {"busbra-birads": 2, "busi": 3}[name]
        return [Config.from_preset("full", name, m, fold=f, seed=s) for s in range(seeds) for f in FOLDS for m in methods]
    raise ValueError(f"grid {name!r} is not known; known are {', '.join(GRIDS)}")


#: Grids in the order in which `make full` does them.
GRIDS = {
    "phantom": "every method in the quick preset, phantoms 0-4; Y-Net and its twin also without confounding",
    "busbra-quick": "what `make reproduce` does on BUS-BRA",
    "headline": "BUS-BRA, Y-Net and its twin: 5 folds, 3 seeds",
    "rivals": "BUS-BRA, every rival: 5 folds, the three best with 2 seeds; all aggregations of a fold share one encoder",
    "losses": "BUS-BRA, ablations of the losses and of the pooling: 5 folds",
    "paper": "BUS-BRA, the released network and ynet-paper: 5 folds, 3 seeds on fold 1",
    "bits": "BUS-BRA, length of the code: fold 1, 2 seeds",
    "masks": "BUS-BRA, how many outlines and how good: fold 1, 2 seeds",
    "balance": "BUS-BRA, balance of the two losses for each classification loss: fold 1, 2 seeds",
    "busbra-birads": "BUS-BRA by BI-RADS: Y-Net, its twin, three rivals; 5 folds, 2 seeds",
    "busi": "the part of BUSI: the same, 3 seeds",
    "phantom-ablations": "bits, masks and balance on phantoms 0 and 1",
}


def write_chance(cfg: Config, folder: str | Path) -> Path:
    """Write what random codes score on this set (closed form) to ``folder/chance/<dataset>-<preset>.csv``."""
    database, queries = load_cases(cfg).split(cfg.fold)
    path = Path(folder) / "chance" / f"{cfg.dataset}-{cfg.preset}.csv"
    return results.write_csv(metrics.chance(queries, database, cfg.ks), path)


def _together(configs: list[Config], folder: Path) -> str:
    """Do runs that share one training one after the other; returns a line for the log."""
    began = time.perf_counter()
    maps: dict = {}  # C5 of the shared encoder, which several aggregations read
    for cfg in configs:
        if not done(cfg, folder):  # another runner on the same folder may have been here since
            run(cfg, folder=folder, progress=False, maps=maps)
    return f"{', '.join(results.run_id(cfg) for cfg in configs)} in {time.perf_counter() - began:.0f} s"


def main(argv: list[str] | None = None) -> int:
    """Run what is missing of the named grids, one process per core; interrupt and call again at will."""
    about = "\n".join(f"  {name:18s} {text}" for name, text in GRIDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m ynet_lite.experiments",
        description=f"{main.__doc__}\n\ngrids:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("grids", nargs="*", default=list(GRIDS), help="which grids (default: all)")
    parser.add_argument("--list", action="store_true", help="show what is done and what is missing, run nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--device", default="cpu", help="where networks are trained, for instance cuda (default: cpu)")
    parser.add_argument("--folder", type=Path, default=paths.out() / "results", help="where rows are looked for and written")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), help="only these methods")
    parser.add_argument("--folds", nargs="*", type=int, help="only these folds")
    parser.add_argument("--seeds", nargs="*", type=int, help="only these seeds")
    given = parser.parse_args(argv)
    # a run that two grids name is one run
    configs = list({results.run_id(cfg): cfg for name in given.grids for cfg in grid(name)}.values())
    for name, values in (("method", given.methods), ("fold", given.folds), ("seed", given.seeds)):
        configs = [cfg for cfg in configs if not values or getattr(cfg, name) in values]
    configs = [cfg.but(device=given.device) for cfg in configs]
    missing = [cfg for cfg in configs if not done(cfg, given.folder)]
    if given.list:
        for cfg in configs:
            state = "done   " if done(cfg, given.folder) else "missing"
            print(state, results.run_id(cfg), cfg.variant)
        print(f"{len(configs) - len(missing)} done, {len(missing)} missing")
        return 0
    for name in sorted({cfg.dataset for cfg in missing} & {"busbra", "busbra-birads", "busi"}):
        datasets.find(name.split("-")[0])  # a missing set is an error now, not after an hour of other runs
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
        write_chance(cfg.but(fold=1, seed=0), given.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
