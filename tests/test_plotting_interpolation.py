"""What the figures of chapter 2 show, read from their lines, rectangles and texts."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import same_color, to_rgb
from matplotlib.patches import Polygon, Rectangle

import stnlib
from stnlib import interpolation
from stnlib.plotting import BLUE, GREEN, PURPLE, RED, use_style
from stnlib.plotting import interpolation as figures


@pytest.fixture(autouse=True)
def _figures_are_closed():
    with mpl.rc_context():
        use_style()
        yield
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def points(ax, colour, marker="o"):
    """Positions of the single dots in one colour."""
    return [
        tuple(np.ravel(line.get_xydata()))
        for line in ax.lines
        if line.get_marker() == marker and same_color(line.get_color(), colour)
    ]


def test_positions_lie_where_the_grid_reads():
    rng = np.random.default_rng(0)
    grid = rng.uniform(-1, 1, (3, 4, 2))
    whole, part = figures.show_positions(rng.random((10, 12)), grid, window=(2, 3, 5, 6)).axes
    expected = np.stack(
        [stnlib.unnormalise(grid[..., 0], 12), stnlib.unnormalise(grid[..., 1], 10)], -1
    )
    for ax in (whole, part):
        assert np.allclose(ax.lines[0].get_xydata(), expected.reshape(-1, 2))
    crosses = {tuple(centre) for centre in part.lines[1].get_xydata()}
    assert crosses == {(x, y) for x in range(2, 6) for y in range(3, 7)}
    assert part.get_xlim() == (1.5, 5.5)
    assert part.get_ylim() == (6.5, 2.5)  # rows are counted from the top
    (box,) = (patch for patch in whole.patches if isinstance(patch, Rectangle))
    assert box.get_bbox().bounds == (1.5, 2.5, 4, 4)


def test_a_row_is_read_on_the_line_between_two_pixels():
    (ax,) = figures.show_row([2, 6, 3, 7, 5], 1.25).axes
    assert points(ax, RED) == [(1.25, 5.25)]
    assert [patch.get_height() for patch in ax.patches[:5]] == [2, 6, 3, 7, 5]
    shown = {text.get_text(): text.get_position() for text in ax.texts}
    assert shown["a"][0] == 1.125  # in the middle between pixel 1 and the position
    assert shown["1 − a"][0] == 1.745  # beside the middle: clear of the bar's edge at 1.5
    assert "5.25" in shown


def test_each_weight_is_the_area_of_the_opposite_rectangle_in_the_colour_of_its_corner():
    (ax,) = figures.show_weights(0.4, 0.3).axes
    corners = [(line.get_xydata()[0], line.get_color()) for line in ax.lines[:4]]
    rectangles = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    for (corner, colour), patch, expected in zip(
        corners, rectangles, (0.42, 0.28, 0.18, 0.12), strict=True
    ):
        assert to_rgb(patch.get_facecolor()) == to_rgb(colour)
        assert patch.get_width() * patch.get_height() == pytest.approx(expected)
        assert f"{expected:.2f}" in texts(ax)
        middle = np.array(patch.get_center())
        assert (
            (middle - (0.4, 0.3)) * (corner - (0.4, 0.3)) < 0
        ).all()  # on the other side, along both axes
    assert tuple(ax.lines[4].get_xydata()[0]) == (0.4, 0.3)


def test_both_orders_end_at_the_same_value():
    left, right = figures.show_orders(
        np.array([[10.0, 30.0], [50.0, 20.0]]), a=0.25, b=0.5
    ).axes
    assert {"15", "42.5", "28.75"} <= set(texts(left))
    assert {"30", "25", "28.75"} <= set(texts(right))
    for ax in (left, right):
        assert points(ax, GREEN) == [(0.25, 0.5)]
    assert left.lines[0].get_xydata().tolist() == [[0.25, 0], [0.25, 1]]
    assert right.lines[0].get_xydata().tolist() == [[0, 0.5], [1, 0.5]]


def test_the_surface_passes_through_the_pixels_and_only_bilinear_has_level_lines():
    values = np.array([[0.0, 7.0, 2.0], [8.0, 3.0, 9.0]])
    nearest, bilinear = figures.show_surface(values, levels=[2.5, 5.5], steps=10).axes
    for ax in (nearest, bilinear):
        read = ax.collections[0].get_array()
        assert read.shape == (11, 21)
        assert np.allclose(read[::10, ::10], values)
    assert set(np.unique(nearest.collections[0].get_array().round(9))) == set(values.ravel())
    assert bilinear.collections[0].get_array()[5, 5] == pytest.approx(4.5)  # the mean of four
    assert len(nearest.collections) == 1
    assert bilinear.collections[1].levels.tolist() == [2.5, 5.5]


def test_kernels_are_a_box_and_a_hat():
    nearest, bilinear = figures.show_kernels().axes
    assert (nearest.get_title(), bilinear.get_title()) == ("nearest", "bilinear")
    box, hat = nearest.lines[0].get_xydata(), bilinear.lines[0].get_xydata()
    assert np.trapezoid(box[:, 1], box[:, 0]) == np.trapezoid(hat[:, 1], hat[:, 0]) == 1
    assert box[box[:, 1] == 1][:, 0].tolist() == [-0.5, 0.5]
    assert hat[hat[:, 1] == 1][:, 0].tolist() == [0]
    assert hat[1:-1][hat[1:-1, 1] == 0][:, 0].tolist() == [-1, 1]


def test_the_sum_of_the_hats_is_the_interpolated_row():
    row = [2.0, 6.0, 3.0]
    (ax,) = figures.show_hats(row).axes
    *hats, total, dots = ax.lines
    assert [line.get_ydata().max() for line in hats] == row
    x = total.get_xdata()
    assert np.allclose(total.get_ydata(), np.interp(x, [-1, 0, 1, 2, 3], [0, *row, 0]))
    assert dots.get_ydata().tolist() == row


def test_padding_rows_by_hand():
    axes = figures.show_padding([2, 6, 3, 7], beyond=3, fill_value=4).axes
    rows = {ax.get_title(loc="left"): ax for ax in axes}
    by_hand = {
        "zeros": [0, 0, 0, 2, 6, 3, 7, 0, 0, 0],
        "fill, fill_value=4": [4, 4, 4, 2, 6, 3, 7, 4, 4, 4],
        "border": [2, 2, 2, 2, 6, 3, 7, 7, 7, 7],
        "reflection, align_corners=True": [7, 3, 6, 2, 6, 3, 7, 3, 6, 2],
        "reflection, align_corners=False": [3, 6, 2, 2, 6, 3, 7, 7, 3, 6],
        "mirror": [7, 3, 6, 2, 6, 3, 7, 3, 6, 2],
        "wrap": [6, 3, 7, 2, 6, 3, 7, 2, 6, 3],
    }
    assert rows.keys() == by_hand.keys()
    for title, ax in rows.items():
        assert np.allclose([bar.get_height() for bar in ax.patches], by_hand[title])
        inside = [same_color(to_rgb(bar.get_facecolor()), BLUE) for bar in ax.patches]
        assert inside == [False] * 3 + [True] * 4 + [False] * 3
        x, y = ax.lines[0].get_data()
        assert np.allclose(y, np.interp(x, np.arange(-3, 7), by_hand[title]))
    lines = {
        title: [line.get_xdata()[0] for line in ax.lines[1:]] for title, ax in rows.items()
    }
    assert lines["zeros"] == lines["fill, fill_value=4"] == lines["border"] == []
    assert lines["reflection, align_corners=True"] == lines["mirror"] == [0, 3]
    assert lines["reflection, align_corners=False"] == lines["wrap"] == [-0.5, 3.5]
    assert same_color(rows["mirror"].lines[1].get_color(), GREEN)
    assert same_color(rows["wrap"].lines[1].get_color(), PURPLE)  # a seam is no mirror


KERNELS = {
    "bilinear": interpolation.Bilinear(),
    "bicubic": interpolation.Bicubic(),
    "spline": interpolation.BSpline(3),
    "gaussian": interpolation.Gaussian(),
    "lanczos": interpolation.Lanczos(),
}


def test_gallery_shows_the_kernel_its_slope_and_the_weights_of_one_sample():
    axes = [ax for ax in figures.show_gallery(KERNELS).axes if ax.axison]
    assert len(axes) == 2 * len(KERNELS)
    curves = {ax.get_title(): ax for ax in axes if ax.get_title()}
    boards = {ax.get_title(): below for ax, below in _pairs(axes)}
    assert curves.keys() == KERNELS.keys()
    for name, ax in curves.items():
        slope, value, _ = ax.lines
        assert same_color(slope.get_color(), RED)
        assert same_color(value.get_color(), BLUE)
        d, k = value.get_data()
        whole = np.abs(d - d.round()) < 1e-9
        if name != "gaussian":  # 1 at the pixel itself, 0 at every other
            assert np.allclose(k[whole], np.abs(d[whole]) < 0.5, atol=1e-9)
        assert np.allclose(
            np.gradient(k, d)[100:-100:7], slope.get_ydata()[100:-100:7], atol=0.06
        ) or (name == "bilinear")
        squares = [patch for patch in boards[name].patches if isinstance(patch, Rectangle)]
        assert len(squares) == 64
    d, k = curves["bicubic"].lines[1].get_data()
    near = np.abs(d) <= 2
    expected = interpolation.Bicubic().value(d[near], np)
    assert np.allclose(k[near], expected)
    assert np.allclose(k[~near], 0)


def _pairs(axes):
    """Each titled axes with the one right below it."""
    for ax in axes:
        if ax.get_title():
            spec = ax.get_subplotspec()
            below = [
                other
                for other in axes
                if other.get_subplotspec().rowspan.start == spec.rowspan.start + 1
                and other.get_subplotspec().colspan == spec.colspan
            ]
            yield ax, *below


def test_gallery_colours_the_four_bilinear_neighbours_by_their_weights():
    _, board = (
        ax for ax in figures.show_gallery({"hat": interpolation.Bilinear()}).axes if ax.axison
    )
    shares = {patch.get_xy(): patch.get_facecolor()[3] for patch in board.patches}
    seen = {xy: share for xy, share in shares.items() if share > 0.001}
    weights = {(2.5, 2.5): 0.42, (3.5, 2.5): 0.18, (2.5, 3.5): 0.28, (3.5, 3.5): 0.12}
    assert seen == pytest.approx({xy: (w / 0.42) ** 0.5 for xy, w in weights.items()})
    assert tuple(board.lines[0].get_xydata()[0]) == (3.3, 3.4)


def test_negative_weights_are_red():
    _, board = (
        ax for ax in figures.show_gallery({"cubic": interpolation.Bicubic()}).axes if ax.axison
    )
    colours = {patch.get_xy(): to_rgb(patch.get_facecolor()) for patch in board.patches}
    assert same_color(colours[2.5, 2.5], BLUE)
    assert same_color(colours[1.5, 2.5], RED)
    assert same_color(colours[1.5, 1.5], BLUE)  # negative times negative


def test_edge_and_ramp():
    axes = [ax for ax in figures.show_edge_and_ramp(KERNELS).axes if ax.axison]
    for name, (upper, lower) in zip(KERNELS, _pairs(axes), strict=True):
        (curve,) = (line for line in upper.lines if same_color(line.get_color(), BLUE))
        highest = curve.get_ydata().max()
        assert (highest > 1.05) == (name in {"bicubic", "spline", "lanczos"})
        x, y = curve.get_data()
        assert np.interp(0, x, y) == pytest.approx(0.5)  # halfway, between the two pixels
        (off,) = (line for line in lower.lines if same_color(line.get_color(), RED))
        exact = np.abs(off.get_ydata()).max() < 1e-9
        assert exact == (name in {"bilinear", "spline"})


def test_the_spline_passes_through_the_pixels_only_with_the_prefilters_heights():
    row, kernel = [2.0, 6.0, 3.0, 7.0, 5.0], interpolation.BSpline(3)
    left, right = figures.show_spline(row, kernel).axes
    sums = []
    for ax in (left, right):
        (total,) = (line for line in ax.lines if line.get_linewidth() == 3)
        assert total.get_xdata()[::30].tolist() == [0, 1, 2, 3, 4]
        sums.append(total.get_ydata()[::30])
        *_, heights, dots = ax.lines
        assert dots.get_ydata().tolist() == row
        if ax is left:
            assert heights.get_ydata().tolist() == row
    blurred = np.convolve([6, *row, 7], [1 / 6, 4 / 6, 1 / 6], "valid")
    assert np.allclose(sums[0], blurred)
    assert np.allclose(sums[1], row)


def test_the_shirt_has_stripes_that_a_quarter_of_the_size_cannot_hold():
    shirt = figures.striped_shirt(240)
    assert shirt.shape == (1, 240, 240)
    assert 0 <= shirt.min() < 0.2
    assert 0.8 < shirt.max() <= 1
    assert np.ptp(shirt[0, :20]) == 0  # plain around it
    middle = shirt[0, 150, 80:160] - shirt[0, 150, 80:160].mean()
    loudest = np.abs(np.fft.rfft(middle)).argmax() / 80  # turns a pixel
    assert 1 / 8 < loudest < 1 / 2


def test_footprints_are_parallelograms_of_the_steps_around_the_positions():
    x, y = np.meshgrid(4.0 + 2 * np.arange(4), 5.0 + 3 * np.arange(3))
    figure = figures.show_footprints(np.zeros((20, 20)), {"smaller": np.stack([x, y], -1)})
    (ax,) = figure.axes
    assert ax.get_title() == "smaller"
    polygons = [patch for patch in ax.patches if isinstance(patch, Polygon)]
    assert len(polygons) == 12
    assert polygons[0].get_xy()[:4].tolist() == [[3, 3.5], [5, 3.5], [5, 6.5], [3, 6.5]]
    assert polygons[1].get_xy()[0].tolist() == [5, 3.5]  # they lie side by side
    dots = ax.collections[0].get_offsets()
    assert len(dots) == 12 * 5 * 7  # cells of half a pixel, from the middle outwards
    assert dots[:, 0].min() > 3
    assert dots[:, 1].max() < 12.5
    assert ax.get_xlim() == (-0.5, 19.5)


def test_a_footprint_that_does_not_shrink_is_one_sample():
    x, y = np.meshgrid(np.arange(3.0), np.arange(3.0))
    (ax,) = figures.show_footprints(np.zeros((3, 3)), {"same": np.stack([x, y], -1)}).axes
    assert sorted(map(tuple, ax.collections[0].get_offsets())) == sorted(
        zip(x.ravel(), y.ravel(), strict=True)
    )


def test_curves_are_named_and_the_right_one_lies_behind():
    x = np.arange(3.0)
    figure = figures.show_curves(
        x, {"right": x, "wrong": 2 * x}, xlabel="place", ylabel="error"
    )
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.lines] == ["right", "wrong"]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0, 1, 2], [0, 2, 4]]
    assert ax.lines[0].get_linewidth() > ax.lines[1].get_linewidth()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("place", "error")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["right", "wrong"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.show_row([1, 2, 3], 0.5),
        lambda: figures.show_weights(0.5, 0.5),
        figures.show_kernels,
        lambda: figures.show_padding([1, 2], beyond=1, fill_value=1),
        lambda: figures.show_gallery(KERNELS),
        lambda: figures.show_edge_and_ramp(KERNELS),
        lambda: figures.show_spline([1, 2, 3], KERNELS["spline"]),
        lambda: figures.show_footprints(np.zeros((3, 3)), {"one": np.zeros((1, 1, 2))}),
    ],
)
def test_figures_are_transparent_and_at_most_eight_inches_wide_with_text_of_nine_points(draw):
    figure = draw()
    assert figure.get_facecolor()[3] == 0
    assert figure.get_figwidth() <= 8
    for text in figure.findobj(mpl.text.Text):
        assert text.get_fontsize() >= 9
