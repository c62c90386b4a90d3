"""Where ambiguity leads a retrieval astray: errors by cause, ambiguous cases, what flips the code, where a map looks.

Four questions, each answered by arrays in and a small table out:

- *Which errors?* On the phantom every hidden variable is known, so each answer can be counted as an error of the same
  manifestation in another disease (SPDD), as an answer from another stage of the disease (DPSD), or as an error that shares the
  tissue around the lesion (`phantom_errors`, `spdd_pairs`).
- *Which cases?* Real sets have no manifestation labels. A case is ambiguous when lesions that look like it, by plain
  descriptors, have another class (`appearance`, `ambiguity_score`, `thirds`, `by_third`); examples are chosen by rule
  (`ambiguous_examples`, `unlike_examples`).
- *What is the code made of?* Bits that flip when only the background, or only the lesion, is exchanged (`sensitivity`).
- *Where does an attention map lie?* `energy_ratio` and `pointing`, beside maps that need no model.

Lists under equal distances are counted by their expected value over the orders of the ties, as in `ynet_lite.metrics`.
Padding: squares of real images are padded with black. Where a function takes ``content`` (bool (N, H, W), True where the square
holds image, see `content_masks`; None = everywhere), pixels of the padding count neither as lesion nor as background.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import ndimage, sparse
from scipy.signal import fftconvolve
from scipy.sparse.linalg import splu
from scipy.spatial.distance import cdist
from skimage.filters import sobel
from skimage.measure import perimeter_crofton, regionprops, shannon_entropy

from . import metrics
from .hashing import sign_bits

#: Columns of `appearance`.
FEATURES = ("area", "elongation", "solidity", "irregularity", "echo", "contrast", "local_std", "entropy")

#: Names of `thirds`, from low to high ambiguity.
THIRDS = ("clear", "middle", "ambiguous")

# Lengths as shares of the longer side, so that they mean the same at every image size.
RING = 0.08  # width of the ring that stands for the tissue around a lesion
SOFT = 0.04  # width of the soft edge outside a lesion that is put into another image
WINDOW = 0.05  # side of the window of the local standard deviation
SMOOTH = 0.03  # sigma that separates tissue level from fine texture when a lesion is painted over


# --- errors by cause (phantom) ---------------------------------------------------------------------------------------


def _shared(distances, queries, database, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Values of ``column`` as whole numbers (missing = -1) of both sides; (Q, N) equal; (Q, N) both known."""
    shape = distances.order.shape if isinstance(distances, metrics.Ranking) else np.shape(distances)
    sides = []
    for name, table, n in zip(("queries", "database"), (queries, database), shape, strict=True):
        if column not in table:
            raise ValueError(f"{name}: column {column!r} is missing; found {list(table)}")
        if len(table[column]) != n:
            raise ValueError(f"{name}: {len(table[column])} values of {column!r}, but distances have shape {shape}")
        sides.append(pd.Series(np.asarray(table[column]), dtype=object))
    codes = pd.factorize(pd.concat(sides, ignore_index=True))[0]
    a, b = codes[: shape[0]], codes[shape[0] :]
    known = (a[:, None] >= 0) & (b >= 0)
    return a, b, known & (a[:, None] == b), known


def _same_disease(distances, queries, database) -> np.ndarray:
    a, b, same, _ = _shared(distances, queries, database, "disease")
    missing = int((a < 0).sum() + (b < 0).sum())
    if missing:
        raise ValueError(f"disease: {missing} missing value(s); errors are counted by disease, so every case needs one")
    return same


def _ranked(distances, k: int) -> metrics.Ranking:
    return distances if isinstance(distances, metrics.Ranking) else metrics.rank(distances, k)


def _share_of_list(distances, event: np.ndarray, k: int) -> np.ndarray:
    """Expected share of the first k answers in ``event`` (Q, N); NaN where the database holds no such case."""
    return np.where(event.any(axis=1), metrics.precision(distances, event, k), np.nan)


def spdd_error(distances, queries, database, k: int = 10) -> np.ndarray:
    """Same manifestation, different disease: share of the first k answers that show the query's manifestation in another disease.

    ``distances`` (Q, N), smaller = nearer, or a `metrics.Ranking`; ``queries`` and ``database``: tables (DataFrame or dict of
    arrays) with columns ``disease`` and ``manifestation``; a missing manifestation equals nothing. Returns float64 (Q,) in [0,
    1], expected over ties; NaN where the database holds no such case, so that the mean runs over the queries that can go wrong.
    """
    same = _same_disease(distances, queries, database)
    alike = _shared(distances, queries, database, "manifestation")[2]
    return _share_of_list(distances, alike & ~same, k)


def background_error(distances, queries, database, k: int = 10) -> np.ndarray:
    """Share of the first k answers that are wrong (another disease) *and* have the query's type of background.

    Columns ``disease`` and ``background``; otherwise as `spdd_error`.
    """
    same = _same_disease(distances, queries, database)
    alike = _shared(distances, queries, database, "background")[2]
    return _share_of_list(distances, alike & ~same, k)


def dpsd_recall(distances, queries, database, k: int = 10) -> np.ndarray:
    """Different manifestation, same disease: share of the relevant answers that come from another stage.

    Among the answers of the query's disease in the first k, those whose stage differs. Columns ``disease`` and ``stage``; a
    case of unknown stage counts as no relevant answer. Under ties the number of relevant answers is random, and the expectation
    runs over the orders with at least one (as in `metrics.mask_agreement`). Its chance level is the share of other stages among
    all relevant cases of the database: what all distances equal give.

    Returns float64 (Q,) in [0, 1]; NaN without a relevant answer in the list, and where the database holds no relevant case of
    another stage.
    """
    same = _same_disease(distances, queries, database)
    _, _, alike, known = _shared(distances, queries, database, "stage")
    relevant, other = same & known, same & known & ~alike
    found = metrics.mask_agreement(distances, np.where(relevant, other.astype(float), np.nan), k)
    return np.where(other.any(axis=1), found, np.nan)


def phantom_errors(distances, queries, database, k: int = 10) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`spdd_error`, `dpsd_recall` and `background_error` of one distance matrix, with their chance levels.

    ``queries`` and ``database``: tables with columns ``disease, stage, manifestation, background`` and, in ``queries``,
    ``case_id`` (`Cases.table` of the phantom).

    Returns ``(rows, per_query)``. ``rows``: metric, k, value (mean over the queries where it is defined), chance (the same mean
    for a random ranking, over the same queries; exact), queries (how many those are). ``per_query``: case_id, metric, k, value,
    chance; NaN where undefined. Raises ``ValueError`` for a missing column, a missing disease, or tables that do not fit.
    """
    if "case_id" not in queries:
        raise ValueError(f"queries: column 'case_id' is missing; found {list(queries)}")
    ranking = _ranked(distances, k)
    random = metrics.rank(np.zeros(ranking.order.shape, np.int8), k)
    rows, per_query = [], []
    for name, function in (("spdd_error", spdd_error), ("dpsd_recall", dpsd_recall), ("background_error", background_error)):
        value, chance = function(ranking, queries, database, k), function(random, queries, database, k)
        chance = np.where(np.isnan(value), np.nan, chance)
        rows.append((name, k, metrics._mean(value), metrics._mean(chance), int((~np.isnan(value)).sum())))
        ids = np.asarray(queries["case_id"])
        per_query.append(pd.DataFrame({"case_id": ids, "metric": name, "k": k, "value": value, "chance": chance}))
    return pd.DataFrame(rows, columns=["metric", "k", "value", "chance", "queries"]), pd.concat(per_query, ignore_index=True)


def spdd_pairs(distances, queries, database, k: int = 10) -> pd.DataFrame:
    """`spdd_error` by pair of diseases: rows = disease of the query, columns = disease of the answer.

    Cell (a, b): mean, over the queries of disease a that can go wrong, of the share of the first k answers with the query's
    manifestation and disease b. So the sum of a row is the mean `spdd_error` of its queries. The diagonal is NaN (no error),
    and so is the row of a disease without such a query. Diseases are sorted.
    """
    same = _same_disease(distances, queries, database)
    wrong = _shared(distances, queries, database, "manifestation")[2] & ~same
    ranking = _ranked(distances, k)
    asked, answered = np.asarray(queries["disease"]), np.asarray(database["disease"])
    names = sorted({*asked.tolist(), *answered.tolist()})
    at_risk = wrong.any(axis=1)
    table = np.full((len(names), len(names)), np.nan)
    for j, b in enumerate(names):
        share = metrics.precision(ranking, wrong & (answered == b), k)
        for i, a in enumerate(names):
            rows = at_risk & (asked == a)
            if i != j and rows.any():
                table[i, j] = share[rows].mean()
    return pd.DataFrame(table, index=pd.Index(names, name="query"), columns=pd.Index(names, name="answer"))


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
    masks = metrics._mask_stack(masks, "masks")
    content = np.ones(shape, bool) if content is None else metrics._mask_stack(content, "content")
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


def appearance(images, masks, content=None) -> pd.DataFrame:
    """Plain descriptors of each lesion, from image and outline alone; none depends on orientation or position.

    ``images`` uint8 (N, 1 or 3, H, W) (RGB is read as luma), ``masks`` (N, H, W), anything but 0 is lesion (several parts are
    described together). Returns a DataFrame with N rows, all NaN for an empty mask, and the columns

    - ``area``: share of the content covered by the lesion, (0, 1];
    - ``elongation``: 1 - minor / major axis of the ellipse of equal second moments, 0 (round) to 1;
    - ``solidity``: area / area of the convex hull, (0, 1];
    - ``irregularity``: perimeter / perimeter of the convex hull, both by Crofton's formula in four directions, about 1 and more;
    - ``echo``: mean grey value inside, 0 to 1;
    - ``contrast``: echo minus the mean of the ring around the lesion (`RING` of the side wide, one pixel off the outline), -1
      to 1; 0 where there is no such ring;
    - ``local_std``: mean over the lesion of the standard deviation of the lesion's pixels in a window (`WINDOW` of the side, at
      least 3 pixels), 0 to 0.5;
    - ``entropy``: of the lesion's histogram in 32 grey levels, 0 to 5 bits.

    Texture depends on the resolution: compare images of one size only.
    """
    images = _images(images)
    shape = (len(images), *images.shape[2:])
    masks, content = _masks(masks, content, shape)
    side = max(shape[1:])
    window = max(3, 2 * round(WINDOW * side / 2) + 1)
    table = np.full((len(images), len(FEATURES)), np.nan)
    for i, (grey, mask, inside) in enumerate(zip(_grey(images), masks, content, strict=True)):
        if not mask.any():
            continue
        region = regionprops(mask.astype(np.uint8))[0]
        major, hull = region.axis_major_length, perimeter_crofton(region.image_convex, directions=4)
        away = ndimage.distance_transform_edt(~mask)
        ring = (away > 1) & (away <= 1 + max(2.0, RING * side)) & inside
        lesion = grey[mask]
        weight = ndimage.uniform_filter(mask.astype(float), window, mode="constant")[mask]
        mean, square = (
            ndimage.uniform_filter(np.where(mask, grey**power, 0), window, mode="constant")[mask] / weight for power in (1, 2)
        )
        table[i] = (
            mask.sum() / inside.sum(),
            1 - region.axis_minor_length / major if major > 0 else 0,
            region.solidity,
            perimeter_crofton(region.image, directions=4) / hull if hull > 0 else 1,
            lesion.mean() / 255,
            (lesion.mean() - grey[ring].mean()) / 255 if ring.any() else 0,
            np.sqrt(np.maximum(square - mean**2, 0)).mean() / 255,
            shannon_entropy(lesion.astype(np.uint8) // 8),
        )
    return pd.DataFrame(table, columns=list(FEATURES))


def ambiguity_score(features, labels, groups, k: int = 10) -> np.ndarray:
    """How far lesions that look alike have another class: share of other classes among the k nearest in descriptor space.

    Likeness is `look_distances`. Neighbours of the case's own patient do not count. Equal distances count by expected share.

    ``features`` (N, F): `appearance`, or any numbers; ``labels`` (N,); ``groups`` (N,): patient. Returns float64 (N,) in [0, 1],
    0 = clear; NaN for a case with an undefined descriptor (it is nobody's neighbour either) and where no other patient is left.
    With fewer than k cases of other patients all of them are the neighbours.
    """
    k = metrics._check_k(k)
    labels, groups = np.asarray(labels), np.asarray(groups)
    if np.ndim(features) != 2 or labels.shape != (len(features),) or groups.shape != (len(features),):
        raise ValueError(f"ambiguity_score: features {np.shape(features)}, labels {labels.shape}, groups {groups.shape}; N each")
    distances = look_distances(features)
    known = np.flatnonzero(np.isfinite(distances.diagonal()))
    score = np.full(len(features), np.nan)
    distances, labels, groups = distances[np.ix_(known, known)], labels[known], groups[known]
    own = groups[:, None] == groups
    distances = np.where(own, np.inf, distances)
    wrong = labels[:, None] != labels
    places = np.minimum(k, (~own).sum(axis=1))
    for n in np.unique(places[places > 0]):
        rows = np.flatnonzero(places == n)
        score[known[rows]] = metrics.precision(distances[rows], wrong[rows], int(n))
    return score


def look_distances(features) -> np.ndarray:
    """How unlike two lesions are: distances between the rows of ``features`` (N, F), such as `appearance`. float64 (N, N).

    Each descriptor is standardised robustly, (x - median) / interquartile range (one whose range is 0 says nothing and is left
    out); distance is Euclidean, in these units. Infinite, also to itself, for a case with an undefined descriptor.
    """
    features = np.asarray(features, float)
    if features.ndim != 2:
        raise ValueError(f"look_distances: features of shape {features.shape}; (N, F) is needed")
    distances = np.full((len(features),) * 2, np.inf)
    known = np.flatnonzero(np.isfinite(features).all(axis=1))
    if len(known) == 0:
        return distances
    x = features[known]
    low, middle, high = np.percentile(x, (25, 50, 75), axis=0)
    spread = high - low
    x = ((x - middle) / np.where(spread > 0, spread, 1))[:, spread > 0]
    distances[np.ix_(known, known)] = cdist(x, x) if x.shape[1] else 0
    return distances


def ambiguous_examples(score, labels) -> np.ndarray:
    """One row per class that shows what ambiguous means there, chosen by rule: the middle of its most ambiguous third.

    ``score`` (N,): `ambiguity_score`; ``labels`` (N,). The rows of the third "ambiguous" of `thirds` are ordered by score
    (stable), and of n the one of rank n // 2 is taken: neither the worst case nor one chosen by eye. int64, in the order of the
    classes; a class with fewer than three known scores has no such third and is left out.
    """
    score, labels = np.asarray(score, float), np.asarray(labels)
    parts, found = thirds(score, labels), []
    for label in np.unique(labels):
        rows = np.flatnonzero((labels == label) & (parts == THIRDS[-1]))
        if len(rows):
            found.append(rows[np.argsort(score[rows], kind="stable")][len(rows) // 2])
    return np.array(found, np.int64)


def unlike_examples(distances, groups, n: int = 7, share: float = 0.9) -> np.ndarray:
    """Up to ``n`` rows of *one* class that show how unlike its cases are, chosen by rule.

    First the most typical case: the one with the smallest mean distance to all others. Then, again and again, the case whose
    nearest already chosen case is farthest away. The least typical cases, by that mean, are left out (``share`` stay, rounded
    up), because an outlier may be a slip of an outline; so are further cases of a chosen patient.

    ``distances`` (M, M): `look_distances` of the class; ``groups`` (M,): patients. Cases with undefined descriptors are never
    chosen. Equally far: the more typical one. Returns int64 in the order of choice; fewer than ``n`` where patients run out.
    """
    distances, groups = np.asarray(distances, float), np.asarray(groups)
    if distances.shape != (len(groups),) * 2:
        raise ValueError(f"unlike_examples: distances {distances.shape}, groups {groups.shape}; (M, M) and (M,) are needed")
    if not 0 < share <= 1:
        raise ValueError(f"unlike_examples: share must be above 0 and at most 1, got {share!r}")
    known = np.flatnonzero(np.isfinite(distances.diagonal()))
    if len(known) == 0:
        return known
    typical = distances[np.ix_(known, known)].mean(axis=1)
    order = known[np.argsort(typical, kind="stable")]
    left = order[: int(np.ceil(share * len(order)))]
    found = []
    while len(left) and len(found) < n:
        nearest = distances[np.ix_(left, found)].min(axis=1) if found else np.zeros(len(left))
        found.append(left[int(nearest.argmax())])
        left = left[groups[left] != groups[found[-1]]]
    return np.array(found, np.int64)


def thirds(score, labels) -> np.ndarray:
    """Three equal parts by the rank of ``score`` *within each class*, so that no third is a class in disguise.

    The case of rank r (from 0) among the n cases of its class falls into part ``floor(3 r / n)`` of "clear", "middle",
    "ambiguous": sizes differ by at most one, and one case alone is "clear". Equal scores keep the order of the cases (stable
    rank), because thirds of equal size are wanted and scores take few values. ``score`` (N,) real, ``labels`` (N,). Returns str
    (N,); "" where the score is NaN.
    """
    score, labels = np.asarray(score, float), np.asarray(labels)
    if score.ndim != 1 or score.shape != labels.shape:
        raise ValueError(f"thirds: score {score.shape} and labels {labels.shape}; one of each per case")
    found = np.full(len(score), "", dtype="<U9")
    for label in np.unique(labels):
        rows = np.flatnonzero((labels == label) & ~np.isnan(score))
        rows = rows[np.argsort(score[rows], kind="stable")]
        found[rows] = np.array(THIRDS)[3 * np.arange(len(rows)) // max(len(rows), 1)]
    return found


def by_third(per_query_values, thirds, k: int = 10, name: str = "map") -> pd.DataFrame:
    """Mean of a per-query value in each third: rows ``map_ambiguous, map_middle, map_clear``.

    ``per_query_values`` float (Q,), NaN where undefined (left out); ``thirds`` str (Q,) from `thirds`, "" belongs to none.
    Returns a DataFrame with metric, k, value (NaN for an empty third) and queries (how many were averaged).
    """
    values, thirds = np.asarray(per_query_values, float), np.asarray(thirds)
    if values.ndim != 1 or values.shape != thirds.shape:
        raise ValueError(f"by_third: values {values.shape} and thirds {thirds.shape}; one of each per query")
    odd = sorted(set(thirds.tolist()) - {*THIRDS, ""})
    if odd:
        raise ValueError(f"by_third: unknown third(s) {odd[:5]}; known are {', '.join(THIRDS)}")
    rows = []
    for third in THIRDS[::-1]:
        part = values[thirds == third]
        rows.append((f"{name}_{third}", k, metrics._mean(part), int((~np.isnan(part)).sum())))
    return pd.DataFrame(rows, columns=["metric", "k", "value", "queries"])


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
        table[f"flips_{name}"] = metrics._divide(table[f"bits_{name}"], unit)
    return pd.DataFrame(table)


def _encoded(encode, images: np.ndarray, length: int) -> np.ndarray:
    codes = np.asarray(encode(images))
    if codes.shape != (len(images), length):
        raise ValueError(f"encode: gave codes of shape {codes.shape} for {len(images)} images; {(len(images), length)} is needed")
    return sign_bits(codes)


# --- where a map looks -----------------------------------------------------------------------------------------------


def _maps(maps, masks, content) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    maps = np.asarray(maps)
    if maps.ndim != 3 or maps.dtype.kind not in "biuf":
        raise ValueError(f"maps: must be numbers (N, H, W), got {maps.dtype} {maps.shape}")
    maps = maps.astype(float)
    masks, content = _masks(masks, content, maps.shape)
    if not np.isfinite(maps).all() or (maps < 0).any():
        raise ValueError("maps: must be finite and at least 0 (the positive part of an attribution)")
    return maps, masks, content


def energy_ratio(maps, masks, content=None) -> np.ndarray:
    """Share of a map's energy inside the lesion over the lesion's share of the area: 1 = no better than a uniform map.

    ``(sum_lesion M / sum M) / (|lesion| / |content|)``; the numerator is the proportion of the energy-based pointing game (Wang
    et al., Score-CAM, CVPR Workshops 2020, there with boxes). Dividing makes large and small lesions comparable.

    ``maps`` (N, H, W) finite, at least 0; ``masks`` (N, H, W). Padding (``content``) counts neither as energy nor as area: a
    coarse map cannot help reaching into it, and a uniform map must score 1. Returns float64 (N,), 0 to 1 / area share; NaN for
    an empty mask. A map of zeros points nowhere, as a uniform one: 1.
    """
    maps, masks, content = _maps(maps, masks, content)
    energy = np.where(content, maps, 0).sum(axis=(1, 2))
    inside = np.where(masks, maps, 0).sum(axis=(1, 2))
    area = masks.sum(axis=(1, 2)) / content.sum(axis=(1, 2))
    share = np.divide(inside, energy, out=area.copy(), where=energy > 0)
    return metrics._divide(share, area)


def pointing(maps, masks, content=None) -> np.ndarray:
    """Whether the maximum of a map lies in the lesion: the pointing game (Zhang et al., IJCV 126, 2018), without its tolerance.

    Arguments as in `energy_ratio`; padding is left out. Where several pixels share the maximum, the share of them that lies in
    the lesion (so a uniform map, or one of zeros, scores the lesion's share of the area). Returns float64 (N,) in [0, 1], whose
    mean is `pointing`; NaN for an empty mask.
    """
    maps, masks, content = _maps(maps, masks, content)
    maps = np.where(content, maps, -1)
    highest = maps == maps.max(axis=(1, 2), keepdims=True, initial=-1)
    hit = (highest & masks).sum(axis=(1, 2)) / highest.sum(axis=(1, 2))
    return np.where(masks.any(axis=(1, 2)), hit, np.nan)


def uniform_map(images) -> np.ndarray:
    """Baseline without a model: 1 everywhere. ``images`` uint8 (N, C, H, W). Returns float32 (N, H, W)."""
    images = _images(images)
    return np.ones((len(images), *images.shape[2:]), np.float32)


def centre_gaussian(images, sigma: float = 0.2) -> np.ndarray:
    """Baseline without a model: a Gaussian in the middle, because sonographers centre the lesion.

    ``exp(-(dy^2 + dx^2) / (2 (sigma s)^2))``, s = longer side. Returns float32 (N, H, W) in (0, 1]. ``ValueError`` for sigma <=
    0.
    """
    images = _images(images)
    if not sigma > 0:
        raise ValueError(f"centre_gaussian: sigma must be above 0, got {sigma!r}")
    height, width = images.shape[2:]
    y, x = np.ogrid[:height, :width]
    square = (y - (height - 1) / 2) ** 2 + (x - (width - 1) / 2) ** 2
    one = np.exp(-square / (2 * (sigma * max(height, width)) ** 2)).astype(np.float32)
    return np.repeat(one[None], len(images), axis=0)


def edge_map(images, content=None) -> np.ndarray:
    """Baseline without a model: Sobel's gradient magnitude, each map divided by its maximum.

    An edge detector passes for an explanation easily (Adebayo et al., NeurIPS 2018). ``content``: the edge of the padding is
    left out. Returns float32 (N, H, W) in [0, 1]; zeros for a constant image.
    """
    images = _images(images)
    shape = (len(images), *images.shape[2:])
    _, content = _masks(np.zeros(shape, bool), content, shape)
    found = np.zeros(shape, np.float32)
    for i, (grey, inside) in enumerate(zip(_grey(images), content, strict=True)):
        # the square's own border is mirrored, so it makes no edge; pixels that touch padding are left out
        edges = sobel(grey) * ndimage.binary_erosion(inside, np.ones((3, 3)), border_value=1)
        if edges.max(initial=0) > 1e-9:
            found[i] = edges / edges.max()
    return found
