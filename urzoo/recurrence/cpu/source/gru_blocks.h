// How the GRU's two recurrent products are cut. The gates of one vector of hidden units are multiplied together, as the
// LSTM's are; of the candidate several vectors of units at a time, so that the tile is wide enough for the processor.
#pragma once

#include <type_traits>

#include "gru_cell.h"
#include "packed.h"
#include "tile.h"

// Calls `body(width, first)` on blocks that cover `units`, or what they have of a block: each is kWide vectors
// wide and begins at a multiple of that, whatever part of the units a thread has.
template <class Body>
INLINE void for_blocks(Range units, const Body& body) {
  for (int64_t unit = units.begin, next; unit < units.end; unit = next) {
    next = std::min(unit / kWide * kWide + kWide, units.end);
    body(static_cast<int>(next - unit), unit);
  }
}

// The same for those blocks only that fall to one of `parts` threads.
template <class Body>
INLINE void for_some_blocks(Range units, int64_t parts, int64_t part, const Body& body) {
  int64_t turn = 0;
  for_blocks(units, [&](int width, int64_t unit) {
    if (turn++ % parts == part) body(width, unit);
  });
}

// The weights and the bias of the candidate, as PackedWeights has those of the gates: [block][word][unit][lane], all
// blocks kWide vectors wide, so that threads may part within one. What the last has too many is never read.
template <class Number>
struct PackedCandidate {
  static constexpr int kAcross = kWide * kWidth;

  PackedCandidate(const Arguments& arguments, int gate_count) : p(arguments), gates(gate_count) {}

  int64_t input_words() const { return words<Number>(p.input_size); }
  int64_t hidden_words() const { return words<Number>(p.hidden_size); }

  float* inputs(int64_t unit) const {
    return weights + unit / kWide * kAcross * (input_words() + hidden_words()) + unit % kWide * kWidth;
  }
  float* recurrent(int64_t unit) const { return inputs(unit) + input_words() * kAcross; }
  float* bias(int64_t unit) const { return biases + unit * kWidth; }

  void place(Workspace& workspace) {
    int64_t units = (vectors(p.hidden_size) + kWide - 1) / kWide * kWide;
    weights = workspace.floats(units * kWidth * (input_words() + hidden_words()));
    biases = workspace.floats(vectors(p.hidden_size) * kWidth);
  }

  void pack(int64_t unit) {
    int64_t row = gates * p.hidden_size + unit * kWidth, left = p.hidden_size - unit * kWidth;
    with_weight<Number>(p, p.input_weight, [&](auto* weight) {
      pack_vector<Number>(weight + row * p.input_size, left, p.input_size, inputs(unit), kAcross);
    });
    with_weight<Number>(p, p.recurrent_weight, [&](auto* weight) {
      pack_vector<Number>(weight + row * p.hidden_size, left, p.hidden_size, recurrent(unit), kAcross);
    });
    store(bias(unit), bias_of(p, gates, unit));
  }

  const Arguments& p;
  const int gates;  // before the candidate, in torch's weights
  float *weights, *biases;
};

// Both.
template <class Number>
struct PackedGru {
  PackedGru(const Arguments& arguments, int gate_count) : gates(arguments, gate_count), candidate(arguments, gate_count) {}

  bool fused() const { return gates.fused(); }
  int64_t input_words() const { return gates.input_words(); }
  int64_t hidden_words() const { return gates.hidden_words(); }

  void place(Workspace& workspace) {
    gates.place(workspace);
    candidate.place(workspace);
  }

  void pack(int64_t unit) {
    gates.pack(unit);
    candidate.pack(unit);
  }

  PackedWeights<Number> gates;
  PackedCandidate<Number> candidate;
};
