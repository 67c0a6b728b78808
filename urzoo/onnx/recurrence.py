"""The recurrence as the operator `Scan`: one product for the inputs of all steps, then a body that runs once a step."""

from typing import Any

from torch import Tensor

from urzoo.onnx.graph import BOOL, FLOAT, Graph, Value
from urzoo.recurrence.gates import Gating, complete_bias, gru_gates, lstm_update

# Functions of tensors, and of whatever answers to the same functions of torch.
_lstm_update: Any = lstm_update
_gru_gates: Any = gru_gates

Parameters = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def recurrence(
    graph: Graph,
    inputs: Value,
    parameters: Parameters,
    gating: Gating,
    state: list[Value],
    *,
    mask: Value | None,
    reverse: bool,
    name: str,
) -> tuple[Value, list[Value]]:
    """One layer in one direction.

    Args:
        graph: Takes the nodes.
        inputs: `(batch, time, input_size)`.
        parameters: Input weight, recurrent weight, bias and gate bias, as `urzoo.recurrence.scan` takes them.
        gating: What the cell computes.
        state: Before the first step, each part `(batch, hidden)`.
        mask: bool, `(batch, time, 1)`: the state passes unchanged through steps where it is False. None: all count.
        reverse: Time runs from the last step to the first.
        name: What the weights are called.

    Returns:
        The outputs `(batch, time, hidden)` and the parts of the state after the last step.
    """
    input_weight, recurrent_weight, bias, gate_bias = (
        None if tensor is None else tensor.detach().float() for tensor in parameters
    )
    assert input_weight is not None
    assert recurrent_weight is not None
    hidden_size = recurrent_weight.shape[1]
    # Each gate adds its bias or subtracts it before anything else is done, so it joins the bias of the inputs.
    complete = complete_bias(gating, bias, gate_bias)
    projected = inputs @ graph.weight(input_weight.T, f"{name}.weight_ih")
    if complete is not None:
        projected = projected + graph.weight(complete, f"{name}.bias")

    body = Graph(around=graph)
    labels = ("hidden", "cell")[: len(state)]
    before = [body.input(graph.new_name(label), FLOAT, [None, hidden_size]) for label in labels]
    step = body.input(graph.new_name("step"), FLOAT, [None, input_weight.shape[0]])
    real = None if mask is None else body.input(graph.new_name("real"), BOOL, [None, 1])
    after = _step(body, step, recurrent_weight, gating, before, name)
    if real is not None:
        after = [body("Where", real, new, old) for new, old in zip(after, before, strict=True)]
    for value, label in zip([*after, after[0]], [*labels, "output"], strict=True):
        body.output(value, graph.new_name(label), FLOAT, [None, hidden_size])

    over_time = [projected] if mask is None else [projected, mask]
    *final, outputs = graph.results(
        "Scan",
        *state,
        *over_time,
        count=len(state) + 1,
        body=body.proto(f"{name}.step"),
        num_scan_inputs=len(over_time),
        scan_input_axes=[1] * len(over_time),
        scan_output_axes=[1],
        scan_input_directions=[int(reverse)] * len(over_time),
        scan_output_directions=[int(reverse)],
    )
    return outputs, final


def _step(
    body: Graph, projected: Value, recurrent_weight: Tensor, gating: Gating, state: list[Value], name: str
) -> list[Value]:
    hidden = state[0]
    if gating.cell == "lstm":
        weight = body.weight(recurrent_weight.T, f"{name}.weight_hh")
        after = _lstm_update(gating, projected + hidden @ weight, None, state[1])
        return list(after)
    size = recurrent_weight.shape[1]
    gates = len(gating.blocks) - 1
    of_gates, of_candidate = body.results("Split", projected, body.constant([gates * size, size]), count=2, axis=-1)
    weight = body.weight(recurrent_weight[: gates * size].T, f"{name}.weight_hh.gates")
    reset, update = _gru_gates(gating, of_gates + hidden @ weight, None)
    recalled = (reset * hidden) @ body.weight(recurrent_weight[gates * size :].T, f"{name}.weight_hh.candidate")
    candidate = body("Tanh", of_candidate + recalled)
    return [(1.0 - update) * hidden + update * candidate]
