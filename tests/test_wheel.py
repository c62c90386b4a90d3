"""The built wheel, installed into a fresh environment and used from another folder."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from PIL import Image

from ynet_lite.sets.phantom import make_phantom

ROOT = Path(__file__).resolve().parents[1]

USE = """
import numpy as np
import ynet_lite
from ynet_lite import Config, export_gallery, load_cases, paths, search, sets
assert "site-packages" in ynet_lite.__file__ and ynet_lite.__file__.startswith({prefix!r}), ynet_lite.__file__
assert len(search(np.zeros((50, 70), np.uint8), k=5)) == 5
assert len(load_cases(Config(phantom_cases=40))) == 40
assert len(sets.folders.checksums(sets.BUSBRA)) == 3754
try:
    paths.results()
except FileNotFoundError as error:
    print(error)
"""


@pytest.mark.whole
def test_the_wheel_works_outside_the_checkout(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path), str(tmp_path / "source")]
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, files):  # a copy: setuptools leaves build/ in the source folder
        if name.startswith("ynet_lite/") or "/" not in name:
            target = tmp_path / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    subprocess.run([*pip, *build], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "fresh", with_pip=False)
    python = tmp_path / "fresh" / "bin" / "python"
    (site,) = (tmp_path / "fresh").glob("lib/python*/site-packages")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True)
    # the heavy packages come from this environment, behind the new one; its own .pth files are not read
    (site / "heavy.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    code = USE.format(prefix=str(tmp_path / "fresh"))
    ran = subprocess.run([str(python), "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert "clone the repository" in ran.stdout
    # the command, on a folder of one's own
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(make_phantom(40, seed=1).images[:, 0]):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
    for arguments, said in (
        ("index pictures -o my.index", "40 cases added"),
        ("add my.index pictures", "0 cases added, 40 known"),
        ("search my.index pictures/7.png -k 3", "percentile"),
        ("search my.index pictures/7.png -k 3 --gallery answers.html", "holds pictures"),
        ("info my.index", "busbra-full"),
        ("remove my.index 7", "39 left"),
    ):
        command = [str(python), "-I", "-m", "ynet_lite", *arguments.split()]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0 and said in ran.stdout, (arguments, ran.stdout, ran.stderr)
