// The C interface: one plain structure for the forward and the backward pass of an LSTM. ops.py mirrors it.
#pragma once

#include <cstdint>

struct Problem {
  int64_t batch, time, input_size, hidden_size;
  int64_t tied, refined;  // the gating
  int64_t reverse;        // time runs from the last step to the first
  int64_t threads;

  // Contiguous tensors. Null: `mask` (all steps real), `bias` (zeros), and any gradient that is zero or not wanted.
  const float* inputs;            // (batch, time, input_size)
  const float* input_weight;      // (gates * hidden, input_size)
  const float* recurrent_weight;  // (gates * hidden, hidden)
  const float* bias;              // (gates * hidden), the gate bias included
  const float* hidden;            // (batch, hidden)
  const float* cell;              // (batch, hidden)
  const uint8_t* mask;            // (batch, time)

  // Results of the forward pass, arguments of the backward pass.
  float* outputs;       // (batch, time, hidden)
  float* final_hidden;  // (batch, hidden)
  float* final_cell;    // (batch, hidden)
  float* saved;         // (time, vectors, batch, gates + 1, width): the gates and the cell; null in inference

  const float* outputs_grad;
  const float* final_hidden_grad;
  const float* final_cell_grad;
  float* inputs_grad;
  float* input_weight_grad;
  float* recurrent_weight_grad;
  float* bias_grad;
  float* hidden_grad;
  float* cell_grad;
};
