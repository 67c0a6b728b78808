// The backward pass of the GRU, in chunks of steps as the LSTM's. A step is two products: of the candidate's gradient,
// which gives the reset gate's, and of the gradients of all gates; threads that share rows meet before each.
#pragma once

#include "gru_blocks.h"

template <class Cell>
class GruBackward final : public Work {
 public:
  explicit GruBackward(const Problem& problem) : p(problem), layout(p) {}

  void lay_out(Workspace& workspace, int threads) override {
    layout.split(threads);
    int64_t size = layout.units * kWidth, inputs = p.inputs_grad == nullptr ? 0 : vectors(p.input_size) * kWidth;
    int64_t lines = layout.row_groups * layout.chunk_rows(), rest = p.input_size + 1;
    gate_factors = vectors_of(p.hidden_size + rest, kGateRows) * kGateRows;
    candidate_factors = vectors_of(p.hidden_size + rest, kCandidateRows) * kCandidateRows;
    gate_weights = workspace.floats(size * size * kGates);
    candidate_weights = workspace.floats(size * size);
    gate_input_weights = workspace.floats(inputs * size * kGates);
    candidate_input_weights = workspace.floats(inputs * size);
    hidden_grad = workspace.floats(p.batch * layout.stride);
    gate_deltas = workspace.floats(lines * size * kGates);
    candidate_deltas = workspace.floats(lines * size);
    recalled = workspace.floats(lines * layout.stride);
    gate_panels = workspace.floats(lines * gate_factors);
    candidate_panels = workspace.floats(lines * candidate_factors);
    gate_grads = workspace.floats(layout.row_groups * gate_factors * size * kGates);
    candidate_grads = workspace.floats(layout.row_groups * candidate_factors * size);
  }

  void run(int thread) override {
    if (!layout.idle(thread)) prepare(thread);
    layout.all.wait();
    if (!layout.idle(thread)) sweep(thread);
    layout.all.wait();
    if (!layout.idle(thread)) collect(thread);
  }

 private:
  static constexpr int kGates = Cell::kGates;
  static constexpr int kBlocks = Cell::kBlocks;
  static constexpr int kColumns = kGates * kWidth;
  static constexpr int kGateRows = max_rows(kGates);
  static constexpr int kCandidateRows = max_rows(kWide);

  // The lines of a chunk are its steps times the rows of one row group, whose part of each buffer it points to.
  struct Chunk {
    int64_t first, last;     // steps [first, last)
    Range rows;              // of the batch
    int64_t lines;           // that the buffers are laid out for
    float* gate_deltas;      // [unit][line][gate]: gradients of the pre-activations
    float* candidate_deltas; // [block][line][unit]
    float* recalled;         // [line][unit]: what the reset gate lets through
    float* gate_panel;       // [factor block][line][kGateRows]: hidden before the step, input, 1
    float* candidate_panel;  // [factor block][line][kCandidateRows]: recalled, input, 1
    float* gate_grad;        // [unit][factor][gate]
    float* candidate_grad;   // [block][factor][unit]
    int64_t line(int64_t step, int64_t row) const { return (step - first) * rows.size() + row; }
    int64_t used() const { return (last - first) * rows.size(); }
    float* gates_at(int64_t unit, int64_t line) const { return gate_deltas + (unit * lines + line) * kColumns; }
    // Of the unit's block, which begins at `block` and is `width` vectors wide.
    float* candidates_at(int64_t block, int64_t width, int64_t line) const {
      return candidate_deltas + (block * lines + line * width) * kWidth;
    }
  };

  static int64_t vectors_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

  void prepare(int thread) {
    Range units = layout.units_of(thread), rows = layout.rows_of(thread);
    int64_t depth = layout.units * kWidth, turn = 0, group = layout.row_group(thread);
    const float* candidate = p.recurrent_weight + kGates * p.hidden_size * p.hidden_size;
    for_blocks(units, [&](auto width, int64_t first) {
      if (turn++ % layout.row_groups != group) return;
      constexpr int Width = decltype(width)::value;
      pack_rows<Float32, kGates>(p.recurrent_weight, p.hidden_size, p.hidden_size, first, Width,
                        gate_weights + first * kWidth * depth * kGates);
      pack_rows<Float32, 1>(candidate, p.hidden_size, p.hidden_size, first, Width, candidate_weights + first * kWidth * depth);
    });
    turn = 0;
    candidate = p.input_weight + kGates * p.hidden_size * p.input_size;
    if (p.inputs_grad != nullptr)
      for_blocks({0, vectors(p.input_size)}, [&](auto width, int64_t first) {
        if (turn++ % (layout.row_groups * layout.unit_groups) != thread) return;
        constexpr int Width = decltype(width)::value;
        pack_rows<Float32, kGates>(p.input_weight, p.hidden_size, p.input_size, first, Width,
                          gate_input_weights + first * kWidth * depth * kGates);
        pack_rows<Float32, 1>(candidate, p.hidden_size, p.input_size, first, Width,
                     candidate_input_weights + first * kWidth * depth);
      });
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit) {
        const float* from = p.final_hidden_grad + row * p.hidden_size + unit * kWidth;
        store(hidden_grad + row * layout.stride + unit * kWidth,
              p.final_hidden_grad == nullptr ? vf{} : load_first(from, layout.units_left(unit)));
      }
  }

  Chunk chunk_of(int thread) const {
    int64_t group = layout.row_group(thread), lines = layout.chunk_rows(), size = layout.units * kWidth;
    Chunk chunk;
    chunk.rows = layout.rows_of(thread);
    chunk.lines = lines;
    chunk.gate_deltas = gate_deltas + group * lines * size * kGates;
    chunk.candidate_deltas = candidate_deltas + group * lines * size;
    chunk.recalled = recalled + group * lines * layout.stride;
    chunk.gate_panel = gate_panels + group * lines * gate_factors;
    chunk.candidate_panel = candidate_panels + group * lines * candidate_factors;
    chunk.gate_grad = gate_grads + group * gate_factors * size * kGates;
    chunk.candidate_grad = candidate_grads + group * candidate_factors * size;
    return chunk;
  }

  void sweep(int thread) {
    Range units = layout.units_of(thread);
    Barrier& barrier = layout.groups[layout.row_group(thread)];
    Chunk chunk = chunk_of(thread);
    for (chunk.last = p.time; chunk.last > 0; chunk.last = chunk.first) {
      chunk.first = (chunk.last - 1) / layout.chunk_steps() * layout.chunk_steps();
      for (int64_t step = chunk.last - 1; step >= chunk.first; --step) {
        for_blocks(units, [&](auto width, int64_t block) { differentiate(chunk, step, block, decltype(width)::value); });
        barrier.wait();
        for_blocks(units, [&](auto width, int64_t block) { recall<decltype(width)::value>(chunk, step, block); });
        barrier.wait();
        for_blocks(units, [&](auto width, int64_t block) { recur<decltype(width)::value>(chunk, step, block); });
      }
      Range lines = share(chunk.used(), layout.unit_groups, thread % layout.unit_groups);
      fill_panels(chunk, lines);
      barrier.wait();
      for (int64_t unit = units.begin; unit < units.end; ++unit)
        weigh<kGateRows, kGates>(chunk, chunk.gate_panel, gate_factors, chunk.gates_at(unit, 0),
                                 chunk.gate_grad + unit * gate_factors * kColumns);
      for_blocks(units, [&](auto width, int64_t block) {
        constexpr int Width = decltype(width)::value;
        weigh<kCandidateRows, Width>(chunk, chunk.candidate_panel, candidate_factors,
                                     chunk.candidates_at(block, Width, 0),
                                     chunk.candidate_grad + block * candidate_factors * kWidth);
      });
      if (p.inputs_grad != nullptr)
        for_blocks({0, vectors(p.input_size)}, [&](auto width, int64_t block) {
          differentiate_inputs<decltype(width)::value>(chunk, lines, block);
        });
      barrier.wait();
    }
    if (p.hidden_grad == nullptr) return;
    for (int64_t row = chunk.rows.begin; row < chunk.rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit)
        store_first(p.hidden_grad + row * p.hidden_size + unit * kWidth,
                    load(hidden_grad + row * layout.stride + unit * kWidth), layout.units_left(unit));
  }

  const float* saved_at(int64_t time, int64_t unit, int64_t row) const {
    return p.saved + ((time * layout.units + unit) * p.batch + row) * kBlocks * kWidth;
  }

  // The hidden state of a row before a step.
  const float* hidden_before(int64_t step, int64_t row) const {
    return step == 0 ? p.hidden + row * p.hidden_size
                     : p.outputs + (row * p.time + layout.time_of(step - 1)) * p.hidden_size;
  }

  // The gradients of one block of units of all pre-activations but the reset gate's, in whose place stands what the
  // gradient of the recalled state is still to be multiplied with. What of the gradient of the hidden state passes the
  // step by stays in `hidden_grad`; `recall` and `recur` add the rest.
  void differentiate(const Chunk& chunk, int64_t step, int64_t block, int width) {
    int64_t time = layout.time_of(step);
    for (int64_t unit = block; unit < block + width; ++unit)
      for (int64_t row = 0; row < chunk.rows.size(); ++row) {
        int64_t absolute = chunk.rows.begin + row, line = chunk.line(step, row), left = layout.units_left(unit);
        float* place = hidden_grad + absolute * layout.stride + unit * kWidth;
        vf passing = load(place);
        if (p.outputs_grad != nullptr)
          passing += load_first(p.outputs_grad + (absolute * p.time + time) * p.hidden_size + unit * kWidth, left);
        vf deltas[kBlocks] = {}, let_through{};
        if (layout.real(absolute, time)) {
          const float* saved = saved_at(time, unit, absolute);
          for (int gate = 0; gate < kBlocks; ++gate) deltas[gate] = load(saved + gate * kWidth);
          vf hidden = load_first(hidden_before(step, absolute) + unit * kWidth, left);
          Cell::backward(deltas, hidden, passing);
          let_through = deltas[Cell::kReset] * hidden;
          deltas[Cell::kReset] = let_through * (1.0f - deltas[Cell::kReset]);
        }
        store(place, passing);
        store(chunk.recalled + line * layout.stride + unit * kWidth, let_through);
        for (int gate = 0; gate < kGates; ++gate) store(chunk.gates_at(unit, line) + gate * kWidth, deltas[gate]);
        store(chunk.candidates_at(block, width, line) + (unit - block) * kWidth, deltas[Cell::kCandidate]);
      }
  }

  // The gradient of what the reset gate lets through: one part goes to the gate, one to the hidden state.
  template <int Width>
  void recall(const Chunk& chunk, int64_t step, int64_t block) {
    int64_t time = layout.time_of(step);
    const float* weight = candidate_weights + block * kWidth * layout.units * kWidth;
    for_row_groups<max_rows(Width)>(chunk.rows.size(), [&](auto count, int64_t first) {
      constexpr int Rows = decltype(count)::value;
      vf sum[Rows][Width] = {};
      multiply_candidates(sum, chunk, chunk.line(step, first), weight);
      for (int row = 0; row < Rows; ++row) {
        int64_t absolute = chunk.rows.begin + first + row;
        if (!layout.real(absolute, time)) continue;
        for (int column = 0; column < Width; ++column) {
          int64_t unit = block + column;
          float* place = hidden_grad + absolute * layout.stride + unit * kWidth;
          float* reset = chunk.gates_at(unit, chunk.line(step, first + row)) + Cell::kReset * kWidth;
          vf opened = load(saved_at(time, unit, absolute) + Cell::kReset * kWidth);
          store(place, load(place) + sum[row][column] * opened);
          store(reset, load(reset) * sum[row][column]);
        }
      }
    });
  }

  // hidden_grad += gradients of the gates times the recurrent weights.
  template <int Width>
  void recur(const Chunk& chunk, int64_t step, int64_t block) {
    const float* weight = gate_weights + block * kWidth * layout.units * kColumns;
    for_row_groups<max_rows(Width)>(chunk.rows.size(), [&](auto count, int64_t first) {
      constexpr int Rows = decltype(count)::value;
      float* to = hidden_grad + (chunk.rows.begin + first) * layout.stride + block * kWidth;
      vf sum[Rows][Width] = {};
      multiply_gates(sum, chunk, chunk.line(step, first), weight);
      for (int row = 0; row < Rows; ++row)
        for (int column = 0; column < Width; ++column) {
          float* place = to + row * layout.stride + column * kWidth;
          store(place, load(place) + sum[row][column]);
        }
    });
  }

  // sum += gradients of `Rows` lines of the chunk times a packed weight, in segments as in the forward pass.
  template <int Rows, int Width>
  INLINE void multiply_gates(vf (&sum)[Rows][Width], const Chunk& chunk, int64_t line, const float* weight) const {
    int64_t segments = vectors_of(layout.units * kColumns, 2 * kSegment);
    for (int64_t segment = 0; segment < segments; ++segment) {
      vf part[Rows][Width] = {};
      Range units = share(layout.units, segments, segment);
      for (int64_t unit = units.begin; unit < units.end; ++unit)
        accumulate<Float32, 1>(part, chunk.gates_at(unit, line), kColumns, weight + unit * kColumns * Width * kWidth, kColumns);
      add(sum, part);
    }
  }

  template <int Rows, int Width>
  INLINE void multiply_candidates(vf (&sum)[Rows][Width], const Chunk& chunk, int64_t line,
                                  const float* weight) const {
    constexpr int64_t kLong = 2 * kSegment / kWidth / kWide * kWide;  // vectors of units in a segment
    for (int group = 0; group < layout.unit_groups; ++group) {
      Range units = layout.units_of(group);
      for (int64_t begin = units.begin; begin < units.end; begin += kLong) {
        vf part[Rows][Width] = {};
        int64_t end = std::min(begin + kLong, units.end);
        for (int64_t block = begin; block < end; block += kWide) {
          int64_t width = std::min<int64_t>(kWide, end - block);
          accumulate<Float32, 1>(part, chunk.candidates_at(block, width, line), width * kWidth,
                        weight + block * kWidth * Width * kWidth, width * kWidth);
        }
        add(sum, part);
      }
    }
  }

  template <int Width>
  void differentiate_inputs(const Chunk& chunk, Range lines, int64_t block) {
    int64_t before = block * kWidth * layout.units * kWidth;
    for_row_groups<max_rows(Width)>(lines.size(), [&](auto count, int64_t first) {
      constexpr int Rows = decltype(count)::value;
      vf sum[Rows][Width] = {};
      multiply_gates(sum, chunk, lines.begin + first, gate_input_weights + before * kGates);
      multiply_candidates(sum, chunk, lines.begin + first, candidate_input_weights + before);
      for (int row = 0; row < Rows; ++row) {
        int64_t line = lines.begin + first + row, absolute = chunk.rows.begin + line % chunk.rows.size();
        int64_t time = layout.time_of(chunk.first + line / chunk.rows.size());
        float* to = p.inputs_grad + (absolute * p.time + time) * p.input_size;
        for (int column = 0; column < Width; ++column)
          if (int64_t done = (block + column) * kWidth; done < p.input_size)
            store_first(to + done, sum[row][column], p.input_size - done);
      }
    });
  }

  // The left factors of the gradients of the weights: what each line was multiplied with in the forward pass.
  void fill_panels(const Chunk& chunk, Range lines) {
    for (int64_t line = lines.begin; line < lines.end; ++line) {
      int64_t step = chunk.first + line / chunk.rows.size(), row = chunk.rows.begin + line % chunk.rows.size();
      int64_t time = layout.time_of(step);
      // What stands in the padding may be anything, and zero times NaN is not zero.
      const float* input = layout.real(row, time) ? p.inputs + (row * p.time + time) * p.input_size : nullptr;
      fill_line<kGateRows>(chunk.gate_panel, chunk.lines, line, hidden_before(step, row), input, gate_factors);
      fill_line<kCandidateRows>(chunk.candidate_panel, chunk.lines, line, chunk.recalled + line * layout.stride, input,
                                candidate_factors);
    }
  }

  template <int Rows>
  void fill_line(float* panel, int64_t lines, int64_t line, const float* state, const float* input, int64_t factors) {
    auto place = [&](int64_t factor) -> float& {
      return panel[((factor / Rows) * lines + line) * Rows + factor % Rows];
    };
    int64_t whole = p.hidden_size / Rows * Rows, rest = p.hidden_size + p.input_size;
    for (int64_t factor = 0; factor < whole; factor += Rows)
      std::memcpy(&place(factor), state + factor, sizeof(float) * Rows);
    for (int64_t factor = whole; factor < p.hidden_size; ++factor) place(factor) = state[factor];
    for (int64_t index = 0; index < p.input_size; ++index)
      place(p.hidden_size + index) = input == nullptr ? 0.0f : input[index];
    for (int64_t factor = rest; factor < factors; ++factor) place(factor) = factor == rest ? 1.0f : 0.0f;
  }

  // to += panel^T deltas, for `Columns` vectors of columns.
  template <int Rows, int Columns>
  void weigh(const Chunk& chunk, const float* panel, int64_t factors, const float* deltas, float* to) {
    for (int64_t block = 0; block < factors / Rows; ++block, to += Rows * Columns * kWidth)
      for (int64_t line = 0; line < chunk.used(); line += kSegment / 2) {
        vf sum[Rows][Columns] = {};
        accumulate<Float32, Rows>(sum, panel + (block * chunk.lines + line) * Rows, 1, deltas + line * Columns * kWidth,
                         std::min(chunk.used() - line, kSegment / 2));
        // The sum over a segment begins at zero, which loses less to rounding than going on from the sum so far.
        bool first = chunk.last == p.time && line == 0;
        for (int row = 0; row < Rows; ++row)
          for (int column = 0; column < Columns; ++column) {
            float* place = to + (row * Columns + column) * kWidth;
            store(place, first ? sum[row][column] : load(place) + sum[row][column]);
          }
      }
  }

  // Adds up the row groups' gradients of the weights, always in the same order, and brings them into torch's order.
  void collect(int thread) {
    Range units = layout.units_of(thread);
    int64_t size = layout.units * kWidth, turn = 0;
    for_blocks(units, [&](auto width, int64_t block) {
      constexpr int Width = decltype(width)::value;
      if (turn++ % layout.row_groups != layout.row_group(thread)) return;
      for (int64_t unit = block; unit < block + Width; ++unit) {
        float* sums = gate_grads + unit * gate_factors * kColumns;
        add_groups(sums, gate_factors * kColumns, gate_factors * size * kGates);
        for (int gate = 0; gate < kGates; ++gate) deliver(gate, unit, gate_factors, sums + gate * kWidth, kColumns);
      }
      float* sums = candidate_grads + block * candidate_factors * kWidth;
      add_groups(sums, candidate_factors * Width * kWidth, candidate_factors * size);
      for (int column = 0; column < Width; ++column)
        deliver(kGates, block + column, candidate_factors, sums + column * kWidth, Width * kWidth);
    });
  }

  void add_groups(float* sums, int64_t count, int64_t apart) {
    for (int64_t group = 1; group < layout.row_groups; ++group)
      for (int64_t index = 0; index < count; index += kWidth)
        store(sums + index, load(sums + index) + load(sums + group * apart + index));
  }

  // The gradients of one vector of rows of the weights, which lie `apart` floats from factor to factor.
  void deliver(int gate, int64_t unit, int64_t factors, const float* sums, int64_t apart) {
    int64_t lanes = std::min<int64_t>(kWidth, layout.units_left(unit));
    for (int64_t first = 0; first < factors; first += 16)
      for (int64_t lane = 0; lane < lanes; ++lane) {
        int64_t row = gate * p.hidden_size + unit * kWidth + lane;
        for (int64_t factor = first; factor < std::min(first + 16, factors); ++factor) {
          float value = sums[factor * apart + lane];
          if (factor < p.hidden_size)
            p.recurrent_weight_grad[row * p.hidden_size + factor] = value;
          else if (factor < p.hidden_size + p.input_size)
            p.input_weight_grad[row * p.input_size + factor - p.hidden_size] = value;
          else if (factor == p.hidden_size + p.input_size)
            p.bias_grad[row] = value;
        }
      }
  }

  const FloatProblem p;
  Layout layout;
  int64_t gate_factors, candidate_factors;
  float *gate_weights, *candidate_weights, *gate_input_weights, *candidate_input_weights, *hidden_grad, *gate_deltas,
      *candidate_deltas, *recalled, *gate_panels, *candidate_panels, *gate_grads, *candidate_grads;
};
