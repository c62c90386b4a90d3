"""What answers share with their query beside the class: a shortcut (the scanner) and a finer likeness (the BI-RADS category)."""

from __future__ import annotations

import pandas as pd

from .. import metrics, paths
from ..hashing import hamming
from ..methods import METHOD_NAMES, OURS, TWIN
from . import store


def shared(part: pd.DataFrame) -> pd.DataFrame:
    """What the ten answers share with their query beside the class: the scanner, and the BI-RADS category of right answers.

    From the committed codes of seed 0 and ``sets/data/busbra_devices.csv``; ties at their expected value.
    ``part``: rows of BUS-BRA.
    """
    cases = pd.read_csv(paths.splits() / "busbra_devices.csv", dtype=str).set_index("case_id")
    lines = []
    for method in (OURS, TWIN, "dpsh", "hashnet", "ath"):
        found = []
        for run in sorted(part[(part["method"] == method) & (part["seed"] == 0)]["run_id"].unique()):
            codes = store.codes(run)
            apart = hamming(codes["queries"].packed, codes["database"].packed)
            asked, known = (cases.loc[codes[side].ids] for side in ("queries", "database"))
            same = {name: asked[name].to_numpy()[:, None] == known[name].to_numpy() for name in cases.columns}
            shares = {name: metrics.precision(apart, same[name], 10).mean() for name in ("label", "device")}
            shares["both"] = metrics.precision(apart, same["label"] & same["birads"], 10).mean()
            found.append(shares | {"chance": same["device"].mean(), "cases": len(asked)})
        if found:
            table = pd.DataFrame(found)
            mean = table.mul(table["cases"], axis=0).sum() / table["cases"].sum()
            lines.append(
                {
                    "codes of": METHOD_NAMES[method],
                    "right class": f"{mean['label']:.1%}",
                    "same BI-RADS among the right": f"{mean['both'] / mean['label']:.1%}",
                    "same scanner": f"{mean['device']:.1%}",
                    "same scanner, by chance": f"{mean['chance']:.1%}",
                }
            )
    return pd.DataFrame(lines)


def scanners() -> pd.DataFrame:
    """Images and share of malignant ones of each scanner of BUS-BRA."""
    cases = pd.read_csv(paths.splits() / "busbra_devices.csv", dtype=str)
    grouped = cases["label"].eq("malignant").groupby(cases["device"]).agg(["size", "mean"])
    return pd.DataFrame({"scanner": grouped.index, "images": grouped["size"], "malignant": grouped["mean"].map("{:.1%}".format)})
