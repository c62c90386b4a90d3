"""`Config`: every number that matters, in one frozen object that can be hashed, stored and compared.

It is put together from parts that stand beside what they set. What reads one part only says so by its type, and takes it alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, fields

import torch

from . import losses
from .augment import Augment
from .methods import AGGREGATIONS, METHODS, PAPER_METHODS, PRESETS, tuned
from .model import Input, Network
from .settings import Settings, one_of, unhashed, young


@dataclass(frozen=True)
class Data(Input):
    """Which cases, and how they are read."""

    dataset: str = unhashed("phantom")
    fold: int = unhashed(1)
    seed: int = unhashed(0)  # of everything that is drawn: a phantom, the first weights, the order of the cases
    data_dir: str = unhashed("")
    manifest: str = unhashed("")
    phantom_cases: int = 1000
    confounding: float = 0.9
    # read by `paper.run` alone: what it takes from the data (`paper.controls`), and the share of patients that keep their labels
    control: str = one_of("", "labels shuffled", "lesion blanked", "background blanked", "masks other", "scanner", young=True)
    label_share: float = young(1.0)


@dataclass(frozen=True)
class Training(Settings):
    """How a network is trained."""

    epochs: int = 10
    batch: int = 32
    optimizer: str = one_of("adamw", "adam")
    lr: float = 2e-3
    weight_decay: float = 0.05
    schedule: str = one_of("onecycle", "constant")
    ema: float = 0.0  # decay of the averaged weights; 0 = off
    validation: float = 0.1  # share of the training patients
    select: str = one_of("validation", "train-loss")  # which epoch is kept: "train-loss" as released
    precision: str = one_of("float32", "bfloat16")  # "bfloat16": autocast, fast where the processor has it, elsewhere as float32
    mask_share: float = 1.0  # share of the training patients whose outlines the segmentation loss may see
    mask_quality: str = one_of("exact", "dilated", "eroded", "box", "shifted", young=True)  # outlines seen in training
    validate_every: int = 3  # epochs between validations, from the half of the training on
    clip_norm: float = 5.0
    balanced: bool = False  # draw every class equally often
    device: str = unhashed("cpu")
    threads: int = unhashed(1)

    def __post_init__(self):
        super().__post_init__()
        for name in ("epochs", "batch", "threads", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"Config.{name}: {getattr(self, name)}; it must be at least 1")
        try:
            torch.device(self.device)
        except RuntimeError:
            raise ValueError(f"Config.device: {self.device!r} is not known; PyTorch knows cpu, cuda, cuda:1, mps ...") from None


@dataclass(frozen=True)
class Ranking(Settings):
    """How cases are ranked by what a trained network makes of them."""

    ranking: str = one_of("hamming", "cosine", "descriptor")  # "cosine": float code; "descriptor": float descriptor, cosine
    ks: tuple[int, ...] = unhashed((5, 10, 20, 50))
    flip_codes: bool = False  # average the code layer over the image and its mirror image
    aggregation: str = one_of("", *AGGREGATIONS, young=True)  # how C5 of a trained encoder is aggregated after training
    code_source: str = one_of("trained", "itq", young=True)  # "itq": fitted to the database's descriptors after training

    def __post_init__(self):
        super().__post_init__()
        if self.code_source == "itq" and not self.aggregation:
            raise ValueError("Config.code_source: 'itq' codes are made of aggregated features; Config.aggregation is empty")


@dataclass(frozen=True)
class Config(Data, Network, Augment, Training, Ranking):
    """Settings of one run. `Config.from_preset`, `Config.from_env` and `Config.but` make new ones."""

    preset: str = unhashed("quick")
    method: str = unhashed("ynet")
    variant: str = unhashed("")

    def flat(self) -> dict:
        """All settings by name, as on disk: there a loss is the ``cls_loss`` of Y-Net or the ``rival`` in its place."""
        values = dict(vars(self))
        loss = losses.named(values.pop("loss"))
        own = loss is None or loss.own
        return values | {"cls_loss": self.loss if own else "none", "rival": "" if own else self.loss}

    def hash(self) -> str:
        """Ten hexadecimal digits of everything that shapes the result except names, seed, fold, paths and device."""
        values = {key: value for key, value in self.flat().items() if key not in UNHASHED and (key, value) not in NEUTRAL.items()}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]

    def training_hash(self) -> str:
        """The hash without the fields that act only after training: runs that share it share one checkpoint.

        With validation the ranking chooses the epoch that is kept, so it only drops out where no validation takes place.
        """
        after = {f.name: f.default for f in fields(Ranking)}
        return self.but(**after).hash() if self.select == "train-loss" or self.validation == 0 else self.hash()

    def to_json(self) -> str:
        """All fields as JSON text, sorted by name."""
        return json.dumps(self.flat(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """The inverse of `to_json`. Raises ``ValueError`` that names unknown fields."""
        values = json.loads(text)
        own, other = values.pop("cls_loss", "none"), values.pop("rival", "")  # see `flat`
        values["loss"] = other or own
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"Config: unknown field(s) {unknown}; known fields: {sorted(known)}")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    @classmethod
    def from_preset(cls, preset: str = "quick", dataset: str = "phantom", method: str = "ynet", **changes) -> Config:
        """The settings of ``method`` on ``dataset`` under ``preset``; ``changes`` go on top.

        Order: field defaults, preset, method, what was tuned for this method under this preset, ``changes``.
        """
        for what, value, known in (("preset", preset, PRESETS), ("method", method, METHODS)):
            if value not in known:
                raise ValueError(f"{what} {value!r} is not known; known are {', '.join(known)}")
        if method in PAPER_METHODS:
            preset = "paper"
        named = {"preset": preset, "dataset": dataset, "method": method}
        return cls(**named | PRESETS[preset] | METHODS[method] | tuned(preset, method) | changes)

    @classmethod
    def from_env(cls, method: str = "ynet", **changes) -> Config:
        """`from_preset` with ``YNET_PRESET`` (default quick) and ``YNET_DATASET`` (default phantom).

        ``YNET_CHANNELS``: 1 (images are read as grey) or 3 (as colour); the preset decides where it is not set.
        ``YNET_DATA_DIR`` and ``YNET_MANIFEST`` are read where images are looked for (`ynet_lite.load_cases`).
        """
        preset, dataset, channels = (os.environ.get(f"YNET_{name}") for name in ("PRESET", "DATASET", "CHANNELS"))
        if channels:
            if channels not in ("1", "3"):
                raise ValueError(f"YNET_CHANNELS: {channels!r}; give 1 (grey) or 3 (colour)")
            changes = {"channels": int(channels)} | changes
        return cls.from_preset(preset or "quick", dataset or "phantom", method, **changes)


#: Fields that stay out of the hash, and those that do at one value; see `ynet_lite.settings`.
UNHASHED = tuple(f.name for f in fields(Config) if "unhashed" in f.metadata)
NEUTRAL = {"rival": ""} | {f.name: f.default for f in fields(Config) if "young" in f.metadata}
