// One step of few rows, as decoding takes it: reads the weights once, in torch's order, because packing them would
// take longer than the step. So its sums run over the lanes of vectors, and its bits are not those of a sequence. The
// weights are of the type of the factors: rounding them would take longer than it spares.
#pragma once

#include "cells.h"
#include "cumax.h"
#include "pack.h"

// Lane i of the result: the total of the i-th vector.
INLINE vf totals(const vf (&rows)[kWidth]) {
  vi even, odd;
  for (int lane = 0; lane < kWidth; ++lane) {
    even[lane] = 2 * lane;
    odd[lane] = 2 * lane + 1;
  }
  vf sums[kWidth];
  for (int row = 0; row < kWidth; ++row) sums[row] = rows[row];
#pragma GCC unroll 4
  for (int left = kWidth / 2; left > 0; left /= 2)
#pragma GCC unroll 8
    for (int row = 0; row < left; ++row)
      sums[row] = picked(sums[2 * row], sums[2 * row + 1], even) +
                  picked(sums[2 * row], sums[2 * row + 1], odd);
  return sums[0];
}

// Lines of the batch that are multiplied with weights while these are in registers, and while they are in the
// first-level cache.
constexpr int lines_at_once(int blocks) { return blocks <= 4 ? 3 : 2; }
constexpr int kMostLines = 12;

// Rows of weights in each block that are: enough sums at once to keep the processor's adders busy, and no more than
// registers hold.
constexpr int rows_at_once(int blocks, int lines) {
  int rows = std::min(kWidth, blocks == 1 ? 8 : blocks == 2 ? 4 : 2);
  return kFewRegisters && lines > 1 ? rows / 2 : rows;
}

// sums[line][block][lane] = (if `fresh`, else +=) vector of a line * row `lane` of a block of weights, elementwise, for
// `lines` lines, a multiple of `Lines`, and a vector of rows of which `rows` are there. The vectors lie `stride` values
// apart, the blocks `apart` rows.
template <class Number, int Blocks, int Lines, class Element, class Weight>
void multiply_rows(vf (*sums)[kMostGates][kWidth], int64_t lines, int64_t rows, const Element* vectors, int64_t stride,
                   const Weight* weight, int64_t depth, int64_t apart, bool fresh) {
  constexpr int kRows = rows_at_once(Blocks, Lines), kValues = kWidth * Number::kPack;
  for (int64_t first = 0; first < kWidth; first += kRows) {
    // The last row once more in the place of those that are not there.
    const Weight* from[kRows];
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) from[row] = weight + std::min(first + row, rows - 1) * depth;
    for (int64_t line0 = 0; line0 < lines; line0 += Lines) {
      const Element* these = vectors + line0 * stride;
      vf sum[Lines][Blocks][kRows] = {};
      auto add = [&](int64_t k, int64_t count) {
        vf value[Lines];
#pragma GCC unroll 8
        for (int line = 0; line < Lines; ++line) value[line] = load_words<Number>(these + line * stride + k, count);
#pragma GCC unroll 8
        for (int block = 0; block < Blocks; ++block)
#pragma GCC unroll 8
          for (int row = 0; row < kRows; ++row) {
            vf factor = load_words<Number>(from[row] + block * apart * depth + k, count);
#pragma GCC unroll 8
            for (int line = 0; line < Lines; ++line)
              sum[line][block][row] = Number::Words::multiply_add(sum[line][block][row], value[line], factor);
          }
      };
      int64_t k = 0;
      if (first < rows)
        for (; k + kValues <= depth; k += kValues) add(k, kValues);
      if (first < rows && k < depth) add(k, depth - k);
#pragma GCC unroll 8
      for (int line = 0; line < Lines; ++line)
#pragma GCC unroll 8
        for (int block = 0; block < Blocks; ++block)
#pragma GCC unroll 8
          for (int row = 0; row < kRows; ++row) {
            vf& place = sums[line0 + line][block][first + row];
            place = fresh ? sum[line][block][row] : place + sum[line][block][row];
          }
    }
  }
}

// Some lines of a batch from the one numbered `first` on: one, or a multiple of those that are taken at once.
struct Some {
  int64_t first;
  int lines;
};

// The same for lines of `vectors` with the rows of one vector of units in `blocks` blocks, of which there are `Least` to
// `Most`, of a weight (blocks * hidden, depth) from the block `first` on.
template <class Number, int Least, int Most, class Element>
void multiply_unit(const Arguments& p, int blocks, vf (*sums)[kMostGates][kWidth], int64_t unit, Some some,
                   const Element* vectors, int64_t stride, const void* weight, int64_t depth, int first, bool fresh) {
  if constexpr (Least < Most)
    if (blocks > Least)
      return multiply_unit<Number, Least + 1, Most>(p, blocks, sums, unit, some, vectors, stride, weight, depth, first,
                                                    fresh);
  using Weight = typename Number::Element;
  auto* multiply = some.lines > 1 ? multiply_rows<Number, Least, lines_at_once(Least), Element, Weight>
                                  : multiply_rows<Number, Least, 1, Element, Weight>;
  multiply(sums, some.lines, std::min<int64_t>(kWidth, p.hidden_size - unit * kWidth), vectors + some.first * stride,
           stride, static_cast<const Weight*>(weight) + (first * p.hidden_size + unit * kWidth) * depth, depth,
           p.hidden_size, fresh);
}

// Calls `body` with all lines, those that come last one by one.
template <class Body>
INLINE void for_lines(int64_t batch, int at_once, const Body& body) {
  for (int64_t line = 0; line < batch;) {
    int64_t lines = std::min<int64_t>(batch - line, kMostLines) / at_once * at_once;
    Some some{line, lines == 0 ? 1 : static_cast<int>(lines)};
    body(some);
    line += some.lines;
  }
}

// Inputs and hidden state of a step as floats, where they are bfloat16 and the factors are not: a copy for each thread.
struct Widened {
  void lay_out(Workspace& workspace, int threads) {
    of_inputs = p.rounded & kInputs ? p.batch * p.input_size : 0;
    of_hidden = p.rounded & kHidden ? p.batch * p.hidden_size : 0;
    own_size = of_inputs + of_hidden == 0 ? 0 : row_stride(of_inputs + of_hidden);
    memory = workspace.floats(threads * own_size);
  }
  const void* inputs(int thread) const { return widen_all(p.inputs, of_inputs, place_of(thread)); }
  const void* hidden(int thread) const { return widen_all(p.hidden, of_hidden, place_of(thread) + of_inputs); }
  float* place_of(int thread) const { return memory + thread * own_size; }

  static const void* widen_all(const void* from, int64_t count, float* to) {
    if (count == 0) return from;
    for (int64_t at = 0; at < count; at += kWidth)
      store_first(to + at, load_first(static_cast<const uint16_t*>(from) + at, count - at), count - at);
    return to;
  }

  const Arguments& p;
  int64_t of_inputs = 0, of_hidden = 0, own_size = 0;
  float* memory = nullptr;
};

template <class Number>
class Step : public Work {
 public:
  Step(const Arguments& arguments, int gate_count, Gates cumax)
      : p(arguments), gates(gate_count), columns(gates * kWidth), cumax_gates(cumax) {}

  int lay_out(Workspace& workspace, int most_threads) override {
    threads = static_cast<int>(std::min<int64_t>(most_threads, unit_blocks(p)));
    all.set_threads(threads);
    widened.lay_out(workspace, threads);
    rows = cumax_gates.any() ? workspace.floats(p.batch * vectors(p.hidden_size) * columns) : nullptr;
    return threads;
  }

  void run(int thread) override {
    Range units = share_units(p, threads, thread);
    const void *inputs = widened.inputs(thread), *hidden = widened.hidden(thread);
    for (int64_t unit = units.begin; unit < units.end; ++unit)
      for_lines(p.batch, lines_at_once(gates), [&](Some some) { advance(unit, some, inputs, hidden); });
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

  const Arguments& p;

 private:
  float* place_of(int64_t unit, int64_t row) const { return rows + (row * vectors(p.hidden_size) + unit) * columns; }

  void advance(int64_t unit, Some some, const void* inputs, const void* hidden) {
    vf sums[kMostLines][kMostGates][kWidth];
    multiply(sums, unit, some, inputs, p.input_weight, p.input_size, true);
    multiply(sums, unit, some, hidden, p.recurrent_weight, p.hidden_size, false);
    for (int line = 0; line < some.lines; ++line) {
      int64_t row = some.first + line;
      float own[kMostGates * kWidth], *to = cumax_gates.any() ? place_of(unit, row) : own;
      for (int gate = 0; gate < gates; ++gate)
        store(to + gate * kWidth, totals(sums[line][gate]) + bias_of(p, gate, unit));
      if (!cumax_gates.any()) update(unit, row, own);
    }
  }

  void multiply(vf (*sums)[kMostGates][kWidth], int64_t unit, Some some, const void* vectors, const void* weight,
                int64_t depth, bool fresh) const {
    multiply_unit<Number, kFewestGates, kMostGates>(p, gates, sums, unit, some, static_cast<const Element*>(vectors),
                                                    depth, weight, depth, 0, fresh);
  }

  const int gates;
  const int64_t columns;
  const Gates cumax_gates;
  Widened widened{p};
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
  explicit CellStep(const Arguments& arguments) : Base(arguments, kGates, Cell::cumax_gates()) {}

 private:
  void update(int64_t unit, int64_t row, const float* preactivations) override {
    int64_t left = p.hidden_size - unit * kWidth;
    vf gates[kGates];
    for (int gate = 0; gate < kGates; ++gate) gates[gate] = load(preactivations + gate * kWidth);
    int64_t place = row * p.hidden_size + unit * kWidth;
    vf cell = load_first(p.cell + place, left);
    vf hidden = Cell::forward(gates, cell);
    if (p.rounded & kFinalHidden)
      store_first(static_cast<uint16_t*>(p.final_hidden) + place, hidden, left);
    else
      store_first(static_cast<Element*>(p.final_hidden) + place, hidden, left);
    store_first(p.final_cell + place, cell, left);
  }
};
