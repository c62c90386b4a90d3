"""Cross-entropy of a linear classifier, on the code or beside it."""

from torch import Tensor
from torch.nn import functional as F

from .batch import Batch, HashLoss


def terms(batch: Batch, scale: float) -> dict[str, Tensor]:
    return {"classification": F.cross_entropy(batch.logits, batch.labels)}


CE = HashLoss(
    "ce", "cross-entropy", "the released notebooks with the best numbers", terms, needs=("classifier",), scale="", own=True
)
