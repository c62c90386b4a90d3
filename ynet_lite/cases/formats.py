"""Files to arrays: images and masks of every kind that a set may bring."""

import hashlib
import io
import re
import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageOps
from scipy.io import loadmat

from . import dicom
from .grey import Pixels, Refused, to_bytes
from .manifest import first_few

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF")  # besides DICOM, JSRT's raw files and, for masks, MATLAB matrices
MOST_PIXELS = 178_956_970  # no picture is unpacked beyond this: a small file may hold gigabytes of one colour
JSRT_SIDE, JSRT_WHITE = 2048, 4095  # pixels both ways of a raw radiograph, and its 12 bits
PNG, ORIENTATION, BITS, PLANES = b"\x89PNG\r\n\x1a\n", 274, 258, 284  # a signature, and numbers of TIFF tags


def read_mat(content: bytes) -> np.ndarray:
    """The label matrix of a MATLAB file (version 7 or older): the variable ``mask``, else the only matrix in it; (H, W)."""
    try:
        stored = loadmat(io.BytesIO(content))
    except Exception as error:  # a cut file raises many kinds; version 7.3 is another format
        raise Refused(f"cannot be read as a MATLAB file of version 7 or older ({error})") from None
    matrices = {
        name: np.ascontiguousarray(value)
        for name, value in stored.items()
        if isinstance(value, np.ndarray) and value.ndim == 2 and min(value.shape) > 1 and value.dtype.kind in "buif"
    }
    if "mask" not in matrices and len(matrices) != 1:
        raise Refused(f"needs a variable 'mask' or one matrix only; it holds {sorted(matrices) or 'none'}")
    matrix = matrices["mask"] if "mask" in matrices else next(iter(matrices.values()))
    return matrix.astype(np.uint8) if matrix.dtype == bool else matrix


def read_img(content: bytes) -> np.ndarray:
    """A raw JSRT radiograph: 2048 x 2048 big-endian 16 bit numbers without a header, 12 bit used; uint16 (2048, 2048).

    Turned round, 4095 - value, so that bones are bright and air is dark, as radiographs are shown.
    """
    needed = 2 * JSRT_SIDE**2
    if len(content) != needed:
        raise Refused(f"{len(content)} bytes; a JSRT radiograph has {needed} (2048 x 2048, 16 bit); no other .IMG is known")
    stored = np.frombuffer(content, dtype=">u2").reshape(JSRT_SIDE, JSRT_SIDE)
    return (JSRT_WHITE - np.minimum(stored, JSRT_WHITE)).astype(np.uint16)


def read_image(source, channels: int, *, name: str | None = None, most: int = MOST_PIXELS, formats=FORMATS) -> np.ndarray:
    """Read a PNG, JPEG, TIFF, BMP, GIF, DICOM or JSRT file as uint8 (C, H, W), C = ``channels`` = 1 (grey) or 3 (RGB).

    ``source`` is a path, the bytes of a file or an open binary file; ``name`` is what errors call it. ``most``:
    pixels allowed; ``formats``: those that Pillow may try.

    - 1 bit, palette and 8 bit: as they are; colour becomes grey as ``0.299 R + 0.587 G + 0.114 B``, grey is repeated
      for three channels. Transparency is ignored: the stored colours count. The orientation tag is applied.
    - Deeper integers and floats: see `to_bytes`; `load_table` takes the range of the whole set.
    - DICOM (by suffix or by content): see `ynet_lite.cases.dicom.pixels` and `warn_about`; needs the extra ``dicom``.

    Raises ``ValueError`` naming the file when it cannot be read, is too large, holds several pages or values that are not
    finite.
    """
    if channels not in (1, 3):
        raise ValueError(f"read_image: channels must be 1 or 3, got {channels}")
    name, content = _content(source, name)
    picture = open_picture(content, name, most=most, formats=formats)
    if dicom.is_dicom(name, content):
        dicom.warn_about([io.BytesIO(content)])
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
    colours = bool(values) and values[0].startswith("#")
    path, content = _content(source)
    array = open_picture(content, path, mask="colours" if colours else "values").array
    grey = array.ndim == 2 or bool((array == array[..., :1]).all())
    if array.ndim == 3 and grey:
        array = array[..., 0]
    if values:
        if colours or not grey:
            array = array.astype(np.int64) * 0x10101 if grey else array.astype(np.int64) @ (65536, 256, 1)
        return _declared(array, values, path)
    if not grey:
        raise ValueError(
            f"{path}: a coloured mask; it must be grey with the values 0..{classes - 1} (or 0 and 255), or the manifest "
            "names the colours in a column mask_values, such as #000000;#ff0000"
        )
    if not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise ValueError(f"{path}: mask values must be whole numbers")
    found = np.unique(array)
    lossy = Path(path).suffix.lower() in (".jpg", ".jpeg")  # small values are noise there, not classes
    if found[0] >= 0 and found[-1] < (1 if lossy else classes):
        return array.astype(np.uint8)
    if classes == 2 and (set(found.tolist()) <= {0, 255} or set(found.tolist()) <= {0, 65535}):
        return (array > 0).astype(np.uint8)
    if classes == 2 and array.dtype == np.uint8 and found[-1] > 223:
        soft = lossy or ((found >= 32) & (found < 255)).any()  # else: labels with 255 for "ignore", say
        if soft and np.mean((array < 32) | (array > 223)) >= 0.95:
            return (array >= 128).astype(np.uint8)
    outside = first_few([str(value) for value in found.tolist() if not 0 <= value < classes])
    accepted = "0 and 1, or 0 and 255" if classes == 2 else f"0..{classes - 1}"
    raise ValueError(
        f"{path}: mask values outside the {classes} declared classes: {outside}; accepted: {accepted}, or what the manifest's "
        "column mask_values names"
    )


def _declared(array: np.ndarray, values: tuple[str, ...], path: str) -> np.ndarray:
    mask = np.full(array.shape, 255, np.uint8)
    for i, value in enumerate(values):
        mask[array == (int(value[1:], 16) if value.startswith("#") else int(value))] = i
    if (mask == 255).any():
        form = "#{:06x}" if values[0].startswith("#") else "{}"
        odd = [form.format(value) for value in np.unique(array[mask == 255]).tolist()]
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


def open_picture(source, name: str | None = None, *, mask: str = "", most: int = MOST_PIXELS, formats=FORMATS) -> Pixels:
    """Decode a path, bytes or an open binary file; ``mask`` is "values" or "colours" for a mask and empty for an image.

    Sizes are checked before anything is unpacked. Whatever goes wrong becomes a ``ValueError`` that names the file.
    """
    name, content = _content(source, name)
    try:
        suffix = Path(name).suffix.lower()
        if dicom.is_dicom(name, content):
            return dicom.pixels(content, mask=bool(mask), most=most)
        if suffix == ".img":
            return Pixels(read_img(content), 12)
        if suffix == ".mat" and mask:
            return Pixels(read_mat(content))
        picture = _decode(content, mask, most, formats)
        if picture.array.dtype.kind == "f" and not np.isfinite(picture.array).all():
            raise Refused("holds values that are not finite (NaN or infinity)")
        return picture
    except Refused as error:
        raise ValueError(f"{name}: {error}") from None
    except ImportError:
        raise
    except Exception as error:  # damaged files raise what they like
        reason = re.sub(r" ?<_io\.BytesIO[^>]*>", "", dicom.first_line(error))  # how Pillow names what it was given
        raise ValueError(
            f"{name}: cannot be read as {', '.join(formats)} and DICOM: it is damaged or another kind of file ({reason})"
        ) from None


def _content(source, name: str | None = None) -> tuple[str, bytes]:
    """What errors call a file, and its bytes: of a path, bytes or an open binary file (from its start)."""
    if isinstance(source, (str, Path)):
        try:
            return str(source), Path(source).read_bytes()
        except OSError as error:
            raise ValueError(f"{source}: cannot be read ({error.strerror})") from None
    if hasattr(source, "read"):
        source.seek(0)
    name = name or str(getattr(source, "name", "picture"))
    return name, source.read() if hasattr(source, "read") else bytes(source)


def _decode(content: bytes, mask: str, most: int, formats) -> Pixels:
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
    except Image.DecompressionBombError:
        raise Refused(f"too many pixels; at most {most // 10**6} million are taken, make it smaller") from None
    except Exception:
        if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return Pixels(_tiff(content, most))  # a kind of TIFF that Pillow does not know
        raise
    with image:
        dicom.check_size(*image.size, most)
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise Refused(f"holds {image.n_frames} pages; give one file per image")
        tags = image.tag_v2 if image.format == "TIFF" else {}
        depth, kind = (content[24], content[25]) if content[:8] == PNG else (8, 0)
        if np.size(tags.get(BITS)) >= 3 and max(tags[BITS]) > 8:
            return Pixels(_deep(content, formats) if tags.get(PLANES, 1) == 1 else _tiff(content, most))
        if depth == 16 and kind:
            return Pixels(_deep(content, formats))
        array = _pixels(ImageOps.exif_transpose(image), mask)
    if mask and depth in (2, 4) and kind == 0:
        array = array // (255 // (2**depth - 1))  # Pillow spreads low depths over 0..255
    return Pixels(array)


def _deep(content: bytes, formats) -> np.ndarray:
    """16 bits a colour, of which Pillow keeps the upper byte: unpacked once more as if the other byte were the upper one."""
    halves = []
    for other in (False, True):
        with Image.open(io.BytesIO(content), formats=formats) as image:
            image.tile = [tile._replace(args=_unpacking(tile.args, other)) for tile in image.tile]
            halves.append(np.array(ImageOps.exif_transpose(image), np.uint16))
    if content[:8] == PNG and content[25] == 4:
        return halves[1][..., 0] * 256 + halves[1][..., 1]  # the four bytes of grey and alpha
    return (halves[0] * 256 + halves[1])[..., :3]


def _unpacking(args, other: bool):
    """What Pillow's decoder is told about the order of bytes; ``args`` is "RGB;16B", say, or begins with it."""
    mode, rest = (args, None) if isinstance(args, str) else (args[0], args[1:])
    mode = mode.replace("RGBa", "RGBA")  # colours as stored, not divided by alpha
    if other:
        native = "L" if sys.byteorder == "little" else "B"
        swapped = {"B": "L", "L": "B"}[mode[-1].replace("N", native)]
        mode = "RGBA" if mode.startswith("LA") else mode[:-1] + swapped
    return mode if rest is None else (mode, *rest)


def _pixels(image: Image.Image, mask: str) -> np.ndarray:
    if image.mode in ("P", "PA") and mask == "values":  # the indices, or the colours where these are black and white
        colours = np.array(image.convert("RGBA"))[..., :3]
        plain = np.isin(colours, (0, 255)).all() and (colours == colours[..., :1]).all()
        return colours[..., 0] if plain else np.array(image.getchannel(0))
    if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    array = np.array(image)
    if image.mode == "1":
        return array.astype(np.uint8) * np.uint8(1 if mask == "values" else 255)
    if array.ndim == 2 or image.mode == "RGB":
        return array
    colour, alpha = (array[..., 0] if array.shape[2] == 2 else array[..., :3]), array[..., -1]
    if not mask or image.mode not in ("LA", "RGBA") or (alpha == alpha[0, 0]).all():
        return colour
    if (colour == colour[:1, :1]).all():  # painted in one colour: its transparency is the mask
        return alpha
    if colour[alpha == 0].any():
        raise Refused("is a mask whose transparent part is painted too; save it without transparency")
    return colour


def _tiff(content: bytes, most: int) -> np.ndarray:
    """A kind of TIFF that Pillow does not know: signed or 64 bit numbers, planes after one another and others."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        if len(file.pages) != 1:
            raise Refused(f"holds {len(file.pages)} pages; give one file per image")
        dicom.check_size(page.imagewidth, page.imagelength * page.imagedepth, most)
        turned = page.tags[ORIENTATION].value if ORIENTATION in page.tags else 1
        array = page.asarray()
    if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in (3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        raise Refused(f"has the shape {array.shape}; (height, width) or three colours are understood")
    array = array.swapaxes(0, 1) if turned > 4 else array
    rows, columns = (-1 if turned in (3, 4, 7, 8) else 1), (-1 if turned in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(array[::rows, ::columns, ..., :3] if array.ndim == 3 else array[::rows, ::columns])
