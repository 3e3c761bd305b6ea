"""What the pages need beside Sphinx and its theme: no buttons that lead nowhere, and HTML that everybody can read."""

import re
from typing import Any

from sphinx.application import Sphinx

# docutils marks a bibliography with roles that fit neither each other nor the elements that bear them.
MENDED = {
    ' role="doc-biblioentry"': "",
    '<div role="list" class="citation-list">': '<div class="citation-list">',
}


def mend(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Replace in a page's body what accessibility checkers complain of, and what breaks a line in the wrong place."""
    body = context.get("body", "")
    for wrong, right in MENDED.items():
        body = body.replace(wrong, right)
    # A formula and the full stop or the % behind it stay on one line.
    body = re.sub(
        r'(<span class="math[^>]*>[^<]*</span>)\s%',
        r'<span style="white-space: nowrap">\1&nbsp;%</span>',
        body,
    )
    body = re.sub(
        r'(<span class="math[^>]*>[^<]*</span>)([.,;:?!)]+)',
        r'<span style="white-space: nowrap">\1\2</span>',
        body,
    )
    # A link does not begin with the space before it.
    body = re.sub(r"(Solution to)(<a [^>]*>) ", r"\1 \2", body)
    parts = re.split(
        r"(<pre.*?</pre>|<code.*?</code>|<script.*?</script>)", body, flags=re.DOTALL
    )
    parts[::2] = [on_one_line(part) for part in parts[::2]]
    body = "".join(parts)
    # A long name in the reference may break behind its brackets, dots and underscores.
    body = body.replace(
        '<span class="sig-paren">(</span>', '<span class="sig-paren">(</span><wbr>'
    )
    context["body"] = re.sub(
        r"<cite>stnlib\.[^<]*</cite>",
        lambda name: re.sub(r"(?<=[._(])(?!<)", "<wbr>", name[0]),
        body,
    )


def on_one_line(text: str) -> str:
    """Keep a number and its %, and the two sides of 28 × 28, together."""
    text = re.sub(r"(?<=[\d>])\s%", "\N{NO-BREAK SPACE}%", text)
    return re.sub(r"(?<=\d)\s×\s(?=\d)", "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}", text)


def launch_only_what_is_somewhere(app: Sphinx, config: Any) -> None:
    """Leave the launch buttons out when `_config.yml` names no repository, on which the theme would fail."""
    options = config.html_theme_options
    if not options.get("repository_url"):
        for name in ("launch_buttons", "repository_url", "repository_branch"):
            options.pop(name, None)


def setup(app: Sphinx) -> dict[str, bool]:
    """Join Sphinx."""
    app.connect("config-inited", launch_only_what_is_somewhere)
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
