"""Encoders that start from given weights: their numbers, what is frozen, what is drawn, what is said if something is missing."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ynet_lite import encoders
from ynet_lite.attribution import grad_cam
from ynet_lite.checkpoint import Checkpoint
from ynet_lite.config import Config
from ynet_lite.encoders import huggingface, lite0
from ynet_lite.model import YNet
from ynet_lite.training import train

needs_weights = pytest.mark.skipif(find_spec(lite0.PACKAGE) is None, reason=f"no ImageNet weights: {lite0.REMEDY}")
LITE0 = Config(encoder="lite0", size=64, bits=16)


def images(channels: int = 1, side: int = 64, n: int = 3) -> torch.Tensor:
    return 255 * torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def saved() -> dict[str, torch.Tensor]:
    """What the weight file holds, under its own names."""
    folder = Path(find_spec(lite0.PACKAGE).submodule_search_locations[0])
    return torch.load(folder / lite0.FILE, weights_only=True)


def test_names_are_those_of_the_configuration():
    assert len({row.name for row in encoders.ALL}) == len(encoders.ALL)
    with pytest.raises(ValueError, match="Config.encoder: 'resnet' is not known; known are small, lite0, hf:<name>"):
        Config(encoder="resnet")
    for wrong in ({"frozen": 5}, {"frozen": -1}, {"drop_path": 1.0}):
        with pytest.raises(ValueError, match=f"Config.{next(iter(wrong))}"):
            Config(**wrong)


# --- EfficientNet-Lite0


@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize("side", (64, 50))
def test_lite0_levels(channels, side):
    encoder = lite0.Lite0(LITE0.but(channels=channels), pretrained=False).eval()
    shapes = [tuple(level.shape) for level in encoder(images(channels, side))]
    sides = [-(-side // stride) for stride in (4, 8, 16, 32)]
    assert shapes == [(3, c, s, s) for c, s in zip((24, 40, 112, 192), sides, strict=True)]
    assert encoder.widths == [24, 40, 112, 192]


@needs_weights
def test_every_tensor_of_the_used_blocks_is_taken_from_the_file():
    file, ours = saved(), lite0.Lite0(LITE0.but(channels=3)).state_dict()
    used = [name for name in file if not name.startswith(("_blocks.15.", "_conv_head", "_bn1", "_fc"))]
    assert len(used) == len(ours)
    for name, value in zip(used, ours.values(), strict=True):  # both in the order of the forward pass
        assert torch.equal(file[name], value), name


def plain(x: torch.Tensor, file: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """C2..C5 in evaluation mode, written from the block table of the paper with the file's own names. x (N, 3, H, W)."""

    def conv(x, name, norm, stride=1, active=True):
        weight = file[name + ".weight"]
        kernel = weight.shape[2]
        before = (kernel - stride) // 2 if kernel > 1 else 0
        after = kernel - stride - before if kernel > 1 else 0  # sides are multiples of 32 here
        groups = len(weight) if "depthwise" in name else 1
        y = F.conv2d(F.pad(x, (before, after, before, after)), weight, stride=stride, groups=groups)
        values = [file[f"{norm}.{end}"] for end in ("running_mean", "running_var", "weight", "bias")]
        y = F.batch_norm(y, *values, eps=1e-3)
        return y.clamp(0, 6) if active else y

    x, found = conv(x, "_conv_stem", "_bn0", 2), []
    for i in range(15):
        name, y = f"_blocks.{i}", x
        if i > 0:
            y = conv(y, name + "._expand_conv", name + "._bn0")
        y = conv(y, name + "._depthwise_conv", name + "._bn1", 2 if i in (1, 3, 5, 11) else 1)
        y = conv(y, name + "._project_conv", name + "._bn2", active=False)
        x = x + y if x.shape == y.shape else y
        if i in (2, 4, 10, 14):
            found.append(x)
    return found


@needs_weights
@pytest.mark.parametrize("channels", (1, 3))
def test_lite0_gives_the_numbers_of_a_plain_forward_pass(channels):
    model = YNet(LITE0.but(channels=channels), 2).eval()
    x = images(channels)
    with torch.no_grad():
        wanted = plain(((x - 127) / 128).expand(-1, 3, -1, -1), saved())
        for level, expected in zip(model.encode(x), wanted, strict=True):
            torch.testing.assert_close(level, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", (3, 5))
@pytest.mark.parametrize("stride", (1, 2))
@pytest.mark.parametrize("shape", ((8, 8), (7, 6), (4, 9)))
def test_depthwise_gradients_are_those_of_a_padded_convolution(kernel, stride, shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 1, kernel, kernel, generator=generator, dtype=torch.float64, requires_grad=True)
    lack = [(-(-side // stride) - 1) * stride + kernel - side for side in (shape[1], shape[0])]  # "same": ceil(side / stride)
    pads = (lack[0] // 2, lack[0] - lack[0] // 2, lack[1] // 2, lack[1] - lack[1] // 2)
    expected = F.conv2d(F.pad(x, pads), weight, stride=stride, groups=6)
    found = lite0.Depthwise.apply(x, weight, stride, pads)
    torch.testing.assert_close(found, expected)
    pull = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad(found, (x, weight), pull), torch.autograd.grad(expected, (x, weight), pull), strict=True):
        torch.testing.assert_close(a, b)


def test_a_fixed_norm_is_folded_into_its_convolution():
    part = lite0.ConvNorm(6, 6, 5, 2, groups=6).eval()
    with torch.no_grad():
        for value in (part.norm.running_mean, part.norm.running_var, part.norm.weight, part.norm.bias):
            value.copy_(torch.rand(6) + 0.5)
        x = torch.randn(2, 6, 8, 8)
        expected = part.norm(F.conv2d(F.pad(x, (1, 2, 1, 2)), part.conv.weight, stride=2, groups=6)).clamp(0, 6)
        torch.testing.assert_close(part(x), expected)


@needs_weights
def test_mixed_precision_trains(tiny_cases, tiny_config):
    cfg = tiny_config.but(encoder="lite0", precision="bfloat16", epochs=1)
    assert np.isfinite(train(cfg, tiny_cases, progress=False).history["loss"]).all()


@pytest.mark.parametrize("frozen", (0, 1, 3))
def test_frozen_levels_get_no_gradient_and_keep_their_statistics(frozen):
    model = YNet(LITE0.but(frozen=frozen, drop_path=0.1), 2, pretrained=False)
    model.train()
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    output = model(images())
    (output.code.square().sum() + output.logits.square().sum()).backward()
    still = tuple(f"stages.{i}." for i in range(frozen)) + (("stem.",) if frozen else ())
    for name, parameter in model.encoder.named_parameters():
        assert (parameter.grad is None) == name.startswith(still), name
    for name, value in model.encoder.state_dict().items():
        if "running" in name:
            assert torch.equal(value, before[name]) == name.startswith(still), name


def test_maps_of_frozen_levels_do_not_depend_on_the_batch():
    cfg = LITE0.but(frozen=2, pooling="rmac", pool_levels=(5,))
    model, many = YNet(cfg, 2, pretrained=False).eval(), images(n=17).numpy().astype(np.uint8)
    at_once, singly = (grad_cam(model, cfg, many, lambda o: torch.tanh(o.code).mean(1), 3, batch=n) for n in (17, 1))
    np.testing.assert_allclose(at_once, singly, atol=0.01)  # of 1; maps of other images differ by far more
    assert abs(at_once[0] - at_once[16]).max() > 0.1


def test_blocks_are_skipped_in_training_alone_and_by_image():
    block = lite0.Block(8, 8, 6, 3, 1, drop=0.5)
    x = torch.randn(64, 8, 8, 8)
    torch.manual_seed(1)
    skipped = (block.train()(x) == x).all((1, 2, 3))
    assert 10 < skipped.sum() < 54
    assert not (block.eval()(x) == x).all((1, 2, 3)).any()
    assert [b.drop for b in lite0.Lite0(LITE0.but(drop_path=0.14), pretrained=False).stages[3]] == pytest.approx(
        [0.11, 0.12, 0.13, 0.14]
    )


@needs_weights
def test_same_seed_same_bits_also_after_an_interruption(tiny_cases, tiny_config, tmp_path, monkeypatch):
    cfg = tiny_config.but(encoder="lite0", drop_path=0.3, frozen=1, epochs=2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = train(cfg, tiny_cases, progress=False)
    assert torch.equal(state, torch.get_rng_state())  # the caller's own random numbers are left alone
    torch.manual_seed(6)
    from ynet_lite import training

    run_epoch, done = training._State.run_epoch, []

    def once(state):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return run_epoch(state)

    with monkeypatch.context() as patch:
        patch.setattr(training._State, "run_epoch", once)
        with pytest.raises(KeyboardInterrupt):
            train(cfg, tiny_cases, progress=False, resume=tmp_path / "resume.pt")
    second = train(cfg, tiny_cases, progress=False, resume=tmp_path / "resume.pt")
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


@needs_weights
def test_a_checkpoint_is_loaded_without_the_weight_file(tiny_cases, tiny_config, tmp_path, monkeypatch):
    checkpoint = train(tiny_config.but(encoder="lite0", epochs=1), tiny_cases, progress=False)
    path = checkpoint.save(tmp_path / "model.safetensors")
    monkeypatch.setattr(lite0, "find_spec", lambda name: None)
    again = Checkpoint.load(path)
    x = torch.from_numpy(tiny_cases.images[:2]).float()
    with torch.no_grad():
        torch.testing.assert_close(again.model(x).code, checkpoint.model(x).code)


class Spec:
    def __init__(self, folder):
        self.submodule_search_locations = [str(folder)]


def test_what_is_missing_is_said_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(lite0, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'not installed; pip install "ynet-lite\[pretrained\]"'):
        YNet(LITE0, 2)
    monkeypatch.setattr(lite0, "find_spec", lambda name: Spec(tmp_path))
    with pytest.raises(FileNotFoundError, match=r'pth is missing; pip install "ynet-lite\[pretrained\]"'):
        YNet(LITE0, 2)
    (tmp_path / lite0.FILE).parent.mkdir()
    (tmp_path / lite0.FILE).write_bytes(b"something else")
    assert hashlib.sha256(b"something else").hexdigest() != lite0.SHA256
    with pytest.raises(ValueError, match=r'SHA-256 differs\); pip install "ynet-lite\[pretrained\]"'):
        YNet(LITE0, 2)


# --- backbones of transformers


@pytest.fixture
def folder(tmp_path) -> Path:
    """A ResNet of a few thousand random numbers, as `save_pretrained` writes it."""
    transformers = pytest.importorskip("transformers", reason=f"no transformers: {huggingface.REMEDY}")
    about = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8, 12, 16], depths=[1, 1, 1, 1], layer_type="basic")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.ResNetBackbone(about).save_pretrained(tmp_path / "resnet")
    return tmp_path / "resnet"


@pytest.mark.parametrize("channels", (1, 3))
def test_a_backbone_from_a_folder(folder, channels):
    from safetensors.torch import load_file

    cfg = Config(encoder=f"hf:{folder}", size=64, channels=channels)
    model = YNet(cfg, 2).eval()
    assert model.encoder.widths == [4, 8, 12, 16]
    with torch.no_grad():
        levels = model.encode(images(channels))
    assert [tuple(level.shape) for level in levels] == [(3, c, s, s) for c, s in ((4, 16), (8, 8), (12, 4), (16, 2))]
    state = model.encoder.backbone.state_dict()
    for name, value in load_file(folder / "model.safetensors").items():
        assert torch.equal(state[name], value), name
    bare = YNet(cfg, 2, pretrained=False).encoder.backbone.state_dict()
    assert not torch.equal(bare["embedder.embedder.convolution.weight"], state["embedder.embedder.convolution.weight"])


def test_a_grey_image_is_seen_as_three_equal_channels(folder):
    grey, colour = (YNet(Config(encoder=f"hf:{folder}", size=64, channels=c), 2).eval() for c in (1, 3))
    x = images()
    with torch.no_grad():
        for a, b in zip(grey.encode(x), colour.encode(x.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(a, b)


def test_frozen_levels_of_a_backbone(folder):
    model = YNet(Config(encoder=f"hf:{folder}", size=64, frozen=2), 2)
    model.train()
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    output = model(images())
    (output.code.square().sum() + output.logits.square().sum()).backward()
    still = ("backbone.embedder.", "backbone.encoder.stages.0.", "backbone.encoder.stages.1.")
    for name, parameter in model.encoder.named_parameters():
        assert (parameter.grad is None) == name.startswith(still), name
    for name, value in model.encoder.state_dict().items():
        if "running" in name:
            assert torch.equal(value, before[name]) == name.startswith(still), name


def test_a_backbone_of_one_stride_is_resampled(tmp_path):
    transformers = pytest.importorskip("transformers", reason=f"no transformers: {huggingface.REMEDY}")
    about = transformers.Dinov2Config(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    transformers.Dinov2Backbone(about).save_pretrained(tmp_path)
    model = YNet(Config(encoder=f"hf:{tmp_path}", size=64), 2).eval()
    with torch.no_grad():
        levels = model.encode(images())
    assert [tuple(level.shape) for level in levels] == [(3, 8, s, s) for s in (16, 8, 4, 2)]
    assert model.encoder.backbone.out_features == ["stage2"]  # its last map alone
    frozen = YNet(Config(encoder=f"hf:{tmp_path}", size=64, frozen=1), 2).encoder
    assert [name for name, p in frozen.named_parameters() if p.requires_grad] == ["backbone.embeddings.mask_token"]  # unused


def test_a_backbone_trains(folder, tiny_cases, tiny_config, tmp_path):
    cfg = tiny_config.but(encoder=f"hf:{folder}")
    assert YNet(cfg, 2).layout is torch.contiguous_format  # its shortcuts are narrow: channels last would crash the process
    checkpoint = train(cfg, tiny_cases, progress=False)
    again = Checkpoint.load(checkpoint.save(tmp_path / "model.safetensors"))
    assert np.isfinite(checkpoint.history["loss"]).all()
    x = torch.from_numpy(tiny_cases.images[:2]).float()
    with torch.no_grad():
        torch.testing.assert_close(again.model(x).code, checkpoint.model(x).code)


def test_a_backbone_that_is_not_there(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason=f"no transformers: {huggingface.REMEDY}")
    with pytest.raises(FileNotFoundError, match="no folder with a config.json"):
        YNet(Config(encoder=f"hf:{tmp_path}"), 2)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="no backbone class for the type 'bert'"):
        YNet(Config(encoder=f"hf:{tmp_path}"), 2)


def test_transformers_missing_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r'not installed; pip install "ynet-lite\[transformers\]"'):
        YNet(Config(encoder="hf:microsoft/resnet-18"), 2)
