"""One step past everything that it does not need: torch's dispatcher, operators, and checks that explain what is wrong.

A small step takes a few microseconds, a fraction of what the general way to it takes in Python. What is not plainly
right here is left to the general way. Nothing of a tensor is kept from one call to the next: the weights are read where
they are, in torch's order, and only what follows from shapes and dtypes is remembered.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch._C import _dispatch_keys, _functorch, _get_tracing_state, _len_torch_dispatch_stack
from torch.autograd import forward_ad
from torch.nn import Parameter

from urzoo.recurrence.cpu.library import Problem, current, problem_of, problem_with_it
from urzoo.recurrence.cpu.passes import Kind, options, refusal, step_threads
from urzoo.recurrence.gates import Gating, State, bias_signs

FEW_ROWS, FEW_ROWS_BF16 = 12, 3
"""A sequence begins by packing the weights, which takes longer than one step of so few rows without it; of fewer in
bfloat16, where such a step converts the weights for every row."""

_ARGUMENTS = ("inputs", "input_weight", "recurrent_weight", "bias", "gate_bias", "hidden", "cell")
_FINAL = ("final_hidden", "final_cell")

Described = torch.Size | torch.dtype | None

with torch.inference_mode(mode=False):
    _ORDINARY = _dispatch_keys(torch.empty(0)).raw_repr()
with torch.inference_mode():
    _INFERENCE = _dispatch_keys(torch.empty(0)).raw_repr()


@dataclass(frozen=True)
class Plan:
    """What follows from the shapes and dtypes of a step: the function of the library, and the sizes of `Problem`."""

    function: str
    sizes: bytes
    rounded: bool  # the biases are bfloat16


def step(tensors: Sequence[Tensor | None], state: State, gating: Gating) -> State | None:
    """The state after one step; None if the step is not for here. The arguments may be anything yet.

    Args:
        tensors: The inputs, weights and biases, in the order of `urzoo.recurrence.step`.
        state: As there.
        gating: As there.
    """
    if (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
        or _functorch.peek_interpreter_stack() is not None
        or _len_torch_dispatch_stack()
        or forward_ad._current_level >= 0
        or _get_tracing_state() is not None
        or problem_with_it()
    ):
        return None
    described: list[Described] = []
    for tensor in (*tensors, *state):
        if tensor is None:
            described.append(None)
            continue
        # The keys tell what is nothing but memory of the CPU from everything else.
        if (
            type(tensor) not in (Tensor, Parameter)
            or _dispatch_keys(tensor).raw_repr() not in (_ORDINARY, _INFERENCE)
            or not tensor.is_contiguous()
        ):
            return None
        described += (tensor.shape, tensor.dtype)
    plan = _plan(gating, *described)
    if plan is None:
        return None
    problem = Problem.from_buffer_copy(plan.sizes)
    if plan.rounded:
        # Alive until the call is over.
        tensors = *tensors[:3], *(None if tensor is None else tensor.float() for tensor in tensors[3:])
    final = tuple(map(torch.empty_like, state))
    for name, tensor in zip(_ARGUMENTS, (*tensors, *state), strict=False):
        if tensor is not None:
            setattr(problem, name, tensor.data_ptr())
    for name, tensor in zip(_FINAL, final, strict=False):
        setattr(problem, name, tensor.data_ptr())
    current().call(plan.function, problem)
    return final


@lru_cache(256)
def _plan(gating: Gating, *described: Described) -> Plan | None:
    """The plan for shapes and dtypes, None for both of a tensor that is not given; None if they do not agree."""
    inputs, input_weight, recurrent_weight, bias, gate_bias, *state = _pairs(described)
    if inputs is None or input_weight is None or recurrent_weight is None or len(inputs[0]) != 2:
        return None
    (batch, input_size), dtype = inputs
    rows, hidden_size = len(gating.blocks) * recurrent_weight[0][-1], recurrent_weight[0][-1]
    kind = Kind(gating, reverse=False, dtype=dtype)
    agrees = (
        not refusal(gating, dtype)
        and 0 < batch <= (FEW_ROWS_BF16 if kind.bf16 else FEW_ROWS)
        and min(input_size, hidden_size) > 0
        and input_weight == ((rows, input_size), dtype)
        and recurrent_weight == ((rows, hidden_size), dtype)
        and bias in (None, ((rows,), dtype))
        and gate_bias in (None, ((hidden_size,), dtype))
        and not (gating.uses_cumax and gate_bias is not None)
        and state == [((batch, hidden_size), each) for each in kind.state_dtypes]
    )
    if not agrees or step_threads(rows * hidden_size, batch) > 1:
        return None
    signs = bias_signs(gating)
    raised, lowered = (sum(1 << block for block, sign in enumerate(signs) if sign == wanted) for wanted in (1.0, -1.0))
    sizes = problem_of(
        **options(kind),
        raised=raised,
        lowered=lowered,
        batch=batch,
        time=1,
        input_size=input_size,
        hidden_size=hidden_size,
        weights_bf16=kind.bf16,
        threads=1,
    )
    return Plan(kind.function("step"), bytes(sizes), kind.bf16)


def _pairs(described: tuple[Described, ...]) -> Iterator[tuple[torch.Size, torch.dtype] | None]:
    parts = iter(described)
    for part in parts:
        if part is None:
            yield None
        else:
            dtype = next(parts)
            assert isinstance(part, torch.Size)
            assert isinstance(dtype, torch.dtype)
            yield part, dtype
