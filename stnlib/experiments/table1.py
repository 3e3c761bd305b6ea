"""Table 1 of the paper: four networks and three families on five kinds of distorted digits (chapter 7).

    stnlib reproduce table1

trains every cell from several seeds and adds a record of each run to ``results/table1.json``. Runs that the file
already holds are not repeated.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import transforms
from .._extras import require
from ..data import distortions, mnist

require("torch", "train", "stnlib.experiments.table1")

import torch  # noqa: E402
from torch import nn  # noqa: E402

from ..nn.models import MODELS, count_parameters  # noqa: E402
from ..training.digits import DistortedDigits, distorted, split  # noqa: E402
from ..training.graphs import GraphTrainer, train_together  # noqa: E402
from ..training.loop import Trainer, require_finite  # noqa: E402
from ..training.progress import iterations_within  # noqa: E402
from ..training.schedule import Schedule  # noqa: E402
from . import records  # noqa: E402
from .sweep import Claims, run_all  # noqa: E402

RESULTS = Path("results/table1.json")
DATA = {name: getattr(distortions, name) for name in ("R", "RTS", "P", "E", "TC")}
FAMILIES: dict[str, Callable[[], transforms.Family]] = {
    "affine": transforms.Affine,
    "projective": transforms.Projective,
    "tps": partial(transforms.ThinPlateSpline, 4, 4),
}
EVALUATIONS = 10  # of the validation set, a run
WAIT = 5.0  # seconds until a command looks again at what others do
STREAMS = 8  # of a GPU, on which the networks of a group take turns

PAPER = {
    ("fcn", None): (2.1, 5.2, 3.1, 3.2, 13.2),
    ("cnn", None): (1.2, 0.8, 1.5, 1.4, 3.5),
    ("st-fcn", "affine"): (1.2, 0.8, 1.5, 2.7, 2.0),
    ("st-fcn", "projective"): (1.3, 0.9, 1.4, 2.6, None),
    ("st-fcn", "tps"): (1.1, 0.8, 1.4, 2.4, None),
    ("st-cnn", "affine"): (0.7, 0.5, 0.8, 1.2, 1.7),
    ("st-cnn", "projective"): (0.8, 0.6, 0.8, 1.3, None),
    ("st-cnn", "tps"): (0.7, 0.5, 0.8, 1.1, None),
}
"""Percent of test digits misread, on R, RTS, P, E and TC: table 1 of Jaderberg et al. (2015)."""


@dataclass(frozen=True)
class Cell:
    """A cell of the table: a network, the family of its transformer, and the digits that it reads.

    Examples
    --------
    >>> str(Cell("st-fcn", "tps", "E")), str(Cell("cnn", None, "TC"))
    ('st-fcn/tps/E', 'cnn/TC')
    """

    model: str
    transform: str | None
    data: str

    def __str__(self) -> str:
        return "/".join(filter(None, (self.model, self.transform, self.data)))

    @property
    def names(self) -> tuple[str, str | None, str]:
        """The model, the transform and the data."""
        return self.model, self.transform, self.data

    @property
    def paper(self) -> float:
        """The paper's error, in percent."""
        error = PAPER[self.model, self.transform][list(DATA).index(self.data)]
        assert error is not None
        return error

    def network(self, seed: int) -> nn.Module:
        """Return the network, its weights drawn from a seed."""
        torch.manual_seed(seed)
        family = {} if self.transform is None else {"transform": FAMILIES[self.transform]()}
        return MODELS[self.model](DATA[self.data].size, **family)


CELLS = [
    Cell(model, transform, data)
    for (model, transform), errors in PAPER.items()
    for data, error in zip(DATA, errors, strict=True)
    if error is not None
]
"""The cells of the table, row by row."""


ITERATIONS = {
    "cpu": {"fcn": 10_000, "cnn": 3_000, "st-fcn": 40_000, "st-cnn": 4_000},
    "cuda": dict.fromkeys(MODELS, 40_000),
}
BATCH = {"cpu": 128, "cuda": 256}


def schedules(
    device: str,
    iterations: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
) -> dict[str, Schedule]:
    """Return the schedule of each model on a device; what is given takes the place of the usual."""
    return {
        model: Schedule(
            iterations or usual, batch or BATCH[device], learning_rate=learning_rate or 6e-3
        )
        for model, usual in ITERATIONS[device].items()
    }


def line(record: dict[str, Any]) -> str:
    """Return what a run reached, in a line.

    Examples
    --------
    >>> line({"model": "cnn", "transform": None, "data": "R", "seed": 0, "test_error": 1.3, "seconds": 61.0})
    'cnn/R, seed 0: 1.30 % of the test digits misread (paper: 1.2 %), after 61 s'
    """
    cell = Cell(record["model"], record["transform"], record["data"])
    return (
        f"{cell}, seed {record['seed']}: {record['test_error']:.2f} % of the test digits misread "
        f"(paper: {cell.paper} %), after {record['seconds']:.0f} s"
    )


def chosen(patterns: Sequence[str]) -> list[Cell]:
    """Return the cells whose names match one of some patterns, such as ``st-*/RTS`` or ``cnn/*``.

    Raises
    ------
    ValueError
        If a pattern matches none.

    Examples
    --------
    >>> [str(cell) for cell in chosen(["st-fcn/*/TC", "cnn/R*"])]
    ['cnn/R', 'cnn/RTS', 'st-fcn/affine/TC']
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(str(cell), pattern) for cell in CELLS):
            raise ValueError(
                f"cells: {pattern!r} matches none; the cells are {', '.join(map(str, CELLS))}"
            )
    return [c for c in CELLS if any(fnmatch.fnmatchcase(str(c), p) for p in patterns)]


def run_together(runs: Sequence[tuple[Cell, int]], schedule: Schedule) -> list[dict[str, Any]]:
    """Train cells of one kind of digits, each from a seed, all at once on a GPU, and measure them.

    Parameters
    ----------
    runs : sequence of (Cell, int)
        Of the same data; runs from one seed see the same digits, which are made once.
    schedule : Schedule

    Returns
    -------
    list of dict
        A record of each run (`measured`).
    """
    distortion = DATA[runs[0][0].data]
    training, validation = split()
    held_out = distorted(*validation, distortion, device="cuda")[:2]
    test = distorted(*mnist.load("test"), distortion, device="cuda")[:2]
    with ThreadPoolExecutor(2) as pool:
        options: dict[str, Any] = {"device": "cuda", "draw_with": pool}
        feeds = {
            seed: DistortedDigits(*training, distortion, schedule.batch, seed, **options)
            for seed in {seed for _, seed in runs}
        }
        streams = [torch.cuda.Stream() for _ in range(STREAMS)]
        trainers = [
            GraphTrainer(
                cell.network(seed).cuda(),
                schedule,
                bfloat16=cell.model == "cnn",
                stream=streams[i % len(streams)],
            )
            for i, (cell, seed) in enumerate(runs)
        ]
        curves: list[list[list[float]]] = [[] for _ in runs]
        start = time.perf_counter()

        def look(steps: int, losses: Sequence[float]) -> None:
            if len(curves[0]) < EVALUATIONS * steps // schedule.iterations:
                spent = time.perf_counter() - start
                for curve, trainer, loss in zip(curves, trainers, losses, strict=True):
                    error = 100 * trainer.error(*held_out)
                    curve.append([steps, round(spent, 2), round(loss, 4), round(error, 2)])

        train_together(trainers, [feeds[seed] for _, seed in runs], look)
    seconds = (time.perf_counter() - start) / len(runs)
    return [
        measured(cell, seed, trainer, curve, test, seconds)
        for (cell, seed), trainer, curve in zip(runs, trainers, curves, strict=True)
    ]


def run_alone(
    cell: Cell, seed: int, schedule: Schedule, budget: float | None = None
) -> dict[str, Any]:
    """Train one cell from one seed on a thread of a CPU, and measure it: a record of the run (`measured`).

    With a budget, in seconds, as many iterations as are expected to fit take the place of the schedule's.
    """
    torch.set_num_threads(1)
    distortion = DATA[cell.data]
    training, validation = split()
    held_out = distorted(*validation, distortion)[:2]
    data = DistortedDigits(*training, distortion, schedule.batch, seed)
    bfloat16 = cell.model.endswith("cnn")
    if budget is not None:
        tried = Trainer(cell.network(seed), schedule, bfloat16=bfloat16)
        schedule = replace(
            schedule, iterations=iterations_within(budget, tried, data, data.steps)
        )
    trainer = Trainer(cell.network(seed), schedule, bfloat16=bfloat16)
    curve: list[list[float]] = []
    start = time.perf_counter()
    for step in range(schedule.iterations):
        loss = trainer.step(*data(step)).item()
        require_finite(loss, step + 1)
        if EVALUATIONS * (step + 1) // schedule.iterations > len(curve):
            error = 100 * trainer.error(*held_out)
            spent = round(time.perf_counter() - start, 2)
            curve.append([step + 1, spent, round(loss, 4), round(error, 2)])
    seconds = time.perf_counter() - start
    test = distorted(*mnist.load("test"), distortion)[:2]
    return measured(cell, seed, trainer, curve, test, seconds)


def measured(
    cell: Cell,
    seed: int,
    trainer: Trainer,
    curve: Sequence[Sequence[float]],
    test: Sequence[torch.Tensor],
    seconds: float,
) -> dict[str, Any]:
    """Return the record of a run; only here does it meet the test set.

    Its ``curve`` holds, for some moments of the training, the steps done, the seconds that had passed, the loss of the
    step, and the error in percent on the validation set. On a GPU, ``seconds`` is the run's share of the time that all
    who trained at once took, and the curve's seconds are theirs together.
    """
    return {
        "model": cell.model,
        "transform": cell.transform,
        "data": cell.data,
        "seed": seed,
        "test_error": round(100 * trainer.error(*test), 2),
        "parameters": count_parameters(trainer.network),
        "seconds": round(seconds, 1),
        "iterations": trainer.steps,
        "schedule": asdict(trainer.schedule),
        "bfloat16": trainer.bfloat16,
        "curve": [list(point) for point in curve],
    }


def reproduce(
    cells: Sequence[Cell],
    seeds: Sequence[int],
    schedules: Mapping[str, Schedule],
    *,
    device: str = "cpu",
    path: Path = RESULTS,
    command: str = "",
    n_jobs: int = 1,
    dask: str | None = None,
    budget: float | None = None,
    tell: Callable[[dict[str, Any]], None] = lambda record: None,
) -> None:
    """Run what a file of records does not hold yet, and add each run to it as it is done.

    Several commands may share a file. What one of them is at, the others leave to it; only if it comes to nothing, as
    when that command is killed, do they run it themselves. All of this is decided where the commands are, just before a
    run starts: a cluster's workers need not see the file.

    Parameters
    ----------
    cells : sequence of Cell
    seeds : sequence of int
    schedules : mapping from a model's name to its Schedule
    device : {"cpu", "cuda"}
        On a GPU, all cells of one kind of digits train at once.
    path : Path
    command : str
        What is said in the records to have made them.
    n_jobs : int
        Processes on a CPU, each of one thread.
    dask : str, optional
        The address of a Dask cluster, to run on in their place: `stnlib.experiments.sweep.run_all`.
    budget : float, optional
        Seconds a run on a CPU, in the place of the schedules' iterations.
    tell : callable, optional
        Called with each new record.

    Raises
    ------
    ChildProcessError
        If runs have failed on a CPU, when all others are done.
    ValueError
        If the file is not one of records; or a GPU is asked for with a cluster, or with a budget.
    """
    if device == "cuda" and (dask is not None or budget is not None):
        raise ValueError("device: a cluster or a budget in time is for 'cpu', got 'cuda'")
    about = {"device": device, "budget": budget, "command": command}
    wanted = {
        _key(cell, seed, schedules[cell.model], device, budget): (cell, seed)
        for cell in cells
        for seed in seeds
    }

    def left() -> list[tuple[Any, ...]]:
        known = {key(r) for r in records.read(path, list)} if path.exists() else set()
        return [run for run in wanted if run not in known]

    with Claims(path) as claims:

        def mine(runs: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
            for run in runs:
                if claims.take(run):
                    if run in left():
                        yield run
                    else:
                        claims.release(run)

        def jobs() -> Iterator[tuple[str, Sequence[Any]]]:
            for run in mine(left()):
                cell, seed = wanted[run]
                options = (cell, seed, schedules[cell.model], budget)
                yield f"{cell}, seed {seed}", (run_alone, options, about)

        def on_gpu() -> Iterator[list[dict[str, Any]]]:
            for group in groups(wanted[run][0] for run in left()):
                runs = mine(run for run in left() if wanted[run][0] in group)
                if together := [wanted[run] for run in runs]:
                    schedule = schedules[group[0].model]
                    yield _recorded(run_together, (together, schedule), about)

        while left():
            came = False
            come = on_gpu() if device == "cuda" else run_all(_recorded, jobs(), n_jobs, dask)
            for found in come:
                came = True
                records.add(path, found)
                for record in found:
                    claims.release(key(record))
                    tell(record)
            if not came:
                time.sleep(WAIT)


def _recorded(
    run: Callable[..., Any], options: Sequence[Any], about: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the records of what is run here, and where that was."""
    found = run(*options)
    here = {"hardware": hardware(about["device"]), "versions": records.environment()}
    return [record | about | here for record in (found if isinstance(found, list) else [found])]


def hardware(device: str) -> str:
    """Return the name of what trains."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    environment = records.environment()
    return f"1 thread of {environment['cores']} cores, {environment['processor']}"


def key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what makes a run the same run as another: what it trains, from which seed, how, how long, and on what."""
    cell = Cell(record["model"], record["transform"], record["data"])
    schedule = Schedule(**record["schedule"])
    return _key(cell, record["seed"], schedule, record["device"], record.get("budget"))


def _key(
    cell: Cell, seed: int, schedule: Schedule, device: str, budget: float | None
) -> tuple[Any, ...]:
    if budget is not None:  # as many iterations as fit, each time others
        schedule = replace(schedule, iterations=1)
    return cell.names, seed, schedule, device, budget


def groups(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Return cells in lists, one for each kind of digits, each cell once."""
    cells = set(cells)
    found = [[cell for cell in CELLS if cell in cells and cell.data == data] for data in DATA]
    return [group for group in found if group]
