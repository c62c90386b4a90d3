"""HashNet."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .batch import HashLoss
from .common import codes, mean, pair_rows


def hashnet_loss(z: Tensor, same: Tensor, *, beta: float = 1.0, scale: float = 1.0) -> dict[str, Tensor]:
    """HashNet (Cao et al., ICCV 2017, arXiv 1702.00758, equation 4): weighted pair likelihood by continuation.

    L = mean over pairs of  w (log(1 + exp(t)) - s t),  t = alpha <u_i, u_j>,  u = tanh(beta z),
    w = |S| / |S_1| for pairs of the same class and |S| / |S_0| for others (equation 2; one label per image, so c = 1): rare
    pairs weigh as much as common ones, and L is the mean over alike pairs plus the mean over different ones.

    ``beta`` grows from 1 to 7.14, see `HASHNET`; there is no quantisation term because a large beta does its work. alpha = 10 / K
    as released; ``scale`` multiplies it. Deviation: |S_1| and |S_0| are counted in the batch, not in the training set. A kind of
    pair that the batch does not hold adds nothing. Returns ``pairs``.
    """
    z = codes(z, scale, same)
    i, j = pair_rows(z)
    u = torch.tanh(beta * z)
    t = scale * 10 / z.shape[1] * (u[i] * u[j]).sum(1)
    alike = same[i, j]
    return {"pairs": mean(F.softplus(-t[alike])) + mean(F.softplus(t[~alike]))}


#: beta: the released schedule sqrt(1 + 0.005 t) over its 10,000 steps t. Deviation: it grows at every step, not at every 200th.
HASHNET = HashLoss(
    "hashnet",
    "HashNet",
    "Cao et al., HashNet, ICCV 2017, arXiv 1702.00758",
    lambda batch, scale: hashnet_loss(batch.z, batch.same, beta=math.sqrt(1 + 50 * batch.progress), scale=scale),
)
