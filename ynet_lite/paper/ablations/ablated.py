"""Ablations as tables: the balance of the two losses, length of the code, outlines, and what each loss buys.

Everything here reads committed rows (`store.read_runs`) and trains nothing. What a run stands for is read from the
configuration behind its hash, not from its name. A table holds the settings that were run, however few; `missing` names the
others.

One table holds one **family**: configurations that differ in the ablated fields and in nothing else, so that a row of other
epochs or of another learning rate cannot stand between two that it does not fit to. A default run (empty variant) counts where
it fits, and only with the folds and seeds of the ablation: the mean over five phantoms is no point on a curve over two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from ... import paths
from ...config import Config
from ...methods import BY_NAME, METHODS, TUNED
from ...sets import drawn_per_seed
from .. import statistics, store
from ..grids import ABLATIONS, FOLDS, LOSSES, MASK_QUALITIES
from ..select import HEADLINE_FOLDS
from . import plots

#: What a table of an ablation shows: (metric, k).
METRICS = (("map", 10), ("precision", 10), ("ndcg", 10), ("dice", 0), ("distinct_codes", 0))

#: Fields that were tuned per method: two classification losses may differ in them and still be compared.
TUNED_FIELDS = tuple(sorted({name for settings in TUNED.values() for name in settings}))

BITS_METHODS = ("ynet", "ynet-no-seg")

#: The methods of `losses`: Y-Net with something taken away or put in its place.
PARTS = ("ynet-no-seg", *ABLATIONS)


def without(method: str, own: Config) -> str:
    """What ``method`` lacks, in words, where Y-Net has the configuration ``own``."""
    words = BY_NAME[method].without
    return words if isinstance(words, str) else words[own.pooling == "rmac"]


#: Most lines that a figure of methods can hold and still be read.
MOST_LINES = 8


# --- which rows belong together --------------------------------------------------------------------------------------


def configurations(hashes: Iterable[str], source: str | Path | None = None) -> dict[str, Config]:
    """The configuration behind each hash, from ``source/configs`` (default: the committed results).

    Raises ``ValueError`` for a hash without a file, since a row without its configuration says nothing.
    """
    known, wanted = store.configs(source), sorted(set(hashes))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"configurations: no configuration {unknown[0]} in {source or paths.results()}; each row needs its own")
    return {name: known[name] for name in wanted}


def family(
    cfgs: Mapping[str, Config], axes: Sequence[str], tuned: Sequence[str] = (), preferred: Iterable[str] = ()
) -> list[str]:
    """Hashes of the largest set of configurations that differ in ``axes`` (and ``tuned``) only, in the order of ``cfgs``.

    Largest by the number of settings of ``axes``; of two as large the one that holds a hash of ``preferred``. A single setting
    that is not preferred is no ablation of these axes: then, and without configurations, the list is empty. Raises
    ``ValueError`` where two are left: one curve would mix them.
    """
    neutral = {f.name: f.default for f in fields(Config) if f.name in (*axes, *tuned)}
    groups: dict[str, list[str]] = {}
    for name, cfg in cfgs.items():
        groups.setdefault(cfg.but(**neutral).hash(), []).append(name)
    preferred = set(preferred)

    def weight(names: list[str]) -> tuple[int, bool]:
        return len({tuple(getattr(cfgs[n], a) for a in axes) for n in names}), not preferred.isdisjoint(names)

    ranked = sorted(groups.values(), key=weight, reverse=True)
    if not ranked or weight(ranked[0]) == (1, False):
        return []
    if len(ranked) > 1 and weight(ranked[0]) == weight(ranked[1]):
        first, second = (", ".join(names) for names in ranked[:2])
        raise ValueError(
            f"family: configurations {first} and {second} differ in more than {', '.join(axes)}; leave one in the rows"
        )
    return ranked[0]


def _member_rows(runs: pd.DataFrame, dataset: str, group: str, methods: Sequence[str]) -> pd.DataFrame:
    presets = ("full", "paper") if group == "full" else (group,)
    return runs[(runs["dataset"] == dataset) & runs["preset"].isin(presets) & runs["method"].isin(methods)]


def _within(rows: pd.DataFrame, pairs: set[tuple[int, int]]) -> np.ndarray:
    """(rows,) bool: whether (fold, seed) of each row is one of ``pairs``."""
    return np.array([pair in pairs for pair in zip(rows["fold"], rows["seed"], strict=True)], bool)


def _same_queries(rows: pd.DataFrame) -> pd.DataFrame:
    """Default runs only on the folds and seeds that the ablation has; each training once, whatever names it has."""
    own = rows[rows["variant"] != ""]
    if len(own):
        rows = rows[_within(rows, set(zip(own["fold"], own["seed"], strict=True)))]
    return rows.drop_duplicates(["config_hash", "fold", "seed", "metric", "k"])


def _preferred(rows: pd.DataFrame, cfgs: Mapping[str, Config], axes: Sequence[str]) -> set[str]:
    """Hashes of default runs; without any, of those that differ from today's default in nothing but ``axes``."""
    defaults = set(rows[rows["variant"] == ""]["config_hash"])
    if defaults or rows.empty:
        return defaults
    first = rows.iloc[0]
    today = Config.from_preset(first["preset"], first["dataset"], first["method"])
    return {name for name, cfg in cfgs.items() if set(_different(today, cfg)) <= set(axes)}


def _different(a: Config, b: Config) -> list[str]:
    """Fields in which two configurations give different hashes."""
    changed = [f.name for f in fields(Config) if getattr(a, f.name) != getattr(b, f.name)]
    return [name for name in changed if a.but(**{name: getattr(b, name)}).hash() != a.hash()]


def _means(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """``by``, runs, and for each of `METRICS` its mean and its standard deviation (``map@10``, ``map@10 sd``)."""
    found = store.summary(rows, METRICS, by=list(by))
    names = list(dict.fromkeys(name for name, _ in found.columns))
    out = pd.DataFrame({"runs": found[("map@10", "runs")].fillna(0).astype(int)}, index=found.index)
    for name in names:
        out[name], out[f"{name} sd"] = found[(name, "mean")], found[(name, "sd")]
    return out.reset_index()


def _empty(by: Sequence[str]) -> pd.DataFrame:
    names = [f"{metric}@{k}" if k else metric for metric, k in METRICS]
    return pd.DataFrame(columns=[*by, "runs", *(column for name in names for column in (name, f"{name} sd"))])


# --- the tables ------------------------------------------------------------------------------------------------------


def balance(runs: pd.DataFrame, dataset: str, group: str, source: str | Path | None = None) -> pd.DataFrame:
    """Each classification loss at each balance a of ``L = |a| s L_cls + |1 - a| L_seg``: mean and sd over runs of `METRICS`.

    runs : rows of `results.read_runs`. group : "quick" or "full". source : where ``configs/`` lies (default: committed results).

    Columns loss, a (a number from 0 to 1, or the word "trainable"), runs, then per metric its mean and sd (NaN for a single run).
    Two losses may differ in what was tuned for them (`TUNED_FIELDS`); two balances of one loss may not. Empty without rows.
    """
    by = ["loss", "a"]
    rows = _member_rows(runs, dataset, group, ("ynet", "ynet-circle"))
    cfgs = configurations(rows["config_hash"], source)
    cfgs = {name: cfg for name, cfg in cfgs.items() if cfg.loss in LOSSES}
    axes = ("balance", "balance_trainable")
    preferred = _preferred(rows[rows["method"] == "ynet"], cfgs, ("loss", *axes, *TUNED_FIELDS))
    alike = family(cfgs, ("loss", *axes), TUNED_FIELDS, preferred)
    defaults, kept = set(rows[rows["variant"] == ""]["config_hash"]), []
    for loss in LOSSES:
        one = {name: cfgs[name] for name in alike if cfgs[name].loss == loss}
        kept += family(one, axes, preferred=defaults & set(one) or set(one))
    rows = _same_queries(rows[rows["config_hash"].isin(kept)])
    if rows.empty:
        return _empty(by)
    loss = {name: cfgs[name].loss for name in kept}
    # a trained balance has a start and no value: it sorts behind the fixed ones
    place = {name: np.inf if cfgs[name].balance_trainable else cfgs[name].balance for name in kept}
    table = _means(rows.assign(loss=rows["config_hash"].map(loss), a=rows["config_hash"].map(place)), by)
    table = table.sort_values(by, key=lambda c: c.map(LOSSES.index) if c.name == "loss" else c, ignore_index=True)
    table["a"] = [("trainable" if np.isinf(value) else value) for value in table["a"]]
    return table


def balance_text(table: pd.DataFrame) -> str:
    """What the segmentation loss is worth to each classification loss: mAP@10 at a = .5 minus that at a = 1, in one sentence.

    table : of `balance`. Both points are fixed beforehand; the best a would be chosen on the queries it is scored on. Only where
    Y-Net pools by R-MAC is a = 1 the same network without that loss: elsewhere it pools inside a map that nothing teaches.
    Losses without both points are left out; without any the text is empty.
    """
    found = []
    for loss in LOSSES:
        own = table[table["loss"] == loss].set_index("a")["map@10"]
        if {0.5, 1.0} <= set(own.index):
            found.append(f"{plots.LOSS_NAMES[loss]} {100 * (own[0.5] - own[1.0]):+.1f}")
    return f"mAP@10 at a = .5 minus at a = 1 (no segmentation loss), in points: {', '.join(found)}." if found else ""


def bits(runs: pd.DataFrame, dataset: str, group: str, source: str | Path | None = None) -> pd.DataFrame:
    """Y-Net and its twin at each length of the code; the default run is the point at its own length (64).

    Columns method, bits, runs, then as in `balance`.
    """
    by = ["method", "bits"]
    parts = []
    for method in BITS_METHODS:
        rows = _member_rows(runs, dataset, group, (method,))
        cfgs = configurations(rows["config_hash"], source)
        kept = family(cfgs, ("bits",), preferred=_preferred(rows, cfgs, ("bits",)))
        rows = _same_queries(rows[rows["config_hash"].isin(kept)])
        if len(rows):
            parts.append(_means(rows, by))
    return pd.concat(parts, ignore_index=True) if parts else _empty(by)


def masks(runs: pd.DataFrame, dataset: str, group: str, source: str | Path | None = None) -> pd.DataFrame:
    """Y-Net with fewer outlines, and with worse ones.

    Columns share (of the training patients whose outline is seen, 0 to 1), quality ("exact", "dilated", "eroded", "box",
    "shifted": `training.degraded`), runs, then as in `balance`. The default run is share 1, exact.
    """
    by = ["share", "quality"]
    rows, cfgs = _mask_rows(runs, dataset, group, source)
    if rows.empty:
        return _empty(by)
    share, quality = ({name: getattr(cfg, field) for name, cfg in cfgs.items()} for field in MASK_AXES)
    table = _means(rows.assign(share=rows["config_hash"].map(share), quality=rows["config_hash"].map(quality)), by)
    order = ("exact", *MASK_QUALITIES)
    return table.sort_values(by[::-1], key=lambda c: c.map(order.index) if c.name == "quality" else c, ignore_index=True)


MASK_AXES = ("mask_share", "mask_quality")


def _mask_rows(runs: pd.DataFrame, dataset: str, group: str, source) -> tuple[pd.DataFrame, dict[str, Config]]:
    rows = _member_rows(runs, dataset, group, ("ynet",))
    cfgs = configurations(rows["config_hash"], source)
    kept = family(cfgs, MASK_AXES, preferred=_preferred(rows, cfgs, MASK_AXES))
    return _same_queries(rows[rows["config_hash"].isin(kept)]), {name: cfgs[name] for name in kept}


def twin(runs: pd.DataFrame, dataset: str, group: str, source: str | Path | None = None) -> float:
    """mAP@10 of the twin without segmentation on the folds and seeds of `masks`; NaN where it was not run alike on all."""
    own, cfgs = _mask_rows(runs, dataset, group, source)
    other = _member_rows(runs, dataset, group, ("ynet-no-seg",))
    other = other[(other["variant"] == "") & (other["metric"] == "map") & (other["k"] == 10)]
    wanted = set(zip(own["fold"], own["seed"], strict=True))
    other = other[_within(other, wanted)]
    if own.empty or set(zip(other["fold"], other["seed"], strict=True)) != wanted or other["config_hash"].nunique() != 1:
        return np.nan
    base = next(iter(cfgs.values())).but(mask_share=1.0, mask_quality="exact")
    (config,) = configurations(other["config_hash"], source).values()
    return float(other["value"].mean()) if set(_different(base, config)) <= {*METHODS["ynet-no-seg"], *TUNED_FIELDS} else np.nan


def common_folds(chosen: pd.DataFrame, method: str = "ynet") -> tuple[int, ...]:
    """The folds a comparison rests on: 2 to 5 where ``method`` and another have them all, else the first, else what there is."""
    have = {name: set(part["fold"]) for name, part in chosen.groupby("method")}
    own = have.pop(method, set())
    for folds in (HEADLINE_FOLDS, FOLDS[:1]):
        if own.issuperset(folds) and any(other.issuperset(folds) for other in have.values()):
            return tuple(folds)
    return tuple(sorted(own))


def losses(
    runs: pd.DataFrame, dataset: str, group: str, metric: str = "map", source: str | Path | None = None, n: int = 10_000
) -> pd.DataFrame:
    """Y-Net minus each of its ablations, query by query, in points with 95 % intervals by patient (`statistics.paired`).

    Positive: the part that is missing from the ablation helps. Columns method, without (what is taken away), ablated and ours
    (mean ``metric``@10 over the queries that both answered), points, low, high, p (Holm's correction over this table), p_least
    (of `statistics.compare_methods`), patients, runs (sets of queries x trainings), folds, note. One row per method of `PARTS`
    that has rows, in their order; where nothing can be compared the numbers are NaN and ``note`` says why: the same training as
    Y-Net, settings that differ in more than the ablated part, other folds or seeds. Empty without rows of Y-Net.
    """
    columns = "method without ablated ours points low high p p_least patients runs folds note".split()
    rows = _member_rows(runs, dataset, group, ("ynet", *PARTS))
    rows = rows[rows["variant"] == ""]
    ours = rows[rows["method"] == "ynet"]
    if ours.empty:
        return pd.DataFrame(columns=columns)
    if ours["config_hash"].nunique() > 1:
        raise ValueError(f"losses: Y-Net on {dataset} has several configurations ({', '.join(sorted(set(ours['config_hash'])))})")
    cfgs = configurations(rows["config_hash"], source)
    own = cfgs[ours["config_hash"].iloc[0]]
    folds = common_folds(rows)
    drawn = dataset in drawn_per_seed()
    found = []
    for method in [m for m in PARTS if m in set(rows["method"])]:
        part = rows[rows["method"] == method]
        line = dict.fromkeys(columns, np.nan) | {
            "method": method,
            "without": without(method, own),
            "p_least": False,
            "runs": "",
            "folds": folds,
            "note": "",
        }
        seeds = sorted(set(part["seed"]) & set(ours["seed"])) if drawn else None
        line["note"] = _why_not(own, [cfgs[name] for name in sorted(set(part["config_hash"]))], method, part, folds, seeds)
        if not line["note"]:
            same = rows[rows["fold"].isin(folds) & (rows["seed"].isin(seeds) if drawn else True)]
            got = statistics.compare_methods("ynet", [method], same, metric, folder=source, n=n).iloc[0]
            line |= {"ablated": got["mean_rival"], "ours": got["mean_ours"], "p": got["p"], "p_least": got["p_least"]}
            line |= {"points": got["points"], "low": got["points_low"], "high": got["points_high"]}
            line |= {"patients": got["patients"], "runs": got["runs_rival"]}
        found.append(line)
    table = pd.DataFrame(found, columns=columns)
    table["p"] = statistics.holm(table["p"].astype(float))
    return table


def groups(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """(dataset, group) of those `ABLATED` sets that Y-Net was run on."""
    found = set(runs[runs["method"] == "ynet"][["dataset", "preset"]].itertuples(index=False, name=None))
    return [one for one in ABLATED if one in found]


def _why_not(own: Config, others: list[Config], method: str, part: pd.DataFrame, folds: Sequence[int], seeds) -> str:
    """Why a method cannot be set against Y-Net; empty where it can."""
    if len(others) > 1:
        return "several configurations"
    other = others[0]
    if other.hash() == own.hash():
        return "the same training as Y-Net"
    allowed = {*METHODS[method], *TUNED_FIELDS}
    more = [name for name in _different(own, other) if name not in allowed]
    if more:
        return f"other settings: {', '.join(more)}"
    if not set(part["fold"]).issuperset(folds):
        return f"not run on fold {', '.join(str(f) for f in sorted(set(folds) - set(part['fold'])))}"
    if seeds is not None and not seeds:
        return "no seed in common"
    return ""


#: The sets for which ablations are run (`experiments.GRIDS`), with their preset.
ABLATED = (("phantom", "quick"), ("busbra", "full"))
