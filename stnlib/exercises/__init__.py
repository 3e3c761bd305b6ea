"""Answers to the book's exercises, checked: right, or what is wrong with them."""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

from ._judges import Exercise, Verdict, Wrong

__all__ = ["Verdict", "check"]

_CHAPTERS = range(1, 8)
_NONE = object()


def check(name: str, answer: Any = _NONE) -> Verdict:
    """Say whether an answer to an exercise of the book is right, or what is wrong with it.

    Parameters
    ----------
    name : str
        The exercise's number in the book, such as ``"3.4"``.
    answer : object, optional
        What the exercise asks for: a number, an array, a word, a kernel's source, a class or a function. A function is
        called with inputs of several kinds, and so are the methods of a class. Without an answer, the verdict says
        what is asked for.

    Returns
    -------
    Verdict
        True if the answer is right, and otherwise False; it shows itself as one or two sentences, so it can be the last
        line of a cell, be printed, or stand in an ``assert``. Nothing is printed.

    Raises
    ------
    TypeError
        If the name is not a string: 3.1 and 3.10 are one number, and two exercises.
    ValueError
        If there is no such exercise.
    ModuleNotFoundError
        If the exercise needs a package that is not installed.

    Notes
    -----
    Some exercises ask for a proof, a measurement or research, which no program can judge; the verdict says so, and is
    False. Arrays may come from NumPy, PyTorch or CuPy, or be lists.

    Examples
    --------
    >>> check("2.7")
    Exercise 2.7 asks for two numbers: the factor in front of max |f''|, and how many times smaller the error becomes.
    >>> check("2.7", (0.25, 4))
    Exercise 2.7: not yet. The factor: the parabola that touches f has f''/2 in front of its square.
    >>> bool(check("2.7", (1 / 8, 4)))
    True
    """
    if not isinstance(name, str):
        raise TypeError(
            f"name: expected the exercise's number as a string, such as "
            f'"3.4", got {type(name).__name__} {name!r}'
        )
    exercise = _find(name)
    if answer is _NONE or exercise.judge is None:
        return Verdict(False, exercise.describe(name))
    try:
        exercise.judge(answer)
    except Wrong as wrong:
        return Verdict(False, f"Exercise {name}: not yet. {wrong}")
    return Verdict(True, f"Exercise {name}: right.")


def _find(name: str) -> Exercise:
    match = re.fullmatch(r"([0-9])\.[0-9]+", name)
    if match is None or int(match[1]) not in _CHAPTERS:
        raise ValueError(f"name: there is no exercise {name!r}; there are {_known(*_CHAPTERS)}")
    exercises = _chapter(int(match[1]))
    if name not in exercises:
        raise ValueError(
            f"name: there is no exercise {name!r}; there are {_known(int(match[1]))}"
        )
    return exercises[name]


def _known(*chapters: int) -> str:
    return ", ".join(f"{n}.1 to {n}.{len(_chapter(n))}" for n in chapters)


@functools.cache
def _chapter(number: int) -> dict[str, Exercise]:
    """Return the exercises of a chapter by their numbers."""
    exercises = importlib.import_module(f".chapter{number}", __name__).EXERCISES
    return {f"{number}.{n}": exercise for n, exercise in enumerate(exercises, 1)}
