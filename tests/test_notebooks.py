"""The form of the notebooks, so that a review can talk about their content."""

from __future__ import annotations

import re

import nbformat
import pytest
from address import COLAB_CELL, badges

from ynet_lite import paths

NOTEBOOKS = sorted((paths.root() / "notebooks").glob("*.ipynb"))
LONGEST_CELL = 25
#: Twice the largest of today's: an accidental picture in full resolution is larger.
MOST_BYTES = 1_500_000


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param, nbformat.read(request.param, as_version=4)


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


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
    assert book.cells[1].source == COLAB_CELL


def test_closing(notebook):
    _, book = notebook
    last = book.cells[-1]
    assert last.cell_type == "markdown" and "## What this showed" in last.source


def test_setup_comes_first_and_prints_versions(notebook):
    _, book = notebook
    setup = code_cells(book)[1]
    assert setup.source.startswith("# NBVAL_IGNORE_OUTPUT\n") and "__version__" in setup.source
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


def test_markers_are_whole_lines_with_a_reason(notebook):
    _, book = notebook
    for cell in code_cells(book):
        lines = cell.source.splitlines()
        assert "NBVAL_SKIP" not in cell.source, "a skipped cell does not run at all"
        for number, line in enumerate(lines):
            if "NBVAL" in line:
                assert line == "# NBVAL_IGNORE_OUTPUT" and number == 0
                assert lines[1].startswith("# "), "the line after the marker says why"


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
