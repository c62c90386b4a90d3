"""One network asked how ambiguous its answers are.

The same choices for every method: **attention** is asked for the score of the query's *own class*, at the deepest stage that
passes a gradient to the code; **donors** of exchanged tissue are drawn from a fixed seed; at most `MOST` queries of a fold are
exchanged and attributed, errors and mAP use all; **thirds** are made over the whole set, so that a case is in the same third in
every fold.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ... import attribution, losses, metrics, paths, provenance
from ...cases.core import Cases
from ...checkpoint import Checkpoint
from ...config import Config
from ...encoding import distances, encode_floats
from ...hashing import hamming, pack, sign_bits
from ...sets import load_cases
from ...training import load_or_train
from .. import store
from . import appearance, attention, errors, exchange

K = 10  # length of the list
MOST = 200  # queries of a fold that are exchanged and attributed
HIDDEN = {"disease", "stage", "manifestation", "background"}  # columns that only the phantom has


def case_thirds(cases: Cases) -> pd.DataFrame:
    """Ambiguity of every case by appearance: columns case_id, score, third, in the order of ``cases``.

    `appearance.ambiguity_score` among all cases of the set, thirds within each class. Without a known outline, or with an empty
    one: score NaN and third "".
    """
    outlines = np.where(cases.has_mask[:, None, None], cases.masks, 0)
    looks = appearance.appearance(cases.images, outlines, cases.content_mask)
    score = appearance.ambiguity_score(looks, cases.labels, cases.groups)
    return pd.DataFrame({"case_id": cases.ids, "score": score, "third": appearance.thirds(score, cases.labels)})


def outlined_rows(cases: Cases, most: int | None = None) -> np.ndarray:
    """Rows with a known outline that is not empty, ascending; of more than ``most`` a fixed random choice. int64."""
    rows = np.flatnonzero(cases.has_mask & cases.masks.any((1, 2)))
    if most is not None and len(rows) > most:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:most])
    return rows


def donor_rows(queries: Cases, database: Cases) -> np.ndarray:
    """For each query a database row with an outline, of another patient and of any class. int64 (Q,).

    In a fixed random order each query takes the next row that is not of its own patient; when all have been taken, they are
    offered again. Raises ``ValueError`` where a query is left without a donor.
    """
    offered = np.random.default_rng(0).permutation(outlined_rows(database)).tolist()
    groups, order, found = database.groups, [], []
    for case, group in zip(queries.ids, queries.groups, strict=True):
        if all(groups[row] == group for row in order):
            order = order + offered
        place = next((i for i, row in enumerate(order) if groups[row] != group), None)
        if place is None:
            raise ValueError(
                f"donor_rows: the database has no case with an outline of another patient than that of {str(case)!r}"
            )
        found.append(order.pop(place))
    return np.array(found, np.int64)


def class_maps(checkpoint: Checkpoint, cases: Cases, codes, labels, **how) -> np.ndarray:
    """`attribution.grad_cam` of every case for the score of its own class. float32 (N, H, W).

    ``codes``, ``labels``: the database's. ``how`` goes to `attribution.grad_cam`; the level is `attribution.deepest_level` unless
    given. NaN for a case whose class the database does not hold.
    """
    cfg = checkpoint.cfg
    how = {"level": attribution.deepest_level(cfg)} | how
    maps = np.full(cases.masks.shape, np.nan, np.float32)
    for label in np.intersect1d(cases.labels, labels):
        own = cases.labels == label
        target = attribution.class_score(codes, labels, label)
        maps[own] = attribution.grad_cam(checkpoint.model, cfg, cases.images[own], target, **how)
    return maps


def neighbour_maps(checkpoint: Checkpoint, cases: Cases, codes, labels) -> np.ndarray:
    """As `class_maps`, for the similarity to the nearest code of the case's own class; of equally near ones the first."""
    cfg, labels = checkpoint.cfg, np.asarray(labels)
    level = attribution.deepest_level(cfg)
    distance = hamming(pack(encode_floats(checkpoint.model, cfg, cases)["code"]), pack(codes))
    maps = np.full(cases.masks.shape, np.nan, np.float32)
    for row, label in enumerate(cases.labels):
        own = np.flatnonzero(labels == label)
        if len(own):
            target = attribution.similarity_to(codes[own[np.argmin(distance[row, own])]])
            maps[row] = attribution.grad_cam(checkpoint.model, cfg, cases.images[[row]], target, level)[0]
    return maps


def measure(cfg: Config, checkpoint: Checkpoint, database: Cases, queries: Cases, thirds: pd.DataFrame | None) -> pd.DataFrame:
    """Everything about the ambiguity of one network's answers, by query: columns case_id, metric, k, value.

    - where hidden variables are known (the phantom): ``spdd_error, dpsd_recall, background_error``, k = 10;
    - elsewhere: ``map_ambiguous, map_middle, map_clear``, mAP@10 of the queries of each third. ``thirds``: `case_thirds`;
    - ``flips_background, flips_lesion, flips_control``: bits that flip, as a share of the distance of two random cases;
    - ``energy_ratio, pointing`` of Grad-CAM on the score of the query's own class (`class_maps`).

    Raises ``ValueError`` for a method whose losses train no code that Hamming distance ranks, for a patient on both sides, for a
    query that ``thirds`` lack, and as `donor_rows`.
    """
    loss = losses.named(cfg.loss)
    taught = loss is not None and (not loss.own or cfg.cls_target == "code")
    if not taught or cfg.aggregation or cfg.ranking != "hamming":
        raise ValueError(f"measure: {cfg.method} has no hash code that was trained and is ranked by Hamming distance")
    shared = sorted(set(database.groups) & set(queries.groups))
    if shared:
        raise ValueError(f"measure: {len(shared)} patient(s) stand in database and queries, such as {str(shared[0])!r}")
    checkpoint = replace(checkpoint, cfg=cfg)  # the same training may be stored under another name
    found, base = (encode_floats(checkpoint.model, cfg, part) for part in (queries, database))
    distance = distances(cfg, found, base)
    if HIDDEN <= set(database.table) and HIDDEN <= set(queries.table):
        each = [
            (name, K, queries.ids, v) for name, v in errors.phantom_errors(distance, queries.table, database.table, K).items()
        ]
    else:
        known = dict(zip(thirds["case_id"], thirds["third"], strict=True))
        missing = [case for case in queries.ids if case not in known]
        if missing:
            raise ValueError(f"measure: thirds lack {len(missing)} of the queries, such as {str(missing[0])!r}")
        third = np.array([known[case] for case in queries.ids])
        ap = metrics.average_precision(distance, metrics.same_class(queries, database), K)
        each = [(f"map_{name}", K, queries.ids[third == name], ap[third == name]) for name in appearance.THIRDS[::-1]]
    rows = outlined_rows(queries, MOST)
    chosen = queries.take(rows)
    if len(rows):
        donors = database.take(donor_rows(chosen, database))
        flips = _flips(checkpoint, chosen, donors, found["code"][rows], base["code"])
        each += [(name, 0, chosen.ids, value) for name, value in flips.items()]
        maps, known = class_maps(checkpoint, chosen, base["code"], database.labels), np.isin(chosen.labels, database.labels)
        for one in (attention.energy_ratio, attention.pointing):
            value = one(np.nan_to_num(maps), chosen.masks, chosen.content_mask)
            each += [(one.__name__, 0, chosen.ids, np.where(known, value, np.nan))]
    return pd.concat(
        [pd.DataFrame({"case_id": ids, "metric": name, "k": k, "value": value}) for name, k, ids, value in each],
        ignore_index=True,
    )


def mean_pair_distance(codes) -> float:
    """Mean Hamming distance of two different cases drawn at random, in bits: exact over all pairs, no drawing.

    ``sum over bits of 2 n1 (M - n1) / (M (M - 1))``, n1 = how many of the M codes have the bit set. ``codes``: float (M, K), by
    sign. NaN for fewer than two codes.
    """
    bits = sign_bits(codes)
    n, ones = len(bits), bits.sum(axis=0)
    return float((2 * ones * (n - ones)).sum() / (n * (n - 1))) if n > 1 else float("nan")


def _flips(checkpoint: Checkpoint, chosen: Cases, donors: Cases, before, reference) -> dict[str, np.ndarray]:
    """Bits that flip when only the background, only the lesion, or nothing but the blending changes.

    Divided by the `mean_pair_distance` of ``reference``, so that a constant code cannot win: its value is 0 / 0, NaN. NaN also
    where an exchanged image has no lesion.
    """
    own, other = ((part.images, part.masks, part.content_mask) for part in (chosen, donors))
    unit, found = mean_pair_distance(reference), {}
    for name, function, source in (
        ("background", exchange.replace_background, other),
        ("lesion", exchange.replace_lesion, other),
        ("control", exchange.replace_background, own),
    ):
        images, outlines = function(*own[:2], *source[:2], own[2], source[2])
        after = encode_floats(checkpoint.model, checkpoint.cfg, replace(chosen, images=images))["code"]
        flipped = (sign_bits(after) != sign_bits(before)).sum(axis=1)
        found[f"flips_{name}"] = metrics.divide(np.where(outlines.any((1, 2)), flipped, np.nan), unit)
    return found


def run(cfg: Config, folder: str | Path) -> Path:
    """`measure` the network of one configuration, trained where none is stored, and leave rows for `store.pack`.

    Writes ``folder/ambiguity/<run>.csv``, which it returns, and the values per query in ``per_query``. Rows name the commit that
    *measured*; the commit that trained stands in the run's own rows.
    """
    cases = load_cases(cfg)
    database, queries = cases.split(cfg.fold)
    checkpoint = load_or_train(cfg, database, progress=False)
    began = time.perf_counter()
    thirds = None if HIDDEN <= set(cases.table) else case_thirds(cases)
    each = measure(cfg, checkpoint, database, queries, thirds)
    values = each.groupby(["metric", "k"], sort=False, as_index=False)["value"].mean()
    seconds = round(time.perf_counter() - began, 3)
    at, name = Path(folder) / "ambiguity", f"{provenance.run_id(cfg)}.csv"
    paths.write_csv(
        each.assign(group=each["case_id"].map(dict(zip(queries.ids, queries.groups, strict=True)))), at / "per_query" / name
    )
    return paths.write_csv(store.run_rows(cfg, queries.fingerprint, values, seconds), at / name)
