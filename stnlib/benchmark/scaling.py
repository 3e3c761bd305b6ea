"""How the engine's cost grows: with the images, the channels and the output's pixels, doubled step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .cases import Case
from .contenders import CONTENDERS
from .timing import CLOCKS, interleave, summary

DIRECTIONS = ("forward", "forward+backward")


def series(device: str) -> dict[str, dict[int, str]]:
    """Return what is doubled: for each series, the sizes by the number that grows.

    Examples
    --------
    >>> {name: list(sizes) for name, sizes in series("cpu").items()}
    {'N': [8, 16, 32, 64, 128], 'C': [8, 16, 32, 64, 128], 'output pixels': [16384, 32768, 65536, 131072, 262144]}
    """
    side = 128 if device == "cpu" else 512
    counts = [8 << step for step in range(5)]
    # Now wider, now higher.
    targets = [(side << step // 2, side << (step + 1) // 2) for step in range(5)]
    return {
        "N": {n: f"{n}x8x{side}x{side}" for n in counts},
        "C": {c: f"8x{c}x{side}x{side}" for c in counts},
        "output pixels": {h * w: f"8x8x{side}x{side}:{h}x{w}" for h, w in targets},
    }


def exponent(counts: Sequence[float], seconds: Sequence[float]) -> float:
    """Return p for which the time grows as the count to the power p: 1 where the cost is linear.

    Least squares on the logarithms; a fixed cost a call makes it smaller than 1.

    Examples
    --------
    >>> round(exponent([1, 2, 4], [3.0, 6.0, 12.0]), 6)
    1.0
    """
    return float(np.polyfit(np.log(counts), np.log(seconds), 1)[0])


def measure(name: str, direction: str, device: str, rounds: int) -> dict[str, Any]:
    """Measure a series, on arrays.

    Parameters
    ----------
    name : str
        One of `series`.
    direction : str
    device : {"cpu", "cuda"}
    rounds : int

    Returns
    -------
    dict
        The ``counts``, the median ``seconds`` of each, and the fitted ``exponent``, the summary of the rounds'.
    """
    sizes, make = series(device)[name], CONTENDERS["stnlib-arrays"].make
    calls = {str(count): make(Case(size, device), direction) for count, size in sizes.items()}
    times = interleave(calls, CLOCKS[device], rounds)
    whole = [some for some in zip(*times.values(), strict=True) if None not in some]
    return {
        "series": name,
        "direction": direction,
        "counts": list(sizes),
        "seconds": [summary(some)["median"] for some in times.values()],
        "exponent": summary([exponent(list(sizes), some) for some in whole]),
    }
