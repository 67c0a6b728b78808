"""The guard before the clock: contenders that should compute the same thing are compared.

A fast wrong answer would win every table. The tolerances are for float32 and bfloat16 products over long
sequences; they are wide enough for rounding and far too narrow for a wrong sign or a missing term. The
close comparison with float64 is in the tests of the recurrence.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from urzoo.benchmark.contenders import Layer, comparable
from urzoo.errors import UrzooError

# By dtype of the contender that is held against the first: relative error in the Euclidean norm.
OUTPUT_TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}
GRADIENT_TOLERANCE = {"fp32": 2e-3, "bf16": 2e-1}

_NAMES_IN_URZOO = {
    "layers.0.igates.weight": "weight_ih_l0",
    "layers.0.igates.bias": "bias_l0",
    "layers.0.hgates.weight": "weight_hh_l0",
    "layers.0.forget_bias": "forget_bias_l0",
    "bias_ih_l0": "bias_l0",
}


class DisagreementError(UrzooError):
    """Two contenders that should agree do not; timing them would mean nothing."""


def check_outputs(layers: Mapping[str, Layer]) -> None:
    """Compare one forward pass of all comparable contenders with the first of them in float32.

    Raises:
        DisagreementError: An output differs by more than rounding explains.
    """
    expected: tuple[str, Tensor] | None = None
    for name, layer in _comparable(layers):
        outputs = layer.swapped(layer.forward()).float()
        if expected is None:
            expected = name, outputs
        else:
            _compare("outputs", name, outputs, *expected, OUTPUT_TOLERANCE[layer.contender.dtype], layer)


def check_gradients(layers: Mapping[str, Layer]) -> None:
    """Compare the gradients of one backward pass in the same way.

    Raises:
        DisagreementError: A gradient differs by more than rounding explains.
    """
    expected: tuple[str, dict[str, Tensor]] | None = None
    for name, layer in _comparable(layers):
        gradients = {_NAMES_IN_URZOO.get(key, key): value.float() for key, value in layer.train().items()}
        if "inputs" in gradients:
            gradients["inputs"] = layer.swapped(gradients["inputs"])
        if expected is None:
            expected = name, gradients
            continue
        other, theirs = expected
        for key in sorted(gradients.keys() & theirs.keys()):
            tolerance = GRADIENT_TOLERANCE[layer.contender.dtype]
            _compare(f"gradient of {key}", name, gradients[key], other, theirs[key], tolerance, layer)


def _comparable(layers: Mapping[str, Layer]) -> list[tuple[str, Layer]]:
    """The contenders to compare, those in float32 first: the first one is the measure of the others."""
    chosen = [(name, layer) for name, layer in layers.items() if comparable(layer.contender, layer.workload.gating)]
    chosen.sort(key=lambda entry: (entry[1].contender.dtype != "fp32", entry[1].contender.backend != "reference"))
    return chosen


def _compare(what: str, name: str, value: Tensor, other: str, expected: Tensor, tolerance: float, layer: Layer) -> None:
    error = torch.linalg.vector_norm(value - expected) / torch.linalg.vector_norm(expected).clamp_min(1e-30)
    # Written so that NaN fails.
    if not float(error) <= tolerance:
        raise DisagreementError(
            f"contender {name!r} disagrees with {other!r} on shape {layer.workload.shape.name!r}: "
            f"relative error {float(error):.2g} in the {what}, expected at most {tolerance:g}; nothing was timed."
        )
