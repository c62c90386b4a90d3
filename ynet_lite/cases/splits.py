"""Splits by patient: folds, and validation patients among the training patients."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd


def validation_rows(groups: Sequence, labels: Sequence, share: float, seed: int) -> np.ndarray:
    """Boolean array: the rows of the patients drawn for validation, about ``share`` of the patients of each class.

    ``groups`` and ``labels`` have the shape (N,), ``0 <= share < 1``. A patient's class is its most frequent label (on a tie the
    one that is rarer among all cases). In a class with at least two patients, at least one goes to each side; ``share = 0`` draws
    nobody. The draw depends on the set of patients and on ``seed``, not on the order of rows. Raises ``ValueError`` for other
    shares, unequal lengths, or when nobody can be drawn although ``share > 0``.
    """
    groups, labels = np.asarray(groups).astype(str), np.asarray(labels).astype(str)
    if groups.shape != labels.shape or groups.ndim != 1:
        raise ValueError(f"validation_rows: one group and one label per case, got {groups.shape} and {labels.shape}")
    if not 0 <= share < 1:
        raise ValueError(f"validation_rows: share must be in [0, 1), got {share}")
    if share == 0 or len(groups) == 0:
        return np.zeros(len(groups), bool)
    counts = pd.crosstab(groups, labels)  # patients and classes in the order of their names
    rarest_first = counts.columns[np.argsort(counts.sum(), kind="stable")]
    patient_class = counts[rarest_first].idxmax(axis=1)
    rng = np.random.default_rng(seed)
    drawn: list[str] = []
    for name in counts.columns:
        members = patient_class.index[patient_class == name]
        wanted = min(max(int(np.floor(share * len(members) + 0.5)), 1), len(members) - 1)
        drawn += list(rng.permutation(members)[: max(wanted, 0)])
    if not drawn:
        raise ValueError(
            f"validation_rows: {len(counts)} patient(s) of {counts.shape[1]} class(es) are too few to draw validation "
            "from; at least one class needs two patients, or use a share of 0"
        )
    return np.isin(groups, drawn)


def deal(groups: Sequence, labels: Sequence, folds: int) -> np.ndarray:
    """Folds 1 .. ``folds`` for cases of shape (N,), int64: no group is divided, and each class is spread evenly.

    A group's class is its most frequent label (the first by name on a tie). The groups of each class are put in the order of
    the SHA-256 of their name and dealt out one by one, each class going on where the last one stopped: groups per fold differ by
    at most one, in all and in each class. The result depends on names alone, not on rows, seeds or versions of a library.

    Raises ``ValueError`` for fewer than two folds, fewer groups than folds, or unequal lengths.
    """
    groups, labels = [str(group) for group in groups], [str(label) for label in labels]
    if len(groups) != len(labels):
        raise ValueError(f"deal: one group and one label per case, got {len(groups)} and {len(labels)}")
    n = len(set(groups))
    if folds < 2 or n < folds:
        raise ValueError(f"deal: {n} group(s) into {folds} folds; at least two folds and one group for each are needed")
    kind = pd.crosstab(np.array(groups), np.array(labels)).idxmax(axis=1).to_dict()
    order = sorted(kind, key=lambda group: (kind[group], hashlib.sha256(group.encode()).hexdigest()))
    fold = {group: 1 + i % folds for i, group in enumerate(order)}
    return np.array([fold[group] for group in groups], np.int64)
