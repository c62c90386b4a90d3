"""What a data set known by name says about itself; where its files lie, and whether they are as published."""

import fnmatch
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from .. import paths
from ..cases.core import Cases
from ..cases.formats import sha256
from ..cases.loading import load_table
from ..cases.manifest import ManifestError, first_few, read_text
from ..config import Data


@dataclass(frozen=True)
class DataSet:
    """A data set known by name: one file that ends with its row, and the row's name in `ynet_lite.sets.SETS`."""

    name: str  # what `Config.dataset` says
    title: str  # what tables and figures say
    load: Callable[[Data], Cases]
    folders: tuple[str, ...] = ()  # names of its folder, the usual one first; none for a set that needs no files
    inside: tuple[str, ...] = ()  # what lies in the folder of this set and of no other
    how_to_get: str = ""
    kept: str = ""  # ``sets/data/<kept>.sha256`` lists the checksums of its files; two sets may label the same images differently
    drawn: bool = False  # made anew from each seed: its runs share no cases


def load_folder(one: DataSet, cfg: Data, manifest: Callable[[Path], pd.DataFrame], **settings) -> Cases:
    """The cases of a set of files: find its folder, compare it with the kept checksums, read what ``manifest`` makes of it.

    ``settings`` go to `ynet_lite.cases.loading.load_table`. Raises ``FileNotFoundError`` (see `find`) or `ManifestError`.
    """
    folder, expected = find(one, cfg.data_dir), None
    if one.kept:
        report = verify(one, folder, only="*.csv")
        if not report.ok:
            raise ManifestError(f"{report}; get the set again ({one.how_to_get})", report.offenders, one.name)
        expected = checksums(one)
    about = {"name": cfg.dataset, "size": cfg.size, "channels": cfg.channels, "folder": folder, "expected": expected}
    return load_table(manifest(folder), **about, **settings)


class Verification(NamedTuple):
    """What `verify` found: how many files it compared, and the others as ``missing: PATH`` or ``changed: PATH``."""

    name: str
    folder: Path
    checked: int
    offenders: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.offenders

    def __str__(self) -> str:
        if self.ok:
            return f"{self.name}: all {self.checked} files in {self.folder} are as published"
        return f"{self.name}: {len(self.offenders)} of {self.checked} files are not as published: {first_few(self.offenders)}"


def find(one: DataSet, data_dir=None) -> Path:
    """The folder of a set in its original layout.

    Looked for in ``data_dir`` when given (and nowhere else), otherwise in ``YNET_DATA_DIR``, then in ``data/raw/``; either the
    folder itself or one that holds it. Raises ``FileNotFoundError`` saying where it looked and how to get the set, and
    ``ValueError`` for a set that has no folder.
    """
    if not one.folders:
        raise ValueError(f"find: the set {one.name!r} has no folder of its own")
    named = data_dir or os.environ.get("YNET_DATA_DIR")
    roots = ([paths.yours(named)] if named else []) + ([] if data_dir else [paths.raw()])
    for root in roots:
        for folder in (*(root / name for name in one.folders), root):
            if all((folder / part).exists() for part in one.inside):
                return folder
    raise FileNotFoundError(
        f"{one.kept or one.name}: not found in {', '.join(map(str, roots))} "
        f"(a folder {one.folders[0]}/ with {', '.join(one.inside)}); "
        f"set YNET_DATA_DIR to the folder that holds it, or get it: {one.how_to_get}"
    )


def read_columns(path: Path, wanted: list[str]) -> pd.DataFrame:
    """A list of a published set, divided by commas or tabs (see `read_text`), which must have the ``wanted`` columns."""
    table = read_text(path, str(path), tabs=True)
    missing = [column for column in wanted if column not in table]
    if missing:
        raise ManifestError(f"{path}: missing column(s) {missing}; found {list(table.columns)}")
    return table


def checksums(one: DataSet) -> dict[str, str]:
    """The kept list of a set: SHA-256 per path relative to its folder."""
    lines = (paths.splits() / f"{one.kept}.sha256").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {name.strip().removeprefix("./"): digest for digest, name in pairs}


def verify(one: DataSet, folder=None, only: str = "*") -> Verification:
    """Compare the files of a set in ``folder`` (looked for when None) with the kept checksums; other files are ignored.

    ``only`` is a shell pattern on the relative paths, for example ``*.csv``.
    """
    folder = find(one) if folder is None else Path(folder)
    listed = {path: digest for path, digest in checksums(one).items() if fnmatch.fnmatch(path, only)}
    missing = [f"missing: {path}" for path in listed if not (folder / path).is_file()]
    changed = [f"changed: {path}" for path in listed if (folder / path).is_file() and sha256(folder / path) != listed[path]]
    return Verification(one.kept or one.name, folder, len(listed), (*missing, *changed))
