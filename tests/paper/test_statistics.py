"""Paired comparison against enumeration, slow loops, hand-computed values and SciPy."""

import itertools
import math
import os

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from ynet_lite import paths, provenance, sets
from ynet_lite.config import Config
from ynet_lite.paper import statistics, store
from ynet_lite.sets import busbra, folders

DATA, OTHER_DATA = "0123456789abcdef", "fedcba9876543210"


def table(values, ids=None, **more) -> pd.DataFrame:
    ids = [f"q{i:03d}" for i in range(len(values))] if ids is None else ids
    return pd.DataFrame({"case_id": ids, "value": np.asarray(values, np.float64), **more})


def patients_of(owners, ids=None) -> dict:
    """{case_id: patient} for ``table``'s default ids."""
    ids = [f"q{i:03d}" for i in range(len(owners))] if ids is None else ids
    return {case: f"patient {owner}" for case, owner in zip(ids, owners, strict=True)}


def random_pair(rng, n_patients=20, most=4, shift=0.05):
    """Two methods on patients of one to ``most`` queries; queries of a patient are alike."""
    owners = np.repeat(np.arange(n_patients), rng.integers(1, most + 1, n_patients))
    common = rng.random(n_patients)[owners] / 2 + 0.2
    effect = rng.normal(shift, 0.1, n_patients)[owners]
    b = common + 0.1 * rng.random(len(owners))
    return table(b + effect + rng.normal(0, 0.02, len(owners))), table(b), patients_of(owners)


def numbers(found: statistics.Paired) -> list:
    return [found.mean_a, found.mean_b, *found.difference, *found.relative, found.p]


# --- one comparison, by hand -----------------------------------------------------------------------------------------


def test_paired_by_hand():
    # patient 0 has two queries (+.2, +.2), patient 1 one (-.1): sums of differences .4 and -.1 of three queries
    found = statistics.paired(table([0.6, 0.8, 0.4]), table([0.4, 0.6, 0.5]), patients_of([0, 0, 1]), n=5_000)
    assert found.mean_a == pytest.approx(1.8 / 3) and found.mean_b == pytest.approx(1.5 / 3)
    assert found.difference.value == pytest.approx(10.0)  # points
    assert found.relative.value == pytest.approx(20.0)  # per cent of b
    # |.4 - .1| = .3 is reached by ++, --, (.5) +-, -+: all four patterns
    assert (found.p, found.exact) == (1.0, True)
    # replicates: patient 0 twice .2, both .1, patient 1 twice -.1, with chances 1/4, 1/2, 1/4
    assert found.difference.low == pytest.approx(-10) and found.difference.high == pytest.approx(20)
    assert found.relative.low == pytest.approx(100 * (0.8 / 1.0 - 1))
    assert found.relative.high == pytest.approx(100 * (2.8 / 2.0 - 1))
    assert (found.n_queries, found.n_patients, found.n_dropped, found.runs_a, found.runs_b) == (3, 2, 0, "1 x 1", "1 x 1")


def test_smallest_p_of_five_is_a_sixteenth():
    """Five patients that all improve: 2 of 32 patterns. The same holds for five folds under any sign or rank test."""
    a, b = table([0.6, 0.7, 0.8, 0.9, 1.0]), table([0.1, 0.2, 0.1, 0.3, 0.2])
    assert statistics.paired(a, b, patients_of(range(5)), n=100).p == 2 / 32
    assert scipy.stats.wilcoxon(a["value"] - b["value"]).pvalue == 2 / 32


def test_a_patient_flips_as_one():
    # ten queries of two patients: by query 2 of 1,024 patterns, by patient 2 of 4
    a, b = table(np.full(10, 0.9)), table(np.full(10, 0.5))
    assert statistics.paired(a, b, patients_of(range(10))).p == 2 / 1024
    assert statistics.paired(a, b, patients_of([0] * 5 + [1] * 5)).p == 2 / 4


# --- permutation test ------------------------------------------------------------------------------------------------


def enumerated_p(whole: list[int]) -> float:
    """Share of sign patterns whose sum is at least as far from zero, in whole numbers: no rounding, ties are ties."""
    patterns = list(itertools.product([1, -1], repeat=len(whole)))
    reached = sum(abs(sum(s * d for s, d in zip(signs, whole, strict=True))) >= abs(sum(whole)) for signs in patterns)
    return reached / len(patterns)


@pytest.mark.parametrize("seed", range(12))
def test_exact_p_equals_enumeration_with_ties_and_zeros(seed):
    rng = np.random.default_rng(seed)
    whole = rng.integers(-3, 6, int(rng.integers(1, 9)))  # tenths: many ties, some zeros
    a, b = table(0.5 + whole / 10), table(np.full(len(whole), 0.5))
    found = statistics.paired(a, b, patients_of(range(len(whole))), n=256)
    assert found.exact
    assert found.p == enumerated_p(whole.tolist())


@pytest.mark.parametrize("chunk", [1 << 20, 100])
def test_sampled_p_is_near_the_enumerated_one(chunk, monkeypatch):
    monkeypatch.setattr(statistics, "_CHUNK", chunk)
    whole = np.array([5, -2, 4, 1, 3, -4, 2, 6, -1, 3, 2, -3])
    exact = enumerated_p(whole.tolist())
    assert 0.02 < exact < 0.5  # far from both ends, so that a wrong count shows
    n = 4_000  # below 2^12
    found = statistics.paired(table(0.4 + whole / 20), table(np.full(12, 0.4)), patients_of(range(12)), n=n)
    assert not found.exact
    assert abs(found.p - exact) < 4 * math.sqrt(exact * (1 - exact) / n) + 1 / n


@pytest.mark.parametrize("seed", range(3))
def test_p_equals_scipy(seed):
    a, b, groups = random_pair(np.random.default_rng(seed), n_patients=11, shift=0.02)
    difference = (a["value"] - b["value"]).groupby(a["case_id"].map(groups)).sum().to_numpy()

    def total(values, axis):
        return values.sum(axis)

    expected = scipy.stats.permutation_test((difference,), total, permutation_type="samples", n_resamples=2**11)
    found = statistics.paired(a, b, groups, n=2**11)
    assert found.exact and found.p == pytest.approx(expected.pvalue, abs=1e-12)


def test_sampled_p_is_never_zero():
    found = statistics.paired(table(np.full(40, 0.9)), table(np.full(40, 0.1)), patients_of(range(40)), n=999)
    assert found.p == 1 / 1000


def test_p_is_calibrated_where_methods_are_interchangeable():
    rng = np.random.default_rng(0)
    p = np.array([statistics._sign_flip(rng.normal(0, rng.random(14) + 0.1), 199, i)[0] for i in range(1000)])
    assert 0.03 < (p <= 0.05).mean() < 0.075  # standard error .007
    assert abs(np.median(p) - 0.5) < 0.06


def test_no_difference_at_all():
    a = table([0.1, 0.9, 0.5, 0.3])
    found = statistics.paired(a, a, patients_of([0, 0, 1, 2]))
    assert (found.p, found.exact) == (1.0, True)
    assert found.difference == (0, 0, 0) and found.relative == (0, 0, 0)


def test_patients_without_a_difference_need_no_sign():
    gain = np.r_[np.zeros(40), 0.1, 0.2, 0.3]
    found = statistics.paired(table(0.5 + gain), table(np.full(43, 0.5)), patients_of(range(43)), n=100)
    assert (found.p, found.exact, found.n_patients) == (2 / 8, True, 43)


def test_differences_that_cancel_but_for_rounding():
    assert 0.1 + 0.2 - 0.3 != 0
    found = statistics.paired(table([0.1, 0.2, 0.0]), table([0.0, 0.0, 0.3]), patients_of(range(3)))
    assert found.p == 1.0


# --- bootstrap -------------------------------------------------------------------------------------------------------


def slow_replicates(a, b, groups, draws):
    """Means of a and b over the queries of the drawn patients (with repetition), one loop per thing."""
    by_patient = {}
    for case, x, y in zip(a["case_id"], a["value"], b["value"], strict=True):
        by_patient.setdefault(groups[case], []).append((x, y))
    names = sorted(by_patient)
    out = []
    for draw in draws:
        pairs = [pair for i in draw for pair in by_patient[names[i]]]
        out.append((sum(x for x, _ in pairs) / len(pairs), sum(y for _, y in pairs) / len(pairs)))
    return np.array(out)


@pytest.mark.parametrize("chunk", [1 << 20, 64])
def test_intervals_equal_the_enumerated_bootstrap(chunk, monkeypatch):
    """Five patients: all 5^5 draws are equally likely, so the quantiles are known; sampled ones lie in a narrow band."""
    monkeypatch.setattr(statistics, "_CHUNK", chunk)
    a, b, groups = random_pair(np.random.default_rng(3), n_patients=5)
    all_draws = slow_replicates(a, b, groups, itertools.product(range(5), repeat=5))
    found = statistics.paired(a, b, groups, n=20_000, alpha=0.2)
    mean = statistics.bootstrap_mean(a, groups, n=20_000, alpha=0.2)
    for estimate, every in [
        (found.difference, 100 * (all_draws[:, 0] - all_draws[:, 1])),
        (found.relative, 100 * (all_draws[:, 0] / all_draws[:, 1] - 1)),
        (mean, all_draws[:, 0]),
    ]:
        for end, level in ((estimate.low, 0.1), (estimate.high, 0.9)):
            below, above = np.quantile(every, [level - 0.012, level + 0.012])  # standard error .002
            assert below <= end <= above
            assert above - below < 0.15 * (every.max() - every.min())  # the band is narrow enough to tell something


def test_same_draws_give_the_loop_exactly():
    a, b, groups = random_pair(np.random.default_rng(1), n_patients=9)
    draws = np.random.default_rng([7, 0]).integers(0, 9, (60, 9))
    again = slow_replicates(a, b, groups, draws)
    found = statistics.paired(a, b, groups, n=60, seed=7, alpha=0.1)
    np.testing.assert_allclose(found.difference[1:], np.quantile(100 * (again[:, 0] - again[:, 1]), [0.05, 0.95]))
    np.testing.assert_allclose(found.relative[1:], np.quantile(100 * (again[:, 0] / again[:, 1] - 1), [0.05, 0.95]))
    mean = statistics.bootstrap_mean(b, groups, n=60, seed=7, alpha=0.1)
    np.testing.assert_allclose(mean, [b["value"].mean(), *np.quantile(again[:, 1], [0.05, 0.95])])


def test_intervals_are_near_scipy():
    a, b, groups = random_pair(np.random.default_rng(2), n_patients=40)
    owner = a["case_id"].map(groups)
    sums = [a["value"].groupby(owner).sum(), b["value"].groupby(owner).sum()]

    def per_cent(x, y, axis):
        return 100 * (x.sum(axis) / y.sum(axis) - 1)

    expected = scipy.stats.bootstrap(
        [s.to_numpy() for s in sums], per_cent, paired=True, method="percentile", n_resamples=4_000, batch=500, rng=0
    ).confidence_interval
    found = statistics.paired(a, b, groups, n=4_000).relative
    width = expected.high - expected.low
    assert abs(found.low - expected.low) < 0.06 * width and abs(found.high - expected.high) < 0.06 * width


def test_coverage():
    rng = np.random.default_rng(0)
    inside = 0
    for i in range(100):
        owners = np.repeat(np.arange(40), rng.integers(1, 4, 40))
        values = table(0.5 + rng.normal(0, 0.1, 40)[owners] + rng.normal(0, 0.02, len(owners)))
        estimate = statistics.bootstrap_mean(values, patients_of(owners), n=300, seed=i)
        inside += estimate.low <= 0.5 <= estimate.high
    assert 0.87 <= inside / 100 <= 0.99  # .95 with a standard error of .022, a little less for 40 patients


def test_repeated_views_add_no_certainty():
    """Every query ten times, same patient: nothing changes. As ten patients it would look far more certain."""
    a, b, groups = random_pair(np.random.default_rng(4), n_patients=15)
    ids = [f"{case}-{view}" for view in range(10) for case in a["case_id"]]
    many_a, many_b = (table(np.tile(t["value"], 10), ids) for t in (a, b))
    many = {case: groups[case.rsplit("-", 1)[0]] for case in ids}
    once, often = statistics.paired(a, b, groups, n=2_000), statistics.paired(many_a, many_b, many, n=2_000)
    np.testing.assert_allclose(numbers(often), numbers(once), rtol=1e-9)
    assert (often.n_patients, often.n_queries) == (once.n_patients, 10 * once.n_queries)

    blind = statistics.paired(many_a, many_b, {case: case for case in ids}, n=2_000)
    assert blind.difference.high - blind.difference.low < 0.5 * (once.difference.high - once.difference.low)


def test_single_patient_has_no_interval():
    found = statistics.paired(table([0.9, 0.8]), table([0.5, 0.4]), patients_of([0, 0]))
    assert found.difference.value == pytest.approx(40) and found.p == 1.0
    assert all(math.isnan(end) for end in (*found.difference[1:], *found.relative[1:]))
    mean = statistics.bootstrap_mean(table([0.9, 0.7]), patients_of([0, 0]))
    assert mean.value == pytest.approx(0.8) and math.isnan(mean.low) and math.isnan(mean.high)


def test_share_of_nothing_is_undefined():
    never = statistics.paired(table([0.5, 0.5]), table([0.0, 0.0]), patients_of([0, 1]), n=50)
    assert math.isnan(never.relative.value) and math.isnan(never.relative.low)
    assert never.difference == (50, 50, 50)
    # b is above zero, but not in a replicate that draws the first patient twice
    sometimes = statistics.paired(table([0.5, 0.5]), table([0.0, 0.5]), patients_of([0, 1]), n=50)
    assert sometimes.relative.value == pytest.approx(100) and math.isnan(sometimes.relative.low)
    negative = statistics.paired(table([0.2, 0.2]), table([-0.1, -0.3]), patients_of([0, 1]), n=50)
    assert math.isnan(negative.relative.value)


# --- properties ------------------------------------------------------------------------------------------------------


def test_same_seed_same_bits_and_another_seed_others():
    a, b, groups = random_pair(np.random.default_rng(5))
    first = statistics.paired(a, b, groups, n=500, seed=3)
    assert statistics.paired(a, b, groups, n=500, seed=3) == first
    assert statistics.paired(a, b, groups, n=500, seed=4).difference.low != first.difference.low
    close = table(a["value"] - 0.05)  # p far from both ends
    assert len({statistics.paired(close, b, groups, n=500, seed=seed).p for seed in range(3)}) == 3
    assert statistics.bootstrap_mean(a, groups, n=500, seed=3) == statistics.bootstrap_mean(a, groups, n=500, seed=3)


def test_order_of_rows_does_not_matter():
    a, b, groups = random_pair(np.random.default_rng(6))
    shuffled = dict(reversed(groups.items()))
    other = statistics.paired(a.sample(frac=1, random_state=0), b.sample(frac=1, random_state=1), shuffled, n=500)
    assert other == statistics.paired(a, b, groups, n=500)


def test_swapping_methods_flips_the_difference():
    a, b, groups = random_pair(np.random.default_rng(7))
    there, back = statistics.paired(a, b, groups, n=500), statistics.paired(b, a, groups, n=500)
    assert (back.mean_a, back.mean_b, back.p) == (there.mean_b, there.mean_a, there.p)
    assert back.difference.value == -there.difference.value
    assert back.difference[1:] == pytest.approx((-there.difference.high, -there.difference.low))
    assert 1 + back.relative.value / 100 == pytest.approx(1 / (1 + there.relative.value / 100))


def test_arguments_are_not_modified():
    a, b, groups = random_pair(np.random.default_rng(8))
    a = a.sample(frac=1, random_state=0)
    kept = a.copy(), b.copy(), dict(groups)
    statistics.paired(a, b, groups, n=50)
    statistics.bootstrap_mean(a, groups, n=50)
    pd.testing.assert_frame_equal(a, kept[0])
    pd.testing.assert_frame_equal(b, kept[1])
    assert groups == kept[2]


def test_groups_as_table_series_or_mapping():
    a, b, groups = random_pair(np.random.default_rng(9))
    expected = statistics.paired(a, b, groups, n=50)
    manifest = pd.DataFrame({"case_id": list(groups), "group": list(groups.values()), "label": "benign"})
    assert statistics.paired(a, b, manifest, n=50) == expected
    assert statistics.paired(a, b, pd.Series(groups), n=50) == expected


def test_undefined_queries_are_dropped_in_pairs():
    a, b = table([0.9, np.nan, 0.7, 0.2]), table([0.5, 0.1, np.nan, 0.1])
    groups = patients_of([0, 0, 1, 2])
    found = statistics.paired(a, b, groups, n=200)
    rest = [0, 3]
    expected = statistics.paired(a.iloc[rest], b.iloc[rest], groups, n=200)
    assert numbers(found) == numbers(expected)
    assert (found.n_queries, found.n_patients, found.n_dropped) == (2, 2, 2)
    assert statistics.bootstrap_mean(a, groups, n=50).value == pytest.approx(0.6)
    with pytest.raises(ValueError, match="none of the 2 queries has a value in both"):
        statistics.paired(table([np.nan, 1]), table([1, np.nan]), patients_of([0, 1]))
    with pytest.raises(ValueError, match="none of the 1 queries has a value"):
        statistics.bootstrap_mean(table([np.nan]), patients_of([0]))


def test_equal_names_in_two_draws_are_two_patients():
    a = table([0.9, 0.8], ["p1-1", "p1-1"], fingerprint=["x", "y"])
    b = table([0.5, 0.5], ["p1-1", "p1-1"], fingerprint=["x", "y"])
    found = statistics.paired(a, b, {"p1-1": "p1"}, n=50)
    assert (found.n_patients, found.runs_a) == (2, "2 x 1")


# --- errors ----------------------------------------------------------------------------------------------------------


def test_other_queries_are_an_error():
    a, groups = table([0.1, 0.2, 0.3]), patients_of(range(3))
    with pytest.raises(ValueError, match=r"1 stand in a only, 0 in b only, such as 'q002' of fold 1"):
        statistics.paired(a, table([0.1, 0.2]), groups)
    with pytest.raises(ValueError, match=r"1 stand in a only, 1 in b only, such as 'q002' of fold 1"):
        statistics.paired(a, a.assign(fold=[1, 1, 2]), groups)
    with pytest.raises(ValueError, match=r"3 stand in a only, 3 in b only, such as 'q000' of fold 1 \(data x\)"):
        statistics.paired(a.assign(fingerprint="x"), a.assign(fingerprint="y"), groups)
    with pytest.raises(ValueError, match=r"1 stand in a only, 1 in b only"):
        statistics.paired(table([1, 2], ["u", "v"]), table([1, 2], ["u", "w"]), groups)
    with pytest.raises(ValueError, match=r"2 stand in a only"):  # the same cases, but in other folds
        statistics.paired(a.assign(fold=[1, 1, 2]), a.assign(fold=[1, 2, 1]), groups)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"groups": {"q000": "p"}}, r"no patient for 1 of 2 queries, such as 'q001'"),
        ({"groups": {"q000": "p", "q001": None}}, r"no patient for 1 of 2"),
        ({"groups": pd.DataFrame({"case_id": ["q000"], "patient": ["p"]})}, r"missing column\(s\) \['group'\]"),
        ({"groups": pd.DataFrame({"case_id": ["q000"] * 2, "group": ["p", "r"]})}, r"'q000' has two patients, 'p' and 'r'"),
        ({"groups": ["p", "p"]}, r"no patient for 2 of 2 queries"),
        ({"a": table([1, 2], ["q000", "q000"])}, r"a: 1 queries have several values, such as 'q000'"),
        ({"b": table([1, np.inf])}, r"b: infinite value of 'q001'"),
        ({"b": pd.DataFrame({"case_id": ["q000"]})}, r"b: missing column\(s\) \['value'\]"),
    ],
)
def test_errors_say_what_is_wrong(change, message):
    given = {"a": table([0.1, 0.2]), "b": table([0.1, 0.2]), "groups": patients_of([0, 1])} | change
    with pytest.raises(ValueError, match=message):
        statistics.paired(given.pop("a"), given.pop("b"), given.pop("groups"), **given)


# --- Holm ------------------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    # sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and the last may not fall below .06
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_special_cases():
    assert statistics.holm([0.01, 0.01, 0.9]) == pytest.approx([0.03, 0.03, 0.9])  # ties are adjusted alike
    assert statistics.holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert statistics.holm([0.2]) == pytest.approx([0.2])
    assert statistics.holm([0, 1]) == pytest.approx([0, 1])
    assert statistics.holm([]).shape == (0,)
    found = statistics.holm([0.01, np.nan, 0.04])
    assert found[[0, 2]] == pytest.approx([0.02, 0.04]) and np.isnan(found[1])
    assert np.isnan(statistics.holm([np.nan])).all()
    with pytest.raises(ValueError, match="p value 1.5 at place 1"):
        statistics.holm([np.nan, 1.5])
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        statistics.holm([[0.1, 0.2]])


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_as_the_step_down_procedure(seed):
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(8) ** 3, 2)
    kept = p.copy()
    adjusted = statistics.holm(p)
    assert (p == kept).all() and (adjusted >= p).all()
    order = rng.permutation(8)
    np.testing.assert_array_equal(statistics.holm(p[order]), adjusted[order])
    for alpha in (0.013, 0.057, 0.211):
        rejected = set()
        for step, i in enumerate(sorted(range(8), key=lambda i: p[i])):  # stop at the first that fails
            if p[i] > alpha / (8 - step):
                break
            rejected.add(i)
        assert set(np.flatnonzero(adjusted <= alpha)) == rejected


# --- files -----------------------------------------------------------------------------------------------------------


def stored_run(folder, values: dict, method="ynet", fold=1, seed=0, data=DATA, dataset="busbra", preset="full", **more) -> str:
    """Write one run with mAP@10 of each query, plus another metric that must not be mixed in; returns its id."""
    cfg = Config.from_preset(preset, dataset, method, fold=fold, seed=seed, **more)
    rows = [(case, "map", 10, value) for case, value in values.items()]
    rows += [(case, "ndcg", 10, 0.5) for case in values]
    per_query = pd.DataFrame(rows, columns=["case_id", "metric", "k", "value"])
    per_query.insert(1, "group", per_query["case_id"].str.rsplit("-", n=1).str[0])
    summary = pd.DataFrame({"metric": ["map"], "k": [10], "value": [np.nanmean(list(values.values()))]})
    store.write_run(cfg, data, summary, per_query, 1.0, folder)
    return provenance.run_id(cfg)


def rows_of(folder, *ids) -> pd.DataFrame:
    runs = store.read_runs(folder)
    return runs[runs["run_id"].isin(ids)]


def test_seeds_are_averaged_and_folds_are_not(tmp_path):
    ids = [
        stored_run(tmp_path, {"bus_0002-l": 0.2, "bus_0001-l": 0.5, "bus_0001-r": np.nan}, seed=0),
        stored_run(tmp_path, {"bus_0001-l": 0.7, "bus_0002-l": 0.6, "bus_0001-r": np.nan}, seed=1),
        stored_run(tmp_path, {"bus_0003-s": 1.0}, fold=2),
    ]
    found = statistics.per_query_table(rows_of(tmp_path, *ids), folder=tmp_path)
    assert list(found.columns) == ["fingerprint", "fold", "case_id", "group", "value", "runs"]
    assert (found["fingerprint"] == DATA).all()
    assert found["case_id"].tolist() == ["bus_0001-l", "bus_0001-r", "bus_0002-l", "bus_0003-s"]
    np.testing.assert_allclose(found["value"], [0.6, np.nan, 0.4, 1.0])
    assert found["fold"].tolist() == [1, 1, 1, 2] and found["runs"].tolist() == [2, 2, 2, 1]
    assert statistics.runs_text(found) == "2 x 1-2"
    assert statistics.runs_text(found[found["fold"] == 1]) == "1 x 2"
    assert (statistics.per_query_table(rows_of(tmp_path, ids[0]), "ndcg", tmp_path)["value"] == 0.5).all()


def test_another_seed_of_the_phantom_is_another_set(tmp_path):
    about = {"dataset": "phantom", "preset": "quick"}
    ids = [stored_run(tmp_path, {"p0001-1": 0.1 + s}, seed=s, data=DATA[s:] + DATA[:s], **about) for s in range(2)]
    found = statistics.per_query_table(rows_of(tmp_path, *ids), folder=tmp_path)
    assert sorted(found["value"]) == [0.1, 1.1] and statistics.runs_text(found) == "2 x 1"


def test_undefined_in_one_seed_only(tmp_path):
    ids = [stored_run(tmp_path, {"bus_0001-l": v, "bus_0002-l": 1.0}, seed=s) for s, v in enumerate([0.25, np.nan])]
    table = statistics.per_query_table(rows_of(tmp_path, *ids), folder=tmp_path)
    assert table["value"].tolist() == [0.25, 1.0]


def test_per_query_errors(tmp_path):
    def values_of(*ids, metric="map"):
        return statistics.per_query_table(rows_of(tmp_path, *ids), metric, tmp_path)

    first = stored_run(tmp_path, {"bus_0001-l": 0.5})
    with pytest.raises(ValueError, match="no run was given"):
        values_of()
    with pytest.raises(ValueError, match="no values per query of run 'none'"):
        statistics.per_query_table(rows_of(tmp_path, first).assign(run_id="none"), folder=tmp_path)
    with pytest.raises(ValueError, match=f"run '{first}' has no dice of its queries"):
        values_of(first, metric="dice")
    cases = [
        ({"method": "ynet-no-seg"}, "differ in method"),
        ({"dataset": "busi"}, "differ in dataset"),
        ({"seed": 1, "lr": 1.0}, "differ in config_hash"),
        ({"variant": "x", "fold": 3}, "differ in variant"),
        ({"fold": 4, "data": OTHER_DATA}, "differ in fingerprint"),
    ]
    for change, message in cases:
        with pytest.raises(ValueError, match=message):
            values_of(first, stored_run(tmp_path, {"bus_0009-l": 0.5}, **change))
    with pytest.raises(ValueError, match=r"fold 1 list different queries: 2 are not in all of them, such as 'bus_0001-l'"):
        values_of(first, stored_run(tmp_path, {"bus_0002-l": 0.5}, seed=2))
    with pytest.raises(ValueError, match=r"1 cases stand twice in a run or in two folds, such as 'bus_0001-l'"):
        values_of(first, stored_run(tmp_path, {"bus_0001-l": 0.5}, fold=2))
    path = tmp_path / "per_query" / f"{first}.csv"
    path.write_text(path.read_text() + "bus_0001-l,bus_0001,map,10,0.9\n")
    with pytest.raises(ValueError, match=r"such as 'bus_0001-l'"):
        values_of(first)


def test_patients_of_busi_are_the_clusters_of_its_split():
    kept = store.per_query([run for run in store.rows("first")["run_id"].unique() if run.startswith("busi-")], "map", 10)
    listed = pd.read_csv(paths.splits() / "busi.csv", dtype=str).set_index("case_id")["group"]
    assert (listed[kept["case_id"]].to_numpy() == kept["group"]).all() and listed.duplicated().any()


def test_patients_of_the_phantom_are_its_groups():
    from ynet_lite.sets.phantom import make_phantom

    drawn = make_phantom(40, seed=1, size=48).table
    assert drawn["group"].duplicated().any()
    run = next(run for run in store.rows("first")["run_id"] if run.startswith("phantom-"))
    kept = store.per_query([run], "map", 10).set_index("case_id")["group"]
    both = drawn[drawn["case_id"].isin(kept.index)]
    assert len(both) and kept[both["case_id"]].tolist() == both["group"].tolist()


@pytest.mark.data
def test_patients_of_busbra_are_those_of_its_table():
    folder = os.environ.get("YNET_DATA_DIR")
    if not folder:
        pytest.skip("YNET_DATA_DIR is not set: no real table to look at")
    try:
        manifest = busbra.busbra(folders.find(sets.named("busbra"), folder))
    except FileNotFoundError:
        pytest.skip("busbra is not in YNET_DATA_DIR")
    runs = [run for run in store.rows("first")["run_id"].unique() if run.startswith("busbra-ynet-")]
    kept = store.per_query(runs, "map", 10).drop_duplicates("case_id")[["case_id", "group"]]
    pairs = kept.merge(manifest, on="case_id", suffixes=("_kept", "")).rename(columns={"group_kept": "derived"})
    assert len(pairs) == len(manifest)  # every case was a query
    pairs = pairs[["derived", "group"]].drop_duplicates()
    assert len(pairs) == 1064 and pairs["derived"].is_unique and pairs["group"].is_unique


def test_committed_values_per_query_fit_the_committed_rows():
    rows = store.rows()
    rows = rows[(rows["metric"] == "map") & (rows["k"] == 10)].drop_duplicates(["dataset", "method"])
    assert len(rows)
    for row in rows.itertuples():
        found = statistics.per_query_table(rows[rows["run_id"] == row.run_id])
        assert found["value"].mean() == pytest.approx(row.value, abs=2e-6), row.run_id
        assert found["group"].duplicated().any()


# --- several comparisons ---------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    """ynet on two folds x two seeds, its twin on two folds x one seed, the released network likewise; mAP by hand."""
    rng = np.random.default_rng(0)
    for fold in (1, 2):
        cases = [f"bus_{p:04d}-{side}" for p in range(100 * fold, 100 * fold + 12) for side in "lr"]
        base = 0.3 + 0.3 * rng.random(24)
        for method, gain, seeds in (("ynet", 0.3, 2), ("ynet-no-seg", 0.1, 1), ("released", 0.295, 1)):
            for seed in range(seeds):
                noise = rng.normal(0, 0.05, 24)
                values = np.round(base + gain + noise - noise.mean(), 6)
                stored_run(tmp_path, dict(zip(cases, values, strict=True)), method, fold, seed)
    return tmp_path


def test_compare_methods(stored):
    found = statistics.compare_methods("ynet", ["ynet-no-seg", "released"], store.read_runs(stored), n=2_000, folder=stored)
    assert list(found.columns) == [
        "method", "mean_ours", "mean_rival", "points", "points_low", "points_high", "percent", "percent_low",
        "percent_high", "p", "p_holm", "p_least", "queries", "patients", "runs_ours", "runs_rival",
    ]  # fmt: skip
    assert found["method"].tolist() == ["released", "ynet-no-seg"]  # by the rival's mean
    assert found["points"].tolist() == pytest.approx([0.5, 20], abs=1e-3)
    np.testing.assert_allclose(found["percent"], 100 * (found["mean_ours"] / found["mean_rival"] - 1))
    assert (found["points_low"] < found["points"]).all() and (found["points"] < found["points_high"]).all()
    assert found.loc[0, "points_low"] < 0 < found.loc[1, "points_low"]
    assert found.loc[0, "p"] > 0.05 and found.loc[1, "p"] == 1 / 2001
    assert found["p_holm"].tolist() == statistics.holm(found["p"]).tolist()
    assert found.loc[1, "p_holm"] == 2 / 2001
    assert found["p_least"].tolist() == [False, True]
    assert (found["queries"] == 48).all() and (found["patients"] == 24).all()
    assert (found["runs_ours"] == "2 x 2").all() and (found["runs_rival"] == "2 x 1").all()

    runs = store.read_runs(stored)
    a, b = (statistics.per_query_table(runs[runs["method"] == m], folder=stored) for m in ("ynet", "ynet-no-seg"))
    alone = statistics.paired(a, b, a, n=2_000)
    row = found.iloc[1]
    assert (row["points"], row["points_low"], row["points_high"]) == alone.difference
    assert (row["percent"], row["percent_low"], row["percent_high"], row["p"]) == (*alone.relative, alone.p)


def test_compare_methods_settings_reach_the_comparison(stored):
    runs = store.read_runs(stored)

    def twin(runs, metric="map", **how):
        return statistics.compare_methods("ynet", ["ynet-no-seg"], runs, metric, n=100, folder=stored, **how).iloc[0]

    one = twin(runs[(runs["fold"] == 2) & (runs["seed"] == 0)])
    assert (one["queries"], one["patients"], one["runs_ours"], one["runs_rival"]) == (24, 12, "1 x 1", "1 x 1")
    ndcg = twin(runs, "ndcg")
    assert (ndcg["mean_ours"], ndcg["points"], ndcg["p"]) == (0.5, 0, 1)
    assert twin(runs, without=["bus_0100-l", "bus_0200-r"])["queries"] == 46


def test_compare_methods_errors(stored):
    for rivals in ("released", [], ["ynet"], ["released", "released"]):
        with pytest.raises(ValueError, match="rivals must be a list of methods"):
            statistics.compare_methods("ynet", rivals, store.read_runs(stored), folder=stored)
    with pytest.raises(ValueError, match="no run was given"):
        statistics.compare_methods("ynet", ["drh"], store.read_runs(stored), folder=stored)
    stored_run(stored, {"bus_0300-l": 0.5}, "ynet-paper", fold=1)
    with pytest.raises(ValueError, match=r"a = ynet, b = ynet-paper: a and b .* 48 stand in a only, 1 in b only"):
        statistics.compare_methods("ynet", ["ynet-paper"], store.read_runs(stored), folder=stored)


# --- other trainings -------------------------------------------------------------------------------------------------


def per_run(rng, folds=2, runs=3, patients=5, spread=0.1, shift=0.0) -> pd.DataFrame:
    """Values of made-up trainings: patients of one to three queries, their level shared by all trainings."""
    parts = []
    for fold in range(1, folds + 1):
        owner = np.repeat(np.arange(patients), 1 + np.arange(patients) % 3)
        for run in range(runs):
            values = 0.5 + shift + owner / 50 + rng.normal(0, spread)
            about = {"run_id": f"{fold}-{run}", "fingerprint": "f", "fold": fold}
            cases = [f"{fold}-{i:02d}" for i in range(len(owner))]
            parts.append(pd.DataFrame({**about, "case_id": cases, "group": [f"{fold}-{p}" for p in owner], "value": values}))
    return pd.concat(parts, ignore_index=True)


def test_trainings_and_patients_are_resampled_as_by_slow_loops():
    rng = np.random.default_rng(0)
    a, b = per_run(rng, runs=3, shift=0.1), per_run(rng, runs=2)
    a.loc[3, "value"] = np.nan  # this query is left out in all trainings of both
    found = statistics.trainings_interval(a, b, n=40, seed=5, alpha=0.2)
    lost = a["case_id"][3]
    kept = [table[table["case_id"] != lost] for table in (a, b)]
    draws, again = np.random.default_rng([5, 2]), [([], []) for _ in range(40)]
    for fold in (1, 2):
        groups = sorted(kept[0].loc[kept[0]["fold"] == fold, "group"].unique())
        patients = draws.multinomial(5, [1 / 5] * 5, 40)
        for table, side in zip(kept, (0, 1), strict=True):
            own = table[table["fold"] == fold]
            names = sorted(own["run_id"].unique())
            trainings = draws.multinomial(len(names), [1 / len(names)] * len(names), 40)
            for i in range(40):
                drawn = [name for name, times in zip(names, trainings[i], strict=True) for _ in range(times)]
                for group, times in zip(groups, patients[i], strict=True):
                    for case in own.loc[own["group"] == group, "case_id"].unique():
                        of_case = own[own["case_id"] == case].set_index("run_id")["value"]
                        again[i][side].extend([np.mean([of_case[name] for name in drawn])] * times)
    differences = [100 * (np.mean(ours) - np.mean(theirs)) for ours, theirs in again]
    np.testing.assert_allclose(found[1:], np.quantile(differences, [0.1, 0.9]))
    means = [table.groupby("case_id")["value"].mean().mean() for table in kept]
    assert found.value == pytest.approx(100 * (means[0] - means[1]))


def test_trainings_widen_the_interval_of_patients():
    rng = np.random.default_rng(1)
    same, varied = per_run(rng, patients=40, spread=0.0), per_run(rng, patients=40, spread=0.1)
    other = same.assign(value=same["value"] + 0.01 * (same["case_id"].str[2:].astype(int) % 7))
    for many, wider in ((same, False), (varied, True)):
        both = statistics.trainings_interval(many, other, n=2_000)
        a, b = (table.groupby(statistics.QUERY)["value"].mean().reset_index() for table in (many, other))
        patients = statistics.paired(a, b, same, n=2_000).difference
        assert both.value == pytest.approx(patients.value)
        assert (both.high - both.low > 2 * (patients.high - patients.low)) == wider
    with pytest.raises(ValueError, match="must answer the same queries"):
        statistics.trainings_interval(same, same[same["fold"] == 1])
    with pytest.raises(ValueError, match="no query has a value in every training"):
        statistics.trainings_interval(same, same.assign(value=np.nan))


def test_corrected_t_by_hand():
    # differences of the folds .1, .2, .3, .2: mean .2, variance .02 / 3; (1 / 4 + 1 / 4) var = .01 / 3
    a = table([0.5, 0.5, 0.7, 0.7, 0.6], fold=[1, 1, 2, 3, 4])
    b = table([0.3, 0.5, 0.5, 0.4, 0.4], fold=[1, 1, 2, 3, 4])
    t, p = statistics.corrected_t(a, b, ratio=1 / 4)
    assert t == pytest.approx(0.2 / math.sqrt(0.01 / 3)) == 2 * math.sqrt(3)
    # Student's t with 3 degrees of freedom: P(T > t) = 1/2 - (x / (1 + x^2) + atan x) / pi, x = t / sqrt 3 = 2
    assert p == pytest.approx(1 - 2 / math.pi * (2 / 5 + math.atan(2)))
    # without the correction it is the paired t-test over folds
    assert statistics.corrected_t(a, b, 1e-12)[1] == pytest.approx(scipy.stats.ttest_1samp([0.1, 0.2, 0.3, 0.2], 0).pvalue)


def test_corrected_t_special_cases():
    a = table([0.5, 0.5, 0.7], fold=[1, 2, 3])
    assert statistics.corrected_t(a, a) == (0, 1)
    assert statistics.corrected_t(a, a.assign(value=a["value"] + 0.25)) == (-math.inf, 0)
    with pytest.raises(ValueError, match="needs two folds and a ratio above 0, got 1 and 0.25"):
        statistics.corrected_t(a.assign(fold=1), a.assign(fold=1))


def test_the_mean_of_committed_votes_has_an_interval():
    """It is the share of right votes that the rows hold."""
    rows = store.rows("second")
    rows = rows[(rows["dataset"] == "busi") & (rows["method"] == "ynet") & (rows["variant"] == "")]
    table = statistics.per_query_table(rows, "accuracy")
    found = statistics.bootstrap_mean(table, table)
    assert found.low < found.value < found.high
    scores = rows[rows["metric"] == "accuracy"]
    sizes = statistics.per_run_table(rows, "accuracy").groupby("run_id").size()
    assert found.value == pytest.approx(np.average(scores["value"], weights=sizes[scores["run_id"]]), abs=1e-5)


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimate, more, text",
    [
        ((7.15, 5.06, 9.44), {}, "+7.2 [5.1, 9.4]"),
        ((-1.26, -3.0, 0.44), {}, "-1.3 [-3.0, 0.4]"),
        ((0.04, -0.04, 0.1), {}, "0.0 [0.0, 0.1]"),
        ((7.15, 5.06, 9.44), {"digits": 0, "signed": False}, "7 [5, 9]"),
        ((7.25, np.nan, np.nan), {"digits": 2}, "+7.25"),
        ((np.nan, np.nan, np.nan), {}, "-"),
    ],
)
def test_interval_text(estimate, more, text):
    assert statistics.interval_text(*statistics.Estimate(*estimate), **more) == text


@pytest.mark.parametrize(
    "p, text", [(1e-4, "< .001"), (0.001, ".001"), (0.0344, ".034"), (0.9, ".900"), (1.0, "1.000"), (np.nan, "-"), (0, "< .001")]
)
def test_p_text(p, text):
    assert statistics.p_text(p) == text


@pytest.mark.parametrize("p, text", [(0.0344, "≤ .034"), (1e-4, "< .001"), (np.nan, "-")])
def test_p_text_of_the_least_that_a_test_can_show(p, text):
    assert statistics.p_text(p, least=True) == text


def test_p_text_outside():
    with pytest.raises(ValueError, match="p values lie between 0 and 1"):
        statistics.p_text(1.2)
