"""Training: cases in, a checkpoint out, with the weights of the epoch that is best in validation, or of the last."""

from __future__ import annotations

import math
import time
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from . import paths, provenance
from .augment import augment
from .cases.core import Cases
from .cases.outlines import degraded, outlined
from .cases.splits import validation_rows
from .checkpoint import Checkpoint, checkpoint_path, marks
from .config import Config, Ranking, Training
from .encoding import _precision, distances, encode_floats
from .losses.unified import UnifiedLoss
from .metrics import average_precision
from .model import YNet


def load_or_train(cfg: Config, cases: Cases, *, progress: bool = True) -> Checkpoint:
    """The stored checkpoint of this configuration and data, or a new training of it, stored.

    ``cases`` are the training cases (the database of a fold); queries are never passed.
    """
    path = checkpoint_path(cfg, cases)
    if path.is_file() and path.with_suffix(".json").is_file():
        found = Checkpoint.load(path)
        found.cfg = cfg  # the same training under another name or ranking
        return found
    checkpoint = train(cfg, cases, progress=progress, resume=path.with_suffix(".resume.pt"))
    checkpoint.save(path)
    path.with_suffix(".resume.pt").unlink(missing_ok=True)
    return checkpoint


def train(cfg: Config, cases: Cases, *, progress: bool = True, resume: str | Path | None = None) -> Checkpoint:
    """Train one network on ``cases`` and keep the weights of its best epoch.

    Validation patients are drawn from ``cases`` (``Config.validation``); each validation ranks the remaining training cases for
    every validation case and takes mAP@10. With ``resume`` the state after every epoch is kept in that file, and a call
    after an interruption goes on there and gives the same bits as an uninterrupted one (same machine, same threads).
    """
    torch.set_num_threads(cfg.threads)
    made_by, started = provenance.commit(), time.perf_counter()
    state = _State(cfg, cases)
    if resume and Path(resume).is_file():
        state = _resumed(state, Path(resume), cases)
    earlier = state.seconds
    bar = tqdm(range(state.epoch, cfg.epochs), initial=state.epoch, total=cfg.epochs, desc=cfg.method, disable=not progress)
    for _ in bar:
        with torch.random.fork_rng(devices=[]):  # the caller's own random numbers go on as if nothing had been drawn
            row = state.run_epoch()
        bar.set_postfix({key: f"{value:.3f}" for key, value in row.items() if key in ("loss", "validation")})
        if resume:
            try:
                with paths.replacing(resume) as temporary:
                    torch.save(state.dump(), temporary)
            except (OSError, RuntimeError) as error:  # a full disk: the copy is lost, the training is not
                warnings.warn(f"{resume}: no safety copy of epoch {state.epoch} ({error}); the training goes on", stacklevel=2)
    state.model.load_state_dict(state.best)
    seconds = earlier + time.perf_counter() - started
    about = cases.fingerprint, cases.class_names, cases.mask_names, pd.DataFrame(state.history)
    seen = tuple(sorted({mark for both in marks(state.train_cases) for mark in both if mark}))
    return Checkpoint(state.model.eval(), cfg, *about, state.best_epoch, round(seconds, 1), made_by, seen)


def _resumed(state: _State, file: Path, cases: Cases) -> _State:
    """``state`` with what ``file`` holds, or anew with a warning where the file is damaged: it is a safety copy only."""
    try:
        saved = torch.load(file, weights_only=True, map_location=state.cfg.device)
        if not isinstance(saved, dict) or "run" not in saved:
            raise TypeError("it holds something else than the state of a training")
        same = saved["run"] == state.run
        if same:
            state.restore(saved)
    except Exception as error:  # an empty, cut or foreign file raises many kinds
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(f"{file}: damaged, so training starts anew ({reason})", stacklevel=3)
        return _State(state.cfg, cases)
    if not same:
        raise ValueError("resume: the file belongs to another configuration or other data; delete it or restore those")
    return state


class _State:
    """Everything that changes during a training, so that it can be written down after each epoch and taken up again."""

    MODULES = ("model", "loss", "optimizer")
    VALUES = ("run", "epoch", "average", "best", "best_epoch", "best_score", "history", "seconds")

    def __init__(self, cfg: Config, cases: Cases):
        self.cfg, self.device = cfg, torch.device(cfg.device)
        # not every field: the same training under another name, data folder or ranking may be taken up
        self.run = [cfg.training_hash(), cfg.fold, cfg.seed, cases.fingerprint]
        validation = validation_rows(cases.groups, cases.labels, cfg.validation, cfg.seed)
        self.train_cases, self.validation_cases = cases.take(~validation), cases.take(validation)
        if (n := len(self.train_cases)) < cfg.batch:
            raise ValueError(f"train: {n} training cases are fewer than one batch of {cfg.batch}; lower Config.batch")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cfg.seed)
            self.model = YNet(cfg, len(cases.class_names), len(cases.mask_names))
            self.loss = UnifiedLoss(cfg, len(cases.class_names))
        self.model.to(self.device, memory_format=self.model.layout)
        self.loss.to(self.device)
        self.steps = n // cfg.batch
        self.optimizer = _optimizer(cfg, [*self.model.parameters(), *self.loss.parameters()])
        self.average = deepcopy(self.model.state_dict()) if cfg.ema else None
        self.may_segment = outlined(self.train_cases, cfg.mask_share, cfg.seed)
        shown = self.may_segment & self.train_cases.masks.any((1, 2))
        if cfg.uses_masks and cfg.mask_share > 0 and not shown.any():
            warnings.warn(
                f"{cfg.method}: no training case has a known outline of a lesion; the segmentation loss is zero, pooling in the "
                "predicted lesion follows an untrained map; give masks, or use the method ynet-no-seg",
                stacklevel=3,
            )
        # only what the segmentation loss is taught: scores are always taken against the true outline
        self.train_masks = degraded(self.train_cases.masks, cfg.mask_quality, cfg.seed)
        self.epoch, self.best_epoch, self.best_score, self.history = 0, 0, -math.inf, []
        self.best, self.seconds = deepcopy(self.model.state_dict()), 0.0

    def dump(self) -> dict:
        values = {name: getattr(self, name) for name in self.VALUES}
        return values | {name: getattr(self, name).state_dict() for name in self.MODULES}

    def restore(self, saved: dict) -> None:
        for name in self.MODULES:
            getattr(self, name).load_state_dict(saved[name])
        for name in self.VALUES:
            setattr(self, name, saved[name])

    def run_epoch(self) -> dict:
        cfg, cases = self.cfg, self.train_cases
        began = time.perf_counter()
        # the draws of an epoch depend on seed and epoch alone, so an interrupted run resumes exactly
        generator = torch.Generator().manual_seed(1_000_003 * (cfg.seed + 1) + self.epoch)
        torch.manual_seed(generator.initial_seed())  # for what an encoder draws in its forward pass, such as skipped blocks
        order = _order(cases.labels, generator, cfg.balanced)
        self.model.train()
        sums: dict[str, float] = {}
        for step in range(self.steps):
            rate = _rate(cfg, self.epoch + step / self.steps)
            self.loss.progress = (self.epoch + step / self.steps) / cfg.epochs
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            rows = order[step * cfg.batch : (step + 1) * cfg.batch]
            arrays = (cases.images, self.train_masks, self.may_segment, cases.labels)
            images, masks, known, labels = (torch.from_numpy(array[rows]).to(self.device) for array in arrays)
            images, masks = images.float(), masks.long()
            if cfg.augment:
                images, masks = augment(images, masks, cfg, generator)
            with _precision(cfg):
                output = self.model(images)
            loss, terms = self.loss(output, masks, known, labels, self.model.classifier)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"{cfg.method}: the loss is {loss.item()} in epoch {self.epoch + 1}, step {step + 1}; "
                    f"terms { ({k: v.item() for k, v in terms.items()}) }; a lower Config.lr or cls_scale usually helps"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if cfg.clip_norm:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), cfg.clip_norm)
            self.optimizer.step()
            self._average_weights()
            for key, value in {"loss": loss, **terms}.items():
                sums[key] = sums.get(key, 0.0) + value.item() / self.steps
        self.epoch += 1
        row = {"epoch": self.epoch, **sums, "lr": rate, "balance": self.loss.a.item()}
        self.history.append(row | {"validation": self._validate(sums["loss"])})
        self.seconds += time.perf_counter() - began
        return self.history[-1]

    def _average_weights(self) -> None:
        if self.average is None:
            return
        # early on a long memory would remember the initial weights: warm the decay up
        done = self.epoch * self.steps
        decay = min(self.cfg.ema, (1 + done) / (10 + done))
        now = self.model.state_dict()
        real = [key for key, value in now.items() if value.dtype.is_floating_point]
        torch._foreach_lerp_([self.average[key] for key in real], [now[key] for key in real], 1 - decay)
        for key in now.keys() - real:
            self.average[key].copy_(now[key])

    def _validate(self, train_loss: float) -> float:
        cfg, last = self.cfg, self.epoch == self.cfg.epochs
        now, shown = self.model.state_dict(), math.nan
        if cfg.select == "train-loss":
            weights, score = now, -train_loss
        else:
            weights = self.average or now
            due = last or (self.epoch > cfg.epochs // 2 and (cfg.epochs - self.epoch) % cfg.validate_every == 0)
            if not due or not (last or len(self.validation_cases)):
                return math.nan
            score = math.inf  # without validation patients the last epoch counts
            if len(self.validation_cases):
                kept = deepcopy(now)
                self.model.load_state_dict(weights)
                with _precision(cfg):
                    shown = score = validation_score(self.model, cfg, self.validation_cases, self.train_cases)
                self.model.load_state_dict(kept)
        if score > self.best_score or (last and self.best_epoch == 0):
            self.best, self.best_score, self.best_epoch = deepcopy(weights), score, self.epoch
        return shown


def validation_score(model: YNet, cfg: Ranking, queries: Cases, database: Cases) -> float:
    """mAP@10 of ``queries`` in ``database`` by the ranking of the configuration."""
    distance = distances(cfg, encode_floats(model, cfg, queries), encode_floats(model, cfg, database))
    return float(np.nanmean(average_precision(distance, queries.labels[:, None] == database.labels[None, :], 10)))


def _order(labels: np.ndarray, generator: torch.Generator, balanced: bool) -> np.ndarray:
    n = len(labels)
    if not balanced:
        return torch.randperm(n, generator=generator).numpy()
    weight = 1.0 / torch.from_numpy(np.bincount(labels)[labels]).double()
    return torch.multinomial(weight, n, replacement=True, generator=generator).numpy()


def _optimizer(cfg: Training, parameters: list) -> torch.optim.Optimizer:
    # norms and biases are scales and offsets: shrinking them towards zero is not regularisation
    decay, plain = ([p for p in parameters if (p.ndim > 1) == wanted] for wanted in (True, False))
    if cfg.optimizer == "adam":
        return torch.optim.Adam([*decay, *plain], lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    groups = [{"params": decay, "weight_decay": cfg.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=cfg.lr, fused=True)


def _rate(cfg: Training, at: float) -> float:
    """Learning rate at epoch ``at`` (real number): constant, or one cycle (up in the first fifth, then a cosine to zero)."""
    if cfg.schedule == "constant":
        return cfg.lr
    x = at / cfg.epochs
    if x < 0.2:
        return cfg.lr * (0.04 + 0.96 * x / 0.2)
    return cfg.lr * max(0.5 * (1 + math.cos(math.pi * (x - 0.2) / 0.8)), 1e-4)
