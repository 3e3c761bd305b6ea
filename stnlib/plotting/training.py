"""The figures of chapter 5: loss curves, and what a trained transformer makes of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from .images import draw_grid, frame, show_image
from .style import BLUE, GREY, RED

STYLES = ((BLUE, "-"), (RED, "--"))


def loss_curves(losses: Mapping[str, Sequence[float]], window: int = 50) -> Figure:
    """Draw the loss of several networks against the training step, on a logarithmic scale.

    Parameters
    ----------
    losses : mapping from a network's name to its loss at each step
        At most two.
    window : int
        Steps that are averaged to one point.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, ax = plt.subplots(figsize=(7, 3))
    for (name, loss), (colour, line) in zip(losses.items(), STYLES, strict=False):
        parts = np.array_split(np.asarray(loss), max(len(loss) // window, 1))
        steps = (
            np.cumsum([len(part) for part in parts])
            - np.array([len(part) for part in parts]) / 2
        )
        ax.plot(
            steps, [part.mean() for part in parts], color=colour, linestyle=line, label=name
        )
    ax.set(xlabel="step", ylabel="training loss", yscale="log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.legend()
    return figure


def inputs_and_outputs(inputs: np.ndarray, outputs: np.ndarray, grids: np.ndarray) -> Figure:
    """Draw inputs with the transformer's grid on them, and below each what the transformer makes of it.

    Parameters
    ----------
    inputs : array, shape (N, 1, H, W)
    outputs : array, shape (N, 1, H_out, W_out)
    grids : array, shape (N, H_out, W_out, 2)
        Normalised coordinates, ``align_corners=False``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    count = len(inputs)
    figure, axes = plt.subplots(2, count, figsize=(8, 16 / count + 0.2), squeeze=False)
    for above, below, image, output, grid in zip(*axes, inputs, outputs, grids, strict=True):
        show_image(above, image)
        draw_grid(above, grid, image.shape[1:], lines=5)
        show_image(below, output)
        frame(below, RED, 1.5)
    return figure


def film(
    image: np.ndarray,
    outputs: Sequence[np.ndarray],
    grids: Sequence[np.ndarray],
    titles: Sequence[str],
) -> Figure:
    """Draw one input as the transformer sees it at several moments of its training.

    Parameters
    ----------
    image : array, shape (1, H, W)
    outputs : sequence of arrays, shape (1, H_out, W_out)
    grids : sequence of arrays, shape (H_out, W_out, 2)
    titles : sequence of str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = inputs_and_outputs(
        np.stack([image] * len(outputs)), np.stack(outputs), np.stack(grids)
    )
    for ax, title in zip(figure.axes, titles, strict=False):
        ax.set_title(title)
    return figure


def pose_spread(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw how much of the digits' variety in pose is left after the transformer, for each part of the pose.

    Parameters
    ----------
    runs : sequence of mappings
        Runs of the ST-FCN from a record that `stnlib.experiments.rts` wrote.

    Returns
    -------
    matplotlib.figure.Figure
    """
    parts = {"x": "place along x", "y": "place along y", "log_scale": "size", "angle": "angle"}
    figure, ax = plt.subplots(figsize=(7, 2.6))
    for position, part in enumerate(parts):
        left = [
            100 * run["pose_after"][part]["std"] / run["pose_before"][part]["std"]
            for run in runs
        ]
        ax.barh(position, np.mean(left), color=(BLUE, 0.5), edgecolor=BLUE)
        ax.plot(left, [position] * len(left), "o", color=RED)
    ax.axvline(100, color=GREY, linewidth=1, linestyle=":")
    ax.set(xlabel="standard deviation after the transformer, % of that before")
    ax.set_yticks(range(len(parts)), parts.values())
    ax.invert_yaxis()
    return figure
