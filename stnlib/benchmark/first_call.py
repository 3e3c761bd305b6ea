"""How long the first call waits: for the compiler, and later for its cache on disk. Each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from .cases import Case
from .contenders import CONTENDERS

SIZE = "2x3x64x64"


def measure(direction: str, device: str) -> dict[str, Any]:
    """Measure the engine's first call, on arrays, with an empty cache, and again with what that call has left there.

    Parameters
    ----------
    direction : str
    device : {"cpu", "cuda"}

    Returns
    -------
    dict
        The seconds of the first call, ``cold`` and ``cached``, of the ``second`` call in the latter process, and what
        the former ``said`` on stderr.

    Raises
    ------
    RuntimeError
        If a process fails: its last words.
    """
    command, found = [sys.executable, "-m", __name__, direction, device], []
    with tempfile.TemporaryDirectory() as folder:
        caches = {"NUMBA_CACHE_DIR": folder, "CUPY_CACHE_DIR": folder}
        for _ in ("cold", "cached"):
            done = subprocess.run(
                command, env={**os.environ, **caches}, capture_output=True, text=True
            )
            said = done.stderr.strip()
            if done.returncode:
                raise RuntimeError(said.splitlines()[-1] if said else "no reason given")
            found.append((*json.loads(done.stdout), said))
    (cold, _, said), (cached, second, _) = found
    seconds = {"cold": cold, "cached": cached, "second": second}
    return {"direction": direction, "size": SIZE, **seconds, "said": said}


def main(direction: str, device: str) -> None:
    """Print the seconds of the first call and of the second, as JSON."""
    case, seconds = Case(SIZE, device), []
    # CuPy and the GPU come with the arrays, before the clock starts.
    _ = case.arrays
    for _ in range(2):
        start = time.perf_counter()
        results = CONTENDERS["stnlib-arrays"].make(case, direction)()
        if device == "cuda":
            results[0].device.synchronize()
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
