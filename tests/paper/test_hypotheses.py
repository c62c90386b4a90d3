"""The board of hypotheses: complete pairs are judged, others are not."""

from __future__ import annotations

import re

import pytest

from ynet_lite.paper import hypotheses, report, second, select, store


@pytest.fixture
def posing():
    """Rows of BUSI, tuned there, under the name of BUS-BRA: all runs that H5 asks for."""
    rows = store.rows("second")
    return rows[(rows["dataset"] == "busi") & (rows["preset"] == "scratch")].assign(dataset="busbra")


def test_a_complete_pair_has_the_lead_of_its_table_and_counts_the_whole_family(posing):
    table = hypotheses.table(posing).set_index("")
    own = select.complete(select.select(store.rows("second"), "busi", "scratch"), select.HEADLINE_FOLDS)
    lead = report.comparison(own[own["method"].isin(["ynet", "ynet-no-seg"])]).iloc[0]
    assert table.loc["H5", "points"] == f"{lead['points']:+.1f} [{lead['points_low']:.1f}, {lead['points_high']:.1f}]"
    p = float(table.loc["H5", "p (Holm)"])
    assert p == pytest.approx(min(1, 6 * lead["p"]), abs=6e-4) and 0 < float(table.loc["H5", "p (folds)"]) < 1
    low, high = (float(end) for end in table.loc["H5", "with trainings"].split("[")[1].strip("]").split(","))
    assert low < lead["points_low"] and high > lead["points_high"]
    assert table.loc["H5", hypotheses.RUNS] == "12, 12 of 12"
    assert (table.drop("H5")["points"] == "-").all() and (table.drop("H5")["p (Holm)"] == "-").all()


def test_a_missing_run_leaves_a_hypothesis_open(posing):
    first = posing[posing["method"] == "ynet"]["run_id"].iloc[0]
    line = hypotheses.table(posing[posing["run_id"] != first]).set_index("").loc["H5"]
    assert line[hypotheses.RUNS] == "11, 12 of 12" and line["points"] == line["p (Holm)"] == "-"


def test_wrong_outlines_are_set_against_the_plain_twin_of_one_seed(posing):
    ours = posing["method"] == "ynet"
    rows = posing.assign(preset="pretrained", variant=ours.map({True: "masks other", False: ""}))
    table = hypotheses.table(rows, n=50).set_index("")
    assert table.loc["H6", hypotheses.RUNS] == "4, 4 of 4" and table.loc["H6", "points"] != "-"
    assert table.loc["H3", hypotheses.RUNS] == "0, 12 of 12"


def test_what_imagenet_weights_are_worth_is_the_difference_of_the_means_over_queries():
    rows = store.rows("second").query("dataset == 'busbra' and variant == ''")

    def mean(preset, method):
        runs = rows[(rows["preset"] == preset) & (rows["method"] == method)]["run_id"].unique()
        return 100 * store.per_query(runs, "map", 10).groupby("case_id")["value"].mean().mean()

    table = report.weights_table()
    assert table.iloc[:, 0].tolist() == ["twin: no segmentation, from scratch", "Y-Net (ours), from scratch"]
    for shown, method in zip(table["mAP@10"], ("ynet-no-seg", "ynet"), strict=True):
        points = mean("pretrained", "ynet-no-seg") - mean("scratch", method)
        assert float(shown.split(" [")[0]) == pytest.approx(points, abs=0.06)


def test_a_development_fold_flatters_and_the_page_says_by_how_much():
    trials = second.kept_trials("pretrained").query("method == 'ynet-no-seg'")
    assert len(trials.query("variant != 'trial frozen=1'")) == 9
    best, table = trials.sort_values("ndcg@10").iloc[-1], report.second_table("pretrained")
    at_home, abroad = (f"0{number}" for number in re.findall(r"\.\d{3}", report.flattered()))
    assert float(at_home) == pytest.approx(best["map@10"], abs=6e-4) and f"| {abroad[1:]} ±" in table
    ours = second.kept_trials("pretrained").query("method == 'ynet'")["ndcg@10"].max()
    assert abs(ours - best["ndcg@10"]) < 0.002  # "its best trial is level with the twin's"
