"""Grad-CAM against its equations, and what it must leave alone: weights, gradients, flags, hooks, random state."""

import numpy as np
import pytest
import torch

from ynet_lite import attribution
from ynet_lite.config import Config
from ynet_lite.model import YNet

CFG = Config(size=32, planes=(4, 8, 8, 8), blocks=1, fpn=8, bits=16, pooling="rmac", pool_levels=(5,))


def network(cfg=CFG, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return YNet(cfg, 2).eval()


@pytest.fixture
def model():
    return network()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 255, (5, 1, 32, 32), np.uint8)


def target(output):
    return attribution.similarity_to(np.where(np.arange(16) % 3, 1.0, -1.0))(output)


def slow_map(model, image, level, elementwise=False):
    """The map of one image by the equations: gradient and activation of the stage kept by hand, loops over cells and pixels."""
    x = (torch.from_numpy(image)[None].float() - model.mean) / model.std
    features = [model.encoder.stem(x)]
    for stage in model.encoder.stages:
        features.append(stage(features[-1]))
    kept = features[level - 1].detach().requires_grad_()
    after = kept
    maps = [*features[1 : level - 1], kept]
    for stage in model.encoder.stages[level - 1 :]:
        after = stage(after)
        maps.append(after)
    descriptor = model.aggregate([maps[k - 2] for k in model.cfg.pool_levels], None)
    code = model.code(descriptor * descriptor.shape[1] ** 0.5)
    (gradient,) = torch.autograd.grad((torch.tanh(code)[0] * torch.where(torch.arange(16) % 3 > 0, 1.0, -1.0)).sum() / 16, kept)
    a, g = kept.detach()[0].double().numpy(), gradient[0].double().numpy()
    coarse = np.zeros(a.shape[1:])
    for i in range(a.shape[1]):
        for j in range(a.shape[2]):
            coarse[i, j] = max(0.0, sum(a[c, i, j] * (g[c, i, j] if elementwise else g[c].mean()) for c in range(len(a))))
    stride = 32 // len(coarse)
    found = np.zeros((32, 32))
    for y in range(32):
        for x in range(32):
            v, h = (min(max(p / stride, 0), len(coarse) - 1) for p in (y, x))
            i, j = int(v), int(h)
            i1, j1 = min(i + 1, len(coarse) - 1), min(j + 1, len(coarse) - 1)
            top = coarse[i, j] * (1 - h + j) + coarse[i, j1] * (h - j)
            low = coarse[i1, j] * (1 - h + j) + coarse[i1, j1] * (h - j)
            found[y, x] = top * (1 - v + i) + low * (v - i)
    return found / found.max() if found.max() > 0 else found


# --- targets ---------------------------------------------------------------------------------------------------------


def output_of(code):
    return attribution.Output(torch.as_tensor(code, dtype=torch.float32), None, None)


def test_similarity_by_hand():
    z = np.array([[0.0, np.arctanh(0.5), -np.arctanh(0.8), 50.0]])
    value = attribution.similarity_to(np.array([1.0, 1, 1, -1]))(output_of(z))
    assert value.tolist() == pytest.approx([(0 + 0.5 - 0.8 - 1) / 4])


def test_similarity_of_codes_is_the_hamming_distance():
    rng = np.random.default_rng(0)
    a, b = rng.random((6, 16)) < 0.5, rng.random(16) < 0.5
    value = attribution.similarity_to(np.where(b, 0.5, -0.5))(output_of(np.where(a, 50.0, -50.0)))
    np.testing.assert_allclose(value, 1 - 2 * (a != b).sum(1) / 16, atol=1e-6)


def test_class_score_by_hand():
    codes = np.array([[1.0, 1], [1, -1], [-1, -1]])
    score = attribution.class_score(codes, np.array([0, 0, 1]), 0)
    # class 0: mean code (1, 0); others (-1, -1); difference (2, 1)
    assert score(output_of([[np.arctanh(0.5), np.arctanh(-0.5)]])).tolist() == pytest.approx([(2 * 0.5 - 1 * 0.5) / 2])


def test_class_score_equals_the_means_of_similarities():
    rng = np.random.default_rng(1)
    codes, labels, z = rng.normal(size=(12, 16)), rng.integers(0, 3, 12), rng.normal(size=(4, 16))
    each = np.stack([attribution.similarity_to(code)(output_of(z)).numpy() for code in codes])
    for c in range(3):
        slow = each[labels == c].mean(0) - each[labels != c].mean(0)
        np.testing.assert_allclose(attribution.class_score(codes, labels, c)(output_of(z)), slow, atol=1e-6)


def test_one_class_has_no_second_mean():
    codes, z = np.ones((3, 16)), output_of(np.full((1, 16), 50.0))
    assert attribution.class_score(codes, np.zeros(3), 0)(z).tolist() == pytest.approx([1])
    with pytest.raises(ValueError, match="no code of class 1"):
        attribution.class_score(codes, np.zeros(3), 1)


def test_wrong_codes_are_refused(model, images):
    with pytest.raises(ValueError, match="float array"):
        attribution.similarity_to(np.array([0, 1, 0, 1]))
    with pytest.raises(ValueError, match="float array"):
        attribution.similarity_to(np.ones((2, 16)))
    with pytest.raises(ValueError, match="float array"):
        attribution.class_score(np.ones((2, 16), bool), np.zeros(2), 0)
    with pytest.raises(ValueError, match="8 bits, but the network gives 16"):
        attribution.grad_cam(model, CFG, images, attribution.similarity_to(np.ones(8)))


# --- maps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_maps_follow_the_equations(model, images, level):
    maps = attribution.grad_cam(model, CFG, images[:2], target, level)
    assert maps.shape == (2, 32, 32) and maps.dtype == np.float32 and maps.min() >= 0 and maps.max() <= 1
    for i in range(2):
        np.testing.assert_allclose(maps[i], slow_map(model, images[i], level), atol=2e-4)


def test_elementwise_maps_follow_the_equations(model, images):
    maps = attribution.grad_cam(model, CFG, images[:1], target, 4, elementwise=True)
    np.testing.assert_allclose(maps[0], slow_map(model, images[0], 4, True), atol=2e-4)


def test_a_cell_lies_at_the_centre_of_what_it_reads(model):
    # mean absolute gradient of one cell, over networks: its centre of mass is the pixel the cell is drawn at
    for level, stride in ((3, 4), (4, 8)):
        total = torch.zeros(32, 32)
        for seed in range(30):
            x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(seed)).requires_grad_()
            cell = network(seed=seed).encoder(x)[level - 2][:, :, 16 // stride, 16 // stride].sum()
            total += torch.autograd.grad(cell, x)[0][0, 0].abs()
        centre = [(total.sum(1 - axis) * torch.arange(32)).sum() / total.sum() for axis in (0, 1)]
        assert all(abs(c - 16) < 0.4 * (stride - 1) / 2 for c in centre)
        coarse = torch.zeros(1, 32 // stride, 32 // stride)
        coarse[0, 16 // stride, 16 // stride] = 1
        assert attribution._upsample(coarse, (32, 32), stride)[0].argmax() == 16 * 32 + 16


def test_between_cells_a_map_is_straight_and_beyond_the_last_constant():
    coarse = np.random.default_rng(0).random((3, 2, 4), np.float32)
    down, right = np.minimum(np.arange(30) / 16, 1), np.minimum(np.arange(60) / 16, 3)
    for cells, found in zip(coarse, attribution._upsample(torch.from_numpy(coarse), (30, 60), 16).numpy(), strict=True):
        across = np.stack([np.interp(right, range(4), row) for row in cells])
        expected = np.stack([np.interp(down, range(2), column) for column in across.T], axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("stem, strides", [("conv3", [2, 4, 8, 16]), ("conv7-pool", [4, 8, 16, 32])])
def test_the_stride_is_that_of_the_network(stem, strides):
    cfg = CFG.but(stem=stem, size=64)
    encoder = network(cfg).encoder
    with torch.no_grad():
        cells = [64 // maps.shape[2] for maps in encoder(torch.zeros(1, 1, 64, 64))]
    assert cells == strides == [encoder.stride * 2**level for level in range(4)]


def test_batches_and_order_do_not_matter(model, images):
    maps = attribution.grad_cam(model, CFG, images, target)
    np.testing.assert_allclose(attribution.grad_cam(model, CFG, images, target, batch=2), maps, atol=1e-5)
    np.testing.assert_allclose(attribution.grad_cam(model, CFG, images[::-1].copy(), target)[::-1], maps, atol=1e-5)
    assert attribution.grad_cam(model, CFG, images[:0], target).shape == (0, 32, 32)


def test_the_mirrored_code_gives_a_mirrored_map(images):
    cfg = CFG.but(flip_codes=True)
    model = network(cfg)
    maps = attribution.grad_cam(model, cfg, images, target, 4)
    np.testing.assert_allclose(attribution.grad_cam(model, cfg, images[..., ::-1].copy(), target, 4), maps[..., ::-1], atol=1e-5)
    assert np.abs(maps - attribution.grad_cam(model, CFG, images, target, 4)).max() > 0.05
    seen = []
    attribution.grad_cam(model, cfg, images, lambda output: seen.append(output.code.detach()) or target(output))
    with torch.no_grad():
        x = torch.from_numpy(images).float()
        expected = (model(x).code + model(x.flip(3)).code) / 2
    torch.testing.assert_close(seen[0], expected)


def test_the_opposite_target_gives_another_map(model, images):
    assert (
        np.abs(
            attribution.grad_cam(model, CFG, images, target) - attribution.grad_cam(model, CFG, images, lambda o: -target(o))
        ).max()
        > 0.2
    )


def test_other_weights_give_another_map(model, images):
    one, other = (attribution.grad_cam(m, CFG, images, target, 4) for m in (model, network(seed=7)))
    assert one.any() and other.any() and np.abs(one - other).mean() > 0.05


@pytest.mark.parametrize("nothing", [lambda o: torch.zeros(len(o.code)), lambda o: 0 * o.code.sum(1)])
def test_a_gradient_of_zero_gives_zeros(model, images, nothing):
    assert not attribution.grad_cam(model, CFG, images, nothing).any()


@pytest.mark.parametrize(
    "changes, deepest",
    [
        ({}, 5),
        ({"pooling": "lesion", "pool_levels": (3, 4)}, 4),
        ({"pooling": "selfpool", "pool_levels": (3,)}, 5),
        ({"pooling": "gap", "pool_levels": (2, 3), "balance": 1.0}, 3),
        ({"code_input": "c5", "pool_levels": (3,)}, 5),
    ],
)
def test_stages_below_the_deepest_give_zeros(images, changes, deepest):
    cfg = CFG.but(**changes)
    assert attribution.deepest_level(cfg) == deepest
    model = network(cfg)
    for level in (2, 3, 4, 5):
        # of either sign: relu may leave nothing of one
        maps = [attribution.grad_cam(model, cfg, images, lambda o, s=s: s * target(o), level) for s in (1, -1)]
        assert any(m.any() for m in maps) == (level <= deepest)


def test_another_stem_and_no_square(images):
    cfg = CFG.but(stem="conv7-pool", channels=3, block="bottleneck")
    model = network(cfg)
    wide = np.random.default_rng(1).integers(0, 255, (1, 3, 32, 64), np.uint8)
    maps = [attribution.grad_cam(model, cfg, wide, lambda o, s=s: s * target(o), 3)[0] for s in (1, -1)]
    assert all(m.shape == (32, 64) for m in maps) and max(m.max() for m in maps) == 1
    # stride 8: between two cells the map is straight
    best = max(maps, key=lambda m: m.max())
    np.testing.assert_allclose(best[4, :56], (best[0, :56] + best[8, :56]) / 2, atol=1e-5)


# --- what stays as it was --------------------------------------------------------------------------------------------


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def state(model):
    return [
        (name, p.requires_grad, None if p.grad is None else p.grad.clone(), p.detach().clone())
        for name, p in model.named_parameters()
    ]


def assert_same_state(before, after):
    for (name, needs, gradient, value), (name2, needs2, gradient2, value2) in zip(before, after, strict=True):
        assert name == name2 and needs == needs2 and torch.equal(value, value2)
        assert (gradient is None) == (gradient2 is None) and (gradient is None or torch.equal(gradient, gradient2))


def test_the_network_stays_as_it_was(model, images):
    expected = attribution.grad_cam(model, CFG, images, target)
    parameters = list(model.parameters())
    parameters[0].grad = torch.full_like(parameters[0], 3.0)
    for p in parameters[1:]:
        p.requires_grad_(False)
    model.encoder.stages[3].register_forward_hook(lambda *_: None)  # somebody else's hook stays
    before, buffers, given = state(model), [b.clone() for b in model.buffers()], images.copy()
    with torch.no_grad():
        np.testing.assert_allclose(
            attribution.grad_cam(model, CFG, images, target), expected, atol=1e-6
        )  # frozen, and inside no_grad
    assert_same_state(before, state(model))
    assert hooks(model) == 1 and not any(module.training for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    np.testing.assert_array_equal(images, given)


@pytest.mark.parametrize("elementwise", [False, True])
def test_hooks_are_released_after_an_error(model, images, elementwise):
    def broken(output):
        raise RuntimeError("on purpose")

    before = state(model)
    with pytest.raises(RuntimeError, match="on purpose"):
        attribution.grad_cam(model, CFG, images, broken, elementwise=elementwise)
    with pytest.raises(ValueError, match="one number per image"):
        attribution.grad_cam(model, CFG, images, lambda output: output.code, elementwise=elementwise)
    assert hooks(model) == 0
    assert_same_state(before, state(model))


def test_wrong_arguments_are_refused(model, images):
    with pytest.raises(ValueError, match="level 6"):
        attribution.grad_cam(model, CFG, images, target, 6)
    with pytest.raises(ValueError, match="batch"):
        attribution.grad_cam(model, CFG, images, target, batch=0)
    with pytest.raises(ValueError, match="images must be uint8"):
        attribution.grad_cam(model, CFG, images / 255, target)
    with pytest.raises(ValueError, match="training mode"):
        attribution.grad_cam(model.train(), CFG, images, target)
