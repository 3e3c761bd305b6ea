"""The sampler on the CPU, compiled by Numba: for NumPy arrays, and for PyTorch's tensors of the CPU."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._extras import require
from ..options import Options
from . import TAPS

numba = require("numba", "fast", "the CPU engine")

from . import cpu_kernels as kernels  # noqa: E402
from . import cpu_table as table  # noqa: E402
from .cpu_threads import get_num_threads, set_num_threads, share  # noqa: E402

PADDINGS = {
    "zeros": table.ZEROS,
    "fill": table.FILL,
    "border": table.BORDER,
    "reflection": table.REFLECTION,
    "mirror": table.MIRROR,
    "wrap": table.WRAP,
}
SHARES = 8  # at least so many items, if the output is large enough
NOTICE_AFTER = 2.0  # seconds
PACKED_BYTES = 2**21  # of a packed plane that is worth packing to be read once


def sample(
    input: np.ndarray,
    coordinates: np.ndarray,
    size: Sequence[int] | None,
    fill: np.ndarray,
    options: Options,
) -> np.ndarray:
    """Sample images at a grid or, with a size, through theta: `stnlib.engines.Engine.sample`."""
    plan = _Plan(input, coordinates, size, options)
    output = np.empty((*input.shape[:2], *plan.size), input.dtype)
    if output.size == 0:
        return output
    lanes = plan.lanes()
    groups = -(-plan.channels // lanes)
    packed = plan.pixels * lanes * input.itemsize
    if plan.channels < 4 or plan.batch * groups < SHARES or packed > PACKED_BYTES:
        lanes = groups = 1
    if lanes > 1:
        bands = 1
    else:
        groups = min(plan.channels, -(-SHARES // plan.batch))
        bands = plan.bands(groups)
    plan.run(
        kernels.forward,
        plan.batch * groups * bands,
        plan.kind(lanes),
        _flat(input),
        plan.coordinates,
        _plain(fill),
        output.reshape(-1),
        whole=plan.whole(groups, bands, (False, False)),
    )
    return output


def sample_vjp(
    grad_output: np.ndarray,
    input: np.ndarray,
    coordinates: np.ndarray,
    size: Sequence[int] | None,
    fill: np.ndarray,
    options: Options,
    needs: Sequence[bool],
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return the gradients of input, coordinates and fill: `stnlib.engines.Engine.sample_vjp`."""
    plan = _Plan(input, coordinates, size, options)
    needs_image, needs_coordinates = needs[0] or needs[2], needs[1]
    if grad_output.size == 0 or input.size == 0 or not any(needs):
        zeros = (np.zeros(a.shape, a.dtype) for a in (input, coordinates, fill))
        first, second, third = (
            z if need else None for z, need in zip(zeros, needs, strict=True)
        )
        return first, second, third
    lanes = plan.lanes()
    groups = -(-plan.channels // lanes)
    parts = plan.batch * groups
    bands = plan.bands(groups)
    room = (plan.pixels + 1) * lanes
    kind, whole = plan.kind(lanes), plan.whole(groups, bands, (needs_image, needs_coordinates))
    image, fill = _flat(input), _plain(fill)
    if bands > 1:
        packed = np.empty(parts * plan.pixels * lanes, input.dtype)
        if needs_coordinates:
            plan.run(kernels.pack_planes, parts, kind, image, packed, whole=whole, a=())
        image = packed
    sums = np.zeros((parts * bands, room) if bands > 1 and needs_image else (1, 1), input.dtype)
    grad_image = np.empty(input.shape if needs_image else (1,), input.dtype)
    grad_fill = np.empty(fill.shape, fill.dtype)
    if plan.fused:
        grad_coordinates = np.empty((parts * bands, coordinates[0].size))
    else:
        grad_coordinates = np.empty((parts, coordinates[0].size), input.dtype)
    plan.run(
        kernels.backward,
        parts * bands,
        kind,
        _flat(grad_output),
        image,
        plan.coordinates,
        fill,
        sums,
        grad_image.reshape(-1),
        grad_coordinates,
        grad_fill,
        whole=whole,
    )
    if bands > 1 and needs_image:
        plan.run(
            kernels.collect_planes,
            parts,
            kind,
            sums,
            grad_image.reshape(-1),
            grad_fill,
            whole=whole,
            a=(),
        )
    if options.sampler.padding_mode != "fill":
        grad_fill[:] = 0  # nothing reads it
    if needs_coordinates:
        if len(grad_coordinates) > plan.batch:
            grad_coordinates = grad_coordinates.reshape(plan.batch, -1, coordinates[0].size)
            grad_coordinates = grad_coordinates.sum(1)
        grad_coordinates = grad_coordinates.reshape(coordinates.shape)
        grad_coordinates = grad_coordinates.astype(coordinates.dtype, copy=False)
    return (
        grad_image if needs[0] else None,
        grad_coordinates if needs_coordinates else None,
        grad_fill if needs[2] else None,
    )


_compiled: set[tuple[Any, ...]] = set()


class _Plan:
    """What the kernels are told of a call, and how its work is shared out: by its shapes alone."""

    def __init__(
        self,
        input: np.ndarray,
        coordinates: np.ndarray,
        size: Sequence[int] | None,
        options: Options,
    ) -> None:
        self.batch, self.channels, *shape = input.shape
        self.fused = size is not None
        self.size = tuple(coordinates.shape[1:-1] if size is None else size)
        self.shape = tuple(shape)
        self.pixels = math.prod(shape)
        self.options, self.itemsize = options, input.itemsize
        dtype = np.float64 if self.fused else coordinates.dtype
        places = _plain(coordinates.astype(dtype, copy=False))
        self.coordinates = places.reshape(self.batch, math.prod(coordinates.shape[1:]))

    def lanes(self) -> int:
        """Return how many channels are worth working on at once."""
        if self.channels == 1:
            return 1
        return 4 if self.channels <= 4 else 64 // self.itemsize

    def bands(self, groups: int) -> int:
        """Return into how many parts each image's output is divided."""
        enough = -(-SHARES // (self.batch * groups))
        return max(1, min(enough, math.prod(self.size) // (4 * table.SAMPLES)))

    def tile(self) -> tuple[int, int]:
        """Return the width and height of a tile: as wide as the output, or some eights of pixels of it."""
        width = self.size[-1]
        across = -(-width // table.SAMPLES)
        wide = width if across == 1 else -(-width // (8 * across)) * 8
        return wide, max(1, table.SAMPLES // wide)

    def kind(self, lanes: int) -> tuple[tuple[int, ...], ...]:
        """Return what the compiler is told: see `stnlib.engines.cpu_vectors`."""
        taps = TAPS[type(self.options.sampler.kernel)]
        return (0,) * taps, (0,) * len(self.shape), (0,) * lanes

    def whole(self, groups: int, bands: int, needs: tuple[bool, bool]) -> tuple[int, ...]:
        """Return a `Problem`, as a plain tuple."""
        flat = (1,) * (3 - len(self.shape))
        wide, high = self.tile()
        return (
            self.channels,
            *flat,
            *self.shape,
            *flat,
            *self.size,
            PADDINGS[self.options.sampler.padding_mode],
            int(self.options.sampler.align_corners),
            int(self.options.coordinates == "pixel"),
            int(self.fused),
            wide,
            high,
            groups,
            bands,
            int(needs[0]),
            int(needs[1]),
        )

    def run(
        self,
        kernel: Any,
        items: int,
        kind: tuple[tuple[int, ...], ...],
        *arrays: np.ndarray,
        whole: tuple[int, ...],
        a: tuple[float, ...] | None = None,
    ) -> None:
        """Run a kernel's items on the threads."""
        if a is None:
            a = (float(getattr(self.options.sampler.kernel, "a", 0.0)),)
        counter = np.zeros(2, np.int64)  # items handed out; and not 0 if a thread failed
        arguments = (kind, counter, items, *arrays, whole, *a)
        case = (kernel, kind, arrays[0].dtype, self.coordinates.dtype)
        if case not in _compiled:
            with _notice():
                kernel.compile(tuple(map(numba.typeof, (0, 1, arguments))))
            _compiled.add(case)
        share(kernel, arguments, min(get_num_threads(), items))
        if counter[1]:
            raise MemoryError("the CPU engine found no memory for its tables and packed planes")


@contextlib.contextmanager
def _notice() -> Iterator[None]:
    """Say on stderr what takes so long, if it does, and nobody set ``STNLIB_QUIET`` in the environment."""
    if os.environ.get("STNLIB_QUIET"):
        yield
        return
    text = "stnlib: compiling the CPU engine for arrays of this kind, once; then it lies on disk.\n"
    timer = threading.Timer(NOTICE_AFTER, lambda: sys.stderr.write(text))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _plain(array: np.ndarray) -> np.ndarray:
    """Return an array that lies in one piece, aligned, and may be written: Numba compiles anew for any other kind."""
    return array if array.flags.carray else np.array(array, order="C")


def _flat(array: np.ndarray) -> np.ndarray:
    return _plain(array).reshape(-1)


__all__ = ["get_num_threads", "sample", "sample_vjp", "set_num_threads"]
