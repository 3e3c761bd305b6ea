"""Checkpoints: written beside and renamed, checked when they are read (chapter 5)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..nn.weights import write


def save(path: Path, state: Mapping[str, Any], configuration: Mapping[str, Any]) -> None:
    """Write a checkpoint beside its place and move it there: at no moment is there less than the one before.

    Parameters
    ----------
    path : Path
    state : mapping
        Of tensors, numbers, strings, and lists and dicts of them.
    configuration : mapping
        What must be the same when the checkpoint is read: see `load`.

    Raises
    ------
    OSError
        If it cannot be written, such as on a full disk. The checkpoint that was there before stands.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Path(folder) / "last.pt", {"steps": 3}, {"seed": 0})
    ...     load(Path(folder) / "last.pt", {"seed": 0})
    {'steps': 3}
    """
    file = io.BytesIO()  # PyTorch would wrap what the disk says
    torch.save({"state": dict(state), "configuration": dict(configuration)}, file)
    write(path, file.getvalue(), "the checkpoint")


def load(path: Path, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Read the state that `save` wrote, after checking that it is whole and of this configuration.

    Parameters
    ----------
    path : Path
    configuration : mapping
        As it was saved.

    Returns
    -------
    dict

    Raises
    ------
    OSError
        If the file cannot be read, or there is none.
    ValueError
        If the file is not a whole checkpoint, or was made with another configuration: the sentence names the file and,
        of the configuration, the first difference.
    """
    content = _read(path)
    theirs = content["configuration"]
    for name in (*configuration, *theirs):
        ours, found = (
            repr(each[name]) if name in each else "nothing" for each in (configuration, theirs)
        )
        if "nothing" in (ours, found) or configuration[name] != theirs[name]:
            raise ValueError(
                f"{path} was made with {name} = {found}, and {ours} is asked for; "
                f"ask for the same, or name another folder"
            )
    return content["state"]


def _read(path: Path) -> dict[str, Any]:
    file = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(file) as archive:  # PyTorch's format; each part has a checksum
            broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"the checksum of its part {broken} is wrong")
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
        if not (isinstance(content, dict) and {"state", "configuration"} <= content.keys()):
            raise ValueError("it holds something else")
    except Exception as error:  # a broken file breaks its readers in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} is not a whole checkpoint ({reason}); "
            f"remove it to start anew, or put back a copy"
        ) from None
    return content
