"""The losses of Y-Net: each a function that returns one number, and one place that weighs and sums them.

Notation: N images in a batch, K bits, z (N, K) the real code, u = tanh(z) in (-1, 1), y (N,) the class of each image.
"""

import torch
from torch import Tensor, nn

from ..hashing import hadamard_targets
from ..model import Output
from ..overlap import centred_iou
from . import Batch, named
from .common import same_class
from .quantisation import quantisation_loss
from .segmentation import segmentation_loss
from .weights import LossWeights


class UnifiedLoss(nn.Module):
    """L = |a| scale L_cls + |1 - a| L_seg + w_q L_quant: the paper's unified loss, with every term named.

    ``a`` is fixed by default. As a trained parameter (``balance_trainable``) it runs to whichever loss is smaller, because the
    weighted sum of two losses is least where all weight is on the smaller one: kept as a switch to show just that.
    """

    def __init__(self, cfg: LossWeights, n_classes: int):
        super().__init__()
        self.cfg = cfg
        a = torch.tensor(float(cfg.balance))
        if cfg.balance_trainable:
            self.a = nn.Parameter(a)
        else:
            self.register_buffer("a", a)
        self.progress = 0.0  # share of the training that is done, set by the trainer: HashNet sharpens its codes with it
        self.loss = named(cfg.loss)
        if self.loss and "centres" in self.loss.needs:
            self.register_buffer("centres", torch.from_numpy(hadamard_targets(n_classes, cfg.bits)))

    def forward(
        self, output: Output, masks: Tensor, has_mask: Tensor, labels: Tensor, classifier: nn.Module | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """-> (weighted sum, the unweighted terms by name)."""
        cfg, terms = self.cfg, {}
        total = output.code.new_zeros((), dtype=torch.float32)
        if self.loss:  # on the code or (as released) on the descriptor
            z, on_code, logits, overlap = output.code.float(), cfg.cls_target == "code", None, None
            u = torch.tanh(z)
            if "classifier" in self.loss.needs:
                # on the descriptor scaled as before the code layer: a unit vector has tiny entries
                logits = classifier(u if on_code else output.descriptor.float() * output.descriptor.shape[1] ** 0.5)
            if "outlines" in self.loss.needs:
                outlines = masks.cpu().numpy()
                overlap = torch.from_numpy(centred_iou(outlines, outlines)).to(masks.device, torch.float32)
                overlap = overlap.masked_fill(~(has_mask[:, None] & has_mask), torch.nan)
            target = u if on_code else output.descriptor.float()
            same, centres = same_class(labels, cfg.same_class), getattr(self, "centres", None)
            batch = Batch(z, target, labels, same, self.progress, cfg.circle_margin, centres, logits, overlap)
            parts = self.loss.terms(batch, getattr(cfg, self.loss.scale) if self.loss.scale else 1.0)
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
