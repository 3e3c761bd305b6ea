import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb

from stnlib import transforms
from stnlib.coordinates import regular_grid
from stnlib.plotting import GREEN, RED
from stnlib.plotting import families as figures

TPS = transforms.ThinPlateSpline(4, 4)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(0.2, 0.8, (17, 33))


def test_lines_are_drawn_where_they_belong(image):
    picture = figures.with_lines(image, 3)
    assert picture.shape == (3, 17, 33)
    on = np.allclose(picture[:, [0, 8, 16]], np.array(to_rgb(RED))[:, None, None])
    assert on
    inside = np.delete(np.delete(picture, [0, 8, 16], 1), [0, 16, 32], 2)
    np.testing.assert_array_equal(
        inside[0], np.delete(np.delete(image, [0, 8, 16], 0), [0, 16, 32], 1)
    )


def test_warp_by_the_identity_changes_nothing(image):
    np.testing.assert_allclose(
        figures.warp(image[None], TPS, TPS.identity())[0], image, atol=1e-12
    )


def test_warp_reads_where_the_family_says(image):
    shift = np.array([2 * 3 / 33, 0.0])  # three pixels to the right
    moved = figures.warp(image[None], transforms.Translation(), shift)[0]
    np.testing.assert_allclose(moved[:, :-3], image[:, 3:], atol=1e-12)


def test_every_family_gets_a_picture_with_its_name(image):
    warps = {name: (TPS, TPS.identity()) for name in ("one", "two", "three", "four", "five")}
    axes = figures.show_families(image, warps, columns=3).axes
    assert [ax.get_title() for ax in axes if ax.images] == list(warps)
    assert len(axes) == 6


def test_a_strip_has_a_row_a_parameter_and_the_identity_in_the_middle(image):
    family = transforms.Translation()
    rows = {"x": (family, np.array([1.0, 0.0])), "y": (family, np.array([0.0, 1.0]))}
    axes = figures.show_strips(image, rows, (-0.5, 0.0, 0.5)).axes
    assert len(axes) == 6
    assert [ax.get_title() for ax in axes[:3]] == ["\N{MINUS SIGN}0.5", "0", "0.5"]
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["x", "y"]
    middle = np.asarray(axes[1].images[0].get_array())
    np.testing.assert_allclose(middle, np.moveaxis(figures.with_lines(image), 0, -1))
    left = np.asarray(axes[0].images[0].get_array())
    assert not np.allclose(left, middle)


def test_the_horizon_is_drawn_where_the_denominator_is_zero():
    theta = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.5])
    (ax,) = figures.show_horizon(transforms.Projective(), theta).axes
    (line,) = [
        c for c in ax.collections if len(c.get_edgecolor()) and c.get_linewidth()[0] == 2
    ]
    y = np.concatenate([path.vertices[:, 1] for path in line.get_paths()])
    np.testing.assert_allclose(y, -2, atol=1e-6)


def test_influence_is_one_at_the_control_point():
    mesh = transforms.PiecewiseAffine(3, 3)
    figure = figures.show_influence({"mesh": mesh}, {"mesh": 4}, (9, 9))
    ax = figure.axes[0]
    shown = np.asarray(ax.images[0].get_array())
    assert shown[4, 4] == pytest.approx(1)
    assert shown[0, 8] == pytest.approx(0)
    assert len(ax.lines[0].get_xdata()) == 9


def test_bending_shows_the_curve_and_the_plate():
    r = np.linspace(0, 1, 5)
    left, right = figures.show_bending(r, r**2, np.zeros((4, 6))).axes
    np.testing.assert_array_equal(left.lines[1].get_ydata(), r**2)
    assert right.name == "3d"


def test_cells_that_are_turned_over_are_red():
    grid = regular_grid((4, 4))
    bent = grid.copy()
    bent[1, 1, 0] += 1.5  # past its neighbour
    plain, folded = figures.show_lattices({"plain": grid, "folded": bent}).axes[:2]
    assert not plain.patches
    assert len(folded.patches) == figures.folded(bent).sum() > 0


@pytest.mark.parametrize("shift", [0.4, 0.49, 0.51, 0.6])
def test_a_fold_is_seen_when_a_point_passes_its_neighbour(shift):
    grid = regular_grid((4, 4))
    grid[:, 1, 0] += shift  # columns are 0.5 apart
    assert figures.folded(grid).any() == (shift > 0.5)


def test_residuals_are_green_below_the_threshold():
    (ax,) = figures.show_residuals({"a": {"one": 0.01, "two": 0.5}}).axes
    assert [text.get_text() for text in ax.texts] == ["1", "50"]
    colours = [patch.get_facecolor()[:3] for patch in ax.patches]
    paler = [1 - 0.75 * (1 - np.array(to_rgb(GREEN))), 1 - 0.51 * (1 - np.array(to_rgb(RED)))]
    np.testing.assert_allclose(colours, paler)


def test_the_table_holds_every_cell_and_scrolls():
    table = figures.choice_table(
        [{"family": "affine", "fails": "never"}, {"family": "b", "fails": "c"}]
    )
    assert "overflow-x: auto" in table
    assert table.count("<tr>") == 3
    for cell in ("affine", "never", "b", "c"):
        assert f">{cell}<" in table


def test_the_choices_are_sized_by_the_families_themselves():
    rows = {row["family"]: row for row in figures.choices()}
    assert rows["thin plate spline"]["parameters"] == "32"
    assert rows["dense flow"]["parameters"] == "1,568"
    assert rows["affine"]["products a pixel"] == "4"
    assert len({tuple(row) for row in rows.values()}) == 1
    assert all(all(row.values()) for row in rows.values())
