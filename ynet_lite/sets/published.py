"""Manifests of other published sets: ORIGA-650, TN-SCUI 2020, JSRT and HAM10000, each from the layout it is published in.

None of these functions has met the real files: they are built from published descriptions of the layout, and tested on small
folders made after it. What each set is and on what terms it can be had stands in ``data/README.md``. A manifest is used as any
other own data::

    python -m ynet_lite.sets.published ham10000 FOLDER ham10000.csv
    YNET_DATASET=csv YNET_MANIFEST=ham10000.csv

BUS-BRA and BUSI have functions of their own in `ynet_lite.cases.datasets` and need no CSV; BUSI's reads the complete set as
well as the part whose list is kept here.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from ..cases.manifest import SEPARATOR, ManifestError, check_manifest, first_few
from ..cases.splits import deal
from ..paths import write_csv, yours

ORIGA_MASKS = ("Semi-automatic-annotations", "manual marking", "Masks")

TNSCUI_MALIGNANT, TNSCUI_IMAGES = 2003, 3644

MASK_END = "_segmentation"

FOLDS = {"origa": 10, "tnscui": 10, "ham10000": 5}  # ten where the release tested on a tenth


def origa(folder) -> pd.DataFrame:
    """Manifest of ORIGA(-light): 650 fundus photographs, 168 with glaucoma, optic disc (1) and cup (2) outlined.

    Layout: ``OrigaList.csv`` (``Filename, Glaucoma``, and ``Eye, ExpCDR, Set`` where given), ``Images/NNN.jpg``, and one mask per
    image, ``NNN.mat`` (see `read_mat`) or ``NNN.png`` with 0, 1, 2, in the first of `ORIGA_MASKS` that is there. Without a mask
    the outline counts as unknown. The cup-to-disc ratio is not read: it would tell the answer.

    No patient is named, so ``group`` is the image: the two eyes of one person can stand on both sides. ``fold`` (1 to 10) is
    ours (`deal`); which tenth the released code tested on is not published. ``set`` is the authors' division into A and B.
    Built from the published layout and never run on the real files; access is on request, see the provider.

    Source: Zhang et al., "ORIGA-light", EMBC 2010, DOI 10.1109/IEMBS.2010.5626137. Raises as all functions here:
    ``FileNotFoundError`` for a folder that lacks a part, `ManifestError` for a list that does not fit the files.
    """
    folder = _folder("origa", folder, "OrigaList.csv", "Images")
    listed = _table(folder / "OrigaList.csv", ("Filename", "Glaucoma"))
    names = [Path(name).stem for name in listed["Filename"]]
    labels = _named(listed["Glaucoma"], {"0": "normal", "1": "glaucoma"}, folder / "OrigaList.csv", "Glaucoma")
    at = next((folder / part for part in ORIGA_MASKS if (folder / part).is_dir()), None)
    images = _by_stem(_files(folder / "Images"), ".jpg", ".jpeg", ".png")
    table = _manifest(names, images, _by_stem(_files(at), ".mat", ".png"), labels, names, folder)
    table["fold"] = deal(table["group"], table["label"], FOLDS["origa"])
    table["mask_names"] = "background;disc;cup"
    for column, name in (("Eye", "eye"), ("Set", "set")):
        if column in listed:
            table[name] = listed[column].to_numpy()
    return table


def tnscui(folder) -> pd.DataFrame:
    """Manifest of the training part of TN-SCUI 2020: 3,644 thyroid nodules in ultrasound, 2,003 malignant, outlined.

    Layout: ``train.csv`` (``ID, CATE``; 0 benign, 1 malignant), ``image/N.PNG`` and ``mask/N.PNG``. That 1 means malignant is
    checked by the published numbers when the list is complete.

    No patient is named, so ``group`` is the image, and views of one patient can stand on both sides. ``fold`` (1 to 10) is ours
    (`deal`); the released test tenth (172 benign, 193 malignant) is not published as a list. Built from the published layout
    and never run on the real files; access is by registration, see the provider.

    Source: the challenge "Thyroid nodule segmentation and classification in ultrasound images", MICCAI 2020.
    """
    folder = _folder("tnscui", folder, "train.csv", "image", "mask")
    listed = _table(folder / "train.csv", ("ID", "CATE"))
    names = [Path(name).stem for name in listed["ID"]]
    labels = _named(listed["CATE"], {"0": "benign", "1": "malignant"}, folder / "train.csv", "CATE")
    malignant = labels.count("malignant")
    if len(labels) == TNSCUI_IMAGES and malignant != TNSCUI_MALIGNANT:
        raise ManifestError(
            f"{folder / 'train.csv'}: {malignant} of {len(labels)} cases have CATE 1, published are {TNSCUI_MALIGNANT} malignant "
            "ones; the numbers mean something else here, so write the manifest by hand"
        )
    images, masks = (_by_stem(_files(folder / part), ".png") for part in ("image", "mask"))
    table = _manifest(names, images, masks, labels, names, folder)
    table["fold"] = deal(table["group"], table["label"], FOLDS["tnscui"])
    return table


def jsrt(folder) -> pd.DataFrame:
    """Manifest of the 154 JSRT chest radiographs with a nodule: 100 malignant, 54 benign; the **lungs** are outlined (SCR).

    Layout, at any depth below ``folder``: ``CLNDAT_EN.txt``, ``JPCLN001.IMG`` ... (see `read_img`; else conversions to DICOM or
    PNG of the same names) and SCR's ``masks/left lung/JPCLN001.gif`` and ``masks/right lung/...`` (1024 x 1024, joined by the
    loader). A case without both lungs has an unknown outline. The nodule's position and size are not read.

    Each radiograph is its own ``group``: the set has one per case and names no patients. ``split`` is the released protocol,
    `sklearn.model_selection.train_test_split` with a tenth for the test and ``random_state=11``, over the cases sorted by name;
    in which order the released code held them is not published, so its test list may differ. Built from the published layout
    and never run on the real files.

    Sources: Shiraishi et al., AJR 174 (2000) 71-74; SCR: van Ginneken, Stegmann, Loog, Medical Image Analysis 10 (2006) 19-40.
    """
    folder = _folder("jsrt", folder)
    lists = sorted(folder.rglob("CLNDAT_EN.[tT][xX][tT]"))
    if not lists:
        raise FileNotFoundError(f"jsrt: no CLNDAT_EN.txt below {folder}; {HOW_TO_GET['jsrt']}")
    text = lists[0].read_text(encoding="latin-1")
    # by name instead of by line: line ends are missing in places
    parts = re.split(r"(JPCLN\d{3})\.IMG", text, flags=re.IGNORECASE)
    rows = {}
    for name, row in zip(parts[1::2], parts[2::2], strict=True):
        kind = re.search(r"\b(benign|malignant)\b", row, flags=re.IGNORECASE)  # the diagnosis that follows may say it again
        if kind is None:
            raise ManifestError(f"{lists[0]}: {name}: needs a field that says benign or malignant, found {row.split()}")
        if name.upper() in rows:
            raise ManifestError(f"{lists[0]}: {name} stands in the list twice")
        rows[name.upper()] = (kind[0].lower(), row.split()[0])
    names = sorted(rows)
    paths = _files(folder, "jpcln")
    lungs = [
        _by_stem([p for p in paths if p.parent.name.lower() == f"{side} lung"], ".gif", ".png") for side in ("left", "right")
    ]
    radiographs = [p for p in paths if "masks" not in (part.lower() for part in p.relative_to(folder).parts)]
    images: dict[str, Path] = {}
    for suffix in (".img", ".dcm", ".png"):  # the original before its conversions
        images = _by_stem(radiographs, suffix) | images
    masks = {stem: [lung[stem] for lung in lungs] for stem in lungs[0] if stem in lungs[1]}
    table = _manifest(names, images, masks, [rows[name][0] for name in names], names, folder)
    table["split"] = "train"
    if len(names) > 1:
        test = train_test_split(np.arange(len(names)), test_size=0.1, random_state=11)[1]
        table.loc[test, "split"] = "test"
    table["mask_names"] = "background;lung"
    table["subtlety"] = [rows[name][1] for name in names]
    return table


def ham10000(folder) -> pd.DataFrame:
    """Manifest of HAM10000: 10,015 dermatoscopic images of 7,470 lesions, seven diagnoses (``dx``), lesion outlined.

    Layout, at any depth below ``folder``: ``HAM10000_metadata`` (with or without ``.csv``; ``lesion_id, image_id, dx``),
    ``ISIC_NNNNNNN.jpg`` and ``ISIC_NNNNNNN_segmentation.png``. Without a mask the outline counts as unknown. The columns
    ``dx_type`` and ``localization`` are kept, age and sex are not.

    No patient is named: ``group`` is the lesion (``lesion_id``), so images of one lesion stay together, but two lesions of one
    patient can stand on both sides. ``fold`` (1 to 5) is ours (`deal`). Built from the published layout and never run on the
    real files; see the provider for the terms.

    Sources: Tschandl, Rosendahl, Kittler, Scientific Data 5 (2018) 180161, DOI 10.7910/DVN/DBW86T; outlines: Tschandl et al.,
    Nature Medicine 26 (2020) 1229-1234.
    """
    folder = _folder("ham10000", folder)
    paths = _files(folder)
    found = [path for path in paths if path.name in ("HAM10000_metadata.csv", "HAM10000_metadata") and path.is_file()]
    if not found:
        raise FileNotFoundError(f"ham10000: no HAM10000_metadata below {folder}; {HOW_TO_GET['ham10000']}")
    listed = _table(found[0], ("lesion_id", "image_id", "dx"))
    images, pictures = _by_stem(paths, ".jpg", ".jpeg"), _by_stem(paths, ".png")
    masks = {stem.removesuffix(MASK_END): path for stem, path in pictures.items() if stem.endswith(MASK_END)}
    table = _manifest(list(listed["image_id"]), images, masks, list(listed["dx"]), list(listed["lesion_id"]), folder)
    table["fold"] = deal(table["group"], table["label"], FOLDS["ham10000"])
    for column in ("dx_type", "localization"):
        if column in listed:
            table[column] = listed[column].to_numpy()
    return table


def main(argv: list[str] | None = None) -> int:
    """Command line: write the manifest of a published set as a CSV for ``YNET_MANIFEST``."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.sets.published", description=main.__doc__)
    parser.add_argument("name", choices=sorted(PUBLISHED))
    parser.add_argument("folder", help="where the set was unpacked")
    parser.add_argument("csv", type=Path, help="the manifest to write")
    given = parser.parse_args(argv)
    try:
        table = check_manifest(PUBLISHED[given.name](given.folder), given.name)
        write_csv(table, given.csv)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(table)} cases of {table['group'].nunique()} groups in {given.csv}; {HOW_TO_GET[given.name]}")
    return 0


PUBLISHED = {"origa": origa, "tnscui": tnscui, "jsrt": jsrt, "ham10000": ham10000}

HOW_TO_GET = {
    "origa": "ORIGA is given out on request by its authors (DOI 10.1109/IEMBS.2010.5626137)",
    "tnscui": "TN-SCUI 2020 is given out by its organisers after registration (tn-scui2020.grand-challenge.org)",
    "jsrt": "JSRT comes after registration from db.jsrt.or.jp, the lung masks are those of the SCR database",
    "ham10000": "HAM10000 and its lesion masks lie at DOI 10.7910/DVN/DBW86T",
}


def _folder(name: str, folder, *inside: str) -> Path:
    folder = yours(folder).resolve()  # a manifest is read from elsewhere
    missing = [part for part in inside if not (folder / part).exists()]
    if not folder.is_dir() or missing:
        raise FileNotFoundError(f"{name}: {folder} lacks {', '.join(missing) or 'everything'}; {HOW_TO_GET[name]}")
    return folder


def _table(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    table.columns = [str(column).strip() for column in table.columns]
    missing = [column for column in wanted if column not in table]
    if missing:
        raise ManifestError(f"{path}: missing column(s) {missing}; found {list(table.columns)}")
    return table.apply(lambda column: column.str.strip())


def _named(values, names: dict[str, str], path: Path, column: str) -> list[str]:
    odd = [f"row {i + 2} {value!r}" for i, value in enumerate(values) if value not in names]
    if odd:
        raise ManifestError(f"{path}: {column} must be one of {', '.join(names)}: {first_few(odd)}")
    return [names[value] for value in values]


def _files(folder: Path | None, start: str = "") -> list[Path]:
    """Files anywhere below ``folder`` whose name begins with ``start`` (in any case), sorted; hidden ones left out."""
    paths = sorted(folder.rglob("*")) if folder else []
    seen = [path for path in paths if not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)]
    return [path for path in seen if path.name.lower().startswith(start)]


def _by_stem(paths: Sequence[Path], *suffixes: str) -> dict[str, Path]:
    """Files with one of ``suffixes`` by their name without it, in small letters; the first of each name."""
    found: dict[str, Path] = {}
    for path in paths:
        if path.suffix.lower() in suffixes:
            found.setdefault(path.stem.lower(), path)
    return found


def _manifest(names, images: dict[str, Path], masks: dict, labels, groups, folder: Path) -> pd.DataFrame:
    lost = [name for name in names if name.lower() not in images]
    if lost:
        raise ManifestError(f"{folder}: {len(lost)} of {len(names)} listed cases have no image: {first_few(lost)}")
    cells = []
    for name in names:
        own = masks.get(name.lower(), [])
        cells.append(SEPARATOR.join(str(path) for path in (own if isinstance(own, list) else [own])))
    return pd.DataFrame(
        {
            "case_id": list(names),
            "image": [str(images[name.lower()]) for name in names],
            "mask": cells,
            "label": list(labels),
            "group": list(groups),
        }
    )


if __name__ == "__main__":
    raise SystemExit(main())
