// The cumulative softmax over the hidden units of one row, forward and backward: what couples the units of a cell.
//
// A row lies in vectors of units, `stride` floats apart. Sums along the units are taken in a tree within a vector and
// carried from vector to vector with their rounding errors. Lanes beyond the last unit take no part.
#pragma once

#include "layout.h"
#include "math.h"

namespace lanes {

template <int... Lane> struct Lanes {};
template <int Count, int... Lane> struct UpTo : UpTo<Count - 1, Count - 1, Lane...> {};
template <int... Lane> struct UpTo<0, Lane...> { using All = Lanes<Lane...>; };
using All = typename UpTo<kWidth>::All;

// Lane i of the result is lane i + By of `low` with `high` behind it.
template <int By, int... Lane>
INLINE vf window(vf low, vf high, Lanes<Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(low, high, (Lane + By)...);
#else
  return __builtin_shuffle(low, high, vi{(Lane + By)...});
#endif
}

template <int... Lane>
INLINE vf spread(vf value, int32_t lane, Lanes<Lane...>) {
  return vf{((void)Lane, value[lane])...};
}
INLINE vf first(vf value) { return spread(value, 0, All{}); }
INLINE vf last(vf value) { return spread(value, kWidth - 1, All{}); }

template <int... Lane>
INLINE vi indices(Lanes<Lane...>) { return vi{Lane...}; }

// `value` in the first `count` lanes, `other` in the rest.
INLINE vf first_of(vf value, int64_t count, vf other) {
  return indices(All{}) < static_cast<int32_t>(std::min<int64_t>(count, kWidth)) ? value : other;
}

// Lane i: the sum of the lanes up to i.
template <int By = 1>
INLINE vf sums_up(vf value) {
  if constexpr (By < kWidth) return sums_up<2 * By>(value + window<kWidth - By>(vf{}, value, All{}));
  return value;
}

// Lane i: the sum of the lanes from i on.
template <int By = 1>
INLINE vf sums_down(vf value) {
  if constexpr (By < kWidth) return sums_down<2 * By>(value + window<By>(value, vf{}, All{}));
  return value;
}

// The largest lane in every lane.
template <int By = 1>
INLINE vf largest(vf value) {
  if constexpr (By < kWidth) return largest<2 * By>(at_least(value, window<By>(value, value, All{})));
  return value;
}

}  // namespace lanes

// A sum that keeps what its additions lost; the same in every lane.
struct Carry {
  vf sum{}, lost{};
  INLINE void add(vf value) {
    vf next = sum + value, added = next - sum;
    lost += (sum - (next - added)) + (value - added);
    sum = next;
  }
  INLINE vf plus(vf value) const { return (value + lost) + sum; }
};

// The softmax of a row into `shares` (null: not wanted) and its sums up to each unit into `sums`; either may be the row
// itself. A NaN anywhere in the row gives NaN everywhere.
inline void cumax(const float* row, int64_t stride, int64_t size, float* sums, int64_t sums_stride, float* shares,
                  int64_t shares_stride) {
  int64_t units = vectors(size), tail = size - (units - 1) * kWidth;
  vf lowest = broadcast(-3.402823466e38f);
  vf largest = lanes::first_of(load(row + (units - 1) * stride), tail, lowest);
  for (int64_t unit = 0; unit + 1 < units; ++unit) largest = at_least(largest, load(row + unit * stride));
  largest = lanes::largest(largest);
  Carry carry;
  for (int64_t unit = 0; unit < units; ++unit) {
    vf share = exponential(load(row + unit * stride) - largest);
    if (unit + 1 == units) share = lanes::first_of(share, tail, vf{});
    vf up = lanes::sums_up(share);
    store(sums + unit * sums_stride, carry.plus(up));
    if (shares != nullptr) store(shares + unit * shares_stride, share);
    carry.add(lanes::last(up));
  }
  vf inverse = 1.0f / carry.plus(vf{});
  for (int64_t unit = 0; unit < units; ++unit) {
    store(sums + unit * sums_stride, load(sums + unit * sums_stride) * inverse);
    if (shares != nullptr) store(shares + unit * shares_stride, load(shares + unit * shares_stride) * inverse);
  }
}

// The sums up to each unit of a softmax that `cumax` gave.
inline void cumax_of_shares(const float* shares, int64_t shares_stride, int64_t size, float* sums, int64_t stride) {
  Carry carry;
  for (int64_t unit = 0; unit < vectors(size); ++unit) {
    vf up = lanes::sums_up(load(shares + unit * shares_stride));
    store(sums + unit * stride, carry.plus(up));
    carry.add(lanes::last(up));
  }
}

// The gradients of the sums become those of the row that `cumax` took, in place; those beyond the last unit are zero.
inline void differentiate_cumax(const float* shares, int64_t shares_stride, int64_t size, float* grads,
                                int64_t stride) {
  Carry carry;
  vf product{};
  for (int64_t unit = vectors(size) - 1; unit >= 0; --unit) {
    vf down = lanes::sums_down(load(grads + unit * stride));
    vf share_grad = carry.plus(down);
    store(grads + unit * stride, share_grad);
    product += share_grad * load(shares + unit * shares_stride);
    carry.add(lanes::first(down));
  }
  vf mean = lanes::last(lanes::sums_up(product));
  for (int64_t unit = 0; unit < vectors(size); ++unit) {
    float* place = grads + unit * stride;
    store(place, load(shares + unit * shares_stride) * (load(place) - mean));
  }
}
