"""Figures of the ablations, from rows."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ... import drawing, metrics
from ...hashing import hamming
from ...methods import OURS, TWIN
from ...sets import drawn_per_seed, title
from .. import store
from ..select import chance_rows, headline, select
from . import ablated, plots
from .ablated import ABLATED, PARTS, SETTINGS
from .pages import HEADINGS

#: Most lines that a figure of methods can hold and still be read.
MOST_LINES = 8


def chance_level(dataset: str, preset: str) -> dict[tuple[str, int], float]:
    """{(metric, k): value} of random codes on this set; empty where nothing is committed."""
    found = chance_rows(dataset, preset)
    return {} if found is None else found.set_index(["metric", "k"])["value"].to_dict()


def _one_fold_set(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that a claim may rest on; the same training under another name once."""
    rows = headline(rows)
    ours = set(rows[rows["method"] == OURS]["config_hash"])
    return rows[(rows["method"] == OURS) | ~rows["config_hash"].isin(ours)]


def _shown_methods(scores: pd.Series, most: int = MOST_LINES) -> list[str]:
    always = [name for name in (OURS, TWIN, "ynet-paper", "released") if name in scores.index]
    others = scores.drop(always).sort_values(ascending=False, kind="stable").index.tolist()
    # parts of Y-Net have a figure of their own and leave these lines to its rivals
    others = [name for name in others if name not in PARTS] or others
    kept = {*always, *others[: max(0, most - len(always))]}
    return scores[[name in kept for name in scores.index]].sort_values(ascending=False, kind="stable").index.tolist()


def pr_curves(runs: pd.DataFrame, dataset: str, group: str) -> tuple[pd.DataFrame, float]:
    """Precision against recall from the committed codes: (columns method, recall, precision; level of a random ranking).

    Only methods that end in a code and whose codes are committed, one training per fold (its lowest seed), on the folds of
    `headline`; curves of several folds are averaged. The level is the mean share of the query's class in the database.
    Empty, NaN without codes.
    """
    rows = select(runs, dataset, group)
    there = [run for run in rows["run_id"].unique() if store.codes(run) is not None]
    rows = _one_fold_set(rows[rows["run_id"].isin(there)])
    if rows.empty:
        return pd.DataFrame(columns=["method", "recall", "precision"]), np.nan
    scores = rows[(rows["metric"] == "map") & (rows["k"] == 10)].groupby("method")["value"].mean()
    curves, levels = [], []
    for method in _shown_methods(scores):
        own = rows[rows["method"] == method].sort_values("seed").drop_duplicates("fold").sort_values("fold")
        found = []
        for run in own["run_id"]:
            queries, database = store.codes(run).values()
            relevance = queries.labels[:, None] == database.labels
            recall, precision = metrics.precision_recall_curve(hamming(queries.packed, database.packed), relevance)
            found.append(precision)
            levels.append(relevance.mean())
        curves.append(pd.DataFrame({"method": method, "recall": recall, "precision": np.mean(found, axis=0)}))
    return pd.concat(curves, ignore_index=True), float(np.mean(levels))


def where(what: str, runs: pd.DataFrame, dataset: str, group: str) -> str:
    """The set that an ablation stands on, as a title: ``BUS-BRA, folds 2 to 5``; ``phantom, seeds 0 and 1``."""
    planned = what in SETTINGS
    rows = ablated.planned_rows(what, runs, dataset, group) if planned else headline(select(runs, dataset, group))
    name = "seed" if dataset in drawn_per_seed() else "fold"
    numbers = sorted(set(rows[name]))
    text = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 2 else " and ".join(str(n) for n in numbers)
    return f"{title(dataset)}, {name}{'s' if len(numbers) > 1 else ''} {text}"


def figure(what: str, runs: pd.DataFrame, dataset: str, group: str) -> Figure | None:
    """One figure of a set. what : "losses", "balance", "masks", "bits" or "pr" (precision against recall; None without codes)."""
    level, title = chance_level(dataset, group), where(what, runs, dataset, group)
    if what == "pr":
        table, random = pr_curves(runs, dataset, group)
        return plots.pr_figure(table, random, title) if table["method"].nunique() > 1 else None
    if what == "losses":
        return plots.points_figure(ablated.losses(runs, dataset, group).dropna(subset="points"), title)
    table = ablated.table(what, runs, dataset, group)
    if what == "masks":
        return plots.masks_figure(table, ablated.twin(runs, dataset, group), level, title)
    return {"balance": plots.balance_figure, "bits": plots.bits_figure}[what](table, level, title)


FIGURES = (*HEADINGS, "pr")


def make(folder: str | Path, runs: pd.DataFrame) -> list[Path]:
    """Write ``ablation-<what>-<dataset>.png`` of the `ABLATED` sets; returns the files. Same rows, same bytes."""
    drawing.use_style()
    made = []
    for dataset, group in ABLATED:
        for what in FIGURES:
            drawn = figure(what, runs, dataset, group)
            if drawn is not None:
                made.append(drawing.save(drawn, Path(folder) / f"ablation-{what}-{dataset}.png"))
    return made
