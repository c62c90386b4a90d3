"""Y-Net Lite: medical image retrieval with hash codes, learned from classes and from outlines of lesions.

After J. Fang et al., "Combating Ambiguity for Hash-code Learning in Medical Instance Retrieval", IEEE JBHI 2021,
DOI 10.1109/JBHI.2021.3082531. Research software, not a medical device.
"""

import importlib

from .cases import Cases
from .checkpoint import Checkpoint
from .config import Config
from .encoding import encode
from .hashing import Codes, HammingIndex
from .metrics import evaluate
from .search import search
from .training import load_or_train, train

__version__ = "0.1.0"

#: Public names that live in a wing: imported when they are asked for, so that the core needs no wing.
_LAZY = {"explore": "viewer.explore", "export_gallery": "viewer.gallery", "load_cases": "sets"}

__all__ = ["Cases", "Checkpoint", "Codes", "Config", "HammingIndex", "encode", "evaluate", "load_or_train", "search", "train"]
__all__ += sorted(_LAZY)


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
