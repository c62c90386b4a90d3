"""Controls: a training on data that something was taken from. What is still found then did not come from what was taken."""

from dataclasses import replace

import numpy as np
import pandas as pd

from ..cases.core import Cases
from ..cases.splits import validation_rows
from ..config import Config

MARGIN = 0.04  # by which the box around a lesion is widened, as a share of the image's side
UNSEEN = "GE Logiq 5 @10-12MHz"  # the scanner of BUS-BRA whose images ask networks that never saw it


def controlled(cfg: Config, database: Cases, queries: Cases) -> tuple[Cases, Cases, Cases]:
    """``(training cases, database, queries)`` of a split under ``Config.control`` and ``Config.label_share``.

    What is blanked is blanked everywhere. Shuffled labels and outlines of other images are only for the training: scores are
    taken against the true ones. A share of the labels is drawn from the *patients* of each class; their cases are repeated until
    there are as many as in ``database``, so that every share trains for the same number of steps, and the whole database is
    searched. With "scanner" the fold is left out, and of ``database`` the images of `UNSEEN` ask those of other patients
    and scanners, which are repeated likewise. Raises ``ValueError`` for a share outside ]0, 1] and where a control needs outlines
    or scanners that are not known.
    """
    if cfg.control.endswith("blanked"):
        database, queries = (_blanked(part, lesion=cfg.control == "lesion blanked") for part in (database, queries))
    training = database
    if cfg.control == "scanner":
        asks = (database.table.get("device", pd.Series("", range(len(database)))) == UNSEEN).to_numpy()
        if not asks.any():
            raise ValueError(f"{database.name}: no case whose device is {UNSEEN!r}, which this control leaves out")
        answers = np.flatnonzero(~np.isin(database.groups, database.groups[asks]))
        queries, training = database.take(asks), database.take(np.resize(answers, len(database)))
        database = database.take(answers)
    elif cfg.control == "labels shuffled":
        order = np.random.default_rng([cfg.seed, 13]).permutation(len(training))
        table = training.table.assign(label=training.table["label"].to_numpy()[order])
        training = replace(training, labels=training.labels[order], table=table)
    elif cfg.control == "masks other":
        training = replace(training, masks=_others(training, cfg.seed))
    if cfg.label_share != 1:
        training = _share(training, cfg.label_share, cfg.seed)
    return training, database, queries


def _blanked(cases: Cases, lesion: bool) -> Cases:
    """Images whose lesion, as an upright box, is the mean grey of the rest; or that are black outside the outline.

    A box, because the outline of what is missing would show the shape. Its size and place remain.
    """
    unknown = cases.ids[~(cases.has_mask & cases.masks.any((1, 2)))]
    if len(unknown):
        raise ValueError(f"{cases.name}: {len(unknown)} case(s) have no outline to blank by, first {', '.join(unknown[:3])}")
    images, content = cases.images.copy(), cases.content_mask
    for image, mask, inside in zip(images, cases.masks > 0, content, strict=True):
        if lesion:
            ys, xs = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            margin = round(MARGIN * len(mask))
            box = np.zeros_like(mask)
            box[max(0, ys[0] - margin) : ys[-1] + margin + 1, max(0, xs[0] - margin) : xs[-1] + margin + 1] = True
            rest = inside & ~box
            image[:, box & inside] = np.rint(image[:, rest if rest.any() else inside].mean(1, keepdims=True))
        else:
            image[:, ~mask] = 0
    return replace(cases, images=images)


def _others(cases: Cases, seed: int) -> np.ndarray:
    """Masks in which every known outline is that of another patient's image; each outline is used once."""
    known = np.flatnonzero(cases.has_mask)
    patients, sizes = np.unique(cases.groups[known], return_counts=True)
    if not len(known) or 2 * sizes.max() > len(known):
        raise ValueError(f"{cases.name}: {len(known)} known outlines of {len(patients)} patients cannot all go to others")
    place = dict(zip(np.random.default_rng([seed, 17]).permutation(patients), range(len(patients)), strict=True))
    order = known[np.argsort([place[group] for group in cases.groups[known]], kind="stable")]  # patient by patient
    masks = cases.masks.copy()
    masks[order] = cases.masks[np.roll(order, sizes.max())]
    return masks


def _share(cases: Cases, share: float, seed: int) -> Cases:
    if not 0 < share < 1:
        raise ValueError(f"Config.label_share: {share}; it is a share above 0, at most 1")
    rng = np.random.default_rng([seed, 19])
    chosen = rng.permutation(np.flatnonzero(validation_rows(cases.groups, cases.labels, share, seed)))
    return cases.take(np.resize(chosen, len(cases)))
