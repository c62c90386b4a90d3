"""Which cases are asked where a network looks, and its maps for them."""

import numpy as np

from ... import attribution
from ...cases.core import Cases
from ...checkpoint import Checkpoint
from ...encoding import encode_floats
from ...hashing import hamming, pack

MOST = 200  # queries of a fold that are attributed


def outlined_rows(cases: Cases, most: int | None = None) -> np.ndarray:
    """Rows with a known outline that is not empty, ascending; of more than ``most`` a fixed random choice. int64."""
    rows = np.flatnonzero(cases.has_mask & cases.masks.any((1, 2)))
    if most is not None and len(rows) > most:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:most])
    return rows


def class_maps(checkpoint: Checkpoint, cases: Cases, codes, labels, **how) -> np.ndarray:
    """`attribution.grad_cam` of every case for the score of its own class. float32 (N, H, W).

    ``codes``, ``labels``: the database's. ``how`` goes to `attribution.grad_cam`; the level is `attribution.deepest_level` unless
    given. NaN for a case whose class the database does not hold.
    """
    cfg = checkpoint.cfg
    how = {"level": attribution.deepest_level(cfg)} | how
    maps = np.full(cases.masks.shape, np.nan, np.float32)
    for label in np.intersect1d(cases.labels, labels):
        own = cases.labels == label
        target = attribution.class_score(codes, labels, label)
        maps[own] = attribution.grad_cam(checkpoint.model, cfg, cases.images[own], target, **how)
    return maps


def neighbour_maps(checkpoint: Checkpoint, cases: Cases, codes, labels) -> np.ndarray:
    """As `class_maps`, for the similarity to the nearest code of the case's own class; of equally near ones the first."""
    cfg, labels = checkpoint.cfg, np.asarray(labels)
    level = attribution.deepest_level(cfg)
    distance = hamming(pack(encode_floats(checkpoint.model, cfg, cases)["code"]), pack(codes))
    maps = np.full(cases.masks.shape, np.nan, np.float32)
    for row, label in enumerate(cases.labels):
        own = np.flatnonzero(labels == label)
        if len(own):
            target = attribution.similarity_to(codes[own[np.argmin(distance[row, own])]])
            maps[row] = attribution.grad_cam(checkpoint.model, cfg, cases.images[[row]], target, level)[0]
    return maps
