"""Your own images: a CSV with one row per case."""

from __future__ import annotations

import os
import re

from .. import paths
from ..cases.core import Cases
from ..cases.loading import load_table
from ..cases.manifest import ManifestError, files, read_manifest
from ..config import Data
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
    manifest = paths.yours(named)
    table = read_manifest(manifest)
    settings = {}
    if "mask_names" in table and len(table):
        names = sorted(set(table["mask_names"]))
        if len(names) != 1 or len(files(names[0])) < 2:
            raise ManifestError(
                f"{manifest}: column mask_names must hold the same two or more names in each row, such as "
                f"background;disc;cup; found {names[:5]}"
            )
        settings["mask_names"] = tuple(files(names[0]))
    if "mask_values" in table and len(table):
        stated = sorted(set(table["mask_values"]))
        values = tuple(part.lower() for part in files(stated[0]))
        kinds = {"colour" if re.fullmatch("#[0-9a-f]{6}", v) else "grey" if v.isdecimal() else "none" for v in values}
        wanted = len(settings.get("mask_names", ("background", "lesion")))
        if len(stated) != 1 or len(set(values)) != wanted or len(values) != wanted or kinds not in ({"grey"}, {"colour"}):
            raise ManifestError(
                f"{manifest}: column mask_values must hold the same grey values or colours in each row, one for each of the "
                f"{wanted} mask names, such as 0;128;255 or #000000;#ff0000; found {stated[:5]}"
            )
        settings["mask_values"] = values
    if "finer" in table:
        settings["finer"] = ("finer",)
    folder = manifest.resolve().parent
    return load_table(table, name=cfg.dataset, size=cfg.size, channels=cfg.channels, folder=folder, **settings)


CSV = DataSet("csv", "your own images", load)
