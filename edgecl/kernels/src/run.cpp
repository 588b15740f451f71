// One instruction set's kernels: setup.py compiles this file twice for each, with EDGECL_NS, EDGECL_V and EDGECL_RUN set, the
// second time also EDGECL_HALF, which makes stored activations half precision.
#include "conv.h"
#include "conv1_both.h"
#include "conv3_dw.h"
#include "depthwise.h"
#include "elementwise.h"
#include "norm.h"
#include "pooling.h"
#include "rest.h"
#ifndef EDGECL_HALF
#include "single_conv.h"
#include "single_conv3.h"
#include "single_rest.h"
#endif

namespace edgecl {
namespace EDGECL_NS {

using Function = void (*)(const Op&);

#ifdef EDGECL_HALF
// Predictions one by one store so little that they have floats only: the caller runs them there.
inline void single_in(const Op&) { std::abort(); }
constexpr auto single_copy = single_in, single_map = single_in, single_pool = single_in, single_mean = single_in;
constexpr auto single_conv3 = single_in, single_conv = single_in;
#endif

// In the order of Kind.
const Function FUNCTIONS[KINDS] = {
    pack, unpack, store, store_grad, gather,
    conv3, conv3_dx, conv3_dw, conv1, conv1_dx, conv1_dw, conv_any, conv_any_dx, conv_any_dw, bias_grad,
    image_stats, norm, norm_eval, norm_reduce,
    max_pool, max_pool_dx, avg_pool, avg_pool_dx, sgd, sgd_flat, conv3_both,
    depthwise, depthwise_dx, depthwise_dw, depthwise_both,
    activate, activate_dx, multiply, multiply_dx, join, join_dx, pad, pad_dx,
    single_in, single_copy, single_map, single_pool, single_mean, single_conv3, single_conv,
    conv1_both,
};

}

void EDGECL_RUN(const Op* ops, int n) {
    for (int i = 0; i < n; i++) EDGECL_NS::FUNCTIONS[ops[i].kind](ops[i]);
}

}
