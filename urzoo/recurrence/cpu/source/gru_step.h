// One step of few rows of the GRU without packing, as step.h takes it for the LSTM.
#pragma once

#include "gru_cell.h"
#include "step.h"

template <class Number>
class GruStep final : public Work {
 public:
  explicit GruStep(const Arguments& arguments)
      : p(arguments), gates(gru_gates(arguments)), hidden(static_cast<const float*>(arguments.hidden)) {}

  int lay_out(Workspace& workspace, int most_threads) override {
    threads = static_cast<int>(std::min<int64_t>(most_threads, unit_blocks(p)));
    all.set_threads(threads);
    widened.lay_out(workspace, threads);
    stride = row_stride(vectors(p.hidden_size) * kWidth);
    for (float** each : {&recalled, &updates, &refines, &candidates}) *each = workspace.floats(p.batch * stride);
    return threads;
  }

  void run(int thread) override {
    Range units = share_units(p, threads, thread);
    const void* inputs = widened.inputs(thread);
    for (int64_t unit = units.begin; unit < units.end; ++unit)
      for_lines(p.batch, kLines, [&](Some some) { open_gates(unit, some, inputs); });
    all.wait();
    if (p.ordered) {
      Range rows = share(p.batch, threads, thread);
      for (float* row = updates + rows.begin * stride; row < updates + rows.end * stride; row += stride)
        cumax(row, kWidth, p.hidden_size, row, kWidth, nullptr, 0);
      all.wait();
    }
    for (int64_t unit = units.begin; unit < units.end; ++unit)
      for_lines(p.batch, kLines, [&](Some some) { advance(unit, some); });
  }

 private:
  static constexpr int kLines = lines_at_once(Gru<true>::kBlocks);
  static_assert(kLines == lines_at_once(1), "as many of every product");

  void open_gates(int64_t unit, Some some, const void* inputs) {
    vf sums[kMostLines][kMostGates][kWidth];
    multiply_unit<Number, 3, 4>(p, gates + 1, sums, unit, some, static_cast<const typename Number::Element*>(inputs),
                                p.input_size, p.input_weight, p.input_size, 0, true);
    multiply_unit<Number, 2, 3>(p, gates, sums, unit, some, hidden, p.hidden_size, p.recurrent_weight,
                                p.hidden_size, 0, false);
    for (int line = 0; line < some.lines; ++line) {
      int64_t row = some.first + line, place = row * stride + unit * kWidth;
      vf preactivations[Gru<true>::kBlocks];
      for (int block = 0; block <= gates; ++block)
        preactivations[block] = totals(sums[line][block]) + bias_of(p, block, unit);
      store(candidates + place, preactivations[gates]);
      vf reset = sigmoid(preactivations[Gru<false>::kReset]), update = preactivations[Gru<false>::kUpdate];
      store(recalled + place, reset * hidden_at(unit, row));
      store(updates + place, p.ordered ? update : sigmoid(update));
      if (p.refined) store(refines + place, sigmoid(preactivations[Gru<true>::kRefine]));
    }
  }

  void advance(int64_t unit, Some some) {
    vf sums[kMostLines][kMostGates][kWidth];
    multiply_unit<Number, 1, 1>(p, 1, sums, unit, some, recalled, stride, p.recurrent_weight, p.hidden_size,
                                gates, true);
    for (int line = 0; line < some.lines; ++line) {
      int64_t row = some.first + line, place = row * stride + unit * kWidth;
      vf candidate = tanh(totals(sums[line][0]) + load(candidates + place)), update = load(updates + place);
      if (p.refined) update = refined(update, load(refines + place));
      store_first(static_cast<float*>(p.final_hidden) + row * p.hidden_size + unit * kWidth,
                  Gru<false>::forward(update, candidate, hidden_at(unit, row)), p.hidden_size - unit * kWidth);
    }
  }

  INLINE vf hidden_at(int64_t unit, int64_t row) const {
    return load_first(hidden + row * p.hidden_size + unit * kWidth, p.hidden_size - unit * kWidth);
  }

  const Arguments& p;
  const int gates;
  const float* hidden;
  Widened widened{p};
  int threads = 1;
  Barrier all;
  int64_t stride = 0;  // of a row of these
  float *recalled, *updates, *refines, *candidates;
};
