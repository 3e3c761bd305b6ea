import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from stnlib.data.distortions import RTS, Distortion
from stnlib.training import Schedule, error_rate, train
from stnlib.training.loop import batches

SMALL = Distortion(size=(28, 28), max_angle=0.0, scales=(1.0, 1.0))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def two_heaps(batch=16, seed=0):
    """Points about (1, 1) and (-1, -1), and which of the two heaps they belong to."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        labels = torch.randint(0, 2, (batch,), generator=generator)
        yield (
            0.3 * torch.randn(batch, 2, generator=generator) + (2.0 * labels[:, None] - 1),
            labels,
        )


class Localised(nn.Module):
    """Two layers alike in everything but their name."""

    def __init__(self):
        super().__init__()
        self.localisation = nn.Linear(2, 2)
        self.classifier = nn.Linear(2, 2)
        self.classifier.load_state_dict(self.localisation.state_dict())

    def forward(self, input):
        return self.localisation(input) + self.classifier(input)


# The schedule


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"iterations": 0},
            "iterations and batch: expected whole numbers of at least 1, got 0 and 128",
        ),
        (
            {"iterations": 5, "batch": 0},
            "iterations and batch: expected whole numbers of at least 1, got 5 and 0",
        ),
        (
            {"iterations": 5, "warm_up": 0.0},
            "warm_up: expected a number between 0 and 1, got 0.0",
        ),
        (
            {"iterations": 5, "warm_up": 1.0},
            "warm_up: expected a number between 0 and 1, got 1.0",
        ),
        (
            {"iterations": 5, "warm_up": math.nan},
            "warm_up: expected a number between 0 and 1, got nan",
        ),
    ],
)
def test_impossible_schedules_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Schedule(**options)


def learning_rates(monkeypatch, schedule, network=None):
    """Return the learning rate that each parameter had at each step, by its name."""
    network = Localised() if network is None else network
    rates = {name: [] for name, _ in network.named_parameters()}
    step = torch.optim.AdamW.step

    def recording(self, *args, **kwargs):
        for group in self.param_groups:
            for name, parameter in network.named_parameters():
                if any(parameter is p for p in group["params"]):
                    rates[name].append(group["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", recording)
    train(network, two_heaps(), schedule)
    return {name: np.array(steps) for name, steps in rates.items()}


@pytest.mark.parametrize("warm_up", [0.1, 0.15, 0.5])
def test_learning_rate_rises_to_its_peak_and_falls(monkeypatch, warm_up):
    rates = learning_rates(monkeypatch, Schedule(99, learning_rate=0.02, warm_up=warm_up))[
        "classifier.weight"
    ]
    assert len(rates) == 99
    assert rates.max() == pytest.approx(0.02, rel=0.01)
    peak = int(rates.argmax())
    assert peak == pytest.approx(warm_up * 100, abs=1)
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    assert (
        rates[-1] < 0.02 * 0.002
    )  # half a cosine over 50 steps ends at (pi / 100)**2 or below


def test_localisation_learns_more_slowly(monkeypatch):
    rates = learning_rates(monkeypatch, Schedule(20, localisation=0.25))
    for part in ("weight", "bias"):
        np.testing.assert_allclose(
            rates[f"localisation.{part}"], 0.25 * rates[f"classifier.{part}"], rtol=1e-12
        )


def test_localisation_takes_shorter_steps():
    network = Localised()
    before = copy.deepcopy(network.state_dict())
    train(network, two_heaps(), Schedule(1, localisation=0.3))
    moved = {name: (value - before[name]).abs() for name, value in network.state_dict().items()}
    # Adam's first step is the learning rate itself, whatever the gradient; weight decay adds 1 % of a weight to it.
    ratio = moved["localisation.weight"] / moved["classifier.weight"]
    torch.testing.assert_close(ratio, torch.full((2, 2), 0.3), rtol=0, atol=0.01)


@pytest.mark.parametrize("name", ["localisation", "classifier"])
def test_either_group_may_be_empty(name):
    network = nn.ModuleDict({name: nn.Linear(2, 2)})
    network.forward = network[name].forward
    losses = train(network, two_heaps(), Schedule(20, learning_rate=0.1))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("iterations", "warm_up"), [(1, 0.15), (1, 0.5), (3, 0.25), (9, 0.1), (2, 0.99)]
)
def test_any_schedule_that_is_accepted_runs(iterations, warm_up):
    assert (
        len(train(Localised(), two_heaps(), Schedule(iterations, warm_up=warm_up)))
        == iterations
    )


# The loop


def test_the_loss_falls():
    network = nn.Linear(2, 2)
    losses = train(network, two_heaps(), Schedule(60, learning_rate=0.1))
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.1 * np.mean(losses[:2])
    points, labels = next(two_heaps(200, seed=1))
    assert error_rate(network, points, labels) < 0.01


def test_first_loss_is_the_cross_entropy_before_any_step():
    network = Localised()
    points, labels = next(two_heaps())
    expected = nn.functional.cross_entropy(network(points), labels).item()
    assert train(network, two_heaps(), Schedule(1))[0] == expected


def test_two_runs_with_one_seed_are_bitwise_equal():
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28)).astype(np.uint8)
    labels = (np.arange(50) % 10).astype(np.uint8)

    def run(seed):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 10)
        )
        losses = train(
            network, batches(images, labels, SMALL, 8, np.random.default_rng(seed)), Schedule(5)
        )
        return losses, [p.detach().clone() for p in network.parameters()]

    (losses, weights), (again, same), (other, _) = run(1), run(1), run(2)
    assert losses == again
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    assert losses != other


def test_long_gradients_are_shortened(monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def recording(self, *args, **kwargs):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.cat([g.flatten() for g in grads]).norm().item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", recording)
    train(nn.Linear(2, 2), two_heaps(), Schedule(5, clip=0.01))
    assert norms == pytest.approx(
        [0.01] * 5, rel=1e-3
    )  # PyTorch adds 1e-6 to the norm that it divides by


def test_gradients_do_not_add_up_over_the_steps(monkeypatch):
    gradients = []
    step = torch.optim.AdamW.step
    network = nn.Linear(2, 2)

    def recording(self, *args, **kwargs):
        gradients.append(network.weight.grad.clone())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", recording)
    batch = next(two_heaps())
    train(network, iter([batch] * 3), Schedule(3, learning_rate=1e-9, clip=1e6))
    for later in gradients[1:]:
        torch.testing.assert_close(
            later, gradients[0], rtol=0, atol=1e-6
        )  # the weights have moved by 1e-9 a step


def test_after_step_hears_of_every_step():
    heard = []
    losses = train(
        Localised(), two_heaps(), Schedule(4), lambda step, loss: heard.append((step, loss))
    )
    assert heard == list(enumerate(losses, start=1))


def test_network_trains_in_training_mode():
    network = nn.Sequential(nn.Linear(2, 2)).eval()
    train(network, two_heaps(), Schedule(1))
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_training(bad):
    def spoilt():
        points, labels = next(two_heaps())
        yield points, labels
        yield points * bad, labels

    network = nn.Linear(2, 2)
    with pytest.raises(
        FloatingPointError,
        match=r"^the loss is (nan|inf) at step 2; a lower learning rate usually helps$",
    ):
        train(network, spoilt(), Schedule(5))
    assert all(torch.isfinite(p).all() for p in network.parameters())


# The error rate


@pytest.mark.parametrize("batch", [1, 2, 4, 1000])
def test_error_rate_by_hand(batch):
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 3.0], [0.5, 0.0, 0.2]])
    assert error_rate(nn.Identity(), logits, torch.tensor([0, 2, 2, 1]), batch) == 0.5
    assert error_rate(nn.Identity(), logits, torch.tensor([0, 1, 2, 0]), batch) == 0
    assert error_rate(nn.Identity(), logits, torch.tensor([1, 0, 1, 1]), batch) == 1


@pytest.mark.parametrize("training", [True, False])
def test_error_rate_evaluates_and_restores_the_mode(training):
    seen = []

    class Watched(nn.Linear):
        def forward(self, input):
            seen.append((self.training, torch.is_grad_enabled()))
            return super().forward(input)

    network = nn.Sequential(Watched(2, 2)).train(training)
    error_rate(network, *next(two_heaps()))
    assert seen == [(False, False)]
    assert [m.training for m in network.modules()] == [training, training]


def test_error_rate_leaves_a_frozen_part_frozen():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    network[1].eval()
    error_rate(network, *next(two_heaps()))
    assert [m.training for m in network.modules()] == [True, True, False]


def test_error_rate_restores_the_mode_after_an_error():
    network = nn.Linear(2, 2).train()
    with pytest.raises(RuntimeError):
        error_rate(network, torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    assert network.training


# Batches


def test_batches_are_tensors_for_the_loop():
    images, labels = np.zeros((20, 28, 28), np.uint8), np.arange(20).astype(np.uint8)
    some, answers = next(batches(images, labels, RTS, 8, np.random.default_rng(0)))
    assert (some.shape, some.dtype) == ((8, 1, 42, 42), torch.float32)
    assert (answers.shape, answers.dtype) == ((8,), torch.int64)


def test_labels_stay_with_their_images():
    images = np.repeat(np.arange(10, dtype=np.uint8), 784).reshape(10, 28, 28)
    some, answers = next(
        batches(images, np.arange(10, dtype=np.uint8), SMALL, 64, np.random.default_rng(0))
    )
    torch.testing.assert_close(
        255 * some.mean(dim=(1, 2, 3)), answers.float(), rtol=0, atol=1e-5
    )
    assert set(answers.tolist()) == set(range(10))


def test_batches_are_seeded_and_differ_from_one_another():
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28)).astype(np.uint8)
    labels = np.arange(20).astype(np.uint8)

    def three(seed):
        data = batches(images, labels, RTS, 4, np.random.default_rng(seed))
        return [next(data)[0] for _ in range(3)]

    first, again, other = three(0), three(0), three(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("name", ["learning_rate", "localisation", "clip"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_rates_and_clips_are_positive(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a positive number, got {value}"):
        Schedule(1, **{name: value})


@pytest.mark.parametrize(("images", "labels"), [(5, 1), (0, 0)])
def test_error_rate_wants_a_label_for_each_image(images, labels):
    with pytest.raises(ValueError, match=f"labels: expected one for each of {images} images"):
        error_rate(
            torch.nn.Flatten(), torch.zeros(images, 10), torch.zeros(labels, dtype=torch.int64)
        )


def test_batches_want_a_label_for_each_image():
    with pytest.raises(ValueError, match="labels: expected one for each of 2 images, got 1"):
        next(
            batches(
                np.zeros((2, 28, 28), np.uint8),
                np.zeros(1, np.uint8),
                SMALL,
                1,
                np.random.default_rng(0),
            )
        )
