"""`Config`: every number that matters, in one frozen object that can be hashed, stored and compared."""

from __future__ import annotations

import hashlib
import json
import operator
import os
from dataclasses import asdict, dataclass, fields, replace

from . import encoders, losses
from .methods import AGGREGATIONS, METHODS, PAPER_METHODS, POOLINGS, PRESETS, tuned


@dataclass(frozen=True)
class Config:
    """Settings of one run. `Config.from_preset`, `Config.from_env` and `Config.but` make new ones."""

    # --- which run (see UNHASHED)
    preset: str = "quick"
    dataset: str = "phantom"
    method: str = "ynet"
    variant: str = ""
    fold: int = 1
    seed: int = 0
    data_dir: str = ""
    manifest: str = ""
    device: str = "cpu"
    threads: int = 1

    # --- phantom
    phantom_cases: int = 1000
    confounding: float = 0.9

    # --- input
    size: int = 64
    channels: int = 1

    # --- network
    encoder: str = "small"  # "lite0": ImageNet weights; "hf:<name or folder>": a backbone of `transformers`
    frozen: int = 0  # levels of a pretrained encoder that stay as they came, the stem with them; 0 = none
    drop_path: float = 0.0  # lite0: probability that the last block is skipped in training; earlier ones in proportion
    stem: str = "conv3"  # "conv7-pool": 7x7 /2 and max-pool /2, as released; "conv3": one 3x3 /2
    block: str = "basic"  # "bottleneck" as released (expansion 4)
    planes: tuple[int, ...] = (16, 32, 64, 128)
    blocks: int = 2
    fpn: int = 32
    descriptor: int = 0  # channels of a 3x3 convolution on C5 before aggregation (released: 512); 0 = none
    seg_features: str = "logits"  # what is upsampled to full size: "logits" (ours) or "features" (as released)
    seg_activation: str = "none"  # on the logits: "none", "relu" (released script), "bn" (released notebooks)
    pooling: str = "lesion"  # one of POOLINGS, or two joined by "+" (descriptors side by side)
    pool_levels: tuple[int, ...] = (3, 4)  # which of C2..C5 are aggregated
    code_input: str = "descriptor"  # "c5": the flattened C5, as released
    code_norm: bool = False  # batch-normalise the code (balanced bits)
    bits: int = 64

    # --- losses: |a| * cls_scale * classification + |1 - a| * segmentation + quant_weight * quantisation
    loss: str = "pairwise"  # one of `ynet_lite.losses.ALL`, or "none"
    cls_target: str = "code"  # what the classification loss sees: "code" or "descriptor" (as released)
    cls_scale: float = 1.0
    balance: float = 0.5
    balance_trainable: bool = False
    dice: bool = True  # add soft Dice to the pixel-wise cross-entropy
    quant_weight: float = 0.01
    pair_sharpness: float = 0.5  # DPSH's 1/2
    centre_scale: float = 8.0
    circle_margin: float = 0.25
    circle_gamma: float = 32.0
    same_class: str = "equal"  # "product": label product as in the released script (two benign images: negative)

    # --- training
    epochs: int = 10
    batch: int = 32
    optimizer: str = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.05
    schedule: str = "onecycle"  # or "constant"
    augment: bool = True
    ema: float = 0.0  # decay of the averaged weights; 0 = off
    validation: float = 0.1  # share of the training patients
    select: str = "validation"  # "train-loss" as released
    precision: str = "float32"  # "bfloat16": autocast; fast where the processor has it, slow where it is emulated
    mask_share: float = 1.0  # share of the training patients whose outlines the segmentation loss may see
    validate_every: int = 3  # epochs between validations, from the half of the training on
    clip_norm: float = 5.0
    balanced: bool = False  # draw every class equally often
    aug_rotate: float = 10.0  # degrees, either way
    aug_scale: float = 0.1  # factor 1 +- this
    aug_shift: float = 0.08  # share of the width
    aug_contrast: float = 0.2  # contrast factor 1 +- this; brightness by a quarter of it, in shares of 255
    flip_codes: bool = False  # average the code layer over the image and its mirror image

    # --- rivals and ablations; at these values the fields stay out of the hash (see NEUTRAL)
    rival_scale: float = 1.0  # multiplies that loss's own sharpness, margin or pull
    attention: str = "none"  # on C5 before it is aggregated: "spatial" as in ASH, "spatial-max" as in ATH
    mask_quality: str = "exact"  # outlines seen in training: "exact", "dilated", "eroded", "box", "shifted"
    aggregation: str = ""  # how C5 of a trained encoder is aggregated after training: one of AGGREGATIONS
    code_source: str = "trained"  # "itq": codes fitted to the database's descriptors after training

    # --- ranking
    ranking: str = "hamming"  # "cosine": float code; "descriptor": float descriptor, cosine
    ks: tuple[int, ...] = (5, 10, 20, 50)

    def __post_init__(self):
        # equal settings must have equal hashes, and 1 and 1.0 are written differently
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type == "float":
                object.__setattr__(self, f.name, float(value))
            elif f.type == "int":  # JSON knows no number of NumPy's, such as a fold taken from a table
                try:
                    object.__setattr__(self, f.name, operator.index(value))
                except TypeError:
                    raise ValueError(f"Config.{f.name}: {value!r}; a whole number is needed") from None
        for name in ("data_dir", "manifest"):  # nor a Path
            object.__setattr__(self, name, os.fspath(getattr(self, name)))
        for name, known in CHOICES.items():
            value = getattr(self, name)
            for part in value.split("+") if name == "pooling" else [value]:
                if part not in known:
                    raise ValueError(f"Config.{name}: {value!r} is not known; known are {', '.join(known)}")
        encoders.named(self.encoder)
        if not 0 <= self.frozen <= 4:
            raise ValueError(f"Config.frozen: {self.frozen}; an encoder has 4 levels (C2 to C5)")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"Config.drop_path: {self.drop_path}; it is a probability below 1")
        if self.bits not in (8, 16, 32, 48, 64, 128, 256):
            raise ValueError(f"Config.bits: {self.bits}; known are 8, 16, 32, 48, 64, 128, 256")
        if not self.pool_levels or not set(self.pool_levels) <= {2, 3, 4, 5}:
            raise ValueError(f"Config.pool_levels: {self.pool_levels}; the levels are 2 to 5 (C2 to C5)")
        if self.loss == "centres" and self.cls_target != "code":
            raise ValueError(f"Config.cls_target: {self.cls_target!r}; the loss {self.loss!r} is defined on the code only")
        if self.code_source == "itq" and not self.aggregation:
            raise ValueError("Config.code_source: 'itq' codes are made of aggregated features; Config.aggregation is empty")

    @property
    def uses_masks(self) -> bool:
        """True where the segmentation loss has a weight."""
        return self.balance_trainable or self.balance != 1

    def but(self, **changes) -> Config:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def flat(self) -> dict:
        """All settings by name, as on disk: there a loss is the ``cls_loss`` of Y-Net or the ``rival`` in its place."""
        values = asdict(self)
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
        shared = {"ranking": "hamming", "flip_codes": False, "aggregation": "", "code_source": "trained"}
        return self.but(**shared).hash() if self.select == "train-loss" or self.validation == 0 else self.hash()

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
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r} is not known; known are {', '.join(PRESETS)}")
        if method not in METHODS:
            raise ValueError(f"method {method!r} is not known; known are {', '.join(METHODS)}")
        if method in PAPER_METHODS:
            preset = "paper"
        values = {"preset": preset, "dataset": dataset, "method": method}
        values |= PRESETS[preset] | dict(METHODS[method]) | dict(tuned(preset, method)) | changes
        return cls(**values)

    @classmethod
    def from_env(cls, method: str = "ynet", **changes) -> Config:
        """`from_preset` with ``YNET_PRESET`` (default quick) and ``YNET_DATASET`` (default phantom).

        ``YNET_CHANNELS``: 1 (images are read as grey) or 3 (as colour); the preset decides where it is not set.
        ``YNET_DATA_DIR`` and ``YNET_MANIFEST`` are read where images are looked for (`ynet_lite.cases.load_cases`).
        """
        preset = os.environ.get("YNET_PRESET") or "quick"
        dataset = os.environ.get("YNET_DATASET") or "phantom"
        channels = os.environ.get("YNET_CHANNELS")
        if channels:
            if channels not in ("1", "3"):
                raise ValueError(f"YNET_CHANNELS: {channels!r}; give 1 (grey) or 3 (colour)")
            changes = {"channels": int(channels)} | changes
        return cls.from_preset(preset, dataset, method, **changes)


#: Fields with a fixed set of values.
CHOICES = {
    "stem": ("conv3", "conv7-pool"),
    "block": ("basic", "bottleneck"),
    "seg_features": ("logits", "features"),
    "seg_activation": ("none", "relu", "bn"),
    "pooling": POOLINGS,
    "code_input": ("descriptor", "c5"),
    "loss": (*(loss.name for loss in losses.ALL), "none"),
    "cls_target": ("code", "descriptor"),
    "same_class": ("equal", "product"),
    "optimizer": ("adam", "adamw"),
    "schedule": ("onecycle", "constant"),
    "select": ("validation", "train-loss"),
    "precision": ("float32", "bfloat16"),
    "attention": ("none", "spatial", "spatial-max"),
    "mask_quality": ("exact", "dilated", "eroded", "box", "shifted"),
    "aggregation": ("", *AGGREGATIONS),
    "code_source": ("trained", "itq"),
    "ranking": ("hamming", "cosine", "descriptor"),
}

#: Fields that do not change what is learned from given data and therefore stay out of the hash.
UNHASHED = ("preset", "dataset", "method", "variant", "fold", "seed", "data_dir", "manifest", "device", "threads", "ks")

#: Fields that are younger than the first committed rows. Each stays out of the hash at the value that stands for the behaviour
#: before it existed, so that no older row loses its configuration.
NEUTRAL = {
    "rival": "",
    "rival_scale": 1.0,
    "attention": "none",
    "mask_quality": "exact",
    "aggregation": "",
    "code_source": "trained",
    "encoder": "small",
    "frozen": 0,
    "drop_path": 0.0,
}
