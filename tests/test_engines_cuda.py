"""The CUDA engine on a GPU, against the reference on the CPU; and what can be told of it without one."""

import contextlib
import importlib
import itertools
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import stnlib
from stnlib import _arrays, engines
from stnlib.data import mnist
from stnlib.engines import deterministic, emulator
from stnlib.interpolation import Kernel
from stnlib.nn import SpatialTransformer, functional

MODES = ("nearest", "bilinear", "bicubic")
PADDINGS = ("zeros", "border", "reflection", "wrap", "mirror", "fill")
CONVENTIONS = list(itertools.product((False, True), ("normalised", "pixel")))
TOLERANCE = {"float64": 1e-12, "float32": 4e-6, "float16": 2e-3, "bfloat16": 1.6e-2}


def _why_not():
    """Return why the tests that need a GPU cannot run, or nothing."""
    try:
        import cupy
    except ImportError as error:
        return f"CuPy cannot be imported: {error}"
    if not cupy.cuda.is_available():
        return "CuPy finds no GPU"
    return ""


def on_gpu(test):
    """Mark a test that needs CuPy and a GPU."""
    why_not = _why_not()
    return pytest.mark.gpu(pytest.mark.skipif(bool(why_not), reason=why_not)(test))


def with_tensors(test):
    """Mark a test that needs PyTorch with a GPU as well."""
    has = torch.cuda.is_available()
    return on_gpu(pytest.mark.skipif(not has, reason="PyTorch finds no GPU")(test))


def numbers(seed, shape, dtype="float64"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def thetas(seed, n, dimensions, spread=0.3):
    theta = spread * numbers(seed, (n, dimensions, dimensions + 1))
    theta[:, :, :dimensions] += np.eye(dimensions)
    return theta


def grids(seed, n, out):
    return np.random.default_rng(seed).uniform(-1.5, 1.5, (n, *out, len(out)))


def wide(array):
    """Return an array or tensor from wherever it is, as a NumPy array in float64."""
    if isinstance(array, torch.Tensor):
        return array.detach().double().cpu().numpy()
    return np.asarray(array.get() if hasattr(array, "get") else array, dtype=np.float64)


def assert_close(got, expected, dtype, what="", times=1, beside=0.0):
    """Compare, relative to the largest value; each may be off by ``beside`` as well, which is absolute."""
    got, expected = wide(got), wide(expected)
    assert got.shape == expected.shape, what
    known = np.isfinite(expected)
    np.testing.assert_array_equal(got[~known], expected[~known], err_msg=what)
    if known.any():
        scale = max(1, np.abs(expected[known]).max())
        error = (np.abs(got - expected) - beside)[known].max() / scale
        assert error < times * TOLERANCE[dtype], f"{what}: {error:.2g} apart"


def everything(input, place, out, gradient, **options):
    """Return the output and the gradients; out is the size beside a theta."""
    if out is None:
        output = stnlib.grid_sample(input, place, **options)
        return output, *stnlib.grid_sample_vjp(gradient, input, place, **options)
    output = stnlib.affine_sample(input, place, out, **options)
    return output, *stnlib.affine_sample_vjp(gradient, input, place, **options)


class Power(Kernel):
    """A power of what another kernel weighs a pixel with: its square, or 1 for each pixel that it reads."""

    def __init__(self, kernel, power):
        self.kernel, self.power, self.support = kernel, power, kernel.support

    def first(self, x, xp):
        return self.kernel.first(x, xp)

    def value(self, d, xp):
        return self.kernel.value(d, xp) ** self.power


def roundings(input, place, out, gradient, **options):
    """Return how far atomic additions may leave each pixel of the image's gradient from its true sum.

    A sum of n terms of either sign, whose squares add up to Q, is about sqrt(k Q / n) after k of them. To round it to
    float32 moves it by up to 2^-24 of that to either side, in the mean square by 2^-24 sqrt(k Q / (3 n)). All n
    roundings, in whatever order, then come to 2^-24 sqrt(n Q / 6), and five times as much is allowed. This counts where
    many samples fall on one pixel: on the edge of an image with a border there may be thousands.
    """
    unit = 2.0**-53 if str(input.dtype).endswith("float64") else 2.0**-24
    vjp = stnlib.grid_sample_vjp if out is None else stnlib.affine_sample_vjp
    input, place, gradient = wide(input), wide(place), wide(gradient)
    kernel = stnlib.options.resolve(**options).sampler.kernel

    def summed(terms, power):
        options["mode"] = Power(kernel, power)
        needs = (True, False, False)
        return vjp(terms, input, place, needs=needs, engine="reference", **options)[0]

    number, squares = summed(np.ones_like(gradient), 0), summed(gradient**2, 2)
    return 5 * unit * np.sqrt(number * squares / 6)


def assert_as_reference(to_gpu, input, place, out=None, *, engine="cuda", **options):
    """Compare the engine, and the reference, with the reference in float64; to_gpu brings an array or tensor to a GPU.

    The reference sums in float64, whatever the images hold, and the engine's deterministic form mostly in fixed point.
    Its fast form sums in float32: what that costs is allowed to it, and no more.
    """
    dtype = str(input.dtype).rpartition(".")[2]
    shape = (*input.shape[:2], *(out or place.shape[1:-1]))
    gradient = numbers(99, shape)
    gradient = (
        torch.from_numpy(gradient).to(input.dtype)
        if isinstance(input, torch.Tensor)
        else gradient.astype(dtype)
    )
    exact = everything(
        wide(input), wide(place), out, wide(gradient), engine="reference", **options
    )
    expected = everything(input, place, out, gradient, engine="reference", **options)
    given = to_gpu(input), to_gpu(place), out, to_gpu(gradient)
    found = {"reference": expected}
    for form, wanted in (("fast", False), ("deterministic", True)):
        with deterministic(wanted):
            found[form] = everything(*given, engine=engine, **options)
    lost = roundings(input, place, out, gradient, **options)
    for form, results in found.items():
        for name, got, like, truth in zip(
            ("output", "input", "coordinates", "fill"), results, expected, exact, strict=True
        ):
            what = f"{name} {tuple(input.shape)} -> {out} {options}, {form}"
            assert str(got.dtype) == str(like.dtype), what
            # A gradient of coordinates is a long sum of either sign.
            times = 10 if name == "coordinates" else 1
            beside = lost if (form, name) == ("fast", "input") else 0.0
            assert_close(got, truth, dtype, what, times, beside)


def every_case(to_gpu, input, dimensions, out, mode, conventions):
    for padding, (align_corners, coordinates) in itertools.product(PADDINGS, conventions):
        options = {"mode": mode, "padding_mode": padding, "align_corners": align_corners}
        options |= {"coordinates": coordinates}
        if padding == "fill":
            options["fill_value"] = [0.5, -1.0, 2.0]
        for place, size in ((thetas(1, 2, dimensions), out), (grids(2, 2, out), None)):
            place = 3 * place + (2 if size is None else 0) if coordinates == "pixel" else place
            if isinstance(input, torch.Tensor):
                place = torch.from_numpy(place)
            assert_as_reference(to_gpu, input, place, size, **options)


SIZES = {2: ((9, 13), (37, 35)), 3: ((5, 6, 7), (7, 9, 11))}


@on_gpu
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_cupy_arrays_agree_with_the_reference(dimensions, dtype, mode):
    import cupy

    size, out = SIZES[dimensions]
    input = numbers(0, (2, 3, *size), dtype)
    every_case(cupy.asarray, input, dimensions, out, mode, CONVENTIONS)


@with_tensors
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_tensors_agree_with_the_reference(dimensions, dtype, mode):
    size, out = SIZES[dimensions]
    input = torch.from_numpy(numbers(0, (2, 3, *size))).to(dtype)
    every_case(torch.Tensor.cuda, input, dimensions, out, mode, CONVENTIONS[:1])


@on_gpu
@pytest.mark.parametrize("channels", [1, 2, 5, 40, 100])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_channels_last(dimensions, channels):
    import cupy

    size, out = SIZES[dimensions]
    input = numbers(0, (2, channels, *size), "float32")
    last = cupy.moveaxis(
        cupy.ascontiguousarray(cupy.moveaxis(cupy.asarray(input), 1, -1)), -1, 1
    )
    for mode in ("bilinear", "bicubic"):
        for place, shape in ((thetas(1, 2, dimensions), out), (grids(2, 2, out), None)):

            def to_gpu(array, input=input):
                return last if array is input else cupy.asarray(array)

            assert_as_reference(to_gpu, input, place, shape, mode=mode)
    output = stnlib.affine_sample(
        last, cupy.asarray(thetas(1, 2, dimensions)), out, engine="cuda"
    )
    assert cupy.moveaxis(output, 1, -1).flags.c_contiguous


@on_gpu
@pytest.mark.parametrize("padding", PADDINGS)
def test_coordinates_that_are_far_or_no_number(padding):
    import cupy

    far = [0.3, np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**31, -(2.0**31), 1e300]
    grid = np.array(list(itertools.product(far, repeat=2))).reshape(1, 1, -1, 2)
    for mode in MODES:
        options = {"mode": mode, "padding_mode": padding, "coordinates": "pixel"}
        assert_as_reference(cupy.asarray, numbers(0, (1, 2, 3, 4)), grid, **options)


@on_gpu
def test_an_empty_batch():
    import cupy

    assert_as_reference(cupy.asarray, np.zeros((0, 3, 4, 5)), thetas(0, 0, 2), (6, 7))
    assert_as_reference(cupy.asarray, np.zeros((2, 0, 4, 5)), grids(0, 2, (6, 7)))


@on_gpu
def test_the_engine_is_chosen_by_itself(served):
    import cupy

    input, theta = cupy.ones((1, 1, 4, 4), "float32"), cupy.asarray(thetas(0, 1, 2))
    stnlib.affine_sample(input, theta, (4, 4))
    stnlib.affine_sample_vjp(input, input, theta)
    assert served == [("cuda", "sample"), ("cuda", "sample_vjp")]
    with pytest.raises(ValueError, match="engine: 'cpu' takes arrays of the CPU"):
        stnlib.affine_sample(input, theta, (4, 4), engine="cpu")


# ---- Gradients -------------------------------------------------------------------------------------------------------


@with_tensors
@pytest.mark.parametrize("asked", ["here", "of PyTorch"])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_deterministic_gradients_repeat_bit_for_bit(padding, asked):
    input = torch.randn(2, 3, 65, 67, device="cuda", requires_grad=True)
    theta = torch.from_numpy(thetas(1, 2, 2)).cuda().float().requires_grad_()
    grid = torch.from_numpy(grids(2, 2, (200, 201))).cuda().float().requires_grad_()
    gradient = torch.randn(2, 3, 200, 201, device="cuda")

    def differentiate():
        one = functional.affine_sample(input, theta, (200, 201), padding_mode=padding)
        two = functional.grid_sample(input, grid, padding_mode=padding)
        return (
            *torch.autograd.grad(one, [input, theta], gradient),
            *torch.autograd.grad(two, [input, grid], gradient),
        )

    fast = differentiate()
    with contextlib.ExitStack() as stack:
        if asked == "here":
            stack.enter_context(deterministic())
        else:
            torch.use_deterministic_algorithms(True)
            stack.callback(torch.use_deterministic_algorithms, False)
        first = differentiate()
        for _ in range(20):
            for one, other in zip(first, differentiate(), strict=True):
                assert torch.equal(one, other)
    beside = (
        *(roundings(input, theta, (200, 201), gradient, padding_mode=padding), 0.0),
        *(roundings(input, grid, None, gradient, padding_mode=padding), 0.0),
    )
    for one, other, lost in zip(fast, first, beside, strict=True):
        assert_close(one, other, "float32", beside=lost)


@with_tensors
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_derivatives_are_those_of_finite_differences(mode):
    input = torch.from_numpy(numbers(0, (1, 1, 3, 4))).cuda().requires_grad_()
    theta = torch.from_numpy(thetas(1, 1, 2)).cuda().requires_grad_()

    def sample(input, theta):
        return functional.affine_sample(input, theta, (2, 3), mode=mode)

    for wanted in (False, True):
        with deterministic(wanted):
            assert torch.autograd.gradcheck(sample, (input, theta), nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(sample, (input, theta), nondet_tol=1e-12)


@on_gpu
def test_float32_is_accurate_on_noise():
    import cupy

    input = np.random.default_rng(0).uniform(size=(1, 1, 1024, 1024)).astype(np.float32)
    gradient = np.random.default_rng(1).uniform(size=input.shape).astype(np.float32)
    angle = np.deg2rad(20)
    theta = 0.8 * np.array(
        [[[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]]
    )
    exact = everything(
        input.astype(float), theta, (1024, 1024), gradient.astype(float), engine="reference"
    )
    found = everything(
        cupy.asarray(input), cupy.asarray(theta), (1024, 1024), cupy.asarray(gradient)
    )
    assert np.abs(wide(found[0]) - exact[0]).max() < 1e-6
    assert np.abs(wide(found[2]) - exact[2]).max() < 1e-5 * np.abs(exact[2]).max()


# ---- Streams, graphs, memory -----------------------------------------------------------------------------------------


@with_tensors
def test_kernels_wait_for_the_current_stream_of_pytorch():
    theta = torch.eye(2, 3, device="cuda")[None]
    source = torch.randn(1, 1, 64, 64, device="cuda")
    functional.affine_sample(source, theta, (64, 64))  # compiled
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        input = torch.zeros_like(source)
        torch.cuda._sleep(200_000_000)  # about a tenth of a second
        input.copy_(source)
        output = functional.affine_sample(input, theta, (64, 64))
    torch.cuda.current_stream().wait_stream(stream)
    assert_close(output, source, "float32")


@on_gpu
def test_kernels_wait_for_the_current_stream_of_cupy():
    import cupy

    theta, source = cupy.eye(2, 3, dtype="float32")[None], cupy.random.rand(1, 1, 2048, 2048)
    source = source.astype("float32")
    stnlib.affine_sample(source, theta, (2048, 2048))
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        work = cupy.ones((4096, 4096), "float32")
        for _ in range(20):
            work = work @ work * 1e-4
        input = source + 0 * work[:1, :1]
        output = stnlib.affine_sample(input, theta, (2048, 2048))
        stream.synchronize()
    assert_close(output, source, "float32")


@with_tensors
@pytest.mark.parametrize("wanted", [False, True])
def test_a_graph_captures_forward_and_backward_and_replays_them(wanted):
    input = torch.randn(2, 3, 40, 41, device="cuda", requires_grad=True)
    theta = torch.from_numpy(thetas(1, 2, 2)).cuda().float().requires_grad_()
    gradient = torch.randn(2, 3, 30, 31, device="cuda")

    def differentiate():
        output = functional.affine_sample(input, theta, (30, 31), padding_mode="border")
        return output, *torch.autograd.grad(output, [input, theta], gradient)

    # One stream from the first call on: autograd remembers the stream on which it first met a leaf.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with deterministic(wanted), torch.cuda.stream(side):
        differentiate()  # a capture cannot compile
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            captured = differentiate()
        with torch.no_grad():
            input.copy_(torch.randn_like(input))
            theta.mul_(0.9)
        graph.replay()
        for one, other in zip(captured, differentiate(), strict=True):
            assert_close(one, other, "float32")


@on_gpu
def test_cupy_captures_a_graph_too():
    import cupy

    input = cupy.random.rand(1, 2, 20, 20).astype("float32")
    theta = cupy.asarray(thetas(1, 1, 2))
    output = cupy.empty((1, 2, 30, 30), "float32")
    stnlib.affine_sample(input, theta, (30, 30))
    cupy.cuda.Device().synchronize()  # the other stream does not wait for this one
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        output[...] = stnlib.affine_sample(input, theta, (30, 30))
        graph = stream.end_capture()
        input *= 2
        graph.launch()
        stream.synchronize()
    assert_close(output, stnlib.affine_sample(input, theta, (30, 30)), "float32")


@with_tensors
@pytest.mark.parametrize("last", [False, True])
def test_memory_is_the_outputs_alone(last):
    layout = torch.channels_last if last else torch.contiguous_format
    input = torch.randn(8, 16, 256, 256, device="cuda").contiguous(memory_format=layout)
    theta = torch.eye(2, 3, device="cuda").repeat(8, 1, 1)

    def grown(call):
        call()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        kept = call()
        del kept
        return torch.cuda.max_memory_allocated() - before

    image, little = input.numel() * 4, 2**16
    sample = grown(lambda: stnlib.affine_sample(input, theta, (256, 256)))
    assert image <= sample < image + little
    gradients = grown(lambda: stnlib.affine_sample_vjp(input, input, theta))
    assert image <= gradients < image + 2**20  # and a sum a block for theta's


@with_tensors
def test_indices_of_64_bits():
    free, _ = torch.cuda.mem_get_info()
    if free < 24 * 2**30:
        pytest.skip(f"needs 24 GiB of GPU memory, and {free / 2**30:.0f} are free")
    input = torch.zeros(1, 1, 2**16 + 1, 2**15, dtype=torch.float16, device="cuda")
    input[0, 0, 0, 0], input[0, 0, -1, -1] = 3, 7
    theta = torch.tensor([[[2.0**15 - 1, 0, 0], [0, 2.0**16, 0]]], dtype=torch.float64).cuda()
    options = {"mode": "nearest", "coordinates": "pixel"}
    output = stnlib.affine_sample(input, theta, (2, 2), **options)
    assert output.flatten().tolist() == [3, 0, 0, 7]
    grad = stnlib.affine_sample_vjp(output, input, theta, **options)[0]
    assert grad[0, 0, 0, 0] == 3
    assert grad[0, 0, -1, -1] == 7


# ---- In a network ----------------------------------------------------------------------------------------------------


@with_tensors
def test_a_spatial_transformer_trains_as_with_the_reference(served):
    def train(engine, steps=100, batch=32):
        torch.manual_seed(0)
        images, labels = mnist.load("train")
        images = torch.from_numpy(mnist.to_input(images[: steps * batch])).cuda()
        labels = torch.from_numpy(labels[: steps * batch].astype(np.int64)).cuda()
        layers = torch.nn.Linear(49, 16), torch.nn.Tanh(), torch.nn.Linear(16, 6)
        locate = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten(), *layers)
        # A bilinear slope jumps at whole pixels. What rounds differently may take the other one, and drifts apart.
        transformer = SpatialTransformer(locate, size=(14, 14), mode="bicubic").cuda()
        classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(196, 10)).cuda()
        groups = [
            {"params": transformer.parameters(), "lr": 2e-3},
            {"params": classifier.parameters()},
        ]
        optimiser = torch.optim.SGD(groups, lr=2e-2, momentum=0.9)
        losses = []
        with engines.use(engine):
            for chosen in torch.arange(steps * batch, device="cuda").split(batch):
                loss = torch.nn.functional.cross_entropy(
                    classifier(transformer(images[chosen])), labels[chosen]
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                losses.append(loss.item())
        return losses, locate(images[:batch]).detach().std(0).max().item()

    losses, varied = train("cuda")
    assert {name for name, _ in served} == {"cuda"}
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])  # it learns,
    assert varied > 0.005  # and to look,
    np.testing.assert_allclose(losses, train("reference")[0], rtol=0, atol=1e-4)


# ---- Without a GPU: the engine's own lines, with the emulator in CuPy's place ----------------------------------------


@contextlib.contextmanager
def _entered(name, log):
    log.append(name)
    yield


@pytest.fixture
def emulated():
    """Skip a test where the emulator cannot be built."""
    try:
        emulator.compiler()
    except emulator.NoCompilerError as error:
        pytest.skip(str(error))


@pytest.fixture
def pretended(monkeypatch, emulated):
    """Return the CUDA engine over something like CuPy that runs on the CPU, and a list of what it was asked for."""
    log = []

    class RawModule(emulator.RawModule):
        def __init__(self, *, code, options):
            super().__init__(code, options)

        def get_function(self, name):
            log.append(name)
            return super().get_function(name)

    def from_external(stream):
        return _entered(("stream", *stream.__cuda_stream__()), log)

    cuda = SimpleNamespace(
        Device=lambda index: _entered(("device", index), log),
        Stream=SimpleNamespace(from_external=from_external),
    )
    fake = ModuleType("cupy")
    fake.__dict__.update(RawModule=RawModule, empty=np.empty, cuda=cuda)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.delitem(sys.modules, "stnlib.engines.cuda", raising=False)
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=1234)
    )
    module = importlib.import_module("stnlib.engines.cuda")
    yield module, log
    monkeypatch.delitem(sys.modules, "stnlib.engines.cuda")
    if hasattr(engines, "cuda"):
        monkeypatch.delattr(engines, "cuda")


def test_additions_in_float32_are_off_by_what_their_roundings_come_to(emulated):
    size, out = SIZES[3]
    input, theta = numbers(0, (2, 3, *size), "float32"), 3 * thetas(1, 2, 3)
    options = {"mode": "bicubic", "padding_mode": "border", "coordinates": "pixel"}
    assert_as_reference(np.asarray, input, theta, out, engine="emulator", **options)
    gradient = numbers(99, (2, 3, *out), "float32")
    lost = roundings(input, theta, out, gradient, **options)
    exact = stnlib.affine_sample_vjp(
        wide(gradient), wide(input), theta, engine="reference", **options
    )[0]
    # Tens of thousands of terms add up in one corner.
    assert 4e-6 < lost.max() / np.abs(exact).max() < 1e-4


@pytest.mark.parametrize("wanted", [False, True])
def test_tensors_are_handed_over_on_their_device_and_stream(pretended, wanted):
    cuda, log = pretended
    options = stnlib.options.resolve(padding_mode="border")
    input = torch.from_numpy(numbers(0, (2, 3, 5, 6), "float32"))
    theta, fill = torch.from_numpy(thetas(1, 2, 2)), torch.zeros(2, 3)
    output = cuda.sample(input, theta, (4, 7), fill, options)
    assert log == [("device", None), ("stream", 0, 1234), "sample_affine"]
    cuda.sample(input, theta, (4, 7), fill, options)
    assert log[3:] == [("device", None), ("stream", 0, 1234)]  # the kernel is known by now
    expected = stnlib.affine_sample(
        input, theta, (4, 7), padding_mode="border", engine="reference"
    )
    assert_close(output, expected, "float32")
    with deterministic(wanted):
        grads = cuda.sample_vjp(
            output, input, theta, (4, 7), fill, options, (True, True, False)
        )
    expected = stnlib.affine_sample_vjp(
        expected, input, theta, padding_mode="border", engine="reference"
    )
    for one, other in zip(grads[:2], expected, strict=False):
        assert_close(one, other, "float32")
    assert ("from_fixed" in log) == wanted


class Array(np.ndarray):
    """An array that says, as CuPy's do, on which device it is."""

    log: list

    @property
    def device(self):
        return _entered("array's device", self.log)


def test_cupy_arrays_are_handed_over_on_their_device(pretended):
    cuda, log = pretended
    input = numbers(0, (2, 3, 5, 6)).view(Array)
    input.log = log
    options, theta = stnlib.options.resolve(), thetas(1, 2, 2)
    output = cuda.sample(input, theta, (4, 7), np.zeros((2, 3)), options)
    assert log == ["array's device", "sample_affine"]
    expected = stnlib.affine_sample(np.asarray(input), theta, (4, 7), engine="reference")
    assert_close(output, expected, "float64")


class Device:
    """A device as CuPy's is: it can be compared, and has no hash."""

    __hash__ = None

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return self.number == other.number


def test_devices_are_compared_by_what_they_equal():
    _arrays._require_one_device({"input": Device(0), "theta": Device(0)})
    with pytest.raises(ValueError, match="arrays on different devices: input is on"):
        _arrays._require_one_device({"input": Device(0), "theta": Device(1)})


def test_a_missing_cupy_is_one_clear_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(sys.modules, "stnlib.engines.cuda", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "stnlib\[cuda13\]"'):
        importlib.import_module("stnlib.engines.cuda")
