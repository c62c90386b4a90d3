"""The first edition's trials: six for each method, and the settings in use are those that won."""

from ynet_lite.config import Config
from ynet_lite.methods import ALL, BY_NAME, tuned
from ynet_lite.paper import store
from ynet_lite.paper.grids import ABLATIONS


def test_the_settings_in_use_are_those_that_won():
    """The highest validation mAP@10 of the six; of equal ones the smaller rate, then the smaller scale."""
    table = store.small("tuning/trials")
    assert not table["dirty"].any(), "trials of changed code"
    assert set(table.groupby(["preset", "method"]).groups) == {(preset, method.name) for method in ALL for preset in method.tuned}
    for key, six in table.groupby(["preset", "method"]):
        assert len(six) == 6
        best = six.sort_values(["val_map10", "lr", "scale"], ascending=[False, True, True]).iloc[0]
        scale = {best["scale_field"]: best["scale"]} if isinstance(best["scale_field"], str) else {}
        assert tuned(*key) == {"lr": best["lr"]} | scale, key


def test_ablations_without_trials_of_their_own_inherit_the_settings_of_their_parent():
    for preset, dataset in (("quick", "phantom"), ("full", "busbra")):
        for method in [name for name in ABLATIONS if not BY_NAME[name].tuned.get(preset)]:
            assert Config.from_preset(preset, dataset, method).lr == Config.from_preset(preset, dataset, "ynet").lr
