"""The losses of Y-Net: each a function that returns one number, and one place that weighs and sums them.

Notation: N images in a batch, K bits, z (N, K) the real code, u = tanh(z) in (-1, 1), y (N,) the class of each image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Config
from ..hashing import hadamard_targets
from ..model import Output
from . import ash, ath, csq, dpsh, drh, dsh, hashnet, orthohash
from .centres import centre_loss
from .circle import circle_loss
from .common import same_class
from .pairwise import pairwise_loss
from .quantisation import quantisation_loss
from .segmentation import segmentation_loss


class UnifiedLoss(nn.Module):
    """L = |a| scale L_cls + |1 - a| L_seg + w_q L_quant: the paper's unified loss, with every term named.

    ``a`` is fixed by default. As a trained parameter (``balance_trainable``) it runs to whichever loss is smaller, because the
    weighted sum of two losses is least where all weight is on the smaller one: kept as a switch to show just that.
    """

    def __init__(self, cfg: Config, n_classes: int):
        super().__init__()
        self.cfg = cfg
        a = torch.tensor(float(cfg.balance))
        if cfg.balance_trainable:
            self.a = nn.Parameter(a)
        else:
            self.register_buffer("a", a)
        self.progress = 0.0  # share of the training that is done, set by the trainer: HashNet sharpens its codes with it
        if cfg.cls_loss == "centres" or cfg.rival in ("csq", "orthohash"):
            targets = hadamard_targets(n_classes, cfg.bits, seed=0)
            self.register_buffer("centres", torch.from_numpy(np.asarray(targets, dtype=np.float32)))

    def classification(self, output: Output, labels: Tensor, classifier: nn.Module | None) -> Tensor:
        """The classification loss named by ``Config.cls_loss``, on the code or (as released) on the descriptor."""
        cfg = self.cfg
        u = torch.tanh(output.code.float())
        target = u if cfg.cls_target == "code" else output.descriptor.float()
        same = same_class(labels, cfg.same_class)
        if cfg.cls_loss == "pairwise":
            return pairwise_loss(target, same, cfg.pair_sharpness)
        if cfg.cls_loss == "circle":
            return circle_loss(target, same, cfg.circle_margin, cfg.circle_gamma)
        if cfg.cls_loss == "ce" and cfg.cls_target == "descriptor":
            return F.cross_entropy(self.logits(output, classifier), labels)
        if cfg.cls_loss == "ce":
            return F.cross_entropy(classifier(u), labels)
        return centre_loss(target, labels, self.centres, cfg.centre_scale)

    def logits(self, output: Output, classifier: nn.Module) -> Tensor:
        """(N, classes) of a classifier on the descriptor, scaled as before the code layer: a unit vector has tiny entries."""
        return classifier(output.descriptor.float() * output.descriptor.shape[1] ** 0.5)

    def rival(self, output: Output, labels: Tensor, classifier: nn.Module | None) -> dict[str, Tensor]:
        """The terms of the deep hashing loss named by ``Config.rival`` (`ynet_lite.losses`), on the real code."""
        cfg, z = self.cfg, output.code.float()
        same, scale = same_class(labels, cfg.same_class), cfg.rival_scale
        if cfg.rival in ("dsh", "dpsh", "drh", "ash"):
            loss = {"dsh": dsh.dsh_loss, "dpsh": dpsh.dpsh_loss, "drh": drh.drh_loss, "ash": ash.ash_loss}[cfg.rival]
            return loss(z, same, scale=scale)
        if cfg.rival == "hashnet":
            return hashnet.hashnet_loss(z, same, beta=hashnet.hashnet_beta(self.progress), scale=scale)
        if cfg.rival == "ath":
            return ath.ath_loss(z, same, labels, self.logits(output, classifier), scale=scale)
        loss = {"csq": csq.csq_loss, "orthohash": orthohash.orthohash_loss}[cfg.rival]
        return loss(z, labels, self.centres, scale=scale)

    def forward(
        self, output: Output, masks: Tensor, has_mask: Tensor, labels: Tensor, classifier: nn.Module | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """-> (weighted sum, the unweighted terms by name)."""
        cfg, terms = self.cfg, {}
        total = output.code.new_zeros((), dtype=torch.float32)
        if cfg.cls_loss != "none":
            terms["classification"] = self.classification(output, labels, classifier)
            total = total + self.a.abs() * cfg.cls_scale * terms["classification"]
        if cfg.rival:
            parts = self.rival(output, labels, classifier)
            terms |= parts
            total = total + self.a.abs() * cfg.cls_scale * sum(parts.values())
        if cfg.uses_masks:
            parts = segmentation_loss(output.logits, masks, has_mask, cfg.dice)
            terms |= parts
            total = total + (1 - self.a).abs() * sum(parts.values())
        if cfg.quant_weight:
            terms["quantisation"] = quantisation_loss(torch.tanh(output.code.float()))
            total = total + cfg.quant_weight * terms["quantisation"]
        return total, terms
