"""The glossary: every term is explained, and linked where a chapter first uses it; the index knows the same terms."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

BOOK = Path(__file__).parents[1] / "book"
CHAPTERS = [*sorted(path.stem for path in BOOK.glob("0*.ipynb")), "coming_from"]
PAGES = sorted(path.stem for path in BOOK.iterdir() if path.suffix in {".md", ".ipynb"})

# A term with brackets, as "warp (of threads)", has a name that means other things too. It is linked by hand where the
# word first has that meaning, and no rule looks for it.
BRACKETS = re.compile(r" \(.*\)$")

# Roles, such as {term}`samplers <sampler>`, and code: whichever begins first.
MARKS = re.compile(
    r"\{([\w:]+)\}`(?:[^`<]*<)?([^`<>]*)>?`|(`+)(?!`).*?(?<!`)\3(?!`)",
    re.DOTALL,
)
# What is no running text: headings, tables, the promise at a chapter's start, what is in fences or formulas; then,
# within a line, code, formulas, roles and links.
BLOCKS = [
    re.compile(r"^## Exercises$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL),
    re.compile(r"^(`{3,}|~{3,}|:{3,})[^\n]*\n.*?^\1$", re.MULTILINE | re.DOTALL),
    re.compile(r"^\$\$.*?\$\$", re.MULTILINE | re.DOTALL),
    re.compile(r"^(?:#|\||\(\S+\)=).*$", re.MULTILINE),
]
PROMISE = re.compile(r"\A# [^\n]*\n+\*[^*]*\*")
INLINE = [MARKS, re.compile(r"\$[^$]+\$"), re.compile(r"\[[^\]]*\]\([^)]*\)")]


class Link(NamedTuple):
    """A link to the glossary: where it stands, and the name that it goes to."""

    position: int
    name: str


@cache
def text_of(page: str) -> str:
    """Return the prose of a page."""
    path = BOOK / f"{page}.ipynb"
    if not path.exists():
        return (BOOK / f"{page}.md").read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def blanked(text: str, *patterns: re.Pattern[str]) -> str:
    """Return a text of the same length with what matches taken out."""
    for pattern in patterns:
        text = pattern.sub(lambda match: re.sub(r"[^\n]", "\0", match[0]), text)
    return text


def links(text: str) -> Iterator[Link]:
    """Yield the links of a page, with -1 for the position of one that stands in no running text."""
    running = blanked(text, PROMISE, *BLOCKS)
    for match in MARKS.finditer(text):
        if match[1] == "term":
            yield Link(match.start() if running[match.start()] != "\0" else -1, match[2])


def uses(text: str, names: dict[str, str]) -> Iterator[Link]:
    """Yield where names, of which each stands for a term, are used in running text without a link."""
    running = blanked(text, PROMISE, *BLOCKS, *INLINE)
    for match in _any_of(tuple(names)).finditer(running):
        group = next(name for name, value in match.groupdict().items() if value)
        yield Link(match.start(), list(names)[int(group[1:])])


@cache
def _any_of(names: tuple[str, ...]) -> re.Pattern[str]:
    """Return what finds names as whole words, the longest first, in the singular or the plural."""
    order = sorted(range(len(names)), key=lambda i: -len(names[i]))
    alternatives = "|".join(f"(?P<n{i}>{_plural(names[i])})" for i in order)
    return re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w-])", re.IGNORECASE)


def _plural(name: str) -> str:
    words = [re.escape(word) for word in name.split()]
    words[-1] = re.sub(r"y$", "(?:y|ies)", words[-1]) + "(?:e?s)?"
    return r"\s+".join(words)


class Entry(NamedTuple):
    """An entry of the glossary."""

    names: list[str]
    text: str


@cache
def glossary() -> list[Entry]:
    """Return the entries of book/glossary.md, in its order."""
    text = (BOOK / "glossary.md").read_text(encoding="utf-8")
    (body,) = re.findall(r"^```\{glossary\}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    entries = []
    for block in body.strip().split("\n\n"):
        lines = block.splitlines()
        names = [line for line in lines if not line.startswith(" ")]
        entries.append(Entry(names, " ".join(line.strip() for line in lines[len(names) :])))
    return entries


def terms() -> dict[str, str]:
    """Return for each name its entry's first one."""
    return {name: entry.names[0] for entry in glossary() for name in entry.names}


def plain() -> dict[str, str]:
    """Return `terms` without those in brackets."""
    return {name: term for name, term in terms().items() if not BRACKETS.search(name)}


def problems(text: str) -> list[str]:
    """Return what is wrong with a chapter's links to the glossary, one sentence each."""
    known = terms()
    code = [match[0] for match in MARKS.finditer(text) if match[3] == "`"]
    found = [f"a link inside code: {each}" for each in code if "{term}" in each]
    found += [
        f"{{term}}`{link.name}` is not in the glossary"
        for link in links(text)
        if link.name not in known
    ]
    first: dict[str, int] = {}
    for link in links(text):
        term = known.get(link.name, link.name)
        if link.position < 0:
            found.append(f"{term!r} is linked where there is no running text")
        elif term in first:
            found.append(f"{term!r} is linked twice")
        first.setdefault(term, link.position)
    for use in uses(text, plain()):
        term = known[use.name]
        if first.get(term, len(text)) < use.position:
            continue
        around = " ".join(text[max(0, use.position - 40) : use.position + 40].split())
        found.append(f"{term!r} is used before it is linked: … {around} …")
        first[term] = 0
    return found


def sections(page: str) -> dict[str, str]:
    """Return for each heading of a page, as it stands in an address, what lies below it up to the next one."""
    parts = re.split(r"^#{1,3} (.+)$", text_of(page), flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"): below
        for heading, below in zip(parts[1::2], parts[2::2], strict=True)
    }


def indexed(text: str) -> set[str]:
    """Return what the index directives of a text name."""
    found = re.findall(r"^```\{index\} (.+)$", text, re.MULTILINE)
    return {name for names in found for name in names.split(", ")}


def test_terms_are_sorted_and_each_is_there_once():
    names = [name for entry in glossary() for name in entry.names]
    assert len(names) == len(set(names))
    first = [entry.names[0].lower() for entry in glossary()]
    assert first == sorted(first)
    assert 60 <= len(first) <= 90


@pytest.mark.parametrize("entry", glossary(), ids=lambda entry: entry.names[0])
def test_entry_links_to_the_section_that_explains_it_and_that_names_it_for_the_index(entry):
    (label, page, anchor) = re.findall(r"\[([^\]]*)\]\((\w+)\.\w+#([^)]*)\)", entry.text)[-1]
    section = sections(page)[anchor]
    if page[0] == "0":
        assert label.startswith(f"chapter {int(page[:2])}, ")
        assert set(entry.names) <= indexed(section)


def test_every_term_is_linked_from_some_page():
    pages = [page for page in PAGES if page != "glossary"]
    linked = {link.name for page in pages for link in links(text_of(page))}
    assert {term for name, term in terms().items() if name in linked} == set(terms().values())


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapter_links_each_term_once_where_it_first_uses_it(page):
    found = problems(text_of(page))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", PAGES)
def test_page_links_only_terms_that_there_are(page):
    assert {link.name for link in links(text_of(page))} <= terms().keys()


# What follows tests the tests.

START = "# A chapter\n\n*After this chapter you can sample. You need a sampler.*\n\n"


@pytest.mark.parametrize(
    "text",
    [
        "A {term}`sampler` reads. The sampler is fast.",
        "The {term}`samplers <sampler>` read.",
        "## The sampler\n\n| sampler |\n\n```python\nsampler\n```\n\n$$\nsampler\n$$\n\nA {term}`sampler`.",
        "`sampler` and $sampler$ and [a sampler](x.md), {ref}`sampler`; a {term}`sampler`.",
        "A resampler, a sampler-like thing.",
        "A warp. A {term}`warp <warp (of threads)>`.",
        "A {term}`sampling kernel` of a {term}`sampler`.",
        "## Exercises\n\nA sampler.\n\n## Then\n\nA {term}`sampler`.",
        "A {term}`θ`, and **{term}`spread <spread (of θ)>`** of θ.",
    ],
)
def test_what_keeps_the_rule_is_let_through(text):
    assert problems(START + text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A sampler.", "'sampler' is used before it is linked: …"),
        ("The samplers read. A {term}`sampler`.", "'sampler' is used before it is linked"),
        ("A sampling\n  kernel.", "'sampling kernel' is used before"),
        ("Two similarities.", "'similarity' is used before"),
        ("A {term}`sampler` and a {term}`sampler`.", "'sampler' is linked twice"),
        ("A homography and a {term}`projective transform`.", "'projective transform' is used"),
        ("A {term}`smapler`.", "{term}`smapler` is not in the glossary"),
        ("A {term}`sampler`, and `{term}`sampler`=1`", "a link inside code: `{term}`"),
        ("## A {term}`sampler`", "'sampler' is linked where there is no running text"),
    ],
)
def test_what_breaks_the_rule_is_seen(text, problem):
    found = problems(START + text)
    assert len(found) == 1
    assert problem in found[0]
