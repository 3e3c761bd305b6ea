"""The figures of chapter 4: threads over pixels, bytes, the roofline, a race, and what was measured on a GPU."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._extras import require
from ..experiments import records
from ..transforms import theta_to_pixel
from .images import show_values
from .style import BLUE, GREEN, GREY, PURPLE, RED

Size = tuple[int, int]
COLOURS = (BLUE, RED, GREEN, PURPLE)
WARP = 32
SECTOR = 32  # bytes: the least that a GPU's memory hands over
WHO = {  # contenders as `show_measured` draws them
    "stnlib": ("stnlib", BLUE),
    "stnlib-deterministic": ("stnlib, deterministic", GREEN),
    "torch-planar": ("PyTorch, planar grid", RED),
}
MOVED = {  # arrays as `show_bytes` draws them
    "images": BLUE,
    "grid": RED,
    "base grid": PURPLE,
}


# ---- Threads over pixels -------------------------------------------------------------------------


class Launch(NamedTuple):
    """Blocks of threads over the pixels of an output, and where these read: what the kernels of ``sampler.cu`` do.

    A block is ``columns`` threads wide and ``rows`` high, and each thread makes ``pixels`` pixels, ``rows`` apart.
    ``matrix`` goes from (column, row, 1) of the output to (x, y) in the input, both in pixels.
    """

    matrix: np.ndarray
    size: Size  # (H, W)
    out: Size
    columns: int = 32
    rows: int = 8
    pixels: int = 4

    @property
    def across(self) -> int:
        """How many blocks lie side by side."""
        return -(-self.out[1] // self.columns)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return self.across * -(-self.out[0] // (self.rows * self.pixels))

    @property
    def warps(self) -> int:
        """How many warps a block has."""
        return self.columns * self.rows // WARP

    def pixels_of(self, block: int, warp: int | None = None) -> np.ndarray:
        """Return the output pixels, (K, 2) as (column, row), that a block or one of its warps makes."""
        thread = np.arange(self.columns * self.rows)
        if warp is not None:
            thread = thread[warp * WARP : (warp + 1) * WARP]
        x, y = thread % self.columns, thread // self.columns
        left = block % self.across * self.columns
        top = block // self.across * self.rows * self.pixels
        made = [
            np.stack((left + x, top + q * self.rows + y), axis=-1) for q in range(self.pixels)
        ]
        found = np.concatenate(made)
        return found[(found[:, 0] < self.out[1]) & (found[:, 1] < self.out[0])]

    def positions(self, pixels: np.ndarray) -> np.ndarray:
        """Return where output pixels are read in the input, (K, 2) as (x, y)."""
        m, j, i = self.matrix, pixels[:, 0], pixels[:, 1]
        return np.stack([m[r, 0] * j + (m[r, 1] * i + m[r, 2]) for r in (0, 1)], axis=-1)

    def reads(self, block: int, warp: int | None = None) -> np.ndarray:
        """Return the input's pixels, (K, 2) as (column, row), that the bilinear kernel reads; each once, row by row."""
        first = np.floor(self.positions(self.pixels_of(block, warp))).astype(np.int64)
        all_four = np.concatenate(
            [first + np.array((dx, dy)) for dy in (0, 1) for dx in (0, 1)]
        )
        height, width = self.size
        x, y = all_four.T
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        places = np.unique(y[inside] * width + x[inside])
        return np.stack((places % width, places // width), axis=-1)

    def counts(self, block: int, warp: int | None = None, itemsize: int = 4) -> dict[str, int]:
        """Return bytes: written; asked for, four pixels a sample; of different pixels; moved, in whole sectors."""
        made, read = self.pixels_of(block, warp), self.reads(block, warp)
        sectors = np.unique((read[:, 1] * self.size[1] + read[:, 0]) * itemsize // SECTOR)
        return {
            "written": itemsize * len(made),
            "asked": 4 * itemsize * len(made),
            "read": itemsize * len(read),
            "moved": SECTOR * len(sectors),
        }


def launch(theta: np.ndarray, size: Size, out: Size, **block: int) -> Launch:
    """Return how a launch's threads lie over the pixels.

    Parameters
    ----------
    theta : array, shape (2, 3)
        Normalised, with ``align_corners=False``.
    size, out : (H, W)
        Of the input and the output.
    **block : int
        ``columns``, ``rows`` and ``pixels``, as `Launch` has them.

    Returns
    -------
    Launch
        Its matrix rounded to a millionth of a pixel, so that it is the same on every machine.
    """
    matrix: Any = theta_to_pixel(np.asarray(theta, dtype=np.float64), size, out)
    return Launch(np.round(matrix, 6), size, out, **block)


def show_threads(plan: Launch, blocks: Sequence[int]) -> Figure:
    """Draw which thread makes which output pixel, some blocks in colour, and where these read in the input.

    Parameters
    ----------
    plan : Launch
        Of a few pixels: each thread's number is written into its own.
    blocks : sequence of int
        At most four.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(5.6, 3))
    _squares(left, plan.out, "output: which thread makes it")
    _squares(right, plan.size, "input: where it is read")
    for block, colour in zip(blocks, COLOURS, strict=False):
        made = plan.pixels_of(block)
        for number, (x, y) in enumerate(made):
            left.add_patch(
                plt.Rectangle((x - 0.5, y - 0.5), 1, 1, fc=(colour, 0.15), ec=GREY, lw=0.5)
            )
            left.text(x, y, str(number), ha="center", va="center", size=8)
        right.plot(*plan.positions(made).T, ".", color=colour, label=f"block {block}")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=4, fontsize=9)
    high = plan.rows * plan.pixels
    edges = [edge - 0.5 for edge in plan.out]
    style = {"color": GREY, "linewidth": 2}
    left.vlines(np.arange(1, plan.across) * plan.columns - 0.5, -0.5, edges[0], **style)
    left.set_anchor("N")
    right.set_anchor("N")
    left.hlines(np.arange(1, plan.blocks // plan.across) * high - 0.5, -0.5, edges[1], **style)
    return figure


def _squares(ax: Axes, size: Size, title: str) -> None:
    """Draw the pixels of an image as empty squares."""
    height, width = size
    for x in range(width + 1):
        ax.plot([x - 0.5] * 2, [-0.5, height - 0.5], color=GREY, linewidth=0.5, zorder=0)
    for y in range(height + 1):
        ax.plot([-0.5, width - 0.5], [y - 0.5] * 2, color=GREY, linewidth=0.5, zorder=0)
    ax.set(title=title, aspect="equal", xlim=(-1, width), ylim=(height, -1))
    ax.set_axis_off()


def step_through(plan: Launch, block: int = 0) -> Any:
    """Return the picture that a reader steps through block by block; ``book/_static/threads.js`` moves it.

    Without scripts it stays a still picture of one block, with its numbers beneath it.

    Parameters
    ----------
    plan : Launch
    block : int
        The one shown at first.

    Returns
    -------
    IPython.display.HTML
    """
    display = require("IPython.display", "book", "step_through")
    (height, width), (h_out, w_out) = plan.size, plan.out
    told = {
        "size": plan.size,
        "out": plan.out,
        "block": [plan.columns, plan.rows],
        "pixels": plan.pixels,
        "matrix": plan.matrix.tolist(),
        "start": block,
    }
    output = _svg(
        (h_out, w_out),
        "The output, cut into tiles, one a block",
        f'<path class="tiles" d="{_tiles(plan)}"/>'
        f'<path class="block" d="{_runs(plan.pixels_of(block))}"/><path class="warp" d=""/>',
    )
    input = _svg(
        (height, width),
        "The input, and the pixels that the block reads",
        f'<path class="block" d="{_runs(plan.reads(block))}"/><path class="warp" d=""/>'
        f'<path class="tiles" d="{_outline(plan, block)}"/>',
    )
    return display.HTML(
        f"<div class='threads' data-threads='{json.dumps(told)}'>\n"
        f'<div class="threads-panels">\n{output}\n{input}\n</div>\n'
        f'<p class="threads-says">{sentence(plan, block)}</p>\n</div>\n'
        '<script defer src="../_static/threads.js"></script>'
    )


def sentence(plan: Launch, block: int, warp: int | None = None) -> str:
    """Return what is to be said of a block or a warp: the same words as in ``threads.js``."""
    made, count = plan.pixels_of(block, warp), plan.counts(block, warp)
    rows = np.unique(made[:, 1])
    who = f"Block {block} of {plan.blocks}" + ("" if warp is None else f", warp {warp}")
    where = f"columns {made[:, 0].min()} to {made[:, 0].max()}, "
    steady = np.all(np.diff(rows) == 1) and len(rows) > 1
    where += (
        f"rows {rows[0]} to {rows[-1]}"
        if steady
        else f"rows {', '.join(str(row) for row in rows)}"
    )
    return (
        f"{who}: {where}. It makes {len(made):,} pixels and writes {count['written']:,} bytes. "
        f"Its threads ask for {count['asked']:,} bytes of the input: {count['read']:,} different "
        f"ones, in sectors that hold {count['moved']:,}."
    )


def _svg(size: Size, label: str, inside: str) -> str:
    (height, width), margin = size, 3  # round it: a turned tile reads beyond the edge
    box = f"{-margin} {-margin} {width + 2 * margin} {height + 2 * margin}"
    frame = f'<rect class="frame" width="{width}" height="{height}"/>'
    svg = f'<svg viewBox="{box}" role="img" aria-label="{label}">{inside}{frame}</svg>'
    return f"<div><span>{label.partition(',')[0]}</span>{svg}</div>"


def _runs(pixels: np.ndarray) -> str:
    """Return pixels as a path: a rectangle for each run of neighbours in a row."""
    order = np.lexsort((pixels[:, 0], pixels[:, 1]))
    parts: list[list[int]] = []
    for x, y in pixels[order].tolist():
        if parts and parts[-1][1] == y and parts[-1][0] + parts[-1][2] == x:
            parts[-1][2] += 1
        else:
            parts.append([x, y, 1])
    return "".join(f"M{x} {y}h{n}v1h-{n}z" for x, y, n in parts)


def _tiles(plan: Launch) -> str:
    """Return the lines between the tiles of the output as a path."""
    h_out, w_out = plan.out
    down = [f"M{x} 0v{h_out}" for x in range(plan.columns, w_out, plan.columns)]
    high = plan.rows * plan.pixels
    return "".join([*down, *(f"M0 {y}h{w_out}" for y in range(high, h_out, high))])


def _outline(plan: Launch, block: int) -> str:
    """Return where the tile of a block lies in the input, as a path."""
    made = plan.pixels_of(block)
    (left, top), (right, bottom) = made.min(axis=0) - 0.5, made.max(axis=0) + 0.5
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    places = plan.positions(corners) + 0.5  # the drawing's 0 is the first pixel's edge
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in places) + "z"


# ---- Bytes and the roofline ----------------------------------------------------------------------


def show_bytes(
    ways: Mapping[str, Mapping[str, float]], pixels: float, bandwidth: float
) -> Figure:
    """Draw the bytes that each way of sampling moves, and the time that they take at least.

    Parameters
    ----------
    ways : dict of dict
        For each way, bytes an output pixel of ``"images"``, ``"grid"`` and ``"base grid"``.
    pixels : float
        Of the output, in the whole batch.
    bandwidth : float
        Bytes a second.

    Returns
    -------
    matplotlib.figure.Figure
        Bars in bytes a pixel; beside each its total and the floor in microseconds.
    """
    figure, ax = plt.subplots(figsize=(7, 0.52 * len(ways) + 1.1))
    names = list(ways)
    start = np.zeros(len(names))
    for kind, colour in MOVED.items():
        share = np.array([ways[name].get(kind, 0) for name in names])
        if share.any():
            ax.barh(names, share, left=start, color=colour, height=0.6, label=kind)
        start += share
    for row, total in enumerate(start):
        time = 1e6 * total * pixels / bandwidth
        ax.text(total, row, f"  {total:g} bytes, {time:,.0f} µs", va="center", size=9)
    ax.invert_yaxis()
    ax.set(xlabel="bytes a pixel", xlim=(0, 1.3 * start.max()))
    ax.legend(loc="upper right", fontsize=9)
    return figure


def show_roofline(
    bandwidth: float, peaks: Mapping[str, float], points: Mapping[str, float]
) -> Figure:
    """Draw the roofline: the most operations a second, against operations a byte.

    Parameters
    ----------
    bandwidth : float
        Bytes a second.
    peaks : dict
        Operations a second of each type: a flat roof each.
    points : dict
        Operations a byte of each piece of work, drawn where it meets the roof.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, ax = plt.subplots(figsize=(6.6, 4))
    x = np.geomspace(0.1, 200, 400)
    highest = max(peaks.values())
    for (name, peak), line in zip(peaks.items(), ("-", "--"), strict=False):
        shown = x if peak == highest else x[bandwidth * x >= peak]  # the slope belongs to all
        ax.plot(shown, np.minimum(peak, bandwidth * shown), line, color=GREY)
        ax.text(22, 1.12 * peak, name, color=GREY, size=9)
    ax.text(
        0.12,
        1.5 * bandwidth * 0.12,
        "the memory's slope",
        rotation=33,
        rotation_mode="anchor",
        size=9,
    )
    for (name, intensity), colour in zip(points.items(), COLOURS, strict=False):
        height = min(bandwidth * intensity, max(peaks.values()))
        ax.plot([intensity, intensity], [1e10, height], ":", color=colour, linewidth=1.2)
        ax.plot(intensity, height, "o", color=colour, label=f"{name}: {intensity:.1f}")
    ax.set(
        xscale="log",
        yscale="log",
        xlim=(0.1, 200),
        ylim=(bandwidth * 0.05, 2.2 * max(peaks.values())),
        xlabel="operations a byte",
        ylabel="operations a second",
    )
    ax.legend(loc="upper left", fontsize=9, title="operations a byte", title_fontsize=9)
    return figure


# ---- A race --------------------------------------------------------------------------------------

STEPS = (  # thread, what it does, what memory then holds
    (0, "reads 0", 0),
    (1, "reads 0", 0),
    (0, "adds 1, writes 1", 1),
    (1, "adds 1, writes 1", 1),
)


def show_race() -> Figure:
    """Draw two threads that add 1 to the same place at the same time, and how one addition is lost.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, ax = plt.subplots(figsize=(6.6, 2.2))
    heights = {0: 2.0, 1: 1.0}
    for thread, height in heights.items():
        colour = COLOURS[thread]
        ax.text(-0.75, height, f"thread {thread}", ha="right", va="center", color=colour)
    ax.text(-0.75, 0, "memory", ha="right", va="center")
    box = {"boxstyle": "round", "fc": "none"}
    for time, (thread, does, memory) in enumerate(STEPS):
        colour = COLOURS[thread]
        patch = {**box, "ec": colour, "fc": (colour, 0.2)}
        ax.text(time, heights[thread], does, ha="center", va="center", size=9, bbox=patch)
        ax.plot([time, time], [heights[thread] - 0.3, 0.3], ":", color=colour, linewidth=1)
        ax.text(time, 0, str(memory), ha="center", va="center", bbox={**box, "ec": GREY})
    ax.text(len(STEPS) - 0.35, 0, "and not 2", ha="left", va="center", color=RED)
    ax.set(xlim=(-0.7, len(STEPS) + 0.1), ylim=(-0.5, 2.5))
    ax.set_axis_off()
    return figure


def show_answers(answers: Mapping[str, np.ndarray]) -> Figure:
    """Draw the same gradient as several runs made it, as tables with one scale.

    Parameters
    ----------
    answers : dict of arrays, shape (H, W)

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(1, len(answers), figsize=(5.6, 2.3), squeeze=False)
    top = max(float(np.abs(table).max()) for table in answers.values())
    for ax, (title, table), colour in zip(
        axes.flat, answers.items(), (RED, RED, GREEN), strict=False
    ):
        show_values(ax, table, title, digits=1, colour=colour, largest=top)
        for text in ax.texts:
            text.set_fontsize(9)
    return figure


# ---- What was measured ---------------------------------------------------------------------------


def measured(record: Mapping[str, Any]) -> str:
    """Return what a benchmark's record says, as a table: times in milliseconds, a row for each size and direction.

    Parameters
    ----------
    record : dict
        As `stnlib.benchmark.suite.run` returns it, measured on a GPU.

    Returns
    -------
    str
        Of PyTorch, and of the package: through autograd; on arrays; on arrays, deterministic; how many times as fast
        as PyTorch the first of these is; of a copy of the bytes that must move, and the copy's part of our time.
    """
    lines = [
        f"{record['environment']['gpu']}, medians of {record['rounds']} rounds, ms",
        f"{'':<21}{'PyTorch':>9}{'stnlib':>9}{'':>8}{'arrays':>9}{'determ.':>9}{'copy':>9}{'of copy':>9}",
    ]
    for (size, direction), found in _measurements(record).items():
        times = {
            who: f"{1e3 * found[who]['seconds']['median']:.3f}" if who in found else "–"
            for who in ("torch", "stnlib", "stnlib-arrays", "stnlib-deterministic", "copy")
        }
        ours = found["stnlib"]
        lines.append(
            f"{size}  {direction:<18}{times['torch']:>9}{times['stnlib']:>9}"
            f"{ours['ratio']['median']:>7.2f}×{times['stnlib-arrays']:>9}"
            f"{times['stnlib-deterministic']:>9}{times['copy']:>9}"
            f"{ours['of_copy_bandwidth']['median']:>9.1%}"
        )
    return "\n".join(lines)


def show_measured(record: Mapping[str, Any]) -> Figure:
    """Draw how many times as fast as PyTorch the package is, and a copy of the bytes that must move.

    Parameters
    ----------
    record : dict
        As for `measured`.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each direction, bars for each size. A bar begins at 1, which is PyTorch, and goes to the left if it
        is slower.
    """
    found = _measurements(record)
    directions = list(dict.fromkeys(direction for _, direction in found))
    figure, axes = plt.subplots(
        -(-len(directions) // 2), 2, figsize=(5.6, 5.6), sharex=True, sharey=True, squeeze=False
    )
    for ax, direction in zip(axes.flat, directions, strict=False):
        sizes = [size for size, other in found if other == direction]
        for row, size in enumerate(sizes):
            _bars(ax, row, found[size, direction])
        ax.set_yticks(range(len(sizes)), [_size(size, found) for size in sizes], size=9)
        ax.axvline(1, color=GREY, linewidth=1)
        ax.set(xscale="log", xlim=(0.02, 500), title=direction)
        ax.xaxis.set_major_formatter("{x:g}×")
    for ax in axes[-1]:
        ax.set_xlabel("times as fast as PyTorch")
    axes[0, 0].invert_yaxis()
    shown = [ax.get_legend_handles_labels() for ax in axes.flat]
    unique = {label: handle for some in shown for handle, label in zip(*some, strict=True)}
    order = [label for label, _ in WHO.values() if label in unique] + ["a copy of the bytes"]
    figure.legend(
        [unique[label] for label in order],
        order,
        loc="outside lower center",
        ncols=2,
        fontsize=9,
    )
    return figure


def _bars(ax: Axes, row: int, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the ratios to PyTorch of one size in one direction, and where a copy would be."""
    for place, (who, (label, colour)) in enumerate(WHO.items()):
        if who not in found:
            continue
        ratio, height = found[who]["ratio"]["median"], row + 0.26 * (place - 1)
        ax.barh(height, ratio - 1, left=1, color=colour, height=0.24, label=label)
        end, side = (1.1 * ratio, "left") if ratio >= 1 else (ratio / 1.1, "right")
        ax.text(end, height, f"{ratio:.2f}", ha=side, va="center", size=8)
    floor = found["torch"]["seconds"]["median"] / found["copy"]["seconds"]["median"]
    ax.plot([floor] * 2, [row - 0.38, row + 0.38], color=GREY, label="a copy of the bytes")


def _measurements(
    record: Mapping[str, Any],
) -> dict[tuple[str, str], dict[str, Mapping[str, Any]]]:
    """Return a record's measurements by size and direction, and then by who was measured."""
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for one in record["cases"]:
        if "seconds" in one:
            found.setdefault((one["size"], one["direction"]), {})[one["contender"]] = one
    return found


def _size(name: str, found: Mapping[tuple[str, str], Mapping[str, Mapping[str, Any]]]) -> str:
    """Return a size's name, its images and channels, and the sides of their outputs."""
    shape = next(some["stnlib"]["shape"] for (size, _), some in found.items() if size == name)
    height, width = shape["output"]
    return f"{name}: {shape['n']} × {shape['c']}\n{height} × {width}"


def registers(folder: Path, case: str) -> str:
    """Return the registers that each kernel takes in one case, as a table; where there is no record, a sentence.

    Parameters
    ----------
    folder : Path
        Where ``kernels.json`` is.
    case : str
        As `stnlib.engines.compiled.label` names it: ``"float 2D 2 int"``.

    Returns
    -------
    str
    """
    path = folder / "kernels.json"
    if not path.exists():
        return "There is no record of registers: python -m stnlib.experiments.kernels makes it."
    record = records.read(path)
    taken = record["kernels"][case]
    names = sorted({name for one in taken.values() for name in one["registers"]})
    lines = [f"{'registers a thread':<20}" + "".join(f"{name:>9}" for name in taken)]
    lines += [
        f"{name:<20}"
        + "".join(f"{one['registers'].get(name, '–'):>9}" for one in taken.values())
        for name in names
    ]
    return "\n".join([*lines, f"spilled, in all cases: {record['spilled']} bytes"])
