"""Figures of the ablations, drawn from the tables of `ynet_lite.ablations`.

Meaning is carried by marker and line style, not by colour alone; the dotted line is what random codes score.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from ...drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from ...methods import METHOD_NAMES

#: (colour, marker, line style) of each classification loss.
LOSS_STYLES = {
    "pairwise": (BLUE, "o", "-"),
    "circle": (RED, "s", "--"),
    "ce": (GREEN, "^", "-."),
    "centres": (ORANGE, "D", ":"),
}

LOSS_NAMES = {"pairwise": "pairwise (ours)", "circle": "Circle (the paper's)", "ce": "cross-entropy", "centres": "class centres"}

#: Lines of methods: Y-Net and its twin keep theirs in every figure, the others take the rest in turn.
METHOD_STYLES = {"ynet": (BLUE, "o", "-"), "ynet-no-seg": (RED, "s", "--")}

OTHER_STYLES = (
    (ORANGE, "^", "-."),
    (GREEN, "D", ":"),
    (PURPLE, "v", "-"),
    ("black", "P", "--"),
    (SKY, "X", "-."),
    (GREY, "*", ":"),
)

#: Where the trained balance stands on the axis of a: beside the fixed ones, since it has a start and no value of its own.
TRAINED_AT = 1.2


def _chance(axis: Axes, level: float | None, at: float = 0.99, align: str = "right") -> None:
    """A dotted line with its name above it; nothing for None or NaN."""
    if level is None or np.isnan(level):
        return
    axis.axhline(level, color="black", ls=":", lw=1)
    axis.annotate(
        "chance",
        (at, level),
        xycoords=axis.get_yaxis_transform(),
        xytext=(0, 2),
        textcoords="offset points",
        fontsize=8,
        ha=align,
        va="bottom",
    )


def _spread(table: pd.DataFrame, column: str) -> np.ndarray:
    """Standard deviations for error bars; a single run has none."""
    return table[f"{column} sd"].fillna(0).to_numpy(float)


def _legend_above(figure: Figure, axis: Axes, columns: int, title: str = "") -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, title=title or None)


def balance_figure(table: pd.DataFrame, chance: Mapping[tuple[str, int], float] | None = None, where: str = "") -> Figure:
    """Three panels against the balance a: mAP@10, Dice of the predicted outlines, distinct codes of the queries.

    table : of `ablations.balance`. where : name of the set, a title (also in the figures below).
    One line per classification loss; the trained balance as a hollow marker at the right. Bars:
    one standard deviation. chance : {(metric, k): value}. At a = 1 nothing predicts an outline, so the line of Dice ends before.
    """
    figure, axes = plt.subplots(1, 3, figsize=(9.4, 3.5))
    shown = [loss for loss in LOSS_STYLES if loss in set(table["loss"])]
    trained = (table["a"] == "trainable").any()
    for axis, (column, title) in zip(
        axes, {"map@10": "mAP@10", "dice": "Dice of the outlines", "distinct_codes": "distinct codes"}.items(), strict=True
    ):
        for place, loss in enumerate(shown):
            colour, marker, line = LOSS_STYLES[loss]
            own = table[table["loss"] == loss]
            fixed, free = own[own["a"] != "trainable"], own[own["a"] == "trainable"]
            how = {"color": colour, "marker": marker, "elinewidth": 0.8, "markersize": 5.5}
            axis.errorbar(fixed["a"].astype(float), fixed[column], _spread(fixed, column), ls=line, label=LOSS_NAMES[loss], **how)
            at = np.full(len(free), TRAINED_AT + 0.03 * (place - (len(shown) - 1) / 2))
            axis.errorbar(at, free[column], _spread(free, column), ls="none", mfc="white", **how)
        axis.set(title=title, xlabel="a, weight of the classification loss", xlim=(-0.05, 1.32 if trained else 1.05))
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        if trained:
            axis.axvline(1.1, color="#999999", lw=0.8)
            axis.set_xticks([*axis.get_xticks(), TRAINED_AT], ["0", ".25", ".5", ".75", "1", "trained"])
    axes[0].set_ylim(0, 1)
    axes[1].set_ylim(0, 1)
    axes[2].set_ylim(-0.04 * axes[2].get_ylim()[1], None)  # a whole marker at one code
    _chance(axes[0], (chance or {}).get(("map", 10)), at=0.45, align="center")
    _legend_above(figure, axes[0], len(shown), where)
    return figure


def bits_figure(table: pd.DataFrame, chance: Mapping[tuple[str, int], float] | None = None, where: str = "") -> Figure:
    """Two panels against the length of the code: mAP@10, and distinct codes of the queries. table : of `ablations.bits`."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4))
    shown = [method for method in METHOD_STYLES if method in set(table["method"])]
    for axis, (column, title) in zip(axes, {"map@10": "mAP@10", "distinct_codes": "distinct codes"}.items(), strict=True):
        for method in shown:
            colour, marker, line = METHOD_STYLES[method]
            own = table[table["method"] == method].sort_values("bits")
            values, spread = own[column], _spread(own, column)
            axis.errorbar(
                own["bits"].astype(float),
                values,
                spread,
                color=colour,
                marker=marker,
                ls=line,
                elinewidth=0.8,
                label=METHOD_NAMES[method],
            )
        axis.set_xscale("log", base=2)
        lengths = sorted(set(table["bits"].astype(int)))
        axis.xaxis.set_major_locator(FixedLocator(lengths))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticklabels([str(n) for n in lengths])
        axis.set(title=title, xlabel="length of the code, bits")
    axes[0].set_ylim(0, 1)
    axes[1].set_ylim(0, None)
    _chance(axes[0], (chance or {}).get(("map", 10)))
    _legend_above(figure, axes[0], len(shown), where)
    return figure


def masks_figure(
    table: pd.DataFrame, twin: float = np.nan, chance: Mapping[tuple[str, int], float] | None = None, where: str = ""
) -> Figure:
    """Two panels, mAP@10 and Dice: with fewer outlines (left) and with worse ones (right).

    table : of `ablations.masks`. twin : mAP@10 without any outline, a dashed line; NaN = no line.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.7), sharey=True)
    share = table[table["quality"] == "exact"].sort_values("share")
    quality = table[table["share"] == 1]
    places = np.arange(len(quality))
    sides = ((axes[0], share, 100 * share["share"].to_numpy(float), True), (axes[1], quality, places, False))
    for axis, part, x, joined in sides:
        for column, colour, marker, line, name, shift in (
            ("map@10", BLUE, "o", "-", "mAP@10", -0.08),
            ("dice", ORANGE, "s", ":", "Dice of the predicted outline", 0.08),
        ):
            shifted = x if joined else x + shift
            style = line if joined else "none"
            spread = _spread(part, column)
            axis.errorbar(shifted, part[column], spread, color=colour, marker=marker, ls=style, elinewidth=0.8, label=name)
        if not np.isnan(twin):
            axis.axhline(twin, color=RED, ls="--", lw=1.2, label="mAP@10 of the twin: no outlines")
        _chance(axis, (chance or {}).get(("map", 10)))
    axes[0].set(title="how many", xlabel="patients with an outline, %", ylim=(0, 1))
    axes[0].set_xticks(100 * share["share"].to_numpy(float), [f"{100 * s:.0f}" for s in share["share"]])
    axes[1].set(title="how good", xlabel="outlines seen in training", xlim=(-0.5, len(quality) - 0.5))
    axes[1].set_xticks(places, quality["quality"])
    _legend_above(figure, axes[0], 3, where)
    return figure


def losses_figure(table: pd.DataFrame, metric: str = "mAP@10", where: str = "") -> Figure:
    """Y-Net minus each ablation, in points: a dot and its 95 % interval. Right of zero the part that was taken away helps.

    table : of `ablations.losses`, rows with a value.
    """
    figure, axis = plt.subplots(figsize=(8.6, 0.48 * len(table) + 1.1))
    for height, row in enumerate(table.iloc[::-1].itertuples(index=False)):
        clear = not np.isnan(row.low) and (row.low > 0 or row.high < 0)
        axis.plot([row.low, row.high], [height] * 2, color=BLUE if clear else GREY, lw=2)
        axis.plot(row.points, height, "o", ms=7, color=BLUE if clear else GREY, mfc=BLUE if clear else "white")
    axis.axvline(0, color="black", lw=0.9)
    axis.set_yticks(range(len(table)), [textwrap.fill(text, 42) for text in table["without"].iloc[::-1]])
    axis.set_ylim(-0.6, len(table) - 0.4)
    axis.set(title=where, ylabel="without")
    axis.set_xlabel(f"Y-Net minus the ablation, points of {metric}; hollow: the interval holds zero")
    axis.grid(axis="y", visible=False)
    return figure


def _styles(methods: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    others = [method for method in methods if method not in METHOD_STYLES]
    if len(others) > len(OTHER_STYLES):
        raise ValueError(f"{len(others)} methods beside Y-Net and its twin; a figure holds {len(OTHER_STYLES)}")
    return METHOD_STYLES | dict(zip(others, OTHER_STYLES, strict=False))


def _named(axis: Axes) -> None:
    """Legend at the right of the axis, in the order in which lines were drawn: best first."""
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def lists_figure(table: pd.DataFrame, chance: Mapping[tuple[str, int], float] | None = None, where: str = "") -> Figure:
    """mAP@k against k, one line per method. table : of `ablations.by_list` (columns method, k, map), best method first.

    The axis spans what the methods score, since lines that lie together could not be told apart from 0 to 1; chance is said.
    """
    figure, axis = plt.subplots(figsize=(8.6, 3.8))
    methods = list(dict.fromkeys(table["method"]))
    styles = _styles(methods)
    for place, method in enumerate(methods):
        colour, marker, line = styles[method]
        own = table[table["method"] == method].sort_values("k")
        bold = 2.4 if method == "ynet" else 1.4
        beside = own["k"] * 1.02 ** (place - (len(methods) - 1) / 2)  # a marker on top of another would hide it
        axis.plot(beside, own["map"], color=colour, marker=marker, ls=line, lw=bold, label=METHOD_NAMES[method])
    ks = sorted(set(table["k"].astype(int)))
    level = np.array([(chance or {}).get(("map", k), np.nan) for k in ks])
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(ks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels([str(k) for k in ks])
    low, high = np.floor(20 * table["map"].min() - 0.3) / 20, np.ceil(20 * table["map"].max() + 0.3) / 20
    said = ""
    if not np.isnan(level).all():
        ends = sorted({f"{value:.2f}".removeprefix("0") for value in (np.nanmin(level), np.nanmax(level))})
        said = f" (chance: {' to '.join(ends)})"
    axis.set(title=where, xlabel=f"length of the list, k{said}", ylabel="mAP@k", ylim=(max(low, 0), min(high, 1)))
    _named(axis)
    return figure


def pr_figure(table: pd.DataFrame, chance: float = np.nan, where: str = "") -> Figure:
    """Precision against recall, one line per method. table : of `ablations.pr_curves`. chance : level of a random ranking."""
    figure, axis = plt.subplots(figsize=(8.6, 3.8))
    methods = list(dict.fromkeys(table["method"]))
    styles = _styles(methods)
    for place, method in enumerate(methods):
        colour, marker, line = styles[method]
        own = table[table["method"] == method]
        bold = 2.4 if method == "ynet" else 1.4
        # markers start at different points, so that lines on top of each other can be told apart
        every = (3 * place % 20, 20)
        axis.plot(
            own["recall"],
            own["precision"],
            color=colour,
            marker=marker,
            markevery=every,
            ls=line,
            lw=bold,
            label=METHOD_NAMES[method],
        )
    if not np.isnan(chance):
        axis.axhline(chance, color="black", ls=":", lw=1, label="chance")
    axis.set(title=where, xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    _named(axis)
    return figure


def pull_figure(table: pd.DataFrame) -> Figure:
    """Two panels against the balance a: the classification's share of the pull at C5, and mAP@10 of validation patients.

    table : of `ablations.scan_table`, one line per classification loss.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4))
    shown = [loss for loss in LOSS_STYLES if loss in set(table["loss"])]
    for axis, (column, title) in zip(
        axes, {"share": "classification's share of the pull at C5", "mAP@10": "mAP@10, validation patients"}.items(), strict=True
    ):
        for loss in shown:
            colour, marker, line = LOSS_STYLES[loss]
            own = table[table["loss"] == loss].sort_values("a")
            axis.plot(own["a"], own[column], color=colour, marker=marker, ls=line, label=LOSS_NAMES[loss])
        axis.set(title=title, xlabel="a, weight of the classification loss", ylim=(0, 1.02), xlim=(0, 1))
    axes[0].axhline(0.5, color="#999999", lw=0.8)
    _legend_above(figure, axes[0], len(shown))
    return figure


def drift_figure(history: pd.DataFrame) -> Figure:
    """A trained balance over the epochs (left) and the two losses it weighs, unweighted (right).

    history : of a `Checkpoint` with ``balance_trainable``: columns epoch, balance, classification, seg_ce, seg_dice.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.0))
    left.plot(history["epoch"], history["balance"], "o-", color=BLUE)
    left.axhline(0.5, color="#999999", lw=0.8)
    low, high = min(0.0, history["balance"].min()), max(1.0, history["balance"].max())
    left.set(title="the trained balance a", xlabel="epoch", ylim=(low - 0.03, high + 0.03))
    segmentation = history[[name for name in ("seg_ce", "seg_dice") if name in history]].sum(axis=1)
    right.plot(history["epoch"], history["classification"], "s--", color=RED, label="classification")
    right.plot(history["epoch"], segmentation, "^-", color=GREEN, label="segmentation")
    right.set(title="losses, unweighted", xlabel="epoch", ylim=(0, None))
    right.legend()
    return figure
