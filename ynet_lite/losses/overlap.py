"""Pairs graded by how well their lesions match: only outlines can teach this."""

import torch
from torch import Tensor

from .batch import HashLoss
from .pairwise import pairwise_loss


def graded(same: Tensor, overlap: Tensor) -> Tensor:
    """How alike pairs count: 0 for two classes, (1 + overlap) / 2 for one, and 1 where an outline is not known.

    same : (N, N) bool. overlap : (N, N) in [0, 1], IoU of the centred outlines, NaN where one of the two is not known.
    """
    return same * torch.nan_to_num((1 + overlap) / 2, nan=1.0)


# the pairwise likelihood with the grade in place of the pair's label: its least is at <u_i, u_j> = logit(grade) / scale
OVERLAP = HashLoss(
    "overlap",
    "pairwise likelihood, graded by overlap",
    "ours; grades of pairs as in Zhang et al., IEEE TMM 2020, arXiv 1803.02987, who fit them by a squared error",
    lambda batch, scale: {"classification": pairwise_loss(batch.target, graded(batch.same, batch.overlap), scale)},
    needs=("outlines",),
    scale="pair_sharpness",
    own=True,
)
