"""What a training shows as it goes: a bar or lines, curves for TensorBoard, pictures (chapter 5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from .._extras import require
from .loop import Data, Trainer

TRIED = 5  # steps that are timed
MEMORY = 0.98  # of the loss that a bar shows, a running mean


def line(entry: dict[str, Any], batch: int) -> str:
    """Return what an evaluation found, in a line.

    Parameters
    ----------
    entry : dict
        As `stnlib.training.fit` keeps it.
    batch : int
        Images a step.

    Returns
    -------
    str
        The spread of theta is the smallest, of several transformers: see `stnlib.training.watch.statistics`.

    Examples
    --------
    >>> found = {"transformer": {"spread": 0.081, "outside": 0.0}}
    >>> line({"steps": 500, "seconds": 8.0, "loss": 0.51, "error": 7.5, "transformers": found}, batch=128)
    'step 500: loss 0.5100, error 7.50 %, spread of theta 0.081, 8,000 images/s'
    """
    parts = [f"loss {entry['loss']:.4f}", f"error {entry['error']:.2f} %"]
    if entry["transformers"]:
        parts.append(f"spread of theta {spread(entry):.3f}")
    parts.append(f"{entry['steps'] * batch / entry['seconds']:,.0f} images/s")
    return f"step {entry['steps']}: {', '.join(parts)}"


def spread(entry: dict[str, Any]) -> float:
    """Return the smallest spread of theta that an evaluation found: that of the transformer most likely to be dead."""
    return min(found["spread"] for found in entry["transformers"].values())


class Progress:
    """A bar on a terminal; elsewhere a line an evaluation.

    Its methods `after_step` and `observe` are what `stnlib.training.fit` takes as ``after_step`` and among its
    ``observers``. It is used in a `with` block.

    Parameters
    ----------
    title : str
        What trains.
    console : rich.console.Console
        Where it is shown, such as one on stderr.

    Examples
    --------
    >>> from rich.console import Console
    >>> with Progress("st-fcn/affine/R, seed 0", Console()) as progress:
    ...     progress.say("nothing happened")
    nothing happened
    """

    def __init__(self, title: str, console: Any) -> None:
        rich = require("rich.progress", "train", "stnlib.training.progress")
        self.console = console
        self.bar = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.fields[said]}"),
            rich.TimeRemainingColumn(),
            console=console,
            refresh_per_second=2,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(title, total=None, said="")
        self.loss, self.found = 0.0, ""
        self.begun: tuple[int, float] | None = None  # at which step, and when

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def after_step(self, trainer: Trainer, loss: float) -> None:
        """Move the bar on by a step."""
        if self.bar.disable:
            return
        if self.begun is None:  # what a checkpoint brought was not done now
            self.begun, self.loss = (trainer.steps - 1, time.perf_counter()), loss
            total = trainer.schedule.iterations
            self.bar.reset(self.task, total=total, completed=trainer.steps - 1)
        self.loss = MEMORY * self.loss + (1 - MEMORY) * loss
        images = (trainer.steps - self.begun[0]) * trainer.schedule.batch
        speed = images / (time.perf_counter() - self.begun[1] + 1e-9)
        self.bar.update(
            self.task,
            completed=trainer.steps,
            said=f"loss {self.loss:.4f}{self.found}, {speed:,.0f} images/s",
        )

    def observe(self, trainer: Trainer, entry: dict[str, Any]) -> None:
        """Show what an evaluation found."""
        if self.bar.disable:
            self.say(line(entry, trainer.schedule.batch))
            return
        self.found = f", error {entry['error']:.2f} %"
        if entry["transformers"]:
            self.found += f", spread {spread(entry):.3f}"

    def say(self, sentence: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(sentence, markup=False, highlight=False, soft_wrap=True)


class TensorBoard:
    """Curves for TensorBoard: loss, error, learning rate, and what each transformer does.

    Parameters
    ----------
    folder : Path
        Where the events go: ``tensorboard --logdir`` it.

    Raises
    ------
    ModuleNotFoundError
        If tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "--tensorboard needs tensorboard, which is not installed: pip install tensorboard"
            ) from None
        self.writer = SummaryWriter(str(folder))

    def __call__(self, trainer: Trainer, entry: dict[str, Any]) -> None:
        """Add a point to each curve: an observer of `stnlib.training.fit`."""
        values = {
            "loss": entry["loss"],
            "error": entry["error"],
            "learning_rate": float(trainer.optimiser.param_groups[0]["lr"]),
        }
        for name, found in entry["transformers"].items():
            values |= {f"{name}/{what}": value for what, value in found.items()}
        for name, value in values.items():
            self.writer.add_scalar(name, value, entry["steps"])
        self.writer.flush()


class Pictures:
    """A picture of the transformer at work, a file an evaluation: inputs with the grid on them, and the outputs.

    Parameters
    ----------
    folder : Path
        Where they go, as ``000500.png``.
    images : tensor, shape (N, 1, H, W)
        What is shown to the network.
    """

    def __init__(self, folder: Path, images: torch.Tensor) -> None:
        self.folder, self.images = folder, images
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, trainer: Trainer, entry: dict[str, Any]) -> None:
        """Draw one: an observer of `stnlib.training.fit`."""
        from ..plotting import training as figures

        outputs, grids = seen(trainer.network, self.images)
        with figures.on_white():
            figure = figures.inputs_and_outputs(self.images.numpy(force=True), outputs, grids)
            figures.save(figure, self.folder / f"{entry['steps']:06d}.png")


@torch.no_grad()
def seen(network: torch.nn.Module, images: torch.Tensor) -> tuple[Any, Any]:
    """Return what the transformer at a network's entrance makes of images, and where it reads them.

    Parameters
    ----------
    network : torch.nn.Module
        Its ``transformer`` is a `SpatialTransformer`, as in `STFCN` and `STCNN`.
    images : tensor, shape (N, C, H, W)

    Returns
    -------
    outputs : NumPy array, shape (N, C, H_out, W_out)
    grids : NumPy array, shape (N, H_out, W_out, 2)
        Normalised coordinates.

    Raises
    ------
    ValueError
        If the network has no such transformer.

    Examples
    --------
    >>> from stnlib.nn.models import STCNN
    >>> outputs, grids = seen(STCNN(), torch.rand(3, 1, 42, 42))
    >>> outputs.shape, grids.shape
    ((3, 1, 28, 28), (3, 28, 28, 2))
    """
    transformer: Any = getattr(network, "transformer", None)
    if transformer is None:
        raise ValueError(
            f"network: expected one with a spatial transformer, got {type(network).__name__}, which has none to show"
        )
    outputs, theta = transformer(images, return_theta=True)
    corners = transformer.options["align_corners"]
    grids = transformer.transform.grid(
        theta.double(), tuple(outputs.shape[2:]), align_corners=corners
    )
    return outputs.numpy(force=True), grids.numpy(force=True)


def iterations_within(
    seconds: float,
    trainer: Trainer,
    data: Data,
    a_chunk: int = 1,
    evaluate: Callable[[], Any] | None = None,
    every: int = 500,
) -> int:
    """Return how many iterations are expected to fit into a time, from a few that are measured.

    Parameters
    ----------
    seconds : float
    trainer : Trainer
        Takes a few steps: one that is not needed afterwards.
    data : callable
        As for `stnlib.training.fit`.
    a_chunk : int, default 1
        Steps whose images ``data`` makes at once, such as `DistortedDigits.steps`.
    evaluate : callable, optional
        What also takes time, once in so many steps as ``every`` says.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> from stnlib.training import Schedule
    >>> data = lambda step: (torch.eye(2), torch.tensor([0, 1]))
    >>> iterations_within(1e-9, Trainer(torch.nn.Linear(2, 2), Schedule(1)), data)
    1
    """

    def step(number: int) -> None:
        trainer.step(*data(number)).item()  # which waits for a GPU

    step(0)
    if evaluate is not None:
        evaluate()  # what is compiled at the first time
    start = time.perf_counter()
    data(a_chunk)
    made = time.perf_counter()
    for number in range(TRIED):
        step(a_chunk + number % a_chunk)
    trained = time.perf_counter()
    a_step = (trained - made) / TRIED
    if a_chunk > 1:
        a_step += (made - start) / a_chunk
    if evaluate is not None:
        evaluate()
        a_step += (time.perf_counter() - trained) / every
    return max(1, int(seconds / a_step))
