"""How much faster a network trains: the ST-FCN of chapter 5, with the engine and with the reference."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .. import engines
from .._extras import require
from .timing import ratio, summary

STEPS, BATCHES = 200, 50
"""Of each training; and made beforehand, and used again, since the distortions are not measured."""


def compare(device: str, rounds: int, steps: int = STEPS) -> dict[str, Any]:
    """Train the same network on the same images with each engine, in turn.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    rounds : int
        How often each is trained.
    steps : int, default 200

    Returns
    -------
    dict
        The ``iterations_a_second`` with the ``reference`` and with the ``engine``; their ``ratio``, taken within each
        round; the ``loss`` curves, and ``loss_difference``, the largest between the two at a step.
    """
    torch = require("torch", "train", "stnlib bench --training")
    from ..data import mnist
    from ..data.distortions import RTS
    from ..nn.models import STFCN
    from ..training import DistortedDigits, Schedule, train

    schedule = Schedule(iterations=steps)
    digits = DistortedDigits(*mnist.load("train"), RTS, schedule.batch, seed=0)
    with engines.use("reference"):  # whose first call is not a long one
        some = [digits(step) for step in range(min(BATCHES, steps))]
    made = [(images.to(device), labels.to(device)) for images, labels in some]

    def seconds(engine: str | None, schedule: Schedule) -> float:
        torch.manual_seed(0)
        network = STFCN().to(device)
        with engines.use(engine):
            start = time.perf_counter()
            losses[engine] = train(network, lambda step: made[step % len(made)], schedule)
            return time.perf_counter() - start

    losses: dict[str | None, list[float]] = {}
    spent: dict[str | None, list[float | None]] = {"reference": [], None: []}
    for engine in spent:
        seconds(engine, Schedule(iterations=2))  # compiles, and warms up
    for _ in range(rounds):
        for engine, times in spent.items():
            times.append(seconds(engine, schedule))
    names = {"reference": "reference", None: "engine"}
    return {
        "network": "ST-FCN",
        "batch": schedule.batch,
        "steps": steps,
        "iterations_a_second": {
            names[engine]: summary([steps / t for t in times if t])
            for engine, times in spent.items()
        },
        "ratio": ratio(spent[None], spent["reference"]),
        "loss": {names[engine]: curve for engine, curve in losses.items()},
        "loss_difference": float(np.abs(np.subtract(losses["reference"], losses[None])).max()),
    }
