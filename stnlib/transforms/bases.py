"""The families T = M B, which are linear in their parameters: thin plate, piecewise affine, B-spline, dense flow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _arrays
from .._arrays import Array, require_float, require_length, require_number, require_size
from .._extras import require
from ..coordinates import normalise, pixel_centres, regular_grid
from .families import Family, float_identity

REMEMBERED = 16  # bases of a family, for as many sizes and devices


class Basis(Family):
    """A family that moves control points, and everything between them by a basis: T = M B, the paper's general form.

    Column k of M is where control point k goes, so theta, (N, P), holds (x, y) of one control point after another; B,
    (K, number of points), says how much each point follows each control point. A family of one's own sets
    ``control``, its control points, and has `basis`.
    """

    control: np.ndarray

    @property
    def num_parameters(self) -> int:  # type: ignore[override]
        """Return how many parameters there are: a coordinate an axis for each control point."""
        return int(self.control.size)

    def identity(self) -> Array:
        """Return the control points where they are: a NumPy array, shape (P,)."""
        return float_identity(self.control)

    def basis(self, points: Array) -> Array:
        """Return how much points follow each control point: B, turned.

        Parameters
        ----------
        points : array of float32 or float64, shape (K, D) or (N, K, D)

        Returns
        -------
        array, shape (K, number of control points) or (N, K, number of control points)
            Each row adds up to 1.
        """
        raise NotImplementedError(f"{type(self).__name__}.basis")

    def apply(self, theta: Array, points: Array) -> Array:
        """Move points: see `Family.apply`."""
        self.check(theta, points)
        return self.basis(points) @ self._moved(theta)

    def grid(self, theta: Array, size: Sequence[int], *, align_corners: bool = False) -> Array:
        """Generate the sampling grid: see `Family.grid`. The basis for a size is computed once, in float64."""
        xp, size = self.check_grid(theta, size)
        basis = self._basis_of_grid(size, align_corners, xp, _arrays.device(theta))
        moved = basis @ self._moved(_arrays.to_float64(theta, xp))
        moved = xp.reshape(moved, (theta.shape[0], *size, self.dimensions))
        return xp.astype(moved, theta.dtype, copy=False)

    def _moved(self, theta: Array) -> Array:
        """Return where the control points go, (N, K, D): the paper's M, turned."""
        xp = _arrays.namespace(theta=theta)
        return xp.reshape(theta, (theta.shape[0], len(self.control), self.dimensions))

    def _basis_of_grid(
        self, size: tuple[int, ...], align_corners: bool, xp: Any, device: Any
    ) -> Array:
        if _arrays.is_watched():
            options = {"align_corners": align_corners, "xp": xp, "device": device}
            points = xp.reshape(
                regular_grid(size, **options), (math.prod(size), self.dimensions)
            )
            return self.basis(points)
        memory = self.__dict__.setdefault("_memory", {})
        key = size, bool(align_corners), xp.__name__, str(device)
        if key not in memory:
            if len(memory) >= REMEMBERED:
                memory.clear()
            points = regular_grid(size, align_corners=align_corners).reshape(
                -1, self.dimensions
            )
            memory[key] = xp.asarray(self.basis(points), device=device)
        return memory[key]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_memory"}


class ThinPlateSpline(Basis):
    """The thin plate spline: control points are pulled, and a thin metal plate bends as little as it can.

    Parameters
    ----------
    rows, columns : int, default 4
        Control points on a regular lattice from -1 to 1.
    points : array, shape (K, 2), optional
        Control points in the place of a lattice, in normalised output coordinates.
    regularisation : float, default 0
        0 lets every control point arrive where it is sent. More lets it stay behind, where that saves bending. The
        affine part costs nothing, whatever this is.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than 3 control points, two are the same or all lie on a line, or regularisation is negative.

    Notes
    -----
    Section 3.2 of Jaderberg et al. (2015), which has 16 control points; Bookstein (1989). The radial function is
    ``r² log r``, 0 where r is 0, as in SciPy's ``RBFInterpolator``, whose ``smoothing`` is this regularisation. Derived
    in chapter 6.

    Examples
    --------
    >>> family = ThinPlateSpline(4, 4)
    >>> family.num_parameters
    32
    >>> family.basis(np.asarray([[-1.0, -1.0]])).round(6)[0, :3] + 0.0  # a control point follows itself
    array([1., 0., 0.])
    """

    def __init__(
        self,
        rows: int = 4,
        columns: int = 4,
        *,
        points: Any = None,
        regularisation: float = 0.0,
    ) -> None:
        require_number(
            regularisation,
            "regularisation",
            "a number of at least 0",
            lambda r: 0 <= r < math.inf,
        )
        self.control = _lattice(rows, columns, 2) if points is None else _control(points)
        self.regularisation = float(regularisation)
        count = len(self.control)
        flat = np.c_[np.ones(count), self.control]
        _require_spread(self.control)
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _bend(self.control, self.control, np)
        system[:count, :count] += self.regularisation * np.eye(count)
        system[:count, count:], system[count:, :count] = flat, flat.T
        self.solution = np.linalg.solve(system, np.eye(count + 3)[:, :count])
        self._name = _named("ThinPlateSpline", rows, columns, points, regularisation)

    def basis(self, points: Array) -> Array:
        """Return how much points follow each control point: see `Basis.basis`."""
        xp = _arrays.namespace(points=points)
        kind = {"dtype": points.dtype, "device": _arrays.device(points)}
        radial = _bend(points, xp.asarray(self.control, **kind), xp)
        terms = xp.concat((radial, xp.ones_like(points[..., :1]), points), axis=-1)
        return terms @ xp.asarray(self.solution, **kind)

    def __repr__(self) -> str:
        return self._name


def _bend(points: Array, control: Array, xp: Any) -> Array:
    """Return r² log r of the distances from points to control points, 0 where they meet."""
    difference = points[..., :, None, :] - control
    square = xp.sum(difference * difference, axis=-1)
    return 0.5 * square * xp.log(xp.where(square == 0, xp.ones_like(square), square))


class PiecewiseAffine(Basis):
    """A mesh of triangles, each moved by an affine transform of its own that its neighbours agree with at the edges.

    Parameters
    ----------
    rows, columns : int, default 4
        Control points on a regular lattice from -1 to 1; each of its squares is cut from upper left to lower right.
    points : array, shape (K, 2), optional
        Control points in the place of a lattice, in normalised output coordinates; the triangles are Delaunay's.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than 3 control points, two are the same or all lie on a line.
    ModuleNotFoundError
        If points are given, and SciPy is not installed.

    Notes
    -----
    Outside a lattice, a point moves as the nearest point of it does; outside Delaunay's triangles, as one of them says.
    Derived in chapter 6.

    Examples
    --------
    >>> PiecewiseAffine(2, 2).basis(np.asarray([[0.0, 0.0], [0.5, 0.0]]))  # in the middle of the cut, and beside it
    array([[0.5 , 0.  , 0.  , 0.5 ],
           [0.25, 0.25, 0.  , 0.5 ]])
    """

    def __init__(self, rows: int = 4, columns: int = 4, *, points: Any = None) -> None:
        self.control = _lattice(rows, columns, 2) if points is None else _control(points)
        self.shape = (rows, columns) if points is None else None
        _require_spread(self.control)
        if points is not None:
            spatial = require("scipy.spatial", "data", "a mesh of given points")
            self.triangles = spatial.Delaunay(self.control).simplices
        self._name = _named("PiecewiseAffine", rows, columns, points)

    def basis(self, points: Array) -> Array:
        """Return how much points follow each control point: see `Basis.basis`."""
        if self.shape is not None:
            return tent(points, *self.shape)
        xp = _arrays.namespace(points=points)
        kind = {"dtype": points.dtype, "device": _arrays.device(points)}
        corners = self.control[self.triangles]  # (T, 3, 2)
        matrices = np.linalg.inv(np.concatenate([corners, np.ones((len(corners), 3, 1))], -1))
        flat = xp.concat((points, xp.ones_like(points[..., :1])), axis=-1)
        # How much a point follows the corners of every triangle, (..., K, T, 3): all not negative inside it.
        shares = xp.sum(flat[..., None, :, None] * xp.asarray(matrices, **kind), axis=-2)
        inside = xp.argmax(xp.min(shares, axis=-1), axis=-1)
        count = len(corners)
        here = xp.arange(count, device=kind["device"]) == inside[..., None]
        shares = xp.where(here[..., None], shares, xp.zeros_like(shares))
        follow = np.eye(len(self.control))[self.triangles].reshape(3 * count, -1)
        return xp.reshape(shares, (*points.shape[:-1], 3 * count)) @ xp.asarray(follow, **kind)

    def apply(self, theta: Array, points: Array) -> Array:
        """Move points: see `Family.apply`."""
        if self.shape is None:
            return super().apply(theta, points)
        return _moved_with_the_nearest(self, theta, points)

    def __repr__(self) -> str:
        return self._name


def tent(points: Array, rows: int, columns: int) -> Array:
    """Return the weights, (..., K, rows * columns), of a lattice's linear functions on triangles, 1 at a node each.

    The lattice goes from -1 to 1, its squares cut from upper left to lower right; outside, the nearest point's hold.
    """
    xp = _arrays.namespace(points=points)
    kind = {"dtype": points.dtype, "device": _arrays.device(points)}
    nodes = xp.asarray(_lattice(rows, columns, 2), **kind)
    per_cell = xp.asarray([(columns - 1) / 2, (rows - 1) / 2], **kind)
    inside = xp.clip(points, -1.0, 1.0)
    away = (inside[..., :, None, :] - nodes) * per_cell
    dx, dy = away[..., 0], away[..., 1]
    farthest = xp.maximum(xp.maximum(xp.abs(dx), xp.abs(dy)), xp.abs(dx - dy))
    return xp.maximum(1 - farthest, xp.zeros_like(farthest))


class BSpline(Basis):
    """Free-form deformation: a lattice of control points, and cubic B-splines between them.

    A control point moves only what lies within two cells of it.

    Parameters
    ----------
    rows, columns : int, default 6
        Control points, at least 4; the outermost ring lies outside the image, a cell beyond -1 and 1.

    Raises
    ------
    TypeError, ValueError
        If rows or columns is not such a number.

    Notes
    -----
    Rueckert et al. (1999). A control point is pulled and not reached: B-splines smooth. Outside the image a point
    moves as the nearest point of its edge does. Derived in chapter 6.

    Examples
    --------
    >>> BSpline(4, 4).basis(np.zeros((1, 2))).reshape(4, 4).round(4)
    array([[0.0004, 0.01  , 0.01  , 0.0004],
           [0.01  , 0.2296, 0.2296, 0.01  ],
           [0.01  , 0.2296, 0.2296, 0.01  ],
           [0.0004, 0.01  , 0.01  , 0.0004]])
    """

    def __init__(self, rows: int = 6, columns: int = 6) -> None:
        self.shape = rows, columns
        if min(require_length(rows, "rows"), require_length(columns, "columns")) < 4:
            raise ValueError(f"rows, columns: expected at least 4, got {rows} and {columns}")
        y, x = (np.linspace(-1 - 2 / (n - 3), 1 + 2 / (n - 3), n) for n in self.shape)
        self.control = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)

    def basis(self, points: Array) -> Array:
        """Return how much points follow each control point: see `Basis.basis`."""
        xp = _arrays.namespace(points=points)
        down, along = (
            cubic(points[..., axis], length, xp)
            for axis, length in ((1, self.shape[0]), (0, self.shape[1]))
        )
        weights = down[..., :, None] * along[..., None, :]
        return xp.reshape(weights, (*points.shape[:-1], len(self.control)))

    def apply(self, theta: Array, points: Array) -> Array:
        """Move points: see `Family.apply`."""
        return _moved_with_the_nearest(self, theta, points)

    def __repr__(self) -> str:
        return f"BSpline{self.shape}"


def cubic(position: Array, count: int, xp: Any) -> Array:
    """Return the weights, (..., count), of cubic B-splines on a lattice a cell wider than -1 to 1 on either side."""
    nodes = xp.arange(count, dtype=position.dtype, device=_arrays.device(position))
    cell = (xp.clip(position, -1.0, 1.0) + 1) * ((count - 3) / 2) + 1
    away = xp.abs(cell[..., None] - nodes)
    zero = xp.zeros_like(away)
    outer, inner = xp.maximum(2 - away, zero), xp.maximum(1 - away, zero)
    return (outer**3 - 4 * inner**3) / 6


class DenseFlow(Family):
    """A displacement for each pixel, and between pixels what bilinear interpolation gives.

    Parameters
    ----------
    size : (H, W) or (D, H, W)
        Pixels of the flow. A grid of another size reads between them, and outside as at the nearest.
    align_corners : bool, default False
        Where the flow's pixels lie: see `stnlib.coordinates.regular_grid`.

    Raises
    ------
    TypeError, ValueError
        If size is not such a size.

    Notes
    -----
    theta holds (dx, dy), or (dx, dy, dz), in normalised coordinates, of one pixel after another, row by row. Derived in
    chapter 6.

    Examples
    --------
    >>> flow = DenseFlow((28, 28))
    >>> flow.num_parameters
    1568
    >>> flow.grid(np.zeros((5, 1568)), (28, 28)).shape
    (5, 28, 28, 2)
    """

    def __init__(self, size: Sequence[int], *, align_corners: bool = False) -> None:
        space = isinstance(size, Sequence) and len(size) == 3
        self.size = require_size(size, "size", 3 if space else 2)
        self.dimensions, self.align_corners = len(self.size), bool(align_corners)
        self.num_parameters = math.prod(self.size) * self.dimensions

    def identity(self) -> Array:
        """Return no displacement: a NumPy array of zeros, shape (P,)."""
        return np.zeros(self.num_parameters)

    def apply(self, theta: Array, points: Array) -> Array:
        """Move points: see `Family.apply`."""
        xp = self.check(theta, points)
        weights: Any = None
        for axis, length in enumerate(self.size):
            part = self._between(points[..., self.dimensions - 1 - axis], length, xp)
            if weights is None:
                weights = part
            else:
                weights = xp.reshape(
                    weights[..., :, None] * part[..., None, :],
                    (*part.shape[:-1], weights.shape[-1] * length),
                )
        flow = xp.reshape(theta, (theta.shape[0], math.prod(self.size), self.dimensions))
        return points + weights @ flow

    def grid(self, theta: Array, size: Sequence[int], *, align_corners: bool = False) -> Array:
        """Generate the sampling grid: see `Family.grid`."""
        xp, size = self.check_grid(theta, size)
        options = {"align_corners": align_corners, "xp": xp, "device": _arrays.device(theta)}
        flow = _arrays.to_float64(theta, xp)
        flow = xp.reshape(flow, (theta.shape[0], *self.size, self.dimensions))
        if size != self.size or bool(align_corners) != self.align_corners:
            for axis, (length, wanted) in enumerate(zip(self.size, size, strict=True), start=1):
                weights = self._between(pixel_centres(wanted, **options), length, xp)
                flow = xp.moveaxis(xp.tensordot(weights, flow, axes=((1,), (axis,))), 0, axis)
        return xp.astype(regular_grid(size, **options) + flow, theta.dtype, copy=False)

    def _between(self, position: Array, length: int, xp: Any) -> Array:
        """Return the weights, (..., length), of the flow's pixels along an axis."""
        if length == 1:
            return xp.ones_like(position)[..., None]
        edge = normalise(length - 1.0, length, align_corners=self.align_corners)
        options = {"align_corners": self.align_corners, "xp": xp}
        nodes = pixel_centres(length, device=_arrays.device(position), **options)
        inside = xp.clip(position, -edge, edge)[..., None]
        away = xp.abs(inside - xp.astype(nodes, position.dtype, copy=False))
        away = away * ((length - 1) / (2 * edge))
        return xp.maximum(1 - away, xp.zeros_like(away))

    def __repr__(self) -> str:
        return f"DenseFlow({self.size}{', align_corners=True' if self.align_corners else ''})"


def _moved_with_the_nearest(family: Basis, theta: Array, points: Array) -> Array:
    """Move points by a basis; one outside -1 to 1 as the nearest point inside."""
    xp = family.check(theta, points)
    inside = xp.clip(points, -1.0, 1.0)
    return family.basis(inside) @ family._moved(theta) + (points - inside)


def _lattice(rows: int, columns: int, least: int) -> np.ndarray:
    """Return the points of a regular lattice from -1 to 1, row by row."""
    for name, length in (("rows", rows), ("columns", columns)):
        if require_length(length, name) < least:
            raise ValueError(f"{name}: expected at least {least}, got {length}")
    y, x = np.linspace(-1, 1, rows), np.linspace(-1, 1, columns)
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


def _control(points: Any) -> np.ndarray:
    """Return control points as an array of float64."""
    points = np.asarray(points)
    require_float(np, points=points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points: expected shape (K, 2), got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("points: expected finite numbers, got NaN or infinity")
    return points.astype(np.float64)


def _require_spread(control: np.ndarray) -> None:
    """Raise ``ValueError`` unless control points span the plane, and no two are the same."""
    if len(control) < 3:
        raise ValueError(f"points: expected at least 3, got {len(control)}")
    if len(np.unique(control, axis=0)) < len(control):
        raise ValueError("points: expected no two the same, got one twice; remove it")
    if np.linalg.matrix_rank(control - control.mean(0), tol=1e-9 * np.ptp(control)) < 2:
        raise ValueError("points: expected some that do not lie on one line, got a line")


def _named(name: str, rows: int, columns: int, points: Any, regularisation: float = 0.0) -> str:
    given = (
        f"{rows}, {columns}" if points is None else f"points={len(np.asarray(points))} of them"
    )
    return f"{name}({given}{f', regularisation={regularisation!r}' if regularisation else ''})"
