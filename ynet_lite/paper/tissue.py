"""Does a search follow the lesion or the tissue? Queries of BUS-BRA, asked with their lesion in tissue of the other class.

What asked the networks was run once; ``data/results/README.md`` names the commit that holds it. ``rows``: of
``trust/tissue.csv.gz``, a line per run, query and form.
"""

import pandas as pd

from ..methods import METHOD_NAMES, OURS, TWIN
from . import statistics, tables

FORMS = PLAIN, BLENDED, OTHER = "as they are", "lesion put back into its own image", "lesion in tissue of the other class"
SCORES = ["map", "precision", "accuracy"]  # at 10


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean ± standard deviation over folds, each the mean of its trainings; a line per method and form of the queries."""
    lines = []
    for method in [name for name in METHOD_NAMES if name in set(rows["method"])]:
        for form in FORMS:
            part = rows[(rows["method"] == method) & (rows["queries"] == form)]
            folds = part.groupby(["fold", "run_id"])[SCORES].mean().groupby("fold").mean()
            line = {"codes of": METHOD_NAMES[method], "queries": form, "runs": part["run_id"].nunique()}
            for score in SCORES:
                line[tables.MAIN[score, 10]] = tables.number(folds[score].mean(), folds[score].std(), len(folds))
            lines.append(line)
    return pd.DataFrame(lines)


def lost(rows: pd.DataFrame, n: int = 10_000) -> str:
    """What other tissue costs beyond the blending, in points of mAP@10, by method; and the difference, as one sentence."""
    query = ["run_id", "method", "fingerprint", "fold", "case_id", "group"]
    wide = rows.pivot(index=query, columns="queries", values="map").reset_index()
    wide = wide.assign(value=wide[BLENDED] - wide[OTHER])
    ours, twin = (wide[wide["method"] == method] for method in (OURS, TWIN))
    nothing = [part.assign(value=0.0) for part in (ours, twin)]
    found = [(ours, nothing[0]), (twin, nothing[1]), (twin, ours)]
    costs = [statistics.interval_text(*statistics.trainings_interval(*both, n=n), signed=False) for both in found]
    return (
        f"Beyond the blending, tissue of the other class costs Y-Net {costs[0]} points of mAP@10 and its twin {costs[1]}: "
        f"{costs[2]} points less with outlines (95 % for other patients and trainings)."
    )
