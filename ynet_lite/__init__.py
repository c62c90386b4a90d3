"""Y-Net Lite: medical image retrieval with hash codes that look at the lesion, not at the background.

After J. Fang et al., "Combating Ambiguity for Hash-code Learning in Medical Instance Retrieval", IEEE JBHI 2021,
DOI 10.1109/JBHI.2021.3082531. Research software, not a medical device.
"""

from .cases import Cases, load_cases
from .config import Config
from .explore import explore
from .gallery import export_gallery
from .hashing import Codes, HammingIndex
from .metrics import evaluate
from .search import search
from .training import Checkpoint, encode, load_or_train, train

__version__ = "0.1.0"

__all__ = [
    "Cases",
    "Checkpoint",
    "Codes",
    "Config",
    "HammingIndex",
    "encode",
    "evaluate",
    "explore",
    "export_gallery",
    "load_cases",
    "load_or_train",
    "search",
    "train",
]
