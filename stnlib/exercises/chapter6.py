"""Exercises of chapter 6: beyond affine transforms."""

from __future__ import annotations

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
    value,
)

# 6.1 ------------------------------------------------------------------------------------------------------------------

_FAMILIES = (
    *("rigid", "similarity", "affine", "projective"),
    *("rigid in space", "similarity in space", "affine in space"),
)


def _pair_mistakes() -> Iterable[Mistake]:
    yield (
        "In space two points can still be turned about the line through them.",
        [2, 2, 3, 4, 2, 3, 4],
    )
    yield (
        "Two points do not fix a rigid transform of space, nor a similarity.",
        [2, 2, 3, 4, 2, 2, 4],
    )
    yield (
        "A pair of points gives an equation for each coordinate, not one.",
        [3, 4, 6, 8, 6, 7, 12],
    )


def _parameter_mistakes() -> Iterable[Mistake]:
    yield (
        "A common factor of the nine entries of a projective matrix changes nothing.",
        [3, 4, 6, 9, 6, 7, 12],
    )
    yield "In space a rotation has three angles.", [3, 4, 6, 8, 4, 5, 12]
    yield "In space there is an axis more: a 3 × 4 matrix.", [3, 4, 6, 8, 6, 7, 9]


# 6.2 ------------------------------------------------------------------------------------------------------------------

_POINTS = np.array([[-1.0, -1.0], [1.0, 1.0], [0.3, -0.6]])


def _apply(family: Any) -> Callable[[np.ndarray, np.ndarray], Any]:
    return lambda theta, points: family.apply(theta, points)


def _family(answer: Any, parameters: int, why: str) -> Any:
    family = answer() if isinstance(answer, type) else answer
    for name in ("num_parameters", "identity", "apply"):
        if not hasattr(family, name):
            raise Wrong(f"It is {kind(answer)}, and a family was expected; it has no {name}.")
    if family.num_parameters != parameters:
        raise Wrong(f"It has {family.num_parameters} parameters. {why}")
    return family


def _sliding(
    theta: np.ndarray, points: np.ndarray, x: float = 1 / 3, y: float = 1.0
) -> np.ndarray:
    moved = [[[x * px + t, y * py] for px, py in points] for (t,) in theta]
    return np.array(moved)


def _judge_sliding(answer: Any) -> None:
    family = _family(answer, 1, "What is free is the place along the belt.")
    function(
        _sliding,
        lambda: [
            Case("in the middle", (np.zeros((1, 1)), _POINTS)),
            Case("elsewhere", (np.array([[0.5], [-0.6]]), _POINTS)),
        ],
        mistakes=[
            (
                "The window is three times as wide as the frame, and not a third.",
                lambda t, p: _sliding(t, p, 3.0),
            ),
            (
                "The window has a third of the height, too.",
                lambda t, p: _sliding(t, p, y=1 / 3),
            ),
            ("The window has the whole width.", lambda t, p: _sliding(t, p, 1.0)),
            (
                "The belt runs along x, and this window slides up and down.",
                lambda t, p: _sliding(t, p[:, ::-1])[..., ::-1],
            ),
            (
                "It slides along y.",
                lambda t, p: np.array([[[px / 3, py + s] for px, py in p] for (s,) in t]),
            ),
        ],
    )(_apply(family))


# 6.3 ------------------------------------------------------------------------------------------------------------------


def _misses(h6: float, h7: float) -> bool:
    return min(h6 * x + h7 * y + 1 for x in (-1, 1) for y in (-1, 1)) > 0


def _horizons() -> Iterable[Case]:
    for h6, h7, about in (
        (0.0, 0.0, "without any perspective"),
        (0.6, 0.3, "for small values"),
        (0.7, 0.6, "for values that are each below 1"),
        (-0.7, 0.6, "for values of unlike signs"),
        (-0.2, -0.5, "for negative values"),
        (-0.9, -0.4, "for negative values"),
        (0.5, 1.2, "for large values"),
        (0.0, -1.3, "for large values"),
    ):
        yield Case(about, (h6, h7))


# 6.4 ------------------------------------------------------------------------------------------------------------------


def _lens(theta: np.ndarray, points: np.ndarray, power: int = 2, way: int = 1) -> np.ndarray:
    moved = []
    for (kappa,) in theta:
        for x, y in points:
            r = np.hypot(x, y)
            far, angle = r * (1 + way * kappa * r**power), np.arctan2(y, x)
            moved.append([far * np.cos(angle), far * np.sin(angle)])
    return np.array(moved).reshape(len(theta), len(points), 2)


def _judge_lens(answer: Any) -> None:
    family = _family(answer, 1, "κ is one.")
    compare(family.identity(), [0.0], [("A lens with κ = 1 bends.", [1.0])])
    function(
        _lens,
        lambda: [
            Case("for κ = 0", (np.zeros((1, 1)), _POINTS)),
            Case("for one κ", (np.array([[0.15]]), _POINTS)),
            Case("for a batch", (np.array([[0.15], [-0.3], [0.4]]), _POINTS)),
        ],
        mistakes=[
            ("κ is multiplied by r, and not by its square.", lambda t, p: _lens(t, p, 1)),
            ("κ is multiplied by the fourth power of r.", lambda t, p: _lens(t, p, 4)),
            ("The sign of κ is the other way round.", lambda t, p: _lens(t, p, way=-1)),
        ],
    )(_apply(family))


# 6.5 ------------------------------------------------------------------------------------------------------------------


def _about(scale: float, angle: float, centre: np.ndarray) -> np.ndarray:
    """Return a similarity about a point that stays."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    left = np.array([[c, -s], [s, c]])
    return np.c_[left, centre - left @ centre]


def _times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.c_[a[:, :2] @ b[:, :2], a[:, :2] @ b[:, 2] + a[:, 2]]


def _inverse(matrix: np.ndarray) -> np.ndarray:
    left = np.linalg.inv(matrix[:, :2])
    return np.c_[left, -left @ matrix[:, 2]]


_WAYS = [  # scale and angle and the point that stays; the first frame; the time
    ("at the start", 2.0, 0.9, (0.2, -0.1), np.eye(2, 3), 0.0),
    ("at the end", 2.0, 0.9, (0.2, -0.1), np.eye(2, 3), 1.0),
    ("for a turn from the identity", 1.0, 1.2, (0.0, 0.0), np.eye(2, 3), 0.5),
    ("for a turn with a zoom", 4.0, 1.0, (0.0, 0.0), np.eye(2, 3), 0.5),
    (
        "from another first frame",
        1.5,
        -0.8,
        (0.3, 0.4),
        np.array([[0.9, 0.3, 0.1], [-0.2, 1.1, -0.4]]),
        0.25,
    ),
]


def _ways() -> Iterable[Case]:
    for about, scale, angle, centre, first, t in _WAYS:
        last = _times(_about(scale, angle, np.array(centre)), np.asarray(first, float))
        yield Case(about, (np.asarray(first, float), last, t))


def _between(first: np.ndarray, last: np.ndarray, t: float) -> np.ndarray:
    """Find the similarity that leads from the first to the last, and go a part of the way."""
    way = _times(last, _inverse(first))
    scale, angle = np.hypot(way[0, 0], way[1, 0]), np.arctan2(way[1, 0], way[0, 0])
    centre = np.linalg.lstsq(np.eye(2) - way[:, :2], way[:, 2], rcond=None)[0]
    return _times(_about(scale**t, t * angle, centre), first)


def _wrong_side(first: np.ndarray, last: np.ndarray, t: float) -> np.ndarray:
    way = _times(last, _inverse(first))
    return _times(first, _between(np.eye(2, 3), way, t))


# 6.6 ------------------------------------------------------------------------------------------------------------------


def _flip_mistakes() -> Iterable[Mistake]:
    yield "At 1 the corner is halfway along the edge, and the triangle is half as large.", 1.0
    yield "It moves to the right, along the upper edge.", -2.0


EXERCISES = [
    Exercise(
        "two lists of seven numbers: the parameters, and the pairs, each for rigid, similarity, affine and projective "
        "in the plane, and for the first three in space",
        parts(
            {
                "the parameters": value(
                    lambda: [3, 4, 6, 8, 6, 7, 12],
                    mistakes=_parameter_mistakes,
                    names=_FAMILIES,
                ),
                "the pairs": value(
                    lambda: [2, 2, 3, 4, 3, 3, 4], mistakes=_pair_mistakes, names=_FAMILIES
                ),
            }
        ),
    ),
    Exercise("a family, such as an Affine made of a table", _judge_sliding),
    Exercise(
        "a function misses(h6, h7) that returns True or False",
        function(
            _misses,
            _horizons,
            mistakes=[
                (
                    "Each of the two below 1 is not enough: which corner comes nearest to the horizon?",
                    lambda a, b: abs(a) < 1 and abs(b) < 1,
                ),
                (
                    "This is a circle, as if the output were round. Look at its corners.",
                    lambda a, b: a * a + b * b < 1,
                ),
                (
                    "Right for positive values. Negative ones bring the horizon from the other side.",
                    lambda a, b: a + b < 1,
                ),
                (
                    "It is the other way round: True where the horizon misses.",
                    lambda a, b: not _misses(a, b),
                ),
            ],
        ),
    ),
    Exercise("a family such as Lens, the class or an instance of it", _judge_lens),
    Exercise(
        "a function between(first, last, t) that returns a matrix of shape (2, 3), from the first at t = 0 to the "
        "last at t = 1",
        function(
            _between,
            _ways,
            mistakes=[
                (
                    "It averages the entries, which flattens turns.",
                    lambda a, b, t: (1 - t) * a + t * b,
                ),
                (
                    "It runs backwards: at t = 0 it is to be the first.",
                    lambda a, b, t: _between(a, b, 1 - t),
                ),
                (
                    "Right from the identity, and from others the way is taken on the wrong side: the last "
                    "one is the way times the first.",
                    _wrong_side,
                ),
                (
                    "It ends at the way alone: the first transform is missing.",
                    lambda a, b, t: _between(np.eye(2, 3), _times(b, _inverse(a)), t),
                ),
            ],
        ),
    ),
    Exercise(
        'a number and a word: the s at which the upper triangle turns over, and "never", "earlier" or "later" for '
        "the lower one",
        parts(
            {
                "the upper one": value(lambda: 2.0, mistakes=_flip_mistakes),
                "the lower one": choice(
                    "never",
                    {
                        "earlier": "Which side of the lower triangle does the moved corner stand over?",
                        "later": "Which side of the lower triangle does the moved corner stand over?",
                    },
                ),
            }
        ),
    ),
    Exercise("a measurement"),
    Exercise("a measurement"),
    Exercise("an experiment"),
    Exercise("an experiment"),
    Exercise("research"),
]
