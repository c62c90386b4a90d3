"""Drawings and small demonstrations of `02_model_and_losses` and `05_hashing`: the network, toy gradients, bits, ties.

Nothing here is used to train or to score. Every number that is drawn comes from the functions of the package themselves (autograd
of `ynet_lite.losses`, shapes of a real forward pass), so that a drawing cannot tell another story than the code.
"""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor, nn

from ...cases.core import Cases
from ...drawing import BLUE, GREEN, ORANGE, RED
from ...losses.unified import UnifiedLoss
from ...model import YNet
from ...pooling import rmac_regions
from ..ambiguity import exchange

#: Line styles and markers in the order of use: no meaning hangs on colour alone.
COLOURS = (BLUE, ORANGE, GREEN, RED)

LINES = ("-", "--", "-.", ":")

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

POOLING_NAMES = {
    "lesion": "mean inside the\npredicted lesion",
    "selfpool": "mean under a\nlearned weight",
    "rmac": "R-MAC",
    "gap": "mean",
    "mac": "maximum",
}


# --- the network -----------------------------------------------------------------------------------------------------


def tensor_shapes(model: YNet, images: Tensor) -> dict[str, tuple[int, ...]]:
    """Shapes, without the batch, of what a forward pass makes of ``images`` (N, channels, H, W) in 0..255.

    Keys: image, stem, C2..C5, descriptor, code; P2..P5 (pyramid), coarse (logits on the head's grid) and logits only where the
    network has a segmentation branch. The model is left as it was.
    """
    model = copy.deepcopy(model).eval()
    found = {"image": images}
    with torch.inference_mode():
        features = model.encode(images)
        found["stem"] = model.encoder.stem((images - model.mean) / model.std)
        found |= {f"C{level}": x for level, x in enumerate(features, start=2)}
        if model.segmentation is not None:
            logits, coarse = model.segmentation(features, tuple(images.shape[2:]))
            found |= {"coarse": coarse, "logits": logits}
        output = model(images)
    shapes = {name: tuple(x.shape[1:]) for name, x in (found | {"descriptor": output.descriptor, "code": output.code}).items()}
    if model.segmentation is not None:
        shapes |= {f"P{level}": (model.cfg.fpn, *shapes[f"C{level}"][1:]) for level in range(2, 6)}
    return shapes


def draw_network(model: YNet, images: Tensor) -> Figure:
    """Boxes and arrows of Y-Net, every shape taken from a forward pass: encoder in the middle, a branch above and one below."""
    cfg, shapes = model.cfg, tensor_shapes(model, images)
    figure, axis = plt.subplots(figsize=(9.4, 4.5))
    axis.set(xlim=(-0.5, 7.5), ylim=(-0.72, 2.62))
    axis.axis("off")
    wide, high = 0.76, 0.46

    def box(column: float, row: float, name: str, shape: str, colour: str) -> None:
        corner = (column - wide / 2, row - high / 2)
        patch = FancyBboxPatch(corner, wide, high, boxstyle="round,pad=0,rounding_size=0.06", fc=colour, ec="#444444", lw=0.9)
        axis.add_patch(patch)
        axis.text(column, row + 0.1, name, ha="center", va="center", fontsize=8.5, weight="bold")
        axis.text(column, row - 0.1, shape, ha="center", va="center", fontsize=7.5)

    def arrow(start, end, **style) -> None:
        how = {"arrowstyle": "-|>", "color": "#444444", "lw": 1.1, "shrinkA": 0, "shrinkB": 0} | style
        axis.annotate("", xy=end, xytext=start, arrowprops=how)

    def size(name: str) -> str:
        return " × ".join(str(n) for n in shapes[name])

    blue, orange, green = "#DCEBF7", "#FCEBCB", "#D8F0E6"
    columns = {"image": 0, "stem": 1, "C2": 2, "C3": 3, "C4": 4, "C5": 5}
    for name, column in columns.items():
        box(column, 1, name, size(name), "white" if name == "image" else blue)
        if column:
            arrow((column - 1 + wide / 2, 1), (column - wide / 2, 1))
    if "logits" in shapes:
        for level in (5, 4, 3, 2):
            box(level, 2, f"P{level}", size(f"P{level}"), orange)
            arrow((level, 1 + high / 2), (level, 2 - high / 2))
            arrow((level - wide / 2, 2), (level - 1 + wide / 2, 2))
        box(1, 2, "logits", size("coarse"), orange)
        box(0, 2, "logits", size("logits"), orange)
        arrow((1 - wide / 2, 2), (wide / 2, 2))
        axis.text(3.5, 2.3, "upsample and add, from right to left", ha="center", fontsize=8, color="#444444")
        axis.text(-wide / 2, 2.33, "segmentation loss", fontsize=8.5, color="#8A5A00", weight="bold")
        axis.text(7.4, 2, "segmentation\nbranch", ha="right", va="center", fontsize=9, style="italic")
    axis.text(7.4, 1, "encoder", ha="right", va="center", fontsize=9, style="italic")

    kinds = " +\n".join(POOLING_NAMES[kind] for kind in cfg.pooling.split("+"))
    corner = (4 - wide / 2, -high / 2)
    axis.add_patch(FancyBboxPatch(corner, wide, high, boxstyle="round,pad=0,rounding_size=0.06", fc=green, ec="#444444", lw=0.9))
    axis.text(4, 0, kinds, ha="center", va="center", fontsize=7.2)
    for level in cfg.pool_levels:
        arrow((level - 0.12 * (level > 4), 1 - high / 2), (4 + 0.14 * (level - 4), high / 2))
    box(5, 0, "descriptor", size("descriptor"), green)
    box(6, 0, "real code", size("code"), green)
    box(7, 0, "bits", f"{shapes['code'][0]} ({shapes['code'][0] // 8} bytes)", "white")
    arrow((4 + wide / 2, 0), (5 - wide / 2, 0))
    arrow((6 + wide / 2, 0), (7 - wide / 2, 0))
    axis.text(6.5, 0.07, "sign", ha="center", fontsize=8, color="#444444")
    if cfg.code_input == "c5":
        arrow((5 + 0.2, 1 - high / 2), (6, high / 2))
    else:
        arrow((5 + wide / 2, 0), (6 - wide / 2, 0))
    if "logits" in shapes and "lesion" in cfg.pooling.split("+"):
        # down the gap between stem and C2: where the lesion is tells the pooling where to look
        axis.plot([1.25, 1.25, 1.5, 1.5], [2 - high / 2, 1.5, 1.5, 0], color="#8A5A00", ls="--", lw=1.2)
        arrow((1.5, 0), (4 - wide / 2, 0), color="#8A5A00", linestyle="--", lw=1.2)
        axis.text(2.55, 0.07, "weight: 1 - p(background)", ha="center", fontsize=8, color="#8A5A00")
        axis.text(2.55, -0.15, "(no gradient flows back here)", ha="center", fontsize=8, color="#8A5A00")
    under = 5 if cfg.cls_target == "descriptor" else 6
    losses = "classification loss" + ("\nquantisation loss" if cfg.quant_weight else "")
    axis.text(under, -0.32, losses, ha="center", va="top", fontsize=8.5, color="#00664B", weight="bold")
    axis.text(4, -0.32, "classification\nbranch", ha="center", va="top", fontsize=9, style="italic")
    return figure


def gradient_reach(
    model: YNet, loss: UnifiedLoss, images: Tensor, masks: Tensor, has_mask: Tensor, labels: Tensor
) -> pd.DataFrame:
    """Length of each loss term's gradient in each part of the network: who teaches whom. Exactly 0 where nothing arrives.

    One row per term, unweighted; columns encoder, segmentation, code. A part that the network lacks is a column of NaN. Arguments
    as those of `UnifiedLoss.forward`, ``images`` (N, channels, H, W) in 0..255. The model is left as it was.
    """
    model = copy.deepcopy(model).eval()
    _, terms = loss(model(images), masks, has_mask, labels, model.classifier)
    parts = {"encoder": model.encoder, "segmentation": model.segmentation, "code": model.code}
    rows = {}
    for name, term in terms.items():
        rows[name] = {part: _gradient_length(term, module) for part, module in parts.items()}
    return pd.DataFrame(rows).T.reindex(columns=list(parts))


def _gradient_length(term: Tensor, module: nn.Module | None) -> float:
    if module is None:
        return float("nan")
    if not term.requires_grad:
        return 0.0
    found = torch.autograd.grad(term, list(module.parameters()), retain_graph=True, allow_unused=True)
    return float(sum(g.double().square().sum() for g in found if g is not None)) ** 0.5


def region_boxes(image: np.ndarray, grid: tuple[int, int], levels: int = 3) -> Figure:
    """The regions of R-MAC on a picture, one panel per level, and how many regions look at each cell of the feature map.

    image : (H, W) or (H, W, 3), values 0..255. grid : height and width of the feature map the regions are taken from.
    """
    regions = rmac_regions(*grid, levels)
    short = min(grid)
    sides = [max(1, int(2 * short / (level + 1))) for level in range(1, levels + 1)]
    step = (image.shape[0] / grid[0], image.shape[1] / grid[1])
    figure, axes = plt.subplots(1, levels + 1, figsize=(2.25 * (levels + 1), 2.55), squeeze=False)
    position = 0
    for level, axis in enumerate(axes[0, :levels], start=1):
        _plain(axis, image, grid, step)
        # the regions come level by level, as many in a row as there are places on the grid
        rest = regions[position:]
        count = _count_of_level(grid, level, levels)
        for number, (top, left, side) in enumerate(rest[:count]):
            # frames that overlap would hide each other
            apart = number % 3 if level * sides[level - 1] > short else 0
            inset = (0.05 + 0.09 * apart) * step[0]
            place = (left * step[1] - 0.5 + inset, top * step[0] - 0.5 + inset)
            size = (side * step[1] - 2 * inset, side * step[0] - 2 * inset)
            colour = COLOURS[number % 4]
            # a pale line under the coloured one keeps it visible on dark and on bright tissue
            for line, width, style in (("white", 3.0, "-"), (colour, 1.7, LINES[number // 4 % 4])):
                axis.add_patch(Rectangle(place, *size, fill=False, ec=line, lw=width, ls=style))
        axis.set_title(
            f"level {level}: {count} region{'s' if count > 1 else ''}\nof {sides[level - 1]} × {sides[level - 1]} cells"
        )
        position += count
    covered = np.zeros(grid, int)
    for top, left, side in regions:
        covered[top : top + side, left : left + side] += 1
    axis = axes[0, levels]
    axis.imshow(covered, cmap="Blues", vmin=0, vmax=1.4 * covered.max())
    if covered.size <= 256:
        for (y, x), number in np.ndenumerate(covered):
            axis.text(x, y, number, ha="center", va="center", fontsize=8 if max(grid) > 8 else 10)
    axis.set_title("regions that\nsee each cell")
    _bare(axis)
    return figure


def _count_of_level(grid: tuple[int, int], level: int, levels: int) -> int:
    return len(rmac_regions(*grid, level)) - (len(rmac_regions(*grid, level - 1)) if level > 1 else 0)


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _plain(axis: Axes, image: np.ndarray, grid=None, step=None) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    _bare(axis)
    if grid:
        for cell in range(1, grid[0]):
            axis.axhline(cell * step[0] - 0.5, color="white", lw=0.6, ls=":")
        for cell in range(1, grid[1]):
            axis.axvline(cell * step[1] - 0.5, color="white", lw=0.6, ls=":")


def pooling_panels(image: np.ndarray, mask: np.ndarray, feature: np.ndarray, weight: np.ndarray) -> Figure:
    """What lesion-weighted pooling does to one channel: image, weight, channel, channel times weight.

    image (H, W) or (H, W, 3) in 0..255; mask (H, W); feature and weight (h, w), weight in 0..1.
    """
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.5))
    _plain(axes[0], image)
    if mask.any():
        axes[0].contour(mask > 0, [0.5], colors=[ORANGE], linewidths=1.4)
    axes[0].set_title("image and outline")
    top = max(float(feature.max()), 1e-12)
    shown = (("weight of each cell", weight, 1.0), ("one channel", feature, top), ("channel × weight", feature * weight, top))
    for axis, (title, values, highest) in zip(axes[1:], shown, strict=True):
        drawn = axis.imshow(values, cmap="cividis", vmin=0, vmax=highest)
        axis.set_title(title)
        _bare(axis)
        figure.colorbar(drawn, ax=axis, shrink=0.8)
    return figure


def other_tissue(cases: Cases, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Each lesion in the tissue of another case, whose own lesion is painted over first (`ambiguity.replace_background`).

    The partner is the next case in an order drawn from ``seed``; one case alone is put into itself. Returns (images, masks) of
    the shapes and types of ``cases``.
    """
    order = np.random.default_rng(seed).permutation(len(cases))
    partner = np.empty(len(cases), np.int64)
    partner[order] = np.roll(order, -1)
    content = exchange.content_masks(cases.table, cases.images.shape[-1])
    return exchange.replace_background(
        cases.images, cases.masks, cases.images[partner], cases.masks[partner], content, content[partner]
    )
