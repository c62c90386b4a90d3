"""DICOM files as pictures: the pixels as a viewer shows them, and nothing of the header.

Needs pydicom, the extra ``dicom``. Section numbers are those of the DICOM standard, part 3.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .grey import Pixels, to_bytes

SUFFIXES = (".dcm", ".dicom")

PERCENTILES = (0.5, 99.5)  # shown range of an image that names no window

# Only these are read from the header, so that no name is ever in memory together with the pixels.
PIXEL_TAGS = (
    "SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns BitsAllocated BitsStored HighBit "
    "PixelRepresentation PixelPaddingValue WindowCenter WindowWidth VOILUTFunction RescaleSlope RescaleIntercept "
    "ModalityLUTSequence VOILUTSequence LossyImageCompression "
    "RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor "
    "RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData "
    "SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData "
    "SegmentedBluePaletteColorLookupTableData SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence "
    "ExtendedOffsetTable ExtendedOffsetTableLengths PixelData"
).split()

IDENTITY_TAGS = (
    "PatientName PatientID PatientBirthDate OtherPatientIDs OtherPatientNames PatientAddress PatientTelephoneNumbers "
    "AccessionNumber ReferringPhysicianName"
).split()

GREY = ("MONOCHROME1", "MONOCHROME2")

COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


class DicomWarning(UserWarning):
    """Something about DICOM files that their user must know: text in the pixels, names in the header, frames left out."""


def is_dicom(source) -> bool:
    """Whether a path ends in ``.dcm`` or ``.dicom``, or it or an open file has ``DICM`` at byte 128; False for a missing file."""
    if hasattr(source, "read"):
        source.seek(128)
        return source.read(4) == b"DICM"
    if Path(source).suffix.lower() in SUFFIXES:
        return True
    try:
        with open(source, "rb") as file:
            file.seek(128)
            return file.read(4) == b"DICM"
    except OSError:
        return False


def read_dicom(path) -> np.ndarray:
    """Read the first frame of a DICOM file as it would be shown: uint8, (H, W) for grey or (H, W, 3) for colour (RGB).

    Grey: 1. the modality table, or value = slope * stored + intercept (C.11.1); 2. the **first** window (C.11.2.1: `window`),
    else the table of the VOI sequence, else the range between the percentiles 0.5 and 99.5 of the values; 3. to 0-255, halves
    up; 4. MONOCHROME1 is turned round (255 - x), so that it looks like MONOCHROME2. Unsigned images of up to 8 stored bits
    without slope and window keep their full range (8 bit: the values as they are, as in a PNG). Pixels of the padding value
    do not count for the percentiles and become 0. A constant image without a window becomes 0.

    Colour: YBR becomes RGB (C.7.6.3.1.2), palettes are looked up; more than 8 bits: see `ynet_lite.cases.grey`. Overlays and
    annotations beside the pixels are not drawn, and pixels are taken as square.

    Warns once with a `DicomWarning`: see `warn_about`. Raises ``ImportError`` without pydicom, ``ValueError`` naming the file
    when it is no DICOM image or cannot be decoded (some compressed kinds need plug-ins of pydicom).
    """
    array = to_bytes(pixels(path))
    warn_about([path])
    return array


def pixels(path, most: int | None = None) -> Pixels:
    """`read_dicom` without its warning and before the depth of colours is decided, for a reader of many files."""
    dataset = _open(path, most)
    kind = str(dataset.PhotometricInterpretation).strip().upper()
    if kind not in (*GREY, *COLOUR, "PALETTE COLOR"):
        known = ", ".join((*GREY, *COLOUR))
        raise ValueError(f"{path}: photometric interpretation {kind!r} is not understood; {known}, PALETTE COLOR are")
    array = _decode(dataset, path)
    try:
        if kind in GREY:
            return Pixels(_grey(dataset, array, inverted=kind == "MONOCHROME1"))
        if kind == "PALETTE COLOR":
            from pydicom.pixels import apply_color_lut

            array = apply_color_lut(array, dataset)[..., :3]
            return Pixels(array, 8 * array.dtype.itemsize)
        bits = int(dataset.get("BitsStored") or 8)
        return Pixels(array, bits if bits < 16 else None)  # 16 is said of every device
    except Exception as error:  # damaged tables raise what they like
        raise ValueError(f"{path}: its palette or grey values cannot be worked out ({_short(error, path)})") from None


def stored(path, most: int | None = None) -> np.ndarray:
    """The stored values of a single frame, without window or inversion: what a mask kept as DICOM means."""
    dataset = _open(path, most)
    frames = _number(dataset, "NumberOfFrames") or 1
    if frames > 1:
        raise ValueError(f"{path}: a mask of {frames:.0f} frames; give one file a mask (several are joined with ;)")
    return _decode(dataset, path)


def warn_about(paths: Sequence) -> None:
    """One `DicomWarning` for all of ``paths``: how many may show a name in the pixels, name somebody, or hold several frames.

    - Burnt-in annotation: the attribute says YES, or is missing (then nobody knows; it may only be trusted when it says NO).
    - Identity: a patient's name, number, birth date and the like are filled in, and the file does not say that the identity
      was removed. The values are neither shown nor kept.
    - Several frames: only the first is read.

    Headers only are read. Files that cannot be read are passed over: reading their pixels says what is wrong. An empty list
    needs no pydicom and gives no warning. Raises ``ImportError`` without pydicom.
    """
    if not paths:
        return
    pydicom = _pydicom()
    burnt, unknown, named, frames = 0, 0, 0, 0
    tags = [*IDENTITY_TAGS, "PatientIdentityRemoved", "BurnedInAnnotation", "NumberOfFrames"]
    for path in paths:
        try:
            header = _read(pydicom, path, tags, stop_before_pixels=True)
        except ValueError:
            continue
        answer = str(header.get("BurnedInAnnotation") or "").strip().upper()
        burnt += answer == "YES"
        unknown += answer not in ("YES", "NO")
        removed = str(header.get("PatientIdentityRemoved") or "").strip().upper() == "YES"
        named += not removed and any(_filled(header, tag) for tag in IDENTITY_TAGS)
        frames += (_number(header, "NumberOfFrames") or 1) > 1
    found = []
    if burnt or unknown:
        found.append(
            f"burnt-in annotation: {burnt} say YES and {unknown} do not say (text in the pixels may name the patient, and a "
            "model may read it instead of the lesion)"
        )
    if named:
        found.append(f"{named} hold a patient's identity in the header (nothing of it is kept; do not pass the files on)")
    if frames:
        found.append(f"{frames} hold several frames, of which only the first is read")
    if found:
        warnings.warn(f"of {len(paths)} DICOM file(s): " + "; ".join(found), DicomWarning, stacklevel=3)


def window(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Shown brightness in [0, 1] of ``values`` (any shape, real numbers) under a window.

    ``LINEAR`` (C.11.2.1.2.1): 0 for x <= c - 1/2 - (w - 1)/2, 1 for x > c - 1/2 + (w - 1)/2, else (x - (c - 1/2))/(w - 1) + 1/2.
    ``LINEAR_EXACT`` (C.11.2.1.3.2): the same with c and w in place of c - 1/2 and w - 1. ``SIGMOID`` (C.11.2.1.3.1):
    1 / (1 + exp(-4 (x - c)/w)). Raises ``ValueError`` for w < 1 (LINEAR), w <= 0 (the others) or another function.
    """
    x = np.asarray(values, np.float64)
    least = 1 if function == "LINEAR" else 0
    if width < least or (width == 0 and function != "LINEAR"):
        raise ValueError(f"window: width {width}; {function} needs {'at least 1' if least else 'more than 0'}")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (x - centre) / width, -700, 700)))
    if function not in ("LINEAR", "LINEAR_EXACT"):
        raise ValueError(f"window: function {function!r}; known are LINEAR, LINEAR_EXACT and SIGMOID")
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (x > centre).astype(np.float64)
    return np.clip((x - centre) / width + 0.5, 0, 1)


def _grey(dataset, array: np.ndarray, inverted: bool) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut, apply_voi

    bits = int(dataset.get("BitsStored", 16))
    plain = not int(dataset.get("PixelRepresentation", 0)) and bits <= 8
    padding = dataset.get("PixelPaddingValue")
    content = np.ones(array.shape, bool) if padding is None else array != padding
    values = apply_modality_lut(array, dataset)
    chosen = _first_window(dataset)
    if chosen is not None:
        shown = window(values, *chosen)
    elif dataset.get("VOILUTSequence"):
        depth = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        shown = apply_voi(np.rint(values).astype(np.int64), dataset) / (2.0**depth - 1)
    elif plain and values is array:
        shown = values / (2.0**bits - 1)
    else:
        shown = _stretched(np.asarray(values, np.float64), content)
    result = np.floor(255 * np.clip(shown, 0, 1) + 0.5).astype(np.uint8)
    if inverted:
        result = 255 - result
    result[~content] = 0
    return result


def _stretched(values: np.ndarray, content: np.ndarray) -> np.ndarray:
    if not content.any():
        return np.zeros(values.shape)
    low, high = np.percentile(values[content], PERCENTILES)
    if high <= low:  # nearly all pixels are equal: the whole range then
        low, high = values[content].min(), values[content].max()
    return np.zeros(values.shape) if high <= low else np.clip((values - low) / (high - low), 0, 1)


def _number(dataset, tag: str) -> float | None:
    """The first number of an attribute; None when it is missing, empty or no number (a decimal comma, say)."""
    try:
        value = dataset.get(tag)
        value = value if value is None or isinstance(value, str) or not hasattr(value, "__iter__") else next(iter(value), None)
        return None if value in (None, "") else float(value)
    except Exception:  # pydicom checks a value when it is asked for
        return None


def _first_window(dataset) -> tuple[float, float, str] | None:
    """(centre, width, function) of the first window; None where there is none or its width cannot be used."""
    first = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    if None in first:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    usable = np.isfinite(first).all() and (first[1] >= 1 if function == "LINEAR" else first[1] > 0)
    return (*first, function) if usable else None


def _settle(dataset) -> None:
    """Take window and slope out of the functional groups of an enhanced file (C.7.6.16), and leave out what is no number."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for macro in ("FrameVOILUTSequence", "PixelValueTransformationSequence"):
            for item in [item for group in (dataset.get(groups) or [])[:1] for item in (group.get(macro) or [])[:1]]:
                for tag in ("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept"):
                    if tag in item and tag not in dataset:
                        dataset[tag] = item[tag]
        if groups in dataset:
            delattr(dataset, groups)  # it may name more than the pixels need
    for tag in ("RescaleSlope", "RescaleIntercept"):
        if tag in dataset and _number(dataset, tag) is None:
            setattr(dataset, tag, 1 if tag == "RescaleSlope" else 0)


def _pydicom():
    try:
        import pydicom
    except ImportError:
        raise ImportError(
            "reading DICOM files needs pydicom, which is not installed: install this project with its extra `dicom` "
            "(`python -m pip install -e '.[dicom]'` in the checkout) or pydicom alone (`python -m pip install pydicom`)"
        ) from None
    return pydicom


def _read(pydicom, path, tags: Sequence[str], **settings):
    try:
        if hasattr(path, "seek"):
            path.seek(0)
        return pydicom.dcmread(path, specific_tags=list(tags), **settings)
    except pydicom.errors.InvalidDicomError:
        raise ValueError(f"{path}: not a DICOM file (no 'DICM' at byte 128); export it again, or give a PNG") from None
    except Exception as error:  # a cut or damaged header raises what it likes
        raise ValueError(f"{path}: cannot be read as DICOM ({_short(error, path)})") from None


def _open(path, most: int | None = None):
    dataset = _read(_pydicom(), path, PIXEL_TAGS)
    lacking = [name for name in ("PixelData", "Rows", "Columns", "PhotometricInterpretation") if name not in dataset]
    if lacking:
        raise ValueError(f"{path}: a DICOM file without an image ({', '.join(lacking)} missing); name a file that holds one")
    try:
        _settle(dataset)
        size = int(dataset.Rows) * int(dataset.Columns)
    except Exception as error:
        raise ValueError(f"{path}: a value in its header cannot be read ({_short(error, path)})") from None
    if most and size > most:
        raise ValueError(f"{path}: {dataset.Columns} x {dataset.Rows} pixels; at most {most // 10**6} million are taken")
    return dataset


def _decode(dataset, path) -> np.ndarray:
    """The first frame as stored, but YBR as RGB."""
    from pydicom.pixels import pixel_array

    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    try:
        return np.array(pixel_array(dataset, index=0))
    except Exception as error:  # every decoder has its own kinds
        if syntax is not None and syntax.is_compressed:
            raise ValueError(
                f"{path}: its pixels are compressed as {syntax.name}, which the installed decoders cannot read; decompress the "
                "file (for example `gdcmconv --raw in.dcm out.dcm`) or install a plug-in of pydicom for this kind "
                f"(pylibjpeg with pylibjpeg-libjpeg and pylibjpeg-openjpeg) ({_short(error, path)})"
            ) from None
        raise ValueError(f"{path}: its pixels cannot be read ({_short(error, path)})") from None


def _filled(header, tag: str) -> bool:
    """Whether an attribute holds anything; looked at as raw bytes, because checking a name may print it."""
    if tag not in header:
        return False
    value = header.get_item(tag).value
    return bool(value.strip(b" \0^") if isinstance(value, bytes) else value)


def _short(error: Exception, path) -> str:
    return str(error).replace(str(path), "file").strip().split("\n")[0][:200] or type(error).__name__
