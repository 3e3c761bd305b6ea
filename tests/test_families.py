"""Every family: that its identity changes nothing, that grid and apply agree, its gradients, laws and refusals."""

import copy
import itertools
import pickle

import array_api_strict
import cv2
import kornia.geometry
import numpy as np
import pytest
import scipy.integrate
import scipy.interpolate
import scipy.linalg
import skimage.transform
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import stnlib
from stnlib import transforms
from stnlib.coordinates import regular_grid
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
    exponential,
    logarithm,
    rotation,
    scale,
    shear,
    to_homogeneous,
)

SCATTERED = np.random.default_rng(7).uniform(-1, 1, (9, 2))
PARTS = {"scales": True, "log": True, "shear": True, "rotation": True, "translation": True}
FLAT3 = np.diag([1.0, 0.0, 1.0, 0.0])[:3]
ROTATED = [["a", "-b", "tx"], ["b", "a", "ty"]]

LINEAR = {
    "translation": Translation(),
    "attention1": Attention(1),
    "attention2": Attention(2),
    "rigid": Rigid(),
    "similarity": Similarity(),
    "similarity-log": Similarity(log=True),
    "affine": Affine(),
    "table": Affine(ROTATED),
    "only-rotation": Affine.only(rotation=True),
    "only-scale": Affine.only(scale=True),
    "only-shear": Affine.only(shear=True),
    "only-crop": Affine.only(scales=True, log=True, translation=True),
    "only-all": Affine.only(**PARTS),
    "exponential": ExponentialAffine(),
    "affine3": Affine(dimensions=3),
    "rigid3-axis-angle": Rigid(dimensions=3),
    "rigid3-quaternion": Rigid(dimensions=3, rotation="quaternion"),
    "similarity3": Similarity(dimensions=3),
    "similarity3-log": Similarity(log=True, dimensions=3, rotation="quaternion"),
    "only-scales3": Affine.only(scales=True, translation=True, dimensions=3),
    "exponential3": ExponentialAffine(dimensions=3),
}
BENT = {
    "projective": Projective(),
    "corners": FourCorners(),
    "tps": ThinPlateSpline(3, 3),
    "tps-points": ThinPlateSpline(points=SCATTERED),
    "tps-regularised": ThinPlateSpline(3, 2, regularisation=0.125),
    "piecewise": PiecewiseAffine(3, 4),
    "piecewise-points": PiecewiseAffine(points=SCATTERED),
    "bspline": BSpline(4, 5),
    "flow": DenseFlow((3, 4)),
    "flow-corners": DenseFlow((3, 4), align_corners=True),
    "velocity": StationaryVelocity(4, 4, squarings=3, resolution=9),
    "piecewise-velocity": PiecewiseAffineVelocity(3, 3, steps=2),
    "composition": Composition(Similarity(), ThinPlateSpline(2, 3), DenseFlow((2, 2))),
    "flow3": DenseFlow((2, 3, 2)),
}
FAMILIES = LINEAR | BENT

CORNERS = pytest.mark.parametrize("align_corners", [False, True])
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
linear_families = pytest.mark.parametrize("family", LINEAR.values(), ids=LINEAR)
seeds = st.integers(0, 2**32 - 1)


def near_identity(family, count=2, spread=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return family.identity() + spread * rng.normal(size=(count, family.num_parameters))


def some_points(family, count=6, seed=1, reach=0.95):
    shape = (count,) if isinstance(count, int) else count
    return np.random.default_rng(seed).uniform(-reach, reach, (*shape, family.dimensions))


def assert_near(actual, expected, tolerance):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def scaled_tolerance(dtype, expected=1.0):
    """Return what the specification allows, of the largest expected number or of 1."""
    allowed = 1e-10 if dtype == np.float64 else 1e-5
    return allowed * max(1, np.abs(expected).max())


# What every family keeps


@every_family
@CORNERS
def test_the_identity_changes_nothing(family, align_corners):
    theta = family.identity()
    assert theta.dtype == np.float64
    assert theta.shape == (family.num_parameters,)
    for size in [(4, 7, 5), (1, 1, 1), (2, 1, 6), (3, 5, 1)]:
        size = size[-family.dimensions :]
        grid = family.grid(theta[None], size, align_corners=align_corners)
        assert_near(grid[0], regular_grid(size, align_corners=align_corners), 2e-15)


@every_family
def test_the_identity_is_nobody_elses(family):
    family = copy.deepcopy(family)
    family.identity()[:] = 7
    assert (family.identity() != 7).all()


@every_family
@CORNERS
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)], ids=["64", "32"]
)
def test_grid_is_apply_on_the_regular_grid(family, align_corners, dtype, tolerance):
    theta = near_identity(family).astype(dtype)
    for size in [(3, 5, 4), (2, 1, 3)]:
        size = size[-family.dimensions :]
        points = regular_grid(size, align_corners=align_corners).astype(dtype)
        moved = family.apply(theta, points.reshape(-1, family.dimensions))
        grid = family.grid(theta, size, align_corners=align_corners)
        assert grid.dtype == moved.dtype == dtype
        assert_near(moved.reshape(grid.shape), grid, tolerance)
        of_an_input = family.grid(theta, (2, 3, *size), align_corners=align_corners)
        np.testing.assert_array_equal(of_an_input, grid)


@every_family
def test_a_float32_grid_is_computed_in_float64_and_rounded_once(family):
    theta = near_identity(family).astype(np.float32)
    size = (3, 5, 4)[-family.dimensions :]
    exact = family.grid(theta.astype(np.float64), size)
    np.testing.assert_array_equal(family.grid(theta, size), exact.astype(np.float32))


@every_family
@pytest.mark.parametrize("to", [torch.as_tensor, array_api_strict.asarray])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arrays_of_other_libraries_give_the_same(family, to, dtype):
    theta, points = near_identity(family).astype(dtype), some_points(family).astype(dtype)
    size = (2, 3, 4)[-family.dimensions :]
    for method, argument in ((family.grid, size), (family.apply, points)):
        expected = method(theta, argument)
        result = method(to(theta), to(argument) if argument is points else argument)
        assert type(result) is type(to(theta))
        assert np.from_dlpack(result).dtype == dtype
        assert_near(np.from_dlpack(result), expected, 4e-6 if dtype == np.float32 else 1e-14)


@every_family
def test_each_theta_may_have_points_of_its_own(family):
    theta, points = near_identity(family, 3), some_points(family, (3, 5))
    moved = family.apply(theta, points)
    assert moved.shape == points.shape
    for i in range(3):
        assert_near(moved[i], family.apply(theta[i : i + 1], points[i])[0], 1e-14)


@every_family
@pytest.mark.parametrize("to", [np.asarray, torch.as_tensor])
def test_an_empty_batch_gives_an_empty_grid(family, to):
    theta, points = to(near_identity(family)), to(some_points(family))
    size, d = (2, 3, 4)[-family.dimensions :], family.dimensions
    assert tuple(family.grid(theta[:0], size).shape) == (0, *size, d)
    assert tuple(family.apply(theta[:0], points).shape) == (0, 6, d)


@every_family
@pytest.mark.parametrize("to", [np.asarray, torch.as_tensor])
def test_no_points_are_moved_to_no_points(family, to):
    theta, points = to(near_identity(family)), to(some_points(family))
    assert tuple(family.apply(theta, points[:0]).shape) == (2, 0, family.dimensions)


@every_family
@pytest.mark.parametrize("spread", [0, 0.1], ids=["identity", "random"])
def test_gradients_by_finite_differences(family, spread):
    theta = torch.as_tensor(near_identity(family, spread=spread)).requires_grad_()
    points = torch.as_tensor(some_points(family, 3)).requires_grad_()
    size = (2, 1, 3)[-family.dimensions :]
    assert torch.autograd.gradcheck(family.apply, (theta, points))
    assert torch.autograd.gradcheck(lambda t: family.grid(t, size), theta)


@every_family
@pytest.mark.parametrize("again", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))])
def test_copies_do_the_same(family, again):
    theta, size = near_identity(family), (2, 3, 4)[-family.dimensions :]
    expected = family.grid(theta, size)  # which is then remembered
    np.testing.assert_array_equal(again(family).grid(theta, size), expected)


def test_a_copy_carries_no_remembered_grids():
    family = ThinPlateSpline(4, 4)
    before = len(pickle.dumps(family))
    family.grid(family.identity()[None], (64, 64))
    assert len(pickle.dumps(family)) == before


def test_a_remembered_grid_is_one_of_its_own_size_corners_and_library():
    family = ThinPlateSpline(3, 3)
    theta = near_identity(family)
    for size, corners in itertools.product([(4, 6), (6, 4), (4, 6)], [False, True]):
        expected = family.apply(theta, regular_grid(size, align_corners=corners).reshape(-1, 2))
        for to in (np.asarray, torch.as_tensor):
            grid = family.grid(to(theta), size, align_corners=corners)
            assert_near(grid, expected.reshape(2, *size, 2), 1e-13)


def test_many_sizes_are_not_all_remembered():
    family = ThinPlateSpline(2, 2)
    for width in range(1, 50):
        family.grid(family.identity()[None], (1, width))
    assert sum(basis.size for basis in family._memory.values()) < 4 * 16 * 50


SAID = FAMILIES | {
    "thirds": Affine([[1 / 3, 0, "tx"], [0, 1 / 3, "ty"]]),
    "tps-thirds": ThinPlateSpline(3, 3, regularisation=1 / 3),
    "projective-composition": Composition(Projective(), Affine.attention(2)),
}


@pytest.mark.parametrize(
    "name", [name for name in SAID if "points" not in name and name != "composition"]
)
def test_a_family_says_how_to_make_it(name):
    family = SAID[name]
    twin = eval(repr(family), vars(transforms))
    theta, size = near_identity(family), (4, 5, 3)[-family.dimensions :]
    assert type(twin) is type(family)
    np.testing.assert_array_equal(twin.grid(theta, size), family.grid(theta, size))


@pytest.mark.parametrize(
    ("family", "words"),
    [
        (FAMILIES["tps-points"], "ThinPlateSpline(points=9 of them)"),
        (FAMILIES["piecewise-points"], "PiecewiseAffine(points=9 of them)"),
        (FAMILIES["composition"], "Composition(Factored(scale=True, rotation=True"),
        (ThinPlateSpline(points=SCATTERED, regularisation=0.5), "regularisation=0.5"),
    ],
)
def test_a_family_of_given_points_says_how_many(family, words):
    assert words in repr(family)


# The parameters


@pytest.mark.parametrize(
    ("family", "theta", "matrix"),
    [
        (Translation(), [3, 4], [[1, 0, 3], [0, 1, 4]]),
        (Attention(1), [2, 3, 4], [[2, 0, 3], [0, 2, 4]]),
        (Attention(2), [2, 3, 5, 4], [[2, 0, 3], [0, 5, 4]]),
        (Rigid(), [np.pi / 2, 3, 4], [[0, -1, 3], [1, 0, 4]]),
        (Similarity(), [2, np.pi / 2, 3, 4], [[0, -2, 3], [2, 0, 4]]),
        (Similarity(log=True), [np.log(2), 0, 3, 4], [[2, 0, 3], [0, 2, 4]]),
        (Affine(ROTATED), [2, 3, 4, 5], [[2, -3, 4], [3, 2, 5]]),
        (Affine([["-a", 0, 0], [0, "a", 0.5]]), [2], [[-2, 0, 0], [0, 2, 0.5]]),
        (Affine.only(shear=True), [2], [[1, 2, 0], [0, 1, 0]]),
        # Scale first, then shear, then rotation.
        (Factored(scales=True, shear=True), [2, 3, 5], [[2, 15, 0], [0, 3, 0]]),
        (Factored(scales=True, rotation=True), [2, 3, np.pi / 2], [[0, -3, 0], [2, 0, 0]]),
        (Factored(shear=True, rotation=True), [2, np.pi / 2], [[0, -1, 0], [1, 2, 0]]),
    ],
)
def test_matrices_by_hand(family, theta, matrix):
    assert_near(family.matrix(np.array([theta], float))[0], matrix, 1e-15)


def test_parameters_come_in_the_order_of_their_first_appearance():
    assert Affine([["c", "-a", 0], ["a", "b", "c"]]).names == ("c", "a", "b")


def test_a_table_that_excludes_the_identity_starts_as_near_as_it_can():
    half = Affine([[0.5, 0, "tx"], [0, 0.5, "ty"]])
    assert half.identity().tolist() == [0, 0]
    assert Affine([["a", "b", 0], ["-b", "a", 0]]).identity().tolist() == [1, 0]
    assert Affine([["-a", 0, 0], [0, "-a", 0]]).identity().tolist() == [-1]


@pytest.mark.parametrize("family", [ThinPlateSpline(3, 4), PiecewiseAffine(3, 4)])
def test_control_points_arrive_where_they_are_sent(family):
    theta = near_identity(family)
    moved = family.apply(theta, family.control)
    assert_near(moved.reshape(2, -1), theta, 1e-14)


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES.values() if isinstance(family, Basis)]
)
def test_rows_of_a_basis_add_up_to_one(family):
    assert_near(family.basis(some_points(family, 50, reach=1)).sum(-1), np.ones(50), 1e-13)


def test_corners_go_where_they_are_sent():
    corners = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    theta = near_identity(FourCorners(), 5, 0.2)
    assert_near(FourCorners().apply(theta, corners).reshape(5, 8), theta, 1e-14)


@pytest.mark.parametrize("size", [(3, 4), (2, 3, 4)])
@CORNERS
def test_a_flow_of_the_grids_size_is_added_to_it(size, align_corners):
    family = DenseFlow(size, align_corners=align_corners)
    theta = near_identity(family)
    flow = theta.reshape(2, *size, len(size))
    regular = regular_grid(size, align_corners=align_corners)
    np.testing.assert_array_equal(
        family.grid(theta, size, align_corners=align_corners), regular + flow
    )


@CORNERS
def test_a_flow_of_another_size_is_read_bilinearly(align_corners):
    family = DenseFlow((3, 4), align_corners=align_corners)
    theta = torch.as_tensor(near_identity(family))
    flow = theta.reshape(2, 3, 4, 2).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(
        flow, (5, 9), mode="bilinear", align_corners=align_corners
    )
    grid = family.grid(theta, (5, 9), align_corners=align_corners)
    regular = regular_grid((5, 9), align_corners=align_corners)
    assert_near(grid.numpy() - regular, expected.permute(0, 2, 3, 1), 1e-14)


@pytest.mark.parametrize(
    "family", [PiecewiseAffine(3, 4), BSpline(4, 5), PiecewiseAffineVelocity(3, 3)]
)
def test_outside_the_lattice_points_move_with_the_nearest_inside(family):
    theta = near_identity(family)
    outside = np.array([[1.5, 0.3], [-2.0, -0.7], [0.1, 3.0], [-1.25, 1.75]])
    nearest = outside.clip(-1, 1)
    if isinstance(family, PiecewiseAffineVelocity):
        moved = [family.velocity(theta, points) for points in (outside, nearest)]
    else:
        moved = [family.apply(theta, points) - points for points in (outside, nearest)]
    assert_near(*moved, 1e-14)


def test_a_composition_moves_by_the_last_first():
    family = Composition(Similarity(), Projective(), ThinPlateSpline(2, 2))
    theta, points = near_identity(family, spread=0.2), some_points(family)
    a, b, c = (theta[:, 0:4], theta[:, 4:12], theta[:, 12:])
    expected = Similarity().apply(
        a, Projective().apply(b, ThinPlateSpline(2, 2).apply(c, points))
    )
    assert_near(family.apply(theta, points), expected, 1e-15)
    for part, wanted in zip(family.split(theta), (a, b, c), strict=True):
        np.testing.assert_array_equal(part, wanted)


# Group laws

CLOSED = {name: family for name, family in LINEAR.items() if name != "exponential3"}
CLOSED |= {"projective": Projective(), "corners": FourCorners()}
closed_families = pytest.mark.parametrize("family", CLOSED.values(), ids=CLOSED)


@closed_families
@given(seed=seeds)
def test_inverse_brings_points_back(family, seed):
    theta, points = near_identity(family, spread=0.15, seed=seed), some_points(family)
    there = family.apply(theta, points)
    assume(np.abs(there).max() < 10)  # no pole of a projective one near
    assert_near(family.apply(family.inverse(theta), there), np.stack([points, points]), 2e-10)


@closed_families
@given(seed=seeds)
def test_compose_is_one_after_the_other(family, seed):
    a, b = (near_identity(family, spread=0.1, seed=(seed, i)) for i in range(2))
    points = some_points(family)
    expected = family.apply(a, family.apply(b, points))
    assume(np.abs(expected).max() < 10)
    assert_near(family.apply(family.compose(a, b), points), expected, 1e-11)


@closed_families
@given(seed=seeds)
def test_compose_is_associative_and_keeps_with_the_identity(family, seed):
    a, b, c = (near_identity(family, spread=0.05, seed=(seed, i)) for i in range(3))
    assert_near(
        family.compose(family.compose(a, b), c), family.compose(a, family.compose(b, c)), 1e-10
    )
    identity = np.stack([family.identity()] * 2)
    assert_near(family.compose(a, identity), a, 1e-12)
    assert_near(family.compose(identity, a), a, 1e-12)
    assert_near(family.compose(a, family.inverse(a)), identity, 1e-12)


@linear_families
@given(seed=seeds)
def test_from_matrix_undoes_matrix(family, seed):
    theta = near_identity(family, 4, 0.3, seed)
    if isinstance(family, Factored) and not family.parts["log"]:
        theta[:, 0] = np.abs(theta[:, 0]) + 0.1  # a scale below 0 is also half a turn
    assert_near(family.from_matrix(family.matrix(theta)), theta, 1e-11)


@linear_families
@given(seed=seeds)
def test_exponential_undoes_logarithm(family, seed):
    theta = near_identity(family, spread=0.2, seed=seed)
    generator = family.log(theta)
    assert_near(family.matrix(family.exp(generator)), family.matrix(theta), 1e-11)
    assert_near(family.log(family.exp(generator)), generator, 1e-11)
    half = family.exp(generator / 2)  # the halves of a motion
    assert_near(family.matrix(family.compose(half, half)), family.matrix(theta), 1e-11)


@pytest.mark.parametrize(
    ("family", "a", "b"),
    [
        (Factored(shear=True, rotation=True), [0.5, 0.0], [0.0, 0.5]),
        (Factored(scales=True, rotation=True), [2.0, 1.0, 0.0], [2.0, 1.0, 0.5]),
        (Affine([[1, "k", 0], ["l", 1, 0]]), [0.5, 0.0], [0.0, 0.5]),
    ],
)
def test_a_composition_that_leaves_the_family_is_refused(family, a, b):
    a, b = np.array([a]), np.array([b])
    with pytest.raises(
        ValueError, match=r"^matrix: expected one of the family .* off its near"
    ):
        family.compose(a, b)


@pytest.mark.parametrize(
    ("family", "matrix"),
    [
        (Attention(1), 2 * rotation(0.3)),
        (Attention(1), scale(2.0, 2.1)),
        (Attention(2), shear(0.1)),
        (Translation(), scale(1.001)),
        (Rigid(), scale(1.001)),
        (Rigid(), scale(-1.0, 1.0)),
        (Similarity(), scale(2.0, 1.9)),
        (Similarity(log=True), scale(1.0, -1.0)),
        (Factored(scales=True, log=True, rotation=True), scale(1.0, -2.0)),
        (Affine.only(shear=True), rotation(0.1)),
        (Affine.only(rotation=True), transforms.translation(0.1, 0.0)),
        (Rigid(dimensions=3), np.diag([1.0, 1, -1, 0])[:3]),
        (Similarity(dimensions=3), np.diag([2.0, 2, 1.9, 0])[:3]),
        (Affine.only(scales=True, dimensions=3), np.eye(3, 4)[[1, 2, 0]]),
    ],
)
def test_a_matrix_of_another_family_is_refused(family, matrix):
    with pytest.raises(ValueError, match=r"^matrix: expected one of the family "):
        family.from_matrix(matrix[None])


@pytest.mark.parametrize(
    ("family", "matrix"),
    [
        (Similarity(), scale(1.0, 0.0)),
        (Rigid(), scale(0.0)),
        (Factored(scales=True, shear=True), np.array([[1.0, 0.5, 0], [0, 0, 0]])),
        (Affine.only(scales=True, log=True), scale(-1.0, 0.0)),
        (Rigid(dimensions=3), np.zeros((3, 4))),
        (Similarity(dimensions=3), FLAT3),
    ],
)
def test_a_flat_matrix_of_another_family_is_refused_without_a_warning(family, matrix):
    other = np.eye(*matrix.shape)
    for several in (matrix[None], np.stack([other, matrix])):
        with pytest.raises(ValueError, match=r"^matrix: expected "):
            family.from_matrix(several)


def test_a_scale_of_zero_is_read_without_a_warning():
    assert_near(Similarity().from_matrix(scale(0.0)[None]), np.zeros((1, 4)), 0)


@pytest.mark.parametrize("angle", [3.0, 3.14159, np.pi, 3.2, 6.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-4)])
def test_a_turn_about_an_axis_is_undone_whatever_its_angle(angle, dtype, tolerance):
    family, axis = Rigid(dimensions=3), np.array([2.0, -1.0, 2.0]) / 3
    theta = np.r_[angle * axis, 0.1, 0.2, 0.3][None].astype(dtype)
    points = some_points(family).astype(dtype)
    back = family.apply(family.inverse(theta), family.apply(theta, points))
    assert_near(back[0], points, tolerance)


# Tables and parts that two families share: &


def members(table):
    """Return A and b such that the matrices of a table, flattened, are those of the form ``A p + b``."""
    entries = list(itertools.chain(*table))
    names = sorted({e.lstrip("-") for e in entries if isinstance(e, str)})
    slope, origin = np.zeros((len(entries), len(names))), np.zeros(len(entries))
    for i, entry in enumerate(entries):
        if isinstance(entry, str):
            slope[i, names.index(entry.lstrip("-"))] = -1 if entry[0] == "-" else 1
        else:
            origin[i] = entry
    return slope, origin


def shared(left, right):
    """Return how many parameters the matrices have that both tables describe; None if there is no matrix."""
    (a, b), (c, d) = members(left), members(right)
    both = np.hstack([a, -c])
    solution = np.linalg.lstsq(both, d - b)[0] if both.size else np.zeros(0)
    if np.abs(both @ solution - (d - b)).max() > 1e-9:
        return None
    _, sizes, vt = np.linalg.svd(both)
    null = vt[(sizes > 1e-9).sum() :].T
    return int(np.linalg.matrix_rank(a @ null[: a.shape[1]])) if null.size else 0


def belongs(matrix, table):
    slope, origin = members(table)
    found = np.linalg.lstsq(slope, matrix.reshape(-1) - origin)[0]
    return np.abs(slope @ found + origin - matrix.reshape(-1)).max() < 1e-9


entries = st.sampled_from([0, 1, -1, 0.5, "x", "y", "z", "-x", "-y", "-z", "w"])
tables = st.lists(entries, min_size=6, max_size=6).filter(
    lambda t: any(map(str.isalpha, map(str, t)))
)


@pytest.mark.parametrize("repeat", range(8))
@given(left=tables, right=tables, seed=seeds)
def test_and_describes_exactly_the_matrices_of_both(repeat, left, right, seed):
    rng = np.random.default_rng((seed, repeat))
    if repeat:  # more names, and so fewer contradictions
        free = rng.random((2, 6)) < 0.5
        left = [f"n{i}" if f else e for i, (e, f) in enumerate(zip(left, free[0], strict=True))]
        right = [
            f"n{5 - i}" if f else e for i, (e, f) in enumerate(zip(right, free[1], strict=True))
        ]
    left, right = (left[:3], left[3:]), (right[:3], right[3:])
    count = shared(left, right)
    if count is None:
        with pytest.raises(ValueError, match=r"^&: the tables contradict each other in row "):
            Affine(left) & Affine(right)
    elif count == 0:
        with pytest.raises(ValueError, match=r"^table: expected at least one parameter's name"):
            Affine(left) & Affine(right)
    else:
        family = Affine(left) & Affine(right)
        assert family.num_parameters == count
        matrix = family.matrix(rng.normal(size=(1, count)))[0]
        assert belongs(matrix, left)
        assert belongs(matrix, right)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        # A 0 on either side counts (Sonnet's _combine loses it on the left).
        (
            [[0, "a", 1], [1, 0, "b"]],
            [["p", "q", "r"], ["s", "t", "u"]],
            [[0, "a", 1], [1, 0, "b"]],
        ),
        (
            [["p", "q", "r"], ["s", "t", "u"]],
            [[0, "a", 1], [1, 0, "b"]],
            [[0, "q", 1], [1, 0, "u"]],
        ),
        ([[0, 0, "t"], [0, 1, 0]], [["a", 0, "b"], ["c", 1, "d"]], [[0, 0, "t"], [0, 1, 0]]),
        # A name that stands twice is one, through both tables.
        ([["s", 0, "t"], [0, "s", 0]], [["a", 0, "b"], [0, 3, 0]], [[3, 0, "t"], [0, 3, 0]]),
        ([["s", 0, 0], [0, "u", 0]], [["a", 0, 0], [0, "a", 0]], [["u", 0, 0], [0, "u", 0]]),
        ([["s", 0, 0], [0, "u", 0]], [["a", 0, 0], [0, "-a", 0]], [["-u", 0, 0], [0, "u", 0]]),
        # x = -x: then it is 0.
        ([["x", 0, "t"], [0, "x", 0]], [["a", 0, "b"], [0, "-a", 0]], [[0, 0, "t"], [0, 0, 0]]),
        ([["-x", 0, "t"], [0, 1, 0]], [[2, 0, "b"], [0, 1, 0]], [[2, 0, "t"], [0, 1, 0]]),
        ([["x", "x", "t"], [0, 1, 0]], [["-a", 2, "b"], [0, 1, 0]], [[2, 2, "t"], [0, 1, 0]]),
        # A name of one table is nothing to the same name in the other.
        ([["x", "y", 0], [0, 1, 0]], [["y", "x", 0], [0, 1, 0]], [["x", "y", 0], [0, 1, 0]]),
    ],
)
def test_and_by_hand(left, right, expected):
    family = Affine(left) & Affine(right)
    wanted = Affine(expected)
    assert family.num_parameters == wanted.num_parameters
    theta = np.random.default_rng(0).normal(size=(1, wanted.num_parameters))
    np.testing.assert_array_equal(family.from_matrix(wanted.matrix(theta)).shape, theta.shape)
    slope, origin = members(family.table)
    wanted_slope, wanted_origin = members(expected)
    np.testing.assert_array_equal(origin, wanted_origin)
    assert np.linalg.matrix_rank(np.hstack([slope, wanted_slope])) == wanted.num_parameters


NAMED = [Translation(), Attention(1), Attention(2), Affine()]  # each holds the one before


@pytest.mark.parametrize("j", range(4))
@pytest.mark.parametrize("i", range(4))
def test_the_smaller_of_two_named_families_is_what_they_share(i, j):
    family, smaller = NAMED[i] & NAMED[j], NAMED[min(i, j)]
    assert family.num_parameters == smaller.num_parameters
    theta = near_identity(smaller)
    assert_near(
        family.matrix(family.from_matrix(smaller.matrix(theta))), smaller.matrix(theta), 0
    )


def test_a_name_of_the_right_that_is_free_on_the_left_gets_another():
    family = Affine([["s", 0, "t"], [0, 1, 0]]) & Affine([["t", 0, "s"], [0, 1, 0]])
    assert len(set(family.names)) == family.num_parameters == 2


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ([[0, "a", 0], [0, 1, 0]], [[1, "a", 0], [0, 1, 0]], "in row 0, column 0: 0 and 1"),
        ([["a", "a", 0], [0, 1, 0]], [[1, 2, "t"], [0, 1, 0]], "in row 0, column 1: 1 and 2"),
        ([["a", "-a", 0], [0, 1, 0]], [[1, 1, "t"], [0, 1, 0]], "in row 0, column 1: -1 and 1"),
        ([["a", 0, 0], [0, 1, 0.5]], [["a", 0, 0], [0, 1, 0]], "in row 1, column 2: 0.5 and 0"),
    ],
)
def test_tables_that_contradict_each_other_are_refused(left, right, message):
    with pytest.raises(ValueError, match=f"^&: the tables contradict each other {message}$"):
        Affine(left) & Affine(right)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (Rigid(), Similarity(), ("angle", "tx", "ty")),
        (Similarity(), Rigid(), ("angle", "tx", "ty")),
        (Similarity(), Factored(**PARTS), None),
        (Similarity(log=True), Factored(**PARTS), ("log_s", "angle", "tx", "ty")),
        (Factored(**PARTS), Similarity(log=True), ("log_s", "angle", "tx", "ty")),
        (Factored(**PARTS), Factored(**PARTS), Factored(**PARTS).names),
        (Factored(**PARTS), Factored(shear=True, rotation=True), ("k", "angle")),
        (Factored(scales=True), Factored(scale=True, translation=True), ("s",)),
        (Rigid(dimensions=3), Similarity(dimensions=3), ("rx", "ry", "rz", "tx", "ty", "tz")),
        (
            Rigid(dimensions=3),
            Rigid(dimensions=3, rotation="axis-angle"),  # True's own other name
            ("rx", "ry", "rz", "tx", "ty", "tz"),
        ),
    ],
)
def test_and_of_parts_is_what_both_have(left, right, expected):
    if expected is None:
        with pytest.raises(
            ValueError, match=r"^&: expected both scales as logarithms or neither"
        ):
            left & right
    else:
        assert (left & right).names == expected


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Rigid() & Rigid(dimensions=3), ValueError, "&: expected families of 2 dimens"),
        (
            lambda: Affine() & Affine(dimensions=3),
            ValueError,
            "&: expected families of 2 dimens",
        ),
        (
            lambda: Rigid(dimensions=3) & Rigid(dimensions=3, rotation="quaternion"),
            ValueError,
            "&: expected one kind of rotation, got ",
        ),
        (
            lambda: Affine.only(shear=True) & Affine.only(rotation=True),
            ValueError,
            "expected at least one of scale, scales, shear, rotation and translation, got none",
        ),
        (lambda: Affine() & Rigid(), TypeError, "unsupported operand"),
        (lambda: Rigid() & Affine(), TypeError, "unsupported operand"),
        (lambda: Rigid() & 1, TypeError, "unsupported operand"),
    ],
)
def test_families_that_share_nothing_are_refused(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


# Peers

BOTH_DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["64", "32"])


def assert_moves_as(family, theta, peer, dtype, reach=1.0):
    """Compare with a peer that maps points, (K, 2) to (K, 2)."""
    points = some_points(family, 200, reach=reach).astype(dtype)
    theta = np.asarray(theta, dtype).reshape(1, -1)
    moved, expected = family.apply(theta, points)[0], peer(points.astype(np.float64))
    assert_near(moved, expected, scaled_tolerance(dtype, expected))


@BOTH_DTYPES
def test_linear_families_agree_with_skimage(dtype):
    library = skimage.transform
    rigid = library.EuclideanTransform(rotation=0.7, translation=(0.25, -0.5))
    similar = library.SimilarityTransform(scale=1.5, rotation=-2.0, translation=(0.25, -0.5))
    affine = library.AffineTransform(scale=(1.5, 0.5), rotation=0.4, shear=0.25)
    assert_moves_as(Rigid(), [0.7, 0.25, -0.5], rigid, dtype)
    assert_moves_as(Similarity(), [1.5, -2.0, 0.25, -0.5], similar, dtype)
    assert_moves_as(Similarity(log=True), [np.log(1.5), -2.0, 0.25, -0.5], similar, dtype)
    for family in (Affine(), Factored(**PARTS)):
        assert_moves_as(family, family.from_matrix(affine.params[None, :2]), affine, dtype)


@BOTH_DTYPES
def test_projective_families_agree_with_skimage(dtype):
    for theta in near_identity(Projective(), 20, 0.2):
        peer = skimage.transform.ProjectiveTransform(np.r_[theta, 1].reshape(3, 3))
        if (
            np.abs(Projective().matrix(theta[None])[0, 2, :2]).sum() > 0.7
        ):  # the horizon is near
            continue
        assert_moves_as(Projective(), theta, peer, dtype)
        assert_moves_as(
            FourCorners(), FourCorners().from_matrix(peer.params[None]), peer, dtype
        )


@BOTH_DTYPES
def test_a_mesh_agrees_with_skimage(dtype):
    family = PiecewiseAffine(points=SCATTERED)
    target = SCATTERED + 0.1 * np.random.default_rng(3).normal(size=SCATTERED.shape)
    peer = skimage.transform.PiecewiseAffineTransform.from_estimate(SCATTERED, target)
    points = some_points(family, 300)
    expected = peer(points)
    inside = (expected != -1).all(-1)  # what skimage says outside its triangles
    assert inside.sum() > 50
    moved = family.apply(target.reshape(1, -1).astype(dtype), points[inside].astype(dtype))
    assert_near(moved[0], expected[inside], scaled_tolerance(dtype))


def test_a_thin_plate_agrees_with_skimage():
    target = SCATTERED + 0.1 * np.random.default_rng(3).normal(size=SCATTERED.shape)
    peer = skimage.transform.ThinPlateSplineTransform.from_estimate(SCATTERED, target)
    points = some_points(ThinPlateSpline(), 200)
    moved = ThinPlateSpline(points=SCATTERED).apply(target.reshape(1, -1), points)
    assert_near(moved[0], peer(points), 1e-6)  # skimage adds 1e-8 to r² inside the logarithm


@BOTH_DTYPES
@pytest.mark.parametrize("regularisation", [0, 0.01, 1, 100])
def test_a_thin_plate_agrees_with_scipy(dtype, regularisation):
    target = SCATTERED + 0.1 * np.random.default_rng(3).normal(size=SCATTERED.shape)
    peer = scipy.interpolate.RBFInterpolator(
        SCATTERED, target, kernel="thin_plate_spline", smoothing=regularisation
    )
    family = ThinPlateSpline(points=SCATTERED, regularisation=regularisation)
    assert_moves_as(family, target, peer, dtype)


def test_a_thin_plate_agrees_with_kornia_at_control_points_and_for_affine_maps():
    # Elsewhere they differ: kornia centres its kernels at the points' targets.
    rng = np.random.default_rng(3)
    affine = np.array([[0.9, 0.2, 0.1], [-0.1, 1.1, 0.3]])
    straight = transforms.apply(affine, SCATTERED)
    bent = SCATTERED + 0.1 * rng.normal(size=SCATTERED.shape)
    for target, points in ((straight, some_points(Affine(), 50)), (bent, SCATTERED)):
        source, goal, given = (torch.as_tensor(p)[None] for p in (SCATTERED, target, points))
        kernel, linear = kornia.geometry.get_tps_transform(source, goal)
        expected = kornia.geometry.transform.warp_points_tps(given, goal, kernel, linear)
        moved = ThinPlateSpline(points=SCATTERED).apply(target.reshape(1, -1), points)
        assert_near(moved, expected, 1e-10)


@BOTH_DTYPES
def test_a_cubic_lattice_agrees_with_scipy(dtype):
    family, (rows, columns) = BSpline(6, 5), (6, 5)
    theta = near_identity(family, 1)
    knots = tuple(-1 + 2 / (n - 3) * np.arange(-3, n + 1) for n in (rows, columns))
    peer = scipy.interpolate.NdBSpline(knots, theta.reshape(rows, columns, 2), 3)
    assert_moves_as(family, theta, lambda points: peer(points[:, ::-1]), dtype)


def test_a_matrix_of_four_points_is_opencvs_and_kornias():
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    for quad in near_identity(FourCorners(), 10, 0.25).astype(np.float32).reshape(-1, 4, 2):
        matrix = FourCorners().matrix(quad.reshape(1, 8).astype(np.float64))[0]
        assert_near(matrix, cv2.getPerspectiveTransform(corners, quad), 1e-10)
        pair = (torch.as_tensor(points).double()[None] for points in (corners, quad))
        assert_near(matrix, kornia.geometry.get_perspective_transform(*pair)[0], 1e-10)
        affine = cv2.getAffineTransform(corners[:3], quad[:3])
        theta = Affine().from_matrix(affine[None])
        moved = Affine().apply(theta, corners[:3].astype(np.float64))[0]
        assert_near(moved, quad[:3], 1e-10)


@BOTH_DTYPES
def test_projective_points_move_as_kornias(dtype):
    theta = near_identity(Projective(), 10, 0.1).astype(dtype)
    points = some_points(Projective(), (10, 30)).astype(dtype)
    matrix = torch.as_tensor(Projective().matrix(theta))
    expected = kornia.geometry.linalg.transform_points(matrix, torch.as_tensor(points))
    moved = Projective().apply(theta, points)
    assert_near(moved, expected, scaled_tolerance(dtype, moved))


@CORNERS
@pytest.mark.parametrize("size", [(16, 20), (9, 24)])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_an_image_is_warped_as_by_opencv(align_corners, size, mode):
    image = np.random.default_rng(0).random((16, 20)).astype(np.float32)
    flag = {"bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST}[mode]
    for theta in near_identity(Projective(), 3, 0.1):
        between = [
            to_homogeneous(
                transforms.theta_to_pixel(np.eye(2, 3), *sizes, align_corners=align_corners)
            )
            for sizes in (((3, 3), size), (image.shape, (3, 3)))
        ]  # by way of an image of 3 by 3 pixels
        unit = 1.0 if align_corners else 1.5  # of its pixels, a unit; 1 is its middle
        middle = np.array([[unit, 0, 1], [0, unit, 1], [0, 0, 1]])
        matrix = Projective().matrix(theta[None])[0]
        matrix = between[1] @ middle @ matrix @ np.linalg.inv(middle) @ between[0]
        expected = cv2.warpPerspective(
            image, matrix, size[::-1], flags=flag | cv2.WARP_INVERSE_MAP
        )
        grid = Projective().grid(theta[None], size, align_corners=align_corners)
        output = stnlib.grid_sample(
            image[None, None], grid, mode=mode, align_corners=align_corners, engine="reference"
        )[0, 0]
        assert_near(output, expected, 1e-5)


@BOTH_DTYPES
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("spread", [0, 1e-8, 0.1, 1, 4])
def test_exponential_and_logarithm_agree_with_scipy(dtype, dimensions, spread):
    rng = np.random.default_rng(0)
    generators = (spread * rng.normal(size=(20, dimensions, dimensions + 1))).astype(dtype)
    square = np.concatenate([generators, np.zeros((20, 1, dimensions + 1))], 1)
    matrices = scipy.linalg.expm(square.astype(np.float64))[:, :-1]
    found = exponential(generators)
    assert found.dtype == dtype
    for one, wanted in zip(found, matrices, strict=True):
        assert_near(one, wanted, scaled_tolerance(dtype, wanted))
    if spread <= 0.1:
        logarithms = [scipy.linalg.logm(to_homogeneous(m))[:-1] for m in matrices]
        assert_near(logarithm(matrices.astype(dtype)), logarithms, scaled_tolerance(dtype))


@pytest.mark.parametrize("size", [1e-8, 1e-4, 1e-3, 0.5, 2.0, 3.1, 4.0, 6.5])
@BOTH_DTYPES
def test_rotations_in_space_are_scipys(size, dtype):
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    vectors *= size / np.linalg.norm(vectors, axis=-1, keepdims=True)
    still, points = np.zeros_like(vectors), some_points(Affine(dimensions=3))
    quaternions = np.c_[vectors, np.ones(20)]
    for way, peer in (
        ("axis-angle", Rotation.from_rotvec(vectors)),
        ("quaternion", Rotation.from_quat(quaternions)),
    ):
        family = Rigid(dimensions=3, rotation=way)
        theta = np.c_[vectors, still].astype(dtype)
        expected = np.stack([peer[i].apply(points) for i in range(20)])
        assert_near(
            family.apply(theta, points.astype(dtype)), expected, scaled_tolerance(dtype)
        )


@given(seed=seeds)
def test_axis_and_angle_of_a_rotation_are_scipys(seed):
    matrices = Rotation.random(5, np.random.default_rng(seed))
    assume(matrices.magnitude().max() < 3.1)
    full = np.concatenate([matrices.as_matrix(), np.zeros((5, 3, 1))], -1)
    found = Factored(rotation=True, dimensions=3).from_matrix(full)
    assert_near(found, matrices.as_rotvec(), 1e-10)
    found = Factored(rotation="quaternion", dimensions=3).from_matrix(full)
    quaternions = matrices.as_quat(canonical=True)
    scale_of_it = 1e-10 * max(1, np.abs(found).max())
    assert_near(found, quaternions[:, :3] / quaternions[:, 3:], scale_of_it)


# Diffeomorphisms


def smallest_determinant(family, theta, side=24, step=1e-6):
    """Return the least determinant of the Jacobian, by differences so short that hardly any crosses an edge."""
    points = regular_grid((side, side)).reshape(-1, 2) + 1e-3
    slopes = [
        (family.apply(theta, points + e) - family.apply(theta, points - e)) / (2 * step)
        for e in step * np.eye(2)
    ]
    return np.linalg.det(np.stack(slopes, -1)).min()


DIFFEOMORPHISMS = [
    (StationaryVelocity(), 0.5),
    (StationaryVelocity(4, 4), 1.0),
    (StationaryVelocity(5, 7), 0.5),
    (PiecewiseAffineVelocity(), 0.5),
    (PiecewiseAffineVelocity(3, 3), 1.0),
    (PiecewiseAffineVelocity(2, 5), 0.5),
]


@pytest.mark.parametrize(("family", "spread"), DIFFEOMORPHISMS)
def test_a_velocity_never_folds_the_plane(family, spread):
    theta = near_identity(family, 4, spread)
    points = regular_grid((24, 24)).reshape(-1, 2)
    assert np.abs(family.apply(theta, points) - points).max() > 0.5  # a quarter of the image
    assert smallest_determinant(family, theta) > 0


def test_a_mesh_with_a_triangle_turned_over_folds():
    family = PiecewiseAffine(3, 3)
    theta = family.identity().reshape(1, 9, 2).copy()
    assert smallest_determinant(family, theta.reshape(1, -1)) == pytest.approx(1)
    theta[0, 4] = [1.5, 0.2]  # the middle, beyond its neighbour to the right
    assert smallest_determinant(family, theta.reshape(1, -1)) < -0.1


@pytest.mark.parametrize("side", [28, 64])
@pytest.mark.parametrize(
    ("family", "spread"),
    [
        (StationaryVelocity(), 0.2),
        (StationaryVelocity(4, 4), 0.5),
        (StationaryVelocity(resolution=129), 0.5),
        (PiecewiseAffineVelocity(), 0.5),
        (PiecewiseAffineVelocity(3, 3), 1.0),
    ],
)
def test_the_opposite_velocity_brings_points_back(family, spread, side):
    theta = near_identity(family, 2, spread)
    points = regular_grid((side, side)).reshape(-1, 2)
    inside = np.ones((2, side**2), bool)
    for part in (0.25, 0.5, 0.75, 1):
        moved = family.apply(part * theta, points)
        inside &= (np.abs(moved) <= 1).all(-1)
    assert inside.mean() > 0.5
    np.testing.assert_array_equal(family.inverse(theta), -theta)
    off = np.linalg.norm(family.apply(family.inverse(theta), moved) - points, axis=-1)
    assert off[inside].max() * side / 2 < 0.05  # of a pixel
    assert np.linalg.norm(moved - points, axis=-1).max() * side / 2 > 2


@pytest.mark.parametrize(
    "family",
    [StationaryVelocity(4, 6), PiecewiseAffineVelocity(4, 3), PiecewiseAffineVelocity()],
)
def test_a_velocity_that_is_affine_is_followed_exactly(family):
    generator = np.array([[0.1, -0.4, 0.05], [0.3, -0.2, -0.1]])
    nodes = (
        BSpline(4, 6).control if family.nodes == 24 else PiecewiseAffine(*family.shape).control
    )
    theta = transforms.apply(generator, nodes).reshape(1, -1)
    points = some_points(family, 50, reach=0.5)  # which stay inside
    expected = transforms.apply(exponential(generator), points)
    tolerance = 1e-4 if isinstance(family, StationaryVelocity) else 1e-8
    assert_near(family.apply(theta, points)[0], expected, tolerance)


def test_a_velocity_is_followed_as_scipy_follows_it():
    for family, tolerance in ((StationaryVelocity(), 1e-3), (PiecewiseAffineVelocity(), 1e-5)):
        theta = near_identity(family, 1, 0.2)
        points = some_points(family, 10, reach=0.5)

        def move(_, flat, family=family, theta=theta):
            return family.velocity(theta, flat.reshape(-1, 2))[0].reshape(-1)

        path = scipy.integrate.solve_ivp(
            move, (0, 1), points.reshape(-1), rtol=1e-8, atol=1e-10, max_step=0.02
        )
        expected = path.y[:, -1].reshape(-1, 2)
        assert_near(family.apply(theta, points)[0], expected, tolerance)


# The horizon


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("off", [0, 1e-12, -1e-12, 1e-8, -1e-8, 3e-8, 1e-6, -1e-3])
def test_on_the_horizon_values_and_gradients_are_finite(dtype, off):
    theta = torch.tensor([[1, 0.1, 0.2, 0, 1, -0.3, 1, 0]], dtype=dtype, requires_grad=True)
    points = torch.tensor([[off - 1, 0.3], [-1, 0.0]], dtype=dtype, requires_grad=True)
    moved = Projective().apply(theta, points)
    assert torch.isfinite(moved).all()
    for gradient in torch.autograd.grad(moved.sum(), (theta, points)):
        assert torch.isfinite(gradient).all()


def test_beyond_the_horizon_the_formula_is_used_as_it_stands():
    theta = np.array([[1.0, 0, 0, 0, 1, 0, 2, 0]])
    moved = Projective().apply(theta, np.array([[-1.0, 0.5], [-0.75, 0.5]]))
    assert_near(moved[0], [[1, -0.5], [1.5, -1]], 1e-15)


DEGENERATE = {
    "point": [0, 0, 0, 0, 0, 0, 0, 0],
    "line": [0, 0, 1, 1, 2, 2, 3, 3],
    "two-the-same": [-1, -1, 1, -1, 1, 1, 1, 1],
    "opposite-the-same": [-1, -1, 1, -1, -1, -1, -1, 1],
    "neighbours-the-same": [-1, -1, -1, -1, 1, 1, -1, 1],
    "three-on-a-line": [-1, -1, 0, -1, 1, -1, 0, 1],
    "dent-to-a-diagonal": [-1, -1, 1, -1, 0, 0, -1, 1],
    "other-three": [0, -1, -1, -1, 1, -1, 0, 1],
    "bow": [-1, -1, 1, 1, 1, -1, -1, 1],
    "nearly-a-line": [-1, 0, 0, 1e-8, 1, 0, 0, -1e-8],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("quad", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_corners_give_finite_values_and_gradients(dtype, quad):
    theta = torch.tensor([quad], dtype=dtype, requires_grad=True)
    corners = FourCorners().identity().reshape(4, 2)
    points = torch.tensor(np.r_[corners, SCATTERED, [[0, 0]]], dtype=dtype)
    for moved in (FourCorners().apply(theta, points), FourCorners().grid(theta, (5, 4))):
        assert torch.isfinite(moved).all()
        (gradient,) = torch.autograd.grad(moved.sum(), theta)
        assert torch.isfinite(gradient).all()


# The thin plate


@pytest.mark.parametrize("regularisation", [0, 0.1, 10])
@pytest.mark.parametrize("points", [None, SCATTERED], ids=["lattice", "points"])
@given(seed=seeds)
def test_an_affine_map_of_the_control_points_is_one_everywhere(regularisation, points, seed):
    family = ThinPlateSpline(4, 3, points=points, regularisation=regularisation)
    matrix = np.random.default_rng(seed).normal(size=(2, 3))
    theta = transforms.apply(matrix, family.control).reshape(1, -1)
    everywhere = some_points(family, 50, reach=2)
    assert_near(family.apply(theta, everywhere)[0], transforms.apply(matrix, everywhere), 1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_a_control_point_value_and_gradient_are_numbers(dtype):
    family = ThinPlateSpline(3, 3)
    theta = torch.tensor(near_identity(family), dtype=dtype, requires_grad=True)
    points = torch.tensor(family.control, dtype=dtype, requires_grad=True)
    moved = family.apply(theta, points)
    assert_near(
        moved.detach().reshape(2, -1),
        theta.detach(),
        scaled_tolerance(moved.numpy(force=True).dtype),
    )
    for gradient in torch.autograd.grad(moved.square().sum(), (theta, points)):
        assert torch.isfinite(gradient).all()


def test_gradients_at_a_control_point_by_finite_differences():
    family = ThinPlateSpline(2, 2)
    theta = torch.tensor(near_identity(family), requires_grad=True)
    points = torch.tensor(family.control, requires_grad=True)
    assert torch.autograd.gradcheck(family.apply, (theta, points), atol=1e-4)  # r² log r bends


def bending(family, theta):
    """Return the bending energy: of the weights of r² log r, with it between control points."""
    weights = family.solution[: len(family.control)] @ theta.reshape(-1, 2)
    square = ((family.control[:, None] - family.control) ** 2).sum(-1)
    kernel = 0.5 * square * np.log(np.where(square > 0, square, 1))
    return np.trace(weights.T @ kernel @ weights)


def test_more_regularisation_bends_less_and_ends_in_an_affine_map():
    energies, distances = [], []
    theta = near_identity(ThinPlateSpline(4, 4), 1, 0.2)
    for regularisation in (0, 0.01, 0.1, 1, 10):
        family = ThinPlateSpline(4, 4, regularisation=regularisation)
        energies.append(bending(family, theta))
        distances.append(
            np.linalg.norm(family.apply(theta, family.control).reshape(1, -1) - theta)
        )
    assert (np.diff(energies) < 0).all()
    assert (np.diff(distances) > 0).all()
    assert distances[0] < 1e-13
    stiff, points = ThinPlateSpline(4, 4, regularisation=1e8), some_points(Affine(), 20)
    flat = np.c_[stiff.control, np.ones(16)]
    matrix = np.linalg.lstsq(flat, theta.reshape(16, 2))[0].T
    assert_near(stiff.apply(theta, points)[0], transforms.apply(matrix, points), 1e-7)


# A family of one's own


class Lens(Family):
    num_parameters = 1

    def identity(self):
        return np.zeros(1)

    def apply(self, theta, points):
        xp = self.check(theta, points)
        square = xp.sum(points * points, axis=-1, keepdims=True)
        return points * (1 + theta[:, :, None] * square)


class Squeeze(Linear):
    num_parameters = 1

    def identity(self):
        return np.zeros(1)

    def matrix(self, theta):
        xp = self.check(theta)
        zero, size = xp.zeros_like(theta[:, 0]), xp.exp(theta[:, 0])
        entries = xp.stack([size, zero, zero, zero, 1 / size, zero], axis=-1)
        return xp.reshape(entries, (-1, 2, 3))


@pytest.mark.parametrize("to", [np.asarray, torch.as_tensor, array_api_strict.asarray])
def test_a_family_of_ones_own_has_a_grid(to):
    theta = to(np.array([[0.0], [0.5]]))
    grid = Lens().grid(theta, (2, 3), align_corners=True)
    regular = regular_grid((2, 3), align_corners=True)
    assert_near(np.from_dlpack(grid)[0], regular, 0)
    assert_near(np.from_dlpack(grid)[1, 0, 0], [-2, -2], 0)
    assert repr(Lens()) == "Lens()"


def test_a_family_of_ones_own_goes_into_a_composition():
    family = Composition(Lens(), Squeeze())
    theta = np.array([[0.5, np.log(2)]])
    assert_near(family.apply(theta, np.array([[0.5, 2.0]]))[0], [[2.0, 2.0]], 1e-15)


def test_a_matrix_family_of_ones_own_that_cannot_be_read_back_says_so():
    with pytest.raises(NotImplementedError, match=r"^Squeeze\.from_matrix$"):
        Squeeze().inverse(np.zeros((1, 1)))


@pytest.mark.parametrize("call", ["identity", "apply"])
def test_what_a_family_lacks_is_named(call):
    class Nothing(Family):
        num_parameters = 1

    arguments = () if call == "identity" else (np.zeros((1, 1)), np.zeros((1, 2)))
    with pytest.raises(NotImplementedError, match=rf"^Nothing\.{call}$"):
        getattr(Nothing(), call)(*arguments)


# What is refused, and in which words


@every_family
def test_a_theta_or_points_that_do_not_fit_are_refused(family):
    p, d = family.num_parameters, family.dimensions
    theta, points = near_identity(family), some_points(family)
    size = (2, 3, 4)[-d:]
    needed = rf"^theta: expected shape \(N, {p}\), got "
    for wrong in (theta[0], np.zeros((2, p + 1)), np.zeros((2, p, 1))):
        for call in (family.grid, family.apply):
            with pytest.raises(ValueError, match=needed):
                call(wrong, size if call == family.grid else points)
    for call, argument in ((family.grid, size), (family.apply, points)):
        with pytest.raises(TypeError, match=r"^theta: expected float32 or float64, got int64"):
            call(np.zeros((2, p), int), argument)
        with pytest.raises(TypeError, match=r"^theta: expected a NumPy, CuPy or PyTorch array"):
            call([[0.0] * p], argument)
    with pytest.raises(TypeError, match=r"^arrays of different libraries: theta is a "):
        family.apply(torch.as_tensor(theta), points)
    with pytest.raises(TypeError, match=r"^points: expected float64, as theta is, got float32"):
        family.apply(theta, points.astype(np.float32))
    for wrong in (points[0], points[None], np.zeros((3, 5, d)), np.zeros((5, d + 1))):
        with pytest.raises(
            ValueError, match=rf"^points: expected shape \(K, {d}\) or \(2, K, {d}\)"
        ):
            family.apply(theta, wrong)
    axes = "H, W" if d == 2 else "D, H, W"
    for wrong in (size[1:], (*size, 4), 5, (3, 1, *size)[:-1]):
        with pytest.raises(
            ValueError, match=rf"^size: expected \(N, C, {axes}\) or \({axes}\)"
        ):
            family.grid(theta, wrong)
    with pytest.raises(ValueError, match=r"^size: expected a batch of 2, as theta has, got "):
        family.grid(theta, (3, 1, *size))
    with pytest.raises(ValueError, match=r"^size: expected .* of at least 1, got "):
        family.grid(theta, (0, *size[1:]))


REFUSED = {
    "singular": (
        lambda: Affine().inverse(np.array([[1.0, 2, 0, 2, 4, 0]])),
        "matrix: expected an invertible matrix, got one of determinant 0; no transform undoes it",
    ),
    "singular-of-two": (
        lambda: Attention(1).inverse(np.array([[1.0, 0, 0], [0, 0, 0]])),
        "matrix: expected an invertible matrix, got one of determinant 0",
    ),
    "singular-in-space": (
        lambda: Affine(dimensions=3).inverse(FLAT3.reshape(1, 12)),
        "matrix: expected an invertible matrix, got one of determinant 0",
    ),
    "singular-projective": (
        lambda: Projective().inverse(np.array([[1.0, 0, 0, 1, 0, 0, 0, 0]])),
        "matrix: expected an invertible matrix, got one of determinant 0",
    ),
    "centre-to-infinity": (
        lambda: Projective().from_matrix(np.array([[[1.0, 0, 0], [0, 1, 0], [1, 0, 0]]])),
        "matrix: expected a last entry other than 0, got 0; it sends the output's centre to infinity",
    ),
    "mirror": (lambda: logarithm(scale(1.0, -1.0)), "it has no logarithm"),
    "another-mirror": (lambda: logarithm(scale(-0.6, 1.7)), "it has no logarithm"),
    "half-turn": (lambda: logarithm(rotation(np.pi)), "it has no logarithm"),
    "flat": (lambda: logarithm(scale(1.0, 0.0)), "it has no logarithm"),
    "flat-in-space": (lambda: logarithm(FLAT3), "it has no logarithm"),
    "mirror-in-space": (lambda: logarithm(np.diag([1.0, 1, -1, 1])[:3]), "has no logarithm"),
    "mirror-of-two": (
        lambda: logarithm(np.stack([scale(2.0), scale(1.0, -1.0)])),
        "matrix: expected one that a steady motion reaches, got a singular matrix, a mirror image or half a turn",
    ),
    "log-of-a-family": (
        lambda: Rigid().log(np.array([[np.pi, 0.0, 0.0]])),
        "matrix: expected one that a steady motion reaches",
    ),
    "exponential-mirror": (
        lambda: ExponentialAffine().from_matrix(scale(1.0, -1.0)[None]),
        "matrix: expected one that a steady motion reaches",
    ),
    "matrix-shape": (
        lambda: Affine().from_matrix(np.eye(3)[None]),
        "matrix: expected shape (N, 2, 3), got (1, 3, 3)",
    ),
    "matrix-of-space": (
        lambda: Rigid().from_matrix(np.eye(3, 4)[None]),
        "matrix: expected shape (N, 2, 3), got (1, 3, 4)",
    ),
    "projective-matrix-shape": (
        lambda: Projective().from_matrix(np.eye(2, 3)[None]),
        "matrix: expected shape (N, 3, 3), got (1, 2, 3)",
    ),
    "quaternion-half-turn": (
        lambda: Rigid(dimensions=3, rotation="quaternion").from_matrix(
            np.diag([1.0, -1, -1, 0])[None, :3]
        ),
        "matrix: expected a rotation by less than half a turn, got half a turn",
    ),
    "dimensions": (lambda: Affine(dimensions=4), "dimensions: expected 2 or 3, got 4"),
    "exponential-dimensions": (
        lambda: ExponentialAffine(dimensions=1),
        "dimensions: expected 2 or 3, got 1",
    ),
    "parts-dimensions": (lambda: Rigid(dimensions=1), "dimensions: expected 2 or 3, got 1"),
    "attention": (lambda: Attention(3), "scales: expected 1 or 2, got 3"),
    "numbers-alone": (
        lambda: Affine([[1, 0, 0], [0, 1, 0]]),
        "table: expected at least one parameter's name, got numbers alone",
    ),
    "rows": (
        lambda: Affine([["a", 0], [0, 1]]),
        "table: expected 2 rows of 3 entries or 3 rows of 4, got [2, 2]",
    ),
    "name": (
        lambda: Affine([["2a", 0, 0], [0, 1, 0]]),
        "table: expected a name, with or without a minus before it, got '2a'",
    ),
    "two-minuses": (lambda: Affine([["--a", 0, 0], [0, 1, 0]]), "got '--a'"),
    "no-number": (
        lambda: Affine([["a", None, 0], [0, 1, 0]]),
        "table: expected numbers and names, got None",
    ),
    "truth": (lambda: Affine([["a", True, 0], [0, 1, 0]]), "numbers and names, got True"),
    "nan-entry": (
        lambda: Affine([["a", float("nan"), 0], [0, 1, 0]]),
        "table: expected finite numbers",
    ),
    "no-table": (lambda: Affine(3), "table: expected rows of numbers and names, got 3"),
    "no-part": (
        lambda: Affine.only(),
        "expected at least one of scale, scales, shear, rotation and translation, got none",
    ),
    "both-scales": (
        lambda: Affine.only(scale=True, scales=True),
        "scale, scales: expected one of the two, got both",
    ),
    "log-alone": (
        lambda: Affine.only(log=True, rotation=True),
        "log: expected scale or scales beside it, got neither",
    ),
    "shear-in-space": (
        lambda: Affine.only(shear=True, dimensions=3),
        "shear: expected dimensions=2 beside it, got 3; use Affine",
    ),
    "rotation-kind": (lambda: Rigid(rotation="quaternion"), "rotation: expected one of (Fal"),
    "euler": (
        lambda: Rigid(dimensions=3, rotation="euler"),
        "rotation: expected one of (False, True, 'axis-angle', 'quaternion'), got 'euler'",
    ),
    "tps-line": (
        lambda: ThinPlateSpline(points=np.c_[np.arange(5.0), 2 * np.arange(5.0) + 1]),
        "points: expected some that do not lie on one line, got a line",
    ),
    "tps-twice": (
        lambda: ThinPlateSpline(points=np.r_[SCATTERED, SCATTERED[:1]]),
        "points: expected no two the same, got one twice; remove it",
    ),
    "tps-few": (
        lambda: ThinPlateSpline(points=SCATTERED[:2]),
        "points: expected at least 3, got 2",
    ),
    "tps-nan": (
        lambda: ThinPlateSpline(points=np.where(SCATTERED > 0.9, np.nan, SCATTERED)),
        "points: expected finite numbers, got NaN or infinity",
    ),
    "tps-integers": (
        lambda: ThinPlateSpline(points=np.eye(3, 2, dtype=int)),
        "points: expected float32 or float64, got int64",
    ),
    "tps-shape": (
        lambda: ThinPlateSpline(points=np.eye(3)),
        "points: expected shape (K, 2), got (3, 3)",
    ),
    "tps-rows": (lambda: ThinPlateSpline(1, 4), "rows: expected at least 2, got 1"),
    "tps-columns": (lambda: ThinPlateSpline(4, 1), "columns: expected at least 2, got 1"),
    "tps-fraction": (lambda: ThinPlateSpline(2.5, 4), "rows: expected a whole number"),
    "tps-negative": (
        lambda: ThinPlateSpline(regularisation=-1),
        "regularisation: expected a number of at least 0, got -1",
    ),
    "tps-infinite": (
        lambda: ThinPlateSpline(regularisation=float("inf")),
        "regularisation: expected a",
    ),
    "mesh-line": (
        lambda: PiecewiseAffine(points=np.c_[np.arange(5.0), np.zeros(5)]),
        "points: expected some that do not lie on one line, got a line",
    ),
    "mesh-twice": (
        lambda: PiecewiseAffine(points=np.r_[SCATTERED, SCATTERED[:1]]),
        "points: expected no two the same, got one twice; remove it",
    ),
    "mesh-few": (lambda: PiecewiseAffine(points=SCATTERED[:2]), "expected at least 3, got 2"),
    "mesh-rows": (lambda: PiecewiseAffine(1, 4), "rows: expected at least 2, got 1"),
    "bspline": (lambda: BSpline(3, 6), "rows, columns: expected at least 4, got 3 and 6"),
    "flow": (lambda: DenseFlow((0, 4)), "size: expected a height and a width of at least 1"),
    "flow-axes": (lambda: DenseFlow((4,)), "size: expected a height and a width, got (4,)"),
    "flow-number": (lambda: DenseFlow(4), "size: expected a height and a width, got 4"),
    "velocity": (lambda: StationaryVelocity(3, 3), "rows, columns: expected at least 4"),
    "squarings": (
        lambda: StationaryVelocity(squarings=-1),
        "squarings: expected a whole number of at least 0, got -1",
    ),
    "resolution": (
        lambda: StationaryVelocity(resolution=1),
        "resolution: expected at least 2, got 1",
    ),
    "steps": (lambda: PiecewiseAffineVelocity(steps=0), "steps: expected at least 1"),
    "velocity-rows": (
        lambda: PiecewiseAffineVelocity(1, 3),
        "rows: expected at least 2, got 1",
    ),
    "none-composed": (
        lambda: Composition(),
        "families: expected at least one family, got none",
    ),
    "plane-and-space": (
        lambda: Composition(Rigid(), Rigid(dimensions=3)),
        "families: expected all of the plane or all of space, got some of each",
    ),
    "no-family": (
        lambda: Composition(Rigid(), "affine"),
        "families[1]: expected a family such as Affine(), got 'affine'",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(call, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_logarithm_just_before_half_a_turn_exists():
    matrix = rotation(np.pi - 0.01)
    assert_near(exponential(logarithm(matrix)), matrix, 1e-12)


@pytest.mark.parametrize("size", [1e-4, 1e-2, 1e2, 1e4])
def test_a_logarithm_of_a_large_scale_exists(size):
    found = logarithm(scale(size))
    assert_near(found[:, :2], np.log(size) * np.eye(2), 1e-11)


def test_every_mirror_image_is_refused_in_words():
    matrices = np.random.default_rng(0).normal(size=(200, 2, 3))
    for matrix in matrices[np.linalg.det(matrices[:, :, :2]) < 0]:
        with pytest.raises(ValueError, match=r"it has no logarithm$"):
            logarithm(matrix)
