"""Run every kernel of sampler.cu on small arrays: what a sanitizer watches. Not a test itself.

    python tests/run_kernels.py cuda                      on a GPU, under compute-sanitizer
    python tests/run_kernels.py address,undefined CHANGES in the emulator, in a process that was started for it
    python tests/run_kernels.py thread CHANGES

CHANGES is a JSON list, by default [[]]: for each item, itself a list of pairs of texts, the kernels run once more with
the first text of each pair replaced by the second in the source. No PyTorch, so that it starts at once.
"""

import itertools
import json
import sys
from types import SimpleNamespace

import numpy as np

from stnlib.engines import _deterministic, launch
from stnlib.options import resolve

TURNED = [
    [0.8, -0.6, 0.1],
    [0.6, 0.8, -0.05],
]  # its gradient can be gathered, the next one's cannot
SHRUNK = [[0.1, 0.02, 0.3], [0.0, 0.1, 0.0]]
launched = set()


def machine(kind, changes):
    """Return what runs the kernels, and a function that brings an array there."""
    if kind == "cuda":
        import cupy

        from stnlib.engines import cuda

        cupy.cuda.set_allocator(None)  # a pool would hide what lies beyond an array
        return cuda.GPU, cupy.asarray
    from stnlib.engines.emulated import Emulator
    from stnlib.engines.emulator import RawModule

    source = launch.SOURCE.read_text(encoding="utf-8")
    for old, new in changes:
        assert source.count(old) == 1, f"the kernels hold {source.count(old)} times {old!r}"
        source = source.replace(old, new)
    found = Emulator(64)
    modules = {}

    def module(options):
        if options not in modules:
            modules[options] = RawModule(
                source, options, sanitize=kind, threads=kind == "thread"
            )

        def get_function(name):
            launched.add(name)
            return modules[options].get_function(name)

        return SimpleNamespace(get_function=get_function)

    found.module = module
    return found, lambda array: array


CASES = [
    (2, "bilinear", "float32"),
    (3, "bicubic", "float32"),
    (2, "nearest", "float16"),
    (2, "bicubic", "float64"),
    (3, "bilinear", "float64"),
    (3, "nearest", "float32"),
]


def run(kind, changes):
    """Run all kernels; fewer cases where threads are the system's, which is slow, or a change is to be found."""
    where, array = machine(kind, changes)
    rng = np.random.default_rng(0)
    slow = kind == "thread"
    for dimensions, mode, dtype in CASES[: 1 if changes else 2 if slow else None]:
        size, out = ((5, 6), (7, 9)) if dimensions == 2 else ((3, 4, 3), (3, 2, 5))
        theta = np.array([TURNED, SHRUNK])
        if dimensions == 3:
            theta = np.insert(np.insert(theta, 2, 0, axis=2), 2, [0, 0, 0.9, 0], axis=1)
            theta[1] *= 0.3
        grid = rng.uniform(-1.5, 1.5, (2, *out, dimensions)).astype(np.float32)
        grid.reshape(-1)[:5] = [np.nan, np.inf, -np.inf, 1e30, -3e9]
        real = "float64" if dtype == "float64" else "float32"
        paddings = ("fill",) if slow else ("fill", "reflection")
        layouts = (dimensions == 3,) if slow or changes else (False, True)
        for padding, last, wanted in itertools.product(paddings, layouts, (False, True)):
            channels = (5, *size) if not last else (*size, 5)
            images = array(rng.standard_normal((2, *channels)).astype(dtype))
            if last:
                images = images.transpose(0, dimensions + 1, *range(1, dimensions + 1))
            fill = array(np.ones((2, 5), real))
            gradient = array(rng.standard_normal((2, 5, *out)).astype(dtype))
            options = resolve(mode, padding, coordinates="normalised")
            token = _deterministic.set(wanted)
            places = (theta, out), (grid, None)
            for place, shape in places[: 1 if changes and slow else None]:
                given = images, array(place), shape, fill, options
                launch.sample(*given, machine=where)
                launch.sample_vjp(gradient, *given, (True, True, True), machine=where)
            _deterministic.reset(token)


def main():
    """Run the command."""
    kind, *rest = sys.argv[1:]
    for changes in json.loads(rest[0]) if rest else [[]]:
        print(f"-- {json.dumps(changes)}", file=sys.stderr, flush=True)
        run(kind, changes)
    if kind == "cuda":
        import cupy

        cupy.cuda.Device().synchronize()
    print("done", *sorted(launched))


if __name__ == "__main__":
    main()
