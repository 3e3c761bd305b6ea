"""A training loop to be read in one sitting (chapter 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..data.distortions import BaseDistortion
from ..data.mnist import to_input


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
        AdamW's, at its peak: it rises for the first part of the steps and then falls to 0 along a cosine.
    localisation : float
        Factor on the learning rate of a localisation network: a small change of theta moves every pixel.
    warm_up : float
        Part of the steps in which the learning rate rises, between 0 and 1.
    clip : float
        Largest norm of the gradient; a longer one is shortened to it.

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

    def __post_init__(self) -> None:
        if not all(isinstance(n, int) and n >= 1 for n in (self.iterations, self.batch)):
            raise ValueError(
                "iterations and batch: expected whole numbers of at least 1, "
                f"got {self.iterations} and {self.batch}"
            )
        for name in ("learning_rate", "localisation", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name}: expected a positive number, got {getattr(self, name)}"
                )
        if not 0 < self.warm_up < 1:
            raise ValueError(f"warm_up: expected a number between 0 and 1, got {self.warm_up}")

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
        return (1 + math.cos(math.pi * (step - warm_up) / (self.iterations - warm_up))) / 2


def batches(
    images: np.ndarray,
    labels: np.ndarray,
    distortion: BaseDistortion,
    size: int,
    rng: np.random.Generator,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield random digits, freshly distorted, for ever.

    Parameters
    ----------
    images : array of uint8, shape (N, 28, 28)
    labels : array of uint8, shape (N,)
    distortion : BaseDistortion
    size : int
        Digits a batch.
    rng : numpy.random.Generator

    Yields
    ------
    images : tensor of float32, shape (size, 1, H, W)
    labels : tensor of int64, shape (size,)

    Raises
    ------
    ValueError
        If there is not one label for each image.

    Examples
    --------
    >>> from stnlib.data.distortions import RTS
    >>> digits, rng = np.zeros((4, 28, 28), np.uint8), np.random.default_rng(0)
    >>> images, labels = next(batches(digits, np.arange(4), RTS, 2, rng))
    >>> images.shape, labels.shape
    (torch.Size([2, 1, 42, 42]), torch.Size([2]))
    """
    if len(images) != len(labels):
        raise ValueError(
            f"labels: expected one for each of {len(images)} images, got {len(labels)}"
        )
    while True:
        chosen = rng.integers(0, len(images), size)
        distorted = distortion(to_input(images[chosen]), rng)
        yield torch.from_numpy(distorted), torch.from_numpy(labels[chosen].astype(np.int64))


def train(
    network: nn.Module,
    data: Iterator[tuple[torch.Tensor, torch.Tensor]],
    schedule: Schedule,
    after_step: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Train a classifier in place.

    Parameters
    ----------
    network : torch.nn.Module
        From images to logits. Parameters whose name holds ``localisation`` learn more slowly.
    data : iterator of (images, labels)
        As `batches` yields them.
    schedule : Schedule
    after_step : callable, optional
        Called with the number of steps done and the step's loss.

    Returns
    -------
    list of float
        The loss of each step.

    Raises
    ------
    FloatingPointError
        If the loss is no longer a finite number.

    Examples
    --------
    >>> data = iter([(torch.eye(2), torch.tensor([0, 1]))] * 3)
    >>> len(train(nn.Linear(2, 2), data, Schedule(iterations=3)))
    3
    """
    named = list(network.named_parameters())
    groups = [
        {
            "params": [p for name, p in named if "localisation" not in name],
            "lr": schedule.learning_rate,
        },
        {
            "params": [p for name, p in named if "localisation" in name],
            "lr": schedule.learning_rate * schedule.localisation,
        },
    ]
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]])
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, schedule.rate)
    losses = []
    network.train()
    for step in range(1, schedule.iterations + 1):
        images, labels = next(data)
        loss = cross_entropy(network(images), labels)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {step}; a lower learning rate usually helps"
            )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), schedule.clip)
        optimiser.step()
        rate.step()
        losses.append(loss.item())
        after_step(step, losses[-1])
    return losses


@torch.no_grad()
def error_rate(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, batch: int = 1000
) -> float:
    """Return the part of the images that a classifier gets wrong, between 0 and 1.

    Parameters
    ----------
    network : torch.nn.Module
        From images to logits. Each of its modules is left in the mode, training or evaluation, in which it came.
    images : tensor, shape (N, C, H, W)
    labels : tensor of int64, shape (N,)
    batch : int, default 1000
        Images at a time.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If there is not one label for each image, or there is no image.

    Examples
    --------
    >>> error_rate(nn.Identity(), torch.eye(2), torch.tensor([0, 0]))
    0.5
    """
    if len(images) != len(labels) or len(images) == 0:
        raise ValueError(
            f"labels: expected one for each of {len(images)} images, at least one, got {len(labels)}"
        )
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        wrong = sum(
            int((network(some).argmax(1) != answers).sum())
            for some, answers in zip(images.split(batch), labels.split(batch), strict=True)
        )
    finally:
        for module, training in modes:
            module.training = training
    return wrong / len(images)
