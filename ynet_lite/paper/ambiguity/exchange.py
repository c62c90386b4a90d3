"""Exchanged tissue: the lesion of one case on the background of another."""

import numpy as np
from scipy import ndimage, sparse
from scipy.signal import fftconvolve
from scipy.sparse.linalg import splu

from .appearance import RING
from .images import check_images, check_masks

# Shares of the longer side.
SOFT = 0.04  # width of the soft edge outside a lesion that is put into another image
SMOOTH = 0.03  # sigma that separates tissue level from fine texture when a lesion is painted over


def _away(mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Distance of each pixel from ``mask`` in pixels (0 inside, at least 1 outside), and where the soft edge ends."""
    return ndimage.distance_transform_edt(~mask), 1 + max(1.0, SOFT * max(mask.shape))


def _removed(image: np.ndarray, mask: np.ndarray, content: np.ndarray) -> np.ndarray:
    """One image (C, H, W) as float with its lesion, and a margin of `SOFT` of the side, painted over by the tissue around it.

    Biharmonic inpainting leaves a smooth blob, which in speckle looks like a lesion again. Here the tissue *level* (the image
    smoothed by `SMOOTH` of the side, lesion left out) is continued inwards as the harmonic function, and the *texture* (the
    rest) is copied from elsewhere in the image. Where no pixel is left outside, the lesion becomes the mean of the content.
    """
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
    that of a ring around the hole. What landed on unknown pixels is asked for again, three times at most.
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

    Scaled by one factor, centred in the box, its level shifted by the difference of the two surroundings, so that it keeps its
    contrast. The soft edge lies outside the outline. Returns the image (float) and the new mask (bool).
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


def _within(box, frame) -> tuple[int, int, int, int]:
    """``box`` (top, left, height, width) moved, and shrunk where it must be, so that it lies in ``frame``."""
    height, width = min(box[2], frame[2]), min(box[3], frame[3])
    top = min(max(box[0], frame[0]), frame[0] + frame[2] - height)
    left = min(max(box[1], frame[1]), frame[1] + frame[3] - width)
    return top, left, height, width


def replace_background(
    images, masks, donor_images, donor_masks, content=None, donor_content=None
) -> tuple[np.ndarray, np.ndarray]:
    """Keep each lesion, exchange everything around it: the lesion put into the donor's image, whose own lesion is painted over.

    ``images``, ``donor_images`` uint8 (N, C, H, W), ``masks``, ``donor_masks`` (N, H, W): image i gets the background of donor
    i. The lesion stays where it is, unless it would lie on the donor's padding: then it is moved just inside (and shrunk if
    need be). It keeps its contrast to what surrounds it; a soft edge of `SOFT` of the side lies outside the outline.

    Returns ``(images, masks)``, uint8 both, new arrays. An empty mask gives the donor's image without its lesion. Raises
    ``ValueError`` when shapes do not fit. An image as its own donor is the *control*: nothing is exchanged, only blended.
    """
    images, donor_images = check_images(images), check_images(donor_images, "donor_images")
    if images.shape != donor_images.shape:
        raise ValueError(
            f"donor_images: shape {donor_images.shape}, but images have {images.shape}; one donor per image is needed"
        )
    shape = (len(images), *images.shape[2:])
    masks, content = check_masks(masks, content, shape)
    donor_masks, donor_content = check_masks(donor_masks, donor_content, shape)
    found, outlines = np.zeros(images.shape, np.uint8), np.zeros(shape, np.uint8)
    for i, mask in enumerate(masks):
        mixed = _removed(donor_images[i], donor_masks[i], donor_content[i])
        if mask.any():
            box = _within(_box(mask), _box(donor_content[i]))
            mixed, outlines[i] = _paste(mixed, donor_content[i], images[i], mask, content[i], box)
        found[i] = np.rint(np.clip(mixed, 0, 255))
    return found, outlines
