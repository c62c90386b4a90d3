"""From files to arrays: read images and masks of many kinds, fit them into a square, and remember the result."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from .. import paths
from . import dicom
from .core import Cases
from .manifest import EMPTY, SEPARATOR, SHOWN, ManifestError, check_manifest, files, first_few, row_names

READER = 1  # raise it when reading or resizing changes, so that older caches are not used
BOX = ("height", "width", "box_top", "box_left", "box_height", "box_width")
BITS_PER_SAMPLE = 258  # number of the TIFF tag
MASK_SCALES = (2, 4)  # a mask may be drawn at this part or multiple of its image's size
BAR = 3  # seconds without a progress bar: for a small set it would only flash up
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def read_image(path, channels: int) -> np.ndarray:
    """Read PNG, JPEG, TIFF, BMP or DICOM as a uint8 array of shape (C, H, W), C = ``channels`` = 1 (grey) or 3 (RGB).

    - 1 bit, palette and 8 bit: as they are; colour becomes grey as ``0.299 R + 0.587 G + 0.114 B``, grey is repeated
      for three channels. Transparency is ignored: the stored colours count.
    - 16 and 32 bit integers and floats: ``round(255 (x - min) / (max - min))`` with the image's own minimum and maximum
      (over all channels), because 10 and 12 bit devices fill only a part of the 16 bits; a constant image becomes 0.
      Exception: a 16 bit colour PNG is reduced to its upper 8 bits.
    - The orientation tag of a photograph is applied.
    - DICOM (by suffix or by content): as shown under its first window, see `ynet_lite.cases.dicom.read_dicom`; needs the
      extra ``dicom``. `load_table` warns about names in header or pixels, once per reading of a set.
    - ``.IMG``: the raw radiographs of JSRT, see `ynet_lite.cases.published.read_img`.

    Raises ``ValueError`` naming the file when it cannot be read, holds several pages or values that are not finite.
    """
    if channels not in (1, 3):
        raise ValueError(f"read_image: channels must be 1 or 3, got {channels}")
    array = _open(path, colour=True)
    if array.dtype != np.uint8:
        array = _to_bytes(array, path)
    if array.ndim == 3 and channels == 1:
        return np.asarray(Image.fromarray(array).convert("L"))[None].copy()
    if array.ndim == 2:
        return np.repeat(array[None], channels, axis=0)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def read_mask(path, classes: int = 2) -> np.ndarray:
    """Read a mask file as a uint8 array of shape (H, W) with values ``0 .. classes - 1``.

    - Colour files must be grey (R = G = B), because a colour names no class; transparency is ignored. A palette file
      counts by its colours when these are black and white, else by its indices.
    - Two classes: the values may be {0, 1} (or 1 bit), {0, 255} or {0, 65535}. A mask with soft edges or from a JPEG
      file is cut at 128 when at least 95 % of its pixels are nearly black (< 32) or nearly white (> 223).
    - More classes: the values must be ``0 .. classes - 1`` as they are.
    - DICOM: the stored values count. ``.mat``: see `ynet_lite.cases.published.read_mat`.

    Raises ``ValueError`` naming the file and the offending values for everything else.
    """
    array = _open(path, colour=False)
    if array.ndim == 3:
        if (array != array[..., :1]).any():
            raise ValueError(f"{path}: a coloured mask; it must be grey with the values 0..{classes - 1} (or 0 and 255)")
        array = array[..., 0]
    if not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise ValueError(f"{path}: mask values must be whole numbers")
    values = np.unique(array)
    lossy = Path(path).suffix.lower() in (".jpg", ".jpeg")  # small values are noise there, not classes
    if values[0] >= 0 and values[-1] < (1 if lossy else classes):
        return array.astype(np.uint8)
    if classes == 2 and (set(values.tolist()) <= {0, 255} or set(values.tolist()) <= {0, 65535}):
        return (array > 0).astype(np.uint8)
    if classes == 2 and array.dtype == np.uint8 and values[-1] > 223:
        soft = lossy or ((values >= 32) & (values <= 223)).any()  # else: labels with 255 for "ignore", say
        if soft and np.mean((array < 32) | (array > 223)) >= 0.95:
            return (array >= 128).astype(np.uint8)
    outside = [value.item() for value in values if not 0 <= value < classes]
    accepted = "0 and 1, or 0 and 255" if classes == 2 else f"0..{classes - 1}"
    raise ValueError(
        f"{path}: mask values outside the {classes} declared classes: {first_few([str(v) for v in outside])}; "
        f"accepted: {accepted}"
    )


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
    if arrays is None:
        arrays = _read_all(table, name, base, size, channels, len(mask_names), centre_crop)
        _write(cached, lambda file: np.savez(file, **arrays))
    out = table.reset_index(drop=True)
    for column, values in zip(BOX, arrays["boxes"].T, strict=True):
        out[column] = values.astype(np.int64)
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


def sha256(path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path, colour: bool) -> np.ndarray:
    """Pixels as (H, W) or (H, W, 3), in the file's own number type."""
    pixels = _no_picture_format(path, colour)
    if pixels is not None:
        return pixels
    try:
        with Image.open(path) as image:
            if image.format in ("TIFF", "GIF", "WEBP") and getattr(image, "n_frames", 1) > 1:
                raise ValueError(f"holds {image.n_frames} pages; give one file per image")
            bits = image.tag_v2.get(BITS_PER_SAMPLE, 8) if image.format == "TIFF" else 8
            if isinstance(bits, tuple) and len(bits) >= 3 and max(bits) > 8:
                pixels = _open_tiff(path)  # Pillow would keep the upper 8 bits only: black for a 10 or 12 bit device
                if pixels is not None:
                    return pixels
            image.load()
            if image.format == "JPEG" or image.format == "MPO":
                image = ImageOps.exif_transpose(image)
            return _pixels(image, colour)
    except UNREADABLE as error:
        pixels = _open_tiff(path)
        if pixels is not None:
            return pixels
        reason = str(error).replace(str(path), "file").strip() or type(error).__name__
        raise ValueError(f"{path}: cannot be read ({reason}); PNG, JPEG, TIFF, BMP and DICOM are understood") from None


def _no_picture_format(path, colour: bool) -> np.ndarray | None:
    """Pixels of DICOM, JSRT's raw files and MATLAB matrices (masks only); None when this is no such file."""
    if dicom.is_dicom(path):
        return dicom.pixels(path) if colour else dicom.stored(path)
    suffix = Path(path).suffix.lower()
    if suffix == ".img" or (suffix == ".mat" and not colour):
        from . import published  # imported late: it builds on this module

        return published.read_img(path) if suffix == ".img" else published.read_mat(path)
    return None


def _pixels(image: Image.Image, colour: bool) -> np.ndarray:
    mode = image.mode
    if mode == "1":
        array = np.asarray(image).astype(np.uint8)
        return array * np.uint8(255) if colour else array
    if mode in ("P", "PA"):
        rgb = np.asarray(image.convert("RGB"))
        if colour:
            return rgb
        black_and_white = set(map(tuple, np.unique(rgb.reshape(-1, 3), axis=0).tolist())) <= {(0,) * 3, (255,) * 3}
        return rgb[..., 0] if black_and_white else np.asarray(image.convert("P") if mode == "PA" else image)
    if mode in ("L", "LA", "La"):
        return np.asarray(image.getchannel(0)).copy()
    if mode in ("RGB", "RGBA", "RGBX", "RGBa"):
        return np.asarray(image)[..., :3].copy()
    if mode == "F" or mode.startswith("I"):
        return np.asarray(image).copy()
    return np.asarray(image.convert("RGB"))  # CMYK, YCbCr, LAB, HSV


def _open_tiff(path) -> np.ndarray | None:
    """TIFF kinds that Pillow does not know (16 bit colour, for one); None when this is no such file."""
    try:
        with tifffile.TiffFile(path) as file:
            if len(file.pages) != 1:
                return None
            array = file.pages[0].asarray()
    except Exception:  # whatever is wrong with it, the first reader's message is the one to show
        return None
    if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in (3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] in (3, 4):
        return array[..., :3]
    return array if array.ndim == 2 else None


def _to_bytes(array: np.ndarray, path) -> np.ndarray:
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: holds values that are not finite (NaN or infinity)")
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros(array.shape, np.uint8)
    return np.floor((values - low) * (255 / (high - low)) + 0.5).astype(np.uint8)


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


def _read_all(table, name, base, size, channels, classes, centre_crop) -> dict[str, np.ndarray]:
    n = len(table)
    images = np.zeros((n, channels, size, size), np.uint8)
    masks = np.zeros((n, size, size), np.uint8)
    has_mask = np.zeros(n, bool)
    boxes = np.zeros((n, len(BOX)), np.int32)
    offenders = []
    cells = list(zip(row_names(table), table["image"], table["mask"], strict=True))
    dicom.warn_about([base / cell for cell in table["image"] if dicom.is_dicom(base / cell)])
    for i, (row, image_cell, mask_cell) in enumerate(tqdm(cells, desc=f"reading {name}", unit="case", leave=False, delay=BAR)):
        try:
            image = read_image(base / image_cell, channels)
            mask = _read_masks(mask_cell, base, image.shape[1:], classes, centre_crop)
        except ValueError as error:
            offenders.append(f"{row}: {error}")
            continue
        images[i], box = letterbox(image, size)
        boxes[i] = (*image.shape[1:], *box)
        if mask is not None:
            masks[i], has_mask[i] = letterbox(mask, size, mask=True)[0], True
    if offenders:
        shown = offenders[:SHOWN] + ([f"and {len(offenders) - SHOWN} more"] if len(offenders) > SHOWN else [])
        raise ManifestError(f"{name}: {len(offenders)} of {n} cases cannot be used\n- " + "\n- ".join(shown))
    return {"images": images, "masks": masks, "has_mask": has_mask, "boxes": boxes}


def _read_masks(cell: str, base: Path, shape: tuple[int, ...], classes: int, centre_crop) -> np.ndarray | None:
    """The joined mask of one case in the image's size; None when the outline is unknown."""
    parts = files(cell)
    if not parts:
        return None
    joined = np.zeros(shape, np.uint8)
    for part in parts:
        if part == EMPTY:
            continue
        mask = read_mask(base / part, classes)
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
    except Exception:  # any damage at all: make it again
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
