import itertools

import array_api_compat.numpy as xp
import array_api_compat.torch as torch_xp
import numpy as np
import pytest
import scipy.ndimage
import skimage.transform
from hypothesis import given, settings
from hypothesis import strategies as st

import stnlib
from stnlib.gather_scatter import Sampler
from stnlib.interpolation import KERNELS, BSpline, Gaussian
from stnlib.padding import PADDING_MODES, extend
from stnlib.prefilter import prefilter, prefilter_vjp

CASES = settings().max_examples
FEW = settings(max_examples=CASES if CASES >= 2000 else CASES // 5)
LIBRARIES = pytest.mark.parametrize("library", [xp, torch_xp], ids=["numpy", "torch"])
ORDERS = pytest.mark.parametrize("order", [2, 3, 4, 5])
EVERY_PADDING = pytest.mark.parametrize("padding_mode", PADDING_MODES)
CORNERS = pytest.mark.parametrize("align_corners", [False, True])
SEEDS = st.integers(0, 2**32 - 1)
ENDLESS = [
    ("mirror", False, "mirror"),
    ("mirror", True, "mirror"),
    ("reflection", True, "mirror"),
    ("reflection", False, "reflect"),
    ("wrap", False, "grid-wrap"),
    ("wrap", True, "grid-wrap"),
]
CONSTANT = [("fill", "grid-constant"), ("zeros", "grid-constant"), ("border", "nearest")]


def sample(image, positions, order, padding_mode, align_corners=False, library=xp, **options):
    """Sample one channel at positions, one array an axis, the last axis of the image last as SciPy has them."""
    grid = np.stack(positions[::-1], axis=-1)[None]
    output = stnlib.grid_sample(
        library.asarray(image[None, None]),
        library.asarray(grid),
        mode=f"bspline{order}",
        coordinates="pixel",
        padding_mode=padding_mode,
        align_corners=align_corners,
        **options,
    )
    return np.asarray(output)[0, 0]


def case(seed, dimensions, far, largest):
    """An image of at least 30 pixels an axis, and positions up to `far` pixels about it."""
    rng = np.random.default_rng(seed)
    size = rng.integers(30, largest + 1, dimensions)
    out = (6, 7, 5)[-dimensions:]
    return rng.random(size), [rng.uniform(-far, n - 1 + far, out) for n in size]


def assert_near(actual, expected, tolerance):
    atol = tolerance * max(1, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


# SciPy's splines


# On a row shorter than about 30 pixels SciPy's own start at the border is approximate: |pole|**(2 * 30) is 3e-22 for
# order 5, but |pole|**(2 * 10) is 5e-8.
@ORDERS
@pytest.mark.parametrize(("padding_mode", "align_corners", "scipy_mode"), ENDLESS)
@FEW
@given(library=st.sampled_from([xp, torch_xp]), seed=SEEDS)
def test_scipy_agrees_where_the_image_repeats(
    order, padding_mode, align_corners, scipy_mode, library, seed
):
    image, positions = case(seed, 2, 70, 40)
    expected = scipy.ndimage.map_coordinates(image, positions, order=order, mode=scipy_mode)
    output = sample(image, positions, order, padding_mode, align_corners, library)
    assert_near(output, expected, 1e-12)


# SciPy pads the image itself by 12 pixels, too few for order 4 and 5; here it gets one with 60 around it.
@ORDERS
@pytest.mark.parametrize(("padding_mode", "scipy_mode"), CONSTANT)
@FEW
@given(
    library=st.sampled_from([xp, torch_xp]),
    align_corners=st.booleans(),
    seed=SEEDS,
    value=st.floats(-2, 2),
)
def test_scipy_agrees_about_an_image_amid_a_constant(
    order, padding_mode, scipy_mode, library, align_corners, seed, value
):
    image, positions = case(seed, 2, 30, 36)
    value = value if padding_mode == "fill" else 0.0
    how = {"mode": "edge"} if padding_mode == "border" else {"constant_values": value}
    expected = scipy.ndimage.map_coordinates(
        np.pad(image, 60, **how),
        [p + 60 for p in positions],
        order=order,
        mode=scipy_mode,
        cval=value,
    )
    options = {"fill_value": value} if padding_mode == "fill" else {}
    output = sample(image, positions, order, padding_mode, align_corners, library, **options)
    assert_near(output, expected, 1e-12)


# How far out its 12 pixels suffice for 1e-8, measured: anywhere for order 2 (worst 6e-10); up to 8 pixels outside the
# image for order 3 (3e-10; at 12 it is 1e-7), up to 4 for order 4 (4e-10; at 8 it is 3e-8), and up to 2 for order 5
# (2e-9; at 4 it is 1e-8).
@pytest.mark.parametrize(("order", "far"), [(2, 30), (3, 8), (4, 4), (5, 2)])
@pytest.mark.parametrize(("padding_mode", "scipy_mode"), CONSTANT)
@FEW
@given(seed=SEEDS)
def test_scipy_agrees_near_the_image_without_help(order, far, padding_mode, scipy_mode, seed):
    image, positions = case(seed, 2, far, 40)
    value = 0.3 if padding_mode == "fill" else 0.0
    expected = scipy.ndimage.map_coordinates(
        image, positions, order=order, mode=scipy_mode, cval=value
    )
    options = {"fill_value": value} if padding_mode == "fill" else {}
    assert_near(sample(image, positions, order, padding_mode, **options), expected, 1e-8)


@ORDERS
@pytest.mark.parametrize(("padding_mode", "align_corners", "scipy_mode"), ENDLESS[::2])
def test_scipy_agrees_in_three_dimensions(order, padding_mode, align_corners, scipy_mode):
    image, positions = case(order, 3, 40, 33)
    expected = scipy.ndimage.map_coordinates(image, positions, order=order, mode=scipy_mode)
    for library in (xp, torch_xp):
        output = sample(image, positions, order, padding_mode, align_corners, library)
        assert_near(output, expected, 1e-12)


def test_scipy_agrees_in_three_dimensions_amid_a_constant():
    rng = np.random.default_rng(0)
    image, positions = (
        rng.random((5, 6, 7)),
        [rng.uniform(-5, n + 4, (4, 5, 6)) for n in (5, 6, 7)],
    )
    for order, (padding_mode, scipy_mode) in itertools.product((3, 5), CONSTANT):
        how = {"mode": "edge"} if padding_mode == "border" else {"constant_values": 0.0}
        expected = scipy.ndimage.map_coordinates(
            np.pad(image, 45, **how), [p + 45 for p in positions], order=order, mode=scipy_mode
        )
        assert_near(sample(image, positions, order, padding_mode), expected, 1e-12)


@ORDERS
@pytest.mark.filterwarnings("ignore:Bi-quadratic interpolation behavior has changed")
@pytest.mark.parametrize(
    ("padding_mode", "skimage_mode", "tolerance"),
    [
        ("mirror", "reflect", 1e-12),
        ("reflection", "symmetric", 1e-12),
        ("border", "edge", 1e-8),
    ],
)
def test_skimage_warp_agrees(order, padding_mode, skimage_mode, tolerance):
    rng = np.random.default_rng(order)
    image, angle = rng.random((40, 44)), 0.2
    matrix = np.array(
        [[np.cos(angle), -np.sin(angle), 14.3], [np.sin(angle), np.cos(angle), 8.7], [0, 0, 1]]
    )
    # Given a matrix and order 3, it would take Keys' kernel; given a function, it hands on to SciPy, which at an
    # "edge" pads by 12 pixels.
    expected = skimage.transform.warp(
        image,
        lambda xy: xy @ matrix[:2, :2].T + matrix[:2, 2],
        output_shape=(15, 16),
        order=order,
        mode=skimage_mode,
        clip=False,
    )
    output = stnlib.affine_sample(
        image[None, None],
        matrix[None, :2],
        (15, 16),
        mode=f"bspline{order}",
        coordinates="pixel",
        padding_mode=padding_mode,
    )
    assert_near(output[0, 0], expected, tolerance)


# A dense system of linear equations


def dense(values, order, padding_mode, align_corners, value, x):
    """Solve for the endless spline through a row: 75 pixels to either side, and then zero coefficients."""
    n, far, kernel = len(values), 75, BSpline(order)
    m = np.arange(-far, n + far)
    index, inside = extend(m, n, padding_mode, align_corners, xp)
    row = values[index] if inside is None else np.where(inside, values[index], value)
    matrix = kernel_matrix(kernel, m, m)
    return kernel_matrix(kernel, x, m) @ np.linalg.solve(matrix, row)


def kernel_matrix(kernel, x, m):
    d = np.asarray(x)[:, None] - m
    return np.where(
        np.abs(d) <= kernel.support,
        kernel.value(np.clip(d, -kernel.support, kernel.support), xp),
        0,
    )


@ORDERS
@pytest.mark.parametrize(
    ("padding_mode", "align_corners"),
    [*((p, False) for p in PADDING_MODES), ("reflection", True)],
)
@FEW
@given(library=st.sampled_from([xp, torch_xp]), seed=SEEDS, size=st.integers(1, 12))
def test_a_dense_solve_agrees_on_rows_of_any_length(
    order, padding_mode, align_corners, library, seed, size
):
    rng = np.random.default_rng(seed)
    values, x = rng.normal(size=size), rng.uniform(-25, size + 25, 20)
    value = 0.6 if padding_mode == "fill" else 0.0
    options = {"fill_value": value} if padding_mode == "fill" else {}
    expected = dense(values, order, padding_mode, align_corners, value, x)
    # An image of one row. Across it, at the row's centre, the spline passes through the row's own.
    output = sample(
        values[None],
        [0 * x[None], x[None]],
        order,
        padding_mode,
        align_corners,
        library,
        **options,
    )
    assert_near(output[0], expected, 1e-12)


# The prefilter itself


@LIBRARIES
@ORDERS
@EVERY_PADDING
@pytest.mark.parametrize("size", [(1,), (2,), (3,), (5, 1), (4, 6)])
def test_its_transpose_is_its_transpose(library, order, padding_mode, size):
    rng = np.random.default_rng(0)
    sampler = Sampler(BSpline(order), padding_mode, False)
    arrays = rng.normal(size=(2, 3, *size)), rng.normal(size=(2, 3))
    image, fill = (library.asarray(a) for a in arrays)
    coefficients, filled, margin = prefilter(image, fill, sampler, library)
    assert tuple(coefficients.shape[2:]) == tuple(n + 2 * margin for n in size)
    g, h = rng.normal(size=tuple(coefficients.shape)), rng.normal(size=(2, 3))
    grad, grad_fill = prefilter_vjp(library.asarray(g), library.asarray(h), sampler, library)
    assert grad.shape == image.shape
    left = (g * np.asarray(coefficients)).sum() + (h * np.asarray(filled)).sum()
    right = float((grad * image).sum() + (grad_fill * fill).sum())
    terms = np.abs(g * np.asarray(coefficients)).sum() + 1
    assert left == pytest.approx(right, abs=1e-13 * terms)


@EVERY_PADDING
@CORNERS
def test_the_margin_is_there_where_the_image_does_not_repeat(padding_mode, align_corners):
    sampler = Sampler(BSpline(3), padding_mode, align_corners)
    _, _, margin = prefilter(np.zeros((1, 1, 4, 5)), np.zeros((1, 1)), sampler, xp)
    assert (margin > 0) == (padding_mode in ("zeros", "border", "fill"))


@pytest.mark.parametrize("kernel", [KERNELS["bilinear"], KERNELS["bicubic"], Gaussian(1.0)])
def test_a_kernel_without_poles_gets_its_image_back(kernel):
    image, fill = np.ones((1, 1, 2, 2), np.float32), np.zeros((1, 1), np.float32)
    sampler = Sampler(kernel, "zeros", False)
    assert prefilter(image, fill, sampler, xp)[0] is image
    assert prefilter_vjp(image, fill, sampler, xp)[0] is image


@ORDERS
@EVERY_PADDING
def test_float32_images_are_prefiltered_in_float64(order, padding_mode):
    image = np.random.default_rng(0).random((9, 10)).astype(np.float32)
    positions = [
        p.astype(np.float64) for p in np.random.default_rng(1).uniform(-5, 14, (2, 6, 7))
    ]
    exact = sample(image.astype(np.float64), positions, order, padding_mode)
    output = sample(image, positions, order, padding_mode)
    assert output.dtype == np.float32
    assert_near(output, exact, 1e-6)


@ORDERS
@EVERY_PADDING
def test_the_gradient_of_the_pixels_passes_through_the_prefilter(order, padding_mode):
    rng = np.random.default_rng(0)
    image, grid = rng.random((1, 1, 3, 4)), rng.uniform(-4, 8, (1, 3, 3, 2))
    options = {"mode": f"bspline{order}", "coordinates": "pixel", "padding_mode": padding_mode}
    grad_output = rng.normal(size=(1, 1, 3, 3))
    grad = stnlib.grid_sample_vjp(grad_output, image, grid, **options).input
    for place in np.ndindex(image.shape):
        unit = np.zeros_like(image)
        unit[place] = 1.0
        expected = (grad_output * stnlib.grid_sample(unit, grid, **options)).sum()
        assert grad[place] == pytest.approx(expected, abs=1e-12)
