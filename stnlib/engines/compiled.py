"""The kernels of ``sampler.cu``, compiled for GPUs that need not be there: what they take.

NVRTC compiles them, as it does for CuPy on a machine with a GPU; where it is not installed, nvcc. What comes of every
case is in ``results/kernels.json`` (`stnlib.experiments.kernels`).
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import launch

ARCHITECTURES = (75, 80, 90, 100)  # Turing, Ampere, Hopper, Blackwell: sm_75, …


class Usage(NamedTuple):
    """What one kernel takes: registers of a thread; bytes of its own memory, of them spilled; bytes a block shares."""

    registers: int
    stack: int
    spilled: int
    shared: int


class NoCompilerError(RuntimeError):
    """There is neither NVRTC nor nvcc."""


def usage(
    options: Sequence[str], architecture: int, source: str | None = None
) -> dict[str, Usage]:
    """Compile the kernels for one architecture, with NVRTC or, where that is missing, with nvcc.

    Parameters
    ----------
    options : sequence of str
        One of `stnlib.engines.launch.configurations`.
    architecture : int
        90 for sm_90, and so on.
    source : str, optional
        In place of ``sampler.cu``.

    Returns
    -------
    dict of str to Usage
        For each kernel.

    Raises
    ------
    NoCompilerError
        If there is neither.
    RuntimeError
        If the source does not compile. The compiler's message is in this one.
    """
    source = launch.SOURCE.read_text(encoding="utf-8") if source is None else source
    every = (*options, f"-arch=sm_{architecture}", "--ptxas-options=-v")
    found = compiler()
    printed = (
        _nvcc(found, source, every) if isinstance(found, str) else found.compile(source, every)
    )
    return _understood(printed)


def compiler() -> NVRTC | str:
    """Return NVRTC, or where nvcc is.

    Raises
    ------
    NoCompilerError
        If there is neither.
    """
    found = _nvrtc() or shutil.which("nvcc")
    if found is None:
        raise NoCompilerError(
            "to compile CUDA takes NVRTC (pip install nvidia-cuda-nvrtc nvidia-cuda-runtime) or nvcc"
        )
    return found


class NVRTC:
    """The library that compiles CUDA C++ while a program runs, out of NVIDIA's packages."""

    def __init__(self, library: Path, headers: Path) -> None:
        # The other one is looked for by its name, where no search would find it: it must be there before.
        self._loaded = [
            ctypes.CDLL(str(path)) for path in library.parent.glob("libnvrtc-builtins.so*")
        ]
        self._library = ctypes.CDLL(str(library))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        self._headers = headers

    @property
    def version(self) -> str:
        """Its version, as ``13.0``."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def compile(self, source: str, options: Sequence[str]) -> str:
        """Compile a source, and return what is said on the way.

        Parameters
        ----------
        source : str
        options : sequence of str

        Returns
        -------
        str
        """
        program = ctypes.c_void_p()
        every = [option.encode() for option in (*options, f"-I{self._headers}")]
        self._call(
            "nvrtcCreateProgram",
            *(ctypes.byref(program), source.encode(), b"sampler.cu", 0, None, None),
        )
        try:
            passed = (ctypes.c_char_p * len(every))(*every)
            status = self._library.nvrtcCompileProgram(program, len(every), passed)
            size = ctypes.c_size_t()
            self._call("nvrtcGetProgramLogSize", program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            self._call("nvrtcGetProgramLog", program, log)
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))
        printed = log.value.decode()
        if status:
            raise RuntimeError(f"NVRTC rejects the kernels:\n{printed}")
        return printed

    def _call(self, function: str, *arguments: Any) -> None:
        status = self._library[function](*arguments)
        if status:
            raise RuntimeError(
                f"{function}: {self._library.nvrtcGetErrorString(status).decode()}"
            )


@functools.cache
def _nvrtc() -> NVRTC | None:
    """Return the library, if its package and that of the headers are installed."""
    library = _installed("nvidia-cuda-nvrtc", r"libnvrtc\.so\.\d+")
    header = _installed("nvidia-cuda-runtime", r"cuda_fp16\.h")
    return NVRTC(library, header.parent) if library and header else None


def _installed(package: str, name: str) -> Path | None:
    """Return where a file of an installed package is."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(f.locate())) for f in files if re.fullmatch(name, f.name)), None)


def _nvcc(nvcc: str, source: str, options: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "sampler.cu")
        file.write_text(source, encoding="utf-8")
        command = [nvcc, *options, "-cubin", "-o", str(file.with_suffix(".cubin")), str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nvcc rejects the kernels:\n{done.stderr}")
    return done.stdout + done.stderr


def _understood(printed: str) -> dict[str, Usage]:
    """Return what the assembler says of each kernel."""
    found: dict[str, Usage] = {}
    for part in re.split(r"Compiling entry function '", printed)[1:]:
        name = part.partition("'")[0]
        own = part.partition(f"Function properties for {name}")[2]
        numbers = {
            key: int(match[1]) if (match := re.search(rf"(\d+) {words}", own)) else 0
            for key, words in {
                "registers": "registers",
                "stack": "bytes stack frame",
                "stores": "bytes spill stores",
                "loads": "bytes spill loads",
                "shared": "bytes smem",
            }.items()
        }
        spilled = max(numbers.pop("stores"), numbers.pop("loads"))
        found[name] = Usage(spilled=spilled, **numbers)
    return found


def label(options: Sequence[str]) -> str:
    """Return a configuration in short: what images hold, dimensions, neighbours along an axis, indices.

    Examples
    --------
    >>> label(launch.configurations()[0])
    'float 2D 1 int'
    """
    macros = dict(re.findall(r"^-D(\w+)=(.+)$", "\n".join(options), re.MULTILINE))
    return f"{macros['IMAGE']} {macros['DIMS']}D {macros['TAPS']} {macros['INDEX']}"
