"""What README says of adding things is true: in a copy of the package, one file and one row, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ynet_lite

TINY = "size=32, planes=(4, 4, 8, 8), blocks=1, fpn=8, bits=16, epochs=1, batch=8, validation=0.2"


@pytest.fixture
def copied(tmp_path) -> Path:
    """A copy of the package that may be edited, in a folder of its own."""
    shutil.copytree(Path(ynet_lite.__file__).parent, tmp_path / "ynet_lite", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "draw.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name}: {old!r} stands {text.count(old)} times"
    path.write_text(text.replace(old, new))


def python(folder: Path, code: str) -> str:
    """What a fresh interpreter prints that finds the copy first."""
    environment = os.environ | {"PYTHONPATH": str(folder), "YNET_OUT": str(folder / "out"), "YNET_CACHE": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_loss_is_one_file_and_one_name_and_a_method_one_row(copied):
    losses = copied / "ynet_lite" / "losses"
    (losses / "toy.py").write_text(
        "from .batch import HashLoss\n"
        "def terms(batch, scale):\n"
        "    return {'centred': scale * (batch.z.mean(0) ** 2).mean(), 'even': (batch.z**2 - 1).abs().mean()}\n"
        "TOY = HashLoss('toy', 'Toy', 'nobody, 2000', terms)\n"
    )
    edit(losses / "__init__.py", "ALL = (PAIRWISE,", "from .toy import TOY  # noqa: E402\n\nALL = (TOY, PAIRWISE,")
    edit(
        copied / "ynet_lite" / "methods.py",
        '    *_aggregations(\n        "gap"',
        '    _loss("toy"),\n    *_aggregations(\n        "gap"',
    )
    printed = python(
        copied,
        "import ynet_lite, draw\n"
        "from ynet_lite.config import Config\n"
        "from ynet_lite.paper import run, second, store, tables\n"
        "assert ynet_lite.__file__.startswith(draw.__file__[:-8])\n"
        "cases = draw.draw()\n"
        f"cfg = Config.from_preset(method='toy', {TINY})\n"
        "rows = store.read_run(run.run(cfg, cases, progress=False))\n"
        "table = tables.retrieval_table(rows)\n"
        "tried = [second.trial('phantom', 'toy', place, 100) for place in second.first_grid('toy')]\n"
        "print(len({(cfg.lr, cfg.rival_scale) for cfg in tried}), {cfg.method for cfg in tried})\n"
        "print(table['method'].tolist(), set(rows['method']))\n"
        "print(sorted(ynet_lite.train(cfg, cases, progress=False).history))\n",
    )
    lines = printed.splitlines()
    assert lines[0] == "9 {'toy'}" and lines[1] == "['Toy'] {'toy'}"
    assert "'centred'" in lines[2] and "'even'" in lines[2]


def test_an_encoder_is_one_file_and_one_row(copied):
    encoders = copied / "ynet_lite" / "encoders"
    (encoders / "toy.py").write_text(
        "from torch import nn\n"
        "class Toy(nn.Module):\n"
        "    def __init__(self, cfg, pretrained=True):\n"
        "        super().__init__()\n"
        "        self.widths = [4, 4, 8, 8]\n"
        "        shapes = [(cfg.channels, 4, 4), (4, 4, 2), (4, 8, 2), (8, 8, 2)]\n"
        "        self.stages = nn.ModuleList(nn.Conv2d(a, b, s, s) for a, b, s in shapes)\n"
        "    def forward(self, x):\n"
        "        maps = []\n"
        "        for stage in self.stages:\n"
        "            x = stage(x).relu()\n"
        "            maps.append(x)\n"
        "        return maps\n"
    )
    edit(
        encoders / "__init__.py", "ALL = (\n", "from .toy import Toy  # noqa: E402\n\nALL = (\n    Encoder('toy', 'Toy', Toy),\n"
    )
    printed = python(
        copied,
        "import draw\n"
        "from ynet_lite.config import Config\n"
        "from ynet_lite.paper import run, store, tables\n"
        f"cfg = Config.from_preset(method='ynet', encoder='toy', {TINY})\n"
        "assert cfg.hash() != cfg.but(encoder='small').hash()\n"
        "rows = store.read_run(run.run(cfg, draw.draw(), progress=False))\n"
        "print(tables.retrieval_table(rows)['method'].tolist(), 'dice' in set(rows['metric']))\n",
    )
    assert printed.splitlines()[-1] == "['Y-Net (ours)'] True"
