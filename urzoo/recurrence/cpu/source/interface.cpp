// The functions that Python calls through ctypes.
#include "backward.h"
#include "forward.h"
#include "step.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// Calls `body` with the cell and the numbers that the arguments ask for.
template <class Cell, class Body>
auto with_cell(const Arguments& arguments, const Body& body) {
  return arguments.bf16 ? body(Cell{}, BFloat16{}) : body(Cell{}, Float32{});
}

template <bool Tied, Auxiliary Second, class Body>
auto with_auxiliary(const Arguments& arguments, const Body& body) {
  return arguments.ordered ? with_cell<Lstm<Tied, Second, true>>(arguments, body)
                         : with_cell<Lstm<Tied, Second, false>>(arguments, body);
}

template <bool Tied, class Body>
auto with_tie(const Arguments& arguments, const Body& body) {
  if (arguments.master) return with_auxiliary<Tied, Auxiliary::kMaster>(arguments, body);
  if (arguments.refined) return with_auxiliary<Tied, Auxiliary::kRefine>(arguments, body);
  return with_auxiliary<Tied, Auxiliary::kNone>(arguments, body);
}

template <class Body>
auto with_types(const Arguments& arguments, const Body& body) {
  return arguments.tied ? with_tie<true>(arguments, body) : with_tie<false>(arguments, body);
}

template <template <class, class> class Pass>
int run_pass(const Arguments& arguments) {
  return with_types(arguments, [&](auto cell, auto number) {
    Pass<decltype(cell), decltype(number)> work(arguments);
    return run_on_threads(work, static_cast<int>(arguments.threads));
  });
}

}  // namespace

EXPORT int64_t urzoo_vector_width() { return kWidth; }
EXPORT int64_t urzoo_interface() { return kInterface; }
EXPORT int64_t urzoo_arguments_size() { return sizeof(Arguments); }
EXPORT void urzoo_use_tiles(int on) { tiles_in_use = on != 0; }
EXPORT int urzoo_forward(const Arguments* arguments) { return run_pass<CellForward>(*arguments); }
EXPORT int urzoo_backward(const Arguments* arguments) { return run_pass<CellBackward>(*arguments); }
EXPORT int urzoo_step(const Arguments* arguments) { return run_pass<CellStep>(*arguments); }
EXPORT int urzoo_pack(const Arguments* arguments) {
  return with_types(*arguments, [&](auto cell, auto number) {
    Pack<PackedWeights<decltype(number)>> work(*arguments, decltype(cell)::kGates);
    return run_on_threads(work, static_cast<int>(arguments->threads));
  });
}
EXPORT int64_t urzoo_packed_size(const Arguments* arguments) {
  return with_types(*arguments, [&](auto cell, auto number) {
    return Pack<PackedWeights<decltype(number)>>::floats(*arguments, decltype(cell)::kGates);
  });
}
