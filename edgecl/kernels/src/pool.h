// Threads for loops whose items are independent. Which thread runs an item never changes a result.
#pragma once

namespace edgecl {

void set_threads(int n);
int threads();
void run_parallel(int parts, void (*part)(void*, int), void* context);

// f(begin, end) over [0, n): one call when `work` (multiply-adds, roughly) is too small to share.
template <class F> void parallel(long n, double work, F&& f) {
    int parts = threads();
    if (parts > n) parts = static_cast<int>(n);
    if (parts <= 1 || work < 2e5) {
        if (n > 0) f(0L, n);
        return;
    }
    struct Context { F* f; long n; int parts; } context{&f, n, parts};
    run_parallel(parts, [](void* p, int i) {
        auto* c = static_cast<Context*>(p);
        (*c->f)(c->n * i / c->parts, c->n * (i + 1) / c->parts);
    }, &context);
}

}
