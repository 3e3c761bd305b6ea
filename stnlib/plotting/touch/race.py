"""Three threads that add to the same pixel of a gradient, one instruction at a time, in the reader's order (chapter 4).

``book/_static/race.js`` computes and draws the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import touch
from ..style import BLUE, GREEN, GREY, RED

SHARES = ((1.0, 2.0, 4.0), (0.3, 0.7, 0.9), (1e8, -1e8, 1.0))
"""What the threads add: whose sum tells who is lost; whose sum is rounded; whose sum depends on the order by far."""

START = (0, 1, 0, 0, 1, 1)  # both read before either writes; thread 2 is yet to come
READ, ADD, WRITE, ATOMIC = "reads", "adds", "writes", "atomicAdd"
COLOURS = {READ: BLUE, ADD: GREY, WRITE: RED, ATOMIC: GREEN}

# The drawing of the steps: a column of boxes a thread and one for the memory, and a row a step.
COLUMN, ROW, TOP, BOX = 84, 36, 42, (76, 30)
SLIM = 28  # a row of the other drawing
EDGE = 8
MOST = 9  # steps
VIEW = (0, 0, 4 * COLUMN + EDGE, TOP + MOST * ROW)
SLIM_VIEW = (0, 0, 4 * COLUMN + EDGE, TOP + MOST * SLIM)


class Step(NamedTuple):
    """One instruction of one thread: what it does, the number it does it with, and what is in memory after it.

    ``within`` are the threads whose shares that memory holds.
    """

    thread: int
    does: str
    number: float
    memory: float
    within: frozenset[int]


def simulate(shares: Sequence[float], order: Sequence[int], atomic: bool = False) -> list[Step]:
    """Let threads add to one place in memory, which holds 0, in float32.

    Parameters
    ----------
    shares : sequence of float
        What each thread adds.
    order : sequence of int
        Which thread takes the next step: a thread's first reads, its second adds, its third writes.
    atomic : bool
        Whether each does all three in one step.

    Returns
    -------
    list of Step

    Raises
    ------
    ValueError
        If the order names a thread that is not there, or one that has no step left.

    Examples
    --------
    >>> [(step.thread, step.does, step.number) for step in simulate((1, 2), (0, 1, 0, 0, 1, 1))]
    [(0, 'reads', 0.0), (1, 'reads', 0.0), (0, 'adds', 1.0), (0, 'writes', 1.0), (1, 'adds', 2.0), (1, 'writes', 2.0)]
    >>> simulate((1, 2), (0, 1), atomic=True)[-1].memory
    3.0
    """
    memory, within = np.float32(0), frozenset[int]()
    held = [(memory, within)] * len(shares)  # a register a thread
    does = (ATOMIC,) if atomic else (READ, ADD, WRITE)
    taken, steps = [0] * len(shares), []
    for thread in order:
        if not 0 <= thread < len(shares) or taken[thread] == len(does):
            raise ValueError(
                f"order: expected each of {len(shares)} threads at most {len(does)} times, got {tuple(order)}"
            )
        what = does[taken[thread]]
        taken[thread] += 1
        if what in (READ, ATOMIC):
            held[thread] = memory, within
        if what in (ADD, ATOMIC):
            seen, whose = held[thread]
            held[thread] = np.float32(seen + np.float32(shares[thread])), whose | {thread}
        if what in (WRITE, ATOMIC):
            memory, within = held[thread]
        steps.append(Step(thread, what, float(held[thread][0]), float(memory), within))
    return steps


def finals(shares: Sequence[float], atomic: bool = False) -> dict[float, int]:
    """Return what memory may hold at the end, in ascending order, and after how many orders of the steps it does.

    Parameters
    ----------
    shares : sequence of float
    atomic : bool

    Returns
    -------
    dict

    Examples
    --------
    >>> finals((1, 2))
    {1.0: 9, 2.0: 9, 3.0: 2}
    >>> finals((1, 2), atomic=True)
    {3.0: 2}
    """
    found: Counter[float] = Counter()

    def go_on(order: list[int], left: list[int]) -> None:
        if not any(left):
            found[simulate(shares, order, atomic)[-1].memory] += 1
        for thread, steps in enumerate(left):
            if steps:
                rest = [n - (k == thread) for k, n in enumerate(left)]
                go_on([*order, thread], rest)

    go_on([], [1 if atomic else 3] * len(shares))
    return dict(sorted(found.items()))


def text(value: float) -> str:
    """Return a number of float32 in the fewest digits that tell it from its neighbours.

    Examples
    --------
    >>> text(0.3), text(np.float32(0.3) + np.float32(0.6)), text(-1e8)
    ('0.3', '0.90000004', '−1e8')
    """
    value = float(np.float32(value))
    digits = next(p for p in range(1, 10) if np.float32(f"{value:.{p}g}") == np.float32(value))
    if abs(value) < 1e6:
        short = f"{float(f'{value:.{digits}g}'):.9g}"
    else:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        short = f"{mantissa}e{int(power)}"
    return short.replace("-", "−")


def sentence(shares: Sequence[float], order: Sequence[int], atomic: bool = False) -> str:
    """Return what is to be said of the steps taken so far: the same words as in ``race.js``."""
    steps, most = simulate(shares, order, atomic), len(shares) * (1 if atomic else 3)
    if not steps:
        return f"Memory holds 0. {len(shares)} threads are to add {_list(shares)}. Which goes first?"
    last = steps[-1]
    verb = {
        READ: f"reads {text(last.number)}",
        ADD: f"adds {text(shares[last.thread])} to what it has read: {text(last.number)}",
        WRITE: f"writes {text(last.number)}",
        ATOMIC: f"reads, adds and writes in one step: {text(last.number)}",
    }[last.does]
    said = f"Step {len(steps)} of {most}: thread {last.thread} {verb}. Memory holds {text(last.memory)}."
    written = {step.thread for step in steps if step.does in (WRITE, ATOMIC)}
    gone = sorted(written - last.within)
    if gone:
        said += f" Lost: {' and '.join(f'thread {t}’s {text(shares[t])}' for t in gone)}."
    if len(steps) == most:
        exact = sum(shares)
        right = np.float32(last.memory) == np.float32(exact)
        said += f" All are done{', and the sum is right' if right else f'; it should be {text(exact)}'}."
        if not gone and not right:
            said += " No addition is lost: this order rounds like that."
    return said


def _list(shares: Sequence[float]) -> str:
    *most, last = map(text, shares)
    return f"{', '.join(most)} and {last}"


def drawing(shares: Sequence[float], order: Sequence[int], atomic: bool = False) -> str:
    """Return the inside of the picture of the steps: the same as ``race.js`` draws."""
    steps, memory = simulate(shares, order, atomic), len(shares)
    parts = [
        _word(k, 16, f"thread {k}") + _word(k, 32, f"adds {text(share)}")
        for k, share in enumerate(shares)
    ]
    parts += [_word(memory, 16, "memory"), _word(memory, 32, "0")]
    for row, step in enumerate(steps):
        y, colour = TOP + row * ROW, COLOURS[step.does]
        middle = y + BOX[1] / 2
        near, far = EDGE + step.thread * COLUMN + BOX[0], EDGE + memory * COLUMN
        if step.does != ADD:
            ends = (far, near) if step.does == READ else (near, far)
            parts.append(_arrow(*ends, middle, colour))
        parts.append(_box(step.thread, y, colour))
        parts.append(
            _word(step.thread, y + 13, step.does)
            + _word(step.thread, y + 26, text(step.number))
        )
        if step.does in (WRITE, ATOMIC):
            parts.append(_box(memory, y, colour))
        parts.append(_word(memory, y + 20, text(step.memory)))
    return "".join(parts)


def _x(column: int) -> int:
    return EDGE + column * COLUMN


def _word(column: int, y: float, word: str) -> str:
    return f'<text x="{_x(column) + BOX[0] // 2}" y="{y:g}">{word}</text>'


def _box(column: int, y: float, colour: str) -> str:
    return (
        f'<rect x="{_x(column)}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="5" '
        f'fill="{colour}" stroke="{colour}"></rect>'
    )


def _arrow(start: float, end: float, y: float, colour: str) -> str:
    """Return a dotted line with a head at its end."""
    back = end - 6 if end > start else end + 6
    return (
        f'<path d="M{start:g} {y:g}H{end:g}" stroke="{colour}"></path>'
        f'<path class="head" d="M{back:g} {y - 4:g}L{end:g} {y:g}L{back:g} {y + 4:g}" stroke="{colour}"></path>'
    )


def outcomes(shares: Sequence[float], order: Sequence[int], atomic: bool = False) -> str:
    """Return the inside of the picture of where all orders end: the same as ``race.js`` draws."""
    found, steps = finals(shares, atomic), simulate(shares, order, atomic)
    done = len(steps) == len(shares) * (1 if atomic else 3)
    most, exact = max(found.values()), float(np.float32(sum(shares)))
    parts = [
        '<text x="126" y="16" class="end">memory at the end</text>'
        f'<text x="138" y="16" class="start">orders, of {sum(found.values()):,}</text>'
    ]
    for row, (value, count) in enumerate(found.items()):
        y = TOP + row * SLIM
        colour = GREEN if value == exact else RED
        here = done and value == steps[-1].memory
        width = round(130 * count / most, 1)
        mark, words = (' class="here"', " ← here") if here else ("", "")
        parts.append(
            f'<text x="126" y="{y + 20}" class="end">{text(value)}</text>'
            f'<rect x="138" y="{y + 5}" width="{width:g}" height="20" fill="{colour}" stroke="{colour}"{mark}></rect>'
            f'<text x="{144 + width:g}" y="{y + 20}" class="start">{count:,}{words}</text>'
        )
    return "".join(parts)


def race() -> Any:
    """Return the figure in which a reader chooses which thread takes the next step.

    Returns
    -------
    IPython.display.HTML
    """
    shares = SHARES[0]
    panels = [
        touch.panel(
            "what the threads do, downwards in time",
            touch.svg(
                VIEW,
                "The steps of three threads, and what memory holds after each",
                drawing(shares, START),
            ),
        ),
        touch.panel(
            "where all orders end",
            touch.svg(
                SLIM_VIEW,
                "For each number that memory may end with, in how many orders",
                outcomes(shares, START),
            ),
        ),
    ]
    told = {"shares": SHARES, "start": START}
    return touch.figure("race", told, panels, sentence(shares, START))
