"""The figures of chapter 2: positions between pixels, their weights, the two kernels, and what lies beyond the edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..coordinates import normalise, unnormalise
from ..interpolation import KERNELS
from ..sampling import grid_sample
from .images import frame, show_image
from .style import BLUE, GREEN, GREY, PURPLE, RED

CORNER_COLOURS = (BLUE, RED, GREEN, PURPLE)


def show_positions(
    image: np.ndarray, grid: np.ndarray, window: tuple[int, int, int, int]
) -> Figure:
    """Draw where a grid reads an image, and a few of its positions among the pixels' centres.

    Parameters
    ----------
    image : array, shape (H, W)
    grid : array, shape (H_out, W_out, 2)
        Normalised coordinates (x, y), with ``align_corners=False``.
    window : (left, top, right, bottom)
        First and last column and row of the pixels that the right-hand picture shows.

    Returns
    -------
    matplotlib.figure.Figure
    """
    height, width = image.shape
    x, y = unnormalise(grid[..., 0], width), unnormalise(grid[..., 1], height)
    left, top, right, bottom = window
    figure, (whole, part) = plt.subplots(1, 2, figsize=(7.4, 3.6))
    for ax, size in ((whole, 2), (part, 7)):
        show_image(ax, image)
        ax.plot(x.ravel(), y.ravel(), "o", color=RED, markersize=size)
    view = (left - 0.5, top - 0.5)
    whole.add_patch(
        Rectangle(
            view, right - left + 1, bottom - top + 1, fill=False, edgecolor=BLUE, linewidth=2
        )
    )
    columns, rows = np.meshgrid(np.arange(left, right + 1), np.arange(top, bottom + 1))
    part.plot(columns.ravel(), rows.ravel(), "+", color=BLUE, markersize=8, markeredgewidth=2)
    part.set(xlim=(left - 0.5, right + 0.5), ylim=(bottom + 0.5, top - 0.5))
    part.set_xticks(range(left, right + 1))
    part.set_yticks(range(top, bottom + 1))
    for edge in range(left + 1, right + 1):
        part.axvline(edge - 0.5, color=GREY, linewidth=0.6)
    for edge in range(top + 1, bottom + 1):
        part.axhline(edge - 0.5, color=GREY, linewidth=0.6)
    whole.set_title("input, and where it is read")
    part.set_title("the blue box: centres + and positions ●")
    frame(part, BLUE, 2)
    return figure


def show_row(values: Sequence[float], x: float) -> Figure:
    """Draw a row of pixels joined by straight lines, and one position read between two of them.

    Parameters
    ----------
    values : sequence of float
    x : float
        Position in pixels, inside the row and not at a pixel's centre.

    Returns
    -------
    matplotlib.figure.Figure
    """
    pixels = np.asarray(values, dtype=float)
    left = int(np.floor(x))
    a = x - left
    value = (1 - a) * pixels[left] + a * pixels[left + 1]
    top = pixels.max()
    figure, ax = plt.subplots(figsize=(7, 2.9))
    ax.bar(np.arange(len(pixels)), pixels, width=1, color=(BLUE, 0.15), edgecolor=(GREY, 0.5))
    ax.plot(np.arange(len(pixels)), pixels, "o-", color=BLUE, markersize=7)
    ax.plot([x, x], [0, value], ":", color=RED)
    ax.plot(x, value, "o", color=RED, markersize=9)
    ax.annotate(f"{value:g}", (x, value), (9, 3), textcoords="offset points", color=RED)
    for start, end, label in ((left, x, "a"), (x, left + 1, "1 − a")):
        ax.annotate(
            "",
            (start, 0.12 * top),
            (end, 0.12 * top),
            arrowprops={"arrowstyle": "<->", "color": RED, "shrinkA": 0},
        )
        ax.text((start + end) / 2, 0.15 * top, label, color=RED, ha="center", va="bottom")
    ax.set(
        xlabel="x, in pixels",
        ylabel="value",
        xticks=range(len(pixels)),
        xlim=(-0.5, len(pixels) - 0.5),
    )
    return figure


def show_weights(a: float, b: float) -> Figure:
    """Draw a position among its four neighbours, each one's weight as the area of the rectangle opposite.

    Parameters
    ----------
    a, b : float
        How far the position lies from the upper left neighbour, along x and along y, as shares of a pixel.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, ax = plt.subplots(figsize=(4.6, 4.3))
    # The rectangle that belongs to a corner lies opposite it.
    rectangles = ((a, b, 1 - a, 1 - b), (0, b, a, 1 - b), (a, 0, 1 - a, b), (0, 0, a, b))
    points = ((0, 0), (1, 0), (0, 1), (1, 1))
    for (x, y, width, height), (column, row), colour in zip(
        rectangles, points, CORNER_COLOURS, strict=True
    ):
        ax.add_patch(
            Rectangle((x, y), width, height, facecolor=(colour, 0.3), edgecolor=colour)
        )
        weight = f"{width * height:.2f}"
        ax.text(
            x + width / 2,
            y + height / 2,
            weight,
            color=colour,
            ha="center",
            va="center",
            weight="bold",
        )
        ax.plot(column, row, "o", color=colour, markersize=16)
    labels = ("U[n, m]", "U[n, m+1]", "U[n+1, m]", "U[n+1, m+1]")
    for (column, row), label, colour in zip(points, labels, CORNER_COLOURS, strict=True):
        ax.text(
            column, row + (0.1 if row else -0.1), label, color=colour, ha="center", va="center"
        )
    ax.plot(a, b, "o", color=GREY, markersize=10)
    ax.text(a / 2, -0.035, "a", ha="center", va="center")
    ax.text((1 + a) / 2, -0.035, "1 − a", ha="center", va="center")
    ax.text(-0.05, b / 2, "b", ha="center", va="center")
    ax.text(-0.09, (1 + b) / 2, "1 − b", ha="center", va="center")
    ax.set(xlim=(-0.27, 1.27), ylim=(1.17, -0.17), aspect="equal")
    ax.set_axis_off()
    return figure


def show_orders(values: np.ndarray, a: float, b: float) -> Figure:
    """Draw the two ways to read among four pixels: along x and then y, and along y and then x.

    Parameters
    ----------
    values : array, shape (2, 2)
    a, b : float
        The position, along x and along y.

    Returns
    -------
    matplotlib.figure.Figure
    """
    square = np.asarray(values, dtype=float)
    along_x = (1 - a) * square[:, 0] + a * square[:, 1]
    along_y = (1 - b) * square[0] + b * square[1]
    result = (1 - b) * along_x[0] + b * along_x[1]
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.4))
    ways: dict[str, list[tuple[float, float, float]]] = {
        "x first, then y": [(a, 0, along_x[0]), (a, 1, along_x[1])],
        "y first, then x": [(0, b, along_y[0]), (1, b, along_y[1])],
    }
    for ax, (title, between) in zip(axes, ways.items(), strict=True):
        ax.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=GREY, linestyle=":"))
        ax.plot([x for x, _, _ in between], [y for _, y, _ in between], color=RED)
        for (row, column), value in np.ndenumerate(square):
            ax.plot(column, row, "o", color=BLUE, markersize=28)
            ax.text(column, row, f"{value:g}", color="white", ha="center", va="center")
        for x, y, value in between:
            ax.plot(x, y, "o", color=RED, markersize=7)
            down = x == a
            place = (
                (x, y + (-0.13 if y == 0 else 0.13))
                if down
                else (x + (-0.2 if x == 0 else 0.2), y)
            )
            ax.text(*place, f"{value:g}", color=RED, ha="center", va="center")
        ax.plot(a, b, "o", color=GREEN, markersize=11)
        ax.text(
            a + 0.1, b + 0.12, f"{result:g}", color=GREEN, ha="left", va="center", weight="bold"
        )
        ax.set(xlim=(-0.38, 1.38), ylim=(1.25, -0.25), aspect="equal", title=title)
        ax.set_axis_off()
    return figure


def show_surface(values: np.ndarray, *, levels: Sequence[float], steps: int = 40) -> Figure:
    """Draw what the two kernels read everywhere between the pixels of a small image, with level lines.

    Parameters
    ----------
    values : array, shape (H, W)
    levels : sequence of float
        Of the level lines, rising.
    steps : int
        Positions read along one pixel.

    Returns
    -------
    matplotlib.figure.Figure
    """
    image = np.asarray(values, dtype=np.float64)
    height, width = image.shape
    x = np.linspace(0, width - 1, steps * (width - 1) + 1)
    y = np.linspace(0, height - 1, steps * (height - 1) + 1)
    grid = np.stack(np.meshgrid(normalise(x, width), normalise(y, height)), -1)[None]
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.5))
    for ax, mode in zip(axes, KERNELS, strict=True):
        read = grid_sample(image[None, None], grid, mode=mode, padding_mode="border")[0, 0]
        ax.pcolormesh(
            x, y, read, vmin=image.min(), vmax=image.max(), shading="nearest", rasterized=True
        )
        if mode == "bilinear":
            ax.contour(x, y, read, levels=levels, colors=RED, linewidths=1.2)
        columns, rows = np.meshgrid(np.arange(width), np.arange(height))
        ax.plot(columns.ravel(), rows.ravel(), "o", color=BLUE, markersize=8, clip_on=False)
        ax.set(aspect="equal", xticks=range(width), yticks=range(height), title=mode)
        ax.set(xlim=(0, width - 1), ylim=(height - 1, 0))
    return figure


def show_kernels(reach: float = 1.75) -> Figure:
    """Draw the weight of a pixel against its distance, for each kernel.

    Parameters
    ----------
    reach : float
        Largest distance drawn, in pixels.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.4), sharey=True)
    shapes = {
        "nearest": ([-reach, -0.5, -0.5, 0.5, 0.5, reach], [0, 0, 1, 1, 0, 0]),
        "bilinear": ([-reach, -1, 0, 1, reach], [0, 0, 1, 0, 0]),
    }
    for ax, (title, (d, k)), colour in zip(axes, shapes.items(), (RED, BLUE), strict=True):
        ax.fill_between(d, k, color=(colour, 0.15))
        ax.plot(d, k, color=colour)
        ax.set(title=title, xlabel="d = x − m, in pixels", ylim=(0, 1.1))
        ax.set_xticks((-1, -0.5, 0, 0.5, 1), ("−1", "−½", "0", "½", "1"))
    axes[0].set_ylabel("k(d)")
    return figure


def show_hats(values: Sequence[float]) -> Figure:
    """Draw one kernel at each pixel of a row, as high as the pixel's value, and their sum.

    Parameters
    ----------
    values : sequence of float

    Returns
    -------
    matplotlib.figure.Figure
    """
    pixels = np.asarray(values, dtype=float)
    x = np.linspace(-1, len(pixels), 20 * (len(pixels) + 1) + 1)
    hats = [value * np.maximum(0, 1 - np.abs(x - m)) for m, value in enumerate(pixels)]
    figure, ax = plt.subplots(figsize=(7, 2.9))
    for m, hat in enumerate(hats):
        ax.plot(x, hat, color=CORNER_COLOURS[m % 4], linewidth=1.2)
        ax.fill_between(x, hat, color=(CORNER_COLOURS[m % 4], 0.12))
    ax.plot(x, np.sum(hats, axis=0), color=GREY, linewidth=3, label="their sum")
    ax.plot(np.arange(len(pixels)), pixels, "o", color=GREY, markersize=7)
    ax.set(xlabel="x, in pixels", ylabel="value", xticks=range(len(pixels)), ylim=(0, None))
    ax.legend(loc="upper right")
    return figure


def show_padding(values: Sequence[float], beyond: int) -> Figure:
    """Draw a row of pixels and what each padding rule puts on both sides of it.

    Parameters
    ----------
    values : sequence of float
    beyond : int
        How many pixels to draw on each side.

    Returns
    -------
    matplotlib.figure.Figure
    """
    pixels = np.asarray(values, dtype=np.float64)
    size = len(pixels)
    rules = (
        ("zeros", False, "zeros"),
        ("border", False, "border"),
        ("reflection", True, "reflection, align_corners=True"),
        ("reflection", False, "reflection, align_corners=False"),
    )
    whole = np.arange(-beyond, size + beyond)
    fine = np.linspace(-beyond, size + beyond - 1, 20 * (size + 2 * beyond - 1) + 1)
    figure, axes = plt.subplots(len(rules), 1, figsize=(7.4, 6.6), sharex=True, sharey=True)
    for ax, (padding_mode, align_corners, title) in zip(axes, rules, strict=True):
        for x, style in ((whole, "bars"), (fine, "line")):
            grid = np.stack(
                [normalise(x, size, align_corners=align_corners), np.zeros_like(x)], -1
            )[None, None]
            row = grid_sample(
                pixels[None, None, None],
                grid,
                padding_mode=padding_mode,
                align_corners=align_corners,
            )
            if style == "bars":
                inside = (x >= 0) & (x < size)
                colours = [(BLUE, 0.55) if there else (RED, 0.4) for there in inside]
                ax.bar(x, row[0, 0, 0], width=0.94, color=colours)
            else:
                ax.plot(x, row[0, 0, 0], color=GREY, linewidth=1.5)
        if padding_mode == "reflection":
            for mirror in (0, size - 1) if align_corners else (-0.5, size - 0.5):
                ax.axvline(mirror, color=GREEN, linestyle="--", linewidth=1.8)
        ax.set_title(title, loc="left")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    axes[-1].set(xticks=whole, xlabel="x, in pixels")
    return figure


def show_curves(
    x: np.ndarray, curves: Mapping[str, np.ndarray], *, xlabel: str, ylabel: str
) -> Figure:
    """Draw up to three curves over one axis, the one that is right thick and behind the others.

    Parameters
    ----------
    x : array, shape (K,)
    curves : mapping from a name to an array, shape (K,)
        The first is the one that is right.
    xlabel, ylabel : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, ax = plt.subplots(figsize=(7.4, 2.8))
    styles: tuple[dict[str, Any], ...] = (
        {"color": GREY, "linewidth": 5, "alpha": 0.6},
        {"color": RED},
        {"color": BLUE, "linestyle": "--"},
    )
    for (name, y), style in zip(curves.items(), styles, strict=False):
        ax.plot(x, y, label=name, **style)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    figure.legend(loc="outside right center")
    return figure
