"""page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ... import attribution, drawing, paths
from .. import statistics, tables
from ..select import parts
from . import alignment, plots
from .criteria import RULED, criteria, first_rule, read_levels, read_rows, select
from .measure import ERRORS, K, _aligned


def criteria_table(found: pd.DataFrame) -> pd.DataFrame:
    """`criteria` as text: criterion, aim, value with its 95 % interval, verdict, and what lies behind."""
    lines = []
    for row in found.itertuples(index=False):
        if row.kind == "ratio":
            aim = f"{'at most' if row.at_most else 'at least'} {100 * row.aim:.0f} %"
            shown = statistics.interval_text(*(100 * x for x in (row.value, row.low, row.high)), digits=0, signed=False)
        elif row.kind == "thirds":
            aim, shown = f"above {row.aim:.0f}", statistics.interval_text(row.value, row.low, row.high)
        else:
            aim = f"at least {row.aim:.2f}".replace("0.", ".")
            shown = statistics.share_text(row.value, row.low, row.high)
        bare = np.isnan(row.low) and not np.isnan(row.value)
        verdict = "reached" if row.reached else "missed"
        verdict += ", no interval" if bare else "" if row.sure else ", interval crosses the aim"
        unit = " %" if row.kind == "ratio" and shown != "-" else ""
        lines.append(
            {"criterion": row.criterion, "aim": aim, "found [95 %]": shown + unit, "verdict": verdict}
            | {"queries": row.queries or "-", "patients": row.patients or "-", "sets x trainings": row.runs or "-"}
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
    RULED: "energy ratio",
    "energy_ratio_half_pixel": "half-pixel",
    "energy_ratio_elementwise": "cell by cell",
    "energy_ratio_c4": "on C4",
    _aligned("pointing", attribution.AUTO): "pointing",
    "pointing_half_pixel": "pointing, half-pixel",
    "pointing_elementwise": "pointing, cell by cell",
}


def means_table(chosen: pd.DataFrame, levels: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Methods x metrics as text, mean ± standard deviation over runs (over folds where there are several), then the levels.

    ``columns``: {metric: heading}, such as `MEANS` or `LOOKS`. Levels that have none of these metrics are left out; maps without
    a network have no cells to align, and stand under the rule's names.
    """
    levels = levels.replace({"metric": {name: _aligned(name, attribution.AUTO) for name in ("energy_ratio", "pointing")}})
    columns = {
        (metric, K if metric in ERRORS else 0): name for metric, name in columns.items() if metric in set(chosen["metric"])
    }
    table = tables.retrieval_table(chosen, columns)
    here = levels[levels["fingerprint"].isin(set(chosen["fingerprint"])) & levels["fold"].isin(set(chosen["fold"]))]
    lines = []
    for name in dict.fromkeys(here["name"]):
        mean = here[here["name"] == name].groupby(["metric", "k"])["value"].mean()
        if not set(mean.index) & set(columns):
            continue
        shown = {heading: tables.number(mean.get(key, np.nan), np.nan, 1) for key, heading in columns.items()}
        lines.append({"method": name, "runs": ""} | shown)
    return pd.concat([table, pd.DataFrame(lines)], ignore_index=True)


ABOUT = """# Ambiguity

Made by `make figures` from the rows in `data/results/ambiguity/`. Not a medical device.

**Criteria.** The aims were set before anything was measured. Intervals of 95 % by bootstrap of patients, seeds averaged first. A
criterion is reached by its value; where the interval crosses the aim, that is said. A line "other reading" puts the question of
the line before it to another kind of map; it does not replace that line.

**Errors** are shares of the ten nearest cases. **Flips** are shares of the distance of two random cases; "control" is an image
put into itself. The **energy ratio** of a map that looks nowhere in particular is 1. Grad-CAM averages each channel's weight over
the whole map, so it cannot show where a pooling looks; cell by cell it can, but with pooling inside the predicted lesion such a
map follows the predicted outline *by construction*, up to half a cell: the mask is averaged over blocks, and the cells read up
and left of their block's middle. The lines without a network say what each number is worth: lesions lie near the middle, so a
Gaussian there scores well.

**Alignment**: where a cell of a coarse stage lies on the image. First each network had its own (half a pixel with a segmentation
branch, the receptive field without), by reasoning alone. The rows of fold 1 of BUS-BRA then showed that the choice moves the
energy ratio there more than the method does. So it was measured on networks of both methods, without reading an outline (last
section); since then all maps are read by the receptive field. The order matters: those who made the rule knew these rows, and it
favours Y-Net. No aim was moved; half a pixel for both and the first reading stay as "other reading".

**Two ambiguities.** SPDD (same manifestation in another disease) has an aim and falls. DPSD (one disease at different stages)
had none: its recall is the share of right answers that come from another stage, and on the phantom it is lower with Y-Net than
with its twin and below chance, in the tables of means. Counted, a list still holds more right answers of another stage with
Y-Net, on each of the five phantoms, since more answers are right; but its right answers lean to the query's own stage, which the
twin's do not.

**Tried against the missed aims**: other poolings, each a row of the tables of means. On the phantom Y-Net pools inside the
predicted lesion already; one stage deeper, or without masks, the background is suppressed less. On BUS-BRA Y-Net is plain R-MAC.
Pooling inside the predicted lesion there makes the codes move more with the lesion and no more with the background, which is
the direction the method means, but far from half of the twin's; the gain on ambiguous cases and the ranking do not get better
by it (`tables.md`). Pooling learned without masks flips fewer bits with the background than the twin on the phantom, but its
maps lie less on the lesion there. On BUS-BRA, Y-Net and its twin were measured on trainings of seed 1, the two other poolings on
seed 0: differences between these pairs hold a difference of trainings too.
"""


#: Said where rows from before the rule of alignment are shown; {methods}.
FIRST_RULE = """Some rows were measured before that rule: in them the lines and columns "cell by cell" and "on C4" of {methods}
are aligned by half a pixel, those of other methods by the receptive field; pointing by the rule has a mean and no interval there.
"""


def page(rows: pd.DataFrame, folder: str | Path | None = None) -> str:
    """The study as one Markdown page: criteria and means of every set that has rows of Y-Net and of its twin."""

    levels = read_levels(folder)
    text = [ABOUT]
    older = first_rule(rows)
    if older:
        text += [FIRST_RULE.format(methods=", ".join(f"`{name}`" for name in older))]
    sets = set(rows[["dataset", "preset", "variant"]].itertuples(index=False, name=None))
    for dataset, preset, variant in sorted(sets, key=lambda s: (s[0] != "phantom", s[0], s[1] == "quick", s[2])):
        chosen = select(rows, dataset, preset, variant)
        if not {"ynet", "ynet-no-seg"} <= set(chosen["method"]):
            continue
        text += [f"## {dataset}, preset {preset}" + (f", {variant}" if variant else "") + "\n"]
        for name, part in parts(chosen) or [("", chosen)]:
            if not {"ynet", "ynet-no-seg"} <= set(part["method"]):
                continue
            text += [f"### {name}\n"] if name else []
            text += [tables.markdown(criteria_table(criteria(part, folder))) + "\n"]
            text += [tables.markdown(means_table(part, levels, columns)) + "\n" for columns in (MEANS, LOOKS)]
    measured = alignment.text(alignment.read_rows(folder))
    return "\n".join([*text, measured] if measured else text)


def make(folder: Path, source: str | Path | None = None) -> list[Path]:
    """Write ``ambiguity.md`` and ``ambiguity-phantom.png`` into ``folder`` from the rows under ``source``; returns the files.

    Trains and encodes nothing. Without rows nothing is written; without the kept pictures of the phantom, or
    without the ranking of the same two runs (`experiments`), there is no picture.
    """

    rows = read_rows(source)
    if rows.empty:
        return []
    path = Path(folder) / "ambiguity.md"
    with paths.replacing(path) as temporary:
        temporary.write_text(page(rows, source))
    made = [path]
    kept = plots.read_pictures(rows, source)
    if {"ynet", "ynet-no-seg"} <= set(kept) and plots.ranked(kept, source):
        drawing.use_style()
        figure = plots.before_after(select(rows, "phantom", "quick"), read_levels(source), kept, source)
        made.append(drawing.save(figure, Path(folder) / "ambiguity-phantom.png"))
    return made
