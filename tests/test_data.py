import gzip
import hashlib
import shutil
import time
from dataclasses import FrozenInstanceError, replace

import cv2
import numpy as np
import pytest
import scipy.interpolate
import scipy.stats
import skimage.transform
import torch

from stnlib import transforms
from stnlib.coordinates import regular_grid, unnormalise
from stnlib.data import mnist
from stnlib.data.distortions import (
    RTS,
    TC,
    BaseDistortion,
    Clutter,
    Distortion,
    E,
    ElasticDistortion,
    P,
    ProjectiveDistortion,
    R,
)
from stnlib.training import DistortedDigits

CLASS_COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
EVERY_SPLIT = pytest.mark.parametrize("split", ["train", "test"])
EVERY_DISTORTION = pytest.mark.parametrize(
    "distortion", [R, RTS, P, E, TC], ids=["R", "RTS", "P", "E", "TC"]
)


@pytest.fixture(scope="module")
def digits():
    images, _ = mnist.load("test")
    return mnist.to_input(images[:200])


# MNIST


@EVERY_SPLIT
def test_shapes_and_class_counts(split):
    images, labels = mnist.load(split)
    counts = CLASS_COUNTS[split]
    assert (images.shape, images.dtype) == ((sum(counts), 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((sum(counts),), np.uint8)
    assert np.bincount(labels).tolist() == counts


@EVERY_SPLIT
def test_pixels_and_labels_are_those_of_the_published_files(split):
    images, labels = mnist.load(split)
    prefix = {"train": "train", "test": "t10k"}[split]
    header = {
        "images-idx3": np.array([2051, len(images), 28, 28], ">i4").tobytes(),
        "labels-idx1": np.array([2049, len(labels)], ">i4").tobytes(),
    }
    for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
        digest = hashlib.sha256(header[kind] + content.tobytes()).hexdigest()
        assert digest == mnist.SHA256[f"{prefix}-{kind}-ubyte"]


def test_the_digests_are_the_published_ones():
    starts = [digest[:8] for digest in mnist.SHA256.values()]
    assert starts == ["ba891046", "65a50cbb", "0fa7898d", "ff7bcfd4"]


def test_loads_in_under_a_second():
    def seconds():
        start = time.perf_counter()
        mnist.load("train")
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 1


@pytest.mark.parametrize("split", ["validation", "", None])
def test_unknown_split_is_refused(split):
    with pytest.raises(ValueError, match=f"split: expected 'train' or 'test', got {split!r}"):
        mnist.load(split)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def change_a_pixel(path):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(content), compresslevel=1))


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (cut_short, "is corrupt or cut short (Compressed file ended"),
        (flip_a_bit, "is corrupt or cut short ("),
        (
            lambda path: path.write_bytes(b"not gzip"),
            "is corrupt or cut short (Not a gzipped file",
        ),
        (lambda path: path.write_bytes(b""), "has changed: expected SHA-256 "),
        (change_a_pixel, "has changed: expected SHA-256 "),
        (lambda path: path.unlink(), "is missing; install stnlib again"),
    ],
    ids=["cut short", "flipped bit", "not gzip", "empty", "changed", "missing"],
)
def test_a_spoilt_file_is_named_in_one_sentence(monkeypatch, tmp_path, name, spoil, sentence):
    for path in mnist.FOLDER.glob("t10k-*.gz"):
        shutil.copy(path, tmp_path)
    spoil(tmp_path / f"{name}.gz")
    monkeypatch.setattr(mnist, "FOLDER", tmp_path)
    with pytest.raises(OSError, match="install stnlib again") as caught:
        mnist.load("test")
    assert str(caught.value).startswith(f"{tmp_path / name}.gz {sentence}")
    assert "\n" not in str(caught.value)


def test_to_input_scales_ink_to_one():
    images = np.array([[[0, 51], [102, 255]]], np.uint8)
    batch = mnist.to_input(images)
    assert (batch.shape, batch.dtype) == ((1, 1, 2, 2), np.float32)
    np.testing.assert_array_equal(batch[0, 0], np.array([[0, 0.2], [0.4, 1]], np.float32))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (
            np.zeros((1, 2, 2)),
            TypeError,
            "images: expected a NumPy array of uint8, as load returns them, got float64",
        ),
        (
            np.zeros((2, 2), np.uint8),
            ValueError,
            r"images: expected shape \(N, H, W\), got \(2, 2\)",
        ),
        (
            np.zeros((1, 1, 2, 2), np.uint8),
            ValueError,
            r"images: expected shape \(N, H, W\), got \(1, 1, 2, 2\)",
        ),
    ],
)
def test_to_input_refuses(images, error, message):
    with pytest.raises(error, match=message):
        mnist.to_input(images)


# Distortions


def draws(distortion, n=5000):
    """Return angle in degrees, scale and the place of the digit's centre, in pixels from the frame's edge."""
    theta = distortion.theta(n, np.random.default_rng(0))
    to_digit = transforms.theta_to_pixel(theta, (28, 28), distortion.size)
    to_frame = transforms.inverse(to_digit)
    centre = transforms.apply(to_frame, np.array([[13.5, 13.5]]))[:, 0] + 0.5
    scale = np.hypot(to_frame[:, 0, 0], to_frame[:, 1, 0])
    angle = np.degrees(np.arctan2(to_frame[:, 1, 0], to_frame[:, 0, 0]))
    similar = transforms.similarity(
        scale, np.radians(angle), to_frame[:, 0, 2], to_frame[:, 1, 2]
    )
    np.testing.assert_allclose(to_frame, similar, rtol=0, atol=1e-12)
    return angle, scale, centre


def assert_uniform(values, low, high):
    width = high - low
    assert low - 1e-9 * width <= values.min() < low + 0.01 * width
    assert high - 0.01 * width < values.max() <= high + 1e-9 * width
    # Four standard errors of the mean of n uniform draws.
    assert abs(values.mean() - (low + high) / 2) < 4 * width / np.sqrt(12 * len(values))
    assert scipy.stats.kstest(values, "uniform", (low, width)).pvalue > 0.01


def test_rts_draws_angle_and_scale_uniformly():
    angle, scale, _ = draws(RTS)
    assert_uniform(angle, -45, 45)
    assert_uniform(scale, 0.7, 1.2)
    assert abs(np.corrcoef(angle, scale)[0, 1]) < 4 / np.sqrt(len(angle))


def test_rts_places_the_scaled_digit_anywhere_inside_the_frame():
    _, scale, centre = draws(RTS)
    half = 14 * scale[:, None]
    assert (centre - half >= -1e-9).all()
    assert (centre + half <= 42 + 1e-9).all()
    for axis in (0, 1):
        assert_uniform(((centre - half) / (42 - 2 * half))[:, axis], 0, 1)
    assert abs(np.corrcoef(centre.T)[0, 1]) < 4 / np.sqrt(len(centre))


def test_rotated_digits_stay_in_the_middle_and_keep_their_scale():
    angle, scale, centre = draws(R)
    assert_uniform(angle, -90, 90)
    np.testing.assert_allclose(scale, 1, rtol=0, atol=1e-13)
    np.testing.assert_allclose(centre, 14, rtol=0, atol=1e-12)


def test_frames_need_not_be_square():
    wide = Distortion(size=(30, 100), max_angle=0.0, scales=(1.0, 1.0))
    _, _, centre = draws(wide)
    assert_uniform(centre[:, 0], 14, 86)
    assert_uniform(centre[:, 1], 14, 16)
    assert wide(np.zeros((2, 1, 28, 28)), np.random.default_rng(0)).shape == (2, 1, 30, 100)


def test_rts_draws_what_it_has_always_drawn():
    first = [[2.033930668367, 0.44445607026, -0.711503165915]]  # results/rts.json depends on it
    theta = RTS.theta(2, np.random.default_rng(0))
    np.testing.assert_allclose(theta[0, :1], first, rtol=0, atol=1e-11)


@EVERY_DISTORTION
def test_one_seed_gives_one_result(distortion, digits):
    first, again, other = (
        distortion(digits, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (len(digits), 1, *distortion.size)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_each_digit_has_its_own_transform(digits):
    same = np.repeat(digits[:1], 5, axis=0)
    distorted = RTS(same, np.random.default_rng(0))
    assert len(np.unique(distorted.reshape(5, -1), axis=0)) == 5


def test_ink_scales_with_the_square_of_the_scale(digits):
    theta = RTS.theta(len(digits), np.random.default_rng(0))
    to_digit = transforms.theta_to_pixel(theta, (28, 28), (42, 42))
    scale_squared = 1 / np.linalg.det(to_digit[:, :, :2])
    ratio = RTS.apply(digits, theta).sum(axis=(1, 2, 3)) / (
        digits.sum(axis=(1, 2, 3)) * scale_squared
    )
    # The sum over pixels stands for an integral, of strokes a few pixels wide.
    np.testing.assert_allclose(ratio, 1, rtol=0, atol=0.03)
    assert ratio.mean() == pytest.approx(1, abs=0.002)


def test_a_turn_by_90_degrees_turns_x_towards_y(digits):
    turn = transforms.rotation(np.full(len(digits), -np.pi / 2))
    np.testing.assert_allclose(
        R.apply(digits, turn), np.rot90(digits, -1, axes=(2, 3)), rtol=0, atol=1e-6
    )


@EVERY_DISTORTION
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_images_are_distorted_as_numpy_images(distortion, dtype, digits):
    images = (
        np.repeat(digits.astype(dtype), 2, axis=1) * np.array([1, 0.5], dtype)[:, None, None]
    )
    theta = distortion.theta(len(digits), np.random.default_rng(0))
    from_numpy = distortion.apply(images, theta)
    distorted = distortion.apply(torch.from_numpy(images), theta)
    assert from_numpy.shape == (len(digits), 2, *distortion.size)
    assert (from_numpy.dtype, distorted.numpy().dtype) == (dtype, dtype)
    # PyTorch multiplies the matrices of families in an order of its own.
    tolerance = 0 if distortion in (R, RTS, TC) else 1e-6
    np.testing.assert_allclose(distorted.numpy(), from_numpy, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(
        distortion(torch.from_numpy(images), np.random.default_rng(0)).numpy(),
        distorted.numpy(),
    )


@EVERY_DISTORTION
def test_a_part_of_a_draw_distorts_a_part_of_the_images(distortion, digits):
    theta = distortion.theta(9, np.random.default_rng(0))
    part = distortion.apply(digits[3:7], theta[3:7])
    assert part.shape == (4, 1, *distortion.size)
    if distortion is not TC:  # whose patches come from the batch
        np.testing.assert_array_equal(part, distortion.apply(digits[:9], theta)[3:7])


@EVERY_DISTORTION
def test_every_distortion_feeds_the_training_loop(distortion):
    images, labels = mnist.load("test")
    batch, _ = DistortedDigits(images, labels, distortion, 8, seed=0)(0)
    assert tuple(batch.shape) == (8, 1, *distortion.size)
    assert batch.dtype == torch.float32
    assert 0 <= float(batch.min()) <= float(batch.max()) <= 1
    assert float(batch.amax((1, 2, 3)).min()) > 0.5


@EVERY_DISTORTION
def test_no_digits_give_no_digits(distortion):
    empty = distortion(np.zeros((0, 1, 28, 28)), np.random.default_rng(0))
    assert empty.shape == (0, 1, *distortion.size)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((0.0, 1.0), r"scales: expected 0 < low <= high, got \(0.0, 1.0\)"),
        ((1.2, 0.7), r"scales: expected 0 < low <= high, got \(1.2, 0.7\)"),
        (
            (1.0, 1.6),
            r"scales: a digit of 28 pixels times 1.6 does not fit the frame \(42, 50\); use scales up to 1.5",
        ),
    ],
)
def test_impossible_scales_are_refused(scales, message):
    with pytest.raises(ValueError, match=message):
        Distortion(size=(42, 50), max_angle=45.0, scales=scales)


def test_the_largest_scale_that_fits_is_accepted():
    assert_uniform(draws(Distortion((42, 42), 45.0, (0.5, 1.5)))[1], 0.5, 1.5)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (
            np.zeros((2, 28, 28)),
            ValueError,
            r"images: expected shape \(N, C, 28, 28\), got \(2, 28, 28\)",
        ),
        (
            np.zeros((2, 1, 42, 42)),
            ValueError,
            r"images: expected shape \(N, C, 28, 28\), got \(2, 1, 42, 42\)",
        ),
        (
            np.zeros((2, 1, 28, 28), np.uint8),
            TypeError,
            "images: expected float32 or float64, got uint8",
        ),
        ([[0.0]], TypeError, "images: expected a NumPy, CuPy or PyTorch array, got list"),
    ],
)
@EVERY_DISTORTION
def test_images_that_are_not_digits_are_refused(distortion, images, error, message):
    with pytest.raises(error, match=message):
        distortion(images, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("distortion", "shape", "expected"),
    [
        (RTS, (2, 2, 3), "(3, 2, 3)"),
        (RTS, (3, 3, 3), "(3, 2, 3)"),
        (RTS, (2, 3), "(3, 2, 3)"),
        (P, (3, 3, 3), "(3, 8)"),
        (E, (4, 32), "(3, 32)"),
    ],
)
def test_transforms_that_do_not_fit_the_images_are_refused(distortion, shape, expected):
    with pytest.raises(ValueError, match="theta: expected shape") as caught:
        distortion.apply(np.zeros((3, 1, 28, 28)), np.zeros(shape))
    assert str(caught.value) == f"theta: expected shape {expected}, got {shape}"


@EVERY_DISTORTION
def test_a_distortion_does_not_change(distortion):
    with pytest.raises(FrozenInstanceError):
        distortion.size = (28, 28)


def test_digits_can_be_written_to():
    images, labels = mnist.load("test")
    images[0] = 255
    labels[0] = 0
    assert mnist.load("test")[0][0].min() == 0  # and the next load is not touched


@pytest.mark.parametrize(
    ("distortion", "options", "message"),
    [
        (RTS, {"size": (42.5, 42.5)}, "size: expected whole numbers of pixels, got"),
        (RTS, {"max_angle": -45.0}, "max_angle: expected 0 to 180 degrees, got -45.0"),
        (P, {"size": (28, 28.5)}, "size: expected whole numbers of pixels, got"),
        (P, {"scales": (0.75, 1.5)}, "scales: a digit of 28 pixels times 1.5 does not fit"),
        (P, {"sigma": -1.0}, "sigma: expected a finite number of pixels, at least 0, got -1.0"),
        (P, {"sigma": "5"}, "sigma: expected a finite number of pixels, at least 0, got '5'"),
        (
            E,
            {"sigma": np.inf},
            "sigma: expected a finite number of pixels, at least 0, got inf",
        ),
        (E, {"scales": (0.0, 1.0)}, r"scales: expected 0 < low <= high, got \(0.0, 1.0\)"),
        (TC, {"size": (60,)}, r"size: expected a height and a width, got \(60,\)"),
        (TC, {"size": (60, 27)}, "size: expected at least 28 pixels along each side"),
        (TC, {"patches": -1}, "patches: expected at least 0, got -1"),
        (TC, {"patches": 6.0}, "patches: expected a whole number, got 6.0"),
        (TC, {"side": 0}, "side: expected at least 1 pixel, got 0"),
        (TC, {"side": 29}, "side: expected at most 28 pixels, a digit's, got 29"),
    ],
)
def test_a_distortion_refuses_its_options_at_once(distortion, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        replace(distortion, **options)


@EVERY_DISTORTION
def test_a_distortion_wants_a_generator(distortion):
    with pytest.raises(TypeError, match=r"rng: expected a numpy\.random\.Generator, got int"):
        distortion(np.zeros((1, 1, 28, 28), np.float32), 0)


@EVERY_DISTORTION
@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (-1, ValueError, "n: expected at least 0, got -1"),
        (2.5, TypeError, "n: expected a whole number, got 2.5"),
    ],
)
def test_a_distortion_wants_a_number_of_images(distortion, n, error, message):
    with pytest.raises(error, match=message):
        distortion.theta(n, np.random.default_rng(0))


def test_the_base_says_what_a_distortion_must_have():
    base = BaseDistortion((28, 28))
    with pytest.raises(NotImplementedError, match=r"BaseDistortion\.theta"):
        base(np.zeros((1, 1, 28, 28)), np.random.default_rng(0))
    with pytest.raises(NotImplementedError, match=r"BaseDistortion\.apply"):
        base.apply(np.zeros((1, 1, 28, 28)), np.zeros(1))


# Projective

CORNERS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def quads(sigma, n=5000, size=(28, 28)):
    """Return where P sends the corners of digits, (n, 4, 2), in pixels from the frame's edge; one seed for all."""
    theta = replace(P, size=size, sigma=sigma).theta(n, np.random.default_rng(0))
    family = transforms.Projective()
    corners = family.apply(family.inverse(theta), CORNERS)
    return np.stack([unnormalise(corners[..., k], size[1 - k]) for k in (0, 1)], -1) + 0.5


def assert_places_uniform(box, low, high, size):
    """Check upright squares, (n, 4, 2): their scales, and that they lie anywhere inside the frame."""
    upper_left, side = box[:, 0], box[:, 2, 0] - box[:, 0, 0]
    square = upper_left[:, None] + side[:, None, None] * (CORNERS + 1) / 2
    np.testing.assert_allclose(box, square, rtol=0, atol=1e-9)
    assert_uniform(side / 28, low, high)
    place = upper_left / (np.array([size[1], size[0]]) - side[:, None])
    for k in (0, 1):
        assert_uniform(place[:, k], 0, 1)
    unrelated = np.corrcoef(np.c_[side, place].T) - np.eye(3)
    assert abs(unrelated).max() < 4 / np.sqrt(len(box))


def least_area(quad):
    """Return twice the area of the smallest triangle of three corners in a row; negative if it is turned over."""
    triangles = np.stack([np.roll(quad, k, axis=1)[:, :3] for k in range(4)], 1)
    sides = triangles[:, :, 1:] - triangles[:, :, :1]
    return np.linalg.det(sides).min(1)


@pytest.mark.parametrize("size", [(28, 28), (50, 40)])
def test_p_scales_and_places_as_the_paper_does(size):
    assert_places_uniform(quads(0.0, size=size), 0.75, 1, size)


def test_p_moves_each_corner_by_normal_draws():
    moves = (quads(1.0) - quads(0.0)).reshape(-1, 8)
    assert abs(moves.mean()) < 4 / np.sqrt(moves.size)
    assert abs(moves.std() - 1) < 4 / np.sqrt(2 * moves.size)
    assert (abs(moves.std(0) - 1) < 4 / np.sqrt(2 * len(moves))).all()
    assert abs(np.corrcoef(moves.T) - np.eye(8)).max() < 4.5 / np.sqrt(len(moves))
    assert scipy.stats.kstest(moves.ravel(), "norm").pvalue > 0.01


def test_p_draws_again_what_is_degenerate_and_nothing_else():
    box, quad = quads(0.0), quads(5.0)
    first = box + 5 * (quads(1.0) - box)  # the same normal draws, of which none needs another
    side = box[:, 2, 0] - box[:, 0, 0]
    degenerate = least_area(first) < 0.05 * side**2
    again = abs(quad - first).max((1, 2)) > 1e-6
    np.testing.assert_array_equal(again, degenerate)
    assert 0.015 < again.mean() < 0.026
    assert (least_area(quad) >= 0.05 * side**2 - 1e-6).all()
    moves = quad - box
    assert moves.std() == pytest.approx(5, abs=0.1)
    assert scipy.stats.kstest(moves[~again].ravel() / 5, "norm").pvalue > 0.001
    for corners in quad[::50].astype(np.float32):
        assert cv2.isContourConvex(corners)
        assert cv2.contourArea(corners, oriented=True) > 0


def test_p_with_a_large_sigma_still_ends():
    wild = replace(P, sigma=1000.0)
    assert np.isfinite(wild.theta(2000, np.random.default_rng(0))).all()


def test_p_agrees_with_opencv_and_scikit_image(digits):
    n = 30
    distorted = P.apply(digits[:n], P.theta(n, np.random.default_rng(0)))[:, 0]
    worst = 0.0
    own = (CORNERS + 1) * 14 - 0.5
    for digit, quad, result in zip(digits[:n, 0], quads(5.0, n) - 0.5, distorted, strict=True):
        to_frame = cv2.getPerspectiveTransform(own.astype(np.float32), quad.astype(np.float32))
        inverse = skimage.transform.ProjectiveTransform(np.linalg.inv(to_frame))
        expected = skimage.transform.warp(
            digit, inverse, output_shape=(28, 28), order=1, mode="constant"
        )
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)
        worst = max(worst, abs(cv2.warpPerspective(digit, to_frame, (28, 28)) - result).max())
    assert worst < 0.1  # OpenCV rounds positions to 1/32 pixel


def test_p_puts_ink_inside_the_four_corners_alone(digits):
    theta = P.theta(len(digits), np.random.default_rng(0))
    white = P.apply(np.ones_like(digits), theta)[:, 0]
    for picture, quad in zip(white, quads(5.0, len(digits)), strict=True):
        outline = quad.astype(np.float32)
        for y, x in np.argwhere(picture > 0)[::7]:
            distance = cv2.pointPolygonTest(outline, (float(x) + 0.5, float(y) + 0.5), True)
            assert distance > -8  # half a pixel of the digit, which may be stretched
        for y, x in np.argwhere(picture == 0)[::7]:
            point = (float(x) + 0.5, float(y) + 0.5)
            assert cv2.pointPolygonTest(outline, point, False) <= 0


# Elastic


def control_points(sigma, n=5000, size=(28, 28)):
    """Return where E reads control points, (n, 16, 2) in the digit, normalised; one seed for every sigma."""
    theta = replace(E, size=size, sigma=sigma).theta(n, np.random.default_rng(0))
    return theta.reshape(n, 16, 2)


@pytest.mark.parametrize("size", [(28, 28), (50, 40)])
def test_e_scales_and_places_as_the_paper_does(size):
    still = control_points(0.0, size=size)
    height, width = size
    frame = np.array([width, height])
    lattice = np.stack(np.meshgrid(*[np.linspace(0, 1, 4)] * 2), -1).reshape(16, 2) * frame
    scale = (
        frame / (still[:, 15] - still[:, 0]) / 14
    )  # pixels of the frame to a pixel of the digit
    np.testing.assert_allclose(scale[:, 0], scale[:, 1], rtol=1e-12)
    upper_left = lattice[0] - (still[:, 0] + 1) * 14 * scale
    box = upper_left[:, None] + 28 * scale[:, None] * (CORNERS + 1) / 2
    assert_places_uniform(box, 0.75, 1, size)
    expected = (lattice - upper_left[:, None]) / (14 * scale[:, None]) - 1
    np.testing.assert_allclose(still, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(28, 28), (50, 40)])
def test_e_moves_each_control_point_by_normal_draws(size):
    still, moved = control_points(0.0, size=size), control_points(1.5, size=size)
    scale = np.array([size[1], size[0]]) / (still[:, 15] - still[:, 0]) / 14
    moves = ((moved - still) * 14 * scale[:, None]).reshape(-1, 32)  # pixels of the frame
    assert abs(moves.mean()) < 4 * 1.5 / np.sqrt(moves.size)
    assert abs(moves.std() - 1.5) < 4 * 1.5 / np.sqrt(2 * moves.size)
    assert abs(np.corrcoef(moves.T) - np.eye(32)).max() < 4.5 / np.sqrt(len(moves))
    assert scipy.stats.kstest(moves.ravel() / 1.5, "norm").pvalue > 0.01


def test_e_agrees_with_scipy_and_scikit_image(digits):
    n = 20
    distorted = E.apply(digits[:n], E.theta(n, np.random.default_rng(0)))[:, 0]
    lattice = np.stack(np.meshgrid(*[np.linspace(-1, 1, 4)] * 2), -1).reshape(16, 2)
    pixels = regular_grid((28, 28)).reshape(-1, 2)
    for digit, points, result in zip(
        digits[:n, 0], control_points(1.5, n), distorted, strict=True
    ):
        spline = scipy.interpolate.RBFInterpolator(lattice, points, kernel="thin_plate_spline")
        grid = spline(pixels)
        np.testing.assert_allclose(
            E.family.grid(points.reshape(1, 32), (28, 28)).reshape(-1, 2), grid, atol=1e-9
        )
        rows_columns = unnormalise(grid, 28).T[::-1].reshape(2, 28, 28)
        expected = skimage.transform.warp(digit, rows_columns, order=1, mode="constant")
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_without_a_move_p_and_e_scale_and_place_alone(digits):
    still, upright = (
        kind((28, 28), (0.75, 1.0), 0.0) for kind in (ProjectiveDistortion, ElasticDistortion)
    )
    similar = Distortion((28, 28), 0.0, (0.75, 1.0))
    for seed in range(3):
        a, b = (d(digits, np.random.default_rng(seed)) for d in (still, upright))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    theta = similar.theta(len(digits), np.random.default_rng(0))
    as_projective = np.concatenate([theta.reshape(-1, 6), np.zeros((len(theta), 2))], 1)
    np.testing.assert_allclose(
        P.apply(digits, as_projective), similar.apply(digits, theta), rtol=0, atol=1e-5
    )


# Translated and cluttered


def cluttered(images, theta, size, side):
    """Place digits and patches at whole pixels, one by one."""
    frames = np.zeros((len(images), images.shape[1], *size), images.dtype)
    for i, (frame, draw) in enumerate(zip(frames, theta, strict=True)):
        x, y = (int(v) for v in draw["place"])
        frame[:, y : y + 28, x : x + 28] = images[i]
        others = [*range(i + 1, len(images)), *range(i)] or [i]
        for source, (cut_x, cut_y), (x, y) in zip(
            draw["source"], draw["cut"], draw["paste"], strict=True
        ):
            other = images[others[int(source * len(others))]]
            patch = other[:, cut_y : cut_y + side, cut_x : cut_x + side]
            place = frame[:, y : y + side, x : x + side]
            place[...] = np.maximum(place, patch)
    return frames


@pytest.mark.parametrize(
    ("distortion", "n"),
    [
        (TC, 200),
        (TC, 2),
        (TC, 1),
        (Clutter((28, 28), 3, 28), 4),
        (Clutter((29, 70), 40, 1), 5),
        (Clutter((31, 28), 0, 6), 3),
    ],
)
def test_patches_are_crops_of_other_digits(distortion, n, digits):
    images = np.concatenate([digits[:n], digits[:n, :, ::-1]], axis=1)
    theta = distortion.theta(n, np.random.default_rng(0))
    theta["place"] = np.round(theta["place"])
    expected = cluttered(images, theta, distortion.size, distortion.side)
    np.testing.assert_array_equal(distortion.apply(images, theta), expected)


def test_patches_come_from_every_other_digit_and_never_from_itself():
    numbered = np.ones((7, 1, 28, 28)) * np.arange(1.0, 8)[:, None, None, None]
    wide = Clutter((28, 100), 200, 1)
    theta = wide.theta(7, np.random.default_rng(0))
    theta["place"] = 0  # so that patches alone are seen from column 28 on
    for i, frame in enumerate(wide.apply(numbered, theta)[:, 0], start=1):
        assert set(np.unique(frame[:, 28:])) == set(range(8)) - {i}


def test_tc_draws_uniformly():
    theta = TC.theta(5000, np.random.default_rng(0))
    assert theta.shape == (5000,)
    for k in (0, 1):
        assert_uniform(theta["place"][:, k], 0, 32)
        for name, most in (("cut", 22), ("paste", 54)):
            counts = np.bincount(theta[name][..., k].ravel(), minlength=most + 1)
            assert len(counts) == most + 1
            assert scipy.stats.chisquare(counts).pvalue > 0.01
    assert_uniform(theta["source"][:, 0], 0, 1)


def test_tc_places_digits_between_pixels_as_the_affine_sampler_does(digits):
    bare = Clutter((60, 60), 0, 6)
    theta = bare.theta(len(digits), np.random.default_rng(0))
    theta["place"][:4] = [[0, 0], [32, 32], [0, 32], [31.999999, 1e-6]]  # the frame's edges
    affine = transforms.pixel_to_theta(
        transforms.translation(*-theta["place"].T), (28, 28), (60, 60)
    )
    expected = Distortion((60, 60), 0.0, (1.0, 1.0)).apply(digits, affine)
    distorted = bare.apply(digits, theta)
    np.testing.assert_allclose(distorted, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        distorted.sum((1, 2, 3)), digits.sum((1, 2, 3)), rtol=1e-5
    )  # all of it inside


def test_tc_leaves_the_background_0(digits):
    theta = TC.theta(len(digits), np.random.default_rng(0))
    frames = TC.apply(digits, theta)
    assert 0 <= frames.min() <= frames.max() <= 1
    untouched = np.ones_like(frames, bool)
    for i, draw in enumerate(theta):
        x, y = np.floor(draw["place"]).astype(int)
        untouched[i, :, y : y + 29, x : x + 29] = False
        for x, y in draw["paste"]:
            untouched[i, :, y : y + 6, x : x + 6] = False
    assert untouched.mean() > 0.6
    assert (frames[untouched] == 0).all()


def spoilt(name, value):
    theta = TC.theta(2, np.random.default_rng(0))
    theta[name][1] = value
    return theta


@pytest.mark.parametrize(
    ("theta", "error", "message"),
    [
        (
            np.zeros((2, 2, 3)),
            TypeError,
            "theta: expected a structured array, as Clutter.theta",
        ),
        ([0.0, 0.0], TypeError, "theta: expected a structured array, .* 6 patches, got list"),
        (
            replace(TC, patches=5).theta(2, np.random.default_rng(0)),
            TypeError,
            "theta: expected a structured array, as Clutter.theta draws it for 6 patches",
        ),
        (
            TC.theta(3, np.random.default_rng(0)),
            ValueError,
            r"theta: expected shape \(2\), got \(3,\)",
        ),
        (spoilt("place", 33.0), ValueError, "theta: expected place from 0 to"),
        (spoilt("place", np.nan), ValueError, "theta: expected place from 0 to"),
        (spoilt("source", 1.0), ValueError, "theta: expected source from 0 to"),
        (spoilt("cut", 23), ValueError, "theta: expected cut from 0 to 22, got [0-9]+ to 23"),
        (spoilt("paste", -1), ValueError, "theta: expected paste from 0 to .*, got -1 to"),
    ],
)
def test_draws_that_do_not_fit_the_clutter_are_refused(theta, error, message):
    with pytest.raises(error, match=message) as caught:
        TC.apply(np.zeros((2, 1, 28, 28)), theta)
    assert "\n" not in str(caught.value)
