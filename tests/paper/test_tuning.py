"""Equal tuning: six trials for each method, on validation patients, and the table they leave."""

import numpy as np
import pandas as pd
import pytest

from ynet_lite import metrics
from ynet_lite.config import Config
from ynet_lite.methods import PRESETS, TUNED
from ynet_lite.paper import store, tuning
from ynet_lite.paper.grids import ABLATIONS


@pytest.mark.parametrize("preset, dataset", [("quick", "phantom"), ("full", "busbra")])
@pytest.mark.parametrize("method", tuning.TUNABLE)
def test_every_method_gets_six_trials_that_differ_only_in_rate_and_scale(preset, dataset, method):
    trials = tuning.trials(method, preset, dataset)
    assert len(trials) == len({cfg.hash() for cfg in trials}) == 6
    scale = tuning._field(method) or "lr"
    assert len({cfg.but(**({"lr": 1.0} | {scale: 1.0})).hash() for cfg in trials}) == 1
    first = trials[0]
    assert (first.validation, first.seed, first.fold) == (0.2, 100, 1)
    assert first.epochs == round(PRESETS[preset]["epochs"] / tuning.SHORTER[preset])
    # an earlier choice must not move the trials, or tuning again would wander
    assert trials == tuning.trials(method, preset, dataset)
    assert tuning.untuned(preset, dataset, method).lr == PRESETS[preset].get("lr", Config().lr)


def test_the_winner_is_the_best_by_validation_and_a_tie_goes_to_the_smaller_rate():
    rows = [
        ("full", "a", 0.1, "cls_scale", 1.0, 0.5),
        ("full", "a", 0.2, "cls_scale", 3.0, 0.7),
        ("full", "a", 0.1, "cls_scale", 3.0, 0.7),
        ("full", "gap", 0.4, None, np.nan, 0.2),
        ("full", "gap", 0.2, None, np.nan, 0.1),
    ]
    table = pd.DataFrame(rows, columns=["preset", "method", "lr", "scale_field", "scale", "val_map10"])
    assert tuning.chosen(table) == {("full", "a"): {"lr": 0.1, "cls_scale": 3.0}, ("full", "gap"): {"lr": 0.4}}


def test_a_trial_scores_validation_patients_and_never_reads_the_queries(tmp_path, monkeypatch):
    small = {"phantom_cases": 60, "size": 48, "epochs": 1, "planes": (4, 4, 8, 8), "blocks": 1, "fpn": 8, "batch": 16}
    seen = []
    evaluate = metrics.evaluate
    monkeypatch.setattr(metrics, "evaluate", lambda d, q, b, *a, **k: seen.append((q, b)) or evaluate(d, q, b, *a, **k))
    cfg = Config.from_preset("quick", "phantom", **small).but(validation=0.3, validate_every=1, seed=100)
    row = tuning.trial(cfg)
    database, queries = tuning.load_cases(cfg).split(1)
    ((scored, base),) = seen
    assert set(scored.ids) | set(base.ids) == set(database.ids)
    assert not set(scored.groups) & set(base.groups) and not set(scored.ids) & set(queries.ids)
    assert 0 <= row["val_map10"] <= 1 and 0 <= row["val_dice"] <= 1 and row["val_queries"] == len(scored)


def test_the_command_runs_what_is_missing_and_then_nothing(tmp_path, monkeypatch, capsys):
    done = []
    row = {"preset": "quick", "method": "dsh", "lr": 0.1, "scale_field": "rival_scale", "scale": 1.0, "val_map10": 0.5}
    row |= {"cls_loss": "dsh", "balance": 1.0}
    monkeypatch.setattr(tuning, "trial", lambda cfg: done.append(cfg) or row | {"lr": cfg.lr, "scale": cfg.rival_scale})
    line = ["--methods", "dsh", "--preset", "quick", "--jobs", "1", "--folder", str(tmp_path)]
    assert tuning.main(line) == 0 and len(done) == 6
    assert tuning.main(line) == 0 and len(done) == 6
    assert tuning.main([*line, "--choose"]) == 0
    assert '("quick", "dsh"): {"lr": 0.001, "rival_scale": 0.0625},' in capsys.readouterr().out


def test_choosing_reads_the_committed_trials_and_says_where_there_are_none(tmp_path, capsys):
    assert tuning.main(["--choose"]) == 0
    assert '("full", "ynet"): {' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        tuning.main(["--choose", "--folder", str(tmp_path)])
    assert f"no trials in {tmp_path}" in capsys.readouterr().err


def test_the_settings_in_use_are_those_that_won():
    """What `config.TUNED` holds is what the committed trials chose, for every method that was tuned."""
    table = store.small("tuning/trials")
    won = tuning.chosen(table)
    for key, settings in won.items():
        assert TUNED.get(key) == settings, key
    assert not (table["dirty"].any()), "trials of changed code"
    assert (table.groupby(["preset", "method"]).size() == 6).all()


def test_ablations_without_a_tuning_of_their_own_inherit_that_of_their_parent():
    for preset in ("quick", "full"):
        for method in set(ABLATIONS) - set(tuning.TUNABLE):
            dataset = {"quick": "phantom", "full": "busbra"}[preset]
            assert Config.from_preset(preset, dataset, method).lr == Config.from_preset(preset, dataset, "ynet").lr
