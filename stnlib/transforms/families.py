"""Families of transforms: what a localisation network regresses the parameters of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import _arrays
from .._arrays import Array, require_shape
from ..sampling import affine_grid


class Affine:
    """The family of affine transforms, equation (1) of the paper: six parameters, a theta's entries row by row.

    Examples
    --------
    >>> Affine().identity()
    array([1., 0., 0., 0., 1., 0.])
    >>> Affine().grid(np.zeros((5, 6)), (3, 4)).shape
    (5, 3, 4, 2)
    """

    num_parameters = 6

    def identity(self) -> Array:
        """Return the parameters of the transform that changes nothing: a NumPy array, shape (6,)."""
        return np.asarray([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])

    def matrix(self, theta: Array) -> Array:
        """Return the matrices, shape (N, 2, 3), of parameters of shape (N, 6).

        Parameters
        ----------
        theta : array, shape (N, 6)

        Returns
        -------
        array, shape (N, 2, 3)
            From normalised output coordinates to normalised input coordinates.

        Raises
        ------
        TypeError, ValueError
            If theta is not such an array.
        """
        xp = _arrays.namespace(theta=theta)
        require_shape(theta, "theta", f"(N, {self.num_parameters})")
        return xp.reshape(theta, (theta.shape[0], 2, 3))

    def grid(self, theta: Array, size: Sequence[int], *, align_corners: bool = False) -> Array:
        """Generate the sampling grid, shape (N, H, W, 2), of parameters of shape (N, 6); see `stnlib.affine_grid`.

        Parameters
        ----------
        theta : array of float32 or float64, shape (N, 6)
        size : (N, C, H, W) or (H, W)
            Size of the output, in pixels.
        align_corners : bool, default False

        Returns
        -------
        array of theta's dtype, shape (N, H, W, 2)
            Normalised input coordinates (x, y).

        Raises
        ------
        TypeError, ValueError
            If theta is not such an array, or size does not fit.
        """
        return affine_grid(self.matrix(theta), size, align_corners=align_corners)

    def __repr__(self) -> str:
        return "Affine()"
