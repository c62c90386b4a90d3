"""The methods Y-Net is compared with: deep hashing losses, aggregations of convolutional features, and ITQ.

Only functions and small modules; they know nothing of `Config` or of the training loop. Everything is written from the papers
named in `SOURCES`.

Losses. N images in a batch, K bits; z (N, K) the real code before any tanh or sign; same (N, N) bool, which pairs are of one
class (`losses.same_class`); labels (N,) int64. Each loss returns a dict of named scalar tensors, **already multiplied by its own
weights**: their sum is the loss. Each has one argument ``scale`` > 0, default 1, that multiplies the one inner constant its
result hangs on most (a margin, a sharpness), said in its docstring, so that all rivals can be tuned alike.

Deviations that hold for every loss: sums over pairs, triplets and images are means, so that no weight depends on the size of the
batch; pairs are unordered (i < j) and of different images. A batch of one image has no pair and no triplet: those terms are then
a zero with a gradient of zero. Single-precision or double; lower precision is raised to single.

Aggregations. x (N, C, H, W) >= 0, features after a ReLU; the result (N, C) is L2-normalised, and zero where x is zero everywhere.
Global average and maximum pooling need no function of their own; R-MAC is `model.rmac`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F

#: Method name as in the result rows -> where it comes from.
SOURCES: dict[str, str] = {
    "dsh": "Liu et al., Deep Supervised Hashing, CVPR 2016",
    "dpsh": "Li et al., Deep Pairwise-Supervised Hashing, IJCAI 2016, arXiv 1511.03855",
    "drh": "Conjeti et al., Deep Residual Hashing, MICCAI 2017, arXiv 1612.05400",
    "hashnet": "Cao et al., HashNet, ICCV 2017, arXiv 1702.00758",
    "csq": "Yuan et al., Central Similarity Quantization, CVPR 2020, arXiv 1908.00347",
    "orthohash": "Hoe et al., One Loss for All, NeurIPS 2021, arXiv 2109.14449",
    "ash": "Fang et al., Attention-based Saliency Hashing, BIBM 2020, arXiv 2012.03466",
    "ath": "Fang et al., Attention-based Triplet Hashing, Medical Image Analysis 2021, arXiv 2101.12346",
    "gap": "global average pooling; Babenko and Lempitsky, ICCV 2015, arXiv 1510.07493",
    "mac": "global maximum pooling; Razavian et al., 2014, arXiv 1412.6574",
    "rmac": "Tolias, Sicre and Jegou, Regional Maximum Activations, ICLR 2016, arXiv 1511.05879",
    "crow": "Kalantidis et al., Cross-dimensional Weighting, ECCV workshops 2016, arXiv 1512.04065",
    "cam": "Jimenez et al., Class-Weighted Convolutional Features, BMVC 2017, arXiv 1707.02581",
    "regional-attention": "Kim and Yoon, Regional Attention Based Deep Feature, BMVC 2018",
}


# ---------------------------------------------------------------- shared by the losses


def _precise(x: Tensor) -> Tensor:
    """x in at least single precision."""
    return x if x.dtype == torch.float64 else x.float()


def _codes(z: Tensor, scale: float) -> Tensor:
    """z in at least single precision, checked together with ``scale``."""
    if z.ndim != 2 or not z.is_floating_point() or 0 in z.shape:
        raise ValueError(f"real codes must be a float tensor (N, K), N and K at least 1, got {z.dtype} {tuple(z.shape)}")
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be a positive number, got {scale!r}")
    return _precise(z)


def _check_same(z: Tensor, same: Tensor) -> None:
    if same.shape != (len(z), len(z)) or same.dtype != torch.bool:
        raise ValueError(f"same must be bool {(len(z), len(z))} for {len(z)} codes, got {same.dtype} {tuple(same.shape)}")


def _check_labels(z: Tensor, labels: Tensor) -> None:
    if labels.shape != (len(z),) or labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 ({len(z)},) for {len(z)} codes, got {labels.dtype} {tuple(labels.shape)}")


def _centres(z: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """The centres (C, K) of +-1 in z's type, checked together with the labels."""
    _check_labels(z, labels)
    if centres.ndim != 2 or centres.shape[1] != z.shape[1] or not (centres.abs() == 1).all():
        raise ValueError(f"centres must be -1 and +1 of shape (classes, {z.shape[1]}), got {tuple(centres.shape)}")
    if labels.min() < 0 or labels.max() >= len(centres):
        raise ValueError(f"labels must lie in 0..{len(centres) - 1}, got {int(labels.min())}..{int(labels.max())}")
    return centres.to(z.dtype)


def _pairs(z: Tensor) -> tuple[Tensor, Tensor]:
    """Rows i < j of every pair of different images."""
    return torch.triu_indices(len(z), len(z), 1, device=z.device).unbind(0)


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(-1)


def _mean(values: Tensor) -> Tensor:
    """The mean, and zero (with a gradient of zero) where there is nothing to average."""
    return values.sum() / max(values.numel(), 1)


def _sign(z: Tensor) -> Tensor:
    """-1 and +1 without gradient, sign(0) = +1 as everywhere in the package."""
    return torch.where(z.detach() >= 0, 1.0, -1.0).to(z.dtype)


def _log_cosh(x: Tensor) -> Tensor:
    return x + F.softplus(-2 * x) - math.log(2)


def _contrastive(z: Tensor, same: Tensor, margin: float, alpha: float, scale: float) -> dict[str, Tensor]:
    """DSH's equation 4 with its two parts named, the pull of alike pairs times ``scale``; see `dsh_loss`."""
    _check_same(z, same)
    i, j = _pairs(z)
    distance, alike = _squared_distance(z[i], z[j]), same[i, j]
    pairs = torch.where(alike, scale * distance, (margin - distance).clamp_min(0)) / 2
    # the regulariser stands in the pair's loss for both of its images, so each image counts twice per pair
    return {"pairs": _mean(pairs), "quantisation": 2 * alpha * (z.abs() - 1).abs().sum(1).mean()}


# ---------------------------------------------------------------- deep hashing losses


def dsh_loss(
    z: Tensor, same: Tensor, *, margin: float | None = None, alpha: float = 0.01, scale: float = 1.0
) -> dict[str, Tensor]:
    """Deep Supervised Hashing (Liu et al., CVPR 2016, equation 4): contrastive loss and a pull towards -1 and +1.

    L = mean over pairs of  s d / 2 + (1 - s) max(m - d, 0) / 2 + alpha (|| |z_i| - 1 ||_1 + || |z_j| - 1 ||_1),
    d = ||z_i - z_j||^2, s = 1 for the same class.

    ``margin``: m, default 2 K as in the paper (two random codes are that far apart; opposite ones 4 K). ``alpha``: the
    paper's 0.01. ``scale`` multiplies the pull of alike pairs, s d / 2: the paper's sets have ten classes and more, where one
    pair in ten is alike; with two classes, one of them frequent, more than half are, and as printed all codes fall together.
    Deviation: means instead of sums.
    Returns ``pairs`` and ``quantisation``. One image: ``pairs`` is 0, ``quantisation`` 2 alpha || |z| - 1 ||_1.
    Raises ``ValueError`` for wrong shapes or types and a ``scale`` that is not positive, as all losses here.
    """
    z = _codes(z, scale)
    return _contrastive(z, same, 2 * z.shape[1] if margin is None else margin, alpha, scale)


def dpsh_loss(z: Tensor, same: Tensor, *, eta: float = 0.002, scale: float = 1.0) -> dict[str, Tensor]:
    """Deep Pairwise-Supervised Hashing (Li et al., IJCAI 2016, arXiv 1511.03855, equation 2, relaxed), on real z without tanh.

    L = mean over pairs of  log(1 + exp(t)) - s t,  t = <z_i, z_j> / 2,  plus  eta mean_i ||sgn(z_i) - z_i||^2.

    ``scale`` multiplies the sharpness 1/2. Deviation: means instead of sums. The paper's eta stands before a *sum* over n
    images, beside a sum over n^2 pairs; divided by n^2 it becomes eta / n: 10 / 5,000 = 0.002 in its CIFAR-10 experiment (100
    / 10,500 = 0.0095 on NUS-WIDE), which is the default. sgn(z) carries no gradient. Returns ``pairs`` and ``quantisation``.
    """
    z = _codes(z, scale)
    _check_same(z, same)
    i, j = _pairs(z)
    t = scale / 2 * (z[i] * z[j]).sum(1)
    pairs = F.softplus(t) - torch.where(same[i, j], t, 0.0)
    return {"pairs": _mean(pairs), "quantisation": eta * _squared_distance(z, _sign(z)).mean()}


def drh_loss(
    z: Tensor,
    same: Tensor,
    *,
    quantisation: float = 0.05,
    balance: float = 0.025,
    orthogonality: float = 0.01,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """Deep Residual Hashing (Conjeti et al., MICCAI 2017, arXiv 1612.05400): retrieval loss after neighbourhood components.

    With h = tanh(z) and p_ij = exp(-d_ij) / sum_{l != i} exp(-d_il), d_ij = ||h_i - h_j||^2, the chance that i picks j as its
    neighbour (Goldberger et al., NIPS 2004):

    - ``retrieval``: 1 - mean_i sum_{j != i, same class} p_ij, in [0, 1];
    - ``quantisation``: mean of log cosh(|h| - 1) over images and bits (the bimodal prior of Zhu et al., AAAI 2016);
    - ``balance``: (1 - mean over bits of the variance of h over the batch) / 2, least where each bit is +1 for half the batch;
    - ``orthogonality``: mean of (H^T H / N - I)^2 over the K x K entries, least where no two bits agree.

    ``scale`` multiplies the distances d_ij, that is the sharpness of the choice of neighbour. Deviations: averages over bits,
    where the paper sums; orthogonality of the *codes*, since a loss sees no layer; balance with the mean taken off and a
    constant added. The paper's idea is kept, but the forms and weights of the last three terms are ours to answer for: they
    follow the paper's description, not a printed equation.
    An image alone in its class adds a constant 1 to the mean. One image: ``retrieval`` is 0.
    """
    z = _codes(z, scale)
    _check_same(z, same)
    n, bits = z.shape
    h = torch.tanh(z)
    if n > 1:
        distance = scale * _squared_distance(h[:, None], h[None, :])
        itself = torch.eye(n, dtype=torch.bool, device=z.device)
        pick = (-distance).masked_fill(itself, -torch.inf).softmax(1)
        retrieval = 1 - torch.where(same, pick, 0.0).sum(1).mean()
    else:
        retrieval = 0.0 * h.sum()
    variance = h.square().mean(0) - h.mean(0).square()
    correlation = h.T @ h / n - torch.eye(bits, dtype=h.dtype, device=h.device)
    return {
        "retrieval": retrieval,
        "quantisation": quantisation * _log_cosh(h.abs() - 1).mean(),
        "balance": balance * (1 - variance.mean()) / 2,
        "orthogonality": orthogonality * correlation.square().mean(),
    }


def hashnet_beta(progress: float) -> float:
    """The sharpness beta of HashNet's tanh(beta z) after the share ``progress`` in [0, 1] of the training.

    beta = sqrt(1 + 50 progress), from 1 to 7.14: the released schedule sqrt(1 + 0.005 t) over its 10,000 steps t. Deviation: it
    grows at every step instead of every 200th. Raises ``ValueError`` outside [0, 1].
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must lie in [0, 1], got {progress!r}")
    return math.sqrt(1 + 50 * progress)


def hashnet_loss(z: Tensor, same: Tensor, *, beta: float = 1.0, scale: float = 1.0) -> dict[str, Tensor]:
    """HashNet (Cao et al., ICCV 2017, arXiv 1702.00758, equation 4): weighted pair likelihood by continuation.

    L = mean over pairs of  w (log(1 + exp(t)) - s t),  t = alpha <u_i, u_j>,  u = tanh(beta z),
    w = |S| / |S_1| for pairs of the same class and |S| / |S_0| for others (equation 2; one label per image, so c = 1): rare
    pairs weigh as much as common ones, and L is the mean over alike pairs plus the mean over different ones.

    ``beta``: see `hashnet_beta`; there is no quantisation term because a large beta does its work. alpha = 10 / K as released;
    ``scale`` multiplies it. Deviation: |S_1| and |S_0| are counted in the batch, not in the training set. A kind of pair that
    the batch does not hold adds nothing. Returns ``pairs``.
    """
    z = _codes(z, scale)
    _check_same(z, same)
    if not (beta > 0 and math.isfinite(beta)):
        raise ValueError(f"beta must be a positive number, got {beta!r}")
    i, j = _pairs(z)
    u = torch.tanh(beta * z)
    t = scale * 10 / z.shape[1] * (u[i] * u[j]).sum(1)
    alike = same[i, j]
    return {"pairs": _mean(F.softplus(-t[alike])) + _mean(F.softplus(t[~alike]))}


def csq_loss(z: Tensor, labels: Tensor, centres: Tensor, *, quantisation: float = 1e-4, scale: float = 1.0) -> dict[str, Tensor]:
    """Central Similarity Quantization (Yuan et al., CVPR 2020, arXiv 1908.00347, section 3).

    With u = tanh(z) in (-1, 1), h = (1 + u) / 2 and the centre c in {0, 1} of the image's class:
    ``centres``: mean over images and bits of -[c log h + (1 - c) log(1 - h)];
    ``quantisation``: 1e-4 (the weight in public implementations) times the mean of log cosh(|u| - 1).

    ``centres`` (C, K) of -1 and +1, for instance `hashing.hadamard_targets`. ``scale`` multiplies z before the tanh: h is the
    logistic function of 2 scale z, the form computed here because its logarithm cannot overflow. Deviation: the quantisation
    is a mean over bits, not a sum; public implementations have (|u| - 1)^2 in place of log cosh.
    """
    z = _codes(z, scale)
    targets = (_centres(z, labels, centres)[labels] + 1) / 2
    u = torch.tanh(scale * z)
    return {
        "centres": F.binary_cross_entropy_with_logits(2 * scale * z, targets),
        "quantisation": quantisation * _log_cosh(u.abs() - 1).mean(),
    }


def orthohash_loss(z: Tensor, labels: Tensor, centres: Tensor, *, margin: float = 0.2, scale: float = 1.0) -> dict[str, Tensor]:
    """OrthoHash (Hoe et al., NeurIPS 2021, arXiv 2109.14449): cross-entropy over cosines to fixed binary targets, with a margin.

    L = mean_i of  -log [ exp(s (cos(z_i, c_y) - m)) / (exp(s (cos(z_i, c_y) - m)) + sum_{c != y} exp(s cos(z_i, c))) ].

    ``centres`` (C, K) of -1 and +1, one per class, orthogonal where K allows (`hashing.hadamard_targets`). ``margin``: m = 0.2 as
    released. s = sqrt(K), which is the released 8 at its 64 bits; ``scale`` multiplies it. The paper balances the bits by a batch
    normalisation of the code (`Config.code_norm`), which belongs to the network. Returns ``cosine``. With one class it is 0.
    A code shorter than 1e-6 counts as that much shorter than a unit vector, so that z = 0 has a finite gradient.
    """
    z = _codes(z, scale)
    c = _centres(z, labels, centres)
    bits = z.shape[1]
    cosine = F.normalize(z, dim=1, eps=1e-6) @ c.T / math.sqrt(bits)
    own = F.one_hot(labels, len(c)).to(z.dtype)
    return {"cosine": F.cross_entropy(scale * math.sqrt(bits) * (cosine - margin * own), labels)}


def ash_loss(
    z: Tensor, same: Tensor, *, margin: float | None = None, alpha: float = 0.01, scale: float = 1.0
) -> dict[str, Tensor]:
    """Attention-based Saliency Hashing (Fang et al., arXiv 2012.03466): the pairwise loss on codes of attended features.

    The same contrastive loss as `dsh_loss`, with the margin m = K / 2 and alpha = 0.01 of the authors' code: an unlike pair is
    pushed until an eighth of its bits differ. What makes ASH is the `SpatialAttention` in the network.

    ``scale`` multiplies the pull of alike pairs, as in `dsh_loss`. Deviation: the authors' code divides d by K but leaves m at
    K / 2, a margin that no code of more than 8 bits can reach with -1 and +1; here the margin is for d itself. Returns ``pairs``
    and ``quantisation``.
    """
    z = _codes(z, scale)
    return _contrastive(z, same, z.shape[1] / 2 if margin is None else margin, alpha, scale)


def ath_loss(
    z: Tensor,
    same: Tensor,
    labels: Tensor,
    logits: Tensor,
    *,
    margin: float | None = None,
    classification: float = 3.0,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """Attention-based Triplet Hashing (Fang et al., MedIA 2021, arXiv 2101.12346): triplet cross-entropy.

    ``triplets``: mean over (q, p, n), p of q's class and n of another, of max(0, m + ||z_q - z_p||^2 - ||z_q - z_n||^2);
    ``classification``: 3 times the mean cross-entropy of ``logits`` (N, C), since the authors add it up over q, p and n.

    ``logits`` come from a classifier beside the code layer, on the same features. ``margin``: m = K / 2 as in the authors' code;
    ``scale`` multiplies it. Deviations: all triplets of the batch instead of one drawn per image; the distance is not divided by
    K (see `ash_loss`). The method has no quantisation term. No triplet (one class, or all classes distinct): ``triplets`` is 0.
    """
    z = _codes(z, scale)
    _check_same(z, same)
    _check_labels(z, labels)
    if logits.ndim != 2 or len(logits) != len(z):
        raise ValueError(f"logits must be ({len(z)}, classes) for {len(z)} codes, got {tuple(logits.shape)}")
    m = scale * (z.shape[1] / 2 if margin is None else margin)
    distance = _squared_distance(z[:, None], z[None, :])
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    triplet = (same & ~itself)[:, :, None] & ~same[:, None, :]  # [query, positive, negative]
    # the diagonal counts as no partner, also under a rule by which an image is not alike to itself
    triplet = triplet & ~itself[:, None, :]
    hinge = (m + distance[:, :, None] - distance[:, None, :]).clamp_min(0)
    cross_entropy = F.cross_entropy(_precise(logits), labels)
    return {"triplets": _mean(hinge[triplet]), "classification": classification * cross_entropy}


class SpatialAttention(nn.Module):
    """Spatial attention of ASH (arXiv 2012.03466) and ATH (arXiv 2101.12346). (N, C, H, W) -> (N, C, H, W), attended.

    a = sigmoid(conv 3x3 of [mean over channels, maximum over channels]), without bias; the result is a x. The two papers agree up
    to one detail: ATH pools its features by a 3x3 maximum of stride 1 before (``max_pool=True``), ASH does not.

    ``channels``: C, which the attention does not depend on; it is there to name a wrong input. Raises ``ValueError`` for it.
    """

    def __init__(self, channels: int, max_pool: bool = False):
        super().__init__()
        self.channels = channels
        self.pool = nn.MaxPool2d(3, 1, 1) if max_pool else nn.Identity()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def weights(self, x: Tensor) -> Tensor:
        """The attention map a (N, 1, H, W) in (0, 1) of features that are already pooled."""
        _check_features(x, self.channels)
        return torch.sigmoid(self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))

    def forward(self, x: Tensor) -> Tensor:
        _check_features(x, self.channels)
        x = self.pool(x)
        return self.weights(x) * x


# ---------------------------------------------------------------- aggregation of convolutional features


def _check_features(x: Tensor, channels: int | None = None) -> None:
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"features must be (N, C, H, W), no size 0, got {tuple(x.shape)}")
    if channels is not None and x.shape[1] != channels:
        raise ValueError(f"features must have {channels} channels, got {x.shape[1]}")


def crow_channel_weights(x: Tensor, eps: float = 1e-6) -> Tensor:
    """CroW's weight of each channel (N, C): the rarer a channel is active, the more it counts (arXiv 1512.04065).

    I_k = log((C eps + sum_h Q_h) / (eps + Q_k)), Q_k the share of positions where x_k > 0. No gradient. I_k >= 0.
    """
    _check_features(x)
    active = (x > 0).to(torch.promote_types(x.dtype, torch.float32)).mean((2, 3))
    return torch.log((x.shape[1] * eps + active.sum(1, keepdim=True)) / (eps + active))


def crow(x: Tensor, *, a: float = 2.0, b: float = 2.0, eps: float = 1e-6) -> Tensor:
    """Cross-dimensional weighting (Kalantidis et al., arXiv 1512.04065). x (N, C, H, W) >= 0 -> (N, C).

    f_k = I_k sum over positions of S x_k, with S = (S' / (sum S'^a)^(1/a))^(1/b), S' the sum over channels, and I of
    `crow_channel_weights`; then L2-normalised. a = b = 2 as in the paper. Deviation: without the paper's PCA whitening.
    An image without any activation gives zeros.
    """
    _check_features(x)
    x = _precise(x)
    total = x.sum(1, keepdim=True)
    # divided by its maximum first: powers of very small or large sums would leave the range of single precision
    total = total / total.amax((2, 3), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    # positions without activation weigh nothing, whatever S is there; the floors only keep the gradients of the roots finite
    norm = total.clamp_min(1e-6).pow(a).sum((2, 3), keepdim=True).pow(1 / a)
    spatial = (total / norm).clamp_min(1e-12).pow(1 / b)
    return F.normalize(crow_channel_weights(x, eps) * (spatial * x).sum((2, 3)), dim=1)


def cam_pool(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, top: int = 2) -> Tensor:
    """Class-weighted features (Jimenez et al., BMVC 2017, arXiv 1707.02581, section 3). x (N, C, H, W) >= 0 -> (N, C).

    For each of the ``top`` classes that the classifier finds likeliest: the class activation map sum_k w_k x_k, stretched to
    [0, 1], weighs the positions of a sum pooling, CroW's `crow_channel_weights` weigh the channels, and the vector is
    L2-normalised. The descriptor is the L2-normalised mean of these class vectors.

    ``weight`` (classes, C) and ``bias`` (classes,): the linear classifier on globally averaged features that the network was
    trained with. ``top`` above the number of classes means all of them. A map that is the same everywhere (one position only, no
    activation) prefers none: weight 1. Deviation: without the paper's PCA whitening; it takes 16 to 64 of 1,000 classes.
    """
    _check_features(x)
    if weight.ndim != 2 or weight.shape[1] != x.shape[1]:
        raise ValueError(f"weight must be (classes, {x.shape[1]}), got {tuple(weight.shape)}")
    if bias is not None and bias.shape != (len(weight),):
        raise ValueError(f"bias must be ({len(weight)},), got {tuple(bias.shape)}")
    if top < 1:
        raise ValueError(f"top must be at least 1 class, got {top!r}")
    x = _precise(x)
    weight = weight.to(x.dtype)
    logits = F.linear(x.mean((2, 3)), weight, None if bias is None else bias.to(x.dtype))
    classes = logits.topk(min(top, len(weight)), dim=1).indices
    maps = torch.einsum("ntc,nchw->nthw", weight[classes], x)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    flat = high <= low
    maps = torch.where(flat, 1.0, (maps - low) / torch.where(flat, 1.0, high - low))
    vectors = torch.einsum("nthw,nchw->ntc", maps, x) * crow_channel_weights(x)[:, None]
    return F.normalize(F.normalize(vectors, dim=2).mean(1), dim=1)


class RegionalAttention(nn.Module):
    """R-MAC whose regions are weighted by a learned attention (Kim and Yoon, BMVC 2018). x (N, C, H, W) >= 0 -> (N, C).

    f = sum over regions r of w_r m_r / ||m_r||, L2-normalised; m_r the maximum over the region, and
    w_r = softplus(b_2 + W_2 tanh(b_1 + W_1 [mean over the region, mean over the map])) > 0, the second mean being the context.

    ``levels`` of `model.rmac_regions`; ``hidden``: 64 as in the paper. Deviations: without the paper's PCA whitening of the
    regions; 3 levels as for our R-MAC (their released code: 5, on far larger maps); trained with the network (or on a frozen one,
    as they do: give only these parameters to the optimiser).
    """

    def __init__(self, channels: int, levels: int = 3, hidden: int = 64):
        super().__init__()
        self.channels, self.levels = channels, levels
        self.hidden = nn.Linear(2 * channels, hidden)
        self.out = nn.Linear(hidden, 1)

    def _regions(self, x: Tensor) -> list[Tensor]:
        from .model import rmac_regions  # not at the top: the network builds on this module

        _check_features(x, self.channels)
        found = rmac_regions(x.shape[2], x.shape[3], self.levels)
        return [x[:, :, top : top + side, left : left + side] for top, left, side in found]

    def weights(self, x: Tensor) -> Tensor:
        """The weight of each region, (N, R) > 0, in the order of `model.rmac_regions`."""
        x = _precise(x)
        means = torch.stack([region.mean((2, 3)) for region in self._regions(x)], 1)
        context = x.mean((2, 3))[:, None].expand_as(means)
        return F.softplus(self.out(torch.tanh(self.hidden(torch.cat([means, context], 2)))))[..., 0]

    def forward(self, x: Tensor) -> Tensor:
        maxima = F.normalize(torch.stack([region.amax((2, 3)) for region in self._regions(_precise(x))], 1), dim=2)
        return F.normalize((self.weights(x)[..., None] * maxima).sum(1), dim=1)


# ---------------------------------------------------------------- codes from real descriptors


@dataclass(frozen=True, eq=False)
class ITQ:
    """A fitted iterative quantisation, see `itq`. float64 ``mean`` (D,) and ``projection`` (D, bits), its columns orthonormal."""

    mean: np.ndarray
    projection: np.ndarray

    def project(self, x) -> np.ndarray:
        """Real codes float64 (N, bits) of descriptors (N, D); their sign, with sign(0) = +1, is the code."""
        x = _descriptors(x)
        if x.shape[1] != len(self.mean):
            raise ValueError(f"descriptors must have {len(self.mean)} dimensions, as those of the fit, got {x.shape[1]}")
        return (x - self.mean) @ self.projection


def _descriptors(x) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2:
        raise ValueError(f"descriptors must be (N, D), got {x.shape}")
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise ValueError(f"descriptors: NaN or infinity in {len(bad)} of {len(x)} rows, first rows {bad[:5].tolist()}")
    return x


def itq(descriptors, bits: int, *, seed: int, iterations: int = 50) -> ITQ:
    """Iterative quantisation (Gong and Lazebnik, CVPR 2011, section 2): binary codes for descriptors, without labels.

    The descriptors are centred and projected onto their first ``bits`` principal components, V (N, bits). The rotation R starts
    at random (``seed``) and is improved ``iterations`` times (50 as in the paper): B = sign(V R), then the R that minimises the
    quantisation error ||B - V R||_F^2 for this B (orthogonal Procrustes: R = Y X^T for the singular value decomposition B^T V =
    X S Y^T). No step raises the error; it stops early where B no longer changes, since nothing would change after it.

    ``descriptors`` (N, D): those of the database, never of the queries. Deterministic on one machine (components are
    sign-fixed); the error has many local minima, so that a last digit of the input may lead to other, equally good codes.
    Raises ``ValueError`` for fewer dimensions or fewer descriptors than bits (there are no more components), NaN, fewer than
    one bit or a negative number of iterations.
    """
    x = _descriptors(descriptors)
    if bits < 1 or iterations < 0:
        raise ValueError(f"itq: bits must be at least 1 and iterations at least 0, got {bits} and {iterations}")
    if min(x.shape) < bits:
        raise ValueError(
            f"itq: {bits} bits need at least {bits} descriptors of at least {bits} dimensions, got {x.shape[0]} of {x.shape[1]}"
        )
    # "full": the exact decomposition, the same on every run; sklearn fixes the signs of the components
    pca = PCA(bits, svd_solver="full").fit(x)
    v = (x - pca.mean_) @ pca.components_.T
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((bits, bits)))[0]
    before = None
    for _ in range(iterations):
        positive = v @ rotation >= 0
        if before is not None and np.array_equal(positive, before):
            break
        left, _, right = np.linalg.svd(np.where(positive, 1.0, -1.0).T @ v)
        rotation, before = right.T @ left.T, positive
    return ITQ(pca.mean_, pca.components_.T @ rotation)
