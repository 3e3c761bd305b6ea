"""How time is taken: contenders run in turn, round by round, so that what disturbs one disturbs all."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Call = Callable[[], Any]
Clock = Callable[[Call, int], float]
"""From a call and how often to make it, to the seconds that one took."""

SHORTEST = 5e-3
"""Seconds that a contender's turn lasts at least: short calls are made several times."""

SHARE = 0.5
"""Seconds that a contender may take a round, on average: one with longer calls sits rounds out."""


def summary(values: Sequence[float | None]) -> dict[str, Any]:
    """Return the median and the quartiles of those that are there.

    Examples
    --------
    >>> summary([1.0, 2.0, None, 3.0, 4.0, 9.0])
    {'median': 3.0, 'quartiles': [2.0, 4.0]}
    """
    there = [value for value in values if value is not None]
    some = there if len(there) > 1 else there * 2
    lower, median, upper = statistics.quantiles(some, n=4, method="inclusive")
    return {"median": median, "quartiles": [lower, upper]}


def ratio(own: Sequence[float | None], other: Sequence[float | None]) -> dict[str, Any]:
    """Return the summary of how many times as long another takes, of the rounds in which both took part.

    Examples
    --------
    >>> ratio([1.0, None, 2.0], [3.0, 9.0, 2.0])
    {'median': 2.0, 'quartiles': [1.5, 2.5]}
    """
    return summary([b / a for a, b in zip(own, other, strict=True) if a and b])


def cpu_clock(call: Call, times: int) -> float:
    """Return the seconds that a call takes on the CPU, as the mean of some."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def cuda_clock(call: Call, times: int) -> float:
    """Return the seconds between events on the stream, before the first call and after the last, as the mean of some.

    A GPU that waits for the CPU to launch the next kernel is waited for too, as it would be in use.
    """
    from cupy import cuda

    cuda.runtime.deviceSynchronize()
    start, end = cuda.Event(), cuda.Event()
    start.record()
    for _ in range(times):
        call()
    end.record()
    cuda.runtime.deviceSynchronize()
    return cuda.get_elapsed_time(start, end) / 1000 / times


CLOCKS: dict[str, Clock] = {"cpu": cpu_clock, "cuda": cuda_clock}


def interleave(
    calls: Mapping[str, Call], clock: Clock, rounds: int
) -> dict[str, list[float | None]]:
    """Time contenders in turn, in a new order each round.

    A turn is one untimed call, so that caches and threads are as after a call of its own, and then as many as last
    5 ms. A call of more than 0.5 s has no untimed one, and takes part in every second round, or third, and so on.

    Parameters
    ----------
    calls : mapping from a name to a call
    clock : callable
        One of `CLOCKS`.
    rounds : int

    Returns
    -------
    dict
        For each name, the seconds a call in each round, None where it sat out.
    """
    times: dict[str, list[float | None]] = {name: [] for name in calls}
    # The first call may be a warm-up.
    lasts = {n: max(1e-6, min(clock(c, 1), clock(c, 1))) for n, c in calls.items()}
    shuffled = random.Random(0)
    gc.collect()
    gc.disable()
    try:
        for round in range(rounds):
            for name in shuffled.sample(list(calls), len(calls)):
                seconds = None
                if round % math.ceil(lasts[name] / SHARE) == 0:
                    if lasts[name] < SHARE:
                        clock(calls[name], 1)
                    seconds = clock(calls[name], math.ceil(SHORTEST / lasts[name]))
                times[name].append(seconds)
    finally:
        gc.enable()
    return times


def copy(moved: int, device: str) -> Call:
    """Return a copy that moves so many bytes, half of them read and half written: the floor, if nothing else mattered.

    On a GPU CuPy copies; on a CPU PyTorch, on its threads, or NumPy where there is no PyTorch.
    """
    if device == "cuda":
        import cupy

        here, there = (cupy.zeros(moved // 2, cupy.uint8) for _ in range(2))
        return lambda: there.data.copy_from_device_async(here.data, moved // 2)
    source, target = np.ones(moved // 2, np.uint8), np.zeros(moved // 2, np.uint8)
    try:
        import torch
    except ModuleNotFoundError:
        return lambda: np.copyto(target, source)
    whole, place = torch.from_numpy(source), torch.from_numpy(target)
    return lambda: place.copy_(whole)
