// The gradients of weights: the left factors of their products, brought together in panels, and their way back into
// torch's order. What the LSTM and the GRU share.
#pragma once

#include "layout.h"
#include "tile.h"

// Rows of words that a pass brings together before they go into a panel of left factors.
template <class Words>
INLINE int64_t gathered() {
  return on_tiles<Words>() ? kWidth : 1;
}

// One row of a tile's left factors to its place in a panel.
INLINE void copy_row(float* to, const float* from, int64_t rows) {
  // As many bytes as a move has, where there is one: a call would take longer.
  if (rows == 6) std::memcpy(to, from, 6 * sizeof(float));
  else if (rows == 8) std::memcpy(to, from, 8 * sizeof(float));
  else
    for (int64_t row = 0; row < rows; ++row) to[row] = from[row];
}

// Words of `count` rows, at most a vector of them, `width` words each and `apart` from row to row: to[word][row], rows
// of `to` lying `stride` apart.
INLINE void transpose_words(const float* rows, int64_t apart, int64_t count, int64_t width, float* to, int64_t stride) {
  for (int64_t first = 0; first < width; first += kWidth) {
    vf block[kWidth];
    for (int64_t row = 0; row < kWidth; ++row) block[row] = row < count ? load(rows + row * apart + first) : vf{};
    transpose(block);
    for (int64_t lane = 0; lane < std::min<int64_t>(kWidth, width - first); ++lane)
      store_first(to + (first + lane) * stride, block[lane], count);
  }
}

// Whole vectors.
inline void add_up(float* sums, const float* more, int64_t count) {
  for (int64_t at = 0; at < count; at += kWidth) store(sums + at, load(sums + at) + load(more + at));
}

// One vector of columns of `width` rows, `apart` floats from row to row, becomes `lanes` rows of a gradient.
inline void deliver_columns(const float* sums, int64_t apart, float* to, int64_t width, int64_t lanes) {
  for (int64_t factor = 0; factor < width; factor += kWidth) {
    vf columns[kWidth];
    for (int64_t index = 0; index < kWidth; ++index)
      columns[index] = factor + index < width ? load(sums + (factor + index) * apart) : vf{};
    transpose(columns);
    for (int64_t lane = 0; lane < lanes; ++lane) store_first(to + lane * width + factor, columns[lane], width - factor);
  }
}
