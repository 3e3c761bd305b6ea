"""The buttons that open a chapter on Colab and Binder, and the cell that installs what is missing there."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
ADDRESS = "https://github.com/somebody/stn"


def first_cell(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    cell = next(cell for cell in cells if cell["cell_type"] == "code")
    return "".join(cell["source"]), cell["metadata"].get("tags")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_begins_with_the_cell_and_the_address_of_the_configuration(notebook):
    source, tags = first_cell(notebook)
    address = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    assert f'REPOSITORY = "{address}"  # the one in _config.yml\n' in source
    assert source == first_cell(NOTEBOOKS[0])[0]
    assert tags == ["remove-cell"]


@pytest.mark.parametrize("missing", [True, False])
def test_the_cell_fetches_and_installs_what_is_missing(tmp_path, monkeypatch, missing):
    from IPython.core.interactiveshell import InteractiveShell

    git = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull}
    git |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    there = tmp_path / "there"
    (there / "book").mkdir(parents=True)
    (there / "book" / "page.md").write_text("A page.")
    for command in ("init", "add .", "commit -m one"):
        subprocess.run(
            ["git", "-C", there, *command.split()],
            check=True,
            capture_output=True,
            env=os.environ | git,
        )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if missing else found(name)
    )
    shell, installed = InteractiveShell(), []
    shell.register_magic_function(installed.append, magic_name="pip")
    source = first_cell(NOTEBOOKS[0])[0]
    source = re.sub('REPOSITORY = ".*"', f'REPOSITORY = "{there.as_uri()}"', source)
    shell.run_cell(source).raise_error()
    if missing:
        assert installed == ['install --quiet "./stn[book]"']
        assert Path.cwd() == tmp_path / "here" / "stn" / "book"
        assert Path("page.md").exists()
    else:
        assert installed == []
        assert Path.cwd() == tmp_path / "here"


def test_with_an_address_there_are_buttons_and_without_none(tmp_path):
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["sphinx"]["local_extensions"] = {"pages": str(ROOT / "book" / "_ext")}
    config["sphinx"]["extra_extensions"] = []
    config["sphinx"]["config"] = {}
    del config["bibtex_bibfiles"]
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    notebook = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    notebook["cells"] = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# A page"]}
    ]
    (tmp_path / "page.ipynb").write_text(json.dumps(notebook))
    for address in (ADDRESS, ""):
        config["repository"]["url"] = address
        (tmp_path / "_config.yml").write_text(yaml.safe_dump(config))
        subprocess.run(
            [Path(sys.executable).with_name("jupyter-book"), "build", tmp_path, "-W", "-q"],
            check=True,
            capture_output=True,
            timeout=240,
        )
        page = (tmp_path / "_build" / "html" / "page.html").read_text(encoding="utf-8")
        where = "colab.research.google.com/github/somebody/stn/blob/main/page.ipynb"
        assert (where in page) == bool(address)
        where = "mybinder.org/v2/gh/somebody/stn/main?urlpath=lab/tree/page.ipynb"
        assert (where in page) == bool(address)
        assert ("launch-button" in page) == bool(address)
