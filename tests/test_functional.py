"""The PyTorch functions under each of PyTorch's transforms: what they return, and that none returns a wrong number."""

import copy
import itertools
import math
import pickle
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import stnlib
from stnlib import transforms
from stnlib.interpolation import KERNELS, Bicubic, Kernel
from stnlib.nn import SpatialTransformer, functional, operators

# Forward mode loads PyTorch's own decompositions, which are scripted.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.* is :DeprecationWarning")

PADDINGS = ["zeros", "border", "reflection", "wrap", "mirror", "fill"]


class Cosine(Kernel):
    """A kernel of a user's own, whose second derivative jumps at every whole pixel."""

    support = 1

    def value(self, d, xp):
        return (1 + xp.cos(xp.pi * d)) / 2

    def derivative(self, d, xp):
        return -xp.pi / 2 * xp.sin(xp.pi * d)

    def second_derivative(self, d, xp):
        return -(xp.pi**2) / 2 * xp.cos(xp.pi * d)


EVERY_KERNEL = {**KERNELS, "keys": Bicubic(a=-0.5), "own": Cosine()}
WIDE = set(EVERY_KERNEL) - {"nearest", "bilinear", "own", "bicubic"}
kernels = pytest.mark.parametrize("kernel", EVERY_KERNEL)
paddings = pytest.mark.parametrize("padding_mode", PADDINGS)
corners = pytest.mark.parametrize("align_corners", [False, True])
every_engine = pytest.mark.usefixtures("engine")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def _fresh():
    """Forget what was compiled before and after, so that one test's graphs do not guard another's."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def problem(size=(3, 4), out=(1, 2), batch=1, channels=2, dtype=torch.float64):
    """Images, a grid that leaves them, 0.1 pixels away from whole and half positions, and fill values."""
    image = torch.randn(batch, channels, *size, dtype=dtype)
    length = torch.tensor(size[::-1])
    whole = torch.floor(torch.rand(batch, *out, len(size)) * (length + 6)) - 3
    whole.view(batch, -1, len(size))[:, 0] = 0  # one of them always lies inside
    half = torch.randint(0, 2, whole.shape) / 2
    position = whole + half + 0.1 + 0.3 * torch.rand(whole.shape, dtype=torch.float64)
    grid = (position - (length - 1) / 2) / (length / 2)
    return image, grid.to(dtype), torch.tensor([0.3, -0.4], dtype=dtype)[:channels]


def options(kernel, padding_mode, **others):
    return {"mode": EVERY_KERNEL[kernel], "padding_mode": padding_mode, **others}


def sampler(kernel, padding_mode, **others):
    """Return grid_sample as a function of images, grid and, with fill padding, the fill value."""
    chosen = options(kernel, padding_mode, **others)
    if padding_mode == "fill":
        return lambda u, g, f: functional.grid_sample(u, g, fill_value=f, **chosen)
    return lambda u, g: functional.grid_sample(u, g, **chosen)


def arguments(padding_mode, tensors):
    return tensors if padding_mode == "fill" else tensors[:2]


def learnt(tensors):
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)


def assert_close(actual, expected, tolerance=1e-11):
    torch.testing.assert_close(
        torch.as_tensor(actual), torch.as_tensor(expected), rtol=tolerance, atol=tolerance
    )


# Finite differences


def check_derivatives(function, tensors, fast):
    inputs = learnt(tensors)
    assert gradcheck(
        function, inputs, check_forward_ad=True, check_batched_grad=True, fast_mode=fast
    )
    assert gradgradcheck(
        function,
        inputs,
        check_fwd_over_rev=True,
        check_rev_over_rev=True,
        check_batched_grad=True,
        fast_mode=fast,
    )


@every_engine
@kernels
@paddings
def test_derivatives_against_finite_differences(kernel, padding_mode):
    narrow = kernel in ("nearest", "bilinear")
    size, out = ((3, 4), (1, 2)) if narrow else ((2, 3), (1, 1))
    tensors = problem(size, out, channels=2 if narrow else 1)
    function = sampler(kernel, padding_mode)
    check_derivatives(function, arguments(padding_mode, tensors), fast=kernel in WIDE)


@every_engine
@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic", "bspline3", "own"])
@pytest.mark.parametrize("coordinates", ["normalised", "pixel"])
@paddings
def test_derivatives_with_corners_aligned_and_in_pixels(kernel, padding_mode, coordinates):
    image, grid, fill = problem((3, 4), (2, 2), batch=2)
    function = sampler(kernel, padding_mode, align_corners=True, coordinates=coordinates)
    # In aligned corners' own units, to stay clear of the knots.
    grid = grid * torch.tensor([2, 1.5]) + torch.tensor([1.5, 1])
    if coordinates == "normalised":
        grid = (grid - torch.tensor([1.5, 1])) / torch.tensor([1.5, 1])
    check_derivatives(function, arguments(padding_mode, (image, grid, fill)), fast=True)


@every_engine
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "bspline3"])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflection", "fill"])
def test_derivatives_in_volumes(kernel, padding_mode):
    tensors = problem((2, 3, 2), (1, 1, 2))
    check_derivatives(
        sampler(kernel, padding_mode), arguments(padding_mode, tensors), fast=True
    )


@every_engine
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "bspline3", "lanczos", "own"])
@pytest.mark.parametrize("size", [(3, 4), (2, 3, 4)], ids=["images", "volumes"])
def test_derivatives_with_respect_to_theta(kernel, size):
    dimensions = len(size)
    image = torch.randn(2, 1, *size, dtype=torch.float64)
    theta = torch.eye(dimensions, dimensions + 1, dtype=torch.float64)
    theta = theta + 0.2 * torch.randn(2, dimensions, dimensions + 1, dtype=torch.float64)

    def function(image, theta):
        return functional.affine_sample(
            image, theta, (2,) * dimensions, mode=EVERY_KERNEL[kernel], padding_mode="border"
        )

    check_derivatives(function, (image, theta), fast=True)


@pytest.mark.parametrize("antialias", [True, 2.5])
def test_derivatives_through_the_footprint(antialias):
    image, _, _ = problem((5, 6), channels=1)
    theta = torch.tensor([[[1.3, 0.2, 0.1], [-0.1, 1.4, 0.05]]], dtype=torch.float64)

    def function(image, theta):
        return functional.affine_sample(
            image, theta, (3, 3), mode="bicubic", padding_mode="border", antialias=antialias
        )

    assert gradcheck(
        function,
        learnt((image, theta)),
        check_forward_ad=True,
        check_batched_grad=antialias is not True,
        fast_mode=True,
    )


# At the knots, the borders and the mirrors: from the right, whichever way it is computed


def along_x(kernel, padding_mode, y=0.3, align_corners=False):
    """Return the samples of a row of positions, in pixels, as a function of x alone."""
    image = torch.randn(1, 1, 3, 4, dtype=torch.float64)
    fill = {"fill_value": 0.7} if padding_mode == "fill" else {}
    chosen = options(kernel, padding_mode, align_corners=align_corners, **fill)

    def function(x):
        grid = torch.stack([x, torch.full_like(x, y)], dim=-1)[None, None]
        return functional.grid_sample(image, grid, coordinates="pixel", **chosen)[0, 0, 0]

    return function


def reverse(function):
    def derivative(x):
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        return slope

    return derivative


def reverse_func(function):
    return torch.func.grad(lambda x: function(x).sum())


def forward(function):
    return lambda x: torch.func.jvp(function, (x,), (torch.ones_like(x),))[1]


def forward_dual(function):
    def derivative(x):
        with forward_ad.dual_level():
            moved = function(forward_ad.make_dual(x, torch.ones_like(x)))
            return forward_ad.unpack_dual(moved).tangent

    return derivative


def from_the_right(function, x, h=1e-5):
    """Return a one-sided difference, of second order: it never looks to the left of x."""
    near, mid, far = (function(x + i * h).detach() for i in range(3))
    return (-3 * near + 4 * mid - far) / (2 * h)


KNOTS = (
    torch.arange(-6, 16, dtype=torch.float64) / 2
)  # whole and half, in and beyond a row of 4
NESTINGS = [(reverse_func, reverse_func), (reverse_func, forward), (forward, reverse_func)]
SMOOTH = [name for name in EVERY_KERNEL if name != "nearest"]


@every_engine
@pytest.mark.parametrize("kernel", SMOOTH)
@pytest.mark.parametrize("align_corners", [False, True])
@paddings
def test_derivatives_at_the_knots_are_those_from_the_right(kernel, padding_mode, align_corners):
    function = along_x(kernel, padding_mode, align_corners=align_corners)
    expected = from_the_right(function, KNOTS)
    for mode in (reverse, reverse_func, forward, forward_dual):
        assert_close(mode(function)(KNOTS).detach(), expected, 1e-6)


@every_engine
@pytest.mark.parametrize("kernel", SMOOTH)
@paddings
def test_second_derivatives_at_the_knots_are_those_from_the_right(kernel, padding_mode):
    function = along_x(kernel, padding_mode)
    expected = from_the_right(reverse(function), KNOTS)
    for outer, inner in NESTINGS:
        assert_close(outer(inner(function))(KNOTS), expected, 1e-5)
    assert_close(reverse(reverse(function))(KNOTS).detach(), expected, 1e-5)


@every_engine
@paddings
@corners
def test_a_bilinear_segment_has_one_slope_exactly(padding_mode, align_corners):
    function = along_x("bilinear", padding_mode, align_corners=align_corners)
    x = torch.arange(-3, 8, dtype=torch.float64)
    slope = 2 * (function(x + 0.5) - function(x))
    for mode in (reverse, forward, forward_dual):
        assert_close(mode(function)(x).detach(), slope, 1e-14)


@every_engine
@paddings
@pytest.mark.parametrize("a", [-0.75, -0.5])
def test_a_bicubic_segment_has_the_second_derivative_of_its_parabola(padding_mode, a):
    function = along_x("bicubic" if a == -0.75 else "keys", padding_mode)
    x = torch.arange(-3, 8, dtype=torch.float64)
    slope = reverse(function)
    # The slope is a parabola from knot to knot, and continuous: three points give its own slope at the left one.
    expected = (-3 * slope(x) + 4 * slope(x + 0.5) - slope(x + 1)).detach()
    left = (3 * slope(x) - 4 * slope(x - 0.5) + slope(x - 1)).detach()
    if padding_mode != "wrap":  # four pixels, repeated, may cancel
        assert (expected - left).abs().max() > 0.5  # it does jump
    for outer, inner in NESTINGS:
        assert_close(outer(inner(function))(x), expected, 1e-12)


@every_engine
def test_forward_over_forward_is_right_or_refused():
    function = along_x("bicubic", "border")
    x = torch.tensor([0.3, 1.2], dtype=torch.float64)
    expected = forward(reverse_func(function))(x)
    try:
        actual = forward(forward(function))(x)
    except NotImplementedError:
        return
    assert_close(actual, expected, 1e-12)


@every_engine
@paddings
def test_nothing_is_learnt_through_the_nearest_pixel(padding_mode):
    function = along_x("nearest", padding_mode)
    for mode in (reverse, forward, forward_dual):
        assert not mode(function)(KNOTS).any()


# Values, against NumPy's and against one another


@every_engine
@kernels
@paddings
def test_products_with_the_jacobian_are_those_of_numpy(kernel, padding_mode):
    tensors = problem((4, 5), (2, 3), batch=2)
    moves = tuple(torch.randn_like(tensor) for tensor in tensors)
    function = sampler(kernel, padding_mode)
    given = arguments(padding_mode, tensors)
    moving = arguments(padding_mode, moves)
    image, grid, fill = (tensor.numpy() for tensor in tensors)
    chosen = options(kernel, padding_mode)
    tangents = dict(zip(("input_tangent", "grid_tangent"), moves[:2], strict=True))
    if padding_mode == "fill":
        chosen["fill_value"] = fill
        tangents["fill_tangent"] = moves[2]
    tangents = {name: tangent.numpy() for name, tangent in tangents.items()}

    output, tangent = torch.func.jvp(function, given, moving)
    assert_close(output, stnlib.grid_sample(image, grid, **chosen))
    assert_close(tangent, stnlib.grid_sample_jvp(image, grid, **tangents, **chosen))
    grad = torch.randn_like(output)
    expected = stnlib.grid_sample_vjp(grad.numpy(), image, grid, **chosen)
    for actual, wanted in zip(
        torch.func.vjp(function, *given)[1](grad), expected, strict=False
    ):
        assert_close(actual, wanted)
    with forward_ad.dual_level():
        dual = function(*map(forward_ad.make_dual, given, moving))
        assert_close(forward_ad.unpack_dual(dual).tangent, tangent, 0)


@every_engine
@kernels
@paddings
def test_jacobians_forward_and_backward_are_equal(kernel, padding_mode):
    tensors = arguments(padding_mode, problem((2, 3), (1, 2)))
    function = sampler(kernel, padding_mode)
    which = tuple(range(len(tensors)))
    rows = torch.func.jacrev(function, which)(*tensors)
    columns = torch.func.jacfwd(function, which)(*tensors)
    assert any(row.abs().max() > 0.01 for row in rows)
    for row, column in zip(rows, columns, strict=True):
        assert_close(row, column)


@every_engine
@kernels
@paddings
def test_hessians_are_equal_in_every_nesting_and_symmetric(kernel, padding_mode):
    tensors = arguments(padding_mode, problem((2, 3), (1, 1), channels=1))
    function = sampler(kernel, padding_mode)

    def flat(vector):
        parts = torch.split(vector, [tensor.numel() for tensor in tensors])
        shaped = (part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True))
        return function(*shaped).square().sum()

    vector = torch.cat([tensor.flatten() for tensor in tensors])
    hessian = torch.func.hessian(flat)(vector)
    assert hessian.abs().max() > 0.01
    assert_close(hessian, hessian.T)
    rev, fwd = torch.func.jacrev, torch.func.jacfwd
    for outer, inner in ((rev, rev), (rev, fwd), (fwd, rev)):
        assert_close(outer(inner(flat))(vector), hessian)


@kernels
@paddings
def test_a_mapped_function_is_that_of_a_loop(kernel, padding_mode):
    images, grids, fills = (
        torch.stack(tensors) for tensors in zip(*(problem() for _ in range(3)), strict=True)
    )
    function = sampler(kernel, padding_mode)
    if padding_mode != "fill":
        expected = torch.stack([function(u, g) for u, g in zip(images, grids, strict=True)])
        assert_close(torch.vmap(function)(images, grids), expected)
        for dim in (0, 2, -1):
            got = torch.vmap(function, (dim, None), out_dims=1)
            expected = [function(u, grids[0]) for u in images]
            got = got(images.movedim(0, dim), grids[0])
            assert_close(got, torch.stack(expected, 1))
    else:
        every = (images, grids, fills)
        for mapped in itertools.product((0, None), repeat=3):
            if mapped == (None,) * 3:
                continue
            given = [t if dim == 0 else t[0] for t, dim in zip(every, mapped, strict=True)]
            expected = [
                function(*(t[i if d == 0 else 0] for t, d in zip(every, mapped, strict=True)))
                for i in range(3)
            ]
            assert_close(torch.vmap(function, mapped)(*given), torch.stack(expected))


@every_engine
@kernels
def test_maps_nest_with_one_another_and_with_derivatives(kernel):
    images, grids, _ = (
        torch.stack(tensors) for tensors in zip(*(problem() for _ in range(2)), strict=True)
    )
    function = sampler(kernel, "border")
    nested = torch.vmap(torch.vmap(function, (0, None)), (None, 0))(images, grids)
    for i, j in itertools.product(range(2), repeat=2):
        assert_close(nested[i, j], function(images[j], grids[i]))

    def slope(u, g):
        return torch.func.grad(lambda g: function(u, g).square().sum())(g)

    def move(u, g):
        return torch.func.jvp(lambda g: function(u, g), (g,), (torch.ones_like(g),))[1]

    for derivative in (slope, move):
        expected = torch.stack([derivative(u, g) for u, g in zip(images, grids, strict=True)])
        assert_close(torch.vmap(derivative)(images, grids), expected)
    rows = torch.func.jacrev(torch.vmap(function))(images, grids)
    assert_close(rows, torch.func.jacfwd(torch.vmap(function))(images, grids))


@pytest.mark.parametrize("kernel", ["bilinear", "bspline3"])
def test_a_footprint_given_in_advance_can_be_mapped(kernel):
    images, grids, _ = (
        torch.stack(tensors)
        for tensors in zip(*(problem((6, 7), (2, 3)) for _ in range(2)), strict=True)
    )
    function = sampler(kernel, "mirror", antialias=3.0)
    expected = torch.stack([function(u, g) for u, g in zip(images, grids, strict=True)])
    assert_close(torch.vmap(function)(images, grids), expected)


@every_engine
def test_per_sample_gradients_of_a_theta():
    image = torch.randn(3, 1, 4, 5, dtype=torch.float64)
    theta = torch.eye(2, 3, dtype=torch.float64) + 0.1 * torch.randn(3, 2, 3).double()

    def loss(image, theta):
        return functional.affine_sample(image[None], theta[None], (3, 4)).square().sum()

    expected = [torch.func.grad(loss, 1)(u, t) for u, t in zip(image, theta, strict=True)]
    mapped = torch.vmap(torch.func.grad(loss, 1))(image, theta)
    assert_close(mapped, torch.stack(expected))


# Compiled

compiles = pytest.mark.usefixtures("_fresh")


def compiled(function, backend="aot_eager", **others):
    return torch.compile(function, fullgraph=True, backend=backend, **others)


def assert_same_compiled(function, tensors, backend="aot_eager", tolerance=0.0):
    """Compare values and gradients, compiled and not."""
    results = []
    for each in (function, compiled(function, backend)):
        inputs = learnt(tensors)
        outputs = each(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        weighted = sum(
            (o * torch.arange(1, o.numel() + 1).view(o.shape)).sum() for o in outputs
        )
        results.append((*outputs, *torch.autograd.grad(weighted, inputs)))
    for eager, graph in zip(*results, strict=True):
        assert eager.abs().max() > 0 or "nearest" in str(function)
        assert_close(graph, eager, tolerance)


@every_engine
@compiles
@kernels
def test_compiled_values_and_gradients_are_the_eager_ones(kernel):
    tensors = problem((4, 5), (2, 3), batch=2)
    functions = {padding: sampler(kernel, padding) for padding in PADDINGS}

    def every(u, g, f):
        return tuple(
            each(*((u, g, f) if padding == "fill" else (u, g)))
            for padding, each in functions.items()
        )

    results = []
    for function in (every, compiled(every)):
        u, g, f = learnt(tensors)
        outputs = function(u, g, f)
        grads = []
        for padding, output in zip(PADDINGS, outputs, strict=True):
            inputs = (u, g, f) if padding == "fill" else (u, g)
            weight = torch.linspace(1, 2, output.numel(), dtype=output.dtype)
            total = (output * weight.view(output.shape)).sum()
            grads += torch.autograd.grad(total, inputs, retain_graph=True)
        results.append((*outputs, *grads))
    for eager, graph in zip(*results, strict=True):
        # A graph may add in another order: a few roundings of the largest, which here is up to 20.
        assert_close(graph, eager, 1e-14 * max(1.0, float(eager.detach().abs().max())))


needs_a_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="no C++ compiler for inductor"
)


@compiles
@needs_a_compiler
@pytest.mark.parametrize(
    ("kernel", "padding_mode", "size"),
    [
        ("bilinear", "zeros", (4, 5)),
        ("bilinear", "border", (4, 5)),
        ("nearest", "reflection", (4, 5)),
        ("bicubic", "mirror", (4, 5)),
        ("bspline3", "fill", (4, 5)),
        ("bilinear", "zeros", (3, 4, 5)),
    ],
)
def test_generated_code_returns_the_eager_values(kernel, padding_mode, size):
    tensors = arguments(padding_mode, problem(size, (2,) * len(size), batch=2))
    function = sampler(kernel, padding_mode)
    results = []
    for each in (function, compiled(function, "inductor")):
        inputs = learnt(tensors)
        output = each(*inputs)
        results.append((output, *torch.autograd.grad(output.square().sum(), inputs)))
    for eager, graph in zip(*results, strict=True):
        assert_close(graph, eager, 1e-13)


@compiles
def test_one_dynamic_graph_serves_every_size():
    function = sampler("bilinear", "zeros")
    graph = compiled(function, dynamic=True)
    for batch, size, out in ((2, (4, 5), (2, 3)), (3, (6, 7), (4, 5)), (4, (9, 8), (3, 7))):
        image, grid, _ = problem(size, out, batch=batch)
        results = []
        for each in (function, graph):
            inputs = learnt((image, grid))
            output = each(*inputs)
            results.append((output, *torch.autograd.grad(output.square().sum(), inputs)))
        for eager, other in zip(*results, strict=True):
            assert_close(other, eager, 1e-14)


def turned(batch=2, dtype=torch.float64):
    return torch.eye(2, 3, dtype=dtype) + 0.2 * torch.randn(batch, 2, 3, dtype=dtype)


@compiles
@pytest.mark.parametrize("chosen", [{}, {"antialias": 2.0, "padding_mode": "border"}])
def test_compiled_theta_learns_as_eager_does(chosen):
    def function(image, theta):
        return functional.affine_sample(image, theta, (3, 4), **chosen)

    image = torch.randn(2, 2, 6, 7, dtype=torch.float64)
    assert_same_compiled(function, (image, 1.5 * turned()), tolerance=1e-13)


def transformer(**chosen):
    localisation = nn.Sequential(nn.Flatten(), nn.Linear(30, 6))
    module = SpatialTransformer(localisation, transforms.Affine(), **chosen).double()
    with torch.no_grad():
        module.localisation[1].weight.normal_(std=0.02)
    return module


@compiles
@pytest.mark.parametrize("mode", ["bilinear", EVERY_KERNEL["keys"]], ids=["bilinear", "keys"])
def test_a_compiled_spatial_transformer_learns_as_an_eager_one(mode):
    module = transformer(mode=mode)
    image = torch.randn(3, 1, 5, 6, dtype=torch.float64)
    results = []
    for each in (module, compiled(module)):
        output = each(image)
        grads = torch.autograd.grad(output.square().sum(), tuple(module.parameters()))
        results.append((output, *grads))
    for eager, graph in zip(*results, strict=True):
        assert eager.any()
        assert_close(graph, eager, 1e-13)


@compiles
def test_a_compiled_function_takes_one_kernel_after_another():
    image, grid, _ = problem()
    grid = grid.remainder(1.2) - 0.6  # inside the image
    function = compiled(lambda kernel: functional.grid_sample(image, grid, mode=kernel))
    outputs = []
    for a in (-0.5, -0.6):
        kernel = Bicubic(a)
        outputs.append(function(kernel))
        expected = functional.grid_sample(image, grid, mode=kernel, engine="reference")
        assert_close(outputs[-1], expected, 0)
    assert not torch.equal(*outputs)


def right_or_raises(call, expected):
    """Whether a call returned what it should, rather than raise; a wrong value fails the test."""
    try:
        actual = call()
    except (RuntimeError, NotImplementedError):  # Dynamo's exceptions are RuntimeErrors
        return False
    assert actual is not None
    assert_close(actual, expected, 1e-13)
    return True


@compiles
@pytest.mark.parametrize("fullgraph", [True, False], ids=["full", "broken"])
@pytest.mark.parametrize("learns", [True, False], ids=["learns", "fixed"])
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("kind", ["inside", "outside", "dual"])
def test_forward_mode_and_the_compiler_are_right_or_raise(fullgraph, learns, warm, kind):
    image, grid, _ = problem()
    grid = grid.remainder(1.2) - 0.6  # inside the image
    grid.requires_grad_(learns)
    move = torch.randn_like(grid)

    def function(grid):
        return functional.grid_sample(image, grid)

    def product(grid):
        return torch.func.jvp(function, (grid,), (move,))[1]

    expected = product(grid.detach())
    assert expected.abs().max() > 0.1
    graph = torch.compile(
        product if kind == "inside" else function, backend="aot_eager", fullgraph=fullgraph
    )
    if warm and kind != "inside":
        graph(grid)

    def call():
        if kind == "inside":
            return graph(grid).detach()
        if kind == "outside":
            return torch.func.jvp(graph, (grid,), (move,))[1].detach()
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(graph(forward_ad.make_dual(grid, move))).tangent
            return None if tangent is None else tangent.detach()

    right_or_raises(call, expected)


@compiles
def test_a_compiled_product_that_may_break_its_graph_is_right():
    image, grid, _ = problem()
    grid = grid.remainder(1.2) - 0.6  # inside the image

    def product(grid):
        function = sampler("bilinear", "zeros")
        return torch.func.jvp(lambda g: function(image, g), (grid,), (grid,))[1]

    assert_close(torch.compile(product, backend="aot_eager")(grid), product(grid), 0)


@compiles
@pytest.mark.parametrize("transform", ["grad", "jacrev", "jacfwd", "vjp"])
def test_derivatives_inside_a_compiled_function_are_right_or_raise(transform):
    image, grid, _ = problem()
    grid = grid.remainder(1.2) - 0.6  # inside the image

    def derivative(grid):
        def function(grid):
            return functional.grid_sample(image, grid).square().sum()

        if transform == "vjp":
            value, back = torch.func.vjp(function, grid)
            return back(torch.ones_like(value))[0]
        return getattr(torch.func, transform)(function)(grid)

    right_or_raises(lambda: compiled(derivative)(grid), derivative(grid))
    torch._dynamo.reset()
    right_or_raises(
        lambda: torch.compile(derivative, backend="aot_eager")(grid), derivative(grid)
    )


@compiles
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "bspline3"])
def test_a_map_inside_a_compiled_function_is_that_of_a_loop(kernel):
    images, grids, _ = (
        torch.stack(tensors) for tensors in zip(*(problem() for _ in range(2)), strict=True)
    )
    function = sampler(kernel, "zeros")
    mapped = torch.vmap(function, (None, 0))
    expected = torch.stack([function(images[0], g) for g in grids])
    assert_close(compiled(mapped)(images[0], grids), expected, 1e-14)


# The operators of compiled graphs

CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")


def operands(padding_mode, size=(3, 4), orders=((0, 0), (1, 0))):
    image, grid, _ = problem(size, (1, 3))
    position = grid.flatten(1, -2) * 2 + 1
    fill = torch.randn(1, 2, dtype=torch.float64)
    values = torch.randn(len(orders), 1, 2, 3, dtype=torch.float64)
    return (*learnt((image, fill, position)), values.requires_grad_(), sum(orders, ()))


@kernels
@paddings
def test_operators_pass_pytorchs_own_checks(kernel, padding_mode):
    image, fill, position, values, orders = operands(padding_mode)
    key = (EVERY_KERNEL[kernel].key, padding_mode, False)
    checks = CHECKS
    if kernel == "bilinear" or padding_mode == "zeros":
        checks = (*CHECKS, "test_aot_dispatch_dynamic")
    for operator, given in (
        (operators._gather, (image, fill, position, list(orders), *key)),
        (operators._scatter, (values, position, list(orders), [3, 4], *key)),
    ):
        result = torch.library.opcheck(operator, given, test_utils=checks)
        assert set(result.values()) == {"SUCCESS"}


def test_operators_pass_pytorchs_own_checks_in_volumes():
    orders = ((0, 0, 0), (0, 1, 0))
    image, grid, _ = problem((2, 3, 4), (1, 1, 3))
    fill = torch.randn(1, 2, dtype=torch.float64)
    position, values = grid.flatten(1, -2), torch.randn(2, 1, 2, 3, dtype=torch.float64)
    image, fill, position, values = learnt((image, fill, position, values))
    key = ("bilinear", "reflection", True)
    flat = list(sum(orders, ()))
    torch.library.opcheck(operators._gather, (image, fill, position, flat, *key))
    torch.library.opcheck(operators._scatter, (values, position, flat, [2, 3, 4], *key))


# Half precision

halves = pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)


@pytest.mark.parametrize("engine", ["reference", "emulator"], indirect=True)
@halves
@pytest.mark.parametrize("precise", [torch.float32, torch.float64], ids=str)
@kernels
@pytest.mark.parametrize("padding_mode", ["zeros", "fill", "mirror"])
def test_half_precision_is_float32_rounded_once(engine, half, precise, kernel, padding_mode):
    image, grid, fill = problem((4, 5), (2, 3), batch=2)
    image, grid, fill = image.to(half), grid.to(precise), fill.float()
    function = sampler(kernel, padding_mode)
    results = []
    for dtype in (half, torch.float32):
        inputs = learnt(arguments(padding_mode, (image.to(dtype), grid, fill)))
        output = function(*inputs)
        # Whole numbers, which both dtypes hold: the same gradient goes back.
        grad = torch.arange(output.numel(), dtype=dtype).view(output.shape) % 5 - 2
        results.append((output, *torch.autograd.grad(output, inputs, grad)))
    (output, *grads), (wanted, *wanted_grads) = results
    assert output.dtype == half
    assert torch.equal(output, wanted.to(half))
    assert [g.dtype for g in grads] == [half, precise, torch.float32][: len(grads)]
    assert torch.equal(grads[0], wanted_grads[0].to(half))
    for actual, expected in zip(grads[1:], wanted_grads[1:], strict=True):
        assert_close(actual, expected, 1e-5)


@halves
def test_half_precision_goes_forward_and_compiles(half):
    image, grid, _ = problem((4, 5), (2, 3))
    image, grid = image.to(half), grid.float()
    function = sampler("bicubic", "border")
    moves = (torch.randn_like(image), torch.randn_like(grid))
    _, moved = torch.func.jvp(function, (image, grid), moves)
    _, wanted = torch.func.jvp(function, (image.float(), grid), (moves[0].float(), moves[1]))
    assert moved.dtype == half
    assert_close(moved, wanted.to(half), 0)
    torch._dynamo.reset()
    assert torch.equal(compiled(function)(image, grid), function(image, grid))
    torch._dynamo.reset()


@every_engine
@halves
def test_autocast_leaves_the_sampler_alone(half):
    image, _, _ = problem((4, 5), dtype=torch.float32)
    theta = turned(1, torch.float32)
    inputs = learnt((image, theta))
    expected = functional.affine_sample(*inputs, (3, 4))
    wanted = torch.autograd.grad(expected.square().sum(), inputs)
    with torch.autocast("cpu", dtype=half):
        output = functional.affine_sample(*inputs, (3, 4))
        grads = torch.autograd.grad(output.square().sum(), inputs)
        grid = functional.affine_grid(theta, (3, 4))
    assert torch.equal(output, expected)
    assert torch.equal(grid, functional.affine_grid(theta, (3, 4)))
    for actual, each in zip(grads, wanted, strict=True):
        assert torch.equal(actual, each)


# Errors


@every_engine
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "bspline5", "own"])
def test_a_third_derivative_is_refused(kernel):
    function = along_x(kernel, "border")
    x = torch.tensor([0.3, 1.7], dtype=torch.float64)
    with pytest.raises(NotImplementedError, match=r"twice.*order 3"):
        reverse_func(reverse_func(reverse_func(function)))(x)
    with pytest.raises(NotImplementedError, match=r"twice.*order 3"):
        forward(reverse_func(reverse_func(function)))(x)


def test_a_derivative_that_a_kernel_lacks_is_refused():
    class Box(Kernel):
        support = 1

        def value(self, d, xp):
            return 1 - abs(d)

    image, grid, _ = problem()
    grid = grid.remainder(1.2) - 0.6  # inside the image
    box = Box()
    assert_close(
        functional.grid_sample(image, grid, mode=box), functional.grid_sample(image, grid)
    )
    image.requires_grad_()
    functional.grid_sample(image, grid, mode=box).sum().backward()  # the images' needs none
    with pytest.raises(NotImplementedError, match="Box: give the kernel a method derivative"):
        functional.grid_sample(image, grid.requires_grad_(), mode=box).sum().backward()


@compiles
def test_a_footprint_that_must_be_measured_is_refused_where_values_are_hidden():
    image, grid, _ = problem()
    function = sampler("bilinear", "zeros", antialias=True)
    with pytest.raises(ValueError, match=r"antialias: under torch\.vmap expected the longest"):
        torch.vmap(function)(image[None], grid[None])
    with pytest.raises((ValueError, RuntimeError), match=r"antialias: under torch\.compile"):
        compiled(function)(image, grid)


@pytest.mark.parametrize("array", [np.zeros((1, 1, 2, 2)), [[[[0.0]]]], None, 3])
def test_what_is_no_tensor_is_refused(array):
    image, grid, _ = problem()
    theta = turned(1)
    for call, name in (
        (lambda: functional.grid_sample(array, grid), "input"),
        (lambda: functional.grid_sample(image, array), "grid"),
        (lambda: functional.affine_sample(array, theta, (2, 2)), "input"),
        (lambda: functional.affine_sample(image, array, (2, 2)), "theta"),
        (lambda: functional.affine_grid(array, (2, 2)), "theta"),
    ):
        with pytest.raises(TypeError, match=f"^{name}: expected a PyTorch tensor"):
            call()


# Copies


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


@compiles
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
@kernels
def test_copies_of_kernels_do_the_same(kernel, duplicate):
    image, grid, _ = problem()
    twin = duplicate(EVERY_KERNEL[kernel])
    assert type(twin) is type(EVERY_KERNEL[kernel])
    expected = functional.grid_sample(image, grid, mode=EVERY_KERNEL[kernel])
    assert torch.equal(functional.grid_sample(image, grid, mode=twin), expected)
    if kernel in ("bilinear", "bspline3", "keys", "own"):
        graph = compiled(lambda u, g: functional.grid_sample(u, g, mode=twin))
        assert_close(graph(image, grid), expected, 1e-14)  # the engine's last digit is its own


def stored(module, tmp_path):
    torch.save(module, tmp_path / "module.pt")
    return torch.load(tmp_path / "module.pt", weights_only=False)


@compiles
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_copies_of_a_spatial_transformer_compile(how, tmp_path):
    module = transformer(mode=Bicubic(-0.5))
    image = torch.randn(3, 1, 5, 6, dtype=torch.float64)
    expected = module(image)
    copied = {"deepcopy": copy.deepcopy, "pickle": pickled}
    twin = stored(module, tmp_path) if how == "save" else copied[how](module)
    del module
    assert twin.options["mode"] == Bicubic(-0.5)
    assert torch.equal(twin(image), expected)
    graph = compiled(twin)
    assert_close(graph(image), expected, 1e-14)
    graph(image).sum().backward()
    assert twin.localisation[1].weight.grad.any()


@compiles
def test_a_module_that_was_compiled_can_be_copied():
    module = transformer(mode=Bicubic(-0.5))
    image = torch.randn(3, 1, 5, 6, dtype=torch.float64)
    expected = compiled(module)(image)
    assert_close(pickled(module)(image), expected, 1e-14)


# Again and again


@every_engine
@kernels
def test_a_backward_that_is_repeated_is_the_same_to_the_bit(kernel):
    tensors = problem((4, 5), (32, 32), batch=2, dtype=torch.float32)
    function = sampler(kernel, "fill")
    results = []
    for _ in range(3):
        inputs = learnt(tensors)
        output = function(*inputs)
        (first,) = torch.autograd.grad(output.square().sum(), inputs[1], create_graph=True)
        results.append((output, first, *torch.autograd.grad(first.square().sum(), inputs)))
    for each in zip(*results, strict=True):
        assert all(torch.equal(each[0], other) for other in each[1:])
        assert all(math.isfinite(float(value.detach().abs().max())) for value in each)
