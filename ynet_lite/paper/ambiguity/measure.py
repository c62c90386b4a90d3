"""How well attention maps find a lesion, maps that need no model, and how well a space keeps a label together.

Squares of real images are padded with black. ``content`` (bool (N, H, W), see `Cases.content_mask`) is True where a square holds
image: pixels of the padding count neither as lesion nor as background.
"""

import numpy as np
from scipy import ndimage
from skimage.filters import sobel

from ... import metrics
from .appearance import grey


def energy_ratio(maps, masks, content) -> np.ndarray:
    """Share of a map's energy inside the lesion over the lesion's share of the area: 1 = no better than a uniform map.

    ``(sum_lesion M / sum M) / (|lesion| / |content|)``; the numerator is the energy-based pointing game (Wang et al., Score-CAM,
    CVPR Workshops 2020, there with boxes). ``maps`` (N, H, W), at least 0; ``masks`` (N, H, W), anything but 0 is lesion.
    Padding is neither energy nor area. Returns float64 (N,), 0 to 1 / area share; NaN for an empty mask. A map of zeros points
    nowhere: 1.
    """
    lesion = (masks > 0) & content
    energy = np.where(content, maps, 0).sum(axis=(1, 2), dtype=float)
    inside = np.where(lesion, maps, 0).sum(axis=(1, 2), dtype=float)
    area = lesion.sum(axis=(1, 2)) / content.sum(axis=(1, 2))
    share = np.divide(inside, energy, out=area.copy(), where=energy > 0)
    return metrics.divide(share, area)


def pointing(maps, masks, content) -> np.ndarray:
    """Whether the maximum of a map lies in the lesion: the pointing game (Zhang et al., IJCV 126, 2018), without its tolerance.

    Arguments as in `energy_ratio`; padding is left out. Where several pixels share the maximum, the share of them that lies in
    the lesion. Returns float64 (N,) in [0, 1]; NaN for an empty mask.
    """
    lesion = (masks > 0) & content
    maps = np.where(content, maps, -1)
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    hit = (highest & lesion).sum(axis=(1, 2)) / highest.sum(axis=(1, 2))
    return np.where(lesion.any(axis=(1, 2)), hit, np.nan)


def centre_gaussian(images) -> np.ndarray:
    """Baseline without a model: a Gaussian in the middle, because sonographers centre the lesion.

    ``exp(-(dy^2 + dx^2) / (2 (0.2 s)^2))``, s = longer side. Returns float32 (N, H, W) in (0, 1].
    """
    height, width = images.shape[2:]
    y, x = np.ogrid[:height, :width]
    square = (y - (height - 1) / 2) ** 2 + (x - (width - 1) / 2) ** 2
    one = np.exp(-square / (2 * (0.2 * max(height, width)) ** 2)).astype(np.float32)
    return np.repeat(one[None], len(images), axis=0)


def edge_map(images, content) -> np.ndarray:
    """Baseline without a model: Sobel's gradient magnitude, each map divided by its maximum.

    An edge detector passes for an explanation easily (Adebayo et al., NeurIPS 2018). The edge of the padding is left out.
    Returns float32 (N, H, W) in [0, 1]; zeros for a constant image.
    """
    found = np.zeros(content.shape, np.float32)
    for i, (levels, inside) in enumerate(zip(grey(images), content, strict=True)):
        # the square's own border is mirrored, so it makes no edge; pixels that touch padding are left out
        edges = sobel(levels) * ndimage.binary_erosion(inside, np.ones((3, 3)), border_value=1)
        if edges.max() > 1e-9:
            found[i] = edges / edges.max()
    return found


def knn_purity(distances, labels, groups, k: int = 10) -> np.ndarray:
    """Share of the k nearest cases of *other patients* that have the case's label.

    ``distances`` (N, N), ``labels`` and ``groups`` (N,). Returns float64 (N,) in [0, 1], expected over ties. With fewer than k
    cases of other patients all of them count; NaN where there is none.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    own = groups[:, None] == groups
    distances = np.where(own, np.inf, distances)
    same = labels[:, None] == labels
    places = np.minimum(k, (~own).sum(axis=1))
    found = np.full(len(labels), np.nan)
    for n in np.unique(places[places > 0]):
        rows = np.flatnonzero(places == n)
        found[rows] = metrics.precision(distances[rows], same[rows], int(n))
    return found
