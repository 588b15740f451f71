// Convolutions of any kernel, stride, padding and groups: plain loops over live kernels, a sample a lane. Slow, but right.
#pragma once
#include "load.h"
#include "pool.h"

namespace edgecl {
namespace EDGECL_NS {

struct Padded {  // an image with its zeros around it
    int h, w;
    long plane, size;
    explicit Padded(const Op& op)
        : h(op.h + 2 * op.padding), w(op.w + 2 * op.padding), plane(static_cast<long>(h) * w * V), size(plane * op.c) {}
};

inline int first_input(const Op& op, int o) { return o / (op.o / op.groups) * op.layer->inputs; }

inline void conv_any(const Op& op) {
    const Padded in(op);
    const Csr& m = op.layer->forward;
    const int kk = op.kernel * op.kernel;
    parallel(blocks_of(op.n), 1.0 * m.n * kk * op.ho * op.wo, [&](long begin, long end) {
        float* x = scratch_a.get(in.size);
        for (long nb = begin; nb < end; nb++) {
            pack_window(ViewSource{op.a, op.n, op.c, op.h * op.w}, static_cast<int>(nb), op.c, op.h, op.w, -op.padding,
                        -op.padding, in.h, in.w, x);
            float* out = op.out + nb * op.o * op.ho * op.wo * V;
            for (int o = 0; o < op.o; o++)
                for (int y = 0; y < op.ho; y++)
                    for (int z = 0; z < op.wo; z++, out += V) {
                        vf acc = splat(op.layer->bias ? op.layer->bias[o] : 0.f);
                        for (int k = m.rowptr[o]; k < m.rowptr[o + 1]; k++) {
                            const float* p = x + (first_input(op, o) + m.col[k]) * in.plane +
                                             (static_cast<long>(y) * op.stride * in.w + z * op.stride) * V;
                            for (int t = 0; t < kk; t++)
                                acc += ld(p + (static_cast<long>(t / op.kernel) * in.w + t % op.kernel) * V) * m.w[1L * kk * k + t];
                        }
                        st(out, acc);
                    }
        }
    });
}

inline void conv_any_dx(const Op& op) {
    const Padded in(op);
    const Csr& m = op.layer->forward;
    const int kk = op.kernel * op.kernel, outputs = op.ho * op.wo, hw = op.h * op.w;
    const GradSource ds{op.g, op.n, op.o, outputs};
    parallel(blocks_of(op.n), 1.0 * m.n * kk * outputs, [&](long begin, long end) {
        float* dx = scratch_a.get(in.size);
        float* d = scratch_b.get(static_cast<std::size_t>(outputs) * V);
        for (long nb = begin; nb < end; nb++) {
            std::memset(dx, 0, sizeof(float) * in.size);
            for (int o = 0; o < op.o; o++) {
                ds.row(d, static_cast<int>(nb), o, 0, outputs, 1);
                for (int k = m.rowptr[o]; k < m.rowptr[o + 1]; k++) {
                    float* p = dx + (first_input(op, o) + m.col[k]) * in.plane;
                    for (int t = 0; t < kk; t++) {
                        float* q = p + (static_cast<long>(t / op.kernel) * in.w + t % op.kernel) * V;
                        vf w = splat(m.w[1L * kk * k + t]);
                        for (int i = 0; i < outputs; i++) {
                            float* at = q + (static_cast<long>(i / op.wo) * op.stride * in.w + i % op.wo * op.stride) * V;
                            st(at, ld(at) + ld(d + static_cast<long>(i) * V) * w);
                        }
                    }
                }
            }
            for (int c = 0; c < op.c; c++)
                for (int i = 0; i < hw; i++) {
                    float* at = op.out + ((nb * op.c + c) * hw + i) * V;
                    vf g = ld(dx + c * in.plane + ((i / op.w + op.padding) * static_cast<long>(in.w) + i % op.w + op.padding) * V);
                    st(at, op.accumulate ? ld(at) + g : g);
                }
        }
    });
}

inline void conv_any_dw(const Op& op) {
    const Padded in(op);
    const Csr& m = op.layer->updated;
    const int kk = op.kernel * op.kernel, outputs = op.ho * op.wo;
    const GradSource ds{op.g, op.n, op.o, outputs};
    parallel(op.o, 1.0 * m.n * kk * outputs * blocks_of(op.n), [&](long first, long last) {
        float* x = scratch_a.get(in.size);
        float* d = scratch_b.get(static_cast<std::size_t>(outputs) * V);
        for (int nb = 0; nb < blocks_of(op.n); nb++) {
            pack_window(ViewSource{op.a, op.n, op.c, op.h * op.w}, nb, op.c, op.h, op.w, -op.padding, -op.padding, in.h, in.w, x);
            for (int o = static_cast<int>(first); o < last; o++) {
                ds.row(d, nb, o, 0, outputs, 1);
                for (int k = m.rowptr[o]; k < m.rowptr[o + 1]; k++) {
                    const float* p = x + (first_input(op, o) + m.col[k]) * in.plane;
                    float* out = m.w + static_cast<long>(kk) * (op.layer->dense_grad ? m.index[k] : k);
                    for (int t = 0; t < kk; t++) {
                        const float* q = p + (static_cast<long>(t / op.kernel) * in.w + t % op.kernel) * V;
                        vf a{};
                        for (int i = 0; i < outputs; i++)
                            a += ld(q + (static_cast<long>(i / op.wo) * op.stride * in.w + i % op.wo * op.stride) * V) *
                                 ld(d + static_cast<long>(i) * V);
                        out[t] += sum(a);
                    }
                }
            }
        }
    });
}

// gbias[o] += Σ of the gradient over samples and positions.
inline void bias_grad(const Op& op) {
    const int outputs = op.ho * op.wo;
    const GradSource ds{op.g, op.n, op.o, outputs};
    parallel(op.o, 1.0 * op.o * outputs * blocks_of(op.n), [&](long first, long last) {
        float* d = scratch_b.get(static_cast<std::size_t>(outputs) * V);
        for (int o = static_cast<int>(first); o < last; o++)
            for (int nb = 0; nb < blocks_of(op.n); nb++) {
                ds.row(d, nb, o, 0, outputs, 1);
                vf a{};
                for (int i = 0; i < outputs; i++) a += ld(d + static_cast<long>(i) * V);
                op.layer->gbias[o] += sum(a);
            }
    });
}

}
}
