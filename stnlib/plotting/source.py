"""The package's own source, for a chapter to show: never a copy of it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from .._extras import require


def show_source(*objects: Any) -> Any:
    """Return the source of functions or classes, each docstring cut to its first line, as a chapter shows it.

    Parameters
    ----------
    *objects
        Functions or classes written in Python.

    Returns
    -------
    IPython.display.Markdown
        Displays as highlighted code.
    """
    blocks = "\n\n\n".join(
        _without_long_docstrings(inspect.getsource(o)).rstrip() for o in objects
    )
    display = require("IPython.display", "book", "show_source")
    return display.Markdown(f"```python\n{blocks}\n```")


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
