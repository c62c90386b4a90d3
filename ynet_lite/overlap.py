"""How well masks agree: Dice, IoU, and the overlap of lesions that are laid on each other."""

import numpy as np
from scipy.sparse import csr_array

from .cases.core import Cases


def mask_stack(masks, what: str) -> np.ndarray:
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.dtype.kind not in "biu":
        raise ValueError(f"{what}: must be bool or integer masks (N, H, W), got {masks.dtype} {masks.shape}")
    return masks != 0


def _overlap(pred, true) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pred, true = mask_stack(pred, "predicted masks"), mask_stack(true, "true masks")
    if pred.shape != true.shape:
        raise ValueError(f"masks: predicted {pred.shape}, true {true.shape}; they must have the same shape")
    return tuple(np.count_nonzero(m, axis=(1, 2)).astype(float) for m in (pred & true, pred, true))


def dice(pred, true) -> np.ndarray:
    """Dice overlap ``2 |P and T| / (|P| + |T|)`` of each case; 1 where both masks are empty.

    ``pred``, ``true``: (N, H, W), anything but 0 is foreground. Returns float64 (N,) in [0, 1].
    """
    both, p, t = _overlap(pred, true)
    return np.divide(2 * both, p + t, out=np.ones(len(both)), where=p + t > 0)


def iou(pred, true) -> np.ndarray:
    """Intersection over union ``|P and T| / |P or T|`` of each case; 1 where both masks are empty. As `dice`."""
    both, p, t = _overlap(pred, true)
    return np.divide(both, p + t - both, out=np.ones(len(both)), where=p + t - both > 0)


def _centred(masks) -> tuple[csr_array, np.ndarray]:
    """Foreground on a canvas twice as high and wide, each centroid at its middle: float32 (N, 4 H W); and the areas (N,)."""
    masks = mask_stack(masks, "masks")
    count, height, width = masks.shape
    case, y, x = np.nonzero(masks)
    area = np.bincount(case, minlength=count)
    # floor(mean + 1/2) in whole numbers: a mask and its moved copy must round to the same place
    sums = (np.bincount(case, weights=v, minlength=count).astype(np.int64) for v in (y, x))
    cy, cx = ((2 * v + area) // np.maximum(2 * area, 1) for v in sums)
    place = (y - cy[case] + height) * 2 * width + x - cx[case] + width
    return csr_array((np.ones(len(case), np.float32), (case, place)), shape=(count, 4 * height * width)), area.astype(float)


def centred_iou(masks_a, masks_b) -> np.ndarray:
    """IoU of every mask of ``a`` with every mask of ``b`` after moving each centroid to the image centre.

    Position says little about a lesion, size and shape do. Moves are by whole pixels onto a canvas large enough that
    nothing is cut off. Exact: intersections are counted by a matrix product of 0/1 rows, at full resolution.

    ``masks_a`` (A, H, W), ``masks_b`` (B, H, W), same H and W, anything but 0 is foreground. Returns float64 (A, B)
    in [0, 1]; both empty = 1, one empty = 0.
    """
    shapes = np.shape(masks_a), np.shape(masks_b)
    if shapes[0][1:] != shapes[1][1:]:
        raise ValueError(f"masks: {shapes[0]} and {shapes[1]}; height and width must be the same")
    (a, area_a), (b, area_b) = _centred(masks_a), _centred(masks_b)
    shared = np.flatnonzero(np.bincount(a.indices, minlength=a.shape[1]) * np.bincount(b.indices, minlength=b.shape[1]))
    a, b = a[:, shared], b[:, shared]  # only pixels inside masks of both sets can intersect
    both, step = np.zeros((len(area_a), len(area_b))), 512  # exact in single precision: counts stay below 2^24
    for i in range(0, len(area_a), step):
        rows = a[i : i + step].toarray()
        for j in range(0, len(area_b), step):
            both[i : i + step, j : j + step] = rows @ b[j : j + step].toarray().T
    union = area_a[:, None] + area_b - both
    return np.divide(both, union, out=np.ones(both.shape), where=union > 0)


def mask_overlaps(queries: Cases, database: Cases) -> np.ndarray:
    """`centred_iou` of the true masks, float64 (Q, N), NaN where either outline is not known."""
    overlaps = np.full((len(queries), len(database)), np.nan)
    q, n = np.flatnonzero(queries.has_mask), np.flatnonzero(database.has_mask)
    if len(q) and len(n):
        overlaps[np.ix_(q, n)] = centred_iou(queries.masks[q], database.masks[n])
    return overlaps
