// The micro-kernels of all shapes, compiled once for the passes of all cells.
#include <utility>

#include "tile.h"

namespace {

void nothing(const Product&, const Part&) {}

template <class Words, int Columns, int... Less>
const typename Kernels<Words>::Tile* tiles_of(std::integer_sequence<int, Less...>) {
  // A thread's share of few lines may be none.
  static constexpr typename Kernels<Words>::Tile kernels[] = {nothing, multiply_tile<Words, Columns, Less + 1>...};
  return kernels + 1;
}

template <class Words, int Columns>
const typename Kernels<Words>::Tile* tiles_of() {
  return tiles_of<Words, Columns>(std::make_integer_sequence<int, max_rows(Columns)>{});
}

template <class Words, int Columns>
auto weigh_tile_of(int64_t rows) {
  if (rows == max_rows(Columns)) return weigh_tile<Words, Columns, max_rows(Columns)>;
  return weigh_tile<Words, Columns, max_rows(kWide)>;
}

}  // namespace

template <class Words>
const typename Kernels<Words>::Tile* Kernels<Words>::tiles(int columns) {
  switch (columns) {
    case 1: return tiles_of<Words, 1>();
    case 2: return tiles_of<Words, 2>();
    case 3: return tiles_of<Words, 3>();
    case 4: return tiles_of<Words, 4>();
    case 5: return tiles_of<Words, 5>();
    default: return tiles_of<Words, kMostColumns>();
  }
}

template <class Words>
void (*Kernels<Words>::line(int columns))(const Product&, const Apart&, int64_t, int64_t) {
  switch (columns) {
    case 2: return multiply_line<Words, 2>;
    case 3: return multiply_line<Words, 3>;
    case 4: return multiply_line<Words, 4>;
    case 5: return multiply_line<Words, 5>;
    default: return multiply_line<Words, kMostColumns>;
  }
}

template <class Words>
void (*Kernels<Words>::weigh(int columns, int64_t rows))(const float*, const float*, int64_t, float*, bool) {
  switch (columns) {
    case 1: return weigh_tile_of<Words, 1>(rows);
    case 2: return weigh_tile_of<Words, 2>(rows);
    case 3: return weigh_tile_of<Words, 3>(rows);
    case 4: return weigh_tile_of<Words, 4>(rows);
    case 5: return weigh_tile_of<Words, 5>(rows);
    default: return weigh_tile_of<Words, kMostColumns>(rows);
  }
}

template struct Kernels<FloatWords>;
#if defined(__AVX512BF16__)
template struct Kernels<PairWords>;
#endif
