import builtins
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch

from stnlib.experiments import records
from stnlib.experiments.sweep import Claims, run_all

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the commands are forked")
SCRIPT = Path(__file__).with_name("run_sweep.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, 0, -9, 0], done.stderr
    return folder


EXPECTED = {(data, seed) for data in ("R", "RTS", "P", "E", "TC") for seed in (0, 1)}


def runs(path):
    return [(record["data"], record["seed"]) for record in records.read(path, list)]


def begun(path):
    lines = path.read_text().splitlines()
    return Counter(
        (line.removeprefix("fcn/")[:-8], int(line[-1])) for line in lines
    )  # fcn/R, seed 0


@on_linux
def test_two_commands_on_a_cluster_share_the_runs_and_repeat_none(folder):
    found = records.read(folder / "both.json", list)
    assert sorted(runs(folder / "both.json")) == sorted(EXPECTED)
    assert begun(folder / "both.log") == Counter(EXPECTED)
    assert {record["command"] for record in found} == {"a", "b"}
    assert len({record["worker"] for record in found}) == 2


@on_linux
def test_a_killed_command_goes_on_where_it_was(folder):
    before = records.read(folder / "before.json", list)
    after = records.read(folder / "killed.json", list)
    assert len(before) == 3
    assert after[:3] == before
    assert sorted(runs(folder / "killed.json")) == sorted(EXPECTED)
    times = begun(folder / "killed.log")
    assert all(times[run] == 1 for run in runs(folder / "before.json"))
    assert sum(times.values()) <= 10 + 2  # at most what both workers were at


@on_linux
def test_no_lock_of_a_run_is_left(folder):
    assert sorted(path.name for path in folder.glob(".*")) == [
        ".both.json.lock",
        ".killed.json.lock",
    ]


def gather(found, function, jobs):
    """Keep what comes, in two processes, until something is raised."""
    for result in run_all(function, jobs, n_jobs=2):
        found.append(result)


def about_itself(number):
    if number == 2:
        raise ValueError("two is no good")
    return number, os.getpid(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


def test_local_processes_run_on_one_thread_each_and_one_failure_loses_no_other():
    found, jobs = [], ((f"job {n}", (n,)) for n in range(8))
    with pytest.raises(ChildProcessError) as said:
        gather(found, about_itself, jobs)
    assert sorted(number for number, *_ in found) == [0, 1, 3, 4, 5, 6, 7]
    assert {(threads, variable) for *_, threads, variable in found} == {(1, "1")}
    assert os.getpid() not in {process for _, process, *_ in found}
    assert (
        str(said.value)
        == "1 job failed: job 2 (ValueError: two is no good); the others are done"
    )


def test_results_come_as_they_are_made_and_jobs_are_asked_for_when_needed():
    log = []

    def jobs():
        for n in range(3):
            log.append(f"asked for {n}")
            yield str(n), (n,)

    for result in run_all(lambda n: n, jobs()):
        log.append(f"got {result}")
    assert log == [f"{what} {n}" for n in range(3) for what in ("asked for", "got")]


def test_every_failure_is_named():
    with pytest.raises(ChildProcessError, match=r"^2 jobs failed: a \(Zero.+; b \(Zero"):
        list(run_all(lambda: 1 / 0, [("a", ()), ("b", ())]))


def test_what_goes_wrong_between_jobs_is_not_lost():
    def jobs():
        yield "one", (1,)
        raise OSError("the file of records is gone")

    found = []
    with pytest.raises(OSError, match="the file of records is gone"):
        gather(found, abs, jobs())
    assert found == [1]


def test_a_missing_dask_is_one_sentence(monkeypatch):
    def without(name, *rest):
        if name == "distributed":
            raise ModuleNotFoundError(name=name)
        return real(name, *rest)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "dask\[distributed\]"$'):
        list(run_all(abs, [("one", (1,))], dask="tcp://127.0.0.1:1"))


@pytest.mark.parametrize("threads", [{}, {"tcp://127.0.0.1:2": 4}])
def test_workers_that_share_a_generator_of_random_numbers_are_refused(monkeypatch, threads):
    class Client:
        def __init__(self, address, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *raised):
            pass

        def nthreads(self):
            return threads

    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(distributed, "Client", Client)
    with pytest.raises(ValueError, match=r"one thread each at tcp://h:1, got .+ --nthreads 1"):
        list(run_all(abs, [("one", (1,))], dask="tcp://h:1"))


def test_a_claim_is_one_command_s_until_it_lets_go(tmp_path):
    path = tmp_path / "new" / "runs.json"
    run = (("fcn", None, "R"), 0)
    with Claims(path) as others:
        with Claims(path) as mine:
            assert mine.take(run)
            assert not others.take(run)
            assert others.take((("fcn", None, "R"), 1))
        assert others.take(run)
        # Whichever thread it is that lets go.
        thread = threading.Thread(target=others.release, args=(run,))
        thread.start()
        thread.join()
        with Claims(path) as third:
            assert third.take(run)
