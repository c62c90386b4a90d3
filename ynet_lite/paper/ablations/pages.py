"""The ablations as pages of text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ... import methods, paths
from ...config import Config
from .. import statistics, store, tables
from ..grids import BALANCES, BITS, LOSSES, MASK_QUALITIES, MASK_SHARES
from .ablated import BITS_METHODS, METRICS, PARTS, balance, bits, groups, losses, masks

PUBLISHED_NOTE = (
    "Theirs, on other data: outputs stored in the released notebooks of Fang et al. (DOI 10.1109/JBHI.2021.3082531), single "
    "runs, mAP divided by k. Not comparable with our rows, which divide by min(k, relevant cases) and stand on other images. "
    "No column is a ranking: the baselines have codes of 36 dimensions, the best Y-Net rows are cross-entropy, on TN-SCUI with "
    "256 dimensions, and the Circle loss of the paper lies below DRH. Their DSH is a triplet loss, their DPSH and DRH are "
    "contrastive."
)


# --- what is missing -------------------------------------------------------------------------------------------------


def missing(what: str, table: pd.DataFrame) -> list[str]:
    """Names of the settings of an ablation ("balance", "bits", "masks", "losses") that ``table`` does not hold, in order."""
    if what == "balance":
        there = set(zip(table["loss"], table["a"], strict=True))
        wanted = [(loss, a) for loss in LOSSES for a in (*BALANCES, "trainable")]
        return [f"{loss} a={a}" for loss, a in wanted if (loss, a) not in there]
    if what == "bits":
        there = set(zip(table["method"], table["bits"], strict=True))
        wanted = [(method, n) for method in BITS_METHODS for n in sorted({*BITS, Config().bits})]
        return [f"{method} bits={n}" for method, n in wanted if (method, n) not in there]
    if what == "masks":
        there = set(zip(table["share"], table["quality"], strict=True))
        wanted = [(share, "exact") for share in (*MASK_SHARES, 1.0)] + [(1.0, quality) for quality in MASK_QUALITIES]
        return [
            f"masks={share:.0%}" if quality == "exact" else f"masks {quality}"
            for share, quality in wanted
            if (share, quality) not in there
        ]
    if what == "losses":
        return [method for method in PARTS if method not in set(table["method"])]
    raise ValueError(f"missing: {what!r} is not known; known are {', '.join(TABLES)}")


def not_run(what: str, table: pd.DataFrame) -> str:
    """One sentence: what of an ablation has no row yet, or that all of it has. A line of which nothing was run is named once."""
    names = missing(what, table)
    if table.empty:
        return f"not run yet: nothing of {len(names)} settings"
    if not names:
        return "all settings were run"
    if what not in ("balance", "bits"):
        return f"not run yet: {', '.join(names)}"
    lines: dict[str, list[str]] = {}
    for name in names:
        line, setting = name.split(" ", 1)
        lines.setdefault(line, []).append(setting)
    every = len(BALANCES) + 1 if what == "balance" else len({*BITS, Config().bits})
    parts = [f"{line} (all {every})" if len(s) == every else f"{line} {', '.join(s)}" for line, s in lines.items()]
    return f"not run yet: {'; '.join(parts)}"


#: Every ablation by name. Each takes (runs, dataset, group) and ``source``.
TABLES: dict[str, Callable[..., pd.DataFrame]] = {"losses": losses, "balance": balance, "masks": masks, "bits": bits}

HEADINGS = {
    "losses": "What each loss buys: Y-Net minus the ablation, mAP@10 in points",
    "balance": "Balance of the losses",
    "masks": "Outlines: how many and how good",
    "bits": "Length of the code",
}


# --- text ------------------------------------------------------------------------------------------------------------


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table of this module as readers see it: mean ± sd in one column, intervals in brackets, a dash where there is nothing."""
    if "points" in table:
        lines = [
            {
                "without": row.without,
                "mAP@10": tables.number(row.ablated, np.nan, 1),
                "Y-Net's": tables.number(row.ours, np.nan, 1),
                "points": statistics.interval_text(row.points, row.low, row.high),
                "p (Holm)": statistics.p_text(row.p, row.p_least),
                "sets x runs": row.runs or "-",
                "note": row.note,
            }
            for row in table.itertuples(index=False)
        ]
        return pd.DataFrame(lines, columns=["without", "mAP@10", "Y-Net's", "points", "p (Holm)", "sets x runs", "note"])
    out = pd.DataFrame(index=table.index)
    for column in table.columns[: list(table.columns).index("runs") + 1]:
        out[column] = table[column].map(methods.METHOD_NAMES) if column == "method" else table[column]
    if "share" in out:
        out["share"] = [f"{share:.0%}" for share in table["share"]]
    for metric, k in METRICS:
        name = f"{metric}@{k}" if k else metric
        heading = tables.MAIN[(metric, k)]
        triples = zip(table[name], table[f"{name} sd"], table["runs"], strict=True)
        out[heading] = [tables.number(mean, sd, int(n)) for mean, sd, n in triples]
    return out


def text(runs: pd.DataFrame, source: str | Path | None = None, n: int = 10_000) -> str:
    """All ablations as one Markdown page, each with what was not run yet. ``n``: bootstrap replicates."""
    page = [
        "# Ablations\n\nFrom the rows in `data/results/`. Mean ± standard deviation over runs (folds and seeds) where there are "
        "several. Points: Y-Net minus the ablation, query by query, 95 % intervals by bootstrap of patients; positive means that "
        "the part helps.\n"
    ]
    for dataset, group in groups(runs):
        page.append(f"## {dataset}, preset {group}\n")
        for what, make_table in TABLES.items():
            table = make_table(runs, dataset, group, source=source, **({"n": n} if what == "losses" else {}))
            page.append(f"### {HEADINGS[what]}\n")
            if len(table):
                page.append(tables.markdown(as_text(table)) + "\n")
            page.append(f"{not_run(what, table).capitalize()}.\n")
    page += ["## Numbers of the released notebooks\n", PUBLISHED_NOTE + "\n", tables.markdown(published_table()) + "\n"]
    return "\n".join(page)


def published_table() -> pd.DataFrame:
    """Methods x lists per set as text: what the released notebooks store (`PUBLISHED_NOTE`). They are no results of ours."""
    rows = pd.read_csv(paths.results() / "published" / "notebooks.csv")
    lines = []
    for method in dict.fromkeys(rows["method"]):
        values = rows[rows["method"] == method].set_index(["set", "k"])["map_over_k"]
        line = {"method (theirs)": method}
        for name in dict.fromkeys(rows["set"]):
            for k in sorted(set(rows["k"])):
                value = values.get((name, k), np.nan)
                line[f"{name} @{k}"] = "-" if np.isnan(value) else f"{value:.4f}".removeprefix("0")
        lines.append(line)
    return pd.DataFrame(lines)


# --- tuning ----------------------------------------------------------------------------------------------------------


def trials_table(source: str | Path | None = None) -> pd.DataFrame:
    """How far tuning alone moves a method: columns preset, dataset, method, trials, worst, best (mAP@10 of validation patients).

    From the files of ``source/tuning/trials`` (default: the committed ones), one line per method. Empty without files.
    """
    found = store.small("tuning/trials", source)
    if found.empty:
        return pd.DataFrame(columns=["preset", "dataset", "method", "trials", "worst", "best"])
    grouped = found.groupby(["preset", "dataset", "method"])["val_map10"]
    return grouped.agg(["count", "min", "max"]).set_axis(["trials", "worst", "best"], axis=1).reset_index()


def scan_table(scanned: pd.DataFrame, preset: str) -> pd.DataFrame:
    """The scan by validation (`tuning.table(name="balance")`) of one preset, with the share of the classification's pull at C5.

    Columns loss, a, mAP@10, Dice, distinct codes, pull classification, pull segmentation, share. Pulls are norms of the gradient
    of each weighted term at C5 on one batch; that of the segmentation is the sum of its terms' norms, an upper bound of the norm
    of their sum. share = classification / (classification + segmentation), NaN where neither pulls. All scores are of validation
    patients. Empty without rows.
    """
    columns = ["loss", "a", "mAP@10", "Dice", "distinct codes", "pull classification", "pull segmentation", "share"]
    if scanned.empty or not (scanned["preset"] == preset).any():
        return pd.DataFrame(columns=columns)
    part = scanned[scanned["preset"] == preset].reset_index(drop=True)
    seg = part.reindex(columns=["pull_seg_ce", "pull_seg_dice"]).sum(axis=1)
    own = part["pull_classification"].fillna(0)
    both = own + seg
    table = pd.DataFrame(
        {
            "loss": part["cls_loss"],
            "a": part["balance"],
            "mAP@10": part["val_map10"],
            "Dice": part["val_dice"],
            "distinct codes": part["distinct_val_codes"],
            "pull classification": own,
            "pull segmentation": seg,
            "share": own / both.where(both > 0),
        }
    )
    order = {loss: place for place, loss in enumerate(LOSSES)}
    return table.sort_values(["loss", "a"], key=lambda c: c.map(order) if c.name == "loss" else c, ignore_index=True)
