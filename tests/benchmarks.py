"""``python tests/benchmarks.py [PART ...]``: what grows with what, and how fast a search is; rows of ``benchmarks.csv``.

Costs of searching, encoding and training against size, as ratios; a search beside faiss called directly, its heap and NumPy.
Times are processor time of one thread, except where processes work side by side; compared things are timed in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import faiss
import numpy as np
import pandas as pd
import torch
from joblib.externals.loky import get_reusable_executor
from PIL import Image
from torch.nn import functional as F

from ynet_lite import paths, provenance
from ynet_lite.cases.formats import read_image
from ynet_lite.cases.loading import letterbox
from ynet_lite.config import Config
from ynet_lite.encoding import _precision, represent
from ynet_lite.hashing import Codes, HammingIndex, pack, search_reference
from ynet_lite.index import Index, encode_files, load_model
from ynet_lite.losses.unified import UnifiedLoss
from ynet_lite.methods import METHOD_NAMES, OURS, TWIN
from ynet_lite.model import YNet
from ynet_lite.search import encode_image
from ynet_lite.sets.phantom import make_phantom
from ynet_lite.viewer.gallery import MOST_BYTES

MODEL = "busbra-full"


def row(
    name: str, reference: str, size: str, value: float, reference_value: float, unit: str, threads: int = 1, ratio=None
) -> dict:
    """One row of ``benchmarks.csv``; the ratio is that of the values where it was not measured by itself."""
    ratio = value / reference_value if ratio is None else ratio
    numbers = {"value": value, "reference_value": reference_value, "ratio": ratio}
    return {
        "name": name,
        "reference": reference,
        "size": size,
        **{key: float(f"{number:.4g}") for key, number in numbers.items()},
        "unit": unit,
        "threads": threads,
        "device": provenance.device_name(Config()),
        "versions": provenance.versions(),
        "commit": provenance.commit()[0],
        "date": datetime.date.today().isoformat(),
    }


def keep(rows: list[dict]) -> pd.DataFrame:
    """Put rows in place of earlier ones of the same name, reference and size; returns what is worth showing of them."""
    path, new = paths.results() / "benchmarks.csv", pd.DataFrame(rows)
    table = pd.concat([pd.read_csv(path, dtype=str), new.astype(str)])
    with paths.replacing(path) as temporary:
        table.drop_duplicates(["name", "reference", "size"], keep="last").to_csv(temporary, index=False)
    return new[["name", "reference", "size", "value", "reference_value", "ratio"]]


def seconds(work: dict[str, Callable[[], object]], repetitions: int = 3, clock=time.process_time) -> dict[str, float]:
    """Median seconds of each piece of work; all are done once before, then in turn."""
    for one in work.values():
        one()
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repetitions):
        for name, one in work.items():
            began = clock()
            one()
            times[name].append(clock() - began)
    return {name: float(np.median(values)) for name, values in times.items()}


def clustered(n: int, bits: int = 64, seed: int = 0, words: int = 20, flips: float = 0.03) -> Codes:
    """``n`` codes that crowd as trained ones do: few words, each bit flipped with probability ``flips``; ids in order."""
    rng = np.random.default_rng(seed)
    packed = rng.integers(0, 256, (words, bits // 8), np.uint8)[rng.integers(0, words, n)]
    for bit in range(bits):
        packed[rng.random(n) < flips, bit // 8] ^= np.uint8(1 << bit % 8)
    digits = np.empty((n, 8), np.uint32)  # of the ids, as NumPy keeps text: no Python string for each of 1e8 cases
    for place in range(8):
        digits[:, 7 - place] = np.arange(n) // 10**place % 10 + ord("0")
    return Codes(packed, digits.view("U8")[:, 0], np.zeros(n, np.int64), bits)


def line(name: str, unit: str, costs: dict[int, float]) -> list[dict]:
    """Rows of one line: the cost at each size beside that at the smallest size."""
    first = min(costs)
    return [row(name, f"{first:g} {unit}", f"{size:g} {unit}", cost, costs[first], "s") for size, cost in costs.items()]


def database() -> list[dict]:
    """One query against databases of 64-bit codes."""
    packed = clustered(64, seed=1).packed
    indexes = {n: HammingIndex(clustered(n)) for n in (10**4, 10**5, 10**6, 10**7, 10**8)}
    costs = seconds({n: (lambda index=index: index.search(packed, 10)) for n, index in indexes.items()})
    return line("64 searches against size of the database", "codes", costs)


def bits() -> list[dict]:
    """Codes of other lengths."""
    work = {}
    for length in (32, 64, 128, 256):  # faiss has no kernel of its own for shorter codes
        index, packed = HammingIndex(clustered(1_000_000, length)), clustered(64, length, seed=1).packed
        work[length] = lambda index=index, packed=packed: index.search(packed, 10)
    return line("64 searches in 1,000,000 codes against their length", "bits", seconds(work))


def image_side() -> list[dict]:
    """The network on larger images."""
    model = load_model(MODEL).model
    images = {side: torch.rand(8, 1, side, side) * 255 for side in (64, 128, 256, 512)}
    with torch.inference_mode():
        costs = seconds({side: (lambda x=x: model(x)) for side, x in images.items()})
    return line("encoding 8 images against their side", "pixels", costs)


def cases() -> list[dict]:
    """More files to encode, and every pair of cases to compare."""
    with tempfile.TemporaryDirectory() as folder:
        files = pictures(Path(folder), 1600, side=128)
        costs = seconds({n: (lambda n=n: list(encode_files(files[:n], MODEL))) for n in (100, 400, 1600)}, 1)
    return line("encoding files against their number", "files", costs)


def pictures(folder: Path, n: int, side: int = 330) -> list[str]:
    """``n`` grey PNG files with speckle as an ultrasound image has; by default as many pixels as the median of BUS-BRA."""
    folder.mkdir(exist_ok=True)
    shown = make_phantom(100, seed=3).images[:, 0]
    rng, files = np.random.default_rng(3), []
    for i in range(n):
        large = np.asarray(Image.fromarray(shown[i % len(shown)]).resize((side, side), Image.Resampling.BICUBIC))
        files.append(str(folder / f"{i:06d}.png"))
        Image.fromarray((large * rng.uniform(0.8, 1, large.shape)).astype(np.uint8)).save(files[-1], compress_level=1)
    return files


def encoding(n: int = 1024) -> list[dict]:
    """Images a second from files: two processes beside one image at a time, decoding alone and the network alone."""
    checkpoint = load_model(MODEL)
    cfg = checkpoint.cfg
    with tempfile.TemporaryDirectory() as folder:
        files = pictures(Path(folder), n)
        squares = np.stack([letterbox(read_image(file, 1), cfg.size)[0] for file in files])

        def network():
            with torch.inference_mode():
                for part in torch.from_numpy(squares).split(16):
                    pack(represent(checkpoint.model, cfg, part.float()).code.numpy())

        work = {
            "encode_files, two processes": lambda: list(encode_files(files, MODEL, jobs=2)),
            "one image at a time": lambda: [encode_image(checkpoint, file) for file in files],
            "decoding alone": lambda: [letterbox(read_image(file, 1), cfg.size)[0] for file in files],
            "the network alone": network,
        }
        took = seconds(work, 3, time.perf_counter)
    name, *others = took
    return [row(name, other, f"{n} files of 330 x 330", n / took[name], n / took[other], "images/s", 2) for other in others]


def archive(n: int = 100_000, limit: float = 1.5) -> list[dict]:
    """An index of many small files by two processes: time, and the most memory that all three processes can have had."""
    with tempfile.TemporaryDirectory() as folder:
        pictures(Path(folder) / "pictures", n, side=64)
        began = time.perf_counter()
        index, _ = Index.build(Path(folder) / "an.index", Path(folder) / "pictures", "phantom-quick", jobs=2, progress=False)
        built = time.perf_counter() - began
        index.search(Path(folder) / "pictures" / "000007.png")
    get_reusable_executor().shutdown(wait=True)  # only of ended processes the system says how large they were
    most = [resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    memory = row(
        "memory of indexing and searching files of 64 x 64", "limit", f"{n} files", most[0] + 2 * most[1], limit, "GB", 2
    )
    return [memory, row("indexing files of 64 x 64", "one second each thousand", f"{n} files", built, n / 1000, "s", 2)]


def _timed(*arguments: str) -> float:
    """Seconds of processor time that ``ynet`` takes with these arguments, start of Python included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "ynet_lite", *map(str, arguments)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commands(n: int = 1000) -> list[dict]:
    """The six commands on ``n`` pictures, beside a command that only starts, and the size of a page of ``n`` queries."""
    with tempfile.TemporaryDirectory() as folder:
        old, new, index, page = (Path(folder) / name for name in ("old", "new", "my.index", "page.html"))
        first = pictures(old, n)[0]
        for i, file in enumerate(pictures(new, n // 10)):
            Path(file).rename(new / f"new{i:06d}.png")
        table = pd.DataFrame({"image": pictures(Path(folder) / "some", 40)}).assign(label=["a", "b"] * 20)
        table.assign(group=table.index.astype(str)).to_csv(Path(folder) / "cases.csv", index=False)
        took = {
            f"ynet index, {n} images": _timed("index", old, "-o", index),
            f"ynet add, {n // 10} images": _timed("add", index, new),
            "ynet info": _timed("info", index),
            "ynet search, one image": _timed("search", index, first),
            f"ynet search --gallery, {n} images": _timed("search", index, old, "--gallery", page),
            "ynet remove, one case": _timed("remove", index, "new000000"),
            "ynet train, 40 images": _timed("train", Path(folder) / "cases.csv", "-o", Path(folder) / "my.safetensors"),
        }
        size = page.stat().st_size
    start = _timed("--help")
    rows = [row(name, "ynet --help", "images of 330 x 330", value, start, "s of CPU") for name, value in took.items()]
    queries = f"{n} queries, 10 answers each"
    return [*rows, row("page of ynet search --gallery", "limit", queries, size / 1e6, MOST_BYTES / 1e6, "MB")]


def step(cfg: Config, ours: bool, batch: int = 36) -> Callable[[], None]:
    """One training step, forward and backward and update, on random images. Not ``ours``: the released order of operations, which
    upsamples all feature maps to full size before the last convolution, in the default memory layout."""
    torch.manual_seed(0)
    model, loss = YNet(cfg, 2, 2), UnifiedLoss(cfg, 2)
    images = torch.rand(batch, cfg.channels, cfg.size, cfg.size) * 255
    if ours:
        model, images = model.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()])
    masks, labels = torch.randint(2, (batch, cfg.size, cfg.size)), torch.arange(batch) % 2

    def as_released(x, conv, size):
        return conv(F.interpolate(x, size=size, mode="bilinear", align_corners=False))

    def one():
        changed = contextlib.nullcontext() if ours else mock.patch("ynet_lite.model.upsampled_conv", as_released)
        with changed, _precision(cfg):
            output = model(images)
        total, _ = loss(output, masks, torch.ones(batch, dtype=torch.bool), labels, model.classifier)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()

    return one


def training() -> list[dict]:
    """A training step beside that of the released network in its own order of operations."""
    released = Config.from_preset("paper", method="released").but(precision="float32")
    steps = {"released network, its own order of operations": step(released, False)}
    steps["the same shape, ours"] = step(Config.from_preset("paper", method="ynet-paper"), True)
    for size in (256, 128):
        steps[f"Y-Net, full at {size} x {size}"] = step(Config.from_preset("full").but(size=size), True)
    took = seconds(steps, 3)
    first, *others = took
    return [row(f"training step, {name}", first, "batch of 36", 36 / took[name], 36 / took[first], "images/s") for name in others]


def encoders() -> list[dict]:
    """A training step of the pretrained encoder, with and without outlines, and what a first stage left as it came saves."""
    steps = {}
    for method in (OURS, TWIN):
        cfg = Config.from_preset("pretrained", "busbra", method)
        steps |= {(method, frozen): step(cfg.but(frozen=frozen), True, cfg.batch) for frozen in (0, 1)}
    took = seconds(steps, 3)
    rows = []
    for (method, frozen), cost in took.items():
        name = f"training step, lite0, {METHOD_NAMES[method]}" + f", {frozen} frozen stage" * frozen
        size, rate, first = f"batch of {cfg.batch}, {cfg.size} x {cfg.size}", cfg.batch / cost, cfg.batch / took[method, 0]
        rows.append(row(name, "all stages trained", size, rate, first, "images/s"))
    return rows


def rounding() -> list[dict]:
    """A training step in bfloat16 on a processor without instructions for it: by rounding, as ours are, and by autocast."""
    cfg = Config.from_preset("full")
    one = step(cfg, True)

    def native():
        with mock.patch.object(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True):
            one()

    took = seconds({"by rounding": one, "by autocast": native, "float32": step(cfg.but(precision="float32"), True)}, 3)
    name, size = "training step, full, bfloat16 by rounding", f"batch of 36, {cfg.size} x {cfg.size}"
    rates = {way: 36 / cost for way, cost in took.items()}
    return [row(name, way, size, rates["by rounding"], rates[way], "images/s") for way in ("by autocast", "float32")]


def searched(n: int, k: int = 10, queries: int = 128, repetitions: int = 15, numpy_queries: int = 2) -> list[dict]:
    """Queries per second of processor time, one thread, on ``n`` clustered 64-bit codes: `HammingIndex.search` and three others.

    Every repetition times ours and the reference one after the other, in alternating order; the ratio is the median of the
    ratios, the values are medians. Answers are compared with NumPy's first. Two more rows: seconds to build the index from
    codes, and the memory that ids, labels, codes and index take, beside the codes alone.
    """
    faiss.omp_set_num_threads(1)
    database, packed = clustered(n), clustered(queries, seed=1).packed
    # queries of the same words as the database: its own codes with a few bits flipped
    packed = database.packed[:: max(1, n // queries)][:queries] ^ (packed & np.uint8(0x11))
    began = time.process_time()
    index = HammingIndex(database)
    building = time.process_time() - began
    held = database.packed.nbytes * 2 + database.ids.nbytes + database.labels.nbytes + index._by_id.nbytes  # faiss copies codes
    direct = {}
    for name, heap in (("faiss, use_heap=False", False), ("faiss, heap", True)):
        direct[name] = faiss.IndexBinaryFlat(database.bits)
        direct[name].use_heap = heap
        began = time.process_time()
        direct[name].add(database.packed)
        adding = time.process_time() - began
    few = packed[:numpy_queries]
    if not np.array_equal(index.search(few, k)[1], search_reference(few, database, k)[1]):
        raise AssertionError("HammingIndex.search and search_reference differ")
    searches = {name: (one.search, packed) for name, one in direct.items()}
    searches["NumPy"] = (lambda codes, k: search_reference(codes, database, k), few)

    def rate(search, codes) -> float:
        began = time.process_time()  # not the clock on the wall: other processes may share the core
        search(codes, k)
        return len(codes) / (time.process_time() - began)

    rows = [
        row("building HammingIndex", "faiss, add", f"{n} codes", building, adding, "s of CPU"),
        row("memory of HammingIndex with its ids", "codes alone", f"{n} codes", held / 1e9, database.packed.nbytes / 1e9, "GB"),
    ]
    for name, reference in searches.items():
        pairs = []
        for repetition in range(min(3, repetitions // 5) if name == "NumPy" else repetitions):
            both = [(index.search, packed), reference]
            order = (0, 1) if repetition % 2 == 0 else (1, 0)
            rates = {i: rate(*both[i]) for i in order}
            pairs.append((rates[0], rates[1]))
        ours, theirs = np.array(pairs).T
        about = f"HammingIndex.search, {k} nearest of clustered 64-bit codes"
        rates = np.median(ours), np.median(theirs)
        rows.append(row(about, name, f"{n} codes", *rates, "queries/s of CPU", ratio=np.median(ours / theirs)))
    return rows


def search() -> list[dict]:
    """`searched` at growing sizes; of the largest with fewer queries, which takes minutes and not an hour."""
    return [
        line
        for n in (10**5, 10**6, 10**7, 10**8)
        for line in searched(n, **({"queries": 16, "repetitions": 5} if n > 10**7 else {}))
    ]


PARTS = {
    part.__name__: part
    for part in (database, bits, image_side, cases, encoding, archive, commands, encoders, training, rounding, search)
}


def main(argv: list[str] | None = None) -> int:
    """Measure and put the rows in place of earlier ones."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks.py", description=main.__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"default: {' '.join(PARTS)}")
    torch.set_num_threads(1)
    for part in parser.parse_args(argv).parts:
        print(keep(PARTS[part]()).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
