"""Where samples lie: the CPU engine's tables of indices and weights, made tile by tile.

A tile is a part of an output row, or as many rows as fit: few enough samples for its table to stay in a core's fastest
cache. (Squares would read fewer different pixels, and were slower: rows suit the writing of the output.) Samples are
numbered row by row: sample ``q = r * wide + d`` is pixel ``d`` of row ``r`` of the tile.

Samples whose taps all lie inside the image are tabulated 8 at once (`cpu_vectors`); the others, at the image's edge,
outside, or at NaN, are listed, and tabulated tap by tap. Where the padding is one value, those of whose taps none is
inside are only listed: that value is theirs.

Two dimensions are three with a depth of 1, which nothing is interpolated along.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from .._extras import require
from .cpu_vectors import AT_ONCE, borrow, tabulate_line, tabulate_points

numba = require("numba", "fast", "the CPU engine")

NEAREST, BILINEAR, BICUBIC = 1, 2, 4  # by their taps along an axis
ZEROS, FILL, BORDER, REFLECTION, MIRROR, WRAP = range(6)
SAMPLES = 512  # of a tile, at most
NOWHERE = -(2**40)
FAR = 2.0**52  # from here on whole numbers lie no closer than 1 apart


class Problem(NamedTuple):
    """What to compute, in whole numbers; sizes are (z, y, x)."""

    channels: int
    depth: int
    height: int
    width: int
    depth_out: int
    height_out: int
    width_out: int
    padding: int
    align_corners: int
    in_pixels: int
    fused: int  # theta rather than a grid
    wide: int  # pixels of a tile's row
    high: int  # rows of a tile
    groups: int  # of channels, an image
    bands: int  # of tiles, an image
    needs_image: int
    needs_coordinates: int


class Tile(NamedTuple):
    """A rectangle of output pixels."""

    depth: int  # which slice of a volume
    row: int
    column: int
    wide: int
    samples: int
    first: int  # its first pixel's place in the output
    run: int  # so many of its samples lie side by side in the output


class Table(NamedTuple):
    """The samples of a tile. Axes are x, y, z in this order."""

    index: Any  # (samples,) where the taps begin; 0 where one of them is not inside
    beyond: Any  # (samples,) 1 where one of them is not inside, 2 where none is
    beyond_words: Any  # the same, 8 at once
    weight: Any  # (3, taps, samples), [axis, tap]; of two taps the second's alone
    slope: Any  # (3, taps, samples) the weights' derivatives, of four taps
    fraction: Any  # (3, samples) from the pixel below to the sample, for four taps
    along: Any  # (2, samples) each sample's pixel and row in the tile
    wide: Any  # (1,) the tile's width for which these are right
    spare: Any  # a few coordinates
    matrix: Any  # (3, 4) from output pixels to input pixels


class Edges(NamedTuple):
    """The samples that are listed; column ``4 * axis + tap``."""

    sample: Any  # (samples,)
    place: Any  # (samples,) in the output, from the tile's first pixel
    away: Any  # (samples,) those of which no tap is inside, and the padding is one value
    index: Any  # (samples, 12) along each axis; NOWHERE where no pixel stands
    weight: Any  # (samples, 12)
    slope: Any  # (samples, 12) the weights' derivatives
    lost: (
        Any  # (samples,) 1 where a position is NaN: its weights are too, and it reads no pixel
    )


compile_outer = functools.partial(numba.njit, nogil=True, error_model="numpy")
# What Python never calls needs no way in from Python, which would take longer to compile than the rest.
compile_inner = functools.partial(compile_outer, no_cpython_wrapper=True, no_cfunc_wrapper=True)
_inner = compile_inner()
_often = compile_inner(
    forceinline=True
)  # called so often that handing over the arguments would count


@_often
def clear(array: Any, first: int, last: int) -> None:
    """Write zeros; slices would take Numba long to compile."""
    for i in range(first, last):
        array[i] = 0


@_inner
def make_tables(kind: Any, like: Any) -> Any:
    """Return tables to be filled again and again; weights in the dtype of an array."""
    room, taps, dtype = SAMPLES + AT_ONCE, len(kind[0]), like.dtype
    beyond = np.zeros(room, np.int8)
    table = Table(
        np.empty(room, np.int32),
        beyond,
        beyond.view(np.int64),
        np.empty((3, taps, room), dtype),
        np.empty((3, taps, room), dtype),
        np.empty((3, room)),
        np.empty((2, room)),
        np.zeros(1, np.int64),
        np.zeros(24),
        np.empty((3, 4)),
    )
    edges = Edges(
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.zeros((room, 12), np.int64),
        np.ones((room, 12), dtype),
        np.zeros((room, 12), dtype),
        np.empty(room, np.int8),
    )
    return table, edges


@_inner
def lend_tables(table: Table, edges: Edges) -> Any:
    """Return the tables with their arrays borrowed."""
    return (
        Table(
            borrow(table.index),
            borrow(table.beyond),
            borrow(table.beyond_words),
            borrow(table.weight),
            borrow(table.slope),
            borrow(table.fraction),
            borrow(table.along),
            borrow(table.wide),
            borrow(table.spare),
            borrow(table.matrix),
        ),
        Edges(
            borrow(edges.sample),
            borrow(edges.place),
            borrow(edges.away),
            borrow(edges.index),
            borrow(edges.weight),
            borrow(edges.slope),
            borrow(edges.lost),
        ),
    )


@_often
def get_tile(t: int, problem: Problem) -> Tile:
    """Return one of an image's tiles."""
    width, wide, high = problem.width_out, problem.wide, problem.high
    across, down = (width + wide - 1) // wide, (problem.height_out + high - 1) // high
    rest, column = t // across, t % across * wide
    depth, row = rest // down, rest % down * high
    wide = min(wide, width - column)
    count = min(high, problem.height_out - row) * wide
    first = (depth * problem.height_out + row) * width + column
    return Tile(depth, row, column, wide, count, first, count if wide == width else wide)


@_inner
def get_tiles(problem: Problem) -> int:
    """Return how many tiles an image has."""
    across = (problem.width_out + problem.wide - 1) // problem.wide
    down = (problem.height_out + problem.high - 1) // problem.high
    return problem.depth_out * down * across


# Positions


@_inner
def get_unit(problem: Problem, axis: int) -> tuple[float, float, float, float]:
    """Return pixels a unit and the middle, of the input and of the output, along an axis."""
    if problem.in_pixels:
        return 1.0, 0.0, 1.0, 0.0
    size = (problem.width, problem.height, problem.depth)[axis]
    size_out = (problem.width_out, problem.height_out, problem.depth_out)[axis]
    less = 1 if problem.align_corners else 0
    return (size - less) / 2, (size - 1) / 2, (size_out - less) / 2, (size_out - 1) / 2


@_inner
def compose(kind: Any, theta: Any, problem: Problem, matrix: Any) -> None:
    """Turn theta into the matrix from output pixels to input pixels: `stnlib.coordinates.pixel_matrix`."""
    dimensions = len(kind[1])
    for r in range(3):
        clear(matrix[r], 0, 4)
    for r in range(dimensions):
        unit, middle, _, _ = get_unit(problem, r)
        shift = theta[r * (dimensions + 1) + dimensions] * unit + middle
        for k in range(dimensions):
            _, _, unit_out, middle_out = get_unit(problem, k)
            ratio = unit / unit_out if unit_out != 0 else 0.0
            matrix[r, k] = theta[r * (dimensions + 1) + k] * ratio
            shift -= matrix[r, k] * middle_out
        matrix[r, 3] = shift


@_often
def _position(
    kind: Any,
    coordinates: Any,
    n: int,
    tile: Tile,
    q: int,
    axis: int,
    problem: Problem,
    table: Table,
) -> float:
    """Return where a sample lies along an axis, in the input's pixels."""
    r, d = q // tile.wide, q % tile.wide
    if problem.fused:
        matrix = table.matrix
        base = matrix[axis, 1] * (tile.row + r) + (
            matrix[axis, 2] * tile.depth + matrix[axis, 3]
        )
        return matrix[axis, 0] * (tile.column + d) + base
    unit, middle, _, _ = get_unit(problem, axis)
    place = tile.first + r * problem.width_out + d
    g = np.float64(coordinates[n, place * len(kind[1]) + axis])
    return g if abs(g) >= 1e300 else g * unit + middle


@_often
def tabulate(
    kind: Any,
    coordinates: Any,
    n: int,
    tile: Tile,
    a: float,
    problem: Problem,
    table: Table,
    edges: Edges,
) -> tuple[int, int]:
    """Tabulate a tile's samples; list those at the edge and those away from it, and return how many these are."""
    padded = (tile.samples + AT_ONCE - 1) // AT_ONCE * AT_ONCE
    if problem.fused:
        _tabulate_rows(kind, tile, problem, table)
    else:
        for start in range(0, tile.samples, tile.run):
            _tabulate_points(kind, coordinates, n, tile, start, problem, table)
    clear(table.index, tile.samples, padded)
    clear(table.beyond, tile.samples, padded)
    if len(kind[0]) == BICUBIC:
        for axis in range(len(kind[1])):
            weight, slope = table.weight[axis], table.slope[axis]
            for q in range(tile.samples):
                values, slopes = _keys(table.fraction[axis, q], a)
                for k in range(4):
                    weight[k, q], slope[k, q] = values[k], slopes[k]
    found = away = 0
    for word in range(padded // 8):
        if table.beyond_words[word]:
            for q in range(8 * word, 8 * word + 8):
                if table.beyond[q] == 2 and problem.padding <= FILL:
                    edges.away[away] = q
                    away += 1
                elif table.beyond[q]:
                    edges.sample[found] = q
                    edges.place[found] = q // tile.wide * problem.width_out + q % tile.wide
                    found += 1
    if found:
        _tabulate_edges(kind, coordinates, n, tile, found, a, problem, table, edges)
    return found, away


@_often
def _tabulate_rows(kind: Any, tile: Tile, problem: Problem, table: Table) -> None:
    matrix, k, i = table.matrix, tile.depth, tile.row
    size = (problem.width, problem.height, problem.depth)
    for start in range(0, tile.samples, tile.wide):
        base_x = matrix[0, 1] * i + (matrix[0, 2] * k + matrix[0, 3])
        base_y = matrix[1, 1] * i + (matrix[1, 2] * k + matrix[1, 3])
        base_z = matrix[2, 1] * i + (matrix[2, 2] * k + matrix[2, 3])
        steps = (matrix[0, 0], base_x, matrix[1, 0], base_y, matrix[2, 0], base_z)
        for d in range(0, tile.wide, 8):  # the last may write beyond
            tabulate_line(
                kind,
                start + d,
                np.float64(tile.column + d),
                steps,
                size,
                table.index,
                table.beyond,
                table.weight,
                table.fraction,
            )
        i += 1
    if problem.needs_coordinates and table.wide[0] != tile.wide:
        d = i = 0
        for q in range(SAMPLES):
            table.along[0, q], table.along[1, q] = d, i
            d += 1
            if d == tile.wide:
                d, i = 0, i + 1
        table.wide[0] = tile.wide


@_often
def _tabulate_points(
    kind: Any, coordinates: Any, n: int, tile: Tile, start: int, problem: Problem, table: Table
) -> None:
    """Tabulate a run of samples that lie side by side in the output."""
    dimensions = len(kind[1])
    size = (problem.width, problem.height, problem.depth)
    unit_x, middle_x, _, _ = get_unit(problem, 0)
    unit_y, middle_y, _, _ = get_unit(problem, 1)
    unit_z, middle_z, _, _ = get_unit(problem, 2)
    units = (unit_x, middle_x, unit_y, middle_y, unit_z, middle_z)
    begin = tile.first + start // tile.wide * problem.width_out
    points = coordinates[n, begin * dimensions : (begin + tile.run) * dimensions]
    whole = tile.run // 8 * 8
    for d in range(0, whole, 8):
        tabulate_points(
            kind,
            start + d,
            points,
            d,
            units,
            size,
            table.index,
            table.beyond,
            table.weight,
            table.fraction,
        )
    if whole < tile.run:
        for i in range((tile.run - whole) * dimensions):
            table.spare[i] = points[whole * dimensions + i]
        tabulate_points(
            kind,
            start + whole,
            table.spare,
            0,
            units,
            size,
            table.index,
            table.beyond,
            table.weight,
            table.fraction,
        )


@_inner
def _keys(t: float, a: float) -> Any:
    """Return Keys' weights of the four pixels about a sample, t past the second, and their derivatives."""
    p, r, s = 1 + t, 1 - t, 2 - t
    values = (
        ((p - 5) * p + 8) * p * a - 4 * a,
        ((a + 2) * t - (a + 3)) * t * t + 1,
        ((a + 2) * r - (a + 3)) * r * r + 1,
        ((s - 5) * s + 8) * s * a - 4 * a,
    )
    slopes = (
        ((3 * p - 10) * p + 8) * a,
        (3 * (a + 2) * t - 2 * (a + 3)) * t,
        -(3 * (a + 2) * r - 2 * (a + 3)) * r,
        -((3 * s - 10) * s + 8) * a,
    )
    return values, slopes


# Samples at the edge


@_inner
def _tabulate_edges(
    kind: Any,
    coordinates: Any,
    n: int,
    tile: Tile,
    found: int,
    a: float,
    problem: Problem,
    table: Table,
    edges: Edges,
) -> None:
    """Tabulate the taps of the samples that are listed."""
    clear(edges.lost, 0, found)
    stride = 1
    for axis in range(len(kind[1])):
        size = (problem.width, problem.height, problem.depth)[axis]
        repeat = _period(size, problem)
        for e in range(found):
            x = _position(kind, coordinates, n, tile, edges.sample[e], axis, problem, table)
            x = _tame(x, repeat, problem.padding)
            if x != x:
                edges.lost[e], x = 1, 0.0
            _tabulate_edge(
                kind, x, e, 4 * axis, a, size, stride, repeat, problem.padding, edges
            )
        stride *= size
    for e in range(found):
        if edges.lost[e]:
            for column in range(4 * len(kind[1])):
                edges.index[e, column] = NOWHERE
                edges.weight[e, column] = edges.slope[e, column] = math.nan


@_often
def _tabulate_edge(
    kind: Any,
    x: float,
    e: int,
    column: int,
    a: float,
    size: int,
    stride: int,
    repeat: int,
    padding: int,
    edges: Edges,
) -> None:
    """Tabulate the taps of one sample along one axis."""
    index, weight, slope = edges.index, edges.weight, edges.slope
    if len(kind[0]) == NEAREST:
        first = np.int64(np.rint(x))
        weight[e, column], slope[e, column] = 1.0, 0.0
    else:
        below = np.floor(x)
        first, t = np.int64(below), x - below
        if len(kind[0]) == BILINEAR:
            weight[e, column], weight[e, column + 1] = 1 - t, t
            slope[e, column], slope[e, column + 1] = -1.0, 1.0
        else:
            first -= 1
            values, slopes = _keys(t, a)
            for k in range(4):
                weight[e, column + k], slope[e, column + k] = values[k], slopes[k]
    for k in range(len(kind[0])):
        m = _extend(first + k, size, repeat, padding)
        index[e, column + k] = m * stride if m >= 0 else NOWHERE


@_often
def _extend(m: int, size: int, repeat: int, padding: int) -> int:
    """Return which pixel stands at m along an axis, or -1: `stnlib.padding.extend`."""
    if 0 <= m < size:
        return m
    if padding <= FILL:
        return -1
    if padding == BORDER:
        return min(max(m, 0), size - 1)
    m %= repeat
    if m < size:
        return m
    return repeat - 1 - m if repeat == 2 * size else repeat - m


@_inner
def _period(size: int, problem: Problem) -> int:
    """Return after how many pixels the padded image repeats."""
    if problem.padding == WRAP:
        return size
    if problem.padding == REFLECTION and not problem.align_corners:
        return 2 * size
    return max(2 * (size - 1), 1)


@_often
def _tame(x: float, repeat: int, padding: int) -> float:
    """Return a position that is finite or NaN and reads the same: `stnlib.padding.tame`."""
    if abs(x) < FAR or math.isnan(x):
        return x
    if padding <= BORDER:
        return min(max(x, -FAR), FAR)
    return math.nan if math.isinf(x) else x % repeat
