"""Attention maps against the outline, and maps without any model."""

import numpy as np
from scipy import ndimage
from skimage.filters import sobel

from ... import metrics
from .images import check_images, check_masks, grey


def _maps(maps, masks, content) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    maps = np.asarray(maps)
    if maps.ndim != 3 or maps.dtype.kind not in "biuf":
        raise ValueError(f"maps: must be numbers (N, H, W), got {maps.dtype} {maps.shape}")
    maps = maps.astype(float)
    masks, content = check_masks(masks, content, maps.shape)
    if not np.isfinite(maps).all() or (maps < 0).any():
        raise ValueError("maps: must be finite and at least 0 (the positive part of an attribution)")
    return maps, masks, content


def energy_ratio(maps, masks, content=None) -> np.ndarray:
    """Share of a map's energy inside the lesion over the lesion's share of the area: 1 = no better than a uniform map.

    ``(sum_lesion M / sum M) / (|lesion| / |content|)``; the numerator is the energy-based pointing game (Wang et al., Score-CAM,
    CVPR Workshops 2020, there with boxes). ``maps`` (N, H, W) finite, at least 0; ``masks`` (N, H, W). Padding is neither energy
    nor area. Returns float64 (N,), 0 to 1 / area share; NaN for an empty mask. A map of zeros points nowhere: 1.
    """
    maps, masks, content = _maps(maps, masks, content)
    energy = np.where(content, maps, 0).sum(axis=(1, 2))
    inside = np.where(masks, maps, 0).sum(axis=(1, 2))
    area = masks.sum(axis=(1, 2)) / content.sum(axis=(1, 2))
    share = np.divide(inside, energy, out=area.copy(), where=energy > 0)
    return metrics.divide(share, area)


def pointing(maps, masks, content=None) -> np.ndarray:
    """Whether the maximum of a map lies in the lesion: the pointing game (Zhang et al., IJCV 126, 2018), without its tolerance.

    Arguments as in `energy_ratio`; padding is left out. Where several pixels share the maximum, the share of them that lies in
    the lesion. Returns float64 (N,) in [0, 1]; NaN for an empty mask.
    """
    maps, masks, content = _maps(maps, masks, content)
    maps = np.where(content, maps, -1)
    highest = maps == maps.max(axis=(1, 2), keepdims=True, initial=-1)
    hit = (highest & masks).sum(axis=(1, 2)) / highest.sum(axis=(1, 2))
    return np.where(masks.any(axis=(1, 2)), hit, np.nan)


def centre_gaussian(images) -> np.ndarray:
    """Baseline without a model: a Gaussian in the middle, because sonographers centre the lesion.

    ``exp(-(dy^2 + dx^2) / (2 (0.2 s)^2))``, s = longer side. Returns float32 (N, H, W) in (0, 1].
    """
    height, width = check_images(images).shape[2:]
    y, x = np.ogrid[:height, :width]
    square = (y - (height - 1) / 2) ** 2 + (x - (width - 1) / 2) ** 2
    one = np.exp(-square / (2 * (0.2 * max(height, width)) ** 2)).astype(np.float32)
    return np.repeat(one[None], len(images), axis=0)


def edge_map(images, content=None) -> np.ndarray:
    """Baseline without a model: Sobel's gradient magnitude, each map divided by its maximum.

    An edge detector passes for an explanation easily (Adebayo et al., NeurIPS 2018). The edge of the padding is left out.
    Returns float32 (N, H, W) in [0, 1]; zeros for a constant image.
    """
    images = check_images(images)
    shape = (len(images), *images.shape[2:])
    _, content = check_masks(np.zeros(shape, bool), content, shape)
    found = np.zeros(shape, np.float32)
    for i, (levels, inside) in enumerate(zip(grey(images), content, strict=True)):
        # the square's own border is mirrored, so it makes no edge; pixels that touch padding are left out
        edges = sobel(levels) * ndimage.binary_erosion(inside, np.ones((3, 3)), border_value=1)
        if edges.max(initial=0) > 1e-9:
            found[i] = edges / edges.max()
    return found
