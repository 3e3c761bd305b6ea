"""The samplers' options and arguments, checked: one clear sentence for each that does not fit."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _arrays
from ._arrays import Array, require_float, require_number, require_shape, require_size
from .gather_scatter import Sampler
from .interpolation import KERNELS, Kernel
from .padding import PADDING_MODES

COORDINATES = ("normalised", "pixel")


class Options(NamedTuple):
    """The options of `grid_sample`, checked."""

    sampler: Sampler
    coordinates: str
    fill_value: float | Array
    antialias: bool | float


def resolve(
    mode: str | Kernel = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
    coordinates: str = "normalised",
    fill_value: float | Array = 0.0,
    antialias: bool | float = False,
) -> Options:
    """Return the options of `grid_sample`; raise unless it knows them."""
    options = _resolve(mode, padding_mode, align_corners, coordinates, antialias)
    if isinstance(fill_value, float) and fill_value == 0:
        return options
    if not isinstance(fill_value, list | tuple) and not _arrays.is_array(fill_value):
        expected = "a number, or one for each channel"
        require_number(fill_value, "fill_value", expected, lambda value: True)
    if padding_mode != "fill" and (not isinstance(fill_value, numbers.Real) or fill_value != 0):
        raise ValueError(
            f'fill_value: expected padding_mode="fill" beside it, got {padding_mode!r}'
        )
    return options._replace(fill_value=fill_value)


@_arrays.remembered
def _resolve(
    mode: str | Kernel,
    padding_mode: str,
    align_corners: bool,
    coordinates: str,
    antialias: bool | float,
) -> Options:
    """Return the options without a fill value, which may be an array: its values are not to be remembered."""
    if not isinstance(mode, Kernel):
        check_choice("mode", mode, KERNELS, ", or a Kernel")
        mode = KERNELS[mode]
    check_choice("padding_mode", padding_mode, PADDING_MODES)
    check_choice("coordinates", coordinates, COORDINATES)
    if not isinstance(align_corners, bool | np.bool_):
        raise ValueError(f"align_corners: expected True or False, got {align_corners!r}")
    if isinstance(antialias, bool | np.bool_):
        antialias = bool(antialias)
    else:
        expected = "True, False or the longest step in pixels"
        require_number(antialias, "antialias", expected, lambda step: 0 < step < math.inf)
        antialias = (
            float(antialias) if antialias > 1 else False
        )  # no step is longer than a pixel
    return Options(
        Sampler(mode, padding_mode, bool(align_corners)), coordinates, 0.0, antialias
    )


def check_affine(theta: Array, size: Sequence[int], xp: Any) -> tuple[int, ...]:
    """Return the output's size; raise unless theta and it fit each other."""
    require_float(xp, theta=theta)
    require_shape(theta, "theta", "(N, 2, 3)", "(N, 3, 4)")
    return check_output_size(size, theta.shape[1], theta.shape[0])


def check_output_size(size: Sequence[int], dimensions: int, batch: int) -> tuple[int, ...]:
    """Return an output's size in pixels, of a size with or without batch and channels; raise unless it fits."""
    if not isinstance(size, Sequence) or len(size) not in (dimensions, dimensions + 2):
        given = tuple(size) if isinstance(size, Sequence) else size
        axes = "H, W" if dimensions == 2 else "D, H, W"
        raise ValueError(f"size: expected (N, C, {axes}) or ({axes}), got {given!r}")
    if len(size) > dimensions and size[0] != batch:
        raise ValueError(f"size: expected a batch of {batch}, as theta has, got {tuple(size)}")
    return require_size(size[-dimensions:], "size", dimensions)


def check_choice(name: str, value: Any, known: Iterable[str], other: str = "") -> None:
    """Raise unless a value is one of those that are known."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}{other}, got {value!r}")


@_arrays.remembered
def check_arrays(input: Array, grid: Array) -> Any:
    """Return the namespace of images and grid; raise unless they fit each other."""
    xp = _arrays.namespace(input=input, grid=grid)
    require_float(xp, half=True, input=input)
    if grid.dtype != input.dtype:
        require_float(xp, grid=grid)
        if input.dtype == xp.float64:
            raise TypeError(
                "grid: expected float64, as input is, got float32; convert one of them"
            )
    require_shape(input, "input", "(N, C, H, W)", "(N, C, D, H, W)")
    dimensions = len(input.shape) - 2
    out = "H_out, W_out" if dimensions == 2 else "D_out, H_out, W_out"
    require_shape(grid, "grid", f"(N, {out}, {dimensions})")
    if input.shape[0] != grid.shape[0]:
        raise ValueError(
            f"grid: expected a batch of {input.shape[0]}, as input has, got shape {tuple(grid.shape)}"
        )
    _check_not_flat("input", input, input.shape[2:])
    _check_not_flat("grid", grid, grid.shape[1:-1])
    return xp


@_arrays.remembered
def check_affine_arrays(
    input: Array, theta: Array, size: Sequence[int]
) -> tuple[Any, tuple[int, ...]]:
    """Return the namespace of images and theta, and the output's size; raise unless they fit each other."""
    xp = _arrays.namespace(input=input, theta=theta)
    require_float(xp, half=True, input=input)
    require_shape(input, "input", "(N, C, H, W)", "(N, C, D, H, W)")
    require_shape(theta, "theta", "(N, 2, 3)" if len(input.shape) == 4 else "(N, 3, 4)")
    if input.shape[0] != theta.shape[0]:
        raise ValueError(
            f"theta: expected a batch of {input.shape[0]}, as input has, got shape {tuple(theta.shape)}"
        )
    size = check_affine(theta, size, xp)
    _check_not_flat("input", input, input.shape[2:])
    return xp, size


def check_needs(needs: Sequence[bool]) -> None:
    """Raise unless these are three."""
    if len(needs) != 3:
        raise ValueError(f"needs: expected three of True and False, got {needs!r}")


@_arrays.remembered
def check_like_output(grad: Array, input: Array, size: Sequence[int]) -> None:
    """Raise unless a gradient is as the output is."""
    _arrays.namespace(grad_output=grad, input=input)
    expected = (*input.shape[:2], *size)
    if tuple(grad.shape) != expected:
        raise ValueError(
            f"grad_output: expected shape {expected}, as the output has, got {tuple(grad.shape)}"
        )
    if grad.dtype != input.dtype:
        raise TypeError(f"grad_output: expected {input.dtype}, as input is, got {grad.dtype}")


def _check_not_flat(name: str, array: Array, lengths: Sequence[int]) -> None:
    if min(lengths) < 1:
        raise ValueError(
            f"{name}: expected a height and a width of at least 1, got shape {tuple(array.shape)}"
        )


def check_like(name: str, array: Array, other: str, like: Array) -> None:
    """Raise unless a tangent is as its argument is."""
    _arrays.namespace(**{name: array, other: like})
    if tuple(array.shape) != tuple(like.shape):
        raise ValueError(
            f"{name}: expected shape {tuple(like.shape)}, as {other} has, got {tuple(array.shape)}"
        )
    if array.dtype != like.dtype:
        raise TypeError(f"{name}: expected {like.dtype}, as {other} is, got {array.dtype}")
