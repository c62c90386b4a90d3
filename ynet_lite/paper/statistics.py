"""Paired comparison of retrieval methods: every query is answered by both, and patients, not queries, are the sample.

A method is run on several folds (their queries are different cases) and with several seeds (the same queries again). So the
seeds of a query are averaged first, which leaves one value per query and method; then

- **intervals** come from a bootstrap by patient: patients are drawn with replacement, each with all its queries, and the
  statistic (a mean, a difference, a ratio) is computed anew in each replicate; percentile interval. Resampling whole clusters
  keeps the likeness of two views of one patient (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section
  3.8; Field and Welsh, JRSS B 69 (2007) 369-390);
- **p values** come from a sign-flip permutation test by patient: if the two methods are interchangeable, swapping them in all
  queries of a patient is as likely as not (randomisation test of paired means; Smucker, Allan, Carterette, CIKM 2007). The
  observed order counts as one of the permutations, so p is never 0 (Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9
  (2010) 39);
- several rivals are one family: **Holm's** correction (Holm, Scand. J. Statist. 6 (1979) 65-70).

Why no Wilcoxon (or sign) test over the five folds: five pairs have 2^5 = 32 patterns of signs, so the smallest two-sided p is
2 / 32 = .0625, whatever the methods do. Nor are five folds a sample of five: each pair of training sets shares three quarters
of its cases, and no unbiased estimate of the variance over folds exists (Bengio and Grandvalet, JMLR 5 (2004) 1089-1105).

What intervals and p values speak of: **other patients, with these trained networks**. The chance in a training (its seed) is
averaged over, not resampled; where it matters, read the spread over seeds beside them (`ynet_lite.paper.tables.retrieval_table`).
The mean here is over queries; the mean over runs of that table weights each run alike, and differs slightly where folds differ
in size or in their number of seeds. With few patients (a dozen or two) percentile intervals are too narrow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import paths
from ..sets import drawn_per_seed
from .store import per_query, read_runs, rows

QUERY = ["fingerprint", "fold", "case_id"]  # what makes a query

_CHUNK = 1 << 20  # numbers of one block of replicates: fixed, since the order of sums must not depend on the machine

_ROUNDING = 1e-9  # relative: two statistics this close are a tie, not a difference


# --- values per query ------------------------------------------------------------------------------------------------


def find_runs(
    runs: pd.DataFrame,
    dataset: str,
    preset: str,
    method: str,
    variant: str = "",
    folds: Iterable[int] | None = None,
    seeds: Iterable[int] | None = None,
) -> list[str]:
    """Run ids of one method, by fold and seed.

    runs : rows of `store.rows`.
    preset : as in the tables, ``full`` takes in the paper preset, which answers the same question on the same data.
    folds, seeds : None = all that there are.

    Raises ``ValueError`` when there are none, when a wanted fold has none, or when they are of several configurations.
    """
    presets = ("full", "paper") if preset == "full" else (preset,)
    same_set = runs[(runs["dataset"] == dataset) & runs["preset"].isin(presets) & (runs["variant"] == variant)]
    chosen = same_set[same_set["method"] == method]
    if seeds is not None:
        chosen = chosen[chosen["seed"].isin(list(seeds))]
    chosen = chosen[["run_id", "config_hash", "fold", "seed"]].drop_duplicates()
    where = f"{method} on {dataset}, preset {preset}" + (f", {variant}" if variant else "")
    if chosen.empty:
        known = ", ".join(sorted(same_set["method"].unique())) or "no method at all"
        raise ValueError(f"find_runs: no run of {where} with these seeds; of this set there are runs of {known}")
    if folds is not None:
        wanted, there = sorted({int(fold) for fold in folds}), sorted(chosen["fold"].unique().tolist())
        missing = [fold for fold in wanted if fold not in there]
        if missing or not wanted:
            raise ValueError(f"find_runs: no run of {where} on fold(s) {missing}; there are folds {there}")
        chosen = chosen[chosen["fold"].isin(wanted)]
    hashes = sorted(chosen["config_hash"].unique())
    if len(hashes) > 1:
        raise ValueError(f"find_runs: runs of {where} have several configurations ({', '.join(hashes)}); leave one in `runs`")
    return chosen.sort_values(["fold", "seed", "run_id"])["run_id"].tolist()


def per_query_table(run_ids: Sequence[str], metric: str = "map", k: int = 10, folder: str | Path | None = None) -> pd.DataFrame:
    """One value per query of one method: the mean over seeds, from ``folder/per_query`` (default: the committed results).

    Columns ``fingerprint, fold, case_id, group, value, runs``, sorted by the first three; ``runs`` is the number of trainings on
    that fold. A seed in which the value is undefined (no relevant case) is left out of that query's mean; a query
    undefined in all seeds is NaN here, and is dropped, pairwise, where methods are compared.

    On a set that is drawn anew for each seed (the phantom) another seed means other queries: the fingerprint keeps them apart.

    Raises ``ValueError``: no or repeated run ids; a run without files or without this metric; runs of several sets, methods,
    variants or configurations, or of several versions of a real set; seeds of one fold that list different queries; a case in
    two folds.
    """
    run_ids = [run_ids] if isinstance(run_ids, str) else list(run_ids)
    if not run_ids or len(set(run_ids)) < len(run_ids):
        raise ValueError(f"per_query_table: needs at least one run id, each once; got {run_ids}")
    known = (rows() if folder is None else read_runs(folder)).drop_duplicates("run_id").set_index("run_id")
    values = per_query(run_ids, metric, k, folder)
    about, parts = [], []
    for run in run_ids:
        if run not in known.index:
            raise ValueError(f"per_query_table: run {run!r} has no rows in {folder or paths.results()}")
        about.append(known.loc[run])
        chosen = values[values["run_id"] == run]
        if chosen.empty:
            other = per_query([run], folder=folder).drop_duplicates(["metric", "k"])
            there = ", ".join(sorted(f"{m}@{at}" for m, at in zip(other["metric"], other["k"], strict=True)))
            raise ValueError(f"per_query_table: run {run!r} has no {metric}@{k}; it has {there}")
        if chosen["case_id"].duplicated().any():
            twice = chosen["case_id"][chosen["case_id"].duplicated()].iloc[0]
            raise ValueError(f"per_query_table: run {run!r} has {metric}@{k} of {twice!r} twice")
        columns = chosen[["case_id", "group", "value"]]
        parts.append(columns.assign(fingerprint=about[-1]["fingerprint"], fold=int(about[-1]["fold"])))

    about = pd.DataFrame(about)
    for column in ("dataset", "method", "variant", "config_hash", "fingerprint"):
        found = sorted(about[column].unique())
        if len(found) > 1 and not (column == "fingerprint" and about["dataset"].iloc[0] in drawn_per_seed()):
            raise ValueError(f"per_query_table: runs differ in {column} ({', '.join(found)}); give the runs of one")
    for (_, fold), same in about.reset_index(drop=True).groupby(["fingerprint", "fold"]):
        first = set(parts[same.index[0]]["case_id"])
        for i in same.index[1:]:
            odd = first ^ set(parts[i]["case_id"])
            if odd:
                raise ValueError(
                    f"per_query_table: {run_ids[same.index[0]]} and {run_ids[i]} are seeds of fold {fold}, but list different "
                    f"queries: {len(odd)} stand in one only, such as {min(odd)!r}"
                )
    each = pd.concat(parts, ignore_index=True).groupby(QUERY, sort=True)
    table = each["value"].agg(["mean", "size"]).rename(columns={"mean": "value", "size": "runs"})
    table = table.assign(group=each["group"].first()).reset_index()[[*QUERY, "group", "value", "runs"]]
    twice = table[table.duplicated(["fingerprint", "case_id"])]
    if len(twice):
        raise ValueError(f"per_query_table: {len(twice)} cases are queries of two folds, such as {twice['case_id'].iloc[0]!r}")
    return table


# --- one comparison --------------------------------------------------------------------------------------------------


class Estimate(NamedTuple):
    """A value with the ends of its interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Two methods on the same queries (see `paired`).

    Attributes
    ----------
    mean_a, mean_b : mean over queries of the value averaged over seeds.
    difference : 100 (mean_a - mean_b), in points, with its interval.
    relative : 100 (mean_a / mean_b - 1), in per cent of b, with its interval; NaN where mean_b <= 0, since a share of nothing
        or of less has no meaning; its interval is NaN where that happens in any replicate.
    p : two-sided, sign-flip test by patient. ``exact`` says that all patterns of signs were tried.
    n_queries, n_patients : what was compared; ``n_dropped`` queries are undefined in a or in b.
    runs_a, runs_b : what lies behind, as sets of queries x trainings on each (`runs_text`).
    """

    mean_a: float
    mean_b: float
    difference: Estimate
    relative: Estimate
    p: float
    exact: bool
    n_queries: int
    n_patients: int
    n_dropped: int
    runs_a: str
    runs_b: str


def paired(a: pd.DataFrame, b: pd.DataFrame, groups, *, n: int = 10_000, seed: int = 0, alpha: float = 0.05) -> Paired:
    """Compare method ``a`` with method ``b``, query by query, with patients as the sample.

    With ``d_p`` the sum of a - b over the queries of patient p, and Q queries, the statistic is ``T = sum_p d_p / Q``.
    Interval: in each of ``n`` replicates as many patients as there are, drawn with replacement, give new means (sums over
    their queries by their number of queries), hence a new difference and a new ratio; quantiles alpha / 2 and 1 - alpha / 2.
    p: among ``n`` random patterns of signs s_p = +-1, ``(1 + #{|sum_p s_p d_p| >= |sum_p d_p|}) / (1 + n)``; where at most
    ``n`` patterns exist (patients with d_p = 0 need no sign) all are tried, and p is their share, the observed one included.

    Parameters
    ----------
    a, b : tables of `per_query_table`, one row per query. A table of one's own needs ``case_id`` and ``value`` (in shares: 1 is
        100 points); ``fingerprint``, ``fold`` and ``runs`` may be left out. Order is free. NaN in either drops the query in both.
    groups : the patient of each case: a table with columns ``case_id`` and ``group``, or a mapping from case_id.
    n : replicates and permutations. seed : the same seed gives the same bits. alpha : 0.05 for intervals of 95 %.

    A single patient has no spread between patients: its intervals are NaN and p is 1. Without any difference p is 1.

    Raises ``ValueError`` where a and b are not the same queries of the same folds and data, a case has no patient, or no query is
    defined in both.
    """
    _check(n, alpha)
    a, b = _one_per_query(a, "a"), _one_per_query(b, "b")
    _same_queries(a, b)
    both = a[QUERY].assign(group=_group_of(a["case_id"], groups), a=a["value"].to_numpy(), b=b["value"].to_numpy())
    kept = both.dropna(subset=["a", "b"])
    if kept.empty:
        raise ValueError(f"paired: none of the {len(both)} queries has a value in both methods")
    sums = _sums_by_patient(kept, ["a", "b"])
    total_a, total_b, queries = sums.sum(0)
    again = _resampled(sums, n, seed)
    p, exact = _sign_flip(sums[:, 0] - sums[:, 1], n, seed)
    return Paired(
        mean_a=float(total_a / queries),
        mean_b=float(total_b / queries),
        difference=_estimate(100 * (total_a - total_b) / queries, 100 * (again[:, 0] - again[:, 1]) / again[:, 2], alpha),
        relative=_estimate(_percent(total_a, total_b), _percent(again[:, 0], again[:, 1]), alpha),
        p=p,
        exact=exact,
        n_queries=len(kept),
        n_patients=len(sums),
        n_dropped=len(both) - len(kept),
        runs_a=runs_text(a),
        runs_b=runs_text(b),
    )


def bootstrap_mean(values: pd.DataFrame, groups, *, n: int = 10_000, seed: int = 0, alpha: float = 0.05) -> Estimate:
    """The mean of one method over queries, in shares, with its interval by patient; arguments as in `paired`.

    Undefined queries are left out. Intervals of two methods may overlap although the methods differ: to compare, pair them.
    A single patient has a mean and a NaN interval. Raises ``ValueError`` where no query has a value.
    """
    _check(n, alpha)
    table = _one_per_query(values, "values")
    kept = table.assign(group=_group_of(table["case_id"], groups)).dropna(subset=["value"])
    if kept.empty:
        raise ValueError(f"bootstrap_mean: none of the {len(table)} queries has a value")
    sums = _sums_by_patient(kept, ["value"])
    total, queries = sums.sum(0)
    again = _resampled(sums, n, seed)
    return _estimate(total / queries, again[:, 0] / again[:, 1], alpha)


def _check(n, alpha) -> None:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"n must be a whole number of at least 1, got {n!r}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha!r}")


def _one_per_query(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """The table with all its columns, in the order of queries."""
    missing = {"case_id", "value"} - set(table)
    if missing:
        raise ValueError(f"{what}: missing column(s) {sorted(missing)}; found {list(table.columns)}")
    defaults = {"fingerprint": "", "fold": 1, "runs": 1}
    full = table.assign(**{key: value for key, value in defaults.items() if key not in table})
    full = full.assign(case_id=full["case_id"].astype(str), value=full["value"].astype(np.float64))
    # a sorted table makes the result the same to the last bit for any order of the rows
    full = full[[*QUERY, "value", "runs"]].sort_values(QUERY, ignore_index=True)
    twice = full.loc[full.duplicated(["fingerprint", "case_id"]), "case_id"]
    if len(twice):
        raise ValueError(f"{what}: {len(twice)} queries have several values, such as {twice.iloc[0]!r}; average the seeds first")
    if np.isinf(full["value"]).any():
        raise ValueError(f"{what}: infinite value of {full.loc[np.isinf(full['value']), 'case_id'].iloc[0]!r}")
    return full


def _same_queries(a: pd.DataFrame, b: pd.DataFrame) -> None:
    for column, meaning in (("fingerprint", "versions of the data (fingerprint)"), ("fold", "folds")):
        in_a, in_b = (sorted(table[column].unique().tolist()) for table in (a, b))
        if in_a != in_b:
            raise ValueError(f"a and b are from different {meaning}: {in_a} and {in_b}; compare on the same")
    in_a, in_b = (set(table[QUERY].itertuples(index=False, name=None)) for table in (a, b))
    only_a, only_b = sorted(in_a - in_b), sorted(in_b - in_a)
    if only_a or only_b:
        _, fold, case = (only_a or only_b)[0]
        raise ValueError(
            f"a and b must answer the same queries: {len(only_a)} stand in a only, {len(only_b)} in b only, "
            f"such as {case!r} of fold {fold}"
        )


def _group_of(case_ids: pd.Series, groups) -> np.ndarray:
    """The patient of each case, as str."""
    if isinstance(groups, pd.DataFrame):
        missing = {"case_id", "group"} - set(groups)
        if missing:
            raise ValueError(f"groups: missing column(s) {sorted(missing)}; found {list(groups.columns)}")
        pairs = zip(groups["case_id"], groups["group"], strict=True)
    elif isinstance(groups, (Mapping, pd.Series)):
        pairs = groups.items()
    else:
        raise ValueError(f"groups: must be a table with case_id and group, or a mapping, got {type(groups).__name__}")
    known: dict[str, str] = {}
    for case, group in pairs:
        if not pd.isna(group) and known.setdefault(str(case), str(group)) != str(group):
            raise ValueError(f"groups: case {str(case)!r} has two patients, {known[str(case)]!r} and {str(group)!r}")
    odd = [case for case in case_ids if case not in known]
    if odd:
        raise ValueError(f"groups: no patient for {len(odd)} of {len(case_ids)} queries, such as {odd[0]!r}")
    return np.array([known[case] for case in case_ids], dtype=object)


def _sums_by_patient(table: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """float64 (P, columns + 1): the sum of each column over the queries of a patient, then their number."""
    # two draws of a set may name different patients alike
    patient = table.groupby(["fingerprint", "group"], sort=True).ngroup().to_numpy()
    sums = [np.bincount(patient, weights=table[column].to_numpy()) for column in columns]
    return np.stack([*sums, np.bincount(patient).astype(np.float64)], axis=1)


def _resampled(sums: np.ndarray, n: int, seed: int) -> np.ndarray:
    """float64 (n, columns): column sums over P patients drawn with replacement, ``n`` times; NaN for a single patient."""
    count = len(sums)
    if count == 1:
        return np.full((n, sums.shape[1]), np.nan)
    rng = np.random.default_rng([seed, 0])
    step = max(1, _CHUNK // count)
    out = np.empty((n, sums.shape[1]))
    for start in range(0, n, step):
        rows = min(step, n - start)
        drawn = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)  # how often each patient was drawn
        out[start : start + rows] = times.astype(np.float64) @ sums
    return out


def _sign_flip(differences: np.ndarray, n: int, seed: int) -> tuple[float, bool]:
    """(two-sided p, whether exact) of the sum of ``differences``, float64 (P,), when each sign may be flipped."""
    moving = differences[differences != 0]
    total, size = moving.sum(), np.abs(moving).sum()
    least = abs(total) - _ROUNDING * size
    if len(moving) < int(n).bit_length():  # 2^len <= n
        flipped = np.arange(1 << len(moving))[:, None] >> np.arange(len(moving)) & 1
        return float(np.mean(np.abs(total - 2 * (flipped @ moving)) >= least)), True
    rng = np.random.default_rng([seed, 1])
    step = max(1, _CHUNK // len(moving))
    count = 0
    for start in range(0, n, step):
        flipped = rng.integers(0, 2, (min(step, n - start), len(moving)), dtype=np.int8)
        count += int((np.abs(total - 2 * (flipped.astype(np.float64) @ moving)) >= least).sum())
    return (1 + count) / (1 + n), False


def _percent(a, b):
    """100 (a / b - 1); NaN where b <= 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return 100 * (np.divide(a, b, out=np.full(b.shape, np.nan), where=b > 0) - 1)


def _estimate(value, replicates: np.ndarray, alpha: float) -> Estimate:
    """Percentile interval; NaN ends where a replicate (or the value itself) is undefined."""
    if np.isnan(value) or np.isnan(replicates).any():
        return Estimate(float(value), np.nan, np.nan)
    low, high = np.quantile(replicates, [alpha / 2, 1 - alpha / 2])
    return Estimate(float(value), float(low), float(high))


# --- several comparisons ---------------------------------------------------------------------------------------------


def holm(p_values) -> np.ndarray:
    """Holm's adjusted p values, in the order given.

    With m values sorted, ``adjusted_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))`` (Holm 1979): rejecting where it is at most
    alpha keeps the chance of any false rejection at most alpha, whatever the dependence. Equal values are adjusted alike. NaN (no
    test) stays NaN and does not count in m. Nothing in, nothing out. Raises ``ValueError`` outside [0, 1].
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1:
        raise ValueError(f"holm: needs a list of p values, got shape {p.shape}")
    tested = np.flatnonzero(~np.isnan(p))
    wrong = tested[(p[tested] < 0) | (p[tested] > 1)]
    if len(wrong):
        raise ValueError(f"holm: p value {p[wrong[0]]} at place {wrong[0]}; p values lie between 0 and 1")
    out = np.full(len(p), np.nan)
    order = tested[np.argsort(p[tested], kind="stable")]
    out[order] = np.maximum.accumulate(np.minimum(1, np.arange(len(order), 0, -1) * p[order]))
    return out


def compare_methods(
    ours: str,
    rivals: Sequence[str],
    dataset: str,
    preset: str,
    folds: Iterable[int] | None = None,
    metric: str = "map",
    k: int = 10,
    *,
    variant: str = "",
    seeds: Iterable[int] | None = None,
    groups=None,
    without: Iterable[str] = (),
    runs: pd.DataFrame | None = None,
    folder: str | Path | None = None,
    n: int = 10_000,
    seed: int = 0,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """``ours`` against each rival, one row per rival, the best rival first (equal ones by name).

    Columns: ``method, mean_ours, mean_rival`` (shares); ``points, points_low, points_high``; ``percent, percent_low,
    percent_high`` (of the rival); ``p, p_holm`` (the family is this table); ``p_least`` (no permutation came as far, so that p is
    the least that ``n`` of them can show and the true one may be smaller); ``queries, patients``; ``runs_ours, runs_rival``
    (`runs_text`). Intervals are each at level 1 - alpha, not adjusted for the number of rivals.

    ``folds`` and ``seeds``: None = all there are; folds must be the same for all methods, seeds may differ in number.
    ``groups``: see `paired`; None = the patients kept with the values. ``without``: ids of cases not counted as queries.
    ``runs``: rows to choose from (default: those in ``folder``, default: the committed results). A rival whose configuration
    equals ours is the
    same training under another name: difference 0, p 1; it still counts in the family, so leave it out.

    Raises ``ValueError`` as `find_runs`, `per_query_table` and `paired` do, and for rivals that are no list of other methods.
    """
    if isinstance(rivals, str) or not len(rivals) or len(set(rivals)) < len(rivals) or ours in rivals:
        raise ValueError(f"compare_methods: rivals must be a list of methods, each once and without {ours!r}; got {rivals!r}")
    folds, seeds = (None if values is None else list(values) for values in (folds, seeds))
    without = set(without)
    if runs is None:
        runs = rows() if folder is None else read_runs(folder)

    def table(method: str) -> pd.DataFrame:
        found = per_query_table(find_runs(runs, dataset, preset, method, variant, folds, seeds), metric, k, folder)
        return found[~found["case_id"].isin(without)]

    own = table(ours)
    groups = own if groups is None else groups
    lines = []
    for rival in rivals:
        other = table(rival)
        try:
            found = paired(own, other, groups, n=n, seed=seed, alpha=alpha)
        except ValueError as error:
            raise ValueError(f"compare_methods: a = {ours}, b = {rival}: {error}") from error
        lines.append(
            {
                "method": rival,
                "mean_ours": found.mean_a,
                "mean_rival": found.mean_b,
                **dict(zip(("points", "points_low", "points_high"), found.difference, strict=True)),
                **dict(zip(("percent", "percent_low", "percent_high"), found.relative, strict=True)),
                "p": found.p,
                "p_holm": np.nan,
                "p_least": not found.exact and found.p == 1 / (1 + n),
                "queries": found.n_queries,
                "patients": found.n_patients,
                "runs_ours": found.runs_a,
                "runs_rival": found.runs_b,
            }
        )
    result = pd.DataFrame(lines)
    result["p_holm"] = holm(result["p"])
    return result.sort_values(["mean_rival", "method"], ascending=[False, True], ignore_index=True)


# --- text ------------------------------------------------------------------------------------------------------------


def runs_text(table: pd.DataFrame) -> str:
    """``5 x 3``: sets of queries (folds; of a set drawn per seed, its draws) x trainings on each; ``5 x 1-3`` if unequal."""
    each = _one_per_query(table, "runs_text")
    least, most = each["runs"].min(), each["runs"].max()
    sets = len(each[["fingerprint", "fold"]].drop_duplicates())
    return f"{sets} x {least}" if least == most else f"{sets} x {least}-{most}"


def interval_text(value: float, low: float, high: float, *, digits: int = 1, signed: bool = True) -> str:
    """``+7.2 [5.1, 9.4]``: points or per cent with their interval; no brackets without an interval, a dash without a value.

    What rounds to zero has no sign. ``interval_text(*estimate)`` takes an `Estimate`.
    """
    if np.isnan(value):
        return "-"
    text = _fixed(value, digits, signed)
    return text if np.isnan(low) or np.isnan(high) else f"{text} [{_fixed(low, digits)}, {_fixed(high, digits)}]"


def share_text(value: float, low: float, high: float, *, digits: int = 3) -> str:
    """``.765 [.741, .789]``: a share with its interval, written as the tables write shares; otherwise as `interval_text`."""
    return re.sub(r"(?<!\d)0\.", ".", interval_text(value, low, high, digits=digits, signed=False))


def p_text(p: float, least: bool = False) -> str:
    """``.034``; ``< .001`` below that; ``≤ .034`` where it is the ``least`` that a test can show (``p_least`` of
    `compare_methods`); a dash for NaN. Raises ``ValueError`` outside [0, 1]."""
    if np.isnan(p):
        return "-"
    if not 0 <= p <= 1:
        raise ValueError(f"p_text: {p}; p values lie between 0 and 1")
    return "< .001" if p < 0.001 else ("≤ " if least else "") + _fixed(p, 3).removeprefix("0")


def _fixed(value: float, digits: int, signed: bool = False) -> str:
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text
