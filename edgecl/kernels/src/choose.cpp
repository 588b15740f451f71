// Which instruction set runs: chosen here, once, from what the processor says of itself.
#include "abi.h"
#include "pool.h"

#include <pthread.h>
#if defined(EDGECL_HAS_X86)
#include <cpuid.h>
#endif

namespace edgecl {

#if defined(EDGECL_HAS_X86)
void run_avx512(const Op*, int);
void run_avx2(const Op*, int);
void run_avx512_half(const Op*, int);
void run_avx2_half(const Op*, int);
#endif
void run_base(const Op*, int);
void run_base_half(const Op*, int);

namespace {

struct Isa {
    const char* name;
    int lanes;
    void (*run)(const Op*, int);
    void (*run_half)(const Op*, int);  // on activations stored as halves
    bool (*here)();
};

bool always() { return true; }

#if defined(EDGECL_HAS_X86)
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
}
bool has_f16c() {  // which not every compiler lets __builtin_cpu_supports name
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
#endif

const Isa ISAS[] = {  // the best first
#if defined(EDGECL_HAS_X86)
    {"avx512", 16, run_avx512, run_avx512_half, has_avx512},
    {"avx2", 8, run_avx2, run_avx2_half, has_avx2},
    {"sse2", 4, run_base, run_base_half, always},
#elif defined(__aarch64__)
    {"neon", 4, run_base, run_base_half, always},
#else
    {"generic", 4, run_base, run_base_half, always},
#endif
};
constexpr int COUNT = sizeof ISAS / sizeof *ISAS;

pthread_mutex_t running = PTHREAD_MUTEX_INITIALIZER;

}  // namespace
}  // namespace edgecl

extern "C" {

int edgecl_count() { return edgecl::COUNT; }
const char* edgecl_name(int isa) { return edgecl::ISAS[isa].name; }
int edgecl_lanes(int isa) { return edgecl::ISAS[isa].lanes; }
int edgecl_here(int isa) { return edgecl::ISAS[isa].here(); }
int edgecl_op_size() { return sizeof(Op); }
int edgecl_layer_size() { return sizeof(Layer); }
int edgecl_norm_size() { return sizeof(Norm); }
int edgecl_kinds() { return KINDS; }
int edgecl_abi() { return 2; }  // as in edgecl/kernels/__init__.py

// Runs the operations in order, on activations stored as floats or `half`. One caller at a time: the threads are shared.
void edgecl_run(int isa, int half, int threads, const Op* ops, int n) {
    pthread_mutex_lock(&edgecl::running);
    edgecl::set_threads(threads);
    (half ? edgecl::ISAS[isa].run_half : edgecl::ISAS[isa].run)(ops, n);
    pthread_mutex_unlock(&edgecl::running);
}

}
