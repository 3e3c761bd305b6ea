"""Antialiasing: the part of the input that an output pixel covers, from the local Jacobian of the grid (chapter 2).

Where the grid's neighbouring samples lie more than a pixel apart, a sampler skips pixels, and what it skips comes
back as false patterns. The cure is to average over the output pixel's footprint: the parallelogram that the steps to
the next row and column span in the input. Along each step the footprint is cut into cells of half a pixel; each is
sampled at its middle and counts by its length, the outermost by as much of it as the footprint covers. So the average
is continuous in the grid. Where the step is one pixel or less the footprint is a point: the plain sampler.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from typing import Any, NamedTuple

from ._arrays import Array, is_tensor, moveaxis

CELL = 0.5  # pixels
FULL = 1.5  # the step, in pixels, from which on the footprint is as wide as the step
LARGEST = 32.0  # pixels; wider footprints are cut to this


class Cell(NamedTuple):
    """A cell of every footprint along one step: sampled at ``position + shift * step``, with a weight."""

    weight: Array
    shift: Array
    weight_slope: Array  # derivatives with respect to the step's squared length
    shift_slope: Array


def steps(value: Array, position: Array, xp: Any) -> list[Array]:
    """Return how far a value moves from one output pixel to the next, along each axis of the output.

    Parameters
    ----------
    value : array, shape (N, *output, D)
        The position, or its tangent.
    position : array of the same shape

    Returns
    -------
    list of arrays of the same shape
        Central differences, one-sided at the edges; 0 along an axis of one pixel, and beside a position that is not
        finite or is out of all bounds.
    """
    return [_difference(value, position, axis, xp) for axis in range(1, position.ndim - 1)]


def _near(position: Array, axis: int, xp: Any) -> Array:
    """Return where positions can be subtracted and squared, the given axis first."""
    return moveaxis(xp.all(xp.abs(position) < 1e100, axis=-1, keepdims=True), axis, 0, xp)


def _difference(value: Array, position: Array, axis: int, xp: Any) -> Array:
    if position.shape[axis] == 1:
        return xp.zeros_like(position)
    near, p = _near(position, axis, xp), moveaxis(value, axis, 0, xp)
    p = xp.where(near, p, xp.zeros_like(p))
    d = p[1:, ...] - p[:-1, ...]
    d = xp.where(near[1:, ...] & near[:-1, ...], d, xp.zeros_like(d))
    d = (xp.concat([d[:1, ...], d]) + xp.concat([d, d[-1:, ...]])) / 2
    return moveaxis(d, 0, axis, xp)


def _difference_vjp(grad: Array, position: Array, axis: int, xp: Any) -> Array:
    if position.shape[axis] == 1:
        return xp.zeros_like(position)
    g, near = moveaxis(grad, axis, 0, xp) / 2, _near(position, axis, xp)
    g = xp.concat([2 * g[:1, ...], g[1:-1, ...], 2 * g[-1:, ...]])  # the ends: one-sided
    if g.shape[0] == 2:
        d = g[:1, ...] + g[1:, ...]
    else:
        none = xp.zeros_like(g[:1, ...])
        left, right = xp.concat([none, g[1:-1, ...]]), xp.concat([g[1:-1, ...], none])
        d = left + right + xp.concat([g[:1, ...], xp.zeros_like(g[1:-2, ...]), g[-1:, ...]])
    d = xp.where(near[1:, ...] & near[:-1, ...], d, xp.zeros_like(d))
    none = xp.zeros_like(d[:1, ...])
    return moveaxis(xp.concat([none, d]) - xp.concat([d, none]), 0, axis, xp)


def reach(step: Array, antialias: bool | float, xp: Any) -> int:
    """Return how many cells a footprint needs to either side of its middle."""
    if antialias is not True:
        widest = float(antialias)
    else:
        square = xp.sum(step * step, axis=-1)
        square = square.detach() if is_tensor(square) else square
        try:
            widest = math.sqrt(float(xp.max(square))) if math.prod(square.shape) else 0.0
        except RuntimeError:  # torch.vmap hides the values
            raise ValueError(
                "antialias: under torch.vmap expected the longest step in pixels, got True"
            ) from None
    widest = min(widest, LARGEST)
    return max(math.ceil(widest / (2 * CELL) - 0.5), 0) if widest > 1 else 0


def cells(step: Array, antialias: bool | float, count: int, xp: Any) -> list[Cell]:
    """Return the cells of the footprints along one step; their weights add up to 1."""
    q = xp.sum(step * step, axis=-1)
    q = xp.where(q > 1, q, xp.ones_like(q))
    one, zero = xp.ones_like(q), xp.zeros_like(q)
    length = xp.sqrt(q)
    length_slope = 0.5 / length
    # How much of the step the footprint covers: nothing up to one pixel, all from FULL on, smoothly between.
    t = xp.clip((q - 1) / (FULL**2 - 1), 0, 1)
    share, share_slope = t * t * (3 - 2 * t), 6 * t * (1 - t) / (FULL**2 - 1)
    width = length * share
    limit = LARGEST if antialias is True else min(float(antialias), LARGEST)
    width_slope = xp.where(width < limit, length_slope * share + length * share_slope, zero)
    width = xp.where(width < limit, width, limit * one)
    wide = width > CELL
    span, span_slope = xp.where(wide, width, CELL * one), xp.where(wide, width_slope, zero)

    result = [Cell(CELL / span, zero, -CELL * span_slope / span**2, zero)]
    for j in range(1, count + 1):
        start = (j - 0.5) * CELL
        covered = span / 2 - start
        partly = (covered > 0) & (covered < CELL)
        covered = xp.clip(covered, 0, CELL)
        covered_slope = xp.where(partly, span_slope / 2, zero)
        weight = covered / span
        # A cell that is not covered counts nothing, and is read where the position is: nothing new comes in.
        shift = xp.where(covered > 0, (start + covered / 2) / length, zero)
        shift_slope = xp.where(
            covered > 0, (covered_slope / 2 - shift * length_slope) / length, zero
        )
        weight_slope = (covered_slope - weight * span_slope) / span
        result += [
            Cell(weight, sign * shift, weight_slope, sign * shift_slope) for sign in (-1, 1)
        ]
    return result


def _product(factors: list[Array]) -> Array:
    return functools.reduce(operator.mul, factors, 1.0)


class Reading(NamedTuple):
    """One of the samples that an output pixel is the weighted sum of."""

    weight: Array  # shape (N, *output)
    offset: Array  # from the position, in pixels, shape (N, *output, D)
    parts: tuple[Cell, ...]  # the cell along each axis of the output


def readings(position: Array, antialias: bool | float, xp: Any) -> list[Reading]:
    """Return the samples that stand for each footprint."""
    moves = steps(position, position, xp)
    axes = [cells(s, antialias, reach(s, antialias, xp), xp) for s in moves]
    return [
        Reading(
            _product([cell.weight for cell in parts]),
            sum(cell.shift[..., None] * step for cell, step in zip(parts, moves, strict=True)),
            parts,
        )
        for parts in itertools.product(*axes)
    ]


def readings_vjp(
    samples: list[Reading],
    grad_weights: list[Array],
    grad_offsets: list[Array],
    position: Array,
    xp: Any,
) -> Array:
    """Return the gradient of the position through the readings' weights and offsets."""
    total = xp.zeros_like(position)
    for axis, step in enumerate(steps(position, position, xp)):
        grad_step = xp.zeros_like(step)
        for reading, grad_weight, grad_offset in zip(
            samples, grad_weights, grad_offsets, strict=True
        ):
            cell = reading.parts[axis]
            others = _product([c.weight for i, c in enumerate(reading.parts) if i != axis])
            grad_square = cell.weight_slope * others * grad_weight
            grad_square = grad_square + cell.shift_slope * xp.sum(grad_offset * step, axis=-1)
            grad_step = grad_step + cell.shift[..., None] * grad_offset
            grad_step = grad_step + 2 * grad_square[..., None] * step
        total = total + _difference_vjp(grad_step, position, axis + 1, xp)
    return total


def readings_jvp(
    samples: list[Reading], tangent: Array, position: Array, xp: Any
) -> list[tuple[Array, Array]]:
    """Return how each reading's weight and offset change as the position moves along its tangent."""
    moves, moving = steps(position, position, xp), steps(tangent, position, xp)
    squares = [2 * xp.sum(a * b, axis=-1) for a, b in zip(moves, moving, strict=True)]
    result = []
    for reading in samples:
        weight = offset = 0.0
        for axis, cell in enumerate(reading.parts):
            others = _product([c.weight for i, c in enumerate(reading.parts) if i != axis])
            weight = weight + cell.weight_slope * squares[axis] * others
            offset = offset + cell.shift[..., None] * moving[axis]
            offset = offset + (cell.shift_slope * squares[axis])[..., None] * moves[axis]
        result.append((weight, offset))
    return result
