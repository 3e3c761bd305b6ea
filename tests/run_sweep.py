"""Commands that share a file of records and a local Dask cluster, for test_sweep.py: one import of PyTorch for all.

    python run_sweep.py FOLDER

leaves in FOLDER what two commands at once leave, ``both.json``, and what one leaves that is killed and started again,
``killed.json``, with ``before.json`` as it was at the kill; and beside each file, a log of every run that was begun.
"""

import json
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import distributed

from stnlib.experiments import table1
from stnlib.training import Schedule

CELLS = table1.chosen(["fcn/*"])
SEEDS = 2
SCHEDULES = {"fcn": Schedule(1)}
KILLED_AFTER = 3  # records

table1.WAIT = 0.1


def run(log):
    """Return what takes the place of a training."""

    def run_alone(cell, seed, schedule, budget):
        with open(log, "a") as file:
            file.write(f"{cell}, seed {seed}\n")
        time.sleep(0.2)
        return {
            "model": cell.model,
            "transform": cell.transform,
            "data": cell.data,
            "seed": seed,
            "schedule": asdict(schedule),
            "worker": os.getpid(),
        }

    return run_alone


def command(name, path, address, ready=None, tell=lambda record: None):
    table1.run_alone = run(path.with_suffix(".log"))
    if ready is not None:
        ready.wait()
    table1.reproduce(
        CELLS, range(SEEDS), SCHEDULES, path=path, command=name, dask=address, tell=tell
    )


def killed(path, address):
    told = []

    def tell(record):
        told.append(record)
        if len(told) == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)

    command("killed", path, address, tell=tell)


def cluster(addresses, over):
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options, host="127.0.0.1") as local:
        addresses.put(local.scheduler_address)
        over.wait()


def main(folder):
    fork = get_context("fork")
    addresses, over, ready = fork.Queue(), fork.Event(), fork.Barrier(2)

    def start(*task):
        process = fork.Process(target=task[0], args=task[1:])
        process.start()
        return process

    scheduler = start(cluster, addresses, over)
    try:
        address = addresses.get(timeout=60)
        path = folder / "both.json"
        both = [start(command, name, path, address, ready) for name in "ab"]
        codes = [process.join() or process.exitcode for process in both]
        path = folder / "killed.json"
        for task in (killed, path, address), (command, "again", path, address):
            process = start(*task)
            process.join()
            codes.append(process.exitcode)
            if task[0] is killed:
                shutil.copy(path, folder / "before.json")
    finally:
        over.set()
        scheduler.join()
    print(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
