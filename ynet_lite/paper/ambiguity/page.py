"""The study as one page and one picture, from rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ... import drawing, paths
from ...methods import OURS, TWIN
from .. import statistics, tables
from ..select import parts, select, sets
from . import plots
from .criteria import criteria, read_levels, read_rows


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


ABOUT = """# Ambiguity

Made by `make figures` from the rows in `data/results/first/ambiguity/`. Not a medical device.

**Criteria.** The aims were set before anything was measured, and none was moved. Intervals of 95 % come from a bootstrap of
patients, seeds averaged first. A criterion is reached by its value; where the interval crosses the aim, the table says so. A
line "other reading" repeats the criterion before it with another kind of map and does not replace it.

**Numbers.** Errors are shares of the ten nearest cases. Flips are shares of the distance of two random cases; "control" is an
image put into itself. A map that looks nowhere in particular has an energy ratio of 1. Lesions lie near the middle, so a
Gaussian there scores well without any network. Grad-CAM averages each channel's weight over the map and cannot show where a
pooling looks. Cell by cell it can, but with pooling inside the predicted lesion that map follows the predicted outline *by
construction*.

**Alignment** is where a cell of a coarse stage lies on the image. At first networks with a segmentation branch were read by half
a pixel and the others by the receptive field, by reasoning alone. On fold 1 of BUS-BRA this choice moved the energy ratio more
than the method did. So we measured it without reading an outline (`alignment.csv`): centroids of gradients and of occlusion on
windows that hold the whole field of a cell. 46 of 46 places lie nearer to the receptive field than to half a pixel; in units of
half a pixel's shift they average 0.03 down and 0.23 right, 0.62 at most, the largest standard error 0.04. With random weights
they are off by 0.06 at most. On whole images 14 of 16 places lie so, but there the border cuts the fields and moves even random
weights by 0.22. All maps are now read by the receptive field. Two caveats: we knew the rows of fold 1 when we made this rule, and
it favours Y-Net.

**Two ambiguities.** SPDD (same manifestation in another disease) has an aim, and Y-Net makes fewer such errors. DPSD (one
disease at different stages) had none. On the phantom its recall, the share of right answers from another stage, is lower with
Y-Net than with its twin, and below chance: right answers of Y-Net lean to the query's own stage. There are still more right
answers of another stage on each of the five phantoms, because more answers are right.

**Tried against the missed aims**: other poolings, each a row of the tables of means. On the phantom, pooling one stage deeper or
learned without masks suppresses the background less than Y-Net, which pools inside the predicted lesion. On BUS-BRA Y-Net is
plain R-MAC. Pooling inside the predicted lesion makes codes there move more with the lesion and no more with the background, but
far from half of the twin's, and neither the gain on ambiguous cases nor the ranking gets better (`tables.md`). Pooling learned
without masks flips fewer bits with the background than the twin on the phantom, but its maps lie less on the lesion. On BUS-BRA
Y-Net and its twin are trainings of seed 1 and the other poolings of seed 0, so differences between these pairs also hold a
difference of trainings.
"""


def page(rows: pd.DataFrame, folder: str | Path | None = None) -> str:
    """The study as one Markdown page: criteria and means of every set that has rows of Y-Net and of its twin."""
    levels, text = read_levels(folder), [ABOUT]
    for dataset, preset, variant in sets(rows):
        chosen = select(rows, dataset, preset, variant)
        if not {OURS, TWIN} <= set(chosen["method"]):
            continue
        text += [f"## {dataset}, preset {preset}" + (f", {variant}" if variant else "") + "\n"]
        for name, part in parts(chosen) or [("", chosen)]:
            if not {OURS, TWIN} <= set(part["method"]):
                continue
            text += [f"### {name}\n"] if name else []
            text += [tables.markdown(criteria_table(criteria(part, folder))) + "\n"]
            text += [tables.markdown(means_table(part, levels, columns)) + "\n" for columns in (MEANS, LOOKS)]
    return "\n".join(text)


def make(folder: Path, source: str | Path | None = None) -> list[Path]:
    """Write ``ambiguity.md`` and ``ambiguity-phantom.png`` into ``folder`` from the rows under ``source``; returns the files.

    Trains and encodes nothing. Without rows nothing is written; without the kept pictures of the phantom there is no picture.
    """
    rows = read_rows(source)
    if rows.empty:
        return []
    made = [paths.write_text(Path(folder) / "ambiguity.md", page(rows, source))]
    kept = plots.read_pictures(rows, source)
    if {OURS, TWIN} <= set(kept):
        drawing.use_style()
        figure = plots.before_after(select(rows, "phantom", "quick"), read_levels(source), kept, source)
        made.append(drawing.save(figure, Path(folder) / "ambiguity-phantom.png"))
    return made
