"""Where a map looks, and how well a space keeps a label together: by hand, and against slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from ynet_lite.paper.ambiguity import measure


def whole(masks):
    """Content without padding."""
    return np.ones(masks.shape, bool)


# --- where a map looks -----------------------------------------------------------------------------------------------


def test_energy_and_pointing_by_hand():
    maps = np.array([[[4.0, 1.0], [1.0, 2.0]], [[3.0, 3.0], [0.0, 3.0]]])
    masks = np.array([[[1, 0], [0, 0]], [[1, 0], [1, 0]]])
    # case 0: 4 of 8 on 1/4 of the area; case 1: 3 of 9 on half of it
    np.testing.assert_allclose(measure.energy_ratio(maps, masks, whole(masks)), [(4 / 8) / (1 / 4), (3 / 9) / (1 / 2)])
    np.testing.assert_allclose(measure.pointing(maps, masks, whole(masks)), [1, 1 / 3])  # three share the maximum, one is inside
    content = np.array([[[1, 0], [1, 1]], [[0, 1], [1, 1]]]) > 0
    # without the second pixel: 4 of 7 on 1/3; without the first: 0 of 6 on 1/3
    np.testing.assert_allclose(measure.energy_ratio(maps, masks, content), [(4 / 7) / (1 / 3), 0])
    np.testing.assert_allclose(measure.pointing(maps, masks, content), [1, 0])


def test_maps_equal_slow_loops():
    rng = np.random.default_rng(0)
    maps, masks, content = rng.integers(0, 4, (20, 5, 6)), rng.random((20, 5, 6)) < 0.3, rng.random((20, 5, 6)) < 0.8
    for i in range(20):
        inside = [(maps[i, y, x], masks[i, y, x]) for y in range(5) for x in range(6) if content[i, y, x]]
        energy, area = sum(v for v, _ in inside), sum(m for _, m in inside) / len(inside)
        ratio = sum(v for v, m in inside if m) / energy / area
        best = [m for v, m in inside if v == max(v for v, _ in inside)]
        part = slice(i, i + 1)
        assert measure.energy_ratio(maps[part], masks[part], content[part])[0] == pytest.approx(ratio)
        assert measure.pointing(maps[part], masks[part], content[part])[0] == pytest.approx(sum(best) / len(best))


def test_a_map_of_zeros_counts_as_uniform_and_an_empty_mask_is_undefined():
    masks = np.zeros((3, 8, 8), np.uint8)
    masks[1, 2:4, 2:6] = 1
    masks[2] = 1
    for shown in (np.ones((3, 8, 8)), np.zeros((3, 8, 8))):
        np.testing.assert_allclose(measure.energy_ratio(shown, masks, whole(masks)), [np.nan, 1, 1])
        np.testing.assert_allclose(measure.pointing(shown, masks, whole(masks)), [np.nan, 8 / 64, 1])
    assert measure.pointing(masks[:0], masks[:0], whole(masks[:0])).shape == (0,)


@given(st.integers(0, 10**6), st.floats(0.1, 50))
@settings(max_examples=25, deadline=None)
def test_scores_do_not_depend_on_the_scale_and_the_mask_itself_is_best(seed, scale):
    rng = np.random.default_rng(seed)
    maps, masks = rng.random((4, 6, 6)), rng.random((4, 6, 6)) < 0.4
    masks[:, 0, 0] = True
    content = whole(masks)
    ratio = measure.energy_ratio(maps, masks, content)
    np.testing.assert_allclose(measure.energy_ratio(maps * scale, masks, content), ratio)
    np.testing.assert_allclose(measure.energy_ratio(masks, masks, content), 1 / masks.mean((1, 2)))
    assert (ratio <= 1 / masks.mean((1, 2)) + 1e-12).all()
    np.testing.assert_array_equal(measure.pointing(masks, masks, content), 1)


def test_baselines():
    images = np.full((2, 1, 32, 32), 50, np.uint8)
    images[1, 0, :, 16:] = 200
    gauss, edges = measure.centre_gaussian(images), measure.edge_map(images, whole(images[:, 0]))
    assert gauss.shape == edges.shape == (2, 32, 32) and gauss.dtype == edges.dtype == np.float32
    np.testing.assert_array_equal(gauss, gauss[:, ::-1, ::-1])
    # one sigma (6.4 pixels) from the middle at 15.5: between the pixels 21 and 22
    assert gauss[0, 15, 21] > math.exp(-0.5) > gauss[0, 15, 22]
    assert not edges[0].any()  # a constant image has no edge
    assert edges[1].max() == 1 and set(np.flatnonzero(edges[1].any(axis=0))) == {15, 16}


def test_edge_of_the_padding_is_no_edge():
    content = np.zeros((1, 32, 32), bool)
    content[:, 8:24] = True
    images = np.where(content, 150, 0).astype(np.uint8)[:, None]
    assert measure.edge_map(images, whole(content)).any() and not measure.edge_map(images, content).any()


# --- the space of codes ----------------------------------------------------------------------------------------------


def test_purity_by_hand():
    # a line of cases at 0, 1, 2, 3; the first two are one patient
    at = np.array([0.0, 1, 2, 3])
    distance = abs(at[:, None] - at)
    labels, groups = ["x", "x", "y", "x"], ["p", "p", "q", "r"]
    # case 0 sees 2, 3 -> 1/2; case 1 sees 2, 3 -> 1/2; case 2 sees a tie of 1 and 3 -> 0; case 3 sees 2, 1 -> 1/2
    assert measure.knn_purity(distance, labels, groups, 2).tolist() == [0.5, 0.5, 0.0, 0.5]
    # one neighbour: the nearest, or half of a tie
    assert measure.knn_purity(distance, ["x", "x", "y", "y"], groups, 1).tolist() == [0.0, 0.0, 0.5, 1.0]
    assert measure.knn_purity(distance, labels, groups, 50).tolist() == [0.5, 0.5, 0.0, pytest.approx(2 / 3)]
    assert np.isnan(measure.knn_purity(distance, labels, ["p"] * 4)).all()
    # all equally near: the share among all cases of other patients
    assert measure.knn_purity(np.zeros((4, 4)), labels, groups, 1).tolist() == [0.5, 0.5, 0.0, pytest.approx(2 / 3)]


def slow_purity(distances, labels, groups, k):
    """Nearest first, one case after the other; no ties."""
    found = []
    for i in range(len(labels)):
        near = sorted((distances[i][j], labels[j] == labels[i]) for j in range(len(labels)) if groups[j] != groups[i])[:k]
        found.append(sum(same for _, same in near) / len(near))
    return found


@given(st.integers(0, 10**6), st.sampled_from([1, 10, 100]))
@settings(max_examples=25, deadline=None)
def test_purity_equals_the_slow_one_in_any_order(seed, k):
    rng = np.random.default_rng(seed)
    x, labels, groups = rng.normal(size=(40, 3)), rng.integers(0, 2, 40), rng.integers(0, 25, 40)
    distances = cdist(x, x)
    purity = measure.knn_purity(distances, labels, groups, k)
    np.testing.assert_allclose(purity, slow_purity(distances, labels, groups, k), atol=1e-12)
    order = rng.permutation(40)
    moved = measure.knn_purity(distances[np.ix_(order, order)], labels[order], groups[order], k)
    np.testing.assert_array_equal(moved, purity[order])
