"""Chapter 2's one sample point: the pixels that it reads, their weights as areas, the value, and its slope.

``book/_static/sample.js`` computes and draws the same.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ... import coordinates, interpolation, padding, sampling
from .. import touch

KERNELS = ("nearest", "bilinear", "bicubic")
FILL = 5.0  # what stands outside under padding by a fill value
BEYOND = 3  # pixels that are drawn around the image
CELL = 24  # units of the drawing a pixel
SUM = 240  # units of the other drawing
ARROW = 0.3  # pixels for a slope of 1 a pixel
BRIGHTEST = 9


class Reading(NamedTuple):
    """What a sample reads: which columns and rows, with which weights and values, what comes out, and its slope."""

    columns: list[int]
    rows: list[int]
    across: list[float]  # the columns' weights
    down: list[float]  # the rows'
    values: list[list[float]]  # row by row
    value: float
    slope: list[float]  # along x and along y, a pixel


def read(
    image: np.ndarray, x: float, y: float, kernel: str, padding_mode: str, align_corners: bool
) -> Reading:
    """Read an image at one place.

    Parameters
    ----------
    image : array of float, shape (H, W)
    x, y : float
        In pixels.
    kernel : {"nearest", "bilinear", "bicubic"}
    padding_mode, align_corners
        As for `stnlib.grid_sample`; the fill value is 5.

    Returns
    -------
    Reading

    Examples
    --------
    >>> found = read(np.array([[0.0, 4.0], [8.0, 8.0]]), 0.25, 0.5, "bilinear", "zeros", False)
    >>> found.value, found.slope
    (4.5, [2.0, 7.0])
    """
    options: dict[str, Any] = {
        "mode": kernel,
        "padding_mode": padding_mode,
        "align_corners": align_corners,
        "coordinates": "pixel",
        "fill_value": FILL if padding_mode == "fill" else 0.0,
        "engine": "reference",
    }
    picture, grid = image[None, None], np.array([[[[x, y]]]], dtype=np.float64)
    value = sampling.grid_sample(picture, grid, **options)
    slope = sampling.grid_sample_vjp(np.ones_like(value), picture, grid, **options).grid
    chosen = interpolation.KERNELS[kernel]
    pixels, weights = [], []
    for position, size in ((x, image.shape[1]), (y, image.shape[0])):
        at = np.float64(position)
        first = int(chosen.first(at, np))
        pixels.append(list(range(first, first + chosen.taps)))
        taps = interpolation.taps(
            np.asarray([at]),
            size,
            kernel=chosen,
            padding_mode=padding_mode,
            align_corners=align_corners,
            xp=np,
        )
        weights.append([float(tap.weights[0][0]) for tap in taps])
    columns, rows = pixels
    values = [[stands(image, m, n, padding_mode, align_corners) for m in columns] for n in rows]
    return Reading(columns, rows, *weights, values, float(value[0, 0, 0, 0]), slope[0, 0, 0].tolist())


def stands(
    image: np.ndarray, column: int, row: int, padding_mode: str, align_corners: bool
) -> float:
    """Return which value stands at a pixel of the endless image."""
    place: list[int] = []
    for m, size in ((row, image.shape[0]), (column, image.shape[1])):
        index, inside = padding.extend(np.asarray(m), size, padding_mode, align_corners, np)
        if inside is not None and not inside:
            return FILL if padding_mode == "fill" else 0.0
        place.append(int(index))
    return float(image[tuple(place)])


def number(value: float, digits: int = 2) -> str:
    """Return a number with so many decimals: halves upwards, whatever its last bits say, and with the minus of print.

    Examples
    --------
    >>> number(0.125), number(-0.125), number(-0.001)
    ('0.13', '−0.12', '0.00')
    """
    unit = 10**digits
    rounded = math.floor(value * unit + 0.5 + 1e-6) / unit
    return f"{rounded:.{digits}f}".replace("-", "−")


def sentence(
    image: np.ndarray, x: float, y: float, kernel: str, padding_mode: str, align_corners: bool
) -> str:
    """Return what is to be said of a sample: the same words as in ``sample.js``."""
    found = read(image, x, y, kernel, padding_mode, align_corners)
    height, width = image.shape
    u, v = (
        coordinates.normalise(position, size, align_corners=align_corners)
        for position, size in ((x, width), (y, height))
    )
    count = len(found.columns) * len(found.rows)
    inside = sum(0 <= m < width for m in found.columns) * sum(0 <= n < height for n in found.rows)
    said = f"At x = {number(x)}, y = {number(y)} in pixels, or {number(u)}, {number(v)} in normalised coordinates, "
    said += f"{kernel} reads {count} pixel{'s' if count > 1 else ''}"
    if inside < count:
        said += f", {count - inside} of them outside the image" if count > 1 else " outside the image"
    said += f". The value is {number(found.value)}. "
    if kernel == "nearest":
        said += "Its slope is 0 everywhere: there is no arrow."
        if x % 1 == 0.5 or y % 1 == 0.5:
            said += " Halfway between two pixels the even one counts."
        return said
    gx, gy = found.slope
    ux, uy = (
        coordinates.pixels_per_unit(size, align_corners=align_corners) for size in (width, height)
    )
    said += f"Its slope along x is {number(gx)} a pixel, along y {number(gy)}; "
    said += f"in normalised coordinates {number(gx * ux)} and {number(gy * uy)}."
    if max(abs(gx), abs(gy)) < 1e-9:
        said += " No slope, no arrow."
    for name, axis, position in (("x", 0, x), ("y", 1, y)):
        before = _before(image, x, y, axis, kernel, padding_mode, align_corners)
        if position % 1 == 0 and abs(before - found.slope[axis]) > 1e-9:
            said += f" {name} is at a knot: this is the slope beyond it, and before it the slope is {number(before)}."
    return said


def _before(image: np.ndarray, x: float, y: float, axis: int, *options: Any) -> float:
    """Return a bilinear sample's slope along an axis just before a knot: it is the same up to the knot before."""
    if options[0] != "bilinear":
        return read(image, x, y, *options).slope[axis]
    return read(image, x - 0.5 * (axis == 0), y - 0.5 * (axis == 1), *options).slope[axis]


def cells(image: np.ndarray, padding_mode: str, align_corners: bool) -> str:
    """Return the pixels, in the image and around it, with their values: the same as ``sample.js`` draws."""
    height, width = image.shape
    parts = []
    for n in range(-BEYOND, height + BEYOND):
        for m in range(-BEYOND, width + BEYOND):
            value = stands(image, m, n, padding_mode, align_corners)
            shade = math.floor(255 * value / BRIGHTEST + 0.5)
            inside = 0 <= m < width and 0 <= n < height
            kind = ("light" if value > BRIGHTEST / 2 else "dark") if inside else "out"
            left, top = (m + BEYOND) * CELL, (n + BEYOND) * CELL
            parts.append(
                f'<g class="{kind}"><rect x="{left}" y="{top}" width="{CELL}" height="{CELL}" '
                f'fill="rgb({shade},{shade},{shade})"></rect>'
                f'<text x="{left + CELL // 2}" y="{top + 16}">{value:g}</text></g>'
            )
    edge = BEYOND * CELL
    parts.append(
        f'<rect class="frame" x="{edge}" y="{edge}" width="{width * CELL}" height="{height * CELL}"></rect>'
    )
    return "".join(parts)


def marks(
    image: np.ndarray, x: float, y: float, kernel: str, padding_mode: str, align_corners: bool
) -> str:
    """Return the weights, as areas on the pixels, and the slope, as an arrow: the same as ``sample.js`` draws."""
    found = read(image, x, y, kernel, padding_mode, align_corners)
    parts = []
    for n, high in zip(found.rows, found.down, strict=True):
        for m, wide in zip(found.columns, found.across, strict=True):
            # The bilinear weights are what a square of one pixel's size around the point covers of each pixel.
            # Others are as wide and high as their two factors, in the middle of the pixel.
            centre = (m, n)
            if kernel == "bilinear":
                centre = (
                    (m + x) / 2 + (0.25 if m <= x else -0.25) * 0,
                    (n + y) / 2,
                )
            parts.append(_area(_unit(centre[0]), _unit(centre[1]), wide, high, CELL))
    gx, gy = found.slope
    length = math.hypot(gx, gy)
    if length > 1e-9:
        parts.append(_arrow(_unit(x), _unit(y), gx / length, gy / length, ARROW * CELL * length))
    return "".join(parts)
