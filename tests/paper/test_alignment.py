"""What the page of ambiguity says of where cells lie, against the committed rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ynet_lite import paths
from ynet_lite.paper import store


def shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Shifts as shares of half a pixel's, (s - 1) / 2: 0 = receptive field, 1 = half pixel; ``nearer``: to the first."""
    half = (rows["stride"] - 1) / 2
    down, right = rows["shift_rows"] / half, rows["shift_columns"] / half
    return pd.DataFrame({"down": down, "right": right, "nearer": np.hypot(down, right) < np.hypot(1 - down, 1 - right)})


def test_the_committed_rows_support_the_rule_and_the_sentences():
    """Maps are drawn by the receptive field: that was measured, for both methods of every set and by every measure on windows."""
    rows = store.small("ambiguity/alignment")
    assert {"ynet", "ynet-no-seg"} == set(rows["method"]) and {"phantom", "busbra"} == set(rows["dataset"])
    assert not rows["dirty"].astype(bool).any(), "a row was made by code that no commit holds"
    trained, framed = rows["weights"] == "trained", rows["measure"] == "frame"
    whole, cut = shares(rows[trained & ~framed]), shares(rows[trained & framed])
    assert len(whole) and whole["nearer"].all()
    errors = rows.loc[trained & ~framed, ["se_rows", "se_columns"]].div((rows["stride"] - 1) / 2, axis=0)
    random, random_cut = (shares(rows[~trained & part])[["down", "right"]] for part in (~framed, framed))
    text = (paths.root() / "figures" / "ambiguity.md").read_text()
    said = " ".join(text.split("<!-- ambiguity -->")[0].split())
    for sentence in (
        f"{whole['nearer'].sum()} of {len(whole)} places lie nearer",
        f"average {whole['down'].mean():.2f} down and {whole['right'].mean():.2f} right, "
        f"{whole[['down', 'right']].max(axis=None):.2f} at most, the largest standard error {errors.max(axis=None):.2f}",
        f"off by {random.abs().max(axis=None):.2f} at most",
        f"{cut['nearer'].sum()} of {len(cut)} places lie so",
        f"weights by {random_cut.mean(axis=None):.2f}",
    ):
        assert sentence in said, sentence
