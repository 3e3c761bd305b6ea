"""The page of troubles: every snippet runs, and every message is what the package says."""

import doctest
import importlib
import io
import re
import sys
import textwrap
import time
from contextlib import redirect_stderr
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad  # noqa: E402

from stnlib.nn import functional  # noqa: E402
from stnlib.training.loop import require_finite  # noqa: E402

PAGE = (Path(__file__).parents[1] / "book" / "troubles.md").read_text(encoding="utf-8")


def blocks(text, language):
    """The blocks of a language, an indented one too."""
    pattern = rf"^( *)```{language}\n(.*?)^\1```$"
    return [textwrap.dedent(match[2]) for match in re.finditer(pattern, text, re.M | re.S)]


LINES = doctest.DocTestParser()
INTRODUCTION, *SECTIONS = re.split(r"^(?=## )", PAGE, flags=re.MULTILINE)


def entries():
    """Each entry's symptom, the lines that stand before it, and its own."""
    first = "\n".join(blocks(INTRODUCTION, "pycon"))
    for section in SECTIONS:
        opening, *troubles = re.split(r"^(?=### )", section, flags=re.MULTILINE)
        before = "\n".join(blocks(opening, "pycon"))
        yield opening, first, before
        for trouble in troubles:
            yield trouble, first + "\n" + before, "\n".join(blocks(trouble, "pycon"))


ENTRIES = {text.partition("\n")[0].strip("# "): pair for text, *pair in entries()}


@pytest.mark.parametrize("symptom", [name for name, (_, own) in ENTRIES.items() if own])
def test_an_entry_prints_what_the_page_says(symptom):
    before, own = ENTRIES[symptom]
    namespace = {}
    exec("".join(example.source for example in LINES.get_examples(before)), namespace)
    test = LINES.get_doctest(own, namespace, symptom, "book/troubles.md", 0)
    said = io.StringIO()
    result = doctest.DocTestRunner(verbose=False).run(test, out=said.write)
    assert result.attempted > 0
    assert result.failed == 0, said.getvalue()


def message_of(function, *arguments, **options):
    """What the exception says that a call raises."""
    try:
        function(*arguments, **options)
    except Exception as error:
        return str(error)
    raise AssertionError("nothing was raised")


def test_messages_that_need_a_machine_of_their_own(monkeypatch):
    """Those that no snippet can show everywhere: each is made here, and the page quotes these and no others."""
    image, theta, size = torch.zeros(1, 1, 4, 6), torch.eye(2, 3)[None], (4, 6)
    said = [message_of(require_finite, float("nan"), 17), compiling_notice(monkeypatch)]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupy", None)
        patch.delitem(sys.modules, "stnlib.engines.cuda", raising=False)
        said.append(message_of(importlib.import_module, "stnlib.engines.cuda"))
    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
        said.append(
            message_of(functional.affine_sample, image, theta, size, padding_mode="wrap")
        )
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        said.append(message_of(functional.affine_sample, image, theta, size, antialias=True))
        with forward_ad.dual_level():
            said.append(message_of(functional.affine_sample, image, theta, size))
    assert sorted(said) == sorted(block.strip() for block in blocks(PAGE, "text"))


def compiling_notice(monkeypatch):
    """What the CPU engine says when it has compiled for a while."""
    pytest.importorskip("numba")
    from stnlib.engines import cpu

    monkeypatch.delenv("STNLIB_QUIET", raising=False)
    monkeypatch.setattr(cpu, "NOTICE_AFTER", 0)
    until = time.monotonic() + 30
    with redirect_stderr(io.StringIO()) as said, cpu._notice():
        while not said.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    return said.getvalue().strip()


def test_there_is_a_heading_for_each_trouble():
    """At least twenty, each of its own name, since readers come by the links to them."""
    symptoms = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    assert len(symptoms) == len(set(symptoms)) >= 20
