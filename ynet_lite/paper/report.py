"""``make figures``: every table and figure from committed rows, codes and weights. Trains nothing; same rows, same bytes."""

import argparse
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from .. import drawing, methods, metrics, paths
from ..cases.loading import resize_cases
from ..encoding import distances, encode_floats
from ..hashing import hamming
from ..methods import AGGREGATED, METHOD_NAMES, OURS, PAPER_METHODS, RIVALS, TWIN
from ..provenance import run_id
from ..search import SHIPPED, load_shipped
from ..sets import load_cases
from . import hypotheses, scanner, select, shares, statistics, store, tables, tissue, weights
from .ablations import ablated, pages, plots
from .ambiguity import page
from .ambiguity.plots import before_after
from .second import CONTROLS


def scores(part: pd.DataFrame, metrics: str) -> pd.DataFrame:
    """Methods x metrics of one set as text, beside its chance level."""
    return tables.retrieval_table(part, tables.pick(metrics), select.chance_rows(*part[["dataset", "preset"]].iloc[0]))


def with_lead(part: pd.DataFrame, metrics: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Methods x metrics of one set with Y-Net's lead over each (points, Holm within the set), and the `comparison` behind it."""
    compared = comparison(part)
    lead = tables.comparison_table(compared).rename(columns={"Y-Net against": "method", "points": "Y-Net minus it"})
    lead = lead[["method", "Y-Net minus it", "p (Holm)"]]
    return scores(part, metrics).merge(lead, how="left").fillna("-"), compared


def others_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Every method on each set of `select.OTHER_SETS`; Y-Net's lead in points, 95 % interval by patient (BUSI: cluster), Holm."""
    found = []
    for name, (title, _) in select.OTHER_SETS.items():
        table, _ = with_lead(select.headline(select.select(runs, name, "full")), "map map_macro ndcg distinct_codes")
        table.insert(0, "set", title)
        found.append(table)
    return pd.concat(found, ignore_index=True)


_COMPARED: dict[tuple, pd.DataFrame] = {}


def comparison(part: pd.DataFrame, metric: str = "map", without: Sequence[str] = ()) -> pd.DataFrame:
    """Y-Net against every other method of a table, paired by patient (`statistics.compare_methods`).

    A method that is the same training as Y-Net under this preset is no rival and would only inflate the family of tests.
    ``without``: ids of cases that are not counted as queries.
    """
    ours = set(part[part["method"] == OURS]["config_hash"])
    others = set(part[~part["config_hash"].isin(ours)]["method"])
    rivals = [m for m in METHOD_NAMES if m in others]
    asked = paths.results(), tuple(part["run_id"].unique()), tuple(rivals), metric, tuple(without)
    if asked not in _COMPARED:  # several tables and pages ask the same
        _COMPARED[asked] = statistics.compare_methods(OURS, rivals, part, metric, without=without)
    return _COMPARED[asked].copy()


def unseen_text(part: pd.DataFrame, compared: pd.DataFrame, metric: str = "map") -> str:
    """The margin over the twin and the best rivals on those queries of BUS-BRA that no trial of the first edition had ranked.

    part : the rows of a table. compared : its `comparison`, by which the best rivals are chosen.
    """
    rivals = [m for m in compared["method"] if m in (*RIVALS, *AGGREGATED)]  # best first
    best = [*rivals[:1], *[m for m in rivals if m.removesuffix("-itq") in PAPER_COMPARATORS][:1]]
    named = [m for m in dict.fromkeys([TWIN, *best]) if m in set(compared["method"])]
    unseen = comparison(part[part["method"].isin([OURS, *named])], metric, sorted(select.validated()))
    names = METHOD_NAMES | {TWIN: "its twin"}
    lines = [f"{tables.points(unseen.set_index('method').loc[method])} over {names[method]}" for method in named]
    total, left = compared["queries"].iloc[0], unseen["queries"].iloc[0]
    return (
        f"Of these {total:,} queries, {total - left} were validation cases while the first edition chose settings. On the other "
        f"{left}, Y-Net's lead in {tables.MAIN[metric, 10]}, in points: {', '.join(lines)}."
    )


#: The methods the paper compares itself with, as far as they are run here. The aggregations stand in the tables twice.
PAPER_COMPARATORS = ("cam", "crow", "rmac", "regional-attention", "dsh", "dpsh", "drh", "ash", "ath")


def lookup_text(part: pd.DataFrame) -> str:
    """The look-up baseline beside Y-Net's ranking: its mAP is the accuracy of the vote. ``part``: the rows of one table."""
    means = store.summary(store.seeds_averaged(part), [("map", 10), ("accuracy", 10)], by=("method",))
    ours, votes = means.loc[OURS, ("map@10", "mean")], means[("accuracy@10", "mean")]
    above = [method for method in (OURS, TWIN, *RIVALS) if method in votes.index and votes[method] > ours]
    listed = ", ".join(f"{METHOD_NAMES[method]} {tables.number(votes[method], np.nan, 1)}" for method in above)
    asked = store.per_query(part[part["method"] == OURS]["run_id"].unique(), "map", 10)["case_id"].unique()
    classes = pd.read_csv(paths.splits() / "busbra_devices.csv", dtype=str).set_index("case_id").loc[asked, "label"]
    common = classes.value_counts(normalize=True)
    return (
        f"Y-Net's mAP@10 is {tables.number(ours, np.nan, 1)}. A look-up scores higher with the codes of: {listed}. "
        f"A look-up that sees no image and always lists {common.index[0]} cases has {tables.number(common.iloc[0], np.nan, 1)}."
    )


def ranking(part: pd.DataFrame, name: str = "", most: int = 12) -> Figure:
    """The methods of one table in two groups, with and without outlines, each sorted: a dot per training, a bar for the mean.

    Beside them chance and the look-up with the twin's votes. A training with two names is shown once. Of more than ``most``
    methods those that the paper is about stay, and the best others fill up. ``name``: a title.
    """
    votes = part[(part["method"] == TWIN) & (part["metric"] == "accuracy") & (part["k"] == 10)]
    lookup = {("map", 10): votes["value"].mean()} if len(votes) else {}
    levels = ("chance", ":", plots.chance_level(*part[["dataset", "preset"]].iloc[0])), ("look-up", "--", lookup)
    panels = [("map", 10), ("ndcg", 10), ("mask_agreement", 10)]
    first = part[(part["metric"] == "map") & (part["k"] == 10)]
    first = first.assign(own=first["method"] == OURS).sort_values("own", ascending=False)
    first = first[first["method"].isin(first.drop_duplicates(["config_hash", "fold", "seed"])["method"])]
    means = first.groupby("method")["value"].mean().drop("ynet-no-cls", errors="ignore").sort_values(ascending=False)
    always = [m for m in (OURS, TWIN, "ynet-circle", "ynet-paper", "released") if m in means.index]
    kept = {*always, *[m for m in means.index if m not in always][: max(most - len(always), 0)]}
    groups = {"with outlines": [], "without": []}
    for method in [m for m in means.index if m in kept]:
        groups["with outlines" if methods.reads_outlines(method) else "without"].append(METHOD_NAMES[method])
    shown = part[part["method"].isin(kept)].assign(name=part["method"].map(METHOD_NAMES))
    order = [line for group, members in groups.items() if members for line in (group, *members)]
    figure, axes = plt.subplots(1, len(panels), figsize=(2.4 * len(panels) + 2.2, 0.27 * len(order) + 0.9), sharey=True)
    look = {"x": "value", "y": "name", "hue": "name", "order": order, "legend": False}
    look["palette"] = {line: drawing.BLUE if line in groups["with outlines"] else drawing.GREY for line in order}
    for axis, (metric, k) in zip(axes, panels, strict=True):
        values = shown[(shown["metric"] == metric) & (shown["k"] == k)]
        sns.stripplot(values, **look, jitter=False, size=4, alpha=0.4, ax=axis)
        sns.pointplot(values, **look, errorbar=None, ls="none", marker="|", markersize=14, markeredgewidth=2.5, ax=axis)
        for what, line, level in levels:
            if (value := level.get((metric, k))) is not None:
                axis.axvline(value, color="black", ls=line, lw=1)
                axis.annotate(what, (value, 0), xytext=(3, 0), textcoords="offset points", fontsize=8, va="center")
        axis.set(xlabel=tables.MAIN[metric, k], ylabel="")
    for label in axes[0].get_yticklabels():
        label.set(fontweight="bold" if label.get_text() in groups else "normal")
    if len(means) > len(kept):
        axes[0].set_ylabel(f"{len(kept)} of {len(means)} methods")
    figure.suptitle(name or None)
    return figure


def dsh_text() -> str:
    """An earlier form of DSH and the one that stands in the tables: best validation score and distinct codes."""
    earlier = pd.read_csv(paths.results() / "tuning" / "busbra_dsh_earlier_trials.csv")
    later = store.small("tuning/trials").query("dataset == 'busbra' and preset == 'full' and method == 'dsh'")
    scores = [
        f"{tables.number(best['val_map10'], np.nan, 1)} with {best['distinct_val_codes']:.0f} distinct codes"
        for best in (trials.loc[trials["val_map10"].idxmax()] for trials in (earlier, later))
    ]
    return (
        "An earlier form of our DSH averaged same-class pairs and other pairs apart: the best of its six validation trials "
        f"scored {scores[0]}. The form that was kept follows the printed equation and weighs same-class pairs: {scores[1]}. "
        "The earlier form was not run on the folds."
    )


def results_text(runs: pd.DataFrame) -> str:
    """All tables as one Markdown page."""
    text = [
        "# All tables\n\nMade by `make figures` from the rows in `data/results/`. Mean ± standard deviation over seeds, or over "
        "folds where there are several; ties at their expected value. BUSI names no patients: there, clusters of near-duplicates "
        "take their place. Not a medical device.\n"
    ]
    for dataset, group, variant in select.sets(runs):
        chosen = select.select(runs, dataset, group, variant)
        title = f"## {dataset}, preset {group}" + (f", {variant}" if variant else "")
        text.append(title + "\n")
        if dataset == "busi":
            text.append("No claim rests on these rows: see `docs/results.md`, *Other sets*.\n")
        for name, part in select.parts(chosen):
            folds, seeds = (", ".join(map(str, sorted(part[column].unique()))) for column in ("fold", "seed"))
            text += [f"### {name}\n"] if name else []
            text += [f"Fold {folds}; seeds {seeds}.\n", tables.retrieval_table(part, chance=select.chance_rows(dataset, group))]
            text += ["mAP by length of the list:\n", tables.retrieval_table(part, tables.LISTS)]
            compared = comparison(part)
            text += [
                "mAP@10 query by query, seeds averaged first; 95 % intervals by bootstrap of patients, sign-flip permutation "
                "of patients, Holm's correction over this table:\n",
                tables.comparison_table(compared),
            ]
            if dataset == "busbra" and set(part["fold"]) == set(select.HEADLINE_FOLDS):
                text += [unseen_text(part, compared) + "\n", lookup_text(part) + "\n"]
            if set(part["fold"]) == set(select.headline_folds(part)):
                text += [
                    "What a higher mAP must not cost: graded relevance, and the overlap of the query's lesion with its "
                    "answers'. Intervals and p as above, Holm's correction within each metric:\n",
                    tables.beside_table({"map": compared} | {name: comparison(part, name) for name in list(tables.BESIDE)[1:]}),
                ]
    text = [one if isinstance(one, str) else tables.markdown(one) + "\n" for one in text]
    return "\n".join([*text, pages.text(runs)])


def trainings_table(chosen: pd.DataFrame) -> pd.DataFrame:
    """Y-Net minus its twin and the two best rivals in mAP@10: by patients alone, with trainings too, and by folds."""
    lines, runs = [], {method: part for method, part in chosen.groupby("method")}
    ours, each = (make(runs[OURS]) for make in (statistics.per_query_table, statistics.per_run_table))
    for method in (TWIN, "hashnet", "dpsh"):
        other = statistics.per_query_table(runs[method])
        with_trainings = statistics.trainings_interval(each, statistics.per_run_table(runs[method]))
        patients = statistics.paired(ours, other, ours)
        line = {"Y-Net minus": METHOD_NAMES[method], "trainings": f"{patients.runs_a}, {patients.runs_b}"}
        line |= {"other patients": statistics.interval_text(*patients.difference)}
        line |= {"other patients and trainings": statistics.interval_text(*with_trainings)}
        lines.append(line | {"p, corrected t over folds": statistics.p_text(statistics.corrected_t(ours, other)[1])})
    return pd.DataFrame(lines)


def headline_table(chosen: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """Five rows: Y-Net, its twin, the best method with no part of Y-Net, the look-up with the twin's votes, chance."""
    best = next(method for method in compared["method"] if method in (*RIVALS, *AGGREGATED, *methods.names("frozen")))
    table = scores(chosen[chosen["method"].isin([OURS, TWIN, best])], "map ndcg mask_agreement accuracy").drop(columns="runs")
    table["method"] = table["method"].replace({METHOD_NAMES[best]: f"{METHOD_NAMES[best]} (best rival)"})
    votes = table.loc[table["method"] == METHOD_NAMES[TWIN], "accuracy"].item()
    lookup = {"method": "look-up with the twin's votes", "mAP@10": votes, "accuracy": votes}
    return pd.concat([table[:-1], pd.DataFrame([lookup]), table[-1:]], ignore_index=True).fillna("-")


def page_blocks(runs: pd.DataFrame) -> dict[str, Callable[[], str]]:
    """What makes the text between ``<!-- name -->`` and ``<!-- /name -->`` in the pages of `PAGES`."""
    markdown, few = tables.markdown, [OURS, TWIN, "ynet-circle"]

    def shown(part: pd.DataFrame, methods: Sequence[str]) -> str:
        return markdown(scores(part[part["method"].isin(methods)], "map precision ndcg accuracy distinct_codes dice"))

    def beside(part: pd.DataFrame) -> str:
        return markdown(tables.beside_table({metric: comparison(part, metric) for metric in tables.BESIDE}))

    def against() -> str:
        compared = comparison(chosen)
        rivals = compared[compared["method"].isin([*few[1:], *RIVALS, *AGGREGATED])]
        beside = tables.retrieval_table(chosen, tables.pick("ndcg accuracy distinct_codes")).drop(columns="runs")
        table = tables.comparison_table(rivals).drop(columns=["Y-Net's", "patients"])
        return markdown(table.merge(beside.rename(columns={"method": "Y-Net against"}), how="left"))

    busbra, phantom = select.select(runs, "busbra", "full"), select.select(runs, "phantom", "quick")
    chosen = select.headline(busbra)
    near = chosen[chosen["method"].isin([*few, "dpsh", "hashnet", "ath"])]
    busi = select.select(store.rows("second"), "busi", "scratch")
    begun = select.second("pretrained")
    board = cache(lambda: hypotheses.table(store.rows("second")))
    blocks = {
        "busbra-fold1": lambda: shown(select.complete(busbra, (1,)), [*few, *PAPER_METHODS]),
        "busbra": lambda: shown(chosen, [*few, *PAPER_METHODS]),
        "headline": lambda: markdown(headline_table(begun, comparison(begun))),
        "comparison": against,
        "unseen": lambda: unseen_text(chosen, comparison(chosen)),
        "lookup": lambda: lookup_text(chosen),
        "trainings": lambda: markdown(trainings_table(chosen)),
        "dsh": dsh_text,
        "beside": lambda: beside(near),
        "scanner": lambda: markdown(scanner.shared(chosen)),
        "crossed": lambda: markdown(scanner.crossed(chosen)),
        "imagenet-shared": lambda: markdown(scanner.shared(begun)),
        "imagenet-crossed": lambda: markdown(scanner.crossed(begun)),
        "scanners": lambda: markdown(scanner.scanners()),
        "imagenet-unseen-scanner": lambda: scanner.unseen(begun),
        "phantom": lambda: shown(phantom, [OURS, *methods.names("part")]),
        "phantom-lead": lambda: phantom_lead(runs),
        "balance": lambda: ablated.balance_text(ablated.table("balance", runs, "busbra", "full")),
        "other-sets": lambda: markdown(others_table(runs)),
        "busi-tuned": lambda: markdown(with_lead(busi, "map ndcg mask_agreement accuracy")[0]),
        "hypotheses": lambda: markdown(board()),
        "second-said": lambda: hypotheses.said(board()),
        "shares": lambda: markdown(shares.table(shares.committed())),
        "scratch": partial(second_table, "scratch"),
        "pretrained": partial(second_table, "pretrained"),
        "imagenet-beside": lambda: beside(begun),
        "scratch-beside": lambda: beside(select.second("scratch")),
        "scratch-hashnet": weights.hashnet,
        "weights": lambda: markdown(weights.table()),
        "side-by-side": weights.side_by_side,
        "imagenet-unseen": lambda: unseen_text(begun, comparison(begun), "ndcg"),
        "differences": lambda: markdown(weights.differences()),
        "matched": lambda: markdown(weights.matched()),
        "tenth": lambda: markdown(weights.matched("scratch-10", weights.PAIRS[:1])),
        "released": lambda: markdown(pages.published_table()),
        "ambiguity": page.page,
        "tried": tried,
        "commands": commands,
        "controls": controls,
        "tissue": tissue_text,
        "costs": lambda: markdown(pd.read_csv(paths.results() / "costs.csv", dtype=str).fillna("-")),
    }
    return blocks | {f"card-{name}": partial(card, name) for name in SHIPPED}


def second_table(preset: str) -> str:
    """BUS-BRA in the second edition, beside chance, with Y-Net's lead."""
    return tables.markdown(with_lead(select.second(preset), "map precision ndcg mask_agreement accuracy distinct_codes dice")[0])


def card(model: str) -> str:
    """The scores of a shipped network, beside chance, with the run that they stand in."""
    checkpoint, codes = load_shipped(model)
    run, cfg, runs = run_id(checkpoint.cfg), checkpoint.cfg, store.rows()
    table = scores(runs[runs["run_id"] == run], "map precision ndcg mask_agreement accuracy dice").drop(columns="runs")
    grid = "first" if cfg.encoder == "small" else "second/pretrained"
    where = f"Row `{run}` of `data/results/{grid}`: fold {cfg.fold}, one training, a database of {len(codes):,} cases."
    return f"{tables.markdown(table)}\n\n{where}"


def tried() -> str:
    """What was tried to make files and processes fail, how often, and how often it went wrong."""
    fuzz, kills = (pd.read_csv(paths.results() / "trust" / f"{name}.csv", dtype={"commit": str}) for name in ("fuzz", "kills"))
    lines = [(f"damaged files, {one.reader}", one.inputs, one.wrong, "-", "-") for one in fuzz.itertuples()]
    lines += [(f"kill -9, {one.work}", one.kills, one.torn, one.lost, one.left) for one in kills.itertuples()]
    table = pd.DataFrame(lines, columns=["what was tried", "how many", "wrong", "lost", "leftovers"])
    return f"{tables.markdown(table)}\n\nRun at commits {fuzz['commit'][0]} and {kills['commit'][0]} ({kills['date'][0]})."


def controls() -> str:
    """What the twin from scratch still finds when something was taken from the data."""
    rows = select.select(store.rows("second"), "busbra", "scratch", None)
    rows = rows[(rows["method"] == TWIN) & (rows["seed"] == 0)]
    folds, lines = select.HEADLINE_FOLDS, []
    for variant in ("", *CONTROLS):
        table = scores(rows[rows["variant"] == variant], "map ndcg accuracy")
        lines.append(table.assign(method=variant or "nothing taken away").iloc[0])
    alone = pd.read_csv(paths.results() / "trust" / "size-alone.csv").query("fold in @folds and k == 10")
    means, spread = (alone.groupby("metric")["value"].agg(what).reindex(["map", "ndcg", "accuracy"]) for what in ("mean", "std"))
    texts = [tables.number(*pair, len(folds)) for pair in zip(means, spread, strict=True)]
    lines.append(pd.Series(["none: height and width of the outline", len(folds), *texts], table.columns))
    lines.append(table.assign(method="none: random codes").iloc[-1])
    return tables.markdown(pd.DataFrame(lines).rename(columns={"method": "training", "runs": "folds"}))


def tissue_text() -> str:
    """Scores of queries in other tissue, and what it costs with and without outlines."""
    rows = pd.read_csv(paths.results() / "trust" / "tissue.csv.gz", dtype=store.TEXT)
    return f"{tables.markdown(tissue.table(rows))}\n\n{tissue.lost(rows)}"


def commands() -> str:
    """What the commands of `ynet` take, and how large a page of answers is."""
    rows = pd.read_csv(paths.results() / "benchmarks.csv")
    took, (page,) = rows[rows["reference"] == "ynet --help"], rows[rows["name"].str.startswith("page of")].to_dict("records")
    seconds = took["value"].map("{:.1f} s".format)
    table = pd.DataFrame({"command": took["name"].str.replace("^([^,]+)", r"`\1`", regex=True), "time": seconds})
    start, device = took["reference_value"].iloc[0], took["device"].iloc[0].removeprefix("cpu: ")
    said = f"The page of {page['size']} has {page['value']:.1f} MB; {page['reference_value']:.0f} MB is the limit."
    measured = f"Images of 330 x 330 pixels, processor time of one core of an {device}; starting takes {start:.1f} s of each."
    return f"{tables.markdown(table)}\n\n{measured} {said}"


def phantom_lead(runs: pd.DataFrame) -> str:
    """Y-Net against its twin on the phantom, with the confounded background and without it, in one sentence."""
    said = []
    for variant, words in (("", "with the confounded background"), ("confounding=0", "without it")):
        part = select.headline(select.select(runs, "phantom", "quick", variant))
        said.append(f"{tables.points(comparison(part[part['method'].isin([OURS, TWIN])]).iloc[0])} {words}")
    return f"mAP@10 of Y-Net minus its twin over all draws, in points: {', '.join(said)}."


#: Pages with blocks, from the root of the checkout.
PAGES = (
    *("README.md", "docs/results.md", "docs/how-to-run.md", "docs/model-cards.md", "docs/trust.md", "docs/own-images.md"),
    "figures/ambiguity.md",
)


def fill(text: str, blocks: dict[str, Callable[[], str]]) -> str:
    """``text`` with every marked block replaced. Raises ``ValueError`` for a mark that is unknown, doubled or not closed."""
    opened, closed = (re.findall(rf"^<!-- {slash}([\w-]+) -->$", text, re.MULTILINE) for slash in ("", "/"))
    if opened != closed or len(set(opened)) < len(opened) or set(opened) - set(blocks):
        raise ValueError(f"blocks must be known, once each and closed: opened {opened}, closed {closed}, known {sorted(blocks)}")
    block = re.compile(r"^(<!-- ([\w-]+) -->\n).*?(?=^<!-- /\2 -->$)", re.MULTILINE | re.DOTALL)
    return block.sub(lambda found: f"{found[1]}{blocks[found[2]]()}\n", text)


def filled(runs: pd.DataFrame) -> dict[Path, str]:
    """Every page of `PAGES` as it should be."""
    blocks = page_blocks(runs)
    return {path: fill(path.read_text(), blocks) for path in (paths.root() / name for name in PAGES)}


def query_page() -> Figure:
    """The shipped phantom network at work beside a hash of the pixels that learned nothing: two queries, ten nearest cases each.

    By rule: the query at nine tenths of the gain in average precision, and the one with the greatest loss. The hash has 64 bits
    too: which of 8 x 8 cells of the image are brighter than their mean.
    """
    checkpoint, _ = load_shipped("phantom-quick")
    cfg = checkpoint.cfg
    cases = load_cases(cfg.but(size=96))
    small = resize_cases(cases, cfg.size, cfg.channels)  # as `load_cases` does, without drawing the phantom again
    (database, queries), (shown_database, shown_queries) = small.split(cfg.fold), cases.split(cfg.fold)
    found, base = (encode_floats(checkpoint.model, cfg, part) for part in (queries, database))
    cells = [
        part.images.mean(1).reshape(len(part), 8, cfg.size // 8, 8, cfg.size // 8).mean((2, 4)) for part in (queries, database)
    ]
    hashes = [np.packbits(cell.reshape(-1, 64) > cell.mean((1, 2))[:, None], axis=1) for cell in cells]
    far = {"pixel hash": hamming(*hashes), "Y-Net": distances(cfg, found, base)}
    precision = {name: metrics.average_precision(one, metrics.same_class(queries, database), 10) for name, one in far.items()}
    order = np.argsort(precision["Y-Net"] - precision["pixel hash"], kind="stable")
    asked = [(row, name) for row in (order[round(0.9 * (len(order) - 1))], order[0]) for name in far]
    both, shown = np.stack([far[name][row] for row, name in asked]), shown_queries.take([row for row, _ in asked])
    figure = drawing.retrieval_page(shown, shown_database, range(len(asked)), both)
    for (_, name), axis in zip(asked, figure.axes[::11], strict=True):
        axis.set_ylabel(name, fontsize=10)
    return figure


def make_all(folder: Path, runs: pd.DataFrame) -> list[Path]:
    """Write every published figure and table into ``folder``; returns the files."""
    drawing.use_style()
    made = [paths.write_text(folder / "tables.md", results_text(runs))]
    for dataset, group, variant in select.sets(runs):
        chosen = select.select(runs, dataset, group, variant)
        name = "-".join(part for part in (dataset, group, variant.replace("=", "").replace(" ", "-")) if part)
        made.append(drawing.save(ranking(select.headline(chosen)), folder / f"methods-{name}.png"))
    made += plots.make(folder, runs)
    made.append(drawing.save(before_after(), folder / "ambiguity-phantom.png"))
    made.append(drawing.save(query_page(), folder / "queries-phantom.png"))
    made.append(drawing.save(shares.figure(shares.committed()), folder / "when-outlines-pay.png"))
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Rebuild ``figures/`` and the tables of `PAGES` from the committed rows."""
    argparse.ArgumentParser(prog="python -m ynet_lite.paper.report", description=__doc__).parse_args(argv)
    runs = select.published()
    if runs.empty:
        print(f"no rows in {paths.results()}; nothing to draw")
        return 1
    for path in make_all(paths.root() / "figures", runs):
        print(path.relative_to(paths.root()))
    for path, text in filled(runs).items():
        print(paths.write_text(path, text).relative_to(paths.root()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
