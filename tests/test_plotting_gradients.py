import itertools

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

import stnlib
from stnlib import transforms
from stnlib.plotting import BLUE, GREEN, RED, gradients

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def numbers(ax):
    return [float(text) for text in texts(ax) if not text.startswith("×")]


def lines(ax, marker):
    return [line for line in ax.lines if line.get_marker() == marker]


def test_chain_names_steps_forward_and_gradients_in_the_other_order():
    ax = gradients.show_chain().axes[0]
    place = {text.get_text(): text.get_position()[0] for text in ax.texts if text.get_text()}
    assert place["affine_grid"] < place["grid_sample"] < place["loss"]
    for step, gradient in zip(gradients.FORWARD, gradients.BACKWARD, strict=True):
        assert place[step] == place[gradient]
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None) is not None]
    forward = [a for a in arrows if a.xy[0] > a.xyann[0]]
    assert len(arrows) == 6
    assert len(forward) == 3
    assert all(a.xy[1] > 0 for a in forward)


def test_votes_are_minus_the_gradient_and_their_sum_points_to_where_the_image_lies():
    y, x = np.mgrid[:24, :24]
    target = np.exp(-((x - 11.5) ** 2 + (y - 11.5) ** 2) / 20)
    image = np.exp(-((x - 13.5) ** 2 + (y - 11.5) ** 2) / 20)  # two pixels too far to the right
    left, right = gradients.show_votes(image, target, length=3.0).axes
    np.testing.assert_array_equal(left.images[0].get_array(), image)
    votes, total = [c for c in right.collections if hasattr(c, "U")]
    at = {
        tuple(place): (u, v)
        for place, u, v in zip(votes.get_offsets(), votes.U, votes.V, strict=True)
    }
    assert at[8.0, 11.0][0] > 0  # too dark: towards the peak
    assert at[17.0, 11.0][0] > 0  # too bright: away from it
    assert np.hypot(votes.U, votes.V).max() == pytest.approx(3.0)
    assert total.U[0] > 0
    assert abs(total.V[0]) < 0.1 * total.U[0]
    grid = stnlib.affine_grid(np.eye(2, 3)[None], (24, 24))
    gradient = stnlib.grid_sample_vjp(
        (image - target)[None, None], image[None, None], grid
    ).grid
    u, v = at[(16.0, 12.0)]
    assert np.cross([u, v, 0], [*-gradient[0, 12, 16], 0])[2] == pytest.approx(0, abs=1e-9)
    assert u * gradient[0, 12, 16, 0] < 0


def test_gather_and_scatter_share_weights():
    pixels = np.array([[0.0, 16, 32, 0], [16, 48, 0, 16], [0, 0, 16, 32]])
    left, right = gradients.show_gather_and_scatter(pixels, 1.5, 0.25, 4.0).axes
    assert left.get_title() == "forward: gather, V = 24"
    assert (
        sorted(t for t in texts(left) if t.startswith("×")) == ["× 0.125"] * 2 + ["× 0.375"] * 2
    )
    expected = np.zeros((3, 4))
    expected[:2, 1:3] = [[1.5, 1.5], [0.5, 0.5]]
    shown = {t.get_position(): float(t.get_text()) for t in right.texts if t.get_text()}
    assert all(shown[column, row] == value for (row, column), value in np.ndenumerate(expected))
    for ax, inwards in ((left, True), (right, False)):
        arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None) is not None]
        assert len(arrows) == 4
        for arrow in arrows:
            near = arrow.xy if inwards else arrow.xyann
            assert tuple(near) == (1.5, 0.25)
        assert tuple(lines(ax, "o")[0].get_xydata()[0]) == (1.5, 0.25)


def test_row_shows_values_and_both_derivatives_of_each_knot():
    row = np.array([0.0, 3, 1, 5, 5])
    top, bottom = gradients.show_row(row).axes
    curve, dots = top.lines
    np.testing.assert_allclose(
        curve.get_ydata(),
        np.interp(curve.get_xdata(), np.arange(-1, 6), [0, *row, 0]),
        atol=1e-12,
    )
    np.testing.assert_array_equal(dots.get_xydata(), np.stack((np.arange(5), row), axis=1))
    right, left = bottom.lines
    np.testing.assert_array_equal(right.get_xdata(), np.arange(-1, 6))
    np.testing.assert_allclose(right.get_ydata(), [0, 3, -2, 4, 0, -5, 0], atol=1e-12)
    np.testing.assert_allclose(left.get_ydata(), [0, 0, 3, -2, 4, 0, -5], atol=1e-12)
    assert left.get_fillstyle() == "none"
    segments = bottom.collections[0].get_segments()
    assert all(a[0, 1] == a[1, 1] for a in segments)
    np.testing.assert_allclose(
        [a[0, 1] for a in segments], [0, 0, 3, -2, 4, 0, -5, 0], atol=1e-12
    )


def shade(patch):
    """What a patch takes from a white page, of red, green and blue."""
    *colour, alpha = patch.get_facecolor()
    return alpha * (1 - np.array(colour))


def test_adjoint_shows_three_tables_and_the_same_number_in_the_same_shade():
    tables = np.ones((2, 2)), np.array([[4.0, 0.5], [1.0, 0.0]]), np.array([[1.0, 0], [0, 0]])
    axes = gradients.show_adjoint(*tables).axes
    for ax, table in zip(axes, tables, strict=True):
        np.testing.assert_array_equal(numbers(ax), table.ravel())
    assert texts(axes[0])[0] == "1"
    assert texts(axes[1])[0] == "4.0"
    ones = [
        shade(ax.patches[i]) / (1 - np.array(to_rgb(colour)))
        for ax, i, colour in zip(axes, (0, 2, 0), (BLUE, GREEN, RED), strict=True)
    ]
    np.testing.assert_allclose(ones, ones[0][0])
    np.testing.assert_allclose(shade(axes[1].patches[0]), 4 * shade(axes[1].patches[2]))


def test_patterns_are_the_derivatives_of_the_grid():
    axes = gradients.show_patterns(5).axes
    theta = np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    start = stnlib.affine_grid(theta, (5, 5), align_corners=True)
    for entry, ax in enumerate(axes):
        assert rf"\theta_{{{entry // 3 + 1}{entry % 3 + 1}}}" in ax.get_title()
        moved = theta.copy()
        moved.flat[entry] += 0.28
        move = stnlib.affine_grid(moved, (5, 5), align_corners=True) - start
        arrows = ax.collections[0]
        np.testing.assert_allclose(
            np.asarray(arrows.get_offsets()), start.reshape(-1, 2), atol=1e-12
        )
        np.testing.assert_allclose(
            np.stack((arrows.U, arrows.V), axis=-1), move.reshape(-1, 2), atol=1e-12
        )


def test_basins_are_drawn_as_shares_with_their_ends():
    shifts = np.linspace(-4, 4, 9)
    losses = {"sharp": np.minimum(np.abs(shifts), 2), "blurred": 5 * np.abs(shifts)}
    ax = gradients.show_basins(shifts, losses, {"sharp": (-2, 2), "blurred": (-4, 4)}).axes[0]
    curves, ends = lines(ax, "None"), lines(ax, "o")
    assert [curve.get_label() for curve in curves] == ["sharp", "blurred"]
    for curve, loss in zip(curves, losses.values(), strict=True):
        np.testing.assert_allclose(curve.get_ydata(), loss / loss.max())
    np.testing.assert_allclose(ends[0].get_xydata(), [[-2, 1], [2, 1]])
    np.testing.assert_allclose(ends[1].get_xydata(), [[-4, 1], [4, 1]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["sharp", "blurred"]


def test_descents_start_at_dots_and_end_at_crosses():
    shifts = np.linspace(-3, 3, 7)
    bowl = shifts[:, None] ** 2 + 2 * shifts**2
    paths = RNG.uniform(-3, 3, (2, 4, 5, 2))
    figure = gradients.show_descents(shifts, [bowl, bowl], paths, ["one", "two"])
    for ax, descents, title in zip(figure.axes, paths, ("one", "two"), strict=True):
        assert ax.get_title() == title
        assert ax.yaxis_inverted()
        for shown, path in zip(lines(ax, "None"), descents, strict=True):
            np.testing.assert_array_equal(shown.get_xydata(), path)
        np.testing.assert_array_equal(
            [d.get_xydata()[0] for d in lines(ax, "o")], descents[:, 0]
        )
        np.testing.assert_array_equal(
            [d.get_xydata()[0] for d in lines(ax, "x")], descents[:, -1]
        )
        assert len(ax.collections) == 1


def test_film_shows_outputs_the_target_and_what_is_wrong():
    target = RNG.random((6, 6))
    brighter, darker = np.clip(target + 0.25, 0, None), target - 0.1
    figure = gradients.show_film([brighter, darker, target], target, ["a", "b", "c"])
    axes = np.array(figure.axes).reshape(2, 4)
    assert [ax.get_title() for ax in axes[0]] == ["a", "b", "c", "target"]
    np.testing.assert_array_equal(axes[0, 3].images[0].get_array(), target)
    colours = [ax.images[0].get_array() for ax in axes[1, :3]]
    np.testing.assert_allclose(colours[0][..., :3], np.broadcast_to(to_rgb(RED), (6, 6, 3)))
    np.testing.assert_allclose(colours[0][..., 3], 0.5)
    np.testing.assert_allclose(colours[1][..., :3], np.broadcast_to(to_rgb(BLUE), (6, 6, 3)))
    np.testing.assert_allclose(colours[1][..., 3], 0.2)
    assert not colours[2][..., 3].any()
    assert not axes[1, 3].images


def test_tangents_are_red_where_it_gets_brighter_and_blue_where_darker():
    image, tangent = RNG.random((6, 6)), np.ones((6, 6))
    tangent[2, 3], tangent[0, 0] = -0.5, 0.0
    figure = gradients.show_tangents(image, [tangent, 3 * tangent], ["turn", "shift"])
    assert [ax.get_title() for ax in figure.axes] == ["the output", "turn", "shift"]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), image)
    for ax in figure.axes[1:]:
        colours = ax.images[0].get_array()
        np.testing.assert_allclose(colours[1, 1], [*to_rgb(RED), 1.0])
        np.testing.assert_allclose(colours[2, 3], [*to_rgb(BLUE), 0.5])
        assert colours[0, 0, 3] == 0


def test_derivatives_are_those_of_the_curves():
    row = np.array([0.0, 3, 1, 5])
    axes = np.array(gradients.show_derivatives(row, ["bilinear", "bspline3"]).axes)
    for column, mode in zip(axes.reshape(3, 2).T, ("bilinear", "bspline3"), strict=True):
        assert column[0].get_title() == mode
        np.testing.assert_array_equal(column[0].lines[-1].get_xdata(), np.arange(4))
        np.testing.assert_array_equal(column[0].lines[-1].get_ydata(), row)
        for piece in range(3):
            curves = [ax.lines[piece] for ax in column]
            x, value = curves[0].get_data()
            assert (x[0], value[0]) == (piece, pytest.approx(row[piece]))
            for of, derivative in itertools.pairwise(curves):
                np.testing.assert_allclose(
                    np.gradient(of.get_ydata(), x)[1:-1],
                    derivative.get_ydata()[1:-1],
                    atol=1e-2,
                )
    np.testing.assert_allclose(axes[4].lines[1].get_ydata(), 0)


def test_races_are_drawn_down_to_the_floor():
    races = {
        "clear": {"slow": np.array([1.0, 0.5]), "fast": np.array([1.0, 1e-20, 1e-18])},
        "hazy": {"slow": np.array([2.0, 1.0]), "fast": np.array([2.0, -1e-19])},
    }
    figure = gradients.show_races(races)
    for ax, (title, curves) in zip(figure.axes, races.items(), strict=True):
        assert ax.get_title() == title
        assert ax.get_yscale() == "log"
        for line, (label, loss) in zip(ax.lines, curves.items(), strict=True):
            assert line.get_label() == label
            shown = line.get_ydata()
            np.testing.assert_array_equal(shown, np.maximum(loss[:2], 1e-16))
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["slow", "fast"]


def test_figures_fit_the_page_and_are_transparent():
    theta = transforms.scale(0.5)[None]
    image = stnlib.grid_sample(RNG.random((1, 1, 8, 8)), stnlib.affine_grid(theta, (8, 8)))[
        0, 0
    ]
    figures = [
        gradients.show_chain(),
        gradients.show_votes(image, image[::-1]),
        gradients.show_row(np.arange(4.0)),
        gradients.show_patterns(),
        gradients.show_film([image], image, ["a"]),
        gradients.show_tangents(image, [image], ["a"]),
        gradients.show_derivatives(np.arange(4.0), ["bicubic"]),
        gradients.show_races({"a": {"b": np.array([1.0, 0.1])}}),
    ]
    assert all(figure.get_size_inches()[0] <= 8 for figure in figures)
    smallest = min(
        t.get_fontsize() for f in figures for ax in f.axes for t in [*ax.texts, ax.title]
    )
    assert smallest >= 9
