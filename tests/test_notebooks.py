"""The form of the notebooks, so that a review can talk about their content."""

from __future__ import annotations

import re
from html import unescape

import matplotlib
import nbformat
import pandas as pd
import pytest
from address import COLAB_CELL, FOLDED, badges
from matplotlib import pyplot as plt

from ynet_lite import paths
from ynet_lite.paper import tables

NOTEBOOKS = sorted((paths.root() / "notebooks").glob("*.ipynb"))
LONGEST_CELL = 25
MOST_ROWS, MOST_COLUMNS = 8, 7
IGNORED = "nbval-ignore-output"
#: Twice the largest of today's: an accidental picture in full resolution is larger.
MOST_BYTES = 1_500_000


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param, nbformat.read(request.param, as_version=4)


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def outputs(book):
    for number, cell in enumerate(book.cells):
        for output in cell.get("outputs", []):
            text = output.get("text", "") or "".join(str(v) for k, v in output.get("data", {}).items() if "image" not in k)
            yield number, output, text


def test_there_are_notebooks_in_order():
    assert [path.stem[:3] for path in NOTEBOOKS] == sorted(path.stem[:3] for path in NOTEBOOKS)
    assert all(re.fullmatch(r"\d\d_[a-z_]+", path.stem) for path in NOTEBOOKS)
    assert "00_start_here" in {path.stem for path in NOTEBOOKS}


def test_opening(notebook):
    path, book = notebook
    head = book.cells[0]
    assert head.cell_type == "markdown" and head.source.startswith("# ")
    for part in ("**You will see**", "**Needs**", "**Takes**", "not a medical device", badges(path.stem)):
        assert part in head.source, f"the first cell lacks {part}"
    assert re.search(r"\*\*Takes\*\* .*\d", head.source), "the running time is a measured number"
    assert book.cells[1].source == COLAB_CELL and book.cells[1].metadata == FOLDED


def test_closing(notebook):
    """The last two cells: a folded one that checks what was shown, and what it was about."""
    path, book = notebook
    checked, last = book.cells[-2:]
    assert last.cell_type == "markdown" and "## What this showed" in last.source
    assert tags(checked) == ["hide-input"] and checked.metadata["jupyter"] == {"source_hidden": True}
    assert re.search(r"^ *assert ", checked.source, re.MULTILINE) and checked.source.endswith('\nprint("checked")')
    place = NOTEBOOKS.index(path)
    for other in NOTEBOOKS[max(place - 1, 0) : place + 2]:
        assert other == path or f"({other.name})" in last.source.splitlines()[-1], "the last line leads on and back"


def test_setup_comes_first_and_prints_versions(notebook):
    _, book = notebook
    setup = code_cells(book)[1]
    assert IGNORED in tags(setup) and "__version__" in setup.source
    for cell in code_cells(book)[2:]:
        assert not re.search(r"^(import|from) ", cell.source, re.MULTILINE), (
            f"imports belong in the setup cell: {cell.source[:60]}"
        )


def test_executed_top_to_bottom(notebook):
    _, book = notebook
    assert [cell.execution_count for cell in code_cells(book)] == list(range(1, len(code_cells(book)) + 1))
    assert not [output for _, output, _ in outputs(book) if output.output_type == "error"]


def test_cells_are_short(notebook):
    _, book = notebook
    for cell in code_cells(book):
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.source[:80]


def test_what_is_not_compared_says_why(notebook):
    """Marks for nbval are tags, out of sight. Every such cell is followed by one whose output is compared."""
    _, book = notebook
    for cell in code_cells(book):
        assert "NBVAL" not in cell.source and "nbval-skip" not in tags(cell), "a skipped cell does not run at all"
        assert (IGNORED in tags(cell)) == bool(cell.metadata.get("not_compared"))
    assert IGNORED not in tags(code_cells(book)[-1])


def test_facts_are_asserts_and_tables_fit(notebook):
    """No column of "True" to read, no table as text; every table holds what nbval compares of it, and is small."""
    _, book = notebook
    for cell in code_cells(book):
        assert "to_string" not in cell.source and ".style" not in cell.source
    for number, output, text in outputs(book):
        assert not re.search(r": (True|False)$", text, re.MULTILINE), f"cell {number}: a fact is an assert"
        html = output.get("data", {}).get("text/html", "")
        if "<table" in html:
            rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in html.split("<tr>")[1:]]
            assert 1 < len(rows) <= MOST_ROWS + 1 and len(rows[0]) <= MOST_COLUMNS, f"cell {number}: too large to read"
            words = unescape(re.sub(r"<[^>]*>", "", "".join(sum(rows, []))))
            assert "".join(words.split()) == "".join(output["data"]["text/plain"].split()), (
                f"cell {number}: shown is not compared"
            )


def test_every_picture_says_what_it_shows(notebook):
    """The alternative text of a cell's pictures, which the site reads."""
    _, book = notebook
    for number, output, _ in outputs(book):
        if any(kind.startswith("image/") for kind in output.get("data", {})):
            text = book.cells[number].metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert 40 < len(text) < 160, f"cell {number}: a picture needs an alternative text"


def test_a_table_marks_the_best_and_says_when_it_is_too_large():
    table = pd.DataFrame({"method": ["a", "<b>"], "mAP@10": [".783 ± .010", ".9 [.8, 1.0]"], "n": [1500, 2]})
    shown = tables.shown(table, best=["mAP@10"])
    html = shown.to_html()
    assert html.count("<b>") == 1 and '<b>.9<small style="opacity: .75"> [.8, 1.0]</small></b>' in html and "&lt;b&gt;" in html
    assert "1,500" in html and html == tables.shown(table, best=["mAP@10"]).to_html()
    assert repr(shown).split() == "method mAP@10 n a .783 ± .010 1,500 <b> .9 [.8, 1.0] 2".split()
    with pytest.raises(ValueError, match="at most 8 and 7"):
        tables.shown(pd.DataFrame({"n": range(9)}))


def test_outputs_hold_nothing_private_or_noisy(notebook):
    path, book = notebook
    for number, output, text in outputs(book):
        assert not re.search(r"/(home|root|tmp|work|Users)/", text), f"{path.name}, cell {number}: a path of this machine"
        assert output.get("name") != "stderr" or "it/s" in text or "%|" in text, f"{path.name}, cell {number}: noise {text[:200]}"
    assert "timing" not in str([cell.metadata for cell in book.cells]) and "iopub" not in str([c.metadata for c in book.cells])
    assert path.stat().st_size < MOST_BYTES


def test_committed_runs_are_the_phantom(notebook):
    _, book = notebook
    text = "\n".join(text for _, _, text in outputs(book))
    assert "phantom" in text
    assert "preset full" not in text


def test_numbers_come_from_rows_not_from_typing(notebook):
    """A score typed into text would not change with the results: mAP values may only stand in outputs."""
    _, book = notebook
    for cell in book.cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"(mAP|P@|NDCG|Dice)\S*\s*(of|=|:|is)?\s*0?\.\d\d", cell.source), cell.source[:200]


#: Notebooks that train nothing, and a number that each shows, made a little larger. Those that show committed rows are altered
#: in `paper/test_altered.py`.
LARGER = {
    "01_data": 'counts["database"][0] += 1',
    "02_model_and_losses": 'counts["encoder"] += 1',
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGER)
def test_the_last_cell_sees_an_altered_number(name, monkeypatch, capsys):
    for variable in ("YNET_DATASET", "YNET_PRESET", "YNET_DATA_DIR", "YNET_MANIFEST", "YNET_CHANNELS"):
        monkeypatch.delenv(variable, raising=False)
    book = nbformat.read(paths.root() / "notebooks" / f"{name}.ipynb", as_version=4)
    names = {"display": lambda *shown: None}
    with matplotlib.rc_context():
        for cell in code_cells(book):
            exec(cell.source, names)
            plt.close("all")
    assert capsys.readouterr().out.endswith("checked\n")
    exec(LARGER[name], names)
    with pytest.raises(AssertionError):
        exec(code_cells(book)[-1].source, names)
