"""How the training of an ST-FCN fails, what cures it, and what regularisation does (chapter 5).

    python -m stnlib.experiments.failures

trains each trial for a short time from each seed, and writes ``results/failures.json`` after each run. Runs that the
file already holds are not repeated.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .. import transforms
from .._extras import require
from ..data import mnist
from ..data.distortions import DIGIT, RTS, BaseDistortion

require("torch", "train", "stnlib.experiments.failures")

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

from ..nn import SpatialTransformer  # noqa: E402
from ..nn.functional import affine_sample  # noqa: E402
from ..nn.models import STFCN, count_parameters  # noqa: E402
from ..nn.weights import load_weights  # noqa: E402
from ..training.digits import DistortedDigits, distorted, split  # noqa: E402
from ..training.fit import BEST, fit  # noqa: E402
from ..training.loop import Trainer, error_rate  # noqa: E402
from ..training.schedule import Schedule  # noqa: E402
from ..training.watch import TrainingWarning  # noqa: E402
from . import records  # noqa: E402
from .rts import regressed_theta, statistics  # noqa: E402

RESULTS = Path("results/failures.json")
ITERATIONS = 600
EVALUATIONS = 10  # a run
HELD_OUT = 2000  # digits of the validation set, so that looking costs little


@dataclass(frozen=True)
class Tight(BaseDistortion):
    """No distortion: upright digits, cut out so that they fill a frame of 20×20 pixels."""

    size: tuple[int, int] = (20, 20)

    def theta(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return the same for every digit: nothing is random."""
        return np.zeros(n)

    def apply(self, images: Any, theta: np.ndarray) -> Any:
        """Return images, (N, 1, 28, 28), without their margin."""
        margin = (DIGIT - self.size[0]) // 2
        return images[..., margin:-margin, margin:-margin]


DATA = {"RTS": RTS, "tight": Tight()}


@dataclass(frozen=True)
class Trial:
    """One way to train an ST-FCN; by default, that of chapter 5.

    Parameters
    ----------
    data : {"RTS", "tight"}
        The paper's distortion, or digits that fill their frame (`Tight`).
    digits : int
        Of the training set, from its start.
    shift, scale : float
        Each image is made (image - shift) / scale before the transformer sees it.
    start : {"identity", "random", "far"}
        Of the localisation network's last layer: as PyTorch draws it; or its bias from a normal distribution of
        standard deviation 3.
    tanh : bool
        A tanh behind that layer.
    dropout : float
        Part of the classifier's hidden units that is left out at random, between 0 and 1.
    consistency : float
        Weight of the consistency loss on theta (`ConsistentTrainer`).
    options : mapping
        Of the `SpatialTransformer`.
    schedule : mapping
        Of the `Schedule`, apart from its length.
    """

    data: str = "RTS"
    digits: int = 55_000
    shift: float = 0.0
    scale: float = 1.0
    start: str = "identity"
    tanh: bool = False
    dropout: float = 0.0
    consistency: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)


HIGH = 0.05  # a learning rate, eight times the chapter's
FEW = 300  # digits
BLACK_AT_MINUS_1: dict[str, Any] = {"shift": 0.5, "scale": 0.5}

TRIALS = {
    "chapter": Trial(),
    "not clipped": Trial(schedule={"clip": math.inf}),
    "high rate, clipped": Trial(schedule={"learning_rate": HIGH}),
    "high rate, not clipped": Trial(schedule={"learning_rate": HIGH, "clip": math.inf}),
    "localisation 10": Trial(schedule={"localisation": 10.0}),
    "localisation 30": Trial(schedule={"localisation": 30.0}),
    "background -1, zeros": Trial(**BLACK_AT_MINUS_1),
    "background -1, fill": Trial(
        **BLACK_AT_MINUS_1, options={"padding_mode": "fill", "fill_value": -1.0}
    ),
    "random": Trial(start="random"),
    "far": Trial(start="far"),
    "tanh": Trial(tanh=True),
    "tight": Trial(data="tight"),
    "tight, tanh": Trial(data="tight", tanh=True),
    "tight, bounds": Trial(data="tight", options={"bounds": 1.0}),
    "dropout": Trial(dropout=0.3),
    "weight decay": Trial(schedule={"weight_decay": 1.0}),
    "consistency": Trial(consistency=1.0),
    "few": Trial(digits=FEW),
    "few, dropout": Trial(digits=FEW, dropout=0.3),
    "few, weight decay": Trial(digits=FEW, schedule={"weight_decay": 1.0}),
    "few, consistency": Trial(digits=FEW, consistency=1.0),
}
"""The trials of chapter 5 by their names in the record."""


class ConsistentTrainer(Trainer):
    """A trainer that asks for a theta that goes along when the whole frame is moved.

    Parameters
    ----------
    network : STFCN
        Of affine transforms.
    schedule : Schedule
    weight : float
        Of the consistency loss, beside the loss of the digits.

    Notes
    -----
    Each frame is shown to the localisation network twice: as it came, and read through a small random similarity M. If
    it answers θ to the first and θ' to the second, M θ' reads the first frame. The loss is the mean of (M θ' - θ)².
    Used in chapter 5.
    """

    def __init__(self, network: STFCN, schedule: Schedule, weight: float) -> None:
        super().__init__(network, schedule)
        self.localisation, self.weight = network.transformer.localisation, weight

    def update(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Update the weights by the gradient of both losses, and return the loss of the digits."""
        move = _moves(len(images), self.steps)
        moved = affine_sample(images, move, tuple(images.shape[2:]))
        theta, followed = (
            self.localisation(some).double().reshape(-1, 2, 3) for some in (images, moved)
        )
        apart = (transforms.compose(move, followed) - theta).square().mean()
        loss = cross_entropy(self.forward(images), labels)
        self.optimiser.zero_grad()
        (loss + self.weight * apart).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
        self.optimiser.step()
        return loss.detach()


def _moves(count: int, step: int) -> torch.Tensor:
    """Return random similarities, (count, 2, 3), the same for the same step."""
    rng = np.random.default_rng(step)
    scale, angle = np.exp(rng.uniform(-0.2, 0.2, count)), rng.uniform(-0.4, 0.4, count)
    return torch.from_numpy(
        transforms.similarity(scale, angle, *rng.uniform(-0.15, 0.15, (2, count)))
    )


def make_network(trial: Trial, seed: int) -> STFCN:
    """Return the network of a trial, with the weights that it starts from.

    Parameters
    ----------
    trial : Trial
    seed : int

    Returns
    -------
    STFCN

    Examples
    --------
    >>> _, theta = make_network(Trial(tanh=True), 0).transformer(torch.rand(1, 1, 42, 42), return_theta=True)
    >>> theta.detach()
    tensor([[0.7616, 0.0000, 0.0000, 0.0000, 0.7616, 0.0000]])
    """
    torch.manual_seed(seed)
    network: Any = STFCN(DATA[trial.data].size)
    localisation, options = network.transformer.localisation, dict(trial.options)
    if trial.start != "identity":
        last = localisation[-1]
        last.reset_parameters()
        if trial.start == "far":
            nn.init.normal_(last.bias, std=3.0)
        options["initial"] = "keep"
    if trial.tanh:
        localisation = nn.Sequential(*localisation, nn.Tanh())
    network.transformer = SpatialTransformer(localisation, **options)
    if trial.dropout:
        layers: list[nn.Module] = []
        for layer in network.classifier.layers:
            layers += (
                [layer, nn.Dropout(trial.dropout)] if isinstance(layer, nn.ReLU) else [layer]
            )
        network.classifier.layers = nn.Sequential(*layers)
    return network


def run(name: str, seed: int, iterations: int) -> dict[str, Any]:
    """Train one trial and measure it.

    Parameters
    ----------
    name : str
        Of one of `TRIALS`.
    seed, iterations : int

    Returns
    -------
    dict
        The trial and its schedule; for each evaluation what `stnlib.training.fit` returns; what was warned of; the
        sentence with which the training ended, if it failed, else null; the errors, in percent, on the test set: at the
        end, and with the weights that had the fewest on the digits held out; and how much of the spread of each part
        of the digits' pose is left behind the transformer, where it mirrors none.
    """
    trial = TRIALS[name]
    schedule = Schedule(iterations, **trial.schedule)
    distortion = DATA[trial.data]
    training, validation = (
        (i[:n], k[:n]) for (i, k), n in zip(split(), (trial.digits, HELD_OUT), strict=True)
    )
    held_out, test = (
        distorted(*validation, distortion),
        distorted(*mnist.load("test"), distortion),
    )

    def prepared(images: torch.Tensor) -> torch.Tensor:
        return (images - trial.shift) / trial.scale

    digits = DistortedDigits(*training, distortion, schedule.batch, seed)

    def data(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = digits(step)
        return prepared(images), labels

    network = make_network(trial, seed)
    if trial.consistency:
        trainer: Trainer = ConsistentTrainer(network, schedule, trial.consistency)
    else:
        trainer = Trainer(network, schedule)
    history: list[dict[str, Any]] = []
    losses: list[float] = []
    ended, start = None, time.perf_counter()
    with TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TrainingWarning)
        try:
            fit(
                trainer,
                data,
                (prepared(held_out[0]), held_out[1]),
                Path(folder),
                {},
                every=max(1, iterations // EVALUATIONS),
                after_step=lambda trainer, loss: losses.append(loss),
                observers=[lambda trainer, entry: history.append(entry)],
            )
        except FloatingPointError as error:
            ended = str(error)
        seconds = time.perf_counter() - start
        images, labels, theta = prepared(test[0]), test[1], test[2]
        result = {
            "name": name,
            "seed": seed,
            "trial": asdict(trial),
            "schedule": asdict(schedule),
            "parameters": count_parameters(network),
            "seconds": round(seconds, 1),
            "loss": [
                round(float(part.mean()), 4)
                for part in np.array_split(np.array(losses), min(30, len(losses) or 1))
            ],
            "history": [
                {k: round(v, 3) if isinstance(v, float) else v for k, v in entry.items()}
                for entry in history
            ],
            "warnings": [str(w.message) for w in caught],
            "ended": ended,
            "error": round(100 * error_rate(network, images, labels), 2),
            "left": None if ended or theta.ndim != 3 else _left(network, images, theta),
        }
        if (Path(folder) / BEST).exists():
            load_weights(network, Path(folder) / BEST)
        result["error_of_best"] = round(100 * error_rate(network, images, labels), 2)
    return _readable(result)


def _readable(value: Any) -> Any:
    """Return a record in which numbers that are not finite, which JSON does not know, are strings."""
    if isinstance(value, Mapping):
        return {key: _readable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_readable(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _left(network: STFCN, images: torch.Tensor, hidden: np.ndarray) -> dict[str, float] | None:
    """Return the share of the spread of each part of the pose that is left; None if a digit is mirrored."""
    theta = regressed_theta(network, images)
    if not (np.linalg.det(theta[:, :, :2]) > 0).all():
        return None
    before, after = statistics(hidden), statistics(transforms.compose(hidden, theta))
    return {
        part: round(after[part]["std"] / before[part]["std"], 3)
        for part in before
        if before[part]["std"] > 0
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m stnlib.experiments.failures", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--trials", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)

    torch.set_num_threads(1)
    record = records.read(options.output) if options.output.exists() else {"runs": []}
    done = {(r["name"], r["schedule"]["iterations"], r["seed"]) for r in record["runs"]}
    command = "python -m stnlib.experiments.failures " + shlex.join(
        sys.argv[1:] if arguments is None else arguments
    )
    for seed in options.seeds:
        for name in options.trials:
            if (name, options.iterations, seed) in done:
                continue
            result = run(name, seed, options.iterations) | {
                "command": command.strip(),
                "threads": 1,
                "environment": records.environment(),
            }
            record["runs"].append(result)
            records.write(options.output, record)
            print(f"{name}, seed {seed}: {result['error']:.2f} % error")


if __name__ == "__main__":
    main()
