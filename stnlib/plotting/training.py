"""The figures of chapter 5: loss curves, and what a trained transformer makes of its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from .images import draw_grid, frame, show_image
from .style import BLUE, GREY, RED, use_style

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
    figure, ax = plt.subplots(figsize=(6.2, 2.9))
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


def inputs_and_outputs(
    inputs: np.ndarray,
    outputs: np.ndarray,
    grids: np.ndarray,
    titles: Sequence[str] = (),
    columns: int = 0,
) -> Figure:
    """Draw inputs with the transformer's grid on them, and below each what the transformer makes of it.

    Parameters
    ----------
    inputs : array, shape (N, 1, H, W)
    outputs : array, shape (N, 1, H_out, W_out)
    grids : array, shape (N, H_out, W_out, 2)
        Normalised coordinates, ``align_corners=False``.
    titles : sequence of str, optional
        Of the inputs.
    columns : int, optional
        How many side by side; by default, all.

    Returns
    -------
    matplotlib.figure.Figure
    """
    columns = min(columns or len(inputs), len(inputs))
    figure, axes = _pairs(len(inputs), columns, bool(titles))
    for pair, *drawn in zip(axes, inputs, outputs, grids, strict=True):
        _draw_pair(*pair, *drawn)
    for (above, _), title in zip(axes, titles, strict=False):  # or none
        above.set_title(title)
    return figure


def moving(
    inputs: np.ndarray, outputs: np.ndarray, grids: np.ndarray, *, interval: int = 80
) -> FuncAnimation:
    """Animate inputs that move with the transformer's grid on them, and below each what the transformer makes of it.

    Parameters
    ----------
    inputs : array, shape (F, N, 1, H, W)
        N images in each of F frames.
    outputs : array, shape (F, N, 1, H_out, W_out)
    grids : array, shape (F, N, H_out, W_out, 2)
        Normalised coordinates, ``align_corners=False``.
    interval : int, default 80
        Milliseconds a frame.

    Returns
    -------
    matplotlib.animation.FuncAnimation
        Over and over again.
    """
    count = inputs.shape[1]
    figure, axes = _pairs(count, count)

    def draw(frame: int) -> list[Axes]:
        drawn = zip(axes, inputs[frame], outputs[frame], grids[frame], strict=True)
        for (above, below), *parts in drawn:
            above.clear()
            below.clear()
            _draw_pair(above, below, *parts)
        return []

    return FuncAnimation(figure, draw, frames=len(inputs), interval=interval, repeat=True)


def _pairs(count: int, columns: int, titles: bool = False) -> tuple[Figure, list[Any]]:
    """Return a figure, and in it a pair of axes, one above the other, for each of some images."""
    rows = -(-count // columns)
    height = rows * (12.4 / columns + 0.3 * titles) + 0.2
    figure, axes = plt.subplots(2 * rows, columns, figsize=(6.2, height), squeeze=False)
    pairs = [
        pair for row in range(rows) for pair in zip(*axes[2 * row : 2 * row + 2], strict=True)
    ]
    for pair in pairs[count:]:
        for ax in pair:
            ax.set_axis_off()
    return figure, pairs[:count]


def _draw_pair(
    above: Axes, below: Axes, image: np.ndarray, output: np.ndarray, grid: np.ndarray
) -> None:
    show_image(above, image)
    draw_grid(above, grid, image.shape[1:], lines=5)
    show_image(below, output)
    frame(below, RED, 1.5)


@contextmanager
def on_white() -> Iterator[None]:
    """Draw in the book's style, but on white: for files that are looked at by themselves.

    Used in a `with` block; figures are closed at its end, and matplotlib's defaults are what they were.
    """
    open_before = set(plt.get_fignums())
    with plt.rc_context():
        use_style()
        plt.rcParams.update({"figure.facecolor": "white", "savefig.facecolor": "white"})
        try:
            yield
        finally:
            for number in set(plt.get_fignums()) - open_before:
                plt.close(number)


def save(picture: Figure | FuncAnimation, path: Path) -> None:
    """Write a figure to a file of the kind that its name ends in; an animation, as a GIF.

    Parameters
    ----------
    picture : matplotlib.figure.Figure or matplotlib.animation.FuncAnimation
    path : Path
        Its folder is made if it is not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, Figure):
        picture.savefig(path)
    else:
        picture.save(path, writer="pillow", dpi=80)


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
    figure, ax = plt.subplots(figsize=(6.2, 2.6))
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
