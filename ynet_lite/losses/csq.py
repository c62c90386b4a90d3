"""CSQ."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .batch import HashLoss
from .common import check_centres, codes, log_cosh


def csq_loss(z: Tensor, labels: Tensor, centres: Tensor, *, quantisation: float = 1e-4, scale: float = 1.0) -> dict[str, Tensor]:
    """Central Similarity Quantization (Yuan et al., CVPR 2020, arXiv 1908.00347, section 3).

    With u = tanh(z) in (-1, 1), h = (1 + u) / 2 and the centre c in {0, 1} of the image's class:
    ``centres``: mean over images and bits of -[c log h + (1 - c) log(1 - h)];
    ``quantisation``: 1e-4 (the weight in public implementations) times the mean of log cosh(|u| - 1).

    ``centres`` (C, K) of -1 and +1, for instance `hashing.hadamard_targets`. ``scale`` multiplies z before the tanh: h is the
    logistic function of 2 scale z, the form computed here because its logarithm cannot overflow. Deviation: the quantisation
    is a mean over bits, not a sum; public implementations have (|u| - 1)^2 in place of log cosh.
    """
    z = codes(z, scale, labels=labels)
    targets = (check_centres(z, labels, centres)[labels] + 1) / 2
    u = torch.tanh(scale * z)
    return {
        "centres": F.binary_cross_entropy_with_logits(2 * scale * z, targets),
        "quantisation": quantisation * log_cosh(u.abs() - 1).mean(),
    }


CSQ = HashLoss(
    "csq",
    "CSQ",
    "Yuan et al., Central Similarity Quantization, CVPR 2020, arXiv 1908.00347",
    lambda batch, scale: csq_loss(batch.z, batch.labels, batch.centres, scale=scale),
    needs=("centres",),
)
