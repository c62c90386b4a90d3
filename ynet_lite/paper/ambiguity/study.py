"""How ambiguous are the answers of stored networks, and what reduces it.

``python -m ynet_lite.paper.ambiguity.study --grid phantom``

`measure` asks one trained network; the command asks every network of the grids whose checkpoint is stored, one file of rows per
run. `criteria` compares Y-Net with its twin on these rows. The same choices for every method:

- **Attention** is asked for the score of the query's *own class* (`attribution.class_score`), at the deepest stage that passes a
  gradient to the code. The nearest relevant code would ask each method about another case.
- **Exchange**: the donor of a query is a database case with an outline, of another patient and of any class, drawn without
  repetition from a fixed seed; a background that goes with a disease misleads only when it comes from another one. Every method
  and every training of a fold gets the same exchanged images.
- **At most** `measure.MOST` **queries** of a fold are exchanged and attributed; errors and mAP use all.
- **Thirds** are made over the whole set, so that a case belongs to the same third in every fold and for every method.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch

from ... import paths, provenance
from ...cases.core import Cases
from ...checkpoint import Checkpoint, checkpoint_path
from ...config import Config
from ...sets import load_cases
from ...training import load_or_train
from .. import grids as plans
from .. import store
from .measure import Prepared, case_thirds, has_trained_code, keeps_pictures, measure, pictures, prepare

#: Methods that are asked when none are named: the encoder and the loss are the same, what differs is masks and pooling.
METHODS = ("ynet", "ynet-no-seg", "ynet-rmac", "ynet-lesion", "ynet-selfpool")

#: Grids of runs behind each name of ``--grid``.
GRIDS = {"phantom": ("phantom",), "busbra": ("headline", "losses")}


def _file(folder: str | Path, name: str) -> Path:
    """``name`` may begin with "per_query/", "levels/" (what needs no network), "thirds/" or "pictures/"."""
    return Path(folder) / "ambiguity" / name


def run(cfg: Config, checkpoint: Checkpoint, database: Cases, queries: Cases, folder: str | Path, prepared: Prepared) -> Path:
    """`measure` one network and write its rows, per-query values and (`keeps_pictures`) pictures. Returns the file of rows.

    The rows name the commit that *measured*; the commit that trained stands in the run's own rows.
    """
    began, name = time.perf_counter(), provenance.run_id(cfg)
    values, per_query = measure(cfg, checkpoint, database, queries, prepared)
    seconds = round(time.perf_counter() - began, 3)
    if keeps_pictures(cfg):
        with paths.replacing(_file(folder, f"pictures/{name}.npz")) as temporary:
            np.savez_compressed(temporary, **pictures(cfg, checkpoint, database, queries))
    patient = pd.Series(queries.groups, index=queries.ids)
    per_query = per_query.assign(group=patient.loc[per_query["case_id"]].to_numpy())
    paths.write_csv(per_query, _file(folder, f"per_query/{name}.csv"))
    return paths.write_csv(store.run_rows(cfg, queries.fingerprint, values, seconds), _file(folder, f"{name}.csv"))


def _data(cfg: Config) -> tuple:
    """What names the images of a run: runs that share it share `prepare` (one fold) and `case_thirds` (all folds)."""
    drawn = (cfg.phantom_cases, cfg.confounding, cfg.seed) if cfg.dataset == "phantom" else ()
    return (cfg.dataset, cfg.size, cfg.channels, *drawn)


def _set_thirds(cases: Cases, folder: str | Path) -> pd.DataFrame:
    """`case_thirds`, from its file where there is one."""
    path = _file(folder, f"thirds/{cases.name}-{cases.images.shape[2]}-{cases.fingerprint[:8]}.csv")
    if not path.is_file():
        paths.write_csv(case_thirds(cases), path)
    return pd.read_csv(path, dtype={"case_id": str}).fillna({"third": ""})


def _one_fold(configs: Sequence[Config], folder: Path, train: bool) -> list[str]:
    """All runs on one fold of one set; returns lines for the log."""
    torch.set_num_threads(configs[0].threads)
    cases = load_cases(configs[0])
    database, queries = cases.split(configs[0].fold)
    prepared, log = None, []
    for cfg in configs:
        path = checkpoint_path(cfg, database)
        if not (path.is_file() and path.with_suffix(".json").is_file()) and not train:
            log.append(f"{provenance.run_id(cfg)}: skipped, no checkpoint {path.name} is stored; --train makes it")
            continue
        checkpoint = load_or_train(cfg, database, progress=False)
        began = time.perf_counter()
        if prepared is None:
            prepared = prepare(database, queries, lambda: _set_thirds(cases, folder))
            about = {"dataset": cfg.dataset, "fingerprint": cases.fingerprint[:16], "fold": cfg.fold}
            at = _file(folder, f"levels/{cfg.dataset}-{cfg.size}-{cases.fingerprint[:8]}-{cfg.fold}.csv")
            if not at.is_file():
                paths.write_csv(prepared.levels.assign(**about)[[*about, *prepared.levels]], at)
        run(cfg, checkpoint, database, queries, folder, prepared)
        log.append(f"{provenance.run_id(cfg)} in {time.perf_counter() - began:.0f} s")
    return log


def configs_of(
    grids: Iterable[str], methods: Sequence[str] = METHODS, folds: Sequence[int] = (), seeds: Sequence[int] = ()
) -> list[Config]:
    """The runs of the named grids (`GRIDS`) that can be measured, each once; empty ``folds`` or ``seeds`` = all.

    Under some presets two methods are one configuration (Y-Net with R-MAC, and Y-Net where R-MAC is its pooling): the first of
    ``methods`` stands for both.
    """
    named = [cfg for grid in grids for name in GRIDS[grid] for cfg in plans.grid(name)]
    chosen: dict[tuple, Config] = {}
    for cfg in sorted((cfg for cfg in named if cfg.method in methods), key=lambda cfg: methods.index(cfg.method)):
        if has_trained_code(cfg) and (not folds or cfg.fold in folds) and (not seeds or cfg.seed in seeds):
            chosen.setdefault((cfg.dataset, cfg.hash(), cfg.fold, cfg.seed), cfg)
    return list(chosen.values())


def main(argv: list[str] | None = None) -> int:
    """Measure the ambiguity of every stored network of the grids; what is measured already is not repeated."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.paper.ambiguity.study", description=main.__doc__)
    parser.add_argument("--grid", nargs="*", choices=list(GRIDS), default=list(GRIDS), help="which grids (default: all)")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help=f"which methods (default: {' '.join(METHODS)})")
    parser.add_argument("--folds", nargs="*", type=int, default=[], help="only these folds")
    parser.add_argument("--seeds", nargs="*", type=int, default=[], help="only these seeds")
    parser.add_argument("--folder", type=Path, default=paths.out() / "results", help="where rows are looked for and written")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--train", action="store_true", help="train what has no stored checkpoint, instead of skipping it")
    given = parser.parse_args(argv)
    groups: dict[tuple, list[Config]] = {}
    for cfg in configs_of(given.grid, given.methods, given.folds, given.seeds):
        if not _file(given.folder, f"{provenance.run_id(cfg)}.csv").is_file():  # rows are written last
            groups.setdefault((*_data(cfg), cfg.fold), []).append(cfg)
    for cfg in {key[:-1]: part[0] for key, part in groups.items()}.values():
        if cfg.dataset != "phantom":
            _set_thirds(load_cases(cfg), given.folder)  # before several folds want it at once
    parallel = joblib.Parallel(n_jobs=given.jobs, return_as="generator_unordered")
    for log in parallel(joblib.delayed(_one_fold)(part, given.folder, given.train) for part in groups.values()):
        print("\n".join(log), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
