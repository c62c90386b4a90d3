"""ASH."""

from torch import Tensor

from .batch import HashLoss
from .dsh import dsh_loss


def ash_loss(z: Tensor, same: Tensor, *, scale: float = 1.0) -> dict[str, Tensor]:
    """Attention-based Saliency Hashing (Fang et al., arXiv 2012.03466): the pairwise loss on codes of attended features.

    The same contrastive loss as `dsh_loss`, with the margin m = K / 2 and alpha = 0.01 of the authors' code: an unlike pair is
    pushed until an eighth of its bits differ. What makes ASH is the `SpatialAttention` in the network.

    ``scale`` multiplies the pull of alike pairs, as in `dsh_loss`. Deviation: the authors' code divides d by K but leaves m at
    K / 2, a margin that no code of more than 8 bits can reach with -1 and +1; here the margin is for d itself. Returns ``pairs``
    and ``quantisation``.
    """
    return dsh_loss(z, same, margin=z.shape[-1] / 2, scale=scale)


# as printed, all codes fall together where most pairs are alike
ASH = HashLoss(
    "ash",
    "ASH",
    "Fang et al., Attention-based Saliency Hashing, BIBM 2020, arXiv 2012.03466",
    lambda batch, scale: ash_loss(batch.z, batch.same, scale=scale),
)
