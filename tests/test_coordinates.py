import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stnlib
from stnlib.coordinates import normalise, pixel_centres, pixels_per_unit, unnormalise

CORNERS = pytest.mark.parametrize("align_corners", [False, True])
SIZES = [1, 2, 3, 4, 5, 7, 16, 28, 33, 1023, 1024]


@CORNERS
@given(size=st.integers(2, 4096), position=st.floats(-5000.0, 5000.0))
def test_unnormalise_undoes_normalise(align_corners, size, position):
    coordinate = normalise(position, size, align_corners=align_corners)
    # Rounding of a number of up to 7000 and its way back, a few ulp.
    assert unnormalise(coordinate, size, align_corners=align_corners) == pytest.approx(
        position, rel=0, abs=1e-11
    )


@CORNERS
@given(size=st.integers(2, 4096), coordinate=st.floats(-3.0, 3.0))
def test_normalise_undoes_unnormalise(align_corners, size, coordinate):
    position = unnormalise(coordinate, size, align_corners=align_corners)
    # A position of up to 8000 is rounded to 1e-12 of a pixel, and a unit is at least half a pixel.
    assert normalise(position, size, align_corners=align_corners) == pytest.approx(
        coordinate, rel=0, abs=4e-12
    )


@pytest.mark.parametrize("size", [2, 3, 8, 28])
@pytest.mark.parametrize(("align_corners", "inset"), [(False, 0.5), (True, 0.0)])
def test_minus_one_and_one_lie_at_edges_or_at_corner_centres(size, align_corners, inset):
    assert unnormalise(-1.0, size, align_corners=align_corners) == -inset
    assert unnormalise(1.0, size, align_corners=align_corners) == size - 1 + inset


@CORNERS
@pytest.mark.parametrize("size", SIZES)
def test_middle_of_the_image_is_zero(size, align_corners):
    assert unnormalise(0.0, size, align_corners=align_corners) == (size - 1) / 2
    assert normalise((size - 1) / 2, size, align_corners=align_corners) == 0


@CORNERS
@pytest.mark.parametrize("size", SIZES)
def test_pixels_per_unit_is_the_derivative_of_unnormalise(size, align_corners):
    rise = unnormalise(1.0, size, align_corners=align_corners) - unnormalise(
        0.0, size, align_corners=align_corners
    )
    assert pixels_per_unit(size, align_corners=align_corners) == rise


@pytest.mark.parametrize("position", [-2.0, 0.0, 0.5, 7.0])
def test_one_pixel_between_its_own_centres_is_at_zero(position):
    assert normalise(position, 1, align_corners=True) == 0
    assert normalise(np.full(3, position), 1, align_corners=True).tolist() == [0, 0, 0]


@CORNERS
def test_a_single_pixel_is_at_zero(align_corners):
    assert pixel_centres(1, align_corners=align_corners).tolist() == [0.0]


@CORNERS
@pytest.mark.parametrize("size", SIZES)
def test_pixel_centres_are_exactly_symmetric_and_rise(size, align_corners):
    x = pixel_centres(size, align_corners=align_corners)
    np.testing.assert_array_equal(x, -x[::-1])
    assert (np.diff(x) > 0).all()
    assert x.dtype == np.float64


@CORNERS
@pytest.mark.parametrize("size", SIZES[1:])
def test_pixel_centres_agree_with_torch(size, align_corners):
    identity = torch.eye(2, 3, dtype=torch.float64)[None]
    grid = torch.nn.functional.affine_grid(
        identity, (1, 1, 2, size), align_corners=align_corners
    )
    x = pixel_centres(size, align_corners=align_corners)
    np.testing.assert_allclose(
        x, grid[0, 0, :, 0].numpy(), rtol=0, atol=4e-16
    )  # one rounding each


@CORNERS
@pytest.mark.parametrize("size", SIZES)
def test_pixel_centres_are_the_whole_numbers_in_pixels(size, align_corners):
    x = unnormalise(
        pixel_centres(size, align_corners=align_corners), size, align_corners=align_corners
    )
    np.testing.assert_allclose(
        x, np.arange(size), rtol=0, atol=1e-12
    )  # three roundings of numbers up to 1024


def test_pixel_centres_come_in_the_namespace_asked_for():
    x = pixel_centres(4, xp=torch, device="cpu")
    assert torch.equal(x, torch.tensor([-0.75, -0.25, 0.25, 0.75], dtype=torch.float64))


@CORNERS
def test_arrays_keep_their_shape_and_kind(align_corners):
    points = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(2, 3)
    there = stnlib.unnormalise(points, 5, align_corners=align_corners)
    assert there.shape == (2, 3)
    torch.testing.assert_close(
        stnlib.normalise(there, 5, align_corners=align_corners), points, rtol=0, atol=1e-15
    )


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (0, ValueError, "size: expected at least 1 pixel, got 0"),
        (-3, ValueError, "size: expected at least 1 pixel, got -3"),
        (2.5, TypeError, "size: expected a whole number of pixels, got 2.5"),
        ("4", TypeError, "size: expected a whole number of pixels, got '4'"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        pixels_per_unit,
        pixel_centres,
        lambda size: normalise(0.0, size),
        lambda size: unnormalise(0.0, size),
    ],
)
def test_a_size_that_is_no_number_of_pixels_is_refused(call, size, error, message):
    with pytest.raises(error, match=message):
        call(size)
