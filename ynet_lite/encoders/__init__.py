"""Encoders by name: what turns an image into the maps C2..C5, of strides 4, 8, 16 and 32 (half of that: `small` with a 3x3 stem).

An encoder is a module with ``widths`` (channels of the four levels), ``stages`` (four modules; the output of ``stages[i]`` is
level C(i+2)) and ``forward(x)`` -> [C2, C3, C4, C5], where x (N, channels, H, W) is normalised. One that was trained on images of
other statistics than ours also has ``mean`` and ``std``, one number a channel, in shares of 255.
"""

from __future__ import annotations

from torch import nn

from ..config import HUGGINGFACE, Config


class Pretrained(nn.Module):
    """What encoders with given weights share: the modules of ``frozen`` stay as they came, batch statistics included."""

    frozen: tuple[nn.Module, ...] = ()

    def train(self, mode: bool = True) -> Pretrained:
        super().train(mode)
        for module in self.frozen:
            module.requires_grad_(False).eval()
        return self


def _small(cfg: Config, pretrained: bool) -> nn.Module:
    from ..model import Encoder  # here, because model reads this module

    return Encoder(cfg)


def _lite0(cfg: Config, pretrained: bool) -> nn.Module:
    from .lite0 import Lite0

    return Lite0(cfg, pretrained)


#: name: what makes it of a configuration. ``small`` learns from scratch; `config.ENCODERS` lists the same names.
ALL = {"small": _small, "lite0": _lite0}


def build(cfg: Config, pretrained: bool = True) -> nn.Module:
    """The encoder that ``Config.encoder`` names. ``pretrained=False`` leaves its weights random, for a checkpoint to fill."""
    if cfg.encoder.startswith(HUGGINGFACE):
        from .huggingface import HuggingFace

        return HuggingFace(cfg, pretrained)
    return ALL[cfg.encoder](cfg, pretrained)
