"""Whether onnxruntime gives a model's own results: scores and states, with padding, from a state that is not zero."""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from urzoo.errors import UsageError
from urzoo.models.cache_urlstm import URLSTMCache
from urzoo.models.classification_urlstm import URLSTMForImageClassification
from urzoo.nn.stack import Stack
from urzoo.recurrence.reference import without_autocast

# Of the largest result: what float32 loses over some steps, and far less than any mistake would make.
_TOLERANCE = 1e-4
_BATCH, _TIME = 2, 9

Arrays = dict[str, NDArray[Any]]


def compare(model: nn.Module, content: bytes) -> None:
    """Run a model and its file on the same random inputs.

    Args:
        model: What the file was made from.
        content: The file's bytes.

    Raises:
        UsageError: Their results differ, as where a hook or a replaced part does what the weights do not say.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # else it warns that the states may be left out
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    plain: Any = copy.deepcopy(model).cpu().float().eval()
    with torch.no_grad(), without_autocast(torch.device("cpu")):
        if isinstance(plain, Stack):
            inputs, expected = _of_stack(plain)
        else:
            plain.config.head_dtype = "float32"
            inputs, expected = _of_model(plain, from_state="next_hidden.0" in names)
    for name, got in zip(names, session.run(names, inputs), strict=True):
        wanted = expected[name].numpy()
        difference = float(np.abs(got - wanted).max()) if got.shape == wanted.shape else float("inf")
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise UsageError(
                f"{name} of the ONNX graph differs from the model's by up to {difference:.2g}, so it was not written: "
                "does a hook, an adapter or another wrapper change what the model computes? Merge or remove it first."
            )


def _of_model(model: Any, *, from_state: bool) -> tuple[Arrays, dict[str, Tensor]]:
    """Inputs for a model by their names in the file, the state too if it takes one, and what it makes of them."""
    config, generator = model.config, torch.Generator().manual_seed(0)
    inputs: dict[str, Tensor] = {}
    if config.vocab_size is None:
        values = torch.randn(_BATCH, _TIME, config.input_size, generator=generator, dtype=torch.float32)
        inputs["pixel_values" if isinstance(model, URLSTMForImageClassification) else "inputs_embeds"] = values
    else:
        inputs["input_ids"] = torch.randint(config.vocab_size, (_BATCH, _TIME), generator=generator)
    if "pixel_values" not in inputs:
        inputs["attention_mask"] = torch.ones(_BATCH, _TIME, dtype=torch.int64)
        inputs["attention_mask"][0, :3] = 0
    cache, states = None, dict[str, Tensor]()
    if from_state:
        parts = 2 if config.cell == "lstm" else 1
        cache = URLSTMCache(config.num_layers, config.hidden_size, parts)
        for layer in range(config.num_layers):
            state = tuple(
                torch.rand(_BATCH, config.hidden_size, generator=generator, dtype=torch.float32) - 0.5
                for _ in range(parts)
            )
            cache.states[layer] = state
            states |= _named("", layer, state)
    expected = {"logits": model(**inputs, cache=cache, return_dict=True).logits}
    if cache is not None:
        for layer, after in enumerate(cache.states):
            assert after is not None
            expected |= _named("next_", layer, after)
    return {name: value.numpy() for name, value in (inputs | states).items()}, expected


def _of_stack(stack: Stack) -> tuple[Arrays, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    leading = (_BATCH, _TIME) if stack.batch_first else (_TIME, _BATCH)
    values = torch.randn(*leading, stack.input_size, generator=generator, dtype=torch.float32)
    shape = (stack.num_layers * stack.num_directions, _BATCH, stack.hidden_size)
    state = [
        torch.rand(*shape, generator=generator, dtype=torch.float32) - 0.5
        for _ in range(2 if stack.gating.cell == "lstm" else 1)
    ]
    outputs, final = stack(values, tuple(state) if len(state) == 2 else state[0])
    after = final if isinstance(final, tuple) else (final,)
    inputs, expected = {"input": values}, {"output": outputs}
    for layer in range(shape[0]):
        inputs |= _named("", layer, tuple(part[layer] for part in state))
        expected |= _named("next_", layer, tuple(part[layer] for part in after))
    return {name: value.numpy() for name, value in inputs.items()}, expected


def _named(prefix: str, layer: int, state: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return {f"{prefix}{name}.{layer}": part for name, part in zip(("hidden", "cell"), state, strict=False)}
