"""The same tuning effort for every method: six trials each, scored on validation patients; the queries of fold 1 untouched.

``python -m ynet_lite.paper.tuning`` runs what is missing; ``--choose`` prints the settings that won, as they stand in
`ynet_lite.methods.TUNED`. A trial trains on 80 % of the training patients of fold 1 (of phantom 100 in the quick preset), for
a third of the epochs of the full preset or all of the quick one, and ranks those cases for the other 20 %. Seed 100 is used by
no published number.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .. import losses, metrics, paths, provenance
from ..cases.core import Cases
from ..cases.splits import validation_rows
from ..checkpoint import Checkpoint
from ..config import Config
from ..encoding import distances, encode_floats
from ..hashing import pack
from ..losses.unified import UnifiedLoss
from ..methods import METHODS, PRESETS, RIVALS, TUNED
from ..sets import load_cases
from ..training import train
from . import store

#: Validation share and seed of a trial, and by how much its training is shorter than the preset's.
SHARE, SEED = 0.2, 100

SHORTER = {"quick": 1, "full": 3}

#: What "loss scale" means for each method: the setting that its loss reads, and by what it is multiplied.
SCALES = {
    name: losses.named(METHODS[name].get("loss", "pairwise"))
    for name in ("ynet", "ynet-no-seg", "ynet-selfpool", "ynet-circle", *RIVALS)
}

#: The encoder of the aggregations has one loss and no scale in it: its six trials are six learning rates.
ENCODER_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)

TUNABLE = (*SCALES, "gap")


def _field(method: str) -> str:
    """The setting a method's loss hangs on most. Y-Net's own loss was tuned by its weight against the segmentation loss."""
    return "cls_scale" if method == "ynet" else SCALES[method].scale if method in SCALES else ""


def trials(method: str, preset: str, dataset: str) -> list[Config]:
    """The six trials of a method: two learning rates by three loss scales around the defaults, or six learning rates."""
    base = untuned(preset, dataset, method)
    if method == "gap":
        changes = [{"lr": base.lr * f} for f in ENCODER_RATES]
    else:
        name, factors = _field(method), SCALES[method].factors
        changes = [{"lr": base.lr * rate, name: getattr(base, name) * f} for rate in (0.25, 1.0) for f in factors]
    short = {
        "validation": SHARE,
        "validate_every": base.epochs,
        "epochs": max(1, round(base.epochs / SHORTER[preset])),
        "seed": SEED,
    }
    return [base.but(**short, **{key: float(f"{value:.3g}") for key, value in change.items()}) for change in changes]


def untuned(preset: str, dataset: str, method: str) -> Config:
    """`Config.from_preset` without what an earlier tuning chose."""
    cfg = Config.from_preset(preset, dataset, method)
    if (preset, method) not in TUNED:
        return cfg
    names = TUNED[(preset, method)]
    plain = {f.name: f.default for f in dataclasses.fields(Config)} | PRESETS[preset] | dict(METHODS[method])
    return cfg.but(**{name: plain[name] for name in names})


def trial(cfg: Config) -> dict:
    """Train once and score on the validation patients: a row of the tuning table."""
    database, _ = load_cases(cfg).split(cfg.fold)
    checkpoint = train(cfg, database, progress=False)
    rows = validation_rows(database.groups, database.labels, cfg.validation, cfg.seed)
    queries, base = database.take(rows), database.take(~rows)
    has_map = checkpoint.model.segmentation is not None and cfg.uses_masks
    ranked = cfg.but(aggregation="")  # the encoder is judged by the features it was trained on
    found = encode_floats(checkpoint.model, ranked, queries, masks=has_map)
    distance = distances(ranked, found, encode_floats(checkpoint.model, ranked, base))
    packed = pack(found["code"]) if cfg.ranking == "hamming" else None
    values, _ = metrics.evaluate(distance, queries, base, (10,), query_codes=packed)
    score = {(m, k): v for m, k, v in values[["metric", "k", "value"]].itertuples(index=False)}
    known = np.flatnonzero(queries.has_mask & queries.masks.any((1, 2)))
    dice = float(np.mean(metrics.dice(found["masks"][known] > 0, queries.masks[known] > 0))) if has_map else np.nan
    commit, dirty = provenance.commit()
    scale = _field(cfg.method)
    return {
        "preset": cfg.preset,
        "dataset": cfg.dataset,
        "method": cfg.method,
        "lr": cfg.lr,
        "scale_field": scale,
        "scale": getattr(cfg, scale) if scale else np.nan,
        "cls_loss": cfg.loss,
        "balance": cfg.balance,
        "config_hash": cfg.hash(),
        "val_queries": len(queries),
        "val_map10": score[("map", 10)],
        "val_precision10": score[("precision", 10)],
        "val_ndcg10": score[("ndcg", 10)],
        "val_dice": dice,
        "distinct_val_codes": score.get(("distinct_codes", 0), np.nan),
        "train_loss": checkpoint.history["loss"].iloc[-1],
        **(gradient_norms(checkpoint, base) if cfg.uses_masks and losses.named(cfg.loss).own else {}),
        "seconds": checkpoint.seconds,
        "commit": commit,
        "dirty": dirty,
    }


#: The scan of the balance: four classification losses, and the weight a of the classification loss at three values.
SCAN = {"pairwise": "ynet", "circle": "ynet-circle", "ce": "ynet", "centres": "ynet"}

SCAN_BALANCES = (0.1, 0.5, 0.9)


def scan(preset: str, dataset: str) -> list[Config]:
    """The trials of the scan: as those of a method, at its tuned rate and scale, with another loss or balance."""
    found = []
    for loss, method in SCAN.items():
        base = Config.from_preset(preset, dataset, method)
        short = {"validation": SHARE, "validate_every": base.epochs, "epochs": max(1, round(base.epochs / SHORTER[preset]))}
        found += [base.but(**short, seed=SEED, loss=loss, balance=a, method="ynet") for a in SCAN_BALANCES]
    return found


def gradient_norms(checkpoint: Checkpoint, cases: Cases) -> dict[str, float]:
    """How hard each weighted term pulls at C5: ||d (weight x term) / d C5||_2 on one batch, the first cases of the set.

    The network is in evaluation mode (its running statistics), without augmentation. A term that does not reach C5 gives 0.
    """
    cfg, model = checkpoint.cfg, checkpoint.model
    rows = np.arange(len(cases)) < cfg.batch
    part = cases.take(rows)
    kept = []
    handle = model.encoder.stages[-1].register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        output = model(torch.from_numpy(part.images).float())
    finally:
        handle.remove()
    loss = UnifiedLoss(cfg, len(cases.class_names))
    _, terms = loss(
        output,
        torch.from_numpy(part.masks).long(),
        torch.from_numpy(part.has_mask),
        torch.from_numpy(part.labels),
        model.classifier,
    )
    a = abs(cfg.balance)
    weights = {
        "classification": a * cfg.cls_scale,
        "seg_ce": abs(1 - a),
        "seg_dice": abs(1 - a),
        "quantisation": cfg.quant_weight,
    }
    found = {}
    for name, weight in weights.items():
        if name not in terms:
            continue
        (gradient,) = torch.autograd.grad(weight * terms[name], kept[0], retain_graph=True, allow_unused=True)
        found[f"pull_{name}"] = 0.0 if gradient is None else gradient.norm().item()
    return found


def table(folder: str | Path | None = None, name: str = "trials") -> pd.DataFrame:
    """All rows under ``folder/tuning/<name>`` (default: the committed trials; "balance": the scan), in a fixed order."""
    found = store.small(f"tuning/{name}", folder)
    if found.empty:
        return found
    order = [
        c for c in ("preset", "method", "cls_loss", "balance", "lr", "scale") if c in found
    ]  # older rows name fewer settings
    return found.sort_values(order, ignore_index=True)


def chosen(trials: pd.DataFrame) -> dict[tuple[str, str], dict[str, float]]:
    """The winner of each method by validation mAP@10, as `ynet_lite.methods.TUNED` holds it. A tie goes to the smaller rate."""
    found = {}
    for key, group in trials.groupby(["preset", "method"], sort=True):
        best = group.sort_values(["val_map10", "lr"], ascending=[False, True], kind="stable").iloc[0]
        found[key] = {"lr": float(best["lr"])} | ({best["scale_field"]: float(best["scale"])} if pd.notna(best["scale"]) else {})
    return found


def _run(cfg: Config, folder: Path, name: str) -> str:
    row = trial(cfg)
    paths.write_csv(pd.DataFrame([row]), _path(cfg, folder, name))
    return f"{cfg.preset} {cfg.method} lr={cfg.lr:g} {row['scale_field']}={row['scale']:g}: {row['val_map10']:.3f}"


def _path(cfg: Config, folder: Path, name: str) -> Path:
    return folder / "tuning" / name / f"{cfg.preset}-{cfg.dataset}-{cfg.method}-{cfg.hash()}.csv"


def main(argv: list[str] | None = None) -> int:
    """Run the missing trials of the named methods, one process per core; interrupt and call again at will."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.paper.tuning", description=main.__doc__)
    parser.add_argument("--methods", nargs="*", choices=TUNABLE, default=list(TUNABLE))
    parser.add_argument("--preset", choices=("quick", "full"), default="full", help="quick: on the phantom; full: on BUS-BRA")
    parser.add_argument("--scan", action="store_true", help="the scan of loss and balance instead of the six trials a method")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, help="where trials are (default: out/results; --choose: the committed ones)")
    parser.add_argument("--choose", action="store_true", help="print the winners of the stored trials, run nothing")
    given = parser.parse_args(argv)
    given.folder = given.folder or (None if given.choose else paths.out() / "results")
    if given.choose:
        stored = table(given.folder)
        if stored.empty:
            parser.error(f"no trials in {given.folder or paths.results()}; run them without --choose first")
        for key, value in chosen(stored).items():
            print(f"    {key}: {value},".replace("'", '"'))
        return 0
    dataset = {"quick": "phantom", "full": "busbra"}[given.preset]
    name = "balance" if given.scan else "trials"
    wanted = [cfg for method in given.methods for cfg in trials(method, given.preset, dataset)]
    wanted = scan(given.preset, dataset) if given.scan else wanted
    missing = [cfg for cfg in wanted if not _path(cfg, given.folder, name).is_file()]
    parallel = joblib.Parallel(n_jobs=given.jobs, return_as="generator_unordered")
    for line in tqdm(
        parallel(joblib.delayed(_run)(cfg, given.folder, name) for cfg in missing), total=len(missing), desc="trials"
    ):
        tqdm.write(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
