import fnmatch
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stnlib.data import mnist
from stnlib.data.distortions import R
from stnlib.experiments import records, table1
from stnlib.experiments.sweep import Claims
from stnlib.experiments.table1 import CELLS, Cell
from stnlib.nn.models import FCN, count_parameters
from stnlib.training import DistortedDigits, Schedule, Trainer, distorted, split, train
from stnlib.training.graphs import GraphTrainer

# The paper's table 1, typed as it is printed: R, RTS, P, E, and TC, which it has for the affine family alone.
PRINTED = """
FCN                2.1 5.2 3.1 3.2 13.2
CNN                1.2 0.8 1.5 1.4 3.5
ST-FCN affine      1.2 0.8 1.5 2.7 2.0
ST-FCN projective  1.3 0.9 1.4 2.6
ST-FCN tps         1.1 0.8 1.4 2.4
ST-CNN affine      0.7 0.5 0.8 1.2 1.7
ST-CNN projective  0.8 0.6 0.8 1.3
ST-CNN tps         0.7 0.5 0.8 1.1
"""
FIELDS = {"model", "transform", "data", "seed", "test_error", "parameters"}
FIELDS |= {"seconds", "iterations", "hardware", "command", "versions"}


def printed():
    for row in PRINTED.lower().split("\n")[1:-1]:
        name, *rest = row.split()
        transform = rest.pop(0) if name.startswith("st-") else None
        for data, error in zip(("R", "RTS", "P", "E", "TC"), rest, strict=False):
            yield (name, transform, data), float(error)


def test_the_cells_are_the_paper_s_and_their_errors_too():
    assert {cell.names: cell.paper for cell in CELLS} == dict(printed())
    assert len(CELLS) == len(set(map(str, CELLS))) == 36
    assert {cell.data for cell in CELLS} == table1.DATA.keys()


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_cell_is_a_network_within_the_budget_for_its_digits(cell):
    network = cell.network(0)
    assert 390_000 <= count_parameters(network) <= 400_000
    size = (60, 60) if cell.data == "TC" else (42, 42) if cell.data == "RTS" else (28, 28)
    assert network(torch.zeros(2, 1, *size)).shape == (2, 10)
    if cell.transform is not None:
        thetas = {"affine": 6, "projective": 8, "tps": 32}
        assert network.transformer.transform.num_parameters == thetas[cell.transform]


def test_a_network_follows_from_its_seed():
    first, same, other = (Cell("fcn", None, "R").network(seed) for seed in (1, 1, 2))
    weights = [network.layers[1].weight for network in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_patterns_choose_cells_in_the_table_s_order():
    assert table1.chosen(["*"]) == CELLS
    names = [str(cell) for cell in table1.chosen(["st-*/TC", "fcn/[RP]", "fcn/R"])]
    assert names == ["fcn/R", "fcn/P", "st-fcn/affine/TC", "st-cnn/affine/TC"]
    assert len(table1.chosen(["*/RTS"])) == 8


def test_a_pattern_that_matches_none_is_one_sentence():
    with pytest.raises(ValueError, match=r"^cells: 'stn/\*' matches none; the cells are fcn/R"):
        table1.chosen(["fcn/*", "stn/*"])


def test_schedules_are_the_device_s_unless_others_are_asked_for():
    usual = table1.schedules("cpu")
    assert usual.keys() == {"fcn", "cnn", "st-fcn", "st-cnn"}
    assert all(schedule.batch == 128 for schedule in usual.values())
    on_gpu = table1.schedules("cuda", iterations=7, learning_rate=1e-3)
    assert set(on_gpu.values()) == {Schedule(7, 256, learning_rate=1e-3)}
    assert table1.schedules("cpu", batch=32)["cnn"].batch == 32


def test_a_line_names_the_run_and_the_paper_s_error():
    record = {"model": "st-cnn", "transform": "tps", "data": "E", "seed": 2}
    said = table1.line(record | {"test_error": 1.004, "seconds": 99.6})
    assert said == (
        "st-cnn/tps/E, seed 2: 1.00 % of the test digits misread (paper: 1.1 %), after 100 s"
    )


SMALL = {model: Schedule(2, 16) for model in ("fcn", "cnn", "st-fcn", "st-cnn")}
FCN_R = Cell("fcn", None, "R")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Return the record of a real run of two steps, and which images its errors were taken on."""
    looked, path = [], tmp_path_factory.mktemp("table1") / "table1.json"
    error = Trainer.error

    def spy(self, images, labels):
        looked.append(len(images))
        return error(self, images, labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "error", spy)
        table1.reproduce([FCN_R], [3], SMALL, path=path, command="stnlib a command")
    (record,) = records.read(path, list)
    return record, looked


def test_a_record_says_what_was_run_how_and_where(real):
    record, _ = real
    assert record.keys() >= FIELDS
    assert (record["model"], record["transform"], record["data"]) == ("fcn", None, "R")
    assert (record["seed"], record["iterations"], record["device"]) == (3, 2, "cpu")
    assert record["schedule"] == asdict(SMALL["fcn"])
    assert record["parameters"] == count_parameters(FCN((28, 28)))
    assert record["command"] == "stnlib a command"
    assert record["hardware"].startswith("1 thread of ")
    assert {"stnlib", "numpy", "torch", "python"} <= record["versions"].keys()
    assert record["versions"]["torch"] == torch.__version__


def test_a_record_s_error_is_that_of_the_same_training_by_hand(real):
    torch.manual_seed(3)
    network = FCN((28, 28))
    train(network, DistortedDigits(*split()[0], R, 16, 3), SMALL["fcn"])
    images, labels, _ = distorted(*mnist.load("test"), R)
    with torch.no_grad():
        wrong = int((network(images).argmax(1) != labels).sum())
    assert real[0]["test_error"] == pytest.approx(wrong / 100, abs=0.02)  # two digits


def test_the_test_set_is_looked_at_once(real):
    record, looked = real
    assert looked == [5000] * len(record["curve"]) + [10000]
    assert [steps for steps, *_ in record["curve"]] == [1, 2]


class Fake:
    """What takes the place of trainings, and keeps an account of them."""

    def __init__(self):
        self.runs, self.groups = [], []

    def alone(self, cell, seed, schedule, budget=None):
        self.runs.append((str(cell), seed))
        if cell.data == "E":
            raise FloatingPointError("the loss is nan")
        return {
            **dict(zip(("model", "transform", "data"), cell.names, strict=True)),
            "seed": seed,
            "test_error": 1.0,
            "seconds": 1.0,
            "schedule": asdict(schedule) | ({} if budget is None else {"iterations": 77}),
        }

    def together(self, runs, schedule):
        self.groups.append([(str(cell), seed) for cell, seed in runs])
        return [self.alone(cell, seed, schedule) for cell, seed in runs]


@pytest.fixture
def fake(monkeypatch):
    fake = Fake()
    monkeypatch.setattr(table1, "run_alone", fake.alone)
    monkeypatch.setattr(table1, "run_together", fake.together)
    monkeypatch.setattr(table1, "hardware", lambda device: f"some {device}")
    return fake


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table1.json"


def test_only_what_the_file_lacks_is_run(fake, path):
    cells, told = table1.chosen(["fcn/R", "cnn/RTS"]), []
    table1.reproduce(cells, [0], SMALL, path=path)
    table1.reproduce(cells, [0, 1], SMALL, path=path, tell=told.append)
    assert fake.runs == [("fcn/R", 0), ("cnn/RTS", 0), ("fcn/R", 1), ("cnn/RTS", 1)]
    assert told == records.read(path, list)[2:]


@pytest.mark.parametrize(
    "change",
    [{"iterations": 3}, {"batch": 8}, {"learning_rate": 1.0}, {"decay": "steps"}],
    ids=lambda change: next(iter(change)),
)
def test_another_schedule_is_another_run(fake, path, change):
    for schedule in (Schedule(2, 16), Schedule(**{"iterations": 2, "batch": 16} | change)):
        for _ in range(2):
            table1.reproduce([FCN_R], [0], {"fcn": schedule}, path=path)
    assert len(fake.runs) == len(records.read(path, list)) == 2


def test_a_budget_in_time_is_one_run_whatever_number_of_iterations_fits(fake, path):
    for budget in (60.0, 60.0, 90.0, None):
        table1.reproduce([FCN_R], [0], SMALL, path=path, budget=budget)
    found = records.read(path, list)
    assert [record["budget"] for record in found] == [60.0, 90.0, None]
    assert [record["schedule"]["iterations"] for record in found] == [77, 77, 2]


def test_a_failed_run_is_named_and_loses_no_other(fake, path):
    cells = table1.chosen(["fcn/*"])
    expected = r"^1 job failed: fcn/E, seed 0 \(FloatingPointError: the loss is nan\)"
    with pytest.raises(ChildProcessError, match=expected):
        table1.reproduce(cells, [0], SMALL, path=path)
    assert [record["data"] for record in records.read(path, list)] == ["R", "RTS", "P", "TC"]


def test_on_a_gpu_the_cells_of_one_kind_of_digits_run_together(fake, path):
    cells = table1.chosen(["cnn/R", "fcn/R*", "cnn/TC"])
    table1.reproduce([FCN_R], [0], SMALL, device="cuda", path=path)
    table1.reproduce(cells, [0, 1], SMALL, device="cuda", path=path)
    table1.reproduce(cells, [0, 1], SMALL, device="cuda", path=path)
    assert [sorted(group) for group in fake.groups] == [
        [("fcn/R", 0)],
        [("cnn/R", 0), ("cnn/R", 1), ("fcn/R", 1)],
        [("fcn/RTS", 0), ("fcn/RTS", 1)],
        [("cnn/TC", 0), ("cnn/TC", 1)],
    ]
    assert {record["hardware"] for record in records.read(path, list)} == {"some cuda"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_another_command_is_at_is_left_to_it(fake, path, monkeypatch, device):
    cells = table1.chosen(["fcn/R", "fcn/P", "fcn/TC"])
    taken = {c.data: table1._key(c, 0, SMALL["fcn"], device, None) for c in cells[:2]}
    with Claims(path) as others:
        assert others.take(taken["R"])
        assert others.take(taken["P"])

        def meanwhile(seconds):
            """Let the other command finish one run, and be killed in the other."""
            assert fake.runs == [("fcn/TC", 0)]
            record = fake.alone(cells[0], 0, SMALL["fcn"])
            records.add(path, [record | {"device": device, "budget": None}])
            for run in list(others.locks):
                others.release(run)

        clock = SimpleNamespace(sleep=meanwhile)
        monkeypatch.setattr(table1, "time", clock)
        table1.reproduce(cells, [0], SMALL, device=device, path=path)
    assert fake.runs == [("fcn/TC", 0), ("fcn/R", 0), ("fcn/P", 0)]
    assert [record["data"] for record in records.read(path, list)] == ["TC", "R", "P"]


def test_what_was_finished_since_the_command_began_is_not_repeated(fake, path):
    def finish(record):
        """Be another command, which does the second run after the first of this one."""
        if len(records.read(path, list)) == 1:
            records.add(path, [record | {"data": "RTS"}])

    table1.reproduce(table1.chosen(["fcn/R", "fcn/RTS"]), [0], SMALL, path=path, tell=finish)
    assert fake.runs == [("fcn/R", 0)]


@pytest.mark.parametrize("options", [{"dask": "tcp://h:1"}, {"budget": 60.0}])
def test_a_gpu_goes_with_neither_a_cluster_nor_a_budget(fake, path, options):
    with pytest.raises(ValueError, match="is for 'cpu', got 'cuda'"):
        table1.reproduce([FCN_R], [0], SMALL, device="cuda", path=path, **options)


def test_a_broken_file_of_records_is_left_alone(fake, path):
    path.write_text("[")
    with pytest.raises(ValueError, match="is not a whole record"):
        table1.reproduce([FCN_R], [0], SMALL, path=path)
    assert path.read_text() == "["
    assert fake.runs == []


FOUND = json.loads(Path(__file__).parents[1].joinpath("results/table1.json").read_text())


def test_what_was_measured_is_complete():
    for record in FOUND:
        assert record.keys() >= FIELDS
        assert {"stnlib", "numpy", "torch", "python"} <= record["versions"].keys()
        assert fnmatch.fnmatchcase(record["command"], "stnlib reproduce table1*")
        assert record["hardware"]


def test_no_run_was_measured_twice():
    assert [run for run, times in Counter(map(table1.key, FOUND)).items() if times > 1] == []


def test_what_was_measured_is_plausible():
    parameters = {cell.names: count_parameters(cell.network(0)) for cell in CELLS}
    for record in FOUND:
        cell = Cell(record["model"], record["transform"], record["data"])
        assert cell in CELLS
        assert record["seed"] in range(3)
        assert 0.2 < record["test_error"] < 50
        assert record["test_error"] == round(record["test_error"], 2)  # of 10,000 digits
        assert record["parameters"] == parameters[cell.names]
        assert record["parameters"] <= 400_000
        assert record["seconds"] > 0
        assert record["iterations"] == record["schedule"]["iterations"] > 0
        steps = [point[0] for point in record["curve"]]
        assert steps == sorted(set(steps))
        assert steps[-1] == record["iterations"]
        assert record["curve"][-1][3] < 50


on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")
PAIR = [(FCN_R, 0), (Cell("st-fcn", "affine", "R"), 0)]


def losses(kind, cell, schedule):
    """Return the losses of a cell's training on a GPU."""
    trainer = kind(cell.network(0).cuda(), schedule)
    data = DistortedDigits(*split()[0], R, schedule.batch, 0, device="cuda")
    found = []
    for step in range(schedule.iterations):
        batch = data(step)
        torch.cuda.synchronize()
        loss = trainer.step(*batch)
        torch.cuda.synchronize()
        found.append(loss.item())
    return found


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize(("cell", "seed"), PAIR, ids=str)
def test_a_recorded_step_is_the_step(cell, seed):
    schedule = Schedule(16, 256)
    expected = losses(Trainer, cell, schedule)
    np.testing.assert_allclose(losses(GraphTrainer, cell, schedule), expected, atol=1e-3)
    assert expected[-1] < expected[0]


@pytest.mark.gpu
@on_gpu
def test_networks_that_train_together_train_as_each_alone():
    schedule = Schedule(64, 256)
    for record, (cell, _) in zip(table1.run_together(PAIR, schedule), PAIR, strict=True):
        ((steps, _, loss, _),) = record["curve"]
        assert (steps, record["iterations"]) == (64, 64)
        # Sums in other orders, over 64 steps.
        assert loss == pytest.approx(losses(Trainer, cell, schedule)[-1], abs=0.02)
        assert record["parameters"] == count_parameters(cell.network(0))
        assert 0 < record["test_error"] < 90
