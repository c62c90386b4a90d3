"""BUSI in its original layout, as a manifest; its near-duplicates and folds."""

import re

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from .. import paths
from ..cases.duplicates import near_pairs
from ..cases.formats import read_image
from ..cases.manifest import EMPTY, SEPARATOR
from .folders import DataSet, find, load_folder

BUSI_CLASSES = ("benign", "malignant", "normal")
BUSI_FOLDS = 5

# This second outline was drawn on a canvas that shows its image with a border all around: 555 x 465 for 416 x 416.
BUSI_CENTRE_CROP = ("benign (4)_mask_1.png",)


def busi(data_dir=None, split: pd.DataFrame | None = None) -> pd.DataFrame:
    """Manifest of BUSI: benign, malignant and normal; one to three outlines per image; normal images have empty ones.

    The set names no patients. ``group`` is the cluster of near-duplicates and ``fold`` (1..5) keeps clusters together, both by
    `busi_split` after the list ``split`` (the committed ``sets/data/busi.csv`` when None). Images of one patient that look
    different can still stand in different folds.

    Source: Al-Dhabyani, Gomaa, Khaled, Fahmy, Data in Brief 28 (2020) 104863, DOI 10.1016/j.dib.2019.104863.
    """
    folder = find(BUSI, data_dir)
    rows = []
    for label in BUSI_CLASSES:
        images, masks = {}, {}
        for path in sorted((folder / label).glob("*.png"), key=lambda path: _natural(path.name)):
            stem, mask = re.fullmatch(r"(.+?)(_mask(?:_\d+)?)?\.png", path.name, re.DOTALL).groups()
            (masks if mask else images).setdefault(stem, []).append(str(path))
        for stem, (image,) in images.items():
            mask = SEPARATOR.join(masks.get(stem, [EMPTY] if label == "normal" else []))
            rows.append({"case_id": stem, "image": image, "mask": mask, "label": label})
    table = pd.DataFrame(rows, columns=["case_id", "image", "mask", "label"])
    kept = paths.splits() / "busi.csv"
    if split is None and kept.is_file():
        split = pd.read_csv(kept, dtype=str)
    placed = busi_split(table, split)
    table["group"], table["fold"] = placed["group"].to_numpy(), placed["fold"].to_numpy(np.int64)
    return table


def busi_split(table: pd.DataFrame, listed: pd.DataFrame | None = None) -> pd.DataFrame:
    """Near-duplicate clusters and folds of the images of ``table``; columns ``case_id, group, fold``, same order.

    A cluster is a connected component of near-duplicates (see `near_pairs`), named after its first member. When ``listed`` names
    all images, it decides alone. Otherwise a cluster with a listed image takes that image's group and fold (of the first one,
    should a new image join two listed groups: then both move there, because a leak is worse than a moved case); all other
    clusters go, largest first, to the fold with the fewest cases of their class.
    """
    known = {} if listed is None else listed.drop_duplicates("case_id").set_index("case_id").to_dict("index")
    ids = list(table["case_id"])
    placed = pd.DataFrame({"case_id": ids})
    placed["group"] = [str(known[case]["group"]) if case in known else "" for case in ids]
    placed["fold"] = [int(known[case]["fold"]) if case in known else 0 for case in ids]
    if placed["fold"].all():
        return placed

    group = placed["group"].to_numpy(str)
    linked = (group[:, None] == group) & (group != "")
    i, j = near_pairs(read_image(path, 1)[0] for path in table["image"]).T
    linked[i, j] = True
    _, component = connected_components(linked, directed=False)
    members: dict[int, list[int]] = {}
    for i in sorted(range(len(ids)), key=lambda i: _natural(ids[i])):
        members.setdefault(component[i], []).append(i)
    classes, label = np.unique(table["label"], return_inverse=True)
    counts = np.zeros((len(classes), BUSI_FOLDS), np.int64)
    for i in sorted(members.values(), key=lambda i: (not any(group[i]), -len(i))):
        own = next((placed.loc[j] for j in i if group[j]), None)
        main = np.bincount(label[i]).argmax()
        fold = own["fold"] - 1 if own is not None else np.lexsort((counts.sum(0), counts[main]))[0]
        np.add.at(counts[:, fold], label[i], 1)
        placed.loc[i, ["group", "fold"]] = ids[i[0]] if own is None else own["group"], fold + 1
    return placed


def _natural(text: str) -> tuple:
    """Sort key under which ``benign (9)`` stands before ``benign (10)``."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text))


BUSI = DataSet(
    "busi",
    "BUSI",
    lambda cfg: load_folder(BUSI, cfg, busi, class_names=BUSI_CLASSES, centre_crop=BUSI_CENTRE_CROP),
    folders=("busi", "BUSI", "Dataset_BUSI_with_GT"),
    inside=BUSI_CLASSES,
    how_to_get="get it by hand (DOI 10.1016/j.dib.2019.104863) and unpack it as busi/benign, busi/malignant, busi/normal",
    kept="busi",
)
