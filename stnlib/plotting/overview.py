"""The book's first picture: a digit, where a spatial transformer reads it, and what it hands on.

    python -m stnlib.plotting.overview book/_static/overview.png

draws it into a file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import transforms
from ..data import mnist
from ..data.distortions import DIGIT, RTS
from ..sampling import affine_grid, grid_sample
from .images import draw_grid, frame, show_image
from .style import BLUE, GREEN, GREY, PURPLE, RED, use_style

INDEX = 32  # of the test digit: a 3
ANGLE, SCALE, CENTRE = (
    -40.0,
    0.8,
    (24.5, 16.5),
)  # degrees; the centre (x, y) in pixels of the frame
WIDTH, HEIGHT, SIDE = 7.2, 2.4, 2.0  # of the figure, and of an image in it; inches
Point = tuple[float, float]


def example() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a distorted digit, the theta that undoes the distortion, and the digit read through it.

    Returns
    -------
    input : array of float32, shape (1, 42, 42)
        A digit turned, shrunk and moved, as the paper's RTS distortion does.
    theta : array of float64, shape (2, 3)
        From normalised coordinates of the output to those of the input.
    output : array of float32, shape (1, 28, 28)
    """
    digit = mnist.to_input(mnist.load("test")[0][INDEX : INDEX + 1])
    middle = (DIGIT - 1) / 2
    to_frame = transforms.compose(
        transforms.similarity(SCALE, np.deg2rad(ANGLE), *CENTRE),
        transforms.translation(-middle, -middle),
    )
    theta = transforms.pixel_to_theta(to_frame, RTS.size, (DIGIT, DIGIT))
    input = RTS.apply(digit, transforms.inverse(theta)[None])
    output = grid_sample(input, affine_grid(theta[None], (DIGIT, DIGIT)))
    return input[0], theta, output[0]


def overview() -> Figure:
    """Draw a spatial transformer at work: the digit and the grid on it, the three parts, the digit upright.

    Theta is not learned: it is the inverse of the distortion that made the input.

    Returns
    -------
    matplotlib.figure.Figure
        7.2 by 2.4 inches, transparent.
    """
    input, theta, output = example()
    with mpl.rc_context():
        use_style()
        mpl.rcParams.update(
            {"figure.constrained_layout.use": False, "font.size": 12.5, "axes.titlesize": 12.5}
        )
        figure = plt.figure(figsize=(WIDTH, HEIGHT))
        left = _inches(figure, 0.05, 0.05, SIDE, SIDE)
        show_image(left, input, "input U")
        draw_grid(left, affine_grid(theta[None], (DIGIT, DIGIT))[0], RTS.size)
        left.set(xlim=(-0.5, RTS.size[1] - 0.5), ylim=(RTS.size[0] - 0.5, -0.5))
        right = _inches(figure, WIDTH - SIDE - 0.05, 0.05, SIDE, SIDE)
        show_image(right, output, "output V")
        frame(right, RED, 1.5)
        _parts(_inches(figure, 0.05 + SIDE, 0, WIDTH - 2 * SIDE - 0.1, HEIGHT), theta)
    return figure


def _inches(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place given in inches."""
    return figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT))


def _parts(ax: Axes, theta: np.ndarray) -> None:
    """Draw the three parts and what passes between them; a unit of the axes is an inch."""
    end = WIDTH - 2 * SIDE - 0.1
    upper, lower, first, second = 1.75, 0.4, 0.79, end - 0.69
    ax.set(xlim=(0, end), ylim=(0, HEIGHT))
    ax.set_axis_off()
    _box(ax, (first, upper), "localisation\nnetwork", BLUE)
    _box(ax, (second, upper), "grid\ngenerator", PURPLE)
    _box(ax, (second, lower), "sampler", RED)
    _arrow(ax, (0.06, upper), (first - 0.63, upper))
    _arrow(ax, (first + 0.63, upper), (second - 0.58, upper))
    _arrow(ax, (second, upper - 0.32), (second, lower + 0.22))
    _arrow(ax, (0.06, lower), (second - 0.47, lower))
    _arrow(ax, (second + 0.47, lower), (end - 0.08, lower))
    ax.text(
        (first + second) / 2 + 0.03,
        upper + 0.07,
        "θ",
        color=GREEN,
        ha="center",
        va="bottom",
        fontsize=14,
    )
    ax.text(second + 0.08, (upper + lower) / 2, "grid", color=PURPLE, va="center")
    ax.text(first, lower + 0.07, "U", ha="center", va="bottom")
    ax.text(0.36, (upper + lower) / 2, "θ =", color=GREEN, ha="right", va="center", fontsize=11)
    for row, y in zip(theta, (0.11, -0.11), strict=True):
        numbers = "  ".join(f"{number:+.2f}" for number in row).replace("-", "−")
        ax.text(
            0.42,
            (upper + lower) / 2 + y,
            numbers,
            color=GREEN,
            va="center",
            family="monospace",
            fontsize=10,
        )


def _box(ax: Axes, centre: Point, text: str, colour: str) -> None:
    """Draw a part of the transformer."""
    ax.text(
        *centre,
        text,
        color=colour,
        ha="center",
        va="center",
        bbox={
            "boxstyle": "round,pad=0.45",
            "facecolor": (colour, 0.12),
            "edgecolor": colour,
            "linewidth": 1.5,
        },
    )


def _arrow(ax: Axes, start: Point, end: Point) -> None:
    """Draw what passes from one part to the next."""
    style = {"arrowstyle": "->", "color": GREY, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m stnlib.plotting.overview", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "path", type=Path, help="the image file to write; its ending says which format"
    )
    overview().savefig(parser.parse_args(arguments).path, dpi=168)


if __name__ == "__main__":
    main()
