"""How a trained network comes into the package: `ship` wrote what lies in ``ynet_lite/weights``."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from ynet_lite.cases.core import Cases
from ynet_lite.checkpoint import Checkpoint
from ynet_lite.encoding import encode
from ynet_lite.search import WEIGHTS


def ship(model: str, checkpoint: Checkpoint, database: Cases, folder: str | Path = WEIGHTS) -> tuple[Path, Path]:
    """Write a network and the codes of its database into the package, for `ynet_lite.search` before any training.

    Weights are rounded to half precision (half the size); the codes are made with the rounded weights, so that they belong
    together. No path of this machine is kept.
    """
    cfg = checkpoint.cfg.but(data_dir="", manifest="")
    half = replace(checkpoint, model=deepcopy(checkpoint.model).half(), cfg=cfg)
    weights = half.save(Path(folder) / f"{model}.safetensors")
    codes = encode(Checkpoint.load(weights), database)
    return weights, codes.save(Path(folder) / f"{model}.codes.npz")
