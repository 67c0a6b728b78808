// The backward pass, in chunks of steps: the gradients of the pre-activations ("deltas") live for one chunk only, after
// which they have gone into the gradients of the weights and of the inputs. Where activations are not kept, those of
// one chunk are computed again before it: the hidden states are known, so that this is one product. weight_grads.h has
// the products that give the gradients of the weights; what depends on the cell beyond the number of its gates is in
// `CellBackward`.
#pragma once

#include "cells.h"
#include "cumax.h"
#include "packed.h"
#include "tile.h"
#include "weight_grads.h"

template <class Number>
class Backward : public Work {
 public:
  Backward(const Arguments& arguments, int gate_count, Gates cumax)
      : p(arguments), layout(arguments), gates(gate_count), columns(gates * kWidth), kept(columns + kWidth),
        lines_of{p, layout}, grads(p, layout, gates), cumax_gates(cumax), packed(arguments, gates) {}

  int lay_out(Workspace& workspace, int most_threads) override {
    const int threads = layout.split(workspace, most_threads);
    depth = layout.units * columns / kPack;
    stride = row_stride(depth);
    coupled_stride = row_stride(layout.units * columns);
    int64_t lines = layout.chunk_rows(), groups = layout.row_groups;
    hidden_weights = workspace.floats(layout.units * kWidth * depth);
    input_weights = p.inputs_grad == nullptr ? nullptr : workspace.floats(vectors(p.input_size) * kWidth * depth);
    hidden_grad = workspace.floats(p.batch * layout.stride);
    cell_grad = workspace.floats(p.batch * layout.stride);
    deltas = workspace.floats(groups * lines * stride);
    coupled = cumax_gates.any() ? workspace.floats(groups * lines * coupled_stride) : nullptr;
    grads.lay_out(workspace);
    own_size = std::max(grads.own_size(), lines * kWide * kWidth);
    own = workspace.floats(threads * own_size);
    if (p.segment == 0) return threads;
    packed.place(workspace);
    arguments_stride = packed.input_words() + packed.hidden_words() + 16;
    arguments = workspace.floats(groups * lines * arguments_stride);
    activations = workspace.floats(groups * layout.units * lines * kept);
    return threads;
  }

  void run(int thread) override {
    prepare(thread);
    layout.all.wait();
    sweep(thread);
    layout.all.wait();
    grads.collect(thread);
  }

 protected:
  using Element = typename Number::Element;

  struct Chunk : Lines {
    int64_t lines;       // slots * rows that the buffers are laid out for
    float* deltas;       // (slot, row, stride): factors [unit][gate][lane]
    float* coupled;      // (slot, row, unit, gate, lane): of a cumulative softmax the sums, and then their gradients
    float* arguments;    // (slot, row, arguments_stride): factors input, hidden before the step
    float* activations;  // [unit][slot][row][gates, cell]
    float* own;          // of the thread, for any short use
  };

  // The gradients of one vector of units of the pre-activations at one step. What of the gradient of the hidden state
  // passes the step by stays in `hidden_grad`; the product with the deltas adds the rest.
  virtual void differentiate(const Chunk& chunk, int64_t step, int64_t unit, UnitStep next) = 0;

  // From the pre-activations of one vector of units in the whole chunk: its activations.
  virtual void recompute(const Chunk& chunk, int64_t unit) = 0;

  // Of a gate that is a cumulative softmax.
  float* coupled_at(const Chunk& chunk, int64_t line, int64_t unit, int gate) const {
    return chunk.coupled + line * coupled_stride + unit * columns + gate * kWidth;
  }

  // Gates and cell after a step; `row` counts within the chunk.
  float* saved_at(const Chunk& chunk, int64_t step, int64_t unit, int64_t row) const {
    if (p.segment != 0) return chunk.activations + (unit * chunk.lines + chunk.line(step, row)) * kept;
    int64_t absolute = chunk.rows.begin + row;
    return p.saved + ((layout.time_of(step) * layout.units + unit) * p.batch + absolute) * kept;
  }

  const Arguments& p;
  Layout layout;
  const int gates;
  const int64_t columns, kept;  // floats of a vector of units: of the gates, of what is kept of a step
  const LineFactors<Number> lines_of;
  WeightGrads<Number> grads;
  int64_t stride, coupled_stride;
  float *hidden_grad, *cell_grad;

 private:
  using Words = typename Number::Words;
  static constexpr int kPack = Number::kPack;

  void prepare(int thread) {
    Range units = layout.units_of(thread), rows = layout.rows_of(thread);
    // The weights of the hidden units that this thread multiplies with; split further among the row groups.
    int64_t blocks = (units.size() + kWide - 1) / kWide, inputs = (vectors(p.input_size) + kWide - 1) / kWide;
    Range mine = share(blocks, layout.row_groups, layout.row_group(thread));
    for (int64_t block = mine.begin; block < mine.end; ++block) {
      int64_t first = units.begin + block * kWide, count = std::min<int64_t>(kWide, units.end - first);
      with_weight<Number>(p, p.recurrent_weight, [&](auto* weight) {
        pack_rows<Number>(weight, gates, p.hidden_size, p.hidden_size, first, count,
                          hidden_weights + first * kWidth * depth);
      });
    }
    int64_t workers = layout.row_groups * layout.unit_groups;
    if (p.inputs_grad != nullptr) {
      Range some = share(inputs, workers, thread);
      for (int64_t block = some.begin; block < some.end; ++block) {
        int64_t first = block * kWide, count = std::min<int64_t>(kWide, vectors(p.input_size) - first);
        with_weight<Number>(p, p.input_weight, [&](auto* weight) {
          pack_rows<Number>(weight, gates, p.hidden_size, p.input_size, first, count,
                            input_weights + first * kWidth * depth);
        });
      }
    }
    if (p.segment != 0) {
      Range some = share(layout.units, workers, thread);
      for (int64_t unit = some.begin; unit < some.end; ++unit) packed.pack(unit);
    }
    const Element* final_hidden_grad = static_cast<const Element*>(p.final_hidden_grad);
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit) {
        int64_t from = row * p.hidden_size + unit * kWidth, to = row * layout.stride + unit * kWidth;
        int64_t left = layout.units_left(unit);
        store(hidden_grad + to, final_hidden_grad == nullptr ? vf{} : load_first(final_hidden_grad + from, left));
        store(cell_grad + to, p.final_cell_grad == nullptr ? vf{} : load_first(p.final_cell_grad + from, left));
      }
  }

  void sweep(int thread) {
    Range units = layout.units_of(thread);
    int64_t blocks = (units.size() + kWide - 1) / kWide;
    int64_t group = layout.row_group(thread), part = thread % layout.unit_groups;
    Barrier& barrier = layout.groups[group];
    Chunk chunk;
    chunk.group = group;
    chunk.rows = layout.rows_of(thread);
    chunk.lines = layout.chunk_rows();
    chunk.deltas = deltas + group * chunk.lines * stride;
    chunk.coupled = cumax_gates.any() ? coupled + group * chunk.lines * coupled_stride : nullptr;
    chunk.own = own + thread * own_size;
    if (p.segment != 0) {
      chunk.arguments = arguments + group * chunk.lines * arguments_stride;
      chunk.activations = activations + group * layout.units * chunk.lines * kept;
    }
    for (chunk.last = p.time; chunk.last > 0; chunk.last = chunk.first) {
      chunk.first = (chunk.last - 1) / layout.chunk_steps() * layout.chunk_steps();
      Range lines = share(chunk.used(), layout.unit_groups, part);
      if (p.segment != 0) {
        fill_arguments(chunk, lines);
        barrier.wait();
        for (int64_t unit = units.begin; unit < units.end; ++unit) multiply_again(chunk, unit);
        if (cumax_gates.any()) barrier.wait();
      }
      if (cumax_gates.any()) {
        couple(chunk, lines);
        barrier.wait();
      }
      if (p.segment != 0)
        for (int64_t unit = units.begin; unit < units.end; ++unit) recompute(chunk, unit);
      for (int64_t unit = units.begin; unit < units.end; ++unit) grads.begin_bias(chunk, unit);
      for (int64_t step = chunk.last - 1; step >= chunk.first; --step) {
        for (int64_t unit = units.begin; unit < units.end; ++unit)
          differentiate(chunk, step, unit, chunk.after(step, unit, units));
        barrier.wait();
        if (cumax_gates.any()) {
          Range some = share(chunk.rows.size(), layout.unit_groups, part);
          differentiate_coupled(chunk, {chunk.line(step, some.begin), chunk.line(step, some.end)});
          barrier.wait();
          for (int64_t unit = units.begin; unit < units.end; ++unit) add_coupled_bias(chunk, step, unit);
        }
        for (int64_t index = 0; index < blocks;) index += multiply(chunk, step, units, index, blocks);
      }
      grads.fill_panel(chunk, share(words<Number>(chunk.used()), layout.unit_groups, part), chunk.own);
      barrier.wait();
      for (int64_t unit = units.begin; unit < units.end; ++unit)
        grads.weigh(chunk, chunk.deltas, stride, unit, chunk.own);
      if (p.inputs_grad != nullptr)
        for (int64_t block = 0; block < vectors(p.input_size); block += kWide)
          differentiate_inputs(chunk, lines, block);
      barrier.wait();
    }
    for (int64_t row = chunk.rows.begin; row < chunk.rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit) {
        int64_t to = row * p.hidden_size + unit * kWidth, from = row * layout.stride + unit * kWidth;
        if (p.hidden_grad != nullptr) store_first(p.hidden_grad + to, load(hidden_grad + from), layout.units_left(unit));
        if (p.cell_grad != nullptr) store_first(p.cell_grad + to, load(cell_grad + from), layout.units_left(unit));
      }
  }

  // What the deltas of a step add to the gradient of the hidden state before it, from the `index`-th block of units of
  // this thread on. Returns how many blocks they were.
  int multiply(const Chunk& chunk, int64_t step, Range units, int64_t index, int64_t blocks) {
    bool single = chunk.rows.size() == 1;
    int64_t unit = units.begin + (single ? index : layout.part_of(step, index, blocks)) * kWide;
    int64_t next = units.begin + layout.part_after(step, index, blocks) * kWide;
    int wide = static_cast<int>(std::min<int64_t>(kWide, units.end - unit));
    Product product{chunk.rows.size(), chunk.deltas + chunk.line(step, 0) * stride, stride,
                    hidden_weights + unit * kWidth * depth, wide, depth,
                    hidden_grad + chunk.rows.begin * layout.stride + unit * kWidth, layout.stride, false,
                    single ? nullptr : hidden_weights + next * kWidth * depth};
    if (single && unit + at_once(kWide) * kWide <= units.end)
      return multiply_line<Words>(kWide, product, {kWide * kWidth * depth, kWide * kWidth, 0, 0});
    multiply_lines<Words>(wide, product);
    return 1;
  }

  void fill_arguments(const Chunk& chunk, Range lines) {
    for (int64_t line = lines.begin; line < lines.end; ++line) {
      float* to = chunk.arguments + line * arguments_stride;
      copy_words<Number>(to, lines_of.input_of(chunk, line), p.input_size);
      copy_words<Number>(to + packed.input_words(), lines_of.hidden_before(chunk, line), p.hidden_size);
    }
  }

  // The pre-activations of one vector of units in the whole chunk.
  void multiply_again(const Chunk& chunk, int64_t unit) {
    Product product{chunk.used(), chunk.arguments, arguments_stride, packed.inputs(unit), gates,
                    packed.input_words() + packed.hidden_words(), chunk.activations + unit * chunk.lines * kept, kept,
                    true};
    product.bias = packed.bias(unit);
    multiply_lines<Words>(gates, product);
  }

  // Calls `body(line, gate, shares, stride)` for every such gate of the lines that are real.
  template <class Body>
  INLINE void for_cumax(const Chunk& chunk, Range lines, const Body& body) {
    for (int64_t line = lines.begin; line < lines.end; ++line) {
      if (!lines_of.real(chunk, line)) continue;
      float* shares = saved_at(chunk, chunk.step_of(line), 0, line % chunk.rows.size());
      int64_t apart = (p.segment != 0 ? chunk.lines : p.batch) * kept;
      for (int gate = 0; gate < gates; ++gate)
        if (cumax_gates.has(gate)) body(line, gate, shares + gate * kWidth, apart);
    }
  }

  // The sums of such gates, from the shares, or from the pre-activations, which shares replace.
  void couple(const Chunk& chunk, Range lines) {
    for_cumax(chunk, lines, [&](int64_t line, int gate, float* row, int64_t apart) {
      float* sums = coupled_at(chunk, line, 0, gate);
      if (p.segment != 0)
        cumax(row, apart, p.hidden_size, sums, columns, row, apart);
      else
        cumax_of_shares(row, apart, p.hidden_size, sums, columns);
    });
  }

  // From the gradients of the sums those of the pre-activations, which join the deltas.
  void differentiate_coupled(const Chunk& chunk, Range lines) {
    for_cumax(chunk, lines, [&](int64_t line, int gate, const float* shares, int64_t apart) {
      float* grads = coupled_at(chunk, line, 0, gate);
      differentiate_cumax(shares, apart, p.hidden_size, grads, columns);
      for (int64_t unit = 0; unit < layout.units; ++unit)
        Number::store_factors(chunk.deltas + line * stride, unit * columns + gate * kWidth,
                              load(grads + unit * columns));
    });
  }

  // What `differentiate` could not add yet.
  void add_coupled_bias(const Chunk& chunk, int64_t step, int64_t unit) {
    for (int gate = 0; gate < gates; ++gate) {
      if (!cumax_gates.has(gate)) continue;
      vf total{};
      for (int64_t row = 0; row < chunk.rows.size(); ++row)
        if (lines_of.real(chunk, chunk.line(step, row)))
          total += load(coupled_at(chunk, chunk.line(step, row), unit, gate));
      float* to = grads.bias_of(chunk, unit) + gate * kWidth;
      store(to, load(to) + total);
    }
  }

  void differentiate_inputs(const Chunk& chunk, Range lines, int64_t block) {
    float* sums = chunk.own;
    int wide = static_cast<int>(std::min<int64_t>(kWide, vectors(p.input_size) - block));
    multiply_lines<Words>(wide, {lines.size(), chunk.deltas + lines.begin * stride, stride,
                                 input_weights + block * kWidth * depth, wide, depth, sums, wide * kWidth, true});
    for (int64_t line = lines.begin; line < lines.end; ++line) {
      int64_t place = chunk.row_of(line) * p.time + layout.time_of(chunk.step_of(line));
      for (int column = 0; column < wide; ++column, sums += kWidth)
        if (int64_t done = (block + column) * kWidth; done < p.input_size)
          store_first(p.inputs_grad + place * p.input_size + done, load(sums), p.input_size - done);
    }
  }

  const Gates cumax_gates;
  PackedWeights<Number> packed;
  int64_t depth, arguments_stride, own_size;
  float *hidden_weights, *input_weights, *deltas, *coupled, *own;
  float *arguments, *activations;
};

template <class Cell, class Number>
class CellBackward final : public Backward<Number> {
  using Base = Backward<Number>;
  using Base::p, Base::layout, Base::grads, Base::lines_of, Base::stride, Base::hidden_grad, Base::cell_grad;
  using Base::saved_at, Base::coupled_at;
  using typename Base::Chunk, typename Base::Element;
  static constexpr int kGates = Cell::kGates;
  static constexpr int kColumns = kGates * kWidth;
  static constexpr int kSaved = kColumns + kWidth;

 public:
  explicit CellBackward(const Arguments& arguments) : Base(arguments, kGates, Cell::cumax_gates()) {}

 private:
  void recompute(const Chunk& chunk, int64_t unit) override {
    float* here = chunk.activations + unit * chunk.lines * kSaved;
    for (int64_t step = chunk.first; step < chunk.last; ++step)
      for (int64_t row = 0; row < chunk.rows.size(); ++row, here += kSaved) {
        vf gates[kGates], old_cell = cell_before(chunk, step, unit, row), cell = old_cell;
        for (int gate = 0; gate < kGates; ++gate)
          gates[gate] =
              load(Cell::is_cumax(gate) ? coupled_at(chunk, chunk.line(step, row), unit, gate) : here + gate * kWidth);
        Cell::forward(gates, cell);
        if (!layout.real(chunk.rows.begin + row, layout.time_of(step))) cell = old_cell;
        for (int gate = 0; gate < kGates; ++gate)
          if (!Cell::is_cumax(gate)) store(here + gate * kWidth, gates[gate]);
        store(here + kColumns, cell);
      }
  }

  INLINE vf cell_before(const Chunk& chunk, int64_t step, int64_t unit, int64_t row) const {
    int64_t place = (chunk.rows.begin + row) * p.hidden_size + unit * kWidth, left = layout.units_left(unit);
    if (step == 0) return load_first(p.cell + place, left);
    if (p.segment != 0 && step == chunk.first)
      return load_first(p.saved + step / p.segment * p.batch * p.hidden_size + place, left);
    return load(saved_at(chunk, step - 1, unit, row) + kColumns);
  }

  // Asks for what `differentiate` will read from memory for a row.
  INLINE void expect(const Chunk& chunk, UnitStep place, int64_t row) const {
    const float* saved = saved_at(chunk, place.step, place.unit, row);
#pragma GCC unroll 8
    for (int value = 0; value < kSaved; value += kWidth) __builtin_prefetch(saved + value);
    if (place.step > chunk.first) __builtin_prefetch(saved_at(chunk, place.step - 1, place.unit, row) + kColumns);
    if (p.outputs_grad == nullptr) return;
    int64_t from = ((chunk.rows.begin + row) * p.time + layout.time_of(place.step)) * p.hidden_size;
    __builtin_prefetch(static_cast<const Element*>(p.outputs_grad) + from + place.unit * kWidth);
  }

  void differentiate(const Chunk& chunk, int64_t step, int64_t unit, UnitStep next) override {
    int64_t time = layout.time_of(step), left = layout.units_left(unit);
    vf total[1][kGates] = {};
    for (int64_t row = 0; row < chunk.rows.size(); ++row) {
      int64_t absolute = chunk.rows.begin + row, place = absolute * layout.stride + unit * kWidth;
      float* to = chunk.deltas + chunk.line(step, row) * stride;
      expect(chunk, next, row);
      vf from_hidden = load(hidden_grad + place);
      if (p.outputs_grad != nullptr) {
        const Element* grad = static_cast<const Element*>(p.outputs_grad);
        from_hidden += load_first(grad + (absolute * p.time + time) * p.hidden_size + unit * kWidth, left);
      }
      if (!layout.real(absolute, time)) {
        store(hidden_grad + place, from_hidden);
        for (int gate = 0; gate < kGates; ++gate) Number::store_factors(to, unit * kColumns + gate * kWidth, vf{});
        continue;
      }
      const float* saved = saved_at(chunk, step, unit, row);
      vf gates[kGates];
      for (int gate = 0; gate < kGates; ++gate)
        gates[gate] =
            load(Cell::is_cumax(gate) ? coupled_at(chunk, chunk.line(step, row), unit, gate) : saved + gate * kWidth);
      vf from_cell = load(cell_grad + place);
      Cell::backward(gates, cell_before(chunk, step, unit, row), load(saved + kColumns), from_hidden, from_cell);
      store(cell_grad + place, from_cell);
      store(hidden_grad + place, vf{});
      for (int gate = 0; gate < kGates; ++gate) {
        if (Cell::is_cumax(gate)) {
          store(coupled_at(chunk, chunk.line(step, row), unit, gate), gates[gate]);
          continue;
        }
        Number::store_factors(to, unit * kColumns + gate * kWidth, gates[gate]);
        total[0][gate] += gates[gate];
      }
    }
    add_to(grads.bias_of(chunk, unit), 0, total);
  }
};
