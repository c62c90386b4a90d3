"""The space of codes: purity, silhouette, UMAP."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.metrics import silhouette_score

from ... import metrics
from ...hashing import hamming, pack
from .measure import K

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
    places = np.minimum(metrics.check_k(k), (~own).sum(axis=1))
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
        "purity": metrics.mean(knn_purity(distance, labels, groups, k)),
        "chance": metrics.mean(chance),
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
