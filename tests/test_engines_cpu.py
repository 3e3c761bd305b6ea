import threading
import time

import numpy as np
import pytest

import stnlib
from stnlib.engines import _load_or_none

if _load_or_none("cpu") is None:
    pytest.skip("needs Numba", allow_module_level=True)

import numba

from stnlib.engines import cpu, cpu_threads
from stnlib.engines.cpu_threads import in_parallel


@pytest.fixture
def threads():
    """Let a test choose how many there are."""
    yield cpu.set_num_threads
    cpu.set_num_threads(None)


@pytest.fixture
def without_openmp(monkeypatch):
    monkeypatch.setattr(cpu_threads, "_openmp", lambda beside_torch: 0)


def gradients(seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(9, 3, 12, 13)).astype(np.float32)
    theta = (np.eye(2, 3) + 0.3 * rng.normal(size=(9, 2, 3))).astype(np.float32)
    grad = rng.normal(size=(9, 3, 11, 10)).astype(np.float32)
    return stnlib.affine_sample_vjp(grad, image, theta, engine="cpu")[:2]


def assert_same(results, expected):
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, right)


@pytest.mark.parametrize("count", [2, 5])
def test_without_openmp_pythons_threads_give_the_same(count, threads, without_openmp):
    threads(1)
    expected = gradients()
    threads(count)
    for _ in range(20):
        assert_same(gradients(), expected)


def test_without_openmp_several_callers_share_the_threads(threads, without_openmp):
    threads(3)
    expected = [gradients(seed) for seed in range(4)]
    found = [None] * 4

    def call(seed):
        for _ in range(10):
            found[seed] = gradients(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for results, right in zip(found, expected, strict=True):
        assert_same(results, right)


def test_an_error_in_one_of_pythons_threads_is_raised(without_openmp):
    here, together = threading.current_thread(), threading.Barrier(2, timeout=10)

    def kernel(address, threads):
        together.wait()
        if threading.current_thread() is not here:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cpu_threads.share(kernel, (), 2)


@numba.njit(nogil=True)
def _fail(kind, counter):
    if counter[0] == 0:
        raise MemoryError


@numba.njit(nogil=True)
def fail(address, threads, *arguments):
    in_parallel(address, threads, _fail, arguments)


@pytest.mark.parametrize("count", [1, 2])
def test_a_thread_that_fails_says_so(count):
    for first, expected in ((0, 1), (7, 0)):
        counter = np.array([first, 0])
        cpu_threads.share(fail, (0, counter), count)
        assert counter[1] == expected


def test_no_memory_is_an_error_and_no_wrong_result(monkeypatch):
    def share(kernel, arguments, threads):
        arguments[1][1] = 1

    gradients()
    monkeypatch.setattr(cpu, "share", share)
    with pytest.raises(MemoryError, match="CPU engine"):
        gradients()


@pytest.mark.parametrize(
    ("quiet", "wait", "lines"), [(None, 0.3, 1), (None, 0, 0), ("1", 0.3, 0)]
)
def test_a_long_compilation_is_announced_by_one_line(quiet, wait, lines, monkeypatch, capsys):
    monkeypatch.setattr(cpu, "NOTICE_AFTER", 0.1)
    monkeypatch.delenv("STNLIB_QUIET", raising=False)
    if quiet:
        monkeypatch.setenv("STNLIB_QUIET", quiet)
    with cpu._notice():
        time.sleep(wait)
    said = capsys.readouterr().err
    assert said.count("\n") == lines
    assert said.count("compiling") == lines


def test_threads_are_as_many_as_was_said_or_as_pytorch_has_or_as_the_machine(
    threads, monkeypatch
):
    threads(3)
    assert cpu.get_num_threads() == 3
    threads(None)
    torch = pytest.importorskip("torch")
    assert cpu.get_num_threads() == torch.get_num_threads()
    monkeypatch.delitem(cpu_threads.sys.modules, "torch")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert cpu.get_num_threads() == 1
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    assert cpu.get_num_threads() >= 1
    with pytest.raises(ValueError, match="n: expected at least 1 thread, got 0"):
        threads(0)


def test_where_openmp_is_missing_its_address_is_0(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(cpu_threads.ctypes, "CDLL", missing)
    assert cpu_threads._openmp.__wrapped__(True) == 0
