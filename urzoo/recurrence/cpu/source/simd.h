// One vector of floats of the width the compiler targets, in compiler vector extensions.
//
// Everything above this file is written for a vector `vf` of `kWidth` floats. The same source therefore serves
// AVX-512, AVX2, SSE2, NEON and any other processor; intrinsics appear only where the generic form costs time.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

// Sixteen vectors fit the registers, in place of 32.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr bool kFewRegisters = false;
#else
constexpr bool kFewRegisters = true;
#endif

// Floats of a line of the cache.
constexpr int kCacheLine = 16;

#define INLINE inline __attribute__((always_inline))
// For what happens at edges only: compiled once, not wherever it is called.
#define OUTLINE inline __attribute__((noinline, cold))

typedef float vf __attribute__((vector_size(4 * kWidth)));
typedef int32_t vi __attribute__((vector_size(4 * kWidth)));
typedef uint32_t vu __attribute__((vector_size(4 * kWidth)));
// The same vectors at any address of a float: tensors and rows are not aligned to vectors.
typedef float vf_any __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));

INLINE vf load(const float* from) { return *reinterpret_cast<const vf_any*>(from); }
INLINE void store(float* to, vf value) { *reinterpret_cast<vf_any*>(to) = value; }
// Written past the caches, for what is not read again soon: the line is not fetched first, and drives nothing out. The
// address must be a multiple of the vector's size, and `settle` must come before another thread reads it.
INLINE void store_past(float* to, vf value) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, (__m512)value);
#elif defined(__AVX2__)
  _mm256_stream_ps(to, (__m256)value);
#elif defined(__SSE2__)
  _mm_stream_ps(to, (__m128)value);
#else
  store(to, value);
#endif
}
INLINE void settle() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}
INLINE bool at_vector(const void* address) { return reinterpret_cast<uintptr_t>(address) % sizeof(vf) == 0; }
INLINE vf broadcast(float value) { return value - vf{}; }
// The 32 bits at an address, whatever they mean, in every lane.
INLINE vf broadcast_word(const float* from) {
  uint32_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return (vf)(vu{} + bits);
}

#if defined(__AVX512F__)
// The intrinsics without a mask draw false warnings of uninitialised values from GCC 12.
constexpr __mmask16 kAll = 0xffff;
#endif

// The first `count` floats, fewer than a vector; the rest are zero. Never reads past them.
#if defined(__AVX512F__)
INLINE vf load_part(const float* from, int64_t count) {
  return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
}
INLINE void store_part(float* to, vf value, int64_t count) {
  _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)value);
}
#else
OUTLINE vf load_part(const float* from, int64_t count) {
  float parts[kWidth] = {};
  std::memcpy(parts, from, sizeof(float) * static_cast<size_t>(count));
  return load(parts);
}
OUTLINE void store_part(float* to, vf value, int64_t count) {
  float parts[kWidth];
  store(parts, value);
  std::memcpy(to, parts, sizeof(float) * static_cast<size_t>(count));
}
#endif

INLINE vf load_first(const float* from, int64_t count) { return count >= kWidth ? load(from) : load_part(from, count); }
INLINE void store_first(float* to, vf value, int64_t count) {
  count >= kWidth ? store(to, value) : store_part(to, value, count);
}

// The first `count` lanes; the others are zero.
INLINE vf first_of(vf value, int64_t count) {
  if (count >= kWidth) return value;
  float parts[kWidth];
  store(parts, value);
  return load_first(parts, count);
}

// The smaller and the larger of a limit and a value; a value that is NaN stays NaN (as minps does).
INLINE vf at_most(vf limit, vf value) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_min_ps(kAll, (__m512)limit, (__m512)value);
#elif defined(__AVX2__)
  return (vf)_mm256_min_ps((__m256)limit, (__m256)value);
#elif defined(__SSE2__)
  return (vf)_mm_min_ps((__m128)limit, (__m128)value);
#else
  return limit < value ? limit : value;
#endif
}

INLINE vf at_least(vf limit, vf value) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_max_ps(kAll, (__m512)limit, (__m512)value);
#elif defined(__AVX2__)
  return (vf)_mm256_max_ps((__m256)limit, (__m256)value);
#elif defined(__SSE2__)
  return (vf)_mm_max_ps((__m128)limit, (__m128)value);
#else
  return limit > value ? limit : value;
#endif
}

// 1 / value for values between 2^-126 and 2^126, to about one unit in the last place.
INLINE vf reciprocal(vf value) {
#if defined(__AVX512F__)
  vf guess = (vf)_mm512_maskz_rcp14_ps(kAll, (__m512)value);
  return guess + guess * (1.0f - value * guess);
#else
  return 1.0f / value;
#endif
}

// Lane i: that of `low` with `high` behind it which `from` names.
INLINE vf picked(vf low, vf high, vi from) {
#if defined(__clang__)
  vf result;
  for (int lane = 0; lane < kWidth; ++lane)
    result[lane] = from[lane] < kWidth ? low[from[lane]] : high[from[lane] - kWidth];
  return result;
#else
  return __builtin_shuffle(low, high, from);
#endif
}

// Rows become columns.
INLINE void transpose(vf (&rows)[kWidth]) {
  vf next[kWidth];
  for (int round = 1; round < kWidth; round *= 2) {
    for (int row = 0; row < kWidth / 2; ++row) {
      vf first = rows[row], second = rows[row + kWidth / 2];
      vi low, high;
      for (int lane = 0; lane < kWidth; ++lane) {
        low[lane] = lane / 2 + lane % 2 * kWidth;
        high[lane] = low[lane] + kWidth / 2;
      }
      next[2 * row] = picked(first, second, low);
      next[2 * row + 1] = picked(first, second, high);
    }
    for (int row = 0; row < kWidth; ++row) rows[row] = next[row];
  }
}
