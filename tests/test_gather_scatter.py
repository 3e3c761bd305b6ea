import functools
import itertools

import array_api_compat.numpy as xp
import array_api_compat.torch as torch_xp
import numpy as np
import pytest

from stnlib import gather_scatter
from stnlib.gather_scatter import Sampler, along
from stnlib.interpolation import KERNELS, Bicubic, Gaussian, Lanczos
from stnlib.padding import PADDING_MODES, extend

LIBRARIES = pytest.mark.parametrize("library", [xp, torch_xp], ids=["numpy", "torch"])
EVERY_PADDING = pytest.mark.parametrize("padding_mode", PADDING_MODES)
KINDS = {
    **KERNELS,
    "bicubic-0.5": Bicubic(-0.5),
    "gaussian0.4": Gaussian(0.4),
    "lanczos2": Lanczos(2),
}
EVERY_KERNEL = pytest.mark.parametrize("kernel", KINDS.values(), ids=list(KINDS))
SMOOTH = pytest.mark.parametrize(
    "kernel", [KINDS[k] for k in ("bicubic", "bspline3", "bspline4", "gaussian", "lanczos")]
)
SIZES = pytest.mark.parametrize(
    "size", [(4, 5), (3, 4, 2), (1, 1)], ids=["2D", "3D", "one pixel"]
)


def problem(size, orders, seed=0, samples=6):
    rng = np.random.default_rng(seed)
    n, c, k = 2, 3, len(orders)
    return (
        rng.normal(size=(n, c, *size)),
        rng.normal(size=(n, c)),
        rng.uniform(-3, 7, (n, samples, len(size))),
        rng.normal(size=(k, n, c, samples)),
    )


def orders_of(dimensions, highest=2):
    return [
        o for o in itertools.product(range(highest + 1), repeat=dimensions) if sum(o) <= highest
    ]


def bound(kernel, padding_mode, library=xp):
    sampler = Sampler(kernel, padding_mode, False)
    gather = functools.partial(gather_scatter.gather, sampler=sampler, xp=library)

    def scatter(values, position, orders, size):
        return gather_scatter.scatter(values, position, orders, sampler, size, library)

    return gather, scatter


def dot(*pairs):
    return sum(float((a * b).sum()) for a, b in pairs)


@LIBRARIES
@EVERY_KERNEL
@EVERY_PADDING
@SIZES
def test_scatter_is_the_transpose_of_gather(library, kernel, padding_mode, size):
    orders = orders_of(len(size), 1)
    image, fill, position, values = (library.asarray(a) for a in problem(size, orders))
    gather, scatter = bound(kernel, padding_mode, library)
    read = gather(image, fill, position, orders)
    pixels, filled = scatter(values, position, orders, size)
    assert tuple(read.shape) == tuple(values.shape)
    assert pixels.shape == image.shape
    terms = float(library.sum(library.abs(values * read)))
    assert dot((values, read)) == pytest.approx(
        dot((pixels, image), (filled, fill)), abs=1e-13 * terms
    )


@pytest.mark.parametrize(
    "kernel", [KINDS[k] for k in ("bilinear", "bicubic", "bspline4", "lanczos")]
)
@EVERY_PADDING
def test_gather_is_the_double_sum_of_equation_three(kernel, padding_mode):
    size, orders = (4, 5), orders_of(2)
    image, fill, position, _ = problem(size, orders)
    gather, _ = bound(kernel, padding_mode)
    read = gather(image, fill, position, orders)
    # The endless image: 30 pixels to either side.
    m, index = np.arange(-30, 35), []
    for length in size:
        i, inside = extend(m, length, padding_mode, False, xp)
        index.append((i, np.ones_like(m, bool) if inside is None else inside))
    (row, has_row), (column, has_column) = index
    exists = has_row[:, None] & has_column
    endless = np.where(exists, image[:, :, row[:, None], column], fill[:, :, None, None])
    for o, (i, j) in enumerate(orders):
        wx, wy = (weights(kernel, position[..., a], m, k) for a, k in ((0, i), (1, j)))
        expected = np.einsum("nchw,nlh,nlw->ncl", endless, wy, wx)
        np.testing.assert_allclose(
            read[o], expected, rtol=0, atol=1e-12 * max(1, np.abs(expected).max())
        )


def weights(kernel, x, m, order):
    """Weights of every pixel of the endless row, and, normalised or not, their derivatives by the quotient rule."""
    d = x[..., None] - m
    reach = (d >= -kernel.support) & (d < kernel.support)
    d = np.clip(d, -kernel.support, kernel.support)
    k, k1, k2 = (
        np.where(reach, f(d, xp), 0)
        for f in (kernel.value, kernel.derivative, kernel.second_derivative)
    )
    if kernel.normalised:
        s, s1, s2 = (w.sum(-1, keepdims=True) for w in (k, k1, k2))
        k1, k2 = (
            k1 / s - k * s1 / s**2,
            k2 / s - 2 * k1 * s1 / s**2 - k * s2 / s**2 + 2 * k * s1**2 / s**3,
        )
        k = k / s
    return (k, k1, k2)[order]


@SMOOTH
@EVERY_PADDING
@SIZES
def test_products_agree_with_differences(kernel, padding_mode, size):
    orders = orders_of(len(size), 1)
    gather, scatter = bound(kernel, padding_mode)
    image, fill, position, values = problem(size, orders)
    image_t, fill_t, position_t, values_t = problem(size, orders, seed=1)
    position = (
        np.floor(position) + 0.25 + 0.2 * (position - np.floor(position))
    )  # off the knots
    h = 2.0**-16
    moved = gather_scatter.gather_jvp(
        image_t, fill_t, position_t, image, fill, position, orders, gather, xp
    )
    there, back = (
        gather(image + s * image_t, fill + s * fill_t, position + s * position_t, orders)
        for s in (h, -h)
    )
    # Rounding, 1e-15 / h = 7e-11; h**2 / 6 of the next derivatives, of up to 1e5 for these kernels: 4e-6.
    atol = 1e-5 * max(1, np.abs(moved).max())
    np.testing.assert_allclose(moved, (there - back) / (2 * h), rtol=0, atol=atol)
    pixels, filled = gather_scatter.scatter_jvp(
        values_t, position_t, values, position, orders, size, scatter, xp
    )
    ends = [
        scatter(values + s * values_t, position + s * position_t, orders, size) for s in (h, -h)
    ]
    for got, there, back in zip((pixels, filled), *ends, strict=True):
        atol = 1e-5 * max(1, np.abs(got).max())
        np.testing.assert_allclose(got, (there - back) / (2 * h), rtol=0, atol=atol)


@LIBRARIES
@EVERY_KERNEL
@EVERY_PADDING
def test_the_four_rules_are_two_pairs_of_transposes(library, kernel, padding_mode):
    size, orders = (4, 5), orders_of(2, 1)
    gather, scatter = bound(kernel, padding_mode, library)
    image, fill, position, values = (library.asarray(a) for a in problem(size, orders))
    image_t, fill_t, position_t, values_t = (
        library.asarray(a) for a in problem(size, orders, seed=1)
    )
    read_t = gather_scatter.gather_jvp(
        image_t, fill_t, position_t, image, fill, position, orders, gather, library
    )
    grads = (
        *scatter(values, position, orders, size),
        gather_scatter.position_gradient(
            values, image, fill, position, orders, gather, library
        ),
    )
    terms = float(library.sum(library.abs(values * read_t))) + 1
    tangents = (image_t, fill_t, position_t)
    assert dot((values, read_t)) == pytest.approx(
        dot(*zip(grads, tangents, strict=True)), abs=1e-12 * terms
    )
    pixels_t, filled_t = gather_scatter.scatter_jvp(
        values_t, position_t, values, position, orders, size, scatter, library
    )
    grads = gather_scatter.scatter_vjp(image, fill, values, position, orders, gather, library)
    terms = float(library.sum(library.abs(image * pixels_t))) + 1
    assert dot((image, pixels_t), (fill, filled_t)) == pytest.approx(
        dot(*zip(grads, (values_t, position_t), strict=True)), abs=1e-12 * terms
    )


@LIBRARIES
@EVERY_KERNEL
@EVERY_PADDING
def test_a_position_at_nan_scatters_nothing(library, kernel, padding_mode):
    orders = [(0, 0), (1, 0)]
    _, _, position, values = problem((4, 5), orders)
    position[:, 2, 0], position[:, 4, 1] = np.nan, np.nan
    keep = [0, 1, 3, 5]
    _, scatter = bound(kernel, padding_mode, library)
    every = scatter(library.asarray(values), library.asarray(position), orders, (4, 5))
    some = scatter(
        library.asarray(values[..., keep].copy()),
        library.asarray(position[:, keep].copy()),
        orders,
        (4, 5),
    )
    for a, b in zip(every, some, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-12)


@LIBRARIES
@EVERY_PADDING
@pytest.mark.parametrize(("n", "c"), [(0, 3), (2, 0), (0, 0)])
def test_nothing_gives_nothing(library, padding_mode, n, c):
    orders = [(0, 0), (0, 1)]
    gather, scatter = bound(KERNELS["bilinear"], padding_mode, library)
    image, fill = library.zeros((n, c, 4, 5)), library.zeros((n, c))
    position = library.zeros((n, 6, 2), dtype=library.float64)
    read = gather(image, fill, position, orders)
    assert tuple(read.shape) == (2, n, c, 6)
    pixels, filled = scatter(read, position, orders, (4, 5))
    assert (tuple(pixels.shape), tuple(filled.shape)) == ((n, c, 4, 5), (n, c))


def test_along_raises_one_order():
    assert along(0, [(0, 0), (1, 2)]) == [(1, 0), (2, 2)]
    assert along(2, [(0, 1, 0)]) == [(0, 1, 1)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_half_precision_is_read_in_float32(dtype):
    gather, _ = bound(KERNELS["bilinear"], "zeros")
    read = gather(
        np.ones((1, 1, 2, 2), dtype),
        np.zeros((1, 1), np.float32),
        np.zeros((1, 1, 2)),
        [(0, 0)],
    )
    assert read.dtype == (np.float32 if dtype == np.float16 else dtype)
