"""The built book in a browser, opened as a reader without a network opens it: from file://."""

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from browsing import NEEDS_BROWSER, PHONE, errors, press, requests, wait
from filelock import FileLock

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "_build" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [
    TOC["root"],
    *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]),
]
WHEN_READY = """
const done = arguments[0];
const typeset = window.MathJax && MathJax.startup ? MathJax.startup.promise : Promise.resolve();
const images = [...document.images].map((image) => { image.loading = "eager"; return image.decode().catch(() => {}); });
typeset.then(() => Promise.all(images)).then(() => document.fonts.ready).then(() => done(true));
"""

# MathJax sets what it cannot read as an error, and a command that it does not know in red.
LOOK = """
const article = document.querySelector("article") || document.body;
const said = (element) => element.textContent.trim().slice(0, 80);
return {
  title: document.title,
  math: article.querySelectorAll(".math").length,
  untypeset: [...article.querySelectorAll(".math")].filter((m) => !m.querySelector("mjx-container")).map(said),
  wrong: [...document.querySelectorAll("mjx-merror, mtext[mathcolor=red]")].map(said),
  markup: [...article.querySelectorAll("p, li, td, th, figcaption")].map((element) => {
    const copy = element.cloneNode(true);
    copy.querySelectorAll("code, pre, kbd, .math, mjx-container, script, style").forEach((e) => e.remove());
    return copy.textContent;
  }).filter((text) => /`|\\*\\*|\\{[a-z:]+\\}|\\| \\S+ \\||\\$\\S|\\]\\(/.test(text)),
  missingFonts: [...document.fonts].filter((font) => font.status === "error").map((font) => font.family),
  images: [...article.querySelectorAll("img")].map((i) => ({src: i.src, alt: i.alt, width: i.naturalWidth})),
  links: [...document.querySelectorAll("a[href]")].map((a) => a.href),
  touch: [...article.querySelectorAll(".touch")].map((t) => [t.classList[1], t.querySelectorAll(".touch-bar").length]),
  ids: [...document.querySelectorAll("[id]")].map((element) => element.id),
  solutions: [...article.querySelectorAll(".solution")].map(
    (s) => s.querySelector(".admonition-title ~ *").checkVisibility({visibilityProperty: true})
  ),
};
"""

MEASURE_ON_A_PHONE = """
const root = document.documentElement;
const wide = [...document.querySelectorAll("article *")].filter((element) => {
  for (let up = element.parentElement; up && up !== document.body; up = up.parentElement)
    if (up !== root && getComputedStyle(up).overflowX !== "visible" && up.scrollWidth > up.clientWidth) return false;
  return element.getBoundingClientRect().right > window.innerWidth + 1;
});
const block = (element) => {
  let up = element.parentElement;
  while (getComputedStyle(up).display.startsWith("inline")) up = up.parentElement;
  return up;
};
const right = (element) => element.getBoundingClientRect().right;
const said = (element) => element.closest(".math").id || block(element).textContent.trim().slice(0, 80);
const formulae = [...document.querySelectorAll("article .math mjx-container")];
return {
  cut: formulae.filter((m) => (m.closest("div.math") ? m.scrollWidth - m.clientWidth : right(m) - right(block(m))) > 1)
    .map(said),
  inner: window.innerWidth,
  scroll: root.scrollWidth,
  wide: wide.slice(0, 5).map((e) => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 60)}`),
};
"""

LOOK_IN_THE_DARK = """
document.documentElement.dataset.theme = "dark";
document.documentElement.dataset.mode = "dark";
const style = getComputedStyle(document.body);
return {
  page: style.backgroundColor,
  text: style.color,
  figures: [...document.querySelectorAll("article img")].map((i) => getComputedStyle(i).backgroundColor),
};
"""

FIRST_PAINT = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"

# axe-core, the accessibility checker; what a page holds of its own is looked at, not MathJax's output.
_axe = importlib.util.find_spec("axe_playwright_python")
AXE = (
    Path(_axe.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8")
    if _axe and _axe.submodule_search_locations
    else None
)
# Contrast is measured on one of the texts that look the same by their classes, such as the keywords in code.
CHECK = """
const [contrastAlone, done] = arguments;
const still = document.createElement("style");
still.textContent = "* { transition: none !important; }";
const once = document.createElement("style");
once.textContent = "[data-again] { visibility: hidden !important; }";
document.head.append(still);
const looks = new Set();
for (const element of document.querySelectorAll("article *")) {
  if (element.firstElementChild) continue;
  let look = "";
  for (let up = element, k = 0; up && k < 7; up = up.parentElement, k++) look += `${up.tagName}.${up.className} `;
  if (looks.has(look)) element.dataset.again = "";
  looks.add(look);
}
const run = (options) =>
  axe.run({exclude: ["mjx-container"]}, {preload: false, resultTypes: ["violations"], ...options});
const runs = [() => run({runOnly: ["color-contrast"]})];
if (!contrastAlone) runs.unshift(() => run({rules: {"color-contrast": {enabled: false}}}));
(async () => {
  const found = [];
  for (const each of runs) {
    if (each === runs.at(-1)) document.head.append(once);
    found.push(...(await each()).violations);
  }
  once.remove();
  return found.flatMap((v) =>
    v.nodes.map((n) => [v.id, `${v.help}: ${n.html.slice(0, 200)} ${(n.any[0] || {message: ""}).message}`]));
})().then(done, (error) => done([["axe", String(error)]]));
"""
# The theme's own: its side bar is no landmark, and two of its buttons are named otherwise than they read.
KNOWN_FAULTS = {"region": 1, "label-content-name-mismatch": 2}

pytestmark = [
    NEEDS_BROWSER,
    pytest.mark.skipif(
        not (BOOK / "index.html").exists(), reason=f"needs the book in {BOOK}: make book"
    ),
]


@pytest.fixture(scope="session")
def seen(request: pytest.FixtureRequest, tmp_path_factory: Any) -> dict[str, dict[str, Any]]:
    """Open every page once and note what there is to see: by page, what the tests below look at.

    Of several processes of tests the first one looks, and the others read what it saw.
    """
    base = tmp_path_factory.getbasetemp()
    notes = (base.parent if hasattr(request.config, "workerinput") else base) / "seen.json"
    with FileLock(notes.with_suffix(".lock")):
        if not notes.exists():
            browser = request.getfixturevalue("browser")
            found = {page: _visit(browser, BOOK / f"{page}.html") for page in PAGES}
            notes.write_text(json.dumps(found))
            weights = {page: facts["weight"] for page, facts in found.items() if facts}
            (BOOK.parent / "reports").mkdir(exist_ok=True)
            (BOOK.parent / "reports" / "pages.json").write_text(json.dumps(weights))
    return json.loads(notes.read_text())


def _visit(browser: Any, path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    for log in ("browser", "performance"):
        browser.get_log(log)  # forget what the page before wrote
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(path.as_uri())
    browser.execute_async_script(WHEN_READY)
    facts = browser.execute_script(LOOK)
    facts["requests"] = requests(browser)
    addresses = map(urlsplit, facts["requests"])
    files = {Path(unquote(address.path)) for address in addresses if address.scheme == "file"}
    facts["weight"] = {
        "kilobytes": round(sum(f.stat().st_size for f in files if f.is_file()) / 1000),
        "first_paint": round(browser.execute_script(FIRST_PAINT)),
    }
    browser.execute_script(AXE)
    facts["axe"] = {"light": browser.execute_async_script(CHECK, False)}
    phone = {"width": PHONE, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    facts["phone"] = browser.execute_script(MEASURE_ON_A_PHONE)
    facts["dark"] = browser.execute_script(LOOK_IN_THE_DARK)
    facts["axe"]["dark"] = browser.execute_async_script(CHECK, True)
    facts["requests"] += requests(browser)
    facts["errors"] = errors(browser)
    return facts


EVERY_PAGE = pytest.mark.parametrize("page", PAGES)


@EVERY_PAGE
def test_page_is_there(seen, page):
    assert seen[page], f"{page}.html was not built"
    assert seen[page]["title"]


@EVERY_PAGE
def test_equations_are_typeset(seen, page):
    assert seen[page]["untypeset"] == []
    assert seen[page]["wrong"] == []
    assert seen[page]["missingFonts"] == []


def test_there_are_equations(seen):
    assert sum(facts["math"] for facts in seen.values()) > 20


@EVERY_PAGE
def test_nothing_is_asked_of_the_network(seen, page):
    asked = [
        url
        for url in seen[page]["requests"]
        if urlsplit(url).scheme not in {"file", "data", "blob"}
    ]
    assert seen[page]["requests"]
    assert asked == []


@EVERY_PAGE
def test_no_markup_is_left_as_text(seen, page):
    assert seen[page]["markup"] == []


@EVERY_PAGE
def test_console_has_no_errors(seen, page):
    assert seen[page]["errors"] == []


@pytest.mark.skipif(AXE is None, reason="needs axe-playwright-python, without dependencies")
@pytest.mark.parametrize("theme", ["light", "dark"])
@EVERY_PAGE
def test_axe_finds_nothing_but_the_themes_own(seen, page, theme):
    faults = [tuple(fault) for fault in seen[page]["axe"][theme]]
    count = Counter(rule for rule, _ in faults)
    assert [f for f in faults if count[f[0]] > KNOWN_FAULTS.get(f[0], 0)] == []


ADDRESS = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]


@pytest.mark.skipif(bool(ADDRESS), reason="_config.yml names a repository")
@EVERY_PAGE
def test_no_button_leads_to_a_repository_that_is_not_named(seen, page):
    assert [link for link in seen[page]["links"] if "colab" in link or "mybinder" in link] == []


@EVERY_PAGE
def test_images_are_shown_and_described(seen, page):
    assert [image["src"] for image in seen[page]["images"] if not image["width"]] == []
    assert [image["src"] for image in seen[page]["images"] if not image["alt"].strip()] == []


FIGURES = {
    "touch-frame": "book/01_affine_transforms",
    "touch-sample": "book/02_bilinear_interpolation",
    "touch-landscape": "book/03_gradients",
    "touch-race": "book/04_gpu_kernel",
    "touch-transformer": "book/05_training",
    "touch-thin_plate": "book/06_beyond_affine",
}


@pytest.mark.parametrize(("figure", "page"), FIGURES.items())
def test_figures_to_touch_come_alive_on_their_pages(seen, figure, page):
    assert [figure, 1] in seen[page]["touch"]  # with one bar of controls: started, and once


@EVERY_PAGE
def test_solutions_are_hidden(seen, page):
    assert not any(seen[page]["solutions"])


def test_solution_opens_when_it_is_asked_for(seen, browser):
    page = next(page for page, facts in seen.items() if facts["solutions"])
    browser.get((BOOK / f"{page}.html").as_uri())
    browser.execute_async_script(WHEN_READY)
    browser.execute_script("document.querySelector('.solution button.toggle-button').click()")
    wait(browser, lambda: browser.execute_script(LOOK)["solutions"][0])
    assert not any(browser.execute_script(LOOK)["solutions"][1:])


@EVERY_PAGE
def test_page_does_not_scroll_sideways_on_a_phone(seen, page):
    phone = seen[page]["phone"]
    assert phone["inner"] == PHONE
    assert phone["scroll"] <= PHONE, (
        f"{phone['scroll']} pixels wide; too wide are {phone['wide']}"
    )


@EVERY_PAGE
def test_formulae_fit_on_a_phone(seen, page):
    assert seen[page]["phone"]["cut"] == []


def _channels(colour: str) -> list[float]:
    """Return red, green, blue and alpha of ``rgb(…)`` or ``rgba(…)``."""
    numbers = [float(number) for number in colour.partition("(")[2].rstrip(")").split(",")]
    return numbers if len(numbers) == 4 else [*numbers, 1.0]


@EVERY_PAGE
def test_figures_are_transparent_in_the_dark(seen, page):
    dark = seen[page]["dark"]
    assert max(_channels(dark["page"])[:3]) < 64 < min(_channels(dark["text"])[:3])
    assert {_channels(colour)[3] for colour in dark["figures"]} <= {0.0}


@EVERY_PAGE
def test_links_within_the_book_lead_somewhere(seen, page):
    broken = []
    for link in dict.fromkeys(seen[page]["links"]):
        parts = urlsplit(link)
        if parts.scheme != "file":
            continue
        path = Path(unquote(parts.path))
        target = (
            seen.get(path.relative_to(BOOK).with_suffix("").as_posix(), {})
            if path.is_relative_to(BOOK)
            else {}
        )
        anchor = unquote(parts.fragment)
        if not path.exists() or (anchor and target and anchor not in target["ids"]):
            broken.append(link)
    assert broken == []


def test_first_page_leads_to_the_book(browser):
    browser.get((BOOK / "index.html").as_uri())
    wait(browser, lambda: browser.current_url.endswith(f"/{TOC['root']}.html"))


def test_search_finds_a_word(browser):
    browser.get((BOOK / "search.html").as_uri() + "?q=bilinear")
    results = wait(
        browser,
        lambda: browser.execute_script(
            "return [...document.querySelectorAll('#search-results li a')].map((a) => a.href)"
        ),
    )
    assert any("/book/" in link for link in results)
    assert all(Path(unquote(urlsplit(link).path)).exists() for link in results)


THREADS = """
const picture = document.querySelector(".threads");
const path = (p) => [p.classList[0], p.getAttribute("d")];
const paths = (svg) => Object.fromEntries([...svg.querySelectorAll("path")].map(path));
const [output, input] = picture.querySelectorAll("svg");
return {
  says: picture.querySelector(".threads-says").textContent,
  output: paths(output),
  input: paths(input),
  buttons: [...picture.querySelectorAll("button")].map((b) => b.getAttribute("aria-label")),
  fill: getComputedStyle(input.querySelector(".block")).fill,
  widths: [output, input].map((svg) => svg.getBoundingClientRect().width),
};
"""
STILL = """
const text = new DOMParser().parseFromString(arguments[0], "text/html").querySelector(".threads");
return [text.querySelector(".threads-says").textContent, text.querySelectorAll("button").length];
"""


@pytest.fixture
def threads(browser: Any) -> Any:
    """Open chapter 4 at its picture of threads; return what tells how it looks."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get((BOOK / "book" / "04_gpu_kernel.html").as_uri())
    browser.execute_async_script(WHEN_READY)
    return lambda: browser.execute_script(THREADS)


def _click(browser: Any, label: str) -> None:
    browser.execute_script(
        "document.querySelector(`.threads button[aria-label='${arguments[0]}']`).click()", label
    )


def test_threads_are_a_still_picture_without_scripts(browser):
    page = (BOOK / "book" / "04_gpu_kernel.html").read_text(encoding="utf-8")
    says, buttons = browser.execute_script(STILL, page)
    assert says.startswith("Block 4 of 9: columns 32 to 63, rows 32 to 63.")
    assert buttons == 0


def test_threads_are_stepped_through_by_button(browser, threads):
    from stnlib.plotting import kernels

    first = threads()
    plan = _plan(browser)
    assert len(first["buttons"]) == 4
    for label, block, warp in (
        ("Next block", 5, None),
        ("Next warp", 5, 0),
        ("Previous block", 4, 0),
        ("Next warp", 4, 1),
        ("Previous warp", 4, 0),
        ("Previous warp", 4, None),
        ("Previous warp", 4, 7),
        ("Next warp", 4, None),
    ):
        _click(browser, label)
        now = threads()
        assert now["says"] == kernels.sentence(plan, block, warp)
        some = plan.pixels_of(block, warp) if warp is not None else plan.pixels_of(block)[:0]
        assert now["output"]["warp"] == kernels._runs(some)
        assert now["input"]["block"] == kernels._runs(plan.reads(block))
        assert now["input"]["tiles"] == kernels._outline(plan, block)
    assert now == first  # and back where the page began


def test_threads_are_stepped_through_by_keyboard(browser, threads):
    browser.execute_script("document.querySelector('.threads button').focus()")
    top = browser.execute_script("return window.scrollY")
    for key, start in (
        ("ARROW_RIGHT", "Block 5 of 9:"),
        ("ARROW_DOWN", "Block 5 of 9, warp 0:"),
        ("ARROW_LEFT", "Block 4 of 9, warp 0:"),
        ("ARROW_UP", "Block 4 of 9:"),
        ("ENTER", "Block 3 of 9:"),  # the button itself: the block before
    ):
        press(browser, key)
        assert threads()["says"].startswith(start)
    assert browser.execute_script("return window.scrollY") == top


def test_threads_answer_a_click_on_a_pixel(browser, threads):
    browser.execute_script("""
const svg = document.querySelector(".threads svg"), box = svg.getBoundingClientRect(), pixel = box.width / 102;
const at = (x) => (x + 3.5) * pixel;
svg.dispatchEvent(new MouseEvent("click", {clientX: box.left + at(70), clientY: box.top + at(45), bubbles: true}));
""")
    assert threads()["says"].startswith("Block 5 of 9, warp 5: columns 64 to 95, rows 37, 45,")


def test_threads_fit_a_phone_and_the_dark(browser, threads):
    light = threads()["fill"]
    phone = {"width": PHONE, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    now = threads()
    assert all(200 < width < PHONE for width in now["widths"])
    browser.execute_script(LOOK_IN_THE_DARK)
    assert threads()["fill"] == light
    card = "return getComputedStyle(document.querySelector('.text_html:has(.threads)'))"
    assert _channels(browser.execute_script(card + ".backgroundColor"))[3] == 0
    frame = "return getComputedStyle(document.querySelector('.threads .frame')).stroke"
    assert min(_channels(browser.execute_script(frame))[:3]) > 150
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def _plan(browser: Any) -> Any:
    """Return the picture's numbers as the package knows them."""
    import numpy as np

    from stnlib.plotting import kernels

    told = json.loads(
        browser.execute_script("return document.querySelector('.threads').dataset.threads")
    )
    columns, rows = told["block"]
    size, out = tuple(told["size"]), tuple(told["out"])
    return kernels.Launch(np.array(told["matrix"]), size, out, columns, rows, told["pixels"])


def test_a_page_is_printed(tmp_path, capsys):
    module = importlib.util.spec_from_file_location("p", ROOT / "book/_ext/print_pages.py")
    printing = importlib.util.module_from_spec(module)
    module.loader.exec_module(printing)
    (made,) = printing.print_pages([BOOK / "book" / "notation.html"], tmp_path / "pdf")
    assert made == tmp_path / "pdf" / "notation.pdf"
    assert made.read_bytes().startswith(b"%PDF")
    assert made.read_bytes().count(b"/Type /Page\n") >= 2
