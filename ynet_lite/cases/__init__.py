"""Cases: images, masks, labels and patients, from a manifest to arrays."""

from .core import Cases
from .formats import read_image, read_mask
from .loading import letterbox, load_table, resize_cases
from .manifest import ManifestError, check_manifest, read_manifest
from .splits import deal, validation_rows

__all__ = [
    "Cases",
    "ManifestError",
    "check_manifest",
    "deal",
    "letterbox",
    "load_table",
    "read_image",
    "read_manifest",
    "read_mask",
    "resize_cases",
    "validation_rows",
]
