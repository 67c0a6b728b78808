// The forward pass of the GRU. A step is two products: of the hidden state for the gates, and of what the reset gate
// lets through for the candidate; threads that share rows meet after each.
#pragma once

#include "gru_blocks.h"

template <class Cell, class Number>
class GruForward final : public Work {
 public:
  explicit GruForward(const Problem& problem)
      : p(problem), layout(problem), packed(problem), saves(p.saved != nullptr && p.segment == 0) {}

  void lay_out(Workspace& workspace, int threads) override {
    layout.split(threads);
    lay_out_weights(packed, p, workspace);
    stride = layout.units * kWidth / Number::kPack + 16;
    hidden = workspace.floats(p.batch * layout.stride);
    hidden_factors = kExact ? hidden : workspace.floats(p.batch * stride);
    recalled = workspace.floats(p.batch * stride);
    updates = workspace.floats(p.batch * layout.stride);
    int64_t projected = packed.fused() ? 0 : layout.chunk_rows() * layout.most_units() * (kColumns + kWidth);
    chunk_inputs_size = layout.chunk_rows() * packed.input_words();
    sums_size = layout.most_rows() * std::max(kGates, kWide) * kWidth;
    own_size = chunk_inputs_size + sums_size + projected;
    own = workspace.floats(own_size * threads);
  }

  void run(int thread) override {
    if (!layout.idle(thread)) prepare(thread);
    layout.all.wait();
    if (layout.idle(thread)) return;
    Barrier& group = layout.groups[layout.row_group(thread)];
    Range units = layout.units_of(thread);
    Place place;
    place.rows = layout.rows_of(thread);
    place.inputs = own + own_size * thread;
    place.sums = place.inputs + chunk_inputs_size;
    place.projections = place.sums + sums_size;
    // Steps times rows of a chunk, for which the projections are laid out, and where those of the candidate begin.
    int64_t lines = layout.chunk_steps() * place.rows.size();
    float* candidates = place.projections + units.size() * lines * kColumns;
    for (place.step = 0; place.step < p.time; ++place.step) {
      place.time = layout.time_of(place.step);
      place.line = place.step % layout.chunk_steps() * place.rows.size();
      if (place.line == 0) project(place, units, lines, candidates);
      if (p.saved != nullptr && p.segment != 0 && place.step % p.segment == 0)
        copy_hidden(place.rows, units, p.saved + place.step / p.segment * p.batch * p.hidden_size);
      for (int64_t unit = units.begin; unit < units.end; ++unit) {
        const float* start = place.projections + ((unit - units.begin) * lines + place.line) * kColumns;
        preactivate<kGates, kGates>(place, hidden_factors, packed.gates.inputs(unit), packed.gates.bias(unit), start,
                                    [&](auto& sum, int64_t first) { open_gates(place, unit, first, sum); });
      }
      group.wait();
      for_blocks(units, [&](auto width, int64_t unit) {
        constexpr int Width = decltype(width)::value;
        const float* start = candidates + ((unit - units.begin) * lines + place.line * Width) * kWidth;
        preactivate<Width, kWide>(place, recalled, packed.candidate.inputs(unit), packed.candidate.bias(unit), start,
                                  [&](auto& sum, int64_t first) { advance(place, unit, first, sum); });
      });
      group.wait();
    }
    copy_hidden(place.rows, units, static_cast<float*>(p.final_hidden));
  }

 private:
  using Element = typename Number::Element;
  // The hidden state itself is the factor of the products.
  static constexpr bool kExact = std::is_same<Number, Float32>::value;
  static constexpr int kGates = Cell::kGates;
  static constexpr int kColumns = kGates * kWidth;
  static constexpr int kSaved = (Cell::kBlocks + !kExact) * kWidth;

  // One step of a thread, and what it has for itself.
  struct Place {
    int64_t step, time;
    Range rows;
    int64_t line;  // of the step's first row in the chunk
    float *inputs, *sums, *projections;  // of the chunk (line, words); of one product; of the chunk, by unit and block
  };

  // Packs the weights of this thread's units, split further among the row groups, and its part of the initial state.
  void prepare(int thread) {
    Range units = layout.units_of(thread), rows = layout.rows_of(thread);
    if (p.packed == nullptr) {
      Range mine = share(units.size(), layout.row_groups, layout.row_group(thread));
      for (int64_t unit = mine.begin; unit < mine.end; ++unit) packed.pack(units.begin + unit);
    }
    const float* initial = static_cast<const float*>(p.hidden);
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit)
        set_hidden(row, unit, load_first(initial + row * p.hidden_size + unit * kWidth, layout.units_left(unit)));
  }

  INLINE void set_hidden(int64_t row, int64_t unit, vf value) {
    store(hidden + row * layout.stride + unit * kWidth, value);
    if (!kExact) Number::store_factors(hidden_factors + row * stride, unit * kWidth, value);
  }

  // The inputs of a chunk of steps as factors, and if they are many their part of the pre-activations.
  void project(const Place& place, Range units, int64_t lines, float* candidates) {
    int64_t steps = std::min(layout.chunk_steps(), p.time - place.step), size = packed.input_words();
    for (int64_t slot = 0; slot < steps; ++slot)
      for (int64_t row = 0; row < place.rows.size(); ++row) {
        int64_t from = (place.rows.begin + row) * p.time + layout.time_of(place.step + slot);
        copy_words<Number>(place.inputs + (slot * place.rows.size() + row) * size,
                           static_cast<const Element*>(p.inputs) + from * p.input_size, p.input_size);
      }
    if (packed.fused()) return;
    int64_t used = steps * place.rows.size();
    for (int64_t unit = units.begin; unit < units.end; ++unit)
      multiply_lines<Number, kGates>(place.inputs, size, used, packed.gates.inputs(unit), size,
                                     place.projections + (unit - units.begin) * lines * kColumns, kColumns, true);
    for_blocks(units, [&](auto width, int64_t unit) {
      constexpr int Width = decltype(width)::value;
      multiply_lines<Number, Width, kWide>(place.inputs, size, used, packed.candidate.inputs(unit), size,
                                           candidates + (unit - units.begin) * lines * kWidth, Width * kWidth, true);
    });
  }

  // The pre-activations of all rows: the input part and the product of `state` with a packed weight `Across` vectors
  // wide. Then calls `finish(sum, first)` on groups of rows.
  template <int Columns, int Across, class Finish>
  INLINE void preactivate(const Place& place, const float* state, const float* weight, const float* bias,
                          const float* start, const Finish& finish) {
    constexpr int64_t kAcross = Columns * kWidth;
    int64_t size = packed.input_words(), depth = packed.hidden_words(), segments = (depth + kSegment - 1) / kSegment;
    const float* inputs = place.inputs + place.line * size;
    const float* recurrent = weight + size * Across * kWidth;
    state += place.rows.begin * stride;
    for (int64_t segment = 0; segment < segments; ++segment) {
      int64_t begin = depth * segment / segments, end = depth * (segment + 1) / segments;
      const float* weights = recurrent + begin * Across * kWidth;
      Coming coming(recurrent + end * Across * kWidth, (end - begin) * Across);
      for_row_groups<max_rows(Columns)>(place.rows.size(), [&](auto count, int64_t first) {
        vf sum[decltype(count)::value][Columns] = {};
        if (packed.fused() && begin == 0)
          accumulate<Number, 1, Across>(sum, inputs + first * size, size, weight, size, weight);
        accumulate<Number, 1, Across>(sum, state + first * stride + begin, stride, weights, end - begin,
                                      coming.take(end - begin, weights));
        float* sums = place.sums + first * kAcross;
        if (end != depth) return begin == 0 ? store_to(sums, kAcross, sum) : add_to(sums, kAcross, sum);
        if (begin != 0) add_from(sum, sums, kAcross);
        // Added last: sums that begin small lose less to rounding.
        if (!packed.fused()) add_from(sum, start + first * kAcross, kAcross);
        add_from(sum, bias, 0);
        finish(sum, first);
      });
    }
  }

  float* saved_at(int64_t time, int64_t unit, int64_t row) const {
    return p.saved + ((time * layout.units + unit) * p.batch + row) * kSaved;
  }

  // The gates of one vector of units: keeps the effective update gate and what the reset gate lets through.
  template <int Rows>
  INLINE void open_gates(const Place& place, int64_t unit, int64_t first, vf (&sum)[Rows][kGates]) {
    int64_t row0 = place.rows.begin + first, at = row0 * layout.stride + unit * kWidth;
    int64_t left = layout.units_left(unit);
    float* saved = saves ? saved_at(place.time, unit, row0) : nullptr;
#pragma GCC unroll 8
    for (int row = 0; row < Rows; ++row, at += layout.stride) {
      for (int gate = 0; gate < kGates; ++gate) sum[row][gate] = sigmoid(sum[row][gate]);
      // Beyond the last unit may stand what the inputs made of zeros, and there it would meet the weights' zeros.
      vf let_through = first_of(sum[row][Cell::kReset] * load(hidden + at), left);
      Number::store_factors(recalled + (row0 + row) * stride, unit * kWidth, let_through);
      store(updates + at, Cell::effective_update(sum[row]));
      if (saved != nullptr)
        for (int gate = 0; gate < kGates; ++gate) store(saved + row * kSaved + gate * kWidth, sum[row][gate]);
    }
  }

  // The candidate and the new hidden state of a block of units, in the place of the old one, which no other thread
  // reads any more.
  template <int Rows, int Width>
  INLINE void advance(const Place& place, int64_t unit, int64_t first, vf (&sum)[Rows][Width]) {
    Element* outputs = static_cast<Element*>(p.outputs);
#pragma GCC unroll 8
    for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
      for (int column = 0; column < Width; ++column) {
        int64_t absolute = place.rows.begin + first + row, one = unit + column, left = layout.units_left(one);
        int64_t at = absolute * layout.stride + one * kWidth;
        vf candidates = tanh(sum[row][column]), value = load(hidden + at);
        if (layout.real(absolute, place.time)) value = Cell::forward(load(updates + at), candidates, value);
        value = first_of(value, left);
        set_hidden(absolute, one, value);
        store_first(outputs + (absolute * p.time + place.time) * p.hidden_size + one * kWidth, value, left);
        if (!saves) continue;
        float* saved = saved_at(place.time, one, absolute);
        store(saved + Cell::kCandidate * kWidth, candidates);
        if (!kExact) store(saved + Cell::kBlocks * kWidth, value);
      }
  }

  void copy_hidden(Range rows, Range units, float* to) {
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit)
        store_first(to + row * p.hidden_size + unit * kWidth,
                    load(hidden + row * layout.stride + unit * kWidth), layout.units_left(unit));
  }

  const Problem& p;
  Layout layout;
  PackedGru<Cell, Number> packed;
  const bool saves;  // activations
  float *hidden, *hidden_factors, *recalled, *updates, *own;
  int64_t stride, chunk_inputs_size, sums_size, own_size;
};
