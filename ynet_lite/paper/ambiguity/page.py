"""The study as one page, from rows."""

import numpy as np
import pandas as pd

from ...methods import OURS, TWIN
from .. import statistics, store, tables
from ..select import parts, published, select, sets
from .criteria import criteria


def criteria_table(found: pd.DataFrame) -> pd.DataFrame:
    """`criteria` as text: criterion, aim, value with its 95 % interval, verdict, and what lies behind."""
    lines = []
    for row in found.itertuples(index=False):
        if row.kind == "ratio":
            aim = f"{'at most' if row.at_most else 'at least'} {100 * row.aim:.0f} %"
            shown = statistics.interval_text(*(100 * x for x in (row.value, row.low, row.high)), digits=0, signed=False)
            shown += "" if shown == "-" else " %"
        elif row.kind == "thirds":
            aim, shown = f"above {row.aim:.0f}", statistics.interval_text(row.value, row.low, row.high)
        else:
            aim = f"at least {row.aim:.2f}".replace("0.", ".")
            shown = statistics.share_text(row.value, row.low, row.high)
        verdict = ("reached" if row.reached else "missed") + ("" if row.sure else ", interval crosses the aim")
        lines.append(
            {"criterion": row.criterion, "aim": aim, "found [95 %]": shown, "verdict": verdict}
            | {"queries": row.queries, "patients": row.patients, "sets x trainings": row.runs}
        )
    return pd.DataFrame(lines)


#: Columns of the two tables of means, in this order; those without rows are left out.
MEANS = {
    "spdd_error": "SPDD error",
    "background_error": "background error",
    "dpsd_recall": "DPSD recall",
    "map_ambiguous": "mAP@10, ambiguous",
    "map_middle": "middle",
    "map_clear": "clear",
    "flips_background": "flips, background",
    "flips_lesion": "flips, lesion",
    "flips_control": "flips, control",
}

LOOKS = {
    "energy_ratio": "energy ratio",
    "energy_ratio_half_pixel": "half-pixel",
    "energy_ratio_elementwise": "cell by cell",
    "energy_ratio_c4": "on C4",
    "pointing": "pointing",
    "pointing_half_pixel": "pointing, half-pixel",
    "pointing_elementwise": "pointing, cell by cell",
}


def means_table(chosen: pd.DataFrame, levels: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Methods x metrics as text, mean ± standard deviation over runs (over folds where there are several), then the levels.

    ``columns``: {metric: heading}, such as `MEANS` or `LOOKS`. Levels that have none of these metrics are left out.
    """
    lists = dict(chosen[["metric", "k"]].drop_duplicates().itertuples(index=False, name=None))
    columns = {(metric, lists[metric]): name for metric, name in columns.items() if metric in lists}
    table = tables.retrieval_table(chosen, columns)
    here = levels[levels["fingerprint"].isin(set(chosen["fingerprint"])) & levels["fold"].isin(set(chosen["fold"]))]
    lines = []
    for name in dict.fromkeys(here["name"]):
        mean = here[here["name"] == name].groupby(["metric", "k"])["value"].mean()
        if set(mean.index) & set(columns):
            shown = {heading: tables.number(mean.get(key, np.nan), np.nan, 1) for key, heading in columns.items()}
            lines.append({"method": name, "runs": ""} | shown)
    return pd.concat([table, pd.DataFrame(lines)], ignore_index=True)


def page() -> str:
    """The study as Markdown: criteria and means of every set that has rows of Y-Net and of its twin."""
    rows, levels, text = published("ambiguity"), store.small("ambiguity/levels"), []
    for dataset, preset, variant in sets(rows):
        chosen = select(rows, dataset, preset, variant)
        if not {OURS, TWIN} <= set(chosen["method"]):
            continue
        text += [f"## {dataset}, preset {preset}" + (f", {variant}" if variant else "") + "\n"]
        for name, part in parts(chosen) or [("", chosen)]:
            if not {OURS, TWIN} <= set(part["method"]):
                continue
            text += [f"### {name}\n"] if name else []
            text += [tables.markdown(criteria_table(criteria(part))) + "\n"]
            text += [tables.markdown(means_table(part, levels, columns)) + "\n" for columns in (MEANS, LOOKS)]
    return "\n".join(text)
