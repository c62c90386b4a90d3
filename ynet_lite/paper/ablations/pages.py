"""The ablations as pages of text."""

import numpy as np
import pandas as pd

from ... import methods, paths
from .. import statistics, store, tables
from . import ablated
from .ablated import ABLATED, METRICS, SETTINGS

HEADINGS = {"losses": "What each loss buys: Y-Net minus the ablation, mAP@10 in points"}
HEADINGS |= {what: one.heading for what, one in SETTINGS.items()}


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table of this module as readers see it: mean ± sd in one column, intervals in brackets, a dash where there is nothing."""
    if "points" in table:
        out = table[["without"]].copy()
        for heading, column in (("mAP@10", "ablated"), ("Y-Net's", "ours")):
            out[heading] = [tables.number(value, np.nan, 1) for value in table[column]]
        out["points"] = [statistics.interval_text(*row) for row in table[["points", "low", "high"]].to_numpy(float)]
        out["p (Holm)"] = list(map(statistics.p_text, table["p"], table["p_least"]))
        return out.assign(**{"sets x runs": table["runs"].fillna("-"), "note": table["note"]})
    out = pd.DataFrame(index=table.index)
    for column in table.columns[: list(table.columns).index("runs") + 1]:
        out[column] = table[column].map(methods.METHOD_NAMES) if column == "method" else table[column]
    if "share" in out:
        out["share"] = [f"{share:.0%}" for share in table["share"]]
    for metric, k in METRICS:
        name = f"{metric}@{k}" if k else metric
        out[tables.MAIN[(metric, k)]] = list(map(tables.number, table[name], table[f"{name} sd"], table["runs"]))
    return out


def text(runs: pd.DataFrame, n: int = 10_000) -> str:
    """All ablations as one Markdown page. ``n``: bootstrap replicates."""
    page = [
        "# Ablations\n\nFrom the rows in `data/results/`. Mean ± standard deviation over runs (folds and seeds) where there are "
        "several. Every planned setting was run. Points: Y-Net minus the ablation, query by query, 95 % intervals by bootstrap "
        "of patients; positive means that the part helps.\n"
    ]
    for dataset, group in ABLATED:
        page.append(f"## {dataset}, preset {group}\n")
        for what, heading in HEADINGS.items():
            given = runs, dataset, group
            table = ablated.losses(*given, n) if what == "losses" else ablated.table(what, *given)
            page += [f"### {heading}\n", tables.markdown(as_text(table)) + "\n"]
    return "\n".join(page)


def published_table() -> pd.DataFrame:
    """Methods x lists per set as text: what the released notebooks store, on other data, mAP divided by k. No results of ours."""
    rows = pd.read_csv(paths.results() / "published" / "notebooks.csv")
    rows["list"] = rows["set"] + " @" + rows["k"].astype(str)
    wide = rows.pivot(index="method", columns="list", values="map_over_k").loc[rows["method"].unique()]
    wide = wide[[f"{name} @{k}" for name in rows["set"].unique() for k in sorted(rows["k"].unique())]]
    shown = wide.map(lambda value: "-" if np.isnan(value) else f"{value:.4f}".removeprefix("0"))
    return shown.rename_axis("method (theirs)").rename_axis(columns=None).reset_index()


def trials_table() -> pd.DataFrame:
    """How far tuning alone moves a method: preset, dataset, method, trials, worst, best (mAP@10 of validation patients)."""
    trials = store.small("tuning/trials").groupby(["preset", "dataset", "method"], as_index=False)["val_map10"]
    return trials.agg(trials="count", worst="min", best="max")
