"""Trainings that are killed again and again, for test_fit.py: one import of PyTorch, then a process for each life.

    python run_killed.py FOLDER

leaves in FOLDER, for each kind of training, what one that was never killed leaves, and what one leaves that was killed
at random moments, and one that was killed at every step of writing a file; and prints how often each was killed.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stnlib import engines
from stnlib.data.distortions import Distortion
from stnlib.nn import SpatialTransformer
from stnlib.training import DistortedDigits, Schedule, Trainer, digits, distorted, fit

KINDS = {
    "adamw": (Schedule(40, 4), None),
    "sgd": (Schedule(40, 4, optimiser="sgd", decay="steps", learning_rate=0.05), None),
    "early": (Schedule(40, 4), 2),
}
EVERY = 7  # does not divide 40
SMALL = Distortion(size=(28, 28), max_angle=30.0, scales=(0.8, 1.0))
LIVES = 12
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 28, 28)).astype(np.uint8)
LABELS = np.arange(40) % 10

digits.CHUNK = 40  # a new life makes few digits again
with engines.use("reference"):  # which starts no thread
    HELD_OUT = distorted(IMAGES, LABELS, SMALL)[:2]


def network():
    torch.manual_seed(1)
    localisation = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 6))
    return nn.Sequential(
        SpatialTransformer(localisation, size=(8, 8)),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 10),
    )


def train(kind, folder):
    torch.set_num_threads(1)
    schedule, patience = KINDS[kind]
    data = DistortedDigits(IMAGES, LABELS, SMALL, schedule.batch, seed=3)
    options = {
        "every": EVERY,
        "patience": patience,
        "observers": [lambda trainer, entry: torch.rand(3)],
    }
    with engines.use("reference"):
        history = fit(Trainer(network(), schedule), data, HELD_OUT, folder, {}, **options)
    (folder / "history.json").write_text(json.dumps(history))


def alive(kind, folder, before=lambda: None):
    """Start a process that trains."""
    folder.mkdir(parents=True, exist_ok=True)
    process = os.fork()
    if process == 0:
        try:
            before()
            train(kind, folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return process


def end(process):
    """Wait for a process; return whether it was killed."""
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment):
    """Let the process die at so manieth of the moments of writing files: before, in the middle of and after each."""
    moments = iter(range(1000))

    def reached():
        return next(moments) == moment

    def dying(function):
        def called(*arguments):
            if reached():
                die()
            result = function(*arguments)
            if reached():
                die()
            return result

        return called

    class Halfway:
        """A file that is left half written."""

        def __init__(self, file):
            self.file = file

        def write(self, content):
            if reached():
                self.file.write(content[: len(content) // 2])
                self.file.flush()
                die()
            return self.file.write(content)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

    opened = Path.open

    def open_to_die(path, *arguments, **options):
        file = opened(path, *arguments, **options)
        return Halfway(file) if arguments == ("wb",) else file

    Path.open = open_to_die
    os.replace, os.fsync = dying(os.replace), dying(os.fsync)


def import_what_a_step_imports():
    """Take a step without a gradient, which would start a thread, and threads do not live on in children."""
    trainer = Trainer(network(), KINDS["adamw"][0])
    for parameter in trainer.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimiser.step()


def main(folder):
    random.seed(0)
    import_what_a_step_imports()
    kills = {}
    for kind in KINDS:
        start = time.perf_counter()
        assert not end(alive(kind, folder / kind / "whole"))
        seconds = time.perf_counter() - start
        kills[kind] = {"random": 0, "writing": 0}
        for _ in range(LIVES):
            process = alive(kind, folder / kind / "random")
            time.sleep(random.uniform(0, seconds / 4))
            os.kill(process, signal.SIGKILL)
            kills[kind]["random"] += end(process)
        assert not end(alive(kind, folder / kind / "random"))
        moment = 0
        while end(alive(kind, folder / kind / "writing", lambda at=moment: die_at(at))):
            moment += 1
            kills[kind]["writing"] += 1
    print(json.dumps(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
