// Depthwise convolutions, one kernel a channel: a plane at a time, packed with its zeros, through batch norm and ReLU.
#pragma once
#include "load.h"
#include "norm.h"
#include "pool.h"
#include "taps.h"
#include <vector>

namespace edgecl {
namespace EDGECL_NS {

struct Window1 {  // an input plane as the kernel slides over it
    int rows, cols;
    long pitch;
    explicit Window1(const Op& op)
        : rows((op.ho - 1) * op.sh + op.kh), cols((op.wo - 1) * op.sw + op.kw), pitch(static_cast<long>(cols) * V) {}
    std::size_t floats() const { return static_cast<std::size_t>(rows) * pitch; }
};

// out[h × w] (+)= a kernel over a packed plane; no kernel: 0 times it.
template <class T>
EDGECL_INLINE void slide(const float* x, long pitch, int sh, int sw, int kh, int kw, const float* k, float first, bool add, int h,
                         int w, T* out, long ahead) {
    by_stride(sw, [&](auto stride) __attribute__((always_inline)) {
        for (int y = 0; y < h; y++, x += sh * pitch, out += static_cast<long>(w) * V)
            by_tiles(w, [&](auto tile, int z) __attribute__((always_inline)) {
                constexpr int P = decltype(tile)::value;
                vf acc[P];
                UNROLL(P, p) __builtin_prefetch(out + (ahead + z + p) * V, 1); END  // the next plane's
                UNROLL(P, p) acc[p] = add ? ld(out + (z + p) * V) : splat(first); END
                if (k) add_kernel<decltype(stride)::value, P>(x + static_cast<long>(z) * sw * V, pitch, sw, kh, kw, k, acc);
                UNROLL(P, p) st(out + (z + p) * V, acc[p]); END
            });
    });
}

inline const float* kernel_of(const Op& op, int c) {
    const Csr& m = op.layer->forward;
    return m.rowptr[c] < m.rowptr[c + 1] ? m.w + static_cast<long>(m.rowptr[c]) * op.kh * op.kw : nullptr;
}

inline double depthwise_work(const Op& op) { return 1.0 * op.kh * op.kw * op.c * op.ho * op.wo * blocks_of(op.n); }

// With `stats`: what batch norm behind it needs, one band a plane.
inline void depthwise(const Op& op) {
    const Window1 in(op);
    const ViewSource s{op.a, op.n, op.c, op.h * op.w};
    const int pixels = op.ho * op.wo;
    const bool far = !HALVES && is_far(static_cast<long>(blocks_of(op.n)) * op.c * pixels);
    parallel(static_cast<long>(blocks_of(op.n)) * op.c, depthwise_work(op), [&](long begin, long end) {
        float* x = scratch_a.get(in.floats());
        cell* plane = cells(scratch_b.get(static_cast<std::size_t>(pixels) * V));
        for (long i = begin; i < end; i++) {
            const int nb = static_cast<int>(i / op.c), c = static_cast<int>(i % op.c);
            cell* out = far ? plane : cells(op.out) + i * pixels * V;
            pack_plane(s, nb, c, op.h, op.w, -op.ph, -op.pw, in.rows, in.cols, x);
            const float bias = op.layer->bias ? op.layer->bias[c] : 0.f;
            slide(x, in.pitch, op.sh, op.sw, op.kh, op.kw, kernel_of(op, c), bias, false, op.ho, op.wo, out, far ? 0 : pixels);
            if (op.stats) plane_stats(out, pixels, op.stats + i * 2 * V);
            if (far) stream_out(reinterpret_cast<const float*>(plane), pixels, op.out + i * pixels * V);  // never of halves
        }
        if (far) streamed();
    });
}

struct Window1Back {  // the gradient's plane as the turned kernel slides over it: of larger strides with zeros between
    int rows, cols;
    long pitch;
    explicit Window1Back(const Op& op) : rows(op.h + op.kh - 1), cols(op.w + op.kw - 1), pitch(static_cast<long>(cols) * V) {}
    std::size_t floats() const { return static_cast<std::size_t>(rows) * pitch; }
};

// The gradient d [ho][wo] where the turned kernel meets it.
inline void spread(const Op& op, const float* d, const Window1Back& g, float* to) {
    std::memset(to, 0, sizeof(float) * g.floats());
    for (int y = 0; y < op.ho; y++) {
        const int r = y * op.sh + op.kh - 1 - op.ph;
        if (r < 0 || r >= g.rows) continue;
        for (int x = 0; x < op.wo; x++) {
            const int q = x * op.sw + op.kw - 1 - op.pw;
            if (q >= 0 && q < g.cols) st(to + r * g.pitch + q * V, ld(d + (static_cast<long>(y) * op.wo + x) * V));
        }
    }
}

// Where a reader finds the gradient's plane, packed once for both gradients: [0] spread, [1] plain with its pitch.
struct PackedGrad {
    const float *wide, *plain;
    long pitch;
};

inline PackedGrad pack_grad(const Op& op, int nb, int c, const Window1Back& g, float* wide) {
    const GradSource s{op.g, op.n, op.c, op.ho * op.wo};
    const int y0 = op.ph - op.kh + 1, x0 = op.pw - op.kw + 1;
    if (op.sh == 1 && op.sw == 1 && y0 <= 0 && x0 <= 0) {
        pack_plane(s, nb, c, op.ho, op.wo, y0, x0, g.rows, g.cols, wide);
        return {wide, wide - y0 * g.pitch - x0 * V, g.pitch};
    }
    float* plain = wide + g.floats();
    s.row(plain, nb, c, 0, op.ho * op.wo, 1);
    spread(op, plain, g, wide);
    return {wide, plain, static_cast<long>(op.wo) * V};
}

inline void turn(const float* k, int taps, float* to) {
    for (int t = 0; t < taps; t++) to[t] = k[taps - 1 - t];
}

struct Backward {  // of depthwise kernels: shapes, and a thread's scratch planes
    const Op& op;
    Window1 in{op};
    Window1Back g{op};
    float* x = scratch_a.get(in.floats() + op.kh * op.kw);
    float* wide = scratch_b.get(g.floats() + (static_cast<std::size_t>(op.ho) * op.wo + static_cast<std::size_t>(op.h) * op.w) * V);
    float* plane = wide + g.floats() + static_cast<std::size_t>(op.ho) * op.wo * V;  // where one too large for a cache is made

    void input(int c, const PackedGrad& d, float* out) {
        const float* k = kernel_of(op, c);
        float* turned = x + in.floats();
        if (k) turn(k, op.kh * op.kw, turned);
        slide(d.wide, g.pitch, 1, 1, op.kh, op.kw, k ? turned : nullptr, 0.f, op.accumulate != 0, op.h, op.w, out,
              out == plane ? 0 : static_cast<long>(op.h) * op.w);
    }

    void weights(int nb, int c, const PackedGrad& d) {
        const Csr& m = op.layer->updated;
        const int i = m.rowptr[c];
        if (i == m.rowptr[c + 1]) return;
        pack_plane(ViewSource{op.a, op.n, op.c, op.h * op.w}, nb, c, op.h, op.w, -op.ph, -op.pw, in.rows, in.cols, x);
        kernel_gradient({x, d.plain, in.pitch, d.pitch, op.ho, op.wo, op.sh, op.sw}, op.kh, op.kw,
                        m.w + static_cast<long>(op.kh) * op.kw * (op.layer->dense_grad ? m.index[i] : i));
    }
};

// Whether no gradient reaches the channel. Its own is then 0, which nobody reads where a batch norm before it is blocked too.
template <bool DX> bool passes_over(const Op& op, int nb, int c) {
    if (!op.g.s || !blocked(op.g.k, c)) return false;
    const long hw = static_cast<long>(op.h) * op.w;
    float* out = op.out + (static_cast<long>(nb) * op.c + c) * hw * V;
    if (DX && !op.norm && !op.accumulate) std::memset(out, 0, sizeof(float) * hw * V);
    return true;
}

// The gradients that are asked for: of the input, of the weights; with `norm` also that of the batch norm before it.
template <bool DX, bool DW> void depthwise_back(const Op& op) {
    const int hw = op.h * op.w;
    const bool reduces = DX && op.norm, far = DX && !op.accumulate && is_far(static_cast<long>(blocks_of(op.n)) * op.c * hw / 2);
    parallel(op.c, 2 * depthwise_work(op), [&](long first, long last) {
        Backward b{op};
        std::vector<double> sums(static_cast<std::size_t>(2 * (last - first)));
        for (int nb = 0; nb < blocks_of(op.n); nb++)
            for (int c = static_cast<int>(first); c < last; c++) {
                if (passes_over<DX>(op, nb, c)) continue;
                const long at = (static_cast<long>(nb) * op.c + c) * hw * V;
                const PackedGrad d = pack_grad(op, nb, c, b.g, b.wide);
                float* out = far ? b.plane : op.out + at;
                if (DX) b.input(c, d, out);
                if (reduces) {
                    vf acc[2] = {};
                    add_reduce(op.a, *op.norm, c, out, cells(op.a.x) + at, hw, 0, acc);
                    for (int i : {0, 1}) sums[2 * (c - first) + i] += sum(keep(acc[i], lanes_of(op.n, nb)));
                }
                if (far) stream_out(out, hw, op.out + at);
                if (DW) b.weights(nb, c, d);
            }
        if (far) streamed();
        for (int c = static_cast<int>(first); reduces && c < last; c++) {
            if (op.g.s && blocked(op.g.k, c)) block(*op.norm, c);
            else finish_reduce(*op.norm, c, sums[2 * (c - first)], sums[2 * (c - first) + 1], static_cast<double>(op.n) * hw);
        }
    });
}

inline void depthwise_dx(const Op& op) { depthwise_back<true, false>(op); }
inline void depthwise_dw(const Op& op) { depthwise_back<false, true>(op); }
inline void depthwise_both(const Op& op) { depthwise_back<true, true>(op); }

}
}
