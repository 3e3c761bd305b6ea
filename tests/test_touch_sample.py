"""Chapter 2's sample point: the still picture, and the script against the library."""

import itertools
import re

import numpy as np
import pytest
import torch
from browsing import NEEDS_BROWSER, PHONE, errors, press
from torch.nn import functional

import stnlib
from stnlib.plotting.touch import sample

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 10, (6, 6)).astype(float)
OBLONG = RNG.integers(0, 10, (4, 5)).astype(float)  # tells x from y
START = 2.3, 3.6
OPTIONS = list(
    itertools.product(
        sample.KERNELS,
        ("zeros", "border", "reflection", "wrap", "mirror", "fill"),
        (False, True),
    )
)
# Inside and out, at random; knots and halves; borders and mirrors; far outside.
PLACES = [
    *RNG.uniform(-3, 8, (20, 2)).tolist(),
    *itertools.product((-1.0, -0.5, 0.0, 2.0, 2.5, 4.0), (-3.0, -0.5, 1.0, 1.5, 3.0, 3.5)),
    (1e3, 2.25),
    (-1e6, 1e9 + 0.5),
    (3e16, -1e300),
]
LOST = [(np.inf, 1.0), (1.5, -np.inf), (np.nan, 0.0)]


def library(image, grid, kernel, padding_mode, align_corners, coordinates):
    """Return values and gradients of the grid at places (K, 2)."""
    options = {
        "mode": kernel,
        "padding_mode": padding_mode,
        "align_corners": align_corners,
        "coordinates": coordinates,
        "engine": "reference",
        "fill_value": sample.FILL if padding_mode == "fill" else 0.0,
    }
    grid = np.array(grid, dtype=float)[None, None]
    value = stnlib.grid_sample(image[None, None], grid, **options)
    ones = np.ones_like(value)
    slope = stnlib.grid_sample_vjp(ones, image[None, None], grid, **options).grid
    return value[0, 0, 0], slope[0, 0]


# ---- The still picture ----


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic"])
def test_weights_and_values_add_up_to_what_pytorch_reads(kernel):
    for x, y in RNG.uniform(-3, 7, (10, 2)):
        found = sample.read(OBLONG, x, y, kernel, "reflection", False)
        total = np.array(found.down) @ np.array(found.values) @ np.array(found.across)
        grid = torch.tensor([[[[(2 * x + 1) / 5 - 1, (2 * y + 1) / 4 - 1]]]])
        theirs = functional.grid_sample(
            torch.tensor(OBLONG)[None, None],
            grid,
            mode=kernel,
            padding_mode="reflection",
            align_corners=False,
        )
        assert total == pytest.approx(theirs.item(), abs=1e-12)
        assert found.value == pytest.approx(total, abs=1e-12)


def test_bilinear_areas_are_what_a_square_around_the_point_covers_of_each_pixel():
    x, y = START
    drawn = sample.marks(IMAGE, x, y, "bilinear", "zeros", False)
    boxes = np.array(
        re.findall(r'"plus" x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"', drawn), float
    )
    corner = (np.array(START) + sample.BEYOND) * sample.CELL  # of the square around the point
    edges = [(3 + sample.BEYOND) * sample.CELL, (4 + sample.BEYOND) * sample.CELL]
    assert boxes[:, :2].min(axis=0) == pytest.approx(corner, abs=0.011)
    assert boxes[3, :2] == pytest.approx(edges, abs=0.011)  # the first whole pixel beyond
    share = boxes[:, 2] * boxes[:, 3] / sample.CELL**2
    assert share == pytest.approx([0.7 * 0.4, 0.3 * 0.4, 0.7 * 0.6, 0.3 * 0.6], abs=1e-3)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_arrow_is_as_long_as_the_slope_and_none_of_it_lies_under_the_point(kernel):
    x, y = START
    step = 1e-6
    places = [(x + step, y), (x - step, y), (x, y + step), (x, y - step)]
    value, _ = library(IMAGE, places, kernel, "zeros", False, "pixel")
    slope = np.array([value[0] - value[1], value[2] - value[3]]) / (2 * step)
    drawn = sample.marks(IMAGE, x, y, kernel, "zeros", False)
    ends = re.search(r'class="slope" d="M(\S+) (\S+)L(\S+) ([^"M]+)M', drawn).groups()
    tail, tip = np.array(ends, dtype=float).reshape(2, 2)
    assert tip - tail == pytest.approx(sample.ARROW * sample.CELL * slope, abs=0.011)
    handle = (np.array(START) + sample.BEYOND + 0.5) * sample.CELL
    covered = float(re.search(r'<circle r="(.*?)"', sample.sample(IMAGE, x, y).data)[1]) + 0.75
    assert min(np.hypot(*(tail - handle)), np.hypot(*(tip - handle))) > covered


def test_sentence_tells_both_slopes_at_a_knot():
    image = np.array([[0.0, 2.0, 8.0], [0.0, 2.0, 8.0]])
    said = sample.sentence(image, 1.0, 0.5, "bilinear", "border", False)
    assert "The value is 2.00. Its slope along x is 6.00 a pixel, along y 0.00;" in said
    assert said.endswith(
        "x is at a knot: this is the slope beyond it, and before it the slope is 2.00."
    )
    assert "or 0.00, 0.00 in normalised" in said
    assert "in normalised coordinates 9.00 and 0.00." in said
    inside = sample.sentence(image, 1.0, 0.5, "bilinear", "border", True)
    assert "in normalised coordinates 6.00 and 0.00." in inside
    assert "knot" not in sample.sentence(image, 1.0, 0.5, "bicubic", "border", False)
    far = sample.sentence(image, -3.0, 0.5, "bilinear", "zeros", False)
    assert "reads 4 pixels, 4 of them outside the image. The value is 0.00." in far
    assert far.endswith("No slope, no arrow.")
    tie = sample.sentence(image, 0.5, 0.0, "nearest", "zeros", False)
    assert "nearest reads 1 pixel. The value is 0.00." in tie
    assert tie.endswith("Halfway between two pixels the even one counts.")


def test_the_still_picture_says_what_it_shows():
    page = sample.sample(IMAGE, *START).data
    state = IMAGE, *START, "bilinear", "zeros", False
    for drawn in (sample.sentence, sample.marks, sample.total):
        assert drawn(*state) in page
    assert page.count("aria-label=") == 2
    assert len(page) < 25_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGE[0], 1, 1), r"^image: expected 2 to 8 rows and columns, got shape \(6,\)"),
        ((np.zeros((9, 4)), 1, 1), r"^image: .* got shape \(9, 4\)"),
        (([[0.5, 1], [1, 1]], 0, 0), "^image: expected whole numbers from 0 to 9, got"),
        ((IMAGE, 8.1, 0), "^x: expected -3 to 8, no more than 3 pixels outside, got 8.1"),
        ((IMAGE, 0, float("nan")), "^y: expected -3 to 8, .* got nan"),
    ],
)
def test_refuses_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample.sample(*arguments)


# ---- The script ----

NOW = """
const figure = document.querySelectorAll(".touch-sample")[arguments[0] || 0];
const [left, right] = figure.querySelectorAll("svg"), inside = (name) => left.querySelector(name).innerHTML;
return {
  says: figure.querySelector(".touch-says").textContent, cells: inside(".cells"), marks: inside(".marks"),
  total: right.innerHTML, at: left.querySelector(".handle").getAttribute("transform"),
};
"""
CHOOSE = """
const [name, value, figure] = arguments, root = document.querySelectorAll(".touch-sample")[figure];
const label = [...root.querySelectorAll("label")].find((one) => one.textContent.startsWith(name));
const control = label.querySelector("select, input");
control.value = value;
control.dispatchEvent(new Event(control.tagName === "SELECT" ? "change" : "input", {bubbles: true}));
"""


def choose(browser, name, value, figure=0):
    browser.execute_script(CHOOSE, name, value, figure)


def expect(browser, x, y, kernel="bilinear", padding_mode="zeros", align_corners=False):
    state = IMAGE, x, y, kernel, padding_mode, align_corners
    now = browser.execute_script(NOW)
    assert now["says"] == sample.sentence(*state)
    assert now["cells"] == sample.cells(IMAGE, padding_mode, align_corners)
    assert now["marks"] == sample.marks(*state)
    assert now["total"] == sample.total(*state)
    return now


@NEEDS_BROWSER
def test_starts_as_the_still_picture_and_answers(open_figure):
    from selenium.webdriver import ActionChains

    figure = sample.sample(IMAGE, *START)
    browser = open_figure(figure)
    now = expect(browser, *START)
    assert f'transform="{now["at"]}"' in figure.data

    browser.execute_script("document.querySelector('.handle').focus()")
    for key in ("ARROW_LEFT", "ARROW_LEFT", "ARROW_LEFT", "ARROW_DOWN"):
        press(browser, key)
    expect(browser, 2.0, 3.7)  # exactly on a knot
    choose(browser, "y", -0.5)
    expect(browser, 2.0, -0.5)
    for kernel, padding_mode, align_corners in OPTIONS[1::5]:
        choose(browser, "kernel", kernel)
        choose(browser, "padding", padding_mode)
        choose(browser, "align_corners", str(align_corners).lower())
        expect(browser, 2.0, -0.5, kernel, padding_mode, align_corners)

    browser.find_element("css selector", ".touch-bar button").click()
    expect(browser, *START)
    handle = browser.find_element("css selector", ".handle circle:last-child")
    cell = browser.execute_script(
        "return document.querySelector('svg').getBoundingClientRect().width / 12"
    )
    ActionChains(browser).drag_and_drop_by_offset(
        handle, round(4 * cell), round(-5 * cell)
    ).perform()  # over the edge
    text = browser.execute_script(
        "return document.querySelector('.handle').getAttribute('aria-valuetext')"
    )
    x, y = (float(v.replace("−", "-")) for v in re.findall(r"[−\d.]+", text))
    assert (x, y) == pytest.approx((6.3, -1.4), abs=0.05)
    expect(browser, x, y)
    assert errors(browser) == []


@NEEDS_BROWSER
def test_shows_what_is_read_everywhere(open_figure):
    browser = open_figure(sample.sample(IMAGE, *START))
    choose(browser, "kernel", "bicubic")
    choose(browser, "padding", "mirror")
    choose(browser, "picture", "what is read")
    pixels = browser.execute_async_script("""
const done = arguments[0], image = new Image(), canvas = document.createElement("canvas");
image.onload = () => {
  canvas.width = canvas.height = image.width;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  done([...context.getImageData(0, 0, image.width, image.width).data].filter((_, k) => k % 4 === 0));
};
image.src = document.querySelector(".touch-sample image").getAttribute("href");
""")
    axis = (np.arange(96) + 0.5) / 8 - 3.5
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    value, _ = library(IMAGE, grid, "bicubic", "mirror", False, "pixel")
    assert np.abs(pixels - np.clip(255 * value / 9, 0, 255)).max() <= 0.5 + 1e-6


@NEEDS_BROWSER
def test_computes_what_the_library_computes(open_figure):
    """In float64, to 1e-9 of the numbers' size, in pixels and in normalised coordinates."""
    browser = open_figure(sample.sample(IMAGE, *START))
    coordinates = [*RNG.uniform(-2, 2, (20, 2)).tolist(), (-1.0, 1.0), (1.0, -1.0), (0.0, 0.0)]
    found = browser.execute_script(
        """
const [image, places, coordinates, options] = arguments, { read, unnormalise, normalise } = window.stnlib.sample;
const number = (text) => Number(text), [h, w] = [image.length, image[0].length];
const told = ({ value, slope }) => [value, ...slope].map((v) => (Number.isNaN(v) ? null : v));
return options.map(([kernel, padding, corners]) => [
  places.map(([x, y]) => told(read(image, number(x), number(y), kernel, padding, corners))),
  coordinates.map(([u, v]) => {
    const [x, y] = [unnormalise(u, w, corners), unnormalise(v, h, corners)];
    return [...told(read(image, x, y, kernel, padding, corners)), normalise(x, w, corners), normalise(y, h, corners)];
  }),
]);
""",
        OBLONG.tolist(),
        [
            [str(float(v)).replace("inf", "Infinity").replace("nan", "NaN") for v in place]
            for place in PLACES + LOST
        ],
        coordinates,
        OPTIONS,
    )
    for option, (pixel, normalised) in zip(OPTIONS, found, strict=True):
        value, slope = library(OBLONG, PLACES + LOST, *option, "pixel")
        expected = np.column_stack((value, slope))
        here = np.array(pixel, dtype=float)  # None becomes NaN
        np.testing.assert_allclose(here, expected, rtol=1e-9, atol=1e-9, err_msg=str(option))

        value, slope = library(OBLONG, coordinates, *option, "normalised")
        per_unit = [
            stnlib.coordinates.pixels_per_unit(s, align_corners=option[2]) for s in (5, 4)
        ]
        here = np.array(normalised)
        np.testing.assert_allclose(here[:, 0], value, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(here[:, 1:3] * per_unit, slope, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(here[:, 3:], coordinates, atol=1e-12)


@NEEDS_BROWSER
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_two_figures_on_a_phone(open_figure, theme):
    class Two:
        data = sample.sample(IMAGE, *START).data * 2

    browser = open_figure(Two, theme=theme, width=PHONE)
    assert len(browser.find_elements("css selector", ".touch-bar")) == 2
    choose(browser, "x", "1", figure=1)
    choose(browser, "kernel", "bicubic", figure=1)
    expect(browser, *START)
    assert browser.execute_script(NOW, 1)["says"] == sample.sentence(
        IMAGE, 1.0, 3.6, "bicubic", "zeros", False
    )
    wide, colour, small = browser.execute_script("""
const controls = [...document.querySelectorAll(".touch-sample :is(button, select, .target)")];
return [
  document.documentElement.scrollWidth, getComputedStyle(document.querySelector(".touch-sample .out text")).fill,
  controls.filter((one) => one.getBoundingClientRect().height < 36).length,
];
""")
    assert wide <= PHONE
    assert colour == {"light": "rgb(50, 50, 50)", "dark": "rgb(206, 214, 221)"}[theme]
    assert small == 0
    assert errors(browser) == []
