"""Which cases are ambiguous: those whose lesions look like lesions of another class, by plain descriptors."""

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.measure import perimeter_crofton, regionprops, shannon_entropy

# Shares of the longer side, so that they mean the same at every image size.
RING = 0.08  # width of the ring that stands for the tissue around a lesion
WINDOW = 0.05  # side of the window of the local standard deviation

#: Columns of `appearance`.
FEATURES = ("area", "elongation", "solidity", "irregularity", "echo", "contrast", "local_std", "entropy")

#: Names of `thirds`, from low to high ambiguity.
THIRDS = ("clear", "middle", "ambiguous")


def grey(images) -> np.ndarray:
    """Grey values 0..255, float64 (N, H, W); colours as luma."""
    if images.shape[1] == 1:
        return images[:, 0].astype(float)
    return np.tensordot(images.astype(float), [0.299, 0.587, 0.114], axes=(1, 0))


def appearance(images, masks, content) -> pd.DataFrame:
    """Plain descriptors of each lesion, from image and outline alone; none depends on orientation or position.

    ``images`` uint8 (N, 1 or 3, H, W); ``masks`` (N, H, W), anything but 0 is lesion; ``content`` bool (N, H, W), False on
    padding. Texture depends on the resolution: compare images of one size only. Returns a DataFrame with N rows, all NaN for an
    empty mask, and the columns

    - ``area``: share of the content covered by the lesion, (0, 1];
    - ``elongation``: 1 - minor / major axis of the ellipse of equal second moments, 0 (round) to 1;
    - ``solidity``: area / area of the convex hull, (0, 1];
    - ``irregularity``: perimeter / perimeter of the convex hull, both by Crofton's formula in four directions, about 1 and more;
    - ``echo``: mean grey value inside, 0 to 1;
    - ``contrast``: echo minus the mean of the ring around the lesion (`RING` of the side wide), -1 to 1; 0 without a ring;
    - ``local_std``: mean standard deviation of the lesion's pixels in a window (`WINDOW` of the side), 0 to 0.5;
    - ``entropy``: of the lesion's histogram in 32 grey levels, 0 to 5 bits.
    """
    side = max(images.shape[2:])
    window = max(3, 2 * round(WINDOW * side / 2) + 1)
    table = np.full((len(images), len(FEATURES)), np.nan)
    for i, (levels, mask, inside) in enumerate(zip(grey(images), (masks > 0) & content, content, strict=True)):
        if not mask.any():
            continue
        region = regionprops(mask.astype(np.uint8))[0]
        major, hull = region.axis_major_length, perimeter_crofton(region.image_convex, directions=4)
        away = ndimage.distance_transform_edt(~mask)
        ring = (away > 1) & (away <= 1 + max(2.0, RING * side)) & inside
        lesion = levels[mask]
        weight = ndimage.uniform_filter(mask.astype(float), window, mode="constant")[mask]
        mean, square = (
            ndimage.uniform_filter(np.where(mask, levels**power, 0), window, mode="constant")[mask] / weight for power in (1, 2)
        )
        table[i] = (
            mask.sum() / inside.sum(),
            1 - region.axis_minor_length / major if major > 0 else 0,
            region.solidity,
            perimeter_crofton(region.image, directions=4) / hull if hull > 0 else 1,
            lesion.mean() / 255,
            (lesion.mean() - levels[ring].mean()) / 255 if ring.any() else 0,
            np.sqrt(np.maximum(square - mean**2, 0)).mean() / 255,
            shannon_entropy(lesion.astype(np.uint8) // 8),
        )
    return pd.DataFrame(table, columns=list(FEATURES))


def thirds(score, labels) -> np.ndarray:
    """Three equal parts by the rank of ``score`` *within each class*, so that no third is a class in disguise.

    The case of rank r (from 0) among the n cases of its class falls into part ``floor(3 r / n)`` of "clear", "middle",
    "ambiguous"; equal scores keep the order of the cases. Returns str (N,); "" where the score is NaN.
    """
    by_class = pd.Series(score, dtype=float).groupby(np.asarray(labels))
    part = 3 * (by_class.rank(method="first") - 1) // by_class.transform("count")
    return part.map(dict(enumerate(THIRDS))).fillna("").to_numpy(str)


def ambiguous_examples(score, labels) -> np.ndarray:
    """One row per class that shows what ambiguous means there, chosen by rule: the middle of its most ambiguous third.

    ``score`` (N,): higher = more ambiguous; ``labels`` (N,). int64, in the order of the classes; a class with fewer than three
    known scores has no such third and is left out.
    """
    table = pd.DataFrame({"score": score, "label": labels})[thirds(score, labels) == THIRDS[-1]]
    by_class = table.sort_values("score", kind="stable").groupby("label")
    return np.array([rows.index[len(rows) // 2] for _, rows in by_class], np.int64)


def unlike_examples(distances, groups, n: int = 7, share: float = 0.9) -> np.ndarray:
    """Up to ``n`` rows of *one* class that show how unlike its cases are, chosen by rule.

    First the most typical case: the one with the smallest mean distance to all others. Then, again and again, the case whose
    nearest already chosen case is farthest away. The least typical cases are left out (``share`` stay, rounded up), because an
    outlier may be a slip of an outline; so are further cases of a chosen patient.

    ``distances`` (M, M) of the cases of the class; ``groups`` (M,): patients. Returns int64 in the order of choice.
    """
    order = np.argsort(distances.sum(axis=1), kind="stable")
    left = order[: int(np.ceil(share * len(order)))]
    found = []
    while len(left) and len(found) < n:
        nearest = distances[np.ix_(left, found)].min(axis=1) if found else np.zeros(len(left))
        found.append(left[int(nearest.argmax())])
        left = left[groups[left] != groups[found[-1]]]
    return np.array(found, np.int64)
