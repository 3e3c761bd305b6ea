import functools
import itertools

import numpy as np
import pytest
import skimage.color
import skimage.data
import torch

import stnlib
from stnlib import footprint
from stnlib.interpolation import KERNELS
from stnlib.padding import PADDING_MODES

SIZE, TURN = 240, 30  # pixels; degrees
LIBRARIES = pytest.mark.parametrize("xp", [np, torch], ids=["numpy", "torch"])
EVERY_KERNEL = pytest.mark.parametrize("mode", list(KERNELS))
EVERY_PADDING = pytest.mark.parametrize("padding_mode", PADDING_MODES)


def zone_plate():
    """Rings that reach the highest frequency that an image holds at the middles of its edges."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    return 0.5 + 0.5 * np.cos(np.pi * (x * x + y * y) / SIZE)


@functools.cache
def photograph(name):
    grey = skimage.color.rgb2gray(getattr(skimage.data, name)())
    top, left = (grey.shape[0] - SIZE) // 2, (grey.shape[1] - SIZE) // 2
    return grey[top : top + SIZE, left : left + SIZE]


def shrinking(along_x, along_y, turn, shift=(0, 0)):
    """Return a theta whose steps are so many pixels, and how large an output it fills from the image."""
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    cover = SIZE / (abs(c) + abs(s))
    height, width = int(cover / along_y + 1e-9), int(cover / along_x + 1e-9)
    pixels = np.array([[c, -s], [s, c]]) @ np.diag([along_x * width, along_y * height]) / SIZE
    return np.column_stack([pixels, np.array(shift) * 2 / SIZE])[None], (height, width)


def errors(image, theta, size):
    """Return the PSNR in dB of the plain and the antialiased sampler, against 16 x 16 samples an output pixel."""
    image = image[None, None]
    fine = torch.nn.functional.grid_sample(
        torch.as_tensor(image),
        torch.nn.functional.affine_grid(
            torch.as_tensor(theta), (1, 1, *(16 * n for n in size)), align_corners=False
        ),
        padding_mode="border",
        align_corners=False,
    )
    truth = torch.nn.functional.avg_pool2d(fine, 16).numpy()
    found = [
        stnlib.affine_sample(image, theta, size, padding_mode="border", antialias=antialias)
        for antialias in (False, True)
    ]
    return [psnr(f, truth) for f in found], truth


def psnr(found, truth):
    return -10 * np.log10(np.mean((np.asarray(found) - truth) ** 2))


# How good it is


@pytest.mark.parametrize(
    "steps", [(1.5, 1.5), (2, 2), (4, 4), (8, 8), (1.5, 4), (4, 1.5), (2, 8), (8, 2)]
)
@pytest.mark.parametrize("turn", [0, TURN])
@pytest.mark.parametrize("shift", [(0, 0), (0.3, 0.4)])
def test_a_shrunk_zone_plate_is_12_db_better_than_without(steps, turn, shift):
    theta, size = shrinking(*steps, turn, shift)
    (plain, antialiased), _ = errors(zone_plate(), theta, size)
    assert antialiased >= plain + 12


@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut"])
@pytest.mark.parametrize(("factor", "gain"), [(4, 6), (8, 9)])
@pytest.mark.parametrize("turn", [0, TURN])
def test_a_shrunk_photograph_is_better_than_without(name, factor, gain, turn):
    theta, size = shrinking(factor, factor, turn)
    (plain, antialiased), _ = errors(photograph(name), theta, size)
    assert antialiased >= plain + gain


@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut", None])
@pytest.mark.parametrize("factor", [1.5, 2, 4, 8])
def test_pure_shrinking_is_no_worse_than_torchs_antialiased_interpolate(name, factor):
    image = photograph(name) if name else zone_plate()
    theta, size = shrinking(factor, factor, 0)
    (_, antialiased), truth = errors(image, theta, size)
    resized = torch.nn.functional.interpolate(
        torch.as_tensor(image)[None, None], size=size, mode="bilinear", antialias=True
    )
    assert antialiased >= psnr(resized, truth)


# Where nothing is to do, and what is the same


def smooth_grid(size, scale, dimensions=2, n=1):
    """A gently bent grid: its steps are about `scale` times an output's pixel, everywhere a little different."""
    axes = np.meshgrid(*(np.linspace(-1, 1, k) for k in size), indexing="ij")[::-1]
    grid = np.stack(
        [
            scale * (a + 0.07 * np.sin(1.3 * b + 0.4) + 0.013)
            for a, b in zip(axes, [*axes[1:], axes[0]], strict=True)
        ],
        axis=-1,
    )
    return np.stack([grid * (1 - 0.1 * i) for i in range(n)])


@LIBRARIES
@EVERY_KERNEL
@EVERY_PADDING
def test_where_steps_are_a_pixel_or_less_it_is_the_plain_sampler(xp, mode, padding_mode):
    turned = np.array([[[0.6, -0.5, 0.1], [0.5, 0.6, 0.0]]])
    options = {"mode": mode, "padding_mode": padding_mode}
    # A turn by 40 degrees that shrinks steps to 0.78 pixels; and the identity, of steps of 1 but for rounding.
    for theta, size in ((turned, (6, 7)), (np.eye(2, 3)[None], (8, 8))):
        image = np.random.default_rng(0).random((1, 2, *size))
        arrays = xp.asarray(image), xp.asarray(theta)
        plain = stnlib.affine_sample(*arrays, size, **options, engine="reference")
        for antialias in (True, 1.5):
            output = stnlib.affine_sample(*arrays, size, **options, antialias=antialias)
            np.testing.assert_array_equal(np.asarray(output), np.asarray(plain))


def test_pixels_of_short_steps_are_plain_in_a_grid_of_long_ones():
    image = np.random.default_rng(0).random((1, 1, 9, 60))
    x = np.concatenate([np.arange(0, 12, 0.75), np.arange(14, 58, 3)])
    grid = np.stack(np.broadcast_arrays(x, 4.25), axis=-1)[None, None]
    plain, smooth = (
        stnlib.grid_sample(
            image, grid, coordinates="pixel", antialias=a, engine="reference"
        ).ravel()
        for a in (False, True)
    )
    same = plain == smooth
    assert same[:15].all()
    assert not same[17:].any()


@LIBRARIES
@EVERY_PADDING
def test_what_else_is_in_the_batch_does_not_matter(xp, padding_mode):
    image = xp.asarray(np.random.default_rng(0).random((3, 2, 12, 13)))
    grid = np.concatenate([smooth_grid((5, 6), s) for s in (0.3, 1.0, 1.7)])
    grid = xp.asarray(grid)
    options = {"padding_mode": padding_mode, "antialias": True}
    grad_output = xp.asarray(np.random.default_rng(1).normal(size=(3, 2, 5, 6)))
    whole = stnlib.grid_sample(image, grid, **options)
    grads = stnlib.grid_sample_vjp(grad_output, image, grid, **options)
    for i in range(3):
        one = slice(i, i + 1)
        alone = stnlib.grid_sample(image[one], grid[one], **options)
        np.testing.assert_array_equal(np.asarray(whole[one]), np.asarray(alone))
        own = stnlib.grid_sample_vjp(grad_output[one], image[one], grid[one], **options)
        np.testing.assert_array_equal(np.asarray(grads.input[one]), np.asarray(own.input))
        np.testing.assert_array_equal(np.asarray(grads.grid[one]), np.asarray(own.grid))


def test_a_number_that_is_large_enough_is_true():
    image, grid = np.random.default_rng(0).random((1, 2, 20, 20)), smooth_grid((6, 6), 0.9)
    exact = stnlib.grid_sample(image, grid, antialias=True)
    assert (exact != stnlib.grid_sample(image, grid)).any()
    for longest in (8, 1000.0):
        output = stnlib.grid_sample(image, grid, antialias=longest)
        np.testing.assert_allclose(output, exact, rtol=0, atol=1e-15)


@pytest.mark.parametrize("longest", [1.1, 2.0, 3.3])
def test_a_number_cuts_longer_footprints(longest):
    grid = smooth_grid((6, 6), 0.9) * 10
    samples = footprint.readings(grid, longest, np)
    lengths = [np.sqrt((s**2).sum(-1)) for s in footprint.steps(grid, grid, np)]
    assert min(length.min() for length in lengths) > 3.3
    total = sum(s.weight for s in samples)
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-14)
    for reading in samples:
        for cell, length in zip(reading.parts, lengths, strict=True):
            assert (np.abs(cell.shift * length) <= longest / 2).all()


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("scale", [0.5, 2, 5, 9])
def test_weights_sum_to_one_and_offsets_to_nothing(dimensions, scale):
    position = smooth_grid((4, 5, 3)[:dimensions], scale, dimensions)
    antialias = True if dimensions == 2 else 4.0
    samples = footprint.readings(position, antialias, np)
    np.testing.assert_allclose(sum(s.weight for s in samples), 1, rtol=0, atol=1e-13)
    middle = sum(s.weight[..., None] * s.offset for s in samples)
    np.testing.assert_allclose(middle, 0, rtol=0, atol=1e-13 * max(1, scale))


def test_the_output_is_continuous_in_the_step():
    image = np.random.default_rng(0).random((1, 1, 40, 40))
    steps = np.arange(0.9, 3.0, 0.002)
    x = 20.2 + steps[:, None] * np.array([-1, 0, 1])
    grid = np.stack(
        np.broadcast_arrays(x[:, None], 17.6), axis=-1
    )  # one row, three columns a step
    output = stnlib.grid_sample(
        np.repeat(image, len(steps), axis=0), grid, coordinates="pixel", antialias=True
    )[:, 0, 0, 1]
    assert np.ptp(output) > 0.02
    assert np.abs(np.diff(output)).max() < 0.02


@LIBRARIES
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "wrap"])
def test_a_coordinate_that_is_not_finite_spoils_no_other_pixel(xp, bad, padding_mode):
    image, grid = np.random.default_rng(0).random((1, 2, 12, 13)), smooth_grid((5, 6), 1.5)
    grid[0, 2, 3, 0] = bad
    output = np.asarray(
        stnlib.grid_sample(
            xp.asarray(image), xp.asarray(grid), padding_mode=padding_mode, antialias=True
        )
    )
    finite = np.isfinite(output)
    assert finite.sum() >= finite.size - 2
    assert finite[:, :, 2, 3].all() == (np.isinf(bad) and padding_mode != "wrap")


@pytest.mark.parametrize("far", [1e17, 1e150, 1e200, -1e300])
def test_a_huge_coordinate_gives_no_warning_and_spoils_no_other_pixel(far):
    image, grid = np.random.default_rng(0).random((1, 2, 12, 13)), smooth_grid((5, 6), 1.5)
    grid[0, 2, 3, 0] = far
    options = {"padding_mode": "border", "antialias": True}
    assert np.isfinite(stnlib.grid_sample(image, grid, **options)).all()
    grads = stnlib.grid_sample_vjp(np.ones((1, 2, 5, 6)), image, grid, **options)
    assert np.isfinite(grads.grid).all()


# Derivatives of the footprint itself


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("antialias", [True, 2.5])
@pytest.mark.parametrize("scale", [1.9, 4.1])
def test_products_are_transposes_and_agree_with_differences(dimensions, antialias, scale):
    rng = np.random.default_rng(0)
    position = smooth_grid((4, 5, 3)[:dimensions], scale, dimensions)
    samples = footprint.readings(position, antialias, np)
    weights = [rng.normal(size=s.weight.shape) for s in samples]
    offsets = [rng.normal(size=s.offset.shape) for s in samples]
    tangent = rng.normal(size=position.shape)
    pushed = footprint.readings_jvp(samples, tangent, position, np)
    pulled = footprint.readings_vjp(samples, weights, offsets, position, np)
    left = sum(
        (a * w).sum() + (b * o).sum()
        for a, b, (w, o) in zip(weights, offsets, pushed, strict=True)
    )
    assert left == pytest.approx((pulled * tangent).sum(), rel=1e-12, abs=1e-11)
    h = 1e-6
    there, back = (footprint.readings(position + s * tangent, antialias, np) for s in (h, -h))
    if len(there) == len(back) == len(samples):
        for (weight, offset), a, b in zip(pushed, there, back, strict=True):
            np.testing.assert_allclose(
                weight, (a.weight - b.weight) / (2 * h), rtol=0, atol=2e-5
            )
            np.testing.assert_allclose(
                offset, (a.offset - b.offset) / (2 * h), rtol=0, atol=2e-5
            )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_products_are_transposes_beside_a_coordinate_that_is_not_finite(bad):
    rng = np.random.default_rng(0)
    image, grid = rng.random((1, 2, 8, 9)), smooth_grid((5, 5), 0.95)
    grid[0, 2, 2, 0] = bad
    tangent, grad_output = rng.normal(size=grid.shape), rng.normal(size=(1, 2, 5, 5))
    tangent[0, 2, 2], grad_output[..., 2, 2] = 0, 0
    moved = stnlib.grid_sample_jvp(image, grid, grid_tangent=tangent, antialias=True)
    moved[..., 2, 2] = 0
    grad = stnlib.grid_sample_vjp(grad_output, image, grid, antialias=True).grid
    grad[0, 2, 2] = 0
    assert (grad_output * moved).sum() == pytest.approx((grad * tangent).sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("mode", "dimensions"), [*((m, 2) for m in KERNELS), ("nearest", 3), ("bilinear", 3)]
)
@EVERY_PADDING
def test_the_samplers_products_are_transposes(mode, padding_mode, dimensions):
    rng = np.random.default_rng(0)
    size, out = (7, 8, 5)[:dimensions], (3, 4, 2)[:dimensions]
    image, grid = rng.random((2, 2, *size)), smooth_grid(out, 0.8, dimensions, n=2)
    grad_output = rng.normal(size=(2, 2, *out))
    options = {"mode": mode, "padding_mode": padding_mode, "antialias": 2.0}
    fill = {"fill_value": np.array([0.3, -0.4])} if padding_mode == "fill" else {}
    tangents = [rng.normal(size=a.shape) for a in (image, grid)]
    filling = rng.normal(size=2)
    moved = stnlib.grid_sample_jvp(
        image,
        grid,
        input_tangent=tangents[0],
        grid_tangent=tangents[1],
        **({"fill_tangent": filling} if fill else {}),
        **options,
        **fill,
    )
    grads = stnlib.grid_sample_vjp(grad_output, image, grid, **options, **fill)
    right = sum((g * t).sum() for g, t in zip(grads[:2], tangents, strict=True))
    right += (grads.fill * filling).sum() if fill else 0
    assert (grad_output * moved).sum() == pytest.approx(
        right, abs=1e-12 * (1 + np.abs(grad_output * moved).sum())
    )


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_gradient_of_theta_agrees_with_differences(align_corners):
    rng = np.random.default_rng(0)
    image, theta = (
        rng.random((1, 2, 7, 8)),
        np.array([[[0.9, -0.2, 0.05], [0.3, 0.8, -0.03]]]),
    )
    options = {"mode": "bicubic", "antialias": 2.0, "align_corners": align_corners}
    grad_output = rng.normal(size=(1, 2, 5, 6))
    grad = stnlib.affine_sample_vjp(grad_output, image, theta, **options).theta
    h = 1e-6
    for i, j in itertools.product(range(2), range(3)):
        step = np.zeros_like(theta)
        step[0, i, j] = h
        ends = [
            stnlib.affine_sample(image, theta + s * step, (5, 6), **options) for s in (1, -1)
        ]
        expected = (grad_output * (ends[0] - ends[1])).sum() / (2 * h)
        assert grad[0, i, j] == pytest.approx(expected, abs=1e-6 * max(1, abs(expected)) * 10)
        moved = stnlib.affine_sample_jvp(
            image, theta, (5, 6), theta_tangent=step / h, **options
        )
        assert (grad_output * moved).sum() == pytest.approx(grad[0, i, j], abs=1e-11)


@pytest.mark.parametrize("longest", [0.3, 0.75, 1, 1.0, False, np.False_])
def test_no_step_is_longer_than_a_pixel_then_nothing_is_averaged(longest):
    image, grid = np.random.default_rng(0).random((1, 2, 20, 20)), smooth_grid((6, 6), 0.9)
    np.testing.assert_array_equal(
        stnlib.grid_sample(image, grid, antialias=longest), stnlib.grid_sample(image, grid)
    )


def test_a_boolean_of_numpy_is_a_boolean():
    image, grid = np.random.default_rng(0).random((1, 2, 20, 20)), smooth_grid((6, 6), 0.9)
    np.testing.assert_array_equal(
        stnlib.grid_sample(image, grid, antialias=np.True_),
        stnlib.grid_sample(image, grid, antialias=True),
    )
