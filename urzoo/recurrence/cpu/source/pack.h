// Weights in the order in which the micro-kernel reads them.
#pragma once

#include "layout.h"

// Rows of a (gates * hidden, depth) matrix -> to[k][gate][lane] for the vector `unit` of hidden units; zero beyond
// the last unit.
template <int Gates>
void pack_columns(const float* weight, int64_t hidden_size, int64_t depth, int64_t unit, float* to) {
  int64_t lanes = std::min<int64_t>(kWidth, hidden_size - unit * kWidth);
  for (int gate = 0; gate < Gates; ++gate) {
    const float* rows = weight + (gate * hidden_size + unit * kWidth) * depth;
    for (int64_t k = 0; k < depth; ++k) {
      float* place = to + (k * Gates + gate) * kWidth;
      for (int64_t lane = 0; lane < lanes; ++lane) place[lane] = rows[lane * depth + k];
      for (int64_t lane = lanes; lane < kWidth; ++lane) place[lane] = 0.0f;
    }
  }
}

// Columns [first, first + columns) vectors of a (gates * hidden, width) matrix -> to[unit][gate][lane][column], for
// products with the gradients of the pre-activations, which lie in that order; zero beyond the edges.
template <int Gates>
void pack_rows(const float* weight, int64_t hidden_size, int64_t width, int64_t first, int64_t columns, float* to) {
  for (int64_t unit = 0; unit < vectors(hidden_size); ++unit)
    for (int gate = 0; gate < Gates; ++gate)
      for (int64_t lane = 0; lane < kWidth; ++lane) {
        int64_t row = unit * kWidth + lane;
        const float* from = weight + (gate * hidden_size + row) * width;
        for (int64_t column = first; column < first + columns; ++column, to += kWidth) {
          int64_t left = width - column * kWidth;
          store(to, row < hidden_size ? load_first(from + column * kWidth, left) : vf{});
        }
      }
}
