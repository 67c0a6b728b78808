"""A graph of ONNX operators, built by ordinary arithmetic on its values.

`Value` also answers the few functions of torch that `urzoo.recurrence.gates` is written in, so that the equations of a
gating are taken from there and stand nowhere twice; one that uses another function is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from urzoo.errors import UsageError

OPSET = 18
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

Operand = Union["Value", float, int]
Dimensions = Sequence[int | str | None]


class Graph:
    """Nodes under construction; a body of a loop sees the values of the graph around it.

    Args:
        around: The graph that this is the body of a loop in.
    """

    def __init__(self, around: "Graph | None" = None) -> None:
        self.depth: int = 0 if around is None else around.depth + 1
        self.root: Graph = self if around is None else around.root
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        if around is None:
            self.initializers: dict[str, onnx.TensorProto] = {}
            self.constants: dict[tuple[Any, ...], str] = {}
            self.count = 0

    def input(self, name: str, kind: int, shape: Dimensions, default: NDArray[np.float32] | None = None) -> "Value":
        """A value that is given when the graph runs; one with a default may be left out."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        if default is not None:
            self.root.initializers[name] = numpy_helper.from_array(default, name)
        return Value(self, name)

    def output(self, value: "Value", name: str, kind: int, shape: Dimensions) -> None:
        """Give a value out under a name."""
        self.nodes.append(helper.make_node("Identity", [value.name], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def weight(self, tensor: Tensor, name: str) -> "Value":
        """A parameter of the model, in float32."""
        array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        self.root.initializers.setdefault(name, numpy_helper.from_array(array, name))
        return Value(self.root, name)

    def constant(self, value: object, dtype: type[np.generic] = np.int64) -> "Value":
        """A fixed number or list of numbers."""
        array = np.asarray(value, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.root.constants:
            name = self.new_name("constant")
            self.root.initializers[name] = numpy_helper.from_array(array, name)
            self.root.constants[key] = name
        return Value(self.root, self.root.constants[key])

    def new_name(self, kind: str) -> str:
        """A name that no other value has."""
        self.root.count += 1
        return f"{kind.lower()}_{self.root.count}"

    def results(self, operator: str, *inputs: "Value", count: int = 1, **attributes: Any) -> list["Value"]:
        """The values that an operator gives."""
        names = [self.new_name(operator) for _ in range(count)]
        self.nodes.append(helper.make_node(operator, [value.name for value in inputs], names, **attributes))
        return [Value(self, name) for name in names]

    def __call__(self, operator: str, *inputs: "Value", **attributes: Any) -> "Value":
        """The one value that an operator gives."""
        return self.results(operator, *inputs, **attributes)[0]

    def proto(self, name: str) -> onnx.GraphProto:
        """The finished graph; all fixed values stand in the outermost."""
        fixed = list(self.initializers.values()) if self.root is self else []
        return helper.make_graph(self.nodes, name, self.inputs, self.outputs, fixed)


class Value:
    """A tensor that the graph computes, of float32 unless said otherwise."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.name = name

    def __add__(self, other: Operand) -> "Value":
        return _two("Add", self, other)

    def __radd__(self, other: Operand) -> "Value":
        return _two("Add", other, self)

    def __sub__(self, other: Operand) -> "Value":
        return _two("Sub", self, other)

    def __rsub__(self, other: Operand) -> "Value":
        return _two("Sub", other, self)

    def __mul__(self, other: Operand) -> "Value":
        return _two("Mul", self, other)

    def __rmul__(self, other: Operand) -> "Value":
        return _two("Mul", other, self)

    def __matmul__(self, other: "Value") -> "Value":
        return _two("MatMul", self, other)

    def chunk(self, chunks: int, dim: int = -1) -> list["Value"]:
        """As torch's, of a size that `chunks` divides."""
        return self.graph.results("Split", self, count=chunks, axis=dim, num_outputs=chunks)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> "Value":
        if func not in _OF_TORCH:
            raise UsageError(f"torch.{getattr(func, '__name__', func)} of a gating has no form in ONNX here.")
        return _OF_TORCH[func](*args, **(kwargs or {}))


def _two(operator: str, left: Operand, right: Operand) -> Value:
    given = [value for value in (left, right) if isinstance(value, Value)]
    # In the body of a loop, if either is of it.
    graph = max((value.graph for value in given), key=lambda graph: graph.depth)
    values = [value if isinstance(value, Value) else graph.constant(value, np.float32) for value in (left, right)]
    return graph(operator, *values)


_OF_TORCH: dict[Callable[..., Any], Callable[..., Value]] = {
    torch.sigmoid: lambda value: value.graph("Sigmoid", value),
    torch.tanh: lambda value: value.graph("Tanh", value),
    torch.softmax: lambda value, dim: value.graph("Softmax", value, axis=dim),
    torch.cumsum: lambda value, dim: value.graph("CumSum", value, value.graph.constant(dim)),
}
