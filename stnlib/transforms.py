"""The matrices of chapter 1, their algebra, and the family of affine transforms.

Convention: a matrix acts on points (x, y), x to the right and y down, as pixels lie in an image. It is stored as its
upper two rows, shape (..., 2, 3): the point (x, y) goes to ``matrix[:, :2] @ (x, y) + matrix[:, 2]``. A ``theta`` is
such a matrix between normalised coordinates, from the output to the input. Angles are in radians; a positive one turns
the x axis towards the y axis, clockwise as an image is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import array_api_compat.numpy as numpy_namespace
import numpy as np

from . import _arrays
from ._arrays import (
    Array,
    require_broadcast,
    require_float,
    require_same_dtype,
    require_shape,
    require_size,
)
from .coordinates import normalise, unnormalise
from .sampling import affine_grid

Size = tuple[int, int]
"""Height and width in pixels."""


def _parameters(**parameters: Any) -> tuple[list[Array], Any]:
    """Return numbers and arrays as arrays of one library, dtype and device, and their namespace."""
    arrays = {
        name: value
        for name, value in parameters.items()
        if _arrays.is_array_api_obj(value) and not isinstance(value, np.generic)
    }
    xp = _arrays.namespace(**arrays) if arrays else numpy_namespace
    require_float(xp, **arrays)
    require_same_dtype(**arrays)
    like = next(iter(arrays.values()), np.zeros(()))
    require_broadcast(**arrays)
    converted = []
    for name, value in parameters.items():
        if name not in arrays:
            if not isinstance(value, Real):
                raise TypeError(
                    f"{name}: expected a number or an array, got {type(value).__name__}"
                )
            value = xp.asarray(float(value), dtype=like.dtype, device=_arrays.device(like))
        converted.append(value)
    return converted, xp


def _rows(top: Sequence[Any], bottom: Sequence[Any], xp: Any) -> Array:
    """Stack entries, arrays that broadcast or plain numbers, into matrices (..., 2, 3)."""
    like = next(e for e in (*top, *bottom) if type(e) is not float)
    entries = [xp.full_like(like, e) if type(e) is float else e for e in (*top, *bottom)]
    entries = xp.broadcast_arrays(*entries)
    return xp.reshape(xp.stack(entries, axis=-1), (*entries[0].shape, 2, 3))


def translation(tx: Any, ty: Any) -> Array:
    """Return the matrix that moves every point by (tx, ty). Two degrees of freedom.

    Parameters
    ----------
    tx, ty : float or array of any shape
        Shift along x and y, in the coordinates in which the matrix is used.

    Returns
    -------
    array, shape (..., 2, 3)

    Raises
    ------
    TypeError
        If an array is not of float32 or float64.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> translation(3.0, -1.0)
    array([[ 1.,  0.,  3.],
           [ 0.,  1., -1.]])
    """
    (tx, ty), xp = _parameters(tx=tx, ty=ty)
    return _rows((1.0, 0.0, tx), (0.0, 1.0, ty), xp)


def rotation(angle: Any) -> Array:
    """Return the matrix that rotates about the origin. One degree of freedom.

    Parameters
    ----------
    angle : float or array of any shape
        Radians; positive turns the x axis towards the y axis.

    Returns
    -------
    array, shape (..., 2, 3)

    Raises
    ------
    TypeError
        If an array is not of float32 or float64.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> rotation(np.pi / 2).round(6) + 0.0
    array([[ 0., -1.,  0.],
           [ 1.,  0.,  0.]])
    """
    (angle,), xp = _parameters(angle=angle)
    c, s = xp.cos(angle), xp.sin(angle)
    return _rows((c, -s, 0.0), (s, c, 0.0), xp)


def scale(sx: Any, sy: Any = None) -> Array:
    """Return the matrix that scales about the origin. One degree of freedom, or two.

    Parameters
    ----------
    sx, sy : float or array of any shape
        Factors along x and y; ``sy`` is ``sx`` where it is left out.

    Returns
    -------
    array, shape (..., 2, 3)

    Raises
    ------
    TypeError
        If an array is not of float32 or float64.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> scale(2.0)
    array([[2., 0., 0.],
           [0., 2., 0.]])
    """
    (sx, sy), xp = _parameters(sx=sx, sy=sx if sy is None else sy)
    return _rows((sx, 0.0, 0.0), (0.0, sy, 0.0), xp)


def shear(kx: Any, ky: Any = 0.0) -> Array:
    """Return the matrix that shears: x grows by ``kx * y``, and y by ``ky * x``. Two degrees of freedom.

    Parameters
    ----------
    kx, ky : float or array of any shape
        Shear along x and along y.

    Returns
    -------
    array, shape (..., 2, 3)

    Raises
    ------
    TypeError
        If an array is not of float32 or float64.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> shear(0.5)
    array([[1. , 0.5, 0. ],
           [0. , 1. , 0. ]])
    """
    (kx, ky), xp = _parameters(kx=kx, ky=ky)
    return _rows((1.0, kx, 0.0), (ky, 1.0, 0.0), xp)


def rigid(angle: Any, tx: Any, ty: Any) -> Array:
    """Return the matrix that rotates about the origin, then shifts. Three degrees of freedom; keeps lengths.

    Parameters
    ----------
    angle : float or array of any shape
        Radians; positive turns the x axis towards the y axis.
    tx, ty : float or array of any shape
        Shift along x and y.

    Returns
    -------
    array, shape (..., 2, 3)

    Raises
    ------
    TypeError
        If an array is not of float32 or float64.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> rigid(0.0, 3.0, 4.0)
    array([[ 1., -0.,  3.],
           [ 0.,  1.,  4.]])
    """
    return similarity(1.0, angle, tx, ty)


def similarity(s: Any, angle: Any, tx: Any, ty: Any) -> Array:
    """Return the matrix that scales by s and rotates about the origin, then shifts. Four degrees of freedom.

    Parameters
    ----------
    s : float or array of any shape
        Scale, the same along x and y; keeps angles.
    angle : float or array of any shape
        Radians; positive turns the x axis towards the y axis.
    tx, ty : float or array of any shape
        Shift along x and y.

    Returns
    -------
    array, shape (..., 2, 3)

    Raises
    ------
    TypeError
        If an array is not of float32 or float64.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> similarity(2.0, 0.0, 3.0, 4.0)
    array([[ 2., -0.,  3.],
           [ 0.,  2.,  4.]])
    """
    (s, angle, tx, ty), xp = _parameters(s=s, angle=angle, tx=tx, ty=ty)
    along, across = s * xp.cos(angle), s * xp.sin(angle)
    return _rows((along, -across, tx), (across, along, ty), xp)


def affine(a11: Any, a12: Any, tx: Any, a21: Any, a22: Any, ty: Any) -> Array:
    """Return the matrix with these six entries, row by row. Six degrees of freedom; keeps lines parallel.

    Parameters
    ----------
    a11, a12, tx, a21, a22, ty : float or array of any shape
        The entries, as in equation (1) of the paper.

    Returns
    -------
    array, shape (..., 2, 3)

    Raises
    ------
    TypeError
        If an array is not of float32 or float64.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> affine(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    array([[1., 2., 3.],
           [4., 5., 6.]])
    """
    entries, xp = _parameters(a11=a11, a12=a12, tx=tx, a21=a21, a22=a22, ty=ty)
    return _rows(entries[:3], entries[3:], xp)


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


def theta_to_pixel(
    theta: Array, input_size: Size, output_size: Size, *, align_corners: bool = False
) -> Array:
    """Convert a theta between normalised coordinates to the matrix between pixels.

    Parameters
    ----------
    theta : array of float32 or float64, shape (..., 2, 3)
        From normalised output coordinates to normalised input coordinates.
    input_size, output_size : (H, W)
        In pixels.
    align_corners : bool, default False
        Where -1 and 1 lie: at the centres of the corner pixels (True) or at their outer edges (False).

    Returns
    -------
    array, shape (..., 2, 3)
        From output pixels (x, y) to input pixels, counted from the centre of the first: the matrix that OpenCV's
        ``warpAffine`` takes with ``WARP_INVERSE_MAP``, and scikit-image's ``warp`` as its ``inverse_map``.

    Raises
    ------
    TypeError, ValueError
        If theta is not such an array, or a size is not two positive numbers.

    Notes
    -----
    Derived in chapter 1. With ``align_corners=True`` an axis of one pixel has no extent between its corner centres:
    whatever the transform, its coordinate is 0.

    Examples
    --------
    >>> theta_to_pixel(scale(1.0), (4, 4), (8, 8))  # twice the size: half a step a pixel
    array([[ 0.5 ,  0.  , -0.25],
           [ 0.  ,  0.5 , -0.25]])
    """
    from_pixels = _axes(normalise, output_size, "output_size", theta, align_corners)
    to_pixels = _axes(unnormalise, input_size, "input_size", theta, align_corners)
    return compose(to_pixels, theta, from_pixels)


def pixel_to_theta(
    matrix: Array, input_size: Size, output_size: Size, *, align_corners: bool = False
) -> Array:
    """Convert a matrix between pixels to the theta between normalised coordinates.

    Parameters
    ----------
    matrix : array of float32 or float64, shape (..., 2, 3)
        From output pixels (x, y) to input pixels, counted from the centre of the first.
    input_size, output_size : (H, W)
        In pixels.
    align_corners : bool, default False
        Where -1 and 1 lie: at the centres of the corner pixels (True) or at their outer edges (False).

    Returns
    -------
    array, shape (..., 2, 3)
        From normalised output coordinates to normalised input coordinates.

    Raises
    ------
    TypeError, ValueError
        If matrix is not such an array, or a size is not two positive numbers.

    Notes
    -----
    Derived in chapter 1. With ``align_corners=True`` an axis of one pixel has no extent between its corner centres:
    whatever the transform, its coordinate is 0.

    Examples
    --------
    >>> pixel_to_theta(translation(1.0, 0.0), (4, 4), (4, 4))  # one pixel of four is 0.5
    array([[1. , 0. , 0.5],
           [0. , 1. , 0. ]])
    """
    from_theta = _axes(unnormalise, output_size, "output_size", matrix, align_corners)
    to_theta = _axes(normalise, input_size, "input_size", matrix, align_corners)
    return compose(to_theta, matrix, from_theta)


def box_to_theta(box: Array, input_size: Size, *, align_corners: bool = False) -> Array:
    """Return the theta that crops a box.

    Parameters
    ----------
    box : array of float32 or float64, shape (..., 4)
        (x0, y0, x1, y1), in pixels and counted from the image's left and upper edge, so that a box of whole numbers
        is the slice ``input[..., y0:y1, x0:x1]`` and (0, 0, W, H) is the whole image.
    input_size : (H, W)
        In pixels.
    align_corners : bool, default False
        Where -1 and 1 lie. With True, the output's corner pixels are the box's corner pixels.

    Returns
    -------
    array, shape (..., 2, 3)
        From normalised output coordinates to normalised input coordinates. An output of the box's own size gives the
        pixels of the slice; another size resamples it.

    Raises
    ------
    TypeError
        If box is not an array of float32 or float64.
    ValueError
        If the shape differs, a size is not positive, the box is empty or NaN or, with ``align_corners=True``, a side is
        shorter than a pixel.

    See Also
    --------
    theta_to_box : The way back.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> box_to_theta(np.asarray([0.0, 0.0, 2.0, 4.0]), (4, 4))  # the left half
    array([[ 0.5,  0. , -0.5],
           [ 0. ,  1. ,  0. ]])
    """
    xp = _arrays.namespace(box=box)
    require_float(xp, box=box)
    if box.ndim < 1 or box.shape[-1] != 4:
        raise ValueError(f"box: expected shape (..., 4), got {tuple(box.shape)}")
    sides = box[..., 2:] - box[..., :2]
    if not bool(xp.all((sides >= 1) if align_corners else (sides > 0))):
        least = "sides of at least one pixel" if align_corners else "x0 < x1 and y0 < y1"
        raise ValueError(f"box: expected (x0, y0, x1, y1) with {least}, got {box}")
    height, width = require_size(input_size, "input_size")
    # The centres of the box's first and last pixels, or its edges, as coordinates of pixel centres.
    inset = 0.0 if align_corners else -0.5
    x0, y0 = (
        normalise(box[..., i] + inset, s, align_corners=align_corners)
        for i, s in ((0, width), (1, height))
    )
    x1, y1 = (
        normalise(box[..., i] - 1 - inset, s, align_corners=align_corners)
        for i, s in ((2, width), (3, height))
    )
    return _rows(((x1 - x0) / 2, 0.0, (x0 + x1) / 2), (0.0, (y1 - y0) / 2, (y0 + y1) / 2), xp)


def theta_to_box(theta: Array, input_size: Size, *, align_corners: bool = False) -> Array:
    """Return the box that a theta crops.

    Parameters
    ----------
    theta : array of float32 or float64, shape (..., 2, 3)
        A crop: no rotation, no shear, no mirror image.
    input_size : (H, W)
        In pixels.
    align_corners : bool, default False
        Where -1 and 1 lie.

    Returns
    -------
    array, shape (..., 4)
        (x0, y0, x1, y1), in pixels and counted from the image's left and upper edge.

    Raises
    ------
    TypeError
        If theta is not an array of float32 or float64.
    ValueError
        If the shape differs, a size is not positive, or a theta is not a crop.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> theta_to_box(box_to_theta(np.asarray([1.0, 0.0, 3.0, 4.0]), (4, 4)), (4, 4))
    array([1., 0., 3., 4.])
    """
    xp = _check_matrix(theta, "theta")
    height, width = require_size(input_size, "input_size")
    sx, sy = theta[..., 0, 0], theta[..., 1, 1]
    if bool(xp.any((theta[..., 0, 1] != 0) | (theta[..., 1, 0] != 0) | (sx < 0) | (sy < 0))):
        raise ValueError(
            "theta: expected a crop [[sx, 0, tx], [0, sy, ty]], got a rotation, a shear or a mirror image"
        )
    inset = 0.0 if align_corners else -0.5
    edges = []
    for sign, offset in ((-1, -inset), (1, 1 + inset)):
        for s, t, size in ((sx, theta[..., 0, 2], width), (sy, theta[..., 1, 2], height)):
            edges.append(unnormalise(t + sign * s, size, align_corners=align_corners) + offset)
    return xp.stack(edges, axis=-1)


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
        """Return the matrices, shape (N, 2, 3), of parameters of shape (N, 6)."""
        xp = _arrays.namespace(theta=theta)
        require_shape(theta, "theta", f"(N, {self.num_parameters})")
        return xp.reshape(theta, (theta.shape[0], 2, 3))

    def grid(self, theta: Array, size: Sequence[int], *, align_corners: bool = False) -> Array:
        """Generate the sampling grid, shape (N, H, W, 2), of parameters of shape (N, 6); see `stnlib.affine_grid`."""
        return affine_grid(self.matrix(theta), size, align_corners=align_corners)

    def __repr__(self) -> str:
        return "Affine()"


def _check_matrix(matrix: Array, name: str) -> Any:
    xp = _arrays.namespace(**{name: matrix})
    require_float(xp, **{name: matrix})
    if tuple(matrix.shape[-2:]) != (2, 3):
        raise ValueError(f"{name}: expected shape (..., 2, 3), got {tuple(matrix.shape)}")
    return xp


def _axes(convert: Any, size: Size, name: str, like: Array, align_corners: bool) -> Array:
    """Write ``normalise`` or ``unnormalise`` of both axes as a matrix of the kind of ``like``."""
    xp = _check_matrix(like, "theta" if convert is normalise else "matrix")
    height, width = require_size(size, name)
    origin = [convert(0.0, s, align_corners=align_corners) for s in (width, height)]
    step = [
        convert(1.0, s, align_corners=align_corners) - o
        for s, o in zip((width, height), origin, strict=True)
    ]
    entries = [[step[0], 0.0, origin[0]], [0.0, step[1], origin[1]]]
    return xp.asarray(entries, dtype=like.dtype, device=_arrays.device(like))
