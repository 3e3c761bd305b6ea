// float16 as CUDA's header of this name has it: what a kernel needs to read, write and add halves.
#pragma once
#include "cuda_on_cpu.h"

struct __half_raw { unsigned short x; };
struct __half;
inline __half __float2half_rn(float x);
inline float __half2float(__half x);

struct alignas(2) __half {
    unsigned short bits;  // 1 sign, 5 exponent, 10 fraction
    __half() = default;
    __half(__half_raw raw) : bits(raw.x) {}
    __half(float x) { *this = __float2half_rn(x); }
    operator float() const { return __half2float(*this); }
};
using half = __half;
struct alignas(4) __half2 { __half x, y; };

inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short bits) { return __half_raw{bits}; }

inline float __half2float(__half half) {
    unsigned sign = (half.bits & 0x8000u) << 16, exponent = half.bits >> 10 & 31u, fraction = half.bits & 1023u;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);  // infinite or NaN
    if (exponent == 0) return copysignf(float(fraction) * 0x1p-24f, sign ? -1.f : 1.f);  // below the normal numbers
    return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}
// To the nearest, a tie to the even one, as all of IEEE 754 by default.
inline __half __float2half_rn(float x) {
    unsigned bits = __float_as_uint(x), magnitude = bits & 0x7fffffffu;
    unsigned short sign = bits >> 16 & 0x8000u, half;
    if (magnitude > 0x7f800000u) return __half_raw{0x7fff};  // NaN: CUDA knows one
    if (magnitude >= 0x477ff000u) half = 0x7c00;             // 65520 and more rounds to infinity
    else if (magnitude < 0x38800000u) half = (unsigned short)rintf(__uint_as_float(magnitude) * 0x1p24f);
    else half = (unsigned short)((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
    return __half_raw{(unsigned short)(sign | half)};
}
inline __half __float2half(float x) { return __float2half_rn(x); }
inline __half __double2half(double x) {  // round to odd on the way, so that rounding twice does no harm
    float near = float(x);
    unsigned bits = __float_as_uint(near);
    if (double(near) != x && x == x && !(bits & 1u)) near = __uint_as_float(fabs(double(near)) > fabs(x) ? bits - 1 : bits + 1);
    return __float2half_rn(near);
}

// float has more than twice the digits, so rounding its result once more is as good as rounding once.
inline __half __hadd(__half a, __half b) { return __float2half_rn(__half2float(a) + __half2float(b)); }
inline __half __hsub(__half a, __half b) { return __float2half_rn(__half2float(a) - __half2float(b)); }
inline __half __hmul(__half a, __half b) { return __float2half_rn(__half2float(a) * __half2float(b)); }
inline __half operator+(__half a, __half b) { return __hadd(a, b); }
inline __half operator-(__half a, __half b) { return __hsub(a, b); }
inline __half operator*(__half a, __half b) { return __hmul(a, b); }
inline bool __hisnan(__half x) { return (x.bits & 0x7fffu) > 0x7c00u; }
EMULATOR_ATOMIC_ADD(__half)
