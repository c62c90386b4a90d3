"""Every notebook on other data than the phantom: the command, a generated colour set as CSV, real ultrasound if at hand."""

from __future__ import annotations

import os

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from own_set import make_set

from ynet_lite import paths, sets
from ynet_lite.paper import run_notebooks
from ynet_lite.sets import folders

NOTEBOOKS = run_notebooks.notebooks()
#: On BUS-BRA one that trains and one that has cells for this set only: all of them take many minutes, see `make local`.
ON_BUSBRA = [path for path in NOTEBOOKS if path.stem[:2] in ("00", "01")]
VARIABLES = ("YNET_DATASET", "YNET_PRESET", "YNET_MANIFEST", "YNET_CHANNELS", "YNET_LOCAL_FIGURES", "YNET_OUT", "YNET_CACHE")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    # a kernel starts in the notebook's folder and must find this checkout, installed or not
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(paths.root()), *filter(None, [os.environ.get("PYTHONPATH")])]))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Trainings, resized images and executed copies of this module, so that a notebook finds what an earlier one trained."""
    return tmp_path_factory.mktemp("other-data")


def text_of(path) -> str:
    """All text outputs of an executed copy, which must have run whole and without an error."""
    book = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


# --- on other data


@pytest.mark.whole
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_on_a_csv_of_colour_images(path, shared, monkeypatch):
    """Three diseases, mask classes organ and lesion, outlines that are empty or unknown."""
    if not (shared / "mine.csv").is_file():
        make_set(shared, patients=60, kinds=[("colour", "png")])
    for name, value in {"DATASET": "csv", "MANIFEST": shared / "mine.csv", "CHANNELS": 3}.items():
        monkeypatch.setenv(f"YNET_{name}", str(value))
    monkeypatch.setenv("YNET_OUT", str(shared / "out"))
    monkeypatch.setenv("YNET_CACHE", str(shared / "cache"))
    before = path.read_bytes()
    assert run_notebooks.execute(path, shared / "local" / path.name) == ""
    assert path.read_bytes() == before
    text = text_of(shared / "local" / path.name)
    if path.stem == "01_data":
        assert "csv: 120 images of 60 patients" in text and "tumour" in text and "look less alike" in text
        assert (shared / "local" / "csv-look-alikes.png").is_file()
    if path.stem == "00_start_here":
        assert "csv, preset quick" in text and "A page to click through (30 queries, 90 cases)" in text


@pytest.mark.whole
@pytest.mark.data
@pytest.mark.parametrize("path", ON_BUSBRA, ids=lambda path: path.stem)
def test_notebooks_run_on_real_ultrasound(path, shared, monkeypatch):
    try:
        folders.find(sets.named("busbra"), os.environ.get("YNET_DATA_DIR"))
    except FileNotFoundError:
        pytest.skip("BUS-BRA is not there: set YNET_DATA_DIR")
    monkeypatch.setenv("YNET_DATASET", "busbra")
    monkeypatch.setenv("YNET_OUT", str(shared / "out"))
    monkeypatch.setenv("YNET_CACHE", str(shared / "cache"))
    assert run_notebooks.execute(path, shared / "busbra" / path.name) == ""
    assert "busbra" in text_of(shared / "busbra" / path.name)
    if path.stem == "01_data":
        kept = {file.name for file in (shared / "busbra").glob("*.png")}
        assert kept == {"busbra-look-alikes.png", "busbra-one-disease.png", "phantom_beside_real.png"}


# --- the command


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with two notebooks: the first stops in its second cell of three, the second draws and asks where it is."""
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    (tmp_path / "notebooks").mkdir()
    old = [new_output("stream", name="stdout", text="of an earlier run")]
    broken = ["print('before')", "raise ValueError('no such column\\nand a second line')", "print('after')"]
    good = ["import os, matplotlib.pyplot as plt\naxes = plt.axes()", "print(os.getcwd(), os.environ['YNET_LOCAL_FIGURES'])"]
    for name, sources in {"00_broken": broken, "01_good": good}.items():
        cells = [new_markdown_cell("# A title"), *(new_code_cell(source, outputs=old, execution_count=9) for source in sources)]
        nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / f"{name}.ipynb")
    return tmp_path


@pytest.mark.slow
def test_a_notebook_that_stops_is_named_and_the_others_still_run(project, monkeypatch, capsys):
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert run_notebooks.main([]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("executed copies in figures/local/phantom")
    assert said[1].startswith("00_broken") and said[1].endswith("code cell 2: ValueError: no such column")
    assert said[2].startswith("01_good") and said[2].endswith("done") and len(said) == 3
    folder = project / "figures" / "local" / "phantom"
    book = nbformat.read(folder / "00_broken.ipynb", as_version=4)
    assert [cell.execution_count for cell in book.cells[1:]] == [1, 2, None]
    assert book.cells[1].outputs[0].text == "before\n" and book.cells[2].outputs[0].output_type == "error"
    assert book.cells[3].outputs == [], "an output of an earlier run should not look like one of this run"
    first, second = nbformat.read(folder / "01_good.ipynb", as_version=4).cells[1:]
    assert "image/png" in first.outputs[0].data, "a backend in the environment must not take the figures away"
    assert second.outputs[0].text.split() == [str(project / "notebooks"), str(folder)]
    assert os.environ["MPLBACKEND"] == "agg" and "YNET_LOCAL_FIGURES" not in os.environ
    # what is committed stays as it is
    assert nbformat.read(project / "notebooks" / "01_good.ipynb", as_version=4).cells[1].execution_count == 9


@pytest.mark.slow
def test_some_notebooks_into_a_folder_of_ones_own(project, tmp_path, capsys):
    assert run_notebooks.main(["01", "--to", str(tmp_path / "mine")]) == 0
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["01_good.ipynb"]
    capsys.readouterr()
    for arguments, message in {
        ("07",): "no notebook 07; there are 00_broken, 01_good",
        ("--to", str(tmp_path / "notebooks")): "the committed notebooks stay as they are",
    }.items():
        assert run_notebooks.main(list(arguments)) == 2
        assert message in capsys.readouterr().err


def test_notebooks_are_chosen_by_the_start_of_their_names(project):
    def names(*wanted):
        return [path.stem for path in run_notebooks.notebooks(wanted)]

    assert names() == names("0") == ["00_broken", "01_good"]
    assert names("01") == names("01_good.ipynb") == names("notebooks/01_good.ipynb") == ["01_good"]


def test_a_copy_lies_under_the_name_of_its_set(monkeypatch):
    local = paths.root() / "figures" / "local"
    assert run_notebooks.default_folder() == local / "phantom"
    monkeypatch.setenv("YNET_DATASET", "csv")
    assert run_notebooks.default_folder() == local / "csv"
    monkeypatch.setenv("YNET_MANIFEST", "some/where/skin.csv")
    assert run_notebooks.default_folder() == local / "skin"


def test_a_wrong_set_is_an_error_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setenv("YNET_DATASET", "chest")
    assert run_notebooks.main([]) == 2 and "'chest' is not known" in capsys.readouterr().err
