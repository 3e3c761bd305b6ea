import gzip
import hashlib
import shutil
import time
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import scipy.stats
import torch

from stnlib import transforms
from stnlib.data import mnist
from stnlib.data.distortions import RTS, Distortion, R

CLASS_COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
EVERY_SPLIT = pytest.mark.parametrize("split", ["train", "test"])


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


@pytest.mark.parametrize("distortion", [R, RTS], ids=["R", "RTS"])
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


def test_torch_images_are_distorted_as_numpy_images(digits):
    theta = RTS.theta(len(digits), np.random.default_rng(0))
    distorted = RTS.apply(torch.from_numpy(digits), theta)
    assert distorted.dtype == torch.float32
    np.testing.assert_array_equal(distorted.numpy(), RTS.apply(digits, theta))
    np.testing.assert_array_equal(
        RTS(torch.from_numpy(digits), np.random.default_rng(0)).numpy(), distorted.numpy()
    )


@pytest.mark.parametrize("distortion", [R, RTS], ids=["R", "RTS"])
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
def test_images_that_are_not_digits_are_refused(images, error, message):
    with pytest.raises(error, match=message):
        RTS(images, np.random.default_rng(0))


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 3, 3), (2, 3)])
def test_transforms_that_do_not_fit_the_images_are_refused(shape):
    with pytest.raises(ValueError, match="theta: expected"):
        RTS.apply(np.zeros((3, 1, 28, 28)), np.zeros(shape))


def test_a_distortion_does_not_change():
    with pytest.raises(FrozenInstanceError):
        RTS.max_angle = 0.0


def test_digits_can_be_written_to():
    images, labels = mnist.load("test")
    images[0] = 255
    labels[0] = 0
    assert mnist.load("test")[0][0].min() == 0  # and the next load is not touched


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (42.5, 42.5)}, "size: expected whole numbers of pixels, got"),
        ({"max_angle": -45.0}, "max_angle: expected 0 to 180 degrees, got -45.0"),
    ],
)
def test_a_distortion_refuses_its_options_at_once(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Distortion(**{"size": (42, 42), "max_angle": 45.0, "scales": (1.0, 1.0), **options})


def test_a_distortion_wants_a_generator():
    with pytest.raises(TypeError, match=r"rng: expected a numpy\.random\.Generator, got int"):
        RTS(np.zeros((1, 1, 28, 28), np.float32), 0)
