"""Manifests of other published sets: ORIGA-650, TN-SCUI 2020, JSRT and HAM10000, each from the layout it is published in.

None of these functions has met the real files: they follow published descriptions of the layout, as do the tests.
``data/README.md`` says what each set is and how to get it. A manifest is used as any other own data::

    python -m ynet_lite.sets.published ham10000 FOLDER ham10000.csv
    YNET_DATASET=csv YNET_MANIFEST=ham10000.csv

All raise ``FileNotFoundError`` for a folder that lacks a part, `ManifestError` for a list that does not fit the files. None of
these sets names patients: where ``group`` is the image, views of one person can be on both sides. ``fold`` is ours (`deal`).
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from ..cases.manifest import SEPARATOR, ManifestError, check_manifest, first_few, row_names
from ..cases.splits import deal
from ..paths import write_csv, yours
from .folders import read_columns

TNSCUI_MALIGNANT = 2003

#: How many cases were published, and where outlines are looked for.
IMAGES = {"origa": 650, "tnscui": 3644, "jsrt": 154, "ham10000": 10015}
OUTLINES = {
    "origa": "NNN.mat or NNN.png in Semi-automatic-annotations, manual marking or Masks",
    "tnscui": "mask/N.PNG",
    "jsrt": "JPCLNnnn.gif or .png in the folders left lung and right lung; both are needed",
    "ham10000": "ISIC_NNNNNNN_segmentation.png",
}
APART = "ham10000"  # its outlines are an archive of their own

HOW_TO_GET = {
    "origa": "ORIGA is given out on request by its authors (DOI 10.1109/IEMBS.2010.5626137)",
    "tnscui": "TN-SCUI 2020 is given out by its organisers after registration (tn-scui2020.grand-challenge.org)",
    "jsrt": "JSRT comes after registration from db.jsrt.or.jp, the lung masks are those of the SCR database",
    "ham10000": "HAM10000 and its lesion masks lie at DOI 10.7910/DVN/DBW86T",
}


def origa(folder) -> pd.DataFrame:
    """Manifest of ORIGA(-light), with optic disc (1) and cup (2) outlined; never run on the real files.

    ``group`` is the image, ``fold`` 1 to 10; without a mask the outline is unknown. DOI 10.1109/IEMBS.2010.5626137.
    """
    folder = _folder("origa", folder, "OrigaList.csv", "Images")
    listed = read_columns(folder / "OrigaList.csv", ["Filename", "Glaucoma"])
    names = [Path(name).stem for name in listed["Filename"]]
    labels = _labels(listed, "Glaucoma", ("normal", "glaucoma"), folder / "OrigaList.csv")
    places = [folder / part for part in ("Semi-automatic-annotations", "manual marking", "Masks")]
    masks = next((_files(place) for place in places if place.is_dir()), [])
    images = _by_stem(_files(folder / "Images"), ".jpg", ".jpeg", ".png")
    table = _manifest(names, images, _by_stem(masks, ".mat", ".png"), labels, names, folder, folds=10)
    kept = listed.filter(["Eye", "Set"]).rename(columns=str.lower).reset_index(drop=True)
    return table.assign(mask_names="background;disc;cup").join(kept)


def tnscui(folder) -> pd.DataFrame:
    """Manifest of the training part of TN-SCUI 2020 (MICCAI 2020); never run on the real files.

    ``group`` is the image, ``fold`` 1 to 10. That 1 means malignant is checked by the published numbers.
    """
    folder = _folder("tnscui", folder, "train.csv", "image", "mask")
    listed = read_columns(folder / "train.csv", ["ID", "CATE"])
    names = [Path(name).stem for name in listed["ID"]]
    labels = _labels(listed, "CATE", ("benign", "malignant"), folder / "train.csv")
    malignant = labels.count("malignant")
    if len(labels) == IMAGES["tnscui"] and malignant != TNSCUI_MALIGNANT:
        raise ManifestError(
            f"{folder / 'train.csv'}: {malignant} of {len(labels)} cases have CATE 1, published are {TNSCUI_MALIGNANT} malignant "
            "ones; the numbers mean something else here, so write the manifest by hand"
        )
    images, masks = (_by_stem(_files(folder / part), ".png") for part in ("image", "mask"))
    return _manifest(names, images, masks, labels, names, folder, folds=10)


def jsrt(folder) -> pd.DataFrame:
    """Manifest of the JSRT radiographs with a nodule; the **lungs** are outlined (SCR); never run on the real files.

    ``group`` is the image; without both lungs the outline is unknown. ``split`` is the released protocol over the cases sorted by
    name; the order in the released code is not published.
    """
    folder = _folder("jsrt", folder)
    listed = _below("jsrt", folder, "CLNDAT_EN.txt")
    # by name instead of by line: line ends are missing in places
    parts = re.split(r"(JPCLN\d{3})\.IMG", listed.read_text(encoding="latin-1"), flags=re.IGNORECASE)
    rows = {}
    for name, row in zip(parts[1::2], parts[2::2], strict=True):
        kind = re.search(r"\b(benign|malignant)\b", row, flags=re.IGNORECASE)  # the diagnosis that follows may say it again
        if kind is None:
            raise ManifestError(f"{listed}: {name}: needs a field that says benign or malignant, found {row.split()}")
        if name.upper() in rows:
            raise ManifestError(f"{listed}: {name} stands in the list twice")
        rows[name.upper()] = (kind[0].lower(), row.split()[0])
    names = sorted(rows)
    paths = [path for path in _files(folder) if path.name.lower().startswith("jpcln")]
    left, right = (
        _by_stem([p for p in paths if p.parent.name.lower() == f"{side} lung"], ".gif", ".png") for side in ("left", "right")
    )
    radiographs = [p for p in paths if "masks" not in (part.lower() for part in p.relative_to(folder).parts)]
    # the original before its conversions
    images = _by_stem(radiographs, ".png") | _by_stem(radiographs, ".dcm") | _by_stem(radiographs, ".img")
    masks = {stem: [left[stem], right[stem]] for stem in left.keys() & right.keys()}
    table = _manifest(names, images, masks, [rows[name][0] for name in names], names, folder)
    table["split"] = "train"
    if len(names) > 1:
        test = train_test_split(np.arange(len(names)), test_size=0.1, random_state=11)[1]
        table.loc[test, "split"] = "test"
    return table.assign(mask_names="background;lung", subtlety=[rows[name][1] for name in names])


def ham10000(folder) -> pd.DataFrame:
    """Manifest of HAM10000: seven diagnoses (``dx``), lesion outlined; never run on the real files.

    ``group`` is the lesion (``lesion_id``), ``fold`` 1 to 5; without a mask the outline is unknown. DOI 10.7910/DVN/DBW86T.
    """
    folder = _folder("ham10000", folder)
    listed = read_columns(_below("ham10000", folder, "HAM10000_metadata", ".csv", ".tab"), ["lesion_id", "image_id", "dx"])
    paths = _files(folder)
    outlines = [path for path in paths if path.stem.lower().endswith("_segmentation")]
    masks = {stem.removesuffix("_segmentation"): path for stem, path in _by_stem(outlines, ".png").items()}
    images = _by_stem(paths, ".jpg", ".jpeg")
    table = _manifest(listed["image_id"], images, masks, listed["dx"], listed["lesion_id"], folder, folds=5)
    return table.join(listed.filter(["dx_type", "localization"]).reset_index(drop=True))


PUBLISHED = {"origa": origa, "tnscui": tnscui, "jsrt": jsrt, "ham10000": ham10000}


def main(argv: list[str] | None = None) -> int:
    """Command line: write the manifest of a published set as a CSV for ``YNET_MANIFEST``."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.sets.published", description=main.__doc__)
    parser.add_argument("name", choices=sorted(PUBLISHED))
    parser.add_argument("folder", help="where the set was unpacked")
    parser.add_argument("csv", type=Path, help="the manifest to write")
    parser.add_argument("--without-outlines", action="store_true", help="write it also when no outline was found")
    given = parser.parse_args(argv)
    try:
        table = check_manifest(PUBLISHED[given.name](given.folder), given.name)
        classes = ", ".join(f"{count} {label}" for label, count in table["label"].value_counts().sort_index().items())
        print(
            f"{given.name}: {len(table)} of {IMAGES[given.name]} published cases, {table['group'].nunique()} groups, "
            f"{(table['mask'] != '').sum()} with an outline; {classes}"
        )
        if not (table["mask"] != "").any():
            lacking = f"{given.name}: no outline was found in {given.folder}; looked for {OUTLINES[given.name]}"
            if given.name != APART and not given.without_outlines:
                raise ManifestError(f"{lacking}; --without-outlines takes the set as it is")
            print(f"warning: {lacking}", file=sys.stderr)
        write_csv(table, given.csv)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {given.csv}; {HOW_TO_GET[given.name]}")
    return 0


def _folder(name: str, folder, *inside: str) -> Path:
    folder = yours(folder).resolve()  # a manifest is read from elsewhere
    missing = [part for part in inside if not (folder / part).exists()]
    if not folder.is_dir() or missing:
        raise FileNotFoundError(f"{name}: {folder} lacks {', '.join(missing) or 'everything'}; {HOW_TO_GET[name]}")
    return folder


def _below(name: str, folder: Path, wanted: str, *endings: str) -> Path:
    """The list of a set, at any depth below ``folder``; capitals do not count, one of ``endings`` may follow."""
    names = [wanted.lower() + ending for ending in ("", *endings)]
    for path in _files(folder):
        if path.name.lower() in names and path.is_file():
            return path
    raise FileNotFoundError(f"{name}: no {wanted} below {folder}; {HOW_TO_GET[name]}")


def _labels(listed: pd.DataFrame, column: str, names: tuple[str, str], path: Path) -> list[str]:
    """Class names for a column of 0 and 1."""
    odd = [f"{row} {value!r}" for row, value in zip(row_names(listed), listed[column], strict=True) if value not in ("0", "1")]
    if odd:
        raise ManifestError(f"{path}: {column} must be one of 0, 1: {first_few(odd)}", odd, path.stem)
    return [names[int(value)] for value in listed[column]]


def _files(folder: Path) -> list[Path]:
    """What lies anywhere below ``folder``, sorted; hidden files left out."""
    paths = sorted(folder.rglob("*"))
    return [path for path in paths if not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)]


def _by_stem(paths: Sequence[Path], *suffixes: str) -> dict[str, Path]:
    """Files with one of ``suffixes`` by their name without it, in small letters; the first of each name."""
    return {path.stem.lower(): path for path in reversed(paths) if path.suffix.lower() in suffixes}


def _manifest(names, images: dict[str, Path], masks: dict, labels, groups, folder: Path, folds: int = 0) -> pd.DataFrame:
    """``masks`` holds a file or a list of files by name; without ``folds`` the caller adds a ``split``."""
    lost = [name for name in names if name.lower() not in images]
    if lost:
        text = f"{folder}: {len(lost)} of {len(names)} listed cases have no image: {first_few(lost)}"
        raise ManifestError(text, lost, folder.name)
    own = [masks.get(name.lower(), []) for name in names]
    image = [str(images[name.lower()]) for name in names]
    mask = [SEPARATOR.join(map(str, found if isinstance(found, list) else [found])) for found in own]
    cells = {"case_id": list(names), "image": image, "mask": mask, "label": list(labels), "group": list(groups)}
    return pd.DataFrame(cells | ({"fold": deal(groups, labels, folds)} if folds else {}))


if __name__ == "__main__":
    raise SystemExit(main())
