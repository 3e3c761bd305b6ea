import array_api_compat.numpy as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stnlib.interpolation import KERNELS, PADDING_MODES, taps

EVERY_MODE = pytest.mark.parametrize("mode", list(KERNELS))
EVERY_PADDING = pytest.mark.parametrize("padding_mode", PADDING_MODES)
CORNERS = pytest.mark.parametrize("align_corners", [False, True])


def taps_at(x, size, mode, padding_mode, align_corners):
    positions = np.asarray(x, dtype=np.float64)
    return list(
        taps(
            positions,
            size,
            mode=mode,
            padding_mode=padding_mode,
            align_corners=align_corners,
            xp=xp,
        )
    )


def test_linear_kernel_is_a_triangle():
    d = np.array([-1.0, -0.75, -0.5, 0.0, 0.25, 1.0])
    assert KERNELS["bilinear"].value(d, xp).tolist() == [0.0, 0.25, 0.5, 1.0, 0.75, 0.0]


def test_nearest_kernel_is_one():
    assert KERNELS["nearest"].value(np.array([-0.5, 0.0, 0.25]), xp).tolist() == [1.0, 1.0, 1.0]


@EVERY_MODE
@given(d=st.floats(-0.999, 0.999).filter(lambda d: abs(d) > 1e-3))
def test_derivative_agrees_with_finite_differences_off_the_knots(mode, d):
    kernel, h = KERNELS[mode], 2.0**-12
    difference = (kernel.value(np.array(d + h), xp) - kernel.value(np.array(d - h), xp)) / (
        2 * h
    )
    assert kernel.derivative(np.array(d), xp) == pytest.approx(
        difference, abs=1e-12
    )  # 1e-16 / h


def test_derivative_at_the_knot_is_that_from_the_right():
    kernel, h = KERNELS["bilinear"], 0.25
    d = np.array([-1.0, 0.0])
    np.testing.assert_array_equal(
        kernel.derivative(d, xp), (kernel.value(d + h, xp) - kernel.value(d, xp)) / h
    )


@pytest.mark.parametrize(
    ("mode", "x", "pixels"),
    [
        ("bilinear", 1.0, [1, 2]),
        ("bilinear", 1.25, [1, 2]),
        ("nearest", 1.25, [1]),
        ("nearest", 1.75, [2]),
    ],
)
def test_which_pixels_are_read(mode, x, pixels):
    assert [int(tap.index) for tap in taps_at(x, 4, mode, "border", False)] == pixels


@pytest.mark.parametrize(("x", "pixel"), [(-0.5, 0), (0.5, 0), (1.5, 2), (2.5, 2)])
def test_nearest_tie_goes_to_the_even_pixel(x, pixel):
    (tap,) = taps_at(x, 4, "nearest", "zeros", False)
    assert (int(tap.index), bool(tap.inside)) == (pixel, True)


@EVERY_PADDING
def test_weights_come_from_the_position_before_any_index_is_clipped(padding_mode):
    first, second = taps_at([-0.25, 3.25], 4, "bilinear", padding_mode, False)
    assert first.weight.tolist() == [0.25, 0.75]
    assert second.weight.tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("padding_mode", "align_corners", "pixels"),
    [
        ("border", False, [0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2]),
        ("reflection", False, [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]),
        ("reflection", True, [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]),
    ],
)
def test_pixels_beyond_the_border_by_hand(padding_mode, align_corners, pixels):
    (tap,) = taps_at(np.arange(-5, 8), 3, "nearest", padding_mode, align_corners)
    assert tap.index.tolist() == pixels
    assert tap.inside is None


def test_zero_padding_says_which_pixels_exist():
    (tap,) = taps_at(np.arange(-2, 5), 3, "nearest", "zeros", False)
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
@given(x=ANYWHERE, size=st.integers(1, 9))
def test_index_is_always_a_pixel_of_the_image(mode, padding_mode, align_corners, x, size):
    for tap in taps_at(x, size, mode, padding_mode, align_corners):
        assert tap.index.dtype == np.int64
        assert 0 <= tap.index < size


@EVERY_MODE
@EVERY_PADDING
@CORNERS
@given(x=ANYWHERE.filter(np.isfinite), size=st.integers(1, 9))
def test_weights_sum_to_one_and_slopes_to_zero(mode, padding_mode, align_corners, x, size):
    found = taps_at(x, size, mode, padding_mode, align_corners)
    assert sum(tap.weight for tap in found) == pytest.approx(1.0, abs=2e-16)
    assert sum(tap.slope for tap in found) == 0


@EVERY_MODE
@EVERY_PADDING
def test_weights_at_nan_are_nan(mode, padding_mode):
    for tap in taps_at(np.nan, 4, mode, padding_mode, False):
        assert np.isnan(tap.weight)
        assert np.isnan(tap.slope)
