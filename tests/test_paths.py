"""Paths that a person wrote count from where that person is, `~` is the home folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from ynet_lite import paths
from ynet_lite.sets import load_cases, named
from ynet_lite.sets.folders import find

FOLDERS = {"YNET_OUT": paths.out, "YNET_CACHE": paths.cache, "YNET_LOCAL_FIGURES": paths.local_figures}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A current folder and a home folder that are not the project."""
    for name in ("here", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize("variable", FOLDERS)
def test_folders_named_by_a_variable(variable, elsewhere, monkeypatch):
    monkeypatch.delenv(variable, raising=False)
    assert FOLDERS[variable]().is_relative_to(paths.root())
    for folder, meant in {"a/b": "here/a/b", "~/a": "home/a", "../c": "here/../c", str(elsewhere): ""}.items():
        monkeypatch.setenv(variable, folder)
        assert FOLDERS[variable]() == elsewhere / meant
    assert sorted(path.name for path in elsewhere.rglob("*")) == ["here", "home"], "asking makes no folder"


def test_a_kernel_that_starts_in_the_notebooks_counts_from_the_project(monkeypatch):
    monkeypatch.chdir(paths.root() / "notebooks")
    assert paths.yours("mine.csv") == paths.root() / "mine.csv"


def test_manifest_and_data_folder(elsewhere, monkeypatch, tiny_config, tiny_cases):
    monkeypatch.setenv("YNET_CACHE", "cache")
    table = pd.DataFrame(tiny_cases.table).assign(image=[f"{name}.png" for name in tiny_cases.ids])
    for where in ("here", "home"):
        table.to_csv(elsewhere / where / "cases.csv", index=False)
        for name, image in zip(tiny_cases.ids, tiny_cases.images, strict=True):
            Image.fromarray(image[0]).save(elsewhere / where / f"{name}.png")
    for manifest in ("cases.csv", "~/cases.csv", str(elsewhere / "here" / "cases.csv")):
        assert len(load_cases(tiny_config.but(dataset="csv", manifest=manifest))) == 48
        monkeypatch.setenv("YNET_MANIFEST", manifest)
        assert len(load_cases(tiny_config.but(dataset="csv"))) == 48
    for part in ("bus_data.csv", "5-fold-cv.csv", "Images", "Masks"):
        (elsewhere / "home" / "sets" / "busbra" / part).mkdir(parents=True)
    for data_dir in ("~/sets", Path("..") / "home" / "sets", Path("~") / "sets" / "busbra"):
        assert find(named("busbra"), data_dir).resolve() == elsewhere / "home" / "sets" / "busbra"
        monkeypatch.setenv("YNET_DATA_DIR", str(data_dir))
        assert find(named("busbra")).resolve() == elsewhere / "home" / "sets" / "busbra"


def test_outside_a_checkout_the_results_are_missed_in_one_sentence(elsewhere, monkeypatch):
    monkeypatch.setattr(paths, "PACKAGE", elsewhere / "site-packages" / "ynet_lite")
    assert paths.root() == elsewhere / "here" and paths.out() == elsewhere / "here" / "out"
    with pytest.raises(FileNotFoundError, match="do not come with the package: clone the repository"):
        paths.results()
