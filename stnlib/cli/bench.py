"""`stnlib bench`: the engines against whatever other samplers are installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..benchmark import DEVICES, DIRECTIONS, OURS, PEERS
from ._options import PATH, Choice, click, one_sentence, typed


def _sizes(context: Any, option: Any, values: Sequence[str]) -> Sequence[str]:
    from ..benchmark.cases import parse_size

    for value in values:
        try:
            parse_size(value)
        except ValueError as error:
            raise click.BadParameter(f"{error}.", context, option) from None
    return values


@click.command(short_help="Measure the engines against other samplers.")
@click.option("--device", type=Choice(DEVICES), default="cpu", show_default=True)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    callback=_sizes,
    help="a, b, c (usual on a CPU), d, e, f (usual on a GPU), or NxCxHxW, with the output's size after "
    "it if it differs: 64x1x60x60:30x30. This and the next two may be given several times.",
)
@click.option("--direction", "directions", multiple=True, type=Choice(tuple(DIRECTIONS)))
@click.option(
    "--contender",
    "contenders",
    multiple=True,
    type=Choice((*OURS, *PEERS)),
    help="Usual: all that are installed. PyTorch always runs: ratios are taken to it.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Of every library.",
)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=25, show_default=True, help="A case."
)
@click.option(
    "--cases/--no-cases", default=True, help="Measure the sizes, or what follows alone."
)
@click.option(
    "--scaling", is_flag=True, help="Also: how the cost grows with N, C and the output."
)
@click.option("--first-call", is_flag=True, help="Also: how long the first call compiles.")
@click.option(
    "--training", is_flag=True, help="Also: iterations a second of an ST-FCN's training."
)
@click.option("--json", **PATH, help="Write all figures to a file.")
@click.option("--chart", **PATH, help="Draw the ratios to PyTorch: .svg, .png and others.")
def bench(json: Path | None, chart: Path | None, **options: Any) -> None:
    """Measure the engines against whatever other samplers are installed.

    Each contender is compared with the reference in float64 first, and not timed if it is wrong. Then all run in turn,
    round by round; ratios are taken within a round, and their medians and quartiles shown. Let the machine do nothing
    else: where threads have to wait for one another, load costs some contenders more than others.

    \b
    stnlib bench --rounds 5                                 a first look
    stnlib bench --size c --direction forward --contender opencv
    stnlib bench --size 8x3x256x256 --json mine.json --chart mine.svg
    stnlib bench --no-cases --scaling --first-call --training
    """  # noqa: D301
    from ..benchmark import report, suite

    with one_sentence():
        record = suite.run(suite.Plan(**options), typed(), _with_a_bar)
        if json:
            from ..experiments import records

            records.write(json, record)
        console = report.console()
        for part in report.parts(record):
            console.print(part, soft_wrap=isinstance(part, str))
        if chart:
            from ..benchmark import chart as picture

            picture.save(record.get("cases", []), chart)
    if wrong := suite.wrong_engines(record):
        raise click.ClickException(f"these gave wrong results: {', '.join(wrong)}.")


def _with_a_bar(jobs: Sequence[Any]) -> Iterator[Any]:
    """Yield jobs, and show on stderr, if that is a terminal, which of them runs.

    Once a second, so that drawing the bar costs no contender anything.
    """
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=1,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("", total=len(jobs))
        for job in jobs:
            bar.update(task, description=job[0])
            yield job
            bar.advance(task)
