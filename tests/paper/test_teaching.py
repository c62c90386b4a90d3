"""Demonstrations of the notebooks: the numbers they draw against slow loops and values by hand; every drawing draws."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from ynet_lite.config import Config
from ynet_lite.losses.pairwise import pairwise_loss
from ynet_lite.model import YNet
from ynet_lite.paper.teaching import losses, network
from ynet_lite.pooling import rmac_regions


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def make_network(cfg: Config, n_masks: int = 2) -> YNet:
    torch.manual_seed(0)
    return YNet(cfg, 2, n_masks)


def first_images(cases, n: int = 2) -> torch.Tensor:
    return torch.from_numpy(cases.images[:n]).float()


# --- the network


def test_shapes_are_those_of_the_forward_pass(tiny_cases, tiny_config):
    images = first_images(tiny_cases)
    model = make_network(tiny_config, n_masks=3).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    shapes = network.tensor_shapes(model, images)
    assert shapes == {
        "image": (1, 32, 32),
        "stem": (4, 16, 16),
        "C2": (4, 16, 16),
        "C3": (4, 8, 8),
        "C4": (8, 4, 4),
        "C5": (8, 2, 2),
        "coarse": (3, 16, 16),
        "logits": (3, 32, 32),
        "descriptor": (sum({3: 4, 4: 8}[level] for level in tiny_config.pool_levels),),
        "code": (16,),
        "P2": (8, 16, 16),
        "P3": (8, 8, 8),
        "P4": (8, 4, 4),
        "P5": (8, 2, 2),
    }
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [{}, {"balance": 1.0, "pooling": "rmac", "pool_levels": (5,)}, {"pooling": "lesion+gap"}, {"code_input": "c5"}],
    ids=["ours", "twin", "two poolings", "released code"],
)
def test_network_is_drawn_with_its_own_shapes(tiny_cases, tiny_config, changes):
    images = first_images(tiny_cases)
    model = make_network(tiny_config.but(**changes))
    shapes = network.tensor_shapes(model, images)
    texts = [text.get_text() for text in network.draw_network(model, images).axes[0].texts]
    for shape in shapes.values():
        assert " × ".join(str(n) for n in shape) in texts
    assert ("segmentation loss" in texts) == (model.segmentation is not None)


@pytest.mark.parametrize("grid", [(4, 4), (8, 8), (6, 9)])
def test_regions_are_all_drawn_and_counted(grid):
    figure = network.region_boxes(np.full((32, 48), 90, np.uint8), grid)
    # two lines per frame: the pale one and the coloured one
    frames = sum(len(axis.patches) for axis in figure.axes[:3])
    assert frames == 2 * len(rmac_regions(*grid))
    counts = [int(text.get_text()) for text in figure.axes[3].texts]
    assert sum(counts) == sum(side * side for _, _, side in rmac_regions(*grid))


# --- losses


def test_slope_is_the_difference_quotient():
    table = losses.value_and_slope({"cube": lambda x: x**3, "sine": torch.sin}, [-1.0, 0.5])
    assert list(table["curve"]) == ["cube", "cube", "sine", "sine"]
    for name, function in (("cube", lambda x: x**3), ("sine", math.sin)):
        for _, row in table[table["curve"] == name].iterrows():
            assert row["value"] == pytest.approx(function(row["x"]))
            quotient = (function(row["x"] + 1e-5) - function(row["x"] - 1e-5)) / 2e-5
            assert row["slope"] == pytest.approx(quotient, rel=1e-6)


def test_curves_stand_beside_their_slopes():
    table = losses.value_and_slope({"square": lambda x: x * x, "line": lambda x: 3 * x}, [0.0, 1.0])
    left, right = losses.curve_panels(table, "x", "slope").axes
    assert [line.get_ydata().tolist() for line in left.lines] == [[0, 1], [0, 3]]
    assert [line.get_ydata().tolist() for line in right.lines[:2]] == [[0, 2], [3, 3]]


def test_zero_codes_are_a_saddle_of_the_pairwise_loss():
    u = torch.tensor([[0.0], [0.7]])
    assert pairwise_loss(u, torch.ones(2, 2, dtype=bool)).item() == pytest.approx(math.log(2))


def test_gradient_of_toy_points_by_hand():
    points = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    (value, gradient) = losses.point_gradients(points, {"squares": lambda u: u.square().sum() / 2})["squares"]
    assert value == 7.5  # (1 + 4 + 9 + 1) / 2
    assert (gradient == points.numpy()).all() and not points.requires_grad


# --- drawings


def test_arrows_point_downhill():
    points = torch.tensor([[1.0, 0.5], [-0.5, -0.5], [0.0, 0.0]])
    labels = torch.tensor([0, 1, 1])
    toy = {"bowl": lambda u: u.square().sum(), "flat": lambda u: 0 * u.sum()}
    figure = losses.gradient_arrows(points, labels, toy, marks={"bowl": [[1, 1], [-1, -1]]})
    bowl, flat = (axis.collections[0] for axis in figure.axes[:2])
    push = np.stack([bowl.U, bowl.V], 1)
    assert (push * points.numpy()).sum(1)[:2].max() < 0 and np.allclose(push[2], 0)
    assert np.hypot(*push[0]) == pytest.approx(0.5) and np.allclose(flat.U, 0)
