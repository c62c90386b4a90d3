"""Aims set beforehand against results, from committed rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ... import attribution
from .. import statistics, store
from ..select import published
from .measure import _aligned

# --- what the rows say -----------------------------------------------------------------------------------------------


def read_rows(folder: str | Path | None = None) -> pd.DataFrame:
    """All rows of the study under ``folder`` (default: the committed results), in a fixed order."""
    return published(part="ambiguity") if folder is None else store.read_runs(folder, "ambiguity")


def read_levels(folder: str | Path | None = None) -> pd.DataFrame:
    """Chance levels and maps without a model: dataset, fingerprint, fold, name, metric, k, value."""
    found = store.small("ambiguity/levels", folder)
    return found.reindex(columns=["dataset", "fingerprint", "fold", "name", "metric", "k", "value"])


def select(rows: pd.DataFrame, dataset: str, preset: str, variant: str = "", folds: Iterable[int] | None = None) -> pd.DataFrame:
    """Rows of one set, preset and variant; of these folds."""
    chosen = rows[(rows["dataset"] == dataset) & (rows["preset"] == preset) & (rows["variant"] == variant)]
    return chosen if folds is None else chosen[chosen["fold"].isin(list(folds))]


def first_rule(rows: pd.DataFrame) -> list[str]:
    """Methods with runs whose plain attention metrics follow the first rule instead of `attribution.AUTO`, in sorted order.

    The first rule took half a pixel for networks with a segmentation branch. Such runs are told by their values: the plain energy
    ratio is a copy of that of the alignment behind it.
    """
    wide = rows[rows["metric"].isin(("energy_ratio", RULED))].pivot_table(
        index=["run_id", "method"], columns="metric", values="value"
    )
    if not {"energy_ratio", RULED} <= set(wide):
        return []
    return sorted(set(wide.index[wide["energy_ratio"] != wide[RULED]].get_level_values("method")))


def per_query_values(rows: pd.DataFrame, method: str, metric: str, folder: str | Path | None = None) -> pd.DataFrame:
    """One value per query of one method, the mean over its trainings, as `statistics.paired` takes it.

    ``rows``: `select`-ed rows. Columns fingerprint, fold, case_id, value, runs. Runs from before the rule of alignment kept the
    values of ``pointing`` under its plain name only; they are taken from there where that means the same. Raises ``ValueError``
    where there is no such run, where its runs have several configurations, or (`NotKept`) where a file lacks the metric.
    """
    runs = rows[rows["method"] == method].drop_duplicates("run_id")
    if runs.empty:
        raise ValueError(f"per_query_values: no run of {method}; there are runs of {sorted(rows['method'].unique())}")
    if runs["config_hash"].nunique() > 1:
        raise ValueError(f"per_query_values: runs of {method} have several configurations: {sorted(set(runs['config_hash']))}")
    means = rows.drop_duplicates(["run_id", "metric"]).set_index(["run_id", "metric"])["value"]
    parts = []
    kept = store.per_query(runs["run_id"], None, None, folder, "ambiguity")
    for one in runs.itertuples(index=False):
        table = kept[kept["run_id"] == one.run_id]
        chosen = table[table["metric"] == metric]
        if chosen.empty:
            plain = metric.removesuffix("_receptive_field").removesuffix("_half_pixel")
            if means.get((one.run_id, metric)) != means.get((one.run_id, plain), np.nan):
                raise NotKept(f"per_query_values: run {one.run_id} has no {metric} of its queries")
            chosen = table[table["metric"] == plain]
        parts.append(chosen[["case_id", "group", "value"]].assign(fingerprint=one.fingerprint, fold=int(one.fold)))
    each = pd.concat(parts, ignore_index=True).groupby(statistics.QUERY, sort=True)
    table = each["value"].agg(["mean", "size"]).rename(columns={"mean": "value", "size": "runs"})
    return table.assign(group=each["group"].first()).reset_index()


class NotKept(ValueError):
    """A run has the mean of a metric, but no values per query."""


@dataclass(frozen=True)
class Criterion:
    """A question with an aim. Aims are not moved; a reading that is added later is named "other reading" and says so in `ABOUT`.

    ``kind``: "ratio" of the means of Y-Net and of its twin; "mean" of Y-Net; "thirds": gain in mAP on the ambiguous third minus
    gain on the clear one, in points. Reached where the value is at most (``at_most``) or at least ``aim``; "thirds": above it.
    ``twin``: another metric for the twin, where the two are not read alike.
    """

    text: str
    metric: str
    kind: str
    aim: float
    at_most: bool = False
    twin: str = ""


#: The energy ratio by the rule of alignment.
RULED = _aligned("energy_ratio", attribution.AUTO)

CRITERIA = (
    Criterion("errors of the same manifestation in another disease (SPDD), Y-Net / twin", "spdd_error", "ratio", 0.7, True),
    Criterion("gain in mAP@10 on ambiguous minus gain on clear cases, points", "map", "thirds", 0.0),
    Criterion("bits that flip with the background, Y-Net / twin", "flips_background", "ratio", 0.5, True),
    Criterion("bits that flip with the lesion, Y-Net / twin", "flips_lesion", "ratio", 1.0),
    Criterion("attention energy in the lesion, Y-Net / twin", RULED, "ratio", 1.5),
    Criterion("other reading: both aligned by half a pixel", "energy_ratio_half_pixel", "ratio", 1.5),
    Criterion(
        "other reading: Y-Net by half a pixel, its twin by the receptive field",
        "energy_ratio_half_pixel",
        "ratio",
        1.5,
        twin="energy_ratio_receptive_field",
    ),
    Criterion("other reading: cell by cell", "energy_ratio_elementwise", "ratio", 1.5),
    Criterion("other reading: both on the grid of C4", "energy_ratio_c4", "ratio", 1.5),
    Criterion("maximum of the attention in the lesion, Y-Net", _aligned("pointing", attribution.AUTO), "mean", 0.9),
    Criterion("other reading: aligned by half a pixel", "pointing_half_pixel", "mean", 0.9),
    Criterion("other reading: cell by cell", "pointing_elementwise", "mean", 0.9),
)


def third_gain(ours: Sequence[pd.DataFrame], twin: Sequence[pd.DataFrame], groups) -> statistics.Paired:
    """Gain on the first third minus gain on the second: a comparison of gains, as a `statistics.Paired` of points.

    ``ours``, ``twin``: values per query on (ambiguous, clear), as `per_query_values` gives them. With g_t the mean gain on third
    t, n_t its queries and n all of them, each query has the value ``g_t + (n / n_t) (gain - g_t)`` in its own third's column and
    g_t in the other's: the mean of a column is g_t, and a resampled mean is, to first order, the mean over the resampled
    queries of that third, whose number varies between replicates. Raises ``ValueError`` where the methods' queries differ.
    """
    gains = []
    for a, b in zip(ours, twin, strict=True):
        both = a.merge(b, on=statistics.QUERY, how="outer", suffixes=("", "_twin"), validate="one_to_one")
        if len(both) != len(a) or len(both) != len(b):
            raise ValueError("third_gain: both methods must answer the same queries")
        gains.append(both.assign(gain=both["value"] - both["value_twin"]).dropna(subset="gain"))
    n = sum(map(len, gains))
    columns = []
    for own in (0, 1):
        mean = gains[own]["gain"].mean()
        parts = [part[statistics.QUERY].assign(value=mean) for part in gains]
        parts[own]["value"] = mean + n / len(gains[own]) * (gains[own]["gain"] - mean)
        columns.append(pd.concat(parts, ignore_index=True))
    return statistics.paired(*columns, groups)


def criteria(chosen: pd.DataFrame, folder: str | Path | None = None, ours="ynet", twin="ynet-no-seg") -> pd.DataFrame:
    """Each `Criterion` that the rows can answer. ``chosen``: rows of one set (`select`); per-query values from ``folder``.

    Columns: criterion, metric, kind, aim, at_most, value, low, high (95 %, bootstrap by patient), reached (bool, by the value),
    sure (bool, whether the whole interval lies on the same side of the aim), queries, patients, runs. What is undefined (nothing
    to divide by) is not reached. A mean whose values per query were not kept has no interval, and 0 queries and patients.
    """
    dataset = chosen["dataset"].iloc[0]
    known, found = set(chosen["metric"]), []
    for one in CRITERIA:
        if one.metric not in known and not (one.kind == "thirds" and {"map_ambiguous", "map_clear"} <= known):
            continue
        if one.kind == "mean":
            estimate, *size = _mean(chosen, ours, one.metric, dataset, folder)
        else:
            names = [f"{one.metric}_ambiguous", f"{one.metric}_clear"] if one.kind == "thirds" else [one.metric]
            mine = [per_query_values(chosen, ours, name, folder) for name in names]
            other = [per_query_values(chosen, twin, one.twin or name, folder) for name in names]
            groups = pd.concat(mine)[["case_id", "group"]]
            pair = third_gain(mine, other, groups) if one.kind == "thirds" else statistics.paired(mine[0], other[0], groups)
            estimate = pair.difference if one.kind == "thirds" else statistics.Estimate(*(1 + x / 100 for x in pair.relative))
            size = (pair.n_queries, pair.n_patients, statistics.runs_text(mine[0]))
        good = [_meets(one, value) for value in estimate]
        sure = not np.isnan(estimate).any() and good[1] == good[2] == good[0]
        found.append((one.text, one.metric, one.kind, one.aim, one.at_most, *estimate, good[0], sure, *size))
    columns = "criterion metric kind aim at_most value low high reached sure queries patients runs".split()
    return pd.DataFrame(found, columns=columns)


def _mean(chosen, method, metric, dataset, folder) -> tuple[statistics.Estimate, int, int, str]:
    """Mean over queries with its interval, queries, patients, runs; without values per query the mean over folds alone."""
    try:
        each = per_query_values(chosen, method, metric, folder)
    except NotKept:
        rows = chosen[(chosen["method"] == method) & (chosen["metric"] == metric)]
        mean = store.seeds_averaged(rows)["value"].mean()
        return statistics.Estimate(mean, np.nan, np.nan), 0, 0, ""
    defined = each.dropna(subset="value")
    # another draw of a set may give other patients the same name
    people = defined[["fingerprint", "group"]].drop_duplicates()
    return statistics.bootstrap_mean(each, each), len(defined), len(people), statistics.runs_text(each)


def _meets(one: Criterion, value: float) -> bool:
    if one.kind == "thirds":
        return bool(value > one.aim)
    return bool(value <= one.aim if one.at_most else value >= one.aim)
