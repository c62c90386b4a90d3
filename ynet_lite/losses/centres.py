"""Cross-entropy to class centres."""

from torch import Tensor
from torch.nn import functional as F

from .batch import HashLoss


def centre_loss(u: Tensor, labels: Tensor, centres: Tensor, scale: float = 8.0) -> Tensor:
    """Cross-entropy over the cosine similarity to fixed class centres: softmax(scale cos(u, c)) (N, C).

    The centres are Hadamard rows as in CSQ (Yuan et al., CVPR 2020, arXiv 1908.00347); the cosine form of the likelihood is
    OrthoHash's (Hoe et al., NeurIPS 2021, arXiv 2109.14449) without its margin.
    Parameters: u (N, K); labels (N,) int64; centres (C, K) of +-1.
    """
    logits = scale * F.normalize(u, dim=1) @ F.normalize(centres.to(u.dtype), dim=1).T
    return F.cross_entropy(logits, labels)


CENTRES = HashLoss(
    "centres",
    "class centres",
    "Yuan et al., CVPR 2020, arXiv 1908.00347",
    lambda batch, scale: {"classification": centre_loss(batch.target, batch.labels, batch.centres, scale)},
    needs=("centres",),
    own=True,
    scale="centre_scale",
)
