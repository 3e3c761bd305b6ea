"""A training that is not lost: killed, short of room, handed a broken file, gone wrong; and gone on with."""

import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stnlib.nn import SpatialTransformer
from stnlib.training import Schedule, Trainer, TrainingWarning, checkpoint, error_rate, fit

POINTS = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 0.5], [-1.0, -0.5]])
CLASSES = torch.tensor([0, 1, 0, 1])


def data(step):
    """Batches that differ: each step's follows from its number."""
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(0, 2, (4,), generator=generator)
    return torch.randn(4, 2, generator=generator) + 1.0 - 2.0 * labels[:, None], labels


def make(schedule=None, dropout=0.5, seed=0):
    """A trainer of a network whose dropout draws from PyTorch's generator."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2))
    return Trainer(network, schedule or Schedule(10, 4))


def run(folder, trainer=None, configuration=(), **options):
    trainer = make() if trainer is None else trainer
    options = {"every": 4} | options
    return fit(trainer, data, (POINTS, CLASSES), folder, dict(configuration), **options)


def bits(folder, name="weights.safetensors"):
    return (folder / name).read_bytes()


def without_seconds(history):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in history]


def assert_equal(one, other):
    """Compare what checkpoints hold, to the bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - {"seconds"}:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for some, others in zip(one, other, strict=True):
            assert_equal(some, others)
    else:
        assert one == other


# Killed


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Trainings that were killed, and those that were not; and how often."""
    if not hasattr(os, "fork"):
        pytest.skip("processes cannot be forked here")
    folder = tmp_path_factory.mktemp("killed")
    script = Path(__file__).with_name("run_killed.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.parametrize("how", ["random", "writing"])
@pytest.mark.parametrize("kind", ["adamw", "sgd", "early"])
def test_a_training_that_is_killed_again_and_again_ends_as_one_that_is_not(killed, kind, how):
    folder, kills = killed
    whole, other = folder / kind / "whole", folder / kind / how
    # Before, within and after each of the writings of a checkpoint and of weights; and a few times in between.
    assert kills[kind][how] >= (8 if how == "writing" else 3)
    assert {p.name for p in other.iterdir()} == {p.name for p in whole.iterdir()}
    for name in ("weights.safetensors", "best.safetensors"):
        assert bits(other, name) == bits(whole, name)
    states = [checkpoint._read(p / "checkpoint.pt")["state"] for p in (whole, other)]
    assert_equal(*states)
    histories = [json.loads((p / "history.json").read_text()) for p in (whole, other)]
    assert without_seconds(histories[0]) == without_seconds(histories[1])
    stopped = [entry["steps"] for entry in histories[0]]
    if (
        kind == "early"
    ):  # the rest of the schedule is not used, and the best weights are not the last
        assert stopped == [7, 14, 21, 28]
        assert bits(whole) == bits(whole, "best.safetensors")
        last, best = states[0]["trainer"]["network"], load_file(whole / "weights.safetensors")
        assert not torch.equal(last["6.weight"], best["6.weight"])
    else:
        assert stopped == [7, 14, 21, 28, 35, 40]
        assert bits(whole) != bits(whole, "best.safetensors")


# Gone on with


class BrokenError(Exception):
    """What ends a training in these tests."""


def break_at(step):
    def after_step(trainer, loss):
        if trainer.steps == step:
            raise BrokenError

    return after_step


@pytest.mark.parametrize("schedule", [Schedule(10, 4), Schedule(10, 4, optimiser="sgd")])
@pytest.mark.parametrize("step", [2, 4, 5, 9, 10])
def test_a_training_that_breaks_off_goes_on_as_if_it_had_not(tmp_path, step, schedule):
    whole = run(tmp_path / "whole", make(schedule))
    with pytest.raises(BrokenError):
        run(tmp_path / "broken", make(schedule), after_step=break_at(step))
    taken = []
    again = make(
        schedule, seed=99
    )  # its weights and its generator are the checkpoint's, if there is one
    if step <= 4:
        again = make(schedule)
    history = run(tmp_path / "broken", again, after_step=lambda t, loss: taken.append(t.steps))
    assert taken == list(range(4 * ((step - 1) // 4) + 1, 11))
    assert bits(tmp_path / "broken") == bits(tmp_path / "whole")
    assert without_seconds(history) == without_seconds(whole)


def test_each_entry_of_the_history_holds_the_mean_loss_since_the_last_one(tmp_path):
    losses = []
    with pytest.raises(BrokenError):
        run(tmp_path, after_step=break_at(6))
    history = run(tmp_path, after_step=lambda trainer, loss: losses.append(loss))
    whole = []
    run(tmp_path / "whole", after_step=lambda trainer, loss: whole.append(loss))
    assert losses == whole[4:]
    assert [entry["steps"] for entry in history] == [4, 8, 10]
    parts = (whole[:4], whole[4:8], whole[8:])
    for entry, part in zip(history, parts, strict=True):
        assert entry["loss"] == pytest.approx(sum(part) / len(part), rel=1e-12)


def test_the_seconds_go_on_where_they_were(tmp_path):
    with pytest.raises(BrokenError):
        run(tmp_path, after_step=break_at(9))
    path = tmp_path / "checkpoint.pt"
    content = checkpoint._read(path)
    content["state"]["history"][-1]["seconds"] = 1000.0
    checkpoint.save(path, content["state"], content["configuration"])
    seconds = [entry["seconds"] for entry in run(tmp_path)]
    assert seconds[0] < seconds[1] == 1000 < seconds[2] < 1060


def test_a_training_that_is_over_is_not_repeated(tmp_path):
    whole, before = run(tmp_path), bits(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    trainer = make(seed=99)
    assert run(tmp_path, trainer, after_step=break_at(1)) == whole
    assert bits(tmp_path) == before
    assert trainer.steps == 10


@pytest.mark.parametrize("every", [3, 10, 100])
def test_the_last_step_is_evaluated_whatever_every_is(tmp_path, every):
    history = run(tmp_path, every=every)
    assert [entry["steps"] for entry in history] == [*range(every, 10, every), 10]


def test_the_error_is_that_of_the_network_on_what_is_held_out(tmp_path):
    found = []
    history = run(
        tmp_path,
        observers=[
            lambda trainer, entry: found.append(
                100 * error_rate(trainer.network, POINTS, CLASSES)
            ),
            lambda trainer, entry: found.append(entry["error"]),
        ],
    )
    errors = [entry["error"] for entry in history]
    assert found == [error for error in errors for _ in range(2)]


@pytest.mark.parametrize("draw", [lambda: None, lambda: torch.rand(7)])
def test_what_an_observer_draws_changes_nothing(tmp_path, draw):
    run(tmp_path / "unseen")
    run(tmp_path / "seen", observers=[lambda trainer, entry: draw()])
    assert bits(tmp_path / "seen") == bits(tmp_path / "unseen")


def test_an_entry_is_kept_before_observers_hear_of_it(tmp_path):
    def observe(trainer, entry):
        state = checkpoint._read(tmp_path / "checkpoint.pt")["state"]
        assert state["history"][-1] == entry
        assert state["trainer"]["steps"] == entry["steps"] == trainer.steps

    run(tmp_path, observers=[observe])


# Stopped early


def with_errors(monkeypatch, errors):
    """Let evaluations find errors that are given."""
    given = iter(errors)
    monkeypatch.setattr(Trainer, "error", lambda self, *held_out: next(given) / 100)


@pytest.mark.parametrize(
    ("errors", "patience", "stops", "best"),
    [
        ([5, 4, 4, 6, 1], 2, 4, 2),  # as many errors as before are no fewer
        ([5, 6, 4, 6, 3], 2, 5, 5),
        ([5, 4, 3, 2, 1], 1, 5, 5),
        ([5, 6, 1, 1, 1], 1, 2, 1),
        ([5, 6, 7, 4, 9], 3, 5, 4),
        ([5, 6, 7, 4, 9], None, 5, 4),
    ],
)
def test_patience_ends_a_training_and_the_best_weights_come_back(
    tmp_path, monkeypatch, errors, patience, stops, best
):
    with_errors(monkeypatch, errors)
    weights = []
    trainer = make()
    history = run(
        tmp_path,
        trainer,
        every=2,
        patience=patience,
        observers=[lambda t, entry: weights.append(t.network[0].weight.detach().clone())],
    )
    assert [entry["error"] for entry in history] == pytest.approx(errors[:stops])
    assert len({tuple(w.flatten().tolist()) for w in weights}) == stops
    wanted = weights[-1] if patience is None else weights[best - 1]
    assert torch.equal(trainer.network[0].weight, wanted)
    assert torch.equal(load_file(tmp_path / "weights.safetensors")["0.weight"], wanted)
    assert torch.equal(load_file(tmp_path / "best.safetensors")["0.weight"], weights[best - 1])


def test_a_training_that_stopped_early_stays_so(tmp_path, monkeypatch):
    with_errors(monkeypatch, [5, 6, 7])
    whole, before = run(tmp_path, every=2, patience=2), bits(tmp_path)
    trainer = make(seed=99)
    assert run(tmp_path, trainer, every=2, patience=2, after_step=break_at(1)) == whole
    assert bits(tmp_path) == before
    assert torch.equal(
        trainer.network[0].weight, load_file(tmp_path / "best.safetensors")["0.weight"]
    )


# What goes wrong


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    run(tmp_path, configuration={"seed": 0})
    before = bits(tmp_path, "checkpoint.pt")
    message = (
        r"checkpoint\.pt was made with {} = {}, and {} is asked for; "
        r"ask for the same, or name another folder$"
    )
    for name, theirs, ours, call in (
        ("seed", 0, 1, {"configuration": {"seed": 1}}),
        ("data", "nothing", "'R'", {"configuration": {"seed": 0, "data": "R"}}),
        ("seed", 0, "nothing", {}),
        ("every", 4, 5, {"configuration": {"seed": 0}, "every": 5}),
        ("patience", None, 2, {"configuration": {"seed": 0}, "patience": 2}),
    ):
        with pytest.raises(ValueError, match=message.format(name, theirs, ours)):
            run(tmp_path, **call)
    for name, theirs, ours, trainer in (
        ("iterations", 10, 11, make(Schedule(11, 4))),
        ("optimiser", "'adamw'", "'sgd'", make(Schedule(10, 4, optimiser="sgd"))),
        ("bfloat16", False, True, Trainer(make().network, Schedule(10, 4), bfloat16=True)),
    ):
        with pytest.raises(ValueError, match=message.format(name, theirs, ours)):
            run(tmp_path, trainer, configuration={"seed": 0})
    assert bits(tmp_path, "checkpoint.pt") == before


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(2, 2), r"of weight it holds nothing, expected shape \(2, 2\)"),
        (
            nn.Sequential(nn.Linear(2, 9), nn.ReLU(), nn.ReLU(), nn.Linear(9, 2)),
            r"of 0.weight it holds shape \(8, 2\), expected shape \(9, 2\)",
        ),
        (
            nn.Sequential(nn.Linear(2, 8), nn.ReLU()),
            r"of 3.bias it holds shape \(2,\), expected nothing",
        ),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path, network, message):
    run(tmp_path)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, Trainer(network, Schedule(10, 4)))
    assert str(caught.value).startswith(f"{tmp_path / 'checkpoint.pt'}: the state does not fit")
    assert "\n" not in str(caught.value)
    assert_equal(weights, dict(network.state_dict()))


def test_a_broken_checkpoint_is_refused_and_left_as_it_is(tmp_path):
    run(tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"checkpoint\.pt is not a whole checkpoint \(.*\); remove"
    ):
        run(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("full", [".checkpoint.pt.part", ".best.safetensors.part"])
def test_a_full_disk_costs_no_more_than_the_steps_since_the_last_checkpoint(tmp_path, full):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    run(tmp_path / "whole", every=2)
    folder = tmp_path / "full"

    def fill(trainer, loss):
        if trainer.steps == 5:
            (folder / "best.safetensors").unlink()
            (folder / full).symlink_to("/dev/full")  # what is written beside goes there

    # Each evaluation is the best so far, so that both files are written at each.
    with pytest.MonkeyPatch.context() as patch:
        with_errors(patch, range(50, 0, -1))
        with pytest.raises(OSError, match="could not be written") as caught:
            run(folder, every=2, after_step=fill)
    assert "No space left on device" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(folder.glob(".*"))
    assert checkpoint._read(folder / "checkpoint.pt")["state"]["trainer"]["steps"] == 4
    run(folder, every=2)
    assert bits(folder) == bits(tmp_path / "whole")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_said_at_once_and_spoils_no_checkpoint(tmp_path, bad):
    def spoilt(step):
        images, labels = data(step)
        return images * (bad if step == 5 else 1), labels

    with pytest.raises(
        FloatingPointError, match=r"^the loss is nan at step 6; a lower learning"
    ):
        fit(make(), spoilt, (POINTS, CLASSES), tmp_path, {}, every=2)
    state = checkpoint._read(tmp_path / "checkpoint.pt")["state"]["trainer"]
    assert state["steps"] == 4
    assert all(torch.isfinite(value).all() for value in state["network"].values())


class Spoiling(nn.Module):
    """A layer with a finite output and a gradient that is not, once it is told to."""

    spoil = False

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, input):
        spoilt = (
            (self.weight * 0).sqrt() if self.spoil else 0
        )  # whose derivative at 0 is infinite
        return input * self.weight.exp() + spoilt


@pytest.mark.parametrize("step", [4, 10])
def test_weights_that_a_last_step_has_spoilt_are_not_kept(tmp_path, step):
    network = nn.Sequential(Spoiling(), nn.Linear(2, 2))

    def spoil(trainer, loss):
        network[0].spoil = trainer.steps == step - 1

    with pytest.raises(
        FloatingPointError, match=rf"^0\.weight is no longer finite after step {step}; a lower"
    ):
        run(tmp_path, Trainer(network, Schedule(10, 4)), every=2, after_step=spoil)
    state = checkpoint._read(tmp_path / "checkpoint.pt")["state"]["trainer"]
    assert state["steps"] == step - 2
    assert not (tmp_path / "weights.safetensors").exists()
    assert all(
        torch.isfinite(v).all() for v in load_file(tmp_path / "best.safetensors").values()
    )


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"every": 0}, ValueError, "every: expected a whole number of at least 1, got 0"),
        ({"every": 2.5}, TypeError, "every: expected a whole number of at least 1, got 2.5"),
        ({"patience": 0}, ValueError, "patience: expected a whole number of at least 1, got 0"),
        (
            {"configuration": {"data": Path("x")}},
            TypeError,
            r"configuration: expected strings, numbers and None, got \w+\('x'\) for data",
        ),
    ],
)
def test_bad_arguments_are_refused_before_the_first_step(tmp_path, options, kind, message):
    with pytest.raises(kind, match=f"^{message}$"):
        run(tmp_path, after_step=break_at(1), **options)
    assert not list(tmp_path.iterdir())


# Watched


def transformer(dead=False, zoom=1.0):
    """A classifier of 8×8 images behind a transformer."""
    torch.manual_seed(0)
    localisation = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 6))
    theta = [zoom, 0, 0, 0, zoom, 0]
    network = nn.Sequential(
        SpatialTransformer(localisation, initial=theta), nn.Flatten(), nn.Linear(64, 2)
    )
    if dead:
        with torch.no_grad():
            localisation[1].bias.fill_(-100.0)
    return network


def images(step):
    generator = torch.Generator().manual_seed(step)
    labels = torch.arange(8) % 2
    ramp = torch.linspace(-1, 1, 8).expand(1, 8, 8)
    noise = 0.1 * torch.rand(8, 1, 8, 8, generator=generator)
    return noise + (ramp * (2 * labels - 1)[:, None, None])[:, None], labels


def watched(folder, network, warm_up=0.2):
    trainer = Trainer(network, Schedule(10, 8, learning_rate=0.01, warm_up=warm_up))
    return fit(trainer, images, images(99), folder, {}, every=2)


def test_a_healthy_training_is_not_warned_of(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = watched(tmp_path, transformer())
    assert all(entry["transformers"]["0"]["spread"] > 0 for entry in history)


def said(folder, network, **options):
    """What a training is warned of, and where."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watched(folder, network, **options)
    assert {w.category for w in caught} == {TrainingWarning}
    assert {Path(w.filename) for w in caught} == {Path(__file__)}  # who called fit
    return [str(w.message) for w in caught]


def test_a_dead_localisation_network_is_said_as_soon_as_the_warm_up_is_over(tmp_path):
    lines = said(tmp_path, transformer(dead=True), warm_up=0.6)
    assert [line.partition(":")[0] for line in lines] == ["step 6", "step 8", "step 10"]
    for line in lines:
        assert "0: theta is the same for every image (its spread is 0)" in line
        assert line.endswith("usually help, or a lower rate for it")


def test_a_transformer_that_looks_away_is_said_at_the_first_evaluation(tmp_path):
    lines = said(tmp_path, transformer(zoom=3.0))
    assert [line.partition(":")[0] for line in lines] == [f"step {k}" for k in (2, 4, 6, 8, 10)]
    for line in lines:
        assert "% of the grid lies beyond the frame" in line
        assert line.endswith("bounds on theta usually help")
