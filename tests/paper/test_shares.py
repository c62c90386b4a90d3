"""Gains against the share of labels: only complete shares count, and the numbers are those of the statistics."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from ynet_lite.paper import hypotheses, second, shares, store


@pytest.fixture
def posing():
    """Rows of BUSI under the name of BUS-BRA: all runs of the whole set, and those of two seeds once more as a tenth."""
    rows = store.rows("second")
    rows = rows[(rows["dataset"] == "busi") & (rows["preset"] == "scratch")].assign(dataset="busbra")
    return pd.concat([rows, rows[rows["seed"] < 2].assign(variant="labels=10%")], ignore_index=True)


def test_a_line_per_complete_share(posing):
    found = shares.gains(posing)
    assert found[["where", "share"]].drop_duplicates().values.tolist() == [
        ["BUS-BRA, from scratch", 1.0],
        ["BUS-BRA, from scratch", 0.1],
    ]
    whole = found[found["share"] == 1].set_index("metric").loc["map"]
    said = hypotheses.table(posing).set_index("").loc["H5", "with trainings"]
    assert said == f"{whole['points']:+.1f} [{whole['low']:.1f}, {whole['high']:.1f}]" and whole["runs"] == 12
    own = posing[(posing["method"] == "ynet") & (posing["metric"] == "map") & (posing["k"] == 10) & (posing["variant"] == "")]
    assert whole["ours"] == pytest.approx(own["value"].mean())
    text = shares.table(found)
    assert text["share"].tolist() == ["10%", "100%"] and text["trainings"].tolist() == ["8 each", "12 each"]
    assert text["mAP@10"].iloc[1] == said


def test_a_share_with_a_missing_run_is_left_out(posing):
    first = posing[posing["method"] == "ynet-no-seg"]["run_id"].iloc[0]
    assert shares.gains(posing[posing["run_id"] != first]).empty
    assert shares.table(shares.gains(posing[:0])).empty


def test_a_tenth_of_the_labels_pays_less_than_all_and_not_in_ndcg():
    """As docs/results.md and docs/faq.md say of BUS-BRA from scratch."""
    found = shares.committed().query("where == 'BUS-BRA, from scratch'").set_index(["share", "metric"])
    tenth = found.loc[0.1]
    assert (tenth.loc[["map", "mask_agreement", "accuracy"], "low"] > 0).all()
    assert tenth.loc["ndcg", "low"] < 0 < tenth.loc["ndcg", "high"]
    assert tenth.loc["map", "high"] < found.loc[(1.0, "map"), "low"], "the lead in mAP is smaller"
    assert (found.loc[(1.0, "map"), ["ours", "twin"]] - tenth.loc["map", ["ours", "twin"]] > 0.1).all(), "far below"
    trials = second.kept_trials("scratch-10").set_index(["method", "variant"])["ndcg@10"]
    for method in ("ynet", "ynet-no-seg"):
        chosen = [second.CHOSEN[part][method] for part in ("scratch", "scratch-10")]
        carried, own = (trials[method, f"trial labels=10% lr={rate:g} pair_sharpness={how:g}"] for rate, how in chosen)
        assert carried < own - 0.02, "settings of the whole set cost NDCG"


def test_the_figure_has_a_panel_per_metric(posing):
    figure = shares.figure(shares.gains(posing, n=50))
    assert [axis.get_title() for axis in figure.axes] == ["mAP@10", "NDCG@10", "mask agreement@10", "accuracy"]
    line = figure.axes[0].get_lines()[0]
    assert line.get_xdata().tolist() == [0.1, 1.0]
    plt.close(figure)
