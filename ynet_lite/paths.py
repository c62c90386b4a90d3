"""Where things lie: one place, so that notebooks, tests and commands agree whatever folder they start in."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd


def root() -> Path:
    """The project folder: the checkout this package is installed from, else the current folder."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def out() -> Path:
    """Folder for everything a run writes (never tracked by git): ``YNET_OUT``, else ``out/`` of the project."""
    return Path(os.environ.get("YNET_OUT") or root() / "out")


def results() -> Path:
    """Folder of the committed result rows."""
    return root() / "data" / "results"


def splits() -> Path:
    """Folder of the committed split lists and checksum lists."""
    return root() / "data" / "splits"


def cache() -> Path:
    """Folder of resized image sets (ignored by git, may be deleted at any time)."""
    return Path(os.environ.get("YNET_CACHE") or root() / "data" / "cache")


def raw() -> Path:
    """Folder for downloaded originals (ignored by git)."""
    return root() / "data" / "raw"


def local_figures() -> Path:
    """Folder for pictures that show pixels of real cases: ``YNET_LOCAL_FIGURES``, else ``figures/local/`` (ignored by git)."""
    return Path(os.environ.get("YNET_LOCAL_FIGURES") or root() / "figures" / "local")


def listed(folder: str | Path, pattern: str = "*.csv") -> list[Path]:
    """Files of ``folder`` that match, sorted; never a hidden one, since that may be half of a file (see `replacing`)."""
    return sorted(path for path in Path(folder).glob(pattern) if not path.name.startswith("."))


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it when the block ends well and removed when it does not.

    A reader of ``path`` sees the old file or the whole new one, never a part; who reads a folder does so by `listed`. The name
    is hidden, keeps the suffix, by which some writers choose a format, and holds process and thread, so that two writers do not
    meet.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{threading.get_ident()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_csv(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table under a temporary name and rename it, so that an interrupted run leaves no half file."""
    path = Path(path)
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", float_format="%.6g")
    return path
