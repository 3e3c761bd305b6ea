"""Chapter 6's thin plate: sixteen control points to drag over a photograph, the bent grid, and what it reads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...coordinates import regular_grid
from ...sampling import grid_sample
from ...transforms import ThinPlateSpline
from . import figure, panel, svg
from .frame import address, fixed, picture, shrink

VIEW = 1.4  # the picture of the input shows -VIEW to VIEW
LATTICE = 33  # points of the grid that is drawn, along each axis
LINE = 4  # one in so many of its rows and columns is drawn
TINT = np.array([217, 98, 43]) / 255  # style.RED, of what is folded
SHARE = 0.6  # of the tint


def thin_plate(image: np.ndarray, theta: Any) -> Any:
    """Draw a photograph, the grid of a thin plate spline on it, and what the grid reads.

    In the page the sixteen control points are dragged. What is turned inside out is red.

    Parameters
    ----------
    image : array of float, shape (1, H, H) or (3, H, H)
        Values from 0 to 1. A large one is made smaller, to at most 128 pixels, by averaging whole blocks.
    theta : array, shape (32,)
        Of `stnlib.transforms.ThinPlateSpline(4, 4)`: where its control points are read, to begin with. Within -1.4 and
        1.4; how far each is pulled is rounded to four decimals.

    Returns
    -------
    IPython.display.HTML
        What is read is bilinear, with zeros outside and ``align_corners=False``.

    Raises
    ------
    ValueError
        If the image or theta has another shape, or theta another range.

    Notes
    -----
    Its script is ``book/_static/thin_plate.js``. Shown in chapter 6.

    Examples
    --------
    >>> "bending energy is 0.00" in thin_plate(
    ...     np.zeros((1, 64, 64)), ThinPlateSpline(4, 4).identity()
    ... ).data
    True
    """
    family = ThinPlateSpline(4, 4)
    start = np.asarray(theta, dtype=np.float64)
    if start.shape != (32,):
        raise ValueError(f"theta: expected shape (32,), got {start.shape}")
    if not np.all(np.abs(start) <= VIEW):
        raise ValueError(
            f"theta: expected numbers within -{VIEW} and {VIEW}, which is how far the control points are dragged, "
            f"got {start.min()} to {start.max()}"
        )
    pull = np.round(start - family.identity(), 4) + 0.0
    start = family.identity() + pull
    photograph = shrink(image)
    size = photograph.shape[-1]
    grid = np.round(family.grid(start[None], (size, size)), 9)  # the same on every machine
    output = grid_sample(photograph[None], grid, engine="reference")[0]
    det = determinants(family, start, regular_grid((size, size)).reshape(-1, 2))
    marked = np.where(det.reshape(size, size) < 0, SHARE, 0.0)
    output = (1 - marked) * output + marked * TINT[:, None, None]
    box = (-VIEW, -VIEW, 2 * VIEW, 2 * VIEW)
    label = "A photograph with a bent grid over it, and sixteen control points that bend it."
    drawing = _drawing(photograph, family, start)
    return figure(
        "thin_plate",
        {"pull": pull.tolist(), "size": size},
        [
            panel("input, and where it is read", svg(box, label, drawing)),
            panel("output", picture(output, "What the bent grid reads, straightened.")),
        ],
        _sentence(family, start, det),
    )


def determinants(family: ThinPlateSpline, theta: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the determinant of the Jacobian of a spline at points.

    Parameters
    ----------
    family : ThinPlateSpline
    theta : array of float64, shape (P,)
    points : array of float64, shape (K, 2)

    Returns
    -------
    array, shape (K,)
        By how much areas grow on the way from the output to the input; negative where the map is turned inside out.

    Examples
    --------
    >>> family = ThinPlateSpline(4, 4)
    >>> determinants(family, 0.5 * family.identity(), np.zeros((1, 2))).round(6)
    array([0.25])
    """
    difference = points[:, None] - family.control
    square = np.sum(difference**2, -1, keepdims=True)
    slope = difference * (np.log(np.where(square == 0, 1, square)) + 1)  # of r² log r
    flat = np.zeros((len(points), 3, 2))
    flat[:, 1, 0] = flat[:, 2, 1] = 1
    follow = np.concatenate((slope, flat), 1).swapaxes(1, 2) @ family.solution
    jacobian = follow @ theta.reshape(-1, 2)  # (K, along x or y, x or y of where it is read)
    return jacobian[:, 0, 0] * jacobian[:, 1, 1] - jacobian[:, 0, 1] * jacobian[:, 1, 0]


def bending_energy(family: ThinPlateSpline, theta: np.ndarray) -> float:
    """Return what bending costs: the integral, over the plane, of the squared second derivatives of both coordinates.

    Parameters
    ----------
    family : ThinPlateSpline
        With ``regularisation=0``.
    theta : array of float64, shape (P,)

    Returns
    -------
    float
        8π wᵀ m, summed over x and y: with the weights w = S⁻¹ m of the radial functions. As ``r² log r / 8π`` is the
        response of a plate to a push at one point, this is the work that the pushes do. It has no unit.

    Examples
    --------
    >>> family = ThinPlateSpline(4, 4)
    >>> abs(bending_energy(family, 2 * family.identity() + 1)) < 1e-9  # what is affine is free
    True
    """
    moved = theta.reshape(-1, 2)
    return float(8 * math.pi * np.sum(moved * (family.solution[: len(moved)] @ moved)))


def _drawing(photograph: np.ndarray, family: ThinPlateSpline, theta: np.ndarray) -> str:
    """Return the photograph, the bent grid, its folds and the control points. The script draws the same."""
    lattice = regular_grid((LATTICE, LATTICE), align_corners=True)
    moved = family.apply(theta[None], lattice.reshape(-1, 2)).reshape(lattice.shape)
    moved = np.round(moved, 4) + 0  # the same on every machine

    def place(p: np.ndarray) -> str:
        return f"{p[0]:.4f} {p[1]:.4f}"

    lines = "".join(
        "M" + "L".join(map(place, line))
        for k in range(0, LATTICE, LINE)
        for line in (moved[k], moved[:, k])
    )
    middles = lattice[:-1, :-1] + 1 / (LATTICE - 1)
    det = determinants(family, theta, middles.reshape(-1, 2)).reshape(LATTICE - 1, -1)
    folds = "".join(
        "M" + "L".join(map(place, moved[[i, i, i + 1, i + 1], [j, j + 1, j + 1, j]])) + "z"
        for i, j in np.argwhere(det < 0)
    )
    sent = theta.reshape(-1, 2)
    pulls = "".join(
        f"M{place(home)}L{place(to)}" for home, to in zip(family.control, sent, strict=True)
    )
    handles = "".join(
        f'<g class="handle" transform="translate({place(to)})"><circle r=".055"/></g>'
        for to in sent
    )
    return (
        f'<image href="{address(photograph)}" x="-1" y="-1" width="2" height="2"/><path class="halo" d="{lines}"/>'
        f'<path class="folds" d="{folds}"/><path class="grid" d="{lines}"/><path class="pulls" d="{pulls}"/>{handles}'
    )


def _sentence(family: ThinPlateSpline, theta: np.ndarray, det: np.ndarray) -> str:
    """Say how much is bent and what is folded. The script says the same."""
    away = np.abs(theta.reshape(-1, 2) - family.control).max(-1)
    count = int(np.sum(away > 0.005))
    least, most = fixed(float(det.min()), 2), fixed(float(det.max()), 2)
    energy = fixed(max(bending_energy(family, theta), 0.0), 2)
    said = (
        f"{count} of 16 control points {'is' if count == 1 else 'are'} pulled, and the bending energy is {energy}. "
        f"The determinant of the Jacobian is between {least} and {most}"
    )
    if det.min() >= 0:
        return f"{said}, so nothing folds."
    return (
        f"{said}. It is negative, and the map turned inside out, at {fixed(100 * float(np.mean(det < 0)), 1)} % of the "
        "output's pixels: the red ones."
    )
