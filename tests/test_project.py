"""The files around the code: they agree with each other and with the package."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import stnlib

ROOT = Path(__file__).parents[1]
# Packages that conda-forge knows by another name.
CONDA_NAMES = {"torch": "pytorch", "opencv-python-headless": "py-opencv"}
CONDA_ONLY = {"python", "pip"}
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]

needs_make = pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("make") is None,
    reason="needs make, on Linux or macOS",
)


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(_read("pyproject.toml"))["project"]


def _declared(extra: str | None = None) -> dict[str, SpecifierSet]:
    """Return the bounds of what an extra brings, its own extras of stnlib expanded, and the package's dependencies.

    What is for one platform alone is left out: see `_for_one_platform`.
    """
    lines = (
        PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    )
    bounds = _declared() if extra is not None else {}
    for requirement in map(Requirement, lines):
        if requirement.name == "stnlib":
            for other in sorted(requirement.extras):
                bounds |= _declared(other)
        elif requirement.marker is None:
            bounds[canonicalize_name(requirement.name)] = requirement.specifier
    return bounds


def _for_one_platform() -> list[Requirement]:
    return [
        requirement
        for requirement in map(Requirement, PROJECT["optional-dependencies"]["test"])
        if requirement.marker is not None
    ]


def _of_conda() -> dict[str, SpecifierSet]:
    lines = [
        line
        for line in yaml.safe_load(_read("environment.yml"))["dependencies"]
        if isinstance(line, str)
    ]
    return {requirement.name: requirement.specifier for requirement in map(Requirement, lines)}


def _pins() -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in _read("requirements.lock").splitlines()]
    pins = {}
    markers = {r.name: f"; {r.marker}" for r in _for_one_platform()}
    for line in filter(None, lines):
        line = line.removesuffix(markers.get(line.partition("==")[0], ""))
        assert re.fullmatch(r"[\w.-]+==[\w.!+-]+", line), (
            f"requirements.lock: not a pin: {line}"
        )
        name, _, version = line.partition("==")
        assert canonicalize_name(name) not in pins, f"requirements.lock: {name} is pinned twice"
        pins[canonicalize_name(name)] = version
    return pins


def test_package_alone_needs_numpy_and_array_api_compat():
    assert _declared().keys() == {"numpy", "array-api-compat"}


def test_import_brings_nothing_else():
    code = "import sys, stnlib; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    optional = {
        "torch",
        "numba",
        "cupy",
        "matplotlib",
        "scipy",
        "skimage",
        "pooch",
        "rich",
        "IPython",
        "PIL",
    }
    assert "numpy" in loaded
    assert not optional & set(loaded)


def test_extras_are_those_that_the_readme_lists():
    rows = re.findall(r"^\| (`.+?) \|", _read("README.md"), re.MULTILINE)
    assert [extra for row in rows for extra in re.findall(r"`(\w+)`", row)] == list(
        PROJECT["optional-dependencies"]
    )


def test_environment_is_the_test_extra():
    expected = {
        CONDA_NAMES.get(name, name): bounds for name, bounds in _declared("test").items()
    }
    found = {name: bounds for name, bounds in _of_conda().items() if name not in CONDA_ONLY}
    assert found.keys() - expected.keys() == set(), "in environment.yml alone"
    assert expected.keys() - found.keys() == set(), "in pyproject.toml alone"
    assert found == expected


def test_environment_has_the_same_python_and_installs_the_package_last():
    assert _of_conda()["python"] == SpecifierSet(PROJECT["requires-python"])
    assert yaml.safe_load(_read("environment.yml"))["dependencies"][-1] == {"pip": ["-e ."]}


def test_every_bound_has_a_lower_one():
    extras = _declared()
    for extra in PROJECT["optional-dependencies"]:
        extras |= _declared(extra)
    for name, bounds in extras.items():
        assert any(bound.operator == ">=" for bound in bounds), name


def test_lock_pins_the_test_extra_within_its_bounds():
    pins = _pins()
    for name, bounds in _declared("test").items():
        assert name in pins, f"requirements.lock does not pin {name}: make lock"
        assert bounds.contains(pins[name]), (
            f"requirements.lock pins {name} {pins[name]}, outside {bounds}: make lock"
        )
    assert "stnlib" not in pins


def test_what_is_for_one_platform_is_pinned_for_it_and_bounded():
    pins = _pins()
    assert {requirement.name for requirement in _for_one_platform()} == {
        "nvidia-cuda-nvrtc",
        "nvidia-cuda-runtime",
    }
    for requirement in _for_one_platform():
        assert requirement.specifier.contains(pins[requirement.name])
        assert any(bound.operator == ">=" for bound in requirement.specifier)
        assert f"{requirement.name}=={pins[requirement.name]}; {requirement.marker}\n" in _read(
            "requirements.lock"
        )


def test_versions_agree():
    citation = yaml.safe_load(_read("CITATION.cff"))
    assert citation["version"] == stnlib.__version__
    newest = re.search(r"^## \[(\d.+?)\]", _read("CHANGELOG.md"), re.MULTILINE)
    assert newest
    assert newest[1] == stnlib.__version__


def test_citation_is_complete():
    citation = yaml.safe_load(_read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation.keys() >= {"message", "title", "authors", "date-released", "license"}
    assert citation["authors"] == [{"name": "The stnlib authors"}]
    assert PROJECT["authors"] == citation["authors"]
    (paper,) = citation["references"]
    assert paper["title"] == "Spatial Transformer Networks"
    assert [author["family-names"] for author in paper["authors"]] == [
        "Jaderberg",
        "Simonyan",
        "Zisserman",
        "Kavukcuoglu",
    ]
    assert paper["year"] == 2015


def _python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", _read(page), re.MULTILINE | re.DOTALL)


def test_readme_code_prints_what_it_says(capsys):
    blocks = _python_blocks("README.md")
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
        (said,) = re.findall(r"^print.*  # (.+)$", block, re.MULTILINE)
        assert capsys.readouterr().out.strip() == said


def test_readme_code_is_short():
    assert all(len(block.splitlines()) <= 12 for block in _python_blocks("README.md"))


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page):
    links = [
        link
        for link in re.findall(r"\]\(([^)\s]+)\)", _read(page))
        if not link.startswith("https://")
    ]
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert page != "README.md" or "book/_static/overview.png" in links


def test_readme_links_every_chapter_of_the_table_of_contents():
    toc = yaml.safe_load(_read("_toc.yml"))
    chapters = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    numbered = [chapter for chapter in chapters if re.match(r"book/\d\d_", chapter)]
    linked = re.findall(
        r"^(\d)\. \[[^]]+\]\((book/\d\d_\w+)\.\w+\)", _read("README.md"), re.MULTILINE
    )
    assert [file for _, file in linked] == numbered
    assert all(int(number) == int(file[5:7]) for number, file in linked)


def _targets() -> set[str]:
    phony = re.search(r"^\.PHONY: (.+)$", _read("Makefile"), re.MULTILINE)
    assert phony
    return set(phony[1].split())


@needs_make
def test_make_help_lists_every_target():
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"MAKEFLAGS", "MAKELEVEL"}
    }
    result = subprocess.run(
        ["make", "help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    listed = dict(re.findall(r"^make (\w+)\s+(\S.*)$", result.stdout, re.MULTILINE))
    assert listed.keys() == _targets()


def test_every_phony_target_is_there():
    assert set(re.findall(r"^([a-z]+):", _read("Makefile"), re.MULTILINE)) == _targets()


@pytest.mark.parametrize("page", [*PAGES, "book/how_to_read.md"])
def test_commands_that_are_named_exist(page):
    text = _read(page)
    code = "\n".join(
        re.findall(r"^```(?:sh|bash|shell)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    )
    code += "\n" + "\n".join(re.findall(r"`([^`\n]+)`", text))
    arguments = [line.split()[1:] for line in re.findall(r"^make [^#\n]*", code, re.MULTILINE)]
    targets = [word for words in arguments for word in words if "=" not in word]
    assert set(targets) <= _targets()
    modules = re.findall(r"python -m (stnlib[\w.]*)", code)
    assert [
        module for module in modules if not (ROOT / (module.replace(".", "/") + ".py")).exists()
    ] == []
    installed = {
        extra
        for extras in re.findall(r'pip install "\.\[([\w,]+)\]"', text)
        for extra in extras.split(",")
    }
    assert installed <= PROJECT["optional-dependencies"].keys()


def test_readme_names_the_two_commands():
    assert re.search(r"^make book ", _read("README.md"), re.MULTILINE)
    assert re.search(r"^make test ", _read("README.md"), re.MULTILINE)


def test_contributing_names_every_target():
    assert set(re.findall(r"`make (\w+)", _read("CONTRIBUTING.md"))) >= _targets()


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name
)
def test_workflows_pin_their_actions_and_call_what_exists(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    for step in steps:
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])
        if match := re.match(r"make (\w+)", step.get("run", "")):
            assert match[1] in _targets()


def test_workflow_tests_the_oldest_and_the_newest_python_everywhere():
    matrix = yaml.safe_load(_read(".github/workflows/tests.yml"))["jobs"]["unit"]["strategy"][
        "matrix"
    ]
    assert matrix["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    named = [
        c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)
    ]
    assert matrix["python"] == [named[0], named[-1]]
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_hooks_call_what_is_there():
    hooks = {
        hook["id"]: hook
        for repo in yaml.safe_load(_read(".pre-commit-config.yaml"))["repos"]
        for hook in repo["hooks"]
    }
    for name in ("ruff-check", "ruff-format", "notebooks"):
        assert hooks[name]["entry"].startswith(".venv/bin/")
    assert (ROOT / hooks["notebooks"]["entry"].split()[-1]).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no executable bit")
def test_ci_script_can_be_run():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


REFERENCE = ["sampling", "gather_scatter", "interpolation", "padding", "prefilter", "footprint"]


@pytest.mark.parametrize("module", REFERENCE)
def test_no_function_of_the_reference_is_longer_than_a_screen(module):
    source = _read(f"stnlib/{module}.py")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and node.body[1:] else node.body
            assert body[-1].end_lineno - body[0].lineno < 36, node.name
