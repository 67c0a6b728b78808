// Products of bfloat16 factors on the processor's matrix tiles (AMX), where it has them and they are switched on. The
// factors lie as for the micro-kernel of tile.h; sums are floats here too, in an order of their own.
#pragma once

#include <cstdint>

#include "numbers.h"

// For all passes of this library; false at first.
extern bool tiles_in_use;

// to[line][column] += a[line] * b over `depth` words of two values; = if `fresh`. Lines of `a` lie `stride` words apart,
// those of `to` `to_stride`; `b` is [word][vector] of which the first `columns` of `across` are used.
void multiply_tiles(const float* a, int64_t stride, int64_t lines, const float* b, int64_t across, int columns,
                    int64_t depth, float* to, int64_t to_stride, bool fresh);

// To be called by each thread when its part of a pass is done: what the tiles hold need not be kept any longer.
void release_tiles();

template <class Words>
INLINE bool on_tiles() {
  return Words::kPairs && tiles_in_use;
}

// Rows of words that a pass brings together before they go into a panel of left factors.
template <class Words>
INLINE int64_t gathered() {
  return on_tiles<Words>() ? kWidth : 1;
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
