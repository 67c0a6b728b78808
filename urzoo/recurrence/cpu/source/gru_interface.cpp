// The GRU's functions that Python calls through ctypes, beside those of interface.cpp; `cell` plays no part in them.
#include "gru_backward.h"
#include "gru_forward.h"
#include "gru_step.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

template <class Body>
auto with_number(const Problem& problem, const Body& body) {
  return problem.bf16 ? body(BFloat16{}) : body(Float32{});
}

template <template <class> class Pass>
int run_pass(const Problem& problem) {
  return with_number(problem, [&](auto number) {
    Pass<decltype(number)> work(problem);
    return run_on_threads(work, static_cast<int>(problem.threads));
  });
}

}  // namespace

EXPORT int urzoo_gru_forward(const Problem* problem) { return run_pass<GruForward>(*problem); }
EXPORT int urzoo_gru_backward(const Problem* problem) { return run_pass<GruBackward>(*problem); }
EXPORT int urzoo_gru_step(const Problem* problem) { return run_pass<GruStep>(*problem); }
EXPORT int urzoo_gru_pack(const Problem* problem) {
  return with_number(*problem, [&](auto number) {
    Pack<PackedGru<decltype(number)>> work(*problem, gru_gates(*problem));
    return run_on_threads(work, static_cast<int>(problem->threads));
  });
}
EXPORT int64_t urzoo_gru_packed_size(const Problem* problem) {
  return with_number(*problem, [&](auto number) {
    return Pack<PackedGru<decltype(number)>>::floats(*problem, gru_gates(*problem));
  });
}
