// The C interface: one plain structure for the forward and the backward pass of an LSTM or GRU. library.py mirrors it.
#pragma once

#include <cstdint>

// Raised, here and in library.py, whenever a function of the interface comes or goes or means something else: a library
// compiled from an older source is then refused.
constexpr int64_t kInterface = 7;

// What may be bfloat16 in a step with float factors, as it is under autocast: the inputs, the LSTM's hidden state before
// the step and after it. And anywhere the biases.
enum Rounded { kInputs = 1, kHidden = 2, kFinalHidden = 4, kBiases = 8 };

struct Arguments {
  int64_t batch, time, input_size, hidden_size;
  int64_t tied, refined, master, ordered;  // the gating: at most one of refined and master
  int64_t reverse;        // time runs from the last step to the first
  // The factors of all products are bfloat16, and so is every `void*` that is no weight or bias; but not the GRU's hidden
  // state and its gradient, which are floats because they are carried over time.
  int64_t bf16;
  int64_t weights_bf16;   // the weights are bfloat16 tensors, as they may be if the factors are; of a step they then are
  // Bits, `Rounded`, of what is bfloat16 where it would be floats.
  int64_t rounded;
  int64_t raised, lowered;  // bits of the blocks that the gate bias is added to and subtracted from
  int64_t segment;        // recompute instead of saving: steps from one kept state to the next, else 0
  int64_t threads;

  // Contiguous tensors. Null: `mask` (all steps real), `bias` and `gate_bias` (zeros), and any gradient that is zero or
  // not wanted.
  const void* inputs;            // (batch, time, input_size)
  const void* input_weight;      // (gates * hidden, input_size)
  const void* recurrent_weight;  // (gates * hidden, hidden)
  const void* bias;              // (gates * hidden)
  const void* gate_bias;         // (hidden)
  const void* hidden;            // (batch, hidden)
  const float* cell;             // (batch, hidden)
  const uint8_t* mask;           // (batch, time)
  // What `urzoo_pack` or `urzoo_gru_pack` made of weights and bias, or null: the forward pass then packs them itself. Its
  // size in floats is that of `urzoo_packed_size` or `urzoo_gru_packed_size`.
  float* packed;

  // Results of the forward pass, arguments of the backward pass.
  void* outputs;       // (batch, time, hidden)
  void* final_hidden;  // (batch, hidden)
  float* final_cell;   // (batch, hidden)
  // Null in inference. The gates (of a cumax the softmax) and the cell of every step, (time, vectors, batch, gates + 1,
  // width), or with `segment` the cells before every so many steps, (segments, batch, hidden). Of the GRU gates and
  // candidate, and the hidden state in place of the cell; with float factors outputs tell it, and it is not kept.
  float* saved;

  const void* outputs_grad;
  const void* final_hidden_grad;
  const float* final_cell_grad;
  float* inputs_grad;
  float* input_weight_grad;
  float* recurrent_weight_grad;
  float* bias_grad;
  float* hidden_grad;
  float* cell_grad;
};
