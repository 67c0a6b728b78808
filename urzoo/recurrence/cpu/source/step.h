// One step of few rows, as decoding takes it: reads the weights once, in torch's order, because packing them would
// take longer than the step.
#pragma once

#include "cells.h"
#include "pack.h"

// sum[block] += vector * one weight row of the block, elementwise; the rows of the blocks lie `apart` values apart.
template <class Number, int Blocks, class Weight>
INLINE void multiply_rows(vf (&sum)[Blocks], const typename Number::Element* vector, const Weight* weight,
                          int64_t depth, int64_t apart) {
  for (int64_t k = 0; k < depth; k += kWidth) {
    vf values = load_first(vector + k, depth - k);
#pragma GCC unroll 8
    for (int block = 0; block < Blocks; ++block)
      sum[block] += values * Number::rounded(load_first(weight + block * apart + k, depth - k));
  }
}

INLINE float total(vf sum) {
  float parts[kWidth];
  store(parts, sum);
  for (int half = kWidth / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) parts[lane] += parts[lane + half];
  return parts[0];
}

template <class Cell, class Number>
class Step final : public Work {
 public:
  explicit Step(const Problem& problem) : p(problem) {}

  void lay_out(Workspace&, int threads_used) override { threads = threads_used; }

  void run(int thread) override {
    Range units = share(vectors(p.hidden_size), threads, thread);
    for (int64_t unit = units.begin; unit < units.end; ++unit)
      for (int64_t row = 0; row < p.batch; ++row) advance(unit, row);
  }

 private:
  using Element = typename Number::Element;
  static constexpr int kGates = Cell::kGates;

  void advance(int64_t unit, int64_t row) {
    int64_t left = p.hidden_size - unit * kWidth, lanes = std::min<int64_t>(kWidth, left);
    float preactivations[kGates][kWidth] = {};
    for (int64_t lane = 0; lane < lanes; ++lane) {
      vf sum[kGates] = {};
      int64_t first = unit * kWidth + lane;
      with_weight(p, p.input_weight, [&](auto* weight) {
        multiply_rows<Number>(sum, static_cast<const Element*>(p.inputs) + row * p.input_size,
                              weight + first * p.input_size, p.input_size, p.hidden_size * p.input_size);
      });
      with_weight(p, p.recurrent_weight, [&](auto* weight) {
        multiply_rows<Number>(sum, static_cast<const Element*>(p.hidden) + row * p.hidden_size,
                              weight + first * p.hidden_size, p.hidden_size, p.hidden_size * p.hidden_size);
      });
      for (int gate = 0; gate < kGates; ++gate) {
        preactivations[gate][lane] = total(sum[gate]);
        if (p.bias != nullptr) preactivations[gate][lane] += p.bias[gate * p.hidden_size + first];
      }
    }
    vf gates[kGates];
    for (int gate = 0; gate < kGates; ++gate) gates[gate] = load(preactivations[gate]);
    int64_t place = row * p.hidden_size + unit * kWidth;
    vf cell = load_first(p.cell + place, left);
    store_first(static_cast<Element*>(p.final_hidden) + place, Cell::forward(gates, cell), left);
    store_first(p.final_cell + place, cell, left);
  }

  const Problem& p;
  int threads = 1;
};
