"""The CUDA kernels compiled for GPUs, with no GPU: by NVRTC, as CuPy does it, or by nvcc."""

import os
import sys
from pathlib import Path

import pytest

from stnlib.engines import compiled, launch
from stnlib.experiments import kernels, records

CASES = launch.configurations()
RECORD = Path(__file__).parents[1] / "results" / "kernels.json"

try:
    compiled.compiler()
    MISSING = ""
except compiled.NoCompilerError as error:
    MISSING = str(error)

needs_compiler = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def architectures(case):
    """Return those that a case is compiled for here: two, and the same case with the other indices for the other two.

    The record, whose source must be this one, has them all.
    """
    if os.environ.get("STNLIB_SLOW"):
        return compiled.ARCHITECTURES
    return compiled.ARCHITECTURES[(case + case // 2) % 2 :: 2]


@needs_compiler
@pytest.mark.parametrize(
    "case", range(len(CASES)), ids=lambda case: compiled.label(CASES[case])
)
def test_every_kernel_compiles_and_spills_nothing(case):
    for architecture in architectures(case):
        usage = compiled.usage(CASES[case], architecture)
        assert len(usage) == 11
        for name, taken in usage.items():
            assert taken.spilled == 0, (name, architecture)
            assert 0 < taken.registers < 255, (name, architecture)  # 256 threads have 65536
            assert taken.shared <= 48 * 1024, (
                name,
                architecture,
            )  # what a block may have unasked


def test_each_case_is_compiled_for_every_architecture_with_one_kind_of_index():
    pairs = {
        (*compiled.label(options).split()[:3], architecture)
        for case, options in enumerate(CASES)
        for architecture in architectures(case)
    }
    assert len(CASES) == 48
    assert len(pairs) == 24 * len(compiled.ARCHITECTURES)


def test_the_record_is_of_this_source_and_says_that_nothing_spills():
    record = records.read(RECORD)
    assert record["source"] == kernels.source_hash(), (
        "sampler.cu has changed: python -m stnlib.experiments.kernels"
    )
    assert record["spilled"] == 0
    assert list(record["kernels"]) == [compiled.label(options) for options in CASES]
    for of_case in record["kernels"].values():
        assert list(of_case) == [f"sm_{a}" for a in compiled.ARCHITECTURES]
        assert all(len(taken["registers"]) == 11 for taken in of_case.values())
        assert not any(taken["spilled"] for taken in of_case.values())


SOURCE = """
extern "C" __global__ void copy(float* to, const float* from) { to[threadIdx.x] = from[threadIdx.x]; }
extern "C" __global__ void __launch_bounds__(1024, 2) crowded(float* x) {  // 100 numbers in 32 registers
    float many[100];
    for (int i = 0; i < 100; i++) many[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
    for (int i = 0; i < 100; i++) x[i * 1024 + threadIdx.x] = many[99 - i] * many[i];
}
"""


@needs_compiler
def test_a_spill_would_be_seen():
    usage = compiled.usage(["-std=c++17"], 90, SOURCE)
    assert usage.keys() == {"copy", "crowded"}
    assert usage["copy"].spilled == 0
    assert usage["crowded"].spilled > 100
    assert usage["crowded"].registers == 32


@needs_compiler
def test_what_the_compiler_says_of_a_mistake_is_shown():
    with pytest.raises(RuntimeError, match=r"rejects the kernels:\n(.*\n)+.*nonsense"):
        compiled.usage(["-std=c++17"], 90, "nonsense;")


PRINTED = """\
ptxas info    : 8 bytes gmem
ptxas info    : Compiling entry function 'one' for 'sm_90'
ptxas info    : Function properties for one
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 72 bytes smem
ptxas info    : Compiling entry function 'other' for 'sm_90'
ptxas info    : Function properties for helper
    99 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for other
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 376 bytes cmem[0]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_nvcc_serves_where_nvrtc_is_missing(tmp_path, monkeypatch):
    said, nvcc = tmp_path / "said", tmp_path / "nvcc"
    said.write_text(PRINTED)
    nvcc.write_text(
        "#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\n"
        f'grep -q wrong "$1" && exit 1\ncat {said} >&2\n'
    )
    nvcc.chmod(0o755)
    monkeypatch.setattr(compiled, "_nvrtc", lambda: None)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert compiled.compiler() == str(nvcc)
    assert compiled.usage([], 90) == {"one": (40, 16, 12, 72), "other": (8, 0, 0, 0)}
    with pytest.raises(RuntimeError, match="nvcc rejects"):
        compiled.usage([], 90, "wrong")
    nvcc.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(compiled.NoCompilerError, match="pip install nvidia-cuda-nvrtc"):
        compiled.compiler()


def test_the_program_writes_the_record(tmp_path, monkeypatch, capsys):
    usage = {"one": compiled.Usage(40, 16, 12, 72), "other": compiled.Usage(8, 0, 0, 0)}
    monkeypatch.setattr(compiled, "compiler", lambda: "/somewhere/nvcc")
    monkeypatch.setattr(compiled, "usage", lambda options, architecture: usage)
    path = tmp_path / "kernels.json"
    kernels.main(["--output", str(path)])
    record = records.read(path)
    assert record["source"] == kernels.source_hash()
    assert record["environment"]["compiler"] == "nvcc"
    assert record["spilled"] == 12 * len(CASES) * len(compiled.ARCHITECTURES)
    assert record["kernels"]["float 2D 1 int"]["sm_80"] == {
        "registers": {"one": 40, "other": 8},
        "stack": {"one": 16},
        "spilled": {"one": 12},
    }
    assert (
        "one              at most  40 registers (float 2D 1 int, sm_75)"
        in capsys.readouterr().out
    )
