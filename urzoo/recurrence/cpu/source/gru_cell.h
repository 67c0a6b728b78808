// The arithmetic of one GRU step on one vector of hidden units, forward and backward.
//
// The order of the gates is that of `Gating.blocks` in gates.py: reset update [refine] candidate. The candidate is not
// among `kGates`, because its pre-activation needs the recurrent product with what the reset gate lets through. The
// gate bias is already part of the pre-activations.
#pragma once

#include "cells.h"
#include "arguments.h"

template <bool Refined>
struct Gru {
  static constexpr int kReset = 0;
  static constexpr int kUpdate = 1;
  static constexpr int kRefine = 2;  // only if refined
  static constexpr int kGates = Refined ? 3 : 2;
  static constexpr int kCandidate = kGates;
  static constexpr int kBlocks = kGates + 1;

  static INLINE vf effective_update(const vf* gates) {
    return Refined ? refined(gates[kUpdate], gates[kRefine]) : gates[kUpdate];
  }

  static INLINE vf forward(vf update, vf candidate, vf hidden) { return hidden + update * (candidate - hidden); }

  // Gates and candidate become the gradients of their pre-activations in place, all but the reset gate: its gradient
  // needs the product with that of the candidate. `hidden_grad` of the new hidden state becomes the part of that of
  // the old one which does not pass through a product. An update gate that is a cumulative softmax (`ordered`) arrives
  // as the sums, and its gradient leaves as that of the sums.
  static INLINE void backward(vf (&gates)[kBlocks], vf hidden, vf& hidden_grad, bool ordered) {
    vf candidate = gates[kCandidate], effective = effective_update(gates);
    vf effective_grad = hidden_grad * (candidate - hidden);
    gates[kCandidate] = hidden_grad * effective * (1.0f - candidate * candidate);
    hidden_grad *= 1.0f - effective;
    if constexpr (Refined) effective_grad = refined_backward(gates[kUpdate], gates[kRefine], effective_grad);
    gates[kUpdate] = ordered ? effective_grad : effective_grad * (gates[kUpdate] * (1.0f - gates[kUpdate]));
  }
};

inline int gru_gates(const Arguments& arguments) { return arguments.refined ? 3 : 2; }
