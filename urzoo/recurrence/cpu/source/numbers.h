// The dtypes of the products: how tensors hold their values, and how factors are kept for the micro-kernel.
//
// Factors are kept in words of 32 bits, which the micro-kernel broadcasts and multiplies: a float, or, where the
// processor has the instruction, two consecutive bfloat16 values. Without it factors of bfloat16 are floats that
// hold such values, so that every variant computes the same to rounding. Sums are floats in any case.
#pragma once

#include <algorithm>
#include <type_traits>

#include "simd.h"

typedef uint16_t vh __attribute__((vector_size(2 * kWidth)));
typedef uint16_t vh_any __attribute__((vector_size(2 * kWidth), aligned(2), may_alias));

INLINE vf widen(vh value) { return (vf)(__builtin_convertvector(value, vu) << 16); }

// To nearest, ties to even; NaN stays NaN.
INLINE vh narrow(vf value) {
#if defined(__AVX512BF16__)
  return (vh)_mm512_maskz_cvtneps_pbh(kAll, (__m512)value);
#else
  vu bits = (vu)value, rounded = bits + 0x7fff + ((bits >> 16) & 1), quiet = bits | 0x00400000;
  return __builtin_convertvector((value == value ? rounded : quiet) >> 16, vh);
#endif
}

// Values of bfloat16 tensors, as those of float tensors in simd.h.
INLINE vf load(const uint16_t* from) { return widen(*reinterpret_cast<const vh_any*>(from)); }
INLINE void store(uint16_t* to, vf value) { *reinterpret_cast<vh_any*>(to) = narrow(value); }

OUTLINE vf load_part(const uint16_t* from, int64_t count) {
  uint16_t parts[kWidth] = {};
  std::memcpy(parts, from, sizeof(uint16_t) * static_cast<size_t>(count));
  return load(parts);
}

OUTLINE void store_part(uint16_t* to, vf value, int64_t count) {
  uint16_t parts[kWidth];
  store(parts, value);
  std::memcpy(to, parts, sizeof(uint16_t) * static_cast<size_t>(count));
}

INLINE vf load_first(const uint16_t* from, int64_t count) {
  return count >= kWidth ? load(from) : load_part(from, count);
}
INLINE void store_first(uint16_t* to, vf value, int64_t count) {
  count >= kWidth ? store(to, value) : store_part(to, value, count);
}

// How the micro-kernel multiplies words.
struct FloatWords {
  static constexpr bool kPairs = false;
  static INLINE vf multiply_add(vf sum, vf left, vf right) { return sum + left * right; }
};

struct Float32 {
  using Words = FloatWords;
  using Element = float;           // of inputs, outputs and hidden states
  static constexpr int kPack = 1;  // values in a word
  static INLINE vf rounded(vf value) { return value; }
  static INLINE vf word(vf value, vf) { return value; }
  // A vector of values from the index (a multiple of its width) on.
  static INLINE void store_factors(float* words, int64_t index, vf value) { store(words + index, value); }
  static INLINE vf load_factors(const float* words, int64_t index) { return load(words + index); }
};

#if defined(__AVX512BF16__)
struct PairWords {
  static constexpr bool kPairs = true;
  static INLINE vf multiply_add(vf sum, vf left, vf right) {
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)left, (__m512bh)right);
  }
};

struct BFloat16 {
  using Words = PairWords;
  using Element = uint16_t;
  static constexpr int kPack = 2;
  static INLINE vf rounded(vf value) { return widen(narrow(value)); }
  // The words of the first `count` of consecutive values, at least one; zero beyond them.
  static INLINE vf load_pairs(const uint16_t* from, int64_t count) {
    uint32_t some = count >= 2 * kWidth ? ~0u : (1u << count) - 1;
    return (vf)_mm512_maskz_loadu_epi16(some, from);
  }
  // The words of the values of one vector and of the next.
  static INLINE vf words_of(vf low, vf high) { return (vf)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low); }
  // One word of two values in each lane.
  static INLINE vf word(vf low, vf high) {
    return (vf)(__builtin_convertvector(narrow(low), vu) | __builtin_convertvector(narrow(high), vu) << 16);
  }
  static INLINE void store_factors(float* words, int64_t index, vf value) {
    *reinterpret_cast<vh_any*>(reinterpret_cast<char*>(words) + 2 * index) = narrow(value);
  }
  static INLINE vf load_factors(const float* words, int64_t index) {
    return widen(*reinterpret_cast<const vh_any*>(reinterpret_cast<const char*>(words) + 2 * index));
  }
};
#else
struct BFloat16 {
  using Words = FloatWords;
  using Element = uint16_t;
  static constexpr int kPack = 1;
  static INLINE vf rounded(vf value) { return widen(narrow(value)); }
  static INLINE vf word(vf value, vf) { return rounded(value); }
  static INLINE void store_factors(float* words, int64_t index, vf value) { store(words + index, rounded(value)); }
  static INLINE vf load_factors(const float* words, int64_t index) { return load(words + index); }
};
#endif

template <class Number>
constexpr int64_t words(int64_t values) {
  return (values + Number::kPack - 1) / Number::kPack;
}

// The words of the first `count` consecutive values, at most a vector of words; zero beyond them.
template <class Number, class Element>
INLINE vf load_words(const Element* from, int64_t count) {
  if constexpr (Number::kPack == 1 && std::is_same<Element, typename Number::Element>::value) {
    return load_first(from, count);
  } else if constexpr (Number::kPack == 1) {
    return Number::rounded(load_first(from, count));
  } else {
    if constexpr (std::is_same<Element, typename Number::Element>::value) {
      return Number::load_pairs(from, count);
    } else {
      return Number::words_of(load_first(from, count),
                              count > kWidth ? load_first(from + kWidth, count - kWidth) : vf{});
    }
  }
}

// Rows of values become rows of words.
template <class Number, class Element>
INLINE void copy_words(float* to, const Element* from, int64_t count) {
  for (int64_t first = 0; first < count; first += kWidth * Number::kPack)
    store_first(to + first / Number::kPack, load_words<Number>(from + first, count - first),
                words<Number>(count - first));
}
