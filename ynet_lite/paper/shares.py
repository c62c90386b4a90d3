"""When do outlines pay? Y-Net minus its twin against the share of patients with labels and outlines, from committed rows."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ..drawing import COLOURS, LINES, MARKERS
from . import select, statistics, store, tables
from .second import PARTS

METRICS = ("map", "ndcg", "mask_agreement", "accuracy")
WHERE = {
    ("phantom", "quick"): "phantom, from scratch",
    ("busbra", "scratch"): "BUS-BRA, from scratch",
    ("busbra", "pretrained"): "BUS-BRA, ImageNet weights",
}


def gains(rows: pd.DataFrame, n: int = 10_000) -> pd.DataFrame:
    """A line per set, encoder, share and metric: ``points, low, high`` (95 %), means of both, number of trainings of each.

    Intervals hold other patients and, where several trainings answer the same queries, other trainings
    (`statistics.trainings_interval`). A share counts when all its planned runs are there. Empty without rows.
    """
    lines = []
    for part in PARTS.values():
        pair = select.pair(rows, part.dataset, part.preset, part.folds, part.seeds, part.variant, part.variant)
        whole = len(part.folds) * len(part.seeds)
        if (part.dataset, part.preset) not in WHERE or {one["run_id"].nunique() for one in pair} != {whole}:
            continue
        for metric in METRICS:
            estimate = statistics.trainings_interval(*(statistics.per_run_table(one, metric) for one in pair), n=n)
            means = [one[(one["metric"] == metric) & (one["k"] == 10)]["value"].mean() for one in pair]
            about = (WHERE[part.dataset, part.preset], part.share, metric)
            lines.append((*about, *estimate, *means, whole))
    columns = ["where", "share", "metric", "points", "low", "high", "ours", "twin", "runs"]
    return pd.DataFrame(lines, columns=columns)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """`gains` as text: a line per set and share, Y-Net minus twin in points of each metric, with the mAP of both."""
    lines = []
    for (where, share), part in found.groupby(["where", "share"]):
        own = part.set_index("metric")
        line = {"where": where, "share": f"{share:.0%}", "trainings": f"{own['runs'].iloc[0]} each"}
        for name, side in (("Y-Net's mAP@10", "ours"), ("twin's", "twin")):
            line[name] = tables.number(own.loc["map", side], np.nan, 1)
        for metric in METRICS:
            line[tables.MAIN[metric, 10]] = statistics.interval_text(*own.loc[metric, ["points", "low", "high"]])
        lines.append(line)
    return pd.DataFrame(lines)


def figure(found: pd.DataFrame) -> Figure:
    """One panel per metric: points against the share, a line with 95 % intervals per set and encoder, zero in black."""
    drawn, axes = plt.subplots(1, len(METRICS), figsize=(10.2, 2.9), sharex=True)
    for axis, metric in zip(axes, METRICS, strict=True):
        for i, (where, part) in enumerate(found[found["metric"] == metric].groupby("where", sort=False)):
            part = part.sort_values("share")
            spread = [part["points"] - part["low"], part["high"] - part["points"]]
            at = part["share"] * 1.04**i  # beside each other
            axis.errorbar(at, part["points"], spread, color=COLOURS[i], ls=LINES[i], marker=MARKERS[i], capsize=3, label=where)
        axis.axhline(0, color="black", lw=0.9)
        axis.set(xscale="log", title=tables.MAIN[metric, 10], xlabel="patients with labels and outlines")
        axis.set_xticks([0.1, 0.25, 0.5, 1.0], ["10 %", "25 %", "50 %", "100 %"])
        axis.minorticks_off()
    axes[0].set_ylabel("Y-Net minus twin, points")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return drawn


def committed(n: int = 10_000) -> pd.DataFrame:
    """`gains` of the second edition's rows."""
    return gains(store.rows("second"), n)
