"""Records of measurements: JSON files that only the program that measured writes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
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


def read(path: Path) -> dict[str, Any]:
    """Read a record.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If it is not a whole record: the sentence names it.
    """
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            raise ValueError(f"it holds a {type(record).__name__}")
        return record
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are of this kind
        raise ValueError(
            f"{path} is not a whole record ({error}); remove it and measure again"
        ) from None


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record beside its place and move it there, so that no reader ever sees half of it.

    Parameters
    ----------
    path : Path
    record : dict
        Of what JSON can say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(beside, path)


def _processor() -> str:
    """Return the processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
