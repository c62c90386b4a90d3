"""Result rows: one small CSV per run, written once, read by every table and figure."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from .. import paths
from ..config import UNHASHED, Config
from ..paths import write_csv
from ..provenance import commit, device_name, run_id, versions

COLUMNS = (
    "run_id config_hash dataset fingerprint fold seed preset method variant bits metric k value "
    "seconds device versions commit dirty date"
).split()

#: Per-query values that are kept: enough for paired tests by patient, small enough to commit.
PER_QUERY_METRICS = ("map", "map_hits", "precision", "ndcg", "mask_agreement", "dice")


def rows(cfg: Config, fingerprint: str, values: pd.DataFrame, seconds: float, made_by: tuple[str, bool] | None = None):
    """Result rows of one run from ``values`` (columns metric, k, value). ``made_by``: `commit` of the code that trained."""
    name, dirty = made_by or commit()
    table = values[["metric", "k", "value"]].copy()
    about = {
        "run_id": run_id(cfg, fingerprint),
        "config_hash": cfg.hash(),
        "dataset": cfg.dataset,
        "fingerprint": fingerprint[:16],
        "fold": cfg.fold,
        "seed": cfg.seed,
        "preset": cfg.preset,
        "method": cfg.method,
        "variant": cfg.variant,
        "bits": cfg.bits,
        "seconds": seconds,
        "device": device_name(cfg),
        "versions": versions(),
        "commit": name,
        "dirty": dirty,
        "date": datetime.date.today().isoformat(),
    }
    for key, value in about.items():
        table[key] = value
    return table[COLUMNS]


def write_run(
    cfg: Config, fingerprint: str, values: pd.DataFrame, per_query: pd.DataFrame, seconds: float, folder=None, made_by=None
) -> Path:
    """Write the rows of a run to ``folder/runs`` and its per-query values (k = 10) to ``folder/per_query``."""
    folder = Path(folder) if folder else paths.out() / "results"
    kept = per_query[per_query["metric"].isin(PER_QUERY_METRICS) & per_query["k"].isin([0, 10])]
    write_csv(kept, folder / "per_query" / f"{run_id(cfg, fingerprint)}.csv")
    config = folder / "configs" / f"{cfg.hash()}.json"
    if not config.is_file():
        # what the hash leaves out is left at its default: runs of several names may share the file
        neutral = cfg.but(**{f.name: f.default for f in fields(Config) if f.name in UNHASHED})
        with paths.replacing(config) as temporary:
            temporary.write_text(neutral.to_json() + "\n")
    return write_csv(rows(cfg, fingerprint, values, seconds, made_by), folder / "runs" / f"{run_id(cfg, fingerprint)}.csv")


def read_run(path: str | Path) -> pd.DataFrame:
    """The rows of one run file. Raises ``ValueError`` for a file that lacks a column."""
    # a hash made of digits alone is still text
    table = pd.read_csv(path, dtype={"variant": str, "commit": str, "config_hash": str, "fingerprint": str})
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise ValueError(f"{path}: columns {missing} are missing; a run file has {COLUMNS}")
    return table.fillna({"variant": ""})


def read_runs(folder: str | Path | None = None) -> pd.DataFrame:
    """All result rows under ``folder/runs`` (default: the committed ones), in a fixed order."""
    folder = Path(folder) if folder else paths.results()
    tables = []
    for path in paths.listed(folder / "runs"):
        tables.append(read_run(path))
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(tables, ignore_index=True)


def summary(
    table: pd.DataFrame, metrics: Iterable[tuple[str, int]], by=("dataset", "preset", "variant", "method")
) -> pd.DataFrame:
    """Mean, standard deviation (n - 1) and number of runs of each (metric, k), one row per combination of ``by``.

    Columns are ``(metric@k, "mean" | "sd" | "runs")``. A single run has no spread: its sd is NaN, shown as a dash.
    """
    by = list(by)
    out = {}
    for metric, k in metrics:
        chosen = table[(table["metric"] == metric) & (table["k"] == k)]
        grouped = chosen.groupby(by, sort=True)["value"]
        name = f"{metric}@{k}" if k else metric
        out[(name, "mean")], out[(name, "sd")], out[(name, "runs")] = grouped.mean(), grouped.std(), grouped.count()
    return pd.DataFrame(out)


def seeds_averaged(runs: pd.DataFrame) -> pd.DataFrame:
    """One value per method, fold and number: the mean over the seeds that were run on the same queries.

    Without it a fold that was run three times would weigh three times as much as one that was run once. Where a seed makes other
    data (the phantom), nothing is averaged: the fingerprint tells them apart.
    """
    keys = ["dataset", "fingerprint", "config_hash", "preset", "method", "variant", "bits", "fold", "metric", "k"]
    return runs.groupby(keys, sort=False, as_index=False)["value"].mean()


def compare(committed: pd.DataFrame, yours: pd.DataFrame, tolerance: float = 0.08) -> pd.DataFrame:
    """*committed | yours | tolerance | same?* for every number of ``yours`` that was committed for the same run and data.

    ``same?`` is "identical" at the committed digits, "within" the tolerance, or "differs". Numbers with no committed
    counterpart say "new". Other processors add in another order, and a training amplifies that: with AVX2
    instead of AVX-512 kernels one short training moved by .006 and another by .035 in mAP@10. The default is about twice that.
    """
    keys = ["run_id", "fingerprint", "metric", "k"]
    merged = yours[[*keys, "method", "value"]].merge(
        committed[[*keys, "value"]], on=keys, how="left", suffixes=("_yours", "_committed")
    )
    gap = (merged["value_yours"] - merged["value_committed"]).abs()
    verdict = np.select(
        [merged["value_committed"].isna(), gap <= 1e-5 * merged["value_committed"].abs() + 1e-9, gap <= tolerance],
        ["new", "identical", "within"],
        "differs",
    )
    return pd.DataFrame(
        {
            "method": merged["method"],
            "metric": merged["metric"],
            "k": merged["k"],
            "committed": merged["value_committed"],
            "yours": merged["value_yours"],
            "tolerance": tolerance,
            "same?": verdict,
        }
    )
