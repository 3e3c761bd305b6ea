import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import run_distributed
import torch
from torch import nn

from stnlib import __version__
from stnlib.data.distortions import TC
from stnlib.nn.weights import load_weights
from stnlib.training import DistortedDigits, Schedule, Trainer, fit
from stnlib.training.distributed import from_first, session, take_weights_of_first

on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="Gloo, on which processes talk, is tried on Linux"
)
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
# Two halves' means, added and halved, are rounded otherwise than the mean of the whole: by about 2⁻²³ of the loss, near
# 2. Adam divides a gradient by its own size, so a weight differs by some such parts of the way that it went in 20
# steps, at most 20 × 6e-3 = 0.12.
LOSSES, WEIGHTS = 2e-6, 1e-6


def run(*arguments):
    """Run torchrun as a user would, with no more than a user's environment."""
    names = ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    return subprocess.run(
        [*TORCHRUN, *arguments],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    script = Path(run_distributed.__file__)
    done = run("--nproc-per-node=2", "--max-restarts=1", str(script), str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run_distributed.train(tmp_path_factory.mktemp("alone"), 0, 1)


@pytest.fixture
def found(folder):
    names = ("whole0", "whole1", "killed0", "killed1")
    return {name: torch.load(folder / f"{name}.pt") for name in names}


def assert_equal(some, others):
    assert some.keys() == others.keys()
    for name, weights in some.items():
        assert torch.equal(weights, others[name]), name


@on_linux
def test_two_processes_train_as_one_does_with_the_whole_batch(found, alone):
    whole = found["whole0"]
    assert len(whole["losses"]) == len(alone["losses"]) == 20
    np.testing.assert_allclose(whole["losses"], alone["losses"], rtol=0, atol=LOSSES)
    for name, weights in alone["weights"].items():
        torch.testing.assert_close(whole["weights"][name], weights, rtol=0, atol=WEIGHTS)
    start = run_distributed.network().state_dict()
    moved = max((alone["weights"][name] - start[name]).abs().max() for name in start)
    assert moved > 1000 * WEIGHTS  # it is not that nothing was learnt
    assert whole["errors"] == alone["errors"]


@on_linux
def test_both_processes_have_the_same_weights_and_agree_on_what_was_found(found):
    for one, other in (("whole0", "whole1"), ("killed0", "killed1")):
        assert_equal(found[one]["weights"], found[other]["weights"])
        assert found[one]["errors"] == found[other]["errors"]
        assert found[one]["steps"] == found[other]["steps"] == [4, 8, 12, 16, 20]


@on_linux
def test_the_first_process_alone_evaluates_and_reports(found):
    assert found["whole0"]["seen"] == [4, 8, 12, 16, 20]
    assert found["whole1"]["seen"] == found["whole1"]["losses"] == []


@on_linux
def test_a_killed_training_goes_on_from_its_checkpoint_bit_by_bit(found):
    whole, killed = found["whole0"], found["killed0"]
    assert killed["seen"] == [12, 16, 20]
    assert killed["losses"] == whole["losses"][8:]
    assert killed["errors"] == whole["errors"]
    assert_equal(killed["weights"], whole["weights"])


@on_linux
def test_what_the_first_process_may_not_do_stops_all(found):
    assert found["whole0"]["heard"] == found["whole1"]["heard"] == "the disk is full"


@on_linux
def test_a_checkpoint_of_two_processes_loads_in_one(folder, found):
    again = run_distributed.train(folder / "whole", 0, 1)
    assert again["losses"] == []  # it has come to its end
    assert_equal(again["weights"], found["whole0"]["weights"])
    network = run_distributed.network()
    load_weights(network, folder / "whole" / "weights.safetensors")
    assert_equal(dict(network.state_dict()), found["whole0"]["weights"])


@on_linux
def test_torchrun_hands_the_command_what_follows_its_name():
    done = run("--nproc-per-node=2", "-m", "stnlib", "--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"stnlib, version {__version__}\n" * 2


def test_the_package_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stnlib", "--version"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("stnlib", run_name="__main__")
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"stnlib, version {__version__}\n"


def small(share, batch=12):
    images = np.random.default_rng(0).integers(0, 256, (9, 28, 28)).astype(np.uint8)
    return DistortedDigits(images, np.arange(9), TC, batch, seed=2, share=share)


@pytest.mark.parametrize("step", [0, 1, 400])
def test_shares_are_the_batch(step):
    shares = [small((rank, 3))(step) for rank in range(3)]
    images, labels = small((0, 1))(step)
    assert all(len(some) == 4 for some, _ in shares)
    assert torch.equal(torch.cat([some for some, _ in shares]), images)
    assert torch.equal(torch.cat([some for _, some in shares]), labels)


@pytest.mark.parametrize("share", [(2, 2), (-1, 2), (0, 0)])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"^share: expected .+ 0 <= rank < world, got \("):
        small(share)


@pytest.mark.parametrize("world", [5, 24])
def test_a_batch_that_does_not_divide_is_one_sentence(world):
    expected = (
        f"batch: expected a multiple of {world}, the number of processes that share it, got 12"
    )
    with pytest.raises(ValueError, match=f"^{expected}$"):
        small((0, world))


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with session("cpu") as place:
        assert place == (0, 1, torch.device("cpu"))
        assert not torch.distributed.is_initialized()
    with session() as place:
        assert place[2].type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_no_other_processes_is_one_sentence():
    with pytest.raises(ValueError, match="start with torchrun"):
        Trainer(nn.Linear(2, 2), Schedule(1), distributed=True)


@pytest.fixture
def started(monkeypatch):
    """Make the environment that torchrun makes, for a world of one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_PORT": port}
    for name, value in (world | {"MASTER_ADDR": "127.0.0.1"}).items():
        monkeypatch.setenv(name, str(value))
    return monkeypatch


@on_linux
def test_a_world_of_one_trains_as_without(started, tmp_path):
    def losses(distributed):
        torch.manual_seed(0)
        trainer = Trainer(nn.Linear(4, 2), Schedule(6), distributed=distributed)
        found, batch = [], (torch.eye(4), torch.tensor([0, 1, 0, 1]))
        fit(
            trainer,
            lambda step: batch,
            batch,
            tmp_path / str(distributed),
            {},
            every=2,
            patience=2,
            after_step=lambda trainer, loss: found.append(loss),
        )
        return found, {k: v.clone() for k, v in trainer.network.state_dict().items()}

    expected, weights = losses(False)
    with session("cpu") as place:
        assert place == (0, 1, torch.device("cpu"))
        found = losses(True)
        assert from_first(lambda: "heard") == "heard"
        with pytest.raises(OSError, match="the disk is full"):
            from_first(run_distributed.refuse)
        network = nn.Linear(2, 2)
        before = network.weight.clone()
        take_weights_of_first(network)
        assert torch.equal(network.weight, before)
    assert found[0] == expected
    assert_equal(found[1], weights)
    assert not torch.distributed.is_initialized()


@on_linux
def test_the_group_is_left_when_a_training_fails(started):
    with pytest.raises(FloatingPointError), session("cpu"):
        raise FloatingPointError
    assert not torch.distributed.is_initialized()


def test_too_few_gpus_is_one_sentence(started):
    started.setattr(torch.cuda, "device_count", lambda: 2)
    started.setenv("LOCAL_RANK", "2")
    with (
        pytest.raises(ValueError, match=r"process 3 of this machine and 2 GPUs; .*-node 2$"),
        session("cuda"),
    ):
        pass
