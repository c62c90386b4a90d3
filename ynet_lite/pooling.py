"""How feature maps become one vector: the poolings of the network, and the attention of ASH and ATH.

x (N, C, H, W) are features after a ReLU, so >= 0. `pool` is the one place that knows a pooling by its name; what only compared
methods use is in `ynet_lite.paper.aggregation`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


#: Poolings of a feature map that need nothing but the map. (N, C, H, W) -> (N, C).
PLAIN = {"rmac": rmac, "gap": lambda x: x.mean((2, 3)), "mac": lambda x: x.amax((2, 3))}

#: Poolings weighted by the coarse map of the segmentation branch.
GUIDED = ("lesion", "rim", "selfpool")


def pool(name: str, x: Tensor, coarse: Tensor | None = None) -> Tensor:
    """``x`` (N, C, H, W) pooled by ``name``, one of `PLAIN` or `GUIDED`; not normalised. -> (N, C).

    coarse : (N, masks, h, w), logits of the segmentation branch, background first; needed by `GUIDED`.
    """
    if name in PLAIN:
        return PLAIN[name](x)
    inside = 1 - coarse.float().softmax(1)[:, :1]
    if name == "selfpool":
        return weighted_pool(x, inside)
    inside = inside.detach()  # the mask steers the pooling; only without masks must the pooling teach the map
    return weighted_pool(x, rim(inside) if name == "rim" else inside)


def rim(inside: Tensor, reach: int = 2) -> Tensor:
    """The band around the border of a soft mask (N, 1, h, w) in [0, 1], ``reach`` cells to both sides: maximum minus minimum of
    the cells around (the morphological gradient)."""
    size = 2 * reach + 1
    return F.max_pool2d(inside, size, 1, reach) + F.max_pool2d(-inside, size, 1, reach)


class SpatialAttention(nn.Module):
    """Spatial attention of ASH (arXiv 2012.03466) and ATH (arXiv 2101.12346). (N, C, H, W) -> (N, C, H, W), attended.

    a = sigmoid(conv 3x3 of [mean over channels, maximum over channels]), without bias; the result is a x. The two papers agree up
    to one detail: ATH pools its features by a 3x3 maximum of stride 1 before (``max_pool=True``), ASH does not.
    """

    def __init__(self, max_pool: bool = False):
        super().__init__()
        self.pool = nn.MaxPool2d(3, 1, 1) if max_pool else nn.Identity()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        return torch.sigmoid(self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))) * x
