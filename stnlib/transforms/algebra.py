"""What is done with matrices: apply, compose and invert them, and write them in homogeneous form (chapter 1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _arrays
from .._arrays import Array, require_broadcast, require_float, require_same_dtype, to_float64

_SQUARINGS, _TERMS = 5, 14  # of the exponential
_ROOTS, _ITERATIONS = 4, 20  # of the logarithm


def to_homogeneous(matrix: Array) -> Array:
    """Append the row (0, 0, 1), so that matrices compose by multiplication.

    Parameters
    ----------
    matrix : array of float32 or float64, shape (..., 2, 3) or (..., 3, 4)

    Returns
    -------
    array, shape (..., 3, 3) or (..., 4, 4)

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
    columns = matrix.shape[-1]
    row = [[0.0] * (columns - 1) + [1.0]]
    last = xp.asarray(row, dtype=matrix.dtype, device=_arrays.device(matrix))
    return xp.concat((matrix, xp.broadcast_to(last, (*matrix.shape[:-2], 1, columns))), axis=-2)


def from_homogeneous(matrix: Array) -> Array:
    """Drop the last row of homogeneous matrices, after dividing by their last entry.

    Parameters
    ----------
    matrix : array of float32 or float64, shape (..., 3, 3) or (..., 4, 4)
        The last row a multiple of (0, 0, 1) or (0, 0, 0, 1).

    Returns
    -------
    array, shape (..., 2, 3) or (..., 3, 4)

    Raises
    ------
    TypeError
        If matrix is not an array of float32 or float64.
    ValueError
        If the shape differs, or the last row is no such multiple: then the matrix is projective and has no affine
        form.

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
    if tuple(matrix.shape[-2:]) not in ((3, 3), (4, 4)):
        raise ValueError(
            f"matrix: expected shape (..., 3, 3) or (..., 4, 4), got {tuple(matrix.shape)}"
        )
    last = matrix[..., -1, :]
    if bool(xp.any(last[..., :-1] != 0)) or bool(xp.any(last[..., -1] == 0)):
        zeros = ", ".join(["0"] * (matrix.shape[-1] - 1))
        raise ValueError(
            f"matrix: expected a last row ({zeros}, w) with w not 0, got a projective or singular matrix"
        )
    return matrix[..., :-1, :] / matrix[..., -1:, -1:]


def apply(matrix: Array, points: Array) -> Array:
    """Move points by a matrix.

    Parameters
    ----------
    matrix : array of float32 or float64, shape (..., 2, 3) or (..., 3, 4)
    points : array of the same dtype, shape (..., K, 2) or (..., K, 3)
        K points (x, y) or (x, y, z).

    Returns
    -------
    array, of points' shape, leading dimensions broadcast

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
    dimensions = matrix.shape[-2]
    if points.ndim < 2 or points.shape[-1] != dimensions:
        raise ValueError(
            f"points: expected shape (..., K, {dimensions}), got {tuple(points.shape)}"
        )
    require_broadcast(2, matrix=matrix, points=points)
    return points @ xp.matrix_transpose(matrix[..., :-1]) + matrix[..., None, :, -1]


def compose(*matrices: Array) -> Array:
    """Return the matrix of several transforms one after the other, the last argument first.

    ``compose(a, b)`` is the product a b: it moves a point by b, then by a, as the function a(b(p)) does.

    Parameters
    ----------
    *matrices : arrays of float32 or float64, shape (..., 2, 3) or (..., 3, 4)
        At least one; leading dimensions broadcast.

    Returns
    -------
    array, shape (..., 2, 3) or (..., 3, 4)

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
    require_broadcast(2, **named)
    product = to_homogeneous(matrices[0])
    for matrix in matrices[1:]:
        product = product @ to_homogeneous(matrix)
    return product[..., :-1, :]


def inverse(matrix: Array) -> Array:
    """Return the matrix that undoes ``matrix``.

    Parameters
    ----------
    matrix : array of float32 or float64, shape (..., 2, 3) or (..., 3, 4)

    Returns
    -------
    array, of matrix's shape

    Raises
    ------
    TypeError
        If matrix is not an array of float32 or float64.
    ValueError
        If the shape differs, or a matrix is singular: it flattens the plane, or space, and cannot be undone.

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
    if matrix.shape[-2] == 3:
        linear = inverse_3x3(matrix[..., :3], xp)
        return xp.concat((linear, -linear @ matrix[..., 3:]), axis=-1)
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


def exponential(generator: Array) -> Array:
    """Return the matrix that a motion reaches in one unit of time, whose velocity at p is ``generator @ (p, 1)``.

    Every such matrix can be inverted: by the exponential of ``-generator``.

    Parameters
    ----------
    generator : array of float32 or float64, shape (..., 2, 3) or (..., 3, 4)

    Returns
    -------
    array, of generator's shape

    Raises
    ------
    TypeError, ValueError
        If generator is not such an array.

    See Also
    --------
    logarithm : The way back.

    Notes
    -----
    The exponential of the square matrix whose last row is zero, by scaling and squaring; within rounding for entries
    up to about 10. Derived in chapter 6.

    Examples
    --------
    >>> import numpy as np
    >>> turn = np.array([[0.0, -np.pi / 2, 0.0], [np.pi / 2, 0.0, 0.0]])
    >>> exponential(turn).round(6) + 0.0
    array([[ 0., -1.,  0.],
           [ 1.,  0.,  0.]])
    """
    xp = _check_matrix(generator, "generator")
    step = xp.concat((generator, xp.zeros_like(generator[..., :1, :])), axis=-2) / 2**_SQUARINGS
    one = _one(step, xp)
    power = one + step / _TERMS
    for n in range(_TERMS - 1, 0, -1):
        power = one + (step @ power) / n
    for _ in range(_SQUARINGS):
        power = power @ power
    return power[..., :-1, :]


@np.errstate(all="ignore")  # on the way to a refusal
def logarithm(matrix: Array) -> Array:
    """Return the generator whose `exponential` is a matrix.

    Parameters
    ----------
    matrix : array of float32 or float64, shape (..., 2, 3) or (..., 3, 4)

    Returns
    -------
    array, of matrix's shape

    Raises
    ------
    TypeError
        If matrix is not an array of float32 or float64.
    ValueError
        If the shape differs, or a matrix has no real logarithm that varies smoothly with it: it is singular, a mirror
        image, or turns by half a circle.

    Notes
    -----
    By square roots (Denman and Beavers) until the matrix is near the identity. Derived in chapter 6.

    Examples
    --------
    >>> from stnlib.transforms import translation
    >>> logarithm(translation(3.0, 4.0))
    array([[0., 0., 3.],
           [0., 0., 4.]])
    """
    xp = _check_matrix(matrix, "matrix")
    refusal = (
        "matrix: expected one that a steady motion reaches, got a singular matrix, a mirror image or half a turn; "
        "it has no logarithm"
    )
    dtype, matrix = matrix.dtype, to_float64(matrix, xp)
    try:
        root = matrix
        for _ in range(_ROOTS):
            root = _square_root(root, xp)
    except ValueError:
        raise ValueError(refusal) from None
    one = _one(matrix, xp)
    ratio = (to_homogeneous(root) - one) @ to_homogeneous(inverse((root + one[:-1, :]) / 2)) / 2
    total, power = ratio, ratio
    for n in range(3, 32, 2):  # 2 artanh(ratio)
        power = power @ ratio @ ratio
        total = total + power / n
    found = 2.0 ** (_ROOTS + 1) * total[..., :-1, :]
    off = xp.abs(exponential(found) - matrix)
    if not bool(xp.all(off <= 1e3 * xp.finfo(matrix.dtype).eps * (1 + xp.abs(matrix)))):
        raise ValueError(refusal)
    return xp.astype(found, dtype, copy=False)


def _one(like: Array, xp: Any) -> Array:
    """Return the identity, as square as a matrix is wide."""
    n = like.shape[-1]
    rows = [[float(r == c) for c in range(n)] for r in range(n)]
    return xp.asarray(rows, dtype=like.dtype, device=_arrays.device(like))


def _square_root(matrix: Array, xp: Any) -> Array:
    """Return the square root of a matrix that is nearest to the identity, if there is one (Denman and Beavers)."""
    one = _one(matrix, xp)[:-1, :]
    root, reciprocal = matrix, xp.broadcast_to(one, matrix.shape)
    for _ in range(_ITERATIONS):
        root, reciprocal = (
            (root + inverse(reciprocal)) / 2,
            (reciprocal + inverse(root)) / 2,
        )
    return root


def inverse_3x3(matrix: Array, xp: Any) -> Array:
    """Return the inverse of square matrices, (..., 3, 3); raise ``ValueError`` if one is singular."""
    rows = [matrix[..., i, :] for i in range(3)]
    columns = [xp.linalg.cross(rows[(i + 1) % 3], rows[(i + 2) % 3], axis=-1) for i in range(3)]
    determinant = xp.sum(rows[0] * columns[0], axis=-1)
    if bool(xp.any(determinant == 0)):
        raise ValueError(
            "matrix: expected an invertible matrix, got one of determinant 0; no transform undoes it"
        )
    return xp.stack(columns, axis=-1) / determinant[..., None, None]


def _check_matrix(matrix: Array, name: str, *, plane: bool = False) -> Any:
    """Return the namespace of matrices of the plane, or of space too."""
    xp = _arrays.namespace(**{name: matrix})
    require_float(xp, **{name: matrix})
    if tuple(matrix.shape[-2:]) not in (((2, 3),) if plane else ((2, 3), (3, 4))):
        expected = "(..., 2, 3)" if plane else "(..., 2, 3) or (..., 3, 4)"
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(matrix.shape)}")
    return xp
