"""Steps and sequences without gradients past what they do not need: torch's dispatcher, operators, explaining checks.

A small step takes a few microseconds, a fraction of what the general way to it takes in Python. What is not plainly
right here is left to the general way. Nothing of a tensor is kept from one call to the next: the weights are read where
they are, and only what follows from shapes and dtypes is remembered; unless the caller holds them (`HeldWeights`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch._C import _dispatch_keys, _functorch, _get_tracing_state, _len_torch_dispatch_stack
from torch.autograd import forward_ad
from torch.nn import Parameter

from urzoo.recurrence.cpu.library import Arguments, arguments_of, current, not_loaded
from urzoo.recurrence.cpu.memory import empty
from urzoo.recurrence.cpu.passes import FEW_ROWS, FusedKind, multiplied_as, options, refusal, step_threads
from urzoo.recurrence.gates import Gating, State, bias_signs
from urzoo.recurrence.held import held_weights

_GIVEN = ("inputs", "input_weight", "recurrent_weight", "bias", "gate_bias")

Described = torch.Size | torch.dtype | None

with torch.inference_mode(mode=False):
    _ORDINARY = _dispatch_keys(torch.empty(0, device="cpu")).raw_repr()
with torch.inference_mode():
    _INFERENCE = _dispatch_keys(torch.empty(0, device="cpu")).raw_repr()


@dataclass(frozen=True)
class Way:
    """A function of the library, and what it takes.

    `sizes` are those of `Arguments`, `names` its tensors in the order of the arguments, the state and the state after.
    `plain` says that the arguments are in the dtypes that the function takes. `carried` are those of the state before,
    `final` those of the state after.
    """

    function: str
    sizes: bytes
    names: tuple[str, ...]
    dtype: torch.dtype  # of the inputs
    carried: tuple[torch.dtype, ...]
    final: tuple[torch.dtype, ...]
    plain: bool


@dataclass(frozen=True)
class Plan:
    """What follows from the shapes and dtypes of a call; `step` is None if the weights are to be packed first."""

    kind: FusedKind
    shape: tuple[int, int, int]  # of the outputs
    step: Way | None
    forward: Way
    weights: int  # of the hidden state
    mixed: bool  # one of the biases is bfloat16, the other is not


def step(tensors: Sequence[Tensor | None], state: State | None, gating: Gating) -> State | None:
    """The state after one step; None if the step is not for here. The arguments may be anything yet.

    Args:
        tensors: The inputs, weights and biases, in the order of `urzoo.recurrence.step`.
        state: As there.
        gating: As there.
    """
    plan, contiguous = _plan_of(tensors, state, gating, reverse=False)
    if plan is None:
        return None
    way = plan.step
    if way is None or held_weights() is not None:
        return _forward(plan, tensors, state, contiguous=contiguous)[1]
    if state is None or not (way.plain and contiguous):
        tensors, state = _prepared(plan, way, tensors, state)
    if way.carried == way.final:
        after = tuple(map(torch.empty_like, state))
    else:
        after = tuple(torch.empty_like(part, dtype=dtype) for part, dtype in zip(state, way.final, strict=True))
    arguments = _arguments(plan, way, (*tensors, *state, *after))
    current().call(way.function, arguments)
    return after


def scan(
    tensors: Sequence[Tensor | None], state: State | None, gating: Gating, *, reverse: bool
) -> tuple[Tensor, State] | None:
    """The outputs of a sequence and the state after it; None if it is not for here. The arguments may be anything yet.

    Args:
        tensors: The inputs, weights and biases, in the order of `urzoo.recurrence.scan`.
        state: As there.
        gating: As there.
        reverse: As there.
    """
    plan, contiguous = _plan_of(tensors, state, gating, reverse=reverse)
    return None if plan is None else _forward(plan, tensors, state, contiguous=contiguous)


def _forward(
    plan: Plan, tensors: Sequence[Tensor | None], state: State | None, *, contiguous: bool
) -> tuple[Tensor, State]:
    way, given = plan.forward, tensors
    if state is None or not (way.plain and contiguous):
        tensors, state = _prepared(plan, way, tensors, state)
    outputs, after = empty(*plan.shape, dtype=plan.kind.dtype), tuple(map(torch.empty_like, state))
    packed, block = None, held_weights()
    if block is not None:
        what = plan.kind, current().variant
        packed = block.made(what, tuple(given[1:]), partial(_pack, plan, tensors))
    arguments = _arguments(plan, way, (*tensors, *state, *after))
    arguments.outputs = outputs.data_ptr()
    if packed is not None:
        arguments.packed = packed.data_ptr()
    current().call(way.function, arguments)
    return outputs, after


def _pack(plan: Plan, tensors: Sequence[Tensor | None]) -> Tensor:
    """The weights as the forward pass reads them."""
    arguments = _arguments(plan, plan.forward, tensors)
    arguments.threads = torch.get_num_threads()
    packed = empty(current().size(plan.kind.function("packed_size"), arguments))
    arguments.packed = packed.data_ptr()
    current().call(plan.kind.function("pack"), arguments)
    return packed


def _arguments(plan: Plan, way: Way, tensors: Sequence[Tensor | None]) -> Arguments:
    """The arguments with the tensors, which must live until the call is over."""
    arguments = Arguments.from_buffer_copy(way.sizes)
    arguments.threads = step_threads(plan.weights, plan.shape[0]) if plan.shape[1] == 1 else torch.get_num_threads()
    for name, tensor in zip(way.names, tensors, strict=False):
        if tensor is not None:
            setattr(arguments, name, tensor.data_ptr())
    return arguments


def _prepared(
    plan: Plan, way: Way, tensors: Sequence[Tensor | None], state: State | None
) -> tuple[Sequence[Tensor | None], State]:
    """Arguments and state as `way` takes them."""
    inputs, *weights = tensors
    assert inputs is not None
    if plan.mixed:
        weights[2:] = [None if tensor is None else tensor.float() for tensor in weights[2:]]
    if state is None:
        state = tuple(torch.zeros(plan.shape[0], plan.shape[2], dtype=dtype, device="cpu") for dtype in way.carried)
    else:
        state = _as(state, way.carried)
    return [_typed(inputs, way.dtype), *weights], state


def _as(state: State, dtypes: tuple[torch.dtype, ...]) -> State:
    return tuple(map(_typed, state, dtypes))


def _typed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return (tensor if tensor.dtype is dtype else tensor.to(dtype)).contiguous()


def _plan_of(
    tensors: Sequence[Tensor | None], state: State | None, gating: Gating, *, reverse: bool
) -> tuple[Plan | None, bool]:
    """The plan, if the tensors are memory of the CPU and nobody follows what is done; whether all are contiguous."""
    if (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or _functorch.peek_interpreter_stack() is not None
        or _len_torch_dispatch_stack()
        or forward_ad._current_level >= 0
        or _get_tracing_state() is not None
        or not_loaded()
        or not (state is None or type(state) is tuple)
    ):
        return None, False
    described: list[Described] = []
    contiguous = True
    for place, tensor in enumerate((*tensors, *(state or ()))):
        if tensor is None:
            described.append(None)
            continue
        # The keys tell what is nothing but memory of the CPU from everything else.
        if type(tensor) not in (Tensor, Parameter) or _dispatch_keys(tensor).raw_repr() not in (_ORDINARY, _INFERENCE):
            return None, False
        if not tensor.is_contiguous():
            if 0 < place < len(_GIVEN):
                return None, False
            contiguous = False
        described += (tensor.shape, tensor.dtype)
    autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    return _plan(gating, reverse, autocast, *described), contiguous


@lru_cache(256)
def _plan(gating: Gating, reverse: bool, autocast: torch.dtype | None, *described: Described) -> Plan | None:  # noqa: FBT001
    """The plan for shapes and dtypes, None for both of a tensor that is not given; None if they do not agree."""
    inputs, input_weight, recurrent_weight, bias, gate_bias, *state = _pairs(described)
    if inputs is None or input_weight is None or recurrent_weight is None or len(inputs[0]) not in (2, 3):
        return None
    (batch, *times, input_size), given = inputs
    time, hidden_size = (times or [1])[0], recurrent_weight[0][-1]
    rows, kind = len(gating.blocks) * hidden_size, FusedKind(gating, reverse, given if autocast is None else autocast)
    # Under autocast each argument may be rounded already.
    dtypes = (given,) if autocast is None else (torch.float32, torch.bfloat16)
    weight_dtype = recurrent_weight[1]
    biases = [each for each in (bias, gate_bias) if each is not None]
    agrees = (
        not refusal(gating, kind.dtype)
        and min(batch, time, input_size, hidden_size) > 0
        and given in dtypes
        and weight_dtype in dtypes
        and input_weight == ((rows, input_size), weight_dtype)
        and recurrent_weight[0] == (rows, hidden_size)
        and (bias is None or bias[0] == (rows,))
        and (gate_bias is None or gate_bias[0] == (hidden_size,))
        and all(dtype in dtypes for _, dtype in biases)
        and not (gating.uses_cumax and gate_bias is not None)
        and len(state) in (0, len(kind.state_dtypes))
        and all(
            part is not None and part[0] == (batch, hidden_size) and part[1] in (kind.dtype, given, torch.float32)
            for part in state
        )
    )
    if not agrees:
        return None
    signs = bias_signs(gating)
    raised, lowered = (sum(1 << block for block, sign in enumerate(signs) if sign == wanted) for wanted in (1.0, -1.0))
    mixed = len({dtype for _, dtype in biases}) > 1
    biases_rounded = not mixed and any(dtype == torch.bfloat16 for _, dtype in biases)

    def way(name: str, computed: FusedKind) -> Way:
        taken, before, after = kind.dtype, kind.state_dtypes, kind.state_dtypes
        bits = 8 * biases_rounded
        if computed != kind:
            # Float factors of what autocast has rounded: a step takes it as it is, and gives the state so.
            taken, hidden = given, state[0][1] if state and state[0] is not None else before[0]
            before = before if kind.gru else (hidden, *before[1:])
            bits += sum(1 << bit for bit, dtype in enumerate((taken, before[0], after[0])) if dtype == torch.bfloat16)
        sizes = arguments_of(
            **options(computed),
            raised=raised,
            lowered=lowered,
            batch=batch,
            time=time,
            input_size=input_size,
            hidden_size=hidden_size,
            weights_bf16=weight_dtype == torch.bfloat16,
            rounded=bits,
        )
        parts = ("hidden", "cell")[: len(before)]
        names = (*_GIVEN, *parts, *(f"final_{part}" for part in parts))
        dtypes = tuple(part[1] for part in state if part is not None)
        plain = (given, before) == (taken, dtypes) and not mixed
        return Way(kind.function(name), bytes(sizes), names, taken, before, after, plain)

    few = not times and batch <= FEW_ROWS
    return Plan(
        kind,
        (batch, time, hidden_size),
        way("step", multiplied_as(kind, weight_dtype)) if few else None,
        way("forward", kind),
        rows * hidden_size,
        mixed,
    )


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
