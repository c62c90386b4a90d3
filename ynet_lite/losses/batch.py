"""What a hashing loss is, and what it is given."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """N images of a training batch, K bits, C classes.

    z : (N, K) the real code before any tanh or sign. target : (N, K) tanh(z), or (N, D) the descriptor where the
    configuration says so. labels : (N,) int64. same : (N, N) bool, which pairs are of one class. progress : share of the
    training that is done. margin : Circle loss's m. centres : (C, K) of +-1, where a loss needs them. logits : (N, C) of a
    classifier, where it needs one. overlap : (N, N) IoU of the centred outlines, NaN where one is not known, where a loss needs
    it.
    """

    z: Tensor
    target: Tensor
    labels: Tensor
    same: Tensor
    progress: float = 0.0
    margin: float = 0.25
    centres: Tensor | None = None
    logits: Tensor | None = None
    overlap: Tensor | None = None


@dataclass(frozen=True)
class HashLoss:
    """One loss: ``terms(batch, scale)`` -> named scalar tensors, each multiplied by its own weight already; they are summed.

    name : as in ``Config.loss``. source : the paper. needs : "centres", "classifier", "outlines". scale : the setting that
    ``scale`` is read from, the one constant the loss hangs on most, which is tuned. own : a classification loss of Y-Net
    itself; the others replace it.
    """

    name: str
    title: str
    source: str
    terms: Callable[[Batch, float], dict[str, Tensor]]
    needs: tuple[str, ...] = ()
    scale: str = "rival_scale"
    own: bool = False
