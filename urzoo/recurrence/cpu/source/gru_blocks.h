// How the GRU's two recurrent products are cut. The gates of one vector of hidden units are multiplied together, as the
// LSTM's are; of the candidate several vectors of units at a time, so that the tile is wide enough for the processor.
#pragma once

#include <type_traits>

#include "gru_cell.h"
#include "packed.h"
#include "tile.h"

constexpr int kWide = 4;

// Calls `body(Count<width>{}, first)` on blocks of at most kWide vectors that cover `units`.
template <class Body>
INLINE void for_blocks(Range units, const Body& body) {
  for (int64_t unit = units.begin; unit < units.end; unit += kWide)
    call_with_rows<kWide>(std::min<int64_t>(kWide, units.end - unit), unit, body);
}

// The same for those blocks only that fall to one of `parts` threads.
template <class Body>
INLINE void for_some_blocks(Range units, int64_t parts, int64_t part, const Body& body) {
  int64_t turn = 0;
  for_blocks(units, [&](auto width, int64_t unit) {
    if (turn++ % parts == part) body(width, unit);
  });
}

// The weights and the bias of the candidate, as PackedWeights has those of the gates: [block][word][unit][lane].
template <class Cell, class Number>
struct PackedCandidate {
  explicit PackedCandidate(const Problem& problem) : p(problem) {}

  int64_t input_words() const { return words<Number>(p.input_size); }
  int64_t hidden_words() const { return words<Number>(p.hidden_size); }

  // Of the block that begins with `unit` and is `width` vectors wide.
  float* inputs(int64_t unit) const { return weights + unit * kWidth * (input_words() + hidden_words()); }
  float* recurrent(int64_t unit, int width) const { return inputs(unit) + input_words() * width * kWidth; }
  float* bias(int64_t unit) const { return biases + unit * kWidth; }

  void lay_out(Workspace& workspace) {
    weights = workspace.floats(vectors(p.hidden_size) * kWidth * (input_words() + hidden_words()));
    biases = workspace.floats(vectors(p.hidden_size) * kWidth);
  }

  template <int Width>
  void pack(int64_t unit) {
    with_weight(p, p.input_weight, [&](auto* weight) {
      pack_units<Width>(weight + Cell::kGates * p.hidden_size * p.input_size, p.input_size, unit, inputs(unit));
    });
    with_weight(p, p.recurrent_weight, [&](auto* weight) {
      pack_units<Width>(weight + Cell::kGates * p.hidden_size * p.hidden_size, p.hidden_size, unit,
                        recurrent(unit, Width));
    });
    for (int64_t one = unit; one < unit + Width; ++one) {
      const float* from = p.bias + Cell::kGates * p.hidden_size + one * kWidth;
      store(bias(one), p.bias == nullptr ? vf{} : load_first(from, p.hidden_size - one * kWidth));
    }
  }

  // Rows of a (hidden, depth) matrix -> to[word of depth][unit][lane]; zero beyond the last unit.
  template <int Width, class Element>
  void pack_units(const Element* weight, int64_t depth, int64_t first, float* to) {
    for (int unit = 0; unit < Width; ++unit) {
      int64_t row = (first + unit) * kWidth;
      pack_vector<Number>(weight + row * depth, p.hidden_size - row, depth, to + unit * kWidth, Width * kWidth);
    }
  }

  const Problem& p;
  float *weights, *biases;
};
