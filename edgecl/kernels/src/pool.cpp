// A fixed team of threads, kept between calls. Part 0 runs on the caller.
// In plain pthreads: the library then needs nothing of libstdc++ that a wheel would have to bring along.
#include "pool.h"

#include <pthread.h>

#include <cstdio>
#include <cstdlib>

namespace edgecl {
namespace {

constexpr int MOST = 1024;  // limits.py has it too

class Lock {
public:
    explicit Lock(pthread_mutex_t& m) : m_(m) { pthread_mutex_lock(&m_); }
    ~Lock() { pthread_mutex_unlock(&m_); }
    Lock(const Lock&) = delete;

private:
    pthread_mutex_t& m_;
};

class Team {
public:
    ~Team() { resize(1); }

    void resize(int n) {
        {
            Lock hold(mutex_);
            stopping_ = true;
        }
        pthread_cond_broadcast(&start_);
        for (int i = 1; i < size_; i++) pthread_join(seats_[i].thread, nullptr);
        stopping_ = false;
        size_ = n < 1 ? 1 : n < MOST ? n : MOST;
        for (int i = 1; i < size_; i++) {
            seats_[i].team = this, seats_[i].i = i, seats_[i].seen = round_;
            if (pthread_create(&seats_[i].thread, nullptr, work, &seats_[i])) {
                std::fprintf(stderr, "edgecl: no thread %d of %d: engine.threads is too many here\n", i + 1, size_);
                std::abort();
            }
        }
    }

    int size() const { return size_; }

    void run(int parts, void (*part)(void*, int), void* context) {
        {
            Lock hold(mutex_);
            parts_ = parts, part_ = part, context_ = context, left_ = size_ - 1, round_++;
        }
        pthread_cond_broadcast(&start_);
        part(context, 0);
        Lock hold(mutex_);
        while (left_) pthread_cond_wait(&done_, &mutex_);
    }

private:
    struct Seat {
        Team* team;
        int i;
        long seen;
        pthread_t thread;
    };

    static void* work(void* seat) {
        auto* own = static_cast<Seat*>(seat);
        own->team->work_as(own->i, own->seen);
        return nullptr;
    }

    void work_as(int i, long seen) {
        pthread_mutex_lock(&mutex_);
        for (;;) {
            while (!stopping_ && round_ == seen) pthread_cond_wait(&start_, &mutex_);
            if (stopping_) break;
            seen = round_;
            auto part = i < parts_ ? part_ : nullptr;
            pthread_mutex_unlock(&mutex_);
            if (part) part(context_, i);
            pthread_mutex_lock(&mutex_);
            if (--left_ == 0) pthread_cond_signal(&done_);
        }
        pthread_mutex_unlock(&mutex_);
    }

    Seat seats_[MOST] = {};
    int size_ = 1;  // with the caller
    pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t start_ = PTHREAD_COND_INITIALIZER, done_ = PTHREAD_COND_INITIALIZER;
    bool stopping_ = false;
    long round_ = 0;
    int parts_ = 0, left_ = 0;
    void (*part_)(void*, int) = nullptr;
    void* context_ = nullptr;
};

Team& team() {
    static Team one;  // edgecl_run lets in one caller at a time
    return one;
}

}  // namespace

void set_threads(int n) {
    if (n != team().size()) team().resize(n);
}

int threads() { return team().size(); }

void run_parallel(int parts, void (*part)(void*, int), void* context) { team().run(parts, part, context); }

}
