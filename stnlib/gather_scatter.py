"""Gather and scatter: the two linear maps that the sampler and all its derivatives are made of (chapter 3).

*Gather* reads images at positions: sum over m, n of U[n, m] k(x - m) k(y - n), or with derivatives of k in the place of
k. *Scatter* is its transpose. The derivative of either with respect to the positions is the same operation with one
derivative more, so a few short rules, below, differentiate both, forward and backward, as often as the kernel allows.

Shapes: images ``(N, C, *size)``; positions ``(N, L, D)`` in pixels, float64, the last axis (x, y) or (x, y, z);
values ``(K, N, C, L)``, one for each of K ``orders``; an order is a tuple (i, j) or (i, j, k), how often to
differentiate along x, y and z.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ._arrays import Array, computing_dtype, scatter_add
from .interpolation import Kernel, Tap, taps

Orders = Sequence[tuple[int, ...]]


class Sampler(NamedTuple):
    """How to read between and beyond the pixels."""

    kernel: Kernel
    padding_mode: str
    align_corners: bool


def gather(
    input: Array, fill: Array, position: Array, orders: Orders, sampler: Sampler, xp: Any
) -> Array:
    """Read images at positions: equation (3), or a derivative of it with respect to the position.

    Parameters
    ----------
    input : array, shape ``(N, C, *size)``
    fill : array of the output's dtype, shape (N, C)
        The value of a pixel that does not exist.
    position : array of float64, shape (N, L, D)
        Pixels, the last axis (x, y) or (x, y, z).
    orders : sequence of K tuples of D ints
    sampler : Sampler
    xp : namespace

    Returns
    -------
    array of input's dtype (float32 for a half-precision input), shape (K, N, C, L)
    """
    n, c, *size = input.shape
    dtype = computing_dtype(input, xp)
    pixels = xp.reshape(input, (n, c, math.prod(size)))
    totals = [0.0] * len(orders)
    for neighbour in _neighbours(position, size, orders, sampler, dtype, xp):
        place, inside = _place(neighbour, size)
        values = xp.take_along_axis(pixels, place, axis=2)
        values = xp.astype(values, dtype, copy=False)
        if inside is not None:
            values = xp.where(inside, values, fill[:, :, None])
        for i, order in enumerate(orders):
            totals[i] = totals[i] + _weight(neighbour, order) * values
    return xp.stack(totals)


def scatter(
    values: Array,
    position: Array,
    orders: Orders,
    sampler: Sampler,
    size: Sequence[int],
    xp: Any,
) -> tuple[Array, Array]:
    """Hand values back to the pixels that they were read from, weighted as they were read: gather's transpose.

    Parameters
    ----------
    values : array of float32 or float64, shape (K, N, C, L)
    position, orders, sampler, xp
        As for `gather`.
    size : sequence of D ints
        The images' size.

    Returns
    -------
    pixels : array of values' dtype, shape ``(N, C, *size)``
        Summed in float64. A position at NaN adds nothing.
    fill : array of values' dtype, shape (N, C)
        What went to pixels that do not exist.
    """
    _, n, c, _ = values.shape
    pixels = fill = 0.0
    for neighbour in _neighbours(position, size, orders, sampler, values.dtype, xp):
        place, inside = _place(neighbour, size)
        share = sum(
            _weight(neighbour, order) * values[i, ...] for i, order in enumerate(orders)
        )
        share = xp.where(xp.isnan(_weight(neighbour, orders[0])), xp.zeros_like(share), share)
        if inside is not None:
            fill = fill + xp.sum(xp.where(inside, xp.zeros_like(share), share), axis=2)
            share = xp.where(inside, share, xp.zeros_like(share))
        pixels = pixels + scatter_add(place, share, math.prod(size), xp)
    pixels = xp.astype(xp.reshape(pixels, (n, c, *size)), values.dtype, copy=False)
    return pixels, fill + xp.zeros_like(values[0, :, :, 0])


def scatter_vjp(
    grad_pixels: Array,
    grad_fill: Array,
    values: Array,
    position: Array,
    orders: Orders,
    gather: Callable[..., Array],
    xp: Any,
) -> tuple[Array, Array]:
    """Return the gradients of values and position from those of scatter's pixels and fill."""
    grad_values = gather(grad_pixels, grad_fill, position, orders)
    grad_position = position_gradient(
        values, grad_pixels, grad_fill, position, orders, gather, xp
    )
    return grad_values, grad_position


def gather_jvp(
    input_tangent: Array,
    fill_tangent: Array,
    position_tangent: Array,
    input: Array,
    fill: Array,
    position: Array,
    orders: Orders,
    gather: Callable[..., Array],
    xp: Any,
) -> Array:
    """Return how gather's values change as input, fill and position move along their tangents."""
    moved = gather(input_tangent, fill_tangent, position, orders)
    for axis in range(position.shape[-1]):
        slope = gather(input, fill, position, along(axis, orders))
        moved = moved + slope * _component(position_tangent, axis, slope, xp)
    return moved


def scatter_jvp(
    values_tangent: Array,
    position_tangent: Array,
    values: Array,
    position: Array,
    orders: Orders,
    size: Sequence[int],
    scatter: Callable[..., tuple[Array, Array]],
    xp: Any,
) -> tuple[Array, Array]:
    """Return how scatter's pixels and fill change as values and position move along their tangents."""
    moving, raised = [values_tangent], list(orders)
    for axis in range(position.shape[-1]):
        moving.append(values * _component(position_tangent, axis, values, xp))
        raised += along(axis, orders)
    return scatter(xp.concat(moving), position, raised, size)


def position_gradient(
    grad: Array,
    input: Array,
    fill: Array,
    position: Array,
    orders: Orders,
    gather: Callable[..., Array],
    xp: Any,
) -> Array:
    """Return the gradient with respect to the positions, in pixels: equation (7), summed over channels and orders."""
    axes = range(position.shape[-1])
    slopes = gather(
        input, fill, position, [order for axis in axes for order in along(axis, orders)]
    )
    k = len(orders)
    columns = [
        xp.sum(
            xp.astype(grad * slopes[axis * k : (axis + 1) * k, ...], position.dtype),
            axis=(0, 2),
        )
        for axis in axes
    ]
    return xp.stack(columns, axis=-1)


def along(axis: int, orders: Orders) -> list[tuple[int, ...]]:
    """Differentiate once more along an axis, 0 for x."""
    return [(*order[:axis], order[axis] + 1, *order[axis + 1 :]) for order in orders]


def _component(tangent: Array, axis: int, like: Array, xp: Any) -> Array:
    """Return one component of the positions' tangent, shaped and typed to meet values (K, N, C, L)."""
    return xp.astype(tangent[..., axis], like.dtype)[:, None, :]


def _neighbours(
    position: Array, size: Sequence[int], orders: Orders, sampler: Sampler, dtype: Any, xp: Any
) -> list[tuple[Tap, ...]]:
    """Return every pixel that a sample reads, as its taps along x, y (and z); weights shaped to meet the channels."""
    axes = []
    for axis, length in enumerate(reversed(size)):
        highest = max(order[axis] for order in orders)
        axes.append(
            [
                Tap(
                    index, inside, tuple(xp.astype(w, dtype, copy=False)[:, None, :] for w in k)
                )
                for index, inside, k in taps(
                    position[..., axis], length, order=highest, xp=xp, **sampler._asdict()
                )
            ]
        )
    return list(itertools.product(*axes))


def _place(neighbour: tuple[Tap, ...], size: Sequence[int]) -> tuple[Array, Array | None]:
    """Return where in a flattened image a pixel lies, and whether it exists, both of shape (N, 1, L)."""
    place: Array = 0
    inside, stride = None, 1
    for tap, length in zip(neighbour, reversed(size), strict=True):
        place = place + tap.index * stride
        stride *= length
        if tap.inside is not None:
            inside = tap.inside if inside is None else inside & tap.inside
    return place[:, None, :], None if inside is None else inside[:, None, :]


def _weight(neighbour: tuple[Tap, ...], order: tuple[int, ...]) -> Array:
    """Return a pixel's weight: the product of one factor an axis."""
    weights = [tap.weights[i] for tap, i in zip(neighbour, order, strict=True)]
    return functools.reduce(operator.mul, weights)
