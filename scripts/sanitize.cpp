// Runs the fused back end over odd shapes on tensors of exactly their size, for scripts/sanitize. Ends with 1 if a
// result that should be a number is not one.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "arguments.h"

extern "C" int64_t urzoo_vector_width();
extern "C" int urzoo_supports(const char*);
extern "C" void urzoo_use_tiles(int);
extern "C" int urzoo_forward(const Arguments*);
extern "C" int urzoo_backward(const Arguments*);
extern "C" int urzoo_pack(const Arguments*);
extern "C" int64_t urzoo_packed_size(const Arguments*);
extern "C" int urzoo_step(const Arguments*);
extern "C" int urzoo_gru_forward(const Arguments*);
extern "C" int urzoo_gru_backward(const Arguments*);
extern "C" int urzoo_gru_pack(const Arguments*);
extern "C" int64_t urzoo_gru_packed_size(const Arguments*);
extern "C" int urzoo_gru_step(const Arguments*);

namespace {

uint32_t state = 1;
float noise() {
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(state >> 8) / (1 << 24) - 0.5f;
}
std::vector<float> random(int64_t size) {
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = noise();
  return values;
}
bool all_finite(const std::vector<float>& values) {
  for (float value : values)
    if (!std::isfinite(value)) return false;
  return true;
}

// A tensor of floats or of the upper halves of the same floats.
struct Tensor {
  Tensor(std::vector<float> values, bool bf16) : floats(std::move(values)) {
    if (!bf16) return;
    for (float value : floats) {
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      halves.push_back(static_cast<uint16_t>(bits >> 16));
    }
    floats = {};
  }
  void* data() { return halves.empty() ? static_cast<void*>(floats.data()) : halves.data(); }
  bool finite() const {
    for (uint16_t half : halves)
      if ((half & 0x7f80) == 0x7f80) return false;
    return all_finite(floats);
  }
  std::vector<float> floats;
  std::vector<uint16_t> halves;
};

// The GRU goes by `gru`, and counts as tied: it has as many blocks of weights as a tied LSTM, and no cell.
bool check(int64_t batch, int64_t time, int64_t input, int64_t hidden, int64_t tied, int64_t refined, int64_t master,
           int64_t ordered, bool gru, bool masked, int64_t threads, bool bf16, bool weights_bf16, int64_t segment) {
  int64_t gates = 3 + !tied + refined + 2 * master, width = urzoo_vector_width(), vectors = (hidden + width - 1) / width;
  auto empty = [](int64_t size) { return std::vector<float>(static_cast<size_t>(size), NAN); };
  auto as_factor = [&](std::vector<float> values) { return Tensor(std::move(values), bf16); };
  // The GRU's hidden state is carried over time and therefore float32.
  auto as_hidden = [&](std::vector<float> values) { return Tensor(std::move(values), bf16 && !gru); };
  Tensor x = as_factor(random(batch * time * input)), h = as_hidden(random(batch * hidden));
  Tensor wi(random(gates * hidden * input), weights_bf16), wh(random(gates * hidden * hidden), weights_bf16);
  auto bias = random(gates * hidden), gate_bias = random(hidden), c = random(batch * hidden), grad_c = random(batch * hidden);
  Tensor grad = as_factor(random(batch * time * hidden)), grad_h = as_hidden(random(batch * hidden));
  std::vector<uint8_t> mask(static_cast<size_t>(batch * time));
  for (uint8_t& step : mask) step = noise() > 0;
  Tensor out = as_factor(empty(batch * time * hidden)), last_h = as_hidden(empty(batch * hidden));
  auto last_c = empty(batch * hidden), saved = empty(time * vectors * batch * (gates + (!gru || bf16)) * width);
  if (segment != 0) saved = empty((time + segment - 1) / segment * batch * hidden);
  auto dx = empty(batch * time * input), dwi = empty(gates * hidden * input), dwh = empty(gates * hidden * hidden);
  auto db = empty(gates * hidden), dh = empty(batch * hidden), dc = empty(batch * hidden);
  Arguments p = {batch, time, input, hidden, tied, refined, master, ordered, masked, bf16,
               weights_bf16, 0, 1, 2, segment, threads,
               x.data(),    wi.data(),   wh.data(),   bias.data(), gate_bias.data(), h.data(), c.data(), masked ? mask.data() : nullptr,
               nullptr,  // not packed yet
               out.data(),  last_h.data(), last_c.data(), saved.data(), grad.data(), grad_h.data(), grad_c.data(),
               dx.data(),   dwi.data(),  dwh.data(),  db.data(),   dh.data(),  dc.data()};
  if (gru) p.cell = p.final_cell_grad = p.final_cell = p.cell_grad = nullptr;
  if ((gru ? urzoo_gru_forward : urzoo_forward)(&p) != 0 || (gru ? urzoo_gru_backward : urzoo_backward)(&p) != 0)
    return false;
  for (const auto* result : {&saved, &dx, &dwi, &dwh, &db, &dh})
    if (!all_finite(*result)) return false;
  if (!out.finite() || !last_h.finite() || (!gru && !(all_finite(last_c) && all_finite(dc)))) return false;
  // With weights packed before the forward pass gives the same.
  Tensor before = last_h;
  auto packed = empty((gru ? urzoo_gru_packed_size : urzoo_packed_size)(&p));
  p.packed = packed.data();
  if ((gru ? urzoo_gru_pack : urzoo_pack)(&p) != 0 || (gru ? urzoo_gru_forward : urzoo_forward)(&p) != 0) return false;
  if (before.floats != last_h.floats || before.halves != last_h.halves) return false;
  // The step takes the first of the inputs and the memory of the final state, which must hold a number again. It reads
  // weights of the type of the factors only.
  if (bf16 != weights_bf16) return true;
  last_h = as_hidden(empty(batch * hidden));
  p.final_hidden = last_h.data();
  p.time = 1;
  if ((gru ? urzoo_gru_step : urzoo_step)(&p) != 0 || !last_h.finite()) return false;
  if (bf16) return true;
  // Float factors of what is bfloat16: inputs and biases, of the LSTM the hidden state too.
  Tensor rounded_x(x.floats, true), rounded_h(h.floats, true), rounded_last(empty(batch * hidden), true);
  Tensor rounded_bias(bias, true), rounded_gate_bias(gate_bias, true);
  p.rounded = kInputs | kBiases | (gru ? 0 : kHidden | kFinalHidden);
  p.inputs = rounded_x.data(), p.bias = rounded_bias.data(), p.gate_bias = rounded_gate_bias.data();
  if (!gru) p.hidden = rounded_h.data(), p.final_hidden = rounded_last.data();
  return (gru ? urzoo_gru_step : urzoo_step)(&p) == 0 && (gru ? last_h : rounded_last).finite();
}

}  // namespace

int check_all(bool bf16_only) {
  const int64_t shapes[][4] = {{1, 1, 1, 1},  {3, 2, 3, 17},  {7, 63, 65, 48},  {64, 2, 1, 100},
                               {1, 9, 65, 256}, {2, 40, 16, 33}, {5, 300, 17, 16}, {13, 7, 1, 100}};
  for (const auto& shape : shapes)
    for (int64_t gating = 0; gating < 16; ++gating)
      for (int64_t threads : {1, 2, 3})
        for (int form = 0; form < 6; ++form) {
          // The LSTM with no auxiliary gate, refine gate and master gates, each tied or not, ordered or not; the GRU.
          bool gru = gating >= 12, tied = gru || gating & 1, ordered = gating & 2;
          bool refined = gru ? gating & 1 : gating / 4 == 1, master = gating / 4 == 2;
          bool bf16 = form % 3 > 0, weights_bf16 = form % 3 > 1;
          if (bf16_only && !bf16) continue;
          if (check(shape[0], shape[1], shape[2], shape[3], tied, refined, master, ordered, gru, threads == 2, threads,
                    bf16, weights_bf16, form < 3 ? 0 : 4))
            continue;
          std::printf("wrong at batch %ld time %ld input %ld hidden %ld\n", long(shape[0]), long(shape[1]),
                      long(shape[2]), long(shape[3]));
          return 1;
        }
  return 0;
}

int main() {
  if (int wrong = check_all(false)) return wrong;
#if defined(__AVX512BF16__)
  // The same library on the processor's matrix tiles.
  if (urzoo_supports("amx")) {
    urzoo_use_tiles(1);
    return check_all(true);
  }
#endif
  return 0;
}
