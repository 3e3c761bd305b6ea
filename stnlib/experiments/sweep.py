"""Sweeps: many runs at once, on this machine or on a Dask cluster, shared between commands (chapter 7)."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .._extras import require

require("torch", "train", "stnlib.experiments.sweep")

import torch  # noqa: E402


def run_all(
    function: Callable[..., Any],
    jobs: Iterable[tuple[str, Sequence[Any]]],
    n_jobs: int = 1,
    dask: str | None = None,
) -> Iterator[Any]:
    """Call a function for each of many jobs, some at once, each on one thread, and yield what it returns as it comes.

    Parameters
    ----------
    function : callable
    jobs : iterable of (str, sequence)
        A job's name, and the arguments for the function. The next one is asked for when there is a process for it.
    n_jobs : int, default 1
        Processes; negative numbers count from the number of cores, as joblib does: -1 is all of them.
    dask : str, optional
        The address of a Dask cluster's scheduler, such as ``tcp://10.0.0.1:8786``. Its workers, each of one thread,
        take the place of processes here; the function's module must be installed on them.

    Yields
    ------
    object

    Raises
    ------
    ChildProcessError
        After all others are done, if jobs have failed: it names each, and says what it raised.
    OSError, ValueError
        If there is no cluster at the address; if it has no workers, or workers of several threads.

    Examples
    --------
    >>> sorted(run_all(pow, [("a square", (3, 2)), ("a cube", (2, 3))]))
    [8, 9]
    """
    joblib = require("joblib", "train", "a sweep of many runs")
    failed, broken = [], []

    def calls() -> Iterator[Any]:
        try:
            for name, arguments in jobs:
                yield joblib.delayed(_attempt)(name, function, arguments)
        except (
            Exception
        ) as error:  # joblib asks for jobs in a thread of its own, where it would be lost
            broken.append(error)

    with _processes(joblib, dask):
        options = {
            "return_as": "generator_unordered",
            "pre_dispatch": "n_jobs",
            "batch_size": 1,
        }
        if dask is not None:
            n_jobs = -1
        for name, result, error in joblib.Parallel(n_jobs=n_jobs, **options)(calls()):
            if error is None:
                yield result
            else:
                failed.append(f"{name} ({error})")
    if broken:
        raise broken[0]
    if failed:
        raise ChildProcessError(
            f"{len(failed)} {'job' if len(failed) == 1 else 'jobs'} failed: {'; '.join(failed)}; "
            f"the others are done"
        )


def _attempt(
    name: str, function: Callable[..., Any], arguments: Sequence[Any]
) -> tuple[str, Any, str | None]:
    """Return a job's name, what it returned, and what it raised, if anything."""
    torch.set_num_threads(1)
    with contextlib.suppress(ModuleNotFoundError):
        import numba

        numba.set_num_threads(1)
    try:
        return name, function(*arguments), None
    except Exception as error:  # it must not take the others along
        return name, None, f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _processes(joblib: Any, dask: str | None) -> Iterator[None]:
    if dask is None:
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            yield
        return
    try:
        import distributed
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'dask: a sweep on a cluster needs Dask, which is not installed: pip install "dask[distributed]"',
            name="distributed",
        ) from None
    with distributed.Client(dask, set_as_default=False) as client:
        threads = client.nthreads()
        if not threads or max(threads.values()) > 1:
            raise ValueError(
                f"dask: expected workers of one thread each at {dask}, got {threads or 'none'}; "
                f"start them with dask worker {dask} --nworkers … --nthreads 1"
            )  # random numbers are drawn from one generator for all threads of a process
        with joblib.parallel_config("dask", client=client):
            yield


class Claims:
    """The runs that this command is at, kept from other commands by locks on files.

    A lock ends with its process: what was killed leaves nothing behind that would stop the next command.

    Parameters
    ----------
    path : Path
        The file of records. The locks lie beside it, hidden.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Claims(Path(folder) / "runs.json") as mine, Claims(Path(folder) / "runs.json") as others:
    ...         print(mine.take("a"), others.take("a"), others.take("b"))
    ...         mine.release("a")
    ...         print(others.take("a"))
    True False True
    True
    """

    def __init__(self, path: Path) -> None:
        self.path, self.locks = path, dict[Hashable, Any]()

    def take(self, run: Hashable) -> bool:
        """Claim a run, known by what is the same in every process, and return whether no other command has it."""
        filelock = require("filelock", "train", "a sweep of many runs")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        name = f".{self.path.name}.{zlib.crc32(repr(run).encode()):08x}.lock"
        # Taken in one thread, and released in another.
        lock = filelock.FileLock(self.path.with_name(name), thread_local=False)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
        self.locks[run] = lock
        return True

    def release(self, run: Hashable) -> None:
        """Let go of a run, done or not."""
        lock = self.locks.pop(run)
        with contextlib.suppress(OSError):  # Windows keeps files that are open
            Path(lock.lock_file).unlink()
        lock.release()

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *raised: object) -> None:
        for run in list(self.locks):
            self.release(run)
