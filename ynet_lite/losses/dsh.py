"""DSH."""

import torch
from torch import Tensor

from .batch import HashLoss
from .common import codes, mean, pair_rows, squared_distance


def dsh_loss(z: Tensor, same: Tensor, *, margin: float | None = None, scale: float = 1.0) -> dict[str, Tensor]:
    """Deep Supervised Hashing (Liu et al., CVPR 2016, equation 4): contrastive loss and a pull towards -1 and +1.

    L = mean over pairs of  s d / 2 + (1 - s) max(m - d, 0) / 2 + 0.01 (|| |z_i| - 1 ||_1 + || |z_j| - 1 ||_1),
    d = ||z_i - z_j||^2, s = 1 for the same class.

    ``margin``: m, default 2 K as in the paper (two random codes are that far apart; opposite ones 4 K).
    ``scale`` multiplies the pull of alike pairs, s d / 2: the paper's sets have ten classes and more, where one
    pair in ten is alike; with two classes, one of them frequent, more than half are, and as printed all codes fall together.
    Deviation: means instead of sums.
    Returns ``pairs`` and ``quantisation``. One image: ``pairs`` is 0, ``quantisation`` 0.02 || |z| - 1 ||_1.
    Raises ``ValueError`` for wrong shapes or types and a ``scale`` that is not positive, as all losses here.
    """
    z = codes(z, scale, same)
    i, j = pair_rows(z)
    distance, alike = squared_distance(z[i], z[j]), same[i, j]
    margin = 2 * z.shape[1] if margin is None else margin
    pairs = torch.where(alike, scale * distance, (margin - distance).clamp_min(0)) / 2
    # the regulariser stands in the pair's loss for both of its images, so each image counts twice per pair
    return {"pairs": mean(pairs), "quantisation": 0.02 * (z.abs() - 1).abs().sum(1).mean()}


# as printed, all codes fall together where most pairs are alike
DSH = HashLoss(
    "dsh",
    "DSH",
    "Liu et al., Deep Supervised Hashing, CVPR 2016",
    lambda batch, scale: dsh_loss(batch.z, batch.same, scale=scale),
)
