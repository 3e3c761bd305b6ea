"""What a spatial transformer costs: the time of a step of each network with it, and of what lies behind it alone.

    python -m stnlib.experiments.overhead

measures a step forward, and forward and backward, of the ST-FCN and the ST-CNN and of their classifiers, and writes
``results/overhead.json``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .._extras import require

require("torch", "train", "stnlib.experiments.overhead")

import torch  # noqa: E402
from torch.utils import benchmark  # noqa: E402

from . import records  # noqa: E402
from .table1 import CELLS, DATA, Cell, hardware  # noqa: E402

BATCH = 256
SECONDS = 0.3  # a measurement
DIRECTIONS = {
    "forward": "network(images)",
    "forward+backward": "loss(network(images), labels).backward()",
}


def measure(cell: Cell, device: str, threads: int) -> dict[str, Any]:
    """Return the median milliseconds of a step with and without the transformer, in both directions."""
    whole = cell.network(0).to(device)
    images = torch.rand(BATCH, 1, *DATA[cell.data].size, device=device)
    with torch.no_grad():
        handed_on = whole.transformer(images)  # type: ignore[operator]
        pool = getattr(whole, "pool", None)
        handed_on = handed_on if pool is None else pool(handed_on)
    found: dict[str, Any] = {
        "model": cell.model,
        "transform": cell.transform,
        "data": cell.data,
    }
    for direction, statement in DIRECTIONS.items():
        for name, network, batch in (
            ("with", whole, images),
            ("without", whole.classifier, handed_on),
        ):
            timer = benchmark.Timer(
                statement,
                globals={
                    "network": network,
                    "images": batch,
                    "labels": torch.zeros(BATCH, dtype=torch.int64, device=device),
                    "loss": torch.nn.functional.cross_entropy,
                },
                num_threads=threads,
            )
            timer.timeit(3)
            median = timer.blocked_autorange(min_run_time=SECONDS).median
            found.setdefault(direction, {})[name] = round(1e3 * median, 4)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m stnlib.experiments.overhead", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, on a CPU")
    parser.add_argument("--output", type=Path, default=Path("results/overhead.json"))
    options = parser.parse_args(arguments)
    command = "python -m stnlib.experiments.overhead " + " ".join(
        sys.argv[1:] if arguments is None else arguments
    )
    about = {
        "batch": BATCH,
        "device": options.device,
        "threads": options.threads,
        "hardware": hardware(options.device),
        "command": command.strip(),
        "environment": records.environment(),
    }
    for cell in CELLS:
        if cell.transform is not None and cell.data in ("RTS", "E", "TC"):
            found = measure(cell, options.device, options.threads)
            records.add(options.output, [found | about])
            both = found["forward+backward"]
            print(f"{cell}: {both['with']} ms, {both['without']} ms without the transformer")


if __name__ == "__main__":
    main()
