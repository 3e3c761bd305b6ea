"""What is exported to ONNX, and that ONNX Runtime then computes what we do."""

import copy
import itertools

import pytest
import torch
from torch import nn

from stnlib import transforms
from stnlib.interpolation import KERNELS, Bicubic
from stnlib.nn import SpatialTransformer, functional

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

# The exporter's own, not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxscript.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:onnx_ir.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.onnx.*"),
]

MODES = ["nearest", "bilinear", "bicubic"]
PADDINGS = ["zeros", "border", "reflection"]
corners = pytest.mark.parametrize("align_corners", [False, True])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Two(nn.Module):
    """Grid generator, then sampler."""

    def __init__(self, size, **options):
        super().__init__()
        self.size, self.options = size, options

    def forward(self, image, theta):
        align_corners = self.options.get("align_corners", False)
        grid = functional.affine_grid(theta, self.size, align_corners=align_corners)
        return functional.grid_sample(image, grid, **self.options)


class Fused(Two):
    def forward(self, image, theta):
        return functional.affine_sample(image, theta, self.size, **self.options)


def problem(dimensions, align_corners=False):
    """Images and thetas that leave them; no sample lies near halfway between pixels, where a rounding decides."""
    size, out = (4, 6, 5)[-dimensions:], (3, 4, 5)[-dimensions:]
    image = torch.randn(2, 3, *size)
    for _ in range(10_000):
        theta = torch.eye(dimensions, dimensions + 1) * 1.2
        theta = (theta + 0.2 * torch.randn(2, dimensions, dimensions + 1)).float()
        grid = functional.affine_grid(theta.double(), out, align_corners=align_corners)
        length = torch.tensor(size[::-1]) - int(align_corners)
        position = grid * length / 2 + (torch.tensor(size[::-1]) - 1) / 2
        if (position - torch.floor(position) - 0.5).abs().min() > 1e-4:
            return image, theta, out
    raise AssertionError("no such theta")


class Several(nn.Module):
    """One export, which costs a second, for many samplers."""

    def __init__(self, modules):
        super().__init__()
        self.several = nn.ModuleList(modules)

    def forward(self, image, theta):
        return tuple(module(image, theta) for module in self.several)


def exported(module, *inputs):
    return torch.onnx.export(
        module.eval(), inputs, dynamo=True, opset_version=20, verbose=False
    ).model_proto


def run(model, *inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [given.name for given in session.get_inputs()]
    given = dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True))
    return [torch.as_tensor(output) for output in session.run(None, given)]


def assert_same(module, *inputs):
    model = exported(module, *inputs)
    with torch.no_grad():
        expected = module(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert [node.op_type for node in model.graph.node].count("GridSample") == len(expected)
    assert {opset.version for opset in model.opset_import if not opset.domain} == {20}
    for actual, wanted in zip(run(model, *inputs), expected, strict=True):
        assert wanted.abs().max() > 0.1
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
@corners
@pytest.mark.parametrize("module", [Two, Fused])
def test_onnx_runtime_computes_the_same(module, dimensions, align_corners):
    image, theta, out = problem(dimensions, align_corners)
    modes = MODES if dimensions == 2 else MODES[:2]
    several = Several(
        module(out, mode=mode, padding_mode=padding_mode, align_corners=align_corners)
        for mode, padding_mode in itertools.product(modes, PADDINGS)
    )
    assert_same(several, image, theta)


@pytest.mark.parametrize("mode", MODES)
@corners
def test_a_spatial_transformer_is_exported_whole(mode, align_corners):
    image, theta, out = problem(2, align_corners)
    localisation = nn.Sequential(nn.Flatten(), nn.Linear(image[0].numel(), 6))
    module = SpatialTransformer(
        localisation, transforms.Affine(), out, mode=mode, align_corners=align_corners
    )
    with torch.no_grad():
        localisation[1].weight.normal_(std=1e-3)
        localisation[1].bias.copy_(theta[0].flatten())
    assert_same(module, image)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_bounds_downsampling_and_theta_are_exported_too(dimensions):
    image, theta, _ = problem(dimensions)
    network = nn.Sequential(nn.Flatten(), nn.Linear(image[0].numel(), theta[0].numel()))
    family = transforms.Affine(dimensions=dimensions)
    options = {"bounds": 0.3, "initial": theta[0].flatten(), "downsample": 2}
    module = SpatialTransformer(network, family, padding_mode="border", **options).eval()
    with torch.no_grad():
        network[1].weight.normal_(std=0.1)
        expected = module(image, return_theta=True)
    model = exported(module, image, True)
    assert [node.op_type for node in model.graph.node].count("GridSample") == 1
    for actual, wanted in zip(run(model, image), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5)
    assert (expected[1] - theta[0].flatten()).abs().max() > 0.1


def test_a_kernel_that_equals_a_named_one_is_exported_too():
    image, theta, out = problem(2)
    assert_same(Two(out, mode=Bicubic(a=-0.75)), image, theta)
    assert_same(copy.deepcopy(Two(out, mode=KERNELS["bilinear"])), image, theta)


REFUSED = [
    ("mode", 2, {"mode": "bspline3"}),
    ("mode", 2, {"mode": "lanczos"}),
    ("mode", 2, {"mode": "gaussian"}),
    ("mode", 2, {"mode": Bicubic(a=-0.5)}),
    ("mode", 3, {"mode": "bicubic"}),
    ("padding_mode", 2, {"padding_mode": "wrap"}),
    ("padding_mode", 2, {"padding_mode": "mirror"}),
    ("padding_mode", 2, {"padding_mode": "fill", "fill_value": 0.5}),
    ("coordinates", 2, {"coordinates": "pixel"}),
    ("antialias", 2, {"antialias": 2.0}),
    ("antialias", 2, {"antialias": True}),
]


@pytest.mark.parametrize(("name", "dimensions", "options"), REFUSED)
def test_what_onnx_cannot_express_is_refused_in_one_sentence(name, dimensions, options):
    image, theta, out = problem(dimensions)
    with pytest.raises(Exception, match=f"{name}: ONNX's GridSample cannot express") as caught:
        exported(Fused(out, **options), image, theta)
    error = caught.value
    while error is not None and not isinstance(error, ValueError):
        error = error.__cause__ or error.__context__
    assert isinstance(error, ValueError)
    assert str(error).startswith(f"{name}: ")
    assert "\n" not in str(error)
    assert "object at 0x" not in str(error)


def test_an_export_leaves_eager_mode_as_it_was():
    image, theta, out = problem(2)
    module = Fused(out, mode="lanczos", padding_mode="wrap")
    expected = module(image, theta)
    with pytest.raises(Exception, match="cannot express"):
        exported(module, image, theta)
    assert torch.equal(module(image, theta), expected)
