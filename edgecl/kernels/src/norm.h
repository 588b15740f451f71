// Batch norm over one pass: statistics by sample are merged here (two passes over small sums), never as E[x²] − m².
#pragma once
#include "load.h"
#include "pool.h"
#include <cmath>

namespace edgecl {
namespace EDGECL_NS {

// Mean and squared deviations of every lane of a plane.
inline void plane_stats(const float* x, int hw, float* to) {
    vf total[2] = {}, square[2] = {};
    for (int p = 0; p < hw; p++) total[p & 1] += ld(x + static_cast<long>(p) * V);
    vf mean = (total[0] + total[1]) * (1.f / hw);
    for (int p = 0; p < hw; p++) {
        vf d = ld(x + static_cast<long>(p) * V) - mean;
        square[p & 1] += d * d;
    }
    st(to, mean);
    st(to + V, square[0] + square[1]);
}

// Those of every sample and channel, where the producer of `a` left none. One band.
inline void image_stats(const Op& op) {
    const int hw = op.h * op.w;
    parallel(static_cast<long>(blocks_of(op.n)) * op.c, 8.0 * blocks_of(op.n) * op.c * hw, [&](long begin, long end) {
        for (long i = begin; i < end; i++) plane_stats(op.a.x + i * hw * V, hw, op.stats + i * 2 * V);
    });
}

inline void set_scale(const Norm& b, int c, double mean, double var, float eps) {
    const double r = 1 / std::sqrt(var + eps);
    b.mean[c] = static_cast<float>(mean);
    b.rstd[c] = static_cast<float>(r);
    b.scale[c] = static_cast<float>(b.gamma[c] * r);
    b.shift[c] = static_cast<float>(b.beta[c] - mean * b.gamma[c] * r);
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

inline void norm_reduce(const Op& op) {
    const Norm& b = *op.norm;
    const int hw = op.h * op.w;
    const double total = static_cast<double>(op.n) * hw;
    parallel(op.c, 8.0 * blocks_of(op.n) * op.c * hw, [&](long first, long last) {
        for (int c = static_cast<int>(first); c < last; c++) {
            const bool masked = op.g.mask != nullptr;
            vf mean = splat(b.mean[c]), scale = splat(op.g.mscale ? op.g.mscale[c] : 1.f);
            vf shift = splat(op.g.mscale ? op.g.mshift[c] : 0.f), hi = splat(upper(op.g.hi));
            double t1 = 0, t2 = 0;
            for (int nb = 0; nb < blocks_of(op.n); nb++) {
                const long at = (static_cast<long>(nb) * op.c + c) * hw * V;
                vf a[2] = {}, e[2] = {};
                for (int p = 0; p < hw; p++) {
                    const long i = at + static_cast<long>(p) * V;
                    vf d = ld(op.g.d + i);
                    if (masked) d = open(d, ld(op.g.mask + i) * scale + shift, hi);
                    a[p & 1] += d;
                    e[p & 1] += d * (ld(op.a.x + i) - mean);
                }
                vi lanes = lanes_of(op.n, nb);
                t1 += sum(keep(a[0] + a[1], lanes));
                t2 += sum(keep(e[0] + e[1], lanes));
            }
            finish_reduce(b, c, t1, t2, total);
        }
    });
}

}
}
