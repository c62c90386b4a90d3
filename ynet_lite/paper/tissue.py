"""Does a search follow the lesion or the tissue? Queries of BUS-BRA are asked with their lesion in tissue of the other class."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .. import paths, provenance
from ..cases.core import Cases
from ..checkpoint import Checkpoint, checkpoint_path
from ..config import Config
from ..evaluation import evaluate_checkpoint
from ..methods import METHOD_NAMES
from ..sets import load_cases
from . import store, tables
from .ambiguity import exchange
from .second import runs

PLAIN, BLENDED, OTHER = "as they are", "lesion put back into its own image", "lesion in tissue of the other class"
SHOWN = (("map", 10), ("precision", 10), ("accuracy", 10))


def queries_in_other_tissue(queries: Cases, seed: int) -> dict[str, Cases]:
    """The queries in three forms: as they are, `BLENDED` (nothing exchanged: what the blending alone costs), `OTHER`.

    The tissue comes from a query of another class and patient, drawn anew for each query; its lesion is painted over
    (`.ambiguity.exchange`). Raises ``ValueError`` for a query without an outline, or for which there is no such other.
    """
    rng, donors = np.random.default_rng([seed, 23]), []
    for row, case in enumerate(queries.ids):
        others = np.flatnonzero((queries.labels != queries.labels[row]) & (queries.groups != queries.groups[row]))
        if not (queries.has_mask[row] and queries.masks[row].any() and len(others)):
            raise ValueError(f"{queries.name}: case {case} has no outline, or there is no case of another class and patient")
        donors.append(rng.choice(others))
    found = {PLAIN: queries}
    for name, at in ((BLENDED, np.arange(len(queries))), (OTHER, np.array(donors))):
        parts = [(part.images, part.masks) for part in (queries, queries.take(at))]
        images, masks = exchange.replace_background(*parts[0], *parts[1], queries.content_mask, queries.content_mask[at])
        found[name] = replace(queries, images=images, masks=masks)
    return found


def measure(cfg: Config, database: Cases, forms: dict[str, Cases], checkpoint: Checkpoint) -> pd.DataFrame:
    """Scores of one stored network on each form of the queries, the database as it is: columns queries, metric, k, value."""
    found = [evaluate_checkpoint(checkpoint, cfg, database, asked)[0].assign(queries=name) for name, asked in forms.items()]
    table = pd.concat(found).set_index(["metric", "k"])
    return table.loc[[one for one in SHOWN if one in table.index]].reset_index()[["queries", "metric", "k", "value"]]


def table() -> pd.DataFrame:
    """Mean ± standard deviation over folds, each the mean of its trainings; a line per method and form of the queries."""
    rows, lines = pd.read_csv(paths.results() / "trust" / "tissue.csv"), []
    for method in [name for name in METHOD_NAMES if name in set(rows["method"])]:
        for form in (PLAIN, BLENDED, OTHER):
            part = rows[(rows["method"] == method) & (rows["queries"] == form)]
            folds = part.groupby(["metric", "k", "fold"])["value"].mean()
            line = {"codes of": METHOD_NAMES[method], "queries": form, "runs": part["run_id"].nunique()}
            for key in SHOWN:
                line[tables.MAIN[key]] = tables.number(folds[key].mean(), folds[key].std(), len(folds[key]))
            lines.append(line)
    return pd.DataFrame(lines)


def main(argv: list[str] | None = None) -> int:
    """Ask every committed network from scratch whose weights lie in ``YNET_OUT``; trains nothing."""
    argparse.ArgumentParser(prog="python -m ynet_lite.paper.tissue", description=main.__doc__).parse_args(argv)
    known, forms, found = set(store.rows("second")["run_id"]), {}, []
    for cfg in tqdm([cfg for cfg in runs("scratch") if provenance.run_id(cfg) in known], desc="networks"):
        cases = load_cases(cfg)
        database, queries = cases.split(cfg.fold)
        path = checkpoint_path(cfg, database)
        if not path.is_file():
            print(f"{path} is missing: {provenance.run_id(cfg)} is left out", file=sys.stderr)
            continue
        if cfg.fold not in forms:
            forms[cfg.fold] = queries_in_other_tissue(queries, cfg.fold)
        about = {"run_id": provenance.run_id(cfg), "method": cfg.method, "fold": cfg.fold, "seed": cfg.seed}
        about |= {"fingerprint": cases.fingerprint[:16], "commit": provenance.commit()[0], "date": time.strftime("%Y-%m-%d")}
        found.append(measure(cfg, database, forms[cfg.fold], Checkpoint.load(path)).assign(**about))
    if found:
        print(paths.write_csv(pd.concat(found), paths.results() / "trust" / "tissue.csv"))
    return int(not found)


if __name__ == "__main__":
    sys.exit(main())
