"""Augmentation: masks move with images, draws come from the given generator, arguments stay as they were."""

import numpy as np
import pytest
import torch

from ynet_lite.augment import augment
from ynet_lite.config import Config

STILL = {"aug_rotate": 0.0, "aug_scale": 0.0, "aug_shift": 0.0, "aug_contrast": 0.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def discs(n: int = 24, size: int = 48) -> torch.Tensor:
    """(n, size, size) int64: a disc and, so that mirroring shows, a bar on its right."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:size, :size]
    masks = np.zeros((n, size, size), np.int64)
    for i in range(n):
        cy, cx = rng.uniform(18, 30, 2)
        masks[i] = ((y - cy) ** 2 + (x - cx) ** 2 < 81) | ((abs(y - cy) < 4) & (x > cx) & (x < cx + 15))
    return torch.from_numpy(masks)


def test_masks_move_with_their_images():
    masks = discs()
    images = 255.0 * masks[:, None]
    moved, moved_masks = augment(images, masks, Config(aug_contrast=0.0), generator())
    seen = moved[:, 0] > 127.5
    inside = moved_masks > 0
    overlap = (seen & inside).sum((1, 2)) / (seen | inside).sum((1, 2))
    assert overlap.min() > 0.93  # bilinear against nearest: only the outline may differ
    assert (moved_masks != masks).any((1, 2)).all()  # and they did move
    assert len({tuple(m.flatten().tolist()) for m in moved_masks}) == len(masks)  # every image its own draw


def test_masks_of_several_classes_keep_their_values():
    masks = discs() * (1 + torch.arange(24) % 2)[:, None, None]
    moved = augment(255.0 * (masks[:, None] > 0), masks, Config(), generator())[1]
    assert moved.dtype == masks.dtype
    for before, after in zip(masks, moved, strict=True):
        assert set(after.unique().tolist()) <= set(before.unique().tolist())


def test_same_generator_same_bits():
    masks = discs()
    images = 255 * torch.rand(24, 1, 48, 48, generator=generator(5))
    first, second = (augment(images, masks, Config(), generator(3)) for _ in range(2))
    other = augment(images, masks, Config(), generator(4))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_draws_depend_on_neither_masks_nor_the_global_state():
    images = 255 * torch.rand(24, 1, 48, 48, generator=generator(5))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = augment(images, discs(), Config(), generator(3))[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    second = augment(images, torch.zeros(24, 48, 48, dtype=torch.int64), Config(), generator(3))[0]
    assert torch.equal(first, second)


def test_arguments_are_not_modified():
    masks = discs()
    images = 255 * torch.rand(24, 3, 48, 48, generator=generator(5))
    kept = images.clone(), masks.clone()
    augment(images, masks, Config(), generator())
    assert torch.equal(images, kept[0]) and torch.equal(masks, kept[1])


def test_values_stay_grey_values_and_black_padding_stays_black():
    images = 255 * torch.rand(24, 1, 48, 48, generator=generator(5))
    images[:, :, :, :12] = 0
    moved = augment(images, discs(), Config().but(**STILL | {"aug_contrast": 0.9}), generator())[0]
    assert moved.shape == images.shape and moved.dtype == images.dtype
    assert moved.min() >= 0 and moved.max() <= 255
    padding = moved.flip(3)[:, :, :, :12].abs().sum((1, 2, 3)) * moved[:, :, :, :12].abs().sum((1, 2, 3))
    assert (padding == 0).all()  # on the left, or on the right in a mirrored image


def test_with_everything_off_only_the_mirror_is_left():
    masks = discs()
    images = 255 * torch.rand(24, 1, 48, 48, generator=generator(5))
    moved, moved_masks = augment(images, masks, Config().but(**STILL), generator())
    mirrored = 0
    for i in range(24):
        if torch.allclose(moved[i], images[i], atol=0.05):
            assert torch.equal(moved_masks[i], masks[i])
        else:
            assert torch.allclose(moved[i], images[i].flip(2), atol=0.05)
            assert torch.equal(moved_masks[i], masks[i].flip(1))
            mirrored += 1
    assert 3 < mirrored < 21  # about one half


@pytest.mark.parametrize("name, value", [("aug_shift", 0.2), ("aug_scale", 0.5)])
def test_shift_and_scale_stay_within_what_is_stated(name, value):
    size, n = 64, 64
    masks = torch.zeros(n, size, size, dtype=torch.int64)
    masks[:, 24:40, 24:40] = 1
    moved = augment(255.0 * masks[:, None], masks, Config().but(**STILL | {name: value}), generator())[1]
    rows = torch.arange(size, dtype=torch.float32)
    area = moved.sum((1, 2)).float()
    centre = (moved.sum(2) * rows).sum(1) / area  # 31.5 where nothing moved
    if name == "aug_shift":
        assert (centre - 31.5).abs().max() <= value * size + 1 and (centre - 31.5).abs().max() > value * size / 2
        assert (area == 256).all()
    else:
        factor = (area / 256).sqrt()
        assert factor.min() > 1 / (1 + value) - 0.1 and factor.max() < 1 + value + 0.1
        assert factor.max() > 1.2 and factor.min() < 0.85
        assert (centre - 31.5).abs().max() <= 1


def test_rotation_angles_stay_within_what_is_stated():
    size, n = 65, 64
    masks = torch.zeros(n, size, size, dtype=torch.int64)
    masks[:, 30:35, 4:61] = 1  # a bar lying across
    moved = augment(255.0 * masks[:, None], masks, Config().but(**STILL | {"aug_rotate": 20.0}), generator())[1]
    y, x = torch.meshgrid(torch.arange(size) - 32.0, torch.arange(size) - 32.0, indexing="ij")
    angles = []
    for mask in moved.float():
        xx, yy, xy = (mask * x * x).sum(), (mask * y * y).sum(), (mask * x * y).sum()
        angles.append(float(torch.rad2deg(0.5 * torch.atan2(2 * xy, xx - yy))))
    assert 15 < max(angles) < 21 and -21 < min(angles) < -15
