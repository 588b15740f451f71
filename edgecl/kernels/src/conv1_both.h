// Both gradients of a 1×1 convolution in one walk over the pixels: the gradient is read and put through batch norm once.
#pragma once
#include "conv1_block.h"
#include "conv3.h"
#include "norm.h"
#include <vector>

namespace edgecl {
namespace EDGECL_NS {

inline void weights1_of(const Op& op, const Layer& l, const float* d, const float* x, int count) {
    if (l.updated_unit != BY_BLOCK) return weights1(d, x, count, l.updated, l.dense_grad != 0, l.inputs, 0, op.o);
    const Group* g = groups_of(l.updated);
    for (int i = 0; i < l.updated.rows; i++, g++)
        if (g->begin != g->end) group_weights(d, x, count, l.updated, *g);
}

inline void inputs1_of(const Op& op, const float* d, int count, const Image1& t, int nb, int p0) {
    const Layer& l = *op.layer;
    const Dense1 dense{l.w, 1, l.inputs};
    if (l.unit == BY_BLOCK) all_groups(d, count, l.backward, t, nb, p0);
    else pixels1(d, op.o, count, l.full ? &dense : nullptr, &l.backward, t, nb, p0);
}

// Sums for the batch norm that the input is read through, while its gradient is in the cache.
struct Reduction {
    const Op& op;
    const uint8_t* live;  // channels that have a gradient
    std::vector<double> sums;
    float* acc;  // [C][2][V] of one block

    Reduction(const Op& o, const uint8_t* flags, float* room, bool on) : op(o), live(flags), sums(on ? 2 * o.c : 0), acc(room) {}
    bool on() const { return !sums.empty(); }

    void begin() { if (on()) std::memset(acc, 0, sizeof(float) * op.c * 2 * V); }

    // Of `count` pixels from p0 on, the inputs; those of `reads` go to x [C][count][V] as they are read, at the same time.
    void add(int nb, int p0, int count, const uint8_t* reads, float* x) {
        const ViewSource xs{op.a, op.n, op.c, op.h * op.w};
        const long next = static_cast<long>(op.h) * op.w * channels_ahead(count) * V;
        for (int c = 0; c < op.c; c++) {
            const long at = ((static_cast<long>(nb) * op.c + c) * op.h * op.w + p0) * V;
            const cell* from = cells(op.a.x) + at;
            float* to = x + static_cast<long>(c) * count * V;
            vf* sums = reinterpret_cast<vf*>(acc + c * 2 * V);
            const bool together = live[c] && reads[c] && op.a.scale[c] != 0;
            if (together) add_reduce<true>(op.a, *op.norm, c, op.out + at, from, count, next, sums, to, lanes_of(op.n, nb));
            if (!together && live[c]) add_reduce(op.a, *op.norm, c, op.out + at, from, count, next, sums);
            if (!together && reads[c]) xs.row(to, nb, c, p0, count, 1, channels_ahead(count));
        }
    }

    void end(int nb) {
        for (std::size_t i = 0; i < sums.size(); i++) sums[i] += sum(keep(ld(acc + i * V), lanes_of(op.n, nb)));
    }

    void finish() const {
        for (int c = 0; on() && c < op.c; c++) {
            if (live[c]) finish_reduce(*op.norm, c, sums[2 * c], sums[2 * c + 1], static_cast<double>(op.n) * op.h * op.w);
            else block(*op.norm, c);
        }
    }
};

// What both gradients read and write: channels that a live weight, or one whose gradient is wanted, connects.
struct Reach {
    Channels inputs, outputs;
    Used read, fed;  // inputs that a weight's gradient asks for; that have a gradient

    explicit Reach(const Op& op) : read(op.c), fed(op.c) {
        const Layer& l = *op.layer;
        Used out(op.o);
        const bool all = l.updated.n == static_cast<long>(op.o) * l.inputs;
        if (all) read.all(), out.all();
        else read.columns(l.updated, l.updated_unit), out.rows(l.updated, l.updated_unit);
        if (l.full || op.accumulate) fed.all();
        else fed.rows(l.backward, l.unit);
        if (l.full) out.all();
        else out.columns(l.backward, l.unit);
        inputs = read.list(), outputs = out.list();
    }
};

// With `norm`, also the gradient of the batch norm before it.
inline void conv1_both(const Op& op) {
    const Reach reach(op);
    const uint8_t* fed = reach.fed.flags.data();
    const int pixels = op.ho * op.wo, part = part1(reach.inputs.size() + reach.outputs.size(), pixels);
    const int parts = (pixels + part - 1) / part;
    const long items = static_cast<long>(blocks_of(op.n)) * parts;
    if (op.sh > 1 || !shares_gradient(*op.layer, items)) {
        conv1_dw(op);
        conv1_dx(op);
        if (op.norm) norm_reduce_of(op, fed);
        return;
    }
    const GradSource ds{op.g, op.n, op.o, pixels};
    const ViewSource xs{op.a, op.n, op.c, op.h * op.w};
    Image1 t = inputs1(op);
    t.partly |= op.norm != nullptr;  // what batch norm blocks is never read
    const double work = 2.0 * op.layer->updated.n * pixels * blocks_of(op.n);
    const bool reduces = op.norm && threads() == 1;  // several threads would add the sums up in another order
    share_gradient(*op.layer, items, work, [&](const Layer& l, long begin, long end) {
        float* x = scratch_a.get(static_cast<std::size_t>(op.c) * (part + 2) * V);
        float* d = scratch_b.get(static_cast<std::size_t>(op.o) * part * V);
        Reduction reduction(op, fed, x + static_cast<long>(op.c) * part * V, reduces);
        for (long item = begin; item < end; item++) {
            const int nb = static_cast<int>(item / parts), p0 = static_cast<int>(item % parts) * part;
            const int count = pixels - p0 < part ? pixels - p0 : part;
            if (p0 == 0) reduction.begin();
            pack_pixels(ds, nb, reach.outputs, p0, count, op.wo, op.wo, 1, d);
            inputs1_of(op, d, count, t, nb, p0);
            if (reduces) reduction.add(nb, p0, count, reach.read.flags.data(), x);
            else pack_pixels(xs, nb, reach.inputs, p0, count, op.wo, op.w, op.sh, x);
            weights1_of(op, l, d, x, count);
            if (p0 + count == pixels) reduction.end(nb);
        }
        reduction.finish();
    });
    if (op.norm && !reduces) norm_reduce_of(op, fed);
}

}
}
