"""Published figures and tables: made from committed rows, the same bytes every time, and README says nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ynet_lite import drawing, methods, metrics, paths
from ynet_lite.paper import report, scanner, select, store, tables
from ynet_lite.paper.controls import UNSEEN
from ynet_lite.paper.report import PAGES, fill, filled, make_all


@pytest.fixture(scope="module")
def runs():
    return select.published()


def test_every_committed_row_has_its_configuration_and_a_clean_commit(runs):
    assert len(runs)
    known = store.configs()
    assert all(known[name].hash() == name for name in runs["config_hash"].unique())
    assert not runs["dirty"].astype(bool).any(), "a row was made by code that no commit holds"
    assert not runs.duplicated(["run_id", "metric", "k"]).any()
    assert set(runs["fingerprint"].str.len()) == {16}


def test_per_query_values_give_the_committed_means(runs):
    means = store.per_query(None, "map", 10).groupby("run_id")["value"].mean()
    for run_id, part in runs[(runs["metric"] == "map") & (runs["k"] == 10)].groupby("run_id"):
        assert means[run_id] == pytest.approx(part["value"].item(), abs=2e-5), run_id


def test_figures_rebuild_byte_for_byte(runs, tmp_path):
    made = make_all(tmp_path / "figures", runs)
    published = paths.root() / "figures"
    listed = {path.name for path in published.iterdir() if path.is_file() and path.suffix in (".png", ".md", ".svg")}
    assert {path.name for path in made} == listed - {Path(name).name for name in PAGES}
    for path in made:
        if path.name == "queries-phantom.png":
            continue  # drawn from images and a network, not from rows: single grey levels may differ on another processor
        assert path.read_bytes() == (published / path.name).read_bytes(), f"{path.name} differs; run make figures"


def test_tables_of_the_pages_are_the_committed_rows(runs):
    for path, text in filled(runs).items():
        assert path.read_text() == text, f"{path.name} is out of date; run make figures"
    every = "\n".join((paths.root() / name).read_text() for name in PAGES)
    assert all(f"<!-- {name} -->" in every for name in report.page_blocks(runs)), "a block stands on no page"
    readme, results = ((paths.root() / name).read_text() for name in PAGES[:2])
    assert "<!-- headline -->" in readme and all(
        f"<!-- {name} -->" in results for name in report.page_blocks(runs) if name not in ELSEWHERE
    )


#: Blocks of other pages than docs/results.md.
ELSEWHERE = (
    "headline",
    "tried",
    "controls",
    "tissue",
    "commands",
    "second-said",
    "costs",
    "card-phantom-quick",
    "card-busbra-full",
    "ambiguity",
)


def test_readme_is_short():
    text = (paths.root() / "README.md").read_text()
    assert len(text.splitlines()) <= 120 and len(text.split()) <= 900


def test_links_between_the_pages_lead_somewhere():
    pages = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "data/README.md"}
    for page in (*(paths.root() / name for name in pages), *(paths.root() / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_headline_has_five_rows_and_the_look_up_has_the_accuracy_of_the_twin(runs):
    chosen, begun = select.headline(select.select(runs, "busbra", "full")), select.second("pretrained")
    for part, rival in ((chosen, "HashNet (best rival)"), (begun, "HashNet (best rival)")):
        table = report.headline_table(part, report.comparison(part)).set_index("method")
        assert len(table) == 5 and table.index[0] == methods.METHOD_NAMES["ynet"] and table.index[2] == rival
        assert table["mAP@10"].iloc[3] == table["accuracy"].iloc[3] == table["accuracy"].iloc[1]
        assert f"{methods.METHOD_NAMES['ynet-no-seg']} {table['mAP@10'].iloc[3][:4]}" in report.lookup_text(part)


def test_a_shared_scanner_is_counted_by_hand(runs, monkeypatch):
    """Four queries with two answers each would be too few; so one fold against a loop without ties."""
    part = select.headline(select.select(runs, "busbra", "full"))
    table = scanner.shared(part[part["method"].isin(["ynet", "dpsh"])]).set_index("codes of")
    assert table.index.tolist() == [methods.METHOD_NAMES["ynet"], "DPSH"]
    (precision,) = part[
        (part["method"] == "dpsh")
        & (part["seed"] == 0)
        & (part["fold"] == 2)
        & (part["metric"] == "precision")
        & (part["k"] == 10)
    ]["value"]
    one = scanner.shared(part[(part["method"] == "dpsh") & (part["fold"] == 2)])
    assert one["right class"].item() == f"{precision:.1%}"
    assert scanner.scanners()["images"].sum() == 1875


def test_what_the_page_says_of_answers_with_imagenet_weights():
    leads = {}
    for preset in ("scratch", "pretrained"):
        table = scanner.shared(select.second(preset)).set_index("codes of").map(lambda text: float(text.rstrip("%")))
        ours, twin = (table.loc[methods.METHOD_NAMES[name]] for name in ("ynet", "ynet-no-seg"))
        leads[preset] = (ours - twin)["same BI-RADS among the right"]
    assert leads["pretrained"] > 1 and leads["pretrained"] > leads["scratch"] + 1
    assert ours["same scanner"] > twin["same scanner"] > twin["same scanner, by chance"]


def test_a_search_among_other_scanners_is_computed_again(runs):
    part = select.headline(select.select(runs, "busbra", "full"))
    part = part[part["method"].isin(["ynet", "dpsh"]) & (part["fold"] == 2) & (part["seed"] == 0)]
    shown = scanner.crossed(part).set_index("codes of").loc["DPSH"]
    run = part[part["method"] == "dpsh"]["run_id"].iloc[0]
    (known,) = part[(part["run_id"] == run) & (part["metric"] == "map") & (part["k"] == 10)]["value"]
    assert shown["all cases"] == f"{known:.3f}"[1:]
    cases = pd.read_csv(paths.splits() / "busbra_devices.csv").set_index("case_id")
    codes, values = store.codes(run), []
    for name, code in zip(codes["queries"].ids, codes["queries"].packed, strict=True):
        other = cases.loc[codes["database"].ids, "device"].to_numpy() != cases.loc[name, "device"]
        bits = np.unpackbits(codes["database"].packed[other] ^ code, axis=1).sum(1)[None]
        right = (cases.loc[codes["database"].ids, "label"].to_numpy() == cases.loc[name, "label"])[other][None]
        values.append(metrics.average_precision(bits, right, 10)[0])
    assert shown["other scanners"] == f"{np.mean(values):.3f}"[1:]


def test_what_a_new_scanner_costs_is_computed_again():
    begun = select.second("pretrained")
    new, cost = re.search(
        r"where the scanner is new: (.*)\. Networks that saw it (.*)\. Where it is new", scanner.unseen(begun)
    ).groups()
    told = zip(re.findall(r"\.\d{3}", new), re.findall(r"([-+]\d+\.\d) \[", cost), strict=True)
    rows = select.select(store.rows("second"), "busbra", "pretrained", "scanner unseen")
    equal = scanner.unseen(begun).rsplit("settings:", 1)[1]
    ends = re.findall(r"\[(-?\d+\.\d), (-?\d+\.\d)\]", equal)
    assert len(ends) == 4 and all(float(low) < 0 < float(high) for low, high in ends), "no lead at equal settings is said"
    each = rows[(rows["method"] == "ynet") & (rows["metric"] == "map") & (rows["k"] == 10)]["value"]
    assert round(100 * (each.max() - each.min())) == 7, "what the page says of two trainings"
    asked, every = (store.per_query(part["run_id"].unique(), "map", 10)["case_id"].nunique() for part in (rows, begun))
    assert f"{every - asked} of the other three scanners" in (paths.root() / "docs" / "results.md").read_text()
    cases = pd.read_csv(paths.splits() / "busbra_devices.csv").set_index("case_id")
    for method, (level, cost) in zip(("ynet", "ynet-no-seg"), told, strict=True):
        new = store.per_query(rows[rows["method"] == method]["run_id"].unique(), "map", 10)
        assert set(cases.loc[new["case_id"], "device"]) == {UNSEEN} and level == f"{new['value'].mean():.3f}"[1:]
        saw = {}
        for run in begun[(begun["method"] == method) & (begun["seed"] == 0)]["run_id"].unique():
            codes = store.codes(run)
            known = cases.loc[codes["database"].ids]
            others = (known["device"] != UNSEEN).to_numpy()
            for name, code in zip(codes["queries"].ids, codes["queries"].packed, strict=True):
                if cases.loc[name, "device"] == UNSEEN:
                    bits = np.unpackbits(codes["database"].packed[others] ^ code, axis=1).sum(1)[None]
                    right = (known["label"] == cases.loc[name, "label"]).to_numpy()[others][None]
                    saw[name] = metrics.average_precision(bits, right, 10)[0]
        assert set(saw) == set(new["case_id"]) and float(cost) == pytest.approx(
            100 * (np.mean(list(saw.values())) - new["value"].mean()), abs=0.06
        )


def test_other_sets_hold_what_was_run_on_every_fold_that_counts(runs):
    table = report.others_table(runs)
    assert set(table["set"]) == {title for title, _ in select.OTHER_SETS.values()}
    for _, part in table.groupby("set"):
        part = part.set_index("method")
        names = [methods.METHOD_NAMES[m] for m in ("ynet", "ynet-no-seg", "dpsh", "hashnet", "ath")]
        assert part.index.tolist() == [*names, "chance (random codes)"]
        assert part.loc[methods.METHOD_NAMES["ynet"], "Y-Net minus it"] == "-"
        assert part.loc[names[1:], "Y-Net minus it"].str.fullmatch(r"[+-]\d+\.\d \[-?\d+\.\d, -?\d+\.\d\]").all()
    # nothing of BUSI was looked at during development, so all of its folds count; of BUS-BRA's images not fold 1
    without = runs[~((runs["method"] == "hashnet") & (runs["fold"] == 1))]
    kept = {name: set(select.headline(select.select(without, name, "full"))["method"]) for name in select.OTHER_SETS}
    assert "hashnet" in kept["busbra-birads"] and "hashnet" not in kept["busi"]


def test_a_phantom_that_a_method_lacks_takes_the_method_out_and_no_figure_down(runs):
    lacking = runs[~((runs["dataset"] == "phantom") & (runs["method"] == "dsh") & (runs["seed"] == 4))]
    phantom = select.select(lacking, "phantom", "quick")
    ((_, part),) = select.parts(phantom)
    assert set(phantom["method"]) - set(part["method"]) == {"dsh"}
    assert "dsh" not in set(report.comparison(part)["method"])
    # fewer draws of Y-Net itself: all methods, on those draws
    fewer = select.complete(phantom[(phantom["method"] != "ynet") | (phantom["seed"] < 2)], (1,))
    assert set(fewer["method"]) == set(phantom["method"]) and set(fewer["seed"]) == {0, 1}


def test_what_no_trial_had_seen_is_compared_apart(runs):
    part = select.headline(select.select(runs, "busbra", "full"))
    seen = select.validated()
    text = report.unseen_text(part, report.comparison(part))
    queries = part[part["method"] == "ynet"]["run_id"].unique()
    listed = set(store.per_query(queries)["case_id"])
    assert f"Of these {len(listed):,} queries, {len(seen & listed)} were" in text and f"other {len(listed - seen)}," in text
    without = report.comparison(part, without=sorted(seen)).set_index("method")
    assert without["queries"].eq(len(listed - seen)).all()
    assert f"in points: {without.loc['ynet-no-seg', 'points']:+.1f} [" in text and "] over its twin, +" in text


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/model-cards.md", "docs/faq.md"])
def test_no_scores_stand_outside_the_blocks(page):
    text = (paths.root() / page).read_text()
    bare = re.sub(r"<!-- ([\w-]+) -->.*?<!-- /\1 -->", "", text, flags=re.DOTALL)
    assert not re.findall(r"(?<![\w.])0?\.\d{2,}", bare)


def test_fill_wants_its_marks():
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb"
    assert fill(page, {"x": lambda: "new", "y": lambda: "elsewhere"}) == "a\n<!-- x -->\nnew\n<!-- /x -->\nb"
    assert fill("a\n<!-- x -->\n<!-- /x -->\nb", {"x": lambda: "new"}) == "a\n<!-- x -->\nnew\n<!-- /x -->\nb"
    for wrong in (page * 2, page.replace("/x", "/y"), page.replace("x -->", "z -->")):
        with pytest.raises(ValueError, match="once each and closed"):
            fill(wrong, {"x": lambda: "new"})


def test_saved_figures_are_byte_stable(tmp_path):
    drawing.use_style()
    history = pd.DataFrame({"epoch": [1, 2], "classification": [1.0, 0.5], "seg_ce": [0.5, 0.2], "validation": [None, 0.3]})
    first, second = (drawing.save(drawing.loss_curves(history), tmp_path / f"{n}.png").read_bytes() for n in "ab")
    assert first == second


def test_the_last_bits_of_the_layout_reach_no_file(tmp_path, monkeypatch):
    """The solver of the layout sums in an order of memory addresses; an image that is resampled would show its last bits."""
    drawing.use_style()
    solve, rng = ConstrainedLayoutEngine.execute, np.random.default_rng(0)

    def solve_inexactly(engine, figure):
        solve(engine, figure)
        for axis in figure.axes:
            axis._set_position([x + 1e-9 * rng.standard_normal() for x in axis.get_position(original=True).bounds])
        for part in figure.subfigs:
            part.bbox_relative.p0 = part.bbox_relative.p0 + 1e-9 * rng.standard_normal(2)

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", solve_inexactly)
    places = []
    for _ in range(2):
        figure = plt.figure(figsize=(5, 4))
        for part, name in zip(figure.subfigures(2, 1), "ab", strict=True):
            part.suptitle(f"query {name}", x=0.01, ha="left")
            for axis in part.subplots(1, 3):
                axis.imshow(np.arange(9).reshape(3, 3))
        drawing.save(figure, tmp_path / "picture.png")
        places.append([axis.get_window_extent().bounds for axis in figure.axes])
    assert len(places[0]) == 6 and places[0] == places[1]


def test_pictures_are_shown_as_they_are():
    flat = np.arange(6, dtype=np.uint8).reshape(2, 3)
    colour = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
    figure = drawing.pictures([[flat, flat[None], flat[:1]], [colour, flat, flat]], ("above", "below"), ("a", "b", "c"))
    axes = np.reshape(figure.axes, (2, 3))
    shown = [[axis.get_images()[0].get_array() for axis in line] for line in axes]
    assert (shown[0][0] == flat).all() and (shown[0][1] == flat).all() and (shown[0][2] == flat[:1]).all()
    assert (shown[1][0] == colour.transpose(1, 2, 0)).all()
    assert all(axis.get_images()[0].get_clim() == (0, 255) for axis in axes.ravel())  # no stretching of single pictures
    assert [axis.get_title() for axis in axes.ravel()] == ["a", "b", "c", "", "", ""] and axes[1, 0].get_ylabel() == "below"
    plt.close(figure)
    with pytest.raises(ValueError):
        drawing.pictures([[flat]], ("one",), ("a", "b"))
    plt.close("all")


def test_pictures_of_real_cases_are_kept_outside_the_tracked_folders(tmp_path, monkeypatch, tiny_cases):
    from matplotlib import pyplot

    monkeypatch.delenv("YNET_LOCAL_FIGURES", raising=False)
    assert paths.local_figures() == paths.root() / "figures" / "local"
    monkeypatch.setenv("YNET_LOCAL_FIGURES", str(tmp_path))
    figure = drawing.case_rows(tiny_cases, [[0, 1]], ["disc"])
    assert drawing.keep_local(figure, "phantom", "some") is figure and not list(tmp_path.iterdir())
    assert drawing.keep_local(figure, "busbra", "some") is figure and pyplot.fignum_exists(figure.number)
    assert (tmp_path / "busbra-some.png").read_bytes().startswith(b"\x89PNG")
    pyplot.close(figure)


def test_nothing_to_draw_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(report.paths, "results", lambda: tmp_path)
    assert report.main([]) == 1
    assert "nothing to draw" in capsys.readouterr().out


def compared_row(method, mean, points, p):
    names = ("points", "points_low", "points_high", "percent", "percent_low", "percent_high")
    return {"method": method, "mean_rival": mean, "p_holm": p, "p_least": p == 0.003} | dict(
        zip(names, (points, points - 1, points + 1, 9, 8, 10), strict=True)
    )


def test_the_page_names_the_best_rivals(runs):
    chosen = select.headline(select.select(runs, "busbra", "full"))
    rivals = [m for m in report.comparison(chosen)["method"] if m in (*methods.RIVALS, *methods.AGGREGATED)]  # best first
    theirs = [m for m in rivals if m.removesuffix("-itq") in report.PAPER_COMPARATORS]
    said = (paths.root() / "docs" / "results.md").read_text()
    assert f"The best of all rivals is {methods.METHOD_NAMES[rivals[0]]}." in said
    assert f"The best of the paper's comparators is {methods.METHOD_NAMES[theirs[0]]} (nine of its twelve were run;" in said
    assert len({m.removesuffix("-itq") for m in theirs}) == 9


def test_a_table_of_several_metrics_keeps_its_rivals_apart():
    first = pd.DataFrame([compared_row("csq", 0.74, 5.0, 0.034), compared_row("dpsh", 0.70, 9.0, 0.0004)])
    second = pd.DataFrame([compared_row("dpsh", 0.60, -2.0, 0.5), compared_row("csq", 0.55, 1.5, 0.04)])
    table = tables.beside_table({"map": first, "ndcg": second})
    assert table["Y-Net minus"].tolist() == ["CSQ", "DPSH"]
    assert table["NDCG@10, points"].tolist() == ["+1.5 [0.5, 2.5]", "-2.0 [-3.0, -1.0]"]
    assert table["p, NDCG@10"].tolist() == [".040", ".500"]
