"""The spatial transformer that runs in a page of the book: trained, rounded to float16, and written as a script.

    python -m stnlib.experiments.in_the_page

trains an ST-FCN on digits turned, scaled, moved and cluttered, writes its weights to
``book/_static/transformer_weights.js``, and what was measured to ``results/in_the_page.json``. A page that is opened
from a file cannot fetch, but it can load a script: so the weights are one.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .. import transforms
from .._extras import require
from ..data import mnist
from ..data.distortions import BaseDistortion, Clutter, Distortion

require("torch", "train", "stnlib.experiments.in_the_page")

import torch  # noqa: E402
from torch.nn.functional import softmax  # noqa: E402

from ..nn.models import STFCN, count_parameters  # noqa: E402
from ..training.digits import DistortedDigits, distorted  # noqa: E402
from ..training.loop import error_rate, train  # noqa: E402
from ..training.schedule import Schedule  # noqa: E402
from . import records  # noqa: E402
from .rts import pose, regressed_theta, statistics  # noqa: E402

RESULTS = Path("results/in_the_page.json")
WEIGHTS = Path("book/_static/transformer_weights.js")
ITERATIONS = 40_000
PARAMETERS = 250_000
NAME = "transformerWeights"  # of the object in window.stnlib
HEADER = """\
// The weights of chapter 5's spatial transformer that runs in the page, for transformer.js: float16, little-endian,
// one array behind the other, in base64. Made by:  {command}
"use strict";
(window.stnlib ||= {{}}).{name} = """


@dataclass(frozen=True)
class PosedAndCluttered(BaseDistortion):
    """Digits turned, scaled and placed, and on a part of them pieces of others.

    Parameters
    ----------
    size : (H, W), default (42, 42)
        Size of the distorted images, in pixels.
    max_angle : float, default 90
        Degrees, as for `stnlib.data.distortions.Distortion`.
    scales : (low, high), default (0.7, 1.5)
        Likewise.
    patches, side : int, default 4 and 6
        Pieces an image, and their side in pixels, as for `stnlib.data.distortions.Clutter`.
    share : float, default 0.5
        Part of the images that gets them.

    Raises
    ------
    TypeError, ValueError
        If one of them does not fit.

    Notes
    -----
    Pieces are cut from other images of the batch as these came, upright, and where ink meets ink the brighter is seen:
    TC's clutter. Used in chapter 5.

    Examples
    --------
    >>> images = np.zeros((5, 1, 28, 28), np.float32)
    >>> PosedAndCluttered()(images, np.random.default_rng(0)).shape
    (5, 1, 42, 42)
    """

    size: tuple[int, int] = (42, 42)
    max_angle: float = 90.0
    scales: tuple[float, float] = (0.7, 1.5)
    patches: int = 4
    side: int = 6
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.pose, self.clutter  # each refuses what does not fit it
        if not 0 <= self.share <= 1:
            raise ValueError(f"share: expected a number from 0 to 1, got {self.share}")

    @property
    def pose(self) -> Distortion:
        """What turns, scales and places the digits."""
        return Distortion(self.size, self.max_angle, self.scales)

    @property
    def clutter(self) -> Clutter:
        """What draws the pieces."""
        return Clutter(self.size, self.patches, self.side)

    def theta(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw n poses, pieces for each, and which images get them.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator

        Returns
        -------
        structured array, shape (n,)
            ``pose``, (2, 3), as `Distortion` draws it; ``clutter``, as `Clutter` does; ``cluttered``, bool.
        """
        theta = np.zeros(
            n,
            [
                ("pose", np.float64, (2, 3)),
                ("clutter", self.clutter.dtype),
                ("cluttered", bool),
            ],
        )
        theta["pose"] = self.pose.theta(n, rng)
        theta["clutter"] = self.clutter.theta(n, rng)
        theta["cluttered"] = rng.random(n) < self.share
        return theta

    def apply(self, images: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Distort images by what `theta` drew.

        Parameters
        ----------
        images : array of float32 or float64, shape (N, 1, 28, 28)
            NumPy only.
        theta : structured array, shape (N,)

        Returns
        -------
        array, shape (N, 1, H, W)
        """
        frames = self.pose.apply(images, theta["pose"])
        square = (self.side, self.side)
        pieces = sliding_window_view(images[:, 0], square, axis=(1, 2))
        places = sliding_window_view(frames[:, 0], square, axis=(1, 2), writeable=True)
        (some,), n = np.nonzero(theta["cluttered"]), len(images)
        drawn = theta["clutter"][some]
        for k in range(self.patches):
            # Any other image, as `Clutter.apply` chooses it.
            source = (some + 1 + np.floor(drawn["source"][:, k] * (n - 1)).astype(int)) % n
            cut, paste = drawn["cut"][:, k], drawn["paste"][:, k]
            place = (some, paste[:, 1], paste[:, 0])
            places[place] = np.maximum(places[place], pieces[source, cut[:, 1], cut[:, 0]])
        return frames


TRAINED_ON = PosedAndCluttered()
TESTS = {
    "as trained": TRAINED_ON,
    "no clutter": replace(TRAINED_ON, share=0.0),
    "4 pieces": replace(TRAINED_ON, share=1.0),
    "8 pieces": replace(TRAINED_ON, share=1.0, patches=8),
    "any angle": replace(TRAINED_ON, share=0.0, max_angle=180.0),
}
"""Test sets by their names in the record. The last two are beyond what the network was trained on."""


# ---- The weights as a script ---------------------------------------------------------------------


def write_weights(
    state: Mapping[str, torch.Tensor], path: Path, about: Mapping[str, Any], command: str
) -> None:
    """Write weights, rounded to float16, as a script beside its place, and move it there.

    Parameters
    ----------
    state : mapping
        From names to tensors, as ``state_dict`` returns them.
    path : Path
    about : mapping
        What is told with them, as JSON.
    command : str
        Which made them, for the header.
    """
    arrays = [value.detach().cpu().numpy().astype("<f2") for value in state.values()]
    told = dict(about) | {
        "shapes": {name: list(value.shape) for name, value in state.items()},
        "float16": base64.b64encode(b"".join(a.tobytes() for a in arrays)).decode(),
    }
    beside = path.with_name(path.name + ".part")
    header = HEADER.format(command=command, name=NAME)
    beside.write_text(header + json.dumps(told) + ";\n", encoding="utf-8")
    os.replace(beside, path)


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Read the weights that `write_weights` wrote.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        From names to arrays of float16.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If it is not a whole file of weights.
    """
    text = path.read_text(encoding="utf-8")
    try:
        told = json.loads(text.partition(f"{NAME} = ")[2].removesuffix(";\n"))
        rest = np.frombuffer(base64.b64decode(told["float16"], validate=True), "<f2")
        sizes = [int(np.prod(shape)) for shape in told["shapes"].values()]
        if sum(sizes) != len(rest):
            raise ValueError(f"{len(rest)} numbers for shapes of {sum(sizes)}")
        parts = np.split(rest, np.cumsum(sizes)[:-1])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a whole file of weights ({error}); "
            "python -m stnlib.experiments.in_the_page makes one"
        ) from None
    return {
        name: part.reshape(shape)
        for (name, shape), part in zip(told["shapes"].items(), parts, strict=True)
    }


def load(path: Path) -> STFCN:
    """Return the network that runs in the page, with the weights that the page has.

    Parameters
    ----------
    path : Path
        Of the script that `write_weights` wrote.

    Returns
    -------
    STFCN
        In evaluation mode, its weights float32, each the value of a float16.
    """
    weights = {
        name: torch.from_numpy(w.astype(np.float32)) for name, w in read_weights(path).items()
    }
    network = STFCN(TRAINED_ON.size, sum(w.numel() for w in weights.values()))
    network.load_state_dict(weights)
    return network.eval()


# ---- Training and measuring ----------------------------------------------------------------------


def measure(network: STFCN, digits: int = 10_000) -> dict[str, Any]:
    """Measure a network on each of `TESTS`, and on frames without a digit.

    Parameters
    ----------
    network : STFCN
    digits : int
        How many of the test set.

    Returns
    -------
    dict
        ``errors``, in percent; ``upside_down``, that on digits turned by more than 90 degrees; ``pose_before`` and
        ``pose_after`` the transformer, without clutter (`stnlib.experiments.rts.statistics`); ``sure_of_nothing``, the
        mean probability, in percent, of the likeliest class on four pieces of clutter and no digit.
    """
    images, labels = (part[:digits] for part in mnist.load("test"))
    found: dict[str, Any] = {"errors": {}}
    for name, distortion in TESTS.items():
        frames, truth, theta = distorted(images, labels, distortion)
        found["errors"][name] = round(100 * error_rate(network, frames, truth), 2)
        if name == "any angle":
            far = np.abs(pose(theta["pose"])["angle"]) > TRAINED_ON.max_angle
            found["upside_down"] = round(100 * error_rate(network, frames[far], truth[far]), 2)
        if name == "no clutter":
            regressed = regressed_theta(network, frames)
            found["pose_before"] = statistics(theta["pose"])
            found["pose_after"] = statistics(transforms.compose(theta["pose"], regressed))
    found["sure_of_nothing"] = round(100 * _sure_of_nothing(network, images), 2)
    return found


@torch.no_grad()
def _sure_of_nothing(network: STFCN, images: np.ndarray) -> float:
    """Return the mean probability of the likeliest class on frames of clutter alone."""
    theta = TESTS["4 pieces"].theta(len(images), np.random.default_rng(0))
    theta["pose"] = transforms.translation(9.0, 9.0)  # beside the digit, where nothing is
    frames = torch.from_numpy(TESTS["4 pieces"].apply(mnist.to_input(images), theta))
    return float(softmax(network(frames), 1).amax(1).mean())


def run(
    iterations: int,
    parameters: int,
    seed: int,
    after_step: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[STFCN, dict[str, Any]]:
    """Train the network that runs in the page.

    Parameters
    ----------
    iterations, parameters, seed : int
    after_step : callable, optional
        As for `stnlib.training.train`.

    Returns
    -------
    network : STFCN
        In evaluation mode.
    record : dict
        How it was trained, and how long that took.
    """
    torch.manual_seed(seed)
    network, schedule = STFCN(TRAINED_ON.size, parameters), Schedule(iterations)
    data = DistortedDigits(*mnist.load("train"), TRAINED_ON, schedule.batch, seed)
    start = time.perf_counter()
    losses = np.array(train(network, data, schedule, after_step))
    return network.eval(), {
        "network": "ST-FCN",
        "parameters": count_parameters(network),
        "seed": seed,
        "data": asdict(TRAINED_ON),
        "schedule": asdict(schedule),
        "seconds": round(time.perf_counter() - start, 1),
        "loss": [
            round(float(p.mean()), 4) for p in np.array_split(losses, min(60, iterations))
        ],
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m stnlib.experiments.in_the_page", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--parameters", type=int, default=PARAMETERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    progress = require("rich.progress", "train", "stnlib.experiments.in_the_page")

    torch.set_num_threads(1)
    command = shlex.join(
        ["python", "-m", "stnlib.experiments.in_the_page"]
        + (sys.argv[1:] if arguments is None else arguments)
    )
    with progress.Progress(transient=True) as bar:
        advance = partial(bar.advance, bar.add_task("ST-FCN", total=options.iterations))
        network, record = run(
            options.iterations, options.parameters, options.seed, lambda step, loss: advance()
        )
    about = {"size": list(TRAINED_ON.size)}
    write_weights(network.state_dict(), options.weights, about, command)
    trained = measure(network)
    record |= {
        "errors_in_float32": trained["errors"],
        **measure(load(options.weights)),
        "bytes": options.weights.stat().st_size,
        "command": command,
        "threads": 1,
        "environment": records.environment(),
    }
    records.write(options.output, record)
    for name, error in record["errors"].items():
        print(f"{name}: {error:.2f} % error")


if __name__ == "__main__":
    main()
