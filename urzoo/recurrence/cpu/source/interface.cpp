// The functions that Python calls through ctypes.
#include "backward.h"
#include "forward.h"
#include "step.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// Calls `body` with the cell and the numbers of the problem.
template <class Cell, class Body>
auto with_cell(const Problem& problem, const Body& body) {
  return problem.bf16 ? body(Cell{}, BFloat16{}) : body(Cell{}, Float32{});
}

template <bool Tied, Auxiliary Second, class Body>
auto with_auxiliary(const Problem& problem, const Body& body) {
  return problem.ordered ? with_cell<Lstm<Tied, Second, true>>(problem, body)
                         : with_cell<Lstm<Tied, Second, false>>(problem, body);
}

template <bool Tied, class Body>
auto with_tie(const Problem& problem, const Body& body) {
  if (problem.master) return with_auxiliary<Tied, Auxiliary::kMaster>(problem, body);
  if (problem.refined) return with_auxiliary<Tied, Auxiliary::kRefine>(problem, body);
  return with_auxiliary<Tied, Auxiliary::kNone>(problem, body);
}

template <class Body>
auto with_types(const Problem& problem, const Body& body) {
  return problem.tied ? with_tie<true>(problem, body) : with_tie<false>(problem, body);
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
EXPORT int64_t urzoo_interface() { return kInterface; }
EXPORT int64_t urzoo_problem_size() { return sizeof(Problem); }
EXPORT void urzoo_use_tiles(int on) { tiles_in_use = on != 0; }
EXPORT int urzoo_forward(const Problem* problem) { return run_pass<CellForward>(*problem); }
EXPORT int urzoo_backward(const Problem* problem) { return run_pass<CellBackward>(*problem); }
EXPORT int urzoo_step(const Problem* problem) { return run_pass<CellStep>(*problem); }
EXPORT int urzoo_pack(const Problem* problem) {
  return with_types(*problem, [&](auto cell, auto number) {
    Pack<PackedWeights<decltype(number)>> work(*problem, decltype(cell)::kGates);
    return run_on_threads(work, static_cast<int>(problem->threads));
  });
}
EXPORT int64_t urzoo_packed_size(const Problem* problem) {
  return with_types(*problem, [&](auto cell, auto number) {
    return Pack<PackedWeights<decltype(number)>>::floats(*problem, decltype(cell)::kGates);
  });
}
