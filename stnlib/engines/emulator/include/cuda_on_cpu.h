// CUDA C++ on an ordinary CPU: what a kernel may say, in the words of any C++17 compiler.
//
// A kernel is a function that many threads run at once. Each asks who it is (threadIdx, blockIdx), does its own share,
// and now and then waits for the others of its block (__syncthreads) or of its warp (__shfl_down_sync). Nothing in this
// needs a GPU. So the same .cu file, compiled after this header, runs here: runtime.cpp supplies the threads, this header
// everything else. What is left out: textures, dynamic shared memory, cooperative groups, and speed.
//
// The emulator is stricter than a GPU where that helps: a barrier that some threads cannot reach is an error and not a
// stall, and a value shuffled from a lane that is not there is all ones (NaN, or -1) and not what happened to lie there.
#pragma once
#include <math.h>  // floor, fma, rint, isfinite, ... for float and double, in the global namespace as in CUDA
#include <stdint.h>
#include <stdio.h>  // printf
#include <string.h>

#define STN_EMULATOR 1  // lets a source ask where it runs

// ---- Words of the language -----------------------------------------------------------------------------------------
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static  // one for all threads, as blocks run one after another; so its bounds are checked as well
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

// Where threads may change places, to let a race come out (see `schedule` of RawModule). A source that uses it says
// `#ifndef YIELD`, `#define YIELD()`, `#endif`, so that on a GPU, where they change places anywhere, it is nothing.
#define YIELD() emulator::yield()

// ---- What runtime.cpp does -----------------------------------------------------------------------------------------
namespace emulator {
void barrier(int line);                                                     // wait for every live thread of the block
uint64_t exchange(unsigned mask, uint64_t value, int from_lane, int line);  // wait for the lanes; one lane's value
unsigned ballot(unsigned mask, bool vote, int line);                        // wait for the lanes; their votes
int lane();                                                                 // 0 to 31
void yield();
void fence();
bool fenced();  // whether this thread has passed a fence
}  // namespace emulator

// ---- Who am I? -----------------------------------------------------------------------------------------------------
struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
#ifdef EMULATOR_THREADS  // each CUDA thread is a thread of the operating system
extern __thread uint3 threadIdx;
#else  // each is a fiber; all of them run on one
extern uint3 threadIdx;
#endif
extern uint3 blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// ---- Waiting for one another ---------------------------------------------------------------------------------------
// The line of the call comes along for the message, should the wait be in vain.
inline void __syncthreads(int line = __builtin_LINE()) { emulator::barrier(line); }
inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) { emulator::ballot(mask, true, line); }
inline void __threadfence() { emulator::fence(); }
inline void __threadfence_block() { emulator::fence(); }

inline unsigned __ballot_sync(unsigned mask, int vote, int line = __builtin_LINE()) { return emulator::ballot(mask, vote, line); }
inline int __any_sync(unsigned mask, int vote, int line = __builtin_LINE()) { return emulator::ballot(mask, vote, line) != 0; }
inline int __all_sync(unsigned mask, int vote, int line = __builtin_LINE()) { return emulator::ballot(mask, !vote, line) == 0; }

template <class T>
T emulator_shuffle(unsigned mask, T value, int from_lane, int line) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = emulator::exchange(mask, bits, from_lane, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}
// Lanes talk within segments of `width`. One that would reach beyond its segment gets its own value back.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
    int segment = emulator::lane() & -width;
    return emulator_shuffle(mask, value, segment + (source & (width - 1)), line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    int me = emulator::lane(), source = me + int(delta), end = (me & -width) + width;
    return emulator_shuffle(mask, value, source < end ? source : me, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    int me = emulator::lane(), source = me - int(delta), begin = me & -width;
    return emulator_shuffle(mask, value, source >= begin ? source : me, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, int line = __builtin_LINE()) {
    int me = emulator::lane(), source = me ^ bits, end = (me & -width) + width;
    return emulator_shuffle(mask, value, source < end ? source : me, line);
}

// ---- Bits seen as another type -------------------------------------------------------------------------------------
template <class To, class From>
To emulator_bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline unsigned __float_as_uint(float x) { return emulator_bits<unsigned>(x); }
inline int __float_as_int(float x) { return emulator_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emulator_bits<float>(x); }
inline float __int_as_float(int x) { return emulator_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emulator_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulator_bits<double>(x); }

// ---- Atomics: one thread's reading, changing and writing, with nobody in between -------------------------------------
// Each returns the old value. All are a compare-and-swap that tries until nobody interfered. With fibers nobody can; with
// real threads it is a real atomic, relaxed as in CUDA (it orders no other memory), unless the thread has passed a fence.
template <class Word>
bool emulator_swap(Word* where, Word& seen, Word wanted) {
#ifdef EMULATOR_THREADS
    if (emulator::fenced()) return __atomic_compare_exchange_n(where, &seen, wanted, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    return __atomic_compare_exchange_n(where, &seen, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
#else
    (void)seen;
    *where = wanted;
    return true;
#endif
}
template <int bytes> struct emulator_word;
template <> struct emulator_word<2> { using type = uint16_t; };
template <> struct emulator_word<4> { using type = uint32_t; };
template <> struct emulator_word<8> { using type = uint64_t; };

template <class T, class Change>
T emulator_atomic(T* where, Change change) {
    using Word = typename emulator_word<sizeof(T)>::type;
    Word* word = reinterpret_cast<Word*>(where);
#ifdef EMULATOR_THREADS
    Word seen = __atomic_load_n(word, __ATOMIC_RELAXED);
#else
    Word seen = *word;
#endif
    T old;
    do old = emulator_bits<T>(seen);
    while (!emulator_swap(word, seen, emulator_bits<Word>(T(change(old)))));
    return old;
}

// Only for the types that CUDA has, so that a source that passes here passes there: long, for one, is not among them.
#define EMULATOR_ATOMIC_ADD(T) \
    inline T atomicAdd(T* where, T value) { return emulator_atomic(where, [=](T old) { return old + value; }); }
#define EMULATOR_ATOMICS(T) \
    inline T atomicMin(T* where, T value) { return emulator_atomic(where, [=](T old) { return old < value ? old : value; }); } \
    inline T atomicMax(T* where, T value) { return emulator_atomic(where, [=](T old) { return old > value ? old : value; }); } \
    inline T atomicAnd(T* where, T value) { return emulator_atomic(where, [=](T old) { return old & value; }); } \
    inline T atomicOr(T* where, T value) { return emulator_atomic(where, [=](T old) { return old | value; }); } \
    inline T atomicXor(T* where, T value) { return emulator_atomic(where, [=](T old) { return old ^ value; }); } \
    inline T atomicExch(T* where, T value) { return emulator_atomic(where, [=](T) { return value; }); } \
    inline T atomicCAS(T* where, T expected, T value) { \
        return emulator_atomic(where, [=](T old) { return old == expected ? value : old; }); \
    }
EMULATOR_ATOMIC_ADD(float) EMULATOR_ATOMIC_ADD(double)
EMULATOR_ATOMIC_ADD(unsigned) EMULATOR_ATOMIC_ADD(unsigned long long)
EMULATOR_ATOMICS(int) EMULATOR_ATOMICS(unsigned) EMULATOR_ATOMICS(unsigned long long)
inline int atomicAdd(int* where, int value) {  // wraps round, as on a GPU
    return emulator_atomic(where, [=](int old) { return int(unsigned(old) + unsigned(value)); });
}
inline int atomicSub(int* where, int value) {
    return emulator_atomic(where, [=](int old) { return int(unsigned(old) - unsigned(value)); });
}
inline unsigned atomicSub(unsigned* where, unsigned value) { return atomicAdd(where, 0u - value); }
inline float atomicExch(float* where, float value) { return emulator_atomic(where, [=](float) { return value; }); }
inline unsigned atomicInc(unsigned* where, unsigned last) {
    return emulator_atomic(where, [=](unsigned old) { return old >= last ? 0u : old + 1u; });
}

// ---- Arithmetic ----------------------------------------------------------------------------------------------------
template <class T> T __ldg(const T* where) { return *where; }

// Two types meet as they do in any expression of C++; of a number and NaN the number wins.
template <class A, class B>
auto min(A a, B b) {
    using T = decltype(a + b);
    if constexpr (T(0.5) != T(0)) return T(a) < T(b) || b != b ? T(a) : T(b);
    else return T(a) < T(b) ? T(a) : T(b);
}
template <class A, class B>
auto max(A a, B b) {
    using T = decltype(a + b);
    if constexpr (T(0.5) != T(0)) return T(a) > T(b) || b != b ? T(a) : T(b);
    else return T(a) > T(b) ? T(a) : T(b);
}

// Rounded to nearest, one by one: the compiler is told (-ffp-contract=off) never to fuse, so plain signs will do.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline float rsqrtf(float a) { return 1 / sqrtf(a); }
inline double rsqrt(double a) { return 1 / sqrt(a); }
inline float rsqrt(float a) { return rsqrtf(a); }
inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1) : 0; }

// sin(pi x) and cos(pi x): the period taken off exactly, then the quarter turn nearest to zero.
inline double sinpi(double x) {
    double r = x - 2 * rint(x / 2);  // -1 to 1
    if (fabs(r) > 0.5) r = copysign(1.0, r) - r;
    return sin(3.141592653589793 * r);
}
inline double cospi(double x) {
    double r = fabs(x - 2 * rint(x / 2));
    return r <= 0.25 ? cos(3.141592653589793 * r) : sin(3.141592653589793 * (0.5 - r));
}
inline float sinpif(float x) { return float(sinpi(double(x))); }
inline float cospif(float x) { return float(cospi(double(x))); }
inline float sinpi(float x) { return sinpif(x); }
inline float cospi(float x) { return cospif(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

// From floating point to integer: a value too large gives the largest, one too small the smallest. The plain cast does
// that too on a GPU, and is undefined in C++: so a kernel that may meet such values says which rounding it means.
template <class Int, class Float>
Int emulator_to_integer(Float whole) {
    constexpr Int least = Int(-1) < Int(0) ? Int(1ull << (8 * sizeof(Int) - 1)) : Int(0), most = Int(~least);
    if (whole != whole) return sizeof(Float) == 8 || sizeof(Int) == 8 ? Int(1ull << (8 * sizeof(Int) - 1)) : Int(0);
    if (whole >= Float(most)) return most;
    return whole <= Float(least) ? least : Int(whole);
}
#define EMULATOR_CONVERSIONS(from, From, to, To) \
    inline To __##from##2##to##_rn(From x) { return emulator_to_integer<To>(rint(x)); } \
    inline To __##from##2##to##_rz(From x) { return emulator_to_integer<To>(trunc(x)); } \
    inline To __##from##2##to##_rd(From x) { return emulator_to_integer<To>(floor(x)); } \
    inline To __##from##2##to##_ru(From x) { return emulator_to_integer<To>(ceil(x)); }
EMULATOR_CONVERSIONS(float, float, int, int) EMULATOR_CONVERSIONS(double, double, int, int)
EMULATOR_CONVERSIONS(float, float, ll, long long) EMULATOR_CONVERSIONS(double, double, ll, long long)
EMULATOR_CONVERSIONS(float, float, uint, unsigned) EMULATOR_CONVERSIONS(double, double, uint, unsigned)
inline float __double2float_rn(double x) { return float(x); }
inline float __int2float_rn(int x) { return float(x); }
inline double __int2double_rn(int x) { return double(x); }
inline float __ll2float_rn(long long x) { return float(x); }
inline double __ll2double_rn(long long x) { return double(x); }

// ---- Short vectors, aligned as on a GPU ------------------------------------------------------------------------------
#define EMULATOR_VECTORS(T, name) \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; }; \
    struct name##3 { T x, y, z; }; \
    struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; }; \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATOR_VECTORS(float, float) EMULATOR_VECTORS(double, double) EMULATOR_VECTORS(int, int)
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- From Python to a kernel ---------------------------------------------------------------------------------------
// Python gives the arguments as 8-byte words. What types they have to be, the compiler reads off the kernel itself.
namespace emulator {
struct Launch {
    unsigned grid[3], block[3];
    int schedule;  // 0: a thread runs until it has to wait; 1: and until YIELD(); 2: in an order drawn at random
    uint64_t seed;
    const uint64_t* arguments;
    const char* (*twin)(const Launch&);  // with real threads: the same kernel in a second copy of this library, which
    unsigned first, step;                // runs every other block at the same time
};
const char* run(const Launch& launch, void (*thread)(const void*), const void* kernel);  // null, or what went wrong

template <class T>
constexpr char code() {  // as in NumPy: i is int32, Q is uint64 or a pointer, ...
    if (T(0.5f) != T(0)) return sizeof(T) == 4 ? 'f' : 'd';
    constexpr char of_size[] = "?bh?i???q";
    return T(-1) < T(0) || sizeof(T) == 1 ? of_size[sizeof(T)] : char(of_size[sizeof(T)] - 'a' + 'A');
}
template <> constexpr char code<bool>() { return '?'; }
template <class T> struct Code { static constexpr char value = code<T>(); };
template <class T> struct Code<T*> { static constexpr char value = 'P'; };

template <class... T>
const char* signature(void (*)(T...), int) {
    static const char codes[] = {Code<T>::value..., 0};
    return codes;
}
template <class T>
T argument(const uint64_t*& next) {
    T value;
    memcpy(&value, next++, sizeof value);
    return value;
}
template <class... T>
const char* launch(void (*kernel)(T...), const Launch& how, int) {
    struct Call {
        void (*kernel)(T...);
        const uint64_t* arguments;
        struct InOrder {  // braces make C++ unpack from left to right
            InOrder(void (*kernel)(T...), T... argument) { kernel(argument...); }
        };
        static void thread(const void* self) {
            auto call = static_cast<const Call*>(self);
            const uint64_t* next = call->arguments;
            (void)next;
            InOrder{call->kernel, argument<T>(next)...};
        }
    } call{kernel, how.arguments};
    return run(how, Call::thread, &call);
}

// A name that #if took out of the source, and one that was never in it, are still declared: as another function of this
// type, which is chosen only where there is no kernel.
struct Absent {};
inline const char* signature(Absent (*)(Absent), long) { return nullptr; }
inline const char* launch(Absent (*)(Absent), const Launch&, long) { return "no such kernel"; }
}  // namespace emulator

#define EMULATOR_EXPORT extern "C" __attribute__((visibility("default")))
#define EMULATOR_KERNEL(name) \
    emulator::Absent name(emulator::Absent); \
    EMULATOR_EXPORT const char* emulator_signature_##name() { return emulator::signature(name, 0); } \
    EMULATOR_EXPORT const char* emulator_launch_##name(const emulator::Launch& how) { return emulator::launch(name, how, 0); }
