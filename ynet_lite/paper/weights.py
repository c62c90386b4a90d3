"""What ImageNet weights are worth, with outlines and without: rows of the second edition, pretrained against from scratch."""

import pandas as pd

from .. import paths
from ..methods import METHOD_NAMES, OURS, TWIN
from ..provenance import run_id
from . import statistics, store, tables
from .second import best, kept_trials, search, trial
from .select import headline, published, second, select
from .shares import METRICS

SHAPE = "mask_agreement"


def _rows(preset: str) -> dict[str, pd.DataFrame]:
    """Rows on folds 2 to 5 of BUS-BRA, by method."""
    return dict(tuple(second(preset).groupby("method")))


def minus(ours: pd.DataFrame, other: pd.DataFrame, metric: str = "map") -> str:
    """The difference of two methods in points, with an interval for other patients and other trainings."""
    a, b = (statistics.per_run_table(part, metric) for part in (ours, other))
    patients = a.drop_duplicates("case_id").set_index("case_id")["group"]  # the editions name them differently
    return statistics.interval_text(*statistics.trainings_interval(a, b.assign(group=b["case_id"].map(patients))))


def gains(ours: pd.DataFrame, other: pd.DataFrame) -> str:
    """`minus` in each of `METRICS`."""
    return ", ".join(f"{tables.MAIN[metric, 10]} {minus(ours, other, metric)}" for metric in METRICS)


def table() -> pd.DataFrame:
    """Networks that start from ImageNet weights minus networks from scratch, in points, each tuned for itself."""
    begun, scratch, lines = _rows("pretrained"), _rows("scratch"), []
    for method, other in ((OURS, OURS), (TWIN, TWIN), (TWIN, OURS)):
        line = {"with ImageNet weights": METHOD_NAMES[method], "minus, from scratch": METHOD_NAMES[other]}
        line["trainings"] = f"{begun[method]['run_id'].nunique()}, {scratch[other]['run_id'].nunique()}"
        lines.append(line | {tables.MAIN[m, 10]: minus(begun[method], scratch[other], m) for m in METRICS})
    return pd.DataFrame(lines)


def side_by_side() -> str:
    """Y-Net with ImageNet weights against the best of the paper's comparators, from scratch, and the best other on them."""
    begun, first = _rows("pretrained"), headline(select(published(), "busbra", "full"))
    dpsh, scratch = first[first["method"] == "dpsh"], _rows("scratch")[OURS]
    means = store.summary(store.seeds_averaged(second("pretrained")), [("map", 10)], by=("method",))["map@10", "mean"]
    rival = means.drop(OURS).idxmax()
    name = (METHOD_NAMES | {TWIN: "its twin"})[rival]
    return (
        f"Y-Net's mAP@10 with ImageNet weights, in points: minus DPSH from scratch and without outlines, the best of the paper's "
        f"comparators here, {minus(begun[OURS], dpsh)}; minus {name} with the same weights, the best other method "
        f"run on them, {minus(begun[OURS], begun[rival])}. From scratch Y-Net minus DPSH is {minus(scratch, dpsh)}."
    )


#: With outlines and without: two methods, how to name their difference, and the parameter of their losses.
PAIRS = (OURS, TWIN, "Y-Net minus its twin", "sharpness"), ("hashnet+seg", "hashnet", "HashNet + outlines minus HashNet", "scale")


def matched() -> pd.DataFrame:
    """Trials with ImageNet weights on fold 1: the points that outlines add, at settings of their own and at equal ones."""
    kept, lines = kept_trials("pretrained").set_index("run_id"), []
    for *pair, name, parameter in PAIRS:
        tried = {method: search("pretrained", method, paths.results(), jobs=None) for method in pair}  # runs nothing
        shared = sorted(set.intersection(*map(set, tried.values())))
        equal = f"equal {parameter} and rate, {len(shared)} pairs"
        for what, places in (("each its own", [[best(grid)] for grid in tried.values()]), (equal, [shared, shared])):
            line = {"trials": name, "settings": what}
            runs = [[run_id(trial("pretrained", m, one, 100)) for one in some] for m, some in zip(tried, places, strict=True)]
            for metric in METRICS[:3]:  # trials keep no accuracy
                ours, other = (100 * kept.loc[one, f"{metric}@10"].to_numpy() for one in runs)
                gain = ours - other
                ends = f" ({gain.min():+.1f} to {gain.max():+.1f})" if len(gain) > 1 else ""
                line[tables.MAIN[metric, 10]] = f"{gain.mean():+.1f}{ends}"
            lines.append(line)
    return pd.DataFrame(lines)


def _single(method: str, variant: str = "") -> pd.DataFrame:
    """Rows of one training a fold (seed 0) with ImageNet weights, folds 2 to 5."""
    rows = select(store.rows("second"), "busbra", "pretrained", variant)
    return rows[(rows["method"] == method) & (rows["seed"] == 0)]


def beside_hashnet() -> str:
    """HashNet with outlines minus HashNet with ImageNet weights on folds 2 to 5, at settings of their own and at equal ones."""
    begun, same = _rows("pretrained"), _single("hashnet", "settings of hashnet+seg")
    ours, own = begun["hashnet+seg"], begun["hashnet"]
    return (
        f"HashNet with outlines minus HashNet, in points. Each at its own settings, {own['run_id'].nunique()} trainings each: "
        f"{gains(ours, own)}. Both at the settings of the first, {same['run_id'].nunique()} trainings each: "
        f"{gains(_single('hashnet+seg'), same)}."
    )


def same_settings() -> str:
    """Y-Net minus its twin where both have Y-Net's rate and sharpness."""
    twin = _single(TWIN, "settings of ynet")
    left = minus(_single(OURS, "masks other"), twin, SHAPE)
    return (
        f"Both at Y-Net's settings, folds 2 to 5, one training a fold, in points: {gains(_single(OURS), twin)}. "
        f"With outlines of other images instead, Y-Net's mask agreement@10 minus that twin's is {left}."
    )


def wrong_outlines() -> str:
    """Y-Net, itself with other outlines and the same settings, and its twin: mask agreement."""
    ours, twin, said = _single(OURS), _single(TWIN), []
    for variant, words in (("masks other", "outlines of other images"), ("masks box", "boxes")):
        wrong = _single(OURS, variant)
        said.append(
            f"Y-Net minus itself with {words} {minus(ours, wrong, SHAPE)}; that minus the twin {minus(wrong, twin, SHAPE)}"
        )
    return f"Mask agreement@10 on folds 2 to 5, one training a fold, in points: {'. '.join(said)}."
