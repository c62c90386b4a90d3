"""Y-Net: one encoder, a segmentation branch, a classification branch, one hash code.

The network follows J. Fang et al., "Combating Ambiguity for Hash-code Learning in Medical Instance Retrieval", IEEE JBHI 2021,
DOI 10.1109/JBHI.2021.3082531. `Config.from_preset("paper")` builds the network as released, oddities included as switches; the
`quick` and `full` presets build ours. Every deviation stands at the switch that makes it, in `Network`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import encoders, losses
from .losses.weights import LossWeights
from .pooling import GUIDED, PLAIN, SpatialAttention, pool
from .settings import Settings, one_of, young

#: Stages of the encoder, named as in feature pyramid networks (Lin et al., CVPR 2017): C2 is the finest.
LEVELS = (2, 3, 4, 5)


@dataclass(frozen=True)
class Input(Settings):
    """Images are squares of ``size`` pixels with ``channels`` channels."""

    size: int = 64
    channels: int = 1


@dataclass(frozen=True)
class Network(Input, LossWeights):
    """What `YNet` is built from: its input, its parts, and the losses, which decide on its branches."""

    encoder: str = young("small")  # "lite0": ImageNet weights; "hf:<name or folder>": a backbone of `transformers`
    frozen: int = one_of(0, 1, 2, 3, 4, young=True)  # levels of a pretrained encoder that stay as they came, the stem with them
    drop_path: float = young(0.0)  # lite0: probability that the last block is skipped in training; earlier ones in proportion
    stem: str = one_of("conv3", "conv7-pool")  # one 3x3 /2, or 7x7 /2 and max-pool /2, as released
    block: str = one_of("basic", "bottleneck")  # "bottleneck" as released (expansion 4)
    planes: tuple[int, ...] = (16, 32, 64, 128)
    blocks: int = 2
    fpn: int = 32
    descriptor: int = 0  # channels of a 3x3 convolution on C5 before aggregation (released: 512); 0 = none
    seg_features: str = one_of("logits", "features")  # what is upsampled to full size: "features" as released
    seg_activation: str = one_of("none", "relu", "bn")  # on the logits: "relu" as in the released script, "bn" in its notebooks
    attention: str = one_of("none", "spatial", "spatial-max", young=True)  # on C5: "spatial" as in ASH, "spatial-max" as in ATH
    pooling: str = one_of("lesion", *GUIDED, *PLAIN, joined=True)
    pool_levels: tuple[int, ...] = (3, 4)  # which of C2..C5 are aggregated
    code_input: str = one_of("descriptor", "c5")  # "c5": the flattened C5, as released
    code_halves: bool = young(False)  # of several poolings the first makes one half of the bits, the others make the other
    code_norm: bool = False  # batch-normalise the code (balanced bits)

    def __post_init__(self):
        super().__post_init__()
        encoders.named(self.encoder)
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"Config.drop_path: {self.drop_path}; it is a probability below 1")
        if not self.pool_levels or not set(self.pool_levels) <= set(LEVELS):
            raise ValueError(f"Config.pool_levels: {self.pool_levels}; the levels are 2 to 5 (C2 to C5)")
        if self.code_halves and ("+" not in self.pooling or self.code_input == "c5"):
            raise ValueError(f"Config.code_halves: two halves need two poolings of the descriptor, not {self.pooling!r}")


class Output(NamedTuple):
    """What one forward pass returns.

    code : (N, bits) real numbers before tanh and sign. descriptor : (N, D) aggregated, L2-normalised features.
    logits : (N, mask classes, H, W) or None where the network has no segmentation branch.
    """

    code: Tensor
    descriptor: Tensor
    logits: Tensor | None


class SegmentationBranch(nn.Module):
    """Feature pyramid over C5..C2 and a 3x3 convolution to the mask classes.

    Ours makes the logits on C2's grid and upsamples *them*; ``seg_features="features"`` upsamples the features to full size
    first, as released, which costs several times as much for the same kind of map.
    """

    def __init__(self, widths: list[int], cfg: Network, n_masks: int):
        super().__init__()
        self.lateral = nn.ModuleList([nn.Conv2d(w, cfg.fpn, 1) for w in widths[1:]])
        self.finest = nn.Identity() if widths[0] == cfg.fpn else nn.Conv2d(widths[0], cfg.fpn, 1)
        self.head = nn.Conv2d(cfg.fpn, n_masks, 3, 1, 1)
        self.activation = {"none": nn.Identity, "relu": nn.ReLU, "bn": lambda: nn.BatchNorm2d(n_masks)}[cfg.seg_activation]()
        self.full_size_features = cfg.seg_features == "features"

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """-> logits (N, M, *size), logits on the head's own grid (N, M, h, w)."""
        top = self.lateral[-1](features[-1])
        for lateral, finer in zip(self.lateral[-2::-1], features[-2:0:-1], strict=True):
            top = F.interpolate(top, finer.shape[2:], mode="bilinear") + lateral(finer)
        top = F.interpolate(top, features[0].shape[2:], mode="bilinear") + self.finest(features[0])
        coarse = self.activation(upsampled_conv(top, self.head, size) if self.full_size_features else self.head(top))
        return upsampled(coarse, size), coarse


def upsampled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear upsampling of a few maps (N, M, h, w) to ``size``, float32: as `F.interpolate`, by one matrix for the rows and one
    for the columns. For the logits of two classes this takes a fraction of the time of the library's kernel."""
    if x.shape[2:] == size:
        return x.float()
    with torch.autocast(x.device.type, enabled=False):
        units = (torch.eye(n, device=x.device)[None] for n in x.shape[2:])
        rows, columns = (F.interpolate(unit, m, mode="linear")[0] for unit, m in zip(units, size, strict=True))
        return rows.T @ (x.float().contiguous() @ columns)


def upsampled_conv(x: Tensor, conv: nn.Conv2d, size: tuple[int, int]) -> Tensor:
    """``conv`` (3x3, padding 1) of ``x`` (N, C, h, w) upsampled bilinearly to ``size``. -> (N, C_out, *size).

    For a whole factor f the upsampled map is never made: at each of the f x f positions inside a coarse cell, the two linear
    steps together are one 3x3 convolution of the coarse map; a pixel shuffle puts them together, at a fraction of the time. The
    outermost pixels, where the convolution pads with zeros but the upsampling repeats the border, are computed the direct way.
    """
    h, w = x.shape[2:]
    f = size[0] // h
    if f < 2 or min(h, w) < 2 or size != (f * h, f * w):
        return conv(F.interpolate(x, size, mode="bilinear"))

    def direct(part: Tensor) -> Tensor:
        return conv(F.interpolate(part, scale_factor=f, mode="bilinear", align_corners=False))

    # share[p, a, i]: weight of the coarse cell a - 1 in what tap i of the kernel sees at position p inside cell 0
    unit = F.interpolate(torch.eye(5, dtype=torch.float64)[None], scale_factor=f, mode="linear", align_corners=False)[0]
    share = torch.stack([unit[1:4, 2 * f + i - 1 : 3 * f + i - 1].T for i in range(3)], 2).to(conv.weight)
    c_out, c_in = conv.weight.shape[:2]
    weight = torch.einsum("pai,qbj,ocij->opqcab", share, share, conv.weight).reshape(c_out * f * f, c_in, 3, 3)
    bias = None if conv.bias is None else conv.bias.repeat_interleave(f * f)
    inner = F.pixel_shuffle(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, bias), f)[:, :, 1:-1, 1:-1]
    top, bottom = direct(x[:, :, :2])[:, :, :1], direct(x[:, :, -2:])[:, :, -1:]
    left, right = direct(x[:, :, :, :2])[:, :, 1:-1, :1], direct(x[:, :, :, -2:])[:, :, 1:-1, -1:]
    return torch.cat([top, torch.cat([left, inner, right], 3), bottom], 2)


class Halves(nn.Linear):
    """A linear layer (N, D) -> (N, K): the first K / 2 outputs read the first ``first`` inputs alone, the others the rest."""

    def __init__(self, first: int, size: int, bits: int):
        super().__init__(size, bits)
        own = (torch.arange(bits)[:, None] < bits // 2) == (torch.arange(size) < first)
        self.register_buffer("own", own, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.own, self.bias)


class YNet(nn.Module):
    """The network. ``forward(images)`` takes uint8 or float images in 0..255, shape (N, channels, H, W), and returns `Output`.

    ``pretrained=False``: an encoder that has weights to start from leaves them out, since a checkpoint brings its own.
    """

    def __init__(self, cfg: Network, n_classes: int, n_masks: int = 2, pretrained: bool = True):
        super().__init__()
        self.cfg = cfg
        self.encoder = encoders.named(cfg.encoder).make(cfg, pretrained)
        # channels last is faster, but the backward step of a 1x1 convolution of stride 2 with fewer than 16 channels crashes the
        # process there (PyTorch 2.13, with AVX-512 and with AVX2)
        steps = [m for m in self.encoder.modules() if isinstance(m, nn.Conv2d) and (m.kernel_size, m.stride) == ((1, 1), (2, 2))]
        self.layout = torch.contiguous_format if any(m.in_channels < 16 for m in steps) else torch.channels_last
        widths = self.encoder.widths
        self.guided = not set(GUIDED).isdisjoint(cfg.pooling.split("+"))
        needs_map = cfg.uses_masks or self.guided
        self.segmentation = SegmentationBranch(widths, cfg, n_masks) if needs_map else None
        self.to_descriptor = nn.Conv2d(widths[-1], cfg.descriptor, 3, 1, 1) if cfg.descriptor else nn.Identity()
        top = cfg.descriptor or widths[-1]
        pooled = [top if level == 5 else widths[level - 2] for level in cfg.pool_levels]
        self.descriptor_size = sum(pooled) * len(cfg.pooling.split("+"))
        c5 = math.ceil(cfg.size / (8 * getattr(self.encoder, "stride", 4)))
        code_size = widths[-1] * c5 * c5 if cfg.code_input == "c5" else self.descriptor_size
        self.code = Halves(sum(pooled), code_size, cfg.bits) if cfg.code_halves else nn.Linear(code_size, cfg.bits)
        if cfg.code_norm:
            self.code_norm = nn.BatchNorm1d(cfg.bits, affine=False)
        if cfg.attention != "none":
            self.attention = SpatialAttention(max_pool=cfg.attention == "spatial-max")
        self.classifier = None
        loss = losses.named(cfg.loss)
        if loss and "classifier" in loss.needs:
            self.classifier = nn.Linear(cfg.bits if cfg.cls_target == "code" else self.descriptor_size, n_classes)
        # grey value statistics: the encoder's own; ImageNet's for three channels, as released; one grey pair for one channel
        colour = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
        for name, values in (colour if cfg.channels == 3 else {"mean": [0.3], "std": [0.25]}).items():
            values = getattr(self.encoder, name, values)
            self.register_buffer(name, 255 * torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def encode(self, images: Tensor) -> list[Tensor]:
        """[C2, C3, C4, C5] of images in 0..255, shape (N, channels, H, W); C5 attended where the method does that."""
        x = ((images - self.mean) / self.std).contiguous(memory_format=self.layout)
        features = self.encoder(x)
        if self.cfg.attention != "none":
            features[3] = self.attention(features[3])
        return features

    def forward(self, images: Tensor, *, masks: bool = True) -> Output:
        """``masks=False`` leaves the segmentation branch out where the code does not need it: the same code in less time."""
        features = self.encode(images)
        logits = coarse = None
        if self.segmentation is not None and (masks or self.guided):
            logits, coarse = self.segmentation(features, tuple(images.shape[2:]))
        maps = [self.to_descriptor(features[3]) if level == 5 else features[level - 2] for level in self.cfg.pool_levels]
        descriptor = self.aggregate(maps, coarse)
        if self.cfg.code_input == "c5":
            code = self.code(features[-1].flatten(1))
        else:
            # unit vectors of many dimensions have tiny entries: bring them to unit variance, or tanh starts in its dead centre
            code = self.code(descriptor * descriptor.shape[1] ** 0.5)
        if self.cfg.code_norm:
            code = self.code_norm(code.float())
        return Output(code, descriptor, logits)

    def aggregate(self, maps: list[Tensor], coarse: Tensor | None) -> Tensor:
        """Aggregate feature maps (N, C_i, H_i, W_i) into one descriptor (N, sum C_i), each level L2-normalised."""
        parts = [pool(kind, x, coarse) for kind in self.cfg.pooling.split("+") for x in maps]
        return torch.cat([F.normalize(part.float(), dim=1) for part in parts], 1)


def count_parameters(model: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
