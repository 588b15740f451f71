// Vectors of V floats, one sample a lane, in GCC's and Clang's vector types: one source for every instruction set.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace edgecl {
namespace EDGECL_NS {

constexpr int V = EDGECL_V;
constexpr long FAR_BYTES = 6 * 1000 * 1000;  // measured: outputs of 6.3 MB gain, of 4.7 MB do not
using vf = float __attribute__((vector_size(4 * V)));
using vi = int32_t __attribute__((vector_size(4 * V)));
using v4 = float __attribute__((vector_size(16)));

#define EDGECL_INLINE static inline __attribute__((always_inline))

EDGECL_INLINE vf ld(const float* p) { return *reinterpret_cast<const vf*>(p); }
EDGECL_INLINE void st(float* p, vf v) { *reinterpret_cast<vf*>(p) = v; }
EDGECL_INLINE void stream(float* p, vf v) {  // past the caches
#if defined(__x86_64__) && EDGECL_V == 16
    _mm512_stream_ps(p, reinterpret_cast<__m512>(v));
#elif defined(__x86_64__) && EDGECL_V == 8
    _mm256_stream_ps(p, reinterpret_cast<__m256>(v));
#elif defined(__x86_64__)
    _mm_stream_ps(p, reinterpret_cast<__m128>(v));
#else
    st(p, v);
#endif
}

EDGECL_INLINE void streamed() {  // before another thread may read
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

// Whether an array of so many vectors is too large to wait in a cache for its reader: written past it, its lines need not be
// read first.
EDGECL_INLINE bool is_far(long vectors) { return vectors * V * static_cast<long>(sizeof(float)) > FAR_BYTES; }

EDGECL_INLINE vf splat(float x) { return x - vf{}; }
EDGECL_INLINE vf clamp(vf x, vf lo, vf hi) {  // NaN passes: it must reach the loss
    x = x < lo ? lo : x;
    return x > hi ? hi : x;
}
EDGECL_INLINE vf open(vf d, vf m, vf hi) { return (m <= 0) | (m >= hi) ? vf{} : d; }
EDGECL_INLINE vf keep(vf x, vi lanes) { return reinterpret_cast<vf>(reinterpret_cast<vi>(x) & lanes); }

inline void stream_out(const float* from, int vectors, float* to) {
    for (int i = 0; i < vectors; i++) stream(to + i * V, ld(from + i * V));
}

// Unrolled at compile time, so that arrays of accumulators stay in registers.
template <class F, int... I> EDGECL_INLINE void unroll_(F&& f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>{}), ...);
}
template <int N, class F> EDGECL_INLINE void unroll(F&& f) { unroll_(f, std::make_integer_sequence<int, N>{}); }
#define UNROLL(N, i) unroll<N>([&](auto i##_) __attribute__((always_inline)) { constexpr int i = decltype(i##_)::value;
#define END });

EDGECL_INLINE v4 fold(vf v) {
#if EDGECL_V == 16
    auto a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
#elif EDGECL_V == 8
    return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
    return v;
#endif
}

EDGECL_INLINE float sum(vf v) {
    v4 a = fold(v);
    return (a[0] + a[2]) + (a[1] + a[3]);
}

// Sums of four vectors, added to out[0..3].
EDGECL_INLINE void add_sums(vf a, vf b, vf c, vf d, float* out) {
    v4 e = fold(a), f = fold(b), g = fold(c), h = fold(d), o;
    v4 p = __builtin_shufflevector(e, f, 0, 4, 1, 5) + __builtin_shufflevector(e, f, 2, 6, 3, 7);
    v4 q = __builtin_shufflevector(g, h, 0, 4, 1, 5) + __builtin_shufflevector(g, h, 2, 6, 3, 7);
    std::memcpy(&o, out, sizeof o);
    o += __builtin_shufflevector(p, q, 0, 1, 4, 5) + __builtin_shufflevector(p, q, 2, 3, 6, 7);
    std::memcpy(out, &o, sizeof o);
}

// Sums of eight vectors, added to out[0..7].
EDGECL_INLINE void add_sums8(const vf* a, float* out) {
#if EDGECL_V == 16
#define BOTH(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
    vf half[4], quarter[2];  // of each vector, side by side
    UNROLL(4, i)
        half[i] = BOTH(a[2 * i], a[2 * i + 1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                  BOTH(a[2 * i], a[2 * i + 1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    END
    UNROLL(2, i)
        quarter[i] = BOTH(half[2 * i], half[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
                     BOTH(half[2 * i], half[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    END
    vf two = BOTH(quarter[0], quarter[1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
             BOTH(quarter[0], quarter[1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    two += BOTH(two, two, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    const auto found = BOTH(two, two, 0, 4, 8, 12, 1, 5, 9, 13);
#undef BOTH
    float __attribute__((vector_size(32))) o;
    std::memcpy(&o, out, sizeof o);
    o += found;
    std::memcpy(out, &o, sizeof o);
#else
    add_sums(a[0], a[1], a[2], a[3], out);
    add_sums(a[4], a[5], a[6], a[7], out + 4);
#endif
}

// All bits of the lanes of block `nb` that hold one of n samples.
EDGECL_INLINE vi lanes_of(int n, int nb) {
    vi lane{};
    for (int i = 0; i < V; i++) lane[i] = i;  // a constant once compiled
    return lane < n - nb * V;
}

EDGECL_INLINE int blocks_of(int n) { return (n + V - 1) / V; }

// A thread's own scratch memory: grows, never shrinks.
struct Scratch {
    float* p = nullptr;
    std::size_t size = 0;
    ~Scratch() { std::free(p); }
    float* get(std::size_t floats) {
        if (floats > size) {
            std::free(p);
            size = (floats + 1023) / 1024 * 1024;
            p = static_cast<float*>(std::aligned_alloc(64, size * sizeof(float)));
            if (!p) std::abort();
        }
        return p;
    }
};
inline thread_local Scratch scratch_a, scratch_b;

}
}
