"""Files to arrays: images and masks of every kind that a set may bring."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from scipy.io import loadmat

from . import dicom
from .grey import Pixels, to_bytes
from .manifest import first_few

JSRT_SIDE = 2048  # pixels of a raw radiograph, both ways

JSRT_WHITE = 4095  # 12 bit

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF")  # besides DICOM, JSRT's raw files and, for masks, MATLAB matrices

MOST_PIXELS = 178_956_970  # no picture is unpacked beyond this: a small file may hold gigabytes of one colour

MASK_SCALES = (2, 4)  # a mask may be drawn at this part or multiple of its image's size

SIGNATURE = b"\x89PNG\r\n\x1a\n"

ORIENTATION = 274  # number of the tag in TIFF and EXIF


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


def read_image(source, channels: int, *, name: str | None = None, most: int = MOST_PIXELS, formats=FORMATS) -> np.ndarray:
    """Read a PNG, JPEG, TIFF, BMP, GIF or DICOM picture as uint8 (C, H, W), C = ``channels`` = 1 (grey) or 3 (RGB).

    ``source`` is a path, the bytes of a file or an open binary file; ``name`` is what errors call it. ``most``:
    pixels allowed; ``formats``: those that Pillow may try.

    - 1 bit, palette and 8 bit: as they are; colour becomes grey as ``0.299 R + 0.587 G + 0.114 B``, grey is repeated
      for three channels. Transparency is ignored: the stored colours count.
    - Deeper integers and floats: by the bits that the file says are used, else by `grey_range` of the picture, see `to_bytes`.
      `load_table` takes the range of the whole set instead.
    - The orientation tag is applied, in whatever format it stands.
    - DICOM (by suffix or by content): as shown under its first window, see `ynet_lite.cases.dicom.read_dicom`; needs the
      extra ``dicom``. Warns about names in header or pixels and about further frames.
    - ``.IMG``: the raw radiographs of JSRT, see `read_img`.

    Raises ``ValueError`` naming the file when it cannot be read, is too large, holds several pages or values that are not
    finite.
    """
    if channels not in (1, 3):
        raise ValueError(f"read_image: channels must be 1 or 3, got {channels}")
    source = _source(source, name)
    picture = open_picture(source, most=most, formats=formats)
    if dicom.is_dicom(source):
        dicom.warn_about([source])
    return planes(to_bytes(picture), channels)


def read_mask(source, classes: int = 2, values: tuple[str, ...] = ()) -> np.ndarray:
    """Read a mask file as a uint8 array of shape (H, W) with values ``0 .. classes - 1``.

    - ``values`` says what stands for each class, in order: grey values ("0", "128", "255") or colours ("#000000", "#ff0000").
      Without it, colour files must be grey (R = G = B), because a colour names no class.
    - A palette file counts by its colours when these are black and white or when ``values`` are colours, else by its indices.
    - A mask painted in one colour on a transparent layer is read from its transparency.
    - Two classes: the values may be {0, 1} (or 1 bit), {0, 255} or {0, 65535}. A mask with soft edges, or one that is or was
      a JPEG file, is cut at 128 when at least 95 % of its pixels are nearly black (< 32) or nearly white (> 223).
    - More classes: the values must be ``0 .. classes - 1`` as they are.
    - DICOM: the stored values count. ``.mat``: see `read_mat`.

    Raises ``ValueError`` naming the file and the offending values for everything else.
    """
    path = source = _source(source)
    colours = any(value.startswith("#") for value in values)
    array = open_picture(source, mask="colours" if colours else "values").array
    if values:
        return _declared(array, values, path)
    if array.ndim == 3:
        if (array != array[..., :1]).any():
            raise ValueError(
                f"{path}: a coloured mask; it must be grey with the values 0..{classes - 1} (or 0 and 255), or the manifest "
                "names the colours in a column mask_values, such as #000000;#ff0000"
            )
        array = array[..., 0]
    if not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise ValueError(f"{path}: mask values must be whole numbers")
    found = np.unique(array)
    lossy = Path(str(path)).suffix.lower() in (".jpg", ".jpeg")  # small values are noise there, not classes
    if found[0] >= 0 and found[-1] < (1 if lossy else classes):
        return array.astype(np.uint8)
    if classes == 2 and (set(found.tolist()) <= {0, 255} or set(found.tolist()) <= {0, 65535}):
        return (array > 0).astype(np.uint8)
    if classes == 2 and array.dtype == np.uint8 and found[-1] > 223:
        soft = lossy or ((found >= 32) & (found < 255)).any()  # else: labels with 255 for "ignore", say
        if soft and np.mean((array < 32) | (array > 223)) >= 0.95:
            return (array >= 128).astype(np.uint8)
    outside = [value.item() for value in found if not 0 <= value < classes]
    accepted = "0 and 1, or 0 and 255" if classes == 2 else f"0..{classes - 1}"
    raise ValueError(
        f"{path}: mask values outside the {classes} declared classes: {first_few([str(v) for v in outside])}; "
        f"accepted: {accepted}, or what the manifest's column mask_values names"
    )


def _declared(array: np.ndarray, values: tuple[str, ...], path) -> np.ndarray:
    if array.ndim == 2 and values[0].startswith("#"):
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim == 3:
        shift = np.array([65536, 256, 1], np.int64)
        grey = (array == array[..., :1]).all() and not values[0].startswith("#")
        array = array[..., 0] if grey else array.astype(np.int64) @ shift
    numbers = [int(value[1:], 16) if value.startswith("#") else int(value) for value in values]
    mask = np.zeros(array.shape, np.uint8)
    known = np.zeros(array.shape, bool)
    for i, number in enumerate(numbers):
        mask[array == number] = i
        known |= array == number
    if not known.all():
        form = "#{:06x}" if values[0].startswith("#") else "{}"
        odd = [form.format(value) for value in np.unique(array[~known]).tolist()]
        raise ValueError(f"{path}: mask values that mask_values ({'; '.join(values)}) does not name: {first_few(odd)}")
    return mask


def planes(array: np.ndarray, channels: int) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3) as (C, H, W), C = ``channels``."""
    if array.ndim == 3 and channels == 1:
        array = np.asarray(Image.fromarray(np.ascontiguousarray(array)).convert("L"))
    return np.repeat(array[None], channels, axis=0) if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def sha256(path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_picture(source, *, mask: str = "", most: int = MOST_PIXELS, formats=FORMATS) -> Pixels:
    """Decode a path, bytes or an open binary file; ``mask`` is "values" or "colours" for a mask and empty for an image.

    Sizes are checked before anything is unpacked. Whatever goes wrong becomes a ``ValueError`` that names the file.
    """
    path = source = _source(source)
    if dicom.is_dicom(source):
        return Pixels(dicom.stored(source, most)) if mask else dicom.pixels(source, most)
    suffix = Path(str(path)).suffix.lower()
    if suffix == ".img":
        return Pixels(read_img(source), 12)
    if suffix == ".mat" and mask:
        return Pixels(read_mat(source))
    try:
        content = source.getvalue() if isinstance(source, _Upload) else Path(source).read_bytes()
        picture = _decode(content, mask, most, formats)
        if picture.array.dtype.kind == "f" and not np.isfinite(picture.array).all():
            raise ValueError("holds values that are not finite (NaN or infinity)")
        return picture
    except Exception as error:  # damaged files raise what they like
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).replace(str(path), "file").strip()
        reason = re.sub(r" ?<_io\.BytesIO[^>]*>", "", reason)  # how Pillow names what it was given
        raise ValueError(
            f"{path}: cannot be read as {', '.join(formats)} and DICOM: it is damaged or another kind of file ({reason})"
        ) from None


class _Upload(io.BytesIO):
    """The bytes of a file that has a name but no place."""

    def __init__(self, content: bytes, name: str | None):
        super().__init__(content)
        self.name = name or "picture"

    def __str__(self) -> str:
        return self.name


def _source(source, name: str | None = None):
    """A path as it is; bytes or an open binary file (from its start) as an `_Upload`."""
    if isinstance(source, _Upload):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _Upload(bytes(source), name)
    if hasattr(source, "read"):
        source.seek(0)
        return _Upload(source.read(), name or str(getattr(source, "name", "picture")))
    return source


def _decode(content: bytes, mask: str, most: int, formats) -> Pixels:
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
    except Image.DecompressionBombError:
        raise ValueError(f"too many pixels; at most {most // 10**6} million are taken, make it smaller") from None
    except Exception:
        if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return Pixels(_tiff(content, most))  # a kind of TIFF that Pillow does not know
        raise
    with image:
        _check_size(*image.size, most)
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"holds {image.n_frames} pages; give one file per image")
        turned = image.getexif().get(ORIENTATION, 1)
        if image.format == "TIFF":
            bits = np.atleast_1d(image.tag_v2.get(258, 8))
            if len(bits) >= 3 and max(bits) > 8:
                return Pixels(_tiff(content, most))  # Pillow would keep the upper 8 bits only: black for a 12 bit device
            turned = 1  # Pillow turns it when it loads
        deep = content[:8] == SIGNATURE and content[24] == 16
        if deep and content[25] != 0:
            array = _deep_png(content, image.size)
            array = array[..., :3] if array.shape[2] >= 3 else array[..., 0]
            return Pixels(_upright(array, turned))
        image.load()
        array = _upright(_pixels(image, mask), turned)
        if mask and content[:8] == SIGNATURE and content[24] in (2, 4) and content[25] == 0:
            array = array // (255 // (2 ** content[24] - 1))  # Pillow spreads low depths over 0..255
        return Pixels(array)


def _check_size(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise ValueError(f"{width} x {height} pixels; at most {most // 10**6} million are taken, make it smaller")


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """The picture as its orientation tag (1 to 8) says it is to be shown."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(array[::rows, ::columns])


def _pixels(image: Image.Image, mask: str) -> np.ndarray:
    mode = image.mode
    if mode == "1":
        array = np.asarray(image).astype(np.uint8)
        return array if mask == "values" else array * np.uint8(255)
    if mode in ("P", "PA"):
        if mask != "values":
            return np.asarray(image.convert("RGB"))
        indices = np.asarray(image)
        indices = indices if indices.ndim == 2 else indices[..., 0]
        palette = np.zeros((256, 3), np.uint8)
        stored = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette[: len(stored)] = stored
        used = set(map(tuple, palette[np.unique(indices)].tolist()))
        return palette[indices, 0] if used <= {(0,) * 3, (255,) * 3} else indices.copy()
    if mode in ("LA", "RGBA"):
        array = np.asarray(image)
        colour, alpha = (array[..., 0] if mode == "LA" else array[..., :3]), array[..., -1]
        return _painted(colour, alpha) if mask and (alpha != alpha[0, 0]).any() else colour.copy()
    if mode in ("L", "La"):
        return np.asarray(image.getchannel(0)).copy()
    if mode in ("RGB", "RGBX", "RGBa"):
        return np.asarray(image)[..., :3].copy()
    if mode == "F" or mode.startswith("I"):
        return np.asarray(image).copy()
    return np.asarray(image.convert("RGB"))  # CMYK, YCbCr, LAB, HSV


def _painted(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A mask with a transparent layer: its transparency when it has one colour, its colours when what is unseen is black."""
    if (colour == colour[:1, :1]).all():
        return alpha.copy()
    if colour[alpha == 0].any():
        raise ValueError("is a mask whose transparent part is painted too; save it without transparency")
    return colour.copy()


def _tiff(content: bytes, most: int) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        if len(file.pages) != 1:
            raise ValueError(f"holds {len(file.pages)} pages; give one file per image")
        _check_size(page.imagewidth, page.imagelength * page.imagedepth, most)
        turned = page.tags[ORIENTATION].value if ORIENTATION in page.tags else 1
        try:
            array = page.asarray()
        except ValueError as error:  # LZW and others need a package that not everybody has
            if "imagecodecs" not in str(error):
                raise
            array = _tiff_by_bytes(content)
    if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in (3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] in (3, 4):
        array = array[..., :3]
    elif array.ndim != 2:
        raise ValueError(f"has the shape {array.shape}; (height, width) or three colours are understood")
    return _upright(array, turned)


def _tiff_by_bytes(content: bytes) -> np.ndarray:
    """A compressed TIFF of 16 bit colours through Pillow, which unpacks it as a wider picture of 8 bits: no value is cut."""
    memory = io.BytesIO(content)
    with tifffile.TiffFile(memory, mode="r+b") as file:
        page = file.pages[0]
        if page.bitspersample != 16 or page.planarconfig != 1 or page.is_tiled:
            raise ValueError(f"is compressed as {page.compression.name}; save it uncompressed, or install imagecodecs")
        order, shape, predictor = file.byteorder, page.shape, page.predictor
        wide = page.imagewidth * page.samplesperpixel * 2
        for tag, value in ((256, wide), (258, 8), (262, 1), (277, 1), (317, 1), (338, 0), (ORIENTATION, 1)):
            if tag in page.tags:
                page.tags[tag].overwrite(value)
    with Image.open(io.BytesIO(memory.getvalue()), formats=("TIFF",)) as image:
        array = np.ascontiguousarray(np.asarray(image)).view(f"{order}u2").reshape(shape).astype(np.uint16)
    return np.cumsum(array, axis=1, dtype=np.uint16) if predictor == 2 else array


def _chunks(content: bytes):
    """(kind, data) of the chunks of a PNG file."""
    at = len(SIGNATURE)
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        yield kind, content[at + 8 : at + 8 + length]
        at += length + 12


def _deep_png(content: bytes, size: tuple[int, int]) -> np.ndarray:
    """A 16 bit PNG with colours or alpha, uint16 (H, W, samples): Pillow would keep the upper 8 bits only.

    PNG filters each byte of a pixel by the same byte of its neighbours, so that each can be decoded as a grey picture.
    """
    width, height = size
    if content[28]:
        raise ValueError("is interlaced with 16 bits a colour; save it without interlacing")
    samples = {2: 3, 4: 2, 6: 4}[content[25]]
    row = 1 + width * samples * 2
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(b"".join(data for kind, data in _chunks(content) if kind == b"IDAT"), height * row)
    rows = np.frombuffer(raw, np.uint8).reshape(height, row)
    out = np.zeros((height, width, samples * 2), np.uint8)
    for k in range(samples * 2):
        lane = np.ascontiguousarray(np.concatenate([rows[:, :1], rows[:, 1 + k :: samples * 2]], axis=1)).tobytes()
        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lane, 1)), (b"IEND", b""))
        grey = SIGNATURE + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
        )
        out[..., k] = np.asarray(Image.open(io.BytesIO(grey)))
    return out.view(">u2").astype(np.uint16)


def _plain(matrix: np.ndarray) -> np.ndarray:
    return matrix.astype(np.uint8) if matrix.dtype == bool else np.ascontiguousarray(matrix)
