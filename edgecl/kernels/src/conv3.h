// 3×3 convolutions by whole kernels: padding 1, stride 1 or 2. A kernel of one (out, in) pair is 9 weights in registers over
// a tile of 4×4 outputs in 16 accumulators: 45 loads for 144 multiply-adds of V samples each. Lists of live kernels (CSR)
// say which are run, so a masked kernel costs nothing.
#pragma once
#include "load.h"
#include "pool.h"

namespace edgecl {
namespace EDGECL_NS {

// Whether a corner tile's packed input (r, c) can be other than 0.
template <int CORNER> constexpr bool inside(int r, int c) {
    return CORNER < 0 || (r != (CORNER / 2 ? 5 : 0) && c != (CORNER % 2 ? 5 : 0));
}

// f(integral constant) for the corner that tile (y, x) of an image of h × w is.
template <class F> EDGECL_INLINE void by_corner(int h, int w, int y, int x, F&& f) {
    if (h != 8 || w != 8) return f(std::integral_constant<int, -1>{});
    switch (y / 4 * 2 + x / 4) {
        case 0: return f(std::integral_constant<int, 0>{});
        case 1: return f(std::integral_constant<int, 1>{});
        case 2: return f(std::integral_constant<int, 2>{});
        default: return f(std::integral_constant<int, 3>{});
    }
}

// acc[4×4] += the n kernels, each over R×R inputs of its channel; OFF is 1 where the tile has no zeros packed around it.
// A whole row and column of zeros are passed over in the corners of an image of 8×8 (CORNER 0..3; −1: no corner).
template <int S, int R, int OFF, int CORNER = -1>
EDGECL_INLINE void kernels33(const float* strip, long plane, long pitch, const int32_t* col, const float* w, int n, vf* acc) {
    for (int k = 0; k < n; k++) {
        const float* p = strip + col[k] * plane;
        const float* wk = w + 9L * k;
        vf b[9];
        UNROLL(9, i) b[i] = splat(wk[i]); END
        UNROLL(R, r)
            const float* row = p + r * pitch;
            UNROLL(R, c)
                if constexpr (inside<CORNER>(r, c)) {
                    vf x = ld(row + c * V);
                    UNROLL(3, i) UNROLL(3, j)
                        constexpr int y = r + OFF - i, z = c + OFF - j;
                        if constexpr (y >= 0 && y % S == 0 && y / S < 4 && z >= 0 && z % S == 0 && z / S < 4)
                            acc[y / S * 4 + z / S] += x * b[i * 3 + j];
                    END END
                }
            END
        END
    }
}

// Input gradient of stride 2: a tile of 4×4 inputs, at even places, from 3×3 outputs.
EDGECL_INLINE void kernels33_up(const float* strip, long plane, long pitch, const int32_t* col, const float* w, int n, vf* acc) {
    for (int k = 0; k < n; k++) {
        const float* p = strip + col[k] * plane;
        const float* wk = w + 9L * k;
        vf b[9];
        UNROLL(9, i) b[i] = splat(wk[i]); END
        UNROLL(3, r) UNROLL(3, c)
            vf d = ld(p + r * pitch + c * V);
            UNROLL(3, i) UNROLL(3, j)
                constexpr int y = 2 * r - 1 + i, z = 2 * c - 1 + j;
                if constexpr (y >= 0 && y < 4 && z >= 0 && z < 4) acc[y * 4 + z] += d * b[i * 3 + j];
            END END
        END END
    }
}

enum Geometry { UNIT, HALF, WHOLE, UP };  // stride 1; stride 2; stride 1 on an image of 4×4; the transpose of HALF

template <Geometry G> struct Shape33 {
    static constexpr int S = G == HALF ? 2 : 1;
    static constexpr int rows = G == UNIT ? 6 : G == HALF ? 9 : G == WHOLE ? 4 : 3;
    static constexpr int step = G == UP ? 2 : 4 * S;  // inputs from one tile to the next
    static constexpr int origin = G == UNIT || G == HALF ? -1 : 0;
    static int cols(int tiles) { return rows + step * (tiles - 1); }
};

struct Tiles {  // how an image of h × w outputs is cut
    int ty, tx, group;
    template <Geometry G> static Tiles cut(int h, int w, int channels) {
        Tiles t{(h + 3) / 4, (w + 3) / 4, 1};
        while (t.group < t.tx && t.group < 8 &&
               4L * V * channels * Shape33<G>::rows * Shape33<G>::cols(t.group * 2) <= STRIP_BYTES) t.group *= 2;
        if (t.group > t.tx) t.group = t.tx;
        return t;
    }
};

// f(part's layer, begin, end) for each thread's share of `items` that add to one weight gradient: each part but the first has a
// gradient of its own, added at the end in order, so that the bits hang on the number of threads alone.
inline thread_local Scratch scratch_gradients;

template <class F> void share_gradient(const Layer& l, long items, double work, F&& f) {
    const int parts = threads();
    const long size = static_cast<long>(l.updated.n) * l.taps;
    float* rest = scratch_gradients.get(static_cast<std::size_t>(size) * (parts - 1) + 1);
    std::memset(rest, 0, sizeof(float) * size * (parts - 1));
    parallel(parts, work, [&](long first, long last) {
        for (long part = first; part < last; part++) {
            Layer own = l;
            if (part) own.updated.w = rest + (part - 1) * size;
            f(own, items * part / parts, items * (part + 1) / parts);
        }
    });
    for (int part = 1; part < parts; part++, rest += size)
        for (long k = 0; k < size; k++) l.updated.w[k] += rest[k];
}

// Whether items can be shared so: not if all gradients are wanted, dead weights' too, nor if threads would go idle.
inline bool shares_gradient(const Layer& l, long items) {
    return threads() == 1 || (!l.dense_grad && (items % threads() == 0 || items >= 4L * threads()));
}

constexpr long BOTH_BYTES = 704 * 1024;  // of packed inputs and gradients together

template <Geometry G> long both_bytes(const Op& op, int group) {
    return 4L * V * (op.c * 16L * group + static_cast<long>(op.o) * Shape33<G>::rows * Shape33<G>::cols(group));
}

inline double both_work(const Op& op) {
    return static_cast<double>(op.layer->backward.n + op.layer->updated.n) * op.layer->taps * op.h * op.w * blocks_of(op.n);
}

template <Geometry G> int both_tiles(const Op& op) {  // side by side in one strip
    int wide = 1;
    while (wide < (op.w + 3) / 4 && wide < 8 && both_bytes<G>(op, wide * 2) <= BOTH_BYTES) wide *= 2;
    return wide;
}

// Merges a tile's values into the mean and squared deviations of its band of rows, sample by sample (Chan et al. 1979).
EDGECL_INLINE void add_stats(const vf* acc, int rows, int cols, int before, float* stats) {
    vf total{}, square{};
    const int count = rows * cols;
    if (count == 16) {
        UNROLL(16, i) total += acc[i]; END
    } else {
        for (int y = 0; y < rows; y++) for (int x = 0; x < cols; x++) total += acc[y * 4 + x];
    }
    vf mean = total * (1.f / count);
    if (count == 16) {
        UNROLL(16, i) vf d = acc[i] - mean; square += d * d; END
    } else {
        for (int y = 0; y < rows; y++) for (int x = 0; x < cols; x++) { vf d = acc[y * 4 + x] - mean; square += d * d; }
    }
    if (before) {
        vf old = ld(stats), d = mean - old;
        square += ld(stats + V) + d * d * (static_cast<float>(before) * count / (before + count));
        mean = old + d * (static_cast<float>(count) / (before + count));
    }
    st(stats, mean);
    st(stats + V, square);
}

struct Target {  // where tiles of `rows` channels go
    float* out;
    const float* bias;
    float* stats;
    int rows, h, w;
    bool accumulate;
    bool stored;  // activations, rounded if those are halves; not gradients
};

// The first rows × cols of a tile as activations at `out`; acc becomes what is read back, so that statistics are of that.
EDGECL_INLINE void store_tile(cell* out, long gap, int rows, int cols, vf* acc) {
    UNROLL(16, i) acc[i] = rounded(acc[i]); END
    if (rows == 4 && cols == 4) {
        UNROLL(16, i) st(out + i / 4 * gap + i % 4 * V, acc[i]); END
        return;
    }
    vf copy[16];
    UNROLL(16, i) copy[i] = acc[i]; END
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) st(out + r * gap + c * V, copy[r * 4 + c]);
}

template <Geometry G>
EDGECL_INLINE void one_tile(const float* strip, long plane, long pitch, const Csr& m, const Target& t, int o, int nb, int y, int x,
                            int bands) {
    const long place = ((static_cast<long>(nb) * t.rows + o) * t.h * t.w + static_cast<long>(y) * t.w + x) * V;
    float* out = t.out + place;
    const long gap = static_cast<long>(t.w) * V;
    const int rows = t.h - y < 4 ? t.h - y : 4, cols = t.w - x < 4 ? t.w - x : 4;
    const bool filled = rows == 4 && cols == 4;
    vf acc[16];
    if (t.accumulate && filled) {
        UNROLL(16, i) acc[i] = ld(out + i / 4 * gap + i % 4 * V); END
    } else {
        vf first = splat(t.bias ? t.bias[o] : 0.f);
        UNROLL(16, i) acc[i] = first; END
    }
    if (filled && o + 1 < t.rows && !(HALVES && t.stored)) {  // the next channel's tile: its lines come while this one is computed
        const float* next = out + static_cast<long>(t.h) * gap;
        UNROLL(16, i) __builtin_prefetch(next + i / 4 * gap + i % 4 * V, 1); END
    }
    const int a = m.rowptr[o], n = m.rowptr[o + 1] - a;
    if constexpr (G == UP) kernels33_up(strip, plane, pitch, m.col + a, m.w + 9L * a, n, acc);
    else if constexpr (G == UNIT)
        by_corner(t.h, t.w, y, x, [&](auto corner) __attribute__((always_inline)) {
            kernels33<1, 6, 0, decltype(corner)::value>(strip, plane, pitch, m.col + a, m.w + 9L * a, n, acc);
        });
    else kernels33<Shape33<G>::S, Shape33<G>::rows, G == WHOLE>(strip, plane, pitch, m.col + a, m.w + 9L * a, n, acc);
    if (HALVES && t.stored) {
        store_tile(cells(t.out) + place, gap, rows, cols, acc);
    } else if (filled) {
        UNROLL(16, i) st(out + i / 4 * gap + i % 4 * V, acc[i]); END
    } else {
        vf copy[16];
        UNROLL(16, i) copy[i] = acc[i]; END
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < cols; c++) {
                float* at = out + r * gap + c * V;
                st(at, t.accumulate ? ld(at) + copy[r * 4 + c] : copy[r * 4 + c]);
            }
    }
    if (t.stats) {
        float* s = t.stats + ((static_cast<long>(nb) * bands + y / 4) * t.rows + o) * 2 * V;
        if (filled) {
            add_stats(acc, 4, 4, 4 * x, s);
        } else {
            vf copy[16];
            UNROLL(16, i) copy[i] = acc[i]; END
            add_stats(copy, rows, cols, rows * x, s);
        }
    }
}

// out[rows] = Σ kernels of m over `channels` of an image of ih × iw.
template <Geometry G, class Source>
void convolve33(const Source& source, int n, int channels, int ih, int iw, const Csr& m, const Target& t) {
    using Sh = Shape33<G>;
    const Tiles tiles = Tiles::cut<G>(t.h, t.w, channels);
    const long items = static_cast<long>(blocks_of(n)) * tiles.ty;
    const int parts = threads() > 1 && items < 4L * threads() && t.rows >= 8 ? 4 : 1;  // of the channels
    parallel(items * parts, 9.0 * m.n * t.h * t.w * blocks_of(n), [&](long begin, long end) {
        float* strip = scratch_a.get(static_cast<std::size_t>(channels) * Sh::rows * Sh::cols(tiles.group) * V);
        for (long item = begin; item < end; item++) {
            const int part = static_cast<int>(item % parts), ty = static_cast<int>(item / parts % tiles.ty);
            const int nb = static_cast<int>(item / parts / tiles.ty);
            for (int x = 0; x < tiles.tx; x += tiles.group) {
                const int group = tiles.tx - x < tiles.group ? tiles.tx - x : tiles.group, cols = Sh::cols(group);
                pack_window(source, nb, channels, ih, iw, ty * Sh::step + Sh::origin, x * Sh::step + Sh::origin, Sh::rows, cols,
                            strip);
                const long pitch = static_cast<long>(cols) * V, plane = pitch * Sh::rows;
                for (int o = t.rows * part / parts; o < t.rows * (part + 1) / parts; o++)
                    for (int i = 0; i < group; i++)
                        one_tile<G>(strip + static_cast<long>(i) * Sh::step * V, plane, pitch, m, t, o, nb, ty * 4, (x + i) * 4,
                                    tiles.ty);
            }
        }
    });
}

inline void conv3_by_kernel(const Op& op) {
    ViewSource s{op.a, op.n, op.c, op.h * op.w};
    Target t{op.out, op.layer->bias, op.stats, op.o, op.ho, op.wo, false, true};
    const Csr& m = op.layer->forward;
    if (op.sh == 2) convolve33<HALF>(s, op.n, op.c, op.h, op.w, m, t);
    else if (op.h == 4 && op.w == 4) convolve33<WHOLE>(s, op.n, op.c, 4, 4, m, t);
    else convolve33<UNIT>(s, op.n, op.c, op.h, op.w, m, t);
}

inline void conv3_dx_by_kernel(const Op& op) {
    GradSource s{op.g, op.n, op.o, op.ho * op.wo};
    Target t{op.out, nullptr, nullptr, op.c, op.h, op.w, op.accumulate != 0, false};
    const Csr& m = op.layer->backward;
    if (op.sh == 2) convolve33<UP>(s, op.n, op.o, op.ho, op.wo, m, t);
    else if (op.h == 4 && op.w == 4) convolve33<WHOLE>(s, op.n, op.o, 4, 4, m, t);
    else convolve33<UNIT>(s, op.n, op.o, op.ho, op.wo, m, t);
}

}
}
