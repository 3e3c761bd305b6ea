"""What came out, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plotting.style import BLUE, GREY, RED, use_style
from . import OURS

Record = Mapping[str, Any]


def draw(found: Sequence[Record]) -> Figure:
    """Draw how many times as fast as PyTorch each contender is, a panel a size and direction.

    Parameters
    ----------
    found : sequence of dict
        As `suite.measure` returns them.

    Returns
    -------
    matplotlib.figure.Figure
        The package's own in blue, others in red; a bar is the median and its whisker the quartiles. The line is
        PyTorch.

    Raises
    ------
    ValueError
        If none has a ratio.
    """
    compared = [one for one in found if one.get("ratio")]
    panels = [
        (title, list(some))
        for title, some in groupby(compared, lambda one: f"{one['size']} {one['direction']}")
    ]
    if not panels:
        raise ValueError("there is nothing to draw: PyTorch was not measured")
    columns = len({one["direction"] for one in compared})
    rows = -(-len(panels) // columns)
    tallest = max(len(some) for _, some in panels)
    figure = Figure(figsize=(3.4 * columns, (0.3 * tallest + 0.9) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (title, some) in zip(axes, panels, strict=False):
        _panel(ax, title, some)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    figure.supxlabel("times as fast as PyTorch", color=GREY, fontsize="medium")
    return figure


def _panel(ax: Axes, title: str, some: Sequence[Record]) -> None:
    medians = [one["ratio"]["median"] for one in some]
    quartiles = [one["ratio"]["quartiles"] for one in some]
    whiskers = [
        [abs(median - ends[side]) for median, ends in zip(medians, quartiles, strict=True)]
        for side in (0, 1)
    ]
    names = [one["contender"] for one in some]
    colours = [BLUE if name in OURS else RED for name in names]
    bars = ax.barh(names, medians, color=colours, xerr=whiskers, ecolor=GREY, height=0.7)
    ax.bar_label(bars, fmt="{:.2f}×", padding=4, fontsize="small")
    ax.axvline(1, color=GREY, linewidth=1)
    ax.invert_yaxis()
    ax.set_title(title)
    ax.margins(x=0.25)


def save(found: Sequence[Record], path: Path) -> None:
    """Draw the chart in the book's style and write it to a file.

    Parameters
    ----------
    found : sequence of dict
    path : Path
        Its ending says the format, .svg or .png for example.
    """
    with mpl.rc_context():
        use_style()
        draw(found).savefig(path)
