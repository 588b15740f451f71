// 3×3 convolutions by single weights: padding 1, stride 1 or 2. A weight is one multiply-add for each of a tile's 16
// accumulators, with its input read from the packed strip: one load a multiply-add is the bound, where whole kernels need a
// third of one. Worth it where few of a kernel's nine weights live.
//
// A list of single weights is ordered by row, then by tap in the order TAPS, then by channel: `rowptr` has nine entries a
// row. `col` is channel · 16 + tap; a tap says which of the strip's rows and columns is read.
#pragma once
#include "conv3.h"

namespace edgecl {
namespace EDGECL_NS {

// The four that the input gradient of stride 2 needs for an even or odd row and column lie together.
constexpr int TAPS[9] = {4, 3, 5, 1, 7, 0, 2, 6, 8};

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS_AT_ONCE = 4;  // of a tile: 16 accumulators want 32 registers
#else
constexpr int ROWS_AT_ONCE = 2;
#endif

// Where each weight of a list reads first in a strip: found once an operation, since its strips are all alike.
inline thread_local Scratch scratch_places, scratch_more_places;

template <class F> const int32_t* places_of(Scratch& room, const Csr& m, long plane, F&& tap) {
    auto* places = reinterpret_cast<int32_t*>(room.get(static_cast<std::size_t>(m.n) + 1));
    long first[9];
    for (int t = 0; t < 9; t++) first[t] = tap(t / 3, t % 3);
    for (int k = 0; k < m.n; k++) places[k] = static_cast<int32_t>((m.col[k] >> 4) * plane + first[m.col[k] & 15]);
    return places;
}

// A row's address in a register of its own: otherwise offsets are kept for all rows, which are more than there are registers.
EDGECL_INLINE const float* below(const float* p, long down) {
    p += down;
    asm("" : "+r"(p));
    return p;
}

// acc[rows Y.. of 4×4] += the n weights, each times its inputs, which lie `down` and S vectors apart.
template <int S, int Y>
EDGECL_INLINE void weights33_rows(const float* strip, long down, const int32_t* place, const float* w, int n, vf* acc) {
    for (int k = 0; k < n; k++) {
        const float* p = strip + place[k];
        const vf b = splat(w[k]);
        UNROLL(ROWS_AT_ONCE, y)
            UNROLL(4, x) acc[(Y + y) * 4 + x] += b * ld(p + x * S * V); END
            p = below(p, down);
        END
    }
}

template <int S>
EDGECL_INLINE void weights33(const float* strip, long down, const int32_t* place, const float* w, int n, vf* acc) {
    weights33_rows<S, 0>(strip, down, place, w, n, acc);
    if constexpr (ROWS_AT_ONCE == 2) weights33_rows<S, 2>(strip + 2 * down, down, place, w, n, acc);
}

// Of an image of 4×4: no zeros are packed around it, and each tap reads what there is.
EDGECL_INLINE void weights33_whole(const float* strip, const Csr& m, int row, vf* acc) {
    const int32_t* ptr = m.rowptr + 9L * row;
    UNROLL(9, t)
        constexpr int i = TAPS[t] / 3 - 1, j = TAPS[t] % 3 - 1;
        for (int k = ptr[t]; k < ptr[t + 1]; k++) {
            const float* p = strip + (m.col[k] >> 4) * 16L * V;
            const vf b = splat(m.w[k]);
            UNROLL(16, a)
                constexpr int y = a / 4 + i, x = a % 4 + j;
                if constexpr (y >= 0 && y < 4 && x >= 0 && x < 4) acc[a] += b * ld(p + (y * 4 + x) * V);
            END
        }
    END
}

struct Patch {  // where a tile's 4×4 values go: rows and columns so far apart, the first `rows` × `cols` of them within the image
    float* at;
    long down, right;
    int rows, cols;
    inline bool filled() const { return rows == 4 && cols == 4; }
};

EDGECL_INLINE void take(const Patch& t, bool accumulate, float first, vf* acc) {
    if (!accumulate || !t.filled()) {
        UNROLL(16, i) acc[i] = splat(first); END
        return;
    }
    UNROLL(16, i) acc[i] = ld(t.at + i / 4 * t.down + i % 4 * t.right); END
}

EDGECL_INLINE void give(const Patch& t, bool accumulate, const vf* acc) {
    if (t.filled()) {
        UNROLL(16, i) st(t.at + i / 4 * t.down + i % 4 * t.right, acc[i]); END
        return;
    }
    vf copy[16];
    UNROLL(16, i) copy[i] = acc[i]; END
    for (int y = 0; y < t.rows; y++)
        for (int x = 0; x < t.cols; x++) {
            float* at = t.at + y * t.down + x * t.right;
            st(at, accumulate ? ld(at) + copy[y * 4 + x] : copy[y * 4 + x]);
        }
}

EDGECL_INLINE void tile_stats(const Patch& t, const vf* acc, int before, float* stats) {
    if (t.filled()) return add_stats(acc, 4, 4, before, stats);
    vf copy[16];
    UNROLL(16, i) copy[i] = acc[i]; END
    add_stats(copy, t.rows, t.cols, before, stats);
}

EDGECL_INLINE int at_most(int n, int most) { return n < most ? n : most; }

struct List33 {  // a list and where its weights read
    const Csr& m;
    const int32_t* places;
    long down;  // from one row of a tile's inputs to the next
};

// The list of strips of `cols` columns.
template <Geometry G> List33 list33(Scratch& room, const Csr& m, int cols) {
    const long pitch = static_cast<long>(cols) * V;
    if (G == WHOLE) return {m, nullptr, pitch};
    const auto tap = [&](int i, int j) { return i * pitch + static_cast<long>(j) * V; };
    return {m, places_of(room, m, pitch * Shape33<G>::rows, tap), pitch * Shape33<G>::S};
}

// One tile of row o at (y, x).
template <Geometry G>
EDGECL_INLINE void fine_tile(const float* strip, const List33& l, const Target& t, int o, int nb, int y, int x, int bands) {
    const long place = ((static_cast<long>(nb) * t.rows + o) * t.h * t.w + static_cast<long>(y) * t.w + x) * V;
    const Patch patch{t.out + place, static_cast<long>(t.w) * V, V, at_most(t.h - y, 4), at_most(t.w - x, 4)};
    vf acc[16];
    take(patch, t.accumulate, t.bias ? t.bias[o] : 0.f, acc);
    const int a = l.m.rowptr[9L * o], n = l.m.rowptr[9L * o + 9] - a;
    if constexpr (G == WHOLE) weights33_whole(strip, l.m, o, acc);
    else weights33<Shape33<G>::S>(strip, l.down, l.places + a, l.m.w + a, n, acc);
    if (HALVES && t.stored) store_tile(cells(t.out) + place, patch.down, patch.rows, patch.cols, acc);
    else give(patch, t.accumulate, acc);
    if (t.stats)
        tile_stats(patch, acc, patch.rows * x, t.stats + ((static_cast<long>(nb) * bands + y / 4) * t.rows + o) * 2 * V);
}

template <Geometry G, class Source>
void fine33(const Source& source, int n, int channels, int ih, int iw, const Csr& m, const Target& t) {
    using Sh = Shape33<G>;
    const Tiles tiles = Tiles::cut<G>(t.h, t.w, channels);
    const int cols = Sh::cols(tiles.group);
    const List33 list = list33<G>(scratch_places, m, cols);
    const long items = static_cast<long>(blocks_of(n)) * tiles.ty;
    const int parts = threads() > 1 && items < 4L * threads() && t.rows >= 8 ? 4 : 1;  // of the channels
    parallel(items * parts, 2.0 * m.n * t.h * t.w * blocks_of(n), [&](long begin, long end) {
        float* strip = scratch_a.get(static_cast<std::size_t>(channels) * Sh::rows * cols * V);
        for (long item = begin; item < end; item++) {
            const int part = static_cast<int>(item % parts), ty = static_cast<int>(item / parts % tiles.ty);
            const int nb = static_cast<int>(item / parts / tiles.ty);
            for (int x = 0; x < tiles.tx; x += tiles.group) {
                pack_window(source, nb, channels, ih, iw, ty * Sh::step + Sh::origin, x * Sh::step + Sh::origin, Sh::rows, cols,
                            strip);
                for (int i = 0; i < at_most(tiles.tx - x, tiles.group); i++)
                    for (int o = t.rows * part / parts; o < t.rows * (part + 1) / parts; o++)
                        fine_tile<G>(strip + static_cast<long>(i) * Sh::step * V, list, t, o, nb, ty * 4, (x + i) * 4, tiles.ty);
            }
        }
    });
}

// Input gradient of stride 2: 8×8 inputs at even places, from 5×5 outputs, as four tiles of every other row and column.
constexpr int UP_ROWS = 5;
constexpr int LATTICE[5] = {0, 1, 3, 5, 9};  // where in TAPS the taps of (even, even), (even, odd), (odd, even), (odd, odd) begin

EDGECL_INLINE void up_tiles(const float* strip, const List33& l, const Target& t, int c, int nb, int y, int x) {
    for (int lattice = 0; lattice < 4; lattice++) {
        const int py = y + lattice / 2, px = x + lattice % 2;
        if (py >= t.h || px >= t.w) continue;
        float* out = t.out + ((static_cast<long>(nb) * t.rows + c) * t.h * t.w + static_cast<long>(py) * t.w + px) * V;
        const Patch patch{out, 2L * t.w * V, 2 * V, at_most((t.h - py + 1) / 2, 4), at_most((t.w - px + 1) / 2, 4)};
        const int a = l.m.rowptr[9L * c + LATTICE[lattice]], n = l.m.rowptr[9L * c + LATTICE[lattice + 1]] - a;
        vf acc[16];
        take(patch, t.accumulate, 0.f, acc);
        weights33<1>(strip, l.down, l.places + a, l.m.w + a, n, acc);
        give(patch, t.accumulate, acc);
    }
}

inline void fine33_up(const GradSource& source, const Op& op, const Target& t) {
    const int ty = (t.h + 7) / 8, tx = (t.w + 7) / 8;
    const Csr& m = op.layer->backward;
    const long pitch = UP_ROWS * V, plane = pitch * UP_ROWS;
    const auto tap = [&](int i, int j) { return (i == 0 ? pitch : 0) + (j == 0 ? V : 0); };  // an early tap reads a later output
    const List33 list{m, places_of(scratch_places, m, plane, tap), pitch};
    parallel(static_cast<long>(blocks_of(op.n)) * ty * tx, 2.0 * m.n * op.ho * op.wo * blocks_of(op.n), [&](long begin, long end) {
        float* strip = scratch_a.get(static_cast<std::size_t>(op.o) * plane);
        for (long item = begin; item < end; item++) {
            const int x = static_cast<int>(item % tx) * 8, y = static_cast<int>(item / tx % ty) * 8;
            const int nb = static_cast<int>(item / tx / ty);
            pack_window(source, nb, op.o, op.ho, op.wo, y / 2, x / 2, UP_ROWS, UP_ROWS, strip);
            for (int c = 0; c < op.c; c++) up_tiles(strip, list, t, c, nb, y, x);
        }
    });
}

inline void conv3_by_weight(const Op& op) {
    const ViewSource s{op.a, op.n, op.c, op.h * op.w};
    const Target t{op.out, op.layer->bias, op.stats, op.o, op.ho, op.wo, false, true};
    const Csr& m = op.layer->forward;
    if (op.sh == 2) fine33<HALF>(s, op.n, op.c, op.h, op.w, m, t);
    else if (op.h == 4 && op.w == 4) fine33<WHOLE>(s, op.n, op.c, 4, 4, m, t);
    else fine33<UNIT>(s, op.n, op.c, op.h, op.w, m, t);
}

inline void conv3_dx_by_weight(const Op& op) {
    const GradSource s{op.g, op.n, op.o, op.ho * op.wo};
    const Target t{op.out, nullptr, nullptr, op.c, op.h, op.w, op.accumulate != 0, false};
    const Csr& m = op.layer->backward;
    if (op.sh == 2) fine33_up(s, op, t);
    else if (op.h == 4 && op.w == 4) fine33<WHOLE>(s, op.n, op.o, 4, 4, m, t);
    else fine33<UNIT>(s, op.n, op.o, op.h, op.w, m, t);
}

}
}
