// Everything that is not a convolution or a norm: layout, sums, pooling, and the update of weights.
#pragma once
#include "load.h"
#include "pool.h"

namespace edgecl {
namespace EDGECL_NS {

constexpr int AHEAD = 24;  // kernels to fetch ahead: live ones lie scattered

inline void pack(const Op& op) {  // host → out
    const long size = static_cast<long>(op.c) * op.h * op.w;
    for (long i = 0; i < blocks_of(op.n) * size * V; i++) {
        const long nb = i / (size * V), at = i / V % size, n = nb * V + i % V;
        op.out[i] = n < op.n ? op.host[n * size + at] : 0.f;
    }
}

inline void unpack(const Op& op) {  // a → host
    const int hw = op.h * op.w;
    const ViewSource s{op.a, op.n, op.c, hw};
    float* row = scratch_a.get(static_cast<std::size_t>(hw) * V);
    for (int nb = 0; nb < blocks_of(op.n); nb++)
        for (int c = 0; c < op.c; c++) {
            s.row(row, nb, c, 0, hw, 1);
            for (int v = 0; v < V && nb * V + v < op.n; v++)
                for (int p = 0; p < hw; p++) op.host[((static_cast<long>(nb) * V + v) * op.c + c) * hw + p] = row[p * V + v];
        }
}

// out = a (+ b), as their readers see them.
inline void store(const Op& op) {
    const int hw = op.h * op.w;
    const ViewSource a{op.a, op.n, op.c, hw}, b{op.b, op.n, op.c, hw};
    parallel(static_cast<long>(blocks_of(op.n)) * op.c, 8.0 * blocks_of(op.n) * op.c * hw, [&](long begin, long end) {
        float* row = scratch_b.get(static_cast<std::size_t>(hw) * V);
        for (long i = begin; i < end; i++) {
            float* out = op.out + i * hw * V;
            a.row(out, static_cast<int>(i / op.c), static_cast<int>(i % op.c), 0, hw, 1);
            if (!op.b.x) continue;
            b.row(row, static_cast<int>(i / op.c), static_cast<int>(i % op.c), 0, hw, 1);
            for (int p = 0; p < hw; p++) st(out + p * V, ld(out + p * V) + ld(row + p * V));
        }
    });
}

// out (+)= g; out may be g.d itself.
inline void store_grad(const Op& op) {
    const int hw = op.h * op.w;
    const GradSource s{op.g, op.n, op.c, hw};
    parallel(static_cast<long>(blocks_of(op.n)) * op.c, 8.0 * blocks_of(op.n) * op.c * hw, [&](long begin, long end) {
        float* row = scratch_b.get(static_cast<std::size_t>(hw) * V);
        for (long i = begin; i < end; i++) {
            float* out = op.out + i * hw * V;
            s.row(op.accumulate ? row : out, static_cast<int>(i / op.c), static_cast<int>(i % op.c), 0, hw, 1);
            for (int p = 0; op.accumulate && p < hw; p++) st(out + p * V, ld(out + p * V) + ld(row + p * V));
        }
    });
}

// Weights of the live kernels in the order they are read; turned by half a circle where `flag` says so.
inline void gather(const Csr& m, const float* w, int taps, bool turned) {
    for (int k = 0; k < m.n; k++) {
        if (k + AHEAD < m.n) __builtin_prefetch(w + static_cast<long>(m.index[k + AHEAD]) * taps);
        const float* from = w + static_cast<long>(m.index[k]) * taps;
        float* to = m.w + static_cast<long>(k) * taps;
        for (int t = 0; t < taps; t++) to[t] = from[turned ? taps - 1 - t : t];
    }
}

inline void gather(const Op& op) {  // forward: out of all weights; backward: out of the forward list
    const Layer& l = *op.layer;
    if (op.flag == 0) gather(l.forward, l.w, l.taps, false);
    else gather(l.backward, l.forward.w, l.taps, op.flag == 2);
}

struct Windows {  // of a pool: f(first vector of a window in a plane, number of the output)
    template <class F> EDGECL_INLINE void each(const Op& op, F&& f) {
        for (int y = 0; y < op.ho; y++)
            for (int x = 0; x < op.wo; x++) f((static_cast<long>(y) * op.stride * op.w + x * op.stride) * V, (y * op.wo + x) * V);
    }
    EDGECL_INLINE long tap(const Op& op, int t) { return (static_cast<long>(t / op.kernel) * op.w + t % op.kernel) * V; }
};

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

inline void max_pool(const Op& op) {
    const int taps = op.kernel * op.kernel;
    planes(op, [&](const float* x, long, long out) {
        Windows::each(op, [&](long w, long o) {
            vf best = ld(x + w);
            for (int t = 1; t < taps; t++) best = greater(ld(x + w + Windows::tap(op, t)), best);
            st(op.out + out + o, best);
        });
    });
}

// To the first of equal maxima, as torch does.
inline void max_pool_dx(const Op& op) {
    const int taps = op.kernel * op.kernel;
    planes(op, [&](const float* x, long in, long out) {
        float* dx = op.out + in;
        if (!op.accumulate) std::memset(dx, 0, sizeof(float) * op.h * op.w * V);
        Windows::each(op, [&](long w, long o) {
            vf best = ld(x + w), d = ld(op.g.d + out + o);
            for (int t = 1; t < taps; t++) best = greater(ld(x + w + Windows::tap(op, t)), best);
            for (int t = 0; t < taps; t++) {
                float* at = dx + w + Windows::tap(op, t);
                vi hit = ld(x + w + Windows::tap(op, t)) == best;
                st(at, ld(at) + keep(d, hit));
                d = keep(d, ~hit);
            }
        });
    });
}

inline void avg_pool(const Op& op) {  // `kernel` 0: the whole image
    const int taps = op.kernel ? op.kernel * op.kernel : op.h * op.w;
    planes(op, [&](const float* x, long, long out) {
        if (!op.kernel) {
            vf a{};
            for (int t = 0; t < taps; t++) a += ld(x + static_cast<long>(t) * V);
            st(op.out + out, a * (1.f / taps));
            return;
        }
        Windows::each(op, [&](long w, long o) {
            vf a{};
            for (int t = 0; t < taps; t++) a += ld(x + w + Windows::tap(op, t));
            st(op.out + out + o, a * (1.f / taps));
        });
    });
}

inline void avg_pool_dx(const Op& op) {
    const int taps = op.kernel ? op.kernel * op.kernel : op.h * op.w;
    planes(op, [&](const float*, long in, long out) {
        float* dx = op.out + in;
        if (!op.accumulate) std::memset(dx, 0, sizeof(float) * op.h * op.w * V);
        auto add = [&](float* at, vf d) { st(at, ld(at) + d); };
        if (!op.kernel) {
            vf d = ld(op.g.d + out) * (1.f / taps);
            for (int t = 0; t < taps; t++) add(dx + static_cast<long>(t) * V, d);
            return;
        }
        Windows::each(op, [&](long w, long o) {
            vf d = ld(op.g.d + out + o) * (1.f / taps);
            for (int t = 0; t < taps; t++) add(dx + w + Windows::tap(op, t), d);
        });
    });
}

// v ← momentum v + (g + decay w); w ← w − rate v.
EDGECL_INLINE void update(const Op& op, float& w, float* v, float g) {
    g += op.decay * w;
    if (v) g = *v = op.momentum * *v + g;
    w -= op.rate * g;
}

inline void sgd(const Op& op) {
    const Layer& l = *op.layer;
    const Csr& m = l.updated;
    for (int k = 0; k < m.n; k++) {
        const long at = static_cast<long>(m.index[k]) * l.taps;
        if (k + AHEAD < m.n) {
            const long next = static_cast<long>(m.index[k + AHEAD]) * l.taps;
            __builtin_prefetch(l.w + next, 1);
            if (l.v) __builtin_prefetch(l.v + next, 1);
        }
        const float* g = m.w + (l.dense_grad ? at : static_cast<long>(k) * l.taps);
        for (int t = 0; t < l.taps; t++)
            if (!l.fine || l.fine[at + t]) update(op, l.w[at + t], l.v ? l.v + at + t : nullptr, g[t]);
    }
}

inline void sgd_flat(const Op& op) {  // out: weights, stats: momentum or null, host: gradient
    for (int i = 0; i < op.count; i++) update(op, op.out[i], op.stats ? op.stats + i : nullptr, op.host[i]);
}

}
}
