"""What the figures that answer when touched have in common: a finger moves their handles, and not the page."""

import numpy as np
import pytest
from browsing import NEEDS_BROWSER, PHONE, errors, swipe, wait
from test_touch_frame import PHOTOGRAPH, START
from test_touch_landscape import DIGIT
from test_touch_sample import IMAGE
from test_touch_thin_plate import BENT

from stnlib.plotting import kernels
from stnlib.plotting.touch import frame, landscape, sample, thin_plate
from stnlib.transforms import scale

FIGURES = {
    "frame": (frame.frame(PHOTOGRAPH, START), ".handle.t"),
    "sample": (sample.sample(IMAGE, 2.3, 2.6), ".handle"),
    "landscape": (landscape.landscape(DIGIT, 2.0, 2.0), ".ball"),
    "thin_plate": (thin_plate.thin_plate(PHOTOGRAPH, BENT), ".handle"),
}
MIDDLE = """
const box = document.querySelector(arguments[0]).getBoundingClientRect();
return [box.left + box.width / 2, box.top + box.height / 2];
"""


@pytest.fixture
def phone(browser):
    """Make the browser one that is touched, and undo it."""
    size = {"width": PHONE, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    yield lambda: browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {**size, "height": 900, "mobile": False}
    )


@NEEDS_BROWSER
@pytest.mark.parametrize("name", FIGURES)
def test_a_finger_drags_a_handle_and_the_page_stays(open_figure, phone, name):
    figure, handle = FIGURES[name]
    browser = open_figure(figure, width=PHONE)
    phone()
    wait(browser, lambda: browser.find_elements("css selector", f"{handle}[tabindex]"))
    browser.execute_script("document.body.style.paddingBottom = '3000px'")
    x, y = browser.execute_script(MIDDLE, handle)
    swipe(browser, (x, y), (x, y - 40))
    assert browser.execute_script("return scrollY") == 0
    moved = browser.execute_script(MIDDLE, handle)
    if name == "landscape":  # it rolls on, once it is let go
        assert moved != [x, y]
    else:
        np.testing.assert_allclose(moved, (x, y - 40), atol=3)

    swipe(browser, (3, 350), (3, 250))  # beside the picture
    assert browser.execute_script("return scrollY") > 50
    assert errors(browser) == []


@NEEDS_BROWSER
def test_two_figures_of_threads_have_a_bar_each(open_figure):
    class Two:
        plan = kernels.launch(scale(0.5), (6, 6), (8, 8), columns=4, rows=4, pixels=1)
        data = 2 * kernels.step_through(plan).data

    browser = open_figure(Two)
    wait(browser, lambda: browser.find_elements("css selector", ".threads-bar"))
    bars = "return [...document.querySelectorAll('.threads')].map((t) => t.querySelectorAll('.threads-bar').length)"
    assert browser.execute_script(bars) == [1, 1]
