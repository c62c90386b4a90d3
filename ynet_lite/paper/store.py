"""Result rows: runners write one file per run into ``out/``, `pack` folds finished runs into a few committed tables.

Committed tables lie in ``data/results/<edition>``, of a later edition in a folder per grid. In each such folder:

- ``runs.csv``: who made a run; ``scores.csv``: its scores, a column per ``metric@k``; ``configs.json``: configurations by hash;
- ``values-<set>.csv.gz``: a line per run and query, with the patient (``group``) and a column per ``metric@k``;
- ``codes-<set>.npz``: packed codes; ``ambiguity/``: the same tables of the study of ambiguity; ``tuning/``: trials.

In wide tables an empty cell is a value that was not computed, and the column ``undefined`` names those that have none (NaN).
``python -m ynet_lite.paper.store pack --edition second --grid headline`` adds runs, ``... verify`` checks what is committed.
"""

import argparse
import datetime
import gzip
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from .. import paths
from ..config import UNHASHED, Config
from ..hashing import Codes
from ..paths import write_csv
from ..provenance import commit, device_name, run_id, versions
from .grids import GRIDS, grid

COLUMNS = (
    "run_id config_hash dataset fingerprint fold seed preset encoder method variant bits metric k value "
    "seconds device versions commit dirty date"
).split()

#: Values that are kept of each query (k = 10): what tests by patient need.
PER_QUERY_METRICS = ("map", "map_hits", "precision", "ndcg", "mask_agreement", "accuracy", "dice")

SIDES = ("queries", "database")

MOST_BYTES = 1_500_000  # of a committed file: a larger table is split by fold

#: Columns that are text, even where all of it is digits.
TEXT = {name: str for name in "variant commit config_hash fingerprint case_id group undefined".split()}
_VALUE = ["run_id", "case_id", "group"]  # what a line of values belongs to


def _kept(read: Callable) -> Callable:
    """``read``, which opens a file again only when it has changed."""
    known = cache(lambda path, changed: read(path))
    return lambda path: known(path, path.stat().st_mtime_ns)


# --- one run ---------------------------------------------------------------------------------------------------------


def run_rows(cfg: Config, fingerprint: str, values: pd.DataFrame, seconds: float, made_by: tuple[str, bool] | None = None):
    """Result rows of one run from ``values`` (columns metric, k, value). ``made_by``: `commit` of the code that trained."""
    name, dirty = made_by or commit()
    about = {
        "run_id": run_id(cfg, fingerprint),
        "config_hash": cfg.hash(),
        "fingerprint": fingerprint[:16],
        **{key: getattr(cfg, key) for key in "dataset fold seed preset encoder method variant bits".split()},
        "seconds": seconds,
        "device": device_name(cfg),
        "versions": versions(),
        "commit": name,
        "dirty": dirty,
        "date": datetime.date.today().isoformat(),
    }
    return values[["metric", "k", "value"]].assign(**about)[COLUMNS]


def write_run(
    cfg: Config, fingerprint: str, values: pd.DataFrame, per_query: pd.DataFrame, seconds: float, folder=None, made_by=None
) -> Path:
    """Write the rows of a run to ``folder/runs`` and its per-query values (k = 10) to ``folder/per_query``."""
    folder = Path(folder) if folder else paths.out() / "results"
    kept = per_query[per_query["metric"].isin(PER_QUERY_METRICS) & per_query["k"].isin([0, 10])]
    write_csv(kept, folder / "per_query" / f"{run_id(cfg, fingerprint)}.csv")
    config = folder / "configs" / f"{cfg.hash()}.json"
    if not config.is_file():
        # what the hash leaves out is left at its default: runs of several names may share the file
        neutral = cfg.but(**{f.name: f.default for f in fields(Config) if f.name in UNHASHED})
        paths.write_text(config, neutral.to_json() + "\n")
    return write_csv(run_rows(cfg, fingerprint, values, seconds, made_by), folder / "runs" / f"{run_id(cfg, fingerprint)}.csv")


def read_run(path: str | Path) -> pd.DataFrame:
    """The rows of one run file. Raises ``ValueError`` for a file that lacks a column or is damaged."""
    try:
        table = _about(path)
        missing = [column for column in COLUMNS if column not in table]
        if missing:
            raise ValueError(f"columns {missing} are missing; a run file has {COLUMNS}")
        return table[COLUMNS].astype({"fold": int, "seed": int, "bits": int, "k": int, "value": float})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not the rows of a run ({error}); delete it and do the run again") from error


def _about(path: str | Path) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=TEXT).fillna({"variant": ""})
    return table if "encoder" in table else table.assign(encoder="small")  # rows from before there was a choice


# --- what is committed -----------------------------------------------------------------------------------------------


def committed(pattern: str, edition: str | None = None, part: str = "") -> list[Path]:
    """Committed tables whose name matches, of one edition or of all; ``part``: "" or "ambiguity".

    Raises ``FileNotFoundError`` where the folder of results is absent, as in an installed package.
    """
    base = paths.results()
    if not base.is_dir():
        raise FileNotFoundError(f"no folder {base}: result rows are part of the checkout, not of the installed package")
    editions = [base / edition] if edition else sorted(path for path in base.iterdir() if path.is_dir())
    found = (path for folder in editions for path in sorted(folder.rglob(pattern)) if not path.name.startswith("."))
    return [path for path in found if (path.parent.name == "ambiguity") == (part == "ambiguity")]


def rows(edition: str | None = None, encoder: str | None = None, part: str = "") -> pd.DataFrame:
    """Committed result rows, one per value, columns `COLUMNS`: of one edition and encoder, or of all; by edition, grid, run.

    ``part="ambiguity"``: rows of the study of ambiguity. What counts in a table is chosen in `ynet_lite.paper.select`.
    """
    found = _joined([_rows(path) for path in committed("runs.csv", edition, part)], COLUMNS)
    return found if encoder is None else found[found["encoder"] == encoder].reset_index(drop=True)


def _joined(tables: list[pd.DataFrame], columns: list[str] | None = None) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


@_kept
def _rows(path: Path) -> pd.DataFrame:
    scores = pd.read_csv(path.with_name("scores.csv"), dtype=TEXT)
    return _long(scores, ["run_id"]).merge(_about(path), on="run_id", how="left")[COLUMNS]


def read_runs(folder: str | Path) -> pd.DataFrame:
    """All result rows that runners left under ``folder/runs``, in a fixed order."""
    return _joined([read_run(path) for path in paths.listed(Path(folder) / "runs")], COLUMNS)


def per_query(
    runs: Iterable[str] | None = None, metric: str | None = None, k: int | None = None, folder=None, part: str = ""
) -> pd.DataFrame:
    """Values per query: columns run_id, case_id, group (the patient), metric, k, value; NaN where undefined.

    ``runs``: ids, None = all; ``metric``, ``k``: None = all. From the committed tables, or from what runners left under
    ``folder``. Raises ``ValueError`` for a run that has no values.
    """
    if folder:
        known = {path.stem: path for path in paths.listed(Path(folder) / "per_query")}
    else:
        known = _values(part)
    runs = list(known) if runs is None else list(runs)
    unknown = [run for run in runs if run not in known]
    if unknown:
        raise ValueError(f"per_query: no values per query of run {unknown[0]!r} in {folder or paths.results()}")
    if not folder and runs:
        return _long(_joined([known[run] for run in runs]), _VALUE, metric, k)
    found = [pd.read_csv(known[run], dtype=TEXT).assign(run_id=run) for run in runs]
    table = _joined(found).reindex(columns=[*_VALUE, "metric", "k", "value"])
    kept = (table["metric"] == (metric or table["metric"])) & (table["k"] == (table["k"] if k is None else k))
    return table[kept].reset_index(drop=True)


def _values(part: str) -> dict[str, pd.DataFrame]:
    """Lines of the wide tables by run."""
    return {run: lines for path in committed("values-*.csv.gz", None, part) for run, lines in _lines(path).items()}


@_kept
def _lines(path: Path) -> dict[str, pd.DataFrame]:
    table = pd.read_csv(path, dtype=TEXT)
    return dict(tuple(table.groupby("run_id", sort=False)))


def configs() -> dict[str, Config]:
    """The committed configuration behind each hash."""
    return {name: cfg for path in committed("configs.json") for name, cfg in _configs(path).items()}


@_kept
def _configs(path: Path) -> dict[str, Config]:
    return {name: Config.from_json(json.dumps(settings)) for name, settings in json.loads(path.read_text()).items()}


def codes(run: str, folder: str | Path | None = None) -> dict[str, Codes] | None:
    """Codes of a run, {"queries", "database"}: committed, or left by a runner under ``folder``; None where none were kept."""
    if folder:
        files = {side: Path(folder) / "codes" / f"{run}.{side}.npz" for side in SIDES}
        return {side: Codes.load(path) for side, path in files.items()} if all(p.is_file() for p in files.values()) else None
    for path in committed("codes-*.npz"):
        if run in _coded(path):
            with np.load(path) as stored:
                return _read_codes(stored, run)
    return None


@_kept
def _coded(path: Path) -> frozenset[str]:
    """Runs of a file of codes."""
    with np.load(path) as stored:
        return frozenset(name.rsplit(".", 1)[0] for name in stored.files if not name.startswith("cases"))


def _read_codes(stored, run: str) -> dict[str, Codes]:
    fold, found = run.rsplit("-", 2)[1], {}
    model = str(stored[f"{run}.model"]) if f"{run}.model" in stored.files else ""
    for side in SIDES:
        packed, at = stored[f"{run}.{side}"], stored[f"cases.{fold}.{side}"]
        found[side] = Codes(packed, stored["cases.ids"][at], stored["cases.labels"][at], 8 * packed.shape[1], model)
    return found


def small(name: str) -> pd.DataFrame:
    """A committed table of the first edition, such as "tuning/trials" or "ambiguity/levels"."""
    return pd.read_csv(paths.results() / "first" / f"{name}.csv", dtype=TEXT)


# --- what rows say -------------------------------------------------------------------------------------------------


def summary(
    table: pd.DataFrame, metrics: Iterable[tuple[str, int]], by=("dataset", "preset", "variant", "method")
) -> pd.DataFrame:
    """Mean, standard deviation (n - 1) and number of runs of each (metric, k), one row per combination of ``by``.

    Columns are ``(metric@k, "mean" | "sd" | "runs")``. A single run has no spread: its sd is NaN, shown as a dash.
    """
    out = {}
    for metric, k in metrics:
        grouped = table[(table["metric"] == metric) & (table["k"] == k)].groupby(list(by))["value"]
        name = f"{metric}@{k}" if k else metric
        out[(name, "mean")], out[(name, "sd")], out[(name, "runs")] = grouped.mean(), grouped.std(), grouped.count()
    return pd.DataFrame(out)


def seeds_averaged(runs: pd.DataFrame) -> pd.DataFrame:
    """One value per method, fold and number: the mean over the seeds that were run on the same queries.

    Without it a fold that was run three times would weigh three times as much as one that was run once. Where a seed makes other
    data (the phantom), nothing is averaged: the fingerprint tells them apart.
    """
    keys = ["dataset", "fingerprint", "config_hash", "preset", "method", "variant", "bits", "fold", "metric", "k"]
    return runs.groupby(keys, sort=False, as_index=False)["value"].mean()


def compare(committed: pd.DataFrame, yours: pd.DataFrame, tolerance: float = 0.08) -> pd.DataFrame:
    """*committed | yours | tolerance | same?* for every number of ``yours`` that was committed for the same run and data.

    ``same?`` is "identical" at the committed digits, "within" the tolerance, "differs", or "new". Other processors add in another
    order, and a training amplifies that: with AVX2 instead of AVX-512 kernels one short training moved by .006 and another by
    .035 in mAP@10. The default is about twice that.
    """
    keys = ["run_id", "fingerprint", "metric", "k"]
    both = yours[[*keys, "method", "value"]].rename(columns={"value": "yours"})
    both = both.merge(committed[[*keys, "value"]].rename(columns={"value": "committed"}), on=keys, how="left")
    gap = (both["yours"] - both["committed"]).abs()
    conditions = [both["committed"].isna(), gap <= 1e-5 * both["committed"].abs() + 1e-9, gap <= tolerance]
    verdict = np.select(conditions, ["new", "identical", "within"], "differs")
    return both[["method", "metric", "k", "committed", "yours"]].assign(**{"tolerance": tolerance, "same?": verdict})


# --- packing ---------------------------------------------------------------------------------------------------------


def _long(wide: pd.DataFrame, keys: list[str], metric: str | None = None, k: int | None = None) -> pd.DataFrame:
    """A wide table as ``keys``, metric, k, value, line by line in the order of its columns."""
    undefined = wide["undefined"].fillna("")
    flagged = undefined != ""
    run, out = pd.factorize(wide["run_id"])[0], []
    for name in wide.columns.drop([*keys, "undefined"]):
        m, at = name.rsplit("@", 1)
        if metric not in (None, m) or k not in (None, int(at)):
            continue
        there = wide[name].notna()
        there[flagged] |= np.array([name in names.split() for names in undefined[flagged]], bool)
        out.append(wide.loc[there, keys].assign(metric=m, k=int(at), value=wide.loc[there, name], place=run[there]))
    if not out:
        return pd.DataFrame(columns=[*keys, "metric", "k", "value"])
    table = pd.concat(out, ignore_index=True)
    return table.sort_values("place", kind="stable", ignore_index=True).drop(columns="place")


def _wide(long: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Text rows ``keys``, metric, k, value as one line per ``keys``. Columns in the order of the run that has most."""
    long = long.assign(name=long["metric"] + "@" + long["k"])
    if long.duplicated([*keys, "name"]).any():
        raise ValueError(f"pack: {long[long.duplicated([*keys, 'name'])].iloc[0].to_dict()} stands twice")
    per_run = long.drop_duplicates(["run_id", "name"])
    most = per_run.groupby("run_id")["name"].agg(list).sort_index().sort_values(key=lambda n: -n.str.len(), kind="stable")
    names = list(dict.fromkeys(name for found in most for name in found))
    table = long.pivot(index=keys, columns="name", values="value").reindex(columns=names)
    missing = table.eq("")
    table = table.fillna("").reset_index()
    flags = [" ".join(name for name, flag in zip(names, line, strict=True) if flag) for line in missing.to_numpy()]
    return table.assign(undefined=flags)


def _text(path: Path) -> pd.DataFrame:
    """A table with the digits as they stand."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _zipped(table: pd.DataFrame, runs: list[str]) -> bytes:
    return gzip.compress(_csv(table[table["run_id"].isin(runs)]), 9, mtime=0)


def _write(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        with paths.replacing(path) as temporary:
            temporary.write_bytes(content)


def _unpivot(files: list[Path], keys: list[str]) -> pd.DataFrame:
    """The text rows behind wide tables: ``keys``, metric, k, value."""
    tables = [_text(path) for path in files]
    wide = [table.replace({name: {"": np.nan} for name in table.columns if "@" in name}) for table in tables]
    return _joined(
        [_long(table, keys).fillna({"value": ""}).astype({"k": str}) for table in wide], [*keys, "metric", "k", "value"]
    )


def _merged(old: pd.DataFrame, new: pd.DataFrame, what: str) -> pd.DataFrame:
    """Both tables; ``new`` rows of a run that ``old`` has must be the same and are left out."""
    packed = new["run_id"].isin(set(old["run_id"]))
    other = set(new[packed].itertuples(index=False, name=None)) - set(old.itertuples(index=False, name=None))
    if other:
        raise ValueError(f"pack: run {min(other)[0]} is packed already with other {what}; a packed value does not change")
    return pd.concat([old, new[~packed]], ignore_index=True)


def pack(source: str | Path, target: str | Path, runs: Iterable[str] | None = None) -> list[str]:
    """Fold what runners left under ``source`` into the tables of the folder ``target``; returns the ids of its runs.

    ``runs``: only these ids. Tables are sorted and the same runs give the same bytes, in whatever steps they were packed.
    Raises ``ValueError`` for a run that is packed already with other values.
    """
    source, target, only = Path(source), Path(target), None if runs is None else set(runs)
    packed = _pack_tables(source, target, only)
    settings = json.loads((target / "configs.json").read_text()) if (target / "configs.json").is_file() else {}
    used = set(_text(target / "runs.csv")["config_hash"]) if packed else set()
    found = {path.stem: json.loads(path.read_text()) for path in paths.listed(source / "configs", "*.json")}
    settings = {name: found[name] for name in found if only is None or name in used} | settings
    if settings:
        lines = (f"{json.dumps(name)}: {json.dumps(settings[name], sort_keys=True)}" for name in sorted(settings))
        _write(target / "configs.json", ("{\n" + ",\n".join(lines) + "\n}\n").encode())
    _pack_codes(source, target, packed)
    return packed


def _pack_tables(source: Path, target: Path, only: set[str] | None) -> list[str]:
    files = [path for path in paths.listed(source / "runs") if only is None or path.stem in only]
    new = _joined([_text(path) for path in files], COLUMNS)
    old = _unpivot([target / "scores.csv"] if (target / "scores.csv").is_file() else [], ["run_id"])
    if old.empty and new.empty:
        return []
    scores = _wide(_merged(old, new[old.columns], "scores"), ["run_id"])
    who = _joined([*([_text(target / "runs.csv")] if len(old) else []), new.drop(columns=["metric", "k", "value"])])
    who = who.drop_duplicates("run_id").sort_values("run_id", ignore_index=True)
    old = _unpivot(sorted(target.glob("values-*.csv.gz")), _VALUE)
    query_files = [source / "per_query" / path.name for path in files]
    new = [_text(path).assign(run_id=path.stem) for path in query_files if path.is_file()]
    values = _merged(old, _joined(new, list(old.columns))[old.columns], "values per query")
    for name, ids in who.groupby("dataset")["run_id"]:
        own = values[values["run_id"].isin(set(ids))]
        if len(own):
            zipped = partial(_zipped, _wide(own, _VALUE))
            _write_split(target, f"values-{name}", ".csv.gz", sorted(set(own["run_id"])), zipped)
    _write(target / "scores.csv", _csv(scores))
    _write(target / "runs.csv", _csv(who))
    return who["run_id"].tolist()


def _write_split(target: Path, stem: str, suffix: str, runs: list[str], content: Callable[[list[str]], bytes]) -> None:
    """Write ``content`` of all ``runs`` as one file, or by fold where that is too large."""
    files = {f"{stem}{suffix}": content(runs)}
    if len(files[f"{stem}{suffix}"]) > MOST_BYTES:
        folds = {run.rsplit("-", 2)[1] for run in runs}
        files = {f"{stem}-{f}{suffix}": content([run for run in runs if run.rsplit("-", 2)[1] == f]) for f in folds}
        (target / f"{stem}{suffix}").unlink(missing_ok=True)
    for name, data in files.items():
        _write(target / name, data)


def _pack_codes(source: Path, target: Path, packed: list[str]) -> None:
    """Add codes of ``packed`` runs: arrays ``<run>.<side>``; the cases of a side by ``cases.<fold>.<side>`` in ``cases.ids``."""
    old: dict[str, dict[str, Codes]] = {}
    for path in sorted(target.glob("codes-*.npz")):
        with np.load(path) as stored:
            old |= {run: _read_codes(stored, run) for run in _coded(path)}
    new = {run: found for run in packed if (found := codes(run, source)) is not None}
    for run in sorted(set(old) & set(new)):
        if any(not np.array_equal(old[run][side].packed, new[run][side].packed) for side in SIDES):
            raise ValueError(f"pack: run {run} is packed already with other codes; a packed value does not change")
    found = new | old
    names = _text(target / "runs.csv").set_index("run_id")["dataset"] if found else {}
    for name in sorted({names[run] for run in found}):
        runs = sorted(run for run in found if names[run] == name)
        _write_split(target, f"codes-{name}", ".npz", runs, lambda runs: _codes_file({run: found[run] for run in runs}))


def _codes_file(found: dict[str, dict[str, Codes]]) -> bytes:
    label = {i: int(x) for both in found.values() for one in both.values() for i, x in zip(one.ids, one.labels, strict=True)}
    ids = np.array(sorted(label))
    arrays = {"cases.ids": ids, "cases.labels": np.array([label[i] for i in ids], np.int16)}
    for run, both in found.items():
        for side, one in both.items():
            at = np.searchsorted(ids, one.ids).astype(np.int32)
            name = f"cases.{run.rsplit('-', 2)[1]}.{side}"
            if not np.array_equal(arrays.setdefault(name, at), at) or not np.array_equal(arrays["cases.labels"][at], one.labels):
                raise ValueError(f"pack: the {side} of {run} are not those of the other runs on its fold")
            arrays[f"{run}.{side}"] = one.packed
            if one.model:
                arrays[f"{run}.model"] = np.str_(one.model)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # no time stamps, no pickles
    return buffer.getvalue()


def verify() -> list[str]:
    """What is wrong with the committed tables, one line each: hashes that do not fit, orphans, runs packed twice."""
    settings = configs()
    wrong = [f"configuration {name} has the hash {cfg.hash()}" for name, cfg in settings.items() if cfg.hash() != name]
    for part in ("", "ambiguity"):
        about = rows(part=part)
        wrong += [f"run {r}: no configuration" for r in about[~about["config_hash"].isin(list(settings))]["run_id"].unique()]
        twice = about[about.duplicated(["run_id", "preset", "metric", "k"])]["run_id"].unique()
        wrong += [f"run {r} is packed twice" for r in twice]
        # two editions may hold the same training, under the preset of each; then it has the same values
        values = about.groupby(["run_id", "metric", "k"])["value"].nunique(dropna=False)
        wrong += [f"run {r} has other values in another edition" for r in values[values > 1].index.unique("run_id")]
        wrong += [f"values per query of {r}: no such run" for r in sorted(set(_values(part)) - set(about["run_id"]))]
        wrong += [f"values per query of {r}: a query has no patient" for r, t in _values(part).items() if t["group"].isna().any()]
    known = set(rows()["run_id"])
    wrong += [f"codes of {r}: no such run" for path in committed("codes-*.npz") for r in sorted(_coded(path) - known)]
    large = [path.name for path in committed("*") if path.is_file() and path.stat().st_size > MOST_BYTES]
    return wrong + [f"{name}: larger than {MOST_BYTES} bytes" for name in large]


def main(argv: list[str] | None = None) -> int:
    """``pack`` folds finished runs into the committed tables, ``verify`` checks these."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.paper.store", description=main.__doc__)
    parser.add_argument("task", choices=("pack", "verify"))
    parser.add_argument("--edition", default="second", help="pack: which edition (the first is frozen)")
    parser.add_argument("--grid", help=f"pack: folder of its tables; of a planned grid only its runs ({', '.join(GRIDS)})")
    parser.add_argument("--from", dest="source", type=Path, default=paths.out() / "results", help="pack: where runs lie")
    given = parser.parse_args(argv)
    if given.task == "verify":
        wrong = verify()
        print("\n".join(wrong) or f"{rows()['run_id'].nunique()} runs, nothing wrong")
        return int(bool(wrong))
    if given.edition == "first" or not given.grid:
        parser.error("pack needs --grid, and an edition that is not the first, which is frozen")
    only = {run_id(cfg) for cfg in grid(given.grid)} if given.grid in GRIDS else None
    packed = pack(given.source, paths.results() / given.edition / given.grid, only)
    print(f"{len(packed)} runs in {given.edition}/{given.grid}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
