"""Ablations as tables: the balance of the two losses, length of the code, outlines, and what each loss buys.

Everything here reads committed rows (`ynet_lite.results.read_runs`) and trains nothing. What a run stands for is read from the
configuration behind its hash, not from its name. A table holds the settings that were run, however few; `missing` names the
others.

One table holds one **family**: configurations that differ in the ablated fields and in nothing else, so that a row of other
epochs or of another learning rate cannot stand between two that it does not fit to. A default run (empty variant) counts where
it fits, and only with the folds and seeds of the ablation: the mean over five phantoms is no point on a curve over two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import ablation_plots, metrics, paths, plots, results, statistics, tables
from .config import METHODS, TUNED, Config
from .experiments import BALANCES, BITS, FOLDS, LOSSES, MASK_QUALITIES, MASK_SHARES
from .hashing import Codes, hamming

#: What a table of an ablation shows: (metric, k).
METRICS = (("map", 10), ("precision", 10), ("ndcg", 10), ("dice", 0), ("distinct_codes", 0))

#: Fields that were tuned per method: two classification losses may differ in them and still be compared.
TUNED_FIELDS = tuple(sorted({name for settings in TUNED.values() for name in settings}))

BITS_METHODS = ("ynet", "ynet-no-seg")

#: What is taken away, or put in its place, in each method of `losses`.
PARTS = {
    "ynet-no-seg": "outlines: segmentation loss and pooling inside the predicted lesion",
    "ynet-rmac": "pooling inside the predicted lesion; R-MAC instead",
    "ynet-lesion": "the pooling; C4 and C5 pooled inside the predicted lesion instead",
    "ynet-selfpool": "outlines; the same pooling, its weights learned without them",
    "ynet-no-cls": "classification loss (a = 0)",
    "ynet-no-quant": "quantisation loss",
    "ynet-circle": "pairwise loss; the paper's Circle loss instead",
}

#: The same where Y-Net pools by R-MAC, as validation chose for BUS-BRA: there is no pooling inside the lesion to take away.
RMAC_PARTS = PARTS | {
    "ynet-no-seg": "outlines: segmentation loss",
    "ynet-rmac": "nothing: Y-Net pools by R-MAC here",
    "ynet-lesion": "R-MAC; C4 and C5 pooled inside the predicted lesion instead",
    "ynet-selfpool": "outlines and R-MAC; pooling with weights learned without outlines instead",
}


def without(method: str, own: Config) -> str:
    """What ``method`` lacks, in words, where Y-Net has the configuration ``own``."""
    return (RMAC_PARTS if own.pooling == "rmac" else PARTS)[method]


#: Fold 1 is the development fold of a real set: a claim rests on the others where they were run.
HEADLINE_FOLDS = FOLDS[1:]

#: Most lines that a figure of methods can hold and still be read.
MOST_LINES = 8

PUBLISHED_NOTE = (
    "Theirs, on other data: outputs stored in the released notebooks of Fang et al. (DOI 10.1109/JBHI.2021.3082531), single "
    "runs, mAP divided by k. Not comparable with our rows, which divide by min(k, relevant cases) and stand on other images."
)


# --- which rows belong together --------------------------------------------------------------------------------------


def configurations(hashes: Iterable[str], source: str | Path | None = None) -> dict[str, Config]:
    """The configuration behind each hash, from ``source/configs`` (default: the committed results).

    Raises ``ValueError`` for a hash without a file, since a row without its configuration says nothing.
    """
    source = Path(source) if source else paths.results()
    found = {}
    for name in sorted(set(hashes)):
        path = source / "configs" / f"{name}.json"
        if not path.is_file():
            raise ValueError(f"configurations: no file {path}; each row needs the configuration behind its config_hash")
        found[name] = Config.from_json(path.read_text())
    return found


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
    found = results.summary(rows, METRICS, by=list(by))
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
    cfgs = {name: cfg for name, cfg in cfgs.items() if cfg.cls_loss in LOSSES}
    axes = ("balance", "balance_trainable")
    preferred = _preferred(rows[rows["method"] == "ynet"], cfgs, ("cls_loss", *axes, *TUNED_FIELDS))
    alike = family(cfgs, ("cls_loss", *axes), TUNED_FIELDS, preferred)
    defaults, kept = set(rows[rows["variant"] == ""]["config_hash"]), []
    for loss in LOSSES:
        one = {name: cfgs[name] for name in alike if cfgs[name].cls_loss == loss}
        kept += family(one, axes, preferred=defaults & set(one) or set(one))
    rows = _same_queries(rows[rows["config_hash"].isin(kept)])
    if rows.empty:
        return _empty(by)
    loss = {name: cfgs[name].cls_loss for name in kept}
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
            found.append(f"{ablation_plots.LOSS_NAMES[loss]} {100 * (own[0.5] - own[1.0]):+.1f}")
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
    drawn = dataset in statistics.DRAWN_PER_SEED
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
            got = statistics.compare_methods(
                "ynet", [method], dataset, group, folds, metric, seeds=seeds, folder=source, runs=rows, n=n
            ).iloc[0]
            line |= {"ablated": got["mean_rival"], "ours": got["mean_ours"], "p": got["p"], "p_least": got["p_least"]}
            line |= {"points": got["points"], "low": got["points_low"], "high": got["points_high"]}
            line |= {"patients": got["patients"], "runs": got["runs_rival"]}
        found.append(line)
    table = pd.DataFrame(found, columns=columns)
    table["p"] = statistics.holm(table["p"].astype(float))
    return table


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
        out[column] = table[column].map(plots.METHOD_NAMES) if column == "method" else table[column]
    if "share" in out:
        out["share"] = [f"{share:.0%}" for share in table["share"]]
    for metric, k in METRICS:
        name = f"{metric}@{k}" if k else metric
        heading = tables.MAIN[(metric, k)]
        triples = zip(table[name], table[f"{name} sd"], table["runs"], strict=True)
        out[heading] = [tables.number(mean, sd, int(n)) for mean, sd, n in triples]
    return out


#: Names of sets for titles.
SET_NAMES = {"phantom": "phantom", "busbra": "BUS-BRA"}
#: The sets for which ablations are run (`experiments.GRIDS`), with their preset.
ABLATED = (("phantom", "quick"), ("busbra", "full"))


def groups(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """(dataset, group) of those `ABLATED` sets that Y-Net was run on."""
    found = set(runs[runs["method"] == "ynet"][["dataset", "preset"]].itertuples(index=False, name=None))
    return [one for one in ABLATED if one in found]


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
    files = paths.listed((Path(source) if source else paths.results()) / "tuning" / "trials")
    if not files:
        return pd.DataFrame(columns=["preset", "dataset", "method", "trials", "worst", "best"])
    found = pd.concat([pd.read_csv(path)[["preset", "dataset", "method", "val_map10"]] for path in files], ignore_index=True)
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


# --- figures ---------------------------------------------------------------------------------------------------------


def chance_level(dataset: str, group: str, source: str | Path | None = None) -> dict[tuple[str, int], float]:
    """{(metric, k): value} of random codes on this set; empty where nothing is committed."""
    path = (Path(source) if source else paths.results()) / "chance" / f"{dataset}-{group}.csv"
    return pd.read_csv(path).set_index(["metric", "k"])["value"].to_dict() if path.is_file() else {}


def _one_fold_set(runs: pd.DataFrame, dataset: str, group: str) -> pd.DataFrame:
    """Default runs on common folds, of the methods that have them all; the same training under another name once."""
    rows = _member_rows(runs, dataset, group, tuple(plots.METHOD_NAMES))
    rows = rows[rows["variant"] == ""]
    folds = common_folds(rows)
    rows = rows[rows["fold"].isin(folds)]
    have = rows.groupby("method")["fold"].nunique()
    rows = rows[rows["method"].isin(have.index[have == len(folds)])]
    ours = set(rows[rows["method"] == "ynet"]["config_hash"])
    return rows[(rows["method"] == "ynet") | ~rows["config_hash"].isin(ours)]


def by_list(runs: pd.DataFrame, dataset: str, group: str, most: int = MOST_LINES) -> pd.DataFrame:
    """mAP@k of methods: columns method, k, map, sd, runs, on the folds of `common_folds`, seeds of a fold averaged first.

    Where more than ``most`` methods have rows, Y-Net, its twin, the paper's network and the released one stay, and the best of
    the others by mAP@10 fill up: rivals where there are any, else parts of Y-Net.
    """
    rows = _one_fold_set(runs, dataset, group)
    rows = rows[rows["metric"] == "map"]
    if rows.empty:
        return pd.DataFrame(columns=["method", "k", "map", "sd", "runs"])
    rows = results.seeds_averaged(rows) if rows["fold"].nunique() > 1 else rows
    table = rows.groupby(["method", "k"], as_index=False)["value"].agg(["mean", "std", "count"])
    table = table.rename(columns={"mean": "map", "std": "sd", "count": "runs"})
    kept = _shown_methods(table[table["k"] == 10].set_index("method")["map"], most)
    table["place"] = table["method"].map({name: place for place, name in enumerate(kept)})
    return table.dropna(subset="place").sort_values(["place", "k"], ignore_index=True).drop(columns="place")


def _shown_methods(scores: pd.Series, most: int) -> list[str]:
    always = [name for name in ("ynet", "ynet-no-seg", "ynet-paper", "released") if name in scores.index]
    others = scores.drop(always).sort_values(ascending=False, kind="stable").index.tolist()
    # parts of Y-Net have a figure of their own and leave these lines to its rivals
    others = [name for name in others if name not in PARTS] or others
    kept = {*always, *others[: max(0, most - len(always))]}
    return scores[[name in kept for name in scores.index]].sort_values(ascending=False, kind="stable").index.tolist()


def pr_curves(
    runs: pd.DataFrame, dataset: str, group: str, source: str | Path | None = None, most: int = MOST_LINES
) -> tuple[pd.DataFrame, float]:
    """Precision against recall from the committed codes: (columns method, recall, precision; level of a random ranking).

    Only methods that end in a code and whose codes are committed, one training per fold (its lowest seed), on the folds of
    `common_folds`; curves of several folds are averaged. The level is the mean share of the query's class in the database.
    Empty, NaN without codes.
    """
    source = Path(source) if source else paths.results()
    rows = _member_rows(runs, dataset, group, tuple(plots.METHOD_NAMES))
    rows = rows[rows["variant"] == ""][["method", "config_hash", "fold", "seed", "run_id"]].drop_duplicates()
    there = [
        all((source / "codes" / f"{run}.{side}.npz").is_file() for side in ("queries", "database")) for run in rows["run_id"]
    ]
    rows = _one_fold_set(runs[runs["run_id"].isin(rows["run_id"][np.array(there, bool)])], dataset, group)
    if rows.empty:
        return pd.DataFrame(columns=["method", "recall", "precision"]), np.nan
    scores = rows[(rows["metric"] == "map") & (rows["k"] == 10)].groupby("method")["value"].mean()
    curves, levels = [], []
    for method in _shown_methods(scores, most):
        own = rows[rows["method"] == method].sort_values("seed").drop_duplicates("fold").sort_values("fold")
        found = []
        for run in own["run_id"]:
            queries, database = (Codes.load(source / "codes" / f"{run}.{side}.npz") for side in ("queries", "database"))
            relevance = queries.labels[:, None] == database.labels
            recall, precision = metrics.precision_recall_curve(hamming(queries.packed, database.packed), relevance)
            found.append(precision)
            levels.append(relevance.mean())
        curves.append(pd.DataFrame({"method": method, "recall": recall, "precision": np.mean(found, axis=0)}))
    return pd.concat(curves, ignore_index=True), float(np.mean(levels))


#: What the variants of an ablation are called; "losses", "lists" and "pr" are made of default runs.
_VARIANTS = {"balance": "a=", "bits": "bits=", "masks": "masks"}


def where(what: str, runs: pd.DataFrame, dataset: str, group: str) -> str:
    """The set that an ablation stands on, as a title: ``BUS-BRA, folds 2 to 5``; ``phantom, seeds 0 and 1``."""
    rows = _member_rows(runs, dataset, group, tuple(plots.METHOD_NAMES))
    if what in _VARIANTS:
        rows = rows[rows["variant"].str.contains(_VARIANTS[what], regex=False)]
        folds = sorted(set(rows["fold"]))
    else:
        rows = rows[rows["variant"] == ""]
        folds = list(common_folds(rows))
    drawn = dataset in statistics.DRAWN_PER_SEED
    numbers, name = (sorted(set(rows["seed"])), "seed") if drawn else (folds, "fold")
    text = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 2 else " and ".join(str(n) for n in numbers)
    return f"{SET_NAMES.get(dataset, dataset)}, {name}{'s' if len(numbers) > 1 else ''} {text}"


def figure(what: str, runs: pd.DataFrame, dataset: str, group: str, source: str | Path | None = None) -> Figure | None:
    """One figure of a set, or None where too few rows exist to compare anything.

    what : "losses", "balance", "masks", "bits", "lists" (mAP by length of the list) or "pr" (precision against recall).
    """
    level, title = chance_level(dataset, group, source), where(what, runs, dataset, group)
    if what == "lists":
        table = by_list(runs, dataset, group)
        return ablation_plots.lists_figure(table, level, title) if table["method"].nunique() > 1 else None
    if what == "pr":
        table, random = pr_curves(runs, dataset, group, source)
        return ablation_plots.pr_figure(table, random, title) if table["method"].nunique() > 1 else None
    if what not in TABLES:
        raise ValueError(f"figure: {what!r} is not known; known are {', '.join(FIGURES)}")
    table = TABLES[what](runs, dataset, group, source=source)
    if what == "losses":
        table = table.dropna(subset="points")
        return ablation_plots.losses_figure(table, where=title) if len(table) else None
    if len(table) < 2 or (what == "bits" and table["bits"].nunique() < 2):
        return None
    if what == "masks":
        return ablation_plots.masks_figure(table, twin(runs, dataset, group, source), level, title)
    return {"balance": ablation_plots.balance_figure, "bits": ablation_plots.bits_figure}[what](table, level, title)


FIGURES = (*TABLES, "lists", "pr")


def make(folder: str | Path, runs: pd.DataFrame, source: str | Path | None = None) -> list[Path]:
    """Write ``ablation-<what>-<dataset>.png`` for everything that has rows; returns the files. Same rows, same bytes."""
    plots.use_style()
    made = []
    for dataset, group in groups(runs):
        for what in FIGURES:
            drawn = figure(what, runs, dataset, group, source)
            if drawn is not None:
                made.append(plots.save(drawn, Path(folder) / f"ablation-{what}-{dataset}.png"))
    return made
