"""Your own images: a CSV with one row per case."""

import os

from ..cases.core import Cases
from ..config import Data
from ..own import read_own
from .folders import DataSet


def load(cfg: Data) -> Cases:
    """The cases of the manifest at ``cfg.manifest`` or ``YNET_MANIFEST``; relative paths count from where you are.

    Optional columns: ``finer`` refines the class; ``mask_names`` (the same in each row, for example ``background;disc;cup``)
    names the mask values; ``mask_values`` (``0;128;255`` or ``#000000;#ff0000``) says what stands for them in the files. Raises
    ``FileNotFoundError`` or `ManifestError`.
    """
    named = cfg.manifest or os.environ.get("YNET_MANIFEST", "")
    if not named:
        raise FileNotFoundError("dataset csv: name your manifest, in the setting `manifest` or in YNET_MANIFEST")
    return read_own(named, cfg.size, cfg.channels, name=cfg.dataset, folds=False)


CSV = DataSet("csv", "your own images", load)
