"""Ablations as tables: the balance of the two losses, length of the code, outlines, and what each loss buys.

Everything here reads committed rows and trains nothing. What a run stands for is read from the hash of its configuration, not
from its name: a row counts where its configuration is one that `grids` plans, so that a row of other epochs or of another
learning rate cannot stand between two that it does not fit to. A default run (empty variant) counts only with the folds and
seeds of the ablation: the mean over five phantoms is no point on a curve over two.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...config import UNHASHED, Config
from ...methods import BY_NAME, METHODS, OURS, TUNED, TWIN
from ...sets import drawn_per_seed
from .. import grids, statistics, store
from ..grids import FOLDS, LOSSES
from ..select import HEADLINE_FOLDS, complete, headline, select
from . import plots

#: What a table of an ablation shows: (metric, k).
METRICS = (("map", 10), ("precision", 10), ("ndcg", 10), ("dice", 0), ("distinct_codes", 0))

#: The methods of `losses`: Y-Net with something taken away or put in its place.
PARTS = (TWIN, *grids.ABLATIONS)

#: The sets for which ablations are run, with their preset, and what makes their configurations.
ABLATED = {("phantom", "quick"): grids.quick, ("busbra", "full"): grids.full}


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


def groups(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """(dataset, group) of those `ABLATED` sets that Y-Net was run on."""
    return [one for one in ABLATED if OURS in set(select(runs, *one, None)["method"])]


# --- settings of one thing -------------------------------------------------------------------------------------------


def planned(what: str, dataset: str, group: str) -> dict[str, tuple]:
    """{hash of a configuration: its setting} of an ablation and of the default runs, in the order of its table."""
    one = SETTINGS[what]
    return {cfg.hash(): one.setting(cfg) for cfg in one.configs(ABLATED[dataset, group], default=True)}


def planned_rows(what: str, runs: pd.DataFrame, dataset: str, group: str) -> pd.DataFrame:
    """Rows of the planned configurations; default runs only on the folds and seeds of the others; each training once."""
    rows = select(runs, dataset, group, None)
    rows = rows[rows["method"].isin((*grids.BOTH, "ynet-circle")) & rows["config_hash"].isin(planned(what, dataset, group))]
    own = rows[rows["variant"] != ""]
    rows = rows[_within(rows, own)] if len(own) else rows
    return rows.drop_duplicates(["config_hash", "fold", "seed", "metric", "k"])


def _within(rows: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """(rows,) bool: whether ``others`` have the fold and seed of each row."""
    return pd.MultiIndex.from_frame(rows[["fold", "seed"]]).isin(pd.MultiIndex.from_frame(others[["fold", "seed"]]))


def table(what: str, runs: pd.DataFrame, dataset: str, group: str) -> pd.DataFrame:
    """An ablation of `SETTINGS`, one line per setting that has rows: its two columns, runs, then mean and sd of `METRICS`.

    runs : of `store.rows`. group : "quick" or "full". The sd (``map@10 sd``) of a single run is NaN. Empty without rows.
    """
    rows, settings = planned_rows(what, runs, dataset, group), planned(what, dataset, group)
    means = store.summary(rows, METRICS, by=["config_hash"])
    means = means.loc[[name for name in settings if name in means.index]]
    out = pd.DataFrame([settings[name] for name in means.index], columns=list(SETTINGS[what].columns))
    out["runs"] = means[("map@10", "runs")].fillna(0).astype(int).to_numpy()
    for name in dict.fromkeys(name for name, _ in means.columns):
        out[name], out[f"{name} sd"] = means[(name, "mean")].to_numpy(), means[(name, "sd")].to_numpy()
    return out


def balance_text(table: pd.DataFrame) -> str:
    """What the segmentation loss is worth to each classification loss: mAP@10 at a = .5 minus that at a = 1, in one sentence.

    table : of "balance". Both points are fixed beforehand; the best a would be chosen on the queries it is scored on. Only where
    Y-Net pools by R-MAC is a = 1 the same network without that loss: elsewhere it pools inside a map that nothing teaches.
    Losses without both points are left out; without any the text is empty.
    """
    found = []
    for loss in LOSSES:
        own = table[table["loss"] == loss].set_index("a")["map@10"]
        if {0.5, 1.0} <= set(own.index):
            found.append(f"{plots.LOSS_NAMES[loss]} {100 * (own[0.5] - own[1.0]):+.1f}")
    return f"mAP@10 at a = .5 minus at a = 1 (no segmentation loss), in points: {', '.join(found)}." if found else ""


def twin(runs: pd.DataFrame, dataset: str, group: str) -> float:
    """mAP@10 of the twin without segmentation on the folds and seeds of the "masks"; NaN where it was not run on all of them."""
    own, (config,) = planned_rows("masks", runs, dataset, group), ABLATED[dataset, group]((TWIN,))
    other = select(runs, dataset, group, None).query("method == @TWIN and metric == 'map' and k == 10")
    other = other[(other["config_hash"] == config.hash()) & _within(other, own)]
    return float(other["value"].mean()) if len(own) and _within(own, other).all() else np.nan


# --- what each loss buys ---------------------------------------------------------------------------------------------


def common_folds(chosen: pd.DataFrame, method: str = OURS) -> tuple[int, ...]:
    """The folds a comparison rests on: 2 to 5 where ``method`` and another have them all, else the first, else what there is."""
    have = {name: set(part["fold"]) for name, part in chosen.groupby("method")}
    own = have.pop(method, set())
    for folds in (HEADLINE_FOLDS, FOLDS[:1]):
        if own.issuperset(folds) and any(other.issuperset(folds) for other in have.values()):
            return tuple(folds)
    return tuple(sorted(own))


#: What `statistics.compare_methods` gives, as `losses` calls it.
COMPARED = {"mean_rival": "ablated", "mean_ours": "ours", "points_low": "low", "points_high": "high", "runs_rival": "runs"}


def losses(runs: pd.DataFrame, dataset: str, group: str, n: int = 10_000) -> pd.DataFrame:
    """Y-Net minus each of its ablations, query by query, in points with 95 % intervals by patient (`statistics.paired`).

    Positive: the part that is missing from the ablation helps. Columns method, without (what is taken away), ablated and ours
    (mean mAP@10 over the queries that both answered), points, low, high, p (Holm's correction over this table), p_least
    (of `statistics.compare_methods`), patients, runs (sets of queries x trainings), folds, note. One row per method of `PARTS`
    that has rows, in their order; where nothing can be compared the numbers are NaN and ``note`` says why: the same training as
    Y-Net, settings that differ in more than the ablated part, other folds or seeds. Empty without rows of Y-Net.
    """
    columns = "method without ablated ours points low high p p_least patients runs folds note".split()
    rows = select(runs, dataset, group)
    rows = rows[rows["method"].isin((OURS, *PARTS))]
    ours = rows[rows["method"] == OURS]
    if ours.empty:
        return pd.DataFrame(columns=columns)
    if ours["config_hash"].nunique() > 1:
        raise ValueError(f"losses: Y-Net on {dataset} has several configurations ({', '.join(sorted(set(ours['config_hash'])))})")
    cfgs, folds = store.configs(), common_folds(rows)
    own, found = cfgs[ours["config_hash"].iloc[0]], []
    for method in [m for m in PARTS if m in set(rows["method"])]:
        part = rows[rows["method"] == method]
        seeds = sorted(set(part["seed"]) & set(ours["seed"])) if dataset in drawn_per_seed() else None
        note = _why_not(own, [cfgs[name] for name in set(part["config_hash"])], method, part, folds, seeds)
        line = {"method": method, "without": without(method, own), "p_least": False, "runs": "", "folds": folds, "note": note}
        if not note:
            same = rows[rows["fold"].isin(folds) & (rows["seed"].isin(seeds) if seeds else True)]
            got = statistics.compare_methods(OURS, [method], same, n=n).iloc[0].rename(COMPARED)
            line |= got[[*COMPARED.values(), "points", "p", "p_least", "patients"]].to_dict()
        found.append(line)
    table = pd.DataFrame(found, columns=columns)
    table["p"] = statistics.holm(table["p"].astype(float))
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
    rows, settings = planned_rows("balance", store.rows("first", "small"), "busbra", "full"), planned("balance", "busbra", "full")
    for loss in LOSSES:
        which = rows["config_hash"].map({name: str(a) for name, (own, a) in settings.items() if own == loss})
        parts.append((f"BUS-BRA fold 1, {plots.LOSS_NAMES[loss]}", rows.assign(method=which), ("0.5", "1.0")))
    found = []
    for what, rows, pair in parts:
        if set(pair) <= set(rows["method"]):
            both = rows[rows["method"].isin(pair)]
            got = statistics.compare_methods(pair[0], pair[1:], both, n=n).iloc[0]
            found.append((what, *got[["points", "points_low", "points_high"]]))
    table = pd.DataFrame(found, columns=["what", "points", "low", "high"])
    return table.sort_values("points", ascending=False, ignore_index=True)


def _why_not(own: Config, others: list[Config], method: str, part: pd.DataFrame, folds: Sequence[int], seeds) -> str:
    """Why a method cannot be set against Y-Net; empty where it can."""
    if len(others) > 1:
        return "several configurations"
    (other,) = others
    if other.hash() == own.hash():
        return "the same training as Y-Net"
    changed = [name for name in vars(own) if name not in UNHASHED and getattr(own, name) != getattr(other, name)]
    # what was tuned per method may differ, and the two are still compared
    expected = set(METHODS[method]).union(*TUNED.values())
    if more := [name for name in changed if name not in expected]:
        return f"other settings: {', '.join(more)}"
    if not set(part["fold"]).issuperset(folds):
        return f"not run on fold {', '.join(str(f) for f in sorted(set(folds) - set(part['fold'])))}"
    return "no seed in common" if seeds == [] else ""
