"""Random geometric and grey-value changes of a training batch, drawn from a given generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import Config


def augment(images: Tensor, masks: Tensor, cfg: Config, generator: torch.Generator) -> tuple[Tensor, Tensor]:
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
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = mirror * torch.cos(angle) / zoom
    theta[:, 0, 1] = -torch.sin(angle) / zoom
    theta[:, 1, 0] = mirror * torch.sin(angle) / zoom
    theta[:, 1, 1] = torch.cos(angle) / zoom
    theta[:, 0, 2] = 2 * uniform(-cfg.aug_shift, cfg.aug_shift)
    theta[:, 1, 2] = 2 * uniform(-cfg.aug_shift, cfg.aug_shift)
    contrast = uniform(1 - cfg.aug_contrast, 1 + cfg.aug_contrast).view(-1, 1, 1, 1).to(images.device)
    brightness = (255 * uniform(-1, 1) * cfg.aug_contrast / 4).view(-1, 1, 1, 1).to(images.device)
    grid = F.affine_grid(theta, [n, 1, *images.shape[2:]], align_corners=False).to(images.device)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    inside = F.grid_sample(masks[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    mean = moved.mean((1, 2, 3), keepdim=True)
    # black padding stays black: only what shows tissue is changed
    toned = torch.where(moved > 0, (moved - mean) * contrast + mean + brightness, moved)
    return toned.clamp_(0, 255), inside[:, 0].to(masks.dtype)
