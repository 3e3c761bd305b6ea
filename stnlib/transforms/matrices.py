"""The matrices of the transforms of chapter 1.

Convention: a matrix acts on points (x, y), x to the right and y down, as pixels lie in an image. It is stored as its
upper two rows, shape (..., 2, 3): the point (x, y) goes to ``matrix[:, :2] @ (x, y) + matrix[:, 2]``. Angles are in
radians; a positive one turns the x axis towards the y axis, clockwise as an image is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import array_api_compat.numpy as numpy_namespace
import numpy as np

from .. import _arrays
from .._arrays import Array, require_broadcast, require_float, require_same_dtype


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
