import array_api_compat.numpy as xp
import array_api_compat.torch as torch_xp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stnlib
from stnlib.padding import PADDING_MODES, extend, period, tame

LIBRARIES = pytest.mark.parametrize("library", [xp, torch_xp], ids=["numpy", "torch"])
EVERY_PADDING = pytest.mark.parametrize("padding_mode", PADDING_MODES)
CORNERS = pytest.mark.parametrize("align_corners", [False, True])
REPEATING = ["reflection", "wrap", "mirror"]
NUMPY_PADS = [
    ("border", False, "edge"),
    ("border", True, "edge"),
    ("reflection", False, "symmetric"),
    ("reflection", True, "reflect"),
    ("mirror", False, "reflect"),
    ("mirror", True, "reflect"),
    ("wrap", False, "wrap"),
    ("wrap", True, "wrap"),
]

# fmt: off
BEYOND = {
    # pixels:                -6 -5 -4 -3 -2 -1  0  1  2  3  4  5  6  7  8  9
    ("border", False):      [ 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3, 3, 3],
    ("border", True):       [ 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3, 3, 3],
    ("reflection", False):  [ 2, 3, 3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0, 0, 1],
    ("reflection", True):   [ 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3],
    ("wrap", False):        [ 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1],
    ("wrap", True):         [ 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1],
    ("mirror", False):      [ 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3],
    ("mirror", True):       [ 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3],
}
EXISTS =                    [ 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]

ROWS = {
    # positions:                          -2 -1.5  -1  -.5   0  .5   1 1.5   2 2.5   3 3.5   4 4.5   5
    ("bilinear", "zeros", False):         [ 0,  0,  0,  5, 10, 15, 20, 25, 30, 35, 40, 20,  0,  0,  0],
    ("bilinear", "fill", False):          [ 7,  7,  7, 8.5, 10, 15, 20, 25, 30, 35, 40, 23.5,  7,  7,  7],
    ("bilinear", "fill", True):           [ 7,  7,  7, 8.5, 10, 15, 20, 25, 30, 35, 40, 23.5,  7,  7,  7],
    ("bilinear", "border", False):        [10, 10, 10, 10, 10, 15, 20, 25, 30, 35, 40, 40, 40, 40, 40],
    ("bilinear", "reflection", False):    [20, 15, 10, 10, 10, 15, 20, 25, 30, 35, 40, 40, 40, 35, 30],
    ("bilinear", "reflection", True):     [30, 25, 20, 15, 10, 15, 20, 25, 30, 35, 40, 35, 30, 25, 20],
    ("bilinear", "mirror", False):        [30, 25, 20, 15, 10, 15, 20, 25, 30, 35, 40, 35, 30, 25, 20],
    ("bilinear", "mirror", True):         [30, 25, 20, 15, 10, 15, 20, 25, 30, 35, 40, 35, 30, 25, 20],
    ("bilinear", "wrap", False):          [30, 35, 40, 25, 10, 15, 20, 25, 30, 35, 40, 25, 10, 15, 20],
    ("bilinear", "wrap", True):           [30, 35, 40, 25, 10, 15, 20, 25, 30, 35, 40, 25, 10, 15, 20],
    ("nearest", "fill", False):           [ 7,  7,  7, 10, 10, 10, 20, 30, 30, 30, 40,  7,  7,  7,  7],
    ("nearest", "wrap", False):           [30, 30, 40, 10, 10, 10, 20, 30, 30, 30, 40, 10, 10, 10, 20],
    ("nearest", "mirror", False):         [30, 30, 20, 10, 10, 10, 20, 30, 30, 30, 40, 30, 30, 30, 20],
    # Halfway between two pixels, Keys' kernel counts four pixels -3, 19, 19 and -3 times, and divides by 32:
    ("bicubic", "zeros", False): [0, -30/32, 0, 130/32, 10, 480/32, 20, 25, 30, 1270/32, 40, 670/32, 0, -120/32, 0],
    ("bicubic", "fill", False): [7, 215/32, 7, 242/32, 10, 459/32, 20, 25, 30, 1249/32, 40, 782/32, 7, 125/32, 7],
    ("bicubic", "border", False): [10, 10, 10, 290/32, 10, 450/32, 20, 25, 30, 1150/32, 40, 1310/32, 40, 40, 40],
    ("bicubic", "reflection", False): [
        20, 450/32, 10, 260/32, 10, 450/32, 20, 25, 30, 1150/32, 40, 1340/32, 40, 1150/32, 30
    ],
    ("bicubic", "mirror", False): [30, 25, 20, 420/32, 10, 420/32, 20, 25, 30, 1180/32, 40, 1180/32, 30, 25, 20],
    ("bicubic", "wrap", False): [30, 1240/32, 40, 800/32, 10, 360/32, 20, 25, 30, 1240/32, 40, 800/32, 10, 360/32, 20],
}
# fmt: on
HALF_STEPS = np.arange(-2.0, 5.5, 0.5)


@LIBRARIES
@pytest.mark.parametrize(("padding_mode", "align_corners"), BEYOND)
def test_pixels_beyond_a_row_of_four_by_hand(library, padding_mode, align_corners):
    index, inside = extend(library.arange(-6, 10), 4, padding_mode, align_corners, library)
    assert index.tolist() == BEYOND[padding_mode, align_corners]
    assert inside is None


@LIBRARIES
@CORNERS
@pytest.mark.parametrize("padding_mode", ["zeros", "fill"])
def test_beyond_a_row_of_four_there_may_be_no_pixel(library, padding_mode, align_corners):
    index, inside = extend(library.arange(-6, 10), 4, padding_mode, align_corners, library)
    assert inside.tolist() == [bool(e) for e in EXISTS]
    assert index[inside].tolist() == [0, 1, 2, 3]
    assert 0 <= index.min() <= index.max() <= 3


@LIBRARIES
@pytest.mark.parametrize(("mode", "padding_mode", "align_corners"), ROWS)
@pytest.mark.parametrize("axis", [0, 1, 2], ids="xyz")
@pytest.mark.parametrize("coordinates", ["pixel", "normalised"])
def test_rows_by_hand(library, mode, padding_mode, align_corners, axis, coordinates):
    size = [1, 1, 1]
    size[axis] = 4
    image = np.array([10.0, 20.0, 30.0, 40.0]).reshape(1, 1, *size[::-1])
    grid = np.zeros((1, 1, 1, 15, 3))
    grid[..., axis] = HALF_STEPS
    if coordinates == "normalised":
        for i, length in enumerate(size):
            grid[..., i] = stnlib.normalise(grid[..., i], length, align_corners=align_corners)
    if axis < 2:
        image, grid = image[:, :, 0], grid[:, 0, ..., :2]
    fill = {"fill_value": 7.0} if padding_mode == "fill" else {}
    output = stnlib.grid_sample(
        *(library.asarray(np.ascontiguousarray(a)) for a in (image, grid)),
        mode=mode,
        padding_mode=padding_mode,
        align_corners=align_corners,
        coordinates=coordinates,
        **fill,
    )
    np.testing.assert_allclose(
        np.asarray(output).ravel(), ROWS[mode, padding_mode, align_corners], rtol=0, atol=1e-13
    )


@pytest.mark.parametrize(("padding_mode", "align_corners", "numpy_mode"), NUMPY_PADS)
@given(size=st.integers(1, 9), before=st.integers(0, 40), after=st.integers(0, 40))
def test_numpy_pads_the_same(padding_mode, align_corners, numpy_mode, size, before, after):
    m = np.arange(-before, size + after)
    index, _ = extend(m, size, padding_mode, align_corners, xp)
    np.testing.assert_array_equal(
        index, np.pad(np.arange(size), (before, after), mode=numpy_mode)
    )


@pytest.mark.parametrize("padding_mode", REPEATING)
@CORNERS
@given(size=st.integers(1, 9), m=st.integers(-(2**40), 2**40), turns=st.integers(-9, 9))
def test_a_repeating_padding_repeats_after_its_period(
    padding_mode, align_corners, size, m, turns
):
    there = m + turns * period(size, padding_mode, align_corners)
    here, there = (
        extend(np.array([k]), size, padding_mode, align_corners, xp)[0] for k in (m, there)
    )
    assert here == there


@EVERY_PADDING
@CORNERS
@given(size=st.integers(1, 9))
def test_inside_the_image_padding_changes_nothing(padding_mode, align_corners, size):
    m = np.arange(size)
    index, inside = extend(m, size, padding_mode, align_corners, xp)
    np.testing.assert_array_equal(index, m)
    assert inside is None or inside.all()


@LIBRARIES
@EVERY_PADDING
@CORNERS
def test_tamed_positions_are_finite_or_nan(library, padding_mode, align_corners):
    wild = [np.inf, -np.inf, np.nan, 1e300, -1e300, 2.0**60, -(2.0**53), 3.25, -7.5]
    x = library.asarray(wild, dtype=library.float64)
    tamed = np.asarray(tame(x, 4, padding_mode, align_corners, library))
    repeats = padding_mode in REPEATING
    assert np.isnan(tamed).tolist() == [repeats, repeats, True] + [False] * 6
    assert np.nanmax(np.abs(tamed)) <= 2.0**52
    assert tamed[7:].tolist() == [3.25, -7.5]
    if repeats:
        far = [int(v) % period(4, padding_mode, align_corners) for v in wild[3:7]]
        assert tamed[3:7].tolist() == far


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "bspline3", "lanczos"])
def test_mirror_is_reflection_about_centres_whatever_the_corners(mode, align_corners):
    rng = np.random.default_rng(0)
    image, grid = rng.random((1, 2, 5, 6)), rng.uniform(-20, 20, (1, 9, 9, 2))
    options = {"mode": mode, "coordinates": "pixel"}
    np.testing.assert_array_equal(
        stnlib.grid_sample(
            image, grid, padding_mode="mirror", align_corners=align_corners, **options
        ),
        stnlib.grid_sample(
            image, grid, padding_mode="reflection", align_corners=True, **options
        ),
    )


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "bspline3", "gaussian"])
def test_fill_of_zero_is_zeros(mode):
    rng = np.random.default_rng(0)
    image, grid = rng.random((1, 2, 5, 6)), rng.uniform(-5, 10, (1, 9, 9, 2))
    options = {"mode": mode, "coordinates": "pixel"}
    zeros = stnlib.grid_sample(image, grid, padding_mode="zeros", **options)
    for nothing in (0.0, 0, np.zeros(2), np.float64(0), [0.0, 0.0]):
        filled = stnlib.grid_sample(
            image, grid, padding_mode="fill", fill_value=nothing, **options
        )
        np.testing.assert_array_equal(filled, zeros)


@LIBRARIES
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "bspline3", "gaussian"])
@pytest.mark.parametrize("kind", ["array", "list", "tuple"])
def test_fill_per_channel_is_fill_of_each_channel(library, mode, kind):
    rng = np.random.default_rng(0)
    image, grid = rng.random((2, 3, 5, 6)), rng.uniform(-5, 10, (2, 9, 9, 2))
    values = [0.25, -3.0, 7.0]
    given = {"list": values, "tuple": tuple(values), "array": library.asarray(values)}[kind]
    options = {"mode": mode, "coordinates": "pixel", "padding_mode": "fill"}
    output = stnlib.grid_sample(
        library.asarray(image), library.asarray(grid), fill_value=given, **options
    )
    for c, value in enumerate(values):
        one = stnlib.grid_sample(image[:, c : c + 1], grid, fill_value=value, **options)
        np.testing.assert_allclose(
            np.asarray(output)[:, c : c + 1],
            one,
            rtol=0,
            atol=1e-14,
        )


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "bspline3", "lanczos"])
def test_an_image_of_the_fill_value_stays_so(mode):
    grid = np.random.default_rng(0).uniform(-9, 15, (1, 9, 9, 2))
    output = stnlib.grid_sample(
        np.full((1, 1, 5, 6), 0.75),
        grid,
        mode=mode,
        coordinates="pixel",
        padding_mode="fill",
        fill_value=0.75,
    )
    np.testing.assert_allclose(output, 0.75, rtol=0, atol=4e-15)


def test_a_fill_value_takes_the_dtype_of_the_image():
    image, grid = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 1, 2), 9.0)
    output = stnlib.grid_sample(
        image, grid, padding_mode="fill", fill_value=torch.tensor(0.1, dtype=torch.float64)
    )
    assert (output.dtype, output.item()) == (torch.float32, np.float32(0.1))
