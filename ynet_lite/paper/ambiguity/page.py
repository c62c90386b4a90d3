"""The study as one page and one picture, from rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ... import drawing, methods, paths
from ...methods import OURS, TWIN
from .. import statistics, store, tables
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
than the method did. So we measured it without reading an outline (last section), and now read all maps by the receptive field.
Two caveats: we knew the rows of fold 1 when we made this rule, and it favours Y-Net.

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


# --- alignment -------------------------------------------------------------------------------------------------------


ALIGNMENT = """## Alignment

Where a cell of a deep stage lies on the image, measured once without reading an outline; the script is in the history of the
repository. Pixels down, pixels right of stride times the number of the cell, mean over runs. 0 is the receptive field; "half a
pixel" is what resizing functions and the segmentation branch assume, in both directions. *Gradient*: centroid of the effective
receptive field; *of the map*: with the weights of Grad-CAM; *occlusion*: a patch is painted grey. These three use windows of
mirrored images that hold the whole field of a cell; *in the frame* is the image as it is, where the border cuts the fields.
"""


def shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Shifts as shares of half a pixel's, (s - 1) / 2: columns down, right, and nearer (bool).

    0 = receptive field, 1 = half pixel; ``nearer``: the measured place lies nearer to the receptive field's, in the plane.
    """
    half = (rows["stride"] - 1) / 2
    down, right = rows["shift_rows"] / half, rows["shift_columns"] / half
    return pd.DataFrame({"down": down, "right": right, "nearer": np.hypot(down, right) < np.hypot(1 - down, 1 - right)})


def alignment_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean shifts over trainings as text, a line per set, network and stage: pixels down, pixels right."""
    lines, headings = (
        [],
        {"gradient": "gradient", "occlusion": "occlusion", "map": "gradient of the map", "frame": "in the frame"},
    )
    keys = ["dataset", "preset", "weights", "method", "level", "stride"]
    order = {"trained": 0, "random": 1}
    groups = sorted(rows.groupby(keys), key=lambda g: (g[0][0] != "phantom", *g[0][:2], order[g[0][2]], g[0][3], g[0][4]))
    for (dataset, preset, weights, method, level, stride), part in groups:
        network = methods.METHOD_NAMES[method] if weights == "trained" else "random weights"
        line = {"set": f"{dataset}, {preset}", "network": network, "stage": f"C{level}", "runs": part["run_id"].nunique()}
        line["half a pixel"] = f"{(stride - 1) / 2:.1f}"
        for name, heading in headings.items():
            own = part[part["measure"] == name][["shift_rows", "shift_columns"]].mean()
            # + 0.0: what rounds to zero has no minus
            line[heading] = "-" if own.isna().any() else ", ".join(f"{round(value, 1) + 0.0:+.1f}" for value in own)
        lines.append(line)
    return pd.DataFrame(lines)


def alignment_text(rows: pd.DataFrame) -> str:
    """The section on alignment: what the rows say about the two readings.

    Rows of ``alignment.csv`` were measured once, one line per network, stage and measure: ``shift_rows``, ``shift_columns``: the
    mean place of what a cell reads minus stride times its number, in pixels, with standard errors over images.
    """
    framed, trained = rows["measure"] == "frame", rows["weights"] == "trained"
    whole, apart, cut = rows[trained & ~framed], shares(rows[trained & ~framed]), shares(rows[trained & framed])
    errors = whole[["se_rows", "se_columns"]].div((whole["stride"] - 1) / 2, axis=0)
    random, random_cut = (shares(rows[~trained & part])[["down", "right"]] for part in (~framed, framed))
    said = (
        "A place is one of these measures of one stage of one network. Nearer to the receptive field than to half a pixel lie "
        f"{apart['nearer'].sum()} of {len(apart)} places on windows, and {cut['nearer'].sum()} of {len(cut)} in the frame. In "
        f"units of half a pixel's shift, those on windows average {apart['down'].mean():.2f} down and "
        f"{apart['right'].mean():.2f} right; the largest is {apart[['down', 'right']].max(axis=None):.2f} along one axis, the "
        f"largest standard error {errors.max(axis=None):.2f}. With random weights the answer is 0. There windows are off by "
        f"{random.abs().max(axis=None):.2f} at most, but the frame by {random_cut.mean(axis=None):.2f} on average, because of "
        "its border, so the frame does not decide."
    )
    return "\n".join([ALIGNMENT, tables.markdown(alignment_table(rows)), "", said]) + "\n"


# --- the page --------------------------------------------------------------------------------------------------------


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
    measured = store.small("ambiguity/alignment", folder)
    return "\n".join(text if measured.empty else [*text, alignment_text(measured)])


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
