"""Exercises of chapter 1: affine transforms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ._judges import Case, Exercise, Judge, Mistake, compare, function, parts, value


def _theta(a: float, b: float, tx: float, c: float, d: float, ty: float) -> np.ndarray:
    return np.array([[a, b, tx], [c, d, ty]], float)


# 1.1 ------------------------------------------------------------------------------------------------------------------


def _read_a_matrix() -> Iterable[Mistake]:
    yield (
        "The box is right. For the size, think of the grid: it is as fine as before, and covers less.",
        [0, 0, 150, 150, 0.5],
    )
    yield (
        "The box is the one that a shift of +0.5 would show.",
        [150, 150, 300, 300, 2],
    )
    yield "The box is in normalised coordinates; pixels are asked for.", [-1, -1, 0, 0, 2]
    yield "Four times is the area; how much wider is it?", [0, 0, 150, 150, 4]


# 1.2 ------------------------------------------------------------------------------------------------------------------

_UPSIDE_DOWN = [
    ("It mirrors the picture as well: its determinant is negative.", _theta(1, 0, 0, 0, -1, 0)),
    ("This one mirrors left to right.", _theta(-1, 0, 0, 0, 1, 0)),
    ("This one changes nothing.", _theta(1, 0, 0, 0, 1, 0)),
]
_MIRRORED = [
    ("This one mirrors top to bottom.", _theta(1, 0, 0, 0, -1, 0)),
    ("This one turns by 180° and mirrors nothing.", _theta(-1, 0, 0, 0, -1, 0)),
    ("This one changes nothing.", _theta(1, 0, 0, 0, 1, 0)),
]

# 1.3 ------------------------------------------------------------------------------------------------------------------


def _judge_angle(answer: Any) -> None:
    mistakes = [
        ("At 360°, half of it is 180°, whose tangent is 0.", 360.0),
        ("At 90°, half of it is 45°, whose tangent is 1.", 90.0),
        ("At 0 all three shears are the identity.", 0.0),
    ]
    compare(answer, -180.0 if np.ndim(answer) == 0 and answer == -180 else 180.0, mistakes)


# 1.4 ------------------------------------------------------------------------------------------------------------------


def _zoom_to(z: float, px: float, py: float) -> np.ndarray:
    return _theta(1 / z, 0, px - px / z, 0, 1 / z, py - py / z)


def _zooms() -> Iterable[Case]:
    yield Case("about the middle", (2.0, 0.0, 0.0))
    yield Case("for z = 1", (1.0, 0.4, -0.7))
    yield Case("about another point", (4.0, 0.3, -0.2))
    yield Case("for z < 1", (0.5, -0.6, 0.1))


# 1.5 ------------------------------------------------------------------------------------------------------------------


def _three_points() -> np.ndarray:
    # The middle between the second and the third target point is the origin, and so are its image and the shift.
    first, second, third = np.array([[-0.5, -0.8], [0.6, -0.4], [-0.7, 0.3]])
    return np.stack(((second - first) / 2, (third - first) / 2, (second + third) / 2), axis=1)


# 1.6 ------------------------------------------------------------------------------------------------------------------


def _to_edges(theta: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where pixel centres go is the same in both: solve for the map of three of them."""
    h, w = size
    target = np.array([[0.0, 0.0], [w - 1.0, 0.0], [0.0, h - 1.0]])
    ends, sides = np.array([w - 1.0, h - 1.0]), np.array([w, h])
    points = 2 * target / ends - 1
    source = (points @ theta[:, :2].T + theta[:, 2] + 1) * ends / 2
    before, after = ((2 * p + 1) / sides - 1 for p in (target, source))
    return np.linalg.solve(np.c_[before, np.ones(3)], after).T


def _to_corners(theta: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    h, w = size
    target = np.array([[0.0, 0.0], [w - 1.0, 0.0], [0.0, h - 1.0]])
    ends, sides = np.array([w - 1.0, h - 1.0]), np.array([w, h])
    points = (2 * target + 1) / sides - 1
    source = ((points @ theta[:, :2].T + theta[:, 2] + 1) * sides - 1) / 2
    before, after = (2 * p / ends - 1 for p in (target, source))
    return np.linalg.solve(np.c_[before, np.ones(3)], after).T


def _shift_alone(theta: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    h, w = size
    return theta * np.array([[1, 1, (w - 1) / w], [1, 1, (h - 1) / h]])


def _conventions() -> Iterable[Case]:
    rng = np.random.default_rng(16)
    yield Case("on square images", (rng.normal(size=(2, 3)), (32, 32)))
    yield Case("on images of 5 × 8 pixels", (rng.normal(size=(2, 3)), (5, 8)))
    yield Case("on images of 40 × 30 pixels", (rng.normal(size=(2, 3)), (40, 30)))


# 1.7 ------------------------------------------------------------------------------------------------------------------


def _take_apart(a: np.ndarray) -> list[float]:
    q, r = np.linalg.qr(a)
    sign = np.sign(r[0, 0])
    angle = np.arctan2(sign * q[1, 0], sign * q[0, 0])
    return [angle, abs(r[0, 0]), np.linalg.det(a) / abs(r[0, 0]), r[0, 1] / r[0, 0]]


def _shear_times_scale(a: np.ndarray) -> list[float]:
    angle, sx, sy, k = _take_apart(a)
    return [angle, sx, sy, k * sx / sy]


def _shear_unscaled(a: np.ndarray) -> list[float]:
    angle, sx, sy, k = _take_apart(a)
    return [angle, sx, sy, k * sx]


def _sy_positive(a: np.ndarray) -> list[float]:
    angle, sx, sy, k = _take_apart(a)
    return [angle, sx, abs(sy), k]


def _angle_back(a: np.ndarray) -> list[float]:
    angle, sx, sy, k = _take_apart(a)
    return [-angle, sx, sy, k]


def _angle_in_degrees(a: np.ndarray) -> list[float]:
    angle, sx, sy, k = _take_apart(a)
    return [np.rad2deg(angle), sx, sy, k]


def _angle_by_arctan(a: np.ndarray) -> list[float]:
    angle, sx, sy, k = _take_apart(a)
    return [np.arctan(np.tan(angle)), sx, sy, k]


def _matrices() -> Iterable[Case]:
    yield Case("for a positive determinant", (np.array([[0.9, -0.4], [0.3, 1.2]]),))
    yield Case("for a rotation alone", (np.array([[0.6, -0.8], [0.8, 0.6]]),))
    yield Case("for an angle beyond 90°", (np.array([[-0.5, -1.1], [0.7, -0.2]]),))
    yield Case("for a negative determinant", (np.array([[0.5, 0.4], [0.3, -1.0]]),))


# 1.8 ------------------------------------------------------------------------------------------------------------------


def _nothing_cut_off(angle: float) -> np.ndarray:
    """Let the grid reach as far as the corners of the turned square."""
    c, s = np.cos(angle), np.sin(angle)
    corners = np.array([[1.0, 1.0], [1.0, -1.0]]) @ np.array([[c, -s], [s, c]])
    reach = np.abs(corners).max()  # of the turned square
    return reach * _theta(c, s, 0, -s, c, 0)


def _turn(factor: Any, way: int = -1) -> Any:
    def theta(angle: float) -> np.ndarray:
        c, s = np.cos(angle), way * np.sin(angle)
        return factor(np.cos(angle), np.sin(angle)) * _theta(c, -s, 0, s, c, 0)

    return theta


def _angles() -> Iterable[Case]:
    for degrees, about in (
        (30, "for angles between 0 and 90°"),
        (45, "for angles between 0 and 90°"),
        (-20, "for negative angles"),
        (130, "for angles beyond 90°"),
    ):
        yield Case(about, (np.deg2rad(degrees),))


# 1.9 ------------------------------------------------------------------------------------------------------------------


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """By Gauss's rule with three points, which integrates this square without error."""
    x = np.sqrt(0.6) * np.array([-1.0, 0.0, 1.0])
    weight = np.array([5.0, 8.0, 5.0]) / 18
    points = np.stack(np.meshgrid(x, x), axis=-1)
    moved = points @ (first - second)[:, :2].T + (first - second)[:, 2]
    return float(np.sqrt(np.sum(np.outer(weight, weight) * (moved**2).sum(-1))))


def _pairs() -> Iterable[Case]:
    rng = np.random.default_rng(19)
    one = rng.normal(size=(2, 3))
    yield Case("for two θ that are equal", (one, one.copy()))
    yield Case("for a shift", (_theta(1, 0, 0, 0, 1, 0), _theta(1, 0, 0.3, 0, 1, -0.4)))
    yield Case("for two θ of one shift", (one, one + _theta(0.2, -0.1, 0, 0.4, 0.3, 0)))
    yield Case("for any two θ", (one, rng.normal(size=(2, 3))))


def _both(first: Judge, second: Judge) -> Judge:
    return parts({"the first θ": first, "the second θ": second})


EXERCISES = [
    Exercise(
        "five numbers: left, top, right and bottom of the part, in pixels of a 300 × 300 image, "
        "and how many times as wide things look",
        value(
            lambda: [0, 0, 150, 150, 2],
            mistakes=_read_a_matrix,
            names=("left", "top", "right", "bottom", "the size"),
        ),
    ),
    Exercise(
        "two arrays of shape (2, 3): the θ that turns upside down, and the θ that mirrors",
        _both(
            value(lambda: _theta(-1, 0, 0, 0, -1, 0), mistakes=lambda: _UPSIDE_DOWN),
            value(lambda: _theta(-1, 0, 0, 0, 1, 0), mistakes=lambda: _MIRRORED),
        ),
    ),
    Exercise("the angle at which the recipe fails, in degrees, a number", _judge_angle),
    Exercise(
        "a function zoom_to(z, px, py) that returns θ, of shape (2, 3)",
        function(
            _zoom_to,
            _zooms,
            mistakes=[
                (
                    "It zooms out: a grid z times as large shows more, and smaller.",
                    lambda z, px, py: _zoom_to(1 / z, px, py),
                ),
                (
                    "It zooms about the middle, and the point moves.",
                    lambda z, px, py: _zoom_to(z, 0, 0),
                ),
                (
                    "It brings the point to the middle, and does not leave it where it was.",
                    lambda z, px, py: _theta(1 / z, 0, px, 0, 1 / z, py),
                ),
                (
                    "The point that stays is the opposite one, (-px, -py): in a product the right one acts first.",
                    lambda z, px, py: _zoom_to(z, -px, -py),
                ),
            ],
        ),
    ),
    Exercise("θ, an array of shape (2, 3)", value(_three_points)),
    Exercise(
        "a function to_edges(theta, size) that returns θ for align_corners=False, of shape (2, 3)",
        function(
            _to_edges,
            _conventions,
            mistakes=[
                (
                    "It returns θ as it came: then the picture changes.",
                    lambda theta, size: theta,
                ),
                ("It goes the other way, from edges to corner centres.", _to_corners),
                (
                    "Right for square images only. On others the matrix in pixels has other entries off its "
                    "diagonal, too.",
                    _shift_alone,
                ),
            ],
        ),
    ),
    Exercise(
        "a function take_apart(a) that returns α in radians, s_x > 0, s_y and k",
        function(
            _take_apart,
            _matrices,
            mistakes=[
                (
                    "This k belongs to rotation times shear times scale, with the scale on the right.",
                    _shear_times_scale,
                ),
                ("k still has the factor s_x in it.", _shear_unscaled),
                (
                    "Right for a positive determinant. With a negative one, one scale is negative.",
                    _sy_positive,
                ),
                ("α turns the other way.", _angle_back),
                ("α is in degrees, and radians were asked for.", _angle_in_degrees),
                (
                    "α is right between -90° and 90° only: an arctangent of a quotient forgets both signs.",
                    _angle_by_arctan,
                ),
            ],
            names=("α", "s_x", "s_y", "k"),
        ),
    ),
    Exercise(
        "a function nothing_cut_off(angle) that returns θ, of shape (2, 3); the angle is in radians",
        function(
            _nothing_cut_off,
            _angles,
            mistakes=[
                (
                    "The picture turns the other way: θ turns the grid.",
                    _turn(lambda c, s: abs(c) + abs(s), 1),
                ),
                (
                    "It turns, and the corners are cut off: nothing makes room for them.",
                    _turn(lambda c, s: 1.0),
                ),
                (
                    "It makes the picture larger, and cuts off more: the grid has to grow.",
                    _turn(lambda c, s: 1 / (abs(c) + abs(s))),
                ),
                (
                    "Nothing is cut off, but it could be larger: √2 is needed at 45° alone.",
                    _turn(lambda c, s: np.sqrt(2)),
                ),
                (
                    "Right for angles between 0 and 90° only: elsewhere a sine or a cosine is negative.",
                    _turn(lambda c, s: c + s),
                ),
            ],
        ),
    ),
    Exercise(
        "a function distance(first, second) of two θ of shape (2, 3) that returns a number (the rest is research)",
        function(
            _distance,
            _pairs,
            mistakes=[
                (
                    "This is the plain distance of the six numbers. How far does a target point move, on average?",
                    lambda a, b: np.sqrt(np.sum((a - b) ** 2)),
                ),
                (
                    "This is the square of it: the root is missing.",
                    lambda a, b: _distance(a, b) ** 2,
                ),
                (
                    "The average of x² over -1 to 1 is neither 1 nor 1/2.",
                    lambda a, b: np.sqrt(np.sum((a - b) ** 2 * [0.5, 0.5, 1])),
                ),
            ],
        ),
    ),
]
