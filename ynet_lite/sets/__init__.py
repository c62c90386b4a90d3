"""Cases: where images, masks, labels and patients come from."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from .. import paths
from ..cases.core import Cases
from ..cases.loading import BOX, load_table, resize_cases
from ..cases.manifest import ManifestError, files, read_manifest
from ..config import DATASETS, Config
from . import busbra, busi, folders
from .phantom import make_phantom

PHANTOM_SIZE = 96


def load_cases(cfg: Config) -> Cases:
    """The cases that ``cfg`` names, as uint8 squares of ``cfg.size`` pixels with ``cfg.channels`` channels.

    ``cfg.dataset`` is one of

    - ``phantom``: ``make_phantom(cfg.phantom_cases, cfg.seed, confounding=cfg.confounding)``, resized from 96 pixels;
    - ``busbra``, ``busbra-birads``, ``busi``: the real sets, found in ``cfg.data_dir``, ``YNET_DATA_DIR`` or
      ``data/raw/`` and compared with the kept checksums;
    - ``csv``: the manifest at ``cfg.manifest`` or ``YNET_MANIFEST``. An optional column ``finer`` refines the class; an
      optional column ``mask_names`` (the same in each row, for example ``background;disc;cup``) names the mask values.
      `ynet_lite.sets.published` makes such manifests of more published sets.

    Raises ``ValueError`` for an unknown set or a bad manifest, ``FileNotFoundError`` when the set is not there.
    """
    if cfg.dataset == "phantom":
        return resize_cases(_phantom(cfg), cfg.size, cfg.channels)
    if cfg.dataset in ("busbra", "busbra-birads"):
        label, finer = ("pathology", "birads") if cfg.dataset == "busbra" else ("birads", "pathology")
        folder = folders.find("busbra", cfg.data_dir)
        _check_tables("busbra", folder)
        table = busbra.busbra(folder, label)
        return _load(cfg, table, folder=folder, finer=(finer,), expected=folders.checksums("busbra"))
    if cfg.dataset == "busi":
        folder = folders.find("busi", cfg.data_dir)
        return _load(
            cfg,
            busi.busi(folder),
            folder=folder,
            class_names=busi.BUSI_CLASSES,
            centre_crop=busi.BUSI_CENTRE_CROP,
            expected=folders.checksums("busi"),
        )
    if cfg.dataset == "csv":
        return _csv(cfg)
    raise ValueError(f"load_cases: unknown dataset {cfg.dataset!r}; known: {', '.join(DATASETS)}")


def _phantom(cfg: Config) -> Cases:
    cases = make_phantom(n_cases=cfg.phantom_cases, seed=cfg.seed, size=PHANTOM_SIZE, confounding=cfg.confounding)
    table = cases.table.copy()
    for column, value in zip(BOX, (PHANTOM_SIZE, PHANTOM_SIZE, 0, 0, cfg.size, cfg.size), strict=True):
        table[column] = value
    return replace(cases, table=table)


def _csv(cfg: Config) -> Cases:
    manifest = cfg.manifest or os.environ.get("YNET_MANIFEST", "")
    if not manifest:
        raise FileNotFoundError("dataset csv: name your manifest, in the setting `manifest` or in YNET_MANIFEST")
    manifest = paths.root() / manifest  # a notebook runs in its own folder: a relative path counts from the project
    table = read_manifest(manifest)
    settings = {}
    if "mask_names" in table and len(table):
        named = sorted(set(table["mask_names"]))
        if len(named) != 1 or len(files(named[0])) < 2:
            raise ManifestError(
                f"{manifest}: column mask_names must hold the same two or more names in each row, such as "
                f"background;disc;cup; found {named[:5]}"
            )
        settings["mask_names"] = tuple(files(named[0]))
    if "finer" in table:
        settings["finer"] = ("finer",)
    return _load(cfg, table, folder=Path(manifest).resolve().parent, **settings)


def _load(cfg: Config, table, **settings) -> Cases:
    return load_table(table, name=cfg.dataset, size=cfg.size, channels=cfg.channels, **settings)


def _check_tables(name: str, folder) -> None:
    report = folders.verify(name, folder, only="*.csv")
    if not report.ok:
        raise ManifestError(f"{report}; get the set again ({folders.HOW_TO_GET[name]})")
