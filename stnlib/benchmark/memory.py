"""How much memory a call takes beyond its arguments, at its peak; its results are part of it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak(call: Callable[[], Any], device: str) -> int | None:
    """Return how many bytes a call takes at its peak.

    Parameters
    ----------
    call : callable
        Made once before, to warm up.
    device : {"cpu", "cuda"}

    Returns
    -------
    int or None
        None where nobody tells: on a CPU the kernel does, on Linux alone.
    """
    call()
    gc.collect()
    if device == "cuda":
        return _of_the_gpu(call)
    try:
        return _of_the_process(call)
    except OSError:
        return None


def _of_the_process(call: Callable[[], Any]) -> int:
    """Return by how much the resident memory's high-water mark, set back before the call, rises above what is there.

    It sees what native code allocates too. Memory that was freed and kept would serve the call unseen, and so the C
    library hands it all back first, and from then on whatever is larger than 64 KiB: time nothing afterwards.
    """
    with contextlib.suppress(AttributeError):  # another C library than glibc
        libc, trim, mmap = ctypes.CDLL(None), -1, -3
        libc.mallopt(trim, 0)
        libc.mallopt(mmap, 1 << 16)
        libc.malloc_trim(0)
    RESET.write_text("5")
    before = _status("VmRSS")
    results = call()
    risen = _status("VmHWM") - before
    del results
    return max(0, risen)


def _status(field: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def _of_the_gpu(call: Callable[[], Any]) -> int:
    """Return how many bytes the allocators of CuPy and PyTorch hand out.

    CuPy's pool says how far it had to grow, and not what was in use, and so it is emptied first.
    """
    cupy = importlib.import_module("cupy")
    pool = cupy.get_default_memory_pool()
    cupy.cuda.runtime.deviceSynchronize()
    pool.free_all_blocks()
    grown, torch = -pool.total_bytes(), None
    with contextlib.suppress(ModuleNotFoundError):
        torch = importlib.import_module("torch")
        torch.cuda.reset_peak_memory_stats()
        grown -= torch.cuda.memory_allocated()
    results = call()
    cupy.cuda.runtime.deviceSynchronize()
    grown += pool.total_bytes()
    if torch is not None:
        grown += torch.cuda.max_memory_allocated()
    del results
    return grown
