"""Where things lie: one place, so that notebooks, tests and commands agree whatever folder they start in."""

import contextlib
import os
import platform
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

PACKAGE = Path(__file__).resolve().parent

#: Environment variables that name a path of the user.
VARIABLES = ("YNET_DATA_DIR", "YNET_MANIFEST", "YNET_OUT", "YNET_CACHE", "YNET_LOCAL_FIGURES")


def in_checkout() -> bool:
    """Whether this package is imported from a checkout of the project, with its results, figures and notebooks."""
    return (PACKAGE.parent / "pyproject.toml").is_file()


def root() -> Path:
    """The project folder: the checkout this package is installed from, else the current folder."""
    return PACKAGE.parent if in_checkout() else Path.cwd()


def yours(path: str | Path) -> Path:
    """A path that a person wrote, absolute: ``~`` is the home folder, a relative one counts from the current folder.

    In ``notebooks/`` of the project, where Jupyter starts a notebook, it counts from the project.
    """
    here = Path.cwd()
    return (root() if here == root() / "notebooks" else here) / Path(path).expanduser()


def _set(variable: str, default: Path) -> Path:
    named = os.environ.get(variable)
    return yours(named) if named else default


def out() -> Path:
    """Folder for everything a run writes (never tracked by git): ``YNET_OUT``, else ``out/`` of the project."""
    return _set("YNET_OUT", root() / "out")


def results() -> Path:
    """Folder of the committed result rows. Raises ``FileNotFoundError`` where the package came without them."""
    if not in_checkout() and not (root() / "data" / "results").is_dir():
        raise FileNotFoundError("the committed results do not come with the package: clone the repository and start there")
    return root() / "data" / "results"


def splits() -> Path:
    """Folder of the kept split lists and checksum lists, which travel with the package."""
    return PACKAGE / "sets" / "data"


def cache() -> Path:
    """Folder of resized image sets (ignored by git, may be deleted at any time): ``YNET_CACHE``, else ``data/cache/``."""
    return _set("YNET_CACHE", root() / "data" / "cache")


def raw() -> Path:
    """Folder for downloaded originals (ignored by git)."""
    return root() / "data" / "raw"


def local_figures() -> Path:
    """Folder for pictures that show pixels of real cases: ``YNET_LOCAL_FIGURES``, else ``figures/local/`` (ignored by git)."""
    return _set("YNET_LOCAL_FIGURES", root() / "figures" / "local")


def listed(folder: str | Path, pattern: str = "*.csv") -> list[Path]:
    """Files of ``folder`` that match, sorted; never a hidden one, since that may be half of a file (see `replacing`)."""
    return sorted(path for path in Path(folder).glob(pattern) if not path.name.startswith("."))


def _lives(process: int) -> bool:
    """Whether a process of this number runs here; yes where nobody can tell (on Windows asking would end it)."""
    try:
        if os.name == "posix":
            os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it when the block ends well and removed when it does not.

    A reader of ``path`` sees the old file or the whole new one; read folders with `listed`. The name is hidden, keeps the suffix,
    by which some writers choose a format, and holds machine, process and thread, so that two writers do not meet. What a process
    of this machine left of ``path`` when it was killed is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    host = platform.node() or "host"
    for left in path.parent.glob(".*"):
        process = re.fullmatch(rf"\.{re.escape(host)}-(\d+)-\d+\.{re.escape(path.name)}", left.name)
        if process and not _lives(int(process.group(1))):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{host}-{os.getpid()}-{threading.get_ident()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # a write that failed does not know its file: no room on the disk, most likely
            raise OSError(error.errno, f"{error.strerror or error}; make room and try again", str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file under a temporary name and rename it."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def write_csv(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table under a temporary name and rename it, so that an interrupted run leaves no half file."""
    return write_text(path, table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
