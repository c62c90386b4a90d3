"""Tables from result rows: what README, notebooks and ``make figures`` show. Nothing here trains or evaluates."""

import re
import zlib
from collections.abc import Sequence
from html import escape

import pandas as pd
from pandas.io.formats.style import Styler

from ..methods import METHOD_NAMES, OURS, TWIN
from .statistics import interval_text, p_text
from .store import seeds_averaged, summary

#: Columns of the main table: (metric, k) and its heading.
MAIN = {
    ("map", 10): "mAP@10",
    ("precision", 10): "P@10",
    ("map_macro", 10): "mAP@10, macro",
    ("ndcg", 10): "NDCG@10",
    ("mask_agreement", 10): "mask agreement@10",
    ("accuracy", 10): "accuracy",
    ("distinct_codes", 0): "distinct codes",
    ("tied_at_k", 10): "tied at 10",
    ("dice", 0): "Dice",
}

LISTS = {("map", k): f"mAP@{k}" for k in (5, 10, 20, 50)}


def number(mean: float, sd: float, runs: int) -> str:
    """``.765 ± .004``; three decimals below ten, one above; a dash where there is nothing; no spread for a single run."""
    if pd.isna(mean):
        return "-"
    if runs < 2 and float(mean).is_integer() and mean > 1:
        return f"{mean:.0f}"
    shown = [mean] if runs < 2 or pd.isna(sd) else [mean, sd]
    if abs(mean) >= 10:
        return " ± ".join(f"{value:.1f}" for value in shown)
    return " ± ".join(f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}" for value in shown)


def retrieval_table(runs: pd.DataFrame, columns: dict[tuple[str, int], str] | None = None, chance: pd.DataFrame | None = None):
    """Methods x metrics as text, mean ± standard deviation, in the fixed order of methods.

    Over seeds where all rows are of one fold; over folds, each the mean of its seeds, where there are several. "runs" counts the
    trainings. ``runs``: rows of one data set, preset and variant. ``chance``: `metrics.chance`, added as a last line. Raises
    ``ValueError`` when rows of several sets would be averaged together.
    """
    columns = MAIN if columns is None else columns
    # numbers of different kinds must not be averaged together
    kinds = [("", runs, "dataset"), ("", runs, "variant")]
    kinds += [(f", method {name}", part, "config_hash") for name, part in runs.groupby("method")]
    for where, part, column in kinds:
        values = sorted(map(str, part[column].unique()))
        if len(values) > 1:
            raise ValueError(f"retrieval_table{where}: rows of several {column}s ({', '.join(values)}); filter to one first")
    unnamed = sorted(set(runs["method"]) - set(METHOD_NAMES))
    if unnamed:
        raise ValueError(f"retrieval_table: methods {unnamed} have no title in ynet_lite.methods")
    means = summary(seeds_averaged(runs) if runs["fold"].nunique() > 1 else runs, columns, by=("method",))
    lines = []
    for method in [m for m in METHOD_NAMES if m in means.index]:
        line = {"method": METHOD_NAMES[method], "runs": int(runs[runs["method"] == method]["run_id"].nunique())}
        for (metric, k), heading in columns.items():
            name = f"{metric}@{k}" if k else metric
            line[heading] = number(*(means.loc[method, (name, part)] for part in ("mean", "sd", "runs")))
        lines.append(line)
    if chance is not None:
        values = chance.set_index(["metric", "k"])["value"]
        line = {"method": "chance (random codes)", "runs": ""}
        lines.append(line | {heading: number(values.get(key, float("nan")), 0, 1) for key, heading in columns.items()})
    return pd.DataFrame(lines)


def pick(metrics: str) -> dict[tuple[str, int], str]:
    """Those columns of `MAIN` whose metrics are named, with blanks between them."""
    return {key: heading for key, heading in MAIN.items() if key[0] in metrics.split()}


def points(row: pd.Series, what: str = "points", digits: int = 1) -> str:
    """The difference in one row of `statistics.compare_methods`, with its interval. what : "points" or "percent"."""
    return interval_text(*(row[what + end] for end in ("", "_low", "_high")), digits=digits)


def comparison_table(compared: pd.DataFrame) -> pd.DataFrame:
    """`statistics.compare_methods` as text: mean of each rival, difference in points and in per cent with 95 % intervals, p."""
    return pd.DataFrame(
        {
            "Y-Net against": METHOD_NAMES[row["method"]],
            "its mAP@10": number(row["mean_rival"], float("nan"), 1),
            "Y-Net's": number(row["mean_ours"], float("nan"), 1),
            "points": points(row),
            "per cent": points(row, "percent", 0),
            "p (Holm)": p_text(row["p_holm"], row["p_least"]),
            "patients": row["patients"],
            "folds x seeds": row["runs_rival"],
        }
        for _, row in compared.iterrows()
    )


#: Metrics that must not be lost where mAP is won, and their headings: {metric: heading}.
BESIDE = {"map": "mAP@10", "ndcg": "NDCG@10", "mask_agreement": "mask agreement@10"}


def beside_table(compared: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Y-Net minus each rival in points of several metrics, each with its 95 % interval and Holm-corrected p.

    ``compared``: {metric: `statistics.compare_methods`} with the same rivals, keys among `BESIDE`. Order of the first table.
    """
    first = next(iter(compared.values()))
    table = pd.DataFrame({"Y-Net minus": [METHOD_NAMES[method] for method in first["method"]]})
    for metric, part in compared.items():
        part = part.set_index("method").loc[first["method"]]
        table[f"{BESIDE[metric]}, points"] = [points(row) for _, row in part.iterrows()]
        table[f"p, {BESIDE[metric]}"] = [p_text(p, least) for p, least in zip(part["p_holm"], part["p_least"], strict=True)]
    return table


class Shown(Styler):
    """A table of a notebook: HTML for its readers, and the same cells as plain text, which nbval compares."""

    def __repr__(self) -> str:
        return self.data.to_string(index=False)


def shown(table: pd.DataFrame, best: Sequence[str] = (), digits: int = 3, caption: str = "") -> Shown:
    """``table`` for a notebook: spreads lighter, the highest of each column in ``best`` bold.

    An index with a name becomes the first column. ``digits``: of floats; text stays. Raises ``ValueError`` for more than eight
    rows or seven columns.
    """
    table = table.reset_index() if table.index.name else table
    if table.shape[0] > 8 or table.shape[1] > 7:
        raise ValueError(f"shown: {table.shape[0]} rows, {table.shape[1]} columns; at most 8 and 7, the rest belongs to docs/")

    def words(value) -> str:
        if isinstance(value, str) or pd.isna(value):
            return value if isinstance(value, str) else "-"
        return f"{value:,.{digits if isinstance(value, float) else 0}f}"

    def markup(value: str) -> str:
        return re.sub(r"( ± .*| \[.*\])$", r'<small style="opacity: .75">\1</small>', escape(value))

    text = table.astype(object).map(words)
    name = f"{zlib.crc32(text.to_csv().encode()):08x}"  # the same table, the same HTML
    style = Shown(text, uuid=name, cell_ids=False, caption=caption or None).hide(axis="index").format(markup)
    for column in best:
        numbers = text[column].str.extract(r"([-+]?[\d,]*\.?\d+)")[0].str.replace(",", "").astype(float)
        style.format(lambda value: f"<b>{markup(value)}</b>", subset=(numbers == numbers.max(), column))
    left = {"selector": "th.col0, td.col0, caption", "props": "text-align: left"}
    return style.set_table_styles([{"selector": "th, td", "props": "text-align: right; padding: .2em .6em"}, left])


def markdown(table: pd.DataFrame) -> str:
    """A GitHub table."""
    head = "| " + " | ".join(map(str, table.columns)) + " |"
    rule = "|" + "|".join(" --- " if i == 0 else " ---: " for i in range(len(table.columns))) + "|"
    body = ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join([head, rule, *body])


def lift(runs: pd.DataFrame) -> pd.Series:
    """Points of mAP@10 of Y-Net minus its twin, by seed; ``runs``: rows of one set, variant and fold."""
    wide = runs[(runs["metric"] == "map") & (runs["k"] == 10)].pivot(index="seed", columns="method", values="value")
    return 100 * (wide[OURS] - wide[TWIN]).dropna()
