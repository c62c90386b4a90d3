"""Metrics against every order of the ties, hand-computed values, and other people's implementations."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ynet_lite import metrics, overlap
from ynet_lite.cases.core import Cases

# --- oracles: plain metrics of one order, written from their equations; expectation by trying every order -------------


def tie_orders(distances):
    """Every order of the database that sorts ``distances``, each once."""
    values = sorted(set(distances))
    groups = [[i for i, d in enumerate(distances) if d == v] for v in values]
    for parts in itertools.product(*(itertools.permutations(g) for g in groups)):
        yield [i for part in parts for i in part]


def plain_ap_sum(relevant, k):
    hits, total = 0, 0.0
    for r, rel in enumerate(relevant[:k], start=1):
        if rel:
            hits += 1
            total += hits / r
    return total


def plain_map(relevant, k):
    return plain_ap_sum(relevant, k) / min(k, len(relevant), sum(relevant)) if any(relevant) else math.nan


def plain_map_hits(relevant, k):
    hits = sum(relevant[:k])
    return plain_ap_sum(relevant, k) / hits if hits else 0.0


def plain_precision(relevant, k):
    return sum(relevant[:k]) / len(relevant[:k])


def plain_recall(relevant, k):
    return sum(relevant[:k]) / sum(relevant) if any(relevant) else math.nan


def plain_ndcg(gains, k):
    def dcg(values):
        return sum(g / math.log2(r + 1) for r, g in enumerate(values[:k], start=1))

    ideal = dcg(sorted(gains, reverse=True))
    return dcg(gains) / ideal if ideal else math.nan


def plain_agreement(overlaps, k):
    known = [v for v in overlaps[:k] if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def plain_vote(labels, k, own):
    votes = {c: labels[:k].count(c) for c in labels[:k]}
    most = max(votes.values())
    winners = [c for c, v in votes.items() if v == most]
    return 1 / len(winners) if own in winners else 0.0


def expected(plain, distances, values, k, *more):
    """Mean of ``plain`` over all tie orders in which it is defined; NaN if in none."""
    results = [plain([values[i] for i in order], k, *more) for order in tie_orders(list(distances))]
    results = [v for v in results if not math.isnan(v)]
    return sum(results) / len(results) if results else math.nan


def case_of(rng, n):
    """Random distances with ties of all sizes, relevance, gains, overlaps (some unknown), labels."""
    distances = rng.integers(0, rng.integers(1, n + 1), n)
    gains = rng.integers(0, 3, n)
    overlaps = np.where(rng.random(n) < 0.3, np.nan, rng.random(n))
    return distances, gains > 0, gains, overlaps, rng.integers(0, 4, n)


def row(values):
    return np.asarray(values)[None]


@pytest.mark.parametrize("seed", range(40))
def test_all_metrics_equal_the_mean_over_every_tie_order(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))  # 7! = 5,040 orders at most
    distances, relevant, gains, overlaps, labels = case_of(rng, n)
    d = row(distances)
    for k in {1, 2, 3, int(rng.integers(1, n + 3))}:
        rel = relevant.tolist()
        pairs = {
            "map": (metrics.average_precision(d, row(relevant), k), expected(plain_map, distances, rel, k)),
            "map_hits": (
                metrics.average_precision_hits(d, row(relevant), k),
                expected(plain_map_hits, distances, rel, k),
            ),
            "precision": (metrics.precision(d, row(relevant), k), expected(plain_precision, distances, rel, k)),
            "recall": (metrics.recall(d, row(relevant), k), expected(plain_recall, distances, rel, k)),
            "ndcg": (metrics.ndcg(d, row(gains), k), expected(plain_ndcg, distances, gains.tolist(), k)),
            "mask_agreement": (
                metrics.mask_agreement(d, row(overlaps), k),
                expected(plain_agreement, distances, overlaps.tolist(), k),
            ),
            "accuracy": (
                metrics.vote_accuracy(d, np.array([1]), labels, k),
                expected(plain_vote, distances, labels.tolist(), k, 1),
            ),
        }
        for name, (fast, slow) in pairs.items():
            np.testing.assert_allclose(fast, [slow], rtol=0, atol=1e-11, err_msg=f"{name}, k={k}, {distances}")


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_the_mean_over_every_order_of_the_database(seed):
    """Ties as somebody meets them who sorts a folder by distance: a stable sort of the database in each of its orders."""
    rng = np.random.default_rng(seed)
    distances, relevant = rng.integers(0, 3, 6), rng.random(6) < 0.5
    relevant[0] = True
    for k in (1, 3, 6):
        scores = []
        for order in itertools.permutations(range(6)):
            listed = sorted(order, key=lambda case: distances[case])
            scores.append(plain_map(relevant[listed], k))
        assert metrics.average_precision(distances[None], relevant[None], k)[0] == pytest.approx(np.mean(scores))


def test_many_queries_at_once_equal_one_at_a_time():
    rng = np.random.default_rng(3)
    d, rel = rng.integers(0, 4, (9, 30)), rng.random((9, 30)) < 0.3
    gains = rel * rng.integers(1, 3, (9, 30))
    overlaps = np.where(rng.random((9, 30)) < 0.2, np.nan, rng.random((9, 30)))
    labels, own = rng.integers(0, 3, 30), rng.integers(0, 3, 9)
    for fun, values in [
        (metrics.average_precision, rel),
        (metrics.average_precision_hits, rel),
        (metrics.precision, rel),
        (metrics.recall, rel),
        (metrics.ndcg, gains),
        (metrics.mask_agreement, overlaps),
    ]:
        single = np.concatenate([fun(d[i : i + 1], values[i : i + 1], 10) for i in range(9)])
        np.testing.assert_allclose(fun(d, values, 10), single, rtol=1e-13, err_msg=fun.__name__)
    single = np.concatenate([metrics.vote_accuracy(d[i : i + 1], own[i : i + 1], labels, 10) for i in range(9)])
    np.testing.assert_allclose(metrics.vote_accuracy(d, own, labels, 10), single, rtol=1e-12)


# --- by hand ----------------------------------------------------------------------------------------------------------

# Ranks:      1  2  3  4  5
HAND_DISTANCE = row([1, 2, 3, 4, 5])
HAND_RELEVANT = row([1, 0, 1, 0, 1]).astype(bool)


def test_by_hand_without_ties():
    d, rel = HAND_DISTANCE, HAND_RELEVANT
    # hits at ranks 1 and 3 of the first 4; three relevant cases in the database
    assert metrics.average_precision(d, rel, 4)[0] == pytest.approx((1 / 1 + 2 / 3) / 3)  # min(4, 3) = 3
    assert metrics.average_precision(d, rel, 2)[0] == pytest.approx((1 / 1) / 2)  # min(2, 3) = 2
    assert metrics.average_precision_hits(d, rel, 4)[0] == pytest.approx((1 / 1 + 2 / 3) / 2)  # two hits
    assert metrics.precision(d, rel, 4)[0] == pytest.approx(2 / 4)
    assert metrics.recall(d, rel, 4)[0] == pytest.approx(2 / 3)
    # gains 2 0 1 | ideal 2 1 1: discounts 1, 1/log2(3), 1/2
    gains = row([2, 0, 1, 0, 1])
    assert metrics.ndcg(d, gains, 3)[0] == pytest.approx((2 + 1 / 2) / (2 + 1 / math.log2(3) + 1 / 2))
    assert metrics.mask_agreement(d, row([0.5, np.nan, 0.25, 1.0, 1.0]), 3)[0] == pytest.approx((0.5 + 0.25) / 2)
    # votes of the nearest 3: two for class 1, one for class 0
    labels = np.array([1, 0, 1, 0, 0])
    assert metrics.vote_accuracy(d, np.array([1]), labels, 3)[0] == pytest.approx(1)
    assert metrics.vote_accuracy(d, np.array([1]), labels, 4)[0] == pytest.approx(1 / 2)  # 2 : 2
    assert metrics.vote_accuracy(d, np.array([1]), labels, 5)[0] == pytest.approx(0)  # 2 : 3


def test_by_hand_with_a_tie_at_the_cut():
    # One hit for sure at rank 1, then three tied cases of which one is relevant; k = 2 cuts the group.
    d, rel = row([0, 1, 1, 1]), row([True, True, False, False])
    # rank 2 is a hit in 1/3 of the orders, and then precision(2) = 2/2
    assert metrics.average_precision(d, rel, 2)[0] == pytest.approx((1 + 1 / 3) / 2)
    # with the hit: (1 + 1) / 2 hits = 1; without: 1 / 1 hit = 1
    assert metrics.average_precision_hits(d, rel, 2)[0] == pytest.approx(1)
    assert metrics.precision(d, rel, 2)[0] == pytest.approx((1 + 1 / 3) / 2)
    assert metrics.recall(d, rel, 2)[0] == pytest.approx((1 + 1 / 3) / 2)
    assert metrics.tied_at_k(d, 2)[0] == 3
    assert metrics.tied_at_k(d, 1)[0] == 1
    # two voters: the sure one votes 0, the second is 0 with 1/3 (2 : 0, won) or 1 with 2/3 (1 : 1, half)
    labels = np.array([0, 0, 1, 1])
    assert metrics.vote_accuracy(d, np.array([0]), labels, 2)[0] == pytest.approx(1 / 3 + 2 / 3 * 1 / 2)
    # k = 3: second and third place of the group of three; the hit is at rank 2, rank 3 or outside with 1/3 each
    expect = (1 / 3 * (1 + 2 / 2) + 1 / 3 * (1 + 2 / 3) + 1 / 3 * 1) / 2
    assert metrics.average_precision(d, rel, 3)[0] == pytest.approx(expect)
    expect = 1 / 3 * (1 + 2 / 2) / 2 + 1 / 3 * (1 + 2 / 3) / 2 + 1 / 3 * 1 / 1
    assert metrics.average_precision_hits(d, rel, 3)[0] == pytest.approx(expect)


def test_all_tied_is_the_prevalence():
    d, rel = np.zeros((1, 10)), row([1] * 3 + [0] * 7).astype(bool)
    assert metrics.precision(d, rel, 5)[0] == pytest.approx(3 / 10)
    assert metrics.recall(d, rel, 5)[0] == pytest.approx(5 / 10)
    assert metrics.tied_at_k(d, 5)[0] == 10


def test_dice_and_iou_by_hand():
    pred, true = np.zeros((4, 3, 3), np.uint8), np.zeros((4, 3, 3), np.uint8)
    pred[0, 0, :2], true[0, 0, 1:] = 1, 2  # 2 and 2 pixels, 1 shared; any class but 0 is foreground
    pred[1, 0, 0] = 1  # true is empty
    true[2] = 1
    pred[2] = 1
    before = pred.copy(), true.copy()
    np.testing.assert_allclose(overlap.dice(pred, true), [2 * 1 / (2 + 2), 0, 1, 1])  # the last: both empty
    np.testing.assert_allclose(overlap.iou(pred, true), [1 / 3, 0, 1, 1])
    assert (pred == before[0]).all() and (true == before[1]).all()
    with pytest.raises(ValueError, match="same shape"):
        overlap.dice(pred, true[:2])
    with pytest.raises(ValueError, match="bool or integer"):
        overlap.dice(pred / 2, true)


def slow_centred_iou(a, b):
    """One pair, pixel sets moved so that the rounded centroid is (0, 0)."""

    def centred(mask):
        points = [(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)]
        if not points:
            return set()
        cy = math.floor(sum(y for y, _ in points) / len(points) + 0.5)
        cx = math.floor(sum(x for _, x in points) / len(points) + 0.5)
        return {(y - cy, x - cx) for y, x in points}

    a, b = centred(a), centred(b)
    return len(a & b) / len(a | b) if a | b else 1.0


def test_centred_iou_against_pixel_sets():
    rng = np.random.default_rng(1)
    a = (rng.random((7, 9, 9)) < rng.random((7, 1, 1))).astype(np.uint8)
    b = (rng.random((8, 9, 9)) < rng.random((8, 1, 1))).astype(np.uint8) * 2
    a[0], b[0], b[1] = 0, 0, 0
    b[2] = 0
    b[2, 0, 0] = b[2, 8, 8] = 1  # wide: nothing may be cut off by the move
    slow = [[slow_centred_iou(x, y) for y in b] for x in a]
    np.testing.assert_allclose(overlap.centred_iou(a, b), slow, rtol=1e-14)
    assert overlap.centred_iou(a, b)[0].tolist()[:3] == [1, 1, 0]  # both empty; one empty


def test_centred_iou_ignores_position_and_works_in_blocks():
    mask = np.zeros((12, 12), np.uint8)
    mask[1:4, 2:6] = 1
    moved = np.roll(mask, (6, 5), axis=(0, 1))
    assert overlap.centred_iou(mask[None], moved[None]) == 1
    many = np.broadcast_to(mask, (1100, 12, 12)).copy()
    many[700] = 0
    got = overlap.centred_iou(many[:600], many)
    assert (got[:, 700] == 0).all() and (np.delete(got, 700, axis=1) == 1).all()
    with pytest.raises(ValueError, match="height and width"):
        overlap.centred_iou(mask[None], np.zeros((1, 5, 5), bool))


def test_centred_iou_of_empty_sets_of_masks():
    assert overlap.centred_iou(np.zeros((0, 4, 4), bool), np.zeros((2, 4, 4), bool)).shape == (0, 2)
    assert (overlap.centred_iou(np.zeros((3, 4, 4), bool), np.zeros((2, 4, 4), bool)) == 1).all()


def test_distinct_codes():
    assert metrics.distinct_codes(np.array([[1, 2], [1, 2], [2, 1]], np.uint8)) == 2
    assert metrics.distinct_codes(np.array([[0.5], [0.25], [0.5]])) == 2


# --- other implementations -------------------------------------------------------------------------------------------


def test_agrees_with_torchmetrics_where_definitions_agree():
    torch = pytest.importorskip("torch")
    from torchmetrics.functional import retrieval as other

    rng = np.random.default_rng(5)
    n = 64
    for _ in range(20):
        d = rng.permutation(n)
        gains = rng.integers(0, 3, n)
        gains[:2] = 1, 2
        rel = gains > 0
        score = torch.tensor(n - d + 1, dtype=torch.float32)  # above 0: torchmetrics drops scores <= 0
        for k in (1, 5, 10, 64):
            # its average precision divides by the hits in the list: our map_hits, not our map
            ap = other.retrieval_average_precision(score, torch.tensor(rel), top_k=k)
            assert metrics.average_precision_hits(row(d), row(rel), k)[0] == pytest.approx(float(ap), abs=1e-5)
            p = other.retrieval_precision(score, torch.tensor(rel), top_k=k)
            assert metrics.precision(row(d), row(rel), k)[0] == pytest.approx(float(p), abs=1e-6)
            r = other.retrieval_recall(score, torch.tensor(rel), top_k=k)
            assert metrics.recall(row(d), row(rel), k)[0] == pytest.approx(float(r), abs=1e-6)
            g = other.retrieval_normalized_dcg(score, torch.tensor(gains), top_k=k)
            assert metrics.ndcg(row(d), row(gains), k)[0] == pytest.approx(float(g), abs=1e-5)
        # over the whole database both average precisions are the same
        whole = other.retrieval_average_precision(score, torch.tensor(rel))
        assert metrics.average_precision(row(d), row(rel), n)[0] == pytest.approx(float(whole), abs=1e-5)


def test_ndcg_under_ties_agrees_with_scikit_learn():
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(6)
    d, gains = rng.integers(0, 4, (20, 40)), rng.integers(0, 3, (20, 40))
    for k in (1, 5, 20, 40):
        assert metrics.ndcg(d, gains, k).mean() == pytest.approx(ndcg_score(gains, -d, k=k), abs=1e-12)


# --- properties ------------------------------------------------------------------------------------------------------


def make_cases(labels, prefix="c", finer=(), masks=None, has_mask=None, **columns):
    labels = np.asarray(labels, np.int64)
    n = len(labels)
    masks = np.zeros((n, 8, 8), np.uint8) if masks is None else masks
    table = pd.DataFrame(
        {
            "case_id": [f"{prefix}{i}" for i in range(n)],
            "label": [str(v) for v in labels],
            "group": [f"{prefix}g{i}" for i in range(n)],
            "fold": 1,
            **columns,
        }
    )
    return Cases(
        images=np.zeros((n, 1, 8, 8), np.uint8),
        masks=masks,
        has_mask=np.ones(n, bool) if has_mask is None else has_mask,
        labels=labels,
        table=table,
        class_names=("a", "b", "c"),
        finer=finer,
    )


def random_problem(seed, q=6, n=40, levels=5):
    rng = np.random.default_rng(seed)

    def cases(count, prefix):
        return make_cases(
            rng.integers(0, 3, count),
            prefix,
            finer=("stage",),
            masks=(rng.random((count, 8, 8)) < rng.random((count, 1, 1))).astype(np.uint8),
            has_mask=rng.random(count) < 0.8,
            stage=rng.integers(0, 2, count),
        )

    return rng.integers(0, levels, (q, n)), cases(q, "q"), cases(n, "d")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), levels=st.integers(1, 50), real=st.booleans())
def test_permuting_the_database_changes_nothing_at_all(seed, levels, real):
    distances, queries, database = random_problem(seed, levels=levels)
    distances = distances / 7 if real else distances
    order = np.random.default_rng(seed + 1).permutation(len(database))
    rows, per_query = metrics.evaluate(distances, queries, database, (3, 10, 50))
    rows2, per_query2 = metrics.evaluate(distances[:, order], queries, database.take(order), (3, 10, 50))
    pd.testing.assert_frame_equal(rows, rows2, check_exact=True)
    pd.testing.assert_frame_equal(per_query, per_query2, check_exact=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), levels=st.integers(1, 12))
def test_values_lie_in_their_range_and_inputs_stay_as_they_are(seed, levels):
    distances, queries, database = random_problem(seed, levels=levels)
    kept = distances.copy(), queries.masks.copy(), database.masks.copy(), queries.labels.copy(), database.table.copy()
    codes = np.zeros((len(queries), 2), np.uint8)
    rows, per_query = metrics.evaluate(distances, queries, database, (1, 7, 40), query_codes=codes)
    share = ~rows["metric"].isin(["tied_at_k", "distinct_codes", "no_relevant", "no_mask"])
    assert rows.loc[share, "value"].dropna().between(0, 1).all()
    assert rows.loc[rows["metric"] == "tied_at_k", "value"].between(1, 40).all()
    assert per_query.loc[per_query["metric"] != "tied_at_k", "value"].dropna().between(0, 1).all()
    for before, now in zip(kept, (distances, queries.masks, database.masks, queries.labels, database.table), strict=True):
        assert before.equals(now) if isinstance(now, pd.DataFrame) else (before == now).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_only_the_order_of_distances_matters(seed):
    distances, queries, database = random_problem(seed)
    first = metrics.evaluate(distances, queries, database)[0]
    second = metrics.evaluate(np.exp(distances.astype(float)) - 7, queries, database)[0]
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_perfect_ranking_scores_one():
    labels = np.arange(60) % 3
    queries, database = make_cases([0, 1, 2], "q"), make_cases(labels, "d")
    distances = (queries.labels[:, None] != labels).astype(int)
    rows = metrics.evaluate(distances, queries, database, (5, 10, 20))[0]
    value = rows.set_index(["metric", "k"])["value"]
    for name in ("map", "map_macro", "map_hits", "precision", "ndcg", "mask_agreement"):
        assert (value[name] == 1).all(), name
    assert value["recall", 20] == 1 and value["recall", 5] == 5 / 20
    assert value["accuracy", 10] == 1
    assert (value["tied_at_k"] == 20).all()


# --- evaluate --------------------------------------------------------------------------------------------------------


def test_evaluate_rows_are_the_means_of_the_single_functions():
    distances, queries, database = random_problem(11, q=12)
    rows, per_query = metrics.evaluate(distances, queries, database, (5, 10))
    value = rows.set_index(["metric", "k"])["value"]
    rel, gains = metrics.same_class(queries, database), metrics.graded_gains(queries, database)
    overlaps = overlap.mask_overlaps(queries, database)
    singles = {
        "map": metrics.average_precision(distances, rel, 10),
        "map_hits": metrics.average_precision_hits(distances, rel, 10),
        "precision": metrics.precision(distances, rel, 10),
        "recall": metrics.recall(distances, rel, 10),
        "ndcg": metrics.ndcg(distances, gains, 10),
        "mask_agreement": metrics.mask_agreement(distances, overlaps, 10),
        "tied_at_k": metrics.tied_at_k(distances, 10),
        "accuracy": metrics.vote_accuracy(distances, queries.labels, database.labels, 10),
    }
    for name, single in singles.items():
        mine = per_query[(per_query["metric"] == name) & (per_query["k"] == 10)]
        assert mine["case_id"].tolist() == queries.ids.tolist()
        np.testing.assert_allclose(mine["value"], single, rtol=1e-14, err_msg=name)
        assert value[name, 10] == pytest.approx(np.nanmean(single), rel=1e-14)
    macro = np.mean([singles["map"][queries.labels == c].mean() for c in np.unique(queries.labels)])
    assert value["map_macro", 10] == pytest.approx(macro)
    assert value["no_mask", 0] == (~queries.has_mask).sum() > 0
    assert list(rows.columns) == ["metric", "k", "value"] and not rows.duplicated(["metric", "k"]).any()
    assert list(per_query.columns) == ["case_id", "metric", "k", "value"]
    again = metrics.evaluate(distances, queries, database, (5, 10), overlaps=overlaps)[0]
    pd.testing.assert_frame_equal(rows, again, check_exact=True)


def test_macro_mean_weighs_classes_not_queries():
    # three queries of class a with AP 1, one of class b with AP 0
    queries, database = make_cases([0, 0, 0, 1], "q"), make_cases([0, 1], "d")
    value = metrics.evaluate(np.array([[0, 1]] * 4), queries, database, (1,))[0].set_index(["metric", "k"])["value"]
    assert value["map", 1] == 3 / 4 and value["map_macro", 1] == 1 / 2


def test_a_query_without_a_relevant_case_is_left_out_and_counted():
    queries, database = make_cases([0, 2], "q"), make_cases([0, 1], "d")
    rows, per_query = metrics.evaluate(np.array([[0, 1], [0, 1]]), queries, database, (2,))
    value = rows.set_index(["metric", "k"])["value"]
    assert value["map", 2] == value["map_macro", 2] == value["recall", 2] == value["ndcg", 2] == 1
    assert value["map_hits", 2] == 1 / 2 and value["precision", 2] == 1 / 4  # defined for both: 1 and 0
    # the first query's two voters are level, 1 : 1; nobody can vote for the second query's class
    assert value["no_relevant", 0] == 1 and value["accuracy", 10] == (1 / 2 + 0) / 2
    assert per_query[per_query["metric"] == "map"]["value"].isna().tolist() == [False, True]


def test_one_case_in_the_database_and_k_above_it():
    queries, database = make_cases([0, 1], "q"), make_cases([0], "d")
    value = metrics.evaluate(np.array([[3], [3]]), queries, database)[0].set_index(["metric", "k"])["value"]
    for k in metrics.KS:
        assert value["map", k] == value["recall", k] == 1 and value["precision", k] == value["map_hits", k] == 1 / 2
        assert value["tied_at_k", k] == 1


def test_no_known_mask_gives_nan_and_no_error():
    queries, database = make_cases([0], "q"), make_cases([0, 1], "d", has_mask=np.zeros(2, bool))
    value = metrics.evaluate(np.zeros((1, 2)), queries, database, (2,))[0].set_index(["metric", "k"])["value"]
    assert math.isnan(value["mask_agreement", 2]) and value["map", 2] == pytest.approx((1 + 1 / 2) / 2)


def test_graded_gains():
    queries = make_cases([0, 0, 1], "q", ("stage", "shape"), stage=[1, 2, 1], shape=["x", None, "y"])
    database = make_cases([0, 0, 0, 1], "d", ("stage", "shape"), stage=[1, 1, 2, 1], shape=["x", "y", None, "y"])
    expect = [[2, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 2]]  # a missing shape equals nothing, not even a missing one
    assert metrics.graded_gains(queries, database).tolist() == expect
    plain = metrics.graded_gains(make_cases([0, 1], "q"), make_cases([0, 1], "d"))
    assert plain.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="finer"):
        metrics.graded_gains(queries, make_cases([0], "d"))


def test_chance_is_the_mean_over_random_rankings():
    _, queries, database = random_problem(2, q=20)
    exact = metrics.chance(queries, database, (5, 10))
    assert "tied_at_k" not in set(exact["metric"])
    rng = np.random.default_rng(0)
    draws = [
        metrics.evaluate(rng.random((20, 40)), queries, database, (5, 10))[0].set_index(["metric", "k"])["value"]
        for _ in range(150)
    ]
    drawn = pd.concat(draws, axis=1)
    error = drawn.std(axis=1) / math.sqrt(len(draws))
    for metric, k, value in exact.itertuples(index=False):
        assert abs(drawn.mean(axis=1)[metric, k] - value) <= 4 * error[metric, k] + 1e-12, (metric, k)


def test_chance_on_busbra_fold_1():
    """Published chance level of the development fold, from the official list of cases."""
    folder = os.environ.get("YNET_DATA_DIR")
    if not folder:
        pytest.skip("needs BUS-BRA: set YNET_DATA_DIR")
    folds = [p for p in (Path(folder) / "busbra" / "5-fold-cv.csv", Path(folder) / "5-fold-cv.csv") if p.is_file()]
    if not folds:
        pytest.skip("no 5-fold-cv.csv of BUS-BRA in YNET_DATA_DIR")
    table = pd.read_csv(folds[0])
    label, test = (table["Pathology"] == "malignant").to_numpy(), (table["kFold"] == 1).to_numpy()
    rel = label[test][:, None] == label[~test]
    zeros = np.zeros(rel.shape, np.int8)
    assert rel.shape == (376, 1499)
    assert metrics.average_precision(zeros, rel, 10).mean() == pytest.approx(0.41, abs=0.01)
    assert metrics.average_precision_hits(zeros, rel, 10).mean() == pytest.approx(0.66, abs=0.01)
    assert metrics.precision(zeros, rel, 10).mean() == pytest.approx(0.565, abs=0.01)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_large_databases_keep_their_precision():
    # 100,000 cases all tied: chance of a binary class at prevalence 1/2
    n = 100_000
    d, rel = np.zeros((1, n), np.int16), (np.arange(n) % 2 == 0)[None]
    assert metrics.precision(d, rel, 50)[0] == pytest.approx(0.5, abs=1e-12)
    accuracy = metrics.vote_accuracy(d, np.array([0]), np.arange(n) % 2, 10)[0]
    assert accuracy == pytest.approx(0.5, abs=1e-9)
    assert 0.5 < metrics.average_precision_hits(d, rel, 50)[0] < 0.6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.precision(row([1.0, np.nan]), row([True, False]), 1), "NaN in 1 of 1 rows"),
        (lambda: metrics.precision(np.zeros((2, 0)), np.zeros((2, 0), bool), 1), "empty"),
        (lambda: metrics.precision(np.zeros(3), np.zeros(3, bool), 1), "matrix"),
        (lambda: metrics.precision(np.zeros((1, 3)), np.zeros((1, 2), bool), 1), "shape"),
        (lambda: metrics.precision(np.zeros((1, 3)), row([0, 1, 2]), 1), "graded"),
        (lambda: metrics.precision(np.zeros((1, 3)), np.zeros((1, 3), bool), 0), "at least 1"),
        (lambda: metrics.precision(metrics.rank(np.zeros((1, 9)), 3), np.zeros((1, 9), bool), 5), "first 3 ranks"),
        (lambda: metrics.ndcg(np.zeros((1, 3)), row([0, -1, 2]), 1), "at least 0"),
        (lambda: metrics.vote_accuracy(np.zeros((1, 3)), [0], [0, 1]), "labels"),
        (lambda: metrics.evaluate(np.zeros((2, 2)), make_cases([0]), make_cases([0, 1])), "1 queries"),
        (lambda: metrics.evaluate(np.zeros((0, 2)), make_cases([]), make_cases([0, 1])), "no queries"),
        (lambda: metrics.evaluate(np.zeros((1, 2)), make_cases([0]), make_cases([0, 1]), ()), "at least one k"),
        (
            lambda: metrics.evaluate(np.zeros((1, 2)), make_cases([0]), make_cases([0, 1]), (5,), np.zeros((3, 1))),
            "one code per query",
        ),
    ],
)
def test_errors_say_what_was_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
