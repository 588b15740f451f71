// The plain C ABI between Python (edgecl/kernels/__init__.py mirrors these structs field by field) and the kernels.
//
// Layout of every activation: [blocks][C][H][W][V], V = lanes of the instruction set, blocks = ceil(samples / V). No halo:
// kernels copy what a tile needs into a strip with zeros around it, and apply batch norm and ReLU on the way. Lanes that
// hold no sample are 0 in whatever is loaded through a batch norm. Activations are floats or halves (cell.h), as edgecl_run
// is told; gradients are floats.
#pragma once
#include <cstdint>

extern "C" {

struct View {          // a stored array as its reader sees it: x * scale + shift, through ReLU with an upper bound
    const void* x;
    const float* scale;  // per channel; null: 1
    const float* shift;  // per channel; null with scale
    int32_t relu;
    float hi;            // ReLU's upper bound; 0: none
};

struct Grad {            // a gradient as its reader sees it, by channel: dz = d where 0 < mask < hi; ka dz + kb (s - mean) + kc
    const float* d;
    const void* mask;    // null: all pass
    const float* mscale;  // null: 1
    const float* mshift;
    const void* s;       // batch norm's input; null: dz itself
    const float* k;      // [C][4]: ka, kb, kc, mean
    float hi;            // 0: none
    int32_t unused;
};

struct Csr {             // kernels by row; `index` is each one's place in the weight (of `backward`: in `forward`'s list)
    int32_t n;
    int32_t rows;
    const int32_t* rowptr;
    const int32_t* col;
    const int32_t* index;
    float* w;            // [n][taps]: weights in reading order, or the gradient
};

struct Layer {           // one convolution's or linear layer's parameters
    float* w;            // [O][I][taps]
    float* v;            // momentum; null: none
    float* bias;         // null: none
    float* gbias;
    const uint8_t* fine;  // [O][I][taps]: weights within kernels that are updated; null: whole kernels
    int32_t taps;
    int32_t inputs;      // I = C / groups
    int32_t full;        // all kernels live: dense loops over w may be used
    int32_t dense_grad;  // updated.w is [O][I][taps] and found by index
    Csr forward, backward, updated;
    int32_t unit;        // of `forward` and `backward`: see Unit
    int32_t updated_unit;
};

enum Unit : int32_t {    // what a list names
    BY_KERNEL,           // kernels of one (out, in) pair, all their taps
    BY_WEIGHT,           // single weights of 3×3 kernels (conv3_fine.h)
    BY_BLOCK,            // rows of a 1×1 that share their columns (conv1_block.h)
};

struct Norm {            // a batch norm's parameters, and what one pass leaves for its backward
    const float* gamma;
    const float* beta;
    float* running_mean;
    float* running_var;
    float* dgamma;
    float* dbeta;
    float* scale;
    float* shift;
    float* mean;
    float* rstd;
    float* k;
};

struct Op {
    int32_t kind;
    int32_t n;           // samples
    int32_t c, h, w;     // input
    int32_t o, ho, wo;   // output
    int32_t kh, kw, sh, sw, ph, pw, groups;  // kernel, stride and padding, by height and width
    int32_t accumulate;  // add to `out`
    int32_t band;        // rows of the image in one row of `stats`
    int32_t flag;        // what kind of gather, curve or factor; of PACK 1 for a gradient
    int32_t count;       // numbers to update, or the first channel
    float eps, momentum, rate, decay;
    View a, b;
    Grad g;
    Layer* layer;
    Norm* norm;
    float* out;          // a gradient, or activations as they are stored
    float* stats;        // [blocks][bands][O][2][V]: mean and sum of squared deviations by sample
    float* host;         // [n][C][H][W], as numpy has it
};

enum Kind : int32_t {
    PACK, UNPACK, STORE, STORE_GRAD, GATHER,
    CONV3, CONV3_DX, CONV3_DW, CONV1, CONV1_DX, CONV1_DW, CONV, CONV_DX, CONV_DW, BIAS_GRAD,
    STATS, NORM, NORM_EVAL, NORM_REDUCE,
    MAXPOOL, MAXPOOL_DX, AVGPOOL, AVGPOOL_DX, SGD, SGD_FLAT, CONV3_BOTH,
    DEPTHWISE, DEPTHWISE_DX, DEPTHWISE_DW, DEPTHWISE_BOTH,
    ACTIVATE, ACTIVATE_DX, MULTIPLY, MULTIPLY_DX, JOIN, JOIN_DX, PAD, PAD_DX,
    SINGLE_IN, SINGLE_COPY, SINGLE_MAP, SINGLE_POOL, SINGLE_MEAN, SINGLE_CONV3, SINGLE_CONV,
    CONV1_BOTH, KINDS,
};

}
