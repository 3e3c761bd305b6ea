"""A training loop to be read in one sitting (chapter 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..nn.spatial_transformer import parameter_groups
from ..nn.weights import require_same
from .distributed import is_first, mean, together
from .schedule import Schedule

Data = Callable[[int], tuple[torch.Tensor, torch.Tensor]]


class Trainer:
    """A network, its optimiser, and how many steps they have gone: what a checkpoint keeps.

    Parameters
    ----------
    network : torch.nn.Module
        A classifier, from images to logits; it is trained in place. Localisation networks of spatial transformers learn
        at a lower rate.
    schedule : Schedule
    bfloat16 : bool, default False
        Compute in bfloat16 with channels last: for convolutions, about twice as fast where the processor has it.
        Weights, theta and the sampler stay in float32.
    compile : bool, default False
        Run the network through `torch.compile`.
    distributed : bool, default False
        Train together with the other processes of a `stnlib.training.distributed.session`, each with its share of the
        batch: the gradients and the loss are means over all of them, and the weights in all the same. On two
        processes, a sum has one order, and a training repeats bit by bit; on more, within rounding.

    Raises
    ------
    ValueError
        If distributed is asked for outside a session.

    Examples
    --------
    >>> trainer = Trainer(nn.Linear(2, 2), Schedule(iterations=3))
    >>> loss = trainer.step(torch.eye(2), torch.tensor([0, 1]))
    >>> trainer.steps, loss.shape
    (1, torch.Size([]))
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        *,
        bfloat16: bool = False,
        compile: bool = False,
        distributed: bool = False,
    ) -> None:
        self.network, self.schedule, self.steps = network, schedule, 0
        self.bfloat16, self.compile, self.distributed = bfloat16, compile, distributed
        if bfloat16:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        shared = together(network) if distributed else network
        self.is_first = not distributed or is_first()
        self.forward: Callable[[torch.Tensor], torch.Tensor] = (
            torch.compile(shared) if compile else shared
        )
        self.optimiser = make_optimiser(network, schedule)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Take one step, and return the loss before it, a tensor without dimensions."""
        self.set_rate()
        loss = self.update(images, labels)
        self.steps += 1
        return loss

    def set_rate(self) -> None:
        """Give each group of parameters the learning rate of the step that comes."""
        for group in self.optimiser.param_groups:
            rate = group["initial_lr"] * self.schedule.rate(self.steps)
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)  # which a CUDA graph reads
            else:
                group["lr"] = rate

    def update(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Update the weights by the gradient of the loss, and return the loss."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss = cross_entropy(self.forward(images), labels)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
        self.optimiser.step()
        return mean(loss.detach()) if self.distributed else loss.detach()

    def error(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Return the network's error rate (`error_rate`), computed as precisely as it is trained."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16):
            return error_rate(self.network, images, labels)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on, but for the data."""
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "random": torch.get_rng_state(),
        }
        # Dropout draws where the network is.
        state["random_gpus"] = [torch.cuda.get_rng_state(gpu) for gpu in gpus(self.network)]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state_dict` was called.

        Raises
        ------
        ValueError
            If the state is another network's: nothing is changed.
        """
        require_same(self.network.state_dict(), state["network"], "the state")
        self.network.load_state_dict(state["network"])
        rates = [group["lr"] for group in self.optimiser.param_groups]
        self.optimiser.load_state_dict(state["optimiser"])
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"] = rate  # a tensor that a CUDA graph reads must stay where it is
        self.steps = state["steps"]
        torch.set_rng_state(state["random"])
        for gpu, random in zip(gpus(self.network), state["random_gpus"], strict=False):
            torch.cuda.set_rng_state(random, gpu)


def gpus(network: nn.Module) -> list[torch.device]:
    """Return the GPUs that a network is on."""
    return list(dict.fromkeys(p.device for p in network.parameters() if p.is_cuda))


def make_optimiser(network: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Return the optimiser of a schedule, with a group of its own for localisation networks."""
    groups = parameter_groups(network, schedule.learning_rate, schedule.localisation)
    on_gpu = bool(gpus(network))
    for group in groups:
        group["initial_lr"] = group["lr"]
        if on_gpu:
            group["lr"] = torch.tensor(group["lr"], device=group["params"][0].device)
    if schedule.optimiser == "sgd":
        return torch.optim.SGD(
            groups, momentum=0.9, weight_decay=schedule.weight_decay, fused=True
        )
    return torch.optim.AdamW(
        groups, weight_decay=schedule.weight_decay, capturable=on_gpu, fused=True
    )


def train(
    network: nn.Module,
    data: Data,
    schedule: Schedule,
    after_step: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Train a classifier in place.

    Parameters
    ----------
    network : torch.nn.Module
        From images to logits. The localisation networks of its spatial transformers learn at a lower rate.
    data : callable
        From a step, counted from 0, to its images and labels, such as `DistortedDigits`.
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
    >>> len(train(nn.Linear(2, 2), lambda step: (torch.eye(2), torch.tensor([0, 1])), Schedule(iterations=3)))
    3
    """
    trainer, losses = Trainer(network, schedule), []
    network.train()
    while trainer.steps < schedule.iterations:
        loss = trainer.step(*data(trainer.steps)).item()
        require_finite(loss, trainer.steps)
        losses.append(loss)
        after_step(trainer.steps, loss)
    return losses


def require_finite(loss: float, step: int) -> None:
    """Raise unless a loss is a finite number."""
    if not abs(loss) < float("inf"):
        raise FloatingPointError(
            f"the loss is {loss} at step {step}; a lower learning rate usually helps"
        )


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
