"""Damaged files for every reader: each gives a value or the one documented kind of error, in bounded memory and time.

``python tests/faults/fuzz.py 24000`` tries that many inputs, dealt evenly over the readers, and writes its counts to
``data/results/trust/fuzz.csv``; `tests/faults/test_faults.py` tries some of each. An input is a valid file with a few bytes
changed, cut, repeated or taken from another file.
"""

from __future__ import annotations

import io
import json
import logging
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ynet_lite import Checkpoint, Codes, Config, paths, provenance
from ynet_lite.cases.formats import read_image, read_mask
from ynet_lite.cases.manifest import check_manifest, read_manifest
from ynet_lite.index import Index
from ynet_lite.model import YNet
from ynet_lite.paper import store
from ynet_lite.sets.phantom import make_phantom

MEMORY = 6 << 30  # bytes of address space, most of it PyTorch's own
SECONDS = 20  # an input

READERS = (
    "manifest",
    "image",
    "image, DICOM",
    "mask",
    "codes",
    "checkpoint, weights",
    "checkpoint, settings",
    "result rows",
    "index",
)


def _pictures() -> list[bytes]:
    rng, files = np.random.default_rng(0), []
    grey = rng.integers(0, 256, (24, 20)).astype(np.uint8)
    colour = rng.integers(0, 256, (24, 20, 3)).astype(np.uint8)
    shown = [(Image.fromarray(grey), k) for k in ("PNG", "TIFF", "BMP", "JPEG", "GIF")]
    shown += [(Image.fromarray(colour), k) for k in ("PNG", "TIFF", "BMP", "JPEG")]
    shown += [(Image.fromarray(grey).convert("P"), "PNG"), (Image.fromarray(grey.astype(np.uint16) * 16), "PNG")]
    for image, kind in shown:
        file = io.BytesIO()
        image.save(file, kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
        files.append(file.getvalue())
    return files


def _dicom() -> list[bytes]:
    import pydicom

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.UltrasoundImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["fuzz"])
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 24, 20, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.WindowCenter, data.WindowWidth = 2000, 4000
    data.PixelData = (np.arange(480, dtype=np.uint16) * 8).tobytes()
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return [file.getvalue()]


def _masks() -> list[bytes]:
    files = []
    for values in (np.eye(24, dtype=np.uint8) * 255, np.eye(24, dtype=np.uint8)):
        for kind in ("PNG", "TIFF", "BMP"):
            file = io.BytesIO()
            Image.fromarray(values).save(file, kind)
            files.append(file.getvalue())
    return files


def _made(folder: Path) -> dict[str, tuple[list[bytes], Callable[[Path], object], str]]:
    """Valid files, reader and suffix by name of the reader."""
    phantom = make_phantom(40, seed=1, size=48)
    cfg = Config(size=32, planes=(8, 8, 8, 8), blocks=1, epochs=1)
    network = Checkpoint(
        YNet(cfg, 2), cfg, "0" * 16, ("a", "b"), ("background", "lesion"), pd.DataFrame({"epoch": [1], "loss": [0.5]})
    )
    network.save(folder / "network.safetensors")
    weights, about = (folder / "network.safetensors").read_bytes(), (folder / "network.json").read_bytes()
    rng = np.random.default_rng(0)
    Codes(rng.integers(0, 256, (40, 8)).astype(np.uint8), phantom.ids, phantom.labels, 64, "f" * 16).save(folder / "codes.npz")
    values = pd.DataFrame({"metric": ["map", "ndcg"], "k": [10, 10], "value": [0.5, 0.6]})
    rows = store.run_rows(Config(), "0" * 16, values, 1.0)
    manifest = "case_id,image,mask,label,group,fold\n" + "".join(
        f"c{i},i{i}.png,,{'ab'[i % 2]},p{i},{i % 5}\n" for i in range(20)
    )
    Image.fromarray(phantom.images[0, 0]).save(folder / "one.png")
    Index.build(folder / "an.index", folder / "one.png", "phantom-quick", progress=False)[0].close()

    def checkpoint(part: str):
        def read(path: Path):
            other, content = (".json", about) if part == "weights" else (".safetensors", weights)
            path.with_suffix(other).write_bytes(content)
            return Checkpoint.load(path.with_suffix(".safetensors"))

        return read

    def index(path: Path):
        with Index(path) as opened:
            return opened.info(), opened._load()

    return {
        "manifest": ([manifest.encode()], lambda path: check_manifest(read_manifest(path), "m", need_files=False), ".csv"),
        "image": (_pictures(), lambda path: read_image(path, 1), ".png"),
        "image, DICOM": (_dicom(), lambda path: read_image(path, 1), ".dcm"),
        "mask": (_masks(), lambda path: read_mask(path), ".png"),
        "codes": ([(folder / "codes.npz").read_bytes()], Codes.load, ".npz"),
        "checkpoint, weights": ([weights], checkpoint("weights"), ".safetensors"),
        "checkpoint, settings": ([about], checkpoint("settings"), ".json"),
        "result rows": ([rows.to_csv(index=False).encode()], store.read_run, ".csv"),
        "index": ([(folder / "an.index").read_bytes()], index, ".index"),
    }


def damaged(seeds: list[bytes], rng: np.random.Generator) -> bytes:
    """One valid file with one to four changes."""
    data = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(rng.integers(1, 5)):
        if not data:
            break
        # headers are where the numbers are: half of the changes fall into the first 200 bytes
        at = int(rng.integers(min(len(data), 200) if rng.random() < 0.5 else len(data)))
        kind = rng.integers(7)
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + 4] = int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 65535])).to_bytes(4, "little")
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + int(rng.integers(1, 40))]
        elif kind == 4:
            data[at:at] = rng.bytes(int(rng.integers(1, 40)))
        elif kind == 5:
            other = seeds[rng.integers(len(seeds))]
            cut = int(rng.integers(len(other)))
            data[at : at + 30] = other[cut : cut + 30]
        else:
            data[at:at] = data[at : at + int(rng.integers(1, 200))]
    return bytes(data)


def outcome(reader: str, read: Callable[[Path], object], path: Path) -> tuple[str, str]:
    """("read" | "refused" | "wrong", what went wrong) of one file: a value, a ``ValueError`` that names the file, or else."""
    try:
        read(path)
    except ValueError as error:  # ManifestError is one
        named = path.stem in str(error) or reader == "manifest"
        return ("refused", "") if named else ("wrong", f"does not name its file: {error}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "wrong", f"{type(error).__name__}: {str(error)[:200]}"
    return "read", ""


class Late(BaseException):
    """An input took longer than `SECONDS`."""


def _late(*_):
    raise Late


def fuzz(each: int, seed: int = 0, readers: tuple[str, ...] = ()) -> tuple[pd.DataFrame, list[str]]:
    """(counts by reader, descriptions of what went wrong) of ``each`` inputs a reader."""
    counts, wrong = [], []
    signal.signal(signal.SIGALRM, _late)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
        folder = Path(name)
        for reader, (seeds, read, suffix) in _made(folder).items():
            if readers and reader not in readers:
                continue
            rng, count = np.random.default_rng([seed, len(reader)]), {"read": 0, "refused": 0, "wrong": 0}
            slowest, path = 0.0, folder / f"input{suffix}"
            for number in range(each):
                path.write_bytes(damaged(seeds, rng))
                signal.alarm(SECONDS)
                began = time.perf_counter()
                ended, what = outcome(reader, read, path)
                count[ended] += 1
                if what:
                    wrong.append(f"{reader} {number}: {what}")
                signal.alarm(0)
                slowest = max(slowest, time.perf_counter() - began)
            counts.append({"reader": reader, "inputs": each, **count, "slowest_seconds": round(slowest, 2)})
    return pd.DataFrame(counts), wrong


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    each = -(-int(sys.argv[1] if len(sys.argv) > 1 else 24_000) // 9)
    counts, wrong = fuzz(each)
    about = {"versions": provenance.versions(), "commit": provenance.commit()[0], "date": time.strftime("%Y-%m-%d")}
    print(counts.to_string(index=False), *wrong[:20], sep="\n")
    print(json.dumps(about), paths.write_csv(counts.assign(**about), paths.results() / "trust" / "fuzz.csv"))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
