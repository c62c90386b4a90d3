"""Any backbone of the package ``transformers`` as an encoder: ``Config(encoder="hf:microsoft/resnet-18")`` or a folder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import HUGGINGFACE, Config

STRIDES = (4, 8, 16, 32)
REMEDY = 'pip install "ynet-lite[transformers]"'


class HuggingFace(nn.Module):
    """(N, 3, H, W) -> [C2, C3, C4, C5] on the grids of strides 4, 8, 16 and 32.

    For each level the stage of the nearest stride gives the map, the deepest where several have it, and is resampled where its
    grid is another one. So a ViT, whose stages all have one stride, gives its last map four times, at four sizes.
    With ``Config.frozen`` = n > 0 everything that the first n levels are computed from stays as it came (all of a ViT).
    """

    def __init__(self, cfg: Config, pretrained: bool = True):
        super().__init__()
        # three numbers for grey images too: subtracting them makes three channels of one
        self.mean, self.std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        self.backbone = load(cfg.encoder.removeprefix(HUGGINGFACE), pretrained)
        self.backbone.eval()
        example = torch.zeros(1, 3, cfg.size, cfg.size)
        with torch.no_grad():
            maps = self.backbone(example).feature_maps
        names, found = self.backbone.out_features, [math.log2(cfg.size / x.shape[3]) for x in maps]
        nearest = [min(range(len(maps)), key=lambda i: (abs(found[i] - math.log2(s)), -i)) for s in STRIDES]
        used = sorted(set(nearest))
        self.backbone.out_features = [names[i] for i in used]
        self.source = [used.index(i) for i in nearest]
        self.widths = [maps[i].shape[1] for i in nearest]
        self.stages = nn.ModuleList(nn.Identity() for _ in STRIDES)  # what a hook on a level can hold on to
        self.frozen: list[nn.Module] = []
        if cfg.frozen:
            self._freeze(example, cfg.frozen)
        self.train()

    def _freeze(self, example: Tensor, n: int) -> None:
        # a backbone does not say which of its parts make a level: its gradient does
        parameters = list(self.backbone.parameters())
        total = sum(x.sum() for x in self(example)[:n])
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is None)
        for module in self.backbone.modules():
            own = list(module.parameters())
            if own and not any(parameter.requires_grad for parameter in own):
                self.frozen.append(module)

    def train(self, mode: bool = True) -> HuggingFace:
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        maps, features = self.backbone(x).feature_maps, []
        for stage, source, stride in zip(self.stages, self.source, STRIDES, strict=True):
            size = tuple(math.ceil(side / stride) for side in x.shape[2:])
            level = maps[source]
            if level.shape[2:] != size:
                level = F.interpolate(level, size=size, mode="bilinear", align_corners=False)
            features.append(stage(level))
        return features


def load(name: str, pretrained: bool) -> nn.Module:
    """The backbone ``name`` (a folder, or a name that the package downloads), giving the maps of all its stages."""
    try:
        from transformers import MODEL_FOR_BACKBONE_MAPPING, AutoConfig
    except ImportError as error:
        raise ModuleNotFoundError(
            f"encoder '{HUGGINGFACE}{name}': the package transformers is not installed; {REMEDY}"
        ) from error
    try:
        about = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"encoder '{HUGGINGFACE}{name}': no folder with a config.json of transformers, and no name that could be downloaded"
        ) from error
    if type(about) not in MODEL_FOR_BACKBONE_MAPPING:
        raise ValueError(f"encoder '{HUGGINGFACE}{name}': transformers has no backbone class for the type {about.model_type!r}")
    # the concrete class: `AutoBackbone.from_pretrained` takes a folder for a name of another library
    kind = MODEL_FOR_BACKBONE_MAPPING[type(about)]
    about.out_features = list(about.stage_names)
    return kind.from_pretrained(name, config=about) if pretrained else kind(about)
