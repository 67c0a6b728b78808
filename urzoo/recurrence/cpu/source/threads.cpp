#include "threads.h"

#include "tiles.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
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

void take_part_in(Work& work, int thread) {
  work.run(thread);
  release_tiles();
}

constexpr int kMostThreads = 256;

// How often a thread looks before it lets others run: not at all while there are more threads than processors, for then
// it keeps one from those that it waits for. Of the job that runs.
constexpr int kSpins = 4000;
std::atomic<int> spins{kSpins};

int processors() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : kMostThreads;
}
constexpr size_t kHugePage = size_t{1} << 21;

// The threads of torch's own OpenMP runtime, which after each of torch's operations keep their processors busy for some
// milliseconds, waiting for the next: threads of our own would share the processors with them. GNU's, LLVM's and
// Intel's runtime all have these functions; the one that torch has loaded is found at run time, or none.
class OpenMP {
 public:
  // Runs the work on exactly so many threads, or not at all.
  bool run(Work& work, int threads) const {
    if (parallel_ == nullptr || number_ == nullptr || count_ == nullptr || most_ == nullptr || inside_ == nullptr ||
        inside_())
      return false;
    // All that torch has are called: GNU's runtime ends those that a call leaves out, and the next begins new ones.
    int called = std::max(threads, most_());
    Call call{*this, work, threads, called, {false}};
    parallel_(take_part, &call, static_cast<unsigned>(called), 0);
    return call.done.load(std::memory_order_relaxed);
  }

 private:
  struct Call {
    const OpenMP& runtime;
    Work& work;
    int threads, called;
    std::atomic<bool> done;
  };

  static void take_part(void* given) {
    Call& call = *static_cast<Call*>(given);
    // A limit on threads gives fewer than were asked for, and the first would wait for the others for ever.
    if (call.runtime.count_() != call.called) return;
    int number = call.runtime.number_();
    if (number >= call.threads) return;
    take_part_in(call.work, number);
    if (number == 0) call.done.store(true, std::memory_order_relaxed);
  }

  template <class Function>
  static Function* find(const char* name) {
    return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
  }

  void (*parallel_)(void (*)(void*), void*, unsigned, unsigned) =
      find<void(void (*)(void*), void*, unsigned, unsigned)>("GOMP_parallel");
  int (*number_)() = find<int()>("omp_get_thread_num");
  int (*count_)() = find<int()>("omp_get_num_threads");
  int (*most_)() = find<int()>("omp_get_max_threads");
  int (*inside_)() = find<int()>("omp_in_parallel");
};

class Pool {
 public:
  // In a forked child the runtime's threads are gone, and it would wait for them: `forked` stays with our own.
  explicit Pool(bool forked) : forked_(forked) {}

  int run(Work& work, int threads) {
    std::lock_guard<std::mutex> turn(turn_);
    bool shared = threads > 1 && !forked_;
    threads = shared ? std::min(threads, kMostThreads) : grow(threads);
    if (!lay_out(work, threads)) return 1;
    if (threads > 1) spins.store(threads > processors_ ? 0 : kSpins, std::memory_order_relaxed);
    if (shared && threads > 1) {
      if (openmp_.run(work, threads)) return 0;
      threads = grow(threads);
      if (!lay_out(work, threads)) return 1;
    }
    run_on_own(work, threads);
    return 0;
  }

 private:
  // Of `threads` those remain that have a share of the work.
  bool lay_out(Work& work, int& threads) {
    Workspace measured;
    int used = work.lay_out(measured, threads);
    if (!reserve(measured.used())) return false;
    Workspace workspace(memory_);
    work.lay_out(workspace, threads);
    threads = used;
    return true;
  }

  void run_on_own(Work& work, int threads) {
    if (threads > 1) {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      wanted_ = threads;
      running_.store(threads - 1, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
      wake_.notify_all();
    }
    take_part_in(work, 0);
    if (threads > 1) {
      for (int spin = 0; running_.load(std::memory_order_acquire) != 0; ++spin) {
        if (spin < spins.load(std::memory_order_relaxed))
          relax();
        else
          sched_yield();
      }
    }
  }

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
        take_part_in(*work, index);
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

  const bool forked_;
  const int processors_ = processors();
  const OpenMP openmp_;
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
// locked mutex, so it begins again.
std::atomic<Pool*> pool{nullptr};
std::atomic<bool> forked{false};

// Registered as the library is loaded: a fork may come before the first call.
[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, [] {
  pool.store(nullptr);
  forked.store(true);
});

Pool& the_pool() {
  Pool* current = pool.load(std::memory_order_acquire);
  if (current == nullptr) {
    Pool* fresh = new Pool(forked.load());
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
  const int most = spins.load(std::memory_order_relaxed);
  for (int spin = 0; round_.load(std::memory_order_acquire) == round; ++spin) {
    if (spin < most)
      relax();
    else
      sched_yield();
  }
}

int run_on_threads(Work& work, int threads) { return the_pool().run(work, threads); }
