"""Losses on toy points: gradients by autograd, so that a drawing tells what the code does."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from ...drawing import COLOURS, LINES, MARKERS


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
        style = {"color": COLOURS[number], "ls": LINES[number]}
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
        found[name] = value.item(), torch.autograd.grad(value, u)[0].numpy()
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
            style = {"color": COLOURS[label], "marker": MARKERS[label]}
            axis.scatter(x[own], y[own], s=42, zorder=3, edgecolor="white", linewidth=0.6, **style)
            if marks and name in marks:
                axis.scatter(*np.asarray(marks[name])[label], s=130, marker=style["marker"], fc="none", ec=style["color"], lw=1.6)
        axis.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        axis.set(xlabel="bit 1 before the sign", ylabel="bit 2 before the sign", title=f"{name}: {value:.2f}")
        axis.axhline(0, color="#AAAAAA", lw=0.8, zorder=1)
        axis.axvline(0, color="#AAAAAA", lw=0.8, zorder=1)
    return figure
