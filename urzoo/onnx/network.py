"""urzoo's models as ONNX graphs, read from their weights: embedding, layers, heads.

What a model computes stands in `urzoo.models`; here it is written down again for another machine, so `check.py`
compares the two before a file is written.
"""

from dataclasses import dataclass

import numpy as np
from torch import nn

from urzoo.errors import UsageError
from urzoo.models.causal_lm_urlstm import URLSTMForCausalLM
from urzoo.models.classification_urlstm import (
    ClassificationHead,
    URLSTMForImageClassification,
    URLSTMForSequenceClassification,
)
from urzoo.models.modeling_urlstm import URLSTMLayer, URLSTMModel, layer_input_size
from urzoo.nn import URGRU, URLSTM
from urzoo.nn.parameters import parameters_of
from urzoo.nn.stack import Stack
from urzoo.onnx.graph import BOOL, FLOAT, INT64, Graph, Value
from urzoo.onnx.output import adaptive
from urzoo.onnx.recurrence import recurrence

Head = URLSTMForCausalLM | URLSTMForSequenceClassification | URLSTMForImageClassification
HEADS = (URLSTMForCausalLM, URLSTMForSequenceClassification, URLSTMForImageClassification)

_PARTS = ("hidden", "cell")
_KNOWN = {
    *(*HEADS, URLSTMModel, URLSTMLayer, URLSTM, URGRU, ClassificationHead),
    *(nn.Linear, nn.Embedding, nn.LayerNorm, nn.Identity, nn.Dropout, nn.ModuleList),
}


@dataclass
class Network:
    """What is under a head: the layers' outputs, and what was asked and given out on the way.

    Args:
        graph: All of it.
        mask: bool, `(batch, time)`, if the model takes one.
        states: The last layer's outputs, normalised, `(batch, time, size)`.
    """

    graph: Graph
    mask: Value | None
    states: Value


def build(model: Head | Stack) -> Graph:
    """The graph of a model in evaluation mode, or of a layer of `urzoo.nn`.

    Raises:
        UsageError: A part of the model was replaced or wrapped, so that its weights alone do not say what it computes.
    """
    for name, module in model.named_modules():
        if type(module) not in _KNOWN:
            raise UsageError(
                f"{name or 'model'} is a {type(module).__name__}, which has no form in ONNX here; merge what wraps it "
                "into the model first, as peft's merge_and_unload() does."
            )
    if isinstance(model, Stack):
        return _stack(model)
    if isinstance(model, URLSTMForCausalLM):
        return _causal_lm(model)
    return _classifier(model)


def _causal_lm(model: URLSTMForCausalLM) -> Graph:
    network = _network(model.model, "input_ids", masked=True, given="always")
    graph, hidden = network.graph, _linear(network.graph, model.projection, network.states, "projection")
    # By its name in the file, so that weights which are tied stand there once.
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    words = graph.weight(model.lm_head.weight, "embed_tokens.weight" if tied else "lm_head.weight")
    scores = hidden @ graph("Transpose", words, perm=[1, 0]) + graph.weight(model.lm_head.bias, "lm_head.bias")
    if model.clusters is not None:
        scores = adaptive(graph, scores, _linear(graph, model.clusters, hidden, "clusters"), model._cutoffs())
    graph.output(scores, "logits", FLOAT, ["batch", "time", model.lm_head.weight.shape[0]])
    return graph


def _classifier(model: URLSTMForSequenceClassification | URLSTMForImageClassification) -> Graph:
    config = model.config
    # A mean or a maximum is over the steps of one call, so that pieces would not give what the whole does.
    given = "optionally" if list(config.pooling) == ["last"] else "never"
    if isinstance(model, URLSTMForImageClassification):
        network = _network(model.model, "pixel_values", masked=False, given=given)
    else:
        name = "inputs_embeds" if config.vocab_size is None else "input_ids"
        network = _network(model.model, name, masked=True, given=given)
    graph = network.graph
    parts = [_pooled(network, name, bidirectional=config.bidirectional) for name in config.pooling]
    pooled = parts[0] if len(parts) == 1 else graph("Concat", *parts, axis=-1)
    if model.head.dense is not None:
        pooled = graph("Relu", _linear(graph, model.head.dense, pooled, "head.dense"))
    scores = _linear(graph, model.head.out_proj, pooled, "head.out_proj")
    graph.output(scores, "logits", FLOAT, ["batch", model.head.out_proj.out_features])
    return graph


def _network(model: URLSTMModel, name: str, *, masked: bool, given: str) -> Network:
    """The layers over an input of this name, and over `attention_mask` if `masked`; `given` as for `_State`."""
    config, graph = model.config, Graph()
    if name == "input_ids":
        assert isinstance(model.embed_tokens, nn.Embedding)
        ids = graph.input(name, INT64, ["batch", "time"])
        inputs = graph("Gather", graph.weight(model.embed_tokens.weight, "embed_tokens.weight"), ids)
    else:
        inputs = graph.input(name, FLOAT, ["batch", "time", layer_input_size(config)])
    mask = None
    if masked:
        mask = graph("Cast", graph.input("attention_mask", INT64, ["batch", "time"]), to=BOOL)
        real = graph("Unsqueeze", mask, graph.constant([2]))
        inputs = graph("Where", real, inputs, graph.constant(0, np.float32))
    batch = graph("Shape", inputs, start=0, end=1)
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, URLSTMLayer)
        normed = inputs
        if isinstance(layer.norm, nn.LayerNorm):
            normed = _layer_norm(graph, layer.norm, inputs, f"layers.{index}.norm")
        state = _State(graph, batch, index, "never" if config.bidirectional else given)
        outputs = _directions(graph, layer.recurrence, 0, normed, mask, [state], f"layers.{index}")
        inputs = outputs + inputs if layer.residual else outputs
    if isinstance(model.norm, nn.LayerNorm):
        inputs = _layer_norm(graph, model.norm, inputs, "norm")
    return Network(graph, mask, inputs)


class _State:
    """The state of one layer: zeros, or an input whose successor is an output.

    Args:
        graph: Takes the nodes.
        batch: The number of rows, as a list of one.
        index: Of the layer, in the names.
        given: "never", "optionally" (zeros where it is not), or "always".
    """

    def __init__(self, graph: Graph, batch: Value, index: int, given: str) -> None:
        self.graph, self.batch, self.index, self.given = graph, batch, index, given

    def before(self, parts: int, size: int) -> list[Value]:
        """The parts before the first step, each `(batch, size)`; one row that is given counts for all."""
        graph, zeros = self.graph, np.zeros((1, size), np.float32)
        shape = graph("Concat", self.batch, graph.constant([size]), axis=0)
        if self.given == "never":
            return [graph("Expand", graph.constant(zeros, np.float32), shape)] * parts
        before = []
        for name in _PARTS[:parts]:
            default = zeros if self.given == "optionally" else None
            before.append(graph.input(f"{name}.{self.index}", FLOAT, ["state_batch", size], default))
        return [graph("Expand", value, shape) for value in before]

    def after(self, final: list[Value], size: int) -> None:
        """Give the parts after the last step out."""
        if self.given != "never":
            for name, value in zip(_PARTS, final, strict=False):
                self.graph.output(value, f"next_{name}.{self.index}", FLOAT, ["batch", size])


def _directions(
    graph: Graph, stack: Stack, layer: int, inputs: Value, mask: Value | None, states: list[_State], name: str
) -> Value:
    """One layer of a stack in its directions, `(batch, time, size)`."""
    outputs = []
    steps = None if mask is None else graph("Unsqueeze", mask, graph.constant([2]))
    for direction, suffix in enumerate(stack.suffixes(layer)):
        state = states[min(direction, len(states) - 1)]
        result, final = recurrence(
            graph,
            inputs,
            parameters_of(stack, suffix),
            stack.gating,
            state.before(2 if stack.gating.cell == "lstm" else 1, stack.hidden_size),
            mask=steps,
            reverse=direction == 1,
            name=f"{name}{'.reverse' if direction else ''}",
        )
        state.after(final, stack.hidden_size)
        outputs.append(result)
    return outputs[0] if len(outputs) == 1 else graph("Concat", *outputs, axis=-1)


def _stack(stack: Stack) -> Graph:
    """A layer as it is called in evaluation: `(batch, time, size)` or, if not `batch_first`, time before batch."""
    graph = Graph()
    names = ["batch", "time"] if stack.batch_first else ["time", "batch"]
    inputs = graph.input("input", FLOAT, [*names, stack.input_size])
    if not stack.batch_first:
        inputs = graph("Transpose", inputs, perm=[1, 0, 2])
    batch = graph("Shape", inputs, start=0, end=1)
    for layer in range(stack.num_layers):
        first = layer * stack.num_directions
        states = [_State(graph, batch, first + index, "always") for index in range(stack.num_directions)]
        inputs = _directions(graph, stack, layer, inputs, None, states, f"layers.{layer}")
    if not stack.batch_first:
        inputs = graph("Transpose", inputs, perm=[1, 0, 2])
    graph.output(inputs, "output", FLOAT, [*names, stack.hidden_size * stack.num_directions])
    return graph


def _pooled(network: Network, name: str, *, bidirectional: bool) -> Value:
    """The outputs reduced over the real steps; zeros for a row that has none."""
    graph, states, mask = network.graph, network.states, network.mask
    if name == "last":
        return _last(network, bidirectional=bidirectional)
    one = graph.constant([1])
    if mask is None:
        return graph("ReduceMean" if name == "mean" else "ReduceMax", states, one, keepdims=0)
    real = graph("Unsqueeze", mask, graph.constant([2]))
    count = graph("ReduceSum", graph("Cast", mask, to=FLOAT), one, keepdims=1)
    if name == "mean":
        total = graph("ReduceSum", graph("Where", real, states, graph.constant(0, np.float32)), one, keepdims=0)
        return graph("Div", total, graph("Max", count, graph.constant(1, np.float32)))
    largest = graph("ReduceMax", graph("Where", real, states, graph.constant(-np.inf, np.float32)), one, keepdims=0)
    some = graph("Greater", count, graph.constant(0, np.float32))
    return graph("Where", some, largest, graph.constant(0, np.float32))


def _last(network: Network, *, bidirectional: bool) -> Value:
    """The outputs at the last real step, of the backward half at the first."""
    graph, mask = network.graph, network.mask
    halves = network.states.chunk(2) if bidirectional else [network.states]
    if mask is None:
        ends = [graph("Gather", halves[0], graph.constant(-1), axis=1)]
        ends += [graph("Gather", half, graph.constant(0), axis=1) for half in halves[1:]]
        return ends[0] if len(ends) == 1 else graph("Concat", *ends, axis=-1)
    real = graph("Cast", mask, to=INT64)
    ends = []
    for half, backwards in zip(halves, (0, 1), strict=False):
        # The last of equal values for the forward half, the first for the backward half.
        place = graph("ArgMax", real, axis=1, keepdims=1, select_last_index=1 - backwards)
        ends.append(graph("GatherND", half, place, batch_dims=1))
    joined = ends[0] if len(ends) == 1 else graph("Concat", *ends, axis=-1)
    some = graph("Cast", graph("ReduceMax", real, graph.constant([1]), keepdims=1), to=BOOL)
    return graph("Where", some, joined, graph.constant(0, np.float32))


def _linear(graph: Graph, module: nn.Module, inputs: Value, name: str) -> Value:
    if not isinstance(module, nn.Linear):
        return inputs
    product = inputs @ graph.weight(module.weight.T, f"{name}.weight")
    return product if module.bias is None else product + graph.weight(module.bias, f"{name}.bias")


def _layer_norm(graph: Graph, norm: nn.LayerNorm, inputs: Value, name: str) -> Value:
    weight, bias = graph.weight(norm.weight, f"{name}.weight"), graph.weight(norm.bias, f"{name}.bias")
    return graph("LayerNormalization", inputs, weight, bias, axis=-1, epsilon=norm.eps)
