// Layout, sums, and the gathering and update of weights.
#pragma once
#include "load.h"
#include "pool.h"

namespace edgecl {
namespace EDGECL_NS {

constexpr int PACKED = 32;  // numbers of a sample at a time

// Kernels to fetch ahead: live ones lie scattered.
constexpr int ahead_of(int taps) { return taps == 1 ? 192 : 24; }

template <class T> void pack_into(const Op& op, T* out) {
    const long size = static_cast<long>(op.c) * op.h * op.w;
    float room[PACKED * V] __attribute__((aligned(64)));
    for (long nb = 0; nb < blocks_of(op.n); nb++)
        for (long at = 0; at < size; at += PACKED) {
            const int count = static_cast<int>(size - at < PACKED ? size - at : PACKED);
            for (int v = 0; v < V; v++) {
                const float* from = op.host + (nb * V + v) * size + at;
                const bool is_sample = nb * V + v < op.n;
                for (int i = 0; i < count; i++) room[i * V + v] = is_sample ? from[i] : 0.f;
            }
            for (int i = 0; i < count; i++) st(out + (nb * size + at + i) * V, ld(room + i * V));
        }
}

inline void pack(const Op& op) {  // host → out
    if (op.flag) pack_into(op, op.out);
    else pack_into(op, cells(op.out));
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
        float* row = scratch_b.get(static_cast<std::size_t>(2 * hw) * V);
        for (long i = begin; i < end; i++) {
            cell* out = cells(op.out) + i * hw * V;
            float* first = draft(out, row + static_cast<long>(hw) * V);
            a.row(first, static_cast<int>(i / op.c), static_cast<int>(i % op.c), 0, hw, 1);
            if (!op.b.x) {
                settle(first, out, hw);
                continue;
            }
            b.row(row, static_cast<int>(i / op.c), static_cast<int>(i % op.c), 0, hw, 1);
            for (int p = 0; p < hw; p++) st(out + p * V, ld(first + p * V) + ld(row + p * V));
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

// f(integral constant) for the numbers of taps that most layers have; 0 stands for any other.
template <class F> EDGECL_INLINE void by_taps(int taps, F&& f) {
    if (taps == 9) f(std::integral_constant<int, 9>{});
    else if (taps == 1) f(std::integral_constant<int, 1>{});
    else f(std::integral_constant<int, 0>{});
}

// The kernel of `taps` weights at p will soon be used: it may lie across two cache lines.
template <int WRITE> EDGECL_INLINE void fetch(const float* p, int taps) {
    __builtin_prefetch(p, WRITE);
    if (taps > 1) __builtin_prefetch(p + taps - 1, WRITE);
}

template <int T, bool TURNED> inline void gather_kernels(const Csr& m, const float* w, int any) {
    const int taps = T ? T : any;
    for (int k = 0; k < m.n; k++) {
        if (k + ahead_of(T) < m.n) fetch<0>(w + static_cast<long>(m.index[k + ahead_of(T)]) * taps, taps);
        const float* from = w + static_cast<long>(m.index[k]) * taps;
        float* to = m.w + static_cast<long>(k) * taps;
        if constexpr (T && !TURNED) std::memcpy(to, from, sizeof(float) * T);
        else for (int t = 0; t < taps; t++) to[t] = from[TURNED ? taps - 1 - t : t];
    }
}

// Weights of the live kernels in the order they are read; turned by half a circle where `flag` says so.
inline void gather(const Csr& m, const float* w, int taps, bool turned) {
    by_taps(taps, [&](auto t) {
        if (turned) gather_kernels<decltype(t)::value, true>(m, w, taps);
        else gather_kernels<decltype(t)::value, false>(m, w, taps);
    });
}

inline void gather(const Op& op) {  // forward: out of all weights; backward: out of the forward list
    const Layer& l = *op.layer;
    if (op.flag == 0) gather(l.forward, l.w, l.taps, false);
    else gather(l.backward, l.forward.w, l.taps, op.flag == 2);
}

// v ← momentum v + (g + decay w); w ← w − rate v.
EDGECL_INLINE void update(const Op& op, float& w, float* v, float g) {
    g += op.decay * w;
    if (v) g = *v = op.momentum * *v + g;
    w -= op.rate * g;
}

// Of whole kernels without momentum: what is read is read before anything is written, so that taps are updated side by side.
template <int T> inline void sgd_kernels(const Op& op, const Layer& l) {
    const Csr& m = l.updated;
    for (int k = 0; k < m.n; k++) {
        if (k + ahead_of(T) < m.n) fetch<1>(l.w + static_cast<long>(m.index[k + ahead_of(T)]) * T, T);
        const long at = static_cast<long>(m.index[k]) * T;
        float g[T], w[T];
        std::memcpy(g, m.w + (l.dense_grad ? at : static_cast<long>(k) * T), sizeof g);
        std::memcpy(w, l.w + at, sizeof w);
        for (int t = 0; t < T; t++) update(op, w[t], nullptr, g[t]);
        std::memcpy(l.w + at, w, sizeof w);
    }
}

inline void sgd_any(const Op& op, const Layer& l) {
    const Csr& m = l.updated;
    for (int k = 0; k < m.n; k++) {
        const long at = static_cast<long>(m.index[k]) * l.taps;
        if (k + ahead_of(0) < m.n) {
            const long next = static_cast<long>(m.index[k + ahead_of(0)]) * l.taps;
            fetch<1>(l.w + next, l.taps);
            if (l.v) fetch<1>(l.v + next, l.taps);
        }
        const float* g = m.w + (l.dense_grad ? at : static_cast<long>(k) * l.taps);
        for (int t = 0; t < l.taps; t++)
            if (!l.fine || l.fine[at + t]) update(op, l.w[at + t], l.v ? l.v + at + t : nullptr, g[t]);
    }
}

inline void sgd(const Op& op) {
    const Layer& l = *op.layer;
    by_taps(l.fine || l.v ? 0 : l.taps, [&](auto t) {
        if constexpr (decltype(t)::value) sgd_kernels<decltype(t)::value>(op, l);
        else sgd_any(op, l);
    });
}

inline void sgd_flat(const Op& op) {  // out: weights, stats: momentum or null, host: gradient
    for (int i = 0; i < op.count; i++) update(op, op.out[i], op.stats ? op.stats + i : nullptr, op.host[i]);
}

}
}
