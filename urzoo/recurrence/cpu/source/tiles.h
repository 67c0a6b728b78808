// Products of bfloat16 factors on the processor's matrix tiles (AMX), where it has them and they are switched on. The
// factors lie as for the micro-kernel of tile.h; sums are floats here too, in an order of their own.
#pragma once

#include <cstdint>

// For all passes of this library; false at first.
extern bool tiles_in_use;

// to[line][column] += a[line] * b over `depth` words of two values; = if `fresh`. Lines of `a` lie `stride` words apart,
// those of `to` `to_stride`; `b` is [word][vector] of which the first `columns` of `across` are used.
void multiply_tiles(const float* a, int64_t stride, int64_t lines, const float* b, int64_t across, int columns,
                    int64_t depth, float* to, int64_t to_stride, bool fresh);

// To be called by each thread when its part of a pass is done: what the tiles hold need not be kept any longer.
void release_tiles();

template <class Words>
inline bool on_tiles() {
  return Words::kPairs && tiles_in_use;
}
