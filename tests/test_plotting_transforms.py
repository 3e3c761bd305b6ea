import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from stnlib import transforms
from stnlib.plotting import transforms as figures

mpl.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_a_shape_is_drawn_before_and_after_with_the_matrix_s_columns_as_arrows():
    _, ax = plt.subplots()
    figures.draw_shape(ax, transforms.affine(2.0, 0.5, 1.0, 0.0, 3.0, -1.0), "title")
    before, after = ax.patches
    np.testing.assert_allclose(before.get_xy()[:-1], figures.LETTER)
    np.testing.assert_allclose(after.get_xy()[1], [2 * 1 + 1, -1])  # the letter's corner (1, 0)
    assert [tuple(a.xy) for a in ax.texts] == [(3.0, -1.0), (1.5, 2.0)]
    assert ax.get_title() == "title"


def test_y_points_down():
    figure = figures.show_shapes([transforms.scale(1.0)], ["one"], columns=1)
    low, high = figure.axes[0].get_ylim()
    assert low > high


def test_shapes_fill_rows_and_leave_the_rest_empty():
    figure = figures.show_shapes([transforms.scale(1.0)] * 3, ["a", "b", "c"], columns=2)
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "c", ""]
    assert not figure.axes[3].axison


def test_a_chain_takes_one_row():
    step = transforms.translation(1.0, 0.0)
    figure = figures.show_chain([[step, step], [step, step]], list("abcd"))
    tops = [round(ax.get_position().y1, 3) for ax in figure.axes]
    assert tops[0] == tops[1] > tops[2] == tops[3]


def _directions(ax, lines):
    """Directions of the drawn (not dotted) lines along one family, as unit vectors."""
    solid = [line for line in ax.lines if line.get_linestyle() == "-"][lines]
    ends = np.array(
        [
            [
                line.get_xdata()[-1] - line.get_xdata()[0],
                line.get_ydata()[-1] - line.get_ydata()[0],
            ]
            for line in solid
        ]
    )
    return ends / np.linalg.norm(ends, axis=1, keepdims=True)


def test_parallels_stay_parallel_up_to_affine_and_not_beyond():
    figure = figures.hierarchy()
    for ax in figure.axes:
        spread = np.abs(
            _directions(ax, slice(None, None, 2)) - _directions(ax, slice(None, None, 2))[0]
        ).max()
        assert (spread > 0.1) == ax.get_title().startswith("projective")


def test_the_hierarchy_counts_its_free_numbers():
    titles = [ax.get_title().split("\n") for ax in figures.hierarchy().axes]
    assert titles == [
        ["translation", "2"],
        ["rigid", "3"],
        ["similarity", "4"],
        ["affine", "6"],
        ["projective", "8"],
    ]


def test_conventions_mark_centres_and_edges():
    centres, edges = figures.coordinate_conventions(4).axes
    marks = [
        {
            text.get_text(): text.get_position()[0]
            for text in ax.texts
            if text.get_position()[1] < 0
        }
        for ax in (centres, edges)
    ]
    assert marks[0] == {"-1": 0.0, "0": 1.5, "1": 3.0}
    assert marks[1] == {"-1": -0.5, "0": 1.5, "1": 3.5}
