"""The figures of chapter 6: families of transforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .. import transforms
from ..coordinates import regular_grid
from ..sampling import grid_sample
from .images import draw_tile, frame, show_image
from .style import BLUE, GREEN, GREY, RED


def with_lines(image: np.ndarray, lines: int = 9) -> np.ndarray:
    """Return an image with a lattice drawn on it, which is then warped along.

    Parameters
    ----------
    image : array of float, shape (H, W)
    lines : int
        How many lines each way.

    Returns
    -------
    array of float, shape (3, H, W)
    """
    picture = np.repeat(np.asarray(image, dtype=float)[None], 3, 0)
    colour = np.array([int(RED[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    height, width = picture.shape[1:]
    for row in np.linspace(0, height - 1, lines).round().astype(int):
        picture[:, row] = colour[:, None]
    for column in np.linspace(0, width - 1, lines).round().astype(int):
        picture[:, :, column] = colour[:, None]
    return picture


def warp(image: np.ndarray, family: Any, theta: np.ndarray, **options: Any) -> np.ndarray:
    """Return an image under one transform of a family.

    Parameters
    ----------
    image : array of float, shape (C, H, W)
    family : stnlib.transforms.Family
    theta : array, shape (P,)
    **options
        For `stnlib.grid_sample`.

    Returns
    -------
    array of float, shape (C, H, W)
    """
    grid = family.grid(np.asarray(theta, dtype=np.float64)[None], image.shape[1:])
    return np.asarray(grid_sample(image[None], grid, **options)[0])


def show_families(
    image: np.ndarray, warps: Mapping[str, tuple[Any, np.ndarray]], columns: int = 4
) -> Figure:
    """Draw one image, a lattice on it, under a transform of each family.

    Parameters
    ----------
    image : array of float, shape (H, W)
    warps : mapping of names to (family, theta)
        theta of shape (P,).
    columns : int
        Pictures in a row.

    Returns
    -------
    matplotlib.figure.Figure
    """
    picture = with_lines(image)
    rows = -(-len(warps) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.9 * columns, 2.2 * rows), squeeze=False
    )
    for ax in axes.flat[len(warps) :]:
        ax.set_axis_off()
    for ax, (name, (family, theta)) in zip(axes.flat, warps.items(), strict=False):
        show_image(ax, warp(picture, family, theta), name)
    return figure


def show_strips(
    image: np.ndarray,
    rows: Mapping[str, tuple[Any, np.ndarray]],
    values: Sequence[float] = (-1.0, -0.5, 0.0, 0.5, 1.0),
) -> Figure:
    """Draw what parameters do: for each a strip of images, along which it grows.

    Parameters
    ----------
    image : array of float, shape (H, W)
    rows : mapping of labels to (family, direction)
        A direction, shape (P,), is what a value of 1 adds to the identity's parameters.
    values : sequence of float

    Returns
    -------
    matplotlib.figure.Figure
    """
    picture = with_lines(image)
    figure, axes = plt.subplots(
        len(rows), len(values), figsize=(1.35 * len(values), 1.4 * len(rows)), squeeze=False
    )
    for line, (label, (family, direction)) in zip(axes, rows.items(), strict=True):
        for ax, value in zip(line, values, strict=True):
            theta = family.identity() + value * np.asarray(direction)
            show_image(ax, warp(picture, family, theta))
            if value == 0:
                frame(ax, BLUE, 2)
        line[0].set_ylabel(label, color=GREY, fontsize=13)
    for ax, value in zip(axes[0], values, strict=True):
        ax.set_title(f"{value:g}".replace("-", "\N{MINUS SIGN}"), fontsize=13)
    return figure


def show_horizon(family: Any, theta: np.ndarray, extent: float = 3.0) -> Figure:
    """Draw the plane of the output, a checkerboard read through a projective transform, and its horizon.

    Parameters
    ----------
    family : stnlib.transforms.Projective
    theta : array, shape (8,)
    extent : float
        How far the picture reaches, in normalised coordinates.

    Returns
    -------
    matplotlib.figure.Figure
    """
    line = np.linspace(-extent, extent, 601)
    points = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    moved = family.apply(theta[None], points)[0].reshape(len(line), len(line), 2)
    matrix = family.matrix(theta[None])[0]
    denominator = (points @ matrix[2, :2] + matrix[2, 2]).reshape(len(line), len(line))
    board = (np.floor(moved * 2).sum(-1) % 2).astype(float)
    far = np.abs(denominator) < 0.12  # too fine to be drawn
    shade = np.where(far, 0.5, 0.25 + 0.5 * board)
    figure, ax = plt.subplots(figsize=(4.6, 4.4))
    ax.imshow(shade, extent=(-extent, extent, extent, -extent), vmin=0, vmax=1)
    ax.contourf(line, line, denominator, levels=[-1e9, 0], colors=[BLUE], alpha=0.35)
    ax.contour(line, line, denominator, levels=[0], colors=[RED], linewidths=2)
    ax.add_patch(Rectangle((-1, -1), 2, 2, fill=False, edgecolor=GREEN, linewidth=2.5))
    ax.text(0, 0, "output", color="white", ha="center", va="center", backgroundcolor=GREEN)
    ax.set(xlabel="$x^t$", ylabel="$y^t$", aspect="equal")
    return figure


def _signed() -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list(
        "signed",
        [
            (0, to_rgba(BLUE)),
            (0.45, to_rgba(BLUE, 0.4)),  # what is small is seen, too
            (0.5, to_rgba(BLUE, 0)),
            (0.5, to_rgba(RED, 0)),
            (0.55, to_rgba(RED, 0.4)),
            (1, to_rgba(RED)),
        ],
        N=4096,
    )


def show_influence(
    families: Mapping[str, Any], index: Mapping[str, int], size: tuple[int, int] = (96, 96)
) -> Figure:
    """Draw how much each output pixel follows one control point: a row of B, as an image.

    Parameters
    ----------
    families : mapping of names to stnlib.transforms.Basis
    index : mapping of names to int
        Which control point.
    size : (H, W)

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(1, len(families), figsize=(2 * len(families), 2))
    points = regular_grid(size).reshape(-1, 2)
    drawn: Any = None
    reach = 1.05 * max(np.abs(family.control).max() for family in families.values())
    for ax, (name, family) in zip(np.atleast_1d(axes), families.items(), strict=True):
        k = index[name]
        follow = family.basis(points)[:, k].reshape(size)
        drawn = ax.imshow(
            follow,
            extent=(-1, 1, 1, -1),
            vmin=-1,
            vmax=1,
            cmap=_signed(),
            interpolation="bilinear",
        )
        ax.plot(*family.control.T, "o", color=GREY, markersize=4, clip_on=False)
        ax.plot(*family.control[k], "o", color="black", markeredgecolor="white", markersize=6)
        ax.add_patch(Rectangle((-1, -1), 2, 2, fill=False, edgecolor=GREY))
        ax.set(title=name, xticks=[], yticks=[], xlim=(-reach, reach), ylim=(reach, -reach))
        for spine in ax.spines.values():
            spine.set_visible(False)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def show_bending(distances: np.ndarray, radial: np.ndarray, heights: np.ndarray) -> Figure:
    """Draw the radial function of the thin plate, and a plate that is pushed up at one control point.

    Parameters
    ----------
    distances, radial : arrays, shape (L,)
    heights : array, shape (H, W)
        Of the plate, on the square from -1 to 1.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = plt.figure(figsize=(7, 3))
    left = figure.add_subplot(1, 2, 1)
    left.axhline(0, color=GREY, linewidth=1)
    left.plot(distances, radial, color=BLUE)
    left.set(xlabel="$r$", ylabel=r"$r^2 \log r$")
    right: Any = figure.add_subplot(1, 2, 2, projection="3d")
    x, y = (np.linspace(-1, 1, n) for n in heights.shape[::-1])
    right.plot_surface(*np.meshgrid(x, y), heights, color=BLUE, edgecolor=GREY, linewidth=0.3)
    right.set_axis_off()
    right.set_box_aspect((4, 4, 3), zoom=1.5)
    right.patch.set_alpha(0)
    return figure


def show_lattices(grids: Mapping[str, np.ndarray], columns: int = 3) -> Figure:
    """Draw where a regular lattice goes, and in red each cell that has been turned inside out.

    Parameters
    ----------
    grids : mapping of titles to arrays, shape (H, W, 2)
    columns : int
        Pictures in a row.

    Returns
    -------
    matplotlib.figure.Figure
    """
    columns = min(columns, len(grids))
    rows = -(-len(grids) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.1 * columns, 2.3 * rows), squeeze=False
    )
    for ax in axes.flat[len(grids) :]:
        ax.set_axis_off()
    for ax, (title, grid) in zip(axes.flat, grids.items(), strict=False):
        for points in (grid, grid.transpose(1, 0, 2)):
            for line in points:
                ax.plot(*line.T, color=BLUE, linewidth=0.8)
        for i, j in np.argwhere(folded(grid)):
            corners = grid[[i, i, i + 1, i + 1], [j, j + 1, j + 1, j]]
            ax.fill(*corners.T, color=RED, linewidth=0, zorder=3)
        ax.set(title=title, aspect="equal")
        ax.invert_yaxis()
        ax.set_axis_off()
    return figure


def folded(grid: np.ndarray) -> np.ndarray:
    """Return which cells of a grid have been turned inside out.

    Parameters
    ----------
    grid : array, shape (H, W, 2)

    Returns
    -------
    array of bool, shape (H - 1, W - 1)
        True where the determinant of the Jacobian, at one of the cell's corners, is not positive.

    Examples
    --------
    >>> folded(regular_grid((3, 3))).any()
    np.False_
    >>> folded(regular_grid((3, 3))[:, ::-1]).all()  # a mirror image
    np.True_
    """
    along, down = np.diff(grid, axis=1), np.diff(grid, axis=0)
    parts = [
        along[a : len(along) - 1 + a, :, 0] * down[:, b : down.shape[1] - 1 + b, 1]
        - along[a : len(along) - 1 + a, :, 1] * down[:, b : down.shape[1] - 1 + b, 0]
        for a in (0, 1)
        for b in (0, 1)
    ]
    return np.min(parts, axis=0) <= 0


def show_residuals(
    residuals: Mapping[str, Mapping[str, float]], threshold: float = 0.05
) -> Figure:
    """Draw a table of what is left after registration: a row a warp, a column a family.

    Parameters
    ----------
    residuals : mapping of warps to mappings of families to float
        What is left, as a part of what there was; the table is in %.
    threshold : float
        Below it, a warp counts as undone.

    Returns
    -------
    matplotlib.figure.Figure
    """
    warps = list(residuals)
    families = list(residuals[warps[0]])
    figure, ax = plt.subplots(figsize=(0.44 * len(families) + 1.7, 0.4 * len(warps) + 1.5))
    for i, name in enumerate(warps):
        for j, family in enumerate(families):
            value = residuals[name][family]
            undone = value < threshold
            colour = GREEN if undone else RED
            share = 0.75 if undone else 0.31 + 0.4 * min(value, 1.0)
            draw_tile(ax, (j, i), f"{100 * value:.0f}", colour, share)
    ax.set(
        xlim=(-0.5, len(families) - 0.5),
        ylim=(len(warps) - 0.5, -0.5),
        xticks=range(len(families)),
        yticks=range(len(warps)),
    )
    ax.set_xticklabels(families, rotation=35, ha="left", fontsize=11)
    ax.set_yticklabels(warps, fontsize=11)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return figure


def choices() -> list[dict[str, str]]:
    """Return what there is to choose from, a row a family: sizes of the families themselves, and words.

    Returns
    -------
    list of dicts
        Of columns' titles to text, for `choice_table`.
    """
    families = transforms
    rows = [
        (
            "attention",
            families.Attention(),
            "unless s is 0",
            "place and size",
            "anything turned",
        ),
        (
            "similarity",
            families.Similarity(log=True),
            "always, with log scale",
            "place, size, turn",
            "views from the side",
        ),
        (
            "affine",
            families.Affine(),
            "unless its determinant is 0",
            "all of these, and shear",
            "a collapse to a line",
        ),
        (
            "affine, by exponential",
            families.ExponentialAffine(),
            "always, by \N{MINUS SIGN}θ",
            "the same",
            "mirror images",
        ),
        (
            "projective",
            families.FourCorners(),
            "unless singular",
            "flat things, seen from anywhere",
            "the horizon in view",
        ),
        (
            "thin plate spline",
            families.ThinPlateSpline(4, 4),
            "no; may fold",
            "smooth bends",
            "large or local ones",
        ),
        (
            "piecewise affine",
            families.PiecewiseAffine(4, 4),
            "cell by cell; may fold",
            "local bends",
            "kinks",
        ),
        ("B-spline", families.BSpline(6, 6), "no; may fold", "local bends", "large shifts"),
        (
            "velocity field",
            families.StationaryVelocity(6, 6),
            "always, by \N{MINUS SIGN}θ",
            "bends, without a fold",
            "hurry: it takes the most time",
        ),
        (
            "dense flow",
            families.DenseFlow((28, 28)),
            "no; may fold",
            "anything small",
            "flat regions, large shifts",
        ),
    ]
    titles = "family", "parameters", "invertible", "products a pixel", "undoes", "fails at"
    return [
        dict(
            zip(
                titles,
                (name, f"{family.num_parameters:,}", inverse, _products(family), undoes, fails),
                strict=True,
            )
        )
        for name, family, inverse, undoes, fails in rows
    ]


def _products(family: Any) -> str:
    """Return how many multiplications a pixel of the grid takes, as text."""
    if isinstance(family, transforms.Linear):
        return "4"
    if isinstance(family, transforms.Projective):
        return "6, and 2 divisions"
    if isinstance(family, transforms.DenseFlow):
        return "0"
    count = str(family.num_parameters)
    return (
        f"{count}, and a drift" if isinstance(family, transforms.StationaryVelocity) else count
    )


def choice_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table as HTML that scrolls sideways on a narrow page.

    Parameters
    ----------
    rows : sequence of mappings
        Of columns' titles to text.

    Returns
    -------
    str
    """
    head = "".join(f'<th style="padding: 0.25rem 0.6rem">{title}</th>' for title in rows[0])
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align: left; padding: 0.25rem 0.6rem">{cell}</td>'
            for cell in row.values()
        )
        + "</tr>"
        for row in rows
    )
    table = f'<table class="dataframe" style="min-width: 44rem"><tr>{head}</tr>{body}</table>'
    return f'<div style="overflow-x: auto" tabindex="0">{table}</div>'
