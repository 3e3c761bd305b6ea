"""The figures of chapter 1: shapes moved by matrices, and the two meanings of a normalised coordinate."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..coordinates import unnormalise
from ..transforms import apply
from .images import frame
from .style import BLUE, GREY, RED

# A letter F, which looks different from every side, in the unit square with y downwards.
LETTER = np.array(
    [
        (0.0, 0),
        (1, 0),
        (1, 0.25),
        (0.3, 0.25),
        (0.3, 0.45),
        (0.8, 0.45),
        (0.8, 0.7),
        (0.3, 0.7),
        (0.3, 1),
        (0, 1),
    ]
)


def draw_shape(
    ax: Axes,
    matrix: np.ndarray,
    title: str = "",
    *,
    view: tuple[float, float] = (-2.2, 2.2),
    points: np.ndarray = LETTER,
) -> None:
    """Draw a shape, grey, and the same shape moved by a matrix, blue, with both unit vectors.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    matrix : array, shape (2, 3)
    title : str, optional
    view : (low, high)
        Limits of both axes.
    points : array, shape (K, 2)
        Corners of the shape.
    """
    moved = apply(np.asarray(matrix, dtype=np.float64), points)
    frame(ax, GREY, 0.6)
    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.axvline(0, color=GREY, linewidth=0.6)
    ax.fill(*points.T, facecolor="none", edgecolor=GREY, linewidth=1.2, linestyle=":")
    ax.fill(*moved.T, facecolor=(BLUE, 0.3), edgecolor=BLUE, linewidth=1.5)
    origin, *ends = apply(
        np.asarray(matrix, dtype=np.float64), np.array([(0.0, 0), (1, 0), (0, 1)])
    )
    for end in ends:
        ax.annotate(
            "",
            xy=end,
            xytext=origin,
            arrowprops={"arrowstyle": "-|>", "color": RED, "shrinkA": 0, "shrinkB": 0},
        )
    ax.set(xlim=view, ylim=view[::-1], aspect="equal", xticks=[], yticks=[], title=title)


def show_shapes(
    matrices: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    columns: int = 4,
    view: tuple[float, float] = (-2.2, 2.2),
) -> Figure:
    """Draw what each of several matrices does to a letter F.

    Parameters
    ----------
    matrices : sequence of arrays, shape (2, 3)
    titles : sequence of str
    columns : int
        Pictures in a row.
    view : (low, high)
        Limits of both axes of each picture.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = -(-len(matrices) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.5 * columns, 1.8 * rows), squeeze=False
    )
    for ax in axes.flat[len(matrices) :]:
        ax.set_axis_off()
    for ax, matrix, title in zip(axes.flat, matrices, titles, strict=False):
        draw_shape(ax, matrix, title, view=view)
    return figure


def show_chain(
    steps: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    *,
    view: tuple[float, float] = (-2.2, 2.2),
) -> Figure:
    """Draw the letter F after each step of several chains of transforms, a chain in a row.

    Parameters
    ----------
    steps : sequence of sequences of arrays, shape (2, 3)
        For each row, the matrix reached so far.
    titles : sequence of str
        One a picture, row after row.
    view : (low, high)
        Limits of both axes of each picture.

    Returns
    -------
    matplotlib.figure.Figure
    """
    return show_shapes(
        [m for row in steps for m in row], titles, columns=len(steps[0]), view=view
    )


def hierarchy() -> Figure:
    """Draw a square with a grid under a transform of each family, from translation to projective.

    Returns
    -------
    matplotlib.figure.Figure
    """
    angle = np.deg2rad(20)
    c, s = np.cos(angle), np.sin(angle)
    families = {
        "translation\n2": [[1, 0, 0.5], [0, 1, -0.3], [0, 0, 1]],
        "rigid\n3": [[c, -s, 0.5], [s, c, -0.3], [0, 0, 1]],
        "similarity\n4": [[0.6 * c, -0.6 * s, 0.5], [0.6 * s, 0.6 * c, -0.3], [0, 0, 1]],
        "affine\n6": [[0.9, -0.6, 0.3], [0.1, 0.7, -0.2], [0, 0, 1]],
        "projective\n8": [[0.9, -0.3, 0.2], [0.1, 0.9, -0.1], [0.35, -0.2, 1]],
    }
    figure, axes = plt.subplots(1, len(families), figsize=(6.4, 1.9))
    t = np.linspace(-1, 1, 41)
    for ax, (title, matrix) in zip(axes, families.items(), strict=True):
        for fixed in np.linspace(-1, 1, 5):
            for x, y in ((t, np.full_like(t, fixed)), (np.full_like(t, fixed), t)):
                ax.plot(x, y, color=GREY, linewidth=0.6, linestyle=":")
                u, v, w = np.array(matrix, dtype=float) @ np.stack([x, y, np.ones_like(t)])
                ax.plot(u / w, v / w, color=BLUE, linewidth=1.2)
        ax.set(xlim=(-2.3, 1.9), ylim=(1.9, -1.9), aspect="equal", title=title)
        ax.set_axis_off()
    return figure


def coordinate_conventions(size: int = 4) -> Figure:
    """Draw one row of pixels with its pixel coordinates, and where -1, 0 and 1 lie under both conventions.

    Parameters
    ----------
    size : int
        Pixels in the row.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(2, 1, figsize=(7, 3.4), sharex=True)
    for ax, align_corners in zip(axes, (True, False), strict=True):
        for pixel in range(size):
            ax.add_patch(
                plt.Rectangle(
                    (pixel - 0.5, 0),
                    1,
                    1,
                    facecolor=(BLUE, 0.15 + 0.1 * (pixel % 2)),
                    edgecolor=GREY,
                )
            )
            ax.plot(pixel, 0.5, "o", color=BLUE, markersize=5, zorder=3)
            ax.text(pixel + 0.05, 0.62, f"{pixel}", ha="left", va="bottom", color=BLUE)
        for value in (-1, 0, 1):
            position = unnormalise(float(value), size, align_corners=align_corners)
            ax.plot([position, position], [-0.25, 1], color=RED, linewidth=1.5)
            ax.text(position, -0.32, f"{value}", ha="center", va="top", color=RED)
        ax.set(
            xlim=(-0.75, size - 0.25),
            ylim=(-0.75, 1.15),
            title=f"align_corners={align_corners}",
        )
        ax.set_axis_off()
    return figure
