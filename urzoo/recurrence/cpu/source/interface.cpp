// The functions that Python calls through ctypes.
#include "backward.h"
#include "forward.h"
#include "step.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// Calls `body` with the cell and the numbers of the problem.
template <class Body>
auto with_types(const Problem& problem, const Body& body) {
  auto with = [&](auto cell) { return problem.bf16 ? body(cell, BFloat16{}) : body(cell, Float32{}); };
  if (problem.tied) return problem.refined ? with(Lstm<true, true>{}) : with(Lstm<true, false>{});
  return problem.refined ? with(Lstm<false, true>{}) : with(Lstm<false, false>{});
}

template <template <class, class> class Pass>
int run_pass(const Problem& problem) {
  return with_types(problem, [&](auto cell, auto number) {
    Pass<decltype(cell), decltype(number)> work(problem);
    return run_on_threads(work, static_cast<int>(problem.threads));
  });
}

}  // namespace

EXPORT int64_t urzoo_vector_width() { return kWidth; }
EXPORT int64_t urzoo_problem_size() { return sizeof(Problem); }
EXPORT int urzoo_forward(const Problem* problem) { return run_pass<Forward>(*problem); }
EXPORT int urzoo_backward(const Problem* problem) { return run_pass<Backward>(*problem); }
EXPORT int urzoo_step(const Problem* problem) { return run_pass<Step>(*problem); }
EXPORT int urzoo_pack(const Problem* problem) { return run_pass<Pack>(*problem); }
EXPORT int64_t urzoo_packed_size(const Problem* problem) {
  return with_types(*problem, [&](auto cell, auto number) {
    return Pack<decltype(cell), decltype(number)>::floats(*problem);
  });
}
