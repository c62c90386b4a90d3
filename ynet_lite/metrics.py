"""Retrieval metrics from all distances, with ties handled by their expected value.

A query's answers are the first ``k`` cases of the database by distance. Short codes give many equal distances, and any
fixed order among them (by row, by id) lets a shuffle of the database move a score. So every metric here is its
**expected value over uniformly random orders within each group of equal distances**, in closed form; where no two
distances are equal it is the ordinary metric.

Notation: the group of rank ``r`` starts after ``s`` nearer cases and holds ``n`` cases, ``R`` of them relevant; ``H``
relevant cases are nearer than the group. ``m = k - s`` places of the list fall into the group that ``k`` cuts.
``k`` above the size N of the database means the whole database: ``k = min(k, N)`` everywhere.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binom

from .cases.core import Cases
from .hashing import no_nan, whole
from .overlap import mask_overlaps

KS = (5, 10, 20, 50)

VOTERS = 10  # `accuracy` is the vote of the 10 nearest

# Real values are summed as whole multiples of 2^-40: sums of integers do not depend on the order of the database.
_FIXED_POINT = float(1 << 40)


# --- rankings --------------------------------------------------------------------------------------------------------


class Ranking(NamedTuple):
    """Each query's database order and, for its first ranks, the tie group of each rank (see `rank`)."""

    order: np.ndarray  # int64 (Q, N), database rows by distance; the order inside a tie group carries no meaning
    start: np.ndarray  # int64 (Q, depth): the group of rank r (from 0) covers ranks start[:, r] to stop[:, r] - 1
    stop: np.ndarray


class Sums(NamedTuple):
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


def rank(distances, depth: int | None = None) -> Ranking:
    """Sort each row of ``distances`` (Q, N; numbers, smaller = nearer) once and find its tie groups.

    ``depth``: how many first ranks get their tie group (at most N; default all). Equal means exactly equal.
    Raises ``ValueError`` on NaN, on an empty database, and on anything that is not a matrix.
    """
    distances = _matrix(distances, "distances", "biuf")
    n = distances.shape[1]
    if n == 0:
        raise ValueError("distances: the database is empty; it needs at least one case")
    no_nan("distances", distances)
    depth = n if depth is None else min(whole("depth", depth), n)
    order = np.argsort(distances, axis=1, kind="stable")
    ordered = np.take_along_axis(distances, order, axis=1)
    change, place = ordered[:, 1:] != ordered[:, :-1], np.arange(n)
    first, last = (np.pad(change, ((0, 0), side), constant_values=True) for side in ((1, 0), (0, 1)))
    start = np.maximum.accumulate(np.where(first, place, 0)[:, :depth], axis=1)
    stop = np.minimum.accumulate(np.where(last, place + 1, n)[:, ::-1], axis=1)[:, ::-1][:, :depth]
    return Ranking(order, start, stop)


def _prepared(distances, values, k: int, summed=None) -> tuple[Ranking, Sums | tuple[Sums, Sums], int]:
    """The ranking, ``summed(ranking, values)`` where ``values`` are not yet sums, and ``k`` cut to the size of the database."""
    k = whole("k", k)
    ranking = distances if isinstance(distances, Ranking) else rank(distances, k)
    depth, n = ranking.start.shape[1], ranking.order.shape[1]
    if depth < min(k, n):
        raise ValueError(f"ranking: made for the first {depth} ranks, but k = {k}")
    return ranking, values if isinstance(values, tuple) else summed(ranking, values), min(k, n)


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
    return Sums(*(part / _FIXED_POINT if real else part for part in (before, inside, total)))


def _hits(ranking: Ranking, relevance) -> Sums:
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


def _ap_terms(ranking: Ranking, hits: Sums) -> np.ndarray:
    """Expected ``rel(r) * precision(r)`` of each rank, (Q, depth).

    The case at place j of its group is relevant with probability R / n; then the j - 1 places before it in the group
    hold ``(j - 1)(R - 1) / (n - 1)`` relevant cases on average:
    ``R / n * (H + 1 + (j - 1)(R - 1) / (n - 1)) / r``.
    """
    n = ranking.stop - ranking.start
    r = np.arange(1, n.shape[1] + 1)
    mates = (r - ranking.start - 1) * (hits.inside - 1) / np.maximum(n - 1, 1)
    return hits.inside / n * (hits.before + 1 + mates) / r


def _cut(ranking: Ranking, sums: Sums, k: int) -> tuple[np.ndarray, ...]:
    """The group that ``k`` cuts: ``m, n``, its sum and the sum before it, each (Q,)."""
    at = k - 1
    start = ranking.start[:, at]
    return k - start, ranking.stop[:, at] - start, sums.inside[:, at], sums.before[:, at]


def _expected_until(ranking: Ranking, sums: Sums, k: int) -> np.ndarray:
    """Expected sum of the values over the first k ranks, ``H + m R / n``, shape (Q,)."""
    m, n, inside, before = _cut(ranking, sums, k)
    return before + m * inside / n


def _hypergeometric(drawn, size, good) -> tuple[np.ndarray, np.ndarray]:
    """``x`` from 0 to the most that are drawn, and ``P(x good ones among drawn)`` of ``size`` cases: (Q,) each -> (Q, X)."""
    x = np.arange(drawn.max(initial=0) + 1)
    drawn, size, good = (np.asarray(v, float)[:, None] for v in (drawn, size, good))
    # two binomials of one share, given their sum: the same distribution after normalising, but no huge numbers
    p = binom.pmf(x, good, drawn / size) * binom.pmf(drawn - x, size - good, drawn / size)
    return x, p / p.sum(axis=1, keepdims=True)


# --- metrics of one k, one value per query ---------------------------------------------------------------------------


def average_precision(distances, relevance, k: int) -> np.ndarray:
    """Average precision at k over what could have been found; its mean over queries is `map`.

    ``AP = sum_{r <= k} rel(r) * precision(r) / min(k, number of relevant cases in the database)``, expected over ties.

    ``distances`` (Q, N) or a `Ranking` of depth k or more; ``relevance`` bool (Q, N). Returns float64 (Q,) in [0, 1];
    NaN for a query without a relevant case.
    """
    ranking, hits, k = _prepared(distances, relevance, k, _hits)
    return divide(_ap_terms(ranking, hits)[:, :k].sum(axis=1), np.minimum(k, hits.total))


def average_precision_hits(distances, relevance, k: int) -> np.ndarray:
    """Average precision at k over the hits in the list (the released script's definition); its mean is `map_hits`.

    ``AP = sum_{r <= k} rel(r) * precision(r) / number of hits among the k``, 0 without a hit. Under ties the divisor
    is random: the expectation runs over the hypergeometric number of hits ``x`` in the group that k cuts. Given x,
    place j of its m places is a hit with probability ``x / m`` and has ``(j - 1)(x - 1) / (m - 1)`` hits of the group
    before it.

    Arguments as in `average_precision`. Returns float64 (Q,) in [0, 1], never NaN.
    """
    ranking, hits, k = _prepared(distances, relevance, k, _hits)
    m, size, inside, before = _cut(ranking, hits, k)
    x, p = _hypergeometric(m, size, inside)
    m, before = m[:, None], before[:, None]
    ranks = np.arange(1, k + 1)
    place = ranks - (k - m) - 1  # j - 1 in the cut group; below 0 for ranks before it
    whole_groups = np.where(place >= 0, 0, _ap_terms(ranking, hits)[:, :k]).sum(axis=1)
    once = np.where(place >= 0, 1 / ranks, 0).sum(axis=1)
    mates = np.where(place >= 0, place / ranks, 0).sum(axis=1) / np.maximum(m[:, 0] - 1, 1)
    inside_sum = x / m * ((before + 1) * once[:, None] + (x - 1) * mates[:, None])
    found = before + x
    value = np.divide(whole_groups[:, None] + inside_sum, found, out=np.zeros(p.shape), where=found > 0)
    return np.clip((p * value).sum(axis=1), 0, 1)  # rounding may leave the last digit above 1


def precision(distances, relevance, k: int) -> np.ndarray:
    """Share of relevant cases among the first k: ``(H + m R / n) / k``. Returns float64 (Q,) in [0, 1]."""
    ranking, hits, k = _prepared(distances, relevance, k, _hits)
    return _expected_until(ranking, hits, k) / k


def recall(distances, relevance, k: int) -> np.ndarray:
    """Share of the database's relevant cases that stand among the first k; NaN where there are none. float64 (Q,)."""
    ranking, hits, k = _prepared(distances, relevance, k, _hits)
    return divide(_expected_until(ranking, hits, k), hits.total)


def _gain_sums(ranking: Ranking, gains) -> Sums:
    sums, gains = _sums(ranking, gains, "gains"), np.asarray(gains)
    if (gains < 0).any():
        raise ValueError("gains: must be at least 0")
    return sums._replace(best=np.sort(gains, axis=1)[:, ::-1][:, : ranking.start.shape[1]].astype(float))


def ndcg(distances, gains, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain at k, with linear gains (Jarvelin and Kekalainen, TOIS 2002).

    ``DCG = sum_{r <= k} gain(r) / log2(r + 1)``, expected over ties (the mean gain of the group at each of its ranks),
    divided by the DCG of the database sorted by falling gain.

    ``gains`` (Q, N): at least 0; see `graded_gains`. Returns float64 (Q,) in [0, 1]; NaN where all gains are 0.
    """
    ranking, sums, k = _prepared(distances, gains, k, _gain_sums)
    discount = 1 / np.log2(np.arange(2, k + 2))
    mean_gain = sums.inside[:, :k] / (ranking.stop - ranking.start)[:, :k]
    # Numerator and ideal are summed by the same routine, so that a perfect ranking gives exactly 1.
    return divide((mean_gain * discount).sum(axis=1), (sums.best[:, :k] * discount).sum(axis=1))


def _overlap_sums(ranking: Ranking, agreement) -> tuple[Sums, Sums]:
    """Sums of whether the overlap is known, and of the overlap."""
    agreement = _matrix(agreement, "agreement", "f")
    known = ~np.isnan(agreement)
    return _sums(ranking, known, "agreement"), _sums(ranking, np.where(known, agreement, 0), "agreement")


def mask_agreement(distances, agreement, k: int) -> np.ndarray:
    """Mean overlap of the query's true mask with the true masks of its first k answers.

    ``agreement`` (Q, N): `centred_iou`, NaN where one of the two masks is not known (`mask_overlaps`). Such answers
    are left out of the mean. Under ties the number of known masks in the list is random (hypergeometric), and the
    expectation runs over the orders whose list has at least one. Returns float64 (Q,) in [0, 1]; NaN where none has.
    """
    ranking, (known, overlap), k = _prepared(distances, agreement, k, _overlap_sums)
    m, n, inside, before = _cut(ranking, known, k)
    x, p = _hypergeometric(m, n, inside)
    mean_inside = np.nan_to_num(divide(overlap.inside[:, k - 1], inside))
    count = before[:, None] + x
    summed = overlap.before[:, k - 1, None] + x * mean_inside[:, None]
    value = np.divide(summed, count, out=np.zeros(p.shape), where=count > 0)
    return np.clip(divide((p * value).sum(axis=1), (p * (count > 0)).sum(axis=1)), 0, 1)


def tied_at_k(distances, k: int) -> np.ndarray:
    """Number of database cases at exactly the k-th answer's distance, itself included (1 = no tie). float64 (Q,)."""
    ranking, _, k = _prepared(distances, (), k)
    return (ranking.stop - ranking.start)[:, k - 1].astype(float)


def vote_accuracy(distances, query_labels, database_labels, k: int = VOTERS) -> np.ndarray:
    """Probability that the majority of the k nearest votes for the query's class (`accuracy`).

    A vote that ends level between ``t`` classes counts ``1 / t``. Under distance ties the classes of the cut group's m
    voters are multivariate hypergeometric: with ``P(x) = prod_c C(R_c, x_c) / C(n, m)`` summed over all ``x`` in which
    no class has more votes than the query's.

    ``query_labels`` int (Q,), ``database_labels`` int (N,). Returns float64 (Q,) in [0, 1]; 0 where the query's class
    is not in the database.
    """
    query_labels, database_labels = np.asarray(query_labels), np.asarray(database_labels)
    ranking, _, k = _prepared(distances, (), k)
    q, shape, classes = len(query_labels), ranking.order.shape, np.unique(database_labels)
    if (q, len(database_labels)) != shape:
        raise ValueError(f"labels: {q} queries and {len(database_labels)} cases, but distances {shape}")
    counts = [_sums(ranking, np.broadcast_to(database_labels == c, shape), "labels") for c in classes]
    own = query_labels[:, None] == classes
    # The query's class first, so that the rivals are the same columns for every query.
    own_first = np.argsort(~own, axis=1, kind="stable")
    # (Q, C): votes of the cases nearer than the cut group, and cases of the cut group
    sure, group = (
        np.take_along_axis(np.stack(part, axis=1), own_first, axis=1)
        for part in ([c.before[:, k - 1] for c in counts], [c.inside[:, k - 1] for c in counts])
    )
    n, m = group.sum(axis=1), k - sure.sum(axis=1)
    # binomials of one share in place of C(R, x): as in `_hypergeometric`
    x = np.arange(k + 1)
    weight = binom.pmf(x, group[:, :, None], (m / n)[:, None, None])  # (Q, C, k + 1)
    normal = binom.pmf(m, n, m / n)
    total = np.zeros(q)
    for votes in range(1, k + 1):  # final votes of the query's class
        # ways[:, d, t]: weight of d voters drawn so far and t classes with that many votes, the query's own among them
        ways = np.zeros((q, k + 1, 1))
        ways[:, 0] = 1
        for c in range(len(classes)):
            wider = np.zeros((q, k + 1, c + 2))
            for drawn in range(k + 1):
                mine = sure[:, c] + drawn
                w = np.where(mine <= votes if c else mine == votes, weight[:, c, drawn], 0)
                moved, level = ways[:, : k + 1 - drawn] * w[:, None, None], (mine == votes)[:, None, None]
                wider[:, drawn:, :-1] += np.where(level, 0, moved)
                wider[:, drawn:, 1:] += np.where(level, moved, 0)
            ways = wider
        total += ways[np.arange(q), m, 1:] @ (1 / np.arange(1, len(classes) + 1))
    return np.clip(np.where(own.any(axis=1), total / normal, 0), 0, 1)


def distinct_codes(codes) -> int:
    """Number of different codes among the queries: packed uint8 (Q, B), or float codes (Q, K), or `hashing.Codes`."""
    codes = np.asarray(getattr(codes, "packed", codes))
    if codes.ndim != 2:
        raise ValueError(f"codes: must have shape (queries, bytes or values), got {codes.shape}")
    return len(np.unique(codes, axis=0))


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
    for column in queries.finer:
        codes = pd.factorize(pd.concat([queries.table[column], database.table[column]], ignore_index=True))[0]
        a, b = codes[: len(queries)], codes[len(queries) :]
        same &= (a[:, None] == b) & (a[:, None] >= 0)
    return gains + same if queries.finer else gains


def mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


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
    - ``no_relevant``, ``no_mask``: number of queries that have no relevant case (undefined map, recall, ndcg) or no known mask.

    ``per_query`` has columns case_id, metric, k, value, NaN where undefined; no rows for metrics of the whole set.
    Raises ``ValueError`` when shapes or classes do not fit together, or on NaN distances.
    """
    ks = tuple(dict.fromkeys(whole("k", k) for k in ks))
    if not ks:
        raise ValueError("ks: needs at least one k")
    ranking = rank(distances, max(*ks, VOTERS))
    if (shape := ranking.order.shape) != (len(queries), len(database)):
        raise ValueError(f"distances: shape {shape}, but {len(queries)} queries and {len(database)} database cases")
    if len(queries) == 0:
        raise ValueError("evaluate: no queries; at least one is needed")
    if query_codes is not None and len(getattr(query_codes, "packed", query_codes)) != len(queries):
        raise ValueError(f"query_codes: one code per query is needed ({len(queries)} queries)")
    overlaps = mask_overlaps(queries, database) if overlaps is None else overlaps
    hits, gains = _hits(ranking, same_class(queries, database)), _gain_sums(ranking, graded_gains(queries, database))
    overlap_sums = _overlap_sums(ranking, overlaps)

    rows, per_query = [], []

    def add(metric: str, k: int, values: np.ndarray) -> None:
        rows.append((metric, k, mean(values)))
        per_query.append(pd.DataFrame({"case_id": queries.ids, "metric": metric, "k": k, "value": values}))

    for k in ks:
        ap = average_precision(ranking, hits, k)
        add("map", k, ap)
        by_class = np.array([mean(ap[queries.labels == c]) for c in np.unique(queries.labels)])
        rows.append(("map_macro", k, mean(by_class)))
        for name, metric in (("map_hits", average_precision_hits), ("precision", precision), ("recall", recall)):
            add(name, k, metric(ranking, hits, k))
        add("ndcg", k, ndcg(ranking, gains, k))
        add("mask_agreement", k, mask_agreement(ranking, overlap_sums, k))
        add("tied_at_k", k, tied_at_k(ranking, k))
    add("accuracy", VOTERS, vote_accuracy(ranking, queries.labels, database.labels, VOTERS))
    if query_codes is not None:
        rows.append(("distinct_codes", 0, float(distinct_codes(query_codes))))
    rows.append(("no_relevant", 0, float((hits.total == 0).sum())))
    rows.append(("no_mask", 0, float((~queries.has_mask).sum())))
    return pd.DataFrame(rows, columns=["metric", "k", "value"]), pd.concat(per_query, ignore_index=True)


def chance(queries: Cases, database: Cases, ks=KS, overlaps=None) -> pd.DataFrame:
    """What a random ranking scores: `evaluate` with all distances equal, exact, no drawing. Columns metric, k, value.

    ``tied_at_k`` is left out: it would describe our way of computing, not a random ranking.
    """
    zeros = np.zeros((len(queries), len(database)), np.int8)
    rows, _ = evaluate(zeros, queries, database, ks, overlaps=overlaps)
    return rows[rows["metric"] != "tied_at_k"].reset_index(drop=True)
