"""The pairwise likelihood loss, ours."""

from torch import Tensor
from torch.nn import functional as F

from .batch import HashLoss
from .common import pair_rows


def pairwise_loss(u: Tensor, same: Tensor, sharpness: float = 0.5) -> Tensor:
    """Negative log-likelihood of pair labels (Li et al., DPSH, IJCAI 2016, arXiv 1511.03855, equation 2).

    L = mean over pairs of log(1 + exp(t)) - s t, with t = sharpness <u_i, u_j> and s = 1 for the same class. DPSH's sharpness
    is 1/2. Deviation: the mean over pairs, not their sum, so that the weight does not depend on the batch; u is tanh-bounded.

    Parameters: u (N, K) in [-1, 1]; same (N, N) bool, or grades in [0, 1] in the place of s. Fewer than two images give zero.
    """
    i, j = pair_rows(u)
    if len(i) == 0:
        return 0.0 * u.sum()
    t = sharpness * (u @ u.T)[i, j]
    return (F.softplus(t) - same[i, j].to(t.dtype) * t).mean()


PAIRWISE = HashLoss(
    "pairwise",
    "pairwise likelihood",
    "Li et al., IJCAI 2016, arXiv 1511.03855",
    lambda batch, scale: {"classification": pairwise_loss(batch.target, batch.same, scale)},
    own=True,
    scale="pair_sharpness",
)
