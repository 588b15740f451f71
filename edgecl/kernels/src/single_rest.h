// What else a net does to one sample: images in and out, element by element, pools.
#pragma once
#include "single.h"
#include <limits>

namespace edgecl {
namespace EDGECL_NS {

inline void single_in(const Op& op) {  // `host` [C][H][W]
    const Plane out(op.h, op.w);
    for (int c = 0; c < op.c; c++) std::memcpy(op.out + c * out.gap, op.host + c * out.pixels, sizeof(float) * out.pixels);
}

// An image into larger ones from row `ph` and column `pw` on, or, with `flag`, into [C][H][W] without gaps.
inline void single_copy(const Op& op) {
    const Plane in(op.h, op.w), larger(op.ho, op.wo);
    const long gap = op.flag ? in.pixels : larger.gap;
    const int pitch = op.flag ? op.w : op.wo;
    for (int c = 0; c < op.c; c++)
        for (int y = 0; y < op.h; y++)
            std::memcpy(op.out + c * gap + static_cast<long>(y + op.ph) * pitch + op.pw,
                        floats(op.a) + c * in.gap + static_cast<long>(y) * op.w, sizeof(float) * op.w);
}

// activation(norm(a) + b), or (`kh`) activation(norm(a × b)); b is of the same shape, or (`sh`) one value a channel.
inline void single_map(const Op& op) {
    const bool times = op.kh != 0, by_channel = op.sh != 0;
    Finish f(op);
    if (times) f.added = nullptr;
    parallel(op.c, 2.0 * op.c * f.pixels, [&](long first, long last) {
        for (int c = static_cast<int>(first); c < last; c++) {
            if (f.pixels == 1) {
                f.put_one(times ? floats(op.a)[c] * floats(op.b)[c] : floats(op.a)[c], c);
                continue;
            }
            const vf a = splat(f.factor(c)), b = splat(f.offset(c));
            for (long i = 0, at = c * f.gap; i < f.pixels; i += V) {
                vf x = ld(floats(op.a) + at + i);
                if (times) x *= by_channel ? splat(floats(op.b)[c]) : ld(floats(op.b) + at + i);
                f.put(x, c, i, a, b);
            }
        }
    });
}

EDGECL_INLINE float larger(float best, float x) { return x > best || x != x ? x : best; }

inline float pooled(const Op& op, const float* x, int y, int z) {
    const int top = y * op.sh - op.ph, left = z * op.sw - op.pw;
    float best = -std::numeric_limits<float>::infinity(), total = 0;
    for (int i = top < 0 ? 0 : top; i < top + op.kh && i < op.h; i++)
        for (int j = left < 0 ? 0 : left; j < left + op.kw && j < op.w; j++) {
            const float v = x[static_cast<long>(i) * op.w + j];
            best = larger(best, v), total += v;
        }
    return op.flag ? best : total / static_cast<float>(op.kh * op.kw);
}

// Largest (`flag`) or mean value of each window; of a mean, what is past the edge counts as 0.
inline void single_pool(const Op& op) {
    const Plane in(op.h, op.w), out(op.ho, op.wo);
    parallel(op.c, 1.0 * op.c * out.pixels * op.kh * op.kw, [&](long first, long last) {
        for (long c = first; c < last; c++)
            for (int y = 0; y < op.ho; y++)
                for (int z = 0; z < op.wo; z++)
                    op.out[c * out.gap + static_cast<long>(y) * op.wo + z] = pooled(op, floats(op.a) + c * in.gap, y, z);
    });
}

inline void single_mean(const Op& op) {
    const Plane in(op.h, op.w);
    for (int c = 0; c < op.c; c++) {
        const float* x = floats(op.a) + c * in.gap;
        vf total{};
        if (in.pixels > 1)
            for (long i = 0; i < in.pixels; i += V) total += ld(x + i);
        else total[0] = *x;
        op.out[c] = sum(total) / static_cast<float>(in.pixels);
    }
}

}
}
