"""What is done with matrices: apply, compose and invert them, and write them in homogeneous form (chapter 1)."""

from __future__ import annotations

from typing import Any

from .. import _arrays
from .._arrays import Array, require_broadcast, require_float, require_same_dtype


def to_homogeneous(matrix: Array) -> Array:
    """Append the row (0, 0, 1), so that matrices compose by multiplication.

    Parameters
    ----------
    matrix : array of float32 or float64, shape (..., 2, 3)

    Returns
    -------
    array, shape (..., 3, 3)

    Raises
    ------
    TypeError, ValueError
        If matrix is not such an array.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> from stnlib.transforms import translation
    >>> to_homogeneous(translation(3.0, 4.0))
    array([[1., 0., 3.],
           [0., 1., 4.],
           [0., 0., 1.]])
    """
    xp = _check_matrix(matrix, "matrix")
    last = xp.asarray([[0.0, 0.0, 1.0]], dtype=matrix.dtype, device=_arrays.device(matrix))
    return xp.concat((matrix, xp.broadcast_to(last, (*matrix.shape[:-2], 1, 3))), axis=-2)


def from_homogeneous(matrix: Array) -> Array:
    """Drop the last row of homogeneous matrices, after dividing by their last entry.

    Parameters
    ----------
    matrix : array of float32 or float64, shape (..., 3, 3)
        The last row a multiple of (0, 0, 1).

    Returns
    -------
    array, shape (..., 2, 3)

    Raises
    ------
    TypeError
        If matrix is not an array of float32 or float64.
    ValueError
        If the shape differs, or the last row is not a multiple of (0, 0, 1): then the matrix is projective and
        has no affine form.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> from stnlib.transforms import translation
    >>> from_homogeneous(2 * to_homogeneous(translation(3.0, 4.0)))
    array([[1., 0., 3.],
           [0., 1., 4.]])
    """
    xp = _arrays.namespace(matrix=matrix)
    require_float(xp, matrix=matrix)
    if tuple(matrix.shape[-2:]) != (3, 3):
        raise ValueError(f"matrix: expected shape (..., 3, 3), got {tuple(matrix.shape)}")
    last = matrix[..., 2, :]
    if bool(xp.any(last[..., :2] != 0)) or bool(xp.any(last[..., 2] == 0)):
        raise ValueError(
            "matrix: expected a last row (0, 0, w) with w not 0, got a projective or singular matrix"
        )
    return matrix[..., :2, :] / matrix[..., 2:, 2:]


def apply(matrix: Array, points: Array) -> Array:
    """Move points by a matrix.

    Parameters
    ----------
    matrix : array of float32 or float64, shape (..., 2, 3)
    points : array of the same dtype, shape (..., K, 2)
        K points (x, y).

    Returns
    -------
    array, shape (..., K, 2)

    Raises
    ------
    TypeError, ValueError
        If an argument is not such an array.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> import numpy as np
    >>> from stnlib.transforms import translation
    >>> apply(translation(3.0, 4.0), np.asarray([[0.0, 0.0], [1.0, 1.0]]))
    array([[3., 4.],
           [4., 5.]])
    """
    xp = _check_matrix(matrix, "matrix")
    _arrays.namespace(matrix=matrix, points=points)
    require_same_dtype(matrix=matrix, points=points)
    if points.ndim < 2 or points.shape[-1] != 2:
        raise ValueError(f"points: expected shape (..., K, 2), got {tuple(points.shape)}")
    require_broadcast(matrix=matrix[..., 0, 0], points=points[..., 0, 0])
    return points @ xp.matrix_transpose(matrix[..., :2]) + matrix[..., None, :, 2]


def compose(*matrices: Array) -> Array:
    """Return the matrix of several transforms one after the other, the last argument first.

    ``compose(a, b)`` is the product a b: it moves a point by b, then by a, as the function a(b(p)) does.

    Parameters
    ----------
    *matrices : arrays of float32 or float64, shape (..., 2, 3)
        At least one; leading dimensions broadcast.

    Returns
    -------
    array, shape (..., 2, 3)

    Raises
    ------
    TypeError, ValueError
        If there is none, or an argument is not such an array.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> from stnlib.transforms import scale, translation
    >>> compose(translation(1.0, 0.0), scale(2.0))  # scale, then shift
    array([[2., 0., 1.],
           [0., 2., 0.]])
    >>> compose(scale(2.0), translation(1.0, 0.0))  # shift, then scale: twice as far
    array([[2., 0., 2.],
           [0., 2., 0.]])
    """
    if not matrices:
        raise ValueError("matrices: expected at least one matrix, got none")
    for i, matrix in enumerate(matrices):
        _check_matrix(matrix, f"matrices[{i}]")
    named = {f"matrices[{i}]": matrix for i, matrix in enumerate(matrices)}
    _arrays.namespace(**named)
    require_same_dtype(**named)
    require_broadcast(**{name: matrix[..., 0, 0] for name, matrix in named.items()})
    product = to_homogeneous(matrices[0])
    for matrix in matrices[1:]:
        product = product @ to_homogeneous(matrix)
    return product[..., :2, :]


def inverse(matrix: Array) -> Array:
    """Return the matrix that undoes ``matrix``.

    Parameters
    ----------
    matrix : array of float32 or float64, shape (..., 2, 3)

    Returns
    -------
    array, shape (..., 2, 3)

    Raises
    ------
    TypeError
        If matrix is not an array of float32 or float64.
    ValueError
        If the shape differs, or a matrix is singular: it flattens the plane and cannot be undone.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> from stnlib.transforms import scale, translation
    >>> inverse(compose(translation(1.0, 0.0), scale(2.0)))
    array([[ 0.5, -0. , -0.5],
           [-0. ,  0.5,  0. ]])
    """
    xp = _check_matrix(matrix, "matrix")
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    determinant = a * d - b * c
    if bool(xp.any(determinant == 0)):
        raise ValueError(
            "matrix: expected an invertible matrix, got one of determinant 0; no transform undoes it"
        )
    linear = (
        xp.stack((xp.stack((d, -b), axis=-1), xp.stack((-c, a), axis=-1)), axis=-2)
        / determinant[..., None, None]
    )
    return xp.concat((linear, -linear @ matrix[..., 2:]), axis=-1)


def _check_matrix(matrix: Array, name: str) -> Any:
    xp = _arrays.namespace(**{name: matrix})
    require_float(xp, **{name: matrix})
    if tuple(matrix.shape[-2:]) != (2, 3):
        raise ValueError(f"{name}: expected shape (..., 2, 3), got {tuple(matrix.shape)}")
    return xp
