"""The command, as it is typed: `bench` apart, which test_benchmark.py has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from stnlib import cli, transforms
from stnlib.cli import _options
from stnlib.cli import training as commands
from stnlib.data import distortions, mnist
from stnlib.experiments import table1
from stnlib.experiments import training_run as runs
from stnlib.nn.models import MODELS
from stnlib.training import Schedule, Trainer, digits, error_rate, schedule

SHORT = "--iterations", "20", "--every", "10", "--batch", "32"
FOLDER = Path("runs/fcn-R-0")


@pytest.fixture(autouse=True)
def _few_digits(monkeypatch, tmp_path):
    """Train in an empty folder, and on 300 digits; validate on 100; test on 400."""
    images, labels = mnist.load("test")
    monkeypatch.setattr(mnist, "load", lambda split: (images[:400], labels[:400]))
    monkeypatch.setattr(digits, "VALIDATION", 100)
    monkeypatch.setattr(digits, "CHUNK", 320)
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()


def stnlib(*arguments):
    done = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def refused(*arguments, code=1):
    """Return the sentence with which a command is refused."""
    done = stnlib(*arguments)
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert last.endswith((".", "?"))
    return last


def weights(folder=FOLDER, name="weights"):
    return load_file(folder / f"{name}.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def stop_at(monkeypatch):
    """Let Ctrl-C come in a step."""

    def stop(number):
        step = Trainer.step

        def interrupted(self, *batch):
            if self.steps == number:
                raise KeyboardInterrupt
            return step(self, *batch)

        monkeypatch.setattr(Trainer, "step", interrupted)
        return lambda: monkeypatch.setattr(Trainer, "step", step)

    return stop


# Help


def test_help_does_not_wait_for_pytorch():
    code = (
        "import sys; from stnlib.cli import main\n"
        "for words in ([], ['train'], ['reproduce', 'table1']):\n"
        "    main([*words, '--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'matplotlib', 'numba'} & sys.modules.keys()))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command", ["bench", "train", "evaluate", "visualise", "reproduce table1"]
)
def test_every_command_has_examples(command):
    said = stnlib(*command.split(), "--help").stdout
    assert said.count(f"\n  stnlib {command}") >= 2


def test_names_are_those_of_the_package():
    assert tuple(MODELS) == _options.MODELS
    assert tuple(table1.FAMILIES) == _options.TRANSFORMS
    assert tuple(table1.DATA) == _options.DATA
    assert schedule.OPTIMISERS == _options.OPTIMISERS
    assert schedule.DECAYS == _options.DECAYS


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("trian fcn", "train"),
        ("reproduce tabel1", "table1"),
        ("train fcn --tranform affine", "--transform"),
        ("train st-fcn --transform tsp", "tps"),
        ("train st-cn", "st-cnn"),
        ("train fcn --data rst", "RTS"),
        ("train fcn --optimiser adam", "adamw"),
        ("evaluate here --confusoin", "--confusion"),
        ("bench --contender open-cv", "opencv"),
    ],
)
def test_what_is_typed_wrong_is_told_what_is_right(typed, meant):
    assert refused(*typed.split(), code=2).endswith(f"Did you mean '{meant}'?")


def test_names_may_be_typed_in_capitals_or_not():
    stnlib("train", "FCN", "--data", "r", *SHORT)
    assert json.loads((FOLDER / "run.json").read_text())["data"] == "R"


# Training


def test_a_training_leaves_what_it_says_it_leaves():
    done = stnlib("train", "fcn", "--data", "R", *SHORT)
    assert done.exit_code == 0, done.output
    assert {file.name for file in FOLDER.iterdir()} == {
        "run.json",
        "checkpoint.pt",
        "weights.safetensors",
        "best.safetensors",
    }
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 10", "step 20"]
    assert done.stdout.startswith("fcn/R, seed 0: ")
    assert done.stdout.endswith("stnlib evaluate runs/fcn-R-0 reads the test digits\n")
    network = MODELS["fcn"]((28, 28))
    network.load_state_dict(weights())
    held_out = digits.distorted(*digits.split()[1], distortions.R)[:2]
    assert len(held_out[1]) == 100
    error = 100 * error_rate(network, *held_out)
    assert f": {error:.2f} % of the digits held out misread, after 20 steps;" in done.stdout


def test_the_same_command_again_ends_with_the_same_weights(stop_at):
    command = "train", "fcn", "--data", "R", *SHORT
    assert stnlib(*command, "--folder", "whole").exit_code == 0
    go_on = stop_at(13)
    done = stnlib(*command)
    assert done.exit_code == 130
    said = done.stderr.splitlines()[-1]
    assert said == f"Stopped. The same command goes on from the last checkpoint in {FOLDER}."
    go_on()
    done = stnlib(*command)
    assert done.exit_code == 0
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["step 20"]
    assert equal(weights(), weights(Path("whole")))
    assert stnlib(*command).stdout == done.stdout  # what has ended is not trained again


def test_stopped_before_the_first_evaluation_nothing_is_kept(stop_at):
    stop_at(3)
    done = stnlib("train", "fcn", "--data", "R", *SHORT)
    assert done.exit_code == 130
    assert (
        "before the first evaluation, at step 10: the same command starts anew" in done.stderr
    )


def test_options_reach_the_schedule():
    options = {
        "batch": 16,
        "learning-rate": 0.02,
        "localisation": 0.5,
        "clip": float("inf"),
        "optimiser": "sgd",
        "decay": "steps",
        "weight-decay": 0.0,
        "warm-up": 0.5,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    assert stnlib("train", "fcn", "--data", "R", "--iterations", 3, *words).exit_code == 0
    run, record = runs.read(FOLDER / "run.json")
    expected = {name.replace("-", "_"): value for name, value in options.items()}
    assert run.schedule == Schedule(3, **expected)
    assert record["schedule"].pop("clip") == float("inf")


def test_a_budget_is_measured_once(monkeypatch, stop_at):
    def measure(seconds, trainer, data, a_chunk, evaluate, every):
        measured.append(seconds)
        return 23

    measured = []
    monkeypatch.setattr(runs, "iterations_within", measure)
    command = "train", "fcn", "--data", "R", "--budget", "1.5m", "--every", "10"
    go_on = stop_at(0)
    assert stnlib(*command).exit_code == 130  # only run.json is there
    assert stnlib(*command).exit_code == 130
    go_on()
    done = stnlib(*command)
    assert "after 23 steps" in done.stdout
    assert stnlib(*command).stdout == done.stdout
    assert measured == [90.0]
    sentence = refused("train", "fcn", "--data", "R", "--budget", "2m", "--every", "10")
    assert "was made with budget = 90.0, and 120.0 is asked for" in sentence
    sentence = refused("train", "fcn", "--data", "R", "--iterations", "23", "--every", "10")
    assert "was made with budget = 90.0, and None is asked for" in sentence
    assert measured == [90.0]


def test_a_budget_is_measured_with_what_trains():
    done = stnlib("train", "fcn", "--data", "R", "--budget", "0.3s", "--batch", "32")
    assert done.exit_code == 0, done.output
    run, _ = runs.read(FOLDER / "run.json")
    assert run.budget == 0.3
    assert f"after {run.schedule.iterations:,} steps" in done.stdout


def test_a_transformer_is_drawn_at_each_evaluation_and_watched():
    dead = "--localisation", "1e-12"
    done = stnlib("train", "st-fcn", "--transform", "tps", "--data", "E", *SHORT, *dead)
    assert done.exit_code == 0, done.output
    folder = Path("runs/st-fcn-tps-E-0")
    assert [file.name for file in sorted((folder / "pictures").iterdir())] == [
        "000010.png",
        "000020.png",
    ]
    lines = done.stderr.splitlines()
    assert any(
        line.startswith("Warning: step 20: transformer: theta is the same") for line in lines
    )
    assert "spread of theta 0.000" in lines[-1]


def test_pictures_only_where_they_can_be(monkeypatch):
    assert "no transformer to show" in refused("train", "fcn", *SHORT, "--pictures")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    some = "train", "st-fcn", "--data", "R", *SHORT
    assert "--pictures needs matplotlib, which is not installed" in refused(
        *some, "--pictures", "--folder", "one"
    )
    assert stnlib(*some, "--folder", "other").exit_code == 0
    assert not Path("other/pictures").exists()


def test_tensorboard_on_request():
    pytest.importorskip("tensorboard")
    done = stnlib("train", "fcn", "--data", "R", *SHORT, "--tensorboard")
    assert done.exit_code == 0, done.output
    (events,) = (FOLDER / "tensorboard").iterdir()
    assert events.name.startswith("events.out.tfevents.")


def test_tensorboard_that_is_missing_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    sentence = refused("train", "fcn", "--data", "R", *SHORT, "--tensorboard")
    assert sentence.endswith(
        "--tensorboard needs tensorboard, which is not installed: pip install tensorboard."
    )


def test_patience_returns_the_best():
    options = "--iterations", 200, "--every", 2, "--patience", 2, "--learning-rate", 1
    done = stnlib("train", "fcn", "--data", "R", *options, "--folder", "here")
    assert done.exit_code == 0, done.output
    errors = [float(line.split()[5]) for line in done.stderr.splitlines()]
    assert len(errors) < 100
    assert f": {min(errors):.2f} % of the digits held out" in done.stdout
    assert equal(weights(Path("here")), weights(Path("here"), "best"))


def test_as_a_program_of_its_own(tmp_path):
    command = "train", "fcn", "--data", "R", "--iterations", "20", "--every", "20"
    done = subprocess.run(
        [sys.executable, "-m", "stnlib", *command], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("fcn/R, seed 0: ")
    assert done.stderr.startswith("step 20: loss ")
    assert (tmp_path / FOLDER / "weights.safetensors").exists()


# Errors


def test_a_folder_of_another_configuration_is_refused():
    stnlib("train", "fcn", "--data", "R", *SHORT)
    before = (FOLDER / "run.json").read_bytes()
    sentence = refused("train", "fcn", "--data", "P", *SHORT, "--folder", FOLDER)
    assert "checkpoint.pt was made with data = 'R', and 'P' is asked for;" in sentence
    assert (FOLDER / "run.json").read_bytes() == before


def test_a_corrupt_checkpoint_is_refused():
    FOLDER.mkdir(parents=True)
    (FOLDER / "checkpoint.pt").write_bytes(b"PK nothing of the kind")
    sentence = refused("train", "fcn", "--data", "R", *SHORT)
    assert "checkpoint.pt is not a whole checkpoint" in sentence


def test_a_folder_that_cannot_be_written_is_refused():
    Path("file").write_text("")
    assert "Not a directory" in refused("train", "fcn", *SHORT, "--folder", "file/below")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_may_not_be_written_is_refused():
    Path("locked").mkdir(mode=0o500)
    assert "Permission denied" in refused("train", "fcn", *SHORT, "--folder", "locked/below")


def test_a_loss_that_is_not_finite_is_refused():
    options = "--learning-rate", "1e30", "--optimiser", "sgd", "--clip", "inf"
    assert "a lower learning rate usually helps" in refused("train", "fcn", *SHORT, *options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["train fcn", "evaluate here", "reproduce table1"])
def test_a_gpu_that_is_not_there_is_refused(command):
    sentence = refused(*command.split(), "--device", "cuda")
    assert "PyTorch finds no GPU on this machine" in sentence


@pytest.mark.parametrize(
    ("command", "sentence", "code"),
    [
        ("train fcn --transform tps", "fcn has no transformer, so it takes none", 1),
        ("train fcn --budget 10", "expected a time such as 90s, 10m or 2h", 2),
        ("train fcn --budget 1m --iterations 5", "leave one of them out", 2),
        ("train fcn --learning-rate -1", "expected a positive number, got -1.0", 1),
        ("train fcn --folder .. --seed -1", "is not in the range", 2),
        ("evaluate nowhere", "nowhere is not there; `stnlib train` makes such a folder", 1),
        ("evaluate .", "weights.safetensors is not there: . holds no training", 1),
        ("visualise nowhere --output a.png", "nowhere is not there", 1),
        ("visualise nowhere --output b/a.png", "there is no folder b", 2),
        ("reproduce table1 --paper-schedule --batch 8", "sets --batch too", 2),
        ("reproduce table1 --budget 1m --iterations 8", "leave one of them out", 2),
        ("reproduce table1 --cells st-cn/R", "cells: 'st-cn/R' matches none", 1),
    ],
)
def test_what_makes_no_sense_is_refused(command, sentence, code):
    assert sentence in refused(*command.split(), code=code)


# Afterwards


@pytest.fixture
def trained():
    """Return the folder of a trained ST-FCN."""
    done = stnlib("train", "st-fcn", "--data", "R", *SHORT, "--no-pictures")
    assert done.exit_code == 0, done.output
    return Path("runs/st-fcn-affine-R-0")


def test_evaluate_counts_what_is_misread(trained):
    done = stnlib("evaluate", trained, "--confusion", "--json", "found.json")
    found = json.loads(Path("found.json").read_text())
    network = MODELS["st-fcn"]((28, 28))
    network.load_state_dict(weights(trained))
    images, labels, _ = digits.distorted(*mnist.load("test"), distortions.R)
    assert found["test_error"] == pytest.approx(100 * error_rate(network, images, labels))
    confusion = np.array(found["confusion"])
    np.testing.assert_array_equal(confusion.sum(1), np.bincount(labels, minlength=10))
    read = network(images).argmax(1)
    np.testing.assert_array_equal(confusion.sum(0), np.bincount(read, minlength=10))
    assert confusion[7, 1] == ((labels == 7) & (read == 1)).sum()
    said = done.stdout.splitlines()
    error = f"{found['test_error']:.2f} %"
    assert (
        said[0] == f"st-fcn/affine/R, seed 0: {error} of 400 test digits misread (paper: 1.2 %)"
    )
    row = said[2 + 7].split()
    assert [int(count) for count in row[:11]] == [7, *confusion[7]]
    wrong = 100 - 100 * confusion[7, 7] / confusion[7].sum()
    assert float(row[11]) == pytest.approx(wrong, abs=0.005)


def test_evaluate_writes_json_alone_to_stdout_and_reads_other_digits(trained):
    done = stnlib("evaluate", trained / "best.safetensors", "--data", "P", "--json", "-")
    found = json.loads(done.stdout)
    assert (found["trained_on"], found["data"], found["paper"]) == ("R", "P", None)
    sentence = refused("evaluate", trained, "--data", "TC")
    assert "TC has frames of 60×60 pixels, and the network, trained on R, reads 28×28" in (
        sentence
    )
    assert ", of P" in stnlib("evaluate", trained, "--data", "P").stdout


def test_what_is_missing_or_broken_afterwards_is_said(trained):
    path = trained / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert "is not a whole safetensors file" in refused("evaluate", trained)
    path.unlink()
    assert f"name {trained / 'best.safetensors'}, its best so far" in refused(
        "evaluate", trained
    )
    path.write_bytes(whole)
    record = trained / "run.json"
    text = record.read_text()
    record.write_text(text.replace("st-fcn", "st-rnn"))
    sentence = refused("evaluate", trained)
    assert "run.json does not hold a training run (model: expected fcn, cnn" in sentence
    record.write_text(text.replace('"affine"', '"tps"'))
    assert "does not fit the network" in refused("evaluate", trained)
    record.unlink()
    assert "which says what network the weights are of, is not there" in refused(
        "evaluate", trained
    )


def test_visualise_draws_a_picture_and_an_animation(trained, monkeypatch):
    monkeypatch.setattr(commands, "FRAMES", 4)
    done = stnlib("visualise", trained, "--output", "some.png", "--digits", 3)
    assert done.exit_code == 0, done.output
    assert done.stdout == "some.png shows st-fcn/affine/R, seed 0\n"
    with Image.open("some.png") as picture:
        assert picture.format == "PNG"
    assert stnlib("visualise", trained, "--output", "some.gif", "--digits", 2).exit_code == 0
    with Image.open("some.gif") as film:
        assert (film.format, film.n_frames, film.info["loop"]) == ("GIF", 4, 0)
    assert "Format 'doc' is not supported" in refused(
        "visualise", trained, "--output", "some.doc", "--digits", 1
    )


def test_what_has_no_transformer_is_not_visualised():
    stnlib("train", "fcn", "--data", "R", *SHORT)
    sentence = refused("visualise", FOLDER, "--output", "some.png")
    assert "fcn has no transformer to show; st-fcn has one" in sentence


# What moves in an animation


@pytest.mark.parametrize("data", table1.DATA)
def test_digits_move_from_pose_to_pose(data):
    distortion = table1.DATA[data]
    run = runs.TrainingRun(runs.cell("fcn", None, data), 0, Schedule(1))
    moving = runs.moving_digits(run, 3, 8, seed=5).numpy()
    rng = np.random.default_rng(5)
    some = mnist.to_input(mnist.load("test")[0][:3])
    poses = [distortion.theta(3, rng) for _ in range(4)]
    for k, pose in enumerate(poses):
        np.testing.assert_allclose(moving[2 * k], distortion.apply(some, pose), atol=1e-6)
        assert np.abs(moving[2 * k + 1] - moving[2 * k]).max() > 0.1


def test_half_way_a_digit_has_the_mean_scale_angle_and_place():
    def placed(s, angle, x, y):
        return transforms.inverse(transforms.similarity(*np.array([[s], [angle], [x], [y]])))

    half = runs.between(
        distortions.RTS, placed(0.5, -0.5, 0.25, 0.0), placed(0.7, 1.0, -0.75, 0.5), 0.5
    )
    np.testing.assert_allclose(half, placed(0.6, 0.25, -0.25, 0.25), atol=1e-12)


# The table


def test_the_papers_schedule_goes_to_every_network(monkeypatch):
    given = {}
    monkeypatch.setattr(
        table1,
        "reproduce",
        lambda cells, seeds, schedules, **more: given.update(
            more, cells=cells, seeds=seeds, schedules=schedules
        ),
    )
    some = "--cells", "cnn/*", "--seeds", 2, "--dask", "tcp://here:1"
    assert stnlib("reproduce", "table1", "--paper-schedule", *some).exit_code == 0
    assert {str(cell) for cell in given["cells"]} == {
        f"cnn/{data}" for data in ("R", "RTS", "P", "E", "TC")
    }
    assert list(given["seeds"]) == [0, 1]
    assert given["dask"] == "tcp://here:1"
    assert given["schedules"].keys() == MODELS.keys()
    for paper in given["schedules"].values():
        assert (paper.iterations, paper.batch, paper.optimiser) == (150_000, 256, "sgd")
        assert paper.learning_rate * paper.rate(0) == pytest.approx(0.01)
        assert paper.rate(49_999) == 1.0
        assert paper.rate(50_000) == pytest.approx(0.1)
        assert paper.rate(149_999) == pytest.approx(0.01)
    assert stnlib("reproduce", "table1", "--iterations", 7, "--batch", 8, *some).exit_code == 0
    assert given["schedules"]["cnn"].iterations == 7
    assert given["schedules"]["cnn"].batch == 8
