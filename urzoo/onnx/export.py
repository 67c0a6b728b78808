"""From a model to a file, which is written only if it computes what the model does."""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urzoo.errors import UsageError
from urzoo.files import expanded, write_bytes
from urzoo.nn.parameters import renew_weights
from urzoo.nn.stack import Stack

if TYPE_CHECKING:
    import onnx

# What protobuf holds in one message, less some room for the nodes.
_MOST_BYTES = 2**31 - 2**20


def to_onnx(model: Any) -> "onnx.ModelProto":
    """A model or layer as an ONNX graph, checked by ONNX's own checker, not yet compared with the model.

    Args:
        model: A URLSTMForCausalLM, URLSTMForSequenceClassification or URLSTMForImageClassification; or a URLSTM or
            URGRU of `urzoo.nn`. In evaluation: dropout is left out.

    Returns:
        A graph of opset 18 in float32, whatever the model's dtype, with the inputs and outputs of the model by their
        names. A layer, and a model that reads in one direction, also takes its state, `hidden.0`, `cell.0`, `hidden.1`,
        ..., each `(batch, hidden_size)` or one row for all, and gives the one after its inputs as `next_hidden.0` and
        so on, so that a text or series can be read in pieces. A classifier may be run without: it begins with zeros.
        One that pools over all steps (mean, max) has no state here, as the one of its layers would not be all of it.

    Raises:
        UsageError: onnx is not installed, the model is of another kind or too large, or a part of it was replaced.
    """
    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            raise UsageError(f"the package {package} is not installed; type: pip install 'urzoo[onnx]'.")
    import onnx

    from urzoo.onnx.graph import OPSET
    from urzoo.onnx.network import HEADS, build

    if not isinstance(model, (*HEADS, Stack)):
        accepted = ", ".join(head.__name__ for head in HEADS)
        raise UsageError(f"model is a {type(model).__name__}, expected one of {accepted}, URLSTM, URGRU.")
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size > _MOST_BYTES:
        raise UsageError(
            f"model has weights of {size:,} bytes, expected at most {_MOST_BYTES:,}, what one file can hold."
        )
    renew_weights(model)
    proto = onnx.helper.make_model(
        build(model).proto(type(model).__name__),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="urzoo",
        producer_version=version("urzoo"),
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto


def export_onnx(model: Any, file: str | Path) -> Path:
    """Write a model or layer to an ONNX file, after a run in onnxruntime has given the model's own results.

    Args:
        model: As for `to_onnx`, which says what the file holds.
        file: Where to; an existing file is replaced, whole or not at all.

    Raises:
        UsageError: As for `to_onnx`; or the file's results would not be the model's.
    """
    from urzoo.onnx.check import compare

    content = to_onnx(model).SerializeToString()
    compare(model, content)
    target = expanded(file)
    write_bytes(target, content)
    return target
