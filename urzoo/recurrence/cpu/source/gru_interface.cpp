// The GRU's functions that Python calls through ctypes, beside those of interface.cpp; `cell` plays no part in them.
#include "gru_backward.h"
#include "gru_forward.h"
#include "gru_step.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

template <class Body>
auto with_types(const Problem& problem, const Body& body) {
  auto with_cell = [&](auto cell) { return problem.bf16 ? body(cell, BFloat16{}) : body(cell, Float32{}); };
  return problem.refined ? with_cell(Gru<true>{}) : with_cell(Gru<false>{});
}

template <template <class, class> class Pass>
int run_pass(const Problem& problem) {
  return with_types(problem, [&](auto cell, auto number) {
    Pass<decltype(cell), decltype(number)> work(problem);
    return run_on_threads(work, static_cast<int>(problem.threads));
  });
}

template <class Cell, class Number>
using PackGru = Pack<PackedGru<Cell, Number>>;

}  // namespace

EXPORT int urzoo_gru_forward(const Problem* problem) { return run_pass<GruForward>(*problem); }
EXPORT int urzoo_gru_backward(const Problem* problem) { return run_pass<GruBackward>(*problem); }
EXPORT int urzoo_gru_step(const Problem* problem) { return run_pass<GruStep>(*problem); }
EXPORT int urzoo_gru_pack(const Problem* problem) { return run_pass<PackGru>(*problem); }
EXPORT int64_t urzoo_gru_packed_size(const Problem* problem) {
  return with_types(*problem, [&](auto cell, auto number) {
    return PackGru<decltype(cell), decltype(number)>::floats(*problem);
  });
}
