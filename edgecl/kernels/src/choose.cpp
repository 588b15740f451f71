// Which instruction set runs: chosen here, once, from what the processor says of itself.
#include "abi.h"
#include "pool.h"

#include <pthread.h>

namespace edgecl {

#if defined(EDGECL_HAS_X86)
void run_avx512(const Op*, int);
void run_avx2(const Op*, int);
#endif
void run_base(const Op*, int);

namespace {

struct Isa {
    const char* name;
    int lanes;
    void (*run)(const Op*, int);
    bool (*here)();
};

bool always() { return true; }

#if defined(EDGECL_HAS_X86)
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

const Isa ISAS[] = {  // the best first
#if defined(EDGECL_HAS_X86)
    {"avx512", 16, run_avx512, has_avx512},
    {"avx2", 8, run_avx2, has_avx2},
    {"sse2", 4, run_base, always},
#elif defined(__aarch64__)
    {"neon", 4, run_base, always},
#else
    {"generic", 4, run_base, always},
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
int edgecl_kinds() { return KINDS; }

// Runs the operations in order. One caller at a time: the threads are shared.
void edgecl_run(int isa, int threads, const Op* ops, int n) {
    pthread_mutex_lock(&edgecl::running);
    edgecl::set_threads(threads);
    edgecl::ISAS[isa].run(ops, n);
    pthread_mutex_unlock(&edgecl::running);
}

}
