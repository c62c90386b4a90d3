"""DPSH."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .batch import HashLoss
from .common import codes, mean, pair_rows, squared_distance


def dpsh_loss(z: Tensor, same: Tensor, *, eta: float = 0.002, scale: float = 1.0) -> dict[str, Tensor]:
    """Deep Pairwise-Supervised Hashing (Li et al., IJCAI 2016, arXiv 1511.03855, equation 2, relaxed), on real z without tanh.

    L = mean over pairs of  log(1 + exp(t)) - s t,  t = <z_i, z_j> / 2,  plus  eta mean_i ||sgn(z_i) - z_i||^2.

    ``scale`` multiplies the sharpness 1/2. Deviation: means instead of sums. The paper's eta stands before a *sum* over n
    images, beside a sum over n^2 pairs; divided by n^2 it becomes eta / n: 10 / 5,000 = 0.002 in its CIFAR-10 experiment (100
    / 10,500 = 0.0095 on NUS-WIDE), which is the default. sgn(z) carries no gradient. Returns ``pairs`` and ``quantisation``.
    """
    z = codes(z, scale, same)
    i, j = pair_rows(z)
    t = scale / 2 * (z[i] * z[j]).sum(1)
    pairs = F.softplus(t) - torch.where(same[i, j], t, 0.0)
    sign = torch.where(z.detach() >= 0, 1.0, -1.0).to(z.dtype)  # sign(0) = +1 as everywhere in the package
    return {"pairs": mean(pairs), "quantisation": eta * squared_distance(z, sign).mean()}


DPSH = HashLoss(
    "dpsh",
    "DPSH",
    "Li et al., Deep Pairwise-Supervised Hashing, IJCAI 2016, arXiv 1511.03855",
    lambda batch, scale: dpsh_loss(batch.z, batch.same, scale=scale),
)
