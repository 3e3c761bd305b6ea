"""The figures of chapter 7: records of distorted MNIST beside the paper's table, and what networks learn over time."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ..experiments.table1 import CELLS, DATA, Cell
from . import training
from .style import BLUE, GREEN, GREY, RED

Record = Mapping[str, Any]
Runs = Mapping[Cell, Sequence[Record]]

MODELS = {"fcn": "FCN", "cnn": "CNN", "st-fcn": "ST-FCN", "st-cnn": "ST-CNN"}
FAMILIES = {None: "", "affine": " affine", "projective": " projective", "tps": " TPS"}
LINES = {
    "fcn": (GREY, ":"),
    "cnn": (RED, "--"),
    "st-fcn": (BLUE, "-."),
    "st-cnn": (GREEN, "-"),
}
TICKS = (0.5, 1, 2, 5, 10, 20, 50)  # of an error in percent, on a logarithmic axis


def runs_of(records: Iterable[Record], device: str) -> dict[Cell, list[Record]]:
    """Return the runs of each cell that are compared with the paper.

    Of a cell's runs on a device, those count whose number of iterations the most seeds share, and if there are several
    such numbers, the largest. Where no two seeds share one, as with a budget in time, each seed's longest run counts.

    Parameters
    ----------
    records : iterable of mappings
        As `stnlib.experiments.table1` writes them.
    device : {"cpu", "cuda"}

    Returns
    -------
    dict from Cell to list of records
        In the order of the paper's table, and each list in the order of the seeds. Cells without a run are left out.

    Examples
    --------
    >>> run = {"model": "fcn", "transform": None, "data": "R", "seed": 0, "iterations": 9, "device": "cpu"}
    >>> {str(cell): len(runs) for cell, runs in runs_of([run, run | {"seed": 1}], "cpu").items()}
    {'fcn/R': 2}
    """
    of_cell: dict[Cell, list[Record]] = {cell: [] for cell in CELLS}
    for record in records:
        if record["device"] == device:
            cell = Cell(record["model"], record["transform"], record["data"])
            of_cell[cell].append(record)
    return {cell: _compared(runs) for cell, runs in of_cell.items() if runs}


def _compared(runs: Sequence[Record]) -> list[Record]:
    seeds = Counter(run["iterations"] for run in runs)
    most = max(seeds.values())
    length = max(iterations for iterations, count in seeds.items() if count == most)
    found: dict[int, Record] = {}
    for run in sorted(runs, key=lambda run: run["iterations"]):
        if most == 1 or run["iterations"] == length:
            found[run["seed"]] = run
    return [found[seed] for seed in sorted(found)]


def mean_and_spread(runs: Sequence[Record]) -> tuple[float, float]:
    """Return the mean test error of runs, in percent, and its standard deviation over them (0 for one run).

    Examples
    --------
    >>> mean_and_spread([{"test_error": 1.0}, {"test_error": 2.0}, {"test_error": 3.0}])
    (2.0, 1.0)
    """
    errors = [run["test_error"] for run in runs]
    return float(np.mean(errors)), float(np.std(errors, ddof=1)) if len(errors) > 1 else 0.0


def reached(cell: Cell, runs: Sequence[Record]) -> bool:
    """Return whether the mean test error of a cell's runs is at or below the paper's number."""
    return mean_and_spread(runs)[0] <= cell.paper


STYLE = "text-align: left"  # of the table's cells; book.css has the rest


def error_table(runs: Runs) -> str:
    """Return the table beside the paper's, as HTML that scrolls sideways on a narrow page.

    Parameters
    ----------
    runs : mapping from Cell to records
        As `runs_of` returns it.

    Returns
    -------
    str
        In each cell: mean and standard deviation over seeds; below, ``≤`` or ``>`` and the paper's number. Those at or
        below the paper's are bold. A cell that was not measured has the paper's number alone.
    """
    rows = []
    for model, transform in dict.fromkeys((c.model, c.transform) for c in CELLS):
        entries = (_entry(Cell(model, transform, data), runs) for data in DATA)
        rows.append(
            f'<tr><th style="{STYLE}">{_name(model, transform)}</th>{"".join(entries)}</tr>'
        )
    head = "".join(f'<th style="{STYLE}">{title}</th>' for title in ("network", *DATA))
    table = f'<table class="dataframe" style="font-size: 0.92em"><tr>{head}</tr>{"".join(rows)}</table>'
    return f'<div style="overflow-x: auto" tabindex="0">{table}</div>'


def _entry(cell: Cell, runs: Runs) -> str:
    text = "\N{EN DASH}" if cell not in CELLS else f"paper: {cell.paper}"
    if cell in runs:
        mean, spread = mean_and_spread(runs[cell])
        ours = f"{mean:.2f} ± {spread:.2f}"
        text = (
            f"<b>{ours}</b><br>≤ {cell.paper}"
            if reached(cell, runs[cell])
            else f"{ours}<br>&gt; {cell.paper}"
        )
    return f'<td style="{STYLE}; white-space: nowrap">{text}</td>'


def _name(model: str, transform: str | None) -> str:
    return MODELS[model] + FAMILIES[transform]


def error_chart(runs: Runs) -> Figure:
    """Draw each run's test error, and the paper's number, on logarithmic axes: a panel for each kind of digits.

    Parameters
    ----------
    runs : mapping from Cell to records
        As `runs_of` returns it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    networks = list(dict.fromkeys((cell.model, cell.transform) for cell in CELLS))
    figure, axes = plt.subplots(1, len(DATA), figsize=(6.2, 3.3), sharey=True)
    for ax, data in zip(axes, DATA, strict=True):
        for row, network in enumerate(networks):
            cell = Cell(*network, data)
            errors = [run["test_error"] for run in runs.get(cell, ())]
            ax.plot(errors, [row] * len(errors), "o", color=BLUE, markersize=5)
            if cell in CELLS:
                ax.plot(cell.paper, row, "d", color=RED, fillstyle="none", markersize=9)
        ax.set(title=data, xscale="log")
        _percent(ax, "x", most=3)
        ax.grid(axis="y", linewidth=0.5, alpha=0.5)
        ax.margins(x=0.12)
    axes[0].set_yticks(range(len(networks)), [_name(*network) for network in networks])
    axes[0].invert_yaxis()
    ours, paper = axes[0].lines[:2]
    figure.supxlabel("test error, %", color=GREY, fontsize=11)
    figure.legend(
        [ours, paper], ["ours, a run each", "the paper"], loc="outside upper right", ncols=2
    )
    return figure


def _percent(ax: Axes, axis: str, most: int = 6) -> None:
    """Write errors as plain numbers along a logarithmic axis, every second one if there are more than fit."""
    low, high = (ax.dataLim.intervalx, ax.dataLim.intervaly)[axis == "y"]
    ticks = [tick for tick in TICKS if low / 1.2 <= tick <= high * 1.2]
    ticks = ticks[::2] if len(ticks) > most else ticks
    part = getattr(ax, f"{axis}axis")
    part.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    part.set_minor_locator(NullLocator())


def learning_curves(runs: Runs, data: Sequence[str], against: str = "steps") -> Figure:
    """Draw the error on the validation set as training goes on: a line for each run, a panel for each kind of digits.

    Parameters
    ----------
    runs : mapping from Cell to records
        As `runs_of` returns it. Of transformers, the affine ones are drawn.
    data : sequence of str
    against : {"steps", "seconds"}

    Returns
    -------
    matplotlib.figure.Figure
    """
    column = ("steps", "seconds").index(against)
    figure, axes = plt.subplots(1, len(data), figsize=(6, 2.9), sharey=True, squeeze=False)
    for ax, kind in zip(axes[0], data, strict=True):
        for cell, found in runs.items():
            if cell.data == kind and cell.transform in (None, "affine"):
                colour, line = LINES[cell.model]
                for i, run in enumerate(found):
                    curve = np.array(run["curve"])
                    label = None if i else MODELS[cell.model]
                    style = {"color": colour, "linestyle": line, "linewidth": 1.5}
                    ax.plot(curve[:, column], curve[:, 3], label=label, **style)
        ax.set(title=kind, xlabel=against, yscale="log", xlim=(0, None))
        _percent(ax, "y")
    axes[0, 0].set_ylabel("validation error, %")
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes[0]), key=len)
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    return figure


def overhead_bars(records: Sequence[Record]) -> Figure:
    """Draw the time of a training step of networks with a transformer, and of what lies behind it alone.

    Parameters
    ----------
    records : sequence of mappings
        As `stnlib.experiments.overhead` writes them.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, ax = plt.subplots(figsize=(6, 0.42 * len(records) + 0.9))
    names = []
    for row, record in enumerate(records):
        times = record["forward+backward"]
        with_it: dict[str, Any] = {
            "color": (BLUE, 0.5),
            "edgecolor": BLUE,
            "label": "with the transformer",
        }
        without: dict[str, Any] = {"color": "none", "edgecolor": RED, "label": "without"}
        ax.barh(row - 0.2, times["with"], 0.38, **with_it)
        ax.barh(row + 0.2, times["without"], 0.38, **without)
        ratio = times["with"] / times["without"]
        ax.text(times["with"], row - 0.2, f" {ratio:.1f}×", va="center", fontsize=9)
        names.append(f"{_name(record['model'], record['transform'])}, {record['data']}")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="milliseconds a step, forward and backward")
    ax.margins(x=0.12)
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside upper right", ncols=2)
    return figure


def animated(
    inputs: np.ndarray,
    outputs: Sequence[np.ndarray],
    grids: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    milliseconds: int = 400,
    times: int = 3,
) -> bytes:
    """Draw what a transformer does with some inputs at moments of its training, as an animated PNG.

    A browser plays it some times, and then rests at the last moment. What cannot play it shows the last moment, too.

    Parameters
    ----------
    inputs : array, shape (N, 1, H, W)
    outputs : sequence of arrays, shape (N, 1, H_out, W_out)
        One for each moment.
    grids : sequence of arrays, shape (N, H_out, W_out, 2)
        Normalised coordinates, ``align_corners=False``.
    titles : sequence of str
        What stands above each moment.
    milliseconds : int, default 400
        That a moment is seen.
    times : int, default 3

    Returns
    -------
    bytes
    """
    from PIL import Image, PngImagePlugin  # which matplotlib brings

    frames = []
    for output, grid, title in zip(outputs, grids, titles, strict=True):
        figure = training.inputs_and_outputs(inputs, output, grid)
        figure.suptitle(title)
        figure.set_dpi(80)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
        # Sixteen levels are enough, and take half the room.
        frames.append(Image.fromarray((pixels >> 4) * np.uint8(17)))
        plt.close(figure)
    file = io.BytesIO()
    frames[-1].save(
        file,
        format="PNG",
        save_all=True,
        default_image=True,
        append_images=frames,
        duration=milliseconds,
        loop=times,
        blend=PngImagePlugin.Blend.OP_SOURCE,  # transparent pixels too take the place of what was there
    )
    return file.getvalue()
