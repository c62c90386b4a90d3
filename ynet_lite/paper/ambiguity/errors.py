"""Errors of a ranking by their cause, where the hidden variables of every case are known: on the phantom."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ... import metrics


def _equal(shape: tuple[int, int], queries, database, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Where query and case have the same value of ``column``, and where both have one: bool (Q, N) each."""
    sides = []
    for name, table, n in zip(("queries", "database"), (queries, database), shape, strict=True):
        if column not in table:
            raise ValueError(f"{name}: column {column!r} is missing; found {list(table)}")
        if len(table[column]) != n:
            raise ValueError(f"{name}: {len(table[column])} values of {column!r}, but distances have shape {shape}")
        sides.append(pd.Series(np.asarray(table[column]), dtype=object))
    codes = pd.factorize(pd.concat(sides, ignore_index=True))[0]  # missing = -1
    if column == "disease" and (codes < 0).any():
        raise ValueError(f"disease: {(codes < 0).sum()} missing value(s); errors are counted by disease, so every case needs one")
    a, b = codes[: shape[0], None], codes[shape[0] :]
    known = (a >= 0) & (b >= 0)
    return known & (a == b), known


def _shape(distances) -> tuple[int, int]:
    return distances.order.shape if isinstance(distances, metrics.Ranking) else np.shape(distances)


def _wrong_but_equal(distances, queries, database, column: str, k: int) -> np.ndarray:
    """Expected share of the first k answers of another disease and the query's ``column``; NaN where there is no such case."""
    same, alike = (_equal(_shape(distances), queries, database, name)[0] for name in ("disease", column))
    event = alike & ~same
    return np.where(event.any(axis=1), metrics.precision(distances, event, k), np.nan)


def spdd_error(distances, queries, database, k: int = 10) -> np.ndarray:
    """Same manifestation, different disease: share of the first k answers that show the query's manifestation in another disease.

    ``distances`` (Q, N), smaller = nearer, or a `metrics.Ranking`; ``queries`` and ``database``: tables (DataFrame or dict of
    arrays) with columns ``disease`` and ``manifestation``; a missing manifestation equals nothing. Returns float64 (Q,) in [0,
    1], expected over ties; NaN where the database holds no such case, so that the mean runs over the queries that can go wrong.
    Raises ``ValueError`` for a missing column, a missing disease, or tables that do not fit.
    """
    return _wrong_but_equal(distances, queries, database, "manifestation", k)


def background_error(distances, queries, database, k: int = 10) -> np.ndarray:
    """Share of the first k answers that are wrong (another disease) *and* have the query's type of background.

    Columns ``disease`` and ``background``; otherwise as `spdd_error`.
    """
    return _wrong_but_equal(distances, queries, database, "background", k)


def dpsd_recall(distances, queries, database, k: int = 10) -> np.ndarray:
    """Different manifestation, same disease: share of the relevant answers that come from another stage.

    Among the answers of the query's disease in the first k, those whose stage differs. Columns ``disease`` and ``stage``; a
    case of unknown stage counts as no relevant answer. Under ties the number of relevant answers is random, and the expectation
    runs over the orders with at least one (as in `metrics.mask_agreement`). Its chance level is the share of other stages among
    all relevant cases of the database: what all distances equal give.

    Returns float64 (Q,) in [0, 1]; NaN without a relevant answer in the list, and where the database holds no relevant case of
    another stage.
    """
    same, _ = _equal(_shape(distances), queries, database, "disease")
    alike, known = _equal(_shape(distances), queries, database, "stage")
    relevant, other = same & known, same & known & ~alike
    found = metrics.mask_agreement(distances, np.where(relevant, other.astype(float), np.nan), k)
    return np.where(other.any(axis=1), found, np.nan)


def phantom_errors(distances, queries, database, k: int = 10) -> dict[str, np.ndarray]:
    """`spdd_error`, `dpsd_recall` and `background_error` of one distance matrix (Q, N): {name: (Q,)}."""
    ranking = metrics.rank(distances, k)
    return {one.__name__: one(ranking, queries, database, k) for one in (spdd_error, dpsd_recall, background_error)}
