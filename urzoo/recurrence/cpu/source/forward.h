// The forward pass. Each thread takes rows of the batch through all steps; threads that share rows split the hidden
// units and meet once a step. Where a gate couples all units of a row, the pre-activations of the step wait in a buffer
// until the row is complete. What depends on the cell beyond the number of its gates is in `CellForward`.
#pragma once

#include "cells.h"
#include "cumax.h"
#include "packed.h"
#include "tile.h"

template <class Number>
class Forward : public Work {
 public:
  Forward(const Arguments& arguments, int gate_count, Gates cumax)
      : p(arguments), layout(arguments), gates(gate_count), columns(gates * kWidth), cumax_gates(cumax),
        packed(arguments, gates) {}

  int lay_out(Workspace& workspace, int most_threads) override {
    const int threads = layout.split(workspace, most_threads);
    lay_out_weights(packed, p, workspace);
    hidden_stride = row_stride(layout.units * kWidth / Number::kPack);
    coupled_stride = row_stride(layout.units * columns);
    for (float*& half : hidden) half = workspace.floats(p.batch * hidden_stride);
    cell = workspace.floats(p.batch * layout.stride);
    preactivations = cumax_gates.any() ? workspace.floats(p.batch * coupled_stride) : nullptr;
    int64_t projected = packed.fused() ? 0 : layout.chunk_rows() * layout.most_units() * columns;
    chunk_inputs_size = layout.chunk_rows() * packed.input_words();
    sums_size = std::max<int64_t>(layout.most_rows(), at_once(gates)) * columns;
    own_size = chunk_inputs_size + sums_size + projected;
    own = workspace.floats(own_size * threads);
    int64_t written = p.batch * p.time * layout.units * kWidth;
    bool saves = p.saved != nullptr && p.segment == 0;
    saved_past = saves && written * (gates + 1) > kCached && at_vector(p.saved);
    // Half a cache line past the caches would cost more than it spares: whole ones only, which vectors of 64 bytes are.
    outputs_past = Number::kPack == 1 && kWidth == 16 && p.hidden_size % kWidth == 0 && at_vector(p.outputs) &&
                   written * (saves ? gates + 2 : 1) > kCached;
    return threads;
  }

  void run(int thread) override {
    prepare(thread);
    layout.all.wait();
    Barrier& group = layout.groups[layout.row_group(thread)];
    Range rows = layout.rows_of(thread), units = layout.units_of(thread);
    Own mine;
    mine.inputs = own + own_size * thread;
    mine.sums = mine.inputs + chunk_inputs_size;
    mine.projections = mine.sums + sums_size;
    for (int64_t step = 0; step < p.time; ++step) {
      int64_t slot = step % layout.chunk_steps();
      if (slot == 0) project(step, rows, units, mine);
      if (rows.size() == 1) {
        // Of a single row the products of several vectors of units are taken at once.
        int64_t several = at_once(gates), parts = units.size() / several, last = units.begin + parts * several;
        for (int64_t index = 0; index < parts; ++index) {
          int64_t unit = units.begin + layout.part_of(step, index, parts) * several;
          advance(step, slot, rows, units, unit, nullptr, true, mine);
        }
        for (int64_t unit = last; unit < units.end; ++unit)
          advance(step, slot, rows, units, unit, nullptr, false, mine);
      } else {
        for (int64_t index = 0; index < units.size(); ++index) {
          int64_t next = units.begin + layout.part_after(step, index, units.size());
          advance(step, slot, rows, units, units.begin + layout.part_of(step, index, units.size()),
                  packed.recurrent(next), false, mine);
        }
      }
      if (cumax_gates.any()) {
        group.wait();
        Range some = share(rows.size(), layout.unit_groups, thread % layout.unit_groups);
        for (int64_t row = some.begin; row < some.end; ++row) couple(step, rows.begin + row);
        group.wait();
        for (int64_t unit = units.begin; unit < units.end; ++unit)
          finish_unit(step, unit, rows, preactivations_at(rows.begin, unit), coupled_stride);
      }
      group.wait();
    }
    finish(rows, units);
    settle();
  }

 protected:
  using Element = typename Number::Element;

  // From the pre-activations of a vector of units, `stride` floats from row to row: gates, new state and outputs.
  virtual void finish_unit(int64_t step, int64_t unit, Range rows, const float* sums, int64_t stride) = 0;

  // Where gates and cell are kept; null if they are not.
  float* saved_at(int64_t step, int64_t unit, int64_t row) const {
    if (p.saved == nullptr || p.segment != 0) return nullptr;
    return p.saved + ((layout.time_of(step) * layout.units + unit) * p.batch + row) * (gates + 1) * kWidth;
  }

  const Arguments& p;
  Layout layout;
  const int gates;
  const int64_t columns;
  float *hidden[2], *cell;
  int64_t hidden_stride;
  bool saved_past, outputs_past;

 private:
  using Words = typename Number::Words;
  // Floats that may still be in the caches when they are read next.
  static constexpr int64_t kCached = int64_t{6} << 20;

  // What a thread has for itself, each for its rows: the inputs of a chunk of steps and the sums of one unit; the
  // projected inputs of the chunk, (unit, slot, row, column).
  struct Own {
    float *inputs, *sums, *projections;
  };

  // Packs the weights and the initial state, shared among all threads.
  void prepare(int thread) {
    Range units = share(layout.units, layout.threads, thread);
    if (p.packed == nullptr)
      for (int64_t unit = units.begin; unit < units.end; ++unit) packed.pack(unit);
    Range rows = share(p.batch, layout.threads, thread);
    const Element* initial = static_cast<const Element*>(p.hidden);
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = 0; unit < layout.units; ++unit) {
        int64_t from = row * p.hidden_size + unit * kWidth, left = layout.units_left(unit);
        Number::store_factors(hidden[0] + row * hidden_stride, unit * kWidth, load_first(initial + from, left));
        store(cell + row * layout.stride + unit * kWidth, load_first(p.cell + from, left));
      }
  }

  // The inputs of a chunk of steps as factors, and if they are many their part of the pre-activations.
  void project(int64_t first_step, Range rows, Range units, const Own& mine) {
    int64_t steps = std::min(layout.chunk_steps(), p.time - first_step), size = packed.input_words();
    for (int64_t slot = 0; slot < steps; ++slot)
      for (int64_t row = 0; row < rows.size(); ++row) {
        int64_t from = (rows.begin + row) * p.time + layout.time_of(first_step + slot);
        copy_words<Number>(mine.inputs + (slot * rows.size() + row) * size,
                           static_cast<const Element*>(p.inputs) + from * p.input_size, p.input_size);
      }
    if (packed.fused()) return;
    for (int64_t unit = units.begin; unit < units.end; ++unit) {
      float* to = mine.projections + (unit - units.begin) * layout.chunk_steps() * rows.size() * columns;
      multiply_lines<Words>(gates, {steps * rows.size(), mine.inputs, size, packed.inputs(unit), gates, size, to,
                                    columns, true});
    }
  }

  // Pre-activations, gates and new state of one vector of units at one step, or of as many as are taken at once; `next`
  // are the weights of those after them.
  void advance(int64_t step, int64_t slot, Range rows, Range units, int64_t unit, const float* next, bool several,
               const Own& mine) {
    bool coupled = cumax_gates.any();
    float* sums = coupled ? preactivations_at(rows.begin, unit) : mine.sums;
    int64_t stride = coupled ? coupled_stride : columns;
    int64_t started = layout.chunk_steps() * rows.size() * columns;
    Product product{rows.size(), hidden[step % 2] + rows.begin * hidden_stride, hidden_stride, packed.recurrent(unit),
                    gates, packed.hidden_words(), sums, stride, true, next};
    product.bias = packed.bias(unit);
    if (packed.fused()) {
      product.more_a = mine.inputs + slot * rows.size() * packed.input_words();
      product.more_b = packed.inputs(unit);
      product.more_depth = packed.input_words();
    } else {
      product.start = mine.projections + (unit - units.begin) * started + slot * rows.size() * columns;
      product.start_stride = columns;
    }
    for (int64_t row = rows.begin; row < rows.end; ++row)
      __builtin_prefetch(cell + row * layout.stride + unit * kWidth, 1);
    int count = 1;
    if (several)
      count = multiply_line<Words>(gates, product, {packed.unit_words(), columns, started, columns});
    else
      multiply_lines<Words>(gates, product);
    if (!coupled)
      for (int one = 0; one < count; ++one) finish_unit(step, unit + one, rows, sums + one * columns, stride);
  }

  float* preactivations_at(int64_t row, int64_t unit) const {
    return preactivations + row * coupled_stride + unit * columns;
  }

  // The gates of a row that are cumulative softmaxes: the sums replace the pre-activations, the shares are saved.
  void couple(int64_t step, int64_t row) {
    float *row_at = preactivations_at(row, 0), *saved = saved_at(step, 0, row);
    for (int gate = 0; gate < gates; ++gate) {
      float* to = row_at + gate * kWidth;
      if (cumax_gates.has(gate))
        cumax(to, columns, p.hidden_size, to, columns, saved == nullptr ? nullptr : saved + gate * kWidth,
              p.batch * (gates + 1) * kWidth);
    }
  }

  void finish(Range rows, Range units) {
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit) {
        int64_t to = row * p.hidden_size + unit * kWidth, left = layout.units_left(unit);
        vf value = Number::load_factors(hidden[p.time % 2] + row * hidden_stride, unit * kWidth);
        store_first(static_cast<Element*>(p.final_hidden) + to, value, left);
        store_first(p.final_cell + to, load(cell + row * layout.stride + unit * kWidth), left);
      }
  }

  const Gates cumax_gates;
  PackedWeights<Number> packed;
  float *preactivations, *own;
  int64_t coupled_stride, chunk_inputs_size, sums_size, own_size;
};

template <class Cell, class Number>
class CellForward final : public Forward<Number> {
  using Base = Forward<Number>;
  using Base::p, Base::layout, Base::cell, Base::hidden, Base::hidden_stride, Base::saved_past, Base::outputs_past;
  using Element = typename Number::Element;
  static constexpr int kGates = Cell::kGates;

 public:
  explicit CellForward(const Arguments& arguments) : Base(arguments, kGates, Cell::cumax_gates()) {}

 private:
  INLINE void keep(float* to, vf value) const { saved_past ? store_past(to, value) : store(to, value); }

  void finish_unit(int64_t step, int64_t unit, Range rows, const float* sums, int64_t stride) override {
    int64_t time = layout.time_of(step), left = layout.units_left(unit), row0 = rows.begin;
    const float* old_hidden = hidden[step % 2] + row0 * hidden_stride;
    float* new_hidden = hidden[(step + 1) % 2] + row0 * hidden_stride;
    float* cells = cell + row0 * layout.stride + unit * kWidth;
    Element* outputs = static_cast<Element*>(p.outputs) + (row0 * p.time + time) * p.hidden_size + unit * kWidth;
    float *saved = this->saved_at(step, unit, row0), *kept = nullptr;
    if (p.saved != nullptr && p.segment != 0 && step % p.segment == 0)
      kept = p.saved + (step / p.segment * p.batch + row0) * p.hidden_size + unit * kWidth;
    for (int64_t row = 0; row < rows.size(); ++row) {
      vf gates[kGates];
      for (int gate = 0; gate < kGates; ++gate) gates[gate] = load(sums + row * stride + gate * kWidth);
      vf old_cell = load(cells + row * layout.stride), new_cell = old_cell;
      vf value = Cell::forward(gates, new_cell);
      if (!layout.real(row0 + row, time)) {
        value = Number::load_factors(old_hidden + row * hidden_stride, unit * kWidth);
        new_cell = old_cell;
      }
      store(cells + row * layout.stride, new_cell);
      // Beyond the last unit may stand what the inputs made of zeros, and there it would meet the weights' zeros.
      Number::store_factors(new_hidden + row * hidden_stride, unit * kWidth, first_of(value, left));
      if (outputs_past)
        store_past(reinterpret_cast<float*>(outputs + row * p.time * p.hidden_size), value);
      else
        store_first(outputs + row * p.time * p.hidden_size, value, left);
      if (kept != nullptr) store_first(kept + row * p.hidden_size, old_cell, left);
      if (saved != nullptr) {
        for (int gate = 0; gate < kGates; ++gate)
          if (!Cell::is_cumax(gate)) keep(saved + gate * kWidth, gates[gate]);
        keep(saved + kGates * kWidth, new_cell);
        saved += (kGates + 1) * kWidth;
      }
    }
  }
};
