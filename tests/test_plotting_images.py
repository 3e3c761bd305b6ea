import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb, to_rgba

import stnlib
from stnlib import plotting, transforms

COLOURS = {name: getattr(plotting, name) for name in ("BLUE", "RED", "GREEN", "PURPLE", "GREY")}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.figure().add_subplot()


def _luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    channels = np.array(to_rgb(colour))
    linear = np.where(
        channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
    )
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_black_on_white_is_known():
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
@pytest.mark.parametrize("name", COLOURS)
def test_colours_stand_out_from_a_light_and_a_dark_page(name, page):
    assert _contrast(COLOURS[name], page) >= 3


def test_colours_differ():
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_style_is_transparent_and_in_the_palette():
    with mpl.rc_context():
        plotting.use_style()
        figure, ax = plt.subplots()
        assert to_rgba(figure.get_facecolor())[3] == 0
        assert to_rgba(ax.get_facecolor())[3] == 0
        assert to_rgba(mpl.rcParams["savefig.facecolor"])[3] == 0
        lines = [ax.plot([0, 1])[0] for _ in range(5)]
        assert {line.get_color() for line in lines} == set(COLOURS.values())
        assert lines[0].get_color() == plotting.BLUE
        for text in (
            ax.title,
            ax.xaxis.label,
            ax.yaxis.label,
            ax.xaxis.get_ticklabels()[0],
            ax.text(0, 0, "here"),
        ):
            assert text.get_color() == plotting.GREY
        assert not ax.spines["top"].get_visible()
        assert mpl.rcParams["font.size"] >= 9


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3)])
def test_show_image_draws_a_grey_image_as_it_is(ax, shape):
    image = np.linspace(0, 1, 6).reshape(shape)
    plotting.show_image(ax, image, "six")
    np.testing.assert_array_equal(ax.images[0].get_array(), image.reshape(2, 3))
    assert ax.images[0].get_clim() == (0, 1)
    assert ax.get_title() == "six"
    assert ax.get_xticks().size == ax.get_yticks().size == 0


def test_show_image_draws_colours(ax):
    image = np.linspace(0, 1, 18).reshape(3, 2, 3)
    plotting.show_image(ax, image)
    np.testing.assert_array_equal(ax.images[0].get_array(), image.transpose(1, 2, 0))


def test_show_image_clips_to_its_limits(ax):
    plotting.show_image(ax, np.array([[-5.0, 0.5], [1.5, 9.0]]), vmin=0.0, vmax=2.0)
    np.testing.assert_array_equal(ax.images[0].get_array(), [[0.0, 0.5], [1.5, 2.0]])
    assert ax.images[0].get_clim() == (0, 2)


def test_frame_draws_all_four_sides(ax):
    plotting.frame(ax, plotting.RED, 2.5)
    for side in ("top", "right", "bottom", "left"):
        assert ax.spines[side].get_visible()
        assert ax.spines[side].get_edgecolor() == to_rgba(plotting.RED)
        assert ax.spines[side].get_linewidth() == 2.5


def test_show_images_stand_side_by_side_with_their_titles():
    images = [np.full((2, 2), value) for value in (0.0, 0.5, 1.0)]
    figure = plotting.show_images(images, ["a", "b"])
    assert [ax.images[0].get_array()[0, 0] for ax in figure.axes] == [0.0, 0.5, 1.0]
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", ""]
    left = [ax.get_subplotspec().colspan.start for ax in figure.axes]
    assert left == [0, 1, 2]


def test_show_images_break_into_rows_and_leave_the_rest_empty():
    figure = plotting.show_images([np.zeros((2, 2))] * 5, columns=3, size=1.0)
    assert len(figure.axes) == 6
    assert [bool(ax.images) for ax in figure.axes] == [True] * 5 + [False]
    assert not figure.axes[5].axison
    assert figure.get_size_inches().tolist() == [3.0, 2.0]


def test_show_values_writes_each_value_in_its_square(ax):
    values = np.array([[0.0, 1.25, -2.5], [5.0, 2.0, 0.5]])
    plotting.show_values(ax, values, "table", digits=2)
    written = {text.get_position(): text.get_text() for text in ax.texts}
    assert written == {(c, r): f"{values[r, c]:.2f}" for r in range(2) for c in range(3)}
    squares = {patch.get_xy(): patch for patch in ax.patches}
    assert set(squares) == {(c - 0.5, r - 0.5) for r in range(2) for c in range(3)}
    for (column, row), patch in squares.items():
        value = values[int(row + 0.5), int(column + 0.5)]
        *colour, alpha = patch.get_facecolor()
        shade = alpha * (1 - np.array(colour))  # what it takes from a white page
        np.testing.assert_allclose(
            shade, 0.75 * abs(value) / 5 * (1 - np.array(to_rgb(plotting.BLUE)))
        )
    assert ax.get_title() == "table"
    assert ax.get_xlim() == (-0.5, 2.5)
    assert ax.get_ylim() == (1.5, -0.5)


def test_show_values_bears_nothing_but_zeros_and_nan(ax):
    plotting.show_values(ax, np.array([[0.0, np.nan]]))
    assert [text.get_text() for text in ax.texts] == ["0", "nan"]
    assert [patch.get_facecolor()[3] for patch in ax.patches] == [0, 0]


@pytest.mark.parametrize("align_corners", [False, True])
def test_identity_grid_runs_through_the_pixels_centres(ax, align_corners):
    grid = stnlib.affine_grid(transforms.scale(1.0)[None], (5, 7), align_corners=align_corners)[
        0
    ]
    plotting.draw_grid(ax, grid, (5, 7), align_corners=align_corners, lines=3)
    *lines, corner = ax.lines
    rows, columns = lines[:3], lines[3:]
    for line, y in zip(rows, (0, 2, 4), strict=True):
        np.testing.assert_allclose(line.get_xdata(), np.arange(7), atol=1e-12)
        np.testing.assert_allclose(line.get_ydata(), y, atol=1e-12)
    for line, x in zip(columns, (0, 3, 6), strict=True):
        np.testing.assert_allclose(line.get_xdata(), x, atol=1e-12)
        np.testing.assert_allclose(line.get_ydata(), np.arange(5), atol=1e-12)
    np.testing.assert_allclose(corner.get_xydata(), [[0, 0]], atol=1e-12)
    assert {line.get_color() for line in ax.lines} == {plotting.RED}


def test_grid_of_a_larger_output_is_as_dense_but_lies_on_the_input(ax):
    grid = stnlib.affine_grid(transforms.scale(0.5)[None], (9, 9))[0]
    plotting.draw_grid(ax, grid, (4, 8), colour=plotting.BLUE)
    assert len(ax.lines) == 19
    first, last = ax.lines[0], ax.lines[8]
    # The output's 9 centres span -8/9 to 8/9; half of that, in pixels of an input 8 wide and 4 high.
    np.testing.assert_allclose(first.get_xdata()[[0, -1]], [3.5 - 16 / 9, 3.5 + 16 / 9])
    np.testing.assert_allclose(
        [first.get_ydata()[0], last.get_ydata()[0]], [1.5 - 8 / 9, 1.5 + 8 / 9]
    )
    assert first.get_color() == plotting.BLUE


def test_show_warp_shows_input_grid_and_output():
    image = np.arange(16.0).reshape(1, 4, 4) / 15
    theta = transforms.translation(0.5, 0.0)  # one pixel of four to the right
    figure = plotting.show_warp(image, theta, titles=("before", "after"))
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("before", "after")
    np.testing.assert_array_equal(left.images[0].get_array(), image[0])
    shifted = np.concatenate([image[0, :, 1:], np.zeros((4, 1))], axis=1)
    np.testing.assert_allclose(right.images[0].get_array(), shifted, atol=1e-12)
    np.testing.assert_allclose(left.lines[0].get_xdata(), [1, 2, 3, 4], atol=1e-12)
    assert right.spines["top"].get_edgecolor() == to_rgba(plotting.RED)


def test_show_warp_widens_its_view_to_hold_the_whole_grid():
    figure = plotting.show_warp(np.ones((1, 4, 4)), transforms.translation(2.0, -2.0))
    left, _ = figure.axes
    low, high = left.get_xlim()
    assert low == -0.5
    assert high > 7  # the last column is read four pixels to the right
    bottom, top = left.get_ylim()
    assert bottom == 3.5
    assert top < -4


def test_show_warp_takes_a_size_and_the_samplers_options():
    figure = plotting.show_warp(
        np.ones((1, 4, 4)),
        transforms.scale(3.0),
        (6, 5),
        align_corners=True,
        padding_mode="border",
    )
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), np.ones((6, 5)))
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata()[[0, -1]], [-3, 6])


def double(number: int) -> int:
    """Return twice a number.

    Parameters
    ----------
    number : int
    """
    text = """kept

    whole"""
    return 2 * number if text else 0  # kept too


class Pair:
    """Two things."""

    def swap(self):
        """Swap them.

        Both.
        """
        return self


def test_show_source_keeps_the_code_and_cuts_docstrings():
    shown = plotting.show_source(double, Pair).data
    assert shown.startswith("```python\ndef double(number: int) -> int:\n")
    assert shown.endswith("\n```")
    assert (
        '    """Return twice a number."""\n    text = """kept\n\n    whole"""\n    return 2 * number'
        in shown
    )
    assert "# kept too" in shown
    assert "Parameters" not in shown
    assert '"""Two things."""' in shown
    assert '        """Swap them."""\n        return self' in shown
    assert "Both" not in shown


def test_show_source_takes_methods():
    assert plotting.show_source(Pair.swap).data.startswith("```python\ndef swap(self):\n")


@pytest.mark.parametrize(
    "function", [stnlib.affine_grid, stnlib.grid_sample, stnlib.grid_sample_vjp]
)
def test_source_that_the_book_shows_still_compiles_and_is_short(function):
    shown = plotting.show_source(function).data
    compile(shown.removeprefix("```python\n").removesuffix("\n```"), "shown", "exec")
    assert shown.count("\n") < 60
