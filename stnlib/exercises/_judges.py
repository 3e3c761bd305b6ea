"""How an answer is compared with the right one, and what can be said of a wrong one without giving that away."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Judge = Callable[[Any], None]  # raises Wrong, or the answer is right
Mistake = tuple[str, Any]  # what to say, and the wrong answer that earns it


class Wrong(Exception):  # noqa: N818 -- a finding, and no error
    """What is wrong with an answer, in one or two sentences."""


@dataclass(frozen=True, repr=False)
class Verdict:
    """What `check` found. True if the answer is right; shown as its sentence.

    Attributes
    ----------
    right : bool
    sentence : str
    """

    right: bool
    sentence: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.sentence


class Exercise(NamedTuple):
    """What an exercise asks for, and who judges it: nobody where it is None."""

    wanted: str
    judge: Judge | None = None

    def describe(self, name: str) -> str:
        """Say what is asked for."""
        if self.judge is None:
            return (
                f"Exercise {name} asks for {self.wanted}, which no program can judge: "
                f"compare yours with the folded solution."
            )
        return f"Exercise {name} asks for {self.wanted}."


class Case(NamedTuple):
    """A call of the function that was asked for: what it is about ("for z = 4"), and the arguments."""

    about: str
    args: tuple[Any, ...]


# ---- Numbers and arrays ----------------------------------------------------------------------------------------------


def value(
    expected: Callable[[], Any],
    *,
    mistakes: Callable[[], Iterable[Mistake]] = tuple,
    names: Sequence[str] = (),
    rtol: float = 1e-6,
) -> Judge:
    """Judge a number or an array; ``names`` are those of its entries, or of its rows, for those that are wrong."""

    def judge(answer: Any) -> None:
        compare(answer, expected(), list(mistakes()), names=names, rtol=rtol)

    return judge


def compare(
    answer: Any,
    expected: Any,
    mistakes: Sequence[Mistake] = (),
    *,
    names: Sequence[str] = (),
    rtol: float = 1e-6,
) -> None:
    """Raise `Wrong` unless an answer is the expected array, to a relative error of the array's largest entry."""
    expected = np.asarray(expected, float)
    got = to_array(answer, expected.shape)
    _check_shape(got.shape, expected.shape)
    if not np.isfinite(got[np.isfinite(expected)]).all():
        what = "NaN" if np.isnan(got).any() else "infinity"
        raise Wrong(f"There is {what} in it.")
    if _close(got, expected, rtol):
        return
    for sentence, wrong in mistakes:
        if _same(got, wrong, rtol):
            raise Wrong(sentence)
    for sentence, wrong in _usual_mistakes(expected):
        if _same(got, wrong, rtol):
            raise Wrong(sentence)
    if digits := _rounded(got, expected):
        raise Wrong(
            f"Close: it looks rounded to {digits} decimal{'s' * (digits > 1)}. Give more, or a fraction."
        )
    raise Wrong(_difference(got, expected, names, rtol))


def to_array(answer: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return an answer as an array of float64, or say why it is none."""
    wanted = f"an array of shape {shape}" if shape else "a number"
    if answer is None:
        raise Wrong(f"It is None, and {wanted} was expected: is a return missing?")
    if callable(answer) and not hasattr(answer, "__array__"):
        raise Wrong(f"It is a function or a class, and {wanted} was expected: call it first.")
    if isinstance(answer, str | bytes | dict | set):
        raise Wrong(f"It is {kind(answer)}, and {wanted} was expected.")
    if hasattr(answer, "detach"):
        answer = answer.detach().cpu()
    elif hasattr(answer, "__cuda_array_interface__"):
        answer = answer.get()
    try:
        array = np.asarray(answer)
        if np.iscomplexobj(array):
            if np.abs(array.imag).max(initial=0.0) > 1e-9:
                raise Wrong("It is complex, and real numbers were expected.")
            array = array.real
        return array.astype(float)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(
            f"It is {kind(answer)} that makes no array, and {wanted} was expected."
        ) from None


def kind(answer: Any) -> str:
    """Return the name of an answer's type, with its article."""
    name = type(answer).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _check_shape(got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if got == expected:
        return
    said = f"Its shape is {got}, and {expected} was expected"
    if not expected:
        said = f"Its shape is {got}, and a single number was expected"
    if got[-2:] == (3, 3) and expected[-2:] == (2, 3):
        raise Wrong(f"{said}: leave out the last row, (0, 0, 1).")
    if got == (1, *expected):
        raise Wrong(f"{said}: leave out the first axis, of length 1.")
    if expected == (1, *got):
        raise Wrong(f"{said}: the first axis, of the batch, is missing.")
    if len(got) > 1 and sorted(got) == sorted(expected):
        raise Wrong(f"{said}: two axes have changed places.")
    if math.prod(got) == math.prod(expected) and expected:
        raise Wrong(f"{said}: as many numbers, arranged in another way.")
    raise Wrong(f"{said}.")


def _close(got: np.ndarray, expected: np.ndarray, rtol: float) -> bool:
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    return np.allclose(got, expected, rtol=rtol, atol=min(rtol, 1e-6) * scale + 1e-12)


def _same(got: np.ndarray, wrong: Any, rtol: float) -> bool:
    """Compare with a wrong answer, whose NaN may be anything."""
    wrong = np.asarray(wrong, float)
    if wrong.shape != got.shape:
        return False
    known = np.isfinite(wrong)
    return bool(known.any()) and _close(got[known], wrong[known], rtol)


def _usual_mistakes(expected: np.ndarray) -> Iterable[Mistake]:
    yield "The sign is the other way round.", -expected
    if expected.ndim >= 2 and expected.shape[-1] == expected.shape[-2]:
        yield (
            "It is transposed: rows and columns have changed places.",
            expected.swapaxes(-1, -2),
        )
    if expected.shape[-2:] == (2, 3):
        matrix = expected[..., :2]
        if (np.abs(np.linalg.det(matrix)) > 1e-12).all():
            back = np.linalg.inv(matrix)
            yield (
                "It is the inverse: it leads from the source to the target, or from where the picture goes.",
                np.concatenate((back, -back @ expected[..., 2:]), axis=-1),
            )
        swapped = expected[..., ::-1, :][..., [1, 0, 2]]
        yield "x and y have changed places: x comes first, and runs along the width.", swapped
        turned = expected.copy()
        turned[..., :2] = matrix.swapaxes(-1, -2)
        yield "Its left part is transposed, as if it turned the other way.", turned
        yield "The rows have changed places: the first makes x.", expected[..., ::-1, :]
    elif expected.ndim >= 1 and expected.shape[-1] == 2:
        yield (
            "The last axis is the other way round: x comes first, then y.",
            expected[..., ::-1],
        )
    if expected.ndim == 1 and expected.size > 2:
        yield "The order is the other way round.", expected[::-1]
    if expected.ndim >= 2 and expected.size > 4:
        for axis, line in ((-1, "row"), (-2, "column")):
            yield f"Each {line} runs the other way round.", np.flip(expected, axis)
    yield "Degrees, and radians were expected.", np.rad2deg(expected)
    yield "Radians, and degrees were expected.", np.deg2rad(expected)
    yield "A hundred times too large: per cent?", 100 * expected
    yield "A hundred times too small: is it to be in per cent?", expected / 100
    for step, amount in ((0.5, "a half"), (1.0, "one")):
        for sign, side in ((1, "large"), (-1, "small")):
            yield f"Off by {amount}: too {side}.", expected + sign * step
    if expected.size < 3:
        for factor, said in ((2, "Twice too large."), (0.5, "Half of what it should be.")):
            yield said, factor * expected


def _rounded(got: np.ndarray, expected: np.ndarray) -> int | None:
    """Return to how many decimals an answer has been rounded, if it looks like it."""
    off = np.abs(got - expected).max()
    for digits in range(1, 9):
        if (
            np.allclose(got, np.round(got, digits), rtol=0, atol=1e-12)
            and off <= 0.51 * 10.0**-digits
        ):
            return digits if off < 0.1 * np.abs(expected).max() else None
    return None


def _difference(
    got: np.ndarray, expected: np.ndarray, names: Sequence[str], rtol: float
) -> str:
    scale = np.abs(expected).max()
    if names and len(names) == len(expected):
        good = [_close(g, e, rtol) for g, e in zip(got, expected, strict=True)]
        if any(good):
            fine = _listed([name for name, ok in zip(names, good, strict=True) if ok])
            look = _listed([name for name, ok in zip(names, good, strict=True) if not ok])
            return f"Right: {fine}. Look again at: {look}."
    if np.abs(got - expected).max() < 0.01 * scale:
        return "Close, by less than a hundredth, but not the same."
    if (
        expected.size > 2
        and np.ptp(expected) > 1e-9 * scale
        and np.abs(got).max() > 1e-9 * scale
    ):
        factor = np.sum(got * expected) / np.sum(expected**2)
        if _close(got, factor * expected, rtol):
            return "All of it is off by one and the same factor."
        if _close(got, expected + np.mean(got - expected), rtol):
            return "All of it is off by one and the same amount."
    good = np.isclose(got, expected, rtol=rtol, atol=min(rtol, 1e-6) * scale)
    if expected.size > 1 and good.any():
        return f"{good.sum()} of {good.size} numbers are right{_where(good)}."
    return (
        "The numbers are not the right ones."
        if expected.size > 1
        else "It is not the right number."
    )


def _where(good: np.ndarray) -> str:
    """Say where the right numbers are, if one can say it in a few words."""
    if good.shape == (2, 3):
        for place, said in (
            ((slice(None), slice(0, 2)), "the left part is, and the shift is not"),
            ((slice(None), slice(2, 3)), "the shift is, and the left part is not"),
            ((slice(0, 1),), "the first row is, and the second is not"),
            ((slice(1, 2),), "the second row is, and the first is not"),
        ):
            inside = np.zeros_like(good)
            inside[place] = True
            if (good == inside).all():
                return f": {said}"
    if good.ndim >= 2 and min(good.shape[-2:]) > 4:
        middle = good[..., 1:-1, 1:-1]
        if middle.all():
            return ": the middle is, and the edge is not"
        border = good.copy()
        border[..., 1:-1, 1:-1] = True
        if border.all() and not middle.any():
            return ": the edge is, and the middle is not"
    return ""


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# ---- Words, and answers of several parts -----------------------------------------------------------------------------


def choice(right: str, hints: dict[str, str]) -> Judge:
    """Judge a word; ``hints`` has what to say for each of the wrong ones."""
    options = _listed(sorted([repr(right), *map(repr, hints)]))

    def judge(answer: Any) -> None:
        said = answer.strip().lower() if isinstance(answer, str) else answer
        if said == right:
            return
        if isinstance(said, str) and said in hints:
            raise Wrong(hints[said])
        raise Wrong(f"{answer!r} is none of the words to choose from: {options}.")

    return judge


def some_of(right: set[str], others: dict[str, str]) -> Judge:
    """Judge a set of words; ``others`` has what to say for each word too many."""
    options = _listed(sorted(map(repr, [*right, *others])))

    def judge(answer: Any) -> None:
        if isinstance(answer, str) or not isinstance(answer, Iterable):
            raise Wrong(f"It is {kind(answer)}, and a set or a list of words was expected.")
        said = {str(word).strip().lower() for word in answer}
        if strange := said - right - set(others):
            raise Wrong(
                f"{sorted(strange)[0]!r} is none of the words to choose from: {options}."
            )
        if more := sorted(said - right):
            raise Wrong(f"One too many, {more[0]!r}. {others[more[0]]}")
        if less := len(right - said):
            raise Wrong(
                f"What is named belongs to it, but {'one is' if less == 1 else f'{less} are'} missing."
            )

    return judge


def parts(judges: dict[str, Judge]) -> Judge:
    """Judge a sequence, each part by a judge of its own."""

    def judge(answer: Any) -> None:
        if isinstance(answer, str | dict | set) or not hasattr(answer, "__len__"):
            raise Wrong(
                f"It is {kind(answer)}, and a tuple was expected: {_listed(list(judges))}."
            )
        if len(answer) != len(judges):
            raise Wrong(
                f"It has {len(answer)} parts, and {len(judges)} were expected: {_listed(list(judges))}."
            )
        for (name, each), part in zip(judges.items(), answer, strict=True):
            try:
                each(part)
            except Wrong as wrong:
                said = str(wrong)
                first = (
                    said if said.startswith(("NaN", "PyTorch")) else said[0].lower() + said[1:]
                )
                raise Wrong(f"{name[0].upper()}{name[1:]}: {first}") from None

    return judge


# ---- Functions -------------------------------------------------------------------------------------------------------


def function(
    reference: Callable[..., Any],
    cases: Callable[[], Iterable[Case]],
    *,
    mistakes: Sequence[tuple[str, Callable[..., Any]]] = (),
    names: Sequence[str] = (),
    rtol: float = 1e-6,
) -> Judge:
    """Judge a function by calling it.

    Parameters
    ----------
    reference
        What it should do.
    cases
        The calls. A sentence that says for which of them it is right is put together from what they are about.
    mistakes
        What to say, and a function that makes this mistake.
    names
        Of the entries of what it returns.
    """

    def judge(answer: Any) -> None:
        if not callable(answer):
            raise Wrong(
                f"It is {kind(answer)}, and a function was expected: hand over the function itself."
            )
        tried = []
        for case in cases():
            result = _call(answer, case)
            expected = reference(*copy.deepcopy(case.args))
            tried.append((case, result, expected))
        faults: list[str | None] = []
        for _, result, expected in tried:
            try:
                compare(result, expected, names=names, rtol=rtol)
                faults.append(None)
            except Wrong as wrong:
                faults.append(str(wrong))
        if not any(faults):
            return
        for sentence, wrong_one in mistakes:
            if all(_agrees(result, wrong_one, case, rtol) for case, result, _ in tried):
                raise Wrong(sentence)
        bad = next(n for n, fault in enumerate(faults) if fault)
        good = list(
            dict.fromkeys(tried[n][0].about for n, fault in enumerate(faults) if not fault)
        )
        about = tried[bad][0].about
        good = [each for each in good if each != about][:2]
        begin = (
            f"It is right {_listed(good)}, and wrong {about}. "
            if good
            else f"It is wrong {about}. "
        )
        raise Wrong(begin + str(faults[bad]))

    return judge


def _call(called: Callable[..., Any], case: Case) -> Any:
    """Call a function; raise `Wrong` if it takes other arguments, raises, or changes them."""
    try:
        inspect.signature(called).bind(*case.args)
    except TypeError:
        raise Wrong(
            f"It is called with {len(case.args)} argument{'s' * (len(case.args) > 1)}, "
            f"and takes {inspect.signature(called)}."
        ) from None
    except ValueError:
        pass  # some built-in functions have no signature
    given = copy.deepcopy(case.args)
    try:
        with np.errstate(all="ignore"):
            result = called(*given)
    except Wrong:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0][:100]
        raise Wrong(f"It raises {type(error).__name__} {case.about}: {said}") from None
    for before, after in zip(case.args, given, strict=True):
        if hasattr(before, "shape") and not np.array_equal(
            to_array(before, before.shape), to_array(after, before.shape), equal_nan=True
        ):
            raise Wrong("It changes the array that it is handed: work on a copy.")
    return result


def _agrees(result: Any, wrong_one: Callable[..., Any], case: Case, rtol: float) -> bool:
    wrong = np.asarray(wrong_one(*copy.deepcopy(case.args)), float)
    try:
        return _same(to_array(result, wrong.shape), wrong, rtol)
    except Wrong:
        return False
