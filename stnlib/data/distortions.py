"""The paper's distortions of MNIST (appendix A.3): rotated (R), and rotated, translated and scaled (RTS)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import _arrays, transforms
from .._arrays import Array, require_float, require_shape, require_size
from ..sampling import affine_grid, grid_sample

DIGIT = 28  # pixels along each side of an MNIST image


@dataclass(frozen=True)
class Distortion:
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

    size: tuple[int, int]
    max_angle: float
    scales: tuple[float, float]

    def __post_init__(self) -> None:
        require_size(self.size, "size")
        if not 0 <= self.max_angle <= 180:
            raise ValueError(f"max_angle: expected 0 to 180 degrees, got {self.max_angle}")
        low, high = self.scales
        if not 0 < low <= high:
            raise ValueError(f"scales: expected 0 < low <= high, got {self.scales}")
        if DIGIT * high > min(self.size):
            raise ValueError(
                f"scales: a digit of {DIGIT} pixels times {high} does not fit the frame {self.size}; "
                f"use scales up to {min(self.size) / DIGIT:g}"
            )

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
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
        height, width = self.size
        angle = np.deg2rad(rng.uniform(-self.max_angle, self.max_angle, n))
        scale = rng.uniform(*self.scales, n)
        half = scale * DIGIT / 2
        # The box's centre, in pixels from the frame's edge, and then from the centre of its first pixel.
        x = rng.uniform(half, width - half) - 0.5
        y = rng.uniform(half, height - half) - 0.5
        centre = (DIGIT - 1) / 2
        to_frame = transforms.compose(
            transforms.similarity(scale, angle, x, y), transforms.translation(-centre, -centre)
        )
        return transforms.pixel_to_theta(
            transforms.inverse(to_frame), (DIGIT, DIGIT), self.size
        )

    def apply(self, images: Array, theta: np.ndarray) -> Array:
        """Distort images by transforms that `theta` drew.

        Parameters
        ----------
        images : array of float32 or float64, shape (N, C, 28, 28)
            NumPy, CuPy or PyTorch; the background is 0.
        theta : array of float64, shape (N, 2, 3)

        Returns
        -------
        array of the kind of images, shape (N, C, H, W)

        Raises
        ------
        TypeError, ValueError
            If images or theta is not such an array.
        """
        xp = _arrays.namespace(images=images)
        require_float(xp, images=images)
        require_shape(images, "images", f"(N, C, {DIGIT}, {DIGIT})")
        require_float(_arrays.namespace(theta=theta), theta=theta)
        require_shape(theta, "theta", f"({images.shape[0]}, 2, 3)")
        on_device = xp.asarray(
            np.asarray(theta, dtype=np.float64), device=_arrays.device(images)
        )
        return grid_sample(images, affine_grid(on_device, self.size))

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """Distort images, each by a transform drawn with ``rng``."""
        _arrays.namespace(images=images)
        return self.apply(images, self.theta(images.shape[0], rng))


R = Distortion(size=(DIGIT, DIGIT), max_angle=90.0, scales=(1.0, 1.0))
"""Rotated: uniformly between -90 and +90 degrees, in the digit's own frame."""

RTS = Distortion(size=(42, 42), max_angle=45.0, scales=(0.7, 1.2))
"""Rotated by -45 to +45 degrees, scaled by 0.7 to 1.2, and placed anywhere in a frame of 42 by 42 pixels."""
