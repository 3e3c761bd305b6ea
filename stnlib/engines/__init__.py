"""The sampler made fast: what picks an engine, and hands it the arrays.

An engine computes what the reference does, in one pass and, from theta, with no grid in memory: ``cpu`` with Numba,
``cuda`` with CuPy. ``emulator`` runs the CUDA engine's own source on the CPU, thread by thread: for tests and for
chapter 4, not for speed. Where an engine is missing, or does not cover a case, the reference serves.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from types import ModuleType
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from .._arrays import Array, is_tensor
from ..interpolation import Bicubic, Bilinear, Kernel, Nearest
from ..options import Options

ENGINES = ("reference", "cpu", "cuda", "emulator")
TAPS: dict[type[Kernel], int] = {Nearest: 1, Bilinear: 2, Bicubic: 4}
"""The kernels that engines cover, with their taps along an axis."""

_chosen: ContextVar[str | None] = ContextVar("engine", default=None)
_deterministic: ContextVar[bool] = ContextVar("deterministic", default=False)


@contextlib.contextmanager
def use(engine: str | None) -> Iterator[None]:
    """Make every sampler called in a ``with`` block use one engine.

    Parameters
    ----------
    engine : {"reference", "cpu", "cuda", "emulator"} or None
        None picks by the array, as usual.

    Raises
    ------
    ValueError
        If there is no such engine.
    ModuleNotFoundError
        If what the engine needs is not installed.

    Examples
    --------
    >>> import stnlib
    >>> with use("reference"):
    ...     stnlib.grid_sample(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1, 2)))
    array([[[[1.]]]])
    """
    _check(engine)
    _load(engine)
    token = _chosen.set(engine)
    try:
        yield
    finally:
        _chosen.reset(token)


@contextlib.contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """Make gradients come out the same, bit for bit, every time they are computed in a ``with`` block.

    On the CPU they always do. On a GPU the fast way adds in whatever order the threads come; the deterministic way
    costs more time (chapter 4). For tensors, ``torch.use_deterministic_algorithms(True)`` asks for it too.

    Parameters
    ----------
    wanted : bool, default True

    Examples
    --------
    >>> with deterministic():
    ...     is_deterministic(np.zeros(1))
    True
    """
    token = _deterministic.set(wanted)
    try:
        yield
    finally:
        _deterministic.reset(token)


def is_deterministic(array: Array) -> bool:
    """Return whether gradients of such an array must come out the same every time."""
    if is_tensor(array):
        import torch

        return _deterministic.get() or torch.are_deterministic_algorithms_enabled()
    return _deterministic.get()


class Engine(NamedTuple):
    """An engine, and whether it takes NumPy arrays alone; tensors of the CPU are then handed over as such."""

    module: ModuleType
    numpy: bool

    def covers(self, images: Array, options: Options) -> bool:
        """Return whether the engine knows the kernel, and takes such images, (N, C, *size)."""
        if options.antialias or type(options.sampler.kernel) not in TAPS:
            return False
        if not self.numpy:
            return True
        # NumPy knows no bfloat16, Numba no float16, and its tables hold 32-bit indices.
        return images.dtype.itemsize >= 4 and math.prod(images.shape[2:]) < 2**31

    def sample(
        self,
        input: Array,
        coordinates: Array,
        size: Sequence[int] | None,
        fill: Array | None,
        options: Options,
    ) -> Array:
        """Sample images at a grid or, with a size, through theta.

        Parameters
        ----------
        input : array, shape ``(N, C, *size)``
        coordinates : array
            A grid ``(N, *output, D)``, or theta, (N, D, D + 1).
        size : sequence of D ints, or None
            The output's, beside a theta.
        fill : array, shape (N, C), or None for zeros
        options : stnlib.options.Options

        Returns
        -------
        array of input's dtype, shape ``(N, C, *output)``
        """
        image, places, value = self._hand_over(input, coordinates, fill)
        output = self.module.sample(image, places, size, value, options)
        return _handed_back(output, input)

    def sample_vjp(
        self,
        grad_output: Array,
        input: Array,
        coordinates: Array,
        size: Sequence[int] | None,
        fill: Array | None,
        options: Options,
        needs: Sequence[bool],
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Return the gradients of input, coordinates and fill, those that are needed.

        Parameters
        ----------
        grad_output : array, as `sample` returns
        input, coordinates, size, fill, options
            As for `sample`.
        needs : three bools

        Returns
        -------
        three arrays, as the arguments, or None
        """
        grad, image, places, value = self._hand_over(grad_output, input, coordinates, fill)
        grads = self.module.sample_vjp(grad, image, places, size, value, options, needs)
        first, second, third = (None if g is None else _handed_back(g, input) for g in grads)
        return first, second, third

    def _hand_over(self, *arrays: Any) -> list[Array]:
        """Return arrays as the engine takes them; the last is the value beyond the image, zeros where it is None."""
        given = [a.detach().numpy() if self.numpy and is_tensor(a) else a for a in arrays]
        *others, fill = given
        return given if fill is not None else [*others, _no_fill(others[-2])]


def pick(
    engine: str | None, options: Options, *arrays: Array, recorded: bool = False
) -> Engine | None:
    """Return the engine for some arrays, or None where the reference serves.

    Parameters
    ----------
    engine : {"reference", "cpu", "cuda", "emulator"} or None
        None picks: Numba's for NumPy arrays and tensors of the CPU, CuPy's for arrays on a GPU.
    options : stnlib.options.Options
    *arrays : arrays
        The images first.
    recorded : bool, default False
        True if the caller tells PyTorch of the derivatives itself.

    Returns
    -------
    Engine or None
        None too where PyTorch is to differentiate, map over or trace what happens.

    Raises
    ------
    ValueError
        If there is no such engine, or it does not take such arrays.
    ModuleNotFoundError
        If the engine is named, and what it needs is not installed.
    """
    _check(engine)
    if _is_compiling(arrays[0]):
        return None
    named = engine if engine is not None else _chosen.get()
    if named == "reference":
        return None
    images, place = arrays[0], _place(arrays[0])
    found = _load_or_none(place) if named is None else _load(named)
    if named is not None and (place == "cuda") != (named == "cuda"):
        wanted = "CuPy arrays and CUDA tensors" if named == "cuda" else "arrays of the CPU"
        raise ValueError(f"engine: {named!r} takes {wanted}, and input is none of them")
    if (
        found is None
        or place is None
        or not all(is_plain(a, recorded=recorded) for a in arrays)
    ):
        return None
    return found if found.covers(images, options) else None


def _place(array: Array) -> str | None:
    """Return which engine is made for an array: "cpu", "cuda", or None for the reference alone."""
    if isinstance(array, np.ndarray):
        return "cpu"
    if is_tensor(array):
        kind = array.device.type
        return kind if kind in ("cpu", "cuda") else None
    return "cuda" if array_api_compat.is_cupy_array(array) else None


def is_plain(array: Array, *, recorded: bool = False) -> bool:
    """Return whether an array holds its values, rather than stand for what PyTorch records, maps over or traces."""
    if not is_tensor(array):
        return True
    import torch
    from torch._C import _functorch

    return (
        type(array) in (torch.Tensor, torch.nn.Parameter)
        and (recorded or not (array.requires_grad and torch.is_grad_enabled()))
        and not torch.compiler.is_compiling()
        and torch._C._has_storage(array)  # a batch of torch.autograd.grad has none
        and _functorch.peek_interpreter_stack() is None
        and torch.autograd.forward_ad._current_level < 0
    )


def _is_compiling(array: Array) -> bool:
    """Return whether PyTorch's compiler traces what happens: it can read no context variable."""
    if not is_tensor(array):
        return False
    import torch

    return torch.compiler.is_compiling()


def _check(engine: str | None) -> None:
    if engine is not None and engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")


@functools.cache
def _load(engine: str | None) -> Engine | None:
    if engine is None or engine == "reference":
        return None
    name = "emulated" if engine == "emulator" else engine
    return Engine(importlib.import_module(f".{name}", __name__), engine == "cpu")


@functools.cache
def _load_or_none(engine: str | None) -> Engine | None:
    try:
        return _load(engine)
    except (
        ImportError
    ):  # also of what is installed and does not work: Numba, beside a NumPy too new for it
        return None


def _no_fill(input: Array) -> Array:
    """Return zeros, (N, C), in the dtype that images are blended in."""
    if isinstance(input, np.ndarray):
        return np.zeros(
            input.shape[:2], np.float64 if input.dtype == np.float64 else np.float32
        )
    if is_tensor(input):
        import torch

        dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
        return torch.zeros(input.shape[:2], dtype=dtype, device=input.device)
    xp = array_api_compat.array_namespace(input)
    dtype = xp.float64 if input.dtype == xp.float64 else xp.float32
    return xp.zeros(input.shape[:2], dtype=dtype)


def _handed_back(array: Array, like: Array) -> Array:
    """Return an engine's result as an array of the kind that it was handed."""
    if is_tensor(like) and not is_tensor(array):
        import torch

        return torch.from_numpy(array)
    return array
