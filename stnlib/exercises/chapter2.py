"""Exercises of chapter 2: interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ._judges import (
    Case,
    Exercise,
    Mistake,
    Wrong,
    choice,
    compare,
    function,
    kind,
    parts,
    to_array,
    value,
)

_ROW = np.array([2.0, 6.0, 3.0, 7.0])


def _continued(mode: Any, x: Any, **options: Any) -> np.ndarray:
    """Read the row, continued to both sides by NumPy's padding, at positions between -8 and 11."""
    return np.interp(x, np.arange(-8, 12), np.pad(_ROW, 8, mode=mode, **options))


# 2.1 ------------------------------------------------------------------------------------------------------------------

_RULES = ("zeros", "fill", "border", "reflection at the centres", "reflection at the edges")


def _by_hand(order: str = "cfbrs") -> np.ndarray:
    modes: dict[str, Any] = {
        "c": {"mode": "constant"},
        "f": {"mode": "constant", "constant_values": 4.0},
        "b": {"mode": "edge"},
        "r": {"mode": "reflect"},
        "s": {"mode": "symmetric"},
    }
    return np.array([_continued(x=[2.25, -0.25, 4.0], **modes[rule]) for rule in order])


def _row_mistakes() -> Iterable[Mistake]:
    yield (
        "The two reflections have changed places: with align_corners=True the mirror stands at the pixel's centre.",
        _by_hand("cfbsr"),
    )
    near = _by_hand()
    near[:, 0] = 0.25 * 3 + 0.75 * 7
    yield "At 2.25 the weights have changed places: the pixel that is nearer counts more.", near
    hard = _by_hand()
    hard[:2, 1] = 0.0, 4.0
    yield (
        "At -0.25 the position is outside, and yet its right neighbour is inside, and counts.",
        hard,
    )


# 2.2 ------------------------------------------------------------------------------------------------------------------


def _four_pixels(
    swap: bool = False, opposite: bool = False, across: float = 0.4, down: float = 0.9
) -> np.ndarray:
    lines = []
    for row, r in ((7, 1 - down), (8, down)):
        for column, c in ((3, 1 - across), (4, across)):
            weight = (1 - r) * (1 - c) if opposite else r * c
            lines.append((column, row, weight) if swap else (row, column, weight))
    return np.array(lines, float)


def _judge_four_pixels(answer: Any) -> None:
    got = to_array(answer, (4, 3))
    if got.shape == (4, 3):
        got = got[np.lexsort((got[:, 1], got[:, 0]))]
    expected = _four_pixels()
    swapped = _four_pixels(swap=True)
    mistakes = [
        (
            "Rows and columns have changed places: y counts rows.",
            swapped[np.lexsort(swapped.T[1::-1])],
        ),
        (
            "The weights are those of the opposite pixels: the nearer a pixel, the more it counts.",
            _four_pixels(opposite=True),
        ),
        ("The weights along x have changed places.", _four_pixels(across=0.6)),
        ("The weights along y have changed places.", _four_pixels(down=0.1)),
    ]
    if got.shape == (4, 3) and not np.array_equal(got[:, :2], expected[:, :2]):
        said, swapped = mistakes[0]
        raise Wrong(
            said
            if np.array_equal(got[:, :2], swapped[:, :2])
            else "These are not the four pixels around the position."
        )
    if got.shape == (4, 3) and abs(got[:, 2].sum() - 1) > 1e-6:
        raise Wrong("The four weights do not add up to 1.")
    compare(got, expected, mistakes)


# 2.3 ------------------------------------------------------------------------------------------------------------------


def _around(wrap: Any = "wrap", mirror: Any = "reflect") -> np.ndarray:
    lines = []
    for mode in (wrap, mirror):
        pixel = np.pad(np.arange(4), 8, mode=mode)[8 + 10]
        lines.append([pixel, *_continued(mode, [-0.25, 4.5])])
    return np.array(lines)


def _around_mistakes() -> Iterable[Mistake]:
    yield (
        "Mirror turns about the centre of the last pixel, which is not repeated.",
        _around(mirror="symmetric"),
    )
    yield "Wrap and mirror have changed places.", _around()[::-1]


# 2.4 ------------------------------------------------------------------------------------------------------------------


def _half_a_pixel(image: np.ndarray) -> np.ndarray:
    h, w = image.shape
    return np.array(
        [[(image[i, j] + image[i, j + 1]) / 2 for j in range(w - 1)] for i in range(h)]
    )


def _down(image: np.ndarray) -> np.ndarray:
    return (image[:-1] + image[1:]) / 2


def _images() -> Iterable[Case]:
    rng = np.random.default_rng(24)
    yield Case("for a square image", (rng.random((5, 5)),))
    yield Case("for an image that is not square", (rng.random((3, 7)),))


# 2.5 ------------------------------------------------------------------------------------------------------------------


def _saddle(square: np.ndarray) -> list[float]:
    """Fit the form to what a bilinear sampler reads at four places inside."""
    places = np.array([(0.2, 0.3), (0.7, 0.1), (0.4, 0.9), (0.8, 0.6)])
    read = [np.array([1 - b, b]) @ square @ np.array([1 - a, a]) for a, b in places]
    a, b = places.T
    p, q, r, s = np.linalg.solve(np.stack((a**0, a, b, a * b), axis=1), read)
    return [p, q, r, s, -r / s, -q / s]


def _reordered(
    order: Callable[[list[float]], list[float]],
) -> Callable[[np.ndarray], list[float]]:
    return lambda square: order(_saddle(square))


def _squares() -> Iterable[Case]:
    rng = np.random.default_rng(25)
    yield Case("for the square of the chapter", (np.array([[10.0, 30.0], [50.0, 20.0]]),))
    for _ in range(3):
        yield Case("for other squares", (rng.integers(-9, 9, (2, 2)) + rng.random((2, 2)),))


# 2.6 ------------------------------------------------------------------------------------------------------------------


def _after(k: int, shifts: int = 2) -> np.ndarray:
    row = np.ones(1)
    for _ in range(shifts * k):
        row = np.convolve(row, [0.5, 0.5])
    return row


def _pairs() -> Iterable[Case]:
    for k in (1, 2, 3, 7):
        yield Case(f"for k = {k}", (k,))


# 2.7 ------------------------------------------------------------------------------------------------------------------


def _bound() -> float:
    a = np.linspace(0, 1, 1001)
    return float(np.max(a * (1 - a))) / 2  # f(x) = x² / 2 has f'' = 1


# 2.8 ------------------------------------------------------------------------------------------------------------------


def _soft() -> list[float]:
    def spline(x: float) -> float:  # four times the difference of x³ / 6
        return sum((-1) ** j * math.comb(4, j) * max(0.0, x + 2 - j) ** 3 / 6 for j in range(5))

    left, middle, right = spline(-1), spline(0), spline(1)
    return [left, middle, right, middle - left - right]


def _soft_mistakes() -> Iterable[Mistake]:
    left, middle, right, _ = _soft()
    yield (
        "The weights are right. This is what a 1 becomes; the contrast lies between that and what a 0 becomes.",
        [left, middle, right, middle],
    )
    yield (
        "The weights are right. This is what a second prefilter does to the contrast; the blur weakens it.",
        [left, middle, right, 3.0],
    )
    yield (
        "This is the blur of the quadratic spline; the cubic reaches further.",
        [1 / 8, 3 / 4, 1 / 8, 1 / 2],
    )
    yield "This is the blur of two shifts by half a pixel.", [1 / 4, 1 / 2, 1 / 4, 0]


# 2.10, 2.12 -----------------------------------------------------------------------------------------------------------


def _keys(alpha: float, d: np.ndarray) -> np.ndarray:
    near = np.polynomial.Polynomial([1, 0, -(alpha + 3), alpha + 2])
    far = np.polynomial.Polynomial([-4 * alpha, 8 * alpha, -5 * alpha, alpha])
    return np.where(np.abs(d) < 1, near(np.abs(d)), far(np.abs(d)))


def _mitchell(d: np.ndarray, order: int = 0, odd: bool = True) -> np.ndarray:
    near = np.polynomial.Polynomial([16 / 3, 0, -12, 7]) / 6
    far = np.polynomial.Polynomial([32 / 3, -20, 12, -7 / 3]) / 6
    if order:
        near, far = near.deriv(), far.deriv()
    r = np.abs(d)
    found = np.where(r < 1, near(r), far(r))
    return np.sign(d) * found if order and odd else found


def _distances() -> np.ndarray:
    return np.random.default_rng(210).uniform(-2, 2, 40)


def _require_kernel(kernel: Any, *methods: str) -> None:
    for name in ("support", *methods):
        if not hasattr(kernel, name):
            raise Wrong(f"The class has no {name}.")
    if kernel.support != 2:
        raise Wrong(
            "Its support is another: how far does the kernel reach to one side, in pixels?"
        )


def _method(kernel: Any, name: str) -> Callable[[np.ndarray], Any]:
    return lambda d: getattr(kernel, name)(d, np)


def _kernel_cases() -> Iterable[Case]:
    d = _distances()
    yield Case("for distances from 0 to 1", (d[(d > 0) & (d < 1)],))
    yield Case("for distances from 1 to 2", (d[d > 1],))
    yield Case("for negative distances", (d[d < 0],))


def _judge_keys(answer: Any) -> None:
    if not isinstance(answer, type):
        raise Wrong(
            f"It is {kind(answer)}, and a class was expected: hand over the class itself."
        )
    for alpha in (-0.5, -0.75):
        try:
            kernel = answer(alpha)
        except TypeError as error:
            raise Wrong(
                f"The class is made with one argument, α, and raises TypeError: {error}"
            ) from None
        _require_kernel(kernel, "value")
        function(
            lambda d, alpha=alpha: _keys(alpha, d),
            _kernel_cases,
            mistakes=[
                (
                    "α has the wrong sign somewhere: this is the kernel of -α.",
                    lambda d, alpha=alpha: _keys(-alpha, d),
                ),
                (
                    "It does not depend on α as it should: with α = -0.75 it is the kernel of -0.5.",
                    (lambda d: _keys(-0.5, d))
                    if alpha == -0.75
                    else (lambda d: np.full(1, np.nan)),
                ),
            ],
        )(_method(kernel, "value"))


def _judge_mitchell(answer: Any) -> None:
    kernel = answer() if isinstance(answer, type) else answer
    _require_kernel(kernel, "value", "derivative")
    both = parts(
        {
            "value": function(
                _mitchell,
                _kernel_cases,
                mistakes=[("The factor 1/6 is missing.", lambda d: 6 * _mitchell(d))],
            ),
            "derivative": function(
                lambda d: _mitchell(d, 1),
                _kernel_cases,
                mistakes=[
                    (
                        "It is even, and the slope of an even function is odd: the sign of d is missing.",
                        lambda d: _mitchell(d, 1, odd=False),
                    ),
                    (
                        "The factor 1/6 is missing.",
                        lambda d: 6 * _mitchell(d, 1),
                    ),
                ],
            ),
        }
    )
    both((_method(kernel, "value"), _method(kernel, "derivative")))


# 2.11 -----------------------------------------------------------------------------------------------------------------


def _wide_hats(
    size: int,
    size_out: int,
    *,
    divide: bool = True,
    stretch: bool = True,
    corners: bool = False,
    half: bool = True,
) -> np.ndarray:
    weights = np.zeros((size_out, size))
    step = size / size_out
    for i in range(size_out):
        x = step * i
        if corners:
            x = i * (size - 1) / (size_out - 1)
        elif half:
            x = step * (i + 0.5) - 0.5
        for m in range(size):
            weights[i, m] = max(0.0, 1 - abs(x - m) / (step if stretch else 1))
    return weights / weights.sum(1, keepdims=True) if divide else weights


def _hats(**options: bool) -> Callable[[int, int], np.ndarray]:
    return lambda size, size_out: _wide_hats(size, size_out, **options)


def _shrinkings() -> Iterable[Case]:
    for size, size_out in ((12, 3), (10, 4), (7, 5)):
        yield Case(f"from {size} to {size_out} pixels", (size, size_out))


EXERCISES = [
    Exercise(
        "an array of shape (5, 3): a row for each rule (zeros, fill, border, reflection with align_corners=True and "
        "with False), a column for each position",
        value(_by_hand, mistakes=_row_mistakes, names=_RULES),
    ),
    Exercise("four lines of row, column and weight, in any order", _judge_four_pixels),
    Exercise(
        "an array of shape (2, 3): for wrap and for mirror the pixel at 10, and what is read at -0.25 and at 4.5",
        value(_around, mistakes=_around_mistakes, names=("wrap", "mirror")),
    ),
    Exercise(
        "a function half_a_pixel(image) from an array of shape (H, W) to one of shape (H, W - 1)",
        function(
            _half_a_pixel,
            _images,
            mistakes=[
                ("This is the slope between the two pixels.", lambda u: u[:, 1:] - u[:, :-1]),
                (
                    "It adds the two pixels, and the weights are missing.",
                    lambda u: u[:, 1:] + u[:, :-1],
                ),
                ("It moves down, along y; x runs along the width.", _down),
                ("This is the pixel to the right, whole.", lambda u: u[:, 1:]),
                ("This is the pixel itself: nothing has moved.", lambda u: u[:, :-1]),
            ],
        ),
    ),
    Exercise(
        "a function saddle(square) of an array [[U_n,m, U_n,m+1], [U_n+1,m, U_n+1,m+1]] "
        "that returns p, q, r, s and the place a, b",
        function(
            _saddle,
            _squares,
            mistakes=[
                (
                    "p, q, r and s are right; a and b have changed places.",
                    _reordered(lambda v: [*v[:4], v[5], v[4]]),
                ),
                (
                    "p, q, r and s are right; the place has the wrong sign.",
                    _reordered(lambda v: [*v[:4], -v[4], -v[5]]),
                ),
                (
                    "q and r have changed places: a goes along the width.",
                    _reordered(lambda v: [v[0], v[2], v[1], v[3], v[5], v[4]]),
                ),
                (
                    "s has the wrong sign, and the place with it.",
                    _reordered(lambda v: [*v[:3], -v[3], -v[4], -v[5]]),
                ),
            ],
            names=("p", "q", "r", "s", "a", "b"),
        ),
    ),
    Exercise(
        "a function after(k) that returns the 2k + 1 pixels that are not black",
        function(
            _after,
            _pairs,
            mistakes=[
                ("These are k shifts; a pair is two of them.", lambda k: _after(k, 1)),
                (
                    "They should add up to 1: no shift makes light.",
                    lambda k: _after(k) * 4.0**k,
                ),
                (
                    "They should add up to 1: no shift makes light.",
                    lambda k: _after(k) * 2.0**k,
                ),
            ],
        ),
    ),
    Exercise(
        "two numbers: the factor in front of max |f''|, and how many times smaller the error becomes",
        parts(
            {
                "the factor": value(
                    _bound,
                    mistakes=lambda: [
                        (
                            "The parabola that touches f has f''/2 in front of its square.",
                            2 * _bound(),
                        ),
                        (
                            "Where is a (1 - a) largest, and how large is it there?",
                            4 * _bound(),
                        ),
                    ],
                ),
                "how many times": value(
                    lambda: 4.0,
                    mistakes=lambda: [
                        ("f'' is a slope of a slope, and each is per pixel.", 2.0)
                    ],
                ),
            }
        ),
    ),
    Exercise(
        "four numbers: the three weights of the filter, and the factor on the contrast of an alternating row",
        value(_soft, mistakes=_soft_mistakes),
    ),
    Exercise(
        'a word and a number: which stripes change, "upright" or "level", and the samples for each output pixel',
        parts(
            {
                "the stripes": choice(
                    "level",
                    {
                        "upright": "A column of upright stripes has one grey value, and so has its mean."
                    },
                ),
                "the samples": value(
                    lambda: 9.0,
                    mistakes=lambda: [
                        ("A cell is half a pixel long, and not a whole one.", 4.0),
                        (
                            "One cell lies in the middle, and the outermost count too: half of each.",
                            8.0,
                        ),
                        (
                            "The outermost cells count too, though the step covers half of each.",
                            7.0,
                        ),
                        ("Along x the footprint is a point, and takes one sample.", 81.0),
                    ],
                ),
            }
        ),
    ),
    Exercise(
        "a class that is made with α, such as Cubic; hand over the class itself", _judge_keys
    ),
    Exercise(
        "a function wide_hats(size, size_out) that returns the weights, of shape (size_out, size)",
        function(
            _wide_hats,
            _shrinkings,
            mistakes=[
                ("The rows do not add up to 1: the division is missing.", _hats(divide=False)),
                (
                    "These are plain hats, which skip pixels: nothing has stretched them.",
                    _hats(stretch=False),
                ),
                (
                    "The positions are those of align_corners=True.",
                    _hats(corners=True),
                ),
                (
                    "The positions begin at the first pixel's centre: half a step less half a pixel is missing.",
                    _hats(half=False),
                ),
                (
                    "It is right on the inside only, if at all: divide by the sum, and not by the step.",
                    lambda size, size_out: (
                        _wide_hats(size, size_out, divide=False) * size_out / size
                    ),
                ),
            ],
        ),
    ),
    Exercise(
        "a class such as Mitchell, with value and derivative, or an instance of it",
        _judge_mitchell,
    ),
    Exercise("research"),
]
