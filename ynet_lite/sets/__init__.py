"""Data sets known by name: each is one file and one row of `SETS`. Every other list of sets is a query of it."""

from ..cases.core import Cases
from ..config import Data
from .busbra import BUSBRA, BUSBRA_BIRADS
from .busi import BUSI
from .folders import DataSet
from .own import CSV
from .phantom import PHANTOM

SETS: tuple[DataSet, ...] = (PHANTOM, BUSBRA, BUSBRA_BIRADS, BUSI, CSV)


def named(name: str) -> DataSet:
    """The row of a set. Raises ``ValueError`` that lists the known names."""
    for one in SETS:
        if one.name == name:
            return one
    raise ValueError(f"data set {name!r} is not known; known are {', '.join(one.name for one in SETS)}")


def title(name: str) -> str:
    """What tables and figures call a set; its own name where it is none of `SETS`."""
    return next((one.title for one in SETS if one.name == name), name)


def drawn_per_seed() -> tuple[str, ...]:
    """Names of the sets that are made anew from each seed: there another seed means other queries."""
    return tuple(one.name for one in SETS if one.drawn)


def load_cases(cfg: Data) -> Cases:
    """The cases that ``cfg`` names, as uint8 squares of ``cfg.size`` pixels with ``cfg.channels`` channels.

    ``cfg.dataset`` is the name of one of `SETS`: the phantom is drawn; the real sets are looked for as in `folders.find` and
    compared with the kept checksums; ``csv`` reads the manifest at ``cfg.manifest`` or ``YNET_MANIFEST``.

    Raises ``ValueError`` for an unknown set or a bad manifest, ``FileNotFoundError`` when the set is not there.
    """
    return named(cfg.dataset).load(cfg)
