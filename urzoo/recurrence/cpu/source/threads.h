// The threads that share the work, and one pooled workspace.
//
// They are those of torch's OpenMP runtime where it can be found, and else a small pool of our own, whose idle threads
// sleep. The barrier inside the work is ours: runtimes differ in theirs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

// All threads of a group wait for each other. Spins, because a step of the recurrence takes microseconds, and yields
// after a while, because the processors may be fewer than the threads.
class Barrier {
 public:
  explicit Barrier(int threads = 1) : threads_(threads) {}
  void set_threads(int threads) { threads_ = threads; }
  void wait();

 private:
  // Each on a line of the cache of its own: who waits would take the line from those who arrive.
  alignas(64) std::atomic<int> arrived_{0};
  int threads_;
  alignas(64) std::atomic<uint32_t> round_{0};
};

// Consecutive blocks of floats out of one piece of memory, each on a cache line of its own. Without memory it only
// counts, so that the same code first measures and then lays out.
class Workspace {
 public:
  explicit Workspace(char* memory = nullptr) : memory_(memory) {}
  float* floats(int64_t count) {
    char* here = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (static_cast<size_t>(count) * sizeof(float) + 63) / 64 * 64;
    return reinterpret_cast<float*>(here);
  }
  size_t used() const { return used_; }

 private:
  char* memory_;
  size_t used_ = 0;
};

// The half-open range of the items that part `index` of `parts` takes.
struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};
inline Range share(int64_t count, int64_t parts, int64_t index) {
  return {count * index / parts, count * (index + 1) / parts};
}

// Work for several threads.
class Work {
 public:
  // Returns how many of `threads` have a share; the others take no part. Called twice: see Workspace.
  virtual int lay_out(Workspace& workspace, int threads) = 0;
  // Called once on each of these, with 0 <= thread < how many they are.
  virtual void run(int thread) = 0;

 protected:
  ~Work() = default;
};

// Runs the work on up to `threads` threads, the caller's among them. Calls from several threads take turns.
// Returns 0, or 1 if there is no memory for the workspace.
int run_on_threads(Work& work, int threads);
