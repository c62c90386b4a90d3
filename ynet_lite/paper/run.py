"""Runs: train (or load), encode, evaluate, write rows. ``python -m ynet_lite.paper.run --list`` shows what is done."""

import argparse
import os
import time
from collections.abc import Collection
from pathlib import Path

import joblib
from tqdm.auto import tqdm

from .. import metrics, paths, provenance
from ..cases.core import Cases
from ..config import Config
from ..evaluation import evaluate_checkpoint
from ..methods import METHODS
from ..sets import load_cases, named
from ..sets.folders import find
from ..training import load_or_train
from . import aggregation, store
from .controls import controlled
from .grids import GRIDS, grid
from .select import chance_rows


def keeps_codes(cfg: Config) -> bool:
    """Whether the packed codes of a run belong to the results: every plain run that ends in a code, on real sets."""
    return cfg.dataset != "phantom" and not cfg.variant and cfg.preset != "quick" and cfg.ranking == "hamming"


def run(
    cfg: Config, cases: Cases | None = None, *, folder: str | Path | None = None, progress: bool = True, maps: dict | None = None
) -> Path:
    """Do one run and write its rows under ``folder`` (default: the ignored ``out/results``). Returns the file of rows."""
    cases = cases if cases is not None else load_cases(cfg)
    training, database, queries = controlled(cfg, *cases.split(cfg.fold))
    checkpoint = load_or_train(cfg, training, progress=progress)
    encoded = None
    if cfg.aggregation:
        encoded = aggregation.describe(checkpoint.model, cfg, queries, database, maps, seed=cfg.seed)
    values, per_query, codes = evaluate_checkpoint(checkpoint, cfg, database, queries, encoded)
    folder = Path(folder) if folder else paths.out() / "results"
    for side, part in codes.items() if keeps_codes(cfg) else ():
        part.save(folder / "codes" / f"{provenance.run_id(cfg, cases.fingerprint)}.{side}.npz")
    return store.write_run(cfg, cases.fingerprint, values, per_query, checkpoint.seconds, folder, checkpoint.made_by)


def done(cfg: Config, folder: Path) -> bool:
    """Whether the rows of this run exist (the row file is written last)."""
    return (folder / "runs" / f"{provenance.run_id(cfg)}.csv").is_file()


def _together(configs: list[Config], folder: Path) -> str:
    """Do runs that share one training one after the other; returns a line for the log."""
    began = time.perf_counter()
    maps: dict = {}  # C5 of the shared encoder, which several aggregations read
    for cfg in configs:
        if not done(cfg, folder):  # another runner on the same folder may have been here since
            run(cfg, folder=folder, progress=False, maps=maps)
    return f"{', '.join(provenance.run_id(cfg) for cfg in configs)} in {time.perf_counter() - began:.0f} s"


def run_all(configs: Collection[Config], folder: Path, jobs: int, what: str) -> None:
    """Do the given runs in processes, or wherever joblib is told to; ``what`` they are stands at the progress bar.

    Each run writes its own rows, so an interruption loses only the runs under way, and those resume at their last epoch. Runs
    that share a training go to one process: two would write one checkpoint.
    """
    shared: dict[tuple, list[Config]] = {}
    for cfg in configs:
        shared.setdefault((cfg.dataset, cfg.training_hash(), cfg.fold, cfg.seed), []).append(cfg)
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    for line in tqdm(parallel(joblib.delayed(_together)(some, folder) for some in shared.values()), total=len(shared), desc=what):
        tqdm.write(line)


def main(argv: list[str] | None = None) -> int:
    """Run what is missing of the named grids, one process per core; interrupt and call again at will."""
    about = "\n".join(f"  {name:18s} {text}" for name, (text, _) in GRIDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m ynet_lite.paper.run",
        description=f"{main.__doc__}\n\ngrids:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("grids", nargs="*", default=list(GRIDS), help="which grids (default: all)")
    parser.add_argument("--list", action="store_true", help="show what is done and what is missing, run nothing")
    parser.add_argument("--anew", action="store_true", help="do the committed runs again as well")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--device", default="cpu", help="where networks are trained, for instance cuda (default: cpu)")
    parser.add_argument("--folder", type=Path, default=paths.out() / "results", help="where rows are looked for and written")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), help="only these methods")
    parser.add_argument("--folds", nargs="*", type=int, help="only these folds")
    parser.add_argument("--seeds", nargs="*", type=int, help="only these seeds")
    given = parser.parse_args(argv)
    # a run that two grids name is one run
    configs = list({provenance.run_id(cfg): cfg for name in given.grids for cfg in grid(name)}.values())
    for name, values in (("method", given.methods), ("fold", given.folds), ("seed", given.seeds)):
        configs = [cfg for cfg in configs if not values or getattr(cfg, name) in values]
    configs = [cfg.but(device=given.device) for cfg in configs]
    kept = set() if given.anew else set(store.rows()["run_id"])
    missing = [cfg for cfg in configs if provenance.run_id(cfg) not in kept and not done(cfg, given.folder)]
    if given.list:
        for cfg in configs:
            print("missing" if cfg in missing else "done   ", provenance.run_id(cfg), cfg.variant)
        print(f"{len(configs) - len(missing)} done, {len(missing)} missing")
        return 0
    for name in sorted({cfg.dataset for cfg in missing if named(cfg.dataset).folders}):
        find(named(name))  # a missing set is an error now, not after an hour of other runs
    run_all(missing, given.folder, given.jobs, "trainings")
    for cfg in {(cfg.dataset, cfg.preset): cfg for cfg in reversed(configs) if cfg.preset != "paper"}.values():
        path = given.folder / "chance" / f"{cfg.dataset}-{cfg.preset}.csv"
        if not path.is_file() and (given.anew or chance_rows(cfg.dataset, cfg.preset) is None):
            database, queries = load_cases(cfg.but(fold=1, seed=0)).split(1)
            paths.write_csv(metrics.chance(queries, database, cfg.ks), path)  # what random codes score, in closed form
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
