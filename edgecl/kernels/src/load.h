// Reading an activation or a gradient on its way into a tile.
#pragma once
#include "abi.h"
#include "cell.h"
#include <limits>

namespace edgecl {
namespace EDGECL_NS {

constexpr long STRIP_BYTES = 448 * 1024;  // of packed input that should stay in a core's L2 cache

EDGECL_INLINE bool blocked(const float* k, int c) { return k[4L * c] == 0 && k[4L * c + 1] == 0 && k[4L * c + 2] == 0; }

EDGECL_INLINE float upper(float hi) { return hi > 0 ? hi : std::numeric_limits<float>::infinity(); }

// row(dst, nb, c, pixel, count, step, ahead): `count` vectors from pixel on, `step` apart; channel c + ahead comes next.
struct ViewSource {
    View v;
    int n, c, hw;

    EDGECL_INLINE vf low(const View& v) { return splat(v.relu ? 0.f : -std::numeric_limits<float>::infinity()); }
    EDGECL_INLINE vf high(const View& v) { return splat(upper(v.relu ? v.hi : 0.f)); }

    inline void row(float* dst, int nb, int ch, long pixel, int count, int step, int ahead = 1) const {
        const cell* x = cells(v.x) + ((static_cast<long>(nb) * c + ch) * hw + pixel) * V;
        const long next = static_cast<long>(hw) * ahead * V;  // the channel that is read next: fetched ahead
        if (!v.scale && !v.relu) {
            for (int i = 0; i < count; i++) {
                __builtin_prefetch(x + static_cast<long>(i) * step * V + next);
                st(dst + i * V, ld(x + static_cast<long>(i) * step * V));
            }
            return;
        }
        vf scale = splat(v.scale ? v.scale[ch] : 1.f), shift = splat(v.scale ? v.shift[ch] : 0.f), lo = low(v), hi = high(v);
        vi lanes = lanes_of(n, nb);
        if (v.scale && v.scale[ch] == 0) {  // one value, whatever is stored
            const vf y = keep(clamp(shift, lo, hi), lanes);
            for (int i = 0; i < count; i++) st(dst + i * V, y);
            return;
        }
        for (int i = 0; i < count; i++) {
            __builtin_prefetch(x + static_cast<long>(i) * step * V + next);
            vf y = ld(x + static_cast<long>(i) * step * V) * scale + shift;
            st(dst + i * V, keep(clamp(y, lo, hi), lanes));
        }
    }
};

struct GradSource {
    Grad g;
    int n, c, hw;

    template <bool MASK, bool NORM> inline void fill(float* dst, int nb, int ch, long at, long gap, int count, int ahead) const {
        const float* d = g.d + at;
        const cell *m = MASK ? cells(g.mask) + at : nullptr, *s = NORM ? cells(g.s) + at : nullptr;
        vf scale = splat(MASK && g.mscale ? g.mscale[ch] : 1.f), shift = splat(MASK && g.mscale ? g.mshift[ch] : 0.f);
        const float* k = NORM ? g.k + 4L * ch : nullptr;
        vf ka{}, kb{}, kc{}, mean{}, hi = splat(upper(g.hi));
        if (NORM) ka = splat(k[0]), kb = splat(k[1]), kc = splat(k[2]), mean = splat(k[3]);
        const vi lanes = lanes_of(n, nb);
        const long next = static_cast<long>(hw) * ahead * V;
        for (int i = 0; i < count; i++) {
            __builtin_prefetch(d + i * gap + next);
            if (MASK) __builtin_prefetch(m + i * gap + next);
            if (NORM && (!MASK || s != m)) __builtin_prefetch(s + i * gap + next);
            vf z = ld(d + i * gap);
            if (MASK) z = open(z, ld(m + i * gap) * scale + shift, hi);
            if (NORM) z = keep(z * ka + ((ld(s + i * gap) - mean) * kb + kc), lanes);
            st(dst + i * V, z);
        }
    }

    // Whether batch norm lets nothing through: where no live weight reads its channel. The gradient is then not read at all.
    inline bool none(int ch) const { return g.s && blocked(g.k, ch); }

    inline void row(float* dst, int nb, int ch, long pixel, int count, int step, int ahead = 1) const {
        if (none(ch)) {
            std::memset(dst, 0, sizeof(float) * count * V);
            return;
        }
        const long at = ((static_cast<long>(nb) * c + ch) * hw + pixel) * V, gap = static_cast<long>(step) * V;
        if (g.mask && g.s) fill<true, true>(dst, nb, ch, at, gap, count, ahead);
        else if (g.s) fill<false, true>(dst, nb, ch, at, gap, count, ahead);
        else if (g.mask) fill<true, false>(dst, nb, ch, at, gap, count, ahead);
        else fill<false, false>(dst, nb, ch, at, gap, count, ahead);
    }
};

// One channel of the window (y0, x0) of rows × cols into dst [rows][cols][V], zeros outside the h × w image.
template <class Source>
inline void pack_plane(const Source& s, int nb, int ch, int h, int w, int y0, int x0, int rows, int cols, float* dst) {
    int left = x0 < 0 ? -x0 : 0, right = x0 + cols > w ? x0 + cols - w : 0;
    left = left < cols ? left : cols;
    right = right < cols - left ? right : cols - left;
    const int middle = cols - left - right;
    for (int r = 0; r < rows; r++, dst += static_cast<long>(cols) * V) {
        const int y = y0 + r;
        if (y < 0 || y >= h || middle <= 0) {
            std::memset(dst, 0, sizeof(float) * cols * V);
            continue;
        }
        if (left) std::memset(dst, 0, sizeof(float) * left * V);
        s.row(dst + left * V, nb, ch, static_cast<long>(y) * w + x0 + left, middle, 1);
        if (right) std::memset(dst + static_cast<long>(left + middle) * V, 0, sizeof(float) * right * V);
    }
}

// Channels [0, c) of the window, one after the other.
template <class Source>
inline void pack_window(const Source& s, int nb, int channels, int h, int w, int y0, int x0, int rows, int cols, float* dst) {
    const long plane = static_cast<long>(rows) * cols * V;
    for (int ch = 0; ch < channels; ch++, dst += plane) pack_plane(s, nb, ch, h, w, y0, x0, rows, cols, dst);
}

}
}
