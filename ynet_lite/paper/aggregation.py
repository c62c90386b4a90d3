"""Aggregated convolutional features of a trained encoder: the rivals that describe an image by pooling C5, with ITQ codes.

One encoder per fold is trained with cross-entropy on its averaged features; every aggregation reads the same C5. What an
aggregation has to learn (regional attention, ITQ) it learns from the database alone.

x (N, C, H, W) >= 0 are features after a ReLU; the aggregations return (N, C), L2-normalised, and zero where x is zero everywhere.
"""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F

from ..cases.core import Cases
from ..config import Ranking
from ..losses.common import precise
from ..methods import AGGREGATIONS
from ..model import YNet
from ..pooling import PLAIN, pool, rmac_regions


def crow_channel_weights(x: Tensor) -> Tensor:
    """CroW's weight of each channel (N, C): the rarer a channel is active, the more it counts (arXiv 1512.04065).

    I_k = log((C eps + sum_h Q_h) / (eps + Q_k)), Q_k the share of positions where x_k > 0, eps = 1e-6. No gradient. I_k >= 0.
    """
    eps = 1e-6
    active = (x > 0).to(torch.promote_types(x.dtype, torch.float32)).mean((2, 3))
    return torch.log((x.shape[1] * eps + active.sum(1, keepdim=True)) / (eps + active))


def crow(x: Tensor) -> Tensor:
    """Cross-dimensional weighting (Kalantidis et al., arXiv 1512.04065). x (N, C, H, W) >= 0 -> (N, C).

    f_k = I_k sum over positions of S x_k, with S = (S' / ||S'||)^(1/2), S' the sum over channels, and I of
    `crow_channel_weights`; then L2-normalised. Deviation: without the paper's PCA whitening. An image without any activation
    gives zeros.
    """
    x = precise(x)
    total = x.sum(1, keepdim=True)
    # divided by its maximum first: powers of very small or large sums would leave the range of single precision
    total = total / total.amax((2, 3), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    # positions without activation weigh nothing, whatever S is there; the floors only keep the gradients of the roots finite
    norm = total.clamp_min(1e-6).pow(2).sum((2, 3), keepdim=True).pow(1 / 2)
    spatial = (total / norm).clamp_min(1e-12).pow(1 / 2)
    return F.normalize(crow_channel_weights(x) * (spatial * x).sum((2, 3)), dim=1)


def cam_pool(x: Tensor, weight: Tensor, top: int = 2) -> Tensor:
    """Class-weighted features (Jimenez et al., BMVC 2017, arXiv 1707.02581, section 3). x (N, C, H, W) >= 0 -> (N, C).

    For each of the ``top`` classes that the classifier finds likeliest: the class activation map sum_k w_k x_k, stretched to
    [0, 1], weighs the positions of a sum pooling, CroW's `crow_channel_weights` weigh the channels, and the vector is
    L2-normalised. The descriptor is the L2-normalised mean of these class vectors.

    ``weight`` (classes, C): the linear classifier on globally averaged features that the network was trained with. ``top`` above
    the number of classes means all of them. A map that is the same everywhere (one position only, no activation) prefers none:
    weight 1. Deviation: without the paper's PCA whitening; it takes 16 to 64 of 1,000 classes.
    """
    x = precise(x)
    weight = weight.to(x.dtype)
    classes = F.linear(x.mean((2, 3)), weight).topk(min(top, len(weight)), dim=1).indices
    maps = torch.einsum("ntc,nchw->nthw", weight[classes], x)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    flat = high <= low
    maps = torch.where(flat, 1.0, (maps - low) / torch.where(flat, 1.0, high - low))
    vectors = torch.einsum("nthw,nchw->ntc", maps, x) * crow_channel_weights(x)[:, None]
    return F.normalize(F.normalize(vectors, dim=2).mean(1), dim=1)


class RegionalAttention(nn.Module):
    """R-MAC whose regions are weighted by a learned attention (Kim and Yoon, BMVC 2018). x (N, C, H, W) >= 0 -> (N, C).

    f = sum over regions r of w_r m_r / ||m_r||, L2-normalised; m_r the maximum over the region, and
    w_r = softplus(b_2 + W_2 tanh(b_1 + W_1 [mean over the region, mean over the map])) > 0, the second mean being the context.

    ``hidden``: 64 as in the paper. Deviations: without the paper's PCA whitening of the
    regions; 3 levels as for our R-MAC (their released code: 5, on far larger maps); trained with the network (or on a frozen one,
    as they do: give only these parameters to the optimiser).
    """

    def __init__(self, channels: int, hidden: int = 64):
        super().__init__()
        self.hidden = nn.Linear(2 * channels, hidden)
        self.out = nn.Linear(hidden, 1)

    def _regions(self, x: Tensor) -> list[Tensor]:
        found = rmac_regions(x.shape[2], x.shape[3])
        return [x[:, :, top : top + side, left : left + side] for top, left, side in found]

    def weights(self, x: Tensor) -> Tensor:
        """The weight of each region, (N, R) > 0, in the order of `pooling.rmac_regions`."""
        x = precise(x)
        means = torch.stack([region.mean((2, 3)) for region in self._regions(x)], 1)
        context = x.mean((2, 3))[:, None].expand_as(means)
        return F.softplus(self.out(torch.tanh(self.hidden(torch.cat([means, context], 2)))))[..., 0]

    def forward(self, x: Tensor) -> Tensor:
        maxima = F.normalize(torch.stack([region.amax((2, 3)) for region in self._regions(precise(x))], 1), dim=2)
        return F.normalize((self.weights(x)[..., None] * maxima).sum(1), dim=1)


def itq(descriptors, bits: int, *, seed: int, iterations: int = 50) -> Callable[[np.ndarray], np.ndarray]:
    """Iterative quantisation (Gong and Lazebnik, CVPR 2011, section 2): binary codes for descriptors, without labels.

    The descriptors are centred and projected onto their first ``bits`` principal components, V (N, bits). The rotation R starts
    at random (``seed``) and is improved ``iterations`` times (50 as in the paper): B = sign(V R), then the R that minimises the
    quantisation error ||B - V R||_F^2 for this B (orthogonal Procrustes: R = Y X^T for the singular value decomposition B^T V =
    X S Y^T). No step raises the error; it stops early where B no longer changes, since nothing would change after it.

    ``descriptors`` (N, D): those of the database, never of the queries. Returns the function from descriptors (M, D) to real
    codes (M, bits), float64; their sign, with sign(0) = +1, is the code. Deterministic on one machine (components are
    sign-fixed); the error has many local minima, so that a last digit of the input may lead to other, equally good codes.
    Raises ``ValueError`` (by scikit-learn) for fewer dimensions or fewer descriptors than bits, and for NaN.
    """
    x = np.asarray(descriptors, np.float64)
    # "full": the exact decomposition, the same on every run; sklearn fixes the signs of the components
    pca = PCA(bits, svd_solver="full").fit(x)
    v = (x - pca.mean_) @ pca.components_.T
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((bits, bits)))[0]
    before = None
    for _ in range(iterations):
        positive = v @ rotation >= 0
        if before is not None and np.array_equal(positive, before):
            break
        left, _, right = np.linalg.svd(np.where(positive, 1.0, -1.0).T @ v)
        rotation, before = right.T @ left.T, positive
    mean, projection = pca.mean_, pca.components_.T @ rotation
    return lambda x: (np.asarray(x, np.float64) - mean) @ projection


@torch.inference_mode()
def features(model: YNet, cases: Cases, batch: int = 64) -> np.ndarray:
    """C5, or the level that the network pools, of every case in full precision: float32 (N, C, h, w)."""
    model.eval()
    device, level = next(model.parameters()).device, model.cfg.pool_levels[-1] - 2
    parts = torch.from_numpy(cases.images).split(batch)
    return np.concatenate([model.encode(part.to(device).float())[level].float().cpu().contiguous().numpy() for part in parts])


def aggregate(
    name: str, x: np.ndarray, *, weights: np.ndarray | None = None, attention: RegionalAttention | None = None
) -> np.ndarray:
    """C5 maps ``x`` (N, C, h, w) -> unit vectors (N, C), float32, by the aggregation ``name`` (`methods.AGGREGATIONS`).

    weights : (classes, C) of the trained classifier, needed by "cam". attention : what `fit_attention` returned, needed by
    "regional-attention".
    """
    maps = torch.from_numpy(x)
    with torch.inference_mode():
        if name in PLAIN:
            pooled = pool(name, maps)
        elif name == "crow":
            pooled = crow(maps)
        elif name == "cam":
            pooled = cam_pool(maps, torch.from_numpy(weights))
        elif name == "regional-attention":
            pooled = torch.cat([attention(part) for part in maps.split(256)])
        else:
            raise ValueError(f"aggregate: {name!r} is not known; known are {', '.join(AGGREGATIONS)}")
        return F.normalize(pooled, dim=1).numpy()


def fit_attention(x: np.ndarray, labels: np.ndarray, *, seed: int, steps: int = 400, batch: int = 64) -> RegionalAttention:
    """Train the attention over R-MAC regions by classification, the encoder frozen, on the C5 maps of the database.

    x : (N, C, h, w); labels : (N,). Adam, rate 1e-3 falling to zero as a cosine. Kim & Yoon (BMVC 2018) train theirs on
    ImageNet; here no such data are used by any method.
    """
    n_classes = int(labels.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        attention = RegionalAttention(x.shape[1])
        classifier = torch.nn.Linear(x.shape[1], n_classes)
    maps, y = torch.from_numpy(x), torch.from_numpy(labels)
    parameters = [*attention.parameters(), *classifier.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(maps), (min(batch, len(maps)),), generator=generator)
        pooled = F.normalize(attention(maps[rows]), dim=1)
        loss = F.cross_entropy(classifier(pooled * x.shape[1] ** 0.5), y[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return attention.eval()


def describe(
    model: YNet, cfg: Ranking, queries: Cases, database: Cases, maps: dict | None = None, *, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Descriptors, and codes where ``Config.code_source`` is "itq", of both sides: ``{"descriptor": (N, D), "code": (N, K)}``.

    ``maps`` may hold ``{"queries": ..., "database": ...}`` from an earlier call on the same network; it is filled where empty.
    Without ITQ the "code" is the descriptor itself: it is ranked by cosine and never packed.
    """
    maps = {} if maps is None else maps
    for side, cases in (("queries", queries), ("database", database)):
        if side not in maps:
            maps[side] = features(model, cases)
    weights = model.classifier.weight.detach().cpu().numpy() if model.classifier is not None else None
    attention = None
    if cfg.aggregation == "regional-attention":
        attention = fit_attention(maps["database"], database.labels, seed=seed)
    found = {side: aggregate(cfg.aggregation, x, weights=weights, attention=attention) for side, x in maps.items()}
    codes = found
    if cfg.code_source == "itq":
        project = itq(found["database"], model.cfg.bits, seed=seed)
        codes = {side: project(x) for side, x in found.items()}
    return tuple({"descriptor": found[side], "code": codes[side]} for side in ("queries", "database"))
