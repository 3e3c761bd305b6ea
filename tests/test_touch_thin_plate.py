"""Chapter 6's thin plate: the still picture, and the script against the library."""

import re

import numpy as np
import pytest
import torch
from browsing import NEEDS_BROWSER, PHONE, errors, press, wait
from test_touch_frame import CANVAS, SAYS, decoded, sources

import stnlib
from stnlib import transforms
from stnlib.coordinates import regular_grid
from stnlib.plotting.touch.thin_plate import bending_energy, determinants, thin_plate

RNG = np.random.default_rng(0)
TPS = transforms.ThinPlateSpline(4, 4)
PHOTOGRAPH = RNG.random((1, 64, 64))
PULL = np.zeros(32)
PULL[10] = 0.45
BENT, FOLDED = TPS.identity() + PULL, TPS.identity() + 2 * PULL
AFFINE = transforms.apply(transforms.affine(0.8, 0.3, 0.1, -0.2, 1.1, 0.0), TPS.control).ravel()
RANDOM = TPS.identity() + 0.2 * RNG.standard_normal(32)
PLACES = np.concatenate((RNG.uniform(-1.5, 1.5, (20, 2)), TPS.control))


# ---- The still picture ----


def test_output_is_what_the_spline_reads():
    photograph, output = map(decoded, sources(thin_plate(PHOTOGRAPH, BENT).data))
    seen = photograph[None, None, ..., 0] / 255
    expected = stnlib.grid_sample(seen, TPS.grid(BENT[None], (64, 64)))[0, 0]
    assert np.abs(output[..., 0] - 255 * expected).max() <= 0.5 + 1e-5


def test_determinant_is_that_of_the_derivative():
    for theta in (RANDOM, FOLDED, AFFINE):
        tensor = torch.tensor(theta[None])
        jacobians = [
            torch.autograd.functional.jacobian(
                lambda p, theta=tensor: TPS.apply(theta, p[None])[0, 0], torch.tensor(place)
            )
            for place in PLACES
        ]
        expected = torch.linalg.det(torch.stack(jacobians)).numpy()
        np.testing.assert_allclose(determinants(TPS, theta, PLACES), expected, atol=1e-12)


def test_bending_energy_is_the_integral():
    """Integrate squared second differences over a square; little is left outside of it."""
    step = 0.03
    axis = np.arange(-6, 6, step) + step / 3  # meets no control point
    line = np.stack(np.meshgrid(axis, axis), -1)
    x = np.stack([TPS.apply(BENT[None], row)[0, :, 0] for row in line])
    xx = np.diff(x, 2, axis=1)[1:-1] / step**2
    yy = np.diff(x, 2, axis=0)[:, 1:-1] / step**2
    xy = (x[2:, 2:] - x[2:, :-2] - x[:-2, 2:] + x[:-2, :-2]) / (4 * step**2)
    integral = np.sum(xx**2 + 2 * xy**2 + yy**2) * step**2
    assert bending_energy(TPS, BENT) == pytest.approx(integral, rel=0.02)


def test_affine_bends_cost_nothing_and_twice_the_bend_costs_four_times():
    assert abs(bending_energy(TPS, AFFINE)) < 1e-10
    assert bending_energy(TPS, FOLDED) == pytest.approx(4 * bending_energy(TPS, BENT))


@pytest.mark.parametrize(
    ("theta", "says"),
    [
        (
            TPS.identity(),
            "0 of 16 control points are pulled, .* energy is 0.00. .* 1.00 and 1.00, so nothing",
        ),
        (BENT, "1 of 16 control points is pulled, .*, so nothing folds"),
        (
            FOLDED,
            "between −0.* turned inside out, at .* % of the output's pixels: the red ones",
        ),
        (AFFINE, "energy is 0.00. .* between 0.94 and 0.94, so nothing folds"),
    ],
)
def test_says_what_is_bent_and_folded(theta, says):
    assert re.search(says, thin_plate(PHOTOGRAPH, theta).data)


def test_what_is_folded_is_red():
    html = thin_plate(np.zeros((1, 64, 64)), FOLDED).data
    red = decoded(sources(html)[1]).max(-1) > 0
    det = determinants(TPS, FOLDED, regular_grid((64, 64)).reshape(-1, 2)).reshape(64, 64)
    np.testing.assert_array_equal(red, det < 0)
    assert f"{100 * red.mean():.1f} %" in html
    assert 'class="folds" d="M' in html
    assert 'class="folds" d=""' in thin_plate(PHOTOGRAPH, BENT).data


@pytest.mark.parametrize(
    ("image", "theta", "message"),
    [
        (PHOTOGRAPH, BENT.reshape(16, 2), r"theta: expected shape \(32,\), got \(16, 2\)"),
        (PHOTOGRAPH, 2 * BENT, "theta: expected numbers within -1.4 and 1.4.* got -2.0 to 2.0"),
        (PHOTOGRAPH[0], BENT, r"image: expected .*, got \(64, 64\)"),
    ],
)
def test_refuses_in_one_sentence(image, theta, message):
    with pytest.raises(ValueError, match=message):
        thin_plate(image, theta)


# ---- The script ----


@pytest.fixture
def alive(open_figure):
    def opened(theta=BENT, **options):
        browser = open_figure(thin_plate(PHOTOGRAPH, theta), **options)
        wait(
            browser,
            lambda: browser.execute_script("return document.querySelector('.touch-bar')"),
        )
        return browser

    return opened


@NEEDS_BROWSER
@pytest.mark.parametrize("theta", [BENT, FOLDED], ids=["bent", "folded"])
def test_starts_as_the_still_picture(alive, theta):
    html = thin_plate(PHOTOGRAPH, theta).data
    browser = alive(theta)
    assert browser.execute_script(SAYS) == re.search(r'touch-says">(.*?)</p>', html).group(1)
    for name in ("grid", "folds", "pulls"):
        drawn = browser.execute_script(
            f"return document.querySelector('.{name}').getAttribute('d')"
        )
        still = re.search(rf'class="{name}" d="([^"]*)"', html).group(1)
        numbers = [np.array(re.findall(r"-?\d+\.\d+", d), float) for d in (drawn, still)]
        np.testing.assert_allclose(
            *numbers, atol=1.01e-4
        )  # a last digit may be rounded either way
    shown = np.reshape(browser.execute_script(CANVAS), (64, 64, 4))
    assert np.abs(shown[..., :3] - decoded(sources(html)[1]).astype(int)).max() <= 1
    assert errors(browser) == []


@NEEDS_BROWSER
def test_computes_what_the_library_computes(alive):
    browser = alive()
    image = RNG.random((1, 1, 7, 7))
    script = """
    const { follow, times, determinants, energy, places, sample } = window.stnlib.thin_plate;
    const [theta, points, image] = arguments, bases = follow(points);
    const grid = times(follow(places(7, false))[0], theta);
    return [bases[0], times(bases[0], theta), determinants(bases, theta), [energy(theta)],
            grid, sample(image, 7, 1, grid), places(4, true)].map((array) => [...array]);
    """
    for theta in (TPS.identity(), BENT, FOLDED, AFFINE, RANDOM):
        basis, moved, det, energy, grid, output, lattice = browser.execute_script(
            script, theta.tolist(), PLACES.ravel().tolist(), image.ravel().tolist()
        )
        expected = TPS.grid(theta[None], (7, 7))
        for ours, theirs in (
            (basis, TPS.basis(PLACES)),
            (moved, TPS.apply(theta[None], PLACES)),
            (det, determinants(TPS, theta, PLACES)),
            (energy, bending_energy(TPS, theta)),
            (grid, expected),
            (output, stnlib.grid_sample(image, expected)),
            (lattice, TPS.identity()),
        ):
            np.testing.assert_allclose(ours, np.ravel(theirs), rtol=0, atol=1e-9)


@NEEDS_BROWSER
def test_presets_bend_as_they_are_called(alive):
    browser = alive()
    said = {}
    for button in browser.find_elements("css selector", ".touch-bar button")[:-1]:
        button.click()
        said[button.text] = browser.execute_script(SAYS)
    assert list(said) == ["flat", "turn", "lens", "wave", "swap"]
    assert "0 of 16 control points are pulled, and the bending energy is 0.00." in said["flat"]
    assert "16 of 16 control points are pulled, and the bending energy is 0.00." in said["turn"]
    assert "between 0.73 and 0.73, so nothing folds" in said["turn"]  # 0.8² + 0.3²
    assert all("so nothing folds" in said[name] for name in ("lens", "wave"))
    assert "turned inside out" in said["swap"]


@NEEDS_BROWSER
def test_slider_key_drag_and_reset(alive):
    from selenium.webdriver import ActionChains

    browser = alive()
    start = browser.execute_script(SAYS), browser.execute_script(CANVAS)
    browser.execute_script("document.querySelector('.touch-bar input').focus()")
    press(browser, "END")  # twice the bend: the pull that folds
    assert browser.execute_script(SAYS) in thin_plate(PHOTOGRAPH, FOLDED).data
    assert browser.execute_script("return document.querySelector('.folds').getAttribute('d')")

    first = "document.querySelectorAll('.handle')[0]"
    browser.execute_script(f"{first}.focus()")
    press(browser, "ARROW_LEFT")
    press(browser, "ARROW_UP")
    text = browser.execute_script(f"return {first}.getAttribute('aria-valuetext')")
    assert text == "x −1.05, y −1.05"
    sixth = "return document.querySelectorAll('.handle')[5].getAttribute('aria-valuetext')"
    assert browser.execute_script(sixth) == "x 0.57, y −0.33"  # what was seen is kept
    assert (
        browser.execute_script("return document.querySelector('.touch-bar output').textContent")
        == "1.00"
    )
    assert browser.execute_script("return window.scrollY") == 0

    unit = browser.execute_script("return document.querySelector('svg').clientWidth") / 2.8
    handle = browser.find_elements("css selector", ".handle")[15]
    ActionChains(browser).drag_and_drop_by_offset(
        handle, round(-unit / 4), round(unit / 8)
    ).perform()
    text = browser.execute_script(
        "return document.querySelectorAll('.handle')[15].getAttribute('aria-valuetext')"
    )
    x, y = (float(v.replace("−", "-")) for v in re.findall(r"−?\d\.\d\d", text))
    assert abs(x - 0.75) < 0.02
    assert abs(y - 1.125) < 0.02
    assert browser.execute_script(SAYS).startswith("3 of 16")

    browser.find_element("css selector", ".touch-bar button:last-child").click()
    assert (browser.execute_script(SAYS), browser.execute_script(CANVAS)) == start
    assert errors(browser) == []


@NEEDS_BROWSER
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_two_figures_on_a_phone(open_figure, theme):
    class Two:
        data = thin_plate(PHOTOGRAPH, BENT).data + thin_plate(PHOTOGRAPH, FOLDED).data

    browser = open_figure(Two, theme=theme, width=PHONE)
    wait(browser, lambda: len(browser.find_elements("css selector", ".touch-bar")) == 2)
    browser.execute_script("document.querySelectorAll('.touch-bar button')[0].click()")
    said = browser.execute_script(
        "return [...document.querySelectorAll('.touch-says')].map((p) => p.textContent)"
    )
    assert said[0].startswith("0 of 16")
    assert "turned inside out" in said[1]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE
    targets = browser.execute_script(
        "return [...document.querySelectorAll('.target, button')]"
        ".map((e) => e.getBoundingClientRect()).map((r) => Math.min(r.width, r.height))"
    )
    assert min(targets) >= 24
    assert errors(browser) == []
