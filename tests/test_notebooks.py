"""What nbval does not see: how the chapters are stored. nbval runs them and compares what they print."""

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbval.plugin import get_sanitize_patterns

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))

# The cells whose output nbval does not compare, by their first lines: timings, and the digits of live trainings.
IGNORED: dict[str, list[str]] = {
    "05_training": [
        "errors = {",
    ],
    "07_distorted_mnist": [
        "# the digits of a minute's training",
        "# the digits of half a minute's training",
    ],
}

LINES = 24  # at most, in a cell
EXERCISES = 8  # at least, in a chapter
# An absolute path of two parts or more; neither an address of the web, nor a fraction, nor a tag of HTML.
ABSOLUTE_PATH = re.compile(r"(?<![\w/:.<>*)\]])(?:/[\w.+-]+){2,}|\b[A-Za-z]:\\\w|\bfile://")
PICTURE = re.compile(r"[\w+/]{200,}={0,2}")  # in base64
ADDRESS = re.compile(r"\b0x(?!f+\b)[0-9a-fA-F]{6,}")  # 0xffffffff is a mask
MARKER = re.compile(r"#\s*(NBVAL_|PYTEST_VALIDATE)\w+")
EXERCISE = re.compile(
    r"^`{3,}\{exercise(?:-start)?\}[^\n]*\n(?:\s*:(?!label:)[^\n]*\n)*\s*:label:\s*(\S+)",
    re.MULTILINE,
)
SOLUTION = re.compile(r"^`{3,}\{solution(?:-start)?\}\s*(\S+)", re.MULTILINE)
GATE = re.compile(r"^`{3,}\{(exercise|solution)-(start|end)\}", re.MULTILINE)
GLUED = re.compile(r"\{glue:\w*\}`(?:[^`<]*<)?([^`:>]+)[^`]*`")

Cell = dict[str, Any]


def problems(name: str, text: str, ignored: Sequence[str] = ()) -> list[str]:
    """Return what is wrong with a notebook's file, one sentence each; ``ignored`` as in `IGNORED`."""
    try:
        notebook = json.loads(text)
        nbformat.validate(notebook)
    except (json.JSONDecodeError, nbformat.ValidationError) as error:
        return [f"not a notebook: {str(error).splitlines()[0]}"]
    found = []
    if text != nbformat.writes(nbformat.from_dict(notebook)).rstrip("\n") + "\n":
        found.append("not written as nbformat writes it: run make notebooks")
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        found.append("its kernel is not python3")
    code = [
        cell
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and _source(cell).strip()
    ]
    prose = "\n\n".join(
        _source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"
    )
    for position, cell in enumerate(code, 1):
        found += [
            f"cell {position}, {_first_line(cell)!r}: {what}"
            for what in _cell_problems(position, cell)
        ]
    tagged = [_first_line(cell) for cell in code if "nbval-ignore-output" in _tags(cell)]
    if tagged != list(ignored):
        found.append(
            f"nbval-ignore-output on {tagged}, and the list in {Path(__file__).name} has {list(ignored)}"
        )
    found += _exercise_problems(prose, is_chapter=re.match(r"\d\d_", name) is not None)
    glued = {
        output.get("metadata", {}).get("scrapbook", {}).get("name")
        for _, output in _outputs(code)
    }
    found += [
        f"{key!r} is not glued here"
        for key in dict.fromkeys(GLUED.findall(prose))
        if key.strip() not in glued
    ]
    return found


def _cell_problems(position: int, cell: Cell) -> Iterator[str]:
    if cell["execution_count"] != position:
        yield f"execution count {cell['execution_count']}, not {position}: run make notebooks"
    if (lines := len(_source(cell).splitlines())) > LINES:
        yield f"{lines} lines, more than {LINES}"
    if MARKER.search(_source(cell)):
        yield "a comment for nbval, which the book would print: use a tag"
    if odd := [t for t in _tags(cell) if t.startswith("nbval-") and t != "nbval-ignore-output"]:
        yield f"tagged {odd[0]}: its output or its run would go unchecked"
    if "nbval-ignore-output" in _tags(cell) and not cell["outputs"]:
        yield "its output is not compared, and none is stored"
    if "execution" in cell["metadata"]:
        yield "times of its run are stored: run make notebooks"
    yield from _figure_problems(cell)
    for _, output in _outputs([cell]):
        yield from _output_problems(cell, output)


def _figure_problems(cell: Cell) -> Iterator[str]:
    mystnb = cell["metadata"].get("mystnb", {})
    draws = any("image/png" in output.get("data", {}) for _, output in _outputs([cell]))
    wanted = {
        "alt text": mystnb.get("image", {}).get("alt"),
        "a caption": mystnb.get("figure", {}).get("caption"),
        "a name": mystnb.get("figure", {}).get("name"),
    }
    if draws or any(wanted.values()):
        yield from (
            f"a figure without {what}"
            for what, given in wanted.items()
            if not str(given or "").strip()
        )
        if not draws:
            yield "described as a figure, and no image/png is stored"


def _output_problems(cell: Cell, output: dict[str, Any]) -> Iterator[str]:
    if output["output_type"] == "error" and "raises-exception" not in _tags(cell):
        yield f"an error is stored: {output['ename']}"
    if output.get("name") == "stderr":
        yield "something is written to stderr"
    if any("widget" in mime or "javascript" in mime for mime in output.get("data", {})):
        yield "a widget or script is stored"
    for text in _texts(output):
        if match := ABSOLUTE_PATH.search(PICTURE.sub("", text)):
            yield f"an absolute path in its output: {match[0]}"
        if match := ADDRESS.search(text):
            yield f"an address in memory in its output: {match[0]}"
        if "\r" in text or "\x1b[" in text:
            yield "a progress bar or terminal colours in its output"


def _exercise_problems(prose: str, is_chapter: bool) -> Iterator[str]:
    labels, solved = EXERCISE.findall(prose), SOLUTION.findall(prose)
    begun = len(re.findall(r"^`{3,}\{exercise(?:-start)?\}", prose, re.MULTILINE))
    if begun != len(labels):
        yield f"{begun} exercises, of which {len(labels)} have a label"
    yield from (
        f"exercise {label} has {solved.count(label)} solutions"
        for label in labels
        if solved.count(label) != 1
    )
    yield from (
        f"a solution of {label}, which is no exercise"
        for label in solved
        if label not in labels
    )
    gates = GATE.findall(prose)
    paired = zip(gates[::2], gates[1::2], strict=False)
    if len(gates) % 2 or any(a[1] != "start" or b != (a[0], "end") for a, b in paired):
        yield "an exercise or a solution that does not start and end in turn"
    if is_chapter and len(labels) < EXERCISES:
        yield f"{len(labels)} exercises, fewer than {EXERCISES}"


def _outputs(cells: Sequence[Cell]) -> list[tuple[Cell, dict[str, Any]]]:
    return [(cell, output) for cell in cells for output in cell["outputs"]]


def _texts(output: dict[str, Any]) -> Iterator[str]:
    """Yield what an output shows as text; images are not."""
    if output["output_type"] == "stream":
        yield _joined(output["text"])
    if output["output_type"] == "error":
        yield f"{output['ename']}: {output['evalue']}"
    for mime, value in output.get("data", {}).items():
        if not re.search(r"image/(png|jpeg)", mime):
            yield _joined(value) if isinstance(value, str | list) else json.dumps(value)


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def _source(cell: Cell) -> str:
    return _joined(cell["source"])


def _first_line(cell: Cell) -> str:
    return _source(cell).strip().splitlines()[0]


def _tags(cell: Cell) -> list[str]:
    return cell["metadata"].get("tags", [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_as_it_should_be(path):
    found = problems(path.stem, path.read_text(encoding="utf-8"), IGNORED.get(path.stem, ()))
    assert not found, f"{path.name}:\n" + "\n".join(found)


def test_list_of_ignored_cells_names_only_notebooks_that_exist():
    assert IGNORED.keys() <= {path.stem for path in NOTEBOOKS}


def test_table_of_contents_lists_every_page_once():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = [
        toc["root"],
        *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"]),
    ]
    pages = [path for path in (ROOT / "book").iterdir() if path.suffix in {".ipynb", ".md"}]
    listed.remove("genindex")  # Sphinx's own
    assert sorted(listed) == sorted(f"book/{path.stem}" for path in pages)


# What follows tests the tests: a small notebook that keeps every rule, and the same one breaking each of them.


def _whole() -> dict[str, Any]:
    exercises = [
        f"```{{exercise-start}} One\n:label: ex-{i}\n```\nDo.\n```{{exercise-end}}\n```\n\n"
        f"````{{solution-start}} ex-{i}\n:class: dropdown\n````\nDone.\n````{{solution-end}}\n````"
        for i in range(EXERCISES)
    ]
    value = {"application/papermill.record/text/plain": "'0.5'"}
    stream = {
        "output_type": "stream",
        "name": "stdout",
        "text": "0.5 of 1/2/3, https://example.org/a/b\n",
    }
    image = {
        "output_type": "display_data",
        "metadata": {},
        "data": {"image/png": "iVBO", "text/plain": "<Figure>"},
    }
    glued = {
        "output_type": "display_data",
        "metadata": {"scrapbook": {"name": "1-half"}},
        "data": value,
    }
    error = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}
    figure = {
        "image": {"alt": "A line."},
        "figure": {"caption": "A line.", "name": "fig-1-line"},
    }
    cells = [
        nbformat.v4.new_markdown_cell(
            "# One\n\nIt is {glue:text}`1-half` or {glue:text}`1-half:.1f`.", id="a"
        ),
        nbformat.v4.new_code_cell(
            "print(0.5)", execution_count=1, outputs=[stream, glued], id="b"
        ),
        nbformat.v4.new_code_cell("", id="c"),
        nbformat.v4.new_code_cell(
            "plot()",
            execution_count=2,
            outputs=[image],
            metadata={"mystnb": figure, "tags": ["hide-input"]},
            id="d",
        ),
        nbformat.v4.new_code_cell(
            "fail()",
            execution_count=3,
            outputs=[error],
            metadata={"tags": ["raises-exception"]},
            id="e",
        ),
        nbformat.v4.new_code_cell(
            "\n# how long\ntime()",
            execution_count=4,
            outputs=[stream],
            metadata={"tags": ["nbval-ignore-output"]},
            id="f",
        ),
        *(nbformat.v4.new_markdown_cell(text, id=f"x{i}") for i, text in enumerate(exercises)),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _written(notebook: dict[str, Any]) -> str:
    return nbformat.writes(nbformat.from_dict(notebook)) + "\n"


def test_whole_notebook_has_no_problem():
    assert problems("01_whole", _written(_whole()), ["# how long"]) == []


def _output(**data: str) -> dict[str, Any]:
    mimes = {mime.replace("_", "/"): value for mime, value in data.items()}
    return {"output_type": "display_data", "metadata": {}, "data": mimes}


def _print(notebook: dict[str, Any], text: str, name: str = "stdout") -> None:
    notebook["cells"][1]["outputs"].append(
        {"output_type": "stream", "name": name, "text": text}
    )


def _set(notebook: dict[str, Any], path: str, value: Any) -> None:
    *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place: Any = notebook
    for key in keys:
        place = place[key]
    place[last] = value


def _add_prose(notebook: dict[str, Any], text: str) -> None:
    notebook["cells"].append(nbformat.v4.new_markdown_cell(text, id="more"))


BREAKS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "not run": (
        "execution count None, not 1",
        lambda n: _set(n, "cells.1.execution_count", None),
    ),
    "run twice": ("execution count 9, not 3", lambda n: _set(n, "cells.4.execution_count", 9)),
    "error": ("an error is stored: ValueError", lambda n: _set(n, "cells.4.metadata.tags", [])),
    "figure gone": ("no image/png is stored", lambda n: _set(n, "cells.3.outputs", [])),
    "no alt text": ("without alt text", lambda n: _set(n, "cells.3.metadata.mystnb.image", {})),
    "empty alt text": (
        "without alt text",
        lambda n: _set(n, "cells.3.metadata.mystnb.image.alt", " "),
    ),
    "no caption": (
        "without a caption",
        lambda n: _set(n, "cells.3.metadata.mystnb.figure.caption", ""),
    ),
    "no name": (
        "without a name",
        lambda n: n["cells"][3]["metadata"]["mystnb"]["figure"].pop("name"),
    ),
    "bare figure": ("without a name", lambda n: _set(n, "cells.3.metadata", {})),
    "figure elsewhere": (
        "without alt text",
        lambda n: n["cells"][1]["outputs"].append(_output(image_png="iVBO")),
    ),
    "ignored": (
        "and the list in",
        lambda n: _set(n, "cells.1.metadata.tags", ["nbval-ignore-output"]),
    ),
    "not ignored": ("and the list in", lambda n: _set(n, "cells.5.metadata.tags", [])),
    "ignored and empty": ("and none is stored", lambda n: _set(n, "cells.5.outputs", [])),
    "skipped": (
        "tagged nbval-skip",
        lambda n: _set(n, "cells.1.metadata.tags", ["nbval-skip"]),
    ),
    "excused": (
        "tagged nbval-raises",
        lambda n: _set(n, "cells.1.metadata.tags", ["nbval-raises-exception"]),
    ),
    "marker": (
        "a comment for nbval",
        lambda n: _set(n, "cells.1.source", "# NBVAL_IGNORE_OUTPUT\nprint(1)"),
    ),
    "long": (
        "25 lines, more than 24",
        lambda n: _set(n, "cells.1.source", "print(0.5)\n" * 25),
    ),
    "timed": ("times of its run", lambda n: _set(n, "cells.1.metadata.execution", {})),
    "path": ("an absolute path", lambda n: _print(n, "at /home/me/x.py")),
    "path in HTML": (
        "an absolute path",
        lambda n: n["cells"][1]["outputs"].append(_output(text_html='"/a/b.py"')),
    ),
    "path of Windows": ("an absolute path", lambda n: _print(n, "at C:\\Users\\me")),
    "address": ("an address in memory", lambda n: _print(n, "<f at 0x7f00c0ffee>")),
    "stderr": ("to stderr", lambda n: _print(n, "a warning", "stderr")),
    "progress": ("a progress bar", lambda n: _print(n, "10 %\r20 %")),
    "colours": ("terminal colours", lambda n: _print(n, "\x1b[31mred")),
    "widget": (
        "a widget",
        lambda n: n["cells"][1]["outputs"].append(
            _output(**{"application_vnd.jupyter.widget-view+json": "x"})
        ),
    ),
    "no solution": (
        "exercise ex-9 has 0",
        lambda n: _add_prose(n, "```{exercise} One\n:label: ex-9\n```"),
    ),
    "two solutions": (
        "exercise ex-0 has 2",
        lambda n: _add_prose(n, "```{solution} ex-0\n```"),
    ),
    "no exercise": ("which is no exercise", lambda n: _add_prose(n, "```{solution} ex-9\n```")),
    "no label": ("of which 8 have a label", lambda n: _add_prose(n, "```{exercise} One\n```")),
    "not ended": (
        "start and end in turn",
        lambda n: _add_prose(n, "```{solution-start} ex-9\n```"),
    ),
    "crossed": (
        "start and end in turn",
        lambda n: _add_prose(n, "```{exercise-end}\n```\n\n```{exercise-start}\n```"),
    ),
    "few exercises": ("7 exercises, fewer than 8", lambda n: n["cells"].pop()),
    "not glued": (
        "'1-third' is not glued",
        lambda n: _add_prose(n, "{glue:text}`1-third:.2f`"),
    ),
    "glue gone": ("'1-half' is not glued", lambda n: n["cells"][1]["outputs"].pop()),
    "kernel": ("not python3", lambda n: _set(n, "metadata.kernelspec.name", "venv")),
    "not a notebook": ("not a notebook", lambda n: _set(n, "cells.1.cell_type", "chart")),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_broken_rule_is_seen(name):
    expected, break_it = BREAKS[name]
    notebook = copy.deepcopy(_whole())
    break_it(notebook)
    found = problems("01_broken", _written_unchecked(notebook), ["# how long"])
    assert any(expected in problem for problem in found), found


def _written_unchecked(notebook: dict[str, Any]) -> str:
    """Write a notebook that nbformat might refuse."""
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


@pytest.mark.parametrize("junk", ["\n", "{}", "garbage"])
def test_anything_after_the_notebook_is_seen(junk):
    assert problems("01_whole", _written(_whole()) + junk, ["# how long"])


def test_front_matter_needs_no_exercises():
    notebook = _whole()
    del notebook["cells"][6:]
    assert problems("notation", _written(notebook), ["# how long"]) == []


@pytest.mark.parametrize(
    "text",
    [
        "3/4",
        "a / b / c",
        "</div></td>",
        "text/html/x",
        "https://example.org/a/b",
        "U[n/m]/2/3",
        "float32/float64",
        "//x",
    ],
)
def test_what_is_no_path_is_let_through(text):
    assert not ABSOLUTE_PATH.search(text)


def test_sanitiser_takes_out_addresses_and_cells_but_no_numbers():
    text = (ROOT / "tests" / "nbval_sanitise.cfg").read_text(encoding="utf-8")
    rules = get_sanitize_patterns(text)
    assert len(rules) == text.count("regex: ") == text.count("\nreplace: ")

    def clean(output: str) -> str:
        for regex, replacement in rules:
            output = re.sub(regex, replacement, output)
        return output

    assert clean("<f at 0x7f00c0ffee>") == "<f at ADDRESS>"
    assert clean("see /x/ipykernel_123/456.py:1: late") == "see CELL:1: late"
    assert clean("0.125 1e-12 42 0x1F 3/4") == "0.125 1e-12 42 0x1F 3/4"
