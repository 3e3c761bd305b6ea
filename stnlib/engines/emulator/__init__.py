"""CUDA kernels without a GPU: the very same source, compiled by the machine's C++ compiler.

A kernel waits at its barriers, shuffles and adds atomically as on a GPU, since each CUDA thread is a fiber (a stack of
its own). It is a test bench and a teaching tool, not a fast engine: it shows that a kernel is right, and with a
sanitizer that it stays within its arrays and has no race.

>>> import numpy as np
>>> module = RawModule('''
... extern "C" __global__ void reverse(float* values) {
...     __shared__ float tile[8];
...     tile[threadIdx.x] = values[threadIdx.x];
...     __syncthreads();
...     values[threadIdx.x] = tile[7 - threadIdx.x];
... }''')
>>> values = np.arange(8, dtype=np.float32)
>>> module.get_function("reverse")((1,), (8,), (values,))
>>> values
array([7., 6., 5., 4., 3., 2., 1., 0.], dtype=float32)

``RawModule`` and its kernels are called as CuPy's are, so one launch code serves both. What a kernel may use is in
``include/cuda_on_cpu.h``; how its threads run is in ``runtime.cpp``.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import operator
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "CompileError",
    "EmulatorError",
    "Kernel",
    "NoCompilerError",
    "RawModule",
    "cache_folder",
    "compiler",
    "sanitized_command",
]

HERE = Path(__file__).parent
SCHEDULES = ("sequential", "interleaved", "random")
FLAGS = [
    *("-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-w"),
    "-ffp-contract=off",  # a * b + c rounds twice, on every machine
    "-fno-strict-aliasing",  # kernels look at bits
]

LONG_OPTIONS = {
    "--define-macro": "-D",
    "--undefine-macro": "-U",
    "--include-path": "-I",
    "--std": "-std=",
}


class EmulatorError(RuntimeError):
    """A kernel could not be built, or what it did cannot work on a GPU either (a deadlock, for one)."""


class CompileError(EmulatorError):
    """The compiler rejected the source. Its own message is in this one."""


class NoCompilerError(EmulatorError):
    """There is no C++ compiler that the emulator could use."""


class RawModule:
    """Kernels of a CUDA C++ source, run on the CPU. Used as ``cupy.RawModule`` is.

    Parameters
    ----------
    code : str
        The source.
    options : tuple of str
        Options as for NVRTC. ``-D``, ``-U``, ``-I`` and ``-std`` reach the compiler; the others mean nothing here.
    sanitize : str, optional
        What to check while kernels run, as in ``-fsanitize=``: ``"address,undefined"`` or ``"thread"``. The process
        must have been started for it, see `sanitized_command`.
    threads : bool
        Make each CUDA thread of a block a thread of the operating system, in place of a fiber. It is slow. With
        ``sanitize="thread"`` it finds races, those between blocks as well: two blocks run at a time.
    schedule : {"sequential", "interleaved", "random"}
        Who runs when, where the source says ``YIELD()``: nobody else; every other thread in turn; or others as ``seed``
        draws it, which also puts the threads in another order. A race comes out in different results.
    seed : int
        For ``"random"``.

    Notes
    -----
    Nothing is compiled before the first launch (or `compile`). What is compiled is kept in `cache_folder`.
    """

    def __init__(
        self,
        code: str,
        options: tuple[str, ...] = (),
        *,
        sanitize: str | None = None,
        threads: bool = False,
        schedule: str = "sequential",
        seed: int = 0,
    ) -> None:
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule: expected one of {SCHEDULES}, got {schedule!r}")
        checks = set(sanitize.split(",")) if sanitize else set()
        if not checks <= {"address", "undefined", "thread"}:
            raise ValueError(
                f"sanitize: expected address, undefined or thread, got {sanitize!r}"
            )
        if "thread" in checks and not threads:
            raise ValueError('sanitize="thread" needs threads=True: fibers hide a race from it')
        self.code = code
        self.options = tuple(options)
        self.schedule = SCHEDULES.index(schedule)
        self.seed = seed
        self._checks = tuple(sorted(checks))
        self._threads = threads
        self._names = set(_kernel_names(code))
        self._library: _Library | None = None

    def get_function(self, name: str) -> Kernel:
        """Return the kernel of this name. Whether there is one shows when it is compiled."""
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ValueError(f"name: expected the name of a kernel, got {name!r}")
        if name not in self._names:  # it may come from a macro
            self._names.add(name)
            self._library = None
        return Kernel(self, name)

    def compile(self) -> None:
        """Compile the source now, unless it has been."""
        self._load()

    def _load(self) -> _Library:
        if self._library is None:
            names = sorted(self._names)
            path = _build_module(self.code, names, self.options, self._checks, self._threads)
            self._library = _load_library(path, self._threads)
        return self._library


class Kernel:
    """One kernel of a `RawModule`. Called as ``cupy.RawKernel`` is."""

    def __init__(self, module: RawModule, name: str) -> None:
        self.name = name
        self._module = module

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
        stream: Any = None,
    ) -> None:
        """Launch the kernel, and return when it is done.

        Parameters
        ----------
        grid, block : sequence of int
            How many blocks, and how many threads a block, along x (, y (, z)).
        args : sequence
            For a pointer: an array, whose address is taken, or an address as an integer of 64 bits. For a number: a
            NumPy scalar of the same size. A Python ``int`` counts as int64, a ``float`` as float64.
        shared_mem : int
            Must be 0: shared memory of a size that is not in the source is not emulated.
        stream : object
            Ignored: kernels run at once.

        Raises
        ------
        TypeError
            If there are too many arguments, too few, or one does not fit its parameter.
        ValueError
            If a grid or block is one that no GPU would accept.
        EmulatorError
            If the source does not compile, or threads wait for each other for ever.
        """
        grid_size = _dimensions("grid", grid, (2**31 - 1, 65535, 65535))
        block_size = _dimensions("block", block, (1024, 1024, 64))
        if operator.mul(*block_size[:2]) * block_size[2] > 1024:
            raise ValueError(f"block: at most 1024 threads, got {tuple(block)}")
        if shared_mem:
            raise ValueError(
                f"shared_mem: dynamic shared memory is not emulated, got {shared_mem} bytes; "
                f"give the array in the source a fixed size"
            )
        library = self._module._load()
        signature = library.signature(self.name)
        if signature is None:
            raise EmulatorError(f"the source has no kernel named {self.name!r}")
        words = _words(self.name, args, signature)
        launch = _Launch(
            grid_size,
            block_size,
            self._module.schedule,
            self._module.seed % 2**64,
            words.ctypes.data,
            None,
            0,
            1,
        )
        message = library.launch(self.name, launch)
        if message is not None:
            raise EmulatorError(f"{self.name}: {message}")


def sanitized_command(kind: str, argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return how to start a Python process in which modules built with ``sanitize=kind`` run.

    A sanitizer must be there before the first allocation, so Python itself has to start with it: its library is
    preloaded, and for ThreadSanitizer addresses are not randomised. A finding ends the process with a report on
    standard error and a status that is not 0; under ThreadSanitizer at its end, with 66.

    Parameters
    ----------
    kind : str
        As ``sanitize`` of `RawModule`: ``"address,undefined"``, ``"address"``, ``"undefined"`` or ``"thread"``.
    argv : sequence of str
        The command, for instance ``[sys.executable, "-c", code]``.

    Returns
    -------
    argv : list of str
        The command to run.
    env : dict of str to str
        The environment to run it in: this one, and what the sanitizer needs.

    Raises
    ------
    NoCompilerError
        If there is no compiler, or it has no such sanitizer (``zig c++`` has none).

    Examples
    --------
    >>> import subprocess, sys
    >>> argv, env = sanitized_command("thread", [sys.executable, "check.py"])  # doctest: +SKIP
    >>> subprocess.run(argv, env=env).returncode  # doctest: +SKIP
    0
    """
    command = compiler()
    if "ziglang" in command:  # it would name another compiler's libraries
        raise NoCompilerError("zig c++ has no sanitizers: install g++ or clang++")
    files = {"address": "libasan.so", "undefined": "libubsan.so", "thread": "libtsan.so"}
    preload = []
    for check in kind.split(","):
        shown = subprocess.run(
            [*command, f"-print-file-name={files[check]}"], capture_output=True, text=True
        )
        path = Path(shown.stdout.strip())
        if shown.returncode or not path.is_absolute() or not path.exists():
            raise NoCompilerError(
                f"{shlex.join(command)} has no {files[check]} for this sanitizer"
            )
        preload.append(str(path))
    env = dict(os.environ, LD_PRELOAD=" ".join(preload))
    env["ASAN_OPTIONS"] = "detect_leaks=0"
    env["UBSAN_OPTIONS"] = "print_stacktrace=1"
    env["TSAN_OPTIONS"] = "report_signal_unsafe=0"
    env["OPENBLAS_NUM_THREADS"] = "1"
    if kind != "thread":
        return list(argv), env
    still = shutil.which("setarch")
    if still is None:
        raise NoCompilerError("ThreadSanitizer needs setarch, of util-linux")
    return [still, "-R", *argv], env


# ---- Launching -------------------------------------------------------------------------------------------------------


class _Launch(ctypes.Structure):
    """``emulator::Launch`` of the header."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("schedule", ctypes.c_int),
        ("seed", ctypes.c_uint64),
        ("arguments", ctypes.c_void_p),
        ("twin", ctypes.c_void_p),
        ("first", ctypes.c_uint),
        ("step", ctypes.c_uint),
    )


class _Library:
    """A compiled module. It runs one launch at a time, as its shared variables exist once."""

    def __init__(self, path: Path, threads: bool) -> None:
        self._library = ctypes.CDLL(str(path))
        self._signatures: dict[str, str | None] = {}
        self._lock = threading.Lock()
        self._twin = None
        if threads:  # a second copy, with shared variables of its own, for every other block
            twin = path.with_suffix(f".twin{path.suffix}")
            if not twin.exists():
                with tempfile.TemporaryDirectory(dir=path.parent) as place:
                    os.replace(shutil.copy(path, place), twin)
            self._twin = ctypes.CDLL(str(twin))

    def signature(self, name: str) -> str | None:
        """Return a code for each parameter of a kernel, or None where there is no such kernel."""
        if name not in self._signatures:
            function = self._library[f"emulator_signature_{name}"]
            function.restype = ctypes.c_char_p
            codes = function()
            self._signatures[name] = None if codes is None else codes.decode()
        return self._signatures[name]

    def launch(self, name: str, launch: _Launch) -> str | None:
        """Run a kernel. Return what went wrong, if anything did."""
        function = self._library[f"emulator_launch_{name}"]
        function.restype = ctypes.c_char_p
        if self._twin is not None:
            twin = self._twin[f"emulator_launch_{name}"]
            launch.twin, launch.step = ctypes.cast(twin, ctypes.c_void_p), 2
        with self._lock:
            message = function(ctypes.byref(launch))
        return None if message is None else message.decode()


@functools.cache
def _load_library(path: Path, threads: bool) -> _Library:
    return _Library(path, threads)


def _dimensions(name: str, sizes: Sequence[int], most: tuple[int, int, int]) -> Any:
    sizes = tuple(operator.index(size) for size in sizes)
    whole = sizes + (1,) * (3 - len(sizes))
    if not 1 <= len(sizes) <= 3 or not all(
        1 <= n <= m for n, m in zip(whole, most, strict=True)
    ):
        raise ValueError(f"{name}: expected one to three sizes from 1 to {most}, got {sizes}")
    return (ctypes.c_uint * 3)(*whole)


def _words(kernel: str, args: Sequence[Any], signature: str) -> np.ndarray:
    """Return the arguments as 8-byte words, after a check of each against its parameter."""
    if len(args) != len(signature):
        raise TypeError(f"{kernel}: expected {len(signature)} arguments, got {len(args)}")
    words = np.zeros(max(len(args), 1), np.uint64)
    for index, (arg, code) in enumerate(zip(args, signature, strict=True)):
        if isinstance(arg, np.ndarray):
            value: Any = np.uint64(arg.__array_interface__["data"][0])
        else:
            value = np.asarray(arg)[()]
        got = value.dtype
        expected = np.dtype(np.uint64 if code == "P" else code)
        alike = got.kind == expected.kind or (got.kind in "iu" and expected.kind in "iu")
        if (
            not alike
            or got.itemsize != expected.itemsize
            or (isinstance(arg, np.ndarray) and code != "P")
        ):
            what = "a pointer (an array or a 64-bit integer)" if code == "P" else expected.name
            came = f"an array of {arg.dtype}" if isinstance(arg, np.ndarray) else got.name
            raise TypeError(f"{kernel}: argument {index}: expected {what}, got {came}")
        words[index : index + 1].view(np.uint8)[: got.itemsize] = np.frombuffer(
            value.tobytes(), np.uint8
        )
    return words


# ---- Compiling -------------------------------------------------------------------------------------------------------


def _kernel_names(code: str) -> list[str]:
    """Return the names after ``__global__ void`` that are not macros."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", " ", code, flags=re.DOTALL)
    found = re.findall(
        r"__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\([^()]*(?:\([^()]*\)[^()]*)*\)\s*)?"
        r"(?:void\s+)?([A-Za-z_]\w*)\s*\(",
        code,
    )
    macros = set(re.findall(r"#\s*define\s+(\w+)\(", code))
    return [name for name in dict.fromkeys(found) if name not in macros]


def cache_folder() -> Path:
    """Return where compiled modules are kept.

    It is ``$STNLIB_CACHE_DIR``, or else ``stnlib`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. It may be deleted.
    """
    chosen = os.environ.get("STNLIB_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "stnlib"


def compiler() -> tuple[str, ...]:
    """Return the command of the C++ compiler.

    It is ``$CXX``, or else ``g++``, ``clang++``, or the one in the package ``ziglang`` (``pip install ziglang``).

    Raises
    ------
    NoCompilerError
        If there is none.
    """
    chosen = os.environ.get("CXX")
    if chosen:
        command = shlex.split(chosen)
        if shutil.which(command[0]) is None:
            raise NoCompilerError(f"CXX: there is no program {command[0]!r}")
        return tuple(command)
    for name in ("g++", "clang++"):
        if shutil.which(name):
            return (name,)
    if _has_zig():
        return (sys.executable, "-m", "ziglang", "c++")
    raise NoCompilerError(
        "the CUDA emulator needs a C++ compiler: install g++ or clang++, or pip install ziglang"
    )


def _has_zig() -> bool:
    return importlib.util.find_spec("ziglang") is not None


@functools.cache
def _version(command: tuple[str, ...]) -> str:
    """Return what the compiler says of itself."""
    try:
        shown = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoCompilerError(
            f"the C++ compiler {shlex.join(command)} does not run: {error}"
        ) from None
    return shown.stdout


def _build_module(
    code: str,
    names: list[str],
    options: tuple[str, ...],
    checks: tuple[str, ...],
    threads: bool,
) -> Path:
    """Compile a module, or find it compiled."""
    command = compiler()
    common = [*FLAGS, *(["-DEMULATOR_THREADS", "-pthread"] if threads else [])]
    if "ziglang" in command and not checks:
        common.append("-fno-sanitize=all")  # zig checks by default
    # The runtime itself is not checked, but tells the sanitizers when it switches.
    told = [f"-DCHECK_{check.upper()}" for check in checks]
    runtime = _build(
        "runtime.cpp", _source("runtime.cpp"), command, [*common, *told, "-O2", "-c"], ".o"
    )
    checking = (
        [f"-fsanitize={','.join(checks)}", "-fno-sanitize-recover=all", "-g1"] if checks else []
    )
    macros, others = _understood(options)
    source = "\n".join(
        [
            '#include "cuda_on_cpu.h"',
            *macros,
            '#line 1 "kernel.cu"',
            code,
            '#line 1 "launchers"',
        ]
        + [f"EMULATOR_KERNEL({name})" for name in names]
        + [""]
    )
    flags = [*common, *others, *checking, "-shared"]
    return _build("kernel.cpp", source, command, flags, ".so", link=runtime)


def _understood(options: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what the options for NVRTC mean here: lines of source, and options of the C++ compiler.

    A macro is defined in the source, where it cannot disturb the emulator's own headers.
    """
    lines: list[str] = []
    others: list[str] = []
    words = iter(options)
    for option in words:
        for long, short in LONG_OPTIONS.items():
            option = re.sub(f"^{long}(=|$)", short, option)
        if option in ("-D", "-U", "-I"):
            option += next(words, "")
        if option.startswith("-D"):
            name, _, value = option[2:].partition("=")
            lines.append(f"#define {name} {value if '=' in option else 1}")
        elif option.startswith("-U"):
            lines.append(f"#undef {option[2:]}")
        elif option.startswith(("-I", "-std=")):
            others.append(option)
    return lines, others


@functools.cache
def _source(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _build(
    name: str,
    source: str,
    compiler: tuple[str, ...],
    flags: list[str],
    suffix: str,
    link: Path | None = None,
) -> Path:
    """Compile one file into the cache, under a name that tells all that it depends on."""
    headers = [
        _source(f"include/{path.name}") for path in sorted((HERE / "include").glob("*.h"))
    ]
    what = [
        sysconfig.get_platform(),
        _version(compiler),
        *compiler,
        *flags,
        link.name if link else "",
    ]
    key = hashlib.sha256("\0".join([*what, source, *headers]).encode()).hexdigest()[:32]
    folder = cache_folder() / "emulator"
    target = folder / f"{key}{suffix}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder
    ) as place:  # renamed when complete: others may build it too
        written, built = Path(place, name), Path(place, f"built{suffix}")
        written.write_text(source, encoding="utf-8")
        command = [*compiler, *flags, f"-I{HERE / 'include'}", str(written)]
        command += [str(link)] if link else []
        done = subprocess.run([*command, "-o", str(built)], capture_output=True, text=True)
        if done.returncode:
            message = done.stderr.replace(f"{place}{os.sep}", "")
            raise CompileError(f"{shlex.join(compiler)} rejects the kernel:\n{message}")
        os.replace(built, target)
    return target
