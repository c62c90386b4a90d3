"""``make figures``: every table and figure from committed rows, codes and weights. Trains nothing; same rows, same bytes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from . import paths, plots, results, tables
from .cases import load_cases
from .search import load_shipped
from .training import distances, encode_floats


def sets(runs: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(dataset, group, variant) of every table, phantom first. ``group`` is "quick" or "full": the paper preset's rows stand
    with the full preset's, since they answer the same question on the same data."""
    found = runs.assign(group=runs["preset"].replace({"paper": "full"}))[["dataset", "group", "variant"]].drop_duplicates()
    order = {"phantom": 0, "busbra": 1}
    return sorted(found.itertuples(index=False, name=None), key=lambda s: (order.get(s[0], 9), s[0], s[1] == "quick", s[2]))


def select(runs: pd.DataFrame, dataset: str, group: str, variant: str = "") -> pd.DataFrame:
    """Rows of one table."""
    presets = ("full", "paper") if group == "full" else (group,)
    return runs[(runs["dataset"] == dataset) & runs["preset"].isin(presets) & (runs["variant"] == variant)]


def chance_rows(dataset: str, group: str) -> pd.DataFrame | None:
    """Committed chance level of a set: queries of fold 1 against its database (the phantom of seed 0), or None."""
    path = paths.results() / "chance" / f"{dataset}-{group}.csv"
    return pd.read_csv(path) if path.is_file() else None


def results_text(runs: pd.DataFrame) -> str:
    """All tables as one Markdown page."""
    parts = [
        "# Results\n\nMade by `make figures` from the rows in `data/results/`. Mean ± standard deviation over runs; ties at "
        "their expected value. Not a medical device.\n"
    ]
    for dataset, group, variant in sets(runs):
        chosen = select(runs, dataset, group, variant)
        title = f"## {dataset}, preset {group}" + (f", {variant}" if variant else "")
        folds = ", ".join(str(f) for f in sorted(chosen["fold"].unique()))
        seeds = ", ".join(str(s) for s in sorted(chosen["seed"].unique()))
        parts += [f"{title}\n\nFold {folds}; seeds {seeds}.\n"]
        parts += [tables.markdown(tables.retrieval_table(chosen, chance=chance_rows(dataset, group))) + "\n"]
        parts += ["mAP by length of the list:\n", tables.markdown(tables.retrieval_table(chosen, tables.LISTS)) + "\n"]
    return "\n".join(parts)


def readme_blocks(runs: pd.DataFrame) -> dict[str, str]:
    """What stands between ``<!-- name -->`` and ``<!-- /name -->`` in the README."""
    short = {key: tables.MAIN[key] for key in [("map", 10), ("precision", 10), ("ndcg", 10), ("distinct_codes", 0), ("dice", 0)]}
    blocks = {}
    for name, dataset, group in (("busbra", "busbra", "full"), ("phantom", "phantom", "quick")):
        chosen = select(runs, dataset, group)
        if len(chosen):
            blocks[name] = tables.markdown(tables.retrieval_table(chosen, short, chance_rows(dataset, group)))
    costs = paths.results() / "costs.csv"
    if costs.is_file():
        blocks["costs"] = tables.markdown(pd.read_csv(costs, dtype=str).fillna("-"))
    for name, line in gains(runs).items():
        blocks[f"gain-{name}"] = line
    return blocks


def gains(runs: pd.DataFrame) -> dict[str, str]:
    """One sentence per set: Y-Net against its twin without segmentation, run by run."""
    found = {}
    for name, dataset, group, variant in (
        ("busbra", "busbra", "full", ""),
        ("phantom", "phantom", "quick", ""),
        ("phantom-plain", "phantom", "quick", "confounding=0"),
    ):
        chosen = select(runs, dataset, group, variant)
        chosen = chosen[chosen["method"].isin(["ynet", "ynet-no-seg"])]
        if chosen["method"].nunique() < 2:
            continue
        table = tables.lift(chosen, "ynet", "ynet-no-seg")
        points, percent = table["points"], table["per cent"]
        found[name] = (
            f"mAP@10 of Y-Net minus its twin: {points.mean():+.1f} points on average over {len(table)} seeds "
            f"({points.min():+.1f} to {points.max():+.1f}), which is {percent.mean():+.0f} % "
            f"({percent.min():+.0f} to {percent.max():+.0f} %)."
        )
    return found


def fill_readme(text: str, blocks: dict[str, str]) -> str:
    """``text`` with every marked block replaced. Raises ``ValueError`` for a block without its marks."""
    for name, block in blocks.items():
        text, count = re.subn(
            rf"(<!-- {re.escape(name)} -->\n).*?(\n<!-- /{re.escape(name)} -->)",
            lambda m, b=block: m[1] + b + m[2],
            text,
            flags=re.DOTALL,
        )
        if count != 1:
            raise ValueError(f"README.md: needs exactly one block <!-- {name} --> ... <!-- /{name} -->, found {count}")
    return text


def query_page() -> object:
    """The shipped phantom model at work: one query of each disease (the first in the manifest) and its ten nearest cases."""
    checkpoint, _ = load_shipped("phantom-quick")
    cfg = checkpoint.cfg
    cases = load_cases(cfg.but(size=96))
    small = load_cases(cfg)
    (database, queries), (shown_database, shown_queries) = small.split(cfg.fold), cases.split(cfg.fold)
    found, base = (encode_floats(checkpoint.model, cfg, part) for part in (queries, database))
    rows = [int(np.flatnonzero(queries.labels == c)[0]) for c in np.unique(queries.labels)]
    return plots.retrieval_page(shown_queries, shown_database, rows, distances(cfg, found, base))


def make_all(folder: Path, runs: pd.DataFrame | None = None) -> list[Path]:
    """Write every published figure and table into ``folder``; returns the files."""
    plots.use_style()
    runs = results.read_runs() if runs is None else runs
    made = [write_text(folder / "tables.md", results_text(runs))]
    for dataset, group, variant in sets(runs):
        chosen = select(runs, dataset, group, variant)
        chance = chance_rows(dataset, group)
        levels = None if chance is None else chance.set_index(["metric", "k"])["value"].to_dict()
        name = "-".join(part for part in (dataset, group, variant.replace("=", "")) if part)
        shown = [("map", 10), ("precision", 10), ("ndcg", 10)]
        made.append(plots.save(plots.method_dots(chosen, shown, levels), folder / f"methods-{name}.png"))
    made.append(plots.save(query_page(), folder / "queries-phantom.png"))
    return made


def write_text(path: Path, text: str) -> Path:
    """Write a text file under a temporary name and rename it."""
    with paths.replacing(path) as temporary:
        temporary.write_text(text)
    return path


def main() -> int:
    """Rebuild ``figures/`` and the README's tables from the committed rows."""
    runs = results.read_runs()
    if runs.empty:
        print(f"no rows in {paths.results() / 'runs'}; nothing to draw")
        return 1
    for path in make_all(paths.root() / "figures", runs):
        print(path.relative_to(paths.root()))
    readme = paths.root() / "README.md"
    write_text(readme, fill_readme(readme.read_text(), readme_blocks(runs)))
    print("README.md (its tables)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
