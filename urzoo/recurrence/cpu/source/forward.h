// The forward pass. Each thread takes rows of the batch through all steps; threads that share rows split the hidden
// units and meet once a step. Where a gate couples all units of a row, the pre-activations of the step wait in a buffer
// until the row is complete.
#pragma once

#include "cells.h"
#include "cumax.h"
#include "packed.h"
#include "tile.h"

template <class Cell, class Number>
class Forward final : public Work {
 public:
  explicit Forward(const Problem& problem) : p(problem), layout(problem), packed(problem) {}

  void lay_out(Workspace& workspace, int threads) override {
    layout.split(threads);
    lay_out_weights(packed, p, workspace);
    hidden_stride = layout.units * kWidth / Number::kPack + 16;
    for (float*& half : hidden) half = workspace.floats(p.batch * hidden_stride);
    cell = workspace.floats(p.batch * layout.stride);
    preactivations = Cell::kCoupled ? workspace.floats(p.batch * layout.units * kColumns) : nullptr;
    int64_t projected = packed.fused() ? 0 : layout.chunk_rows() * layout.most_units() * kColumns;
    chunk_inputs_size = layout.chunk_rows() * packed.input_words();
    own_size = chunk_inputs_size + layout.most_rows() * kColumns + projected;
    own = workspace.floats(own_size * threads);
    int64_t written = p.batch * p.time * layout.units * kWidth;
    bool saves = p.saved != nullptr && p.segment == 0;
    saved_past = saves && written * (kGates + 1) > kCached && at_vector(p.saved);
    // Half a cache line past the caches would cost more than it spares: whole ones only, which vectors of 64 bytes are.
    outputs_past = Number::kPack == 1 && kWidth == 16 && p.hidden_size % kWidth == 0 && at_vector(p.outputs) &&
                   written * (saves ? kGates + 2 : 1) > kCached;
  }

  void run(int thread) override {
    prepare(thread);
    layout.all.wait();
    if (layout.idle(thread)) return;
    Barrier& group = layout.groups[layout.row_group(thread)];
    Range rows = layout.rows_of(thread), units = layout.units_of(thread);
    Own mine;
    mine.inputs = own + own_size * thread;
    mine.sums = mine.inputs + chunk_inputs_size;
    mine.projections = mine.sums + layout.most_rows() * kColumns;
    for (int64_t step = 0; step < p.time; ++step) {
      int64_t slot = step % layout.chunk_steps();
      if (slot == 0) project(step, rows, units, mine);
      for (int64_t index = 0; index < units.size(); ++index)
        advance(step, slot, rows, units, index, mine);
      if constexpr (Cell::kCoupled) {
        group.wait();
        Range some = share(rows.size(), layout.unit_groups, thread % layout.unit_groups);
        for (int64_t row = some.begin; row < some.end; ++row) couple(step, rows.begin + row);
        group.wait();
        for (int64_t row = rows.begin; row < rows.end; ++row)
          for (int64_t unit = units.begin; unit < units.end; ++unit) finish_row(step, unit, row);
      }
      group.wait();
    }
    finish(rows, units);
    settle();
  }

 private:
  using Element = typename Number::Element;
  static constexpr int kGates = Cell::kGates;
  static constexpr int kColumns = kGates * kWidth;
  static constexpr int kRows = max_rows(kGates);
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
    int64_t lines = steps * rows.size();
    for (int64_t unit = units.begin; unit < units.end; ++unit) {
      float* to = mine.projections + (unit - units.begin) * layout.chunk_steps() * rows.size() * kColumns;
      multiply_lines<Number, kGates>(mine.inputs, size, lines, packed.inputs(unit), size, to, kColumns, true);
    }
  }

  // Pre-activations, gates and new state of one vector of units at one step: the `index`-th of this thread.
  void advance(int64_t step, int64_t slot, Range rows, Range units, int64_t index, const Own& mine) {
    int64_t unit = units.begin + layout.part_of(step, index, units.size());
    int64_t next_unit = units.begin + layout.part_after(step, index, units.size());
    Place place{step, unit, 0, 0, false, nullptr, nullptr, 0, mine.sums};
    place.inputs = mine.inputs + slot * rows.size() * packed.input_words();
    place.start = packed.bias(unit);
    if (!packed.fused()) {
      place.start = mine.projections + ((unit - units.begin) * layout.chunk_steps() + slot) * rows.size() * kColumns;
      place.start_stride = kColumns;
    }
    int64_t depth = packed.hidden_words(), segments = (depth + kSegment - 1) / kSegment;
    for (int64_t segment = 0; segment < segments; ++segment) {
      place.begin = depth * segment / segments;
      place.end = depth * (segment + 1) / segments;
      place.last = segment == segments - 1;
      const float* after = place.last ? packed.recurrent(next_unit) : packed.recurrent(unit) + place.end * kColumns;
      Coming coming(after, (place.end - place.begin) * kGates);
      for_row_groups<kRows>(rows.size(), [&](auto count, int64_t first) {
        tile<decltype(count)::value>(place, rows.begin, first, coming);
      });
    }
  }

  struct Place {
    int64_t step, unit;
    int64_t begin, end;   // the words of the hidden state to multiply now
    bool last;            // and then the step is done
    const float* inputs;  // of the step, (rows, words)
    const float* start;   // projected inputs and bias, or the bias alone
    int64_t start_stride;
    float* sums;  // so far, (rows, columns)
  };

  template <int Rows>
  void tile(const Place& place, int64_t first_row, int64_t first, Coming& coming) {
    const float* old_hidden = hidden[place.step % 2] + (first_row + first) * hidden_stride;
    const float* weights = packed.recurrent(place.unit) + place.begin * kColumns;
    const float* start = place.start + first * place.start_stride;
    if (place.last) {
      expect<Rows, 1>(cell + (first_row + first) * layout.stride + place.unit * kWidth, layout.stride);
      if (!packed.fused()) expect<Rows, kGates>(start, place.start_stride);
    }
    vf sum[Rows][kGates] = {};
    accumulate<Number, 1>(sum, old_hidden + place.begin, hidden_stride, weights, place.end - place.begin,
                          coming.take(place.end - place.begin, weights));
    float* sums = place.sums + first * kColumns;
    if (!place.last) return place.begin == 0 ? store_to(sums, kColumns, sum) : add_to(sums, kColumns, sum);
    if (place.begin != 0) add_from(sum, sums, kColumns);
    // Added last: sums that begin small lose less to rounding, and an input may be large beside a hidden state.
    if (packed.fused())
      accumulate<Number, 1>(sum, place.inputs + first * packed.input_words(), packed.input_words(),
                            packed.inputs(place.unit), packed.input_words(), packed.inputs(place.unit));
    add_from(sum, start, place.start_stride);
    if (!packed.fused()) add_from(sum, packed.bias(place.unit), 0);
    if constexpr (Cell::kCoupled)
      for (int row = 0; row < Rows; ++row)
        for (int gate = 0; gate < kGates; ++gate)
          store(preactivations_at(first_row + first + row, place.unit) + gate * kWidth, sum[row][gate]);
    else
      finish_tile(place.step, place.unit, first_row + first, sum);
  }

  float* preactivations_at(int64_t row, int64_t unit) const {
    return preactivations + (row * layout.units + unit) * kColumns;
  }

  // The gates of a row that are cumulative softmaxes: the sums replace the pre-activations, the shares are saved.
  void couple(int64_t step, int64_t row) {
    float *row_at = preactivations_at(row, 0), *saved = saved_at(step, 0, row);
    for (int gate = 0; gate < kGates; ++gate) {
      float* to = row_at + gate * kWidth;
      if (Cell::is_cumax(gate))
        cumax(to, kColumns, p.hidden_size, to, kColumns, saved == nullptr ? nullptr : saved + gate * kWidth,
              p.batch * (kGates + 1) * kWidth);
    }
  }

  void finish_row(int64_t step, int64_t unit, int64_t row) {
    vf gates[1][kGates];
    for (int gate = 0; gate < kGates; ++gate) gates[0][gate] = load(preactivations_at(row, unit) + gate * kWidth);
    finish_tile(step, unit, row, gates);
  }

  // Where gates and cell are kept; null if they are not.
  float* saved_at(int64_t step, int64_t unit, int64_t row) const {
    if (p.saved == nullptr || p.segment != 0) return nullptr;
    return p.saved + ((layout.time_of(step) * layout.units + unit) * p.batch + row) * (kGates + 1) * kWidth;
  }

  INLINE void keep(float* to, vf value) const { saved_past ? store_past(to, value) : store(to, value); }

  template <int Rows>
  INLINE void finish_tile(int64_t step, int64_t unit, int64_t row0, vf (&sum)[Rows][kGates]) {
    int64_t time = layout.time_of(step), left = layout.units_left(unit);
    const float* old_hidden = hidden[step % 2] + row0 * hidden_stride;
    float* new_hidden = hidden[(step + 1) % 2] + row0 * hidden_stride;
    float* cells = cell + row0 * layout.stride + unit * kWidth;
    Element* outputs = static_cast<Element*>(p.outputs) + (row0 * p.time + time) * p.hidden_size + unit * kWidth;
    float *saved = saved_at(step, unit, row0), *kept = nullptr;
    if (p.saved != nullptr && p.segment != 0 && step % p.segment == 0)
      kept = p.saved + (step / p.segment * p.batch + row0) * p.hidden_size + unit * kWidth;
#pragma GCC unroll 8
    for (int row = 0; row < Rows; ++row) {
      vf old_cell = load(cells + row * layout.stride), new_cell = old_cell;
      vf value = Cell::forward(sum[row], new_cell);
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
          if (!Cell::is_cumax(gate)) keep(saved + gate * kWidth, sum[row][gate]);
        keep(saved + kGates * kWidth, new_cell);
        saved += (kGates + 1) * kWidth;
      }
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

  const Problem& p;
  Layout layout;
  PackedWeights<Cell, Number> packed;
  float *hidden[2], *cell, *preactivations, *own;
  int64_t hidden_stride, chunk_inputs_size, own_size;
  bool saved_past, outputs_past;
};
