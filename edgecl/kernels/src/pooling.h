// Pooling: of windows that may hang over the edge, or (kernel 0) of the whole image.
#pragma once
#include "load.h"
#include "pool.h"

namespace edgecl {
namespace EDGECL_NS {

struct Window {  // the part of one that lies on the image, and the number of its output
    int y0, y1, x0, x1;
    long o;
};

template <class F> EDGECL_INLINE void each_window(const Op& op, F&& f) {
    for (int y = 0; y < op.ho; y++)
        for (int x = 0; x < op.wo; x++) {
            const int top = y * op.sh - op.ph, left = x * op.sw - op.pw, bottom = top + op.kh, right = left + op.kw;
            f(Window{top > 0 ? top : 0, bottom < op.h ? bottom : op.h, left > 0 ? left : 0, right < op.w ? right : op.w,
                     (static_cast<long>(y) * op.wo + x) * V});
        }
}

// f(place of a vector in the plane), row by row.
template <class F> EDGECL_INLINE void each_tap(const Op& op, const Window& a, F&& f) {
    for (int y = a.y0; y < a.y1; y++)
        for (int x = a.x0; x < a.x1; x++) f((static_cast<long>(y) * op.w + x) * V);
}

// f(plane of the input, its place, the output's place) for every plane.
template <class F> inline void planes(const Op& op, F&& f) {
    const int hw = op.h * op.w;
    const ViewSource s{op.a, op.n, op.c, hw};
    parallel(static_cast<long>(blocks_of(op.n)) * op.c, 8.0 * blocks_of(op.n) * op.c * hw, [&](long begin, long end) {
        float* x = scratch_a.get(static_cast<std::size_t>(hw) * V);
        for (long i = begin; i < end; i++) {
            if (op.a.x) s.row(x, static_cast<int>(i / op.c), static_cast<int>(i % op.c), 0, hw, 1);
            f(x, i * hw * V, i * op.ho * op.wo * V);
        }
    });
}

EDGECL_INLINE vf greater(vf a, vf b) { return (a > b) | (a != a) ? a : b; }  // NaN stays

EDGECL_INLINE vf largest(const Op& op, const float* x, const Window& a) {
    vf best = splat(-std::numeric_limits<float>::infinity());
    each_tap(op, a, [&](long i) { best = greater(ld(x + i), best); });
    return best;
}

inline void max_pool(const Op& op) {
    planes(op, [&](const float* x, long, long out) {
        each_window(op, [&](const Window& a) { st(cells(op.out) + out + a.o, largest(op, x, a)); });
    });
}

// To the first of equal maxima, as torch does.
inline void max_pool_dx(const Op& op) {
    planes(op, [&](const float* x, long in, long out) {
        float* dx = op.out + in;
        if (!op.accumulate) std::memset(dx, 0, sizeof(float) * op.h * op.w * V);
        each_window(op, [&](const Window& a) {
            vf best = largest(op, x, a), d = ld(op.g.d + out + a.o);
            each_tap(op, a, [&](long i) {
                vi hit = ld(x + i) == best;
                st(dx + i, ld(dx + i) + keep(d, hit));
                d = keep(d, ~hit);
            });
        });
    });
}

// f(its size as it counts in a mean, window); what hangs over the edge counts as 0.
template <class F> EDGECL_INLINE void each_mean(const Op& op, F&& f) {
    if (!op.kh) return f(1.f / (op.h * op.w), Window{0, op.h, 0, op.w, 0});
    each_window(op, [&](const Window& a) { f(1.f / (op.kh * op.kw), a); });
}

inline void avg_pool(const Op& op) {
    planes(op, [&](const float* x, long, long out) {
        each_mean(op, [&](float share, const Window& a) {
            vf total{};
            each_tap(op, a, [&](long i) { total += ld(x + i); });
            st(cells(op.out) + out + a.o, total * share);
        });
    });
}

inline void avg_pool_dx(const Op& op) {
    planes(op, [&](const float*, long in, long out) {
        float* dx = op.out + in;
        if (!op.accumulate) std::memset(dx, 0, sizeof(float) * op.h * op.w * V);
        each_mean(op, [&](float share, const Window& a) {
            vf d = ld(op.g.d + out + a.o) * share;
            each_tap(op, a, [&](long i) { st(dx + i, ld(dx + i) + d); });
        });
    });
}

}
}
