import os
import zlib

import pytest
import torch
from browsing import browser, open_figure  # noqa: F401 - fixtures for all
from hypothesis import HealthCheck, settings

from stnlib import engines
from stnlib.engines.emulator import NoCompilerError, compiler

# One machine's failure is the next one's: the examples are the same in every run, unless `nightly` is asked for.
# An engine that is chosen for a test holds for all of its examples.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
settings.register_profile("repeatable", derandomize=True, max_examples=25, **COMMON)
settings.register_profile("nightly", max_examples=2000, **COMMON)
settings.load_profile("repeatable")

EVERY = {
    "test_engines.py": 12,
    "test_functional.py": 12,
    "test_sampling.py": 10,
}  # so many cases a run; all, nightly
# So are those of the kernels that the reference alone has, whose second derivatives take long, and those of NVRTC:
# the record of all of these is of the present source, as a test says.
EVERY_OTHER = {"test_functional.py": 5, "test_engines_nvrtc.py": 3}
# Kernels that every engine covers; the last is one of the third's kind.
COVERED = ("nearest", "bilinear", "bicubic", "keys")


@pytest.fixture(autouse=True, scope="session")
def _torch_repeats_itself():
    """Make sums the same on any number of cores, and a warning an error in whichever test comes first."""
    torch.set_num_threads(1)
    torch.set_warn_always(True)


@pytest.fixture(params=["reference", "cpu", "emulator"])
def engine(request):
    """Let one engine serve; a test that uses this runs once with each. For chosen ones: parametrise, ``indirect``."""
    try:
        if request.param == "emulator":
            compiler()
        with engines.use(request.param):
            yield request.param
    except (ModuleNotFoundError, NoCompilerError) as error:  # not what a test raises
        pytest.skip(str(error))


def pytest_collection_modifyitems(items):
    """With an engine, leave out what would be the reference's again, and all but a part of very many cases."""
    items[:] = [item for item in items if not _is_left_out(item)]


def _is_left_out(item):
    case = getattr(item, "callspec", None)
    if case is None:
        return False
    kernel = case.params.get("kernel", case.params.get("mode"))
    rare = isinstance(kernel, str) and kernel not in COVERED
    by_engine = case.params.get("engine", "reference") != "reference"
    if by_engine and rare:
        return True
    share = EVERY if by_engine else EVERY_OTHER if rare or "case" in case.params else {}
    every = 1 if os.environ.get("STNLIB_SLOW") else share.get(item.path.name, 1)
    return zlib.crc32(item.nodeid.encode()) % every > 0


@pytest.fixture
def served(monkeypatch):
    """Return a list that grows by (engine, "sample" or "sample_vjp") whenever an engine computes something."""
    calls = []

    def watch(name, called):
        def spy(engine, *arguments):
            module = engine.module.__name__.rpartition(".")[2]
            calls.append(("emulator" if module == "emulated" else module, name))
            return called(engine, *arguments)

        monkeypatch.setattr(engines.Engine, name, spy)

    watch("sample", engines.Engine.sample)
    watch("sample_vjp", engines.Engine.sample_vjp)
    return calls
