"""What queries with their lesion in other tissue cost."""

from __future__ import annotations

import pandas as pd

from ynet_lite.paper import tissue


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
