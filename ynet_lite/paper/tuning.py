"""The same tuning effort for every method: six trials each, scored on validation patients; the queries of fold 1 untouched.

``python -m ynet_lite.paper.tuning`` runs what is missing; ``--choose`` prints the settings that won, as they stand in
`ynet_lite.methods.TUNED`. A trial trains on 80 % of the training patients of fold 1 (of phantom 100 in the quick preset), for
a third of the epochs of the full preset or all of the quick one, and ranks those cases for the other 20 %. Seed 100 is used by
no published number.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from .. import losses, paths, provenance
from ..cases.splits import validation_rows
from ..config import Config
from ..evaluation import evaluate_checkpoint
from ..methods import METHODS, OURS, PRESETS, RIVALS, TUNED, TWIN
from ..sets import load_cases
from ..training import train
from . import store
from .run import in_parallel

#: Validation share and seed of a trial, and by how much its training is shorter than the preset's.
SHARE, SEED = 0.2, 100
SHORTER = {"quick": 1, "full": 3}

#: The encoder of the aggregations ("gap") has one loss and no scale in it: its six trials are six learning rates.
ENCODER_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)

TUNABLE = (OURS, TWIN, "ynet-selfpool", "ynet-circle", *RIVALS, "gap")

#: Columns of a row of trials, and the (metric, k) behind them.
SCORES = {
    "val_map10": ("map", 10),
    "val_precision10": ("precision", 10),
    "val_ndcg10": ("ndcg", 10),
    "val_dice": ("dice", 0),
    "distinct_val_codes": ("distinct_codes", 0),
}


def _field(method: str) -> str:
    """The setting a method's loss hangs on most. Y-Net's own loss was tuned by its weight against the segmentation loss."""
    named = {OURS: "cls_scale", "gap": ""}
    return named[method] if method in named else losses.named(METHODS[method].get("loss", "pairwise")).scale


def trials(method: str, preset: str, dataset: str) -> list[Config]:
    """The six trials of a method: two learning rates by three loss scales around the defaults, or six learning rates."""
    base, name = untuned(preset, dataset, method), _field(method)
    short = {"validation": SHARE, "validate_every": base.epochs, "epochs": max(1, round(base.epochs / SHORTER[preset]))}
    if name:
        factors = losses.named(METHODS[method].get("loss", "pairwise")).factors
        changes = [{"lr": base.lr * rate, name: getattr(base, name) * f} for rate in (0.25, 1.0) for f in factors]
    else:
        changes = [{"lr": base.lr * f} for f in ENCODER_RATES]
    return [base.but(**short, seed=SEED, **{key: float(f"{value:.3g}") for key, value in c.items()}) for c in changes]


def untuned(preset: str, dataset: str, method: str) -> Config:
    """`Config.from_preset` without what an earlier tuning chose."""
    plain = {f.name: f.default for f in fields(Config)} | PRESETS[preset] | dict(METHODS[method])
    cfg = Config.from_preset(preset, dataset, method)
    return cfg.but(**{name: plain[name] for name in TUNED.get((preset, method), ())})


def trial(cfg: Config) -> dict:
    """Train once and score on the validation patients: a row of the tuning table."""
    database, _ = load_cases(cfg).split(cfg.fold)
    checkpoint = train(cfg, database, progress=False)
    rows = validation_rows(database.groups, database.labels, cfg.validation, cfg.seed)
    queries, base = database.take(rows), database.take(~rows)
    # the encoder of the aggregations is judged by the features it was trained on
    values, _, _ = evaluate_checkpoint(checkpoint, cfg.but(aggregation=""), base, queries)
    score = values.set_index(["metric", "k"])["value"]
    scale, (commit, dirty) = _field(cfg.method), provenance.commit()
    return {
        **{name: getattr(cfg, name) for name in ("preset", "dataset", "method", "lr")},
        "scale_field": scale,
        "scale": getattr(cfg, scale) if scale else np.nan,
        "cls_loss": cfg.loss,
        "balance": cfg.balance,
        "config_hash": cfg.hash(),
        "val_queries": len(queries),
        **{name: score.get(key, np.nan) for name, key in SCORES.items()},
        "train_loss": checkpoint.history["loss"].iloc[-1],
        "seconds": checkpoint.seconds,
        "commit": commit,
        "dirty": dirty,
    }


def chosen(trials: pd.DataFrame) -> dict[tuple[str, str], dict[str, float]]:
    """The winner of each method by validation mAP@10, as `ynet_lite.methods.TUNED` holds it. Of equal ones the smaller rate."""
    found = {}
    for key, group in trials.groupby(["preset", "method"], sort=True):
        best = group.sort_values(["val_map10", "lr", "scale"], ascending=[False, True, True]).iloc[0]
        found[key] = {"lr": float(best["lr"])} | ({best["scale_field"]: float(best["scale"])} if pd.notna(best["scale"]) else {})
    return found


def _run(cfg: Config, path: Path) -> str:
    row = trial(cfg)
    paths.write_csv(pd.DataFrame([row]), path)
    return f"{cfg.preset} {cfg.method} lr={cfg.lr:g} {row['scale_field']}={row['scale']:g}: {row['val_map10']:.3f}"


def main(argv: list[str] | None = None) -> int:
    """Run the missing trials of the named methods, one process per core; interrupt and call again at will."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.paper.tuning", description=main.__doc__)
    parser.add_argument("--methods", nargs="*", choices=TUNABLE, default=list(TUNABLE))
    parser.add_argument("--preset", choices=("quick", "full"), default="full", help="quick: on the phantom; full: on BUS-BRA")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, help="where trials are (default: out/results; --choose: the committed ones)")
    parser.add_argument("--choose", action="store_true", help="print the winners of the stored trials, run nothing")
    given = parser.parse_args(argv)
    if given.choose:
        stored = store.small("tuning/trials", given.folder)
        if stored.empty:
            parser.error(f"no trials in {given.folder or paths.results()}; run them without --choose first")
        for key, value in chosen(stored).items():
            print(f"    {key}: {value},".replace("'", '"'))
        return 0
    dataset, folder = {"quick": "phantom", "full": "busbra"}[given.preset], given.folder or paths.out() / "results"
    wanted = [cfg for method in given.methods for cfg in trials(method, given.preset, dataset)]
    files = [(cfg, folder / "tuning" / "trials" / f"{cfg.preset}-{dataset}-{cfg.method}-{cfg.hash()}.csv") for cfg in wanted]
    missing = [(cfg, path) for cfg, path in files if not path.is_file()]
    in_parallel(_run, missing, given.jobs, "trials")
    return 0


if __name__ == "__main__":
    sys.exit(main())
