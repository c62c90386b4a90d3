"""The methods Y-Net is compared with: deep hashing losses, aggregations of convolutional features, and ITQ.

Only functions and small modules; they know nothing of `Config` or of the training loop. Everything is written from the papers
named in `ynet_lite.methods`.

Losses. N images in a batch, K bits; z (N, K) the real code before any tanh or sign; same (N, N) bool, which pairs are of one
class (`losses.same_class`); labels (N,) int64. Each loss returns a dict of named scalar tensors, **already multiplied by its own
weights**: their sum is the loss. Each has one argument ``scale`` > 0, default 1, that multiplies the one inner constant its
result hangs on most (a margin, a sharpness), said in its docstring, so that all rivals can be tuned alike.

Deviations that hold for every loss: sums over pairs, triplets and images are means, so that no weight depends on the size of the
batch; pairs are unordered (i < j) and of different images. A batch of one image has no pair and no triplet: those terms are then
a zero with a gradient of zero. Single-precision or double; lower precision is raised to single.

Aggregations. x (N, C, H, W) >= 0, features after a ReLU; the result (N, C) is L2-normalised, and zero where x is zero everywhere.
Global average and maximum pooling need no function of their own; R-MAC is `model.rmac`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .losses.common import precise


def rmac_regions(height: int, width: int, levels: int = 3) -> list[tuple[int, int, int]]:
    """Square regions ``(top, left, side)`` of R-MAC on a height x width map.

    At level l = 1..levels the side is floor(2 min(H, W) / (l + 1)) and regions lie on a uniform grid; their number along the
    longer side lets neighbours overlap by about 40 % (Tolias, Sicre, Jegou, ICLR 2016, arXiv 1511.05879, section 3.2). The
    released code drops the last row and column of every region; here regions are whole.
    """
    short, long = min(height, width), max(height, width)
    # number of extra regions along the longer side at level 1: the one whose overlap is nearest to 40 %
    extra = 0
    if long > short:
        candidates = range(1, 7)
        extra = min(candidates, key=lambda n: abs((short - (long - short) / n) / short - 0.4))
    regions = []
    for level in range(1, levels + 1):
        side = max(1, int(2 * short / (level + 1)))
        rows = level + (extra if height > width else 0)
        cols = level + (extra if width > height else 0)
        tops = [round(i * (height - side) / max(rows - 1, 1)) for i in range(rows)]
        lefts = [round(i * (width - side) / max(cols - 1, 1)) for i in range(cols)]
        regions += [(top, left, side) for top in dict.fromkeys(tops) for left in dict.fromkeys(lefts)]
    return regions


def rmac(x: Tensor, levels: int = 3) -> Tensor:
    """Regional maximum activation of convolutions: sum over regions of the L2-normalised maximum. (N, C, H, W) -> (N, C)."""
    total = x.new_zeros(x.shape[:2])
    for top, left, side in rmac_regions(x.shape[2], x.shape[3], levels):
        total = total + F.normalize(x[:, :, top : top + side, left : left + side].amax((2, 3)), dim=1)
    return total


def weighted_pool(x: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``x`` (N, C, H, W) under ``weight`` (N, 1, h, w) >= 0, resized to x's grid. -> (N, C).

    A weight of (almost) zero everywhere, an image with no lesion, falls back to the plain mean instead of dividing by zero.
    """
    weight = F.adaptive_avg_pool2d(weight, x.shape[2:]) + 1e-4
    return (x * weight).sum((2, 3)) / weight.sum((2, 3))


class SpatialAttention(nn.Module):
    """Spatial attention of ASH (arXiv 2012.03466) and ATH (arXiv 2101.12346). (N, C, H, W) -> (N, C, H, W), attended.

    a = sigmoid(conv 3x3 of [mean over channels, maximum over channels]), without bias; the result is a x. The two papers agree up
    to one detail: ATH pools its features by a 3x3 maximum of stride 1 before (``max_pool=True``), ASH does not.

    ``channels``: C, which the attention does not depend on; it is there to name a wrong input. Raises ``ValueError`` for it.
    """

    def __init__(self, channels: int, max_pool: bool = False):
        super().__init__()
        self.channels = channels
        self.pool = nn.MaxPool2d(3, 1, 1) if max_pool else nn.Identity()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def weights(self, x: Tensor) -> Tensor:
        """The attention map a (N, 1, H, W) in (0, 1) of features that are already pooled."""
        _check_features(x, self.channels)
        return torch.sigmoid(self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))

    def forward(self, x: Tensor) -> Tensor:
        _check_features(x, self.channels)
        x = self.pool(x)
        return self.weights(x) * x


# ---------------------------------------------------------------- aggregation of convolutional features


def _check_features(x: Tensor, channels: int | None = None) -> None:
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"features must be (N, C, H, W), no size 0, got {tuple(x.shape)}")
    if channels is not None and x.shape[1] != channels:
        raise ValueError(f"features must have {channels} channels, got {x.shape[1]}")


def crow_channel_weights(x: Tensor, eps: float = 1e-6) -> Tensor:
    """CroW's weight of each channel (N, C): the rarer a channel is active, the more it counts (arXiv 1512.04065).

    I_k = log((C eps + sum_h Q_h) / (eps + Q_k)), Q_k the share of positions where x_k > 0. No gradient. I_k >= 0.
    """
    _check_features(x)
    active = (x > 0).to(torch.promote_types(x.dtype, torch.float32)).mean((2, 3))
    return torch.log((x.shape[1] * eps + active.sum(1, keepdim=True)) / (eps + active))


def crow(x: Tensor, *, a: float = 2.0, b: float = 2.0, eps: float = 1e-6) -> Tensor:
    """Cross-dimensional weighting (Kalantidis et al., arXiv 1512.04065). x (N, C, H, W) >= 0 -> (N, C).

    f_k = I_k sum over positions of S x_k, with S = (S' / (sum S'^a)^(1/a))^(1/b), S' the sum over channels, and I of
    `crow_channel_weights`; then L2-normalised. a = b = 2 as in the paper. Deviation: without the paper's PCA whitening.
    An image without any activation gives zeros.
    """
    _check_features(x)
    x = precise(x)
    total = x.sum(1, keepdim=True)
    # divided by its maximum first: powers of very small or large sums would leave the range of single precision
    total = total / total.amax((2, 3), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    # positions without activation weigh nothing, whatever S is there; the floors only keep the gradients of the roots finite
    norm = total.clamp_min(1e-6).pow(a).sum((2, 3), keepdim=True).pow(1 / a)
    spatial = (total / norm).clamp_min(1e-12).pow(1 / b)
    return F.normalize(crow_channel_weights(x, eps) * (spatial * x).sum((2, 3)), dim=1)


def cam_pool(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, top: int = 2) -> Tensor:
    """Class-weighted features (Jimenez et al., BMVC 2017, arXiv 1707.02581, section 3). x (N, C, H, W) >= 0 -> (N, C).

    For each of the ``top`` classes that the classifier finds likeliest: the class activation map sum_k w_k x_k, stretched to
    [0, 1], weighs the positions of a sum pooling, CroW's `crow_channel_weights` weigh the channels, and the vector is
    L2-normalised. The descriptor is the L2-normalised mean of these class vectors.

    ``weight`` (classes, C) and ``bias`` (classes,): the linear classifier on globally averaged features that the network was
    trained with. ``top`` above the number of classes means all of them. A map that is the same everywhere (one position only, no
    activation) prefers none: weight 1. Deviation: without the paper's PCA whitening; it takes 16 to 64 of 1,000 classes.
    """
    _check_features(x)
    if weight.ndim != 2 or weight.shape[1] != x.shape[1]:
        raise ValueError(f"weight must be (classes, {x.shape[1]}), got {tuple(weight.shape)}")
    if bias is not None and bias.shape != (len(weight),):
        raise ValueError(f"bias must be ({len(weight)},), got {tuple(bias.shape)}")
    if top < 1:
        raise ValueError(f"top must be at least 1 class, got {top!r}")
    x = precise(x)
    weight = weight.to(x.dtype)
    logits = F.linear(x.mean((2, 3)), weight, None if bias is None else bias.to(x.dtype))
    classes = logits.topk(min(top, len(weight)), dim=1).indices
    maps = torch.einsum("ntc,nchw->nthw", weight[classes], x)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    flat = high <= low
    maps = torch.where(flat, 1.0, (maps - low) / torch.where(flat, 1.0, high - low))
    vectors = torch.einsum("nthw,nchw->ntc", maps, x) * crow_channel_weights(x)[:, None]
    return F.normalize(F.normalize(vectors, dim=2).mean(1), dim=1)


class RegionalAttention(nn.Module):
    """R-MAC whose regions are weighted by a learned attention (Kim and Yoon, BMVC 2018). x (N, C, H, W) >= 0 -> (N, C).

    f = sum over regions r of w_r m_r / ||m_r||, L2-normalised; m_r the maximum over the region, and
    w_r = softplus(b_2 + W_2 tanh(b_1 + W_1 [mean over the region, mean over the map])) > 0, the second mean being the context.

    ``levels`` of `model.rmac_regions`; ``hidden``: 64 as in the paper. Deviations: without the paper's PCA whitening of the
    regions; 3 levels as for our R-MAC (their released code: 5, on far larger maps); trained with the network (or on a frozen one,
    as they do: give only these parameters to the optimiser).
    """

    def __init__(self, channels: int, levels: int = 3, hidden: int = 64):
        super().__init__()
        self.channels, self.levels = channels, levels
        self.hidden = nn.Linear(2 * channels, hidden)
        self.out = nn.Linear(hidden, 1)

    def _regions(self, x: Tensor) -> list[Tensor]:
        _check_features(x, self.channels)
        found = rmac_regions(x.shape[2], x.shape[3], self.levels)
        return [x[:, :, top : top + side, left : left + side] for top, left, side in found]

    def weights(self, x: Tensor) -> Tensor:
        """The weight of each region, (N, R) > 0, in the order of `model.rmac_regions`."""
        x = precise(x)
        means = torch.stack([region.mean((2, 3)) for region in self._regions(x)], 1)
        context = x.mean((2, 3))[:, None].expand_as(means)
        return F.softplus(self.out(torch.tanh(self.hidden(torch.cat([means, context], 2)))))[..., 0]

    def forward(self, x: Tensor) -> Tensor:
        maxima = F.normalize(torch.stack([region.amax((2, 3)) for region in self._regions(precise(x))], 1), dim=2)
        return F.normalize((self.weights(x)[..., None] * maxima).sum(1), dim=1)
