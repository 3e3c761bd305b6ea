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
RIM = 7  # units from the point to where its arrow begins: what covers the point covers no slope
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
    gradient = sampling.grid_sample_vjp(np.ones_like(value), picture, grid, **options)
    chosen = interpolation.KERNELS[kernel]
    pixels: list[list[int]] = []
    weights: list[list[float]] = []
    for position, size in ((x, image.shape[1]), (y, image.shape[0])):
        at = np.asarray([position], dtype=np.float64)
        first = int(chosen.first(at, np)[0])
        pixels.append(list(range(first, first + chosen.taps)))
        taps = interpolation.taps(
            at,
            size,
            kernel=chosen,
            padding_mode=padding_mode,
            align_corners=align_corners,
            xp=np,
        )
        weights.append([float(tap.weights[0][0]) for tap in taps])
    (columns, rows), (across, down) = pixels, weights
    values = [[stands(image, m, n, padding_mode, align_corners) for m in columns] for n in rows]
    slope = np.asarray(gradient.grid).ravel().tolist()
    return Reading(columns, rows, across, down, values, float(value.ravel()[0]), slope)


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
    inside = sum(0 <= m < width for m in found.columns) * sum(
        0 <= n < height for n in found.rows
    )
    said = f"At x = {number(x)}, y = {number(y)} in pixels, or {number(u)}, {number(v)} in normalised coordinates, "
    said += f"{kernel} reads {count} pixel{'s' if count > 1 else ''}"
    if inside < count:
        said += (
            f", {count - inside} of them outside the image"
            if count > 1
            else " outside the image"
        )
    said += f". The value is {number(found.value)}. "
    if kernel == "nearest":
        said += "Its slope is 0 everywhere: there is no arrow."
        if x % 1 == 0.5 or y % 1 == 0.5:
            said += " Halfway between two pixels the even one counts."
        return said
    gx, gy = found.slope
    ux, uy = (
        coordinates.pixels_per_unit(size, align_corners=align_corners)
        for size in (width, height)
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
    # The image, and where the normalised coordinates run from -1 to 1.
    for kind, start, less in (
        ("frame", BEYOND, 0),
        ("range", BEYOND + align_corners / 2, int(align_corners)),
    ):
        edge = _at(start * CELL)
        parts.append(
            f'<rect class="{kind}" x="{edge}" y="{edge}" '
            f'width="{(width - less) * CELL}" height="{(height - less) * CELL}"></rect>'
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
            # Bilinear: what a square as large as a pixel, around the point, covers of each. Else in the pixel's middle.
            centre = ((m + x) / 2, (n + y) / 2) if kernel == "bilinear" else (m, n)
            parts.append(_area(_unit(centre[0]), _unit(centre[1]), wide, high, CELL))
    gx, gy = found.slope
    length = math.hypot(gx, gy)
    if length > 1e-9:
        dx, dy = gx / length, gy / length
        start = _unit(x) + RIM * dx, _unit(y) + RIM * dy
        parts.append(_arrow(*start, dx, dy, ARROW * CELL * length))
    return "".join(parts)


def total(
    image: np.ndarray, x: float, y: float, kernel: str, padding_mode: str, align_corners: bool
) -> str:
    """Return the sum: the pixels that are read, their values, and their weights as areas, as ``sample.js`` draws it."""
    found = read(image, x, y, kernel, padding_mode, align_corners)
    taps = len(found.columns)
    side = SUM // taps
    kind = "many" if taps == 4 else "few"
    parts = []
    for i, high in enumerate(found.down):
        for j, wide in enumerate(found.across):
            left, top, value = j * side, i * side, found.values[i][j]
            centre = left + side // 2, top + side // 2
            parts.append(
                f'<rect class="frame" x="{left}" y="{top}" width="{side}" height="{side}"></rect>'
                f"{_area(*centre, wide, high, side)}"
                f'<text class="{kind}" x="{centre[0]}" y="{top + side - 6}">{value:g} × {number(wide * high)}</text>'
            )
    parts.append(
        f'<text class="few" x="{SUM // 2}" y="{SUM + 20}">sum = {number(found.value)}</text>'
    )
    return "".join(parts)


def _unit(position: float) -> float:
    """Return where a position in pixels lies in the drawing."""
    return (position + BEYOND + 0.5) * CELL


def _at(value: float) -> str:
    """Return a coordinate in a drawing, to two decimals."""
    return f"{math.floor(100 * value + 0.5 + 1e-6) / 100 + 0.0:g}"


def _area(x: float, y: float, wide: float, high: float, side: float) -> str:
    """Return a weight as a rectangle around (x, y): its sides are its two factors, ``side`` long for a factor of 1."""
    weight, wide, high = wide * high, abs(wide) * side, abs(high) * side
    if abs(weight) < 1e-9:
        return ""
    return (
        f'<rect class="{"plus" if weight > 0 else "minus"}" x="{_at(x - wide / 2)}" y="{_at(y - high / 2)}" '
        f'width="{_at(wide)}" height="{_at(high)}"></rect>'
    )


def _arrow(x: float, y: float, dx: float, dy: float, length: float) -> str:
    """Return an arrow from (x, y) in the direction (dx, dy), of length 1."""
    tip = x + length * dx, y + length * dy
    head = min(7.0, 0.6 * length)
    sides = [
        f"{_at(tip[0] - head * (dx + s * 0.6 * dy))} {_at(tip[1] - head * (dy - s * 0.6 * dx))}"
        for s in (1, -1)
    ]
    d = f"M{_at(x)} {_at(y)}L{_at(tip[0])} {_at(tip[1])}M{sides[0]}L{_at(tip[0])} {_at(tip[1])}L{sides[1]}"
    return f'<path class="halo" d="{d}"></path><path class="slope" d="{d}"></path>'


def sample(image: Any, x: float, y: float) -> Any:
    """Return the figure in which a reader drags one sample point over an image of a few pixels.

    In the page kernel, padding and ``align_corners`` are chosen; it begins with bilinear, zeros and False.

    Parameters
    ----------
    image : array, shape (H, W)
        Whole numbers from 0, black, to 9, white; 2 to 8 pixels along each axis.
    x, y : float
        Where to begin, in pixels, no more than 3 pixels outside; rounded to a twentieth of a pixel.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        If the image is another, or the point further away.

    Notes
    -----
    Its script is ``book/_static/sample.js``. Shown in chapter 2.

    Examples
    --------
    >>> "The value is 4.50" in sample([[0, 4], [8, 8]], 0.25, 0.5).data
    True
    """
    picture = np.asarray(image, dtype=np.float64)
    if picture.ndim != 2 or not all(2 <= size <= 8 for size in picture.shape):
        raise ValueError(f"image: expected 2 to 8 rows and columns, got shape {picture.shape}")
    if not np.all(np.isin(picture, np.arange(BRIGHTEST + 1))):
        raise ValueError(
            f"image: expected whole numbers from 0 to {BRIGHTEST}, got {picture.tolist()}"
        )
    height, width = picture.shape
    for name, position, size in (("x", x, width), ("y", y, height)):
        if not -BEYOND <= position <= size - 1 + BEYOND:
            raise ValueError(
                f"{name}: expected {-BEYOND} to {size - 1 + BEYOND}, no more than {BEYOND} pixels outside, "
                f"got {position}"
            )
    x, y = round(20 * x) / 20, round(20 * y) / 20
    state = picture, x, y, "bilinear", "zeros", False
    box = (0, 0, (width + 2 * BEYOND) * CELL, (height + 2 * BEYOND) * CELL)
    drawing = (
        f'<g class="cells">{cells(picture, *state[4:])}</g><g class="marks">{marks(*state)}</g>'
        f'<g class="handle" transform="translate({_at(_unit(x))} {_at(_unit(y))})"><circle r="5"></circle></g>'
    )
    panels = [
        touch.panel(
            "where it is read; dashed, from −1 to 1",
            touch.svg(
                box, "An image of a few pixels, each with its value, and a point on it", drawing
            ),
        ),
        touch.panel(
            "what it reads, and how much each counts",
            touch.svg(
                (-1, -1, SUM + 2, SUM + 28),
                "The pixels that are read, with their weights",
                total(*state),
            ),
        ),
    ]
    told = {"image": picture.astype(int).tolist(), "x": x, "y": y}
    return touch.figure("sample", told, panels, sentence(*state))
