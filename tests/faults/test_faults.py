"""Damaged files, kills, full disks: a few of each here, many in the scripts beside this file."""

from __future__ import annotations

import pandas as pd
import pytest
from faults import forked, fuzz, kills

from ynet_lite import paths


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_damaged_files_give_a_value_or_the_documented_error(reader):
    counts, wrong = fuzz.fuzz(40, seed=1, readers=(reader,))
    assert counts["inputs"].sum() == 40 and not wrong, wrong[:3]


@pytest.mark.whole
@pytest.mark.parametrize("kind", kills.WORK)
def test_killed_work_is_done_again(kind):
    count, wrong = kills.kills(kind, 3, seed=1)
    assert count["kills"] == 3 and not wrong, wrong[:3]


_LEAVE = "from ynet_lite import paths\nwith paths.replacing(sys.argv[1]) as t: t.touch(); os.kill(os.getpid(), 9)"


def test_what_a_killed_writer_left_is_removed(tmp_path):
    for name in ("a.csv", "b.csv"):
        assert forked.run(_LEAVE, tmp_path / name)[0] == -9
    assert len(list(tmp_path.glob(".*"))) == 2
    with paths.replacing(tmp_path / "a.csv") as one, paths.replacing(tmp_path / "a.csv.gz") as other:
        one.write_text("whole")
        other.write_text("whole")
        assert one.exists(), "a living writer's file stays"
    left = [path.name for path in tmp_path.glob(".*")]
    assert len(left) == 1 and left[0].endswith(".b.csv") and (tmp_path / "a.csv").read_text() == "whole"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cache of resized images", "cache"),
        ("training", "cannot be written"),
        ("gallery", "gallery.html"),
        ("index", "my.index"),
    ],
)
def test_a_disk_without_room_is_named_and_leaves_nothing_torn(kind, said, tmp_path):
    """Files may grow to 4 KB, as on a disk that is nearly full."""
    kills.prepare(tmp_path)
    program, patterns = kills.WORK[kind]
    code, error = forked.run(kills._COMMON + program, tmp_path, largest=4096)
    assert said in error.splitlines()[-1] or (code == 0 and said in error), error[-600:]
    if kind == "training":
        assert error.count("the training goes on") >= 1
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]
    assert forked.run(kills._COMMON + program, tmp_path)[0] == 0
    assert kills.digest(tmp_path, patterns)


def test_two_trainings_in_separate_processes_give_the_same_bits(tmp_path):
    program, patterns = kills.WORK["training"]
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    kills.finish(kills.start(one, program))
    assert forked.run(kills._COMMON + program, two)[0] == 0
    assert kills.digest(one, patterns) == kills.digest(two, patterns) and len(kills.digest(one, patterns)) == 1


def test_committed_counts_say_that_nothing_went_wrong():
    folder = paths.results() / "trust"
    fuzzed, killed = (pd.read_csv(folder / f"{name}.csv") for name in ("fuzz", "kills"))
    assert fuzzed["inputs"].sum() >= 20_000 and set(fuzzed["reader"]) == set(fuzz.READERS)
    assert (fuzzed["read"] + fuzzed["refused"] == fuzzed["inputs"]).all() and fuzzed["wrong"].sum() == 0
    assert killed["kills"].sum() >= 100 and set(killed["work"]) == set(kills.WORK)
    assert killed[["torn", "lost", "left"]].sum().sum() == 0
