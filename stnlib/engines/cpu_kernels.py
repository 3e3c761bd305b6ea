"""The CPU engine's kernels, compiled by Numba: `forward`, `backward`, `pack_planes` and `collect_planes`.

Each kernel hands out its work item by item from a shared counter, so any number of threads may run it at once. An item
owns what it writes, and what an item is does not depend on the threads: results are the same, bit for bit, on any
number of them.

An item goes through its output pixels tile by tile (`cpu_table`). Every channel uses a tile's table.

*Lanes* are the channels that are worked on at once (`cpu_vectors`). With more than one, an item turns its planes to
*packed* ones, in which a pixel's lanes lie side by side. ``outer`` is the pixel that stands wherever there is none:
the value beyond the image, and among gradients, that value's gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .cpu_table import (
    NEAREST,
    SAMPLES,
    Edges,
    Problem,
    Table,
    Tile,
    clear,
    compile_inner,
    compile_outer,
    compose,
    get_tile,
    get_tiles,
    get_unit,
    lend_tables,
    make_tables,
    tabulate,
)
from .cpu_threads import in_parallel
from .cpu_vectors import (
    AT_ONCE,
    add_lanes,
    blend_lanes,
    blend_samples,
    borrow,
    dot_lanes,
    keep,
    next_item,
    slope_lanes,
    slope_samples,
    spread_lanes,
    spread_samples,
    transpose,
)

_inner = compile_inner()
_often = compile_inner(forceinline=True)
_blending = compile_inner(fastmath={"contract"}, forceinline=True)
_summing = compile_inner(fastmath={"contract", "reassoc"})


def _kernel(function: Callable[..., Any]) -> Any:
    """Compile on the first call and keep the machine code on disk; in memory alone where no folder can be written."""
    try:
        return compile_outer(cache=True, no_cfunc_wrapper=True)(function)
    except RuntimeError:
        return compile_outer(no_cfunc_wrapper=True)(function)


@_inner
def _share(item: int, problem: Problem) -> tuple[int, int, int, int]:
    """Return the image, the group of channels, the first tile of an item, and the one after its last."""
    part, band = item // problem.bands, item % problem.bands
    tiles = get_tiles(problem)
    first, last = tiles * band // problem.bands, tiles * (band + 1) // problem.bands
    return part // problem.groups, part % problem.groups, first, last


# Packed planes


@_often
def _pack(
    kind: Any,
    planes: Any,
    first: int,
    size: int,
    at: int,
    length: int,
    count: int,
    packed: Any,
    to: int,
) -> None:
    """Lay the same pixels of ``count`` planes side by side: of each plane, ``length`` of them from ``at`` on.

    Plane ``first`` is the first; a plane has ``size`` pixels.
    """
    lanes = len(kind[2])
    if lanes == 1:
        # Indices that cannot be negative: else the loop would not become vectors.
        start = np.uint64(first * size + at)
        for p in range(np.uint64(length)):
            packed[np.uint64(to) + p] = planes[start + p]
        return
    whole = length // lanes * lanes
    for p in range(0, whole, lanes):
        transpose(
            kind,
            planes,
            first * size + at + p,
            size,
            packed,
            (to + p) * lanes,
            lanes,
            count,
            (0,),
        )
    for p in range(whole, length):
        for lane in range(lanes):
            value = planes.dtype.type(0)
            if lane < count:
                value = planes[(first + lane) * size + at + p]
            packed[(to + p) * lanes + lane] = value


@_often
def _unpack(
    kind: Any,
    packed: Any,
    start: int,
    length: int,
    count: int,
    planes: Any,
    first: int,
    size: int,
    to: int,
) -> None:
    """Undo `_pack`: of ``packed``, take ``length`` pixels from ``start`` on."""
    lanes = len(kind[2])
    if lanes == 1:
        for p in range(length):
            planes[first * size + to + p] = packed[start + p]
        return
    whole = length // lanes * lanes
    for p in range(0, whole, lanes):
        transpose(
            kind,
            packed,
            (start + p) * lanes,
            lanes,
            planes,
            first * size + to + p,
            size,
            count,
            (0, 0),
        )
    for lane in range(count):
        for p in range(whole, length):
            planes[(first + lane) * size + to + p] = packed[(start + p) * lanes + lane]


@_often
def _pack_group(
    kind: Any, image: Any, n: int, group: int, problem: Problem, packed: Any
) -> None:
    """Pack a group of an image's planes."""
    c, pixels = group * len(kind[2]), problem.depth * problem.height * problem.width
    count = min(len(kind[2]), problem.channels - c)
    _pack(kind, image, n * problem.channels + c, pixels, 0, pixels, count, packed, 0)


@_often
def _get_outer(kind: Any, fill: Any, n: int, group: int, problem: Problem, outer: Any) -> None:
    """Write the value beyond a group of planes."""
    for lane in range(len(kind[2])):
        c = group * len(kind[2]) + lane
        outer[lane] = fill[n, c] if c < problem.channels else 0


@_inner
def _aligned(size: int, like: Any) -> Any:
    """Return room for so many numbers that begins with a cache line."""
    room = np.empty(size + 64 // like.itemsize, like.dtype)
    skip = (-room.ctypes.data) % 64 // like.itemsize
    return room[skip : skip + size]


# Forward


@_often
def _sample_run(
    kind: Any,
    image: Any,
    base: int,
    start: int,
    count: int,
    problem: Problem,
    table: Table,
    out: Any,
    to: int,
    spare: Any,
) -> None:
    """Sample one plane at samples from ``start`` on, those that are inside; the others get some number."""
    index, weight = table.index, table.weight
    if len(kind[0]) == NEAREST:
        begin, part, places = (
            np.uint64(base),
            out[to : to + count],
            index[start : start + count],
        )
        for q in range(count):
            part[q] = image[begin + np.uint64(places[q])]
        return
    row, slab = problem.width, problem.width * problem.height
    at_once = AT_ONCE // len(kind[0])
    whole = count // at_once * at_once
    for q in range(start, start + whole, at_once):
        blend_samples(kind, image, base, index, weight, q, row, slab, out, to - start)
    if whole < count:
        last = start + whole
        blend_samples(kind, image, base, index, weight, last, row, slab, spare, -last)
        for q in range(whole, count):
            out[to + q] = spare[q - whole]


@_blending
def _edge_value(kind: Any, image: Any, base: int, fill: Any, e: int, edges: Edges) -> Any:
    """Sample one plane at one sample, tap by tap."""
    index, weight, total = edges.index, edges.weight, image.dtype.type(0)
    for z in range(8, 8 + (len(kind[0]) if len(kind[1]) == 3 else 1)):
        for y in range(4, 4 + len(kind[0])):
            for x in range(len(kind[0])):
                place = index[e, z] + index[e, y] + index[e, x]
                value = image[base + place] if place >= 0 else fill
                total += weight[e, x] * weight[e, y] * weight[e, z] * value
    return total


@_often
def _forward_planes(
    kind: Any,
    n: int,
    group: int,
    tile: Tile,
    image: Any,
    fill: Any,
    output: Any,
    found: int,
    away: int,
    problem: Problem,
    table: Table,
    edges: Edges,
    spare: Any,
) -> None:
    """Sample a tile, plane by plane."""
    pixels = problem.depth * problem.height * problem.width
    pixels_out = problem.depth_out * problem.height_out * problem.width_out
    from_c = problem.channels * group // problem.groups
    to_c = problem.channels * (group + 1) // problem.groups
    for c in range(from_c, to_c):
        plane = n * problem.channels + c
        base, to = plane * pixels, plane * pixels_out + tile.first
        if found + away < tile.samples:
            for start in range(0, tile.samples, tile.run):
                at = to + start // tile.wide * problem.width_out
                _sample_run(
                    kind, image, base, start, tile.run, problem, table, output, at, spare
                )
        for e in range(found):
            output[to + edges.place[e]] = _edge_value(kind, image, base, fill[n, c], e, edges)
        for e in range(away):
            q = edges.away[e]
            output[to + q // tile.wide * problem.width_out + q % tile.wide] = fill[n, c]


@_often
def _forward_lanes(
    kind: Any,
    n: int,
    group: int,
    tile: Tile,
    packed: Any,
    outer: Any,
    output: Any,
    found: int,
    away: int,
    problem: Problem,
    table: Table,
    edges: Edges,
    stage: Any,
) -> None:
    """Sample a tile, all lanes at once."""
    lanes = len(kind[2])
    pixels_out = problem.depth_out * problem.height_out * problem.width_out
    row, slab = problem.width, problem.width * problem.height
    if found + away < tile.samples:
        for q in range(tile.samples):
            blend_lanes(kind, packed, table.index, table.weight, q, row, slab, stage)
    index, weight = edges.index, edges.weight
    for e in range(found):
        q = edges.sample[e]
        for lane in range(lanes):
            stage[q * lanes + lane] = 0
        for z in range(8, 8 + (len(kind[0]) if len(kind[1]) == 3 else 1)):
            for y in range(4, 4 + len(kind[0])):
                for x in range(len(kind[0])):
                    place = index[e, z] + index[e, y] + index[e, x]
                    share = weight[e, x] * weight[e, y] * weight[e, z]
                    if place >= 0:
                        add_lanes(kind, stage, q, share, packed, place)
                    else:
                        add_lanes(kind, stage, q, share, outer, 0)
    for e in range(away):
        for lane in range(lanes):
            stage[edges.away[e] * lanes + lane] = outer[lane]
    c = group * lanes
    channels = min(lanes, problem.channels - c)
    for start in range(0, tile.samples, tile.run):
        at = tile.first + start // tile.wide * problem.width_out
        _unpack(
            kind,
            stage,
            start,
            tile.run,
            channels,
            output,
            n * problem.channels + c,
            pixels_out,
            at,
        )


@_inner
def _forward(
    kind: Any,
    counter: Any,
    items: int,
    image: Any,
    coordinates: Any,
    fill: Any,
    output: Any,
    whole: Any,
    a: float,
) -> None:
    """Sample images; arrays are flat but for coordinates, (N, ...), and fill, (N, C)."""
    problem, lanes = Problem(*whole), len(kind[2])
    pixels = problem.depth * problem.height * problem.width
    item = next_item(counter)
    if item >= items:
        return
    image, coordinates = borrow(image), borrow(coordinates)
    fill, output = borrow(fill), borrow(output)
    tables = make_tables(kind, image)
    own_stage = _aligned((SAMPLES + AT_ONCE) * lanes, image)
    own_packed = _aligned(pixels * lanes if lanes > 1 else 0, image)
    own_outer = np.empty(lanes, image.dtype)
    table, edges = lend_tables(tables[0], tables[1])
    stage, packed, outer = borrow(own_stage), borrow(own_packed), borrow(own_outer)
    while item < items:
        n, group, first, last = _share(item, problem)
        if problem.fused:
            compose(kind, coordinates[n], problem, table.matrix)
        if lanes > 1:
            _pack_group(kind, image, n, group, problem, packed)
            _get_outer(kind, fill, n, group, problem, outer)
        for t in range(first, last):
            tile = get_tile(t, problem)
            found, away = tabulate(kind, coordinates, n, tile, a, problem, table, edges)
            if lanes > 1:
                _forward_lanes(
                    kind,
                    n,
                    group,
                    tile,
                    packed,
                    outer,
                    output,
                    found,
                    away,
                    problem,
                    table,
                    edges,
                    stage,
                )
            else:
                _forward_planes(
                    kind,
                    n,
                    group,
                    tile,
                    image,
                    fill,
                    output,
                    found,
                    away,
                    problem,
                    table,
                    edges,
                    stage,
                )
        item = next_item(counter)
    keep((tables, own_stage, own_packed, own_outer))


# Backward


@_often
def _slopes(
    kind: Any, packed: Any, grad: Any, count: int, problem: Problem, table: Table, slopes: Any
) -> None:
    """Write each sample's gradient along the axes; at the edge, some number."""
    row, slab = problem.width, problem.width * problem.height
    index, weight, slope = table.index, table.weight, table.slope
    if len(kind[0]) == NEAREST:
        for q in range(count):  # 0, but NaN beside a pixel that is not finite
            slope_of_0 = 0 * dot_lanes(kind, packed, np.int64(index[q]), grad, q)
            slopes[0, q] = slopes[1, q] = slopes[2, q] = slope_of_0
    elif len(kind[2]) == 1:
        for q in range(0, count, AT_ONCE // len(kind[0])):
            slope_samples(kind, packed, 0, index, weight, q, row, slab, slope, grad, slopes)
    else:
        for q in range(0, count, 4):
            slope_lanes(kind, packed, index, weight, q, row, slab, slope, grad, slopes)


@_often
def _spread(
    kind: Any, grad: Any, count: int, problem: Problem, table: Table, sums: Any
) -> None:
    """Add each sample's gradient to the pixels that it read; not at the edge."""
    row, slab = problem.width, problem.width * problem.height
    if len(kind[2]) == 1:
        at_once = AT_ONCE // len(kind[0])
        clear(grad, count, count + at_once)
        index, weight = table.index, table.weight
        for q in range(0, count, at_once):
            spread_samples(kind, sums, 0, index, weight, q, row, slab, grad, table.beyond)
        return
    for q in range(count):
        if not table.beyond[q]:
            spread_lanes(kind, sums, table.index, table.weight, q, row, slab, grad)


@_often
def _backward_edges(
    kind: Any,
    packed: Any,
    outer: Any,
    grad: Any,
    found: int,
    problem: Problem,
    edges: Edges,
    slopes: Any,
    sums: Any,
    outer_sums: Any,
) -> None:
    """Do what `_slopes` and `_spread` do for the samples at the edge."""
    index, weight, slope = edges.index, edges.weight, edges.slope
    for e in range(found):
        q = edges.sample[e]
        along_x = along_y = along_z = grad.dtype.type(0)
        for z in range(8, 8 + (len(kind[0]) if len(kind[1]) == 3 else 1)):
            for y in range(4, 4 + len(kind[0])):
                for x in range(len(kind[0])):
                    place = index[e, z] + index[e, y] + index[e, x]
                    wx, wy, wz = weight[e, x], weight[e, y], weight[e, z]
                    if problem.needs_coordinates:
                        if place >= 0:
                            product = dot_lanes(kind, packed, place, grad, q)
                        else:
                            product = dot_lanes(kind, outer, 0, grad, q)
                        along_x += slope[e, x] * wy * wz * product
                        along_y += wx * slope[e, y] * wz * product
                        along_z += wx * wy * slope[e, z] * product
                    if problem.needs_image and not edges.lost[e]:
                        if place >= 0:
                            add_lanes(kind, sums, place, wx * wy * wz, grad, q)
                        else:
                            add_lanes(kind, outer_sums, 0, wx * wy * wz, grad, q)
        slopes[0, q], slopes[1, q], slopes[2, q] = along_x, along_y, along_z


@_summing
def _sum_products(count: int, a: Any, b: Any) -> float:
    total = 0.0
    for q in range(count):
        total += np.float64(a[q]) * b[q]
    return total


@_summing
def _sum(count: int, a: Any) -> float:
    total = 0.0
    for q in range(count):
        total += np.float64(a[q])
    return total


@_often
def _add_moments(
    kind: Any, tile: Tile, problem: Problem, table: Table, slopes: Any, moments: Any
) -> None:
    """Add a tile to the matrix's gradient, about the output's middle."""
    dimensions = len(kind[1])
    _, _, _, middle_x = get_unit(problem, 0)
    _, _, _, middle_y = get_unit(problem, 1)
    _, _, _, middle_z = get_unit(problem, 2)
    for r in range(dimensions):
        total = _sum(tile.samples, slopes[r])
        along_x = _sum_products(tile.samples, slopes[r], table.along[0])
        along_y = _sum_products(tile.samples, slopes[r], table.along[1])
        first = r * (dimensions + 1)
        moments[first + dimensions] += total
        moments[first] += along_x + total * (tile.column - middle_x)
        moments[first + 1] += along_y + total * (tile.row - middle_y)
        if dimensions == 3:
            moments[first + 2] += total * (tile.depth - middle_z)


@_inner
def _finish_theta(kind: Any, moments: Any, problem: Problem) -> None:
    """Turn the matrix's gradient into theta's: `stnlib.coordinates.pixel_matrix_vjp`."""
    dimensions = len(kind[1])
    for r in range(dimensions):
        unit, _, _, _ = get_unit(problem, r)
        for k in range(dimensions):
            _, _, unit_out, _ = get_unit(problem, k)
            moments[r * (dimensions + 1) + k] *= unit / unit_out if unit_out != 0 else 0.0
        moments[r * (dimensions + 1) + dimensions] *= unit


@_often
def _collect(
    kind: Any, n: int, group: int, problem: Problem, sums: Any, grad_image: Any
) -> None:
    """Turn a packed gradient into planes."""
    c, pixels = group * len(kind[2]), problem.depth * problem.height * problem.width
    count = min(len(kind[2]), problem.channels - c)
    _unpack(kind, sums, 0, pixels, count, grad_image, n * problem.channels + c, pixels, 0)


@_often
def _collect_outer(
    kind: Any, n: int, group: int, problem: Problem, outer_sums: Any, grad_fill: Any
) -> None:
    for lane in range(len(kind[2])):
        c = group * len(kind[2]) + lane
        if c < problem.channels:
            grad_fill[n, c] = outer_sums[lane]


@_inner
def _backward(
    kind: Any,
    counter: Any,
    items: int,
    grad: Any,
    image: Any,
    coordinates: Any,
    fill: Any,
    parts: Any,
    grad_image: Any,
    grad_coordinates: Any,
    grad_fill: Any,
    whole: Any,
    a: float,
) -> None:
    """Write the gradients; arrays are flat but for coordinates, (N, ...), and fill, (N, C).

    With one band, a thread packs each group's planes and unpacks its gradient itself; one lane needs no packing. With
    more, ``image`` comes packed (`pack_planes`), and each item leaves its sums in ``parts``, (items, ...), the outer
    pixel's last, for `collect_planes`. ``grad_coordinates``, (items, ...), are the sums over the item's channels: of
    theta in float64, or of the grid.
    """
    problem, lanes = Problem(*whole), len(kind[2])
    room = problem.depth * problem.height * problem.width * lanes
    alone = problem.bands == 1
    packs = alone and lanes > 1
    item, one = next_item(counter), image.dtype.type(1)
    if item >= items:
        return
    grad, image, coordinates, fill = (
        borrow(grad),
        borrow(image),
        borrow(coordinates),
        borrow(fill),
    )
    parts, grad_image = borrow(parts), borrow(grad_image)
    grad_coordinates, grad_fill = borrow(grad_coordinates), borrow(grad_fill)
    tables = make_tables(kind, image)
    table, edges = lend_tables(tables[0], tables[1])
    owners = (
        _aligned((SAMPLES + AT_ONCE) * lanes, image),
        _aligned(room if packs else 0, image),
        _aligned(room if packs else 0, image),
        np.empty(lanes, image.dtype),
        np.empty(lanes, image.dtype),
        np.empty((3, SAMPLES + AT_ONCE), image.dtype),
    )
    stage, own_packed, own_sums = borrow(owners[0]), borrow(owners[1]), borrow(owners[2])
    outer, own_outer_sums, slopes = borrow(owners[3]), borrow(owners[4]), borrow(owners[5])
    while item < items:
        n, group, first, last = _share(item, problem)
        part = item // problem.bands
        packed, sums = own_packed, own_sums
        if not packs:
            packed = image[part * room : (part + 1) * room]
        elif problem.needs_coordinates:
            _pack_group(kind, image, n, group, problem, packed)
        _get_outer(kind, fill, n, group, problem, outer)
        outer_sums = own_outer_sums if alone else parts[item, room:]
        if alone and not packs and problem.needs_image:
            sums = grad_image[part * room : (part + 1) * room]
        elif not alone:
            sums = parts[item, :room]
        if alone and problem.needs_image:
            clear(sums, 0, sums.size)
            clear(outer_sums, 0, lanes)
        if problem.fused:
            compose(kind, coordinates[n], problem, table.matrix)
            clear(grad_coordinates[item], 0, grad_coordinates.shape[1])
        for t in range(first, last):
            tile = get_tile(t, problem)
            found, away = tabulate(kind, coordinates, n, tile, a, problem, table, edges)
            _load_grad(kind, n, group, tile, grad, problem, stage)
            if problem.needs_coordinates and found + away < tile.samples:
                _slopes(kind, packed, stage, tile.samples, problem, table, slopes)
            if problem.needs_image and found + away < tile.samples:
                _spread(kind, stage, tile.samples, problem, table, sums)
            if found:
                _backward_edges(
                    kind, packed, outer, stage, found, problem, edges, slopes, sums, outer_sums
                )
            for e in range(away):
                # One value has no slope: 0, but NaN if it is not finite.
                q = edges.away[e]
                slopes[0, q] = 0 * dot_lanes(kind, outer, 0, stage, q)
                slopes[1, q] = slopes[2, q] = slopes[0, q]
                if problem.needs_image:
                    add_lanes(kind, outer_sums, 0, one, stage, q)
            if problem.needs_coordinates and problem.fused:
                _add_moments(kind, tile, problem, table, slopes, grad_coordinates[item])
            elif problem.needs_coordinates:
                _write_grid(kind, tile, slopes, problem, grad_coordinates[part])
        if problem.fused and problem.needs_coordinates:
            _finish_theta(kind, grad_coordinates[item], problem)
        if packs and problem.needs_image:
            _collect(kind, n, group, problem, sums, grad_image)
        if alone and problem.needs_image:
            _collect_outer(kind, n, group, problem, outer_sums, grad_fill)
        item = next_item(counter)
    keep((tables, owners))


@_often
def _load_grad(
    kind: Any, n: int, group: int, tile: Tile, grad: Any, problem: Problem, stage: Any
) -> None:
    """Pack a tile of the output's gradient."""
    c = group * len(kind[2])
    plane, channels = n * problem.channels + c, min(len(kind[2]), problem.channels - c)
    pixels_out = problem.depth_out * problem.height_out * problem.width_out
    for start in range(0, tile.samples, tile.run):
        at = tile.first + start // tile.wide * problem.width_out
        _pack(kind, grad, plane, pixels_out, at, tile.run, channels, stage, start)


@_often
def _write_grid(kind: Any, tile: Tile, slopes: Any, problem: Problem, grad_grid: Any) -> None:
    dimensions = len(kind[1])
    for start in range(0, tile.samples, tile.run):
        at = tile.first + start // tile.wide * problem.width_out
        for axis in range(dimensions):
            unit, _, _, _ = get_unit(problem, axis)
            for q in range(tile.run):
                grad_grid[(at + q) * dimensions + axis] = slopes[axis, start + q] * unit


@_inner
def _pack_planes(
    kind: Any, counter: Any, items: int, image: Any, packed: Any, whole: Any
) -> None:
    """Pack every group of planes, for all of its bands."""
    problem = Problem(*whole)
    room = problem.depth * problem.height * problem.width * len(kind[2])
    item = next_item(counter)
    while item < items:
        n, group = item // problem.groups, item % problem.groups
        _pack_group(kind, image, n, group, problem, packed[item * room : (item + 1) * room])
        item = next_item(counter)


@_inner
def _collect_planes(
    kind: Any, counter: Any, items: int, parts: Any, grad_image: Any, grad_fill: Any, whole: Any
) -> None:
    """Add the bands' gradients up, in order, and unpack them."""
    problem = Problem(*whole)
    room = problem.depth * problem.height * problem.width * len(kind[2])
    item = next_item(counter)
    while item < items:
        n, group = item // problem.groups, item % problem.groups
        sums = parts[item * problem.bands]
        for band in range(1, problem.bands):
            more = parts[item * problem.bands + band]
            for i in range(sums.size):
                sums[i] += more[i]
        _collect(kind, n, group, problem, sums, grad_image)
        _collect_outer(kind, n, group, problem, sums[room:], grad_fill)
        item = next_item(counter)


# What Python calls


@_kernel
def forward(address: int, threads: int, *arguments: Any) -> None:
    """Call `_forward` on some threads."""
    in_parallel(address, threads, _forward, arguments)


@_kernel
def backward(address: int, threads: int, *arguments: Any) -> None:
    """Call `_backward` on some threads."""
    in_parallel(address, threads, _backward, arguments)


@_kernel
def pack_planes(address: int, threads: int, *arguments: Any) -> None:
    """Call `_pack_planes` on some threads."""
    in_parallel(address, threads, _pack_planes, arguments)


@_kernel
def collect_planes(address: int, threads: int, *arguments: Any) -> None:
    """Call `_collect_planes` on some threads."""
    in_parallel(address, threads, _collect_planes, arguments)
