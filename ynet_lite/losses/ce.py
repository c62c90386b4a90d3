"""Cross-entropy of a linear classifier, on the code or beside it."""

from torch.nn import functional as F

from .batch import HashLoss

CE = HashLoss(
    "ce",
    "cross-entropy",
    "the released notebooks with the best numbers",
    lambda batch, scale: {"classification": F.cross_entropy(batch.logits, batch.labels)},
    needs=("classifier",),
    scale="",
    own=True,
)
