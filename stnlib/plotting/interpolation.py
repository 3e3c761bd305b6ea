"""The figures of chapter 2: positions between pixels, kernels, what lies beyond the edge, splines and footprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.path import Path

from ..coordinates import normalise, unnormalise
from ..footprint import readings, steps
from ..gather_scatter import Sampler
from ..interpolation import Kernel
from ..prefilter import prefilter
from ..sampling import grid_sample, grid_sample_jvp, grid_sample_vjp
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
    figure, (whole, part) = plt.subplots(1, 2, figsize=(6.6, 3.3))
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
    ax.annotate(
        f"{value:g}", (x, value), (-9, -14), textcoords="offset points", color=RED, ha="right"
    )
    for start, end, label in ((left, x, "a"), (x, left + 1, "1 − a")):
        ax.annotate(
            "",
            (start, 0.12 * top),
            (end, 0.12 * top),
            arrowprops={"arrowstyle": "<->", "color": RED, "shrinkA": 0},
        )
        middle = (start + end) / 2 + 0.12 * (label != "a")  # clear of the bar's edge
        ax.text(middle, 0.15 * top, label, color=RED, ha="center", va="bottom")
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
    for ax, mode in zip(axes, ("nearest", "bilinear"), strict=True):
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
        frame(ax, GREY)
    return figure


def show_kernels(reach: float = 1.75) -> Figure:
    """Draw the weight of a pixel against its distance, for the box and for the hat.

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


def show_padding(values: Sequence[float], beyond: int, fill_value: float) -> Figure:
    """Draw a row of pixels and what each padding rule puts on both sides of it.

    Parameters
    ----------
    values : sequence of float
    beyond : int
        How many pixels to draw on each side.
    fill_value : float
        For the rule ``"fill"``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    size = len(values)
    centres, edges = (0, size - 1), (-0.5, size - 0.5)
    rules: tuple[tuple[str, dict[str, Any], tuple[float, ...], str], ...] = (
        ("zeros", {}, (), "zeros"),
        ("fill", {"fill_value": fill_value}, (), f"fill, fill_value={fill_value:g}"),
        ("border", {}, (), "border"),
        ("reflection", {"align_corners": True}, centres, "reflection, align_corners=True"),
        ("reflection", {}, edges, "reflection, align_corners=False"),
        ("mirror", {}, centres, "mirror"),
        ("wrap", {}, edges, "wrap"),
    )
    whole = np.arange(-beyond, size + beyond)
    fine = np.linspace(-beyond, size + beyond - 1, 20 * (size + 2 * beyond - 1) + 1)
    figure, axes = plt.subplots(len(rules), 1, figsize=(6.4, 8.4), sharex=True, sharey=True)
    for ax, (padding_mode, options, lines, title) in zip(axes, rules, strict=True):
        inside = (whole >= 0) & (whole < size)
        colours = [(BLUE, 0.55) if there else (RED, 0.4) for there in inside]
        options = {"padding_mode": padding_mode, **options}
        ax.bar(whole, _read(values, whole, **options), width=0.94, color=colours)
        ax.plot(fine, _read(values, fine, **options), color=GREY, linewidth=1.5)
        colour, dashes = (PURPLE, ":") if padding_mode == "wrap" else (GREEN, "--")
        for line in lines:
            ax.axvline(
                line, color=colour, linestyle=dashes, linewidth=3 if colour == PURPLE else 1.8
            )
        ax.set_title(title, loc="left")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    axes[-1].set(xticks=whole, xlabel="x, in pixels")
    return figure


def _read(values: Sequence[float] | np.ndarray, x: np.ndarray, **options: Any) -> np.ndarray:
    """Read a row of pixels at positions in pixels."""
    return grid_sample(*_as_image(values, x), coordinates="pixel", **options)[0, 0, 0]


def _as_image(
    values: Sequence[float] | np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(x, dtype=np.float64)
    row = np.asarray(values, dtype=np.float64)
    return row[None, None, None], np.stack([x, np.zeros_like(x)], axis=-1)[None, None]


def show_gallery(kernels: Mapping[str, Kernel], reach: float = 3.4) -> Figure:
    """Draw of each kernel the weight of a pixel against its distance, its slope, and all the pixels of one sample.

    All of it is measured on the sampler: on a row with a single 1, and on the gradient of an image. So what a kernel
    does to its weights (dividing them by their sum) or to the image (a prefilter) is in the picture.

    Parameters
    ----------
    kernels : mapping from a title to a Kernel
    reach : float
        Largest distance drawn, in pixels.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, pairs = _gallery(list(kernels), (0.8, 1.0))
    d = np.linspace(-reach, reach, 50 * round(4 * reach) // 2 + 1)
    for i, ((curve, pixels), kernel) in enumerate(zip(pairs, kernels.values(), strict=True)):
        value, slope = _response(kernel, d)
        curve.plot(d, slope, color=RED, linewidth=1.2)
        curve.fill_between(d, value, color=(BLUE, 0.2))
        curve.plot(d, value, color=BLUE)
        curve.axhline(0, color=GREY, linewidth=0.6)
        curve.set(
            xlim=(-reach, reach), ylim=(-1.75, 1.75), xticks=(-2, 0, 2), yticks=(-1, 0, 1)
        )
        _draw_weights(pixels, _weights(kernel, (3.3, 3.4), 8), (3.3, 3.4))
        if i % 4:
            curve.set_yticklabels([])
    return figure


def _gallery(
    titles: Sequence[str], heights: tuple[float, float]
) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Make two axes for each title, one above the other, four pairs in a row."""
    blocks = -(-len(titles) // 4)
    figure, axes = plt.subplots(
        2 * blocks,
        4,
        figsize=(6.4, 2.9 * blocks),
        squeeze=False,
        gridspec_kw={"height_ratios": heights * blocks},
    )
    for ax in axes.flat:
        ax.set_axis_off()
    pairs = [
        (axes[2 * (i // 4), i % 4], axes[2 * (i // 4) + 1, i % 4]) for i in range(len(titles))
    ]
    for (upper, lower), title in zip(pairs, titles, strict=True):
        upper.set_title(title, fontsize=10)
        for ax in (upper, lower):
            ax.set_axis_on()
            ax.tick_params(labelsize=9)
    return figure, pairs


def _response(kernel: Kernel, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what a single 1 adds at distances d, and the slope of this: k and k', as the sampler has them."""
    far = 20
    image, grid = _as_image(np.eye(1, 2 * far + 1, far)[0], far + d)
    options: dict[str, Any] = {"mode": kernel, "padding_mode": "mirror", "coordinates": "pixel"}
    along_x = np.zeros_like(grid)
    along_x[..., 0] = 1.0
    value = grid_sample(image, grid, **options)
    slope = grid_sample_jvp(image, grid, grid_tangent=along_x, **options)
    return value[0, 0, 0], slope[0, 0, 0]


def _weights(kernel: Kernel, position: tuple[float, float], size: int) -> np.ndarray:
    """Return how much each of size × size pixels counts in one sample; the image goes on beyond them."""
    margin = 12
    image = np.zeros((1, 1, size + 2 * margin, size + 2 * margin))
    grid = np.reshape(np.add(position, margin), (1, 1, 1, 2))
    options: dict[str, Any] = {"mode": kernel, "padding_mode": "mirror", "coordinates": "pixel"}
    weights: Any = grid_sample_vjp(np.ones((1, 1, 1, 1)), image, grid, **options).input
    return weights[0, 0, margin:-margin, margin:-margin]


def _draw_weights(ax: Axes, weights: np.ndarray, position: tuple[float, float]) -> None:
    """Draw pixels as squares, blue for a positive weight and red for a negative one, the larger the fuller."""
    top = np.abs(weights).max()
    for (row, column), weight in np.ndenumerate(weights):
        share = float(np.sqrt(abs(weight) / top))
        colour = (BLUE if weight > 0 else RED, share)
        ax.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor=GREY, linewidth=0.4
            )
        )
    ax.plot(*position, "o", color="white", markeredgecolor=GREY, markersize=4.5)
    height, width = weights.shape
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    ax.set(xticks=[], yticks=[])


def show_edge_and_ramp(kernels: Mapping[str, Kernel]) -> Figure:
    """Draw how each kernel reads an edge, and how far it is off on a ramp that rises by 1 a pixel.

    Parameters
    ----------
    kernels : mapping from a title to a Kernel

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, pairs = _gallery(list(kernels), (1.0, 0.8))
    pixels = np.arange(60)
    middle = pixels[27:33]
    edge = (pixels >= 30).astype(float)
    x = np.linspace(middle[0], middle[-1], 251)
    for i, ((upper, lower), kernel) in enumerate(zip(pairs, kernels.values(), strict=True)):
        options = {"mode": kernel, "padding_mode": "mirror"}
        for level in (0, 1):
            upper.axhline(level, color=GREY, linewidth=0.6)
        upper.plot(x - 29.5, _read(edge, x, **options), color=BLUE)
        upper.plot(middle - 29.5, edge[middle], "o", color=GREY, markersize=4)
        upper.set(ylim=(-0.2, 1.2), yticks=(0, 1), xticks=[])
        lower.axhline(0, color=GREY, linewidth=0.6)
        lower.plot(x - 29.5, _read(pixels, x, **options) - x, color=RED)
        lower.set(ylim=(-0.07, 0.07), yticks=(-0.05, 0, 0.05), xticks=(-2, 0, 2))
        lower.set_yticklabels(("−.05", "0", ".05"))
        if i % 4:
            upper.set_yticklabels([])
            lower.set_yticklabels([])
    return figure


def show_spline(values: Sequence[float], kernel: Kernel) -> Figure:
    """Draw a spline as the sum of its bumps: with the pixels as the bumps' heights, and with the right heights.

    Parameters
    ----------
    values : sequence of float
    kernel : Kernel
        With poles. The row goes on by ``"mirror"``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    pixels = np.asarray(values, dtype=np.float64)
    size, sampler = len(pixels), Sampler(kernel, "mirror", False)
    image, fill = pixels[None, None, None], np.zeros((1, 1))
    coefficients = prefilter(image, fill, sampler, np)[0][0, 0, 0]
    x = np.linspace(0, size - 1, 30 * (size - 1) + 1)
    figure, axes = plt.subplots(1, 2, figsize=(6.6, 3), sharey=True)
    titles = ("the pixels as coefficients", "coefficients, prefiltered")
    for ax, heights, title in zip(axes, (pixels, coefficients), titles, strict=True):
        total = np.zeros_like(x)
        for m in range(-3, size + 3):
            height = heights[(size - 1) - abs((size - 1) - abs(m))]  # mirrored
            near = np.abs(x - m) <= kernel.support
            bump = height * kernel.value(x[near] - m, np)
            total[near] += bump
            colour = CORNER_COLOURS[m % 4]
            ax.plot(x[near], bump, color=colour, linewidth=1)
            ax.fill_between(x[near], bump, color=(colour, 0.12))
        ax.axhline(0, color=GREY, linewidth=0.6)
        ax.plot(x, total, color=GREY, linewidth=3)
        ax.plot(np.arange(size), heights, "_", color=RED, markersize=14, markeredgewidth=2.5)
        ax.plot(np.arange(size), pixels, "o", color=BLUE, markersize=7)
        ax.set(title=title, xlabel="x, in pixels", xticks=range(size))
    return figure


def striped_shirt(size: int = 240) -> np.ndarray:
    """Return a picture of a shirt with fine stripes and a few folds, drawn from sines.

    Parameters
    ----------
    size : int
        Height and width, in pixels.

    Returns
    -------
    array of float64, shape (1, size, size)
        Values from 0 to 1.
    """
    y, x = (np.mgrid[:size, :size] + 0.5) / size  # the picture is 1 wide and 1 high
    fold = 0.012 * np.sin(9 * y + 3 * np.sin(5 * x)) + 0.006 * np.sin(31 * x + 14 * y)
    light = 0.85 + 6 * fold
    body = _stripes((x + fold) * 56) * light
    left = _stripes((0.8 * x + 0.6 * y + fold) * 56) * light
    right = _stripes((0.8 * x - 0.6 * y + fold) * 56) * light
    shirt = np.full((size, size), 0.45)
    for outline, cloth in (
        ([(0.33, 0.12), (0.02, 0.42), (0.16, 0.56), (0.36, 0.36)], left),
        ([(0.67, 0.12), (0.98, 0.42), (0.84, 0.56), (0.64, 0.36)], right),
        (
            [(0.33, 0.12), (0.67, 0.12), (0.74, 0.3), (0.72, 0.95), (0.28, 0.95), (0.26, 0.3)],
            body,
        ),
        ([(0.42, 0.12), (0.58, 0.12), (0.5, 0.26)], np.full((size, size), 0.45)),
    ):
        inside = Path(outline).contains_points(np.stack([x.ravel(), y.ravel()], -1))
        shirt = np.where(inside.reshape(size, size), cloth, shirt)
    return np.clip(shirt, 0, 1)[None]


def _stripes(turns: np.ndarray) -> np.ndarray:
    return 0.55 + 0.4 * np.cos(2 * np.pi * turns)


def show_footprints(image: np.ndarray, grids: Mapping[str, np.ndarray]) -> Figure:
    """Draw the footprint of each output pixel where it lies on the input, and the samples that stand for it.

    Parameters
    ----------
    image : array, shape (H, W) or (C, H, W)
    grids : mapping from a title to an array, shape (H_out, W_out, 2)
        Coordinates (x, y) in pixels.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(1, len(grids), figsize=(3.3 * len(grids), 3.6), squeeze=False)
    halo = [patheffects.withStroke(linewidth=3, foreground=("white", 0.7))]
    for ax, (title, grid) in zip(axes[0], grids.items(), strict=True):
        show_image(ax, image, title)
        limits = {"xlim": ax.get_xlim(), "ylim": ax.get_ylim()}
        position = np.asarray(grid, dtype=np.float64)[None]
        down, right = (step / 2 for step in steps(position, position, np))
        corners = (-right - down, right - down, right + down, down - right)
        outlines = np.stack([(position + corner)[0] for corner in corners], axis=2)
        for outline in outlines.reshape(-1, 4, 2):
            style: dict[str, Any] = {"facecolor": "none", "edgecolor": RED, "linewidth": 1.4}
            ax.add_patch(Polygon(outline, path_effects=halo, **style))
        samples = readings(position, True, np)
        weights = np.stack([sample.weight[0] for sample in samples]).ravel()
        places = np.stack([(position + sample.offset)[0] for sample in samples]).reshape(-1, 2)
        ax.scatter(*places[weights > 0].T, s=6, color=BLUE, linewidths=0)
        ax.set(**limits)
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
    figure, ax = plt.subplots(figsize=(6.4, 2.8))
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
