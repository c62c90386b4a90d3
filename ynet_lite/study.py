"""How ambiguous are the answers, and what reduces it: measured on stored networks. ``python -m ynet_lite.study --grid phantom``

`measure` asks one trained network the four questions of `ynet_lite.ambiguity`; the command asks every network of the grids whose
checkpoint is stored and writes one file of rows per run (`FOLDERS`); `criteria` compares Y-Net with its twin on these rows,
patient by patient, with the aims that were set beforehand (`CRITERIA`); `make` writes the page and the picture.

Choices, the same for every method:

- **Attention** is asked for the score of the query's *own class* (`attribution.class_score`): which pixels speak for the right
  disease. The nearest relevant code would ask each method about another case.
- **Stage**: the deepest that passes a gradient to the code (`attribution.deepest_level`). Two poolings may differ in it, and so
  in the fineness of their maps; the metrics ``_c4`` take C4 for all. ``_elementwise``: weighted cell by cell, in place of
  Grad-CAM's mean over cells.
- **Alignment** of the stage's cells with the image: the plain names use "auto", one rule for all networks, which was measured
  (`ynet_lite.alignment`); ``_half_pixel`` and ``_receptive_field`` name theirs. On the coarse C5 of the full preset the choice
  moves the numbers a lot. Rows from before the rule have other plain names: see `first_rule`.
- **Exchange**: the donor of a query is a database case with an outline, of another patient and of any class, drawn without
  repetition from a fixed seed. Any class, because a background that goes with a disease misleads only when it comes from another
  one. Every method and every training of a fold gets the same exchanged images.
- **At most** `MOST` **queries** of a fold are exchanged and attributed, the same for every method; errors and mAP use all.
- **Thirds** are made over the whole set, so that a case belongs to the same third in every fold and for every method.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.metrics import silhouette_score

from . import ambiguity, attribution, experiments, metrics, paths, plots, results, statistics, tables
from .cases import Cases, load_cases
from .config import Config
from .hashing import hamming, pack, sign_bits
from .training import Checkpoint, checkpoint_path, distances, encode_floats, load_or_train

K = 10  # length of the list
MOST = 200  # queries of a fold that are exchanged and attributed
SHOWN = 5  # answers kept for the picture
SIDE = 16  # side of the maps kept for the picture

#: Methods that are asked when none are named: the encoder and the loss are the same, what differs is masks and pooling.
METHODS = ("ynet", "ynet-no-seg", "ynet-rmac", "ynet-lesion", "ynet-selfpool")

#: Runs of `experiments` behind each name of ``--grid``.
GRIDS = {"phantom": ("phantom",), "busbra": ("headline", "losses")}

#: Under the folder of results: rows and per-query values of each run, what needs no network, ambiguity of each case, pictures.
FOLDERS = {
    "rows": "ambiguity",
    "per_query": "ambiguity/per_query",
    "levels": "ambiguity/levels",
    "thirds": "ambiguity/thirds",
    "pictures": "ambiguity/pictures",
    "alignment": "ambiguity/alignment",  # see `ynet_lite.alignment`
}

HIDDEN = {"disease", "stage", "manifestation", "background"}  # columns that only the phantom has
EXCHANGES = ("background", "lesion", "control")
ERRORS = ("spdd_error", "dpsd_recall", "background_error", "map_ambiguous", "map_middle", "map_clear")  # those at k = 10


def _file(folder: str | Path, kind: str, name: str) -> Path:
    return Path(folder) / FOLDERS[kind] / name


# --- what does not depend on the network -----------------------------------------------------------------------------


def case_thirds(cases: Cases) -> pd.DataFrame:
    """Ambiguity of every case by appearance: columns case_id, score, third, in the order of ``cases``.

    `ambiguity.ambiguity_score` of plain descriptors among all cases of the set, thirds within each class. Cases without a known
    outline, or with an empty one, have score NaN and third "".
    """
    outlines = np.where(cases.has_mask[:, None, None], cases.masks, 0)
    content = ambiguity.content_masks(cases.table, cases.images.shape[2])
    score = ambiguity.ambiguity_score(ambiguity.appearance(cases.images, outlines, content), cases.labels, cases.groups)
    return pd.DataFrame({"case_id": cases.ids, "score": score, "third": ambiguity.thirds(score, cases.labels)})


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
    content, donor_content = (ambiguity.content_masks(part.table, size) for part in (chosen, donors))
    own, other = (chosen.images, chosen.masks), (donors.images, donors.masks)
    exchanged = {
        "background": ambiguity.replace_background(*own, *other, content, donor_content),
        "lesion": ambiguity.replace_lesion(*own, *other, content, donor_content),
        "control": ambiguity.replace_background(*own, *own, content, content),
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
        "uniform map": ambiguity.uniform_map(chosen.images),
        "centre Gaussian": ambiguity.centre_gaussian(chosen.images),
        "edge map": ambiguity.edge_map(chosen.images, content),
    }
    for name, maps in blind.items():
        levels.append(_summed(_looks(maps, chosen, content, ""), chosen.ids)[0].assign(name=name))
    return pd.concat(levels, ignore_index=True)[["name", "metric", "k", "value"]]


# --- one network -----------------------------------------------------------------------------------------------------


def has_trained_code(cfg: Config) -> bool:
    """Whether the method ends in a hash code that its losses have trained: what can be exchanged and attributed here."""
    taught = bool(cfg.rival) or (cfg.cls_loss != "none" and cfg.cls_target == "code")
    return taught and not cfg.aggregation and cfg.ranking == "hamming"


def _errors(distance, database: Cases, queries: Cases, parts) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Errors by cause where hidden variables are known, else mAP by third: (metric, k, value), (case_id, metric, k, value)."""
    if parts is None:
        values, each = ambiguity.phantom_errors(distance, queries.table, database.table, K)
    else:
        ap = metrics.average_precision(distance, metrics.same_class(queries, database), K)
        values = ambiguity.by_third(ap, parts, K)
        each = [
            pd.DataFrame({"case_id": queries.ids[own], "metric": f"map_{third}", "k": K, "value": ap[own]})
            for third, own in ((third, parts == third) for third in ambiguity.THIRDS[::-1])
        ]
        each = pd.concat(each, ignore_index=True)
    return values[["metric", "k", "value"]], each[["case_id", "metric", "k", "value"]]


def _summed(table: dict[str, np.ndarray], ids: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """From {metric: value per query}, k = 0: means where defined, and the values as rows."""
    values = pd.DataFrame([(name, 0, metrics._mean(part)) for name, part in table.items()], columns=["metric", "k", "value"])
    each = [pd.DataFrame({"case_id": ids, "metric": name, "k": 0, "value": part}) for name, part in table.items()]
    return values, pd.concat(each, ignore_index=True)


def _looks(maps: np.ndarray, cases: Cases, content: np.ndarray, suffix: str) -> dict[str, np.ndarray]:
    return {
        f"energy_ratio{suffix}": ambiguity.energy_ratio(maps, cases.masks, content),
        f"pointing{suffix}": ambiguity.pointing(maps, cases.masks, content),
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
    unit = ambiguity.mean_pair_distance(reference)
    found = {}
    for name in EXCHANGES:
        images, outlines = exchanged[name]
        after = encode_floats(checkpoint.model, checkpoint.cfg, replace(chosen, images=images))["code"]
        flipped = (sign_bits(after) != sign_bits(before)).sum(axis=1)
        found[f"flips_{name}"] = metrics._divide(np.where(outlines.any((1, 2)), flipped, np.nan), unit)
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


# --- the space of codes ----------------------------------------------------------------------------------------------


def own_distances(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Distances of all pairs of cases: "descriptor" by one minus cosine, "code" by bits. float64 (N, N), diagonal 0.

    ``found``: as `training.encode_floats` gives it.
    """
    unit = torch.nn.functional.normalize(torch.from_numpy(found["descriptor"]).double(), dim=1).numpy()
    cosine = np.clip(1 - unit @ unit.T, 0, 2)
    np.fill_diagonal(cosine, 0)
    packed = pack(found["code"])
    return {"descriptor": cosine, "code": hamming(packed, packed).astype(float)}


def knn_purity(distance, labels, groups, k: int = K) -> np.ndarray:
    """Share of the k nearest cases of *other patients* that have the case's label, expected over ties. float64 (N,) in [0, 1].

    ``distance`` (N, N), ``labels`` and ``groups`` (N,). With fewer than k cases of other patients all of them count; NaN where
    there is none.
    """
    distance, labels, groups = np.asarray(distance, float), np.asarray(labels), np.asarray(groups)
    if distance.shape != (len(labels), len(labels)) or groups.shape != labels.shape:
        raise ValueError(
            f"knn_purity: distances {distance.shape}, labels {labels.shape}, groups {groups.shape}; (N, N), (N,), (N,)"
        )
    own = groups[:, None] == groups
    far, same = np.where(own, np.inf, distance), (labels[:, None] == labels) & ~own
    places = np.minimum(metrics._check_k(k), (~own).sum(axis=1))
    found = np.full(len(labels), np.nan)
    for n in np.unique(places[places > 0]):
        rows = np.flatnonzero(places == n)
        found[rows] = metrics.precision(far[rows], same[rows], int(n))
    return found


def space_numbers(distance, labels, groups, k: int = K) -> dict[str, float]:
    """How well a space keeps a label together, without any picture: ``purity``, its ``chance`` level, ``silhouette``.

    Silhouette (Rousseeuw, J. Comput. Appl. Math. 20, 1987) in [-1, 1]: own group nearer than the next one; NaN for one label.
    """
    silhouette = float("nan")
    if 1 < len(set(np.asarray(labels).tolist())) < len(labels):
        silhouette = float(silhouette_score(distance, labels, metric="precomputed"))
    chance = knn_purity(np.zeros(np.shape(distance)), labels, groups, k)
    return {
        "purity": metrics._mean(knn_purity(distance, labels, groups, k)),
        "chance": metrics._mean(chance),
        "silhouette": silhouette,
    }


def umap_places(distance, seed: int = 0, neighbours: int = 15) -> np.ndarray:
    """UMAP (McInnes, Healy, Melville, 2018, arXiv 1802.03426) of a distance matrix (N, N): float32 (N, 2).

    The same seed gives the same bits on one machine. The first call in a process compiles for half a minute.
    """
    import umap  # here: it compiles on import, and only maps of codes need it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a precomputed metric cannot be inverted
        made = umap.UMAP(n_neighbors=neighbours, metric="precomputed", random_state=seed, n_jobs=1)
        return made.fit_transform(np.asarray(distance, float))


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


# --- the command -----------------------------------------------------------------------------------------------------


def done(cfg: Config, folder: str | Path) -> bool:
    """Whether the rows of this run exist (they are written last)."""
    return _file(folder, "rows", f"{results.run_id(cfg)}.csv").is_file()


def run(
    cfg: Config, checkpoint: Checkpoint, database: Cases, queries: Cases, folder: str | Path, prepared: Prepared | None = None
) -> Path:
    """`measure` one network and write its rows, per-query values and (`keeps_pictures`) pictures. Returns the file of rows.

    The rows name the commit that *measured*; the commit that trained stands in the run's own rows.
    """
    began = time.perf_counter()
    name = results.run_id(cfg)
    values, per_query = measure(cfg, checkpoint, database, queries, prepared)
    seconds = round(time.perf_counter() - began, 3)
    if keeps_pictures(cfg):
        with paths.replacing(_file(folder, "pictures", f"{name}.npz")) as temporary:
            np.savez_compressed(temporary, **pictures(cfg, checkpoint, database, queries))
    results.write_csv(per_query, _file(folder, "per_query", f"{name}.csv"))
    rows = results.rows(cfg, queries.fingerprint, values, seconds)
    return results.write_csv(rows, _file(folder, "rows", f"{name}.csv"))


def _data(cfg: Config) -> tuple:
    """What names the images of a run: runs that share it share `prepare` (one fold) and `case_thirds` (all folds)."""
    drawn = (cfg.phantom_cases, cfg.confounding, cfg.seed) if cfg.dataset == "phantom" else ()
    return (cfg.dataset, cfg.size, cfg.channels, *drawn)


def _set_thirds(cases: Cases, folder: str | Path) -> pd.DataFrame:
    """`case_thirds`, from its file where there is one."""
    path = _file(folder, "thirds", f"{cases.name}-{cases.images.shape[2]}-{cases.fingerprint[:8]}.csv")
    if not path.is_file():
        results.write_csv(case_thirds(cases), path)
    return pd.read_csv(path, dtype={"case_id": str}).fillna({"third": ""})


def _one_fold(configs: Sequence[Config], folder: Path, train: bool) -> list[str]:
    """All runs on one fold of one set; returns lines for the log."""
    torch.set_num_threads(configs[0].threads)
    cases = load_cases(configs[0])
    database, queries = cases.split(configs[0].fold)
    prepared, log = None, []
    for cfg in configs:
        path = checkpoint_path(cfg, database)
        if not (path.is_file() and path.with_suffix(".json").is_file()) and not train:
            log.append(f"{results.run_id(cfg)}: skipped, no checkpoint {path.name} is stored; --train makes it")
            continue
        checkpoint = load_or_train(cfg, database, progress=False)
        began = time.perf_counter()
        if prepared is None:
            known = _hidden_known(database, queries)
            prepared = prepare(database, queries, None if known else _set_thirds(cases, folder))
            levels = prepared.levels.assign(dataset=cfg.dataset, fingerprint=cases.fingerprint[:16], fold=cfg.fold)
            name = f"{cfg.dataset}-{cfg.size}-{cases.fingerprint[:8]}-{cfg.fold}.csv"
            if not _file(folder, "levels", name).is_file():
                columns = ["dataset", "fingerprint", "fold", "name", "metric", "k", "value"]
                results.write_csv(levels[columns], _file(folder, "levels", name))
        run(cfg, checkpoint, database, queries, folder, prepared)
        log.append(f"{results.run_id(cfg)} in {time.perf_counter() - began:.0f} s")
    return log


def configs_of(
    grids: Iterable[str], methods: Sequence[str] = METHODS, folds: Sequence[int] = (), seeds: Sequence[int] = ()
) -> list[Config]:
    """The runs of the named grids (`GRIDS`) that can be measured, each once; empty ``folds`` or ``seeds`` = all.

    Under some presets two methods are one configuration (Y-Net with R-MAC, and Y-Net where R-MAC is its pooling): the first of
    ``methods`` stands for both.
    """
    named = [cfg for grid in grids for name in GRIDS[grid] for cfg in experiments.grid(name)]
    chosen: dict[tuple, Config] = {}
    for cfg in sorted((cfg for cfg in named if cfg.method in methods), key=lambda cfg: methods.index(cfg.method)):
        if has_trained_code(cfg) and (not folds or cfg.fold in folds) and (not seeds or cfg.seed in seeds):
            chosen.setdefault((cfg.dataset, cfg.hash(), cfg.fold, cfg.seed), cfg)
    return list(chosen.values())


def main(argv: list[str] | None = None) -> int:
    """Measure the ambiguity of every stored network of the grids; what is measured already is not repeated."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.study", description=main.__doc__)
    parser.add_argument("--grid", nargs="*", choices=list(GRIDS), default=list(GRIDS), help="which grids (default: all)")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help=f"which methods (default: {' '.join(METHODS)})")
    parser.add_argument("--folds", nargs="*", type=int, default=[], help="only these folds")
    parser.add_argument("--seeds", nargs="*", type=int, default=[], help="only these seeds")
    parser.add_argument("--folder", type=Path, default=paths.out() / "results", help="where rows are looked for and written")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--train", action="store_true", help="train what has no stored checkpoint, instead of skipping it")
    given = parser.parse_args(argv)
    missing = [cfg for cfg in configs_of(given.grid, given.methods, given.folds, given.seeds) if not done(cfg, given.folder)]
    groups: dict[tuple, list[Config]] = {}
    for cfg in missing:
        groups.setdefault((*_data(cfg), cfg.fold), []).append(cfg)
    for cfg in {key[:-1]: part[0] for key, part in groups.items()}.values():
        if cfg.dataset != "phantom":
            _set_thirds(load_cases(cfg), given.folder)  # before several folds want it at once
    parallel = joblib.Parallel(n_jobs=given.jobs, return_as="generator_unordered")
    for log in parallel(joblib.delayed(_one_fold)(part, given.folder, given.train) for part in groups.values()):
        print("\n".join(log), flush=True)
    return 0


# --- what the rows say -----------------------------------------------------------------------------------------------


def read_rows(folder: str | Path | None = None) -> pd.DataFrame:
    """All rows of the study under ``folder`` (default: the committed results), in a fixed order."""
    files = paths.listed(_file(folder or paths.results(), "rows", ""))
    return pd.concat(map(results.read_run, files), ignore_index=True) if files else pd.DataFrame(columns=results.COLUMNS)


def read_levels(folder: str | Path | None = None) -> pd.DataFrame:
    """Chance levels and maps without a model: dataset, fingerprint, fold, name, metric, k, value."""
    files = paths.listed(_file(folder or paths.results(), "levels", ""))
    columns = ["dataset", "fingerprint", "fold", "name", "metric", "k", "value"]
    found = [pd.read_csv(path, dtype={"fingerprint": str}) for path in files]
    return pd.concat(found, ignore_index=True) if files else pd.DataFrame(columns=columns)


def select(rows: pd.DataFrame, dataset: str, preset: str, variant: str = "", folds: Iterable[int] | None = None) -> pd.DataFrame:
    """Rows of one set, preset and variant; of these folds."""
    chosen = rows[(rows["dataset"] == dataset) & (rows["preset"] == preset) & (rows["variant"] == variant)]
    return chosen if folds is None else chosen[chosen["fold"].isin(list(folds))]


def first_rule(rows: pd.DataFrame) -> list[str]:
    """Methods with runs whose plain attention metrics follow the first rule instead of `attribution.AUTO`, in sorted order.

    The first rule took half a pixel for networks with a segmentation branch. Such runs are told by their values: the plain energy
    ratio is a copy of that of the alignment behind it.
    """
    wide = rows[rows["metric"].isin(("energy_ratio", RULED))].pivot_table(
        index=["run_id", "method"], columns="metric", values="value"
    )
    if not {"energy_ratio", RULED} <= set(wide):
        return []
    return sorted(set(wide.index[wide["energy_ratio"] != wide[RULED]].get_level_values("method")))


def per_query_values(rows: pd.DataFrame, method: str, metric: str, folder: str | Path | None = None) -> pd.DataFrame:
    """One value per query of one method, the mean over its trainings, as `statistics.paired` takes it.

    ``rows``: `select`-ed rows. Columns fingerprint, fold, case_id, value, runs. Runs from before the rule of alignment kept the
    values of ``pointing`` under its plain name only; they are taken from there where that means the same. Raises ``ValueError``
    where there is no such run, where its runs have several configurations, or (`NotKept`) where a file lacks the metric.
    """
    runs = rows[rows["method"] == method].drop_duplicates("run_id")
    if runs.empty:
        raise ValueError(f"per_query_values: no run of {method}; there are runs of {sorted(rows['method'].unique())}")
    if runs["config_hash"].nunique() > 1:
        raise ValueError(f"per_query_values: runs of {method} have several configurations: {sorted(set(runs['config_hash']))}")
    means = rows.drop_duplicates(["run_id", "metric"]).set_index(["run_id", "metric"])["value"]
    parts = []
    for one in runs.itertuples(index=False):
        path = _file(folder or paths.results(), "per_query", f"{one.run_id}.csv")
        table = pd.read_csv(path, dtype={"case_id": str})
        chosen = table[table["metric"] == metric]
        if chosen.empty:
            plain = metric.removesuffix("_receptive_field").removesuffix("_half_pixel")
            if means.get((one.run_id, metric)) != means.get((one.run_id, plain), np.nan):
                raise NotKept(f"per_query_values: {path} has no {metric}")
            chosen = table[table["metric"] == plain]
        parts.append(chosen[["case_id", "value"]].assign(fingerprint=one.fingerprint, fold=int(one.fold)))
    each = pd.concat(parts, ignore_index=True).groupby(statistics.QUERY, sort=True)["value"]
    return each.agg(["mean", "size"]).reset_index().rename(columns={"mean": "value", "size": "runs"})


class NotKept(ValueError):
    """A run has the mean of a metric, but no values per query."""


@dataclass(frozen=True)
class Criterion:
    """A question with an aim. Aims are not moved; a reading that is added later is named "other reading" and says so in `ABOUT`.

    ``kind``: "ratio" of the means of Y-Net and of its twin; "mean" of Y-Net; "thirds": gain in mAP on the ambiguous third minus
    gain on the clear one, in points. Reached where the value is at most (``at_most``) or at least ``aim``; "thirds": above it.
    ``twin``: another metric for the twin, where the two are not read alike.
    """

    text: str
    metric: str
    kind: str
    aim: float
    at_most: bool = False
    twin: str = ""


#: The energy ratio by the rule of alignment.
RULED = _aligned("energy_ratio", attribution.AUTO)

CRITERIA = (
    Criterion("errors of the same manifestation in another disease (SPDD), Y-Net / twin", "spdd_error", "ratio", 0.7, True),
    Criterion("gain in mAP@10 on ambiguous minus gain on clear cases, points", "map", "thirds", 0.0),
    Criterion("bits that flip with the background, Y-Net / twin", "flips_background", "ratio", 0.5, True),
    Criterion("bits that flip with the lesion, Y-Net / twin", "flips_lesion", "ratio", 1.0),
    Criterion("attention energy in the lesion, Y-Net / twin", RULED, "ratio", 1.5),
    Criterion("other reading: both aligned by half a pixel", "energy_ratio_half_pixel", "ratio", 1.5),
    Criterion(
        "other reading: Y-Net by half a pixel, its twin by the receptive field",
        "energy_ratio_half_pixel",
        "ratio",
        1.5,
        twin="energy_ratio_receptive_field",
    ),
    Criterion("other reading: cell by cell", "energy_ratio_elementwise", "ratio", 1.5),
    Criterion("other reading: both on the grid of C4", "energy_ratio_c4", "ratio", 1.5),
    Criterion("maximum of the attention in the lesion, Y-Net", _aligned("pointing", attribution.AUTO), "mean", 0.9),
    Criterion("other reading: aligned by half a pixel", "pointing_half_pixel", "mean", 0.9),
    Criterion("other reading: cell by cell", "pointing_elementwise", "mean", 0.9),
)


def third_gain(ours: Sequence[pd.DataFrame], twin: Sequence[pd.DataFrame], groups) -> statistics.Paired:
    """Gain on the first third minus gain on the second: a comparison of gains, as a `statistics.Paired` of points.

    ``ours``, ``twin``: values per query on (ambiguous, clear), as `per_query_values` gives them. With g_t the mean gain on third
    t, n_t its queries and n all of them, each query has the value ``g_t + (n / n_t) (gain - g_t)`` in its own third's column and
    g_t in the other's: the mean of a column is g_t, and a resampled mean is, to first order, the mean over the resampled
    queries of that third, whose number varies between replicates. Raises ``ValueError`` where the methods' queries differ.
    """
    gains = []
    for a, b in zip(ours, twin, strict=True):
        both = a.merge(b, on=statistics.QUERY, how="outer", suffixes=("", "_twin"), validate="one_to_one")
        if len(both) != len(a) or len(both) != len(b):
            raise ValueError("third_gain: both methods must answer the same queries")
        gains.append(both.assign(gain=both["value"] - both["value_twin"]).dropna(subset="gain"))
    n = sum(map(len, gains))
    columns = []
    for own in (0, 1):
        mean = gains[own]["gain"].mean()
        parts = [part[statistics.QUERY].assign(value=mean) for part in gains]
        parts[own]["value"] = mean + n / len(gains[own]) * (gains[own]["gain"] - mean)
        columns.append(pd.concat(parts, ignore_index=True))
    return statistics.paired(*columns, groups)


def criteria(chosen: pd.DataFrame, folder: str | Path | None = None, ours="ynet", twin="ynet-no-seg") -> pd.DataFrame:
    """Each `Criterion` that the rows can answer. ``chosen``: rows of one set (`select`); per-query values from ``folder``.

    Columns: criterion, metric, kind, aim, at_most, value, low, high (95 %, bootstrap by patient), reached (bool, by the value),
    sure (bool, whether the whole interval lies on the same side of the aim), queries, patients, runs. What is undefined (nothing
    to divide by) is not reached. A mean whose values per query were not kept has no interval, and 0 queries and patients.
    """
    dataset = chosen["dataset"].iloc[0]
    known, found = set(chosen["metric"]), []
    for one in CRITERIA:
        if one.metric not in known and not (one.kind == "thirds" and {"map_ambiguous", "map_clear"} <= known):
            continue
        if one.kind == "mean":
            estimate, *size = _mean(chosen, ours, one.metric, dataset, folder)
        else:
            names = [f"{one.metric}_ambiguous", f"{one.metric}_clear"] if one.kind == "thirds" else [one.metric]
            mine = [per_query_values(chosen, ours, name, folder) for name in names]
            other = [per_query_values(chosen, twin, one.twin or name, folder) for name in names]
            groups = statistics.patients(dataset, pd.concat(mine)["case_id"])
            pair = third_gain(mine, other, groups) if one.kind == "thirds" else statistics.paired(mine[0], other[0], groups)
            estimate = pair.difference if one.kind == "thirds" else statistics.Estimate(*(1 + x / 100 for x in pair.relative))
            size = (pair.n_queries, pair.n_patients, statistics.runs_text(mine[0]))
        good = [_meets(one, value) for value in estimate]
        sure = not np.isnan(estimate).any() and good[1] == good[2] == good[0]
        found.append((one.text, one.metric, one.kind, one.aim, one.at_most, *estimate, good[0], sure, *size))
    columns = "criterion metric kind aim at_most value low high reached sure queries patients runs".split()
    return pd.DataFrame(found, columns=columns)


def _mean(chosen, method, metric, dataset, folder) -> tuple[statistics.Estimate, int, int, str]:
    """Mean over queries with its interval, queries, patients, runs; without values per query the mean over folds alone."""
    try:
        each = per_query_values(chosen, method, metric, folder)
    except NotKept:
        rows = chosen[(chosen["method"] == method) & (chosen["metric"] == metric)]
        mean = results.seeds_averaged(rows)["value"].mean()
        return statistics.Estimate(mean, np.nan, np.nan), 0, 0, ""
    groups = statistics.patients(dataset, each["case_id"])
    defined = each.dropna(subset="value")
    # another draw of a set may give other patients the same name
    people = defined.assign(group=groups[defined["case_id"]].to_numpy())[["fingerprint", "group"]].drop_duplicates()
    return statistics.bootstrap_mean(each, groups), len(defined), len(people), statistics.runs_text(each)


def _meets(one: Criterion, value: float) -> bool:
    if one.kind == "thirds":
        return bool(value > one.aim)
    return bool(value <= one.aim if one.at_most else value >= one.aim)


def criteria_table(found: pd.DataFrame) -> pd.DataFrame:
    """`criteria` as text: criterion, aim, value with its 95 % interval, verdict, and what lies behind."""
    lines = []
    for row in found.itertuples(index=False):
        if row.kind == "ratio":
            aim = f"{'at most' if row.at_most else 'at least'} {100 * row.aim:.0f} %"
            shown = statistics.interval_text(*(100 * x for x in (row.value, row.low, row.high)), digits=0, signed=False)
        elif row.kind == "thirds":
            aim, shown = f"above {row.aim:.0f}", statistics.interval_text(row.value, row.low, row.high)
        else:
            aim = f"at least {row.aim:.2f}".replace("0.", ".")
            shown = statistics.share_text(row.value, row.low, row.high)
        bare = np.isnan(row.low) and not np.isnan(row.value)
        verdict = "reached" if row.reached else "missed"
        verdict += ", no interval" if bare else "" if row.sure else ", interval crosses the aim"
        unit = " %" if row.kind == "ratio" and shown != "-" else ""
        lines.append(
            {"criterion": row.criterion, "aim": aim, "found [95 %]": shown + unit, "verdict": verdict}
            | {"queries": row.queries or "-", "patients": row.patients or "-", "sets x trainings": row.runs or "-"}
        )
    return pd.DataFrame(lines)


#: Columns of the two tables of means, in this order; those without rows are left out.
MEANS = {
    "spdd_error": "SPDD error",
    "background_error": "background error",
    "dpsd_recall": "DPSD recall",
    "map_ambiguous": "mAP@10, ambiguous",
    "map_middle": "middle",
    "map_clear": "clear",
    "flips_background": "flips, background",
    "flips_lesion": "flips, lesion",
    "flips_control": "flips, control",
}
LOOKS = {
    RULED: "energy ratio",
    "energy_ratio_half_pixel": "half-pixel",
    "energy_ratio_elementwise": "cell by cell",
    "energy_ratio_c4": "on C4",
    _aligned("pointing", attribution.AUTO): "pointing",
    "pointing_half_pixel": "pointing, half-pixel",
    "pointing_elementwise": "pointing, cell by cell",
}


def means_table(chosen: pd.DataFrame, levels: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Methods x metrics as text, mean ± standard deviation over runs (over folds where there are several), then the levels.

    ``columns``: {metric: heading}, such as `MEANS` or `LOOKS`. Levels that have none of these metrics are left out; maps without
    a network have no cells to align, and stand under the rule's names.
    """
    levels = levels.replace({"metric": {name: _aligned(name, attribution.AUTO) for name in ("energy_ratio", "pointing")}})
    columns = {
        (metric, K if metric in ERRORS else 0): name for metric, name in columns.items() if metric in set(chosen["metric"])
    }
    table = tables.retrieval_table(chosen, columns)
    here = levels[levels["fingerprint"].isin(set(chosen["fingerprint"])) & levels["fold"].isin(set(chosen["fold"]))]
    lines = []
    for name in dict.fromkeys(here["name"]):
        mean = here[here["name"] == name].groupby(["metric", "k"])["value"].mean()
        if not set(mean.index) & set(columns):
            continue
        shown = {heading: tables.number(mean.get(key, np.nan), np.nan, 1) for key, heading in columns.items()}
        lines.append({"method": name, "runs": ""} | shown)
    return pd.concat([table, pd.DataFrame(lines)], ignore_index=True)


ABOUT = """# Ambiguity

Made by `make figures` from the rows in `data/results/ambiguity/`. Not a medical device.

**Criteria.** The aims were set before anything was measured. Intervals of 95 % by bootstrap of patients, seeds averaged first. A
criterion is reached by its value; where the interval crosses the aim, that is said. A line "other reading" puts the question of
the line before it to another kind of map; it does not replace that line.

**Errors** are shares of the ten nearest cases. **Flips** are shares of the distance of two random cases; "control" is an image
put into itself. The **energy ratio** of a map that looks nowhere in particular is 1. Grad-CAM averages each channel's weight over
the whole map, so it cannot show where a pooling looks; cell by cell it can, but with pooling inside the predicted lesion such a
map follows the predicted outline *by construction*, up to half a cell: the mask is averaged over blocks, and the cells read up
and left of their block's middle. The lines without a network say what each number is worth: lesions lie near the middle, so a
Gaussian there scores well.

**Alignment**: where a cell of a coarse stage lies on the image. First each network had its own (half a pixel with a segmentation
branch, the receptive field without), by reasoning alone. The rows of fold 1 of BUS-BRA then showed that the choice moves the
energy ratio there more than the method does. So it was measured on networks of both methods, without reading an outline (last
section); since then all maps are read by the receptive field. The order matters: those who made the rule knew these rows, and it
favours Y-Net. No aim was moved; half a pixel for both and the first reading stay as "other reading".

**Two ambiguities.** SPDD (same manifestation in another disease) has an aim and falls. DPSD (one disease at different stages)
had none: its recall is the share of right answers that come from another stage, and on the phantom it is lower with Y-Net than
with its twin and below chance, in the tables of means. Counted, a list still holds more right answers of another stage with
Y-Net, on each of the five phantoms, since more answers are right; but its right answers lean to the query's own stage, which the
twin's do not.

**Tried against the missed aims**: other poolings, each a row of the tables of means. On the phantom Y-Net pools inside the
predicted lesion already; one stage deeper, or without masks, the background is suppressed less. On BUS-BRA Y-Net is plain R-MAC.
Pooling inside the predicted lesion there makes the codes move more with the lesion and no more with the background, which is
the direction the method means, but far from half of the twin's; the gain on ambiguous cases and the ranking do not get better
by it (`tables.md`). Pooling learned without masks flips fewer bits with the background than the twin on the phantom, but its
maps lie less on the lesion there. On BUS-BRA, Y-Net and its twin were measured on trainings of seed 1, the two other poolings on
seed 0: differences between these pairs hold a difference of trainings too.
"""

#: Said where rows from before the rule of alignment are shown; {methods}.
FIRST_RULE = """Some rows were measured before that rule: in them the lines and columns "cell by cell" and "on C4" of {methods}
are aligned by half a pixel, those of other methods by the receptive field; pointing by the rule has a mean and no interval there.
"""


def page(rows: pd.DataFrame, folder: str | Path | None = None) -> str:
    """The study as one Markdown page: criteria and means of every set that has rows of Y-Net and of its twin."""
    from . import alignment  # here, because it uses this module's grids
    from .figures import parts  # here, because figures may call this module

    levels = read_levels(folder)
    text = [ABOUT]
    older = first_rule(rows)
    if older:
        text += [FIRST_RULE.format(methods=", ".join(f"`{name}`" for name in older))]
    sets = set(rows[["dataset", "preset", "variant"]].itertuples(index=False, name=None))
    for dataset, preset, variant in sorted(sets, key=lambda s: (s[0] != "phantom", s[0], s[1] == "quick", s[2])):
        chosen = select(rows, dataset, preset, variant)
        if not {"ynet", "ynet-no-seg"} <= set(chosen["method"]):
            continue
        text += [f"## {dataset}, preset {preset}" + (f", {variant}" if variant else "") + "\n"]
        for name, part in parts(chosen) or [("", chosen)]:
            if not {"ynet", "ynet-no-seg"} <= set(part["method"]):
                continue
            text += [f"### {name}\n"] if name else []
            text += [tables.markdown(criteria_table(criteria(part, folder))) + "\n"]
            text += [tables.markdown(means_table(part, levels, columns)) + "\n" for columns in (MEANS, LOOKS)]
    measured = alignment.text(alignment.read_rows(folder))
    return "\n".join([*text, measured] if measured else text)


def make(folder: Path, source: str | Path | None = None) -> list[Path]:
    """Write ``ambiguity.md`` and ``ambiguity-phantom.png`` into ``folder`` from the rows under ``source``; returns the files.

    Trains and encodes nothing. Without rows nothing is written; without the kept pictures of the phantom, or
    without the ranking of the same two runs (`experiments`), there is no picture.
    """
    from . import study_plots  # here, because it reads this module's rows

    rows = read_rows(source)
    if rows.empty:
        return []
    path = Path(folder) / "ambiguity.md"
    with paths.replacing(path) as temporary:
        temporary.write_text(page(rows, source))
    made = [path]
    kept = study_plots.read_pictures(rows, source)
    if {"ynet", "ynet-no-seg"} <= set(kept) and study_plots.ranked(kept, source):
        plots.use_style()
        figure = study_plots.before_after(select(rows, "phantom", "quick"), read_levels(source), kept, source)
        made.append(plots.save(figure, Path(folder) / "ambiguity-phantom.png"))
    return made


if __name__ == "__main__":
    sys.exit(main())
