// One step of few rows of the GRU without packing, as step.h takes it for the LSTM.
#pragma once

#include "gru_cell.h"
#include "step.h"

template <class Cell, class Number>
class GruStep final : public Work {
 public:
  explicit GruStep(const Problem& problem) : p(problem), hidden(static_cast<const float*>(problem.hidden)) {}

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
  static constexpr int kGates = Cell::kGates;
  static constexpr int kBlocks = Cell::kBlocks;

  void open_gates(int64_t unit, int64_t row) {
    int64_t left = p.hidden_size - unit * kWidth, place = row * p.hidden_size + unit * kWidth;
    const auto* inputs = static_cast<const typename Number::Element*>(p.inputs) + row * p.input_size;
    float preactivations[kBlocks][kWidth] = {};
    for (int64_t lane = 0; lane < std::min<int64_t>(kWidth, left); ++lane) {
      int64_t first = unit * kWidth + lane;
      vf sum[kBlocks] = {}, recurrent[kGates] = {};
      with_weight(p, p.input_weight, [&](auto* weight) {
        multiply_rows<Number>(sum, inputs, weight + first * p.input_size, p.input_size, p.hidden_size * p.input_size);
      });
      with_weight(p, p.recurrent_weight, [&](auto* weight) {
        multiply_rows<Number>(recurrent, hidden + row * p.hidden_size, weight + first * p.hidden_size, p.hidden_size,
                              p.hidden_size * p.hidden_size);
      });
      for (int gate = 0; gate < kGates; ++gate) sum[gate] += recurrent[gate];
      for (int block = 0; block < kBlocks; ++block) {
        preactivations[block][lane] = total(sum[block]);
        if (p.bias != nullptr) preactivations[block][lane] += p.bias[block * p.hidden_size + first];
      }
    }
    vf gates[kGates];
    for (int gate = 0; gate < kGates; ++gate) gates[gate] = sigmoid(load(preactivations[gate]));
    store_first(recalled + place, gates[Cell::kReset] * load_first(hidden + place, left), left);
    store_first(updates + place, Cell::effective_update(gates), left);
    store_first(candidates + place, load(preactivations[Cell::kCandidate]), left);
  }

  void advance(int64_t unit, int64_t row) {
    int64_t left = p.hidden_size - unit * kWidth, place = row * p.hidden_size + unit * kWidth;
    float products[kWidth] = {};
    with_weight(p, p.recurrent_weight, [&](auto* weight) {
      for (int64_t lane = 0; lane < std::min<int64_t>(kWidth, left); ++lane) {
        vf sum[1] = {};
        int64_t first = kGates * p.hidden_size + unit * kWidth + lane;
        multiply_rows<Number>(sum, recalled + row * p.hidden_size, weight + first * p.hidden_size, p.hidden_size, 0);
        products[lane] = total(sum[0]);
      }
    });
    vf candidate = tanh(load(products) + load_first(candidates + place, left));
    vf value = Cell::forward(load_first(updates + place, left), candidate, load_first(hidden + place, left));
    store_first(static_cast<float*>(p.final_hidden) + place, value, left);
  }

  const Problem& p;
  const float* hidden;
  int threads = 1;
  Barrier all;
  float *recalled, *updates, *candidates;
};
