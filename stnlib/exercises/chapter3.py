"""Exercises of chapter 3: gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .._extras import require
from ..sampling import affine_grid, affine_sample, affine_sample_jvp
from ._judges import (
    Case,
    Exercise,
    Mistake,
    Wrong,
    choice,
    function,
    kind,
    to_array,
    value,
)

_ROW = np.array([0.0, 3.0, 1.0, 5.0, 5.0, 2.0, 4.0, 0.0])
_AT = np.array([1.25, 3.5, 5.0])

# 3.1 ------------------------------------------------------------------------------------------------------------------


def _by_hand(side: float = 1e-6) -> np.ndarray:
    read = np.interp(_AT, np.arange(8), _ROW)
    return np.array([read, (np.interp(_AT + side, np.arange(8), _ROW) - read) / side])


def _by_hand_mistakes() -> Iterable[Mistake]:
    said = "All is right but the derivative at 5, a knot: this is the one from the left, and ours is from the right."
    yield said, _by_hand(-1e-6)
    middle = (_by_hand(1e-6) + _by_hand(-1e-6)) / 2
    yield (
        "All is right but the derivative at 5, a knot: this is the mean of both sides.",
        middle,
    )
    yield (
        "The derivatives have the wrong sign: right neighbour less left.",
        _by_hand() * [[1], [-1]],
    )
    far = _by_hand()
    far[0, 0] = 0.25 * 3 + 0.75 * 1
    yield "At 1.25 the two weights have changed places.", far


# 3.2 ------------------------------------------------------------------------------------------------------------------


def _judge_lost(answer: Any) -> None:
    got = to_array(answer, (3,))
    if got.shape != (3,) or not np.isin(got, (0, 1)).all():
        raise Wrong(
            "Three times True or False were expected: is nothing lost inside, under zeros, under border?"
        )
    for right, said, why in zip(
        (1, 0, 1),
        got,
        (
            "Inside: what do the four weights of a sample add up to?",
            "Zeros: where does the share go that belongs to a pixel outside?",
            "Border: a position outside reads a pixel of the border. Who gets its gradient?",
        ),
        strict=True,
    ):
        if said != right:
            raise Wrong(why)


# 3.3 ------------------------------------------------------------------------------------------------------------------


def _judge_shortest_test(answer: Any) -> None:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(
            f"It is {kind(answer)}, and a row of pixels and a position were expected: two parts."
        )
    row, x = to_array(answer[0], (-1,)), to_array(answer[1], ())
    if row.ndim != 1 or row.size < 2 or x.ndim:
        raise Wrong("A row of two pixels or more and one position were expected.")
    if not 0 <= x <= row.size - 1:
        raise Wrong(f"The position lies outside the row, whose pixels are 0 to {row.size - 1}.")
    read = np.sum(row * np.maximum(0, np.abs(x - np.arange(row.size))))
    if np.isclose(read, np.interp(x, np.arange(row.size), row)):
        raise Wrong("Here the wrong weight reads what the right one reads.")
    if row.min() <= read <= row.max():
        raise Wrong(
            "Here the wrong weight reads a value between the darkest and the brightest pixel, which one could believe."
        )


# 3.4 ------------------------------------------------------------------------------------------------------------------


def _ramp(step: float = 4.0, row: int = 0) -> np.ndarray:
    gradient = np.zeros((2, 3))
    gradient[row, 2] = 25 * step
    return gradient


def _ramp_mistakes() -> Iterable[Mistake]:
    yield "The other row: the ramp rises along x.", _ramp(row=1)
    yield "The derivative is per pixel here; θ counts in normalised units.", _ramp(1)
    yield "This is for align_corners=True, where two units are W - 1 pixels.", _ramp(3.5)
    yield "The units are twice too long: from -1 to 1 it is two of them.", _ramp(8)
    yield "This is the gradient of one output pixel; the loss adds them all.", _ramp(4 / 25)


# 3.5 ------------------------------------------------------------------------------------------------------------------


def _similarity(s: complex, angle: complex) -> np.ndarray:
    c, t = s * np.cos(angle), s * np.sin(angle)
    return np.array([[c, -t], [t, c]])


def _similarity_vjp(g: np.ndarray, s: float, angle: float, way: int = 1) -> np.ndarray:
    """Differentiate by an imaginary step, which loses no digits."""
    h, g = 1e-20, np.asarray(g)
    by_s = _similarity(s + 1j * h, way * angle).imag / h
    by_angle = way * _similarity(s, way * angle + 1j * h).imag / h
    return np.array([np.sum(g[:, :2] * by_s), np.sum(g[:, :2] * by_angle), g[0, 2], g[1, 2]])


def _gradients_of_theta() -> Iterable[Case]:
    rng = np.random.default_rng(35)
    yield Case("for an angle of 0 and a scale of 1", (rng.normal(size=(2, 3)), 1.0, 0.0))
    yield Case("for an angle of 0 and another scale", (rng.normal(size=(2, 3)), 0.6, 0.0))
    yield Case("for a turn", (rng.normal(size=(2, 3)), 1.0, 0.7))
    yield Case("for a turn and a scale", (rng.normal(size=(2, 3)), 1.7, -2.1))


# 3.7 ------------------------------------------------------------------------------------------------------------------


def _second(square: np.ndarray) -> np.ndarray:
    """By differences, which are exact here."""

    def read(x: float, y: float) -> float:
        return float(np.array([1 - y, y]) @ square @ np.array([1 - x, x]))

    h, x, y = 0.25, 0.5, 0.5
    xx = read(x + h, y) - 2 * read(x, y) + read(x - h, y)
    yy = read(x, y + h) - 2 * read(x, y) + read(x, y - h)
    xy = (read(x + h, y + h) - read(x + h, y - h) - read(x - h, y + h) + read(x - h, y - h)) / 4
    return np.array([[xx, xy], [xy, yy]]) / h**2


def _squares() -> Iterable[Case]:
    rng = np.random.default_rng(37)
    for _ in range(3):
        yield Case("for squares drawn at random", (rng.normal(size=(2, 2)),))


# 3.8 ------------------------------------------------------------------------------------------------------------------


def _gauss_newton(theta: np.ndarray, image: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Build J by forward mode, one direction at a time."""
    return theta + _step(theta, image, goal)


def _step(theta: np.ndarray, image: np.ndarray, goal: np.ndarray) -> np.ndarray:
    size = goal.shape[-2:]
    columns = [
        np.ravel(
            affine_sample_jvp(
                image, theta, size, theta_tangent=direction, padding_mode="border"
            )
        )
        for direction in np.eye(6).reshape(6, 1, 2, 3)
    ]
    output = affine_sample(image, theta, size, padding_mode="border", engine="reference")
    delta = np.linalg.lstsq(np.stack(columns, axis=1), np.ravel(goal - output), rcond=None)[0]
    return delta.reshape(1, 2, 3)


def _registrations() -> Iterable[Case]:
    x, y = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 20))
    image = (np.sin(2 * x + y) + np.cos(3 * y - x) * x)[None, None]
    for about, theta, size in (
        ("from the identity", np.eye(2, 3)[None] * 0.97, (20, 24)),
        (
            "from another θ",
            np.array([[[0.8137, 0.1071, 0.0513], [-0.2091, 0.7173, -0.1117]]]),
            (20, 24),
        ),
        (
            "for an output of another size",
            np.array([[[0.7119, 0.2037, 0.0171], [0.1093, 0.8031, 0.1057]]]),
            (9, 13),
        ),
    ):
        goal = affine_sample(
            image, theta + 0.03, size, padding_mode="border", engine="reference"
        )
        yield Case(about, (theta, image, goal))


# 3.9 ------------------------------------------------------------------------------------------------------------------


def _judge_forward(answer: Any) -> None:
    torch = require("torch", "torch", "exercise 3.9")
    matrix = torch.tensor(np.random.default_rng(39).normal(size=(5, 3)))

    def tall(x: Any) -> Any:
        return torch.sin(matrix @ x)

    def square(x: Any) -> Any:
        return torch.tanh(matrix[:3] @ x)

    def cases() -> Iterable[Case]:
        rng = np.random.default_rng(39)
        for about, f in (
            ("for a map of 3 numbers to 3", square),
            ("for a map of 3 numbers to 5", tall),
        ):
            yield Case(
                about, (f, torch.tensor(rng.normal(size=3)), torch.tensor(rng.normal(size=3)))
            )

    def reference(f: Any, x: Any, v: Any) -> Any:
        return (torch.autograd.functional.jacobian(f, x) @ v).numpy()

    def backward(f: Any, x: Any, v: Any) -> Any:
        jacobian = torch.autograd.functional.jacobian(f, x)
        return (jacobian.T @ v).numpy() if len(jacobian) == len(v) else np.full(3, np.nan)

    judge = function(
        reference,
        cases,
        mistakes=[("This is the value, and not its change.", lambda f, x, v: f(x).numpy())],
    )
    try:
        judge(answer)
    except Wrong as wrong:
        if callable(answer):
            case = next(iter(cases()))
            try:
                got = to_array(answer(*case.args), (3,))
            except Exception:
                raise wrong from None
            if got.shape == (3,) and np.allclose(got, backward(*case.args)):
                raise Wrong(
                    "This is v J, one backward pass: a vector-Jacobian product. J v is asked for."
                ) from None
        raise


# 3.10 -----------------------------------------------------------------------------------------------------------------


def _keys(a: float) -> tuple[np.polynomial.Polynomial, np.polynomial.Polynomial]:
    return (
        np.polynomial.Polynomial([1, 0, -(a + 3), a + 2]),
        np.polynomial.Polynomial([-4 * a, 8 * a, -5 * a, a]),
    )


def _bent(
    d: np.ndarray, a: float, order: int = 2, signed: bool = False, absolute: bool = True
) -> np.ndarray:
    near, far = (p.deriv(order) if order else p for p in _keys(a))
    r = np.abs(d)
    at = r if absolute else d
    found = np.where(r < 1, near(at), far(at))
    return np.sign(d) * found if signed else found


def _distances() -> Iterable[Case]:
    d = np.random.default_rng(310).uniform(-2, 2, 60)
    for a in (-0.75, -0.5):
        yield Case("for distances from 0 to 1", (d[(d > 0) & (d < 1)], a))
        yield Case("for distances from 1 to 2", (d[d > 1], a))
        yield Case("for negative distances", (d[d < 0], a))


# 3.11 -----------------------------------------------------------------------------------------------------------------


def _judge_hessian(answer: Any) -> None:
    torch = require("torch", "torch", "exercise 3.11")
    mix = torch.tensor(np.random.default_rng(311).normal(size=(4, 4)))

    def loss(theta: Any) -> Any:
        return torch.sin(mix @ theta).square().sum() + (theta**4).sum()

    def hessian(f: Any, theta: Any) -> Any:
        return torch.autograd.functional.hessian(f, theta)

    def gradient(f: Any, theta: Any) -> Any:
        return torch.autograd.functional.jacobian(f, theta)

    def cases() -> Iterable[Case]:
        rng = np.random.default_rng(312)
        for _ in range(2):
            yield Case(
                "for a loss of four numbers",
                (loss, torch.tensor(rng.normal(size=4)), torch.tensor(rng.normal(size=4))),
            )

    function(
        lambda f, theta, v: (hessian(f, theta) @ v).numpy(),
        cases,
        mistakes=[
            ("This is the gradient.", lambda f, theta, v: gradient(f, theta).numpy()),
            (
                "This is how much the loss changes along v, a slope: the gradient is to be differentiated.",
                lambda f, theta, v: (gradient(f, theta) @ v).numpy(),
            ),
            (
                "This is the curvature along v, a number: v H v. H v is asked for.",
                lambda f, theta, v: (v @ hessian(f, theta) @ v).numpy(),
            ),
            (
                "It takes the diagonal of H alone.",
                lambda f, theta, v: (hessian(f, theta).diagonal() * v).numpy(),
            ),
        ],
    )(answer)


# 3.12 -----------------------------------------------------------------------------------------------------------------


def _scan(
    grey: float, theta: np.ndarray, size: tuple[int, int], channels: int = 1
) -> tuple[Any, ...]:
    image = np.random.default_rng(312).random((1, channels, 8, 10))
    scan = affine_sample(
        image, theta, size, padding_mode="fill", fill_value=grey, engine="reference"
    )
    return scan, image, theta


def _share(image: np.ndarray, theta: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return the share of the grey in each output pixel, pixel by pixel."""
    h, w = image.shape[-2:]
    grid = affine_grid(theta, size)[0]
    x, y = (grid[..., 0] + 1) * w / 2 - 0.5, (grid[..., 1] + 1) * h / 2 - 0.5
    inside = [
        sum(np.maximum(0, 1 - np.abs(at - m)) for m in range(n)) for at, n in ((x, w), (y, h))
    ]
    return 1 - inside[0] * inside[1]


def _grey(scan: np.ndarray, image: np.ndarray, theta: np.ndarray) -> float:
    size = scan.shape[-2:]
    rest = scan - affine_sample(image, theta, size, engine="reference")
    share = np.broadcast_to(_share(image, theta, size), rest.shape)
    return float(np.sum(rest * share) / np.sum(share**2))


def _outside(scan: np.ndarray, image: np.ndarray, theta: np.ndarray) -> float:
    share = np.broadcast_to(_share(image, theta, scan.shape[-2:]), scan.shape)
    rest = scan - affine_sample(image, theta, scan.shape[-2:], engine="reference")
    return float(np.sum(rest * share) / np.sum(share))


def _scans() -> Iterable[Case]:
    c, s = np.cos(0.5), np.sin(0.5)
    turned = np.array([[[c, -s, 0.0], [s, c, 0.0]]])
    small = np.array([[[1.6, 0.0, 0.3], [0.2, 1.5, 0.0]]])
    yield Case("for a picture that has been turned", _scan(0.37, turned, (8, 10)))
    yield Case("for a dark grey", _scan(0.05, turned, (8, 10)))
    yield Case("for an output of another size", _scan(0.8, small, (13, 9)))


EXERCISES = [
    Exercise(
        "an array of shape (2, 3): the three values, and below them the three derivatives",
        value(_by_hand, mistakes=_by_hand_mistakes, names=("the values", "the derivatives")),
    ),
    Exercise(
        "three times True or False: is nothing lost inside the image, outside under zeros, and outside under border",
        _judge_lost,
    ),
    Exercise("a row of pixels and a position: two parts", _judge_shortest_test),
    Exercise(
        "θ's gradient, an array of shape (2, 3), for W = 8 and an output of 5 × 5 pixels",
        value(_ramp, mistakes=_ramp_mistakes),
    ),
    Exercise(
        "a function similarity_vjp(grad_theta, s, angle) that returns the four derivatives; grad_theta is (2, 3)",
        function(
            _similarity_vjp,
            _gradients_of_theta,
            mistakes=[
                (
                    "The angle turns the other way.",
                    lambda g, s, angle: _similarity_vjp(g, s, angle, -1),
                ),
                (
                    "The derivative with respect to the angle has the wrong sign.",
                    lambda g, s, angle: _similarity_vjp(g, s, angle) * [1, -1, 1, 1],
                ),
                (
                    "The scale is missing in the derivative with respect to the angle.",
                    lambda g, s, angle: _similarity_vjp(g, s, angle) / [1, s, 1, 1],
                ),
                (
                    "The derivative with respect to s still has the factor s.",
                    lambda g, s, angle: _similarity_vjp(g, s, angle) * [s, 1, 1, 1],
                ),
                (
                    "It takes the angle in degrees, and it comes in radians.",
                    lambda g, s, angle: _similarity_vjp(g, s, np.deg2rad(angle)),
                ),
            ],
            names=("s", "the angle", "t_x", "t_y"),
        ),
    ),
    Exercise(
        'a word: which gradient vanishes, "grid", "image", "both" or "neither"',
        choice(
            "grid",
            {
                "image": "Each sample reads one pixel, and its value changes as that pixel does.",
                "both": "Each sample reads one pixel, and its value changes as that pixel does.",
                "neither": "Move a position by a tenth of a pixel, inside a step: what happens to the value?",
            },
        ),
    ),
    Exercise(
        "a function second_derivatives(square) of an array [[U_00, U_01], [U_10, U_11]] that returns an array of "
        "shape (2, 2)",
        function(
            _second,
            _squares,
            mistakes=[
                (
                    "They stand on the diagonal: that would be a peak or a hollow. Along x alone, is it not a "
                    "straight line?",
                    lambda u: np.eye(2) * _second(u)[0, 1],
                ),
                (
                    "Along x alone the value is a straight line; these are slopes.",
                    lambda u: np.diag([u[0, 1] - u[0, 0], u[1, 0] - u[0, 0]]),
                ),
            ],
        ),
    ),
    Exercise(
        "a function gauss_newton_step(theta, image, goal) that returns the next theta, of shape (1, 2, 3), "
        "with border padding and an output of the goal's size",
        function(
            _gauss_newton,
            _registrations,
            mistakes=[
                (
                    "It steps away from the goal: V + J δ - T is to be small, so J δ has to be T - V.",
                    lambda *a: a[0] - _step(*a),
                ),
                ("This is the step alone; θ is to be added.", _step),
                (
                    "x and y of the columns have changed places.",
                    lambda *a: a[0] + _step(*a)[:, ::-1],
                ),
            ],
            rtol=1e-5,
        ),
    ),
    Exercise(
        "a function forward(f, x, v) that returns J v for a function f of PyTorch tensors, by two calls of "
        "torch.autograd.grad",
        _judge_forward,
    ),
    Exercise(
        "a function bent(d, a) that returns the second derivative, for an array of distances d",
        function(
            _bent,
            _distances,
            mistakes=[
                ("This is the first derivative.", lambda d, a: _bent(d, a, 1, signed=True)),
                (
                    "This is the first derivative, without the sign of d.",
                    lambda d, a: _bent(d, a, 1),
                ),
                (
                    "It is odd, and the second derivative of an even function is even: drop the sign of d.",
                    lambda d, a: _bent(d, a, 2, signed=True),
                ),
                (
                    "It is right for positive distances: it takes d where r = |d| belongs.",
                    lambda d, a: _bent(d, a, 2, absolute=False),
                ),
            ],
        ),
    ),
    Exercise(
        "a function hessian_times(loss, theta, v) that returns H v, for a loss of a PyTorch tensor",
        _judge_hessian,
    ),
    Exercise(
        "a function find_grey(scan, image, theta) that returns the grey",
        function(
            _grey,
            _scans,
            mistakes=[
                ("The sign: a step against the gradient, from 0.", lambda *a: -_grey(*a)),
                (
                    "It divides by the sum of the shares, and the curvature is the sum of their squares.",
                    _outside,
                ),
            ],
            rtol=1e-5,
        ),
    ),
    Exercise("research"),
]
