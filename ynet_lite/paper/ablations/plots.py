"""Figures of the ablations, drawn from the tables of `ablated`.

Meaning is carried by marker and line style, not by colour alone; the dotted line is what random codes score. ``where``: name of
the set, a title. Error bars: one standard deviation.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ... import drawing, sets
from ...drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from ...methods import METHOD_NAMES, OURS, TWIN
from .. import store
from ..select import chance_rows, headline, select
from . import ablated
from .ablated import ABLATED, LOSS_NAMES, SETTINGS
from .pages import HEADINGS

#: (colour, marker, line style) of each classification loss.
LOSS_STYLES = {
    "pairwise": (BLUE, "o", "-"),
    "circle": (RED, "s", "--"),
    "ce": (GREEN, "^", "-."),
    "centres": (ORANGE, "D", ":"),
}

#: Lines of methods: Y-Net and its twin keep theirs in every figure, the others take the rest in turn.
METHOD_STYLES = {OURS: (BLUE, "o", "-"), TWIN: (RED, "s", "--")}

OTHER_COLOURS, OTHER_LINES = (ORANGE, GREEN, PURPLE, "black", SKY, GREY), ("-.", ":", "-", "--", "-.", ":")

#: {(metric, k): value} of random codes.
Levels = Mapping[tuple[str, int], float]

#: Where the trained balance stands on the axis of a: beside the fixed ones, since it has a start and no value of its own.
TRAINED_AT = 1.2


def chance_level(dataset: str, preset: str) -> dict[tuple[str, int], float]:
    """{(metric, k): value} of random codes on this set; empty where nothing is committed."""
    found = chance_rows(dataset, preset)
    return {} if found is None else found.set_index(["metric", "k"])["value"].to_dict()


def where(what: str, runs: pd.DataFrame, dataset: str, group: str) -> str:
    """The set that an ablation stands on, as a title: ``BUS-BRA, folds 2 to 5``; ``phantom, seeds 0 and 1``."""
    planned = what in SETTINGS
    rows = ablated.planned_rows(what, runs, dataset, group) if planned else headline(select(runs, dataset, group))
    name = "seed" if dataset in sets.drawn_per_seed() else "fold"
    numbers = sorted(set(rows[name]))
    text = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 2 else " and ".join(str(n) for n in numbers)
    return f"{sets.title(dataset)}, {name}{'s' if len(numbers) > 1 else ''} {text}"


def _line(axis: Axes, x, table: pd.DataFrame, column: str, style: tuple, label: str | None = None, **how) -> None:
    """One line (colour, marker, line style) of a table's column, with the spread in ``<column> sd`` as bars."""
    colour, marker, line = style
    how |= {"color": colour, "marker": marker, "ls": line, "elinewidth": 0.8}
    axis.errorbar(x, table[column], table[f"{column} sd"].fillna(0), label=label, **how)


def _chance(axis: Axes, chance: Levels, at: float = 0.99, align: str = "right") -> None:
    """mAP@10 of random codes, a dotted line with its name above it."""
    level = chance["map", 10]
    axis.axhline(level, color="black", ls=":", lw=1)
    how = {"xytext": (0, 2), "textcoords": "offset points", "fontsize": 8, "ha": align, "va": "bottom"}
    axis.annotate("chance", (at, level), xycoords=axis.get_yaxis_transform(), **how)


def _legend_above(figure: Figure, columns: int, title: str = "") -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, title=title or None)


def balance_figure(table: pd.DataFrame, chance: Levels, where: str = "") -> Figure:
    """Three panels against the balance a: mAP@10, Dice of the predicted outlines, distinct codes.

    table : "balance" of `ablated.table`. One line per classification loss; the trained balance as a hollow marker at the right.
    At a = 1 nothing predicts an outline, so the line of Dice ends before.
    """
    figure, axes = plt.subplots(1, 3, figsize=(9.4, 3.5))
    trained = table["a"] == "trainable"
    titles = {"map@10": "mAP@10", "dice": "Dice of the outlines", "distinct_codes": "distinct codes"}
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for place, loss in enumerate(LOSS_STYLES):
            fixed, free = (table[(table["loss"] == loss) & which] for which in (~trained, trained))
            style = LOSS_STYLES[loss]
            _line(axis, fixed["a"].astype(float), fixed, column, style, LOSS_NAMES[loss], markersize=5.5)
            at = np.full(len(free), TRAINED_AT + 0.03 * (place - (len(LOSS_STYLES) - 1) / 2))
            _line(axis, at, free, column, (*style[:2], "none"), mfc="white", markersize=5.5)
        axis.set(title=title, xlabel="a, weight of the classification loss", xlim=(-0.05, 1.32))
        ticks = {0: "0", 0.25: ".25", 0.5: ".5", 0.75: ".75", 1: "1", TRAINED_AT: "trained"}
        axis.set_xticks(list(ticks), list(ticks.values()))
        axis.axvline(1.1, color="#999999", lw=0.8)
    for axis in axes[:2]:
        axis.set_ylim(0, 1)
    axes[2].set_ylim(-0.04 * axes[2].get_ylim()[1], None)  # a whole marker at one code
    _chance(axes[0], chance, at=0.45, align="center")
    _legend_above(figure, len(LOSS_STYLES), where)
    return figure


def bits_figure(table: pd.DataFrame, chance: Levels, where: str) -> Figure:
    """Two panels against the length of the code: mAP@10, and distinct codes of the queries. table : "bits" of `ablated.table`."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4))
    for axis, column, title in zip(axes, ("map@10", "distinct_codes"), ("mAP@10", "distinct codes"), strict=True):
        for method in METHOD_STYLES:
            own = table[table["method"] == method].sort_values("bits")
            _line(axis, own["bits"].astype(float), own, column, METHOD_STYLES[method], METHOD_NAMES[method])
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks := sorted(set(table["bits"])), [str(n) for n in ticks])
        axis.minorticks_off()
        axis.set(title=title, xlabel="length of the code, bits")
    axes[0].set_ylim(0, 1)
    axes[1].set_ylim(0, None)
    _chance(axes[0], chance)
    _legend_above(figure, len(METHOD_STYLES), where)
    return figure


def masks_figure(table: pd.DataFrame, twin: float, chance: Levels, where: str) -> Figure:
    """Two panels, mAP@10 and Dice: with fewer outlines (left) and with worse ones (right).

    table : "masks" of `ablated.table`. twin : mAP@10 without any outline, a dashed line.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.7), sharey=True)
    share, quality = table[table["quality"] == "exact"].sort_values("share"), table[table["share"] == 1]
    percent, places = 100 * share["share"].to_numpy(float), np.arange(len(quality))
    for axis, part, x, beside, line in ((axes[0], share, percent, 0, None), (axes[1], quality, places, 0.08, "none")):
        _line(axis, x - beside, part, "map@10", (BLUE, "o", line or "-"), "mAP@10")
        _line(axis, x + beside, part, "dice", (ORANGE, "s", line or ":"), "Dice of the predicted outline")
        axis.axhline(twin, color=RED, ls="--", lw=1.2, label="mAP@10 of the twin: no outlines")
        _chance(axis, chance)
    axes[0].set(title="how many", xlabel="patients with an outline, %", ylim=(0, 1))
    axes[0].set_xticks(percent, [f"{value:.0f}" for value in percent])
    axes[1].set(title="how good", xlabel="outlines seen in training", xlim=(-0.5, len(quality) - 0.5))
    axes[1].set_xticks(places, quality["quality"])
    _legend_above(figure, 3, where)
    return figure


def points_figure(table: pd.DataFrame, where: str = "", minus: str = "Y-Net minus the ablation") -> Figure:
    """Differences in points, the highest first: a dot and its 95 % interval, hollow where the interval holds zero.

    table : of `ablated.losses` (rows with a value) or of `ablated.outlines`; named by its column "without" or "what".
    """
    names = "without" if "without" in table else "what"
    table = table.sort_values("points", kind="stable")
    figure, axis = plt.subplots(figsize=(7.2, 0.34 * len(table) + 0.8))
    for height, row in enumerate(table.itertuples(index=False)):
        clear = row.low > 0 or row.high < 0
        axis.plot([row.low, row.high], [height] * 2, color=BLUE if clear else GREY, lw=2)
        axis.plot(row.points, height, "o", ms=7, color=BLUE if clear else GREY, mfc=BLUE if clear else "white")
    axis.axvline(0, color="black", lw=0.9)
    axis.set_yticks(range(len(table)), [textwrap.fill(text, 46) for text in table[names]])
    axis.set(ylim=(-0.6, len(table) - 0.4), title=where, ylabel="without" if names == "without" else "")
    axis.set_xlabel(f"{minus}, points of mAP@10; hollow: the interval holds zero")
    axis.grid(axis="y", visible=False)
    return figure


def pr_figure() -> Figure:
    """Precision against recall on BUS-BRA, one line per method, from the committed table ``pr-busbra.csv``."""
    curves = dict(tuple(store.small("pr-busbra").groupby("method", sort=False)))
    chance = curves.pop("chance")["precision"].iloc[0]
    figure, axis = plt.subplots(figsize=(8.6, 3.8))
    others = zip(OTHER_COLOURS, "^DvPX*", OTHER_LINES, strict=True)
    for place, (method, own) in enumerate(curves.items()):
        colour, marker, line = METHOD_STYLES.get(method) or next(others)
        # markers start at different places, since one on top of another would hide it
        how = {"lw": 2.4 if method == OURS else 1.4, "markevery": (3 * place % 20, 20), "label": METHOD_NAMES[method]}
        axis.plot(own["recall"], own["precision"], color=colour, marker=marker, ls=line, **how)
    axis.axhline(chance, color="black", ls=":", lw=1, label="chance")
    axis.set(title="BUS-BRA, folds 2 to 5", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def ablation_figure(what: str, runs: pd.DataFrame, dataset: str, group: str) -> Figure:
    """One figure of a set. what : "losses", "balance", "masks" or "bits"."""
    level, title = chance_level(dataset, group), where(what, runs, dataset, group)
    if what == "losses":
        return points_figure(ablated.losses(runs, dataset, group).dropna(subset="points"), title)
    table = ablated.table(what, runs, dataset, group)
    if what == "masks":
        return masks_figure(table, ablated.twin(runs, dataset, group), level, title)
    return {"balance": balance_figure, "bits": bits_figure}[what](table, level, title)


def make(folder: str | Path, runs: pd.DataFrame) -> list[Path]:
    """Write ``ablation-<what>-<dataset>.png`` of the `ABLATED` sets; returns the files. Same rows, same bytes."""
    drawing.use_style()
    made = [drawing.save(pr_figure(), Path(folder) / "ablation-pr-busbra.png")]
    for dataset, group in ABLATED:
        for what in HEADINGS:
            drawn = ablation_figure(what, runs, dataset, group)
            made.append(drawing.save(drawn, Path(folder) / f"ablation-{what}-{dataset}.png"))
    return made
