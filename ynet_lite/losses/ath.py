"""ATH."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .batch import HashLoss
from .common import codes, mean, precise, squared_distance


def ath_loss(z: Tensor, same: Tensor, labels: Tensor, logits: Tensor, *, scale: float = 1.0) -> dict[str, Tensor]:
    """Attention-based Triplet Hashing (Fang et al., MedIA 2021, arXiv 2101.12346): triplet cross-entropy.

    ``triplets``: mean over (q, p, n), p of q's class and n of another, of max(0, m + ||z_q - z_p||^2 - ||z_q - z_n||^2);
    ``classification``: 3 times the mean cross-entropy of ``logits`` (N, C), since the authors add it up over q, p and n.

    ``logits`` come from a classifier beside the code layer, on the same features. m = K / 2 as in the authors' code, times
    ``scale``. Deviations: all triplets of the batch instead of one drawn per image; the distance is not divided by
    K (see `ash_loss`). The method has no quantisation term. No triplet (one class, or all classes distinct): ``triplets`` is 0.
    """
    z = codes(z, scale, same, labels)
    if logits.ndim != 2 or len(logits) != len(z):
        raise ValueError(f"logits must be ({len(z)}, classes) for {len(z)} codes, got {tuple(logits.shape)}")
    distance = squared_distance(z[:, None], z[None, :])
    # the diagonal counts as no partner, also under a rule by which an image is not alike to itself
    other = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    triplet = (same & other)[:, :, None] & (~same & other)[:, None, :]  # [query, positive, negative]
    hinge = (scale * z.shape[1] / 2 + distance[:, :, None] - distance[:, None, :]).clamp_min(0)
    return {"triplets": mean(hinge[triplet]), "classification": 3.0 * F.cross_entropy(precise(logits), labels)}


# random codes of unit variance lie beyond the margin
ATH = HashLoss(
    "ath",
    "ATH",
    "Fang et al., Attention-based Triplet Hashing, Medical Image Analysis 2021, arXiv 2101.12346",
    lambda batch, scale: ath_loss(batch.z, batch.same, batch.labels, batch.logits, scale=scale),
    needs=("classifier",),
)
