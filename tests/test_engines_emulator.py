import functools
import subprocess
import sys
import threading
from fractions import Fraction

import numpy as np
import pytest
import torch

from stnlib.engines import emulator
from stnlib.engines.emulator import CompileError, EmulatorError, NoCompilerError, RawModule

try:
    emulator.compiler()
except NoCompilerError as error:
    pytest.skip(str(error), allow_module_level=True)


def launch(code, name, grid, block, *args, options=(), **how):
    RawModule(code, options, **how).get_function(name)(grid, block, args)


# ---- Threads, blocks, barriers, shuffles, atomics --------------------------------------------------------------------

COOPERATION = r"""
extern "C" __global__ void where_am_i(int* seen, int* order, unsigned* next) {
    int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int all = blockDim.x * blockDim.y * blockDim.z;
    atomicAdd(&seen[block * all + thread], 1);
    order[atomicAdd(next, 1u)] = block * all + thread;
}

extern "C" __global__ void __launch_bounds__(1024) total(const double* x, double* sum, int n) {
    __shared__ double of_warp[32];
    double mine = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) mine += x[i];
    for (int step = 16; step > 0; step /= 2) {
        double other = __shfl_down_sync(0xffffffffu, mine, step);
        if (threadIdx.x % warpSize + step < warpSize && threadIdx.x + step < blockDim.x) mine += other;
    }
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int warp = 1; warp < (blockDim.x + 31) / 32; ++warp) mine += of_warp[warp];
    atomicAdd(sum, mine);
}

extern "C" __global__ void scan(int* x) {  // a barrier for every step, twice
    __shared__ int sums[1024];
    sums[threadIdx.x] = x[threadIdx.x];
    for (int step = 1; step < blockDim.x; step *= 2) {
        __syncthreads();
        int before = threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
        __syncthreads();
        sums[threadIdx.x] += before;
    }
    x[threadIdx.x] = sums[threadIdx.x];
}

extern "C" __global__ void leave_early(int* x, int stay) {
    __shared__ int first;
    if (threadIdx.x >= stay) return;
    if (threadIdx.x == 0) first = 7;
    __syncthreads();
    x[threadIdx.x] = first;
}

extern "C" __global__ void lanes(int* out, double* xor_, unsigned* votes) {
    int t = threadIdx.x;
    out[t] = __shfl_sync(~0u, t, 5);
    out[64 + t] = __shfl_down_sync(~0u, t, 3, 8);
    out[128 + t] = __shfl_up_sync(~0u, t, 3, 8);
    xor_[t] = __shfl_xor_sync(~0u, 0.5 + t, 9);
    votes[t] = __ballot_sync(~0u, t % 3 == 0);
    votes[64 + t] = __any_sync(~0u, t == 40) + 2 * __all_sync(~0u, t >= 32);
    out[192 + t] = t % 2 ? __shfl_xor_sync(0xaaaaaaaau, t, 2) : __shfl_xor_sync(0x55555555u, -t, 4);
    if (t < 32) out[256 + t] = __shfl_sync(0xffffu << (t / 16 * 16), t, 16);
}
"""

SIZES = [1, 31, 32, 33, 256, 1024]


@pytest.mark.parametrize("how", [{}, {"threads": True}], ids=["fibers", "threads"])
@pytest.mark.parametrize("size", SIZES)
def test_a_block_of_any_size_reduces(size, how):
    x = np.random.default_rng(0).normal(size=3001)
    total = np.zeros(1)
    launch(COOPERATION, "total", (3,), (size,), x, total, np.int32(x.size), **how)
    np.testing.assert_allclose(total[0], x.sum(), rtol=1e-12)


@pytest.mark.parametrize("schedule", ["sequential", "interleaved", "random"])
@pytest.mark.parametrize("size", SIZES)
def test_barriers_separate_the_steps_of_a_scan(size, schedule):
    x = np.random.default_rng(0).integers(0, 100, size=size, dtype=np.int32)
    expected = np.cumsum(x)
    launch(COOPERATION, "scan", (1,), (size,), x, schedule=schedule)
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize(
    ("grid", "block"),
    [((7,), (5,)), ((3, 4), (8, 2)), ((2, 3, 4), (4, 3, 2)), ((1, 1, 5), (1, 1, 64))],
)
def test_every_thread_of_every_block_runs_once_and_in_order(grid, block):
    threads = int(np.prod(grid) * np.prod(block))
    seen, order = np.zeros((2, threads), np.int32)
    launch(COOPERATION, "where_am_i", grid, block, seen, order, np.zeros(1, np.uint32))
    assert (seen == 1).all()
    np.testing.assert_array_equal(order, np.arange(threads))


def test_a_random_schedule_is_another_order_and_the_same_each_time():
    orders = []
    for seed in (1, 1, 2):
        seen, order = np.zeros((2, 64), np.int32)
        counter = np.zeros(1, np.uint32)
        launch(
            COOPERATION,
            "where_am_i",
            (2,),
            (32,),
            seen,
            order,
            counter,
            schedule="random",
            seed=seed,
        )
        assert (seen == 1).all()
        orders.append(order.tolist())
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("how", [{}, {"threads": True}], ids=["fibers", "threads"])
@pytest.mark.parametrize("stay", [0, 1, 33, 64])
def test_threads_that_have_left_do_not_hold_up_a_barrier(stay, how):
    x = np.zeros(64, np.int32)
    launch(COOPERATION, "leave_early", (1,), (64,), x, np.int32(stay), **how)
    np.testing.assert_array_equal(x, [7] * stay + [0] * (64 - stay))


@pytest.mark.parametrize("how", [{}, {"threads": True}], ids=["fibers", "threads"])
def test_lanes_exchange_values(how):
    out, xor, votes = np.zeros(320, np.int32), np.zeros(64), np.zeros(128, np.uint32)
    launch(COOPERATION, "lanes", (1,), (64,), out, xor, votes, **how)
    t = np.arange(64)
    lane, eighth = t % 32, t % 8
    np.testing.assert_array_equal(out[:64], t - lane + 5)
    np.testing.assert_array_equal(out[64:128], np.where(eighth + 3 < 8, t + 3, t))
    np.testing.assert_array_equal(out[128:192], np.where(eighth - 3 >= 0, t - 3, t))
    np.testing.assert_array_equal(xor, 0.5 + (t ^ 9))
    ballots = [sum(1 << i for i in range(32) if (32 * warp + i) % 3 == 0) for warp in (0, 1)]
    np.testing.assert_array_equal(votes[:64], np.repeat(ballots, 32))
    np.testing.assert_array_equal(votes[64:], np.repeat([0, 3], 32))
    np.testing.assert_array_equal(out[192:256], np.where(t % 2, t ^ 2, -(t ^ 4)))
    np.testing.assert_array_equal(
        out[256:288], [-1] * 16 + [16] * 16
    )  # -1: not a lane of the mask


ATOMICS = r"""
extern "C" __global__ void add(float* f, double* d, int* i, unsigned* u, unsigned long long* l) {
    atomicAdd(f, 0.5f), atomicAdd(d, 0.25), atomicAdd(i, -1), atomicAdd(u, 3u), atomicAdd(l, 1ull << 33);
}
extern "C" __global__ void others(int* i, unsigned* u, unsigned long long* l, int* olds) {
    int t = threadIdx.x;
    atomicMin(&i[0], 5 - t), atomicMax(&i[1], t - 9), atomicOr(&i[2], 1 << t % 8), atomicAnd(&i[3], ~(1 << t % 8));
    atomicMin(&u[0], 100u + t), atomicMax(&u[1], 0x80000000u + t), atomicXor(&u[2], 1u << t % 16), atomicInc(&u[3], 9u);
    atomicMax(&l[0], 1ull << t), atomicMin(&l[1], ~0ull >> t), atomicOr(&l[2], 1ull << t);
    if (atomicCAS(&i[4], 0, t + 1) == 0) i[5] = t + 1;
    olds[t] = atomicAdd(&i[6], 1);
    i[7] = atomicExch(&u[4], 77u);
}
"""


@pytest.mark.parametrize("how", [{}, {"threads": True}], ids=["fibers", "threads"])
def test_atomics(how):
    sums = [np.zeros(1, t) for t in (np.float32, np.float64, np.int32, np.uint32, np.uint64)]
    launch(ATOMICS, "add", (4,), (50,), *sums, **how)
    assert [x[0] for x in sums] == [100, 50, -200, 600, 200 << 33]
    i = np.array([50, -50, 0, 255, 0, 0, 0, 0], np.int32)
    u = np.array([1000, 0, 0, 0, 5], np.uint32)
    l = np.array([0, 2**64 - 1, 0], np.uint64)  # noqa: E741
    olds = np.zeros(48, np.int32)
    launch(ATOMICS, "others", (1,), (48,), i, u, l, olds, **how)
    assert i[:4].tolist() == [5 - 47, 47 - 9, 255, 0]
    assert i[4] == i[5] != 0
    assert i[6] == 48
    assert u.tolist() == [100, 0x80000000 + 47, 0xFFFF, 8, 77]
    assert l.tolist() == [1 << 47, (2**64 - 1) >> 47, (1 << 48) - 1]
    np.testing.assert_array_equal(np.sort(olds), np.arange(48))


# ---- A race that can be seen -----------------------------------------------------------------------------------------

RACE = r"""
extern "C" __global__ void count(float* n) { float seen = *n; YIELD(); *n = seen + 1; }
extern "C" __global__ void count_atomically(float* n) { YIELD(); atomicAdd(n, 1.f); }
"""


def count(name, **how):
    n = np.zeros(1, np.float32)
    launch(RACE, name, (2,), (32,), n, **how)
    return int(n[0])


def test_a_race_gives_other_answers_in_other_orders_and_atomics_cure_it():
    assert count("count") == 64  # nobody comes between, by luck
    assert count("count", schedule="interleaved") == 2  # all of a block read before one writes
    drawn = [count("count", schedule="random", seed=seed) for seed in range(8)]
    assert len(set(drawn)) > 1
    assert max(drawn) < 64
    assert drawn == [count("count", schedule="random", seed=seed) for seed in range(8)]
    for schedule in ("sequential", "interleaved", "random"):
        assert count("count_atomically", schedule=schedule) == 64


# ---- Threads that wait for ever --------------------------------------------------------------------------------------

STUCK = r"""extern "C" __global__ void elsewhere(int* x) {
    if (threadIdx.x < 3) __syncthreads();
    else { ++*x; __syncthreads(); }
}
extern "C" __global__ void missing_lane(int* x) {
    if (threadIdx.x == 4) __syncthreads();
    else *x = __shfl_sync(~0u, 1, 0);
}
extern "C" __global__ void stranger(int* x) { if (threadIdx.x > 7) __syncwarp(0xff); }
extern "C" __global__ void spin(int* x) { while (!*x) YIELD(); }
extern "C" __global__ void fine(int* x) { __syncthreads(); ++*x; __syncthreads(); }
"""


@pytest.mark.parametrize("how", [{}, {"threads": True}], ids=["fibers", "threads"])
def test_a_wait_in_vain_is_an_error_that_says_who_waits_where(how):
    module = RawModule(STUCK, **how)
    x = np.zeros(1, np.int32)
    with pytest.raises(EmulatorError) as caught:
        module.get_function("elsewhere")((2,), (32,), (x,))
    assert str(caught.value) == (
        "elsewhere: block (0, 0, 0): a barrier is for all threads of a block, but they wait at different ones: "
        "thread (0, 0, 0) and 2 more at line 2; thread (3, 0, 0) and 28 more at line 3"
    )
    with pytest.raises(EmulatorError) as caught:
        module.get_function("missing_lane")((1, 2), (8, 4), (x,))
    assert str(caught.value) == (
        "missing_lane: block (0, 0, 0): deadlock, each thread waits for others: thread (0, 0, 0) and 27 more at "
        "line 7 (for lanes 0xffffffff); thread (4, 0, 0) and 3 more at line 6"
    )
    with pytest.raises(
        EmulatorError, match="takes part at line 9 with the mask 0xff, in which it is not"
    ):
        module.get_function("stranger")((1,), (32,), (x,))
    x[0] = 0
    module.get_function("fine")((3,), (100,), (x,))  # nothing is left of the failures
    assert x[0] == 300 or how


# ---- Arithmetic ------------------------------------------------------------------------------------------------------

HALF = r"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>
extern "C" __global__ void widen(const HALF* in, float* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = TO_FLOAT(in[i]);
}
extern "C" __global__ void narrow(const float* in, HALF* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = FROM_FLOAT(in[i]);
}
extern "C" __global__ void add(HALF* sum, HALF* other) { atomicAdd(sum, HALF(1.5f)), *other = *other + *other; }
extern "C" __global__ void from_double(const double* in, __half* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = __double2half(in[i]);
}
"""
KINDS = {
    torch.float16: ("__half", "__half2float", "__float2half_rn"),
    torch.bfloat16: ("__nv_bfloat16", "__bfloat162float", "__float2bfloat16_rn"),
}


def half_options(dtype):
    return tuple(
        f"-D{name}={value}"
        for name, value in zip(("HALF", "TO_FLOAT", "FROM_FLOAT"), KINDS[dtype], strict=True)
    )


def same_bits(got, expected):
    """Compare the bits of floats; all that is NaN counts as equal."""
    assert got.dtype == expected.dtype
    assert (np.isnan(got) == np.isnan(expected)).all()
    known = ~np.isnan(got)
    bits = f"u{got.itemsize}"
    np.testing.assert_array_equal(got.view(bits)[known], expected.view(bits)[known])


@pytest.mark.parametrize("dtype", KINDS)
def test_halves_convert_bit_for_bit(dtype):
    module = RawModule(HALF, half_options(dtype))
    halves = np.arange(2**16, dtype=np.uint16)
    wide = np.zeros(2**16, np.float32)
    module.get_function("widen")((256,), (256,), (halves, wide, np.int32(2**16)))
    tensor = torch.from_numpy(halves.view(np.int16)).view(dtype)
    same_bits(wide, tensor.float().numpy())

    # Every half, the middle between it and the next, and what is just beside; and bits at random.
    with np.errstate(invalid="ignore", over="ignore"):
        exact = ((wide.astype(np.float64)[:-1] + wide[1:]) / 2).astype(np.float32)
        beside = [np.nextafter(exact, np.float32(limit)) for limit in (-np.inf, np.inf)]
    noise = np.random.default_rng(0).integers(0, 2**32, size=100_000, dtype=np.uint32)
    floats = np.concatenate([wide, exact, *beside, noise.view(np.float32)])
    narrow = np.zeros(floats.size, np.uint16)
    grid = (floats.size // 256 + 1,)
    module.get_function("narrow")(grid, (256,), (floats, narrow, np.int32(floats.size)))
    expected = torch.from_numpy(floats).to(dtype)
    same_bits(
        torch.from_numpy(narrow.view(np.int16)).view(dtype).float().numpy(),
        expected.float().numpy(),
    )
    assert set(narrow[np.isnan(floats)] & 0x7FFF) == {0x7FFF}

    sums = torch.tensor([2.0, 0.75], dtype=dtype).view(torch.int16).numpy()
    module.get_function("add")((1,), (3,), (sums[:1], sums[1:]))
    assert torch.from_numpy(sums).view(dtype).tolist() == [6.5, 6.0]


def test_doubles_round_once_on_their_way_to_halves():
    halves = np.arange(0x7BFF, dtype=np.uint16).view(np.float16).astype(np.float64)
    middle = (halves[1:] + halves[:-1]) / 2
    values = np.concatenate(
        [halves, middle, np.nextafter(middle, 0), np.nextafter(middle, 1e9)]
    )
    values = np.concatenate([values, -values, [1e300, -1e300, np.inf, np.nan]])
    out = np.zeros(values.size, np.float16)
    launch(
        HALF,
        "from_double",
        (values.size // 256 + 1,),
        (256,),
        *(values, out, np.int32(values.size)),
        options=half_options(torch.float16),
    )
    with np.errstate(over="ignore"):
        same_bits(out, values.astype(np.float16))


ARITHMETIC = r"""
extern "C" __global__ void to_integers(const double* x, int* i, long long* l, unsigned* u) {
    int t = threadIdx.x;
    i[4 * t] = __double2int_rd(x[t]), i[4 * t + 1] = __double2int_rn(x[t]);
    i[4 * t + 2] = __float2int_rd((float)x[t]), i[4 * t + 3] = __float2int_rz((float)x[t]);
    l[2 * t] = __double2ll_rn(x[t]), l[2 * t + 1] = __float2ll_rn((float)x[t]);
    u[t] = __double2uint_rn(x[t]);
}
extern "C" __global__ void assorted(double* d, float* f, int* i) {
    d[0] = min(d[0], 1), d[1] = max(NAN, d[1]), d[2] = __dadd_rn(__dmul_rn(0.1, 3.), -0.3), d[3] = fma(0.1, 3., -0.3);
    d[4] = sinpi(1e9 + 0.5), d[5] = cospi(0.5), d[6] = sinpi(-0.25), d[7] = cospi(7.0);
    d[8] = __longlong_as_double(__double_as_longlong(-2.5)), d[9] = 0.1 * 3. - 0.3;
    d[10] = isfinite(d[0]) + 2 * isnan(d[1]);
    f[0] = min(1.5f, NAN), f[1] = fminf(f[1], 2), f[2] = __uint_as_float(__float_as_uint(f[2]) ^ 0x80000000u);
    f[3] = __ldg(f) + rsqrtf(4.f), f[4] = __int_as_float(0x7f800000), f[5] = __saturatef(-1.f);
    i[0] = max(-3, i[0]), i[1] = __popc(0xf0f0u), i[2] = __clz(1), i[3] = __ffs(8);
    i[4] = max(-1ll, 2) == 2, i[5] = min(3u, 4u), i[6] = sizeof(float4) + alignof(float4);
    i[7] = make_int3(1, 2, 3).z;
}
"""


def test_conversions_to_integers_saturate_as_on_a_gpu():
    x = np.array([-2.5, -0.5, 1.5, 2.5, 3e9, -3e9, 1e300, -1e300, np.inf, np.nan])
    i, l, u = np.zeros((10, 4), np.int32), np.zeros((10, 2), np.int64), np.zeros(10, np.uint32)  # noqa: E741
    launch(ARITHMETIC, "to_integers", (1,), (10,), x, i, l, u)
    most, least = 2**31 - 1, -(2**31)
    assert i.tolist() == [
        [-3, -2, -3, -2],
        [-1, 0, -1, 0],
        [1, 2, 1, 1],
        [2, 2, 2, 2],
        *([most] * 4, [least] * 4, [most] * 4, [least] * 4, [most] * 4),
        [least, least, 0, 0],
    ]
    assert l[:6, 0].tolist() == [-2, 0, 2, 2, 3 * 10**9, -3 * 10**9]
    assert l[6:].tolist() == [[2**63 - 1] * 2, [-(2**63)] * 2, [2**63 - 1] * 2, [-(2**63)] * 2]
    assert u.tolist() == [0, 0, 2, 2, 3 * 10**9, 0, 2**32 - 1, 0, 2**32 - 1, 2**31]


def test_arithmetic():
    d, f, i = np.arange(11.0) + 5, np.arange(6, dtype=np.float32) + 5, np.zeros(8, np.int32)
    launch(ARITHMETIC, "assorted", (1,), (1,), d, f, i)
    assert d[:2].tolist() == [1, 6]
    assert d[2] == d[9] == 0.1 * 3.0 - 0.3  # no fused multiply-add behind one's back
    assert d[3] == float(Fraction(0.1) * 3 - Fraction(0.3))
    np.testing.assert_allclose(d[4:8], [1, 0, -np.sqrt(0.5), -1], rtol=1e-15)
    assert [d[8], d[10]] == [-2.5, 1]
    assert f.tolist() == [1.5, 2, -7, 2, np.inf, 0]
    assert i.tolist() == [0, 8, 31, 4, 1, 3, 32, 3]


# ---- Calling ---------------------------------------------------------------------------------------------------------

ARGUMENTS = r"""
#if LEAVE_OUT
extern "C" __global__ void absent(int* x) {}
#endif
// extern "C" __global__ void only_in_a_comment(int* x) {}
#define KERNEL(name, T) extern "C" __global__ void name(T* out, T x) { *out = x; }
KERNEL(of_a_macro, long long)
KERNEL(another, float)

extern "C" __global__ void __launch_bounds__(32 * (1 + 1)) all(
    double* out, bool b, int i, unsigned u, long long l, unsigned long long n, float f, double d, const float* p) {
    out[0] = b, out[1] = i, out[2] = u, out[3] = l, out[4] = n, out[5] = f, out[6] = d, out[7] = p[1];
}
extern "C" __global__ void nothing() {}
extern "C" __global__ void shape(unsigned* out) {
    const unsigned values[] = {gridDim.x, gridDim.y, gridDim.z, blockDim.x, blockDim.y, blockDim.z, WIDTH, HEIGHT};
    for (int i = 0; i < 8; ++i) out[i] = values[i];
}
"""
OPTIONS = (
    "-DLEAVE_OUT=0",
    "-D",
    "WIDTH=3",
    "--define-macro=HEIGHT",
    "--std=c++17",
    "--use_fast_math",
)


def test_arguments_of_every_type_arrive():
    out, p = np.zeros(8), np.array([1, 8], np.float32)
    args = [
        np.bool_(True),
        np.int32(-2),
        np.uint32(2**32 - 3),
        np.int64(-4),
        np.uint64(5),
        np.float32(0.1),
        7.0,
    ]
    launch(ARGUMENTS, "all", (1,), (1,), out, *args, np.uint64(p.ctypes.data), options=OPTIONS)
    assert out.tolist() == [1, -2, 2**32 - 3, -4, 5, np.float32(0.1), 7, 8]
    args[1:5] = (
        np.uint32(1),
        np.int32(2),
        np.uint64(3),
        -4,
    )  # signs do not matter, as they do not to a GPU
    launch(ARGUMENTS, "all", (1,), (1,), out.ctypes.data, *args, p, options=OPTIONS)
    assert out.tolist() == [1, 1, 2, 3, 2.0**64 - 4, np.float32(0.1), 7, 8]
    launch(ARGUMENTS, "nothing", (1,), (1,), options=OPTIONS)
    shape = np.zeros(8, np.uint32)
    launch(ARGUMENTS, "shape", (2, np.int64(3)), (4,), shape, options=OPTIONS)
    assert shape.tolist() == [2, 3, 1, 4, 1, 1, 3, 1]


def test_kernels_are_found_by_name():
    module, out = RawModule(ARGUMENTS, OPTIONS), np.zeros(1, np.int64)
    module.compile()
    module.get_function("of_a_macro")((1,), (1,), (out, 9))
    assert out[0] == 9
    for name in ("absent", "only_in_a_comment"):
        with pytest.raises(EmulatorError, match=f"no kernel named '{name}'"):
            module.get_function(name)((1,), (1,), (out,))
    launch(ARGUMENTS, "absent", (1,), (1,), out, options=("-DLEAVE_OUT=1", *OPTIONS[1:]))
    with pytest.raises(ValueError, match="name: expected the name of a kernel, got 'f<int>'"):
        module.get_function("f<int>")


X = np.zeros(1, np.float32)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((X,), "another: expected 2 arguments, got 1"),
        ((X, np.float32(1), 2), "another: expected 2 arguments, got 3"),
        ((X, 1.0), "another: argument 1: expected float32, got float64"),
        ((X, np.int32(1)), "another: argument 1: expected float32, got int32"),
        ((X, X), "another: argument 1: expected float32, got an array of float32"),
        (
            (np.int32(0), np.float32(1)),
            r"another: argument 0: expected a pointer \(an array or a 64-bit integer\), got int32",
        ),
        ((X, "1"), "another: argument 1: expected float32, got str32"),
    ],
)
def test_wrong_arguments(args, message):
    with pytest.raises(TypeError, match=message):
        RawModule(ARGUMENTS, OPTIONS).get_function("another")((1,), (1,), args)


def test_wrong_launches():
    kernel = RawModule(ARGUMENTS, OPTIONS).get_function("nothing")
    for grid in ((), (0,), (1, 0), (1, 65536), (1, 1, 1, 1)):
        with pytest.raises(ValueError, match="grid: expected one to three sizes"):
            kernel(grid, (1,), ())
    for block in ((1025,), (1, 1, 65), (-1,)):
        with pytest.raises(ValueError, match="block: expected one to three sizes"):
            kernel((1,), block, ())
    with pytest.raises(ValueError, match="block: at most 1024 threads"):
        kernel((1,), (32, 33), ())
    with pytest.raises(ValueError, match="shared_mem: dynamic shared memory is not emulated"):
        kernel((1,), (1,), (), shared_mem=4)
    for wrong in ({"schedule": "fair"}, {"sanitize": "memory"}, {"sanitize": "thread"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RawModule(ARGUMENTS, OPTIONS, **wrong)


def test_launches_from_several_threads_wait_for_one_another():
    module = RawModule(COOPERATION)
    x = np.ones((8, 1024), np.int32)
    starts = [
        threading.Thread(target=module.get_function("scan"), args=((1,), (1024,), (row,)))
        for row in x
    ]
    for thread in starts:
        thread.start()
    for thread in starts:
        thread.join()
    assert (x == np.arange(1, 1025)).all()


# ---- Compiling -------------------------------------------------------------------------------------------------------


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STNLIB_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_a_compile_error_shows_the_compilers_message_and_the_line(empty_cache):
    code = '// one\n// two\nextern "C" __global__ void f(int* x) { *x = unknown; }'
    with pytest.raises(CompileError, match=r"kernel\.cu:3:.*unknown"):
        launch(code, "f", (1,), (1,), X)
    assert not list(empty_cache.rglob("*.so"))


def test_a_module_is_compiled_once_and_again_when_anything_differs(empty_cache, monkeypatch):
    RawModule(RACE).compile()
    (module,) = empty_cache.rglob("*.so")
    stamp = module.stat().st_mtime_ns
    monkeypatch.setattr(subprocess, "run", None)  # no compiler runs
    RawModule(RACE).compile()
    assert module.stat().st_mtime_ns == stamp
    monkeypatch.undo()
    monkeypatch.setenv("STNLIB_CACHE_DIR", str(empty_cache))
    RawModule(RACE + " ").compile()
    RawModule(RACE, ("-DX",)).compile()
    assert len(list(empty_cache.rglob("*.so"))) == 3
    assert {path.suffix for path in empty_cache.rglob("*") if path.is_file()} == {".so", ".o"}


def test_several_processes_build_the_same_module_at_once(empty_cache):
    code = (
        "import numpy as np; from stnlib.engines.emulator import RawModule; n = np.zeros(1, np.float32);"
        f"RawModule({RACE!r}).get_function('count')((1,), (7,), (n,)); print(int(n[0]))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=120)[0] for process in processes] == ["7\n"] * 3
    assert len(list(empty_cache.rglob("*.so"))) == len(list(empty_cache.rglob("*.o"))) == 1


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("STNLIB_CACHE_DIR", "/a/b")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert emulator.cache_folder().as_posix() == "/a/b"
    monkeypatch.delenv("STNLIB_CACHE_DIR")
    assert emulator.cache_folder().as_posix() == "/c/stnlib"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert emulator.cache_folder().parts[-2:] == (".cache", "stnlib")


def test_a_missing_compiler_is_one_clear_sentence(monkeypatch, tmp_path, empty_cache):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(emulator, "_has_zig", lambda: False)
    with pytest.raises(
        NoCompilerError, match="install g\\+\\+ or clang\\+\\+, or pip install ziglang"
    ):
        RawModule(RACE).compile()
    monkeypatch.setattr(emulator, "_has_zig", lambda: True)
    assert emulator.compiler() == (sys.executable, "-m", "ziglang", "c++")
    with pytest.raises(NoCompilerError, match="zig c\\+\\+ has no sanitizers"):
        emulator.sanitized_command("address", [])
    monkeypatch.setenv("CXX", f"{sys.executable} -c ''")
    with pytest.raises(NoCompilerError, match="has no libasan"):
        emulator.sanitized_command("address", [])
    monkeypatch.undo()
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(NoCompilerError, match="CXX: there is no program 'no-such-compiler'"):
        RawModule(RACE).compile()
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(NoCompilerError, match="the C\\+\\+ compiler false does not run"):
        RawModule(RACE).compile()


@pytest.mark.parametrize(
    "cxx", ["g++ -DUSE_UCONTEXT", "clang++", f"{sys.executable} -m ziglang c++"]
)
def test_other_compilers_and_other_fibers(cxx, monkeypatch):
    monkeypatch.setenv("CXX", cxx)
    try:
        found = (
            subprocess.run([*emulator.compiler(), "--version"], capture_output=True).returncode
            == 0
        )
    except NoCompilerError:
        found = False
    if not found:
        pytest.skip(f"{cxx} is not installed")
    x = np.ones(1024, np.int32)
    launch(COOPERATION, "scan", (1,), (1024,), x)
    np.testing.assert_array_equal(x, np.arange(1, 1025))
    with pytest.raises(EmulatorError, match="deadlock"):
        launch(STUCK, "missing_lane", (2,), (64,), x)
    launch(STUCK, "fine", (2,), (64,), x)


# ---- Sanitizers: tests of the tests ----------------------------------------------------------------------------------

PLANTED = r"""
// Each mistake stands beside what is right. The blocks have 64 threads.
#define TILE __shared__ float tile[64]; int t = threadIdx.x, i = 64 * blockIdx.x + t;
extern "C" __global__ void global_right(float* x, int n) { TILE tile[t] = 2; if (i < n) x[i] *= tile[t]; }
extern "C" __global__ void global_wrong(float* x, int n) { TILE tile[t] = 2; if (i <= n) x[i] *= tile[t]; }

extern "C" __global__ void shared_right(float* x, int n) { TILE tile[t] = t; __syncthreads(); x[i] = tile[t ^ 1]; }
extern "C" __global__ void shared_wrong(float* x, int n) { TILE tile[t] = t; __syncthreads(); x[i] = tile[t + 1]; }

extern "C" __global__ void sum_right(float* x, int n) { TILE tile[t] = (int)(2147483647u + (unsigned)n); }
extern "C" __global__ void sum_wrong(float* x, int n) { TILE tile[t] = 2147483647 + n; }

extern "C" __global__ void barrier_right(float* x, int n) {
    TILE tile[t] = x[i]; __syncthreads();
    float other = tile[63 - t]; __syncthreads();
    tile[t] += other; __syncthreads();
    x[i] = tile[(t + 1) % 64];
}
extern "C" __global__ void barrier_wrong(float* x, int n) {
    TILE tile[t] = x[i]; __syncthreads();
    tile[t] += tile[63 - t]; __syncthreads();
    x[i] = tile[(t + 1) % 64];
}

extern "C" __global__ void warp_right(float* x, int n) {
    TILE tile[t] = x[i]; __syncwarp(); x[i] = tile[t ^ 1]; tile[t ^ 1] = __shfl_xor_sync(~0u, x[i], 1);
}
extern "C" __global__ void warp_wrong(float* x, int n) {
    TILE tile[t] = x[i]; __syncwarp(); x[i] = tile[t ^ 32]; tile[t ^ 1] = __shfl_xor_sync(~0u, x[i], 1);
}

extern "C" __global__ void atomic_right(float* x, int n) { atomicAdd(x, 1.f); }
extern "C" __global__ void atomic_wrong(float* x, int n) { *x += 1; }

extern "C" __global__ void blocks_right(float* x, int n) { if (threadIdx.x == 0) atomicAdd(x, 1.f); }
extern "C" __global__ void blocks_wrong(float* x, int n) { if (threadIdx.x == 0) *x += 1; }

extern "C" __global__ void last_right(float* x, int n) {  // the last block adds up what the others wrote
    if (threadIdx.x > 0) return;
    x[1 + blockIdx.x] = 1; __threadfence();
    if (atomicAdd((unsigned*)x, 1u) == gridDim.x - 1) for (int b = 0; b < gridDim.x; ++b) x[128] += x[1 + b];
}
extern "C" __global__ void last_wrong(float* x, int n) {
    if (threadIdx.x > 0) return;
    x[1 + blockIdx.x] = 1;
    if (atomicAdd((unsigned*)x, 1u) == gridDim.x - 1) for (int b = 0; b < gridDim.x; ++b) x[128] += x[1 + b];
}

extern "C" __global__ void stuck_wrong(float* x, int n) {
    TILE float local[64]; local[t] = i; if (t < 32) __syncthreads(); else __syncwarp(0x7fffffffu), x[i] = local[n];
}
"""
RUN = """
import sys
import numpy as np
from stnlib.engines.emulator import EmulatorError, RawModule
code, kind, *names = sys.argv[1:]
module = RawModule(code, sanitize=kind, threads="thread" in kind)
for name in names:
    x = np.zeros(200 if name.startswith("global") else 256, np.float32)
    try:
        module.get_function(name)((4,), (64,), (x, np.int32(200)))
    except EmulatorError as error:
        print("EmulatorError", error)
print("done")
"""


@functools.cache
def why_not(kind):
    """Return why Python does not start under a sanitizer, or nothing."""
    try:
        argv, env = emulator.sanitized_command(kind, [sys.executable, "-c", ""])
    except NoCompilerError as error:
        return str(error)
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    return f"Python does not start: {done.stderr[-500:]}" if done.returncode else ""


def sanitized(kind, *names):
    """Run kernels in a process of their own. Return its status and what it printed."""
    if why_not(kind):
        pytest.skip(why_not(kind))
    argv = [sys.executable, "-c", RUN, PLANTED, kind, *names]
    argv, env = emulator.sanitized_command(kind, argv)
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "name", "finding"),
    [
        ("address,undefined", "global", "heap-buffer-overflow"),
        ("address,undefined", "shared", "index 64 out of bounds for type 'float [64]'"),
        ("address", "shared", "global-buffer-overflow"),
        ("address,undefined", "sum", "signed integer overflow"),
        ("thread", "barrier", "data race"),
        ("thread", "warp", "data race"),
        ("thread", "atomic", "data race"),
        ("thread", "blocks", "data race"),
        ("thread", "last", "data race"),
    ],
)
def test_a_planted_mistake_is_caught(kind, name, finding):
    status, printed = sanitized(kind, f"{name}_wrong")
    assert status != 0
    assert finding in printed
    line = 1 + PLANTED[: PLANTED.index(f" {name}_wrong")].count("\n")
    assert any(f"kernel.cu:{line + offset}" in printed for offset in range(5)), printed


@pytest.mark.parametrize("kind", ["address,undefined", "thread"])
def test_right_kernels_are_clean(kind):
    names = ("global", "shared", "sum", "barrier", "warp", "atomic", "blocks", "last")
    assert sanitized(kind, *(f"{name}_right" for name in names)) == (0, "done\n")


@pytest.mark.parametrize("kind", ["address,undefined", "thread"])
def test_a_deadlock_under_a_sanitizer_is_no_more_than_an_error(kind):
    status, printed = sanitized(kind, "stuck_wrong", "stuck_wrong")
    assert status == 0
    assert printed.count("EmulatorError stuck_wrong: block") == 2
    assert printed.endswith("done\n")
