"""The figures of chapter 5's second half: errors of trainings side by side, and how a training is watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from ..training.watch import DEAD, OUTSIDE
from .style import BLUE, GREEN, GREY, PURPLE, RED

COARSE = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)  # ticks of a decade
FINE = (1.0, 1.2, 1.4, 1.6, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
SERIES = ((RED, "o"), (BLUE, "s"))
STYLES = ((BLUE, "-", "o"), (RED, "--", "s"), (PURPLE, "-.", "^"), (GREEN, ":", "D"))


def error_rows(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Draw errors in rows, on a logarithmic scale: a small mark for each seed, a large one for their mean.

    Parameters
    ----------
    rows : mapping from a row's label to a mapping from a series' name to its errors in percent
        At most two series, the same in all rows; a row may lack one of them.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    figure, ax = plt.subplots(figsize=(5.8, 0.9 + 0.4 * len(rows)))
    for name, (colour, marker) in zip(names, SERIES, strict=False):
        found = [(y, row[name]) for y, row in enumerate(rows.values()) if name in row]
        points = np.array([(error, y) for y, errors in found for error in errors])
        means = [float(np.mean(errors)) for _, errors in found]
        ax.plot(*points.T, marker, color=colour, markersize=4, alpha=0.6)
        ax.plot(means, [y for y, _ in found], marker, color=colour, markersize=9, label=name)
    for y, row in enumerate(rows.values()):
        means = [float(np.mean(errors)) for errors in row.values()]
        ax.plot([min(means), max(means)], [y, y], color=GREY, linewidth=1, zorder=0)
    ax.set(xscale="log", xlabel="% of the test digits misread")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=FINE if high < 4 * low else COARSE))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    return figure


def watched(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw theta's spread, and how much of the grid lies beyond the frame, along some trainings.

    Parameters
    ----------
    histories : mapping from a training's name to the entries that `stnlib.training.fit` returned
        At most four, each with one spatial transformer.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(1, 2, figsize=(6, 3))
    for (name, history), (colour, line, marker) in zip(histories.items(), STYLES, strict=False):
        steps = [entry["steps"] for entry in history]
        values = [next(iter(entry["transformers"].values())) for entry in history]
        for ax, what in zip(axes, ("spread", "outside"), strict=True):
            heights = [100 * v[what] if what == "outside" else v[what] for v in values]
            ax.plot(steps, heights, line, color=colour, marker=marker, markersize=4, label=name)
    axes[0].set(xlabel="step", ylabel="spread of theta")
    axes[0].set_yscale("symlog", linthresh=DEAD)
    axes[1].set(xlabel="step", ylabel="% of the grid outside", ylim=(-4, 104))
    axes[0].axhline(DEAD, color=GREY, linewidth=1, linestyle=":")
    axes[1].axhline(100 * OUTSIDE, color=GREY, linewidth=1, linestyle=":")
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=4,
        columnspacing=1,
        handlelength=2.6,
    )
    return figure
