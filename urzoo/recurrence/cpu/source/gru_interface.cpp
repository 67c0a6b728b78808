// The GRU's functions that Python calls through ctypes, beside those of interface.cpp; `cell` plays no part in them.
#include "gru_backward.h"
#include "gru_forward.h"
#include "gru_step.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

template <class Body>
auto with_number(const Arguments& arguments, const Body& body) {
  return arguments.bf16 ? body(BFloat16{}) : body(Float32{});
}

template <template <class> class Pass>
int run_pass(const Arguments& arguments) {
  return with_number(arguments, [&](auto number) {
    Pass<decltype(number)> work(arguments);
    return run_on_threads(work, static_cast<int>(arguments.threads));
  });
}

}  // namespace

EXPORT int urzoo_gru_forward(const Arguments* arguments) { return run_pass<GruForward>(*arguments); }
EXPORT int urzoo_gru_backward(const Arguments* arguments) { return run_pass<GruBackward>(*arguments); }
EXPORT int urzoo_gru_step(const Arguments* arguments) { return run_pass<GruStep>(*arguments); }
EXPORT int urzoo_gru_pack(const Arguments* arguments) {
  return with_number(*arguments, [&](auto number) {
    Pack<PackedGru<decltype(number)>> work(*arguments, gru_gates(*arguments));
    return run_on_threads(work, static_cast<int>(arguments->threads));
  });
}
EXPORT int64_t urzoo_gru_packed_size(const Arguments* arguments) {
  return with_number(*arguments, [&](auto number) {
    return Pack<PackedGru<decltype(number)>>::floats(*arguments, gru_gates(*arguments));
  });
}
