"""Chapter 3's landscape: the still picture, and the script against the library."""

import base64
import functools
import io
import re

import numpy as np
import pytest
import torch
from browsing import NEEDS_BROWSER, PHONE, errors, press, wait
from PIL import Image
from torch.nn import functional

from stnlib.data import mnist
from stnlib.plotting.touch import landscape

COUNTS = mnist.load("test")[0][18]
DIGIT = COUNTS / 255
START = 8.5, 8.5
RNG = np.random.default_rng(0)
# At random; at whole pixels, where there are knots; between; at the edges; beyond the frame.
PLACES = [
    *RNG.uniform(-18, 18, (8, 2)).tolist(),
    (0.0, 0.0),
    (3.0, -2.0),
    (-7.0, 0.25),
    (5.5, -1.5),
    (18.0, -18.0),
    (95.0, 0.0),
    (-95.5, 95.5),
    (1e6, 0.0),
]


@functools.cache
def figure():
    return landscape.landscape(DIGIT, *START)


@functools.cache
def prepared(sigma):
    return landscape.prepare(DIGIT, sigma)


@functools.cache
def surface(sigma):
    return landscape.surface(prepared(sigma))


def highest(sigma):
    return float(f"{surface(sigma).max():.6g}")


# ---- The still picture ----


@pytest.mark.parametrize("sigma", landscape.RATES)
def test_loss_and_slope_are_those_of_pytorch(sigma):
    image = torch.tensor(prepared(sigma))[None, None]
    for x, y in PLACES[:5] + PLACES[10:12]:
        shift = torch.tensor([x, y], dtype=torch.float64, requires_grad=True)
        matrix = torch.cat((torch.eye(2).double(), shift[:, None] / 48), dim=1)
        grid = functional.affine_grid(matrix[None], (1, 1, 96, 96), align_corners=False)
        read = functional.grid_sample(image, grid, align_corners=False)
        expected = torch.mean((read - image) ** 2) / 2
        expected.backward()
        loss, slope = landscape.loss_and_slope(prepared(sigma), x, y)
        assert loss == pytest.approx(expected.item(), rel=1e-9, abs=1e-14)
        if x % 1 and y % 1:  # at knots the two have slopes of their own
            np.testing.assert_allclose(slope, shift.grad, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("sigma", landscape.RATES)
def test_the_map_is_the_loss_at_every_half_pixel(sigma):
    losses = surface(sigma)
    assert losses.shape == (73, 73)
    assert losses[36, 36] == 0
    assert losses.argmin() == 36 * 73 + 36
    for i, j in [(0, 72), (41, 3), (36, 37), (20, 50), (7, 7)]:
        loss, _ = landscape.loss_and_slope(prepared(sigma), j / 2 - 18, i / 2 - 18)
        assert losses[i, j] == pytest.approx(loss, rel=1e-12)


def test_slope_at_whole_pixels_is_that_beyond_them():
    image, h = prepared(0), 1e-6
    for x, y in [(3.0, -2.0), (12.0, 5.0)]:
        loss, slope = landscape.loss_and_slope(image, x, y)
        right = landscape.loss_and_slope(image, x + h, y)[0]
        left = landscape.loss_and_slope(image, x - h, y)[0]
        assert slope[0] == pytest.approx((right - loss) / h, rel=1e-3)
        assert slope[0] * (loss - left) < 0  # a ridge: down on either side


@pytest.mark.parametrize(
    ("sigma", "momentum", "home"),
    [(0, False, False), (1, False, False), (1, True, True), (4, False, True), (4, True, True)],
)
def test_where_the_ball_rolls(sigma, momentum, home):
    path = landscape.roll(prepared(sigma), sigma, START, 130, momentum)
    assert (np.hypot(*path[-1]) < 0.5) == home
    assert np.hypot(*(path[-1] - path[-2])) < 0.03
    if not home:
        assert landscape.sentence(prepared(sigma), sigma, path[-1], 1.0).endswith(
            "The ball lies still: it is stuck."
        )


def test_the_sharp_digit_is_found_from_two_pixels_away_and_not_from_afar():
    for angle in np.arange(8) * np.pi / 4:
        near = np.round(4 * np.array([np.cos(angle), np.sin(angle)])) / 2
        assert np.hypot(*landscape.roll(prepared(0), 0, near, 20)[-1]) < 0.01
        far = np.round(16 * np.array([np.cos(angle), np.sin(angle)])) / 2
        assert np.hypot(*(landscape.roll(prepared(0), 0, far, 20)[-1] - far)) < 1


def test_arrows_point_downhill():
    arrows = re.findall(r'class="arrows" d="(.*?)"', figure().data)
    for sigma, drawn in zip(landscape.RATES, arrows, strict=True):
        ways = np.array(re.findall(r"M(\S+) (\S+)L(\S+) (\S+?)M", drawn), float)
        assert len(ways) > 80
        for x, y, to_x, to_y in ways[::17]:
            places = np.array([(x + to_x) / 2, (y + to_y) / 2]) / landscape.UNIT
            places = np.round(2 * places) / 2
            slope = landscape.loss_and_slope(prepared(sigma), *places)[1]
            way = np.array([to_x - x, to_y - y])
            assert way @ -slope > 0.98 * np.hypot(*way) * np.hypot(*slope)


def test_the_still_picture_says_what_it_shows():
    page = figure().data
    assert landscape.sentence(prepared(0), 0, START, highest(0)) in page
    assert page.count('visibility="hidden"') == 2
    assert len(page) < 100_000
    address = re.findall(r'src="data:image/png;base64,(.*?)"', page)[-1]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(address))))
    # The grid is shifted by 8.5 pixels to the right and down: the digit appears that much to the left and up.
    target, read = np.pad(COUNTS.astype(float), 16), np.zeros((60, 60))
    for top in (7, 8):
        for left in (7, 8):
            read[top : top + 28, left : left + 28] += COUNTS / 4
    np.testing.assert_allclose(shown[..., 3], np.maximum(read, target), atol=1)
    alone = (read > 200) & (target == 0)
    assert alone.sum() > 10
    assert (shown[alone][:, :3] == (0xD9, 0x62, 0x2B)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((DIGIT[None], 0, 0), r"^digit: expected shape \(28, 28\), got \(1, 28, 28\)"),
        ((255 * DIGIT, 0, 0), r"^digit: expected values from 0 to 1, .* got 0.0 to 25\d"),
        ((0 * DIGIT, 0, 0), "^digit: expected values from 0 to 1, not all of them 0"),
        ((DIGIT, 18.5, 0), "^x: expected -18 to 18 pixels, got 18.5"),
        ((DIGIT, 0, float("nan")), "^y: expected -18 to 18 pixels, got nan"),
    ],
)
def test_refuses_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        landscape.landscape(*arguments)


# ---- The script ----

SAYS = "return document.querySelectorAll('.touch-landscape .touch-says')[arguments[0] || 0].textContent"
BALL = "return document.querySelector('.ball').getAttribute('transform')"
PATH = "return document.querySelector('.path').getAttribute('d')"
VALUES = "return document.querySelector('.ball').getAttribute('aria-valuetext')"


def choose(browser, sigma):
    browser.execute_script(
        """
const select = document.querySelector(".touch-landscape select");
select.value = arguments[0];
select.dispatchEvent(new Event("change", {bubbles: true}));
""",
        sigma,
    )


def click(browser, text, one=0):
    browser.execute_script(
        """
const buttons = document.querySelectorAll(".touch-landscape")[arguments[1]].querySelectorAll("button");
[...buttons].find((button) => button.textContent === arguments[0]).click();
""",
        text,
        one,
    )


def rolled(browser):
    """Wait until the ball no longer rolls."""
    script = (
        "return [...document.querySelectorAll('button')].some((b) => b.textContent === 'stop')"
    )
    wait(browser, lambda: not browser.execute_script(script))
    return browser.execute_script(SAYS)


@NEEDS_BROWSER
def test_starts_as_the_still_picture_and_answers(open_figure):
    from selenium.webdriver import ActionChains

    browser = open_figure(figure())
    begun = landscape.sentence(prepared(0), 0, START, highest(0))
    assert browser.execute_script(SAYS) == begun
    assert f'transform="{browser.execute_script(BALL)}"' in figure().data

    click(browser, "step")
    path = landscape.roll(prepared(0), 0, START, 1)
    assert browser.execute_script(SAYS) == landscape.sentence(
        prepared(0), 0, path[-1], highest(0), 1
    )
    click(browser, "roll")
    assert rolled(browser).endswith("The ball lies still: it is stuck.")
    assert browser.execute_script(PATH).count("L") > 1

    choose(browser, 4)  # from where it was set down
    visible = (
        "return [...document.querySelectorAll('.map')].map((m) => m.getAttribute('visibility'))"
    )
    assert browser.execute_script(visible) == ["hidden", "hidden", "visible"]
    assert browser.execute_script(SAYS) == landscape.sentence(prepared(4), 4, START, highest(4))

    browser.execute_script("document.querySelector('.ball').focus()")
    for key in ("ARROW_LEFT", "ARROW_UP", "ARROW_UP", "ARROW_RIGHT", "ARROW_LEFT"):
        press(browser, key)
    assert browser.execute_script(SAYS) == landscape.sentence(
        prepared(4), 4, (8.0, 7.5), highest(4)
    )
    unit = browser.execute_script("return document.querySelector('svg').getScreenCTM().a") * 8
    ball = browser.find_element("css selector", ".ball circle:last-child")
    ActionChains(browser).drag_and_drop_by_offset(
        ball, round(-4 * unit), round(3 * unit)
    ).perform()
    assert browser.execute_script(VALUES) == "x 4.00, y 10.50"
    svg = browser.find_element("css selector", ".touch-landscape svg")
    ActionChains(browser).move_to_element_with_offset(
        svg, 0, round(-9 * unit)
    ).click().perform()
    assert browser.execute_script(VALUES) != "x 4.00, y 10.50"

    click(browser, "back to the start")
    assert browser.execute_script(SAYS) == begun
    assert browser.execute_script(PATH) == ""
    assert errors(browser) == []


@NEEDS_BROWSER
def test_momentum_brings_the_ball_home(open_figure):
    browser = open_figure(figure())
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]},
    )
    try:
        choose(browser, 1)
        click(browser, "roll")  # all at once
        assert browser.execute_script(SAYS).endswith("it is stuck.")
        choose(browser, 1)
        click(browser, "momentum")
        click(browser, "roll")
        assert browser.execute_script(SAYS).endswith("The ball is home.")
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@NEEDS_BROWSER
def test_computes_what_the_library_computes(open_figure):
    """In float64: the blurred digit to 1e-14, loss and slope to 1e-9 of them, the ball's way to 1e-9 pixels."""
    browser = open_figure(figure())
    starts = [START, (-7.5, 4.0), (2.25, -1.75)]
    found = browser.execute_script(
        """
const [digit, places, starts] = arguments, { prepare, loss, roll } = window.stnlib.landscape;
return [0, 1, 4].map((sigma) => {
  const prepared = prepare(digit, sigma);
  return [
    [...prepared.image], places.map(([x, y]) => loss(prepared, x, y)).map(({ loss, slope }) => [loss, ...slope]),
    starts.map((start) => [false, true].map((momentum) => roll(prepared, sigma, start, 12, momentum))),
  ];
});
""",
        COUNTS.tolist(),
        PLACES,
        starts,
    )
    for sigma, (image, losses, paths) in zip(landscape.RATES, found, strict=True):
        np.testing.assert_allclose(image, prepared(sigma).ravel(), rtol=0, atol=1e-14)
        for place, here in zip(PLACES, losses, strict=True):
            loss, slope = landscape.loss_and_slope(prepared(sigma), *place)
            np.testing.assert_allclose(here, [loss, *slope], rtol=1e-9, atol=1e-15)
        for start, two in zip(starts, paths, strict=True):
            for momentum, path in enumerate(two):
                expected = landscape.roll(prepared(sigma), sigma, start, 12, bool(momentum))
                np.testing.assert_allclose(path, expected, rtol=0, atol=1e-9)


@NEEDS_BROWSER
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_two_figures_on_a_phone(open_figure, theme):
    class Two:
        data = figure().data * 2

    browser = open_figure(Two, theme=theme, width=PHONE)
    assert len(browser.find_elements("css selector", ".touch-bar")) == 2
    click(browser, "step", 1)
    begun = landscape.sentence(prepared(0), 0, START, highest(0))
    assert browser.execute_script(SAYS) == begun
    assert "after 1 step:" in browser.execute_script(SAYS, 1)
    wide, colour, small = browser.execute_script("""
const controls = [...document.querySelectorAll(".touch-landscape :is(button, select, .target)")];
return [
  document.documentElement.scrollWidth, getComputedStyle(document.querySelector(".touch-landscape .arrows")).stroke,
  controls.filter((one) => one.getBoundingClientRect().height < 36).length,
];
""")
    assert wide <= PHONE
    assert colour == {"light": "rgb(50, 50, 50)", "dark": "rgb(206, 214, 221)"}[theme]
    assert small == 0
    assert errors(browser) == []
