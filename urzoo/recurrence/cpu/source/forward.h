// The forward pass. Each thread takes rows of the batch through all steps; threads that share rows split the hidden
// units and meet once a step.
#pragma once

#include "cells.h"
#include "pack.h"
#include "tile.h"

template <class Cell>
class Forward final : public Work {
 public:
  explicit Forward(const Problem& problem) : p(problem), layout(problem) {}

  void lay_out(Workspace& workspace, int threads) override {
    layout.split(threads);
    weights = workspace.floats(layout.units * depth() * kColumns);
    projected_weights = fused() ? nullptr : workspace.floats(layout.units * p.input_size * kColumns);
    biases = workspace.floats(layout.units * kColumns);
    for (float*& half : hidden) half = workspace.floats(p.batch * layout.stride);
    cell = workspace.floats(p.batch * layout.stride);
    own_size = fused() ? 0 : layout.chunk_rows() * (p.input_size + layout.most_units() * kColumns);
    own = workspace.floats(own_size * threads);
  }

  void run(int thread) override {
    prepare(thread);
    layout.all.wait();
    if (layout.idle(thread)) return;
    Barrier& group = layout.groups[layout.row_group(thread)];
    Range rows = layout.rows_of(thread), units = layout.units_of(thread);
    float* chunk_inputs = own + own_size * thread;
    float* projections = chunk_inputs + layout.chunk_rows() * p.input_size;
    for (int64_t step = 0; step < p.time; ++step) {
      int64_t slot = step % layout.chunk_steps();
      if (!fused() && slot == 0) project(step, rows, units, chunk_inputs, projections);
      Place place{step, layout.time_of(step), nullptr};
      for (int64_t unit = units.begin; unit < units.end; ++unit) {
        place.start = projections + ((unit - units.begin) * layout.chunk_steps() + slot) * rows.size() * kColumns;
        for_row_groups<kRows>(rows.size(), [&](auto count, int64_t first) {
          tile<decltype(count)::value>(place, unit, rows.begin, first);
        });
      }
      group.wait();
    }
    finish(rows, units);
  }

 private:
  static constexpr int kGates = Cell::kGates;
  static constexpr int kColumns = kGates * kWidth;
  static constexpr int kRows = max_rows(kGates);

  struct Place {
    int64_t step, time;
    const float* start;  // projected inputs of the unit and the step, (rows, columns)
  };

  bool fused() const { return p.input_size <= kFusedInput; }
  int64_t depth() const { return p.hidden_size + (fused() ? p.input_size : 0); }
  int64_t chunk_size(Range rows) const { return layout.chunk_steps() * rows.size(); }

  // Packs the weights and the initial state, shared among all threads.
  void prepare(int thread) {
    Range units = share(layout.units, layout.threads, thread);
    for (int64_t unit = units.begin; unit < units.end; ++unit) {
      float* to = weights + unit * depth() * kColumns;
      if (fused()) {
        pack_columns<kGates>(p.input_weight, p.hidden_size, p.input_size, unit, to);
        to += p.input_size * kColumns;
      } else {
        pack_columns<kGates>(p.input_weight, p.hidden_size, p.input_size, unit,
                             projected_weights + unit * p.input_size * kColumns);
      }
      pack_columns<kGates>(p.recurrent_weight, p.hidden_size, p.hidden_size, unit, to);
      for (int gate = 0; gate < kGates; ++gate) {
        int64_t first = gate * p.hidden_size + unit * kWidth;
        vf bias = p.bias == nullptr ? vf{} : load_first(p.bias + first, layout.units_left(unit));
        store(biases + unit * kColumns + gate * kWidth, bias);
      }
    }
    Range rows = share(p.batch, layout.threads, thread);
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = 0; unit < layout.units; ++unit) {
        int64_t from = row * p.hidden_size + unit * kWidth, to = row * layout.stride + unit * kWidth;
        store(hidden[0] + to, load_first(p.hidden + from, layout.units_left(unit)));
        store(cell + to, load_first(p.cell + from, layout.units_left(unit)));
      }
  }

  // The input part of the pre-activations of one chunk of steps: to[unit][slot][row][column].
  void project(int64_t first_step, Range rows, Range units, float* chunk_inputs, float* to) {
    int64_t steps = std::min(layout.chunk_steps(), p.time - first_step), size = p.input_size;
    for (int64_t slot = 0; slot < steps; ++slot)
      for (int64_t row = 0; row < rows.size(); ++row) {
        int64_t from = (rows.begin + row) * p.time + layout.time_of(first_step + slot);
        std::memcpy(chunk_inputs + (slot * rows.size() + row) * size, p.inputs + from * size, sizeof(float) * size);
      }
    for (int64_t unit = units.begin; unit < units.end; ++unit) {
      const float* weight = projected_weights + unit * size * kColumns;
      float* place = to + (unit - units.begin) * chunk_size(rows) * kColumns;
      for_row_groups<kRows>(steps * rows.size(), [&](auto count, int64_t first) {
        constexpr int Rows = decltype(count)::value;
        vf sum[Rows][kGates] = {};
        accumulate<1>(sum, chunk_inputs + first * size, size, weight, size);
        for (int row = 0; row < Rows; ++row)
          for (int gate = 0; gate < kGates; ++gate)
            store(place + ((first + row) * kGates + gate) * kWidth,
                  sum[row][gate] + load(biases + (unit * kGates + gate) * kWidth));
      });
    }
  }

  // Pre-activations, gates and new state of `Rows` rows and one vector of units at one step.
  template <int Rows>
  void tile(const Place& place, int64_t unit, int64_t first_row, int64_t first) {
    int64_t row0 = first_row + first;
    const float* old_hidden = hidden[place.step % 2] + row0 * layout.stride;
    float* new_hidden = hidden[(place.step + 1) % 2] + row0 * layout.stride;
    float* cells = cell + row0 * layout.stride + unit * kWidth;
    const float* weight = weights + unit * depth() * kColumns;
    vf sum[Rows][kGates] = {};
    if (fused()) {
      accumulate<1>(sum, p.inputs + (row0 * p.time + place.time) * p.input_size, p.time * p.input_size, weight,
                    p.input_size);
      weight += p.input_size * kColumns;
    }
    accumulate<1>(sum, old_hidden, layout.stride, weight, std::min(p.hidden_size, kSegment));
    for (int64_t done = kSegment; done < p.hidden_size; done += kSegment) {
      vf part[Rows][kGates] = {};
      accumulate<1>(part, old_hidden + done, layout.stride, weight + done * kColumns,
                    std::min(p.hidden_size - done, kSegment));
      add(sum, part);
    }
    // Added last: sums that begin small lose less to rounding.
    const float* start = fused() ? biases + unit * kColumns : place.start + first * kColumns;
    int64_t start_stride = fused() ? 0 : kColumns;
    for (int row = 0; row < Rows; ++row)
      for (int gate = 0; gate < kGates; ++gate)
        sum[row][gate] += load(start + row * start_stride + gate * kWidth);

    float* saved = p.saved == nullptr
                       ? nullptr
                       : p.saved + ((place.time * layout.units + unit) * p.batch + row0) * (kGates + 1) * kWidth;
#pragma GCC unroll 8
    for (int row = 0; row < Rows; ++row) {
      vf new_cell = load(cells + row * layout.stride);
      vf value = Cell::forward(sum[row], new_cell);
      if (!layout.real(row0 + row, place.time)) {
        value = load(old_hidden + row * layout.stride + unit * kWidth);
        new_cell = load(cells + row * layout.stride);
      }
      store(cells + row * layout.stride, new_cell);
      store(new_hidden + row * layout.stride + unit * kWidth, value);
      store_first(p.outputs + ((row0 + row) * p.time + place.time) * p.hidden_size + unit * kWidth, value,
                  layout.units_left(unit));
      if (saved != nullptr) {
        for (int gate = 0; gate < kGates; ++gate) store(saved + gate * kWidth, sum[row][gate]);
        store(saved + kGates * kWidth, new_cell);
        saved += (kGates + 1) * kWidth;
      }
    }
  }

  void finish(Range rows, Range units) {
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit) {
        int64_t to = row * p.hidden_size + unit * kWidth, from = row * layout.stride + unit * kWidth;
        store_first(p.final_hidden + to, load(hidden[p.time % 2] + from), layout.units_left(unit));
        store_first(p.final_cell + to, load(cell + from), layout.units_left(unit));
      }
  }

  const Problem& p;
  Layout layout;
  float *weights, *projected_weights, *biases, *hidden[2], *cell, *own;
  int64_t own_size;
};
