"""Cases: images, masks, labels and patients, from a manifest to arrays."""

from .core import Cases
from .formats import read_image
from .splits import deal

__all__ = ["Cases", "deal", "read_image"]
