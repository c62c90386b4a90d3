"""Bits and ties in numbers, and codes by the million, for the notebooks on hashing and on scaling out."""

import itertools
from collections.abc import Sequence

import numpy as np

from ... import metrics
from ...hashing import Codes


def bit_correlation(bits) -> np.ndarray:
    """Correlation of every two bits over the cases, float64 (K, K) in [-1, 1]. A constant bit has 0 with all, itself too."""
    bits = np.asarray(bits)
    if bits.dtype != bool or bits.ndim != 2 or 0 in bits.shape:
        raise ValueError(f"bits: must be bool of shape (N, K), neither of them 0, got {bits.dtype} {bits.shape}")
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.atleast_2d(np.corrcoef(bits, rowvar=False)))


def effective_bits(bits) -> float:
    """How many independent bits would vary as much together: (sum of eigenvalues)^2 / (sum of their squares) of the correlation.

    K for uncorrelated bits, 1 where all bits are copies (or opposites) of one, 0 where none ever changes. bits : bool (N, K).
    """
    correlation = bit_correlation(bits)
    squares = float((correlation**2).sum())
    return float(np.trace(correlation)) ** 2 / squares if squares > 0 else 0.0


def naive_average_precision(distances: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    """AP at k as it is often computed: equal distances stay in database order. float64 (Q,), NaN without relevant cases.

    AP = sum_{r <= k} rel(r) precision(r) / min(k, relevant cases), as `metrics.average_precision`, but with no care for ties:
    shown here for its fault, never to be reported.
    """
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    hits = np.take_along_axis(np.asarray(relevance, bool), order, axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    best = np.minimum(hits.shape[1], np.asarray(relevance, bool).sum(axis=1))
    return metrics.divide((hits * precision).sum(axis=1), best)


def every_order(distances: Sequence[int], relevance: Sequence[bool], k: int) -> np.ndarray:
    """`naive_average_precision` of one query under all N! orders of its database, float64 (N!,). Raises above N = 8."""
    n = len(distances)
    if n > 8:
        raise ValueError(f"every_order: {n} cases have too many orders to try; at most 8")
    orders = np.array(list(itertools.permutations(range(n))))
    return naive_average_precision(np.asarray(distances)[orders], np.asarray(relevance, bool)[orders], k)


def shuffled_scores(distances: np.ndarray, relevance: np.ndarray, k: int, shuffles: int, seed: int = 0) -> np.ndarray:
    """Mean of `naive_average_precision` over the queries for ``shuffles`` random orders of the database, float64 (shuffles,)."""
    rng = np.random.default_rng(seed)
    orders = (rng.permutation(distances.shape[1]) for _ in range(shuffles))
    return np.array([np.nanmean(naive_average_precision(distances[:, o], relevance[:, o], k)) for o in orders])


def extreme_scores(distances: np.ndarray, relevance: np.ndarray, k: int) -> tuple[float, float]:
    """Lowest and highest mean AP that ties leave open: relevant cases last, or first, in every group of equal distances."""
    last, first = (np.lexsort((key, distances), axis=1) for key in (relevance, ~relevance))
    low, high = (
        naive_average_precision(np.take_along_axis(distances, order, 1), np.take_along_axis(relevance, order, 1), k)
        for order in (last, first)
    )
    return float(np.nanmean(low)), float(np.nanmean(high))


def clustered(n: int, bits: int = 64, seed: int = 0, words: int = 20, flips: float = 0.03) -> Codes:
    """``n`` codes that crowd as trained ones do: few words, each bit flipped with probability ``flips``; ids in order."""
    rng = np.random.default_rng(seed)
    packed = rng.integers(0, 256, (words, bits // 8), np.uint8)[rng.integers(0, words, n)]
    for bit in range(bits):
        packed[rng.random(n) < flips, bit // 8] ^= np.uint8(1 << bit % 8)
    digits = np.empty((n, 8), np.uint32)  # of the ids, as NumPy keeps text: no Python string for each of 1e8 cases
    for place in range(8):
        digits[:, 7 - place] = np.arange(n) // 10**place % 10 + ord("0")
    return Codes(packed, digits.view("U8")[:, 0], np.zeros(n, np.int64), bits)
