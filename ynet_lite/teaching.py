"""Drawings and small demonstrations of `02_model_and_losses` and `05_hashing`: the network, toy gradients, bits, ties.

Nothing here is used to train or to score. Every number that is drawn comes from the functions of the package themselves (autograd
of `ynet_lite.losses`, shapes of a real forward pass), so that a drawing cannot tell another story than the code.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from scipy.stats import binom
from torch import Tensor, nn

from . import ambiguity
from .cases.core import Cases
from .losses import UnifiedLoss, pairwise_loss
from .model import YNet, rmac_regions
from .plots import BLUE, GREEN, GREY, ORANGE, RED

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
    content = ambiguity.content_masks(cases.table, cases.images.shape[-1])
    return ambiguity.replace_background(
        cases.images, cases.masks, cases.images[partner], cases.masks[partner], content, content[partner]
    )


# --- losses on toy points --------------------------------------------------------------------------------------------


def value_and_slope(curves: Mapping[str, Callable[[Tensor], Tensor]], x: Sequence[float]) -> pd.DataFrame:
    """Value and derivative (by autograd) of functions of one number. Columns curve, x, value, slope.

    Each function takes a scalar float64 tensor and returns a scalar tensor.
    """
    rows = []
    for name, function in curves.items():
        for at in np.asarray(x, float):
            point = torch.tensor(at, dtype=torch.float64, requires_grad=True)
            value = function(point)
            (slope,) = torch.autograd.grad(value, point)
            rows.append((name, at, value.item(), slope.item()))
    return pd.DataFrame(rows, columns=["curve", "x", "value", "slope"])


def curve_panels(table: pd.DataFrame, xlabel: str, slope_label: str) -> Figure:
    """Values on the left, slopes on the right, of the table of `value_and_slope`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.9))
    for number, name in enumerate(dict.fromkeys(table["curve"])):
        one = table[table["curve"] == name]
        style = {"color": COLOURS[number % 4], "ls": LINES[number % 4]}
        left.plot(one["x"], one["value"], label=name, **style)
        right.plot(one["x"], one["slope"], **style)
    right.axhline(0, color="black", lw=0.8)
    left.set(xlabel=xlabel, ylabel="loss")
    right.set(xlabel=xlabel, ylabel=slope_label)
    left.legend()
    return figure


def point_gradients(points: Tensor, losses: Mapping[str, Callable[[Tensor], Tensor]]) -> dict[str, tuple[float, np.ndarray]]:
    """{name: (value, gradient (N, 2))} of each loss at ``points`` (N, 2)."""
    found = {}
    for name, loss in losses.items():
        u = points.detach().clone().requires_grad_()
        value = loss(u)
        (gradient,) = torch.autograd.grad(value, u)
        found[name] = value.item(), gradient.numpy()
    return found


def gradient_arrows(points: Tensor, labels: Tensor, losses: Mapping[str, Callable[[Tensor], Tensor]], marks=None) -> Figure:
    """One panel per loss: codes of two bits and where each is pushed (minus the gradient).

    The length of an arrow is the square root of its push, on a scale of its own in each panel, since losses have different units.
    ``marks``: {name of a loss: (C, 2)} targets drawn as hollow symbols of their class.
    """
    found = point_gradients(points, losses)
    across = 3 if len(losses) > 2 else len(losses)
    down = -(-len(losses) // across)
    figure, axes = plt.subplots(down, across, figsize=(2.95 * across, 3.0 * down), squeeze=False)
    for axis in axes.ravel()[len(losses) :]:
        axis.axis("off")
    x, y = points.numpy().T
    for axis, (name, (value, gradient)) in zip(axes.ravel(), found.items(), strict=False):
        longest = np.linalg.norm(gradient, axis=1).max()
        # square roots, so that weak pushes are seen beside strong ones
        length = np.sqrt(np.linalg.norm(gradient, axis=1, keepdims=True) * longest)
        push = np.divide(-0.5 * gradient, length, out=np.zeros_like(gradient), where=length > 0)
        axis.quiver(x, y, *push.T, angles="xy", scale_units="xy", scale=1, width=0.009, color="#444444", zorder=2)
        for label in labels.unique().tolist():
            own = (labels == label).numpy()
            style = {"color": COLOURS[label % 4], "marker": MARKERS[label % 8]}
            axis.scatter(x[own], y[own], s=42, zorder=3, edgecolor="white", linewidth=0.6, **style)
            if marks and name in marks:
                axis.scatter(*np.asarray(marks[name])[label], s=130, marker=style["marker"], fc="none", ec=style["color"], lw=1.6)
        axis.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        axis.set(xlabel="bit 1 before the sign", ylabel="bit 2 before the sign")
        axis.set_title(f"{name}: {value:.2f}")
        axis.axhline(0, color="#AAAAAA", lw=0.8, zorder=1)
        axis.axvline(0, color="#AAAAAA", lw=0.8, zorder=1)
    return figure


def saddle_panels(sharpness: float = 0.5) -> Figure:
    """The pairwise likelihood of two codes of one bit: level lines and push, for one class and for two. Flat at zero codes."""
    grid = torch.linspace(-1, 1, 41)
    arrows = torch.linspace(-0.9, 0.9, 7)
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.5), sharey=True)
    for axis, alike in zip(axes, (True, False), strict=True):
        same = torch.full((2, 2), alike)

        def at(a, b, same=same):
            u = torch.stack([a, b])[:, None].requires_grad_()
            value = pairwise_loss(u, same, sharpness)
            return value.item(), torch.autograd.grad(value, u)[0][:, 0].numpy()

        heights = np.array([[at(a, b)[0] for a in grid] for b in grid])
        lines = axis.contour(grid, grid, heights, levels=np.linspace(heights.min(), heights.max(), 11)[1:-1], colors="#999999")
        axis.clabel(lines, fmt="%.2f", fontsize=7)
        a, b = (part.ravel() for part in torch.meshgrid(arrows, arrows, indexing="xy"))
        push = -np.array([at(p, q)[1] for p, q in zip(a, b, strict=True)])
        axis.quiver(a, b, *push.T, angles="xy", color=BLUE, width=0.006)
        axis.plot(0, 0, "X", ms=9, color=RED, mec="white", zorder=4)
        axis.set(xlabel="code of image 1", aspect="equal", title="same class" if alike else "different classes")
    axes[0].set_ylabel("code of image 2")
    return figure


def descend_codes(scale: float, labels: Sequence[int], bits: int, *, steps: int, lr: float, seed: int = 0) -> np.ndarray:
    """Pairwise loss after each step of plain gradient descent on real codes z that start at ``scale`` times a normal draw.

    No network: z (N, bits) itself is moved, u = tanh(z). Returns float64 (steps + 1,), the start first.
    """
    y = torch.as_tensor(labels)
    same = y[:, None] == y[None, :]
    generator = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(len(y), bits, generator=generator, dtype=torch.float64)
    values = []
    for _ in range(steps + 1):
        z.requires_grad_()
        value = pairwise_loss(torch.tanh(z), same)
        values.append(value.item())
        z = z.detach() - lr * torch.autograd.grad(value, z)[0]
    return np.array(values)


def descent_curves(curves: Mapping[str, np.ndarray], level: float, level_name: str) -> Figure:
    """Loss against step for several starts, and a dotted line at ``level``."""
    figure, axis = plt.subplots(figsize=(7, 2.8))
    for number, (name, values) in enumerate(curves.items()):
        axis.plot(values, label=name, color=COLOURS[number % 4], ls=LINES[number % 4])
    axis.axhline(level, color="black", ls=":", lw=1)
    axis.annotate(
        level_name, (1, level), xycoords=("axes fraction", "data"), xytext=(-3, 3), textcoords="offset points", ha="right"
    )
    axis.set(xlabel="step", ylabel="pairwise loss", ylim=(0, None))
    axis.legend(loc="lower left")
    return figure


def descend_balance(
    floors: tuple[float, float], *, a: float = 0.5, train_a: bool = True, steps: int = 300, lr: float = 0.02
) -> pd.DataFrame:
    """Gradient descent on |a| L1(w) + |1 - a| L2(w), two tasks that share one weight w. Columns step, a, L1, L2.

    L1 = (w - 1)^2 / 2 + floor 1 and L2 = (w + 1)^2 / 2 + floor 2: the tasks want opposite weights, and the floors say how hard
    each is. w starts at 0, between them. With ``train_a`` the balance a is moved like any weight.
    """
    w, balance = torch.zeros((), dtype=torch.float64), torch.tensor(float(a), dtype=torch.float64)
    rows = []
    for step in range(steps + 1):
        w.requires_grad_()
        balance.requires_grad_()
        first, second = (w - 1) ** 2 / 2 + floors[0], (w + 1) ** 2 / 2 + floors[1]
        rows.append((step, balance.item(), first.item(), second.item()))
        of_w, of_a = torch.autograd.grad(balance.abs() * first + (1 - balance).abs() * second, (w, balance))
        w = w.detach() - lr * of_w
        balance = balance.detach() - lr * of_a * train_a
    return pd.DataFrame(rows, columns=["step", "a", "L1", "L2"])


def balance_panels(runs: Mapping[str, pd.DataFrame], fixed: pd.DataFrame) -> Figure:
    """The balance of several descents on the left; on the right both losses of the first one beside a fixed balance."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.1))
    for number, (name, run) in enumerate(runs.items()):
        left.plot(run["step"], run["a"], label=name, color=COLOURS[number % 4], ls=LINES[number % 4])
    left.set(xlabel="step", ylabel="a (weight of L1)", ylim=(-0.08, 1.08))
    left.legend(fontsize=8, loc="center right")
    trained = next(iter(runs.values()))
    for name, run, line in (("a trained", trained, "-"), ("a fixed", fixed, "--")):
        for part, colour in (("L1", BLUE), ("L2", RED)):
            right.plot(run["step"], run[part], line, color=colour, label=f"{part}, {name}")
    right.set(xlabel="step", ylabel="loss, unweighted", ylim=(0, None))
    right.legend(fontsize=8)
    return figure


# --- bits ------------------------------------------------------------------------------------------------------------


def _bits(bits) -> np.ndarray:
    bits = np.asarray(bits)
    if bits.dtype != bool or bits.ndim != 2 or 0 in bits.shape:
        raise ValueError(f"bits: must be bool of shape (N, K), neither of them 0, got {bits.dtype} {bits.shape}")
    return bits


def bit_correlation(bits) -> np.ndarray:
    """Correlation of every two bits over the cases, float64 (K, K) in [-1, 1]. A constant bit has 0 with all, itself too."""
    b = _bits(bits) - _bits(bits).mean(axis=0)
    spread = np.sqrt((b * b).mean(axis=0))
    unit = np.divide(b, spread, out=np.zeros_like(b), where=spread > 0)
    return np.clip(unit.T @ unit / len(b), -1, 1)


def effective_bits(bits) -> float:
    """How many independent bits would vary as much together: (sum of eigenvalues)^2 / (sum of their squares) of the correlation.

    K for uncorrelated bits, 1 where all bits are copies (or opposites) of one, 0 where none ever changes. bits : bool (N, K).
    """
    correlation = bit_correlation(bits)
    squares = float((correlation**2).sum())
    return float(np.trace(correlation)) ** 2 / squares if squares > 0 else 0.0


def bit_panels(u: np.ndarray, bits: np.ndarray) -> Figure:
    """Entries of the real code in (-1, 1), the share of cases with +1 per bit, and the correlation of every two bits."""
    correlation = bit_correlation(bits)
    # similar bits side by side: in order of their part in the strongest common direction
    order = np.argsort(np.linalg.eigh(correlation)[1][:, -1], kind="stable")
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.0))
    axes[0].hist(u.ravel(), bins=np.linspace(-1, 1, 41), color=BLUE, weights=np.full(u.size, 100 / u.size))
    axes[0].set(xlabel="entry of the code, tanh(z)", ylabel="% of all entries", xlim=(-1.02, 1.02))
    axes[1].plot(np.sort(bits.mean(axis=0)), "o", ms=3.5, color=BLUE)
    axes[1].axhline(0.5, color="black", ls=":", lw=1)
    axes[1].annotate("balanced", (0, 0.5), xytext=(0, 3), textcoords="offset points", fontsize=8)
    axes[1].set(xlabel="bits, sorted", ylabel="share of cases with +1", ylim=(-0.02, 1.02))
    drawn = axes[2].imshow(correlation[np.ix_(order, order)], cmap="PuOr", vmin=-1, vmax=1)
    axes[2].set(xlabel="bit, similar ones together", ylabel="bit")
    axes[2].grid(False)
    figure.colorbar(drawn, ax=axes[2], label="correlation", shrink=0.85)
    return figure


def distance_histograms(distances: np.ndarray, relevance: np.ndarray, bits: int) -> Figure:
    """Hamming distances of relevant and of other pairs, and what independent fair bits would give. Both arrays (Q, N)."""
    figure, axis = plt.subplots(figsize=(7.4, 3.0))
    edges = np.arange(bits + 2) - 0.5
    parts = (("same class", relevance, BLUE, "-"), ("other class", ~relevance, RED, "--"))
    for name, chosen, colour, line in parts:
        values = distances[chosen]
        weights = np.full(len(values), 100 / max(len(values), 1))
        axis.hist(values, edges, weights=weights, histtype="stepfilled", color=colour, alpha=0.18)
        axis.hist(values, edges, weights=weights, histtype="step", color=colour, ls=line, lw=1.6, label=name)
    axis.plot(range(bits + 1), 100 * binom.pmf(range(bits + 1), bits, 0.5), ":", color="black", label="independent fair bits")
    axis.set(xlabel="Hamming distance of query and database case, bits", ylabel="% of pairs", xlim=(-1, bits + 1))
    axis.legend()
    return figure


def length_panel(curves: pd.DataFrame, points: Mapping[str, tuple[float, float]], chance: float) -> Figure:
    """Score against bytes per case. curves: columns name, bits, mean, low, high; points: {name: (bytes, score)}."""
    figure, axis = plt.subplots(figsize=(7.4, 3.6))
    for number, name in enumerate(dict.fromkeys(curves["name"])):
        one = curves[curves["name"] == name].sort_values("bits")
        size = one["bits"] / 8
        colour = COLOURS[number % 4]
        axis.fill_between(size, one["low"], one["high"], color=colour, alpha=0.18, lw=0)
        axis.plot(size, one["mean"], color=colour, ls=LINES[number % 4], marker=MARKERS[number], label=name)
    for number, (name, (size, score)) in enumerate(points.items()):
        style = {"color": COLOURS[(2 + number) % 4], "marker": MARKERS[(2 + number) % 8]}
        axis.plot(size, score, ls="", ms=8, label=name, **style)
    axis.axhline(chance, color="black", ls=":", lw=1, label="random codes")
    axis.set_xscale("log", base=2)
    sizes = sorted({b / 8 for b in curves["bits"]} | {size for size, _ in points.values()})
    axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axis.minorticks_off()
    axis.set(xlabel="bytes per case (logarithmic)", ylabel="mAP@10", ylim=(0, 1.02))
    axis.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


# --- ties ------------------------------------------------------------------------------------------------------------


def naive_average_precision(distances: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    """AP at k as it is often computed: equal distances stay in database order. float64 (Q,), NaN without relevant cases.

    AP = sum_{r <= k} rel(r) precision(r) / min(k, relevant cases), as `metrics.average_precision`, but with no care for ties:
    shown here for its fault, never to be reported.
    """
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    hits = np.take_along_axis(np.asarray(relevance, bool), order, axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    best = np.minimum(hits.shape[1], np.asarray(relevance, bool).sum(axis=1))
    return np.divide((hits * precision).sum(axis=1), best, out=np.full(len(hits), np.nan), where=best > 0)


def every_order(distances: Sequence[int], relevance: Sequence[bool], k: int) -> np.ndarray:
    """`naive_average_precision` of one query under all N! orders of its database, float64 (N!,). Raises above N = 8."""
    n = len(distances)
    if n > 8:
        raise ValueError(f"every_order: {n} cases have too many orders to try; at most 8")
    orders = np.array(list(itertools.permutations(range(n))))
    return naive_average_precision(np.asarray(distances)[orders], np.asarray(relevance, bool)[orders], k)


def shuffled_scores(distances: np.ndarray, relevance: np.ndarray, k: int, shuffles: int, seed: int = 0) -> np.ndarray:
    """Mean of `naive_average_precision` over the queries for ``shuffles`` random orders of the database, float64 (shuffles,)."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(shuffles):
        order = rng.permutation(distances.shape[1])
        values.append(np.nanmean(naive_average_precision(distances[:, order], relevance[:, order], k)))
    return np.array(values)


def extreme_scores(distances: np.ndarray, relevance: np.ndarray, k: int) -> tuple[float, float]:
    """Lowest and highest mean AP that ties leave open: relevant cases last, or first, in every group of equal distances."""
    last, first = (np.lexsort((key, distances), axis=1) for key in (relevance, ~relevance))
    low, high = (
        naive_average_precision(np.take_along_axis(distances, order, 1), np.take_along_axis(relevance, order, 1), k)
        for order in (last, first)
    )
    return float(np.nanmean(low)), float(np.nanmean(high))


def shuffle_panel(shuffled: Mapping[str, np.ndarray], expected: Mapping[str, float], extremes: Mapping) -> Figure:
    """One line per code: naive scores of shuffled databases (dots), expected value (bar), what ties leave open (pale line)."""
    figure, axis = plt.subplots(figsize=(7.4, 0.62 * len(shuffled) + 1.2))
    rng = np.random.default_rng(0)
    for height, name in enumerate(list(shuffled)[::-1]):
        values = shuffled[name]
        first = height == 0
        pale = {"color": GREY, "alpha": 0.35, "lw": 7, "solid_capstyle": "butt"}
        axis.plot(extremes[name], [height, height], label=_once("possible", first), **pale)
        jitter = height + rng.uniform(-0.16, 0.16, len(values))
        axis.plot(values, jitter, "o", ms=3, alpha=0.5, mew=0, color=ORANGE, label=_once("naive, database shuffled", first))
        axis.plot([expected[name]] * 2, [height - 0.3, height + 0.3], color=BLUE, lw=2.2, label=_once("expected value", first))
    axis.set_yticks(range(len(shuffled)), list(shuffled)[::-1])
    axis.set(xlabel="mAP@10", ylim=(-0.5, len(shuffled) - 0.4))
    axis.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _once(name: str, first: bool) -> str:
    return name if first else f"_{name}"
