"""The diffeomorphic families: a velocity is followed for one unit of time, and nothing folds (chapter 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _arrays
from .._arrays import Array, require_length
from ..coordinates import regular_grid
from ..sampling import grid_sample
from .bases import BSpline, DenseFlow, PiecewiseAffine
from .families import Family


class _Velocity(Family):
    """What both velocity fields share: parameters are velocities, and the way back is to turn them round."""

    nodes: int

    @property
    def num_parameters(self) -> int:  # type: ignore[override]
        """Return how many parameters there are: a velocity (x, y) for each node."""
        return 2 * self.nodes

    def identity(self) -> Array:
        """Return no velocity: a NumPy array of zeros, shape (P,)."""
        return np.zeros(self.num_parameters)

    def inverse(self, theta: Array) -> Array:
        """Return the parameters, shape (N, P), of the transforms that undo those of theta: -theta."""
        self.check(theta)
        return -theta

    def velocity(self, theta: Array, points: Array) -> Array:
        """Return the velocity at points.

        Parameters
        ----------
        theta : array of float32 or float64, shape (N, P)
        points : array of the same dtype, shape (K, 2) or (N, K, 2)
            Normalised coordinates.

        Returns
        -------
        array, shape (N, K, 2)
            Normalised coordinates a unit of time.

        Raises
        ------
        TypeError, ValueError
            If theta or points is not such an array.
        """
        raise NotImplementedError(f"{type(self).__name__}.velocity")


class StationaryVelocity(_Velocity):
    """A smooth velocity field that stands still while points drift in it: cubic B-splines on a lattice.

    Parameters
    ----------
    rows, columns : int, default 6
        Nodes, at least 4; the outermost ring lies outside the image.
    squarings : int, default 5
        The drift of one unit of time is put together from ``2**squarings`` small steps, doubled so many times.
    resolution : int, default 65
        Points along each side of the lattice on which drifts are composed.

    Raises
    ------
    TypeError, ValueError
        If rows, columns, squarings or resolution is not such a number.

    Notes
    -----
    Scaling and squaring, after Arsigny et al. (2006). A drift of 10 pixels of 64 and its way back end within 0.05 pixel
    of where they began; for longer ones, a resolution of 129 is four times as exact, and takes four times as long.

    Outside the image a point drifts as the nearest point of its edge does. Derived in chapter 6.

    Examples
    --------
    >>> family = StationaryVelocity(4, 4)
    >>> right = np.tile([0.5, 0.0], (1, 16))  # everywhere the same: a translation
    >>> family.apply(right, np.zeros((1, 2))).round(6)
    array([[[0.5, 0. ]]])
    """

    def __init__(
        self, rows: int = 6, columns: int = 6, *, squarings: int = 5, resolution: int = 65
    ) -> None:
        self._spline = BSpline(rows, columns)
        if not isinstance(squarings, int) or squarings < 0:
            raise ValueError(
                f"squarings: expected a whole number of at least 0, got {squarings!r}"
            )
        if require_length(resolution, "resolution") < 2:
            raise ValueError(f"resolution: expected at least 2, got {resolution}")
        self.nodes, self.squarings, self.resolution = rows * columns, squarings, resolution
        self._flow = DenseFlow((resolution, resolution), align_corners=True)

    def velocity(self, theta: Array, points: Array) -> Array:
        """Return the velocity at points, shape (N, K, 2), in normalised coordinates a unit of time."""
        self.check(theta, points)
        return self._spline.basis(points) @ self._spline._moved(theta)

    def apply(self, theta: Array, points: Array) -> Array:
        """Let points drift: see `Family.apply`."""
        xp = self.check(theta, points)
        points = xp.broadcast_to(points, (theta.shape[0], *points.shape[-2:]))
        return points + self._read(self._drift(theta, xp), points, xp)

    def grid(self, theta: Array, size: Sequence[int], *, align_corners: bool = False) -> Array:
        """Generate the sampling grid: see `Family.grid`."""
        xp, size = self.check_grid(theta, size)
        flow = self._drift(_arrays.to_float64(theta, xp), xp)
        flow = xp.reshape(flow, (theta.shape[0], self._flow.num_parameters))
        grid = self._flow.grid(flow, size, align_corners=align_corners)
        return xp.astype(grid, theta.dtype, copy=False)

    def _drift(self, theta: Array, xp: Any) -> Array:
        """Return how far the lattice's points drift in one unit of time, shape (N, resolution, resolution, 2)."""
        side = self.resolution
        basis = self._spline._basis_of_grid((side, side), True, xp, _arrays.device(theta))
        basis = xp.astype(basis, theta.dtype, copy=False)
        velocity = xp.reshape(
            basis @ self._spline._moved(theta), (theta.shape[0], side, side, 2)
        )
        options = {"align_corners": True, "xp": xp, "device": _arrays.device(theta)}
        still = xp.astype(regular_grid((side, side), **options), theta.dtype, copy=False)
        step = 1 / 2**self.squarings
        # The first small step takes the velocity from its middle, which is right to second order.
        flow = step * self._read(velocity, still + step / 2 * velocity, xp)
        for _ in range(self.squarings):
            flow = flow + self._read(flow, still + flow, xp)
        return flow

    def _read(self, flow: Array, points: Array, xp: Any) -> Array:
        """Return the flow, (N, side, side, 2), at points, (N, ..., 2)."""
        shape = points.shape
        if 0 in shape:
            return points
        sample: Any = grid_sample
        if _arrays.is_tensor(flow):  # there the engines bring their gradients along
            from ..nn.functional import grid_sample as sample
        places = xp.reshape(points, (shape[0], math.prod(shape[1:-1]), 1, 2))
        planes = xp.permute_dims(flow, (0, 3, 1, 2))
        read = sample(planes, places, padding_mode="border", align_corners=True)
        return xp.reshape(xp.permute_dims(read, (0, 2, 3, 1)), shape)

    def __repr__(self) -> str:
        rows, columns = self._spline.shape
        return f"StationaryVelocity({rows}, {columns}, squarings={self.squarings}, resolution={self.resolution})"


class PiecewiseAffineVelocity(_Velocity):
    """A velocity field that is affine on each triangle of a mesh; points drift from one triangle to the next.

    Parameters
    ----------
    rows, columns : int, default 4
        Nodes on a regular lattice from -1 to 1; each of its squares is cut from upper left to lower right.
    steps : int, default 8
        Steps of the Runge-Kutta method of order 4 that follows a point.

    Raises
    ------
    TypeError, ValueError
        If rows, columns or steps is not such a number.

    Notes
    -----
    The velocities of Freifeld et al. (2017), CPAB, on a mesh of one kind. They integrate in closed form within a
    triangle; here a point is followed by steps, which is as exact where the field is smooth and a little less where it
    crosses an edge. Derived in chapter 6.

    Examples
    --------
    >>> family = PiecewiseAffineVelocity(3, 3)
    >>> right = np.tile([0.5, 0.0], (1, 9))
    >>> family.apply(right, np.zeros((1, 2))).round(6)
    array([[[0.5, 0. ]]])
    """

    def __init__(self, rows: int = 4, columns: int = 4, *, steps: int = 8) -> None:
        self.shape = rows, columns
        self.nodes = len(PiecewiseAffine(rows, columns).control)
        self.steps = require_length(steps, "steps")

    def velocity(self, theta: Array, points: Array) -> Array:
        """Return the velocity at points, shape (N, K, 2), in normalised coordinates a unit of time."""
        xp = self.check(theta, points)
        n, (rows, columns) = theta.shape[0], self.shape
        points = xp.broadcast_to(points, (n, *points.shape[-2:]))
        x, y = (
            (xp.clip(points[..., axis], -1.0, 1.0) + 1) * ((length - 1) / 2)
            for axis, length in ((0, columns), (1, rows))
        )
        column, row = (
            xp.clip(xp.floor(x), 0.0, columns - 2.0),
            xp.clip(xp.floor(y), 0.0, rows - 2.0),
        )
        x, y = x - column, y - row  # in the square, from 0 to 1; it is cut where they are equal
        first = xp.astype(row * columns + column, xp.int64)
        other = first + xp.where(x >= y, xp.ones_like(first), columns * xp.ones_like(first))
        nodes = xp.reshape(theta, (n, self.nodes, 2))

        def at(node: Array) -> Array:
            places = xp.broadcast_to(node[..., None], (*node.shape, 2))
            return xp.take_along_axis(nodes, places, axis=1)

        near, far = xp.maximum(x, y)[..., None], xp.minimum(x, y)[..., None]
        return (1 - near) * at(first) + (near - far) * at(other) + far * at(first + columns + 1)

    def apply(self, theta: Array, points: Array) -> Array:
        """Let points drift: see `Family.apply`."""
        xp = self.check(theta, points)
        h = 1 / self.steps
        place = xp.broadcast_to(points, (theta.shape[0], *points.shape[-2:]))
        for _ in range(self.steps):
            a = self.velocity(theta, place)
            b = self.velocity(theta, place + h / 2 * a)
            c = self.velocity(theta, place + h / 2 * b)
            d = self.velocity(theta, place + h * c)
            place = place + h / 6 * (a + 2 * b + 2 * c + d)
        return place

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"PiecewiseAffineVelocity({rows}, {columns}, steps={self.steps})"
