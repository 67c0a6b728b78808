// The backward pass, in chunks of steps: the gradients of the pre-activations live for one chunk only, after which
// they have gone into the gradients of the weights and of the inputs.
#pragma once

#include "cells.h"
#include "pack.h"
#include "tile.h"

template <class Cell>
class Backward final : public Work {
 public:
  explicit Backward(const Problem& problem) : p(problem), layout(problem) {}

  void lay_out(Workspace& workspace, int threads) override {
    layout.split(threads);
    factors = vectors_of(p.hidden_size + p.input_size + 1, kRows) * kRows;
    depth = layout.units * kColumns;
    hidden_weights = workspace.floats(layout.units * kWidth * depth);
    input_weights = p.inputs_grad == nullptr ? nullptr : workspace.floats(vectors(p.input_size) * kWidth * depth);
    hidden_grad = workspace.floats(p.batch * layout.stride);
    cell_grad = workspace.floats(p.batch * layout.stride);
    deltas = workspace.floats(layout.row_groups * layout.chunk_rows() * depth);
    panels = workspace.floats(layout.row_groups * layout.chunk_rows() * factors);
    weight_grads = workspace.floats(layout.row_groups * factors * depth);
  }

  void run(int thread) override {
    if (!layout.idle(thread)) prepare(thread);
    layout.all.wait();
    if (!layout.idle(thread)) sweep(thread);
    layout.all.wait();
    collect(thread);
  }

 private:
  static constexpr int kGates = Cell::kGates;
  static constexpr int kColumns = kGates * kWidth;
  static constexpr int kRows = max_rows(kGates);
  static constexpr int kWide = 4;  // vectors in a block of the products with the deltas

  struct Chunk {
    int64_t first, last;  // steps [first, last)
    Range rows;           // of the batch
    float* deltas;        // [unit][slot][row][column]
    float* panel;         // [block][slot][row][kRows]: hidden before the step, input, 1
    float* weight_grad;   // [unit][factor][column]
    int64_t lines;        // slots * rows that the buffers are laid out for
    int64_t line(int64_t step, int64_t row) const { return (step - first) * rows.size() + row; }
    int64_t used() const { return (last - first) * rows.size(); }
  };

  static int64_t vectors_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

  void prepare(int thread) {
    Range units = layout.units_of(thread), rows = layout.rows_of(thread);
    // The panels of the hidden units that this thread multiplies with; split further among the row groups.
    int64_t blocks = vectors_of(units.size(), kWide), inputs = vectors_of(vectors(p.input_size), kWide);
    Range mine = share(blocks, layout.row_groups, layout.row_group(thread));
    for (int64_t block = mine.begin; block < mine.end; ++block) {
      int64_t first = units.begin + block * kWide, count = std::min<int64_t>(kWide, units.end - first);
      pack_rows<kGates>(p.recurrent_weight, p.hidden_size, p.hidden_size, first, count,
                        hidden_weights + first * kWidth * depth);
    }
    if (p.inputs_grad != nullptr) {
      Range some = share(inputs, layout.row_groups * layout.unit_groups, thread);
      for (int64_t block = some.begin; block < some.end; ++block) {
        int64_t first = block * kWide, count = std::min<int64_t>(kWide, vectors(p.input_size) - first);
        pack_rows<kGates>(p.input_weight, p.hidden_size, p.input_size, first, count,
                          input_weights + first * kWidth * depth);
      }
    }
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit) {
        int64_t from = row * p.hidden_size + unit * kWidth, to = row * layout.stride + unit * kWidth;
        int64_t left = layout.units_left(unit);
        store(hidden_grad + to, p.final_hidden_grad == nullptr ? vf{} : load_first(p.final_hidden_grad + from, left));
        store(cell_grad + to, p.final_cell_grad == nullptr ? vf{} : load_first(p.final_cell_grad + from, left));
      }
  }

  void sweep(int thread) {
    Range units = layout.units_of(thread);
    int64_t group = layout.row_group(thread);
    Barrier& barrier = layout.groups[group];
    Chunk chunk;
    chunk.rows = layout.rows_of(thread);
    chunk.lines = layout.chunk_rows();
    chunk.deltas = deltas + group * chunk.lines * depth;
    chunk.panel = panels + group * chunk.lines * factors;
    chunk.weight_grad = weight_grads + group * factors * depth;
    int64_t part = thread % layout.unit_groups;
    for (chunk.last = p.time; chunk.last > 0; chunk.last = chunk.first) {
      chunk.first = (chunk.last - 1) / layout.chunk_steps() * layout.chunk_steps();
      for (int64_t step = chunk.last - 1; step >= chunk.first; --step) {
        for (int64_t unit = units.begin; unit < units.end; ++unit) differentiate(chunk, step, unit);
        barrier.wait();
        for (int64_t unit = units.begin; unit < units.end; unit += kWide)
          with_width(units.end - unit, [&](auto width) { recur<decltype(width)::value>(chunk, step, unit); });
      }
      fill_panel(chunk, share(chunk.used(), layout.unit_groups, part));
      barrier.wait();
      for (int64_t unit = units.begin; unit < units.end; ++unit) weigh(chunk, unit);
      if (p.inputs_grad != nullptr) {
        Range lines = share(chunk.used(), layout.unit_groups, part);
        for (int64_t block = 0; block < vectors(p.input_size); block += kWide)
          with_width(vectors(p.input_size) - block,
                     [&](auto width) { differentiate_inputs<decltype(width)::value>(chunk, lines, block); });
      }
      barrier.wait();
    }
    for (int64_t row = chunk.rows.begin; row < chunk.rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit) {
        int64_t to = row * p.hidden_size + unit * kWidth, from = row * layout.stride + unit * kWidth;
        if (p.hidden_grad != nullptr) store_first(p.hidden_grad + to, load(hidden_grad + from), layout.units_left(unit));
        if (p.cell_grad != nullptr) store_first(p.cell_grad + to, load(cell_grad + from), layout.units_left(unit));
      }
  }

  template <class Body>
  static INLINE void with_width(int64_t vectors_left, const Body& body) {
    call_with_rows<kWide>(std::min<int64_t>(kWide, vectors_left), 0, [&](auto width, int64_t) { body(width); });
  }

  // The gradients of one vector of units of the pre-activations at one step. What of the gradient of the hidden state
  // passes the step by stays in `hidden_grad`; `recur` adds the rest.
  void differentiate(const Chunk& chunk, int64_t step, int64_t unit) {
    int64_t time = layout.time_of(step), left = layout.units_left(unit);
    for (int64_t row = 0; row < chunk.rows.size(); ++row) {
      int64_t absolute = chunk.rows.begin + row, place = absolute * layout.stride + unit * kWidth;
      float* to = chunk.deltas + (unit * chunk.lines + chunk.line(step, row)) * kColumns;
      vf from_hidden = load(hidden_grad + place);
      if (p.outputs_grad != nullptr)
        from_hidden += load_first(p.outputs_grad + (absolute * p.time + time) * p.hidden_size + unit * kWidth, left);
      if (!layout.real(absolute, time)) {
        store(hidden_grad + place, from_hidden);
        for (int gate = 0; gate < kGates; ++gate) store(to + gate * kWidth, vf{});
        continue;
      }
      const float* saved = saved_at(time, unit, absolute);
      vf old_cell = step == 0 ? load_first(p.cell + absolute * p.hidden_size + unit * kWidth, left)
                              : load(saved_at(layout.time_of(step - 1), unit, absolute) + kColumns);
      vf gates[kGates];
      for (int gate = 0; gate < kGates; ++gate) gates[gate] = load(saved + gate * kWidth);
      vf from_cell = load(cell_grad + place);
      Cell::backward(gates, old_cell, load(saved + kColumns), from_hidden, from_cell);
      store(cell_grad + place, from_cell);
      store(hidden_grad + place, vf{});
      for (int gate = 0; gate < kGates; ++gate) store(to + gate * kWidth, gates[gate]);
    }
  }

  const float* saved_at(int64_t time, int64_t unit, int64_t row) const {
    return p.saved + ((time * layout.units + unit) * p.batch + row) * (kGates + 1) * kWidth;
  }

  // hidden_grad += deltas of the step times the recurrent weights, for `Width` vectors of units.
  template <int Width>
  void recur(const Chunk& chunk, int64_t step, int64_t unit) {
    const float* weight = hidden_weights + unit * kWidth * depth;
    for_row_groups<max_rows(Width)>(chunk.rows.size(), [&](auto count, int64_t first) {
      constexpr int Rows = decltype(count)::value;
      float* to = hidden_grad + (chunk.rows.begin + first) * layout.stride + unit * kWidth;
      vf sum[Rows][Width] = {};
      multiply<Rows, Width>(sum, chunk, chunk.line(step, first), weight);
      for (int row = 0; row < Rows; ++row)
        for (int column = 0; column < Width; ++column) {
          float* place = to + row * layout.stride + column * kWidth;
          store(place, load(place) + sum[row][column]);
        }
    });
  }

  // sum += deltas of `Rows` lines of the chunk times a packed weight.
  template <int Rows, int Width>
  INLINE void multiply(vf (&sum)[Rows][Width], const Chunk& chunk, int64_t line, const float* weight) {
    for (int64_t unit = 0; unit < layout.units; ++unit)
      accumulate<1>(sum, chunk.deltas + (unit * chunk.lines + line) * kColumns, kColumns,
                    weight + unit * kColumns * Width * kWidth, kColumns);
  }

  template <int Width>
  void differentiate_inputs(const Chunk& chunk, Range lines, int64_t block) {
    const float* weight = input_weights + block * kWidth * depth;
    for_row_groups<max_rows(Width)>(lines.size(), [&](auto count, int64_t first) {
      constexpr int Rows = decltype(count)::value;
      vf sum[Rows][Width] = {};
      multiply<Rows, Width>(sum, chunk, lines.begin + first, weight);
      for (int row = 0; row < Rows; ++row) {
        float* to = p.inputs_grad + place_of(chunk, lines.begin + first + row) * p.input_size;
        for (int column = 0; column < Width; ++column)
          if (int64_t done = (block + column) * kWidth; done < p.input_size)
            store_first(to + done, sum[row][column], p.input_size - done);
      }
    });
  }

  // The index (batch * time) of a line of the chunk.
  int64_t place_of(const Chunk& chunk, int64_t line) const {
    int64_t row = chunk.rows.begin + line % chunk.rows.size();
    return row * p.time + layout.time_of(chunk.first + line / chunk.rows.size());
  }

  // The left factor of the gradients of the weights: what each line was multiplied with in the forward pass.
  void fill_panel(const Chunk& chunk, Range lines) {
    for (int64_t line = lines.begin; line < lines.end; ++line) {
      int64_t step = chunk.first + line / chunk.rows.size(), row = chunk.rows.begin + line % chunk.rows.size();
      bool real = layout.real(row, layout.time_of(step));
      const float* before = step == 0 ? p.hidden + row * p.hidden_size
                                      : p.outputs + (row * p.time + layout.time_of(step - 1)) * p.hidden_size;
      const float* input = p.inputs + (row * p.time + layout.time_of(step)) * p.input_size;
      auto place = [&](int64_t factor) -> float& {
        return chunk.panel[((factor / kRows) * chunk.lines + line) * kRows + factor % kRows];
      };
      int64_t whole = p.hidden_size / kRows * kRows;
      for (int64_t factor = 0; factor < whole; factor += kRows)
        std::memcpy(&place(factor), before + factor, sizeof(float) * kRows);
      for (int64_t factor = whole; factor < p.hidden_size; ++factor) place(factor) = before[factor];
      // What stands in the padding may be anything, and zero times NaN is not zero.
      for (int64_t index = 0; index < p.input_size; ++index)
        place(p.hidden_size + index) = real ? input[index] : 0.0f;
      place(p.hidden_size + p.input_size) = 1.0f;
      for (int64_t factor = p.hidden_size + p.input_size + 1; factor < factors; ++factor) place(factor) = 0.0f;
    }
  }

  // weight_grad += panel^T deltas, for one vector of units.
  void weigh(const Chunk& chunk, int64_t unit) {
    const float* delta = chunk.deltas + unit * chunk.lines * kColumns;
    for (int64_t block = 0; block < factors / kRows; ++block) {
      float* to = chunk.weight_grad + (unit * factors + block * kRows) * kColumns;
      for (int64_t line = 0; line < chunk.used(); line += kSegment / 2) {
        vf sum[kRows][kGates] = {};
        accumulate<kRows>(sum, chunk.panel + (block * chunk.lines + line) * kRows, 1, delta + line * kColumns,
                          std::min(chunk.used() - line, kSegment / 2));
        // The sum over a segment begins at zero, which loses less to rounding than going on from the sum so far.
        bool first = chunk.last == p.time && line == 0;
        for (int row = 0; row < kRows; ++row)
          for (int gate = 0; gate < kGates; ++gate) {
            float* place = to + row * kColumns + gate * kWidth;
            store(place, first ? sum[row][gate] : load(place) + sum[row][gate]);
          }
      }
    }
  }

  // Adds up the row groups' gradients of the weights, always in the same order, and brings them into torch's order.
  void collect(int thread) {
    Range units = share(layout.units, layout.threads, thread);
    for (int64_t unit = units.begin; unit < units.end; ++unit) {
      float* sums = weight_grads + unit * factors * kColumns;
      for (int64_t group = 1; group < layout.row_groups; ++group) {
        const float* other = sums + group * factors * depth;
        for (int64_t index = 0; index < factors * kColumns; index += kWidth)
          store(sums + index, load(sums + index) + load(other + index));
      }
      int64_t lanes = std::min<int64_t>(kWidth, layout.units_left(unit));
      for (int64_t first = 0; first < factors; first += 16)
        for (int gate = 0; gate < kGates; ++gate)
          for (int64_t lane = 0; lane < lanes; ++lane) {
            int64_t to = gate * p.hidden_size + unit * kWidth + lane;
            for (int64_t factor = first; factor < std::min(first + 16, factors); ++factor)
              deliver(to, factor, sums[factor * kColumns + gate * kWidth + lane]);
          }
    }
  }

  INLINE void deliver(int64_t row, int64_t factor, float value) {
    if (factor < p.hidden_size)
      p.recurrent_weight_grad[row * p.hidden_size + factor] = value;
    else if (factor < p.hidden_size + p.input_size)
      p.input_weight_grad[row * p.input_size + factor - p.hidden_size] = value;
    else if (factor == p.hidden_size + p.input_size)
      p.bias_grad[row] = value;
  }

  const Problem& p;
  Layout layout;
  int64_t factors, depth;
  float *hidden_weights, *input_weights, *hidden_grad, *cell_grad, *deltas, *panels, *weight_grads;
};
