"""Every family in a spatial transformer: it starts as the identity, learns, is saved, compiled and exported."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from stnlib import engines
from stnlib.nn import LearnedBasis, SpatialTransformer, functional, total_matrix
from stnlib.nn.models import STFCN
from stnlib.transforms import (
    Affine,
    Attention,
    BSpline,
    Composition,
    DenseFlow,
    ExponentialAffine,
    Family,
    FourCorners,
    PiecewiseAffine,
    PiecewiseAffineVelocity,
    Projective,
    Rigid,
    Similarity,
    StationaryVelocity,
    ThinPlateSpline,
    Translation,
    compose,
)

SCATTERED = np.random.default_rng(7).uniform(-1, 1, (9, 2))
SIZE = (8, 10)


class Lens(Family):
    """What the book promises: a family of one's own in ten lines."""

    num_parameters = 1

    def identity(self):
        return np.zeros(1)

    def apply(self, theta, points):
        xp = self.check(theta, points)
        return points * (1 + theta[:, :, None] * xp.sum(points * points, axis=-1)[..., None])


FAMILIES = {
    "translation": Translation,
    "attention1": lambda: Attention(1),
    "attention2": lambda: Attention(2),
    "rigid": Rigid,
    "similarity": Similarity,
    "similarity-log": lambda: Similarity(log=True),
    "affine": Affine,
    "table": lambda: Affine([["a", "-b", "tx"], ["b", "a", "ty"]]),
    "only": lambda: Affine.only(
        scales=True, log=True, shear=True, rotation=True, translation=True
    ),
    "exponential": ExponentialAffine,
    "projective": Projective,
    "corners": FourCorners,
    "tps": ThinPlateSpline,
    "tps-points": lambda: ThinPlateSpline(points=SCATTERED),
    "tps-regularised": lambda: ThinPlateSpline(3, 3, regularisation=0.1),
    "piecewise": PiecewiseAffine,
    "piecewise-points": lambda: PiecewiseAffine(points=SCATTERED),
    "bspline": lambda: BSpline(5, 6),
    "flow": lambda: DenseFlow(SIZE),
    "flow-small": lambda: DenseFlow((3, 4)),
    "velocity": lambda: StationaryVelocity(4, 4, squarings=2, resolution=7),
    "piecewise-velocity": lambda: PiecewiseAffineVelocity(3, 3, steps=2),
    "composition": lambda: Composition(Similarity(), ThinPlateSpline(3, 3)),
    "learned": lambda: LearnedBasis(ThinPlateSpline(3, 3), SIZE),
    "own": Lens,
    "affine3": lambda: Affine(dimensions=3),
    "rigid3": lambda: Rigid(dimensions=3),
    "rigid3-quaternion": lambda: Rigid(dimensions=3, rotation="quaternion"),
    "similarity3": lambda: Similarity(dimensions=3),
    "exponential3": lambda: ExponentialAffine(dimensions=3),
    "flow3": lambda: DenseFlow((2, 3, 2)),
}
every_family = pytest.mark.parametrize("name", FAMILIES)
CORNERS = pytest.mark.parametrize("align_corners", [False, True])


@pytest.fixture(autouse=True)
def _seeded_and_served_by_the_reference():
    """Leave the engines' compilers out: to them a family's grid is one like all others."""
    torch.manual_seed(0)
    with engines.use("reference"):
        yield


def images(family, batch=3):
    """Return smooth random images, or volumes."""
    small = torch.rand(batch, 2, *(4,) * family.dimensions)
    mode = "bilinear" if family.dimensions == 2 else "trilinear"
    size = SIZE if family.dimensions == 2 else (4, 5, 6)
    return nn.functional.interpolate(small, size, mode=mode, align_corners=True)


def transformer(family, **options):
    pixels = 2 * (80 if family.dimensions == 2 else 120)
    options = {"padding_mode": "border"} | options
    return SpatialTransformer(
        nn.Sequential(nn.Flatten(), nn.Linear(pixels, family.num_parameters)), family, **options
    )


def moved(module, spread=0.05):
    """Return the module, with a theta that is not the identity's and depends on the image."""
    with torch.no_grad():
        module.localisation[1].bias.add_(spread * torch.randn_like(module.localisation[1].bias))
        module.localisation[1].weight.normal_(std=1e-3)
    return module


@every_family
@CORNERS
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
def test_at_the_start_the_output_is_the_input(name, align_corners, padding_mode):
    family = FAMILIES[name]()
    if name == "learned":
        family = LearnedBasis(ThinPlateSpline(3, 3), SIZE, align_corners=align_corners)
    module = transformer(family, padding_mode=padding_mode, align_corners=align_corners)
    image = images(family)
    # theta is the network's, float32: of a pixel, some 1e-7.
    torch.testing.assert_close(module(image), image, rtol=0, atol=2e-6)


@every_family
def test_a_few_steps_lower_the_loss(name):
    family = FAMILIES[name]()
    image = images(family)
    with torch.no_grad():
        teacher = moved(transformer(copy.deepcopy(family)), 0.1)
        target = teacher(image)
    module = transformer(family)
    losses, optimiser = [], None
    for _ in range(8):
        loss = (module(image) - target).square().mean()
        losses.append(loss.item())
        module.zero_grad()
        loss.backward()
        if (
            optimiser is None
        ):  # as long a step as the slope says, for whatever a family's units are
            slope = sum(p.grad.square().sum().item() for p in module.parameters())
            optimiser = torch.optim.SGD(module.parameters(), lr=0.3 * losses[0] / slope)
        optimiser.step()
    assert losses[0] > 1e-5
    assert losses[-1] < 0.9 * losses[0]
    assert losses[1] < losses[0]


@every_family
def test_gradients_reach_theta_and_the_image(name):
    family = FAMILIES[name]()
    module, image = moved(transformer(family)), images(family).requires_grad_()
    module(image).square().sum().backward()
    assert (module.localisation[1].bias.grad != 0).any()
    assert torch.isfinite(module.localisation[1].weight.grad).all()
    assert (image.grad != 0).any()


@every_family
def test_state_dict_round_trip(name):
    module = moved(transformer(FAMILIES[name]()))
    image = images(module.transform)
    fresh = transformer(FAMILIES[name]())
    assert not torch.equal(fresh(image), module(image))
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(image), module(image))


@every_family
@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_do_the_same_after_they_have_worked(name, again):
    module = moved(transformer(FAMILIES[name]()))
    image = images(module.transform)
    expected = module(image)
    assert torch.equal(again(module)(image), expected)


@every_family
def test_the_output_has_the_size_that_is_asked_for(name):
    family = FAMILIES[name]()
    size = (5, 7, 3)[-family.dimensions :]
    if name == "learned":
        with pytest.raises(
            ValueError, match=r"^size: expected \(8, 10\), as the basis was made"
        ):
            transformer(family, size=size)(images(family))
        return
    assert transformer(family, size=size)(images(family)).shape == (3, 2, *size)


@every_family
def test_a_float64_module_works_in_float64(name):
    module = moved(transformer(FAMILIES[name]()))
    image = images(module.transform)
    output = copy.deepcopy(module).double()(image.double())
    assert output.dtype == torch.float64
    torch.testing.assert_close(module(image).double(), output, rtol=0, atol=2e-5)


@every_family
def test_an_empty_batch_gives_an_empty_batch(name):
    module = transformer(FAMILIES[name]())
    image = images(module.transform)
    assert module(image[:0]).shape == (0, *image.shape[1:])


@every_family
def test_a_module_that_has_inferred_can_still_learn(name):
    module = transformer(FAMILIES[name]())
    image = images(module.transform)
    with torch.inference_mode():
        module(image)
    module(image).sum().backward()
    assert module.localisation[1].bias.grad is not None


@every_family
def test_the_module_samples_where_the_familys_grid_is(name):
    module = moved(transformer(FAMILIES[name](), align_corners=True), 0.1)
    image = images(module.transform)
    theta = module.localisation(image)
    grid = module.transform.grid(theta.double(), tuple(image.shape[2:]), align_corners=True)
    expected = functional.grid_sample(image, grid, padding_mode="border", align_corners=True)
    torch.testing.assert_close(module(image), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["tps", "projective", "velocity", "learned"])
def test_under_autocast_theta_loses_no_digits(name):
    module = moved(transformer(FAMILIES[name]()))
    image = images(module.transform)
    expected = module(image)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(image)
    torch.testing.assert_close(output, expected, rtol=0, atol=0)


def test_a_printed_module_names_its_family():
    assert "transform=ThinPlateSpline(4, 4), size=None" in repr(transformer(ThinPlateSpline()))


@pytest.mark.parametrize("transform", [ThinPlateSpline(), Projective(), Attention(1)])
def test_the_papers_network_takes_every_family(transform):
    network = STFCN(size=(12, 12), parameters=50_000, transform=transform)
    image = torch.rand(2, 1, 12, 12)
    expected = network.classifier(nn.functional.avg_pool2d(image, 2))
    torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-5)


def test_a_localisation_network_of_another_family_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    with pytest.raises(
        ValueError, match=r"with 32 outputs and a bias, as ThinPlateSpline\(4, 4\)"
    ):
        SpatialTransformer(network, ThinPlateSpline())


@pytest.mark.parametrize("transform", [Rigid(dimensions=3), DenseFlow((2, 2, 2))], ids=str)
def test_a_family_of_space_is_refused_for_images(transform):
    module = transformer(transform)
    module.localisation = nn.Sequential(nn.Flatten(), nn.Linear(160, transform.num_parameters))
    with pytest.raises(ValueError, match=r"expected"):
        module(torch.rand(3, 2, *SIZE))


# A basis that is learned


def test_a_learned_basis_starts_as_its_family():
    start = BSpline(4, 5)
    family = LearnedBasis(start, (6, 7), align_corners=True)
    theta = torch.as_tensor(start.identity() + 0.1 * np.random.default_rng(0).normal(size=40))
    theta = theta[None]
    expected = start.grid(theta, (6, 7), align_corners=True)
    torch.testing.assert_close(family.grid(theta, (6, 7)).double(), expected, rtol=0, atol=1e-6)
    assert family.B.shape == (20, 42)
    assert family.num_parameters == 40


def test_a_learned_basis_is_trained_along_and_saved():
    module, image = transformer(FAMILIES["learned"]()), images(Affine())
    before = module.transform.B.detach().clone()
    target = image.flip(-1)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        (module(image) - target).square().mean().backward()
        optimiser.step()
    assert not torch.equal(module.transform.B, before)
    assert torch.equal(module.state_dict()["transform.B"], module.transform.B)
    assert dict(module.named_parameters()).keys() >= {"transform.B", "localisation.1.bias"}


def test_gradients_of_a_learned_basis_by_finite_differences():
    family = LearnedBasis(ThinPlateSpline(2, 2), (2, 3)).double()
    theta = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)

    def grid(theta, basis):
        return torch.func.functional_call(_Grid(family), {"family.B": basis}, (theta,))

    assert torch.autograd.gradcheck(grid, (theta, family.B.detach().requires_grad_()))


class _Grid(nn.Module):
    def __init__(self, family):
        super().__init__()
        self.family = family

    def forward(self, theta):
        return self.family.grid(theta, self.family.size)


def test_a_learned_basis_beats_one_that_is_fixed():
    image = images(Affine())
    with torch.no_grad():
        target = moved(transformer(DenseFlow(SIZE)), 0.1)(image)
    losses = []
    for family in (ThinPlateSpline(3, 3), LearnedBasis(ThinPlateSpline(3, 3), SIZE)):
        module = transformer(family)
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
        for _ in range(150):
            optimiser.zero_grad()
            loss = (module(image) - target).square().mean()
            loss.backward()
            optimiser.step()
        losses.append(loss.item())
    assert losses[1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: LearnedBasis(Affine(), SIZE),
            TypeError,
            r"^start: expected a family with a basis such as ThinPlateSpline\(4, 4\), got Affine",
        ),
        (
            lambda: LearnedBasis(ThinPlateSpline(), (0, 4)),
            ValueError,
            "^size: expected a height and a width of at least 1",
        ),
        (
            lambda: LearnedBasis(ThinPlateSpline(), SIZE).grid(torch.zeros(2, 31), SIZE),
            ValueError,
            r"^theta: expected shape \(N, 32\), got \(2, 31\)",
        ),
    ],
)
def test_a_learned_basis_refuses_what_does_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("place", [0, 1])
def test_a_learned_basis_in_a_composition_is_refused_in_words(place):
    # Its apply is nn.Module's, and no network would find its parameter there.
    families = [Similarity(), Similarity()]
    families[place] = FAMILIES["learned"]()
    with pytest.raises(TypeError, match=rf"^families\[{place}\]: expected "):
        Composition(*families)


# Several transformers, one after the other


def series(*thetas, family=None):
    family = Affine() if family is None else family
    modules = [transformer(family, padding_mode="border") for _ in thetas]
    with torch.no_grad():
        for module, theta in zip(modules, thetas, strict=True):
            module.localisation[1].bias.copy_(torch.as_tensor(theta))
    return nn.Sequential(*modules)


TURN = [0.9, -0.3, 0.1, 0.3, 0.9, -0.05]
STRETCH = [0.7, 0.0, 0.2, 0.0, 0.95, 0.1]


def test_the_total_matrix_is_the_product():
    network, image = series(TURN, STRETCH, TURN), images(Affine())
    a, b = (
        torch.tensor(theta, dtype=torch.float32).double().reshape(1, 2, 3)
        for theta in (TURN, STRETCH)
    )
    expected = compose(a, b, a).expand(3, 2, 3)
    total = total_matrix(network, image)
    assert total.dtype == torch.float64
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-15)


def test_the_total_matrix_of_images_is_each_images_own():
    network, image = series(TURN, STRETCH), images(Affine())
    for module in network:
        moved(module)
    total = total_matrix(network, image)
    first = network[0].localisation(image).double().reshape(3, 2, 3)
    second = network[1].localisation(network[0](image)).double().reshape(3, 2, 3)
    torch.testing.assert_close(total, compose(first, second), rtol=0, atol=1e-14)
    assert (total[0] != total[1]).any()


@pytest.mark.parametrize("between", [nn.Identity(), nn.AvgPool2d(3, 1, 1), nn.ReLU()])
def test_sampling_once_by_the_total_matrix_is_sampling_twice(between):
    x, y = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 64))
    image = torch.tensor(np.sin(2 * x + 3 * y) + 2, dtype=torch.float32)[None, None]
    modules, matrices = [], []
    for theta in (TURN, STRETCH):
        network = nn.Sequential(nn.Flatten(), nn.Linear(4096, 6))
        modules.append(SpatialTransformer(network, padding_mode="border"))
        theta = 0.6 * torch.tensor(theta)
        matrices.append(theta.reshape(1, 2, 3))
        with torch.no_grad():
            network[1].bias.copy_(theta)
    network = nn.Sequential(modules[0], between, modules[1])
    once = functional.affine_sample(image, total_matrix(network, image), (64, 64))
    torch.testing.assert_close(network(image), once, rtol=0, atol=0.005)
    turned_round = functional.affine_sample(image, compose(*matrices[::-1]), (64, 64))
    assert (turned_round - once).abs().max() > 0.05


def test_one_transformer_used_twice_counts_twice():
    (module,) = series(TURN)
    total = total_matrix(nn.Sequential(module, module), images(Affine()))
    matrix = module.transform.matrix(module.localisation[1].bias.detach()[None].double())
    torch.testing.assert_close(total[:1], compose(matrix, matrix), rtol=0, atol=1e-15)


def test_transformers_that_share_a_localisation_network_count_once_each():
    (module,) = series(TURN)
    twin = SpatialTransformer(module.localisation, Affine(), padding_mode="border")
    with torch.no_grad():
        module.localisation[1].bias.copy_(torch.tensor(TURN))
    total = total_matrix(nn.Sequential(module, twin), images(Affine()))
    matrix = module.transform.matrix(module.localisation[1].bias.detach()[None].double())
    torch.testing.assert_close(total[:1], compose(matrix, matrix), rtol=0, atol=1e-15)


def test_the_total_matrix_of_mixed_matrix_families():
    network = nn.Sequential(
        *(
            moved(transformer(family), 0.2)
            for family in (Similarity(), Attention(1), ExponentialAffine())
        )
    )
    image, matrices = images(Affine()), []
    seen = image
    for module in network:
        matrices.append(module.transform.matrix(module.localisation(seen).double()))
        seen = module(seen)
    torch.testing.assert_close(
        total_matrix(network, image), compose(*matrices), rtol=0, atol=1e-14
    )


def test_the_total_matrix_in_space():
    module = moved(transformer(Rigid(dimensions=3)))
    volume = images(module.transform)
    expected = module.transform.matrix(module.localisation(volume).double())
    torch.testing.assert_close(total_matrix(module, volume), expected, rtol=0, atol=0)


def test_the_total_matrix_leaves_the_network_as_it_was():
    network, image = series(TURN, STRETCH), images(Affine())
    total_matrix(network, image)
    assert not any(module._forward_hooks for module in network.modules())
    broken = nn.Sequential(network[0], nn.Flatten(), network[1])
    with pytest.raises((ValueError, RuntimeError)):
        total_matrix(broken, image)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (
            nn.Conv2d(2, 2, 1),
            ValueError,
            "^network: expected one that uses spatial transformers, got",
        ),
        (
            nn.Sequential(transformer(ThinPlateSpline(2, 2))),
            TypeError,
            r"^network: expected transformers of matrices, got one of ThinPlateSpline\(2, 2\)$",
        ),
    ],
)
def test_networks_without_matrices_are_refused(network, error, message):
    with pytest.raises(error, match=message):
        total_matrix(network, images(Affine()))
    assert not any(module._forward_hooks for module in network.modules())


# Compiled, and exported


@pytest.fixture
def _fresh():
    """Forget what was compiled before and after, so that one test's graphs do not guard another's."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("name", ["similarity", "tps", "flow-small", "velocity"])
def test_compiled_outputs_and_gradients_are_the_eager_ones(name):
    module = moved(transformer(FAMILIES[name]()))
    image, results = images(module.transform), []
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager")
    for each in (module, compiled):
        output = each(image)
        output.square().sum().backward()
        results.append((output, *(p.grad for p in each.parameters())))
    for eager, graph in zip(*results, strict=True):
        torch.testing.assert_close(graph, eager, rtol=1e-5, atol=1e-5)


EXPORTED = [
    "only",
    "exponential",
    "projective",
    "corners",
    "tps",
    "piecewise-points",
    "bspline",
    "flow-small",
    "velocity",
    "piecewise-velocity",
    "composition",
    "learned",
    "rigid3-quaternion",
]


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxscript.*")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:onnx_ir.*")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.onnx.*")
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")  # 1e300
def test_onnx_runtime_computes_the_same(name):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    module = moved(transformer(FAMILIES[name]())).eval()
    image = images(module.transform)
    model = torch.onnx.export(
        module, (image,), dynamo=True, opset_version=20, verbose=False
    ).model_proto
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    (output,) = session.run(None, {given.name: image.numpy()})
    expected = module(image)
    assert (expected - image).abs().max() > 1e-3
    torch.testing.assert_close(torch.as_tensor(output), expected.detach(), rtol=0, atol=1e-5)
    expected.sum().backward()  # an export leaves nothing behind that does not learn
