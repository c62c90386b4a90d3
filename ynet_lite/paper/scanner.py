"""What answers share with their query beside the class: a shortcut (the scanner) and a finer likeness (the BI-RADS category)."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from .. import metrics, paths
from ..hashing import hamming
from ..methods import METHOD_NAMES, OURS, TWIN
from . import select, statistics, store, tables, weights
from .controls import UNSEEN
from .second import SCANNER

SHOWN = (OURS, TWIN, "dpsh", "hashnet", "ath")


def _searches(part: pd.DataFrame, method: str) -> Iterator[tuple[pd.DataFrame, np.ndarray, dict[str, np.ndarray]]]:
    """Of each run of seed 0: its queries, their distances to the database, and which pairs share a label, scanner, category."""
    cases = pd.read_csv(paths.splits() / "busbra_devices.csv", dtype=str).set_index("case_id")
    for run in sorted(part[(part["method"] == method) & (part["seed"] == 0)]["run_id"].unique()):
        codes = store.codes(run)
        asked, known = (cases.loc[codes[side].ids] for side in ("queries", "database"))
        same = {name: asked[name].to_numpy()[:, None] == known[name].to_numpy() for name in cases.columns}
        yield asked, hamming(codes["queries"].packed, codes["database"].packed), same


def _crossed(part: pd.DataFrame, method: str) -> pd.DataFrame:
    """Average precision of each query where every case may answer, only those of its scanner, and only those of others."""
    found = [pd.DataFrame()]
    for asked, apart, same in _searches(part, method):
        allowed = {"all cases": np.ones_like(apart, bool), "own scanner": same["device"], "other scanners": ~same["device"]}
        # a case that may not answer is put behind all others
        scores = {
            name: metrics.average_precision(np.where(may, apart, np.iinfo(apart.dtype).max), same["label"] & may, 10)
            for name, may in allowed.items()
        }
        found.append(pd.DataFrame(scores, asked.index).reset_index())
    return pd.concat(found)


def crossed(part: pd.DataFrame) -> pd.DataFrame:
    """mAP@10 where every case may answer, only those of the query's scanner, and only those of other scanners; as `shared`.

    With Y-Net minus each method among other scanners, in points, with its interval by patient.
    """
    values = {method: found for method in SHOWN if len(found := _crossed(part, method))}
    groups = store.per_query(part[part["method"] == OURS]["run_id"].unique(), "map", 10).drop_duplicates("case_id")
    lines = []
    for method, table in values.items():
        line = {"codes of": METHOD_NAMES[method]} | {name: f"{table[name].mean():.3f}"[1:] for name in table.columns[1:]}
        pair = [one.rename(columns={"other scanners": "value"}) for one in (values[OURS], table)]
        lead = "-" if method == OURS else statistics.interval_text(*statistics.paired(*pair, groups).difference)
        lines.append(line | {"Y-Net minus it, other scanners": lead})
    return pd.DataFrame(lines)


def shared(part: pd.DataFrame) -> pd.DataFrame:
    """What the ten answers share with their query beside the class: the scanner, and the BI-RADS category of right answers.

    From the committed codes of seed 0 and ``sets/data/busbra_devices.csv``; ties at their expected value.
    ``part``: rows of BUS-BRA.
    """
    lines = []
    for method in SHOWN:
        found = []
        for asked, apart, same in _searches(part, method):
            shares = {name: metrics.precision(apart, same[name], 10).mean() for name in ("label", "device")}
            shares["both"] = metrics.precision(apart, same["label"] & same["birads"], 10).mean()
            found.append(shares | {"chance": same["device"].mean(), "cases": len(asked)})
        if found:
            table = pd.DataFrame(found)
            mean = table.mul(table["cases"], axis=0).sum() / table["cases"].sum()
            line = {"codes of": METHOD_NAMES[method], "right class": f"{mean['label']:.1%}"}
            line |= {"same BI-RADS among the right": f"{mean['both'] / mean['label']:.1%}"}
            lines.append(line | {"same scanner": f"{mean['device']:.1%}", "same scanner, by chance": f"{mean['chance']:.1%}"})
    return pd.DataFrame(lines)


def unseen(part: pd.DataFrame) -> str:
    """Y-Net and its twin where the scanner `UNSEEN` asks networks that never saw it; ``part``: rows of networks that did."""
    rows, equal = (select.select(store.rows("second"), "busbra", "pretrained", variant) for variant in SCANNER)
    both, levels, costs = {method: rows[rows["method"] == method] for method in (OURS, TWIN)}, [], []
    for method, own in both.items():
        asked = statistics.per_query_table(own)
        saw = _crossed(part, method).rename(columns={"other scanners": "value"}).merge(asked[["case_id"]])
        lost = statistics.paired(saw, asked[["case_id", "value"]], asked)
        levels.append(f"{METHOD_NAMES[method]} {tables.number(lost.mean_b, np.nan, 1)}")
        costs.append(f"{METHOD_NAMES[method]} {statistics.interval_text(*lost.difference)}")
    return (
        f"{len(asked)} queries of the {UNSEEN.split(' @')[0]}, answered by cases of other scanners; trainings of each: "
        f"{own['run_id'].nunique()}. mAP@10 where the scanner is new: {', '.join(levels)}. Networks that saw it have more, in "
        f"points: {', '.join(costs)}. Where it is new, Y-Net minus its twin, in points: {weights.gains(*both.values())}; "
        f"minus the twin at Y-Net's settings: {weights.gains(both[OURS], equal)}."
    )


def scanners() -> pd.DataFrame:
    """Images and share of malignant ones of each scanner of BUS-BRA."""
    cases = pd.read_csv(paths.splits() / "busbra_devices.csv", dtype=str)
    grouped = cases["label"].eq("malignant").groupby(cases["device"]).agg(["size", "mean"])
    return pd.DataFrame({"scanner": grouped.index, "images": grouped["size"], "malignant": grouped["mean"].map("{:.1%}".format)})
