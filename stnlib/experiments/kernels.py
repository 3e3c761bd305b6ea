"""What the CUDA kernels take, compiled for four generations of GPUs: registers, memory of a thread's own, spills.

    python -m stnlib.experiments.kernels

compiles every case of ``stnlib/engines/sampler.cu`` for every architecture, which takes some minutes and no GPU, and
writes ``results/kernels.json``. A test fails while that file is of another source.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..engines import compiled, launch
from . import records


def source_hash() -> str:
    """Return the SHA-256 of the kernels' source, and of the options that it is compiled with."""
    source = launch.SOURCE.read_text(encoding="utf-8")
    return hashlib.sha256(f"{source}\0{launch.configurations()}".encode()).hexdigest()


def measure() -> dict[str, Any]:
    """Compile everything, and return what it takes.

    Returns
    -------
    dict
        For each case and each architecture: ``registers`` of a thread, ``stack``, bytes of its own memory, and of them
        ``spilled``, for each kernel; of the last two those that are not 0.
    """
    begin, compiler = time.perf_counter(), compiled.compiler()
    cases = [
        (options, architecture)
        for options in launch.configurations()
        for architecture in compiled.ARCHITECTURES
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        usages = list(pool.map(lambda case: compiled.usage(*case), cases))
    kernels: dict[str, dict[str, Any]] = {}
    for (options, architecture), usage in zip(cases, usages, strict=True):
        of_case = kernels.setdefault(compiled.label(options), {})
        of_case[f"sm_{architecture}"] = {
            "registers": {name: usage[name].registers for name in sorted(usage)},
            "stack": {name: usage[name].stack for name in sorted(usage) if usage[name].stack},
            "spilled": {
                name: usage[name].spilled for name in sorted(usage) if usage[name].spilled
            },
        }
    found = compiler if isinstance(compiler, str) else f"NVRTC {compiler.version}"
    return {
        "source": source_hash(),
        "environment": {**records.environment(), "compiler": Path(found).name},
        "seconds": round(time.perf_counter() - begin, 1),
        "spilled": sum(taken.spilled for usage in usages for taken in usage.values()),
        "kernels": kernels,
    }


def most(kernels: dict[str, Any]) -> dict[str, tuple[int, str, str]]:
    """Return for each kernel the most registers that it takes, in which case and on which architecture.

    Examples
    --------
    >>> most({"float 2D 1 int": {"sm_75": {"registers": {"clear": 30}}, "sm_80": {"registers": {"clear": 32}}}})
    {'clear': (32, 'float 2D 1 int', 'sm_80')}
    """
    found: dict[str, tuple[int, str, str]] = {}
    for case, architectures in kernels.items():
        for architecture, taken in architectures.items():
            for kernel, registers in taken["registers"].items():
                if registers > found.get(kernel, (0,))[0]:
                    found[kernel] = registers, case, architecture
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m stnlib.experiments.kernels", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--output", type=Path, default=Path("results/kernels.json"))
    options = parser.parse_args(arguments)
    given = " ".join(sys.argv[1:] if arguments is None else arguments)
    record = {"command": f"python -m stnlib.experiments.kernels {given}".strip(), **measure()}
    records.write(options.output, record)
    for kernel, (registers, case, architecture) in sorted(most(record["kernels"]).items()):
        print(f"{kernel:16} at most {registers:3} registers ({case}, {architecture})")
    print(f"{record['spilled']} bytes spilled; {options.output} has every case")


if __name__ == "__main__":
    main()
