"""Numbers of any depth as grey values 0..255: the one place where that is decided."""

from typing import NamedTuple

import numpy as np


class Refused(ValueError):
    """Why a picture is not taken, in words for its user; whoever knows the file puts its name before them."""


class Pixels(NamedTuple):
    """A decoded picture: ``array`` (H, W) or (H, W, 3) in the file's own number type, and the ``bits`` it says it uses.

    NaN is padding, shown black. With ``inverted`` the largest number is black.
    """

    array: np.ndarray
    bits: int | None = None
    inverted: bool = False


def grey_range(array: np.ndarray, least: tuple[float, float] = (0.0, 0.0)) -> tuple[float, float]:
    """(black, white) of numbers without a stated depth, so that pictures of one device stay comparable; at least ``least``.

    White is ``2^b - 1`` with the smallest b of at least 8 bits that holds the largest absolute value, but 1 for floats within
    [-1, 1]; black is 0, or ``-white`` when there are negative values.
    """
    low, high = float(np.nanmin(array, initial=0)), float(np.nanmax(array, initial=0))
    most = max(-low, high)
    white = 1.0 if array.dtype.kind == "f" and most <= 1 else 2.0 ** max(8, int(np.ceil(most)).bit_length()) - 1
    return min(-white if low < 0 else 0.0, least[0]), max(white, least[1])


def to_bytes(picture: Pixels, span: tuple[float, float] | None = None) -> np.ndarray:
    """The picture in 0..255: 8 bit as it is, else ``round(255 (x - black) / (white - black))``, halves up.

    Black and white are those of the bits that the file says are used, else ``span``, else `grey_range` of the picture.
    """
    array, bits, inverted = picture
    if array.dtype == np.uint8:
        return array
    low, high = (0.0, 2.0**bits - 1) if bits else span or grey_range(array)
    shown = np.floor(255 * np.clip((array.astype(np.float64) - low) / (high - low), 0, 1) + 0.5)
    return np.nan_to_num(255 - shown if inverted else shown).astype(np.uint8)
