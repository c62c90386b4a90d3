"""One altered row: pages and notebooks that show it no longer agree with the rows, and what makes `make test` green says so.

Pages are compared by block, notebooks by the text that they store. A notebook runs here without its trainings: cells that read
committed rows run, cells that need a training do not.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shutil
from pathlib import Path

import matplotlib
import nbformat
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from ynet_lite import paths
from ynet_lite.paper import report, select, statistics

#: One altered cell a table: file, how its row is found, column, new value; and the blocks that show it, by page.
ALTERED = {
    "first/scores.csv": (
        ("run_id", r"busbra-ynet-d59733a635-[12]-0"),
        ("map@10", "0.5"),
        {"docs/results.md": "busbra"},
    ),
    "second/pretrained/scores.csv": (
        ("run_id", r"busbra-ynet-a43467a2f8-2-0"),
        ("map@10", "0.5"),
        {"README.md": "headline", "docs/model-cards.md": "card-busbra-full"},
    ),
    "first/ambiguity/scores.csv": (
        ("run_id", r"busbra-ynet-d59733a635-[12]-1"),
        ("energy_ratio@0", "0.5"),
        {"figures/ambiguity.md": "ambiguity"},
    ),
    "costs.csv": (("command", "`make reproduce`"), ("time", "1 s"), {"docs/how-to-run.md": "costs"}),
    "benchmarks.csv": (("name", "ynet info"), ("value", "0.1"), {"docs/own-images.md": "commands"}),
    "trust/fuzz.csv": (("reader", "codes"), ("wrong", "1"), {"docs/trust.md": "tried"}),
}
#: A block of other rows, which must stay as it is.
OTHER = {"docs/results.md": "released"}

#: What a cell calls that needs more than committed rows.
LIVE = {"load_cases", "load_or_train", "train", "evaluate_checkpoint", "encode", "search"}


@pytest.fixture
def altered(tmp_path, monkeypatch):
    """A copy of the committed results, with one row of each file of `ALTERED` altered."""
    folder = shutil.copytree(paths.results(), tmp_path / "results")
    for file, ((key, row), (column, value), _) in ALTERED.items():
        table = pd.read_csv(folder / file, dtype=str, keep_default_na=False)
        rows = table[key].str.fullmatch(row)
        assert rows.any() and (table.loc[rows, column] != value).all()
        table.loc[rows, column] = value
        table.to_csv(folder / file, index=False)
    # intervals and p are not looked at: draws are saved, and nothing that was compared before is taken
    monkeypatch.setattr(report, "_COMPARED", {})
    for one in (statistics.compare_methods, statistics.paired):
        monkeypatch.setitem(one.__kwdefaults__, "n", 20)
    return folder


def test_pages_show_the_rows_that_they_are_made_of(altered, monkeypatch):
    """That unaltered rows give the committed pages is in `test_figures.py`."""

    def bare(text: str) -> str:  # intervals are of few draws here
        return re.sub(r" \[[^\]]*\]", "", text)

    def same(page: str, name: str) -> bool:
        block = f"<!-- {name} -->\n{report.page_blocks(select.published())[name]()}\n<!-- /{name} -->"
        return bare(block) in bare((paths.root() / page).read_text())

    assert same("figures/ambiguity.md", "ambiguity"), "intervals must not be what differs"
    monkeypatch.setattr(paths, "results", lambda: altered)
    shown = {page: block for _, _, pages in ALTERED.values() for page, block in pages.items()}
    assert set(shown) == set(report.PAGES)
    assert not [page for page, block in shown.items() if same(page, block)]
    assert all(same(page, block) for page, block in OTHER.items())


def stored(cell) -> str:
    """The text that a cell shows in the notebook as it is kept."""
    texts = []
    for output in cell.outputs:
        if output.get("name") != "stderr":
            texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return re.sub(r"<Figure size [^\n>]*>", "", "\n".join(texts))


def used(node: ast.AST) -> tuple[set[str], set[str]]:
    """(names that some code reads, names that it makes)."""
    names = [one for one in ast.walk(node) if isinstance(one, ast.Name)]
    return tuple({one.id for one in names if isinstance(one.ctx, kind)} for kind in (ast.Load, ast.Store))


def ran(tree: ast.Module, names: dict, missing: set[str]) -> str | None:
    """Run a cell, statement by statement; the text that it shows.

    Left out is what trains, or needs what was left out before; its names are then ``missing``, and the text is None.
    """
    shown, whole = io.StringIO(), True
    names["display"] = lambda *objects: print(*map(repr, objects), sep="\n")
    with contextlib.redirect_stdout(shown):
        for place, statement in enumerate(tree.body):
            loaded, made = used(statement)
            if loaded & LIVE or (loaded - made) & missing:
                # also what it would have filled: networks[name] = load_or_train(...)
                parts = [one for one in ast.walk(statement) if isinstance(one, ast.Subscript) and isinstance(one.ctx, ast.Store)]
                missing |= made | {part.value.id for part in parts if isinstance(part.value, ast.Name)}
                whole = False
                continue
            missing -= made
            if isinstance(statement, ast.Expr) and place == len(tree.body) - 1:
                value = eval(compile(ast.Expression(statement.value), "cell", "eval"), names)
                names["display"](*[value] * (value is not None))
            else:
                exec(compile(ast.Module([statement], []), "cell", "exec"), names)
    return shown.getvalue() if whole else None


def cells(name: str, folder: Path, monkeypatch):
    """(text, text as it is kept) of the cells of a notebook, run one by one with the results of ``folder``.

    Without a network. Of a cell that ran in part only a failed check is told. Cells that only draw are left out.
    """
    book = nbformat.read(paths.root() / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [(cell, ast.parse(cell.source)) for cell in book.cells if cell.cell_type == "code"]
    names, missing = {}, set()
    for place, (cell, tree) in enumerate(code):
        needed = set().union(*(used(later)[0] for _, later in code[place + 1 :]))
        if any("image/png" in output.get("data", {}) for output in cell.outputs) and not used(tree)[1] & needed:
            continue
        monkeypatch.setattr(paths, "results", lambda: folder)
        try:
            text = ran(tree, names, missing)
        except AssertionError:
            text = "a check has failed"
        # the first two: for Colab, and versions
        yield (text, stored(cell)) if place > 1 and text is not None else ("", "")


@pytest.mark.parametrize("name", ["04_loss_ablation", "06_retrieval_tables"])
def test_notebooks_show_the_rows_that_they_read(name, altered, tmp_path, monkeypatch):
    for variable in ("YNET_DATASET", "YNET_PRESET", "YNET_DATA_DIR", "YNET_MANIFEST", "YNET_CHANNELS"):
        monkeypatch.delenv(variable, raising=False)
    both = [cells(name, folder, monkeypatch) for folder in (paths.results(), altered)]
    try:
        with matplotlib.rc_context():
            for (text, kept), (other, _) in zip(*both, strict=True):
                if text.split() == kept.split() != other.split() or "failed" in other and "failed" not in text:
                    return  # the stored output is what the committed rows say, and no longer what the altered ones say
    finally:
        plt.close("all")
    pytest.fail(f"{name} shows nothing of an altered row")
