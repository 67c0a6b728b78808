// How the GRU's two recurrent products are cut. The gates of one vector of hidden units are multiplied together, as the
// LSTM's are; of the candidate several vectors of units at a time, so that the tile is wide enough for the processor.
#pragma once

#include "gru_cell.h"
#include "pack.h"
#include "tile.h"

constexpr int kWide = 4;

// Calls `body(Count<width>{}, first)` on blocks of at most kWide vectors that cover `units`.
template <class Body>
INLINE void for_blocks(Range units, const Body& body) {
  for (int64_t unit = units.begin; unit < units.end; unit += kWide)
    call_with_rows<kWide>(std::min<int64_t>(kWide, units.end - unit), unit, body);
}

// The same for the blocks of all threads that share rows: a thread's blocks begin with its first unit.
template <class Body>
INLINE void for_all_blocks(const Layout& layout, const Body& body) {
  for (int part = 0; part < layout.unit_groups; ++part) for_blocks(layout.units_of(part), body);
}

// Rows of a (hidden, depth) matrix -> to[k][unit][lane] for `Units` vectors of hidden units from `first` on; zero
// beyond the last unit.
template <int Units>
void pack_units(const float* weight, int64_t hidden_size, int64_t depth, int64_t first, float* to) {
  for (int unit = 0; unit < Units; ++unit) {
    int64_t row = (first + unit) * kWidth, lanes = std::min<int64_t>(kWidth, hidden_size - row);
    for (int64_t k = 0; k < depth; ++k) {
      float* place = to + (k * Units + unit) * kWidth;
      for (int64_t lane = 0; lane < lanes; ++lane) place[lane] = weight[(row + lane) * depth + k];
      for (int64_t lane = lanes; lane < kWidth; ++lane) place[lane] = 0.0f;
    }
  }
}

// sum += a times a packed weight, in segments: each begins at zero and loses less to rounding.
template <int Rows, int Columns>
INLINE void accumulate_segments(vf (&sum)[Rows][Columns], const float* a, int64_t row_stride, const float* weight,
                                int64_t depth) {
  accumulate<Float32, 1>(sum, a, row_stride, weight, std::min(depth, kSegment));
  for (int64_t done = kSegment; done < depth; done += kSegment) {
    vf part[Rows][Columns] = {};
    accumulate<Float32, 1>(part, a + done, row_stride, weight + done * Columns * kWidth, std::min(depth - done, kSegment));
    add(sum, part);
  }
}
