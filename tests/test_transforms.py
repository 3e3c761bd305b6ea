import cv2
import numpy as np
import pytest
import skimage.transform
import torch
from hypothesis import given
from hypothesis import strategies as st

import stnlib
from stnlib import transforms
from stnlib.coordinates import normalise, unnormalise
from stnlib.transforms import (
    Affine,
    affine,
    apply,
    box_to_theta,
    compose,
    from_homogeneous,
    inverse,
    pixel_to_theta,
    rigid,
    rotation,
    scale,
    shear,
    similarity,
    theta_to_box,
    theta_to_pixel,
    to_homogeneous,
    translation,
)

CORNERS = pytest.mark.parametrize("align_corners", [False, True])
NUMBERS = st.floats(-5, 5)


@st.composite
def matrices(draw, batch=()):
    """Well-conditioned matrices: a rotation and a shear of a scale between 0.5 and 2."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    turned = rotation(rng.uniform(-np.pi, np.pi, batch))
    stretched = affine(
        rng.uniform(0.5, 2, batch),
        rng.uniform(-1, 1, batch),
        rng.uniform(-3, 3, batch),
        0.0,
        rng.uniform(0.5, 2, batch),
        rng.uniform(-3, 3, batch),
    )
    return compose(turned, stretched)


def assert_near(actual, expected, tolerance):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=tolerance)


# The matrices


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (translation(3, -1), [[1, 0, 3], [0, 1, -1]]),
        (scale(2), [[2, 0, 0], [0, 2, 0]]),
        (scale(2, 3), [[2, 0, 0], [0, 3, 0]]),
        (scale(2, 0), [[2, 0, 0], [0, 0, 0]]),
        (shear(0.5), [[1, 0.5, 0], [0, 1, 0]]),
        (shear(0.5, 0.25), [[1, 0.5, 0], [0.25, 1, 0]]),
        (affine(1, 2, 3, 4, 5, 6), [[1, 2, 3], [4, 5, 6]]),
        (rotation(0), [[1, 0, 0], [0, 1, 0]]),
        (rigid(0, 3, 4), [[1, 0, 3], [0, 1, 4]]),
        (similarity(2, 0, 3, 4), [[2, 0, 3], [0, 2, 4]]),
    ],
)
def test_matrices_by_hand(matrix, expected):
    np.testing.assert_array_equal(matrix, expected)
    assert matrix.dtype == np.float64


@pytest.mark.parametrize(
    "matrix", [rotation(np.pi / 2), rigid(np.pi / 2, 0, 0), similarity(1, np.pi / 2, 0, 0)]
)
def test_a_positive_angle_turns_x_towards_y(matrix):
    assert_near(apply(matrix, np.array([[1.0, 0.0], [0.0, 1.0]])), [[0, 1], [-1, 0]], 1e-16)


@given(s=st.floats(0.1, 3), angle=st.floats(-3, 3), tx=NUMBERS, ty=NUMBERS)
def test_families_agree_with_skimage(s, angle, tx, ty):
    library = skimage.transform
    for matrix, other in (
        (translation(tx, ty), library.EuclideanTransform(translation=(tx, ty))),
        (rotation(angle), library.EuclideanTransform(rotation=angle)),
        (
            rigid(angle, tx, ty),
            library.EuclideanTransform(rotation=angle, translation=(tx, ty)),
        ),
        (
            similarity(s, angle, tx, ty),
            library.SimilarityTransform(scale=s, rotation=angle, translation=(tx, ty)),
        ),
        (scale(s, s + 1), library.AffineTransform(scale=(s, s + 1))),
        (
            shear(np.tan(0.3), np.tan(0.2)),
            library.AffineTransform(shear=(-0.3, -0.2)),
        ),  # y up, there
        (
            compose(translation(tx, ty), scale(s)),
            library.AffineTransform(scale=s, translation=(tx, ty)),
        ),
    ):
        assert_near(to_homogeneous(matrix), other.params, 2e-15)


@given(angle=st.floats(-3, 3), tx=NUMBERS, ty=NUMBERS, s=st.floats(0.1, 3))
def test_named_families_are_compositions(angle, tx, ty, s):
    assert_near(rigid(angle, tx, ty), compose(translation(tx, ty), rotation(angle)), 1e-15)
    assert_near(
        similarity(s, angle, tx, ty),
        compose(translation(tx, ty), rotation(angle), scale(s)),
        1e-15,
    )


def test_arrays_of_parameters_broadcast():
    angles, shifts = np.array([[0.1], [0.2]]), np.array([1.0, 2.0, 3.0])
    matrix = rigid(angles, shifts, 0.5)
    assert matrix.shape == (2, 3, 2, 3)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(matrix[i, j], rigid(angles[i, 0], shifts[j], 0.5))


@pytest.mark.parametrize(
    "make",
    [
        lambda a: translation(a, 1.0),
        lambda a: translation(1.0, a),
        rotation,
        scale,
        lambda a: scale(1.0, a),
        shear,
        lambda a: rigid(a, 0.0, a),
        lambda a: rigid(0.5, a, 0.0),
        lambda a: similarity(a, a, 1.0, a),
        lambda a: similarity(a, 0.5, 1.0, 2.0),
        lambda a: similarity(2.0, 0.5, 1.0, a),
        lambda a: affine(a, 0.0, a, 1.0, a, 0.0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_flow_through_tensors_of_parameters(make, dtype):
    parameter = torch.tensor([0.5, 0.25], dtype=dtype, requires_grad=True)
    matrix = make(parameter)
    assert (matrix.dtype, tuple(matrix.shape)) == (dtype, (2, 2, 3))
    np.testing.assert_allclose(
        matrix.detach().numpy(), make(parameter.detach().numpy()), rtol=2e-7
    )
    matrix.sum().backward()
    h = 1e-6
    at = parameter.detach().double().numpy()
    difference = (make(at + h) - make(at - h)).sum(axis=(1, 2)) / (2 * h)
    np.testing.assert_allclose(parameter.grad.numpy(), difference, rtol=0, atol=1e-6)


def test_float32_arrays_give_float32():
    assert rotation(np.array([0.5], np.float32)).dtype == np.float32
    assert translation(0.5, np.array([0.5], np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    "make",
    [
        lambda a: translation(a, 0.0),
        rotation,
        scale,
        shear,
        lambda a: rigid(a, 0.0, 0.0),
        lambda a: rigid(0.0, a, 0.0),
        lambda a: similarity(a, 0.0, 0.0, 0.0),
        lambda a: similarity(1.0, a, 0.0, 0.0),
        lambda a: affine(a, 0.0, 0.0, 0.0, 0.0, 0.0),
    ],
)
@pytest.mark.parametrize(
    "array", [np.array([0, 1]), torch.tensor([0, 1])], ids=["numpy", "torch"]
)
def test_arrays_of_integers_are_refused(make, array):
    with pytest.raises(TypeError, match=r"expected float32 or float64, got .*int64"):
        make(array)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda a: translation(0.0, a), "ty"),
        (lambda a: scale(a), "sx"),
        (lambda a: shear(0.0, a), "ky"),
        (lambda a: rotation(a), "angle"),
        (lambda a: affine(0.0, 0.0, 0.0, a, 0.0, 0.0), "a21"),
    ],
)
def test_the_refusal_names_the_argument(call, name):
    with pytest.raises(TypeError, match=rf"^{name}: expected float32 or float64, got int64"):
        call(np.array([0, 1]))


def test_parameters_of_two_precisions_are_refused():
    with pytest.raises(TypeError, match="ty: expected float32, as tx is, got float64"):
        translation(np.zeros(2, np.float32), np.zeros(2))


def test_a_parameter_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match="sx: expected a number or an array, got str"):
        scale("2")


def test_parameters_of_two_libraries_are_refused():
    with pytest.raises(TypeError, match="arrays of different libraries"):
        translation(np.zeros(2), torch.zeros(2))


# Composition and inverse


@given(a=matrices(), b=matrices(), c=matrices())
def test_composition_is_associative(a, b, c):
    assert_near(compose(compose(a, b), c), compose(a, compose(b, c)), 1e-12)
    assert_near(compose(a, b, c), compose(a, compose(b, c)), 1e-12)


@given(
    a=matrices(),
    b=matrices(batch=(4,)),
    points=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5),
)
def test_composition_moves_by_the_last_first(a, b, points):
    points = np.array(points)
    assert_near(apply(compose(a, b), points), apply(a, apply(b, points)), 1e-12)


def test_composition_of_one_is_itself():
    np.testing.assert_array_equal(compose(scale(2.0)), scale(2.0))


@given(matrix=matrices(batch=(2, 3)))
def test_inverse_undoes_on_both_sides(matrix):
    identity = np.broadcast_to(np.eye(2, 3), (2, 3, 2, 3))
    assert_near(compose(matrix, inverse(matrix)), identity, 1e-13)
    assert_near(compose(inverse(matrix), matrix), identity, 1e-13)


@given(matrix=matrices(batch=(3,)))
def test_inverse_agrees_with_numpy(matrix):
    assert_near(to_homogeneous(inverse(matrix)), np.linalg.inv(to_homogeneous(matrix)), 1e-12)


def test_apply_by_hand():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(
        apply(affine(1, 2, 3, 4, 5, 6), points), [[3, 6], [4, 10], [5, 11]]
    )


def test_apply_broadcasts_batches():
    matrix, points = (
        np.stack([translation(1, 0), scale(2), shear(1)]),
        np.arange(8.0).reshape(4, 2),
    )
    moved = apply(matrix, points)
    assert moved.shape == (3, 4, 2)
    for i in range(3):
        np.testing.assert_array_equal(moved[i], apply(matrix[i], points))


@given(matrix=matrices(batch=(2,)), w=st.floats(0.25, 4))
def test_homogeneous_and_back(matrix, w):
    square = to_homogeneous(matrix)
    np.testing.assert_array_equal(square[..., 2, :], [[0, 0, 1]] * 2)
    np.testing.assert_array_equal(from_homogeneous(square), matrix)
    assert_near(from_homogeneous(-w * square), matrix, 1e-14)


def test_torch_tensors_stay_tensors():
    matrix = torch.tensor(affine(1, 2, 3, 4, 6, 5), requires_grad=True)
    points = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    result = apply(compose(from_homogeneous(to_homogeneous(matrix)), inverse(matrix)), points)
    assert_near(result.detach(), points, 1e-14)
    result.sum().backward()
    assert_near(
        matrix.grad, np.zeros((2, 3)), 1e-13
    )  # the composition is the identity, whatever the matrix


# Between pixels and normalised coordinates


@pytest.mark.parametrize("input_size", [(1, 1), (5, 4), (8, 1)])
@pytest.mark.parametrize("output_size", [(1, 1), (7, 3), (1, 6)])
@CORNERS
@given(theta=matrices())
def test_pixel_matrix_moves_pixels_as_the_grid_does(
    input_size, output_size, align_corners, theta
):
    grid = stnlib.affine_grid(theta[None], output_size, align_corners=align_corners)[0]
    x = unnormalise(grid[..., 0], input_size[1], align_corners=align_corners)
    y = unnormalise(grid[..., 1], input_size[0], align_corners=align_corners)
    rows, columns = np.indices(output_size)
    pixels = np.stack((columns, rows), axis=-1).reshape(-1, 2).astype(float)
    matrix = theta_to_pixel(theta, input_size, output_size, align_corners=align_corners)
    assert_near(
        apply(matrix, pixels).reshape(*output_size, 2), np.stack((x, y), axis=-1), 1e-12
    )
    again = theta_to_pixel(
        pixel_to_theta(matrix, input_size, output_size, align_corners=align_corners),
        input_size,
        output_size,
        align_corners=align_corners,
    )
    assert_near(apply(again, pixels), apply(matrix, pixels), 1e-12)


@CORNERS
@given(theta=matrices(batch=(2,)), sizes=st.tuples(*[st.integers(2, 50)] * 4))
def test_theta_to_pixel_and_back(align_corners, theta, sizes):
    sizes = sizes[:2], sizes[2:]
    matrix = theta_to_pixel(theta, *sizes, align_corners=align_corners)
    assert_near(pixel_to_theta(matrix, *sizes, align_corners=align_corners), theta, 1e-11)


@CORNERS
@given(matrix=matrices(), sizes=st.tuples(*[st.integers(2, 50)] * 4))
def test_pixel_to_theta_and_back(align_corners, matrix, sizes):
    sizes = sizes[:2], sizes[2:]
    theta = pixel_to_theta(matrix, *sizes, align_corners=align_corners)
    assert_near(theta_to_pixel(theta, *sizes, align_corners=align_corners), matrix, 1e-11)


def test_sizes_are_height_then_width():
    # A shift by one pixel of a width of 4 is half a unit; of a height of 2, one.
    np.testing.assert_array_equal(
        pixel_to_theta(translation(1, 1), (2, 4), (2, 4)), [[1, 0, 0.5], [0, 1, 1]]
    )


def test_pixel_matrices_keep_dtype_and_gradient():
    theta = torch.eye(2, 3, dtype=torch.float32, requires_grad=True)
    matrix = theta_to_pixel(theta, (4, 4), (8, 8))
    assert matrix.dtype == torch.float32
    matrix[0, 2].backward()
    np.testing.assert_array_equal(theta.grad.numpy(), [[-1.75, -1.75, 2.0], [0, 0, 0]])


def warp_with_opencv(image, theta, size, align_corners):
    matrix = theta_to_pixel(theta, image.shape, size, align_corners=align_corners)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        image, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT
    )


@CORNERS
@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -2), (-3, 2), (0.5, 0.25)])
@pytest.mark.parametrize("size", [(6, 8), (4, 9)])
def test_opencv_agrees_on_translations(align_corners, shift, size):
    image = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    theta = pixel_to_theta(translation(*shift), image.shape, size, align_corners=align_corners)
    grid = stnlib.affine_grid(theta[None], size, align_corners=align_corners)
    output = stnlib.grid_sample(image[None, None], grid, align_corners=align_corners)[0, 0]
    assert_near(output, warp_with_opencv(image, theta, size, align_corners), 1e-6)  # float32


@pytest.mark.parametrize(
    ("align_corners", "size"),
    # Steps of whole 32nds of a pixel, which is what OpenCV resolves.
    [
        (False, (16, 8)),
        (False, (4, 16)),
        (False, (2, 32)),
        (True, (15, 8)),
        (True, (8, 29)),
        (True, (57, 15)),
    ],
)
def test_opencv_agrees_on_changes_of_size(align_corners, size):
    image = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    theta = np.eye(2, 3)
    grid = stnlib.affine_grid(theta[None], size, align_corners=align_corners)
    output = stnlib.grid_sample(image[None, None], grid, align_corners=align_corners)[0, 0]
    assert_near(output, warp_with_opencv(image, theta, size, align_corners), 1e-6)


# Boxes


@st.composite
def boxes(draw):
    """A size and a box of whole pixels in it."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    return (height, width), (x0, y0, x1, y1)


@CORNERS
@given(case=boxes())
def test_a_box_of_whole_numbers_is_a_slice(align_corners, case):
    size, (x0, y0, x1, y1) = case
    image = np.random.default_rng(0).random((1, 2, *size))
    theta = box_to_theta(np.array([[x0, y0, x1, y1]], float), size, align_corners=align_corners)
    grid = stnlib.affine_grid(theta, (y1 - y0, x1 - x0), align_corners=align_corners)
    output = stnlib.grid_sample(image, grid, align_corners=align_corners)
    assert_near(
        output, image[..., y0:y1, x0:x1], 1e-13
    )  # positions are off by an ulp or two of 12


@CORNERS
@given(case=boxes())
def test_theta_to_box_undoes_box_to_theta(align_corners, case):
    size, box = case
    box = np.array(box, float)
    theta = box_to_theta(box, size, align_corners=align_corners)
    assert_near(theta_to_box(theta, size, align_corners=align_corners), box, 1e-14)


@CORNERS
def test_the_whole_image_is_the_identity(align_corners):
    theta = box_to_theta(np.array([0.0, 0.0, 7.0, 5.0]), (5, 7), align_corners=align_corners)
    np.testing.assert_array_equal(theta, np.eye(2, 3))


def test_boxes_come_in_batches_and_on_torch():
    box = torch.tensor([[0.0, 0.0, 2.0, 4.0], [1.0, 1.0, 3.5, 2.5]], requires_grad=True)
    theta = box_to_theta(box, (4, 4))
    assert (theta.dtype, tuple(theta.shape)) == (torch.float32, (2, 2, 3))
    torch.testing.assert_close(theta_to_box(theta, (4, 4)), box, rtol=0, atol=1e-6)
    theta[..., 0, 2].sum().backward()
    np.testing.assert_array_equal(box.grad.numpy(), [[0.25, 0, 0.25, 0]] * 2)


# The family


def test_affine_family_starts_from_the_identity():
    family = Affine()
    theta = np.tile(family.identity(), (2, 1))
    assert family.num_parameters == theta.shape[1] == 6
    np.testing.assert_array_equal(family.matrix(theta), [np.eye(2, 3)] * 2)
    np.testing.assert_array_equal(
        family.grid(theta, (3, 4), align_corners=True),
        stnlib.affine_grid(family.matrix(theta), (3, 4), align_corners=True),
    )


def test_affine_parameters_are_the_entries_row_by_row():
    np.testing.assert_array_equal(
        Affine().matrix(np.arange(6.0)[None]), [[[0, 1, 2], [3, 4, 5]]]
    )


@CORNERS
def test_affine_grid_of_the_family_knows_align_corners(align_corners):
    grid = Affine().grid(Affine().identity()[None], (2, 3), align_corners=align_corners)
    np.testing.assert_allclose(
        grid[0, 0, :, 0], normalise(np.arange(3.0), 3, align_corners=align_corners), atol=1e-16
    )


def test_affine_family_says_its_name():
    assert repr(Affine()) == "Affine()"


def test_affine_identity_is_nobody_elses():
    Affine().identity()[:] = 7
    np.testing.assert_array_equal(Affine().identity(), [1, 0, 0, 0, 1, 0])


# What is refused, and in which words

MATRIX = np.eye(2, 3)
PROJECTIVE = np.array([[1.0, 0, 0], [0, 1, 0], [0.1, 0, 1]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: to_homogeneous(np.eye(3)),
            ValueError,
            "matrix: expected shape (..., 2, 3) or (..., 3, 4), got (3, 3)",
        ),
        (
            lambda: to_homogeneous(np.eye(2, 3, dtype=int)),
            TypeError,
            "matrix: expected float32 or float64, got int64",
        ),
        (
            lambda: to_homogeneous([[1.0, 0, 0], [0, 1, 0]]),
            TypeError,
            "matrix: expected a NumPy, CuPy or PyTorch array",
        ),
        (
            lambda: from_homogeneous(MATRIX),
            ValueError,
            "matrix: expected shape (..., 3, 3) or (..., 4, 4), got (2, 3)",
        ),
        (
            lambda: from_homogeneous(np.eye(3, dtype=int)),
            TypeError,
            "matrix: expected float32 or float64, got int64",
        ),
        (
            lambda: from_homogeneous(PROJECTIVE),
            ValueError,
            "matrix: expected a last row (0, 0, w) with w not 0, got a projective or singular matrix",
        ),
        (
            lambda: from_homogeneous(np.diag([1.0, 1.0, 0.0])),
            ValueError,
            "got a projective or singular matrix",
        ),
        (
            lambda: apply(np.eye(3), np.zeros((1, 2))),
            ValueError,
            "matrix: expected shape (..., 2, 3) or (..., 3, 4), got (3, 3)",
        ),
        (
            lambda: apply(MATRIX, np.zeros((1, 3))),
            ValueError,
            "points: expected shape (..., K, 2), got (1, 3)",
        ),
        (
            lambda: apply(MATRIX, np.zeros(2)),
            ValueError,
            "points: expected shape (..., K, 2), got (2,)",
        ),
        (
            lambda: apply(MATRIX, np.zeros((1, 2), int)),
            TypeError,
            "points: expected float64, as matrix is, got int64",
        ),
        (lambda: apply(MATRIX, torch.zeros(1, 2)), TypeError, "arrays of different libraries"),
        (
            lambda: apply(MATRIX, np.zeros((1, 2), np.float32)),
            TypeError,
            "points: expected float64",
        ),
        (compose, ValueError, "matrices: expected at least one matrix, got none"),
        (
            lambda: compose(MATRIX, np.eye(3)),
            ValueError,
            "matrices[1]: expected shape (..., 2, 3) or (..., 3, 4), got (3, 3)",
        ),
        (
            lambda: compose(MATRIX, torch.eye(2, 3)),
            TypeError,
            "arrays of different libraries: matrices[0] is a numpy",
        ),
        (
            lambda: compose(MATRIX, np.eye(2, 3, dtype=np.float32)),
            TypeError,
            "matrices[1]: expected float64",
        ),
        (
            lambda: inverse(np.eye(3)),
            ValueError,
            "matrix: expected shape (..., 2, 3) or (..., 3, 4), got (3, 3)",
        ),
        (
            lambda: inverse(np.stack([MATRIX, scale(1.0, 0.0)])),
            ValueError,
            "matrix: expected an invertible matrix, got one of determinant 0; no transform undoes it",
        ),
        (
            lambda: theta_to_pixel(np.eye(3), (4, 4), (4, 4)),
            ValueError,
            "theta: expected shape (..., 2, 3), got (3, 3)",
        ),
        (
            lambda: theta_to_pixel(MATRIX, (4,), (4, 4)),
            ValueError,
            "input_size: expected a height and a width, got",
        ),
        (
            lambda: theta_to_pixel(MATRIX, (4, 4), (0, 4)),
            ValueError,
            "output_size: expected a height and a width of at least 1, got (0, 4)",
        ),
        (
            lambda: pixel_to_theta(np.eye(3), (4, 4), (4, 4)),
            ValueError,
            "matrix: expected shape (..., 2, 3), got (3, 3)",
        ),
        (
            lambda: pixel_to_theta(MATRIX, (4, -1), (4, 4)),
            ValueError,
            "input_size: expected a height and a width",
        ),
        (
            lambda: pixel_to_theta(MATRIX, (4, 4), (1, 1, 4, 4)),
            ValueError,
            "output_size: expected a height and a width",
        ),
        (
            lambda: box_to_theta(np.zeros(3), (4, 4)),
            ValueError,
            "box: expected shape (..., 4), got (3,)",
        ),
        (
            lambda: box_to_theta(np.zeros(()), (4, 4)),
            ValueError,
            "box: expected shape (..., 4), got ()",
        ),
        (
            lambda: box_to_theta(np.zeros(4, int), (4, 4)),
            TypeError,
            "box: expected float32 or float64, got int64",
        ),
        (
            lambda: box_to_theta(np.array([2.0, 0.0, 2.0, 1.0]), (4, 4)),
            ValueError,
            "box: expected (x0, y0, x1, y1) with x0 < x1 and y0 < y1, got [2. 0. 2. 1.]",
        ),
        (
            lambda: box_to_theta(np.array([0.0, 3.0, 2.0, 1.0]), (4, 4)),
            ValueError,
            "got [0. 3. 2. 1.]",
        ),
        (
            lambda: box_to_theta(np.array([0.0, 0.0, 1.0, 1.0]), (0, 4)),
            ValueError,
            "input_size: expected a height and a width",
        ),
        (
            lambda: theta_to_box(np.eye(3), (4, 4)),
            ValueError,
            "theta: expected shape (..., 2, 3), got (3, 3)",
        ),
        (
            lambda: theta_to_box(rotation(0.1), (4, 4)),
            ValueError,
            "theta: expected a crop [[sx, 0, tx], [0, sy, ty]], got a rotation, a shear or a mirror image",
        ),
        (lambda: theta_to_box(scale(1.0, -1.0), (4, 4)), ValueError, "theta: expected a crop"),
        (lambda: theta_to_box(scale(-1.0, 1.0), (4, 4)), ValueError, "theta: expected a crop"),
        (lambda: theta_to_box(shear(0.0, 0.1), (4, 4)), ValueError, "theta: expected a crop"),
        (
            lambda: theta_to_box(MATRIX, (4, 0)),
            ValueError,
            "input_size: expected a height and a width of at least 1, got (4, 0)",
        ),
        (
            lambda: Affine().matrix(np.zeros(6)),
            ValueError,
            "theta: expected shape (N, 6), got (6,)",
        ),
        (
            lambda: Affine().grid(np.zeros((2, 5)), (4, 4)),
            ValueError,
            "theta: expected shape (N, 6), got (2, 5)",
        ),
        (
            lambda: Affine().matrix([1, 0, 0, 0, 1, 0]),
            TypeError,
            "theta: expected a NumPy, CuPy or PyTorch array",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)


def test_transforms_are_exported():
    assert stnlib.transforms is transforms


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: translation(np.ones(3), np.ones(4)), "got tx (3,), ty (4,)"),
        (
            lambda: compose(np.ones((2, 2, 3)), np.ones((3, 2, 3))),
            "got matrices[0] (2,), matrices[1] (3,)",
        ),
        (lambda: apply(np.ones((5, 2, 3)), np.ones((3, 7, 2))), "got matrix (5,), points (3,)"),
    ],
)
def test_leading_dimensions_that_do_not_broadcast_are_named(call, message):
    with pytest.raises(
        ValueError, match="expected leading dimensions that broadcast"
    ) as caught:
        call()
    assert message in str(caught.value)


def test_a_box_thinner_than_a_pixel_has_no_corner_centres():
    box = np.array([0.0, 0.0, 0.5, 2.0])
    assert box_to_theta(box, (4, 4)).shape == (2, 3)
    with pytest.raises(ValueError, match="sides of at least one pixel"):
        box_to_theta(box, (4, 4), align_corners=True)


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_box_with_nan_is_refused(align_corners):
    with pytest.raises(ValueError, match=r"box: expected .*nan"):
        box_to_theta(np.array([0.0, np.nan, 2.0, 2.0]), (4, 4), align_corners=align_corners)


def test_only_images_are_told_of_255():
    with pytest.raises(
        TypeError, match=r"tx: expected float32 or float64, got int64; convert it$"
    ):
        translation(np.array([1, 2]), 0)
