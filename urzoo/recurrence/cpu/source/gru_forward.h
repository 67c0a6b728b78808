// The forward pass of the GRU. A step is two products: of the hidden state for the gates, and of what the reset gate
// lets through for the candidate; threads that share rows meet after each.
#pragma once

#include "gru_blocks.h"

template <class Cell>
class GruForward final : public Work {
 public:
  explicit GruForward(const Problem& problem) : p(problem), layout(p) {}

  void lay_out(Workspace& workspace, int threads) override {
    layout.split(threads);
    int64_t size = fused() ? 0 : p.input_size;
    weights = workspace.floats(layout.units * depth() * kBlocks * kWidth);
    input_weights = workspace.floats(layout.units * size * kBlocks * kWidth);
    biases = workspace.floats(layout.units * kBlocks * kWidth);
    hidden = workspace.floats(p.batch * layout.stride);
    recalled = workspace.floats(p.batch * layout.stride);
    updates = workspace.floats(p.batch * layout.stride);
    own_size = fused() ? 0 : layout.chunk_rows() * (size + layout.most_units() * kBlocks * kWidth);
    own = workspace.floats(own_size * threads);
  }

  void run(int thread) override {
    if (!layout.idle(thread)) prepare(thread);
    layout.all.wait();
    if (layout.idle(thread)) return;
    Barrier& group = layout.groups[layout.row_group(thread)];
    Range rows = layout.rows_of(thread), units = layout.units_of(thread);
    float* chunk_inputs = own + own_size * thread;
    float* projections = chunk_inputs + layout.chunk_rows() * p.input_size;
    for (int64_t step = 0; step < p.time; ++step) {
      int64_t slot = step % layout.chunk_steps();
      if (!fused() && slot == 0) project(step, rows, units, chunk_inputs, projections);
      Place place{step, layout.time_of(step), rows, nullptr};
      for (int64_t unit = units.begin; unit < units.end; ++unit) {
        place.start = projections + ((unit - units.begin) * chunk_size(rows) + slot * rows.size()) * kColumns;
        for_row_groups<kRows>(rows.size(), [&](auto count, int64_t first) {
          open_gates<decltype(count)::value>(place, unit, first);
        });
      }
      group.wait();
      const float* candidates = projections + units.size() * chunk_size(rows) * kColumns;
      for_blocks(units, [&](auto width, int64_t unit) {
        constexpr int Width = decltype(width)::value;
        place.start = candidates + ((unit - units.begin) * chunk_size(rows) + slot * rows.size() * Width) * kWidth;
        for_row_groups<max_rows(Width)>(rows.size(), [&](auto count, int64_t first) {
          advance<decltype(count)::value, Width>(place, unit, first);
        });
      });
      group.wait();
    }
    finish(rows, units);
  }

 private:
  static constexpr int kGates = Cell::kGates;
  static constexpr int kBlocks = Cell::kBlocks;
  static constexpr int kColumns = kGates * kWidth;
  static constexpr int kRows = max_rows(kGates);

  struct Place {
    int64_t step, time;
    Range rows;
    const float* start;  // projected inputs of the unit or block and the step, (rows, columns)
  };

  bool fused() const { return p.input_size <= kFusedInput; }
  int64_t depth() const { return p.hidden_size + (fused() ? p.input_size : 0); }
  int64_t chunk_size(Range rows) const { return layout.chunk_steps() * rows.size(); }

  // The weights of the gates come first, then those of the candidate.
  float* gate_weights(int64_t unit) const { return weights + unit * depth() * kColumns; }
  float* candidate_weights(int64_t unit) const {
    return weights + (layout.units * kColumns + unit * kWidth) * depth();
  }
  float* gate_input_weights(int64_t unit) const { return input_weights + unit * p.input_size * kColumns; }
  float* candidate_input_weights(int64_t unit) const {
    return input_weights + (layout.units * kColumns + unit * kWidth) * p.input_size;
  }
  float* candidate_biases(int64_t unit) const { return biases + layout.units * kColumns + unit * kWidth; }

  // Packs the weights of this thread's units, split further among the row groups, and its part of the initial state.
  void prepare(int thread) {
    Range units = layout.units_of(thread), rows = layout.rows_of(thread);
    Range mine = share(units.size(), layout.row_groups, layout.row_group(thread));
    for (int64_t unit = units.begin + mine.begin; unit < units.begin + mine.end; ++unit) {
      float* to = gate_weights(unit);
      pack_columns<Float32, kGates>(p.input_weight, p.hidden_size, p.input_size, unit,
                           fused() ? to : gate_input_weights(unit));
      if (fused()) to += p.input_size * kColumns;
      pack_columns<Float32, kGates>(p.recurrent_weight, p.hidden_size, p.hidden_size, unit, to);
      for (int block = 0; block < kBlocks; ++block) {
        int64_t first = block * p.hidden_size + unit * kWidth;
        vf bias = p.bias == nullptr ? vf{} : load_first(p.bias + first, layout.units_left(unit));
        store(block == kGates ? candidate_biases(unit) : biases + (unit * kGates + block) * kWidth, bias);
      }
    }
    int64_t turn = 0;
    for_blocks(units, [&](auto width, int64_t unit) {
      constexpr int Width = decltype(width)::value;
      if (turn++ % layout.row_groups != layout.row_group(thread)) return;
      const float* from = p.input_weight + kGates * p.hidden_size * p.input_size;
      float* to = candidate_weights(unit);
      pack_units<Width>(from, p.hidden_size, p.input_size, unit, fused() ? to : candidate_input_weights(unit));
      if (fused()) to += p.input_size * Width * kWidth;
      pack_units<Width>(p.recurrent_weight + kGates * p.hidden_size * p.hidden_size, p.hidden_size, p.hidden_size,
                        unit, to);
    });
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit)
        store(hidden + row * layout.stride + unit * kWidth,
              load_first(p.hidden + row * p.hidden_size + unit * kWidth, layout.units_left(unit)));
  }

  // The input part of the pre-activations of one chunk of steps: to[unit][slot][row][gate] of the gates, after them
  // to[block][slot][row][unit] of the candidate.
  void project(int64_t first_step, Range rows, Range units, float* chunk_inputs, float* to) {
    int64_t steps = std::min(layout.chunk_steps(), p.time - first_step), size = p.input_size;
    for (int64_t slot = 0; slot < steps; ++slot)
      for (int64_t row = 0; row < rows.size(); ++row) {
        int64_t from = (rows.begin + row) * p.time + layout.time_of(first_step + slot);
        std::memcpy(chunk_inputs + (slot * rows.size() + row) * size, p.inputs + from * size, sizeof(float) * size);
      }
    int64_t lines = steps * rows.size();
    for (int64_t unit = units.begin; unit < units.end; ++unit, to += chunk_size(rows) * kColumns)
      project_block<kGates>(chunk_inputs, lines, gate_input_weights(unit), biases + unit * kColumns, to);
    for_blocks(units, [&](auto width, int64_t unit) {
      constexpr int Width = decltype(width)::value;
      project_block<Width>(chunk_inputs, lines, candidate_input_weights(unit), candidate_biases(unit), to);
      to += chunk_size(rows) * Width * kWidth;
    });
  }

  template <int Columns>
  void project_block(const float* from, int64_t lines, const float* weight, const float* bias, float* to) {
    for_row_groups<max_rows(Columns)>(lines, [&](auto count, int64_t first) {
      constexpr int Rows = decltype(count)::value;
      vf sum[Rows][Columns] = {};
      accumulate<Float32, 1>(sum, from + first * p.input_size, p.input_size, weight, p.input_size);
      for (int row = 0; row < Rows; ++row)
        for (int column = 0; column < Columns; ++column)
          store(to + ((first + row) * Columns + column) * kWidth, sum[row][column] + load(bias + column * kWidth));
    });
  }

  // The pre-activations of `Rows` rows: the input part and the product of `state` with the packed weight.
  template <int Rows, int Columns>
  INLINE void preactivate(vf (&sum)[Rows][Columns], const Place& place, int64_t first, const float* state,
                          const float* weight, const float* bias) {
    int64_t row0 = place.rows.begin + first;
    if (fused()) {
      accumulate<Float32, 1>(sum, p.inputs + (row0 * p.time + place.time) * p.input_size, p.time * p.input_size, weight,
                    p.input_size);
      weight += p.input_size * Columns * kWidth;
    }
    accumulate_segments(sum, state + row0 * layout.stride, layout.stride, weight, p.hidden_size);
    // Added last: sums that begin small lose less to rounding.
    const float* start = fused() ? bias : place.start + first * Columns * kWidth;
    int64_t start_stride = fused() ? 0 : Columns * kWidth;
    for (int row = 0; row < Rows; ++row)
      for (int column = 0; column < Columns; ++column)
        sum[row][column] += load(start + row * start_stride + column * kWidth);
  }

  float* saved_at(int64_t time, int64_t unit, int64_t row) const {
    return p.saved + ((time * layout.units + unit) * p.batch + row) * kBlocks * kWidth;
  }

  // The gates of one vector of units: keeps the effective update gate and what the reset gate lets through.
  template <int Rows>
  void open_gates(const Place& place, int64_t unit, int64_t first) {
    vf sum[Rows][kGates] = {};
    preactivate(sum, place, first, hidden, gate_weights(unit), biases + unit * kColumns);
    int64_t row0 = place.rows.begin + first, at = row0 * layout.stride + unit * kWidth;
    float* saved = p.saved == nullptr ? nullptr : saved_at(place.time, unit, row0);
#pragma GCC unroll 8
    for (int row = 0; row < Rows; ++row, at += layout.stride) {
      for (int gate = 0; gate < kGates; ++gate) sum[row][gate] = sigmoid(sum[row][gate]);
      store(recalled + at, sum[row][Cell::kReset] * load(hidden + at));
      store(updates + at, Cell::effective_update(sum[row]));
      if (saved != nullptr)
        for (int gate = 0; gate < kGates; ++gate) store(saved + (row * kBlocks + gate) * kWidth, sum[row][gate]);
    }
  }

  // The candidate and the new hidden state of a block of units, in the place of the old one, which no other thread
  // reads any more.
  template <int Rows, int Width>
  void advance(const Place& place, int64_t unit, int64_t first) {
    vf sum[Rows][Width] = {};
    preactivate(sum, place, first, recalled, candidate_weights(unit), candidate_biases(unit));
#pragma GCC unroll 8
    for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
      for (int column = 0; column < Width; ++column) {
        int64_t absolute = place.rows.begin + first + row, one = unit + column;
        int64_t at = absolute * layout.stride + one * kWidth;
        vf candidate = tanh(sum[row][column]), value = load(hidden + at);
        if (layout.real(absolute, place.time)) value = Cell::forward(load(updates + at), candidate, value);
        store(hidden + at, value);
        store_first(p.outputs + (absolute * p.time + place.time) * p.hidden_size + one * kWidth, value,
                    layout.units_left(one));
        if (p.saved != nullptr) store(saved_at(place.time, one, absolute) + Cell::kCandidate * kWidth, candidate);
      }
  }

  void finish(Range rows, Range units) {
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit)
        store_first(p.final_hidden + row * p.hidden_size + unit * kWidth,
                    load(hidden + row * layout.stride + unit * kWidth), layout.units_left(unit));
  }

  const FloatProblem p;
  Layout layout;
  float *weights, *input_weights, *biases, *hidden, *recalled, *updates, *own;
  int64_t own_size;
};
