"""Weights as safetensors files: written beside and renamed, loaded by name (chapter 5)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from .._extras import require


def save_weights(network: nn.Module, path: Path | str) -> None:
    """Write a network's parameters and buffers to a safetensors file, beside its place, and move it there.

    Parameters
    ----------
    network : torch.nn.Module
    path : Path or str
        Its folder is made if it is not there.

    Raises
    ------
    OSError
        If the file cannot be written. One that was there before stands.

    Examples
    --------
    >>> import tempfile
    >>> one, other = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(one, folder + "/weights.safetensors")
    ...     load_weights(other, folder + "/weights.safetensors")
    >>> bool((one.weight == other.weight).all())
    True
    """
    safetensors = require("safetensors.torch", "train", "save_weights")
    # A parameter that two modules share is written once for each, so that any reader finds it.
    state = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
    write(Path(path), safetensors.save(state), "the weights")


def load_weights(network: nn.Module, path: Path | str) -> None:
    """Load a network's parameters and buffers, by name, from a file that `save_weights` wrote.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place; not at all, if the file does not fit.
    path : Path or str

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not whole, or names or shapes are not the network's: the sentence says the first that differs.
    """
    safetensors = require("safetensors.torch", "train", "load_weights")
    content = Path(path).read_bytes()
    try:
        found = safetensors.load(content)
    except Exception as error:  # safetensors raises a class of its own, from Rust
        raise ValueError(f"{path} is not a whole safetensors file ({error})") from None
    require_same(network.state_dict(), found, str(path))
    network.load_state_dict(found)


def write(path: Path, content: bytes, what: str) -> None:
    """Write a file beside its place and move it there; raise in words, if that fails: the one before it stands."""
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        stands = "; what was written before stands" if path.exists() else ""
        raise OSError(f"{what} {path} could not be written ({error}){stands}") from None


def require_same(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], where: str
) -> None:
    """Raise unless two states hold tensors of the same names and shapes; the sentence says the first that differs."""
    for name in (*expected, *sorted(found)):
        ours, theirs = (
            f"shape {tuple(each[name].shape)}" if name in each else "nothing"
            for each in (expected, found)
        )
        if ours != theirs:
            raise ValueError(
                f"{where} does not fit the network: of {name} it holds {theirs}, expected {ours}"
            )
