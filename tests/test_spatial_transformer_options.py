"""The options of the spatial transformer: bounds, where theta starts, downsampling, theta handed on, learning rates."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from stnlib import engines
from stnlib.nn import (
    LearnedBasis,
    SpatialTransformer,
    functional,
    parameter_groups,
    total_matrix,
)
from stnlib.transforms import (
    Affine,
    Attention,
    ExponentialAffine,
    ThinPlateSpline,
    compose,
)

CORNERS = pytest.mark.parametrize("align_corners", [False, True])
IDENTITY = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


@pytest.fixture(autouse=True)
def _seeded_and_served_by_the_reference():
    torch.manual_seed(0)
    with engines.use("reference"):
        yield


def localisation(outputs=6, pixels=64):
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), nn.ReLU(), nn.Linear(8, outputs))


def returning(raw, **options):
    """Return a transformer of images of 8 by 8 pixels, whose localisation network returns this."""
    module = SpatialTransformer(localisation(len(raw)), **options)
    with torch.no_grad():
        module.localisation[-1].bias.copy_(torch.as_tensor(raw))
    return module


def scattered(module, spread=0.3):
    """Return the module, with a theta that is not where it started and depends on the image."""
    with torch.no_grad():
        last = module.localisation[-1]
        last.bias.add_(spread * torch.randn_like(last.bias))
        last.weight.normal_(std=0.1)
    return module


# Bounds


@pytest.mark.parametrize("bounds", [0.25, np.float32(0.25), torch.tensor(0.25), 1])
def test_one_bound_holds_for_all_by_the_formula(bounds):
    raw, b = [1.3, -0.2, 0.1, 4.0, 0.2, -7.0], float(bounds)
    _, theta = returning(raw, bounds=bounds)(torch.rand(2, 1, 8, 8), return_theta=True)
    expected = [s + b * math.tanh((r - s) / b) for r, s in zip(raw, IDENTITY, strict=True)]
    torch.testing.assert_close(theta, torch.tensor([expected] * 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_each_number_has_its_own_bound(kind):
    bounds = [0.5, 0.1, 1.0, 0.1, 0.5, 2.0]
    raw = [1.5, 0.1, -1.0, 0.0, 0.5, 2.0]
    module = returning(raw, bounds=kind(bounds))
    _, theta = module(torch.rand(1, 1, 8, 8), return_theta=True)
    # tanh(1) = 0.761594
    expected = [1 + 0.380797, 0.0761594, -0.761594, 0.0, 1 - 0.380797, 1.523188]
    torch.testing.assert_close(theta[0], torch.tensor(expected), rtol=0, atol=2e-6)


@pytest.mark.parametrize("far", [1e3, -1e3, 1e30])
def test_theta_never_leaves_its_bounds_and_the_gradient_stays_finite(far):
    module = returning([far] * 3, transform=Attention(), initial=[0.5, 0.1, 0.2], bounds=0.25)
    output, theta = module(torch.rand(1, 1, 8, 8), return_theta=True)
    sign = math.copysign(0.25, far)
    expected = torch.tensor([[0.5 + sign, 0.1 + sign, 0.2 + sign]])
    torch.testing.assert_close(theta, expected, rtol=0, atol=1e-7)
    output.sum().backward()
    assert module.localisation[-1].bias.grad.tolist() == [0, 0, 0]


FAMILIES = {
    "affine": Affine,
    "attention": Attention,
    "exponential": ExponentialAffine,
    "tps": ThinPlateSpline,
    "learned": lambda: LearnedBasis(ThinPlateSpline(3, 3), (8, 8)),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bounds", [0.01, 0.3, 100.0])
def test_with_bounds_too_it_starts_where_it_started_and_learns_as_it_did(family, bounds):
    image, results = torch.rand(2, 1, 8, 8), []
    for options in ({}, {"bounds": bounds}):
        transform = FAMILIES[family]()
        module = SpatialTransformer(
            localisation(transform.num_parameters), transform, padding_mode="border", **options
        )
        output = module(image)
        output.square().sum().backward()
        results.append((output.detach(), module.localisation[-1].bias.grad))
    (free, slope), (bounded, same_slope) = results
    assert torch.equal(bounded, free)
    torch.testing.assert_close(same_slope, slope, rtol=1e-6, atol=0)


@pytest.mark.parametrize("convert", ["float", "double", "half", "bfloat16"])
@pytest.mark.parametrize("before", [False, True])
def test_theta_starts_exactly_where_it_should_in_every_dtype(convert, before):
    start = [0.3, -0.1, 1 / 3]
    network = nn.Linear(4, 3)
    if before:
        getattr(network, convert)()
    module = SpatialTransformer(network, Attention(), initial=start, bounds=[0.1, 0.7, 0.3])
    getattr(module, convert)()
    assert module.bounds.dtype == module.start.dtype == network.bias.dtype
    raw = network.bias.detach()[None]
    assert torch.equal(module._bounded(raw), raw)
    torch.testing.assert_close(raw[0].double(), torch.tensor(start).double(), rtol=4e-3, atol=0)


def test_a_network_of_another_dtype_than_the_module_keeps_it():
    module = SpatialTransformer(nn.Linear(4, 3), Attention(), bounds=0.5)
    for dtype in (torch.float64, torch.bfloat16):
        assert module._bounded(torch.rand(2, 3, dtype=dtype)).dtype == dtype


def test_gradients_through_bounds_by_finite_differences():
    module = scattered(returning(IDENTITY, bounds=[0.2, 0.3, 0.4, 0.5, 0.6, 0.7])).double()
    image = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    last = module.localisation[-1]

    def both(bias, weight):
        parameters = {"localisation.3.bias": bias, "localisation.3.weight": weight}
        return torch.func.functional_call(module, parameters, (image, True))

    assert torch.autograd.gradcheck(both, (last.bias, last.weight))


def test_the_slope_through_bounds_is_one_less_the_tanh_squared():
    raw = [1.5, 0.1, -1.0, 0.0, 0.5, 2.0]
    module = returning(raw, bounds=0.5)
    _, theta = module(torch.rand(1, 1, 8, 8), return_theta=True)
    theta.sum().backward()
    expected = [1 - math.tanh((r - s) / 0.5) ** 2 for r, s in zip(raw, IDENTITY, strict=True)]
    found = module.localisation[-1].bias.grad
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 1), (2, 5), (2, 2, 3), (6,)])
def test_bounds_do_not_hide_a_theta_of_the_wrong_shape(shape):
    class Wrong(nn.Module):
        def forward(self, image):
            return torch.ones(shape)

    module = SpatialTransformer(Wrong(), initial="keep", bounds=0.5)
    with pytest.raises(ValueError, match=r"^theta: expected shape \(N, 6\), got"):
        module(torch.rand(2, 1, 8, 8))


def test_bounds_do_not_hide_a_theta_that_is_no_tensor():
    class Wrong(nn.Module):
        def forward(self, image):
            return [1.0] * 6

    module = SpatialTransformer(Wrong(), initial="keep", bounds=0.5)
    with pytest.raises(TypeError, match=r"^theta: expected a PyTorch tensor, got list$"):
        module(torch.rand(2, 1, 8, 8))


def test_a_theta_that_is_given_is_not_bounded():
    image, theta = torch.rand(1, 1, 8, 8), torch.tensor([[0.2, 0.0, 0.4, 0.0, 0.2, -0.4]])
    bounded, free = (SpatialTransformer(localisation(), bounds=b) for b in (0.01, None))
    assert torch.equal(bounded.sample(image, theta), free.sample(image, theta))


# Where theta starts


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
@pytest.mark.parametrize("bounds", [None, 0.1])
def test_an_attention_window_of_half_the_size_starts_as_a_crop(kind, bounds):
    module = SpatialTransformer(
        *(localisation(3), Attention(), (4, 4)), initial=kind([0.5, 0.25, -0.25]), bounds=bounds
    )
    image = torch.rand(3, 1, 8, 8)
    # 0.25 of the half width is one pixel.
    torch.testing.assert_close(module(image), image[:, :, 1:5, 3:7], rtol=0, atol=1e-6)
    assert not module.localisation[-1].weight.any()


def test_keep_leaves_the_network_as_it_came():
    network = localisation()
    before = copy.deepcopy(network.state_dict())
    module, image = SpatialTransformer(network, initial="keep"), torch.rand(2, 1, 8, 8)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    output, theta = module(image, return_theta=True)
    assert torch.equal(theta, network(image))
    assert (output - image).abs().max() > 0.1


def test_with_keep_bounds_are_about_the_identity():
    network, image = localisation(), torch.rand(2, 1, 8, 8)
    module = SpatialTransformer(network, initial="keep", bounds=0.1)
    _, theta = module(image, return_theta=True)
    start = torch.tensor(IDENTITY)
    expected = start + 0.1 * torch.tanh((network(image) - start) / 0.1)
    torch.testing.assert_close(theta, expected)
    assert 0.05 < (theta - start).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize(
    "network",
    [
        lambda: nn.Sequential(nn.Conv2d(1, 6, 8), nn.Flatten()),
        lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(6)),
        lambda: nn.Sequential(
            nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(64, 6))
        ),
    ],
    ids=["convolution", "lazy", "parametrised"],
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_keep_asks_nothing_of_the_networks_layers(network):
    module = SpatialTransformer(network(), initial="keep", bounds=0.5)
    output, theta = module(torch.rand(2, 1, 8, 8), return_theta=True)
    assert (output.shape, theta.shape) == ((2, 1, 8, 8), (2, 6))


def test_a_refused_option_leaves_the_network_as_it_was():
    for options in ({"bounds": -1}, {"initial": [0.5]}, {"downsample": 0}):
        network = localisation()
        before = copy.deepcopy(network.state_dict())
        with pytest.raises(ValueError, match="expected"):
            SpatialTransformer(network, **options)
        assert all(torch.equal(before[name], p) for name, p in network.state_dict().items())


def test_what_was_handed_in_can_change_afterwards():
    start, bounds = np.array([0.5, 0.0, 0.0]), torch.tensor([0.1, 0.2, 0.3]).double()
    network = localisation(3).double()
    module = SpatialTransformer(network, Attention(), initial=start, bounds=bounds)
    start[:], bounds[:] = 9, 9
    assert module.start.tolist() == [0.5, 0, 0]
    torch.testing.assert_close(module.bounds, torch.tensor([0.1, 0.2, 0.3]).double())


# Downsampling


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [None, (9, 12), (8, 11)])
@pytest.mark.parametrize("transform", [Affine(), ThinPlateSpline(3, 3)], ids=str)
def test_images_are_averaged_after_sampling_as_torch_does(factor, size, transform):
    results = []
    fine = scattered(
        SpatialTransformer(localisation(transform.num_parameters), transform, size)
    )
    coarse = SpatialTransformer(
        localisation(transform.num_parameters), transform, size, downsample=factor
    )
    coarse.load_state_dict(fine.state_dict())
    image = torch.rand(2, 1, 8, 8)
    for output, module in (
        (nn.functional.avg_pool2d(fine(image), factor), fine),
        (coarse(image), coarse),
    ):
        output.square().sum().backward()
        results.append((output, *(p.grad for p in module.parameters())))
    assert results[0][0].shape[2:] == tuple(n // factor for n in size or (8, 8))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("size", [None, (3, 4, 5)])
def test_volumes_are_averaged_after_sampling_as_torch_does(factor, size):
    results, family = [], Affine(dimensions=3)
    fine = scattered(SpatialTransformer(localisation(12, 2 * 4 * 5 * 6), family, size))
    coarse = SpatialTransformer(localisation(12, 240), family, size, downsample=factor)
    coarse.load_state_dict(fine.state_dict())
    volume = torch.rand(3, 2, 4, 5, 6)
    for output, module in (
        (nn.functional.avg_pool3d(fine(volume), factor), fine),
        (coarse(volume), coarse),
    ):
        output.square().sum().backward()
        results.append((output, *(p.grad for p in module.parameters())))
    assert results[0][0].shape == (3, 2, *(n // factor for n in size or (4, 5, 6)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_an_empty_batch_downsampled_is_empty(dimensions):
    family, size = Affine(dimensions=dimensions), (4, 5, 6)[-dimensions:]
    module = SpatialTransformer(
        localisation(family.num_parameters, math.prod(size)), family, downsample=2, bounds=1.0
    )
    output, theta = module(torch.rand(0, 1, *size), return_theta=True)
    assert output.shape == (0, 1, *(n // 2 for n in size))
    assert theta.shape == (0, family.num_parameters)


def test_a_theta_that_is_given_is_downsampled_too():
    module, image = SpatialTransformer(localisation(), downsample=2), torch.rand(1, 1, 8, 8)
    expected = nn.functional.avg_pool2d(image, 2)
    found = module.sample(image, torch.tensor([IDENTITY]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "said"), [(None, r"8, the shortest side of a grid of \(8, 9\)"), ((12, 3), "3, ")]
)
def test_a_factor_longer_than_a_side_is_refused_at_the_call(size, said):
    module = SpatialTransformer(localisation(pixels=72), size=size, downsample=9)
    with pytest.raises(ValueError, match=rf"^downsample: expected at most {said}.*, got 9$"):
        module(torch.rand(2, 1, 8, 9))


# Theta handed on


OPTIONS = {
    "none": {},
    "bounds": {"bounds": 0.2},
    "all": {"bounds": 0.2, "initial": [0.5, 0, 0.1, 0, 0.5, 0], "downsample": 2},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_theta_that_is_returned_is_what_was_sampled(name):
    module = scattered(SpatialTransformer(localisation(), size=(6, 4), **OPTIONS[name]))
    image = torch.rand(3, 1, 8, 8)
    output, theta = module(image, return_theta=True)
    assert (theta.shape, theta.dtype) == ((3, 6), torch.float32)
    assert torch.equal(module.sample(image, theta), output)
    assert torch.equal(module(image), output)
    assert torch.equal(module(image, False), output)
    matrix = theta.double().reshape(3, 2, 3)
    grid = nn.functional.affine_grid(matrix, (3, 1, 6, 4), align_corners=False)
    sampled = nn.functional.grid_sample(image.double(), grid, align_corners=False)
    expected = nn.functional.avg_pool2d(sampled, module.downsample).float()
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)


def test_under_autocast_theta_is_returned_whole():
    module = scattered(SpatialTransformer(localisation(), bounds=0.2, downsample=2))
    image = torch.rand(2, 1, 8, 8)
    expected = module(image, return_theta=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(image, return_theta=True)
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=0)


class FedForward(nn.Module):
    """A second network that sees the transformed image and the theta that made it."""

    def __init__(self, transformer):
        super().__init__()
        self.transformer = transformer
        self.classifier = nn.Linear(16 + 6, 3)

    def forward(self, image):
        output, theta = self.transformer(image, return_theta=True)
        return self.classifier(torch.cat((output.flatten(1), theta), dim=1))


def test_theta_fed_forward_learns_through_both_ways():
    network = FedForward(SpatialTransformer(localisation(), bounds=0.5, downsample=2))
    scattered(network.transformer)
    image, grads = torch.rand(4, 1, 8, 8), []
    bias = network.transformer.localisation[-1].bias
    for zeroed in (slice(0, 0), slice(16, 22), slice(0, 16)):
        again = copy.deepcopy(network)
        with torch.no_grad():
            again.classifier.weight[:, zeroed] = 0
        again(image).sum().backward()
        grads.append(again.transformer.localisation[-1].bias.grad)
    both, by_image, by_theta = grads
    assert by_image.norm() > 1e-3
    assert by_theta.norm() > 1e-3
    torch.testing.assert_close(both, by_image + by_theta, rtol=1e-5, atol=1e-6)
    assert bias.grad is None


def test_the_theta_of_an_image_transforms_its_mask_as_well():
    module = scattered(SpatialTransformer(localisation(), bounds=0.3))
    image, mask = torch.rand(2, 1, 8, 8), torch.rand(2, 3, 20, 20)
    _, theta = module(image, return_theta=True)
    found = SpatialTransformer(localisation(), size=(5, 6)).sample(mask, theta)
    grid = nn.functional.affine_grid(theta.reshape(2, 2, 3), (2, 3, 5, 6), align_corners=False)
    expected = nn.functional.grid_sample(mask, grid, align_corners=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    found.sum().backward()
    assert (module.localisation[-1].bias.grad != 0).all()


# Anywhere in a network


def test_transformers_in_series_with_layers_between():
    first = scattered(SpatialTransformer(localisation(), bounds=0.3, downsample=2))
    second = scattered(
        SpatialTransformer(localisation(3, 48), Attention(), initial=[0.6, 0, 0], size=(3, 5))
    )
    network = nn.Sequential(first, nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), second)
    image = torch.rand(2, 1, 8, 8)
    output = network(image)
    assert output.shape == (2, 3, 3, 5)
    _, theta = first(image, return_theta=True)
    grid = nn.functional.affine_grid(theta.reshape(2, 2, 3), (2, 1, 8, 8), align_corners=False)
    seen = nn.functional.grid_sample(image, grid, align_corners=False)
    seen = network[1:3](nn.functional.avg_pool2d(seen, 2))
    s, x, y = second.localisation(seen).unbind(1)
    o = torch.zeros_like(s)
    matrix = torch.stack((s, o, x, o, s, y), dim=1).reshape(2, 2, 3)
    grid = nn.functional.affine_grid(matrix, (2, 3, 3, 5), align_corners=False)
    expected = nn.functional.grid_sample(seen, grid, align_corners=False)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    output.sum().backward()
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters()
    )


def test_transformers_side_by_side_look_at_different_places():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            places = ([0.5, -0.5, -0.5], [0.5, 0.5, 0.5])
            self.heads = nn.ModuleList(
                SpatialTransformer(
                    *(localisation(3), Attention(), (4, 4)), initial=place, bounds=0.2
                )
                for place in places
            )

        def forward(self, image):
            return torch.cat([head(image) for head in self.heads], dim=1)

    network, image = Pair(), torch.rand(2, 1, 8, 8)
    expected = torch.cat((image[:, :, :4, :4], image[:, :, 4:, 4:]), dim=1)
    torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-6)
    network(image).square().sum().backward()
    for head in network.heads:
        assert (head.localisation[-1].bias.grad != 0).all()


def test_a_transformer_inside_a_localisation_network():
    inner = SpatialTransformer(localisation(), bounds=0.1)
    outer = SpatialTransformer(nn.Sequential(inner, *localisation()), bounds=0.1)
    image = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(outer(image), image, rtol=0, atol=1e-6)
    torch.testing.assert_close(inner(image), image, rtol=0, atol=1e-6)


# What is saved, copied and printed


@pytest.mark.parametrize("name", OPTIONS)
def test_weights_saved_without_options_are_loaded_whatever_the_options(name):
    plain, image = scattered(SpatialTransformer(localisation())), torch.rand(2, 1, 8, 8)
    saved = plain.state_dict()
    assert saved.keys() == {f"localisation.{i}.{w}" for i in (1, 3) for w in ("weight", "bias")}
    module = SpatialTransformer(localisation(), **OPTIONS[name])
    module.load_state_dict(saved, strict=True)
    assert module.state_dict().keys() == saved.keys()
    assert torch.equal(module.localisation(image), plain.localisation(image))


def test_without_options_there_is_nothing_but_the_networks():
    module = SpatialTransformer(localisation())
    assert list(module.buffers()) == []
    assert (module.bounds, module.start, module.downsample) == (None, None, 1)


def test_bounds_follow_the_module():
    module = SpatialTransformer(localisation(), bounds=0.5)
    assert module.double().bounds.dtype == torch.float64
    assert module.start.dtype == torch.float64
    moved = module.to("meta")
    assert moved.bounds.device.type == moved.start.device.type == "meta"
    assert "bounds=" in repr(moved)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_keep_their_options(again):
    module = scattered(SpatialTransformer(localisation(), **OPTIONS["all"]))
    image = torch.rand(2, 1, 8, 8)
    for found, expected in zip(again(module)(image, True), module(image, True), strict=True):
        assert torch.equal(found, expected)


def test_printed_options():
    line = repr(SpatialTransformer(localisation()))
    assert "transform=Affine(), size=None, mode='bilinear'" in line
    assert "bounds" not in line
    assert "downsample" not in line
    line = repr(SpatialTransformer(localisation(), bounds=0.5, downsample=2))
    assert "size=None, bounds=tensor(0.5000), downsample=2, mode='bilinear'" in line


# The total matrix


@pytest.mark.parametrize("bounds", [None, 0.05])
def test_the_total_matrix_is_that_of_the_thetas_that_are_sampled(bounds):
    modules = [scattered(SpatialTransformer(localisation(), bounds=bounds)) for _ in range(2)]
    image = torch.rand(2, 1, 8, 8)
    seen, first = modules[0](image, return_theta=True)
    _, second = modules[1](seen, return_theta=True)
    expected = compose(*(theta.double().reshape(2, 2, 3) for theta in (first, second)))
    total = total_matrix(nn.Sequential(*modules), image)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-14)


def ramps(size, align_corners):
    """Return an image whose channels say where a pixel lies: what is read from it is the place it was read at."""
    theta = torch.eye(len(size), len(size) + 1)[None]
    grid = functional.affine_grid(theta.double(), size, align_corners=align_corners)
    return grid.movedim(-1, 1)


@CORNERS
@pytest.mark.parametrize(
    ("size", "grid", "factors"),
    [
        ((12, 12), None, (2, 1)),
        ((12, 16), (12, 12), (3, 2)),
        ((11, 14), (13, 17), (3, 2)),
        ((9, 8, 10), None, (2, 1)),
        ((9, 8, 10), (7, 8, 11), (2, 2)),
    ],
)
def test_the_total_matrix_says_where_what_is_averaged_was_read(
    align_corners, size, grid, factors
):
    dimensions = len(size)
    family = Affine(dimensions=dimensions)
    options = {"padding_mode": "border", "align_corners": align_corners}
    modules, pixels = [], math.prod(size)
    for factor in factors:
        module = SpatialTransformer(
            *(nn.Sequential(nn.Flatten(), nn.Linear(dimensions * pixels, 1)), family, grid),
            **(options | {"downsample": factor, "initial": "keep"}),
        )
        matrix = 0.5 * torch.eye(dimensions, dimensions + 1).double()
        matrix = matrix + 0.05 * torch.randn(matrix.shape).double()
        module.localisation = Constant(matrix.flatten())
        modules.append(module)
        pixels = math.prod(n // factor for n in grid or size)
    network = nn.Sequential(*modules)
    image = ramps(size, align_corners)
    output = network(image)
    total = total_matrix(network, image)
    places = functional.affine_grid(total, output.shape[2:], align_corners=align_corners)
    # Averages of a ramp are its values in the middle of the blocks: exact.
    torch.testing.assert_close(output.movedim(1, -1), places, rtol=0, atol=1e-12)


class Constant(nn.Module):
    def __init__(self, theta):
        super().__init__()
        self.theta = theta

    def forward(self, image):
        return self.theta.expand(len(image), -1)


def test_whole_blocks_leave_the_total_matrix_alone():
    module = returning([0.9, -0.3, 0.1, 0.3, 0.9, -0.05], downsample=4)
    image = torch.rand(2, 1, 8, 8)
    expected = module.localisation(image).double().reshape(2, 2, 3)
    assert torch.equal(total_matrix(module, image), expected)


def test_the_total_matrix_of_a_network_that_asks_for_theta():
    network = FedForward(
        scattered(SpatialTransformer(localisation(), bounds=0.2, downsample=2))
    )
    image = torch.rand(2, 1, 8, 8)
    _, theta = network.transformer(image, return_theta=True)
    assert torch.equal(total_matrix(network, image), theta.double().reshape(2, 2, 3))


# Compiled, and exported


@pytest.fixture
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("dimensions", [2, 3])
def test_compiled_it_does_the_same(dimensions):
    family, size = Affine(dimensions=dimensions), (4, 5, 6)[-dimensions:]
    network = localisation(family.num_parameters, math.prod(size))
    module = scattered(SpatialTransformer(network, family, bounds=0.2, downsample=2))
    image, results = torch.rand(3, 1, *size), []
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager")
    for each in (module, compiled):
        output, theta = each(image, return_theta=True)
        (output.square().sum() + theta.sum()).backward()
        results.append((output, theta, *(p.grad for p in each.parameters())))
    for eager, graph in zip(*results, strict=True):
        torch.testing.assert_close(graph, eager, rtol=1e-5, atol=1e-5)
    assert torch.equal(compiled(image), compiled(image, return_theta=True)[0])


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.usefixtures("_fresh")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning")
def test_exported_it_does_the_same(strict):
    module = scattered(SpatialTransformer(localisation(), bounds=0.2, downsample=2)).eval()
    image = torch.rand(2, 1, 8, 8)
    program = torch.export.export(module, (image,), {"return_theta": True}, strict=strict)
    found, expected = program.module()(image, return_theta=True), module(image, True)
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-6)


# Groups of parameters for an optimiser


class Everywhere(nn.Module):
    """Transformers in series, side by side and inside a localisation network; names that say nothing."""

    def __init__(self):
        super().__init__()
        inner = SpatialTransformer(localisation())
        self.a = SpatialTransformer(nn.Sequential(inner, *localisation()))
        self.b = nn.ModuleList(SpatialTransformer(localisation()) for _ in range(2))
        self.localisation = nn.Linear(64, 64)
        self.c = SpatialTransformer(
            localisation(18, 64), LearnedBasis(ThinPlateSpline(3, 3), (8, 8))
        )


def test_each_parameter_is_in_one_group_once():
    network = Everywhere()
    groups = parameter_groups(network, 1e-2, localisation=0.1, weight_decay=1e-4, foreach=False)
    by_name = {group["name"]: group for group in groups}
    assert by_name.keys() == {"localisation", "rest"}
    assert by_name["rest"]["lr"] == 1e-2
    assert by_name["localisation"]["lr"] == pytest.approx(1e-3)
    assert all(group["weight_decay"] == 1e-4 and group["foreach"] is False for group in groups)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in network.parameters())
    # The inner network of a, its outer one, b's two and c's, four tensors each; the linear layer and c's basis.
    assert len(by_name["localisation"]["params"]) == 4 * 5
    rest = {id(p) for p in by_name["rest"]["params"]}
    assert rest == {id(p) for p in (*network.localisation.parameters(), network.c.transform.B)}


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_every_optimiser_takes_the_groups(optimiser):
    made = optimiser(parameter_groups(Everywhere(), 1e-2, 0.3))
    rates = {group["name"]: group["lr"] for group in made.param_groups}
    assert rates == pytest.approx({"localisation": 3e-3, "rest": 1e-2})


def test_a_step_moves_localisation_networks_less():
    network = nn.Sequential(SpatialTransformer(localisation()), nn.Linear(8, 2))
    before = copy.deepcopy(network)
    optimiser = torch.optim.SGD(parameter_groups(network, 0.5, localisation=0.01))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    for part, moved in ((0, 0.005), (1, 0.5)):
        pairs = zip(network[part].parameters(), before[part].parameters(), strict=True)
        for now, was in pairs:
            torch.testing.assert_close(now, was - moved)


def test_what_does_not_learn_and_what_is_empty_is_left_out():
    network = nn.Sequential(SpatialTransformer(localisation()), nn.Linear(8, 2))
    network[0].localisation[1].requires_grad_(False)
    network[1].bias.requires_grad_(False)
    sizes = {g["name"]: len(g["params"]) for g in parameter_groups(network, 1e-2)}
    assert sizes == {"localisation": 2, "rest": 1}
    (only,) = parameter_groups(network[0], 1e-2, 0.5)
    assert (only["name"], only["lr"]) == ("localisation", 5e-3)
    (only,) = parameter_groups(network[1], 1e-2, 0.5)
    assert (only["name"], only["lr"]) == ("rest", 1e-2)
    network[0].localisation.requires_grad_(False)
    (only,) = parameter_groups(network, 1e-2, 0.5)
    assert only["name"] == "rest"


def test_a_shared_parameter_learns_as_the_localisation_networks_do():
    trunk = nn.Linear(64, 64)
    network = nn.Sequential(
        nn.Flatten(),
        trunk,
        nn.Unflatten(1, (1, 8, 8)),
        SpatialTransformer(nn.Sequential(nn.Flatten(), trunk, nn.ReLU(), nn.Linear(64, 6))),
    )
    (only,) = parameter_groups(network, 1e-2, 0.5)
    assert only["name"] == "localisation"
    assert len(only["params"]) == 4


@pytest.mark.usefixtures("_fresh")
def test_a_compiled_network_has_the_same_groups():
    network = Everywhere()
    plain, compiled = (
        parameter_groups(n, 1e-2, 0.5)
        for n in (network, torch.compile(network, backend="aot_eager"))
    )
    for one, other in zip(plain, compiled, strict=True):
        assert [id(p) for p in one.pop("params")] == [id(p) for p in other.pop("params")]
        assert one == other


FROZEN = nn.Linear(2, 2).requires_grad_(False)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([FROZEN], 0.1), {}, TypeError, "network: expected a torch.nn.Module, got list"),
        (
            (FROZEN, 0.1),
            {},
            ValueError,
            "network: expected parameters that require gradients, got none",
        ),
        (
            (FROZEN, "fast"),
            {},
            TypeError,
            "learning_rate: expected a positive number, got 'fast'",
        ),
        ((FROZEN, 0.0), {}, ValueError, "learning_rate: expected a positive number, got 0.0"),
        (
            (FROZEN, math.nan),
            {},
            ValueError,
            "learning_rate: expected a positive number, got nan",
        ),
        (
            (FROZEN, 0.1, -1),
            {},
            ValueError,
            "localisation: expected a positive number, got -1",
        ),
        (
            (FROZEN, 0.1),
            {"lr": 0.3, "name": "all", "weight_decay": 0},
            TypeError,
            "options: expected none that the groups set, got lr, name",
        ),
    ],
)
def test_groups_refuse_what_does_not_fit(arguments, options, error, message):
    with pytest.raises(error) as caught:
        parameter_groups(*arguments, **options)
    assert str(caught.value) == message


# What is refused


POSITIVE = f"bounds: expected a positive number, or 3 of them as {Attention()} needs, got "
START = f'initial: expected 3 numbers, as {Attention()} needs, or "keep", got '
WHOLE = "downsample: expected a whole number of at least 1, got "


@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("bounds", 0, ValueError, POSITIVE + "0"),
        ("bounds", -0.5, ValueError, POSITIVE + "-0.5"),
        ("bounds", math.inf, ValueError, POSITIVE + "inf"),
        ("bounds", math.nan, ValueError, POSITIVE + "nan"),
        ("bounds", [0.1, 0.2], ValueError, POSITIVE + "[0.1, 0.2]"),
        ("bounds", [0.1, 0.2, 0], ValueError, POSITIVE + "[0.1, 0.2, 0]"),
        ("bounds", [[0.1, 0.2, 0.3]], ValueError, POSITIVE + "[[0.1, 0.2, 0.3]]"),
        ("bounds", True, TypeError, POSITIVE + "True"),
        ("bounds", "wide", TypeError, POSITIVE + "'wide'"),
        ("bounds", ["0.1"] * 3, TypeError, POSITIVE + "['0.1', '0.1', '0.1']"),
        ("bounds", [0.1, [0.2, 0.3]], TypeError, POSITIVE + "[0.1, [0.2, 0.3]]"),
        ("bounds", [None] * 3, TypeError, POSITIVE + "[None, None, None]"),
        ("bounds", 1j, TypeError, POSITIVE + "1j"),
        ("initial", 0.5, ValueError, START + "0.5"),
        ("initial", [0.5, 0], ValueError, START + "[0.5, 0]"),
        ("initial", [0.5, 0, math.nan], ValueError, START + "[0.5, 0, nan]"),
        ("initial", [[0.5, 0, 0]], ValueError, START + "[[0.5, 0, 0]]"),
        ("initial", "random", TypeError, START + "'random'"),
        ("initial", [True] * 3, TypeError, START + "[True, True, True]"),
        ("downsample", 0, ValueError, WHOLE + "0"),
        ("downsample", 1.5, ValueError, WHOLE + "1.5"),
        ("downsample", math.nan, ValueError, WHOLE + "nan"),
        ("downsample", "2", TypeError, WHOLE + "'2'"),
        ("downsample", (2, 2), TypeError, WHOLE + "(2, 2)"),
    ],
)
def test_options_that_do_not_fit_are_refused_at_once(option, value, error, message):
    with pytest.raises(error) as caught:
        SpatialTransformer(localisation(3), Attention(), **{option: value})
    assert str(caught.value) == message
