// One step of few rows, as decoding takes it: reads the weights once, in torch's order, because packing them would
// take longer than the step.
#pragma once

#include "cells.h"
#include "cumax.h"
#include "pack.h"

// sum[block] += vector * one weight row of the block, elementwise; the rows of the blocks lie `apart` values apart.
template <class Number, int Blocks, class Element, class Weight>
INLINE void multiply_rows(vf (&sum)[Blocks], const Element* vector, const Weight* weight, int64_t depth,
                          int64_t apart) {
  for (int64_t k = 0; k < depth; k += kWidth) {
    vf values = Number::rounded(load_first(vector + k, depth - k));
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

  void lay_out(Workspace& workspace, int threads_used) override {
    threads = threads_used;
    all.set_threads(threads);
    rows = Cell::kCoupled ? workspace.floats(p.batch * vectors(p.hidden_size) * kColumns) : nullptr;
  }

  void run(int thread) override {
    Range units = share(vectors(p.hidden_size), threads, thread);
    for (int64_t unit = units.begin; unit < units.end; ++unit)
      for (int64_t row = 0; row < p.batch; ++row) advance(unit, row);
    if constexpr (Cell::kCoupled) {
      all.wait();
      Range mine = share(p.batch, threads, thread);
      for (int64_t row = mine.begin; row < mine.end; ++row)
        for (int gate = 0; gate < kGates; ++gate) {
          float* here = place_of(0, row) + gate * kWidth;
          if (Cell::is_cumax(gate)) cumax(here, kColumns, p.hidden_size, here, kColumns, nullptr, 0);
        }
      all.wait();
      for (int64_t unit = units.begin; unit < units.end; ++unit)
        for (int64_t row = 0; row < p.batch; ++row) update(unit, row, place_of(unit, row));
    }
  }

 private:
  using Element = typename Number::Element;
  static constexpr int kGates = Cell::kGates;
  static constexpr int kColumns = kGates * kWidth;

  float* place_of(int64_t unit, int64_t row) const { return rows + (row * vectors(p.hidden_size) + unit) * kColumns; }

  void advance(int64_t unit, int64_t row) {
    int64_t lanes = std::min<int64_t>(kWidth, p.hidden_size - unit * kWidth);
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
    if constexpr (Cell::kCoupled)
      std::memcpy(place_of(unit, row), preactivations, sizeof(preactivations));
    else
      update(unit, row, preactivations[0]);
  }

  INLINE void update(int64_t unit, int64_t row, const float* preactivations) {
    int64_t left = p.hidden_size - unit * kWidth;
    vf gates[kGates];
    for (int gate = 0; gate < kGates; ++gate) gates[gate] = load(preactivations + gate * kWidth);
    int64_t place = row * p.hidden_size + unit * kWidth;
    vf cell = load_first(p.cell + place, left);
    store_first(static_cast<Element*>(p.final_hidden) + place, Cell::forward(gates, cell), left);
    store_first(p.final_cell + place, cell, left);
  }

  const Problem& p;
  int threads = 1;
  Barrier all;
  float* rows;  // the pre-activations of all units, where a gate couples them: [row][unit][gate][lane]
};
