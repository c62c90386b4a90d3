"""The network: the released architecture to the last shape, and its parts against slow loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from ynet_lite.config import Config
from ynet_lite.encoders.small import Small
from ynet_lite.losses.unified import UnifiedLoss
from ynet_lite.methods import METHODS
from ynet_lite.model import YNet, count_parameters, upsampled, upsampled_conv
from ynet_lite.pooling import GUIDED, PLAIN, pool, rim, rmac, rmac_regions, weighted_pool


def build(cfg: Config, n_classes: int = 2, n_masks: int = 2, seed: int = 0) -> YNet:
    torch.manual_seed(seed)
    return YNet(cfg, n_classes, n_masks)


def pictures(cfg: Config, n: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, cfg.channels, cfg.size, cfg.size), generator=generator).float()


def record(module: torch.nn.Module, into: dict, name: str) -> None:
    module.register_forward_hook(lambda _, inputs, output: into.update({name: (inputs[0], output)}))


def backward(model: YNet, cfg: Config, n: int = 6) -> None:
    labels = torch.arange(n) % 2
    masks = (torch.rand(n, cfg.size, cfg.size, generator=torch.Generator().manual_seed(1)) < 0.3).long()
    loss, _ = UnifiedLoss(cfg, 2)(model(pictures(cfg, n)), masks, torch.ones(n, dtype=bool), labels, model.classifier)
    loss.backward()


# ---------------------------------------------------------------- the released architecture


@pytest.mark.parametrize("method", ["ynet-paper", "released"])
def test_paper_network_has_the_stated_shapes(method):
    cfg = Config.from_preset("paper", method=method)
    model = build(cfg).eval()
    seen: dict = {}
    record(model.encoder.stem, seen, "stem")
    for i, stage in enumerate(model.encoder.stages):
        record(stage, seen, f"c{i + 2}")
    for i, lateral in enumerate(model.segmentation.lateral):
        record(lateral, seen, f"lateral{i + 3}")
    record(model.segmentation.activation, seen, "head")
    record(model.to_descriptor, seen, "wide")
    record(model.code, seen, "code")
    with torch.inference_mode():
        output = model(pictures(cfg))
    assert seen["stem"][0].shape == (2, 3, 256, 256)
    shapes = {name: tuple(value[1].shape[1:]) for name, value in seen.items()}
    assert shapes == {
        "stem": (8, 64, 64),
        "c2": (32, 64, 64),
        "c3": (64, 32, 32),
        "c4": (128, 16, 16),
        "c5": (256, 8, 8),
        "lateral3": (32, 32, 32),
        "lateral4": (32, 16, 16),
        "lateral5": (32, 8, 8),
        "head": (2, 256, 256),
        "wide": (512, 8, 8),
        "code": (64,),
    }
    assert model.segmentation.head.in_channels == 32
    assert model.segmentation.full_size_features  # features, not logits, are brought to full size
    assert isinstance(model.segmentation.finest, torch.nn.Identity)  # C2 as is
    assert output.code.shape == (2, 64) and output.descriptor.shape == (2, 512) and output.logits.shape == (2, 2, 256, 256)
    # one aggregation, R-MAC of three levels, L2-normalised; dividing by the maximum before changes nothing
    pooled = rmac(seen["wide"][1], 3)
    torch.testing.assert_close(output.descriptor, F.normalize(pooled / pooled.amax(1, keepdim=True), dim=1))
    torch.testing.assert_close(output.descriptor.norm(dim=1), torch.ones(2))
    c5 = seen["c5"][1]
    if method == "released":
        torch.testing.assert_close(output.code, F.linear(c5.flatten(1), model.code.weight, model.code.bias))
        assert model.code.in_features == 256 * 8 * 8
    else:
        assert model.code.in_features == 512
        # a positive factor on the descriptor is all that lies between
        torch.testing.assert_close(seen["code"][0], output.descriptor * math.sqrt(512))


def test_paper_network_has_the_stated_layers():
    """The number of trained numbers, counted by hand from the table."""

    def conv(c_in, c_out, side, bias=False):
        return c_in * c_out * side * side + (c_out if bias else 0)

    total = conv(3, 8, 7) + 2 * 8
    c_in = 8
    for planes in (8, 16, 32, 64):
        out = 4 * planes
        for entry in (c_in, out):
            total += conv(entry, planes, 1) + conv(planes, planes, 3) + conv(planes, out, 1) + 2 * (2 * planes + out)
        total += conv(c_in, out, 1) + 2 * out  # the shortcut of the first block
        c_in = out
    segmentation = sum(conv(width, 32, 1, bias=True) for width in (64, 128, 256)) + conv(32, 2, 3, bias=True)
    total += segmentation + conv(256, 512, 3, bias=True)
    released, paper = (build(Config.from_preset(method=m)) for m in ("released", "ynet-paper"))
    assert count_parameters(released) == total + 256 * 8 * 8 * 64 + 64
    assert count_parameters(paper) == total + 512 * 64 + 64
    notebooks = build(Config.from_preset(method="released", seg_activation="bn"))  # their form: batch norm on the logits
    assert count_parameters(notebooks) == count_parameters(released) + 2 * 2
    assert not any(m.bias is not None for m in paper.encoder.modules() if isinstance(m, torch.nn.Conv2d))
    strides = [[block.conv2.stride[0] for block in stage] for stage in paper.encoder.stages]
    assert strides == [[1, 1], [2, 1], [2, 1], [2, 1]]


def test_paper_network_takes_three_mask_classes():
    cfg = Config.from_preset("paper").but(size=64)
    assert build(cfg, n_masks=3).eval()(pictures(cfg)).logits.shape == (2, 3, 64, 64)


def test_code_layer_gets_no_gradient_as_released_and_one_in_ynet_paper():
    released = Config.from_preset(method="released").but(size=64)
    model = build(released)
    backward(model, released)
    assert model.code.weight.grad is None and model.code.bias.grad is None
    assert model.encoder.stem[0].weight.grad.abs().sum() > 0
    assert model.to_descriptor.weight.grad.abs().sum() > 0
    assert model.segmentation.head.weight.grad.abs().sum() > 0

    paper = Config.from_preset(method="ynet-paper").but(size=64)
    model = build(paper)
    backward(model, paper)
    assert model.code.weight.grad.abs().sum() > 0 and model.code.bias.grad.abs().sum() > 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", ["quick", "full", "paper"])
def test_every_method_builds_runs_and_learns(preset, method):
    cfg = Config.from_preset(preset, method=method).but(size=64)
    model = build(cfg)
    backward(model, cfg, 4)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    if cfg.frozen:
        assert all(p.grad is None for p in model.encoder.parameters())
    else:
        assert model.encoder.stem[0].weight.grad.abs().sum() > 0
    assert (model.segmentation is not None) or not cfg.uses_masks


# ---------------------------------------------------------------- R-MAC


def test_rmac_regions_of_an_eight_by_eight_map_by_hand():
    # sides: 2*8/2 = 8, floor(2*8/3) = 5, 2*8/4 = 4; starts: 0 | 0, 3 | 0, 2, 4
    expected = [(0, 0, 8)]
    expected += [(top, left, 5) for top in (0, 3) for left in (0, 3)]
    expected += [(top, left, 4) for top in (0, 2, 4) for left in (0, 2, 4)]
    assert rmac_regions(8, 8, 3) == expected
    assert len(expected) == 1 + 4 + 9


def test_rmac_regions_of_a_wide_map_by_hand():
    # 8 x 12: one extra region along the width overlaps by (8 - 4) / 8 = 50 %, two by (8 - 2) / 8 = 75 %
    regions = rmac_regions(8, 12, 3)
    expected = [(0, left, 8) for left in (0, 4)]
    expected += [(top, left, 5) for top in (0, 3) for left in (0, 4, 7)]  # (12 - 5) / 2 = 3.5, taken as 4
    expected += [(top, left, 4) for top in (0, 2, 4) for left in (0, 3, 5, 8)]  # thirds of 8: 2.67, 5.33
    assert regions == expected


@pytest.mark.parametrize("height, width", [(8, 8), (16, 16), (7, 7), (13, 13), (8, 12), (12, 8), (6, 16), (10, 40), (9, 11)])
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_rmac_regions_follow_the_formula(height, width, levels):
    short, long = min(height, width), max(height, width)
    regions = rmac_regions(height, width, levels)
    assert all(top >= 0 and left >= 0 and top + s <= height and left + s <= width for top, left, s in regions)
    assert len(set(regions)) == len(regions)
    if long == short:
        extra = 0
    else:  # as many as bring the overlap of neighbours at level 1 nearest to 40 %
        overlap = {n: (short - (long - short) / n) / short for n in range(1, 7)}
        extra = min(overlap, key=lambda n: abs(overlap[n] - 0.4))
    counts, start = [], 0
    for level in range(1, levels + 1):
        side = math.floor(2 * short / (level + 1))
        n = level * (level + extra)
        part = regions[start : start + n]
        start += n
        counts.append(len(part))
        assert {s for *_, s in part} == {side}
        for axis, extent, number in (
            (0, height, level + (extra if height > width else 0)),
            (1, width, level + (extra if width > height else 0)),
        ):
            starts = sorted({region[axis] for region in part})
            assert len(starts) == number
            assert starts[0] == 0
            if number > 1:
                assert starts[-1] == extent - side
                step = (extent - side) / (number - 1)
                assert all(abs(at - i * step) <= 0.5 for i, at in enumerate(starts))  # uniform, up to whole pixels
    assert start == len(regions)


def test_rmac_regions_turn_with_the_map():
    for height, width in [(8, 12), (6, 16), (5, 7)]:
        turned = {(left, top, side) for top, left, side in rmac_regions(height, width)}
        assert turned == set(rmac_regions(width, height))


@pytest.mark.parametrize("height, width", [(1, 1), (2, 2), (1, 5), (3, 2)])
def test_rmac_of_tiny_maps_is_defined(height, width):
    x = torch.rand(2, 3, height, width)
    assert all(side >= 1 and top + side <= height and left + side <= width for top, left, side in rmac_regions(height, width))
    assert rmac(x).isfinite().all()


@pytest.mark.parametrize("height, width", [(8, 8), (5, 5), (8, 12), (9, 4)])
def test_rmac_against_a_slow_loop(height, width):
    x = torch.randn(3, 5, height, width, generator=torch.Generator().manual_seed(0)).double()
    expected = torch.zeros(3, 5, dtype=torch.float64)
    for n in range(3):
        for top, left, side in rmac_regions(height, width, 3):
            vector = []
            for c in range(5):
                best = -math.inf
                for i in range(top, top + side):  # whole regions, last row and column included
                    for j in range(left, left + side):
                        best = max(best, x[n, c, i, j].item())
                vector.append(best)
            length = math.sqrt(sum(v * v for v in vector))
            for c in range(5):
                expected[n, c] += vector[c] / length
    torch.testing.assert_close(rmac(x, 3), expected)


def test_rmac_of_an_empty_map_is_zero_and_keeps_gradients_finite():
    x = torch.zeros(1, 4, 8, 8, requires_grad=True)
    pooled = rmac(x)
    assert (pooled == 0).all()
    pooled.sum().backward()
    assert x.grad.isfinite().all()


# ---------------------------------------------------------------- lesion-weighted pooling


def test_weighted_pool_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    weight = torch.tensor([[[[0.0, 1.0], [0.0, 0.5]]]])
    # (2 * 1 + 4 * 0.5) / 1.5 = 8 / 3, up to the small constant that keeps empty masks harmless
    assert weighted_pool(x, weight).item() == pytest.approx(8 / 3, abs=2e-3)


def test_weighted_pool_against_a_slow_loop_on_a_finer_weight():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 3, 4, 4, generator=generator), torch.rand(2, 1, 8, 8, generator=generator)
    for n in range(2):
        for c in range(3):
            top = bottom = 0.0
            for i in range(4):
                for j in range(4):
                    w = weight[n, 0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean().item()
                    top += w * x[n, c, i, j].item()
                    bottom += w
            assert weighted_pool(x, weight)[n, c].item() == pytest.approx(top / bottom, abs=1e-3)


def test_every_pooling_has_its_name_in_one_place():
    assert {*PLAIN, *GUIDED} == {"rmac", "gap", "mac", "lesion", "rim", "selfpool"}
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(pool("gap", x), x.mean((2, 3))) and torch.equal(pool("mac", x), x.amax((2, 3)))
    assert torch.equal(pool("rmac", x), rmac(x))


@pytest.mark.parametrize("name, learns", [("lesion", False), ("rim", False), ("selfpool", True)])
def test_only_the_pooling_without_masks_teaches_the_map(name, learns):
    x, coarse = torch.rand(2, 3, 4, 4, requires_grad=True), torch.randn(2, 2, 8, 8, requires_grad=True)
    pool(name, x, coarse).square().sum().backward()
    assert x.grad.abs().sum() > 0 and (coarse.grad is not None) == learns


def test_weighted_pool_of_an_empty_mask_is_the_mean():
    x = torch.randn(2, 5, 6, 6)
    for weight in (torch.zeros(2, 1, 24, 24), torch.full((2, 1, 6, 6), 0.7)):
        torch.testing.assert_close(weighted_pool(x, weight), x.mean((2, 3)))


def test_lesion_pooling_follows_the_predicted_mask(tiny_config):
    cfg = tiny_config.but(pooling="lesion", pool_levels=(4, 5))
    model, images = build(cfg).eval(), pictures(tiny_config)
    with torch.inference_mode():
        before = model(images).descriptor
        model.segmentation.head.weight.zero_()
        model.segmentation.head.bias.copy_(torch.tensor([50.0, -50.0]))  # "no lesion anywhere"
        empty = model(images).descriptor
    gap = build(cfg.but(pooling="gap")).eval()
    gap.load_state_dict(model.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(empty, gap(images).descriptor)
    assert not torch.allclose(before, empty)


@pytest.mark.parametrize("pooling", ["lesion", "selfpool"])
def test_lesion_pooling_reads_the_features_under_any_lesion_class(tiny_config, pooling):
    model = build(tiny_config.but(pooling=pooling), n_masks=3)
    x = torch.randn(1, 4, 3, 3)
    logits = torch.zeros(1, 3, 3, 3)
    logits[0, 0] = 40.0  # background
    logits[0, 1, 0, 2] = logits[0, 2, 1, 1] = 80.0  # one pixel each of two lesion classes
    expected = F.normalize(x[:, :, 0, 2] + x[:, :, 1, 1], dim=1)
    torch.testing.assert_close(model.aggregate([x], logits), expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("pooling, taught", [("lesion", False), ("selfpool", True)])
def test_only_selfpool_teaches_its_map_through_the_pooling(tiny_config, pooling, taught):
    cfg = tiny_config.but(pooling=pooling, pool_levels=(5,), balance=1.0)
    model = build(cfg)
    backward(model, cfg)
    gradient = model.segmentation.head.weight.grad
    assert (gradient is not None and gradient.abs().sum() > 0) == taught


def test_the_rim_is_a_band_on_both_sides_of_the_border():
    inside = torch.zeros(1, 1, 12, 12)
    inside[..., 4:9, 4:9] = 0.75
    band = rim(inside, 1)
    for i in range(12):
        for j in range(12):
            around = inside[0, 0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            assert band[0, 0, i, j] == around.max() - around.min()
    assert band[0, 0, 6, 6] == 0 and band[0, 0, 4, 6] == band[0, 0, 3, 6] == 0.75 and band[0, 0, 2, 6] == 0
    assert (rim(torch.ones(1, 1, 6, 6)) == 0).all()  # no border, so pooling falls back to the plain mean


def test_rim_pooling_reads_the_border_alone():
    x = torch.rand(1, 2, 12, 12)
    logits = torch.full((1, 2, 12, 12), -40.0)
    logits[:, 1, 3:9, 3:9] = 40.0
    logits[:, 0] = -logits[:, 1]
    before, changed = pool("rim", x, logits), x.clone()
    changed[..., 5:7, 5:7] += 5  # further inside than the band reaches
    torch.testing.assert_close(pool("rim", changed, logits), before, rtol=1e-3, atol=1e-3)
    changed[..., 3, 3] += 5
    assert not torch.allclose(pool("rim", changed, logits), before, atol=0.01)


def test_each_half_of_a_code_reads_its_own_poolings(tiny_config):
    cfg = tiny_config.but(pooling="rmac+lesion+rim", pool_levels=(4, 5), code_halves=True)
    model = build(cfg).eval()
    size, half = model.descriptor_size // 3, cfg.bits // 2
    descriptor = torch.randn(3, 3 * size, requires_grad=True)
    with torch.no_grad():
        code = model.code(descriptor)
        weight, bias = model.code.weight, model.code.bias
        torch.testing.assert_close(code[:, :half], descriptor[:, :size] @ weight[:half, :size].T + bias[:half])
        torch.testing.assert_close(code[:, half:], descriptor[:, size:] @ weight[half:, size:].T + bias[half:])
    assert "code.own" not in model.state_dict()
    with pytest.raises(ValueError, match="code_halves: two halves need two poolings"):
        tiny_config.but(pooling="rmac", code_halves=True)


def test_true_masks_are_no_input():
    with pytest.raises(TypeError):
        build(Config(size=32))(torch.zeros(1, 1, 32, 32), torch.zeros(1, 32, 32))


# ---------------------------------------------------------------- the rest


def test_quick_network_shapes():
    cfg = Config.from_preset("quick")
    model = build(cfg).eval()
    images = pictures(cfg)
    with torch.inference_mode():
        features, output = model.encoder(images), model(images)
    side = cfg.size // (4 if cfg.stem == "conv7-pool" else 2)
    assert [tuple(f.shape[1:]) for f in features] == [
        (width, side >> i, side >> i) for i, width in enumerate(model.encoder.widths)
    ]
    assert output.code.shape == (2, cfg.bits)
    assert output.descriptor.shape == (2, model.descriptor_size)
    assert output.logits.shape == (2, 2, cfg.size, cfg.size)


@pytest.mark.parametrize("pooling", ["rmac", "gap", "mac", "lesion", "selfpool"])
@pytest.mark.parametrize("levels", [(5,), (3, 5)])
def test_descriptor_is_normalised_per_level(tiny_config, pooling, levels):
    cfg = tiny_config.but(pooling=pooling, pool_levels=levels)
    model = build(cfg).eval()
    with torch.inference_mode():
        descriptor = model(pictures(cfg)).descriptor
    widths = [cfg.planes[level - 2] for level in levels]
    assert descriptor.shape == (2, sum(widths))
    for part in descriptor.split(widths, dim=1):
        torch.testing.assert_close(part.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("pooling, slow", [("gap", lambda x: x.mean((2, 3))), ("mac", lambda x: x.flatten(2).max(2)[0])])
def test_gap_and_mac(tiny_config, pooling, slow):
    model = build(tiny_config.but(pooling=pooling))
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(model.aggregate([x], None), F.normalize(slow(x), dim=1))


def test_bytes_and_floats_give_the_same_code_and_other_images_do_not_matter(tiny_config):
    model, images = build(tiny_config).eval(), pictures(tiny_config, 4)
    with torch.inference_mode():
        whole = model(images)
        torch.testing.assert_close(model(images.to(torch.uint8)).code, whole.code)
        torch.testing.assert_close(model(images[:1]).code, whole.code[:1], rtol=1e-4, atol=1e-5)


def test_forward_does_not_modify_images(tiny_config):
    images = pictures(tiny_config)
    kept = images.clone()
    build(tiny_config)(images)
    assert torch.equal(images, kept)


def test_colour_images(tiny_config):
    cfg = tiny_config.but(channels=3)
    assert build(cfg)(pictures(cfg)).code.shape == (2, cfg.bits)


def test_code_norm_centres_every_bit(tiny_config):
    cfg = tiny_config.but(code_norm=True)
    code = build(cfg)(pictures(cfg, 16)).code
    torch.testing.assert_close(code.mean(0), torch.zeros(cfg.bits), atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrong", [{"stem": "conv5"}, {"block": "dense"}, {"pooling": "median"}, {"pooling": "rmac+median"}])
def test_unknown_settings_are_named(tiny_config, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"Config.{name}.*known"):
        cfg = tiny_config.but(**wrong)
        build(cfg)(pictures(cfg))


def test_encoder_halves_odd_sizes_upwards():
    cfg = Config(size=50, planes=(4, 4, 4, 4), blocks=1)
    model = build(cfg).eval()
    assert [f.shape[-1] for f in Small(cfg)(pictures(cfg))] == [25, 13, 7, 4]
    assert model(pictures(cfg)).logits.shape == (2, 2, 50, 50)


@pytest.mark.parametrize("shape, factor", [((2, 3, 5, 7), 4), ((1, 4, 2, 2), 2), ((2, 2, 6, 4), 3), ((1, 3, 4, 4), 1)])
def test_upsampled_conv_equals_upsampling_then_convolution(shape, factor):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    conv = torch.nn.Conv2d(shape[1], 2, 3, 1, 1).double()
    size = (shape[2] * factor, shape[3] * factor)
    slow = conv(F.interpolate(x, size=size, mode="bilinear", align_corners=False))
    fast = upsampled_conv(x, conv, size)
    torch.testing.assert_close(fast, slow)
    weight = torch.randn_like(slow)
    for wanted, found in zip(
        torch.autograd.grad((slow * weight).sum(), [x, *conv.parameters()]),
        torch.autograd.grad((fast * weight).sum(), [x, *conv.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_upsampled_conv_takes_the_direct_way_where_the_factor_is_not_whole():
    torch.manual_seed(0)
    x, conv = torch.randn(1, 3, 5, 5), torch.nn.Conv2d(3, 2, 3, 1, 1)
    slow = conv(F.interpolate(x, size=(12, 12), mode="bilinear", align_corners=False))
    torch.testing.assert_close(upsampled_conv(x, conv, (12, 12)), slow)


@pytest.mark.parametrize("shape, size", [((2, 2, 8, 8), (32, 32)), ((1, 3, 5, 7), (13, 20)), ((2, 1, 4, 4), (4, 4))])
def test_upsampled_equals_bilinear_interpolation(shape, size):
    torch.manual_seed(0)
    x = torch.randn(shape)
    slow = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsampled(x, size), slow)
    half = x.bfloat16().contiguous(memory_format=torch.channels_last)
    found = upsampled(half, size)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.interpolate(half.float(), size=size, mode="bilinear", align_corners=False))


def test_a_narrow_network_avoids_the_layout_that_crashes():
    """Channels last, the backward step of a narrow 1x1 convolution of stride 2 ends the process (PyTorch 2.13, AVX-512)."""
    narrow, wide = Config(planes=(8, 16, 32, 64), size=64, blocks=1), Config(size=64, blocks=1)
    assert YNet(wide, 2).layout == torch.channels_last and YNet(narrow, 2).layout == torch.contiguous_format
    assert YNet(Config.from_preset("paper"), 2).layout == torch.channels_last  # bottlenecks are four times as wide
    YNet(narrow, 2)(torch.rand(4, 1, 64, 64) * 255).code.sum().backward()
