"""Checkpoints: whole or refused, and never less than the one before."""

import io
import json
import math
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from stnlib.training import checkpoint

CONFIGURATION = {"seed": 0, "data": "R", "clip": math.inf, "patience": None}
STATE = {
    "weights": torch.arange(6.0).reshape(2, 3),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "steps": 7,
    "history": [{"error": 12.5, "name": "θ"}],
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "last.pt"
    checkpoint.save(path, STATE, CONFIGURATION)
    return path


def assert_state(found):
    assert found.keys() == STATE.keys()
    for name in ("weights", "half"):
        assert found[name].dtype == STATE[name].dtype
        assert torch.equal(found[name], STATE[name])
    assert (found["steps"], found["history"]) == (STATE["steps"], STATE["history"])


def test_what_is_saved_comes_back(path):
    assert_state(checkpoint.load(path, CONFIGURATION))
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]


def test_layouts_in_memory_come_back_too(tmp_path):
    weights = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    checkpoint.save(tmp_path / "last.pt", {"weights": weights}, {})
    found = checkpoint.load(tmp_path / "last.pt", {})["weights"]
    assert found.stride() == weights.stride()
    assert torch.equal(found, weights)


# What is not a checkpoint


def test_one_flipped_bit_is_noticed_or_changes_nothing(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place, bit in zip(
        rng.integers(0, len(whole), 400), rng.integers(0, 8, 400), strict=True
    ):
        content = bytearray(whole)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        try:
            found = checkpoint.load(path, CONFIGURATION)
        except ValueError as error:
            refused += 1
            assert_one_sentence(error, path)
        else:
            assert_state(found)  # the bit stood for nothing
    assert refused > 100


def assert_one_sentence(error, path):
    said = str(error)
    assert said.startswith(f"{path} is not a whole checkpoint (")
    assert said.endswith("); remove it to start anew, or put back a copy")
    assert "\n" not in said


def test_each_flipped_bit_of_a_weight_is_noticed(path):
    whole = path.read_bytes()
    weights = STATE["weights"].numpy().tobytes()
    assert whole.count(weights) == 1
    start = whole.index(weights)
    for place in range(start, start + len(weights)):
        content = bytearray(whole)
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"the checksum of its part .* is wrong") as caught:
            checkpoint.load(path, CONFIGURATION)
        assert_one_sentence(caught.value, path)


def test_a_checkpoint_that_was_cut_short_is_refused(path):
    whole = path.read_bytes()
    for length in [0, 1, 2, 100, *range(200, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a whole checkpoint") as caught:
            checkpoint.load(path, CONFIGURATION)
        assert_one_sentence(caught.value, path)


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def an_archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "a")
    return file.getvalue()


class Call:
    """What a pickle that runs something looks like."""

    def __reduce__(self):
        return Path.touch, (Path("should-not-be-there"),)


@pytest.mark.parametrize(
    "content",
    [
        b"no zip archive",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        json.dumps({"state": {}}).encode(),
        pickle.dumps({"state": {}, "configuration": {}}),
        an_archive(),
        saved([1, 2]),
        saved(torch.zeros(3)),
        saved({"state": {}}),
        saved({"state": Path("x"), "configuration": {}}),
        saved({"state": Call(), "configuration": {}}),
    ],
)
def test_another_kind_of_file_is_refused_and_runs_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a whole checkpoint") as caught:
        checkpoint.load(path, CONFIGURATION)
    assert_one_sentence(caught.value, path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_file_that_is_not_there_or_cannot_be_read_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"last\.pt"):
        checkpoint.load(tmp_path / "last.pt", {})
    with pytest.raises(OSError, match=str(tmp_path)):
        checkpoint.load(tmp_path, {})


# Another configuration


@pytest.mark.parametrize(
    ("change", "name", "theirs", "ours"),
    [
        ({"seed": 1}, "seed", "0", "1"),
        ({"data": "RTS"}, "data", "'R'", "'RTS'"),
        ({"clip": 1.0}, "clip", "inf", "1.0"),
        ({"patience": 3}, "patience", "None", "3"),
        ({"more": 5}, "more", "nothing", "5"),
        ({"seed": 0.5, "data": "P"}, "seed", "0", "0.5"),  # the first alone is named
    ],
)
def test_the_first_difference_of_a_configuration_is_named(path, change, name, theirs, ours):
    expected = (
        f"{path} was made with {name} = {theirs}, and {ours} is asked for; "
        f"ask for the same, or name another folder"
    )
    with pytest.raises(ValueError, match="was made with") as caught:
        checkpoint.load(path, CONFIGURATION | change)
    assert str(caught.value) == expected


def test_what_is_no_longer_asked_for_is_named_too(path):
    with pytest.raises(ValueError, match="was made with patience = None, and nothing is asked"):
        checkpoint.load(path, {k: v for k, v in CONFIGURATION.items() if k != "patience"})


def test_an_equal_number_of_another_type_and_another_order_are_no_difference(path):
    assert_state(checkpoint.load(path, {**dict(reversed(CONFIGURATION.items())), "seed": 0.0}))


# What cannot be written


def assert_stands(path, call):
    """The sentence, the checkpoint before it, and nothing beside it."""
    before = path.read_bytes()
    with pytest.raises(OSError, match="could not be written") as caught:
        call()
    said = str(caught.value)
    assert said.startswith(f"the checkpoint {path} could not be written (")
    assert said.endswith("); what was written before stands")
    assert "\n" not in said
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert_state(checkpoint.load(path, CONFIGURATION))
    return said


def new(path):
    return lambda: checkpoint.save(path, {"weights": torch.zeros(100_000)}, CONFIGURATION)


def test_on_a_full_device_the_one_before_stands(path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    path.with_name(f".{path.name}.part").symlink_to("/dev/full")
    assert "No space left on device" in assert_stands(path, new(path))


@pytest.mark.parametrize("room", [0, 1, 1000, 100_000, 399_000])
def test_where_no_more_bytes_fit_the_one_before_stands(path, room):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def call():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            new(path)()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert "File too large" in assert_stands(path, call)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_end_costs_nothing_either(path, monkeypatch, failing):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    assert "No space left on device" in assert_stands(path, new(path))


def test_the_bytes_are_on_the_disk_before_the_file_takes_its_place(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    new(path)()
    assert calls == ["fsync", "replace"]


def test_no_one_before_is_said_to_stand_where_there_is_none(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "last.pt"
    with pytest.raises(OSError, match=r"last\.pt could not be written \(.*\)$"):
        checkpoint.save(path, STATE, {})


def test_what_a_killed_process_left_beside_is_in_nobody_s_way(path):
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(b"half of a checkpoint")
    checkpoint.save(path, STATE | {"steps": 8}, CONFIGURATION)
    assert checkpoint.load(path, CONFIGURATION)["steps"] == 8
    assert not beside.exists()
