// The gradients of the weights and the bias of the LSTM: for each chunk of steps the product of what its lines were
// multiplied with in the forward pass and the gradients of their pre-activations ("deltas"), added up over the chunks,
// and at the end over the row groups.
#pragma once

#include "pack.h"
#include "panels.h"

// What each line of a chunk was multiplied with: its input, and the hidden state before its step.
template <class Number>
struct LineFactors {
  using Element = typename Number::Element;

  const Element* input_of(const Lines& chunk, int64_t line) const {
    int64_t place = chunk.row_of(line) * p.time + layout.time_of(chunk.step_of(line));
    return static_cast<const Element*>(p.inputs) + place * p.input_size;
  }
  const Element* hidden_before(const Lines& chunk, int64_t line) const {
    int64_t row = chunk.row_of(line), step = chunk.step_of(line);
    if (step == 0) return static_cast<const Element*>(p.hidden) + row * p.hidden_size;
    return static_cast<const Element*>(p.outputs) + (row * p.time + layout.time_of(step - 1)) * p.hidden_size;
  }
  bool real(const Lines& chunk, int64_t line) const {
    return layout.real(chunk.row_of(line), layout.time_of(chunk.step_of(line)));
  }

  const Arguments& p;
  const Layout& layout;
};

template <class Number>
class WeightGrads {
 public:
  WeightGrads(const Arguments& arguments, const Layout& shared, int gate_count)
      : p(arguments), layout(shared), lines_of{arguments, shared}, gates(gate_count), columns(gates * kWidth),
        tile_rows(max_rows(gates)) {}

  void lay_out(Workspace& workspace) {
    int64_t groups = layout.row_groups;
    factors = (p.hidden_size + p.input_size + tile_rows - 1) / tile_rows * tile_rows;
    most_words = words<Number>(layout.chunk_rows());
    // On tiles a row of the panel is a factor, and rows that lie whole 4 KiB apart would share lines of the cache.
    panel_stride = most_words + (on_tiles<Words>() ? kWidth : 0);
    panels = workspace.floats(groups * panel_stride * factors);
    weight_grads = workspace.floats(groups * factors * layout.units * columns);
    bias_grads = workspace.floats(groups * 2 * layout.units * columns);
  }

  // Floats that each thread lends to `fill_panel` and `weigh`.
  int64_t own_size() const { return std::max(gathered<Words>() * (factors + kWidth), most_words * columns); }

  // The sum of the chunk for one vector of units, by gate.
  float* bias_of(const Lines& chunk, int64_t unit) const {
    return bias_grads + (chunk.group * 2 * layout.units + unit) * columns;
  }

  // Begins the sum of a chunk, after adding up those before: long sums lose less to rounding in parts.
  void begin_bias(const Lines& chunk, int64_t unit) {
    float* part = bias_of(chunk, unit);
    float* total = part + layout.units * columns;
    for (int gate = 0; gate < gates; ++gate) {
      vf before = chunk.last == p.time ? vf{} : load(total + gate * kWidth) + load(part + gate * kWidth);
      store(total + gate * kWidth, before);
      store(part + gate * kWidth, vf{});
    }
  }

  // The left factor of the product, for some words of lines.
  void fill_panel(const Lines& chunk, Range some, float* own) {
    float* panel = panel_of(chunk);
    int64_t apart = factors + kWidth;
    for (int64_t word = some.begin; word < some.end; word += gathered<Words>()) {
      int64_t count = std::min(gathered<Words>(), some.end - word);
      for (int64_t row = 0; row < count; ++row) gather(chunk, word + row, own + row * apart);
      if (on_tiles<Words>())
        transpose_words(own, apart, count, factors, panel + word, panel_stride);
      else
        for (int64_t block = 0; block < factors / tile_rows; ++block)
          copy_row(panel + (block * most_words + word) * tile_rows, own + block * tile_rows, tile_rows);
    }
  }

  // weight_grad += panel^T deltas, for one vector of units; the deltas of a line lie `stride` words from the next.
  void weigh(const Lines& chunk, const float* deltas, int64_t stride, int64_t unit, float* own) {
    int64_t lines = words<Number>(chunk.used()), segments = (lines + kSegment - 1) / kSegment;
    for (int64_t word = 0; word < lines; ++word) {
      const float* low = deltas + word * kPack * stride;
      bool paired = kPack == 2 && word * kPack + 1 < chunk.used();
      for (int gate = 0; gate < gates; ++gate) {
        int64_t place = unit * columns + gate * kWidth;
        vf other = paired ? Number::load_factors(low + stride, place) : vf{};
        store(own + word * columns + gate * kWidth, Number::word(Number::load_factors(low, place), other));
      }
    }
    if (on_tiles<Words>())
      return multiply_tiles(panel_of(chunk), panel_stride, factors, own, gates, gates, lines,
                            weight_grads + (chunk.group * layout.units + unit) * factors * columns, columns,
                            chunk.last == p.time);
    auto tile = Kernels<Words>::weigh(gates, tile_rows);
    for (int64_t segment = 0; segment < segments; ++segment) {
      int64_t begin = lines * segment / segments, end = lines * (segment + 1) / segments;
      for (int64_t block = 0; block < factors / tile_rows; ++block) {
        float* to = weight_grads + ((chunk.group * layout.units + unit) * factors + block * tile_rows) * columns;
        bool first = chunk.last == p.time && segment == 0;
        tile(panel_of(chunk) + (block * most_words + begin) * tile_rows, own + begin * columns, end - begin, to, first);
      }
    }
  }

  // Adds up the row groups' gradients, always in the same order, and brings them into torch's order.
  void collect(int thread) {
    Range units = share(layout.units, layout.threads, thread);
    for (int64_t unit = units.begin; unit < units.end; ++unit) {
      float* sums = weight_grads + unit * factors * columns;
      float* bias = bias_grads + unit * columns;
      int64_t part = layout.units * columns;
      add_up(bias, bias + part, columns);
      for (int64_t group = 1; group < layout.row_groups; ++group) {
        add_up(sums, sums + group * factors * part, factors * columns);
        add_up(bias, bias + group * 2 * part, columns);
        add_up(bias, bias + group * 2 * part + part, columns);
      }
      deliver(sums, unit, p.recurrent_weight_grad, p.hidden_size);
      deliver(sums + p.hidden_size * columns, unit, p.input_weight_grad, p.input_size);
      for (int gate = 0; gate < gates; ++gate)
        store_first(p.bias_grad + gate * p.hidden_size + unit * kWidth, load(bias + gate * kWidth),
                    layout.units_left(unit));
    }
  }

 private:
  using Words = typename Number::Words;
  using Element = typename Number::Element;
  static constexpr int kPack = Number::kPack;

  float* panel_of(const Lines& chunk) const { return panels + chunk.group * panel_stride * factors; }

  // The factors of one word of lines.
  void gather(const Lines& chunk, int64_t word, float* own) {
    int64_t low = word * kPack, high = low + kPack - 1;
    bool paired = kPack == 2 && high < chunk.used();
    interleave(own, lines_of.hidden_before(chunk, low), paired ? lines_of.hidden_before(chunk, high) : nullptr,
               p.hidden_size);
    // What stands in the padding may be anything, and zero times NaN is not zero.
    interleave(own + p.hidden_size, lines_of.real(chunk, low) ? lines_of.input_of(chunk, low) : nullptr,
               paired && lines_of.real(chunk, high) ? lines_of.input_of(chunk, high) : nullptr, p.input_size);
    for (int64_t factor = p.hidden_size + p.input_size; factor < factors; ++factor) own[factor] = 0.0f;
  }

  // Words of the values of two lines, a null line being zeros. May write a vector beyond the last.
  static INLINE void interleave(float* to, const Element* low, const Element* high, int64_t count) {
    for (int64_t first = 0; first < count; first += kWidth)
      store(to + first, Number::word(low == nullptr ? vf{} : load_first(low + first, count - first),
                                     high == nullptr ? vf{} : load_first(high + first, count - first)));
  }

  // The first `width` rows of columns become rows of a (gates * hidden, width) gradient.
  void deliver(const float* sums, int64_t unit, float* grad, int64_t width) {
    int64_t lanes = std::min<int64_t>(kWidth, layout.units_left(unit));
    for (int gate = 0; gate < gates; ++gate)
      deliver_columns(sums + gate * kWidth, columns, grad + (gate * p.hidden_size + unit * kWidth) * width, width,
                      lanes);
  }

  const Arguments& p;
  const Layout& layout;
  const LineFactors<Number> lines_of;
  const int gates;
  const int64_t columns, tile_rows;  // floats in a row of a tile, and its rows
  int64_t factors, most_words, panel_stride;
  // (row group) [block][word of lines][tile_rows], or on tiles [factor][word of lines]: hidden before the step, input
  float* panels;
  float* weight_grads;  // (row group) [unit][factor][column]
  float* bias_grads;    // (row group) [of the chunk, of the chunks before][unit][column]
};
