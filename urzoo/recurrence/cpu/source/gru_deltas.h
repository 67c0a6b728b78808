// What belongs to one of the two products of a step of the GRU's backward pass: the gradients that are multiplied
// ("deltas"), the weights, and the gradients of these, which add up over the chunks.
#pragma once

#include "panels.h"

// A tile of the gradients of weights is `wide` vectors wide where it can be.
template <class Number>
struct GruDeltas {
  explicit GruDeltas(int wide) : rows(max_rows(wide)) {}
  const int64_t rows;  // factors of a tile
  int64_t columns;     // of the deltas
  int64_t depth, stride, factors, lines, panel_stride, panel_size, grad_size;
  float *hidden_weights, *input_weights;  // [block][word of columns][vector]
  float* deltas;   // (row group, line, stride): factors of all columns
  // (row group) [factor block][word of lines][rows], or on tiles [factor][word of lines]: what was multiplied, input
  float* panels;
  float* grads;    // (row group) [unit or block][factor][column]

  void lay_out(Workspace& workspace, int64_t width, int64_t size, int64_t inputs, int64_t most_lines, int64_t groups,
               int64_t most_factors) {
    columns = width;
    lines = most_lines;
    depth = columns / kPack;
    stride = row_stride(depth);
    factors = (most_factors + rows - 1) / rows * rows;
    // On tiles a row of the panel is a factor, and rows that lie whole 4 KiB apart would share lines of the cache.
    panel_stride = words<Number>(lines) + (on_tiles<Words>() ? kWidth : 0);
    panel_size = panel_stride * factors;
    grad_size = factors * columns;
    hidden_weights = workspace.floats(size * depth);
    input_weights = workspace.floats(inputs * depth);
    deltas = workspace.floats(groups * lines * stride);
    panels = workspace.floats(groups * panel_size);
    grads = workspace.floats(groups * grad_size);
  }
  float* deltas_of(int64_t group, int64_t line) const { return deltas + (group * lines + line) * stride; }

  // gradient += panel^T deltas, = if `fresh`, for `wide` vectors of columns from `column` on.
  void weigh(const Lines& chunk, int wide, int64_t column, bool fresh, float* own) {
    int64_t across = wide * kWidth, used = words<Number>(chunk.used()), segments = (used + kSegment - 1) / kSegment;
    auto tile = Kernels<Words>::weigh(wide, rows);
    for (int64_t word = 0; word < used; ++word) {
      const float* low = deltas_of(chunk.group, word * kPack);
      bool paired = kPack == 2 && word * kPack + 1 < chunk.used();
      for (int64_t at = 0; at < across; at += kWidth) {
        vf other = paired ? Number::load_factors(low + stride, column + at) : vf{};
        store(own + word * across + at, Number::word(Number::load_factors(low, column + at), other));
      }
    }
    const float* panel = panels + chunk.group * panel_size;
    float* to = grads + chunk.group * grad_size + column * factors;
    if (on_tiles<Words>())
      return multiply_tiles(panel, panel_stride, factors, own, wide, wide, used, to, across, fresh);
    for (int64_t segment = 0; segment < segments; ++segment) {
      int64_t begin = used * segment / segments, end = used * (segment + 1) / segments;
      for (int64_t block = 0; block < factors / rows; ++block)
        tile(panel + (block * words<Number>(lines) + begin) * rows, own + begin * across, end - begin,
             to + block * rows * across, fresh && segment == 0);
    }
  }

  // Adds up the gradients of so many row groups, always in the same order, for the columns that `weigh` had.
  float* add_groups(int64_t groups, int wide, int64_t column) {
    float* sums = grads + column * factors;
    for (int64_t group = 1; group < groups; ++group) add_up(sums, sums + group * grad_size, factors * wide * kWidth);
    return sums;
  }

 private:
  using Words = typename Number::Words;
  static constexpr int kPack = Number::kPack;
};
