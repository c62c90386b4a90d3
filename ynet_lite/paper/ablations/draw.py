"""Figures of the ablations, from rows."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ... import drawing
from ...sets import drawn_per_seed, title
from ..select import chance_rows, headline, select
from . import ablated, plots
from .ablated import ABLATED, SETTINGS
from .pages import HEADINGS


def chance_level(dataset: str, preset: str) -> dict[tuple[str, int], float]:
    """{(metric, k): value} of random codes on this set; empty where nothing is committed."""
    found = chance_rows(dataset, preset)
    return {} if found is None else found.set_index(["metric", "k"])["value"].to_dict()


def where(what: str, runs: pd.DataFrame, dataset: str, group: str) -> str:
    """The set that an ablation stands on, as a title: ``BUS-BRA, folds 2 to 5``; ``phantom, seeds 0 and 1``."""
    planned = what in SETTINGS
    rows = ablated.planned_rows(what, runs, dataset, group) if planned else headline(select(runs, dataset, group))
    name = "seed" if dataset in drawn_per_seed() else "fold"
    numbers = sorted(set(rows[name]))
    text = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 2 else " and ".join(str(n) for n in numbers)
    return f"{title(dataset)}, {name}{'s' if len(numbers) > 1 else ''} {text}"


def figure(what: str, runs: pd.DataFrame, dataset: str, group: str) -> Figure:
    """One figure of a set. what : "losses", "balance", "masks" or "bits"."""
    level, title = chance_level(dataset, group), where(what, runs, dataset, group)
    if what == "losses":
        return plots.points_figure(ablated.losses(runs, dataset, group).dropna(subset="points"), title)
    table = ablated.table(what, runs, dataset, group)
    if what == "masks":
        return plots.masks_figure(table, ablated.twin(runs, dataset, group), level, title)
    return {"balance": plots.balance_figure, "bits": plots.bits_figure}[what](table, level, title)


def make(folder: str | Path, runs: pd.DataFrame) -> list[Path]:
    """Write ``ablation-<what>-<dataset>.png`` of the `ABLATED` sets; returns the files. Same rows, same bytes."""
    drawing.use_style()
    made = [drawing.save(plots.pr_figure(), Path(folder) / "ablation-pr-busbra.png")]
    for dataset, group in ABLATED:
        for what in HEADINGS:
            drawn = figure(what, runs, dataset, group)
            made.append(drawing.save(drawn, Path(folder) / f"ablation-{what}-{dataset}.png"))
    return made
