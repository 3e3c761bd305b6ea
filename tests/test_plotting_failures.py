import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from stnlib.plotting import failures as figures

mpl.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_rows_show_each_seed_and_the_mean_of_each_series():
    rows = {
        "clipping": {"failure": [10.0, 20.0, 60.0], "cure": [5.0, 5.0, 8.0]},
        "tanh": {"cure": [4.0]},
    }
    (ax,) = figures.error_rows(rows).axes
    seeds_failed, means_failed, seeds_cured, means_cured, *joints = ax.lines
    np.testing.assert_array_equal(seeds_failed.get_xydata(), [[10, 0], [20, 0], [60, 0]])
    np.testing.assert_array_equal(means_failed.get_xydata(), [[30, 0]])
    np.testing.assert_array_equal(seeds_cured.get_xydata(), [[5, 0], [5, 0], [8, 0], [4, 1]])
    np.testing.assert_array_equal(means_cured.get_xydata(), [[6, 0], [4, 1]])
    np.testing.assert_array_equal(joints[0].get_xydata(), [[6, 0], [30, 0]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["failure", "cure"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["clipping", "tanh"]
    assert ax.get_xscale() == "log"
    assert ax.yaxis_inverted()
    assert means_failed.get_marker() != means_cured.get_marker()


def test_the_first_row_stands_above():
    (ax,) = figures.error_rows({"one": {"error": [3.0]}, "other": {"error": [6.0]}}).axes
    assert ax.get_ylim() == (1.5, -0.5)


def test_errors_near_each_other_have_several_ticks_between_them():
    for errors in ([6.0, 13.0], [0.9, 20.0], [2.0, 90.0]):
        (ax,) = figures.error_rows({"one": {"error": errors}}).axes
        ticks = ax.get_xticks()
        assert 4 <= sum(min(errors) <= tick <= max(errors) for tick in ticks) <= 13


def test_a_watched_training_shows_spread_and_outside_against_the_step():
    def history(spread, outside):
        return [
            {
                "steps": 100 * (i + 1),
                "transformers": {"transformer": {"spread": s, "outside": o}},
            }
            for i, (s, o) in enumerate(zip(spread, outside, strict=True))
        ]

    figure = figures.watched(
        {"healthy": history([0.1, 0.2], [0.0, 0.25]), "dead": history([0.0, 0.0], [1.0, 0.5])}
    )
    spread, outside = figure.axes
    np.testing.assert_array_equal(spread.lines[0].get_xydata(), [[100, 0.1], [200, 0.2]])
    np.testing.assert_array_equal(spread.lines[1].get_ydata(), [0, 0])
    np.testing.assert_array_equal(outside.lines[0].get_ydata(), [0, 25])
    np.testing.assert_array_equal(outside.lines[1].get_ydata(), [100, 50])
    # The marks from which `stnlib.training.watch` complains.
    assert spread.lines[2].get_ydata()[0] == 0.0001
    assert outside.lines[2].get_ydata()[0] == 50
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["healthy", "dead"]
    assert spread.lines[0].get_linestyle() != spread.lines[1].get_linestyle()
