"""A training of one of the paper's networks, from what is asked for to the files in its folder (chapter 7).

``run.json``, beside the checkpoint and the weights, says what is needed to build the network again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import transforms
from .._extras import require
from ..data import distortions, mnist

require("torch", "train", "stnlib.experiments.training_run")

import torch  # noqa: E402
from torch import nn  # noqa: E402

from ..nn.models import CLASSES, MODELS  # noqa: E402
from ..nn.weights import load_weights  # noqa: E402
from ..training.digits import DistortedDigits, distorted, split  # noqa: E402
from ..training.distributed import from_first  # noqa: E402
from ..training.fit import BEST, CHECKPOINT, WEIGHTS, fit  # noqa: E402
from ..training.loop import Trainer  # noqa: E402
from ..training.progress import iterations_within  # noqa: E402
from ..training.schedule import Schedule  # noqa: E402
from . import records  # noqa: E402
from .table1 import DATA, FAMILIES, PAPER, Cell, hardware  # noqa: E402

RECORD = "run.json"
POSES = 4  # between which a digit moves

PAPER_SCHEDULE = Schedule(
    150_000,
    batch=256,
    learning_rate=0.01,
    warm_up=1 / 150_000,
    clip=float("inf"),
    optimiser="sgd",
    decay="steps",
    weight_decay=0.0,
)
"""Of appendix A.3 of Jaderberg et al. (2015), which does not say how much more slowly the localisation networks learn:
the factor is ours. The warm-up of one step is none."""


@dataclass(frozen=True)
class TrainingRun:
    """What a training is: a cell of table 1, a seed, and how it learns.

    Parameters
    ----------
    cell : Cell
    seed : int
        Of the weights and of the digits.
    schedule : Schedule
        With a budget, its iterations are those that were measured to fit, once: see `planned`.
    device : {"cpu", "cuda"}
    bfloat16 : bool
        As for `Trainer`.
    budget : float, optional
        Seconds that were asked for, in the place of iterations.

    Examples
    --------
    >>> run = TrainingRun(cell("st-fcn", None, "R"), 0, Schedule(100))
    >>> str(run), run.folder
    ('st-fcn/affine/R, seed 0', PosixPath('runs/st-fcn-affine-R-0'))
    """

    cell: Cell
    seed: int
    schedule: Schedule
    device: str = "cpu"
    bfloat16: bool = False
    budget: float | None = None

    def __str__(self) -> str:
        return f"{self.cell}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Where it goes if nobody says otherwise."""
        return Path("runs", f"{self.cell}-{self.seed}".replace("/", "-"))

    @property
    def configuration(self) -> dict[str, Any]:
        """What must be the same when the training goes on, besides the schedule."""
        rest = ("seed", "device", "bfloat16", "budget")
        return asdict(self.cell) | {name: getattr(self, name) for name in rest}

    def digits(
        self,
        device: torch.device | str = "cpu",
        share: tuple[int, int] = (0, 1),
        draw_with: ThreadPoolExecutor | None = None,
    ) -> DistortedDigits:
        """Return the digits to train on: as for `DistortedDigits`."""
        return DistortedDigits(
            *split()[0],
            DATA[self.cell.data],
            self.schedule.batch,
            self.seed,
            device=device,
            share=share,
            draw_with=draw_with,
        )

    def trainer(
        self,
        device: torch.device | str = "cpu",
        *,
        compile: bool = False,
        distributed: bool = False,
    ) -> Trainer:
        """Return a trainer of the network, its weights drawn from the seed."""
        return Trainer(
            self.cell.network(self.seed).to(device),
            self.schedule,
            bfloat16=self.bfloat16,
            compile=compile,
            distributed=distributed,
        )

    def held_out(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Return the 5,000 distorted digits of the training set on which it is validated."""
        return distorted(*split()[1], DATA[self.cell.data], device=device)[:2]

    def record(self) -> dict[str, Any]:
        """Return what `read` makes the run of again."""
        return self.configuration | {"schedule": asdict(self.schedule)}


def cell(model: str, transform: str | None, data: str) -> Cell:
    """Return a cell, of the table or beside it; a network with a transformer has an affine one by default.

    Raises
    ------
    ValueError
        If there is no such network, transform or data.

    Examples
    --------
    >>> str(cell("st-cnn", None, "E")), str(cell("st-fcn", "tps", "TC"))
    ('st-cnn/affine/E', 'st-fcn/tps/TC')
    """
    for name, value, known in (
        ("model", model, MODELS),
        ("transform", transform, (*FAMILIES, None)),
        ("data", data, DATA),
    ):
        if value not in known:
            raise ValueError(
                f"{name}: expected {', '.join(str(k) for k in known if k)}, got {value!r}"
            )
    if not model.startswith("st-"):
        if transform is not None:
            raise ValueError(
                f"transform: {model} has no transformer, so it takes none, got {transform!r}; st-{model} has one"
            )
        return Cell(model, None, data)
    return Cell(model, transform or "affine", data)


def planned(
    run: TrainingRun, folder: Path, measure: Callable[[TrainingRun], int]
) -> TrainingRun:
    """Return a run with its number of iterations: with a budget, what the folder keeps, or what is measured now.

    The folder then keeps it, in ``run.json``, unless there is a checkpoint: that is of the run that began there.

    Parameters
    ----------
    run : TrainingRun
    folder : Path
    measure : callable
        From the run to the iterations that fit into its budget.

    Returns
    -------
    TrainingRun

    Raises
    ------
    OSError, ValueError
        If ``run.json`` cannot be written, or is not whole.
    """
    path, begun = folder / RECORD, (folder / CHECKPOINT).exists()
    if run.budget is not None:
        kept = read(path)[0] if path.exists() else None
        if kept is not None and (begun or kept.budget == run.budget):
            iterations = kept.schedule.iterations
        else:
            iterations = measure(run)
        run = replace(run, schedule=replace(run.schedule, iterations=iterations))
    if not begun:
        records.write(path, run.record() | {"versions": records.environment()})
    return run


def train(
    run: TrainingRun,
    folder: Path,
    session: tuple[int, int, torch.device],
    *,
    every: int = 500,
    patience: int | None = None,
    compile: bool = False,
    after_step: Callable[[Trainer, float], None] = lambda trainer, loss: None,
    observers: Callable[
        [tuple[torch.Tensor, torch.Tensor]],
        Sequence[Callable[[Trainer, dict[str, Any]], None]],
    ] = lambda held_out: (),
) -> list[dict[str, Any]]:
    """Train, or go on with a training, to the end.

    Parameters
    ----------
    run : TrainingRun
    folder : Path
        What `stnlib.training.fit` keeps goes there, and ``run.json``.
    session : (rank, world, device)
        Of `stnlib.training.distributed.session`.
    every, patience, after_step
        As for `stnlib.training.fit`.
    compile : bool, default False
        As for `Trainer`.
    observers : callable
        From the images held out, and their labels, to the observers of `stnlib.training.fit`.

    Returns
    -------
    list of dict
        An entry for each evaluation.

    Raises
    ------
    FloatingPointError, OSError, ValueError
        As `stnlib.training.fit`.
    """
    rank, world, device = session
    distributed = world > 1
    held_out = run.held_out(device)

    def measure(run: TrainingRun) -> int:
        trainer = run.trainer(device, compile=compile)
        data = run.digits(device, (rank, world))
        return iterations_within(
            run.budget or 0.0,
            trainer,
            data,
            data.steps,
            lambda: trainer.error(*held_out),
            every,
        )

    def plan() -> TrainingRun:
        return planned(run, folder, measure)

    run = from_first(plan) if distributed else plan()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2)) if device.type == "cuda" else None
        return fit(
            run.trainer(device, compile=compile, distributed=distributed),
            run.digits(device, (rank, world), pool),
            held_out,
            folder,
            run.configuration,
            every=every,
            patience=patience,
            after_step=after_step,
            observers=observers(held_out),
        )


def read(path: Path) -> tuple[TrainingRun, dict[str, Any]]:
    """Read a run from its ``run.json``.

    Returns
    -------
    run : TrainingRun
    record : dict
        All that the file holds.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If it does not hold a run.
    """
    record = records.read(path)
    try:
        of = cell(*(record[name] for name in ("model", "transform", "data")))
        rest = {name: record[name] for name in ("seed", "device", "bfloat16", "budget")}
        return TrainingRun(of, schedule=Schedule(**record["schedule"]), **rest), record
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a training run ({error})") from None


def load(path: Path, device: str = "cpu") -> tuple[TrainingRun, nn.Module]:
    """Return a run and its trained network, from its folder or from one of the files of weights in it.

    Parameters
    ----------
    path : Path
        Of a folder, ``weights.safetensors`` is read.
    device : {"cpu", "cuda"}

    Returns
    -------
    run : TrainingRun
    network : torch.nn.Module
        In evaluation mode.

    Raises
    ------
    FileNotFoundError
        If there are no weights, or no ``run.json`` beside them.
    ValueError
        If one of them is not whole, or they do not fit each other.
    """
    weights = path / WEIGHTS if path.is_dir() else path
    if not weights.exists():
        raise FileNotFoundError(_missing(path, weights))
    if not (about := weights.with_name(RECORD)).exists():
        raise FileNotFoundError(
            f"{about}, which says what network the weights are of, is not there; `stnlib train` writes both"
        )
    run, _ = read(about)
    network = run.cell.network(run.seed)
    load_weights(network, weights)
    if run.bfloat16:  # as the Trainer computes
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return run, network.to(device).eval()


def _missing(path: Path, weights: Path) -> str:
    """Say what is missing, and what there is instead."""
    if not path.exists():
        return f"{path} is not there; `stnlib train` makes such a folder"
    if (path / BEST).exists():
        return (
            f"{weights} is not there, since the training has not ended: go on with it, "
            f"or name {path / BEST}, its best so far"
        )
    return f"{weights} is not there: {path} holds no training that has ended"


@torch.no_grad()
def predictions(
    run: TrainingRun, network: nn.Module, images: torch.Tensor, batch: int = 1000
) -> np.ndarray:
    """Return which digits a run's network reads in images (N, 1, H, W), as precisely as it was trained: shape (N,)."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=run.bfloat16):
        read = [network(some).argmax(1) for some in images.split(batch)]
    return torch.cat(read).numpy(force=True)


def evaluate(
    run: TrainingRun, network: nn.Module, data: str | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """Return what a network makes of the 10,000 distorted test digits.

    Parameters
    ----------
    run : TrainingRun
    network : torch.nn.Module
    data : {"R", "RTS", "P", "E", "TC"}, optional
        By default, what it was trained on.
    device : {"cpu", "cuda"}

    Returns
    -------
    dict
        The run's ``model``, ``transform`` and ``seed``, and the data that it was ``trained_on``; ``data``, that of the
        test; how many ``digits`` it has; ``test_error``, in percent; ``paper``, the paper's, if it has one for such a
        run; ``confusion``, ten lists of ten: how often each digit was read as each; how many ``seconds`` that took, on
        which ``hardware``.

    Raises
    ------
    ValueError
        If those digits' frame is not the network's.
    """
    data = data or run.cell.data
    _require_frame(run, data)
    images, labels, _ = distorted(*mnist.load("test"), DATA[data], device=device)
    start = time.perf_counter()
    found = predictions(run, network, images)
    seconds = time.perf_counter() - start
    confusion = np.zeros((CLASSES, CLASSES), int)
    np.add.at(confusion, (labels.numpy(force=True), found), 1)
    paper = PAPER[run.cell.model, run.cell.transform][list(DATA).index(data)]
    return {
        "model": run.cell.model,
        "transform": run.cell.transform,
        "trained_on": run.cell.data,
        "data": data,
        "seed": run.seed,
        "digits": len(labels),
        "test_error": 100 * (len(labels) - int(confusion.trace())) / len(labels),
        "paper": paper if data == run.cell.data else None,
        "confusion": confusion.tolist(),
        "seconds": round(seconds, 2),
        "hardware": hardware(device),
    }


def _require_frame(run: TrainingRun, data: str) -> None:
    """Raise unless digits have the frame that a run's network reads."""
    ours, theirs = (DATA[name].size for name in (run.cell.data, data))
    if ours != theirs:
        raise ValueError(
            f"data: {data} has frames of {theirs[0]}×{theirs[1]} pixels, and the network, trained on {run.cell.data}, "
            f"reads {ours[0]}×{ours[1]}"
        )


def some_digits(run: TrainingRun, count: int) -> tuple[torch.Tensor, np.ndarray]:
    """Return the first distorted test digits of a run's kind, shape (count, 1, H, W), and their labels."""
    images, labels, _ = distorted(*mnist.load("test"), DATA[run.cell.data])
    return images[:count], labels[:count].numpy()


def moving_digits(run: TrainingRun, count: int, frames: int, seed: int = 0) -> torch.Tensor:
    """Return test digits that move through the frame as a run's distortion moves them, and end where they began.

    Each goes from pose to pose, of four that are drawn; between them it turns, grows and moves evenly, or bends.

    Parameters
    ----------
    run : TrainingRun
    count : int
        Digits.
    frames : int
    seed : int, default 0
        Of the poses.

    Returns
    -------
    tensor of float32, shape (frames, count, 1, H, W)
    """
    distortion = DATA[run.cell.data]
    digits = mnist.to_input(mnist.load("test")[0][:count])
    rng = np.random.default_rng(seed)
    poses = [distortion.theta(count, rng) for _ in range(POSES)]
    images = []
    for frame in range(frames):
        pose, part = divmod(POSES * frame / frames, 1)
        one, other = poses[int(pose)], poses[(int(pose) + 1) % POSES]
        part = (1 - np.cos(np.pi * part)) / 2  # it slows down at each pose
        images.append(distortion.apply(digits, between(distortion, one, other, part)))
    return torch.from_numpy(np.stack(images))


def between(
    distortion: distortions.BaseDistortion, one: np.ndarray, other: np.ndarray, part: float
) -> np.ndarray:
    """Return thetas of a distortion on the way from some to others: at part 0 one, at part 1 the other.

    Rotations, scales and places go evenly, each for itself; parameters of other families, each number for itself;
    clutter stays where it lies for one.

    Examples
    --------
    >>> there = [transforms.rotation(np.deg2rad([angle])) for angle in (-90, 90)]
    >>> between(distortions.R, *there, 0.5).round(6) + 0.0
    array([[[1., 0., 0.],
            [0., 1., 0.]]])
    """
    if one.dtype.names:
        theta = one.copy()
        theta["place"] += part * (other["place"] - one["place"])
        return theta
    if not isinstance(distortion, distortions.Distortion):
        return one + part * (other - one)
    return transforms.inverse(
        transforms.similarity(
            *(a + part * (b - a) for a, b in zip(_to_frame(one), _to_frame(other), strict=True))
        )
    )


def _to_frame(theta: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return scale, angle and place, x and y, of the digits that thetas (N, 2, 3) read, in a square frame."""
    matrix = transforms.inverse(theta)
    scale = np.hypot(matrix[:, 0, 0], matrix[:, 1, 0])
    angle = np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0])
    return scale, angle, matrix[:, 0, 2], matrix[:, 1, 2]
