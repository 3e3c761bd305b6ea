import io
import time
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from stnlib.nn.models import FCN, STCNN, STFCN
from stnlib.training import Schedule, Trainer, progress

mpl.use("Agg")
FOUND = {"a": {"spread": 0.5, "outside": 0.0}, "b": {"spread": 0.25, "outside": 0.125}}


def entry(steps=10, transformers=FOUND):
    return {
        "steps": steps,
        "seconds": 2.0,
        "loss": 0.5,
        "error": 12.5,
        "transformers": transformers,
    }


def at(steps, iterations=100):
    return SimpleNamespace(steps=steps, schedule=Schedule(iterations, batch=64))


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=200, color_system=None)


def test_a_line_says_how_fast_it_went_and_names_the_spread_only_if_there_is_one():
    assert (
        progress.line(entry(), 64)
        == "step 10: loss 0.5000, error 12.50 %, spread of theta 0.250, 320 images/s"
    )
    assert progress.line(entry(transformers={}), 64).endswith("12.50 %, 320 images/s")


def test_where_there_is_no_terminal_each_evaluation_is_a_line():
    where = console(False)
    with progress.Progress("title", where) as shown:
        shown.after_step(at(10), 0.5)
        shown.observe(at(10), entry())
        shown.say("[a] sentence that is longer than the line of a narrow terminal is wide " * 5)
    said = where.file.getvalue().splitlines()
    assert len(said) == 2
    assert said[0] == progress.line(entry(), 64)
    assert said[1].startswith("[a] sentence")


def test_a_bar_shows_loss_error_spread_and_speed(monkeypatch):
    clock = iter([100.0, 101.0, 102.0])
    where = console(True)
    with progress.Progress("st-fcn/affine/R, seed 0", where) as shown:
        monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
        shown.after_step(at(41), 2.0)  # gone on with, after 40 steps
        shown.observe(at(41), entry(41))
        shown.after_step(at(42), 1.0)
        (task,) = shown.bar.tasks
        assert (task.completed, task.total) == (42, 100)
        # 0.98 × 2 + 0.02 × 1; two steps of 64 images in two seconds.
        assert task.fields["said"] == "loss 1.9800, error 12.50 %, spread 0.250, 64 images/s"
    said = where.file.getvalue()
    assert "st-fcn/affine/R, seed 0" in said
    assert "42/100" in said
    assert "step 41" not in said


def test_curves_for_tensorboard_hold_what_was_found(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = Trainer(nn.Linear(2, 2), Schedule(2, learning_rate=0.25, warm_up=0.5))
    trainer.step(torch.eye(2), torch.tensor([0, 1]))
    board = progress.TensorBoard(tmp_path)
    board(trainer, entry())
    board(trainer, entry(20))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }
    assert found == {
        "loss": [(10, 0.5), (20, 0.5)],
        "error": [(10, 12.5), (20, 12.5)],
        "learning_rate": [(10, 0.25), (20, 0.25)],
        "a/spread": [(10, 0.5), (20, 0.5)],
        "a/outside": [(10, 0.0), (20, 0.0)],
        "b/spread": [(10, 0.25), (20, 0.25)],
        "b/outside": [(10, 0.125), (20, 0.125)],
    }


def test_what_is_seen_is_the_transformers_output_where_its_grid_lies():
    network = STCNN((42, 42))
    with torch.no_grad():  # half the size, moved by a quarter of the frame
        network.transformer.localisation[-1].bias.copy_(
            torch.tensor([0.5, 0, 0.5, 0, 0.5, -0.25])
        )
    images = torch.rand(2, 1, 42, 42)
    outputs, grids = progress.seen(network, images)
    centres = (2 * np.arange(28) + 1) / 28 - 1
    np.testing.assert_allclose(grids[0, 3, :, 0], 0.5 * centres + 0.5, atol=1e-7)
    np.testing.assert_allclose(grids[1, :, 5, 1], 0.5 * centres - 0.25, atol=1e-7)
    expected = nn.functional.grid_sample(
        images.double(), torch.from_numpy(grids), align_corners=False
    )
    np.testing.assert_allclose(outputs, expected.numpy(), atol=1e-6)


def test_a_network_without_a_transformer_has_nothing_to_show():
    with pytest.raises(ValueError, match="expected one with a spatial transformer, got FCN"):
        progress.seen(FCN(), torch.rand(1, 1, 42, 42))


def test_a_picture_an_evaluation_is_written_on_white_and_leaves_no_figure(tmp_path):
    trainer = Trainer(STFCN((28, 28)), Schedule(1))
    pictures = progress.Pictures(tmp_path / "new" / "pictures", torch.rand(3, 1, 28, 28))
    before = torch.get_rng_state()
    pictures(trainer, entry(500))
    pictures(trainer, entry(1000))
    files = sorted((tmp_path / "new" / "pictures").iterdir())
    assert [file.name for file in files] == ["000500.png", "001000.png"]
    with Image.open(files[0]) as file:
        picture = np.asarray(file.convert("RGBA"))
    assert (picture[0, 0] == 255).all()
    assert plt.get_fignums() == []
    assert torch.equal(torch.get_rng_state(), before)


class Clock:
    """Time that passes when something says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def test_as_many_iterations_fit_as_their_parts_cost(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    made = set()

    class Slow:
        def step(self, images, labels):
            clock.now += 0.25
            return torch.zeros(())

    def data(step):  # chunks of 8 steps, a second each
        clock.now += 0.0 if step // 8 in made else 1.0
        made.add(step // 8)
        return None, None

    def evaluate():
        clock.now += 5.0

    # A quarter of a second a step, an eighth for the digits, half a second for the evaluation.
    assert progress.iterations_within(70.0, Slow(), data, 8, evaluate, every=10) == 80
    made.clear()
    assert progress.iterations_within(30.0, Slow(), data, 8) == 80
    assert progress.iterations_within(0.001, Slow(), data, 8) == 1


def test_the_clock_is_a_real_one():
    def slow(step):
        time.sleep(0.02)
        return torch.eye(2), torch.tensor([0, 1])

    trainer = Trainer(nn.Linear(2, 2), Schedule(1))
    assert 1 <= progress.iterations_within(1.0, trainer, slow) <= 50
