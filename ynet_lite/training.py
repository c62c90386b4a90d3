"""Training, checkpoints and encoding: cases in, weights and codes out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch.nn import functional as F
from tqdm.auto import tqdm

from . import paths, results
from .augment import augment
from .cases.core import Cases
from .cases.manifest import validation_rows
from .config import Config
from .hashing import Codes, hamming, pack
from .losses import UnifiedLoss
from .metrics import average_precision
from .model import Output, YNet

#: Raise it when network, losses or training change: stored weights of older code are then left alone.
TRAINER = "2"


@dataclass
class Checkpoint:
    """A trained network with everything that is needed to use it again.

    ``made_by`` is the commit of the code that trained (`results.commit`). ``history`` has one row per epoch: the mean of each
    loss term, the learning rate, the validation score where it was taken.
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

    def save(self, path: str | Path) -> Path:
        """Write ``path`` (.safetensors, weights) and beside it ``.json`` (the rest), each renamed into place when complete."""
        path = Path(path)
        state = {key: value.detach().cpu().contiguous() for key, value in self.model.state_dict().items()}
        about = {
            "config": json.loads(self.cfg.to_json()),
            "fingerprint": self.fingerprint,
            "class_names": list(self.class_names),
            "mask_names": list(self.mask_names),
            "history": {k: [None if v != v else v for v in column] for k, column in self.history.to_dict(orient="list").items()},
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
            "made_by": list(self.made_by) if self.made_by else None,
        }
        with paths.replacing(path) as temporary, paths.replacing(path.with_suffix(".json")) as text:
            save_file(state, temporary)
            os.chmod(temporary, 0o644)  # safetensors makes files that only their owner may read
            text.write_text(json.dumps(about, indent=1) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read what `save` wrote. Raises ``FileNotFoundError`` or ``ValueError`` that name the file."""
        path = Path(path)
        for part in (path, path.with_suffix(".json")):
            if not part.is_file():
                raise FileNotFoundError(f"checkpoint: {part} is missing; a checkpoint is a .safetensors and a .json file")
        try:
            about = json.loads(path.with_suffix(".json").read_text())
            cfg = Config.from_json(json.dumps(about["config"]))
            model = YNet(cfg, len(about["class_names"]), len(about["mask_names"]), pretrained=False)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"checkpoint {path.with_suffix('.json')}: not what Checkpoint.save writes: {error}") from error
        try:
            model.load_state_dict(load_file(path))
        except (RuntimeError, OSError, ValueError, SafetensorError) as error:
            raise ValueError(f"checkpoint {path}: its weights do not fit its configuration: {error}") from error
        model.eval()
        history = pd.DataFrame(about["history"]).astype(float).astype({"epoch": int} if about["history"] else {})
        return cls(
            model,
            cfg,
            about["fingerprint"],
            tuple(about["class_names"]),
            tuple(about["mask_names"]),
            history,
            about["best_epoch"],
            about["seconds"],
            tuple(about["made_by"]) if about.get("made_by") else None,
        )


def checkpoint_path(cfg: Config, cases: Cases) -> Path:
    """Where `load_or_train` keeps the weights: the name changes with the training settings and with the data."""
    # a part of a set has the fingerprint of the whole set: which part it is, the ids tell
    data = hashlib.sha256("\n".join([TRAINER, cases.fingerprint, *cases.ids]).encode()).hexdigest()[:8]
    name = f"{cfg.dataset}-{cfg.training_hash()}-{cfg.fold}-{cfg.seed}-{data}.safetensors"
    return paths.out() / "checkpoints" / name


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
    made_by = results.commit()
    started = time.perf_counter()
    state = _State(cfg, cases)
    resume = Path(resume) if resume else None
    if resume and resume.is_file():
        state.restore(torch.load(resume, weights_only=True, map_location=cfg.device))
    earlier = state.seconds
    bar = tqdm(range(state.epoch, cfg.epochs), initial=state.epoch, total=cfg.epochs, desc=cfg.method, disable=not progress)
    for _ in bar:
        with torch.random.fork_rng(devices=[]):  # the caller's own random numbers go on as if nothing had been drawn
            row = state.run_epoch()
        bar.set_postfix({key: f"{value:.3f}" for key, value in row.items() if key in ("loss", "validation")})
        if resume:
            with paths.replacing(resume) as temporary:
                torch.save(state.dump(), temporary)
    state.model.load_state_dict(state.best)
    state.model.eval()
    seconds = earlier + time.perf_counter() - started
    return Checkpoint(
        state.model,
        cfg,
        cases.fingerprint,
        cases.class_names,
        cases.mask_names,
        pd.DataFrame(state.history),
        state.best_epoch,
        round(seconds, 1),
        made_by,
    )


class _State:
    """Everything that changes during a training, so that it can be written down after each epoch and taken up again."""

    def __init__(self, cfg: Config, cases: Cases):
        self.cfg, self.device = cfg, torch.device(cfg.device)
        # not every field: the same training under another name, data folder or ranking may be taken up
        self.run = [cfg.training_hash(), cfg.fold, cfg.seed, cases.fingerprint]
        validation = validation_rows(cases.groups, cases.labels, cfg.validation, cfg.seed)
        self.train_cases, self.validation_cases = cases.take(~validation), cases.take(validation)
        if len(self.train_cases) < cfg.batch:
            raise ValueError(
                f"train: {len(self.train_cases)} training cases are fewer than one batch of {cfg.batch}; lower Config.batch"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cfg.seed)
            self.model = YNet(cfg, len(cases.class_names), len(cases.mask_names))
            self.loss = UnifiedLoss(cfg, len(cases.class_names))
        self.model.to(self.device, memory_format=torch.channels_last)
        self.loss.to(self.device)
        self.steps = len(self.train_cases) // cfg.batch
        self.optimizer = _optimizer(cfg, [*self.model.named_parameters(), *self.loss.named_parameters()])
        self.average = {key: value.clone() for key, value in self.model.state_dict().items()} if cfg.ema else None
        self.may_segment = outlined(self.train_cases, cfg.mask_share, cfg.seed)
        if cfg.uses_masks and cfg.mask_share > 0 and not self.may_segment.any():
            warnings.warn(
                f"{cfg.method}: no training case has a known outline, so the segmentation loss is zero and pooling inside the "
                "predicted lesion follows an untrained map; give masks, or use the method ynet-no-seg",
                stacklevel=3,
            )
        # only what the segmentation loss is taught: scores are always taken against the true outline
        self.train_masks = degraded(self.train_cases.masks, cfg.mask_quality, cfg.seed)
        self.epoch, self.best_epoch, self.best_score, self.history = 0, 0, -math.inf, []
        self.best = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.seconds = 0.0

    def dump(self) -> dict:
        return {
            "run": self.run,
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "history": self.history,
            "seconds": self.seconds,
        }

    def restore(self, saved: dict) -> None:
        if saved.get("run") != self.run:
            raise ValueError("resume: the file belongs to another configuration or other data; delete it or restore those")
        self.model.load_state_dict(saved["model"])
        self.loss.load_state_dict(saved["loss"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for name in ("epoch", "average", "best", "best_epoch", "best_score", "history", "seconds"):
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
            images = torch.from_numpy(cases.images[rows]).to(self.device).float()
            masks = torch.from_numpy(self.train_masks[rows]).to(self.device).long()
            if cfg.augment:
                images, masks = augment(images, masks, cfg, generator)
            labels = torch.from_numpy(cases.labels[rows]).to(self.device)
            outlined_rows = torch.from_numpy(self.may_segment[rows]).to(self.device)
            with _precision(cfg):
                output = self.model(images)
            loss, terms = self.loss(output, masks, outlined_rows, labels, self.model.classifier)
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
        row = {"epoch": self.epoch, **sums, "lr": rate, "balance": self.loss.a.item(), "validation": math.nan}
        row["validation"] = self._validate(sums["loss"])
        self.history.append(row)
        self.seconds += time.perf_counter() - began
        return row

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
        cfg = self.cfg
        last = self.epoch == cfg.epochs
        if cfg.select == "train-loss":
            score, weights = -train_loss, self.model.state_dict()
            shown = math.nan
        else:
            due = last or (self.epoch > cfg.epochs // 2 and (cfg.epochs - self.epoch) % cfg.validate_every == 0)
            if not due or len(self.validation_cases) == 0:
                # without validation patients the last epoch counts
                if last:
                    self._keep(math.inf, self.average or self.model.state_dict())
                return math.nan
            kept = None
            if self.average is not None:
                kept = {key: value.clone() for key, value in self.model.state_dict().items()}
                self.model.load_state_dict(self.average)
            weights = self.model.state_dict()
            shown = score = validation_score(self.model, cfg, self.validation_cases, self.train_cases)
        if score > self.best_score or (last and self.best_epoch == 0):
            self._keep(score, weights)
        if cfg.select != "train-loss" and kept is not None:
            self.model.load_state_dict(kept)
        return shown

    def _keep(self, score: float, weights: dict) -> None:
        self.best_score, self.best_epoch = score, self.epoch
        self.best = {key: value.detach().clone() for key, value in weights.items()}


def outlined(cases: Cases, share: float, seed: int) -> np.ndarray:
    """(N,) bool: the cases whose outline the segmentation loss may see: ``share`` of the *patients*, and only known outlines."""
    if not 0 <= share <= 1:
        raise ValueError(f"Config.mask_share: {share}; it is a share between 0 and 1")
    patients = np.unique(cases.groups)
    chosen = np.random.default_rng([seed, 7]).permutation(patients)[: round(share * len(patients))]
    return cases.has_mask & np.isin(cases.groups, chosen)


def degraded(masks: np.ndarray, quality: str, seed: int) -> np.ndarray:
    """Outlines as a hurried hand would draw them. masks : uint8 (N, H, W) -> uint8 (N, H, W); "exact" returns ``masks`` itself.

    With r = 4 % of the width (at least one pixel): "dilated" and "eroded" move every border by r, "shifted" moves each outline by
    2 r in a random direction, "box" fills the upright bounding box of each class. What an erosion would delete stays as it is.
    """
    if quality == "exact":
        return masks
    radius = max(1, round(0.04 * masks.shape[2]))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = x * x + y * y <= radius * radius
    angles = np.random.default_rng([seed, 11]).uniform(0, 2 * np.pi, len(masks))
    out = np.zeros_like(masks)
    for i, mask in enumerate(masks):
        # larger classes first, so that a cup drawn inside a disc stays visible
        present, sizes = np.unique(mask[mask > 0], return_counts=True)
        for c in present[np.argsort(-sizes, kind="stable")]:
            region = mask == c
            if quality == "dilated":
                region = ndimage.binary_dilation(region, disc)
            elif quality == "eroded":
                inner = ndimage.binary_erosion(region, disc)
                region = inner if inner.any() else region
            elif quality == "box":
                rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
                region = np.zeros_like(region)
                region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
            else:
                step = np.rint(2 * radius * np.array([np.sin(angles[i]), np.cos(angles[i])])).astype(int)
                region = ndimage.shift(region.astype(np.uint8), step, order=0) > 0
            out[i][region] = c
    return out


def validation_score(model: YNet, cfg: Config, queries: Cases, database: Cases) -> float:
    """mAP@10 of ``queries`` in ``database`` by the ranking of the configuration, at the precision of the training."""
    with _precision(cfg):
        distance = distances(cfg, encode_floats(model, cfg, queries), encode_floats(model, cfg, database))
    return float(np.nanmean(average_precision(distance, queries.labels[:, None] == database.labels[None, :], 10)))


def _order(labels: np.ndarray, generator: torch.Generator, balanced: bool) -> np.ndarray:
    n = len(labels)
    if not balanced:
        return torch.randperm(n, generator=generator).numpy()
    weight = 1.0 / torch.from_numpy(np.bincount(labels)[labels]).double()
    return torch.multinomial(weight, n, replacement=True, generator=generator).numpy()


def _optimizer(cfg: Config, named) -> torch.optim.Optimizer:
    # norms and biases are scales and offsets: shrinking them towards zero is not regularisation
    decay = [p for _, p in named if p.ndim > 1]
    plain = [p for _, p in named if p.ndim <= 1]
    if cfg.optimizer == "adam":
        return torch.optim.Adam([*decay, *plain], lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    groups = [{"params": decay, "weight_decay": cfg.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=cfg.lr, fused=True)


def _rate(cfg: Config, at: float) -> float:
    """Learning rate at epoch ``at`` (real number): constant, or one cycle (up in the first fifth, then a cosine to zero)."""
    if cfg.schedule == "constant":
        return cfg.lr
    x = at / cfg.epochs
    if x < 0.2:
        return cfg.lr * (0.04 + 0.96 * x / 0.2)
    return cfg.lr * max(0.5 * (1 + math.cos(math.pi * (x - 0.2) / 0.8)), 1e-4)


def _precision(cfg: Config):
    return torch.autocast(torch.device(cfg.device).type, torch.bfloat16, enabled=cfg.precision == "bfloat16")


def represent(model: YNet, cfg: Config, images: torch.Tensor) -> Output:
    """The network's output for images (N, C, H, W) in 0..255; code and descriptor averaged with those of the mirror images where
    ``Config.flip_codes`` says so."""
    output = model(images)
    if not cfg.flip_codes:
        return output
    mirrored = model(images.flip(3))
    return Output((output.code + mirrored.code) / 2, (output.descriptor + mirrored.descriptor) / 2, output.logits)


@torch.inference_mode()
def encode_floats(model: YNet, cfg: Config, cases: Cases, *, masks: bool = False, batch: int = 64) -> dict[str, np.ndarray]:
    """Real codes and descriptors of ``cases``: ``{"code": (N, K), "descriptor": (N, D)}``, float32, always in full precision.

    With ``masks`` also ``"masks"``: the predicted mask, uint8 (N, H, W). The image alone is read: never the true mask or label.
    """
    if len(cases) == 0:
        raise ValueError("encode: no cases; at least one is needed")
    model.eval()
    device = next(model.parameters()).device  # a loaded network lies on the CPU wherever it was trained
    found: dict[str, list] = {"code": [], "descriptor": []} | ({"masks": []} if masks else {})
    for start in range(0, len(cases), batch):
        images = torch.from_numpy(cases.images[start : start + batch]).to(device).float()
        output = represent(model, cfg, images)
        found["code"].append(output.code.float().cpu().numpy())
        found["descriptor"].append(output.descriptor.float().cpu().numpy())
        if masks:
            if output.logits is None:
                raise ValueError(f"{cfg.method}: this network has no segmentation branch and predicts no masks")
            found["masks"].append(output.logits.argmax(1).to(torch.uint8).cpu().numpy())
    return {key: np.concatenate(value) for key, value in found.items()}


def encode(checkpoint: Checkpoint, cases: Cases) -> Codes:
    """Packed hash codes of ``cases``."""
    code = encode_floats(checkpoint.model, checkpoint.cfg, cases)["code"]
    return Codes(pack(code), cases.ids, cases.labels, checkpoint.cfg.bits)


def distances(cfg: Config, queries: dict[str, np.ndarray], database: dict[str, np.ndarray]) -> np.ndarray:
    """(Q, N) distances by ``Config.ranking``: Hamming of the signs, or one minus the cosine of codes or of descriptors."""
    if cfg.ranking == "hamming":
        return hamming(pack(queries["code"]), pack(database["code"]))
    key = "code" if cfg.ranking == "cosine" else "descriptor"
    a, b = (F.normalize(torch.from_numpy(x[key]).double(), dim=1).numpy() for x in (queries, database))
    return 1 - a @ b.T
