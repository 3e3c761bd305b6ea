"""Arrays of three libraries in one code: their namespace, their checks, and the scatter that the standard lacks."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import (
    array_namespace,
    device,
    is_array_api_obj,
    is_cupy_namespace,
    is_numpy_namespace,
    is_torch_namespace,
)

Array = Any
"""A NumPy, CuPy or PyTorch array (any array of the Python array API standard)."""


def namespace(**arrays: Array) -> Any:
    """Return the array API namespace that the named arrays share.

    Raises
    ------
    TypeError
        If an argument is not an array, or the arguments come from different libraries.
    ValueError
        If the arguments lie on different devices.
    """
    for name, array in arrays.items():
        if not is_array_api_obj(array):
            raise TypeError(
                f"{name}: expected a NumPy, CuPy or PyTorch array, got {type(array).__name__}; "
                f"convert it first, for instance with numpy.asarray"
            )
    namespaces = {name: array_namespace(array) for name, array in arrays.items()}
    if len(set(namespaces.values())) > 1:
        kinds = ", ".join(
            f"{name} is a {type(array).__module__}.{type(array).__name__}"
            for name, array in arrays.items()
        )
        raise TypeError(f"arrays of different libraries: {kinds}; convert them to one")
    devices = {name: device(array) for name, array in arrays.items()}
    if len(set(devices.values())) > 1:
        places = ", ".join(f"{name} is on {place}" for name, place in devices.items())
        raise ValueError(f"arrays on different devices: {places}; move them to one")
    return next(iter(namespaces.values()))


def require_float(xp: Any, **arrays: Array) -> None:
    """Raise ``TypeError`` unless every array is float32 or float64."""
    for name, array in arrays.items():
        if array.dtype not in (xp.float32, xp.float64):
            image = name in ("input", "images") and xp.isdtype(array.dtype, "integral")
            advice = "convert it, and divide 8-bit images by 255" if image else "convert it"
            raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}; {advice}")


def require_same_dtype(**arrays: Array) -> None:
    """Raise ``TypeError`` unless every array has the dtype of the first."""
    first = next(iter(arrays), "")
    for name, array in arrays.items():
        if array.dtype != arrays[first].dtype:
            raise TypeError(
                f"{name}: expected {arrays[first].dtype}, as {first} is, got {array.dtype}; convert one"
            )


def require_shape(array: Array, name: str, pattern: str) -> None:
    """Raise ``ValueError`` unless ``array`` has the shape that ``pattern`` draws, as in ``"(N, H, W, 2)"``.

    A number in the pattern must be met exactly; a letter stands for any length.
    """
    expected = [part.strip() for part in pattern.strip("()").split(",")]
    shape = tuple(array.shape)
    fits = len(shape) == len(expected) and all(
        not part.isdigit() or int(part) == length
        for part, length in zip(expected, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: expected shape {pattern}, got {shape}")


def require_broadcast(**arrays: Array) -> None:
    """Raise ``ValueError`` unless the arrays' shapes, for matrices and points the leading ones, broadcast."""
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected leading dimensions that broadcast, got {given}") from None


def require_length(length: int, name: str) -> int:
    """Return a number of pixels; raise unless it is a whole number of at least 1."""
    try:
        whole = operator.index(length)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number of pixels, got {length!r}") from None
    if whole < 1:
        raise ValueError(f"{name}: expected at least 1 pixel, got {length}")
    return whole


def require_size(size: Sequence[int], name: str) -> tuple[int, int]:
    """Return the height and the width in pixels; raise unless ``size`` is two whole numbers of at least 1.

    Raises
    ------
    TypeError
        If size does not hold whole numbers.
    ValueError
        If there are not two of them, or one is below 1.
    """
    try:
        given = tuple(size)
    except TypeError:
        raise TypeError(f"{name}: expected a height and a width, got {size!r}") from None
    if len(given) != 2:
        raise ValueError(f"{name}: expected a height and a width, got {given}")
    try:
        height, width = (operator.index(length) for length in given)
    except TypeError:
        raise TypeError(f"{name}: expected whole numbers of pixels, got {given}") from None
    if height < 1 or width < 1:
        raise ValueError(f"{name}: expected a height and a width of at least 1, got {given}")
    return height, width


def to_float64(array: Array, xp: Any) -> Array:
    """Return ``array`` in float64, the type in which coordinates are carried."""
    return xp.astype(array, xp.float64, copy=False)


def scatter_add(index: Array, values: Array, length: int, xp: Any) -> Array:
    """Sum ``values`` into the places that ``index`` names: the operation that the array API lacks.

    Parameters
    ----------
    index : array of int64, shape (N, 1, L)
        Places, from 0 to ``length - 1``. Several may be equal: their values add up.
    values : array, shape (N, C, L)
    length : int
        Number of places in each row of the result.
    xp : namespace
        NumPy's, CuPy's or PyTorch's.

    Returns
    -------
    array of float64, shape (N, C, length)
        ``result[n, c, j]`` is the sum of ``values[n, c, l]`` over every l with ``index[n, 0, l] == j``.

    Examples
    --------
    >>> scatter_add(np.array([[[0, 2, 0]]]), np.array([[[1.0, 2.0, 4.0]]]), 3, np)
    array([[[5., 0., 2.]]])
    """
    n, c, _ = values.shape
    values = to_float64(values, xp)
    if is_torch_namespace(xp):
        zeros = xp.zeros((n, c, length), dtype=xp.float64, device=values.device)
        return zeros.scatter_add(2, index.expand(values.shape), values)
    # One long row: the places of image n and channel c start at (n * C + c) * length.
    start = (
        xp.reshape(xp.arange(n * c, dtype=xp.int64, device=device(values)), (n, c, 1)) * length
    )
    places = xp.reshape(start + index, (-1,))
    if is_numpy_namespace(xp):
        sums = np.bincount(places, weights=xp.reshape(values, (-1,)), minlength=n * c * length)
    elif is_cupy_namespace(xp):
        sums = xp.zeros(n * c * length, dtype=xp.float64)
        xp.add.at(sums, places, xp.reshape(values, (-1,)))
    else:
        raise TypeError(
            f"values: expected a NumPy, CuPy or PyTorch array, got one of {xp.__name__}"
        )
    return xp.reshape(sums, (n, c, length))
