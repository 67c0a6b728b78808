// Weights in the order in which the micro-kernel reads them.
#pragma once

#include "layout.h"
#include "numbers.h"

// Calls `body` with the weight as what it holds: floats or bfloat16 values.
template <class Number, class Body>
INLINE void with_weight(const Arguments& arguments, const void* weight, const Body& body) {
  if constexpr (!std::is_same<Number, Float32>::value)
    if (arguments.weights_bf16) return body(static_cast<const uint16_t*>(weight));
  body(static_cast<const float*>(weight));
}

// The bias of one vector of units of a block, the gate bias in it.
INLINE vf bias_of(const Arguments& p, int64_t block, int64_t unit) {
  int64_t first = unit * kWidth, left = p.hidden_size - first;
  auto at = [&](const void* biases, int64_t place) {
    return p.rounded & kBiases ? load_first(static_cast<const uint16_t*>(biases) + place, left)
                               : load_first(static_cast<const float*>(biases) + place, left);
  };
  vf bias = p.bias == nullptr ? vf{} : at(p.bias, block * p.hidden_size + first);
  if (p.gate_bias == nullptr) return bias;
  vf gate_bias = at(p.gate_bias, first);
  return p.raised >> block & 1 ? bias + gate_bias : p.lowered >> block & 1 ? bias - gate_bias : bias;
}

// How far ahead of their use values are asked for that become words.
constexpr int64_t kAheadOfPacking = 8 * kCacheLine;

// At most kWidth rows of a matrix of `depth` columns -> to[word of depth][lane], vectors of lanes `apart` floats apart,
// for the words [word, word + kWidth) that there are; zero beyond the last row.
template <class Number, class Element>
INLINE void pack_block(const Element* rows, int64_t count, int64_t depth, int64_t word, float* to, int64_t apart) {
  vf block[kWidth];
  for (int lane = 0; lane < kWidth; ++lane) {
    int64_t k = word * Number::kPack;
    block[lane] = lane < count ? load_words<Number>(rows + lane * depth + k, depth - k) : vf{};
    // More rows at once than the processor foresees.
    __builtin_prefetch(rows + lane * depth + k + kAheadOfPacking);
  }
  transpose(block);
  for (int64_t place = word; place < std::min(word + kWidth, words<Number>(depth)); ++place)
    store(to + place * apart, block[place - word]);
}

template <class Number, class Element>
void pack_vector(const Element* rows, int64_t count, int64_t depth, float* to, int64_t apart) {
  for (int64_t word = 0; word < words<Number>(depth); word += kWidth)
    pack_block<Number>(rows, count, depth, word, to, apart);
}

// Rows of a (gates * hidden, depth) matrix -> to[word of k][gate][lane] for the vector `unit` of hidden units.
template <class Number, class Element>
void pack_columns(const Element* weight, int gates, int64_t hidden_size, int64_t depth, int64_t unit, float* to) {
  // All gates of some words, and not one gate after another: what lies together is written together.
  for (int64_t word = 0; word < words<Number>(depth); word += kWidth)
    for (int gate = 0; gate < gates; ++gate)
      pack_block<Number>(weight + (gate * hidden_size + unit * kWidth) * depth, hidden_size - unit * kWidth, depth,
                         word, to + gate * kWidth, gates * kWidth);
}

// Columns [first, first + columns) vectors of a (gates * hidden, width) matrix -> to[unit][gate][word of lanes][column],
// for products with the gradients of the pre-activations, which lie in that order; zero beyond the edges.
template <class Number, class Element>
void pack_rows(const Element* weight, int gates, int64_t hidden_size, int64_t width, int64_t first, int64_t columns,
               float* to) {
  for (int64_t unit = 0; unit < vectors(hidden_size); ++unit)
    for (int gate = 0; gate < gates; ++gate)
      for (int64_t lane = 0; lane < kWidth; lane += Number::kPack) {
        int64_t row = unit * kWidth + lane;
        const Element* from = weight + (gate * hidden_size + row) * width;
        for (int64_t column = first; column < first + columns; ++column, to += kWidth) {
          int64_t left = width - column * kWidth;
          vf low = row < hidden_size ? load_first(from + column * kWidth, left) : vf{}, high{};
          if (Number::kPack == 2 && row + 1 < hidden_size) high = load_first(from + width + column * kWidth, left);
          store(to, Number::word(low, high));
        }
      }
}
