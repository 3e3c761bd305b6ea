"""A training that is not lost: evaluated, watched, kept in checkpoints, and gone on with after a break (chapter 5)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from operator import call
from pathlib import Path
from typing import Any

import torch

from ..nn.weights import load_weights, save_weights
from . import checkpoint
from .distributed import from_first, take_weights_of_first
from .loop import Data, Trainer, gpus, require_finite
from .schedule import require_whole
from .watch import TrainingWarning, complaints, statistics

WATCHED = 256  # images on which transformers are watched
CHECKPOINT, WEIGHTS, BEST = "checkpoint.pt", "weights.safetensors", "best.safetensors"


def fit(
    trainer: Trainer,
    data: Data,
    held_out: tuple[torch.Tensor, torch.Tensor],
    folder: Path | str,
    configuration: Mapping[str, Any],
    *,
    every: int = 500,
    patience: int | None = None,
    after_step: Callable[[Trainer, float], None] = lambda trainer, loss: None,
    observers: Sequence[Callable[[Trainer, dict[str, Any]], None]] = (),
) -> list[dict[str, Any]]:
    """Train to the end of the schedule, from a checkpoint if there is one.

    Parameters
    ----------
    trainer : Trainer
    data : callable
        From a step, counted from 0, to its images and labels.
    held_out : (images, labels)
        Never trained on; evaluated in between.
    folder : Path or str
        Where ``checkpoint.pt`` is, or will be; at the end, the weights as ``weights.safetensors``; and those with the
        fewest errors so far as ``best.safetensors``.
    configuration : mapping
        Of strings, numbers and None: what must be the same when a training goes on. The schedule, what the trainer
        computes with, every and patience are added to it.
    every : int, default 500
        Steps from one evaluation, and checkpoint, to the next.
    patience : int, optional
        Stop after so many evaluations in a row without fewer errors than ever before, and go back to the best weights.
    after_step : callable, optional
        Called with the trainer and the step's loss.
    observers : sequence of callables
        Each is called with the trainer and the evaluation's entry, after it is kept.

    Returns
    -------
    list of dict
        An entry for each evaluation: ``steps``, ``seconds``, the mean ``loss`` since the last, the ``error`` in percent
        on the images held out, and ``transformers`` (`stnlib.training.watch.statistics`).

    Raises
    ------
    FloatingPointError
        If the loss, or a weight at an evaluation, is no longer a finite number. The last checkpoint stands.
    OSError, ValueError
        If a checkpoint cannot be written; is not whole; or was made with another configuration or network.
    TypeError, ValueError
        If every or patience is not a whole number of at least 1, or configuration holds something else.

    Warns
    -----
    TrainingWarning
        If a localisation network has died, or a transformer looks beyond the frame: what usually helps is said.

    Notes
    -----
    On the same machine and number of threads, a training that was killed at any moment, and begun again with the same
    arguments, ends with the same weights, bit by bit, as one that never was. Used in chapter 5.
    """
    every = require_whole(every, "every")
    patience = patience if patience is None else require_whole(patience, "patience")
    for name, value in configuration.items():
        if type(value) not in (str, int, float, bool, type(None)):
            raise TypeError(
                f"configuration: expected strings, numbers and None, got {value!r} for {name}"
            )
    configuration = {
        **configuration,
        **asdict(trainer.schedule),
        "bfloat16": trainer.bfloat16,
        "compile": trainer.compile,
        "every": every,
        "patience": patience,
    }
    folder = Path(folder)
    agreed = from_first if trainer.distributed else call
    path, history, spent = folder / CHECKPOINT, [], 0.0
    state = agreed(lambda: checkpoint.load(path, configuration) if path.exists() else None)
    if state is not None:
        try:
            trainer.load_state_dict(state["trainer"])
        except ValueError as error:
            raise ValueError(f"{path}: {error}; name another folder") from None
        history = state["history"]
        spent = history[-1]["seconds"]
    start = time.perf_counter() - spent
    losses: list[float] = []
    trainer.network.train()

    def evaluate() -> dict[str, Any]:  # in the first process alone
        entry: dict[str, Any] = {
            "steps": trainer.steps,
            "seconds": time.perf_counter() - start,
            "loss": sum(losses) / len(losses),
            "error": 100 * trainer.error(*held_out),
            "transformers": statistics(trainer.network, held_out[0][:WATCHED]),
        }
        if entry["error"] < min((each["error"] for each in history), default=float("inf")):
            save_weights(trainer.network, folder / BEST)
        kept = {"trainer": trainer.state_dict(), "history": [*history, entry]}
        checkpoint.save(path, kept, configuration)
        warmed_up = trainer.steps >= trainer.schedule.warm_up * trainer.schedule.iterations
        for sentence in complaints(entry["transformers"], warmed_up):
            warnings.warn(f"step {trainer.steps}: {sentence}", TrainingWarning, stacklevel=3)
        # What observers draw must not change what comes.
        with torch.random.fork_rng(gpus(trainer.network)):
            for observer in observers:
                observer(trainer, entry)
        return entry

    while trainer.steps < trainer.schedule.iterations and not _is_over(history, patience):
        loss = trainer.step(*data(trainer.steps)).item()
        require_finite(loss, trainer.steps)
        losses.append(loss)
        if trainer.is_first:
            after_step(trainer, loss)
        if trainer.steps % every == 0 or trainer.steps == trainer.schedule.iterations:
            _require_finite_weights(trainer)
            history.append(agreed(evaluate))
            losses = []
    if patience is not None:
        agreed(partial(load_weights, trainer.network, folder / BEST))
        if trainer.distributed:
            take_weights_of_first(trainer.network)
    agreed(partial(save_weights, trainer.network, folder / WEIGHTS))
    return history


def _require_finite_weights(trainer: Trainer) -> None:
    """Raise if a step has spoilt a weight: the last step of a training has no loss after it that would show it."""
    for name, weights in trainer.network.named_parameters():
        if not weights.isfinite().all():
            raise FloatingPointError(
                f"{name} is no longer finite after step {trainer.steps}; a lower learning rate usually helps"
            )


def _is_over(history: Sequence[Mapping[str, Any]], patience: int | None) -> bool:
    """Return whether the last evaluations, as many as patience, all found no fewer errors than the best before them."""
    if patience is None or len(history) <= patience:
        return False
    errors = [entry["error"] for entry in history]
    return min(errors[-patience:]) >= min(errors[:-patience])
