"""Binary codes: sign, packing, exact Hamming distances and rankings, and +-1 targets for class centres.

Every fast function (faiss) has a slow twin in NumPy (``*_reference``) that must give the same numbers.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from scipy.linalg import hadamard
from sklearn.decomposition import PCA

from . import paths

BITS = (8, 16, 32, 48, 64, 128, 256)

# Rows of the distance matrix worked on at once where all pairs are needed: bounds the memory, does not change results.
_CELLS = 1 << 24


def _check_bits(bits) -> int:
    if bits not in BITS:
        raise ValueError(f"code length must be one of {BITS} bits, got {bits!r}")
    return int(bits)


def _check_packed(packed, what: str = "packed codes") -> np.ndarray:
    packed = np.asarray(packed)
    if packed.dtype != np.uint8 or packed.ndim != 2:
        raise ValueError(f"{what}: must be uint8 of shape (N, bits / 8), got {packed.dtype} {packed.shape}")
    _check_bits(8 * packed.shape[1])
    return packed


def _check_pair(packed_q, packed_db) -> tuple[np.ndarray, np.ndarray]:
    packed_q, packed_db = _check_packed(packed_q, "query codes"), _check_packed(packed_db, "database codes")
    if packed_q.shape[1] != packed_db.shape[1]:
        raise ValueError(
            f"query codes have {8 * packed_q.shape[1]} bits, database codes {8 * packed_db.shape[1]}; "
            "both must come from the same model"
        )
    return packed_q, packed_db


def sign_bits(z) -> np.ndarray:
    """Binarise real codes: ``b = (z >= 0)``, so that sign(0) = +1, also for -0.0.

    ``z``: float array (N, K). Returns bool (N, K), True for +1. Raises ``ValueError`` on NaN (rows are named).
    """
    z = np.asarray(z)
    if z.ndim != 2 or z.dtype.kind != "f":
        raise ValueError(f"real codes must be a float array of shape (N, K), got {z.dtype} {z.shape}")
    bad = np.flatnonzero(np.isnan(z).any(axis=1))
    if len(bad):
        raise ValueError(f"real codes: NaN in {len(bad)} of {len(z)} rows, first rows {bad[:5].tolist()}")
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
    packed = _check_packed(packed)
    if packed.shape[1] * 8 != _check_bits(bits):
        raise ValueError(f"packed codes hold {packed.shape[1] * 8} bits per row, but {bits} were asked for")
    return np.unpackbits(packed, axis=1, bitorder="big").astype(bool)


def hamming(packed_q, packed_db) -> np.ndarray:
    """All Hamming distances ``d[q, n] = number of bits that differ``, exact, through faiss.

    ``packed_q`` uint8 (Q, B), ``packed_db`` uint8 (N, B). Returns int16 (Q, N), values 0..8 B (at most 256).
    """
    packed_q, packed_db = _check_pair(packed_q, packed_db)
    q, n = len(packed_q), len(packed_db)
    if q == 0 or n == 0:
        return np.zeros((q, n), np.int16)
    # Zero bytes up to a multiple of 8 add nothing to a distance; faiss's fast kernels read 64-bit words.
    pad = ((0, 0), (0, -packed_q.shape[1] % 8))
    a = np.ascontiguousarray(np.pad(packed_q, pad))
    b = np.ascontiguousarray(np.pad(packed_db, pad))
    out = np.empty((q, n), np.int16)
    step = max(1, _CELLS // n)
    block = np.empty((min(step, q), n), np.int32)
    for lo in range(0, q, step):
        rows = min(step, q - lo)
        part = np.ascontiguousarray(a[lo : lo + rows])
        faiss.hammings(faiss.swig_ptr(part), faiss.swig_ptr(b), rows, n, part.shape[1], faiss.swig_ptr(block))
        out[lo : lo + rows] = block[:rows]
    return out


def hamming_reference(packed_q, packed_db) -> np.ndarray:
    """The same as `hamming` in NumPy: the bits set in ``q XOR n``, one query at a time."""
    packed_q, packed_db = _check_pair(packed_q, packed_db)
    out = np.zeros((len(packed_q), len(packed_db)), np.int16)
    for i, code in enumerate(packed_q):
        out[i] = np.bitwise_count(packed_db ^ code).sum(axis=1, dtype=np.int16)
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
        packed = _check_packed(self.packed, "Codes.packed")
        if packed.shape[1] * 8 != _check_bits(self.bits):
            raise ValueError(f"Codes: bits={self.bits}, but packed holds {packed.shape[1] * 8} bits per row")
        ids, labels = np.asarray(self.ids), np.asarray(self.labels)
        if ids.dtype.kind == "O" and all(isinstance(value, str) for value in ids.ravel()):
            ids = ids.astype(str)  # object arrays of str come from pandas; they could only be saved as a pickle
        if ids.size == 0:
            ids = ids.astype(str)
        if ids.dtype.kind != "U":
            raise ValueError(f"Codes.ids must be strings, got {ids.dtype}")
        if labels.dtype.kind not in "iu" and labels.size:
            raise ValueError(f"Codes.labels must be integers, got {labels.dtype}")
        if ids.shape != (len(packed),) or labels.shape != (len(packed),):
            raise ValueError(f"Codes: {len(packed)} codes, but ids {ids.shape} and labels {labels.shape}")
        names, counts = np.unique(ids, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"Codes.ids: {int((counts > 1).sum())} id(s) occur more than once, first "
                f"{names[counts > 1][:5].tolist()}; ids must be unique because they order ties"
            )
        object.__setattr__(self, "packed", packed)
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "labels", labels.astype(np.int64))
        object.__setattr__(self, "bits", int(self.bits))

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
                parts = {key: stored[key] for key in ("packed", "ids", "labels", "bits")}
                model = str(stored["model"]) if "model" in stored else ""
            codes = cls(parts["packed"], parts["ids"], parts["labels"], int(parts["bits"]), model)
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


def _id_rank(ids: np.ndarray) -> np.ndarray:
    """Place of each id in sorted order, int64 (N,)."""
    rank = np.empty(len(ids), np.int64)
    rank[np.argsort(ids, kind="stable")] = np.arange(len(ids))
    return rank


def _search_input(codes, database: Codes, k: int) -> tuple[np.ndarray, int]:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k must be a whole number of at least 1, got {k!r}")
    packed, _ = _check_pair(codes.packed if isinstance(codes, Codes) else codes, database.packed)
    if isinstance(codes, Codes):
        check_models(codes.model, database.model)
    return packed, min(int(k), len(database))


class HammingIndex:
    """Exact k nearest codes, ordered by (distance, id), through faiss's binary flat index.

    Codes are inserted in id order and faiss counts (``use_heap = False``) instead of keeping a heap: the counting search
    lists equal distances in order of insertion.
    """

    def __init__(self, database: Codes):
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
        if len(packed) == 0:
            return np.zeros((0, k), np.int16), np.zeros((0, k), np.int64)
        # The counting search reserves k places per possible distance for each query that it works on at once.
        self._index.query_batch_size = int(np.clip(_CELLS // (k * (self.database.bits + 1)), 1, 32))
        distances, places = self._index.search(np.ascontiguousarray(packed), k)
        return distances.astype(np.int16), self._by_id[places]


def search_reference(codes, database: Codes, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The same as ``HammingIndex(database).search(codes, k)`` in NumPy: sort all cases by (distance, id), cut at k."""
    if len(database) == 0:
        raise ValueError("search_reference: the database is empty; it needs at least one code")
    packed, k = _search_input(codes, database, k)
    all_distances = hamming_reference(packed, database.packed)
    rank = _id_rank(database.ids)
    rows = np.zeros((len(packed), k), np.int64)
    for i, distances in enumerate(all_distances):
        rows[i] = np.lexsort((rank, distances))[:k]
    return np.take_along_axis(all_distances, rows, axis=1), rows


def hadamard_targets(n_classes: int, bits: int, seed: int = 0) -> np.ndarray:
    """One fixed +-1 code per class, the classes far from each other.

    Code lengths that are a power of two, up to ``2 * bits`` classes: rows of ``H`` and ``-H`` (Sylvester), every pair
    ``bits / 2`` apart or opposite, as in CSQ (Yuan et al., CVPR 2020, Section 3.2). Deviation: the row of all ones is
    taken last, because it is not balanced. Otherwise: codes with as many +1 as -1, drawn from ``seed`` and improved by
    swapping two bits at a time until no swap lowers ``sum_{i<j} exp(<t_i, t_j> / 2)``, which keeps the nearest pair
    as far apart as it can; CSQ draws such codes at random. (Above about 100 classes of 48 bits the improvement would
    take long and is left out: codes drawn at random are about ``bits / 2`` apart by themselves.)

    Returns float32 (n_classes, bits), rows distinct. ``seed`` chooses and orders the rows.
    Raises ``ValueError`` for fewer than one class, unknown ``bits``, or more classes than balanced codes.
    """
    bits = _check_bits(bits)
    if isinstance(n_classes, bool) or not isinstance(n_classes, (int, np.integer)) or n_classes < 1:
        raise ValueError(f"n_classes must be a whole number of at least 1, got {n_classes!r}")
    rng = np.random.default_rng([int(seed), bits, int(n_classes)])
    if bits & (bits - 1) == 0 and n_classes <= 2 * bits:
        rows = hadamard(bits).astype(np.float32)
        order = 1 + rng.permutation(bits - 1)
        signed = np.concatenate([rows[order], -rows[order], rows[:1], -rows[:1]])
        return np.ascontiguousarray(signed[:n_classes])
    return _balanced_targets(int(n_classes), bits, rng).astype(np.float32)


def _balanced_targets(n_classes: int, bits: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct balanced +-1 rows, int64 (n_classes, bits), spread by swaps; see `hadamard_targets`."""
    if n_classes > math.comb(bits, bits // 2):
        raise ValueError(
            f"{bits} bits hold {math.comb(bits, bits // 2)} balanced codes, too few for {n_classes} classes; use more bits"
        )
    half = np.repeat([1, -1], bits // 2)

    def draw() -> np.ndarray:
        seen: dict[bytes, np.ndarray] = {}
        while len(seen) < n_classes:
            row = rng.permutation(half)
            seen.setdefault(row.tobytes(), row)
        return np.stack(list(seen.values()))

    def quality(targets) -> tuple[int, float]:
        if n_classes == 1:
            return (0, 0.0)
        product = (targets @ targets.T)[~np.eye(n_classes, dtype=bool)]
        return (-int(product.max()), -float(np.exp(product / 2 - bits / 2).sum()))

    # A sweep costs classes^2 * bits^2: restarts where that is little, the best of one draw where it is too much.
    work = n_classes**2 * bits**2
    restarts, sweeps = (8, 30) if work < 4e6 else (1, 30) if work < 3e7 else (1, 0)
    best = None
    for _ in range(restarts):
        targets = draw()
        for _ in range(sweeps):
            changed = False
            for i in range(n_classes):
                others = np.delete(targets, i, axis=0)
                if _improve(targets, i, others, bits):
                    changed = True
            if not changed:
                break
        if best is None or quality(targets) > quality(best):
            best = targets
    return best


def _improve(targets: np.ndarray, i: int, others: np.ndarray, bits: int) -> bool:
    """Do the best swap of one +1 with one -1 in row ``i`` while it lowers the energy (works on our own array)."""
    changed = False
    while len(others):
        row = targets[i]
        product = others @ row
        plus, minus = np.flatnonzero(row == 1), np.flatnonzero(row == -1)
        # Swapping a (+1) with b (-1) changes <t_i, t_j> by 2 (t_j[b] - t_j[a]), a number in -4, 0, 4.
        after = product[:, None, None] + 2 * (others[:, None, minus] - others[:, plus, None])
        energy = np.exp(after / 2 - bits / 2).sum(axis=0)
        energy[(after == bits).any(axis=0)] = np.inf  # would repeat another class's code
        a, b = np.unravel_index(np.argmin(energy), energy.shape)
        if not energy[a, b] < np.exp(product / 2 - bits / 2).sum() * (1 - 1e-9):
            return changed
        row[plus[a]], row[minus[b]] = -1, 1
        changed = True
    return changed


# ---------------------------------------------------------------- codes from real descriptors


@dataclass(frozen=True, eq=False)
class ITQ:
    """A fitted iterative quantisation, see `itq`. float64 ``mean`` (D,) and ``projection`` (D, bits), its columns orthonormal."""

    mean: np.ndarray
    projection: np.ndarray

    def project(self, x) -> np.ndarray:
        """Real codes float64 (N, bits) of descriptors (N, D); their sign, with sign(0) = +1, is the code."""
        x = _descriptors(x)
        if x.shape[1] != len(self.mean):
            raise ValueError(f"descriptors must have {len(self.mean)} dimensions, as those of the fit, got {x.shape[1]}")
        return (x - self.mean) @ self.projection


def _descriptors(x) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2:
        raise ValueError(f"descriptors must be (N, D), got {x.shape}")
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise ValueError(f"descriptors: NaN or infinity in {len(bad)} of {len(x)} rows, first rows {bad[:5].tolist()}")
    return x


def itq(descriptors, bits: int, *, seed: int, iterations: int = 50) -> ITQ:
    """Iterative quantisation (Gong and Lazebnik, CVPR 2011, section 2): binary codes for descriptors, without labels.

    The descriptors are centred and projected onto their first ``bits`` principal components, V (N, bits). The rotation R starts
    at random (``seed``) and is improved ``iterations`` times (50 as in the paper): B = sign(V R), then the R that minimises the
    quantisation error ||B - V R||_F^2 for this B (orthogonal Procrustes: R = Y X^T for the singular value decomposition B^T V =
    X S Y^T). No step raises the error; it stops early where B no longer changes, since nothing would change after it.

    ``descriptors`` (N, D): those of the database, never of the queries. Deterministic on one machine (components are
    sign-fixed); the error has many local minima, so that a last digit of the input may lead to other, equally good codes.
    Raises ``ValueError`` for fewer dimensions or fewer descriptors than bits (there are no more components), NaN, fewer than
    one bit or a negative number of iterations.
    """
    x = _descriptors(descriptors)
    if bits < 1 or iterations < 0:
        raise ValueError(f"itq: bits must be at least 1 and iterations at least 0, got {bits} and {iterations}")
    if min(x.shape) < bits:
        raise ValueError(
            f"itq: {bits} bits need at least {bits} descriptors of at least {bits} dimensions, got {x.shape[0]} of {x.shape[1]}"
        )
    # "full": the exact decomposition, the same on every run; sklearn fixes the signs of the components
    pca = PCA(bits, svd_solver="full").fit(x)
    v = (x - pca.mean_) @ pca.components_.T
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((bits, bits)))[0]
    before = None
    for _ in range(iterations):
        positive = v @ rotation >= 0
        if before is not None and np.array_equal(positive, before):
            break
        left, _, right = np.linalg.svd(np.where(positive, 1.0, -1.0).T @ v)
        rotation, before = right.T @ left.T, positive
    return ITQ(pca.mean_, pca.components_.T @ rotation)
