"""Who is timed: urzoo's layer on each back end, and the peers, behind one small interface.

Every layer of urzoo and ur-lstm-torch gets the same weights, so that their results can be compared before
anything is timed; torch.nn.LSTM does too where the gating is its own (`--` with a separate input gate).
Each contender is given its inputs in the layout it likes best.
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from urzoo.benchmark.shapes import Shape
from urzoo.errors import UsageError, unknown
from urzoo.nn import URGRU, URLSTM, Stream, URGRUCell, URLSTMCell
from urzoo.recurrence import Gating, backends
from urzoo.recurrence.gates import STANDARD

# Steps in one call of `Layer.decode`; entering autocast is then a small part of it, as in a generating model.
DECODED_STEPS = 16


@dataclass(frozen=True)
class Contender:
    """One layer implementation in one setting.

    `backend` is urzoo's back end, None for a peer; a "stream" is a `urzoo.nn.Stream`, which only takes steps. `dtype`
    is that of the products: "bf16" means autocast for urzoo and a layer converted to bfloat16 for torch.nn.LSTM, which
    has no autocast on a CPU.
    """

    name: str
    family: Literal["urzoo", "stream", "torch", "ur-lstm-torch", "onnxruntime"]
    dtype: Literal["fp32", "bf16"] = "fp32"
    backend: str | None = None
    save: Literal["activations", "recompute"] = "activations"


CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender("urzoo-cpu", "urzoo", backend="cpu"),
        Contender("urzoo-cpu-recompute", "urzoo", backend="cpu", save="recompute"),
        Contender("urzoo-cpu-bf16", "urzoo", dtype="bf16", backend="cpu"),
        Contender("urzoo-cpu-bf16-recompute", "urzoo", dtype="bf16", backend="cpu", save="recompute"),
        Contender("urzoo-stream", "stream", backend="cpu"),
        Contender("urzoo-stream-bf16", "stream", dtype="bf16", backend="cpu"),
        Contender("urzoo-triton", "urzoo", backend="triton"),
        Contender("urzoo-triton-bf16", "urzoo", dtype="bf16", backend="triton"),
        Contender("urzoo-reference", "urzoo", backend="reference"),
        Contender("torch-lstm", "torch"),
        Contender("torch-lstm-bf16", "torch", dtype="bf16"),
        Contender("ur-lstm-torch", "ur-lstm-torch"),
        Contender("onnxruntime-lstm", "onnxruntime"),
    )
}


def contenders_named(names: list[str] | None, device: torch.device) -> list[Contender]:
    """The contenders with these names, in the order of `CONTENDERS`; those that fit the device when None.

    Raises:
        UsageError: A name is not among `CONTENDERS`.
    """
    if names is None:
        other = "triton" if device.type == "cpu" else "cpu"
        fitting = [contender for contender in CONTENDERS.values() if contender.backend != other]
        return [each for each in fitting if each.family != "onnxruntime" or device.type == "cpu"]
    for name in names:
        if name not in CONTENDERS:
            raise UsageError(unknown("contender", name, CONTENDERS))
    return [contender for name, contender in CONTENDERS.items() if name in names]


def takes_part(contender: Contender, figure: str) -> bool:
    """Whether `figure` says anything about `contender`: what is saved matters in training, and not all train."""
    if contender.family == "stream":
        return figure == "decode"
    if contender.family == "onnxruntime":
        return figure in ("forward", "decode", "decode_layer")
    return contender.save == "activations" or figure in ("forward_backward", "memory")


def absence(contender: Contender, gating: Gating, device: torch.device) -> str:
    """Why `contender` cannot take part here, "" if it can."""
    if contender.backend is not None:
        return backends().get(contender.backend, "this back end is not part of this installation")
    if contender.family in ("torch", "onnxruntime") and gating.cell != "lstm":
        return "it is an LSTM and no GRU"
    if contender.family == "onnxruntime":
        if device.type != "cpu":
            return "it runs on the CPU only"
        if any(importlib.util.find_spec(package) is None for package in ("onnx", "onnxruntime")):
            return "not installed: pip install 'urzoo[onnx]'"
    if contender.family == "ur-lstm-torch":
        if importlib.util.find_spec("ur_lstm") is None:
            return "not installed: pip install --no-deps ur-lstm-torch"
        if gating != Gating():
            return "it has the tied UR-LSTM only"
    return ""


def comparable(contender: Contender, gating: Gating) -> bool:
    """Whether `contender` computes the same function of the same weights as urzoo's layer."""
    if contender.family in ("torch", "onnxruntime"):
        return gating == Gating(STANDARD, tie_input_gate=False)
    return True


class Workload:
    """The weights, the inputs and the upstream gradient that all contenders of one shape share.

    Attributes:
        inputs: Standard normal, `(batch, time, input_size)`.
        upstream: The gradient of every output, `(batch, time, hidden_size)`: training reaches all steps.
        weights: By name as in `urzoo.nn`, of the one layer, without the suffix of the layer.
    """

    def __init__(self, shape: Shape, gating: Gating, device: torch.device, *, seed: int = 0) -> None:
        self.shape, self.gating, self.device = shape, gating, device
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(shape.batch, shape.time, shape.input_size, generator=generator).to(device)
        self.upstream = torch.randn(shape.batch, shape.time, shape.hidden_size, generator=generator).to(device)
        drawn = _drawn_weights(dataclasses.replace(shape, name="", batch=1), gating, seed)
        self.weights = {name: value.to(device, copy=True) for name, value in drawn.items()}


@functools.lru_cache(4)
def _drawn_weights(shape: Shape, gating: Gating, seed: int) -> dict[str, Tensor]:
    """Drawing large weights takes longer than a short figure."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = urzoo_layer(gating, shape, backend="reference", save="activations")
    return {name.removesuffix("_l0"): value.detach() for name, value in layer.named_parameters()}


class Layer:
    """A contender built for a workload, with the things that are timed."""

    def __init__(self, contender: Contender, workload: Workload) -> None:
        self.contender, self.workload = contender, workload
        shape, device = workload.shape, workload.device
        converted = torch.bfloat16 if contender.family == "torch" and contender.dtype == "bf16" else torch.float32
        with self._autocast():  # a stream packs its weights as it is made
            self._module, self._single = _BUILDERS[contender.family](contender, workload)
        self._module.to(device, converted)
        self._single.to(device, converted)
        self._inputs = self.swapped(workload.inputs).to(converted)
        self._upstream = self.swapped(workload.upstream).to(converted)
        self._token = workload.inputs[:1, 0].to(converted)
        self._piece = self._token[None]
        zeros = torch.zeros(1, shape.hidden_size, device=device, dtype=converted)
        self._state = zeros if workload.gating.cell == "gru" else (zeros, zeros)

    def forward(self) -> Tensor:
        """One forward pass without gradients; returns the outputs in the contender's own layout."""
        with torch.no_grad(), self._autocast():
            outputs: Tensor = self._module(self._inputs)[0]
            return outputs

    def train(self) -> dict[str, Tensor]:
        """One forward and backward pass; returns the gradients by parameter, and of "inputs" where the shape asks."""
        wanted: dict[str, Tensor] = dict(self._module.named_parameters())
        inputs = self._inputs
        if self.workload.shape.input_gradient:
            inputs = inputs.detach().requires_grad_()
            wanted["inputs"] = inputs
        with self._autocast():
            outputs = self._module(inputs)[0]
        gradients = torch.autograd.grad(outputs, list(wanted.values()), self._upstream.to(outputs.dtype))
        return dict(zip(wanted, gradients, strict=True))

    def decode(self) -> object:
        """`DECODED_STEPS` single steps of one sequence without gradients; returns the state after them."""
        if self.contender.family == "onnxruntime":  # which has no cell
            return self.decode_layer()
        state = self._state
        with torch.no_grad(), self._autocast():
            for _ in range(DECODED_STEPS):
                state = self._advance(self._token, state)
        return state

    def decode_layer(self) -> object:
        """The same with a call of the layer for every step, in place of the cell."""
        state = self._state[None] if isinstance(self._state, Tensor) else tuple(part[None] for part in self._state)
        with torch.no_grad(), self._autocast():
            for _ in range(DECODED_STEPS):
                _, state = self._module(self._piece, state)
        return state

    def swapped(self, tensor: Tensor) -> Tensor:
        """`tensor` with batch and time as this contender likes them; peers take the time first, as is their default."""
        return tensor if self.contender.family in ("urzoo", "stream") else tensor.transpose(0, 1).contiguous()

    def _advance(self, token: Tensor, state: Any) -> Any:
        result = self._single(token, state)
        # ur-lstm-torch's cell returns its output besides the state.
        return result[1] if self.contender.family == "ur-lstm-torch" else result

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.contender.family not in ("urzoo", "stream") or self.contender.dtype == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.workload.device.type, torch.bfloat16)


def urzoo_layer(gating: Gating, shape: Shape, *, backend: str | None, save: str) -> URLSTM | URGRU:
    """urzoo's layer of one gating for one shape, with the initialisation it has by default."""
    kind = URGRU if gating.cell == "gru" else URLSTM
    sizes, longest = (shape.input_size, shape.hidden_size), max_time(gating, shape)
    return kind(*sizes, batch_first=True, max_time=longest, backend=backend, save=save, **gating.options)


def max_time(gating: Gating, shape: Shape) -> int | None:
    """The longest dependency in a shape's sequences, where the gating asks for it."""
    return shape.time + 1 if gating.uses_max_time else None


def _urzoo(contender: Contender, workload: Workload) -> tuple[URLSTM | URGRU, nn.Module]:
    shape, gating = workload.shape, workload.gating
    kind = URGRUCell if gating.cell == "gru" else URLSTMCell
    sizes, longest = (shape.input_size, shape.hidden_size), max_time(gating, shape)
    with torch.device("meta"):  # the weights come from the workload: none is drawn
        layer = urzoo_layer(gating, shape, backend=contender.backend, save=contender.save)
        cell = kind(*sizes, max_time=longest, backend=contender.backend, **gating.options)
    for module, suffix in ((layer, "_l0"), (cell, "")):
        weights = {f"{name}{suffix}": value.clone() for name, value in workload.weights.items()}
        module.load_state_dict(weights, assign=True)
    return layer, cell


class _Streaming(nn.Module):
    """A `Stream` that is called as a cell; it carries the state itself."""

    def __init__(self, layer: URLSTM | URGRU) -> None:
        super().__init__()
        self._stream = Stream(layer)

    def forward(self, inputs: Tensor, state: Any) -> Any:
        self._stream(inputs)
        return state


def _streaming(contender: Contender, workload: Workload) -> tuple[nn.Module, nn.Module]:
    layer, _ = _urzoo(contender, workload)
    return layer, _Streaming(layer)


def _torch(contender: Contender, workload: Workload) -> tuple[nn.LSTM, nn.Module]:  # noqa: ARG001 - one signature
    shape = workload.shape
    layer = nn.LSTM(shape.input_size, shape.hidden_size)
    # torch.nn.LSTM takes 4 ms for one step of 512 units on a CPU, its cell 0.2 ms: the better one competes.
    cell = nn.LSTMCell(shape.input_size, shape.hidden_size)
    if workload.gating == Gating(STANDARD, tie_input_gate=False):
        weights = {
            "weight_ih": workload.weights["weight_ih"],
            "weight_hh": workload.weights["weight_hh"],
            "bias_ih": workload.weights["bias"],
            "bias_hh": torch.zeros_like(workload.weights["bias"]),
        }
        cell.load_state_dict(weights)
        layer.load_state_dict({f"{name}_l0": value for name, value in weights.items()})
    return layer, cell


def _onnxruntime(contender: Contender, workload: Workload) -> tuple[nn.Module, nn.Module]:
    from urzoo.benchmark.onnxruntime_lstm import OnnxLSTM

    module = OnnxLSTM(_torch(contender, workload)[0])
    return module, module


def _ur_lstm_torch(contender: Contender, workload: Workload) -> tuple[nn.Module, nn.Module]:  # noqa: ARG001
    package = importlib.import_module("ur_lstm")
    shape = workload.shape
    layer: nn.Module = package.URLSTM(shape.input_size, shape.hidden_size)
    cell: nn.Module = package.URLSTMCell(shape.input_size, shape.hidden_size)
    weights = {
        "igates.weight": workload.weights["weight_ih"],
        "igates.bias": workload.weights["bias"],
        "hgates.weight": workload.weights["weight_hh"],
        "hgates.bias": torch.zeros_like(workload.weights["bias"]),
        "forget_bias": workload.weights["forget_bias"],
    }
    cell.load_state_dict(weights)
    layer.load_state_dict({f"layers.0.{name}": value for name, value in weights.items()})
    return layer, cell


_BUILDERS: dict[str, Callable[[Contender, Workload], tuple[nn.Module, nn.Module]]] = {
    "urzoo": _urzoo,
    "stream": _streaming,
    "torch": _torch,
    "ur-lstm-torch": _ur_lstm_torch,
    "onnxruntime": _onnxruntime,
}
