"""``make reproduce``: data, training, codes, a retrieval table, and a comparison with the committed numbers.

Reads ``YNET_DATASET``, ``YNET_PRESET``, ``YNET_DATA_DIR``. Writes results under ``out/``, pictures of real cases under
``figures/local/`` and resized copies under ``data/cache/``: never a tracked file.
"""

import argparse
import sys
import time

import numpy as np
import pandas as pd

from .. import drawing, metrics, paths
from ..checkpoint import checkpoint_path
from ..config import Config
from ..encoding import distances, encode_floats
from ..methods import OURS, TWIN
from ..sets import load_cases
from ..training import load_or_train
from . import run, store, tables

METHODS = (OURS, TWIN, "ynet-rmac")


def configs() -> list[Config]:
    """Y-Net and what it is compared with, for the data set and preset of the environment."""
    return [Config.from_env(method) for method in METHODS]


def pictures(cfg: Config, cases, folder) -> list:
    """Training curves and a page of queries with their answers."""
    database, queries = cases.split(cfg.fold)
    checkpoint = load_or_train(cfg, database, progress=False)
    found, base = (encode_floats(checkpoint.model, cfg, part) for part in (queries, database))
    distance = distances(cfg, found, base)
    rows = np.unique(queries.labels, return_index=True)[1].tolist()  # the first of each class: not by how well it did
    return [
        drawing.save(drawing.retrieval_page(queries, database, rows, distance), folder / f"{cfg.dataset}_queries.png"),
        drawing.save(drawing.loss_curves(checkpoint.history), folder / f"{cfg.dataset}_losses.png"),
    ]


def main(argv: list[str] | None = None) -> int:
    """Run and print; the exit status is 1 when a number that was committed for this very run lies outside its tolerance."""
    argparse.ArgumentParser(prog="python -m ynet_lite.paper.reproduce", description=__doc__.split("\n\n")[0]).parse_args(argv)
    began = time.perf_counter()
    drawing.use_style()
    wanted = configs()
    first = wanted[0]
    print(f"data set {first.dataset}, preset {first.preset}, fold {first.fold}, seed {first.seed}")
    try:
        paths.results()  # missing ones are an error now, not after the training
        cases = load_cases(first)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    database, queries = cases.split(first.fold)
    print(f"{len(cases)} cases of {len(set(cases.groups))} patients: {len(database)} in the database, {len(queries)} queries\n")
    folder = paths.out() / "results"
    yours = []
    for cfg in wanted:
        stored = checkpoint_path(cfg, database).is_file()
        print(f"{cfg.method}: {'trained before, loaded' if stored else 'training'}")
        path = run.run(cfg, cases, folder=folder)
        yours.append(store.read_run(path))
    mine = pd.concat(yours, ignore_index=True)
    print("\nRetrieval, one run each (ties at expected value):\n")
    print(tables.retrieval_table(mine, chance=metrics.chance(queries, database, first.ks)).to_string(index=False))
    gain = tables.lift(mine).iloc[0]
    print(f"\nY-Net against its twin without segmentation: {gain:+.1f} points of mAP@10 in this run")
    shown = mine[mine["metric"].isin(["map", "precision", "ndcg", "dice"]) & mine["k"].isin([0, 10])]
    report = store.compare(store.rows(), shown)
    print("\ncommitted | yours | tolerance | same?\n")
    print(report.to_string(index=False, float_format=lambda v: f"{v:.4f}", na_rep="-"))
    target = paths.local_figures() if first.dataset != "phantom" else paths.out() / "figures"
    print("\nPictures:")
    for path in pictures(first, cases, target):
        print(f"  {path.relative_to(paths.root()) if path.is_relative_to(paths.root()) else path}")
    print(f"\n{time.perf_counter() - began:.0f} s in all. Research software, not a medical device.")
    return int((report["same?"] == "differs").any())


if __name__ == "__main__":
    sys.exit(main())
