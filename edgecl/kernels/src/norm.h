// Batch norm over one pass: statistics by sample are merged here (two passes over small sums), never as E[x²] − m².
#pragma once
#include "load.h"
#include "pool.h"
#include <cmath>

namespace edgecl {
namespace EDGECL_NS {

// f(i, p) for p in [0, n), i going round 0..3: four sums in registers, whose additions need not wait for each other.
template <class F> EDGECL_INLINE void by_fours(int n, F&& f) {
    int p = 0;
    for (; p + 4 <= n; p += 4) { UNROLL(4, i) f(std::integral_constant<int, i>{}, p + i); END }
    for (; p < n; p++) f(std::integral_constant<int, 0>{}, p);
}

EDGECL_INLINE vf all_four(const vf* a) { return (a[0] + a[1]) + (a[2] + a[3]); }

// Mean and squared deviations of every lane of a plane, of the values as they are stored.
inline void plane_stats(const cell* x, int hw, float* to) {
    vf total[4] = {}, square[4] = {};
    by_fours(hw, [&](auto i, int p) __attribute__((always_inline)) { total[i] += ld(x + static_cast<long>(p) * V); });
    const vf mean = all_four(total) * (1.f / hw);
    by_fours(hw, [&](auto i, int p) __attribute__((always_inline)) {
        const vf d = ld(x + static_cast<long>(p) * V) - mean;
        square[i] += d * d;
    });
    st(to, mean);
    st(to + V, all_four(square));
}

// Those of every sample and channel, where the producer of `a` left none. One band.
inline void image_stats(const Op& op) {
    const int hw = op.h * op.w;
    parallel(static_cast<long>(blocks_of(op.n)) * op.c, 8.0 * blocks_of(op.n) * op.c * hw, [&](long begin, long end) {
        for (long i = begin; i < end; i++) plane_stats(cells(op.a.x) + i * hw * V, hw, op.stats + i * 2 * V);
    });
}

inline void set_scale(const Norm& b, int c, double mean, double var, float eps) {
    const double r = 1 / std::sqrt(var + eps);
    b.mean[c] = static_cast<float>(mean);
    b.rstd[c] = static_cast<float>(r);
    b.scale[c] = var == 0 ? 0.f : static_cast<float>(b.gamma[c] * r);  // of a constant: β, and nothing to read
    b.shift[c] = static_cast<float>(b.beta[c] - (var == 0 ? 0 : mean * b.gamma[c] * r));
}

inline void norm(const Op& op) {
    const Norm& b = *op.norm;
    const int bands = (op.h + op.band - 1) / op.band, nbs = blocks_of(op.n);
    const double total = static_cast<double>(op.n) * op.h * op.w;
    const long gap = static_cast<long>(op.c) * 2 * V;
    auto count = [&](int t) { return static_cast<float>((op.h - t * op.band < op.band ? op.h - t * op.band : op.band) * op.w); };
    for (int c = 0; c < op.c; c++) {
        const float* s = op.stats + static_cast<long>(c) * 2 * V;
        double mean = 0, square = 0;
        for (int nb = 0; nb < nbs; nb++) {
            vf a{};
            for (int t = 0; t < bands; t++) a += ld(s + (static_cast<long>(nb) * bands + t) * gap) * count(t);
            mean += sum(keep(a, lanes_of(op.n, nb)));
        }
        mean /= total;
        for (int nb = 0; nb < nbs; nb++) {
            vf a{};
            for (int t = 0; t < bands; t++) {
                const float* p = s + (static_cast<long>(nb) * bands + t) * gap;
                vf d = ld(p) - static_cast<float>(mean);
                a += ld(p + V) + d * d * count(t);
            }
            square += sum(keep(a, lanes_of(op.n, nb)));
        }
        set_scale(b, c, mean, square / total, op.eps);
        b.running_mean[c] += op.momentum * (static_cast<float>(mean) - b.running_mean[c]);
        b.running_var[c] += op.momentum * (static_cast<float>(square / (total - 1)) - b.running_var[c]);
    }
}

inline void norm_eval(const Op& op) {
    for (int c = 0; c < op.c; c++) set_scale(*op.norm, c, op.norm->running_mean[c], op.norm->running_var[c], op.eps);
}

// dγ, dβ and the coefficients of dx = ka dz + kb (x − mean) + kc, from t1 = Σ dz and t2 = Σ dz (x − mean).
inline void finish_reduce(const Norm& b, int c, double t1, double t2, double total) {
    const double dg = t2 * b.rstd[c], ka = static_cast<double>(b.gamma[c]) * b.rstd[c];
    b.dgamma[c] += static_cast<float>(dg);
    b.dbeta[c] += static_cast<float>(t1);
    b.k[4L * c] = static_cast<float>(ka);
    b.k[4L * c + 1] = static_cast<float>(-ka * b.rstd[c] * dg / total);
    b.k[4L * c + 2] = static_cast<float>(-ka * t1 / total);
    b.k[4L * c + 3] = b.mean[c];
}

// Nothing flows back through channel c: no live weight reads it. Readers then pass over its gradient.
inline void block(const Norm& b, int c) {
    for (int i : {0, 1, 2}) b.k[4L * c + i] = 0;
    b.k[4L * c + 3] = b.mean[c];
}

// Adds to acc[2] Σ dz and Σ dz (x − mean) of `count` vectors of channel c: x as stored, read through the view v and batch
// norm b, what is read next being `next` floats on; dx the gradient of what is read. Where the producer of dx makes these sums,
// norm_reduce has nothing left to do. With PACK what is read through the view goes to `to`, 0 in lanes that are not `lanes`.
template <bool PACK = false>
inline void add_reduce(const View& v, const Norm& b, int c, const float* dx, const cell* x, int count, long next, vf* acc,
                       float* to = nullptr, vi lanes = vi{}) {
    const vf mean = splat(b.mean[c]), scale = splat(v.scale[c]), shift = splat(v.shift[c]);
    const vf lo = splat(v.relu ? 0.f : -std::numeric_limits<float>::infinity()), hi = splat(upper(v.relu ? v.hi : 0.f));
    vf a[4] = {acc[0]}, e[4] = {acc[1]};
    by_fours(count, [&](auto i, int p) __attribute__((always_inline)) {
        __builtin_prefetch(x + next + static_cast<long>(p) * V);
        const vf z = ld(x + static_cast<long>(p) * V), y = z * scale + shift;
        const vf d = (y <= lo) | (y >= hi) ? vf{} : ld(dx + static_cast<long>(p) * V);
        a[i] += d;
        e[i] += d * (z - mean);
        if (PACK) st(to + static_cast<long>(p) * V, keep(clamp(y, lo, hi), lanes));
    });
    acc[0] = all_four(a);
    acc[1] = all_four(e);
}

// Channels that are not `live` have no gradient; null: all are.
inline void reduce_live(const Op& op, const uint8_t* live) {
    const Norm& b = *op.norm;
    const int hw = op.h * op.w;
    const double total = static_cast<double>(op.n) * hw;
    parallel(op.c, 8.0 * blocks_of(op.n) * op.c * hw, [&](long first, long last) {
        for (int c = static_cast<int>(first); c < last; c++) {
            if (live && !live[c]) {
                block(b, c);
                continue;
            }
            const bool masked = op.g.mask != nullptr;
            const cell *mask = cells(op.g.mask), *x = cells(op.a.x);
            vf mean = splat(b.mean[c]), scale = splat(op.g.mscale ? op.g.mscale[c] : 1.f);
            vf shift = splat(op.g.mscale ? op.g.mshift[c] : 0.f), hi = splat(upper(op.g.hi));
            double t1 = 0, t2 = 0;
            for (int nb = 0; nb < blocks_of(op.n); nb++) {
                const long at = (static_cast<long>(nb) * op.c + c) * hw * V;
                vf a[4] = {}, e[4] = {};
                by_fours(hw, [&](auto i, int p) __attribute__((always_inline)) {
                    const long place = at + static_cast<long>(p) * V;
                    vf d = ld(op.g.d + place);
                    if (masked) d = open(d, ld(mask + place) * scale + shift, hi);
                    a[i] += d;
                    e[i] += d * (ld(x + place) - mean);
                });
                vi lanes = lanes_of(op.n, nb);
                t1 += sum(keep(all_four(a), lanes));
                t2 += sum(keep(all_four(e), lanes));
            }
            finish_reduce(b, c, t1, t2, total);
        }
    });
}

inline void norm_reduce(const Op& op) { reduce_live(op, nullptr); }

// The same for a whole gradient `out` of what is read through op.a.
inline void norm_reduce_of(const Op& op, const uint8_t* live) {
    Op r = op;
    r.g = Grad{op.out, op.a.relu ? op.a.x : nullptr, op.a.scale, op.a.shift, nullptr, nullptr, op.a.hi, 0};
    reduce_live(r, live);
}

}
}
