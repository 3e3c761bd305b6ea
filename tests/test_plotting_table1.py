import io
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from stnlib import affine_grid, transforms
from stnlib.experiments.table1 import Cell
from stnlib.plotting import table1 as figures

mpl.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def run(cell, seed=0, iterations=100, error=1.0, device="cuda", curve=()):
    """Return as much of a record as is drawn."""
    model, *transform, data = cell.split("/")
    return {
        "model": model,
        "transform": transform[0] if transform else None,
        "data": data,
        "seed": seed,
        "iterations": iterations,
        "test_error": error,
        "device": device,
        "curve": [list(point) for point in curve],
    }


def lengths(records, device="cuda"):
    found = figures.runs_of(records, device)
    return {
        str(c): [(run["seed"], run["iterations"]) for run in runs] for c, runs in found.items()
    }


def test_runs_of_one_device_in_the_order_of_the_paper_and_of_the_seeds():
    records = [run("st-cnn/tps/E", 1), run("st-cnn/tps/E", 0), run("fcn/R")]
    records.append(run("cnn/R", device="cpu"))
    assert list(lengths(records)) == ["fcn/R", "st-cnn/tps/E"]
    assert lengths(records)["st-cnn/tps/E"] == [(0, 100), (1, 100)]
    assert list(lengths(records, "cpu")) == ["cnn/R"]


@pytest.mark.parametrize(
    ("runs", "compared"),
    [
        ([(0, 100), (1, 100), (0, 900)], [(0, 100), (1, 100)]),  # one long run is no table
        ([(0, 100), (1, 100), (0, 900), (1, 900)], [(0, 900), (1, 900)]),
        ([(0, 70), (1, 80), (0, 90)], [(0, 90), (1, 80)]),  # a budget in time
        ([(2, 50)], [(2, 50)]),
    ],
)
def test_the_longest_runs_that_most_seeds_share_are_compared(runs, compared):
    records = [run("cnn/TC", seed, iterations) for seed, iterations in runs]
    assert lengths(records) == {"cnn/TC": compared}


def test_mean_and_spread_of_three_seeds():
    runs = [run("fcn/R", seed, error=error) for seed, error in enumerate((2.0, 4.0, 9.0))]
    # The mean is 5, the squares of the differences sum to 26, and two are free.
    np.testing.assert_allclose(figures.mean_and_spread(runs), (5.0, 13**0.5))
    assert figures.mean_and_spread(runs[:1]) == (2.0, 0.0)


@pytest.mark.parametrize(("error", "expected"), [(1.2, True), (1.21, False), (0.5, True)])
def test_a_cell_is_reached_at_or_below_the_papers_number(error, expected):
    assert figures.reached(Cell("cnn", None, "R"), [run("cnn/R", error=error)]) is expected


def test_the_table_has_ours_and_the_papers_number_and_says_which_is_less():
    records = [run("cnn/TC", seed, error=1.0 + 0.1 * seed) for seed in range(3)]
    html = figures.error_table(figures.runs_of([*records, run("fcn/R", error=2.5)], "cuda"))
    rows = {
        cells[0]: cells[1:]
        for cells in (
            re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in html.split("<tr>")[1:]
        )
    }
    assert rows["network"] == ["R", "RTS", "P", "E", "TC"]
    assert rows["CNN"][4] == "<b>1.10 ± 0.10</b><br>≤ 3.5"
    assert rows["FCN"][0] == "2.50 ± 0.00<br>&gt; 2.1"
    assert rows["ST-CNN affine"][1] == "paper: 0.5"  # not measured
    assert rows["ST-FCN TPS"][4] == "–"  # which the paper has not
    assert len(rows) == 9


def test_the_chart_has_every_run_and_the_papers_diamond():
    records = [run("st-cnn/affine/TC", seed, error=1.0 + seed) for seed in range(2)]
    figure = figures.error_chart(figures.runs_of(records, "cuda"))
    assert [ax.get_title() for ax in figure.axes] == ["R", "RTS", "P", "E", "TC"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    row = labels.index("ST-CNN affine")
    ours = [line for line in figure.axes[4].lines if line.get_marker() == "o"]
    np.testing.assert_allclose(ours[row].get_xdata(), [1.0, 2.0])
    np.testing.assert_allclose(ours[row].get_ydata(), [row, row])
    diamonds = [line for line in figure.axes[4].lines if line.get_marker() == "d"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in diamonds] == [
        (13.2, 0),
        (3.5, 1),
        (2.0, 2),
        (1.7, 5),
    ]
    assert figure.axes[4].get_xscale() == "log"


def test_learning_curves_against_steps_and_seconds():
    curve = [(10, 2.5, 0.9, 8.0), (20, 5.0, 0.4, 4.0)]
    records = [run("cnn/TC", seed, curve=curve) for seed in range(2)]
    records += [run("st-cnn/affine/TC", curve=curve), run("cnn/R", curve=curve)]
    records += [run("st-cnn/tps/E", curve=curve)]
    runs = figures.runs_of(records, "cuda")
    for against, places in (("steps", [10, 20]), ("seconds", [2.5, 5.0])):
        figure = figures.learning_curves(runs, ["TC", "E"], against)
        first, second = figure.axes
        assert len(first.lines) == 3  # two seeds of the CNN, one ST-CNN
        assert not second.lines  # only affine transformers are drawn
        for line in first.lines:
            np.testing.assert_allclose(line.get_xdata(), places)
            np.testing.assert_allclose(line.get_ydata(), [8.0, 4.0])
        assert first.get_xlabel() == against
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["CNN", "ST-CNN"]
        styles = [line.get_linestyle() for line in first.lines]
        assert styles[0] == styles[1] != styles[2]


def test_bars_with_and_without_the_transformer():
    times = {"with": 3.0, "without": 1.5}
    records = [run("st-fcn/affine/TC") | {"forward+backward": times}]
    records += [run("st-cnn/tps/E") | {"forward+backward": {"with": 4.0, "without": 1.0}}]
    (ax,) = figures.overhead_bars(records).axes
    assert [bar.get_width() for bar in ax.patches] == [3.0, 1.5, 4.0, 1.0]
    assert [text.get_text().strip() for text in ax.texts] == ["2.0×", "4.0×"]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "ST-FCN affine, TC",
        "ST-CNN TPS, E",
    ]


def test_an_animation_shows_every_moment_and_rests_at_the_last():
    inputs = np.zeros((2, 1, 8, 8))
    outputs = [np.full((2, 1, 4, 4), grey) for grey in (0.0, 0.5, 1.0)]
    grids = [affine_grid(np.stack([transforms.scale(0.5)] * 2), (4, 4))] * 3
    with mpl.rc_context({"image.cmap": "gray"}):
        data = figures.animated(inputs, outputs, grids, "abc", times=2, milliseconds=100)
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    assert (picture.n_frames, picture.info["loop"]) == (4, 2)  # the still one is the first
    width, height = picture.size
    greys = []
    for moment in range(4):
        picture.seek(moment)
        assert picture.info.get("duration", 100) == 100
        greys.append(picture.convert("RGB").getpixel((width // 4, int(0.7 * height)))[0])
    assert greys == [255, 0, 136, 255]  # of the outputs, which lie below; 136 is 8 of 15
    assert not plt.get_fignums()
