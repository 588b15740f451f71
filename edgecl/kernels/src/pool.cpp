// A fixed team of threads, kept between calls. Part 0 runs on the caller.
#include "pool.h"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace edgecl {
namespace {

class Team {
public:
    ~Team() { resize(1); }

    void resize(int n) {
        {
            std::lock_guard<std::mutex> hold(mutex_);
            stopping_ = true;
        }
        start_.notify_all();
        for (auto& t : team_) t.join();
        team_.clear();
        stopping_ = false;
        for (int i = 1; i < n; i++) team_.emplace_back([this, i, seen = round_] { work(i, seen); });
    }

    int size() const { return static_cast<int>(team_.size()) + 1; }

    void run(int parts, void (*part)(void*, int), void* context) {
        {
            std::lock_guard<std::mutex> hold(mutex_);
            parts_ = parts, part_ = part, context_ = context, left_ = size() - 1, round_++;
        }
        start_.notify_all();
        part(context, 0);
        std::unique_lock<std::mutex> hold(mutex_);
        done_.wait(hold, [this] { return left_ == 0; });
    }

private:
    void work(int i, long seen) {
        for (;;) {
            std::unique_lock<std::mutex> hold(mutex_);
            start_.wait(hold, [&] { return stopping_ || round_ != seen; });
            if (stopping_) return;
            seen = round_;
            auto part = i < parts_ ? part_ : nullptr;
            hold.unlock();
            if (part) part(context_, i);
            hold.lock();
            if (--left_ == 0) done_.notify_one();
        }
    }

    std::vector<std::thread> team_;
    std::mutex mutex_;
    std::condition_variable start_, done_;
    bool stopping_ = false;
    long round_ = 0;
    int parts_ = 0, left_ = 0;
    void (*part_)(void*, int) = nullptr;
    void* context_ = nullptr;
};

Team& team() {
    static Team one;
    return one;
}

}  // namespace

void set_threads(int n) {
    if (n != team().size()) team().resize(n);
}

int threads() { return team().size(); }

void run_parallel(int parts, void (*part)(void*, int), void* context) { team().run(parts, part, context); }

}
