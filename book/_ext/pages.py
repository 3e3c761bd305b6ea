"""What Sphinx's pages need to be read by everybody: a little mending of its HTML, after it is written."""

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
    """Replace in a page's body what accessibility checkers complain of."""
    for wrong, right in MENDED.items():
        context["body"] = context.get("body", "").replace(wrong, right)


def setup(app: Sphinx) -> dict[str, bool]:
    """Join Sphinx."""
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
