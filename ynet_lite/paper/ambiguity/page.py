"""The study as one page, from rows."""

import numpy as np
import pandas as pd

from .. import store, tables
from ..select import parts, published, select, sets

#: What `page` shows of a line of ``criteria.csv``; its other columns say of which rows it is, with all digits.
CRITERION = ["criterion", "aim", "found [95 %]", "verdict", "queries", "patients", "sets x trainings"]

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
    """The study as Markdown: criteria and means of every set."""
    rows, levels, text = published("ambiguity"), store.small("ambiguity/levels"), []
    criteria = store.small("ambiguity/criteria").fillna("")
    criteria = dict(tuple(criteria.groupby(["dataset", "preset", "variant", "part"])))
    for dataset, preset, variant in sets(rows):
        text += [f"## {dataset}, preset {preset}" + (f", {variant}" if variant else "") + "\n"]
        for name, part in parts(select(rows, dataset, preset, variant)):
            text += [f"### {name}\n"] if name else []
            text += [tables.markdown(criteria[dataset, preset, variant, name][CRITERION]) + "\n"]
            text += [tables.markdown(means_table(part, levels, columns)) + "\n" for columns in (MEANS, LOOKS)]
    return "\n".join(text)
