// Convolutions of one sample of any kernel, stride, padding and groups, and linear layers: what each tap of the window sees is
// laid out as a row of pixels (of a 1×1 convolution the image is that already), and outputs are sums of rows by live weights.
#pragma once
#include "single.h"
#include <algorithm>

namespace edgecl {
namespace EDGECL_NS {

// Rows [c][tap] of the pixels that each tap sees, `gap` floats apart.
inline void windows(const Op& op, float* to, long gap) {
    const Plane in(op.h, op.w);
    const int taps = op.kh * op.kw;
    parallel(1L * op.c * taps, 4.0 * op.c * taps * op.ho * op.wo, [&](long first, long last) {
        for (long row = first; row < last; row++) {
            const float* from = floats(op.a) + row / taps * in.gap;
            const int i = static_cast<int>(row % taps) / op.kw - op.ph, j = static_cast<int>(row % taps) % op.kw - op.pw;
            float* __restrict out = to + row * gap;
            std::memset(out, 0, sizeof(float) * gap);
            const int low = j < 0 ? (op.sw - 1 - j) / op.sw : 0;  // the first output whose tap is within the row
            const int high = j < op.w ? std::min(op.wo, (op.w - 1 - j) / op.sw + 1) : 0;
            for (int y = 0; y < op.ho; y++, out += op.wo) {
                const int iy = y * op.sh + i;
                if (iy < 0 || iy >= op.h) continue;
                const float* __restrict line = from + static_cast<long>(iy) * op.w + j;
                for (int x = low; x < high; x++) out[x] = line[x * op.sw];
            }
        }
    });
}

struct Rows {  // what a layer sums
    const float* x;
    long gap;
    int taps;
};

// acc[R][B] += rows of pixels by the weights of R outputs: `n` kernels of `taps` rows each. Without a list, all in order.
template <int R, int B, bool LISTED>
EDGECL_INLINE void sums1(const Rows& s, long i, const int32_t* col, int n, const float* const* w, vf* acc) {
    for (int k = 0; k < n; k++) {
        const float* x = s.x + static_cast<long>(LISTED ? col[k] : k) * s.taps * s.gap + i;
        for (int t = 0; t < s.taps; t++, x += s.gap) {
            vf v[B];
            UNROLL(B, b) v[b] = R > 1 ? held(ld(x + b * V)) : ld(x + b * V); END
            UNROLL(R, r)
                vf wr = splat(w[r][static_cast<long>(k) * s.taps + t]);
                UNROLL(B, b) acc[r * B + b] += v[b] * wr; END
            END
        }
    }
}

template <int R, int B, bool LISTED>
EDGECL_INLINE void tile1(const Rows& s, long i, const int32_t* col, int n, const float* const* w, const Finish& f, int o) {
    vf acc[R * B] = {};
    sums1<R, B, LISTED>(s, i, col, n, w, acc);
    UNROLL(R, r)
        const vf a = splat(f.factor(o + r)), b = splat(f.offset(o + r));
        UNROLL(B, v) f.put(acc[r * B + v], o + r, i + v * V, a, b); END
    END
}

template <int R, bool LISTED>
inline void outputs1(const Rows& s, const int32_t* col, int n, const float* const* w, const Finish& f, int o) {
    constexpr int B = R == 8 ? 2 : 4;  // vectors at once: R·B sums stay in registers
    long i = 0;
    for (; i + (B - 1) * V < f.pixels; i += B * V) tile1<R, B, LISTED>(s, i, col, n, w, f, o);
    for (; i < f.pixels; i += V) tile1<R, 1, LISTED>(s, i, col, n, w, f, o);
}

inline bool same_list(const Csr& m, int o, int rows) {
    const int a = m.rowptr[o], n = m.rowptr[o + 1] - a;
    for (int r = 1; r < rows; r++) {
        const int b = m.rowptr[o + r];
        if (m.rowptr[o + r + 1] - b != n || std::memcmp(m.col + a, m.col + b, sizeof(int32_t) * n)) return false;
    }
    return true;
}

template <int R> inline void group1(const Op& op, Rows s, const Finish& f, int o) {
    const Csr& m = op.layer->forward;
    const float* w[R];
    for (int r = 0; r < R; r++) w[r] = m.w + static_cast<long>(m.rowptr[o + r]) * s.taps;
    s.x += static_cast<long>(group_start(op, o)) * s.taps * s.gap;
    const int a = m.rowptr[o], n = m.rowptr[o + 1] - a;
    if (op.layer->full) outputs1<R, false>(s, nullptr, n, w, f, o);
    else outputs1<R, true>(s, m.col + a, n, w, f, o);
}

// Outputs [first, last): as many at once as read the same rows. Groups begin at multiples of their size, whoever takes them.
inline void channels1(const Op& op, const Rows& s, const Finish& f, int first, int last) {
    const int group = op.o / op.groups;
    for (int o = first; o < last;) {
        const int left = last - o < group - o % group ? last - o : group - o % group;
        const bool full = op.layer->full;
        if (left >= 8 && o % 8 == 0 && (full || same_list(op.layer->forward, o, 8))) group1<8>(op, s, f, o), o += 8;
        else if (left >= 4 && o % 4 == 0 && (full || same_list(op.layer->forward, o, 4))) group1<4>(op, s, f, o), o += 4;
        else group1<1>(op, s, f, o), o++;
    }
}

// Where an output is one pixel: products summed along the inputs [c][tap], which lie side by side.
inline float dot(const float* x, const float* w, long n) {
    vf acc[4] = {};
    long i = 0;
    for (; i + 4 * V <= n; i += 4 * V) { UNROLL(4, a) acc[a] += ldu(x + i + a * V) * ldu(w + i + a * V); END }
    float total = sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
    for (; i < n; i++) total += x[i] * w[i];
    return total;
}

inline void pixel1(const Op& op, const Rows& s, const Finish& f, int o) {
    const Csr& m = op.layer->forward;
    const float* x = s.x + static_cast<long>(group_start(op, o)) * s.taps;
    const int a = m.rowptr[o], b = m.rowptr[o + 1];
    float total = 0;
    if (op.layer->full) total = dot(x, m.w + static_cast<long>(a) * s.taps, static_cast<long>(b - a) * s.taps);
    else
        for (int k = a; k < b; k++)
            for (int t = 0; t < s.taps; t++)
                total += x[static_cast<long>(m.col[k]) * s.taps + t] * m.w[static_cast<long>(k) * s.taps + t];
    f.put_one(total, o);
}

inline void single_conv(const Op& op) {
    const Finish f(op);
    Rows s{floats(op.a), Plane(op.h, op.w).gap, op.kh * op.kw};
    if (!one_to_one(op)) {
        s.gap = f.pixels == 1 ? 1 : up(f.pixels);
        float* rows = scratch_b.get(static_cast<std::size_t>(s.gap) * op.c * s.taps);
        windows(op, rows, s.gap);
        s.x = rows;
    }
    parallel((op.o + 7) / 8, 1.0 * op.layer->forward.n * s.taps * f.pixels, [&](long begin, long end) {
        const int first = static_cast<int>(8 * begin), last = 8 * end < op.o ? static_cast<int>(8 * end) : op.o;
        if (f.pixels > 1) return channels1(op, s, f, first, last);
        for (int o = first; o < last; o++) pixel1(op, s, f, o);
    });
}

}
}
