"""The public functions of the recurrence, and the choice of the back end.

A back end is a module or folder beside this file that offers what `Backend` says, and a name in
`PREFERENCE`. The first one that can run the recurrence does; a back end named by the caller is never
replaced by another.
"""

import importlib
import warnings
from collections.abc import Sequence
from typing import Literal, Protocol, cast

import torch
from torch import Tensor

from urzoo.errors import BackendError, ShapeError, UsageError, unknown
from urzoo.recurrence import reference
from urzoo.recurrence.arguments import check_mask, checked_state, product_dtype
from urzoo.recurrence.derivatives import needs_reference, refuse
from urzoo.recurrence.gates import Gating, State

PREFERENCE = ("triton", "cpu", "reference")
SAVES = ("activations", "recompute")


class SlowBackendWarning(UserWarning):
    """The recurrence runs on the reference only because a faster back end is not installed; issued once."""


class Backend(Protocol):
    """What a back end offers. It receives checked arguments: shapes, devices and dtypes agree, no size is 0.

    It differentiates once, in reverse. Where the caller asks for another derivative the reference runs, or if
    `named`, because the caller chose the back end by its name, `urzoo.recurrence.derivatives.refuse` says so.

    `dtype` is that of the products and of the outputs. In a 16-bit dtype what is carried over time (the
    LSTM's cell, the GRU's hidden state) and the gate arithmetic are float32, and the state is returned as
    (hidden in `dtype`, cell in float32) or (hidden in float32,). The tensors arrive in a dtype of their own:
    `dtype`, or under autocast float32, and their gradients leave in it without passing through `dtype`.
    """

    name: str

    def unavailable(self) -> str:
        """Why this back end cannot run on this machine, with the remedy; "" if it can."""

    def unsupported(self, gating: Gating, dtype: torch.dtype, device: torch.device) -> str:
        """Why this back end cannot run such a recurrence, as the end of "cannot run on ..."; "" if it can."""

    def scan(
        self,
        inputs: Tensor,
        input_weight: Tensor,
        recurrent_weight: Tensor,
        bias: Tensor | None,
        gate_bias: Tensor | None,
        state: State,
        *,
        gating: Gating,
        mask: Tensor | None,
        reverse: bool,
        save: str,
        dtype: torch.dtype,
        named: bool,
    ) -> tuple[Tensor, State]:
        """Run over a sequence."""

    def step(
        self,
        inputs: Tensor,
        input_weight: Tensor,
        recurrent_weight: Tensor,
        bias: Tensor | None,
        gate_bias: Tensor | None,
        state: State,
        *,
        gating: Gating,
        dtype: torch.dtype,
        named: bool,
    ) -> State:
        """Run one step."""


def _load(backend: str) -> Backend | None:
    """The module of a back end, or None where it is not part of this installation (exported remote code)."""
    module = f"{__package__}.{backend}"
    try:
        return cast(Backend, importlib.import_module(module))
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None


_REFERENCE: Backend = reference
_BACKENDS: dict[str, Backend] = {
    **{name: module for name in PREFERENCE[:-1] if (module := _load(name)) is not None},
    "reference": _REFERENCE,
}


class Quick(Protocol):
    """The way past the checks for what is plainly right, see `urzoo.recurrence.cpu.quick`."""

    def step(self, tensors: Sequence[Tensor | None], state: State | None, gating: Gating) -> State | None:
        """The state after one step, or None."""

    def scan(
        self, tensors: Sequence[Tensor | None], state: State | None, gating: Gating, *, reverse: bool
    ) -> tuple[Tensor, State] | None:
        """The outputs of a sequence and the state after it, or None."""


# Where the CPU's back end is the first that takes what is on the CPU.
_quick: Quick | None = None
if "cpu" in _BACKENDS and (
    "triton" not in _BACKENDS
    or _BACKENDS["triton"].unsupported(Gating(), torch.float32, torch.device("cpu"))
    or _BACKENDS["triton"].unavailable()
):
    _quick = getattr(_BACKENDS["cpu"], "quick", None)
_warned = False


def scan(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None = None,
    gate_bias: Tensor | None = None,
    state: State | None = None,
    *,
    gating: Gating = Gating(),  # noqa: B008  (frozen)
    mask: Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
    save: Literal["activations", "recompute"] | str = "activations",
) -> tuple[Tensor, State]:
    """Run a gated recurrence over a sequence.

    Args:
        inputs: Shape `(batch, time, input_size)`; only batch may be 0.
        input_weight: Shape `(len(gating.blocks) * hidden, input_size)`.
        recurrent_weight: Shape `(len(gating.blocks) * hidden, hidden)`.
        bias: Shape `(len(gating.blocks) * hidden,)`; zeros when omitted.
        gate_bias: The bias of the primary gate, which the refine gate carries with the opposite sign, in
            log-odds, shape `(hidden,)`; zeros when omitted. Gatings with cumax take none.
        state: The state before the first step, (hidden, cell) or for the GRU (hidden,), each of shape
            `(batch, hidden)`; zeros when omitted.
        gating: What the cell computes.
        mask: True where a step is real, shape `(batch, time)`. The state passes unchanged through the
            other steps, whose outputs repeat it and whose inputs may be anything. All real when omitted.
        reverse: Time runs from the last step to the first; each output stays at its step.
        backend: A name from `backends()`. The fastest that can run it when omitted; a name given
            here is never replaced by another.
        save: "activations" keeps what the backward pass needs, "recompute" trades time for memory; back
            ends without the choice ignore it.

    Returns:
        The hidden states, shape `(batch, time, hidden)`, and the state after the last step. Under autocast
        and with 16-bit inputs the outputs have the 16-bit dtype, and what the recurrence carries over time
        (the LSTM's cell, the GRU's hidden state) is computed and returned in float32.

    Raises:
        ShapeError: The shapes, dtypes or devices of the arguments do not agree.
        BackendError: `backend` is unknown, or cannot run on these inputs.
        UsageError: `save` is unknown.
    """
    check_options(None, save)
    weights = input_weight, recurrent_weight, bias, gate_bias
    if inputs.dim() == 3 and mask is None and not _recorded():
        if inputs.shape[1] == 1:
            # What generation does at every token: none of the set-up of a sequence.
            state = step(inputs[:, 0], *weights, state, gating=gating, backend=backend)
            # A copy: outputs that are written to in place must not move the state.
            return state[0].unsqueeze(1).to(product_dtype(inputs), copy=True), state
        if _quick is not None and backend in (None, "cpu"):
            found = _quick.scan((inputs, *weights), state, gating, reverse=reverse)
            if found is not None:
                return found
    if inputs.dim() != 3:
        raise ShapeError(
            f"inputs has {inputs.dim()} dimensions, expected 3: (batch, time, input_size); "
            f"its shape is {tuple(inputs.shape)}."
        )
    dtype = product_dtype(inputs)
    state = checked_state(inputs, input_weight, recurrent_weight, bias, gate_bias, state, gating, dtype)
    if mask is not None:
        check_mask(mask, inputs)
    chosen = _choose_for((inputs, *weights, *state), gating, dtype, backend)
    named = backend is not None
    return chosen.scan(
        inputs,
        *weights,
        state,
        gating=gating,
        mask=mask,
        reverse=reverse,
        save=save,
        dtype=dtype,
        named=named,
    )


def step(
    inputs: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None = None,
    gate_bias: Tensor | None = None,
    state: State | None = None,
    *,
    gating: Gating = Gating(),  # noqa: B008  (frozen)
    backend: str | None = None,
) -> State:
    """Run a gated recurrence over one step, as decoding does.

    Args:
        inputs: Shape `(batch, input_size)`. The other arguments are those of `scan`.

    Returns:
        The state after the step; its first part is the output.

    Raises:
        ShapeError: The shapes, dtypes or devices of the arguments do not agree.
        BackendError: `backend` is unknown, or cannot run on these inputs.
    """
    weights = input_weight, recurrent_weight, bias, gate_bias
    if _quick is not None and backend in (None, "cpu"):
        after = _quick.step((inputs, *weights), state, gating)
        if after is not None:
            return after
    if inputs.dim() != 2:
        raise ShapeError(
            f"inputs has {inputs.dim()} dimensions, expected 2: (batch, input_size); "
            f"its shape is {tuple(inputs.shape)}."
        )
    dtype = product_dtype(inputs)
    state = checked_state(inputs, input_weight, recurrent_weight, bias, gate_bias, state, gating, dtype)
    chosen = _choose_for((inputs, *weights, *state), gating, dtype, backend)
    return chosen.step(inputs, *weights, state, gating=gating, dtype=dtype, named=backend is not None)


def check_options(backend: str | None, save: str = "activations") -> None:
    """Refuse names that `scan` does not know, for a module that keeps them until it is called.

    Raises:
        BackendError: `backend` is unknown; whether it can run shows only in a call.
        UsageError: `save` is unknown.
    """
    if backend is not None and backend not in _BACKENDS:
        raise BackendError(unknown("backend", backend, _BACKENDS))
    if save not in SAVES:
        raise UsageError(unknown("save", save, SAVES))


def backends() -> dict[str, str]:
    """The back ends in order of preference: "" for one usable on this machine, else the reason why not."""
    return {name: backend.unavailable() for name, backend in _BACKENDS.items()}


def backend_for(inputs: Tensor, gating: Gating = Gating(), *, backend: str | None = None) -> str:  # noqa: B008
    """The name of the back end that `scan` and `step` would run, under the present autocast.

    Args:
        inputs: Any tensor with the dtype and on the device of the recurrence.
        gating: What the cell computes.
        backend: As for `scan`.

    Raises:
        BackendError: `backend` is unknown, or cannot run on such inputs.
    """
    return chosen_backend(inputs, gating, backend).name


def chosen_backend(inputs: Tensor, gating: Gating, backend: str | None) -> Backend:
    """The back end itself; see `backend_for`."""
    return _choose(gating, product_dtype(inputs), inputs.device, backend)


def _choose_for(tensors: Sequence[Tensor | None], gating: Gating, dtype: torch.dtype, backend: str | None) -> Backend:
    """The back end for the arguments of a call, of which the first is the inputs."""
    inputs = tensors[0]
    assert inputs is not None
    chosen = _choose(gating, dtype, inputs.device, backend)
    if chosen is not _REFERENCE:
        if inputs.shape[0] == 0:  # `len` would fix the batch of an exported program
            return _REFERENCE
        if asked := needs_reference(*tensors):
            if backend is not None:
                raise refuse(backend, asked)
            return _REFERENCE
    return chosen


def _choose(gating: Gating, dtype: torch.dtype, device: torch.device, backend: str | None) -> Backend:
    """The back end that was named, or the first that can run the recurrence."""
    if backend is not None:
        return _named(gating, dtype, device, backend)
    missing: list[str] = []
    for candidate in _BACKENDS.values():
        if candidate.unsupported(gating, dtype, device):
            continue
        reason = candidate.unavailable()
        if not reason:
            if missing:
                _warn_once(candidate.name, missing)
            return candidate
        missing.append(f"back end {candidate.name!r} cannot run: {reason}")
    raise AssertionError("the reference runs everything")


def _named(gating: Gating, dtype: torch.dtype, device: torch.device, backend: str) -> Backend:
    check_options(backend)
    chosen = _BACKENDS[backend]
    usable = ", ".join(
        name
        for name, other in _BACKENDS.items()
        if not other.unavailable() and not other.unsupported(gating, dtype, device)
    )
    advice = f"usable here: {usable}. Omit backend to take the fastest of these."
    if reason := chosen.unavailable():
        raise BackendError(f"backend {backend!r} cannot run on this machine: {reason}; {advice}")
    if reason := chosen.unsupported(gating, dtype, device):
        raise BackendError(f"backend {backend!r} cannot run on {reason}; {advice}")
    return chosen


def _warn_once(name: str, missing: list[str]) -> None:
    """Say once per process what makes the recurrence faster."""
    global _warned
    if _warned or torch.compiler.is_compiling():
        return
    _warned = True
    warnings.warn(
        f"the recurrence runs on the slow back end {name!r}; {'; '.join(missing)}", SlowBackendWarning, stacklevel=4
    )


def _recorded() -> bool:
    """Whether autograd or torch.jit.trace, which compares runs with and without autograd, may follow the call."""
    return torch.is_grad_enabled() or torch._C._get_tracing_state() is not None
