"""What the host does for the kernels of ``sampler.cu``: memory, the size of blocks, the order of launches (chapter 4).

The same code serves CuPy arrays and CUDA tensors (`stnlib.engines.cuda`) and, with the kernels compiled for the CPU,
NumPy arrays and tensors of the CPU (`stnlib.engines.emulated`). Arrays are handed to the kernels as they are, by their
addresses: nothing is copied that lies side by side in memory, channels first or channels last.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .._arrays import Array, is_tensor
from ..options import Options
from . import TAPS

SOURCE = Path(__file__).with_name("sampler.cu")
IMAGES = {
    "float32": ("float",),
    "float64": ("double",),
    "float16": ("__half", "HALF"),
    "bfloat16": ("__nv_bfloat16", "HALF"),
}
PADDINGS = {"zeros": 0, "fill": 0, "border": 1, "reflection": 2, "wrap": 3, "mirror": 4}


class Machine(Protocol):
    """What runs kernels, and holds arrays."""

    threads: int  # in a block

    def module(self, options: tuple[str, ...]) -> Any:
        """Return the kernels, compiled: an object such as ``cupy.RawModule``."""

    def empty(self, shape: Sequence[int], dtype: Any, like: Array) -> Array:
        """Return a new array beside another, its values not yet set; dtype is a name, or that of an array."""

    def on_stream(self, array: Array) -> AbstractContextManager[Any]:
        """Return a context in which kernels are launched on the array's device and current stream."""

    def deterministic(self, array: Array) -> bool:
        """Return whether a gradient must come out the same, bit for bit, every time."""


def configurations(
    threads: int = 256, index: Sequence[str] = ("int", "long long")
) -> list[tuple[str, ...]]:
    """Return the options of every case for which the kernels are compiled.

    Examples
    --------
    >>> len(configurations())
    48
    >>> configurations()[0]
    ('-std=c++17', '-DIMAGE=float', '-DDIMS=2', '-DTAPS=1', '-DINDEX=int', '-DTHREADS=256', '-DPIXELS=4')
    """
    return [
        _compiler_options(image, dimensions, taps, i, threads)
        for image, dimensions, taps, i in itertools.product(
            IMAGES, (2, 3), TAPS.values(), index
        )
    ]


def _compiler_options(
    image: str, dimensions: int, taps: int, index: str, threads: int
) -> tuple[str, ...]:
    name, *flags = IMAGES[image]
    return (
        "-std=c++17",
        f"-DIMAGE={name}",
        *(f"-D{flag}" for flag in flags),
        f"-DDIMS={dimensions}",
        f"-DTAPS={taps}",
        f"-DINDEX={index}",
        f"-DTHREADS={threads}",
        f"-DPIXELS={_pixels_a_thread(dimensions, taps)}",
    )


def _pixels_a_thread(dimensions: int, taps: int) -> int:
    """Return how many output pixels a thread works on: several where one has few neighbours to wait for."""
    return 4 if taps**dimensions <= 4 else 1


class Call:
    """One call of the sampler: its arrays side by side in memory, its kernels, and what these are told.

    Parameters
    ----------
    machine : Machine
    input, coordinates, size, fill, options
        As for `stnlib.engines.Engine.sample`.
    """

    def __init__(
        self,
        machine: Machine,
        input: Array,
        coordinates: Array,
        size: Sequence[int] | None,
        fill: Array,
        options: Options,
    ) -> None:
        n, c, *lengths = input.shape
        out = list(coordinates.shape[1:-1]) if size is None else list(size)
        sampler = options.sampler
        self.machine, self.affine, self.like = machine, size is not None, input
        self.images, self.channels, self.size, self.out = n, c, lengths, out
        self.last = _is_channels_last(input)
        self.input = self.packed(input)
        if _dtype(coordinates) not in ("float32", "float64"):
            coordinates = _converted(coordinates, "float32")
        self.coordinates = _contiguous(coordinates)
        self.fill = _contiguous(fill) if sampler.padding_mode == "fill" else None
        self.real = "float64" if _dtype(input) == "float64" else "float32"
        self.may_gather = self.affine and PADDINGS[sampler.padding_mode] == 0

        padding = sampler.padding_mode
        if padding == "reflection" and sampler.align_corners:
            padding = "mirror"  # the two are then one
        flags = (
            options.coordinates == "pixel",
            sampler.align_corners,
            self.last,
            _dtype(self.coordinates) == "float64",
        )
        depth = [1] if len(lengths) == 2 else []
        integers = (c, *lengths[::-1], *depth, *out[::-1], *depth, PADDINGS[padding], *flags)
        a = getattr(sampler.kernel, "a", 0.0)
        self.problem = (*map(np.int32, integers), np.float64(a))
        most = n * max(c * math.prod(lengths), c * math.prod(out), 3 * math.prod(out))
        self.taps = TAPS[type(sampler.kernel)]
        index = "int" if most < 2**31 else "long long"
        self.kernels = machine.module(
            _compiler_options(_dtype(input), len(lengths), self.taps, index, machine.threads)
        )

    def packed(self, array: Array) -> Array:
        """Return an array ``(N, C, *size)`` as it is to lie in memory; channels last if the input has it so."""
        if self.last:
            order = (0, *range(2, array.ndim), 1)
            array = array.permute(order) if is_tensor(array) else array.transpose(order)
        return _contiguous(array)

    def unpacked(self, array: Array) -> Array:
        """Return what lies in memory as an array ``(N, C, *size)``."""
        if not self.last:
            return array
        order = (0, array.ndim - 1, *range(1, array.ndim - 1))
        return array.permute(order) if is_tensor(array) else array.transpose(order)

    def empty(self, size: Sequence[int], dtype: Any) -> Array:
        """Return memory for ``(N, C, *size)``."""
        n, c = self.images, self.channels
        shape = (n, *size, c) if self.last else (n, c, *size)
        return self.machine.empty(shape, dtype, self.like)

    def buffer(self, shape: Sequence[int], dtype: str) -> Array:
        """Return memory beside the input."""
        return self.machine.empty(shape, dtype, self.like)

    @property
    def block(self) -> tuple[int, int, int]:
        """Lanes, columns and rows of a block of threads."""
        lanes = 1
        while (
            self.last and lanes < 32 and lanes * 2 <= min(self.channels, self.machine.threads)
        ):
            lanes *= 2
        pixels = self.machine.threads // lanes
        columns = min(32, _power_of_two(self.out[-1]), pixels)
        return lanes, columns, min(pixels // columns, 64)

    @property
    def tiles(self) -> int:
        """Into how many tiles an output image is cut, one a block."""
        _, columns, rows = self.block
        high = rows * _pixels_a_thread(len(self.out), self.taps)
        return -(-self.out[-1] // columns) * -(-math.prod(self.out[:-1]) // high)

    def launch(self, kernel: str, blocks: int, *arguments: Any, flat: bool = False) -> None:
        """Launch a kernel; flat, with its threads in one row."""
        block = (self.machine.threads, 1, 1) if flat else self.block
        passed = tuple(_address(a) if _is_array(a) else a for a in arguments)
        self.kernels.get_function(kernel)((blocks, 1, 1), block, passed)


def sample(
    input: Array,
    coordinates: Array,
    size: Sequence[int] | None,
    fill: Array,
    options: Options,
    *,
    machine: Machine,
) -> Array:
    """Sample images at a grid or, with a size, through theta: see `stnlib.engines.Engine.sample`."""
    with machine.on_stream(input):
        call = Call(machine, input, coordinates, size, fill, options)
        output = call.empty(call.out, input.dtype)
        if math.prod(output.shape) > 0:
            kernel = "sample_affine" if call.affine else "sample_grid"
            blocks = call.tiles * call.images
            arguments = output, call.input, call.coordinates, _or_null(call.fill)
            call.launch(kernel, blocks, *arguments, *call.problem)
        return call.unpacked(output)


def sample_vjp(
    grad_output: Array,
    input: Array,
    coordinates: Array,
    size: Sequence[int] | None,
    fill: Array,
    options: Options,
    needs: Sequence[bool],
    *,
    machine: Machine,
) -> tuple[Array | None, Array | None, Array | None]:
    """Return the gradients of input, coordinates and fill: see `stnlib.engines.Engine.sample_vjp`."""
    with machine.on_stream(input):
        call = Call(machine, input, coordinates, size, fill, options)
        grad = call.packed(grad_output)
        grad_input = call.empty(call.size, call.real) if needs[0] else None
        grad_places = (
            call.buffer(tuple(coordinates.shape), call.coordinates.dtype) if needs[1] else None
        )
        grad_fill = call.buffer((call.images, call.channels), call.real) if needs[2] else None
        given = [g for g in (grad_input, grad_places, grad_fill) if g is not None]
        if math.prod(grad.shape) == 0:
            for array in given:
                array[...] = 0
        else:
            if needs[0] or needs[1]:
                _backward(call, grad, grad_input, grad_places)
            if grad_fill is not None:
                arguments = grad_fill, grad, call.coordinates, np.int32(call.affine)
                blocks = call.images * call.channels
                call.launch("backward_fill", blocks, *arguments, *call.problem, flat=True)
        if grad_input is not None:
            grad_input = _converted(call.unpacked(grad_input), input.dtype)
        if grad_places is not None:
            grad_places = _converted(grad_places, coordinates.dtype)
        return grad_input, grad_places, grad_fill


def _backward(
    call: Call, grad: Array, grad_input: Array | None, grad_places: Array | None
) -> None:
    """Fill in the gradients of the images and of the grid or theta."""
    fixed = scale = theta = None
    deterministic = grad_input is not None and call.machine.deterministic(call.like)
    per_image = max(
        min(-(-math.prod(call.size) * call.channels // (4 * call.machine.threads)), 1024), 1
    )
    shared = np.int32(per_image), *call.problem
    everywhere = call.images * per_image
    if deterministic:
        theta = call.coordinates if call.may_gather else None
        fixed = call.empty(call.size, "int64")
        scale, largest = call.buffer((1,), "float64"), call.buffer((1,), "int64")
        largest[...] = 0
        passed = largest, grad, _or_null(theta)
        call.launch("find_largest", everywhere, *passed, *shared, flat=True)
        outputs = np.float64(math.prod(call.out))
        call.kernels.get_function("find_scale")(
            (1, 1, 1), (1, 1, 1), (_address(scale), _address(largest), outputs)
        )
        call.launch("clear", everywhere, grad_input, fixed, _or_null(theta), *shared, flat=True)
    elif grad_input is not None:
        grad_input[...] = 0

    handed = _or_null(grad_input), _or_null(fixed), _or_null(scale)
    images = grad, call.input, call.coordinates, _or_null(call.fill), *call.problem
    blocks = call.tiles * call.images
    if call.affine:
        dimensions = len(call.size)
        partial = None
        if grad_places is not None:
            partial = call.buffer((blocks, dimensions * (dimensions + 1)), "float64")
        gathered = np.int32(theta is not None)
        call.launch("backward_affine", blocks, *handed, _or_null(partial), gathered, *images)
        if grad_places is not None:
            tiles = np.int32(call.tiles)
            call.launch(
                "finish_theta",
                call.images,
                grad_places,
                partial,
                tiles,
                *call.problem,
                flat=True,
            )
    else:
        call.launch("backward_grid", blocks, *handed, _or_null(grad_places), *images)
    if theta is not None:
        _, columns, rows = call.block
        blocks = call.images * -(-math.prod(call.size) // (columns * rows))
        call.launch("gather_affine", blocks, grad_input, grad, theta, *call.problem)
    if deterministic:
        given = grad_input, fixed, scale, _or_null(theta)
        call.launch("from_fixed", everywhere, *given, *shared, flat=True)


def _dtype(array: Array) -> str:
    return str(array.dtype).rpartition(".")[2]


def _converted(array: Array, dtype: Any) -> Array:
    """Return an array in another dtype: a name, or that of an array."""
    if is_tensor(array):
        import torch

        return array.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    return array.astype(dtype, copy=False)


def _contiguous(array: Array) -> Array:
    if is_tensor(array):
        return array.detach().contiguous()
    return array if array.flags.c_contiguous else array.copy(order="C")


def _is_channels_last(array: Array) -> bool:
    """Return whether the channels, more than one, of a pixel are neighbours in memory, and all is dense."""
    if array.shape[1] == 1:
        return False
    order = (0, *range(2, array.ndim), 1)
    if is_tensor(array):
        return not array.is_contiguous() and array.permute(order).is_contiguous()
    return not array.flags.c_contiguous and array.transpose(order).flags.c_contiguous


def _is_array(value: Any) -> bool:
    return is_tensor(value) or (
        hasattr(value, "dtype") and hasattr(value, "flags") and value.ndim > 0
    )


def _address(array: Array) -> np.uint64:
    """Return where an array's values begin."""
    if is_tensor(array):
        return np.uint64(array.data_ptr())
    if isinstance(array, np.ndarray):
        return np.uint64(array.ctypes.data)
    return np.uint64(array.data.ptr)


def _or_null(array: Array | None) -> Any:
    return np.uint64(0) if array is None else array


def _power_of_two(number: int) -> int:
    """Return the least power of two that is not below a number."""
    return 1 << (number - 1).bit_length()
