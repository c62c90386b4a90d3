"""Exchanged tissue: the lesion of one case on the background of another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import ndimage, sparse
from scipy.signal import fftconvolve
from scipy.sparse.linalg import splu

from ... import metrics
from ...hashing import sign_bits

# Lengths as shares of the longer side, so that they mean the same at every image size.
RING = 0.08  # width of the ring that stands for the tissue around a lesion

SOFT = 0.04  # width of the soft edge outside a lesion that is put into another image

SMOOTH = 0.03  # sigma that separates tissue level from fine texture when a lesion is painted over


# --- ambiguous cases (no manifestation labels) -----------------------------------------------------------------------


def content_masks(table: pd.DataFrame, size: int) -> np.ndarray:
    """Where the squares of ``size`` pixels hold image and not padding: bool (N, size, size).

    From the columns ``box_top, box_left, box_height, box_width`` that `cases.load_cases` writes; all True without them.
    """
    content = np.zeros((len(table), size, size), bool)
    box = ["box_top", "box_left", "box_height", "box_width"]
    if not set(box) <= set(table):
        return ~content
    for i, (top, left, height, width) in enumerate(table[box].to_numpy(np.int64)):
        content[i, top : top + height, left : left + width] = True
    return content


def _images(images, what: str = "images") -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != np.uint8:
        raise ValueError(f"{what}: must be uint8 (N, 1 or 3, H, W), got {images.dtype} {images.shape}")
    return images


def _masks(masks, content, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Lesion inside the content, and the content; bool (N, H, W) each."""
    masks = metrics.mask_stack(masks, "masks")
    content = np.ones(shape, bool) if content is None else metrics.mask_stack(content, "content")
    for what, part in (("masks", masks), ("content", content)):
        if part.shape != shape:
            raise ValueError(f"{what}: shape {part.shape}, but {shape} is needed: one per image, of its height and width")
    empty = np.flatnonzero(~content.any(axis=(1, 2)))
    if len(empty):
        raise ValueError(f"content: {len(empty)} image(s) without any pixel, first rows {empty[:5].tolist()}")
    return masks & content, content


def _grey(images: np.ndarray) -> np.ndarray:
    """Grey values 0..255, float64 (N, H, W)."""
    if images.shape[1] == 1:
        return images[:, 0].astype(float)
    return np.tensordot(images.astype(float), [0.299, 0.587, 0.114], axes=(1, 0))


# --- what flips the code ---------------------------------------------------------------------------------------------


def remove_lesions(images, masks, content=None) -> np.ndarray:
    """Paint every lesion over with the tissue around it. Returns uint8 (N, C, H, W), a new array.

    Biharmonic inpainting is slow and leaves a smooth blob, which in speckle looks like a lesion again. Here the
    tissue *level* (the image smoothed by `SMOOTH` of the side, lesion left out) is continued inwards as the harmonic function
    (discrete Laplace equation, solved exactly; no flow through the border of the content), and the fine *texture* (image minus
    level) is copied from another place of the same image. Painted over is the mask and a margin of `SOFT` of the side, for a
    lesion's blurred edge. Shadow or enhancement below a lesion stays: no outline says where it ends.

    An empty mask changes nothing. Where no pixel is left outside, the lesion becomes the mean of the content.
    """
    images = _images(images)
    masks, content = _masks(masks, content, (len(images), *images.shape[2:]))
    return _stack([_grey_levels(_removed(*parts)) for parts in zip(images, masks, content, strict=True)], images.shape)


def _stack(images: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(images) if images else np.zeros(shape, np.uint8)


def _grey_levels(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def _away(mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Distance of each pixel from ``mask`` in pixels (0 inside, at least 1 outside), and where the soft edge ends."""
    return ndimage.distance_transform_edt(~mask), 1 + max(1.0, SOFT * max(mask.shape))


def _removed(image: np.ndarray, mask: np.ndarray, content: np.ndarray) -> np.ndarray:
    """One image (C, H, W) as float with its lesion painted over; see `remove_lesions`."""
    image = image.astype(float)
    if not mask.any():
        return image
    away, end = _away(mask)
    hole = (away < end) & content
    known = content & ~hole
    if not known.any():
        image[:, hole] = image[:, content].mean(axis=1, keepdims=True)
        return image
    sigma = max(1.0, SMOOTH * max(mask.shape))
    weight = ndimage.gaussian_filter(known.astype(float), sigma)
    level = np.zeros_like(image)
    for channel, smooth in zip(image, level, strict=True):
        smooth[known] = ndimage.gaussian_filter(np.where(known, channel, 0), sigma)[known] / weight[known]
    texture = image - level
    image[:, hole] = _harmonic(level, hole, known) + _borrowed(texture, hole, known)
    return image


def _harmonic(level: np.ndarray, hole: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values (C, pixels of the hole): each the mean of its neighbours in hole or known pixels; known ones are fixed.

    A part of the hole that touches no known pixel gets the mean of the known ones (through a tiny pull towards it).
    """
    height, width = hole.shape
    ys, xs = np.nonzero(hole)
    number = np.zeros(hole.shape, np.int64)
    number[hole] = np.arange(len(ys))
    pull = 1e-9
    degree = np.full(len(ys), pull)
    right = pull * np.repeat(level[:, known].mean(axis=1, keepdims=True), len(ys), axis=1)
    links = []
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        at = np.flatnonzero((ys + dy >= 0) & (ys + dy < height) & (xs + dx >= 0) & (xs + dx < width))
        y, x = ys[at] + dy, xs[at] + dx
        fixed, free = known[y, x], hole[y, x]
        degree[at] += fixed | free
        right[:, at[fixed]] += level[:, y[fixed], x[fixed]]
        links.append((at[free], number[y[free], x[free]]))
    rows, columns = np.concatenate(links, axis=1)
    matrix = sparse.diags(degree) - sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(ys), len(ys)))
    return splu(matrix.tocsc()).solve(right.T).T


def _borrowed(texture: np.ndarray, hole: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Texture (C, pixels of the hole) copied in one piece from elsewhere in the image.

    Of all moves of the hole that land on the most known pixels (within 2 % of the hole), the one whose texture is as strong as
    that of a ring around the hole. What landed on unknown pixels is asked for again; after three rounds the rest stays without.
    """
    height, width = hole.shape
    found = np.zeros((len(texture), *hole.shape))
    power = np.where(known, (texture**2).mean(axis=0), 0)
    # burnt-in text, calipers and the image's own edge are no tissue: 4 robust standard deviations (of a normal distribution)
    known = known & (np.sqrt(power) <= 4 * 1.4826 * np.median(np.sqrt(power[known])))
    power = np.where(known, power, 0)
    ring = (ndimage.distance_transform_edt(~hole) <= RING * max(hole.shape)) & known
    wanted = np.sqrt(power[ring].mean()) if ring.any() else 0.0
    left = hole.copy()
    for _ in range(3):
        if not left.any():
            break
        # entry (a, b): the hole moved by (a - height + 1, b - width + 1)
        flipped = left[::-1, ::-1].astype(float)
        covered = np.rint(fftconvolve(known.astype(float), flipped))
        strength = np.sqrt(np.maximum(fftconvolve(power, flipped), 0) / np.maximum(covered, 1))
        good = covered >= max(covered.max() - 0.02 * np.count_nonzero(left), 1)
        a, b = np.unravel_index(np.argmin(np.where(good, np.abs(strength - wanted), np.inf)), good.shape)
        ys, xs = np.nonzero(left)
        y, x = ys + a - height + 1, xs + b - width + 1
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        inside[inside] = known[y[inside], x[inside]]
        ys, xs, y, x = ys[inside], xs[inside], y[inside], x[inside]
        found[:, ys, xs] = texture[:, y, x]
        left[ys, xs] = False
    return found[:, hole]


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the True pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def _paste(base, base_content, image, mask, content, box) -> tuple[np.ndarray, np.ndarray]:
    """The lesion ``mask`` of ``image`` put into ``base`` (C, H, W float, lesion already painted over), fitted into ``box``.

    Scaled by one factor (a lesion must not become taller or wider), centred in the box, its level shifted by the difference of
    the two surroundings, so that it keeps its contrast. The soft edge lies outside the outline: inside, every pixel is the
    lesion's. Returns the image (float) and the new mask (bool).
    """
    top, left, height, width = _box(mask)
    scale = min(box[2] / height, box[3] / width)
    centre = np.array([top + (height - 1) / 2, left + (width - 1) / 2])
    goal = np.array([box[0] + (box[2] - 1) / 2, box[1] + (box[3] - 1) / 2])

    def move(values):
        return ndimage.affine_transform(values, [1 / scale] * 2, centre - goal / scale, order=1, mode="nearest")

    image = image.astype(float)
    away, end = _away(mask)
    ring = (away >= end) & (away < end + RING * max(mask.shape)) & content
    smooth = (1 / scale - 1) / 2 if scale < 1 else 0.0  # against aliasing
    moved = np.stack([move(ndimage.gaussian_filter(channel, smooth) if smooth else channel) for channel in image])
    new_mask = (move(mask.astype(float)) >= 0.5) & base_content
    if not new_mask.any():  # a line thinner than half a pixel after scaling
        return base, new_mask
    new_away, end = _away(new_mask)
    new_ring = (new_away >= end) & (new_away < end + RING * max(mask.shape)) & base_content
    if ring.any() and new_ring.any():
        moved += (base[:, new_ring].mean(axis=1) - image[:, ring].mean(axis=1))[:, None, None]
    alpha = 0.5 + 0.5 * np.cos(np.pi * np.clip((new_away - 1) / (end - 1), 0, 1))
    # the soft edge must not drag padding in, from either side
    alpha = np.where(new_mask, 1, alpha * (move(content.astype(float)) >= 0.999)) * base_content
    return alpha * np.clip(moved, 0, 255) + (1 - alpha) * base, new_mask


def _check_donors(images, masks, donor_images, donor_masks, content, donor_content):
    images, donor_images = _images(images), _images(donor_images, "donor_images")
    if images.shape != donor_images.shape:
        raise ValueError(
            f"donor_images: shape {donor_images.shape}, but images have {images.shape}; one donor per image is needed"
        )
    shape = (len(images), *images.shape[2:])
    masks, content = _masks(masks, content, shape)
    donor_masks, donor_content = _masks(donor_masks, donor_content, shape)
    return zip(images, masks, content, donor_images, donor_masks, donor_content, strict=True)


def replace_background(
    images, masks, donor_images, donor_masks, content=None, donor_content=None
) -> tuple[np.ndarray, np.ndarray]:
    """Keep each lesion, exchange everything around it: the lesion put into the donor's image, whose own lesion is painted over.

    ``images``, ``donor_images`` uint8 (N, C, H, W), ``masks``, ``donor_masks`` (N, H, W): image i gets the background of donor
    i. The lesion stays where it is, unless it would lie on the donor's padding: then it is moved just inside (and shrunk if
    need be). Its level is shifted by the difference of the two surroundings, so that an image made with more gain does not turn
    a dark lesion into a bright one; a soft edge of `SOFT` of the side lies outside the outline.

    Returns ``(images, masks)``, uint8 both, new arrays. An empty mask gives the donor's image without its lesion; an empty
    ``donor_masks`` leaves the donor's image as it is. Raises ``ValueError`` when shapes do not fit.
    """
    found, outlines = [], []
    for image, mask, inside, donor, donor_mask, donor_inside in _check_donors(
        images, masks, donor_images, donor_masks, content, donor_content
    ):
        result, outline = _removed(donor, donor_mask, donor_inside), mask
        if mask.any():
            result, outline = _paste(result, donor_inside, image, mask, inside, _within(_box(mask), _box(donor_inside)))
        found.append(_grey_levels(result))
        outlines.append(outline.astype(np.uint8))
    return _stack(found, np.shape(images)), _stack(outlines, np.shape(masks))


def _within(box, frame) -> tuple[int, int, int, int]:
    """``box`` (top, left, height, width) moved, and shrunk where it must be, so that it lies in ``frame``."""
    height, width = min(box[2], frame[2]), min(box[3], frame[3])
    top = min(max(box[0], frame[0]), frame[0] + frame[2] - height)
    left = min(max(box[1], frame[1]), frame[1] + frame[3] - width)
    return top, left, height, width


def replace_lesion(images, masks, donor_images, donor_masks, content=None, donor_content=None) -> tuple[np.ndarray, np.ndarray]:
    """Keep each background, exchange the lesion: the donor's, moved and scaled into the bounding box of the lesion it replaces.

    One scale factor for both directions (the largest that fits), so the donor's shape stays. Otherwise as `replace_background`.
    With an image as its own donor both functions give the same picture, the *control*: nothing is exchanged, only blended.

    Returns ``(images, masks)``, uint8 both; the masks are the donor's lesions at their new place. An empty mask leaves the
    image as it is (there is no place to put a lesion); an empty ``donor_masks`` removes the lesion; both return an empty mask.
    """
    found, outlines = [], []
    for image, mask, inside, donor, donor_mask, donor_inside in _check_donors(
        images, masks, donor_images, donor_masks, content, donor_content
    ):
        result, outline = _removed(image, mask, inside), np.zeros_like(mask)
        if mask.any() and donor_mask.any():
            result, outline = _paste(result, inside, donor, donor_mask, donor_inside, _box(mask))
        found.append(_grey_levels(result))
        outlines.append(outline.astype(np.uint8))
    return _stack(found, np.shape(images)), _stack(outlines, np.shape(masks))


def mean_pair_distance(codes) -> float:
    """Mean Hamming distance of two different cases drawn at random, in bits: exact over all pairs, no drawing.

    ``sum over bits of 2 n1 (M - n1) / (M (M - 1))``, n1 = how many of the M codes have the bit set. ``codes``: float (M, K), by
    sign, or bool (M, K). NaN for fewer than two codes.
    """
    bits = _bits(codes)
    n = len(bits)
    if n < 2:
        return float("nan")
    ones = bits.sum(axis=0)
    return float((2 * ones * (n - ones)).sum() / (n * (n - 1)))


def _bits(codes) -> np.ndarray:
    codes = np.asarray(codes)
    return codes if codes.dtype == bool and codes.ndim == 2 else sign_bits(codes)


def sensitivity(
    encode: Callable[[np.ndarray], np.ndarray],
    images,
    masks,
    donor_images,
    donor_masks,
    pairs_reference,
    content=None,
    donor_content=None,
) -> pd.DataFrame:
    """How many bits of the code flip when only the background, only the lesion, or nothing but the blending changes.

    ``encode``: uint8 images (N, C, H, W) -> real codes (N, K), bits by sign. ``pairs_reference``: codes of the same method,
    float (M, K) as ``encode`` gives them (or bool), such as those of the database. Flips are divided by their
    `mean_pair_distance`: 1 = as far as two cases drawn at random, so that a constant code cannot win (its ratio is 0 / 0, NaN).

    Returns a DataFrame with a row per image: ``bits_background, bits_lesion, bits_control`` (bits that flip,
    `replace_background`, `replace_lesion`, and the image as its own donor) and ``flips_background, flips_lesion,
    flips_control`` (divided). NaN where the mask is empty, where the donor has no lesion (lesion only), and flips where the
    reference distance is 0 or undefined. Raises ``ValueError`` when shapes do not fit.
    """
    reference = _bits(pairs_reference)
    before = _encoded(encode, _images(images), reference.shape[1])
    own = (images, masks, content)
    donors = (donor_images, donor_masks, donor_content)
    table = {}
    for name, function, source in (
        ("background", replace_background, donors),
        ("lesion", replace_lesion, donors),
        ("control", replace_background, own),
    ):
        changed, outlines = function(images, masks, *source[:2], content, source[2])
        flipped = (_encoded(encode, changed, reference.shape[1]) != before).sum(axis=1)
        table[f"bits_{name}"] = np.where(outlines.any(axis=(1, 2)), flipped, np.nan)
    unit = mean_pair_distance(reference)
    for name in ("background", "lesion", "control"):
        table[f"flips_{name}"] = metrics.divide(table[f"bits_{name}"], unit)
    return pd.DataFrame(table)


def _encoded(encode, images: np.ndarray, length: int) -> np.ndarray:
    codes = np.asarray(encode(images))
    if codes.shape != (len(images), length):
        raise ValueError(f"encode: gave codes of shape {codes.shape} for {len(images)} images; {(len(images), length)} is needed")
    return sign_bits(codes)
