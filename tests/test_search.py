"""Search: one image file in, the nearest cases out."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from ship import ship

from ynet_lite import search as search_function
from ynet_lite.checkpoint import Checkpoint
from ynet_lite.encoding import encode
from ynet_lite.hashing import Codes, HammingIndex, hamming
from ynet_lite.search import SHIPPED, encode_image, load_shipped
from ynet_lite.training import train
from ynet_lite.viewer import pages

COLUMNS = ["rank", "case_id", "label", "distance", "percentile"]


@pytest.fixture
def shelf(tiny_cases, tiny_config, tmp_path):
    """A saved network, its codes, and their paths."""
    checkpoint = train(tiny_config, tiny_cases, progress=False)
    weights = checkpoint.save(tmp_path / "net.safetensors")
    codes = encode(checkpoint, tiny_cases)
    return checkpoint, codes, weights, codes.save(tmp_path / "net.codes.npz")


def odd_image(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (37, 53) if mode == "L" else (37, 53, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_of_odd_size_and_its_pixels_give_the_same_answers(mode, channels, tiny_cases, tiny_config, tmp_path):
    cases = replace(tiny_cases, images=np.repeat(tiny_cases.images, channels, 1))
    checkpoint = train(tiny_config.but(channels=channels), cases, progress=False)
    codes, weights = encode(checkpoint, cases), checkpoint.save(tmp_path / "net.safetensors")
    odd_image(mode).save(tmp_path / "query.png")
    table = search_function(tmp_path / "query.png", 7, model=weights, codes=codes)
    assert list(table.columns) == COLUMNS
    assert table["rank"].tolist() == list(range(1, 8))
    code = encode_image(checkpoint, tmp_path / "query.png")
    assert code.dtype == np.uint8 and code.shape == (1, 2)
    # against all distances, ordered by (distance, id)
    every = sorted(zip(hamming(code, codes.packed)[0].tolist(), codes.ids.tolist(), codes.labels.tolist(), strict=True))
    assert list(zip(table["distance"], table["case_id"], strict=True)) == [(d, i) for d, i, _ in every[:7]]
    assert table["label"].tolist() == [cases.class_names[y] for *_, y in every[:7]]
    pixels = np.asarray(odd_image(mode))
    pixels = pixels if mode == "L" else pixels.transpose(2, 0, 1)
    read = []
    hook = checkpoint.model.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    encode_image(checkpoint, tmp_path / "query.png")
    encode_image(checkpoint, pixels)
    hook.remove()
    assert read[0].shape == (1, channels, 32, 32) and torch.equal(*read)
    assert (read[0][:, :, :5] == 0).all() and (read[0][:, :, 5:27] > 0).any()  # 22 of 32 rows: the aspect ratio is kept
    assert search_function(pixels, 7, model=weights, codes=codes).equals(table)


def test_a_known_case_finds_itself(shelf, tiny_cases, tmp_path):
    _, codes, weights, codes_path = shelf
    for row in (0, 2, 31):
        Image.fromarray(tiny_cases.images[row, 0]).save(tmp_path / "known.png")
        table = search_function(str(tmp_path / "known.png"), len(codes), model=str(weights), codes=str(codes_path))
        assert sorted(table["case_id"]) == sorted(codes.ids)
        found = table.set_index("case_id")["distance"]
        assert found[tiny_cases.ids[row]] == 0
        assert table["distance"].is_monotonic_increasing
        for _, tied in table.groupby("distance"):
            assert tied["case_id"].is_monotonic_increasing


def test_search_does_not_modify_the_image(shelf):
    _, codes, weights, _ = shelf
    image = np.asarray(odd_image("RGB")).transpose(2, 0, 1).copy()
    kept = image.copy()
    search_function(image, 3, model=weights, codes=codes)
    assert np.array_equal(image, kept)


def test_flip_codes_are_used(shelf, tiny_cases):
    checkpoint = replace(shelf[0], cfg=shelf[0].cfg.but(flip_codes=True))
    image = tiny_cases.images[3, 0]
    assert np.array_equal(encode_image(checkpoint, image), encode(checkpoint, tiny_cases.take([3])).packed)


def test_wrong_input_is_named(shelf, tmp_path):
    _, codes, weights, _ = shelf
    image = np.zeros((20, 30), np.uint8)
    for k in (0, -1, 49):
        with pytest.raises(ValueError, match="k = .*48 cases"):
            search_function(image, k, model=weights, codes=codes)
    with pytest.raises(ValueError, match="k must be a whole number"):
        search_function(image, 2.5, model=weights, codes=codes)
    with pytest.raises(ValueError, match="codes="):
        search_function(image, 3, model=weights)
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"):
        search_function(image, 3, model=tmp_path / "nowhere.safetensors", codes=codes)
    with pytest.raises(FileNotFoundError, match="nowhere.npz"):
        search_function(image, 3, model=weights, codes=tmp_path / "nowhere.npz")
    for wrong in (
        image.astype(float),
        np.zeros((2, 20, 30), np.uint8),
        np.zeros((20, 30, 3), np.uint8),  # colours last
        np.zeros(20, np.uint8),
        np.zeros((1, 1, 20, 30), np.uint8),
    ):
        with pytest.raises(ValueError, match="uint8 .*H, W"):
            search_function(wrong, 3, model=weights, codes=codes)
    with pytest.raises(ValueError):
        search_function(np.zeros((0, 30), np.uint8), 3, model=weights, codes=codes)
    longer = Codes(np.zeros((3, 4), np.uint8), np.array(["a", "b", "c"]), np.zeros(3, np.int64), 32)
    with pytest.raises(ValueError, match="16 bits.*32|32.*16"):
        search_function(image, 3, model=weights, codes=longer)
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "missing.png"):
        with pytest.raises((ValueError, FileNotFoundError), match=name):
            search_function(tmp_path / name, 3, model=weights, codes=codes)


def test_unknown_shipped_model_names_the_known_ones():
    with pytest.raises(ValueError, match="'busi-full' is not shipped.*phantom-quick"):
        load_shipped("busi-full")


@pytest.mark.parametrize("model", SHIPPED)
def test_shipped_models_search_before_any_training(model, tmp_path):
    checkpoint, codes = load_shipped(model)
    assert codes.bits == checkpoint.cfg.bits
    assert codes.labels.max() < len(checkpoint.class_names)
    assert checkpoint.cfg.dataset == model.split("-")[0]
    assert checkpoint.cfg.data_dir == "" and checkpoint.cfg.manifest == ""  # no path of the machine it was made on
    odd_image("RGB").save(tmp_path / "query.png")
    table = search_function(tmp_path / "query.png", 10, model=model)
    assert list(table.columns) == COLUMNS and len(table) == 10
    assert set(table["label"]) <= set(checkpoint.class_names)
    assert table["distance"].between(0, codes.bits).all() and table["distance"].is_monotonic_increasing
    assert table["case_id"].is_unique and set(table["case_id"]) <= set(codes.ids)


def test_shipping_rounds_the_weights_and_makes_codes_that_belong_to_them(tiny_cases, tiny_config, tmp_path):
    checkpoint = train(tiny_config.but(data_dir="somewhere"), tiny_cases, progress=False)
    before = {key: value.clone() for key, value in checkpoint.model.state_dict().items()}
    weights, codes = ship("tiny", checkpoint, tiny_cases, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in checkpoint.model.state_dict().items()), "argument changed"
    again = Checkpoint.load(weights)
    assert again.cfg.data_dir == ""
    assert (Codes.load(codes).packed == encode(again, tiny_cases).packed).all()
    found = search_function(tiny_cases.images[5], 1, model=weights, codes=codes)
    assert found["distance"].item() == 0


def test_codes_of_another_network_are_refused(shelf, tiny_cases, tiny_config, tmp_path):
    checkpoint, codes, weights, _ = shelf
    other = encode(train(tiny_config.but(seed=5), tiny_cases, progress=False), tiny_cases)
    assert codes.model == Checkpoint.load(weights).weights_id() != other.model
    with pytest.raises(ValueError, match="another network"):
        search_function(tiny_cases.images[0], 1, model=weights, codes=other.save(tmp_path / "other.npz"))
    assert search_function(tiny_cases.images[0], 1, model=weights, codes=codes)["distance"].tolist() == [0]
    with pytest.raises(ValueError, match="another network"):
        pages.Retrieval((codes, other), tiny_cases, tiny_cases)


@pytest.mark.parametrize("model", SHIPPED)
def test_shipped_codes_name_the_shipped_network(model):
    checkpoint, codes = load_shipped(model)
    assert codes.model == checkpoint.weights_id()


@pytest.mark.parametrize("key", ["config", "fingerprint", "class_names", "mask_names", "history", "best_epoch", "seconds"])
def test_a_checkpoint_that_lacks_a_key_or_holds_nonsense_is_one_error(key, shelf):
    weights, text = shelf[2], shelf[2].with_suffix(".json")
    whole = json.loads(text.read_text())
    for about in ({k: v for k, v in whole.items() if k != key}, [1], whole | {"history": {"a": [1]}}, whole | {"class_names": 3}):
        text.write_text(json.dumps(about))
        with pytest.raises(ValueError, match=r"net\.json: not what Checkpoint\.save writes .* train again"):
            Checkpoint.load(weights)
    text.write_text(json.dumps(whole))
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"net\.safetensors: its weights do not fit .* train again"):
        Checkpoint.load(weights)


def test_what_is_no_image_and_no_number_is_refused(tiny_cases):
    with pytest.raises(ValueError, match="a path or a uint8 array, got Image"):
        search_function(Image.new("L", (9, 9)), 2)
    with pytest.raises(ValueError, match="k must be a whole number, got '2'"):
        search_function(np.zeros((9, 9), np.uint8), "2")
    with pytest.raises(ValueError, match="takes Codes, got ndarray"):
        HammingIndex(np.zeros((5, 8), np.uint8))
