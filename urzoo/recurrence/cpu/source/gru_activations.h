// The activations that the GRU's backward pass reads: those that the forward pass saved, or those of one chunk of steps
// at a time, computed again. In float32 the outputs tell every hidden state, so that each of the two products is one
// for the whole chunk. In bfloat16 they are rounded: they tell the factors of the gates' product, but what the reset
// gate lets through comes from the hidden state as it was carried, step by step from the last one kept.
#pragma once

#include "cumax.h"
#include "gru_blocks.h"

template <class Number>
class GruActivations {
 public:
  static constexpr bool kExact = std::is_same<Number, Float32>::value;

  GruActivations(const Arguments& arguments, const Layout& shared)
      : p(arguments), layout(shared), gates(gru_gates(arguments)), candidate_at(gates * kWidth),
        hidden_at(candidate_at + kWidth), kept(hidden_at + (kExact ? 0 : kWidth)), packed(arguments, gates) {}

  void lay_out(Workspace& workspace) {
    int64_t groups = layout.row_groups;
    most_lines = layout.chunk_rows();
    sums = p.ordered ? workspace.floats(groups * most_lines * layout.stride) : nullptr;
    if (p.segment == 0) return;
    stride = packed.input_words() + packed.hidden_words() + 16;
    packed.place(workspace);
    arguments = workspace.floats(groups * most_lines * stride);
    again = workspace.floats(groups * layout.units * most_lines * kept);
  }

  void prepare(int thread) {
    if (p.segment == 0) return;
    Range units = share(layout.units, layout.row_groups * layout.unit_groups, thread);
    for (int64_t unit = units.begin; unit < units.end; ++unit) packed.pack(unit);
  }

  // Gates, candidate and, where outputs are rounded, the hidden state after a step; `row` is that of the batch.
  float* at(const Lines& chunk, int64_t step, int64_t unit, int64_t row) const {
    if (p.segment != 0) return of_line(chunk, chunk.line(step, row - chunk.rows.begin), unit);
    return p.saved + ((layout.time_of(step) * layout.units + unit) * p.batch + row) * kept;
  }

  // One vector of the hidden state before a step, as it was carried.
  INLINE vf hidden_before(const Lines& chunk, int64_t step, int64_t unit, int64_t row) const {
    int64_t left = layout.units_left(unit), place = row * p.hidden_size + unit * kWidth;
    if (step == 0) return load_first(static_cast<const float*>(p.hidden) + place, left);
    if (kExact) return load_first(output_before(step, row) + unit * kWidth, left);
    if (p.segment != 0 && step == chunk.first)
      return load_first(p.saved + step / p.segment * p.batch * p.hidden_size + place, left);
    return load(at(chunk, step - 1, unit, row) + hidden_at);
  }

  // Asks for them, and for the hidden state before the step.
  INLINE void expect(const Lines& chunk, UnitStep place, int64_t row) const {
    const float* saved = at(chunk, place.step, place.unit, row);
#pragma GCC unroll 8
    for (int value = 0; value < kept; value += kWidth) __builtin_prefetch(saved + value);
    if (kExact && place.step > 0)
      __builtin_prefetch(output_before(place.step, row) + place.unit * kWidth);
    else if (place.step > chunk.first)
      __builtin_prefetch(at(chunk, place.step - 1, place.unit, row) + hidden_at);
  }

  // Where the update gate is a cumulative softmax: its sums at a line, which the gradient of the gate replaces.
  float* sums_at(const Lines& chunk, int64_t line, int64_t unit) const {
    return sums + (chunk.group * most_lines + line) * layout.stride + unit * kWidth;
  }

  // The gradients of those sums become those of the pre-activations.
  void differentiate_sums(const Lines& chunk, int64_t line) {
    differentiate_cumax(at(chunk, chunk.step_of(line), 0, chunk.row_of(line)) + Gru<false>::kUpdate * kWidth,
                        units_apart(), p.hidden_size, sums_at(chunk, line, 0), kWidth);
  }

  // Computes those of a chunk again, if they were not saved: `units` and `lines` are this thread's parts. `recalled`
  // and `own` are room for what the reset gate lets through, (line, unit), and for a block of units of all lines.
  void begin(const Lines& chunk, Range units, Range lines, float* recalled, float* own, Barrier& barrier) {
    if (p.segment == 0) {
      if (p.ordered) couple(chunk, lines, barrier);
      return;
    }
    fill_arguments(chunk, lines);
    barrier.wait();
    for (int64_t unit = units.begin; unit < units.end; ++unit) open_gates(chunk, unit);
    if (p.ordered) {
      barrier.wait();
      couple(chunk, lines, barrier);
    }
    int64_t at_once = kExact ? chunk.last - chunk.first : 1;
    for (int64_t step = chunk.first; step < chunk.last; step += at_once) {
      Range some{chunk.line(step, 0), chunk.line(step + at_once, 0)};
      for (int64_t unit = units.begin; unit < units.end; ++unit) recall(chunk, some, unit, recalled);
      barrier.wait();
      for_blocks(units, [&](int width, int64_t unit) { advance(chunk, some, unit, width, recalled, own); });
    }
    barrier.wait();
  }

 private:
  using Words = typename Number::Words;
  using Element = typename Number::Element;

  float* arguments_of(const Lines& chunk, int64_t line) const {
    return arguments + (chunk.group * most_lines + line) * stride;
  }
  float* of_line(const Lines& chunk, int64_t line, int64_t unit) const {
    return again + ((chunk.group * layout.units + unit) * most_lines + line) * kept;
  }
  const Element* output_before(int64_t step, int64_t row) const {
    return static_cast<const Element*>(p.outputs) + (row * p.time + layout.time_of(step - 1)) * p.hidden_size;
  }

  int64_t units_apart() const { return (p.segment != 0 ? most_lines : p.batch) * kept; }

  // The sums of an update gate that is a cumulative softmax, from its shares, or from its pre-activations, which shares
  // replace.
  void couple(const Lines& chunk, Range lines, Barrier& barrier) {
    for (int64_t line = lines.begin; line < lines.end; ++line) {
      float *update = at(chunk, chunk.step_of(line), 0, chunk.row_of(line)) + Gru<false>::kUpdate * kWidth;
      float* to = sums_at(chunk, line, 0);
      if (p.segment != 0)
        cumax(update, units_apart(), p.hidden_size, to, kWidth, update, units_apart());
      else
        cumax_of_shares(update, units_apart(), p.hidden_size, to, kWidth);
    }
    barrier.wait();
  }

  // The factors of the gates' product for each line: its input, and the hidden state before its step.
  void fill_arguments(const Lines& chunk, Range lines) {
    for (int64_t line = lines.begin; line < lines.end; ++line) {
      int64_t step = chunk.step_of(line), row = chunk.row_of(line), place = row * p.time + layout.time_of(step);
      float *inputs = arguments_of(chunk, line), *state = inputs + packed.input_words();
      copy_words<Number>(inputs, static_cast<const Element*>(p.inputs) + place * p.input_size, p.input_size);
      if (step == 0)
        copy_words<Number>(state, static_cast<const float*>(p.hidden) + row * p.hidden_size, p.hidden_size);
      else
        copy_words<Number>(state, output_before(step, row), p.hidden_size);
    }
  }

  // The gates of one vector of units in the whole chunk.
  void open_gates(const Lines& chunk, int64_t unit) {
    float* here = of_line(chunk, 0, unit);
    multiply_lines<Words>(gates, {chunk.used(), arguments_of(chunk, 0), stride, packed.gates.inputs(unit), gates,
                                   packed.input_words() + packed.hidden_words(), here, kept, true});
    for (int64_t line = 0; line < chunk.used(); ++line, here += kept)
      for (int gate = 0; gate < gates; ++gate) {
        vf value = load(here + gate * kWidth) + load(packed.gates.bias(unit) + gate * kWidth);
        store(here + gate * kWidth, p.ordered && gate == Gru<false>::kUpdate ? value : sigmoid(value));
      }
  }

  // What the reset gate lets through, as factors.
  void recall(const Lines& chunk, Range lines, int64_t unit, float* recalled) {
    for (int64_t line = lines.begin; line < lines.end; ++line) {
      vf reset = load(of_line(chunk, line, unit) + Gru<false>::kReset * kWidth);
      vf hidden = hidden_before(chunk, chunk.step_of(line), unit, chunk.row_of(line));
      Number::store_factors(recalled + line * layout.stride, unit * kWidth,
                            first_of(reset * hidden, layout.units_left(unit)));
    }
  }

  // The candidate of a block of units, and where outputs are rounded the hidden state after the step.
  void advance(const Lines& chunk, Range lines, int64_t unit, int width, const float* recalled, float* sums) {
    multiply_lines<Words>(width, {lines.size(), arguments_of(chunk, lines.begin), stride, packed.candidate.inputs(unit),
                                  kWide, packed.input_words(), sums, width * kWidth, true});
    multiply_lines<Words>(width, {lines.size(), recalled + lines.begin * layout.stride, layout.stride,
                                  packed.candidate.recurrent(unit), kWide, packed.hidden_words(), sums, width * kWidth,
                                  false});
    for (int64_t line = lines.begin; line < lines.end; ++line)
      for (int64_t one = unit; one < unit + width; ++one, sums += kWidth) {
        float* here = of_line(chunk, line, one);
        vf candidate = tanh(load(sums) + load(packed.candidate.bias(one)));
        store(here + candidate_at, candidate);
        if (!kExact) store(here + hidden_at, hidden_after(chunk, line, one, here, candidate));
      }
  }

  vf hidden_after(const Lines& chunk, int64_t line, int64_t unit, const float* activations, vf candidate) const {
    int64_t step = chunk.step_of(line), row = chunk.row_of(line);
    vf hidden = hidden_before(chunk, step, unit, row);
    if (layout.real(row, layout.time_of(step))) {
      vf update = load(p.ordered ? sums_at(chunk, line, unit) : activations + Gru<true>::kUpdate * kWidth);
      if (p.refined) update = refined(update, load(activations + Gru<true>::kRefine * kWidth));
      hidden = Gru<false>::forward(update, candidate, hidden);
    }
    return first_of(hidden, layout.units_left(unit));
  }

  const Arguments& p;
  const Layout& layout;
  const int gates;
  // Floats: where in what is kept of a vector of units candidate and hidden state are, and all of it.
  const int64_t candidate_at, hidden_at, kept;
  PackedGru<Number> packed;
  int64_t most_lines = 0, stride = 0;
  float* sums;  // (row group, line, layout.stride)
  float *arguments, *again;  // (row group, line, stride): factors; (row group, unit, line): activations
};
