"""Where on the image a cell of a deep stage lies: measured, and no outline is read.

``python -m ynet_lite.paper.ambiguity.alignment``

A map of cells of stride s can be laid over the image in two ways: cell i at pixel s i, the middle of the field that it *can*
read ("receptive field"; Araujo, Norris, Sim, Distill, 2019), or in the middle of its block of s pixels, (s - 1) / 2 further
("half pixel"), as resizing functions and the segmentation branch assume. What a cell *does* read is learned, and training may
move it. A `Shift` is the mean place of what it reads minus s i, in pixels: 0 speaks for the first way, (s - 1) / 2 for the
second.

- ``gradient``: the effective receptive field (Luo et al., NeurIPS 2016, arXiv 1701.04128): the size of the gradient of a cell's
  activations, added up with random signs, with respect to each pixel; its centroid.
- ``map``: the same, the channels weighted as Grad-CAM weights them for the case's own class: what the drawn map is made of.
- ``occlusion``: no gradient. A small patch is painted grey; how much does each cell change? Centroid of patch minus cell.
- ``frame``: ``gradient`` in the images as they are, over all cells.

The first three look at *windows*, not at images: the full preset has 4 x 4 cells at C5, the field of each is wider than the
image, and so the border cuts every one of them. The encoder is convolutional and takes any size: a window is a random part of the
plane that mirror images of one case tile, wide enough for the whole field of its middle cell. Since the part is random, content
that lies in the middle of images pulls in no direction: for a network with symmetric kernels the expected shift is 0. In the
frame it is not, because the outer cells see only the inside: read that measure against its value with random weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ... import attribution, methods, paths, provenance
from ...cases.core import Cases
from ...checkpoint import Checkpoint, checkpoint_path
from ...config import Config
from ...encoding import encode_floats
from ...model import YNet
from ...sets import load_cases
from ...training import load_or_train
from .. import store, tables
from . import study

#: Images uint8 values as float (N, C, H, W) -> activations of a stage (N, K, h, w).
Stage = Callable[[Tensor], Tensor]

METHODS = ("ynet", "ynet-no-seg")

MEASURED = (4, 5)  # the stages that attention is asked for

IMAGES = 100  # cases of a network's queries

REACH = 4  # cells on each side of a window's middle cell: the field of our encoders ends before

BATCH = 20

COLUMNS = (
    "run_id config_hash dataset fingerprint fold seed preset method weights level stride measure "
    "shift_rows shift_columns se_rows se_columns n_cells n_images commit dirty"
).split()


class Shift(NamedTuple):
    """Mean place of what cells read minus stride times their number, in pixels down and right, with standard errors.

    cells, images : how many it is a mean of; errors are those of independent images. NaN where nothing was read.
    """

    rows: float
    columns: float
    se_rows: float
    se_columns: float
    cells: int
    images: int


def stage_of(model: YNet, level: int) -> Stage:
    """Stage C``level`` of a network as a function of images in 0..255. Raises ``ValueError`` for a network in training mode."""
    if any(module.training for module in model.modules()):
        raise ValueError("stage_of: the network is in training mode, where its stages depend on the batch; call model.eval()")
    return lambda images: model.encoder((images - model.mean) / model.std)[level - 2]


def windows(images: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random part of each image's plane of mirror images. uint8 (N, C, H, W) -> uint8 (N, C, side, side)."""
    found = np.empty((*images.shape[:2], side, side), images.dtype)
    for image, window in zip(images, found, strict=True):
        rows, columns = ((rng.integers(2 * n) + np.arange(side)) % (2 * n) for n in image.shape[1:])
        h, w = image.shape[1:]
        window[:] = image[:, np.minimum(rows, 2 * h - 1 - rows)][:, :, np.minimum(columns, 2 * w - 1 - columns)]
    return found


def gradient_shift(
    stage: Stage, images: np.ndarray, stride: int, weights: Tensor | None = None, *, per_image: int = 2, reach: int = REACH
) -> Shift:
    """`Shift` by the effective receptive field of the middle cell of ``per_image`` windows of each image.

    images : uint8 (N, C, H, W). weights : (N, K), the channels' weights for each image; None = random signs.
    Windows where no pixel matters (all ReLUs closed) are left out. Raises ``ValueError`` where a field is wider than a window of
    2 ``reach`` + 1 cells, or where ``stride`` is not the stage's.
    """
    rng, signs = np.random.default_rng(0), torch.Generator().manual_seed(0)
    moments, cells = np.zeros((len(images), 2)), np.zeros(len(images))
    for rows in _batches(images, per_image):
        x = torch.from_numpy(windows(images[rows], (2 * reach + 1) * stride, rng)).float().requires_grad_()
        cell = _checked(stage(x), reach, stride)[:, :, reach, reach]
        chosen = 2.0 * torch.randint(0, 2, cell.shape, generator=signs) - 1 if weights is None else weights[rows]
        field = _fields(cell, chosen, x)
        _inside(field, reach)
        place = np.arange(x.shape[2]) - stride * reach
        moments[rows] += _moments(field, place, place)
        cells[rows] += field.sum((1, 2))
    return _shift(moments, cells, cells)


def occlusion_shift(stage: Stage, images: np.ndarray, stride: int, *, per_image: int = 8, reach: int = REACH) -> Shift:
    """`Shift` by painting a patch of stride / 4 pixels grey in a window of each image, at ``per_image`` places, one at a time.

    How much a cell changes is the length of the difference of its activations. A patch's place is uniform over one stride, so
    that all places between two cells count alike. ``cells`` of the result are patches. Errors as in `gradient_shift`.
    """
    rng, side = np.random.default_rng(0), max(1, stride // 4)
    moments, mass, patches = np.zeros((len(images), 2)), np.zeros(len(images)), np.zeros(len(images))
    grey = float(images.mean()) if len(images) else 0.0
    with torch.no_grad():
        for rows in _batches(images):
            plain = torch.from_numpy(windows(images[rows], (2 * reach + 1) * stride, rng)).float()
            before = _checked(stage(plain), reach, stride)
            for _ in range(per_image):
                corners = stride * reach - stride // 2 + rng.integers(0, stride, (len(rows), 2))
                painted = plain.clone()
                for window, (top, left) in zip(painted, corners, strict=True):
                    window[:, top : top + side, left : left + side] = grey
                change = (stage(painted) - before).square().sum(1).sqrt().double().numpy()
                # what a cell that cannot see the patch changes by is rounding
                change[change < 1e-4 * change.max()] = 0
                _inside(change, reach)
                middle, cells = corners + (side - 1) / 2, stride * np.arange(2 * reach + 1)
                moments[rows] += _moments(change, middle[:, :1] - cells, middle[:, 1:] - cells)
                mass[rows] += change.sum((1, 2))
                patches[rows] += change.any((1, 2))
    return _shift(moments, mass, patches)


def frame_shift(stage: Stage, images: np.ndarray, stride: int) -> Shift:
    """`Shift` by the effective receptive field of all cells of the images as they are, where the border cuts the fields."""
    signs = torch.Generator().manual_seed(0)
    moments, cells = np.zeros((len(images), 2)), np.zeros(len(images))
    for rows in _batches(images):
        x = torch.from_numpy(images[rows]).float().requires_grad_()
        maps = stage(x)
        for i, j in np.ndindex(*maps.shape[2:]):
            chosen = 2.0 * torch.randint(0, 2, maps.shape[:2], generator=signs) - 1
            field = _fields(maps[:, :, i, j], chosen, x)
            moments[rows] += _moments(field, np.arange(x.shape[2]) - stride * i, np.arange(x.shape[3]) - stride * j)
            cells[rows] += field.sum((1, 2))
    return _shift(moments, cells, cells)


def _batches(images: np.ndarray, times: int = 1) -> Iterator[np.ndarray]:
    """Rows of ``images``, `BATCH` at a time, all of them ``times`` times."""
    for _ in range(times):
        yield from np.split(np.arange(len(images)), range(BATCH, len(images), BATCH)) if len(images) else ()


def _checked(maps: Tensor, reach: int, stride: int) -> Tensor:
    if maps.shape[2:] != (2 * reach + 1,) * 2:
        raise ValueError(
            f"alignment: a window of {2 * reach + 1} cells of {stride} pixels gave {tuple(maps.shape[2:])} cells; wrong stride?"
        )
    return maps


def _inside(field: np.ndarray, reach: int) -> None:
    if field[:, [0, -1]].any() or field[:, :, [0, -1]].any():
        raise ValueError(f"alignment: what a cell reads is wider than a window of {2 * reach + 1} cells; raise reach")


def _fields(cells: Tensor, weights: Tensor, x: Tensor) -> np.ndarray:
    """Size of the gradient of one weighted cell per image, summed over the image's channels, as shares. float64 (N, H, W).

    Every cell counts alike, whatever its gradient; one without any is left at zero.
    """
    (gradient,) = torch.autograd.grad((cells * weights).sum(), x, retain_graph=True)
    field = gradient.abs().sum(1).double().numpy()
    total = field.sum((1, 2), keepdims=True)
    return field / np.where(total > 0, total, 1)


def _moments(field: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Sums of places weighted by ``field`` (N, H, W): (N, 2). ``down`` (H,) or (N, H), ``right`` (W,) or (N, W)."""
    return np.stack([(field.sum(2) * down).sum(1), (field.sum(1) * right).sum(1)], 1)


def _shift(moments: np.ndarray, mass: np.ndarray, cells: np.ndarray) -> Shift:
    """Ratio of sums over images, with the standard error of a ratio by linearisation."""
    total, used = mass.sum(), int((mass > 0).sum())
    if used == 0:
        return Shift(*[float("nan")] * 4, 0, 0)
    mean = moments.sum(0) / total
    error = np.sqrt(((moments - mass[:, None] * mean) ** 2).sum(0)) / total
    return Shift(*mean.tolist(), *(error.tolist() if used > 1 else [float("nan")] * 2), round(cells.sum()), used)


# --- one network -----------------------------------------------------------------------------------------------------


def measure(
    cfg: Config, checkpoint: Checkpoint, database: Cases, queries: Cases, levels: Iterable[int] = MEASURED
) -> pd.DataFrame:
    """Every measure of the stages of one network: columns weights, level, stride, measure and those of `Shift`.

    Images: at most `IMAGES` of ``queries``, whose outlines are not read; their classes and the database's codes are, for
    ``map``. ``weights`` "trained"; for Y-Net also "random", the same layers initialised anew (its twin has the same encoder).
    ``map`` is left out where the stage passes no gradient to the code (`attribution.deepest_level`).
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(queries))[:IMAGES])
    images, labels = queries.images[rows], queries.labels[rows]
    found = []
    networks = {"trained": checkpoint.model}
    if cfg.method == "ynet":
        networks["random"] = attribution.randomised(checkpoint.model, cfg.seed)
    for name, model in networks.items():
        for level in levels:
            stage, stride = stage_of(model, level), attribution.cell_stride(cfg, level)
            shifts = {
                "gradient": gradient_shift(stage, images, stride),
                "occlusion": occlusion_shift(stage, images, stride),
                "frame": frame_shift(stage, images[::3], stride),  # a backward pass per cell
            }
            if name == "trained" and level <= attribution.deepest_level(cfg):
                codes = encode_floats(model, cfg, database)["code"]
                weights = _own_class_weights(model, cfg, images, labels, codes, database.labels, level)
                shifts["map"] = gradient_shift(stage, images, stride, weights)
            found += [(name, level, stride, measured, *shift) for measured, shift in shifts.items()]
    return pd.DataFrame(found, columns=COLUMNS[COLUMNS.index("weights") : COLUMNS.index("commit")])


def _own_class_weights(model, cfg, images, labels, codes, database_labels, level) -> Tensor:
    """`attribution.channel_weights` of each image for its own class (N, K); zeros where the database has none of it."""
    found = torch.zeros(len(images), model.encoder.widths[level - 2])
    for label in np.intersect1d(labels, database_labels):
        own = labels == label
        target = attribution.class_score(codes, database_labels, label)
        found[torch.from_numpy(own)] = attribution.channel_weights(model, cfg, images[own], target, level)
    return found


# --- the command -----------------------------------------------------------------------------------------------------


def _file(folder: str | Path, name: str) -> Path:
    return Path(folder) / study.FOLDERS["alignment"] / name


def run(cfg: Config, checkpoint: Checkpoint, database: Cases, queries: Cases, folder: str | Path) -> Path:
    """`measure` one network and write its rows (`COLUMNS`). Returns the file."""
    about = {column: getattr(cfg, column) for column in ("dataset", "fold", "seed", "preset", "method")}
    about |= {"run_id": provenance.run_id(cfg), "config_hash": cfg.hash(), "fingerprint": queries.fingerprint[:16]}
    about |= dict(zip(("commit", "dirty"), provenance.commit(), strict=True))
    table = measure(cfg, checkpoint, database, queries).assign(**about)
    return paths.write_csv(table[COLUMNS], _file(folder, f"{about['run_id']}.csv"))


def main(argv: list[str] | None = None) -> int:
    """Measure where the cells of Y-Net and its twin lie; what is measured already is not repeated."""
    parser = argparse.ArgumentParser(prog="python -m ynet_lite.paper.ambiguity.alignment", description=main.__doc__)
    grids = list(study.GRIDS)
    parser.add_argument("--grid", nargs="*", choices=grids, default=grids, help="which grids (default: all)")
    parser.add_argument("--folds", nargs="*", type=int, default=[1], help="only these folds (default: 1)")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1], help="only these seeds (default: 0 1)")
    parser.add_argument("--folder", type=Path, default=paths.out() / "results", help="where rows are looked for and written")
    parser.add_argument("--train", action="store_true", help="train what has no stored checkpoint, instead of skipping it")
    given = parser.parse_args(argv)
    for cfg in study.configs_of(given.grid, METHODS, given.folds, given.seeds):
        name = provenance.run_id(cfg)
        if cfg.variant or _file(given.folder, f"{name}.csv").is_file():
            continue
        torch.set_num_threads(cfg.threads)
        database, queries = load_cases(cfg).split(cfg.fold)
        path = checkpoint_path(cfg, database)
        if not (path.is_file() and path.with_suffix(".json").is_file()) and not given.train:
            print(f"{name}: skipped, no checkpoint {path.name} is stored; --train makes it", flush=True)
            continue
        checkpoint = load_or_train(cfg, database, progress=False)
        began = time.perf_counter()
        run(cfg, checkpoint, database, queries, given.folder)
        print(f"{name} in {time.perf_counter() - began:.0f} s", flush=True)
    return 0


# --- what the rows say -----------------------------------------------------------------------------------------------


def read_rows(folder: str | Path | None = None) -> pd.DataFrame:
    """All rows under ``folder`` (default: the committed results), in a fixed order."""
    found = store.small("ambiguity/alignment", folder)
    return found if len(found) else pd.DataFrame(columns=COLUMNS)


def shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Shifts as shares of half a pixel's, (s - 1) / 2: columns down, right, and nearer (bool).

    0 = receptive field, 1 = half pixel; ``nearer``: the measured place lies nearer to the receptive field's, in the plane.
    """
    half = (rows["stride"] - 1) / 2
    down, right = rows["shift_rows"] / half, rows["shift_columns"] / half
    return pd.DataFrame({"down": down, "right": right, "nearer": np.hypot(down, right) < np.hypot(1 - down, 1 - right)})


HEADINGS = {"gradient": "gradient", "occlusion": "occlusion", "map": "gradient of the map", "frame": "in the frame"}


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean shifts over trainings as text, a line per set, network and stage: pixels down, pixels right."""
    lines = []
    keys = ["dataset", "preset", "weights", "method", "level", "stride"]
    order = {"trained": 0, "random": 1}
    groups = sorted(rows.groupby(keys), key=lambda g: (g[0][0] != "phantom", *g[0][:2], order[g[0][2]], g[0][3], g[0][4]))
    for (dataset, preset, weights, method, level, stride), part in groups:
        network = methods.METHOD_NAMES[method] if weights == "trained" else "random weights"
        line = {"set": f"{dataset}, {preset}", "network": network, "stage": f"C{level}", "runs": part["run_id"].nunique()}
        line["half a pixel"] = f"{(stride - 1) / 2:.1f}"
        for name, heading in HEADINGS.items():
            own = part[part["measure"] == name][["shift_rows", "shift_columns"]].mean()
            # + 0.0: what rounds to zero has no minus
            line[heading] = "-" if own.isna().any() else ", ".join(f"{round(value, 1) + 0.0:+.1f}" for value in own)
        lines.append(line)
    return pd.DataFrame(lines)


def text(rows: pd.DataFrame) -> str:
    """The section of the page of `study`: what the rows say about the two readings; "" without rows."""
    if rows.empty:
        return ""
    trained, random = (rows[rows["weights"] == weights] for weights in ("trained", "random"))
    whole, frame = trained[trained["measure"] != "frame"], trained[trained["measure"] == "frame"]
    apart = shares(whole)[["down", "right"]]
    errors = whole[["se_rows", "se_columns"]].div((whole["stride"] - 1) / 2, axis=0)
    near, cut_near = shares(whole)["nearer"], shares(frame)["nearer"]
    said = (
        "A place is one of these measures of one stage of one network. Nearer to the receptive field than to half a pixel lie "
        f"{near.sum()} of {len(near)} places on windows, and {cut_near.sum()} of {len(cut_near)} in the frame. In units of half "
        f"a pixel's shift, those on windows average {apart['down'].mean():.2f} down and {apart['right'].mean():.2f} right; the "
        f"largest is {apart.max(axis=None):.2f} along one axis, the largest standard error {errors.max(axis=None):.2f}."
    )
    if len(random):
        cut = shares(random[random["measure"] == "frame"])[["down", "right"]].mean(axis=None)
        known = shares(random[random["measure"] != "frame"])[["down", "right"]].abs().max(axis=None)
        said += (
            f" With random weights, where the answer is 0, windows are off by {known:.2f} at most, but the frame by {cut:.2f} on "
            "average, by its border alone: it is shown all the same, and does not decide."
        )
    return "\n".join([ABOUT, tables.markdown(table(rows)), "", said]) + "\n"


ABOUT = """## Alignment

Where a cell of a deep stage lies on the image, measured without reading an outline (`ynet_lite.paper.ambiguity.alignment`):
pixels down, pixels right of stride times the number of the cell, mean over runs. 0 is the receptive field; "half a pixel" is
what resizing functions and the segmentation branch assume, in both directions. *Gradient*: centroid of the effective receptive
field; *of the map*: with the weights of Grad-CAM; *occlusion*: a patch is painted grey. These three use windows of mirrored
images that hold the whole field of a cell; *in the frame* is the image as it is, where the border cuts the fields.
"""


if __name__ == "__main__":
    sys.exit(main())
