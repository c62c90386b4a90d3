"""The quantisation loss."""

from torch import Tensor


def quantisation_loss(u: Tensor) -> Tensor:
    """Mean of (|u| - 1)^2: distance of each code entry from the nearest of -1 and +1. u (N, K) -> scalar in [0, 1]."""
    return (u.abs() - 1).square().mean()
