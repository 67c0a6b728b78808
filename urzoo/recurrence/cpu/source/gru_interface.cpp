// The GRU's functions that Python calls through ctypes, beside those of interface.cpp; `cell` plays no part in them.
#include "gru_backward.h"
#include "gru_forward.h"
#include "gru_step.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

template <template <class, class> class Pass>
int run_pass(const Problem& problem) {
  auto run_as = [&](auto cell, auto number) {
    Pass<decltype(cell), decltype(number)> work(problem);
    return run_on_threads(work, static_cast<int>(problem.threads));
  };
  auto run = [&](auto cell) { return problem.bf16 ? run_as(cell, BFloat16{}) : run_as(cell, Float32{}); };
  return problem.refined ? run(Gru<true>{}) : run(Gru<false>{});
}

}  // namespace

EXPORT int urzoo_gru_forward(const Problem* problem) { return run_pass<GruForward>(*problem); }
EXPORT int urzoo_gru_backward(const Problem* problem) { return run_pass<GruBackward>(*problem); }
EXPORT int urzoo_gru_step(const Problem* problem) { return run_pass<GruStep>(*problem); }
