"""What the committed rows say about where cells lie."""

from __future__ import annotations

import pandas as pd

from ynet_lite.paper import store
from ynet_lite.paper.ambiguity import page


def test_the_section_by_hand():
    def row(method, seed, measure, down, right, weights="trained", stride=9):
        about = {"run_id": f"{method}-{seed}", "dataset": "phantom", "preset": "quick"}
        about |= {"method": method, "seed": seed, "measure": measure, "weights": weights, "level": 5, "stride": stride}
        return about | {"shift_rows": down, "shift_columns": right, "se_rows": 0.4, "se_columns": 0.8}

    rows = pd.DataFrame(
        [
            row("ynet", 0, "gradient", 1, 2),
            row("ynet", 1, "gradient", 0, 3),
            row("ynet", 0, "frame", 4, 3),
            row("ynet-no-seg", 0, "occlusion", -1, 0),
            row("ynet", 0, "gradient", 0.2, -0.1, "random"),
            row("ynet", 0, "frame", 1, 2, "random"),
        ]
    )
    # half a pixel of stride 9 is 4; (4, 3) lies nearer to (4, 4) than to (0, 0)
    assert page.shares(rows)["nearer"].tolist() == [True, True, False, True, True, True]
    assert page.shares(rows)["right"].tolist() == [0.5, 0.75, 0.75, 0, -0.025, 0.5]
    table = page.alignment_table(rows)
    assert table["gradient"].tolist() == ["+0.5, +2.5", "-", "+0.2, -0.1"]
    assert table["occlusion"].tolist() == ["-", "-1.0, +0.0", "-"]
    assert table["network"].tolist() == ["Y-Net (ours)", "twin: no segmentation", "random weights"]
    assert table["runs"].tolist() == [2, 1, 1] and set(table["half a pixel"]) == {"4.0"}
    said = page.alignment_text(rows)
    assert "3 of 3 places on windows, and 0 of 1 in the frame" in said
    assert "average 0.00 down and 0.42 right; the largest is 0.75 along one axis, the largest standard error 0.20." in said
    assert "windows are off by 0.05 at most, but the frame by 0.38 on average" in said


def test_the_committed_rows_support_the_rule():
    """Maps are drawn by the receptive field: that was measured, for both methods of every set and by every measure on windows."""
    rows = store.small("ambiguity/alignment")
    assert {"ynet", "ynet-no-seg"} == set(rows["method"]) and {"phantom", "busbra"} == set(rows["dataset"])
    assert not rows["dirty"].astype(bool).any(), "a row was made by code that no commit holds"
    whole = rows[(rows["weights"] == "trained") & (rows["measure"] != "frame")]
    assert len(whole) and page.shares(whole)["nearer"].all()
