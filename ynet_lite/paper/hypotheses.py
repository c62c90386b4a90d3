"""The hypotheses of ``docs/protocol.md``, and what the committed rows of the second edition say of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from ..methods import OURS, TWIN
from . import statistics, tables
from .second import PARTS
from .select import HEADLINE_FOLDS, select


class Hypothesis(NamedTuple):
    """Y-Net minus its twin in ``metric``@10; ``variant`` is that of Y-Net's runs, the twin is always the plain one."""

    name: str
    preset: str
    metric: str
    variant: str = ""
    seeds: tuple[int, ...] = PARTS["pretrained"].seeds


#: One family. H1 is the primary one.
FAMILY = (
    Hypothesis("H1", "pretrained", "ndcg"),
    Hypothesis("H2", "pretrained", "mask_agreement"),
    Hypothesis("H3", "pretrained", "map"),
    Hypothesis("H4", "pretrained", "accuracy"),
    Hypothesis("H5", "scratch", "map"),
    Hypothesis("H6", "pretrained", "map", "masks other", (0,)),
)

RUNS = "runs of Y-Net, twin"


def pair(rows: pd.DataFrame, one: Hypothesis) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of ours and of the twin that a hypothesis rests on, of folds 2 to 5 and its seeds."""
    found = select(rows, "busbra", one.preset, None)
    found = found[found["fold"].isin(HEADLINE_FOLDS) & found["seed"].isin(one.seeds)]
    return tuple(found[(found["method"] == method) & (found["variant"] == v)] for method, v in ((OURS, one.variant), (TWIN, "")))


def table(rows: pd.DataFrame, n: int = 10_000) -> pd.DataFrame:
    """A line for each hypothesis; a dash where runs are still missing, and how many are there.

    Points with 95 % intervals for other patients, and for other patients and trainings (`statistics.trainings_interval`; of one
    seed it says nothing of trainings). p by sign flips of patients, its correction by Holm for all of `FAMILY`: a hypothesis
    without runs counts as one with p = 1. ``p (folds)``: Nadeau and Bengio's corrected t-test.
    """
    planned, lines, p = len(HEADLINE_FOLDS), [], []
    for one in FAMILY:
        ours, twin = pair(rows, one)
        done = [part["run_id"].nunique() for part in (ours, twin)]
        line = {"": one.name, "encoder": one.preset, "measure": tables.BESIDE.get(one.metric, one.metric)}
        line |= {RUNS: f"{done[0]}, {done[1]} of {planned * len(one.seeds)}", "least": False}
        p.append(1.0)
        if min(done) == planned * len(one.seeds):
            a, b = (statistics.per_query_table(part, one.metric) for part in (ours, twin))
            found = statistics.paired(a, b, a, n=n)
            each = (statistics.per_run_table(part, one.metric) for part in (ours, twin))
            wide = statistics.trainings_interval(*each, n=n)
            p[-1] = found.p
            line |= {"points": statistics.interval_text(*found.difference), "with trainings": statistics.interval_text(*wide)}
            line |= {"least": not found.exact and found.p == 1 / (1 + n), "p (folds)": statistics.corrected_t(a, b)[1]}
        lines.append(line)
    made = pd.DataFrame(lines).reindex(columns=["", "encoder", "measure", RUNS, "points", "with trainings", "least", "p (folds)"])
    adjusted = np.where(made["points"].isna(), np.nan, statistics.holm(p))
    least = made.pop("least")
    made.insert(6, "p (Holm)", [statistics.p_text(*one) for one in zip(adjusted, least, strict=True)])
    made["p (folds)"] = [statistics.p_text(value) for value in made["p (folds)"].astype(float)]
    return made.astype(object).fillna("-")


def said(board: pd.DataFrame) -> str:
    """One sentence on H5 for the first page. ``board``: of `table`."""
    lead = board.set_index("").loc["H5", "with trainings"]
    if lead == "-":
        return ""
    return f"Second edition, tuned anew, other trainings in the interval: the lead over the twin is {lead} points."
