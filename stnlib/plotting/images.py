"""Images, their pixels' values, and sampling grids drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..coordinates import unnormalise
from ..sampling import affine_grid, grid_sample
from .style import BLUE, GREY, RED


def show_image(
    ax: Axes, image: np.ndarray, title: str = "", *, vmin: float = 0.0, vmax: float = 1.0
) -> None:
    """Draw an image, pixel coordinates on the axes but no ticks.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    image : array, shape (H, W), (1, H, W) or (3, H, W)
    title : str, optional
    vmin, vmax : float
        Values drawn black and white.
    """
    image = np.asarray(image)
    if image.ndim == 3:
        image = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
    ax.imshow(np.clip(image, vmin, vmax), vmin=vmin, vmax=vmax, interpolation="nearest")
    ax.set_title(title)
    ax.set_xticks([])
    ax.set_yticks([])
    frame(ax, GREY)


def frame(ax: Axes, colour: str, width: float = 1.0) -> None:
    """Draw all four sides of an axes in one colour."""
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=width)


def show_images(
    images: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    columns: int = 0,
    size: float = 1.6,
) -> Figure:
    """Draw images side by side.

    Parameters
    ----------
    images : sequence of arrays, shape (H, W), (1, H, W) or (3, H, W)
    titles : sequence of str, optional
    columns : int, optional
        How many in a row; by default, all.
    size : float
        Height of an image, in inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size * columns, size * rows + 0.3 * bool(titles)), squeeze=False
    )
    for i, ax in enumerate(axes.flat):
        if i < len(images):
            show_image(ax, images[i], titles[i] if i < len(titles) else "")
        else:
            ax.set_axis_off()
    return figure


def show_values(
    ax: Axes,
    values: np.ndarray,
    title: str = "",
    *,
    digits: int = 0,
    colour: str = BLUE,
    largest: float | None = None,
    strength: float = 0.75,
) -> None:
    """Draw a small image as a table: each pixel a square that holds its value.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    values : array, shape (H, W)
    title : str, optional
    digits : int
        Digits after the point.
    colour : str
        Of the largest value's square; smaller ones are fainter.
    largest : float, optional
        The value with the strongest shade, so that tables side by side share one scale; by default this table's own.
    strength : float
        How much of the colour the strongest shade has.
    """
    values = np.asarray(values, dtype=float)
    top = largest or np.nanmax(np.abs(values)) or 1.0
    for (row, column), value in np.ndenumerate(values):
        share = 0.0 if np.isnan(value) else strength * abs(value) / top
        draw_tile(ax, (column, row), f"{value:.{digits}f}", colour, share, edgecolor=GREY)
    ax.set(
        xlim=(-0.5, values.shape[1] - 0.5),
        ylim=(values.shape[0] - 0.5, -0.5),
        aspect="equal",
        title=title,
    )
    ax.set_axis_off()


def draw_tile(
    ax: Axes, place: tuple[float, float], said: str, colour: str, share: float, **options: Any
) -> None:
    """Draw a square of so much of a colour, with a word in it that reads on a light page and on a dark one."""
    full = share > 0.15
    paint = 1 - share * (1 - np.array(to_rgb(colour)))  # as if on white, for a dark word
    corner = (place[0] - 0.5, place[1] - 0.5)
    ax.add_patch(
        Rectangle(corner, 1, 1, facecolor=paint if full else (colour, share), **options)
    )
    ax.text(*place, said, color="#222222" if full else GREY, ha="center", va="center")


def draw_grid(
    ax: Axes,
    grid: np.ndarray,
    size: tuple[int, int],
    *,
    align_corners: bool = False,
    lines: int = 9,
    colour: str = RED,
) -> None:
    """Draw a sampling grid where it lies on the input.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Shows the input, as `show_image` draws it.
    grid : array, shape (H_out, W_out, 2)
        Normalised coordinates (x, y).
    size : (H, W)
        Size of the input.
    align_corners : bool, default False
    lines : int
        How many lines each way.
    colour : str
    """
    limits = {"xlim": ax.get_xlim(), "ylim": ax.get_ylim()}
    height, width = size
    x = unnormalise(grid[..., 0], width, align_corners=align_corners)
    y = unnormalise(grid[..., 1], height, align_corners=align_corners)
    halo = [patheffects.withStroke(linewidth=2.2, foreground=("white", 0.6))]
    style: dict[str, Any] = {"color": colour, "linewidth": 1.1, "path_effects": halo}
    for row in np.linspace(0, x.shape[0] - 1, lines).round().astype(int):
        ax.plot(x[row], y[row], **style)
    for column in np.linspace(0, x.shape[1] - 1, lines).round().astype(int):
        ax.plot(x[:, column], y[:, column], **style)
    ax.plot(
        x[0, 0], y[0, 0], "o", color=colour, markersize=6, markeredgecolor="white"
    )  # where the output's upper left pixel is read
    ax.set(**limits)  # as they were: the image still fills its frame


def show_warp(
    image: np.ndarray,
    theta: np.ndarray,
    size: tuple[int, int] | None = None,
    *,
    titles: tuple[str, str] = ("input, and where it is read", "output"),
    align_corners: bool = False,
    **options: Any,
) -> Figure:
    """Draw an input with the sampling grid of a theta on it, and beside it the output.

    Parameters
    ----------
    image : array of float, shape (C, H, W)
    theta : array, shape (2, 3)
    size : (H_out, W_out), optional
        By default, the input's.
    titles : (str, str)
    align_corners : bool, default False
    **options
        For `stnlib.grid_sample`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    size = size or image.shape[1:]
    grid = affine_grid(
        np.asarray(theta, dtype=np.float64)[None], size, align_corners=align_corners
    )
    output = grid_sample(image[None], grid, align_corners=align_corners, **options)[0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.4))
    show_image(left, image, titles[0])
    draw_grid(left, grid[0], image.shape[1:], align_corners=align_corners)
    _see_all(left, grid[0], image.shape[1:], align_corners)
    show_image(right, output, titles[1])
    frame(right, RED, 1.5)
    return figure


def _see_all(ax: Axes, grid: np.ndarray, size: tuple[int, int], align_corners: bool) -> None:
    """Widen the view until it holds the image and the whole grid."""
    limits = []
    for axis, length in ((0, size[1]), (1, size[0])):
        position = unnormalise(grid[..., axis], length, align_corners=align_corners)
        margin = 0.02 * length
        limits.append(
            (min(-0.5, position.min() - margin), max(length - 0.5, position.max() + margin))
        )
    ax.set(xlim=limits[0], ylim=limits[1][::-1])
    for spine in ax.spines.values():
        spine.set_visible(False)
