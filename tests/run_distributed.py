"""Trainings for test_distributed.py, in each of the processes that torchrun starts.

    torchrun --nproc-per-node 2 --max-restarts 1 run_distributed.py FOLDER

leaves in FOLDER what two processes leave of a training that is never killed, ``whole``, and of one whose first process
is killed between two checkpoints, ``killed``, which stops the other; torchrun starts both again.
"""

import os
import signal
import sys
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

from stnlib import engines
from stnlib.data.distortions import TC
from stnlib.nn import SpatialTransformer
from stnlib.training import DistortedDigits, Schedule, Trainer, TrainingWarning, digits, fit
from stnlib.training.distributed import from_first, session

SCHEDULE = Schedule(20, 16, clip=0.5)  # shorter than the gradients
EVERY = 4
KILLED_AT = 10  # so that steps 8 and 9 are taken twice


def network():
    torch.manual_seed(3)
    localisation = nn.Sequential(
        nn.AvgPool2d(4), nn.Flatten(), nn.Linear(15 * 15, 8), nn.ReLU(), nn.Linear(8, 6)
    )
    return nn.Sequential(
        SpatialTransformer(localisation),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(900, 16),
        nn.ReLU(),
        nn.Linear(16, 10),
    )


def data(share=(0, 1)):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 28, 28)).astype(np.uint8), np.arange(40) % 10
    with mock.patch.object(digits, "CHUNK", 64):  # several within a training
        return DistortedDigits(images, labels, TC, SCHEDULE.batch, seed=5, share=share)


def train(folder, rank, world, device="cpu", killed_at=None):
    """Return what this process saw: each step's loss, the evaluations that it observed, and its last weights."""
    trainer = Trainer(network().to(device), SCHEDULE, distributed=world > 1)
    share, losses, seen = data((rank, world)), [], []

    def batch(step):
        if step == killed_at and rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        images, labels = share(step)
        assert len(images) == len(labels) == SCHEDULE.batch // world
        return images, labels

    with warnings.catch_warnings(), engines.use("reference"):
        warnings.simplefilter("ignore", TrainingWarning)  # 20 steps leave theta where it was
        history = fit(
            trainer,
            batch,
            tuple(tensor[:50] for tensor in data()(1000)),
            folder,
            {"seed": 5},
            every=EVERY,
            patience=100,  # never reached; at the end, all go back to the best weights
            after_step=lambda trainer, loss: losses.append(loss),
            observers=[lambda trainer, entry: seen.append(entry["steps"])],
        )
    return {
        "losses": losses,
        "seen": seen,
        "steps": [entry["steps"] for entry in history],
        "errors": [entry["error"] for entry in history],
        "weights": {name: w.clone() for name, w in trainer.network.state_dict().items()},
    }


def refuse():
    raise OSError("the disk is full")


def what_all_hear():
    try:
        return from_first(refuse)
    except OSError as error:
        return str(error)


if __name__ == "__main__":
    folder, first_life = Path(sys.argv[1]), os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    torch.set_num_threads(1)
    with session("cpu") as place:
        rank = place[0]
        if first_life:
            whole = train(folder / "whole", *place)
            whole["heard"] = what_all_hear()
            torch.save(whole, folder / f"whole{rank}.pt")
        killed = train(folder / "killed", *place, killed_at=KILLED_AT if first_life else None)
        torch.save(killed, folder / f"killed{rank}.pt")
