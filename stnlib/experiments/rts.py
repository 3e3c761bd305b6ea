"""Digits rotated, translated and scaled: the paper's FCN and ST-FCN, with the same number of parameters (chapter 5).

    python -m stnlib.experiments.rts --iterations 1800 7200 --seeds 0 1 2

trains each network for each number of iterations from each seed, and writes ``results/rts.json`` after each run. Runs
that the file already holds are not repeated.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import transforms
from .._extras import require
from ..data import mnist
from ..data.distortions import RTS

require("torch", "train", "stnlib.experiments.rts")

import torch  # noqa: E402

from ..nn.models import FCN, STFCN, count_parameters  # noqa: E402
from ..training.digits import DistortedDigits, distorted  # noqa: E402
from ..training.loop import error_rate, train  # noqa: E402
from ..training.schedule import Schedule  # noqa: E402
from . import records  # noqa: E402

NETWORKS = {"FCN": FCN, "ST-FCN": STFCN}
CURVE_POINTS = 60


def test_set() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Return the distorted test set: images (10000, 1, 42, 42), labels (10000,) and the thetas that distorted it."""
    return distorted(*mnist.load("test"), RTS)


def pose(theta: np.ndarray) -> dict[str, np.ndarray]:
    """Take transforms apart: where the frame's centre lands, the mean scale, and the angle.

    Parameters
    ----------
    theta : array of float64, shape (N, 2, 3)
        Of positive determinant.

    Returns
    -------
    dict of arrays
        ``x`` and ``y`` in the coordinates that theta maps to; ``log_scale``, natural, half the logarithm of the
        determinant; ``angle`` in degrees, that of the rotation nearest to theta's linear part.
    """
    a, b, c, d = theta[:, 0, 0], theta[:, 0, 1], theta[:, 1, 0], theta[:, 1, 1]
    return {
        "x": theta[:, 0, 2],
        "y": theta[:, 1, 2],
        "log_scale": np.log(a * d - b * c) / 2,
        "angle": np.degrees(np.arctan2(c - b, a + d)),
    }


def statistics(theta: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the mean and the standard deviation of each part of the `pose` of transforms (N, 2, 3)."""
    return {
        name: {"mean": round(float(values.mean()), 4), "std": round(float(values.std()), 4)}
        for name, values in pose(theta).items()
    }


@torch.no_grad()
def regressed_theta(network: STFCN, images: torch.Tensor) -> np.ndarray:
    """Return the thetas, (N, 2, 3) in float64, that a network's transformer uses on images (N, 1, H, W)."""
    theta = [network.transformer.localisation(some) for some in images.split(1000)]
    return torch.cat(theta).double().reshape(-1, 2, 3).numpy()


def run(
    name: str, iterations: int, seed: int, after_step: Any = lambda step, loss: None
) -> dict[str, Any]:
    """Train one network and measure it.

    Parameters
    ----------
    name : {"FCN", "ST-FCN"}
    iterations, seed : int
    after_step : callable, optional
        As for `stnlib.training.train`.

    Returns
    -------
    dict
        The run's configuration, its loss along the way and its error on the test set; for the ST-FCN the
        statistics of the digits' pose before the transformer and after it.
    """
    torch.manual_seed(seed)
    network = NETWORKS[name]()
    schedule = Schedule(iterations)
    images, labels, distorted_by = test_set()
    train_images, train_labels = mnist.load("train")
    data = DistortedDigits(train_images, train_labels, RTS, schedule.batch, seed)
    start = time.perf_counter()
    losses = train(network, data, schedule, after_step)
    seconds = time.perf_counter() - start
    points = np.array_split(np.array(losses), min(CURVE_POINTS, iterations))
    result = {
        "network": name,
        "seed": seed,
        "parameters": count_parameters(network),
        "schedule": asdict(schedule),
        "seconds": round(seconds, 1),
        "loss": [round(float(p.mean()), 4) for p in points],
        "error": error_rate(network, images, labels),
    }
    if isinstance(network, STFCN):
        theta = regressed_theta(network, images)
        upright = np.linalg.det(theta[:, :, :2]) > 0
        result["mirrored"] = int((~upright).sum())
        result["pose_before"] = statistics(distorted_by)
        # From the transformer's output to the frame, and from the frame to the digit.
        result["pose_after"] = statistics(
            transforms.compose(distorted_by[upright], theta[upright])
        )
    return result


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m stnlib.experiments.rts", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--iterations", nargs="+", type=int, default=[1800, 7200])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of PyTorch; figures repeat exactly for one number",
    )
    parser.add_argument("--output", type=Path, default=Path("results/rts.json"))
    options = parser.parse_args(arguments)
    progress = require("rich.progress", "train", "stnlib.experiments.rts")

    torch.set_num_threads(options.threads)
    record = records.read(options.output) if options.output.exists() else {"runs": []}
    done = {(r["network"], r["schedule"]["iterations"], r["seed"]) for r in record["runs"]}
    command = "python -m stnlib.experiments.rts " + " ".join(
        sys.argv[1:] if arguments is None else arguments
    )
    for iterations in options.iterations:
        for seed in options.seeds:
            for name in options.networks:
                if (name, iterations, seed) in done:
                    continue
                with progress.Progress(transient=True) as bar:
                    task = bar.add_task(f"{name}, seed {seed}", total=iterations)
                    advance = partial(bar.advance, task)
                    result = run(name, iterations, seed, lambda step, loss, go=advance: go())
                result |= {
                    "command": command.strip(),
                    "threads": options.threads,
                    "environment": records.environment(),
                }
                record["runs"].append(result)
                records.write(options.output, record)
                print(
                    f"{name}, {iterations} iterations, seed {seed}: {100 * result['error']:.2f} % error"
                )


if __name__ == "__main__":
    main()
