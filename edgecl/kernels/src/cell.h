// What activations are stored as: floats, or where EDGECL_HALF is set IEEE half-precision numbers, whose 16 bits are read and
// written here. All sums and products are of floats; gradients and statistics are stored as such. A number that is too large
// for a half (65,520 and more) becomes infinity, as the standard has it.
#pragma once
#include "simd.h"
#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace edgecl {
namespace EDGECL_NS {

#ifdef EDGECL_HALF
using cell = uint16_t;
#else
using cell = float;
#endif
constexpr bool HALVES = sizeof(cell) == 2;

// By whole numbers alone, for processors that cannot convert.
EDGECL_INLINE vf widened(vi h) {
    const vi m = (h & 0x7fff) << 13;
    const vf scaled = reinterpret_cast<vf>(m) * 0x1p112f;  // exponents of 5 bits to those of 8, subnormals too
    const vi bits = m >= 0x0f800000 ? m + 0x70000000 : reinterpret_cast<vi>(scaled);  // infinity, NaN
    return reinterpret_cast<vf>(bits | (h & 0x8000) << 16);
}
EDGECL_INLINE vi narrowed(vf x) {  // to the nearest, of two the even one
    const vi bits = reinterpret_cast<vi>(x), a = bits & 0x7fffffff;
    const vi normal = (a - 0x38000000 + 0xfff + ((a >> 13) & 1)) >> 13;
    const vi tiny = reinterpret_cast<vi>(reinterpret_cast<vf>(a) + .5f) - 0x3f000000;  // rounded where a half's bits end
    const vi large = a > 0x7f800000 ? vi{} + 0x7e00 : vi{} + 0x7c00;
    return (a >= 0x47800000 ? large : a < 0x38800000 ? tiny : normal) | ((bits >> 16) & 0x8000);
}

#if defined(__AVX512F__)  // maskz: GCC 12 warns of the plain ones' own header
EDGECL_INLINE vf ld(const uint16_t* p) {
    return (vf)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
EDGECL_INLINE void st(uint16_t* p, vf v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
EDGECL_INLINE vf rounded(vf v) { return (vf)_mm512_maskz_cvtph_ps(0xffff, _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT)); }
#elif defined(__F16C__)
EDGECL_INLINE vf ld(const uint16_t* p) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
EDGECL_INLINE void st(uint16_t* p, vf v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
EDGECL_INLINE vf rounded(vf v) { return (vf)_mm256_cvtph_ps(_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT)); }
#elif defined(__aarch64__)
EDGECL_INLINE vf ld(const uint16_t* p) { return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
EDGECL_INLINE void st(uint16_t* p, vf v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v))); }
EDGECL_INLINE vf rounded(vf v) { return (vf)vcvt_f32_f16(vcvt_f16_f32((float32x4_t)v)); }
#else
using vh = uint16_t __attribute__((vector_size(2 * V)));
EDGECL_INLINE vf ld(const uint16_t* p) {
    vh h;
    std::memcpy(&h, p, sizeof h);
    return widened(__builtin_convertvector(h, vi));
}
EDGECL_INLINE void st(uint16_t* p, vf v) {
    const vh h = __builtin_convertvector(narrowed(v), vh);
    std::memcpy(p, &h, sizeof h);
}
EDGECL_INLINE vf rounded(vf v) { return widened(narrowed(v)); }
#endif

// Stored activations out of the untyped pointers of abi.h.
EDGECL_INLINE const cell* cells(const void* p) { return static_cast<const cell*>(p); }
EDGECL_INLINE cell* cells(float* p) { return reinterpret_cast<cell*>(p); }  // of an Op's `out`, which may be a gradient's

// Where `count` vectors are worked on before they are stored at `out`: there, or in `room` if they must be rounded.
EDGECL_INLINE float* draft(float* out, float*) { return out; }
EDGECL_INLINE float* draft(uint16_t*, float* room) { return room; }
EDGECL_INLINE void settle(const float*, float*, int) {}
EDGECL_INLINE void settle(const float* from, uint16_t* out, int count) {
    for (int i = 0; i < count; i++) st(out + static_cast<long>(i) * V, ld(from + static_cast<long>(i) * V));
}

}
}
