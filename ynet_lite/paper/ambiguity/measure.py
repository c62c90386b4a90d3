"""One network asked how ambiguous its answers are."""

from __future__ import annotations

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

SHOWN = 5  # answers kept for the picture

SIDE = 16  # side of the maps kept for the picture

HIDDEN = {"disease", "stage", "manifestation", "background"}  # columns that only the phantom has

EXCHANGES = ("background", "lesion", "control")

ERRORS = ("spdd_error", "dpsd_recall", "background_error", "map_ambiguous", "map_middle", "map_clear")  # those at k = 10


# --- what does not depend on the network -----------------------------------------------------------------------------


def case_thirds(cases: Cases) -> pd.DataFrame:
    """Ambiguity of every case by appearance: columns case_id, score, third, in the order of ``cases``.

    `ambiguity.ambiguity_score` of plain descriptors among all cases of the set, thirds within each class. Cases without a known
    outline, or with an empty one, have score NaN and third "".
    """
    outlines = np.where(cases.has_mask[:, None, None], cases.masks, 0)
    content = exchange.content_masks(cases.table, cases.images.shape[2])
    score = appearance.ambiguity_score(appearance.appearance(cases.images, outlines, content), cases.labels, cases.groups)
    return pd.DataFrame({"case_id": cases.ids, "score": score, "third": errors.thirds(score, cases.labels)})


def outlined_rows(cases: Cases, most: int | None = None) -> np.ndarray:
    """Rows with a known outline that is not empty, ascending; of more than ``most`` a fixed random choice. int64."""
    rows = np.flatnonzero(cases.has_mask & cases.masks.any((1, 2)))
    if most is not None and len(rows) > most:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:most])
    return rows


def donor_rows(queries: Cases, database: Cases) -> np.ndarray:
    """For each query a database row with an outline, of another patient and of any class. int64 (Q,).

    In a fixed random order of these rows each query takes the next one that is not of its own patient; when all have been
    taken, they are offered again. Raises ``ValueError`` where a query is left without a donor.
    """
    offered = np.random.default_rng(0).permutation(outlined_rows(database)).tolist()
    groups, order, found = database.groups, [], []
    for case, group in zip(queries.ids, queries.groups, strict=True):
        place = next((i for i, row in enumerate(order) if groups[row] != group), None)
        if place is None:
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


def prepare(database: Cases, queries: Cases, thirds: pd.DataFrame | None = None) -> Prepared:
    """`Prepared` of one pair. ``thirds``: `case_thirds` of the whole set; None = of these two parts together.

    Raises ``ValueError`` where ``thirds`` lacks a query, and as `donor_rows`.
    """
    size = queries.images.shape[2]
    rows = outlined_rows(queries, MOST)
    chosen, donors = queries.take(rows), database.take(donor_rows(queries.take(rows), database))
    content, donor_content = (exchange.content_masks(part.table, size) for part in (chosen, donors))
    own, other = (chosen.images, chosen.masks), (donors.images, donors.masks)
    exchanged = {
        "background": exchange.replace_background(*own, *other, content, donor_content),
        "lesion": exchange.replace_lesion(*own, *other, content, donor_content),
        "control": exchange.replace_background(*own, *own, content, content),
    }
    parts = None
    if not _hidden_known(database, queries):
        thirds = case_thirds(_joined(database, queries)) if thirds is None else thirds
        known = thirds.set_index("case_id")["third"]
        missing = sorted(set(queries.ids) - set(known.index))
        if missing:
            raise ValueError(f"prepare: thirds lack {len(missing)} of the queries, such as {str(missing[0])!r}")
        parts = known.loc[queries.ids].to_numpy(str)
    levels = _levels(database, queries, parts, chosen, content)
    return Prepared(rows, content, exchanged, parts, levels)


def _hidden_known(database: Cases, queries: Cases) -> bool:
    return HIDDEN <= set(database.table) and HIDDEN <= set(queries.table)


def _joined(database: Cases, queries: Cases) -> Cases:
    both = {
        name: np.concatenate([getattr(part, name) for part in (database, queries)])
        for name in ("images", "masks", "has_mask", "labels")
    }
    return replace(database, table=pd.concat([database.table, queries.table], ignore_index=True), **both)


def _levels(database: Cases, queries: Cases, parts, chosen: Cases, content: np.ndarray) -> pd.DataFrame:
    """Chance levels, and the scores of maps that need no model."""
    nothing = np.zeros((len(queries), len(database)), np.int8)
    chance, _ = _errors(nothing, database, queries, parts)
    levels = [chance.assign(name="chance")]
    blind = {
        "uniform map": attention.uniform_map(chosen.images),
        "centre Gaussian": attention.centre_gaussian(chosen.images),
        "edge map": attention.edge_map(chosen.images, content),
    }
    for name, shown in blind.items():
        levels.append(_summed(_looks(shown, chosen, content, ""), chosen.ids)[0].assign(name=name))
    return pd.concat(levels, ignore_index=True)[["name", "metric", "k", "value"]]


# --- one network -----------------------------------------------------------------------------------------------------


def has_trained_code(cfg: Config) -> bool:
    """Whether the method ends in a hash code that its losses have trained: what can be exchanged and attributed here."""
    loss = losses.named(cfg.loss)
    taught = loss is not None and (not loss.own or cfg.cls_target == "code")
    return taught and not cfg.aggregation and cfg.ranking == "hamming"


def _errors(distance, database: Cases, queries: Cases, parts) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Errors by cause where hidden variables are known, else mAP by third: (metric, k, value), (case_id, metric, k, value)."""
    if parts is None:
        values, each = errors.phantom_errors(distance, queries.table, database.table, K)
    else:
        ap = metrics.average_precision(distance, metrics.same_class(queries, database), K)
        values = errors.by_third(ap, parts, K)
        each = [
            pd.DataFrame({"case_id": queries.ids[own], "metric": f"map_{third}", "k": K, "value": ap[own]})
            for third, own in ((third, parts == third) for third in errors.THIRDS[::-1])
        ]
        each = pd.concat(each, ignore_index=True)
    return values[["metric", "k", "value"]], each[["case_id", "metric", "k", "value"]]


def _summed(table: dict[str, np.ndarray], ids: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """From {metric: value per query}, k = 0: means where defined, and the values as rows."""
    values = pd.DataFrame([(name, 0, metrics.mean(part)) for name, part in table.items()], columns=["metric", "k", "value"])
    each = [pd.DataFrame({"case_id": ids, "metric": name, "k": 0, "value": part}) for name, part in table.items()]
    return values, pd.concat(each, ignore_index=True)


def _looks(maps: np.ndarray, cases: Cases, content: np.ndarray, suffix: str) -> dict[str, np.ndarray]:
    return {
        f"energy_ratio{suffix}": attention.energy_ratio(maps, cases.masks, content),
        f"pointing{suffix}": attention.pointing(maps, cases.masks, content),
    }


def class_maps(checkpoint: Checkpoint, cases: Cases, codes, labels, **how) -> np.ndarray:
    """`attribution.grad_cam` of every case for the score of its own class. float32 (N, H, W).

    ``codes``, ``labels``: those of the database. ``how`` goes to `attribution.grad_cam`; the level is `attribution.deepest_level`
    unless given. NaN for a case whose class the database does not hold.
    """
    cfg = checkpoint.cfg
    how = {"level": attribution.deepest_level(cfg)} | how
    maps = np.full((len(cases), *cases.images.shape[2:]), np.nan, np.float32)
    for label in np.intersect1d(cases.labels, labels):
        own = cases.labels == label
        target = attribution.class_score(codes, labels, label)
        maps[own] = attribution.grad_cam(checkpoint.model, cfg, cases.images[own], target, **how)
    return maps


def measure(
    cfg: Config, checkpoint: Checkpoint, database: Cases, queries: Cases, prepared: Prepared | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Everything about the ambiguity of one network's answers.

    Returns ``(values, per_query)``, columns metric, k, value, and before them case_id:

    - where hidden variables are known (the phantom): ``spdd_error, dpsd_recall, background_error``, k = 10;
    - elsewhere: ``map_ambiguous, map_middle, map_clear``, mAP@10 of the queries of each third (`case_thirds`);
    - ``flips_background, flips_lesion, flips_control``: bits that flip, as a share of the distance of two random cases;
    - ``energy_ratio, pointing`` of Grad-CAM on the score of the query's own class, also with ``_elementwise``, ``_c4``,
      ``_half_pixel`` and ``_receptive_field``: see the head of this module.

    ``prepared``: `prepare` of the same two parts, which all networks of a fold can share; None = made here.

    Raises ``ValueError`` for a method without a trained code (`has_trained_code`), and for a patient on both sides.
    """
    if not has_trained_code(cfg):
        raise ValueError(f"measure: {cfg.method} has no hash code that was trained and is ranked by Hamming distance")
    shared = sorted(set(database.groups) & set(queries.groups))
    if shared:
        raise ValueError(f"measure: {len(shared)} patient(s) stand in database and queries, such as {str(shared[0])!r}")
    prepared = prepare(database, queries) if prepared is None else prepared
    checkpoint = replace(checkpoint, cfg=cfg)  # the same training may be stored under another name
    found, base = (encode_floats(checkpoint.model, cfg, part) for part in (queries, database))
    parts = [_errors(distances(cfg, found, base), database, queries, prepared.thirds)]
    chosen = queries.take(prepared.rows)
    if len(chosen):
        before = found["code"][prepared.rows]
        parts.append(_summed(_flips(checkpoint, chosen, before, base["code"], prepared.exchanged), chosen.ids))
        parts.append(_summed(_attention(checkpoint, chosen, base["code"], database.labels, prepared.content), chosen.ids))
    values, per_query = zip(*parts, strict=True)
    return pd.concat(values, ignore_index=True), pd.concat(per_query, ignore_index=True)


def _flips(checkpoint: Checkpoint, chosen: Cases, before, reference, exchanged) -> dict[str, np.ndarray]:
    """`ambiguity.sensitivity` on images that are exchanged already."""
    unit = exchange.mean_pair_distance(reference)
    found = {}
    for name in EXCHANGES:
        images, outlines = exchanged[name]
        after = encode_floats(checkpoint.model, checkpoint.cfg, replace(chosen, images=images))["code"]
        flipped = (sign_bits(after) != sign_bits(before)).sum(axis=1)
        found[f"flips_{name}"] = metrics.divide(np.where(outlines.any((1, 2)), flipped, np.nan), unit)
    return found


def _attention(checkpoint, chosen, codes, labels, content) -> dict[str, np.ndarray]:
    """Scores of every kind of map, one value per query."""
    deepest = attribution.deepest_level(checkpoint.cfg)
    known = np.isin(chosen.labels, labels)

    def scores(suffix: str, **how) -> dict[str, np.ndarray]:
        maps = class_maps(checkpoint, chosen, codes, labels, **how)
        found = _looks(np.nan_to_num(maps), chosen, content, suffix)
        return {name: np.where(known, value, np.nan) for name, value in found.items()}

    plain = scores("")
    found = plain | scores("_elementwise", elementwise=True)
    found |= scores("_c4", level=4) if deepest > 4 else {f"{name}_c4": value for name, value in plain.items()}
    for align in attribution.ALIGNMENTS:
        suffix = _aligned("", align)
        same = align == attribution.AUTO  # need not be computed twice
        found |= {f"{name}{suffix}": value for name, value in plain.items()} if same else scores(suffix, align=align)
    return found


def _aligned(metric: str, align: str) -> str:
    """The name of ``metric`` under one alignment for all."""
    return f"{metric}_{align.replace('-', '_')}"


def neighbour_maps(checkpoint: Checkpoint, cases: Cases, codes, labels, **how) -> np.ndarray:
    """`attribution.grad_cam` of every case for its similarity to the nearest code of its own class. float32 (N, H, W).

    ``codes`` float (M, K), ``labels`` (M,): those of the database; of equally near ones the first. ``how`` as in `class_maps`.
    NaN for a case whose class the database does not hold. One pass per case: each asks about another code.
    """
    cfg, labels = checkpoint.cfg, np.asarray(labels)
    how = {"level": attribution.deepest_level(cfg)} | how
    distance = hamming(pack(encode_floats(checkpoint.model, cfg, cases)["code"]), pack(codes))
    maps = np.full((len(cases), *cases.images.shape[2:]), np.nan, np.float32)
    for row, label in enumerate(cases.labels):
        own = np.flatnonzero(labels == label)
        if len(own):
            target = attribution.similarity_to(codes[own[np.argmin(distance[row, own])]])
            maps[row] = attribution.grad_cam(checkpoint.model, cfg, cases.images[[row]], target, **how)[0]
    return maps


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
