"""From files to arrays: read images and masks of many kinds, fit them into a square, and remember the result."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import warnings
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
from .formats import MASK_SCALES, open_picture, planes, read_mask, sha256
from .grey import grey_range, to_bytes
from .manifest import EMPTY, SEPARATOR, SHOWN, ManifestError, check_manifest, files, first_few, row_names


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


READER = 2  # raise it when reading or resizing changes, so that older caches are not used

BOX = ("height", "width", *CONTENT)


def letterbox(array: np.ndarray, size: int, mask: bool = False) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Fit an image or a mask into a square, keeping its aspect ratio; the rest is 0 (black, background).

    With ``s = size / max(H, W)`` the content gets ``max(1, round(s H)) x max(1, round(s W))`` pixels in the middle.

    Parameters
    ----------
    array : uint8, (C, H, W) for an image, (H, W) for a mask.
    size : side of the square in pixels.
    mask : images are resized bilinearly with antialiasing; in a mask every new pixel takes the class that covers most
    of
        its area (the lower class on a tie), so areas are kept but what covers less than half a pixel vanishes.

    Returns the square, uint8 (C, size, size) or (size, size), and the box ``(top, left, height, width)`` of the
    content.
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
    square = np.zeros((*array.shape[:-2], size, size), np.uint8)
    window = (..., slice(top, top + height), slice(left, left + width))
    square[window] = _resize_mask(array, height, width) if mask else _resize_image(array, height, width)
    return square, (top, left, height, width)


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
    mask_names : names of the mask values 0, 1, ...
    mask_values : what stands for each of them in the files, when not 0, 1, ...: see `read_mask`.
    folder : what relative paths are relative to; paths below it are stored relative to it in the returned table.
    finer : columns that refine the class.
    centre_crop : names of mask files that are larger than their image by a border on all sides, which is cut off.
    expected : SHA-256 per path relative to ``folder``; a file that differs is an error.

    Several mask files of one case are joined by the larger value of each pixel. A mask has its image's size, or a half, a
    quarter, twice or four times of it. The returned table has the new columns
    ``height, width`` (of the original, pixels) and ``box_top, box_left, box_height, box_width`` (of the content in the
    square, pixels). Fingerprint: SHA-256, first 16 hexadecimal digits, of all manifest columns but the paths, of the
    class and mask names, and of the checksum of every file; it does not depend on where the files lie, on ``size`` or
    on ``channels``.

    Cache: ``paths.cache()/<name>-<size>-<channels>-<fingerprint>.npz``. To find it again without reading every file, a
    small JSON beside it keeps the fingerprint under a key made of the manifest and of name, size and modification time
    of every file; a file changed with both size and time kept would be missed (delete the cache folder then). A damaged
    cache is made again. Files are written under a temporary name and renamed.

    Raises `ManifestError`, with the first offenders by row, for a bad manifest, unreadable files, masks of another size
    than their image, or mask values outside the declared classes.
    """
    base = Path(folder) if folder is not None else Path()
    table = check_manifest(table, name, folder=folder)
    class_names = tuple(class_names) if class_names is not None else tuple(sorted(set(table["label"])))
    unknown = [f"{r} {v!r}" for r, v in zip(row_names(table), table["label"], strict=True) if v not in class_names]
    if unknown:
        raise ManifestError(f"{name}: label is none of {list(class_names)}: {first_few(unknown)}")
    lacking = [column for column in finer if column not in table]
    if lacking:
        raise ManifestError(f"{name}: no column {lacking} to refine the class; found {list(table.columns)}")
    mask_names = tuple(mask_names)
    plain = table.drop(columns=[column for column in ("image", "mask", *BOX) if column in table])
    described = json.dumps(
        [list(plain.columns), plain.astype(str).to_numpy().tolist(), class_names, mask_names], ensure_ascii=True
    )
    fingerprint = _fingerprint(table, name, base, described, expected)

    cached = paths.cache() / f"{name}-{size}-{channels}-{fingerprint}-v{READER}.npz"
    arrays = _read_cache(cached, len(table), size, channels)
    fresh = False
    if arrays is None:
        arrays = _read_all(table, name, base, size, channels, len(mask_names), centre_crop, tuple(mask_values))
        fresh = True
        _write(cached, lambda file: np.savez(file, **arrays))
    out = table.reset_index(drop=True)
    for column, values in zip(BOX, arrays["boxes"].T, strict=True):
        out[column] = values.astype(np.int64)
    check_pictures(out, arrays["images"], arrays["boxes"][:, 2:], name, near=fresh)
    for column in ("image", "mask"):
        out[column] = [_relative(cell, folder) for cell in out[column]]
    return Cases(
        images=arrays["images"],
        masks=arrays["masks"],
        has_mask=arrays["has_mask"],
        labels=np.array([class_names.index(label) for label in out["label"]], np.int64),
        table=out,
        class_names=class_names,
        mask_names=mask_names,
        finer=tuple(finer),
        name=name,
        fingerprint=fingerprint,
    )


def _resize_image(array: np.ndarray, height: int, width: int) -> np.ndarray:
    if array.shape[-2:] == (height, width):
        return array
    filtering = Image.Resampling.BILINEAR  # Pillow widens the filter when it shrinks: no aliasing
    return np.stack([np.asarray(Image.fromarray(plane).resize((width, height), filtering)) for plane in array])


def _resize_mask(array: np.ndarray, height: int, width: int) -> np.ndarray:
    if array.shape == (height, width):
        return array
    values = np.unique(array)
    cover = [
        np.asarray(Image.fromarray((array == value).astype(np.float32)).resize((width, height), Image.Resampling.BOX))
        for value in values
    ]
    # rounded, so that sums of single-precision weights cannot turn a tie round on another machine
    return values[np.argmax(np.round(np.stack(cover), 4), axis=0)]


def _read_all(table, name, base, size, channels, classes, centre_crop, mask_values=()) -> dict[str, np.ndarray]:
    n = len(table)
    images = np.zeros((n, channels, size, size), np.uint8)
    masks = np.zeros((n, size, size), np.uint8)
    has_mask = np.zeros(n, bool)
    boxes = np.zeros((n, len(BOX)), np.int32)
    offenders, deep, blank = [], [], []
    spans: dict[str, tuple[float, float]] = {}  # black and white of the whole set, for pictures that do not say their depth
    found: dict[str, list[str]] = {}
    cells = list(zip(row_names(table), table["image"], table["mask"], strict=True))
    dicom.warn_about([base / cell for cell in table["image"] if dicom.is_dicom(base / cell)])

    def keep(i: int, picture) -> None:
        image = planes(to_bytes(picture, spans.get(picture.array.dtype.kind)), channels)
        images[i], box = letterbox(image, size)
        boxes[i] = (*image.shape[1:], *box)
        if int(image.max()) - int(image.min()) <= NEARLY_CONSTANT:
            found.setdefault("image(s) (nearly) constant, without content", []).append(f"{cells[i][0]} {cells[i][1]}")

    for i, (row, image_cell, mask_cell) in enumerate(tqdm(cells, desc=f"reading {name}", unit="case", leave=False, delay=BAR)):
        try:
            picture = open_picture(base / image_cell)
            mask = _read_masks(mask_cell, base, picture.array.shape[:2], classes, centre_crop, mask_values)
        except ValueError as error:
            offenders.append(f"{row}: {error}")
            continue
        if picture.array.dtype == np.uint8 or picture.bits:
            keep(i, picture)
        else:
            deep.append(i)
            kind = picture.array.dtype.kind
            low, high = grey_range(picture.array)
            spans[kind] = (min(low, spans.get(kind, (0, 0))[0]), max(high, spans.get(kind, (0, 0))[1]))
        if mask is not None:
            masks[i], has_mask[i] = letterbox(mask, size, mask=True)[0], True
            what = _oddity(mask, masks[i])
            if what:
                found.setdefault(what, []).append(f"{row} {mask_cell}")
            elif not mask.any() and files(mask_cell) != [EMPTY]:
                blank.append(i)
            if what == LOST:
                masks[i], has_mask[i] = 0, False
    if offenders:
        note = paths.cache() / f"{name}-offenders.txt"
        _write(note, lambda file: file.write("\n".join([*offenders, ""]).encode()))
        shown = offenders[:SHOWN] + ([f"and {len(offenders) - SHOWN} more"] if len(offenders) > SHOWN else [])
        text = f"{name}: {len(offenders)} of {n} cases cannot be used\n- " + "\n- ".join(shown) + f"\n(all of them in {note})"
        raise ManifestError(text, offenders)
    for i in deep:  # read again: white is known only now
        keep(i, open_picture(base / cells[i][1]))
    if has_mask.any() and not masks.any():
        found.setdefault("outline(s) known, all empty: nothing to learn an outline from", []).append("every row")
    drawn = set(table["label"].to_numpy()[masks.any((1, 2))])
    odd = [f"{cells[i][0]} {cells[i][2]}" for i in blank if table["label"].iloc[i] in drawn]
    if odd:  # where a whole class has no lesion, as in BUSI, that is what its files say
        found[f"mask file(s) are empty in a class that has lesions (write {EMPTY!r} when that is meant)"] = odd
    if found:
        parts = [f"{len(rows)} {what}: {first_few(rows)}" for what, rows in found.items()]
        warnings.warn(f"{name}: " + "; ".join(parts), stacklevel=3)
    return {"images": images, "masks": masks, "has_mask": has_mask, "boxes": boxes}


NEARLY_CONSTANT = 8  # grey values between the darkest and the brightest pixel

LOST = "outline(s) vanish at this size and count as unknown"


def _oddity(mask: np.ndarray, small: np.ndarray) -> str:
    """What is implausible about a mask that could be read; empty when nothing is."""
    if mask.all():
        return "mask(s) cover the whole image"
    lost = len(set(np.unique(mask[mask > 0])) - set(np.unique(small)))
    return LOST if lost else ""


def _read_masks(cell: str, base: Path, shape: tuple[int, ...], classes: int, centre_crop, values=()) -> np.ndarray | None:
    """The joined mask of one case in the image's size; None when the outline is unknown."""
    parts = files(cell)
    if not parts:
        return None
    joined = np.zeros(shape, np.uint8)
    for part in parts:
        if part == EMPTY:
            continue
        mask = read_mask(base / part, classes, values)
        if Path(part).name in centre_crop:
            mask = _crop(mask, shape)
        if _drawn_at_another_scale(mask.shape, shape):
            mask = _resize_mask(mask, *shape)
        if mask.shape != tuple(shape):
            raise ValueError(
                f"{base / part}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image {shape[1]} x "
                f"{shape[0]}; both must be equal"
            )
        joined = np.maximum(joined, mask)
    return joined


def _drawn_at_another_scale(mask, image) -> bool:
    (h, w), (height, width) = mask, image
    return any((h * k, w * k) == (height, width) or (h, w) == (height * k, width * k) for k in MASK_SCALES)


def _crop(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    top, left = ((mask.shape[axis] - shape[axis]) // 2 for axis in (0, 1))
    return mask if min(top, left) < 0 else mask[top : top + shape[0], left : left + shape[1]]


def _fingerprint(table, name: str, base: Path, described: str, expected: Mapping[str, str] | None) -> str:
    parts = [part for column in ("image", "mask") for cell in table[column] for part in files(cell) if part != EMPTY]
    known = json.dumps(sorted(expected.items())) if expected else ""
    cheap = hashlib.sha256((described + known).encode())
    for column in ("image", "mask"):  # which file belongs to which row counts too
        cheap.update(json.dumps(table[column].tolist()).encode())
    for part in parts:
        path = base / part
        stat = path.stat()
        cheap.update(f"{os.path.abspath(path)}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    note = paths.cache() / f"{name}-files-{cheap.hexdigest()[:16]}.json"
    try:
        stored = json.loads(note.read_text())["fingerprint"]
        if isinstance(stored, str) and len(stored) == 16:
            return stored
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or damaged: read the files
    sums = {part: sha256(base / part) for part in tqdm(dict.fromkeys(parts), desc=f"checking {name}", leave=False, delay=BAR)}
    if expected:
        changed = [part for part, value in sums.items() if expected.get(_key(part, base), value) != value]
        if changed:
            raise ManifestError(
                f"{name}: {len(changed)} file(s) differ from the published ones by SHA-256: {first_few(changed)}; "
                "get the set again, or use your own copy through a manifest (dataset csv)"
            )
    full = hashlib.sha256(described.encode())
    for column in ("image", "mask"):
        cells = [[sums.get(part, part) for part in files(cell)] for cell in table[column]]
        full.update(json.dumps(cells).encode())
    fingerprint = full.hexdigest()[:16]
    _write(note, lambda file: file.write(json.dumps({"fingerprint": fingerprint}).encode()))
    return fingerprint


def _key(part: str, base: Path) -> str:
    """Path of ``part`` relative to ``base``; ``part`` itself when it lies elsewhere. Links are not followed."""
    try:
        return Path(os.path.abspath(base / part)).relative_to(os.path.abspath(base)).as_posix()
    except ValueError:
        return part


def _relative(cell: str, folder) -> str:
    if folder is None:
        return cell
    return SEPARATOR.join(part if part == EMPTY else _key(part, Path(folder)) for part in files(cell))


def _read_cache(path: Path, n: int, size: int, channels: int) -> dict[str, np.ndarray] | None:
    shapes = {
        "images": ((n, channels, size, size), np.uint8),
        "masks": ((n, size, size), np.uint8),
        "has_mask": ((n,), np.bool_),
        "boxes": ((n, len(BOX)), np.int32),
    }
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in shapes}  # reading checks the archive's CRC
    except Exception as error:  # any damage at all: make it again
        warnings.warn(f"{path.name}: the cache is damaged ({type(error).__name__}) and is made again", stacklevel=3)
        return None
    good = all(arrays[key].shape == shape and arrays[key].dtype == kind for key, (shape, kind) in shapes.items())
    return arrays if good else None


def _write(path: Path, write) -> None:
    """Write a cache file under a temporary name and rename it; a folder that cannot be written only costs time."""
    temporary = path.with_name(f".{path.stem}-{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        warnings.warn(f"cannot keep {path.name} in {path.parent}: {error}", stacklevel=3)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


BAR = 3  # seconds without a progress bar: for a small set it would only flash up
