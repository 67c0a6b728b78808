// The backward pass of the GRU, in chunks of steps as the LSTM's. A step is two products: of the gradients of the
// candidate's pre-activation ("deltas"), which give the reset gate's, and of the deltas of all gates; threads that
// share rows meet before each.
#pragma once

#include "gru_activations.h"
#include "gru_deltas.h"

template <class Number>
class GruBackward final : public Work {
 public:
  explicit GruBackward(const Arguments& arguments)
      : p(arguments), layout(arguments), gate_count(gru_gates(arguments)), blocks(gate_count + 1), activations(p, layout),
        gates(gate_count) {}

  int lay_out(Workspace& workspace, int most_threads) override {
    const int threads = layout.split(workspace, most_threads);
    int64_t size = layout.units * kWidth, inputs = p.inputs_grad == nullptr ? 0 : vectors(p.input_size) * kWidth;
    int64_t lines = layout.chunk_rows(), groups = layout.row_groups, factors = p.hidden_size + p.input_size;
    gates.lay_out(workspace, size * gate_count, size, inputs, lines, groups, factors);
    candidates.lay_out(workspace, size, size, inputs, lines, groups, factors);
    hidden_grad = workspace.floats(p.batch * layout.stride);
    recalled_grad = workspace.floats(p.batch * layout.stride);
    recalled = workspace.floats(groups * lines * layout.stride);
    bias_grads = workspace.floats(groups * 2 * size * blocks);
    gathered_stride = std::max(gates.factors, candidates.factors) + 2 * kWidth;
    own_size = std::max(gathered<Words>() * gathered_stride, lines * kWide * kWidth);
    own = workspace.floats(threads * own_size);
    activations.lay_out(workspace);
    return threads;
  }

  void run(int thread) override {
    prepare(thread);
    layout.all.wait();
    sweep(thread);
    layout.all.wait();
    collect(thread);
  }

 private:
  using Words = typename Number::Words;
  using Element = typename Number::Element;
  using Deltas = GruDeltas<Number>;
  static constexpr int kPack = Number::kPack;

  struct Chunk : Lines {
    float* recalled;   // (line, unit): what the reset gate lets through
    float* bias_grad;  // [of the chunk, of the chunks before][unit][block]
    float* own;        // of the thread, for any short use
  };

  void prepare(int thread) {
    Range units = layout.units_of(thread), rows = layout.rows_of(thread), inputs = {0, vectors(p.input_size)};
    for_some_blocks(units, layout.row_groups, layout.row_group(thread), [&](int width, int64_t block) {
      pack(p.recurrent_weight, p.hidden_size, block, width, gates.hidden_weights, candidates.hidden_weights);
    });
    if (p.inputs_grad != nullptr)
      for_some_blocks(inputs, layout.row_groups * layout.unit_groups, thread, [&](int width, int64_t block) {
        pack(p.input_weight, p.input_size, block, width, gates.input_weights, candidates.input_weights);
      });
    activations.prepare(thread);
    const float* final_grad = static_cast<const float*>(p.final_hidden_grad);
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit) {
        int64_t from = row * p.hidden_size + unit * kWidth;
        store(hidden_grad + row * layout.stride + unit * kWidth,
              final_grad == nullptr ? vf{} : load_first(final_grad + from, layout.units_left(unit)));
      }
  }

  // One block of columns of a weight, `width` columns in all: the rows of the gates, and those of the candidate.
  void pack(const void* weight, int64_t width, int64_t block, int64_t vectors_wide, float* gate_to, float* to) {
    gate_to += block * kWidth * gates.depth;
    to += block * kWidth * candidates.depth;
    with_weight<Number>(p, weight, [&](auto* from) {
      pack_rows<Number>(from, gate_count, p.hidden_size, width, block, vectors_wide, gate_to);
      from += gate_count * p.hidden_size * width;
      pack_rows<Number>(from, 1, p.hidden_size, width, block, vectors_wide, to);
    });
  }

  void sweep(int thread) {
    Range units = layout.units_of(thread);
    int64_t part = thread % layout.unit_groups;
    Chunk chunk;
    chunk.group = layout.row_group(thread);
    chunk.rows = layout.rows_of(thread);
    chunk.recalled = recalled + chunk.group * gates.lines * layout.stride;
    chunk.bias_grad = bias_grads + chunk.group * 2 * layout.units * blocks * kWidth;
    chunk.own = own + thread * own_size;
    Barrier& barrier = layout.groups[chunk.group];
    for (chunk.last = p.time; chunk.last > 0; chunk.last = chunk.first) {
      chunk.first = (chunk.last - 1) / layout.chunk_steps() * layout.chunk_steps();
      Range lines = share(chunk.used(), layout.unit_groups, part);
      activations.begin(chunk, units, lines, chunk.recalled, chunk.own, barrier);
      for (int64_t unit = units.begin; unit < units.end; ++unit) begin_bias(chunk, unit);
      for (int64_t step = chunk.last - 1; step >= chunk.first; --step) {
        for (int64_t unit = units.begin; unit < units.end; ++unit)
          p.refined ? differentiate<Gru<true>>(chunk, step, unit, chunk.after(step, unit, units))
                    : differentiate<Gru<false>>(chunk, step, unit, chunk.after(step, unit, units));
        barrier.wait();
        multiply(chunk, step, candidates, units, recalled_grad, true);
        for (int64_t unit = units.begin; unit < units.end; ++unit) differentiate_reset(chunk, step, unit);
        if (p.ordered) differentiate_coupled(chunk, step, share(chunk.rows.size(), layout.unit_groups, part));
        barrier.wait();
        if (p.ordered)
          for (int64_t unit = units.begin; unit < units.end; ++unit) add_coupled_bias(chunk, step, unit);
        multiply(chunk, step, gates, units, hidden_grad, false);
      }
      fill_panels(chunk, share(words<Number>(chunk.used()), layout.unit_groups, part));
      barrier.wait();
      bool fresh = chunk.last == p.time;
      for (int64_t unit = units.begin; unit < units.end; ++unit)
        gates.weigh(chunk, gate_count, unit * gate_count * kWidth, fresh, chunk.own);
      for_blocks(units, [&](int width, int64_t block) {
        candidates.weigh(chunk, width, block * kWidth, fresh, chunk.own);
      });
      if (p.inputs_grad != nullptr)
        for_blocks({0, vectors(p.input_size)},
                   [&](int width, int64_t block) { differentiate_inputs(chunk, lines, block, width); });
      barrier.wait();
    }
    if (p.hidden_grad == nullptr) return;
    for (int64_t row = chunk.rows.begin; row < chunk.rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit)
        store_first(p.hidden_grad + row * p.hidden_size + unit * kWidth,
                    load(hidden_grad + row * layout.stride + unit * kWidth), layout.units_left(unit));
  }

  // The deltas of the rows of a step times the recurrent weights, for this thread's units: to = or +=.
  void multiply(const Chunk& chunk, int64_t step, const Deltas& deltas, Range units, float* to, bool fresh) {
    for_blocks(units, [&](int width, int64_t block) {
      multiply_lines<Words>(width, {chunk.rows.size(), deltas.deltas_of(chunk.group, chunk.line(step, 0)),
                                    deltas.stride, deltas.hidden_weights + block * kWidth * deltas.depth, width,
                                    deltas.depth, to + chunk.rows.begin * layout.stride + block * kWidth,
                                    layout.stride, fresh});
    });
  }

  // Begins the sum of a chunk, after adding up those before: long sums lose less to rounding in parts.
  void begin_bias(const Chunk& chunk, int64_t unit) {
    float* part = chunk.bias_grad + unit * blocks * kWidth;
    float* total = part + layout.units * blocks * kWidth;
    for (int64_t at = 0; at < blocks * kWidth; at += kWidth) {
      store(total + at, chunk.last == p.time ? vf{} : load(total + at) + load(part + at));
      store(part + at, vf{});
    }
  }

  // The deltas of one vector of units at one step, all but the reset gate's, which needs the product with that of the
  // candidate. What of the gradient of the hidden state passes the step by stays in `hidden_grad`;
  // `differentiate_reset` and the product with the deltas of the gates add the rest.
  template <class Cell>
  void differentiate(const Chunk& chunk, int64_t step, int64_t unit, UnitStep next) {
    int64_t time = layout.time_of(step), left = layout.units_left(unit), next_time = layout.time_of(next.step);
    vf total[1][Cell::kBlocks] = {};
    for (int64_t row = 0; row < chunk.rows.size(); ++row) {
      int64_t absolute = chunk.rows.begin + row, line = chunk.line(step, row);
      activations.expect(chunk, next, absolute);
      if (p.outputs_grad != nullptr)
        __builtin_prefetch(static_cast<const Element*>(p.outputs_grad) +
                           (absolute * p.time + next_time) * p.hidden_size + next.unit * kWidth);
      float* place = hidden_grad + absolute * layout.stride + unit * kWidth;
      vf passing = load(place);
      if (p.outputs_grad != nullptr) {
        const Element* grad = static_cast<const Element*>(p.outputs_grad);
        passing += load_first(grad + (absolute * p.time + time) * p.hidden_size + unit * kWidth, left);
      }
      vf deltas[Cell::kBlocks] = {}, let_through{};
      if (layout.real(absolute, time)) {
        const float* saved = activations.at(chunk, step, unit, absolute);
        for (int gate = 0; gate < Cell::kBlocks; ++gate) deltas[gate] = load(saved + gate * kWidth);
        if (p.ordered) deltas[Cell::kUpdate] = load(activations.sums_at(chunk, line, unit));
        vf hidden = activations.hidden_before(chunk, step, unit, absolute);
        let_through = deltas[Cell::kReset] * hidden;
        Cell::backward(deltas, hidden, passing, p.ordered);
        deltas[Cell::kReset] = vf{};
        if (p.ordered) {
          store(activations.sums_at(chunk, line, unit), deltas[Cell::kUpdate]);
          deltas[Cell::kUpdate] = vf{};
        }
        for (int gate = 0; gate < Cell::kBlocks; ++gate) total[0][gate] += deltas[gate];
      }
      store(place, passing);
      store(chunk.recalled + line * layout.stride + unit * kWidth, let_through);
      for (int gate = 0; gate < Cell::kGates; ++gate)
        Number::store_factors(gates.deltas_of(chunk.group, line), (unit * Cell::kGates + gate) * kWidth, deltas[gate]);
      Number::store_factors(candidates.deltas_of(chunk.group, line), unit * kWidth, deltas[Cell::kCandidate]);
    }
    add_to(chunk.bias_grad + unit * Cell::kBlocks * kWidth, 0, total);
  }

  // The gradient of what the reset gate lets through: one part goes to the gate, one to the hidden state.
  void differentiate_reset(const Chunk& chunk, int64_t step, int64_t unit) {
    int64_t time = layout.time_of(step);
    vf total[1][1] = {};
    for (int64_t row = 0; row < chunk.rows.size(); ++row) {
      int64_t absolute = chunk.rows.begin + row, place = absolute * layout.stride + unit * kWidth;
      if (!layout.real(absolute, time)) continue;
      vf reset = load(activations.at(chunk, step, unit, absolute) + Gru<false>::kReset * kWidth);
      vf grad = load(recalled_grad + place);
      vf delta = grad * activations.hidden_before(chunk, step, unit, absolute) * reset * (1.0f - reset);
      total[0][0] += delta;
      Number::store_factors(gates.deltas_of(chunk.group, chunk.line(step, row)),
                            (unit * gate_count + Gru<false>::kReset) * kWidth, delta);
      store(hidden_grad + place, load(hidden_grad + place) + grad * reset);
    }
    add_to(chunk.bias_grad + (unit * blocks + Gru<false>::kReset) * kWidth, 0, total);
  }

  // Of an update gate that is a cumulative softmax: from the gradients of the sums those of the pre-activations.
  void differentiate_coupled(const Chunk& chunk, int64_t step, Range rows) {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      int64_t line = chunk.line(step, row);
      if (!layout.real(chunk.rows.begin + row, layout.time_of(step))) continue;
      activations.differentiate_sums(chunk, line);
      for (int64_t unit = 0; unit < layout.units; ++unit)
        Number::store_factors(gates.deltas_of(chunk.group, line), (unit * gate_count + Gru<false>::kUpdate) * kWidth,
                              load(activations.sums_at(chunk, line, unit)));
    }
  }

  void add_coupled_bias(const Chunk& chunk, int64_t step, int64_t unit) {
    vf total[1][1] = {};
    for (int64_t row = 0; row < chunk.rows.size(); ++row)
      if (layout.real(chunk.rows.begin + row, layout.time_of(step)))
        total[0][0] += load(activations.sums_at(chunk, chunk.line(step, row), unit));
    add_to(chunk.bias_grad + (unit * blocks + Gru<false>::kUpdate) * kWidth, 0, total);
  }

  void differentiate_inputs(const Chunk& chunk, Range lines, int64_t block, int width) {
    float* sums = chunk.own;
    for (const Deltas* deltas : {&gates, &candidates})
      multiply_lines<Words>(width, {lines.size(), deltas->deltas_of(chunk.group, lines.begin), deltas->stride,
                                    deltas->input_weights + block * kWidth * deltas->depth, width, deltas->depth, sums,
                                    width * kWidth, deltas == &gates});
    for (int64_t line = lines.begin; line < lines.end; ++line) {
      int64_t place = chunk.row_of(line) * p.time + layout.time_of(chunk.step_of(line));
      for (int column = 0; column < width; ++column, sums += kWidth)
        if (int64_t done = (block + column) * kWidth; done < p.input_size)
          store_first(p.inputs_grad + place * p.input_size + done, load(sums), p.input_size - done);
    }
  }

  // The left factors of the gradients of the weights: what each line was multiplied with in the forward pass.
  void fill_panels(const Chunk& chunk, Range lines) {
    fill_panel(chunk, gates, lines, [&](const Line& line, int64_t unit) {
      return activations.hidden_before(chunk, line.step, unit, line.row);
    });
    fill_panel(chunk, candidates, lines, [&](const Line& line, int64_t unit) {
      return load(line.recalled + unit * kWidth);
    });
  }

  template <class State>
  void fill_panel(const Chunk& chunk, const Deltas& product, Range some, const State& state) {
    float* panel = product.panels + chunk.group * product.panel_size;
    for (int64_t word = some.begin; word < some.end; word += gathered<Words>()) {
      int64_t count = std::min(gathered<Words>(), some.end - word);
      for (int64_t row = 0; row < count; ++row)
        gather(chunk, product, word + row, state, chunk.own + row * gathered_stride);
      if (on_tiles<Words>())
        transpose_words(chunk.own, gathered_stride, count, product.factors, panel + word, product.panel_stride);
      else
        for (int64_t block = 0; block < product.factors / product.rows; ++block)
          copy_row(panel + (block * words<Number>(product.lines) + word) * product.rows,
                   chunk.own + block * product.rows, product.rows);
    }
  }

  // One line of a chunk. What stands in the padding may be anything, and zero times NaN is not zero: no input then.
  struct Line {
    int64_t step, row;
    const float* recalled;  // null: there is no such line
    const Element* input;
  };
  Line line_of(const Chunk& chunk, int64_t line) const {
    int64_t step = chunk.step_of(line), row = chunk.row_of(line), time = layout.time_of(step);
    const Element* input = static_cast<const Element*>(p.inputs) + (row * p.time + time) * p.input_size;
    return {step, row, chunk.recalled + line * layout.stride, layout.real(row, time) ? input : nullptr};
  }

  // The factors of one word of lines.
  template <class State>
  void gather(const Chunk& chunk, const Deltas& product, int64_t word, const State& state, float* to) {
    int64_t low = word * kPack, high = low + kPack - 1;
    Line both[2] = {line_of(chunk, low), {}};
    if (kPack == 2 && high < chunk.used()) both[1] = line_of(chunk, high);
    auto input = [&](const Line& line, int64_t index) {
      return line.input == nullptr ? vf{} : load_first(line.input + index, p.input_size - index);
    };
    bool paired = both[1].recalled != nullptr;
    for (int64_t unit = 0; unit < layout.units; ++unit)
      store(to + unit * kWidth, Number::word(state(both[0], unit), paired ? state(both[1], unit) : vf{}));
    for (int64_t index = 0; index < p.input_size; index += kWidth)
      store(to + p.hidden_size + index, Number::word(input(both[0], index), input(both[1], index)));
    for (int64_t factor = p.hidden_size + p.input_size; factor < product.factors; ++factor) to[factor] = 0.0f;
  }

  // Adds up the row groups' gradients, always in the same order, and brings them into torch's order.
  void collect(int thread) {
    Range units = layout.units_of(thread);
    for_some_blocks(units, layout.row_groups, layout.row_group(thread), [&](int width, int64_t block) {
      for (int64_t unit = block; unit < block + width; ++unit) {
        float* sums = gates.add_groups(layout.row_groups, gate_count, unit * gate_count * kWidth);
        for (int gate = 0; gate < gate_count; ++gate) deliver(sums + gate * kWidth, gate_count * kWidth, gate, unit);
        collect_bias(unit);
      }
      float* sums = candidates.add_groups(layout.row_groups, width, block * kWidth);
      for (int column = 0; column < width; ++column)
        deliver(sums + column * kWidth, width * kWidth, gate_count, block + column);
    });
  }

  void collect_bias(int64_t unit) {
    int64_t part = layout.units * blocks * kWidth;
    float* bias = bias_grads + unit * blocks * kWidth;
    for (int64_t other = 1; other < 2 * layout.row_groups; ++other) add_up(bias, bias + other * part, blocks * kWidth);
    for (int block = 0; block < blocks; ++block)
      store_first(p.bias_grad + block * p.hidden_size + unit * kWidth, load(bias + block * kWidth),
                  layout.units_left(unit));
  }

  // The gradients of one vector of rows of both weights, whose factors lie `apart` floats apart.
  void deliver(const float* sums, int64_t apart, int block, int64_t unit) {
    int64_t lanes = std::min<int64_t>(kWidth, layout.units_left(unit)), row = block * p.hidden_size + unit * kWidth;
    deliver_columns(sums, apart, p.recurrent_weight_grad + row * p.hidden_size, p.hidden_size, lanes);
    deliver_columns(sums + p.hidden_size * apart, apart, p.input_weight_grad + row * p.input_size, p.input_size, lanes);
  }

  const Arguments& p;
  Layout layout;
  const int gate_count, blocks;  // the gates, and the candidate with them
  GruActivations<Number> activations;
  Deltas gates, candidates{kWide};
  float *hidden_grad, *recalled_grad, *recalled, *bias_grads, *own;
  int64_t own_size, gathered_stride;
};
