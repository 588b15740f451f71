// 1×1 convolutions and linear layers (an image of one pixel): dense by 4×4 tiles, or by lists of live weights.
#pragma once
#include "load.h"
#include "pool.h"

namespace edgecl {
namespace EDGECL_NS {

// `count` output pixels from p0 on → dst [channels][count][V]; inputs are `stride` apart.
template <class Source>
inline void pack_pixels(const Source& s, int nb, int channels, int p0, int count, int wo, int w, int stride, float* dst) {
    for (int ch = 0; ch < channels; ch++, dst += static_cast<long>(count) * V) {
        if (stride == 1) {
            s.row(dst, nb, ch, p0, count, 1);
            continue;
        }
        for (int p = p0; p < p0 + count;) {
            const int y = p / wo, x = p % wo, run = wo - x < p0 + count - p ? wo - x : p0 + count - p;
            s.row(dst + static_cast<long>(p - p0) * V, nb, ch, static_cast<long>(y) * stride * w + x * stride, run, stride);
            p += run;
        }
    }
}

struct Dense1 {  // weight of (row, channel) at w[row * by_row + channel * by_channel]
    const float* w;
    long by_row, by_channel;
};

template <int B, int P>
EDGECL_INLINE void block_dense(const float* x, int channels, long plane, const Dense1& m, int row, vf* acc) {
    const float* w = m.w + row * m.by_row;
    for (int c = 0; c < channels; c++, x += plane, w += m.by_channel) {
        vf v[P];
        UNROLL(P, p) v[p] = ld(x + p * V); END
        UNROLL(B, b)
            vf k = splat(w[b * m.by_row]);
            UNROLL(P, p) acc[b * P + p] += v[p] * k; END
        END
    }
}

template <int P> EDGECL_INLINE void row_sparse(const float* x, long plane, const Csr& m, int row, vf* acc) {
    for (int k = m.rowptr[row]; k < m.rowptr[row + 1]; k++) {
        const float* v = x + m.col[k] * plane;
        vf w = splat(m.w[k]);
        UNROLL(P, p) acc[p] += ld(v + p * V) * w; END
    }
}

struct Image1 {  // where rows of `pixels` go: at (y, x) · stride of an image w wide, hw in all
    float* out;
    const float* bias;
    int rows, hw, w, wo, stride;
    bool accumulate;

    EDGECL_INLINE long place(const Image1& t, int p) {
        return t.stride == 1 ? p : static_cast<long>(p / t.wo) * t.stride * t.w + p % t.wo * t.stride;
    }
};

template <int B, int P> EDGECL_INLINE void put(const Image1& t, int nb, int row, int p0, const vf* acc) {
    for (int b = 0; b < B; b++) {
        float* out = t.out + (static_cast<long>(nb) * t.rows + row + b) * t.hw * V;
        vf bias = splat(t.bias ? t.bias[row + b] : 0.f);
        for (int p = 0; p < P; p++) {
            float* at = out + Image1::place(t, p0 + p) * V;
            st(at, (t.accumulate ? ld(at) : vf{}) + (acc[b * P + p] + bias));
        }
    }
}

template <int B, int P>
EDGECL_INLINE void tile1(const float* x, int channels, long plane, const Dense1* dense, const Csr* m, const Image1& t, int nb,
                         int row, int p0) {
    vf acc[B * P];
    UNROLL(B * P, i) acc[i] = vf{}; END
    if (dense) block_dense<B, P>(x, channels, plane, *dense, row, acc);
    else for (int b = 0; b < B; b++) row_sparse<P>(x, plane, *m, row + b, acc + b * P);
    put<B, P>(t, nb, row, p0, acc);
}

// B rows at a time, then the rest one by one.
template <int B, int P>
inline void rows1(const float* x, int channels, long plane, const Dense1* dense, const Csr* m, const Image1& t, int nb, int p0) {
    int row = 0;
    for (; row + B <= t.rows; row += B) tile1<B, P>(x, channels, plane, dense, m, t, nb, row, p0);
    for (; row < t.rows; row++) tile1<1, P>(x, channels, plane, dense, m, t, nb, row, p0);
}

template <class Source>
void convolve1(const Source& s, int n, int channels, int pixels, int w, int stride, const Dense1* dense, const Csr* m,
               const Image1& t) {
    int group = static_cast<int>(96 * 1024 / (4L * V * channels)) / 12 * 12;  // whole tiles of 4 and of 6
    group = group < 12 ? 12 : group > 60 ? 60 : group;
    const int groups = (pixels + group - 1) / group;
    const double work = static_cast<double>(dense ? static_cast<long>(channels) * t.rows : m->n) * pixels * blocks_of(n);
    parallel(static_cast<long>(blocks_of(n)) * groups, work, [&](long begin, long end) {
        float* x = scratch_a.get(static_cast<std::size_t>(channels) * group * V);
        for (long item = begin; item < end; item++) {
            const int nb = static_cast<int>(item / groups), p0 = static_cast<int>(item % groups) * group;
            const int count = pixels - p0 < group ? pixels - p0 : group;
            pack_pixels(s, nb, channels, p0, count, t.wo, w, stride, x);
            const long plane = static_cast<long>(count) * V;
            int p = 0;
            if (V == 16) for (; p + 6 <= count; p += 6) rows1<4, 6>(x + p * V, channels, plane, dense, m, t, nb, p0 + p);
            for (; p + 4 <= count; p += 4) rows1<4, 4>(x + p * V, channels, plane, dense, m, t, nb, p0 + p);
            for (; p < count; p++) rows1<8, 1>(x + p * V, channels, plane, dense, m, t, nb, p0 + p);
        }
    });
}

inline void conv1(const Op& op) {
    const Layer& l = *op.layer;
    const Dense1 dense{l.w, l.inputs, 1};
    const int pixels = op.ho * op.wo;
    const Image1 t{op.out, l.bias, op.o, pixels, op.wo, op.wo, 1, false};
    convolve1(ViewSource{op.a, op.n, op.c, op.h * op.w}, op.n, op.c, pixels, op.w, op.sh, l.full ? &dense : nullptr,
              &l.forward, t);
}

inline void conv1_dx(const Op& op) {
    const Layer& l = *op.layer;
    const Dense1 dense{l.w, 1, l.inputs};
    const int pixels = op.ho * op.wo;
    if (op.sh > 1 && !op.accumulate) std::memset(op.out, 0, sizeof(float) * V * blocks_of(op.n) * op.c * op.h * op.w);
    const Image1 t{op.out, nullptr, op.c, op.h * op.w, op.w, op.wo, op.sh, op.accumulate || op.sh > 1};
    convolve1(GradSource{op.g, op.n, op.o, pixels}, op.n, op.o, pixels, op.wo, 1, l.full ? &dense : nullptr, &l.backward, t);
}

// acc[4×4] of rows × columns over the pixels, then one sum each.
inline void outer4(const float* d, const float* x, long plane, int count, float* out, long pitch) {
    vf a[16];
    UNROLL(16, i) a[i] = vf{}; END
    for (int p = 0; p < count; p++) {
        vf v[4];
        UNROLL(4, c) v[c] = ld(x + c * plane + p * V); END
        UNROLL(4, r) vf g = ld(d + r * plane + p * V); UNROLL(4, c) a[r * 4 + c] += g * v[c]; END END
    }
    UNROLL(4, r) add_sums(a[r * 4], a[r * 4 + 1], a[r * 4 + 2], a[r * 4 + 3], out + r * pitch); END
}

inline float dot(const float* d, const float* x, int count) {
    vf a{}, b{};
    int p = 0;
    for (; p + 2 <= count; p += 2) {
        a += ld(d + p * V) * ld(x + p * V);
        b += ld(d + p * V + V) * ld(x + p * V + V);
    }
    if (p < count) a += ld(d + p * V) * ld(x + p * V);
    return sum(a + b);
}

inline void weights1(const float* d, const float* x, int count, const Csr& m, bool by_index, int inputs, int o0, int o1) {
    const long plane = static_cast<long>(count) * V;
    const bool all = m.n == m.rows * inputs;
    const int o4 = all ? o0 + (o1 - o0) / 4 * 4 : o0, c4 = inputs / 4 * 4;
    for (int o = o0; o < o4; o += 4) {
        for (int c = 0; c < c4; c += 4)
            outer4(d + o * plane, x + c * plane, plane, count, m.w + static_cast<long>(o) * inputs + c, inputs);
        for (int r = o; r < o + 4; r++)
            for (int c = c4; c < inputs; c++)
                m.w[static_cast<long>(r) * inputs + c] += dot(d + r * plane, x + c * plane, count);
    }
    for (int o = o4; o < o1; o++)
        for (int k = m.rowptr[o]; k < m.rowptr[o + 1]; k++)
            m.w[by_index ? m.index[k] : k] += dot(d + o * plane, x + m.col[k] * plane, count);
}

inline void conv1_dw(const Op& op) {
    const Layer& l = *op.layer;
    const int pixels = op.ho * op.wo;
    int group = static_cast<int>(192 * 1024 / (4L * V * (op.c + op.o))) / 4 * 4;
    group = group < 4 ? 4 : group > 64 ? 64 : group;
    const GradSource ds{op.g, op.n, op.o, pixels};
    const ViewSource xs{op.a, op.n, op.c, op.h * op.w};
    parallel((op.o + 3) / 4, static_cast<double>(l.updated.n) * pixels * blocks_of(op.n), [&](long begin, long end) {
        const int o0 = static_cast<int>(begin) * 4, o1 = end * 4 < op.o ? static_cast<int>(end) * 4 : op.o;
        float* x = scratch_a.get(static_cast<std::size_t>(op.c) * group * V);
        float* d = scratch_b.get(static_cast<std::size_t>(op.o) * group * V);
        for (int nb = 0; nb < blocks_of(op.n); nb++)
            for (int p0 = 0; p0 < pixels; p0 += group) {
                const int count = pixels - p0 < group ? pixels - p0 : group;
                pack_pixels(xs, nb, op.c, p0, count, op.wo, op.w, op.sh, x);
                for (int o = o0; o < o1; o++) ds.row(d + static_cast<long>(o) * count * V, nb, o, p0, count, 1);
                weights1(d, x, count, l.updated, l.dense_grad != 0, l.inputs, o0, o1);
            }
    });
}

}
}
