"""The projective families: eight parameters, by the matrix or by four corners."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _arrays
from .._arrays import Array, require_float, require_shape
from .algebra import inverse_3x3
from .families import Family, float_identity

NEAREST = 1e-8
"""The denominator of a projective transform keeps at least this distance from 0."""

CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
"""The output's corners: upper left, upper right, lower right, lower left."""


class Projective(Family):
    """The family of projective transforms (homographies), section 3.2 of the paper: what a plane seen by a camera does.

    Eight parameters, the matrix's entries row by row; its last entry is 1.

    Notes
    -----
    A point (x, y) goes to ``(h0 x + h1 y + h2, h3 x + h4 y + h5) / (h6 x + h7 y + 1)``. On the horizon, where the
    denominator is 0, it would go to infinity: a denominator nearer to 0 than 1e-8 is taken for 1e-8, of its sign, and
    has no gradient. What is read there lies far outside the image. Beyond the horizon the denominator is negative, and
    the formula is used as it stands, as OpenCV and scikit-image use it. Derived in chapter 6.

    Examples
    --------
    >>> Projective().identity()
    array([1., 0., 0., 0., 1., 0., 0., 0.])
    >>> theta = np.asarray([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.5]])
    >>> Projective().apply(theta, np.asarray([[1.0, -1.0], [1.0, 1.0]])).round(3)  # nearer below, farther above
    array([[[ 2.   , -2.   ],
            [ 0.667,  0.667]]])
    """

    num_parameters = 8

    def identity(self) -> Array:
        """Return the parameters of the identity: a NumPy array, shape (8,)."""
        return np.eye(3).reshape(9)[:8]

    def matrix(self, theta: Array) -> Array:
        """Return the matrices between homogeneous coordinates, shape (N, 3, 3), of parameters of shape (N, 8).

        Raises
        ------
        TypeError, ValueError
            If theta is not such an array.
        """
        xp = self.check(theta)
        return xp.reshape(
            xp.concat((theta, xp.ones_like(theta[:, :1])), axis=-1), (theta.shape[0], 3, 3)
        )

    def from_matrix(self, matrix: Array) -> Array:
        """Return the parameters, shape (N, 8), of matrices of any scale, shape (N, 3, 3).

        Raises
        ------
        TypeError
            If matrix is not an array of float32 or float64.
        ValueError
            If the shape differs, or a last entry is 0: then the output's centre goes to infinity.
        """
        xp = _arrays.namespace(matrix=matrix)
        require_float(xp, matrix=matrix)
        require_shape(matrix, "matrix", "(N, 3, 3)")
        last = matrix[:, 2, 2]
        if bool(xp.any(last == 0)):
            raise ValueError(
                "matrix: expected a last entry other than 0, got 0; it sends the output's centre to infinity"
            )
        return xp.reshape(matrix / last[:, None, None], (matrix.shape[0], 9))[:, :8]

    def apply(self, theta: Array, points: Array) -> Array:
        """Move points: see `Family.apply`."""
        xp = self.check(theta, points)
        return _project(self.matrix(theta), points, xp)

    def inverse(self, theta: Array) -> Array:
        """Return the parameters of the transforms that undo those of theta.

        Raises
        ------
        TypeError, ValueError
            If theta is not such an array, or a transform is singular.
        """
        return self.from_matrix(inverse_3x3(self.matrix(theta), _arrays.namespace(theta=theta)))

    def compose(self, a: Array, b: Array) -> Array:
        """Return the parameters of b's transforms followed by a's.

        Raises
        ------
        TypeError, ValueError
            If a or b is not such an array, or they send the output's centre to infinity.
        """
        return self.from_matrix(self.matrix(a) @ self.matrix(b))


class FourCorners(Projective):
    """The family of projective transforms, by where the output's corners are read.

    Eight parameters: (x, y) of the corners upper left, upper right, lower right, lower left.

    Notes
    -----
    Bounded where the matrix's entries are not, and of one unit: a corner's pixels. If three corners lie on a line the
    transform is singular; as on the horizon (`Projective`), its denominator then keeps a distance of 1e-8 from 0. The
    matrix is Heckbert's (1989), section 2.2.3. Derived in chapter 6.

    Examples
    --------
    >>> FourCorners().identity()
    array([-1., -1.,  1., -1.,  1.,  1., -1.,  1.])
    """

    def identity(self) -> Array:
        """Return the corners where they are: a NumPy array, shape (8,)."""
        return float_identity(CORNERS)

    def matrix(self, theta: Array) -> Array:
        """Return the matrices between homogeneous coordinates, shape (N, 3, 3), of parameters of shape (N, 8).

        Raises
        ------
        TypeError, ValueError
            If theta is not such an array.
        """
        xp = self.check(theta)
        x0, y0, x1, y1, x2, y2, x3, y3 = (theta[:, i] for i in range(8))
        (ax, ay), (bx, by) = (x1 - x2, y1 - y2), (x3 - x2, y3 - y2)
        cx, cy = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
        determinant = _away_from_zero(ax * by - bx * ay, xp)
        g, h = (cx * by - bx * cy) / determinant, (ax * cy - cx * ay) / determinant
        rows = [
            [x1 - x0 + g * x1, x3 - x0 + h * x3, x0],
            [y1 - y0 + g * y1, y3 - y0 + h * y3, y0],
            [g, h, xp.ones_like(g)],
        ]  # of the unit square; and then of the square from -1 to 1
        entries = [e for u, v, w in rows for e in (u / 2, v / 2, w + u / 2 + v / 2)]
        matrix = xp.reshape(xp.stack(entries, axis=-1), (theta.shape[0], 3, 3))
        return matrix / _away_from_zero(matrix[:, 2:, 2:], xp)

    def from_matrix(self, matrix: Array) -> Array:
        """Return the corners, shape (N, 8), of matrices of any scale, shape (N, 3, 3): see `Projective.from_matrix`."""
        theta = super().from_matrix(matrix)
        xp = _arrays.namespace(matrix=matrix)
        corners = xp.asarray(CORNERS, dtype=matrix.dtype, device=_arrays.device(matrix))
        return xp.reshape(Projective().apply(theta, corners), (matrix.shape[0], 8))


def _project(matrix: Array, points: Array, xp: Any) -> Array:
    """Move points, (K, 2) or (N, K, 2), by matrices, (N, 3, 3)."""
    moved = points @ xp.matrix_transpose(matrix[:, :, :2]) + matrix[:, None, :, 2]
    return moved[..., :2] / _away_from_zero(moved[..., 2:], xp)


def _away_from_zero(value: Array, xp: Any) -> Array:
    sign = xp.where(value < 0, -xp.ones_like(value), xp.ones_like(value))
    return xp.where(xp.abs(value) < NEAREST, NEAREST * sign, value)
