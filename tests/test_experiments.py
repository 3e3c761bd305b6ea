import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stnlib import transforms
from stnlib.experiments import records, rts

# Records


def test_a_record_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "new" / "folder" / "record.json"
    record = {
        "runs": [{"error": 0.0125, "network": "ST-FCN", "loss": [2.3, 1.5]}],
        "note": "θ, ±90°",
    }
    records.write(path, record)
    assert records.read(path) == record


def test_writing_replaces_the_whole_record_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "record.json"
    records.write(path, {"runs": list(range(1000))})
    records.write(path, {"runs": []})
    assert records.read(path) == {"runs": []}
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_survives_a_write_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    records.write(path, {"runs": [1]})

    def interrupted(self, text, *args, **kwargs):
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", interrupted)
        with pytest.raises(OSError, match="No space left"):
            records.write(path, {"runs": [1, 2, 3]})
    assert records.read(path) == {"runs": [1]}


@pytest.mark.parametrize(
    "content",
    [b"", b'{"runs": [', b"not JSON", b'{"runs": ["\xff\xfe"]}', b"[]", b"3", b"null"],
)
def test_a_file_that_is_no_whole_record_is_named_in_one_sentence(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"is not a whole record .*; remove it and measure again$"
    ) as caught:
        records.read(path)
    assert str(caught.value).startswith(f"{path} is not a whole record")


def test_a_list_of_records_comes_back_with_a_line_for_each(tmp_path):
    path, runs = tmp_path / "runs.json", [{"error": 0.5, "note": "θ"}, {"error": [1, 2]}]
    records.write(path, runs)
    assert records.read(path, list) == runs
    assert [
        json.loads(line.rstrip(",")) for line in path.read_text().splitlines()[1:-1]
    ] == runs
    records.write(path, [])
    assert records.read(path, list) == []


@pytest.mark.parametrize(
    ("content", "kind", "holds"),
    [("{}", list, "dict"), ("[]", dict, "list"), ("3", list, "int")],
)
def test_a_record_of_another_kind_is_refused(tmp_path, content, kind, holds):
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(
        ValueError, match=rf"is not a whole record \(it holds a {holds}\); remove it"
    ):
        records.read(path, kind)


def test_records_are_added_to_those_that_are_there(tmp_path):
    path = tmp_path / "new" / "runs.json"
    records.add(path, [{"run": 0}])
    records.add(path, [{"run": 1}, {"run": 2}])
    records.add(path, [])
    assert records.read(path, list) == [{"run": 0}, {"run": 1}, {"run": 2}]


def test_nothing_is_added_to_what_is_no_list(tmp_path):
    path = tmp_path / "runs.json"
    for content in ("{}", '[{"run": 0},'):
        path.write_text(content)
        with pytest.raises(ValueError, match="is not a whole record"):
            records.add(path, [{"run": 1}])
        assert path.read_text() == content


ADDING = """
import sys
from pathlib import Path
from stnlib.experiments import records
who, path = int(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()  # which ends for all at once
for number in range(20):
    records.add(path, [{"who": who, "number": number}])
"""


def test_processes_that_add_at_once_lose_nothing(tmp_path):
    path = tmp_path / "runs.json"
    adding = [
        subprocess.Popen(
            [sys.executable, "-c", ADDING, str(who), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in range(4)
    ]
    for process in adding:
        assert process.stdout.readline() == "ready\n"
    for process in adding:
        process.stdin.close()
    assert [process.wait(60) for process in adding] == [0] * 4
    for process in adding:
        process.stdout.close()
    found = [(run["who"], run["number"]) for run in records.read(path, list)]
    assert len(found) == 80
    assert set(found) == {(who, number) for who in range(4) for number in range(20)}
    for who in range(4):
        assert [number for one, number in found if one == who] == list(range(20))


def test_a_missing_record_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        records.read(tmp_path / "absent.json")


def test_environment_says_what_measured():
    found = records.environment()
    assert (found["numpy"], found["python"]) == (np.__version__, platform.python_version())
    assert int(found["cores"]) >= 1
    assert all(isinstance(value, str) for value in found.values())


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (
            "processor\t: 0\nmodel name\t: Some CPU 3000: fast\nmodel name\t: Other\n",
            "Some CPU 3000: fast",
        ),
        ("processor\t: 0\n", "what platform says"),
        (None, "what platform says"),
    ],
)
def test_processor_is_named_where_the_system_tells(monkeypatch, cpuinfo, expected):
    def read_text(self, *args, **kwargs):
        if cpuinfo is None:
            raise FileNotFoundError(self)
        return cpuinfo

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(platform, "processor", lambda: "what platform says")
    assert records._processor() == expected


# Rotated, translated and scaled digits


def test_pose_by_hand():
    theta = np.stack(
        [
            transforms.similarity(2.0, np.radians(30), 0.25, -0.5),
            transforms.affine(4.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            transforms.rotation(np.radians(-120)),
        ]
    )
    pose = rts.pose(theta)
    np.testing.assert_allclose(pose["angle"], [30, 0, -120], rtol=0, atol=1e-12)
    np.testing.assert_allclose(pose["log_scale"], [np.log(2), np.log(2), 0], rtol=0, atol=1e-15)
    np.testing.assert_array_equal(pose["x"], [0.25, 0, 0])
    np.testing.assert_array_equal(pose["y"], [-0.5, 0, 0])


def test_statistics_are_mean_and_standard_deviation_of_the_pose():
    theta = transforms.rigid(
        np.radians([10.0, -10.0]), np.array([1.0, 3.0]), np.array([0.5, 0.5])
    )
    assert rts.statistics(theta) == {
        "x": {"mean": 2.0, "std": 1.0},
        "y": {"mean": 0.5, "std": 0.0},
        "log_scale": {"mean": 0.0, "std": 0.0},
        "angle": {"mean": 0.0, "std": 10.0},
    }


@pytest.fixture(scope="module")
def whole_test_set():
    return rts.test_set()


def test_the_test_set_is_the_same_each_time_and_known_by_its_thetas(whole_test_set):
    images, labels, theta = whole_test_set
    assert (images.shape, images.dtype, labels.dtype) == (
        (10_000, 1, 42, 42),
        torch.float32,
        torch.int64,
    )
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    first = rts.RTS.apply(rts.mnist.to_input(rts.mnist.load("test")[0][:3]), theta[:3])
    np.testing.assert_array_equal(images[:3].numpy(), first)
    np.testing.assert_array_equal(
        theta, rts.RTS.theta(10_000, np.random.default_rng(1506_02025))
    )


@pytest.fixture
def small_test_set(monkeypatch, whole_test_set):
    images, labels, theta = whole_test_set
    monkeypatch.setattr(rts, "test_set", lambda: (images[:200], labels[:200], theta[:200]))


@pytest.fixture
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("small_test_set", "_threads")
def test_a_tiny_measurement_writes_its_record_once(tmp_path, capsys, monkeypatch):
    path = tmp_path / "rts.json"
    arguments = ["--iterations", "2", "--seeds", "0", "--output", str(path)]
    rts.main(arguments)
    first = path.read_text()
    fcn, stfcn = json.loads(first)["runs"]
    for run, name in ((fcn, "FCN"), (stfcn, "ST-FCN")):
        assert (run["network"], run["seed"], run["threads"]) == (name, 0, 1)
        assert run["schedule"]["iterations"] == 2
        assert 0.99 * 400_000 < run["parameters"] <= 400_000
        assert len(run["loss"]) == 2
        assert run["loss"][0] == pytest.approx(np.log(10), abs=0.2)
        assert 0.5 < run["error"] <= 1
        assert run["seconds"] >= 0
        assert run["command"] == "python -m stnlib.experiments.rts " + " ".join(arguments)
        assert run["environment"] == records.environment()
    assert "pose_after" not in fcn
    assert stfcn["mirrored"] == 0
    _, _, theta = rts.test_set()
    assert stfcn["pose_before"] == rts.statistics(theta)
    # Two small steps from the identity: the transformer has hardly moved a digit yet.
    assert stfcn["pose_after"]["angle"]["std"] == pytest.approx(
        stfcn["pose_before"]["angle"]["std"], rel=0.05
    )
    printed = capsys.readouterr().out.splitlines()
    assert f"FCN, 2 iterations, seed 0: {100 * fcn['error']:.2f} % error" in printed

    monkeypatch.setattr(rts, "run", None)
    rts.main(arguments)
    assert path.read_text() == first


@pytest.mark.usefixtures("small_test_set", "_threads")
def test_runs_are_added_to_those_that_are_there(tmp_path, monkeypatch):
    path = tmp_path / "rts.json"
    done = []

    def run(name, iterations, seed, after_step):
        done.append((name, iterations, seed))
        after_step(iterations, 0.5)
        return {
            "network": name,
            "schedule": {"iterations": iterations},
            "seed": seed,
            "error": 0.25,
        }

    monkeypatch.setattr(rts, "run", run)
    rts.main(["--networks", "FCN", "--iterations", "1", "--seeds", "0", "--output", str(path)])
    rts.main(
        [
            "--networks",
            "FCN",
            "ST-FCN",
            "--iterations",
            "1",
            "3",
            "--seeds",
            "0",
            "--output",
            str(path),
        ]
    )
    assert done == [("FCN", 1, 0), ("ST-FCN", 1, 0), ("FCN", 3, 0), ("ST-FCN", 3, 0)]
    assert len(records.read(path)["runs"]) == 4


@pytest.mark.usefixtures("small_test_set")
def test_one_seed_gives_one_result():
    first, again, other = (rts.run("ST-FCN", 2, seed) for seed in (3, 3, 4))
    del first["seconds"], again["seconds"]
    assert first == again
    assert first["loss"] != other["loss"]


def test_unknown_networks_are_refused(capsys):
    with pytest.raises(SystemExit):
        rts.main(["--networks", "CNN"])
    assert "invalid choice: 'CNN'" in capsys.readouterr().err
