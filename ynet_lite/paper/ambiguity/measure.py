"""One network asked how ambiguous its answers are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from ... import attribution, losses, metrics
from ...cases.core import Cases
from ...checkpoint import Checkpoint
from ...config import Config
from ...encoding import distances, encode_floats
from ...hashing import hamming, pack, sign_bits
from . import appearance, attention, errors, exchange

K = 10  # length of the list
MOST = 200  # queries of a fold that are exchanged and attributed
SHOWN, SIDE = 5, 16  # answers, and side of the maps, kept for the picture
HIDDEN = {"disease", "stage", "manifestation", "background"}  # columns that only the phantom has


# --- what does not depend on the network -----------------------------------------------------------------------------


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


@dataclass(frozen=True, eq=False)
class Prepared:
    """What `measure` needs of a pair of database and queries, whatever the network.

    rows : queries that are exchanged and attributed, int64 (R,). content : where they hold image, bool (R, H, W).
    exchanged : {"background", "lesion", "control": (images uint8 (R, C, H, W), outlines uint8 (R, H, W))}.
    thirds : third of every query, str (Q,); None where hidden variables are known.
    levels : what needs no network, columns name, metric, k, value: "chance", and the maps without a model.
    """

    rows: np.ndarray
    content: np.ndarray
    exchanged: dict[str, tuple[np.ndarray, np.ndarray]]
    thirds: np.ndarray | None
    levels: pd.DataFrame


def prepare(database: Cases, queries: Cases, thirds: Callable[[], pd.DataFrame]) -> Prepared:
    """`Prepared` of one pair. ``thirds``: gives `case_thirds` of the whole set, asked only where hidden variables are not known.

    Raises ``ValueError`` where the thirds lack a query, and as `donor_rows`.
    """
    rows = outlined_rows(queries, MOST)
    chosen = queries.take(rows)
    donors = database.take(donor_rows(chosen, database))
    content = chosen.content_mask
    own, other = (chosen.images, chosen.masks), (donors.images, donors.masks)
    exchanged = {
        "background": exchange.replace_background(*own, *other, content, donors.content_mask),
        "lesion": exchange.replace_lesion(*own, *other, content, donors.content_mask),
        "control": exchange.replace_background(*own, *own, content, content),
    }
    parts = None
    if not (HIDDEN <= set(database.table) and HIDDEN <= set(queries.table)):
        known = thirds().set_index("case_id")["third"]
        missing = sorted(set(queries.ids) - set(known.index))
        if missing:
            raise ValueError(f"prepare: thirds lack {len(missing)} of the queries, such as {str(missing[0])!r}")
        parts = known.loc[queries.ids].to_numpy(str)
    return Prepared(rows, content, exchanged, parts, _levels(database, queries, parts, chosen, content))


def _levels(database: Cases, queries: Cases, parts, chosen: Cases, content: np.ndarray) -> pd.DataFrame:
    """Chance levels, and the scores of maps that need no model."""
    nothing = np.zeros((len(queries), len(database)), np.int8)
    levels = [part.assign(name="chance") for part, _ in _errors(nothing, database, queries, parts)]
    blind = {
        "uniform map": np.ones(chosen.masks.shape, np.float32),
        "centre Gaussian": attention.centre_gaussian(chosen.images),
        "edge map": attention.edge_map(chosen.images, content),
    }
    levels += [_summed(_looks(shown, chosen, content), chosen.ids)[0].assign(name=name) for name, shown in blind.items()]
    return pd.concat(levels, ignore_index=True)[["name", "metric", "k", "value"]]


# --- one network -----------------------------------------------------------------------------------------------------


def has_trained_code(cfg: Config) -> bool:
    """Whether the method ends in a hash code that its losses have trained: what can be exchanged and attributed here."""
    loss = losses.named(cfg.loss)
    taught = loss is not None and (not loss.own or cfg.cls_target == "code")
    return taught and not cfg.aggregation and cfg.ranking == "hamming"


#: Means over queries (metric, k, value), and the values themselves (case_id, metric, k, value).
Tables = tuple[pd.DataFrame, pd.DataFrame]


def _summed(table: dict[str, np.ndarray], ids: np.ndarray, k: int = 0) -> Tables:
    """From {metric: value per query}: means where defined, and the values as rows."""
    values = pd.DataFrame([(name, k, metrics.mean(part)) for name, part in table.items()], columns=["metric", "k", "value"])
    each = [pd.DataFrame({"case_id": ids, "metric": name, "k": k, "value": part}) for name, part in table.items()]
    return values, pd.concat(each, ignore_index=True)


def _errors(distance, database: Cases, queries: Cases, parts) -> list[Tables]:
    """Errors by cause where hidden variables are known, else mAP by third."""
    if parts is None:
        return [_summed(errors.phantom_errors(distance, queries.table, database.table, K), queries.ids, K)]
    ap = metrics.average_precision(distance, metrics.same_class(queries, database), K)
    thirds = {third: parts == third for third in reversed(appearance.THIRDS)}
    return [_summed({f"map_{third}": ap[own]}, queries.ids[own], K) for third, own in thirds.items()]


def _looks(maps: np.ndarray, cases: Cases, content: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "energy_ratio": attention.energy_ratio(maps, cases.masks, content),
        "pointing": attention.pointing(maps, cases.masks, content),
    }


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
    """As `class_maps`, for the similarity to the nearest code of the case's own class; of equally near ones the first.

    One pass per case: each asks about another code.
    """
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


def measure(cfg: Config, checkpoint: Checkpoint, database: Cases, queries: Cases, prepared: Prepared) -> Tables:
    """Everything about the ambiguity of one network's answers.

    Returns ``(values, per_query)``, columns metric, k, value, and before them case_id:

    - where hidden variables are known (the phantom): ``spdd_error, dpsd_recall, background_error``, k = 10;
    - elsewhere: ``map_ambiguous, map_middle, map_clear``, mAP@10 of the queries of each third (`case_thirds`);
    - ``flips_background, flips_lesion, flips_control``: bits that flip, as a share of the distance of two random cases;
    - ``energy_ratio, pointing`` of Grad-CAM on the score of the query's own class, at the deepest stage that can be asked.

    ``prepared``: `prepare` of the same two parts, which all networks of a fold share.

    Raises ``ValueError`` for a method without a trained code (`has_trained_code`), and for a patient on both sides.
    """
    if not has_trained_code(cfg):
        raise ValueError(f"measure: {cfg.method} has no hash code that was trained and is ranked by Hamming distance")
    shared = sorted(set(database.groups) & set(queries.groups))
    if shared:
        raise ValueError(f"measure: {len(shared)} patient(s) stand in database and queries, such as {str(shared[0])!r}")
    checkpoint = replace(checkpoint, cfg=cfg)  # the same training may be stored under another name
    found, base = (encode_floats(checkpoint.model, cfg, part) for part in (queries, database))
    parts = _errors(distances(cfg, found, base), database, queries, prepared.thirds)
    chosen = queries.take(prepared.rows)
    if len(chosen):
        flips = _flips(checkpoint, chosen, found["code"][prepared.rows], base["code"], prepared.exchanged)
        maps = class_maps(checkpoint, chosen, base["code"], database.labels)
        known = np.isin(chosen.labels, database.labels)
        looks = _looks(np.nan_to_num(maps), chosen, prepared.content)
        looks = {name: np.where(known, value, np.nan) for name, value in looks.items()}
        parts += [_summed(flips, chosen.ids), _summed(looks, chosen.ids)]
    values, per_query = zip(*parts, strict=True)
    return pd.concat(values, ignore_index=True), pd.concat(per_query, ignore_index=True)


def mean_pair_distance(codes) -> float:
    """Mean Hamming distance of two different cases drawn at random, in bits: exact over all pairs, no drawing.

    ``sum over bits of 2 n1 (M - n1) / (M (M - 1))``, n1 = how many of the M codes have the bit set. ``codes``: float (M, K), by
    sign. NaN for fewer than two codes.
    """
    bits = sign_bits(codes)
    n, ones = len(bits), bits.sum(axis=0)
    return float((2 * ones * (n - ones)).sum() / (n * (n - 1))) if n > 1 else float("nan")


def _flips(checkpoint: Checkpoint, chosen: Cases, before, reference, exchanged) -> dict[str, np.ndarray]:
    """Bits that flip when only the background, only the lesion, or nothing but the blending changes.

    Divided by the `mean_pair_distance` of ``reference``, so that a constant code cannot win: its value is 0 / 0, NaN. NaN also
    where an exchanged image has no lesion.
    """
    unit, found = mean_pair_distance(reference), {}
    for name, (images, outlines) in exchanged.items():
        after = encode_floats(checkpoint.model, checkpoint.cfg, replace(chosen, images=images))["code"]
        flipped = (sign_bits(after) != sign_bits(before)).sum(axis=1)
        found[f"flips_{name}"] = metrics.divide(np.where(outlines.any((1, 2)), flipped, np.nan), unit)
    return found


# --- pictures --------------------------------------------------------------------------------------------------------


def keeps_pictures(cfg: Config) -> bool:
    """Whether answers and maps of a run are kept for the picture: Y-Net and its twin on the phantom of seed 0."""
    return cfg.dataset == "phantom" and not cfg.variant and cfg.seed == 0 and cfg.method in ("ynet", "ynet-no-seg")


def pictures(cfg: Config, checkpoint: Checkpoint, database: Cases, queries: Cases) -> dict[str, np.ndarray]:
    """What a picture of this run needs beside the images, which the phantom's seed gives again.

    ``ids`` (Q,), ``answers`` (Q, 5) and ``bits`` (Q, 5): the nearest cases and their distances, equal ones by case_id; ``maps``
    uint8 (Q, 16, 16): Grad-CAM as in `measure`, 255 = its maximum.
    """
    found, base = (encode_floats(checkpoint.model, cfg, part) for part in (queries, database))
    distance = distances(cfg, found, base)
    by_id = np.argsort(np.argsort(database.ids, kind="stable"))
    order = np.stack([np.lexsort((by_id, row))[:SHOWN] for row in distance])
    maps = class_maps(replace(checkpoint, cfg=cfg), queries, base["code"], database.labels)
    small = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(np.nan_to_num(maps))[None], SIDE)[0].numpy()
    return {
        "ids": queries.ids,
        "answers": database.ids[order],
        "bits": np.take_along_axis(distance, order, 1).astype(np.int16),
        "maps": np.rint(255 * small).astype(np.uint8),
    }
