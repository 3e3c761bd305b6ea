"""Chapter 3's landscape: the loss of a digit against its shifted self, and a ball that rolls down its gradient.

``book/_static/landscape.js`` computes the loss, its slope and the ball's way, and draws the same.
"""

from __future__ import annotations

import html
import math
from typing import Any

import numpy as np

from ..._extras import require
from ...sampling import affine_grid, grid_sample, grid_sample_vjp
from .. import touch
from ..style import BLUE, GREY, RED
from .sample import number

RATES = {0: 0.1, 1: 0.3, 4: 1.0}
"""Blurs, in pixels, and the rate of gradient descent on theta for each."""

MOMENTUM = 0.9  # how much of its speed the ball keeps
PAD = 34  # zeros around the digit
REACH = 18  # pixels, the largest shift on the map
UNIT = 8  # units of the drawing a pixel
SPACING = 3  # pixels between arrows
CROP = 18  # pixels at each edge of the frame that are not shown


def prepare(digit: np.ndarray, sigma: float) -> np.ndarray:
    """Return a digit, (28, 28), in a frame of zeros, (96, 96), and blurred by a Gaussian."""
    ndimage = require("scipy.ndimage", "book", "touch.landscape")
    frame = np.pad(digit, PAD)
    return ndimage.gaussian_filter(frame, sigma) if sigma else frame


def loss_and_slope(image: np.ndarray, x: float, y: float) -> tuple[float, np.ndarray]:
    """Return half the mean squared difference of an image and its shifted self, and its slope with the shift.

    Parameters
    ----------
    image : array of float, shape (H, W)
    x, y : float
        The grid's shift, in pixels.

    Returns
    -------
    loss : float
    slope : array, shape (2,)
        Along x and along y, a pixel. At whole pixels it is that beyond them, as everywhere in `stnlib`.

    Examples
    --------
    >>> loss_and_slope(np.array([[0.0, 4.0]]), 0.5, 0.0)
    (2.0, array([8., 0.]))
    """
    picture = image[None, None]
    theta = np.array([[[1.0, 0.0, x], [0.0, 1.0, y]]])
    grid = affine_grid(theta, image.shape, coordinates="pixel")
    options: dict[str, Any] = {"coordinates": "pixel", "engine": "reference"}
    difference = grid_sample(picture, grid, **options) - picture
    gradients = grid_sample_vjp(
        difference / image.size, picture, grid, needs=(False, True, False), **options
    )
    return float(np.mean(difference**2)) / 2, np.sum(np.asarray(gradients.grid), axis=(0, 1, 2))


def move(
    slope: np.ndarray, speed: np.ndarray, sigma: float, momentum: bool, size: int
) -> np.ndarray:
    """Return the ball's next step, in pixels: one of gradient descent on theta, and what is left of its speed."""
    return MOMENTUM * momentum * speed - RATES[int(sigma)] * (size / 2) ** 2 * slope


def roll(
    image: np.ndarray, sigma: float, start: Any, steps: int, momentum: bool = False
) -> np.ndarray:
    """Return where the ball lies after 0, 1, ... steps, shape (steps + 1, 2).

    Parameters
    ----------
    image : array of float, shape (H, H)
        Blurred by sigma.
    sigma : {0, 1, 4}
        Says the rate.
    start : (x, y)
        In pixels.
    steps : int
    momentum : bool
    """
    path, speed = [np.asarray(start, dtype=np.float64)], np.zeros(2)
    for _ in range(steps):
        slope = loss_and_slope(image, *path[-1])[1]
        speed = move(slope, speed, sigma, momentum, len(image))
        path.append(np.clip(path[-1] + speed, -REACH, REACH))
    return np.array(path)


def surface(image: np.ndarray) -> np.ndarray:
    """Return the loss at every half pixel of shift, shape (73, 73); a row is a shift along y.

    Shifts that differ by whole pixels read the same values: the image is read four times, and the rest is slices.
    """
    size, half = len(image), 2 * REACH
    losses = np.zeros((2 * half + 1, 2 * half + 1))
    for odd_y in (0, 1):
        for odd_x in (0, 1):
            x, y = odd_x / 2 - REACH, odd_y / 2 - REACH
            theta = np.array([[[1.0, 0.0, x], [0.0, 1.0, y]]])
            grid = affine_grid(theta, (size + half, size + half), coordinates="pixel")
            read = grid_sample(
                image[None, None], grid, coordinates="pixel", engine="reference"
            )[0, 0]
            for i in range(half + 1 - odd_y):
                for j in range(half + 1 - odd_x):
                    difference = read[i : i + size, j : j + size] - image
                    loss = np.vdot(difference, difference) / (2 * image.size)
                    losses[2 * i + odd_y, 2 * j + odd_x] = loss
    return losses


def sentence(
    image: np.ndarray,
    sigma: float,
    position: Any,
    highest: float,
    steps: int = 0,
    speed: Any = (0.0, 0.0),
    momentum: bool = False,
) -> str:
    """Return what is to be said of the ball: the same words as in ``landscape.js``."""
    x, y = position
    loss, slope = loss_and_slope(image, x, y)
    dx, dy = move(slope, np.asarray(speed), sigma, momentum, len(image))
    away = math.hypot(x, y)
    said = f"Blurred by {sigma} pixel{'s' if sigma > 1 else ''}" if sigma else "Sharp"
    said += f", after {steps} step{'' if steps == 1 else 's'}: the grid is shifted by {number(x)} pixels along x and "
    said += f"{number(y)} along y, {number(away)} from home. "
    said += f"The loss is {number(100 * loss / highest)} % of the highest. "
    if math.hypot(dx, dy) >= 0.001:
        return said + f"The next step is {number(dx, 3)}, {number(dy, 3)}."
    return said + ("The ball is home." if away < 0.5 else "The ball lies still: it is stuck.")


def _map(image: np.ndarray, losses: np.ndarray) -> str:
    """Return shades of the loss, its level lines, and arrows downhill."""
    contourpy = require("contourpy", "book", "touch.landscape")
    share = np.round(losses / losses.max(), 6)
    colours = np.array([int(BLUE[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    shades = np.concatenate(
        (np.broadcast_to(colours[:, None, None], (3, *share.shape)), 0.8 * share[None])
    )
    side = (2 * REACH + 0.5) * UNIT  # half a pixel, a quarter to each side
    edge = -(REACH + 0.25) * UNIT
    picture = f'<image href="{touch.png(shades)}" x="{edge:g}" y="{edge:g}" width="{side:g}" height="{side:g}"/>'

    whole = share[
        ::2, ::2
    ]  # level lines of the whole pixels: without the small hollows between them
    axis = UNIT * np.arange(-REACH, REACH + 1.0)
    generator = contourpy.contour_generator(x=axis, y=axis, z=whole)
    lines = "".join(
        "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line)
        for level in np.arange(0.1, 1, 0.1)
        for line in generator.lines(level)
    )

    # Halfway between pixels, where the slopes of these hollows are 0.
    places = np.arange(-REACH + 1.5, REACH, SPACING)
    slopes = np.array([[loss_and_slope(image, x, y)[1] for x in places] for y in places])
    lengths = np.hypot(slopes[..., 0], slopes[..., 1])
    arrows = ""
    for i, y in enumerate(places):
        for j, x in enumerate(places):
            size = 2.4 * UNIT * math.sqrt(lengths[i, j] / lengths.max())
            if size < 2:
                continue
            dx, dy = -slopes[i, j] / lengths[i, j] * size
            tip = UNIT * x + dx / 2, UNIT * y + dy / 2
            back = [
                f"{tip[0] - 0.35 * dx + s * 0.2 * dy:.1f} {tip[1] - 0.35 * dy - s * 0.2 * dx:.1f}"
                for s in (1, -1)
            ]
            point = f"{tip[0]:.1f} {tip[1]:.1f}"
            arrows += f"M{UNIT * x - dx / 2:.1f} {UNIT * y - dy / 2:.1f}L{point}M{back[0]}L{point}L{back[1]}"
    return f'{picture}<path class="levels" d="{lines}"/><path class="arrows" d="{arrows}"/>'


def overlay(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Return what the grid reads, red, over its target, blue, and grey where both are; (4, H, W), with opacity."""
    theta = np.array([[[1.0, 0.0, x], [0.0, 1.0, y]]])
    grid = affine_grid(theta, image.shape, coordinates="pixel")
    read = grid_sample(image[None, None], grid, coordinates="pixel", engine="reference")[0, 0]
    shown = slice(CROP, -CROP)
    red, blue = (picture[shown, shown] / image.max() for picture in (read, image))
    both, most = np.minimum(red, blue), np.maximum(red, blue)
    channels = []
    for k in (1, 3, 5):
        r, b, g = (int(colour[k : k + 2], 16) / 255 for colour in (RED, BLUE, GREY))
        mixed = r * (red - both) + b * (blue - both) + g * both
        channels.append(mixed / np.where(most > 0, most, 1))
    return np.stack([*channels, most])


def landscape(digit: Any, x: float, y: float) -> Any:
    """Return the figure in which a ball rolls down the loss of a shifted digit.

    In the page the ball is set down by a click, a finger or the arrow keys; the digit is sharp, or blurred before it is
    compared.

    Parameters
    ----------
    digit : array, shape (28, 28)
        Values from 0 to 1, as MNIST has them: in steps of 1/255.
    x, y : float
        Where the ball begins, in pixels, from -18 to 18; rounded to half a pixel.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        If the digit has another shape or is blank, or the ball begins elsewhere.

    Notes
    -----
    Its script is ``book/_static/landscape.js``. Shown in chapter 3.
    """
    pixels = np.asarray(digit, dtype=np.float64)
    if pixels.shape != (28, 28):
        raise ValueError(f"digit: expected shape (28, 28), got {pixels.shape}")
    if not (np.all((pixels >= 0) & (pixels <= 1)) and np.any(pixels >= 0.5 / 255)):
        raise ValueError(
            f"digit: expected values from 0 to 1, not all of them 0, got {pixels.min()} to {pixels.max()}"
        )
    for name, value in (("x", x), ("y", y)):
        if not abs(value) <= REACH:
            raise ValueError(f"{name}: expected {-REACH} to {REACH} pixels, got {value}")
    x, y = round(2 * x) / 2, round(2 * y) / 2
    counts = np.round(255 * pixels).astype(int)
    images = {sigma: prepare(counts / 255, sigma) for sigma in RATES}
    surfaces = {sigma: surface(image) for sigma, image in images.items()}
    highest = {sigma: float(f"{losses.max():.6g}") for sigma, losses in surfaces.items()}
    maps = "".join(
        f'<g class="map" data-sigma="{sigma}"{" visibility=" + chr(34) + "hidden" + chr(34) if sigma else ""}>'
        f"{_map(images[sigma], surfaces[sigma])}</g>"
        for sigma in RATES
    )
    ticks = "".join(
        f'<text x="{k * UNIT}" y="{REACH * UNIT + 16}">{number(k, 0)}</text>'
        f'<text class="end" x="{-REACH * UNIT - 6}" y="{k * UNIT + 4}">{number(k, 0)}</text>'
        for k in range(-REACH, REACH + 1, 6)
    )
    edge, side = -REACH * UNIT, 2 * REACH * UNIT
    drawing = (
        f'{maps}<rect class="frame" x="{edge}" y="{edge}" width="{side}" height="{side}"/>{ticks}'
        '<path class="home" d="M-5 0H5M0 -5V5"/><path class="halo" d=""/><path class="path" d=""/>'
        f'<g class="ball" transform="translate({x * UNIT:g} {y * UNIT:g})"><circle r="6"/></g>'
    )
    box = (edge - 34, edge - 8, side + 44, side + 30)
    label = "The loss over the shift, as a map: a hollow in the middle, level lines, arrows downhill, and a ball"
    seen = "The digit where the grid reads it, in red, and its target, in blue; grey where both are"
    panels = [
        touch.panel("the loss over the shift, in pixels", touch.svg(box, label, drawing)),
        touch.panel(
            "read (red) over target (blue)",
            f'<img alt="{html.escape(seen)}" src="{touch.png(overlay(images[0], x, y))}">',
        ),
    ]
    told = {
        "digit": counts.tolist(),
        "x": x,
        "y": y,
        "highest": [[sigma, value] for sigma, value in highest.items()],
    }
    return touch.figure("landscape", told, panels, sentence(images[0], 0, (x, y), highest[0]))
