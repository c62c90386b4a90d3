"""Files to arrays: images and masks of every kind that a set may bring."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageOps
from scipy.io import loadmat

from . import dicom
from .manifest import first_few

JSRT_SIDE = 2048  # pixels of a raw radiograph, both ways


JSRT_WHITE = 4095  # 12 bit


def read_mat(path) -> np.ndarray:
    """The label matrix of a MATLAB file (version 7 or older): the variable ``mask``, else the only matrix in it; (H, W).

    Raises ``ValueError`` naming the file and its variables when there is no such choice.
    """
    try:
        content = loadmat(path)
    except Exception as error:  # a cut file raises many kinds; version 7.3 is another format
        raise ValueError(f"{path}: cannot be read as a MATLAB file of version 7 or older ({error})") from None
    matrices = {
        name: value
        for name, value in content.items()
        if isinstance(value, np.ndarray) and value.ndim == 2 and min(value.shape) > 1 and value.dtype.kind in "buif"
    }
    if "mask" in matrices:
        return _plain(matrices["mask"])
    if len(matrices) != 1:
        raise ValueError(f"{path}: needs a variable 'mask' or one matrix only; it holds {sorted(matrices) or 'none'}")
    return _plain(next(iter(matrices.values())))


def read_img(path) -> np.ndarray:
    """A raw JSRT radiograph: 2048 x 2048 big-endian 16 bit numbers without a header, 12 bit used; uint16 (2048, 2048).

    Turned round, 4095 - value, so that bones are bright and air is dark, as radiographs are shown. Raises ``ValueError`` for a
    file of another length or one that cannot be opened.
    """
    needed = 2 * JSRT_SIDE**2
    try:
        length = Path(path).stat().st_size
        if length != needed:
            raise ValueError(
                f"{path}: {length} bytes; a JSRT radiograph has {needed} (2048 x 2048, 16 bit); no other .IMG is known"
            )
        stored = np.fromfile(path, dtype=">u2").reshape(JSRT_SIDE, JSRT_SIDE)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    return (JSRT_WHITE - np.minimum(stored, JSRT_WHITE)).astype(np.uint16)


BITS_PER_SAMPLE = 258  # number of the TIFF tag


MASK_SCALES = (2, 4)  # a mask may be drawn at this part or multiple of its image's size


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
    - ``.IMG``: the raw radiographs of JSRT, see `read_img`.

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
    - DICOM: the stored values count. ``.mat``: see `read_mat`.

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
        return read_img(path) if suffix == ".img" else read_mat(path)
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


def _plain(matrix: np.ndarray) -> np.ndarray:
    return matrix.astype(np.uint8) if matrix.dtype == bool else np.ascontiguousarray(matrix)
