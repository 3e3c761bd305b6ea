"""What a training says about its transformers."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from stnlib.nn import SpatialTransformer
from stnlib.training.watch import complaints, regressed_thetas, statistics
from stnlib.transforms import Affine, Attention, ThinPlateSpline


class Fixed(nn.Module):
    """A localisation network that returns thetas that are given, with noise in training mode."""

    def __init__(self, theta):
        super().__init__()
        self.theta = torch.as_tensor(theta)

    def forward(self, input):
        noise = 5.0 if self.training else 0.0
        return self.theta.expand(len(input), -1) + noise


def behind(theta, transform=None, **options):
    return SpatialTransformer(Fixed(theta), transform, initial="keep", **options)


IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
IDENTITY = [1.0, 0, 0, 0, 1, 0]


def test_thetas_by_the_names_of_the_transformers():
    first, second = torch.rand(3, 6), torch.rand(3, 3)
    network = nn.ModuleDict(
        {"a": behind(first), "b": nn.Sequential(nn.ReLU(), behind(second, Attention()))}
    )
    network.forward = lambda images: network["b"](network["a"](images))
    found = regressed_thetas(network, IMAGES)
    assert list(found) == ["a", "b.1"]
    assert torch.equal(found["a"], first)  # in evaluation mode, without noise
    assert torch.equal(found["b.1"], second)


def test_thetas_are_those_within_bounds():
    found = regressed_thetas(behind([9.0, 0, 0, 0, 1, 0], bounds=0.5), IMAGES)[""]
    # The start is the identity: 1 + 0.5 tanh((9 - 1) / 0.5).
    np.testing.assert_allclose(found[:, 0], 1.5, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[:, 1:], [IDENTITY[1:]] * 3, rtol=0, atol=1e-6)


def test_watching_leaves_a_network_as_it_was():
    network = nn.Sequential(behind(IDENTITY), nn.BatchNorm2d(1), nn.Dropout())
    network.train()
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    regressed_thetas(network, IMAGES)
    assert [m.training for m in network] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not network[0].localisation._forward_hooks


def test_watching_ends_cleanly_when_the_network_fails():
    network = nn.Sequential(behind(IDENTITY), nn.Linear(3, 3)).train()
    with pytest.raises(RuntimeError):
        regressed_thetas(network, IMAGES)
    assert network.training
    assert not network[0].localisation._forward_hooks


def test_a_network_without_transformers_is_not_even_run():
    class Never(nn.Module):
        def forward(self, images):
            raise AssertionError

    assert regressed_thetas(Never(), IMAGES) == statistics(Never(), IMAGES) == {}


def test_spread_and_outside_by_hand():
    theta = torch.tensor([[1.0, 0, 0, 0, 1, 0], [1.0, 0, 0, 0, 1, 0], [1.0, 0, 3.0, 0, 1, 0]])
    found = statistics(behind(theta), IMAGES)[""]
    # One number of six spreads: 0, 0 and 3 have a standard deviation of the root of 2. The third grid is outside.
    assert found["spread"] == pytest.approx(2**0.5 / 6, abs=1e-6)
    assert found["outside"] == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("zoom", "outside"),
    # Of 16 points an axis, at -15/16, -13/16 ... 15/16, so many lie within 1 when they are zoom times as far out.
    [(0.5, 0), (1.0, 0), (2.0, 1 - (8 / 16) ** 2), (4.0, 1 - (4 / 16) ** 2)],
)
def test_how_much_of_the_grid_lies_beyond_the_frame(zoom, outside):
    theta = [zoom, 0, 0, 0, zoom, 0]
    assert statistics(behind(theta), IMAGES)[""]["outside"] == pytest.approx(outside, abs=1e-6)


@pytest.mark.parametrize(
    "transform", [Affine(), Attention(), ThinPlateSpline(4, 4), Affine(dimensions=3)]
)
def test_any_family_is_watched(transform):
    images = torch.rand(3, 1, 4, 4, 4) if getattr(transform, "dimensions", 2) == 3 else IMAGES
    start = torch.as_tensor(transform.identity()).float()
    assert statistics(behind(start, transform), images) == {"": {"spread": 0.0, "outside": 0.0}}


def test_one_image_has_no_spread_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert statistics(behind(IDENTITY), IMAGES[:1])[""]["spread"] == 0


def test_a_theta_that_is_not_finite_is_said():
    for bad in (float("nan"), float("inf")):
        found = statistics(behind([bad, 0, 0, 0, 1, 0]), IMAGES)
        for warmed_up in (True, False):
            said = complaints(found, warmed_up)
            assert any("theta is not a finite number; a lower learning rate" in s for s in said)


def test_what_is_wrong_is_said_with_what_helps():
    assert complaints({}) == []
    healthy = {"spread": 0.2, "outside": 0.4}
    dead, away = healthy | {"spread": 0.0}, healthy | {"outside": 0.6}
    assert complaints({"a": healthy}) == []
    assert complaints({"a": dead}, warmed_up=False) == []
    (said,) = complaints({"a": healthy, "b": dead})
    assert said.startswith("b: theta is the same for every image (its spread is 0)")
    assert "a clip of 1 for the gradient and a longer warm-up usually help" in said
    for warmed_up in (True, False):
        (said,) = complaints({"a": away, "b": healthy}, warmed_up)
        assert said.startswith("a: 60 % of the grid lies beyond the frame")
        assert "bounds on theta usually help" in said
    assert len(complaints({"a": {"spread": 0.0, "outside": 0.6}, "b": away})) == 3
