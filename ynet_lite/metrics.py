"""Retrieval metrics from all distances, with ties handled by their expected value, and mask overlap.

A query's answers are the first ``k`` cases of the database by distance. Short codes give many equal distances, and any
fixed order among them (by row, by id) lets a shuffle of the database move a score. So every metric here is its
**expected value over uniformly random orders within each group of equal distances**, in closed form; where no two
distances are equal it is the ordinary metric.

Notation: the group of rank ``r`` starts after ``s`` nearer cases and holds ``n`` cases, ``R`` of them relevant; ``H``
relevant cases are nearer than the group. ``m = k - s`` places of the list fall into the group that ``k`` cuts.
``k`` above the size N of the database means the whole database: ``k = min(k, N)`` everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import gammaln
from scipy.stats import binom

from .cases.core import Cases

KS = (5, 10, 20, 50)

VOTERS = 10  # `accuracy` is the vote of the 10 nearest

# Real values are summed as whole multiples of 2^-40: sums of integers do not depend on the order of the database.
_FIXED_POINT = float(1 << 40)


# --- rankings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ranking:
    """Each query's database order and, for its first ranks, the tie group of each rank (see `rank`).

    Attributes
    ----------
    order : int64 (Q, N), database rows by distance; the order inside a tie group carries no meaning.
    start, stop : int64 (Q, depth); the group of rank ``r`` (from 0) covers ranks ``start[:, r]`` to ``stop[:, r] - 1``.
    """

    order: np.ndarray
    start: np.ndarray
    stop: np.ndarray


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums of one value per (query, case) over the tie group of each rank: before it, inside it, over all cases.

    A metric takes it in place of the matrix, so that several metrics and k share the work.
    """

    before: np.ndarray  # (Q, depth)
    inside: np.ndarray  # (Q, depth)
    total: np.ndarray  # (Q,)
    best: np.ndarray | None = None  # (Q, depth), the largest values of each row, falling; gains only


def _matrix(values, what: str, kinds: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or values.dtype.kind not in kinds:
        raise ValueError(f"{what}: must be a (queries, database) matrix of numbers, got {values.dtype} {values.shape}")
    return values


def _distances(distances) -> np.ndarray:
    distances = _matrix(distances, "distances", "biuf")
    if distances.shape[1] == 0:
        raise ValueError("distances: the database is empty; it needs at least one case")
    if distances.dtype.kind == "f":
        bad = np.flatnonzero(np.isnan(distances).any(axis=1))
        if len(bad):
            raise ValueError(f"distances: NaN in {len(bad)} of {len(distances)} rows, first rows {bad[:5].tolist()}")
    return distances


def check_k(k) -> int:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k must be a whole number of at least 1, got {k!r}")
    return int(k)


def rank(distances, depth: int | None = None) -> Ranking:
    """Sort each row of ``distances`` (Q, N; numbers, smaller = nearer) once and find its tie groups.

    ``depth``: how many first ranks get their tie group (at most N; default all). Equal means exactly equal.
    Raises ``ValueError`` on NaN, on an empty database, and on anything that is not a matrix.
    """
    distances = _distances(distances)
    n = distances.shape[1]
    depth = n if depth is None else min(check_k(depth), n)
    order = np.argsort(distances, axis=1, kind="stable")
    ordered = np.take_along_axis(distances, order, axis=1)
    first = np.ones(ordered.shape, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    place = np.arange(n)
    start = np.maximum.accumulate(np.where(first, place, 0)[:, :depth], axis=1)
    last = np.ones(ordered.shape, bool)
    last[:, :-1] = first[:, 1:]
    stop = np.minimum.accumulate(np.where(last, place + 1, n)[:, ::-1], axis=1)[:, ::-1][:, :depth]
    return Ranking(order, start, stop)


def _prepared(distances, k: int) -> tuple[Ranking, int]:
    """The ranking, and ``k`` cut to the size of the database."""
    k = check_k(k)
    if not isinstance(distances, Ranking):
        distances = rank(distances, k)
    if distances.start.shape[1] < min(k, distances.order.shape[1]):
        raise ValueError(f"ranking: made for the first {distances.start.shape[1]} ranks, but k = {k}")
    return distances, min(k, distances.order.shape[1])


def _sums(ranking: Ranking, values, what: str) -> Sums:
    """Exact sums of ``values`` (Q, N; bool, integer, or real in fixed point) over the tie groups of ``ranking``."""
    values = _matrix(values, what, "biuf")
    if values.shape != ranking.order.shape:
        raise ValueError(f"{what}: shape {values.shape}, but distances have shape {ranking.order.shape}")
    real = values.dtype.kind == "f"
    if real:
        if not np.isfinite(values).all() or np.abs(values).max(initial=0) * values.shape[1] > 2**22:
            raise ValueError(f"{what}: values must be finite and small (their sum over the database below 2^22)")
        values = np.rint(values * _FIXED_POINT)
    running = np.zeros((len(values), values.shape[1] + 1), np.int64)
    np.cumsum(np.take_along_axis(values, ranking.order, axis=1), axis=1, dtype=np.int64, out=running[:, 1:])
    before = np.take_along_axis(running, ranking.start, axis=1)
    inside = np.take_along_axis(running, ranking.stop, axis=1) - before
    total = running[:, -1]
    if real:
        return Sums(before / _FIXED_POINT, inside / _FIXED_POINT, total / _FIXED_POINT)
    return Sums(before, inside, total)


def _hits(ranking: Ranking, relevance) -> Sums:
    if isinstance(relevance, Sums):
        return relevance
    relevance = np.asarray(relevance)
    if relevance.dtype != bool:
        if relevance.dtype.kind not in "iu" or not np.isin(relevance, (0, 1)).all():
            raise ValueError("relevance: must be bool (or 0 / 1) per query and case; graded gains belong to ndcg")
        relevance = relevance.astype(bool)
    return _sums(ranking, relevance, "relevance")


def divide(a, b) -> np.ndarray:
    """``a / b``, NaN where b is 0."""
    a, b = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float))
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)


def _expected_until(ranking: Ranking, sums: Sums, k: int) -> np.ndarray:
    """Expected sum of the values over the first k ranks, ``H + m R / n``, shape (Q,)."""
    at = k - 1
    taken = k - ranking.start[:, at]
    return sums.before[:, at] + taken * sums.inside[:, at] / (ranking.stop[:, at] - ranking.start[:, at])


def _ap_terms(ranking: Ranking, hits: Sums) -> np.ndarray:
    """Expected ``rel(r) * precision(r)`` of each rank, (Q, depth).

    The case at place j of its group is relevant with probability R / n; then the j - 1 places before it in the group
    hold ``(j - 1)(R - 1) / (n - 1)`` relevant cases on average:
    ``R / n * (H + 1 + (j - 1)(R - 1) / (n - 1)) / r``.
    """
    n = ranking.stop - ranking.start
    r = np.arange(1, n.shape[1] + 1)
    nearer = r - ranking.start - 1
    inside = hits.inside
    mates = nearer * (inside - 1) / np.maximum(n - 1, 1)
    return inside / n * (hits.before + 1 + mates) / r


def _hypergeometric(drawn, good, size, most: int) -> np.ndarray:
    """``P(x good ones among drawn)`` of ``size`` cases with ``good`` good ones: (Q,) each -> (Q, most + 1)."""
    drawn, good, size = (np.asarray(v, float)[:, None] for v in (drawn, good, size))
    x = np.arange(most + 1)

    def log_choose(a, b):
        return gammaln(a + 1) - gammaln(np.maximum(b, 0) + 1) - gammaln(np.maximum(a - b, 0) + 1)

    possible = (x <= good) & (x <= drawn) & (drawn - x <= size - good)
    log_p = log_choose(good, x) + log_choose(size - good, drawn - x) - log_choose(size, drawn)
    p = np.where(possible, np.exp(np.where(possible, log_p, 0)), 0)
    return p / p.sum(axis=1, keepdims=True)


# --- metrics of one k, one value per query ---------------------------------------------------------------------------


def average_precision(distances, relevance, k: int) -> np.ndarray:
    """Average precision at k over what could have been found; its mean over queries is `map`.

    ``AP = sum_{r <= k} rel(r) * precision(r) / min(k, number of relevant cases in the database)``, expected over ties.

    ``distances`` (Q, N) or a `Ranking` of depth k or more; ``relevance`` bool (Q, N). Returns float64 (Q,) in [0, 1];
    NaN for a query without a relevant case.
    """
    ranking, k = _prepared(distances, k)
    hits = _hits(ranking, relevance)
    found = _ap_terms(ranking, hits)[:, :k].sum(axis=1)
    return divide(found, np.minimum(k, hits.total))


def average_precision_hits(distances, relevance, k: int) -> np.ndarray:
    """Average precision at k over the hits in the list (the released script's definition); its mean is `map_hits`.

    ``AP = sum_{r <= k} rel(r) * precision(r) / number of hits among the k``, 0 without a hit. Under ties the divisor
    is random: the expectation runs over the hypergeometric number of hits ``x`` in the group that k cuts. Given x,
    place j of its m places is a hit with probability ``x / m`` and has ``(j - 1)(x - 1) / (m - 1)`` hits of the group
    before it.

    Arguments as in `average_precision`. Returns float64 (Q,) in [0, 1], never NaN.
    """
    ranking, k = _prepared(distances, k)
    hits = _hits(ranking, relevance)
    at = k - 1
    start, size = ranking.start[:, at], ranking.stop[:, at] - ranking.start[:, at]
    before, inside = hits.before[:, at], hits.inside[:, at]
    m = at + 1 - start
    ranks = np.arange(1, at + 2)
    cut = ranks > start[:, None]  # ranks that lie in the cut group
    place = ranks - start[:, None] - 1  # j - 1
    whole = np.where(cut, 0, _ap_terms(ranking, hits)[:, : at + 1]).sum(axis=1)
    once = np.where(cut, 1 / ranks, 0).sum(axis=1)
    mates = np.where(cut, place / ranks, 0).sum(axis=1) / np.maximum(m - 1, 1)
    x = np.arange(m.max(initial=0) + 1)
    p = _hypergeometric(m, inside, size, len(x) - 1)
    m, before = m[:, None], before[:, None]
    inside_sum = x / m * ((before + 1) * once[:, None] + (x - 1) * mates[:, None])
    found = before + x
    value = np.divide(whole[:, None] + inside_sum, found, out=np.zeros(p.shape), where=found > 0)
    return np.clip((p * value).sum(axis=1), 0, 1)  # rounding may leave the last digit above 1


def precision(distances, relevance, k: int) -> np.ndarray:
    """Share of relevant cases among the first k: ``(H + m R / n) / k``. Returns float64 (Q,) in [0, 1]."""
    ranking, k = _prepared(distances, k)
    hits = _hits(ranking, relevance)
    return _expected_until(ranking, hits, k) / k


def recall(distances, relevance, k: int) -> np.ndarray:
    """Share of the database's relevant cases that stand among the first k; NaN where there are none. float64 (Q,)."""
    ranking, k = _prepared(distances, k)
    hits = _hits(ranking, relevance)
    return divide(_expected_until(ranking, hits, k), hits.total)


def _gain_sums(ranking: Ranking, gains) -> Sums:
    if isinstance(gains, Sums):
        return gains
    sums = _sums(ranking, gains, "gains")
    gains = np.asarray(gains)
    if (gains < 0).any():
        raise ValueError("gains: must be at least 0")
    best = np.sort(gains, axis=1)[:, ::-1][:, : ranking.start.shape[1]].astype(float)
    return Sums(sums.before, sums.inside, sums.total, best)


def ndcg(distances, gains, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain at k, with linear gains (Jarvelin and Kekalainen, TOIS 2002).

    ``DCG = sum_{r <= k} gain(r) / log2(r + 1)``, expected over ties (the mean gain of the group at each of its ranks),
    divided by the DCG of the database sorted by falling gain.

    ``gains`` (Q, N): at least 0; see `graded_gains`. Returns float64 (Q,) in [0, 1]; NaN where all gains are 0.
    """
    ranking, k = _prepared(distances, k)
    sums = _gain_sums(ranking, gains)
    discount = 1 / np.log2(np.arange(2, k + 2))
    mean_gain = sums.inside[:, :k] / (ranking.stop - ranking.start)[:, :k]
    # Numerator and ideal are summed by the same routine, so that a perfect ranking gives exactly 1.
    return divide((mean_gain * discount).sum(axis=1), (sums.best[:, :k] * discount).sum(axis=1))


def _overlap_sums(ranking: Ranking, agreement) -> tuple[Sums, Sums]:
    """Sums of whether the overlap is known, and of the overlap."""
    if isinstance(agreement, tuple):
        return agreement
    agreement = _matrix(agreement, "agreement", "f")
    known = ~np.isnan(agreement)
    return _sums(ranking, known, "agreement"), _sums(ranking, np.where(known, agreement, 0), "agreement")


def mask_agreement(distances, agreement, k: int) -> np.ndarray:
    """Mean overlap of the query's true mask with the true masks of its first k answers.

    ``agreement`` (Q, N): `centred_iou`, NaN where one of the two masks is not known (`mask_overlaps`). Such answers
    are left out of the mean. Under ties the number of known masks in the list is random (hypergeometric), and the
    expectation runs over the orders whose list has at least one. Returns float64 (Q,) in [0, 1]; NaN where none has.
    """
    ranking, k = _prepared(distances, k)
    known, overlap = _overlap_sums(ranking, agreement)
    at = k - 1
    size = ranking.stop[:, at] - ranking.start[:, at]
    m = at + 1 - ranking.start[:, at]
    x = np.arange(m.max(initial=0) + 1)
    p = _hypergeometric(m, known.inside[:, at], size, len(x) - 1)
    mean_inside = np.nan_to_num(divide(overlap.inside[:, at], known.inside[:, at]))
    count = known.before[:, at, None] + x
    summed = overlap.before[:, at, None] + x * mean_inside[:, None]
    value = np.divide(summed, count, out=np.zeros(p.shape), where=count > 0)
    return np.clip(divide((p * value).sum(axis=1), (p * (count > 0)).sum(axis=1)), 0, 1)


def tied_at_k(distances, k: int) -> np.ndarray:
    """Number of database cases at exactly the k-th answer's distance, itself included (1 = no tie). float64 (Q,)."""
    ranking, k = _prepared(distances, k)
    return (ranking.stop - ranking.start)[:, k - 1].astype(float)


def vote_accuracy(distances, query_labels, database_labels, k: int = VOTERS) -> np.ndarray:
    """Probability that the majority of the k nearest votes for the query's class (`accuracy`).

    A vote that ends level between ``t`` classes counts ``1 / t``. Under distance ties the classes of the cut group's m
    voters are multivariate hypergeometric: with ``P(x) = prod_c C(R_c, x_c) / C(n, m)`` summed over all ``x`` in which
    no class has more votes than the query's.

    ``query_labels`` int (Q,), ``database_labels`` int (N,). Returns float64 (Q,) in [0, 1]; 0 where the query's class
    is not in the database.
    """
    ranking, k = _prepared(distances, k)
    query_labels, database_labels = np.asarray(query_labels), np.asarray(database_labels)
    if (len(query_labels), len(database_labels)) != ranking.order.shape:
        raise ValueError(
            f"labels: {len(query_labels)} queries and {len(database_labels)} cases, but distances {ranking.order.shape}"
        )
    q, at = len(query_labels), k - 1
    classes = np.unique(database_labels)
    shape = ranking.order.shape
    counts = [_sums(ranking, np.broadcast_to(database_labels == c, shape), "labels") for c in classes]
    sure = np.stack([c.before[:, at] for c in counts], axis=1)  # votes of the cases nearer than the cut group, (Q, C)
    group = np.stack([c.inside[:, at] for c in counts], axis=1)  # cases of the cut group, (Q, C)
    own = query_labels[:, None] == classes
    present = own.any(axis=1)
    # The query's class first, so that the rivals are the same columns for every query.
    own_first = np.argsort(~own, axis=1, kind="stable")
    sure, group = np.take_along_axis(sure, own_first, axis=1), np.take_along_axis(group, own_first, axis=1)
    n, m = group.sum(axis=1), k - sure.sum(axis=1)
    # C(R, x) times p^x (1 - p)^(R - x), p = m / n: the same distribution after normalising, but no huge numbers.
    x = np.arange(k + 1)
    weight = binom.pmf(x, group[:, :, None], (m / n)[:, None, None])  # (Q, C, k + 1)
    normal = binom.pmf(m, n, m / n)
    total = np.zeros(q)
    for votes in range(1, k + 1):  # final votes of the query's class
        extra = votes - sure[:, 0]
        possible = (extra >= 0) & (extra <= m)
        if not possible.any():
            continue
        # ways[:, d, t]: weight of d voters drawn so far and t rivals level with the query's class
        ways = np.zeros((q, k + 1, 1))
        ways[np.arange(q), np.clip(extra, 0, k), 0] = np.where(possible, weight[np.arange(q), 0, np.clip(extra, 0, k)], 0)
        for c in range(1, len(classes)):
            wider = np.zeros((q, k + 1, c + 1))
            for drawn in range(k + 1):
                mine = sure[:, c] + drawn
                w = np.where(mine <= votes, weight[:, c, drawn], 0)
                if not w.any():
                    continue
                level = mine == votes
                moved = ways[:, : k + 1 - drawn] * w[:, None, None]
                wider[:, drawn:, :c] += np.where(level[:, None, None], 0, moved)
                wider[:, drawn:, 1:] += np.where(level[:, None, None], moved, 0)
            ways = wider
        share = 1 / np.arange(1, ways.shape[2] + 1)
        total += ways[np.arange(q), m] @ share
    return np.clip(np.where(present, total / normal, 0), 0, 1)


def precision_recall_curve(distances, relevance, n_points: int = 101) -> tuple[np.ndarray, np.ndarray]:
    """Precision on an even grid of recall from 0 to 1, averaged over queries.

    One point per distinct distance (all cases up to it are returned, so ties need no order); between points the usual
    interpolation ``p(rho) = max precision at any distance whose recall is at least rho``.

    Returns ``(recall (n_points,), precision (n_points,))``, precision NaN if no query has a relevant case; queries
    without one are left out. Raises ``ValueError`` for fewer than 2 points.
    """
    if isinstance(n_points, bool) or not isinstance(n_points, (int, np.integer)) or n_points < 2:
        raise ValueError(f"n_points must be a whole number of at least 2, got {n_points!r}")
    ranking = distances if isinstance(distances, Ranking) else rank(distances)
    if ranking.stop.shape != ranking.order.shape:
        raise ValueError("precision_recall_curve: needs a ranking of full depth, rank(distances)")
    hits = _hits(ranking, relevance)
    found = hits.before + hits.inside  # hits up to the end of each rank's tie group
    best = np.maximum.accumulate((found / ranking.stop)[:, ::-1], axis=1)[:, ::-1]
    grid = np.linspace(0, 1, n_points)
    rows = np.flatnonzero(hits.total > 0)
    if len(rows) == 0:
        return grid, np.full(n_points, np.nan)
    curves = np.empty((len(rows), n_points))
    for i, row in enumerate(rows):
        # ceil(j * total / (n_points - 1)) in whole numbers: recall 0.3 of 10 cases must be 3 hits, not 4.
        needed = -(-np.arange(n_points) * hits.total[row] // (n_points - 1))
        curves[i] = best[row, np.searchsorted(found[row], needed)]
    return grid, curves.mean(axis=0)


def distinct_codes(codes) -> int:
    """Number of different codes among the queries: packed uint8 (Q, B), or float codes (Q, K), or `hashing.Codes`."""
    codes = np.asarray(getattr(codes, "packed", codes))
    if codes.ndim != 2:
        raise ValueError(f"codes: must have shape (queries, bytes or values), got {codes.shape}")
    return len(np.unique(codes, axis=0))


# --- masks -----------------------------------------------------------------------------------------------------------


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


def _centred(masks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Foreground pixels as (case, y, x), y and x counted from the case's centroid rounded to a whole pixel."""
    masks = mask_stack(masks, "masks")
    case, y, x = np.nonzero(masks)
    area = np.maximum(np.bincount(case, minlength=len(masks)), 1)
    # floor(mean + 1/2) in whole numbers: a mask and its moved copy must round to the same place
    cy, cx = ((2 * np.bincount(case, weights=v, minlength=len(masks)).astype(np.int64) + area) // (2 * area) for v in (y, x))
    return case, y - cy[case], x - cx[case]


def centred_iou(masks_a, masks_b) -> np.ndarray:
    """IoU of every mask of ``a`` with every mask of ``b`` after moving each centroid to the image centre.

    Position says little about a lesion, size and shape do. Moves are by whole pixels onto a canvas large enough that
    nothing is cut off. Exact: intersections are counted by a matrix product of 0/1 rows, at full resolution.

    ``masks_a`` (A, H, W), ``masks_b`` (B, H, W), same H and W, anything but 0 is foreground. Returns float64 (A, B)
    in [0, 1]; both empty = 1, one empty = 0.
    """
    masks_a, masks_b = np.asarray(masks_a), np.asarray(masks_b)
    if masks_a.shape[1:] != masks_b.shape[1:]:
        raise ValueError(f"masks: {masks_a.shape} and {masks_b.shape}; height and width must be the same")
    case_a, y_a, x_a = _centred(masks_a)
    case_b, y_b, x_b = _centred(masks_b)
    area_a = np.bincount(case_a, minlength=len(masks_a)).astype(float)
    area_b = np.bincount(case_b, minlength=len(masks_b)).astype(float)
    both = np.zeros((len(masks_a), len(masks_b)))
    if len(case_a) and len(case_b):
        # Only pixels inside both sets' extents can intersect.
        y0, y1 = max(y_a.min(), y_b.min()), min(y_a.max(), y_b.max())
        x0, x1 = max(x_a.min(), x_b.min()), min(x_a.max(), x_b.max())
        height, width = y1 - y0 + 1, x1 - x0 + 1

        def rows(case, y, x, lo, hi):
            first, last = np.searchsorted(case, (lo, hi))
            case, y, x = case[first:last] - lo, y[first:last], x[first:last]
            inside = (y >= y0) & (y <= y1) & (x >= x0) & (x <= x1)
            flat = np.zeros((hi - lo, height * width), np.float32)  # exact: counts stay below 2^24
            flat[case[inside], (y[inside] - y0) * width + x[inside] - x0] = 1
            return flat

        if height > 0 and width > 0:
            step = 512
            for i in range(0, len(masks_a), step):
                a = rows(case_a, y_a, x_a, i, min(i + step, len(masks_a)))
                for j in range(0, len(masks_b), step):
                    b = rows(case_b, y_b, x_b, j, min(j + step, len(masks_b)))
                    both[i : i + step, j : j + step] = a @ b.T
    union = area_a[:, None] + area_b - both
    return np.divide(both, union, out=np.ones(both.shape), where=union > 0)


def mask_overlaps(queries: Cases, database: Cases) -> np.ndarray:
    """`centred_iou` of the true masks, float64 (Q, N), NaN where either outline is not known."""
    overlaps = np.full((len(queries), len(database)), np.nan)
    q, n = np.flatnonzero(queries.has_mask), np.flatnonzero(database.has_mask)
    if len(q) and len(n):
        overlaps[np.ix_(q, n)] = centred_iou(queries.masks[q], database.masks[n])
    return overlaps


# --- everything at once ----------------------------------------------------------------------------------------------


def same_class(queries: Cases, database: Cases) -> np.ndarray:
    """Relevance: bool (Q, N), True where query and case have the same class."""
    if queries.class_names != database.class_names:
        raise ValueError(f"classes differ: queries {queries.class_names}, database {database.class_names}")
    return queries.labels[:, None] == database.labels


def graded_gains(queries: Cases, database: Cases) -> np.ndarray:
    """Graded relevance, int8 (Q, N): 0 another class, 1 the same class, 2 the same class and the same finer value.

    With several columns in ``finer`` the value is all of them together (same manifestation *and* same stage); a
    missing value equals nothing. Without finer columns gains are 0 and 1. Raises ``ValueError`` when the two sets
    name different finer columns.
    """
    if queries.finer != database.finer:
        raise ValueError(f"finer columns differ: queries {queries.finer}, database {database.finer}")
    same = same_class(queries, database)
    gains = same.astype(np.int8)
    if queries.finer:
        for column in queries.finer:
            values = pd.concat([queries.table[column], database.table[column]], ignore_index=True)
            codes = pd.factorize(values)[0]
            a, b = codes[: len(queries)], codes[len(queries) :]
            same &= (a[:, None] == b) & (a[:, None] >= 0)
        gains += same
    return gains


def mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _macro_mean(values: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the queries' classes of the class means (classes whose values are all undefined are left out)."""
    return mean(np.array([mean(values[labels == c]) for c in np.unique(labels)]))


def evaluate(
    distances, queries: Cases, database: Cases, ks=KS, query_codes=None, overlaps=None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All retrieval metrics of one distance matrix.

    ``distances`` (Q, N): Hamming distances or real ones, smaller = nearer. ``query_codes``: packed codes (or float
    codes) of the queries, for `distinct_codes`; ``overlaps``: `mask_overlaps(queries, database)` if already computed.

    Returns ``(rows, per_query)``. ``rows`` has columns metric, k, value (float; k = 0 for metrics without k):

    - ``map, map_macro, map_hits, precision, recall, ndcg, mask_agreement, tied_at_k`` for each k: means over the
      queries where the metric is defined (`map_macro`: over classes);
    - ``accuracy`` at k = 10; ``distinct_codes`` if codes were given;
    - ``no_relevant``, ``no_mask``: number of queries without a relevant case (undefined map, recall, ndcg) and without
      a known mask: these are left out of the means.

    ``per_query`` has columns case_id, metric, k, value, NaN where undefined; no rows for metrics of the whole set.
    Raises ``ValueError`` when shapes or classes do not fit together, or on NaN distances.
    """
    ks = tuple(dict.fromkeys(check_k(k) for k in ks))
    if not ks:
        raise ValueError("ks: needs at least one k")
    distances = _distances(distances)
    if distances.shape != (len(queries), len(database)):
        raise ValueError(f"distances: shape {distances.shape}, but {len(queries)} queries and {len(database)} database cases")
    if len(queries) == 0:
        raise ValueError("evaluate: no queries; at least one is needed")
    if query_codes is not None and len(getattr(query_codes, "packed", query_codes)) != len(queries):
        raise ValueError(f"query_codes: one code per query is needed ({len(queries)} queries)")
    relevance = same_class(queries, database)
    gains = graded_gains(queries, database)
    overlaps = mask_overlaps(queries, database) if overlaps is None else overlaps

    ranking = rank(distances, max(*ks, VOTERS))
    hits = _hits(ranking, relevance)
    gain_sums, overlap_sums = _gain_sums(ranking, gains), _overlap_sums(ranking, overlaps)

    rows, per_query = [], []

    def add(metric: str, k: int, values: np.ndarray) -> None:
        rows.append((metric, k, mean(values)))
        per_query.append(pd.DataFrame({"case_id": queries.ids, "metric": metric, "k": k, "value": values}))

    for k in ks:
        ap = average_precision(ranking, hits, k)
        add("map", k, ap)
        rows.append(("map_macro", k, _macro_mean(ap, queries.labels)))
        add("map_hits", k, average_precision_hits(ranking, hits, k))
        add("precision", k, precision(ranking, hits, k))
        add("recall", k, recall(ranking, hits, k))
        add("ndcg", k, ndcg(ranking, gain_sums, k))
        add("mask_agreement", k, mask_agreement(ranking, overlap_sums, k))
        add("tied_at_k", k, tied_at_k(ranking, k))
    add("accuracy", VOTERS, vote_accuracy(ranking, queries.labels, database.labels, VOTERS))
    if query_codes is not None:
        rows.append(("distinct_codes", 0, float(distinct_codes(query_codes))))
    rows.append(("no_relevant", 0, float((hits.total == 0).sum())))
    rows.append(("no_mask", 0, float((~queries.has_mask).sum())))
    return (
        pd.DataFrame(rows, columns=["metric", "k", "value"]),
        pd.concat(per_query, ignore_index=True),
    )


def chance(queries: Cases, database: Cases, ks=KS, overlaps=None) -> pd.DataFrame:
    """What a random ranking scores: `evaluate` with all distances equal, exact, no drawing. Columns metric, k, value.

    ``tied_at_k`` is left out: it would describe our way of computing, not a random ranking.
    """
    zeros = np.zeros((len(queries), len(database)), np.int8)
    rows, _ = evaluate(zeros, queries, database, ks, overlaps=overlaps)
    return rows[rows["metric"] != "tied_at_k"].reset_index(drop=True)
