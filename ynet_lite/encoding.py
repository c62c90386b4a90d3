"""Encoding: cases in, real codes, descriptors and packed codes out; and distances between them."""

import contextlib

import numpy as np
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .cases.core import Cases
from .checkpoint import Checkpoint
from .config import Ranking, Training
from .hashing import Codes, hamming, pack
from .model import Output, YNet


class _Rounding(TorchFunctionMode):
    """Convolutions and linear layers as autocast makes them: operands and results rounded to bfloat16, sums in float32."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function not in (F.conv2d, F.linear):
            return function(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            args = [value.bfloat16().float() if isinstance(value, torch.Tensor) else value for value in args]
            return function(*args, **(kwargs or {})).bfloat16()


@contextlib.contextmanager
def _precision(cfg: Training):
    device, lower = torch.device(cfg.device).type, cfg.precision == "bfloat16"
    # without instructions for it a training in bfloat16 takes eight times as long as in float32: there rounding stands for it
    able = device != "cpu" or torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with torch.autocast(device, torch.bfloat16, enabled=lower), contextlib.nullcontext() if able or not lower else _Rounding():
        yield


def represent(model: YNet, cfg: Ranking, images: torch.Tensor, masks: bool = False) -> Output:
    """The network's output for images (N, C, H, W) in 0..255; code and descriptor averaged with those of the mirror images where
    ``Config.flip_codes`` says so. Without ``masks`` the logits may be None, which saves time."""
    output = model(images, masks=masks)
    if not cfg.flip_codes:
        return output
    mirrored = model(images.flip(3), masks=False)
    return Output((output.code + mirrored.code) / 2, (output.descriptor + mirrored.descriptor) / 2, output.logits)


@torch.inference_mode()
def encode_floats(model: YNet, cfg: Ranking, cases: Cases, *, masks: bool = False, batch: int = 64) -> dict[str, np.ndarray]:
    """Real codes and descriptors of ``cases``: ``{"code": (N, K), "descriptor": (N, D)}``, float32, always in full precision.

    With ``masks`` also ``"masks"``: the predicted mask, uint8 (N, H, W). The image alone is read: never the true mask or label.
    """
    if len(cases) == 0:
        raise ValueError("encode: no cases; at least one is needed")
    model.eval()
    device = next(model.parameters()).device  # a loaded network lies on the CPU wherever it was trained
    found: dict[str, list] = {"code": [], "descriptor": []} | ({"masks": []} if masks else {})
    for start in range(0, len(cases), batch):
        images = torch.from_numpy(cases.images[start : start + batch]).to(device).float()
        output = represent(model, cfg, images, masks)
        found["code"].append(output.code.float().cpu().numpy())
        found["descriptor"].append(output.descriptor.float().cpu().numpy())
        if masks:
            if output.logits is None:
                raise ValueError("masks: this network has no segmentation branch and predicts no masks")
            found["masks"].append(output.logits.argmax(1).to(torch.uint8).cpu().numpy())
    return {key: np.concatenate(value) for key, value in found.items()}


def encode(checkpoint: Checkpoint, cases: Cases) -> Codes:
    """Packed hash codes of ``cases``."""
    code = encode_floats(checkpoint.model, checkpoint.cfg, cases)["code"]
    return Codes(pack(code), cases.ids, cases.labels, checkpoint.cfg.bits, checkpoint.weights_id())


def distances(cfg: Ranking, queries: dict[str, np.ndarray], database: dict[str, np.ndarray]) -> np.ndarray:
    """(Q, N) distances by ``Config.ranking``: Hamming of the signs, or one minus the cosine of codes or of descriptors."""
    if cfg.ranking == "hamming":
        return hamming(pack(queries["code"]), pack(database["code"]))
    key = "code" if cfg.ranking == "cosine" else "descriptor"
    a, b = (F.normalize(torch.from_numpy(x[key]).double(), dim=1).numpy() for x in (queries, database))
    return 1 - a @ b.T
