"""Queries with their lesion in other tissue, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ynet_lite.config import Config
from ynet_lite.paper import tissue
from ynet_lite.training import train


@pytest.fixture
def sides(draw_cases):
    return draw_cases(96).split(1)


def test_the_lesion_stays_and_the_tissue_is_that_of_another_class(sides):
    queries = sides[1]
    level = np.where(queries.labels == 0, 40, 200)[:, None, None, None]  # tissue that tells the class
    images = np.where(queries.masks[:, None] > 0, 120, level).astype(np.uint8)
    queries = replace(queries, images=images)
    forms = tissue.in_other_tissue(queries, 0)
    assert list(forms) == list(tissue.FORMS) and forms[tissue.PLAIN] is queries
    outside = ~(queries.masks > 0)
    for row, label in enumerate(queries.labels):
        own, other = forms[tissue.BLENDED].images[row, 0], forms[tissue.OTHER].images[row, 0]
        corner = outside[row] & np.pad(np.zeros((28, 28), bool), 2, constant_values=True)
        assert abs(int(np.median(own[corner])) - (40 if label == 0 else 200)) < 5
        assert abs(int(np.median(other[corner])) - (200 if label == 0 else 40)) < 5
    assert (forms[tissue.OTHER].labels == queries.labels).all()
    again = tissue.in_other_tissue(queries, 0)[tissue.OTHER]
    assert (again.images == forms[tissue.OTHER].images).all()


def test_without_an_outline_or_another_class_it_is_refused(sides):
    queries = sides[1]
    with pytest.raises(ValueError, match="has no outline"):
        tissue.in_other_tissue(replace(queries, masks=np.zeros_like(queries.masks)), 0)
    with pytest.raises(ValueError, match="no case of another class"):
        tissue.in_other_tissue(queries.take(np.flatnonzero(queries.labels == 0)), 0)


def test_one_network_is_asked_about_each_form(draw_cases):
    cases = draw_cases(96)
    cfg = Config.from_preset(size=32, planes=(4, 4, 8, 8), blocks=1, fpn=8, bits=16, epochs=1, batch=8, validation=0.2)
    database, queries = cases.split(1)
    checkpoint = train(cfg, database, progress=False)
    found = tissue.measure(cfg, database, tissue.in_other_tissue(queries, 0), checkpoint)
    assert found.groupby("queries").size().to_dict() == dict.fromkeys(tissue.FORMS, len(queries))
    assert found[list(tissue.SCORES)].notna().all(axis=None) and set(found["case_id"]) == set(queries.ids)


def test_costs_by_hand():
    rows = [
        {"run_id": f"{method}-{fold}-{seed}", "method": method, "fold": fold, "seed": seed, "fingerprint": "f"}
        | {"case_id": f"{fold}{case}", "group": f"{fold}{case}", "queries": form, "map": value, "precision": 0.5, "accuracy": 1.0}
        for method, values in (("ynet", (0.9, 0.8, 0.7)), ("ynet-no-seg", (0.9, 0.8, 0.5)))
        for fold in (2, 3)
        for seed in (0, 1)
        for case in range(5)
        for form, value in zip(tissue.FORMS, values, strict=True)
    ]
    said = tissue.lost(pd.DataFrame(rows), n=50)
    assert "costs Y-Net 10.0 [10.0, 10.0] points" in said and "its twin 30.0 [30.0, 30.0]: 20.0 [20.0, 20.0] points less" in said
    table = tissue.table(pd.DataFrame(rows))
    assert table["mAP@10"].tolist() == [".900 ± .000", ".800 ± .000", ".700 ± .000", ".900 ± .000", ".800 ± .000", ".500 ± .000"]
    assert table["runs"].tolist() == [4] * 6 and table["codes of"].iloc[0] == "Y-Net (ours)"
