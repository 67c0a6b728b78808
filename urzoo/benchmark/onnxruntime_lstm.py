"""onnxruntime's LSTM operator as a contender: plain gates, the same products as torch.nn.LSTM's.

One graph of one operator serves a sequence and a single step. Data pass as NumPy arrays that share torch's memory.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import onnx

_OPSET = 18
_GIVEN = ("X", "initial_h", "initial_c")
_RESULTS = ("Y", "Y_h", "Y_c")


class OnnxLSTM(nn.Module):
    """A torch.nn.LSTM of one layer, run by onnxruntime with the threads that torch has as this is made."""

    def __init__(self, layer: nn.LSTM) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that go on spinning after a call would take the processor from the contender that comes next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 3
        content = lstm_model(layer).SerializeToString()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._hidden_size = layer.hidden_size

    def forward(self, inputs: Tensor, state: tuple[Any, Any] | None = None) -> tuple[Tensor, tuple[Any, Any]]:
        """Run over `inputs`, `(time, batch, input_size)`.

        Args:
            inputs: In float32, on the CPU.
            state: (hidden, cell), each `(1, batch, hidden_size)`, as torch has it or as given back; zeros when omitted.

        Returns:
            The outputs, `(time, batch, hidden_size)`, and the state after them, as NumPy arrays.
        """
        if state is None:
            zeros = inputs.new_zeros(1, inputs.shape[1], self._hidden_size)
            state = zeros, zeros
        values = (inputs, *state)
        given = {
            name: value.numpy() if isinstance(value, Tensor) else value
            for name, value in zip(_GIVEN, values, strict=True)
        }
        outputs, hidden, cell = self._session.run(_RESULTS, given)
        return torch.from_numpy(outputs)[:, 0], (hidden, cell)


def lstm_model(layer: nn.LSTM) -> "onnx.ModelProto":
    """A graph of one LSTM operator with the weights of `layer`, for any batch and number of steps."""
    from onnx import TensorProto, helper, numpy_helper

    def weight(name: str, *parts: Tensor) -> "onnx.TensorProto":
        # The operator's order is input, output, forget, cell; torch's is input, forget, cell, output.
        blocks = [torch.cat([part.detach().chunk(4)[index] for index in (0, 3, 1, 2)]) for part in parts]
        return numpy_helper.from_array(torch.cat(blocks)[None].numpy(), name)

    def value(name: str, *shape: str | int) -> "onnx.ValueInfoProto":
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    weights = dict(layer.named_parameters())
    size = layer.hidden_size
    node = helper.make_node("LSTM", ["X", "W", "R", "B", "", *_GIVEN[1:]], _RESULTS, hidden_size=size)
    graph = helper.make_graph(
        [node],
        "lstm",
        [value("X", "time", "batch", layer.input_size), *(value(name, 1, "batch", size) for name in _GIVEN[1:])],
        [value("Y", "time", 1, "batch", size), *(value(name, 1, "batch", size) for name in _RESULTS[1:])],
        [
            weight("W", weights["weight_ih_l0"]),
            weight("R", weights["weight_hh_l0"]),
            weight("B", weights["bias_ih_l0"], weights["bias_hh_l0"]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
