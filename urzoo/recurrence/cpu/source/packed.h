// The weights and the bias as the products with the inputs and the hidden states read them, packed for one
// pass or kept for many.
#pragma once

#include "pack.h"

template <class Number>
struct PackedWeights {
  PackedWeights(const Arguments& arguments, int gate_count) : p(arguments), gates(gate_count), columns(gates * kWidth) {}

  // A few inputs are part of the recurrent product.
  bool fused() const { return p.input_size <= kFusedInput; }
  int64_t input_words() const { return words<Number>(p.input_size); }
  int64_t hidden_words() const { return words<Number>(p.hidden_size); }
  int64_t unit_words() const { return (input_words() + hidden_words()) * columns; }

  const float* inputs(int64_t unit) const { return weights + unit * unit_words(); }
  const float* recurrent(int64_t unit) const { return inputs(unit) + input_words() * columns; }
  const float* bias(int64_t unit) const { return biases + unit * columns; }

  void place(Workspace& workspace) {
    weights = workspace.floats(vectors(p.hidden_size) * unit_words());
    biases = workspace.floats(vectors(p.hidden_size) * columns);
  }

  void pack(int64_t unit) {
    float* to = weights + unit * unit_words();
    with_weight<Number>(p, p.input_weight, [&](auto* weight) {
      pack_columns<Number>(weight, gates, p.hidden_size, p.input_size, unit, to);
    });
    with_weight<Number>(p, p.recurrent_weight, [&](auto* weight) {
      pack_columns<Number>(weight, gates, p.hidden_size, p.hidden_size, unit, to + input_words() * columns);
    });
    for (int gate = 0; gate < gates; ++gate)
      store(biases + unit * columns + gate * kWidth, bias_of(p, gate, unit));
  }

  const Arguments& p;
  const int gates;
  const int64_t columns;
  float *weights, *biases;
};

// In the workspace, or where they are packed already.
template <class Weights>
void lay_out_weights(Weights& packed, const Arguments& p, Workspace& workspace) {
  Workspace kept(reinterpret_cast<char*>(p.packed));
  packed.place(p.packed == nullptr ? workspace : kept);
}

// Packs the weights for many forward passes.
template <class Weights>
class Pack final : public Work {
 public:
  Pack(const Arguments& arguments, int gates) : p(arguments), packed(arguments, gates) {}

  static int64_t floats(const Arguments& arguments, int gates) {
    Workspace measured;
    Weights(arguments, gates).place(measured);
    return static_cast<int64_t>(measured.used() / sizeof(float));
  }

  int lay_out(Workspace& workspace, int most_threads) override {
    threads = static_cast<int>(std::min<int64_t>(most_threads, vectors(p.hidden_size)));
    lay_out_weights(packed, p, workspace);
    return threads;
  }

  void run(int thread) override {
    Range units = share(vectors(p.hidden_size), threads, thread);
    for (int64_t unit = units.begin; unit < units.end; ++unit) packed.pack(unit);
  }

 private:
  const Arguments& p;
  Weights packed;
  int threads = 1;
};
