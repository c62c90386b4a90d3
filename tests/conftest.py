"""Shared by all tests: drawing without a window, and a handful of drawn cases with a network small enough for them."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from ynet_lite.cases.core import Cases
from ynet_lite.config import Config

# Not through the environment: a kernel of a notebook would inherit that.
matplotlib.use("Agg")


def draw(n: int = 48, size: int = 32, seed: int = 0) -> Cases:
    """Two classes easy to tell apart, a bright disc and a dark square; two cases per patient, four folds."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    images, masks = np.empty((n, 1, size, size), np.uint8), np.zeros((n, size, size), np.uint8)
    labels = np.arange(n) // 2 % 2
    for i, label in enumerate(labels):
        cy, cx = rng.uniform(0.35, 0.65, 2) * size
        radius = rng.uniform(0.15, 0.25) * size
        if label == 0:
            masks[i] = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        else:
            masks[i] = np.maximum(abs(y - cy), abs(x - cx)) < radius
        grey = 90 + 12 * rng.standard_normal((size, size)) + masks[i] * (70.0 if label == 0 else -60.0)
        images[i, 0] = grey.clip(1, 255)
    table = pd.DataFrame(
        {
            "case_id": [f"case-{i:03d}" for i in range(n)],
            "label": np.array(["disc", "square"])[labels],
            "group": [f"patient-{i // 2:03d}" for i in range(n)],
            "fold": [1 + i // 4 % 4 for i in range(n)],
        }
    )
    return Cases(
        images,
        masks,
        np.ones(n, bool),
        labels.astype(np.int64),
        table,
        class_names=("disc", "square"),
        name="tiny",
        fingerprint=f"{seed:04d}{n:04d}{size:08d}",
    )


@pytest.fixture
def tiny_cases() -> Cases:
    """48 grey cases of 32 x 32, drawn anew for every test."""
    return draw()


@pytest.fixture
def draw_cases():
    """`draw`, for another number, size or seed."""
    return draw


@pytest.fixture
def tiny_config() -> Config:
    """A network of a few thousand numbers, two epochs."""
    return Config(size=32, planes=(4, 4, 8, 8), blocks=1, fpn=8, bits=16, epochs=2, batch=8, validation=0.2, validate_every=1)
