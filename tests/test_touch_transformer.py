"""Chapter 5's spatial transformer in the page: its data, its weights, and the page against the package."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from browsing import NEEDS_BROWSER, PHONE, errors, press, wait

import stnlib
from stnlib.data import mnist
from stnlib.experiments import in_the_page, records
from stnlib.experiments.in_the_page import PosedAndCluttered
from stnlib.nn.models import STFCN, count_parameters
from stnlib.plotting.touch import transformer as figure

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / in_the_page.WEIGHTS
RECORD = ROOT / in_the_page.RESULTS


# The digits it is trained on


def digits(count):
    return mnist.to_input(mnist.load("test")[0][:count])


def test_without_clutter_digits_are_posed():
    some, distortion = digits(20), PosedAndCluttered(share=0.0)
    theta = distortion.theta(20, np.random.default_rng(0))
    assert np.array_equal(
        distortion.apply(some, theta), stnlib.affine_sample(some, theta["pose"], (42, 42))
    )


def test_pieces_are_laid_as_clutter_lays_them():
    """On frames of nothing, pieces of digits that Clutter would lay on frames of nothing."""
    count = 20
    some, distortion = digits(count), PosedAndCluttered(share=1.0)
    theta = distortion.theta(count, np.random.default_rng(1))
    theta["pose"] = stnlib.transforms.translation(9.0, 9.0)  # where the digit's image is empty
    found = distortion.apply(some, theta)
    clutter = distortion.clutter
    for k in range(count):
        alone, drawn = some.copy(), theta["clutter"].copy()
        alone[k] = 0  # the digit itself; the others are what its pieces are cut from
        assert np.array_equal(found[k], clutter.apply(alone, drawn)[k])
    assert found.max() == 1


def test_about_half_of_the_images_get_pieces_and_the_others_none():
    distortion = PosedAndCluttered()
    theta = distortion.theta(2000, np.random.default_rng(2))
    assert abs(theta["cluttered"].mean() - 0.5) < 0.05
    some = digits(50)
    with_, without = (
        distortion.apply(some, theta[:50]),
        distortion.pose.apply(some, theta["pose"][:50]),
    )
    changed = (with_ != without).any((1, 2, 3))
    assert not changed[~theta["cluttered"][:50]].any()
    assert changed[theta["cluttered"][:50]].mean() > 0.8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"share": 1.5}, "share: expected a number from 0 to 1, got 1.5"),
        ({"max_angle": 200.0}, "max_angle: expected"),
        ({"side": 50}, "side: expected"),
        ({"scales": (0.5, 2.0)}, "scales: a digit of 28 pixels times 2.0 does not fit"),
    ],
)
def test_what_does_not_fit_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        PosedAndCluttered(**options)


# The weights as a script, and the record


def test_weights_come_back_as_they_were_written(tmp_path):
    torch.manual_seed(0)
    network, path = STFCN((42, 42), 70_000), tmp_path / "weights.js"
    in_the_page.write_weights(network.state_dict(), path, {"size": [42, 42]}, "a command")
    found = in_the_page.load(path)
    assert count_parameters(found) == count_parameters(network)
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value.half().float())
    text = path.read_text()
    assert text.startswith("// ")
    assert "Made by:  a command\n" in text
    assert list(tmp_path.iterdir()) == [path]
    path.write_text(text[:-1000])
    with pytest.raises(ValueError, match=r"weights.js is not a whole file of weights"):
        in_the_page.load(path)


def test_the_command_trains_measures_and_writes(tmp_path, monkeypatch):
    whole = mnist.load
    monkeypatch.setattr(mnist, "load", lambda split: tuple(part[:200] for part in whole(split)))
    paths = tmp_path / "weights.js", tmp_path / "record.json"
    arguments = ["--iterations", "3", "--parameters", "70000", "--seed", "5"]
    for path, name in zip(paths, ("--weights", "--output"), strict=True):
        arguments += [name, str(path)]
    in_the_page.main(arguments)
    record = records.read(paths[1])
    assert record["seed"] == 5
    assert record["schedule"]["iterations"] == 3
    assert len(record["loss"]) == 3
    assert record["bytes"] == paths[0].stat().st_size
    assert set(record["errors"]) == set(in_the_page.TESTS)
    assert "--seed 5" in record["command"]
    assert record["command"] in paths[0].read_text()
    again = in_the_page.measure(in_the_page.load(paths[0]))
    assert again["errors"] == record["errors"]
    with pytest.raises(SystemExit):
        in_the_page.main(["--iterations", "many"])


@pytest.fixture(scope="module")
def network():
    return in_the_page.load(WEIGHTS)


def test_the_record_is_that_of_the_weights(network):
    record = records.read(RECORD)
    assert record["bytes"] == WEIGHTS.stat().st_size < 700_000
    assert record["parameters"] == count_parameters(network)
    assert record["command"] in WEIGHTS.read_text()
    assert record["data"] == json.loads(json.dumps(vars(in_the_page.TRAINED_ON)))
    frames, labels, _ = in_the_page.distorted(
        *(part[:1000] for part in mnist.load("test")),
        replace(in_the_page.TRAINED_ON, share=0.0),
    )
    error, expected = (
        100 * in_the_page.error_rate(network, frames, labels),
        record["errors"]["no clutter"],
    )
    assert abs(error - expected) < 4 * (expected * (100 - expected) / 1000) ** 0.5
    for name, error in record["errors_in_float32"].items():
        assert (
            abs(error - record["errors"][name]) < 0.1
        )  # percent: what rounding to float16 costs


# The still picture


def test_the_frame_is_composed_of_a_digit_and_pieces():
    row, clutter = figure.row(), figure.pieces()
    upright = figure.compose(row, figure.Scene(3, 0, 0, 0, 1, 0), clutter)
    assert np.array_equal(upright[7:35, 7:35], row[3] / 255)
    assert (upright > 0).sum() == (row[3] > 0).sum()
    quarter = figure.compose(row, figure.Scene(3, 2, -5, 90, 1, 0), clutter)  # clockwise
    np.testing.assert_allclose(quarter[2:30, 9:37], np.rot90(row[3] / 255, -1), atol=1e-12)
    full = figure.compose(row, figure.Scene(3, 0, 0, 0, 1, figure.MOST), clutter)
    expected = upright.copy()
    for digit, x, y, column, line in clutter:
        for i in range(6):
            for j in range(6):
                ink = row[digit, y + i, x + j] / 255
                expected[line + i, column + j] = max(expected[line + i, column + j], ink)
    assert np.array_equal(full, expected)
    assert [int(label) for label in _labels(row)] == list(range(10))


def _labels(row):
    images, labels = mnist.load("test")
    for digit in row:
        yield labels[np.flatnonzero((images == digit).all((1, 2)))[0]]


def test_the_still_picture_says_what_it_shows(network):
    page = figure.transformer(WEIGHTS).data
    frame = figure.compose(figure.row(), figure.START, figure.pieces())
    with torch.no_grad():
        batch = torch.from_numpy(frame)[None, None].float()
        _, theta = network.transformer(batch, return_theta=True)
        probabilities = network(batch).softmax(1)[0].numpy()
    assert probabilities.argmax() == figure.START.digit
    assert (
        f"The network says {figure.START.digit} with {figure.percent(probabilities.max())}"
        in page
    )
    assert figure.grid(theta[0].numpy()) in page
    assert len(page) < 60_000


# In the page

DO = """
const picture = document.querySelectorAll(".touch-transformer")[0];
const [left, middle, right] = picture.querySelectorAll("svg"), box = left.getBoundingClientRect();
const button = (label) => [...picture.querySelectorAll("button")].find((b) => b.textContent === label);
const pointer = (type, x, y, pointerId = 1) => left.dispatchEvent(new PointerEvent(type, {
  pointerId, bubbles: true, clientX: box.left + (x + 3.5) / 48 * box.width,
  clientY: box.top + (y + 3.5) / 48 * box.height,
}));
left.setPointerCapture = () => {}; // no pointer of the machine's own is down
const slide = (k, value) => {
  const input = picture.querySelectorAll("input")[k];
  input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
};
"""


@pytest.fixture
def opened(open_figure):
    """Open the figure, and wait until it is alive."""

    def opened(data=None, **how):
        shown = figure.transformer(WEIGHTS)
        shown.data *= data or 1
        browser = open_figure(shown, **how)
        wait(
            browser,
            lambda: browser.execute_script(
                "return document.querySelectorAll('[data-alive]').length == arguments[0]",
                data or 1,
            ),
        )
        return browser

    return opened


def shown(browser, number=0):
    return browser.execute_script(
        """
const picture = document.querySelectorAll(".touch-transformer")[arguments[0]];
const [left, middle, right] = picture.querySelectorAll("svg");
return {
  says: picture.querySelector(".touch-says").textContent, grid: left.querySelector(".grid").getAttribute("d"),
  bars: right.innerHTML, matrix: [...middle.querySelectorAll("text:not(.start)")].map((t) => t.textContent),
  frame: left.querySelector("image").getAttribute("href"), output: middle.querySelector("image").getAttribute("href"),
  value: left.getAttribute("aria-valuetext"),
};
""",
        number,
    )


def expect(browser, scene):
    """Compare what the page shows with what the package makes of a scene."""
    frame = figure.compose(figure.row(), scene, figure.pieces())
    theta, _, probabilities = figure.forward(WEIGHTS, frame)
    now = shown(browser)
    assert now["says"] == figure.sentence(f"It is a {scene.digit}. ", theta, probabilities)
    assert now["grid"] == figure.grid(theta)
    assert now["bars"] == figure.bars(probabilities)
    return now


@NEEDS_BROWSER
def test_the_page_begins_with_the_still_picture(opened):
    browser = opened()
    now, page = expect(browser, figure.START), figure.transformer(WEIGHTS).data
    assert now["says"] in page
    assert now["grid"] in page
    assert now["bars"] in page
    assert all(f">{number}</text>" in page for number in now["matrix"])
    assert errors(browser) == []


@NEEDS_BROWSER
def test_sliders_keys_and_the_pointer_move_the_digit(opened):
    browser, scene = opened(), figure.START
    browser.execute_script(DO + "slide(0, -75); slide(1, 1.3); slide(2, 5);")
    scene = scene._replace(angle=-75, scale=1.3, pieces=5)
    expect(browser, scene)
    browser.execute_script(DO + "left.focus()")
    top = browser.execute_script("return window.scrollY")
    for key in ("ARROW_LEFT", "ARROW_UP", "ARROW_UP", "ARROW_RIGHT", "ARROW_LEFT"):
        press(browser, key)
    scene = scene._replace(x=scene.x - 1, y=scene.y - 2)
    expect(browser, scene)
    assert browser.execute_script("return window.scrollY") == top
    for key, change in ((".", {"angle": -70}), ("-", {"scale": 1.25}), ("8", {"digit": 8})):
        browser.switch_to.active_element.send_keys(key)
        scene = scene._replace(**change)
        expect(browser, scene)
    assert "turned by −70 degrees, size 1.25" in shown(browser)["value"]
    browser.execute_script(
        DO
        + "pointer('pointerdown', 20, 20); pointer('pointermove', 23, 12); pointer('pointerup', 23, 12);"
        "pointer('pointermove', 1, 1);"
    )
    before = shown(browser)
    assert f"moved by {scene.x + 3:.1f} and −{abs(scene.y - 8):.1f} pixels" in before["value"]
    browser.execute_script(DO + "button('as at first').click()")
    expect(browser, figure.START)


@NEEDS_BROWSER
def test_a_digit_is_drawn_and_turned(opened):
    browser = opened()
    browser.execute_script(DO + "button('draw').click()")
    empty = shown(browser)
    assert empty["says"].startswith("Nothing is drawn yet. The network says ")
    browser.execute_script(
        DO
        + "pointer('pointerdown', 20, 8); for (let y = 9; y <= 33; y++) pointer('pointermove', 20, y);"
        "pointer('pointerup', 20, 33);"
    )
    one = shown(browser)
    assert one["says"].startswith("The network says 1 with ")
    assert one["frame"] != empty["frame"]
    browser.execute_script(DO + "slide(0, 90)")
    assert shown(browser)["frame"] != one["frame"]
    browser.execute_script(DO + "slide(0, 0)")
    assert shown(browser) == one
    browser.execute_script(
        DO
        + "button('drag').click(); pointer('pointerdown', 9, 9); pointer('pointermove', 14, 9);"
    )
    assert shown(browser)["value"].startswith("moved by 5.0 and 0.0 pixels")
    browser.execute_script(DO + "button('clear').click()")
    assert shown(browser) == empty
    browser.execute_script(DO + "picture.querySelectorAll('.digits button')[7].click()")
    assert shown(browser)["says"].startswith("It is a 7.")
    assert errors(browser) == []


@NEEDS_BROWSER
def test_a_digit_that_was_dragged_too_far_comes_back_with_the_pointer(opened):
    browser = opened()
    browser.execute_script(
        DO
        + "for (const [type, x] of [['pointerdown', 20], ['pointermove', 200], ['pointermove', 20], ['pointerup', 20]])"
        "pointer(type, x, 20);"
    )
    expect(browser, figure.START)


@NEEDS_BROWSER
def test_one_finger_draws_at_a_time(opened):
    browser = opened()
    line = (
        "pointer('pointerdown', 12, 8); for (let y = 9; y <= 33; y++) { pointer('pointermove', 12, y);%s }"
        "pointer('pointerup', 12, 33);"
    )
    browser.execute_script(DO + "button('draw').click();" + line % "")
    alone = shown(browser)["frame"]
    browser.execute_script(
        DO
        + "button('clear').click();"
        + line % "pointer('pointerdown', 40, y, 2); pointer('pointermove', 41, y, 2);"
    )
    assert shown(browser)["frame"] == alone


@NEEDS_BROWSER
def test_what_is_cleared_under_a_finger_is_gone(opened):
    browser = opened()
    browser.execute_script(DO + "button('draw').click();")
    empty = shown(browser)["frame"]
    browser.execute_script(
        DO + "pointer('pointerdown', 20, 20); pointer('pointermove', 20, 30);"
    )
    assert shown(browser)["frame"] != empty
    browser.execute_script(DO + "button('clear').click(); pointer('pointermove', 21, 31);")
    assert shown(browser)["frame"] == empty
    assert errors(browser) == []


@NEEDS_BROWSER
def test_a_line_that_was_made_smaller_stays_thin_when_another_is_drawn(opened):
    browser = opened()
    ink = (
        DO.replace("const picture", "const image = new Image(), picture", 1)
        + """
const done = arguments[0];
image.onload = () => {
  const context = new OffscreenCanvas(42, 42).getContext("2d");
  context.drawImage(image, 0, 0);
  const row = context.getImageData(0, 20, 24, 1).data;
  done(Array.from({ length: 24 }, (_, x) => row[4 * x] / 255).reduce((a, b) => a + b));
};
image.src = left.querySelector("image").getAttribute("href");
"""
    )
    browser.execute_script(
        DO
        + "button('draw').click(); pointer('pointerdown', 12, 8); pointer('pointermove', 12, 33);"
        "pointer('pointerup', 12, 33); slide(1, 0.5);"
    )
    thin = browser.execute_async_script(ink)
    browser.execute_script(
        DO
        + "pointer('pointerdown', 34, 8); pointer('pointermove', 34, 33); pointer('pointerup', 34, 33);"
    )
    assert browser.execute_async_script(ink) == pytest.approx(thin, abs=0.02)
    assert thin > 0.5


@NEEDS_BROWSER
def test_the_page_computes_what_pytorch_computes(opened, network):
    """On test digits of all kinds and on frames of nothing, of full ink and of noise."""
    frames, _, _ = in_the_page.distorted(
        *(part[100:106] for part in mnist.load("test")), in_the_page.TESTS["8 pieces"]
    )
    rng = np.random.default_rng(0)
    special = np.stack([np.zeros((42, 42)), np.ones((42, 42)), rng.random((42, 42))])[:, None]
    frames = torch.cat([frames, torch.from_numpy(special).float()])
    browser = opened()
    found = browser.execute_async_script(
        """
const [frames, done] = arguments, { network, forward } = window.stnlib.transformer;
network.then((weights) => {
  const all = frames.map((frame) => forward(weights, Float64Array.from(frame)));
  const begun = performance.now();
  for (let k = 0; k < 20; k++) forward(weights, Float64Array.from(frames[0]));
  const time = (performance.now() - begun) / 20;
  done([all.map((made) => ["theta", "probabilities", "output"].map((name) => [...made[name]])), time]);
});
""",
        frames.flatten(1).tolist(),
    )
    page, milliseconds = found
    for precise, tolerance in ((network, 1e-4), (in_the_page.load(WEIGHTS).double(), 1e-9)):
        dtype = next(precise.parameters()).dtype
        with torch.no_grad():
            output, theta = precise.transformer(frames.to(dtype), return_theta=True)
            probabilities = precise(frames.to(dtype)).softmax(1)
        for k, expected in enumerate((theta, probabilities, output.flatten(1))):
            got = np.array([each[k] for each in page])
            np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=tolerance)
    assert milliseconds < 20


@NEEDS_BROWSER
def test_the_page_reads_every_float16(opened):
    bits = np.arange(2**16, dtype=np.uint16)
    expected = bits.view(np.float16).astype(np.float64)
    finite = np.isfinite(expected)
    found = opened().execute_script(
        "return arguments[0].map(window.stnlib.transformer.half)", bits[finite].tolist()
    )
    assert np.array_equal(np.array(found, np.float64), expected[finite])


@NEEDS_BROWSER
def test_the_page_poses_and_draws_as_it_should(opened):
    browser, row, rng = opened(), figure.row(), np.random.default_rng(4)
    scenes = [
        figure.Scene(
            int(rng.integers(10)),
            *rng.uniform(-15, 15, 2),
            rng.uniform(-180, 180),
            rng.uniform(0.5, 1.5),
            8,
        )
        for _ in range(4)
    ]
    scenes += [
        figure.Scene(2, 0, 0, 0, 1, 0),
        figure.Scene(2, 0, 0, 180, 1, 0),
        figure.Scene(2, 0.5, 0.5, -90, 0.5, 0),
        figure.Scene(2, 21, -21, 45, 1.5, 0),
    ]
    clutter = figure.pieces()
    for scene in scenes:
        found = browser.execute_script(
            """
const [digit, scene, digits, pieces] = arguments, { posed, cluttered } = window.stnlib.transformer;
return [...cluttered(posed(digit, scene), digits, pieces)];
""",
            row[scene.digit].ravel().tolist(),
            scene._asdict(),
            row.reshape(10, -1).tolist(),
            clutter[: scene.pieces].tolist(),
        )
        np.testing.assert_allclose(
            np.array(found).reshape(42, 42),
            figure.compose(row, scene, clutter),
            rtol=0,
            atol=1e-9,
        )
    stroke = np.array([[5.0, 30.0], [20.5, 8.25], [20.5, 8.25], [50.0, 12.0]])
    found = browser.execute_script(
        "return [...window.stnlib.transformer.inked(arguments[0], 1.5)]", [stroke.tolist()]
    )
    # The distance to the line, by many points on it.
    line = np.concatenate([np.linspace(a, b, 4000) for a, b in pairwise(stroke)])
    y, x = np.mgrid[:42, :42]
    far = np.sqrt(((np.stack([x, y], -1)[..., None, :] - line[::4]) ** 2).sum(-1).min(-1))
    np.testing.assert_allclose(
        np.array(found).reshape(42, 42), np.clip(2 - far, 0, 1), rtol=0, atol=0.02
    )


@NEEDS_BROWSER
def test_two_on_a_page_share_the_weights_and_do_not_meet(opened):
    browser = opened(2)
    browser.execute_script(DO + "slide(0, 10)")
    now = figure.START._replace(angle=10)
    expect(browser, now)
    assert shown(browser, 1)["value"].startswith(
        "moved by 6.0 and −4.0 pixels, turned by 40 degrees"
    )
    loaded = "return [...document.scripts].filter((s) => s.src.endsWith('transformer_weights.js')).length"
    assert browser.execute_script(loaded) == 1
    assert browser.execute_script("return document.querySelectorAll('.touch-bar').length") == 2


@NEEDS_BROWSER
def test_it_fits_a_phone_and_the_dark(opened):
    browser = opened(theme="dark", width=PHONE)
    wide, colour, sizes = browser.execute_script("""
const text = document.querySelector(".touch-transformer svg text");
const touched = document.querySelectorAll(".touch-transformer :is(button, input)");
return [
  document.documentElement.scrollWidth, getComputedStyle(text).fill,
  [...touched].map((e) => [e.getBoundingClientRect().width, e.getBoundingClientRect().height]),
];
""")
    assert wide <= PHONE
    assert colour == "rgb(206, 214, 221)"
    assert min(min(size) for size in sizes) >= 24


@NEEDS_BROWSER
def test_without_the_weights_the_still_picture_stays_and_says_so(browser, tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "transformer.js").symlink_to(ROOT / "book/_static/transformer.js")
    page = tmp_path / "book" / "figure.html"
    page.write_text(f'<!doctype html><meta charset="utf-8">{figure.transformer(WEIGHTS).data}')
    browser.get(page.as_uri())
    says = wait(
        browser,
        lambda: (
            (
                text := browser.execute_script(
                    "return document.querySelector('.touch-says').textContent"
                )
            )
            and "did not load" in text
            and text
        ),
    )
    assert says.startswith("It is a 4. The network says ")
    assert errors(browser) != []  # forgotten for the tests to come
