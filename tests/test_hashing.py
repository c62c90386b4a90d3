"""Codes: packing, exact distances and rankings, files, and class targets."""

import itertools
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ynet_lite import hashing
from ynet_lite.hashing import Codes, HammingIndex


def make_codes(packed, ids=None, labels=None):
    packed = np.asarray(packed, np.uint8)
    n = len(packed)
    ids = np.array([f"case{i:05d}" for i in range(n)], dtype=str) if ids is None else ids
    return Codes(packed, ids, np.zeros(n, np.int64) if labels is None else labels, 8 * packed.shape[1])


# --- bits ------------------------------------------------------------------------------------------------------------


def test_sign_of_zero_is_plus_one():
    z = np.array([[0.0, -0.0, 1e-30, -1e-30, np.inf, -np.inf, 2, -2]])
    assert hashing.sign_bits(z).tolist() == [[True, True, True, False, True, False, True, False]]


def test_pack_is_big_endian():
    bits = np.array([[1, 0, 0, 0, 0, 0, 1, 1]], bool)
    assert hashing.pack(bits).tolist() == [[128 + 2 + 1]]
    assert hashing.pack(np.where(bits, 0.5, -0.5)).tolist() == [[131]]


@pytest.mark.parametrize("bits", hashing.BITS)
def test_unpack_inverts_pack(bits):
    z = np.random.default_rng(bits).normal(size=(5, bits)).astype(np.float32)
    kept = z.copy()
    packed = hashing.pack(z)
    assert packed.dtype == np.uint8 and packed.shape == (5, bits // 8)
    assert (hashing.unpack(packed, bits) == (z >= 0)).all() and (z == kept).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hashing.sign_bits(np.array([[1.0], [np.nan]])), r"NaN in 1 of 2 rows, first rows \[1\]"),
        (lambda: hashing.pack(np.ones((2, 8), int)), "float array"),
        (lambda: hashing.pack(np.ones((2, 12), bool)), "one of"),
        (lambda: hashing.pack(np.ones(8, bool)), "shape"),
        (lambda: hashing.unpack(np.ones((2, 2), np.uint8), 8), "16 bits per row, but 8"),
        (lambda: hashing.hamming(np.ones((1, 1), np.uint8), np.ones((1, 2), np.uint8)), "8 bits, database codes 16"),
        (lambda: hashing.hamming(np.ones((1, 8), float), np.ones((1, 8), np.uint8)), "uint8"),
    ],
)
def test_errors_say_what_was_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- distances -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", hashing.BITS)
def test_hamming_counts_differing_bits(bits):
    rng = np.random.default_rng(bits)
    a, b = rng.random((7, bits)) < 0.5, rng.random((11, bits)) < 0.5
    slow = [[sum(int(x != y) for x, y in zip(p, q, strict=True)) for q in b] for p in a]
    found = hashing.hamming(hashing.pack(a), hashing.pack(b))
    assert found.dtype == np.int16 and (found == slow).all()


def test_hamming_by_hand_and_at_the_extremes():
    assert hashing.hamming(np.array([[0b10110000]], np.uint8), np.array([[0b00110001]], np.uint8)).tolist() == [[2]]
    zero, one = np.zeros((1, 32), np.uint8), np.full((1, 32), 255, np.uint8)
    assert hashing.hamming(zero, one).tolist() == [[256]]
    assert hashing.hamming(np.zeros((0, 1), np.uint8), np.zeros((3, 1), np.uint8)).shape == (0, 3)
    assert hashing.hamming(np.zeros((2, 1), np.uint8), np.zeros((0, 1), np.uint8)).shape == (2, 0)


def test_hamming_of_strided_input():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (23, 16), np.uint8), rng.integers(0, 256, (10, 16), np.uint8)
    a, b = a[:, ::2], b[::-1, ::2]
    assert (hashing.hamming(a, b) == (hashing.unpack(a, 64)[:, None] != hashing.unpack(b, 64)).sum(axis=2)).all()


# --- search ----------------------------------------------------------------------------------------------------------


def slow_search(packed, database, k):
    """Sort (distance, id) pairs in plain Python."""
    rows, distances = [], []
    for code in packed:
        d = [sum((int(x) ^ int(y)).bit_count() for x, y in zip(code, other, strict=True)) for other in database.packed]
        order = sorted(range(len(d)), key=lambda i: (d[i], str(database.ids[i])))[:k]
        rows.append(order)
        distances.append([d[i] for i in order])
    return distances, rows


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 150),
    k=st.integers(1, 160),
    words=st.sampled_from([1, 2, 5, 200]),
    size=st.sampled_from([bits // 8 for bits in hashing.BITS]),
)
def test_search_equals_reference_and_plain_sorting_even_with_heavy_ties(seed, n, k, words, size):
    rng = np.random.default_rng(seed)
    vocabulary = rng.integers(0, 256, (words, size), np.uint8)
    packed = vocabulary[rng.integers(0, words, n)]
    ids = np.array([f"{v}" for v in rng.permutation(10 * n)[:n]], dtype=str)  # "10" < "9": ids order as text
    database = make_codes(packed, ids)
    queries = np.concatenate([vocabulary[:3], rng.integers(0, 256, (2, size), np.uint8)])
    distances, rows = HammingIndex(database).search(queries, k)
    reference = hashing.search_reference(queries, database, k)
    slow = slow_search(queries, database, k)
    assert distances.dtype == np.int16 and rows.dtype == np.int64
    assert distances.tolist() == reference[0].tolist() == slow[0]
    assert rows.tolist() == reference[1].tolist() == slow[1]


def test_the_cut_inside_a_tie_takes_the_smallest_ids():
    # 500 cases with one code, ids falling with the row: the last rows are the right answers
    database = make_codes(np.zeros((500, 8)), np.array([f"{999 - i}" for i in range(500)]))
    distances, rows = HammingIndex(database).search(np.zeros((1, 8), np.uint8), 5)
    assert database.ids[rows[0]].tolist() == ["500", "501", "502", "503", "504"] and (distances == 0).all()


@pytest.mark.parametrize("bits", hashing.BITS)
def test_search_cuts_before_at_and_after_the_edge_of_a_tie(bits):
    rng = np.random.default_rng(bits)
    vocabulary = rng.integers(0, 256, (3, bits // 8), np.uint8)
    database = make_codes(vocabulary[rng.integers(0, 3, 300)], rng.permutation(300).astype(str))
    queries = np.concatenate([vocabulary, rng.integers(0, 256, (40, bits // 8), np.uint8)])
    edges = {int((d <= level).sum()) for d in hashing.hamming(queries[:5], database.packed) for level in np.unique(d)}
    for k in sorted({k for edge in edges for k in (edge - 1, edge, edge + 1)} & set(range(1, 301))):
        distances, rows = HammingIndex(database).search(queries, k)
        reference = hashing.search_reference(queries, database, k)
        assert (distances == reference[0]).all() and (rows == reference[1]).all()


def test_a_list_as_long_as_a_large_database():
    # above 2^16 places, and few queries at once because each reserves much memory
    rng = np.random.default_rng(0)
    n = 70_000
    database = make_codes(rng.integers(0, 4, (n, 32)), rng.permutation(n).astype(str))
    for k in (65_536, n):
        distances, rows = HammingIndex(database).search(database.packed[:2], k)
        reference = hashing.search_reference(database.packed[:2], database, k)
        assert (distances == reference[0]).all() and (rows == reference[1]).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_permuting_the_database_gives_the_same_ids(seed):
    rng = np.random.default_rng(seed)
    database = make_codes(rng.integers(0, 4, (120, 1)))
    order = rng.permutation(120)
    shuffled = make_codes(database.packed[order], database.ids[order])
    queries = rng.integers(0, 256, (4, 1), np.uint8)
    kept = database.packed.copy(), queries.copy()
    first, second = HammingIndex(database).search(queries, 7), HammingIndex(shuffled).search(queries, 7)
    assert (first[0] == second[0]).all() and (database.ids[first[1]] == shuffled.ids[second[1]]).all()
    assert (kept[0] == database.packed).all() and (kept[1] == queries).all()


def test_k_above_the_database_is_clipped_and_bad_k_is_an_error():
    database = make_codes([[0], [3], [1]])
    distances, rows = HammingIndex(database).search(database, 10)
    assert rows.shape == (3, 3) and rows[0].tolist() == [0, 2, 1] and distances[0].tolist() == [0, 1, 2]
    assert HammingIndex(database).search(np.zeros((0, 1), np.uint8), 2)[1].shape == (0, 2)
    for bad in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="whole number"):
            HammingIndex(database).search(database, bad)
        with pytest.raises(ValueError, match="whole number"):
            hashing.search_reference(database, database, bad)
    with pytest.raises(ValueError, match="16 bits, database codes 8"):
        HammingIndex(database).search(np.zeros((1, 2), np.uint8), 1)
    with pytest.raises(ValueError, match="empty"):
        HammingIndex(make_codes(np.zeros((0, 1))))


# --- codes on disk ---------------------------------------------------------------------------------------------------


def test_codes_survive_the_disk(tmp_path):
    rng = np.random.default_rng(0)
    codes = make_codes(rng.integers(0, 256, (9, 6)), labels=rng.integers(0, 3, 9))
    path = codes.save(tmp_path / "new" / "codes.npz")
    back = Codes.load(path)
    assert (back.packed == codes.packed).all() and (back.labels == codes.labels).all() and back.bits == 48
    assert back.ids.tolist() == codes.ids.tolist()
    assert os.listdir(path.parent) == ["codes.npz"]  # no temporary file left
    with np.load(path, allow_pickle=False) as stored:
        assert set(stored.files) == {"packed", "ids", "labels", "bits"}


def test_codes_say_which_network_made_them(tmp_path):
    nameless = make_codes([[1], [2]])
    one, other = (Codes(nameless.packed, nameless.ids, nameless.labels, 8, name) for name in ("a1", "b2"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Codes.load(one.save(tmp_path / "one.npz")).model == "a1"
    with pytest.warns(UserWarning, match="none.npz: does not say which network"):
        assert Codes.load(nameless.save(tmp_path / "none.npz")).model == ""
    assert HammingIndex(one).search(one, 1)[0].tolist() == HammingIndex(one).search(nameless, 1)[0].tolist() == [[0], [0]]
    with pytest.raises(ValueError, match="another network"):
        HammingIndex(one).search(other, 1)


@settings(max_examples=60, deadline=None)
@given(at=st.floats(0, 1), flip=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_file_of_codes_loads_whole_or_is_the_one_error(at, flip, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = make_codes(np.arange(40).reshape(-1, 1)).save(Path(folder) / "codes.npz")
        content = bytearray(path.read_bytes())
        place = min(int(at * len(content)), len(content) - 1)
        content[place] ^= flip
        path.write_bytes(content[:place] if cut else content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert len(Codes.load(path)) == 40
            except ValueError as error:
                assert "codes.npz: not a file of codes" in str(error) and "encode the cases anew" in str(error)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = make_codes([[1], [2]]).save(tmp_path / "codes.npz")
    before = path.read_bytes()

    def broken(file, **arrays):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(hashing.np, "savez_compressed", broken)
    with pytest.raises(OSError, match="disk full"):
        make_codes([[3]]).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["codes.npz"]


def test_ids_from_pandas_are_stored_without_pickles(tmp_path):
    codes = Codes(np.zeros((2, 1), np.uint8), np.array(["a", "bb"], dtype=object), [0, 1], 8)
    assert Codes.load(codes.save(tmp_path / "c.npz")).ids.tolist() == ["a", "bb"]


def test_loading_something_else_is_a_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        Codes.load(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "cut.npz").write_bytes(make_codes([[1]]).save(tmp_path / "c.npz").read_bytes()[:60])
    np.savez(tmp_path / "other.npz", x=1)
    np.savez(tmp_path / "pickle.npz", packed=np.array([{}], dtype=object), ids=["a"], labels=[0], bits=8)
    for name in ("text", "cut", "other", "pickle"):
        with pytest.raises(ValueError, match="not a file of codes"):
            Codes.load(tmp_path / f"{name}.npz")
    with pytest.raises(ValueError, match=".npz"):
        make_codes([[1]]).save(tmp_path / "codes.pkl")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"bits": 16}, "8 bits per row, but 16"),
        ({"bits": 9}, "one of"),
        ({"packed": np.zeros((2, 3), np.uint8), "bits": 24}, "one of"),
        ({"packed": np.zeros((2, 1), np.int64)}, "uint8"),
        ({"ids": np.array(["a"])}, "2 codes, but ids"),
        ({"ids": np.array(["a", "a"])}, r"more than once, first \['a'\]"),
        ({"ids": np.array([1, 2])}, "strings"),
        ({"labels": np.array([0.5, 1])}, "integers"),
        ({"labels": np.zeros((2, 1), int)}, "labels"),
    ],
)
def test_codes_are_checked(parts, message):
    good = {"packed": np.zeros((2, 1), np.uint8), "ids": np.array(["a", "b"]), "labels": np.array([0, 1]), "bits": 8}
    with pytest.raises(ValueError, match=message):
        Codes(**{**good, **parts})


# --- targets ---------------------------------------------------------------------------------------------------------


def pair_distances(targets):
    return [int((a != b).sum()) for a, b in itertools.combinations(targets, 2)]


@pytest.mark.parametrize("bits", hashing.BITS)
@pytest.mark.parametrize("n_classes", [1, 2, 3, 7, 8, 16])
def test_hadamard_rows_are_half_the_code_apart_or_opposite(bits, n_classes):
    targets = hashing.hadamard_targets(n_classes, bits, seed=1)
    assert targets.shape == (n_classes, bits) and set(np.unique(targets)) == {-1, 1}
    assert set(pair_distances(targets)) <= {bits // 2, bits}
    if n_classes < bits:  # no row of all ones yet
        assert (targets.sum(axis=1) == 0).all() and set(pair_distances(targets)) <= {bits // 2}


@pytest.mark.parametrize("bits", [8, 48])
def test_the_full_set_of_hadamard_rows(bits):
    targets = hashing.hadamard_targets(2 * bits, bits)
    assert len(np.unique(targets, axis=0)) == 2 * bits and min(pair_distances(targets)) == bits // 2


@pytest.mark.parametrize(("n_classes", "bits"), [(17, 8), (70, 8), (60, 16), (300, 48), (140, 64)])
def test_more_classes_than_rows_still_get_different_balanced_codes(n_classes, bits):
    targets = hashing.hadamard_targets(n_classes, bits)
    assert len(np.unique(targets, axis=0)) == n_classes and (targets.sum(axis=1) == 0).all()


def test_targets_depend_on_the_seed_only():
    for bits in (32, 48):
        first, again, other = (hashing.hadamard_targets(5, bits, seed) for seed in (0, 0, 1))
        assert (first == again).all() and (first != other).any() and first.dtype == np.float32


def test_impossible_targets_are_an_error():
    for n_classes, bits in ((0, 8), (71, 8), (3, 24), (2.0, 8)):
        with pytest.raises(ValueError, match="classes|one of"):
            hashing.hadamard_targets(n_classes, bits)


def test_distances_do_not_depend_on_the_order_in_memory():
    bits = np.random.default_rng(0).random((12, 64)) < 0.5
    chosen = hashing.pack(bits[:, np.random.default_rng(1).permutation(64)])  # columns that were picked lie in Fortran's order
    expected = (np.unpackbits(chosen[:, None] ^ chosen[None], axis=2)).sum(2)
    for layout in (np.ascontiguousarray, np.asfortranarray):
        np.testing.assert_array_equal(hashing.hamming(layout(chosen), layout(chosen)), expected)
