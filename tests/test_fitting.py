"""Transforms from pairs of points: exact ones are found, noisy ones as well as can be, and what is refused."""

import cv2
import kornia.geometry
import numpy as np
import pytest
import skimage.transform
import torch
from hypothesis import given
from hypothesis import strategies as st

from stnlib.transforms import (
    Affine,
    Attention,
    Basis,
    BSpline,
    Composition,
    DenseFlow,
    ExponentialAffine,
    Factored,
    Family,
    FourCorners,
    Linear,
    PiecewiseAffine,
    PiecewiseAffineVelocity,
    Projective,
    Rigid,
    Similarity,
    StationaryVelocity,
    ThinPlateSpline,
    Translation,
    apply,
    fit,
)

SCATTERED = np.random.default_rng(7).uniform(-1, 1, (9, 2))
PARTS = {"scales": True, "shear": True, "rotation": True, "translation": True}

LINEAR = {
    "translation": Translation(),
    "attention1": Attention(1),
    "attention2": Attention(2),
    "rigid": Rigid(),
    "similarity": Similarity(),
    "similarity-log": Similarity(log=True),
    "affine": Affine(),
    "table": Affine([["a", "-b", "tx"], ["b", "a", 0.25]]),
    "only-rotation": Affine.only(rotation=True),
    "only-shear": Affine.only(shear=True),
    "only-crop": Affine.only(scales=True, log=True, translation=True),
    "only-all": Affine.only(**PARTS),
    "only-all-log": Affine.only(log=True, **PARTS),
    "only-rotation-and-scales": Affine.only(scales=True, rotation=True),
    "exponential": ExponentialAffine(),
    "affine3": Affine(dimensions=3),
    "rigid3": Rigid(dimensions=3),
    "rigid3-quaternion": Rigid(dimensions=3, rotation="quaternion"),
    "similarity3": Similarity(dimensions=3),
    "exponential3": ExponentialAffine(dimensions=3),
}
BENT = {
    "projective": Projective(),
    "corners": FourCorners(),
    "tps": ThinPlateSpline(3, 3),
    "tps-points": ThinPlateSpline(points=SCATTERED),
    "tps-regularised": ThinPlateSpline(3, 3, regularisation=0.05),
    "piecewise": PiecewiseAffine(3, 3),
    "piecewise-points": PiecewiseAffine(points=SCATTERED),
    "bspline": BSpline(4, 5),
}
FITTED = LINEAR | BENT
every_fitted = pytest.mark.parametrize("family", FITTED.values(), ids=FITTED)


def assert_near(actual, expected, tolerance):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def problem(family, seed=0, spread=0.15, count=60):
    """Return parameters, and pairs of points that belong to them."""
    rng = np.random.default_rng(seed)
    theta = family.identity() + spread * rng.normal(size=family.num_parameters)
    target = rng.uniform(-1, 1, (count, family.dimensions))
    return theta, family.apply(theta[None], target)[0], target


@every_fitted
@given(seed=st.integers(0, 2**32 - 1))
def test_parameters_come_back_from_exact_points(family, seed):
    theta, source, target = problem(family, seed)
    found = fit(family, source, target)
    assert found.dtype == np.float64
    assert_near(family.apply(found[None], target)[0], source, 1e-9)
    if not isinstance(family, Basis):  # some points may hardly be drawn by a control point
        assert_near(found, theta, 1e-7)


@pytest.mark.parametrize(
    ("family", "count"),
    [
        (Translation(), 1),
        (Attention(1), 2),
        (Attention(2), 2),
        (Rigid(), 2),
        (Similarity(), 2),
        (Affine(), 3),
        (Affine.only(**PARTS), 3),
        (Affine.only(rotation=True), 1),
        (ExponentialAffine(), 3),
        (Projective(), 4),
        (FourCorners(), 4),
        (Affine(dimensions=3), 4),
        (Rigid(dimensions=3), 3),
    ],
)
def test_as_few_points_as_are_needed_are_enough(family, count):
    _, source, target = problem(family, count=count)
    theta = fit(family, source, target)
    assert_near(family.apply(theta[None], target)[0], source, 1e-9)


@pytest.mark.parametrize("family", [ThinPlateSpline(3, 4), PiecewiseAffine(3, 4)])
def test_a_control_point_goes_where_it_lies_in_the_input(family):
    source = family.control + 0.1 * np.random.default_rng(0).normal(size=(12, 2))
    assert_near(fit(family, source, family.control).reshape(12, 2), source, 1e-13)


@pytest.mark.parametrize(
    ("family", "theta"),
    [
        (Rigid(), [3.0, 5.0, -7.0]),
        (Rigid(), [-1.5, 0.0, 0.0]),
        (Similarity(), [0.01, -3.0, 2.0, 1.0]),
        (Similarity(), [50.0, 2.0, 20.0, -10.0]),
        (Similarity(log=True), [-3.0, 2.0, 1.0, 1.0]),
        (Affine.only(rotation=True), [3.0]),
        (Affine.only(scale=True, rotation=True), [3.0, 3.0]),
        (Affine.only(scales=True, log=True, translation=True), [2.0, -3.0, 4.0, -4.0]),
        (Affine.only(**PARTS), [3.0, 0.2, 1.5, 2.5, 1.0, -1.0]),
        (Affine.only(**PARTS), [1.0, -0.5, 0.3, -2.0, 1.0, -1.0]),  # a mirror image
        (Rigid(dimensions=3), [1.7, -1.7, 1.0, 3.0, 2.0, 1.0]),
        (Rigid(dimensions=3, rotation="quaternion"), [3.0, -2.0, 1.0, 3.0, 2.0, 1.0]),
        (Similarity(dimensions=3), [0.1, 2.0, 0.0, -2.0, 1.0, 1.0, 1.0]),
        (Projective(), [0.5, -0.8, 0.3, 0.9, 0.4, -0.2, 0.45, -0.45]),
    ],
)
def test_large_motions_are_found_too(family, theta):
    target = np.random.default_rng(0).uniform(-1, 1, (20, family.dimensions))
    source = family.apply(np.array([theta]), target)[0]
    found = family.apply(fit(family, source, target)[None], target)[0]
    assert_near(found, source, 1e-9 * max(1, np.abs(source).max()))


@pytest.mark.parametrize(
    "family", [ThinPlateSpline(3, 3), PiecewiseAffine(3, 3), BSpline(4, 4)]
)
def test_points_outside_the_image_are_fitted_as_they_are_moved(family):
    theta = family.identity() + 0.1 * np.random.default_rng(0).normal(size=family.control.size)
    target = np.random.default_rng(1).uniform(-1.4, 1.4, (200, 2))
    source = family.apply(theta[None], target)[0]
    found = fit(family, source, target)
    assert_near(family.apply(found[None], target)[0], source, 1e-9)


@pytest.mark.parametrize("kind", [np.float32, torch.float32, torch.float64])
def test_points_may_be_of_either_precision_and_of_pytorch(kind):
    theta, source, target = problem(Similarity())
    to = (
        (lambda a: a.astype(kind))
        if kind is np.float32
        else (lambda a: torch.tensor(a, dtype=kind))
    )
    found = fit(Similarity(), to(source), to(target))
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float64
    assert_near(found, theta, 1e-6)


def test_a_matrix_family_of_ones_own_is_fitted():
    class Squeeze(Linear):
        num_parameters = 1

        def identity(self):
            return np.zeros(1)

        def matrix(self, theta):
            size = np.exp(theta)
            entries = np.concatenate(
                [size, 0 * size, 0 * size, 0 * size, 1 / size, 0 * size], 1
            )
            return entries.reshape(-1, 2, 3)

    _, source, target = problem(Squeeze(), spread=1)
    assert_near(Squeeze().apply(fit(Squeeze(), source, target)[None], target)[0], source, 1e-10)


# Noise


def noisy(source, sigma, seed):
    return source + sigma * np.random.default_rng(seed).normal(size=source.shape)


def bound(family, theta, target, sigma):
    """Return the least RMS error of a coordinate of the mapped points, after Cramér and Rao."""
    columns = []
    for step in 1e-6 * np.eye(len(theta)):
        ends = [family.apply((theta + s)[None], target)[0].reshape(-1) for s in (step, -step)]
        columns.append((ends[0] - ends[1]) / 2e-6)
    slopes = np.stack(columns, -1)
    covariance = sigma**2 * np.linalg.inv(slopes.T @ slopes)
    return np.sqrt(np.trace(slopes @ covariance @ slopes.T) / len(slopes))


@pytest.mark.parametrize("name", [name for name in FITTED if name != "bspline"])
def test_with_noise_the_error_is_as_small_as_cramer_and_rao_allow(name):
    family, sigma = FITTED[name], 0.01
    theta, source, target = problem(family, count=40)
    trials = 30 + 400 // family.num_parameters
    squares = []
    for seed in range(trials):
        found = fit(family, noisy(source, sigma, seed), target)
        squares.append(np.mean((family.apply(found[None], target)[0] - source) ** 2))
    ratio = np.sqrt(np.mean(squares)) / bound(family, theta, target, sigma)
    assert 0.9 < ratio < 1.1


@every_fitted
def test_no_parameters_near_fit_noisy_points_better(family):
    theta, source, target = problem(family, count=40)
    source = noisy(source, 0.05, 1)
    found = fit(family, source, target)

    def off(theta):
        return np.sum((family.apply(theta[None], target)[0] - source) ** 2)

    for seed in range(20):
        step = 1e-3 * np.random.default_rng(seed).normal(size=len(theta))
        assert off(found) < off(found + step)


# Peers


def noisy_pairs(dimensions=2):
    rng = np.random.default_rng(4)
    target = rng.uniform(-1, 1, (30, dimensions))
    matrix = np.eye(dimensions, dimensions + 1) + 0.1 * rng.normal(
        size=(dimensions, dimensions + 1)
    )
    return apply(matrix, target) + 0.02 * rng.normal(size=target.shape), target


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(
    ("make", "peer"),
    [(Rigid, "EuclideanTransform"), (Similarity, "SimilarityTransform")],
)
def test_rotations_are_skimages(make, peer, dimensions):
    source, target = noisy_pairs(dimensions)
    family = make(dimensions=dimensions)
    expected = getattr(skimage.transform, peer).from_estimate(target, source)
    assert_near(
        family.matrix(fit(family, source, target)[None])[0], expected.params[:-1], 1e-10
    )


def test_affine_least_squares_are_numpys():
    source, target = noisy_pairs()
    expected = np.linalg.lstsq(np.c_[target, np.ones(len(target))], source)[0].T
    for family in (Affine(), ExponentialAffine(), Factored(**PARTS)):
        matrix = family.matrix(fit(family, source, target)[None])[0]
        assert_near(matrix, expected, 1e-10)


def test_three_and_four_points_are_opencvs():
    target = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    source = noisy(target, 0.1, 0).astype(np.float32)
    affine = Affine().matrix(fit(Affine(), source[:3], target[:3])[None])[0]
    assert_near(affine, cv2.getAffineTransform(target[:3], source[:3]), 1e-10)
    for family in (Projective(), FourCorners()):
        matrix = family.matrix(fit(family, source, target)[None])[0]
        assert_near(matrix, cv2.getPerspectiveTransform(target, source), 1e-10)


def test_a_homography_is_opencvs_and_better_than_the_linear_solutions():
    source, target = noisy_pairs()

    def off(matrix):
        theta = Projective().from_matrix(np.asarray(matrix)[None])
        return np.sum((Projective().apply(theta, target)[0] - source) ** 2)

    found = Projective().matrix(fit(Projective(), source, target)[None])[0]
    refined, _ = cv2.findHomography(target, source)  # Levenberg and Marquardt, in float32
    assert_near(found, refined, 1e-4)
    assert off(found) <= off(refined)
    pair = (torch.as_tensor(points)[None] for points in (target, source))
    linear = kornia.geometry.find_homography_dlt(*pair)[0]
    assert off(found) < off(linear)
    assert off(found) < off(
        skimage.transform.ProjectiveTransform.from_estimate(target, source).params
    )


# What is refused, and in which words

LINE = np.linspace(-1, 1, 12)[:, None] * [0.6, 0.8]
LINE3 = np.linspace(-1, 1, 12)[:, None] * [0.6, 0.0, 0.8]
PLANE3 = np.c_[np.random.default_rng(0).uniform(-1, 1, (12, 2)), np.zeros(12)]
POINTS = np.random.default_rng(0).uniform(-1, 1, (12, 2))
SQUARE = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
THREE_ON_A_LINE = np.array([[-1.0, -1], [0, -1], [1, -1], [0, 1]])


@pytest.mark.parametrize(
    "family", [*FITTED.values(), Affine.only(scale=True), Affine.only(scales=True)], ids=str
)
def test_too_few_points_are_refused(family):
    least = -(-family.num_parameters // family.dimensions)
    points = np.random.default_rng(0).uniform(-1, 1, (least - 1, family.dimensions))
    words = f"target_points: expected at least {least} for the {family.num_parameters} parameters of {family}, "
    with pytest.raises(ValueError) as caught:  # noqa: PT011 the sentence is compared
        fit(family, points, points)
    assert str(caught.value) == f"{words}got {least - 1}"


@pytest.mark.parametrize(
    ("family", "source", "target"),
    [
        (Affine(), LINE, LINE),
        (Affine(), POINTS, LINE),
        (ExponentialAffine(), LINE, LINE),
        (Factored(**PARTS), LINE, LINE),
        (Attention(2), LINE * [1, 0], LINE * [1, 0]),
        (Affine.only(shear=True), LINE * [1, 0], LINE * [1, 0]),
        (Projective(), LINE, LINE),
        (FourCorners(), LINE, LINE),
        (Projective(), SQUARE, THREE_ON_A_LINE),
        (Projective(), THREE_ON_A_LINE, SQUARE),
        (Projective(), THREE_ON_A_LINE, THREE_ON_A_LINE),
        (ThinPlateSpline(2, 2), LINE, LINE),
        (PiecewiseAffine(2, 2), LINE, LINE),
        (BSpline(4, 4), LINE.repeat(2, 0), LINE.repeat(2, 0)),
        (ThinPlateSpline(points=SCATTERED), POINTS[[0] * 12], POINTS[[0] * 12]),
        (PiecewiseAffine(points=SCATTERED), POINTS[[0] * 12], POINTS[[0] * 12]),
        (PiecewiseAffine(3, 3), -np.abs(POINTS), -np.abs(POINTS)),  # a corner has none
        (Attention(1), POINTS[[0] * 5], POINTS[[0] * 5]),
        (Rigid(), POINTS[[0] * 5], POINTS[[0] * 5]),
        (Similarity(), POINTS[[0] * 5], POINTS[[0] * 5]),
        (Similarity(log=True), POINTS[[0] * 5], POINTS[[0] * 5]),
        (Similarity(), POINTS[:5], POINTS[[0] * 5]),
        (Affine(), POINTS[[0] * 5], POINTS[[0] * 5]),
        (Projective(), POINTS[[0] * 5], POINTS[[0] * 5]),
        (Projective(), POINTS[[0, 1, 2, 2]], POINTS[[0, 1, 2, 2]]),
        (Affine.only(rotation=True), np.zeros((3, 2)), np.zeros((3, 2))),
        (Affine.only(scale=True), np.zeros((3, 2)), np.zeros((3, 2))),
        (Affine(dimensions=3), PLANE3, PLANE3),
        (Rigid(dimensions=3), LINE3, LINE3),
        (Rigid(dimensions=3, rotation="quaternion"), LINE3, LINE3),
        (Similarity(dimensions=3), LINE3, LINE3),
        (Rigid(dimensions=3), PLANE3[:2], PLANE3[:2]),
    ],
)
def test_points_that_do_not_determine_the_transform_are_refused(family, source, target):
    words = (
        rf"^target_points: expected points that determine the transform, got {len(target)} that "
        "do not: some coincide, lie on one line, or leave a control point without any$"
    )
    with pytest.raises(ValueError, match=words):
        fit(family, source, target)


@pytest.mark.parametrize(
    ("family", "count"),
    [(Translation(), 5), (Rigid(), 2), (Similarity(), 2), (Attention(1), 2), (Rigid(), 12)],
)
def test_points_on_a_line_are_enough_for_some(family, count):
    source = family.apply(family.identity()[None] + 0.1, LINE[:count])[0]
    theta = fit(family, source, LINE[:count])
    assert_near(theta, family.identity() + 0.1, 1e-9)


def with_a_nan(points):
    points = points.copy()
    points[3, 1] = np.nan
    return points


class Bent(Family):
    num_parameters = 1

    def identity(self):
        return np.zeros(1)

    def apply(self, theta, points):
        return points * (1 + theta[:, :, None])


REFUSED = {
    "source-nan": (
        lambda: fit(Affine(), with_a_nan(POINTS), POINTS),
        "source_points: expected finite numbers, got NaN or infinity",
    ),
    "target-nan": (
        lambda: fit(Projective(), POINTS, with_a_nan(POINTS)),
        "target_points: expected finite numbers, got NaN or infinity",
    ),
    "infinity": (
        lambda: fit(Rigid(), POINTS, np.where(POINTS > 0.5, np.inf, POINTS)),
        "target_points: expected finite numbers, got NaN or infinity",
    ),
    "integers": (
        lambda: fit(Affine(), POINTS, np.ones((12, 2), int)),
        "target_points: expected float32 or float64, got int64",
    ),
    "source-shape": (
        lambda: fit(Affine(), POINTS[0], POINTS),
        "source_points: expected shape (K, 2), got (2,)",
    ),
    "space": (
        lambda: fit(Affine(), POINTS, PLANE3),
        "target_points: expected shape (K, 2), got (12, 3)",
    ),
    "plane": (
        lambda: fit(Rigid(dimensions=3), POINTS, POINTS),
        "source_points: expected shape (K, 3), got (12, 2)",
    ),
    "batch": (
        lambda: fit(Affine(), POINTS[None], POINTS[None]),
        "source_points: expected shape (K, 2), got (1, 12, 2)",
    ),
    "numbers": (
        lambda: fit(Affine(), POINTS, POINTS[:11]),
        "target_points: expected 12 points, as source_points has, got 11",
    ),
    "no-points": (
        lambda: fit(Affine(), POINTS[:0], POINTS[:0]),
        "target_points: expected at least 3 for the 6 parameters of Affine(), got 0",
    ),
    "mirror": (
        lambda: fit(ExponentialAffine(), POINTS * [1, -1], POINTS),
        "matrix: expected one that a steady motion reaches",
    ),
} | {
    name: (
        lambda family=family: fit(family, POINTS, POINTS),
        "family: expected a linear or a projective one, or one with control points, got ",
    )
    for name, family in {
        "flow": DenseFlow((2, 2)),
        "velocity": StationaryVelocity(4, 4),
        "piecewise-velocity": PiecewiseAffineVelocity(2, 2),
        "composition": Composition(Rigid(), ThinPlateSpline(2, 2)),
        "own": Bent(),
        "no-family": "affine",
    }.items()
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(call, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_family_without_a_fit_is_refused_before_its_points_are_counted():
    with pytest.raises(
        TypeError, match=r"^family: expected a linear .* got StationaryVelocity"
    ):
        fit(StationaryVelocity(), POINTS, POINTS)
