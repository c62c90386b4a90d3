"""The hypotheses of ``docs/protocol.md``, and what the committed rows of the second edition say of each."""

from typing import NamedTuple

import pandas as pd

from . import statistics, tables
from .second import PARTS
from .select import HEADLINE_FOLDS, pair


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


def table(rows: pd.DataFrame, n: int = 10_000) -> pd.DataFrame:
    """A line for each hypothesis; a dash where runs are still missing, and how many are there.

    Points with 95 % intervals for other patients, and for other patients and trainings (`statistics.trainings_interval`; of one
    seed it says nothing of trainings). p by sign flips of patients, its correction by Holm for all of `FAMILY`: a hypothesis
    without runs counts as one with p = 1. ``p (folds)``: Nadeau and Bengio's corrected t-test.
    """
    lines = []
    for one in FAMILY:
        runs = pair(rows, "busbra", one.preset, HEADLINE_FOLDS, one.seeds, one.variant)
        done, planned = [part["run_id"].nunique() for part in runs], len(HEADLINE_FOLDS) * len(one.seeds)
        line = {"": one.name, "encoder": one.preset, "measure": tables.BESIDE.get(one.metric, one.metric)}
        line |= {RUNS: f"{done[0]}, {done[1]} of {planned}"}
        line |= {"p": 1.0, "least": False}
        if min(done) == planned:
            a, b = (statistics.per_query_table(part, one.metric) for part in runs)
            found = statistics.paired(a, b, a, n=n)
            wide = statistics.trainings_interval(*(statistics.per_run_table(part, one.metric) for part in runs), n=n)
            line |= {"points": statistics.interval_text(*found.difference), "with trainings": statistics.interval_text(*wide)}
            line |= {"p": found.p, "least": found.least, "p (folds)": statistics.p_text(statistics.corrected_t(a, b)[1])}
        lines.append(line)
    for line, value in zip(lines, statistics.holm([line["p"] for line in lines]), strict=True):
        if "points" in line:
            line["p (Holm)"] = statistics.p_text(value, line["least"])
    columns = ["", "encoder", "measure", RUNS, "points", "with trainings", "p (Holm)", "p (folds)"]
    return pd.DataFrame(lines, columns=columns, dtype=object).fillna("-")


def said(board: pd.DataFrame) -> str:
    """Y-Net's lead over its twin for the first page, one clause for each encoder. ``board``: of `table`."""
    names = {"pretrained": "with ImageNet weights", "scratch": "from scratch"}
    told = [
        f"{names[encoder]} " + ", ".join(f"{line['measure']} {line['with trainings']}" for _, line in part.iterrows())
        for encoder, part in board[(board[""] != "H6") & (board["points"] != "-")].groupby("encoder", sort=False)
    ]
    return f"Y-Net minus its twin, in points, other trainings in the interval: {'; '.join(told)}."
