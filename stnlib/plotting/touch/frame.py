"""Chapter 1's six numbers and a photograph: a frame to drag over it, the matrix, and what the frame shows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...sampling import affine_sample
from . import figure, panel, png, svg

VIEW = 1.6  # the picture of the input shows -VIEW to VIEW, more than the photograph
CELLS = 8  # of the grid that is drawn, along each axis
MOST_PIXELS = 128  # along an edge of the photograph
LIMITS = np.array([[2.0, 2.0, 1.5], [2.0, 2.0, 1.5]])  # of theta's entries, either way
CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1))


def frame(image: np.ndarray, theta: Any) -> Any:
    """Draw a photograph, the frame that six numbers lay over it, and what is read in the frame.

    In the page the frame is dragged by its middle, the tips of its axes or its corners, and the numbers by sliders.

    Parameters
    ----------
    image : array of float, shape (1, H, H) or (3, H, H)
        Values from 0 to 1. A large one is made smaller, to at most 128 pixels, by averaging whole blocks.
    theta : array, shape (2, 3)
        Where to begin, in normalised coordinates; rounded to four decimals. Its first two columns lie within -2 and 2,
        the third within -1.5 and 1.5.

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
    Its script is ``book/_static/frame.js``. Shown in chapter 1.

    Examples
    --------
    >>> "determinant is 0.25" in frame(np.zeros((1, 64, 64)), [[0.5, 0, 0], [0, 0.5, 0]]).data
    True
    """
    start = np.round(np.asarray(theta, dtype=np.float64), 4) + 0.0
    if start.shape != (2, 3):
        raise ValueError(f"theta: expected shape (2, 3), got {start.shape}")
    if not np.all(np.abs(start) <= LIMITS):
        raise ValueError(
            "theta: expected its first two columns within -2 and 2 and its third within -1.5 and 1.5, "
            f"which is how far the sliders go, got {start.tolist()}"
        )
    photograph = shrink(image)
    size = photograph.shape[-1]
    output = affine_sample(photograph[None], start[None], (size, size), engine="reference")[0]
    box = (-VIEW, -VIEW, 2 * VIEW, 2 * VIEW)
    label = "A photograph with a grid over it. An arrow marks each of the grid's two axes."
    told = {"theta": start.ravel().tolist(), "size": size}
    return figure(
        "frame",
        told,
        [
            panel("input, and where it is read", svg(box, label, _drawing(photograph, start))),
            panel("output", picture(output, "What the grid reads, as a picture of its own.")),
        ],
        _sentence(start, size),
    )


def shrink(image: np.ndarray) -> np.ndarray:
    """Return a square image, (C, H, H), as a page shows it: small, in steps of 1/255; raise for another shape."""
    image = np.asarray(image, dtype=np.float64)
    if image.ndim != 3 or len(image) not in (1, 3) or image.shape[1] != image.shape[2]:
        raise ValueError(f"image: expected shape (1, H, H) or (3, H, H), got {image.shape}")
    size = image.shape[1]
    block = next(b for b in range(1, size + 1) if size % b == 0 and size // b <= MOST_PIXELS)
    blocks = image.reshape(-1, size // block, block, size // block, block)
    return np.round(255 * np.clip(blocks.mean(axis=(2, 4)), 0, 1)) / 255


def picture(image: np.ndarray, label: str) -> str:
    """Return an image, (1, H, W) or (3, H, W), for a panel; ``label`` is said to those who cannot see it."""
    return f'<img class="read" alt="{label}" src="{address(image)}">'


def address(image: np.ndarray) -> str:
    """Return an image, (1, H, W) or (3, H, W), as the address of a PNG."""
    return png(image[0] if len(image) == 1 else image)


def _drawing(photograph: np.ndarray, theta: np.ndarray) -> str:
    """Return the photograph, the grid and its handles. The script draws the same."""
    middle = theta[:, 2]

    def point(x: float, y: float) -> np.ndarray:
        return middle + theta[:, 1] * y + theta[:, 0] * x

    def place(p: np.ndarray) -> str:
        return f"{p[0]:.3f} {p[1]:.3f}"

    steps = [2 * i / CELLS - 1 for i in range(CELLS + 1)]
    lines = "".join(
        f"M{place(point(s, -1))}L{place(point(s, 1))}M{place(point(-1, s))}L{place(point(1, s))}"
        for s in steps
    )
    axes = "".join(
        f'<path class="axis {name}" d="M{place(middle)}L{place(point(*tip))}"/>'
        for name, tip in (("x", (1, 0)), ("y", (0, 1)))
    )

    def handle(x: float, y: float) -> str:  # what lies outside is drawn at the edge
        return place(np.clip(point(x, y), -VIEW, VIEW))

    corners = "".join(
        f'<g class="handle corner" transform="translate({handle(*corner)})">'
        '<rect x="-.05" y="-.05" width=".1" height=".1"/></g>'
        for corner in CORNERS
    )
    tips = "".join(
        f'<g class="handle {name}" transform="translate({handle(*tip)})">'
        f'<circle r=".095"/><text y=".05">{name}</text></g>'
        for name, tip in (("t", (0, 0)), ("x", (1, 0)), ("y", (0, 1)))
    )
    return (
        f'<image href="{address(photograph)}" x="-1" y="-1" width="2" height="2"/>'
        f'<path class="halo" d="{lines}"/><path class="grid" d="{lines}"/>{axes}{corners}{tips}'
    )


def _sentence(theta: np.ndarray, size: int) -> str:
    """Say a theta, its determinant, and what that means. The script says the same."""
    (a11, a12, tx), (a21, a22, ty) = theta.tolist()
    det = a11 * a22 - a12 * a21
    area = abs(det)
    rows = [", ".join(fixed(v, 2) for v in row) for row in theta.tolist()]
    said = f"θ has the rows {rows[0]} and {rows[1]}. "
    if area < 0.00005:
        said += (
            "Its determinant is 0: the frame is flat, so the output shows nothing but what lies on a line, "
            "and nothing can undo that."
        )
    else:
        said += (
            f"Its determinant is {short(det)}: the frame has {short(area)} times the photograph's area, so areas "
            f"in the output are {short(1 / area)} times those in the photograph."
        )
        said += " The minus says that it is a mirror image." if det < 0 else ""
    outside = 0
    for i in range(size):
        for j in range(size):
            x, y = (2 * j + 1) / size - 1, (2 * i + 1) / size - 1
            places = tx + a12 * y + a11 * x, ty + a22 * y + a21 * x
            outside += max(map(abs, places)) > 1
    share = fixed(100 * outside / size**2, 0)
    return f"{said} {share} % of the output is read outside, and black."


def short(value: float) -> str:
    """Return a number with two decimals, or four if it is small."""
    return fixed(value, 2 if abs(value) >= 0.1 else 4)


def fixed(value: float, digits: int) -> str:
    """Return a number with so many decimals, halves rounded up as in JavaScript, and with the minus of print."""
    rounded = math.floor(value * 10**digits + 0.5) / 10**digits
    return f"{rounded:.{digits}f}".replace("-", "−")
