"""Pictures of the study: before and after, and attention maps beside images."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ... import paths
from ...cases.core import Cases
from ...config import Config
from ...drawing import BLUE, GREY, RED, draw_case, frame
from ...methods import OURS, TWIN
from ...sets import load_cases
from .. import store
from ..select import EDITION, published, select

SHORT = {OURS: "Y-Net", TWIN: "twin"}
SHOWN = 5  # answers that were kept

#: Panels of numbers in `before_after`: metric, its heading, whether less is better (None: neither).
PANELS = (
    ("spdd_error", "same look,\nother disease", True),
    ("background_error", "same tissue,\nother disease", True),
    ("dpsd_recall", "other stage among\nright answers", False),
    ("flips_background", "bits that flip with\nthe background", True),
    ("flips_lesion", "bits that flip with\nthe lesion", None),
    ("energy_ratio", "attention energy\nin the lesion", False),
)


def before_after() -> Figure:
    """Twin and Y-Net on two queries of the phantom, chosen by rule, and below them what all queries of all seeds say.

    From committed rows of the quick preset, what was kept of the phantom of seed 0, and that phantom drawn anew. Kept for each
    method: ``ids`` (Q,), ``answers`` (Q, 5), the nearest cases, and ``maps`` uint8 (Q, 16, 16), Grad-CAM for the query's own
    class, 255 = its maximum. Queries: at the 90 % and the 10 % rank of the gain in average precision (equal ones by case_id), so
    one that gains and one that loses; by rule, so that nobody picked the prettiest.
    """
    rows = select(published("ambiguity"), "phantom", "quick")
    kept, values = {}, {}
    for method in SHORT:
        run = rows[(rows["method"] == method) & (rows["seed"] == 0)]["run_id"].iloc[0]
        with np.load(paths.results() / EDITION / "ambiguity" / "pictures" / f"{run}.npz") as stored:
            kept[method] = dict(stored)
        values[method] = store.per_query([run], "map", 10).set_index("case_id")["value"]
    gain = (values[OURS] - values[TWIN]).dropna().sort_index().sort_values(kind="stable")
    picked = [gain.index[round(share * (len(gain) - 1))] for share in (0.9, 0.1)]
    cfg = Config.from_preset(size=96)
    database, queries = load_cases(cfg).split(cfg.fold)

    figure = plt.figure(figsize=(8.2, 8.6))
    top, bottom = figure.subfigures(2, 1, height_ratios=[6.1, 2.4])
    blocks = top.subfigures(2, 1)
    names = ("query that gains (90 % rank of the gain in mAP@10)", "query that loses (10 % rank)")
    for block, case, name in zip(blocks, picked, names, strict=True):
        _one_query(block, queries, database, case, kept, name)
    _slopes(bottom, rows)
    return figure


def _one_query(figure, queries: Cases, database: Cases, case: str, kept: Mapping, name: str) -> None:
    """Query, attention and nearest cases: a line for the twin, a line for Y-Net."""
    row = int(np.flatnonzero(queries.ids == case)[0])
    place = {answer: i for i, answer in enumerate(database.ids)}
    own = queries.table.loc[row]
    figure.suptitle(f"{name}: {own['disease']}, {own['manifestation']}, stage {own['stage']}", fontsize=9, x=0.01, ha="left")
    axes = figure.subplots(2, 2 + SHOWN)
    for line, method in zip(axes, (TWIN, OURS), strict=True):
        at = int(np.flatnonzero(kept[method]["ids"] == case)[0])
        draw_case(line[0], queries, row, title="query")
        line[0].set_ylabel(SHORT[method], fontsize=9)
        overlay(line[1], queries, row, kept[method]["maps"][at] / 255)
        line[1].set_title("Grad-CAM", fontsize=8)
        for axis, answer in zip(line[2:], kept[method]["answers"][at], strict=True):
            other = database.table.loc[place[answer]]
            same = other["disease"] == own["disease"]
            look = "same look" if other["manifestation"] == own["manifestation"] else "other look"
            draw_case(axis, database, place[answer], title=f"{other['disease']}\n{look}")
            frame(axis, BLUE if same else RED, dashed=not same, width=2)


def overlay(axis: Axes, cases: Cases, row: int, heat: np.ndarray, *, title: str = "") -> None:
    """An image with a map (h, w) in [0, 1] over it and the outline of the lesion; cropped to its content as by `draw_case`."""
    draw_case(axis, cases, row, title=title, colour="white")
    limits = axis.get_xlim(), axis.get_ylim()
    rows, columns = cases.box(row)
    # the map covers the whole square, the axis shows the content: place it by its corners
    height, width = cases.images.shape[2:]
    left, top = -0.5 - columns.start, -0.5 - rows.start
    alpha = 0.15 + 0.55 * np.clip(heat, 0, 1)
    extent = (left, left + width, top + height, top)
    axis.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=alpha, interpolation="bilinear", extent=extent)
    axis.set(xlim=limits[0], ylim=limits[1])


def _slopes(figure, rows: pd.DataFrame) -> None:
    """One panel per number: a thin line per training, a thick one for the mean, chance dotted."""
    axes = figure.subplots(1, len(PANELS))
    figure.suptitle(
        "all queries: a thin line per phantom (seed), the thick one is their mean; dotted: chance", fontsize=9, x=0.01, ha="left"
    )
    levels = store.small("ambiguity/levels")
    chance = levels[(levels["name"] == "chance") & levels["fingerprint"].isin(set(rows["fingerprint"]))]
    chance = chance.groupby("metric")["value"].mean().to_dict()
    chance |= {"flips_background": 1.0, "flips_lesion": 1.0, "energy_ratio": 1.0}
    for axis, (metric, heading, falls) in zip(axes, PANELS, strict=True):
        wide = rows[rows["metric"] == metric].pivot_table(index=["fold", "seed"], columns="method", values="value")
        pairs = wide[[TWIN, OURS]].dropna().to_numpy()
        for pair in pairs:
            axis.plot((0, 1), pair, color=GREY, lw=0.8, alpha=0.7, marker="o", ms=2.5)
        axis.plot((0, 1), pairs.mean(axis=0), color=BLUE, lw=2.6, marker="o", ms=5)
        if metric in chance:
            axis.axhline(chance[metric], color="black", ls=":", lw=1)
        better = {True: "less is better", False: "more is better", None: "should not fall"}[falls]
        axis.set_title(heading, fontsize=8)
        axis.set_xlabel(better, fontsize=7.5, style="italic")
        axis.set_xticks((0, 1), ("twin", "Y-Net"), fontsize=8)
        axis.tick_params(axis="y", labelsize=7.5)
        axis.set(xlim=(-0.25, 1.25), ylim=_limits([*pairs.ravel(), *([chance[metric]] if metric in chance else [])]))


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """From zero, except where all values lie together far above it: there a change would be flattened away."""
    if not values or max(values) <= 0:
        return 0, 1
    low, high = min(values), max(values)
    return (low - (high - low), high + (high - low)) if low > 0.8 * high and high > low else (0, 1.1 * high)


def attention_panels(cases: Cases, rows: Sequence[int], maps: Mapping[str, np.ndarray], scores: Mapping) -> Figure:
    """A line per case: the image with its outline, then each map over it.

    maps : {heading: float (N, H, W) in [0, 1]}, N = the cases. scores : {heading: (N,)}, written above the map.
    """
    figure, axes = plt.subplots(
        len(rows), 1 + len(maps), figsize=(1.3 * (1 + len(maps)) + 1.2, 1.4 * len(rows) + 0.3), squeeze=False
    )
    for number, (line, row) in enumerate(zip(axes, rows, strict=True)):
        head = "image and outline\n" if number == 0 else ""
        draw_case(line[0], cases, row, title=f"{head}{cases.class_names[cases.labels[row]]}")
        for axis, (name, heat) in zip(line[1:], maps.items(), strict=True):
            head = f"{name}\n" if number == 0 else ""
            overlay(axis, cases, row, heat[row], title=f"{head}{scores[name][row]:.1f}")
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "inferno"), ax=axes, ticks=[0, 1], shrink=0.5, aspect=30)
    bar.ax.set_yticklabels(["says nothing", "speaks for it"])
    return figure
