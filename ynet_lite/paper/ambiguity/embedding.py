"""The space of codes in numbers: purity, silhouette."""

import numpy as np
from sklearn.metrics import silhouette_score

from ... import metrics
from ...hashing import whole


def knn_purity(distances, labels, groups, k: int = 10, *, same: bool = True) -> np.ndarray:
    """Share of the k nearest cases of *other patients* that have the case's label, or (``same=False``) another one.

    ``distances`` (N, N), ``labels`` and ``groups`` (N,). Returns float64 (N,) in [0, 1], expected over ties. With fewer than k
    cases of other patients all of them count. NaN where there is none, and for a case at no finite distance from itself.
    """
    distances, labels, groups = np.asarray(distances, float), np.asarray(labels), np.asarray(groups)
    if distances.shape != (len(labels),) * 2 or groups.shape != labels.shape:
        raise ValueError(
            f"knn_purity: distances {distances.shape}, labels {labels.shape}, groups {groups.shape}; (N, N), (N,), (N,)"
        )
    k, found = whole("k", k), np.full(len(labels), np.nan)
    known = np.flatnonzero(np.isfinite(distances.diagonal()))
    labels, own = labels[known], groups[known][:, None] == groups[known]
    distances = np.where(own, np.inf, distances[np.ix_(known, known)])
    event = (labels[:, None] == labels) == same
    places = np.minimum(k, (~own).sum(axis=1))
    for n in np.unique(places[places > 0]):
        rows = np.flatnonzero(places == n)
        found[known[rows]] = metrics.precision(distances[rows], event[rows], int(n))
    return found


def space_numbers(distances, labels, groups, k: int = 10) -> dict[str, float]:
    """How well a space keeps a label together, without any picture: ``purity``, its ``chance`` level, ``silhouette``.

    Silhouette (Rousseeuw, J. Comput. Appl. Math. 20, 1987) in [-1, 1]: own group nearer than the next one; NaN for one label.
    """
    silhouette = float("nan")
    if 1 < len(set(np.asarray(labels).tolist())) < len(labels):
        silhouette = float(silhouette_score(distances, labels, metric="precomputed"))
    purity, chance = (metrics.mean(knn_purity(d, labels, groups, k)) for d in (distances, np.zeros(np.shape(distances))))
    return {"purity": purity, "chance": chance, "silhouette": silhouette}
