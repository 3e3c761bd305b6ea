"""What every family of transforms is: parameters, an identity, and where points go (chapters 5 and 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _arrays
from .._arrays import Array, require_float, require_same_dtype, require_shape, to_float64
from ..coordinates import regular_grid
from ..options import check_output_size


class Family:
    """A family of transforms: what a localisation network regresses the parameters of.

    A family of one's own has ``num_parameters``, `identity` and `apply`; `grid` follows from them. All families map
    normalised coordinates of the output to normalised coordinates of the input.

    Examples
    --------
    >>> class Swirl(Family):
    ...     num_parameters = 1
    ...
    ...     def identity(self):
    ...         return np.zeros(1)
    ...
    ...     def apply(self, theta, points):
    ...         xp, x, y = self.check(theta, points), points[..., 0], points[..., 1]
    ...         angle = theta[:, :1] * (1 - xp.hypot(x, y))
    ...         c, s = xp.cos(angle), xp.sin(angle)
    ...         return xp.stack((c * x - s * y, s * x + c * y), axis=-1)
    >>> Swirl().grid(np.ones((5, 1)), (3, 4)).shape
    (5, 3, 4, 2)
    """

    dimensions: int = 2
    num_parameters: int

    def identity(self) -> Array:
        """Return the parameters of the transform that changes nothing.

        Returns
        -------
        NumPy array of float64, shape (P,)
        """
        raise NotImplementedError(f"{type(self).__name__}.identity")

    def apply(self, theta: Array, points: Array) -> Array:
        """Move points.

        Parameters
        ----------
        theta : array of float32 or float64, shape (N, P)
        points : array of the same dtype, shape (K, D) or (N, K, D)
            Normalised output coordinates (x, y), or (x, y, z); the same for all, or for each theta its own.

        Returns
        -------
        array, shape (N, K, D)
            Normalised input coordinates.

        Raises
        ------
        TypeError, ValueError
            If theta or points is not such an array.
        """
        raise NotImplementedError(f"{type(self).__name__}.apply")

    def grid(self, theta: Array, size: Sequence[int], *, align_corners: bool = False) -> Array:
        """Generate the sampling grid.

        Parameters
        ----------
        theta : array of float32 or float64, shape (N, P)
        size : (N, C, H, W) or (H, W); (N, C, D, H, W) or (D, H, W) in space
            Size of the output, in pixels.
        align_corners : bool, default False

        Returns
        -------
        array of theta's dtype, shape (N, H, W, 2) or (N, D, H, W, 3)
            Normalised input coordinates; computed in float64.

        Raises
        ------
        TypeError, ValueError
            If theta is not such an array, or size does not fit.
        """
        xp, size = self.check_grid(theta, size)
        options = {"align_corners": align_corners, "xp": xp, "device": _arrays.device(theta)}
        points = xp.reshape(regular_grid(size, **options), (math.prod(size), self.dimensions))
        moved = self.apply(to_float64(theta, xp), points)
        moved = xp.reshape(moved, (theta.shape[0], *size, self.dimensions))
        return xp.astype(moved, theta.dtype, copy=False)

    def check(self, theta: Array, points: Array | None = None) -> Any:
        """Return the namespace of parameters and points; raise unless they fit the family and each other."""
        xp = _arrays.namespace(theta=theta)
        require_float(xp, theta=theta)
        require_shape(theta, "theta", f"(N, {self.num_parameters})")
        if points is not None:
            _arrays.namespace(theta=theta, points=points)
            require_same_dtype(theta=theta, points=points)
            d = self.dimensions
            require_shape(points, "points", f"(K, {d})", f"({theta.shape[0]}, K, {d})")
        return xp

    def check_grid(self, theta: Array, size: Sequence[int]) -> tuple[Any, tuple[int, ...]]:
        """Return the namespace of parameters, and the output's size in pixels; raise unless they fit the family."""
        return self.check(theta), check_output_size(size, self.dimensions, theta.shape[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def require_family(value: Any, name: str) -> None:
    """Raise ``TypeError`` unless a value can do what a `Family` does."""
    if not all(hasattr(value, part) for part in ("num_parameters", "identity", "grid")):
        raise TypeError(f"{name}: expected a family such as Affine(), got {value!r}")


def float_identity(values: Any) -> np.ndarray:
    """Return an identity's parameters as `Family.identity` promises them."""
    return np.array(values, dtype=np.float64).reshape(-1)
