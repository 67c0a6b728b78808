// exp, sigmoid and tanh on vectors: about 1e-7 absolute, tanh also relative near zero. NaN in gives NaN out.
#pragma once

#include "simd.h"

// Splits x = n ln 2 + rest with |rest| <= ln 2 / 2; returns 2^n. |x| is at most 87, or x is NaN, and then
// `rest` is NaN and the power anything: the products below carry the NaN on.
INLINE vf power_of_two(vf x, vf& rest) {
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
  vf magic = broadcast(12582912.0f);
  vf shifted = x * 1.44269504f + magic;
  vf n = shifted - magic;
  rest = x - n * 0.693147182f;  // off by n * 1.9e-9: |n| <= 126 keeps exp to 2.4e-7 relative where it is largest
  return (vf)(((vi)shifted << 23) + 0x3f800000);
}

// exp of values up to 0, to two roundings; 1e-38 in place of less.
INLINE vf exponential(vf x) {
  vf r, power = power_of_two(at_least(broadcast(-87.0f), x), r);
  vf p = r * 1.38146e-3f + 8.36871e-3f;
  p = p * r + 4.166839e-2f;
  p = p * r + 1.6666521e-1f;
  p = p * r + 4.9999993e-1f;
  p = p * r + 1.0f;
  return power * (p * r + 1.0f);
}

// 1 / (1 + exp(-x)); the polynomial is off by 1e-7 relative, which counts a quarter at most.
INLINE vf sigmoid(vf x) {
  vf negative = at_least(broadcast(-87.0f), at_most(broadcast(87.0f), -x));
  vf r, power = power_of_two(negative, r);
  vf p = r * 8.37452e-3f + 4.189835e-2f;
  p = p * r + 1.6666459e-1f;
  p = p * r + 4.9999146e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return reciprocal(power * p + 1.0f);
}

// From expm1(2 x), which keeps the relative accuracy near zero that exp(2 x) - 1 would lose.
INLINE vf tanh(vf x) {
  vf doubled = at_least(broadcast(-40.0f), at_most(broadcast(40.0f), x + x));
  vf r, power = power_of_two(doubled, r);
  vf p = r * 1.39464e-3f + 8.36658e-3f;
  p = p * r + 4.166628e-2f;
  p = p * r + 1.6666543e-1f;
  p = p * r + 0.5f;
  p = p * (r * r) + r;
  vf less_one = power * p + (power - 1.0f);
  // The quotient, and once more for what it leaves: saturated values would otherwise be off by three roundings.
  vf inverse = reciprocal(less_one + 2.0f);
  vf quotient = less_one * inverse;
  return quotient + inverse * ((less_one - quotient * 2.0f) - quotient * less_one);
}
