// Rows of a kernel's taps over a row of outputs: what convolutions of any size, and depthwise ones, are made of.
#pragma once
#include "simd.h"

namespace edgecl {
namespace EDGECL_NS {

// f(integral constant P, first output) over a row of `count` outputs, in tiles of 8, 4, 2 and 1.
template <class F> EDGECL_INLINE void by_tiles(int count, F&& f) {
    int x = 0;
    for (; x + 8 <= count; x += 8) f(std::integral_constant<int, 8>{}, x);
    if (x + 4 <= count) f(std::integral_constant<int, 4>{}, x), x += 4;
    if (x + 2 <= count) f(std::integral_constant<int, 2>{}, x), x += 2;
    if (x < count) f(std::integral_constant<int, 1>{}, x);
}

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int WIDE = 16, LONG = 9;  // outputs of a tile and taps at once that 32 registers hold
#else
constexpr int WIDE = 8, LONG = 3;
#endif

// As by_tiles, in as few tiles of up to WIDE as there can be, as even as they can be: in a tile of few outputs each
// multiply-add waits for the one before it.
template <int P, class F> EDGECL_INLINE void wide_tile(int size, int x, F&& f) {
    if constexpr (P > 8) size == P ? f(std::integral_constant<int, P>{}, x) : wide_tile<P - 1>(size, x, f);
}
template <class F> EDGECL_INLINE void by_wide_tiles(int count, F&& f) {
    if (WIDE <= 8 || count <= 8) return by_tiles(count, f);
    const int parts = (count + WIDE - 1) / WIDE, size = count / parts, larger = count % parts;  // size ≥ 8
    int x = 0;
    for (int i = 0; i < larger; i++, x += size + 1) wide_tile<WIDE>(size + 1, x, f);
    if (size == 8) return by_tiles(count - x, [&](auto tile, int z) __attribute__((always_inline)) { f(tile, x + z); });
    for (; x < count; x += size) wide_tile<WIDE>(size, x, f);
}

// f(integral constant S) for strides that are unrolled; 0 stands for any other.
template <class F> EDGECL_INLINE void by_stride(int stride, F&& f) {
    if (stride == 1) f(std::integral_constant<int, 1>{});
    else if (stride == 2) f(std::integral_constant<int, 2>{});
    else f(std::integral_constant<int, 0>{});
}

// acc[P] += T taps; x: the first tap's input of the first output. Outputs are S inputs apart, or `step` where S is 0.
template <int T, int S, int P> EDGECL_INLINE void add_taps(const float* x, int step, const float* w, vf* acc) {
    vf b[T];
    UNROLL(T, j) b[j] = splat(w[j]); END
    if constexpr (S == 0) {
        UNROLL(P, p) UNROLL(T, j) acc[p] += ld(x + (static_cast<long>(p) * step + j) * V) * b[j]; END END
    } else {
        UNROLL(S * (P - 1) + T, r)
            vf v = ld(x + r * V);
            UNROLL(T, j)
                if constexpr (r >= j && (r - j) % S == 0 && (r - j) / S < P) acc[(r - j) / S] += v * b[j];
            END
        END
    }
}

// acc[P] += a kernel of kh × kw taps; rows of x are `pitch` apart.
template <int S, int P>
EDGECL_INLINE void add_kernel(const float* x, long pitch, int step, int kh, int kw, const float* w, vf* acc) {
    for (int i = 0; i < kh; i++, x += pitch, w += kw) {
        int j = 0;
        if constexpr (S == 1) for (; LONG > 3 && j + LONG <= kw; j += LONG) add_taps<LONG, S, P>(x + j * V, step, w + j, acc);
        for (; j + 3 <= kw; j += 3) add_taps<3, S, P>(x + j * V, step, w + j, acc);
        if (kw - j == 2) add_taps<2, S, P>(x + j * V, step, w + j, acc);
        if (kw - j == 1) add_taps<1, S, P>(x + j * V, step, w + j, acc);
    }
}

// a[R × T] += P gradients d times the inputs under T taps of R kernel rows.
template <int R, int T, int S, int P> EDGECL_INLINE void correlate(const float* x, long pitch, int step, const float* d, vf* a) {
    vf g[P];
    UNROLL(P, p) g[p] = ld(d + p * V); END
    UNROLL(R, i)
        const float* row = x + i * pitch;
        if constexpr (S == 0) {
            UNROLL(P, p) UNROLL(T, j) a[i * T + j] += ld(row + (static_cast<long>(p) * step + j) * V) * g[p]; END END
        } else {
            UNROLL(S * (P - 1) + T, r)
                vf v = ld(row + r * V);
                UNROLL(T, j)
                    if constexpr (r >= j && (r - j) % S == 0 && (r - j) / S < P) a[i * T + j] += v * g[(r - j) / S];
                END
            END
        }
    END
}

struct Planes {  // an input plane, padded, and the gradient's; distances between rows in floats, of inputs also by stride
    const float *x, *d;
    long pitch, dpitch;
    int ho, wo, sh, sw;
    int images = 1;  // that are summed over
    long gap = 0, dgap = 0;  // between them
};

// out[i × kw + j] += the gradient of R × T taps from (i, j) on.
template <int R, int T> inline void taps_gradient(const Planes& s, int kw, int i, int j, float* out) {
    by_stride(s.sw, [&](auto stride) __attribute__((always_inline)) {
        vf a[R * T];
        UNROLL(R * T, t) a[t] = vf{}; END
        for (int row = 0; row < s.images * s.ho; row++) {
            const int image = row / s.ho, y = row % s.ho;
            const float* x = s.x + image * s.gap + (static_cast<long>(y) * s.sh + i) * s.pitch + j * V;
            const float* d = s.d + image * s.dgap + y * s.dpitch;
            int p = 0;
            for (; p + 4 <= s.wo; p += 4)
                correlate<R, T, decltype(stride)::value, 4>(x + static_cast<long>(p) * s.sw * V, s.pitch, s.sw, d + p * V, a);
            for (; p < s.wo; p++) correlate<R, T, 1, 1>(x + static_cast<long>(p) * s.sw * V, s.pitch, 1, d + p * V, a);
        }
        UNROLL(R * T, t) out[(i + t / T) * kw + j + t % T] += sum(a[t]); END
    });
}

// out[kh × kw] += the gradient of a whole kernel: of a few rows at once where they are short.
inline void kernel_gradient(const Planes& s, int kh, int kw, float* out) {
    int i = 0;
    for (; kw == 3 && i + 3 <= kh; i += 3) taps_gradient<3, 3>(s, kw, i, 0, out);
    for (; i < kh; i++) {
        int j = 0;
        for (; LONG > 5 && j + LONG <= kw; j += LONG) taps_gradient<1, LONG>(s, kw, i, j, out);
        for (; j + 5 <= kw; j += 5) taps_gradient<1, 5>(s, kw, i, j, out);
        if (kw - j == 4) taps_gradient<1, 4>(s, kw, i, j, out);
        if (kw - j == 3) taps_gradient<1, 3>(s, kw, i, j, out);
        if (kw - j == 2) taps_gradient<1, 2>(s, kw, i, j, out);
        if (kw - j == 1) taps_gradient<1, 1>(s, kw, i, j, out);
    }
}

}
}
