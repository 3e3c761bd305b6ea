"""`stnlib reproduce`: the paper's experiments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ._options import (
    PATH,
    WHOLE,
    click,
    device,
    one_sentence,
    require_device,
    seconds,
    typed,
)


@click.group(short_help="Repeat the paper's experiments.")
def reproduce() -> None:
    """Repeat the paper's experiments, and keep a record of each run."""


@reproduce.command()
@click.option(
    "--cells",
    multiple=True,
    default=("*",),
    help="Patterns of model/transform/data, such as 'st-*/RTS' or 'cnn/*'. May be given several times. "
    "Usual: all 36.",
)
@click.option(
    "--seeds", type=WHOLE, default=3, show_default=True, help="Runs a cell: 0, 1 and so on."
)
@device
@click.option(
    "--iterations", type=WHOLE, help="Steps a run. Usual: those of the device and the model."
)
@click.option("--batch", type=WHOLE, help="Images a step. Usual: 128 on a CPU, 256 on a GPU.")
@click.option("--learning-rate", type=float, help="At its peak. Usual: 0.006.")
@click.option(
    "--budget",
    callback=seconds,
    help="Time a run on a CPU, such as 90s, 10m or 2h, in the place of iterations.",
)
@click.option(
    "--paper-schedule",
    is_flag=True,
    help="150,000 steps of SGD on 256 images, the rate 0.01, a tenth of it after each third, no clipping. "
    "How much more slowly the localisation networks learn, the paper does not say: 0.3, as here.",
)
@click.option(
    "--jobs", type=int, default=1, show_default=True, help="Processes on a CPU; -1: one a core."
)
@click.option(
    "--dask", metavar="ADDRESS", help="Train on a Dask cluster, such as tcp://10.0.0.1:8786."
)
@click.option("--output", **PATH, default="results/table1.json", show_default=True)
def table1(
    cells: Sequence[str],
    seeds: int,
    device: str,
    output: Path,
    jobs: int,
    budget: float | None,
    paper_schedule: bool,
    dask: str | None,
    **options: Any,
) -> None:
    """Table 1: distorted MNIST, four networks, three families of transforms.

    Each run adds a record to the output as it ends. What the file holds already is not run again: the same command goes
    on after a break.

    \b
    stnlib reproduce table1 --cells 'st-fcn/affine/R' --seeds 1 --budget 2m     a first look
    stnlib reproduce table1 --cells '*/TC' --cells 'cnn/*' --jobs 2
    stnlib reproduce table1 --device cuda                                       all of it
    stnlib reproduce table1 --device cuda --paper-schedule --output results/paper_schedule.json
    stnlib reproduce table1 --budget 10m --dask tcp://10.0.0.1:8786
    """  # noqa: D301
    given = {name for name, value in options.items() if value is not None}
    if budget is not None:
        given.add("budget")
    if paper_schedule and given:
        raise click.UsageError(
            f"--paper-schedule sets --{min(given).replace('_', '-')} too: leave one of them out."
        )
    if {"budget", "iterations"} <= given:
        raise click.UsageError("--budget and --iterations say the same: leave one of them out.")
    with one_sentence():
        from ..experiments import table1
        from ..experiments.training_run import PAPER_SCHEDULE

        require_device(device)
        schedules = table1.schedules(device, **options)
        if paper_schedule:
            schedules = dict.fromkeys(schedules, PAPER_SCHEDULE)
        table1.reproduce(
            table1.chosen(cells),
            range(seeds),
            schedules,
            device=device,
            path=output,
            command=typed(),
            n_jobs=jobs,
            budget=budget,
            dask=dask,
            tell=lambda r: print(table1.line(r), flush=True),
        )
