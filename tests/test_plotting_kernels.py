import json
import re

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

import stnlib
from stnlib import plotting, transforms
from stnlib.engines import launch as engine_launch
from stnlib.plotting import BLUE, GREEN, RED, kernels
from stnlib.plotting.source import CUDA, _cuda_definitions

TURN = transforms.similarity(0.8, np.deg2rad(20), 0.0, 0.0)
PLAN = kernels.launch(TURN, (96, 96), (96, 96))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


# ---- Threads over pixels ----


@pytest.mark.parametrize("out", [(96, 96), (70, 100), (1, 1), (33, 31)])
def test_each_pixel_is_made_once(out):
    plan = kernels.launch(TURN, (20, 30), out)
    made = np.concatenate([plan.pixels_of(block) for block in range(plan.blocks)])
    assert len(made) == out[0] * out[1]
    assert len(np.unique(made, axis=0)) == len(made)
    assert made.max(axis=0).tolist() == [out[1] - 1, out[0] - 1]


def test_blocks_are_those_of_the_engine():
    class Machine:
        threads = 256

        def module(self, options):
            return None

    for out in ((96, 96), (70, 100), (30, 33)):
        image = np.zeros((1, 1, 20, 30), np.float32)
        arguments = (Machine(), image, TURN[None], out, np.zeros((1, 1)))
        call = engine_launch.Call(*arguments, stnlib.options.resolve())
        assert call.block == (1, 32, 8)
        assert call.tiles == kernels.launch(TURN, (20, 30), out).blocks


def test_warps_share_out_a_block():
    whole = PLAN.pixels_of(4)
    parts = [PLAN.pixels_of(4, warp) for warp in range(PLAN.warps)]
    assert PLAN.warps == 8
    np.testing.assert_array_equal(
        np.unique(np.concatenate(parts), axis=0), np.unique(whole, axis=0)
    )
    assert np.unique(parts[3][:, 1]).tolist() == [35, 43, 51, 59]
    assert np.unique(parts[3][:, 0]).tolist() == list(range(32, 64))


def test_positions_are_the_samplers():
    made = PLAN.pixels_of(0)
    grid = stnlib.affine_grid(TURN[None], (96, 96))[0]
    expected = stnlib.unnormalise(grid[made[:, 1], made[:, 0]], 96)
    np.testing.assert_allclose(PLAN.positions(made), expected, atol=2e-4)


def test_reads_are_the_pixels_that_get_a_gradient():
    plan = kernels.launch(TURN, (20, 30), (17, 23), columns=8, rows=4, pixels=2)
    for block in range(plan.blocks):
        grad = np.zeros((1, 1, 17, 23))
        made = plan.pixels_of(block)
        grad[0, 0, made[:, 1], made[:, 0]] = 1
        image = np.zeros((1, 1, 20, 30))
        got = stnlib.affine_sample_vjp(grad, image, TURN[None], engine="reference").input
        read = np.zeros((20, 30), bool)
        x, y = plan.reads(block).T
        read[y, x] = True
        np.testing.assert_array_equal(read, got[0, 0] > 0)


def test_counts_of_the_identity_are_known():
    plan = kernels.launch(np.eye(2, 3), (64, 64), (64, 64))
    assert plan.counts(0) == {
        "written": 4096,
        "asked": 16384,
        "read": 4 * 33 * 33,
        "moved": 33 * 5 * 32,  # a row of 33 pixels touches five sectors of eight
    }
    assert plan.counts(0, 0)["read"] == 4 * 8 * 33


def test_threads_figure_numbers_each_blocks_threads():
    plan = kernels.launch(TURN, (10, 12), (8, 12), columns=4, rows=4, pixels=1)
    left, right = kernels.show_threads(plan, blocks=(0, 1, 5)).axes
    at = {tuple(t.get_position()): t.get_text() for t in left.texts}
    assert len(at) == 48
    assert at[(0, 0)] == "0"
    assert at[(3, 1)] == "7"
    assert at[(4, 0)] == "0"
    assert at[(8, 4)] == "0"
    dots = [line for line in right.lines if line.get_marker() == "."]
    assert [line.get_label() for line in dots] == ["block 0", "block 1", "block 5"]
    np.testing.assert_allclose(
        np.stack(dots[2].get_data(), axis=-1), plan.positions(plan.pixels_of(5))
    )


def _filled(path):
    """Return the pixels that a path of runs covers."""
    found = set()
    for x, y, n, back in re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", path):
        assert n == back
        found |= {(int(x) + k, int(y)) for k in range(int(n))}
    return found


def test_still_picture_shows_a_block_and_tells_the_numbers():
    html = kernels.step_through(PLAN, 4).data
    told = json.loads(re.search(r"data-threads='([^']*)'", html)[1])
    assert told["start"] == 4
    assert told["matrix"] == PLAN.matrix.tolist()
    output, source = re.findall(r"<svg.*?</svg>", html)
    paths = [re.search(r'class="block" d="([^"]*)"', svg)[1] for svg in (output, source)]
    assert _filled(paths[0]) == {tuple(p) for p in PLAN.pixels_of(4).tolist()}
    assert _filled(paths[1]) == {tuple(p) for p in PLAN.reads(4).tolist()}
    assert kernels.sentence(PLAN, 4) in html
    assert output.count("aria-label") == source.count("aria-label") == 1


def test_sentence_says_who_where_and_how_much():
    said = kernels.sentence(PLAN, 4, 3)
    assert said.startswith("Block 4 of 9, warp 3: columns 32 to 63, rows 35, 43, 51, 59.")
    assert "makes 128 pixels and writes 512 bytes" in said
    assert "ask for 2,048 bytes of the input" in said
    assert "rows 32 to 63." in kernels.sentence(PLAN, 4)


# ---- Bytes, the roofline, a race ----


def test_bytes_are_stacked_and_carry_their_floor():
    ways = {"one": {"images": 8}, "two": {"images": 8, "grid": 16}}
    ax = kernels.show_bytes(ways, 1e6, 4e12).axes[0]
    widths = {(bar.get_x(), bar.get_width()) for bar in ax.patches if bar.get_width()}
    assert widths == {(0, 8), (8, 16)}
    assert [t.get_text().strip() for t in ax.texts] == ["8 bytes, 2 µs", "24 bytes, 6 µs"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["images", "grid"]


def test_roofline_is_the_lesser_of_slope_and_peak():
    figure = kernels.show_roofline(4e12, {"single": 60e12, "double": 30e12}, {"a": 2, "b": 100})
    lines = figure.axes[0].lines
    x, y = lines[0].get_data()
    np.testing.assert_allclose(y, np.minimum(60e12, 4e12 * x))
    dots = {line.get_label(): line.get_data() for line in lines if line.get_marker() == "o"}
    assert {name: tuple(map(float, np.ravel(at))) for name, at in dots.items()} == {
        "a: 2.0": (2.0, 8e12),
        "b: 100.0": (100.0, 60e12),
    }


def test_race_loses_an_addition():
    held, memory = {}, 0
    for thread, does, after in kernels.STEPS:
        if does.startswith("reads"):
            held[thread] = memory
        else:
            memory = held[thread] + 1
        assert memory == after
    assert memory == 1
    texts = [t.get_text() for t in kernels.show_race().axes[0].texts]
    assert texts.count("reads 0") == 2
    assert "and not 2" in texts


def test_answers_have_one_scale():
    axes = kernels.show_answers(
        {"wrong": np.full((2, 2), 1.0), "right": np.full((2, 2), 2.0)}
    ).axes
    assert [ax.get_title() for ax in axes] == ["wrong", "right"]
    assert [t.get_text() for t in axes[0].texts] == ["1.0"] * 4
    shades = []
    for ax, own in zip(axes, (RED, RED), strict=True):
        *colour, alpha = ax.patches[0].get_facecolor()
        shades.append(alpha * (1 - np.array(colour)) / (1 - np.array(to_rgb(own))))
    faint, strong = shades  # what each takes from a white page, as a part of its own colour
    np.testing.assert_allclose(faint, strong / 2)
    np.testing.assert_allclose(strong, strong[0])


# ---- What was measured ----


def _one(size, direction, contender, milliseconds, ratio=None, of_copy=None):
    """Return a measurement as a benchmark's record has it."""
    rest = {"ratio": ratio, "of_copy_bandwidth": of_copy}
    return {
        "size": size,
        "direction": direction,
        "contender": contender,
        "shape": {"n": 64, "c": 1, "input": [60, 60], "output": [30, 20]},
        "seconds": {"median": milliseconds / 1000},
        **{name: value and {"median": value} for name, value in rest.items()},
    }


RECORD = {
    "environment": {"gpu": "A made-up card"},
    "rounds": 7,
    "cases": [
        _one("d", "forward", "stnlib", 0.125, 4.0, 0.25),
        _one("d", "forward", "torch-planar", 0.25, 2.0, 0.125),
        _one("d", "forward", "torch", 0.5, 1.0, 0.0625),
        _one("d", "forward", "copy", 0.03125),
        {"size": "d", "direction": "forward", "contender": "kornia", "skipped": "missing"},
        _one("d", "backward", "stnlib", 2.0, 0.5, 0.5),
        _one("d", "backward", "stnlib-deterministic", 4.0, 0.25, 0.25),
        _one("d", "backward", "torch", 1.0, 1.0, 1.0),
        _one("d", "backward", "copy", 1.0),
    ],
}


def test_a_record_names_its_hardware_and_its_figures():
    head, columns, forward, backward = kernels.measured(RECORD).splitlines()
    assert head == "A made-up card, medians of 7 rounds, ms"
    assert columns.split()[:3] == ["PyTorch", "stnlib", "arrays"]
    assert forward.split() == [
        *("d", "forward", "0.500", "0.125", "4.00×", "–", "–", "0.031", "25.0%")
    ]
    assert backward.split() == [
        *("d", "backward", "1.000", "2.000", "0.50×", "–", "4.000", "1.000", "50.0%")
    ]


def test_bars_begin_at_pytorch_and_a_copy_is_a_line():
    figure = kernels.show_measured(RECORD)
    forward, backward = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["forward", "backward"]

    def ends(ax):
        return [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]

    assert ends(forward) == [(1, 4.0), (1, 2.0)]
    assert ends(backward) == [(1, 0.5), (1, 0.25)]
    assert [t.get_text() for t in forward.texts] == ["4.00", "2.00"]
    floor = [line for line in forward.lines if line.get_label() == "a copy of the bytes"]
    assert [list(line.get_xdata()) for line in floor] == [[16.0, 16.0]]
    assert [t.get_text() for t in forward.get_yticklabels()] == ["d: 64 × 1\n30 × 20"]
    assert {t.get_text() for t in figure.legends[0].get_texts()} == {
        *(label for label, _ in kernels.WHO.values()),
        "a copy of the bytes",
    }


def test_registers_are_a_table_or_a_sentence(tmp_path):
    assert "There is no record" in kernels.registers(tmp_path, "float 2D 2 int")
    taken = {
        "sm_75": {"registers": {"clear": 30, "sample_grid": 40}},
        "sm_90": {"registers": {"clear": 32}},
    }
    record = {"kernels": {"float 2D 2 int": taken}, "spilled": 0}
    (tmp_path / "kernels.json").write_text(json.dumps(record))
    rows = [line.split() for line in kernels.registers(tmp_path, "float 2D 2 int").splitlines()]
    assert rows[0][-2:] == ["sm_75", "sm_90"]
    assert rows[1:3] == [["clear", "30", "32"], ["sample_grid", "40", "–"]]
    assert rows[3][-2:] == ["0", "bytes"]


def test_colours_are_the_books():
    used = {*kernels.MOVED.values(), *(colour for _, colour in kernels.WHO.values())}
    assert used <= {BLUE, RED, GREEN, plotting.PURPLE}


# ---- The source, as the chapter shows it ----


def test_every_definition_of_the_kernels_has_its_name():
    names = [name for name, _ in _cuda_definitions(CUDA.read_text(encoding="utf-8"))]
    assert {"Problem", "my_pixel", "axis", "each_neighbour", "sample_grid", "add"} <= set(names)
    assert not [name for name in names if name.startswith("__")]
    kernel = re.compile(r"__global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(")
    assert set(kernel.findall(CUDA.read_text(encoding="utf-8"))) <= set(names)


def test_show_cuda_shows_a_definition_and_the_comment_above_it():
    shown = plotting.show_cuda("find_scale", "SUMS").data
    assert shown.startswith("```cuda\n// Up to `outputs` pixels")
    assert shown.endswith("\n\nconst int SUMS = DIMS * (DIMS + 1);\n```")
    assert plotting.show_cuda("find_scale").data.count("{") == 1
    assert plotting.show_cuda("load").data.count("__device__") == 4
    assert plotting.show_cuda("Accumulator").data.count("using type") == 2  # float, and double
    assert plotting.show_cuda("PROBLEM").data.count("\\\n") == 2
    assert "struct Problem {" in plotting.show_cuda("Problem").data


def test_show_cuda_knows_no_other_names():
    with pytest.raises(ValueError, match="defines no sample_nothing, x"):
        plotting.show_cuda("add", "sample_nothing", "x")


def test_show_source_reads_a_file_that_it_does_not_import():
    shown = plotting.show_source("engines.cuda:_GPU.on_stream").data
    assert shown.startswith("```python\n@contextlib.contextmanager\ndef on_stream(")
    with pytest.raises(ValueError, match=r"engines.cuda defines no _GPU.nothing"):
        plotting.show_source("engines.cuda:_GPU.nothing")
