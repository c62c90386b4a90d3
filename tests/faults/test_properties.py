"""Any bytes give a value or the one documented error, in bounded memory: files as hypothesis makes them, for every reader."""

from __future__ import annotations

import csv
import io
import json
import resource
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from faults import fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from ynet_lite.hashing import BITS, Codes
from ynet_lite.paper import store

MEMORY = 1 << 30  # bytes that reading one file may add
common = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """{reader: (valid files, read, path)}."""
    folder = tmp_path_factory.mktemp("readers")
    return {name: (seeds, read, folder / f"input{suffix}") for name, (seeds, read, suffix) in fuzz._made(folder).items()}


@pytest.fixture(autouse=True)
def bounded():
    """Address space may grow by `MEMORY` in a test: what asks for more gets a ``MemoryError``, which no reader may pass on."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def check(readers, reader: str, content: bytes) -> str:
    """Read ``content``; "read" or "refused"."""
    _, read, path = readers[reader]
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ended, what = fuzz.outcome(reader, read, path)
    assert ended != "wrong", what
    return ended


@pytest.mark.parametrize("reader", [*fuzz.READERS])
def test_any_bytes(reader, readers):
    @settings(common, max_examples=40)
    @given(st.binary(max_size=300))
    def run(content):
        check(readers, reader, content)

    run()


@pytest.mark.parametrize("reader", [*fuzz.READERS])
def test_valid_files_with_pieces_put_elsewhere(reader, readers):
    seeds = readers[reader][0]

    @settings(common, max_examples=40)
    @given(st.data())
    def run(data):
        content = data.draw(st.sampled_from(seeds))
        for _ in range(data.draw(st.integers(1, 3))):
            at, gone = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 60))
            content = content[:at] + data.draw(st.binary(max_size=12)) + content[at + gone :]
        check(readers, reader, content)

    run()


def as_csv(columns, lines) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([columns, *lines])
    return text.getvalue().encode("utf-8", "replace")


@settings(common, max_examples=60)
@given(st.data())
def test_tables_with_any_cells(readers, data):
    for reader, needed in (
        ("manifest", ["case_id", "image", "mask", "label", "group", "fold", "split", "mask_values"]),
        ("result rows", store.COLUMNS),
    ):
        columns = data.draw(st.permutations(needed))[: data.draw(st.integers(1, len(needed)))]
        cell = st.text(max_size=6) | st.integers().map(str) | st.floats().map(str) | st.sampled_from(["a", "b", "1", "2", ""])
        lines = data.draw(st.lists(st.lists(cell, min_size=len(columns), max_size=len(columns)), max_size=5))
        check(readers, reader, as_csv(columns, lines))


@settings(common, max_examples=120)
@given(st.data())
def test_settings_of_a_checkpoint_with_any_values(readers, data):
    about = json.loads(readers["checkpoint, settings"][0][0])
    where = data.draw(st.sampled_from([about, about["config"]]))
    for key in data.draw(st.lists(st.sampled_from(sorted(where)), min_size=1, max_size=2)):
        where[key] = data.draw(json_values)
    check(readers, "checkpoint, settings", json.dumps(about).encode())


@settings(common, max_examples=80)
@given(st.data())
def test_pictures_of_any_depth_and_size(readers, data):
    kind = data.draw(st.sampled_from([np.uint8, np.uint16, np.int32, np.float32, np.bool_]))
    array = data.draw(arrays.arrays(kind, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)))
    file = io.BytesIO()
    suffix = "TIFF" if kind in (np.int32, np.float32) else data.draw(st.sampled_from(["PNG", "TIFF"]))
    Image.fromarray(array).save(file, suffix)
    for reader in ("image", "mask"):
        check(readers, reader, file.getvalue())
    path = readers["image"][2]
    image = readers["image"][1](path) if check(readers, "image", file.getvalue()) == "read" else None
    assert image is None or image.shape == (1, *array.shape) and image.dtype == np.uint8
    if kind == np.uint8:
        assert (image[0] == array).all()  # 8 bits stay as they are


TAGS = ("Rows", "Columns", "BitsStored", "HighBit", "BitsAllocated", "SamplesPerPixel", "PixelRepresentation", "NumberOfFrames")
TEXTS = ("PhotometricInterpretation", "WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "VOILUTFunction")


@settings(common, max_examples=80)
@given(st.data())
def test_dicom_headers_with_any_values(readers, data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(io.BytesIO(readers["image, DICOM"][0][0]))
        for tag in data.draw(st.lists(st.sampled_from(TAGS + TEXTS), min_size=1, max_size=3)):
            number = st.integers(0, 65535) if tag in TAGS else st.sampled_from(["", "x", "1e400", "nan", "-1", "0", "1\\2\\3"])
            try:
                setattr(header, tag, data.draw(number))
            except (ValueError, TypeError, OverflowError):
                continue  # pydicom itself does not write it
        file = io.BytesIO()
        try:
            header.save_as(file)
        except Exception:
            return
    check(readers, "image, DICOM", file.getvalue())


@settings(common, max_examples=60)
@given(st.data())
def test_archives_of_codes_with_any_arrays(readers, data):
    any_array = arrays.arrays(
        st.sampled_from([np.uint8, np.int64, np.float32, np.dtype("U3"), np.bool_]), arrays.array_shapes(max_dims=3, max_side=4)
    )
    parts = {name: data.draw(any_array) for name in ("packed", "ids", "labels", "bits", "model") if data.draw(st.booleans())}
    file = io.BytesIO()
    np.savez(file, **parts)
    check(readers, "codes", file.getvalue())


@settings(common, max_examples=30)
@given(st.data())
def test_codes_come_back_as_they_were(readers, data):
    bits, n = data.draw(st.sampled_from(sorted(BITS))), data.draw(st.integers(0, 6))
    names = data.draw(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=5), min_size=n, max_size=n, unique=True))
    packed = data.draw(arrays.arrays(np.uint8, (n, bits // 8)))
    labels = data.draw(arrays.arrays(np.int64, n))
    path = readers["codes"][2]
    found = Codes.load(Codes(packed, np.array(names, str), labels, bits, "f" * 16).save(path))
    assert (found.packed == packed).all() and found.ids.tolist() == names and (found.labels == labels).all()
    assert found.bits == bits
