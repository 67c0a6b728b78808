// The micro-kernel: a tile of `Rows` x `Columns` vectors of accumulators, kept in registers.
#pragma once

#include "numbers.h"

// The most rows of a tile that leaves its accumulators, one row of weights and a broadcast in the registers.
constexpr int max_rows(int columns) {
#if defined(__AVX512F__) || defined(__aarch64__)
  return columns >= 6 ? 4 : columns == 5 ? 5 : columns == 4 ? 6 : 8;
#else
  return columns >= 5 ? 2 : columns == 4 ? 3 : columns == 3 ? 4 : 6;
#endif
}

// Weights are asked for this many words ahead of their use: as they come from the third-level cache, the processor's own
// prefetching, which ends at every page, comes too late.
constexpr int64_t kAhead = 24;

// Weights that come after those of a few tiles: while these multiply, they ask for so many lines of them at every word
// of depth, until all are on their way to the second-level cache.
class Coming {
 public:
  static constexpr int kLines = 2;

  Coming(const float* first_line, int64_t lines_in_all) : line(first_line), left(lines_in_all) {}

  // Where the next tile, of `depth` words, begins to ask; with nothing left, for the weights that it reads itself.
  const float* take(int64_t depth, const float* own) {
    if (left <= 0) return own;
    const float* first = line;
    line += kLines * depth * kWidth;
    left -= kLines * depth;
    return first;
  }

 private:
  const float* line;
  int64_t left;
};

// sum[row][column] += a[row * row_stride + k * KStride] * b[k][column] over `depth` words k of factors. `b` may be a part
// of a matrix that is `Across` vectors wide; `coming` is from `Coming`, where the left factors lie word by word.
template <class Number, int KStride, int Across, int Rows, int Columns>
INLINE void accumulate_in_order(vf (&sum)[Rows][Columns], const float* a, int64_t row_stride, const float* b,
                                int64_t depth, const float* coming) {
  for (int64_t k = 0; k < depth; ++k) {
    vf weights[Columns];
#pragma GCC unroll 8
    for (int column = 0; column < Columns; ++column) weights[column] = load(b + column * kWidth);
    if (KStride == 1) {
#pragma GCC unroll 8
      for (int column = 0; column < Columns; ++column) __builtin_prefetch(b + (kAhead * Across + column) * kWidth);
#pragma GCC unroll 2
      for (int line = 0; line < Coming::kLines; ++line) __builtin_prefetch(coming + line * kWidth, 0, 2);
      coming += Coming::kLines * kWidth;
    }
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) {
      vf value = broadcast_word(a + row * row_stride);
#pragma GCC unroll 8
      for (int column = 0; column < Columns; ++column)
        sum[row][column] = Number::multiply_add(sum[row][column], value, weights[column]);
    }
    a += KStride;
    b += Across * kWidth;
  }
}

// The same. Where a tile leaves registers free, the terms go to several sums, which hides the latency of the adders
// and loses less to rounding.
template <class Number, int KStride, int Given = 0, int Rows, int Columns>
INLINE void accumulate(vf (&sum)[Rows][Columns], const float* a, int64_t row_stride, const float* b, int64_t depth,
                       const float* coming) {
  constexpr int kAcross = Given == 0 ? Columns : Given;
  constexpr int kSums = 4 * Rows <= max_rows(Columns) ? 4 : 2 * Rows <= max_rows(Columns) ? 2 : 1;
  if constexpr (kSums > 1) {
    vf parts[kSums][Rows][Columns] = {};
    int64_t rounds = depth / kSums;
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 4
      for (int part = 0; part < kSums; ++part) {
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row) {
          vf value = broadcast_word(a + row * row_stride + part * KStride);
#pragma GCC unroll 8
          for (int column = 0; column < Columns; ++column)
            parts[part][row][column] =
                Number::multiply_add(parts[part][row][column], value, load(b + (part * kAcross + column) * kWidth));
        }
      }
      a += kSums * KStride;
      b += kSums * kAcross * kWidth;
    }
#pragma GCC unroll 4
    for (int part = 0; part < kSums; ++part)
#pragma GCC unroll 16
      for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
        for (int column = 0; column < Columns; ++column) sum[row][column] += parts[part][row][column];
    depth -= rounds * kSums;
  }
  accumulate_in_order<Number, KStride, kAcross>(sum, a, row_stride, b, depth, coming);
}

// A long sum is made of sums over segments of this many words: each begins at zero and loses less to rounding, and
// one segment of weights stays in the first-level cache while all rows pass by.
constexpr int64_t kSegment = 128;

// Sums so far, (rows, columns) with `stride` floats from row to row: to them, or from them.
template <int Rows, int Columns>
INLINE void add_to(float* sums, int64_t stride, const vf (&part)[Rows][Columns]) {
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
    for (int column = 0; column < Columns; ++column) {
      float* place = sums + row * stride + column * kWidth;
      store(place, load(place) + part[row][column]);
    }
}

// Asks for sums that `add_to` or `add_from` will read after a product.
template <int Rows, int Columns>
INLINE void expect(const float* sums, int64_t stride) {
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
    for (int column = 0; column < Columns; ++column) __builtin_prefetch(sums + row * stride + column * kWidth, 1);
}

template <int Rows, int Columns>
INLINE void store_to(float* sums, int64_t stride, const vf (&part)[Rows][Columns]) {
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
    for (int column = 0; column < Columns; ++column) store(sums + row * stride + column * kWidth, part[row][column]);
}

template <int Rows, int Columns>
INLINE void add_from(vf (&sum)[Rows][Columns], const float* sums, int64_t stride) {
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 8
    for (int column = 0; column < Columns; ++column) sum[row][column] += load(sums + row * stride + column * kWidth);
}

// Calls `body(Count<rows>{}, first)` on groups of at most Most rows that cover [0, count), as
// equal in size as can be.
template <int Rows> struct Count { static constexpr int value = Rows; };

template <int Most, int Rows = Most, class Body>
INLINE void call_with_rows(int64_t rows, int64_t first, const Body& body) {
  if constexpr (Rows == 1) {
    body(Count<1>{}, first);
  } else {
    if (rows == Rows) return body(Count<Rows>{}, first);
    call_with_rows<Most, Rows - 1>(rows, first, body);
  }
}

template <int Most, class Body>
INLINE void for_row_groups(int64_t count, const Body& body) {
  int64_t groups = (count + Most - 1) / Most;
  for (int64_t group = 0; group < groups; ++group) {
    int64_t first = count * group / groups, last = count * (group + 1) / groups;
    call_with_rows<Most>(last - first, first, body);
  }
}

// to[line][column] += a[line] * b for lines of `depth` words; = if `fresh`. `b` is as in `accumulate`; `next` is the
// first weight of the product after this one, where it does not stand behind `b`.
template <class Number, int Columns, int Across = Columns>
void multiply_lines(const float* a, int64_t stride, int64_t lines, const float* b, int64_t depth, float* to,
                    int64_t to_stride, bool fresh, const float* next = nullptr) {
  int64_t segments = (depth + kSegment - 1) / kSegment;
  for (int64_t segment = 0; segment < segments; ++segment) {
    int64_t begin = depth * segment / segments, end = depth * (segment + 1) / segments;
    const float *weights = b + begin * Across * kWidth, *after = b + end * Across * kWidth;
    Coming coming(end == depth && next != nullptr ? next : after, (end - begin) * Across);
    for_row_groups<max_rows(Columns)>(lines, [&](auto count, int64_t first) {
      vf sum[decltype(count)::value][Columns] = {};
      accumulate<Number, 1, Across>(sum, a + first * stride + begin, stride, weights, end - begin,
                                    coming.take(end - begin, weights));
      if (fresh && segment == 0)
        store_to(to + first * to_stride, to_stride, sum);
      else
        add_to(to + first * to_stride, to_stride, sum);
    });
  }
}
