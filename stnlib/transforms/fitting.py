"""Parameters from pairs of points, by least squares (chapter 6)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _arrays
from .._arrays import require_float
from .algebra import inverse_3x3
from .bases import Basis
from .families import Family
from .linear import Affine, ExponentialAffine, Linear
from .projective import Projective

STEPS = 100  # of Gauss and Newton's method, at most
SMALL = 1e-6  # step of a difference quotient
FLAT = 1e-9  # singular values below this part of the largest count as none


def fit(family: Family, source_points: Any, target_points: Any) -> np.ndarray:
    """Fit a transform to pairs of points: the target points go to the source points, as nearly as the family can.

    Parameters
    ----------
    family : Family
        Linear (translation to affine), projective, or one with control points, such as the thin plate spline.
    source_points, target_points : arrays of float32 or float64, shape (K, 2) or (K, 3)
        Points of the input, and where they lie in the output, in normalised coordinates.

    Returns
    -------
    NumPy array of float64, shape (P,)
        The parameters for which the sum of squared distances between ``family.apply(theta, target_points)`` and
        source_points is least.

    Raises
    ------
    TypeError
        If a family has no fit, or points are not such arrays.
    ValueError
        If the shapes differ, there are fewer points than needed, or they do not determine the transform: a projective
        one needs four of which no three lie on a line, a spline as many as it has control points.

    Notes
    -----
    Linear in the parameters: by orthogonal factors. Rotations: from the closed form of Umeyama (1991). Projective: from
    the normalised linear solution of Hartley (1997). The last two are then refined by Gauss and Newton's method, since
    it is distances between points that are to be small. Derived in chapter 6.

    Examples
    --------
    >>> from stnlib.transforms import Similarity
    >>> target = np.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> source = 2 * target + 0.5
    >>> fit(Similarity(), source, target).round(6) + 0.0
    array([2. , 0. , 0.5, 0.5])
    """
    if not isinstance(family, Linear | Basis | Projective):
        raise TypeError(
            f"family: expected a linear or a projective one, or one with control points, got {family!r}"
        )
    source, target = _pairs(family, source_points, target_points)
    if isinstance(family, ExponentialAffine):
        entries = _fit_table(Affine(dimensions=family.dimensions), source, target)
        shape = family.dimensions, family.dimensions + 1
        return np.asarray(family.from_matrix(entries.reshape(1, *shape)))[0]
    if isinstance(family, Affine):
        return _fit_table(family, source, target)
    if isinstance(family, Basis):
        rows = np.asarray(family.basis(target))
        # Outside the image a point keeps its distance from the nearest inside, which no control point explains.
        still = np.asarray(family.apply(family.identity()[None], target)[0])
        source = source - (still - rows @ family.control)
        return _solve(rows, source, len(target), len(family.control)).reshape(-1)
    if isinstance(family, Projective):
        start = Projective().from_matrix(_homography(source, target)[None])
        theta = _refined(Projective(), start[0], source, target)
        return np.asarray(family.from_matrix(Projective().matrix(theta[None])))[0]
    return _refined(family, _start(family, source, target), source, target)


def _pairs(family: Family, source: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the points in float64; raise unless they fit the family, and are enough."""
    points = {"source_points": source, "target_points": target}
    arrays = []
    for name, given in points.items():
        array: Any = np.asarray(given)
        require_float(np, **{name: array})
        _arrays.require_shape(array, name, f"(K, {family.dimensions})")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
        arrays.append(array.astype(np.float64))
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(
            f"target_points: expected {len(arrays[0])} points, as source_points has, got {len(arrays[1])}"
        )
    least = -(-family.num_parameters // family.dimensions)
    if len(arrays[0]) < least:
        raise ValueError(
            f"target_points: expected at least {least} for the {family.num_parameters} parameters of {family}, "
            f"got {len(arrays[0])}"
        )
    return arrays[0], arrays[1]


def _fit_table(family: Affine, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit the names of a table: a row of equations a coordinate, linear in them."""
    flat = np.c_[target, np.ones(len(target))]
    rows, values = [], []
    for r, entries in enumerate(family.table):
        row, value = np.zeros((len(target), family.num_parameters)), source[:, r].copy()
        for c, entry in enumerate(entries):
            if isinstance(entry, str):
                sign = -1 if entry.startswith("-") else 1
                row[:, family.names.index(entry.lstrip("-"))] += sign * flat[:, c]
            else:
                value -= float(entry) * flat[:, c]
        rows.append(row)
        values.append(value)
    return _solve(
        np.concatenate(rows), np.concatenate(values), len(target), family.num_parameters
    )


def _solve(rows: np.ndarray, values: np.ndarray, points: int, unknown: int) -> np.ndarray:
    """Return the least-squares solution; raise unless there is one alone."""
    found, _, rank, _ = np.linalg.lstsq(rows, values, rcond=FLAT)
    if rank < unknown:
        raise ValueError(_undetermined(points))
    return found


def _undetermined(points: int) -> str:
    return (
        f"target_points: expected points that determine the transform, got {points} that do not: "
        f"some coincide, lie on one line, or leave a control point without any"
    )


def _start(family: Linear, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return parameters near the best: the closed form for a rotation, the identity without one."""
    parts = getattr(family, "parts", {})
    if not parts.get("rotation"):
        return np.asarray(family.identity())
    a, b = source, target
    if parts["translation"]:
        a, b = a - a.mean(0), b - b.mean(0)
    u, sizes, vt = np.linalg.svd(a.T @ b)
    if sizes[family.dimensions - 2] <= FLAT * max(sizes[0], FLAT):
        raise ValueError(_undetermined(len(target)))
    signs = np.ones(family.dimensions)
    signs[-1] = np.sign(np.linalg.det(u @ vt)) or 1.0
    linear = u @ np.diag(signs) @ vt
    if parts["scale"]:
        linear = linear * (sizes @ signs) / np.sum(b * b)
    shift = (
        source.mean(0) - linear @ target.mean(0)
        if parts["translation"]
        else np.zeros(len(linear))
    )
    return np.asarray(family._read(np.c_[linear, shift][None], np))[0]


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the matrix, (3, 3), from target to source points, by the normalised linear equations (Hartley)."""
    (to_a, a), (to_b, b) = _normalised(source), _normalised(target)
    flat = np.c_[b, np.ones(len(b))]
    zero = np.zeros_like(flat)
    rows = np.concatenate(
        [np.c_[flat, zero, -a[:, :1] * flat], np.c_[zero, flat, -a[:, 1:] * flat]]
    )
    _, sizes, vt = np.linalg.svd(rows)
    if sizes[7] <= FLAT * sizes[0]:
        raise ValueError(_undetermined(len(target)))
    matrix = vt[-1].reshape(3, 3)
    if np.linalg.matrix_rank(matrix, tol=FLAT) < 3:
        raise ValueError(_undetermined(len(target)))
    return np.asarray(inverse_3x3(to_a, np) @ matrix @ to_b)


def _normalised(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points moved to mean 0 and mean distance √2, and the matrix that moves them."""
    middle = points.mean(0)
    distance = np.linalg.norm(points - middle, axis=1).mean()
    if distance == 0:
        raise ValueError(_undetermined(len(points)))
    s = np.sqrt(2) / distance
    matrix = np.array([[s, 0, -s * middle[0]], [0, s, -s * middle[1]], [0, 0, 1]])
    return matrix, s * (points - middle)


def _refined(
    family: Family, theta: np.ndarray, source: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """Return the parameters of the least sum of squares near some (Gauss and Newton, with Levenberg's damping)."""

    def residual(values: np.ndarray) -> np.ndarray:
        return np.asarray(family.apply(values[None], target)[0] - source).reshape(-1)

    damping, off = 1e-6, residual(theta)
    for _ in range(STEPS):
        slopes = _slopes(residual, theta)
        size = np.linalg.norm(slopes, axis=0)
        if np.linalg.matrix_rank(slopes / np.where(size > 0, size, 1), tol=FLAT) < len(theta):
            raise ValueError(_undetermined(len(target)))
        normal = slopes.T @ slopes
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slopes.T @ off)
        after = residual(theta + step)
        if after @ after <= off @ off:
            theta, off, damping = theta + step, after, damping / 10
        else:
            damping *= 10
        if np.linalg.norm(step) <= 1e-13 * (1 + np.linalg.norm(theta)):
            break
    return theta


def _slopes(residual: Any, theta: np.ndarray) -> np.ndarray:
    columns = []
    for i in range(len(theta)):
        move = np.zeros_like(theta)
        move[i] = SMALL * (1 + abs(theta[i]))
        columns.append((residual(theta + move) - residual(theta - move)) / (2 * move[i]))
    return np.stack(columns, -1)
