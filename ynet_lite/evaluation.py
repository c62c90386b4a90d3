"""A trained network against a split: every metric, per-query values and codes."""

import numpy as np
import pandas as pd

from . import metrics, overlap
from .cases.core import Cases
from .checkpoint import Checkpoint, marks
from .config import Ranking
from .encoding import distances, encode_floats
from .hashing import Codes, pack


def evaluate_checkpoint(
    checkpoint: Checkpoint, cfg: Ranking, database: Cases, queries: Cases, encoded: tuple[dict, dict] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Codes]]:
    """All metrics of one trained network: (values [metric, k, value], values per query and patient, codes of both sides).

    ``encoded``: codes and descriptors of queries and database that something else than the network made. Raises ``ValueError``
    for queries whose patient or picture the network was trained on: their score would say nothing of new cases.
    """
    seen = set(checkpoint.trained_on)
    again = [name for name, both in zip(queries.ids, marks(queries), strict=True) if seen.intersection(both)]
    if again:
        raise ValueError(
            f"evaluate: the network was trained on the patient or the picture of {len(again)} of {len(queries)} queries, first "
            f"{', '.join(again[:3])}; a score of these says nothing, take others"
        )
    # Dice is the lesion's: queries without a lesion, or with an unknown outline, have none
    known = np.flatnonzero(queries.has_mask & queries.masks.any((1, 2)))
    has_map = checkpoint.model.segmentation is not None and checkpoint.model.cfg.uses_masks and len(known) > 0
    found, base = encoded or (
        encode_floats(checkpoint.model, cfg, queries, masks=has_map),
        encode_floats(checkpoint.model, cfg, database),
    )
    codes = {}
    if cfg.ranking == "hamming":
        model = checkpoint.weights_id() if encoded is None else ""
        for side, made, cases in (("queries", found, queries), ("database", base, database)):
            codes[side] = Codes(pack(made["code"]), cases.ids, cases.labels, made["code"].shape[1], model)
    distance = distances(cfg, found, base)
    values, per_query = metrics.evaluate(distance, queries, database, cfg.ks, query_codes=codes.get("queries"))
    if has_map:
        drawn = found if encoded is None else encode_floats(checkpoint.model, cfg, queries, masks=True)
        predicted, true = drawn["masks"][known] > 0, queries.masks[known] > 0
        scores = {"dice": overlap.dice(predicted, true), "iou": overlap.iou(predicted, true)}
        extra = pd.DataFrame([{"metric": name, "k": 0, "value": float(np.mean(v))} for name, v in scores.items()])
        values = pd.concat([values, extra], ignore_index=True)
        each = pd.DataFrame({"case_id": queries.ids[known], "metric": "dice", "k": 0, "value": scores["dice"]})
        per_query = pd.concat([per_query, each], ignore_index=True)
    patient = pd.Series(queries.groups, index=queries.ids)
    per_query.insert(1, "group", patient.loc[per_query["case_id"]].to_numpy())
    return values, per_query, codes
