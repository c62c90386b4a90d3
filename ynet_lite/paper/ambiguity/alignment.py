"""Where on the image a cell of a deep stage lies: what the committed rows say.

Rows of ``alignment.csv`` were measured once, on the networks of the first edition; the script that did it is in the history of
the repository. One line per network, stage and measure: ``shift_rows`` and ``shift_columns`` are the mean place of what a cell
reads minus stride times its number, in pixels, with standard errors over images. 0 speaks for the middle of the field that a cell
*can* read (the receptive field), (stride - 1) / 2 for the middle of its block (half a pixel).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ... import methods
from .. import store, tables


def read_rows(folder: str | Path | None = None) -> pd.DataFrame:
    """All rows under ``folder`` (default: the committed results), in a fixed order."""
    return store.small("ambiguity/alignment", folder)


def shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Shifts as shares of half a pixel's, (s - 1) / 2: columns down, right, and nearer (bool).

    0 = receptive field, 1 = half pixel; ``nearer``: the measured place lies nearer to the receptive field's, in the plane.
    """
    half = (rows["stride"] - 1) / 2
    down, right = rows["shift_rows"] / half, rows["shift_columns"] / half
    return pd.DataFrame({"down": down, "right": right, "nearer": np.hypot(down, right) < np.hypot(1 - down, 1 - right)})


HEADINGS = {"gradient": "gradient", "occlusion": "occlusion", "map": "gradient of the map", "frame": "in the frame"}


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean shifts over trainings as text, a line per set, network and stage: pixels down, pixels right."""
    lines = []
    keys = ["dataset", "preset", "weights", "method", "level", "stride"]
    order = {"trained": 0, "random": 1}
    groups = sorted(rows.groupby(keys), key=lambda g: (g[0][0] != "phantom", *g[0][:2], order[g[0][2]], g[0][3], g[0][4]))
    for (dataset, preset, weights, method, level, stride), part in groups:
        network = methods.METHOD_NAMES[method] if weights == "trained" else "random weights"
        line = {"set": f"{dataset}, {preset}", "network": network, "stage": f"C{level}", "runs": part["run_id"].nunique()}
        line["half a pixel"] = f"{(stride - 1) / 2:.1f}"
        for name, heading in HEADINGS.items():
            own = part[part["measure"] == name][["shift_rows", "shift_columns"]].mean()
            # + 0.0: what rounds to zero has no minus
            line[heading] = "-" if own.isna().any() else ", ".join(f"{round(value, 1) + 0.0:+.1f}" for value in own)
        lines.append(line)
    return pd.DataFrame(lines)


def text(rows: pd.DataFrame) -> str:
    """The section of the page of `study`: what the rows say about the two readings; "" without rows."""
    if rows.empty:
        return ""
    trained, random = (rows[rows["weights"] == weights] for weights in ("trained", "random"))
    whole, frame = trained[trained["measure"] != "frame"], trained[trained["measure"] == "frame"]
    apart = shares(whole)[["down", "right"]]
    errors = whole[["se_rows", "se_columns"]].div((whole["stride"] - 1) / 2, axis=0)
    near, cut_near = shares(whole)["nearer"], shares(frame)["nearer"]
    said = (
        "A place is one of these measures of one stage of one network. Nearer to the receptive field than to half a pixel lie "
        f"{near.sum()} of {len(near)} places on windows, and {cut_near.sum()} of {len(cut_near)} in the frame. In units of half "
        f"a pixel's shift, those on windows average {apart['down'].mean():.2f} down and {apart['right'].mean():.2f} right; the "
        f"largest is {apart.max(axis=None):.2f} along one axis, the largest standard error {errors.max(axis=None):.2f}."
    )
    if len(random):
        cut = shares(random[random["measure"] == "frame"])[["down", "right"]].mean(axis=None)
        known = shares(random[random["measure"] != "frame"])[["down", "right"]].abs().max(axis=None)
        said += (
            f" With random weights the answer is 0. There windows are off by {known:.2f} at most, but the frame by {cut:.2f} on "
            "average, because of its border, so the frame does not decide."
        )
    return "\n".join([ABOUT, tables.markdown(table(rows)), "", said]) + "\n"


ABOUT = """## Alignment

Where a cell of a deep stage lies on the image, measured once without reading an outline; the script is in the history of the
repository. Pixels down, pixels right of stride times the number of the cell, mean over runs. 0 is the receptive field; "half a
pixel" is what resizing functions and the segmentation branch assume, in both directions. *Gradient*: centroid of the effective
receptive field; *of the map*: with the weights of Grad-CAM; *occlusion*: a patch is painted grey. These three use windows of
mirrored images that hold the whole field of a cell; *in the frame* is the image as it is, where the border cuts the fields.
"""
