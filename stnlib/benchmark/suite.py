"""The whole of `stnlib bench`: what was asked for, checked, timed, and put into one record."""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from .._extras import require
from ..experiments import records
from . import BASELINE, OURS, SIZES, USUAL, first_call, memory, scaling, training
from .cases import Case, bytes_moved, errors
from .contenders import CONTENDERS, Run, tolerances
from .timing import CLOCKS, copy, interleave, ratio, summary

Record = dict[str, Any]
Job = tuple[str, Callable[[], None]]
"""What it does, in a word or two, and the call that does it."""

PACKAGES = (
    *("numba", "scipy", "kornia", "cupy-cuda12x", "cupy-cuda13x"),
    *("opencv-python", "opencv-python-headless"),
)


class Plan(NamedTuple):
    """What to measure; an empty sequence stands for what is usual on the device."""

    device: str = "cpu"
    sizes: Sequence[str] = ()
    directions: Sequence[str] = ()
    contenders: Sequence[str] = ()
    threads: int = 2
    rounds: int = 25
    cases: bool = True
    scaling: bool = False
    first_call: bool = False
    training: bool = False


def run(
    plan: Plan, command: str = "", track: Callable[[Sequence[Job]], Iterable[Job]] = iter
) -> Record:
    """Measure what a plan says.

    Parameters
    ----------
    plan : Plan
    command : str, optional
        What was typed.
    track : callable, optional
        Handed the jobs, yields them one by one: shows how far it is.

    Returns
    -------
    dict
        The command, the environment, when it began and how many seconds it took, and what was measured: ``cases``, a
        list with one entry a size, direction and contender (see `measure`), ``scaling``, ``first_call`` and
        ``training``.

    Raises
    ------
    ModuleNotFoundError, RuntimeError
        If a GPU is asked for, and CuPy or the GPU is missing.
    """
    started, start = datetime.now(UTC), time.perf_counter()
    record: Record = {
        "command": command,
        "started": started.isoformat(timespec="seconds"),
        "environment": _environment(plan.device),
        **{name: getattr(plan, name) for name in ("device", "threads", "rounds")},
    }
    with _threads(plan.threads):
        for _, job in track(_jobs(plan, record)):
            job()
    record["seconds"] = round(time.perf_counter() - start, 1)
    return _rounded(record)


def _jobs(plan: Plan, record: Record) -> list[Job]:
    """Return all that a plan takes, in order; each job adds what it found to a record."""
    device, todo = plan.device, []

    def add(part: str, what: str, measure: Callable[..., Any], *arguments: Any) -> None:
        found = record.setdefault(part, [])
        todo.append((what, lambda: found.extend(_tried(measure, *arguments))))

    sizes = (plan.sizes or SIZES[device]) if plan.cases else ()
    cases = {name: Case(name, device) for name in sizes}
    for name, case in cases.items():
        for way in plan.directions or USUAL[device]:
            contenders = _suitable(plan, way)
            add("cases", f"{name} {way}", measure, contenders, case, way, plan.rounds)
    if plan.scaling:
        for series in scaling.series(device):
            for way in scaling.DIRECTIONS:
                about = series, way, device, plan.rounds
                add("scaling", f"{way} over {series}", scaling.measure, *about)
    if plan.first_call:
        for way in scaling.DIRECTIONS:
            add("first_call", f"the first call, {way}", first_call.measure, way, device)
    if plan.training:
        add("training", "training", training.compare, device, max(1, plan.rounds // 8))
    if cases:  # last, since nothing can be timed afterwards
        todo.append(("peak memory", lambda: _add_memory(record["cases"], cases)))
    return todo


def _suitable(plan: Plan, direction: str) -> list[str]:
    wanted = {BASELINE, *(plan.contenders or CONTENDERS)}
    return [
        name
        for name, one in CONTENDERS.items()
        if name in wanted and plan.device in one.devices and direction in one.directions
    ]


def _tried(measure: Callable[..., Any], *arguments: Any) -> list[Record]:
    """Return what is measured or, if it fails, why: what others measured is not lost."""
    try:
        found = measure(*arguments)
    except (ModuleNotFoundError, NotImplementedError) as error:
        return [{"skipped": str(error)}]
    except Exception as error:  # whatever it is that a library raises
        first = str(error).strip().partition("\n")[0]
        return [{"skipped": f"failed: {type(error).__name__}: {first}"}]
    return found if isinstance(found, list) else [found]


def measure(contenders: Sequence[str], case: Case, direction: str, rounds: int) -> list[Record]:
    """Compare contenders with the reference in float64, and time those that are right.

    Parameters
    ----------
    contenders : sequence of str
        Of `CONTENDERS`.
    case : Case
    direction : str
    rounds : int

    Returns
    -------
    list of dict
        One a contender, and one for the copy of the bytes that must move. Its ``errors`` (see `cases.errors`),
        ``seconds``, ``ratio``, how many times as long PyTorch takes, and ``of_copy_bandwidth``, how many times as long
        the copy takes, these three with median and quartiles; and ``rounds``, the seconds a call in each. One that
        could not be measured has ``skipped``, the reason.
    """
    found: dict[str, Record] = {}
    calls: dict[str, Run] = {}
    for name in contenders:
        about = {"size": case.name, "direction": direction, "contender": name}
        found[name] = about | _tried(_checked, name, case, direction, calls)[0]
    if calls:
        moved = bytes_moved(case.size, direction)
        turns = {"copy": copy(moved, case.device), **calls}
        times = interleave(turns, CLOCKS[case.device], rounds)
        found["copy"] = {"size": case.name, "direction": direction, "contender": "copy"}
        for name, own in times.items():
            compared = BASELINE in times and name != "copy"
            found[name] |= {
                "shape": case.size._asdict(),
                "bytes": moved,
                "seconds": summary(own),
                "ratio": ratio(own, times[BASELINE]) if compared else None,
                "of_copy_bandwidth": ratio(own, times["copy"]),
                "rounds": own,
            }
    return list(found.values())


def _checked(name: str, case: Case, direction: str, calls: dict[str, Run]) -> Record:
    """Return a contender's errors, and add its call to the others if they are no larger than rounding explains."""
    call = CONTENDERS[name].make(case, direction)
    found = errors(call(), case, direction)
    limits = tolerances(name, case)
    wrong = [f"{what} by {error:.2g}" for what, error in found.items() if error > limits[what]]
    if wrong:
        return {"skipped": f"wrong, and so not timed: off in {', '.join(wrong)}"}
    calls[name] = call
    return {"errors": found}


def _add_memory(found: Sequence[Record], cases: Mapping[str, Case]) -> None:
    for one in found:
        if "errors" in one:
            case = cases[one["size"]]
            call = CONTENDERS[one["contender"]].make(case, one["direction"])
            one["peak_memory"] = memory.peak(call, case.device)


def wrong_engines(record: Record) -> list[str]:
    """Return the package's own contenders that were not timed because they are wrong."""
    wrong = {
        one["contender"]
        for one in record.get("cases", ())
        if one.get("skipped", "").startswith("wrong")
    }
    return sorted(wrong & set(OURS))


def _environment(device: str) -> Record:
    """Return versions and hardware, and how busy the machine was; raise if the device is a GPU, and there is none."""
    found: Record = dict(records.environment(*PACKAGES))
    if device == "cuda":
        cupy = require("cupy", "cuda13", "--device cuda")
        if not cupy.cuda.is_available():
            raise RuntimeError("CuPy finds no GPU; --device cpu runs without one")
        runtime = cupy.cuda.runtime
        found["gpu"] = runtime.getDeviceProperties(runtime.getDevice())["name"].decode()
        found["cuda"] = runtime.runtimeGetVersion()
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 2)
    return found


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Make the engine and whichever libraries are installed use so many threads in a ``with`` block."""
    before: list[tuple[Callable[[Any], Any], Any]] = []
    with contextlib.suppress(ImportError):  # a GPU's engine needs no Numba, nor one that works
        from ..engines import cpu_threads

        before.append((cpu_threads.set_num_threads, None))
    for name, setter, getter in (
        ("torch", "set_num_threads", "get_num_threads"),
        ("cv2", "setNumThreads", "getNumThreads"),
    ):
        with contextlib.suppress(ModuleNotFoundError):
            library = importlib.import_module(name)
            before.append((getattr(library, setter), getattr(library, getter)()))
    for set_number, _ in before:
        set_number(count)
    try:
        yield
    finally:
        for set_number, number in before:
            set_number(number)


def _rounded(value: Any) -> Any:
    """Return a record with its figures to five digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
