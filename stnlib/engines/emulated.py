"""The CUDA engine's kernels on the CPU, thread by thread: for tests and for chapter 4, where there is no GPU."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays import Array, is_tensor
from . import is_deterministic, launch
from .emulator import RawModule


class Emulator:
    """The CPU in the place of a GPU.

    Parameters
    ----------
    threads : int, default 256
        In a block.
    **settings
        For `stnlib.engines.emulator.RawModule`.
    """

    def __init__(self, threads: int = 256, **settings: Any) -> None:
        self.threads, self.settings = threads, settings

    @functools.cache  # noqa: B019
    def module(self, options: tuple[str, ...]) -> RawModule:
        """Return the kernels, compiled by the machine's C++ compiler."""
        return RawModule(launch.SOURCE.read_text(), options, **self.settings)

    def empty(self, shape: Sequence[int], dtype: Any, like: Array) -> Array:
        """Return a new array, its values not yet set."""
        if not is_tensor(like):
            return np.empty(shape, dtype)
        import torch

        return torch.empty(
            shape, dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype
        )

    def on_stream(self, array: Array) -> contextlib.AbstractContextManager[None]:
        """Return a context that does nothing: kernels run at once."""
        return contextlib.nullcontext()

    def deterministic(self, array: Array) -> bool:
        """Return whether the deterministic backward is asked for."""
        return is_deterministic(array)


EMULATOR = Emulator()
sample = functools.partial(launch.sample, machine=EMULATOR)
sample_vjp = functools.partial(launch.sample_vjp, machine=EMULATOR)

__all__ = ["EMULATOR", "Emulator", "sample", "sample_vjp"]
