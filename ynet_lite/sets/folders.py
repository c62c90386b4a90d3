"""Where the real sets lie, and whether they are as published."""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .. import paths
from ..cases.formats import sha256
from ..cases.manifest import ManifestError, first_few

FOLDERS = {  # names of the folder, and what must be inside so that it is the set
    "busbra": (("busbra", "BUSBRA", "BUS-BRA"), ("bus_data.csv", "5-fold-cv.csv", "Images", "Masks")),
    "busi": (("busi", "BUSI", "Dataset_BUSI_with_GT"), ("benign", "malignant", "normal")),
}

HOW_TO_GET = {
    "busbra": "`python -m ynet_lite.sets.download busbra` fetches it (134 MB, DOI 10.5281/zenodo.7730709)",
    "busi": "get it by hand (DOI 10.1016/j.dib.2019.104863) and unpack it as busi/benign, busi/malignant, busi/normal",
}


@dataclass(frozen=True)
class Verification:
    """What `verify` found: how many files it compared, which are missing and which differ (paths below ``folder``)."""

    name: str
    folder: Path
    checked: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.missing and not self.changed

    def __str__(self) -> str:
        if self.ok:
            return f"{self.name}: all {self.checked} files in {self.folder} are as published"
        parts = [f"{self.name}: {len(self.missing)} missing and {len(self.changed)} changed file(s) of {self.checked}"]
        parts += [f"missing: {first_few(self.missing)}"] if self.missing else []
        parts += [f"changed: {first_few(self.changed)}"] if self.changed else []
        return "; ".join(parts)


def find(name: str, data_dir=None) -> Path:
    """The folder of the set ``name`` (``busbra`` or ``busi``) in its original layout.

    Looked for in ``data_dir`` when given (and nowhere else), otherwise in ``YNET_DATA_DIR``, then in ``data/raw/``;
    either the folder itself or one that holds it. Raises ``FileNotFoundError`` saying where it looked and how to get
    the set.
    """
    if name not in FOLDERS:
        raise ValueError(f"find: unknown set {name!r}; known: {sorted(FOLDERS)}")
    if data_dir:
        roots = [Path(data_dir)]
    else:
        named = os.environ.get("YNET_DATA_DIR")
        # a notebook runs in its own folder: a relative path counts from the project
        roots = [paths.root() / named] if named else []
        roots.append(paths.raw())
    names, inside = FOLDERS[name]
    for root in roots:
        for folder in (root / names[0], *(root / other for other in names[1:]), root):
            if all((folder / part).exists() for part in inside):
                return folder
    raise FileNotFoundError(
        f"{name}: not found in {', '.join(map(str, roots))} (a folder {names[0]}/ with {', '.join(inside)}); "
        f"set YNET_DATA_DIR to the folder that holds it, or get it: {HOW_TO_GET[name]}"
    )


def _columns(path: Path, wanted: list[str]) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [column for column in wanted if column not in table]
    if missing:
        raise ManifestError(f"{path}: missing column(s) {missing}; found {list(table.columns)}")
    return table[wanted]


def checksums(name: str) -> dict[str, str]:
    """The kept list ``data/splits/<name>.sha256``: SHA-256 per path relative to the set's folder."""
    path = paths.splits() / f"{name}.sha256"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the list of checksums of {name} is missing; it belongs to the project")
    pairs = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {name.strip().removeprefix("./"): digest for digest, name in pairs}


def verify(name: str, folder=None, only: str = "*") -> Verification:
    """Compare the files of the set ``name`` in ``folder`` (looked for when None) with the kept checksums.

    ``only`` is a shell pattern on the relative paths, for example ``*.csv``. Files that the list does not name are
    ignored.
    """
    folder = find(name) if folder is None else Path(folder)
    listed = {path: digest for path, digest in checksums(name).items() if fnmatch.fnmatch(path, only)}
    missing = [path for path in listed if not (folder / path).is_file()]
    gone = set(missing)
    present = [path for path in listed if path not in gone]
    changed = [path for path in present if sha256(folder / path) != listed[path]]
    return Verification(name, folder, len(listed), tuple(missing), tuple(changed))
