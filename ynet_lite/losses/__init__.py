"""Losses: one idea, one file. A new one is a file with a `HashLoss` and a name in `ALL`; then a row in `ynet_lite.methods`."""

from .ash import ASH
from .ath import ATH
from .batch import Batch, HashLoss
from .ce import CE
from .centres import CENTRES
from .circle import CIRCLE
from .csq import CSQ
from .dpsh import DPSH
from .drh import DRH
from .dsh import DSH
from .hashnet import HASHNET
from .orthohash import ORTHOHASH
from .overlap import OVERLAP
from .pairwise import PAIRWISE

__all__ = ["ALL", "Batch", "HashLoss", "named"]

#: Those of Y-Net, then the deep hashing losses it is compared with.
ALL = (PAIRWISE, CIRCLE, CE, CENTRES, OVERLAP, DSH, DPSH, DRH, HASHNET, CSQ, ORTHOHASH, ASH, ATH)


def named(name: str) -> HashLoss | None:
    """The loss of that name; None for "none". Raises ``ValueError`` that lists the known ones."""
    known = {loss.name: loss for loss in ALL} | {"none": None}
    if name not in known:
        raise ValueError(f"Config.loss: {name!r} is not known; known are {', '.join(known)}")
    return known[name]
