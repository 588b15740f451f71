// 1×1 convolutions by groups of up to four rows that have the same live columns: 4×4 blocks, and whole channels. Four rows share
// each load of an input, as dense loops do.
//
// A list of groups: `rowptr` is Group[rows]; an entry of `col` is one column of a group, with its `size` weights side by side
// in `w`. Every row is in one group, those without a live weight in groups that have no columns.
#pragma once
#include "conv1.h"

namespace edgecl {
namespace EDGECL_NS {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int PIXELS = 6;  // of a tile: 24 accumulators
#else
constexpr int PIXELS = 3;
#endif

template <int B, int P>
EDGECL_INLINE void group_tile(const float* x, long plane, const Csr& m, const Group& g, const Image1& t, int nb, int p0) {
    vf acc[B * P];
    UNROLL(B * P, i) acc[i] = vf{}; END
    const float* w = m.w + g.first;
    for (int k = g.begin; k < g.end; k++, w += B) {
        const float* v = x + m.col[k] * plane;
        vf in[P];
        UNROLL(P, p) in[p] = ld(v + p * V); END
        UNROLL(B, b)
            const vf one = splat(w[b]);
            UNROLL(P, p) acc[b * P + p] += in[p] * one; END
        END
    }
    put<B, P>(t, nb, [&](int b) { return g.row[b]; }, p0, acc);
}

// A group over all pixels before the next one: its outputs lie side by side, and its list is at hand.
template <int B>
inline void group_pixels(const float* x, int count, const Csr& m, const Group& g, const Image1& t, int nb, int p0) {
    const long plane = static_cast<long>(count) * V;
    int p = 0;
    for (; p + PIXELS <= count; p += PIXELS) group_tile<B, PIXELS>(x + p * V, plane, m, g, t, nb, p0 + p);
    if (PIXELS > 4) for (; p + 4 <= count; p += 4) group_tile<B, 4>(x + p * V, plane, m, g, t, nb, p0 + p);
    for (; p < count; p++) group_tile<B, 1>(x + p * V, plane, m, g, t, nb, p0 + p);
}

inline void all_groups(const float* x, int count, const Csr& m, const Image1& t, int nb, int p0) {
    const Group* g = groups_of(m);
    for (int i = 0; i < m.rows; i++, g++) {
        if (t.partly && g->begin == g->end) continue;
        switch (g->size) {
            case 4: group_pixels<4>(x, count, m, *g, t, nb, p0); break;
            case 3: group_pixels<3>(x, count, m, *g, t, nb, p0); break;
            case 2: group_pixels<2>(x, count, m, *g, t, nb, p0); break;
            default: group_pixels<1>(x, count, m, *g, t, nb, p0);
        }
    }
}

template <class Source>
void convolve1_by_block(const Source& s, int n, int channels, int pixels, int w, int stride, const Csr& m, const Image1& t) {
    const Channels list = columns_of(m, BY_BLOCK, channels, false);
    convolve1(s, n, channels, list, pixels, w, stride, m.n, t,
              [&](const float* x, int count, int nb, int p0) { all_groups(x, count, m, t, nb, p0); });
}

inline void conv1_by_block(const Op& op) {
    convolve1_by_block(ViewSource{op.a, op.n, op.c, op.h * op.w}, op.n, op.c, op.ho * op.wo, op.w, op.sh, op.layer->forward,
                       outputs1(op));
}

inline void conv1_dx_by_block(const Op& op) {
    const int pixels = op.ho * op.wo;
    convolve1_by_block(GradSource{op.g, op.n, op.o, pixels}, op.n, op.o, pixels, op.wo, 1, op.layer->backward, inputs1(op));
}

template <int B>
inline void group_weights(const float* d, const float* x, long plane, int count, const Csr& m, const Group& g) {
    int k = g.begin;
    for (; k + 4 <= g.end; k += 4)
        outer_group<B, 4>(d, x, plane, count, g.row, m.col + k, m.w + g.first + static_cast<long>(k - g.begin) * B);
    for (; k < g.end; k++)
        outer_group<B, 1>(d, x, plane, count, g.row, m.col + k, m.w + g.first + static_cast<long>(k - g.begin) * B);
}

inline void group_weights(const float* d, const float* x, int count, const Csr& m, const Group& g) {
    const long plane = static_cast<long>(count) * V;
    switch (g.size) {
        case 4: return group_weights<4>(d, x, plane, count, m, g);
        case 3: return group_weights<3>(d, x, plane, count, m, g);
        case 2: return group_weights<2>(d, x, plane, count, m, g);
        default: return group_weights<1>(d, x, plane, count, m, g);
    }
}

inline void conv1_dw_by_block(const Op& op) {
    const Csr& m = op.layer->updated;
    const Group* groups = groups_of(m);
    const Channels list = columns_of(m, BY_BLOCK, op.c, false);
    const int pixels = op.ho * op.wo, part = part1(list.size() + op.o, pixels);
    const GradSource ds{op.g, op.n, op.o, pixels};
    const ViewSource xs{op.a, op.n, op.c, op.h * op.w};
    parallel(m.rows, static_cast<double>(m.n) * pixels * blocks_of(op.n), [&](long begin, long end) {
        float* x = scratch_a.get(static_cast<std::size_t>(op.c) * part * V);
        float* d = scratch_b.get(static_cast<std::size_t>(op.o) * part * V);
        for (int nb = 0; nb < blocks_of(op.n); nb++)
            for (int p0 = 0; p0 < pixels; p0 += part) {
                const int count = pixels - p0 < part ? pixels - p0 : part;
                const long plane = static_cast<long>(count) * V;
                pack_pixels(xs, nb, list, p0, count, op.wo, op.w, op.sh, x);
                for (const Group* g = groups + begin; g < groups + end; g++) {
                    if (g->begin == g->end) continue;
                    for (int i = 0; i < g->size; i++) ds.row(d + g->row[i] * plane, nb, g->row[i], p0, count, 1);
                    group_weights(d, x, count, m, *g);
                }
            }
    });
}

inline void conv1(const Op& op) { op.layer->unit == BY_BLOCK ? conv1_by_block(op) : conv1_by_weight(op); }

inline void conv1_dx(const Op& op) { op.layer->unit == BY_BLOCK ? conv1_dx_by_block(op) : conv1_dx_by_weight(op); }

inline void conv1_dw(const Op& op) { op.layer->updated_unit == BY_BLOCK ? conv1_dw_by_block(op) : conv1_dw_by_weight(op); }

}
}
