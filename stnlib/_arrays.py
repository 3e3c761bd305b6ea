"""Arrays of three libraries in one code: their namespace, their checks, and the scatter that the standard lacks."""

from __future__ import annotations

import functools
import numbers
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import array_api_compat
import array_api_compat.numpy as numpy_namespace
import numpy as np
from array_api_compat import (
    array_namespace,
    is_array_api_obj,
    is_cupy_namespace,
    is_numpy_namespace,
    is_torch_namespace,
)

Array = Any
"""A NumPy, CuPy or PyTorch array (any array of the Python array API standard)."""


def is_tensor(array: Any) -> bool:
    """Return whether this is a PyTorch tensor, in a way of which PyTorch's compiler does not warn."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def is_array(value: Any) -> bool:
    """Return whether this is an array of any library."""
    if is_tensor(value) or isinstance(value, float | int):
        return is_tensor(value)
    return is_array_api_obj(value)


_Result = TypeVar("_Result")
_Parameters = ParamSpec("_Parameters")


def remembered(check: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Make a function remember its results; of arrays it may look at nothing but shape, dtype and device.

    Checks cost as much time as the sampling of a small image, and the same shapes come again and again.
    """
    results: dict[Any, Any] = {}

    @functools.wraps(check)
    def once(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        torch = sys.modules.get("torch")
        if torch is not None and torch.compiler.is_compiling():
            return check(*args, **kwargs)
        key = (*map(_look, args), *kwargs, *map(_look, kwargs.values()))
        result = results.get(key, results)
        if result is results:
            result = check(*args, **kwargs)
            if None not in key:
                if len(results) >= 1000:
                    results.clear()
                results[key] = result
        return result

    return once


def _look(argument: Any) -> Any:
    """Return what a check may see of an argument, to be compared; None if that cannot be remembered."""
    kind = type(argument)
    if kind is np.ndarray:
        return kind, argument.shape, argument.dtype
    if kind in (str, bool, int, float):
        return kind, argument
    if kind.__name__ in ("tuple", "Size"):
        looks = tuple(map(_look, argument))
        return None if None in looks else looks
    if kind.__name__ in ("Tensor", "Parameter") and is_tensor(argument):
        return kind, argument.shape, argument.dtype, argument.device
    return None


def is_watched() -> bool:
    """Return whether PyTorch compiles, exports or infers just now: what is made then must not be kept for later."""
    torch = sys.modules.get("torch")
    return torch is not None and (
        torch.compiler.is_compiling() or torch.is_inference_mode_enabled()
    )


def device(array: Array) -> Any:
    """Return the device that an array lies on."""
    return array.device if is_tensor(array) else array_api_compat.device(array)


def namespace(**arrays: Array) -> Any:
    """Return the array API namespace that the named arrays share.

    Raises
    ------
    TypeError
        If an argument is not an array, or the arguments come from different libraries.
    ValueError
        If the arguments lie on different devices.
    """
    if all(is_tensor(array) for array in arrays.values()):
        import array_api_compat.torch as xp

        _require_one_device({name: array.device for name, array in arrays.items()})
        return xp
    if all(type(array) is np.ndarray for array in arrays.values()):
        return numpy_namespace
    for name, array in arrays.items():
        if not is_array(array):
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
    _require_one_device({name: device(array) for name, array in arrays.items()})
    return next(iter(namespaces.values()))


def _require_one_device(devices: dict[str, Any]) -> None:
    first, *others = devices.values()
    if any(other != first for other in others):  # not by a set: CuPy's devices have no hash
        places = ", ".join(f"{name} is on {place}" for name, place in devices.items())
        raise ValueError(f"arrays on different devices: {places}; move them to one")


def require_float(xp: Any, *, half: bool = False, **arrays: Array) -> None:
    """Raise ``TypeError`` unless every array is float32 or float64, or, with ``half``, float16 or bfloat16."""
    expected = "float32 or float64" + (", or float16 or bfloat16" if half else "")
    for name, array in arrays.items():
        if array.dtype in (xp.float32, xp.float64) or (half and _is_half(array, xp)):
            continue
        image = name in ("input", "images") and not xp.isdtype(array.dtype, "real floating")
        advice = "convert it, and divide 8-bit images by 255" if image else "convert it"
        raise TypeError(f"{name}: expected {expected}, got {array.dtype}; {advice}")


def _is_half(array: Array, xp: Any) -> bool:
    return any(
        hasattr(xp, name) and array.dtype == getattr(xp, name)
        for name in ("float16", "bfloat16")
    )


def computing_dtype(array: Array, xp: Any) -> Any:
    """Return the dtype in which an array's values are weighted and summed: its own, or float32 for a half."""
    return xp.float32 if _is_half(array, xp) else array.dtype


def require_same_dtype(**arrays: Array) -> None:
    """Raise ``TypeError`` unless every array has the dtype of the first."""
    first = next(iter(arrays), "")
    for name, array in arrays.items():
        if array.dtype != arrays[first].dtype:
            raise TypeError(
                f"{name}: expected {arrays[first].dtype}, as {first} is, got {array.dtype}; convert one"
            )


def require_shape(array: Array, name: str, *patterns: str) -> None:
    """Raise ``ValueError`` unless ``array`` has a shape that a pattern draws, as in ``"(N, H, W, 2)"``.

    A number in the pattern must be met exactly; a letter stands for any length.
    """
    shape = tuple(array.shape)
    for pattern in patterns:
        wanted = _PATTERNS.get(pattern) or _parse(pattern)
        if len(shape) == len(wanted) and all(
            number is None or number == length
            for number, length in zip(wanted, shape, strict=True)
        ):
            return
    raise ValueError(f"{name}: expected shape {' or '.join(patterns)}, got {shape}")


def _parse(pattern: str) -> list[int | None]:
    """Return the numbers of a pattern, None for its letters."""
    parts = [part.strip() for part in pattern.strip("()").split(",")]
    return [int(part) if part.isdigit() else None for part in parts]


_PATTERNS = {
    pattern: _parse(pattern)
    for pattern in ("(N, C, H, W)", "(N, C, D, H, W)", "(N, 2, 3)", "(N, 3, 4)")
}


def require_broadcast(skip: int = 0, **arrays: Array) -> None:
    """Raise ``ValueError`` unless the arrays' shapes broadcast, but for the last ``skip`` axes of each."""
    shapes = {name: tuple(array.shape)[: array.ndim - skip] for name, array in arrays.items()}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected leading dimensions that broadcast, got {given}") from None


def require_number(value: Any, name: str, expected: str, fits: Any) -> None:
    """Raise unless ``value`` is a real number that ``fits``; ``expected`` says in words which."""
    if isinstance(value, str | bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
    if not fits(value):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def require_length(length: int, name: str) -> int:
    """Return a number of pixels; raise unless it is a whole number of at least 1."""
    try:
        whole = operator.index(length)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number of pixels, got {length!r}") from None
    if whole < 1:
        raise ValueError(f"{name}: expected at least 1 pixel, got {length}")
    return whole


def require_size(size: Sequence[int], name: str, dimensions: int = 2) -> Any:
    """Return the height and the width, in 3D the depth before them; raise unless they are whole and at least 1.

    Raises
    ------
    TypeError
        If size does not hold whole numbers.
    ValueError
        If there are not as many as dimensions, or one is below 1.
    """
    wanted = "a height and a width" if dimensions == 2 else "a depth, a height and a width"
    try:
        given = tuple(size)
    except TypeError:
        raise TypeError(f"{name}: expected {wanted}, got {size!r}") from None
    if len(given) != dimensions:
        raise ValueError(f"{name}: expected {wanted}, got {given}")
    try:
        whole = tuple(operator.index(length) for length in given)
    except TypeError:
        raise TypeError(f"{name}: expected whole numbers of pixels, got {given}") from None
    if min(whole) < 1:
        raise ValueError(f"{name}: expected {wanted} of at least 1, got {given}")
    return whole


def to_float64(array: Array, xp: Any) -> Array:
    """Return ``array`` in float64, the type in which coordinates are carried."""
    return xp.astype(array, xp.float64, copy=False)


def moveaxis(array: Array, source: int, destination: int, xp: Any) -> Array:
    """Move an axis, as ``xp.moveaxis`` does, for which ``torch.vmap`` has no rule."""
    axes = list(range(array.ndim))
    axes.insert(destination % array.ndim, axes.pop(source))
    return xp.permute_dims(array, tuple(axes))


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
