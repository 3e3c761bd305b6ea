"""Digits to train on: each batch a function of the seed and the step."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from stnlib.data import mnist
from stnlib.data.distortions import RTS, TC, Distortion
from stnlib.experiments import rts
from stnlib.training import DistortedDigits, digits, distorted, split

STILL = Distortion(size=(28, 28), max_angle=0.0, scales=(1.0, 1.0))
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 28, 28)).astype(np.uint8)
LABELS = (np.arange(50) % 10).astype(np.uint8)


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    monkeypatch.setattr(digits, "CHUNK", 12)


def make(batch=4, seed=0, distortion=RTS, **options):
    return DistortedDigits(IMAGES, LABELS, distortion, batch, seed, **options)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# A batch


def test_batches_are_tensors_for_the_loop():
    images, labels = make(batch=8)(0)
    assert (images.shape, images.dtype) == ((8, 1, 42, 42), torch.float32)
    assert (labels.shape, labels.dtype) == ((8,), torch.int64)
    assert 0 <= images.min() < images.max() <= 1


@pytest.mark.parametrize("batch", [1, 5, 12, 13, 30])
def test_a_batch_is_as_long_as_asked_for_whatever_is_drawn_together(batch):
    data = make(batch=batch)
    seen = [data(step) for step in range(7)]
    assert {len(labels) for _, labels in seen} == {len(images) for images, _ in seen} == {batch}


def test_labels_stay_with_their_images():
    images = np.repeat(np.arange(10, dtype=np.uint8), 784).reshape(10, 28, 28)
    data = DistortedDigits(images, np.arange(10), STILL, 64, seed=0)
    for step in range(3):
        some, answers = data(step)
        torch.testing.assert_close(
            255 * some.mean(dim=(1, 2, 3)), answers.float(), rtol=0, atol=1e-5
        )
        assert set(answers.tolist()) == set(range(10))


def test_all_digits_are_drawn_about_equally_often():
    data = DistortedDigits(
        np.zeros((100, 28, 28), np.uint8), np.arange(100), STILL, 200, seed=0
    )
    counts = np.bincount(np.concatenate([data(step)[1].numpy() for step in range(100)]))
    # 20,000 draws, 200 of each on average: chi squared with 99 degrees of freedom, beyond 149 once in a thousand times.
    assert len(counts) == 100
    assert ((counts - 200) ** 2 / 200).sum() < 149
    assert ((counts - 200) ** 2 / 200).sum() > 61  # and not more evenly than chance either


# The seed and the step alone


@pytest.mark.parametrize("distortion", [RTS, TC])
def test_a_step_s_batch_is_the_same_in_any_order_and_after_a_new_start(distortion):
    whole = make(distortion=distortion)
    steps = range(10)  # three of a chunk
    expected = {step: whole(step) for step in steps}
    order = [7, 0, 9, 1, 8, 0, 3, 3, 2, 6, 5, 4]
    again = make(distortion=distortion)
    for step in order:
        assert same(again(step), expected[step])
    for step in (0, 4, 9):
        assert same(make(distortion=distortion)(step), expected[step])
    assert not any(same(expected[a], expected[b]) for a in steps for b in range(a))


def test_an_executor_changes_nothing_but_who_draws():
    alone, drawn = make(), []
    with ThreadPoolExecutor(2) as pool:
        submit = pool.submit
        pool.submit = lambda draw, chunk, *rest: (
            drawn.append(chunk),
            submit(draw, chunk, *rest),
        )[1]
        data = make(draw_with=pool)
        for step in [*range(7), 20, 0, 19, 1, 2]:
            assert same(data(step), alone(step))
            assert len(data.drawn) < digits.AHEAD
    assert drawn[:4] == [0, 1, 2, 3]  # in advance
    assert drawn[4:6] == [4, 5]  # once each, while the steps run on


def test_an_executor_s_failure_is_told_and_the_next_try_draws_again():
    class Broken(Distortion):
        broken = True

        def theta(self, count, rng):
            if self.broken:
                raise RuntimeError("no more")
            return super().theta(count, rng)

    with ThreadPoolExecutor(1) as pool:
        data = make(
            distortion=Broken(size=(28, 28), max_angle=0.0, scales=(1.0, 1.0)), draw_with=pool
        )
        with pytest.raises(RuntimeError, match="no more"):
            data(0)
        Broken.broken = False
        data.drawn.clear()
        assert len(data(0)[1]) == 4


def test_seeds_give_digits_of_their_own():
    seeds = [0, 1, 2, 1000, 2**32 - 1]
    first = [make(seed=seed)(0) for seed in seeds]
    assert not any(same(first[a], first[b]) for a in range(5) for b in range(a))
    # A seed's next chunk is no other seed's first one.
    later = [make(seed=0)(3 * chunk) for chunk in (1, 2, 3)]
    assert not any(same(one, other) for one in later for other in first)


def test_what_is_drawn_elsewhere_changes_no_batch():
    data = make()
    expected = data(0), data(3)
    torch.manual_seed(5)
    np.random.default_rng(0).random()
    other = make()
    torch.rand(3)
    assert same(other(0), expected[0])
    assert same(other(3), expected[1])


# Refusals


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"batch": 0}, ValueError, "batch: expected a whole number of at least 1, got 0"),
        ({"batch": -4}, ValueError, "batch: expected a whole number of at least 1, got -4"),
        ({"batch": 2.0}, TypeError, "batch: expected a whole number of at least 1, got 2.0"),
        ({"seed": -1}, ValueError, "seed: expected a whole number of at least 0, got -1"),
        ({"seed": 0.5}, TypeError, "seed: expected a whole number of at least 0, got 0.5"),
        ({"seed": None}, TypeError, "seed: expected a whole number of at least 0, got None"),
        (
            {"seed": 2**32},
            ValueError,
            r"seed: expected a whole number below 2\*\*32, got 4294967296",
        ),
    ],
)
def test_bad_arguments_are_refused_in_words(options, kind, message):
    with pytest.raises(kind, match=f"^{message}$"):
        make(**options)


@pytest.mark.parametrize(
    ("step", "kind"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError)]
)
def test_steps_count_from_0(step, kind):
    with pytest.raises(
        kind, match=f"^step: expected a whole number of at least 0, got {step!r}$"
    ):
        make()(step)


@pytest.mark.parametrize(("images", "labels"), [(2, 1), (0, 0), (0, 3)])
def test_digits_want_a_label_for_each_image(images, labels):
    with pytest.raises(ValueError, match=f"^labels: expected one for each of {images} images"):
        DistortedDigits(IMAGES[:images], LABELS[:labels], STILL, 1, 0)


# Fixed sets


def test_mnist_is_split_in_two():
    (images, labels), (held_out, answers) = split()
    whole, whole_labels = mnist.load("train")
    assert (len(images), len(held_out)) == (55_000, 5_000)
    np.testing.assert_array_equal(np.concatenate([images, held_out]), whole)
    np.testing.assert_array_equal(np.concatenate([labels, answers]), whole_labels)


def test_a_fixed_set_holds_each_digit_once_and_in_its_order():
    images, labels, theta = distorted(IMAGES, LABELS, STILL)
    expected = IMAGES[:, None].astype(np.float32) / 255
    np.testing.assert_allclose(images.numpy(), expected, rtol=0, atol=1e-6)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(labels, LABELS)
    assert len(theta) == 50


def test_a_fixed_set_is_fixed_by_its_seed():
    one, again, other = (distorted(IMAGES, LABELS, RTS, *seed) for seed in ((), (), (1,)))
    assert torch.equal(one[0], again[0])
    assert not torch.equal(one[0], other[0])
    np.testing.assert_array_equal(one[2], RTS.theta(50, np.random.default_rng(1506_02025)))


def test_the_test_set_is_the_one_that_the_records_were_measured_on():
    """Their pose is in each record of results/rts.json, written before this function was."""
    theta = RTS.theta(10_000, np.random.default_rng(1506_02025))
    runs = json.loads(Path(__file__).parents[1].joinpath("results/rts.json").read_text())[
        "runs"
    ]
    poses = [run["pose_before"] for run in runs if "pose_before" in run]
    assert poses
    assert all(pose == rts.statistics(theta) for pose in poses)
    images, labels = mnist.load("test")
    some = distorted(images[:1200], labels[:1200], RTS)[0]
    # Drawn together, so that the first 1200 of the 10,000 are others; distorted a thousand at a time.
    first = RTS.theta(1200, np.random.default_rng(1506_02025))
    np.testing.assert_array_equal(some.numpy(), RTS.apply(mnist.to_input(images[:1200]), first))
