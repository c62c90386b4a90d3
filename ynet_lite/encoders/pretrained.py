"""What encoders with given weights share."""

from __future__ import annotations

from torch import nn


class Pretrained(nn.Module):
    """The modules of ``frozen`` stay as they came, batch statistics included."""

    frozen: tuple[nn.Module, ...] = ()

    def train(self, mode: bool = True) -> Pretrained:
        super().train(mode)
        for module in self.frozen:
            module.requires_grad_(False).eval()
        return self
