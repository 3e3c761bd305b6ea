"""The package's own source, for a chapter to show: never a copy of it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._extras import require

PACKAGE = Path(__file__).parents[1]
CUDA = PACKAGE / "engines" / "sampler.cu"


def show_source(*objects: Any) -> Any:
    """Return the source of functions or classes, each docstring cut to its first line, as a chapter shows it.

    Parameters
    ----------
    *objects
        Functions or classes written in Python, or their names: ``"engines.cuda:GPU.on_stream"`` stands for what the
        package's file ``engines/cuda.py`` defines, which is then read, and not imported.

    Returns
    -------
    IPython.display.Markdown
        Displays as highlighted code.

    Raises
    ------
    ValueError
        If a file defines no such name.
    """
    blocks = "\n\n\n".join(
        _without_long_docstrings(
            _named(o) if isinstance(o, str) else inspect.getsource(o)
        ).rstrip()
        for o in objects
    )
    return _markdown("python", blocks, "show_source")


def show_cuda(*names: str) -> Any:
    """Return definitions of the CUDA source ``sampler.cu``, with the comments above them, as a chapter shows them.

    Parameters
    ----------
    *names : str
        Of functions, kernels, structs, constants or macros; of a name that is overloaded, all are shown.

    Returns
    -------
    IPython.display.Markdown
        Displays as highlighted code.

    Raises
    ------
    ValueError
        If the source defines no such name.
    """
    found: dict[str, list[str]] = {}
    for name, text in _cuda_definitions(CUDA.read_text(encoding="utf-8")):
        found.setdefault(name, []).append(text)
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"names: {CUDA.name} defines no {', '.join(missing)}")
    blocks = "\n\n".join("\n".join(found[name]) for name in names)
    return _markdown("cuda", blocks, "show_cuda")


def _named(name: str) -> str:
    """Return the source of what a file of the package defines."""
    module, _, path = name.partition(":")
    source = (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    node: Any = ast.parse(source)
    for part in path.split("."):
        found = [n for n in node.body if getattr(n, "name", None) == part]
        if not found:
            raise ValueError(f"objects: {module} defines no {path}")
        node = found[0]
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


def _markdown(language: str, code: str, caller: str) -> Any:
    display = require("IPython.display", "book", caller)
    return display.Markdown(f"```{language}\n{code}\n```")


def _cuda_definitions(source: str) -> Iterator[tuple[str, str]]:
    """Yield each definition at the top level of a CUDA source: its name, and its text with the comment above it."""
    comment: list[str] = []
    lines: list[str] = []
    depth = 0
    for line in source.splitlines():
        code = line.partition("//")[0].rstrip()
        if not lines and not code:
            comment = [*comment, line] if line.startswith("//") else []
            continue
        lines.append(line)
        depth += code.count("{") - code.count("}")
        whole = depth == 0 and code.endswith(("}", ";"))
        if not line.endswith("\\") if lines[0].startswith("#") else whole:
            if name := _cuda_name(" ".join(lines)):
                yield name, "\n".join([*comment, *lines])
            comment, lines = [], []


def _cuda_name(code: str) -> str | None:
    """Return the name that a piece of CUDA code defines."""
    if code.startswith("#"):
        named = re.match(r"#define\s+(\w+)\s+\S", code)
        return named[1] if named else None
    head = re.sub(r"^template\s*<[^<>]*>\s*|__launch_bounds__\s*\([^()]*\)", "", code)
    for pattern in (
        r"(?:struct|enum)\s+(\w+)(?:<\w+>)?\s*\{",
        r"const\s+\w+\s+(\w+)\s*=",
        r"using\s+(\w+)\s*=",
        r'(?:extern "C" |__device__ |__global__ )[^(){}=]*?(\w+)\s*\(',
    ):
        if named := re.match(pattern, head):
            return named[1]
    return None


def _without_long_docstrings(source: str) -> str:
    """Cut every docstring to its first line."""
    source = textwrap.dedent(source)
    lines = source.splitlines()
    for node in reversed(list(ast.walk(ast.parse(source)))):
        if (
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            and ast.get_docstring(node) is not None
        ):
            docstring = node.body[0]
            first, last = docstring.lineno - 1, (docstring.end_lineno or docstring.lineno) - 1
            if last > first:
                lines[first : last + 1] = [lines[first].rstrip() + '"""']
    return "\n".join(lines)
