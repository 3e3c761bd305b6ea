"""Chapter 4's race: what three threads leave in memory, in Python, and in the page."""

import itertools
import json
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from browsing import NEEDS_BROWSER, PHONE, errors, press

from stnlib.engines import emulator
from stnlib.plotting.touch import race

WHOLE, ROUNDED, FAR = race.SHARES


def orders(rng, threads, steps, count):
    """Return random beginnings of random orders."""
    for _ in range(count):
        order = [t for t in range(threads) for _ in range(steps)]
        rng.shuffle(order)
        yield order[: rng.randint(0, len(order))]


# The simulation


def test_one_after_the_other_nothing_is_lost():
    for threads in itertools.permutations(range(3)):
        order = [t for t in threads for _ in range(3)]
        assert race.simulate(WHOLE, order)[-1].memory == sum(WHOLE)


def test_both_read_before_either_writes_and_one_is_lost():
    steps = race.simulate(WHOLE, race.START)
    assert [(s.thread, s.does, s.number, s.memory) for s in steps] == [
        (0, "reads", 0, 0),
        (1, "reads", 0, 0),
        (0, "adds", 1, 0),
        (0, "writes", 1, 1),
        (1, "adds", 2, 1),
        (1, "writes", 2, 2),
    ]
    assert steps[-1].within == {1}


def test_memory_holds_the_sum_of_the_shares_within():
    rng = random.Random(1)
    for order in orders(rng, 3, 3, 200):
        for step in race.simulate(WHOLE, order):
            assert step.memory == sum(WHOLE[t] for t in step.within)


def test_all_orders_are_counted_and_only_six_are_right():
    found = race.finals(WHOLE)
    assert sum(found.values()) == math.factorial(9) // math.factorial(3) ** 3 == 1680
    assert list(found) == [1, 2, 3, 4, 5, 6, 7]  # whoever is lost, the sum tells
    assert found[7] == math.factorial(3)
    assert race.finals(WHOLE, atomic=True) == {7: 6}


@pytest.mark.parametrize("shares", [ROUNDED, FAR])
def test_atomic_additions_round_in_their_order_alone(shares):
    expected = set()
    for a, b, c in itertools.permutations(np.float32(shares)):
        expected.add(float((a + b) + c))
    assert set(race.finals(shares, atomic=True)) == expected
    assert len(expected) == {ROUNDED: 3, FAR: 2}[shares]
    assert sum(race.finals(shares, atomic=True).values()) == 6


def test_it_is_what_the_emulator_does_with_the_same_source():
    """Whatever order it picks for threads that read, yield and write, memory holds what the race may leave."""
    code = """
extern "C" __global__ void add(float* total, const float* share) {
    float seen = *total;
    YIELD();
    *total = seen + share[threadIdx.x];
}
"""
    try:
        emulator.compiler()
    except emulator.NoCompilerError as error:
        pytest.skip(str(error))
    share, seen = np.float32(WHOLE), set()
    for seed in range(12):
        total = np.zeros(1, np.float32)
        staged = emulator.RawModule(code, schedule="random", seed=seed)
        staged.get_function("add")((1,), (3,), (total, share))
        seen.add(float(total[0]))
    assert seen <= set(race.finals(WHOLE))
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("order", "atomic"), [((3,), False), ((-1,), False), ((0,) * 4, False), ((1, 1), True)]
)
def test_an_order_with_a_step_that_is_not_there_is_refused(order, atomic):
    with pytest.raises(
        ValueError, match=r"^order: expected each of 3 threads at most [31] times"
    ):
        race.simulate(WHOLE, order, atomic)


def test_text_is_exact_and_short():
    rng = np.random.default_rng(2)
    for value in rng.normal(size=200).astype(np.float32):
        said = race.text(float(value)).replace("−", "-")
        assert np.float32(said) == value
        assert len(said) <= len(str(value))
    assert race.text(0.1) == "0.1"
    assert race.text(16777216) == "1.6777216e7"


def test_what_is_said():
    assert race.sentence(WHOLE, ()).endswith(
        "3 threads are to add 1, 2 and 4. Which goes first?"
    )
    lost = race.sentence(WHOLE, (*race.START, 2, 2, 2))
    assert "Memory holds 6. Lost: thread 0’s 1. All are done; it should be 7." in lost
    right = race.sentence(WHOLE, (0, 0, 0, 1, 1, 1, 2, 2, 2))
    assert right.endswith("Memory holds 7. All are done, and the sum is right.")
    far = race.sentence(FAR, (0, 2, 1), atomic=True)
    assert far.endswith("it should be 1. No addition is lost: this order rounds like that.")
    assert Fraction(1) == sum(map(Fraction, FAR))


def test_the_still_picture_says_what_it_shows():
    page = race.race().data
    assert race.sentence(WHOLE, race.START) in page
    assert race.drawing(WHOLE, race.START) in page
    assert page.count('aria-label="') == 2
    assert len(page) < 10_000


# In the page

NOW = """
const figure = document.querySelectorAll(".touch-race")[arguments[0] || 0];
const [left, right] = figure.querySelectorAll("svg");
return {
  says: figure.querySelector(".touch-says").textContent, drawing: left.innerHTML, outcomes: right.innerHTML,
  buttons: [...figure.querySelectorAll("button")].map((button) => button.textContent),
};
"""


def click(browser, label, figure=0):
    browser.execute_script(
        """
const figure = document.querySelectorAll(".touch-race")[arguments[1]];
[...figure.querySelectorAll("button")].find((button) => button.textContent.startsWith(arguments[0])).click();
""",
        label,
        figure,
    )


def choose(browser, which, value):
    browser.execute_script(
        """
const select = document.querySelectorAll(".touch-race select")[arguments[0]];
select.value = arguments[1];
select.dispatchEvent(new Event("change", {bubbles: true}));
""",
        which,
        value,
    )


def expect(browser, shares, order, atomic=False):
    now = browser.execute_script(NOW)
    assert now["says"] == race.sentence(shares, order, atomic)
    assert now["drawing"] == race.drawing(shares, order, atomic)
    assert now["outcomes"] == race.outcomes(shares, order, atomic)
    return now


@NEEDS_BROWSER
def test_the_page_begins_with_the_still_picture_and_steps_like_the_package(open_figure):
    browser = open_figure(race.race())
    now = expect(browser, WHOLE, race.START)
    assert now["buttons"][:3] == ["thread 0 is done", "thread 1 is done", "thread 2 reads"]
    order = [*race.START]
    for said in ("reads", "adds", "writes"):
        click(browser, f"thread 2 {said}")
        order.append(2)
        expect(browser, WHOLE, order)
    click(browser, "thread 2")  # it is done: nothing happens
    expect(browser, WHOLE, order)
    click(browser, "← back")
    expect(browser, WHOLE, order[:-1])
    choose(browser, 0, 1)  # atomic, in the order in which they came
    expect(browser, WHOLE, (0, 1, 2), atomic=True)
    choose(browser, 1, 2)
    expect(browser, FAR, (0, 1, 2), atomic=True)
    choose(browser, 0, 0)
    expect(browser, FAR, (0, 0, 0, 1, 1, 1, 2, 2, 2))
    click(browser, "no step yet")
    expect(browser, FAR, ())
    click(browser, "the rest by chance")
    assert "All are done" in browser.execute_script(NOW)["says"]
    click(browser, "as at first")
    expect(browser, WHOLE, race.START)
    assert errors(browser) == []


@NEEDS_BROWSER
def test_keys_step_and_step_back(open_figure):
    browser = open_figure(race.race())
    browser.execute_script("document.querySelector('.touch-race button').focus()")
    for key, order in (
        ("NUMPAD2", (*race.START, 2)),
        ("NUMPAD0", (*race.START, 2)),  # it is done
        ("ARROW_LEFT", race.START),
        ("BACKSPACE", race.START[:-1]),
        ("NUMPAD1", race.START),
    ):
        press(browser, key)
        expect(browser, WHOLE, order)


@NEEDS_BROWSER
def test_the_page_computes_what_the_package_computes(open_figure):
    browser = open_figure(race.race())
    rng = random.Random(3)
    cases = [
        (shares, order, atomic)
        for shares in (*race.SHARES, (0.1, -0.25, 1e-3), (16777216.0, 1.0, 1.0))
        for atomic in (False, True)
        for order in orders(rng, 3, 1 if atomic else 3, 10)
    ]
    found = browser.execute_script(
        """
const { simulate, sentence, drawing } = window.stnlib.race;
return arguments[0].map((some) => JSON.stringify([simulate(...some), sentence(...some), drawing(...some)]));
""",
        cases,
    )
    for case, page in zip(cases, found, strict=True):
        steps, said, drawn = json.loads(page)
        expected = race.simulate(*case)
        assert [tuple(s.values()) for s in steps] == [
            (*s[:4], sorted(s.within)) for s in expected
        ]
        assert said == race.sentence(*case)
        assert drawn == race.drawing(*case)
    for shares, atomic in itertools.product(race.SHARES, (False, True)):
        ends = browser.execute_script(
            "return window.stnlib.race.finals(...arguments)", shares, atomic
        )
        assert [tuple(end) for end in ends] == list(race.finals(shares, atomic).items())


@NEEDS_BROWSER
def test_two_on_a_page_do_not_meet(open_figure):
    class Two:
        data = race.race().data * 2

    browser = open_figure(Two)
    click(browser, "thread 2 reads", figure=1)
    expect(browser, WHOLE, race.START)
    said = browser.execute_script(NOW, 1)
    assert said["says"] == race.sentence(WHOLE, (*race.START, 2))
    assert len(said["buttons"]) == 7


@NEEDS_BROWSER
def test_it_fits_a_phone_and_the_dark(open_figure):
    browser = open_figure(race.race(), theme="dark", width=PHONE)
    choose(browser, 1, 1)
    click(browser, "the rest by chance")
    wide, colour = browser.execute_script("""
const text = document.querySelector(".touch-race svg text");
return [document.documentElement.scrollWidth, getComputedStyle(text).fill];
""")
    assert wide <= PHONE
    assert colour == "rgb(206, 214, 221)"
    small = browser.execute_script("""
return [...document.querySelectorAll(".touch-race :is(button, select)")].filter((e) => {
  const box = e.getBoundingClientRect();
  return box.height < 40 || box.width < 40;
}).length""")
    assert small == 0
