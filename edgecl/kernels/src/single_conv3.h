// 3×3 convolutions of one sample by whole kernels: padding 1, stride 1 or 2, any groups (depthwise: one kernel a row).
//
// The three columns of a kernel are summed apart, all from the same loads, and only the sums are moved left and right: once an
// output channel, not once a kernel. Rows need no move: a row up or down is an address. With stride 2 the image is first taken
// apart into four, by the parity of row and column, and the outer two columns fall on the same one.
#pragma once
#include "single.h"

namespace edgecl {
namespace EDGECL_NS {

struct Taps3 {  // where a channel's pixels are, by tap: x + channel * gap + at[column][row], columns that share loads as one
    const float* x;
    long gap;
    long at[2][3];
};

constexpr long WEIGHTS_AHEAD = 512;  // floats from the weights that are read to those that are fetched

// sums[columns][B] of B vectors from pixel i on, over the n kernels of a row. TWO: stride 2, where sums 1 takes in sums 2.
// Few vectors are summed by row of the kernel too, since a chain of multiply-adds waits for each of its links.
template <int B, bool TWO>
EDGECL_INLINE void sums3(const Taps3& t, long i, const int32_t* col, const float* w, int n, vf* sums) {
    constexpr int ROWS = B <= 2 ? 3 : 1;
    vf acc[ROWS * 3 * B] = {};
    for (int k = 0; k < n; k++) {
        const float* p = t.x + col[k] * t.gap + i;
        const float* wk = w + 9L * k;
        __builtin_prefetch(wk + WEIGHTS_AHEAD);
        UNROLL(3, r)
            constexpr int row = ROWS == 3 ? r * 3 * B : 0;
            vf left = splat(wk[3 * r]), middle = splat(wk[3 * r + 1]), right = splat(wk[3 * r + 2]);
            UNROLL(B, b)
                if constexpr (TWO) {
                    vf even = ldu(p + t.at[0][r] + b * V), odd = held(ldu(p + t.at[1][r] + b * V));
                    acc[row + b] += odd * left;
                    acc[row + B + b] += even * middle;
                    acc[row + 2 * B + b] += odd * right;
                } else {
                    vf x = held(ldu(p + t.at[0][r] + b * V));
                    acc[row + b] += x * left;
                    acc[row + B + b] += x * middle;
                    acc[row + 2 * B + b] += x * right;
                }
            END
        END
    }
    UNROLL(3 * B, s)
        sums[s] = acc[s];
        if constexpr (ROWS == 3) sums[s] += acc[3 * B + s] + acc[6 * B + s];
    END
    if constexpr (TWO) { UNROLL(B, b) sums[B + b] += sums[2 * B + b]; END }
}

// All bits where a pixel has a neighbour: left[i], right[i] of a plane of rows of w.
inline void neighbours(long pixels, int w, int32_t* left, int32_t* right) {
    for (long i = 0, x = 0; i < up(pixels); i++, x = x + 1 == w ? 0 : x + 1)
        left[i] = x ? -1 : 0, right[i] = x + 1 < w ? -1 : 0;
}

struct Columns3 {  // a channel's sums by column of the kernel, with room to be read a pixel off, and who has neighbours
    float* sums[3];
    int32_t *left, *right;
    Columns3(float* scratch, long pixels, int w) {
        const long room = up(pixels) + 2 * V;
        for (int j = 0; j < 3; j++) sums[j] = scratch + room * j + V;
        left = reinterpret_cast<int32_t*>(scratch + room * 3), right = left + up(pixels);
        neighbours(pixels, w, left, right);
    }
    static long floats(long pixels) { return 5 * up(pixels) + 6 * V; }
};

template <int B, bool TWO>
EDGECL_INLINE void strip3(const Taps3& t, long i, const int32_t* col, const float* w, int n, const Columns3& c) {
    vf sums[3 * B];
    sums3<B, TWO>(t, i, col, w, n, sums);
    UNROLL((TWO ? 2 : 3), j) UNROLL(B, b) st(c.sums[j] + i + b * V, sums[j * B + b]); END END
}

template <bool TWO>
inline void channel3(const Taps3& t, const int32_t* col, const float* w, int n, const Columns3& c, const Finish& f, int o) {
    long i = 0;
    for (; i + 3 * V < f.pixels; i += 4 * V) strip3<4, TWO>(t, i, col, w, n, c);
    if (i + 2 * V < f.pixels) strip3<3, TWO>(t, i, col, w, n, c);
    else if (i + V < f.pixels) strip3<2, TWO>(t, i, col, w, n, c);
    else if (i < f.pixels) strip3<1, TWO>(t, i, col, w, n, c);
    const vf a = splat(f.factor(o)), b = splat(f.offset(o));
    for (i = 0; i < f.pixels; i += V) {
        vi left, right;
        std::memcpy(&left, c.left + i, sizeof left);
        std::memcpy(&right, c.right + i, sizeof right);
        vf y = ld(c.sums[1] + i) + keep(ldu(c.sums[0] + i - 1), left);
        if (!TWO) y += keep(ldu(c.sums[2] + i + 1), right);
        f.put(y, o, i, a, b);
    }
}

// An image's rows and columns of one parity as images of h × w: [channels][row parity][column parity][plane].
struct Quarters {
    long gap;  // of a quarter
    long front;
    Quarters(int h, int w) : gap(up(static_cast<long>(h) * w + w)), front(up(w)) {}
    std::size_t floats(int channels) const { return static_cast<std::size_t>(front + 4L * channels * gap + 2 * front + 2 * V); }
};

inline void quarter(const Op& op, const Quarters& q, float* to) {
    const Plane in(op.h, op.w);
    std::memset(to, 0, sizeof(float) * q.floats(op.c));
    parallel(op.c, 1.0 * op.c * in.pixels, [&](long first, long last) {
        for (long c = first; c < last; c++)
            for (int y = 0; y < op.h; y++) {
                const float* __restrict from = floats(op.a) + c * in.gap + static_cast<long>(y) * op.w;
                float* __restrict even = to + q.front + (4 * c + 2 * (y & 1)) * q.gap + static_cast<long>(y / 2) * op.wo;
                float* __restrict odd = even + q.gap;
                for (int x = 0; x < op.w / 2; x++) even[x] = from[2 * x], odd[x] = from[2 * x + 1];
                if (op.w & 1) even[op.w / 2] = from[op.w - 1];
            }
    });
}

inline Taps3 taps3(const Op& op) {
    const long w = op.wo;
    if (op.sh == 1) return {floats(op.a), Plane(op.h, op.w).gap, {{-w, 0, w}, {}}};
    const Quarters q(op.ho, op.wo);
    float* x = scratch_b.get(q.floats(op.c));
    quarter(op, q, x);
    const long odd = 2 * q.gap;  // rows of odd number
    return {x + q.front, 4 * q.gap, {{odd - w, 0, odd}, {q.gap + odd - w, q.gap, q.gap + odd}}};
}

inline void single_conv3(const Op& op) {
    const Finish f(op);
    const Taps3 taps = taps3(op);
    const Csr& m = op.layer->forward;
    parallel(op.o, 9.0 * m.n * f.pixels, [&](long first, long last) {
        const Columns3 c(scratch_a.get(Columns3::floats(f.pixels)), f.pixels, op.wo);
        for (int o = static_cast<int>(first); o < last; o++) {
            const int a = m.rowptr[o], n = m.rowptr[o + 1] - a;
            Taps3 t = taps;
            t.x += group_start(op, o) * t.gap;
            if (op.sh == 1) channel3<false>(t, m.col + a, m.w + 9L * a, n, c, f, o);
            else channel3<true>(t, m.col + a, m.w + 9L * a, n, c, f, o);
        }
    });
}

}
}
