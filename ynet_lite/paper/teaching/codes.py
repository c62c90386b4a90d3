"""Codes, bits and ties, drawn."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy.stats import binom

from ...drawing import BLUE, GREY, ORANGE, RED
from .network import COLOURS, LINES, MARKERS

# --- bits ------------------------------------------------------------------------------------------------------------


def _bits(bits) -> np.ndarray:
    bits = np.asarray(bits)
    if bits.dtype != bool or bits.ndim != 2 or 0 in bits.shape:
        raise ValueError(f"bits: must be bool of shape (N, K), neither of them 0, got {bits.dtype} {bits.shape}")
    return bits


def bit_correlation(bits) -> np.ndarray:
    """Correlation of every two bits over the cases, float64 (K, K) in [-1, 1]. A constant bit has 0 with all, itself too."""
    b = _bits(bits) - _bits(bits).mean(axis=0)
    spread = np.sqrt((b * b).mean(axis=0))
    unit = np.divide(b, spread, out=np.zeros_like(b), where=spread > 0)
    return np.clip(unit.T @ unit / len(b), -1, 1)


def effective_bits(bits) -> float:
    """How many independent bits would vary as much together: (sum of eigenvalues)^2 / (sum of their squares) of the correlation.

    K for uncorrelated bits, 1 where all bits are copies (or opposites) of one, 0 where none ever changes. bits : bool (N, K).
    """
    correlation = bit_correlation(bits)
    squares = float((correlation**2).sum())
    return float(np.trace(correlation)) ** 2 / squares if squares > 0 else 0.0


def bit_panels(u: np.ndarray, bits: np.ndarray) -> Figure:
    """Entries of the real code in (-1, 1), the share of cases with +1 per bit, and the correlation of every two bits."""
    correlation = bit_correlation(bits)
    # similar bits side by side: in order of their part in the strongest common direction
    order = np.argsort(np.linalg.eigh(correlation)[1][:, -1], kind="stable")
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.0))
    axes[0].hist(u.ravel(), bins=np.linspace(-1, 1, 41), color=BLUE, weights=np.full(u.size, 100 / u.size))
    axes[0].set(xlabel="entry of the code, tanh(z)", ylabel="% of all entries", xlim=(-1.02, 1.02))
    axes[1].plot(np.sort(bits.mean(axis=0)), "o", ms=3.5, color=BLUE)
    axes[1].axhline(0.5, color="black", ls=":", lw=1)
    axes[1].annotate("balanced", (0, 0.5), xytext=(0, 3), textcoords="offset points", fontsize=8)
    axes[1].set(xlabel="bits, sorted", ylabel="share of cases with +1", ylim=(-0.02, 1.02))
    drawn = axes[2].imshow(correlation[np.ix_(order, order)], cmap="PuOr", vmin=-1, vmax=1)
    axes[2].set(xlabel="bit, similar ones together", ylabel="bit")
    axes[2].grid(False)
    figure.colorbar(drawn, ax=axes[2], label="correlation", shrink=0.85)
    return figure


def distance_histograms(distances: np.ndarray, relevance: np.ndarray, bits: int) -> Figure:
    """Hamming distances of relevant and of other pairs, and what independent fair bits would give. Both arrays (Q, N)."""
    figure, axis = plt.subplots(figsize=(7.4, 3.0))
    edges = np.arange(bits + 2) - 0.5
    parts = (("same class", relevance, BLUE, "-"), ("other class", ~relevance, RED, "--"))
    for name, chosen, colour, line in parts:
        values = distances[chosen]
        weights = np.full(len(values), 100 / max(len(values), 1))
        axis.hist(values, edges, weights=weights, histtype="stepfilled", color=colour, alpha=0.18)
        axis.hist(values, edges, weights=weights, histtype="step", color=colour, ls=line, lw=1.6, label=name)
    axis.plot(range(bits + 1), 100 * binom.pmf(range(bits + 1), bits, 0.5), ":", color="black", label="independent fair bits")
    axis.set(xlabel="Hamming distance of query and database case, bits", ylabel="% of pairs", xlim=(-1, bits + 1))
    axis.legend()
    return figure


def length_panel(curves: pd.DataFrame, points: Mapping[str, tuple[float, float]], chance: float) -> Figure:
    """Score against bytes per case. curves: columns name, bits, mean, low, high; points: {name: (bytes, score)}."""
    figure, axis = plt.subplots(figsize=(7.4, 3.6))
    for number, name in enumerate(dict.fromkeys(curves["name"])):
        one = curves[curves["name"] == name].sort_values("bits")
        size = one["bits"] / 8
        colour = COLOURS[number % 4]
        axis.fill_between(size, one["low"], one["high"], color=colour, alpha=0.18, lw=0)
        axis.plot(size, one["mean"], color=colour, ls=LINES[number % 4], marker=MARKERS[number], label=name)
    for number, (name, (size, score)) in enumerate(points.items()):
        style = {"color": COLOURS[(2 + number) % 4], "marker": MARKERS[(2 + number) % 8]}
        axis.plot(size, score, ls="", ms=8, label=name, **style)
    axis.axhline(chance, color="black", ls=":", lw=1, label="random codes")
    axis.set_xscale("log", base=2)
    sizes = sorted({b / 8 for b in curves["bits"]} | {size for size, _ in points.values()})
    axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axis.minorticks_off()
    axis.set(xlabel="bytes per case (logarithmic)", ylabel="mAP@10", ylim=(0, 1.02))
    axis.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


# --- ties ------------------------------------------------------------------------------------------------------------


def naive_average_precision(distances: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    """AP at k as it is often computed: equal distances stay in database order. float64 (Q,), NaN without relevant cases.

    AP = sum_{r <= k} rel(r) precision(r) / min(k, relevant cases), as `metrics.average_precision`, but with no care for ties:
    shown here for its fault, never to be reported.
    """
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    hits = np.take_along_axis(np.asarray(relevance, bool), order, axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    best = np.minimum(hits.shape[1], np.asarray(relevance, bool).sum(axis=1))
    return np.divide((hits * precision).sum(axis=1), best, out=np.full(len(hits), np.nan), where=best > 0)


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
    values = []
    for _ in range(shuffles):
        order = rng.permutation(distances.shape[1])
        values.append(np.nanmean(naive_average_precision(distances[:, order], relevance[:, order], k)))
    return np.array(values)


def extreme_scores(distances: np.ndarray, relevance: np.ndarray, k: int) -> tuple[float, float]:
    """Lowest and highest mean AP that ties leave open: relevant cases last, or first, in every group of equal distances."""
    last, first = (np.lexsort((key, distances), axis=1) for key in (relevance, ~relevance))
    low, high = (
        naive_average_precision(np.take_along_axis(distances, order, 1), np.take_along_axis(relevance, order, 1), k)
        for order in (last, first)
    )
    return float(np.nanmean(low)), float(np.nanmean(high))


def shuffle_panel(shuffled: Mapping[str, np.ndarray], expected: Mapping[str, float], extremes: Mapping) -> Figure:
    """One line per code: naive scores of shuffled databases (dots), expected value (bar), what ties leave open (pale line)."""
    figure, axis = plt.subplots(figsize=(7.4, 0.62 * len(shuffled) + 1.2))
    rng = np.random.default_rng(0)
    for height, name in enumerate(list(shuffled)[::-1]):
        values = shuffled[name]
        first = height == 0
        pale = {"color": GREY, "alpha": 0.35, "lw": 7, "solid_capstyle": "butt"}
        axis.plot(extremes[name], [height, height], label=_once("possible", first), **pale)
        jitter = height + rng.uniform(-0.16, 0.16, len(values))
        axis.plot(values, jitter, "o", ms=3, alpha=0.5, mew=0, color=ORANGE, label=_once("naive, database shuffled", first))
        axis.plot([expected[name]] * 2, [height - 0.3, height + 0.3], color=BLUE, lw=2.2, label=_once("expected value", first))
    axis.set_yticks(range(len(shuffled)), list(shuffled)[::-1])
    axis.set(xlabel="mAP@10", ylim=(-0.5, len(shuffled) - 0.4))
    axis.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _once(name: str, first: bool) -> str:
    return name if first else f"_{name}"
