"""Chapter 1's six numbers and a photograph: the still picture, and the script against the library."""

import base64
import io
import re

import numpy as np
import pytest
from browsing import NEEDS_BROWSER, PHONE, errors, press, wait

import stnlib
from stnlib import transforms
from stnlib.plotting.touch.frame import frame, shrink

START = transforms.similarity(0.5, np.deg2rad(25), 0.05, -0.2)
FLAT = np.array([[0.4, 0.2, 0.0], [0.2, 0.1, 0.0]])
RNG = np.random.default_rng(0)
PHOTOGRAPH = RNG.random((3, 64, 64))
SAYS = "return document.querySelector('.touch-says').textContent"
THETA = (
    "return [...document.querySelectorAll('.matrix label span span')].map((s) => s.textContent)"
)
CANVAS = """
const canvas = document.querySelector('canvas.read');
return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data];
"""


def decoded(address):
    image = pytest.importorskip("PIL.Image").open(
        io.BytesIO(base64.b64decode(address.split(",")[1]))
    )
    return np.asarray(image.convert("RGB"))


def sources(html):
    return re.findall(r'(?:href|src)="(data:image/png[^"]+)"', html)


# ---- The still picture ----


def test_photograph_and_output_are_in_the_page():
    photograph, output = map(decoded, sources(frame(PHOTOGRAPH, START).data))
    seen = np.moveaxis(photograph, -1, 0) / 255
    np.testing.assert_array_equal(seen, np.round(255 * PHOTOGRAPH) / 255)
    expected = stnlib.affine_sample(seen[None], np.round(START, 4)[None], (64, 64))[0]
    assert np.abs(np.moveaxis(output, -1, 0) - 255 * expected).max() <= 0.5 + 1e-9


def test_a_large_photograph_is_averaged_in_whole_blocks():
    large = RNG.random((1, 300, 300))
    small = shrink(large)
    assert small.shape == (1, 100, 100)
    assert abs(small[0, 7, 9] - large[0, 21:24, 27:30].mean()) <= 0.5 / 255 + 1e-12
    assert shrink(np.ones((1, 128, 128))).shape == (1, 128, 128)


@pytest.mark.parametrize(
    ("theta", "says"),
    [
        (transforms.scale(0.5), "determinant is 0.25: the frame has 0.25 times .* 4.00 times"),
        (transforms.scale(1.0), "is 1.00: .* those in the photograph. 0 % of the output"),
        (transforms.scale(-1.0, 1.0), "is −1.00: .* The minus says that it is a mirror image"),
        (transforms.translation(1.0, 0.0), "50 % of the output is read outside"),
        (transforms.scale(0.1), "is 0.0100: the frame has 0.0100 times .* 100.00 times"),
        (FLAT, "determinant is 0: the frame is flat"),
    ],
)
def test_says_what_the_determinant_means(theta, says):
    assert re.search(says, frame(PHOTOGRAPH, theta).data)


@pytest.mark.parametrize(
    ("image", "theta", "message"),
    [
        (PHOTOGRAPH, START[:, :2], r"theta: expected shape \(2, 3\), got \(2, 2\)"),
        (PHOTOGRAPH, 3 * transforms.scale(1.0), "theta: .* how far the sliders go, got"),
        (PHOTOGRAPH, START * np.nan, "theta: .* got"),
        (PHOTOGRAPH[0], START, r"image: expected .*, got \(64, 64\)"),
        (PHOTOGRAPH[:, :32], START, r"image: expected .*, got \(3, 32, 64\)"),
    ],
)
def test_refuses_in_one_sentence(image, theta, message):
    with pytest.raises(ValueError, match=message):
        frame(image, theta)


# ---- The script ----


@pytest.fixture
def alive(open_figure):
    def opened(theta=START, **options):
        figure = frame(PHOTOGRAPH, theta)
        browser = open_figure(figure, **options)
        wait(
            browser, lambda: browser.execute_script("return document.querySelector('.matrix')")
        )
        return browser

    return opened


@NEEDS_BROWSER
def test_starts_as_the_still_picture(alive):
    html = frame(PHOTOGRAPH, START).data
    browser = alive()
    says = re.search(r'touch-says">(.*?)</p>', html).group(1)
    assert browser.execute_script(SAYS) == says
    assert (
        browser.execute_script("return document.querySelector('.grid').getAttribute('d')")
        in html
    )
    places = browser.execute_script(
        "return [...document.querySelectorAll('.handle')].map((h) => h.getAttribute('transform'))"
    )
    assert places == re.findall(r'class="handle[^"]*" transform="([^"]+)"', html)
    shown = np.reshape(browser.execute_script(CANVAS), (64, 64, 4))
    still = decoded(sources(html)[1]).astype(int)
    assert np.abs(shown[..., :3] - still).max() <= 1  # a half may be rounded either way
    assert (shown[..., 3] == 255).all()
    assert errors(browser) == []


@NEEDS_BROWSER
def test_computes_what_the_library_computes(alive):
    browser = alive()
    thetas = [
        *RNG.normal(size=(3, 2, 3)),
        transforms.scale(1.0),
        FLAT,
        transforms.rotation(1.0),
    ]
    thetas += [transforms.translation(2 / 5, -2 / 5), transforms.scale(5.0)]  # knots; borders
    image = RNG.random((1, 3, 5, 5))
    given = np.moveaxis(image[0], 0, -1).ravel().tolist()
    script = """
    const { grid, sample, determinant } = window.stnlib.frame, [theta, image] = arguments;
    const places = grid(theta, 5);
    return [[...places], [...sample(image, 5, 3, places)], determinant(theta)];
    """
    for theta in thetas:
        places, output, det = browser.execute_script(script, theta.ravel().tolist(), given)
        grid = stnlib.affine_grid(theta[None], (5, 5))
        np.testing.assert_allclose(np.reshape(places, grid.shape), grid, atol=1e-12)
        expected = np.moveaxis(stnlib.grid_sample(image, grid)[0], 0, -1)
        np.testing.assert_allclose(np.reshape(output, (5, 5, 3)), expected, atol=1e-9)
        assert abs(det - np.linalg.det(theta[:, :2])) < 1e-12


@NEEDS_BROWSER
def test_says_what_the_library_says(alive):
    browser = alive()
    for theta in (
        FLAT,
        transforms.scale(-0.1, 2.0),
        *RNG.uniform(-1.5, 1.5, (3, 2, 3)).round(4),
    ):
        said = browser.execute_script(
            "return window.stnlib.frame.sentence(arguments[0], 64)", theta.ravel().tolist()
        )
        assert said in frame(PHOTOGRAPH, theta).data


@NEEDS_BROWSER
def test_presets_are_those_of_the_library(alive):
    browser = alive()
    presets = browser.execute_script("return window.stnlib.frame.PRESETS")
    expected = {
        "identity": transforms.scale(1.0),
        "zoom": transforms.scale(0.5),
        "turn": transforms.rotation(np.deg2rad(30)),
        "shear": transforms.shear(0.5),
        "mirror": transforms.scale(-1.0, 1.0),
    }
    assert presets.keys() == expected.keys()
    for name, theta in expected.items():
        np.testing.assert_allclose(np.reshape(presets[name], (2, 3)), theta, atol=1e-15)
        browser.execute_script(
            "[...document.querySelectorAll('.touch-bar button')]"
            ".find((b) => b.textContent === arguments[0]).click()",
            name,
        )
        shown = [float(text.replace("−", "-")) for text in browser.execute_script(THETA)]
        np.testing.assert_allclose(np.reshape(shown, (2, 3)), theta, atol=0.005 + 1e-9)


@NEEDS_BROWSER
def test_a_corner_moves_and_the_opposite_one_stays(alive):
    browser = alive()
    corner = "return window.stnlib.frame.corner(...arguments)"
    for theta in RNG.normal(size=(4, 2, 3)):
        for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            to = RNG.normal(size=2)
            moved = browser.execute_script(corner, theta.ravel().tolist(), [x, y], to.tolist())
            moved = np.reshape(moved, (2, 3))
            np.testing.assert_allclose(moved @ [x, y, 1], to, atol=1e-9)
            np.testing.assert_allclose(moved @ [-x, -y, 1], theta @ [-x, -y, 1], atol=1e-9)
            for column in (0, 1):  # the directions of the axes stay
                turn = np.linalg.det(np.c_[moved[:, column], theta[:, column]])
                assert abs(turn) < 1e-9
    flat = FLAT.ravel().tolist()
    assert browser.execute_script(corner, flat, [1, 1], [0.3, 0.4]) == flat


@NEEDS_BROWSER
def test_keys_lead_a_corner_through_the_flat_frame(alive):
    browser = alive(transforms.scale(0.5))
    browser.execute_script("document.querySelectorAll('.handle.corner')[2].focus()")
    for _ in range(20):
        press(browser, "ARROW_LEFT")
    assert "determinant is 0:" in browser.execute_script(SAYS)
    for _ in range(4):
        press(browser, "ARROW_LEFT")
    assert browser.execute_script(THETA)[0] == "−0.10"
    for _ in range(8):
        press(browser, "ARROW_RIGHT")
    assert browser.execute_script(THETA)[0] == "0.10"


@NEEDS_BROWSER
def test_a_corner_stops_where_a_number_does(alive):
    theta = np.array([[1.2, 0.0, 0.0], [0.0, 1.2, 1.4]])
    browser = alive(theta)
    browser.execute_script("document.querySelector('.handle.corner').focus()")
    # Four bring ty to 1.5; were it held alone, the corner opposite would move.
    for _ in range(10):
        press(browser, "ARROW_DOWN")
    shown = [float(v.replace("−", "-")) for v in browser.execute_script(THETA)]
    after = np.reshape(shown, (2, 3))
    assert after[1, 2] == 1.5
    np.testing.assert_allclose(after @ [1, 1, 1], theta @ [1, 1, 1], atol=1e-9)


@NEEDS_BROWSER
def test_handles_stay_in_the_picture(alive):
    browser = alive(np.array([[2.0, 0.0, 1.5], [0.0, 2.0, 1.5]]))
    places = browser.execute_script(
        "return [...document.querySelectorAll('.handle')]"
        ".map((h) => h.getAttribute('transform').match(/-?[0-9.]+/g).map(Number))"
    )
    assert np.abs(places).max() == 1.6


@NEEDS_BROWSER
def test_slider_key_drag_and_reset(alive):
    from selenium.webdriver import ActionChains

    browser = alive(transforms.scale(0.5))
    start = browser.execute_script(SAYS), browser.execute_script(CANVAS)
    slider = browser.find_element("css selector", ".matrix input")
    browser.execute_script("arguments[0].focus()", slider)
    press(browser, "ARROW_RIGHT")
    assert browser.execute_script(THETA) == ["0.55", "0.00", "0.00", "0.00", "0.50", "0.00"]
    assert "determinant is 0.28" in browser.execute_script(SAYS)
    assert browser.execute_script(CANVAS) != start[1]

    browser.execute_script("document.querySelector('.handle.y').focus()")
    press(browser, "ARROW_LEFT")
    press(browser, "ARROW_DOWN")
    assert browser.execute_script(THETA) == ["0.55", "−0.05", "0.00", "0.00", "0.55", "0.00"]
    assert browser.execute_script("return window.scrollY") == 0
    text = browser.execute_script(
        "return document.querySelector('.handle.y').getAttribute('aria-valuetext')"
    )
    assert text == "x −0.05, y 0.55"

    unit = browser.execute_script("return document.querySelector('svg').clientWidth") / 3.2
    for name, by in (("t", (0.25, -0.125)), ("x", (0.0, 0.25)), ("corner", (-0.25, 0.0))):
        before = browser.execute_script(THETA)
        handle = browser.find_element("css selector", f".handle.{name}")
        at = [round(unit * v) for v in by]
        ActionChains(browser).drag_and_drop_by_offset(handle, *at).perform()
        assert browser.execute_script(THETA) != before
        if name == "t":
            tx, ty = (float(browser.execute_script(THETA)[k].replace("−", "-")) for k in (2, 5))
            assert abs(tx - 0.25) < 0.02
            assert abs(ty + 0.125) < 0.02

    browser.find_element("css selector", ".touch-bar button:last-child").click()
    assert (browser.execute_script(SAYS), browser.execute_script(CANVAS)) == start
    assert errors(browser) == []


@NEEDS_BROWSER
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_two_figures_on_a_phone(open_figure, theme):
    class Two:
        data = frame(PHOTOGRAPH, START).data + frame(PHOTOGRAPH, FLAT).data

    browser = open_figure(Two, theme=theme, width=PHONE)
    wait(browser, lambda: len(browser.find_elements("css selector", ".touch-bar")) == 2)
    browser.execute_script("document.querySelectorAll('.touch-bar button')[1].click()")
    said = browser.execute_script(
        "return [...document.querySelectorAll('.touch-says')].map((p) => p.textContent)"
    )
    assert "determinant is 0.25" in said[0]
    assert "determinant is 0:" in said[1]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE
    targets = browser.execute_script(
        "return [...document.querySelectorAll('.target, button, .matrix label')]"
        ".map((e) => e.getBoundingClientRect()).map((r) => Math.min(r.width, r.height))"
    )
    assert min(targets) >= 24
    assert errors(browser) == []
