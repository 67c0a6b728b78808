#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace {

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr int kMostThreads = 256;
constexpr int kSpins = 4000;
constexpr size_t kHugePage = size_t{1} << 21;

class Pool {
 public:
  int run(Work& work, int threads) {
    std::lock_guard<std::mutex> turn(turn_);
    threads = grow(threads);
    Workspace measured;
    work.lay_out(measured, threads);
    if (!reserve(measured.used())) return 1;
    Workspace workspace(memory_);
    work.lay_out(workspace, threads);
    if (threads > 1) {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      wanted_ = threads;
      running_.store(threads - 1, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
      wake_.notify_all();
    }
    work.run(0);
    if (threads > 1) {
      for (int spin = 0; running_.load(std::memory_order_acquire) != 0; ++spin) {
        if (spin < kSpins)
          relax();
        else
          sched_yield();
      }
    }
    return 0;
  }

 private:
  // Starts threads until there are `threads` with the caller's; returns how many there are, if the system refuses.
  int grow(int threads) {
    if (threads > kMostThreads) threads = kMostThreads;
    // Signals are for the interpreter's threads, not for these.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      for (; workers_ + 1 < threads; ++workers_) {
        uint32_t seen = generation_.load(std::memory_order_relaxed);
        std::thread([this, index = workers_ + 1, seen] { serve(index, seen); }).detach();
      }
    } catch (const std::system_error&) {
      threads = workers_ + 1;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return threads < 1 ? 1 : threads;
  }

  void serve(int index, uint32_t seen) {
    for (;;) {
      for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen; ++spin) relax();
      Work* work;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        seen = generation_.load(std::memory_order_relaxed);
        work = index < wanted_ ? work_ : nullptr;
      }
      if (work != nullptr) {
        work->run(index);
        running_.fetch_sub(1, std::memory_order_release);
      }
    }
  }

  // Memory in huge pages: at 4 KiB a page the faults would cost as much as the arithmetic.
  bool reserve(size_t bytes) {
    if (bytes <= reserved_) return true;
    if (memory_ != nullptr) munmap(memory_, reserved_);
    memory_ = nullptr;
    reserved_ = 0;
    bytes = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return false;
#ifdef MADV_HUGEPAGE
    madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    memory_ = static_cast<char*>(memory);
    reserved_ = bytes;
    return true;
  }

  std::mutex turn_;   // one job at a time
  std::mutex mutex_;  // guards work_ and wanted_
  std::condition_variable wake_;
  std::atomic<uint32_t> generation_{0};
  std::atomic<int> running_{0};
  Work* work_ = nullptr;
  int wanted_ = 0;
  int workers_ = 0;
  char* memory_ = nullptr;
  size_t reserved_ = 0;
};

// Never destroyed: its threads may outlive every static object. A forked child has none of the threads and perhaps a
// locked mutex, so it begins anew.
std::atomic<Pool*> pool{nullptr};
std::once_flag fork_handler;

Pool& the_pool() {
  std::call_once(fork_handler, [] { pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); }); });
  Pool* current = pool.load(std::memory_order_acquire);
  if (current == nullptr) {
    Pool* fresh = new Pool;
    if (pool.compare_exchange_strong(current, fresh))
      current = fresh;
    else
      delete fresh;
  }
  return *current;
}

}  // namespace

void Barrier::wait() {
  if (threads_ == 1) return;
  uint32_t round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (int spin = 0; round_.load(std::memory_order_acquire) == round; ++spin) {
    if (spin < kSpins)
      relax();
    else
      sched_yield();
  }
}

int run_on_threads(Work& work, int threads) { return the_pool().run(work, threads); }
