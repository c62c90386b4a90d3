"""DICOM files made here: values against the standard's formulas, every colour space, warnings that name nobody, clear errors."""

from __future__ import annotations

import io
import math
import sys
import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from ynet_lite.cases import dicom  # noqa: E402
from ynet_lite.cases.dicom import DicomWarning, is_dicom, warn_about  # noqa: E402
from ynet_lite.cases.formats import open_picture, read_image  # noqa: E402
from ynet_lite.cases.grey import to_bytes  # noqa: E402
from ynet_lite.cases.loading import load_table, read_mask  # noqa: E402
from ynet_lite.cases.manifest import ManifestError  # noqa: E402
from ynet_lite.config import Config  # noqa: E402
from ynet_lite.sets import load_cases  # noqa: E402

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
DEEP = RNG.integers(0, 4096, (20, 30)).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
SECRET = "Nobody^Special"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("YNET_CACHE", str(tmp_path / "cache"))


def save(path, array, kind="MONOCHROME2", bits=None, syntax=ExplicitVRLittleEndian, data=None, **attributes):
    """A DICOM file with the pixels ``array``; clean of names and of burnt-in text unless ``attributes`` say otherwise."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    dataset.BurnedInAnnotation = "NO"
    colour = array.ndim > 2 and array.shape[-1] == 3
    dataset.Rows, dataset.Columns = array.shape[-3:-1] if colour else array.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    if array.ndim - colour > 2:
        dataset.NumberOfFrames = len(array)
    dataset.PhotometricInterpretation = kind
    dataset.BitsAllocated = 8 * array.dtype.itemsize
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    raw = (
        array.astype(array.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")).tobytes() if data is None else data
    )
    dataset.PixelData = raw
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    for name, value in attributes.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def read_dicom(path):
    """As read for colour networks, uint8 (H, W) where it is grey, else (H, W, 3)."""
    image = read_image(path, 3)
    return image[0] if (image == image[:1]).all() else image.transpose(1, 2, 0)


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


# ---- grey values


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_eight_bit_images_keep_their_values(tmp_path, syntax):
    path = tmp_path / "x.dcm"
    if syntax == RLELossless:
        dataset = pydicom.dcmread(save(path, GREY))
        dataset.compress(RLELossless)
        dataset.save_as(path)
    else:
        save(path, GREY, syntax=syntax)
    image = read_dicom(path)
    assert image.dtype == np.uint8 and (image == GREY).all()
    assert (read_image(path, 1)[0] == GREY).all() and (read_image(path, 3) == GREY[None]).all()


def shown(stored: int, slope: int, intercept: int, centre: int, width: int) -> int:
    """C.11.1 and C.11.2.1.2.1, value by value, in fractions."""
    x = Fraction(slope * stored + intercept)
    c, w = centre - Fraction(1, 2), width - 1
    if x <= c - Fraction(w, 2):
        return 0
    if x > c + Fraction(w, 2):
        return 255
    return half_up(255 * ((x - c) / w + Fraction(1, 2)))


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -1024)])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_slope_first_window_and_inversion_against_a_loop(tmp_path, slope, intercept, kind):
    path = save(
        tmp_path / "x.dcm",
        DEEP,
        kind,
        bits=12,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        WindowCenter=[1500, 10],  # the first one counts
        WindowWidth=[1200, 20],
    )
    image = read_dicom(path)
    expected = np.array([[shown(int(x), slope, intercept, 1500, 1200) for x in row] for row in DEEP])
    assert (image == (255 - expected if kind == "MONOCHROME1" else expected)).all()
    assert 0 < (image == 0).mean() < 1 and 0 < (image == 255).mean() < 1


def test_a_window_by_hand(tmp_path):
    # c = 40, w = 5: c - 1/2 = 39.5, w - 1 = 4, so 37.5 and below is black, above 41.5 white
    # 38: (38 - 39.5)/4 + 1/2 = 1/8 -> 255/8 = 31.9 -> 32;  40: 5/8 -> 159.4 -> 159;  41: 7/8 -> 223.1 -> 223
    values = np.array([[0, 37, 38, 39, 40, 41, 42, 900]], np.uint16).repeat(2, axis=0)
    path = save(tmp_path / "x.dcm", values, WindowCenter=40, WindowWidth=5)
    assert read_dicom(path)[0].tolist() == [0, 0, 32, 96, 159, 223, 255, 255]


def exact(x: int) -> float:
    """C.11.2.1.3.2 with centre 700 and width 500."""
    return 255 * min(max((x - 700) / 500 + 0.5, 0), 1)


def sigmoid(x: int) -> float:
    """C.11.2.1.3.1 with centre 700 and width 500."""
    return 255 / (1 + math.exp(-4 * (x - 700) / 500))


@pytest.mark.parametrize(("name", "function"), [("LINEAR_EXACT", exact), ("SIGMOID", sigmoid)])
def test_other_window_functions_against_a_loop(tmp_path, name, function):
    path = save(tmp_path / "x.dcm", DEEP, bits=12, WindowCenter=700, WindowWidth=500, VOILUTFunction=name)
    assert read_dicom(path).tolist() == [[math.floor(function(int(x)) + 0.5) for x in row] for row in DEEP]


def test_window_edges(tmp_path):
    values = np.array([[9, 10, 11]] * 2, np.uint16)
    narrow = save(tmp_path / "x.dcm", values, WindowCenter=10, WindowWidth=1)  # width 1: a threshold at c - 1/2
    assert read_dicom(narrow)[0].tolist() == [0, 255, 255]
    cubic = save(tmp_path / "y.dcm", values, WindowCenter=10, WindowWidth=10, VOILUTFunction="CUBIC")
    with pytest.raises(ValueError, match="y.dcm.*CUBIC"):
        read_dicom(cubic)


def test_without_a_window_the_stored_bits_are_the_range(tmp_path):
    image = read_dicom(save(tmp_path / "a.dcm", DEEP // 2, bits=12))
    assert image.tolist() == [[half_up(Fraction(255 * int(x), 4095)) for x in row] for row in DEEP // 2]
    unity = save(tmp_path / "b.dcm", DEEP // 2, bits=12, RescaleSlope=1, RescaleIntercept=0)
    assert (read_dicom(unity) == image).all()
    sixteen = read_dicom(save(tmp_path / "c.dcm", DEEP))  # 16 is said of every device: the smallest number of bits that holds all
    assert sixteen.tolist() == [[half_up(Fraction(255 * int(x), 4095)) for x in row] for row in DEEP]
    signed = read_dicom(save(tmp_path / "s.dcm", DEEP.clip(0, 3000).astype(np.int16) - 1500))
    assert signed.tolist() == [[half_up(Fraction(255 * (int(x) + 547), 4094)) for x in row] for row in DEEP.clip(0, 3000)]


def test_images_without_a_window_share_the_range_of_their_set(tmp_path):
    save(tmp_path / "a.dcm", DEEP // 16, "MONOCHROME1")
    save(tmp_path / "b.dcm", DEEP)
    rows = {"case_id": ["a", "b"], "image": ["a.dcm", "b.dcm"], "label": ["x", "y"], "group": ["1", "2"], "fold": [1, 2]}
    images = load_table(pd.DataFrame({**rows, "mask": ""}), name="two", size=30, folder=tmp_path).images
    assert images[0, 0, 5:25].tolist() == [[255 - half_up(Fraction(255 * int(x), 4095)) for x in row] for row in DEEP // 16]


@pytest.mark.parametrize("width", [0, -5, ""])
def test_a_window_that_cannot_be_used_counts_as_none(tmp_path, width):
    plain = read_dicom(save(tmp_path / "a.dcm", DEEP, bits=12))
    assert (read_dicom(save(tmp_path / "b.dcm", DEEP, bits=12, WindowCenter=100, WindowWidth=width)) == plain).all()


def test_padding_neither_counts_nor_shines(tmp_path):
    values = (DEEP // 2 + 1000).astype(np.uint16)
    inner = read_dicom(save(tmp_path / "a.dcm", values[5:], "MONOCHROME1"))
    values[:5] = 60000
    image = read_dicom(save(tmp_path / "b.dcm", values, "MONOCHROME1", PixelPaddingValue=60000))
    assert not image[:5].any() and (image[5:] == inner).all()
    assert not read_dicom(save(tmp_path / "c.dcm", values * 0, PixelPaddingValue=0)).any()


def test_low_bit_images(tmp_path):
    four = read_dicom(save(tmp_path / "f.dcm", GREY >> 4, bits=4))
    assert (four == (GREY >> 4) * 17).all()  # 15 is white


def test_tables_of_the_modality_and_of_the_voi(tmp_path):
    def table(entries, bits):
        item = Dataset()
        item.LUTDescriptor, item.LUTData = [len(entries), 0, bits], list(entries)
        item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
        return [item]

    values = DEEP % 16
    squares = [i * i for i in range(16)]
    voi = save(tmp_path / "v.dcm", values, bits=4, VOILUTSequence=table([4 * s for s in squares], 10))
    assert read_dicom(voi).tolist() == [[half_up(Fraction(255 * 4 * squares[int(x)], 1023)) for x in row] for row in values]
    modality = save(
        tmp_path / "m.dcm", values, bits=4, ModalityLUTSequence=table(squares, 16), WindowCenter=113.5, WindowWidth=228
    )
    assert read_dicom(modality).tolist() == [[shown_exact(squares[int(x)]) for x in row] for row in values]


def shown_exact(x: int) -> int:
    """Centre 113.5 and width 228: 255 ((x - 113)/227 + 1/2), cut to 0..255."""
    return half_up(min(max(255 * (Fraction(x - 113, 227) + Fraction(1, 2)), 0), 255))


# ---- colour


def test_rgb(tmp_path):
    assert (read_dicom(save(tmp_path / "x.dcm", COLOUR, "RGB")) == COLOUR).all()
    assert (read_image(tmp_path / "x.dcm", 3) == COLOUR.transpose(2, 0, 1)).all()
    luminance = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_image(tmp_path / "x.dcm", 1)[0] - luminance).max() <= 1
    deep = COLOUR.astype(np.uint16) * 16 + 7
    assert (read_dicom(save(tmp_path / "d.dcm", deep, "RGB", bits=12)) == COLOUR).all()


def test_ybr_becomes_rgb(tmp_path):
    # C.7.6.3.1.2: Y = .299 R + .587 G + .114 B, CB = 128 + (B - Y)/1.772, CR = 128 + (R - Y)/1.402
    rgb = np.round(np.linspace([30, 90, 200], [220, 120, 60], 600)).reshape(20, 30, 3)
    y = rgb @ np.array([0.299, 0.587, 0.114])
    ybr = np.stack([y, 128 + (rgb[..., 2] - y) / 1.772, 128 + (rgb[..., 0] - y) / 1.402], axis=-1)
    image = read_dicom(save(tmp_path / "x.dcm", np.round(ybr).astype(np.uint8), "YBR_FULL"))
    assert image.shape == (20, 30, 3) and np.abs(image - rgb).max() <= 2


def test_palette(tmp_path):
    indices = GREY % 4
    red, green, blue = ([0, 65535, 0, 32768], [0, 0, 65535, 32768], [256, 0, 0, 32768])
    colours = {}
    for name, values in (("Red", red), ("Green", green), ("Blue", blue)):
        colours[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        colours[f"{name}PaletteColorLookupTableData"] = np.array(values, "<u2").tobytes()
    image = read_dicom(save(tmp_path / "x.dcm", indices, "PALETTE COLOR", **colours))
    expected = np.array([[r >> 8, g >> 8, b >> 8] for r, g, b in zip(red, green, blue, strict=True)])[indices]
    assert image.dtype == np.uint8 and (image == expected).all()
    assert expected[indices == 3].tolist()[0] == [128, 128, 128]
    bare = save(tmp_path / "b.dcm", indices, "PALETTE COLOR")
    with pytest.raises(ValueError, match="b.dcm: .*Palette"):
        read_dicom(bare)


def test_baseline_jpeg_needs_no_plug_in(tmp_path):
    smooth = np.add.outer(np.arange(0, 200, 5), np.arange(0, 50)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "JPEG", quality=95)
    path = save(tmp_path / "x.dcm", smooth, syntax=JPEGBaseline8Bit, data=encapsulate([buffer.getvalue()]))
    assert np.abs(read_dicom(path).astype(int) - smooth).max() <= 4


# ---- warnings


def caught(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call()
    return result, [str(w.message) for w in found if issubclass(w.category, DicomWarning)]


def test_a_clean_file_warns_of_nothing(tmp_path):
    path = save(tmp_path / "x.dcm", GREY, PatientName="", PatientID="")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_dicom(path)
        warn_about([])


def test_first_of_several_frames_with_a_warning(tmp_path):
    path = save(tmp_path / "x.dcm", np.stack([GREY, 255 - GREY, GREY]))
    image, found = caught(lambda: read_dicom(path))
    assert (image == GREY).all()
    assert (
        len(found) == 1 and "of 1 DICOM file(s)" in found[0] and "1 hold several frames" in found[0] and "burnt" not in found[0]
    )


@pytest.mark.parametrize(("value", "text"), [("YES", "1 say YES and 0 do not say"), (None, "0 say YES and 1 do not say")])
def test_burnt_in_annotation(tmp_path, value, text):
    _, found = caught(lambda: read_dicom(save(tmp_path / "x.dcm", GREY, BurnedInAnnotation=value)))
    assert len(found) == 1 and text in found[0] and "identity" not in found[0]


def test_identity_is_counted_and_never_shown(tmp_path):
    named = save(tmp_path / "a.dcm", GREY, PatientName=SECRET, PatientID="4711")
    removed = save(tmp_path / "b.dcm", GREY, PatientName=SECRET, PatientIdentityRemoved="YES")
    born = save(tmp_path / "c.dcm", GREY, PatientBirthDate="19700101")
    _, found = caught(lambda: warn_about([named, removed, born, tmp_path / "missing.dcm"]))
    assert len(found) == 1 and "2 hold a patient's identity" in found[0]
    assert SECRET not in found[0] and "4711" not in found[0] and "1970" not in found[0]


def test_no_name_is_read_with_the_pixels(tmp_path, monkeypatch):
    path = save(tmp_path / "a.dcm", GREY, PatientName=SECRET, InstitutionName="A clinic", StudyDescription="B")
    seen = []
    monkeypatch.setattr(dicom, "_decode", lambda dataset: seen.append(set(dataset.dir())) or GREY)
    open_picture(path)
    assert not {"PatientName", "InstitutionName", "StudyDescription"} & seen[0] and "PixelData" in seen[0]


# ---- errors


def test_no_pydicom_says_how_to_get_it(tmp_path, monkeypatch):
    path = save(tmp_path / "x.dcm", GREY)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for call in (lambda: read_dicom(path), lambda: read_image(path, 1), lambda: warn_about([path])):
        with pytest.raises(ImportError, match="extra `dicom`"):
            call()
    Image.fromarray(GREY).save(tmp_path / "x.png")
    assert (read_image(tmp_path / "x.png", 1)[0] == GREY).all()  # all else works without it
    warn_about([])


def test_compressed_without_a_decoder(tmp_path):
    path = save(tmp_path / "x.dcm", GREY, syntax=JPEGLSLossless, data=encapsulate([b"\xff\xd8 no JPEG-LS at all"]))
    with pytest.raises(ValueError, match=r"x.dcm: its pixels are compressed as JPEG-LS.*decompress.*pylibjpeg"):
        read_dicom(path)


def test_files_that_hold_no_image(tmp_path):
    (tmp_path / "text.dcm").write_text("no image")
    (tmp_path / "nothing.dcm").write_bytes(b"")
    save(tmp_path / "report.dcm", GREY, PixelData=None)
    save(tmp_path / "short.dcm", GREY, data=GREY.tobytes()[:100])
    save(tmp_path / "cielab.dcm", COLOUR, "CIELAB")
    for name in ("text.dcm", "nothing.dcm", "missing.dcm", "report.dcm", "short.dcm", "cielab.dcm"):
        with pytest.raises(ValueError, match=name):
            read_dicom(tmp_path / name)
        with pytest.raises(ValueError, match=name):
            read_image(tmp_path / name, 1)


def test_is_dicom(tmp_path):
    save(tmp_path / "IM0001", GREY)
    Image.fromarray(GREY).save(tmp_path / "x.png")
    assert is_dicom(tmp_path / "IM0001") and is_dicom("any.DCM") and is_dicom("any.dicom")
    assert not is_dicom(tmp_path / "x.png") and not is_dicom(tmp_path / "missing") and not is_dicom(tmp_path)


# ---- in a manifest


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    spot = np.zeros((20, 30), np.uint8)
    spot[5:12, 8:20] = 1
    save(place / "a.dcm", DEEP, "MONOCHROME1", bits=12, WindowCenter=2048, WindowWidth=4096, BurnedInAnnotation="YES")
    save(place / "IM2", COLOUR, "RGB", PatientName=SECRET, BurnedInAnnotation=None)
    save(place / "c.dcm", np.stack([GREY, GREY]))
    Image.fromarray(GREY[::-1].copy()).save(place / "d.png")  # another picture: one with two labels is refused
    save(place / "a_mask.dcm", spot * 255)
    save(place / "c_mask.dcm", spot)
    pd.DataFrame(
        {
            "case_id": list("abcd"),
            "image": ["a.dcm", "IM2", "c.dcm", "d.png"],
            "mask": ["a_mask.dcm", "", "c_mask.dcm", "empty"],
            "label": ["x", "y", "x", "y"],
            "group": list("1234"),
            "fold": [1, 1, 2, 2],
        }
    ).to_csv(place / "mine.csv", index=False)
    return place


def test_dicom_in_a_manifest(folder):
    cfg = Config(dataset="csv", manifest=str(folder / "mine.csv"), size=30)
    cases, found = caught(lambda: load_cases(cfg))
    assert len(found) == 1  # once, not per file; the PNG does not count, and masks show no text
    assert "of 3 DICOM file(s): burnt-in annotation: 1 say YES and 1 do not say" in found[0]
    assert "1 hold a patient's identity" in found[0] and "1 hold several frames" in found[0]
    assert (cases.images[0, 0, 5:25] == to_bytes(open_picture(folder / "a.dcm"))).all() and (
        cases.images[2, 0, 5:25] == GREY
    ).all()
    assert cases.has_mask.tolist() == [True, False, True, True] and cases.masks[[0, 2]].sum((1, 2)).tolist() == [84, 84]
    kept = cases.table.to_csv() + repr(cases)
    assert "Nobody" not in kept and not any("atient" in column for column in cases.table.columns)
    _, again = caught(lambda: load_cases(cfg))
    assert not again  # from the cache: no file is read
    three, found = caught(lambda: load_cases(cfg.but(channels=3)))
    assert (three.images[1, :, 5:25] == COLOUR.transpose(2, 0, 1)).all() and len(found) == 1


def test_a_bad_dicom_is_named_by_row(folder):
    save(folder / "c.dcm", GREY, PixelData=None)
    table = pd.read_csv(folder / "mine.csv", dtype=str, keep_default_na=False)
    with pytest.warns(DicomWarning), pytest.raises(ManifestError, match=r"1 of 4 cases.*\n- row 4: .*c.dcm"):
        load_table(table, name="mine", size=30, folder=folder)


def test_a_mask_kept_as_dicom_counts_as_stored(tmp_path):
    classes = np.resize(np.array([0, 1, 2], np.uint8), (8, 9))
    path = save(tmp_path / "m.dcm", classes, WindowCenter=1, WindowWidth=2)
    assert (read_mask(path, 3) == classes).all()
    with pytest.raises(ValueError, match="outside the 2 declared classes: 2"):
        read_mask(path)


def test_values_that_vendors_leave_empty_and_windows_of_groups(tmp_path):
    root = dict(WindowCenter=1600, WindowWidth=400)
    plain = read_dicom(save(tmp_path / "a.dcm", DEEP, bits=12, **root))
    voi, group = Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = 1600, 400
    group.FrameVOILUTSequence = [voi]
    for place in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        assert (read_dicom(save(tmp_path / "b.dcm", DEEP, bits=12, **{place: [group]})) == plain).all()
    empty = save(tmp_path / "c.dcm", DEEP, bits=12, RescaleSlope="", RescaleIntercept="", **root)
    assert (read_dicom(empty) == plain).all()


def test_a_mask_of_several_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match="seg.dcm: a mask of 2 frames"):
        read_mask(save(tmp_path / "seg.dcm", np.stack([GREY * 0, GREY > 9]).astype(np.uint8)))
