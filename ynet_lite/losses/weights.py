"""What the losses of a network are set by."""

from __future__ import annotations

from dataclasses import dataclass

from ..hashing import BITS
from ..settings import Settings, one_of, young
from . import ALL, named


@dataclass(frozen=True)
class LossWeights(Settings):
    """|a| ``cls_scale`` classification + |1 - a| segmentation + ``quant_weight`` quantisation, with a = ``balance``."""

    bits: int = one_of(64, *BITS)
    loss: str = one_of(*(loss.name for loss in ALL), "none")
    cls_target: str = one_of("code", "descriptor")  # what the classification loss sees: "descriptor" as released
    cls_scale: float = 1.0
    balance: float = 0.5
    balance_trainable: bool = False
    dice: bool = True  # add soft Dice to the pixel-wise cross-entropy
    quant_weight: float = 0.01
    pair_sharpness: float = 0.5  # DPSH's 1/2
    centre_scale: float = 8.0
    circle_margin: float = 0.25
    circle_gamma: float = 32.0
    rival_scale: float = young(1.0)  # multiplies a rival's own sharpness, margin or pull
    same_class: str = one_of("equal", "product")  # "product" of labels as in the released script (two benign images: negative)

    def __post_init__(self):
        super().__post_init__()
        loss = named(self.loss)
        if loss and loss.own and "centres" in loss.needs and self.cls_target != "code":
            raise ValueError(f"Config.cls_target: {self.cls_target!r}; the loss {self.loss!r} is defined on the code only")

    @property
    def uses_masks(self) -> bool:
        """True where the segmentation loss has a weight."""
        return self.balance_trainable or self.balance != 1
