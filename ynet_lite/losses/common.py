"""What several losses share: pairs, checks and means."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


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


def pair_rows(z: Tensor) -> tuple[Tensor, Tensor]:
    """Rows i < j of every pair of different images."""
    return torch.triu_indices(len(z), len(z), 1, device=z.device).unbind(0)


def precise(x: Tensor) -> Tensor:
    """x in at least single precision."""
    return x if x.dtype == torch.float64 else x.float()


def codes(z: Tensor, scale: float, same: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
    """z (N, K) in at least single precision, checked together with what belongs to it: same (N, N) bool, labels (N,) int64."""
    if z.ndim != 2 or not z.is_floating_point() or 0 in z.shape:
        raise ValueError(f"real codes must be a float tensor (N, K), N and K at least 1, got {z.dtype} {tuple(z.shape)}")
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be a positive number, got {scale!r}")
    n = len(z)
    if same is not None and (same.shape != (n, n) or same.dtype != torch.bool):
        raise ValueError(f"same must be bool {(n, n)} for {n} codes, got {same.dtype} {tuple(same.shape)}")
    if labels is not None and (labels.shape != (n,) or labels.dtype != torch.int64):
        raise ValueError(f"labels must be int64 ({n},) for {n} codes, got {labels.dtype} {tuple(labels.shape)}")
    return precise(z)


def check_centres(z: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """The centres (C, K) of +-1 in z's type, checked together with the labels."""
    if centres.ndim != 2 or centres.shape[1] != z.shape[1] or not (centres.abs() == 1).all():
        raise ValueError(f"centres must be -1 and +1 of shape (classes, {z.shape[1]}), got {tuple(centres.shape)}")
    if labels.min() < 0 or labels.max() >= len(centres):
        raise ValueError(f"labels must lie in 0..{len(centres) - 1}, got {int(labels.min())}..{int(labels.max())}")
    return centres.to(z.dtype)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(-1)


def mean(values: Tensor) -> Tensor:
    """The mean, and zero (with a gradient of zero) where there is nothing to average."""
    return values.sum() / max(values.numel(), 1)


def log_cosh(x: Tensor) -> Tensor:
    return x + F.softplus(-2 * x) - math.log(2)
