"""Errors of a ranking by their cause, where the hidden variables of every case are known: on the phantom.

``distances`` (Q, N), smaller = nearer, or a `metrics.Ranking`; ``queries`` and ``database``: tables (DataFrame or dict of
arrays). Every function returns float64 (Q,) in [0, 1], expected over ties, and raises ``ValueError`` for a missing column, a
missing disease, or tables that do not fit.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ... import metrics


def _equal(distances, queries, database, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Where query and case have the same value of ``column``, and where both have one: bool (Q, N) each."""
    shape = distances.order.shape if isinstance(distances, metrics.Ranking) else np.shape(distances)
    for name, table, n in zip(("queries", "database"), (queries, database), shape, strict=True):
        if column not in table:
            raise ValueError(f"{name}: column {column!r} is missing; found {list(table)}")
        if len(table[column]) != n:
            raise ValueError(f"{name}: {len(table[column])} values of {column!r}, but distances have shape {shape}")
    codes = pd.factorize(pd.Series([*queries[column], *database[column]], dtype=object))[0]  # missing = -1
    if column == "disease" and (codes < 0).any():
        raise ValueError(f"disease: {(codes < 0).sum()} missing value(s); errors are counted by disease, so every case needs one")
    a, b = codes[: shape[0], None], codes[shape[0] :]
    known = (a >= 0) & (b >= 0)
    return known & (a == b), known


def _wrong_but_equal(distances, queries, database, column: str, k: int) -> np.ndarray:
    """Share of the first k answers of another disease and the query's ``column``; NaN where the database holds no such case."""
    same, alike = (_equal(distances, queries, database, name)[0] for name in ("disease", column))
    event = alike & ~same
    return np.where(event.any(axis=1), metrics.precision(distances, event, k), np.nan)


def spdd_error(distances, queries, database, k: int = 10) -> np.ndarray:
    """Same manifestation, different disease: share of the first k answers that show the query's manifestation in another disease.

    Columns ``disease`` and ``manifestation``; a missing manifestation equals nothing. NaN where the database holds no such case,
    so that the mean runs over the queries that can go wrong.
    """
    return _wrong_but_equal(distances, queries, database, "manifestation", k)


def background_error(distances, queries, database, k: int = 10) -> np.ndarray:
    """As `spdd_error`: share of the first k answers of another disease with the query's type of ``background``."""
    return _wrong_but_equal(distances, queries, database, "background", k)


def dpsd_recall(distances, queries, database, k: int = 10) -> np.ndarray:
    """Different manifestation, same disease: share of the relevant answers that come from another stage.

    Among the answers of the query's disease in the first k, those whose stage differs. Columns ``disease`` and ``stage``; a case
    of unknown stage counts as no relevant answer. Under ties the expectation runs over the orders with at least one relevant
    answer (as in `metrics.mask_agreement`). Chance level, all distances equal: the share of other stages among all relevant
    cases. NaN without a relevant answer in the list, and where the database holds no relevant case of another stage.
    """
    same, _ = _equal(distances, queries, database, "disease")
    alike, known = _equal(distances, queries, database, "stage")
    relevant, other = same & known, same & known & ~alike
    found = metrics.mask_agreement(distances, np.where(relevant, other.astype(float), np.nan), k)
    return np.where(other.any(axis=1), found, np.nan)


def phantom_errors(distances, queries, database, k: int = 10) -> dict[str, np.ndarray]:
    """`spdd_error`, `dpsd_recall` and `background_error` of one distance matrix (Q, N): {name: (Q,)}."""
    ranking = metrics.rank(distances, k)
    return {one.__name__: one(ranking, queries, database, k) for one in (spdd_error, dpsd_recall, background_error)}
