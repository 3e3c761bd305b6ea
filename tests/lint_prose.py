"""Spelling and words of the book's prose, for `make lint`: codespell, and a list of words that the book does without.

Looked at are the pages, the text and code of the chapters (not their outputs), and the package's sources.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Names, a part of a word, and a mistake made on purpose.
FINE = ["fro", "mis", "paeth", "trian", "unser"]
# What is not written here, and what is. The first are fillers; the others, American spellings.
WORDS = {
    r"simply|of course|obviously|trivially|needless to say|as everyone knows": "nothing: leave it out",
    r"state[- ]of[- ]the[- ]art|blazing\w*|cutting[- ]edge": "a number",
    r"utili[sz]e\w*": "use",
    r"leverag(?:e[sd]?|ing)": "use",
    r"in order to": "to",
    r"normaliz\w+": "normalis…",
    r"optimiz\w+": "optimis…",
    r"initializ\w+": "initialis…",
    r"regulariz\w+": "regularis…",
    r"visualiz\w+": "visualis…",
    r"generaliz\w+": "generalis…",
    r"minimiz\w+|maximiz\w+": "…mis…",
    r"colors?": "colour",
    r"behaviors?": "behaviour",
    r"neighbors?": "neighbour",
    r"centers?|centered|centering": "centre",
    r"gray(?:scale)?": "grey",
    r"modeling|labeled|labeling|traveled": "…ll…",
    r"analyz\w+": "analys…",
}
# Code, formulae and addresses are not prose.
NOT_PROSE = re.compile(
    r"```(?!\{(?:exercise|solution|note|tip|warning|admonition|figure|important|seealso)).*?```"
    r"|\$\$.*?\$\$|\$[^$\n]+\$|`[^`\n]*`|\]\([^)]*\)|https?://\S+|<[^>\n]+>",
    re.DOTALL,
)


def texts() -> Iterator[tuple[str, str, bool]]:
    """Yield a name, a text, and whether it is prose, of all that is looked at."""
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            prose = cell["cell_type"] == "markdown"
            yield f"{path.relative_to(ROOT)}:cell{number}", "".join(cell["source"]), prose
    for path in [*ROOT.glob("*.md"), *(ROOT / "book").glob("*.md")]:
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"), True
    for folder in ("stnlib", "tests", "book/_static"):
        for path in sorted((ROOT / folder).rglob("*")):
            ours = (
                path.suffix in {".py", ".js", ".css", ".cu", ".h"}
                and "mathjax" not in path.parts
            )
            if ours and path.stat().st_size < 300_000:  # not a network's weights
                yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"), False


def words(name: str, text: str) -> Iterator[str]:
    """Yield what a prose text says and should not, one line each."""
    prose = NOT_PROSE.sub(lambda code: "\n" * code.group().count("\n"), text)
    for pattern, instead in WORDS.items():
        for found in re.finditer(rf"\b(?:{pattern})\b", prose, re.IGNORECASE):
            line = prose.count("\n", 0, found.start()) + 1
            yield f"{name}:{line}: {found.group()!r}; write {instead}"


def main() -> int:
    """Look at everything; return 1 if anything was found."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, text, prose in texts():
            if prose:
                found += words(name, text)
            copy = Path(folder, name.replace("/", "__"))
            copy.write_text(text, encoding="utf-8")
        spelling = subprocess.run(
            [sys.executable, "-m", "codespell_lib", "-L", ",".join(FINE), folder],
            capture_output=True,
            text=True,
        )
        found += spelling.stdout.replace(f"{folder}/", "").replace("__", "/").splitlines()
    print("\n".join(found) or "Spelling and words: nothing found.")
    return 1 if found or spelling.stderr else 0


if __name__ == "__main__":
    sys.exit(main())
