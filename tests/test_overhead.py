import pytest
import torch

from stnlib.experiments import overhead, records
from stnlib.experiments.table1 import CELLS, Cell
from stnlib.nn.models import STFCN


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(overhead, "SECONDS", 1e-3)
    monkeypatch.setattr(overhead, "BATCH", 4)


def test_every_kind_of_transformer_is_timed_with_and_without(tmp_path, monkeypatch, capsys):
    cells = [
        Cell("st-fcn", "affine", "RTS"),
        Cell("st-cnn", "tps", "E"),
        Cell("fcn", None, "RTS"),
    ]
    monkeypatch.setattr(overhead, "CELLS", cells)
    path = tmp_path / "overhead.json"
    overhead.main(["--output", str(path), "--threads", "1"])
    found = records.read(path, list)
    assert [(r["model"], r["transform"], r["data"]) for r in found] == [
        ("st-fcn", "affine", "RTS"),
        ("st-cnn", "tps", "E"),
    ]
    for record in found:
        assert record["command"].startswith("python -m stnlib.experiments.overhead --output")
        assert record["batch"] == 4
        for direction in ("forward", "forward+backward"):
            assert record[direction]["with"] > record[direction]["without"] > 0
    assert "ms without the transformer" in capsys.readouterr().out


def test_the_classifier_alone_reads_what_the_transformer_hands_on(monkeypatch):
    seen = []
    forward = torch.nn.Linear.forward

    def spy(self, input):
        seen.append(tuple(input.shape))
        return forward(self, input)

    monkeypatch.setattr(torch.nn.Linear, "forward", spy)
    overhead.measure(Cell("st-fcn", "affine", "RTS"), "cpu", 1)
    first = STFCN().classifier.layers[1].in_features
    assert (4, 42 * 42) in seen  # the localisation network
    assert (4, first) in seen
    assert first == 21 * 21


def test_the_cells_that_the_command_measures_exist():
    measured = [c for c in CELLS if c.transform is not None and c.data in ("RTS", "E", "TC")]
    assert len(measured) == 14
