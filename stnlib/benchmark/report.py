"""What came out, as tables on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

Record = Mapping[str, Any]
WIDTH = 110
"""Columns where the output is no terminal that has a width."""


def console() -> Console:
    """Return a console on stdout; where it is no terminal, wide enough for the tables."""
    width = None if sys.stdout.isatty() else WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=width)


def duration(seconds: float) -> str:
    """Return a time in milliseconds or in seconds, with three digits.

    Examples
    --------
    >>> duration(0.000123456), duration(0.0123), duration(4.2)
    ('0.123 ms', '12.3 ms', '4.20 s')
    """
    number, unit = (seconds, "s") if seconds >= 1 else (1000 * seconds, "ms")
    digits = 3 if number < 1 else 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:.{digits}f} {unit}"


def spread(figure: Record | None) -> str:
    """Return a ratio with its quartiles.

    Examples
    --------
    >>> spread({"median": 2.345, "quartiles": [2.3, 2.41]})
    '2.35× (2.30 to 2.41)'
    """
    if figure is None:
        return "–"
    lower, upper = figure["quartiles"]
    return f"{figure['median']:.2f}× ({lower:.2f} to {upper:.2f})"


def parts(record: Record) -> list[RenderableType]:
    """Return all tables and lines of a record.

    Parameters
    ----------
    record : dict
        As `suite.run` returns it.

    Returns
    -------
    list
        To be printed on a `console`, one by one.
    """
    shown: list[RenderableType] = []
    for name, part in (
        ("cases", _cases),
        ("scaling", _scaling),
        ("first_call", _first_call),
        ("training", _training),
    ):
        measured = [one for one in record.get(name, ()) if "skipped" not in one]
        shown += part(measured) if measured else []
        shown += missing(name.replace("_", " "), record.get(name, ()))
    about = record["environment"]
    machine = about.get("gpu", about["processor"])
    threads = f"{record['threads']} thread{'s' if record['threads'] > 1 else ''}"
    load = f"load {about['load']} when it began, " if "load" in about else ""
    return [*shown, f"{machine}, {threads}, {load}{record['seconds']} s"]


def missing(part: str, found: Sequence[Record]) -> list[str]:
    """Return one line for each reason why something was not measured, with what it was.

    Examples
    --------
    >>> gone = {"contender": "scipy", "skipped": "No module named 'scipy'"}
    >>> missing("cases", [gone | {"size": "a"}, gone | {"size": "b"}])
    ["scipy: No module named 'scipy'"]
    """
    reasons = [
        (one.get("contender", part), one["skipped"]) for one in found if "skipped" in one
    ]
    return [f"{who}: {reason}" for who, reason in dict.fromkeys(reasons)]


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table


def _cases(found: Sequence[Record]) -> list[RenderableType]:
    tables: list[RenderableType] = []
    headings = (
        "contender",
        "time",
        "faster than PyTorch",
        "of copy",
        "memory",
        "output",
        "theta",
    )
    for name, of_size in groupby(found, lambda one: one["size"]):
        some = list(of_size)
        size = "N{n} C{c} {input[0]}×{input[1]} to {output[0]}×{output[1]}"
        table = _table(f"{name}: {size.format(**some[0]['shape'])}", *headings)
        for direction, group in groupby(some, lambda one: one["direction"]):
            table.add_section()
            table.add_row(direction, style="bold")
            for one in group:
                table.add_row(*_row(one))
        tables.append(table)
    return tables


def _row(one: Record) -> list[str]:
    memory, errors = one.get("peak_memory"), one.get("errors", {})
    return [
        one["contender"],
        duration(one["seconds"]["median"]),
        spread(one["ratio"]),
        f"{100 * one['of_copy_bandwidth']['median']:.1f} %",
        "–" if memory is None else f"{memory / 1e6:.1f} MB",
        *(f"{errors[x]:.0e}" if x in errors else "" for x in ("output", "grad_theta")),
    ]


def _scaling(found: Sequence[Record]) -> list[RenderableType]:
    table = _table("how the cost grows", "doubled", "", "time", "exponent (1 is linear)")
    for one in found:
        (few, *_, many), (short, *_, long) = one["counts"], one["seconds"]
        doubled = f"{one['series']}, {few} to {many}"
        fitted = spread(one["exponent"]).replace("×", "")
        table.add_row(
            doubled, one["direction"], f"{duration(short)} to {duration(long)}", fitted
        )
    return [table]


def _first_call(found: Sequence[Record]) -> list[RenderableType]:
    table = _table("the first call", "", "compiled", "from the cache", "the second call")
    for one in found:
        waits = (duration(one[x]) for x in ("cold", "cached", "second"))
        table.add_row(one["direction"], *waits)
    return [table]


def _training(found: Sequence[Record]) -> list[RenderableType]:
    (one,) = found
    speeds = {name: some["median"] for name, some in one["iterations_a_second"].items()}
    return [
        f"training {one['network']}: {speeds['reference']:.1f} iterations a second with the reference, "
        f"{speeds['engine']:.1f} with the engine, {spread(one['ratio'])}; "
        f"the losses of {one['steps']} steps differ by {one['loss_difference']:.1g} at most"
    ]
