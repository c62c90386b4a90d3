"""Work that is killed at random moments, then done again: nothing is lost, doubled or torn.

``python tests/faults/kills.py 20`` kills each kind of work that many times and writes its counts to
``data/results/trust/kills.csv``; `tests/faults/test_faults.py` kills a few. After each kill every file with a final name must be
whole, doing the work again must end like work that was never killed, and no hidden file may stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ynet_lite import paths, provenance
from ynet_lite.sets.phantom import make_phantom

_COMMON = """
import os, sys, warnings
from pathlib import Path
base = Path(sys.argv[1])
os.environ.update(YNET_OUT=str(base / "out"), YNET_CACHE=str(base / "cache"))
from ynet_lite import Config, load_cases, load_or_train
small = dict(size=48, planes=(8, 8, 8, 8), blocks=1, epochs=4, batch=8, phantom_cases=60, validation=0.0)
print("ready", flush=True)
"""

#: What is killed: the program, and what it leaves (relative to the working folder) that must be equal with and without a kill.
WORK = {
    "cache of resized images": (
        'load_cases(Config.from_preset("quick", "csv", manifest=base / "pictures" / "cases.csv", size=96))',
        ("cache/*.npz",),
    ),
    "training": (
        'cfg = Config.from_preset("quick", **small); load_or_train(cfg, load_cases(cfg).split(1)[0], progress=False)',
        ("out/checkpoints/*.safetensors",),
    ),
    "grid of runs": (
        "from ynet_lite.paper.run import done, run\n"
        "for fold in (1, 2):\n"
        '    cfg = Config.from_preset("quick", **small | dict(epochs=1, fold=fold))\n'
        '    if not done(cfg, base / "out" / "results"): run(cfg, progress=False)',
        ("out/results/runs/*.csv",),
    ),
    "packing": (
        'from ynet_lite.paper import store\nstore.pack(base / "rows", base / "packed")',
        ("packed/*",),
    ),
    "gallery": (
        "import numpy as np\n"
        "from ynet_lite import Checkpoint, export_gallery\n"
        'cfg = Config.from_preset("quick", phantom_cases=80); db, q = load_cases(cfg).split(1)\n'
        "from ynet_lite.search import load_shipped\n"
        'export_gallery(base / "gallery.html", q, db, load_shipped("phantom-quick")[0])',
        ("gallery.html",),
    ),
    "index": (
        "from ynet_lite.index import Index\n"
        "import ynet_lite.index as index\n"
        "real = index.encode_files\n"
        "index.encode_files = lambda files, model, jobs: real(files, model, jobs=jobs, chunk=4)\n"
        'Index.build(base / "my.index", base / "pictures", "phantom-quick", progress=False)[0].close()',
        ("my.index",),
    ),
}


def prepare(base: Path) -> None:
    """Pictures with a manifest, and rows to be packed."""
    phantom = make_phantom(60, seed=2, size=96)
    (base / "pictures").mkdir(parents=True)
    table = phantom.table[["case_id", "label", "group"]].assign(image=[f"{i}.png" for i in range(60)], fold=np.arange(60) % 5)
    table["fold"] = table.groupby("group")["fold"].transform("first")
    for i in range(60):
        Image.fromarray(phantom.images[i, 0]).save(base / "pictures" / f"{i}.png")
    table.to_csv(base / "pictures" / "cases.csv", index=False)


def digest(base: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    """Content of every file with a final name: rows without times and dates, an index by its lines, else the bytes."""
    found = {}
    for path in sorted(path for pattern in patterns for path in base.glob(pattern) if not path.name.startswith(".")):
        if path.suffix == ".index":
            with contextlib.closing(sqlite3.connect(path)) as opened:
                lines = opened.execute("SELECT id, code, label, sha256 FROM cases ORDER BY id").fetchall()
            content = repr(lines).encode()
        elif path.suffix == ".csv":
            table = pd.read_csv(path, dtype=str)
            content = table.drop(columns=["seconds", "date"], errors="ignore").to_csv(index=False).encode()
        elif path.suffix == ".npz":
            with np.load(path) as stored:
                content = b"".join(name.encode() + stored[name].tobytes() for name in sorted(stored.files))
        else:
            content = path.read_bytes()
        found[str(path.relative_to(base))] = hashlib.sha256(content).hexdigest()
    return found


def start(base: Path, program: str) -> subprocess.Popen:
    """The work in a process of its own; returns when its imports are done."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _COMMON + program, str(base)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if process.stdout.readline() != "ready\n":
        raise RuntimeError(process.communicate()[1])
    return process


def finish(process: subprocess.Popen) -> None:
    error = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(error)


def kills(kind: str, times: int, seed: int = 0) -> tuple[dict, list[str]]:
    """Kill one kind of work ``times`` times, each in a fresh folder; (counts, descriptions of what went wrong)."""
    program, patterns = WORK[kind]
    rng = random.Random(f"{kind} {seed}")
    count = {"work": kind, "kills": 0, "torn": 0, "lost": 0, "left": 0}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name) / "fresh"
        prepare(fresh)
        if kind == "packing":
            finish(start(fresh, WORK["grid of runs"][0].replace("run(cfg,", 'run(cfg, folder=base / "rows",')))
        whole = Path(name) / "whole"
        shutil.copytree(fresh, whole)
        process = start(whole, program)
        began = time.perf_counter()
        finish(process)
        duration, expected = time.perf_counter() - began, digest(whole, patterns)
        assert expected, f"{kind}: left nothing"
        while count["kills"] < times:
            base = Path(name) / "killed"
            shutil.rmtree(base, ignore_errors=True)
            shutil.copytree(fresh, base)
            process = start(base, program)
            time.sleep(rng.uniform(0, duration))
            if process.poll() is not None:
                continue  # it was faster than the kill
            process.send_signal(signal.SIGKILL)
            process.communicate()
            count["kills"] += 1
            # an index may hold a part of the cases, a packed folder some of its tables; what is there must be whole
            for path, found in digest(base, patterns).items():
                if kind != "index" and expected.get(path) != found:
                    count["torn"] += 1
                    wrong.append(f"{kind}: {path} differs after a kill")
            try:
                finish(start(base, program))
                after = digest(base, patterns)
            except (RuntimeError, OSError, ValueError, sqlite3.Error) as error:
                after = {}
                wrong.append(f"{kind}: cannot be done again: {str(error)[-300:]}")
            if after != expected:
                count["lost"] += 1
                wrong.append(f"{kind}: {sorted(set(expected.items()) ^ set(after.items()))[:2]}")
            hidden = [path.name for path in base.rglob(".*") if path.is_file()]
            if hidden:
                count["left"] += 1
                wrong.append(f"{kind}: left {hidden[:2]}")
    return count, wrong


def main() -> int:
    os.environ.update(OMP_NUM_THREADS="1")
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    found = [kills(kind, times) for kind in WORK]
    counts, wrong = pd.DataFrame([count for count, _ in found]), [line for _, several in found for line in several]
    about = {"versions": provenance.versions(), "commit": provenance.commit()[0], "date": time.strftime("%Y-%m-%d")}
    print(counts.to_string(index=False), *wrong[:20], sep="\n")
    print(json.dumps(about), paths.write_csv(counts.assign(**about), paths.results() / "trust" / "kills.csv"))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
