"""The small residual encoders: ours and the released one."""

from torch import Tensor, nn
from torch.nn import functional as F

#: Kernels of a block's convolutions, and its expansion: "bottleneck" as released.
BLOCKS = {"basic": ((3, 3), 1), "bottleneck": ((1, 3, 1), 4)}


class Block(nn.Module):
    """Residual block (He et al., CVPR 2016), its stride in the first 3x3. (N, C_in, H, W) -> (N, C_out, H/stride, W/stride)."""

    def __init__(self, c_in: int, planes: int, c_out: int, stride: int, kernels: tuple[int, ...]):
        super().__init__()
        self.last, c = len(kernels), c_in
        for i, kernel in enumerate(kernels, 1):
            width = c_out if i == self.last else planes
            step = stride if i == kernels.index(3) + 1 else 1
            self.add_module(f"conv{i}", nn.Conv2d(c, width, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(width))
            c = width
        self.shortcut = nn.Identity()
        if stride > 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.last + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y + self.shortcut(x) if i == self.last else y
            y = F.relu(y, inplace=True)
        return y


class Small(nn.Module):
    """Stem and four residual stages. (N, 1 or 3, H, W) -> [C2, C3, C4, C5], each half as wide as the one before."""

    def __init__(self, cfg, pretrained: bool = False):
        super().__init__()
        c, wide = cfg.planes[0], cfg.stem == "conv7-pool"
        kernel = 7 if wide else 3
        self.stem = nn.Sequential(
            nn.Conv2d(cfg.channels, c, kernel, 2, kernel // 2, bias=False), nn.BatchNorm2d(c), nn.ReLU(inplace=True)
        )
        if wide:
            self.stem.append(nn.MaxPool2d(3, 2, 1))
        self.stride = 4 if wide else 2
        kernels, expansion = BLOCKS[cfg.block]
        self.stages, self.widths = nn.ModuleList(), [planes * expansion for planes in cfg.planes]
        for planes, width, stride in zip(cfg.planes, self.widths, (1, 2, 2, 2), strict=True):
            sizes = [(c, stride)] + [(width, 1)] * (cfg.blocks - 1)
            self.stages.append(nn.Sequential(*(Block(c_in, planes, width, step, kernels) for c_in, step in sizes)))
            c = width

    def forward(self, x: Tensor) -> list[Tensor]:
        features, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
