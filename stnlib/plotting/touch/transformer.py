"""A trained spatial transformer that runs in the page (chapter 5): draw a digit, or move, turn and clutter one.

``book/_static/transformer.js`` computes and draws the same, with the weights in ``transformer_weights.js`` beside it,
which `stnlib.experiments.in_the_page` trains and writes.
"""

from __future__ import annotations

import base64
import html
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ... import affine_sample
from ...data import mnist
from .. import touch
from ..style import BLUE, GREY

SIZE, DIGIT, SIDE = 42, 28, 6  # pixels along each side: the frame, a digit, a piece of clutter
MARGIN = 3  # round the frame, since the grid may leave it
LINES = 7  # of the grid, in each direction
MOST = 8  # pieces of clutter


class Scene(NamedTuple):
    """What lies in the frame: a digit of the row, its centre in pixels from the frame's, degrees clockwise, size."""

    digit: int
    x: float
    y: float
    angle: float
    scale: float
    pieces: int


START = Scene(digit=4, x=6, y=-4, angle=40, scale=0.9, pieces=2)


def transformer(weights: str | Path) -> Any:
    """Return the figure in which a trained spatial transformer answers to what a reader does to a digit.

    Parameters
    ----------
    weights : str or Path
        The script with the weights, ``transformer_weights.js``. The page loads it from beside the figure's own script.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    OSError, ValueError
        If there is no such script, or it is not whole (`stnlib.experiments.in_the_page.read_weights`).
    """
    digits, clutter = row(), pieces()
    frame = compose(digits, START, clutter)
    theta, output, probabilities = forward(weights, frame)
    box = (-MARGIN, -MARGIN, SIZE + 2 * MARGIN, SIZE + 2 * MARGIN)
    told = {
        "digits": base64.b64encode(digits.tobytes()).decode(),
        "pieces": clutter.tolist(),
        "start": START._asdict(),
    }
    panels = [
        touch.panel(
            "the frame, and the grid",
            touch.svg(
                box,
                "The frame with the digit in it, and the grid that the network lays on it",
                f'{_image(frame)}<rect class="frame" width="{SIZE}" height="{SIZE}"></rect>'
                f'<path class="halo" d="{grid(theta)}"></path><path class="grid" d="{grid(theta)}"></path>'
                f'<path class="top" d="{top(theta)}"></path>',
            ),
        ),
        touch.panel(
            "what the classifier gets",
            touch.svg(
                (0, -MARGIN, SIZE, SIZE + 13),
                "What the sampler reads at the grid, and theta, which says where the grid lies",
                f'{_image(output)}<rect class="output" width="{SIZE}" height="{SIZE}"></rect>{matrix(theta)}',
            ),
        ),
        touch.panel(
            "what it says",
            touch.svg(
                (0, 0, 100, 126),
                "The probability of each class, as bars",
                bars(probabilities),
            ),
        ),
    ]
    said = sentence(f"It is a {START.digit}. ", theta, probabilities)
    return touch.figure("transformer", told, panels, said)


# ---- What is in the frame ------------------------------------------------------------------------


def row() -> np.ndarray:
    """Return the ten digits that a reader may choose from, (10, 28, 28) of uint8: the first of each in the test set."""
    images, labels = mnist.load("test")
    return np.stack([images[np.flatnonzero(labels == digit)[0]] for digit in range(10)])


def pieces() -> np.ndarray:
    """Return pieces of clutter, (8, 5) of integers: which digit, its first pixel (x, y) there, and in the frame."""
    rng, digits = np.random.default_rng(0), row()
    found: list[list[int]] = []
    while len(found) < MOST:
        digit, (x, y) = int(rng.integers(10)), rng.integers(4, DIGIT - SIDE - 4, 2)
        ink = digits[digit, y : y + SIDE, x : x + SIDE].mean() / 255
        if ink > 0.3:
            found.append([digit, x, y, *rng.integers(0, SIZE - SIDE, 2, endpoint=True)])
    return np.array(found)


def compose(digits: np.ndarray, scene: Scene, clutter: np.ndarray) -> np.ndarray:
    """Return the frame, (42, 42) of float64: a digit, posed, and pieces of others; where ink meets ink, the brighter.

    Examples
    --------
    >>> compose(row(), Scene(digit=7, x=0, y=0, angle=0, scale=1, pieces=0), pieces()).shape
    (42, 42)
    """
    ink = digits / 255
    frame = affine_sample(
        ink[scene.digit, None, None], to_digit(scene)[None], (SIZE, SIZE), coordinates="pixel"
    )[0, 0]
    for digit, x, y, column, line in clutter[: scene.pieces]:
        place = frame[line : line + SIDE, column : column + SIDE]
        np.maximum(place, ink[digit, y : y + SIDE, x : x + SIDE], out=place)
    return frame


def to_digit(scene: Scene) -> np.ndarray:
    """Return the matrix, (2, 3), from pixels (x, y) of the frame to those of the digit."""
    turn = math.radians(scene.angle)
    cosine, sine = math.cos(turn) / scene.scale, math.sin(turn) / scene.scale
    x, y = (SIZE - 1) / 2 + scene.x, (SIZE - 1) / 2 + scene.y
    middle = (DIGIT - 1) / 2
    return np.array(
        [
            [cosine, sine, middle - cosine * x - sine * y],
            [-sine, cosine, middle + sine * x - cosine * y],
        ]
    )


# ---- What the network makes of it ----------------------------------------------------------------


def forward(
    weights: str | Path, frame: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return theta, (6,), what the transformer hands on, (42, 42), and the probabilities, (10,), in float64."""
    import torch

    from ...experiments import in_the_page

    network = in_the_page.load(Path(weights)).double()
    with torch.no_grad():
        output, theta = network.transformer(
            torch.from_numpy(frame)[None, None], return_theta=True
        )
        logits = network.classifier(network.pool(output))
    return theta[0].numpy(), output[0, 0].numpy(), logits.softmax(1)[0].numpy()


# ---- How it is drawn and said: the same as in transformer.js ---------------------------------------


def grid(theta: np.ndarray) -> str:
    """Return the lines of the grid on the frame, in pixels from the frame's corner, as a path."""
    steps = [2 * k / (LINES - 1) - 1 for k in range(LINES)]
    return "".join(
        f"M{_place(theta, s, -1)}L{_place(theta, s, 1)}M{_place(theta, -1, s)}L{_place(theta, 1, s)}"
        for s in steps
    )


def top(theta: np.ndarray) -> str:
    """Return the line that becomes the output's upper edge."""
    return f"M{_place(theta, -1, -1)}L{_place(theta, 1, -1)}"


def _place(theta: np.ndarray, x: float, y: float) -> str:
    a, b, c, d, e, f = (float(number) for number in theta)
    return " ".join(
        fixed((1 + value) * SIZE / 2, 2) for value in (a * x + b * y + c, d * x + e * y + f)
    )


def matrix(theta: np.ndarray) -> str:
    """Return theta as two rows beneath the output."""
    words = '<text x="0" y="48.3" class="start">θ =</text>'
    for k, number in enumerate(theta):
        x, y = 18 + 12 * (k % 3), 46 + 4.6 * (k // 3)
        words += f'<text x="{x}" y="{y:g}">{_minus(fixed(number, 2))}</text>'
    return words


def bars(probabilities: np.ndarray) -> str:
    """Return a bar for each class, the likeliest in blue."""
    best = int(np.argmax(probabilities))
    parts = []
    for digit, probability in enumerate(probabilities):
        y, colour = 3 + 12 * digit, BLUE if digit == best else GREY
        parts.append(
            f'<text x="3" y="{y + 8}" class="start">{digit}</text>'
            f'<rect x="13" y="{y}" width="{_short(57 * float(probability))}" height="10" fill="{colour}"></rect>'
            f'<text x="100" y="{y + 8}">{html.escape(percent(probability))}</text>'
        )
    return "".join(parts)


def sentence(what: str, theta: np.ndarray, probabilities: np.ndarray) -> str:
    """Return what is in the frame, and what the network says of it."""
    second, first = (int(k) for k in np.argsort(probabilities, kind="stable")[-2:])
    sure = ", then ".join(f"{k} with {_in_words(probabilities[k])}" for k in (first, second))
    rows = [", ".join(_minus(fixed(v, 2)) for v in theta[r : r + 3]) for r in (0, 3)]
    return f"{what}The network says {sure}. θ has the rows {rows[0]} and {rows[1]}."


def percent(probability: float) -> str:
    """Return a probability in whole percent; what is not quite 0 or 1 does not look as if it were.

    Examples
    --------
    >>> percent(0.273), percent(0.9999), percent(1e-5)
    ('27 %', '> 99 %', '< 1 %')
    """
    if probability > 0.995:
        return "> 99 %"
    return f"{math.floor(100 * probability + 0.5)} %" if probability >= 0.005 else "< 1 %"


def _in_words(probability: float) -> str:
    return percent(probability).replace(">", "over").replace("<", "under")


def fixed(value: float, digits: int) -> str:
    """Return a number with so many decimals, halves rounded up as in JavaScript."""
    return f"{math.floor(float(value) * 10**digits + 0.5) / 10**digits:.{digits}f}"


def _short(value: float) -> str:
    return f"{math.floor(value * 10 + 0.5) / 10:g}"


def _minus(number: str) -> str:
    return number.replace("-", "−")


def _image(pixels: np.ndarray) -> str:
    return f'<image href="{touch.png(pixels)}" width="{SIZE}" height="{SIZE}"></image>'
