"""The CUDA engine's kernels, run by the emulator thread by thread, against the reference."""

import contextlib
import functools
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import stnlib
from stnlib.engines import deterministic, emulated, emulator, launch
from stnlib.engines.emulated import Emulator
from stnlib.engines.emulator import NoCompilerError, RawModule
from stnlib.nn import functional

try:
    emulator.compiler()
except NoCompilerError as error:
    pytest.skip(str(error), allow_module_level=True)

MODES = ("nearest", "bilinear", "bicubic")
PADDINGS = ("zeros", "border", "reflection", "wrap", "mirror", "fill")
CONVENTIONS = list(itertools.product((False, True), ("normalised", "pixel")))
# How far two correct results may be apart, against the largest value: one or two roundings of the type.
TOLERANCE = {"float64": 1e-12, "float32": 4e-6, "float16": 2e-3, "bfloat16": 1.6e-2}
SOURCE = launch.SOURCE.read_text(encoding="utf-8")


class Changed(Emulator):
    """The emulator, with another source: text of the kernels replaced, macros defined before them."""

    def __init__(self, *changes, macros="", **settings):
        super().__init__(**settings)
        source = SOURCE
        for old, new in changes:
            assert source.count(old) == 1, f"the kernels hold {source.count(old)} times {old!r}"
            source = source.replace(old, new)
        self.source = f"{macros}\n{source}"

    @functools.cache  # noqa: B019
    def module(self, options):
        return RawModule(self.source, options, **self.settings)


@contextlib.contextmanager
def running_on(machine):
    """Make the engine "emulator" use another machine."""
    with (
        mock.patch.object(
            emulated, "sample", functools.partial(launch.sample, machine=machine)
        ),
        mock.patch.object(
            emulated, "sample_vjp", functools.partial(launch.sample_vjp, machine=machine)
        ),
    ):
        yield


def numbers(seed, shape, dtype="float64"):
    """Return normal numbers: a NumPy array, or a tensor where NumPy knows no such type."""
    array = np.random.default_rng(seed).standard_normal(shape)
    if dtype == "bfloat16":
        return torch.from_numpy(array).bfloat16()
    return array.astype(dtype)


def thetas(seed, n, dimensions, spread=0.3):
    theta = spread * np.random.default_rng(seed).standard_normal(
        (n, dimensions, dimensions + 1)
    )
    theta[:, :, :dimensions] += np.eye(dimensions)
    return theta


def grids(seed, n, out):
    return np.random.default_rng(seed).uniform(-1.5, 1.5, (n, *out, len(out)))


def like(array, images):
    """Return an array as one of the images' kind."""
    return torch.from_numpy(array) if isinstance(images, torch.Tensor) else array


def wide(array):
    if isinstance(array, torch.Tensor):
        return array.detach().double().numpy()
    return np.asarray(array, dtype=np.float64)


def assert_close(got, expected, dtype, what, least=1.0):
    """Compare two results, relative to the largest or to ``least``; NaN and infinity must be in the same places."""
    assert got.dtype == expected.dtype, what
    assert got.shape == expected.shape, what
    got, expected = wide(got), wide(expected)
    known = np.isfinite(expected)
    np.testing.assert_array_equal(got[~known], expected[~known], err_msg=what)
    if known.any():
        scale = max(least, np.abs(expected[known]).max())
        error = np.abs(got[known] - expected[known]).max() / scale
        assert error < TOLERANCE[dtype], f"{what}: {error:.2g} apart"


def assert_as_reference(input, place, out=None, /, *, forms=(False, True), **options):
    """Sample and differentiate with the kernels and with the reference; out is the size beside a theta."""
    what = f"{'grid' if out is None else 'theta'} {tuple(input.shape)} -> {out} {options}"
    dtype = str(input.dtype).rpartition(".")[2]
    size = () if out is None else (out,)
    sample, vjp = (
        (stnlib.grid_sample, stnlib.grid_sample_vjp)
        if out is None
        else (stnlib.affine_sample, stnlib.affine_sample_vjp)
    )
    expected = sample(input, place, *size, engine="reference", **options)
    got = sample(input, place, *size, engine="emulator", **options)
    assert_close(got, expected, dtype, what)
    gradient = numbers(99, tuple(expected.shape), dtype)
    if isinstance(input, torch.Tensor) and not isinstance(gradient, torch.Tensor):
        gradient = torch.from_numpy(gradient)
    expected = vjp(gradient, input, place, engine="reference", **options)
    least = 1.0 if out is None else summed(gradient, input, place, out, options)
    for wanted in forms:
        with deterministic(wanted):
            got = vjp(gradient, input, place, engine="emulator", **options)
        for name, one, other in zip(
            ("input", "coordinates", "fill"), got, expected, strict=True
        ):
            form = "deterministic" if wanted else "fast"
            # A gradient in float64 or float32 is no more exact than the image it comes from.
            scale = least if name == "coordinates" else 1.0
            assert_close(one, other, dtype, f"{what}, gradient of {name}, {form}", scale)


def summed(gradient, input, theta, out, options):
    """Return how large theta's gradient is if what it sums does not cancel: the errors of its terms do not either."""
    pixel = options.get("coordinates") == "pixel"
    frame = {
        name: options[name] for name in ("align_corners", "coordinates") if name in options
    }
    grid = stnlib.affine_grid(theta, out, **frame)
    terms = wide(
        stnlib.grid_sample_vjp(gradient, input, grid, engine="reference", **options)[1]
    )
    terms = terms[np.isfinite(terms).all(axis=-1)]
    return max(
        1.0, (max(out) if pixel else 1) * np.sqrt(np.square(terms).sum(0)).max(initial=0)
    )


def options_of(mode, padding, align_corners, coordinates, channels):
    options = {
        "mode": mode,
        "padding_mode": padding,
        "align_corners": align_corners,
        "coordinates": coordinates,
    }
    if padding == "fill":
        options["fill_value"] = [0.5 * c - 1 for c in range(channels)]
    return options


def in_pixels(coordinates, out):
    """Return normalised coordinates made into some pixels."""
    return 3 * coordinates + (2 if out is None else 0)


# ---- Every case ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", launch.IMAGES)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_kernels_agree_with_the_reference(dimensions, dtype, mode):
    size, out = ((9, 13), (11, 8)) if dimensions == 2 else ((5, 6, 7), (4, 5, 6))
    input = numbers(0, (2, 3, *size), dtype)
    for padding, (align_corners, coordinates) in itertools.product(PADDINGS, CONVENTIONS):
        options = options_of(mode, padding, align_corners, coordinates, 3)
        for place, shape in ((thetas(1, 2, dimensions), out), (grids(2, 2, out), None)):
            place = in_pixels(place, shape) if coordinates == "pixel" else place
            assert_as_reference(input, like(place, input), shape, **options)


SIZES = [
    ((1, 1), (1, 1)),
    ((1, 7), (5, 1)),
    ((7, 1), (1, 9)),
    ((2, 3), (1, 1)),
    ((1, 1), (33, 65)),
    ((31, 17), (3, 129)),
    ((1, 1, 1), (2, 1, 3)),
    ((1, 5, 1), (1, 1, 1)),
    ((3, 1, 2), (1, 9, 1)),
    ((2, 3, 1), (3, 1, 35)),
]


@pytest.mark.parametrize(("size", "out"), SIZES)
def test_odd_sizes_and_sizes_of_one(size, out):
    input, dimensions = numbers(0, (2, 2, *size)), len(size)
    for seed, (mode, padding, align_corners) in enumerate(
        itertools.product(MODES, PADDINGS, (False, True))
    ):
        options = options_of(mode, padding, align_corners, "normalised", 2)
        assert_as_reference(input, thetas(seed, 2, dimensions, 0.5), out, **options)
        assert_as_reference(input, grids(seed, 2, out), **options)


@pytest.mark.parametrize("threads", [2**k for k in range(11)] + [3, 48, 1000])
def test_blocks_of_1_to_1024_threads(threads):
    with running_on(Emulator(threads)):
        for size, out, channels in (((6, 5), (23, 67), 5), ((4, 3, 5), (5, 4, 35), 1)):
            first = numbers(0, (2, channels, *size), "float32")
            last = np.moveaxis(np.moveaxis(first, 1, -1).copy(), -1, 1)
            # Theta's gradient is a sum over all pixels, channels and threads.
            theta, grid = thetas(1, 2, len(size)), grids(1, 2, out)
            assert_as_reference(first, theta, out, padding_mode="fill", fill_value=0.5)
            assert_as_reference(last, theta, out)
            assert_as_reference(last, grid, forms=(False,))


@pytest.mark.parametrize("pixels", [1, 2, 3, 8])
def test_any_number_of_pixels_a_thread(pixels, monkeypatch):
    monkeypatch.setattr(launch, "_pixels_a_thread", lambda dimensions, taps: pixels)
    for dimensions, out in ((2, (37, 19)), (3, (5, 7, 9))):
        input = numbers(0, (2, 3, *range(4, 4 + dimensions)))
        assert_as_reference(input, thetas(1, 2, dimensions), out)
        assert_as_reference(input, grids(1, 2, out))


@pytest.mark.parametrize("channels", [1, 2, 5, 40])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_channels_last_stays_so_and_is_not_copied(dimensions, channels):
    size, out = ((9, 11), (7, 8)) if dimensions == 2 else ((4, 5, 6), (3, 4, 5))
    layout = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    first = torch.from_numpy(numbers(0, (2, channels, *size)))
    last = first.to(memory_format=layout)
    theta = torch.from_numpy(thetas(1, 2, dimensions))
    for mode in MODES:
        assert_as_reference(last, theta, out, mode=mode)
        output = stnlib.affine_sample(last, theta, out, mode=mode, engine="emulator")
        grads = stnlib.affine_sample_vjp(output, last, theta, mode=mode, engine="emulator")
        assert output.is_contiguous(memory_format=layout)
        assert grads[0].is_contiguous(memory_format=layout)
    options = stnlib.options.resolve()
    fill = torch.zeros(2, channels, dtype=torch.float64)
    for image in (first, last):
        call = launch.Call(emulated.EMULATOR, image, theta, out, fill, options)
        assert call.input.data_ptr() == image.data_ptr()
        assert call.last == (image is last and channels > 1)
    # What is neither is copied, once.
    assert_as_reference(first[:, :, ..., ::2], theta, out)


def test_a_batch_or_channels_that_are_not_there():
    for input_shape in ((0, 3, 4, 5), (2, 0, 4, 5)):
        input, n = np.zeros(input_shape), input_shape[0]
        assert_as_reference(input, thetas(0, n, 2), (6, 7))
        assert_as_reference(input, grids(0, n, (6, 7)), padding_mode="border")
        assert_as_reference(input, grids(0, n, (6, 7)), padding_mode="fill", fill_value=1.0)


# ---- Indices of 64 bits ----------------------------------------------------------------------------------------------


def test_indices_of_64_bits_come_to_the_same(monkeypatch):
    narrow = launch._compiler_options
    monkeypatch.setattr(
        launch,
        "_compiler_options",
        lambda image, dimensions, taps, index, threads: narrow(
            image, dimensions, taps, "long long", threads
        ),
    )
    cases = zip(itertools.product((2, 3), MODES), ["float32", "float64"] * 3, strict=True)
    for (dimensions, mode), dtype in cases:
        input = numbers(0, (2, 3, *range(4, 4 + dimensions)), dtype)
        out = tuple(range(5, 5 + dimensions))
        assert_as_reference(input, thetas(1, 2, dimensions), out, mode=mode)
        assert_as_reference(input, grids(1, 2, out), mode=mode, padding_mode="reflection")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sets memory aside at once")
def test_an_image_of_more_than_2_to_the_31_pixels_is_read_to_its_end():
    # Memory that nobody has written to takes no room.
    try:
        input = np.zeros((1, 1, 2**16 + 1, 2**15), np.float16)
    except MemoryError:
        pytest.skip("4 GiB of addresses cannot be had")
    input[0, 0, -1, -1], input[0, 0, 0, 0] = 7, 3
    theta = np.array([[[2.0**15 - 1, 0, 0], [0, 2.0**16, 0]]])
    output = stnlib.affine_sample(
        input, theta, (2, 2), coordinates="pixel", mode="nearest", engine="emulator"
    )
    np.testing.assert_array_equal(output[0, 0], [[3, 0], [0, 7]])


# ---- What is not a number, or far away -------------------------------------------------------------------------------

FAR = [np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**31, -(2.0**31), 2.0**52 + 0.5, 1e300, -0.0]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_coordinates_that_are_far_or_no_number(mode, padding):
    for dimensions, coordinates in itertools.product((2, 3), ("pixel", "normalised")):
        size = (3, 4) if dimensions == 2 else (2, 3, 4)
        input = numbers(0, (1, 2, *size))
        places = np.array(list(itertools.product([0.3, *FAR], repeat=2)))
        places = np.concatenate([places] + [places[:, :1]] * (dimensions - 2), axis=1)
        grid = places.reshape(1, *(1,) * (dimensions - 1), -1, dimensions)
        options = options_of(mode, padding, False, coordinates, 2)
        assert_as_reference(input, grid, **options)


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_theta_that_is_far_or_no_number(padding):
    input = numbers(0, (len(FAR), 2, 5, 6))
    for entry in itertools.product(range(2), range(3)):
        theta = thetas(1, len(FAR), 2)
        theta[:, *entry] = FAR
        for mode in MODES:
            with np.errstate(invalid="ignore"):
                expected, got = (
                    stnlib.affine_sample(
                        input, theta, (4, 3), mode=mode, padding_mode=padding, engine=engine
                    )
                    for engine in ("reference", "emulator")
                )
            assert_close(got, expected, "float64", f"{mode} {entry}")


def test_pixels_and_gradients_that_are_no_numbers():
    input, grid = numbers(0, (1, 2, 6, 7)), grids(1, 1, (9, 8))
    for value in (np.nan, np.inf):
        spoiled = input.copy()
        spoiled[0, 0, 2, 3] = value
        for mode in MODES:
            with np.errstate(invalid="ignore"):
                expected, got = (
                    stnlib.grid_sample(spoiled, grid, mode=mode, engine=engine)
                    for engine in ("reference", "emulator")
                )
            assert_close(got, expected, "float64", mode)
        for wanted, padding in itertools.product((False, True), ("zeros", "border")):
            gradient = numbers(2, (1, 2, 9, 8))
            gradient[0, 1, 4, 4] = value
            with deterministic(wanted), np.errstate(invalid="ignore"):
                expected, got = (
                    stnlib.grid_sample_vjp(
                        gradient, input, grid, padding_mode=padding, engine=engine
                    )
                    for engine in ("reference", "emulator")
                )
            assert_close(got[0], expected[0], "float64", f"{value} {padding} {wanted}")


# ---- The deterministic backward --------------------------------------------------------------------------------------


def gradients(place, out=None, *, machine, wanted=True, dtype="float32", **options):
    """Return the gradients of some images, on one machine."""
    input = numbers(0, (2, 3, 9, 7), dtype)
    vjp = stnlib.grid_sample_vjp if out is None else stnlib.affine_sample_vjp
    gradient = numbers(3, (2, 3, *(out or place.shape[1:-1])), dtype)
    with running_on(machine), deterministic(wanted):
        return vjp(gradient, input, place, engine="emulator", **options)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_deterministic_gradients_are_the_same_in_any_order(mode, padding):
    options = options_of(mode, padding, False, "normalised", 3)
    machines = [Emulator(64, schedule="random", seed=seed) for seed in range(3)]
    for place, out in ((thetas(1, 2, 2), (33, 20)), (grids(1, 2, (33, 20)), None)):
        first, *others = (gradients(place, out, machine=m, **options) for m in machines)
        for other in others:
            for one, two in zip(first, other, strict=True):
                assert one.tobytes() == two.tobytes()


def test_fast_gradients_are_not():
    machines = [Emulator(64, schedule="random", seed=seed) for seed in range(4)]
    grid = grids(1, 2, (33, 20))
    several = {
        gradients(grid, machine=m, wanted=False, padding_mode="border")[0].tobytes()
        for m in machines
    }
    assert len(several) > 1


@pytest.mark.parametrize("size", [1e-280, 1e-30, 1.0, 1e30, 1e300])
def test_fixed_point_fits_gradients_of_any_size(size):
    # Everything is read from one pixel: the largest sum there is.
    grid = np.zeros((1, 64, 65, 2))
    input = numbers(0, (1, 2, 3, 3))
    for gradient in (np.full((1, 2, 64, 65), size), size * numbers(1, (1, 2, 64, 65))):
        with deterministic():
            got = stnlib.grid_sample_vjp(gradient, input, grid, engine="emulator")[0]
        np.testing.assert_allclose(
            got[:, :, 1, 1], gradient.sum((2, 3)), rtol=1e-12, atol=1e-12 * size
        )


def turned(angle, scale, shift=(0.1, -0.05)):
    """Return a theta that turns, and reads from a window that is as many times as large as the output."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[[c, -s, shift[0]], [s, c, shift[1]]]])


NO_SCATTER = (
    ("        atomicAdd(grad_input + place, value);", "        ;"),
    (
        "    if (fixed && isfinite(value))\n",
        "    if (fixed && isfinite(value)) return;\n    if (false)\n",
    ),
)


def gathers(theta, size, out, **options):
    """Return whether the gradient comes right with nothing scattered: whether it was gathered."""
    input = numbers(0, (len(theta), 2, *size))
    gradient = numbers(1, (len(theta), 2, *out))
    expected = stnlib.affine_sample_vjp(gradient, input, theta, engine="reference", **options)
    with running_on(Changed(*NO_SCATTER)), deterministic():
        got = stnlib.affine_sample_vjp(gradient, input, theta, engine="emulator", **options)
    assert_close(got[1], expected[1], "float64", "theta's gradient, either way")
    assert_as_reference(input, theta, out, **options)
    return [np.abs(a - b).max() < 1e-12 for a, b in zip(got[0], expected[0], strict=True)]


@pytest.mark.parametrize("padding", ["zeros", "fill"])
@pytest.mark.parametrize("mode", MODES)
def test_images_scaled_by_a_half_to_two_are_gathered_at_any_angle(mode, padding):
    theta = np.concatenate(
        [
            turned(angle, scale)
            for angle in (0, 0.3, 0.8, 2, 4)
            for scale in (0.5, 0.7, 1, 1.9, 2)
        ]
    )
    assert all(gathers(theta, (17, 17), (17, 17), mode=mode, padding_mode=padding))
    # The scale is that of pixels: here an output's pixel is 1, 1 and 2 of the input's.
    theta = np.concatenate([turned(0.4, 2), turned(-1, 2), turned(0.2, 4)])
    assert all(gathers(theta, (17, 17), (33, 33), mode=mode, padding_mode=padding))


def test_volumes_are_gathered_too():
    theta = thetas(4, 1, 3, 0.1)
    for mode in ("nearest", "bilinear"):
        assert gathers(theta, (6, 5, 7), (7, 6, 5), mode=mode) == [True]


def test_what_would_gather_from_far_is_scattered():
    flat = np.array([[[1.0, 1, 0], [1, 1, 0]]])  # has no inverse
    nearly = np.array([[[1.0, 1, 0], [1, 1 + 1e-9, 0]]])
    nothing = np.full((1, 2, 3), np.nan)
    theta = np.concatenate([turned(0.3, 0.2), turned(0.3, 1), flat, nearly, 0 * flat, nothing])
    with np.errstate(invalid="ignore"):
        found = gathers(theta[:5], (9, 9), (9, 9))
    assert found == [False, True, False, False, False]
    for padding in ("border", "reflection", "wrap", "mirror"):
        assert gathers(turned(0.3, 1), (9, 9), (9, 9), padding_mode=padding) == [False]
    for mode in MODES:
        gradients(
            np.concatenate([nothing, nothing]), (5, 5), machine=emulated.EMULATOR, mode=mode
        )


# ---- What chapter 4 shows, and what PyTorch sees ---------------------------------------------------------------------


def test_without_atomics_gradients_are_lost():
    grid = grids(1, 2, (33, 20))
    right = gradients(grid, machine=Emulator(64), wanted=False)[0]
    racing = Changed(macros="#define RACE", threads=64, schedule="interleaved")
    lost = gradients(grid, machine=racing, wanted=False)[0]
    assert np.abs(lost - right).max() > 0.1
    lucky = Changed(
        macros="#define RACE", threads=64
    )  # nobody comes between a read and its write
    found = gradients(grid, machine=lucky, wanted=False)[0]
    np.testing.assert_allclose(found, right, atol=1e-5)


@pytest.mark.parametrize("needs", list(itertools.product((False, True), repeat=3)))
def test_only_what_is_needed_is_computed(needs):
    input, theta = numbers(0, (2, 3, 6, 5)), thetas(1, 2, 2)
    gradient, fill = numbers(2, (2, 3, 4, 7)), numbers(3, (2, 3))
    options = stnlib.options.resolve(padding_mode="fill")
    for place, size in ((theta, (4, 7)), (grids(1, 2, (4, 7)), None)):
        for wanted in (False, True):
            with deterministic(wanted):
                every = emulated.sample_vjp(
                    gradient, input, place, size, fill, options, (True,) * 3
                )
                found = emulated.sample_vjp(gradient, input, place, size, fill, options, needs)
            for one, other, needed in zip(found, every, needs, strict=True):
                if needed:
                    np.testing.assert_array_equal(one, other)
                else:
                    assert one is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_pytorch_differentiates_through_the_kernels(dtype):
    input = torch.from_numpy(numbers(0, (2, 3, 9, 11))).to(dtype).requires_grad_()
    for wide_theta in (torch.float32, torch.float64):
        theta = torch.from_numpy(thetas(1, 2, 2)).to(wide_theta).requires_grad_()
        if dtype == torch.float64 and wide_theta == torch.float32:
            continue  # the samplers refuse it
        gradient = torch.from_numpy(numbers(2, (2, 3, 7, 8))).to(dtype)
        results = []
        for engine in ("reference", "emulator"):
            output = functional.affine_sample(input, theta, (7, 8), engine=engine)
            results.append((output, *torch.autograd.grad(output, [input, theta], gradient)))
        for expected, got in zip(*results, strict=True):
            assert_close(got, expected, str(dtype).rpartition(".")[2], f"{dtype}, {wide_theta}")


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_derivatives_of_both_orders_are_those_of_finite_differences(mode):
    input = torch.from_numpy(numbers(0, (1, 1, 3, 4))).requires_grad_()
    theta = torch.from_numpy(thetas(1, 1, 2)).requires_grad_()

    def sample(input, theta):
        return functional.affine_sample(input, theta, (2, 3), mode=mode, engine="emulator")

    assert torch.autograd.gradcheck(sample, (input, theta))
    assert torch.autograd.gradgradcheck(sample, (input, theta))


# ---- Cases that nobody thought of ------------------------------------------------------------------------------------


@st.composite
def cases(draw):
    dimensions = draw(st.sampled_from([2, 2, 3]))
    size = st.tuples(*[st.integers(1, 9 if dimensions == 2 else 5)] * dimensions)
    channels = draw(st.sampled_from([1, 2, 3, 5, 40]))
    options = options_of(
        draw(st.sampled_from(MODES)),
        draw(st.sampled_from(PADDINGS)),
        draw(st.booleans()),
        draw(st.sampled_from(["normalised", "pixel"])),
        channels,
    )
    return {
        "shape": (draw(st.integers(0, 3)), channels, *draw(size)),
        "out": draw(size),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "dtype": draw(st.sampled_from(["float32", "float64"])),
        "wide": draw(st.booleans()),
        "last": draw(st.booleans()),
        "spread": draw(st.sampled_from([0.1, 1.0, 30.0])),
        "options": options,
    }


CANCELS = {  # a theta whose gradient is small beside what it sums
    "shape": (1, 1, 1, 1),
    "out": (5, 7),
    "seed": 0,
    "dtype": "float32",
    "wide": False,
    "last": False,
    "spread": 0.1,
    "options": options_of("bicubic", "fill", False, "pixel", 1),
}


@given(cases())
@example(CANCELS)
def test_kernels_agree_with_the_reference_on_any_case(case):
    shape, out, seed = case["shape"], case["out"], case["seed"]
    input = numbers(seed, shape, case["dtype"])
    if case["last"]:
        input = np.moveaxis(np.moveaxis(input, 1, -1).copy(), -1, 1)
    kind = np.float64 if case["wide"] or case["dtype"] == "float64" else np.float32
    theta = thetas(seed, shape[0], len(out), case["spread"]).astype(kind)
    grid = (case["spread"] * grids(seed, shape[0], out)).astype(kind)
    assert_as_reference(input, theta, out, **case["options"])
    assert_as_reference(input, grid, **case["options"])


# ---- Under sanitizers, and tests of these tests ----------------------------------------------------------------------

RUN = Path(__file__).with_name("run_kernels.py")


@functools.cache
def why_not(kind):
    """Return why Python does not start under a sanitizer, or nothing."""
    try:
        argv, env = emulator.sanitized_command(kind, [sys.executable, "-c", ""])
    except NoCompilerError as error:
        return str(error)
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    return f"Python does not start: {done.stderr[-500:]}" if done.returncode else ""


def sanitized(kind, changes=((),)):
    """Run every kernel under a sanitizer, changed or as it is. Return the status, and what was printed each time."""
    if why_not(kind):
        pytest.skip(why_not(kind))
    argv = [sys.executable, str(RUN), kind, json.dumps(changes)]
    argv, env = emulator.sanitized_command(kind, argv)
    if any(changes):  # many findings, whose lines nobody reads
        env["TSAN_OPTIONS"] += ":symbolize=0"
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=900)
    found = re.split(r"^-- .*\n", done.stderr, flags=re.MULTILINE)[1:]
    assert len(found) == len(changes), done.stderr
    return done.returncode, done.stdout, found


@pytest.mark.parametrize("kind", ["address,undefined", "thread"])
def test_every_kernel_is_clean(kind):
    status, printed, found = sanitized(kind)
    assert (status, found) == (0, [""])
    kernels = re.findall(
        r'extern "C" __global__ void (?:__launch_bounds__\(.*?\) )?(\w+)', SOURCE
    )
    assert printed.split() == ["done", *sorted(kernels)]
    assert len(kernels) == 11


MISTAKES = {
    "a read beyond the image": ("m >= 0 && m < size ? m : -1", "m >= 0 && m <= size ? m : -1", "heap-buffer-overflow"),
    "a write beyond the output": ("    row = min(row, rows - 1);\n", "", "heap-buffer-overflow"),
    "too little shared memory": ("base[64 * PIXELS]", "base[PIXELS]", "insufficient space"),
    "an overflow": ("(int)__double_as_longlong(shifted)", "(int)__double_as_longlong(shifted) << 28", "shift"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "finding"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_in_an_index_is_caught(old, new, finding):
    status, _, found = sanitized("address,undefined", [[(old, new)]])
    assert status != 0
    assert finding in found[0]


def test_each_barrier_is_needed_and_a_missing_one_is_caught():
    barrier = "__syncthreads();"
    changes = []
    for match in re.finditer(re.escape(barrier), SOURCE):
        width = 1  # of what stands around it, until that is found once
        while SOURCE.count(SOURCE[match.start() - width : match.end() + width]) > 1:
            width += 1
        around = SOURCE[match.start() - width : match.end() + width]
        changes.append([(around, around.replace(barrier, "", 1))])
    assert len(changes) == 11
    status, _, found = sanitized("thread", changes)
    assert status != 0
    for printed, change in zip(found, changes, strict=True):
        assert "data race" in printed, change


def test_a_missing_atomic_is_caught():
    changes = [
        ("#ifdef RACE", "#ifndef RACE"),
        (
            "atomicMax((unsigned long long*)largest, (unsigned long long)__double_as_longlong(most));",
            "*largest = max(*largest, __double_as_longlong(most));",
        ),
        (
            "atomicAdd((unsigned long long*)fixed + place, (unsigned long long)__double2ll_rn(value * scale));",
            "fixed[place] += __double2ll_rn(value * scale);",
        ),
    ]
    status, _, found = sanitized("thread", [[change] for change in changes])
    assert status != 0
    for printed, change in zip(found, changes, strict=True):
        assert "data race" in printed, change
