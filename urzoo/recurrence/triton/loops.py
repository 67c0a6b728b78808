"""The loops over time: two launches a step for the LSTM, four for the GRU, on tensors allocated beforehand.

Tensors are time-major, so that every step is one contiguous matrix. `carries` is indexed by the number of steps
done, everything else by time. Nothing is allocated within a loop, so that a CUDA graph can record it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from urzoo.recurrence.kind import Kind
from urzoo.recurrence.triton import kernels

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Scan:
    """Everything that decides which launches a loop makes; hashable, the key of a recorded graph."""

    batch: int
    time: int
    hidden_size: int
    kind: Kind
    masked: bool
    save: bool
    device: torch.device

    @property
    def gru(self) -> bool:
        """Whether it is a GRU."""
        return self.kind.gru

    @property
    def tied(self) -> bool:
        """Whether the input gate is one less the forget gate."""
        return self.kind.gating.tie_input_gate

    @property
    def refined(self) -> bool:
        """Whether there is a refine gate."""
        return self.kind.gating.auxiliary == "R"

    @property
    def blocks(self) -> int:
        """Number of row blocks in the weights."""
        return len(self.kind.gating.blocks)

    @property
    def rounds(self) -> bool:
        """Whether the factors of products have fewer digits than the arithmetic between them."""
        return self.kind.dtype != torch.float32

    @property
    def order(self) -> range:
        """The times in the order in which they are run."""
        return range(self.time - 1, -1, -1) if self.kind.reverse else range(self.time)

    def shapes(self, *, backward: bool) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of every tensor of a loop."""
        batch, time, hidden = self.batch, self.time, self.hidden_size
        width, exact = self.blocks * hidden, torch.float32
        kept = time if self.save else 1
        shapes = {
            "recurrent_weight": ((width, hidden), self.kind.dtype),
            "mask": ((time, batch) if self.masked else (1, 1), torch.uint8),
            "gates": ((time, batch, width), exact),
            "carries": ((kept + 1, batch, hidden), exact),
        }
        if not backward:
            return shapes | {
                "hidden": ((batch, hidden), self.kind.dtype),
                "outputs": ((time, batch, hidden), self.kind.dtype),
                "recalled": ((kept, batch, hidden) if self.gru else (0,), self.kind.dtype),
                "product": ((batch, width - hidden * self.gru), exact),
                "recalled_product": ((batch, hidden) if self.gru else (0,), exact),
                "update": ((batch, hidden) if self.gru else (0,), exact),
            }
        return shapes | {
            "outputs_grad": ((time, batch, hidden), self.kind.dtype),
            "hidden_grad": ((batch, hidden), exact),
            "passed_grad": ((batch, hidden), exact),
            "cell_grad": ((0,) if self.gru else (batch, hidden), exact),
            "preactivations_grad": ((time, batch, width), self.kind.dtype),
            "sums": ((batch, width) if self.rounds else (1, 1), exact),
            "recalled_grad": ((batch, hidden) if self.gru else (0,), exact),
        }


def multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """A product accumulated and stored in float32, whatever the dtype of the factors."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    elif left.is_cuda and torch.version.cuda is not None:
        torch.mm(left, right, out_dtype=out.dtype, out=out)
    else:
        torch.mm(left.to(out.dtype), right.to(out.dtype), out=out)


def forward(scan: Scan, tensors: Tensors) -> None:
    """Run all steps: gates (projection in, activations out), outputs, carries, recalled."""
    step = _gru_forward if scan.gru else _lstm_forward
    hidden = tensors["hidden"]
    for done, time in enumerate(scan.order):
        before, after = (done, done + 1) if scan.save else (done % 2, (done + 1) % 2)
        step(scan, tensors, time, hidden, tensors["carries"][before], tensors["carries"][after])
        hidden = tensors["outputs"][time]


def backward(scan: Scan, tensors: Tensors) -> None:
    """Differentiate all steps: preactivations_grad out, in a 16-bit dtype also their sums over time.

    The gradients of the initial state end in the running ones: hidden_grad plus passed_grad, and cell_grad.
    """
    step = _gru_backward if scan.gru else _lstm_backward
    for done, time in reversed(list(enumerate(scan.order))):
        step(scan, tensors, time, tensors["carries"][done], tensors["carries"][done + 1])


def _grid(scan: Scan) -> tuple[int]:
    return (-(-scan.batch * scan.hidden_size // kernels.BLOCK),)


def _mask(scan: Scan, tensors: Tensors, time: int) -> Tensor:
    return tensors["mask"][time if scan.masked else 0]


def _lstm_forward(
    scan: Scan, tensors: Tensors, time: int, hidden: Tensor, cell_before: Tensor, cell_after: Tensor
) -> None:
    multiply(hidden, tensors["recurrent_weight"].t(), tensors["product"])
    kernels.lstm_forward[_grid(scan)](
        tensors["product"],
        tensors["gates"][time],
        hidden,
        cell_before,
        tensors["outputs"][time],
        cell_after,
        _mask(scan, tensors, time),
        scan.batch,
        scan.hidden_size,
        TIED=scan.tied,
        REFINED=scan.refined,
        MASKED=scan.masked,
        SAVE=scan.save,
        BLOCK=kernels.BLOCK,
        enable_fp_fusion=True,  # Triton's default so far, on which it warns while it is changing
    )


def _lstm_backward(scan: Scan, tensors: Tensors, time: int, cell_before: Tensor, cell_after: Tensor) -> None:
    kernels.lstm_backward[_grid(scan)](
        tensors["gates"][time],
        cell_before,
        cell_after,
        tensors["outputs_grad"][time],
        tensors["hidden_grad"],
        tensors["passed_grad"],
        tensors["cell_grad"],
        tensors["preactivations_grad"][time],
        tensors["sums"],
        _mask(scan, tensors, time),
        scan.batch,
        scan.hidden_size,
        TIED=scan.tied,
        REFINED=scan.refined,
        MASKED=scan.masked,
        SUM=scan.rounds,
        BLOCK=kernels.BLOCK,
        enable_fp_fusion=True,
    )
    multiply(tensors["preactivations_grad"][time], tensors["recurrent_weight"], tensors["hidden_grad"])


def _gru_forward(
    scan: Scan, tensors: Tensors, time: int, hidden: Tensor, carry_before: Tensor, carry_after: Tensor
) -> None:
    gate_rows = (scan.blocks - 1) * scan.hidden_size
    recalled = tensors["recalled"][time if scan.save else 0]
    multiply(hidden, tensors["recurrent_weight"][:gate_rows].t(), tensors["product"])
    kernels.gru_gates_forward[_grid(scan)](
        tensors["product"],
        tensors["gates"][time],
        carry_before,
        recalled,
        tensors["update"],
        scan.batch,
        scan.hidden_size,
        REFINED=scan.refined,
        SAVE=scan.save,
        BLOCK=kernels.BLOCK,
        enable_fp_fusion=True,
    )
    multiply(recalled, tensors["recurrent_weight"][gate_rows:].t(), tensors["recalled_product"])
    kernels.gru_candidate_forward[_grid(scan)](
        tensors["recalled_product"],
        tensors["gates"][time],
        tensors["update"],
        carry_before,
        carry_after,
        tensors["outputs"][time],
        _mask(scan, tensors, time),
        scan.batch,
        scan.hidden_size,
        REFINED=scan.refined,
        MASKED=scan.masked,
        SAVE=scan.save,
        BLOCK=kernels.BLOCK,
        enable_fp_fusion=True,
    )


def _gru_backward(scan: Scan, tensors: Tensors, time: int, carry_before: Tensor, _: Tensor) -> None:
    gate_rows = (scan.blocks - 1) * scan.hidden_size
    gradient = tensors["preactivations_grad"][time]
    kernels.gru_candidate_backward[_grid(scan)](
        tensors["gates"][time],
        carry_before,
        tensors["outputs_grad"][time],
        tensors["hidden_grad"],
        tensors["passed_grad"],
        gradient,
        tensors["sums"],
        _mask(scan, tensors, time),
        scan.batch,
        scan.hidden_size,
        REFINED=scan.refined,
        MASKED=scan.masked,
        SUM=scan.rounds,
        BLOCK=kernels.BLOCK,
        enable_fp_fusion=True,
    )
    multiply(gradient[:, gate_rows:], tensors["recurrent_weight"][gate_rows:], tensors["recalled_grad"])
    kernels.gru_reset_backward[_grid(scan)](
        tensors["gates"][time],
        carry_before,
        tensors["recalled_grad"],
        tensors["passed_grad"],
        gradient,
        tensors["sums"],
        scan.batch,
        scan.hidden_size,
        REFINED=scan.refined,
        SUM=scan.rounds,
        BLOCK=kernels.BLOCK,
        enable_fp_fusion=True,
    )
    multiply(gradient[:, :gate_rows], tensors["recurrent_weight"][:gate_rows], tensors["hidden_grad"])
