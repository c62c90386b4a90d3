"""Which pixels a code is made of: Grad-CAM on a stage of the encoder, for a class or for the similarity to another code.

Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) comes from captum; here are what is asked of the network (`class_score`,
`similarity_to`) and the way back to the image's grid. How well maps find the lesion is measured in `ynet_lite.paper.ambiguity`.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from captum.attr import LayerGradCam, LayerGradientXActivation
from torch import Tensor

from .config import Ranking
from .hashing import sign_bits
from .model import LEVELS, Network, Output, YNet

#: One number per image of a batch, (N,), from the output of the network.
Target = Callable[[Output], Tensor]


def _agreement(code: Tensor, direction: np.ndarray) -> Tensor:
    if code.shape[1] != len(direction):
        raise ValueError(f"target: made for codes of {len(direction)} bits, but the network gives {code.shape[1]}")
    return torch.tanh(code) @ torch.as_tensor(direction, dtype=code.dtype, device=code.device)


def similarity_to(query_code) -> Target:
    """How near the code is to a given one: ``sum_k tanh(z_k) q_k / K``, in (-1, 1).

    tanh(z) is the code before the sign, which has no gradient. For codes of -1 / +1 the value is ``1 - 2 d / K``, d the Hamming
    distance. ``query_code``: real (K,), its signs count. Returns a target for `grad_cam`.
    """
    bits = sign_bits(np.asarray(query_code)[None])[0]
    direction = np.where(bits, 1, -1) / len(bits)
    return lambda output: _agreement(output.code, direction)


def class_score(database_codes, labels, c: int) -> Target:
    """How strongly the database's codes vote for class c: mean similarity to class c minus the mean to all others.

    ``sum_k tanh(z_k) (mean_{i in c} b_ik - mean_{i not in c} b_ik) / K``, in (-2, 2). A soft form of the vote of the nearest
    cases, with a gradient everywhere. ``database_codes``: real (M, K), signs count; ``labels``: int (M,). Returns a target for
    `grad_cam`. Where the database has no other class the second mean is 0; without a case of c: ``ValueError``.
    """
    signs, labels = np.where(sign_bits(database_codes), 1, -1), np.asarray(labels)
    own = labels == c
    if not own.any():
        raise ValueError(f"class_score: no code of class {c}; the database has classes {np.unique(labels).tolist()}")
    direction = signs[own].mean(axis=0)
    if not own.all():
        direction = direction - signs[~own].mean(axis=0)
    direction = direction / signs.shape[1]
    return lambda output: _agreement(output.code, direction)


def deepest_level(cfg: Network) -> int:
    """The deepest stage that passes a gradient to the code: maps of deeper ones are zero for a target on the code.

    With lesion-weighted pooling the predicted mask steers the pooling but passes no gradient, so stages deeper than
    ``cfg.pool_levels`` act on the code through the mask alone, which Grad-CAM cannot see.
    """
    through_all = cfg.code_input == "c5" or "selfpool" in cfg.pooling.split("+")
    return max(LEVELS) if through_all else max(cfg.pool_levels)


def _scores(model: YNet, target: Target, mirrored: bool, images: Tensor) -> Tensor:
    """Images in, one number per image out: what captum asks for. Averages over the mirror image where the code does."""
    n = len(images)
    output = model(torch.cat([images, images.flip(3)]) if mirrored else images)
    if mirrored:
        code, descriptor = ((both[:n] + both[n:]) / 2 for both in output[:2])
        output = Output(code, descriptor, None if output.logits is None else output.logits[:n])
    value = target(output)
    if not isinstance(value, Tensor) or value.shape != (n,):
        raise ValueError(f"target: must return one number per image, shape {(n,)}, got {getattr(value, 'shape', value)}")
    # a target that does not depend on the image has a gradient of zero, not none
    return value + 0 * output.code.sum(1)


def grad_cam(
    model: YNet, cfg: Ranking, images: np.ndarray, target: Target, level: int = 5, batch: int = 32, *, elementwise: bool = False
) -> np.ndarray:
    """Grad-CAM of ``target`` on stage C``level`` of the encoder, on the image's grid.

    ``M = relu(sum_c a_c A_c)``, ``a_c`` = mean over the cells of d target / d A_c, A the stage's feature maps (Selvaraju et
    al., equations 1 and 2); upsampled bilinearly, each map divided by its maximum. Cell (i, j) of a stage of stride s lies at
    pixel (s i, s j), the middle of what it can read. That was measured (numbers in figures/ambiguity.md): what the cells of Y-Net
    and of its twin do read lies nearer to this place than to the middle of the cell's s x s block. It does not lie exactly there,
    and on a coarse stage half a cell changes what a map covers.

    Parameters
    ----------
    model : network in evaluation mode; on return its weights, gradients, flags and hooks are as before.
    cfg : how its codes are made. With ``flip_codes`` the code is the mean over image and mirror image; the map is the sum of
        both passes' maps.
    images : uint8 (N, C, H, W).
    target : `class_score`, `similarity_to`, or any function of the network's `Output` that gives one number per image.
    level : 2 (finest) to 5 (coarsest). Stages deeper than `deepest_level` give zeros for a target on the code.
    batch : images per pass; changes memory, not maps.
    elementwise : leave out the mean over cells, ``M = relu(sum_c (d target / d A_c) A_c)`` cell by cell: HiResCAM (Draelos and
        Carin, 2020, arXiv 2011.08891). Grad-CAM spreads each channel's weight evenly over the map and therefore cannot show
        *where* a pooling looks; with lesion-weighted pooling or R-MAC this one can.

    Returns
    -------
    float32 (N, H, W) in [0, 1]; zeros where nothing speaks for the target (zero gradient, or no positive part).

    Raises ``ValueError`` for a network in training mode, an unknown level, or images that do not fit.
    """
    if level not in LEVELS:
        raise ValueError(f"grad_cam: level {level!r}; the stages are {', '.join(map(str, LEVELS))}")
    if batch < 1:
        raise ValueError(f"grad_cam: batch must be at least 1, got {batch!r}")
    if any(module.training for module in model.modules()):
        raise ValueError("grad_cam: in training mode images of a batch influence each other; call model.eval() first")
    images, channels = np.asarray(images), model.cfg.channels
    if images.ndim != 4 or images.shape[1] != channels or images.dtype != np.uint8:
        raise ValueError(f"grad_cam: images must be uint8 (N, {channels}, H, W), got {images.dtype} {images.shape}")
    device = next(model.parameters()).device
    size = images.shape[2:]
    maps = np.zeros((len(images), *size), np.float32)
    stride = getattr(model.encoder, "stride", 4) * 2 ** (level - 2)  # pixels from one cell of the stage to the next
    function, layer = partial(_scores, model, target, cfg.flip_codes), model.encoder.stages[level - 2]
    # a stage that the target does not depend on gets a gradient of zeros
    unused = {"allow_unused": True, "materialize_grads": True}
    with torch.inference_mode(False), torch.enable_grad():
        for start in range(0, len(images), batch):
            part = torch.from_numpy(images[start : start + batch]).to(device).float().requires_grad_()
            if elementwise:
                weighted = LayerGradientXActivation(function, layer).attribute(part, grad_kwargs=unused)
                coarse = weighted.detach().sum(1).relu()
            else:
                coarse = LayerGradCam(function, layer).attribute(part, relu_attributions=True, grad_kwargs=unused).detach()[:, 0]
            fine = _upsample(coarse, size, stride)
            if cfg.flip_codes:
                fine = fine[: len(part)] + fine[len(part) :].flip(2)
            highest = fine.amax((1, 2), keepdim=True)
            maps[start : start + batch] = (fine / highest.where(highest > 0, 1)).cpu().numpy()
    return maps


def _upsample(coarse: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Bilinear, (N, h, w) to (N, *size); cell (i, j) lies at pixel (stride i, stride j); constant beyond."""

    def weights(cells: int, pixels: int) -> Tensor:
        at = (torch.arange(pixels, device=coarse.device) / stride).clamp(0, cells - 1)
        return (1 - (at[:, None] - torch.arange(cells, device=coarse.device)).abs()).clamp(min=0).to(coarse.dtype)

    rows, columns = (weights(cells, pixels) for cells, pixels in zip(coarse.shape[1:], size, strict=True))
    return rows @ coarse @ columns.T
