"""Paired comparison of retrieval methods: every query is answered by both, and patients, not queries, are the sample.

The seeds of a query are averaged first, which leaves one value per query and method; then

- **intervals** come from a bootstrap by patient: patients are drawn with replacement, each with all its queries, and the
  statistic is computed anew; percentile interval (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section
  3.8; Field and Welsh, JRSS B 69 (2007) 369-390);
- **p values** come from a sign-flip permutation test by patient: if the two methods are interchangeable, swapping them in all
  queries of a patient is as likely as not (Smucker, Allan, Carterette, CIKM 2007). The observed order counts as one of the
  permutations, so p is never 0 (Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39);
- several rivals are one family: **Holm's** correction (Holm, Scand. J. Statist. 6 (1979) 65-70).

These speak of **other patients, with these trained networks**. Two functions speak of other trainings too: `trainings_interval`
resamples them beside the patients, `corrected_t` takes folds as the sample. No Wilcoxon or sign test over five folds: the
smallest two-sided p of five pairs is 2 / 32 = .0625, whatever the methods do.

The mean here is over queries; `ynet_lite.paper.tables.retrieval_table` weights each run alike. With few patients (a dozen or
two) percentile intervals are too narrow.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from ..sets import drawn_per_seed
from .store import per_query

QUERY = ["fingerprint", "fold", "case_id"]  # what makes a query

_CHUNK = 1 << 20  # numbers of one block of replicates: fixed, since the order of sums must not depend on the machine

_ROUNDING = 1e-9  # relative: two statistics this close are a tie, not a difference


# --- values per query ------------------------------------------------------------------------------------------------


def per_run_table(runs: pd.DataFrame, metric: str = "map", folder: str | Path | None = None) -> pd.DataFrame:
    """Values per query of the trainings of one method: columns run_id, fingerprint, fold, case_id, group, value.

    ``runs``: the method's rows (`store.rows`), of one set and configuration; values from what runners left under ``folder``
    (default: the committed results). Raises ``ValueError``: no rows; rows of several sets, methods, variants or configurations,
    or of several versions of a real set; a run without this metric; seeds of one fold that list different queries; a case twice.
    """
    about = runs.drop_duplicates("run_id").sort_values(["fold", "seed", "run_id"]).set_index("run_id")
    if about.empty:
        raise ValueError("values per query: no run was given")
    for column in ("dataset", "method", "variant", "config_hash", "fingerprint"):
        found = sorted(about[column].unique())
        if len(found) > 1 and not (column == "fingerprint" and about["dataset"].iloc[0] in drawn_per_seed()):
            raise ValueError(f"values per query: runs differ in {column} ({', '.join(found)}); give the runs of one")
    values = per_query(about.index, metric, None, folder)
    lacking = about.index.difference(values["run_id"])
    if len(lacking):
        raise ValueError(f"values per query: run {lacking[0]!r} has no {metric} of its queries")
    table = values.join(about[["fingerprint", "fold"]], on="run_id")[["run_id", *QUERY, "group", "value"]]
    of_case = table.groupby(["fingerprint", "case_id"])
    twice = table.loc[(of_case["fold"].transform("nunique") > 1) | table.duplicated(["run_id", "case_id"]), "case_id"]
    if len(twice):
        raise ValueError(
            f"values per query: {twice.nunique()} cases stand twice in a run or in two folds, such as {min(twice)!r}"
        )
    in_runs = of_case["run_id"].transform("size")
    odd = table[in_runs < table.groupby(["fingerprint", "fold"])["run_id"].transform("nunique")]
    if len(odd):
        raise ValueError(
            f"values per query: seeds of fold {odd['fold'].iloc[0]} list different queries: {odd['case_id'].nunique()} are not "
            f"in all of them, such as {min(odd['case_id'])!r}"
        )
    return table


def per_query_table(runs: pd.DataFrame, metric: str = "map", folder: str | Path | None = None) -> pd.DataFrame:
    """One value per query of one method, the mean over its trainings; arguments and errors as `per_run_table`.

    Columns ``fingerprint, fold, case_id, group, value, runs``, sorted by the first three; ``runs``: trainings on that fold. A
    seed in which the value is undefined (no relevant case) is left out of that query's mean; undefined in all seeds is NaN.
    On a set that is drawn anew for each seed (the phantom) another seed means other queries: the fingerprint keeps them apart.
    """
    each = per_run_table(runs, metric, folder).groupby(QUERY, sort=True)
    return each.agg(group=("group", "first"), value=("value", "mean"), runs=("value", "size")).reset_index()


# --- one comparison --------------------------------------------------------------------------------------------------


class Estimate(NamedTuple):
    """A value with the ends of its interval; NaN where there is none."""

    value: float
    low: float
    high: float


class Paired(NamedTuple):
    """Two methods on the same queries (see `paired`).

    ``relative`` is NaN where mean_b <= 0, its interval where that happens in a replicate.
    """

    mean_a: float  # over queries, of the value averaged over seeds
    mean_b: float
    difference: Estimate  # 100 (mean_a - mean_b), in points
    relative: Estimate  # 100 (mean_a / mean_b - 1), in per cent of b
    p: float  # two-sided, sign-flip test by patient
    exact: bool  # all patterns of signs were tried
    least: bool  # no random pattern came as far, so the true p may be smaller
    n_queries: int
    n_patients: int
    n_dropped: int  # queries that are undefined in a or in b
    runs_a: str  # sets of queries x trainings on each (`runs_text`)
    runs_b: str


def paired(a: pd.DataFrame, b: pd.DataFrame, groups, *, n: int = 10_000, seed: int = 0, alpha: float = 0.05) -> Paired:
    """Compare method ``a`` with method ``b``, query by query, with patients as the sample.

    With ``d_p`` the sum of a - b over the queries of patient p, and Q queries, the statistic is ``T = sum_p d_p / Q``.
    Interval: ``n`` replicates of as many patients as there are, drawn with replacement; quantiles alpha / 2 and 1 - alpha / 2.
    p: among ``n`` random patterns of signs s_p = +-1, ``(1 + #{|sum_p s_p d_p| >= |sum_p d_p|}) / (1 + n)``; where at most
    ``n`` patterns exist (patients with d_p = 0 need no sign) all are tried, and p is their share, the observed one included.

    a, b : tables of `per_query_table`, one row per query. A table of one's own needs ``case_id`` and ``value`` (in shares: 1 is
        100 points); ``fingerprint``, ``fold`` and ``runs`` may be left out. Order is free. NaN in either drops the query in both.
    groups : the patient of each case: a table with columns ``case_id`` and ``group``, or a mapping from case_id.
    n : replicates and permutations. seed : the same seed gives the same bits. alpha : 0.05 for intervals of 95 %.

    A single patient has no spread between patients: its intervals are NaN and p is 1. Without any difference p is 1.

    Raises ``ValueError`` where a and b are not the same queries of the same folds and data, a case has no patient, or no query is
    defined in both.
    """
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
        least=not exact and p == 1 / (1 + n),
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
    against_nothing = paired(values, values.assign(value=0.0), groups, n=n, seed=seed, alpha=alpha)
    return Estimate(*(end / 100 for end in against_nothing.difference))


def _one_per_query(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """The table with all its columns, in the order of queries."""
    _has(table, what, "value")
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


def _has(table: pd.DataFrame, what: str, column: str) -> None:
    missing = {"case_id", column} - set(table)
    if missing:
        raise ValueError(f"{what}: missing column(s) {sorted(missing)}; found {list(table.columns)}")


def _same_queries(a: pd.DataFrame, b: pd.DataFrame) -> None:
    if a[QUERY].equals(b[QUERY]):
        return
    in_a, in_b = (set(table[QUERY].itertuples(index=False, name=None)) for table in (a, b))
    only_a, only_b = sorted(in_a - in_b), sorted(in_b - in_a)
    if only_a or only_b:
        data, fold, case = (only_a or only_b)[0]
        raise ValueError(
            f"a and b must answer the same queries of the same folds and data: {len(only_a)} stand in a only, {len(only_b)} in b "
            f"only, such as {case!r} of fold {fold}" + (f" (data {data})" if data else "")
        )


def _group_of(case_ids: pd.Series, groups) -> pd.Series:
    """The patient of each case, as str. ``groups``: as in `paired`."""
    if not isinstance(groups, pd.DataFrame):
        groups = pd.Series(groups, name="group").rename_axis("case_id").reset_index()
    _has(groups, "groups", "group")
    known = groups[["case_id", "group"]].dropna().astype(str).drop_duplicates().set_index("case_id")["group"]
    twice = known.index[known.index.duplicated()]
    if len(twice):
        raise ValueError(f"groups: case {twice[0]!r} has two patients, {' and '.join(map(repr, known[twice[0]]))}")
    odd = case_ids[~case_ids.isin(known.index)]
    if len(odd):
        raise ValueError(f"groups: no patient for {len(odd)} of {len(case_ids)} queries, such as {odd.iloc[0]!r}")
    return case_ids.map(known)


def _sums_by_patient(table: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """float64 (P, columns + 1): the sum of each column over the queries of a patient, then their number."""
    # two draws of a set may name different patients alike
    patient = table.groupby(["fingerprint", "group"], sort=True).ngroup().to_numpy()
    sums = [np.bincount(patient, weights=table[column].to_numpy()) for column in columns]
    return np.stack([*sums, np.bincount(patient).astype(np.float64)], axis=1)


def _resampled(sums: np.ndarray, n: int, seed: int) -> np.ndarray:
    """float64 (n, columns): column sums over P patients drawn with replacement, ``n`` times; NaN for a single patient."""
    if len(sums) == 1:
        return np.full((n, sums.shape[1]), np.nan)
    drawn = _drawn(len(sums), tuple(_blocks(n, len(sums))), seed)
    return np.concatenate([times.astype(np.float64) @ sums for times in drawn])


@lru_cache(maxsize=4)
def _drawn(count: int, blocks: tuple[int, ...], seed: int) -> list[np.ndarray]:
    """How often each of ``count`` patients is drawn in each replicate, uint16 (rows, count) for each block of rows.

    Every pair of methods on the same patients is resampled by the same draws."""
    rng, out = np.random.default_rng([seed, 0]), []
    for rows in blocks:
        drawn = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        out.append(np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.uint16))
    return out


def _blocks(n: int, width: int) -> list[int]:
    """Rows of each block of ``n`` replicates of ``width`` numbers."""
    step = max(1, _CHUNK // width)
    return [min(step, n - start) for start in range(0, n, step)]


def _sign_flip(differences: np.ndarray, n: int, seed: int) -> tuple[float, bool]:
    """(two-sided p, whether exact) of the sum of ``differences``, float64 (P,), when each sign may be flipped."""
    moving = differences[differences != 0]
    total, size = moving.sum(), np.abs(moving).sum()
    least = abs(total) - _ROUNDING * size
    if len(moving) < int(n).bit_length():  # 2^len <= n
        flipped = np.arange(1 << len(moving))[:, None] >> np.arange(len(moving)) & 1
        return float(np.mean(np.abs(total - 2 * (flipped @ moving)) >= least)), True
    rng = np.random.default_rng([seed, 1])
    count = 0
    for rows in _blocks(n, len(moving)):
        flipped = rng.integers(0, 2, (rows, len(moving)), dtype=np.int8)
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


# --- other trainings -------------------------------------------------------------------------------------------------


def trainings_interval(a: pd.DataFrame, b: pd.DataFrame, *, n: int = 10_000, seed: int = 0, alpha: float = 0.05) -> Estimate:
    """``100 (mean_a - mean_b)``, in points, with an interval for other patients *and* other trainings.

    In each of ``n`` replicates, within each fold, patients are drawn with replacement, each with all its queries, and,
    independently, trainings of a and of b, as many as were run there: every training answers every query of its fold (Owen, The
    pigeonhole bootstrap, Ann. Appl. Stat. 1 (2007) 386-411). A query's value is the mean over the drawn trainings, the statistic
    is taken over the drawn queries of all folds. Of the variance between S trainings a bootstrap sees (S - 1) / S: with three
    seeds the interval is still a little narrow, with one it says nothing of trainings.

    a, b : `per_run_table` of each method. A query that is undefined in any training is left out. Raises ``ValueError`` where a
    and b are not the same queries, or none is left.
    """
    _same_queries(a.drop_duplicates(QUERY), b.drop_duplicates(QUERY))
    both, folds = pd.concat([a.assign(method=0), b.assign(method=1)]), []
    for _, fold in both.groupby(["fingerprint", "fold"]):
        values = fold.pivot(index=["group", "case_id"], columns=["method", "run_id"], values="value").dropna()
        if len(values):
            by_patient = values.groupby(level="group")
            folds.append((by_patient.size().to_numpy(np.float64), *(by_patient.sum()[method].to_numpy() for method in (0, 1))))
    total, again = np.zeros(3), np.zeros((n, 3))  # sums of a, sums of b, queries
    sizes = tuple((len(queries), *(runs.shape[1] for runs in pair)) for queries, *pair in folds)
    for (queries, *pair), (patients, *trainings) in zip(folds, _redrawn(sizes, n, seed), strict=True):
        patients = patients.astype(np.float64)
        for method, (runs, drawn) in enumerate(zip(pair, trainings, strict=True)):  # runs: (P, S)
            total[method] += runs.mean(axis=1).sum()
            again[:, method] += (patients @ runs * (drawn / runs.shape[1])).sum(axis=1)
        total[2] += queries.sum()
        again[:, 2] += patients @ queries
    if not total[2]:
        raise ValueError("trainings_interval: no query has a value in every training of both methods")
    return _estimate(100 * (total[0] - total[1]) / total[2], 100 * (again[:, 0] - again[:, 1]) / again[:, 2], alpha)


@lru_cache(maxsize=4)
def _redrawn(sizes: tuple[tuple[int, ...], ...], n: int, seed: int) -> list[list[np.ndarray]]:
    """How often each of ``count`` things is drawn in each replicate, uint16 (n, count), for every count of every fold.

    Methods with as many trainings on the same patients are resampled by the same draws."""
    rng = np.random.default_rng([seed, 2])
    return [[rng.multinomial(one, np.full(one, 1 / one), n).astype(np.uint16) for one in counts] for counts in sizes]


def corrected_t(a: pd.DataFrame, b: pd.DataFrame, ratio: float = 0.25) -> tuple[float, float]:
    """(t, two-sided p) of the corrected resampled t-test (Nadeau and Bengio, Machine Learning 52 (2003) 239-281).

    With ``d_j`` the mean of a - b over the queries of fold j of J, ``t = mean(d) / sqrt((1 / J + n_test / n_train) var(d))`` with
    J - 1 degrees of freedom; var with J - 1. Folds share training cases, so var / J alone is too small. The correction was
    derived for random splits; no unbiased estimate of the variance exists for cross-validation (Bengio and Grandvalet, JMLR 5
    (2004) 1089-1105).

    a, b : tables of `per_query_table`; NaN in either drops the query in both. ratio : n_test / n_train, 1/4 for five folds. Equal
    differences in all folds: t is infinite, p 0; no difference at all: t 0, p 1. Raises ``ValueError`` for fewer than two folds.
    """
    a, b = _one_per_query(a, "a"), _one_per_query(b, "b")
    _same_queries(a, b)
    folds = a.assign(value=a["value"] - b["value"]).groupby(["fingerprint", "fold"])["value"].mean().dropna().to_numpy()
    if len(folds) < 2 or not ratio > 0:
        raise ValueError(f"corrected_t: needs two folds and a ratio above 0, got {len(folds)} and {ratio!r}")
    mean, spread = folds.mean(), np.sqrt((1 / len(folds) + ratio) * folds.var(ddof=1))
    if spread <= _ROUNDING * abs(mean):
        return (float(np.copysign(np.inf, mean)), 0.0) if mean else (0.0, 1.0)
    return float(mean / spread), float(2 * scipy.stats.t.sf(abs(mean / spread), len(folds) - 1))


# --- several comparisons ---------------------------------------------------------------------------------------------


def holm(p_values) -> np.ndarray:
    """Holm's adjusted p values, in the order given: ``adjusted_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))`` of m sorted ones.

    NaN (no test) stays NaN and does not count in m. Raises ``ValueError`` outside [0, 1].
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
    runs: pd.DataFrame,
    metric: str = "map",
    *,
    without: Iterable[str] = (),
    folder: str | Path | None = None,
    n: int = 10_000,
) -> pd.DataFrame:
    """``ours`` against each rival, one row per rival, the best rival first (equal ones by name).

    ``runs``: rows of one table (`ynet_lite.paper.select`): all methods on the same folds, seeds may differ in number.
    ``without``: ids of cases not counted as queries. Columns: ``method, mean_ours, mean_rival`` (shares); ``points, points_low,
    points_high``; ``percent, percent_low, percent_high`` (of the rival); ``p, p_holm`` (the family is this table); ``p_least``
    (no permutation came as far, so the true p may be smaller); ``queries, patients``; ``runs_ours, runs_rival`` (`runs_text`).
    Intervals are each at level 95 %, not adjusted for the number of rivals. A rival whose configuration equals ours is the same
    training under another name: it would count in the family, so leave it out.

    Raises ``ValueError`` as `per_query_table` and `paired` do, and for rivals that are no list of other methods.
    """
    if isinstance(rivals, str) or not len(rivals) or len(set(rivals)) < len(rivals) or ours in rivals:
        raise ValueError(f"compare_methods: rivals must be a list of methods, each once and without {ours!r}; got {rivals!r}")
    values = {}
    for method in (ours, *rivals):
        found = per_query_table(runs[runs["method"] == method], metric, folder)
        values[method] = found[~found["case_id"].isin(set(without))]
    lines = []
    for rival in rivals:
        try:
            found = paired(values[ours], values[rival], values[ours], n=n)
        except ValueError as error:
            raise ValueError(f"compare_methods: a = {ours}, b = {rival}: {error}") from error
        line = {"method": rival, "mean_ours": found.mean_a, "mean_rival": found.mean_b}
        line |= zip(("points", "points_low", "points_high"), found.difference, strict=True)
        line |= zip(("percent", "percent_low", "percent_high"), found.relative, strict=True)
        line |= {"p": found.p, "p_holm": np.nan, "p_least": found.least}
        line |= {"queries": found.n_queries, "patients": found.n_patients}
        lines.append(line | {"runs_ours": found.runs_a, "runs_rival": found.runs_b})
    result = pd.DataFrame(lines)
    result["p_holm"] = holm(result["p"])
    return result.sort_values(["mean_rival", "method"], ascending=[False, True], ignore_index=True)


# --- text ------------------------------------------------------------------------------------------------------------


def runs_text(table: pd.DataFrame) -> str:
    """``5 x 3``: sets of queries (folds; of a set drawn per seed, its draws) x trainings on each; ``5 x 1-3`` if unequal."""
    least, most = table["runs"].min(), table["runs"].max()
    sets = len(table[["fingerprint", "fold"]].drop_duplicates())
    return f"{sets} x {least}" if least == most else f"{sets} x {least}-{most}"


def interval_text(value: float, low: float, high: float, *, digits: int = 1, signed: bool = True) -> str:
    """``+7.2 [5.1, 9.4]``: points or per cent with their interval; no brackets without an interval, a dash without a value.

    What rounds to zero has no sign. ``interval_text(*estimate)`` takes an `Estimate`.
    """
    if np.isnan(value):
        return "-"
    text = _fixed(value, digits, signed)
    return text if np.isnan(low) or np.isnan(high) else f"{text} [{_fixed(low, digits)}, {_fixed(high, digits)}]"


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
