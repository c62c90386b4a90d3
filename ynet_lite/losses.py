"""The losses of Y-Net: each a function that returns one number, and one place that weighs and sums them.

Notation: N images in a batch, K bits, z (N, K) the real code, u = tanh(z) in (-1, 1), y (N,) the class of each image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import rivals
from .config import Config
from .hashing import hadamard_targets
from .model import Output


def segmentation_loss(logits: Tensor, masks: Tensor, has_mask: Tensor, dice: bool = True) -> dict[str, Tensor]:
    """Pixel-wise cross-entropy and, with ``dice``, one minus soft Dice of every class but the background.

    Parameters
    ----------
    logits : (N, M, H, W) real numbers. masks : (N, H, W) int64 in 0..M-1. has_mask : (N,) bool; images without a known outline
        add nothing (an outline known to be empty does). Without any outline both terms are a zero with a gradient of zero.

    Returns
    -------
    dict with ``seg_ce`` (as released) and ``seg_dice`` (our addition: cross-entropy alone under-weights small lesions;
    Milletari et al., 3DV 2016). Dice is taken over the batch, so that an empty mask is no special case.
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


def same_class(labels: Tensor, rule: str = "equal") -> Tensor:
    """(N, N) bool: which pairs count as the same class.

    ``"equal"``: equal labels. ``"product"``: the product of the labels is not zero, as in the released script, where two
    images of class 0 (benign) therefore count as *different*.
    """
    if rule == "equal":
        return labels[:, None] == labels[None, :]
    if rule == "product":
        return labels[:, None] * labels[None, :] != 0
    raise ValueError(f"Config.same_class: {rule!r}; known are 'equal' and 'product'")


def _pairs(n: int, device) -> tuple[Tensor, Tensor]:
    return torch.triu_indices(n, n, 1, device=device).unbind(0)


def circle_loss(features: Tensor, same: Tensor, margin: float = 0.25, gamma: float = 32.0) -> Tensor:
    """Circle loss on all pairs of a batch (Sun et al., CVPR 2020, arXiv 2002.10857, equation 6).

    L = softplus( LSE_n gamma a_n (s_n - m) + LSE_p -gamma a_p (s_p - 1 + m) ), with s the cosine similarity,
    a_p = max(0, 1 + m - s_p), a_n = max(0, s_n + m) (both without gradient), LSE = log-sum-exp.

    Parameters: features (N, D); same (N, N) bool. A batch without a positive or without a negative pair gives zero, because
    the loss compares the two. Released scale: gamma = 32 in the notebooks, 1 in the script.
    """
    i, j = _pairs(len(features), features.device)
    unit = F.normalize(features.float(), dim=1)
    s = (unit[i] * unit[j]).sum(1)
    positive = same[i, j]
    if positive.all() or not positive.any():
        return 0.0 * s.sum()
    s_p, s_n = s[positive], s[~positive]
    a_p = (1 + margin - s_p).detach().clamp_min(0)
    a_n = (s_n + margin).detach().clamp_min(0)
    z_p = -gamma * a_p * (s_p - (1 - margin))
    z_n = gamma * a_n * (s_n - margin)
    return F.softplus(torch.logsumexp(z_n, 0) + torch.logsumexp(z_p, 0))


def pairwise_loss(u: Tensor, same: Tensor, sharpness: float = 0.5) -> Tensor:
    """Negative log-likelihood of pair labels (Li et al., DPSH, IJCAI 2016, arXiv 1511.03855, equation 2).

    L = mean over pairs of log(1 + exp(t)) - s t, with t = sharpness <u_i, u_j> and s = 1 for the same class. DPSH's sharpness
    is 1/2. Deviation: the mean over pairs, not their sum, so that the weight does not depend on the batch; u is tanh-bounded.

    Parameters: u (N, K) in [-1, 1]; same (N, N) bool. Fewer than two images give zero.
    """
    i, j = _pairs(len(u), u.device)
    if len(i) == 0:
        return 0.0 * u.sum()
    t = sharpness * (u @ u.T)[i, j]
    return (F.softplus(t) - same[i, j].to(t.dtype) * t).mean()


def centre_loss(u: Tensor, labels: Tensor, centres: Tensor, scale: float = 8.0) -> Tensor:
    """Cross-entropy over the cosine similarity to fixed class centres: softmax(scale cos(u, c)) (N, C).

    The centres are Hadamard rows as in CSQ (Yuan et al., CVPR 2020, arXiv 1908.00347); the cosine form of the likelihood is
    OrthoHash's (Hoe et al., NeurIPS 2021, arXiv 2109.14449) without its margin.
    Parameters: u (N, K); labels (N,) int64; centres (C, K) of +-1.
    """
    logits = scale * F.normalize(u, dim=1) @ F.normalize(centres.to(u.dtype), dim=1).T
    return F.cross_entropy(logits, labels)


def quantisation_loss(u: Tensor) -> Tensor:
    """Mean of (|u| - 1)^2: distance of each code entry from the nearest of -1 and +1. u (N, K) -> scalar in [0, 1]."""
    return (u.abs() - 1).square().mean()


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
        """The terms of the deep hashing loss named by ``Config.rival`` (`ynet_lite.rivals`), on the real code."""
        cfg, z = self.cfg, output.code.float()
        same, scale = same_class(labels, cfg.same_class), cfg.rival_scale
        if cfg.rival in ("dsh", "dpsh", "drh", "ash"):
            loss = {"dsh": rivals.dsh_loss, "dpsh": rivals.dpsh_loss, "drh": rivals.drh_loss, "ash": rivals.ash_loss}[cfg.rival]
            return loss(z, same, scale=scale)
        if cfg.rival == "hashnet":
            return rivals.hashnet_loss(z, same, beta=rivals.hashnet_beta(self.progress), scale=scale)
        if cfg.rival == "ath":
            return rivals.ath_loss(z, same, labels, self.logits(output, classifier), scale=scale)
        loss = {"csq": rivals.csq_loss, "orthohash": rivals.orthohash_loss}[cfg.rival]
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
