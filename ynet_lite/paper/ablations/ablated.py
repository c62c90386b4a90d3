"""Ablations as tables: the balance of the two losses, length of the code, outlines, and what each loss buys.

Everything here reads committed rows and trains nothing. A run counts where `grids` plans it for the ablation: its settings, fold
and seed are those of the name that `provenance.run_id` gives, whatever its variant is called. So a row of other epochs or of
another learning rate cannot stand between two that it does not fit to.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

import pandas as pd

from ...config import Config
from ...methods import BY_NAME, OURS, TWIN
from ...provenance import run_id
from .. import grids, statistics, store
from ..grids import LOSSES
from ..select import HEADLINE_FOLDS, complete, headline, select

#: What a table of an ablation shows: (metric, k).
METRICS = (("map", 10), ("precision", 10), ("ndcg", 10), ("dice", 0), ("distinct_codes", 0))

#: The methods of `losses`: Y-Net with something taken away or put in its place.
PARTS = (TWIN, *grids.ABLATIONS)

#: The sets for which ablations are run, with their preset, and what makes their configurations.
ABLATED = {("phantom", "quick"): grids.quick, ("busbra", "full"): grids.full}


#: What each classification loss is called.
LOSS_NAMES = {"pairwise": "pairwise (ours)", "circle": "Circle (the paper's)", "ce": "cross-entropy", "centres": "class centres"}


class Ablation(NamedTuple):
    """``columns`` that a ``setting`` of a configuration fills, and the ``configs`` planned beside the default."""

    heading: str
    columns: tuple[str, str]
    configs: Callable[..., list[Config]]
    setting: Callable[[Config], tuple]


SETTINGS = {
    # each classification loss at each balance a of ``L = |a| s L_cls + |1 - a| L_seg``
    "balance": Ablation(
        "Balance of the losses",
        ("loss", "a"),
        grids.balances,
        lambda cfg: (cfg.loss, "trainable" if cfg.balance_trainable else cfg.balance),
    ),
    # share: of the training patients; quality: `cases.outlines.degraded`
    "masks": Ablation(
        "Outlines: how many and how good", ("share", "quality"), grids.masks, attrgetter("mask_share", "mask_quality")
    ),
    "bits": Ablation("Length of the code", ("method", "bits"), grids.bits, attrgetter("method", "bits")),
}


def without(method: str, own: Config) -> str:
    """What ``method`` lacks, in words, where Y-Net has the configuration ``own``."""
    words = BY_NAME[method].without
    return words if isinstance(words, str) else words[own.pooling == "rmac"]


# --- settings of one thing -------------------------------------------------------------------------------------------


def planned(what: str, dataset: str, group: str) -> list[Config]:
    """The runs of an ablation and its default runs, in the order of its table."""
    return SETTINGS[what].configs(ABLATED[dataset, group], default=True)


def planned_rows(what: str, runs: pd.DataFrame, dataset: str, group: str) -> pd.DataFrame:
    """Rows of the runs that `planned` names; the same training under another name is not among them."""
    return runs[runs["run_id"].isin([run_id(cfg) for cfg in planned(what, dataset, group)])]


def settings(what: str, dataset: str, group: str) -> dict[str, tuple]:
    """{hash of a configuration: its setting} of the runs that `planned` names, in their order."""
    return {cfg.hash(): SETTINGS[what].setting(cfg) for cfg in planned(what, dataset, group)}


def table(what: str, runs: pd.DataFrame, dataset: str, group: str) -> pd.DataFrame:
    """An ablation of `SETTINGS`, one line per setting that has rows: its two columns, runs, then mean and sd of `METRICS`.

    runs : of `store.rows`. group : "quick" or "full". The sd (``map@10 sd``) of a single run is NaN. Empty without rows.
    """
    known = settings(what, dataset, group)
    means = store.summary(planned_rows(what, runs, dataset, group), METRICS, by=["config_hash"])
    means = means.loc[[name for name in known if name in means.index]]
    out = pd.DataFrame([known[name] for name in means.index], columns=list(SETTINGS[what].columns))
    out["runs"] = means[("map@10", "runs")].fillna(0).astype(int).to_numpy()
    for name in dict.fromkeys(name for name, _ in means.columns):
        out[name], out[f"{name} sd"] = means[(name, "mean")].to_numpy(), means[(name, "sd")].to_numpy()
    return out


def balance_text(table: pd.DataFrame) -> str:
    """What the segmentation loss is worth to each classification loss: mAP@10 at a = .5 minus that at a = 1, in one sentence.

    table : of "balance". Both points are fixed beforehand; the best a would be chosen on the queries it is scored on. Only where
    Y-Net pools by R-MAC is a = 1 the same network without that loss: elsewhere it pools inside a map that nothing teaches.
    """
    of = table.set_index(["loss", "a"])["map@10"]
    found = [f"{LOSS_NAMES[loss]} {100 * (of[loss, 0.5] - of[loss, 1.0]):+.1f}" for loss in LOSSES]
    return f"mAP@10 at a = .5 minus at a = 1 (no segmentation loss), in points: {', '.join(found)}."


def twin(runs: pd.DataFrame, dataset: str, group: str) -> float:
    """mAP@10 of the twin without segmentation on the fold and the seeds of the "masks"."""
    names = [run_id(cfg) for cfg in ABLATED[dataset, group]((TWIN,), seeds=(0, 1))]
    own = runs[runs["run_id"].isin(names) & (runs["metric"] == "map") & (runs["k"] == 10)]
    return float(own["value"].mean())


# --- what each loss buys ---------------------------------------------------------------------------------------------


#: What `statistics.compare_methods` gives, and how `losses` calls it.
COMPARED = {
    "mean_rival": "ablated",
    "mean_ours": "ours",
    "points_low": "low",
    "points_high": "high",
    "p": "p_alone",
    "p_holm": "p",
    "runs_rival": "runs",
}


def losses(runs: pd.DataFrame, dataset: str, group: str, n: int = 10_000) -> pd.DataFrame:
    """Y-Net minus each of its ablations, query by query, in points with 95 % intervals by patient (`statistics.paired`).

    Positive: the part that is missing from the ablation helps. One row per method of `PARTS`, on the rows of `headline`. Columns
    method, without (what is taken away), ablated and ours (mean mAP@10 over the queries that both answered), points, low, high,
    p (Holm's correction over this table), runs (sets of queries x trainings), note, and others of `statistics.compare_methods`.
    Where the ablation is the same training as Y-Net, ``note`` says so and the numbers are NaN.
    """
    rows = headline(select(runs, dataset, group))
    (own,) = set(rows[rows["method"] == OURS]["config_hash"])
    same = set(rows[rows["config_hash"] == own]["method"])
    found = statistics.compare_methods(OURS, [method for method in PARTS if method not in same], rows, n=n)
    table = found.rename(columns=COMPARED).set_index("method").reindex(PARTS).reset_index()
    cfg = store.configs()[own]
    table["without"] = [without(method, cfg) for method in PARTS]
    table["note"] = ["the same training as Y-Net" if method in same else "" for method in PARTS]
    return table


#: Where the same method was run with outlines and without: {(edition, dataset, preset, variant): how a figure calls it}.
OUTLINED = {
    ("first", "phantom", "quick", ""): "phantom",
    ("first", "phantom", "quick", "confounding=0"): "phantom, tissue drawn at random",
    ("first", "busbra", "full", ""): "BUS-BRA",
    ("first", "busbra-birads", "full", ""): "BUS-BRA by BI-RADS",
    ("second", "busi", "scratch", ""): "BUSI",
    ("second", "busbra", "scratch", ""): "BUS-BRA, tuned anew",
    ("second", "busbra", "pretrained", ""): "BUS-BRA, pretrained encoder",
}


def outlines(n: int = 10_000) -> pd.DataFrame:
    """What outlines bring, in points of mAP@10 with 95 % intervals by patient, the highest first.

    Columns what, points, low, high. Y-Net minus its twin and HashNet with outlines minus HashNet on each set of `OUTLINED`; on
    fold 1 of BUS-BRA each classification loss at a = .5 minus a = 1. What has no rows yet is left out.
    """
    parts = []
    for (edition, *where), name in OUTLINED.items():
        rows = select(store.rows(edition), *where)
        rows = complete(rows, HEADLINE_FOLDS) if edition == "second" else headline(rows)
        parts += [(name, rows, (OURS, TWIN)), (f"{name}, HashNet", rows, ("hashnet+seg", "hashnet"))]
    known = settings("balance", "busbra", "full")
    rows = planned_rows("balance", store.rows("first", "small"), "busbra", "full")
    for loss in LOSSES:
        which = rows["config_hash"].map({name: str(a) for name, (own, a) in known.items() if own == loss})
        parts.append((f"BUS-BRA fold 1, {LOSS_NAMES[loss]}", rows.assign(method=which), ("0.5", "1.0")))
    found = []
    for what, rows, pair in parts:
        if set(pair) <= set(rows["method"]):
            both = rows[rows["method"].isin(pair)]
            got = statistics.compare_methods(pair[0], pair[1:], both, n=n).iloc[0]
            found.append((what, *got[["points", "points_low", "points_high"]]))
    table = pd.DataFrame(found, columns=["what", "points", "low", "high"])
    return table.sort_values("points", ascending=False, ignore_index=True)
