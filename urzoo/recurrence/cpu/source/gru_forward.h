// The forward pass of the GRU. A step is two products: of the hidden state for the gates, and of what the reset gate
// lets through for the candidate; threads that share rows meet after each.
#pragma once

#include "cumax.h"
#include "gru_blocks.h"

template <class Number>
class GruForward final : public Work {
 public:
  explicit GruForward(const Arguments& arguments)
      : p(arguments), layout(arguments), gates(gru_gates(arguments)), columns(gates * kWidth),
        kept((gates + 1 + !kExact) * kWidth), packed(arguments, gates), saves(p.saved != nullptr && p.segment == 0) {}

  int lay_out(Workspace& workspace, int most_threads) override {
    const int threads = layout.split(workspace, most_threads);
    lay_out_weights(packed, p, workspace);
    stride = row_stride(layout.units * kWidth / Number::kPack);
    hidden = workspace.floats(p.batch * layout.stride);
    hidden_factors = kExact ? hidden : workspace.floats(p.batch * stride);
    recalled = workspace.floats(p.batch * stride);
    updates = workspace.floats(p.batch * layout.stride);
    refines = p.ordered && p.refined ? workspace.floats(p.batch * layout.stride) : nullptr;
    int64_t projected = packed.fused() ? 0 : layout.chunk_rows() * layout.most_units() * (columns + kWidth);
    chunk_inputs_size = layout.chunk_rows() * packed.input_words();
    sums_size = std::max<int64_t>(layout.most_rows(), at_once(gates)) * std::max(gates, kWide) * kWidth;
    own_size = chunk_inputs_size + sums_size + projected;
    own = workspace.floats(own_size * threads);
    return threads;
  }

  void run(int thread) override {
    prepare(thread);
    layout.all.wait();
    Barrier& group = layout.groups[layout.row_group(thread)];
    Range units = layout.units_of(thread);
    Place place;
    place.rows = layout.rows_of(thread);
    place.inputs = own + own_size * thread;
    place.sums = place.inputs + chunk_inputs_size;
    place.projections = place.sums + sums_size;
    // Steps times rows of a chunk, for which the projections are laid out, and where those of the candidate begin.
    int64_t lines = layout.chunk_steps() * place.rows.size();
    float* candidates = place.projections + units.size() * lines * columns;
    for (place.step = 0; place.step < p.time; ++place.step) {
      place.time = layout.time_of(place.step);
      place.line = place.step % layout.chunk_steps() * place.rows.size();
      if (place.line == 0) project(place, units, lines, candidates);
      if (p.saved != nullptr && p.segment != 0 && place.step % p.segment == 0)
        copy_hidden(place.rows, units, p.saved + place.step / p.segment * p.batch * p.hidden_size);
      bool single = place.rows.size() == 1;  // of which the products of several units are taken at once
      for (int64_t unit = units.begin, next; unit < units.end; unit = next) {
        const float* start = place.projections + ((unit - units.begin) * lines + place.line) * columns;
        next = unit + (single && unit + at_once(gates) <= units.end ? at_once(gates) : 1);
        preactivate(place, gates, gates, hidden_factors, packed.gates.inputs(unit), packed.gates.bias(unit), start,
                    {packed.gates.unit_words(), columns, lines * columns, columns}, next - unit > 1);
        for (int64_t one = unit; one < next; ++one) {
          const float* sums = place.sums + (one - unit) * columns;
          p.refined ? open_gates<Gru<true>>(place, one, sums) : open_gates<Gru<false>>(place, one, sums);
        }
      }
      group.wait();
      if (p.ordered) {
        couple(place, share(place.rows.size(), layout.unit_groups, thread % layout.unit_groups));
        group.wait();
      }
      for_blocks(units, [&](int width, int64_t unit) {
        const float* start = candidates + ((unit - units.begin) * lines + place.line * width) * kWidth;
        preactivate(place, width, kWide, recalled, packed.candidate.inputs(unit), packed.candidate.bias(unit), start,
                    {}, false);
        for (int column = 0; column < width; ++column) advance(place, unit + column, column, width);
      });
      group.wait();
    }
    copy_hidden(place.rows, units, static_cast<float*>(p.final_hidden));
  }

 private:
  using Words = typename Number::Words;
  using Element = typename Number::Element;
  // The hidden state itself is the factor of the products.
  static constexpr bool kExact = std::is_same<Number, Float32>::value;

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
      multiply_lines<Words>(gates, {used, place.inputs, size, packed.gates.inputs(unit), gates, size,
                                     place.projections + (unit - units.begin) * lines * columns, columns, true});
    for_blocks(units, [&](int width, int64_t unit) {
      multiply_lines<Words>(width, {used, place.inputs, size, packed.candidate.inputs(unit), kWide, size,
                                    candidates + (unit - units.begin) * lines * kWidth, width * kWidth, true});
    });
  }

  // The pre-activations of all rows: the input part and the product of `state` with a packed weight `across` vectors
  // wide; or of a single row those of `several` units at once.
  void preactivate(const Place& place, int width, int64_t across, const float* state, const float* weight,
                   const float* bias, const float* start, const Apart& apart, bool several) {
    int64_t size = packed.input_words();
    Product product{place.rows.size(), state + place.rows.begin * stride, stride, weight + size * across * kWidth,
                    across, packed.hidden_words(), place.sums, width * kWidth, true};
    product.bias = bias;
    if (packed.fused()) {
      product.more_a = place.inputs + place.line * size;
      product.more_b = weight;
      product.more_depth = size;
    } else {
      product.start = start;
      product.start_stride = width * kWidth;
    }
    if (several)
      multiply_line<Words>(width, product, apart);
    else
      multiply_lines<Words>(width, product);
  }

  float* saved_at(int64_t time, int64_t unit, int64_t row) const {
    return p.saved + ((time * layout.units + unit) * p.batch + row) * kept;
  }

  // Some rows of an update gate that is a cumulative softmax: sums replace the pre-activations, the shares are saved.
  void couple(const Place& place, Range some) {
    for (int64_t row = place.rows.begin + some.begin; row < place.rows.begin + some.end; ++row) {
      float* update = updates + row * layout.stride;
      cumax(update, kWidth, p.hidden_size, update, kWidth,
            saves ? saved_at(place.time, 0, row) + Gru<false>::kUpdate * kWidth : nullptr, p.batch * kept);
    }
  }

  // The gates of one vector of units: keeps the effective update gate, or what it is made of when all units of a row
  // are there, and what the reset gate lets through.
  template <class Cell>
  void open_gates(const Place& place, int64_t unit, const float* sums) {
    int64_t row0 = place.rows.begin, at = row0 * layout.stride + unit * kWidth, left = layout.units_left(unit);
    float* saved = saves ? saved_at(place.time, unit, row0) : nullptr;
    for (int64_t row = 0; row < place.rows.size(); ++row, at += layout.stride) {
      vf values[Cell::kGates];
#pragma GCC unroll 8
      for (int gate = 0; gate < Cell::kGates; ++gate)
        values[gate] = sigmoid(load(sums + row * columns + gate * kWidth));
      if (p.ordered) values[Cell::kUpdate] = load(sums + row * columns + Cell::kUpdate * kWidth);
      // Beyond the last unit may stand what the inputs made of zeros, and there it would meet the weights' zeros.
      vf let_through = first_of(values[Cell::kReset] * load(hidden + at), left);
      Number::store_factors(recalled + (row0 + row) * stride, unit * kWidth, let_through);
      store(updates + at, p.ordered ? values[Cell::kUpdate] : Cell::effective_update(values));
      if (refines != nullptr) store(refines + at, values[Cell::kGates - 1]);
      if (saved != nullptr)
        for (int gate = 0; gate < Cell::kGates; ++gate) store(saved + row * kept + gate * kWidth, values[gate]);
    }
  }

  // The candidate and the new hidden state of one vector of units, the column of a block, in the place of the old one,
  // which no other thread reads any more.
  void advance(const Place& place, int64_t unit, int column, int width) {
    int64_t left = layout.units_left(unit);
    const float* sums = place.sums + column * kWidth;
    for (int64_t row = place.rows.begin; row < place.rows.end; ++row, sums += width * kWidth) {
      int64_t at = row * layout.stride + unit * kWidth;
      vf candidates = tanh(load(sums)), value = load(hidden + at);
      vf update = load(updates + at);
      if (refines != nullptr) update = refined(update, load(refines + at));
      if (layout.real(row, place.time)) value = Gru<false>::forward(update, candidates, value);
      value = first_of(value, left);
      set_hidden(row, unit, value);
      Element* outputs = static_cast<Element*>(p.outputs) + (row * p.time + place.time) * p.hidden_size;
      store_first(outputs + unit * kWidth, value, left);
      if (!saves) continue;
      float* saved = saved_at(place.time, unit, row);
      store(saved + gates * kWidth, candidates);
      if (!kExact) store(saved + (gates + 1) * kWidth, value);
    }
  }

  void copy_hidden(Range rows, Range units, float* to) {
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t unit = units.begin; unit < units.end; ++unit)
        store_first(to + row * p.hidden_size + unit * kWidth,
                    load(hidden + row * layout.stride + unit * kWidth), layout.units_left(unit));
  }

  const Arguments& p;
  Layout layout;
  const int gates;
  const int64_t columns, kept;  // floats of a vector of units: of the gates, of what is kept of a step
  PackedGru<Number> packed;
  const bool saves;  // activations
  float *hidden, *hidden_factors, *recalled, *updates, *refines, *own;
  int64_t stride, chunk_inputs_size, sums_size, own_size;
};
