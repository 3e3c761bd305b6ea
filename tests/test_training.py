import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from stnlib.nn import SpatialTransformer
from stnlib.nn.models import STFCN
from stnlib.training import Schedule, Trainer, error_rate, train
from stnlib.training.loop import require_finite


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def two_heaps(step, batch=16):
    """Points about (1, 1) and (-1, -1), and which of the two heaps they belong to."""
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(0, 2, (batch,), generator=generator)
    points = 0.3 * torch.randn(batch, 2, generator=generator) + (2.0 * labels[:, None] - 1)
    return points, labels


class Localised(nn.Module):
    """Two layers alike, of which one is the localisation network of a transformer; its images are points."""

    def __init__(self):
        super().__init__()
        # A layer with as many outputs as a theta has numbers; two of them are logits here.
        self.transformer = SpatialTransformer(nn.Linear(2, 6), initial="keep")
        self.classifier = nn.Linear(2, 6)
        self.classifier.load_state_dict(self.transformer.localisation.state_dict())

    def forward(self, input):
        return (self.transformer.localisation(input) + self.classifier(input))[:, :2]


# The schedule


@pytest.mark.parametrize("name", ["iterations", "batch"])
@pytest.mark.parametrize(
    ("value", "kind"),
    [(0, ValueError), (-3, ValueError), (2.5, TypeError), ("3", TypeError), (True, TypeError)],
)
def test_steps_and_batches_are_whole_numbers(name, value, kind):
    with pytest.raises(kind) as caught:
        Schedule(**({"iterations": 5} | {name: value}))
    assert str(caught.value) == f"{name}: expected a whole number of at least 1, got {value!r}"


@pytest.mark.parametrize("name", ["learning_rate", "localisation", "clip"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_rates_and_clips_are_positive(name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected a positive number, got {value}$"):
        Schedule(1, **{name: value})


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"learning_rate": math.inf},
            ValueError,
            "learning_rate: expected a positive number, got inf",
        ),
        (
            {"localisation": math.inf},
            ValueError,
            "localisation: expected a positive number, got inf",
        ),
        (
            {"learning_rate": "0.1"},
            TypeError,
            "learning_rate: expected a positive number, got '0.1'",
        ),
        ({"clip": None}, TypeError, "clip: expected a positive number, got None"),
        ({"warm_up": 0.0}, ValueError, "warm_up: expected a number between 0 and 1, got 0.0"),
        ({"warm_up": 1.0}, ValueError, "warm_up: expected a number between 0 and 1, got 1.0"),
        (
            {"warm_up": math.nan},
            ValueError,
            "warm_up: expected a number between 0 and 1, got nan",
        ),
        (
            {"weight_decay": -0.1},
            ValueError,
            "weight_decay: expected a number of at least 0, got -0.1",
        ),
        (
            {"weight_decay": math.inf},
            ValueError,
            "weight_decay: expected a number of at least 0, got inf",
        ),
        (
            {"weight_decay": math.nan},
            ValueError,
            "weight_decay: expected a number of at least 0, got nan",
        ),
        ({"optimiser": "adam"}, ValueError, "optimiser: expected 'adamw' or 'sgd', got 'adam'"),
        ({"decay": "linear"}, ValueError, "decay: expected 'cosine' or 'steps', got 'linear'"),
        ({"decay": None}, ValueError, "decay: expected 'cosine' or 'steps', got None"),
    ],
)
def test_impossible_schedules_are_refused(options, kind, message):
    with pytest.raises(kind) as caught:
        Schedule(5, **options)
    assert str(caught.value) == message


def test_numbers_of_numpy_are_kept_as_python_s():
    schedule = Schedule(np.int64(5), np.int32(2), np.float64(0.5), clip=1)
    assert schedule == Schedule(5, 2, 0.5, clip=1.0)
    kinds = {name: type(value) for name, value in vars(schedule).items()}
    assert kinds == {
        "iterations": int,
        "batch": int,
        "learning_rate": float,
        "localisation": float,
        "warm_up": float,
        "clip": float,
        "optimiser": str,
        "decay": str,
        "weight_decay": float,
    }


def test_cosine_by_hand():
    schedule = Schedule(10, warm_up=0.4)
    half = math.sqrt(0.5)
    # Four steps up; then the cosine of 0, 30, 60, ... 150 degrees, between 1 and 0.
    expected = [0.25, 0.5, 0.75, 1.0]
    expected += [
        (1 + c) / 2 for c in (1, half * math.sqrt(1.5), 0.5, 0, -0.5, -half * math.sqrt(1.5))
    ]
    assert [schedule.rate(step) for step in range(10)] == pytest.approx(expected, abs=1e-12)


def test_steps_by_hand():
    schedule = Schedule(12, warm_up=0.25, decay="steps")
    expected = [1 / 3, 2 / 3, 1, 1, *[0.1] * 4, *[0.01] * 4]
    assert [schedule.rate(step) for step in range(12)] == pytest.approx(expected, rel=1e-12)
    # Where the thirds are not whole, the tenth begins with the first step past a third: 10/3 and 20/3.
    rates = [Schedule(10, warm_up=0.1, decay="steps").rate(step) for step in range(10)]
    assert rates == pytest.approx([1] * 4 + [0.1] * 3 + [0.01] * 3, rel=1e-12)


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
    train(network, two_heaps, schedule)
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
            rates[f"transformer.localisation.{part}"],
            0.25 * rates[f"classifier.{part}"],
            rtol=1e-12,
        )


def test_localisation_takes_shorter_steps():
    network = Localised()
    before = copy.deepcopy(network.state_dict())
    train(network, two_heaps, Schedule(1, localisation=0.3))
    moved = {name: (value - before[name]).abs() for name, value in network.state_dict().items()}
    # Adam's first step is the learning rate itself, whatever the gradient; weight decay adds 1 % of a weight to it.
    ratio = moved["transformer.localisation.weight"] / moved["classifier.weight"]
    torch.testing.assert_close(ratio[:2], torch.full((2, 2), 0.3), rtol=0, atol=0.01)


class Only(nn.Module):
    """A network of which everything, or nothing, is a localisation network."""

    def __init__(self, localised):
        super().__init__()
        layer = nn.Linear(2, 6)
        self.part = SpatialTransformer(layer, initial="keep") if localised else layer
        self.forward = lambda points: layer(points)[:, :2]


@pytest.mark.parametrize("localised", [True, False])
def test_either_group_may_be_empty(localised):
    losses = train(Only(localised), two_heaps, Schedule(20, learning_rate=0.1))
    assert losses[-1] < losses[0]


def test_a_name_makes_no_localisation_network(monkeypatch):
    network = nn.Sequential()
    network.localisation = nn.Linear(2, 2)
    rates = learning_rates(monkeypatch, Schedule(20, localisation=0.25), network)
    assert rates["localisation.weight"].max() == pytest.approx(Schedule(20).learning_rate)


@pytest.mark.parametrize(
    ("iterations", "warm_up"), [(1, 0.15), (1, 0.5), (3, 0.25), (9, 0.1), (2, 0.99)]
)
def test_any_schedule_that_is_accepted_runs(iterations, warm_up):
    assert (
        len(train(Localised(), two_heaps, Schedule(iterations, warm_up=warm_up))) == iterations
    )


# The loop


def test_the_loss_falls():
    network = nn.Linear(2, 2)
    losses = train(network, two_heaps, Schedule(60, learning_rate=0.1))
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.1 * np.mean(losses[:2])
    points, labels = two_heaps(99, 200)
    assert error_rate(network, points, labels) < 0.01


def test_first_loss_is_the_cross_entropy_before_any_step():
    network = Localised()
    points, labels = two_heaps(0)
    expected = nn.functional.cross_entropy(network(points), labels).item()
    assert train(network, two_heaps, Schedule(1))[0] == expected


def test_two_runs_with_one_seed_are_bitwise_equal():
    def run(seed):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2))
        losses = train(network, two_heaps, Schedule(5))
        return losses, [p.detach().clone() for p in network.parameters()]

    (losses, weights), (again, same), (other, _) = run(1), run(1), run(2)
    assert losses == again
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))
    assert losses != other


def test_each_step_asks_for_its_own_batch():
    asked = []
    train(nn.Linear(2, 2), lambda step: (asked.append(step), two_heaps(step))[1], Schedule(4))
    assert asked == [0, 1, 2, 3]


def test_long_gradients_are_shortened(monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def recording(self, *args, **kwargs):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.cat([g.flatten() for g in grads]).norm().item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", recording)
    train(nn.Linear(2, 2), two_heaps, Schedule(5, clip=0.01))
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
    batch = two_heaps(0)
    train(network, lambda step: batch, Schedule(3, learning_rate=1e-9, clip=1e6))
    for later in gradients[1:]:
        torch.testing.assert_close(
            later, gradients[0], rtol=0, atol=1e-6
        )  # the weights have moved by 1e-9 a step


def test_after_step_hears_of_every_step():
    heard = []
    losses = train(
        Localised(), two_heaps, Schedule(4), lambda step, loss: heard.append((step, loss))
    )
    assert heard == list(enumerate(losses, start=1))


def test_network_trains_in_training_mode():
    network = nn.Sequential(nn.Linear(2, 2)).eval()
    train(network, two_heaps, Schedule(1))
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_training(bad):
    def spoilt(step):
        points, labels = two_heaps(step)
        return points * (bad if step == 1 else 1), labels

    network = nn.Linear(2, 2)
    with pytest.raises(
        FloatingPointError,
        match=r"^the loss is (nan|inf) at step 2; a lower learning rate usually helps$",
    ):
        train(network, spoilt, Schedule(5))


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_what_is_finite(loss):
    require_finite(1e30, 1)
    require_finite(-1e30, 1)
    with pytest.raises(FloatingPointError, match=rf"^the loss is {loss} at step 3; "):
        require_finite(loss, 3)


# The optimisers, by hand


def by_hand(schedule, weights, gradients):
    """The weights after steps along gradients that are given, in float64."""
    w, rates = weights.double(), [schedule.rate(step) for step in range(len(gradients))]
    first = second = torch.zeros_like(w)
    for step, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        lr, g = rate * schedule.learning_rate, g.double()
        norm = g.norm()
        if norm > schedule.clip:
            g = g * schedule.clip / norm
        if schedule.optimiser == "sgd":  # momentum 0.9, on the gradient with the decay in it
            g = g + schedule.weight_decay * w
            first = g if step == 1 else 0.9 * first + g
            w = w - lr * first
        else:
            w = w * (1 - lr * schedule.weight_decay)
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
            w = w - lr * (first / (1 - 0.9**step)) / (
                (second / (1 - 0.999**step)).sqrt() + 1e-8
            )
    return w


class Pulled(nn.Module):
    """A network whose gradient is what is handed in: the loss does not matter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -2.0, 3.0]))
        self.gradient = None
        self.weight.register_hook(lambda gradient: self.gradient)

    def forward(self, input):
        return self.weight.sum() * input


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize("clip", [1.0, math.inf])
def test_steps_of_the_optimisers_by_hand(optimiser, weight_decay, clip):
    options = {"optimiser": optimiser, "weight_decay": weight_decay, "clip": clip}
    schedule = Schedule(4, learning_rate=0.1, warm_up=0.5, **options)
    gradients = [
        torch.tensor(g) for g in ([1.0, -2.0, 0.5], [0.1, 0.2, -0.3], [-4.0, 0.0, 1.0])
    ]
    network = Pulled()
    start = network.weight.detach().clone()
    trainer = Trainer(network, schedule)
    for gradient in gradients:
        network.gradient = gradient
        trainer.step(torch.ones(1, 2), torch.tensor([0]))
    expected = by_hand(schedule, start, gradients)
    assert (expected - start).abs().min() > 0.01
    torch.testing.assert_close(network.weight.detach().double(), expected, rtol=0, atol=2e-6)


# What a checkpoint keeps


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_trainer_goes_on_from_its_state_with_the_same_steps(optimiser):
    def make(seed):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(2, 8), nn.Dropout(), nn.Linear(8, 2))
        return Trainer(network, Schedule(9, optimiser=optimiser))

    def go(trainer, until):
        while trainer.steps < until:
            losses.append(trainer.step(*two_heaps(trainer.steps)).item())

    losses = []
    one = make(0)
    go(one, 4)
    state = copy.deepcopy(one.state_dict())
    go(one, 9)
    whole, losses = losses[4:], []
    other = make(1)
    other.load_state_dict(state)
    assert other.steps == 4
    go(other, 9)
    assert losses == whole
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_rate_that_is_a_tensor_stays_the_same_tensor():
    """A CUDA graph goes on reading it where it was."""
    trainer = Trainer(nn.Linear(2, 2), Schedule(9))
    (group,) = trainer.optimiser.param_groups
    group["lr"] = rate = torch.tensor(0.1)
    state = copy.deepcopy(trainer.state_dict())
    trainer.load_state_dict(state)
    assert trainer.optimiser.param_groups[0]["lr"] is rate
    trainer.steps = 4
    trainer.set_rate()
    assert rate.item() == pytest.approx(6e-3 * trainer.schedule.rate(4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_dropout_on_a_gpu_goes_on_where_it_was():
    network = nn.Sequential(nn.Linear(2, 64), nn.Dropout(), nn.Linear(64, 2)).cuda()
    trainer = Trainer(network, Schedule(9))
    points, labels = (each.cuda() for each in two_heaps(0))
    state = copy.deepcopy(trainer.state_dict())
    once = trainer.step(points, labels).item()
    trainer.load_state_dict(state)
    assert trainer.step(points, labels).item() == once


def test_generators_of_gpus_are_kept_and_put_back(monkeypatch):
    told = []
    monkeypatch.setattr("stnlib.training.loop.gpus", lambda network: ["a", "b"])
    trainer = Trainer.__new__(Trainer)
    with monkeypatch.context() as patch:
        patch.setattr("stnlib.training.loop.gpus", lambda network: [])
        trainer.__init__(nn.Linear(2, 2), Schedule(3))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda gpu: f"state of {gpu}")
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *given: told.append(given))
    trainer.load_state_dict(trainer.state_dict())
    assert told == [("state of a", "a"), ("state of b", "b")]


# Precision, and compilation


class Small(nn.Module):
    """A convolutional network behind a transformer, and what its parts were handed."""

    def __init__(self):
        super().__init__()
        localisation = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 6)
        )
        self.transformer = SpatialTransformer(localisation)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
        )
        self.last = nn.Linear(512, 2)
        self.dtypes = {}
        for name, module in (
            ("theta", localisation),
            ("sampled", self.transformer),
            ("features", self.features),
        ):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: self.dtypes.__setitem__(
                    name, output.dtype
                )
            )

    def forward(self, input):
        return self.last(self.features(self.transformer(input)).flatten(1))


def two_ramps(step):
    """Images that grow brighter to the right or to the left."""
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(0, 2, (16,), generator=generator)
    ramp = torch.linspace(-1, 1, 12) * (2.0 * labels[:, None] - 1)
    noise = torch.randn(16, 3, 12, 12, generator=generator)
    return noise + ramp[:, None, None], labels


def trained(**options):
    torch.manual_seed(0)
    trainer = Trainer(Small(), Schedule(12, learning_rate=3e-3), **options)
    losses = [trainer.step(*two_ramps(step)) for step in range(12)]
    return trainer, losses


def test_bfloat16_trains_as_float32_does_within_its_three_digits():
    (exact, losses), (rough, others) = trained(), trained(bfloat16=True)
    # A bfloat16 has 8 bits, 0.4 %; twelve steps let the networks drift apart by no more than a few such.
    losses, others = torch.stack(losses), torch.stack(others)
    assert losses[-1] < 0.7 * losses[0]
    torch.testing.assert_close(others, losses, rtol=0, atol=0.02)
    assert not torch.equal(others, losses)
    assert others.dtype == torch.float32
    assert exact.network.dtypes["features"] == torch.float32
    assert rough.network.dtypes == {
        "theta": torch.float32,
        "sampled": torch.float32,
        "features": torch.bfloat16,
    }
    assert {p.dtype for p in rough.network.parameters()} == {torch.float32}
    weight = rough.network.features[2].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    images, labels = two_ramps(99)
    assert rough.error(images, labels) == pytest.approx(exact.error(images, labels), abs=1 / 16)
    rough.network.dtypes.clear()
    rough.error(images, labels)
    assert rough.network.dtypes["features"] == torch.bfloat16


def compiler_is_missing():
    """The reason why PyTorch cannot compile here; None where it can."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return "no C++ compiler"
    return None


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_network_has_the_same_losses():
    if reason := compiler_is_missing():
        pytest.skip(reason)

    def losses(**options):
        torch.manual_seed(0)
        trainer = Trainer(STFCN((8, 8), 5_000), Schedule(3), **options)
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(4, 1, 8, 8, generator=generator)
        return [trainer.step(images, torch.arange(4)).item() for _ in range(3)]

    assert losses(compile=True) == pytest.approx(losses(), rel=1e-5)


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
    error_rate(network, *two_heaps(0))
    assert seen == [(False, False)]
    assert [m.training for m in network.modules()] == [training, training]


def test_error_rate_leaves_a_frozen_part_frozen():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    network[1].eval()
    error_rate(network, *two_heaps(0))
    assert [m.training for m in network.modules()] == [True, True, False]


def test_error_rate_restores_the_mode_after_an_error():
    network = nn.Linear(2, 2).train()
    with pytest.raises(RuntimeError):
        error_rate(network, torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    assert network.training


@pytest.mark.parametrize(("images", "labels"), [(5, 1), (0, 0)])
def test_error_rate_wants_a_label_for_each_image(images, labels):
    with pytest.raises(ValueError, match=f"labels: expected one for each of {images} images"):
        error_rate(
            torch.nn.Flatten(), torch.zeros(images, 10), torch.zeros(labels, dtype=torch.int64)
        )
