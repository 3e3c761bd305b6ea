import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from stnlib import affine_grid, transforms
from stnlib.plotting import training as figures

mpl.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_loss_curves_average_over_windows_and_are_logarithmic():
    figure = figures.loss_curves({"A": [4.0, 2.0, 1.0, 1.0], "B": [8.0] * 4}, window=2)
    (ax,) = figure.axes
    first, second = ax.lines
    np.testing.assert_allclose(first.get_ydata(), [3.0, 1.0])
    np.testing.assert_allclose(first.get_xdata(), [1.0, 3.0])
    np.testing.assert_allclose(second.get_ydata(), [8.0, 8.0])
    assert (first.get_label(), second.get_label()) == ("A", "B")
    assert ax.get_yscale() == "log"
    assert first.get_linestyle() != second.get_linestyle()


def test_inputs_carry_their_grids_and_stand_above_their_outputs():
    inputs, outputs = np.zeros((3, 1, 8, 8)), np.ones((3, 1, 4, 4))
    grids = affine_grid(np.stack([transforms.scale(s) for s in (0.25, 0.5, 1.0)]), (4, 4))
    figure = figures.inputs_and_outputs(inputs, outputs, grids)
    above, below = figure.axes[:3], figure.axes[3:]
    for ax, scale in zip(above, (0.25, 0.5, 1.0), strict=True):
        drawn = np.concatenate([line.get_xdata() for line in ax.lines])
        np.testing.assert_allclose(
            [drawn.min(), drawn.max()], [3.5 - 3 * scale, 3.5 + 3 * scale]
        )
        assert ax.images[0].get_array().max() == 0
    assert all(ax.images[0].get_array().min() == 1 for ax in below)


def test_a_film_repeats_the_input_under_its_titles():
    image = np.random.default_rng(0).random((1, 8, 8))
    grids = affine_grid(np.stack([transforms.scale(1.0)] * 2), (8, 8))
    figure = figures.film(image, [image, 0 * image], list(grids), ["0", "10"])
    assert [ax.get_title() for ax in figure.axes] == ["0", "10", "", ""]
    for ax in figure.axes[:2]:
        np.testing.assert_array_equal(ax.images[0].get_array(), image[0])


def test_the_spread_left_is_a_share_of_the_spread_before():
    parts = ("x", "y", "log_scale", "angle")
    runs = [
        {
            "pose_before": {p: {"std": 2.0} for p in parts},
            "pose_after": {p: {"std": share * (i + 1)} for i, p in enumerate(parts)},
        }
        for share in (0.2, 0.4)
    ]
    (ax,) = figures.pose_spread(runs).axes
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [15, 30, 45, 60])
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [20, 40])
    assert next(label.get_text() for label in ax.get_yticklabels()) == "place along x"
    low, high = ax.get_ylim()
    assert low > high  # the first part is at the top
