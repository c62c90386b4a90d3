"""Checkpoints: a trained network and everything that is needed to use it again."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from . import paths
from .cases.core import Cases
from .config import Config
from .model import YNet

#: Raise it when network, losses or training change: stored weights of older code are then left alone.
TRAINER = "2"

#: What the .json file holds beside the configuration.
_ABOUT = ("fingerprint", "class_names", "mask_names", "history", "best_epoch", "seconds", "made_by", "trained_on")
_REMEDY = "copy both files of the checkpoint anew, or delete them and train again"


@dataclass
class Checkpoint:
    """A trained network with everything that is needed to use it again.

    ``made_by``: commit of the code that trained (`provenance.commit`). ``history``: one row per epoch, with the mean of each loss
    term, the learning rate, and the validation score where it was taken. ``trained_on``: `marks` of the training cases, empty
    where nobody kept them.
    """

    model: YNet
    cfg: Config
    fingerprint: str
    class_names: tuple[str, ...]
    mask_names: tuple[str, ...]
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    best_epoch: int = 0
    seconds: float = 0.0
    made_by: tuple[str, bool] | None = None
    trained_on: tuple[str, ...] = ()

    def save(self, path: str | Path) -> Path:
        """Write ``path`` (.safetensors, weights) and beside it ``.json`` (the rest), each renamed into place when complete."""
        path = Path(path)
        history = {key: [None if v != v else v for v in column] for key, column in self.history.to_dict(orient="list").items()}
        about = {"config": json.loads(self.cfg.to_json())} | {name: getattr(self, name) for name in _ABOUT} | {"history": history}
        try:
            with paths.replacing(path) as temporary, paths.replacing(path.with_suffix(".json")) as text:
                save_file(self._state(), temporary)
                os.chmod(temporary, 0o644)  # safetensors makes files that only their owner may read
                text.write_text(json.dumps(about, indent=1) + "\n")
        except (OSError, SafetensorError) as error:
            raise OSError(f"checkpoint {path}: cannot be written ({error}); make room for it and call again") from error
        return path

    def _state(self) -> dict:
        return {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}

    def weights_id(self) -> str:
        """Fingerprint of the weights: 16 digits of the SHA-256 of names, types, shapes and values. `Codes` carry it."""
        digest = hashlib.sha256()
        for name, value in sorted(self._state().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read what `save` wrote. Raises ``FileNotFoundError`` or ``ValueError`` that name the file and what to do."""
        path, text = Path(path), Path(path).with_suffix(".json")
        for part in (path, text):
            if not part.is_file():
                raise FileNotFoundError(f"checkpoint: {part} is missing; a checkpoint is a .safetensors and a .json file")
        try:
            about = json.loads(text.read_text())
            cfg = Config.from_json(json.dumps(about["config"]))
            names = tuple(about["class_names"]), tuple(about["mask_names"])
            model = YNet(cfg, *map(len, names), pretrained=False)
            history = pd.DataFrame(about["history"]).astype(float).astype({"epoch": int} if about["history"] else {})
            made_by = tuple(about["made_by"]) if about.get("made_by") else None
            rest = (about["fingerprint"], *names, history, int(about["best_epoch"]), float(about["seconds"]), made_by)
            rest += (tuple(map(str, about.get("trained_on", ()))),)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"checkpoint {text}: not what Checkpoint.save writes ({reason}); {_REMEDY}") from error
        try:
            model.load_state_dict(load_file(path))
        except (RuntimeError, OSError, ValueError, SafetensorError) as error:
            raise ValueError(f"checkpoint {path}: its weights do not fit its configuration ({error}); {_REMEDY}") from error
        # as in training: faster on a CPU, and the same last digits as before it was saved
        return cls(model.eval().to(memory_format=model.layout), cfg, *rest)


def marks(cases: Cases) -> list[tuple[str, str]]:
    """For each case a mark of its patient (of this set; "" where the set has no fingerprint) and one of its pixels.

    Marks are 12 digits of a SHA-256: enough to know a case again. A guessed name can be tested.
    """

    def mark(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()[:12]

    patients = [mark(f"{cases.fingerprint} {group}".encode()) if cases.fingerprint else "" for group in cases.groups]
    return list(zip(patients, (mark(image.tobytes()) for image in cases.images), strict=True))


def checkpoint_path(cfg: Config, cases: Cases) -> Path:
    """Where `load_or_train` keeps the weights: the name changes with the training settings and with the data."""
    # a part of a set has the fingerprint of the whole set: which part it is, the ids tell
    data = hashlib.sha256("\n".join([TRAINER, cases.fingerprint, *cases.ids]).encode()).hexdigest()[:8]
    name = f"{cfg.dataset}-{cfg.training_hash()}-{cfg.fold}-{cfg.seed}-{data}.safetensors"
    return paths.out() / "checkpoints" / name
