"""Exchanged tissue: the lesion of one case in the image of another."""

import numpy as np
from scipy import ndimage

from .appearance import RING

# Shares of the side.
SOFT = 0.04  # width of the soft edge around a lesion that is put into another image
SMOOTH = 0.03  # sigma that separates fine texture from the level of the tissue


def _painted_over(image: np.ndarray, hole: np.ndarray, content: np.ndarray) -> np.ndarray:
    """``image`` (C, H, W, float) with the pixels of ``hole`` made from tissue around it: its level, smoothed, and its texture.

    Both are mirrored at the hole's border; where the mirror shows no tissue, the nearest pixel stands in. Burnt-in text and black
    borders (the brightest 2 % and the darkest 5 % outside the hole) count as no tissue. Without any tissue nothing changes.
    """
    grey, tissue = image.mean(axis=0), content & ~hole
    if not tissue.any():
        return image
    low, high = np.percentile(grey[tissue], (5, 98))
    tissue &= (low <= grey) & (grey <= high)
    nearest = ndimage.distance_transform_edt(~tissue, return_distances=False, return_indices=True)
    y, x = np.clip(2 * nearest - np.indices(hole.shape), 0, np.array(hole.shape)[:, None, None] - 1)
    y, x = np.where(tissue[y, x], (y, x), nearest)
    mirrored, sigma = image[:, y, x], SMOOTH * max(hole.shape)
    texture = mirrored - ndimage.gaussian_filter(mirrored, (0, sigma, sigma))
    level = ndimage.gaussian_filter(mirrored, (0, 2 * sigma, 2 * sigma))
    return np.where(hole & content, np.clip(level + texture[:, y, x], 0, 255), image)


def replace_background(images, masks, donor_images, donor_masks, content, donor_content) -> tuple[np.ndarray, np.ndarray]:
    """Keep each lesion, exchange what is around it: the lesion in the donor's image, whose own lesion is painted over.

    ``images``, ``donor_images`` uint8 (N, C, H, W), the others (N, H, W), ``content`` False on padding: image i gets the
    tissue of donor i. The lesion stays where it is and keeps its contrast to the tissue around it; a soft edge lies outside its
    outline. Returns ``(images, masks)``, uint8 and bool: the lesion without what would lie on the donor's padding.
    """
    side = max(masks.shape[1:])
    end, wide = max(2.0, SOFT * side), max(2.0, RING * side)
    found, kept = donor_images.astype(float), (masks > 0) & content & donor_content
    for mixed, image, mask, other, inside, around in zip(
        found, images.astype(float), kept, donor_masks > 0, content, donor_content, strict=True
    ):
        if other.any():
            mixed[:] = _painted_over(mixed, ndimage.distance_transform_edt(~other) < end, around)
        if mask.any():
            away = ndimage.distance_transform_edt(~mask)
            ring = (away >= end) & (away < end + wide) & inside & around
            shift = (mixed - image)[:, ring].mean(axis=1)[:, None, None] if ring.any() else 0
            alpha = np.clip(1 - (away - 1) / end, 0, 1) * (inside & around)
            mixed += alpha * (np.clip(image + shift, 0, 255) - mixed)
    return np.rint(found).astype(np.uint8), kept
