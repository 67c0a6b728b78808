"""The two passes over a sequence as calls of the library, and their form that recomputes instead of saving.

Recomputing cuts the sequence into segments. The forward pass keeps the cell at the start of each (the hidden
states are known from the outputs); the backward pass runs each segment forward again before it goes back
through it, so that the activations of one segment only are alive.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from urzoo.recurrence.cpu.library import current
from urzoo.recurrence.cpu.memory import empty

SEGMENT_STEPS = 16
SHARED_WEIGHTS = 1 << 23
"""With fewer weights than this a single step is over before another thread has woken."""


@dataclass(frozen=True)
class Kind:
    """Which LSTM it is, and in which direction time runs."""

    tied: bool
    refined: bool
    reverse: bool

    @property
    def gates(self) -> int:
        """The number of row blocks of the weights."""
        return 3 + (not self.tied) + self.refined


@dataclass(frozen=True)
class Sequence:
    """The arguments of a scan, all contiguous; the bias holds the gate bias too."""

    inputs: Tensor
    input_weight: Tensor
    recurrent_weight: Tensor
    bias: Tensor | None
    hidden: Tensor
    cell: Tensor
    mask: Tensor | None

    def segment(self, times: slice, hidden: Tensor, cell: Tensor) -> "Sequence":
        """A part of the time, from the given state on."""
        mask = None if self.mask is None else self.mask[:, times].contiguous()
        inputs = self.inputs[:, times].contiguous()
        return Sequence(inputs, self.input_weight, self.recurrent_weight, self.bias, hidden, cell, mask)


def saved_shape(inputs: Tensor, hidden: Tensor, kind: Kind, save: str) -> tuple[int, ...]:
    """The shape of what the forward pass keeps for the backward pass; nothing if `save` is "nothing"."""
    batch, time, _ = inputs.shape
    if save == "nothing":
        return (0,)
    if save == "recompute":
        return (-(-time // SEGMENT_STEPS), *hidden.shape)
    width = current().width
    return (time, -(-hidden.shape[1] // width), batch, kind.gates + 1, width)


def forward(sequence: Sequence, kind: Kind, save: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs, final hidden state, final cell, and what `save` says is kept."""
    outputs = empty(*sequence.inputs.shape[:2], sequence.hidden.shape[1])
    saved = empty(*saved_shape(sequence.inputs, sequence.hidden, kind, save))
    if save != "recompute":
        return outputs, *_run_forward(sequence, kind, outputs, None if save == "nothing" else saved), saved
    hidden, cell = sequence.hidden, sequence.cell
    for index, times in enumerate(_segments(sequence, kind)):
        saved[index] = cell
        part = empty(sequence.inputs.shape[0], times.stop - times.start, hidden.shape[1])
        hidden, cell = _run_forward(sequence.segment(times, hidden, cell), kind, part, None)
        outputs[:, times] = part
    return outputs, hidden, cell, saved


def backward(
    sequence: Sequence,
    kind: Kind,
    save: str,
    outputs: Tensor,
    saved: Tensor,
    grads: tuple[Tensor | None, Tensor | None, Tensor | None],
    *,
    wants_inputs: bool,
) -> list[Tensor]:
    """Gradients of inputs (empty unless wanted), input weight, recurrent weight, bias, hidden and cell."""
    if save != "recompute":
        return _run_backward(sequence, kind, outputs, saved, grads, wants_inputs=wants_inputs)
    outputs_grad, hidden_grad, cell_grad = grads
    inputs_grad = empty(*sequence.inputs.shape) if wants_inputs else torch.empty(0)
    sums: list[Tensor] = []
    segments = _segments(sequence, kind)
    for index in reversed(range(len(segments))):
        times = segments[index]
        before = sequence.hidden if index == 0 else outputs[:, times.stop if kind.reverse else times.start - 1]
        segment = sequence.segment(times, before.contiguous(), saved[index])
        part, _, _, activations = forward(segment, kind, "activations")
        part_grad = None if outputs_grad is None else outputs_grad[:, times].contiguous()
        found = _run_backward(
            segment, kind, part, activations, (part_grad, hidden_grad, cell_grad), wants_inputs=wants_inputs
        )
        if wants_inputs:
            inputs_grad[:, times] = found[0]
        sums = found[1:4] if not sums else [total.add_(more) for total, more in zip(sums, found[1:4], strict=True)]
        hidden_grad, cell_grad = found[4:]
    assert hidden_grad is not None
    assert cell_grad is not None
    return [inputs_grad, *sums, hidden_grad, cell_grad]


def step(sequence: Sequence, kind: Kind) -> tuple[Tensor, Tensor]:
    """Hidden state and cell after the one step of the sequence, without the packing that a sequence begins with."""
    final_hidden, final_cell = torch.empty_like(sequence.hidden), torch.empty_like(sequence.cell)
    arguments = _common(sequence, kind)
    if sequence.recurrent_weight.numel() < SHARED_WEIGHTS:
        arguments["threads"] = 1
    current().run("step", **arguments, final_hidden=final_hidden, final_cell=final_cell)
    return final_hidden, final_cell


def _segments(sequence: Sequence, kind: Kind) -> list[slice]:
    """The times of the segments, in the order in which the scan comes through them."""
    time = sequence.inputs.shape[1]
    steps = [(first, min(first + SEGMENT_STEPS, time)) for first in range(0, time, SEGMENT_STEPS)]
    return [slice(time - last, time - first) if kind.reverse else slice(first, last) for first, last in steps]


def _common(sequence: Sequence, kind: Kind) -> dict[str, Tensor | int | None]:
    batch, time, input_size = sequence.inputs.shape
    return {
        "batch": batch,
        "time": time,
        "input_size": input_size,
        "hidden_size": sequence.hidden.shape[1],
        **vars(kind),
        **vars(sequence),
        "threads": torch.get_num_threads(),
    }


def _run_forward(sequence: Sequence, kind: Kind, outputs: Tensor, saved: Tensor | None) -> tuple[Tensor, Tensor]:
    final_hidden, final_cell = torch.empty_like(sequence.hidden), torch.empty_like(sequence.cell)
    results = {"outputs": outputs, "final_hidden": final_hidden, "final_cell": final_cell, "saved": saved}
    current().run("forward", **_common(sequence, kind), **results)
    return final_hidden, final_cell


def _run_backward(
    sequence: Sequence,
    kind: Kind,
    outputs: Tensor,
    saved: Tensor,
    grads: tuple[Tensor | None, Tensor | None, Tensor | None],
    *,
    wants_inputs: bool,
) -> list[Tensor]:
    results = {
        "inputs_grad": empty(*sequence.inputs.shape) if wants_inputs else None,
        "input_weight_grad": empty(*sequence.input_weight.shape),
        "recurrent_weight_grad": empty(*sequence.recurrent_weight.shape),
        "bias_grad": torch.empty(sequence.input_weight.shape[0]),
        "hidden_grad": torch.empty_like(sequence.hidden),
        "cell_grad": torch.empty_like(sequence.cell),
    }
    upstream = dict(zip(("outputs_grad", "final_hidden_grad", "final_cell_grad"), grads, strict=True))
    current().run("backward", **_common(sequence, kind), outputs=outputs, saved=saved, **upstream, **results)
    return [torch.empty(0) if result is None else result for result in results.values()]
