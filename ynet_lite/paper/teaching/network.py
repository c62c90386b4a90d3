"""The network drawn with the shapes of a forward pass, and the regions of R-MAC."""

import copy

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor

from ...drawing import COLOURS, LINES
from ...model import YNet
from ...pooling import rmac_regions

POOLING_NAMES = {
    "lesion": "mean inside the\npredicted lesion",
    "selfpool": "mean under a\nlearned weight",
    "rmac": "R-MAC",
    "gap": "mean",
    "mac": "maximum",
}


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
    pooled, masked = cfg.pooling.split("+"), "logits" in shapes
    figure, axis = plt.subplots(figsize=(9.4, 4.5))
    axis.set(xlim=(-0.5, 7.5), ylim=(-0.72, 2.62))
    axis.axis("off")
    w, h, dark, brown = 0.38, 0.23, "#444444", "#8A5A00"  # half of a box

    def write(x: float, y: float, text: str, size: float = 8, **how) -> None:
        axis.text(x, y, text, fontsize=size, **{"ha": "center", "color": dark} | how)

    def box(x: float, y: float, name: str, shape: str, colour: str) -> None:
        how = {"boxstyle": "round,pad=0,rounding_size=0.06", "fc": colour, "ec": dark, "lw": 0.9}
        axis.add_patch(FancyBboxPatch((x - w, y - h), 2 * w, 2 * h, **how))
        write(x, y + 0.1 * bool(shape), name, 8.5 if shape else 7.2, va="center", color="black", weight="bold" if shape else None)
        write(x, y - 0.1, shape, 7.5, va="center", color="black")

    def arrow(*places, **how) -> None:
        style = {"arrowstyle": "-|>", "color": dark, "lw": 1.1, "shrinkA": 0, "shrinkB": 0} | how
        axis.annotate("", xy=places[1], xytext=places[0], arrowprops=style)

    def size(name: str) -> str:
        return " × ".join(str(n) for n in shapes[name])

    blue, orange, green = "#DCEBF7", "#FCEBCB", "#D8F0E6"
    for x, name in enumerate(("image", "stem", "C2", "C3", "C4", "C5")):
        box(x, 1, name, size(name), blue if x else "white")
        if x:
            arrow((x - 1 + w, 1), (x - w, 1))
    write(7.4, 1, "encoder", 9, ha="right", va="center", style="italic", color="black")
    if masked:
        names = {0: ("logits", "logits"), 1: ("logits", "coarse")} | {level: (f"P{level}",) * 2 for level in (2, 3, 4, 5)}
        for x, (name, of) in names.items():
            box(x, 2, name, size(of), orange)
            if x:
                arrow((x - w, 2), (x - 1 + w, 2))
            if x > 1:
                arrow((x, 1 + h), (x, 2 - h))
        write(3.5, 2.3, "upsample and add, from right to left")
        write(-w, 2.33, "segmentation loss", 8.5, ha="left", color=brown, weight="bold")
        write(7.4, 2, "segmentation\nbranch", 9, ha="right", va="center", style="italic", color="black")

    box(4, 0, " +\n".join(POOLING_NAMES[kind] for kind in pooled), "", green)
    for level in cfg.pool_levels:
        arrow((level - 0.12 * (level > 4), 1 - h), (4 + 0.14 * (level - 4), h))
    box(5, 0, "descriptor", size("descriptor"), green)
    box(6, 0, "real code", size("code"), green)
    box(7, 0, "bits", f"{shapes['code'][0]} ({shapes['code'][0] // 8} bytes)", "white")
    arrow((4 + w, 0), (5 - w, 0))
    arrow((5.2, 1 - h) if cfg.code_input == "c5" else (5 + w, 0), (6, h) if cfg.code_input == "c5" else (6 - w, 0))
    arrow((6 + w, 0), (7 - w, 0))
    write(6.5, 0.07, "sign")
    if masked and "lesion" in pooled:
        # down the gap between stem and C2: where the lesion is tells the pooling where to look
        axis.plot([1.25, 1.25, 1.5, 1.5], [2 - h, 1.5, 1.5, 0], color=brown, ls="--", lw=1.2)
        arrow((1.5, 0), (4 - w, 0), color=brown, linestyle="--", lw=1.2)
        write(2.55, 0.07, "weight: 1 - p(background)", color=brown)
        write(2.55, -0.15, "(no gradient flows back here)", color=brown)
    losses = "classification loss" + ("\nquantisation loss" if cfg.quant_weight else "")
    write(5 if cfg.cls_target == "descriptor" else 6, -0.32, losses, 8.5, va="top", color="#00664B", weight="bold")
    write(4, -0.32, "classification\nbranch", 9, va="top", style="italic", color="black")
    return figure


def region_boxes(image: np.ndarray, grid: tuple[int, int], levels: int = 3) -> Figure:
    """The regions of R-MAC on a picture, one panel per level, and how many regions look at each cell of the feature map.

    image : (H, W) or (H, W, 3), values 0..255. grid : height and width of the feature map the regions are taken from.
    """
    down, right = image.shape[0] / grid[0], image.shape[1] / grid[1]
    figure, axes = plt.subplots(1, levels + 1, figsize=(2.25 * (levels + 1), 2.55), squeeze=False)
    covered = np.zeros(grid, int)
    for level, axis in enumerate(axes[0, :levels], start=1):
        # regions come level by level
        own = rmac_regions(*grid, level)[len(rmac_regions(*grid, level - 1)) :]
        side = own[0][2]
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.hlines(down * np.arange(1, grid[0]) - 0.5, -0.5, image.shape[1] - 0.5, color="white", lw=0.6, ls=":")
        axis.vlines(right * np.arange(1, grid[1]) - 0.5, -0.5, image.shape[0] - 0.5, color="white", lw=0.6, ls=":")
        for number, (top, left, _) in enumerate(own):
            covered[top : top + side, left : left + side] += 1
            # frames that overlap would hide each other
            inset = (0.05 + 0.09 * (number % 3 if level * side > min(grid) else 0)) * down
            place = (left * right - 0.5 + inset, top * down - 0.5 + inset)
            # a pale line under the coloured one keeps it visible on dark and on bright tissue
            for colour, width, line in (("white", 3.0, "-"), (COLOURS[number % 4], 1.7, LINES[number // 4 % 4])):
                size = side * right - 2 * inset, side * down - 2 * inset
                axis.add_patch(Rectangle(place, *size, fill=False, ec=colour, lw=width, ls=line))
        axis.set_title(f"level {level}: {len(own)} region{'s' if len(own) > 1 else ''}\nof {side} × {side} cells")
    axis = axes[0, levels]
    axis.imshow(covered, cmap="Blues", vmin=0, vmax=1.4 * covered.max())
    for (y, x), number in np.ndenumerate(covered if covered.size <= 256 else np.empty((0, 0))):
        axis.text(x, y, number, ha="center", va="center", fontsize=8 if max(grid) > 8 else 10)
    axis.set_title("regions that\nsee each cell")
    for axis in axes[0]:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    return figure
