"""The CPU engine's innermost loops, written in LLVM's vectors.

Two ways to keep a processor's vectors full. With one channel, or few, several samples at once: the two or four pixels
that a sample reads along x lie side by side, and one load brings them all (`blend_samples`). With more, several
channels at once: planes are turned so that each pixel's channels lie side by side (`transpose`), and all that is done
for a sample is then done for 4 to 16 channels in one step, writing to the image's gradient included (`blend_lanes`,
`slope_lanes`, `spread_lanes`). A compiler finds neither by itself. The rest of the engine is plain Numba
(`cpu_kernels`).

Functions here take a ``kind``, three tuples of any whole numbers whose lengths alone count: they tell the compiler
taps along an axis, dimensions, and lanes, the channels at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

intrinsic: Any = extending.intrinsic

AT_ONCE = 16
"""Tables are padded to a multiple of this many samples."""

_FUSED = ("contract",)  # a product and a sum may be rounded once
_WIDE = ir.VectorType(ir.DoubleType(), 8)


@intrinsic
def next_item(typingctx: Any, counter: Any) -> Any:
    """Return ``counter[0]`` and raise it by one, in one step that no other thread can come between."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = _array(context, builder, signature, args, 0)
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", array.data, one, "monotonic")

    return types.int64(counter), codegen


@intrinsic
def borrow(typingctx: Any, array: Any) -> Any:
    """Return an array that nobody counts the references of; its owner has to stay (`keep`).

    Numba counts them with atomic instructions, wherever an array is handed on: threads that share an array would spend
    their time passing its counter's cache line to and fro.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        borrowed = _array(context, builder, signature, args, 0)
        borrowed.meminfo = ir.Constant(borrowed.meminfo.type, None)
        borrowed.parent = ir.Constant(borrowed.parent.type, None)
        return borrowed._getvalue()

    return array(array), codegen


@intrinsic
def keep(typingctx: Any, owners: Any) -> Any:
    """Do nothing: arrays that are used here were not let go before."""
    return types.void(owners), lambda context, *_: context.get_dummy_value()


# Where samples lie


@intrinsic
def tabulate_line(
    typingctx: Any,
    kind: Any,
    q: Any,
    j: Any,
    steps: Any,
    size: Any,
    index: Any,
    beyond: Any,
    weight: Any,
    fraction: Any,
) -> Any:
    """Tabulate 8 neighbours along an output row, which lie at ``steps[axis][0] * (j + i) + steps[axis][1]``, i from 0.

    Where a sample's taps begin goes to ``index[q + i]``. Of two taps, the second's weight goes to
    ``weight[axis, 0, q + i]``; of four, how far the sample lies past the second to ``fraction[axis, q + i]``. If a tap
    is not inside the image, of ``size`` (x, y, z), then ``beyond[q + i]`` is 1 and the index 0; if none is, it is 2.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first, *others = (
            _splat(builder, value, 8)
            for value in (args[2], *cgutils.unpack_tuple(builder, args[3]))
        )
        at = builder.fadd(first, ir.Constant(_WIDE, [float(i) for i in range(8)]))
        positions = [
            builder.fadd(builder.fmul(others[2 * axis], at), others[2 * axis + 1])
            for axis in range(signature.args[0].types[1].count)
        ]
        tables = [_array(context, builder, signature, args, i) for i in range(5, 9)]
        number = context.get_data_type(signature.args[7].dtype)
        taps = signature.args[0].types[0].count
        _tabulate(context, builder, taps, args[1], args[4], tables, number, positions)
        return context.get_dummy_value()

    return types.void(
        kind, q, types.float64, steps, size, index, beyond, weight, fraction
    ), codegen


@intrinsic
def tabulate_points(
    typingctx: Any,
    kind: Any,
    q: Any,
    points: Any,
    at: Any,
    units: Any,
    size: Any,
    index: Any,
    beyond: Any,
    weight: Any,
    fraction: Any,
) -> Any:
    """Tabulate 8 samples as `tabulate_line` does, whose coordinates begin at ``points[at * dimensions]``.

    They lie at a coordinate times ``units[axis][0]`` plus ``units[axis][1]``.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        dimensions = signature.args[0].types[1].count
        units = [_splat(builder, u, 8) for u in cgutils.unpack_tuple(builder, args[4])]
        number = context.get_data_type(signature.args[2].dtype)
        some = ir.VectorType(number, 8 * dimensions)
        start = builder.mul(args[3], ir.Constant(args[3].type, dimensions))
        where = builder.gep(_array(context, builder, signature, args, 2).data, [start])
        points = builder.load(
            builder.bitcast(where, some.as_pointer()), align=context.get_abi_sizeof(number)
        )
        positions = []
        for axis in range(dimensions):
            order = range(axis, 8 * dimensions, dimensions)
            point = _shuffle(builder, points, points, order)
            if point.type != _WIDE:
                point = builder.fpext(point, _WIDE)
            positions.append(
                builder.fadd(builder.fmul(point, units[2 * axis]), units[2 * axis + 1])
            )
        tables = [_array(context, builder, signature, args, i) for i in range(6, 10)]
        weights = context.get_data_type(signature.args[8].dtype)
        taps = signature.args[0].types[0].count
        _tabulate(context, builder, taps, args[1], args[5], tables, weights, positions)
        return context.get_dummy_value()

    return types.void(
        kind, q, points, at, units, size, index, beyond, weight, fraction
    ), codegen


def _tabulate(
    context: Any,
    builder: Any,
    taps: int,
    q: Any,
    size: Any,
    tables: Sequence[Any],
    number: Any,
    positions: Sequence[Any],
) -> None:
    """Write what follows from the positions of 8 samples, a vector an axis."""
    index_table, beyond_table, weight_table, fraction_table = tables
    whole, flags = (ir.VectorType(ir.IntType(bits), 8) for bits in (32, 8))
    weights, align = ir.VectorType(number, 8), context.get_abi_sizeof(number)
    sizes = cgutils.unpack_tuple(builder, size)
    low, beyond = (-0.5, 0.5) if taps == 1 else (taps / 2 - 1, taps / 2)
    stride: Any = ir.Constant(ir.IntType(32), 1)
    index: Any = ir.Constant(whole, [0] * 8)
    inside: Any = ir.Constant(ir.VectorType(ir.IntType(1), 8), [1] * 8)
    known: Any = inside
    away: Any = ir.Constant(ir.VectorType(ir.IntType(1), 8), [0] * 8)
    for axis, position in enumerate(positions):
        length = builder.sitofp(sizes[axis], ir.DoubleType())
        high = builder.fsub(length, ir.Constant(ir.DoubleType(), beyond))
        here = builder.and_(
            builder.fcmp_ordered(">=", position, ir.Constant(_WIDE, [low] * 8)),
            builder.fcmp_ordered("<", position, _splat(builder, high, 8)),
        )
        inside = builder.and_(inside, here)
        lowest, reach = (-0.5, -0.5) if taps == 1 else (-taps / 2, taps / 2 - 1)
        highest = builder.fadd(length, ir.Constant(ir.DoubleType(), reach))
        below_all = builder.fcmp_ordered("<", position, ir.Constant(_WIDE, [lowest] * 8))
        above_all = builder.fcmp_ordered(
            ">" if taps == 1 else ">=", position, _splat(builder, highest, 8)
        )
        away = builder.or_(away, builder.or_(below_all, above_all))
        known = builder.and_(known, builder.fcmp_ordered("ord", position, position))
        near = builder.select(here, position, ir.Constant(_WIDE, [max(low, 0.0)] * 8))
        if taps == 1:
            rint = ir.FunctionType(_WIDE, [_WIDE])
            rint = cgutils.get_or_insert_function(builder.module, rint, "llvm.rint.v8f64")
            near = builder.call(rint, [near])
        below = builder.fptosi(near, whole)  # near is not negative
        past = builder.fsub(near, builder.sitofp(below, _WIDE))
        if taps == 2:
            if weights != _WIDE:
                past = builder.fptrunc(past, weights)
            builder.store(
                past, _row(context, builder, weight_table, (axis, 0), q, weights), align
            )
        if taps == 4:
            builder.store(past, _row(context, builder, fraction_table, (axis,), q, _WIDE), 8)
            below = builder.sub(below, ir.Constant(whole, [1] * 8))
        index = builder.add(index, builder.mul(below, _splat(builder, stride, 8)))
        stride = builder.mul(stride, builder.trunc(sizes[axis], stride.type))
    index = builder.select(inside, index, ir.Constant(whole, [0] * 8))
    builder.store(index, _row(context, builder, index_table, (), q, whole), align=4)
    one, two = (ir.Constant(flags, [n] * 8) for n in (1, 2))
    outside = builder.select(
        inside, ir.Constant(flags, [0] * 8), builder.select(builder.and_(away, known), two, one)
    )
    builder.store(outside, _row(context, builder, beyond_table, (), q, flags), align=1)


# Several samples at once


@intrinsic
def blend_samples(
    typingctx: Any,
    kind: Any,
    image: Any,
    base: Any,
    index: Any,
    weight: Any,
    q: Any,
    row: Any,
    slab: Any,
    out: Any,
    to: Any,
) -> Any:
    """Sample one plane at ``16 // taps`` samples from q on, all of whose taps lie inside the image.

    ``out[to + q:]`` becomes the sums over the taps, which begin at ``image[base + index[q:]]``, with the weights
    ``weight[axis, tap, q:]``. Neighbours along y and z are ``row`` and ``slab`` apart.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not _has_one_lane(signature):
            return context.get_dummy_value()  # never called
        loop = _Samples(context, builder, signature, args)
        weights = loop.weights(4)
        (rows,) = loop.down([weights])
        at = builder.add(args[5], args[9])
        builder.store(loop.along(rows, weights[0]), loop.pointer(8, at=at), align=loop.align)
        return context.get_dummy_value()

    return types.void(kind, image, base, index, weight, q, row, slab, out, to), codegen


@intrinsic
def slope_samples(
    typingctx: Any,
    kind: Any,
    image: Any,
    base: Any,
    index: Any,
    weight: Any,
    q: Any,
    row: Any,
    slab: Any,
    slope: Any,
    grad: Any,
    out: Any,
) -> Any:
    """Write ``grad[q:]`` times the slopes along x, y (and z) to ``out[axis, q:]``, as `blend_samples` goes along."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not _has_one_lane(signature):
            return context.get_dummy_value()  # never called
        loop = _Samples(context, builder, signature, args)
        weights, derivatives = loop.weights(4), loop.slopes(8)
        mixes = [[*weights] for _ in range(loop.dimensions)]
        for axis in range(loop.dimensions):
            mixes[axis][axis] = derivatives[axis]
        grad_vector = builder.load(loop.pointer(9), align=loop.align)
        for axis, rows in enumerate(loop.down(mixes)):
            change = builder.fmul(grad_vector, loop.along(rows, mixes[axis][0]))
            builder.store(change, loop.pointer(10, axis), align=loop.align)
        return context.get_dummy_value()

    return types.void(kind, image, base, index, weight, q, row, slab, slope, grad, out), codegen


@intrinsic
def spread_samples(
    typingctx: Any,
    kind: Any,
    image: Any,
    base: Any,
    index: Any,
    weight: Any,
    q: Any,
    row: Any,
    slab: Any,
    grad: Any,
    beyond: Any,
) -> Any:
    """Add ``grad[q:]`` times each tap's weight to ``image`` there: `blend_samples` the other way, sample by sample.

    Nothing is added for a sample that is ``beyond``.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not _has_one_lane(signature):
            return context.get_dummy_value()  # never called
        loop = _Samples(context, builder, signature, args)
        weights = loop.weights(4)
        grads = builder.load(loop.pointer(8), align=loop.align)
        flags = builder.load(loop.pointer(9), align=1)
        here = builder.icmp_signed("==", flags, ir.Constant(flags.type, [0] * loop.samples))
        grads = builder.select(here, grads, loop.constant(0.0, loop.samples))
        shares = []
        for z, y, x in loop.taps_in_order():
            share = grads
            for axis, tap in ((2, z), (1, y), (0, x)):
                if axis < loop.dimensions and loop.taps > 1:
                    share = builder.fmul(share, weights[axis][tap], flags=_FUSED)
            shares.append((loop.offset(args[6], args[7], z, y), x, share))
        for i, start in enumerate(loop.starts):
            for offset, x, share in shares:
                where = builder.gep(start, [builder.add(offset, ir.Constant(offset.type, x))])
                part = builder.extract_element(share, ir.IntType(32)(i))
                total = builder.fadd(builder.load(where), part, flags=_FUSED)
                builder.store(total, where)
        return context.get_dummy_value()

    return types.void(kind, image, base, index, weight, q, row, slab, grad, beyond), codegen


# Several channels at once


@intrinsic
def transpose(
    typingctx: Any,
    kind: Any,
    source: Any,
    at: Any,
    step: Any,
    target: Any,
    to: Any,
    step_to: Any,
    count: Any,
    into_lanes: Any,
) -> Any:
    """Turn ``lanes`` runs of as many numbers: ``target[to + i*step_to + k] = source[at + k*step + i]``.

    Only ``count`` of the lanes are channels. Into lanes, the others become 0; out of them, they are left out.
    ``into_lanes`` is a tuple: one item for yes, two for no.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes, integer = signature.args[0].types[2].count, args[2].type
        number = context.get_data_type(signature.args[1].dtype)
        align = context.get_abi_sizeof(number)
        some = ir.VectorType(number, lanes)
        load_from, store_to = (
            _array(context, builder, signature, args, i).data for i in (1, 4)
        )
        packing = signature.args[8].count == 1
        last = builder.sub(args[7], ir.Constant(integer, 1))

        def place(data: Any, start: Any, stride: Any, i: int, clamped: bool) -> Any:
            k = ir.Constant(integer, i)
            if clamped:
                k = builder.select(builder.icmp_signed("<", k, last), k, last)
            where = builder.gep(data, [builder.add(start, builder.mul(k, stride))])
            return builder.bitcast(where, some.as_pointer())

        rows = [
            builder.load(place(load_from, args[2], args[3], i, packing), align=align)
            for i in range(lanes)
        ]
        width = 1
        while width < lanes:  # swap ever larger squares across the diagonal
            for i in range(lanes):
                if i & width == 0:
                    a, b = rows[i], rows[i | width]
                    low = [k if k & width == 0 else lanes + (k ^ width) for k in range(lanes)]
                    high = [k | width if k & width == 0 else lanes + k for k in range(lanes)]
                    rows[i], rows[i | width] = (
                        _shuffle(builder, a, b, low),
                        _shuffle(builder, a, b, high),
                    )
            width *= 2
        if packing:
            numbers = ir.Constant(ir.VectorType(integer, lanes), [*range(lanes)])
            real = builder.icmp_signed("<", numbers, _splat(builder, args[7], lanes))
            rows = [builder.select(real, r, ir.Constant(some, [0.0] * lanes)) for r in rows]
        for i in reversed(range(lanes)):  # one left out is written first, and then written over
            pointer = place(store_to, args[5], args[6], i, not packing)
            builder.store(rows[i], pointer, align=align)
        return context.get_dummy_value()

    return types.void(kind, source, at, step, target, to, step_to, count, into_lanes), codegen


@intrinsic
def blend_lanes(
    typingctx: Any,
    kind: Any,
    image: Any,
    index: Any,
    weight: Any,
    q: Any,
    row: Any,
    slab: Any,
    out: Any,
) -> Any:
    """Sample all lanes at one sample, whose taps lie inside: ``out[q]`` of the sums over ``image[index[q]]`` and on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _has_one_lane(signature):
            return context.get_dummy_value()  # never called
        loop = _Lanes(context, builder, signature, args)
        weights = loop.weights(3)
        (total,) = loop.sums([weights], loop.load_pixel)
        loop.store(7, args[4], total)
        return context.get_dummy_value()

    return types.void(kind, image, index, weight, q, row, slab, out), codegen


@intrinsic
def slope_lanes(
    typingctx: Any,
    kind: Any,
    image: Any,
    index: Any,
    weight: Any,
    q: Any,
    row: Any,
    slab: Any,
    slope: Any,
    grad: Any,
    out: Any,
) -> Any:
    """Write the sum over the lanes of ``grad[q]`` times the slopes along x, y (and z) to ``out[axis, q:]``, 4 samples.

    Summed over the lanes first, tap by tap: what is left of each sample is a number a tap, and 4 samples fill a vector.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _has_one_lane(signature):
            return context.get_dummy_value()  # never called
        integer, number = args[4].type, context.get_data_type(signature.args[9].dtype)
        samples = []
        for i in range(4):
            at = builder.add(args[4], ir.Constant(integer, i))
            samples.append(_Lanes(context, builder, signature, [*args[:4], at, *args[5:]]))
        grads = [loop.load(8, loop.args[4]) for loop in samples]
        loop, four = samples[0], ir.VectorType(number, 4)

        def load(i: int, axis: int, tap: int) -> Any:
            row = _row(context, builder, loop.array(i), (axis, tap), args[4], four)
            return builder.load(row, align=loop.align)

        def product(z: int, y: int, x: int) -> Any:
            return _sums_of_lanes(
                builder,
                [
                    builder.fmul(grad, one.load_pixel(z, y, x))
                    for grad, one in zip(grads, samples, strict=True)
                ],
            )

        weights, derivatives = loop.tap_weights(3, 4, load), loop.tap_slopes(7, 4, load)
        mixes = [[*weights] for _ in range(loop.dimensions)]
        for axis in range(loop.dimensions):
            mixes[axis][axis] = derivatives[axis]
        array = _array(context, builder, signature, args, 9)
        for axis, total in enumerate(loop.sums(mixes, product)):
            builder.store(
                total, _row(context, builder, array, (axis,), args[4], four), loop.align
            )
        return context.get_dummy_value()

    return types.void(kind, image, index, weight, q, row, slab, slope, grad, out), codegen


@intrinsic
def spread_lanes(
    typingctx: Any,
    kind: Any,
    image: Any,
    index: Any,
    weight: Any,
    q: Any,
    row: Any,
    slab: Any,
    grad: Any,
) -> Any:
    """Add ``grad[q]`` times each tap's weight to ``image`` there: `blend_lanes` the other way."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _has_one_lane(signature):
            return context.get_dummy_value()  # never called
        loop = _Lanes(context, builder, signature, args)
        weights = loop.weights(3)
        grad_vector = loop.load(7, args[4])
        for z, y, x in loop.taps_in_order():
            share = grad_vector
            for axis, tap in ((2, z), (1, y), (0, x)):
                if axis < loop.dimensions and loop.taps > 1:
                    share = builder.fmul(share, weights[axis][tap], flags=_FUSED)
            pointer = loop.pixel(z, y, x)
            before = builder.load(pointer, align=loop.align)
            builder.store(builder.fadd(before, share, flags=_FUSED), pointer, align=loop.align)
        return context.get_dummy_value()

    return types.void(kind, image, index, weight, q, row, slab, grad), codegen


@intrinsic
def add_lanes(
    typingctx: Any, kind: Any, out: Any, to: Any, weight: Any, image: Any, place: Any
) -> Any:
    """Add ``weight * image[place]`` to ``out[to]``, in all lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loop = _Lanes(context, builder, signature, args)
        product = builder.fmul(
            _splat(builder, args[3], loop.lanes), loop.load(4, args[5]), flags=_FUSED
        )
        total = builder.fadd(loop.load(1, args[2]), product, flags=_FUSED)
        loop.store(1, args[2], total)
        return context.get_dummy_value()

    return types.void(kind, out, to, weight, image, place), codegen


@intrinsic
def dot_lanes(typingctx: Any, kind: Any, a: Any, i: Any, b: Any, j: Any) -> Any:
    """Return the sum over the lanes of ``a[i] * b[j]``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loop = _Lanes(context, builder, signature, args)
        return _sum_of_lanes(
            builder, builder.fmul(loop.load(1, args[2]), loop.load(3, args[4]))
        )

    return a.dtype(kind, a, i, b, j), codegen


# The writers of instructions


def _has_one_lane(signature: Any) -> bool:
    """Return whether a kind works on samples at once, rather than on channels."""
    return bool(signature.args[0].types[2].count == 1)


def _item(context: Any, builder: Any, array: Any, indices: Sequence[Any]) -> Any:
    """Return a pointer to an item of a contiguous array."""
    shape, strides = (
        cgutils.unpack_tuple(builder, t, len(indices)) for t in (array.shape, array.strides)
    )
    return cgutils.get_item_pointer2(context, builder, array.data, shape, strides, "C", indices)


def _array(context: Any, builder: Any, signature: Any, args: Sequence[Any], i: int) -> Any:
    """Return array argument i."""
    return context.make_array(signature.args[i])(context, builder, args[i])


def _row(
    context: Any, builder: Any, array: Any, place: Sequence[int], q: Any, vector: Any
) -> Any:
    """Return a pointer to a vector of numbers at ``[*place, q:]`` of a contiguous array."""
    indices = [*(ir.Constant(q.type, p) for p in place), q]
    return builder.bitcast(_item(context, builder, array, indices), vector.as_pointer())


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    """Return a vector of one value, repeated."""
    vector = ir.VectorType(value.type, lanes)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    return _shuffle(builder, first, first, [0] * lanes)


def _shuffle(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), list(order))
    return builder.shuffle_vector(a, b, mask)


def _sum_of_lanes(builder: Any, vector: Any) -> Any:
    """Return the sum of a vector's numbers, halves upon halves."""
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        low = _shuffle(builder, vector, vector, range(lanes))
        high = _shuffle(builder, vector, vector, range(lanes, 2 * lanes))
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, ir.IntType(32)(0))


def _sums_of_lanes(builder: Any, vectors: Sequence[Any]) -> Any:
    """Return the sums of four vectors, as one: in each quarter of 4 first, where shuffles are cheap."""
    lanes = vectors[0].type.count
    groups = range(0, lanes, 4)

    def add_pairs(a: Any, b: Any, order: Sequence[int]) -> Any:
        low, high = (
            [g + (k + half if k < 4 else lanes + k - 4 + half) for g in groups for k in order]
            for half in (0, 2)
        )
        return builder.fadd(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high))

    a, b, c, d = vectors
    total = add_pairs(
        add_pairs(a, b, (0, 4, 1, 5)), add_pairs(c, d, (0, 4, 1, 5)), (0, 1, 4, 5)
    )
    while lanes > 4:
        lanes //= 2
        low = _shuffle(builder, total, total, range(lanes))
        high = _shuffle(builder, total, total, range(lanes, 2 * lanes))
        total = builder.fadd(low, high)
    return total


class _Loop:
    """What both kinds of loop share: reading their arguments, and sums that are rounded once."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> None:
        self.context, self.builder, self.signature = context, builder, signature
        self.types, self.args = signature.args, args
        self.taps, self.dimensions, self.lanes = (t.count for t in self.types[0].types)
        self.number = context.get_data_type(self.types[1].dtype)
        self.align = context.get_abi_sizeof(self.number)

    def array(self, i: int) -> Any:
        return _array(self.context, self.builder, self.signature, self.args, i)

    def taps_in_order(self) -> Any:
        along_z = range(self.taps if self.dimensions == 3 else 1)
        return itertools.product(along_z, range(self.taps), range(self.taps))

    def constant(self, value: float, count: int) -> Any:
        return ir.Constant(ir.VectorType(self.number, count), [value] * count)

    def table(self, i: int, load: Callable[[int, int, int], Any]) -> list[list[Any]]:
        """Return the numbers [axis][tap] of array argument i."""
        return [
            [load(i, axis, tap) for tap in range(self.taps)] for axis in range(self.dimensions)
        ]

    def tap_weights(
        self, i: int, count: int, load: Callable[[int, int, int], Any]
    ) -> list[list[Any]]:
        """Return the weights [axis][tap]; of two taps the table holds the second's, of one none."""
        if self.taps == 1:
            return [[self.constant(1.0, count)]] * self.dimensions
        if self.taps == 2:
            seconds = [load(i, axis, 0) for axis in range(self.dimensions)]
            one = self.constant(1.0, count)
            return [[self.builder.fsub(one, t), t] for t in seconds]
        return self.table(i, load)

    def tap_slopes(
        self, i: int, count: int, load: Callable[[int, int, int], Any]
    ) -> list[list[Any]]:
        """Return the weights' derivatives [axis][tap]; those of two taps are -1 and 1, of one 0."""
        if self.taps == 1:
            return [[self.constant(0.0, count)]] * self.dimensions
        if self.taps == 2:
            return [[self.constant(s, count) for s in (-1.0, 1.0)]] * self.dimensions
        return self.table(i, load)

    def offset(self, row: Any, slab: Any, z: int, y: int) -> Any:
        return self.builder.add(
            self.builder.mul(slab, ir.Constant(slab.type, z)),
            self.builder.mul(row, ir.Constant(row.type, y)),
        )

    def sum(self, total: Any, weight: Any, pixels: Any) -> Any:
        if self.taps == 1:
            return pixels
        product = self.builder.fmul(weight, pixels, flags=_FUSED)
        if total is None:
            return product
        return self.builder.fadd(total, product, flags=_FUSED)


class _Samples(_Loop):
    """Several samples at once; arguments 0 to 7 are those of `blend_samples`."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> None:
        super().__init__(context, builder, signature, args)
        self.samples = AT_ONCE // self.taps
        integer = ir.IntType(64)
        first = builder.gep(self.array(1).data, [args[2]])
        index = self.array(3).data
        self.starts = []  # where each sample's taps begin
        for i in range(self.samples):
            at = builder.add(args[5], ir.Constant(args[5].type, i))
            where = builder.sext(builder.load(builder.gep(index, [at])), integer)
            self.starts.append(builder.gep(first, [where]))

    def pointer(self, i: int, *place: int, at: Any = None) -> Any:
        """Return a pointer to ``samples`` numbers at ``[*place, q:]``, or ``[at:]``, of array argument i."""
        integer = self.args[5].type
        indices = [
            *(ir.Constant(integer, p) for p in place),
            self.args[5] if at is None else at,
        ]
        item = _item(self.context, self.builder, self.array(i), indices)
        number = self.context.get_data_type(self.types[i].dtype)
        return self.builder.bitcast(item, ir.VectorType(number, self.samples).as_pointer())

    def _load(self, i: int, axis: int, tap: int) -> Any:
        return self.builder.load(self.pointer(i, axis, tap), align=self.align)

    def weights(self, i: int) -> list[list[Any]]:
        return self.tap_weights(i, self.samples, self._load)

    def slopes(self, i: int) -> list[list[Any]]:
        return self.tap_slopes(i, self.samples, self._load)

    def down(self, mixes: Sequence[Sequence[Sequence[Any]]]) -> list[Any]:
        """Return, for each mix [axis][tap] of weights, the samples' taps along x, summed over z and y."""
        row, slab = self.args[6], self.args[7]
        totals: list[Any] = [None] * len(mixes)
        for z in range(self.taps if self.dimensions == 3 else 1):
            parts: list[Any] = [None] * len(mixes)
            for y in range(self.taps):
                pixels = self._pixels(self.offset(row, slab, z, y))
                for i, mix in enumerate(mixes):
                    parts[i] = self.sum(parts[i], self._spread(mix[1][y]), pixels)
            for i, mix in enumerate(mixes):
                if self.dimensions == 3:
                    totals[i] = self.sum(totals[i], self._spread(mix[2][z]), parts[i])
                else:
                    totals[i] = parts[i]
        return totals

    def along(self, rows: Any, weights: Sequence[Any]) -> Any:
        """Return the sums of the samples' taps along x."""
        total = None
        for tap, weight in enumerate(weights):
            column = _shuffle(self.builder, rows, rows, range(tap, AT_ONCE, self.taps))
            total = self.sum(total, weight, column)
        return total

    def _pixels(self, offset: Any) -> Any:
        """Return one row of taps of every sample, sample after sample."""
        some = ir.VectorType(self.number, self.taps).as_pointer()
        rows = [
            self.builder.load(
                self.builder.bitcast(self.builder.gep(start, [offset]), some), align=self.align
            )
            for start in self.starts
        ]
        while len(rows) > 1:
            both = range(2 * rows[0].type.count)
            rows = [
                _shuffle(self.builder, a, b, both)
                for a, b in zip(rows[::2], rows[1::2], strict=True)
            ]
        return rows[0]

    def _spread(self, weight: Any) -> Any:
        """Repeat each sample's weight for each of its taps."""
        order = [i // self.taps for i in range(AT_ONCE)]
        return _shuffle(self.builder, weight, weight, order)


class _Lanes(_Loop):
    """All lanes of one sample; arguments 0 to 6 are those of `blend_lanes`."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> None:
        super().__init__(context, builder, signature, args)
        self.vector = ir.VectorType(self.number, self.lanes)
        self._start: Any = None

    def _pointer(self, i: int, item: Any, offset: Any = None) -> Any:
        """Return a pointer to the lanes of an item of array argument i."""
        if offset is not None:
            item = self.builder.add(item, offset)
        item = self.builder.mul(item, ir.Constant(item.type, self.lanes))
        where = self.builder.gep(self.array(i).data, [item])
        return self.builder.bitcast(where, self.vector.as_pointer())

    def load(self, i: int, item: Any) -> Any:
        return self.builder.load(self._pointer(i, item), align=self.align)

    def store(self, i: int, item: Any, value: Any) -> None:
        self.builder.store(value, self._pointer(i, item), align=self.align)

    def _load(self, i: int, axis: int, tap: int) -> Any:
        integer, q = self.args[4].type, self.args[4]
        place = [ir.Constant(integer, axis), ir.Constant(integer, tap), q]
        value = self.builder.load(_item(self.context, self.builder, self.array(i), place))
        return _splat(self.builder, value, self.lanes)

    def weights(self, i: int) -> list[list[Any]]:
        return self.tap_weights(i, self.lanes, self._load)

    def pixel(self, z: int, y: int, x: int) -> Any:
        """Return a pointer to the lanes of one tap."""
        builder, integer = self.builder, ir.IntType(64)
        if self._start is None:
            index = builder.load(builder.gep(self.array(2).data, [self.args[4]]))
            self._start = builder.sext(index, integer)
        offset = self.offset(self.args[5], self.args[6], z, y)
        return self._pointer(1, self._start, builder.add(offset, ir.Constant(integer, x)))

    def load_pixel(self, z: int, y: int, x: int) -> Any:
        return self.builder.load(self.pixel(z, y, x), align=self.align)

    def sums(
        self,
        mixes: Sequence[Sequence[Sequence[Any]]],
        get_value: Callable[[int, int, int], Any],
    ) -> list[Any]:
        """Return, for each mix [axis][tap] of weights, the sum over the taps of a value of each."""
        totals: list[Any] = [None] * len(mixes)
        for z in range(self.taps if self.dimensions == 3 else 1):
            planes: list[Any] = [None] * len(mixes)
            for y in range(self.taps):
                rows: list[Any] = [None] * len(mixes)
                for x in range(self.taps):
                    value = get_value(z, y, x)
                    for i, mix in enumerate(mixes):
                        rows[i] = self.sum(rows[i], mix[0][x], value)
                for i, mix in enumerate(mixes):
                    planes[i] = self.sum(planes[i], mix[1][y], rows[i])
            for i, mix in enumerate(mixes):
                if self.dimensions == 3:
                    totals[i] = self.sum(totals[i], mix[2][z], planes[i])
                else:
                    totals[i] = planes[i]
        return totals
