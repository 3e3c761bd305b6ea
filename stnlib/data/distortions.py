"""The paper's distortions of MNIST (appendix A.3): R, RTS, P, E and TC.

Rotated; rotated, translated and scaled; projective; elastic; translated and cluttered. A distortion first draws all
that is random, `BaseDistortion.theta`, and then distorts images by it, `BaseDistortion.apply`: two steps, so that a
test set can be distorted again, and the truth about it be known.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import _arrays, transforms
from .._arrays import (
    Array,
    require_float,
    require_length,
    require_number,
    require_shape,
    require_size,
)
from ..coordinates import normalise
from ..sampling import affine_sample, grid_sample

DIGIT = 28  # pixels along each side of an MNIST image

LEAST_CORNER = 0.05
"""Of each triangle of a corner and its neighbours, this part of the area remains, or the corners are drawn again."""


@dataclass(frozen=True)
class BaseDistortion:
    """What a distortion is: something that draws what is random, and distorts images by it.

    A distortion of one's own has `theta` and `apply`; calling it does one after the other.

    Parameters
    ----------
    size : (H, W)
        Size of the distorted images, in pixels.

    Raises
    ------
    TypeError, ValueError
        If size is not such a size.

    Examples
    --------
    >>> class Darker(BaseDistortion):
    ...     def theta(self, n, rng):
    ...         return rng.uniform(0.5, 1.0, n)
    ...
    ...     def apply(self, images, theta):
    ...         return images * theta.astype(images.dtype)[:, None, None, None]
    >>> Darker((28, 28))(np.zeros((5, 1, 28, 28), np.float32), np.random.default_rng(0)).shape
    (5, 1, 28, 28)
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        require_size(self.size, "size")

    def theta(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw what is random about n distorted images.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator
            Its seed makes the draw repeatable.

        Returns
        -------
        array, the first axis of length n
            A part of it, ``theta[a:b]``, distorts a part of the images.

        Raises
        ------
        TypeError, ValueError
            If n is not a whole number of at least 0, or rng not a generator.
        """
        raise NotImplementedError(f"{type(self).__name__}.theta")

    def apply(self, images: Array, theta: np.ndarray) -> Array:
        """Distort images by what `theta` drew.

        Parameters
        ----------
        images : array of float32 or float64, shape (N, C, 28, 28)
            NumPy, CuPy or PyTorch; the background is 0.
        theta : array, the first axis of length N

        Returns
        -------
        array of the kind of images, shape (N, C, H, W)

        Raises
        ------
        TypeError, ValueError
            If images or theta is not such an array.
        """
        raise NotImplementedError(f"{type(self).__name__}.apply")

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """Distort images, each by a draw of its own with ``rng``."""
        _arrays.namespace(images=images)
        return self.apply(images, self.theta(images.shape[0], rng))


class Warp(BaseDistortion):
    """A distortion that reads each pixel of the frame somewhere in the digit: theta holds parameters of a family.

    The base of all but `Clutter`.
    """

    family: ClassVar[transforms.Family]
    _entries: ClassVar[tuple[int, ...]]  # of one image's theta

    def apply(self, images: Array, theta: np.ndarray) -> Array:
        """Distort images by transforms that `theta` drew.

        Parameters
        ----------
        images : array of float32 or float64, shape (N, C, 28, 28)
            NumPy, CuPy or PyTorch; the background is 0.
        theta : array of float64, shape (N, ...)

        Returns
        -------
        array of the kind of images, shape (N, C, H, W)

        Raises
        ------
        TypeError, ValueError
            If images or theta is not such an array.
        """
        xp = _require_digits(images)
        n = images.shape[0]
        require_float(_arrays.namespace(theta=theta), theta=theta)
        require_shape(theta, "theta", f"({n}, {', '.join(map(str, self._entries))})")
        flat = np.reshape(np.asarray(theta, dtype=np.float64), (n, self.family.num_parameters))
        on_device = xp.asarray(flat, device=_arrays.device(images))
        if isinstance(self.family, transforms.Linear):
            return affine_sample(images, self.family.matrix(on_device), self.size)
        return grid_sample(images, self.family.grid(on_device, self.size))


@dataclass(frozen=True)
class Distortion(Warp):
    """A random rotation, scale and place for each digit, drawn uniformly.

    Parameters
    ----------
    size : (H, W)
        Size of the distorted images, in pixels.
    max_angle : float
        Degrees; the angle lies between -max_angle and max_angle.
    scales : (low, high)
        Bounds of the scale. The digit's box of 28 by 28 pixels, scaled, lies anywhere inside the frame.

    Raises
    ------
    TypeError, ValueError
        If the size, the angle or the scales do not fit.

    Notes
    -----
    Appendix A.3 of Jaderberg et al. (2015). Used in chapter 5.

    Examples
    --------
    >>> images = np.zeros((5, 1, 28, 28), np.float32)
    >>> RTS(images, np.random.default_rng(0)).shape
    (5, 1, 42, 42)
    """

    max_angle: float
    scales: tuple[float, float]

    family = transforms.Affine()
    _entries = (2, 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.max_angle <= 180:
            raise ValueError(f"max_angle: expected 0 to 180 degrees, got {self.max_angle}")
        _require_scales(self.scales, self.size)

    def theta(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw n transforms.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator
            Its seed makes the draw repeatable.

        Returns
        -------
        array of float64, shape (n, 2, 3)
            From normalised coordinates of the frame to those of the digit, as `stnlib.affine_grid` takes them
            (``align_corners=False``).
        """
        _require_draw(n, rng)
        angle = np.deg2rad(rng.uniform(-self.max_angle, self.max_angle, n))
        scale, x, y = _draw_places(n, rng, self.scales, self.size)
        return _frame_to_digit(scale, angle, x, y, self.size)


@dataclass(frozen=True)
class ProjectiveDistortion(Warp):
    """A random scale and place for each digit, and then each corner of its box moved on its own.

    Parameters
    ----------
    size : (H, W)
        Size of the distorted images, in pixels.
    scales : (low, high)
        Bounds of the scale, drawn uniformly. The digit's box of 28 by 28 pixels, scaled, lies anywhere inside the
        frame, until its corners move.
    sigma : float
        Standard deviation, in pixels of the frame, of each corner's move along x and along y.

    Raises
    ------
    TypeError, ValueError
        If the size, the scales or sigma do not fit.

    Notes
    -----
    Appendix A.3 of Jaderberg et al. (2015). Corners between which no digit can be seen are drawn again, about 2 % for
    `P`: of the triangle of each corner and its two neighbours, a twentieth of the area or more remains, and it keeps
    its orientation. So the four corners are those of a convex quadrilateral.

    Examples
    --------
    >>> images = np.zeros((5, 1, 28, 28), np.float32)
    >>> P(images, np.random.default_rng(0)).shape
    (5, 1, 28, 28)
    """

    scales: tuple[float, float]
    sigma: float

    family = transforms.Projective()
    _entries = (family.num_parameters,)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_scales(self.scales, self.size)
        _require_sigma(self.sigma)

    def theta(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw n transforms.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator
            Its seed makes the draw repeatable.

        Returns
        -------
        array of float64, shape (n, 8)
            Parameters of `stnlib.transforms.Projective`, from normalised coordinates of the frame to those of the
            digit (``align_corners=False``). They are the inverses of the transforms that move the digit's corners.

        Raises
        ------
        TypeError, ValueError
            If n is not a whole number of at least 0, or rng not a generator.
        """
        _require_draw(n, rng)
        height, width = self.size
        scale, x, y = _draw_places(n, rng, self.scales, self.size)
        side, corners = scale * DIGIT, transforms.FourCorners()
        box = np.stack((x, y), -1)[:, None] + np.multiply.outer(
            side / 2, corners.identity().reshape(4, 2)
        )
        moved = box + rng.normal(0, self.sigma, (n, 4, 2))
        while (again := _corner_areas(moved) < LEAST_CORNER * side**2).any():
            moved[again] = box[again] + rng.normal(0, self.sigma, (again.sum(), 4, 2))
        target = np.stack(
            (normalise(moved[..., 0], width), normalise(moved[..., 1], height)), -1
        )
        to_frame = self.family.from_matrix(corners.matrix(target.reshape(n, 8)))
        return self.family.inverse(to_frame)


@dataclass(frozen=True)
class ElasticDistortion(Warp):
    """A random scale and place for each digit, bent by a thin plate spline whose 16 control points are moved.

    Parameters
    ----------
    size : (H, W)
        Size of the distorted images, in pixels.
    scales : (low, high)
        Bounds of the scale, drawn uniformly. The digit's box of 28 by 28 pixels, scaled, lies anywhere inside the
        frame, until it is bent.
    sigma : float
        Standard deviation, in pixels of the frame, of each control point's move along x and along y. The points are a
        lattice of 4 by 4 that the frame's corners belong to.

    Raises
    ------
    TypeError, ValueError
        If the size, the scales or sigma do not fit.

    Notes
    -----
    Appendix A.3 of Jaderberg et al. (2015). The spline is drawn as it is used, from the frame to the digit: where a
    control point moves to the left, ink moves to the right. Both are equally likely.

    Examples
    --------
    >>> images = np.zeros((5, 1, 28, 28), np.float32)
    >>> E(images, np.random.default_rng(0)).shape
    (5, 1, 28, 28)
    """

    scales: tuple[float, float]
    sigma: float

    family = transforms.ThinPlateSpline(4, 4)
    _entries = (family.num_parameters,)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_scales(self.scales, self.size)
        _require_sigma(self.sigma)

    def theta(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw n transforms.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator
            Its seed makes the draw repeatable.

        Returns
        -------
        array of float64, shape (n, 32)
            Parameters of ``stnlib.transforms.ThinPlateSpline(4, 4)``: where in the digit the frame's control points
            are read, in normalised coordinates (``align_corners=False``). Each point is moved in the frame, and then
            goes with the frame to the digit.

        Raises
        ------
        TypeError, ValueError
            If n is not a whole number of at least 0, or rng not a generator.
        """
        _require_draw(n, rng)
        height, width = self.size
        scale, x, y = _draw_places(n, rng, self.scales, self.size)
        control = self.family.identity().reshape(-1, 2)
        pixels = rng.normal(0, self.sigma, (n, *control.shape))
        moved = control + pixels / np.array([width / 2, height / 2])
        to_digit = _frame_to_digit(scale, np.zeros(n), x, y, self.size)
        return transforms.apply(to_digit, moved).reshape(n, self.family.num_parameters)


@dataclass(frozen=True)
class Clutter(BaseDistortion):
    """A random place for each digit, and around it, or upon it, patches of other digits.

    Parameters
    ----------
    size : (H, W)
        Size of the distorted images, in pixels.
    patches : int
        How many, an image.
    side : int
        Of a patch, in pixels.

    Raises
    ------
    TypeError, ValueError
        If the size, the patches or their side do not fit.

    Notes
    -----
    Appendix A.3 of Jaderberg et al. (2015). A digit keeps its size and lies anywhere inside the frame, between pixels
    too, as in `RTS`. A patch is cut from anywhere in any other image of the batch and laid anywhere inside the frame,
    both at whole pixels. Where ink meets ink, the brighter is seen; so values stay between 0 and 1, if they were. A
    batch of one image has no other: its patches are cut from itself.

    Examples
    --------
    >>> images = np.zeros((5, 1, 28, 28), np.float32)
    >>> TC(images, np.random.default_rng(0)).shape
    (5, 1, 60, 60)
    """

    patches: int
    side: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.size) < DIGIT:
            raise ValueError(
                f"size: expected at least {DIGIT} pixels along each side, to hold a digit, got {self.size}"
            )
        _require_whole(self.patches, "patches")
        if require_length(self.side, "side") > DIGIT:
            raise ValueError(
                f"side: expected at most {DIGIT} pixels, a digit's, got {self.side}"
            )

    @property
    def dtype(self) -> np.dtype:
        """The fields of `theta`, a structured dtype."""
        return np.dtype(
            [
                ("place", np.float64, (2,)),
                ("source", np.float64, (self.patches,)),
                ("cut", np.int64, (self.patches, 2)),
                ("paste", np.int64, (self.patches, 2)),
            ]
        )

    def theta(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw n places, and patches for them.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator
            Its seed makes the draw repeatable.

        Returns
        -------
        structured array, shape (n,)
            Of these fields; (x, y) count from the upper left of the frame or the digit.

            - ``place``, (2,): the upper left corner (x, y) of the digit's box in the frame, in pixels from its edge.
            - ``source``, (patches,): which other image of the batch a patch is cut from, at least 0 and below 1: the
              first of them is the next in the batch, the last the one before, and the batch is a circle.
            - ``cut``, (patches, 2): a patch's first pixel (x, y) there.
            - ``paste``, (patches, 2): where that pixel goes in the frame.

        Raises
        ------
        TypeError, ValueError
            If n is not a whole number of at least 0, or rng not a generator.
        """
        _require_draw(n, rng)
        theta = np.zeros(n, self.dtype)
        bounds = self._bounds()
        theta["place"] = rng.uniform(0, bounds["place"], (n, 2))
        theta["source"] = rng.random((n, self.patches))
        for name in ("cut", "paste"):
            theta[name] = rng.integers(0, bounds[name], (n, self.patches, 2), endpoint=True)
        return theta

    def apply(self, images: Array, theta: np.ndarray) -> Array:
        """Place digits, and lay the patches that `theta` drew around them.

        Parameters
        ----------
        images : array of float32 or float64, shape (N, C, 28, 28)
            NumPy, CuPy or PyTorch; the background is 0.
        theta : structured array, shape (N,)

        Returns
        -------
        array of the kind of images, shape (N, C, H, W)

        Raises
        ------
        TypeError, ValueError
            If images or theta is not such an array.
        """
        xp = _require_digits(images)
        n, channels = images.shape[:2]
        self._require_theta(theta, n)
        frame = xp.zeros(
            (n, channels, *self.size), dtype=images.dtype, device=_arrays.device(images)
        )
        here = np.arange(n)

        # Only where the digit is: a pixel more than it has, since it lies between pixels.
        window = tuple(min(DIGIT + 1, length) for length in self.size)
        room = np.array([self.size[1] - window[1], self.size[0] - window[0]])
        first = np.minimum(np.floor(theta["place"]).astype(np.int64), room)
        shift = transforms.translation(*(first - theta["place"]).T)
        on_device = xp.asarray(shift, device=_arrays.device(images))
        digit = affine_sample(images, on_device, window, coordinates="pixel")
        frame[_rectangle(images, here, first, window)] = digit

        source = (
            here[:, None] + 1 + np.floor(theta["source"] * (n - 1)).astype(np.int64)
        ) % max(n, 1)
        square = (self.side, self.side)
        for k in range(self.patches):
            patch = images[_rectangle(images, source[:, k], theta["cut"][:, k], square)]
            place = _rectangle(images, here, theta["paste"][:, k], square)
            frame[place] = xp.maximum(frame[place], patch)
        return frame

    def _bounds(self) -> dict[str, Any]:
        """Return the largest place (x, y) of a digit, and of a patch in its image and in the frame."""
        height, width = self.size
        return {
            "place": np.array([width - DIGIT, height - DIGIT]),
            "cut": DIGIT - self.side,
            "paste": np.array([width - self.side, height - self.side]),
        }

    def _require_theta(self, theta: np.ndarray, n: int) -> None:
        """Raise unless theta is such as `theta` draws for n images."""
        if getattr(theta, "dtype", None) != self.dtype:
            kind = getattr(theta, "dtype", type(theta).__name__)
            raise TypeError(
                f"theta: expected a structured array, as {type(self).__name__}.theta draws it for {self.patches} "
                f"patches, got {kind}"
            )
        require_shape(theta, "theta", f"({n})")
        source = {"source": np.nextafter(1.0, 0.0)}
        for name, most in (self._bounds() | source).items():
            if not ((theta[name] >= 0) & (theta[name] <= most)).all():
                raise ValueError(
                    f"theta: expected {name} from 0 to {most}, got {theta[name].min()} to {theta[name].max()}"
                )


def _rectangle(
    images: Array, of: np.ndarray, first: np.ndarray, size: Sequence[int]
) -> tuple[Array, ...]:
    """Return the indices, to (N, C, H, W), of a rectangle in each of some images, by its first pixel (x, y)."""
    indices = (
        of[:, None, None, None],
        np.arange(images.shape[1])[None, :, None, None],
        (first[:, 1, None] + np.arange(size[0]))[:, None, :, None],
        (first[:, 0, None] + np.arange(size[1]))[:, None, None, :],
    )
    xp, device = _arrays.namespace(images=images), _arrays.device(images)
    return tuple(xp.asarray(index, device=device) for index in indices)


def _draw_places(
    n: int, rng: np.random.Generator, scales: tuple[float, float], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw scales, and where the scaled boxes' centres lie, x and y in pixels, so that they are inside the frame."""
    height, width = size
    scale = rng.uniform(*scales, n)
    half = scale * DIGIT / 2
    # The box's centre, in pixels from the frame's edge, and then from the centre of its first pixel.
    x = rng.uniform(half, width - half) - 0.5
    y = rng.uniform(half, height - half) - 0.5
    return scale, x, y


def _frame_to_digit(
    scale: np.ndarray, angle: np.ndarray, x: np.ndarray, y: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Return the thetas, (N, 2, 3), of digits that are scaled, turned and then centred at (x, y), in pixels."""
    centre = (DIGIT - 1) / 2
    to_frame = transforms.compose(
        transforms.similarity(scale, angle, x, y), transforms.translation(-centre, -centre)
    )
    return transforms.pixel_to_theta(transforms.inverse(to_frame), (DIGIT, DIGIT), size)


def _corner_areas(corners: np.ndarray) -> np.ndarray:
    """Return twice the smallest area of a corner's triangle, negative if it is turned over; corners are (N, 4, 2)."""
    to_next = np.roll(corners, -1, axis=1) - corners
    from_last = np.roll(to_next, 1, axis=1)
    areas = from_last[..., 0] * to_next[..., 1] - from_last[..., 1] * to_next[..., 0]
    return areas.min(axis=1)


def _require_digits(images: Array) -> Any:
    """Return the namespace of images; raise unless they are digits."""
    xp = _arrays.namespace(images=images)
    require_float(xp, images=images)
    require_shape(images, "images", f"(N, C, {DIGIT}, {DIGIT})")
    return xp


def _require_draw(n: int, rng: np.random.Generator) -> None:
    """Raise unless n images can be drawn."""
    _require_whole(n, "n")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")


def _require_whole(number: int, name: str) -> None:
    """Raise unless a number is whole and not negative."""
    try:
        whole = operator.index(number)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number, got {number!r}") from None
    if whole < 0:
        raise ValueError(f"{name}: expected at least 0, got {number}")


def _require_sigma(sigma: float) -> None:
    """Raise unless a standard deviation is one."""
    expected = "a finite number of pixels, at least 0"
    require_number(sigma, "sigma", expected, lambda value: 0 <= value < np.inf)


def _require_scales(scales: tuple[float, float], size: tuple[int, int]) -> None:
    """Raise unless scaled digits fit the frame."""
    low, high = scales
    if not 0 < low <= high:
        raise ValueError(f"scales: expected 0 < low <= high, got {scales}")
    if DIGIT * high > min(size):
        raise ValueError(
            f"scales: a digit of {DIGIT} pixels times {high} does not fit the frame {size}; "
            f"use scales up to {min(size) / DIGIT:g}"
        )


R = Distortion(size=(DIGIT, DIGIT), max_angle=90.0, scales=(1.0, 1.0))
"""Rotated: uniformly between -90 and +90 degrees, in the digit's own frame."""

RTS = Distortion(size=(42, 42), max_angle=45.0, scales=(0.7, 1.2))
"""Rotated by -45 to +45 degrees, scaled by 0.7 to 1.2, and placed anywhere in a frame of 42 by 42 pixels."""

P = ProjectiveDistortion(size=(DIGIT, DIGIT), scales=(0.75, 1.0), sigma=5.0)
"""Projective: scaled by 0.75 to 1, placed anywhere in its frame, and each corner moved by about 5 pixels."""

E = ElasticDistortion(size=(DIGIT, DIGIT), scales=(0.75, 1.0), sigma=1.5)
"""Elastic: scaled by 0.75 to 1, placed anywhere in its frame, and 16 control points moved by about 1.5 pixels."""

TC = Clutter(size=(60, 60), patches=6, side=6)
"""Translated and cluttered: placed anywhere in a frame of 60 by 60, with 6 patches of 6 by 6 from other digits."""
