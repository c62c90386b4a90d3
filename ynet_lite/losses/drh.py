"""DRH."""

import torch
from torch import Tensor

from .batch import HashLoss
from .common import codes, log_cosh, squared_distance


def drh_loss(z: Tensor, same: Tensor, *, scale: float = 1.0) -> dict[str, Tensor]:
    """Deep Residual Hashing (Conjeti et al., MICCAI 2017, arXiv 1612.05400): retrieval loss after neighbourhood components.

    With h = tanh(z) and p_ij = exp(-d_ij) / sum_{l != i} exp(-d_il), d_ij = ||h_i - h_j||^2, the chance that i picks j as its
    neighbour (Goldberger et al., NIPS 2004):

    - ``retrieval``: 1 - mean_i sum_{j != i, same class} p_ij, in [0, 1];
    - ``quantisation``: 0.05 times the mean of log cosh(|h| - 1) over images and bits (prior of Zhu et al., AAAI 2016);
    - ``balance``: 0.025 (1 - mean over bits of h's variance over the batch) / 2, least where each bit is +1 for half of it;
    - ``orthogonality``: 0.01 times the mean of (H^T H / N - I)^2 over the K x K entries, least where no two bits agree.

    ``scale`` multiplies the distances d_ij, that is the sharpness of the choice of neighbour. Deviations: averages over bits,
    where the paper sums; orthogonality of the *codes*, since a loss sees no layer; balance with the mean taken off and a
    constant added. The paper's idea is kept, but the forms and weights of the last three terms are ours to answer for: they
    follow the paper's description, not a printed equation.
    An image alone in its class adds a constant 1 to the mean. One image: ``retrieval`` is 0.
    """
    z = codes(z, scale, same)
    n, bits = z.shape
    h = torch.tanh(z)
    if n > 1:
        distance = scale * squared_distance(h[:, None], h[None, :])
        itself = torch.eye(n, dtype=torch.bool, device=z.device)
        pick = (-distance).masked_fill(itself, -torch.inf).softmax(1)
        retrieval = 1 - torch.where(same, pick, 0.0).sum(1).mean()
    else:
        retrieval = 0.0 * h.sum()
    variance = h.square().mean(0) - h.mean(0).square()
    correlation = h.T @ h / n - torch.eye(bits, dtype=h.dtype, device=h.device)
    return {
        "retrieval": retrieval,
        "quantisation": 0.05 * log_cosh(h.abs() - 1).mean(),
        "balance": 0.025 * (1 - variance.mean()) / 2,
        "orthogonality": 0.01 * correlation.square().mean(),
    }


# the choice of a neighbour among random codes is nearly certain
DRH = HashLoss(
    "drh",
    "DRH",
    "Conjeti et al., Deep Residual Hashing, MICCAI 2017, arXiv 1612.05400",
    lambda batch, scale: drh_loss(batch.z, batch.same, scale=scale),
)
