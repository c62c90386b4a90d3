"""Errors of a ranking by their cause."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ... import metrics

#: Names of `thirds`, from low to high ambiguity.
THIRDS = ("clear", "middle", "ambiguous")


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
        rows.append((name, k, metrics.mean(value), metrics.mean(chance), int((~np.isnan(value)).sum())))
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
        rows.append((f"{name}_{third}", k, metrics.mean(part), int((~np.isnan(part)).sum())))
    return pd.DataFrame(rows, columns=["metric", "k", "value", "queries"])
