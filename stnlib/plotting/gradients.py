"""The figures of chapter 3: votes, slopes, gather and scatter, landscapes, registrations, tangents and curvatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ..coordinates import normalise, pixel_centres, pixels_per_unit
from ..gather_scatter import Sampler, gather
from ..interpolation import KERNELS
from ..prefilter import prefilter
from ..sampling import affine_grid, grid_sample, grid_sample_vjp
from .images import frame, show_image, show_values
from .style import BLUE, GREEN, GREY, PURPLE, RED

CHAIN = (r"$\theta$", "grid", "$V$", "$L$")
FORWARD = ("affine_grid", "grid_sample", "loss")
BACKWARD = (
    r"$\partial L/\partial\theta$",
    r"$\partial L/\partial\,$grid",
    r"$\partial L/\partial V$",
)


def show_chain() -> Figure:
    """Draw the three steps from theta to the loss, and the three gradients on their way back.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, ax = plt.subplots(figsize=(7, 1.8))
    x = 2.6 * np.arange(len(CHAIN))
    for place, name in zip(x, CHAIN, strict=True):
        ax.text(
            place,
            0,
            name,
            ha="center",
            va="center",
            size=14,
            bbox={"boxstyle": "round", "fc": "none", "ec": GREY},
        )
    for i, (forward, backward) in enumerate(zip(FORWARD, BACKWARD, strict=True)):
        middle = x[i] + 1.3
        ax.annotate(
            "",
            (x[i + 1] - 0.55, 0.22),
            (x[i] + 0.55, 0.22),
            arrowprops={"arrowstyle": "->", "color": BLUE},
        )
        ax.annotate(
            "",
            (x[i] + 0.55, -0.22),
            (x[i + 1] - 0.55, -0.22),
            arrowprops={"arrowstyle": "->", "color": RED},
        )
        ax.text(middle, 0.35, forward, ha="center", va="bottom", color=BLUE)
        ax.text(middle, -0.35, backward, ha="center", va="top", color=RED)
    ax.set(xlim=(-0.7, x[-1] + 0.7), ylim=(-1, 0.9))
    ax.set_axis_off()
    return figure


def show_votes(image: np.ndarray, target: np.ndarray, *, length: float = 3.0) -> Figure:
    """Draw a digit over its target, and the way that each sample would have to move to make the two more alike.

    The grid is the identity's, the loss half the squared difference. A sample's arrow is minus the gradient of its
    coordinates. The large arrow is their sum.

    Parameters
    ----------
    image, target : array of float, shape (H, W)
        Height and width even and equal.
    length : float
        Of the longest vote, in pixels as drawn.

    Returns
    -------
    matplotlib.figure.Figure
    """
    size = image.shape
    batch = np.asarray(image, dtype=np.float64)[None, None]
    grid = affine_grid(np.eye(2, 3)[None], size)
    difference = grid_sample(batch, grid) - target
    gradient: Any = grid_sample_vjp(difference, batch, grid).grid
    votes = -gradient[0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.8))
    show_image(left, image, "the output, and the target's outline")
    left.contour(target, levels=[0.5], colors=[RED], linewidths=1.5)
    right.set_title("each sample's vote, and their sum")
    row, column = np.nonzero(np.hypot(*np.moveaxis(votes, -1, 0)) > 1e-9)
    votes = votes * length / np.hypot(*np.moveaxis(votes, -1, 0)).max()
    arrows = {"angles": "xy", "scale_units": "xy", "scale": 1.0}
    right.quiver(
        column,
        row,
        votes[row, column, 0],
        votes[row, column, 1],
        color=BLUE,
        width=0.004,
        **arrows,
    )
    total = votes.sum(axis=(0, 1))
    total = total * 0.3 * size[1] / np.hypot(*total)
    right.quiver(size[1] / 2 - 0.5, size[0] / 2 - 0.5, *total, color=RED, width=0.018, **arrows)
    right.contour(target, levels=[0.5], colors=[RED], linewidths=0.8)
    right.set(
        xlim=(-0.5, size[1] - 0.5),
        ylim=(size[0] - 0.5, -0.5),
        aspect="equal",
        xticks=[],
        yticks=[],
    )
    frame(right, GREY)
    return figure


def show_gather_and_scatter(pixels: np.ndarray, x: float, y: float, gradient: float) -> Figure:
    """Draw one sample that reads four pixels with four weights, and its gradient that goes back to the same four.

    Parameters
    ----------
    pixels : array, shape (H, W)
    x, y : float
        Where the sample reads, in pixels, between four pixels of the image.
    gradient : float
        Of the loss with respect to this output pixel.

    Returns
    -------
    matplotlib.figure.Figure
    """
    height, width = pixels.shape
    grid = np.asarray([[[[normalise(x, width), normalise(y, height)]]]])
    batch = np.asarray(pixels, dtype=np.float64)[None, None]
    output = float(grid_sample(batch, grid)[0, 0, 0, 0])
    back: Any = grid_sample_vjp(np.full((1, 1, 1, 1), gradient), batch, grid).input
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.8))
    faint: Any = {"strength": 0.15}  # arrows and weights lie on it
    show_values(left, pixels, f"forward: gather, V = {output:g}", **faint)
    show_values(
        right, back[0, 0], f"backward: scatter {gradient:g}", digits=2, colour=RED, **faint
    )
    for ax, inwards, colour in ((left, True, BLUE), (right, False, RED)):
        for row in (int(y), int(y) + 1):
            for column in (int(x), int(x) + 1):
                # Between the sample and the pixel, short of its number.
                ends = [(x, y), (x + 0.6 * (column - x), y + 0.6 * (row - y))]
                tail, head = ends[::-1] if inwards else ends
                ax.annotate(
                    "",
                    head,
                    tail,
                    arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.5},
                )
                if inwards:
                    weight = (1 - abs(x - column)) * (1 - abs(y - row))
                    away = -0.34 if row < y else 0.34
                    ax.text(
                        column, row + away, f"× {weight:g}", ha="center", va="center", size=10
                    )
        ax.plot(x, y, "o", color=colour)
    return figure


def show_row(row: np.ndarray) -> Figure:
    """Draw the value of a row of pixels as the position moves along it, and the derivative of the value.

    Parameters
    ----------
    row : array of float, shape (W,)
        Zeros lie beyond it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    width = len(row)
    x = np.linspace(-1.5, width + 0.5, 40 * (width + 2) + 1)
    value, _ = _read_row(row, x)
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(6.6, 4.2), sharex=True)
    top.plot(x, value, color=BLUE)
    top.plot(np.arange(width), row, "o", color=BLUE)
    top.set_ylabel("value $V$")
    knots = np.arange(-1, width + 1)
    _, right = _read_row(row, knots + 0.5)  # the same all along a segment
    edges = np.concatenate(([-1.5], knots, [width + 0.5]))
    slopes = np.concatenate(([0.0], right))
    bottom.hlines(slopes, edges[:-1], edges[1:], color=RED)
    bottom.plot(knots, slopes[1:], "o", color=RED, label="at the knot: from the right")
    bottom.plot(knots, slopes[:-1], "o", color=RED, fillstyle="none", label="from the left")
    bottom.set(xlabel="position $x$, in pixels", ylabel="derivative", xticks=knots)
    bottom.margins(y=0.12)
    bottom.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9, borderaxespad=0)
    for ax in (top, bottom):
        ax.grid(axis="x", alpha=0.3)
    return figure


def _read_row(row: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a row at positions in pixels, and their derivatives per pixel."""
    image = np.asarray(row, dtype=np.float64)[None, None, None]
    grid = np.stack((normalise(x, len(row)), np.zeros_like(x)), axis=-1)[None, None]
    value = grid_sample(image, grid)
    gradient: Any = grid_sample_vjp(np.ones_like(value), image, grid).grid
    return value[0, 0, 0], gradient[0, 0, :, 0] / pixels_per_unit(len(row))


def show_adjoint(grad_output: np.ndarray, scattered: np.ndarray, warped: np.ndarray) -> Figure:
    """Draw a gradient at the output, its scatter to the input, and what a warp by the inverse would put there.

    Parameters
    ----------
    grad_output, scattered, warped : array, shape (H, W)

    Returns
    -------
    matplotlib.figure.Figure
    """
    titles = ("gradient of the output", "scattered: right", "warped back: wrong")
    tables = (grad_output, scattered, warped)
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.7))
    top = max(float(np.abs(table).max()) for table in tables)
    for ax, table, title, colour in zip(axes, tables, titles, (BLUE, GREEN, RED), strict=True):
        whole = bool(np.all(table == np.round(table)))
        show_values(
            ax, table, title, digits=0 if whole else 1, colour=colour, largest=top, strength=0.5
        )
        for text in ax.texts:
            text.set_fontsize(9)
    return figure


def show_patterns(size: int = 7) -> Figure:
    """Draw how the sampling grid moves as each of theta's six entries grows: six patterns of arrows.

    Parameters
    ----------
    size : int
        Arrows along a side.

    Returns
    -------
    matplotlib.figure.Figure
    """
    x, y = np.meshgrid(
        pixel_centres(size, align_corners=True), pixel_centres(size, align_corners=True)
    )
    factors = (("x^t", x), ("y^t", y), ("1", np.ones_like(x)))
    figure, axes = plt.subplots(2, 3, figsize=(6.4, 4.5))
    for row in range(2):
        for column, (name, factor) in enumerate(factors):
            ax = axes[row, column]
            moves = [np.zeros_like(x), np.zeros_like(x)]
            moves[row] = 0.28 * factor
            ax.quiver(
                x,
                y,
                *moves,
                color=(BLUE, RED)[row],
                angles="xy",
                scale_units="xy",
                scale=1,
                width=0.012,
            )
            ax.set(xlim=(-1.4, 1.4), ylim=(1.4, -1.4), aspect="equal", xticks=[], yticks=[])
            axis = "xy"[row]
            ax.set_title(
                rf"$\partial {axis}^s/\partial\theta_{{{row + 1}{column + 1}}} = {name}$"
            )
            frame(ax, GREY)
    return figure


def show_basins(
    shifts: np.ndarray,
    losses: Mapping[str, np.ndarray],
    basins: Mapping[str, tuple[float, float]],
) -> Figure:
    """Draw losses over a shift, each as a share of its largest, and the basin about the right shift of each.

    Parameters
    ----------
    shifts : array, shape (K,)
        In pixels; 0 is right.
    losses : mapping from a label to an array, shape (K,)
    basins : mapping from the same labels to (first, last)
        Between which shifts the loss falls steadily towards 0.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, ax = plt.subplots(figsize=(7, 3.3))
    for (label, loss), colour in zip(losses.items(), (BLUE, RED, GREEN, PURPLE), strict=False):
        share = np.asarray(loss) / np.max(loss)
        ax.plot(shifts, share, color=colour, label=label)
        edges = np.asarray(basins[label])
        ax.plot(edges, np.interp(edges, shifts, share), "o", color=colour)
    ax.set(
        xlabel="shift, in pixels", ylabel="loss, as a share of its largest", ylim=(-0.02, 1.08)
    )
    ax.legend(loc="lower left", fontsize=10)
    return figure


def show_descents(
    shifts: np.ndarray,
    surfaces: Sequence[np.ndarray],
    paths: Sequence[np.ndarray],
    titles: Sequence[str],
) -> Figure:
    """Draw losses over shifts along x and y as maps with level lines, and on them the paths of gradient descents.

    Parameters
    ----------
    shifts : array, shape (K,)
        In pixels, the same along x and y.
    surfaces : sequence of arrays, shape (K, K)
        The loss; a row is a shift along y.
    paths : sequence of arrays, shape (starts, steps, 2)
        The shifts (x, y) that each descent passes.
    titles : sequence of str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(1, len(surfaces), figsize=(7, 3.9), squeeze=False)
    for ax, surface, descents, title in zip(axes[0], surfaces, paths, titles, strict=True):
        share = surface / surface.max()
        levels = np.linspace(0, 1, 11)
        ax.contour(
            shifts, shifts, share, levels=levels, colors=[GREY], linewidths=0.8, alpha=0.8
        )
        for path in descents:
            ax.plot(path[:, 0], path[:, 1], color=BLUE, linewidth=1.5)
            ax.plot(*path[0], "o", color=BLUE, markersize=5)
            ax.plot(*path[-1], "x", color=RED, markersize=8, markeredgewidth=2)
        limits = (shifts[0], shifts[-1])
        ax.set(
            xlim=limits,
            ylim=limits[::-1],
            aspect="equal",
            title=title,
            xlabel="shift along $x$, in pixels",
        )
    axes[0, 0].set_ylabel("shift along $y$, in pixels")
    return figure


def show_film(
    outputs: Sequence[np.ndarray], target: np.ndarray, titles: Sequence[str]
) -> Figure:
    """Draw a strip of pictures: outputs on their way to a target, the target, and beneath them what is still wrong.

    Parameters
    ----------
    outputs : sequence of arrays, shape (H, W)
    target : array, shape (H, W)
    titles : sequence of str
        One for each output.

    Returns
    -------
    matplotlib.figure.Figure
        In the lower row blue is too dark, red is too bright, and nothing is right.
    """
    figure, axes = plt.subplots(2, len(outputs) + 1, figsize=(7, 2.5))
    for i, (output, title) in enumerate(zip(outputs, titles, strict=True)):
        show_image(axes[0, i], output, title)
        _show_difference(axes[1, i], output - target)
    show_image(axes[0, -1], target, "target")
    frame(axes[0, -1], RED, 1.5)
    for ax in axes[0]:
        ax.title.set_fontsize(9)
    axes[1, -1].set_axis_off()
    return figure


def show_tangents(
    image: np.ndarray, tangents: Sequence[np.ndarray], titles: Sequence[str]
) -> Figure:
    """Draw an image, and how it changes along several directions.

    Parameters
    ----------
    image : array, shape (H, W)
    tangents : sequence of arrays, shape (H, W)
        Each in units of its own largest change, but for the largest hundredth.
    titles : sequence of str
        One for each tangent.

    Returns
    -------
    matplotlib.figure.Figure
        A pixel that gets brighter is red, one that gets darker is blue.
    """
    figure, axes = plt.subplots(1, len(tangents) + 1, figsize=(7, 2.2))
    show_image(axes[0], image, "the output")
    for ax, tangent, title in zip(axes[1:], tangents, titles, strict=True):
        _show_difference(ax, tangent / (2 * np.quantile(np.abs(tangent), 0.99)))
        ax.set_title(title)
    return figure


def show_derivatives(row: np.ndarray, modes: Sequence[str]) -> Figure:
    """Draw the value of a row of pixels between its ends, its slope and its curvature, as kernels see them.

    Parameters
    ----------
    row : array of float, shape (W,)
        Beyond it lies its mirror image.
    modes : sequence of str
        Names of kernels, a column each.

    Returns
    -------
    matplotlib.figure.Figure
    """
    last = len(row) - 1
    x = np.linspace(0, last, 100 * last, endpoint=False)  # knots, and both sides of them
    position = np.stack((x, np.zeros_like(x)), axis=-1)[None]
    figure, axes = plt.subplots(
        3, len(modes), figsize=(7, 5), sharex=True, sharey="row", squeeze=False
    )
    for column, mode in zip(axes.T, modes, strict=True):
        sampler = Sampler(KERNELS[mode], "mirror", False)
        image = np.asarray(row, dtype=np.float64)[None, None, None]
        image, fill, margin = prefilter(image, np.zeros((1, 1)), sampler, np)
        orders = [(0, 0), (1, 0), (2, 0)]
        curves = gather(image, fill, position + margin, orders, sampler, np)[:, 0, 0]
        for ax, curve, colour in zip(column, curves, (BLUE, RED, GREEN), strict=True):
            pieces = curve.reshape(last, 100)  # no line across a jump
            for start, piece in enumerate(pieces):
                ax.plot(x[100 * start : 100 * start + 100], piece, color=colour)
            ax.grid(axis="x", alpha=0.3)
        column[0].plot(np.arange(last + 1), row, "o", color=BLUE, markersize=4)
        column[0].set_title(mode)
        column[2].set(xlabel="position $x$, in pixels", xticks=np.arange(last + 1))
    for ax, label in zip(axes[:, 0], ("value", "slope", "curvature"), strict=True):
        ax.set_ylabel(label)
    return figure


def show_races(
    races: Mapping[str, Mapping[str, np.ndarray]], *, floor: float = 1e-16
) -> Figure:
    """Draw how far losses are above their least, step after step, on a logarithmic scale.

    Parameters
    ----------
    races : mapping from a title to a mapping from a label to an array, shape (steps,)
        One picture for each title, one curve for each label.
    floor : float
        A curve ends where it comes down to it, and is drawn on it there.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(
        1, len(races), figsize=(7, 3.4), sharex=True, sharey=True, squeeze=False
    )
    for ax, (title, curves) in zip(axes[0], races.items(), strict=True):
        for (label, loss), colour, marker in zip(
            curves.items(), (BLUE, GREEN, RED), "so^", strict=False
        ):
            above = np.maximum(loss, floor)
            end = np.flatnonzero(above == floor)[:1]
            ax.plot(
                above[: end[0] + 1] if len(end) else above,
                color=colour,
                marker=marker,
                markersize=5,
                label=label,
            )
        ax.set(yscale="log", xlabel="step", title=title)
        ax.grid(axis="y", alpha=0.3)
    axes[0, 0].set_ylabel("loss above its least")
    axes[0, 0].legend(loc="center right", fontsize=10)
    return figure


def _show_difference(ax: Axes, difference: np.ndarray) -> None:
    """Draw a difference: red where it is positive, blue where it is negative, clear where it is 0."""
    rgba = np.zeros((*difference.shape, 4))
    rgba[..., :3] = np.where((difference > 0)[..., None], to_rgb(RED), to_rgb(BLUE))
    rgba[..., 3] = np.clip(2 * np.abs(difference), 0, 1)
    ax.imshow(rgba, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    frame(ax, GREY)
