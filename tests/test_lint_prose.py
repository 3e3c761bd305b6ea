import subprocess
import sys
from pathlib import Path

import lint_prose
import pytest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It is simply a sum.", ["'simply'"]),
        (
            "One line.\n\nThe color and the center.",
            ["page.md:3: 'color'", "page.md:3: 'center'"],
        ),
        ("Of course.", ["'Of course'"]),
        ("Use `color='gray'`, $center$ and [a link](color.md).", []),
        ("```python\nnormalize(color)\n```\nThe colour is normalised.", []),
        ("```{exercise-start}\nNormalize it.\n```", ["page.md:2: 'Normalize'"]),
    ],
)
def test_words_are_found_in_prose_alone(text, said):
    found = sorted(lint_prose.words("page.md", text))
    assert len(found) == len(said)
    assert all(any(part in line for line in found) for part in said)


def test_a_misspelt_word_fails_and_is_named_with_its_page(tmp_path, monkeypatch, capsys):
    (tmp_path / "book").mkdir()
    wrong = "reci" + "eves"  # in one piece, this file would fail the check
    (tmp_path / "book" / "page.md").write_text(f"A network that {wrong}.\n")
    monkeypatch.setattr(lint_prose, "ROOT", tmp_path)
    assert lint_prose.main() == 1
    out = capsys.readouterr().out
    assert f"book/page.md:1: {wrong} ==> receives" in out


def test_it_runs_alone():
    done = subprocess.run(
        [sys.executable, Path(lint_prose.__file__)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
