"""Which outlines a training may see, and how well they are drawn."""

import numpy as np
from scipy import ndimage

from .core import Cases


def outlined(cases: Cases, share: float, seed: int) -> np.ndarray:
    """(N,) bool: the cases whose outline the segmentation loss may see: ``share`` of the *patients*, and only known outlines."""
    if not 0 <= share <= 1:
        raise ValueError(f"Config.mask_share: {share}; it is a share between 0 and 1")
    patients = np.unique(cases.groups)
    chosen = np.random.default_rng([seed, 7]).permutation(patients)[: round(share * len(patients))]
    return cases.has_mask & np.isin(cases.groups, chosen)


def degraded(masks: np.ndarray, quality: str, seed: int) -> np.ndarray:
    """Outlines as a hurried hand would draw them. masks : uint8 (N, H, W) -> uint8 (N, H, W); "exact" returns ``masks`` itself.

    With r = 4 % of the width (at least one pixel): "dilated" and "eroded" move every border by r, "shifted" moves each outline by
    2 r in a random direction, "box" fills the upright bounding box of each class. What an erosion would delete stays as it is.
    """
    if quality == "exact":
        return masks
    radius = max(1, round(0.04 * masks.shape[2]))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = x * x + y * y <= radius * radius
    angles = np.random.default_rng([seed, 11]).uniform(0, 2 * np.pi, len(masks))
    out = np.zeros_like(masks)
    for i, mask in enumerate(masks):
        # larger classes first, so that a cup drawn inside a disc stays visible
        present, sizes = np.unique(mask[mask > 0], return_counts=True)
        for c in present[np.argsort(-sizes, kind="stable")]:
            region = mask == c
            if quality == "dilated":
                region = ndimage.binary_dilation(region, disc)
            elif quality == "eroded":
                inner = ndimage.binary_erosion(region, disc)
                region = inner if inner.any() else region
            elif quality == "box":
                box = ndimage.find_objects(region.astype(np.uint8))[0]
                region = np.zeros_like(region)
                region[box] = True
            else:
                step = np.rint(2 * radius * np.array([np.sin(angles[i]), np.cos(angles[i])])).astype(int)
                region = ndimage.shift(region.astype(np.uint8), step, order=0) > 0
            out[i][region] = c
    return out
