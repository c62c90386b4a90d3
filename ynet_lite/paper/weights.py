"""What ImageNet weights are worth, with outlines and without: rows of the second edition, pretrained against from scratch."""

import pandas as pd

from .. import paths
from ..methods import METHOD_NAMES, OURS, TWIN
from ..provenance import run_id
from . import statistics, store, tables
from .second import best, kept_trials, search, trial
from .select import headline, published, second, select
from .shares import METRICS


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


def hashnet() -> str:
    """From scratch: what outlines add to HashNet, and Y-Net minus HashNet with outlines, each at settings of its own."""
    scratch = _rows("scratch")
    both = scratch["hashnet+seg"]
    return (
        "From scratch, in points, other patients and other trainings: HashNet with outlines minus HashNet: "
        f"{gains(both, scratch['hashnet'])}. Y-Net minus HashNet with outlines: {gains(scratch[OURS], both)}."
    )


def table() -> pd.DataFrame:
    """Networks that start from ImageNet weights minus networks from scratch, in points, each tuned for itself."""
    begun, scratch, lines = _rows("pretrained"), _rows("scratch"), []
    for method, other in ((OURS, OURS), (TWIN, TWIN), ("hashnet", "hashnet"), (TWIN, OURS)):
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


def matched(part: str = "pretrained", pairs=PAIRS) -> pd.DataFrame:
    """Trials of a part on fold 1: the points that outlines add, at the best settings of each so far and at equal ones."""
    kept, lines = kept_trials(part).set_index("run_id"), []
    for *pair, name, parameter in pairs:
        tried = {method: search(part, method, paths.results(), jobs=None) for method in pair}  # runs nothing
        shared = sorted(set.intersection(*map(set, tried.values())))
        equal = f"equal {parameter} and rate, {len(shared)} pairs"
        for what, places in (("each its own", [[best(grid)] for grid in tried.values()]), (equal, [shared, shared])):
            line = {"trials": name, "settings": what}
            runs = [[run_id(trial(part, m, one, 100)) for one in some] for m, some in zip(tried, places, strict=True)]
            for metric in METRICS[:3]:  # trials keep no accuracy
                ours, other = (100 * kept.loc[one, f"{metric}@10"].to_numpy() for one in runs)
                gain = ours - other
                ends = f" ({gain.min():+.1f} to {gain.max():+.1f})" if len(gain) > 1 else ""
                line[tables.MAIN[metric, 10]] = f"{gain.mean():+.1f}{ends}"
            lines.append(line)
    return pd.DataFrame(lines)


#: Runs with ImageNet weights that are set against each other: method and variant, minus method and variant.
DIFFERENCES = (
    (OURS, "", TWIN, ""),
    (OURS, "", TWIN, "settings of ynet"),
    (OURS, "", TWIN, "epochs x2"),
    (TWIN, "epochs x2", TWIN, ""),
    (OURS, "", OURS, "masks other"),
    (OURS, "masks other", TWIN, ""),
    (OURS, "masks other", TWIN, "settings of ynet"),
    (OURS, "", OURS, "masks box"),
    (OURS, "masks box", TWIN, ""),
    ("hashnet+seg", "", "hashnet", ""),
    ("hashnet+seg", "", "hashnet", "settings of hashnet+seg"),
)
NAMES = {"masks other": ", outlines of other images", "masks box": ", boxes", "epochs x2": ", twice the epochs"}
NAMES |= {"": "", "settings of ynet": " at Y-Net's settings", "settings of hashnet+seg": " at the same settings"}


def differences() -> pd.DataFrame:
    """A line for each of `DIFFERENCES` on folds 2 to 5, in points: trainings with the seeds that both have."""
    lines, runs = [], dict(tuple(select(store.rows("second"), "busbra", "pretrained", None).groupby(["method", "variant"])))
    for *ours, method, variant in DIFFERENCES:
        both = runs[*ours], runs[method, variant]
        pair = [part[part["seed"].isin(set.intersection(*(set(one["seed"]) for one in both)))] for part in both]
        names = (METHOD_NAMES[name].partition(":")[0] + NAMES[what] for name, what in (ours, (method, variant)))
        line = dict(zip(("of", "minus"), names, strict=True))
        line["trainings"] = ", ".join(str(part["run_id"].nunique()) for part in pair)
        lines.append(line | {tables.MAIN[metric, 10]: minus(*pair, metric) for metric in METRICS})
    return pd.DataFrame(lines)
