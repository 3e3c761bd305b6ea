"""Weights in files that other programs read."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from torch import nn

from stnlib.nn import load_weights, save_weights
from stnlib.nn.models import MODELS


def make(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def copies(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert torch.equal(one[name], other[name])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "new" / "weights.safetensors"
    save_weights(make(), path)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_the_models_come_back_by_name(tmp_path, name):
    one, other = (MODELS[name]((28, 28), 60_000) for _ in range(2))
    images = torch.rand(2, 1, 28, 28)
    save_weights(one, str(tmp_path / "model.safetensors"))
    load_weights(other, str(tmp_path / "model.safetensors"))
    assert torch.equal(one(images), other(images))
    assert_equal(copies(one), copies(other))


def test_parameters_and_buffers_come_back(path):
    network = make(1)
    network(torch.rand(5, 1, 4, 4))  # moves the buffers
    before = copies(network)
    save_weights(network, path)
    other = make(2)
    load_weights(other, path)
    assert_equal(copies(other), before)
    assert other[1].num_batches_tracked == 1
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_file_is_safetensors_that_can_be_read_without_this_package(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    weight = header["3.weight"]
    assert (weight["dtype"], weight["shape"]) == ("F32", [3, 16])
    first, last = weight["data_offsets"]
    found = torch.frombuffer(bytearray(content[8 + length :][first:last]), dtype=torch.float32)
    assert torch.equal(found.reshape(3, 16), make()[3].weight)


def test_layout_sharing_and_slices_do_not_matter(tmp_path):
    network = make().to(memory_format=torch.channels_last)
    network.tied = network[3]  # the same weights twice
    network[3].weight = nn.Parameter(torch.rand(6, 32)[::2, ::2])
    save_weights(network, tmp_path / "w.safetensors")
    other = make(1)
    other.tied = other[3]
    load_weights(other, tmp_path / "w.safetensors")
    assert_equal(copies(other), copies(network))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(1, 5, 3)),
            r"of 0\.weight it holds shape \(4, 1, 3, 3\), expected shape \(5, 1, 3, 3\)",
        ),
        (
            lambda: nn.Sequential(*make(), nn.Linear(3, 1)),
            r"of 4\.weight it holds nothing, expected shape \(1, 3\)",
        ),
        (
            lambda: make()[:3],
            r"of 3\.bias it holds shape \(3,\), expected nothing",
        ),
    ],
)
def test_weights_of_another_network_are_refused_and_change_nothing(path, network, message):
    network = network()
    before = copies(network)
    with pytest.raises(ValueError, match=rf"does not fit the network: {message}$") as caught:
        load_weights(network, path)
    assert str(caught.value).startswith(str(path))
    assert_equal(copies(network), before)


def broken(content):
    yield b""
    yield b"12345678"
    yield content[:-1]
    yield content[:20]
    yield content + b"1"
    yield struct.pack("<Q", 2**60) + content[8:]
    yield content[:8] + b"[" + content[9:]
    yield b"PK\x03\x04" + content


def test_a_file_that_is_not_whole_is_refused_and_changes_nothing(path):
    network, content = make(1), path.read_bytes()
    before = copies(network)
    for some in broken(content):
        path.write_bytes(some)
        with pytest.raises(ValueError, match="is not a whole safetensors file") as caught:
            load_weights(network, path)
        assert str(caught.value).startswith(f"{path} is not a whole safetensors file (")
        assert "\n" not in str(caught.value)
    assert_equal(copies(network), before)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        load_weights(make(), tmp_path / "absent.safetensors")


def assert_stands(path):
    before = path.read_bytes()
    with pytest.raises(OSError, match="could not be written") as caught:
        save_weights(make(1), path)
    said = str(caught.value)
    assert said.startswith(f"the weights {path} could not be written (")
    assert said.endswith("); what was written before stands")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    return said


def test_on_a_full_device_the_file_before_stands(path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    path.with_name(f".{path.name}.part").symlink_to("/dev/full")
    assert "No space left on device" in assert_stands(path)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_at_its_end_costs_nothing(path, monkeypatch, failing):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    assert "No space left on device" in assert_stands(path)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        OSError, match=r"^the weights .*w\.safetensors could not be written \(.*\)$"
    ):
        save_weights(make(), tmp_path / "file" / "w.safetensors")
