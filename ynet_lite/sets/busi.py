"""BUSI in its original layout, as a manifest; its near-duplicates and folds."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from .. import paths
from ..cases.duplicates import near_pairs
from ..cases.formats import read_image
from ..cases.manifest import EMPTY, SEPARATOR
from .folders import DataSet, find, load_folder

BUSI_CLASSES = ("benign", "malignant", "normal")

# This second outline was drawn on a canvas that shows its image with a border all around: 555 x 465 for 416 x 416.
BUSI_CENTRE_CROP = ("benign (4)_mask_1.png",)

BUSI_FOLDS = 5


def busi(data_dir=None, split: pd.DataFrame | None = None) -> pd.DataFrame:
    """Manifest of BUSI: benign, malignant and normal; one to three outlines per image; normal images have empty ones.

    The set names no patients. ``group`` is the cluster of near-duplicates and ``fold`` (1..5) keeps clusters together,
    both from ``split`` (columns ``case_id, group, fold``; the committed ``sets/data/busi.csv`` when None) and, for
    images that it does not list, from `busi_split`. Images of one patient that look different can still stand in
    different folds.

    Source: Al-Dhabyani, Gomaa, Khaled, Fahmy, Data in Brief 28 (2020) 104863, DOI 10.1016/j.dib.2019.104863.
    """
    folder = find(BUSI, data_dir)
    rows = []
    for label in BUSI_CLASSES:
        names = sorted((path.name for path in (folder / label).glob("*.png")), key=_natural)
        for name in names:
            if re.search(r"_mask(_\d+)?\.png$", name):
                continue
            stem = name.removesuffix(".png")
            own = [other for other in names if re.fullmatch(re.escape(stem) + r"_mask(_\d+)?\.png", other)]
            masks = SEPARATOR.join(str(folder / label / other) for other in own)
            if not masks and label == "normal":
                masks = EMPTY
            rows.append({"case_id": stem, "image": str(folder / label / name), "mask": masks, "label": label})
    table = pd.DataFrame(rows, columns=["case_id", "image", "mask", "label"])
    kept = paths.splits() / "busi.csv"
    if split is None and kept.is_file():
        split = pd.read_csv(kept, dtype=str)
    placed = busi_split(table, split)
    table["group"], table["fold"] = placed["group"].to_numpy(), placed["fold"].to_numpy(np.int64)
    return table


def busi_split(table: pd.DataFrame, listed: pd.DataFrame | None = None) -> pd.DataFrame:
    """Near-duplicate clusters and folds of the images of ``table``; columns ``case_id, group, fold``, same order.

    Two images are near-duplicates when their grey thumbnails (32 x 32, area means) correlate by at least 0.92; a
    cluster is a connected component, named after its first member. When ``listed`` names all images, it decides alone.
    Otherwise a cluster with a listed image takes that image's group and fold (of the first one, should a new image join
    two listed groups: then both move there, because a leak is worse than a moved case); all other clusters go, largest
    first, to the fold with the fewest cases of their class.
    """
    known = {} if listed is None else listed.drop_duplicates("case_id").set_index("case_id").to_dict("index")
    ids, labels = list(table["case_id"]), list(table["label"])
    if all(case in known for case in ids):
        group = [str(known[case]["group"]) for case in ids]
        return pd.DataFrame({"case_id": ids, "group": group, "fold": [int(known[case]["fold"]) for case in ids]})

    linked = near_duplicates(table["image"])
    listed_groups = np.array([str(known[case]["group"]) if case in known else "" for case in ids])
    linked |= (listed_groups[:, None] == listed_groups[None]) & (listed_groups[:, None] != "")
    _, component = connected_components(linked, directed=False)
    members: dict[int, list[int]] = {}
    for i in sorted(range(len(ids)), key=lambda i: _natural(ids[i])):
        members.setdefault(int(component[i]), []).append(i)

    counts = {label: [0] * BUSI_FOLDS for label in set(labels)}
    fold: dict[int, int] = {}
    waiting = []
    for key, cluster in members.items():
        placed = [int(known[ids[i]]["fold"]) for i in cluster if ids[i] in known]
        if placed:
            fold[key] = placed[0]
            for i in cluster:
                counts[labels[i]][placed[0] - 1] += 1
        else:
            waiting.append(key)
    for key in sorted(waiting, key=lambda key: (-len(members[key]), _natural(ids[members[key][0]]))):
        own = [labels[i] for i in members[key]]
        main = max(sorted(set(own)), key=own.count)
        totals = [sum(count[f] for count in counts.values()) for f in range(BUSI_FOLDS)]
        best = min(range(BUSI_FOLDS), key=lambda f: (counts[main][f], totals[f], f))
        fold[key] = best + 1
        for label in own:
            counts[label][best] += 1
    group = {
        key: next((listed_groups[i] for i in cluster if listed_groups[i]), ids[cluster[0]]) for key, cluster in members.items()
    }
    return pd.DataFrame({"case_id": ids, "group": [group[int(c)] for c in component], "fold": [fold[int(c)] for c in component]})


def near_duplicates(images: Iterable) -> np.ndarray:
    """Boolean matrix (N, N): the image files look nearly the same, see `ynet_lite.cases.duplicates.near_pairs`."""
    files = list(images)
    linked = np.eye(len(files), dtype=bool)
    i, j = near_pairs(read_image(path, 1)[0] for path in files).T
    linked[i, j] = linked[j, i] = True
    return linked


def _natural(text: str) -> tuple:
    """Sort key under which ``benign (9)`` stands before ``benign (10)``."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text))


def _load(cfg):
    return load_folder(BUSI, cfg, busi, class_names=BUSI_CLASSES, centre_crop=BUSI_CENTRE_CROP)


BUSI = DataSet(
    "busi",
    "BUSI",
    _load,
    folders=("busi", "BUSI", "Dataset_BUSI_with_GT"),
    inside=BUSI_CLASSES,
    how_to_get="get it by hand (DOI 10.1016/j.dib.2019.104863) and unpack it as busi/benign, busi/malignant, busi/normal",
    kept="busi",
)
