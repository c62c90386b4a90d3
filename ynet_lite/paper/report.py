"""``make figures``: every table and figure from committed rows, codes and weights. Trains nothing; same rows, same bytes."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .. import drawing, methods, paths
from ..encoding import distances, encode_floats
from ..methods import AGGREGATED, PAPER_METHODS, RIVALS
from ..search import load_shipped
from ..sets import load_cases
from . import statistics, tables
from .ablations import ablated, draw, pages
from .ambiguity import page
from .select import (
    HEADLINE_FOLDS,
    OTHER_SETS,
    chance_rows,
    complete,
    headline,
    headline_folds,
    others,
    parts,
    published,
    select,
    sets,
    validated,
)


def others_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Every method of `others` with Y-Net's lead over it: points, 95 % interval by patient (BUSI: cluster), Holm within a set."""
    columns = {key: tables.MAIN[key] for key in [("map", 10), ("map_macro", 10), ("ndcg", 10), ("distinct_codes", 0)]}
    found = []
    for name, part in others(runs).items():
        table = tables.retrieval_table(part, columns, chance_rows(name, "full"))
        table.insert(0, "set", OTHER_SETS[name][0])
        compared = comparison(part)
        if compared is not None:
            lead = tables.comparison_table(compared).rename(columns={"Y-Net against": "method", "points": "Y-Net minus it"})
            table = table.merge(lead[["method", "Y-Net minus it", "p (Holm)"]], how="left").fillna("-")
        found.append(table)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def comparison(part: pd.DataFrame, metric: str = "map", without: Sequence[str] = ()) -> pd.DataFrame | None:
    """Y-Net against every other method of a table, paired by patient (`statistics.compare_methods`); None without rivals.

    A method that is the same training as Y-Net under this preset is no rival and would only inflate the family of tests.
    ``without``: ids of cases that are not counted as queries.
    """
    ours = set(part[part["method"] == "ynet"]["config_hash"])
    rivals = [m for m in methods.METHOD_NAMES if m in set(part[~part["config_hash"].isin(ours)]["method"])]
    if not ours or not rivals:
        return None
    first = part.iloc[0]
    group = "full" if first["preset"] == "paper" else first["preset"]
    folds = sorted(part["fold"].unique())
    return statistics.compare_methods(
        "ynet", rivals, first["dataset"], group, folds, metric, variant=first["variant"], without=without, runs=part
    )


def unseen_text(part: pd.DataFrame, compared: pd.DataFrame) -> str:
    """The margin over the twin and over the best rivals on those queries of BUS-BRA that no trial had ranked, in one sentence.

    part : the rows of a table. compared : its `comparison`, by which the best rivals are chosen.
    """
    rivals = [m for m in compared["method"] if m in (*RIVALS, *AGGREGATED)]  # best first
    best = [*rivals[:1], *[m for m in rivals if m in PAPER_COMPARATORS][:1]]
    named = [m for m in dict.fromkeys(["ynet-no-seg", *best]) if m in set(compared["method"])]
    unseen = comparison(part[part["method"].isin(["ynet", *named])], without=sorted(validated()))
    if unseen is None:
        return ""
    lines = []
    for method in named:
        row = unseen.set_index("method").loc[method]
        points = statistics.interval_text(row["points"], row["points_low"], row["points_high"])
        lines.append(f"{points} over {'its twin' if method == 'ynet-no-seg' else methods.METHOD_NAMES[method]}")
    total, left = compared["queries"].iloc[0], unseen["queries"].iloc[0]
    return (
        f"Of these {total:,} queries, {total - left} were validation cases while settings were chosen on fold 1. On the other "
        f"{left}, Y-Net's lead in mAP@10, in points: {', '.join(lines)}."
    )


#: The methods the paper compares itself with that are run here; those that aggregate features also as 64-bit codes.
PAPER_COMPARATORS = tuple(f"{name}{tail}" for name in ("cam", "crow", "rmac", "regional-attention") for tail in ("", "-itq"))

PAPER_COMPARATORS += ("dsh", "dpsh", "drh", "ash", "ath")

#: By how much the paper beats the best of its comparators on a list of 10, averaged over its two sets (read as points).
PAPER_MARGIN = 9.27


def margin_text(compared: pd.DataFrame) -> str:
    """One sentence for the best of the paper's comparators and one for the best of all rivals. ``compared``: of `comparison`.

    Rivals are the methods with no part of Y-Net in them. The best is chosen after the fact, on the queries of the table, which
    can only make the margin smaller. Empty without any rival.
    """
    rivals = compared[compared["method"].isin([*RIVALS, *AGGREGATED])]
    found = []
    for name, part in (("the paper's comparators", rivals[rivals["method"].isin(PAPER_COMPARATORS)]), ("all rivals", rivals)):
        if part.empty:
            continue
        best = part.loc[part["mean_rival"].idxmax()]
        points = statistics.interval_text(best["points"], best["points_low"], best["points_high"])
        percent = statistics.interval_text(best["percent"], best["percent_low"], best["percent_high"], digits=0)
        p = statistics.p_text(best["p_holm"], best["p_least"])
        found.append(
            f"The best of {name} ({len(part)} were run) is {methods.METHOD_NAMES[best['method']]}: Y-Net's mAP@10 minus its own "
            f"is {points} points, or {percent} %, p {p if p[0] in '<≤' else '= ' + p}."
        )
    return " ".join(found) + (
        f" The paper reports {PAPER_MARGIN} points over its best comparator, averaged over its own two sets." if found else ""
    )


def results_text(runs: pd.DataFrame) -> str:
    """All tables as one Markdown page."""
    text = [
        "# Results\n\nMade by `make figures` from the rows in `data/results/`. Mean ± standard deviation over seeds, or over "
        "folds where there are several; ties at their expected value. BUSI names no patients: there, clusters of near-duplicates "
        "take their place. Not a medical device.\n"
    ]
    for dataset, group, variant in sets(runs):
        chosen = select(runs, dataset, group, variant)
        title = f"## {dataset}, preset {group}" + (f", {variant}" if variant else "")
        text += [title + "\n"]
        for name, part in parts(chosen):
            folds = ", ".join(str(f) for f in sorted(part["fold"].unique()))
            seeds = ", ".join(str(s) for s in sorted(part["seed"].unique()))
            text += [f"### {name}\n"] if name else []
            text += [f"Fold {folds}; seeds {seeds}.\n"]
            text += [tables.markdown(tables.retrieval_table(part, chance=chance_rows(dataset, group))) + "\n"]
            text += ["mAP by length of the list:\n", tables.markdown(tables.retrieval_table(part, tables.LISTS)) + "\n"]
            compared = comparison(part)
            if compared is not None:
                text += [
                    "mAP@10 query by query, seeds averaged first; 95 % intervals by bootstrap of patients, sign-flip permutation "
                    "of patients, Holm's correction over this table:\n",
                    tables.markdown(tables.comparison_table(compared)) + "\n",
                ]
                margin = margin_text(compared) if dataset != "phantom" else ""
                text += [margin + "\n"] if margin else []
                if dataset == "busbra" and set(part["fold"]) == set(HEADLINE_FOLDS):
                    text += [unseen_text(part, compared) + "\n"]
                if set(part["fold"]) == set(headline_folds(part)):
                    beside = {metric: compared if metric == "map" else comparison(part, metric) for metric in tables.BESIDE}
                    text += [
                        "What a higher mAP must not cost: graded relevance, and the overlap of the query's lesion with its "
                        "answers'. Intervals and p as above, Holm's correction within each metric:\n",
                        tables.markdown(tables.beside_table(beside)) + "\n",
                    ]
    return "\n".join([*text, pages.text(runs)])


def readme_blocks(runs: pd.DataFrame) -> dict[str, str]:
    """What stands between ``<!-- name -->`` and ``<!-- /name -->`` in the README."""
    short = {key: tables.MAIN[key] for key in [("map", 10), ("precision", 10), ("ndcg", 10), ("distinct_codes", 0), ("dice", 0)]}
    blocks = {}
    for name, dataset, group in (("busbra", "busbra", "full"), ("phantom", "phantom", "quick")):
        chosen = select(runs, dataset, group)
        if len(chosen):
            if dataset == "busbra":
                first = complete(chosen, (1,))
                first = first[first["method"].isin(["ynet", "ynet-no-seg", *PAPER_METHODS])]
                blocks["busbra-fold1"] = tables.markdown(tables.retrieval_table(first, short, chance_rows(dataset, group)))
            chosen = headline(chosen)
            # rivals stand in the comparison below, and all of them in figures/tables.md
            few = (
                ["ynet", "ynet-no-seg", *PAPER_METHODS]
                if dataset == "busbra"
                else [*methods.METHOD_NAMES][: [*methods.METHOD_NAMES].index("dsh")]
            )
            shown = chosen[chosen["method"].isin(few)]
            blocks[name] = tables.markdown(tables.retrieval_table(shown, short, chance_rows(dataset, group)))
            compared = comparison(chosen) if dataset == "busbra" else None
            if compared is not None:
                rivals = compared[compared["method"].isin(["ynet-no-seg", *RIVALS, *AGGREGATED])]
                beside = tables.retrieval_table(chosen, {key: short[key] for key in [("ndcg", 10), ("distinct_codes", 0)]})
                table = tables.comparison_table(rivals).drop(columns=["Y-Net's", "patients"])
                table = table.merge(beside.rename(columns={"method": "Y-Net against"}).drop(columns="runs"), how="left")
                blocks["comparison"] = tables.markdown(table)
                blocks["margin"] = margin_text(compared) or "No rival has been run on these folds yet."
                blocks["unseen"] = unseen_text(chosen, compared)
    blocks["balance"] = ablated.balance_text(ablated.balance(runs, "busbra", "full")) or "The balance was not run yet."
    other = others_table(runs)
    blocks["other-sets"] = tables.markdown(other) if len(other) else "No other set has been run yet."
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
        chosen = headline(select(runs, dataset, group, variant))
        chosen = chosen[chosen["method"].isin(["ynet", "ynet-no-seg"])]
        if chosen["method"].nunique() < 2:
            continue
        table = tables.lift(chosen, "ynet", "ynet-no-seg", by=("fold", "seed"))
        points, percent = table["points"], table["per cent"]
        times = f"{len(table)} pairs of runs, each of one fold and seed" if table["fold"].nunique() > 1 else f"{len(table)} seeds"
        found[name] = (
            f"mAP@10 of Y-Net minus its twin: {points.mean():+.1f} points on average over {times} "
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
    return drawing.retrieval_page(shown_queries, shown_database, rows, distances(cfg, found, base))


def make_all(folder: Path, runs: pd.DataFrame | None = None) -> list[Path]:
    """Write every published figure and table into ``folder``; returns the files."""
    drawing.use_style()
    runs = published() if runs is None else runs
    made = [write_text(folder / "tables.md", results_text(runs))]
    for dataset, group, variant in sets(runs):
        chosen = select(runs, dataset, group, variant)
        chance = chance_rows(dataset, group)
        levels = None if chance is None else chance.set_index(["metric", "k"])["value"].to_dict()
        name = "-".join(part for part in (dataset, group, variant.replace("=", "").replace(" ", "-")) if part)
        shown = [("map", 10), ("precision", 10), ("ndcg", 10)]
        shown_runs = headline(chosen)
        made.append(drawing.save(drawing.method_dots(shown_runs, shown, levels), folder / f"methods-{name}.png"))
    made += draw.make(folder, runs)
    made += page.make(folder)
    made.append(drawing.save(query_page(), folder / "queries-phantom.png"))
    return made


def write_text(path: Path, text: str) -> Path:
    """Write a text file under a temporary name and rename it."""
    with paths.replacing(path) as temporary:
        temporary.write_text(text)
    return path


def main() -> int:
    """Rebuild ``figures/`` and the README's tables from the committed rows."""
    runs = published()
    if runs.empty:
        print(f"no rows in {paths.results()}; nothing to draw")
        return 1
    for path in make_all(paths.root() / "figures", runs):
        print(path.relative_to(paths.root()))
    readme = paths.root() / "README.md"
    write_text(readme, fill_readme(readme.read_text(), readme_blocks(runs)))
    print("README.md (its tables)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
