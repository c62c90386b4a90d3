"""Random geometric and grey-value changes of a training batch, drawn from a given generator."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .settings import Settings


@dataclass(frozen=True)
class Augment(Settings):
    """How much a training batch is changed at random."""

    augment: bool = True
    aug_rotate: float = 10.0  # degrees, either way
    aug_scale: float = 0.1  # factor 1 +- this
    aug_shift: float = 0.08  # share of the width
    aug_contrast: float = 0.2  # contrast factor 1 +- this; brightness by a quarter of it, in shares of 255


def augment(images: Tensor, masks: Tensor, cfg: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, rotate, scale, shift, and change contrast and brightness; every image its own draw.

    images : (N, C, H, W) float in 0..255. masks : (N, H, W) integer. Masks move with their images (nearest neighbour). No
    up-down mirror: in ultrasound the skin is always on top and shadows always fall downwards.
    """
    n = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    angle = torch.deg2rad(uniform(-cfg.aug_rotate, cfg.aug_rotate))
    zoom = torch.exp(uniform(-1, 1) * math.log1p(cfg.aug_scale))
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    shift_x = 2 * uniform(-cfg.aug_shift, cfg.aug_shift)
    shift_y = 2 * uniform(-cfg.aug_shift, cfg.aug_shift)
    contrast = uniform(1 - cfg.aug_contrast, 1 + cfg.aug_contrast).view(-1, 1, 1, 1).to(images.device)
    brightness = (255 * uniform(-1, 1) * cfg.aug_contrast / 4).view(-1, 1, 1, 1).to(images.device)
    # where each pixel comes from, in units of half the image; by hand, since F.affine_grid multiplies matrices for it
    h, w = images.shape[2:]
    x = ((2 * torch.arange(w) + 1) / w - 1).view(1, 1, w)
    y = ((2 * torch.arange(h) + 1) / h - 1).view(1, h, 1)
    cos, sin, mirror, shift_x, shift_y = (v.view(n, 1, 1) for v in (cos, sin, mirror, shift_x, shift_y))
    from_x = mirror * cos * x + (shift_x - sin * y)
    from_y = mirror * sin * x + (shift_y + cos * y)
    grid = torch.stack([from_x, from_y], 3).to(images.device)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    inside = F.grid_sample(masks[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    mean = moved.mean((1, 2, 3), keepdim=True)
    # black padding stays black: only what shows tissue is changed
    toned = torch.where(moved > 0, (moved - mean) * contrast + mean + brightness, moved)
    return toned.clamp_(0, 255), inside[:, 0].to(masks.dtype)
