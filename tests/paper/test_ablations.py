"""Ablation tables and figures on rows written here, so that they hold whatever has been run."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from ynet_lite import drawing, methods, paths, provenance
from ynet_lite.config import Config
from ynet_lite.methods import METHODS
from ynet_lite.paper import grids, report, statistics, store
from ynet_lite.paper.ablations import ablated, pages, plots
from ynet_lite.paper.select import headline, select

PATIENTS = 12


def score_of(cfg: Config) -> float:
    """A made-up mAP@10 that falls with the distance of a from .5, with shorter codes, fewer and worse outlines."""
    a = 0.4 if cfg.balance_trainable else cfg.balance
    value = 0.8 - abs(a - 0.5) / 2 - 0.05 * grids.LOSSES.index(cfg.loss) if cfg.loss in grids.LOSSES else 0.2
    value -= 0.02 * abs(np.log2(cfg.bits) - 6) + 0.1 * (1 - cfg.mask_share) + 0.03 * (cfg.mask_quality != "exact")
    return value - 0.04 * (cfg.method == "ynet-no-seg") - 0.02 * (cfg.method == "ynet-rmac") + 0.01 * cfg.seed


def write(folder, cfg: Config, score: float | None = None, without: str = "") -> None:
    """One run as `run.run` leaves it: rows, configuration, values per query (two queries per patient)."""
    score = score_of(cfg) if score is None else score
    names = [(m, k) for m in ("map", "precision", "ndcg") for k in (5, 10, 20, 50)] + [("dice", 0), ("distinct_codes", 0)]
    value = {
        "map": score,
        "precision": score + 0.05,
        "ndcg": score - 0.1,
        "dice": 0.9 - score / 10,
        "distinct_codes": 100 * score,
    }
    rows = [(m, k, value[m] - 0.001 * k * (m == "map" and k != 10)) for m, k in names if m != without]
    if not cfg.uses_masks:
        rows = [row for row in rows if row[0] != "dice"]
    case = [(f"p{p:04d}-{v}" if cfg.dataset == "phantom" else f"bus_{p:04d}-{'lr'[v]}") for p in range(PATIENTS) for v in (0, 1)]
    noise = np.random.default_rng([cfg.seed, cfg.fold]).normal(0, 0.02, len(case))
    each = pd.DataFrame({"case_id": case, "metric": "map", "k": 10, "value": score + noise - noise.mean()})
    # the phantom is drawn anew for each seed, a real set is one
    mark = f"{cfg.seed:016d}" if cfg.dataset == "phantom" else "f" * 16
    if cfg.dataset != "phantom":
        each["case_id"] = [name.replace("bus_", f"bus_{cfg.fold}") for name in each["case_id"]]
    each.insert(1, "group", each["case_id"].str.rsplit("-", n=1).str[0])
    table = pd.DataFrame(rows, columns=["metric", "k", "value"])
    store.write_run(cfg, mark, table, each, 1.0, folder, made_by=("0123456789", False))


def phantom(method="ynet", **changes) -> Config:
    return Config.from_preset("quick", "phantom", method, **changes)


def packed(folder, monkeypatch) -> pd.DataFrame:
    """What `write` left as the only committed rows, those that were packed before among them."""
    store.pack(folder, folder / "committed" / "first")
    monkeypatch.setattr(paths, "results", lambda: folder / "committed")
    return store.rows()


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All runs of the phantom grids, as the grids name them."""
    folder = tmp_path_factory.mktemp("all")
    seen = {}
    for cfg in (*grids.grid("phantom"), *grids.grid("phantom-ablations")):
        if cfg.method in ("ynet", *ablated.PARTS, "dpsh", "csq"):
            seen.setdefault(provenance.run_id(cfg), cfg)
    for cfg in seen.values():
        write(folder, cfg)
    store.pack(folder, folder / "committed" / "first")
    return folder, store.read_runs(folder)


@pytest.fixture
def every_run(everything, monkeypatch):
    """The rows of `everything`, committed."""
    return packed(everything[0], monkeypatch)


# --- balance ---------------------------------------------------------------------------------------------------------


def test_balance_by_hand(tmp_path):
    write(tmp_path, phantom(), 0.6)
    write(tmp_path, phantom(seed=1), 0.8)
    write(tmp_path, phantom(seed=4), 0.1)  # a phantom that the ablation was not run on
    for seed, score in ((0, 0.3), (1, 0.5)):
        write(tmp_path, phantom(balance=0.25, variant="a=0.25", seed=seed), score)
    write(tmp_path, phantom(balance_trainable=True, variant="a=trainable"), 0.7)
    table = ablated.table("balance", store.read_runs(tmp_path), "phantom", "quick")
    assert table[["loss", "a", "runs"]].values.tolist() == [
        ["pairwise", 0.25, 2],
        ["pairwise", 0.5, 2],
        ["pairwise", "trainable", 1],
    ]
    assert table["map@10"].tolist() == pytest.approx([0.4, 0.7, 0.7])
    assert table["map@10 sd"].tolist() == pytest.approx([0.02**0.5, 0.02**0.5, np.nan], nan_ok=True)
    assert table["distinct_codes"].tolist() == pytest.approx([40, 70, 70])
    assert table["dice"].iloc[0] == pytest.approx(0.9 - 0.04)


def test_balance_holds_the_whole_grid(everything):
    folder, runs = everything
    table = ablated.table("balance", runs, "phantom", "quick")
    assert len(table) == len(grids.LOSSES) * (len(grids.BALANCES) + 1)
    assert table["loss"].drop_duplicates().tolist() == list(grids.LOSSES)
    assert (table["runs"] == 2).all()
    for row in table.itertuples():
        a = 0.4 if row.a == "trainable" else row.a
        expected = 0.8 - abs(a - 0.5) / 2 - 0.05 * grids.LOSSES.index(row.loss) + 0.005
        assert table.loc[row.Index, "map@10"] == pytest.approx(expected, abs=1e-5)
    # at a = 1 there is no outline
    assert table[table["a"] == 1.0]["dice"].isna().all() and table[table["a"] != 1.0]["dice"].notna().all()


def test_the_setting_comes_from_the_configuration_not_from_the_name(tmp_path):
    write(tmp_path, phantom(), 0.6)
    write(tmp_path, phantom(balance=0.25, variant="a=0.9"), 0.5)
    assert ablated.table("balance", store.read_runs(tmp_path), "phantom", "quick")["a"].tolist() == [0.25, 0.5]


def test_a_default_of_other_settings_stays_out(tmp_path):
    write(tmp_path, phantom(epochs=99), 0.9)
    for a in (0.1, 0.25):
        write(tmp_path, phantom(balance=a, variant=f"a={a}"))
    table = ablated.table("balance", store.read_runs(tmp_path), "phantom", "quick")
    assert table["a"].tolist() == [0.1, 0.25]


def test_a_loss_tuned_otherwise_still_counts_but_one_line_has_one_tuning(tmp_path):
    write(tmp_path, phantom(), 0.6)
    for a in (0.1, 0.5):
        write(tmp_path, phantom("ynet-circle", balance=a, variant=f"circle a={a}").but(method="ynet"))
    write(tmp_path, phantom("ynet-circle", balance=0.9, lr=0.5, variant="circle a=0.9").but(method="ynet"))
    table = ablated.table("balance", store.read_runs(tmp_path), "phantom", "quick")
    assert table[["loss", "a"]].values.tolist() == [["pairwise", 0.5], ["circle", 0.1], ["circle", 0.5]]


def test_the_same_training_under_two_names_counts_once(tmp_path):
    cfg = phantom("ynet-circle")
    write(tmp_path, cfg, 0.4)
    write(tmp_path, cfg.but(method="ynet", variant="circle a=0.5"), 0.4)
    write(tmp_path, phantom(), 0.6)
    table = ablated.table("balance", store.read_runs(tmp_path), "phantom", "quick")
    assert table[["loss", "runs"]].values.tolist() == [["pairwise", 1], ["circle", 1]]


def test_one_setting_that_has_arrived_is_shown(tmp_path):
    write(tmp_path, phantom(), 0.6)
    write(tmp_path, phantom(loss="ce", balance=0.0, variant="ce a=0.0"), 0.2)
    table = ablated.table("balance", store.read_runs(tmp_path), "phantom", "quick")
    assert table[["loss", "a"]].values.tolist() == [["pairwise", 0.5], ["ce", 0.0]]


# --- bits and masks --------------------------------------------------------------------------------------------------


def test_bits_take_the_default_run_as_their_point_at_64(everything):
    folder, runs = everything
    table = ablated.table("bits", runs, "phantom", "quick")
    assert table[["method", "bits"]].values.tolist() == [[m, b] for m in grids.BOTH for b in (8, 16, 32, 64, 128)]
    assert (table["runs"] == 2).all()
    ours = table[table["method"] == "ynet"]["map@10"].tolist()
    assert ours == pytest.approx([0.745, 0.765, 0.785, 0.805, 0.785])


def test_masks_hold_shares_and_qualities(everything):
    folder, runs = everything
    table = ablated.table("masks", runs, "phantom", "quick")
    assert table["share"].tolist() == [0, 0.1, 0.25, 0.5, 1, 1, 1, 1, 1]
    assert table["quality"].tolist() == ["exact"] * 5 + list(grids.MASK_QUALITIES)
    assert table["map@10"].tolist() == pytest.approx([0.705, 0.715, 0.73, 0.755, 0.805, *[0.775] * 4])
    # the twin on the same two phantoms: a = 1 costs .25, no segmentation .04
    assert ablated.twin(runs, "phantom", "quick") == pytest.approx(0.8 - 0.25 - 0.04 + 0.005)


def test_the_twin_of_the_masks_has_their_phantoms_and_settings(tmp_path):
    for seed, score in ((0, 0.5), (1, 0.6), (2, 0.1)):
        write(tmp_path, phantom("ynet-no-seg", seed=seed), score)
        write(tmp_path, phantom("ynet-no-seg", epochs=99, seed=seed), 0.9)
    assert ablated.twin(store.read_runs(tmp_path), "phantom", "quick") == pytest.approx(0.55)


def test_other_ablations_do_not_disturb(tmp_path):
    write(tmp_path, phantom(confounding=0.0, variant="confounding=0"))
    write(tmp_path, phantom(mask_share=0.1, variant="masks=10%"))
    runs = store.read_runs(tmp_path)
    assert ablated.table("bits", runs, "phantom", "quick").empty
    assert ablated.table("balance", runs, "phantom", "quick").empty
    assert ablated.table("masks", runs, "phantom", "quick")["share"].tolist() == [0.1]


# --- losses ----------------------------------------------------------------------------------------------------------


def test_parts_name_the_ablations():
    assert list(ablated.PARTS) == ["ynet-no-seg", *grids.ABLATIONS]
    assert set(ablated.PARTS) <= set(METHODS)


def test_losses_are_paired_by_patient(every_run):
    runs = every_run
    table = ablated.losses(runs, "phantom", "quick", n=500)
    assert table["method"].tolist() == list(ablated.PARTS) and (table["note"] == "").all()
    row = table.set_index("method").loc["ynet-no-seg"]
    assert row["points"] == pytest.approx(29, abs=0.01) and row["runs"] == "5 x 1"
    assert row["patients"] == 5 * PATIENTS
    same = runs[(runs["dataset"] == "phantom") & (runs["preset"] == "quick") & (runs["variant"] == "")]
    one = statistics.compare_methods("ynet", ["ynet-no-seg"], same, n=500).iloc[0]
    assert (row["low"], row["high"]) == (one["points_low"], one["points_high"])
    assert (table["low"] <= table["points"] + 1e-9).all() and (table["points"] <= table["high"] + 1e-9).all()
    # a difference of nothing: no quantisation loss has the same made-up score
    assert table.set_index("method").loc["ynet-no-quant", "p"] == 1


def test_losses_on_a_real_set_rest_on_the_headline_folds(tmp_path, monkeypatch):
    for fold in grids.FOLDS:
        write(tmp_path, Config.from_preset("full", "busbra", fold=fold))
        for method in ablated.PARTS:
            score = {"ynet-rmac": None, "ynet-no-seg": 0.1 if fold == 1 else 0.5}.get(method, 0.6)
            write(tmp_path, Config.from_preset("full", "busbra", method, fold=fold), score)
    table = ablated.losses(packed(tmp_path, monkeypatch), "busbra", "full", n=100).set_index("method")
    assert table.loc["ynet-no-seg", "points"] == pytest.approx(30) and table.loc["ynet-no-seg", "runs"] == "4 x 1"
    # there R-MAC is our own aggregation
    assert table["note"].to_dict() == dict.fromkeys(ablated.PARTS, "") | {"ynet-rmac": "the same training as Y-Net"}
    assert table.loc["ynet-rmac", ["ablated", "points", "low", "high", "p"]].isna().all()
    tested = table.drop("ynet-rmac")
    assert tested["p"].tolist() == statistics.holm(tested["p_alone"]).tolist()
    shown = pages.as_text(table.reset_index()).iloc[ablated.PARTS.index("ynet-rmac")]
    assert shown[["mAP@10", "points", "p (Holm)", "sets x runs"]].tolist() == ["-"] * 4
    # ... so that the twin lacks a loss and no pooling
    assert table.loc["ynet-no-seg", "without"] == "outlines: segmentation loss"
    assert "pooling inside" in ablated.without("ynet-no-seg", Config.from_preset())


# --- text ------------------------------------------------------------------------------------------------------------


def test_every_planned_setting_was_run_as_the_page_says():
    runs = store.rows("first", "small")
    for dataset, group in ablated.ABLATED:
        for what, one in ablated.SETTINGS.items():
            table = ablated.table(what, runs, dataset, group)
            there = set(table[list(one.columns)].itertuples(index=False, name=None))
            assert there == set(ablated.settings(what, dataset, group).values())
            assert set(ablated.planned_rows(what, runs, dataset, group)["run_id"]) == {
                provenance.run_id(cfg) for cfg in ablated.planned(what, dataset, group)
            }


def test_text_of_tables_by_hand(every_run):
    points = pages.as_text(ablated.losses(every_run, "phantom", "quick", n=200)).set_index("without")["points"]
    assert points.iloc[0].startswith("+29.0 [")
    balance = pages.as_text(ablated.table("balance", every_run, "phantom", "quick"))
    assert balance.iloc[3, :3].tolist() == ["pairwise", 0.25, 2]
    masks = pages.as_text(ablated.table("masks", every_run, "phantom", "quick"))
    assert masks["mAP@10"].iloc[0] == ".705 ± .007"


def test_text_of_a_table_has_dashes_where_nothing_is(tmp_path):
    write(tmp_path, phantom(balance=1.0, variant="a=1.0"))
    write(tmp_path, phantom())
    shown = pages.as_text(ablated.table("balance", store.read_runs(tmp_path), "phantom", "quick"))
    assert shown["Dice"].tolist() == [".820", "-"] and shown["a"].tolist() == [0.5, 1.0]
    masks = pages.as_text(ablated.table("masks", store.read_runs(tmp_path), "phantom", "quick"))
    assert masks["share"].tolist() == ["100%"]


def test_committed_rows_make_a_page():
    page = pages.text(store.rows("first", "small"), n=200)
    assert "Every planned setting was run." in page
    for dataset, group in ablated.ABLATED:
        assert f"## {dataset}, preset {group}" in page
    for heading in pages.HEADINGS.values():
        assert page.count(f"### {heading}\n") == len(ablated.ABLATED)


# --- the released notebooks' numbers ---------------------------------------------------------------------------------


def test_published_numbers_are_facts_with_their_source():
    rows = pd.read_csv(paths.results() / "published" / "notebooks.csv")
    assert list(rows) == ["method", "set", "k", "map_over_k", "source"]
    assert not rows.duplicated(["method", "set", "k"]).any() and rows["map_over_k"].between(0.2, 0.8).all()
    assert rows["source"].str.contains("10.1109/JBHI.2021.3082531", regex=False).all()
    assert rows.groupby("set").size().to_dict() == {"ORIGA": 42, "TN-SCUI": 43}
    one = rows.set_index(["method", "set", "k"])["map_over_k"]
    assert one["Y-Net, cross-entropy (best)", "ORIGA", 10] == 0.6902 and one["DRH", "TN-SCUI", 50] == 0.4928
    # a longer list never has a higher mAP by this definition here
    for _, part in rows.groupby(["method", "set"]):
        assert part.sort_values("k")["map_over_k"].is_monotonic_decreasing


def test_published_table_shows_methods_by_lists():
    table = pages.published_table().set_index("method (theirs)")
    assert list(table.columns) == [f"{name} @{k}" for name in ("ORIGA", "TN-SCUI") for k in (5, 10, 20, 50)]
    assert table.loc["R-MAC"].tolist() == ["-"] * 4 + [".3701", ".3294", ".3063", ".2860"]
    assert len(table) == 14


# --- curves ---------------------------------------------------------------------------------------------


@pytest.fixture
def coded() -> pd.DataFrame:
    """mAP@10 of the runs on folds 2 to 5 of BUS-BRA whose codes are committed, one training a fold."""
    rows = headline(select(store.rows("first", "small"), "busbra", "full"))
    rows = rows[(rows["metric"] == "map") & (rows["k"] == 10)]
    return rows[[store.codes(run) is not None for run in rows["run_id"]]]


def test_curves_are_of_the_best_methods_with_codes(coded):
    means = coded.groupby("method")["value"].mean().sort_values(ascending=False)
    always = ["ynet", "ynet-no-seg", "ynet-paper"]
    others = means.drop([*always, *ablated.PARTS], errors="ignore").index[:5]
    shown = store.small("pr-busbra")["method"].unique().tolist()
    assert shown == [*means[means.index.isin([*always, *others])].index, "chance"]


def test_curves_and_chance_by_slow_loops(coded):
    table, levels = store.small("pr-busbra").set_index("method"), []
    for method in ("ynet", "dpsh"):
        folds = []
        for run in coded[coded["method"] == method]["run_id"]:
            queries, database = store.codes(run).values()
            curves = []
            for code, label in zip(queries.packed, queries.labels, strict=True):
                distance, right = np.unpackbits(database.packed ^ code, axis=1).sum(1), database.labels == label
                points = []
                for most in sorted(set(distance.tolist())):
                    hits = int((right & (distance <= most)).sum())
                    points.append((hits, hits / int((distance <= most).sum())))
                total = int(right.sum())
                curves.append([max(p for hits, p in points if 10 * hits >= tenth * total) for tenth in range(11)])
                levels.append((run, right.mean()))
            folds.append(np.mean(curves, axis=0))
        assert len(folds) == 4
        own = table.loc[method]
        assert own["recall"].tolist() == pytest.approx(np.linspace(0, 1, 101))
        assert own["precision"].tolist()[::10] == pytest.approx(np.mean(folds, axis=0), rel=1e-12)
    chance = pd.DataFrame(levels, columns=["run", "share"]).groupby("run")["share"].mean().mean()
    assert table.loc["chance", "precision"].tolist() == pytest.approx([chance] * 2, rel=1e-12)


def test_trials_show_what_tuning_alone_moves(tmp_path, monkeypatch):
    assert set(pages.trials_table()["method"]) >= {"ynet", "ynet-no-seg"}
    lines = [("full", "busbra", method, score) for method, score in (("ynet", 0.5), ("ynet", 0.7), ("dpsh", 0.4))]
    trials = pd.DataFrame(lines, columns=["preset", "dataset", "method", "val_map10"])
    paths.write_csv(trials, tmp_path / "first" / "tuning" / "trials.csv")
    monkeypatch.setattr(paths, "results", lambda: tmp_path)
    assert pages.trials_table().values.tolist() == [
        ["full", "busbra", "dpsh", 1, 0.4, 0.4],
        ["full", "busbra", "ynet", 2, 0.5, 0.7],
    ]


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures_of_the_same_rows_are_the_same_bytes(every_run, tmp_path, monkeypatch):
    drawing.use_style()
    monkeypatch.setattr(plots, "chance_level", lambda dataset, preset: {("map", 10): 0.12})
    for what in pages.HEADINGS:
        first, second = (
            drawing.save(plots.ablation_figure(what, every_run, "phantom", "quick"), tmp_path / f"{name}.png") for name in "ab"
        )
        assert first.read_bytes() == second.read_bytes()
        assert 600 <= plt.imread(first).shape[1] <= 1600
    assert plt.get_fignums() == []


def test_balance_figure_draws_every_loss_and_the_trained_balance_apart(everything):
    folder, runs = everything
    figure = plots.balance_figure(ablated.table("balance", runs, "phantom", "quick"), {("map", 10): 0.12})
    axis = figure.axes[0]
    lines = {tuple(line.get_xdata()): line for line in axis.get_lines() if line.get_marker() == "o"}
    assert tuple(grids.BALANCES) in lines
    trained = [x for x in lines if len(x) == 1]
    assert len(trained) == 1 and trained[0][0] > 1
    markers = {line.get_marker() for line in axis.get_lines()} - {"None", "|", "_"}
    assert {"o", "s", "^", "D"} <= markers
    assert [text.get_text() for text in axis.texts] == ["chance"]
    plt.close(figure)


def test_loss_intervals_that_hold_zero_are_hollow():
    table = pd.DataFrame(
        {"without": ["outlines", "quantisation loss"], "points": [5.0, 0.2], "low": [3.0, -1.0], "high": [7.0, 1.4]}
    )
    figure = plots.points_figure(table, where="BUS-BRA, folds 2 to 5")
    dots = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    # drawn from below: the last row first
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [True, False]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["quantisation loss", "outlines"]
    assert figure.axes[0].get_title() == "BUS-BRA, folds 2 to 5"
    plt.close(figure)


def test_what_the_segmentation_loss_is_worth_to_each_classification_loss(everything):
    folder, runs = everything
    table = ablated.table("balance", runs, "phantom", "quick")
    of = table.set_index(["loss", "a"])["map@10"]
    text = ablated.balance_text(table)
    for loss in grids.LOSSES:
        assert f"{ablated.LOSS_NAMES[loss]} {100 * (of[loss, 0.5] - of[loss, 1.0]):+.1f}" in text


def test_titles_name_the_set_behind_a_figure():
    runs = store.rows("first", "small")
    assert plots.where("losses", runs, "busbra", "full") == "BUS-BRA, folds 2 to 5"
    assert plots.where("masks", runs, "busbra", "full") == "BUS-BRA, fold 1"
    assert plots.where("bits", runs, "phantom", "quick") == "phantom, seeds 0 and 1"
    assert plots.where("losses", runs, "phantom", "quick") == "phantom, seeds 0 to 4"


def test_what_outlines_bring_stands_sorted_and_agrees_with_the_headline():
    table = ablated.outlines(n=50)
    expected = {*ablated.OUTLINED.values(), *(f"BUS-BRA fold 1, {name}" for name in ablated.LOSS_NAMES.values())}
    expected |= {"BUS-BRA, tuned anew, HashNet", "BUS-BRA, pretrained encoder, HashNet"}
    assert table["points"].is_monotonic_decreasing and sorted(table["what"]) == sorted(expected)
    own = table.set_index("what")["points"]
    assert {"phantom", "BUS-BRA", "BUS-BRA by BI-RADS", "BUSI"} <= set(own.index)
    losses = ablated.losses(store.rows("first", "small"), "busbra", "full", n=50).set_index("method")
    assert own["BUS-BRA"] == pytest.approx(losses.loc["ynet-no-seg", "points"])
    plt.close(plots.points_figure(table, minus="with outlines minus without"))


def test_the_figure_of_methods_is_sorted_grouped_and_short():
    rows = headline(select(store.rows("first", "small"), "busbra", "full"))
    figure = report.ranking(rows, "folds 2 to 5")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    with_outlines, without = labels[1 : labels.index("without")], labels[labels.index("without") + 1 :]
    assert labels[0] == "with outlines" and len(with_outlines) + len(without) <= 12
    assert "Y-Net (ours)" in with_outlines and "twin: no segmentation" in without
    means = rows[(rows["metric"] == "map") & (rows["k"] == 10)].groupby("method")["value"].mean()
    means.index = means.index.map(methods.title)
    for group in (with_outlines, without):
        assert means[group].is_monotonic_decreasing
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == ["chance", "look-up"]
    assert methods.METHOD_NAMES["hashnet+seg"] == "HashNet + outlines" and methods.reads_outlines("hashnet+seg")
    assert methods.METHOD_NAMES["gap-itq+seg"] == "GAP, ITQ code + outlines" and methods.reads_outlines("gap-itq+seg")
    plt.close(figure)
