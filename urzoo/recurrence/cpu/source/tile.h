// The micro-kernel: a tile of `Rows` x `Columns` vectors of accumulators, kept in registers.
#pragma once

#include "numbers.h"
#include "tiles.h"

// The most rows of a tile that leaves its accumulators, one row of weights and a broadcast in the registers.
constexpr int max_rows(int columns) {
  return kFewRegisters ? (columns >= 5 ? 2 : columns == 4 ? 3 : columns == 3 ? 4 : 6)
                       : (columns >= 6 ? 4 : columns == 5 ? 5 : columns == 4 ? 6 : 8);
}

// How many of the columns that are left a tile of many rows takes. With few registers a wide tile has few rows, and
// loading its factors takes longer than multiplying them.
constexpr int tile_columns(int left) {
  return !kFewRegisters || left <= 3 ? left : left == 4 ? 2 : 3;
}

// Weights are asked for this many words ahead of their use: as they come from the third-level cache, the processor's own
// prefetching, which ends at every page, comes too late.
constexpr int64_t kAhead = 24;

// Weights that come after those of a few tiles: while these multiply, they ask for so many of them at every word
// of depth, until all are on their way to the second-level cache.
class Coming {
 public:
  static constexpr int kFloats = 2 * kWidth;

  Coming(const float* first, int64_t floats) : next(first), left(floats) {}

  // Where the next tile, of `depth` words, begins to ask; with nothing left, for the weights that it reads itself.
  const float* take(int64_t depth, const float* own) {
    if (left <= 0) return own;
    const float* first = next;
    next += kFloats * depth;
    left -= kFloats * depth;
    return first;
  }

 private:
  const float* next;
  int64_t left;
};

// sum[row][column] += a[row * row_stride + k * KStride] * b[k][column] over `depth` words k of factors, in the order of k
// for any number of rows: a row's sums do not depend on the rows beside it. `b` may be a part of a matrix that is
// `across` vectors wide; `coming` is from `Coming`, where the left factors lie word by word.
template <class Words, int KStride, int Rows, int Columns>
INLINE void accumulate(vf (&sum)[Rows][Columns], const float* a, int64_t row_stride, const float* b, int64_t across,
                       int64_t depth, const float* coming) {
  across *= kWidth;
  for (int64_t k = 0; k < depth; ++k) {
    vf weights[Columns];
#pragma GCC unroll 8
    for (int column = 0; column < Columns; ++column) weights[column] = load(b + column * kWidth);
    if (KStride == 1) {
#pragma GCC unroll 8
      for (int at = 0; at < Columns * kWidth; at += kCacheLine) __builtin_prefetch(b + kAhead * across + at);
#pragma GCC unroll 2
      for (int at = 0; at < Coming::kFloats; at += kCacheLine) __builtin_prefetch(coming + at, 0, 2);
      coming += Coming::kFloats;
    }
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) {
      vf value = broadcast_word(a + row * row_stride);
#pragma GCC unroll 8
      for (int column = 0; column < Columns; ++column)
        sum[row][column] = Words::multiply_add(sum[row][column], value, weights[column]);
    }
    a += KStride;
    b += across;
  }
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

// to[line][column] += a[line] * b for lines of `depth` words, = if `fresh`, and in the end what else is given: the
// product of a few more words, a part of each line of its own, and one of all lines. `b` is as in `accumulate`; `next`
// is the first weight of the product after this one, where it does not stand behind `b`.
struct Product {
  int64_t lines;
  const float* a;
  int64_t stride;
  const float* b;
  int64_t across, depth;
  float* to;
  int64_t to_stride;
  bool fresh;
  const float* next = nullptr;
  // Added last: sums that begin small lose less to rounding, and an input may be large beside a hidden state.
  const float *more_a = nullptr, *more_b = nullptr;
  int64_t more_depth = 0;  // and the stride of `more_a`
  const float* start = nullptr;
  int64_t start_stride = 0;
  const float* bias = nullptr;
};

// Several products of one line with different weights, which alone has too few sums to keep the processor's adders busy:
// how far the weights, results, starts and biases of one are from those of the next.
struct Apart {
  int64_t b, to, start, bias;
};
constexpr int at_once(int columns) { return columns <= 3 ? 3 : 2; }

// The words [begin, end) of a product, of the tile of lines from `first` and of floats from `column` on.
struct Part {
  int64_t first, column, begin, end;
  const float* coming;
};

template <class Words, int Columns, int Rows>
void multiply_tile(const Product& p, const Part& part) {
  float* to = p.to + part.first * p.to_stride + part.column;
  const float* start = p.start == nullptr ? nullptr : p.start + part.first * p.start_stride + part.column;
  bool last = part.end == p.depth;
  if (last && start != nullptr) expect<Rows, Columns>(start, p.start_stride);
  vf sum[Rows][Columns] = {};
  accumulate<Words, 1>(sum, p.a + part.first * p.stride + part.begin, p.stride,
                       p.b + part.begin * p.across * kWidth + part.column, p.across, part.end - part.begin,
                       part.coming);
  if (!p.fresh || part.begin != 0) add_from(sum, to, p.to_stride);
  if (last) {
    if (p.more_depth != 0)
      accumulate<Words, 1>(sum, p.more_a + part.first * p.more_depth, p.more_depth, p.more_b + part.column, p.across,
                           p.more_depth, p.more_b);
    if (start != nullptr) add_from(sum, start, p.start_stride);
    if (p.bias != nullptr) add_from(sum, p.bias + part.column, 0);
  }
  store_to(to, p.to_stride, sum);
}

// One line of `at_once(Columns)` products: what multiply_tile computes of each.
template <class Words, int Columns>
void multiply_line(const Product& p, const Apart& apart, int64_t begin, int64_t end) {
  constexpr int kProducts = at_once(Columns);
  vf sum[kProducts][Columns] = {};
  auto add = [&](const float* a, const float* b, int64_t depth) {
    for (const float* last = a + depth; a < last; ++a, b += p.across * kWidth) {
      vf value = broadcast_word(a);
#pragma GCC unroll 4
      for (int one = 0; one < kProducts; ++one)
#pragma GCC unroll 8
        for (int column = 0; column < Columns; ++column) {
          vf weight = load(b + one * apart.b + column * kWidth);
          sum[one][column] = Words::multiply_add(sum[one][column], value, weight);
        }
    }
  };
  add(p.a + begin, p.b + begin * p.across * kWidth, end - begin);
  bool last = end == p.depth;
  if (!p.fresh || begin != 0) add_from(sum, p.to, apart.to);
  if (last) {
    add(p.more_a, p.more_b, p.more_depth);
    if (p.start != nullptr) add_from(sum, p.start, apart.start);
    if (p.bias != nullptr) add_from(sum, p.bias, apart.bias);
  }
  store_to(p.to, apart.to, sum);
}

// sums += panel^T deltas, or = if `fresh`: one tile of the gradients of weights, whose left factors lie word by word.
// Nothing lies between its rows.
template <class Words, int Columns, int Rows>
void weigh_tile(const float* panel, const float* deltas, int64_t depth, float* to, bool fresh) {
  constexpr int kStride = Columns * kWidth;
  expect<Rows, Columns>(to, kStride);
  vf sum[Rows][Columns] = {};
  accumulate<Words, Rows>(sum, panel, 1, deltas, Columns, depth, deltas);
  fresh ? store_to(to, kStride, sum) : add_to(to, kStride, sum);
}

// What kernels.cpp compiles once for all passes. A product whose width is free is cut into blocks of `kWide` vectors.
constexpr int kMostColumns = 6, kWide = 4;
template <class Words>
struct Kernels {
  using Tile = void (*)(const Product&, const Part&);
  static const Tile* tiles(int columns);  // of one row, of two and so on; before them that of no row
  static void (*line(int columns))(const Product&, const Apart&, int64_t, int64_t);
  // Of as many rows as a tile of so many columns can have, or one of `kWide`.
  static void (*weigh(int columns, int64_t rows))(const float*, const float*, int64_t, float*, bool);
};

// Calls `body(begin, end)` on the segments of `depth`.
template <class Body>
INLINE void for_segments(int64_t depth, const Body& body) {
  int64_t segments = (depth + kSegment - 1) / kSegment;
  for (int64_t segment = 1, begin = 0; segment <= segments; ++segment) {
    int64_t end = segment == segments ? depth : depth * segment / segments;
    body(begin, end);
    begin = end;
  }
}

// A product on the processor's matrix tiles. A line's sums do not depend on the lines beside it here either.
template <class Words>
void multiply_on_tiles(int columns, const Product& p) {
  multiply_tiles(p.a, p.stride, p.lines, p.b, p.across, columns, p.depth, p.to, p.to_stride, p.fresh);
  if (p.more_depth == 0 && p.start == nullptr && p.bias == nullptr) return;
  for (int64_t line = 0; line < p.lines; ++line)
    for (int64_t at = 0; at < columns * kWidth; at += kWidth) {
      float* to = p.to + line * p.to_stride + at;
      vf sum = load(to);
      // A few words: to shape the tiles for them, and back again for the next product, would take longer.
      for (int64_t k = 0; k < p.more_depth; ++k)
        sum = Words::multiply_add(sum, broadcast_word(p.more_a + line * p.more_depth + k),
                                  load(p.more_b + k * p.across * kWidth + at));
      if (p.start != nullptr) sum += load(p.start + line * p.start_stride + at);
      if (p.bias != nullptr) sum += load(p.bias + at);
      store(to, sum);
    }
}

// A product `columns` vectors wide. The lines are cut into tiles as equal in size as can be.
template <class Words>
void multiply_lines(int columns, const Product& p) {
  if (on_tiles<Words>()) return multiply_on_tiles<Words>(columns, p);
  for_segments(p.depth, [&](int64_t begin, int64_t end) {
    const float *weights = p.b + begin * p.across * kWidth, *after = p.b + end * p.across * kWidth;
    Coming coming(end == p.depth && p.next != nullptr ? p.next : after, (end - begin) * p.across * kWidth);
    for (int column = 0, wide; column < columns; column += wide) {
      wide = p.lines <= max_rows(columns) ? columns : tile_columns(columns - column);
      const auto* kernels = Kernels<Words>::tiles(wide);
      int64_t most = max_rows(wide), tiles = p.lines <= most ? 1 : (p.lines + most - 1) / most;
      int64_t fewer = tiles == 1 ? p.lines : p.lines / tiles, larger = p.lines - fewer * tiles;
      for (int64_t tile = 0, first = 0; tile < tiles; ++tile) {
        int64_t rows = fewer + (tile < larger);
        kernels[rows - 1](p, {first, column * kWidth, begin, end, coming.take(end - begin, weights)});
        first += rows;
      }
    }
  });
}

// Products of one line, as many as can be at once. Returns how many they were.
template <class Words>
int multiply_line(int columns, const Product& p, const Apart& apart) {
  if (on_tiles<Words>()) {
    Product one = p;
    for (int done = 0; done < at_once(columns); ++done) {
      multiply_on_tiles<Words>(columns, one);
      one.b += apart.b;
      one.to += apart.to;
      if (one.more_b != nullptr) one.more_b += apart.b;
      if (one.start != nullptr) one.start += apart.start;
      if (one.bias != nullptr) one.bias += apart.bias;
    }
    return at_once(columns);
  }
  auto* kernel = Kernels<Words>::line(columns);
  for_segments(p.depth, [&](int64_t begin, int64_t end) { kernel(p, apart, begin, end); });
  return at_once(columns);
}
