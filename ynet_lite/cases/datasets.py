"""The real sets in their original layout, as manifests: BUS-BRA and BUSI."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse.csgraph import connected_components

from .. import paths
from .loading import read_image, sha256
from .manifest import EMPTY, SEPARATOR, ManifestError, first_few

FOLDERS = {  # names of the folder, and what must be inside so that it is the set
    "busbra": (("busbra", "BUSBRA", "BUS-BRA"), ("bus_data.csv", "5-fold-cv.csv", "Images", "Masks")),
    "busi": (("busi", "BUSI", "Dataset_BUSI_with_GT"), ("benign", "malignant", "normal")),
}
HOW_TO_GET = {
    "busbra": "`python -m ynet_lite.cases.download busbra` fetches it (134 MB, DOI 10.5281/zenodo.7730709)",
    "busi": "get it by hand (DOI 10.1016/j.dib.2019.104863) and unpack it as busi/benign, busi/malignant, busi/normal",
}
BUSI_CLASSES = ("benign", "malignant", "normal")
# This second outline was drawn on a canvas that shows its image with a border all around: 555 x 465 for 416 x 416.
BUSI_CENTRE_CROP = ("benign (4)_mask_1.png",)
BUSI_FOLDS = 5
THUMBNAIL = 32  # side of the grey thumbnails that are compared, pixels
NEAR_DUPLICATE = 0.92  # correlation; repeated scans of one view lie above it, the closest different views at .914


@dataclass(frozen=True)
class Verification:
    """What `verify` found: how many files it compared, which are missing and which differ (paths below ``folder``)."""

    name: str
    folder: Path
    checked: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.missing and not self.changed

    def __str__(self) -> str:
        if self.ok:
            return f"{self.name}: all {self.checked} files in {self.folder} are as published"
        parts = [f"{self.name}: {len(self.missing)} missing and {len(self.changed)} changed file(s) of {self.checked}"]
        parts += [f"missing: {first_few(self.missing)}"] if self.missing else []
        parts += [f"changed: {first_few(self.changed)}"] if self.changed else []
        return "; ".join(parts)


def find(name: str, data_dir=None) -> Path:
    """The folder of the set ``name`` (``busbra`` or ``busi``) in its original layout.

    Looked for in ``data_dir`` when given (and nowhere else), otherwise in ``YNET_DATA_DIR``, then in ``data/raw/``;
    either the folder itself or one that holds it. Raises ``FileNotFoundError`` saying where it looked and how to get
    the set.
    """
    if name not in FOLDERS:
        raise ValueError(f"find: unknown set {name!r}; known: {sorted(FOLDERS)}")
    if data_dir:
        roots = [Path(data_dir)]
    else:
        named = os.environ.get("YNET_DATA_DIR")
        # a notebook runs in its own folder: a relative path counts from the project
        roots = [paths.root() / named] if named else []
        roots.append(paths.raw())
    names, inside = FOLDERS[name]
    for root in roots:
        for folder in (root / names[0], *(root / other for other in names[1:]), root):
            if all((folder / part).exists() for part in inside):
                return folder
    raise FileNotFoundError(
        f"{name}: not found in {', '.join(map(str, roots))} (a folder {names[0]}/ with {', '.join(inside)}); "
        f"set YNET_DATA_DIR to the folder that holds it, or get it: {HOW_TO_GET[name]}"
    )


def busbra(data_dir=None, label: str = "pathology") -> pd.DataFrame:
    """Manifest of BUS-BRA: 1,875 images of 1,064 patients, official five folds, one outline per image.

    ``label`` is ``pathology`` (benign / malignant, proven by biopsy) or ``birads`` (``BI-RADS 2`` .. ``BI-RADS 5``).
    Columns besides the required ones: ``mask, pathology, birads, histology, device, side``. ``group`` is the patient
    (``Case``), ``fold`` the ``kFold`` column; the ``valid_*`` columns divide patients and are not read, and neither is
    the lesion box. Raises ``FileNotFoundError`` (see `find`) or `ManifestError` when the two tables of the set do not
    fit each other.

    Source: Gomez-Flores, Gregorio-Calas, Pereira, Medical Physics 51 (2024) 3110-3123, DOI 10.5281/zenodo.7730709.
    """
    if label not in ("pathology", "birads"):
        raise ValueError(f"busbra: label must be 'pathology' or 'birads', got {label!r}")
    folder = find("busbra", data_dir)
    wanted = ["ID", "Case", "Histology", "Pathology", "BIRADS", "Device", "Side"]
    cases = _columns(folder / "bus_data.csv", wanted)
    folds = _columns(folder / "5-fold-cv.csv", ["ID", "kFold"])
    odd = sorted(set(cases["ID"]) ^ set(folds["ID"]))
    if odd or folds["ID"].duplicated().any():
        raise ManifestError(
            f"busbra: bus_data.csv and 5-fold-cv.csv must list the same cases once; they differ in {first_few(odd)}"
        )
    fold = cases["ID"].map(folds.set_index("ID")["kFold"])
    number = cases["ID"].str.removeprefix("bus_")
    return pd.DataFrame(
        {
            "case_id": cases["ID"],
            "image": [str(folder / "Images" / f"{case}.png") for case in cases["ID"]],
            "mask": [str(folder / "Masks" / f"mask_{case}.png") for case in number],
            "label": cases["Pathology"] if label == "pathology" else "BI-RADS " + cases["BIRADS"],
            "group": cases["Case"],
            "fold": fold.astype(np.int64),
            "pathology": cases["Pathology"],
            "birads": cases["BIRADS"],
            "histology": cases["Histology"],
            "device": cases["Device"],
            "side": cases["Side"],
        }
    )


def _columns(path: Path, wanted: list[str]) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [column for column in wanted if column not in table]
    if missing:
        raise ManifestError(f"{path}: missing column(s) {missing}; found {list(table.columns)}")
    return table[wanted]


def busi(data_dir=None, split: pd.DataFrame | None = None) -> pd.DataFrame:
    """Manifest of BUSI: benign, malignant and normal; one to three outlines per image; normal images have empty ones.

    The set names no patients. ``group`` is the cluster of near-duplicates and ``fold`` (1..5) keeps clusters together,
    both from ``split`` (columns ``case_id, group, fold``; the committed ``data/splits/busi.csv`` when None) and, for
    images that it does not list, from `busi_split`. Images of one patient that look different can still stand in
    different folds.

    Source: Al-Dhabyani, Gomaa, Khaled, Fahmy, Data in Brief 28 (2020) 104863, DOI 10.1016/j.dib.2019.104863.
    """
    folder = find("busi", data_dir)
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
    if split is None:
        kept = paths.splits() / "busi.csv"
        split = pd.read_csv(kept, dtype=str) if kept.is_file() else None
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
    """Boolean matrix (N, N): thumbnails of the image files correlate by at least `NEAR_DUPLICATE`."""
    thumbnails = []
    for path in images:
        grey = Image.fromarray(read_image(path, 1)[0]).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
        values = np.asarray(grey, np.float64).ravel()
        values = values - values.mean()
        thumbnails.append(values / max(np.linalg.norm(values), 1e-9))
    thumbnails = np.stack(thumbnails)
    # rounded, so that the last digit of a sum cannot decide on another machine
    return np.round(thumbnails @ thumbnails.T, 6) >= NEAR_DUPLICATE


def checksums(name: str) -> dict[str, str]:
    """The kept list ``data/splits/<name>.sha256``: SHA-256 per path relative to the set's folder."""
    path = paths.splits() / f"{name}.sha256"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the list of checksums of {name} is missing; it belongs to the project")
    pairs = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {name.strip().removeprefix("./"): digest for digest, name in pairs}


def verify(name: str, folder=None, only: str = "*") -> Verification:
    """Compare the files of the set ``name`` in ``folder`` (looked for when None) with the kept checksums.

    ``only`` is a shell pattern on the relative paths, for example ``*.csv``. Files that the list does not name are
    ignored.
    """
    folder = find(name) if folder is None else Path(folder)
    listed = {path: digest for path, digest in checksums(name).items() if fnmatch.fnmatch(path, only)}
    missing = [path for path in listed if not (folder / path).is_file()]
    gone = set(missing)
    present = [path for path in listed if path not in gone]
    changed = [path for path in present if sha256(folder / path) != listed[path]]
    return Verification(name, folder, len(listed), tuple(missing), tuple(changed))


def _natural(text: str) -> tuple:
    """Sort key under which ``benign (9)`` stands before ``benign (10)``."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text))
