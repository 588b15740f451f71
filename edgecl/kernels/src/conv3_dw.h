// Weight gradient of 3×3 convolutions, of the listed kernels only: 9 accumulators over a group of tiles, then one sum a tap.
#pragma once
#include "conv3_fine_dw.h"

namespace edgecl {
namespace EDGECL_NS {

// a[9] += correlation of R×R inputs with the 4×4 gradients d.
template <int S, int R, int OFF, int CORNER = -1> EDGECL_INLINE void correlate33(const float* p, long pitch, const vf* d, vf* a) {
    UNROLL(R, r)
        const float* row = p + r * pitch;
        UNROLL(R, c)
            if constexpr (inside<CORNER>(r, c)) {
                vf x = ld(row + c * V);
                UNROLL(3, i) UNROLL(3, j)
                    constexpr int y = r + OFF - i, z = c + OFF - j;
                    if constexpr (y >= 0 && y % S == 0 && y / S < 4 && z >= 0 && z % S == 0 && z / S < 4)
                        a[i * 3 + j] += x * d[y / S * 4 + z / S];
                END END
            }
        END
    END
}

EDGECL_INLINE void add_nine(const vf* a, float* out) {
    add_sums8(a, out);
    out[8] += sum(a[8]);
}

template <Geometry G>
EDGECL_INLINE void row_of_kernels(const float* strip, long plane, long pitch, const float* d, long row, long next, int group,
                                  const Layer& l, int o, int h, int w, int y, int x) {  // d: rows `row`, tiles `next` apart
    const Csr& m = l.updated;
    using Sh = Shape33<G>;
    for (int k = m.rowptr[o]; k < m.rowptr[o + 1]; k++) {
        vf a[9];
        UNROLL(9, i) a[i] = vf{}; END
        const float* p = strip + m.col[k] * plane;
        for (int t = 0; t < group; t++) {
            vf tile[16];
            UNROLL(16, i) tile[i] = ld(d + t * next + i / 4 * row + i % 4 * V); END
            const float* at = p + static_cast<long>(t) * Sh::step * V;
            if constexpr (G == UNIT)
                by_corner(h, w, y, x + 4 * t, [&](auto corner) __attribute__((always_inline)) {
                    correlate33<1, 6, 0, decltype(corner)::value>(at, pitch, tile, a);
                });
            else correlate33<Sh::S, Sh::rows, G == WHOLE>(at, pitch, tile, a);
        }
        add_nine(a, m.w + 9L * (l.dense_grad ? m.index[k] : k));
    }
}

// The kernels of output channel o over `group` tiles: gradients d with a halo, inputs x [C][4][4 · group] without one, so that
// what only one kernel of the row reads is 16 vectors a tile and not 36. Two sums a tap, of a tile's upper and lower half:
// half as many multiply-adds wait for the one before.
template <int CORNER, int FROM> EDGECL_INLINE void correlate33_half(const float* d, long pitch, const float* x, long row, vf* a) {
    vf tile[8];
    UNROLL(8, i) tile[i] = ld(x + (FROM + i / 4) * row + i % 4 * V); END
    UNROLL(4, r) UNROLL(6, c)
        if constexpr (inside<CORNER>(r + FROM, c)) {
            const vf v = ld(d + (r + FROM) * pitch + c * V);
            UNROLL(3, i) UNROLL(3, j)
                constexpr int y = r - i, z = c - j;
                if constexpr (y >= 0 && y < 2 && z >= 0 && z < 4) a[8 - i * 3 - j] += v * tile[y * 4 + z];
            END END
        }
    END END
}

EDGECL_INLINE void row_of_turned(const float* x, const float* d, long pitch, int group, const Layer& l, int o, const Op& op,
                                 int y, int z) {
    const Csr& m = l.updated;
    const long row = 4L * group * V;
    for (int k = m.rowptr[o]; k < m.rowptr[o + 1]; k++) {
        vf a[9], b[9];
        UNROLL(9, i) a[i] = b[i] = vf{}; END
        const float* tile = x + m.col[k] * 4 * row;
        for (int t = 0; t < group; t++)
            by_corner(op.h, op.w, y, z + 4 * t, [&](auto corner) __attribute__((always_inline)) {
                correlate33_half<decltype(corner)::value, 0>(d + 4L * t * V, pitch, tile + 4L * t * V, row, a);
                correlate33_half<decltype(corner)::value, 2>(d + 4L * t * V, pitch, tile + 4L * t * V, row, b);
            });
        UNROLL(9, i) a[i] += b[i]; END
        add_nine(a, m.w + 9L * (l.dense_grad ? m.index[k] : k));
    }
}

template <Geometry G> void correlate_all(const Op& op) {
    using Sh = Shape33<G>;
    const ViewSource xs{op.a, op.n, op.c, op.h * op.w};
    const GradSource ds{op.g, op.n, op.o, op.ho * op.wo};
    const Tiles tiles = Tiles::cut<G>(op.ho, op.wo, op.c);
    const Csr& m = op.layer->updated;
    parallel(op.o, 9.0 * m.n * op.ho * op.wo * blocks_of(op.n), [&](long first, long last) {
        float* strip = scratch_a.get(static_cast<std::size_t>(op.c) * Sh::rows * Sh::cols(tiles.group) * V);
        float* d = scratch_b.get(static_cast<std::size_t>(16) * tiles.group * V);
        for (int nb = 0; nb < blocks_of(op.n); nb++)
            for (int ty = 0; ty < tiles.ty; ty++)
                for (int x = 0; x < tiles.tx; x += tiles.group) {
                    const int group = tiles.tx - x < tiles.group ? tiles.tx - x : tiles.group, cols = Sh::cols(group);
                    pack_window(xs, nb, op.c, op.h, op.w, ty * Sh::step + Sh::origin, x * Sh::step + Sh::origin, Sh::rows, cols,
                                strip);
                    const long pitch = static_cast<long>(cols) * V;
                    for (int o = static_cast<int>(first); o < last; o++) {
                        if (m.rowptr[o] == m.rowptr[o + 1]) continue;
                        const int wide = 4 * group < op.wo - 4 * x ? 4 * group : op.wo - 4 * x;
                        if (wide < 4 * group || op.ho - 4 * ty < 4) std::memset(d, 0, sizeof(float) * 16 * group * V);
                        for (int r = 0; r < 4 && ty * 4 + r < op.ho; r++)
                            ds.row(d + 4L * r * group * V, nb, o, static_cast<long>(ty * 4 + r) * op.wo + 4 * x, wide, 1);
                        row_of_kernels<G>(strip, pitch * Sh::rows, pitch, d, 4L * group * V, 4 * V, group, *op.layer, o, op.ho,
                                          op.wo, 4 * ty, 4 * x);
                    }
                }
    });
}

inline void conv3_dw_by_kernel(const Op& op) {
    if (op.sh == 2) correlate_all<HALF>(op);
    else if (op.h == 4 && op.w == 4) correlate_all<WHOLE>(op);
    else correlate_all<UNIT>(op);
}

// Both gradients in one walk over the tiles, where the strips of both fit the cache: the gradient is read and put through
// batch norm once.
template <Geometry G> void both(const Op& op) {
    using Sh = Shape33<G>;
    const ViewSource xs{op.a, op.n, op.c, op.h * op.w};
    const GradSource ds{op.g, op.n, op.o, op.h * op.w};
    const Target t{op.out, nullptr, nullptr, op.c, op.h, op.w, op.accumulate != 0, false};
    const int ty = (op.h + 3) / 4, tx = (op.w + 3) / 4, wide = both_tiles<G>(op);
    share_gradient(*op.layer, static_cast<long>(blocks_of(op.n)) * ty, both_work(op), [&](const Layer& l, long begin, long end) {
        float* x = scratch_a.get(static_cast<std::size_t>(op.c) * Sh::rows * Sh::cols(wide) * V);
        float* d = scratch_b.get(static_cast<std::size_t>(op.o) * Sh::rows * Sh::cols(wide) * V);
        for (long item = begin; item < end; item++)
            for (int z = 0; z < tx; z += wide) {
                const int nb = static_cast<int>(item / ty), y = static_cast<int>(item % ty);
                const int group = tx - z < wide ? tx - z : wide, cols = Sh::cols(group);
                const long pitch = static_cast<long>(cols) * V, plane = pitch * Sh::rows;
                const int y0 = y * 4 + Sh::origin, x0 = z * 4 + Sh::origin;
                pack_window(ds, nb, op.o, op.h, op.w, y0, x0, Sh::rows, cols, d);
                for (int c = 0; c < op.c; c++)
                    for (int i = 0; i < group; i++)
                        one_tile<G>(d + 4L * i * V, plane, pitch, l.backward, t, c, nb, y * 4, (z + i) * 4, ty);
                pack_window(xs, nb, op.c, op.h, op.w, 4 * y, 4 * z, 4, 4 * group, x);
                for (int o = 0; o < op.o; o++) {
                    if constexpr (G == UNIT) row_of_turned(x, d + o * plane, pitch, group, l, o, op, 4 * y, 4 * z);
                    else row_of_kernels<G>(x, plane, pitch, d + o * plane, pitch, 4 * V, group, l, o, op.h, op.w, 4 * y, 4 * z);
                }
            }
    });
}

inline void conv3(const Op& op) { op.layer->unit == BY_WEIGHT ? conv3_by_weight(op) : conv3_by_kernel(op); }

inline void conv3_dx(const Op& op) { op.layer->unit == BY_WEIGHT ? conv3_dx_by_weight(op) : conv3_dx_by_kernel(op); }

inline void conv3_dw(const Op& op) {
    op.layer->updated_unit == BY_WEIGHT ? conv3_dw_by_weight(op) : conv3_dw_by_kernel(op);
}

template <Geometry G> void both_of(const Op& op) {
    const Layer& l = *op.layer;
    if (l.unit == BY_WEIGHT && l.updated_unit == BY_WEIGHT) both_by_weight<G>(op);
    else both<G>(op);
}

inline void conv3_both(const Op& op) {
    const bool whole = op.h == 4 && op.w == 4, mixed = op.layer->unit != op.layer->updated_unit;  // mixed: all gradients wanted
    const bool shared = shares_gradient(*op.layer, static_cast<long>(blocks_of(op.n)) * ((op.h + 3) / 4));
    const long least = whole ? both_bytes<WHOLE>(op, 1) : both_bytes<UNIT>(op, op.w > 4 ? 2 : 1);  // of one tile: too much halo
    if (mixed || !shared || op.sh != 1 || least > BOTH_BYTES) {
        conv3_dw(op);
        conv3_dx(op);
    } else if (whole) {
        both_of<WHOLE>(op);
    } else {
        both_of<UNIT>(op);
    }
}

}
}
