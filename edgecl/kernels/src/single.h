// Prediction of one sample: lanes are neighbouring pixels of one channel, not samples.
//
// Layout of an image: a plane a channel, its rows one after the other with nothing between them, and behind it zeros, at least
// a row of them: [C][h·w | zeros]. In front of the first plane lie zeros too, so that a row above or below the image is read as
// 0 without a test. What has one pixel a channel is flat: [C]. A pointer to an image is one to its first pixel.
//
// Fields of an operation here: `flag` is the activation at its end, `norm` a batch norm's scale and shift, `b` a second operand.
#pragma once
#include "elementwise.h"
#include <limits>

namespace edgecl {
namespace EDGECL_NS {

EDGECL_INLINE vf ldu(const float* p) {
    vf v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
// x, loaded once: left alone, GCC loads it again for every multiply-add that reads it.
EDGECL_INLINE vf held(vf x) {
#if defined(__x86_64__)
    asm("" : "+v"(x));
#endif
    return x;
}
EDGECL_INLINE const float* floats(const View& v) { return static_cast<const float*>(v.x); }
EDGECL_INLINE long up(long n) { return (n + V - 1) / V * V; }

struct Plane {  // floats from one channel to the next, and what of them is pixels
    long pixels, gap;
    Plane(int h, int w) : pixels(static_cast<long>(h) * w), gap(pixels == 1 ? 1 : up(pixels + w)) {}
};

inline bool one_to_one(const Op& op) {
    return op.kh == 1 && op.kw == 1 && op.sh == 1 && op.sw == 1 && op.ph == 0 && op.pw == 0;
}

enum Activation : int32_t { LINEAR, RELU, RELU6, CURVED };  // CURVED + a Curve

EDGECL_INLINE vf finished(vf x, int32_t activation) {
    switch (activation) {
        case LINEAR: return x;
        case RELU: return clamp(x, vf{}, splat(std::numeric_limits<float>::infinity()));
        case RELU6: return clamp(x, vf{}, splat(6.f));
        case CURVED + HARDSIGMOID: return curve<HARDSIGMOID>(x);
        case CURVED + HARDSWISH: return curve<HARDSWISH>(x);
        case CURVED + SIGMOID: return curve<SIGMOID>(x);
        default: return curve<SILU>(x);
    }
}

// What is done to a layer's sums on their way out: bias, batch norm, another image added, activation, zeros past the image.
struct Finish {
    const float *bias, *scale, *shift, *added;
    float* out;
    long pixels, gap;
    int32_t activation;

    explicit Finish(const Op& op)
        : bias(op.layer ? op.layer->bias : nullptr), scale(op.norm ? op.norm->scale : nullptr),
          shift(op.norm ? op.norm->shift : nullptr), added(floats(op.b)), out(op.out), activation(op.flag) {
        const Plane p(op.ho, op.wo);
        pixels = p.pixels, gap = p.gap;
    }

    float factor(int o) const { return scale ? scale[o] : 1.f; }
    float offset(int o) const { return (bias ? bias[o] * factor(o) : 0.f) + (shift ? shift[o] : 0.f); }

    // Sums of pixels from i on, of a channel whose factor and offset are a and b.
    inline __attribute__((always_inline)) void put(vf sums, int o, long i, vf a, vf b) const {
        vf y = sums * a + b;
        const long at = o * gap + i;
        if (added) y += ld(added + at);
        y = finished(y, activation);
        if (i + V > pixels) {
            vi lane{};
            for (int l = 0; l < V; l++) lane[l] = l;  // a constant once compiled
            y = keep(y, lane < static_cast<int32_t>(pixels - i));
        }
        st(out + at, y);
    }

    void put_one(float sum, int o) const {  // one pixel a channel
        vf y{};
        y[0] = sum * factor(o) + offset(o) + (added ? added[o] : 0.f);
        out[o] = finished(y, activation)[0];
    }
};

inline int group_start(const Op& op, int o) { return o / (op.o / op.groups) * op.layer->inputs; }

}
}
