"""The gate arithmetic of one time step as Triton kernels: LSTM forward and backward, GRU in two halves each.

A step is a product through torch (cuBLAS) and one of these, elementwise over `(batch, hidden)`. Everything is
computed in float32; a tensor of another dtype is converted where it is loaded or stored. `gates` holds the
projected inputs before the forward step and the activated gates after it, in the order of `Gating.blocks`.
The equations are those of gates.py; the bias, gate bias included, is in the projection.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
# ruff: noqa: N803, N806  (constants of a kernel in capitals, as in Triton's own)

import triton
import triton.language as tl

BLOCK = 1024
"""Elements per program."""


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    # 1 - exp loses the digits of a small result, so near zero an odd polynomial, fitted to 8e-8 relative.
    square = x * x
    series = -6.276387588e-03
    series = series * square + 2.111621396e-02
    series = series * square - 5.387513819e-02
    series = series * square + 1.333292401e-01
    series = series * square - 3.333333043e-01
    small = x + x * square * series
    decay = tl.exp(-2.0 * tl.abs(x))
    large = (1.0 - decay) / (1.0 + decay)
    return tl.where(tl.abs(x) < 0.6, small, tl.where(x < 0.0, -large, large))


@triton.jit
def _refine(gate, refinement):
    return gate + gate * (1.0 - gate) * (2.0 * refinement - 1.0)


@triton.jit
def _elements(rows, hidden_size, BLOCK: tl.constexpr):
    """The elements of this program: index, row, column, and which of them exist."""
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    return element, element // hidden_size, element % hidden_size, element < rows * hidden_size


@triton.jit
def _emit(gradients, sums, at, value, real, SUM: tl.constexpr):
    """Store a pre-activation's gradient, and add it to the sums over time before it is rounded."""
    tl.store(gradients + at, value.to(gradients.dtype.element_ty), mask=real)
    if SUM:
        tl.store(sums + at, tl.load(sums + at, mask=real) + value, mask=real)


@triton.jit
def lstm_forward(
    product,  # (rows, blocks * hidden), float32: recurrent product
    gates,  # (rows, blocks * hidden), float32: projection in, activated gates out if SAVE
    hidden_before,  # (rows, hidden)
    cell_before,  # (rows, hidden), float32
    hidden_after,
    cell_after,
    mask,  # (rows,), bool; read if MASKED
    rows,
    hidden_size,
    TIED: tl.constexpr,
    REFINED: tl.constexpr,
    MASKED: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One LSTM step."""
    INPUT: tl.constexpr = 0
    FORGET: tl.constexpr = 0 if TIED else 1
    REFINE: tl.constexpr = FORGET + 1
    CANDIDATE: tl.constexpr = FORGET + 2 if REFINED else FORGET + 1
    OUTPUT: tl.constexpr = CANDIDATE + 1
    element, row, column, real = _elements(rows, hidden_size, BLOCK)
    first = row * (OUTPUT + 1) * hidden_size + column

    at = first + FORGET * hidden_size
    forget = _sigmoid(tl.load(product + at, mask=real) + tl.load(gates + at, mask=real))
    if SAVE:
        tl.store(gates + at, forget, mask=real)
    effective = forget
    if REFINED:
        at = first + REFINE * hidden_size
        refinement = _sigmoid(tl.load(product + at, mask=real) + tl.load(gates + at, mask=real))
        if SAVE:
            tl.store(gates + at, refinement, mask=real)
        effective = _refine(forget, refinement)
    at = first + CANDIDATE * hidden_size
    candidate = _tanh(tl.load(product + at, mask=real) + tl.load(gates + at, mask=real))
    if SAVE:
        tl.store(gates + at, candidate, mask=real)
    at = first + OUTPUT * hidden_size
    output = _sigmoid(tl.load(product + at, mask=real) + tl.load(gates + at, mask=real))
    if SAVE:
        tl.store(gates + at, output, mask=real)
    if TIED:
        opened = 1.0 - effective
    else:
        at = first + INPUT * hidden_size
        opened = _sigmoid(tl.load(product + at, mask=real) + tl.load(gates + at, mask=real))
        if SAVE:
            tl.store(gates + at, opened, mask=real)

    before = tl.load(cell_before + element, mask=real)
    cell = effective * before + opened * candidate
    hidden = output * _tanh(cell)
    if MASKED:
        keep = tl.load(mask + row, mask=real, other=0) != 0
        cell = tl.where(keep, cell, before)
        hidden = tl.where(keep, hidden, tl.load(hidden_before + element, mask=real).to(tl.float32))
    tl.store(cell_after + element, cell, mask=real)
    tl.store(hidden_after + element, hidden.to(hidden_after.dtype.element_ty), mask=real)


@triton.jit
def lstm_backward(
    gates,  # (rows, blocks * hidden), float32: activated gates
    cell_before,
    cell_after,
    output_grad,  # (rows, hidden): gradient of this step's output
    hidden_grad,  # (rows, hidden), float32: by way of the next step's product
    passed_grad,  # (rows, hidden), float32: by way of masked steps, in and out if MASKED
    cell_grad,  # (rows, hidden), float32, in and out
    preactivations_grad,  # (rows, blocks * hidden)
    sums,  # (rows, blocks * hidden), float32: the same summed over time, in and out if SUM
    mask,
    rows,
    hidden_size,
    TIED: tl.constexpr,
    REFINED: tl.constexpr,
    MASKED: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The derivative of one LSTM step."""
    INPUT: tl.constexpr = 0
    FORGET: tl.constexpr = 0 if TIED else 1
    REFINE: tl.constexpr = FORGET + 1
    CANDIDATE: tl.constexpr = FORGET + 2 if REFINED else FORGET + 1
    OUTPUT: tl.constexpr = CANDIDATE + 1
    element, row, column, real = _elements(rows, hidden_size, BLOCK)
    first = row * (OUTPUT + 1) * hidden_size + column

    forget = tl.load(gates + first + FORGET * hidden_size, mask=real)
    candidate = tl.load(gates + first + CANDIDATE * hidden_size, mask=real)
    output = tl.load(gates + first + OUTPUT * hidden_size, mask=real)
    before = tl.load(cell_before + element, mask=real)
    squashed = _tanh(tl.load(cell_after + element, mask=real))
    later_cell = tl.load(cell_grad + element, mask=real)
    hidden = tl.load(output_grad + element, mask=real).to(tl.float32) + tl.load(hidden_grad + element, mask=real)
    if MASKED:
        keep = tl.load(mask + row, mask=real, other=0) != 0
        hidden += tl.load(passed_grad + element, mask=real)
        tl.store(passed_grad + element, tl.where(keep, 0.0, hidden), mask=real)

    cell = later_cell + hidden * output * (1.0 - squashed * squashed)
    output_pre = hidden * squashed * output * (1.0 - output)
    effective = forget
    slope = forget * (1.0 - forget)
    if REFINED:
        refinement = tl.load(gates + first + REFINE * hidden_size, mask=real)
        effective = _refine(forget, refinement)
    if TIED:
        opened = 1.0 - effective
        effective_grad = cell * (before - candidate)
    else:
        opened = tl.load(gates + first + INPUT * hidden_size, mask=real)
        effective_grad = cell * before
        input_pre = cell * candidate * opened * (1.0 - opened)
        if MASKED:
            input_pre = tl.where(keep, input_pre, 0.0)
        at = first + INPUT * hidden_size
        _emit(preactivations_grad, sums, at, input_pre, real, SUM)
    candidate_pre = cell * opened * (1.0 - candidate * candidate)
    forget_pre = effective_grad * slope
    if REFINED:
        refine_pre = effective_grad * 2.0 * slope * refinement * (1.0 - refinement)
        forget_pre *= 1.0 + (1.0 - 2.0 * forget) * (2.0 * refinement - 1.0)
        if MASKED:
            refine_pre = tl.where(keep, refine_pre, 0.0)
        at = first + REFINE * hidden_size
        _emit(preactivations_grad, sums, at, refine_pre, real, SUM)
    earlier_cell = cell * effective
    if MASKED:
        forget_pre = tl.where(keep, forget_pre, 0.0)
        candidate_pre = tl.where(keep, candidate_pre, 0.0)
        output_pre = tl.where(keep, output_pre, 0.0)
        earlier_cell = tl.where(keep, earlier_cell, later_cell)
    _emit(preactivations_grad, sums, first + FORGET * hidden_size, forget_pre, real, SUM)
    _emit(preactivations_grad, sums, first + CANDIDATE * hidden_size, candidate_pre, real, SUM)
    _emit(preactivations_grad, sums, first + OUTPUT * hidden_size, output_pre, real, SUM)
    tl.store(cell_grad + element, earlier_cell, mask=real)


@triton.jit
def gru_gates_forward(
    product,  # (rows, (blocks - 1) * hidden), float32
    gates,  # (rows, blocks * hidden), float32: projection in, activated gates out if SAVE
    carry_before,  # (rows, hidden), float32: the hidden state
    recalled,  # (rows, hidden): reset * hidden, the factor of the candidate's product
    update,  # (rows, hidden), float32: the effective update gate
    rows,
    hidden_size,
    REFINED: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The first half of a GRU step: the gates, and the hidden state after the reset."""
    BLOCKS: tl.constexpr = 4 if REFINED else 3
    element, row, column, real = _elements(rows, hidden_size, BLOCK)
    first = row * BLOCKS * hidden_size + column
    multiplied = row * (BLOCKS - 1) * hidden_size + column

    reset = _sigmoid(tl.load(product + multiplied, mask=real) + tl.load(gates + first, mask=real))
    gate = _sigmoid(
        tl.load(product + multiplied + hidden_size, mask=real) + tl.load(gates + first + hidden_size, mask=real)
    )
    if SAVE:
        tl.store(gates + first, reset, mask=real)
        tl.store(gates + first + hidden_size, gate, mask=real)
    if REFINED:
        refinement = _sigmoid(
            tl.load(product + multiplied + 2 * hidden_size, mask=real)
            + tl.load(gates + first + 2 * hidden_size, mask=real)
        )
        if SAVE:
            tl.store(gates + first + 2 * hidden_size, refinement, mask=real)
        gate = _refine(gate, refinement)
    remembered = reset * tl.load(carry_before + element, mask=real)
    tl.store(recalled + element, remembered.to(recalled.dtype.element_ty), mask=real)
    tl.store(update + element, gate, mask=real)


@triton.jit
def gru_candidate_forward(
    product,  # (rows, hidden), float32
    gates,  # (rows, blocks * hidden), float32: projection of the candidate in, candidate out if SAVE
    update,
    carry_before,
    carry_after,
    hidden_after,  # (rows, hidden): carry_after in the dtype of the outputs
    mask,
    rows,
    hidden_size,
    REFINED: tl.constexpr,
    MASKED: tl.constexpr,
    SAVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The second half of a GRU step: the candidate and the new hidden state."""
    BLOCKS: tl.constexpr = 4 if REFINED else 3
    element, row, column, real = _elements(rows, hidden_size, BLOCK)
    at = (row * BLOCKS + BLOCKS - 1) * hidden_size + column
    candidate = _tanh(tl.load(product + element, mask=real) + tl.load(gates + at, mask=real))
    if SAVE:
        tl.store(gates + at, candidate, mask=real)
    before = tl.load(carry_before + element, mask=real)
    gate = tl.load(update + element, mask=real)
    after = (1.0 - gate) * before + gate * candidate
    if MASKED:
        after = tl.where(tl.load(mask + row, mask=real, other=0) != 0, after, before)
    tl.store(carry_after + element, after, mask=real)
    tl.store(hidden_after + element, after.to(hidden_after.dtype.element_ty), mask=real)


@triton.jit
def gru_candidate_backward(
    gates,
    carry_before,
    output_grad,
    hidden_grad,  # (rows, hidden), float32: by way of the next step's product
    passed_grad,  # (rows, hidden), float32, in and out: by every other way
    preactivations_grad,  # (rows, blocks * hidden): all blocks but the reset gate's out
    sums,  # (rows, blocks * hidden), float32: the same summed over time, in and out if SUM
    mask,
    rows,
    hidden_size,
    REFINED: tl.constexpr,
    MASKED: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The derivative of the second half of a GRU step, and of its update gate."""
    BLOCKS: tl.constexpr = 4 if REFINED else 3
    element, row, column, real = _elements(rows, hidden_size, BLOCK)
    first = row * BLOCKS * hidden_size + column
    gate = tl.load(gates + first + hidden_size, mask=real)
    candidate = tl.load(gates + first + (BLOCKS - 1) * hidden_size, mask=real)
    hidden = tl.load(output_grad + element, mask=real).to(tl.float32) + tl.load(hidden_grad + element, mask=real)
    hidden += tl.load(passed_grad + element, mask=real)
    if MASKED:
        keep = tl.load(mask + row, mask=real, other=0) != 0

    slope = gate * (1.0 - gate)
    effective = gate
    gate_pre = hidden * (candidate - tl.load(carry_before + element, mask=real)) * slope
    if REFINED:
        refinement = tl.load(gates + first + 2 * hidden_size, mask=real)
        effective = _refine(gate, refinement)
        refine_pre = gate_pre * 2.0 * refinement * (1.0 - refinement)
        gate_pre *= 1.0 + (1.0 - 2.0 * gate) * (2.0 * refinement - 1.0)
        if MASKED:
            refine_pre = tl.where(keep, refine_pre, 0.0)
        _emit(preactivations_grad, sums, first + 2 * hidden_size, refine_pre, real, SUM)
    candidate_pre = hidden * effective * (1.0 - candidate * candidate)
    passed = hidden * (1.0 - effective)
    if MASKED:
        gate_pre = tl.where(keep, gate_pre, 0.0)
        candidate_pre = tl.where(keep, candidate_pre, 0.0)
        passed = tl.where(keep, passed, hidden)
    _emit(preactivations_grad, sums, first + hidden_size, gate_pre, real, SUM)
    _emit(preactivations_grad, sums, first + (BLOCKS - 1) * hidden_size, candidate_pre, real, SUM)
    tl.store(passed_grad + element, passed, mask=real)


@triton.jit
def gru_reset_backward(
    gates,
    carry_before,
    recalled_grad,  # (rows, hidden), float32: by way of the candidate's product
    passed_grad,
    preactivations_grad,  # the reset gate's block out
    sums,
    rows,
    hidden_size,
    REFINED: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The derivative of the reset. At a masked step `recalled_grad` is zero, and so is what follows from it."""
    BLOCKS: tl.constexpr = 4 if REFINED else 3
    element, row, column, real = _elements(rows, hidden_size, BLOCK)
    first = row * BLOCKS * hidden_size + column
    reset = tl.load(gates + first, mask=real)
    remembered = tl.load(recalled_grad + element, mask=real)
    reset_pre = remembered * tl.load(carry_before + element, mask=real) * reset * (1.0 - reset)
    _emit(preactivations_grad, sums, first, reset_pre, real, SUM)
    tl.store(passed_grad + element, tl.load(passed_grad + element, mask=real) + remembered * reset, mask=real)
