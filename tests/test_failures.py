import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from stnlib.data import mnist
from stnlib.experiments import failures
from stnlib.experiments.failures import ConsistentTrainer, Tight, Trial, make_network
from stnlib.nn.models import STFCN, count_parameters
from stnlib.training import Schedule, Trainer

IDENTITY = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def frames(count, size=(42, 42), seed=0):
    return torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(seed))


# Networks


def start_of(trial):
    """Return the thetas that a trial's untrained transformer uses on three frames."""
    _, theta = make_network(trial, 0).transformer(frames(3), return_theta=True)
    return theta.detach().numpy()


@pytest.mark.parametrize("trial", [Trial(), Trial(options={"bounds": 1.0}), Trial(dropout=0.5)])
def test_a_training_starts_from_the_identity(trial):
    np.testing.assert_allclose(start_of(trial), [IDENTITY] * 3, rtol=0, atol=1e-7)


def test_a_tanh_behind_the_identity_starts_with_a_zoom():
    expected = [[math.tanh(value) for value in IDENTITY]] * 3
    np.testing.assert_allclose(start_of(Trial(tanh=True)), expected, rtol=0, atol=1e-6)


def test_a_random_start_depends_on_the_digit_and_lies_anywhere():
    random, far = start_of(Trial(start="random")), start_of(Trial(start="far"))
    assert np.ptp(random, axis=0).max() > 1e-4
    assert np.abs(random).max() < 1
    assert np.abs(far).max() > 2


def test_dropout_stands_behind_each_hidden_layer_of_the_classifier_alone():
    network = make_network(Trial(dropout=0.25), 0)
    found = [
        (name, m.p) for name, m in network.named_modules() if isinstance(m, torch.nn.Dropout)
    ]
    assert [p for _, p in found] == [0.25, 0.25]
    assert all(name.startswith("classifier") for name, _ in found)
    assert count_parameters(network) == count_parameters(STFCN())


def test_trials_of_one_seed_start_with_the_same_classifier():
    weights = [
        make_network(trial, 3).classifier.layers[1].weight
        for trial in (Trial(), Trial(tanh=True))
    ]
    assert torch.equal(*weights)


# Digits


def test_tight_digits_are_cut_out_and_nothing_more():
    images = mnist.to_input(mnist.load("test")[0][:5])
    tight = Tight()
    cut = tight(images, np.random.default_rng(0))
    assert cut.shape == (5, 1, *tight.size) == (5, 1, 20, 20)
    np.testing.assert_array_equal(cut, images[:, :, 4:24, 4:24])


# The consistency loss


class Centroid(torch.nn.Module):
    """Answers with a window of full size, whose middle is the ink's centroid, multiplied by a number to be learnt."""

    def __init__(self, gain):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, images):
        ink = images[:, 0] / images.sum((1, 2, 3))[:, None, None]
        places = (2 * torch.arange(42) + 1) / 42 - 1
        x, y = (ink.sum(1) * places).sum(1), (ink.sum(2) * places).sum(1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        return torch.stack([one, zero, self.gain * x, zero, one, self.gain * y], 1)


class Looking(torch.nn.Module):
    """A network whose loss of the digits does not depend on where it looks."""

    def __init__(self, gain):
        super().__init__()
        self.transformer = torch.nn.Module()
        self.transformer.localisation = Centroid(gain)

    def forward(self, images):
        return torch.zeros(len(images), 10) + 0 * self.transformer.localisation.gain


def test_consistency_makes_theta_follow_the_digit(monkeypatch):
    def shifts(count, step):
        matrices = torch.eye(2, 3, dtype=torch.float64).repeat(count, 1, 1)
        matrices[:, :, 2] = torch.tensor([4.0, -6.0]) / 42  # two and three pixels
        return matrices

    monkeypatch.setattr(failures, "_moves", shifts)
    images, labels = torch.zeros(4, 1, 42, 42), torch.zeros(4, dtype=torch.int64)
    images[:, :, 15:22, 18:25] = frames(4, (7, 7))
    schedule = Schedule(10, learning_rate=2.0, optimiser="sgd", weight_decay=0.0, clip=math.inf)
    gains = []
    for start in (0.5, 1.5, 1.0):
        network = Looking(start)
        trainer = ConsistentTrainer(network, schedule, 1.0)
        for _ in range(10):
            trainer.step(images, labels)
        gains.append(network.transformer.localisation.gain.item())
    # A window that follows the ink exactly has a gain of 1.
    assert 0.55 < gains[0] < 1.1
    assert 0.9 < gains[1] < 1.45
    assert gains[2] == pytest.approx(1, abs=1e-5)


def test_consistency_of_no_weight_is_the_ordinary_training():
    images, labels = frames(8), torch.arange(8)
    networks = [make_network(Trial(), 0) for _ in range(3)]
    schedule = Schedule(2, clip=math.inf)
    trainers = [
        Trainer(networks[0], schedule),
        ConsistentTrainer(networks[1], schedule, 0.0),
        ConsistentTrainer(networks[2], schedule, 10.0),
    ]
    losses = [trainer.step(images, labels) for trainer in trainers]
    assert losses[0] == losses[1] == losses[2]
    one, same = ([p.detach() for p in network.parameters()] for network in networks[:2])
    assert all(map(torch.equal, one, same))
    layer = [network.transformer.localisation[-1].bias for network in networks]
    assert not torch.equal(layer[0], layer[2])
    # Without clipping, the classifier's first step knows nothing of it.
    layer = [network.classifier.layers[1].weight for network in networks]
    assert torch.equal(layer[0], layer[2])


def test_moves_follow_from_the_step_and_keep_the_frame_in_sight():
    move = failures._moves(500, 7)
    assert torch.equal(move, failures._moves(500, 7))
    assert not torch.equal(move, failures._moves(500, 8))
    linear = move[:, :, :2]
    # Of a similarity, A Aᵀ is the square of its scale times the identity.
    square = torch.linalg.det(linear)[:, None, None] * torch.eye(2)
    torch.testing.assert_close(linear @ linear.mT, square)
    assert (
        0.8
        < torch.linalg.det(linear).sqrt().min()
        < torch.linalg.det(linear).sqrt().max()
        < 1.25
    )
    assert move[:, :, 2].abs().max() <= 0.15


# Runs and their record


@pytest.fixture
def _few_digits(monkeypatch):
    whole = failures.distorted

    def few(images, labels, distortion):
        return whole(images[:300], labels[:300], distortion)

    monkeypatch.setattr(failures, "distorted", few)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_few_digits")
def test_a_tiny_measurement_writes_its_record_once(tmp_path, capsys, monkeypatch):
    path = tmp_path / "failures.json"
    arguments = ["--trials", "chapter", "tight, tanh", "--seeds", "1", "--iterations", "3"]
    arguments += ["--output", str(path)]
    failures.main(arguments)
    runs = json.loads(path.read_text())["runs"]
    assert [(run["name"], run["seed"]) for run in runs] == [("chapter", 1), ("tight, tanh", 1)]
    for run in runs:
        assert run["schedule"] == asdict(Schedule(3))
        assert [entry["steps"] for entry in run["history"]] == [1, 2, 3]
        assert len(run["loss"]) == 3
        assert run["loss"][0] == pytest.approx(math.log(10), abs=0.2)
        assert 20 < run["error"] <= 100  # of 90 by chance, and 2 to 6 after a whole training
        assert run["ended"] is None
        assert "'tight, tanh'" in run["command"]
    assert set(runs[0]["left"]) == {"x", "y", "log_scale", "angle"}
    assert runs[1]["left"] is None
    # A tanh holds theta's diagonal near 0.76: nothing lies beyond the frame.
    assert runs[1]["history"][0]["transformers"]["transformer"]["outside"] == 0
    assert "tight, tanh, seed 1: " in capsys.readouterr().out

    first = path.read_text()
    monkeypatch.setattr(failures, "run", None)
    failures.main(arguments)
    assert path.read_text() == first


@pytest.mark.usefixtures("_few_digits")
def test_a_training_that_fails_is_recorded_with_its_reason(monkeypatch):
    rates = {"learning_rate": 1e30, "clip": math.inf}
    monkeypatch.setitem(failures.TRIALS, "blown up", Trial(schedule=rates))
    run = failures.run("blown up", 0, 5)
    assert run["ended"].startswith("the loss is ")
    assert run["left"] is None
    assert run["error"] > 80
    assert json.loads(json.dumps(run, allow_nan=False))["schedule"]["clip"] == "inf"


@pytest.mark.usefixtures("_few_digits")
def test_one_seed_gives_one_result():
    first, again, other = (failures.run("few, consistency", seed, 2) for seed in (3, 3, 4))
    assert first["loss"] == again["loss"] != other["loss"]
    assert first["error"] == again["error"]


def test_unknown_trials_are_refused(capsys):
    with pytest.raises(SystemExit):
        failures.main(["--trials", "hope"])
    assert "invalid choice: 'hope'" in capsys.readouterr().err


def test_the_record_holds_every_trial_as_it_is_declared_from_three_seeds():
    runs = json.loads((Path(__file__).parents[1] / failures.RESULTS).read_text())["runs"]
    found = {(run["name"], run["seed"]): run for run in runs}
    assert set(found) == {(name, seed) for name in failures.TRIALS for seed in range(3)}
    for (name, _), run in found.items():
        assert run["trial"] == failures._readable(asdict(failures.TRIALS[name]))
        assert run["schedule"]["iterations"] == failures.ITERATIONS
