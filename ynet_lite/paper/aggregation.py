"""Aggregated convolutional features of a trained encoder: the rivals that describe an image by pooling C5, with ITQ codes.

One encoder per fold is trained with cross-entropy on its averaged features; every aggregation reads the same C5. What an
aggregation has to learn (regional attention, ITQ) it learns from the database alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from .. import hashing, pooling
from ..cases.core import Cases
from ..config import Config
from ..model import YNet
from ..pooling import rmac


@torch.inference_mode()
def features(model: YNet, cases: Cases, batch: int = 64) -> np.ndarray:
    """C5 of every case in full precision: float32 (N, C, h, w), >= 0."""
    if len(cases) == 0:
        raise ValueError("features: no cases; at least one is needed")
    model.eval()
    device = next(model.parameters()).device
    found = []
    for start in range(0, len(cases), batch):
        images = torch.from_numpy(cases.images[start : start + batch]).to(device).float()
        found.append(model.encode(images)[-1].float().cpu().contiguous().numpy())
    return np.concatenate(found)


def aggregate(
    name: str, x: np.ndarray, *, weights: np.ndarray | None = None, attention: pooling.RegionalAttention | None = None
) -> np.ndarray:
    """C5 maps ``x`` (N, C, h, w) -> unit vectors (N, C), float32, by the aggregation ``name`` (`config.AGGREGATIONS`).

    weights : (classes, C) of the trained classifier, needed by "cam". attention : what `fit_attention` returned, needed by
    "regional-attention".
    """
    maps = torch.from_numpy(x)
    with torch.inference_mode():
        if name == "gap":
            pooled = maps.mean((2, 3))
        elif name == "mac":
            pooled = maps.amax((2, 3))
        elif name == "rmac":
            pooled = rmac(maps)
        elif name == "crow":
            pooled = pooling.crow(maps)
        elif name == "cam":
            if weights is None:
                raise ValueError("aggregate: 'cam' needs the weights of the trained classifier")
            pooled = pooling.cam_pool(maps, torch.from_numpy(weights))
        elif name == "regional-attention":
            if attention is None:
                raise ValueError("aggregate: 'regional-attention' needs an attention that was fitted on the database")
            pooled = torch.cat([attention(part) for part in maps.split(256)])
        else:
            raise ValueError(f"aggregate: {name!r} is not known; known are gap, mac, rmac, crow, cam, regional-attention")
        return F.normalize(pooled, dim=1).numpy()


def fit_attention(
    x: np.ndarray, labels: np.ndarray, *, seed: int, steps: int = 400, batch: int = 64
) -> pooling.RegionalAttention:
    """Train the attention over R-MAC regions by classification, the encoder frozen, on the C5 maps of the database.

    x : (N, C, h, w); labels : (N,). Adam, rate 1e-3 falling to zero as a cosine. Kim & Yoon (BMVC 2018) train theirs on
    ImageNet; here no such data are used by any method.
    """
    n_classes = int(labels.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        attention = pooling.RegionalAttention(x.shape[1])
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
    model: YNet, cfg: Config, queries: Cases, database: Cases, maps: dict | None = None
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
        attention = fit_attention(maps["database"], database.labels, seed=cfg.seed)
    found = {side: aggregate(cfg.aggregation, x, weights=weights, attention=attention) for side, x in maps.items()}
    codes = found
    if cfg.code_source == "itq":
        itq = hashing.itq(found["database"], cfg.bits, seed=cfg.seed)
        codes = {side: itq.project(x) for side, x in found.items()}
    return tuple({"descriptor": found[side], "code": codes[side]} for side in ("queries", "database"))
