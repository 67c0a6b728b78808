// One step of few rows of the GRU without packing, as step.h takes it for the LSTM.
#pragma once

#include "gru_cell.h"
#include "step.h"

template <class Number>
class GruStep final : public Work {
 public:
  explicit GruStep(const Problem& problem)
      : p(problem), gates(gru_gates(problem)), hidden(static_cast<const float*>(problem.hidden)) {}

  void lay_out(Workspace& workspace, int threads_used) override {
    threads = threads_used;
    all.set_threads(threads);
    recalled = workspace.floats(p.batch * p.hidden_size);
    updates = workspace.floats(p.batch * p.hidden_size);
    candidates = workspace.floats(p.batch * p.hidden_size);
  }

  void run(int thread) override {
    Range units = share(vectors(p.hidden_size), threads, thread);
    for (int64_t unit = units.begin; unit < units.end; ++unit)
      for (int64_t row = 0; row < p.batch; ++row) open_gates(unit, row);
    all.wait();
    for (int64_t unit = units.begin; unit < units.end; ++unit)
      for (int64_t row = 0; row < p.batch; ++row) advance(unit, row);
  }

 private:
  void open_gates(int64_t unit, int64_t row) {
    int64_t left = p.hidden_size - unit * kWidth, place = row * p.hidden_size + unit * kWidth;
    const auto* inputs = static_cast<const typename Number::Element*>(p.inputs) + row * p.input_size;
    float preactivations[Gru<true>::kBlocks * kWidth] = {};
    for (int64_t lane = 0; lane < std::min<int64_t>(kWidth, left); ++lane) {
      int64_t first = unit * kWidth + lane;
      vf sum[Gru<true>::kBlocks] = {}, recurrent[Gru<true>::kGates] = {};
      with_weight(p, p.input_weight, [&](auto* weight) {
        multiply_rows<Number>(gates + 1, sum, inputs, weight + first * p.input_size, p.input_size,
                              p.hidden_size * p.input_size);
      });
      with_weight(p, p.recurrent_weight, [&](auto* weight) {
        multiply_rows<Number>(gates, recurrent, hidden + row * p.hidden_size, weight + first * p.hidden_size,
                              p.hidden_size, p.hidden_size * p.hidden_size);
      });
      for (int gate = 0; gate < gates; ++gate) sum[gate] += recurrent[gate];
      for (int block = 0; block <= gates; ++block) {
        float* to = preactivations + block * kWidth + lane;
        *to = total(sum[block]);
        if (p.bias != nullptr) *to += p.bias[block * p.hidden_size + first];
      }
    }
    store_first(candidates + place, load(preactivations + gates * kWidth), left);
    for (int gate = 0; gate < gates; ++gate)
      store(preactivations + gate * kWidth, sigmoid(load(preactivations + gate * kWidth)));
    vf reset = load(preactivations + Gru<false>::kReset * kWidth);
    store_first(recalled + place, reset * load_first(hidden + place, left), left);
    store_first(updates + place, effective_update(p.refined, preactivations), left);
  }

  void advance(int64_t unit, int64_t row) {
    int64_t left = p.hidden_size - unit * kWidth, place = row * p.hidden_size + unit * kWidth;
    float products[kWidth] = {};
    with_weight(p, p.recurrent_weight, [&](auto* weight) {
      for (int64_t lane = 0; lane < std::min<int64_t>(kWidth, left); ++lane) {
        vf sum[1] = {};
        int64_t first = gates * p.hidden_size + unit * kWidth + lane;
        multiply_rows<Number>(1, sum, recalled + row * p.hidden_size, weight + first * p.hidden_size, p.hidden_size, 0);
        products[lane] = total(sum[0]);
      }
    });
    vf candidate = tanh(load(products) + load_first(candidates + place, left));
    vf value = Gru<false>::forward(load_first(updates + place, left), candidate, load_first(hidden + place, left));
    store_first(static_cast<float*>(p.final_hidden) + place, value, left);
  }

  const Problem& p;
  const int gates;
  const float* hidden;
  int threads = 1;
  Barrier all;
  float *recalled, *updates, *candidates;
};
