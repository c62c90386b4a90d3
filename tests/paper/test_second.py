"""The second edition's grids: equal, growing where a winner lies at an edge, never on a reported fold or seed."""

from __future__ import annotations

import pandas as pd
import pytest

from ynet_lite import provenance
from ynet_lite.methods import AGGREGATED, RIVALS, reads_outlines
from ynet_lite.paper import second, store
from ynet_lite.paper.select import HEADLINE_FOLDS, complete, select


def test_a_grid_grows_only_beyond_the_edge_where_its_winner_lies():
    square = {(i, j): 0.0 for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert second.beyond(square, (0, 0)) == []
    assert second.beyond(square, (1, 0)) == [(2, -1), (2, 0), (2, 1)]
    corner = second.beyond(square, (-1, 1))
    assert set(corner) == {(-2, -1), (-2, 0), (-2, 1), (-1, 2), (0, 2), (1, 2)}
    line = {(i, 0): 0.0 for i in (-1, 0, 1)}
    assert second.beyond(line, (-1, 0)) == [(-2, 0)] and second.beyond(line, (0, 0)) == []


def test_the_best_place_by_hand():
    assert second.best({(0, 0): 0.5, (1, 0): 0.6, (-1, 0): 0.6}) == (-1, 0)


@pytest.mark.parametrize("part", second.PARTS)
def test_trials_stay_on_the_development_fold_with_seeds_of_their_own(part):
    methods, seeds = second.PARTS[part].methods + second.PARTS[part].single, second.PARTS[part].trial_seeds
    for method in methods:
        configs = [second.trial(part, method, place, seed) for place in second.first_grid(method) for seed in seeds]
        assert {cfg.fold for cfg in configs} == {second.DEVELOPMENT_FOLD}
        assert min(cfg.seed for cfg in configs) >= 100
        # the phantom is another one for each seed, so its trials share no case with its runs
        assert second.PARTS[part].dataset == "phantom" or second.DEVELOPMENT_FOLD not in second.PARTS[part].folds
        assert len({cfg.hash() for cfg in configs}) == len(second.first_grid(method))
        assert {cfg.label_share for cfg in configs} == {second.PARTS[part].share}
        assert {cfg.uses_masks for cfg in configs} == {reads_outlines(method)}


def test_every_method_of_a_part_has_as_many_trials_per_parameter():
    methods = {method for part in second.PARTS.values() for method in part.methods + part.single}
    sizes = {len(second.first_grid(method)) for method in methods if second.hangs_on(method)}
    assert sizes == {9}


def test_search_runs_until_the_winner_lies_inside(tmp_path, monkeypatch):
    wanted, made = (2, 0), []

    monkeypatch.setattr(second, "run_all", lambda configs, *_: made.extend(cfg.variant for cfg in configs))
    far = {
        second.trial("scratch", "ynet", place, 100).variant: -abs(place[0] - wanted[0]) - abs(place[1] - wanted[1])
        for place in [(i, j) for i in range(-3, 6) for j in range(-3, 4)]
    }
    monkeypatch.setattr(second, "known", lambda part, cfg, folder: far[cfg.variant] if cfg.variant in made else None)
    assert second.search("scratch", "ynet", tmp_path, jobs=None) == {} and not made
    scores = second.search("scratch", "ynet", tmp_path)
    assert second.best(scores) == wanted and len(made) == len(set(made)) == len(scores) == 15


def test_committed_trials_are_not_done_again(tmp_path, monkeypatch):
    done = second.kept_trials("scratch")
    first = second.trial("scratch", "ynet-no-seg", (0, 0), 100)
    line = done[done["run_id"] == provenance.run_id(first)].iloc[0]
    assert line["variant"] == first.variant and not done["dirty"].any()
    assert second.known("scratch", first, tmp_path) == pytest.approx(line["ndcg@10"])
    assert second.known("scratch", second.trial("scratch", "ynet-no-seg", (7, 7), 100), tmp_path) is None
    assert second.trial_rows("scratch", tmp_path).equals(done.sort_values(["method", "variant", "seed"], ignore_index=True))
    assert second.kept_trials("nothing").empty


@pytest.mark.parametrize("part", second.CHOSEN)
def test_settings_of_the_runs_are_the_winners_of_the_committed_trials_and_lie_inside_their_grids(part):
    trials = second.kept_trials(part)
    assert set(trials["fold"]) == {second.DEVELOPMENT_FOLD} and trials["seed"].min() >= 100 and not trials["dirty"].any()
    for method, (rate, parameter) in second.CHOSEN[part].items():
        scores = {}
        own = trials[trials["method"] == method].groupby("config_hash")["ndcg@10"].mean()
        places = second.first_grid(method)
        while places:
            scores |= {place: own[second.trial(part, method, place, 100).hash()] for place in places}
            places = second.beyond(scores, second.best(scores))
        won, name = second.trial(part, method, second.best(scores), 100), second.hangs_on(method)
        assert (won.lr, getattr(won, name) if name else 0.0) == (rate, parameter), method


def test_runs_of_the_second_edition_hold_no_case_of_the_development_fold():
    rows = store.rows("second")
    real = rows[rows["dataset"] != "phantom"]
    by_scanner = real["variant"].str.startswith("scanner unseen")  # these name the fold that is left out
    assert set(real[~by_scanner]["fold"]) <= set(HEADLINE_FOLDS) and not rows["dirty"].any()
    first = store.rows("first")
    left_out = first[(first["dataset"] == "busbra") & (first["fold"] == second.DEVELOPMENT_FOLD)]["run_id"].iloc[:1]
    asked = store.per_query(real[by_scanner]["run_id"].unique(), "map", 10)["case_id"]
    assert not set(asked) & set(store.per_query(left_out, "map", 10)["case_id"])
    assert set(real["preset"]) <= {"scratch", "pretrained"} and (rows[rows["dataset"] == "phantom"]["seed"] < 100).all()


def test_settings_of_a_share_are_tried_and_run_at_that_share(monkeypatch):
    """A setting is never carried to another amount of labels."""
    assert second.runs("scratch-25") == []  # no trials yet
    monkeypatch.setitem(second.CHOSEN, "scratch-25", {"ynet": (0.004, 0.125)})
    runs = second.runs("scratch-25")
    assert {(cfg.fold, cfg.seed) for cfg in runs} == {(fold, seed) for fold in (2, 3, 4, 5) for seed in (0, 1)}
    assert {(cfg.label_share, cfg.variant, cfg.lr) for cfg in runs} == {(0.25, "labels=25%", 0.004)}
    tried = second.trial("scratch-25", "ynet", (1, 0), 100)
    assert tried.variant == "trial labels=25% lr=0.004 pair_sharpness=0.125" and tried.hash() == runs[0].hash()
    whole = second.trial("scratch", "ynet", (1, 0), 100)
    assert tried.hash() != whole.hash() and tried.epochs == whole.epochs


def test_the_level_of_the_frozen_encoder_is_that_of_the_better_trial():
    trials = second.kept_trials("pretrained").set_index("variant")["ndcg@10"]
    scores = {level: trials[f"trial pool_levels={level}"] for level in (4, 5)}
    assert max(scores, key=scores.get) == second.FROZEN_LEVEL
    configs = second.frozen("pretrained")
    assert [cfg.fold for cfg in configs[:2]] == [second.DEVELOPMENT_FOLD] * 2 and len(configs) == 2 + 12
    assert {cfg.pool_levels for cfg in configs[2:]} == {(second.FROZEN_LEVEL,)} and not any(cfg.uses_masks for cfg in configs)


def test_what_is_committed_is_left_out_of_a_plan(tmp_path, monkeypatch):
    planned = []
    monkeypatch.setattr(second, "run_all", lambda configs, *_: planned.append(configs))
    for what in ("--runs", "--controls"):
        assert second.main(["scratch", what, "--folder", str(tmp_path)]) == 0
    assert second.main(["pretrained", "--frozen", "--folder", str(tmp_path)]) == 0
    assert planned == [[], [], []]
    monkeypatch.setattr(store, "rows", lambda edition: pd.DataFrame({"run_id": []}))
    second.main(["scratch", "--runs", "--folder", str(tmp_path)])
    assert planned[-1] == second.runs("scratch")


@pytest.mark.parametrize(
    ("method", "like", "scale"), [("ynet-no-seg", "ynet", "pair_sharpness"), ("hashnet", "hashnet+seg", "rival_scale")]
)
def test_a_method_without_outlines_is_run_at_the_settings_of_the_one_with(method, like, scale):
    planned = [c for c in second.PLANS["same"][1]("pretrained") if c.method == method]
    own, changed = second.CHOSEN["pretrained"][like], {"method", "lr", scale, "variant"}
    assert {(c.fold, c.seed, c.lr, getattr(c, scale), c.variant) for c in planned} == {
        (fold, 0, *own, f"settings of {like}") for fold in (2, 3, 4, 5)
    }
    usual = second.configuration("pretrained", method, *second.CHOSEN["pretrained"][method], fold=2, seed=0)
    assert {name for name in vars(usual) if getattr(usual, name) != getattr(planned[0], name)} <= changed


def test_the_twin_is_run_for_twice_its_epochs():
    usual = [cfg for cfg in second.runs("pretrained") if cfg.method == "ynet-no-seg" and cfg.seed == 0]
    longer = second.PLANS["longer"][1]("pretrained")
    assert longer == [cfg.but(epochs=2 * cfg.epochs, variant="epochs x2") for cfg in usual] and len(longer) == 4
    assert second.PLANS["longer"][1]("scratch") == []


def test_methods_of_one_seed_are_run_with_the_first(monkeypatch):
    monkeypatch.setitem(second.CHOSEN, "pretrained", {"ynet": (0.002, 2.0), "ynet-rim": (0.001, 0.5)})
    made = [(cfg.method, cfg.seed, cfg.fold) for cfg in second.runs("pretrained")]
    assert sorted(where for method, *where in made if method == "ynet-rim") == [[0, fold] for fold in (2, 3, 4, 5)]
    assert len(made) == 12 + 4


def test_every_rival_of_the_first_edition_ranks_above_the_frozen_encoder():
    """As docs/results.md and docs/faq.md say."""
    first = complete(select(store.rows("first", "small"), "busbra", "full"), HEADLINE_FOLDS)
    frozen = complete(select(store.rows("second"), "busbra", "pretrained"), HEADLINE_FOLDS)
    scores = [part[(part["metric"] == "map") & (part["k"] == 10)].groupby("method")["value"].mean() for part in (first, frozen)]
    assert scores[0][[*RIVALS, *AGGREGATED]].min() > scores[1]["frozen-itq"]
