"""How the book reads: a chapter's first and last words, the notation page, the API reference and its links."""

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from test_glossary import CHAPTERS, PAGES, sections, text_of

ROOT = Path(__file__).parents[1]
NUMBERED = [page for page in CHAPTERS if page[0] == "0"]
BULLETS, WORDS = 8, 120  # what fits on a card

SYMBOL = re.compile(
    r"\\(?:alpha|beta|delta|ell|lambda|nabla|Phi|pi|rho|sigma|theta|varphi)(?![a-z])"
    r"|(?<![\\a-zA-Z])[A-Za-z](?![a-zA-Z])"
)
COMMAND = re.compile(
    rf"\\(?:text|operatorname|begin|end)\{{\w+\}}|(?!{SYMBOL.pattern})\\[a-zA-Z]+"
)

# Packages whose __all__ says what is public, and modules of which all functions and classes are.
PACKAGES = [
    "stnlib",
    "stnlib.transforms",
    "stnlib.nn",
    "stnlib.data",
    "stnlib.training",
    "stnlib.exercises",
    "stnlib.plotting",
]
MODULES = [
    "stnlib.nn.functional",
    "stnlib.training.checkpoint",
    "stnlib.training.distributed",
    "stnlib.training.progress",
    "stnlib.experiments.failures",
    "stnlib.experiments.in_the_page",
    "stnlib.experiments.kernels",
    "stnlib.experiments.overhead",
    "stnlib.experiments.records",
    "stnlib.experiments.rts",
    "stnlib.experiments.sweep",
    "stnlib.experiments.table1",
    "stnlib.experiments.training_run",
    "stnlib.plotting.touch",
]
# What no chapter is about.
NOT_IN_A_CHAPTER = {"stnlib.engines.cpu.set_num_threads", "stnlib.engines.cpu.get_num_threads"}
# What chapters use to draw and to measure, and derive nothing of.
NOT_LISTED = ("stnlib.plotting.", "stnlib.benchmark.")


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapter_opens_with_what_you_will_be_able_to_do_and_what_you_need(page):
    found = re.match(r"# .+\n\n\*(After this chapter you can [^*]*)\*\n\n", text_of(page))
    assert found
    assert re.search(r"\bYou\s+need\s", found[1])
    before = [other for other in NUMBERED if other < page]
    assert not before or any(f"({other}.ipynb)" in found[1] for other in before)


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapter_closes_with_a_summary_that_fits_on_a_card(page):
    bullets = re.findall(
        r"^- ((?:.|\n(?=  ))*)", sections(page)["what-to-remember"], re.MULTILINE
    )
    assert 3 <= len(bullets) <= BULLETS
    assert sum(len(bullet.split()) for bullet in bullets) <= WORDS


def symbols(text: str) -> set[str]:
    """Return the letters in a text's formulas, outside code and fences."""
    text = re.sub(r"^(`{3,})[^\n]*\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]+`", "", text)
    formulas = re.findall(r"\$\$(.*?)\$\$|\$([^$]+)\$", text, re.DOTALL)
    return {s for pair in formulas for s in SYMBOL.findall(COMMAND.sub(" ", "".join(pair)))}


def test_symbols_are_found_in_formulas():
    assert symbols(r"An $A_\theta x$, `$B$`, and $$\text{input}_j \le W'$$") == {
        "A",
        r"\theta",
        "x",
        "j",
        "W",
    }


@pytest.mark.parametrize("page", NUMBERED)
def test_notation_page_has_every_symbol_of_a_chapter(page):
    text = re.sub(
        r"^## Exercises$.*?(?=^## )", "", text_of(page), flags=re.MULTILINE | re.DOTALL
    )
    explained = sections("notation")
    known = symbols(explained["in-all-chapters"]) | symbols(
        explained[f"chapter-{int(page[:2])}"]
    )
    assert symbols(text) <= known


def reference() -> str:
    """Return the text of all pages of the API reference."""
    return "\n".join(text_of(page) for page in PAGES if page.startswith("api"))


def entries() -> dict[str, str]:
    """Return for each entry of the API reference the line that stands below it."""
    found = re.findall(
        r"^```\{eval-rst\}\n\.\. auto\w+:: ([\w.]+)(?:\(.*\))?\n(?:   .*\n)*```\n\n(?=(.*))",
        reference(),
        re.MULTILINE,
    )
    assert len(found) == reference().count("{eval-rst}")
    return dict(found)


def test_signatures_that_the_reference_writes_out_are_those_of_the_code():
    written = re.findall(
        r"^\.\. autoclass:: ([\w.]+)\.(\w+)\((.*)\)$", reference(), re.MULTILINE
    )
    assert written
    for module, name, arguments in written:
        made = getattr(importlib.import_module(module), name).__init__
        own = (
            []
            if made is object.__init__
            else [*inspect.signature(made).parameters.values()][1:]
        )
        assert arguments == ", ".join(f"{p.name}={p.default}" for p in own), name


def public() -> set[str]:
    """Return the full names of all public functions and classes, each by the module that defines it, and R to TC."""
    found = {
        f"{name}.{member}"
        for name in MODULES
        for member in _defined(importlib.import_module(name))
    }
    for name in PACKAGES:
        package = importlib.import_module(name)
        for member in package.__all__:
            value = getattr(package, member)
            if isinstance(value, ModuleType):
                found |= {f"{value.__name__}.{each}" for each in _defined(value)} - {
                    "stnlib.transforms"
                }
            elif callable(value):
                found.add(f"{name}.{member}")
    return found


def _defined(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if name[0] != "_"
        and name != "main"
        and (
            inspect.isfunction(value)
            or inspect.isclass(value)
            or module.__name__.endswith("distortions")
        )
        and getattr(value, "__module__", None) == module.__name__
    ]


def test_reference_has_every_public_name():
    known = set(entries())
    by_object = {_object(name) for name in known}
    assert not {name for name in public() - known if _object(name) not in by_object}


def _object(name: str) -> int:
    module, _, member = name.rpartition(".")
    return id(getattr(importlib.import_module(module), member))


def test_reference_has_every_colour_and_every_command():
    from stnlib import cli, plotting

    text = reference()
    assert all(f"`{name}`" in text for name in plotting.__all__ if name.isupper())
    commands = {
        f"stnlib {name}" if not hasattr(command, "commands") else f"stnlib {name} {each}"
        for name, command in cli.main.commands.items()
        for each in getattr(command, "commands", [""])
    }
    assert set(re.findall(r"^\| `(stnlib [a-z0-9 ]+)` \|", text, re.MULTILINE)) == commands


def test_reference_has_every_figure_that_answers_when_touched():
    modules = (ROOT / "stnlib" / "plotting" / "touch").glob("*.py")
    figures = {p.stem for p in modules if f"\ndef {p.stem}(" in p.read_text(encoding="utf-8")}
    assert {f"stnlib.plotting.touch.{name}.{name}" for name in figures} <= entries().keys()


def test_reference_and_contributing_name_every_experiment_that_is_a_command():
    commands = {
        path.stem
        for path in (ROOT / "stnlib" / "experiments").glob("*.py")
        if "\ndef main(" in path.read_text(encoding="utf-8")
    }
    row = r"^\| `stnlib\.experiments\.(\w+)` \| `\1\.json` \|"
    assert commands == set(re.findall(row, reference(), re.MULTILINE))
    assert {f"{name}.json" for name in commands} <= records_in_contributing()


def records_in_contributing() -> set[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(\w+\.json)` \|", text, re.MULTILINE))


def test_contributing_says_what_writes_each_record():
    assert {
        path.name for path in (ROOT / "results").glob("*.json")
    } <= records_in_contributing()


def test_each_entry_links_to_a_section_that_there_is():
    for name, below in entries().items():
        link = re.fullmatch(
            r"In the book: \[chapter (\d), (.+)\]\((\w+)\.ipynb#(.+)\)\.", below
        )
        assert bool(link) != (name in NOT_IN_A_CHAPTER), name
        if link:
            assert int(link[3][:2]) == int(link[1])
            assert link[4] in sections(link[3])


@pytest.mark.parametrize("page", NUMBERED)
def test_chapter_lists_the_entries_that_link_to_it(page):
    (line,) = re.findall(
        r"^\*\*In the reference:\*\* ((?:.|\n(?!\n))*)", text_of(page), re.MULTILINE
    )
    listed = re.findall(r"\{py:(\w+)\}`~([\w.]+)`", line)
    expected = {name for name, below in entries().items() if f"({page}.ipynb#" in below}
    assert {name for _, name in listed} == {n for n in expected if not n.startswith(NOT_LISTED)}
    for role, name in listed:
        module, _, member = name.rpartition(".")
        value = getattr(importlib.import_module(module), member)
        is_class = inspect.isclass(value)
        kinds = {
            "exc": is_class and issubclass(value, BaseException),
            "class": is_class,
            "func": callable(value),
        }
        assert kinds.get(role, True), (role, name)


def test_roles_for_names_of_the_package_lead_to_entries():
    for page in PAGES:
        names = re.findall(r"\{py:\w+\}`(?:[^`<]*<)?[~!]?(stnlib[\w.]*)>?`", text_of(page))
        known = entries()
        assert all(name in known or name.rpartition(".")[0] in known for name in names), page
