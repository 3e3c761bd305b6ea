"""How long and how fast a network learns (chapter 5)."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

from .._arrays import require_number

OPTIMISERS = ("adamw", "sgd")
DECAYS = ("cosine", "steps")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a network learns.

    Parameters
    ----------
    iterations : int
        Steps of the optimiser.
    batch : int
        Images a step.
    learning_rate : float
        The optimiser's, at its peak.
    localisation : float
        Factor on the learning rate of a localisation network: a small change of theta moves every pixel.
    warm_up : float
        Part of the steps in which the learning rate rises from 0, between 0 and 1.
    clip : float
        Largest norm of the gradient; a longer one is shortened to it. ``math.inf``: none is.
    optimiser : {"adamw", "sgd"}
        SGD goes with a momentum of 0.9.
    decay : {"cosine", "steps"}
        How the learning rate falls after the warm-up: to 0 along a cosine, or to a tenth after each third.
    weight_decay : float
        Part of each weight that is taken away, times the learning rate, a step.

    Raises
    ------
    TypeError, ValueError
        If one of them is not such a number or name.

    Notes
    -----
    Appendix A.3 of Jaderberg et al. (2015) trains 150,000 steps with SGD at 0.01 on batches of 256, with ``steps``.
    Used in chapters 5 and 7.

    Examples
    --------
    >>> Schedule(iterations=100).batch
    128
    """

    iterations: int
    batch: int = 128
    learning_rate: float = 6e-3
    localisation: float = 0.3
    warm_up: float = 0.15
    clip: float = 1.0
    optimiser: str = "adamw"
    decay: str = "cosine"
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        # Kept as plain Python numbers, which checkpoints and records hold.
        for name in ("iterations", "batch"):
            object.__setattr__(self, name, require_whole(getattr(self, name), name))
        for name, expected, fits in (
            ("learning_rate", "a positive number", lambda x: 0 < x < math.inf),
            ("localisation", "a positive number", lambda x: 0 < x < math.inf),
            ("warm_up", "a number between 0 and 1", lambda x: 0 < x < 1),
            ("clip", "a positive number", lambda x: x > 0),
            ("weight_decay", "a number of at least 0", lambda x: 0 <= x < math.inf),
        ):
            require_number(getattr(self, name), name, expected, fits)
            object.__setattr__(self, name, float(getattr(self, name)))
        for name, known in (("optimiser", OPTIMISERS), ("decay", DECAYS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}: expected {' or '.join(map(repr, known))}, got {getattr(self, name)!r}"
                )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0, as a part of its peak.

        Examples
        --------
        >>> schedule = Schedule(iterations=100, warm_up=0.2)
        >>> [round(schedule.rate(step), 2) for step in (0, 10, 20, 60, 99)]
        [0.05, 0.55, 1.0, 0.5, 0.0]
        """
        warm_up = self.warm_up * self.iterations
        if step < warm_up:
            return min((step + 1) / warm_up, 1.0)
        if self.decay == "steps":
            return 0.1 ** (3 * step // self.iterations)
        return (1 + math.cos(math.pi * (step - warm_up) / (self.iterations - warm_up))) / 2


def require_whole(value: Any, name: str, least: int = 1) -> int:
    """Return a whole number as an int; raise unless it is one, of at least so much."""
    expected = f"{name}: expected a whole number of at least {least}, got {value!r}"
    try:
        whole = operator.index(value)
    except TypeError:
        raise TypeError(expected) from None
    if isinstance(value, bool):
        raise TypeError(expected)
    if whole < least:
        raise ValueError(expected)
    return whole
