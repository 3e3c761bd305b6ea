import json

import pytest

from stnlib.experiments import features, records

STORED = records.read(features.Path(__file__).parents[1] / "results" / "features.json")
ANSWERS = {row["name"]: row["cells"] for row in STORED["features"]}
CELLS = [
    pytest.param(row.name, library, question, id=f"{row.name}-{library}".replace(" ", "_"))
    for row in features.FEATURES
    for library, question in row.cells.items()
]


@pytest.mark.parametrize(("name", "library", "question"), CELLS)
def test_the_record_says_what_is_found_here(name, library, question):
    if isinstance(question, features.Probe) and not features.can_try(library, question):
        pytest.skip(f"{library} or what its test needs is not installed")
    assert ANSWERS[name][library] == features.cell(library, question, None)


def test_the_record_has_the_rows_and_columns_of_the_table_in_order():
    assert [(row["group"], row["name"]) for row in STORED["features"]] == [
        (row.group, row.name) for row in features.FEATURES
    ]
    assert len(ANSWERS) == len(features.FEATURES)
    assert all(list(cells) == list(features.PACKAGES) for cells in ANSWERS.values())
    assert all(set(row.cells) == set(features.PACKAGES) for row in features.FEATURES)
    assert list(STORED["versions"]) == list(features.PACKAGES)
    assert STORED["command"] == "python -m stnlib.experiments.features"


def test_what_is_cited_has_an_address_and_what_was_tried_an_answer():
    for cells in ANSWERS.values():
        for cell in cells.values():
            assert cell.keys() == {"answer", "how", "source"}
            if cell["how"] == "cited":
                assert cell["source"].startswith("https://")
                assert cell["answer"] in (True, False, None)
            else:
                assert (cell["how"], cell["source"]) == ("run", None)
                assert cell["answer"] in (True, False)


def test_stnlib_has_tried_every_feature():
    assert all(isinstance(row.cells["stnlib"], features.Probe) for row in features.FEATURES)


# The probes themselves: one that would accept anything is no test.


@pytest.mark.parametrize("row", features.FEATURES, ids=lambda row: row.name.replace(" ", "_"))
def test_some_library_passes_each_probe(row):
    assert any(cell["answer"] for cell in ANSWERS[row.name].values())


@pytest.mark.parametrize("mode", features.PADDED)
def test_no_padding_passes_for_another(mode):
    def read(image, x, y, kernel, padding):
        return features.read_stnlib(image, x, y, kernel, other)

    for other in features.PADDED:
        assert features.padding(read, mode) is (other == mode)


@pytest.mark.parametrize(
    ("ask", "kernels"),
    [
        (features.bilinear, {"bilinear"}),
        (features.bicubic, {"bicubic"}),
        (features.bspline, {"bspline3"}),
    ],
    ids=["bilinear", "bicubic", "bspline"],
)
def test_no_kernel_passes_for_another(ask, kernels):
    def read(image, x, y, kernel, padding):
        return features.read_stnlib(image, x, y, other, padding)

    passed = set()
    for other in ("nearest", "bilinear", "bicubic", "bspline2", "bspline3", "lanczos"):
        if ask(read):
            passed.add(other)
    assert passed == kernels


def test_close_takes_no_nan_and_no_emptiness():
    assert features.close([1.0, 2.0], [1.0, 2.000001])
    assert not features.close([1.0, float("nan")], [1.0, 2.0])
    assert not features.close([], [])
    assert not features.close(1.0, 1.1)


def test_a_refusal_is_a_no_and_a_warning_is_none():
    def refuse():
        raise RuntimeError("no such option")

    def warn():
        features.warnings.warn("slow", stacklevel=1)
        return True

    assert features.try_it(features.Probe(refuse)) is False
    assert features.try_it(features.Probe(warn)) is True


# The record


def test_a_library_that_is_missing_keeps_its_answer(monkeypatch):
    probe = features.Probe(lambda: True, ("no_such_module",))
    kept = {"answer": False, "how": "run", "source": None}
    assert features.cell("SciPy", probe, kept) is kept
    with pytest.raises(ModuleNotFoundError, match="SciPy or what its test needs"):
        features.cell("SciPy", probe, None)
    monkeypatch.setitem(features.PACKAGES, "SciPy", "no-such-package")
    assert features.version("SciPy", "1.0") == "1.0"
    assert features.version("CuPy", None) is None
    assert features.version("stnlib", None) == features.stnlib.__version__


def test_a_run_writes_the_record_and_prints_the_table(tmp_path, monkeypatch, capsys):
    rows = [
        features.Feature(
            "Kernels",
            "bilinear",
            dict.fromkeys(features.PACKAGES, features.NO)
            | {
                "stnlib": features.Probe(lambda: True),
                "CuPy": features.NOT_SAID,
                "kornia": features.Probe(lambda: 1 / 0, ("no_such_module",)),
            },
        )
    ]
    monkeypatch.setattr(features, "FEATURES", rows)
    path = tmp_path / "features.json"
    records.write(path, STORED)
    features.main(["--output", str(path)])
    written = json.loads(path.read_text())
    assert written["command"] == f"python -m stnlib.experiments.features --output {path}"
    assert written["environment"] == records.environment()
    (row,) = written["features"]
    assert row["cells"]["stnlib"] == {"answer": True, "how": "run", "source": None}
    assert row["cells"]["kornia"] == ANSWERS["bilinear"]["kornia"]
    assert row["cells"]["SciPy"] == {
        "answer": False,
        "how": "cited",
        "source": features.CUPY_MAP,
    }
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == list(features.PACKAGES)
    assert line.split() == ["bilinear", "yes", "no", "yes", "no", "?", "no"]
