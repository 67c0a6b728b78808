// The arithmetic of one LSTM step on one vector of hidden units, forward and backward.
//
// The order of the gates is that of `Gating.blocks` in gates.py: [input] forget [refine] candidate output. The
// gate bias is already part of the pre-activations.
#pragma once

#include "math.h"

// The refine gate moves a gate within the band [gate^2, 1 - (1 - gate)^2].
INLINE vf refined(vf gate, vf refine) { return gate + gate * (1.0f - gate) * (2.0f * refine - 1.0f); }

// Both gates become the gradients of their pre-activations, from that of the refined gate.
INLINE void refined_backward(vf& gate, vf& refine, vf grad) {
  vf slope = gate * (1.0f - gate), sign = 2.0f * refine - 1.0f;
  gate = grad * (1.0f + (1.0f - 2.0f * gate) * sign) * slope;
  refine = grad * 2.0f * slope * refine * (1.0f - refine);
}

template <bool Tied, bool Refined>
struct Lstm {
  static constexpr int kInput = 0;  // only if not tied
  static constexpr int kForget = Tied ? 0 : 1;
  static constexpr int kRefine = kForget + 1;  // only if refined
  static constexpr int kCandidate = kForget + (Refined ? 2 : 1);
  static constexpr int kOutput = kCandidate + 1;
  static constexpr int kGates = kOutput + 1;

  static INLINE vf effective_forget(const vf (&gates)[kGates]) {
    return Refined ? refined(gates[kForget], gates[kRefine]) : gates[kForget];
  }

  // Pre-activations become gates in place; `cell` becomes the new cell; returns the new hidden state.
  static INLINE vf forward(vf (&gates)[kGates], vf& cell) {
    for (int gate = 0; gate < kGates; ++gate)
      gates[gate] = gate == kCandidate ? tanh(gates[gate]) : sigmoid(gates[gate]);
    vf candidate = gates[kCandidate], effective = effective_forget(gates);
    if (Tied)
      cell = candidate + effective * (cell - candidate);
    else
      cell = effective * cell + gates[kInput] * candidate;
    return gates[kOutput] * tanh(cell);
  }

  // Gates become the gradients of their pre-activations in place; `cell_grad` that of the new cell (without the
  // part through `hidden_grad`) becomes that of the old one.
  static INLINE void backward(vf (&gates)[kGates], vf old_cell, vf cell, vf hidden_grad, vf& cell_grad) {
    vf output = gates[kOutput], candidate = gates[kCandidate], forget = gates[kForget];
    vf effective = effective_forget(gates);
    vf squashed = tanh(cell);
    vf total = cell_grad + hidden_grad * output * (1.0f - squashed * squashed);
    vf effective_grad = total * (Tied ? old_cell - candidate : old_cell);
    vf opened = Tied ? 1.0f - effective : gates[kInput];
    cell_grad = total * effective;
    if (Refined)
      refined_backward(gates[kForget], gates[kRefine], effective_grad);
    else
      gates[kForget] = effective_grad * forget * (1.0f - forget);
    if (!Tied) {
      vf input = gates[kInput];
      gates[kInput] = total * candidate * input * (1.0f - input);
    }
    gates[kCandidate] = total * opened * (1.0f - candidate * candidate);
    gates[kOutput] = hidden_grad * squashed * output * (1.0f - output);
  }
};
