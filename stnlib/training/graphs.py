"""The steps of small networks on a GPU without Python between them: CUDA graphs, and many networks at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from .digits import DistortedDigits
from .loop import Trainer, require_finite
from .schedule import Schedule

WARM_UP = 3  # steps that a graph's memory and cuDNN's choices take to settle
LOOK = 64  # steps from one look at the losses to the next


class GraphTrainer(Trainer):
    """A trainer whose step is recorded once, and then replayed by the GPU with one launch.

    Parameters
    ----------
    network : torch.nn.Module
        On a GPU.
    schedule : Schedule
    bfloat16 : bool, default False
        As for `Trainer`.
    stream : torch.cuda.Stream, optional
        Where all of its work goes; by default, a new one.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        *,
        bfloat16: bool = False,
        stream: Any = None,
    ) -> None:
        self.stream = torch.cuda.Stream() if stream is None else stream
        self.graph: Any = None
        self.taken = 0
        with torch.cuda.stream(self.stream):
            super().__init__(network, schedule, bfloat16=bfloat16)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Take one step on the trainer's stream, and return the loss before it, which the next step overwrites."""
        with torch.cuda.stream(self.stream):
            if self.graph is None and self.taken >= WARM_UP:
                self._record(images, labels)
            self.set_rate()
            if self.graph is None:
                self.loss = self.update(images, labels)
            else:
                self.images.copy_(images)
                self.labels.copy_(labels)
                self.graph.replay()
            self.steps += 1
            self.taken += 1
            return self.loss

    def _record(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Record a step; none is taken."""
        self.images, self.labels = images.clone(), labels.clone()
        self.optimiser.zero_grad()
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            self.loss = self.update(self.images, self.labels)
        self.graph = graph

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where `state_dict` was called; the next steps are recorded anew."""
        super().load_state_dict(state)
        self.graph, self.taken = None, 0


def train_together(
    trainers: Sequence[GraphTrainer],
    data: Sequence[DistortedDigits],
    look: Callable[[int, list[float]], None] = lambda steps, losses: None,
) -> None:
    """Train several networks at once on one GPU, each step by step, from their data.

    Parameters
    ----------
    trainers : sequence of GraphTrainer
        Of one schedule.
    data : sequence of DistortedDigits
        One for each trainer. Trainers that share an object get the same batches, which are made once.
    look : callable, optional
        Called now and then, and at the end, with the number of steps done and each trainer's loss.

    Raises
    ------
    FloatingPointError
        If a loss is no longer a finite number.
    """
    iterations, streams = trainers[0].schedule.iterations, {t.stream for t in trainers}
    here = torch.cuda.current_stream()
    for step in range(trainers[0].steps, iterations):
        fresh = step % data[0].steps == 0 or step == trainers[0].steps
        if (
            fresh
        ):  # what the streams still read is not overwritten, and what is new is waited for
            for stream in streams:
                here.wait_stream(stream)
        batches = {id(each): each(step) for each in data}
        if fresh:
            for stream in streams:
                stream.wait_stream(here)
        for trainer, each in zip(trainers, data, strict=True):
            trainer.step(*batches[id(each)])
        if (step + 1) % LOOK == 0 or step + 1 == iterations:
            for stream in streams:
                here.wait_stream(stream)
            losses = torch.stack([trainer.loss for trainer in trainers]).tolist()
            for loss in losses:
                require_finite(loss, step + 1)
            look(step + 1, losses)
