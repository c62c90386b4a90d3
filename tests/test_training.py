"""Training: the same bits again, interrupted or not; no leak between patients; no mask where none may be seen."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ynet_lite import checkpoint as checkpoint_module
from ynet_lite import training
from ynet_lite.cases.core import Cases
from ynet_lite.cases.outlines import degraded, outlined
from ynet_lite.checkpoint import Checkpoint, checkpoint_path
from ynet_lite.config import Config
from ynet_lite.encoding import _precision, _Rounding, distances, encode, encode_floats
from ynet_lite.evaluation import evaluate_checkpoint
from ynet_lite.hashing import Codes, pack
from ynet_lite.model import YNet
from ynet_lite.sets.phantom import make_phantom
from ynet_lite.training import load_or_train, train, validation_score


@pytest.fixture(autouse=True)
def own_output(tmp_path, monkeypatch):
    monkeypatch.setenv("YNET_OUT", str(tmp_path / "out"))


def fit(cfg: Config, cases: Cases, **more) -> Checkpoint:
    return train(cfg, cases, progress=False, **more)


def same_weights(a: Checkpoint, b: Checkpoint) -> bool:
    first, second = a.model.state_dict(), b.model.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def scrambled(cases: Cases, seed: int = 5) -> Cases:
    """The same cases with other masks, and every second outline unknown."""
    masks = np.random.default_rng(seed).integers(0, 2, cases.masks.shape).astype(np.uint8)
    return replace(cases, masks=masks, has_mask=np.arange(len(cases)) % 2 == 0)


class Stop(Exception):
    pass


def stop_after(monkeypatch, epochs: int) -> None:
    """Every training that starts now breaks off when it begins epoch ``epochs + 1``."""
    run_epoch = training._State.run_epoch

    def limited(state):
        if state.epoch == epochs:
            raise Stop
        return run_epoch(state)

    monkeypatch.setattr(training._State, "run_epoch", limited)


# ---------------------------------------------------------------- determinism


@pytest.mark.parametrize("method", ["ynet", "ynet-no-seg"])
def test_one_seed_gives_the_same_codes(tiny_cases, tiny_config, method):
    cfg = tiny_config.but(balance=1.0, pooling="rmac") if method == "ynet-no-seg" else tiny_config
    torch.manual_seed(1)
    first = fit(cfg, tiny_cases)
    torch.manual_seed(2)  # the global state plays no part
    np.random.seed(2)  # noqa: NPY002
    second = fit(cfg, tiny_cases)
    assert same_weights(first, second)
    assert np.array_equal(encode(first, tiny_cases).packed, encode(second, tiny_cases).packed)
    pd.testing.assert_frame_equal(first.history, second.history)
    other = fit(cfg.but(seed=1), tiny_cases)
    assert not same_weights(first, other)


def test_training_leaves_global_state_and_cases_alone(tiny_cases, tiny_config):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    kept = tiny_cases.images.copy(), tiny_cases.masks.copy(), tiny_cases.labels.copy(), tiny_cases.table.copy()
    fit(tiny_config, tiny_cases)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(tiny_cases.images, kept[0]) and np.array_equal(tiny_cases.masks, kept[1])
    assert np.array_equal(tiny_cases.labels, kept[2])
    pd.testing.assert_frame_equal(tiny_cases.table, kept[3])


def test_it_learns(tiny_cases, draw_cases, tiny_config):
    cfg = tiny_config.but(epochs=15, lr=1e-2, augment=False)
    checkpoint = fit(cfg, tiny_cases)
    history = checkpoint.history
    assert list(history["epoch"]) == list(range(1, 16))
    assert history["loss"].iloc[-1] < 0.7 * history["loss"].iloc[0]
    unseen = draw_cases(24, seed=9)
    untrained = YNet(cfg, 2)
    with_training, without = (validation_score(m, cfg, unseen, tiny_cases) for m in (checkpoint.model, untrained))
    assert with_training > 0.9 and with_training > without
    predicted = encode_floats(checkpoint.model, cfg, unseen, masks=True)["masks"]
    assert predicted.dtype == np.uint8 and predicted.shape == unseen.masks.shape
    overlap = 2 * (predicted & unseen.masks).sum() / (predicted.sum() + unseen.masks.sum())
    assert overlap > 0.6


def test_history_has_every_term(tiny_cases, tiny_config):
    history = fit(tiny_config, tiny_cases).history
    wanted = ["loss", "classification", "seg_ce", "seg_dice", "quantisation", "lr", "balance", "validation"]
    assert set(wanted) < set(history.columns)
    a = tiny_config.balance
    by_hand = a * history["classification"] + (1 - a) * (history["seg_ce"] + history["seg_dice"]) + 0.01 * history["quantisation"]
    np.testing.assert_allclose(history["loss"], by_hand, rtol=1e-5)
    assert (history["balance"] == a).all()


# ---------------------------------------------------------------- interruption


@pytest.mark.parametrize(
    "changes",
    [{"ema": 0.9}, {"optimizer": "adam", "schedule": "constant", "balance_trainable": True}, {"select": "train-loss"}],
    ids=["averaged", "adam, trained balance", "by training loss"],
)
def test_resumed_training_gives_the_same_bits(tiny_cases, tiny_config, tmp_path, monkeypatch, changes):
    cfg = tiny_config.but(epochs=4, **changes)
    whole = fit(cfg, tiny_cases)
    file = tmp_path / "run.resume.pt"
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stop):
            fit(cfg, tiny_cases, resume=file)
    assert file.is_file()
    epochs = []
    with monkeypatch.context() as patch:
        run_epoch = training._State.run_epoch
        patch.setattr(training._State, "run_epoch", lambda state: (epochs.append(state.epoch), run_epoch(state))[1])
        resumed = fit(cfg, tiny_cases, resume=file)
    assert epochs == [2, 3]  # the first two were not done again
    assert same_weights(whole, resumed)
    assert resumed.best_epoch == whole.best_epoch
    pd.testing.assert_frame_equal(whole.history, resumed.history)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_a_damaged_resume_file_is_reported_and_training_starts_anew(damage, tiny_cases, tiny_config, tmp_path):
    file = tmp_path / "run.resume.pt"
    fit(tiny_config, tiny_cases, resume=file)
    content = file.read_bytes()
    file.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    if damage == "other":
        torch.save([1, 2], file)
    with pytest.warns(UserWarning, match="run.resume.pt: damaged, so training starts anew"):
        again = fit(tiny_config, tiny_cases, resume=file)
    assert same_weights(again, fit(tiny_config, tiny_cases))


def test_resume_refuses_another_run(tiny_cases, draw_cases, tiny_config, tmp_path):
    file = tmp_path / "run.resume.pt"
    fit(tiny_config, tiny_cases, resume=file)
    for cfg, cases in [
        (tiny_config.but(lr=1e-4), tiny_cases),
        (tiny_config.but(seed=1), tiny_cases),
        (tiny_config, draw_cases(seed=1)),
    ]:
        with pytest.raises(ValueError, match="another configuration or other data"):
            fit(cfg, cases, resume=file)


def test_interrupted_load_or_train_goes_on_and_tidies_up(tiny_cases, tiny_config, monkeypatch):
    cfg = tiny_config.but(epochs=3, method="released", ranking="cosine", select="train-loss")
    whole = fit(cfg, tiny_cases)
    path = checkpoint_path(cfg, tiny_cases)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Stop):
            load_or_train(cfg, tiny_cases, progress=False)
    assert not path.exists()
    # taken up under a name that shares the training, as released and released-sign do, and with another data folder
    other = cfg.but(method="released-sign", ranking="hamming", data_dir="elsewhere")
    resumed = load_or_train(other, tiny_cases, progress=False)
    assert same_weights(whole, resumed)
    assert sorted(p.name for p in path.parent.iterdir()) == sorted([path.name, path.with_suffix(".json").name])


def test_seconds_are_counted_once(tiny_cases, tiny_config, monkeypatch):
    clock = iter(range(0, 10_000))
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(clock))
    # two epochs read the clock twice each, the training at its start and end: 0, (1, 2), (3, 4), 5
    assert fit(tiny_config, tiny_cases).seconds == 5


# ---------------------------------------------------------------- patients


def test_validation_patients_are_not_trained_on(tiny_cases, tiny_config, monkeypatch):
    asked, seen = [], []
    score, augment = training.validation_score, training.augment
    monkeypatch.setattr(training, "validation_score", lambda m, c, q, d: (asked.append((q, d)), score(m, c, q, d))[1])
    monkeypatch.setattr(training, "augment", lambda i, m, c, g: (seen.append(i.clone()), augment(i, m, c, g))[1])
    fit(tiny_config, tiny_cases)
    assert asked
    for queries, database in asked:
        assert not set(queries.groups) & set(database.groups)
        assert sorted([*queries.ids, *database.ids]) == sorted(tiny_cases.ids)
        assert len(set(queries.labels)) == 2
        assert len(set(queries.groups)) == pytest.approx(0.2 * 24, abs=1.5)
    known = {image.tobytes(): group for image, group in zip(tiny_cases.images, tiny_cases.groups, strict=True)}
    trained = {known[image.numpy().astype(np.uint8).tobytes()] for images in seen for image in images}
    assert trained and not trained & set(asked[0][0].groups)


def test_best_epoch_is_the_one_with_the_best_validation(tiny_cases, tiny_config, monkeypatch):
    scores = iter([0.3, 0.9, 0.5])
    snapshots = []

    def score(model, *_):
        snapshots.append({key: value.clone() for key, value in model.state_dict().items()})
        return next(scores)

    monkeypatch.setattr(training, "validation_score", score)
    checkpoint = fit(tiny_config.but(epochs=6, validate_every=1), tiny_cases)
    assert checkpoint.best_epoch == 5
    assert checkpoint.history["validation"].round(2).tolist()[3:] == [0.3, 0.9, 0.5]
    assert checkpoint.history["validation"].isna().sum() == 3
    state = checkpoint.model.state_dict()
    assert all(torch.equal(state[key], snapshots[1][key]) for key in state)


def test_lowest_training_loss_selects_as_released(tiny_cases, tiny_config):
    checkpoint = fit(tiny_config.but(epochs=4, select="train-loss", validation=0.0), tiny_cases)
    assert checkpoint.best_epoch == checkpoint.history["loss"].idxmin() + 1
    assert checkpoint.history["validation"].isna().all()


def test_without_validation_patients_the_last_epoch_counts(tiny_cases, tiny_config):
    assert fit(tiny_config.but(validation=0.0), tiny_cases).best_epoch == tiny_config.epochs


def test_averaged_weights_are_what_is_validated_and_kept(tiny_cases, tiny_config):
    cfg = tiny_config.but(ema=0.9, epochs=3)
    checkpoint, plain = fit(cfg, tiny_cases), fit(cfg.but(ema=0.0), tiny_cases)
    assert not same_weights(checkpoint, plain)
    assert checkpoint.history["loss"].tolist() == plain.history["loss"].tolist()  # averaging watches, it does not steer
    state = training._State(cfg, tiny_cases)
    score = validation_score(checkpoint.model, cfg, state.validation_cases, state.train_cases)
    row = checkpoint.history.set_index("epoch").loc[checkpoint.best_epoch]
    assert score == pytest.approx(row["validation"])


# ---------------------------------------------------------------- masks


def test_the_twin_never_sees_a_mask(tiny_cases, tiny_config):
    cfg = tiny_config.but(balance=1.0, pooling="rmac", pool_levels=(5,))
    assert same_weights(fit(cfg, tiny_cases), fit(cfg, scrambled(tiny_cases)))
    cfg = tiny_config.but(balance=1.0, pooling="selfpool")
    assert same_weights(fit(cfg, tiny_cases), fit(cfg, scrambled(tiny_cases)))
    # the counter-check: with the segmentation loss they do act
    assert not same_weights(fit(tiny_config, tiny_cases), fit(tiny_config, scrambled(tiny_cases)))


def test_unknown_outlines_do_not_act(tiny_cases, tiny_config):
    unknown = np.arange(len(tiny_cases)) % 3 == 0
    first = replace(tiny_cases, has_mask=~unknown)
    masks = tiny_cases.masks.copy()
    masks[unknown] = 1 - masks[unknown]
    assert same_weights(fit(tiny_config, first), fit(tiny_config, replace(first, masks=masks)))


def test_mask_share_zero_equals_no_outlines(tiny_cases, tiny_config):
    cfg = tiny_config.but(mask_share=0.0)
    assert same_weights(fit(cfg, tiny_cases), fit(cfg, scrambled(tiny_cases)))


def test_mask_share_picks_patients(tiny_cases):
    patients = {}
    for share in (0.0, 0.25, 0.5, 1.0):
        rows = outlined(tiny_cases, share, seed=0)
        assert rows.dtype == bool and rows.shape == (48,)
        patients[share] = set(tiny_cases.groups[rows])
        assert len(patients[share]) == share * 24
        assert not patients[share] & set(tiny_cases.groups[~rows])  # a patient with all images or with none
    assert patients[0.25] < patients[0.5] < patients[1.0]
    assert patients[0.5] != set(tiny_cases.groups[outlined(tiny_cases, 0.5, seed=1)])
    known = replace(tiny_cases, has_mask=np.arange(48) % 2 == 0)
    assert np.array_equal(outlined(known, 1.0, 0), known.has_mask)
    shuffled = tiny_cases.take(np.random.default_rng(0).permutation(48))
    assert set(shuffled.groups[outlined(shuffled, 0.5, 0)]) == patients[0.5]
    for wrong in (-0.1, 1.5):
        with pytest.raises(ValueError, match="mask_share.*between 0 and 1"):
            outlined(tiny_cases, wrong, 0)


def test_true_masks_and_labels_never_reach_the_codes(tiny_cases, tiny_config):
    checkpoint = fit(tiny_config, tiny_cases)
    other = replace(scrambled(tiny_cases), labels=1 - tiny_cases.labels)
    first, second = encode(checkpoint, tiny_cases), encode(checkpoint, other)
    assert np.array_equal(first.packed, second.packed)
    for key in ("code", "descriptor", "masks"):
        values = [encode_floats(checkpoint.model, tiny_config, cases, masks=True)[key] for cases in (tiny_cases, other)]
        assert np.array_equal(*values)


# ---------------------------------------------------------------- what moves and what does not


def test_trained_balance_is_optimised_and_a_fixed_one_is_not(tiny_cases, tiny_config):
    moved = fit(tiny_config.but(balance_trainable=True, lr=1e-2), tiny_cases).history["balance"]
    assert abs(moved.iloc[-1] - 0.5) > 0.01
    state = training._State(tiny_config.but(balance_trainable=True), tiny_cases)
    held = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    assert id(state.loss.a) in held
    assert held == {id(p) for p in [*state.model.parameters(), state.loss.a]}
    assert (fit(tiny_config, tiny_cases).history["balance"] == 0.5).all()


def test_released_code_layer_stays_a_random_projection(tiny_cases, tiny_config):
    cfg = tiny_config.but(
        code_input="c5", cls_target="descriptor", loss="circle", quant_weight=0.0, pooling="rmac",
        optimizer="adam", weight_decay=1e-2, select="train-loss",
    )  # fmt: skip
    before = training._State(cfg, tiny_cases).model.state_dict()
    after = fit(cfg, tiny_cases).model.state_dict()
    assert torch.equal(before["code.weight"], after["code.weight"])
    assert torch.equal(before["code.bias"], after["code.bias"])
    assert not torch.equal(before["encoder.stem.0.weight"], after["encoder.stem.0.weight"])
    trained = fit(cfg.but(code_input="descriptor", cls_target="code"), tiny_cases).model.state_dict()
    start = training._State(cfg.but(code_input="descriptor", cls_target="code"), tiny_cases).model.state_dict()
    assert not torch.equal(start["code.weight"], trained["code.weight"])


def test_norms_and_biases_are_not_decayed(tiny_cases, tiny_config):
    state = training._State(tiny_config, tiny_cases)
    names = {id(p): name for name, p in state.model.named_parameters()}
    decayed = {names[id(p)] for g in state.optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {name for name, p in state.model.named_parameters() if p.ndim > 1}


def test_one_cycle():
    cfg = Config(lr=1.0, epochs=10)
    rates = [training._rate(cfg, i / 10) for i in range(100)]
    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == pytest.approx(1.0) and rates.index(max(rates)) == 20
    assert all(a < b for a, b in zip(rates[:20], rates[1:21], strict=True))
    assert all(a > b for a, b in zip(rates[20:], rates[21:], strict=False))
    assert 0 < rates[-1] < 0.01
    assert training._rate(cfg, 6.0) == pytest.approx(0.5)  # half way down
    assert {training._rate(cfg.but(schedule="constant"), at) for at in (0, 3.3, 9.9)} == {1.0}


def test_every_epoch_has_its_own_order_and_uses_a_case_once(tiny_cases, tiny_config, monkeypatch):
    orders = []
    order = training._order
    monkeypatch.setattr(training, "_order", lambda *args: orders.append(order(*args)) or orders[-1])
    fit(tiny_config.but(epochs=3, validation=0.0), tiny_cases)
    assert len(orders) == 3 and all(sorted(o) == list(range(48)) for o in orders)
    assert len({tuple(o) for o in orders}) == 3


def test_balanced_order_draws_classes_equally_often():
    labels = np.array([0] * 90 + [1] * 10)
    order = training._order(labels, torch.Generator().manual_seed(0), balanced=True)
    assert len(order) == 100 and 30 < labels[order].sum() < 70
    plain = training._order(labels, torch.Generator().manual_seed(0), balanced=False)
    assert sorted(plain) == list(range(100))


# ---------------------------------------------------------------- errors


def test_loss_that_is_not_finite_is_a_clear_error(tiny_cases, tiny_config, monkeypatch):
    forward = training.UnifiedLoss.forward
    steps = []

    def broken(self, *args):
        loss, terms = forward(self, *args)
        steps.append(1)
        return (loss * float("nan"), terms) if len(steps) == 8 else (loss, terms)

    monkeypatch.setattr(training.UnifiedLoss, "forward", broken)
    # 40 training cases in batches of 8: 5 steps per epoch, so the eighth is the third of the second epoch
    with pytest.raises(FloatingPointError, match=r"the loss is nan in epoch 2, step 3; terms .*seg_ce.*Config.lr"):
        fit(tiny_config, tiny_cases)


def test_diverging_training_is_a_clear_error(tiny_cases, tiny_config):
    with pytest.raises(FloatingPointError, match="the loss is"):
        fit(tiny_config.but(lr=1e30, schedule="constant", clip_norm=0.0), tiny_cases)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"batch": 64}, "fewer than one batch of 64"),
        ({"optimizer": "sgd"}, "Config.optimizer: 'sgd'"),
        ({"schedule": "step"}, "Config.schedule: 'step'"),
        ({"precision": "float8"}, "Config.precision: 'float8'"),
        ({"validation": 1.0}, "share"),
        ({"ranking": "euclid"}, "Config.ranking: 'euclid'"),
    ],
)
def test_wrong_settings_are_named(tiny_cases, tiny_config, wrong, message):
    with pytest.raises(ValueError, match=message):
        fit(tiny_config.but(**wrong), tiny_cases)


def test_masks_of_a_network_without_a_segmentation_branch(tiny_cases, tiny_config):
    cfg = tiny_config.but(balance=1.0, pooling="rmac")
    with pytest.raises(ValueError, match="no segmentation branch"):
        encode_floats(YNet(cfg, 2), cfg, tiny_cases, masks=True)


# ---------------------------------------------------------------- checkpoints


def test_checkpoint_round_trip(tiny_cases, tiny_config, tmp_path):
    checkpoint = fit(tiny_config.but(balance_trainable=True), tiny_cases)
    path = checkpoint.save(tmp_path / "deep" / "net.safetensors")
    again = Checkpoint.load(path)
    assert same_weights(checkpoint, again)
    for name in ("cfg", "fingerprint", "class_names", "mask_names", "best_epoch", "seconds"):
        assert getattr(again, name) == getattr(checkpoint, name), name
    pd.testing.assert_frame_equal(again.history, checkpoint.history)
    assert not again.model.training
    assert np.array_equal(encode(again, tiny_cases).packed, encode(checkpoint, tiny_cases).packed)
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.json", "net.safetensors"]


def test_checkpoint_errors_name_the_file(tiny_cases, tiny_config, tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(FileNotFoundError, match="net.safetensors is missing"):
        Checkpoint.load(path)
    fit(tiny_config, tiny_cases).save(path)
    good, about = path.read_bytes(), path.with_suffix(".json").read_text()

    for broken in (good[: len(good) // 2], b"not weights at all", b""):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="net.safetensors"):
            Checkpoint.load(path)
    path.write_bytes(good)
    Checkpoint.load(path)

    fewer_bits = about.replace('"bits": 16', '"bits": 32')
    assert fewer_bits != about
    for broken in (about[: len(about) // 2], "{}", "[]", about.replace('"batch"', '"batches"'), fewer_bits):
        path.with_suffix(".json").write_text(broken)
        with pytest.raises(ValueError, match="net"):
            Checkpoint.load(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match="net.json is missing"):
        Checkpoint.load(path)


def test_failed_save_leaves_the_old_checkpoint(tiny_cases, tiny_config, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    checkpoint = fit(tiny_config, tiny_cases)
    checkpoint.save(path)
    before = path.read_bytes(), path.with_suffix(".json").read_bytes()

    def full_disk(state, file):
        file.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint_module, "save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path)
    assert (path.read_bytes(), path.with_suffix(".json").read_bytes()) == before


def test_load_or_train_trains_once(tiny_cases, tiny_config, monkeypatch):
    first = load_or_train(tiny_config, tiny_cases, progress=False)
    path = checkpoint_path(tiny_config, tiny_cases)
    assert path.is_file() and path.with_suffix(".json").is_file()
    assert not path.with_suffix(".resume.pt").exists()

    trained = []
    real = training.train
    monkeypatch.setattr(training, "train", lambda *args, **more: (trained.append(args), real(*args, **more))[1])
    second = load_or_train(tiny_config, tiny_cases, progress=False)
    assert not trained and same_weights(first, second)

    # names and what acts after training do not matter, and come back as asked for
    named = load_or_train(tiny_config.but(method="ynet-x", variant="v", data_dir="d"), tiny_cases, progress=False)
    assert not trained and named.cfg.method == "ynet-x"

    for count, (cfg, cases) in enumerate(
        [
            (tiny_config, replace(tiny_cases, fingerprint="f" * 16)),  # other data
            (tiny_config.but(lr=1e-3), tiny_cases),
            (tiny_config.but(seed=7), tiny_cases),
            (tiny_config.but(fold=2), tiny_cases),
        ],
        start=1,
    ):
        found = load_or_train(cfg, cases, progress=False)
        assert len(trained) == count
        assert found.fingerprint == cases.fingerprint
    assert load_or_train(tiny_config, tiny_cases, progress=False).cfg == tiny_config and len(trained) == 4


# ---------------------------------------------------------------- codes and distances


def test_encode_packs_the_signs_of_the_code(tiny_cases, tiny_config):
    checkpoint = fit(tiny_config, tiny_cases)
    codes = encode(checkpoint, tiny_cases)
    assert isinstance(codes, Codes) and codes.bits == 16 and codes.packed.shape == (48, 2)
    assert np.array_equal(codes.ids, tiny_cases.ids) and np.array_equal(codes.labels, tiny_cases.labels)
    with torch.inference_mode():
        z = checkpoint.model(torch.from_numpy(tiny_cases.images).float()).code.numpy()
    floats = encode_floats(checkpoint.model, tiny_config, tiny_cases, batch=64)
    assert np.array_equal(floats["code"], z) and floats["code"].dtype == np.float32
    assert np.array_equal(codes.packed, pack(z))
    assert floats["descriptor"].shape == (48, checkpoint.model.descriptor_size)
    by_five = encode_floats(checkpoint.model, tiny_config, tiny_cases, batch=5)
    np.testing.assert_allclose(by_five["code"], z, rtol=1e-4, atol=1e-5)


def test_flip_codes_make_mirror_images_alike(tiny_cases, tiny_config):
    cfg = tiny_config.but(flip_codes=True)
    model = fit(cfg, tiny_cases).model
    mirrored = replace(tiny_cases, images=np.ascontiguousarray(tiny_cases.images[..., ::-1]))
    codes = [encode_floats(model, cfg, cases)["code"] for cases in (tiny_cases, mirrored)]
    np.testing.assert_allclose(*codes, rtol=1e-4, atol=1e-5)
    plain = encode_floats(model, tiny_config, tiny_cases)["code"]
    assert not np.allclose(plain, codes[0])


def test_distances_against_slow_loops(tiny_config):
    rng = np.random.default_rng(0)
    queries = {"code": rng.standard_normal((3, 16)), "descriptor": rng.standard_normal((3, 5))}
    database = {"code": rng.standard_normal((4, 16)), "descriptor": rng.standard_normal((4, 5))}
    for ranking, key in [("cosine", "code"), ("descriptor", "descriptor")]:
        found = distances(tiny_config.but(ranking=ranking), queries, database)
        for i, a in enumerate(queries[key]):
            for j, b in enumerate(database[key]):
                assert found[i, j] == pytest.approx(1 - a @ b / np.sqrt((a @ a) * (b @ b)))
    found = distances(tiny_config, queries, database)
    for i, a in enumerate(queries["code"]):
        for j, b in enumerate(database["code"]):
            assert found[i, j] == sum((x >= 0) != (y >= 0) for x, y in zip(a, b, strict=True))
    with pytest.raises(ValueError, match="Config.ranking: 'euclid'"):
        distances(tiny_config.but(ranking="euclid"), queries, database)


def test_bfloat16_trains(tiny_cases, tiny_config):
    checkpoint = fit(tiny_config.but(precision="bfloat16"), tiny_cases)
    assert np.isfinite(checkpoint.history["loss"]).all()
    assert all(p.dtype == torch.float32 for p in checkpoint.model.parameters())


def test_where_a_processor_lacks_bfloat16_rounding_stands_for_it(monkeypatch, tiny_config):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5))
    x, found = torch.randn(4, 3, 16, 16), {}
    plain = network(x)
    for able in (True, False):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda able=able: able)
        with _precision(tiny_config):
            assert torch.equal(network(x), plain)
        copy = deepcopy(network)
        with _precision(tiny_config.but(precision="bfloat16")):
            assert isinstance(torch.overrides._get_current_function_mode(), _Rounding) != able
            y, line = copy(x), nn.functional.linear(x[0, 0], x[1, 0], x[2, 0, 0])
        left, right, add = (part.bfloat16().double() for part in (x[0, 0], x[1, 0], x[2, 0, 0]))
        assert (line == (left @ right.T + add).bfloat16()).double().mean() > 0.98  # sums in float32 may round another way
        y.float().square().sum().backward()
        assert y.dtype == torch.bfloat16
        found[able] = [y.detach().float(), *(weight.grad for weight in copy.parameters())]
    for native, rounded in zip(*found.values(), strict=True):
        torch.testing.assert_close(rounded, native, rtol=2**-6, atol=2**-6 * native.abs().max().item())
    assert (found[False][0] - plain).abs().max() > 1e-4


@pytest.mark.parametrize("quality", ["dilated", "eroded", "box", "shifted"])
def test_degraded_outlines_change_as_named(quality):
    masks = np.zeros((3, 50, 50), np.uint8)
    y, x = np.mgrid[:50, :50]
    masks[0][(y - 25) ** 2 + (x - 20) ** 2 < 64] = 1
    masks[1][(y - 25) ** 2 / 4 + (x - 30) ** 2 < 49] = 1  # a tall ellipse
    before = masks.copy()
    found = degraded(masks, quality, seed=0)
    assert np.array_equal(masks, before)
    assert found.dtype == np.uint8 and not found[2].any()  # nothing is drawn where there is no lesion
    for mask, other in zip(masks[:2] > 0, found[:2] > 0, strict=True):
        if quality == "dilated":
            assert (other & mask).sum() == mask.sum() < other.sum()
        elif quality == "eroded":
            assert 0 < other.sum() < mask.sum() == (other | mask).sum()
        elif quality == "box":
            rows, columns = np.nonzero(mask)
            assert other.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1) and other[mask].all()
        else:
            assert other.sum() == mask.sum()
            moved = np.hypot(*(np.argwhere(other).mean(0) - np.argwhere(mask).mean(0)))
            assert moved == pytest.approx(4, abs=0.75)  # twice 4 % of 50


def test_degraded_keeps_small_lesions_several_classes_and_exact_outlines():
    masks = np.zeros((1, 50, 50), np.uint8)
    masks[0, 10:40, 10:40] = 1
    masks[0, 20:30, 20:30] = 2
    masks[0, 45, 45] = 1
    assert degraded(masks, "exact", 0) is masks
    assert set(np.unique(degraded(masks, "box", 0))) == {0, 1, 2}
    point = np.zeros((1, 50, 50), np.uint8)
    point[0, 5, 5] = 1
    assert np.array_equal(degraded(point, "eroded", 0), point)
    assert np.array_equal(degraded(masks, "shifted", 1), degraded(masks, "shifted", 1))


def test_the_segmentation_loss_sees_degraded_outlines_but_scores_do_not(tiny_cases, tiny_config):
    cfg = tiny_config.but(mask_quality="box")
    before = tiny_cases.masks.copy()
    exact, box = (train(c, tiny_cases, progress=False) for c in (tiny_config, cfg))
    assert np.array_equal(tiny_cases.masks, before)
    assert not exact.history["seg_dice"].equals(box.history["seg_dice"])


def test_training_for_masks_without_any_outline_is_said(tiny_cases, tiny_config):
    unknown = replace(tiny_cases, has_mask=np.zeros(len(tiny_cases), bool))
    with pytest.warns(UserWarning, match="no training case has a known outline"):
        train(tiny_config.but(epochs=1), unknown, progress=False)


def test_queries_that_were_trained_on_get_no_score(tmp_path):
    cases = make_phantom(60, seed=3, size=48)
    database, queries = cases.split(1)
    cfg = Config(size=48, planes=(8, 8, 8, 8), blocks=1, epochs=1, batch=8, validation=0.0, phantom_cases=60)
    checkpoint = train(cfg, database, progress=False)
    checkpoint.save(tmp_path / "c.safetensors")
    loaded = Checkpoint.load(tmp_path / "c.safetensors")
    assert loaded.trained_on == checkpoint.trained_on and len(loaded.trained_on) == len(database) + len(set(database.groups))
    evaluate_checkpoint(loaded, cfg, database, queries)
    with pytest.raises(ValueError, match="trained on the patient or the picture of 5 of 5 queries"):
        evaluate_checkpoint(loaded, cfg, database, database.take(np.arange(5)))
    copied = replace(queries, images=database.images[: len(queries)], fingerprint="another set")
    with pytest.raises(ValueError, match=f"picture of {len(queries)} of {len(queries)}"):
        evaluate_checkpoint(loaded, cfg, database, copied)
    names = replace(loaded, trained_on=())  # a checkpoint that is older than this check
    evaluate_checkpoint(names, cfg, database, database.take(np.arange(5)))
