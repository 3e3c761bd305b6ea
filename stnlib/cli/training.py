"""`stnlib train`, `evaluate` and `visualise`: one network, and what has become of it."""

from __future__ import annotations

import json as writer
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._extras import require
from ._options import (
    DATA,
    DECAYS,
    MODELS,
    OPTIMISERS,
    PATH,
    TRANSFORMS,
    WHOLE,
    Choice,
    click,
    device,
    one_sentence,
    require_device,
    seconds,
    threads,
)

SHOWN = 8  # digits in a picture
FRAMES = 32  # of an animation


@click.command(short_help="Train a network of the paper on distorted digits.")
@click.argument("model", type=Choice(MODELS))
@click.option(
    "--transform",
    type=Choice(TRANSFORMS),
    help="Of an st-fcn or st-cnn. Usual: affine; tps is a thin plate spline.",
)
@click.option(
    "--data",
    type=Choice(DATA),
    default="RTS",
    show_default=True,
    help="Digits rotated; also translated and scaled; projective; elastic; translated and cluttered.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of it all."
)
@click.option(
    "--iterations", type=WHOLE, help="Steps. Usual: those of table 1, by model and device."
)
@click.option(
    "--budget",
    callback=seconds,
    help="A time such as 90s, 10m or 2h. It is turned into iterations, once: the folder keeps them, and the same "
    "command again is the same run.",
)
@click.option("--batch", type=WHOLE, help="Images a step. Usual: 128 on a CPU, 256 on a GPU.")
@click.option("--learning-rate", type=float, help="At its peak. Usual: 0.006.")
@click.option(
    "--localisation", type=float, help="Factor on it for localisation networks. Usual: 0.3."
)
@click.option("--clip", type=float, help="Largest norm of the gradient. Usual: 1; inf: none.")
@click.option("--optimiser", type=Choice(OPTIMISERS), help="Usual: adamw.")
@click.option("--decay", type=Choice(DECAYS), help="How the rate falls. Usual: cosine.")
@click.option("--weight-decay", type=float, help="Usual: 0.01.")
@click.option(
    "--warm-up", type=float, help="Part of the steps in which the rate rises. Usual: 0.15."
)
@click.option("--bfloat16", is_flag=True, help="Compute so: where the processor has it.")
@click.option("--compile", is_flag=True, help="Through torch.compile.")
@device
@threads
@click.option(
    "--every",
    type=WHOLE,
    default=500,
    show_default=True,
    help="Steps from one evaluation, and checkpoint, to the next.",
)
@click.option(
    "--patience", type=WHOLE, help="Stop after so many evaluations without fewer errors."
)
@click.option("--tensorboard", is_flag=True, help="Curves, in the folder.")
@click.option(
    "--pictures/--no-pictures",
    default=None,
    help="Of the transformer at work, at each evaluation. Usual: if there is one, and matplotlib.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where all of it goes. Usual: such as runs/st-cnn-tps-E-0.",
)
def train(
    model: str,
    transform: str | None,
    data: str,
    seed: int,
    device: str,
    threads: int,
    folder: Path | None,
    budget: float | None,
    bfloat16: bool,
    tensorboard: bool,
    pictures: bool | None,
    every: int,
    patience: int | None,
    compile: bool,
    **schedule: Any,
) -> None:
    """Train a network of the paper on distorted digits: fcn, cnn, st-fcn or st-cnn.

    Nothing is lost: the folder keeps a checkpoint at each evaluation, and the same command goes on from it, to the same
    weights. It also keeps the weights, the best so far, and pictures. Errors are those on 5,000 digits of the training
    set that are held out; `stnlib evaluate` reads the test digits.

    \b
    stnlib train fcn --iterations 2000                           a first look
    stnlib train st-cnn --transform tps --data E --budget 10m
    stnlib train st-fcn --data TC --patience 10 --tensorboard
    stnlib train cnn --bfloat16 --threads 2 --folder runs/mine
    torchrun --nproc-per-node 2 -m stnlib train st-fcn           in two processes
    """  # noqa: D301
    given = {name: value for name, value in schedule.items() if value is not None}
    if budget is not None and "iterations" in given:
        raise click.UsageError("--budget and --iterations say the same: leave one of them out.")
    with one_sentence():
        torch = require("torch", "train", "stnlib train")
        from ..experiments import table1
        from ..experiments import training_run as runs
        from ..training.distributed import session

        require_device(device)
        torch.set_num_threads(threads)
        run = runs.TrainingRun(
            runs.cell(model, transform, data),
            seed,
            replace(table1.schedules(device)[model], **given),
            device,
            bfloat16,
            budget,
        )
        folder = folder or run.folder
        with session(device) as place, _shown(str(run), place[0] == 0) as progress:

            def observers(held_out: Any) -> list[Any]:
                if progress is None:
                    return []
                found = [progress.observe]
                if tensorboard:
                    from ..training.progress import TensorBoard

                    found.append(TensorBoard(folder / "tensorboard"))
                if _draws(pictures, run.cell.transform is not None):
                    from ..training.progress import Pictures

                    found.append(Pictures(folder / "pictures", held_out[0][:SHOWN]))
                return found

            try:
                history = runs.train(
                    run,
                    folder,
                    place,
                    every=every,
                    patience=patience,
                    compile=compile,
                    observers=observers,
                    **({"after_step": progress.after_step} if progress else {}),
                )
            except KeyboardInterrupt:
                if progress is not None:
                    progress.say(_how_to_go_on(folder, every))
                sys.exit(130)
    if progress is not None:
        reached = min(history, key=lambda e: e["error"]) if patience else history[-1]
        click.echo(
            f"{run}: {reached['error']:.2f} % of the digits held out misread, after {reached['steps']:,} steps; "
            f"stnlib evaluate {folder} reads the test digits"
        )


@contextmanager
def _shown(title: str, first: bool) -> Iterator[Any]:
    """Yield what shows a training on stderr, warnings included; in processes but the first, nothing."""
    from rich.console import Console

    from ..training import TrainingWarning
    from ..training.progress import Progress

    with warnings.catch_warnings():
        if not first:
            warnings.simplefilter("ignore", TrainingWarning)
            yield None
            return
        warnings.simplefilter("always", TrainingWarning)
        usual = warnings.showwarning
        with Progress(title, Console(stderr=True)) as progress:

            def show(message: Any, category: Any, *rest: Any, **more: Any) -> None:
                if issubclass(category, TrainingWarning):
                    progress.say(f"Warning: {message}")
                else:
                    usual(message, category, *rest, **more)

            warnings.showwarning = show
            yield progress


def _draws(asked: bool | None, has_transformer: bool) -> bool:
    """Return whether pictures are drawn; raise if they are asked for and cannot be."""
    if asked is False or (asked is None and not has_transformer):
        return False
    if not has_transformer:
        raise ValueError(
            "--pictures: there is no transformer to show; an st-fcn or an st-cnn has one"
        )
    try:
        _matplotlib("--pictures")
    except ModuleNotFoundError:
        if asked:
            raise
        return False
    return True


def _matplotlib(user: str) -> None:
    """Raise unless there is matplotlib; let it open no window."""
    require("matplotlib", "plot", user).use("Agg")


def _how_to_go_on(folder: Path, every: int) -> str:
    if (folder / "checkpoint.pt").exists():
        return f"Stopped. The same command goes on from the last checkpoint in {folder}."
    return (
        f"Stopped before the first evaluation, at step {every}: the same command starts anew."
    )


_trained = click.argument("path", metavar="FOLDER|WEIGHTS", type=click.Path(path_type=Path))


@click.command(short_help="Count the test digits that a network misreads.")
@_trained
@click.option("--data", type=Choice(DATA), help="Usual: what it was trained on.")
@click.option("--confusion", is_flag=True, help="Also: which digits are read as which.")
@click.option(
    "--json",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    callback=PATH["callback"],
    help="Write it all to a file; - is stdout, and nothing else then goes there.",
)
@device
@threads
def evaluate(
    path: Path,
    data: str | None,
    confusion: bool,
    json: Path | None,
    device: str,
    threads: int,
) -> None:
    """Read the 10,000 distorted test digits with a trained network, and count what it misreads.

    The folder is that of `stnlib train`; of the files of weights in it, one may be named.

    \b
    stnlib evaluate runs/st-cnn-tps-E-0
    stnlib evaluate runs/st-cnn-tps-E-0/best.safetensors --confusion
    stnlib evaluate runs/st-fcn-affine-R-0 --data P --json -
    """  # noqa: D301
    with one_sentence():
        torch = require("torch", "train", "stnlib evaluate")
        from ..experiments import records
        from ..experiments import training_run as runs

        require_device(device)
        torch.set_num_threads(threads)
        run, network = runs.load(path, device)
        found = runs.evaluate(run, network, data, device) | {"weights": str(path)}
        if json == Path("-"):
            click.echo(writer.dumps(found))
            return
        if json:
            records.write(json, found)
    said = f"{run}: {found['test_error']:.2f} % of {found['digits']:,} test digits misread"
    if found["data"] != found["trained_on"]:
        said += f", of {found['data']}"
    if found["paper"] is not None:
        said += f" (paper: {found['paper']} %)"
    click.echo(said)
    if confusion:
        click.echo("\n".join(_table(found["confusion"])))


def _table(confusion: Sequence[Sequence[int]]) -> Iterator[str]:
    """Yield the lines of a table: how often each digit is read as each."""
    yield "read as" + "".join(f"{digit:6}" for digit in range(len(confusion))) + "   misread"
    for digit, row in enumerate(confusion):
        wrong = 100 * (sum(row) - row[digit]) / max(sum(row), 1)
        yield f"{digit:7}" + "".join(f"{count:6}" for count in row) + f"{wrong:8.2f} %"


@click.command(short_help="Draw what a trained transformer does to digits.")
@_trained
@click.option(
    "--output",
    required=True,
    **PATH,
    help="A picture, .png, .svg or another; or an animation, .gif.",
)
@click.option(
    "--digits",
    type=click.IntRange(min=1, max=100),
    help="How many. Usual: 8, of an animation 4.",
)
@threads
def visualise(path: Path, output: Path, digits: int | None, threads: int) -> None:
    """Show what a trained transformer does to test digits: its grid drawn on them, and what comes out.

    A picture shows the first distorted test digits, and as what they are read. An animation shows a few that move
    through the frame in the ways in which they were distorted: what holds still in the output, the transformer has
    undone. That says more than the pictures of the training's evaluations, which `stnlib train` leaves in the folder.

    \b
    stnlib visualise runs/st-cnn-tps-E-0 --output digits.png --digits 24
    stnlib visualise runs/st-fcn-affine-RTS-0 --output digits.gif
    """  # noqa: D301
    with one_sentence():
        torch = require("torch", "train", "stnlib visualise")
        _matplotlib("stnlib visualise")
        import numpy as np

        from ..experiments import training_run as runs
        from ..plotting import training as figures
        from ..training.progress import seen

        torch.set_num_threads(threads)
        run, network = runs.load(path)
        if run.cell.transform is None:
            raise ValueError(
                f"{path}: {run.cell.model} has no transformer to show; st-{run.cell.model} has one"
            )
        with figures.on_white():
            if output.suffix.lower() == ".gif":
                inputs = runs.moving_digits(run, digits or SHOWN // 2, FRAMES)
                drawn = [seen(network, images) for images in inputs]
                outputs, grids = map(np.stack, zip(*drawn, strict=True))
                picture: Any = figures.moving(inputs.numpy(), outputs, grids)
            else:
                images, labels = runs.some_digits(run, digits or SHOWN)
                read = runs.predictions(run, network, images)
                titles = [
                    f"{label}" if label == answer else f"{label}, read as {answer}"
                    for label, answer in zip(labels, read, strict=True)
                ]
                picture = figures.inputs_and_outputs(
                    images.numpy(), *seen(network, images), titles, SHOWN
                )
            figures.save(picture, output)
    click.echo(f"{output} shows {run}")
