"""Sampling kernels k(d), their derivatives, and the pixels that a sample reads along one axis (chapters 2 and 3)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import Polynomial

from ._arrays import Array, require_number
from .padding import extend, tame


class Kernel:
    """A sampling kernel along one axis: the k of equation (3) of Jaderberg et al. (2015).

    Subclass it to make one of your own. Say how far it reaches in ``support``, and what it is in ``value``; give
    ``derivative`` to learn through its coordinates, and ``second_derivative`` to differentiate twice. Hand an
    instance to the samplers as ``mode``.

    Each method takes ``d = x - m``, the distances from pixels m to positions x, in pixels, with
    ``-support <= d <= support``, and the array library ``xp`` to compute with. At a kink or jump, answer as from the
    right, d + 0.

    Attributes
    ----------
    support : float
        Half of the kernel's width, in pixels: a whole number, or a whole number and a half.
    normalised : bool
        True if a sample's weights are to be divided by their sum. For a kernel whose shifted copies do not quite add
        up to 1.
    poles : tuple of float
        Poles of the prefilter that makes the kernel interpolate; empty for a kernel that needs none.

    Examples
    --------
    >>> import stnlib
    >>> class Cosine(Kernel):
    ...     support = 1
    ...
    ...     def value(self, d, xp):
    ...         return (1 + xp.cos(xp.pi * d)) / 2
    >>> image, grid = np.array([[[[0.0, 10.0]]]]), np.array([[[[-0.25, 0.0]]]])
    >>> stnlib.grid_sample(image, grid, mode=Cosine()).round(3), stnlib.grid_sample(image, grid)
    (array([[[[1.464]]]]), array([[[[2.5]]]]))
    """

    support: float
    normalised: bool = False
    poles: tuple[float, ...] = ()
    key: str

    def __new__(cls, *args: Any, **kwargs: Any) -> Kernel:  # noqa: D102
        self = super().__new__(cls)
        self._register(f"{cls.__qualname__}-{next(_NUMBERS)}")
        return self

    def _register(self, key: str) -> None:
        """Give the kernel a name by which a compiled graph, which cannot hold the object, finds it again."""
        object.__setattr__(self, "key", key)
        BY_KEY[key] = self

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash(type(self))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "key"}

    @property
    def taps(self) -> int:
        """How many pixels a sample reads along the axis."""
        return int(2 * self.support)

    def first(self, x: Array, xp: Any) -> Array:
        """Return the first pixel that a sample at ``x`` reads: the least whole m with x - m < support."""
        below = xp.floor(x)
        if self.support % 1 == 0:
            return below - (self.support - 1)
        return below - (self.support - 0.5) + xp.astype(x - below >= 0.5, x.dtype)

    def value(self, d: Array, xp: Any) -> Array:
        """Return k(d)."""
        raise NotImplementedError(
            f"{type(self).__name__}: give the kernel a method value(d, xp)"
        )

    def derivative(self, d: Array, xp: Any) -> Array:
        """Return k'(d)."""
        raise NotImplementedError(
            f"{type(self).__name__}: give the kernel a method derivative(d, xp) to differentiate through it"
        )

    def second_derivative(self, d: Array, xp: Any) -> Array:
        """Return k''(d)."""
        raise NotImplementedError(
            f"{type(self).__name__}: give the kernel a method second_derivative(d, xp) to differentiate twice"
        )


_NUMBERS = itertools.count(1)
BY_KEY: dict[str, Kernel] = {}


class Nearest(Kernel):
    """The nearest-pixel kernel, equation (4) of the paper: 1 at the nearest pixel, 0 elsewhere.

    A position halfway between two pixels goes to the even one, as in PyTorch.
    """

    support = 0.5

    def first(self, x: Array, xp: Any) -> Array:
        """Return the nearest pixel."""
        return xp.round(x)

    def value(self, d: Array, xp: Any) -> Array:
        """Return k(d): 1."""
        return xp.ones_like(d)

    def derivative(self, d: Array, xp: Any) -> Array:
        """Return k'(d): 0, so that nothing is learnt through this kernel's coordinates."""
        return xp.zeros_like(d)

    second_derivative = derivative


class Bilinear(Kernel):
    """The linear kernel along one axis, equation (5) of the paper: k(d) = max(0, 1 - abs(d))."""

    support = 1

    def value(self, d: Array, xp: Any) -> Array:
        """Return k(d)."""
        return xp.where(d < 0, 1 + d, 1 - d)

    def derivative(self, d: Array, xp: Any) -> Array:
        """Return k'(d): +1 before the peak, -1 from it on. At the knot d = 0 it is the derivative from the right."""
        return xp.where(d < 0, xp.ones_like(d), -xp.ones_like(d))

    def second_derivative(self, d: Array, xp: Any) -> Array:
        """Return k''(d): 0, as everywhere but at the knots."""
        return xp.zeros_like(d)


class _Piecewise(Kernel):
    """A kernel of polynomial pieces, each one pixel wide: piece i in u = d + support - i, from 0 to 1."""

    pieces: tuple[Polynomial, ...]

    def _evaluate(self, d: Array, order: int, xp: Any) -> Array:
        u = d + self.support
        total = 0.0 * d
        for i, piece in enumerate(self.pieces):
            value = 0.0 * d
            for coefficient in reversed(piece.deriv(order).coef.tolist()):
                value = value * (u - i) + coefficient
            total = value if i == 0 else xp.where(u < i, total, value)
        return total

    def value(self, d: Array, xp: Any) -> Array:
        """Return k(d)."""
        return self._evaluate(d, 0, xp)

    def derivative(self, d: Array, xp: Any) -> Array:
        """Return k'(d)."""
        return self._evaluate(d, 1, xp)

    def second_derivative(self, d: Array, xp: Any) -> Array:
        """Return k''(d)."""
        return self._evaluate(d, 2, xp)


@dataclass(frozen=True)
class Bicubic(_Piecewise):
    """Keys' cubic convolution kernel: four pixels an axis, interpolating, with a continuous derivative.

    Parameters
    ----------
    a : float, default -0.75
        Slope of the kernel at distance 1. PyTorch and OpenCV take -0.75. With -0.5 it reproduces parabolas.

    Raises
    ------
    TypeError, ValueError
        If a is not a finite number.

    Notes
    -----
    Robert Keys, Cubic convolution interpolation for digital image processing, 1981, equation (4).
    """

    a: float = -0.75
    support = 2
    pieces: tuple[Polynomial, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_number(self.a, "a", "a finite number", math.isfinite)
        a = float(self.a)
        near = Polynomial([1, 0, -(a + 3), a + 2])  # in |d|, from 0 to 1
        far = Polynomial([-4 * a, 8 * a, -5 * a, a])  # in |d|, from 1 to 2
        distances = (far, [2, -1]), (near, [1, -1]), (near, [0, 1]), (far, [1, 1])
        pieces = tuple(piece(Polynomial(distance)) for piece, distance in distances)
        object.__setattr__(self, "pieces", pieces)
        self._register(repr(self))


@dataclass(frozen=True)
class BSpline(_Piecewise):
    """A B-spline of order 2 to 5, with the prefilter that makes it interpolate.

    Parameters
    ----------
    order : {2, 3, 4, 5}
        Degree of the pieces, as in ``scipy.ndimage``. Order 3 has a continuous second derivative.

    Raises
    ------
    TypeError, ValueError
        If the order is another.

    Notes
    -----
    M. Unser, Splines: a perfect fit for signal and image processing, 1999. The pixels of the image are not the
    spline's coefficients: `stnlib.prefilter.prefilter` computes these, and the samplers call it.
    """

    order: int = 3
    support: float = field(init=False, repr=False, compare=False)
    pieces: tuple[Polynomial, ...] = field(init=False, repr=False, compare=False)
    poles: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        n = self.order
        require_number(n, "order", "2, 3, 4 or 5", lambda n: n in (2, 3, 4, 5))
        pieces = [Polynomial([1.0])]
        for degree in range(1, n + 1):  # the recursion of Cox and de Boor
            rising = [Polynomial([i, 1]) / degree for i in range(degree + 1)]
            falling = [Polynomial([degree + 1 - i, -1]) / degree for i in range(degree + 1)]
            none = Polynomial([0.0])
            pieces = [
                up * here + down * before
                for up, down, here, before in zip(
                    rising, falling, [*pieces, none], [none, *pieces], strict=True
                )
            ]
        object.__setattr__(self, "support", (n + 1) / 2)
        object.__setattr__(self, "pieces", tuple(pieces))
        reach = range(-(n // 2), n // 2 + 1)
        samples = [float(self.value(np.asarray(float(d)), np)) for d in reach]
        roots = np.roots(samples).real  # they come in pairs, z and 1/z
        object.__setattr__(
            self, "poles", tuple(sorted(z for z in roots.tolist() if abs(z) < 1))
        )
        self._register(repr(self))


@dataclass(frozen=True)
class Gaussian(Kernel):
    """A Gaussian, cut off at six standard deviations. It smooths: it does not return the pixels at the pixels.

    Parameters
    ----------
    sigma : float, default 0.5
        Standard deviation, in pixels, at least 0.1.

    Raises
    ------
    TypeError, ValueError
        If sigma is not such a number.
    """

    sigma: float = 0.5
    support: float = field(init=False, repr=False, compare=False)
    normalised = True

    def __post_init__(self) -> None:
        expected = "a number of pixels of at least 0.1"
        require_number(self.sigma, "sigma", expected, lambda s: 0.1 <= s < math.inf)
        object.__setattr__(self, "support", math.ceil(6 * self.sigma))
        self._register(repr(self))

    def value(self, d: Array, xp: Any) -> Array:
        """Return k(d), but for a factor: the weights are divided by their sum."""
        return xp.exp(-0.5 * (d / self.sigma) ** 2)

    def derivative(self, d: Array, xp: Any) -> Array:
        """Return k'(d), with the same factor."""
        return -d / self.sigma**2 * self.value(d, xp)

    def second_derivative(self, d: Array, xp: Any) -> Array:
        """Return k''(d), with the same factor."""
        return ((d / self.sigma) ** 2 - 1) / self.sigma**2 * self.value(d, xp)


@dataclass(frozen=True)
class Lanczos(Kernel):
    """Lanczos' windowed sinc, k(d) = sinc(d) sinc(d / a): interpolating, sharp, with a little ringing.

    Parameters
    ----------
    a : int, default 3
        Pixels to either side.

    Raises
    ------
    TypeError, ValueError
        If a is not a whole number of at least 1.
    """

    a: int = 3
    support: float = field(init=False, repr=False, compare=False)
    normalised = True

    def __post_init__(self) -> None:
        expected = "a whole number of at least 1"
        require_number(self.a, "a", expected, lambda a: 1 <= a < math.inf and int(a) == a)
        object.__setattr__(self, "support", int(self.a))
        self._register(repr(self))

    def value(self, d: Array, xp: Any) -> Array:
        """Return k(d)."""
        return _sinc(d, 0, xp) * _sinc(d / self.a, 0, xp)

    def derivative(self, d: Array, xp: Any) -> Array:
        """Return k'(d)."""
        wide = d / self.a
        falling = _sinc(d, 1, xp) * _sinc(wide, 0, xp)
        return falling + _sinc(d, 0, xp) * _sinc(wide, 1, xp) / self.a

    def second_derivative(self, d: Array, xp: Any) -> Array:
        """Return k''(d)."""
        wide = d / self.a
        bent = _sinc(d, 2, xp) * _sinc(wide, 0, xp)
        both = 2 * _sinc(d, 1, xp) * _sinc(wide, 1, xp) / self.a
        return bent + both + _sinc(d, 0, xp) * _sinc(wide, 2, xp) / self.a**2


def _sinc(d: Array, order: int, xp: Any) -> Array:
    """Return a derivative of sin(πd)/(πd) = ∫ cos(πdt) dt, t from 0 to 1, by Gauss' rule: no division by d."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    total = 0.0 * d
    for t, w in zip((math.pi * (nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True):
        total = total + w * t**order * xp.cos(t * d + order * math.pi / 2)
    return total


KERNELS: dict[str, Kernel] = {
    "nearest": Nearest(),
    "bilinear": Bilinear(),
    "bicubic": Bicubic(),
    "bspline2": BSpline(2),
    "bspline3": BSpline(3),
    "bspline4": BSpline(4),
    "bspline5": BSpline(5),
    "gaussian": Gaussian(),
    "lanczos": Lanczos(),
}
for _name, _kernel in KERNELS.items():
    _kernel._register(_name)


class Tap(NamedTuple):
    """One pixel that a sample reads along one axis, for every sample at once."""

    index: Array  # which pixel of the image, 0 to size - 1
    inside: Array | None  # False where no pixel stands there; None where one always does
    weights: tuple[Array, ...]  # k(x - m), k'(x - m), k''(x - m), as many as were asked for


def taps(
    x: Array,
    size: int,
    *,
    kernel: Kernel,
    padding_mode: str,
    align_corners: bool,
    order: int = 0,
    xp: Any,
) -> list[Tap]:
    """Return the pixels that samples at ``x`` read along one axis, with their weights and the weights' derivatives.

    Weights are computed from the position before any index is clipped, reflected or dropped: the padding says which
    value stands at a pixel outside the image, and never moves the sample.

    Parameters
    ----------
    x : array of float64, any shape
        Positions along the axis, in pixels.
    size : int
        Number of pixels along the axis.
    kernel : Kernel
    padding_mode, align_corners
        As for `stnlib.padding.extend`.
    order : {0, 1, 2}, default 0
        The highest derivative of the weights, with respect to x, that is wanted.
    xp : namespace

    Returns
    -------
    list of Tap
        Arrays of the shape of ``x``. At a NaN position the weights are NaN.
    """
    x = tame(x, size, padding_mode, align_corners, xp)
    unknown = xp.isnan(x)
    first = kernel.first(x, xp)
    pixels = [first + offset for offset in range(kernel.taps)]
    weights = [[k(x - m, xp) for m in pixels] for k in _derivatives(kernel, order)]
    if kernel.normalised:
        weights = _normalise(weights)
    result = []
    for m, *orders in zip(pixels, *weights, strict=True):
        m = xp.where(unknown, 0.0, m)
        index, inside = extend(m, size, padding_mode, align_corners, xp)
        finished = tuple(xp.where(unknown, x, weight) for weight in orders)
        result.append(Tap(xp.astype(index, xp.int64), inside, finished))
    return result


def _derivatives(kernel: Kernel, order: int) -> list[Any]:
    if order > 2:
        raise NotImplementedError(
            f"the samplers differentiate twice, and a derivative of order {order} was asked for"
        )
    return [kernel.value, kernel.derivative, kernel.second_derivative][: order + 1]


def _normalise(weights: list[list[Array]]) -> list[list[Array]]:
    """Divide weights by their sum, and differentiate the quotients: k = ws, so k' = w's + ws', and so on."""
    sums = [sum(k) for k in weights]
    result: list[list[Array]] = []
    for order, k in enumerate(weights):
        lower = [
            [math.comb(order, j) * w * sums[order - j] for w in result[j]] for j in range(order)
        ]
        result.append(
            [(value - sum(terms)) / sums[0] for value, *terms in zip(k, *lower, strict=True)]
        )
    return result
