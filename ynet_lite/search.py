"""One image in, the most similar known cases out, with the weights and codes that come with the package."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from . import paths
from .cases.formats import read_image
from .cases.loading import letterbox
from .checkpoint import Checkpoint
from .encoding import represent
from .hashing import Codes, HammingIndex, check_models, pack, percentile, usual_distances, whole

WEIGHTS = Path(__file__).resolve().parent / "weights"

#: Models that come with the package: file stem of weights (.safetensors, .json) and of codes (.codes.npz) in ``weights/``.
SHIPPED = ("phantom-quick", "busbra-full")


@lru_cache(maxsize=4)
def load_shipped(model: str = "phantom-quick") -> tuple[Checkpoint, Codes]:
    """A shipped network and the codes of its database. Raises ``ValueError`` for an unknown name."""
    if model not in SHIPPED:
        raise ValueError(f"search: model {model!r} is not shipped; shipped are {', '.join(SHIPPED)}")
    return Checkpoint.load(WEIGHTS / f"{model}.safetensors"), Codes.load(WEIGHTS / f"{model}.codes.npz")


def search(
    image: str | Path | np.ndarray, k: int = 10, *, model: str | Path = "phantom-quick", codes: str | Path | Codes | None = None
) -> pd.DataFrame:
    """The ``k`` cases nearest to ``image`` by Hamming distance of hash codes.

    Parameters
    ----------
    image : path of an image file (PNG, JPEG, TIFF, BMP, DICOM; any size, grey or colour), or a uint8 array (H, W) or (C, H, W).
    k : length of the list; at most the size of the database.
    model : a shipped model ("phantom-quick", "busbra-full") or the path of a checkpoint (.safetensors).
    codes : `Codes` or the path of saved codes; needed with a checkpoint of your own.

    Returns
    -------
    DataFrame with ``rank`` (1 = nearest), ``case_id``, ``label`` (class name), ``distance`` (bits that differ), ``percentile``:
    how many in a hundred cases of the database have their nearest other case closer than that. Equal distances are ordered by
    ``case_id``. Near 100, the image is unlike the database; a low number is no proof that it is like it.
    """
    if str(model) in SHIPPED:
        checkpoint, database = load_shipped(str(model))
    else:
        checkpoint, database = Checkpoint.load(paths.yours(model)), None
    if codes is not None:
        database = codes if isinstance(codes, Codes) else Codes.load(paths.yours(codes))
    if database is None:
        raise ValueError(f"search: {model} is not a shipped model; pass the database to be searched as codes=...")
    if not 1 <= whole("search: k", k, least=-(2**63)) <= len(database.ids):
        raise ValueError(f"search: k = {k}; the database has {len(database.ids)} cases, so k is between 1 and that")
    check_models(database.model, checkpoint.weights_id())
    query = encode_image(checkpoint, image)
    found, rows = HammingIndex(database).search(query, k)
    return pd.DataFrame(
        {
            "rank": np.arange(1, k + 1),
            "case_id": database.ids[rows[0]],
            "label": [checkpoint.class_names[i] for i in database.labels[rows[0]]],
            "distance": found[0],
            "percentile": np.round(percentile(found[0], usual_distances(database)), 1),
        }
    )


@torch.inference_mode()
def encode_image(checkpoint: Checkpoint, image: str | Path | np.ndarray) -> np.ndarray:
    """Packed code, uint8 (1, bits / 8), of one image file or uint8 array (H, W) or (C, H, W) of any size."""
    cfg = checkpoint.cfg
    if isinstance(image, np.ndarray):
        array = image[None] if image.ndim == 2 else image
        if array.dtype != np.uint8 or array.ndim != 3 or len(array) not in (1, 3):
            raise ValueError(f"search: an image array is uint8 (H, W) or (1 or 3, H, W), got {image.dtype} {image.shape}")
        if len(array) != cfg.channels:
            # the grey of read_image, so that a file and its pixels have one code
            grey = np.asarray(Image.fromarray(array.transpose(1, 2, 0)).convert("L"))[None] if len(array) == 3 else array
            array = np.repeat(grey, cfg.channels, 0)
    elif isinstance(image, (str, Path)):
        array = read_image(paths.yours(image), cfg.channels)
    else:
        raise ValueError(f"search: an image is a path or a uint8 array, got {type(image).__name__}; numpy.asarray makes an array")
    pixels = torch.from_numpy(letterbox(array, cfg.size)[0])[None].to(next(checkpoint.model.parameters()).device).float()
    return pack(represent(checkpoint.model, cfg, pixels).code.float().cpu().numpy())
