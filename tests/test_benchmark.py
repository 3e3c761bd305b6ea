import itertools
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import stnlib
from stnlib import benchmark, cli, engines
from stnlib.benchmark import chart, first_call, memory, report, scaling, suite, timing, training
from stnlib.benchmark.cases import Case, bytes_moved, errors, parse_size
from stnlib.benchmark.contenders import CONTENDERS, Contender, tolerances
from stnlib.options import resolve

TINY = "3x2x13x15:9x8"
NOT_HERE = "the engine leaves this case to the reference"
needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the peak memory of a call can be read on Linux alone"
)


@pytest.fixture(scope="module")
def tiny():
    return Case(TINY)


# What is computed


@pytest.mark.parametrize(
    "text", ["g", "1x2x3", "0x1x2x3", "1x1x2x2:0x1", "1x1x2x2:3", "axbxcxd"]
)
def test_no_size(text):
    with pytest.raises(ValueError, match="expected a, b, c, d, e, f, or NxCxHxW"):
        parse_size(text)


def test_bytes_are_counted_as_the_floor_is():
    size = parse_size("e")  # 64·3·1024² numbers of 4 bytes, once in and once out
    assert bytes_moved(size, "forward") == 2 * 64 * 3 * 1024**2 * 4
    assert bytes_moved(size, "backward") == 3 * 64 * 3 * 1024**2 * 4
    assert bytes_moved(size, "grid") == bytes_moved(size, "forward") + 64 * 1024**2 * 2 * 4


def test_theta_turns_by_20_degrees_and_scales_by_a_fifth(tiny):
    linear = tiny.numpy.theta[0, :, :2].astype(float)
    assert np.sqrt(np.linalg.det(linear)) == pytest.approx(0.8)
    assert np.degrees(np.arctan2(linear[1, 0], linear[0, 0])) == pytest.approx(20)
    assert not tiny.numpy.theta[:, :, 2].any()


def test_images_that_are_checked_are_spread_over_a_large_batch(tiny):
    assert tiny.checked == [0, 1, 2]
    assert Case("e").checked == [0, 63]
    assert Case("d").checked == [0, 9, 18, 27, 36, 45, 54, 63]


def test_errors_are_those_of_the_worst_value(tiny):
    output, *grads = tiny.answer("forward+backward").values()
    shifted = output.copy()
    shifted[2, 1, 3, 4] += 0.25
    wrong = errors([shifted, grads[0], 2 * grads[1]], tiny, "forward+backward")
    assert wrong == {"output": pytest.approx(0.25), "grad_input": 0.0, "grad_theta": 1.0}
    for broken in (output[:, :1], np.where(shifted == output, output, np.nan)):
        assert errors([broken], tiny, "forward") == {"output": np.inf}


# Contenders


@pytest.mark.parametrize("direction", benchmark.DIRECTIONS)
@pytest.mark.parametrize("name", [*benchmark.OURS, *benchmark.PEERS])
def test_every_contender_is_right(tiny, name, direction):
    contender = CONTENDERS[name]
    if "cpu" not in contender.devices or direction not in contender.directions:
        pytest.skip("not on a CPU, or not in this direction")
    calls = {}
    (found,) = suite._tried(suite._checked, name, tiny, direction, calls)
    if found == {"skipped": NOT_HERE}:
        assert engines.pick("cpu", resolve(), tiny.numpy.image) is None
        pytest.skip(NOT_HERE)
    assert found["errors"].keys() == set(benchmark.DIRECTIONS[direction])
    assert calls.keys() == {name}


def test_every_contender_is_listed():
    assert tuple(CONTENDERS) == (*benchmark.OURS, *benchmark.PEERS)


def test_the_package_is_held_to_what_float64_coordinates_give(tiny):
    ours, peers = (tolerances(name, tiny) for name in ("stnlib", "torch"))
    assert all(ours[name] < peers[name] for name in ("output", "grad_theta"))


def test_an_engine_that_leaves_the_case_to_the_reference_is_not_timed(tiny, monkeypatch):
    monkeypatch.setattr(engines, "pick", lambda *arrays, **options: None)
    for name in ("stnlib", "stnlib-arrays"):
        with pytest.raises(NotImplementedError, match=NOT_HERE):
            CONTENDERS[name].make(tiny, "forward")


def test_a_planar_grid_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    from stnlib.benchmark.contenders import planar_grid

    theta = torch.randn(3, 2, 3, dtype=torch.float64)
    grid = planar_grid(theta, (4, 5))
    expected = torch.nn.functional.affine_grid(theta, [3, 1, 4, 5], align_corners=False)
    torch.testing.assert_close(grid, expected)
    assert grid.stride() == (40, 5, 1, 20)


# A GPU's, with a CuPy that is NumPy


class Pool:
    size = 100

    def total_bytes(self):
        return self.size

    def free_all_blocks(self):
        self.size = 10


class Event:
    now = 0.0

    def record(self):
        self.at = Event.now


@pytest.fixture
def gpu(monkeypatch):
    cupy = types.ModuleType("cupy")
    cupy.log, cupy.pool = [], Pool()
    data = types.SimpleNamespace(copy_from_device_async=lambda *copied: cupy.log.append(copied))
    cupy.zeros = lambda count, dtype: types.SimpleNamespace(data=data)
    cupy.asarray, cupy.empty, cupy.uint8 = np.asarray, np.empty, np.uint8
    cupy.get_default_memory_pool = lambda: cupy.pool
    cupy.cuda = types.SimpleNamespace(
        Event=Event,
        get_elapsed_time=lambda start, end: end.at - start.at,
        is_available=lambda: True,
        runtime=types.SimpleNamespace(
            deviceSynchronize=lambda: cupy.log.append("synchronise"),
            getDevice=lambda: 0,
            getDeviceProperties=lambda device: {"name": b"Some GPU"},
            runtimeGetVersion=lambda: 13000,
        ),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


def test_a_gpu_is_timed_by_events_after_all_is_done(gpu):
    def kernel():
        Event.now += 3.0  # milliseconds
        gpu.log.append("kernel")

    assert timing.cuda_clock(kernel, 4) == pytest.approx(0.003)
    assert gpu.log == ["synchronise", *["kernel"] * 4, "synchronise"]


def test_a_gpu_copies_half_the_bytes_each_way(gpu):
    timing.copy(2000, "cuda")()
    assert [size for _, size in gpu.log] == [1000]


def test_a_gpu_s_allocators_are_asked(gpu, monkeypatch):
    def call():
        gpu.pool.size += 50

    cuda = types.SimpleNamespace(
        reset_peak_memory_stats=lambda: None,
        memory_allocated=lambda: 400,
        max_memory_allocated=lambda: 1000,
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    assert memory.peak(call, "cuda") == 50 + 600
    monkeypatch.setitem(sys.modules, "torch", None)
    assert memory.peak(call, "cuda") == 50


def test_a_gpu_is_named_or_missed(gpu, monkeypatch):
    assert suite._environment("cuda")["gpu"] == "Some GPU"
    monkeypatch.setattr(gpu.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="--device cpu"):
        suite._environment("cuda")


def test_cupy_is_called_as_scipy_is(gpu, monkeypatch):
    ndimage = pytest.importorskip("scipy.ndimage")
    scipy = types.SimpleNamespace(ndimage=ndimage)
    monkeypatch.setitem(sys.modules, "cupyx", types.SimpleNamespace(scipy=scipy))
    monkeypatch.setitem(sys.modules, "cupyx.scipy", scipy)
    case = Case(TINY, "cuda")
    assert errors(CONTENDERS["cupy"].make(case, "forward")(), case, "forward")["output"] < 1e-6


def test_the_deterministic_contender_asks_for_it(tiny, monkeypatch):
    asked = []

    def vjp(grad, image, *arguments, **options):
        asked.append(engines.is_deterministic(image))
        return stnlib.sampling.AffineGradients(image, image, None)

    monkeypatch.setattr(engines, "pick", lambda *arrays, **options: engines)
    monkeypatch.setattr(stnlib, "affine_sample_vjp", vjp)
    for name in ("stnlib-arrays", "stnlib-deterministic"):
        assert len(CONTENDERS[name].make(tiny, "backward")()) == 2
    assert asked == [False, True]


# Rounds


def lasting(log, name, *seconds):
    """Return a call that says how long it takes; the last time again and again."""
    given = itertools.chain(seconds, itertools.repeat(seconds[-1]))

    def call():
        log.append(name)
        return next(given)

    return call


def said(call, times):
    return [call() for _ in range(times)].pop()


def test_everyone_is_timed_once_a_round_after_an_untimed_call():
    log = []
    times = timing.interleave({name: lasting(log, name, 0.1) for name in "abc"}, said, 4)
    assert times == {name: [0.1] * 4 for name in "abc"}
    assert log[:6] == list("aabbcc")
    turns = [log[i : i + 6] for i in range(6, 30, 6)]
    assert all(sorted(turn) == list("aabbcc") for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1


def test_a_short_call_is_made_often_and_a_long_one_sits_rounds_out():
    log = []
    calls = {"short": lasting(log, "short", 1e-3), "long": lasting(log, "long", 1.4)}
    times = timing.interleave(calls, said, 6)
    assert times["short"] == [1e-3] * 6
    assert times["long"] == [1.4, None, None] * 2
    assert log.count("short") == 2 + 6 * (1 + 5)
    assert log.count("long") == 2 + 2


def test_the_cpu_clock_takes_the_mean():
    calls = []
    assert timing.cpu_clock(lambda: calls.append(1), 5) >= 0
    assert len(calls) == 5


def test_one_value_has_a_summary():
    assert timing.summary([None, 2.0]) == {"median": 2.0, "quartiles": [2.0, 2.0]}


def test_the_copy_needs_no_pytorch(monkeypatch):
    timing.copy(2000, "cpu")()
    copied = []
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(np, "copyto", lambda target, source: copied.append(target.nbytes))
    timing.copy(2000, "cpu")()
    assert copied == [1000]


# Memory


@needs_linux
def test_native_memory_is_seen():
    assert 39e6 < memory.peak(lambda: np.ones(40_000_000, np.uint8), "cpu") < 60e6
    assert memory.peak(lambda: None, "cpu") < 4e6


def test_where_memory_cannot_be_read_there_is_no_figure(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "RESET", tmp_path / "absent" / "file")
    assert memory.peak(lambda: None, "cpu") is None


# What a table of times does not say


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_is_found(power):
    counts = [1, 2, 4, 8]
    assert scaling.exponent(counts, [3e-3 * n**power for n in counts]) == pytest.approx(power)


@pytest.mark.parametrize("device", benchmark.DEVICES)
def test_each_series_doubles_one_thing(device):
    for sizes in scaling.series(device).values():
        values = [bytes_moved(parse_size(size), "grid") for size in sizes.values()]
        outputs = [np.prod([s.n, s.c, *s.output]) for s in map(parse_size, sizes.values())]
        assert values == sorted(values)
        assert [v / outputs[0] for v in outputs] == [1, 2, 4, 8, 16]
        assert [c / min(sizes) for c in sizes] == [1, 2, 4, 8, 16]


def by_count(case, direction):
    return lambda: 1e-6 * np.prod([case.size.n, case.size.c, *case.size.output])


def test_a_linear_cost_is_found_to_be_linear(monkeypatch):
    monkeypatch.setitem(CONTENDERS, "stnlib-arrays", Contender(by_count))
    monkeypatch.setitem(timing.CLOCKS, "cpu", said)
    found = scaling.measure("C", "forward", "cpu", 3)
    assert found["exponent"]["median"] == pytest.approx(1)
    assert found["counts"] == [8, 16, 32, 64, 128]
    assert "1.00 (1.00 to 1.00)" in rendered(report._scaling([found]))


def test_the_first_call_is_made_in_a_new_process_with_an_empty_cache(monkeypatch):
    files = []

    def run(command, *, env, **options):
        folder = Path(env["NUMBA_CACHE_DIR"])
        files.append([path.name for path in folder.iterdir()])
        (folder / "compiled").touch()
        return subprocess.CompletedProcess(command, 0, "[3.0, 0.001]\n", "compiling …\n")

    monkeypatch.setattr(subprocess, "run", run)
    found = first_call.measure("forward", "cpu")
    assert files == [[], ["compiled"]]
    assert (found["cold"], found["second"], found["said"]) == (3.0, 0.001, "compiling …")
    assert "3.00 s" in rendered(report._first_call([found]))


@pytest.mark.parametrize(
    ("stderr", "why"), [("Traceback\nlast words\n", "last words"), ("", "no")]
)
def test_a_process_that_fails_says_why(monkeypatch, stderr, why):
    failed = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda *command, **options: failed)
    with pytest.raises(RuntimeError, match=why):
        first_call.measure("forward", "cpu")


def test_what_the_new_process_prints(monkeypatch, capsys):
    monkeypatch.setitem(CONTENDERS, "stnlib-arrays", CONTENDERS["reference"])
    first_call.main("forward", "cpu")
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_trainings_are_the_same_but_for_the_engine():
    found = training.compare("cpu", 1, 2)
    assert found["loss_difference"] < 1e-4
    assert (
        found["loss"].keys() == found["iterations_a_second"].keys() == {"reference", "engine"}
    )
    assert all(len(curve) == 2 for curve in found["loss"].values())
    assert "iterations a second" in report._training([found])[0]


# The whole


def rendered(parts):
    console = report.console()
    with console.capture() as capture:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str))
    return capture.get()


def off(case, direction):
    output, *others = (array.astype(np.float32) for array in case.answer(direction).values())
    return lambda: [output + 0.01, *others]


def broken(case, direction):
    raise OSError("out of luck\nand a second line")


def absent(case, direction):
    import no_such_package  # noqa: F401


@pytest.fixture(scope="module")
def whole():
    """Return the record of a run in which PyTorch is right, and others are not or not here."""
    patch = pytest.MonkeyPatch()
    changed = {"stnlib": off, "stnlib-arrays": broken, "opencv": absent, "scipy": off}
    for name, make in changed.items():
        patch.setitem(CONTENDERS, name, CONTENDERS[name]._replace(make=make))
    patch.setattr(memory, "peak", lambda call, device: 5_000_000)
    plan = suite.Plan(
        sizes=(TINY, "1x1x8x8"),
        directions=("forward", "forward+backward"),
        contenders=(*changed, "reference"),
        threads=1,
        rounds=2,
    )
    yield suite.run(plan, "as it was typed")
    patch.undo()


def test_a_record_of_the_whole(whole):
    json.dumps(whole, allow_nan=False)
    assert whole["command"] == "as it was typed"
    assert whole["environment"]["numpy"] == np.__version__
    cases = {}
    for one in whole["cases"]:
        cases.setdefault((one["size"], one["direction"]), {})[one["contender"]] = one
    assert len(cases) == 4
    for case in cases.values():
        assert case["reference"]["peak_memory"] == 5_000_000
        assert case["reference"]["errors"]["output"] < 1e-6
        torch, own = case["torch"]["rounds"], case["reference"]["rounds"]
        expected = timing.ratio(own, torch)["median"]
        assert case["reference"]["ratio"]["median"] == pytest.approx(expected, rel=1e-3)
        assert case["torch"]["ratio"] == {"median": 1.0, "quartiles": [1.0, 1.0]}


def test_one_that_is_wrong_fails_or_is_absent_is_not_timed(whole):
    skipped = {one["contender"]: one for one in whole["cases"] if "skipped" in one}
    assert {name: one["skipped"] for name, one in skipped.items()} == {
        "stnlib": "wrong, and so not timed: off in output by 0.01",
        "stnlib-arrays": "failed: OSError: out of luck",
        "opencv": "No module named 'no_such_package'",
        "scipy": "wrong, and so not timed: off in output by 0.01",
    }
    assert not any("seconds" in one for one in skipped.values())
    assert suite.wrong_engines(whole) == ["stnlib"]


def test_nobody_right_is_no_error(tiny, monkeypatch):
    monkeypatch.setitem(CONTENDERS, "torch", Contender(broken))
    (only,) = suite.measure(["torch"], tiny, "forward", 1)
    assert "skipped" in only


def test_the_tables_have_a_row_a_contender_and_a_line_for_each_that_has_none(whole):
    text = rendered(report.parts(whole))
    assert f"{TINY}: N3 C2 13×15 to 9×8" in text
    assert text.count("\nreference ") == text.count("\ntorch ") == text.count("\ncopy ") == 4
    assert text.count("\nopencv: No module named 'no_such_package'\n") == 1
    assert "1 thread, load" in text or sys.platform == "win32"


def test_the_chart_shows_the_medians(whole, tmp_path):
    figure = chart.draw(whole["cases"])
    for ax in figure.axes:
        ratios = {
            one["contender"]: one["ratio"]["median"]
            for one in whole["cases"]
            if f"{one['size']} {one['direction']}" == ax.get_title() and one.get("ratio")
        }
        assert [label.get_text() for label in ax.get_yticklabels()] == list(ratios)
        assert [bar.get_width() for bar in ax.patches] == list(ratios.values())
    with pytest.raises(ValueError, match="nothing to draw"):
        chart.draw([{"skipped": "why", "size": "a", "direction": "grid"}])


def test_threads_are_given_back():
    import torch

    before = torch.get_num_threads()
    with suite._threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_all_parts_are_planned_and_memory_comes_last():
    plan = suite.Plan(scaling=True, first_call=True, training=True)
    words = [what for what, _ in suite._jobs(plan, {})]
    assert words[:3] == ["a forward", "a forward+backward", "a grid"]
    assert words[-2:] == ["training", "peak memory"]
    assert len(words) == 9 + 6 + 2 + 1 + 1
    assert len(suite._jobs(plan._replace(cases=False), {})) == 9


# The command


def bench(*arguments):
    return CliRunner().invoke(cli.main, ["bench", "--threads", "1", *arguments])


def test_the_command_measures_prints_and_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stnlib", "bench", "--some", "a b"])
    files = tmp_path / "r.json", tmp_path / "r.svg"
    few = "--size", "1x1x8x8", "--direction", "grid", "--contender", "reference"
    done = bench("--rounds", "1", *few, "--json", files[0], "--chart", files[1])
    assert done.exit_code == 0, done.output
    assert "\nreference" in done.stdout
    record = json.loads(files[0].read_text())
    assert record["command"] == "stnlib bench --some 'a b'"
    assert [one["contender"] for one in record["cases"]] == ["reference", "torch", "copy"]
    assert "<svg" in files[1].read_text()


def test_a_wrong_engine_makes_the_command_fail(monkeypatch):
    monkeypatch.setitem(CONTENDERS, "stnlib", Contender(off))
    done = bench("--rounds", "1", "--size", "1x1x8x8", "--contender", "stnlib")
    assert done.exit_code == 1
    assert "these gave wrong results: stnlib." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--size", "g"), "expected a, b, c"),
        (("--json", "no/such/folder/r.json"), "there is no folder"),
        (("--threads", "0"), "is not in the range"),
    ],
)
def test_what_is_typed_wrong_is_said_before_the_work_begins(arguments, sentence):
    done = bench(*arguments)
    assert done.exit_code == 2
    assert sentence in done.stderr


@pytest.mark.parametrize(("package", "argument"), [("cupy", "cuda"), ("matplotlib", "r.png")])
def test_what_is_missing_is_one_sentence(monkeypatch, package, argument):
    monkeypatch.setitem(sys.modules, package, None)
    done = bench("--device" if package == "cupy" else "--chart", argument)
    assert done.exit_code > 0
    assert f"needs {package}, which is not installed" in done.stderr
    assert "Traceback" not in done.output


def test_a_gpu_is_measured_without_numba(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.delattr(engines, "cpu_threads", raising=False)
    monkeypatch.setitem(sys.modules, "stnlib.engines.cpu_threads", None)
    with suite._threads(1):
        assert torch.get_num_threads() == 1


def test_the_bar_names_the_job(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(cli._with_a_bar([("one", None), ("two", None)])) == [
        ("one", None),
        ("two", None),
    ]
