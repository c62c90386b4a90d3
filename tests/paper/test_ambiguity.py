"""Ambiguity: descriptors, examples, exchanged tissue."""

import itertools
import math
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from ynet_lite.paper.ambiguity import appearance, exchange

# --- descriptors and examples ----------------------------------------------------------------------------------------


def disc(size=64, radius=12, centre=None):
    cy, cx = centre or ((size - 1) / 2,) * 2
    y, x = np.mgrid[:size, :size]
    return (y - cy) ** 2 + (x - cx) ** 2 <= radius**2


def whole(masks):
    """Content without padding."""
    return np.ones(masks.shape, bool)


def test_descriptors_of_drawn_lesions():
    y, x = np.mgrid[:64, :64]
    ellipse = ((y - 31) / 8) ** 2 + ((x - 31) / 24) ** 2 <= 1
    angle = np.arctan2(y - 31, x - 31)
    star = np.hypot(y - 31, x - 31) <= 14 + 7 * np.cos(9 * angle)
    masks = np.stack([disc(), ellipse, star]).astype(np.uint8)
    images = np.where(masks, 60, 110).astype(np.uint8)[:, None]
    table = appearance.appearance(images, masks, whole(masks))
    round_, long_, spiky = (table.iloc[i] for i in range(3))
    assert list(table.columns) == list(appearance.FEATURES)
    np.testing.assert_allclose(table["area"], masks.mean((1, 2)))
    assert round_["elongation"] < 0.02 and long_["elongation"] == pytest.approx(1 - 8 / 24, abs=0.03)
    assert round_["solidity"] > 0.97 and spiky["solidity"] < 0.85
    assert round_["irregularity"] < 1.05 and spiky["irregularity"] > 1.3
    np.testing.assert_allclose(table["echo"], 60 / 255)
    np.testing.assert_allclose(table["contrast"], -50 / 255)
    np.testing.assert_allclose(table[["local_std", "entropy"]], 0, atol=1e-6)


def test_texture_by_hand():
    mask = np.ones((1, 3, 3), np.uint8)
    image = np.array([[[[0, 0, 0], [0, 90, 0], [0, 0, 0]]]], np.uint8)
    row = appearance.appearance(image, mask, whole(mask)).iloc[0]
    # windows of 3 x 3 cut to the lesion: 4 corners of 4 pixels, 4 edges of 6, the middle of 9, each with one pixel of 90
    stds = [90 * math.sqrt(1 / n - 1 / n**2) for n in (4, 6, 9)]
    assert row["local_std"] == pytest.approx((4 * stds[0] + 4 * stds[1] + stds[2]) / 9 / 255)
    assert row["entropy"] == pytest.approx(-(8 / 9 * math.log2(8 / 9) + 1 / 9 * math.log2(1 / 9)))
    assert row["area"] == 1 and row["contrast"] == 0  # no ring is left


def test_descriptors_do_not_depend_on_orientation_or_place():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (1, 1, 48, 48), np.uint8)
    mask = np.zeros((1, 48, 48), np.uint8)
    mask[0, 18:30, 15:24] = mask[0, 20:24, 20:34] = 1
    table = appearance.appearance(image, mask, whole(mask))
    for turned, outline in (
        (np.rot90(image, axes=(2, 3)), np.rot90(mask, axes=(1, 2))),
        (image[:, :, :, ::-1], mask[:, :, ::-1]),
        (np.roll(image, (5, -3), (2, 3)), np.roll(mask, (5, -3), (1, 2))),
    ):
        pd.testing.assert_frame_equal(appearance.appearance(turned, outline, whole(outline)), table, rtol=1e-9)


def test_padding_is_neither_area_nor_ring_and_colour_is_luma():
    mask = disc(32, 10)[None]
    content = np.zeros((1, 32, 32), bool)
    content[:, 4:28] = True
    image = np.where(content, np.where(mask, 40, 100), 0).astype(np.uint8)[:, None]
    row = appearance.appearance(image, mask, content).iloc[0]
    assert row["area"] == pytest.approx(mask.sum() / content.sum()) and row["contrast"] == pytest.approx(-60 / 255)
    taken_for_tissue = appearance.appearance(image, mask, whole(mask)).iloc[0]
    assert taken_for_tissue["contrast"] > row["contrast"]
    drawn_too_far = mask.copy()
    drawn_too_far[:, :4] = True  # an outline that leaves the image
    pd.testing.assert_series_equal(appearance.appearance(image, drawn_too_far, content).iloc[0], row)
    colour = appearance.appearance(np.repeat(image, 3, axis=1), mask, content)
    np.testing.assert_allclose(colour.iloc[0], row, atol=1e-9)


def test_empty_and_tiny_masks_have_descriptors_defined():
    masks = np.zeros((3, 16, 16), np.uint8)
    masks[1, 4, 4] = 1
    masks[2, 4, 2:9] = 1
    table = appearance.appearance(np.full((3, 1, 16, 16), 7, np.uint8), masks, whole(masks))
    assert table.iloc[0].isna().all() and np.isfinite(table.iloc[1:].to_numpy()).all()
    assert table["elongation"][1] == 0 and table["elongation"][2] > 0.8
    none = np.zeros((0, 8, 8), np.uint8)
    assert appearance.appearance(none[:, None], none, whole(none)).shape == (0, len(appearance.FEATURES))


def test_an_ambiguous_example_is_the_middle_of_its_third():
    # class 0: scores .1 to .9; its ambiguous third is .7, .8, .9 (rows 2, 5, 0), the middle .8
    score = np.array([0.9, 0.1, 0.7, 0.2, 0.3, 0.8, 0.4, 0.5, 0.6, 0.5, 0.5, 0.5, 0.0, 1.0, np.nan])
    labels = np.array([0] * 9 + [1] * 3 + [2, 2, 2])
    # class 1: equal scores keep their order; class 2: two known scores make no third
    assert appearance.ambiguous_examples(score, labels).tolist() == [5, 11]
    assert appearance.ambiguous_examples([], []).tolist() == []


def slow_unlike(distances, groups, n, share):
    """From the definition: the most typical, then the case whose nearest chosen one is farthest."""
    left = sorted(range(len(groups)), key=lambda i: sum(distances[i]))[: math.ceil(share * len(groups))]
    found = []
    while left and len(found) < n:
        best = left[0] if not found else max(left, key=lambda i: min(distances[i][j] for j in found))
        found.append(best)
        left = [i for i in left if groups[i] != groups[best]]
    return found


@pytest.mark.parametrize("seed", range(12))
def test_unlike_examples_equal_a_slow_search(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30, 3))
    groups, share = rng.integers(0, 14, 30), rng.choice([0.5, 0.9, 1.0])
    distances = cdist(x, x)
    found = appearance.unlike_examples(distances, groups, 6, share)
    assert found.tolist() == slow_unlike(distances, groups, 6, share)
    assert len(set(groups[found])) == len(found)  # seven cases are seven patients


def test_unlike_examples_by_hand_and_at_the_edges():
    line = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 100])[:, None]
    distances = abs(line - line.T)
    # 100 is left out; 4 is as typical as 5 and stands first; of equally far ones the more typical comes first: 8, 0, then 6, 2
    assert appearance.unlike_examples(distances, np.arange(10), 5).tolist() == [4, 8, 0, 6, 2]
    assert appearance.unlike_examples(distances, np.arange(10), 2, share=1).tolist() == [4, 9]
    assert appearance.unlike_examples(distances, np.zeros(10)).tolist() == [4]
    # a class without any outlined case, such as "normal"
    assert appearance.unlike_examples(np.zeros((0, 0)), np.zeros(0)).tolist() == []


def test_thirds_within_each_class():
    score = np.array([0.9, 0.1, 0.5, 0.5, 0.5, np.nan, 0.7, 0.2])
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 2])
    expected = ["ambiguous", "clear", "middle", "clear", "middle", "", "ambiguous", "clear"]
    assert appearance.thirds(score, labels).tolist() == expected  # equal scores keep their order; one case alone is clear
    assert appearance.thirds([], []).shape == (0,)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_thirds_have_equal_sizes_and_rise(labels, seed):
    labels = np.array(labels)
    score = np.random.default_rng(seed).integers(0, 5, len(labels)) / 4
    found = appearance.thirds(score, labels)
    for label in np.unique(labels):
        parts = [score[(labels == label) & (found == third)] for third in appearance.THIRDS]
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        for low, high in itertools.pairwise(part for part in parts if len(part)):
            assert low.max() <= high.min()


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("YNET_DATA_DIR"), reason="YNET_DATA_DIR is not set")
def test_descriptors_of_real_lesions(tmp_path, monkeypatch):
    from ynet_lite import paths
    from ynet_lite.cases.loading import load_table
    from ynet_lite.sets import busbra

    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    try:
        table = busbra.busbra()
    except FileNotFoundError:
        pytest.skip("BUS-BRA is not there")
    table = pd.concat([part.iloc[:15] for _, part in table.groupby("fold")])
    cases = load_table(table, name="busbra", size=64)
    features = appearance.appearance(cases.images, cases.masks, cases.content_mask)
    assert np.isfinite(features.to_numpy()).all()
    assert (features["contrast"] < 0).mean() > 0.8  # most lesions of the breast are darker than the tissue around them


# --- exchanged tissue ------------------------------------------------------------------------------------------------


def tissue(seed, level, size=48):
    rng = np.random.default_rng(seed)
    return rng.normal(level, 6, (size, size)).clip(0, 255)


def lesion_case(seed, level, lesion, mask):
    return np.where(mask, lesion, tissue(seed, level, len(mask))).round().astype(np.uint8)[None, None]


@pytest.fixture
def pair():
    """A dark disc in dark tissue; a bright, larger disc elsewhere in bright tissue."""
    a, b = disc(48, 8, (20, 18)), disc(48, 12, (28, 30))
    return lesion_case(1, 80, 40, a), a[None], lesion_case(2, 160, 220, b), b[None]


def exchanged(image, mask, donor, donor_mask, content=None, donor_content=None):
    parts = [np.ones(mask.shape, bool) if part is None else part for part in (content, donor_content)]
    return exchange.replace_background(image, mask, donor, donor_mask, *parts)


def without_lesions(images, masks, content=None):
    """With an empty mask nothing is put in where the donor's lesion was."""
    return exchanged(images, np.zeros_like(masks), images, masks, content, content)[0]


def test_a_lesion_in_flat_tissue_vanishes_without_a_trace():
    mask = disc(48, 8)
    images = np.where(mask, 255, 90).astype(np.uint8)[None, None]
    assert np.unique(without_lesions(images, mask[None])).tolist() == [90]


def test_a_painted_pixel_stays_within_black_and_white():
    # stripes of black and white: level and texture together would leave the range, and a byte would turn round
    image = np.where(np.arange(48) % 8 < 3, 0.0, 255.0) * np.ones((1, 48, 1))
    painted = exchange._painted_over(image, disc(48, 10), np.ones((48, 48), bool))
    assert painted.min() == 0 and painted.max() == 255


def test_texture_is_borrowed_without_burnt_in_text_and_black_borders():
    mask = disc(48, 9, (16, 16))
    image = lesion_case(3, 100, 30, mask)
    image[0, 0, 30:34:2, 2:46:3], image[0, 0, :, :2] = 255, 0
    filled = without_lesions(image, mask[None])[0, 0]
    assert filled[mask].max() < 140 and filled[mask].min() > 60 and filled[mask].std() > 3
    far = ~disc(48, 9 + 3, (16, 16))
    np.testing.assert_array_equal(filled[far], image[0, 0][far])  # the text stays where it was


def test_a_removed_lesion_leaves_tissue(pair):
    _, _, image, mask = pair
    filled = without_lesions(image, mask)
    inside = filled[0, 0][mask[0]].astype(float)
    assert abs(inside.mean() - 160) < 3 and 3 < inside.std() < 9  # level and texture of the tissue, deviation 6
    far = ~disc(48, 12 + 3, (28, 30))
    np.testing.assert_array_equal(filled[0, 0][far], image[0, 0][far])


def test_background_is_exchanged_and_the_lesion_stays(pair):
    image, mask, donor, donor_mask = pair
    before = [part.copy() for part in pair]
    found, outline = exchanged(image, mask, donor, donor_mask)
    np.testing.assert_array_equal(outline, mask)
    far = ~disc(48, 15, (28, 30)) & ~disc(48, 12, (20, 18))
    np.testing.assert_array_equal(found[0, 0][far], donor[0, 0][far])  # the donor's tissue, pixel by pixel
    assert abs(found[0, 0][donor_mask[0] & ~disc(48, 12, (20, 18))].mean() - 160) < 4  # and no trace of its lesion
    # contrast to the surroundings is kept: 40 in tissue of 80 becomes 120 in tissue of 160, the same shift for all pixels
    moved = found[0, 0][mask[0]].astype(int) - image[0, 0][mask[0]]
    assert moved.min() == moved.max() and abs(moved[0] - 80) < 4
    assert found.dtype == np.uint8 and outline.dtype == bool
    for part, old in zip(pair, before, strict=True):
        np.testing.assert_array_equal(part, old)  # nothing given was changed


def test_soft_edge_has_no_halo(pair):
    image, mask, donor, donor_mask = pair
    found, _ = exchanged(image, mask, donor, donor_mask)
    band = disc(48, 10, (20, 18)) & ~mask[0]
    assert abs(found[0, 0][band].mean() - 160) < 5


def test_control_is_the_image_but_for_the_blended_edge(pair):
    image, mask, _, _ = pair
    found, outline = exchanged(image, mask, image, mask)
    np.testing.assert_array_equal(outline, mask)
    same = mask[0] | ~disc(48, 8 + 3, (20, 18))
    assert np.abs(found[0, 0][same].astype(int) - image[0, 0][same]).max() == 0


def test_nothing_is_put_on_padding_and_no_padding_comes_along():
    content = np.zeros((1, 48, 48), bool)
    content[:, 12:36] = True
    mask = disc(48, 6, (12, 24))[None]
    image, donor = lesion_case(1, 120, 30, mask[0]), tissue(2, 120).round().astype(np.uint8)[None, None]
    padded = np.where(content, donor, 0).astype(np.uint8)
    found, outline = exchanged(image, mask, padded, np.zeros_like(mask), None, content)
    np.testing.assert_array_equal(outline, mask & content)
    assert (found[0, 0][~content[0]] == 0).all() and found[0, 0][outline[0]].max() < 60
    image = np.where(content, image, 0).astype(np.uint8)
    found, outline = exchanged(image, mask, donor, np.zeros_like(mask), content)
    np.testing.assert_array_equal(found[0, 0, :12], donor[0, 0, :12])
    np.testing.assert_array_equal(outline, mask & content)


def test_empty_and_full_masks_are_defined(pair):
    image, mask, donor, donor_mask = pair
    empty = np.zeros_like(mask)
    found, outline = exchanged(image, empty, donor, donor_mask)
    np.testing.assert_array_equal(found, without_lesions(donor, donor_mask))
    assert not outline.any()
    np.testing.assert_array_equal(without_lesions(image, empty), image)
    np.testing.assert_array_equal(without_lesions(image, np.ones_like(mask)), image)  # no tissue to paint with
    found, outline = exchanged(image, np.ones_like(mask), donor, empty)
    np.testing.assert_array_equal(found, image)
    assert outline.all()


def test_colour_images_and_no_images():
    mask = disc(32, 6)[None]
    image = np.repeat(lesion_case(0, 100, 50, mask[0]), 3, axis=1)
    image[:, 2] //= 2
    found, _ = exchanged(image, mask, image[:, :, ::-1].copy(), mask[:, ::-1])
    assert found.shape == image.shape and abs(found[0, 2].mean() - image[0, 2].mean()) < 3
    none = np.zeros((0, 1, 8, 8), np.uint8)
    found, outline = exchanged(none, none[:, 0], none, none[:, 0])
    assert found.shape == (0, 1, 8, 8) and outline.shape == (0, 8, 8)


def test_donors_that_do_not_fit_are_refused(pair):
    image, mask, donor, donor_mask = pair
    with pytest.raises(ValueError):
        exchanged(image, mask, np.repeat(donor, 2, axis=0), donor_mask)
    with pytest.raises(ValueError):
        exchanged(image, mask, donor, donor_mask[:, 1:])
