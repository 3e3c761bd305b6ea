"""What holds for every engine: how one is chosen, and that it computes what the reference computes."""

import contextvars
import itertools
import multiprocessing
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st

import stnlib
from stnlib import engines
from stnlib.coordinates import normalise
from stnlib.interpolation import KERNELS, Bicubic
from stnlib.nn import functional
from stnlib.options import resolve
from stnlib.padding import PADDING_MODES

MODES = ("nearest", "bilinear", "bicubic")
DTYPES = (
    (np.float32, np.float32),
    (np.float32, np.float64),
    (np.float64, np.float64),
)  # of images and of coordinates
FAST = pytest.mark.parametrize("engine", ["cpu", "emulator"], indirect=True)
EVERY = pytest.mark.usefixtures("engine")
EVERY_MODE = pytest.mark.parametrize("mode", MODES)
EVERY_PADDING = pytest.mark.parametrize("padding_mode", PADDING_MODES)
VOLUMES_TOO = pytest.mark.parametrize("dimensions", [2, 3])
CORNERS = pytest.mark.parametrize("align_corners", [False, True])

rng = np.random.default_rng


def some(n=2, c=3, size=(5, 6), out=(4, 7), dtype=np.float64, places=None, seed=0):
    """Return a gradient of the output, images, a grid that leaves them, and thetas that turn and magnify."""
    r, d = rng(seed), len(size)
    grad, image = r.normal(size=(n, c, *out)), r.normal(size=(n, c, *size))
    grid = r.normal(0, 0.8, (n, *out, d)).astype(places or dtype)
    theta = np.eye(d, d + 1) + r.normal(0, 0.4, (n, d, d + 1))
    return grad.astype(dtype), image.astype(dtype), grid, theta.astype(places or dtype)


def everything(arrays, sized, **options):
    """Return the output and all gradients, at a grid or, sized, through theta."""
    grad, image, places = arrays
    if not sized:
        output = stnlib.grid_sample(image, places, **options)
        return output, *stnlib.grid_sample_vjp(grad, image, places, **options)
    output = stnlib.affine_sample(image, places, tuple(grad.shape[2:]), **options)
    return output, *stnlib.affine_sample_vjp(grad, image, places, **options)


def filled(padding_mode, c, dtype=np.float64):
    """Return the options of a padding; a value of its own for each channel."""
    values = (
        {"fill_value": rng(1).normal(size=c).astype(dtype)} if padding_mode == "fill" else {}
    )
    return {"padding_mode": padding_mode, **values}


def assert_same(actual, expected):
    np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected))


def assert_near(actual, expected, tolerance, what="", scale=1):
    """Compare; what is not finite, exactly; the rest relative to the largest expected number, or to the scale."""
    assert type(actual) is type(expected)
    assert (actual.dtype, tuple(actual.shape)) == (expected.dtype, tuple(expected.shape)), what
    actual, expected = np.asarray(actual), np.asarray(expected)
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=scale)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * largest, err_msg=what)


def assert_agrees(arrays, sized, spoilt=None, **options):
    """Compare what the engine in use computes with what the reference computes; what is not finite, as spoilt."""
    grad, image, places = arrays
    with np.errstate(all="ignore"):
        expected = everything(arrays, sized, engine="reference", **options)
    actual = everything(arrays, sized, **options)
    if spoilt is not None:
        actual, expected = (
            [np.where(np.isfinite(a), a, spoilt) for a in found] for found in (actual, expected)
        )
    # What theta and the fill value share comes of a sum over all that goes back.
    whole = max(1, np.abs(grad).sum())
    scales = {"output": 1, "input": 1, "places": whole if sized else 1, "fill": whole}
    for (name, scale), one, other in zip(scales.items(), actual, expected, strict=True):
        assert one.shape == other.shape
        images = range(len(other)) if name != "fill" else [...]
        for i in images:  # each has its own largest
            what = f"{name}, image {i}: {options}, {places.dtype}"
            assert_near(one[i], other[i], TOLERANCE[str(image.dtype)], what, scale)


# Sums of a few dozen numbers near 1, in another order: some dozen units in the last place.
TOLERANCE = {"float32": 4e-6, "float64": 1e-12}


# Choosing


def test_arrays_of_the_cpu_are_served_by_numbas_engine(served):
    grad, image, grid, theta = some()
    stnlib.grid_sample(image, grid)
    stnlib.affine_sample_vjp(grad, image, theta)
    stnlib.affine_sample(torch.from_numpy(image), torch.from_numpy(theta), (4, 7))
    stnlib.grid_sample_vjp(*map(torch.from_numpy, (grad, image, grid)))
    once = [("cpu", "sample"), ("cpu", "sample_vjp")]
    assert served == once * 2


@FAST
def test_a_named_engine_serves(engine, served):
    grad, image, grid, theta = some()
    with engines.use(None):
        stnlib.grid_sample(image, grid, engine=engine)
        stnlib.affine_sample(image, theta, (2, 2), engine=engine)
        stnlib.grid_sample_vjp(grad, image, grid, engine=engine)
        stnlib.affine_sample_vjp(grad, image, theta, engine=engine)
    assert served == [(engine, "sample")] * 2 + [(engine, "sample_vjp")] * 2


@FAST
def test_the_reference_serves_where_it_is_named(engine, served):
    grad, image, grid, theta = some()
    for arrays, sized in (((grad, image, grid), False), ((grad, image, theta), True)):
        everything(arrays, sized, engine="reference")
    with engines.use("reference"):
        functional.affine_sample(torch.from_numpy(image), torch.from_numpy(theta), (2, 2))
    assert served == []


def test_the_innermost_block_and_then_the_argument_decide(served):
    _, image, grid, _ = some()

    def who(**options):
        served.clear()
        stnlib.grid_sample(image, grid, **options)
        return served[0][0] if served else "reference"

    assert who() == "cpu"
    with engines.use("reference"):
        assert who() == "reference"
        with engines.use("cpu"):
            assert who() == "cpu"
            assert who(engine="reference") == "reference"
            with engines.use(None):
                assert who() == "cpu"
        assert who() == "reference"
    assert who() == "cpu"


def test_a_block_that_raises_leaves_the_choice_as_it_was(served):
    _, image, grid, _ = some()
    with pytest.raises(ZeroDivisionError), engines.use("reference"):
        _ = 1 / 0
    stnlib.grid_sample(image, grid)
    assert served == [("cpu", "sample")]


def test_each_thread_has_a_choice_of_its_own(served):
    _, image, grid, _ = some()
    both, found = threading.Barrier(2), {}

    def work(name, choice):
        def run():
            with engines.use(choice), engines.deterministic(choice == "cpu"):
                both.wait(30)
                chosen = engines.pick(None, resolve(), image, grid)
                found[name] = chosen is None, engines.is_deterministic(image)
                both.wait(30)

        # A new thread's context may be its parent's: in some builds of Python it is.
        return threading.Thread(target=contextvars.copy_context().run, args=(run,))

    threads = [work("one", "reference"), work("other", "cpu")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"one": (True, False), "other": (False, True)}
    stnlib.grid_sample(image, grid)
    assert served == [("cpu", "sample")]


def test_deterministic_can_be_asked_for_and_taken_back():
    array, tensor = np.zeros(1), torch.zeros(1)
    assert not engines.is_deterministic(array)
    with engines.deterministic():
        assert engines.is_deterministic(array)
        assert engines.is_deterministic(tensor)
        with engines.deterministic(False):
            assert not engines.is_deterministic(array)
        assert engines.is_deterministic(array)
    assert not engines.is_deterministic(tensor)


def test_pytorchs_own_switch_asks_for_determinism_of_tensors():
    torch.use_deterministic_algorithms(True)
    try:
        assert engines.is_deterministic(torch.zeros(1))
        assert not engines.is_deterministic(np.zeros(1))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", ["gpu", "numba", "", 3])
def test_an_engine_that_there_is_not_is_one_sentence(name):
    _, image, grid, theta = some()
    sentence = f"engine: expected one of reference, cpu, cuda, emulator, got {name!r}"
    tensors = torch.from_numpy(image), torch.from_numpy(grid)

    def enter():
        with engines.use(name):
            pass

    for call in (
        enter,
        lambda: stnlib.grid_sample(image, grid, engine=name),
        lambda: stnlib.affine_sample_vjp(image, image, theta, engine=name),
        lambda: functional.grid_sample(*tensors, engine=name),
    ):
        with pytest.raises(ValueError, match="engine") as caught:
            call()
        assert str(caught.value) == sentence


def test_the_cuda_engine_refuses_arrays_of_the_cpu_in_one_sentence(monkeypatch):
    _, image, grid, _ = some()
    # Whether CuPy is installed or not: the kernels are the emulator's, and none of them is run.
    monkeypatch.setattr(engines, "_load", lambda name: engines.Engine(engines, False))
    for arrays in ((image, grid), (torch.from_numpy(image), torch.from_numpy(grid))):
        with pytest.raises(ValueError, match="engine") as caught:
            stnlib.grid_sample(*arrays, engine="cuda")
        assert str(caught.value) == (
            "engine: 'cuda' takes CuPy arrays and CUDA tensors, and input is none of them"
        )


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )


ALONE = "import sys, numpy as np; {}; import stnlib; image, grid = np.ones((1, 1, 2, 2)), np.zeros((1, 1, 1, 2));"


@pytest.mark.parametrize(
    "missing",
    [
        "sys.modules['numba'] = None",
        # Numba's own words, where it finds a NumPy that it does not know.
        "sys.meta_path.insert(0, type('', (), {'find_spec': lambda name, *a: "
        "exec('raise ImportError(\"Numba needs NumPy 2.2 or less\")') if name == 'numba' else None}))",
    ],
    ids=["missing", "broken"],
)
def test_without_numba_the_reference_serves_by_itself(missing):
    code = ALONE.format(missing) + "print(stnlib.grid_sample(image, grid).item())"
    run = python(code)
    assert (run.stdout.strip(), run.stderr) == ("1.0", "")


@pytest.mark.parametrize(
    ("engine", "package", "sentence"),
    [
        (
            "cpu",
            "numba",
            'the CPU engine needs numba, which is not installed: pip install "stnlib[fast]"',
        ),
        (
            "cuda",
            "cupy",
            'the CUDA engine needs cupy, which is not installed: pip install "stnlib[cuda13]"',
        ),
    ],
)
def test_an_engine_that_is_named_says_which_extra_it_lacks(engine, package, sentence):
    for use in (
        f"stnlib.grid_sample(image, grid, engine={engine!r})",
        f"stnlib.engines.use({engine!r}).__enter__()",
    ):
        run = python(ALONE.format(f"sys.modules[{package!r}] = None") + use)
        assert run.stderr.strip().splitlines()[-1] == f"ModuleNotFoundError: {sentence}"
        assert "During handling" not in run.stderr


# What an engine covers, and who serves where it does not


@FAST
@EVERY_MODE
@EVERY_PADDING
@VOLUMES_TOO
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_engines_cover_what_they_are_to_cover(
    engine, mode, padding_mode, dimensions, dtype, served
):
    arrays = some(1, 1, (2,) * dimensions, (2,) * dimensions, dtype)
    for coordinates, align_corners in itertools.product(("normalised", "pixel"), (False, True)):
        options = {"mode": mode, "coordinates": coordinates, "align_corners": align_corners}
        everything(arrays[:3], False, **options, **filled(padding_mode, 1, dtype))
        everything((*arrays[:2], arrays[3]), True, **options, **filled(padding_mode, 1, dtype))
    assert served == [(engine, "sample"), (engine, "sample_vjp")] * 8


UNCOVERED = [
    {"mode": "lanczos"},
    {"mode": "gaussian", "padding_mode": "wrap"},
    {"mode": "bspline3"},
    {"mode": "bspline2", "padding_mode": "fill", "fill_value": 0.3},
    {"antialias": True},
    {"antialias": 2.5, "mode": "bicubic", "padding_mode": "mirror"},
]


@FAST
@pytest.mark.parametrize("options", UNCOVERED, ids=str)
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
def test_the_reference_serves_in_silence_where_an_engine_does_not(
    engine, options, sized, served
):
    grad, image, grid, theta = some()
    arrays = grad, image, 2 * theta if sized else grid
    with engines.use("reference"):
        expected = everything(arrays, sized, **options)
    for actual in (
        everything(arrays, sized, **options),
        everything(arrays, sized, engine=engine, **options),
    ):
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    assert served == []


class Unhurried(Bicubic):
    """A kernel derived from one that the engines know."""

    def value(self, d, xp):
        return 2 * super().value(d, xp)


@FAST
def test_a_kernel_derived_from_one_that_is_known_is_another(engine, served):
    _, image, grid, _ = some()
    doubled = stnlib.grid_sample(image, grid, mode=Unhurried())
    assert_near(
        doubled, 4 * stnlib.grid_sample(image, grid, mode="bicubic", engine="reference"), 1e-14
    )
    assert served == []


@FAST
@pytest.mark.parametrize("a", [-0.75, -0.5, 0.0, 0.3])
def test_every_bicubic_kernel_is_its_own(engine, a, served):
    grad, image, grid, _ = some()
    assert_agrees((grad, image, grid), False, mode=Bicubic(a=a), padding_mode="mirror")
    assert served


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
@EVERY
def test_half_precision_is_float32_rounded_once(engine, dtype, sized, served):
    grad, image, grid, theta = some(dtype=np.float32)
    tensors = [torch.from_numpy(a) for a in (grad, image, theta if sized else grid)]
    tensors[:2] = (t.to(dtype) for t in tensors[:2])
    output, grad_input, grad_places, _ = everything(tensors, sized, padding_mode="border")
    assert {name for name, _ in served} == ({"emulator"} if engine == "emulator" else set())
    wide = [t.double() for t in tensors]
    expected = everything(wide, sized, padding_mode="border", engine="reference")
    assert (output.dtype, grad_input.dtype, grad_places.dtype) == (dtype, dtype, torch.float32)
    # Half a unit in the last place of the largest of a binade; the sums in float32 may cross the middle between two.
    ulp = torch.finfo(dtype).eps
    for one, other in zip((output, grad_input), expected, strict=False):
        assert (
            (one.double() - other).abs() <= 0.51 * ulp * other.abs().clamp(min=1)
        ).all() or (
            (one.double() - other).abs()
            <= 0.51 * ulp * 2 ** torch.ceil(torch.log2(other.abs().clamp(min=1e-3)))
        ).all()
    assert_near(grad_places.double(), expected[2], 2e-6)


def test_numpys_float16_is_the_references(served):
    grad, image, grid, _ = some(dtype=np.float16, places=np.float32)
    output, *_ = everything((grad, image, grid), False)
    assert output.dtype == np.float16
    wide = image.astype(np.float64), grid.astype(np.float64)
    exact = stnlib.grid_sample(*wide, engine="reference")
    assert np.abs(output - exact).max() <= 1e-3 * np.abs(exact).max()
    assert served == []


# What PyTorch is to differentiate, map over or trace


def moved(function, tensor):
    return torch.func.jvp(function, (tensor,), (torch.ones_like(tensor),))[0]


def dual(function, tensor):
    with torch.autograd.forward_ad.dual_level():
        made = torch.autograd.forward_ad.make_dual(tensor, torch.ones_like(tensor))
        return torch.autograd.forward_ad.unpack_dual(function(made)).primal


def recorded(function, tensor):
    output = function(tensor.clone().requires_grad_())
    assert output.requires_grad
    return output.detach()


class Marked(torch.Tensor):
    """A subclass, of whose operations an engine knows nothing."""


def mapped(function, tensor):
    return torch.vmap(function)(tensor[None])[0]


def functionalized(function, tensor):
    return torch.func.functionalize(function)(tensor)


def marked(function, tensor):
    return function(tensor.as_subclass(Marked)).as_subclass(torch.Tensor)


@FAST
@pytest.mark.parametrize(
    ("library", "through"),
    [
        *((stnlib, way) for way in (mapped, moved, dual, marked, recorded, functionalized)),
        *(
            (functional, way) for way in (mapped, moved, dual, marked)
        ),  # the last two: below, and not PyTorch's to do
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script.* is :DeprecationWarning")
def test_the_reference_serves_what_pytorch_transforms(engine, library, through, served):
    _, image, grid, theta = (torch.from_numpy(a) for a in some())
    expected = stnlib.grid_sample(image, grid, engine="reference")
    output = through(lambda grid: library.grid_sample(image, grid), grid)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-14)
    expected = stnlib.affine_sample(image, theta, (3, 2), engine="reference")
    output = through(lambda theta: library.affine_sample(image, theta, (3, 2)), theta)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-14)
    assert served == []


@FAST
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
def test_a_batch_of_gradients_goes_back_by_the_reference(engine, sized, served):
    _, image, grid, theta = (torch.from_numpy(a) for a in some(1, 1, (3, 4), (2, 2)))

    def function(image, places):
        if sized:
            return functional.affine_sample(image, places, (2, 2))
        return functional.grid_sample(image, places)

    arguments = image, theta if sized else grid
    rows = torch.autograd.functional.jacobian(function, arguments, vectorize=True)
    assert served == [(engine, "sample")]
    with engines.use("reference"):
        expected = torch.autograd.functional.jacobian(function, arguments)
    for one, other in zip(rows, expected, strict=True):
        assert_near(one, other, 1e-13)


@FAST
def test_a_compiled_graph_is_the_references(engine, served):
    _, image, grid, theta = (torch.from_numpy(a) for a in some())
    torch._dynamo.reset()

    def both(image, grid, theta):
        return functional.grid_sample(image, grid) + functional.affine_sample(
            image, theta, (4, 7)
        )

    graph = torch.compile(both, fullgraph=True, backend="aot_eager")
    output = graph(image, grid, theta)
    assert served == []
    torch.testing.assert_close(output, both(image, grid, theta), rtol=0, atol=1e-14)
    assert served == [(engine, "sample")] * 2
    torch._dynamo.reset()


@FAST
def test_without_recording_a_parameter_is_a_tensor_as_any_other(engine, served):
    _, image, grid, _ = (torch.from_numpy(a) for a in some())
    parameter = torch.nn.Parameter(image)
    with torch.no_grad():
        output = stnlib.grid_sample(parameter, grid)
    with torch.inference_mode():
        again = stnlib.grid_sample(parameter, grid)
    assert served == [(engine, "sample")] * 2
    assert not output.requires_grad
    assert_same(output, again)


@FAST
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
def test_the_functional_records_one_step_and_goes_back_with_the_same_engine(
    engine, sized, served
):
    grad, image, grid, theta = (torch.from_numpy(a) for a in some())
    image, places = image.requires_grad_(), (theta if sized else grid).requires_grad_()
    fill = torch.ones(3, dtype=torch.float64, requires_grad=True)
    options = {"padding_mode": "fill", "fill_value": fill}
    if sized:
        output = functional.affine_sample(image, places, (4, 7), **options)
    else:
        output = functional.grid_sample(image, places, **options)
    with engines.use("reference"):  # who went forward goes back
        grads = torch.autograd.grad(output, (image, places, fill), grad)
    assert served == [(engine, "sample"), (engine, "sample_vjp")]
    arrays = [t.detach().numpy() for t in (grad, image, places)]
    options["fill_value"] = fill.detach().numpy()
    expected = everything(arrays, sized, engine="reference", **options)
    for one, other in zip((output.detach(), *grads), expected, strict=True):
        assert_near(one.numpy(), other, 1e-12)


@FAST
def test_only_the_gradients_that_are_needed_are_asked_of_an_engine(engine, monkeypatch):
    asked, called = [], engines.Engine.sample_vjp

    def spy(self, *arguments):
        asked.append(arguments[-1])
        return called(self, *arguments)

    monkeypatch.setattr(engines.Engine, "sample_vjp", spy)
    _, image, grid, _ = some()
    for needs in itertools.product((False, True), repeat=2):
        if any(needs):
            image_, grid_ = (
                torch.from_numpy(a).requires_grad_(need)
                for a, need in zip((image, grid), needs, strict=True)
            )
            functional.grid_sample(image_, grid_).sum().backward()
            assert (image_.grad is not None, grid_.grad is not None) == needs
    assert asked == [(False, True, False), (True, False, False), (True, True, False)]


@FAST
@pytest.mark.parametrize("needs", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
def test_gradients_that_are_not_needed_are_none_and_the_others_the_same(engine, needs, sized):
    grad, image, grid, theta = some()
    arrays = grad, image, theta if sized else grid
    call = stnlib.affine_sample_vjp if sized else stnlib.grid_sample_vjp
    options = filled("fill", 3)
    every, found = call(*arrays, **options), call(*arrays, needs=needs, **options)
    for need, one, other in zip(needs, found, every, strict=True):
        if need:
            assert_near(one, other, 1e-13)
        else:
            assert one is None


@FAST
def test_second_derivatives_of_an_engines_gradients_are_the_references(engine, served):
    _, image, _, theta = some()
    results = []
    for chosen in (engine, "reference"):
        tensors = [torch.from_numpy(a).clone().requires_grad_() for a in (image, theta)]
        output = functional.affine_sample(*tensors, (4, 7), mode="bicubic", engine=chosen)
        first = torch.autograd.grad(output.square().sum(), tensors, create_graph=True)
        total = sum(g.square().sum() for g in first)
        results.append([output, *first, *torch.autograd.grad(total, tensors)])
    # The first derivatives' own derivatives are the reference's; then it goes back through the output, once more.
    assert served == [(engine, "sample"), *[(engine, "sample_vjp")] * 2]
    for one, other in zip(*results, strict=True):
        assert_near(one.detach(), other.detach(), 1e-12)


# Agreement, wherever a sample lies


def hard(size, seed=0, count=(20, 17)):
    """Return positions, in pixels, of two images: within and beyond; whole, half, and others; huge and not finite."""
    r, d = rng(seed), len(size)
    shape = (2, *count) if d == 2 else (2, 4, 5, count[1])
    lengths = np.array(size[::-1])
    whole = np.floor(r.uniform(-2.5, 3.5, (*shape, d)) * lengths)
    other = r.choice([0.0, 0.5, 2**-30, 1 - 2**-30], (*shape, d))
    position = whole + np.where(r.random((*shape, d)) < 0.5, r.random((*shape, d)), other)
    inside = r.random(shape) < 0.3  # every neighbour inside, or at the rim
    position[inside] = (r.random((*shape, d)) * (lengths - 1))[inside]
    far = np.array(
        [
            1e3,
            2**31 - 0.25,
            2.0**31,
            2.0**32 + 1,
            2.0**51 + 1,
            2.0**53,
            2.0**63,
            1e17,
            1e300,
            np.inf,
        ]
    )
    flat = position[0].reshape(-1, d)
    # No ties: far out, an engine may measure from another period, and of two pixels the even one is then the other.
    wild = np.concatenate([far, -far, [np.nan, -0.0]])
    for i, value in enumerate(wild):
        flat[2 * i, i % d] = value
        flat[2 * i + 1] = value
    return position


def as_grid(position, size, coordinates, align_corners, dtype):
    with np.errstate(all="ignore"):
        if coordinates == "normalised":
            axes = (
                normalise(position[..., i], s, align_corners=align_corners)
                for i, s in enumerate(size[::-1])
            )
            position = np.stack(list(axes), axis=-1)
        return position.astype(dtype)


@FAST
@EVERY_MODE
@EVERY_PADDING
@CORNERS
@pytest.mark.parametrize("size", [(6, 5), (1, 4), (3, 4, 2), (2, 1, 3)], ids=str)
def test_a_grid_wherever_it_reads(engine, mode, padding_mode, align_corners, size):
    position = hard(size)
    for (dtype, places), coordinates in itertools.product(DTYPES, ("normalised", "pixel")):
        image = rng(1).normal(size=(2, 3, *size)).astype(dtype)
        grad = rng(2).normal(size=(2, 3, *position.shape[1:-1])).astype(dtype)
        grid = as_grid(position, size, coordinates, align_corners, places)
        options = {"mode": mode, "coordinates": coordinates, "align_corners": align_corners}
        assert_agrees((grad, image, grid), False, **options, **filled(padding_mode, 3, dtype))


THETAS = {
    2: [
        [[1, 0, 0], [0, 1, 0]],  # on the knots
        [[0, -1, 0], [1, 0, 0]],  # a quarter turn
        [[-1, 0, 0], [0, 0.5, 0.25]],
        [[0.7, -0.4, 0.1], [0.5, 0.8, -0.3]],
        [[9, 0.3, 0], [-0.2, -7, 5]],  # mostly beyond
        [[0, 0, 0.3], [0, 0, -0.2]],  # one point
        [[0, 0, 40], [0, 0, -50]],  # nothing of the image
        [[1e17, 0, 0.5], [0, 1, -1e17]],
        [[np.nan, 0, 0], [0, 1, 0]],
        [[1, 0, 0], [0, 1, np.inf]],
    ],
    3: [
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]],
        [[0, 0, 1, 0], [1, 0, 0, 0], [0, -1, 0, 0]],
        [[0.7, -0.4, 0.1, 0.2], [0.5, 0.8, -0.3, -0.3], [0.1, 0.2, 0.5, 0.3]],
        [[9, 0.3, 0, 0], [0.2, -7, 1, 5], [0, 0, 3, 1]],
        [[0, 0, 0, 0.3], [0, 0, 0, -0.2], [0, 0, 0, 0]],
        [[1e17, 0, 0, 0.5], [0, 1, 0, -1e17], [0, 0, 1, 0]],
        [[1, 0, 0, 0], [0, 1, 0, np.nan], [0, 0, 1, 0]],
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -np.inf]],
    ],
}


@FAST
@EVERY_MODE
@EVERY_PADDING
@CORNERS
@pytest.mark.parametrize(
    ("size", "out"),
    [
        ((6, 5), (6, 5)),
        ((7, 4), (3, 11)),
        ((1, 6), (4, 1)),
        ((3, 4, 2), (3, 4, 2)),
        ((2, 1, 3), (5, 2, 4)),
    ],
    ids=str,
)
def test_a_theta_wherever_it_reads(engine, mode, padding_mode, align_corners, size, out):
    d = len(size)
    thetas = np.array(THETAS[d], float)
    n = len(thetas)
    for (dtype, places), coordinates in itertools.product(DTYPES, ("normalised", "pixel")):
        image = rng(1).normal(size=(n, 2, *size)).astype(dtype)
        grad = rng(2).normal(size=(n, 2, *out)).astype(dtype)
        options = {"mode": mode, "coordinates": coordinates, "align_corners": align_corners}
        options |= filled(padding_mode, 2, dtype)
        assert_agrees((grad, image, thetas.astype(places)), True, **options)


@FAST
@EVERY_PADDING
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [(5, 4), (3, 4, 2)], ids=str)
def test_pixels_that_are_not_finite_spoil_the_same_samples(
    engine, padding_mode, mode, bad, size
):
    image = rng(0).normal(size=(2, 2, *size))
    image[(0, 1, *(1,) * len(size))] = bad
    image[(1, 0, *(0,) * len(size))] = -bad  # in the corner, which border padding repeats
    grad = rng(1).normal(size=(2, 2, *hard(size).shape[1:-1]))
    # Infinity times a weight of 0, or less itself, is NaN: which samples that befalls depends on the order of the sums.
    spoilt = None if np.isnan(bad) else np.nan
    options = {"mode": mode, "spoilt": spoilt, **filled(padding_mode, 2)}
    assert_agrees((grad, image, hard(size)), False, coordinates="pixel", **options)
    identity = np.eye(len(size), len(size) + 1)
    theta = np.stack([identity, 0.7 * identity + 0.1])
    assert_agrees((rng(1).normal(size=(2, 2, *size)), image, theta), True, **options)


@FAST
@EVERY_MODE
@EVERY_PADDING
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("angle", [0, 20, 45, 90, 200])
def test_images_larger_than_a_block_of_rows(engine, mode, padding_mode, dtype, angle):
    turn = np.deg2rad(angle)
    for scale, size, out in ((0.8, (67, 131), (45, 150)), (2.5, (40, 33), (130, 21))):
        theta = scale * np.array(
            [[np.cos(turn), -np.sin(turn), 0.1], [np.sin(turn), np.cos(turn), 0]]
        )
        theta = np.stack([theta, np.diag([-1, 1]) @ theta]).astype(dtype)
        grad, image, *_ = some(2, 2, size, out, dtype)
        assert_agrees((grad, image, theta), True, mode=mode, **filled(padding_mode, 2, dtype))
        grid = stnlib.affine_grid(theta, out)
        assert_agrees((grad, image, grid), False, mode=mode, **filled(padding_mode, 2, dtype))


@FAST
@EVERY_PADDING
@pytest.mark.parametrize("channels", [1, 5, 8, 17, 33])
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
def test_one_channel_and_many(engine, padding_mode, channels, sized):
    grad, image, grid, theta = some(2, channels, (6, 7), (5, 4), np.float32)
    assert_agrees(
        (grad, image, theta if sized else grid),
        sized,
        **filled(padding_mode, channels, np.float32),
    )


@st.composite
def cases(draw):
    """Arrays of any shape and dtype, and options that an engine covers."""
    d = draw(st.sampled_from([2, 3]))
    n, c = draw(st.integers(0, 3)), draw(st.integers(0, 4))
    sides = st.integers(1, 40 if d == 2 else 9)
    size, out = (tuple(draw(sides) for _ in range(d)) for _ in range(2))
    dtype, places = draw(st.sampled_from(DTYPES))
    sized = draw(st.booleans())
    grad, image, grid, theta = some(
        n, c, size, out, dtype, places, draw(st.integers(0, 2**32 - 1))
    )
    options = {
        "mode": draw(st.sampled_from(MODES)),
        "coordinates": draw(st.sampled_from(["normalised", "pixel"])),
        "align_corners": draw(st.booleans()),
        **filled(draw(st.sampled_from(PADDING_MODES)), c, dtype),
    }
    return (grad, image, theta if sized else grid), sized, options


@FAST
@given(case=cases())
def test_arrays_of_any_shape(engine, case):
    arrays, sized, options = case
    assert_agrees(arrays, sized, **options)


# Independent truth: by other authors, in float64


@EVERY
@pytest.mark.parametrize(
    ("mode", "size", "out"),
    [
        ("nearest", (7, 9), (8, 6)),
        ("bilinear", (7, 9), (8, 6)),
        ("bicubic", (7, 9), (8, 6)),
        ("nearest", (3, 5, 4), (4, 3, 5)),
        ("bilinear", (3, 5, 4), (4, 3, 5)),
    ],
)
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@CORNERS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_theta_to_output_and_back_is_pytorchs(
    mode, size, out, padding_mode, align_corners, dtype
):
    grad, image, _, theta = some(2, 3, size, out, dtype, seed=3)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    actual = everything((grad, image, theta), True, **options)
    image_, theta_ = (torch.from_numpy(a).double().requires_grad_() for a in (image, theta))
    grid = torch.nn.functional.affine_grid(theta_, (2, 3, *out), align_corners=align_corners)
    output = torch.nn.functional.grid_sample(image_, grid, **options)
    expected = (
        output,
        *torch.autograd.grad(output, (image_, theta_), torch.from_numpy(grad).double()),
    )
    for one, other in zip(actual, expected, strict=False):
        assert one.dtype == dtype
        assert_near(
            one.astype(np.float64), other.detach().numpy(), TOLERANCE[str(np.dtype(dtype))]
        )


@EVERY
@pytest.mark.parametrize(
    ("padding_mode", "scipys"),
    [
        ("zeros", "grid-constant"),
        ("border", "nearest"),
        ("reflection", "reflect"),
        ("mirror", "mirror"),
        ("wrap", "grid-wrap"),
    ],
)
@pytest.mark.parametrize("size", [(7, 9), (3, 5, 4)], ids=str)
def test_output_is_scipys(padding_mode, scipys, size):
    d = len(size)
    _, image, _, theta = some(1, 1, size, (6,) * d, seed=4)
    theta[..., -1] += 1.3
    output = stnlib.affine_sample(
        image, theta, (6,) * d, padding_mode=padding_mode, coordinates="pixel"
    )
    index = np.indices((6,) * d)[::-1].reshape(d, -1)
    position = (theta[0, :, :-1] @ index + theta[0, :, -1:])[::-1]
    expected = scipy.ndimage.map_coordinates(image[0, 0], position, order=1, mode=scipys)
    assert_near(output.ravel(), expected, 1e-12)


@FAST
def test_white_noise_is_read_within_a_millionth_of_float64(engine):
    size, turn = (512, 512), np.deg2rad(20)
    theta = 0.8 * np.array(
        [[[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0]]]
    )
    theta = theta.astype(np.float32)
    image, grad = (
        rng(0).random((1, 1, *size), np.float32),
        rng(1).random((1, 1, *size), np.float32),
    )
    output, grad_input, grad_theta, _ = everything((grad, image, theta), True)
    wide = [torch.from_numpy(a).double().requires_grad_() for a in (image, theta)]
    grid = torch.nn.functional.affine_grid(wide[1], (1, 1, *size), align_corners=False)
    expected = torch.nn.functional.grid_sample(wide[0], grid, align_corners=False)
    grads = torch.autograd.grad(expected, wide, torch.from_numpy(grad).double())
    assert np.abs(output - expected.detach().numpy()).max() <= 1e-6
    assert np.abs(grad_input - grads[0].numpy()).max() <= 1e-6 * np.abs(grads[0].numpy()).max()
    assert np.abs(grad_theta - grads[1].numpy()).max() <= 1e-5 * np.abs(grads[1].numpy()).max()


# Arrays as they come, and what becomes of them


@FAST
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)], ids=str)
@EVERY_PADDING
@VOLUMES_TOO
def test_no_images_or_no_channels(engine, sized, shape, padding_mode, dimensions, served):
    size, out = (4, 5, 2)[:dimensions], (3, 2, 4)[:dimensions]
    grad, image, grid, theta = some(*shape, size, out)
    arrays = grad, image, theta if sized else grid
    assert_agrees(arrays, sized, **filled(padding_mode, shape[1]))
    tensors = [torch.from_numpy(a) for a in arrays]
    output, grad_input, grad_places, _ = everything(tensors, sized, padding_mode=padding_mode)
    assert tuple(output.shape) == (*shape, *out)
    assert grad_input.shape == image.shape
    assert not grad_places.any()
    assert grad_places.shape == tensors[2].shape


LAYOUTS = {
    "strided": lambda a: np.repeat(np.repeat(a, 2, -1), 3, 0)[::3, ..., ::2],
    "negative": lambda a: a[::-1, ..., ::-1].copy()[::-1, ..., ::-1],
    "transposed": lambda a: a.swapaxes(-1, -2).copy().swapaxes(-1, -2),
    "last axis first": lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1),
    "Fortran": np.asfortranarray,
    "unaligned": lambda a: (
        np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
    ),
}


@FAST
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_how_arrays_lie_in_memory_does_not_matter(engine, layout, sized, mode):
    for d, dtype in ((2, np.float32), (3, np.float64)):
        grad, image, grid, theta = some(2, 3, (5, 6, 4)[:d], (3, 4, 5)[:d], dtype)
        arrays = grad, image, theta if sized else grid
        expected = everything(arrays, sized, mode=mode, engine="reference")
        laid = [LAYOUTS[layout](a) for a in arrays]
        for one, other in zip(laid, arrays, strict=True):
            assert_same(one, other)
        for one, other in zip(everything(laid, sized, mode=mode), expected, strict=True):
            assert_near(one, other, TOLERANCE[str(other.dtype)])


@FAST
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
def test_arrays_that_are_repeated_without_a_copy(engine, sized):
    grad, image, grid, theta = some()
    grad, image = (np.broadcast_to(a[:1, :1], a.shape) for a in (grad, image))
    places = np.broadcast_to((theta if sized else grid)[:1], (theta if sized else grid).shape)
    assert_agrees((grad, image, places), sized)
    tensors = [torch.from_numpy(a[:1].copy()).expand(a.shape) for a in (grad, image, places)]
    for one, other in zip(
        everything(tensors, sized),
        everything((grad, image, places), sized, engine="reference"),
        strict=True,
    ):
        assert_near(one.numpy(), other, 1e-12)


@FAST
def test_tensors_with_their_channels_last(engine):
    grad, image, grid, theta = (torch.from_numpy(a) for a in some(2, 4))
    for sized, places in ((False, grid), (True, theta)):
        expected = everything((grad, image, places), sized, engine="reference")
        laid = [t.contiguous(memory_format=torch.channels_last) for t in (grad, image)]
        for one, other in zip(everything((*laid, places), sized), expected, strict=True):
            assert_near(one, other, 1e-12)


@FAST
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
@EVERY_PADDING
def test_what_is_handed_in_may_be_read_only_and_stays_as_it_is(engine, sized, padding_mode):
    grad, image, grid, theta = some()
    arrays = grad, image, theta if sized else grid
    options = filled(padding_mode, 3)
    before = [a.copy() for a in arrays]
    expected = everything(arrays, sized, **options)
    for one, other in zip(arrays, before, strict=True):
        assert_same(one, other)
        one.flags.writeable = False
    for one, other in zip(everything(arrays, sized, **options), expected, strict=True):
        assert_near(one, other, 1e-13)


@FAST
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_what_comes_back_is_new_and_can_be_written_to(engine, sized, library):
    identity = np.tile(np.eye(2, 3), (2, 1, 1))
    grad, image = (library(rng(i).random((2, 3, 4, 5))) for i in (0, 1))
    places = library(identity if sized else stnlib.affine_grid(identity, (4, 5)))
    arrays = grad, image, places
    first, again = (everything(arrays, sized, mode="nearest") for _ in range(2))
    assert_same(first[0], image)
    every = [np.asarray(a) for a in (*arrays, *first, *again)]
    for one, other in itertools.combinations(every, 2):
        assert not np.shares_memory(one, other)
    copies = [a.copy() for a in every[7:]]
    for one in every[3:6]:
        one[...] = -1
    for one, other in zip(every[7:], copies, strict=True):
        assert_same(one, other)


@EVERY
@pytest.mark.parametrize("library", [np.asarray, torch.tensor], ids=["numpy", "torch"])
def test_each_call_has_its_own_fill_value(library):
    image, far = library(np.ones((1, 2, 3, 3))), library(np.full((1, 1, 1, 2), 9.0))
    for value in ([3.0, 4.0], [5.0, 6.0]):
        fill = library(np.array(value))
        output = stnlib.grid_sample(image, far, padding_mode="fill", fill_value=fill)
        assert output.reshape(-1).tolist() == value
    kept = weakref.ref(fill)
    del fill
    assert kept() is None


@EVERY
def test_other_kinds_of_arrays_are_taken_as_they_are_or_refused_in_one_sentence(tmp_path):
    _, image, grid, _ = some()
    expected = stnlib.grid_sample(image, grid)
    mapped = np.memmap(tmp_path / "image", np.float64, "w+", shape=image.shape)
    mapped[...] = image
    assert_same(stnlib.grid_sample(mapped, grid), expected)
    for wrong, message in (
        (image.astype(image.dtype.newbyteorder()), f"got {image.dtype.newbyteorder().str}"),
        (image.astype(np.longdouble), f"got {np.dtype(np.longdouble)}"),
    ):
        with pytest.raises(TypeError, match="input: expected float32 or float64, or") as caught:
            stnlib.grid_sample(wrong, grid)
        assert message in str(caught.value)
    with pytest.raises(TypeError, match="grid: expected float32 or float64, got >f8"):
        stnlib.grid_sample(image, grid.astype(">f8"))
    with pytest.raises(ValueError, match=r"input: expected shape \(N, C, H, W\).*, got \(\)"):
        stnlib.grid_sample(np.array(1.0), grid)


@EVERY
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
def test_what_is_refused_is_refused_in_the_same_words(sized):
    grad, image, grid, theta = some()
    places = theta if sized else grid
    for wrong, error, message in (
        ((grad, image, places[:1]), ValueError, "expected a batch of 2, as input has"),
        (
            (grad[:, :2], image, places),
            ValueError,
            r"grad_output: expected shape \(2, 3, 4, 7\)",
        ),
        ((grad.astype(np.float32), image, places), TypeError, "grad_output: expected float64"),
        ((torch.from_numpy(grad), image, places), TypeError, "grad_output is a torch.Tensor"),
        ((grad, image[0], places), ValueError, r"input: expected shape \(N, C, H, W\)"),
    ):
        call = stnlib.affine_sample_vjp if sized else stnlib.grid_sample_vjp
        with pytest.raises(error, match=message):
            call(*wrong)


# Again, and at the same time


@FAST
@pytest.mark.parametrize("sized", [False, True], ids=["grid", "theta"])
@EVERY_MODE
def test_a_deterministic_gradient_is_the_same_bit_for_bit(engine, sized, mode):
    grad, image, grid, theta = some(3, 2, (20, 30), (50, 60), np.float32)
    arrays = grad, image, theta if sized else grid
    with engines.deterministic():
        first, *others = (everything(arrays, sized, mode=mode) for _ in range(3))
        assert_agrees(arrays, sized, mode=mode)
    for other in others:
        for one, same in zip(first, other, strict=True):
            assert_same(one, same)


def in_a_process(arrays, results):
    results.put(everything(arrays, True, engine="cpu"))


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_computes_as_its_parent_does():
    grad, image, _, theta = some(4, 3, (30, 40), (50, 60))
    torch.set_num_threads(2)
    try:
        expected = everything((grad, image, theta), True, engine="cpu")
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        child = context.Process(target=in_a_process, args=((grad, image, theta), results))
        child.start()
        actual = results.get(timeout=60)
        child.join(60)
    finally:
        torch.set_num_threads(1)
    assert child.exitcode == 0
    for one, other in zip(actual, expected, strict=True):
        assert_same(one, other)


@FAST
def test_several_threads_may_call_at_once(engine):
    problems = [some(2, 2, (20, 30), (25, 35), seed=seed) for seed in range(4)]
    arrays = [(grad, image, theta) for grad, image, _, theta in problems]
    expected = [everything(a, True) for a in arrays]
    together, wrong = threading.Barrier(4), []

    def work(i):
        together.wait(30)
        for _ in range(5):
            for one, other in zip(
                everything(arrays[i], True, engine=engine), expected[i], strict=True
            ):
                if np.abs(one - other).max() > 1e-12:
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("mode", MODES)
def test_the_cpus_results_do_not_depend_on_the_number_of_threads(mode):
    grad, image, grid, theta = some(3, 2, (40, 50), (60, 70), np.float32)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(
            everything((grad, image, theta), True, mode=mode, engine="cpu")
            + everything((grad, image, grid), False, mode=mode, engine="cpu")
        )
    torch.set_num_threads(1)
    for one, *others in zip(*results, strict=True):
        for other in others:
            assert_same(one, other)


@pytest.mark.parametrize("mode", [name for name in KERNELS if name not in MODES])
def test_kernels_without_an_engine_are_those_that_the_reference_alone_has(mode, served):
    _, image, grid, _ = some()
    for engine in ("cpu", "emulator"):
        assert not engines._load(engine).covers(image, resolve(mode=mode))
        stnlib.grid_sample(image, grid, mode=mode, engine=engine)
    assert served == []
