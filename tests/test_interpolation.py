import pickle

import array_api_compat.numpy as xp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stnlib
from stnlib.interpolation import KERNELS, Bicubic, BSpline, Gaussian, Kernel, Lanczos, taps
from stnlib.padding import PADDING_MODES

CASES = settings().max_examples
FEW = settings(max_examples=CASES if CASES >= 2000 else CASES // 3)
KINDS = {
    **KERNELS,
    "bicubic-0.5": Bicubic(a=-0.5),
    "gaussian0.3": Gaussian(0.3),
    "gaussian1.5": Gaussian(1.5),
    "lanczos1": Lanczos(1),
    "lanczos2": Lanczos(2),
    "lanczos5": Lanczos(5),
}
EVERY_KERNEL = pytest.mark.parametrize("kernel", KINDS.values(), ids=list(KINDS))
POLYNOMIAL = pytest.mark.parametrize(
    "kernel", [Bicubic(), Bicubic(-0.5), *map(BSpline, (2, 3, 4, 5))], ids=repr
)
EVERY_MODE = pytest.mark.parametrize("mode", list(KERNELS))
EVERY_PADDING = pytest.mark.parametrize("padding_mode", PADDING_MODES)
CORNERS = pytest.mark.parametrize("align_corners", [False, True])


def taps_at(x, size, kernel, padding_mode, align_corners, order=0):
    positions = np.asarray(x, dtype=np.float64)
    return taps(
        positions,
        size,
        kernel=KERNELS.get(kernel, kernel) if isinstance(kernel, str) else kernel,
        padding_mode=padding_mode,
        align_corners=align_corners,
        order=order,
        xp=xp,
    )


# The kernels


def test_linear_kernel_is_a_triangle():
    d = np.array([-1.0, -0.75, -0.5, 0.0, 0.25, 1.0])
    assert KERNELS["bilinear"].value(d, xp).tolist() == [0.0, 0.25, 0.5, 1.0, 0.75, 0.0]


def test_nearest_kernel_is_one():
    assert KERNELS["nearest"].value(np.array([-0.5, 0.0, 0.25]), xp).tolist() == [1.0, 1.0, 1.0]


def between_knots(kernel):
    """Positions in the kernel's support, 1/32 and more from the ends of its pieces."""
    cells = np.arange(-kernel.support, kernel.support)
    u = np.concatenate([(np.arange(15) + 1) / 32, (np.arange(15) + 17) / 32])
    return (cells[:, None] + u).ravel()


@EVERY_MODE
@given(d=st.floats(-0.999, 0.999).filter(lambda d: abs(d) > 1e-3))
def test_derivative_agrees_with_finite_differences_off_the_knots(mode, d):
    kernel, h = KERNELS[mode], 2.0**-12
    d *= kernel.support if mode != "nearest" else 1
    if abs((d + kernel.support) - round(d + kernel.support)) < 2 * h:
        return
    difference = (kernel.value(np.array(d + h), xp) - kernel.value(np.array(d - h), xp)) / (
        2 * h
    )
    # 1e-16 / h; and, where the kernel bends, a sixth of h**2 times its third derivative, up to 50 for a kernel here.
    bent = 0 if mode in ("nearest", "bilinear") else 50 / 6 * h**2
    assert kernel.derivative(np.array(d), xp) == pytest.approx(difference, abs=1e-12 + bent)


@EVERY_KERNEL
@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_agree_with_differences_of_eighth_order(kernel, order):
    below, above = [
        (kernel.value, kernel.derivative),
        (kernel.derivative, kernel.second_derivative),
    ][order - 1]
    d, h = between_knots(kernel), 2.0**-8
    rise = sum(
        c * (below(d + k * h, xp) - below(d - k * h, xp)) / h
        for k, c in enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), 1)
    )
    # The remainder is h**8 / 630 times the ninth derivative of `below`: up to 1e-8 for sigma = 0.3, else below 1e-12.
    expected = above(d, xp)
    scale = np.abs(expected).max(initial=1)
    tolerance = 2e-8 if kernel == Gaussian(0.3) else 1e-11
    np.testing.assert_allclose(rise, expected, rtol=0, atol=tolerance * scale)


@POLYNOMIAL
def test_on_the_knots_the_derivatives_are_those_from_the_right(kernel):
    knots = np.arange(-kernel.support, kernel.support)
    # Six samples of a piece determine it: it is of degree five at most. Differentiate the polynomial itself.
    u = np.arange(1, 7) / 8
    for knot in knots:
        piece = np.polynomial.Polynomial.fit(
            u, kernel.value(knot + u, xp), 5, domain=[-1, 1], window=[-1, 1]
        )
        d = np.array(knot)
        assert kernel.value(d, xp) == pytest.approx(piece(0), abs=1e-12)
        assert kernel.derivative(d, xp) == pytest.approx(piece.deriv()(0), abs=1e-10)
        assert kernel.second_derivative(d, xp) == pytest.approx(piece.deriv(2)(0), abs=1e-9)


def test_on_the_knots_the_second_derivative_of_keys_kernel_jumps_as_it_should():
    a, kernel = -0.75, Bicubic()
    knots = np.array([-2.0, -1.0, 0.0, 1.0])
    # From the right, in u: a (u**2 - u**3) ends at distance 2, then …
    np.testing.assert_allclose(
        kernel.second_derivative(knots, xp),
        [2 * a, 4 * a + 6, -2 * (a + 3), -4 * a],
        atol=1e-14,
    )
    np.testing.assert_allclose(kernel.derivative(knots, xp), [0, -a, 0, a], atol=1e-14)


def test_derivative_at_the_knot_is_that_from_the_right():
    kernel, h = KERNELS["bilinear"], 0.25
    d = np.array([-1.0, 0.0])
    np.testing.assert_array_equal(
        kernel.derivative(d, xp), (kernel.value(d + h, xp) - kernel.value(d, xp)) / h
    )


@pytest.mark.parametrize(
    ("mode", "d", "values"),
    [
        ("bspline2", [-1.5, -0.5, 0.0, 0.5, 1.0], [0, 1 / 2, 3 / 4, 1 / 2, 1 / 8]),
        ("bspline3", [-2, -1, 0, 0.5, 1], [0, 1 / 6, 2 / 3, 23 / 48, 1 / 6]),
        ("bspline4", [0, 1, 2], [115 / 192, 19 / 96, 1 / 384]),
        ("bspline5", [-2, -1, 0, 1, 2], [1 / 120, 26 / 120, 66 / 120, 26 / 120, 1 / 120]),
        ("bicubic", [-2, -1.5, -1, -0.5, 0, 0.5, 1.5], [0, -3 / 32, 0, 19 / 32, 1, 19 / 32, -3 / 32]),
    ],
)  # fmt: skip
def test_kernel_values_by_hand(mode, d, values):
    np.testing.assert_allclose(
        KERNELS[mode].value(np.asarray(d, float), xp), values, rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("a", [1, 2, 3, 5])
def test_lanczos_is_a_windowed_sinc(a):
    d = np.concatenate([np.linspace(-a, a, 97), [0.0, 1e-9, -1e-9]])
    np.testing.assert_allclose(
        Lanczos(a).value(d, xp), np.sinc(d) * np.sinc(d / a), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.5])
def test_gaussian_is_a_gaussian_and_reaches_six_standard_deviations(sigma):
    kernel = Gaussian(sigma)
    assert kernel.support >= 6 * sigma > kernel.support - 1
    weights = [float(t.weights[0]) for t in taps_at(0.25, 4, kernel, "zeros", False)]
    m = np.arange(1 - kernel.support, kernel.support + 1)
    expected = np.exp(-((0.25 - m) ** 2) / (2 * sigma**2))
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=0, atol=1e-15)


@EVERY_KERNEL
def test_kernels_are_even_and_continuous_but_for_nearest(kernel):
    d = between_knots(kernel)
    np.testing.assert_allclose(kernel.value(d, xp), kernel.value(-d, xp), rtol=0, atol=1e-15)
    if kernel is KERNELS["nearest"]:
        return
    knots, h = np.arange(-kernel.support, kernel.support + 1), 1e-9
    inner = knots[1:-1]
    jump = kernel.value(inner, xp) - kernel.value(inner - h, xp)
    np.testing.assert_allclose(jump, 0, atol=1e-8)
    ends = kernel.value(np.array([-kernel.support, kernel.support], float), xp)
    np.testing.assert_allclose(ends, 0, atol=2e-8 if isinstance(kernel, Gaussian) else 1e-15)


@pytest.mark.parametrize(
    ("order", "poles"),
    [
        (2, [np.sqrt(8) - 3]),
        (3, [np.sqrt(3) - 2]),
        (4, [np.sqrt(664 + s * np.sqrt(438976)) - s * np.sqrt(304) - 19 for s in (-1, 1)]),
        (5, [np.sqrt(67.5 + s * np.sqrt(4436.25)) - s * np.sqrt(26.25) - 6.5 for s in (-1, 1)]),
    ],
)  # fmt: skip
def test_poles_are_those_of_the_literature(order, poles):
    np.testing.assert_allclose(BSpline(order).poles, sorted(poles), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BSpline(7), "order: expected 2, 3, 4 or 5, got 7"),
        (lambda: BSpline(1), "order: expected 2, 3, 4 or 5, got 1"),
        (lambda: BSpline("3"), "order: expected 2, 3, 4 or 5, got '3'"),
        (lambda: Gaussian(0), "sigma: expected a number of pixels of at least 0.1, got 0"),
        (
            lambda: Gaussian(-1.0),
            "sigma: expected a number of pixels of at least 0.1, got -1.0",
        ),
        (
            lambda: Gaussian(np.inf),
            "sigma: expected a number of pixels of at least 0.1, got inf",
        ),
        (
            lambda: Gaussian(np.nan),
            "sigma: expected a number of pixels of at least 0.1, got nan",
        ),
        (lambda: Lanczos(0), "a: expected a whole number of at least 1, got 0"),
        (lambda: Lanczos(2.5), "a: expected a whole number of at least 1, got 2.5"),
    ],
)
def test_a_kernel_that_cannot_be_is_refused(make, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert str(caught.value) == message


class Tent(Kernel):
    """A kernel of a user's own: linear, and without derivatives."""

    support = 1

    def value(self, d, xp):
        return 1 - xp.abs(d)


def test_a_kernel_of_ones_own_samples():
    image = np.random.default_rng(0).random((1, 2, 5, 6))
    grid = np.random.default_rng(1).normal(0, 0.8, (1, 4, 4, 2))
    np.testing.assert_allclose(
        stnlib.grid_sample(image, grid, mode=Tent()),
        stnlib.grid_sample(image, grid),
        rtol=0,
        atol=1e-15,
    )


def test_what_a_kernel_of_ones_own_lacks_is_named():
    image, grid = np.ones((1, 1, 3, 3)), np.zeros((1, 1, 1, 2))
    grad_output = np.ones((1, 1, 1, 1))
    with pytest.raises(NotImplementedError, match=r"Tent: give the kernel a method derivative"):
        stnlib.grid_sample_vjp(grad_output, image, grid, mode=Tent())
    with pytest.raises(NotImplementedError, match=r"Kernel: .* method value\(d, xp\)"):
        Kernel().value(np.zeros(1), xp)
    with pytest.raises(NotImplementedError, match=r"Tent: .* second_derivative\(d, xp\)"):
        Tent().second_derivative(np.zeros(1), xp)
    with pytest.raises(NotImplementedError, match="a derivative of order 3 was asked for"):
        taps_at(0.5, 4, "bilinear", "zeros", False, order=3)


@EVERY_KERNEL
def test_kernels_can_be_pickled_and_have_keys_of_their_own(kernel):
    copy = pickle.loads(pickle.dumps(kernel))
    d = between_knots(kernel)
    np.testing.assert_array_equal(copy.value(d, xp), kernel.value(d, xp))
    assert copy.support == kernel.support
    assert copy.key != kernel.key


def test_kernels_with_the_same_parameters_are_equal():
    assert Bicubic(-0.5) == Bicubic(-0.5) != Bicubic()
    assert BSpline(3) == BSpline() != BSpline(5)
    assert len({Lanczos(3), Lanczos(), Lanczos(2), Gaussian(0.5), Gaussian()}) == 3


# Which pixels are read, with which weights


@pytest.mark.parametrize(
    ("mode", "x", "pixels"),
    [
        ("bilinear", 1.0, [1, 2]),
        ("bilinear", 1.25, [1, 2]),
        ("nearest", 1.25, [1]),
        ("nearest", 1.75, [2]),
        ("bicubic", 4.0, [3, 4, 5, 6]),
        ("bicubic", 4.75, [3, 4, 5, 6]),
        ("bspline2", 4.25, [3, 4, 5]),
        ("bspline2", 4.5, [4, 5, 6]),
        ("bspline2", 4.75, [4, 5, 6]),
        ("bspline3", 4.0, [3, 4, 5, 6]),
        ("bspline4", 4.49, [2, 3, 4, 5, 6]),
        ("bspline4", 4.5, [3, 4, 5, 6, 7]),
        ("bspline5", 4.9, [2, 3, 4, 5, 6, 7]),
        ("lanczos", 4.0, [2, 3, 4, 5, 6, 7]),
        ("gaussian", 4.5, [2, 3, 4, 5, 6, 7]),
    ],
)
def test_which_pixels_are_read(mode, x, pixels):
    size = 4 if x < 4 else 9
    assert [int(tap.index) for tap in taps_at(x, size, mode, "border", False)] == pixels


@pytest.mark.parametrize(("x", "pixel"), [(-0.5, 0), (0.5, 0), (1.5, 2), (2.5, 2)])
def test_nearest_tie_goes_to_the_even_pixel(x, pixel):
    (tap,) = taps_at(x, 4, "nearest", "zeros", False)
    assert (int(tap.index), bool(tap.inside)) == (pixel, True)


@EVERY_PADDING
def test_weights_come_from_the_position_before_any_index_is_clipped(padding_mode):
    first, second = taps_at([-0.25, 3.25], 4, "bilinear", padding_mode, False)
    assert first.weights[0].tolist() == [0.25, 0.75]
    assert second.weights[0].tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("padding_mode", "align_corners", "pixels"),
    [
        ("border", False, [0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2]),
        ("reflection", False, [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]),
        ("reflection", True, [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]),
        ("mirror", False, [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]),
        ("mirror", True, [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]),
        ("wrap", False, [1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]),
        ("wrap", True, [1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]),
    ],
)
def test_pixels_beyond_the_border_by_hand(padding_mode, align_corners, pixels):
    (tap,) = taps_at(np.arange(-5, 8), 3, "nearest", padding_mode, align_corners)
    assert tap.index.tolist() == pixels
    assert tap.inside is None


@pytest.mark.parametrize("padding_mode", ["zeros", "fill"])
def test_zero_padding_says_which_pixels_exist(padding_mode):
    (tap,) = taps_at(np.arange(-2, 5), 3, "nearest", padding_mode, False)
    assert tap.inside.tolist() == [False, False, True, True, True, False, False]


ANYWHERE = st.one_of(
    st.floats(-100.0, 100.0),
    st.floats(-1e18, 1e18),
    st.sampled_from(
        [
            -1e18,
            1e18,
            2.0**52 + 0.5,
            2.0**53,
            -(2.0**53) - 2,
            1e300,
            -1e300,
            np.inf,
            -np.inf,
            np.nan,
        ]
    ),
)


@EVERY_MODE
@EVERY_PADDING
@CORNERS
@FEW
@given(x=ANYWHERE, size=st.integers(1, 9))
def test_index_is_always_a_pixel_of_the_image(mode, padding_mode, align_corners, x, size):
    for tap in taps_at(x, size, mode, padding_mode, align_corners):
        assert tap.index.dtype == np.int64
        assert 0 <= tap.index < size


@EVERY_MODE
@EVERY_PADDING
@CORNERS
@FEW
@given(x=ANYWHERE.filter(np.isfinite), size=st.integers(1, 9))
def test_weights_sum_to_one_and_slopes_to_zero(mode, padding_mode, align_corners, x, size):
    found = taps_at(x, size, mode, padding_mode, align_corners, order=2)
    value, slope, bend = (sum(tap.weights[i] for tap in found) for i in range(3))
    largest = [max(abs(float(tap.weights[i])) for tap in found) for i in range(3)]
    if mode in ("nearest", "bilinear"):
        assert value == pytest.approx(1.0, abs=2e-16)
        assert (slope, bend) == (0, 0)
    else:
        assert value == pytest.approx(1.0, abs=2e-15)
        assert slope == pytest.approx(0, abs=4e-15 * max(1, largest[1]))
        assert bend == pytest.approx(0, abs=4e-14 * max(1, largest[2]))


@EVERY_KERNEL
@FEW
@given(x=st.floats(-50, 50))
def test_derivatives_of_the_weights_agree_with_differences(kernel, x):
    h = 2.0**-14
    offset = x - 0.5 * (kernel.support % 1 != 0)
    if abs(offset - round(offset)) < 2 * h:
        x += 0.25
    below = taps_at([x - h, x, x + h], 30, kernel, "border", False, order=2)
    for tap in below:
        for i in (0, 1):
            w = tap.weights[i]
            # h**2 / 6 of the third derivative more. Sigma = 0.3: powers of 1 / sigma**2 = 11, up to 11**4 / 6.
            bound = 2500 * h**2 / 6
            assert (w[2] - w[0]) / (2 * h) == pytest.approx(tap.weights[i + 1][1], abs=bound)


@EVERY_KERNEL
@EVERY_PADDING
def test_weights_at_nan_are_nan(kernel, padding_mode):
    for tap in taps_at(np.nan, 4, kernel, padding_mode, False, order=2):
        assert [bool(np.isnan(w)) for w in tap.weights] == [True] * 3


# What a kernel reproduces, sampled on an image


def rows(kernel, values, x, **options):
    grid = np.stack([x, np.zeros_like(x)], axis=-1)[None, None]
    image = np.asarray(values, float)[None, None, None]
    return stnlib.grid_sample(image, grid, mode=kernel, coordinates="pixel", **options)[0, 0, 0]


INSIDE = st.floats(6, 33)


@EVERY_KERNEL
@FEW
@given(x=st.lists(st.floats(-30, 70), min_size=1, max_size=5))
def test_a_constant_is_reproduced(kernel, x):
    for padding_mode in ("border", "reflection", "mirror", "wrap"):
        output = rows(kernel, np.full(40, 0.75), np.array(x), padding_mode=padding_mode)
        np.testing.assert_allclose(output, 0.75, rtol=0, atol=4e-15)


@pytest.mark.parametrize(
    "mode", ["bilinear", "bicubic", *(f"bspline{n}" for n in (2, 3, 4, 5))]
)
@given(x=INSIDE)
def test_a_ramp_is_reproduced_where_the_kernel_does(mode, x):
    # Away from the image's ends, which break the ramp; a spline's ripples reach farther, |pole|**pixels.
    # a = -0.75 reproduces no ramp: Keys' condition is a = -0.5.
    kernel = Bicubic(-0.5) if mode == "bicubic" else mode
    ends = 0 if mode in ("bilinear", "bicubic") else 60
    ramp = np.arange(40.0 + 2 * ends)
    assert rows(kernel, ramp, np.array([x + ends]))[0] - ends == pytest.approx(x, abs=1e-12)


@given(x=INSIDE, a=st.floats(-1, 1), b=st.floats(-1, 1))
def test_keys_kernel_of_minus_one_half_reproduces_parabolas(x, a, b):
    t = np.arange(40.0) - 20
    expected = a * (x - 20) ** 2 + b * (x - 20) + 1
    output = rows(Bicubic(a=-0.5), a * t**2 + b * t + 1, np.array([x]))[0]
    assert output == pytest.approx(expected, abs=1e-12 * 400)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@given(x=st.floats(5, 35))
def test_splines_reproduce_polynomials_of_their_order(order, x):
    t = (np.arange(160.0) - 80) / 80
    expected = ((x - 20) / 80) ** order
    output = rows(BSpline(order), t**order, np.array([x + 60]))[0]
    assert output == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "kernel", [k for k in KINDS.values() if not isinstance(k, Gaussian)], ids=repr
)
@EVERY_PADDING
@CORNERS
def test_interpolating_kernels_return_the_pixels_at_the_pixels(
    kernel, padding_mode, align_corners
):
    image = np.random.default_rng(0).normal(size=(1, 2, 5, 7))
    y, x = np.meshgrid(np.arange(5.0), np.arange(7.0), indexing="ij")
    options = {"padding_mode": padding_mode, "align_corners": align_corners}
    output = stnlib.grid_sample(
        image, np.stack([x, y], axis=-1)[None], mode=kernel, coordinates="pixel", **options
    )
    np.testing.assert_allclose(output, image, rtol=0, atol=1e-12)
