// exp, sigmoid and tanh on vectors: about 1e-7 absolute, tanh also relative near zero. NaN in gives NaN out.
#pragma once

#include "simd.h"

// Adding it rounds a value below 2^22 to an integer, which then stands in the low bits.
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23

// left * right + more, fused where the processor can. Of a sum of two products the compiler may fuse either, and does not
// choose the same wherever it copies a loop: then a row's bits would depend on whether there is a mask.
INLINE vf multiply_add(vf left, vf right, vf more) {
#if defined(__AVX512F__)
  return (vf)_mm512_fmadd_ps((__m512)left, (__m512)right, (__m512)more);
#elif defined(__FMA__)
  return (vf)_mm256_fmadd_ps((__m256)left, (__m256)right, (__m256)more);
#elif defined(__aarch64__)
  return (vf)vfmaq_f32((float32x4_t)more, (float32x4_t)left, (float32x4_t)right);
#else
  return left * right + more;
#endif
}

// exp of values up to 0, to two roundings; 1e-38 in place of less.
INLINE vf exponential(vf x) {
  x = at_least(broadcast(-87.0f), x);
  // x = n ln 2 + r with |r| <= ln 2 / 2. Of a NaN the power may be anything: the products carry the NaN on.
  vf shifted = x * 1.44269504f + kRounder, n = shifted - kRounder;
  vf r = x - n * 0.693147182f;  // off by n * 1.9e-9: |n| <= 126 keeps exp to 2.4e-7 relative where it is largest
  vf power = (vf)(((vi)shifted << 23) + 0x3f800000);
  vf p = r * 1.38146e-3f + 8.36871e-3f;
  p = p * r + 4.166839e-2f;
  p = p * r + 1.6666521e-1f;
  p = p * r + 4.9999993e-1f;
  p = p * r + 1.0f;
  return power * (p * r + 1.0f);
}

// A value as a whole number and a rest of at most one half either way.
struct Split {
  vf whole, rest;
};

// sigmoid and tanh take powers of two, whose exponent needs no constant to be split: its one rounding counts for little
// where they still grow. At most 126 is split, and of a NaN either part is NaN.
INLINE Split split(vf x) {
#if defined(__AVX512DQ__)
  vf rest = (vf)_mm512_maskz_reduce_ps(kAll, (__m512)x, 0x8);
  return {x - rest, rest};
#else
  x = at_least(broadcast(-126.0f), x);
  vf whole = (x + kRounder) - kRounder;
  return {whole, x - whole};
#endif
}

// value * 2^whole.
INLINE vf scaled(vf value, vf whole) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_scalef_ps(kAll, (__m512)value, (__m512)whole);
#else
  return value * (vf)(((vi)(whole + kRounder) << 23) + 0x3f800000);
#endif
}

// 1 / (1 + exp(-x)); the polynomial is off by 9e-8 relative, which counts a quarter at most.
INLINE vf sigmoid(vf x) {
  Split t = split(at_most(broadcast(126.0f), x * -1.44269504f));
  vf p = t.rest * 1.32647273e-3f + 9.67151299e-3f;
  p = p * t.rest + 5.55073358e-2f;
  p = p * t.rest + 2.40222424e-1f;
  p = p * t.rest + 6.93147004e-1f;
  p = p * t.rest + 1.0f;
  return reciprocal(scaled(p, t.whole) + 1.0f);
}

// From expm1(2 x), which keeps the relative accuracy near zero that exp(2 x) - 1 would lose.
INLINE vf tanh(vf x) {
  Split t = split(at_most(broadcast(58.0f), x * 2.88539008f));
  vf p = t.rest * 1.54031324e-4f + 1.33905152e-3f;
  p = p * t.rest + 9.61823855e-3f;
  p = p * t.rest + 5.55035807e-2f;
  p = p * t.rest + 2.40226492e-1f;
  p = p * t.rest + 6.93147182e-1f;
  p = p * t.rest;
  vf power = scaled(broadcast(1.0f), t.whole);
  vf less_one = power * p + (power - 1.0f);
  // The quotient, and once more for what it leaves: saturated values would otherwise be off by three roundings.
  vf inverse = reciprocal(less_one + 2.0f);
  vf quotient = less_one * inverse;
  return quotient + inverse * ((less_one - quotient * 2.0f) - quotient * less_one);
}
