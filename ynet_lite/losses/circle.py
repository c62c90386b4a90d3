"""Circle loss, the classification loss of the paper."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .batch import HashLoss
from .common import pair_rows


def circle_loss(features: Tensor, same: Tensor, margin: float = 0.25, gamma: float = 32.0) -> Tensor:
    """Circle loss on all pairs of a batch (Sun et al., CVPR 2020, arXiv 2002.10857, equation 6).

    L = softplus( LSE_n gamma a_n (s_n - m) + LSE_p -gamma a_p (s_p - 1 + m) ), with s the cosine similarity,
    a_p = max(0, 1 + m - s_p), a_n = max(0, s_n + m) (both without gradient), LSE = log-sum-exp.

    Parameters: features (N, D); same (N, N) bool. A batch without a positive or without a negative pair gives zero, because
    the loss compares the two. Released scale: gamma = 32 in the notebooks, 1 in the script.
    """
    i, j = pair_rows(features)
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


CIRCLE = HashLoss(
    "circle",
    "Circle loss",
    "Sun et al., CVPR 2020, arXiv 2002.10857",
    lambda batch, scale: {"classification": circle_loss(batch.target, batch.same, batch.margin, scale)},
    own=True,
    scale="circle_gamma",
)
