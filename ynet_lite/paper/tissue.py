"""Does a search follow the lesion or the tissue? Queries of BUS-BRA are asked with their lesion in tissue of the other class."""

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
from ..methods import METHOD_NAMES, OURS, TWIN
from ..sets import load_cases
from . import statistics, store, tables
from .ambiguity import exchange
from .second import runs

FORMS = PLAIN, BLENDED, OTHER = "as they are", "lesion put back into its own image", "lesion in tissue of the other class"
SCORES = ("map", "precision", "accuracy")  # at 10
ABOUT = ["run_id", "method", "fold", "seed", "fingerprint", "case_id", "group"]


def in_other_tissue(queries: Cases, seed: int) -> dict[str, Cases]:
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
    found, content = {PLAIN: queries}, queries.content_mask
    for name, at in ((BLENDED, np.arange(len(queries))), (OTHER, np.array(donors))):
        images, masks = exchange.replace_background(
            queries.images, queries.masks, queries.images[at], queries.masks[at], content, content[at]
        )
        found[name] = replace(queries, images=images, masks=masks)
    return found


def measure(cfg: Config, database: Cases, forms: dict[str, Cases], checkpoint: Checkpoint) -> pd.DataFrame:
    """`SCORES` of each query in each form, the database as it is: columns case_id, group, queries and one per score."""
    found = []
    for name, asked in forms.items():
        values = evaluate_checkpoint(checkpoint, cfg, database, asked)[1]
        values = values[(values["k"] == 10) & values["metric"].isin(SCORES)]
        wide = values.pivot(index=["case_id", "group"], columns="metric", values="value")[list(SCORES)].reset_index()
        found.append(wide.assign(queries=name))
    return pd.concat(found, ignore_index=True)


def read() -> pd.DataFrame:
    """The committed values, a line per run, query and form; empty where none were measured."""
    path = paths.results() / "trust" / "tissue.csv.gz"
    return pd.read_csv(path, dtype=store.TEXT) if path.is_file() else pd.DataFrame(columns=[*ABOUT, "queries", *SCORES])


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean ± standard deviation over folds, each the mean of its trainings; a line per method and form of the queries."""
    lines = []
    for method in [name for name in METHOD_NAMES if name in set(rows["method"])]:
        for form in FORMS:
            part = rows[(rows["method"] == method) & (rows["queries"] == form)]
            folds = part.groupby(["fold", "run_id"])[list(SCORES)].mean().groupby("fold").mean()
            line = {"codes of": METHOD_NAMES[method], "queries": form, "runs": part["run_id"].nunique()}
            for score in SCORES:
                line[tables.MAIN[score, 10]] = tables.number(folds[score].mean(), folds[score].std(), len(folds))
            lines.append(line)
    return pd.DataFrame(lines)


def lost(rows: pd.DataFrame, n: int = 10_000) -> str:
    """What other tissue costs beyond the blending, in points of mAP@10, by method; and the difference, as one sentence."""
    wide = rows.pivot(index=ABOUT, columns="queries", values="map").reset_index()
    wide = wide.assign(value=wide[BLENDED] - wide[OTHER])
    ours, twin = (wide[wide["method"] == method] for method in (OURS, TWIN))
    nothing = [part.assign(value=0.0) for part in (ours, twin)]
    found = [(ours, nothing[0]), (twin, nothing[1]), (twin, ours)]
    costs = [statistics.interval_text(*statistics.trainings_interval(*both, n=n), signed=False) for both in found]
    return (
        f"Beyond the blending, tissue of the other class costs Y-Net {costs[0]} points of mAP@10 and its twin {costs[1]}: "
        f"{costs[2]} points less with outlines (95 % for other patients and trainings)."
    )


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
            forms[cfg.fold] = in_other_tissue(queries, cfg.fold)
        about = {"run_id": provenance.run_id(cfg), "method": cfg.method, "fold": cfg.fold, "seed": cfg.seed}
        about |= {"fingerprint": cases.fingerprint[:16], "commit": provenance.commit()[0], "date": time.strftime("%Y-%m-%d")}
        found.append(measure(cfg, database, forms[cfg.fold], Checkpoint.load(path)).assign(**about))
    if not found:
        return 1
    with paths.replacing(paths.results() / "trust" / "tissue.csv.gz") as temporary:
        pd.concat(found).to_csv(temporary, index=False, float_format="%.6g", compression={"method": "gzip", "mtime": 0})
    return 0


if __name__ == "__main__":
    sys.exit(main())
