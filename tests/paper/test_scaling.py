"""Rows of cost against size, and the notebook on scaling out with a real cluster and a real database server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import benchmarks
import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from ynet_lite import paths

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "10_scaling_out.ipynb"


def test_a_line_starts_at_one():
    rows = benchmarks.line("time against size", "things", {1: 2.0, 10: 30.0})
    assert [row["ratio"] for row in rows] == [1.0, 15.0] and [row["size"] for row in rows] == ["1 things", "10 things"]


def test_rows_take_the_place_of_earlier_ones(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "results", lambda: tmp_path)
    first = benchmarks.row("a", "b", "1", 2, 4, "s")
    pd.DataFrame([first]).to_csv(tmp_path / "benchmarks.csv", index=False)
    shown = benchmarks.keep([benchmarks.row("a", "b", "1", 3, 4, "s"), benchmarks.row("a", "c", "1", 3, 4, "s")])
    kept = pd.read_csv(tmp_path / "benchmarks.csv")
    assert list(kept["ratio"]) == [0.75, 0.75] and list(shown["reference"]) == ["b", "c"] and first["ratio"] == 0.5


def test_seconds_are_medians_taken_in_turn():
    order, ticks = [], iter(range(100))
    found = benchmarks.seconds({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, lambda: next(ticks))
    assert order == ["a", "b"] * 3 and found == {"a": 1, "b": 1}


@pytest.fixture
def postgres():
    """The address of a PostgreSQL server of our own, on loopback; skips where PostgreSQL is not installed."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    bin_folder, base = programs[-1].parent, Path(tempfile.mkdtemp())
    user = []
    if os.geteuid() == 0:  # it refuses to run as root
        shutil.chown(base, "postgres", "postgres")
        user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program, *arguments):
        subprocess.run([*user, bin_folder / program, *arguments], check=True, cwd=base, stdout=subprocess.DEVNULL)

    run("initdb", "-D", base / "data", "-A", "trust", "-U", "tester", "--no-sync")
    run("pg_ctl", "-D", base / "data", "-w", "-l", base / "log", "-o", f"-p {port} -h 127.0.0.1 -k {base}", "start")
    yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    run("pg_ctl", "-D", base / "data", "-m", "immediate", "stop")
    shutil.rmtree(base)


@pytest.mark.whole
def test_the_notebook_with_a_server_and_a_cluster(postgres, monkeypatch, tmp_path):
    pytest.importorskip("dask.distributed")
    pytest.importorskip("psycopg")
    monkeypatch.setenv("YNET_POSTGRES", postgres)
    book = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", []))
    assert "PostgreSQL gives the same ten answers, ties included" in said
    assert "one of two workers was killed; every code came, equal bit for bit" in said
