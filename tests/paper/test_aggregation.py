"""Aggregated features of a trained encoder: names, what is learned from the database alone, and what is shared."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ynet_lite.config import Config
from ynet_lite.methods import AGGREGATIONS
from ynet_lite.model import YNet
from ynet_lite.paper import aggregation
from ynet_lite.pooling import rmac


@pytest.fixture
def maps():
    generator = np.random.default_rng(0)
    return generator.random((40, 6, 4, 4)).astype(np.float32)


@pytest.fixture
def labels():
    return np.arange(40) % 3


def test_each_aggregation_gives_unit_vectors_of_the_named_pooling(maps, labels):
    x = torch.from_numpy(maps)
    weights = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    attention = aggregation.fit_attention(maps, labels, seed=0, steps=3)
    plain = {
        "gap": x.mean((2, 3)),
        "mac": x.amax((2, 3)),
        "rmac": rmac(x),
        "crow": aggregation.crow(x),
        "cam": aggregation.cam_pool(x, torch.from_numpy(weights)),
        "regional-attention": attention(x).detach(),
    }
    assert set(plain) == set(AGGREGATIONS)
    for name, wanted in plain.items():
        found = aggregation.aggregate(name, maps, weights=weights, attention=attention)
        assert found.dtype == np.float32 and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        assert np.allclose(found, F.normalize(wanted, dim=1).numpy(), atol=1e-5), name


def test_an_unknown_aggregation_is_refused(maps):
    with pytest.raises(ValueError, match="'vlad' is not known"):
        aggregation.aggregate("vlad", maps)


def test_attention_learns_where_the_class_shows():
    # class 1 differs in one corner only: attention must lift that corner's regions over the rest
    generator = np.random.default_rng(0)
    maps = generator.random((120, 6, 4, 4)).astype(np.float32)
    labels = np.arange(120) % 2
    maps[labels == 1, 0, :2, :2] += 2.0
    maps[labels == 0, 1, :2, :2] += 2.0
    fitted = aggregation.fit_attention(maps, labels, seed=0, steps=300)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = aggregation.RegionalAttention(6)

    def gap(attention):
        found = aggregation.aggregate("regional-attention", maps, attention=attention)
        between = np.linalg.norm(found[labels == 0].mean(0) - found[labels == 1].mean(0))
        return between / found[labels == 0].std(0).mean()

    assert gap(fitted) > gap(fresh)
    again = aggregation.fit_attention(maps, labels, seed=0, steps=300)
    assert all(torch.equal(a, b) for a, b in zip(fitted.parameters(), again.parameters(), strict=True))


def test_describe_fits_on_the_database_alone_and_reuses_maps(tiny_cases, tiny_config):
    cfg = Config.from_preset("quick", "phantom", "rmac-itq", size=tiny_config.size, planes=(4, 8, 8, 16), blocks=1, bits=8)
    torch.manual_seed(0)
    model = YNet(cfg, len(tiny_cases.class_names))
    half = np.arange(len(tiny_cases)) % 2 == 0
    queries, database = tiny_cases.take(half), tiny_cases.take(~half)
    maps: dict = {}
    found, base = aggregation.describe(model, cfg, queries, database, maps, seed=0)
    assert set(maps) == {"queries", "database"}
    assert base["code"].shape == (len(database), 8) and base["descriptor"].shape == (len(database), 16)
    fewer, same = aggregation.describe(model, cfg, queries.take(np.arange(len(queries)) < 3), database, seed=0)
    assert np.array_equal(same["code"], base["code"])  # other queries change nothing
    assert np.allclose(fewer["code"], found["code"][:3], atol=1e-4)
    kept = {key: value.copy() for key, value in maps.items()}
    aggregation.describe(model, cfg.but(aggregation="gap"), queries, database, maps, seed=0)
    assert all(np.array_equal(kept[key], maps[key]) for key in kept)
