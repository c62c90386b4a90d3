"""Encoders by name: what turns an image into the maps C2..C5, of strides 4, 8, 16 and 32.

An encoder is a module with ``widths`` (channels of the four levels), ``stages`` (four modules; the output of ``stages[i]`` is
level C(i+2)) and ``forward(x)`` -> [C2, C3, C4, C5], where x (N, channels, H, W) is normalised. One that was trained on images of
other statistics than ours also has ``mean`` and ``std``, one number a channel, in shares of 255; one whose C2 has another stride
than 4 says so by ``stride``.

A new one is a file with such a class and a row of `ALL`.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from .huggingface import HuggingFace
from .lite0 import Lite0
from .small import Small


class Encoder(NamedTuple):
    """One row: ``name`` as in ``Config.encoder`` (one that ends in ":" is a prefix), ``make(cfg, pretrained)`` -> module."""

    name: str
    title: str
    make: Callable[..., nn.Module]


ALL = (
    Encoder("small", "small residual network, from scratch", Small),
    Encoder("lite0", "EfficientNet-Lite0, ImageNet weights", Lite0),
    Encoder("hf:", "a backbone of transformers", HuggingFace),
)


def named(name: str) -> Encoder:
    """The row of an encoder's name. Raises ``ValueError`` that lists the known ones."""
    for row in ALL:
        if name == row.name or (row.name.endswith(":") and name.startswith(row.name)):
            return row
    known = ", ".join(f"{row.name}<name>" if row.name.endswith(":") else row.name for row in ALL)
    raise ValueError(f"Config.encoder: {name!r} is not known; known are {known}")
