"""From a folder of images to a manifest: the layouts that people have, and a list of what was left out."""

import re
from pathlib import Path

import pandas as pd

from .dicom import is_dicom
from .manifest import SEPARATOR

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm")
IMAGE_FOLDERS = ("image", "images", "img", "imgs")
MASK_FOLDERS = ("mask", "masks", "seg", "segmentation", "segmentations", "gt", "groundtruth", "ground_truth")
_MASK_NAME = re.compile(r"(.+?)[ _.-](?:mask|seg|segmentation|gt|groundtruth)(?:[ _.-]?\d+)?", re.IGNORECASE)


def manifest_from_folder(folder: str | Path, patient: str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest of a folder of images, and what of the folder is not in it.

    PNG, JPEG, TIFF, BMP and DICOM (by content). Understood, at any depth: a folder for each class; ``X.png`` with
    ``X_mask.png``, ``X_mask_1.png``, ...; ``images/`` and ``masks/`` with equal names. The class is the outermost folder that
    is none of those, "" where there is none. ``patient`` : a regular expression with one group, searched in the file name without
    suffix: the group is the patient, as in ``"^(P[0-9]+)"``. Without it every image counts as a patient of its own.

    Returns the manifest (``case_id, image, mask, label, group``; files relative to ``folder``; without folds, see
    `ynet_lite.cases.deal`) and a table ``file, reason`` of every file that was left out, also where a name holds no patient.
    Raises ``NotADirectoryError``, and ``ValueError`` where no case is found.
    """
    folder = Path(folder)
    if patient and not re.compile(patient).groups:
        raise ValueError(f"patient: {patient!r} has no group in brackets that says which part is the patient")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    images: dict[tuple, list[Path]] = {}
    masks: dict[tuple, list[Path]] = {}
    left_out: list[tuple[str, str]] = []
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for path in found:
        if any(part.startswith(".") for part in path.parts):
            left_out.append((path.as_posix(), "hidden"))
        elif path.suffix.lower() not in SUFFIXES and not is_dicom(folder / path):
            left_out.append((path.as_posix(), "not an image"))
        elif SEPARATOR in path.as_posix():
            left_out.append((path.as_posix(), f"a manifest needs names without {SEPARATOR!r}"))
        else:
            stem, in_masks = _stem(path), any(part.lower() in MASK_FOLDERS for part in path.parts[:-1])
            named = _MASK_NAME.fullmatch(stem)
            side = masks if in_masks or named else images
            side.setdefault((_place(path), named.group(1) if named and side is masks else stem), []).append(path)
    for key in masks.keys() - images.keys():
        left_out += [(path.as_posix(), f"a mask, and there is no image {key[1]!r}") for path in masks[key]]
    lines = []
    for key, paths in sorted(images.items()):
        for path in paths:
            name = path if len(paths) > 1 else path.with_name(_stem(path))
            group = re.search(patient, _stem(path)) if patient else None
            outlines = [mask.as_posix() for mask in masks.get(key, [])]
            if patient and not (group and group[1]):
                left_out += [(file, f"its name holds no patient as in {patient!r}") for file in (path.as_posix(), *outlines)]
                continue
            label = key[0][0] if key[0] else ""
            lines.append(
                (name.as_posix(), path.as_posix(), SEPARATOR.join(outlines), label, group[1] if group else name.as_posix())
            )
    if not lines:
        raise ValueError(f"{folder}: no case among {len(found)} files; looked for images ({' '.join(SUFFIXES)})")
    manifest = pd.DataFrame(lines, columns=["case_id", "image", "mask", "label", "group"])
    return manifest.sort_values("case_id", ignore_index=True), pd.DataFrame(sorted(set(left_out)), columns=["file", "reason"])


def _stem(path: Path) -> str:
    """The name without the suffix of an image; names of DICOM files such as ``1.2.840`` have none."""
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _place(path: Path) -> tuple[str, ...]:
    """The folders of a file without those that only divide images from masks."""
    return tuple(part for part in path.parts[:-1] if part.lower() not in IMAGE_FOLDERS + MASK_FOLDERS)
