"""OrthoHash."""

import math

from torch import Tensor
from torch.nn import functional as F

from .batch import HashLoss
from .common import check_centres, codes


def orthohash_loss(z: Tensor, labels: Tensor, centres: Tensor, *, margin: float = 0.2, scale: float = 1.0) -> dict[str, Tensor]:
    """OrthoHash (Hoe et al., NeurIPS 2021, arXiv 2109.14449): cross-entropy over cosines to fixed binary targets, with a margin.

    L = mean_i of  -log [ exp(s (cos(z_i, c_y) - m)) / (exp(s (cos(z_i, c_y) - m)) + sum_{c != y} exp(s cos(z_i, c))) ].

    ``centres`` (C, K) of -1 and +1, one per class, orthogonal where K allows (`hashing.hadamard_targets`). ``margin``: m = 0.2 as
    released. s = sqrt(K), which is the released 8 at its 64 bits; ``scale`` multiplies it. The paper balances the bits by a batch
    normalisation of the code (`Config.code_norm`), which belongs to the network. Returns ``cosine``. With one class it is 0.
    A code shorter than 1e-6 counts as that much shorter than a unit vector, so that z = 0 has a finite gradient.
    """
    z = codes(z, scale, labels=labels)
    c = check_centres(z, labels, centres)
    bits = z.shape[1]
    cosine = F.normalize(z, dim=1, eps=1e-6) @ c.T / math.sqrt(bits)
    own = F.one_hot(labels, len(c)).to(z.dtype)
    return {"cosine": F.cross_entropy(scale * math.sqrt(bits) * (cosine - margin * own), labels)}


ORTHOHASH = HashLoss(
    "orthohash",
    "OrthoHash",
    "Hoe et al., One Loss for All, NeurIPS 2021, arXiv 2109.14449",
    lambda batch, scale: orthohash_loss(batch.z, batch.labels, batch.centres, scale=scale),
    needs=("centres",),
)
