// 1×1 convolutions and linear layers (an image of one pixel): dense by 4×4 tiles, or by lists of live weights.
#pragma once
#include "channels.h"
#include "load.h"
#include "pool.h"

namespace edgecl {
namespace EDGECL_NS {

constexpr int FETCHED = 96;  // vectors that are on their way from memory, where they come by few

// So many channels of `count` vectors ahead memory is asked, that it has answered when their turn comes.
inline int channels_ahead(int count) { return count <= 24 ? FETCHED / count : 1; }

// `count` output pixels from p0 on → dst [.][count][V], of the listed channels only; inputs are `stride` apart.
template <class Source>
inline void pack_pixels(const Source& s, int nb, const Channels& list, int p0, int count, int wo, int w, int stride, float* dst) {
    const std::size_t further = channels_ahead(count);
    for (std::size_t i = 0; i < list.size(); i++) {
        const int ch = list[i], ahead = i + further < list.size() ? list[i + further] - ch : 0;
        float* to = dst + static_cast<long>(ch) * count * V;
        if (stride == 1) {
            s.row(to, nb, ch, p0, count, 1, ahead);
            continue;
        }
        for (int p = p0; p < p0 + count;) {
            const int y = p / wo, x = p % wo, run = wo - x < p0 + count - p ? wo - x : p0 + count - p;
            s.row(to + static_cast<long>(p - p0) * V, nb, ch, static_cast<long>(y) * stride * w + x * stride, run, stride, ahead);
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
    float* stats;  // of bands of so many pixels; null: none
    int band;
    bool stored;  // activations, rounded if those are halves; not gradients
    bool far;  // outputs are more than a cache holds until they are read
    bool partly;  // rows without a live weight need not be written

    EDGECL_INLINE long place(const Image1& t, int p) {
        return t.stride == 1 ? p : static_cast<long>(p / t.wo) * t.stride * t.w + p % t.wo * t.stride;
    }
};

// Merges P values into the mean and squared deviations of `before` ones, sample by sample (Chan et al. 1979).
template <int P> EDGECL_INLINE void add_stats1(const vf* acc, int before, float* stats) {
    vf total{}, square{};
    UNROLL(P, p) total += acc[p]; END
    vf mean = total * (1.f / P);
    UNROLL(P, p) vf d = acc[p] - mean; square += d * d; END
    if (before) {
        const vf old = ld(stats), d = mean - old;
        square += ld(stats + V) + d * d * (static_cast<float>(before) * P / (before + P));
        mean = old + d * (static_cast<float>(P) / (before + P));
    }
    st(stats, mean);
    st(stats + V, square);
}

// Row rows(b) of the image gets acc[b][P] at pixels from p0 on.
template <int B, int P, class Rows> EDGECL_INLINE void put(const Image1& t, int nb, Rows&& rows, int p0, vf* acc) {
    UNROLL(B, b)
        const int row = rows(b);
        float* out = t.out + (static_cast<long>(nb) * t.rows + row) * t.hw * V;
        const vf bias = splat(t.bias ? t.bias[row] : 0.f);
        UNROLL(P, p)
            float* at = out + Image1::place(t, p0 + p) * V;
            acc[b * P + p] += bias;
            if (HALVES && t.stored) {  // statistics are of what is read back
                acc[b * P + p] = rounded(acc[b * P + p]);
                st(cells(t.out) + (at - t.out), acc[b * P + p]);
            } else if (t.far) {
                stream(at, acc[b * P + p]);
            } else {
                __builtin_prefetch(at + static_cast<long>(B) * t.hw * V, 1);  // the next rows'
                st(at, t.accumulate ? ld(at) + acc[b * P + p] : acc[b * P + p]);
            }
        END
        if (t.stats) {
            const long band = static_cast<long>(nb) * ((t.hw + t.band - 1) / t.band) + p0 / t.band;
            add_stats1<P>(acc + b * P, p0 % t.band, t.stats + (band * t.rows + row) * 2 * V);
        }
    END
}

template <int B, int P>
EDGECL_INLINE void tile1(const float* x, int channels, long plane, const Dense1* dense, const Csr* m, const Image1& t, int nb,
                         int row, int p0) {
    vf acc[B * P];
    UNROLL(B * P, i) acc[i] = vf{}; END
    if (dense) block_dense<B, P>(x, channels, plane, *dense, row, acc);
    else UNROLL(B, b) row_sparse<P>(x, plane, *m, row + b, acc + b * P); END
    put<B, P>(t, nb, [&](int b) { return row + b; }, p0, acc);
}

// B rows at a time, then the rest one by one.
template <int B, int P>
inline void rows1(const float* x, int channels, long plane, const Dense1* dense, const Csr* m, const Image1& t, int nb, int p0) {
    int row = 0;
    for (; row + B <= t.rows; row += B) tile1<B, P>(x, channels, plane, dense, m, t, nb, row, p0);
    for (; row < t.rows; row++) tile1<1, P>(x, channels, plane, dense, m, t, nb, row, p0);
}

// All rows at the `count` pixels from p0 on, out of x [channels][count][V].
inline void pixels1(const float* x, int channels, int count, const Dense1* dense, const Csr* m, const Image1& t, int nb, int p0) {
    const long plane = static_cast<long>(count) * V;
    int p = 0;
    if (V == 16) for (; p + 6 <= count; p += 6) rows1<4, 6>(x + p * V, channels, plane, dense, m, t, nb, p0 + p);
    for (; p + 4 <= count; p += 4) rows1<4, 4>(x + p * V, channels, plane, dense, m, t, nb, p0 + p);
    for (; p < count; p++) rows1<8, 1>(x + p * V, channels, plane, dense, m, t, nb, p0 + p);
}

// `pixels` in parts of about `wanted`, as even as whole tiles allow: of 3, 4 and 6, and at least 16 pixels.
inline int even_part(long wanted, int pixels) {
    const int most = wanted < 16 ? 16 : wanted > 60 ? 60 : static_cast<int>(wanted), parts = (pixels + most - 1) / most;
    const int part = (pixels + parts - 1) / parts, tile = part > 24 ? 12 : 4;
    return (part + tile - 1) / tile * tile;
}

// f(x [channels][count][V], count, nb, p0) for all pixels, a part at a time; a band's pixels one after the other.
template <class Source, class F>
void convolve1(const Source& s, int n, int channels, const Channels& list, int pixels, int w, int stride, double work,
               const Image1& t, F&& f) {
    const long wide = 4L * V * (list.empty() ? 1 : list.size());
    const int group = even_part(256 * 1024 / wide, t.stats ? t.band : pixels);
    const int band = t.stats ? t.band : group, bands = (pixels + band - 1) / band;
    parallel(static_cast<long>(blocks_of(n)) * bands, work * pixels * blocks_of(n), [&](long begin, long end) {
        float* x = scratch_a.get(static_cast<std::size_t>(channels) * group * V);
        for (long item = begin; item < end; item++) {
            const int nb = static_cast<int>(item / bands), first = static_cast<int>(item % bands) * band;
            const int last = pixels - first < band ? pixels : first + band;
            for (int p0 = first; p0 < last; p0 += group) {
                const int count = last - p0 < group ? last - p0 : group;
                pack_pixels(s, nb, list, p0, count, t.wo, w, stride, x);
                f(x, count, nb, p0);
            }
        }
        if (t.far) streamed();
    });
}

template <class Source>
void convolve1_by_weight(const Source& s, int n, int channels, int pixels, int w, int stride, const Dense1* dense, const Csr* m,
                         const Image1& t) {
    const double work = dense ? static_cast<double>(channels) * t.rows : m->n;
    const Channels list = columns_of(*m, BY_KERNEL, channels, dense != nullptr);
    convolve1(s, n, channels, list, pixels, w, stride, work, t,
              [&](const float* x, int count, int nb, int p0) { pixels1(x, channels, count, dense, m, t, nb, p0); });
}

inline Image1 outputs1(const Op& op) {
    const int hw = op.ho * op.wo;
    return {op.out, op.layer->bias, op.o, hw, op.wo, op.wo, 1, false, op.stats, op.stats ? op.band * op.wo : 1, true,
            is_far(static_cast<long>(blocks_of(op.n)) * op.o * hw), false};
}

// Inputs are 0 where stride 2 passes them over.
inline Image1 inputs1(const Op& op) {
    if (op.sh > 1 && !op.accumulate) std::memset(op.out, 0, sizeof(float) * V * blocks_of(op.n) * op.c * op.h * op.w);
    return {op.out, nullptr, op.c, op.h * op.w, op.w, op.wo, op.sh, op.accumulate || op.sh > 1, nullptr, 1, false, false,
            op.accumulate || op.sh > 1};
}

inline void conv1_by_weight(const Op& op) {
    const Layer& l = *op.layer;
    const Dense1 dense{l.w, l.inputs, 1};
    convolve1_by_weight(ViewSource{op.a, op.n, op.c, op.h * op.w}, op.n, op.c, op.ho * op.wo, op.w, op.sh,
                        l.full ? &dense : nullptr, &l.forward, outputs1(op));
}

inline void conv1_dx_by_weight(const Op& op) {
    const Layer& l = *op.layer;
    const Dense1 dense{l.w, 1, l.inputs};
    const int pixels = op.ho * op.wo;
    convolve1_by_weight(GradSource{op.g, op.n, op.o, pixels}, op.n, op.o, pixels, op.wo, 1, l.full ? &dense : nullptr, &l.backward,
                        inputs1(op));
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

// out[c][B] += Σ over the pixels of B rows of d and C columns of x.
template <int B, int C>
EDGECL_INLINE void outer_group(const float* d, const float* x, long plane, int count, const int32_t* row, const int32_t* col,
                               float* out) {
    const float *r[B], *c[C];
    vf a[C * B];
    UNROLL(B, i) r[i] = d + row[i] * plane; END
    UNROLL(C, j) c[j] = x + col[j] * plane; END
    UNROLL(C * B, i) a[i] = vf{}; END
    for (int p = 0; p < count; p++) {
        vf g[B];
        UNROLL(B, i) g[i] = ld(r[i] + p * V); END
        UNROLL(C, j) const vf v = ld(c[j] + p * V); UNROLL(B, i) a[j * B + i] += g[i] * v; END END
    }
    constexpr int eights = C * B / 8, fours = C * B / 4;
    UNROLL(eights, i) add_sums8(a + 8 * i, out + 8 * i); END
    UNROLL(fours - 2 * eights, j)
        constexpr int i = 2 * eights + j;
        add_sums(a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3], out + 4 * i);
    END
    UNROLL(C * B - 4 * fours, i) out[4 * fours + i] += sum(a[4 * fours + i]); END
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
    for (int o = o4; o < o1; o++) {
        int k = m.rowptr[o];
        const int end = m.rowptr[o + 1];
        for (; !by_index && k + 8 <= end; k += 8) outer_group<1, 8>(d, x, plane, count, &o, m.col + k, m.w + k);
        for (; k < end; k++) m.w[by_index ? m.index[k] : k] += dot(d + o * plane, x + m.col[k] * plane, count);
    }
}

// Pixels of so many channels, of an image or as many of its pixels, that the L2 cache holds.
inline int part1(std::size_t channels, int pixels) { return even_part(512 * 1024 / (4L * V * (channels + 1)), pixels); }

inline void conv1_dw_by_weight(const Op& op) {
    const Layer& l = *op.layer;
    const Channels list = columns_of(l.updated, BY_KERNEL, op.c, l.updated.n == op.o * l.inputs);
    const int pixels = op.ho * op.wo, group = part1(list.size() + op.o, pixels);
    const GradSource ds{op.g, op.n, op.o, pixels};
    const ViewSource xs{op.a, op.n, op.c, op.h * op.w};
    parallel((op.o + 3) / 4, static_cast<double>(l.updated.n) * pixels * blocks_of(op.n), [&](long begin, long end) {
        const int o0 = static_cast<int>(begin) * 4, o1 = end * 4 < op.o ? static_cast<int>(end) * 4 : op.o;
        float* x = scratch_a.get(static_cast<std::size_t>(op.c) * group * V);
        float* d = scratch_b.get(static_cast<std::size_t>(op.o) * group * V);
        for (int nb = 0; nb < blocks_of(op.n); nb++)
            for (int p0 = 0; p0 < pixels; p0 += group) {
                const int count = pixels - p0 < group ? pixels - p0 : group;
                pack_pixels(xs, nb, list, p0, count, op.wo, op.w, op.sh, x);
                for (int o = o0; o < o1; o++) ds.row(d + static_cast<long>(o) * count * V, nb, o, p0, count, 1);
                weights1(d, x, count, l.updated, l.dense_grad != 0, l.inputs, o0, o1);
            }
    });
}

}
}
