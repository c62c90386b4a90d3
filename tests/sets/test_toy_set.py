"""Adding a data set is one file and its name in `SETS`: a toy set is loaded, trained on, stored and tabled."""

from __future__ import annotations

import importlib.util

import pytest
from PIL import Image

from ynet_lite import sets
from ynet_lite.paper import run, store, tables
from ynet_lite.sets import folders, load_cases

TOY = '''
"""A toy set of two folders: bright discs and dark squares."""

import pandas as pd

from ynet_lite.sets.folders import DataSet, load_folder


def manifest(folder):
    images = sorted((folder / "images").glob("*.png"))
    return pd.DataFrame(
        {
            "case_id": [path.stem for path in images],
            "image": [str(path) for path in images],
            "mask": [str(folder / "masks" / path.name) for path in images],
            "label": [path.stem.split("-")[0] for path in images],
            "group": [path.stem for path in images],
            "fold": [1 + i % 4 for i, path in enumerate(images)],
        }
    )


def load(cfg):
    return load_folder(TOY, cfg, manifest)


TOY = DataSet("toy", "Toys", load, folders=("toys",), inside=("images", "masks"), how_to_get="draw them")
'''


@pytest.fixture
def toy(tmp_path, monkeypatch, draw_cases):
    """The set in a file of its own, named once, and its images in a folder."""
    monkeypatch.setenv("YNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("YNET_OUT", str(tmp_path / "out"))
    monkeypatch.setenv("YNET_DATA_DIR", str(tmp_path))
    (tmp_path / "toy.py").write_text(TOY)
    spec = importlib.util.spec_from_file_location("toy", tmp_path / "toy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sets, "SETS", (*sets.SETS, module.TOY))
    return tmp_path / "toys"


def drawn(folder, cases):
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i, image in enumerate(cases.images):
        name = f"{cases.class_names[cases.labels[i]]}-{i:02d}.png"
        Image.fromarray(image[0]).save(folder / "images" / name)
        Image.fromarray(cases.masks[i] * 255).save(folder / "masks" / name)


def test_a_toy_set_is_one_file_and_one_row(toy, tiny_config, tiny_cases):
    cfg = tiny_config.but(dataset="toy", epochs=1)
    with pytest.raises(FileNotFoundError, match=r"toy: not found in .* \(a folder toys/ with images, masks\).*draw them"):
        load_cases(cfg)
    drawn(toy, tiny_cases)
    cases = load_cases(cfg)
    assert len(cases) == 48 and cases.class_names == ("disc", "square") and cases.has_mask.all()
    assert folders.find(sets.named("toy")) == toy and sets.title("toy") == "Toys" and "toy" not in sets.drawn_per_seed()
    rows = store.read_run(run.run(cfg, cases))
    assert set(rows["dataset"]) == {"toy"}
    table = tables.retrieval_table(rows)
    assert len(table) and table.iloc[0].astype(str).str.contains("Y-Net").any()


def test_names_and_files_of_the_sets_are_unique_and_known():
    names = [one.name for one in sets.SETS]
    assert names == ["phantom", "busbra", "busbra-birads", "busi", "csv"]
    with pytest.raises(ValueError, match="'chest' is not known; known are phantom, busbra, busbra-birads, busi, csv"):
        sets.named("chest")
    assert sets.title("chest") == "chest" and sets.drawn_per_seed() == ("phantom",)
