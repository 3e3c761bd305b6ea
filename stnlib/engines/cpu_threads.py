"""Threads for the CPU engine, and a way to share one call among them.

Where there is GNU's OpenMP, as beside most builds of PyTorch, it calls the kernel on its threads: PyTorch's own, which
need not be woken, and do not compete with others. Elsewhere, and in a forked child, where OpenMP would wait for ever,
a few of Python's threads do. Numba's own threads abort the process when two Python threads call at once.

Kernels hand out their work themselves (`stnlib.engines.cpu_kernels`), so each thread makes the same call, and none of
them is needed.
"""

from __future__ import annotations

import ctypes
import functools
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._extras import require

require("numba", "fast", "the CPU engine")

from llvmlite import ir  # noqa: E402
from numba import extending, types  # noqa: E402
from numba.core import cgutils  # noqa: E402

intrinsic: Any = extending.intrinsic

_asked: int | None = None
_waiting: queue.SimpleQueue[_Share] = queue.SimpleQueue()
_started = 0
_forked = False
_starting = threading.Lock()


def get_num_threads() -> int:
    """Return how many threads the CPU engine uses.

    Returns
    -------
    int
        As `set_num_threads` said; else as many as PyTorch uses, if it is imported; else one a core that the process
        may run on, and no more than the environment's ``NUMBA_NUM_THREADS`` and ``OMP_NUM_THREADS`` allow.
    """
    if _asked is not None:
        return _asked
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return torch.get_num_threads()
    return _available()


def set_num_threads(n: int | None) -> None:
    """Set how many threads the CPU engine uses, or leave it to `get_num_threads` again with None.

    Results do not depend on it.

    Raises
    ------
    ValueError
        If n is below 1.
    """
    global _asked
    if n is not None and n < 1:
        raise ValueError(f"n: expected at least 1 thread, got {n}")
    _asked = n


def _available() -> int:
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        limit = os.environ.get(name, "")
        if limit.isdigit():
            cores = min(cores, int(limit))
    return max(cores, 1)


class _Share:
    """One more call of a kernel, made by whichever thread takes it, or by none."""

    def __init__(self, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.call, self.arguments = call, arguments
        self.taken, self.done = threading.Lock(), threading.Lock()
        self.error: BaseException | None = None
        self.done.acquire()

    def run(self) -> None:
        if self.taken.acquire(blocking=False):
            try:
                self.call(*self.arguments)
            except BaseException as error:
                self.error = error
            self.done.release()

    def finish(self) -> None:
        """Call it off if nobody has begun; else wait."""
        if not self.taken.acquire(blocking=False):
            self.done.acquire()
            if self.error is not None:
                raise self.error


def share(kernel: Callable[..., None], arguments: tuple[Any, ...], threads: int) -> None:
    """Make one and the same call on up to so many threads, and return when all that began have ended.

    Parameters
    ----------
    kernel : callable
        Takes the address of OpenMP's function, or 0, and how many threads are to call, for `in_parallel`; and the
        arguments.
    arguments : tuple
    threads : int
    """
    address = _openmp("torch" in sys.modules) if threads > 1 and not _forked else 0
    if address or threads == 1:
        kernel(address, threads, *arguments)
        return
    _start(threads - 1)
    call = functools.partial(kernel, 0, 1)
    shares = [_Share(call, arguments) for _ in range(threads - 1)]
    for one in shares:
        _waiting.put(one)
    try:
        call(*arguments)
    finally:
        for one in shares:
            one.finish()


@functools.cache
def _openmp(beside_torch: bool) -> int:
    """Return the address of ``GOMP_parallel``, PyTorch's if that is imported, or 0 where there is none."""
    names: list[str] = []
    if beside_torch:
        libraries = Path(sys.modules["torch"].__file__ or "").parent / "lib"
        names = sorted(map(str, libraries.glob("libgomp*")))
    for name in [*names, "libgomp.so.1"]:
        try:
            function = ctypes.CDLL(name).GOMP_parallel
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0


@intrinsic
def in_parallel(
    typingctx: Any, address: Any, threads: Any, function: Any, arguments: Any
) -> Any:
    """Call a compiled function on so many threads, by ``GOMP_parallel`` at the address; or once, if that is 0.

    An exception, which only a thread of Python's could raise, becomes a 1: the second number of the arguments' second,
    an array of int64.
    """
    called = function.get_call_type(typingctx, arguments.types, {})

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        overload = signature.args[2].dispatcher.overloads[tuple(called.args)]
        context.active_code_library.add_linking_library(overload.library)
        pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        body_type = ir.FunctionType(ir.VoidType(), [pointer])
        name = builder.module.get_unique_name("in_parallel")
        body = ir.Function(builder.module, body_type, name)
        body.linkage = "internal"
        inner = ir.IRBuilder(body.append_basic_block())
        data = cgutils.alloca_once_value(builder, args[3])
        given = inner.load(inner.bitcast(body.args[0], data.type))
        values = cgutils.unpack_tuple(inner, given, len(arguments.types))
        status, _ = context.call_internal_no_propagate(inner, overload.fndesc, called, values)
        with cgutils.if_unlikely(inner, status.is_error):
            counter = context.make_array(called.args[1])(context, inner, values[1])
            one = ir.Constant(ir.IntType(64), 1)
            inner.store(one, inner.gep(counter.data, [one]))
        inner.ret_void()
        data = builder.bitcast(data, pointer)
        alone = builder.icmp_unsigned("==", args[0], ir.Constant(args[0].type, 0))
        with builder.if_else(alone) as (call_here, call_there):
            with call_here:
                builder.call(body, [data])
            with call_there:
                parallel = ir.FunctionType(
                    ir.VoidType(), [body_type.as_pointer(), pointer, word, word]
                )
                start = builder.inttoptr(args[0], parallel.as_pointer())
                count = builder.trunc(args[1], word)
                builder.call(start, [body, data, count, ir.Constant(word, 0)])
        return context.get_dummy_value()

    return types.void(address, threads, function, arguments), codegen


def _start(helpers: int) -> None:
    global _started
    while _started < helpers:
        with _starting:
            if _started < helpers:
                threading.Thread(
                    target=_work, args=(_waiting,), daemon=True, name=f"stnlib-{_started}"
                ).start()
                _started += 1


def _work(waiting: queue.SimpleQueue[_Share]) -> None:
    while True:
        waiting.get().run()


def _forget() -> None:
    """Begin anew in a forked child, which has none of its parent's threads."""
    global _waiting, _started, _starting, _forked
    _waiting, _started, _starting, _forked = queue.SimpleQueue(), 0, threading.Lock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
