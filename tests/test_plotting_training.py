import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

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


def test_many_inputs_stand_in_rows_under_their_titles():
    inputs = np.arange(5.0)[:, None, None, None] / 10 * np.ones((1, 1, 8, 8))
    outputs = inputs + 0.5
    grids = affine_grid(np.stack([transforms.scale(1.0)] * 5), (8, 8))
    figure = figures.inputs_and_outputs(inputs, outputs, grids, list("abcde"), columns=3)
    axes = np.reshape(figure.axes, (4, 3))
    shown = [
        [ax.images[0].get_array().max() if ax.images else None for ax in row] for row in axes
    ]
    assert shown == [
        [0.0, pytest.approx(0.1), 0.2],
        [0.5, pytest.approx(0.6), 0.7],
        [pytest.approx(0.3), 0.4, None],
        [0.8, 0.9, None],
    ]
    titles = [[ax.get_title() for ax in row] for row in axes]
    assert titles == [["a", "b", "c"], [""] * 3, ["d", "e", ""], [""] * 3]
    assert [ax.axison for ax in axes[:, 2]] == [True, True, False, False]


def test_an_input_without_its_output_is_refused():
    grids = affine_grid(np.stack([transforms.scale(1.0)] * 2), (8, 8))
    with pytest.raises(ValueError, match="shorter"):
        figures.inputs_and_outputs(np.zeros((2, 1, 8, 8)), np.zeros((1, 1, 8, 8)), grids)


def test_an_animation_shows_each_frame_with_its_own_grid(monkeypatch, tmp_path):
    inputs = np.linspace(0, 1, 6).reshape(3, 2, 1, 1, 1) * np.ones((1, 1, 1, 8, 8))
    scales = np.linspace(0.2, 0.7, 6)
    grids = affine_grid(np.stack([transforms.scale(s) for s in scales]), (4, 4))
    draw, seen = figures._draw_pair, []

    def spy(above, below, *drawn):
        draw(above, below, *drawn)
        pixels = [ax.images[0].get_array().max() for ax in (above, below)]
        x = np.concatenate([line.get_xdata() for line in above.lines])
        seen.append((*pixels, len(above.images), x.max()))

    monkeypatch.setattr(figures, "_draw_pair", spy)
    film = figures.moving(inputs, 1 - inputs, grids.reshape(3, 2, 4, 4, 2), interval=50)
    with figures.on_white():
        figures.save(film, tmp_path / "new" / "film.gif")
    # The last point of a grid of 4 lies at 3/4 of the scale, and 4 pixels make a unit.
    expected = [(k / 5, 1 - k / 5, 1, 3.5 + 4 * 0.75 * s) for k, s in enumerate(scales)]
    np.testing.assert_allclose(seen[-6:], expected)
    with Image.open(tmp_path / "new" / "film.gif") as file:
        assert (file.n_frames, file.info["duration"], file.info["loop"]) == (3, 50, 0)
        assert file.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_on_white_closes_what_it_drew_and_leaves_the_defaults():
    kept = plt.figure()
    before = dict(mpl.rcParams)
    with figures.on_white():
        figure = figures.loss_curves({"A": [2.0, 1.0]}, window=1)
        assert mpl.colors.to_hex(figure.get_facecolor()) == "#ffffff"
        assert mpl.rcParams["image.cmap"] == "gray"
    assert plt.get_fignums() == [kept.number]
    assert dict(mpl.rcParams) == before
