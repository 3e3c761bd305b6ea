import itertools
import os

import array_api_strict
import numpy as np
import pytest
import scipy.ndimage
import skimage.transform
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import stnlib
from stnlib import transforms
from stnlib.coordinates import normalise, pixels_per_unit, unnormalise
from stnlib.interpolation import KERNELS, Bicubic
from stnlib.padding import PADDING_MODES

CASES = settings().max_examples
FEW = settings(max_examples=CASES if CASES >= 2000 else 10)
MODES = ["bilinear", "nearest"]
PADDINGS = ["zeros", "border", "reflection"]
EVERY_MODE = pytest.mark.parametrize("mode", MODES)
EVERY_PADDING = pytest.mark.parametrize("padding_mode", PADDINGS)
CORNERS = pytest.mark.parametrize("align_corners", [False, True])
LIBRARIES = pytest.mark.parametrize("xp", [np, torch], ids=["numpy", "torch"])
EVERY_ENGINE = pytest.mark.usefixtures("engine")

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def problems(draw, largest=8, dtype=np.float64, grid_dtype=None):
    """Unit-range images and thetas of many shapes; the thetas turn, mirror, magnify and leave the image."""
    n, c = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    height, width, height_out, width_out = (draw(st.integers(1, largest)) for _ in range(4))
    rng = np.random.default_rng(draw(SEEDS))
    image = rng.random((n, c, height, width)).astype(dtype)
    theta = (np.eye(2, 3) + rng.normal(0, 0.8, (n, 2, 3))).astype(grid_dtype or dtype)
    return image, theta, (height_out, width_out)


def off_the_knots(grid, image, align_corners, knot, margin=1e-6):
    """Push coordinates that lie within ``margin`` pixels of m + knot, m whole, to twenty times as far from it."""
    grid = grid.copy()
    for axis, size in ((0, image.shape[3]), (1, image.shape[2])):
        unit = pixels_per_unit(size, align_corners=align_corners)
        if unit:
            position = (
                unnormalise(
                    grid[..., axis].astype(np.float64), size, align_corners=align_corners
                )
                - knot
            )
            near = np.abs(position - np.round(position)) < margin
            grid[..., axis] += near * (20 * margin / unit)
    return grid


def torch_sample(image, grid, **options):
    image, grid = (torch.as_tensor(a).double() for a in (image, grid))
    return torch.nn.functional.grid_sample(image, grid, **options)


def torch_gradients(grad_output, image, grid, **options):
    image, grid = (torch.as_tensor(a).double().requires_grad_() for a in (image, grid))
    output = torch.nn.functional.grid_sample(image, grid, **options)
    grads = torch.autograd.grad(output, (image, grid), torch.as_tensor(grad_output).double())
    return [g.numpy() for g in grads]


def assert_near(actual, expected, tolerance):
    """Compare, with a tolerance relative to the largest of the expected numbers or 1."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max(initial=0))
    )


def grid_at(x, y, image, align_corners):
    """Return the grid, shape (1, 1, L, 2), of positions in pixels."""
    height, width = image.shape[2:]
    x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    axes = (
        normalise(x, width, align_corners=align_corners),
        normalise(y, height, align_corners=align_corners),
    )
    return np.stack(axes, axis=-1)[None, None]


# The grid generator


@CORNERS
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
@given(data=st.data())
def test_affine_grid_agrees_with_torch(align_corners, dtype, tolerance, data):
    image, theta, (height, width) = data.draw(problems(dtype=dtype))
    if align_corners:
        height, width = (
            height + 1,
            width + 1,
        )  # torch warns of size 1, which has a test of its own
    size = (*image.shape[:2], height, width)
    expected = torch.nn.functional.affine_grid(
        torch.as_tensor(theta).double(), size, align_corners=align_corners
    )
    grid = stnlib.affine_grid(theta, size, align_corners=align_corners)
    assert grid.dtype == dtype
    assert_near(grid, expected, tolerance)
    on_torch = stnlib.affine_grid(
        torch.as_tensor(theta), (height, width), align_corners=align_corners
    )
    np.testing.assert_array_equal(on_torch.numpy(), grid)


@CORNERS
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 1)])
def test_along_an_axis_of_size_one_the_target_coordinate_is_zero(align_corners, size):
    theta = np.array([[[2.0, 3.0, 0.5], [5.0, 7.0, -0.25]]])
    grid = stnlib.affine_grid(theta, size, align_corners=align_corners)
    assert_near(grid.mean(axis=(0, 1, 2)), theta[0, :, 2], 1e-15)


@CORNERS
def test_float32_theta_is_rounded_once(align_corners):
    theta = np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32)
    exact = stnlib.affine_grid(theta.astype(np.float64), (9, 10), align_corners=align_corners)
    np.testing.assert_array_equal(
        stnlib.affine_grid(theta, (9, 10), align_corners=align_corners),
        exact.astype(np.float32),
    )


def test_last_axis_of_the_grid_is_x_then_y():
    grid = stnlib.affine_grid(np.eye(2, 3)[None], (2, 3), align_corners=True)
    assert grid[0, :, :, 0].tolist() == [[-1, 0, 1], [-1, 0, 1]]
    assert grid[0, :, :, 1].tolist() == [[-1, -1, -1], [1, 1, 1]]


# The sampler against PyTorch


@EVERY_ENGINE
@EVERY_MODE
@EVERY_PADDING
@CORNERS
@given(problem=problems())
def test_grid_sample_agrees_with_torch(mode, padding_mode, align_corners, problem):
    image, theta, size = problem
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    grid = stnlib.affine_grid(theta, size, align_corners=align_corners)
    if mode == "nearest":
        grid = off_the_knots(grid, image, align_corners, 0.5)
    output = stnlib.grid_sample(image, grid, **options)
    assert_near(output, torch_sample(image, grid, **options), 1e-12)
    on_torch = stnlib.grid_sample(torch.as_tensor(image), torch.as_tensor(grid), **options)
    np.testing.assert_array_equal(on_torch.numpy(), output)


@EVERY_ENGINE
@EVERY_MODE
@EVERY_PADDING
@CORNERS
@pytest.mark.parametrize("grid_dtype", [np.float32, np.float64])
@FEW
@given(data=st.data())
def test_float32_images_agree_with_torch_in_float64(
    mode, padding_mode, align_corners, grid_dtype, data
):
    image, theta, size = data.draw(
        problems(largest=64, dtype=np.float32, grid_dtype=grid_dtype)
    )
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    grid = stnlib.affine_grid(theta, size, align_corners=align_corners)
    if mode == "nearest":
        grid = off_the_knots(grid, image, align_corners, 0.5, margin=1e-5)
    output = stnlib.grid_sample(image, grid, **options)
    assert output.dtype == np.float32
    assert_near(output, torch_sample(image, grid, **options), 1e-6)
    on_torch = stnlib.grid_sample(torch.as_tensor(image), torch.as_tensor(grid), **options)
    np.testing.assert_array_equal(on_torch.numpy(), output)


@EVERY_ENGINE
@EVERY_MODE
@EVERY_PADDING
@CORNERS
@given(problem=problems())
def test_gradients_agree_with_torch_off_the_knots(mode, padding_mode, align_corners, problem):
    image, theta, size = problem
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    grid = stnlib.affine_grid(theta, size, align_corners=align_corners)
    grid = off_the_knots(grid, image, align_corners, 0.5 if mode == "nearest" else 0.0)
    grad_output = np.random.default_rng(0).normal(size=(*image.shape[:2], *size))
    grads = stnlib.grid_sample_vjp(grad_output, image, grid, **options)
    assert grads.fill == 0
    for grad, expected in zip(
        grads[:2], torch_gradients(grad_output, image, grid, **options), strict=True
    ):
        assert_near(grad, expected, 1e-12)
    on_torch = stnlib.grid_sample_vjp(
        *(torch.as_tensor(a) for a in (grad_output, image, grid)), **options
    )
    for grad, same in zip(grads, on_torch, strict=True):
        assert_near(same, grad, 1e-14)  # the sums may run in another order


@EVERY_ENGINE
@EVERY_MODE
@EVERY_PADDING
@CORNERS
@pytest.mark.parametrize("grid_dtype", [np.float32, np.float64])
@FEW
@given(data=st.data())
def test_float32_gradients_agree_with_torch_in_float64(
    engine, mode, padding_mode, align_corners, grid_dtype, data
):
    image, theta, size = data.draw(
        problems(largest=64, dtype=np.float32, grid_dtype=grid_dtype)
    )
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    grid = stnlib.affine_grid(theta, size, align_corners=align_corners)
    grid = off_the_knots(
        grid, image, align_corners, 0.5 if mode == "nearest" else 0.0, margin=1e-5
    )
    grad_output = (
        np.random.default_rng(0).normal(size=(*image.shape[:2], *size)).astype(np.float32)
    )
    grads = stnlib.grid_sample_vjp(grad_output, image, grid, **options)
    assert [g.dtype for g in grads] == [np.float32, grid_dtype, np.float32]
    for grad, expected in zip(
        grads[:2], torch_gradients(grad_output, image, grid, **options), strict=True
    ):
        # The reference sums a pixel's gradient in float64; engines may in float32, up to 4,096 numbers.
        assert_near(grad, expected, 1e-6 if engine == "reference" else 5e-6)


@CORNERS
@given(data=st.data())
def test_theta_gradient_agrees_with_torch(align_corners, data):
    _, theta, size = data.draw(problems())
    size = tuple(s + 1 for s in size)  # torch warns of size 1
    grad_grid = np.random.default_rng(0).normal(size=(len(theta), *size, 2))
    variable = torch.as_tensor(theta).requires_grad_()
    grid = torch.nn.functional.affine_grid(
        variable, (len(theta), 1, *size), align_corners=align_corners
    )
    (expected,) = torch.autograd.grad(grid, variable, torch.as_tensor(grad_grid))
    assert_near(stnlib.affine_grid_vjp(grad_grid, align_corners=align_corners), expected, 1e-12)


@EVERY_ENGINE
@EVERY_PADDING
@CORNERS
@given(problem=problems())
def test_gradient_of_the_grid_agrees_with_central_differences(
    padding_mode, align_corners, problem
):
    image, theta, size = problem
    options = {"padding_mode": padding_mode, "align_corners": align_corners}
    h = 2.0**-12
    # The margin keeps both ends of each difference on one linear piece: then it is exact but for rounding, 1e-15 / h.
    grid = off_the_knots(
        stnlib.affine_grid(theta, size, align_corners=align_corners),
        image,
        align_corners,
        0.0,
        8 * h,
    )
    grad_output = np.random.default_rng(0).normal(size=(*image.shape[:2], *size))
    grad_grid = stnlib.grid_sample_vjp(grad_output, image, grid, **options).grid
    for axis in (0, 1):
        step = h * np.eye(2)[axis]
        rise = stnlib.grid_sample(image, grid + step, **options) - stnlib.grid_sample(
            image, grid - step, **options
        )
        assert_near(grad_grid[..., axis], (grad_output * rise).sum(1) / (2 * h), 1e-10)


@EVERY_ENGINE
@pytest.mark.parametrize("needs", list(itertools.product([False, True], repeat=3)))
def test_only_the_gradients_that_are_needed_are_computed(needs):
    image, grid = np.random.default_rng(0).random((1, 2, 3, 4)), np.zeros((1, 2, 2, 2))
    grad_output = np.ones((1, 2, 2, 2))
    options = {"padding_mode": "fill", "fill_value": 2.0}
    every = stnlib.grid_sample_vjp(grad_output, image, grid, **options)
    some = stnlib.grid_sample_vjp(grad_output, image, grid, **options, needs=needs)
    for need, grad, expected in zip(needs, some, every, strict=True):
        if need:
            np.testing.assert_array_equal(grad, expected)
        else:
            assert grad is None


@EVERY_ENGINE
@EVERY_PADDING
@CORNERS
def test_nearest_teaches_the_grid_nothing(padding_mode, align_corners):
    rng = np.random.default_rng(0)
    image, grid, grad_output = (
        rng.random((2, 3, 4, 5)),
        rng.normal(size=(2, 6, 7, 2)),
        rng.random((2, 3, 6, 7)),
    )
    options = {"mode": "nearest", "padding_mode": padding_mode, "align_corners": align_corners}
    grad_grid = stnlib.grid_sample_vjp(grad_output, image, grid, **options).grid
    np.testing.assert_array_equal(grad_grid, np.zeros_like(grid))


# On the knots, the borders and the mirrors


def knots(align_corners):
    """Return an image and every whole position about it, exact in float64: a unit is a power of two pixels."""
    height, width = (5, 9) if align_corners else (4, 8)
    image = np.random.default_rng(0).random((1, 2, height, width))
    y, x = np.meshgrid(
        np.arange(-2 * height, 3 * height), np.arange(-2 * width, 3 * width), indexing="ij"
    )
    grid = grid_at(x.ravel(), y.ravel(), image, align_corners)
    for axis, size, position in ((0, width, x), (1, height, y)):
        assert (
            unnormalise(grid[0, 0, :, axis], size, align_corners=align_corners)
            == position.ravel()
        ).all()
    return image, grid


def forward_differences(grad_output, image, grid, h=2.0**-10, **options):
    here = stnlib.grid_sample(image, grid, **options)
    steps = [
        stnlib.grid_sample(image, grid + h * np.eye(2)[axis], **options) for axis in (0, 1)
    ]
    return np.stack([(grad_output * (there - here)).sum(1) / h for there in steps], axis=-1)


def gradient_by_vjp(grad_output, image, grid, **options):
    return stnlib.grid_sample_vjp(grad_output, image, grid, **options)[1]


def gradient_by_torch_vjp(grad_output, image, grid, **options):
    return stnlib.grid_sample_vjp(
        *(torch.as_tensor(a) for a in (grad_output, image, grid)), **options
    )[1].numpy()


def gradient_through(sample):
    def gradient(grad_output, image, grid, **options):
        variable = torch.as_tensor(grid).clone().requires_grad_()
        output = sample(torch.as_tensor(image), variable, **options)
        return torch.autograd.grad(output, variable, torch.as_tensor(grad_output))[0].numpy()

    return gradient


def functional_sample(image, grid, **options):
    from stnlib.nn.functional import grid_sample

    return grid_sample(image, grid, **options)


@EVERY_ENGINE
@EVERY_PADDING
@CORNERS
@pytest.mark.parametrize(
    "gradient",
    [
        gradient_by_vjp,
        gradient_by_torch_vjp,
        gradient_through(functional_sample),
        gradient_through(stnlib.grid_sample),
    ],
    ids=["vjp", "vjp on torch", "functional", "plain autograd"],
)
def test_on_knots_borders_and_mirrors_the_gradient_is_that_from_the_right(
    padding_mode, align_corners, gradient
):
    image, grid = knots(align_corners)
    options = {"padding_mode": padding_mode, "align_corners": align_corners}
    grad_output = np.random.default_rng(1).normal(size=(1, 2, 1, grid.shape[2]))
    expected = forward_differences(grad_output, image, grid, **options)
    # Exact but for rounding, 1e-16 / h.
    assert_near(gradient(grad_output, image, grid, **options), expected, 1e-12)


@EVERY_ENGINE
@pytest.mark.parametrize(
    ("padding_mode", "x", "here", "torch_says"),
    [
        ("border", -1.0, 20.0, 0.0),
        ("reflection", -1.0, 20.0, 0.0),
        ("reflection", 1.0, -40.0, 0.0),
    ],
)
def test_torch_differs_at_the_border(padding_mode, x, here, torch_says):
    image = np.array([[[[1.0, 21.0, 61.0]]]])
    options = {"padding_mode": padding_mode, "align_corners": True}
    grid = np.array([[[[x, 0.0]]]])
    grad_grid = stnlib.grid_sample_vjp(np.ones((1, 1, 1, 1)), image, grid, **options).grid
    _, torch_grad = torch_gradients(np.ones((1, 1, 1, 1)), image, grid, **options)
    assert (grad_grid[0, 0, 0, 0], torch_grad[0, 0, 0, 0]) == (here, torch_says)


@EVERY_ENGINE
def test_gradient_at_the_identity_is_not_zero():
    image = np.tile(np.arange(8.0), (1, 1, 8, 1))
    grid = stnlib.affine_grid(np.eye(2, 3)[None], (8, 8))
    grad_grid = stnlib.grid_sample_vjp(
        np.ones((1, 1, 8, 8)), image, grid, padding_mode="border"
    ).grid
    # One pixel of grey a pixel of width, and four pixels a unit; at the right border nothing rises any more.
    np.testing.assert_array_equal(grad_grid[0, :, :, 0], np.tile([4.0] * 7 + [0.0], (8, 1)))
    np.testing.assert_array_equal(grad_grid[0, :, :, 1], np.zeros((8, 8)))


# Rows by hand

HALF_STEPS = np.arange(-2.0, 5.5, 0.5)
# fmt: off
ROWS = {
    # positions:                       -2 -1.5  -1  -.5   0  .5   1 1.5   2 2.5   3 3.5   4 4.5   5
    ("bilinear", "zeros", False):      [ 0,  0,  0,  5, 10, 15, 20, 25, 30, 35, 40, 20,  0,  0,  0],
    ("bilinear", "zeros", True):       [ 0,  0,  0,  5, 10, 15, 20, 25, 30, 35, 40, 20,  0,  0,  0],
    ("bilinear", "border", False):     [10, 10, 10, 10, 10, 15, 20, 25, 30, 35, 40, 40, 40, 40, 40],
    ("bilinear", "border", True):      [10, 10, 10, 10, 10, 15, 20, 25, 30, 35, 40, 40, 40, 40, 40],
    ("bilinear", "reflection", False): [20, 15, 10, 10, 10, 15, 20, 25, 30, 35, 40, 40, 40, 35, 30],
    ("bilinear", "reflection", True):  [30, 25, 20, 15, 10, 15, 20, 25, 30, 35, 40, 35, 30, 25, 20],
    ("nearest", "zeros", False):       [ 0,  0,  0, 10, 10, 10, 20, 30, 30, 30, 40,  0,  0,  0,  0],
    ("nearest", "zeros", True):        [ 0,  0,  0, 10, 10, 10, 20, 30, 30, 30, 40,  0,  0,  0,  0],
    ("nearest", "border", False):      [10, 10, 10, 10, 10, 10, 20, 30, 30, 30, 40, 40, 40, 40, 40],
    ("nearest", "border", True):       [10, 10, 10, 10, 10, 10, 20, 30, 30, 30, 40, 40, 40, 40, 40],
    ("nearest", "reflection", False):  [20, 20, 10, 10, 10, 10, 20, 30, 30, 30, 40, 40, 40, 40, 30],
    ("nearest", "reflection", True):   [30, 30, 20, 10, 10, 10, 20, 30, 30, 30, 40, 30, 30, 30, 20],
}
# fmt: on


@EVERY_ENGINE
@LIBRARIES
@pytest.mark.parametrize(("mode", "padding_mode", "align_corners"), ROWS)
@pytest.mark.parametrize("along", ["x", "y"])
def test_rows_by_hand(xp, mode, padding_mode, align_corners, along):
    row = np.array([[[[10.0, 20.0, 30.0, 40.0]]]])
    image = row if along == "x" else row.swapaxes(2, 3)
    grid = grid_at(
        *((HALF_STEPS, 0.0) if along == "x" else (0.0, HALF_STEPS)), image, align_corners
    )
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    output = stnlib.grid_sample(xp.asarray(image), xp.asarray(grid), **options)
    np.testing.assert_allclose(
        np.asarray(output).ravel(), ROWS[mode, padding_mode, align_corners], rtol=0, atol=1e-13
    )


@EVERY_ENGINE
def test_half_covered_white_pixel_is_half_white():
    grid = grid_at([-0.5, 3.5], 0.0, np.ones((1, 1, 1, 4)), False)
    assert stnlib.grid_sample(np.ones((1, 1, 1, 4)), grid).ravel().tolist() == [0.5, 0.5]


@EVERY_ENGINE
@EVERY_MODE
@EVERY_PADDING
@pytest.mark.parametrize(
    ("align_corners", "size"),
    [(False, (4, 16)), (True, (5, 9)), (False, (1, 2)), (True, (1, 3))],
)
def test_identity_returns_the_image_exactly(mode, padding_mode, align_corners, size):
    image = np.random.default_rng(0).normal(size=(2, 3, *size))
    grid = stnlib.affine_grid(
        np.tile(np.eye(2, 3), (2, 1, 1)), size, align_corners=align_corners
    )
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    np.testing.assert_array_equal(stnlib.grid_sample(image, grid, **options), image)


# Algebra


def random_case(data, dtype=np.float64):
    image, theta, size = data.draw(problems(dtype=dtype))
    return image, theta, size, np.random.default_rng(data.draw(SEEDS))


@EVERY_ENGINE
@EVERY_MODE
@EVERY_PADDING
@CORNERS
@given(data=st.data())
def test_image_gradient_is_the_adjoint_of_the_sampler(mode, padding_mode, align_corners, data):
    image, theta, size, rng = random_case(data)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    grid = stnlib.affine_grid(theta, size, align_corners=align_corners)
    output = stnlib.grid_sample(image, grid, **options)
    g = rng.normal(size=output.shape)
    grad_input = stnlib.grid_sample_vjp(g, image, grid, **options).input
    # A sum of up to 576 products of numbers near 1.
    assert (g * output).sum() == pytest.approx((grad_input * image).sum(), rel=1e-12, abs=1e-12)


@CORNERS
@given(data=st.data())
def test_theta_gradient_is_the_adjoint_of_the_grid_generator(align_corners, data):
    _, theta, size, rng = random_case(data)
    grid = stnlib.affine_grid(theta, size, align_corners=align_corners)
    g = rng.normal(size=grid.shape)
    grad_theta = stnlib.affine_grid_vjp(g, align_corners=align_corners)
    assert (g * grid).sum() == pytest.approx((grad_theta * theta).sum(), rel=1e-12, abs=1e-12)


def test_theta_gradient_keeps_its_dtype_and_library():
    grad_grid = torch.ones(2, 3, 4, 2, dtype=torch.float32)
    grad_theta = stnlib.affine_grid_vjp(grad_grid)
    assert (grad_theta.dtype, tuple(grad_theta.shape)) == (torch.float32, (2, 2, 3))
    assert_near(grad_theta, [[[0, 0, 12], [0, 0, 12]]] * 2, 1e-15)


@EVERY_ENGINE
@EVERY_MODE
@EVERY_PADDING
@CORNERS
@given(data=st.data(), a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_output_is_linear_in_the_image(mode, padding_mode, align_corners, data, a, b):
    image, theta, size, rng = random_case(data)
    other = rng.normal(size=image.shape)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    grid = stnlib.affine_grid(theta, size, align_corners=align_corners)
    parts = a * stnlib.grid_sample(image, grid, **options) + b * stnlib.grid_sample(
        other, grid, **options
    )
    assert_near(
        stnlib.grid_sample(a * image + b * other, grid, **options), parts, 1e-14
    )  # numbers of up to 12


@EVERY_ENGINE
@EVERY_MODE
@pytest.mark.parametrize("padding_mode", ["border", "reflection"])
@CORNERS
@given(problem=problems())
def test_a_constant_image_stays_constant(mode, padding_mode, align_corners, problem):
    image, theta, size = problem
    grid = stnlib.affine_grid(theta, size, align_corners=align_corners)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    output = stnlib.grid_sample(np.full_like(image, 0.75), grid, **options)
    np.testing.assert_allclose(output, 0.75, rtol=0, atol=4e-16)


# Coordinates and pixels that are not finite


@EVERY_ENGINE
@LIBRARIES
@EVERY_MODE
@CORNERS
@pytest.mark.parametrize(
    ("padding_mode", "expected"),
    [("zeros", [0, 0, 0, 0]), ("border", [4, 2, 7, 1]), ("reflection", [np.nan] * 4)],
)
def test_infinite_coordinates_are_outside_and_have_no_mirror_image(
    xp, mode, align_corners, padding_mode, expected
):
    image = xp.asarray(np.arange(1.0, 10.0).reshape(1, 1, 3, 3))
    inf = np.inf
    grid = xp.asarray(np.array([[[[-inf, 0.0], [0.0, -inf], [-inf, inf], [-inf, -inf]]]]))
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    assert_same(stnlib.grid_sample(image, grid, **options), [[[expected]]])
    grad_input = stnlib.grid_sample_vjp(
        xp.ones((1, 1, 1, 4), dtype=xp.float64), image, grid, **options
    ).input
    assert grad_input.sum() == (4 if padding_mode == "border" else 0)


@EVERY_ENGINE
@LIBRARIES
@pytest.mark.parametrize(
    ("padding_mode", "expected"), [("zeros", 0.0), ("border", 5.0), ("reflection", np.nan)]
)
def test_infinite_coordinates_about_a_single_pixel(xp, padding_mode, expected):
    image, grid = xp.asarray([[[[5.0]]]]), xp.asarray([[[[np.inf, 0.0]]]])
    if xp is torch:
        image, grid = image.double(), grid.double()
    output = stnlib.grid_sample(image, grid, padding_mode=padding_mode, align_corners=True)
    assert_same(output, [[[[expected]]]])


def assert_same(actual, expected):
    np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected))


@EVERY_ENGINE
@LIBRARIES
@EVERY_MODE
@EVERY_PADDING
@CORNERS
@pytest.mark.parametrize("axis", [0, 1])
def test_nan_coordinates_give_nan_and_add_nothing(xp, mode, padding_mode, align_corners, axis):
    image = np.random.default_rng(0).random((1, 2, 4, 4))
    grid = np.full((1, 1, 3, 2), 0.1)
    grid[0, 0, 1, axis] = np.nan
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    output = stnlib.grid_sample(xp.asarray(image), xp.asarray(grid), **options)
    assert_same(np.isnan(np.asarray(output))[0, :, 0], [[False, True, False]] * 2)
    grad_output = np.ones((1, 2, 1, 3))
    grad_input = stnlib.grid_sample_vjp(
        xp.asarray(grad_output),
        xp.asarray(image),
        xp.asarray(grid),
        **options,
        needs=(True, False, False),
    ).input
    expected = stnlib.grid_sample_vjp(
        grad_output[..., ::2], image, grid[:, :, ::2], **options, needs=(True, False, False)
    ).input
    assert_same(grad_input, expected)


@EVERY_ENGINE
@LIBRARIES
@EVERY_MODE
@CORNERS
@pytest.mark.parametrize("far", [1e17, -1e17, 1e300, -1e300])
def test_huge_coordinates_are_outside_the_image(xp, mode, align_corners, far):
    image = np.arange(1.0, 17.0).reshape(1, 1, 4, 4)
    grid = np.array([[[[far, 0.25], [0.25, far]]]])
    images, grids = xp.asarray(image), xp.asarray(grid)
    options = {"mode": mode, "align_corners": align_corners}
    assert_same(
        stnlib.grid_sample(images, grids, padding_mode="zeros", **options), [[[[0.0, 0.0]]]]
    )
    edge = np.array([[[[np.copysign(9, far), 0.25], [0.25, np.copysign(9, far)]]]])
    expected = stnlib.grid_sample(image, edge, padding_mode="border", **options)
    assert_same(stnlib.grid_sample(images, grids, padding_mode="border", **options), expected)


@EVERY_ENGINE
@LIBRARIES
@EVERY_MODE
@CORNERS
@pytest.mark.parametrize("far", [1e17, -1e17, 1e300, -1e300])
def test_huge_coordinates_reflect_into_the_image(xp, mode, align_corners, far):
    image = np.full((1, 1, 4, 4), 3.0)
    grid = np.array([[[[far, 0.25], [0.25, far], [far, far]]]])
    options = {"mode": mode, "padding_mode": "reflection", "align_corners": align_corners}
    assert_same(
        stnlib.grid_sample(xp.asarray(image), xp.asarray(grid), **options),
        [[[[3.0, 3.0, 3.0]]]],
    )


@EVERY_ENGINE
@LIBRARIES
@EVERY_MODE
@EVERY_PADDING
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_pixel_does_not_leak_into_samples_that_do_not_read_it(
    xp, mode, padding_mode, bad
):
    image = np.random.default_rng(0).random((1, 1, 4, 4))
    spoilt = image.copy()
    spoilt[0, 0, 1, 2] = bad
    x, y = (a.ravel() for a in np.meshgrid(np.arange(-3.75, 8, 0.5), np.arange(-3.75, 8, 0.5)))
    grid = grid_at(x, y, image, False)
    grad_output = np.ones((1, 1, 1, x.size))
    options = {"mode": mode, "padding_mode": padding_mode}
    reads = stnlib.grid_sample((spoilt != image).astype(float), grid, **options) != 0
    assert 0 < reads.sum() <= x.size / 4
    output = np.asarray(stnlib.grid_sample(xp.asarray(spoilt), xp.asarray(grid), **options))
    np.testing.assert_array_equal(np.isfinite(output), ~reads)
    np.testing.assert_array_equal(
        output[~reads], stnlib.grid_sample(image, grid, **options)[~reads]
    )
    if mode == "bilinear":
        grad = stnlib.grid_sample_vjp(
            *(xp.asarray(a) for a in (grad_output, spoilt, grid)), **options
        ).grid
        np.testing.assert_array_equal(
            np.isfinite(np.asarray(grad)), ~np.stack([reads[:, 0]] * 2, axis=-1)
        )


@EVERY_ENGINE
@LIBRARIES
@EVERY_MODE
@EVERY_PADDING
@CORNERS
def test_an_empty_batch_gives_an_empty_result(xp, mode, padding_mode, align_corners):
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    theta, image = (
        xp.zeros((0, 2, 3), dtype=xp.float64),
        xp.zeros((0, 3, 4, 5), dtype=xp.float64),
    )
    grid = stnlib.affine_grid(theta, (0, 3, 6, 7), align_corners=align_corners)
    assert tuple(grid.shape) == (0, 6, 7, 2)
    output = stnlib.grid_sample(image, grid, **options)
    assert (tuple(output.shape), output.dtype) == ((0, 3, 6, 7), xp.float64)
    grad_input, grad_grid, grad_fill = stnlib.grid_sample_vjp(output, image, grid, **options)
    assert (tuple(grad_fill.shape), grad_fill) == ((), 0)
    assert (tuple(grad_input.shape), tuple(grad_grid.shape)) == ((0, 3, 4, 5), (0, 6, 7, 2))
    assert tuple(stnlib.affine_grid_vjp(grad_grid, align_corners=align_corners).shape) == (
        0,
        2,
        3,
    )


# Other libraries of arrays


@EVERY_MODE
@EVERY_PADDING
@CORNERS
def test_array_api_strict_arrays_give_the_same(mode, padding_mode, align_corners):
    rng = np.random.default_rng(0)
    image, theta = rng.random((2, 3, 4, 5)), np.eye(2, 3) + rng.normal(0, 0.8, (2, 2, 3))
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    grid = stnlib.affine_grid(theta, (6, 7), align_corners=align_corners)
    strict_grid = stnlib.affine_grid(
        array_api_strict.asarray(theta), (6, 7), align_corners=align_corners
    )
    np.testing.assert_array_equal(np.from_dlpack(strict_grid), grid)
    output = stnlib.grid_sample(array_api_strict.asarray(image), strict_grid, **options)
    np.testing.assert_array_equal(
        np.from_dlpack(output), stnlib.grid_sample(image, grid, **options, engine="reference")
    )
    grad_theta = stnlib.affine_grid_vjp(strict_grid, align_corners=align_corners)
    np.testing.assert_array_equal(
        np.from_dlpack(grad_theta), stnlib.affine_grid_vjp(grid, align_corners=align_corners)
    )


def test_scatter_names_the_library_that_it_does_not_know():
    arrays = (array_api_strict.zeros(s) for s in ((1, 1, 1, 1), (1, 1, 2, 2), (1, 1, 1, 2)))
    with pytest.raises(
        TypeError,
        match=r"values: expected a NumPy, CuPy or PyTorch array, got one of array_api_strict",
    ):
        stnlib.grid_sample_vjp(*arrays)


@EVERY_MODE
@EVERY_PADDING
@CORNERS
def test_cupy_arrays_give_the_same(mode, padding_mode, align_corners):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("CuPy finds no GPU")
    rng = np.random.default_rng(0)
    image, theta = rng.random((2, 3, 4, 5)), np.eye(2, 3) + rng.normal(0, 0.8, (2, 2, 3))
    grad_output = rng.normal(size=(2, 3, 6, 7))
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    grid = stnlib.affine_grid(theta, (6, 7), align_corners=align_corners)
    on_gpu = stnlib.affine_grid(cupy.asarray(theta), (6, 7), align_corners=align_corners)
    assert_near(cupy.asnumpy(on_gpu), grid, 1e-15)
    output = stnlib.grid_sample(cupy.asarray(image), cupy.asarray(grid), **options)
    assert_near(cupy.asnumpy(output), stnlib.grid_sample(image, grid, **options), 1e-14)
    grads = stnlib.grid_sample_vjp(
        *(cupy.asarray(a) for a in (grad_output, image, grid)), **options
    )
    for grad, expected in zip(
        grads, stnlib.grid_sample_vjp(grad_output, image, grid, **options), strict=True
    ):
        assert_near(cupy.asnumpy(grad), expected, 1e-14)


# Other authors' samplers


@EVERY_ENGINE
@pytest.mark.parametrize(
    ("padding_mode", "align_corners", "scipy_mode"),
    [
        ("zeros", False, "grid-constant"),
        ("zeros", True, "grid-constant"),
        ("border", False, "nearest"),
        ("border", True, "nearest"),
        ("reflection", False, "reflect"),
        ("reflection", True, "mirror"),
    ],
)
@given(problem=problems())
def test_scipy_agrees(padding_mode, align_corners, scipy_mode, problem):
    image, theta, size = problem
    grid = stnlib.affine_grid(theta, size, align_corners=align_corners)
    output = stnlib.grid_sample(
        image, grid, padding_mode=padding_mode, align_corners=align_corners
    )
    height, width = image.shape[2:]
    x = unnormalise(grid[..., 0], width, align_corners=align_corners)
    y = unnormalise(grid[..., 1], height, align_corners=align_corners)
    for n, c in np.ndindex(image.shape[:2]):
        expected = scipy.ndimage.map_coordinates(
            image[n, c], [y[n], x[n]], order=1, mode=scipy_mode
        )
        assert_near(output[n, c], expected, 1e-12)


@EVERY_ENGINE
@pytest.mark.parametrize(
    ("padding_mode", "align_corners", "skimage_mode"),
    [
        ("zeros", False, "constant"),
        ("zeros", True, "constant"),
        ("border", False, "edge"),
        ("border", True, "edge"),
        ("reflection", False, "symmetric"),
        ("reflection", True, "reflect"),
    ],
)
@pytest.mark.parametrize("size", [(6, 5), (9, 11), (3, 17)])
def test_skimage_warp_agrees(padding_mode, align_corners, skimage_mode, size):
    rng = np.random.default_rng(0)
    image, theta = rng.random((1, 1, 6, 5)), np.eye(2, 3)[None] + rng.normal(0, 0.5, (1, 2, 3))
    grid = stnlib.affine_grid(theta, size, align_corners=align_corners)
    output = stnlib.grid_sample(
        image, grid, padding_mode=padding_mode, align_corners=align_corners
    )
    matrix = transforms.theta_to_pixel(theta[0], (6, 5), size, align_corners=align_corners)
    expected = skimage.transform.warp(
        image[0, 0],
        transforms.to_homogeneous(matrix),
        output_shape=size,
        order=1,
        mode=skimage_mode,
        clip=False,
    )
    assert_near(output[0, 0], expected, 1e-12)


# What is refused, and in which words


def make(*shape, dtype=np.float64):
    return np.zeros(shape, dtype)


IMAGE, GRID = make(2, 3, 4, 5), make(2, 6, 7, 2)


@pytest.mark.parametrize(
    ("image", "grid", "error", "message"),
    [
        (
            make(4, 5),
            GRID,
            ValueError,
            "input: expected shape (N, C, H, W) or (N, C, D, H, W), got (4, 5)",
        ),
        (
            make(2, 3, 4, 5, 6),
            GRID,
            ValueError,
            "grid: expected shape (N, D_out, H_out, W_out, 3), got (2, 6, 7, 2)",
        ),
        (
            make(2, 3, 4, 5, 6, 7),
            GRID,
            ValueError,
            "input: expected shape (N, C, H, W) or (N, C, D, H, W), got (2, 3, 4, 5, 6, 7)",
        ),
        (
            IMAGE,
            make(2, 7, 2),
            ValueError,
            "grid: expected shape (N, H_out, W_out, 2), got (2, 7, 2)",
        ),
        (
            IMAGE,
            make(2, 6, 7, 3),
            ValueError,
            "grid: expected shape (N, H_out, W_out, 2), got (2, 6, 7, 3)",
        ),
        (
            IMAGE,
            make(1, 6, 7, 2),
            ValueError,
            "grid: expected a batch of 2, as input has, got shape (1, 6, 7, 2)",
        ),
        (
            make(2, 3, 4, 5, dtype=np.uint8),
            GRID,
            TypeError,
            "input: expected float32 or float64, or float16 or bfloat16, got uint8; convert it, and "
            "divide 8-bit images by 255",
        ),
        (
            make(2, 3, 4, 5, dtype=np.int64),
            GRID,
            TypeError,
            "input: expected float32 or float64, or float16 or bfloat16, got int64",
        ),
        (
            make(2, 3, 4, 5, dtype=complex),
            GRID,
            TypeError,
            "input: expected float32 or float64, or float16 or bfloat16, got complex128",
        ),
        (
            IMAGE,
            make(2, 6, 7, 2, dtype=np.float16),
            TypeError,
            "grid: expected float32 or float64, got float16",
        ),
        (
            IMAGE,
            make(2, 6, 7, 2, dtype=int),
            TypeError,
            "grid: expected float32 or float64, got int64",
        ),
        (
            IMAGE,
            make(2, 6, 7, 2, dtype=np.float32),
            TypeError,
            "grid: expected float64, as input is, got float32; convert one of them",
        ),
        (
            torch.zeros(2, 3, 4, 5),
            GRID,
            TypeError,
            "arrays of different libraries: input is a torch.Tensor, grid is a numpy.ndarray; convert them to one",
        ),
        (
            IMAGE.tolist(),
            GRID,
            TypeError,
            "input: expected a NumPy, CuPy or PyTorch array, got list; convert it first, for instance with "
            "numpy.asarray",
        ),
        (IMAGE, None, TypeError, "grid: expected a NumPy, CuPy or PyTorch array, got NoneType"),
        (
            torch.zeros(2, 3, 4, 5),
            torch.zeros(2, 6, 7, 2, device="meta"),
            ValueError,
            "arrays on different devices: input is on cpu, grid is on meta; move them to one",
        ),
        (
            torch.zeros(2, 3, 4, 5),
            torch.zeros(2, 6, 7, 2).bfloat16(),
            TypeError,
            "grid: expected float32 or float64, got torch.bfloat16; convert it",
        ),
        (
            torch.zeros(2, 3, 4, 5).bfloat16(),
            torch.zeros(2, 6, 7, 2).half(),
            TypeError,
            "grid: expected float32 or float64, got torch.float16; convert it",
        ),
        (
            make(2, 3, 4, 5, dtype=np.float32),
            make(2, 6, 7, 2, dtype=np.float16),
            TypeError,
            "grid: expected float32 or float64, got float16; convert it",
        ),
        (
            make(2, 3, 0, 5),
            GRID,
            ValueError,
            "input: expected a height and a width of at least 1, got shape (2, 3, 0, 5)",
        ),
        (
            make(2, 3, 4, 0),
            GRID,
            ValueError,
            "input: expected a height and a width of at least 1",
        ),
        (
            IMAGE,
            make(2, 0, 7, 2),
            ValueError,
            "grid: expected a height and a width of at least 1, got shape",
        ),
        (
            IMAGE,
            make(2, 6, 0, 2),
            ValueError,
            "grid: expected a height and a width of at least 1, got shape",
        ),
    ],
)
def test_grid_sample_and_its_vjp_refuse(image, grid, error, message):
    for call in (
        stnlib.grid_sample,
        lambda *arrays: stnlib.grid_sample_vjp(make(2, 3, 6, 7), *arrays),
    ):
        with pytest.raises(error) as caught:
            call(image, grid)
        assert message in str(caught.value)


MODE_NAMES = ", ".join(KERNELS) + ", or a Kernel"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "cubic"}, f"mode: expected one of {MODE_NAMES}, got 'cubic'"),
        ({"mode": None}, f"mode: expected one of {MODE_NAMES}, got None"),
        ({"mode": Bicubic}, f"mode: expected one of {MODE_NAMES}, got {Bicubic!r}"),
        (
            {"mode": "or a Kernel"},
            f"mode: expected one of {MODE_NAMES}, got 'or a Kernel'",
        ),
        (
            {"padding_mode": "circular"},
            "padding_mode: expected one of zeros, border, reflection, wrap, mirror, fill, got 'circular'",
        ),
        (
            {"coordinates": "pixels"},
            "coordinates: expected one of normalised, pixel, got 'pixels'",
        ),
        ({"align_corners": "no"}, "align_corners: expected True or False, got 'no'"),
        ({"align_corners": None}, "align_corners: expected True or False, got None"),
        (
            {"fill_value": 1.0},
            "fill_value: expected padding_mode=\"fill\" beside it, got 'zeros'",
        ),
        (
            {"fill_value": make(3), "padding_mode": "border"},
            "fill_value: expected padding_mode=\"fill\" beside it, got 'border'",
        ),
        (
            {"fill_value": make(2), "padding_mode": "fill"},
            "fill_value: expected a number or one for each of 3 channels, got shape (2,)",
        ),
        (
            {"fill_value": make(2, 3), "padding_mode": "fill"},
            "fill_value: expected a number or one for each of 3 channels, got shape (2, 3)",
        ),
        *(
            (
                {"antialias": bad},
                f"antialias: expected True, False or the longest step in pixels, got {bad!r}",
            )
            for bad in (-1, float("nan"), float("inf"), "yes", None)
        ),
    ],
)
def test_unknown_options_are_refused(options, message):
    for call in (
        stnlib.grid_sample,
        lambda *arrays, **o: stnlib.grid_sample_vjp(make(2, 3, 6, 7), *arrays, **o),
        stnlib.grid_sample_jvp,
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call(IMAGE, GRID, **options)
        assert str(caught.value) == message


def test_a_fill_value_of_another_library_is_refused():
    with pytest.raises(
        TypeError, match=r"fill_value is a torch\.Tensor, input is a numpy\.nda"
    ):
        stnlib.grid_sample(IMAGE, GRID, padding_mode="fill", fill_value=torch.zeros(3))


@pytest.mark.parametrize(
    ("tangents", "error", "message"),
    [
        (
            {"input_tangent": make(2, 3, 4, 4)},
            ValueError,
            "input_tangent: expected shape (2, 3, 4, 5), as input has, got (2, 3, 4, 4)",
        ),
        (
            {"grid_tangent": make(6, 7, 2)},
            ValueError,
            "grid_tangent: expected shape (2, 6, 7, 2), as grid has, got (6, 7, 2)",
        ),
        (
            {"grid_tangent": make(2, 6, 7, 2, dtype=np.float32)},
            TypeError,
            "grid_tangent: expected float64, as grid is, got float32",
        ),
        (
            {"input_tangent": torch.zeros(2, 3, 4, 5)},
            TypeError,
            "input_tangent is a torch.Tensor, input is a numpy.ndarray",
        ),
        ({"grid_tangent": 1.0}, TypeError, "grid_tangent: expected a NumPy, CuPy or PyTorch"),
        (
            {"fill_tangent": make(2)},
            ValueError,
            "expected a number or one for each of 3 channels, got shape (2,)",
        ),
    ],
)
def test_a_tangent_that_does_not_fit_is_refused(tangents, error, message):
    with pytest.raises(error) as caught:
        stnlib.grid_sample_jvp(IMAGE, GRID, padding_mode="fill", **tangents)
    assert message in str(caught.value)


def test_affine_sample_refuses_what_its_parts_refuse():
    theta = np.tile(np.eye(2, 3), (2, 1, 1))
    with pytest.raises(
        ValueError, match=r"size: expected \(N, C, H, W\) or \(H, W\), got \(4,\)"
    ):
        stnlib.affine_sample(IMAGE, theta, (4,))
    with pytest.raises(ValueError, match=r"theta: expected shape \(N, 2, 3\), got \(2, 3, 4\)"):
        stnlib.affine_sample(IMAGE, make(2, 3, 4), (4, 5, 6))
    with pytest.raises(TypeError, match=r"theta: expected float32 or float64, got int64"):
        stnlib.affine_sample(IMAGE, theta.astype(int), (4, 5))
    with pytest.raises(
        TypeError, match="input: expected float32 or float64, or float16 or bfloat16, got uint8"
    ):
        stnlib.affine_sample(IMAGE.astype(np.uint8), theta, (4, 5))
    with pytest.raises(
        ValueError, match=r"theta_tangent: expected shape \(2, 2, 3\), as theta"
    ):
        stnlib.affine_sample_jvp(IMAGE, theta, (4, 5), theta_tangent=make(1, 2, 3))
    with pytest.raises(ValueError, match="coordinates: expected one of normalised, pixel"):
        stnlib.affine_grid(theta, (4, 5), coordinates="metre")


@pytest.mark.parametrize(
    ("theta", "size", "error", "message"),
    [
        (
            make(2, 3),
            (4, 5),
            ValueError,
            "theta: expected shape (N, 2, 3) or (N, 3, 4), got (2, 3)",
        ),
        (
            make(1, 3, 3),
            (4, 5),
            ValueError,
            "theta: expected shape (N, 2, 3) or (N, 3, 4), got (1, 3, 3)",
        ),
        (
            make(1, 6),
            (4, 5),
            ValueError,
            "theta: expected shape (N, 2, 3) or (N, 3, 4), got (1, 6)",
        ),
        (
            make(1, 2, 3, dtype=int),
            (4, 5),
            TypeError,
            "theta: expected float32 or float64, got int64",
        ),
        (
            [[[1.0, 0, 0], [0, 1, 0]]],
            (4, 5),
            TypeError,
            "theta: expected a NumPy, CuPy or PyTorch array, got list",
        ),
        (make(2, 2, 3), (4,), ValueError, "size: expected (N, C, H, W) or (H, W), got (4,)"),
        (
            make(2, 2, 3),
            [2, 4, 5],
            ValueError,
            "size: expected (N, C, H, W) or (H, W), got (2, 4, 5)",
        ),
        (
            make(2, 2, 3),
            (3, 1, 4, 5),
            ValueError,
            "size: expected a batch of 2, as theta has, got (3, 1, 4, 5)",
        ),
        (
            make(2, 2, 3),
            (0, 5),
            ValueError,
            "size: expected a height and a width of at least 1, got (0, 5)",
        ),
        (
            make(2, 2, 3),
            (2.5, 3),
            TypeError,
            "size: expected whole numbers of pixels, got (2.5, 3)",
        ),
        (
            make(2, 2, 3),
            (4, 0),
            ValueError,
            "size: expected a height and a width of at least 1, got (4, 0)",
        ),
        (
            make(2, 2, 3),
            (2, 1, -4, 5),
            ValueError,
            "size: expected a height and a width of at least 1, got",
        ),
    ],
)
def test_affine_grid_refuses(theta, size, error, message):
    with pytest.raises(error) as caught:
        stnlib.affine_grid(theta, size)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("grad_output", "error", "message"),
    [
        (
            make(2, 3, 7, 6),
            ValueError,
            "grad_output: expected shape (2, 3, 6, 7), as the output has, got (2, 3, 7, 6)",
        ),
        (
            make(3, 6, 7),
            ValueError,
            "grad_output: expected shape (2, 3, 6, 7), as the output has, got (3, 6, 7)",
        ),
        (
            make(2, 3, 6, 7, dtype=np.float32),
            TypeError,
            "grad_output: expected float64, as input is, got float32",
        ),
        (
            torch.zeros(2, 3, 6, 7),
            TypeError,
            "grad_output is a torch.Tensor, input is a numpy.ndarray",
        ),
        (1.0, TypeError, "grad_output: expected a NumPy, CuPy or PyTorch array, got float"),
    ],
)
def test_a_gradient_that_does_not_fit_is_refused(grad_output, error, message):
    with pytest.raises(error) as caught:
        stnlib.grid_sample_vjp(grad_output, IMAGE, GRID)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("grad_grid", "error", "message"),
    [
        (
            make(2, 6, 7),
            ValueError,
            "grad_grid: expected shape (N, H, W, 2) or (N, D, H, W, 3), got (2, 6, 7)",
        ),
        (
            make(2, 6, 7, 3),
            ValueError,
            "grad_grid: expected shape (N, H, W, 2) or (N, D, H, W, 3), got (2, 6, 7, 3)",
        ),
        (
            make(2, 6, 7, 2, dtype=int),
            TypeError,
            "grad_grid: expected float32 or float64, got int64",
        ),
    ],
)
def test_affine_grid_vjp_refuses(grad_grid, error, message):
    with pytest.raises(error) as caught:
        stnlib.affine_grid_vjp(grad_grid)
    assert message in str(caught.value)


# More kernels, paddings and dimensions


def cubic_case(seed, dimensions, dtype=np.float64):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 7, dimensions))
    image = rng.random((2, 2, *size)).astype(dtype)
    return image, rng.normal(0, 1.2, (2, *(3, 4, 2)[:dimensions], dimensions)).astype(dtype)


@EVERY_ENGINE
@pytest.mark.parametrize(
    ("mode", "dimensions"), [("bicubic", 2), ("nearest", 3), ("bilinear", 3)]
)
@EVERY_PADDING
@CORNERS
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
@FEW
@given(seed=SEEDS)
def test_bicubic_and_volumes_agree_with_torch(
    engine, mode, dimensions, padding_mode, align_corners, dtype, tolerance, seed
):
    if engine != "reference":
        tolerance *= 2  # sixteen products, summed in another order
    image, grid = cubic_case(seed, dimensions, dtype)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    output = stnlib.grid_sample(image, grid, **options)
    expected = torch_sample(image, grid, **options)
    assert_near(output, expected, tolerance)
    on_torch = stnlib.grid_sample(torch.as_tensor(image), torch.as_tensor(grid), **options)
    assert_near(on_torch, output, tolerance / 100)
    grad_output = np.random.default_rng(0).normal(size=output.shape).astype(dtype)
    grads = stnlib.grid_sample_vjp(grad_output, image, grid, **options)
    if dtype == np.float64:
        for grad, expected in zip(
            grads[:2], torch_gradients(grad_output, image, grid, **options), strict=True
        ):
            assert_near(grad, expected, tolerance)


@EVERY_ENGINE
@pytest.mark.parametrize("mode", list(KERNELS))
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("coordinates", ["normalised", "pixel"])
@CORNERS
def test_products_are_transposes_of_each_other(mode, padding_mode, coordinates, align_corners):
    rng = np.random.default_rng(0)
    image, theta = rng.random((2, 2, 4, 5)), np.eye(2, 3) + rng.normal(0, 0.6, (2, 2, 3))
    options = {
        "mode": mode,
        "padding_mode": padding_mode,
        "coordinates": coordinates,
        "align_corners": align_corners,
    }
    fill, fill_tangent = {}, {}
    if padding_mode == "fill":
        fill, fill_tangent = {"fill_value": rng.random(2)}, {"fill_tangent": rng.normal(size=2)}
    tangents = {"input_tangent": rng.normal(size=image.shape)}
    theta_tangent = rng.normal(size=theta.shape)
    g = rng.normal(size=(2, 2, 3, 4))
    moved = stnlib.affine_sample_jvp(
        image,
        theta,
        (3, 4),
        theta_tangent=theta_tangent,
        **tangents,
        **fill_tangent,
        **options,
        **fill,
    )
    grads = stnlib.affine_sample_vjp(g, image, theta, **options, **fill)
    right = (grads.input * tangents["input_tangent"]).sum() + (
        grads.theta * theta_tangent
    ).sum()
    right += (grads.fill * fill_tangent["fill_tangent"]).sum() if fill else 0
    assert (g * moved).sum() == pytest.approx(right, rel=1e-12, abs=1e-11)


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "wrap"])
def test_a_fixed_fill_value_has_no_tangent(padding_mode):
    image, grid = np.ones((1, 1, 2, 2)), np.full((1, 1, 1, 2), 5.0)
    with pytest.raises(
        ValueError, match=f'padding_mode="fill" beside it, got {padding_mode!r}'
    ):
        stnlib.grid_sample_jvp(image, grid, fill_tangent=1.0, padding_mode=padding_mode)


@EVERY_ENGINE
@pytest.mark.parametrize("mode", list(KERNELS))
@pytest.mark.parametrize("padding_mode", ["border", "wrap", "mirror"])
def test_three_dimensional_products_are_transposes_of_each_other(mode, padding_mode):
    rng = np.random.default_rng(0)
    if mode.startswith("bspline") and padding_mode == "border":
        padding_mode = "reflection"  # a volume with a margin is large
    image, grid = rng.random((1, 2, 3, 4, 2)), rng.normal(0, 0.8, (1, 2, 2, 2, 3))
    options = {"mode": mode, "padding_mode": padding_mode}
    tangents = [rng.normal(size=a.shape) for a in (image, grid)]
    g = rng.normal(size=(1, 2, 2, 2, 2))
    moved = stnlib.grid_sample_jvp(
        image, grid, input_tangent=tangents[0], grid_tangent=tangents[1], **options
    )
    grads = stnlib.grid_sample_vjp(g, image, grid, **options)
    right = sum((a * b).sum() for a, b in zip(grads[:2], tangents, strict=True))
    assert (g * moved).sum() == pytest.approx(right, rel=1e-12, abs=1e-11)


@EVERY_ENGINE
@LIBRARIES
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "bspline3"])
@pytest.mark.parametrize("coordinates", ["normalised", "pixel"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_affine_sample_is_the_grid_generator_and_the_sampler(xp, mode, coordinates, dimensions):
    rng = np.random.default_rng(0)
    size, out = (4, 5, 3)[:dimensions], (3, 4, 2)[:dimensions]
    image = rng.random((2, 2, *size)).astype(np.float32)
    theta = (
        np.eye(dimensions, dimensions + 1) + rng.normal(0, 0.4, (2, dimensions, dimensions + 1))
    ).astype(np.float32)
    image, theta = xp.asarray(image), xp.asarray(theta)
    double = theta.double() if xp is torch else theta.astype(np.float64)
    grid = stnlib.affine_grid(double, out, coordinates=coordinates)
    options = {"mode": mode, "padding_mode": "mirror", "coordinates": coordinates}
    output = stnlib.affine_sample(image, theta, out, **options)
    expected = stnlib.grid_sample(image, grid, **options)
    assert output.dtype == image.dtype
    # The one composes matrices, the other converts coordinates: positions differ by a rounding in float64, hence
    # weights by one in float32, 2**-24, at the most; up to 64 of them weigh numbers near 1.
    assert_near(output, expected, 64 * 2**-24)


def test_pixel_coordinates_of_affine_grid_by_hand():
    theta = np.array([[[2.0, 0.5, 1.0], [-1.0, 3.0, 0.25]]])
    grid = stnlib.affine_grid(theta, (2, 3), coordinates="pixel")
    x = [[1, 3, 5], [1.5, 3.5, 5.5]]
    y = [[0.25, -0.75, -1.75], [3.25, 2.25, 1.25]]
    assert_same(grid[0, ..., 0], x)
    assert_same(grid[0, ..., 1], y)


@EVERY_ENGINE
def test_opencv_agrees_on_pixel_coordinates():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    image, theta = rng.random((20, 30)), np.array([[1.5, 0.25, 1.0], [-0.5, 1.25, 4.0]])
    # OpenCV rounds positions to 1/32 pixel: here they are quarters.
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(image, theta, (14, 12), flags=flags)
    output = stnlib.affine_sample(image[None, None], theta[None], (12, 14), coordinates="pixel")
    assert_near(output[0, 0], expected, 1e-6)


@EVERY_ENGINE
@pytest.mark.parametrize(
    ("padding_mode", "skimage_mode"),
    [
        ("zeros", "constant"),
        ("border", "edge"),
        ("reflection", "symmetric"),
        ("mirror", "reflect"),
        ("wrap", "wrap"),
    ],
)
@pytest.mark.parametrize(("mode", "order"), [("bilinear", 1), (Bicubic(a=-0.5), 3)])
def test_skimage_agrees_on_pixel_coordinates(padding_mode, skimage_mode, mode, order):
    rng = np.random.default_rng(0)
    image, matrix = (
        rng.random((9, 8)),
        np.array([[1.3, 0.4, -2.1], [-0.6, 1.1, 2.7], [0, 0, 1]]),
    )
    expected = skimage.transform.warp(
        image, matrix, output_shape=(7, 6), order=order, mode=skimage_mode, clip=False
    )
    options = {"mode": mode, "padding_mode": padding_mode, "coordinates": "pixel"}
    output = stnlib.affine_sample(image[None, None], matrix[None, :2], (7, 6), **options)
    assert_near(output[0, 0], expected, 1e-12)


# Precision and layout


@EVERY_ENGINE
@LIBRARIES
def test_positions_on_a_wide_float32_row_are_within_a_millionth_of_a_pixel(xp):
    width = 65536
    ramp = (
        np.arange(width, dtype=np.float32).reshape(1, 1, 1, -1) % 256
    )  # steps of 1, exact in float32
    x = np.random.default_rng(0).integers(1, 255, 500) + 256.0 * np.arange(500) % 65280
    x = np.floor(x / 256) * 256 + np.clip(x % 256, 1, 253) + 0.37109375
    grid = np.stack([normalise(x, width), 0 * x], axis=-1)[None, None]
    output = stnlib.grid_sample(xp.asarray(ramp), xp.asarray(grid))
    error = np.asarray(output, dtype=np.float64).ravel() - x % 256
    # The value itself is a float32 of up to 256, rounded to 1.5e-5; count positions near 0 and 1 more sharply.
    assert np.abs(error).max() <= 2e-5
    few = (x % 256) < 8
    step = np.zeros_like(ramp)
    step[..., 1::2] = 1  # 0, 1, 0, 1 …: what is read is the position's fraction
    sawtooth = np.asarray(
        stnlib.grid_sample(xp.asarray(step), xp.asarray(grid)), dtype=np.float64
    ).ravel()
    fraction = np.where(np.floor(x) % 2 == 0, x % 1, 1 - x % 1)
    assert few.any()
    assert np.abs(sawtooth - fraction).max() <= 1e-6
    theta = np.array([[[1.0, 0.0, 0.74218750 / width], [0.0, 1.0, 0.0]]])
    moved = stnlib.affine_sample(xp.asarray(step), xp.asarray(theta), (1, width))
    moved = np.asarray(moved, dtype=np.float64)[0, 0, 0, :-1]
    expected = np.where(np.arange(width - 1) % 2 == 0, 0.37109375, 1 - 0.37109375)
    assert np.abs(moved - expected).max() <= 1e-6


@pytest.mark.parametrize("mode", list(KERNELS))
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("dtype", ["numpy.float16", "torch.float16", "torch.bfloat16"])
@pytest.mark.parametrize("engine", ["reference", "emulator"], indirect=True)
def test_half_precision_is_rounded_once(engine, mode, padding_mode, dtype):
    rng = np.random.default_rng(0)
    image, grid = rng.random((1, 2, 4, 5)), rng.normal(0, 0.8, (1, 3, 4, 2)).astype(np.float32)
    library, name = dtype.split(".")
    if library == "torch":
        image, grid = torch.as_tensor(image).to(getattr(torch, name)), torch.as_tensor(grid)
        wide = image.float()
    else:
        image = image.astype(np.float16)
        wide = image.astype(np.float32)
    options = {"mode": mode, "padding_mode": padding_mode}
    output, exact = (stnlib.grid_sample(a, grid, **options) for a in (image, wide))
    assert output.dtype == image.dtype
    exact = exact.to(image.dtype) if library == "torch" else exact.astype(np.float16)
    assert (output == exact).all()


@EVERY_ENGINE
@pytest.mark.parametrize("layout", ["transposed", "channels last", "expanded", "strided"])
@pytest.mark.parametrize("mode", ["bilinear", "bspline3"])
@LIBRARIES
def test_how_an_image_lies_in_memory_does_not_matter(xp, mode, layout):
    rng = np.random.default_rng(0)
    base = rng.random((2, 3, 8, 10))
    image = {
        "transposed": base.swapaxes(2, 3),
        "channels last": np.ascontiguousarray(base.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "expanded": np.broadcast_to(base[:1, :1], base.shape),
        "strided": base[:, ::-1, ::2, ::3] if xp is np else base[:, :, ::2, ::3],
    }[layout]
    grid = np.broadcast_to(rng.normal(0, 0.8, (1, 3, 1, 2)), (2, 3, 4, 2))
    grad_output = np.broadcast_to(rng.normal(size=(2, 1, 3, 1)), (2, 3, 3, 4))
    arrays = grad_output, image, grid
    if xp is torch:
        arrays = [torch.from_numpy(a.copy() if not a.flags.writeable else a) for a in arrays]
        if layout == "expanded":
            arrays[1] = torch.from_numpy(base)[:1, :1].expand(2, 3, 8, 10)
    output = stnlib.grid_sample(*arrays[1:], mode=mode)
    grads = stnlib.grid_sample_vjp(*arrays, mode=mode)
    plain = [np.ascontiguousarray(a) for a in (grad_output, image, grid)]
    assert_near(output, stnlib.grid_sample(*plain[1:], mode=mode), 1e-15)
    for grad, expected in zip(grads, stnlib.grid_sample_vjp(*plain, mode=mode), strict=True):
        assert_near(grad, expected, 1e-13)


@EVERY_ENGINE
@LIBRARIES
@pytest.mark.parametrize("mode", list(KERNELS))
def test_results_and_gradients_repeat_bit_for_bit(xp, mode):
    rng = np.random.default_rng(0)
    arrays = (
        rng.random((2, 2, 6, 6)),
        rng.random((2, 2, 5, 5)),
        rng.normal(0, 0.4, (2, 6, 6, 2)),
    )
    arrays = [xp.asarray(a) for a in arrays]
    first, again = (
        (
            stnlib.grid_sample(*arrays[1:], mode=mode),
            *stnlib.grid_sample_vjp(*arrays, mode=mode),
        )
        for _ in range(2)
    )
    for a, b in zip(first, again, strict=True):
        assert_same(a, b)


@pytest.mark.skipif(
    os.environ.get("STNLIB_SLOW") != "1", reason="reads an image of 4 GB: set STNLIB_SLOW=1"
)
def test_an_image_of_more_than_two_to_the_31_pixels_is_read_right_at_its_far_end():
    image = torch.zeros(1, 1, 2**15 + 2, 2**16, dtype=torch.float16)
    image[0, 0, -2:, -2:] = torch.tensor([[0.0, 5.0], [1.0, 3.0]])
    at = [[65535.0, 32769.0], [65534.5, 32769.0], [65534.5, 32768.5], [0.0, 0.0]]
    grid = torch.tensor([[at]], dtype=torch.float64)
    output = stnlib.grid_sample(image, grid, coordinates="pixel")
    assert output.flatten().tolist() == [3.0, 2.0, 2.25, 0.0]
