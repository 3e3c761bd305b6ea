"""Conversions between a theta, a matrix in pixels, and a box (chapter 1)."""

from __future__ import annotations

from typing import Any

from .. import _arrays
from .._arrays import Array, require_float, require_size
from ..coordinates import normalise, unnormalise
from .algebra import _check_matrix, compose
from .matrices import _rows

Size = tuple[int, int]
"""Height and width in pixels."""


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
    >>> from stnlib.transforms import scale
    >>> theta_to_pixel(scale(1.0), (4, 4), (8, 8))  # twice the size: half a step a pixel
    array([[ 0.5 ,  0.  , -0.25],
           [ 0.  ,  0.5 , -0.25]])
    """
    _check_matrix(theta, "theta", plane=True)
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
    >>> from stnlib.transforms import translation
    >>> pixel_to_theta(translation(1.0, 0.0), (4, 4), (4, 4))  # one pixel of four is 0.5
    array([[1. , 0. , 0.5],
           [0. , 1. , 0. ]])
    """
    _check_matrix(matrix, "matrix", plane=True)
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
    >>> import numpy as np
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
    >>> import numpy as np
    >>> theta_to_box(box_to_theta(np.asarray([1.0, 0.0, 3.0, 4.0]), (4, 4)), (4, 4))
    array([1., 0., 3., 4.])
    """
    xp = _check_matrix(theta, "theta", plane=True)
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


def _axes(convert: Any, size: Size, name: str, like: Array, align_corners: bool) -> Array:
    """Write ``normalise`` or ``unnormalise`` of both axes as a matrix of the kind of ``like``."""
    xp = _arrays.namespace(like=like)
    height, width = require_size(size, name)
    origin = [convert(0.0, s, align_corners=align_corners) for s in (width, height)]
    step = [
        convert(1.0, s, align_corners=align_corners) - o
        for s, o in zip((width, height), origin, strict=True)
    ]
    entries = [[step[0], 0.0, origin[0]], [0.0, step[1], origin[1]]]
    return xp.asarray(entries, dtype=like.dtype, device=_arrays.device(like))
