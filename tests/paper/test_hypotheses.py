"""The board of hypotheses: complete pairs are judged, others are not."""

from __future__ import annotations

import re

import pytest

from ynet_lite import paths
from ynet_lite.methods import title
from ynet_lite.paper import hypotheses, report, second, select, store, weights


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


def test_a_method_of_one_seed_stands_in_no_table_of_three(posing, monkeypatch):
    rows = posing.assign(preset="pretrained")
    less = (rows["method"] == "dpsh") & (rows["seed"] > 0)
    monkeypatch.setattr(store, "rows", lambda edition: rows[~less])
    assert set(select.second("pretrained")["method"]) == set(rows["method"]) - {"dpsh"}


@pytest.fixture(scope="module")
def means():
    """Mean mAP@10 over the queries of folds 2 to 5, seeds averaged, by preset and method."""
    rows, found = store.rows("second").query("dataset == 'busbra' and variant == ''"), {}
    for key, part in rows.groupby(["preset", "method"]):
        found[key] = 100 * store.per_query(part["run_id"].unique(), "map", 10).groupby("case_id")["value"].mean().mean()
    return found


def test_what_imagenet_weights_are_worth_is_the_difference_of_the_means_over_queries(means):
    table, names = weights.table(), {title(method): method for method in ("ynet", "ynet-no-seg", "hashnet")}
    assert len(table) == 4
    for _, line in table.iterrows():
        begun, scratch = (names[line[column]] for column in table.columns[:2])
        points = means["pretrained", begun] - means["scratch", scratch]
        assert float(line["mAP@10"].split(" [")[0]) == pytest.approx(points, abs=0.06)


def test_both_margins_stand_side_by_side(means):
    first = select.headline(select.select(select.published(), "busbra", "full")).query("method == 'dpsh'")["run_id"].unique()
    dpsh = 100 * store.per_query(first, "map", 10).groupby("case_id")["value"].mean().mean()
    ours = means["pretrained", "ynet"]
    best = max(mean for (preset, method), mean in means.items() if preset == "pretrained" and method != "ynet")
    points = ours - dpsh, ours - best, means["scratch", "ynet"] - dpsh
    assert [float(one) for one in re.findall(r"([-+]?\d+\.\d) \[", weights.side_by_side())] == pytest.approx(points, abs=0.06)


def test_a_development_fold_flatters_by_six_to_nine_points():
    trials, runs = second.kept_trials("pretrained"), select.second("pretrained").query("metric == 'map' and k == 10")
    for name in ("ynet", "ynet-no-seg", "hashnet"):
        best = trials[trials["method"] == name].nlargest(1, "ndcg@10")["map@10"].item()
        assert 0.06 < best - runs[runs["method"] == name]["value"].mean() < 0.09


def test_the_first_page_tells_the_lead_with_both_encoders():
    board = hypotheses.table(store.rows("second"), n=50)
    for line in board[board[""] != "H6"].to_dict("records"):
        assert line["points"] == "-" or f"{line['measure']} {line['with trainings']}" in hypotheses.said(board)


def test_trials_at_equal_settings_are_paired_by_rate_and_parameter():
    trials, table = second.kept_trials("pretrained"), weights.matched()
    trials["variant"] = trials["variant"].replace({"trial frozen=0": "trial lr=0.001 pair_sharpness=0.125"})  # the same run
    for pair, lines in zip((("ynet", "ynet-no-seg"), ("hashnet+seg", "hashnet")), (table[:2], table[2:]), strict=True):
        ours, other = (trials[trials["method"] == name].set_index("variant") for name in pair)
        both = [name for name in ours.index if name in other.index]
        points = 100 * (ours.loc[both, "mask_agreement@10"] - other.loc[both, "mask_agreement@10"])
        chosen = [one.nlargest(1, "ndcg@10")["mask_agreement@10"].item() for one in (ours, other)]
        own, equal = lines["mask agreement@10"]
        assert own == f"{100 * (chosen[0] - chosen[1]):+.1f}"
        assert equal == f"{points.mean():+.1f} ({points.min():+.1f} to {points.max():+.1f})"
        assert len(both) == 9 and lines["settings"].iloc[1].endswith("9 pairs")


def test_trials_at_a_tenth_are_paired_at_the_places_that_both_have():
    trials, line = second.kept_trials("scratch-10"), weights.matched("scratch-10", weights.PAIRS[:1]).iloc[1]
    assert "mAP and NDCG are higher in every pair" in (paths.root() / "docs/results.md").read_text()
    for metric, heading in (("map@10", "mAP@10"), ("ndcg@10", "NDCG@10")):
        wide = trials.pivot(index="variant", columns="method", values=metric).dropna()
        points = 100 * (wide["ynet"] - wide["ynet-no-seg"])
        assert line[heading] == f"{points.mean():+.1f} ({points.min():+.1f} to {points.max():+.1f})" and points.min() > 0
    assert line["settings"].endswith(f"{len(wide)} pairs") and trials["variant"].str.startswith("trial labels=10%").all()


@pytest.fixture(scope="module")
def told():
    """The table of differences: {(of, minus, measure): (points, low, high)}, and the trainings under "trainings"."""
    found = {}
    for line in weights.differences().to_dict("records"):
        of, other = line.pop("of"), line.pop("minus")
        found[of, other, "trainings"] = line.pop("trainings")
        for name, text in line.items():
            found[of, other, name] = tuple(map(float, re.findall(r"-?\d+\.\d", text)))
    return found


def test_each_difference_is_that_of_the_means_over_queries(told):
    """All trainings where nothing was changed on either side, else those of seed 0."""
    rows = store.rows("second").query("dataset == 'busbra' and preset == 'pretrained'").drop_duplicates("run_id")

    def mean(method, variant, metric, seeds):
        runs = rows[(rows["method"] == method) & (rows["variant"] == variant) & rows["seed"].isin(seeds)]["run_id"]
        return 100 * store.per_query(runs, metric, 10).groupby("case_id")["value"].mean().mean(), len(runs)

    lines = iter(told.items())
    for *ours, method, variant in weights.DIFFERENCES:
        seeds = (0,) if ours[1] or variant else (0, 1, 2)
        trainings = next(lines)[1]
        for metric in weights.METRICS:
            sides = mean(*ours, metric, seeds), mean(method, variant, metric, seeds)
            assert next(lines)[1][0] == pytest.approx(sides[0][0] - sides[1][0], abs=0.06)
        assert trainings == f"{sides[0][1]}, {sides[1][1]}" and sides[0][1] == 4 * len(seeds)
    assert next(lines, None) is None


def test_about_two_points_of_overlap_stay_at_equal_settings(told):
    equal = [
        told["Y-Net (ours)", "twin at Y-Net's settings", name] for name in ("mask agreement@10", "mAP@10", "NDCG@10", "accuracy")
    ]
    assert 1.5 < equal[0][0] < 2.5 and equal[0][1] > 0
    assert all(low < 0 < high for _, low, high in equal[1:]), "no other difference is said to be shown"
    rows = store.rows("second").query(
        "dataset == 'busbra' and preset == 'pretrained' and seed == 0 and variant == '' and k == 10"
    )
    own = rows[rows["metric"] == "mask_agreement"].groupby("method")["value"].mean()
    assert 3.5 < 100 * (own["ynet"] - own["ynet-no-seg"]) < 4.5, "about four points, and half of them the settings"
    for page in ("README.md", "docs/index.md", "docs/faq.md"):
        words = " ".join((paths.root() / page).read_text().split())
        assert "at equal settings, and there none with outlines of other images" in words, page
        assert "HashNet gains as much at equal settings only" in words, page


def test_hashnet_gains_overlap_at_equal_settings_only(told):
    name = "HashNet + outlines", "HashNet"
    _, low, high = told[*name, "mask agreement@10"]
    points, sure, _ = told[name[0], "HashNet at the same settings", "mask agreement@10"]
    ours = told["Y-Net (ours)", "twin at Y-Net's settings", "mask agreement@10"][0]
    assert low < 0 < high and sure > 0 and points == pytest.approx(ours, abs=0.5)
    assert told[*name, "mAP@10"][1] <= 0.1, "at the edge of its interval"
    assert told[name[0], "HashNet at the same settings", "accuracy"][1] > 0


def test_overlap_is_lost_with_outlines_of_other_images_and_kept_with_boxes(told):
    """About a quarter stays against the twin with its own settings, and nothing against the one with Y-Net's."""
    other, box = (f"Y-Net (ours), {what}" for what in ("outlines of other images", "boxes"))
    lost, left, below, kept = (
        told[of, minus, "mask agreement@10"]
        for of, minus in (
            ("Y-Net (ours)", other),
            (other, "twin"),
            (other, "twin at Y-Net's settings"),
            ("Y-Net (ours)", box),
        )
    )
    assert lost[1] > 0 and left[0] / (lost[0] + left[0]) == pytest.approx(0.25, abs=0.05) and below[2] < 0 and kept[2] < 1


def test_the_twin_does_not_lack_time(told):
    measures = "mAP@10", "NDCG@10", "mask agreement@10", "accuracy"
    longer = {name: told["twin, twice the epochs", "twin", name] for name in measures}
    assert all(low < 0 for _, low, _ in longer.values()), "no gain is said to be shown in any measure"
    assert longer["mAP@10"][0] > 0 > longer["NDCG@10"][0] and -2 < longer["mask agreement@10"][0] < -1
    assert longer["mask agreement@10"][2] < 0 < told["Y-Net (ours)", "twin, twice the epochs", "NDCG@10"][1]


def test_a_plain_classifier_lacks_classes_and_no_ndcg():
    begun = select.second("pretrained")
    found = {one: report.comparison(begun, one).set_index("method").loc["gap-itq"] for one in ("map", "ndcg", "mask_agreement")}
    assert found["map"]["points_low"] > 0 and found["ndcg"]["points_low"] < 0 < found["ndcg"]["points_high"]
    assert round(found["mask_agreement"]["points"]) == 1 and found["mask_agreement"]["points_low"] > 0
    for page in ("README.md", "docs/index.md"):
        assert "three to four points of mask agreement (one over a plain classifier)" in (paths.root() / page).read_text(), page


def test_from_scratch_outlines_help_hashnet_by_less_than_a_third_of_what_they_add_to_y_net(means):
    """As results, the questions and notebook 04 say."""
    rows, found = select.second("scratch"), []
    ours, twin, both, alone = (rows[rows["method"] == name] for name in ("ynet", "ynet-no-seg", "hashnet+seg", "hashnet"))
    for pair in ((both, alone), (ours, both)):
        found.append([tuple(map(float, re.findall(r"-?\d+\.\d", weights.minus(*pair, metric)))) for metric in weights.METRICS])
    assert all(low > 0 for _, low, _ in found[0]), "in all four measures"
    assert found[1][0][1] > 0, "Y-Net leads by class"
    assert 3 * found[0][0][0] < float(weights.minus(ours, twin).split(" [")[0])
    points = [means["scratch", a] - means["scratch", b] for a, b in (("hashnet+seg", "hashnet"), ("ynet", "hashnet+seg"))]
    assert [one[0][0] for one in found] == pytest.approx(points, abs=0.06)
    said = re.findall(r"mAP@10 ([-+]\d+\.\d)", weights.hashnet())
    assert list(map(float, said)) == [one[0][0] for one in found]


def test_from_scratch_y_net_leads_hashnet_in_all_three_by_five_points():
    """As README, the first page and results say."""
    begun = select.second("scratch")
    for metric in ("map", "ndcg", "mask_agreement"):
        found = report.comparison(begun, metric).set_index("method")
        assert 0 < found.loc["hashnet", "points_low"] and found.loc["hashnet", "runs_rival"] == "4 x 3"
        if metric == "map":
            assert found.loc["hashnet", "points"] < found.loc["ynet-no-seg", "points"]
    ours, other = (begun[begun["method"] == name] for name in ("ynet", "hashnet"))
    points, low, _ = map(float, re.findall(r"-?\d+\.\d", weights.minus(ours, other)))
    assert 4.5 < points < 5.5 and low > 0, "with other trainings in the interval"
    for page in ("README.md", "docs/index.md"):
        assert "about six points of mAP@10, HashNet by five" in (paths.root() / page).read_text(), page
    twin = begun[begun["method"] == "ynet-no-seg"]
    for metric in weights.METRICS:
        _, low, high = map(float, re.findall(r"-?\d+\.\d", weights.minus(other, twin, metric)))
        assert low < 0 < high, "HashNet is said not to be shown to differ from the twin"
    table = weights.table().set_index("with ImageNet weights")
    low = table["mask agreement@10"].str.extract(r"\[(.+),")[0].astype(float)
    assert (low.loc[["HashNet"]] > 0).all() and (low.drop("HashNet") <= 0).all(), "a gain in mask agreement for HashNet only"


def test_hypotheses_are_answered_as_the_pages_say():
    """README, results, questions and notebook 06: with ImageNet weights no gain by class, more overlap; from scratch both."""
    board = hypotheses.table(store.rows("second")).set_index("")
    low, high = board["with trainings"].str.extract(r"\[(.+), (.+)\]").astype(float).to_numpy().T
    ends = dict(zip(board.index, zip(low, high, strict=True), strict=True))
    assert all(ends[name][0] < 0 < ends[name][1] for name in ("H1", "H3", "H4"))
    assert ends["H2"][0] > 0 and 5 < float(board.loc["H5", "with trainings"].split()[0]) < 7 and ends["H5"][0] > 0
    assert ends["H6"][0] < 0, "wrong outlines are said to bring nothing"
    assert [board.loc[name, "p (Holm)"] == "< .001" for name in ("H2", "H5")] == [True, True]
    words = " ".join((paths.root() / "README.md").read_text().split())
    assert "Y-Net shows no gain in finding cases of the same class" in words and "about six points of mAP@10" in words
    assert "three to four points of mask agreement" in words and 3 < float(board.loc["H2", "with trainings"].split()[0]) < 4
