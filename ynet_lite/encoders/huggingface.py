"""Any backbone of the package ``transformers`` as an encoder: ``Config(encoder="hf:microsoft/resnet-18")`` or a folder."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .lite0 import Pretrained

STRIDES = (4, 8, 16, 32)
PREFIX = "hf:"
REMEDY = 'pip install "ynet-lite[transformers]"'


class HuggingFace(Pretrained):
    """(N, 3, H, W) -> [C2, C3, C4, C5] on the grids of strides 4, 8, 16 and 32.

    For each level the stage of the nearest stride gives the map, the deepest where several have it, and is resampled where its
    grid is another one. So a ViT, whose stages all have one stride, gives its last map four times, at four sizes.
    With ``Config.frozen`` = n > 0 everything that the first n levels are computed from stays as it came (all of a ViT).
    """

    def __init__(self, cfg, pretrained: bool = True):
        super().__init__()
        # three numbers for grey images too: subtracting them makes three channels of one
        self.mean, self.std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        self.backbone = load(cfg.encoder.removeprefix(PREFIX), pretrained).float().eval()
        maps = self.backbone(example := torch.zeros(1, 3, cfg.size, cfg.size)).feature_maps
        names, halvings = self.backbone.out_features, [math.log2(cfg.size / x.shape[3]) for x in maps]
        nearest = [min(range(len(maps)), key=lambda i: (abs(halvings[i] - math.log2(s)), -i)) for s in STRIDES]
        used = sorted(set(nearest))
        self.backbone.out_features = [names[i] for i in used]
        self.source = [used.index(i) for i in nearest]
        self.widths = [maps[i].shape[1] for i in nearest]
        self.stages = nn.ModuleList(nn.Identity() for _ in STRIDES)  # what a hook on a level can hold on to
        if cfg.frozen:
            # a backbone does not say which of its parts make a level: the level's gradient does
            sum(x.sum() for x in self(example)[: cfg.frozen]).backward()
            for parameter in self.parameters():
                parameter.requires_grad_(parameter.grad is None).grad = None
            self.frozen = tuple(m for m in self.backbone.modules() if {p.requires_grad for p in m.parameters()} == {False})
        self.train()

    def forward(self, x: Tensor) -> list[Tensor]:
        maps, features = self.backbone(x).feature_maps, []
        for stage, source, stride in zip(self.stages, self.source, STRIDES, strict=True):
            level, size = maps[source], tuple(math.ceil(side / stride) for side in x.shape[2:])
            same = level.shape[2:] == size
            features.append(stage(level if same else F.interpolate(level, size=size, mode="bilinear", align_corners=False)))
        return features


def load(name: str, pretrained: bool) -> nn.Module:
    """The backbone ``name`` (a folder, or a name that the package downloads), giving the maps of all its stages."""
    try:
        from transformers import MODEL_FOR_BACKBONE_MAPPING, AutoConfig
    except ImportError as error:
        raise ModuleNotFoundError(f"encoder 'hf:{name}': transformers is not installed; {REMEDY}") from error
    try:
        about = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"encoder 'hf:{name}': no folder with a config.json, and no name to download") from error
    if type(about) not in MODEL_FOR_BACKBONE_MAPPING:
        raise ValueError(f"encoder 'hf:{name}': transformers has no backbone class for the type {about.model_type!r}")
    # the concrete class: `AutoBackbone.from_pretrained` takes a folder for a name of another library
    kind = MODEL_FOR_BACKBONE_MAPPING[type(about)]
    about.out_features = list(about.stage_names)
    return kind.from_pretrained(name, config=about) if pretrained else kind(about)
