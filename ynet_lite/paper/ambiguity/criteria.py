"""Aims set beforehand against results, from committed rows.

Besides what `measure` gives, rows of the first edition hold other readings of the same maps, which no code measures any more:
``_half_pixel`` (each cell drawn in the middle of its block), ``_elementwise`` (weighted cell by cell), ``_c4`` (on the grid of
C4 for every network), and ``_receptive_field``, which equals the plain name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...methods import OURS, TWIN
from .. import statistics


@dataclass(frozen=True)
class Criterion:
    """A question with an aim. Aims are not moved; a reading that was added later is named "other reading".

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

    def met(self, value: float) -> bool:
        if self.kind == "thirds":
            return bool(value > self.aim)
        return bool(value <= self.aim if self.at_most else value >= self.aim)


CRITERIA = (
    Criterion("errors of the same manifestation in another disease (SPDD), Y-Net / twin", "spdd_error", "ratio", 0.7, True),
    Criterion("gain in mAP@10 on ambiguous minus gain on clear cases, points", "map", "thirds", 0.0),
    Criterion("bits that flip with the background, Y-Net / twin", "flips_background", "ratio", 0.5, True),
    Criterion("bits that flip with the lesion, Y-Net / twin", "flips_lesion", "ratio", 1.0),
    Criterion("attention energy in the lesion, Y-Net / twin", "energy_ratio", "ratio", 1.5),
    Criterion("other reading: both aligned by half a pixel", "energy_ratio_half_pixel", "ratio", 1.5),
    Criterion(
        "other reading: Y-Net by half a pixel, its twin by the receptive field",
        "energy_ratio_half_pixel",
        "ratio",
        1.5,
        twin="energy_ratio",
    ),
    Criterion("other reading: cell by cell", "energy_ratio_elementwise", "ratio", 1.5),
    Criterion("other reading: both on the grid of C4", "energy_ratio_c4", "ratio", 1.5),
    Criterion("maximum of the attention in the lesion, Y-Net", "pointing", "mean", 0.9),
    Criterion("other reading: aligned by half a pixel", "pointing_half_pixel", "mean", 0.9),
    Criterion("other reading: cell by cell", "pointing_elementwise", "mean", 0.9),
)


def third_gain(ours: Sequence[pd.DataFrame], twin: Sequence[pd.DataFrame]) -> statistics.Paired:
    """Gain on the first third minus gain on the second: a comparison of gains, as a `statistics.Paired` of points.

    ``ours``, ``twin``: `statistics.per_query_table` on (ambiguous, clear). With g_t the mean gain on third t, n_t its queries and
    n all of them, each query has the value ``g_t + (n / n_t) (gain - g_t)`` in its own third's column and g_t in the other's: the
    mean of a column is g_t, and a resampled mean is, to first order, the mean over the resampled queries of that third. Raises
    ``ValueError`` where the methods' queries differ.
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
    return statistics.paired(*columns, pd.concat(ours))


def criteria(chosen: pd.DataFrame) -> pd.DataFrame:
    """Each `Criterion` that the rows can answer. ``chosen``: rows of one set, preset and variant.

    Columns: criterion, metric, kind, aim, at_most, value, low, high (95 %, bootstrap by patient), reached (by the value), sure
    (the whole interval lies on the same side of the aim), queries, patients, runs. What is undefined is not reached.
    """

    def values(method: str, metric: str) -> pd.DataFrame:
        return statistics.per_query_table(chosen[chosen["method"] == method], metric, part="ambiguity")

    known, found = set(chosen["metric"]), []
    for one in CRITERIA:
        names = [f"{one.metric}_ambiguous", f"{one.metric}_clear"] if one.kind == "thirds" else [one.metric]
        if not set(names) <= known:
            continue
        mine = [values(OURS, name) for name in names]
        if one.kind == "mean":
            estimate, defined = statistics.bootstrap_mean(mine[0], mine[0]), mine[0].dropna(subset="value")
            # another draw of a set may give other patients the same name
            size = len(defined), len(defined[["fingerprint", "group"]].drop_duplicates())
        else:
            other = [values(TWIN, one.twin or name) for name in names]
            pair = third_gain(mine, other) if one.kind == "thirds" else statistics.paired(mine[0], other[0], mine[0])
            estimate = pair.difference if one.kind == "thirds" else statistics.Estimate(*(1 + x / 100 for x in pair.relative))
            size = pair.n_queries, pair.n_patients
        good = [one.met(value) for value in estimate]
        sure = not np.isnan(estimate).any() and good[1] == good[2] == good[0]
        about = (one.text, one.metric, one.kind, one.aim, one.at_most)
        found.append((*about, *estimate, good[0], sure, *size, statistics.runs_text(mine[0])))
    columns = "criterion metric kind aim at_most value low high reached sure queries patients runs".split()
    return pd.DataFrame(found, columns=columns)
