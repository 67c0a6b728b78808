// One step of few rows, as decoding takes it: reads the weights once, in torch's order, because packing them would
// take longer than the step.
#pragma once

#include "cells.h"
#include "cumax.h"
#include "pack.h"

// sum[block] += vector * one weight row of the block, elementwise; the rows of the blocks lie `apart` values apart.
template <class Number, int Blocks, class Element, class Weight>
void multiply_rows(vf* sums, const Element* vector, const Weight* weight, int64_t depth, int64_t apart) {
  vf sum[Blocks];
  for (int block = 0; block < Blocks; ++block) sum[block] = sums[block];
  for (int64_t k = 0; k < depth; k += kWidth) {
    vf values = Number::rounded(load_first(vector + k, depth - k));
#pragma GCC unroll 8
    for (int block = 0; block < Blocks; ++block)
      sum[block] += values * Number::rounded(load_first(weight + block * apart + k, depth - k));
  }
  for (int block = 0; block < Blocks; ++block) sums[block] = sum[block];
}

template <class Number, class Element, class Weight>
void multiply_rows(int blocks, vf* sums, const Element* vector, const Weight* weight, int64_t depth, int64_t apart) {
  switch (blocks) {
    case 1: return multiply_rows<Number, 1>(sums, vector, weight, depth, apart);
    case 2: return multiply_rows<Number, 2>(sums, vector, weight, depth, apart);
    case 3: return multiply_rows<Number, 3>(sums, vector, weight, depth, apart);
    case 4: return multiply_rows<Number, 4>(sums, vector, weight, depth, apart);
    case 5: return multiply_rows<Number, 5>(sums, vector, weight, depth, apart);
    default: return multiply_rows<Number, kMostGates>(sums, vector, weight, depth, apart);
  }
}

INLINE float total(vf sum) {
  float parts[kWidth];
  store(parts, sum);
  for (int half = kWidth / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) parts[lane] += parts[lane + half];
  return parts[0];
}

template <class Number>
class Step : public Work {
 public:
  Step(const Problem& problem, int gate_count, Gates cumax)
      : p(problem), gates(gate_count), columns(gates * kWidth), cumax_gates(cumax) {}

  void lay_out(Workspace& workspace, int threads_used) override {
    threads = threads_used;
    all.set_threads(threads);
    rows = cumax_gates.any() ? workspace.floats(p.batch * vectors(p.hidden_size) * columns) : nullptr;
  }

  void run(int thread) override {
    Range units = share(vectors(p.hidden_size), threads, thread);
    for (int64_t unit = units.begin; unit < units.end; ++unit)
      for (int64_t row = 0; row < p.batch; ++row) advance(unit, row);
    if (!cumax_gates.any()) return;
    all.wait();
    Range mine = share(p.batch, threads, thread);
    for (int64_t row = mine.begin; row < mine.end; ++row)
      for (int gate = 0; gate < gates; ++gate) {
        float* here = place_of(0, row) + gate * kWidth;
        if (cumax_gates.has(gate)) cumax(here, columns, p.hidden_size, here, columns, nullptr, 0);
      }
    all.wait();
    for (int64_t unit = units.begin; unit < units.end; ++unit)
      for (int64_t row = 0; row < p.batch; ++row) update(unit, row, place_of(unit, row));
  }

 protected:
  using Element = typename Number::Element;

  // From the pre-activations of a vector of units the new state.
  virtual void update(int64_t unit, int64_t row, const float* preactivations) = 0;

  const Problem& p;

 private:
  float* place_of(int64_t unit, int64_t row) const { return rows + (row * vectors(p.hidden_size) + unit) * columns; }

  void advance(int64_t unit, int64_t row) {
    int64_t lanes = std::min<int64_t>(kWidth, p.hidden_size - unit * kWidth);
    float preactivations[kMostGates * kWidth] = {};
    for (int64_t lane = 0; lane < lanes; ++lane) {
      vf sum[kMostGates] = {};
      int64_t first = unit * kWidth + lane;
      with_weight(p, p.input_weight, [&](auto* weight) {
        multiply_rows<Number>(gates, sum, static_cast<const Element*>(p.inputs) + row * p.input_size,
                              weight + first * p.input_size, p.input_size, p.hidden_size * p.input_size);
      });
      with_weight(p, p.recurrent_weight, [&](auto* weight) {
        multiply_rows<Number>(gates, sum, static_cast<const Element*>(p.hidden) + row * p.hidden_size,
                              weight + first * p.hidden_size, p.hidden_size, p.hidden_size * p.hidden_size);
      });
      for (int gate = 0; gate < gates; ++gate) {
        float* to = preactivations + gate * kWidth + lane;
        *to = total(sum[gate]);
        if (p.bias != nullptr) *to += p.bias[gate * p.hidden_size + first];
      }
    }
    if (cumax_gates.any())
      std::memcpy(place_of(unit, row), preactivations, static_cast<size_t>(columns) * sizeof(float));
    else
      update(unit, row, preactivations);
  }

  const int gates;
  const int64_t columns;
  const Gates cumax_gates;
  int threads = 1;
  Barrier all;
  float* rows;  // the pre-activations of all units, where a gate couples them: [row][unit][gate][lane]
};

template <class Cell, class Number>
class CellStep final : public Step<Number> {
  using Base = Step<Number>;
  using Base::p;
  using typename Base::Element;
  static constexpr int kGates = Cell::kGates;

 public:
  explicit CellStep(const Problem& problem) : Base(problem, kGates, Cell::cumax_gates()) {}

 private:
  void update(int64_t unit, int64_t row, const float* preactivations) override {
    int64_t left = p.hidden_size - unit * kWidth;
    vf gates[kGates];
    for (int gate = 0; gate < kGates; ++gate) gates[gate] = load(preactivations + gate * kWidth);
    int64_t place = row * p.hidden_size + unit * kWidth;
    vf cell = load_first(p.cell + place, left);
    store_first(static_cast<Element*>(p.final_hidden) + place, Cell::forward(gates, cell), left);
    store_first(p.final_cell + place, cell, left);
  }
};
