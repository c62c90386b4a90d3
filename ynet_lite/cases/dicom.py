"""DICOM files as pictures: the pixels as a viewer shows them, and nothing of the header.

Needs pydicom, the extra ``dicom``. Section numbers are those of the DICOM standard, part 3.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .grey import Pixels, Refused

SUFFIXES = (".dcm", ".dicom")
GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")  # of an enhanced file, C.7.6.16
MACROS = ("FrameVOILUTSequence", "PixelValueTransformationSequence")
WINDOW = ("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept")
PALETTE = ("{}PaletteColorLookupTableDescriptor", "{}PaletteColorLookupTableData", "Segmented{}PaletteColorLookupTableData")

# Only these are read from the header, so that no name is ever in memory together with the pixels.
PIXEL_TAGS = (
    "SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns BitsAllocated BitsStored HighBit "
    "PixelRepresentation PixelPaddingValue ModalityLUTSequence VOILUTSequence LossyImageCompression "
    "ExtendedOffsetTable ExtendedOffsetTableLengths PixelData"
).split()
PIXEL_TAGS += [*GROUPS, *WINDOW, *(tag.format(colour) for tag in PALETTE for colour in ("Red", "Green", "Blue"))]

IDENTITY_TAGS = (
    "PatientName PatientID PatientBirthDate OtherPatientIDs OtherPatientNames PatientAddress PatientTelephoneNumbers "
    "AccessionNumber ReferringPhysicianName"
).split()

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


class DicomWarning(UserWarning):
    """Something about DICOM files that their user must know: text in the pixels, names in the header, frames left out."""


def is_dicom(path, content: bytes | None = None) -> bool:
    """Whether ``path`` ends in ``.dcm`` or ``.dicom``, or its content has ``DICM`` at byte 128; False for a missing file."""
    if Path(path).suffix.lower() in SUFFIXES:
        return True
    try:
        if content is None:
            with open(path, "rb") as file:
                content = file.read(132)
    except OSError:
        return False
    return content[128:132] == b"DICM"


def pixels(content: bytes, *, mask: bool = False, most: int) -> Pixels:
    """The first frame of a DICOM file as it would be shown; for a ``mask`` the stored values of its only frame.

    Grey: 1. the modality table, or value = slope * stored + intercept (C.11.1); 2. the **first** window (C.11.2.1), also of the
    functional groups, else the table of the VOI sequence, else by the stored bits as in `to_bytes` (not when they are 16 of
    16, which is said of every device, nor for signed or rescaled values); 3. MONOCHROME1 is turned round, so that it looks like
    MONOCHROME2; pixels of the padding value are black.

    Colour: YBR becomes RGB (C.7.6.3.1.2), palettes are looked up. Overlays and annotations beside the pixels are not drawn, and
    pixels are taken as square.

    Raises ``ImportError`` without pydicom, `Refused` for what is no picture, has more than ``most`` pixels or is compressed in a
    way that needs a plug-in of pydicom, and what pydicom raises for damaged files.
    """
    dataset = _pydicom().dcmread(io.BytesIO(content), specific_tags=PIXEL_TAGS)
    lacking = [name for name in ("PixelData", "Rows", "Columns", "PhotometricInterpretation") if name not in dataset]
    if lacking:
        raise Refused(f"a DICOM file without an image ({', '.join(lacking)} missing); name a file that holds one")
    check_size(dataset.Columns, dataset.Rows, most)
    frames = _number(dataset, "NumberOfFrames") or 1
    if mask and frames > 1:
        raise Refused(f"a mask of {frames:.0f} frames; give one file a mask (several are joined with ;)")
    kind, known = _says(dataset, "PhotometricInterpretation"), (*GREY, *COLOUR, "PALETTE COLOR")
    if not mask and kind not in known:
        raise Refused(f"photometric interpretation {kind!r} is not understood; {', '.join(known)} are")
    array = _decode(dataset)
    if mask:
        return Pixels(array)
    if kind in GREY:
        return _grey(dataset, array, inverted=kind == "MONOCHROME1")
    if kind == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        array = apply_color_lut(array, dataset)[..., :3]
        return Pixels(array, 8 * array.dtype.itemsize)
    return Pixels(array, _depth(dataset))


def check_size(width: int, height: int, most: int) -> None:
    """`Refused` for more than ``most`` pixels."""
    if int(width) * int(height) > most:
        raise Refused(f"{width} x {height} pixels; at most {most // 10**6} million are taken, make it smaller")


def warn_about(files: Sequence) -> None:
    """One `DicomWarning` for all ``files``: how many may show a name in the pixels, name somebody, or hold several frames.

    - Burnt-in annotation: the attribute says YES, or is missing (then nobody knows; it may only be trusted when it says NO).
    - Identity: a patient's name, number, birth date and the like are filled in, and the file does not say that the identity
      was removed. The values are neither shown nor kept.

    Headers only are read; files that cannot be read are passed over, since reading their pixels says what is wrong. Raises
    ``ImportError`` without pydicom, but not for an empty list.
    """
    if not files:
        return
    dcmread = _pydicom().dcmread
    burnt = unknown = named = frames = 0
    tags = [*IDENTITY_TAGS, "PatientIdentityRemoved", "BurnedInAnnotation", "NumberOfFrames"]
    for file in files:
        try:
            header = dcmread(file, specific_tags=tags, stop_before_pixels=True)
        except Exception:  # a cut or damaged header raises what it likes
            continue
        burnt += _says(header, "BurnedInAnnotation") == "YES"
        unknown += _says(header, "BurnedInAnnotation") not in ("YES", "NO")
        named += _says(header, "PatientIdentityRemoved") != "YES" and any(_filled(header, tag) for tag in IDENTITY_TAGS)
        frames += (_number(header, "NumberOfFrames") or 1) > 1
    text = "text in the pixels may name the patient, and a model may read it instead of the lesion"
    parts = {
        f"burnt-in annotation: {burnt} say YES and {unknown} do not say ({text})": burnt + unknown,
        f"{named} hold a patient's identity in the header (nothing of it is kept; do not pass the files on)": named,
        f"{frames} hold several frames, of which only the first is read": frames,
    }
    found = [part for part, count in parts.items() if count]
    if found:
        warnings.warn(f"of {len(files)} DICOM file(s): {'; '.join(found)}", DicomWarning, stacklevel=3)


def _grey(dataset, array: np.ndarray, inverted: bool) -> Pixels:
    from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

    _settle(dataset)
    values = apply_modality_lut(array, dataset).astype(np.float64)
    bits = _depth(dataset) if not dataset.get("PixelRepresentation") and (values == array).all() else None
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    function = dataset.VOILUTFunction = _says(dataset, "VOILUTFunction") or "LINEAR"
    usable = None not in (centre, width) and np.isfinite([centre, width]).all() and width > 0
    if usable and (width >= 1 or function != "LINEAR"):
        for tag in ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"):  # applied already
            dataset.pop(tag, None)
        dataset.PixelRepresentation, dataset.BitsStored = 0, 1  # the window then gives 0 to 1
        values, bits = apply_windowing(values, dataset), 1
    elif dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        values = apply_voi(np.rint(values).astype(np.int64), dataset).astype(np.float64)
    if dataset.get("PixelPaddingValue") is not None:
        values[array == dataset.PixelPaddingValue] = np.nan
    return Pixels(values, bits, inverted)


def _depth(dataset) -> int | None:
    bits = int(dataset.get("BitsStored") or 16)
    return bits if bits < 16 else None  # 16 is said of every device


def _number(dataset, tag: str) -> float | None:
    """The first number of an attribute; None when it is missing, empty or no number (a decimal comma, say)."""
    try:
        value = dataset.get(tag)
        return float(value if np.ndim(value) == 0 else value[0])
    except Exception:  # also of pydicom, which checks a value when it is asked for
        return None


def _says(dataset, tag: str) -> str:
    return str(dataset.get(tag) or "").strip().upper()


def _filled(header, tag: str) -> bool:
    """Whether an attribute holds anything; looked at as raw bytes, because checking a name may print it."""
    if tag not in header:
        return False
    value = header.get_item(tag).value
    return bool(value.strip(b" \0^") if isinstance(value, bytes) else value)


def _settle(dataset) -> None:
    """Take window and slope out of the functional groups of an enhanced file, and replace a slope that is no number."""
    first = [(dataset.get(groups) or [None])[0] for groups in GROUPS]
    macros = [(group.get(macro) or [])[:1] for group in first if group for macro in MACROS]
    for item in sum(macros, []):
        for tag in WINDOW:
            if tag in item and tag not in dataset:
                dataset[tag] = item.get_item(tag)
    for tag, neutral in (("RescaleSlope", 1), ("RescaleIntercept", 0)):
        if tag in dataset and _number(dataset, tag) is None:
            setattr(dataset, tag, neutral)


def _pydicom():
    try:
        import pydicom
    except ImportError:
        raise ImportError(
            "reading DICOM files needs pydicom, which is not installed: install this project with its extra `dicom` "
            "(`python -m pip install -e '.[dicom]'` in the checkout) or pydicom alone (`python -m pip install pydicom`)"
        ) from None
    return pydicom


def _decode(dataset) -> np.ndarray:
    """The first frame as stored, but YBR as RGB."""
    from pydicom.pixels import pixel_array

    try:
        return np.array(pixel_array(dataset, index=0))
    except Exception as error:  # every decoder has its own kinds
        syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
        if syntax is None or not syntax.is_compressed:
            raise
        raise Refused(
            f"its pixels are compressed as {syntax.name}, which the installed decoders cannot read; decompress the file (for "
            "example `gdcmconv --raw in.dcm out.dcm`) or install a plug-in of pydicom for this kind (pylibjpeg with "
            f"pylibjpeg-libjpeg and pylibjpeg-openjpeg) ({first_line(error)})"
        ) from None


def first_line(error: Exception) -> str:
    """The first words of an error of somebody else's code."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip().split("\n")[0][:200]
