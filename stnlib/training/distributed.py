"""One training in several processes, each with its part of every batch (chapter 5).

    torchrun --nproc-per-node 2 -m stnlib train st-fcn

starts two processes, which train one network with PyTorch's DistributedDataParallel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import distributed as dist
from torch import nn

T = TypeVar("T")


@contextmanager
def session(device: str | None = None) -> Iterator[tuple[int, int, torch.device]]:
    """Join the processes that torchrun started, and leave them at the end; alone, without torchrun.

    Parameters
    ----------
    device : {"cpu", "cuda"}, optional
        What trains; by default, a GPU where PyTorch finds one. The processes of a machine take a GPU each and talk
        through NCCL, or share its processor and talk through Gloo.

    Yields
    ------
    rank : int
        Which of the processes this one is, from 0.
    world : int
        How many there are.
    device : torch.device

    Raises
    ------
    ValueError
        If this machine has fewer GPUs than processes.

    Examples
    --------
    >>> with session("cpu") as (rank, world, device):
    ...     print(rank, world, device)
    0 1 cpu
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if "WORLD_SIZE" not in os.environ:
        yield 0, 1, torch.device(device)
        return
    place, backend = torch.device(device), "gloo"
    if device == "cuda":
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise ValueError(
                f"device: expected a GPU for each process, got process {local + 1} of this machine and {gpus} GPUs; "
                f"start torchrun with --nproc-per-node {max(gpus, 1)}"
            )
        place, backend = torch.device("cuda", local), "nccl"
        torch.cuda.set_device(place)
    store, rank, world = next(dist.rendezvous("env://"))
    if os.environ.get("LOCAL_WORLD_SIZE") == str(world):
        # torchrun keeps its store when it starts all again, and with it the addresses of those that are gone
        # (pytorch/pytorch#135712). On several machines it counts restarts on each by itself.
        life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"restart{life}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    try:
        yield dist.get_rank(), dist.get_world_size(), place
    finally:
        dist.destroy_process_group()


def together(network: nn.Module) -> nn.Module:
    """Return a module that runs a network, and whose gradients are means over the processes of a `session`.

    Batch normalisation goes by each process's share alone.

    Raises
    ------
    ValueError
        Outside a session.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            "distributed: expected other processes, got none; start with torchrun, and train inside "
            "stnlib.training.distributed.session()"
        )
    return nn.parallel.DistributedDataParallel(network)


def is_first() -> bool:
    """Return whether this is the first process of a `session`."""
    return dist.get_rank() == 0


def from_first(make: Callable[[], T]) -> T:
    """Return in every process of a `session` what the first one makes, and raise in every one what it raises.

    Parameters
    ----------
    make : callable
        Called in the first process alone. What it returns, or raises, must pickle; tensors, on the CPU.

    Returns
    -------
    object
    """
    said: list = [None, None]
    if is_first():
        try:
            said[0] = make()
        except Exception as error:  # the others, who wait for its word, stop as well
            said[1] = error
    dist.broadcast_object_list(said)
    result, raised = said
    if raised is not None:
        raise raised
    return result


def take_weights_of_first(network: nn.Module) -> None:
    """Give a network, in every process of a `session`, the parameters and buffers that it has in the first one."""
    state = from_first(lambda: {name: t.cpu() for name, t in network.state_dict().items()})
    network.load_state_dict(state)


def mean(value: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over the processes of a `session`, in each of them the same."""
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
