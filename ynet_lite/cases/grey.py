"""Numbers of any depth as grey values 0..255: the one place where that is decided."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Pixels(NamedTuple):
    """A decoded picture: ``array`` (H, W) or (H, W, 3) in the file's own number type, and the ``bits`` it says it uses."""

    array: np.ndarray
    bits: int | None = None


def grey_range(array: np.ndarray) -> tuple[float, float]:
    """(black, white) of numbers without a stated depth, so that pictures of one device stay comparable.

    White is ``2^b - 1`` with the smallest b of at least 8 bits that holds the largest absolute value, but 1 for floats within
    [-1, 1]; black is 0, or ``-white`` when there are negative values.
    """
    most = float(np.abs(array.astype(np.float64)).max())
    white = 1.0 if array.dtype.kind == "f" and most <= 1 else 2.0 ** max(8, int(np.ceil(most)).bit_length()) - 1
    return (-white if array.min() < 0 else 0.0), white


def to_bytes(picture: Pixels, span: tuple[float, float] | None = None) -> np.ndarray:
    """The picture in 0..255: 8 bit as it is, else ``round(255 (x - black) / (white - black))``, halves up.

    Black and white are those of the bits that the file says are used, else ``span``, else `grey_range` of the picture.
    """
    array, bits = picture
    if array.dtype == np.uint8:
        return array
    low, high = (0.0, 2.0**bits - 1) if bits else span or grey_range(array)
    return np.floor(255 * np.clip((array.astype(np.float64) - low) / (high - low), 0, 1) + 0.5).astype(np.uint8)
