"""The sampler on a GPU: CUDA C++ through CuPy, for CuPy arrays and CUDA tensors (chapter 4).

Kernels run on the caller's device and current stream, and can be captured in a CUDA graph. The first call of each case
compiles, which a capture forbids: sample once, with the same options and dtypes, before it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from .._arrays import Array, is_tensor
from .._extras import require
from . import is_deterministic, launch

cupy = require("cupy", "cuda13", "the CUDA engine")


class _Stream:
    """A stream of PyTorch's, as CuPy takes it; PyTorch keeps it."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address  # the protocol's version, and where the stream is


class _Module:
    """A module that looks each kernel up once: CuPy would for every launch."""

    def __init__(self, module: Any) -> None:
        self.get_function = functools.cache(module.get_function)


class _GPU:
    """A GPU, reached through CuPy; tensors' memory is PyTorch's own."""

    threads = 256

    @functools.cache  # noqa: B019
    def module(self, options: tuple[str, ...]) -> Any:
        code = launch.SOURCE.read_text(encoding="utf-8")
        return _Module(cupy.RawModule(code=code, options=options))

    def empty(self, shape: Sequence[int], dtype: Any, like: Array) -> Array:
        if not is_tensor(like):
            return cupy.empty(shape, dtype)
        import torch

        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        return torch.empty(shape, dtype=dtype, device=like.device)

    @contextlib.contextmanager
    def on_stream(self, array: Array) -> Iterator[None]:
        if not is_tensor(array):
            with array.device:
                yield
            return
        import torch

        stream = _Stream(torch.cuda.current_stream(array.device).cuda_stream)
        with cupy.cuda.Device(array.device.index), cupy.cuda.Stream.from_external(stream):
            yield

    def deterministic(self, array: Array) -> bool:
        return is_deterministic(array)


GPU = _GPU()
sample = functools.partial(launch.sample, machine=GPU)
sample_vjp = functools.partial(launch.sample_vjp, machine=GPU)

__all__ = ["GPU", "sample", "sample_vjp"]
