// What works on single values: curved activations, products, joining channels, padding. `out` is set, or added to.
#pragma once
#include "load.h"
#include "pool.h"

namespace edgecl {
namespace EDGECL_NS {

// e^x within 2 ulp, 0 and infinity at the ends; NaN passes.
EDGECL_INLINE vf exponential(vf x) {
    x = clamp(x, splat(-87.3f), splat(88.7f));
    const vf magic = splat(12582912.f);  // 1.5 · 2^23: what is added to it is rounded to whole numbers
    vf whole = x * 1.44269504f + magic;
    vf n = whole - magic, r = x - n * 0.693359375f;
    r -= n * -2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    vi power = reinterpret_cast<vi>(whole) - reinterpret_cast<vi>(magic), half = power >> 1, rest = power - half;
    return p * reinterpret_cast<vf>((half + 127) << 23) * reinterpret_cast<vf>((rest + 127) << 23);
}

EDGECL_INLINE vf logistic(vf x) { return 1.f / (1.f + exponential(-x)); }
EDGECL_INLINE vf ramp(vf x) { return clamp(x + 3.f, vf{}, splat(6.f)) * (1.f / 6); }

enum Curve : int32_t { HARDSIGMOID, HARDSWISH, SIGMOID, SILU };

template <int CURVE> EDGECL_INLINE vf curve(vf x) {
    if constexpr (CURVE == HARDSIGMOID) return ramp(x);
    else if constexpr (CURVE == HARDSWISH) return x * ramp(x);
    else if constexpr (CURVE == SIGMOID) return logistic(x);
    else return x * logistic(x);
}

template <int CURVE> EDGECL_INLINE vf slope(vf x) {
    if constexpr (CURVE == HARDSIGMOID) return open(splat(1.f / 6), x + 3.f, splat(6.f));
    else if constexpr (CURVE == HARDSWISH) return x <= -3.f ? vf{} : x >= 3.f ? splat(1.f) : x * (1.f / 3) + .5f;
    else if constexpr (CURVE == SIGMOID) { vf s = logistic(x); return s * (1.f - s); }
    else { vf s = logistic(x); return s + s * (1.f - s) * x; }
}

template <class F> inline void by_curve(int which, F&& f) {
    switch (which) {
        case HARDSIGMOID: return f(std::integral_constant<int, HARDSIGMOID>{});
        case HARDSWISH: return f(std::integral_constant<int, HARDSWISH>{});
        case SIGMOID: return f(std::integral_constant<int, SIGMOID>{});
        default: return f(std::integral_constant<int, SILU>{});
    }
}

// f(block, channel, scratch of two planes) for every plane of the input's shape.
template <class F> inline void each_plane(const Op& op, F&& f) {
    const long hw = static_cast<long>(op.h) * op.w;
    parallel(static_cast<long>(blocks_of(op.n)) * op.c, 8.0 * blocks_of(op.n) * op.c * hw, [&](long begin, long end) {
        float* room = scratch_b.get(static_cast<std::size_t>(2 * hw) * V);
        for (long i = begin; i < end; i++) f(static_cast<int>(i / op.c), static_cast<int>(i % op.c), room);
    });
}

template <class T> EDGECL_INLINE void put_one(const Op& op, T* at, vf v) { st(at, op.accumulate ? ld(at) + v : v); }

template <class T> EDGECL_INLINE T* plane_of(T* all, int channels, int nb, int c, int hw) {
    return all + (static_cast<long>(nb) * channels + c) * hw * V;
}

inline void activate(const Op& op) {  // out = curve `flag` of a
    const int hw = op.h * op.w;
    const ViewSource a{op.a, op.n, op.c, hw};
    by_curve(op.flag, [&](auto which) {
        each_plane(op, [&](int nb, int c, float* room) {
            cell* out = plane_of(cells(op.out), op.c, nb, c, hw);
            float* x = draft(out, room);
            a.row(x, nb, c, 0, hw, 1);
            for (int p = 0; p < hw; p++) st(out + p * V, curve<decltype(which)::value>(ld(x + p * V)));
        });
    });
}

inline void activate_dx(const Op& op) {  // out (+)= g · slope at a
    const int hw = op.h * op.w;
    const ViewSource a{op.a, op.n, op.c, hw};
    const GradSource g{op.g, op.n, op.c, hw};
    by_curve(op.flag, [&](auto which) {
        each_plane(op, [&](int nb, int c, float* x) {
            float *out = plane_of(op.out, op.c, nb, c, hw), *d = x + static_cast<long>(hw) * V;
            a.row(x, nb, c, 0, hw, 1);
            g.row(d, nb, c, 0, hw, 1);
            for (int p = 0; p < hw; p++) put_one(op, out + p * V, ld(d + p * V) * slope<decltype(which)::value>(ld(x + p * V)));
        });
    });
}

enum Factor : int32_t { SAME, SCALE, TO_SCALE };  // of one shape; one value a channel; the gradient of such a value

// out (+)= y · b; `flag` says what b and out are.
template <class Source, class T> inline void multiply_by(const Op& op, const Source& y, const View& other, T* to) {
    const int hw = op.h * op.w, of_b = op.flag == SCALE ? 1 : hw;
    const ViewSource b{other, op.n, op.c, of_b};
    each_plane(op, [&](int nb, int c, float* x) {
        float* k = x + static_cast<long>(hw) * V;
        y.row(x, nb, c, 0, hw, 1);
        b.row(k, nb, c, 0, of_b, 1);
        if (op.flag == TO_SCALE) {
            vf total{};
            for (int p = 0; p < hw; p++) total += ld(x + p * V) * ld(k + p * V);
            return put_one(op, plane_of(to, op.c, nb, c, 1), total);
        }
        T* out = plane_of(to, op.c, nb, c, hw);
        for (int p = 0; p < hw; p++) put_one(op, out + p * V, ld(x + p * V) * ld(k + (op.flag == SCALE ? 0 : p * V)));
    });
}

inline void multiply(const Op& op) { multiply_by(op, ViewSource{op.a, op.n, op.c, op.h * op.w}, op.b, cells(op.out)); }
inline void multiply_dx(const Op& op) { multiply_by(op, GradSource{op.g, op.n, op.c, op.h * op.w}, op.a, op.out); }

inline void join(const Op& op) {  // a's channels become those from `count` on of out's o
    const int hw = op.h * op.w;
    const ViewSource a{op.a, op.n, op.c, hw};
    each_plane(op, [&](int nb, int c, float* room) {
        cell* out = plane_of(cells(op.out), op.o, nb, op.count + c, hw);
        float* x = draft(out, room);
        a.row(x, nb, c, 0, hw, 1);
        settle(x, out, hw);
    });
}

inline void join_dx(const Op& op) {  // out (+)= the channels from `count` on of g's o
    const int hw = op.h * op.w;
    const GradSource g{op.g, op.n, op.o, hw};
    each_plane(op, [&](int nb, int c, float* d) {
        float* out = plane_of(op.out, op.c, nb, c, hw);
        g.row(d, nb, op.count + c, 0, hw, 1);
        for (int p = 0; p < hw; p++) put_one(op, out + p * V, ld(d + p * V));
    });
}

inline void pad(const Op& op) {  // ph rows above, pw columns to the left
    const ViewSource a{op.a, op.n, op.c, op.h * op.w};
    each_plane(op, [&](int nb, int c, float*) {
        cell* out = plane_of(cells(op.out), op.c, nb, c, op.ho * op.wo);
        float* x = draft(out, scratch_a.get(HALVES ? static_cast<std::size_t>(op.ho) * op.wo * V : 0));
        pack_plane(a, nb, c, op.h, op.w, -op.ph, -op.pw, op.ho, op.wo, x);
        settle(x, out, op.ho * op.wo);
    });
}

inline void pad_dx(const Op& op) {
    const int hw = op.h * op.w;
    const GradSource g{op.g, op.n, op.c, op.ho * op.wo};
    each_plane(op, [&](int nb, int c, float* d) {
        float* out = plane_of(op.out, op.c, nb, c, hw);
        pack_plane(g, nb, c, op.ho, op.wo, op.ph, op.pw, op.h, op.w, d);
        for (int p = 0; p < hw; p++) put_one(op, out + p * V, ld(d + p * V));
    });
}

}
}
