"""Binary codes: sign, packing, exact Hamming distances and rankings, and +-1 targets for class centres."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from scipy.linalg import hadamard

from . import paths

BITS = (8, 16, 32, 48, 64, 128, 256)


def whole(name: str, value, least: int = 1) -> int:
    """``value`` as an int. Raises ``ValueError`` where it is no whole number, or below ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        at_least = f" of at least {least}" if least >= 0 else ""
        raise ValueError(f"{name} must be a whole number{at_least}, got {value!r}")
    return int(value)


def no_nan(what: str, values: np.ndarray) -> None:
    """Raise ``ValueError`` that names the rows of ``values`` (N, K) with a NaN."""
    bad = np.flatnonzero(np.isnan(values).any(axis=1))
    if len(bad):
        raise ValueError(f"{what}: NaN in {len(bad)} of {len(values)} rows, first rows {bad[:5].tolist()}")


def _check_bits(bits) -> int:
    if bits not in BITS:
        raise ValueError(f"code length must be one of {BITS} bits, got {bits!r}")
    return int(bits)


def _check_packed(packed, what: str, bits: int | None = None) -> np.ndarray:
    packed = np.asarray(packed)
    if packed.dtype != np.uint8 or packed.ndim != 2:
        raise ValueError(f"{what}: must be uint8 of shape (N, bits / 8), got {packed.dtype} {packed.shape}")
    held = _check_bits(8 * packed.shape[1])
    if bits is not None and held != _check_bits(bits):
        raise ValueError(f"{what}: {held} bits per row, but {bits} were named")
    return packed


def _check_pair(packed_q, packed_db) -> tuple[np.ndarray, np.ndarray]:
    packed_q, packed_db = _check_packed(packed_q, "query codes"), _check_packed(packed_db, "database codes")
    if packed_q.shape[1] != packed_db.shape[1]:
        lengths = f"query codes have {8 * packed_q.shape[1]} bits, database codes {8 * packed_db.shape[1]}"
        raise ValueError(f"{lengths}; both must come from the same model")
    return packed_q, packed_db


def sign_bits(z) -> np.ndarray:
    """Binarise real codes: ``b = (z >= 0)``, so that sign(0) = +1, also for -0.0.

    ``z``: float array (N, K). Returns bool (N, K), True for +1. Raises ``ValueError`` on NaN (rows are named).
    """
    z = np.asarray(z)
    if z.ndim != 2 or z.dtype.kind != "f":
        raise ValueError(f"real codes must be a float array of shape (N, K), got {z.dtype} {z.shape}")
    no_nan("real codes", z)
    return z >= 0


def pack(codes) -> np.ndarray:
    """Pack codes into bytes, first bit = highest bit of the first byte (``numpy.packbits``, big-endian).

    ``codes``: bool (N, K), or float (N, K) which is binarised by `sign_bits`; K in `BITS`. Returns uint8 (N, K / 8).
    Raises ``ValueError`` for other types (0/1 and -1/+1 integers look alike, so neither is guessed) and lengths.
    """
    codes = np.asarray(codes)
    if codes.dtype != bool:
        codes = sign_bits(codes)
    if codes.ndim != 2:
        raise ValueError(f"bits must have shape (N, K), got {codes.shape}")
    _check_bits(codes.shape[1])
    return np.packbits(codes, axis=1, bitorder="big")


def unpack(packed, bits: int) -> np.ndarray:
    """Inverse of `pack`: uint8 (N, bits / 8) to bool (N, bits)."""
    return np.unpackbits(_check_packed(packed, "packed codes", bits), axis=1, bitorder="big").astype(bool)


def hamming(packed_q, packed_db) -> np.ndarray:
    """All Hamming distances ``d[q, n] = number of bits that differ``: the bits set in ``q XOR n``, one query at a time.

    ``packed_q`` uint8 (Q, B), ``packed_db`` uint8 (N, B). Returns int16 (Q, N), values 0..8 B (at most 256).
    """
    # Zero bytes up to a multiple of 8 add nothing to a distance, and let 64 bits be counted at once.
    queries, database = (
        np.ascontiguousarray(np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))).view(np.uint64)
        for packed in _check_pair(packed_q, packed_db)
    )
    words = np.ascontiguousarray(database.T)
    out = np.empty((len(queries), len(database)), np.int16)
    for row, code in zip(out, queries, strict=True):
        np.bitwise_count(words ^ code[:, None]).sum(axis=0, dtype=np.int16, out=row)
    return out


@dataclass(frozen=True, eq=False)
class Codes:
    """Binary codes of a set of cases.

    Attributes
    ----------
    packed : uint8 array (N, bits / 8), see `pack`.
    ids : str array (N,), unique; the ``case_id`` of each case, which also orders ties in a ranking.
    labels : int64 array (N,), class index.
    bits : code length, one of `BITS`.
    model : fingerprint of the weights that made the codes (`Checkpoint.weights_id`), "" where it is not known.

    Raises ``ValueError`` when the parts do not fit together or an id occurs twice.
    """

    packed: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    bits: int
    model: str = ""

    def __post_init__(self):
        packed = _check_packed(self.packed, "Codes.packed", self.bits)
        ids, labels = np.asarray(self.ids), np.asarray(self.labels)
        if ids.size == 0 or (ids.dtype.kind == "O" and all(isinstance(value, str) for value in ids.ravel())):
            ids = ids.astype(str)  # object arrays of str come from pandas; they could only be saved as a pickle
        if ids.dtype.kind != "U":
            raise ValueError(f"Codes.ids must be strings, got {ids.dtype}")
        if labels.dtype.kind not in "iu" and labels.size:
            raise ValueError(f"Codes.labels must be integers, got {labels.dtype}")
        if ids.shape != (len(packed),) or labels.shape != (len(packed),):
            raise ValueError(f"Codes: {len(packed)} codes, but ids {ids.shape} and labels {labels.shape}")
        names, counts = np.unique(ids, return_counts=True)
        if len(twice := names[counts > 1].tolist()):
            many = f"{len(twice)} id(s) occur more than once, first {twice[:5]}"
            raise ValueError(f"Codes.ids: {many}; ids must be unique because they order ties")
        for name, value in {"packed": packed, "ids": ids, "labels": labels.astype(np.int64), "bits": int(self.bits)}.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.packed)

    def save(self, path) -> Path:
        """Write one ``.npz`` file (plain arrays, no pickles): complete or not at all. Returns the path."""
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"{path}: codes are saved as .npz")
        with paths.replacing(path) as temporary:
            parts = {"packed": self.packed, "ids": self.ids, "labels": self.labels, "bits": np.int64(self.bits)}
            np.savez_compressed(temporary, **parts, **({"model": np.str_(self.model)} if self.model else {}))
        return path

    @classmethod
    def load(cls, path) -> Codes:
        """Read what `save` wrote. ``FileNotFoundError`` without the file, ``ValueError`` naming it when it is something else.

        Warns where the file does not say which network made the codes: then nobody can check that they belong to one.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; codes are written by Codes.save")
        try:
            with np.load(path, allow_pickle=False) as stored:
                model = str(stored["model"]) if "model" in stored else ""
                codes = cls(stored["packed"], stored["ids"], stored["labels"], int(stored["bits"]), model)
        except Exception as error:  # a damaged archive raises many kinds, zlib's and zipfile's own among them
            raise ValueError(
                f"{path}: not a file of codes (packed, ids, labels, bits), or damaged: {error}; encode the cases anew"
            ) from error
        if not model:
            warnings.warn(f"{path}: does not say which network made these codes; encode the cases anew to be sure", stacklevel=2)
        return codes


def check_models(one: str, other: str) -> None:
    """Raise ``ValueError`` where two fingerprints of weights are known and differ: codes of two networks have no distance."""
    if one and other and one != other:
        raise ValueError(f"codes of another network ({one} and {other}): encode queries and database with the same one")


def _search_input(codes, database: Codes, k: int) -> tuple[np.ndarray, int]:
    k = min(whole("k", k), len(database))
    packed, _ = _check_pair(getattr(codes, "packed", codes), database.packed)
    check_models(getattr(codes, "model", ""), database.model)
    if len(database) == 0:
        raise ValueError("search: the database is empty; it needs at least one code")
    return packed, k


class HammingIndex:
    """Exact k nearest codes, ordered by (distance, id), through faiss's binary flat index.

    Codes are inserted in id order and faiss counts (``use_heap = False``) instead of keeping a heap: the counting search
    lists equal distances in order of insertion.
    """

    def __init__(self, database: Codes):
        if not isinstance(database, Codes):
            raise ValueError(f"HammingIndex: takes Codes, got {type(database).__name__}; see ynet_lite.encode and Codes.load")
        if len(database) == 0:
            raise ValueError("HammingIndex: the database is empty; it needs at least one code")
        self.database = database
        self._by_id = np.argsort(database.ids, kind="stable")  # position in id order -> row of the database
        self._index = faiss.IndexBinaryFlat(database.bits)
        self._index.use_heap = False
        self._index.add(np.ascontiguousarray(database.packed[self._by_id]))

    def __len__(self) -> int:
        return len(self.database)

    def search(self, codes, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``min(k, N)`` nearest cases of each query, ordered by (Hamming distance, id).

        ``codes``: `Codes` or packed uint8 (Q, bits / 8). Returns ``(distances int16 (Q, k), rows int64 (Q, k))``;
        ``rows`` index ``database.ids`` and ``database.labels``. ``k`` above N is clipped to N; below 1 is an error.
        """
        packed, k = _search_input(codes, self.database, k)
        # The counting search reserves k places per possible distance for each query that it works on at once.
        self._index.query_batch_size = int(np.clip((1 << 24) // (k * (self.database.bits + 1)), 1, 32))
        distances, places = self._index.search(np.ascontiguousarray(packed), k)
        return distances.astype(np.int16), self._by_id[places]


def usual_distances(codes: Codes, groups=None, sample: int = 500) -> np.ndarray:
    """How far cases usually are from their nearest other case: sorted distances of up to ``sample`` cases, evenly chosen by id.

    With ``groups`` (N,), the patients: to the nearest case of another patient. Empty where there is no other.
    """
    numbers = np.unique(codes.ids if groups is None else np.asarray(groups), return_inverse=True)[1]
    some = np.unique(np.linspace(0, len(codes) - 1, sample).astype(int))
    k = min(1 + int(np.bincount(numbers).max()), sample)  # more than a patient has
    bits, rows = HammingIndex(codes).search(codes.packed[some], k)
    other = numbers[rows] != numbers[some, None]
    return np.sort(bits[np.arange(len(some)), other.argmax(1)][other.any(1)])


def percentile(bits, usual: np.ndarray):
    """How many in a hundred of the `usual_distances` are below ``bits``; NaN where there are none."""
    return 100 * np.searchsorted(usual, bits) / len(usual) if len(usual) else np.full(np.shape(bits), np.nan)


def search_reference(codes, database: Codes, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The same as ``HammingIndex(database).search(codes, k)`` in NumPy: sort all cases by (distance, id), cut at k."""
    packed, k = _search_input(codes, database, k)
    distances, by_id = hamming(packed, database.packed), np.argsort(database.ids)
    rows = by_id[np.argsort(distances[:, by_id], axis=1, kind="stable")[:, :k]]
    return np.take_along_axis(distances, rows, axis=1), rows


def hadamard_targets(n_classes: int, bits: int, seed: int = 0) -> np.ndarray:
    """One fixed +-1 code per class, the classes far from each other.

    Up to ``2 * bits`` classes: rows of a Hadamard matrix ``H`` (Sylvester's; for 48 bits Paley's) and of ``-H``, every pair
    ``bits / 2`` apart or opposite, as in CSQ (Yuan et al., CVPR 2020, Section 3.2). Deviation: the row of all ones is taken last,
    because it is not balanced. More classes: different codes with as many +1 as -1, drawn from ``seed`` as in CSQ.

    Returns float32 (n_classes, bits), rows distinct. ``seed`` chooses and orders the rows.
    Raises ``ValueError`` for fewer than one class, unknown ``bits``, or more classes than balanced codes.
    """
    bits, n_classes = _check_bits(bits), whole("n_classes", n_classes)
    rng = np.random.default_rng([int(seed), bits, n_classes])
    if n_classes <= 2 * bits:
        rows = _hadamard(bits).astype(np.float32)
        order = 1 + rng.permutation(bits - 1)
        signed = np.concatenate([rows[order], -rows[order], rows[:1], -rows[:1]])
        return np.ascontiguousarray(signed[:n_classes])
    if n_classes > (most := math.comb(bits, bits // 2)):
        raise ValueError(f"{bits} bits hold {most} balanced codes, too few for {n_classes} classes; use more bits")
    half, drawn = np.repeat([1, -1], bits // 2), {}
    while len(drawn) < n_classes:
        row = rng.permutation(half)
        drawn.setdefault(row.tobytes(), row)
    return np.stack(list(drawn.values())).astype(np.float32)


def _hadamard(bits: int) -> np.ndarray:
    """A +-1 matrix (bits, bits) with orthogonal rows, the first of all ones."""
    if bits & (bits - 1) == 0:
        return hadamard(bits)
    prime = bits - 1  # 47; Paley's first construction needs one of the form 4 n + 3
    number = np.arange(prime)
    residue = np.where(np.isin(number, number[1:] ** 2 % prime), 1, -1)  # quadratic character, 0 at 0
    residue[0] = 0
    ones = np.ones((1, prime), int)
    return np.eye(bits, dtype=int) + np.block([[np.zeros((1, 1), int), ones], [-ones.T, residue[number[:, None] - number]]])
