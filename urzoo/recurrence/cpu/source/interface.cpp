// The functions that Python calls through ctypes.
#include "backward.h"
#include "forward.h"
#include "step.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

template <template <class, class> class Pass>
int run_pass(const Problem& problem) {
  auto run_as = [&](auto cell, auto number) {
    Pass<decltype(cell), decltype(number)> work(problem);
    return run_on_threads(work, static_cast<int>(problem.threads));
  };
  auto run = [&](auto cell) { return problem.bf16 ? run_as(cell, BFloat16{}) : run_as(cell, Float32{}); };
  if (problem.tied) return problem.refined ? run(Lstm<true, true>{}) : run(Lstm<true, false>{});
  return problem.refined ? run(Lstm<false, true>{}) : run(Lstm<false, false>{});
}

}  // namespace

EXPORT int64_t urzoo_vector_width() { return kWidth; }
EXPORT int64_t urzoo_problem_size() { return sizeof(Problem); }
EXPORT int urzoo_forward(const Problem* problem) { return run_pass<Forward>(*problem); }
EXPORT int urzoo_backward(const Problem* problem) { return run_pass<Backward>(*problem); }
EXPORT int urzoo_step(const Problem* problem) { return run_pass<Step>(*problem); }
