"""How fast a search is: ours beside faiss called directly, faiss's heap and NumPy, as rows of ``data/results/benchmarks.csv``."""

from __future__ import annotations

import argparse
import datetime
import sys
import time

import faiss
import numpy as np
import pandas as pd

from .. import paths, provenance
from ..config import Config
from ..hashing import Codes, HammingIndex, search_reference


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


def search_rows(n: int, k: int = 10, queries: int = 128, repetitions: int = 15, numpy_queries: int = 2) -> list[dict]:
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


def main(argv: list[str] | None = None) -> int:
    """``python -m ynet_lite.paper.benchmark [SIZE ...]``: measure and put the rows in place of earlier ones."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.paper.benchmark", description="How fast a search is.")
    parser.add_argument("sizes", type=int, nargs="*", default=[10**5, 10**6, 10**7, 10**8], help="number of codes")
    sizes = parser.parse_args(argv).sizes
    for n in sizes:
        fewer = {"queries": 16, "repetitions": 5} if n > 10**7 else {}  # minutes, not an hour
        print(keep(search_rows(n, **fewer)).to_string(index=False), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
