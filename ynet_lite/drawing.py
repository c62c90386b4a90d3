"""Pictures: rows of cases, retrieval pages, training curves. One style, from ``figures/style.mplstyle``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from . import paths
from .cases.core import Cases

# Okabe and Ito's colours: told apart with any colour vision; meaning is always doubled by a line style or a word
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
GREY = "#666666"
LINES, MARKERS = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v", "P", "X", "*")


def use_style() -> None:
    """Switch matplotlib to the project's style (falls back to the defaults where the file is not installed)."""
    path = paths.root() / "figures" / "style.mplstyle"
    if path.is_file():
        plt.style.use(path)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure so that the same figure gives the same bytes (no date, no version), and close it."""
    _settle(figure)
    path = _write(figure, path)
    plt.close(figure)
    return path


def _settle(figure: Figure) -> None:
    """Do the layout now and round the places it found, instead of doing it while writing.

    The solver behind the constrained layout sums in an order that depends on memory addresses, so that the last bits of its
    places change from process to process. Lines do not show that; a resampled image does, in single grey levels.
    """
    if figure.get_layout_engine() is None:
        return
    figure.set_dpi(plt.rcParams["savefig.dpi"] if plt.rcParams["savefig.dpi"] != "figure" else figure.dpi)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")

    inner = figure.findobj(SubFigure)
    for part in inner:
        part.bbox_relative.set_points(part.bbox_relative.get_points().round(5))
    for text in [text for part in (figure, *inner) for text in part.texts]:
        text.set_position(np.round(text.get_position(), 5))
    for axis in figure.axes:
        axis.set_position(np.round(axis.get_position(original=True).bounds, 5))


def _write(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None} if path.suffix == ".png" else None
    with paths.replacing(path) as temporary:
        figure.savefig(temporary, metadata=metadata)
    return path


def keep_local(figure: Figure, dataset: str, name: str) -> Figure:
    """For figures of cases in notebooks: those of real sets are also written to ``figures/local/``, which git ignores.

    The file is ``<dataset>-<name>.png``; nothing is written for the phantom. Returns the figure, open, so that it is shown.
    """
    if dataset != "phantom":
        _write(figure, paths.local_figures() / f"{dataset}-{name}.png")
    return figure


def draw_case(axis: Axes, cases: Cases, row: int, *, title: str = "", colour: str = ORANGE) -> None:
    """One image, cropped to its content, with the outline of its mask."""
    image, mask = cases.content(row)
    show(axis, image, title)
    if mask.any():
        # a dark line under the coloured one keeps it visible on bright tissue
        for line, width in (("black", 1.8), (colour, 1.0)):
            axis.contour(mask > 0, [0.5], colors=[line], linewidths=width)


def show(axis: Axes, image: np.ndarray, title: str = "") -> None:
    """An image as it is, grey values 0 to 255: (H, W), (1 or 3, H, W)."""
    planes = image.reshape(-1, *image.shape[-2:])
    axis.imshow(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize=8)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)


def frame(axis: Axes, colour: str, dashed: bool = False, width: float = 2.5) -> None:
    """A coloured frame around an axis."""
    for spine in axis.spines.values():
        spine.set(visible=True, color=colour, linewidth=width, linestyle="--" if dashed else "-")


def case_rows(cases: Cases, rows: Sequence[Sequence[int]], row_names: Sequence[str], titles=None) -> Figure:
    """A grid of cases: one line per entry of ``rows``, named on the left. ``titles(case_row) -> str`` names each picture."""
    wide = max(len(r) for r in rows)
    lines = max((titles(row).count("\n") + 1 for picked in rows for row in picked), default=0) if titles else 0
    size = (1.15 * wide + 0.6, (1.2 + 0.14 * lines) * len(rows) + 0.1)
    figure, axes = plt.subplots(len(rows), wide, figsize=size, squeeze=False)
    for line, (picked, name) in enumerate(zip(rows, row_names, strict=True)):
        for column, axis in enumerate(axes[line]):
            if column >= len(picked):
                axis.axis("off")
                continue
            draw_case(axis, cases, picked[column], title=titles(picked[column]) if titles else "")
        axes[line, 0].set_ylabel(name, fontsize=8)
    return figure


def pictures(rows: Sequence[Sequence[np.ndarray]], row_names: Sequence[str], titles: Sequence[str]) -> Figure:
    """A grid of images as they are: uint8 (H, W), (1, H, W) or (3, H, W), one line per entry of ``rows``, titles on the first."""
    size = (1.3 * len(titles), 1.35 * len(rows) + 0.4)
    figure, axes = plt.subplots(len(rows), len(titles), figsize=size, squeeze=False)
    for line, (images, name) in enumerate(zip(rows, row_names, strict=True)):
        for axis, image, above in zip(axes[line], images, titles, strict=True):
            show(axis, image, "" if line else above)
        axes[line, 0].set_ylabel(name, fontsize=8)
    return figure


def retrieval_page(queries: Cases, database: Cases, rows: Sequence[int], distance: np.ndarray, k: int = 10) -> Figure:
    """Each query (left) with its ``k`` nearest cases; blue frame = same class, red dashed frame = another class.

    distance : (Q, N) distances of all queries to the whole database; equal distances are shown in order of ``case_id``.
    """
    per_line = min(k, 10)
    lines = [(row, start) for row in rows for start in range(0, k, per_line)]
    figure, axes = plt.subplots(
        len(lines), per_line + 1, figsize=(0.98 * (per_line + 1), 1.28 * len(lines) + 0.35), squeeze=False
    )
    for axis in axes.ravel():
        axis.axis("off")
    for line, (row, start) in enumerate(lines):
        if start == 0:
            axes[line, 0].axis("on")
            draw_case(axes[line, 0], queries, row, title=f"query\n{queries.class_names[queries.labels[row]]}")
            frame(axes[line, 0], "black")
        order = np.lexsort((database.ids, distance[row]))[start : min(start + per_line, k)]
        for column, answer in enumerate(order, start=1):
            axis = axes[line, column]
            axis.axis("on")
            same = database.labels[answer] == queries.labels[row]
            gap = distance[row, answer]
            number = f"{gap:.2f}" if np.issubdtype(distance.dtype, np.floating) else f"{int(gap)} bits"
            draw_case(axis, database, answer, title=f"{number}\n{database.class_names[database.labels[answer]]}")
            frame(axis, BLUE if same else RED, dashed=not same)
    return figure


def loss_curves(history: pd.DataFrame) -> Figure:
    """Each loss term against the epoch, and the validation score beside them."""
    names = {"classification": BLUE, "seg_ce": ORANGE, "seg_dice": RED, "quantisation": GREY}
    shown = [name for name in names if name in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), width_ratios=[3, 2])
    for name, style in zip(shown, ("-", "--", "-.", ":"), strict=False):
        left.plot(history["epoch"], history[name], style, color=names[name], label=name)
    left.set(xlabel="epoch", ylabel="loss term, unweighted", ylim=(0, None))
    left.legend(fontsize=8)
    score = history.dropna(subset="validation")
    right.plot(score["epoch"], score["validation"], "o-", color=GREEN)
    right.set(xlabel="epoch", ylabel="mAP@10, validation patients", xlim=left.get_xlim(), ylim=(0, 1))
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
