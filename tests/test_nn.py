import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import stnlib
from stnlib import engines
from stnlib._extras import require
from stnlib.data import mnist
from stnlib.nn import SpatialTransformer, functional, initialise_identity
from stnlib.nn.models import FCN, STFCN, count_parameters
from stnlib.transforms import Affine

EVERY_PADDING = pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
EVERY_MODE = pytest.mark.parametrize("mode", ["bilinear", "nearest"])
CORNERS = pytest.mark.parametrize("align_corners", [False, True])
EVERY_ENGINE = pytest.mark.usefixtures("engine")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def localisation(pixels=64, outputs=6):
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), nn.ReLU(), nn.Linear(8, outputs))


def problem(dtype=torch.float64, size=(4, 5), batch=2):
    """Images and a grid that leaves them; its positions keep 0.1 pixels from whole and half ones."""
    height, width = size
    image = torch.rand(batch, 2, height, width, dtype=dtype)
    whole = torch.randint(-6, 12, (batch, 3, 4, 2))
    position = whole + 0.1 + 0.3 * torch.rand(batch, 3, 4, 2, dtype=torch.float64)
    return image, position


def normalised(position, size, align_corners):
    axes = (
        stnlib.normalise(position[..., i], s, align_corners=align_corners)
        for i, s in enumerate(reversed(size))
    )
    return torch.stack(list(axes), dim=-1)


# Functions


@EVERY_ENGINE
@EVERY_MODE
@EVERY_PADDING
@CORNERS
def test_gradcheck_of_grid_sample(mode, padding_mode, align_corners):
    image, position = problem()
    grid = normalised(position, image.shape[2:], align_corners)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    inputs = (image.requires_grad_(), grid.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda u, g: functional.grid_sample(u, g, **options), inputs
    )


@CORNERS
@pytest.mark.parametrize("size", [(3, 4), (2, 1, 1, 5)])
def test_gradcheck_of_affine_grid(align_corners, size):
    theta = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda t: functional.affine_grid(t, size, align_corners=align_corners), theta
    )


@EVERY_ENGINE
@EVERY_MODE
@EVERY_PADDING
@CORNERS
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)]
)
def test_outputs_and_gradients_agree_with_torch(
    mode, padding_mode, align_corners, dtype, tolerance
):
    image, position = problem(dtype)
    grid = normalised(position, image.shape[2:], align_corners).to(dtype)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    results = []
    for sample in (functional.grid_sample, nn.functional.grid_sample):
        u, g = image.clone().requires_grad_(), grid.clone().requires_grad_()
        output = sample(u, g, **options)
        (
            output * torch.linspace(-1, 1, output.numel(), dtype=dtype).reshape(output.shape)
        ).sum().backward()
        results.append((output.detach(), u.grad, g.grad))
    for ours, torchs in zip(*results, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, torchs, rtol=0, atol=tolerance)


@EVERY_ENGINE
@CORNERS
def test_theta_learns_as_through_torch(align_corners):
    image = torch.rand(2, 1, 8, 9, dtype=torch.float64)
    start = torch.eye(2, 3, dtype=torch.float64) + 0.2 * torch.randn(
        2, 2, 3, dtype=torch.float64
    )
    gradients = []
    for library in (functional, nn.functional):
        theta = start.clone().requires_grad_()
        grid = library.affine_grid(theta, (2, 1, 6, 7), align_corners=align_corners)
        library.grid_sample(image, grid, align_corners=align_corners).square().sum().backward()
        gradients.append(theta.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("needs", [(True, False), (False, True), (True, True)])
def test_only_the_gradients_that_are_asked_for_are_computed(monkeypatch, needs):
    asked = []
    for i, name in ((0, "_Scatter"), (1, "position_gradient")):
        called = getattr(functional, name)
        called = called.apply if i == 0 else called

        def spy(*arguments, name=name, called=called):
            asked.append(name)
            return called(*arguments)

        if i == 0:
            monkeypatch.setattr(functional._Scatter, "apply", spy)
        else:
            monkeypatch.setattr(functional, name, spy)
    image, grid = torch.rand(1, 1, 4, 4), torch.rand(1, 2, 2, 2)
    image.requires_grad_(needs[0])
    grid.requires_grad_(needs[1])
    functional.grid_sample(image, grid, engine="reference").sum().backward()
    assert asked == [
        n for n, need in zip(("_Scatter", "position_gradient"), needs, strict=True) if need
    ]
    assert (image.grad is not None, grid.grad is not None) == needs


@EVERY_ENGINE
def test_a_float64_grid_keeps_its_precision_with_float32_images():
    image, grid = torch.rand(1, 1, 4, 4), torch.rand(1, 2, 2, 2, dtype=torch.float64)
    image.requires_grad_()
    grid.requires_grad_()
    output = functional.grid_sample(image, grid)
    output.sum().backward()
    assert (output.dtype, image.grad.dtype, grid.grad.dtype) == (
        torch.float32,
        torch.float32,
        torch.float64,
    )


@EVERY_ENGINE
@EVERY_MODE
@EVERY_PADDING
def test_second_derivatives(mode, padding_mode):
    image, position = problem()
    grid = normalised(position, (4, 5), align_corners=False)
    for tensor in (image, grid):
        tensor.requires_grad_()
    options = {"mode": mode, "padding_mode": padding_mode}
    assert torch.autograd.gradgradcheck(
        lambda *tensors: functional.grid_sample(*tensors, **options), (image, grid)
    )


def test_second_derivative_of_the_grid_generator():
    theta = torch.rand(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        lambda theta: functional.affine_grid(theta, (3, 4)).square(), theta
    )


@EVERY_ENGINE
def test_a_gradient_penalty_is_that_of_pytorch():
    image, position = problem()
    grid = normalised(position, (4, 5), align_corners=False)

    def penalised(sample):
        tensor = grid.clone().requires_grad_()
        total = sample(image, tensor, align_corners=False).sum()
        (first,) = torch.autograd.grad(total, tensor, create_graph=True)
        (total + first.square().sum()).backward()
        return tensor.grad

    ours, torchs = penalised(functional.grid_sample), penalised(nn.functional.grid_sample)
    torch.testing.assert_close(ours, torchs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: functional.affine_grid(np.zeros((1, 2, 3)), (2, 2)), "theta"),
        (
            lambda: functional.grid_sample(np.zeros((1, 1, 2, 2)), torch.zeros(1, 1, 1, 2)),
            "input",
        ),
        (
            lambda: functional.grid_sample(torch.zeros(1, 1, 2, 2), np.zeros((1, 1, 1, 2))),
            "grid",
        ),
    ],
)
def test_functions_refuse_arrays_that_are_not_tensors(call, name):
    with pytest.raises(TypeError, match=f"{name}: expected a PyTorch tensor, got ndarray"):
        call()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"mode": "cubic"},
            ValueError,
            "mode: expected one of nearest, bilinear, bicubic, .*, got 'cubic'",
        ),
        ({"padding_mode": "repeat"}, ValueError, "padding_mode: expected one of zeros, border"),
        (
            {"fill_value": 1.0},
            ValueError,
            "fill_value: expected padding_mode=\"fill\" beside it, got 'zeros'",
        ),
        ({"antialias": -1}, ValueError, "antialias: expected True, False or the longest"),
        (
            {"align_corners": "False"},
            ValueError,
            "align_corners: expected True or False, got 'Fal",
        ),
        (
            {"size": (0, 4)},
            ValueError,
            r"size: expected a height and a width of at least 1, got",
        ),
        ({"size": 28}, TypeError, "size: expected a height and a width, got 28"),
        (
            {"transform": "affine"},
            TypeError,
            r"transform: expected a family such as Affine\(\)",
        ),
    ],
)
def test_the_module_refuses_its_options_at_once(options, error, message):
    with pytest.raises(error, match=message):
        SpatialTransformer(localisation(), **options)


@pytest.mark.parametrize(
    "last",
    [
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 6)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 6)),
        lambda: nn.LazyLinear(6),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_a_last_layer_whose_weights_are_not_its_own_is_refused(last):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), last())
    with pytest.raises(
        ValueError, match="localisation: expected a plain last linear layer, got"
    ):
        SpatialTransformer(network)


@pytest.mark.parametrize(
    ("theta", "error", "message"),
    [
        (torch.zeros(3, 6), ValueError, "theta: expected a batch of 2, got 3"),
        (np.zeros((2, 6)), TypeError, "theta: expected a PyTorch tensor, got ndarray"),
        (torch.zeros(2, 5), ValueError, r"theta: expected shape \(N, 6\), got \(2, 5\)"),
    ],
)
def test_a_theta_that_does_not_fit_is_refused(theta, error, message):
    with pytest.raises(error, match=message):
        SpatialTransformer(localisation()).sample(torch.rand(2, 1, 8, 8), theta)


@EVERY_ENGINE
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_costs_theta_no_digits(dtype):
    transformer = SpatialTransformer(localisation())
    with torch.no_grad():
        transformer.localisation[-1].bias[2] = 0.3
    image = torch.rand(2, 1, 8, 8).to(dtype)
    expected = transformer(image.float())
    with torch.autocast("cpu", torch.bfloat16):
        output = transformer(image)
    torch.testing.assert_close(output, expected, rtol=0, atol=0)


def test_functions_refuse_what_the_reference_refuses():
    with pytest.raises(
        TypeError,
        match=r"input: expected float32 or float64, or float16 or bfloat16, got torch\.uint8",
    ):
        functional.grid_sample(
            torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, 2, 2, 2)
        )
    with pytest.raises(
        ValueError, match=r"mode: expected one of nearest, bilinear, bicubic, .*, got 'cubic'"
    ):
        functional.grid_sample(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 2, 2), mode="cubic")
    with pytest.raises(
        ValueError, match=r"theta: expected shape \(N, 2, 3\) or \(N, 3, 4\), got \(1, 6\)"
    ):
        functional.affine_grid(torch.zeros(1, 6), (2, 2))


# The module


@EVERY_ENGINE
@EVERY_MODE
@EVERY_PADDING
@pytest.mark.parametrize(
    ("align_corners", "size"), [(False, (8, 8)), (False, (4, 16)), (True, (9, 5))]
)
def test_starts_as_the_identity_exactly(mode, padding_mode, align_corners, size):
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    transformer = SpatialTransformer(localisation(size[0] * size[1]), **options)
    image = torch.rand(3, 1, *size)
    assert torch.equal(transformer(image), image)


@EVERY_ENGINE
@CORNERS
@pytest.mark.parametrize("size", [(4, 4), (5, 11), (16, 8)])
def test_starts_as_a_resampling_where_a_size_is_given(align_corners, size):
    transformer = SpatialTransformer(
        localisation(), size=size, padding_mode="border", align_corners=align_corners
    )
    image = torch.rand(3, 1, 8, 8)
    output = transformer(image)
    assert output.shape == (3, 1, *size)
    expected = nn.functional.interpolate(
        image, size, mode="bilinear", align_corners=align_corners
    )
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)


@EVERY_ENGINE
def test_regressed_theta_is_what_is_sampled():
    transformer = SpatialTransformer(localisation(), align_corners=True)
    theta = torch.tensor([0.5, 0.1, 0.2, -0.1, 0.6, -0.3])
    with torch.no_grad():
        transformer.localisation[-1].bias.copy_(theta)
    image = torch.rand(2, 1, 8, 8)
    grid = nn.functional.affine_grid(
        theta.reshape(1, 2, 3).expand(2, 2, 3), (2, 1, 8, 8), align_corners=True
    )
    expected = nn.functional.grid_sample(image, grid, align_corners=True)
    torch.testing.assert_close(transformer(image), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        transformer.sample(image, theta.expand(2, 6)), expected, rtol=0, atol=1e-6
    )


@EVERY_ENGINE
@CORNERS
def test_coordinates_keep_float64_on_wide_float32_images(align_corners):
    transformer = SpatialTransformer(nn.Linear(1, 6), align_corners=align_corners)
    image, theta = torch.rand(1, 1, 1, 4001), torch.tensor([[0.7, 0.0, 0.1, 0.0, 1.0, 0.0]])
    grid = nn.functional.affine_grid(
        theta.double().reshape(1, 2, 3), (1, 1, 2, 4001), align_corners=align_corners
    )
    grid[..., 1] = 0
    expected = nn.functional.grid_sample(image.double(), grid, align_corners=align_corners)[
        :, :, :1
    ]
    # A float32 coordinate would be off by 1e-4 of a pixel.
    torch.testing.assert_close(
        transformer.sample(image, theta).double(), expected, rtol=0, atol=1e-6
    )


@EVERY_ENGINE
def test_gradients_reach_the_localisation_network_and_the_input():
    transformer = SpatialTransformer(localisation())
    image = torch.rand(2, 1, 8, 8, requires_grad=True)
    transformer(image).square().sum().backward()
    last = transformer.localisation[-1]
    assert (last.weight.grad != 0).any()
    assert (last.bias.grad != 0).all()
    assert (image.grad != 0).all()


@EVERY_ENGINE
def test_layers_before_the_last_learn_after_one_step():
    transformer = SpatialTransformer(localisation())
    optimiser = torch.optim.SGD(transformer.parameters(), lr=1e-3)
    image = torch.rand(2, 1, 8, 8)
    for _ in range(2):
        optimiser.zero_grad()
        transformer(image).square().sum().backward()
        optimiser.step()
    assert (transformer.localisation[1].weight.grad != 0).any()


@EVERY_ENGINE
def test_drops_into_a_sequential():
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        SpatialTransformer(localisation(192)),
        nn.Flatten(),
        nn.Linear(192, 2),
    )
    network(torch.rand(4, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def trained():
    transformer = SpatialTransformer(localisation(), size=(4, 6), padding_mode="border")
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return transformer


@EVERY_ENGINE
@pytest.mark.parametrize(
    "duplicate",
    [
        copy.deepcopy,
        lambda module: pickle.loads(pickle.dumps(module)),
    ],
    ids=["deepcopy", "pickle"],
)
def test_copies_do_the_same_and_are_independent(duplicate):
    transformer, image = trained(), torch.rand(2, 1, 8, 8)
    output = transformer(image)
    twin = duplicate(transformer)
    assert torch.equal(twin(image), output)
    with torch.no_grad():
        twin.localisation[-1].bias.zero_()
    assert torch.equal(transformer(image), output)
    assert not torch.equal(twin(image), output)


def test_state_dict_round_trip():
    transformer, image = trained(), torch.rand(2, 1, 8, 8)
    fresh = SpatialTransformer(localisation(), size=(4, 6), padding_mode="border")
    fresh.load_state_dict(transformer.state_dict())
    assert torch.equal(fresh(image), transformer(image))


def test_float64_module_works_in_float64():
    transformer = trained().double()
    output = transformer(torch.rand(2, 1, 8, 8, dtype=torch.float64))
    assert output.dtype == torch.float64


def test_printed_module_shows_its_options():
    transformer = SpatialTransformer(localisation(), size=(4, 4), padding_mode="border")
    line = "transform=Affine(), size=(4, 4), mode='bilinear', padding_mode='border', align_corners=False"
    assert line in repr(transformer)


def test_initialise_identity_sets_the_last_linear_layer_alone():
    network = localisation()
    before = copy.deepcopy(network)
    initialise_identity(network, Affine())
    assert torch.equal(network[1].weight, before[1].weight)
    assert not network[3].weight.any()
    assert network[3].bias.tolist() == [1, 0, 0, 0, 1, 0]
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            nn.Flatten(),
            "localisation: expected a last linear layer with 6 outputs and a bias, as Affine() needs, "
            "got no linear layer",
        ),
        (
            localisation(outputs=5),
            "expected a last linear layer with 6 outputs and a bias, as Affine() needs, got Linear",
        ),
        (nn.Linear(4, 6, bias=False), "got Linear(in_features=4, out_features=6, bias=False)"),
    ],
)
def test_localisation_networks_that_do_not_fit_are_refused(network, message):
    for call in (SpatialTransformer, lambda net: initialise_identity(net, Affine())):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 the sentence is compared
            call(network)
        assert message in str(caught.value)


def test_a_localisation_that_is_no_module_is_refused():
    with pytest.raises(
        TypeError, match=r"localisation: expected a torch.nn.Module, got function"
    ):
        SpatialTransformer(lambda image: image)


# The engine behind them


@EVERY_ENGINE
def test_second_derivatives_where_theta_depends_on_the_image_are_pytorchs():
    image = torch.rand(2, 1, 6, 7, dtype=torch.float64, requires_grad=True)
    weight = (0.01 * torch.randn(42, 6, dtype=torch.float64)).requires_grad_()
    identity = torch.eye(2, 3, dtype=torch.float64)

    def penalised(library):
        theta = identity + (image.flatten(1) @ weight).reshape(2, 2, 3)
        if library is functional:
            output = functional.affine_sample(image, theta, (5, 6))
        else:
            grid = nn.functional.affine_grid(theta, (2, 1, 5, 6), align_corners=False)
            output = nn.functional.grid_sample(image, grid, align_corners=False)
        total = output.square().sum()
        first = torch.autograd.grad(total, (image, weight), create_graph=True)
        penalty = total + sum(g.square().sum() for g in first)
        return (*first, *torch.autograd.grad(penalty, (image, weight)))

    for ours, torchs in zip(penalised(functional), penalised(nn.functional), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-10, atol=1e-10)


def losses(steps=200, batch=32):
    """Train a small ST-CNN on digits; return its loss in each step, and how much theta then varies."""
    torch.manual_seed(0)
    images, labels = mnist.load("train")
    images = torch.from_numpy(mnist.to_input(images[: steps * batch]))
    labels = torch.from_numpy(labels[: steps * batch].astype(np.int64))
    locate = nn.Sequential(nn.AvgPool2d(4), *localisation(pixels=49))
    transformer = SpatialTransformer(locate, size=(14, 14))
    classifier = nn.Sequential(
        *(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(200, 10)),
    )
    # The localisation network learns more slowly: else training is chaotic, and what rounds differently drifts apart.
    groups = [
        {"params": transformer.parameters(), "lr": 2e-3},
        {"params": classifier.parameters()},
    ]
    optimiser = torch.optim.SGD(groups, lr=2e-2, momentum=0.9)
    found = []
    for chosen in torch.arange(steps * batch).split(batch):
        loss = nn.functional.cross_entropy(
            classifier(transformer(images[chosen])), labels[chosen]
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    return np.array(found), locate(images[:batch]).detach().std(0).max().item()


@pytest.mark.parametrize("engine", ["cpu", "emulator"], indirect=True)
def test_training_by_an_engine_follows_the_references_loss_curve(engine, served):
    found, varied = losses()
    assert served == [(engine, "sample"), (engine, "sample_vjp")] * 200
    with engines.use("reference"):
        expected, _ = losses()
    assert len(served) == 400
    assert found[-20:].mean() < 0.5 * found[:20].mean()  # it learns,
    assert varied > 0.005  # and to look,
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)  # as the reference does


@pytest.mark.parametrize("engine", ["cpu", "emulator"], indirect=True)
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))]
)
def test_a_copy_of_what_has_learnt_learns_on_with_the_same_engine(engine, duplicate, served):
    image, module = torch.rand(2, 1, 8, 8), trained()
    module(image).sum().backward()
    twin = duplicate(module)
    results = []
    for each in (module, twin):
        each.zero_grad()
        output = each(image)
        output.square().sum().backward()
        results.append((output, *(p.grad for p in each.parameters())))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert served == [(engine, "sample"), (engine, "sample_vjp")] * 3


# The paper's models


@pytest.mark.parametrize("network", [FCN, STFCN])
def test_the_papers_budget_is_met_within_one_per_cent(network):
    assert 0.99 * 400_000 < count_parameters(network()) <= 400_000


@pytest.mark.parametrize("network", [FCN, STFCN])
@pytest.mark.parametrize("parameters", [61_000, 150_000, 399_999, 1_000_000])
def test_budgets_are_never_exceeded_and_do_not_pay_for_one_more_unit(network, parameters):
    model = network(parameters=parameters)
    classifier = model if network is FCN else model.classifier
    hidden = classifier.layers[1]
    one_more_unit = hidden.in_features + 1 + 2 * hidden.out_features + 2 + 10
    assert count_parameters(model) <= parameters < count_parameters(model) + one_more_unit


@pytest.mark.parametrize("network", [FCN, STFCN])
@pytest.mark.parametrize("size", [(42, 42), (28, 40)])
def test_models_give_ten_logits_an_image(network, size):
    assert network(size=size)(torch.rand(5, 1, *size)).shape == (5, 10)


def test_the_two_models_have_the_same_budget():
    assert count_parameters(FCN()) == pytest.approx(count_parameters(STFCN()), rel=0.005)


def test_stfcn_starts_as_an_fcn_on_pooled_images():
    network, image = STFCN(), torch.rand(2, 1, 42, 42)
    expected = network.classifier(nn.functional.avg_pool2d(image, 2))
    torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-5)


def test_stfcn_takes_a_family_of_transforms():
    family = Affine()
    assert STFCN(transform=family).transformer.transform is family


@pytest.mark.parametrize("network", [FCN, STFCN])
@pytest.mark.parametrize("parameters", [0, 5, 500])
def test_a_budget_too_small_is_refused(network, parameters):
    with pytest.raises(
        ValueError, match=f"parameters: {parameters} do not pay for one hidden unit a layer"
    ):
        network(parameters=parameters)


def test_the_smallest_budget_pays_for_one_unit():
    smallest = 1764 + 1 + 2 + 20
    assert count_parameters(FCN(parameters=smallest)) == smallest
    with pytest.raises(ValueError, match="do not pay"):
        FCN(parameters=smallest - 1)


def test_count_parameters_leaves_out_the_frozen():
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == 6


# What is imported, and what is said where it is missing


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("module", "extra"),
    [("stnlib.nn", "torch"), ("stnlib.training", "torch"), ("stnlib.experiments.rts", "train")],
)
def test_a_missing_torch_is_one_sentence_that_names_the_extra(module, extra):
    run = python(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing)\n"
        f"import {module}\n"
    )
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert (
        last
        == f'ModuleNotFoundError: {module} needs torch, which is not installed: pip install "stnlib[{extra}]"'
    )
    assert "During handling" not in run.stderr


def test_a_blocked_torch_is_named_too():
    run = python("import sys; sys.modules['torch'] = None; import stnlib.nn")
    assert (
        run.stderr.strip()
        .splitlines()[-1]
        .endswith('stnlib.nn needs torch, which is not installed: pip install "stnlib[torch]"')
    )


def test_a_package_that_lacks_something_itself_says_so(monkeypatch, tmp_path):
    (tmp_path / "half_installed.py").write_text("import something_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'something_it_needs'$"):
        require("half_installed", "torch", "stnlib.nn")


def test_require_names_package_extra_and_user():
    with pytest.raises(
        ModuleNotFoundError,
        match=r'^the map needs no_such_package\.part, .*: pip install "stnlib\[maps\]"$',
    ):
        require("no_such_package.part", "maps", "the map")


def test_require_returns_the_module():
    assert require("numpy", "torch", "stnlib") is np


def test_stnlib_alone_imports_numpy_alone():
    optional = ["torch", "numba", "cupy", "matplotlib", "scipy", "skimage", "rich", "pooch"]
    run = python(
        f"import sys, stnlib, stnlib.data; print([m for m in {optional} if m in sys.modules])"
    )
    assert run.stdout.strip() == "[]", run.stderr


def test_parts_that_need_more_than_numpy_come_when_they_are_asked_for():
    assert stnlib.nn.SpatialTransformer is SpatialTransformer
    assert {"nn", "data", "training", "plotting", "affine_grid"} <= set(dir(stnlib))
    with pytest.raises(AttributeError, match="module 'stnlib' has no attribute 'nothing'"):
        _ = stnlib.nothing


@pytest.mark.parametrize(
    ("network", "size", "error", "message"),
    [
        (FCN, 28, TypeError, "size: expected a height and a width, got 28"),
        (FCN, (0, 4), ValueError, "size: expected a height and a width of at least 1"),
        (
            STFCN,
            (1, 1),
            ValueError,
            "size, pooled by two,: expected a height and a width of at",
        ),
    ],
)
def test_networks_refuse_sizes(network, size, error, message):
    with pytest.raises(error, match=message):
        network(size)
