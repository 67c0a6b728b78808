// The arithmetic of one LSTM step on one vector of hidden units, forward and backward.
//
// The order of the gates is that of `Gating.blocks` in gates.py: [input] forget [refine | master_forget master_input]
// candidate output. The gate bias is already part of the pre-activations.
#pragma once

#include "math.h"

// The refine gate moves a gate within the band [gate^2, 1 - (1 - gate)^2].
INLINE vf refined(vf gate, vf refine) { return gate + gate * (1.0f - gate) * (2.0f * refine - 1.0f); }

// From the gradient of the refined gate: returns that of the gate; the refine gate becomes that of its pre-activation.
INLINE vf refined_backward(vf gate, vf& refine, vf grad) {
  vf sign = 2.0f * refine - 1.0f;
  refine = grad * 2.0f * (gate * (1.0f - gate)) * refine * (1.0f - refine);
  return grad * (1.0f + (1.0f - 2.0f * gate) * sign);
}

constexpr int kFewestGates = 3, kMostGates = 6;

// Some of the gates of a cell.
struct Gates {
  unsigned set;
  bool any() const { return set != 0; }
  bool has(int gate) const { return set >> gate & 1; }
};

// The second letter of a gating.
enum class Auxiliary { kNone, kRefine, kMaster };

template <bool Tied, Auxiliary Second, bool Ordered>
struct Lstm {
  static constexpr bool kRefined = Second == Auxiliary::kRefine, kMaster = Second == Auxiliary::kMaster;
  static constexpr int kInput = 0;  // only if not tied
  static constexpr int kForget = Tied ? 0 : 1;
  static constexpr int kRefine = kForget + 1;        // only if refined
  static constexpr int kMasterForget = kForget + 1;  // only with master gates
  static constexpr int kMasterInput = kForget + 2;
  static constexpr int kCandidate = kForget + (kMaster ? 3 : kRefined ? 2 : 1);
  static constexpr int kOutput = kCandidate + 1;
  static constexpr int kGates = kOutput + 1;
  // Some gates are cumulative softmaxes over all units of a row, which cumax.h computes before `forward` and
  // differentiates after `backward`: here they arrive as the sums, and their gradients leave as those of the sums.
  static constexpr bool is_cumax(int gate) {
    if (!Ordered) return false;
    if (kMaster) return gate == kMasterForget || gate == kMasterInput;
    return gate == kForget || (!Tied && gate == kInput);
  }
  static constexpr Gates cumax_gates() {
    Gates found{};
    for (int gate = 0; gate < kGates; ++gate) found.set |= unsigned{is_cumax(gate)} << gate;
    return found;
  }
  // An input gate is one minus its sums.
  static constexpr bool is_closing(int gate) {
    return is_cumax(gate) && gate == (kMaster ? kMasterInput : Tied ? -1 : kInput);
  }

  // What the gates do to the cell: `effective * cell + opened * candidate`.
  struct Effect {
    vf effective, opened;
  };

  static INLINE vf value(const vf (&gates)[kGates], int gate) {
    return is_closing(gate) ? 1.0f - gates[gate] : gates[gate];
  }

  static INLINE Effect effect(const vf (&gates)[kGates]) {
    vf forget = gates[kForget], effective = forget, opened = Tied ? vf{} : value(gates, kInput);
    if constexpr (kRefined) effective = refined(forget, gates[kRefine]);
    if constexpr (kMaster) {
      vf master_forget = gates[kMasterForget], master_input = value(gates, kMasterInput);
      vf overlap = master_forget * master_input;
      effective = forget * overlap + (master_forget - overlap);
      if (!Tied) opened = opened * overlap + (master_input - overlap);
    }
    return {effective, Tied ? 1.0f - effective : opened};
  }

  // Pre-activations become gates in place; `cell` becomes the new cell; returns the new hidden state.
  static INLINE vf forward(vf (&gates)[kGates], vf& cell) {
    for (int gate = 0; gate < kGates; ++gate)
      if (!is_cumax(gate)) gates[gate] = gate == kCandidate ? tanh(gates[gate]) : sigmoid(gates[gate]);
    Effect effects = effect(gates);
    // Exact where the cell is kept or replaced whole, as `candidate + effective * (cell - candidate)` is not.
    cell = multiply_add(effects.effective, cell, effects.opened * gates[kCandidate]);
    return gates[kOutput] * tanh(cell);
  }

  // Gates become the gradients of their pre-activations in place; `cell_grad` that of the new cell (without the
  // part through `hidden_grad`) becomes that of the old one.
  static INLINE void backward(vf (&gates)[kGates], vf old_cell, vf cell, vf hidden_grad, vf& cell_grad) {
    vf output = gates[kOutput], candidate = gates[kCandidate], forget = gates[kForget];
    Effect effects = effect(gates);
    vf squashed = tanh(cell);
    vf total = cell_grad + hidden_grad * output * (1.0f - squashed * squashed);
    vf effective_grad = total * (Tied ? old_cell - candidate : old_cell);
    vf opened_grad = total * candidate;  // only if not tied
    cell_grad = total * effects.effective;
    if constexpr (kMaster) {
      vf master_forget = gates[kMasterForget], master_input = value(gates, kMasterInput);
      vf overlap = master_forget * master_input;
      vf overlap_grad = effective_grad * (forget - 1.0f);
      vf forget_grad = effective_grad, input_grad{};
      effective_grad *= overlap;
      if constexpr (!Tied) {
        overlap_grad += opened_grad * (gates[kInput] - 1.0f);
        input_grad = opened_grad;
        opened_grad *= overlap;
      }
      gates[kMasterForget] = through<kMasterForget>(gates, forget_grad + overlap_grad * master_input);
      gates[kMasterInput] = through<kMasterInput>(gates, input_grad + overlap_grad * master_forget);
    }
    if constexpr (kRefined) effective_grad = refined_backward(forget, gates[kRefine], effective_grad);
    gates[kForget] = through<kForget>(gates, effective_grad);
    if constexpr (!Tied) gates[kInput] = through<kInput>(gates, opened_grad);
    gates[kCandidate] = total * effects.opened * (1.0f - candidate * candidate);
    gates[kOutput] = hidden_grad * squashed * output * (1.0f - output);
  }

 private:
  // The gradient of a gate's pre-activation, or for a cumulative softmax that of its sums.
  template <int Gate>
  static INLINE vf through(const vf (&gates)[kGates], vf grad) {
    if constexpr (is_cumax(Gate)) return is_closing(Gate) ? -grad : grad;
    return grad * (gates[Gate] * (1.0f - gates[Gate]));
  }
};
