"""The same picture twice: a leak that no patient number shows."""

import hashlib
import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd
from PIL import Image

from .manifest import ManifestError, first_few, kept

THUMBNAIL = 32  # pixels, both ways
NEAR_DUPLICATE = 0.92  # correlation; in BUSI repeated scans of one view lie above it, the closest different views at .914
BLOCK = 1024  # rows of the table of correlations in memory at once


def near_pairs(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Pairs i < j, int64 (P, 2), of grey uint8 pictures whose thumbnails (area means) correlate by at least `NEAR_DUPLICATE`."""
    small = [Image.fromarray(picture).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX) for picture in pictures]
    thumbnails = np.stack([np.asarray(one, np.float64).ravel() for one in small])
    thumbnails -= thumbnails.mean(1, keepdims=True)
    thumbnails /= np.maximum(np.linalg.norm(thumbnails, axis=1, keepdims=True), 1e-9)
    pairs = []
    for start in range(0, len(thumbnails), BLOCK):
        # rounded, so that the last digit of a sum cannot decide on another machine
        close = np.round(thumbnails[start : start + BLOCK] @ thumbnails[start:].T, 6) >= NEAR_DUPLICATE
        pairs.append(np.argwhere(np.triu(close, 1)) + start)
    return np.concatenate(pairs)


def check_pictures(table: pd.DataFrame, images: np.ndarray, boxes: np.ndarray, name: str, near: bool) -> None:
    """Refuse one picture on both sides of a split or under two labels; warn once of near-duplicates there (when ``near``).

    ``images`` : uint8 (N, C, H, W); ``boxes`` : (N, 4), top, left, height and width of the content. Pictures without content
    are passed over. Raises `ManifestError` that lists all pairs.
    """
    side = (table["fold"] if "fold" in table else table["split"]).astype(str).tolist()
    label, patient, ids = table["label"].tolist(), table["group"].tolist(), table["case_id"].tolist()

    def why(i: int, j: int) -> str:
        reasons = ["two labels"] * (label[i] != label[j]) + ["both sides of a split"] * (side[i] != side[j])
        return f"{ids[i]} and {ids[j]} ({', '.join(reasons)})" if reasons else ""

    shown = [image[:, top : top + h, left : left + w] for image, (top, left, h, w) in zip(images, boxes, strict=True)]
    first: dict[bytes, int] = {}
    same = []
    for i, image in enumerate(images):
        if shown[i].min() < shown[i].max():
            j = first.setdefault(hashlib.sha256(image.tobytes()).digest(), i)
            same += [why(j, i)] if j < i and why(j, i) else []
    if same:
        raise ManifestError(
            f"{name}: {len(same)} pair(s) of cases show the same picture: {first_few(same)}; keep one of each, or give both the "
            "same label, patient and fold",
            same,
            name,
        )
    if near:
        pairs = near_pairs(np.ascontiguousarray(image[0]) for image in shown)
        close = [why(i, j) for i, j in pairs if patient[i] != patient[j] and why(i, j)]
        if close:
            text = f"{name}: {len(close)} pair(s) of cases look nearly the same: {first_few(close)}"
            warnings.warn(text + kept(f"{name}-nearly-the-same", close), stacklevel=3)
