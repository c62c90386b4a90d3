"""Which rows count: the one place that chooses rows for tables, figures and tests."""

import pandas as pd

from .. import paths
from ..methods import OURS, TWIN
from ..sets import drawn_per_seed, title
from . import store
from .grids import FOLDS

#: Fold 1 is the development fold of a real set: a claim rests on the others where they were run.
HEADLINE_FOLDS = FOLDS[1:]

#: Variants that are tables of their own; those of the ablations are points of one curve (`.ablations`).
VARIANTS = ("", "confounding=0", "wider network")


EDITION = "first"  #: what the published tables and figures are made of


def published(part: str = "") -> pd.DataFrame:
    """Committed rows that count: of the first edition and its small encoder; ``part``: see `store.rows`."""
    return store.rows(EDITION, "small", part)


def sets(runs: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(dataset, group, variant) of every table, phantom first. ``group`` is "quick" or "full": the paper preset's rows stand
    with the full preset's, since they answer the same question on the same data."""
    runs = runs[runs["variant"].isin(VARIANTS)]
    found = runs.assign(group=runs["preset"].replace({"paper": "full"}))[["dataset", "group", "variant"]].drop_duplicates()
    order = {"phantom": 0, "busbra": 1}
    return sorted(found.itertuples(index=False, name=None), key=lambda s: (order.get(s[0], 9), s[0], s[1] == "quick", s[2]))


def select(runs: pd.DataFrame, dataset: str, group: str, variant: str | None = "") -> pd.DataFrame:
    """Rows of one table; ``variant`` None: of all its variants."""
    presets = ("full", "paper") if group == "full" else (group,)
    found = runs[(runs["dataset"] == dataset) & runs["preset"].isin(presets)]
    return found if variant is None else found[found["variant"] == variant]


def chance_rows(dataset: str, preset: str) -> pd.DataFrame | None:
    """Committed chance level of a set: queries of fold 1 against its database (the phantom of seed 0), or None.

    It depends on the cases alone: all presets but "quick" have that of "full".
    """
    path = paths.results() / "chance" / f"{dataset}-{'quick' if preset == 'quick' else 'full'}.csv"
    return pd.read_csv(path) if path.is_file() else None


def pair(runs: pd.DataFrame, dataset: str, preset: str, folds, seeds, ours: str = "", twin: str = "") -> list[pd.DataFrame]:
    """The rows of Y-Net and of its twin, each of its variant, on the given folds and seeds."""
    found = select(runs, dataset, preset, None)
    found = found[found["fold"].isin(folds) & found["seed"].isin(seeds)]
    return [found[(found["method"] == method) & (found["variant"] == v)] for method, v in ((OURS, ours), (TWIN, twin))]


FOLD_PARTS = {
    "Folds 2-5: the headline": HEADLINE_FOLDS,
    "All five folds": (1, *HEADLINE_FOLDS),
    "Fold 1: the development fold": (1,),
}


def complete(chosen: pd.DataFrame, folds) -> pd.DataFrame:
    """The rows of those methods that were run on every one of ``folds``, restricted to these folds.

    On a set that is drawn anew for each seed the draws are the data: there it takes every draw that Y-Net was run on.
    """
    part = chosen[chosen["fold"].isin(folds)]
    drawn = part["dataset"].isin(drawn_per_seed())
    ours = set(part[drawn & (part["method"] == OURS)]["fingerprint"])
    part = part[~drawn | part["fingerprint"].isin(ours)] if ours else part
    grouped = part.groupby("method")
    full = (grouped["fold"].nunique() == len(folds)) & ((grouped["fingerprint"].nunique() == len(ours)) if ours else True)
    return part[part["method"].isin(full.index[full])]


def second(preset: str) -> pd.DataFrame:
    """Rows of BUS-BRA in the second edition, of the methods that have every fold of `HEADLINE_FOLDS` with every seed."""
    part = complete(select(store.rows("second"), "busbra", preset), HEADLINE_FOLDS)
    seeds = part.groupby("method")["seed"].transform("nunique")
    return part[seeds == seeds.max()]


def parts(chosen: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(title, rows) of the tables of one set: by folds where there are several, else one."""
    if set(chosen["fold"]) == {1}:
        return [("", complete(chosen, (1,)))]
    counted = headline_folds(chosen)  # where all folds count, there is nothing to set apart
    found = [(title, complete(chosen, folds)) for title, folds in FOLD_PARTS.items() if 1 not in counted or folds == counted]
    return [(title, part) for title, part in found if part["method"].nunique() > 1]


def headline_folds(chosen: pd.DataFrame) -> tuple[int, ...]:
    """The folds of one set that a claim may rest on: all but the development fold, where there was one."""
    dataset = chosen["dataset"].iloc[0] if len(chosen) else ""
    return OTHER_SETS[dataset][1] if dataset in OTHER_SETS else HEADLINE_FOLDS


def headline(chosen: pd.DataFrame) -> pd.DataFrame:
    """The rows that a claim may rest on: `headline_folds` once two methods were run on all of them, until then fold 1."""
    part = complete(chosen, headline_folds(chosen))
    return part if part["method"].nunique() > 1 else complete(chosen, (1,))


#: Sets to which the settings found on BUS-BRA's pathology were carried over as they were: heading and the folds that count.
#: The images of BUS-BRA's fold 1 were looked at during development, whatever the label; those of BUSI never.
OTHER_SETS = {
    "busbra-birads": (title("busbra-birads"), HEADLINE_FOLDS),
    "busi": (f"{title('busi')} (a part)", (1, *HEADLINE_FOLDS)),
}


def validated() -> set[str]:
    """Cases of BUS-BRA on which a setting was chosen: validation patients among the training patients of fold 1.

    They are queries of folds 2 to 5. From ``sets/data/busbra_validation.csv``: ``trials`` are those of the first edition,
    ``design`` those of the older tables in ``data/results/tuning``, which shaped the preset.
    """
    return set(pd.read_csv(paths.splits() / "busbra_validation.csv", dtype=str)["case_id"])
