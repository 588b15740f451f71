// Convolutions of any kernel, stride, padding and groups, of live kernels only: a row of outputs in registers, a sample a lane.
#pragma once
#include "load.h"
#include "pool.h"
#include "taps.h"

namespace edgecl {
namespace EDGECL_NS {

inline int first_input(const Op& op, int o) { return o / (op.o / op.groups) * op.layer->inputs; }

struct Windows2 {  // a convolution's outputs in bands of rows whose packed inputs fit the cache
    int kh, kw, sh, sw, ph, pw;
    int h, w, ho, wo, channels;
    int band, bands, cols;
    long pitch;

    void cut() {  // once the sides are known
        cols = (wo - 1) * sw + kw;
        pitch = static_cast<long>(cols) * V;
        for (band = ho; band > 1 && 4L * channels * rows(band) * pitch > STRIP_BYTES; band = (band + 1) / 2) {}
        bands = (ho + band - 1) / band;
    }
    int rows(int outputs) const { return (outputs - 1) * sh + kh; }
    int outputs(int b) const { return ho - b * band < band ? ho - b * band : band; }
    std::size_t floats() const { return static_cast<std::size_t>(channels) * rows(band) * pitch; }
    template <class Source> void pack(const Source& s, int nb, int b, float* dst) const {
        pack_window(s, nb, channels, h, w, b * band * sh - ph, -pw, rows(outputs(b)), cols, dst);
    }
};

struct Rows2 {  // where rows of outputs go
    float* out;
    const float* bias;
    int rows;
    bool accumulate;
    bool stored;  // activations; not gradients
};

// One row of outputs of one channel: Σ of its kernels in m, whose inputs begin at x.
template <int S, class T>
inline void one_row(const Windows2& g, const float* x, long plane, const Csr& m, int o, float first, bool accumulate, T* out) {
    by_wide_tiles(g.wo, [&](auto tile, int z) __attribute__((always_inline)) {
        constexpr int P = decltype(tile)::value;
        vf acc[P];
        UNROLL(P, p) acc[p] = accumulate ? ld(out + (z + p) * V) : splat(first); END
        for (int k = m.rowptr[o]; k < m.rowptr[o + 1]; k++)
            add_kernel<S, P>(x + m.col[k] * plane + static_cast<long>(z) * g.sw * V, g.pitch, g.sw, g.kh, g.kw,
                             m.w + static_cast<long>(k) * g.kh * g.kw, acc);
        UNROLL(P, p) st(out + (z + p) * V, acc[p]); END
    });
}

template <class Source, class First>
void convolve(const Source& s, int n, const Windows2& g, const Csr& m, const Rows2& t, First first) {
    const double work = 1.0 * m.n * g.kh * g.kw * g.ho * g.wo * blocks_of(n);
    parallel(static_cast<long>(blocks_of(n)) * g.bands, work, [&](long begin, long end) {
        float* x = scratch_a.get(g.floats());
        for (long item = begin; item < end; item++) {
            const int nb = static_cast<int>(item / g.bands), b = static_cast<int>(item % g.bands), count = g.outputs(b);
            const long plane = g.rows(count) * g.pitch;
            g.pack(s, nb, b, x);
            by_stride(g.sw, [&](auto stride) __attribute__((always_inline)) {
                for (int o = 0; o < t.rows; o++)
                    for (int y = 0; y < count; y++) {
                        const float* from = x + first(o) * plane + static_cast<long>(y) * g.sh * g.pitch;
                        const long to = ((static_cast<long>(nb) * t.rows + o) * g.ho + b * g.band + y) * g.wo * V;
                        const auto put = [&](auto* out) {
                            one_row<decltype(stride)::value>(g, from, plane, m, o, t.bias ? t.bias[o] : 0.f, t.accumulate, out + to);
                        };
                        if (HALVES && t.stored) put(cells(t.out));
                        else put(t.out);
                    }
            });
        }
    });
}

inline Windows2 windows(const Op& op) {
    Windows2 g{op.kh, op.kw, op.sh, op.sw, op.ph, op.pw, op.h, op.w, op.ho, op.wo, op.c, 0, 0, 0, 0};
    g.cut();
    return g;
}

inline void conv_any(const Op& op) {
    convolve(ViewSource{op.a, op.n, op.c, op.h * op.w}, op.n, windows(op), op.layer->forward,
             Rows2{op.out, op.layer->bias, op.o, false, true}, [&](int o) { return first_input(op, o); });
}

// Of stride 1 and one group: the convolution of the gradient by the kernels turned, listed by input.
inline void conv_turned(const Op& op) {
    Windows2 g{op.kh, op.kw, 1, 1, op.kh - 1 - op.ph, op.kw - 1 - op.pw, op.ho, op.wo, op.h, op.w, op.o, 0, 0, 0, 0};
    g.cut();
    convolve(GradSource{op.g, op.n, op.o, op.ho * op.wo}, op.n, g, op.layer->backward,
             Rows2{op.out, nullptr, op.c, op.accumulate != 0, false}, [](int) { return 0; });
}

// Adds what output channel o, its gradient d, sends back to the padded input dx.
inline void send_back(const Op& op, const float* d, int o, long pitch, long plane, float* dx) {
    const Csr& m = op.layer->forward;
    const int kk = op.kh * op.kw;
    for (int k = m.rowptr[o]; k < m.rowptr[o + 1]; k++) {
        float* p = dx + (first_input(op, o) + m.col[k]) * plane;
        for (int t = 0; t < kk; t++) {
            vf w = splat(m.w[static_cast<long>(kk) * k + t]);
            for (int y = 0; y < op.ho; y++) {
                float* row = p + (static_cast<long>(y) * op.sh + t / op.kw) * pitch + t % op.kw * V;
                const float* from = d + static_cast<long>(y) * op.wo * V;
                for (int x = 0; x < op.wo; x++, row += op.sw * V) st(row, ld(row) + ld(from + x * V) * w);
            }
        }
    }
}

inline void conv_any_dx(const Op& op) {
    if (op.sh == 1 && op.sw == 1 && op.groups == 1 && op.kh * op.kw > 1) return conv_turned(op);  // 1×1: no list by input
    const int h = op.h + 2 * op.ph, w = op.w + 2 * op.pw, outputs = op.ho * op.wo;
    const long pitch = static_cast<long>(w) * V, plane = h * pitch;
    const GradSource ds{op.g, op.n, op.o, outputs};
    parallel(blocks_of(op.n), 1.0 * op.layer->forward.n * op.kh * op.kw * outputs * blocks_of(op.n), [&](long begin, long end) {
        float* dx = scratch_a.get(plane * op.c);
        float* d = scratch_b.get(static_cast<std::size_t>(outputs) * V);
        for (int nb = static_cast<int>(begin); nb < end; nb++) {
            std::memset(dx, 0, sizeof(float) * plane * op.c);
            for (int o = 0; o < op.o; o++) {
                ds.row(d, nb, o, 0, outputs, 1);
                send_back(op, d, o, pitch, plane, dx);
            }
            for (long i = 0; i < static_cast<long>(op.c) * op.h; i++) {
                const float* from = dx + i / op.h * plane + (i % op.h + op.ph) * pitch + op.pw * V;
                float* at = op.out + (static_cast<long>(nb) * op.c * op.h + i) * op.w * V;
                for (int x = 0; x < op.w * V; x += V) st(at + x, op.accumulate ? ld(at + x) + ld(from + x) : ld(from + x));
            }
        }
    });
}

// Whole images side by side where they fit the cache: a weight's sum over the lanes is then made once for all of them.
inline int images_together(const Windows2& g, int blocks) {
    const long most = STRIP_BYTES / (4L * static_cast<long>(g.floats()));
    return g.bands > 1 || most < 1 ? 1 : most < blocks ? static_cast<int>(most) : blocks;
}

inline void conv_any_dw(const Op& op) {
    const Windows2 g = windows(op);
    const Csr& m = op.layer->updated;
    const GradSource ds{op.g, op.n, op.o, op.ho * op.wo};
    const ViewSource xs{op.a, op.n, op.c, op.h * op.w};
    const int together = images_together(g, blocks_of(op.n)), items = blocks_of(op.n) * g.bands;
    const long gap = static_cast<long>(g.floats()), dgap = static_cast<long>(g.band) * g.wo * V;
    parallel(op.o, 1.0 * m.n * op.kh * op.kw * op.ho * op.wo * blocks_of(op.n), [&](long first, long last) {
        float* x = scratch_a.get(gap * together);
        float* d = scratch_b.get(dgap * together);
        for (int item = 0; item < items; item += together) {
            const int b = item % g.bands, count = g.outputs(b), images = items - item < together ? items - item : together;
            for (int i = 0; i < images; i++) g.pack(xs, (item + i) / g.bands, b, x + i * gap);
            for (int o = static_cast<int>(first); o < last; o++) {
                if (m.rowptr[o] == m.rowptr[o + 1]) continue;
                for (int i = 0; i < images; i++)
                    ds.row(d + i * dgap, (item + i) / g.bands, o, static_cast<long>(b) * g.band * g.wo, count * g.wo, 1);
                for (int k = m.rowptr[o]; k < m.rowptr[o + 1]; k++) {
                    const float* from = x + (first_input(op, o) + m.col[k]) * g.rows(count) * g.pitch;
                    kernel_gradient({from, d, g.pitch, static_cast<long>(g.wo) * V, count, g.wo, g.sh, g.sw, images, gap, dgap},
                                    g.kh, g.kw, m.w + static_cast<long>(g.kh) * g.kw * (op.layer->dense_grad ? m.index[k] : k));
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
