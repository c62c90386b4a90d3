"""The frame holds together: three lists of packages, one address, existing commands, notebooks that can be compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from address import COLAB_CELL, NAME, REPOSITORY, badges
from nbformat.v4 import new_code_cell, new_notebook, new_output
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from rattler import MatchSpec, PackageRecord
from rattler.package.build_string import BuildString

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Where conda-forge names a package otherwise than pip.
CONDA_NAME = {"torch": "pytorch", "matplotlib": "matplotlib-base", "seaborn": "seaborn-base"}
# What environment.yml needs besides the core dependencies.
CONDA_ONLY = {"python", "pip", "setuptools"}
BUILDS = {"pytorch": "cpu_mkl_py311_h0123456_100"}


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def core() -> dict[str, Requirement]:
    requirements = [Requirement(line) for line in pyproject()["project"]["dependencies"]]
    return {canonicalize_name(r.name): r for r in requirements}


def extras(*names: str) -> dict[str, Requirement]:
    """Requirements of the named extras; of all without a name."""
    groups = pyproject()["project"]["optional-dependencies"]
    lines = [line for name in names or groups for line in groups[name]]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def in_environment() -> dict[str, Requirement]:
    """What Binder and conda install: the core and what the notebooks use."""
    return core() | extras("notebook", "dicom")


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def lock() -> dict[str, Version]:
    pairs = [line.split("==") for line in lock_lines()]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def conda() -> dict[str, MatchSpec]:
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert all(isinstance(entry, str) for entry in entries), "a pip: section: it cannot say --no-deps, see postBuild"
    specs = [MatchSpec(entry) for entry in entries]
    names = [entry.split()[0] for entry in entries]
    assert len(set(names)) == len(names), "a package is named twice"
    return dict(zip(names, specs, strict=True))


def record(name: str, version: str, build: str = "0") -> PackageRecord:
    return PackageRecord(name, version, BuildString(build), 0, "linux-64")


# --- packages


def test_lock_is_nothing_but_exact_pins():
    for line in lock_lines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), f"not a plain pin: {line!r}"
    assert len(lock()) == len(lock_lines()), "a package is pinned twice"
    assert str(lock()["torch"]) == "2.13.0"


def test_lock_holds_no_gpu_package_and_not_ourselves():
    bad = [name for name in lock() if re.match(r"nvidia-|cuda|triton|pytorch-triton|ynet", name)]
    assert not bad


@pytest.mark.parametrize("name", sorted(in_environment()))
def test_a_dependency_is_the_same_in_all_three_files(name):
    requirement, version = in_environment()[name], lock()[name]
    assert requirement.specifier.contains(version), f"{name}: locked {version} is outside {requirement.specifier}"
    conda_name = CONDA_NAME.get(name, name)
    spec = conda().get(conda_name)
    assert spec is not None, f"{name}: not in environment.yml (as {conda_name})"
    assert spec.matches(record(conda_name, str(version), BUILDS.get(conda_name, "0"))), f"{version} is outside {spec}"
    # The ranges are the same text, so that no version is allowed here and forbidden there.
    assert set(str(requirement.specifier).split(",")) == set(str(spec.version).split(","))


def test_what_colab_brings_is_no_dependency_of_the_core():
    assert not core().keys() & {"jupyterlab", "ipykernel", "ipywidgets", "nbclient", "notebook", "umap-learn"}
    assert extras("umap").items() <= extras("notebook").items()


def test_every_range_has_both_ends():
    for name, requirement in (core() | extras()).items():
        operators = {specifier.operator for specifier in requirement.specifier}
        assert ">=" in operators, f"{name} has no lower bound"
        assert "<" in operators or name == "packaging", f"{name} has no upper bound"


def test_locked_versions_are_inside_the_ranges_of_the_extras():
    for name, requirement in extras().items():
        assert requirement.specifier.contains(lock()[name]), f"{name}: locked {lock()[name]}, range {requirement.specifier}"


def test_environment_holds_nothing_unmapped():
    expected = {CONDA_NAME.get(name, name) for name in in_environment()} | CONDA_ONLY
    assert set(conda()) == expected
    assert set(CONDA_NAME) <= set(core()), "the name map names a package that is no dependency"


def test_environment_takes_cpu_builds_of_pytorch_only():
    spec, version = conda()["pytorch"], str(lock()["torch"])
    for build in ("cpu_mkl_py311_h0123456_100", "cpu_generic_py312_h0123456_0"):
        assert spec.matches(record("pytorch", version, build))
    for build in ("cuda129_mkl_py311_h0123456_300", "cuda130_generic_py312_h0123456_200"):
        assert not spec.matches(record("pytorch", version, build))


def test_environment_takes_a_python_that_we_test_in_a_form_that_binder_reads():
    spec = conda()["python"]
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    tested = re.search(r"python: \[(.*)\]", workflow).group(1).replace('"', "").split(", ")
    floor = Requirement("python" + pyproject()["project"]["requires-python"]).specifier
    assert all(floor.contains(f"{minor}.5") for minor in tested)
    assert sum(spec.matches(record("python", f"{minor}.5")) for minor in tested) == 1
    assert not spec.matches(record("python", "3.10.9"))
    assert not floor.contains("3.10.9")
    # repo2docker looks for "python", equals signs and a version; anything else is "unspecified" and gives its own default
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (python,) = [line for line in lines if line.split()[0] == "python"]
    assert re.match(r"python\s*=+\s*\d+\.\d+$", python)


def test_binder_installs_the_package_without_dependencies():
    script = ROOT / "postBuild"
    assert os.access(script, os.X_OK)
    assert "pip install --no-deps --no-build-isolation -e ." in script.read_text()
    assert not (ROOT / "binder").exists(), "repo2docker would ignore environment.yml and postBuild at the root"


def test_build_requirement_is_locked_and_in_the_environment():
    # --no-build-isolation builds with what is installed.
    for requirement in map(Requirement, pyproject()["build-system"]["requires"]):
        assert requirement.specifier.contains(lock()[requirement.name])
        assert requirement.name in conda()


# --- address


def test_badges_point_at_the_notebook_in_the_repository():
    assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", REPOSITORY)
    slug = REPOSITORY.removeprefix("https://github.com/")
    line = badges("01_data")
    assert "\n" not in line
    assert f"https://mybinder.org/v2/gh/{slug}/HEAD?labpath=notebooks%2F01_data.ipynb" in line
    assert f"https://colab.research.google.com/github/{slug}/blob/main/notebooks/01_data.ipynb" in line


def test_colab_cell_does_nothing_elsewhere(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError(f"ran {args}")

    monkeypatch.setattr(subprocess, "run", forbidden)
    before = list(sys.path)
    exec(COLAB_CELL, {})
    assert sys.path == before


def test_colab_cell_clones_and_installs_on_colab(monkeypatch):
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "google.colab", object())
    exec(COLAB_CELL, {})
    clone, install = calls
    assert clone[:2] == ["git", "clone"] and REPOSITORY in clone
    assert install[1:4] == ["-m", "pip", "install"] and install[-1].removesuffix("[umap]") == clone[-1] == sys.path[0]


def on_colab() -> dict[str, str]:
    """Version of each package in `colab.txt`."""
    lines = [line for line in (ROOT / "tests" / "colab.txt").read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_the_core_takes_what_colab_has():
    has, wanted = on_colab(), core() | extras("umap")
    assert not {name: str(wanted[name]) for name in wanted if name in has and not wanted[name].specifier.contains(has[name])}
    assert wanted.keys() - has == {"faiss-cpu", "captum"}, "what Colab would have to fetch"


@pytest.mark.whole
def test_colab_cell_installs_without_changing_colab(tmp_path):
    """An environment that claims to hold what Colab holds; pip says what the cell's command would install there."""
    here, environment = tmp_path / "checkout", tmp_path / "colab"
    (here / "ynet_lite").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, here / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    for name, version in on_colab().items():
        folder = packages / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "INSTALLER").write_text("pip\n")
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    report, held = tmp_path / "report.json", ROOT / "tests" / "colab.txt"
    command = [*pip, "--dry-run", "--report", str(report), "--constraint", str(held), "-e", f"{here}[umap]"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500)
    if re.search(r"No matching distribution found for setuptools|Failed to establish a new connection", result.stderr):
        pytest.skip("no package index can be reached")
    assert result.returncode == 0, result.stderr[-2000:]
    installs = {one["metadata"]["name"] for one in json.loads(report.read_text())["install"]}
    assert installs == {NAME, "faiss-cpu", "captum"}


def test_colab_cell_is_formatted_like_the_rest():
    command = [sys.executable, "-m", "ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml"), "-"]
    result = subprocess.run(command, input=COLAB_CELL + "\n", text=True, capture_output=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_citation_names_repository_version_and_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    for key in ("cff-version", "message", "title", "authors"):
        assert citation[key]
    assert citation["repository-code"] == REPOSITORY
    assert str(citation["version"]) == pyproject()["project"]["version"]
    assert citation["license"] == pyproject()["project"]["license"].split(" AND ")[0]
    assert [reference["doi"] for reference in citation["references"]] == ["10.1109/JBHI.2021.3082531"]
    assert len(citation["references"][0]["authors"]) == 6


def badge_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if "mybinder.org" in line or "colab.research.google.com" in line]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_badges_and_colab_cell_are_the_made_ones(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    lines = [line for kind, source in sources if kind == "markdown" for line in badge_lines(source)]
    assert lines in ([], [badges(path.stem)])
    fetching = [source for kind, source in sources if kind == "code" and "google.colab" in source]
    assert fetching in ([], [COLAB_CELL])
    assert bool(lines) == bool(fetching), "the Colab badge needs the cell that fetches the project, and the cell a badge"


def test_readme_badges_are_the_made_ones():
    readme = ROOT / "README.md"
    if not readme.is_file():
        pytest.skip("no README.md in this installation")
    allowed = {badges()} | {badges(path.stem) for path in NOTEBOOKS}
    for line in badge_lines(readme.read_text(encoding="utf-8")):
        links = re.findall(r"\[!\[[^\]]*\]\([^)]*\)\]\([^)]*\)", line)
        assert links and any(all(link in made for link in links) for made in allowed), f"not from badges(): {line}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_readme_lists_each_notebook_with_the_time_that_its_head_names(path):
    head = nbformat.read(path, as_version=4).cells[0].source
    takes = re.sub(r"`[^`]*`", "", re.search(r"\*\*Takes\*\* (.*)", head).group(1))
    row = rf"^\| \[`{path.stem}`\]\(notebooks/{path.name}\) \| [^|]+ \| (\d+) s \| [^|]+ \|$"
    (seconds,) = re.findall(row, (ROOT / "README.md").read_text(), re.MULTILINE)
    assert int(seconds) == max(map(int, re.findall(r"\d+", takes))) <= 120


def test_no_other_address_of_the_repository():
    files = [ROOT / "README.md", ROOT / "CITATION.cff", *NOTEBOOKS, *(ROOT / "data").glob("*.md")]
    for path in filter(Path.is_file, files):
        for owner in re.findall(rf"github\.com/([\w.-]+/{NAME})\b", path.read_text(encoding="utf-8")):
            assert f"https://github.com/{owner}" == REPOSITORY, f"{path.name} names {owner}"


# --- commands


def test_make_help_lists_every_command():
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    result = subprocess.run([make, "-C", str(ROOT)], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    listed = re.findall(r"^make ([\w-]+)  ", result.stdout, flags=re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE).group(1).split()
    assert listed == phony
    assert {"reproduce", "test", "notebooks", "figures", "full", "lint", "clean"} <= set(listed)


def test_clean_keeps_downloaded_originals():
    recipe = (ROOT / "Makefile").read_text().split("\nclean:")[1].split("\n\n")[0]
    assert not re.search(r"data/raw|rm -rf .* data( |$)", recipe.split("\n", 1)[1])


def test_ci_calls_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test-all" in script.read_text()
    assert "make test" in (ROOT / ".github" / "workflows" / "test.yml").read_text()


def test_style_file_is_understood_without_warnings():
    import matplotlib
    import matplotlib.pyplot as plt

    unknown = []
    for line in (ROOT / "figures" / "style.mplstyle").read_text().splitlines():
        key = line.split(":", 1)[0].strip()
        if key and not key.startswith("#") and key not in matplotlib.rcParams:
            unknown.append(key)
    assert not unknown
    with plt.style.context(ROOT / "figures" / "style.mplstyle"):
        assert plt.rcParams["svg.hashsalt"]
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"][:3] == ["#0072B2", "#E69F00", "#009E73"]


# --- comparison of notebooks


def test_root_conftest_compares_text_and_nothing_that_varies(tmp_path):
    def stream(text, name="stdout"):
        return [new_output("stream", name=name, text=text)]

    html = new_output("display_data", data={"text/plain": "same", "text/html": "old"})
    cells = [
        # pass: HTML, stderr, figure size, address and progress differ from what is stored
        (
            "from IPython.display import display\ndisplay({'text/plain': 'same', 'text/html': 'new'}, raw=True)",
            [html],
        ),
        ("import sys\nprint('new', file=sys.stderr)", stream("old\n", "stderr")),
        ("import sys\nprint('new', file=sys.stderr)", []),
        ("print('<Figure size 640x480 with 1 Axes>')", stream("<Figure size 1x1 with 2 Axes>\n")),
        ("print('at 0x7f0000000001')", stream("at 0xabcdef0\n")),
        ("print(' 50%|##  | 5/10 [00:01<00:01, 4.9it/s]')", stream("100%|####| 10/10 [00:02<00:00, 5.1it/s]\n")),
        # pass: the environment that the kernel sees
        ("import os\nprint(os.environ['OMP_NUM_THREADS'], os.environ.get('MPLBACKEND') == 'pdf')", stream("1 False\n")),
        # fails: a printed fact differs
        ("print('map 0.7')", stream("map 0.8\n")),
    ]
    notebook = new_notebook(
        cells=[new_code_cell(source, outputs=outputs, execution_count=i + 1) for i, (source, outputs) in enumerate(cells)]
    )
    shutil.copy(ROOT / "conftest.py", tmp_path / "conftest.py")
    nbformat.write(notebook, tmp_path / "check.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "-p", "no:cacheprovider", "."]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "pdf"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)
    assert f"1 failed, {len(cells) - 1} passed" in result.stdout, result.stdout
    assert "map 0.7" in result.stdout
