import json

import pytest

from stnlib.experiments import status

CASES = '<testcase classname="book.01_a.ipynb" name="Cell 0" time="1.25" />' * 3
JUNIT = (
    '<testsuites><testsuite errors="1" failures="2" skipped="3" tests="10" time="61.6">'
    f'{CASES}<testcase classname="book.00_b.ipynb" name="Cell 0" time="0.5" />'
    "</testsuite></testsuites>"
)
CPU = {"processor": "EPYC", "cores": "2", "torch": "2.13"}


def test_reports_are_read(tmp_path):
    (tmp_path / "r.xml").write_text(JUNIT)
    assert status.chapters(tmp_path / "r.xml") == {
        "00_b": {"cells": 1, "seconds": 0.5},
        "01_a": {"cells": 3, "seconds": 3.8},
    }
    counts = status.counts(tmp_path / "r.xml")
    assert counts == {"passed": 4, "skipped": 3, "failed": 3, "seconds": 62}


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"environment": CPU}, {"EPYC, 2 cores; PyTorch 2.13": 1}),
        ({"runs": [{"versions": CPU}, {"versions": CPU}]}, {"EPYC, 2 cores; PyTorch 2.13": 2}),
        (
            [{"versions": CPU, "device": "cuda", "hardware": "H200"}, {"versions": CPU}],
            {"H200; PyTorch 2.13": 1, "EPYC, 2 cores; PyTorch 2.13": 1},
        ),
        ({"environment": CPU | {"gpu": "H200"}}, {"H200; PyTorch 2.13": 1}),
        ({"versions": {"SciPy": "1"}, "environment": CPU}, {"EPYC, 2 cores; PyTorch 2.13": 1}),
        ([], {}),
    ],
)
def test_each_measurement_is_counted_once_where_it_was_made(record, found):
    assert dict(status.machines(record)) == found


def test_the_record_is_written_from_the_reports(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(status, "REPORTS", tmp_path)
    monkeypatch.setattr(status, "RESULTS", tmp_path / "status.json")
    for name in ("nbval.xml", "unit.xml"):
        (tmp_path / name).write_text(JUNIT)
    (tmp_path / "pages.json").write_text('{"book/index": {"kilobytes": 3, "first_paint": 90}}')
    status.main()
    record = json.loads((tmp_path / "status.json").read_text())
    assert record["pages"] == {"book/index": {"kilobytes": 3, "first_paint": 90}}
    assert record["tests"]["passed"] == 4
    assert "status.json: {'passed': 4" in capsys.readouterr().out
