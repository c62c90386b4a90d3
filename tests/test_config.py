"""The configuration: what it hashes, what it refuses, and that presets and methods make usable networks."""

import hashlib
import json
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch

from ynet_lite import losses, paths
from ynet_lite.augment import Augment, augment
from ynet_lite.config import NEUTRAL, UNHASHED, Config, Data, Ranking
from ynet_lite.encoding import distances
from ynet_lite.losses.unified import UnifiedLoss
from ynet_lite.losses.weights import LossWeights
from ynet_lite.methods import METHODS, PAPER_METHODS, PRESETS, tuned
from ynet_lite.model import Network, YNet
from ynet_lite.sets import load_cases

CHOICES = {f.name: f.metadata["known"] for f in fields(Config) if "known" in f.metadata and f.type == "str"}
HASHED = [f.name for f in fields(Config) if f.name not in UNHASHED]


def changed(cfg: Config, name: str) -> Config:
    value = getattr(cfg, name)
    if name == "code_source":
        return cfg.but(code_source="itq", aggregation="rmac")
    if name == "code_halves":
        return cfg.but(code_halves=True, pooling="rmac+lesion")
    if name == "encoder":
        return cfg.but(encoder="lite0")
    if name == "drop_path":
        return cfg.but(drop_path=0.1)
    if name == "device":
        return cfg.but(device="cuda")
    if name in CHOICES:
        return cfg.but(**{name: next(other for other in CHOICES[name] if other != value)})
    if name in ("bits", "pool_levels"):
        return cfg.but(**{name: {"bits": 32, "pool_levels": (5,)}[name]})
    if isinstance(value, bool):
        return cfg.but(**{name: not value})
    if isinstance(value, tuple):
        return cfg.but(**{name: (*value, 99)})
    return cfg.but(**{name: value + 1 if isinstance(value, (int, float)) else value + "x"})


def test_unhashed_fields_exist():
    assert set(UNHASHED) <= {f.name for f in fields(Config)}
    names, paths, machine = {"preset", "dataset", "method", "variant"}, {"data_dir", "manifest"}, {"device", "threads"}
    assert set(UNHASHED) == names | paths | machine | {"fold", "seed", "ks"}


@pytest.mark.parametrize("name", UNHASHED)
def test_hash_ignores_names_seed_fold_paths_and_device(name):
    cfg = Config()
    other = changed(cfg, name)
    assert other != cfg
    assert other.hash() == cfg.hash()
    assert other.training_hash() == cfg.training_hash()


@pytest.mark.parametrize("name", HASHED)
def test_hash_sees_every_other_field(name):
    cfg = Config()
    assert changed(cfg, name).hash() != cfg.hash()


def test_hash_is_ten_hexadecimal_digits_and_repeatable():
    value = Config().hash()
    assert len(value) == 10
    int(value, 16)
    assert value == Config().hash()


def test_training_hash_leaves_out_only_what_acts_after_training():
    cfg = Config()
    for name in HASHED:
        same = changed(cfg, name).training_hash() == cfg.training_hash()
        assert not same, name  # validation ranks too, and chooses the epoch
        if name == "select":
            continue
        unranked = cfg.but(select="train-loss")
        same = changed(unranked, name).training_hash() == unranked.training_hash()
        assert same == (name in ("ranking", "flip_codes", "aggregation", "code_source")), name


@pytest.mark.parametrize("loss", [*(row.name for row in losses.ALL), "none"])
def test_a_loss_is_one_field_here_and_two_on_disk(loss):
    cfg = Config(loss=loss)
    flat = json.loads(cfg.to_json())
    assert "loss" not in flat and {flat["cls_loss"], flat["rival"]} <= {loss, "none", ""}
    assert Config.from_json(cfg.to_json()) == cfg


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        Config().bits = 8


def test_but_leaves_the_original_alone():
    cfg = Config()
    other = cfg.but(bits=8, planes=(1, 2, 3, 4))
    assert (cfg.bits, other.bits, other.planes) == (64, 8, (1, 2, 3, 4))
    with pytest.raises(TypeError):
        cfg.but(no_such_field=1)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_json_round_trip(preset, method):
    cfg = Config.from_preset(preset, "busbra", method, seed=3, data_dir="somewhere")
    again = Config.from_json(cfg.to_json())
    assert again == cfg
    assert again.hash() == cfg.hash()
    assert isinstance(again.planes, tuple) and isinstance(again.ks, tuple)


def test_every_committed_configuration_has_its_hash():
    stored = [json.loads(path.read_text()) for path in sorted(paths.results().rglob("configs.json"))]
    assert stored and len(stored[0]) == 163
    for name, values in (pair for part in stored for pair in part.items()):
        assert Config.from_json(json.dumps(values)).hash() == name


def test_what_reads_a_part_takes_the_part_alone():
    images, masks = torch.zeros(4, 1, 32, 32), torch.zeros(4, 32, 32, dtype=torch.int64)
    model = YNet(Network(size=32, planes=(4, 4, 4, 4), blocks=1, fpn=4, bits=8), 2)
    moved, masks = augment(images, masks, Augment(aug_rotate=0), torch.Generator())
    output, labels = model(moved), torch.arange(4) % 2
    loss, _ = UnifiedLoss(LossWeights(bits=8), 2)(output, masks, labels > 0, labels, model.classifier)
    assert loss.isfinite()
    code = {"code": output.code.detach().numpy()}
    assert distances(Ranking(ranking="hamming"), code, code).shape == (4, 4)
    assert load_cases(Data(phantom_cases=40, size=32)).images.shape == (40, 1, 32, 32)
    with pytest.raises(ValueError, match="Config.aug_rotate: 'far'; a number is needed"):
        Augment(aug_rotate="far")


def test_json_rejects_unknown_fields_by_name():
    values = json.loads(Config().to_json()) | {"learning_rate": 1, "colour": 2}
    with pytest.raises(ValueError, match=r"unknown field.*colour.*learning_rate") as error:
        Config.from_json(json.dumps(values))
    assert "'lr'" in str(error.value)  # says what would be right


def test_from_preset_order_is_defaults_preset_method_changes():
    cfg = Config.from_preset("full", "busbra", "ynet-circle", epochs=1)
    assert cfg.size == PRESETS["full"]["size"]
    assert cfg.loss == "circle"
    assert cfg.epochs == 1
    assert (cfg.preset, cfg.dataset, cfg.method) == ("full", "busbra", "ynet-circle")
    # a method goes over a preset, a change over both
    assert Config.from_preset("paper", method="ynet-paper").quant_weight == METHODS["ynet-paper"]["quant_weight"]
    assert Config.from_preset("paper", method="ynet-paper", quant_weight=0.5).quant_weight == 0.5


@pytest.mark.parametrize("method", PAPER_METHODS)
def test_paper_methods_always_use_the_paper_preset(method):
    assert Config.from_preset("quick", method=method) == Config.from_preset("paper", method=method)
    assert Config.from_preset("quick", method=method).size == 256


@pytest.mark.parametrize("wrong", [{"preset": "fast"}, {"method": "resnet"}])
def test_from_preset_names_what_is_wrong_and_what_is_known(wrong):
    ((what, value),) = wrong.items()
    known = {"preset": PRESETS, "method": METHODS}[what]
    with pytest.raises(ValueError, match=f"{what} '{value}' is not known") as error:
        Config.from_preset(**wrong)
    assert all(name in str(error.value) for name in known)


def test_from_env(monkeypatch):
    for name in ("YNET_PRESET", "YNET_DATASET", "YNET_DATA_DIR", "YNET_MANIFEST", "YNET_CHANNELS"):
        monkeypatch.delenv(name, raising=False)
    assert Config.from_env() == Config.from_preset("quick", "phantom", "ynet")
    for name in ("YNET_PRESET", "YNET_DATASET", "YNET_DATA_DIR", "YNET_MANIFEST", "YNET_CHANNELS"):
        monkeypatch.setenv(name, "")  # set but empty is as good as not set
    assert Config.from_env() == Config.from_preset("quick", "phantom", "ynet")
    monkeypatch.setenv("YNET_PRESET", "full")
    monkeypatch.setenv("YNET_DATASET", "busi")
    monkeypatch.setenv("YNET_DATA_DIR", "images")
    monkeypatch.setenv("YNET_MANIFEST", "own.csv")
    cfg = Config.from_env("ynet-no-seg", seed=4)
    expected = Config.from_preset("full", "busi", "ynet-no-seg", seed=4)
    assert cfg == expected  # the paths are read where images are looked for
    assert Config.from_env(data_dir="elsewhere").data_dir == "elsewhere"
    monkeypatch.setenv("YNET_CHANNELS", "3")
    assert Config.from_env("ynet-no-seg", seed=4) == expected.but(channels=3)
    assert Config.from_env(channels=1).channels == 1
    monkeypatch.setenv("YNET_CHANNELS", "4")
    with pytest.raises(ValueError, match="YNET_CHANNELS: '4'; give 1"):
        Config.from_env()
    monkeypatch.delenv("YNET_CHANNELS")
    monkeypatch.setenv("YNET_PRESET", "huge")
    with pytest.raises(ValueError, match="huge"):
        Config.from_env()


def test_methods_are_what_their_names_say():
    twin = Config.from_preset(method="ynet-no-seg")
    assert not twin.uses_masks and twin.pooling == "rmac" and twin.balance == 1
    selfpool = Config.from_preset(method="ynet-selfpool")
    assert not selfpool.uses_masks and selfpool.pooling == "selfpool"
    assert Config.from_preset(method="ynet-rmac").uses_masks and Config.from_preset(method="ynet-rmac").pooling == "rmac"
    assert Config.from_preset(method="ynet-no-cls").loss == "none"
    assert Config.from_preset(method="ynet-no-quant").quant_weight == 0
    released, signed = (Config.from_preset(method=m) for m in ("released", "released-sign"))
    assert (released.ranking, signed.ranking) == ("cosine", "hamming")
    assert released.hash() != signed.hash()
    assert released.training_hash() == signed.training_hash()  # one training, two rankings


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_the_twin_has_the_classification_settings_of_ynet(preset):
    full, twin = (Config.from_preset(preset, method=m) for m in ("ynet", "ynet-no-seg"))
    differing = {f.name for f in fields(Config) if getattr(full, f.name) != getattr(twin, f.name)}
    # the rate and the scale of its loss are its own, by the same number of validation trials
    chosen = {*tuned(preset, "ynet"), *tuned(preset, "ynet-no-seg")}
    assert chosen <= {"lr", "cls_scale", "pair_sharpness"}
    assert differing - chosen <= {"method", "balance", "pooling", "pool_levels"}


def test_paper_preset_holds_the_stated_numbers():
    cfg = Config.from_preset("paper")
    assert (cfg.size, cfg.channels, cfg.stem, cfg.block, cfg.planes, cfg.blocks) == (
        256, 3, "conv7-pool", "bottleneck", (8, 16, 32, 64), 2,
    )  # fmt: skip
    assert (cfg.descriptor, cfg.fpn, cfg.bits, cfg.pooling, cfg.pool_levels) == (512, 32, 64, "rmac", (5,))
    assert (cfg.loss, cfg.circle_margin, cfg.balance, cfg.balance_trainable) == ("circle", 0.25, 0.5, False)
    assert cfg.circle_gamma in (1.0, 32.0)
    assert (cfg.optimizer, cfg.lr, cfg.weight_decay) == ("adam", 1e-3, 1e-5)
    assert cfg.batch in (10, 36) and 10 <= cfg.epochs <= 50
    assert not cfg.dice  # cross-entropy alone, as stated


@pytest.mark.parametrize("name", CHOICES)
def test_unknown_words_are_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=f"Config.{name}: 'nonsense' is not known; known are"):
        Config(**{name: "nonsense"})


def test_every_part_of_a_joined_pooling_is_checked():
    assert Config(pooling="lesion+rmac").pooling == "lesion+rmac"
    with pytest.raises(ValueError, match=r"Config.pooling: 'lesion\+max'"):
        Config(pooling="lesion+max")


@pytest.mark.parametrize(
    "changes", [{"bits": 12}, {"bits": 0}, {"pool_levels": ()}, {"pool_levels": (1,)}, {"pool_levels": (3, 6)}]
)
def test_impossible_numbers_are_refused_before_any_training(changes):
    with pytest.raises(ValueError, match=f"Config.{next(iter(changes))}"):
        Config(**changes)


def test_equal_settings_have_equal_hashes():
    assert Config(balance=1).hash() == Config(balance=1.0).hash()


def test_what_pandas_and_pathlib_give_can_be_stored(tmp_path):
    plain = Config(fold=2, manifest=str(tmp_path / "mine.csv"), data_dir=str(tmp_path))
    given = Config(fold=np.int64(2), manifest=tmp_path / "mine.csv", data_dir=tmp_path)
    assert given == plain and given.to_json() == plain.to_json()
    with pytest.raises(ValueError, match="Config.epochs: 1.5; a whole number"):
        Config(epochs=1.5)


def test_younger_fields_stay_out_of_the_hash_at_their_neutral_value_alone():
    cfg = Config()
    for name, value in NEUTRAL.items():
        assert cfg.flat()[name] == value  # the default is the behaviour before the field existed
        assert (cfg.but(loss="dsh") if name == "rival" else changed(cfg, name)).hash() != cfg.hash()
    older = set(cfg.flat()) - set(UNHASHED) - set(NEUTRAL)
    text = json.dumps({name: cfg.flat()[name] for name in older}, sort_keys=True)
    assert cfg.hash() == hashlib.sha256(text.encode()).hexdigest()[:10]


def test_runs_without_validation_share_a_training_whatever_ranks_them():
    cfg = Config(validation=0.0, aggregation="rmac", ranking="cosine")
    assert cfg.but(aggregation="crow", code_source="itq", ranking="hamming").training_hash() == cfg.training_hash()
    assert cfg.but(validation=0.1).training_hash() != cfg.but(validation=0.1, ranking="hamming").training_hash()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("epochs", 0, "at least 1"),
        ("batch", 0, "at least 1"),
        ("threads", 0, "at least 1"),
        ("validate_every", 0, "at least 1"),
        ("device", "gpu", "PyTorch knows"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(field, value, said):
    with pytest.raises(ValueError, match=f"Config.{field}.*{said}"):
        Config(**{field: value})


def test_every_field_is_brought_into_one_form_whatever_its_module_says_of_annotations():
    for f in fields(Config):
        kind = f.type if isinstance(f.type, str) else f.type.__name__
        if kind == "float":
            assert isinstance(getattr(Config().but(**{f.name: 0}), f.name), float), f.name
