"""Pixel and normalised coordinates, and the regular grid of an output (chapter 1).

Convention: pixel coordinates count from the centre of the first pixel, 0 to W - 1 along the width. Normalised
coordinates run from -1 to 1. With ``align_corners=True``, -1 and 1 are the centres of the first and last pixel; with
``align_corners=False`` they are the outer edges of these pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._arrays import Array, require_length, require_size, to_float64


def pixels_per_unit(size: int, *, align_corners: bool = False) -> float:
    """Return how many pixels one unit of a normalised coordinate is: the derivative of `unnormalise`.

    Parameters
    ----------
    size : int
        Number of pixels along the axis.
    align_corners : bool, default False
        Where -1 and 1 lie: at the centres of the corner pixels (True) or at their outer edges (False).

    Returns
    -------
    float
        ``size / 2``, or ``(size - 1) / 2`` with ``align_corners=True``.

    Raises
    ------
    TypeError, ValueError
        If size is not a whole number of at least 1.

    Examples
    --------
    >>> pixels_per_unit(4), pixels_per_unit(4, align_corners=True)
    (2.0, 1.5)
    """
    require_length(size, "size")
    return (size - 1 if align_corners else size) / 2


def normalise(position: Array, size: int, *, align_corners: bool = False) -> Array:
    """Convert pixel coordinates along one axis to normalised ones.

    Parameters
    ----------
    position : float or array of any shape
        Coordinates in pixels: 0 is the centre of the first pixel, ``size - 1`` that of the last.
    size : int
        Number of pixels along the axis.
    align_corners : bool, default False
        Where -1 and 1 lie: at the centres of the corner pixels (True) or at their outer edges (False).

    Returns
    -------
    float or array of the same shape
        Normalised coordinates. Where one pixel lies between its own centres (``size == 1`` and
        ``align_corners=True``), 0.

    Raises
    ------
    TypeError, ValueError
        If size is not a whole number of at least 1.

    See Also
    --------
    unnormalise : The way back.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> normalise(0.0, 4), normalise(0.0, 4, align_corners=True)
    (-0.75, -1.0)
    """
    unit = pixels_per_unit(size, align_corners=align_corners)
    if unit == 0:
        return 0.0 * position
    return (position - (size - 1) / 2) / unit


def unnormalise(coordinate: Array, size: int, *, align_corners: bool = False) -> Array:
    """Convert normalised coordinates along one axis to pixels.

    Parameters
    ----------
    coordinate : float or array of any shape
        Normalised coordinates; -1 to 1 covers the image.
    size : int
        Number of pixels along the axis.
    align_corners : bool, default False
        Where -1 and 1 lie: at the centres of the corner pixels (True) or at their outer edges (False).

    Returns
    -------
    float or array of the same shape
        Coordinates in pixels.

    Raises
    ------
    TypeError, ValueError
        If size is not a whole number of at least 1.

    See Also
    --------
    normalise : The way back.

    Notes
    -----
    Derived in chapter 1.

    Examples
    --------
    >>> unnormalise(-1.0, 4), unnormalise(-1.0, 4, align_corners=True)
    (-0.5, 0.0)
    """
    return coordinate * pixels_per_unit(size, align_corners=align_corners) + (size - 1) / 2


def pixel_centres(
    size: int, *, align_corners: bool = False, xp: Any = None, device: Any = None
) -> Array:
    """Return the normalised coordinates of the pixels' centres along one axis.

    Parameters
    ----------
    size : int
        Number of pixels along the axis.
    align_corners : bool, default False
        Where -1 and 1 lie: at the centres of the corner pixels (True) or at their outer edges (False).
    xp : namespace, optional
        Array API namespace of the result; NumPy's by default.
    device : optional
        Device of the result, in the terms of ``xp``.

    Returns
    -------
    array of float64, shape (size,)
        Rising and symmetric about 0; a single pixel is at 0.

    Raises
    ------
    TypeError, ValueError
        If size is not a whole number of at least 1.

    Notes
    -----
    The regular grid :math:`G` of the paper's section 3.2, one axis of it. Derived in chapter 1. Beware of
    ``linspace(-1, 1, 1)``, which is -1 and not the centre.

    Examples
    --------
    >>> pixel_centres(4)
    array([-0.75, -0.25,  0.25,  0.75])
    >>> pixel_centres(5, align_corners=True)
    array([-1. , -0.5,  0. ,  0.5,  1. ])
    """
    if xp is None:
        import array_api_compat.numpy as xp
    require_length(size, "size")
    return normalise(
        xp.arange(size, dtype=xp.float64, device=device), size, align_corners=align_corners
    )


def regular_grid(
    size: Sequence[int], *, align_corners: bool = False, xp: Any = None, device: Any = None
) -> Array:
    """Return the normalised coordinates of all pixels' centres: the grid that changes nothing.

    Parameters
    ----------
    size : (H, W) or (D, H, W)
        In pixels.
    align_corners : bool, default False
        Where -1 and 1 lie: at the centres of the corner pixels (True) or at their outer edges (False).
    xp : namespace, optional
        Array API namespace of the result; NumPy's by default.
    device : optional
        Device of the result, in the terms of ``xp``.

    Returns
    -------
    array of float64, shape (H, W, 2) or (D, H, W, 3)
        The last axis is (x, y) or (x, y, z).

    Raises
    ------
    TypeError, ValueError
        If size is not two or three whole numbers of at least 1.

    Notes
    -----
    The regular grid :math:`G` of the paper's section 3.2. Derived in chapter 1.

    Examples
    --------
    >>> regular_grid((2, 4))[0]
    array([[-0.75, -0.5 ],
           [-0.25, -0.5 ],
           [ 0.25, -0.5 ],
           [ 0.75, -0.5 ]])
    """
    if xp is None:
        import array_api_compat.numpy as xp
    size = require_size(size, "size", 3 if len(size) == 3 else 2)
    centres = [
        pixel_centres(length, align_corners=align_corners, xp=xp, device=device)
        for length in size
    ]
    return xp.stack(xp.meshgrid(*centres, indexing="ij")[::-1], axis=-1)


def pixel_matrix(
    theta: Array,
    input_size: Sequence[int],
    output_size: Sequence[int],
    *,
    align_corners: bool = False,
    coordinates: str = "normalised",
    tangent: bool = False,
    xp: Any,
) -> Array:
    """Compose theta with both conversions: one matrix, from the output's pixels to the input's.

    Parameters
    ----------
    theta : array of float32 or float64, shape (..., 2, 3) or (..., 3, 4)
        Maps output coordinates (x, y, 1) to input coordinates (x, y); or (x, y, z, 1) to (x, y, z).
    input_size, output_size : (H, W) or (D, H, W)
        In pixels.
    align_corners : bool, default False
        Where -1 and 1 lie: at the centres of the corner pixels (True) or at their outer edges (False).
    coordinates : {"normalised", "pixel"}, default "normalised"
        What theta maps; pixel coordinates need no conversion.
    tangent : bool, default False
        True if theta is a change of a theta: the matrix changes by what is linear in it.
    xp : namespace

    Returns
    -------
    array of float64, of theta's shape
        Row 0 gives the input's column, row 1 its row.

    See Also
    --------
    stnlib.transforms.theta_to_pixel : The same, with its arguments checked.

    Notes
    -----
    Derived in chapter 1. With ``align_corners=True`` an axis of one pixel has no extent between its corner centres:
    whatever the transform, its coordinate is 0.

    Examples
    --------
    >>> import numpy as np
    >>> identity = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> pixel_matrix(identity, (4, 4), (8, 8), xp=np)  # twice the size: half a step a pixel
    array([[ 0.5 ,  0.  , -0.25],
           [ 0.  ,  0.5 , -0.25]])
    """
    theta = to_float64(theta, xp)
    if coordinates == "pixel":
        return theta
    units, middles, out_units, out_middles = _frames(input_size, output_size, align_corners)
    rows = []
    for r, (unit, middle) in enumerate(zip(units, middles, strict=True)):
        row = [theta[..., r, k] * (unit / u if u else 0.0) for k, u in enumerate(out_units)]
        origin = theta[..., r, -1] * unit
        if not tangent:
            origin = origin + middle
        for entry, out_middle in zip(row, out_middles, strict=True):
            origin = origin - entry * out_middle
        rows.append(xp.stack([*row, origin], axis=-1))
    return xp.stack(rows, axis=-2)


def pixel_matrix_vjp(
    grad_matrix: Array,
    input_size: Sequence[int],
    output_size: Sequence[int],
    *,
    align_corners: bool = False,
    coordinates: str = "normalised",
    xp: Any,
) -> Array:
    """Return the vector-Jacobian product of `pixel_matrix`: the gradient of theta from that of the matrix.

    Parameters
    ----------
    grad_matrix : array of float64, shape (..., 2, 3) or (..., 3, 4)
    input_size, output_size, align_corners, coordinates, xp
        As they were for `pixel_matrix`.

    Returns
    -------
    array of float64, of grad_matrix's shape

    Examples
    --------
    >>> import numpy as np
    >>> pixel_matrix_vjp(np.ones((2, 3)), (4, 4), (8, 8), xp=np)
    array([[-1.25, -1.25,  2.  ],
           [-1.25, -1.25,  2.  ]])
    """
    if coordinates == "pixel":
        return grad_matrix
    units, _, out_units, out_middles = _frames(input_size, output_size, align_corners)
    rows = []
    for r, unit in enumerate(units):
        shift = grad_matrix[..., r, -1]
        row = [
            (grad_matrix[..., r, k] - middle * shift) * (unit / u if u else 0.0)
            for k, (u, middle) in enumerate(zip(out_units, out_middles, strict=True))
        ]
        rows.append(xp.stack([*row, shift * unit], axis=-1))
    return xp.stack(rows, axis=-2)


def _frames(
    input_size: Sequence[int], output_size: Sequence[int], align_corners: bool
) -> list[list[float]]:
    """Return pixels per unit and middles of the input, then of the output, along x, y (and z)."""
    return [
        [f(length) for length in reversed(size)]
        for size in (input_size, output_size)
        for f in (
            lambda length: pixels_per_unit(length, align_corners=align_corners),
            lambda length: (length - 1) / 2,
        )
    ]
