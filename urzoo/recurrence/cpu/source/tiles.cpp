#include "tiles.h"

bool tiles_in_use = false;

#if defined(__AVX512BF16__)

#include "numbers.h"

#define ON_TILES __attribute__((target("amx-tile,amx-bf16")))

namespace {

constexpr int64_t kLines = 16;  // of a tile; and the words of depth of one
// Tiles 0 to 3 are sums; these are the left factors of whole tiles and of the rest, each followed by the right factor.
constexpr int kFull = 4, kRest = 6;

// The layout of the tiles as the processor reads it.
struct alignas(64) Shapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

struct Shape {
  int64_t lines, rest;
};
thread_local Shape shape{0, 0};

// Tiles for so many lines, and for the words of depth that remain after all whole tiles.
ON_TILES void shape_tiles(int64_t lines, int64_t rest) {
  if (shape.lines == lines && shape.rest == rest) return;
  shape = {lines, rest};
  Shapes shapes{};
  shapes.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    bool right = tile == kFull + 1 || tile == kRest + 1, in_rest = tile >= kRest;
    int64_t words = in_rest && rest != 0 ? rest : kLines;
    shapes.rows[tile] = static_cast<uint8_t>(right ? words : lines);
    shapes.row_bytes[tile] = static_cast<uint16_t>(4 * (tile < kFull || right ? kLines : words));
  }
  // The compiler is not told that the instruction reads all of it.
  asm volatile("" : : "r"(&shapes) : "memory");
  _tile_loadconfig(&shapes);
}

// The instructions take no number of a tile but a written one.
#define EACH_COLUMN(DO) \
  DO(0); \
  if (Columns > 1) DO(1); \
  if (Columns > 2) DO(2); \
  if (Columns > 3) DO(3);
#define ZERO(column) _tile_zero(column)
#define LOAD(column) _tile_loadd(column, to + column * kWidth, to_bytes)
#define STORE(column) _tile_stored(column, to + column * kWidth, to_bytes)
#define MULTIPLY_FULL(column) \
  { \
    _tile_loadd(5, right + column * kWidth, b_bytes); \
    _tile_dpbf16ps(column, 4, 5); \
  }
#define MULTIPLY_REST(column) \
  { \
    _tile_loadd(7, right + column * kWidth, b_bytes); \
    _tile_dpbf16ps(column, 6, 7); \
  }

template <int Columns>
ON_TILES void multiply(const float* a, int64_t stride, int64_t lines, const float* b, int64_t across, int64_t depth,
                       float* to, int64_t to_stride, bool fresh) {
  const int64_t a_bytes = 4 * stride, b_bytes = 4 * across * kWidth, to_bytes = 4 * to_stride;
  for (int64_t first = 0; first < lines; first += kLines, a += kLines * stride, to += kLines * to_stride) {
    shape_tiles(std::min(kLines, lines - first), depth % kLines);
    if (fresh) {
      EACH_COLUMN(ZERO)
    } else {
      EACH_COLUMN(LOAD)
    }
    int64_t word = 0;
    for (; word + kLines <= depth; word += kLines) {
      const float* right = b + word * across * kWidth;
      _tile_loadd(4, a + word, a_bytes);
      EACH_COLUMN(MULTIPLY_FULL)
    }
    if (word < depth) {
      const float* right = b + word * across * kWidth;
      _tile_loadd(6, a + word, a_bytes);
      EACH_COLUMN(MULTIPLY_REST)
    }
    EACH_COLUMN(STORE)
  }
  asm volatile("" : : : "memory");
}

}  // namespace

void multiply_tiles(const float* a, int64_t stride, int64_t lines, const float* b, int64_t across, int columns,
                    int64_t depth, float* to, int64_t to_stride, bool fresh) {
  // The sums of four columns leave tiles for the factors.
  for (; columns > 4; columns -= 4, b += 4 * kWidth, to += 4 * kWidth)
    multiply<4>(a, stride, lines, b, across, depth, to, to_stride, fresh);
  if (columns == 1) return multiply<1>(a, stride, lines, b, across, depth, to, to_stride, fresh);
  if (columns == 2) return multiply<2>(a, stride, lines, b, across, depth, to, to_stride, fresh);
  if (columns == 3) return multiply<3>(a, stride, lines, b, across, depth, to, to_stride, fresh);
  return multiply<4>(a, stride, lines, b, across, depth, to, to_stride, fresh);
}

ON_TILES void release_tiles() {
  if (shape.lines == 0) return;
  shape = {0, 0};
  _tile_release();
}

#else

void multiply_tiles(const float*, int64_t, int64_t, const float*, int64_t, int, int64_t, float*, int64_t, bool) {}
void release_tiles() {}

#endif
