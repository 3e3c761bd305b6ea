"""Records of measurements: JSON files that only the program that measured writes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__


def environment(*packages: str) -> dict[str, str]:
    """Return the versions and the hardware that a measurement depends on.

    Parameters
    ----------
    *packages : str
        Names of distributions to look for beside NumPy and PyTorch. What is not installed is left out.

    Returns
    -------
    dict

    Examples
    --------
    >>> sorted(environment())
    ['cores', 'machine', 'numpy', 'processor', 'python', 'stnlib', 'system', 'torch']
    """
    known = {"numpy", "torch", *packages}
    found = {d.name for d in importlib.metadata.distributions()} & known
    return {
        "stnlib": __version__,
        **{name: importlib.metadata.version(name) for name in sorted(found)},
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
    }


def read(path: Path, kind: type = dict) -> Any:
    """Read a record, or a list of records.

    Parameters
    ----------
    path : Path
    kind : {dict, list}
        What the file is expected to hold.

    Returns
    -------
    dict or list

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If it is not a whole record: the sentence names it.
    """
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, kind):
            raise ValueError(f"it holds a {type(record).__name__}")
        return record
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are of this kind
        raise ValueError(
            f"{path} is not a whole record ({error}); remove it and measure again"
        ) from None


def write(path: Path, record: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Write a record beside its place and move it there, so that no reader ever sees half of it.

    Parameters
    ----------
    path : Path
    record : dict, or list of dict
        Of what JSON can say. Of a list, each record takes a line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    if isinstance(record, dict):
        text = json.dumps(record, indent=1)
    else:
        text = "[\n" + ",\n".join(map(json.dumps, record)) + "\n]"
    beside.write_text(text + "\n")
    os.replace(beside, path)


def add(path: Path, new: Sequence[dict[str, Any]]) -> None:
    """Add records to a list of them in a file, while other processes may do the same.

    Parameters
    ----------
    path : Path
        Made if it is not there.
    new : sequence of dict
    """
    from filelock import FileLock  # which PyTorch brings

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        known = read(path, list) if path.exists() else []
        write(path, [*known, *new])


def _processor() -> str:
    """Return the processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
