"""Where a number comes from: the name of its run, versions, commit and processor."""

import re
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import torch

from . import paths
from .config import Config, Training


def run_id(cfg: Config, fingerprint: str = "") -> str:
    """``dataset-method-hash-fold-seed``: the name of a run in files and tables.

    "csv" names no particular data, so eight digits of the set's ``fingerprint`` follow it: two manifests are two sets of runs.
    """
    dataset = f"csv_{fingerprint[:8]}" if cfg.dataset == "csv" and fingerprint else cfg.dataset
    return f"{dataset}-{cfg.method}-{cfg.hash()}-{cfg.fold}-{cfg.seed}"


def versions() -> str:
    """The versions that numbers depend on, as ``name=version`` pairs."""

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:  # not installed, or under another name (conda calls faiss-cpu "faiss")
            return "unknown"

    return " ".join(f"{name}={version(name)}" for name in ("torch", "numpy", "faiss-cpu", "ynet-lite"))


@lru_cache(maxsize=1)
def commit() -> tuple[str, bool]:
    """(short commit, whether the package differs from it), as at the first call; ("none", True) outside a checkout."""
    try:
        run = {"cwd": paths.root(), "capture_output": True, "text": True, "check": True, "timeout": 20}
        name = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], **run).stdout.strip()
        # a look must not lock the repository: whoever is killed while looking would leave the lock
        look = "git --no-optional-locks status --porcelain --untracked-files=no -- ynet_lite".split()
        changed = subprocess.run(look, **run).stdout
        return name, bool(changed.strip())
    except (OSError, subprocess.SubprocessError):
        return "none", True


def device_name(cfg: Training) -> str:
    """Which kind of processor made the numbers."""
    if cfg.device != "cpu":
        return torch.cuda.get_device_name(cfg.device)
    about = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.*\S)", about.read_text() if about.is_file() else "", re.MULTILINE)
    return f"cpu: {named[1]}" if named else "cpu"
