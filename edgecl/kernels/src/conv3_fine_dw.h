// Weight gradient of 3×3 convolutions by single weights: for each listed weight the dot product of a tile of gradients, held in
// registers, with the inputs that its tap reads. Sums stay vectors over a group of tiles and are folded once.
#pragma once
#include "conv3_fine.h"

namespace edgecl {
namespace EDGECL_NS {

// sums[0..N) += d · inputs, for N weights side by side: as many chains of multiply-adds.
template <int S, int N> EDGECL_INLINE void dots33(const float* strip, long down, const vf* d, const int32_t* place, float* sums) {
    const float* p[N];
    vf a[N];
    UNROLL(N, j) p[j] = strip + place[j], a[j] = ld(sums + j * V); END
    UNROLL(ROWS_AT_ONCE, y)
        UNROLL(4, x) UNROLL(N, j) a[j] += d[y * 4 + x] * ld(p[j] + x * S * V); END END
        UNROLL(N, j) p[j] = below(p[j], down); END
    END
    UNROLL(N, j) st(sums + j * V, a[j]); END
}

template <int S>
EDGECL_INLINE void correlate33_rows(const float* strip, long down, const float* tile, long tile_down, const int32_t* place, int n,
                                    float* sums) {
    vf d[ROWS_AT_ONCE * 4];
    UNROLL(ROWS_AT_ONCE * 4, i) d[i] = ld(tile + i / 4 * tile_down + i % 4 * V); END
    int k = 0;
    for (; k + 4 <= n; k += 4) dots33<S, 4>(strip, down, d, place + k, sums + static_cast<long>(k) * V);
    for (; k < n; k++) dots33<S, 1>(strip, down, d, place + k, sums + static_cast<long>(k) * V);
}

// The same of tap (I + 1, J + 1) in an image of 4×4.
template <int I, int J, int N> EDGECL_INLINE void dots33_whole(const float* strip, const vf* d, const int32_t* col, float* sums) {
    const float* p[N];
    vf a[N];
    UNROLL(N, j) p[j] = strip + (col[j] >> 4) * 16L * V, a[j] = ld(sums + j * V); END
    UNROLL(16, i)
        constexpr int y = i / 4 + I, x = i % 4 + J;
        if constexpr (y >= 0 && y < 4 && x >= 0 && x < 4) {
            UNROLL(N, j) a[j] += d[i] * ld(p[j] + (y * 4 + x) * V); END
        }
    END
    UNROLL(N, j) st(sums + j * V, a[j]); END
}

EDGECL_INLINE void correlate33_whole(const float* strip, const float* tile, long down, const Csr& m, int row, float* sums) {
    vf d[16];
    UNROLL(16, i) d[i] = ld(tile + i / 4 * down + i % 4 * V); END
    const int32_t* ptr = m.rowptr + 9L * row;
    UNROLL(9, t)
        constexpr int i = TAPS[t] / 3 - 1, j = TAPS[t] % 3 - 1;
        int k = ptr[t];
        for (; k + 4 <= ptr[t + 1]; k += 4)
            dots33_whole<i, j, 4>(strip, d, m.col + k, sums + static_cast<long>(k - ptr[0]) * V);
        for (; k < ptr[t + 1]; k++) dots33_whole<i, j, 1>(strip, d, m.col + k, sums + static_cast<long>(k - ptr[0]) * V);
    END
}

// out[0..n) += the lanes' sums.
EDGECL_INLINE void fold_sums(const float* sums, int n, float* out) {
    int k = 0;
    for (; k + 4 <= n; k += 4) {
        const float* s = sums + static_cast<long>(k) * V;
        add_sums(ld(s), ld(s + V), ld(s + 2 * V), ld(s + 3 * V), out + k);
    }
    for (; k < n; k++) out[k] += sum(ld(sums + static_cast<long>(k) * V));
}

// Row o over `group` tiles: their gradients in d, rows `down` and tiles 4 vectors apart.
template <Geometry G>
EDGECL_INLINE void fine_row(const float* strip, const List33& l, const float* d, long down, int group, int o, float* sums) {
    constexpr int S = Shape33<G>::S;
    const int a = l.m.rowptr[9L * o], n = l.m.rowptr[9L * o + 9] - a;
    std::memset(sums, 0, sizeof(float) * n * V);
    for (int t = 0; t < group; t++, d += 4 * V, strip += Shape33<G>::step * V) {
        if constexpr (G == WHOLE) {
            correlate33_whole(strip, d, down, l.m, o, sums);
        } else {
            for (int y = 0; y < 4; y += ROWS_AT_ONCE)
                correlate33_rows<S>(strip + y * l.down, l.down, d + y * down, down, l.places + a, n, sums);
        }
    }
    fold_sums(sums, n, l.m.w + a);
}

inline int longest_row(const Csr& m, int rows) {
    int most = 0;
    for (int o = 0; o < rows; o++) most = m.rowptr[9L * o + 9] - m.rowptr[9L * o] > most ? m.rowptr[9L * o + 9] - m.rowptr[9L * o] : most;
    return most;
}

// A group's gradients of channel o → d [4][4 · group][V], zeros outside the image.
inline void pack_tiles(const GradSource& ds, const Op& op, int nb, int o, int y, int x, int group, float* d) {
    const int wide = at_most(op.wo - x, 4 * group);
    if (wide < 4 * group || op.ho - y < 4) std::memset(d, 0, sizeof(float) * 16 * group * V);
    for (int r = 0; r < 4 && y + r < op.ho; r++)
        ds.row(d + 4L * r * group * V, nb, o, static_cast<long>(y + r) * op.wo + x, wide, 1);
}

template <Geometry G> void fine33_dw(const Op& op) {
    using Sh = Shape33<G>;
    const ViewSource xs{op.a, op.n, op.c, op.h * op.w};
    const GradSource ds{op.g, op.n, op.o, op.ho * op.wo};
    const Tiles tiles = Tiles::cut<G>(op.ho, op.wo, op.c);
    const Csr& m = op.layer->updated;
    const int cols = Sh::cols(tiles.group), longest = longest_row(m, op.o);
    const List33 list = list33<G>(scratch_places, m, cols);
    parallel(op.o, 2.0 * m.n * op.ho * op.wo * blocks_of(op.n), [&](long first, long last) {
        float* strip = scratch_a.get(static_cast<std::size_t>(op.c) * Sh::rows * cols * V);
        float* d = scratch_b.get((static_cast<std::size_t>(16) * tiles.group + longest) * V);
        float* sums = d + 16L * tiles.group * V;
        for (int nb = 0; nb < blocks_of(op.n); nb++)
            for (int ty = 0; ty < tiles.ty; ty++)
                for (int x = 0; x < tiles.tx; x += tiles.group) {
                    const int group = at_most(tiles.tx - x, tiles.group);
                    pack_window(xs, nb, op.c, op.h, op.w, ty * Sh::step + Sh::origin, x * Sh::step + Sh::origin, Sh::rows, cols,
                                strip);
                    for (int o = static_cast<int>(first); o < last; o++) {
                        if (m.rowptr[9L * o] == m.rowptr[9L * o + 9]) continue;
                        pack_tiles(ds, op, nb, o, 4 * ty, 4 * x, group, d);
                        fine_row<G>(strip, list, d, 4L * group * V, group, o, sums);
                    }
                }
    });
}

inline void conv3_dw_by_weight(const Op& op) {
    if (op.sh == 2) fine33_dw<HALF>(op);
    else if (op.h == 4 && op.w == 4) fine33_dw<WHOLE>(op);
    else fine33_dw<UNIT>(op);
}

// Both gradients in one walk, as conv3_dw.h's `both` does for whole kernels.
template <Geometry G> void both_by_weight(const Op& op) {
    using Sh = Shape33<G>;
    const ViewSource xs{op.a, op.n, op.c, op.h * op.w};
    const GradSource ds{op.g, op.n, op.o, op.h * op.w};
    const Target t{op.out, nullptr, nullptr, op.c, op.h, op.w, op.accumulate != 0, false};
    const int ty = (op.h + 3) / 4, tx = (op.w + 3) / 4, wide = both_tiles<G>(op), cols = Sh::cols(wide);
    const long pitch = static_cast<long>(cols) * V, plane = pitch * Sh::rows;
    const List33 back = list33<G>(scratch_places, op.layer->backward, cols);
    const List33 updated = list33<G>(scratch_more_places, op.layer->updated, cols);
    const std::size_t room = static_cast<std::size_t>(op.c) * plane, longest = longest_row(updated.m, op.o);
    share_gradient(*op.layer, static_cast<long>(blocks_of(op.n)) * ty, both_work(op), [&](const Layer& l, long begin, long end) {
        const List33 own{l.updated, updated.places, updated.down};
        float *x = scratch_a.get(room + longest * V), *sums = x + room;
        float* d = scratch_b.get(static_cast<std::size_t>(op.o) * plane);
        for (long item = begin; item < end; item++)
            for (int z = 0; z < tx; z += wide) {
                const int nb = static_cast<int>(item / ty), y = static_cast<int>(item % ty), group = at_most(tx - z, wide);
                const int y0 = y * 4 + Sh::origin, x0 = z * 4 + Sh::origin;
                pack_window(ds, nb, op.o, op.h, op.w, y0, x0, Sh::rows, cols, d);
                for (int i = 0; i < group; i++)
                    for (int c = 0; c < op.c; c++) fine_tile<G>(d + 4L * i * V, back, t, c, nb, y * 4, (z + i) * 4, ty);
                pack_window(xs, nb, op.c, op.h, op.w, y0, x0, Sh::rows, cols, x);
                const float* inner = d - Sh::origin * (pitch + V);
                for (int o = 0; o < op.o; o++) fine_row<G>(x, own, inner + o * plane, pitch, group, o, sums);
            }
    });
}

}
}
