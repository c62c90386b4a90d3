"""The segmentation loss."""

import torch
from torch import Tensor
from torch.nn import functional as F


def segmentation_loss(logits: Tensor, masks: Tensor, has_mask: Tensor, dice: bool = True) -> dict[str, Tensor]:
    """Pixel-wise cross-entropy and, with ``dice``, one minus soft Dice of every class but the background.

    logits : (N, M, H, W) real numbers. masks : (N, H, W) int64 in 0..M-1. has_mask : (N,) bool; images without a known outline
    add nothing (an outline known to be empty does). Without any outline both terms are a zero with a gradient of zero.

    Returns ``seg_ce`` (as released) and ``seg_dice`` (our addition: cross-entropy alone under-weights small lesions; Milletari
    et al., 3DV 2016). Dice is taken over the batch, so that an empty mask is no special case.
    """
    if not has_mask.any():
        zero = 0.0 * logits.sum()
        return {"seg_ce": zero, "seg_dice": zero} if dice else {"seg_ce": zero}
    if not has_mask.all():
        logits, masks = logits[has_mask], masks[has_mask]
    logits = logits.float()
    if logits.shape[1] == 2:
        # two classes: the same numbers from the difference of the logits, in a third of the time
        difference, truth = logits[:, 1:] - logits[:, :1], masks[:, None].to(logits.dtype)
        terms = {"seg_ce": F.binary_cross_entropy_with_logits(difference, truth)}
        probability = difference.sigmoid()
    else:
        log_probability = logits.log_softmax(1)
        terms = {"seg_ce": F.nll_loss(log_probability, masks)}
        probability = log_probability[:, 1:].exp()
        truth = torch.stack([masks == c for c in range(1, logits.shape[1])], 1).to(logits.dtype)
    if dice:
        overlap = (probability * truth).sum((0, 2, 3))
        total = probability.sum((0, 2, 3)) + truth.sum((0, 2, 3))
        terms["seg_dice"] = (1 - (2 * overlap + 1) / (total + 1)).mean()
    return terms
