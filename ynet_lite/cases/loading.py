"""From files to arrays: read images and masks of many kinds, fit them into a square, and remember the result."""

import contextlib
import hashlib
import json
import os
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from .. import paths
from . import dicom
from .core import CONTENT, Cases
from .duplicates import check_pictures
from .formats import open_picture, planes, read_mask, sha256
from .grey import grey_range, to_bytes
from .manifest import EMPTY, SEPARATOR, SHOWN, ManifestError, check_manifest, files, first_few, kept, row_names

READER = 3  # raise it when reading or resizing changes, so that older caches are not used

BOX = ("height", "width", *CONTENT)
MASK_SCALES = (2, 4)  # a mask may be drawn at this part or multiple of its image's size
NEARLY_CONSTANT = 8  # grey values between the darkest and the brightest pixel
BAR = 3  # seconds without a progress bar: for a small set it would only flash up


def letterbox(array: np.ndarray, size: int, mask: bool = False) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Fit an image, uint8 (C, H, W), or a mask, uint8 (H, W), into a square, keeping its aspect ratio; the rest is 0.

    With ``s = size / max(H, W)`` the content gets ``max(1, round(s H)) x max(1, round(s W))`` pixels in the middle. Images are
    resized bilinearly with antialiasing; in a mask every new pixel takes the class that covers most of its area (the lower class
    on a tie), so areas are kept but what covers less than half a pixel vanishes.

    Returns the square, uint8 (C, size, size) or (size, size), and the box ``(top, left, height, width)`` of the content.
    """
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != (2 if mask else 3):
        raise ValueError(f"letterbox: needs uint8 {'(H, W)' if mask else '(C, H, W)'}, got {array.dtype} of shape {array.shape}")
    if size < 1 or 0 in array.shape:
        raise ValueError(f"letterbox: cannot fit shape {array.shape} into a square of {size}")
    high, wide = array.shape[-2:]
    scale = size / max(high, wide)
    height, width = max(1, round(high * scale)), max(1, round(wide * scale))
    top, left = (size - height) // 2, (size - width) // 2
    if mask:
        resized = _resize_mask(array, height, width)
    else:  # Pillow widens the filter when it shrinks: no aliasing
        filtering = Image.Resampling.BILINEAR
        resized = np.stack([np.asarray(Image.fromarray(plane).resize((width, height), filtering)) for plane in array])
    square = np.zeros((*array.shape[:-2], size, size), np.uint8)
    square[..., top : top + height, left : left + width] = resized
    return square, (top, left, height, width)


def resize_cases(cases: Cases, size: int, channels: int) -> Cases:
    """``cases`` at another size (images antialiased, masks by largest area) and number of channels; itself if equal."""
    images, masks = cases.images, cases.masks
    if images.shape[2] != size or images.shape[3] != size:
        images = np.stack([letterbox(image, size)[0] for image in images])
        masks = np.stack([letterbox(mask, size, mask=True)[0] for mask in masks])
    if images.shape[1] == 1 and channels == 3:
        images = np.repeat(images, 3, axis=1)
    elif images.shape[1] == 3 and channels == 1:
        images = np.floor(images.transpose(0, 2, 3, 1) @ np.array([0.299, 0.587, 0.114]) + 0.5).astype(np.uint8)[:, None]
    return cases if images is cases.images else replace(cases, images=images, masks=masks)


def load_table(
    table: pd.DataFrame,
    *,
    name: str,
    size: int,
    channels: int = 1,
    class_names: Sequence[str] | None = None,
    mask_names: Sequence[str] = ("background", "lesion"),
    mask_values: Sequence[str] = (),
    folder=None,
    finer: Sequence[str] = (),
    centre_crop: Sequence[str] = (),
    expected: Mapping[str, str] | None = None,
) -> Cases:
    """Read every case of a manifest into a `Cases`, from the cache when nothing has changed.

    Parameters
    ----------
    table : a manifest (see `check_manifest`, which is called first).
    name : name of the set, used in errors and cache files.
    size, channels : the square's side in pixels; 1 (grey) or 3 (RGB).
    class_names : order of the classes; sorted labels of the table when None.
    mask_names, mask_values : names of the mask values 0, 1, ..., and what stands for them in the files (see `read_mask`).
    folder : what relative paths are relative to; paths below it are stored relative to it in the returned table.
    finer : columns that refine the class.
    centre_crop : names of mask files that are larger than their image by a border on all sides, which is cut off.
    expected : SHA-256 per path relative to ``folder``; a file that differs is an error.

    Several mask files of one case are joined by the larger value of each pixel. A mask has its image's size, or a half, a
    quarter, twice or four times of it. The returned table has the new columns ``height, width`` (of the original, pixels) and
    ``box_top, box_left, box_height, box_width`` (of the content in the square, pixels). Fingerprint: SHA-256, first 16
    hexadecimal digits, of all manifest columns but the paths, of the class and mask names, and of the checksum of every file.

    Cache: the arrays, and a JSON that keeps the fingerprint by the manifest and by name, size and modification time of every
    file, so that none need be read: a file changed with both kept would be missed (delete the folder `paths.cache` then).

    Raises `ManifestError`, with the first offenders by row, for a bad manifest, unreadable files, masks of another size
    than their image, or mask values outside the declared classes.
    """
    base = Path(folder) if folder is not None else Path()
    table = check_manifest(table, name, folder=folder)
    class_names = tuple(class_names) if class_names is not None else tuple(sorted(set(table["label"])))
    mask_names = tuple(mask_names)
    unknown = [f"{row} {v!r}" for row, v in zip(row_names(table), table["label"], strict=True) if v not in class_names]
    if unknown:
        raise ManifestError(f"{name}: label is none of {list(class_names)}: {first_few(unknown)}", unknown, name)
    lacking = [column for column in finer if column not in table]
    if lacking:
        raise ManifestError(f"{name}: no column {lacking} to refine the class; found {list(table.columns)}")
    plain = table.drop(columns=[column for column in ("image", "mask", *BOX) if column in table])
    described = json.dumps([list(plain.columns), plain.astype(str).to_numpy().tolist(), class_names, mask_names])
    fingerprint = _fingerprint(table, name, base, described, expected)

    cached = paths.cache() / f"{name}-{size}-{channels}-{fingerprint}-v{READER}.npz"
    empty = {
        "images": np.zeros((len(table), channels, size, size), np.uint8),
        "masks": np.zeros((len(table), size, size), np.uint8),
        "has_mask": np.zeros(len(table), bool),
        "boxes": np.zeros((len(table), len(BOX)), np.int32),
    }
    arrays = read_cache(cached, empty)
    fresh = arrays is None
    if fresh:
        arrays = _read_all(table, name, base, empty, len(mask_names), centre_crop, tuple(mask_values))
        keep(cached, lambda file: np.savez(file, **arrays))
    out, boxes = table.reset_index(drop=True), arrays.pop("boxes")
    out[list(BOX)] = boxes.astype(np.int64)
    check_pictures(out, arrays["images"], boxes[:, 2:], name, near=fresh)
    if folder is not None:
        for column in ("image", "mask"):
            out[column] = [SEPARATOR.join(_below(part, base) for part in files(cell)) for cell in out[column]]
    labels = np.array([class_names.index(label) for label in out["label"]], np.int64)
    about = {"class_names": class_names, "mask_names": mask_names, "finer": tuple(finer), "fingerprint": fingerprint}
    return Cases(**arrays, labels=labels, table=out, name=name, **about)


def _resize_mask(array: np.ndarray, height: int, width: int) -> np.ndarray:
    if array.shape == (height, width):
        return array
    values = np.unique(array)
    layers = [Image.fromarray((array == value).astype(np.float32)) for value in values]
    cover = [np.asarray(layer.resize((width, height), Image.Resampling.BOX)) for layer in layers]
    # rounded, so that sums of single-precision weights cannot turn a tie round on another machine
    return values[np.argmax(np.round(np.stack(cover), 4), axis=0)]


def _read_all(table, name: str, base: Path, arrays: dict, classes: int, centre_crop, mask_values) -> dict[str, np.ndarray]:
    """Fill ``arrays``; what cannot be used is one error, what looks implausible one warning."""
    images, masks, has_mask, boxes = arrays.values()
    (n, channels, size, _), labels = images.shape, table["label"].to_numpy()
    offenders, deep, blank = [], [], []
    found: dict[str, list[str]] = defaultdict(list)
    spans: dict[str, tuple[float, float]] = {}  # black and white of the whole set, for pictures that do not say their depth
    cells = list(zip(row_names(table), table["image"], table["mask"], strict=True))
    dicom.warn_about([base / cell for cell in table["image"] if dicom.is_dicom(base / cell)])

    def keep(i: int, picture) -> None:
        image = planes(to_bytes(picture, spans.get(picture.array.dtype.kind)), channels)
        images[i], box = letterbox(image, size)
        boxes[i] = (*image.shape[1:], *box)
        if np.ptp(image) <= NEARLY_CONSTANT:
            found["image(s) (nearly) constant, without content"].append(f"{cells[i][0]} {cells[i][1]}")

    for i, (row, image_cell, mask_cell) in enumerate(tqdm(cells, desc=f"reading {name}", unit="case", leave=False, delay=BAR)):
        try:
            picture = open_picture(base / image_cell)
            mask = _read_masks(mask_cell, base, picture.array.shape[:2], classes, centre_crop, mask_values)
        except ValueError as error:
            offenders.append(f"{row}: {error}")
            continue
        if picture.bits or picture.array.dtype == np.uint8:  # the file itself says which number is white
            keep(i, picture)
        else:
            deep.append(i)
            spans[picture.array.dtype.kind] = grey_range(picture.array, spans.get(picture.array.dtype.kind, (0, 0)))
        if mask is None:
            continue
        small = letterbox(mask, size, mask=True)[0]
        lost = set(np.unique(mask)) - set(np.unique(small)) - {0}
        if mask.all():
            found["mask(s) cover the whole image"].append(f"{row} {mask_cell}")
        elif lost:
            found["outline(s) vanish at this size and count as unknown"].append(f"{row} {mask_cell}")
            continue
        elif not mask.any() and files(mask_cell) != [EMPTY]:
            blank.append(i)
        masks[i], has_mask[i] = small, True
    if offenders:
        more = [f"and {len(offenders) - SHOWN} more"] if len(offenders) > SHOWN else []
        text = "\n- ".join([f"{name}: {len(offenders)} of {n} cases cannot be used", *offenders[:SHOWN], *more])
        raise ManifestError(text, offenders, name)
    for i in deep:  # read again: white is known only now
        keep(i, open_picture(base / cells[i][1]))
    if has_mask.any() and not masks.any():
        found["outline(s) known, all empty: nothing to learn an outline from"].append("every row")
    drawn = set(labels[masks.any((1, 2))])
    odd = [f"{cells[i][0]} {cells[i][2]}" for i in blank if labels[i] in drawn]
    if odd:  # where a whole class has no lesion, as in BUSI, that is what its files say
        found[f"mask file(s) are empty in a class that has lesions (write {EMPTY!r} when that is meant)"] = odd
    if found:
        parts = [f"{len(rows)} {what}: {first_few(rows)}" for what, rows in found.items()]
        lines = [f"{what}: {row}" for what, rows in found.items() for row in rows]
        warnings.warn(f"{name}: {'; '.join(parts)}{kept(f'{name}-warnings', lines)}", stacklevel=3)
    return arrays


def _read_masks(cell: str, base: Path, shape: tuple[int, ...], classes: int, centre_crop, values=()) -> np.ndarray | None:
    """The joined mask of one case in the image's size; None when the outline is unknown."""
    parts = files(cell)
    if not parts:
        return None
    height, width = shape
    joined = np.zeros(shape, np.uint8)
    for part in [] if parts == [EMPTY] else parts:
        mask = read_mask(base / part, classes, values)
        top, left = (mask.shape[0] - height) // 2, (mask.shape[1] - width) // 2
        if Path(part).name in centre_crop and min(top, left) >= 0:
            mask = mask[top : top + height, left : left + width]
        h, w = mask.shape
        if any((h * k, w * k) == (height, width) or (h, w) == (height * k, width * k) for k in MASK_SCALES):
            mask = _resize_mask(mask, height, width)
        if mask.shape != (height, width):
            raise ValueError(f"{base / part}: the mask has {w} x {h} pixels, its image {width} x {height}; both must be equal")
        joined = np.maximum(joined, mask)
    return joined


def _fingerprint(table, name: str, base: Path, described: str, expected: Mapping[str, str] | None) -> str:
    cells = [[files(cell) for cell in table[column]] for column in ("image", "mask")]
    parts = dict.fromkeys(part for column in cells for cell in column for part in cell if part != EMPTY)
    seen = [(os.path.abspath(base / part), (base / part).stat()) for part in parts]
    seen = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in seen]
    cheap = json.dumps([described, sorted((expected or {}).items()), cells, seen])
    note = paths.cache() / f"{name}-files-{hashlib.sha256(cheap.encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or damaged: read the files
        stored = json.loads(note.read_text())["fingerprint"]
        if isinstance(stored, str) and len(stored) == 16:
            return stored
    sums = {part: sha256(base / part) for part in tqdm(parts, desc=f"checking {name}", leave=False, delay=BAR)}
    changed = [part for part, value in sums.items() if (expected or {}).get(_below(part, base), value) != value]
    if changed:
        raise ManifestError(
            f"{name}: {len(changed)} file(s) differ from the published ones by SHA-256: {first_few(changed)}; "
            "get the set again, or use your own copy through a manifest (dataset csv)",
            changed,
            name,
        )
    full = hashlib.sha256(described.encode())
    for column in cells:
        full.update(json.dumps([[sums.get(part, part) for part in cell] for cell in column]).encode())
    fingerprint = full.hexdigest()[:16]
    keep(note, lambda file: file.write(json.dumps({"fingerprint": fingerprint}).encode()))
    return fingerprint


def _below(part: str, base: Path) -> str:
    """Path of ``part`` relative to ``base``; ``part`` itself when it lies elsewhere or is no path. Links are not followed."""
    path, top = (Path(os.path.abspath(place)) for place in (base / part, base))
    return path.relative_to(top).as_posix() if part != EMPTY and path.is_relative_to(top) else part


def read_cache(path: Path, like: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """Arrays of a file of the cache; None where there is none, a damaged one, or one of other shapes or types than ``like``."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in like}  # reading checks the archive's CRC
    except Exception as error:  # any damage at all: make it again
        warnings.warn(f"{path.name}: the cache is damaged ({type(error).__name__}) and is made again", stacklevel=3)
        return None
    same = all(arrays[key].shape == other.shape and arrays[key].dtype == other.dtype for key, other in like.items())
    return arrays if same else None


def keep(path: Path, write) -> None:
    """Write a file of the cache; a folder that cannot be written only costs time."""
    try:
        with paths.replacing(path) as temporary, temporary.open("wb") as file:
            write(file)
    except OSError as error:
        warnings.warn(f"cannot keep {path.name} in {path.parent}: {error}", stacklevel=3)
