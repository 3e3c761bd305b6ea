"""The prefilter of B-splines: from an image's pixels to the coefficients of the spline through them (chapter 2).

A spline of order 2 or more, with the pixels as its coefficients, passes beside the pixels. Its samples at the pixels
are the coefficients blurred by a short filter; the prefilter undoes the blur. Along each axis, for each pole z,
``(1 - z)**2 / ((1 - z S)(1 - z / S))``, with S the shift by one pixel: M. Unser, 1999, equation (19).

The padding says how the image goes on, and the spline is that of the endless image. Each pixel's influence dies away as
z to the distance, so an image extended by a few dozen pixels is endless in float64.
"""

from __future__ import annotations

import math
from typing import Any

from ._arrays import Array, device, moveaxis, scatter_add, to_float64
from .gather_scatter import Sampler
from .padding import extend


def prefilter(input: Array, fill: Array, sampler: Sampler, xp: Any) -> tuple[Array, Array, int]:
    """Return a spline's coefficients, so that the spline passes through the pixels.

    Parameters
    ----------
    input : array, shape (N, C, H, W) or (N, C, D, H, W)
    fill : array, shape (N, C)
        The value beyond the image, where the padding is a constant.
    sampler : Sampler
        With a kernel that has poles; for another, the input comes back as it was.
    xp : namespace

    Returns
    -------
    coefficients : array of float64
        Of input's shape, with a margin at either end of each axis.
    fill : array of float64, shape (N, C)
    margin : int
        How many pixels the coefficients begin before the image. Under zeros, border and fill padding the spline
        ripples on beyond the edge; where the padding repeats the image, its coefficients repeat too, and it is 0.
    """
    if not sampler.kernel.poles:
        return input, fill, 0
    input, fill = to_float64(input, xp), to_float64(fill, xp)
    reach, margin = _reach(sampler)
    for axis in range(2, input.ndim):
        index, inside = _extended(input.shape[axis], sampler, device(input), xp)
        row = xp.take(moveaxis(input, axis, -1, xp), index, axis=-1)
        if inside is not None:
            outside = xp.reshape(fill, (*fill.shape, *[1] * (input.ndim - 2)))
            row = xp.where(inside, row, outside)
        row = _filter(row, sampler.kernel.poles, xp)
        input = moveaxis(row[..., reach : row.shape[-1] - reach], -1, axis, xp)
    return input, fill, margin


def prefilter_vjp(
    grad: Array, grad_fill: Array, sampler: Sampler, xp: Any
) -> tuple[Array, Array]:
    """Return the gradients of input and fill from those of the coefficients and of fill: the transpose."""
    if not sampler.kernel.poles:
        return grad, grad_fill
    grad, grad_fill = to_float64(grad, xp), to_float64(grad_fill, xp)
    reach, margin = _reach(sampler)
    for axis in reversed(range(2, grad.ndim)):
        row = moveaxis(grad, axis, -1, xp)
        edge = xp.zeros_like(row[..., :1])
        edge = xp.concat([edge] * reach, axis=-1)
        row = _filter(xp.concat([edge, row, edge], axis=-1), sampler.kernel.poles, xp)
        index, inside = _extended(grad.shape[axis] - 2 * margin, sampler, device(grad), xp)
        if inside is not None:
            outside = xp.where(inside, xp.zeros_like(row), row)
            grad_fill = grad_fill + xp.sum(outside, axis=tuple(range(2, grad.ndim)))
            row = xp.where(inside, row, xp.zeros_like(row))
        length = grad.shape[axis] - 2 * margin
        flat = xp.reshape(row, (1, math.prod(row.shape[:-1]), row.shape[-1]))
        flat = scatter_add(index[None, None, :], flat, length, xp)
        grad = moveaxis(xp.reshape(flat, (*row.shape[:-1], length)), -1, axis, xp)
    return grad, grad_fill


def _reach(sampler: Sampler) -> tuple[int, int]:
    """Return after how many pixels a coefficient's influence is gone, and the margin that the padding needs."""
    reach = math.ceil(math.log(1e-17) / math.log(max(abs(z) for z in sampler.kernel.poles)))
    return reach, reach if sampler.padding_mode in ("zeros", "border", "fill") else 0


def _extended(
    length: int, sampler: Sampler, device: Any, xp: Any
) -> tuple[Array, Array | None]:
    reach, margin = _reach(sampler)
    far = reach + margin
    m = xp.arange(-far, length + far, dtype=xp.int64, device=device)
    return extend(m, length, sampler.padding_mode, sampler.align_corners, xp)


def _filter(row: Array, poles: tuple[float, ...], xp: Any) -> Array:
    """Apply (1 - z)**2 / ((1 - z S)(1 - z / S)) for each pole along the last axis: a symmetric matrix.

    1 / (1 - z S) is (1 + z S)(1 + z**2 S**2)(1 + z**4 S**4)…, a handful of factors.
    """
    for z in poles:
        row = (1 - z) ** 2 * row
        step = 1
        while abs(z) ** step > 1e-18 and step < row.shape[-1]:
            nothing = xp.zeros_like(row[..., :step])
            row = row + z**step * xp.concat([nothing, row[..., :-step]], axis=-1)
            row = row + z**step * xp.concat([row[..., step:], nothing], axis=-1)
            step *= 2
    return row
