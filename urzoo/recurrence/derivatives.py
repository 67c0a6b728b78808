"""Derivatives that only the reference has: second ones, forward ones, and those of torch.func's transforms.

A back end that differentiates once leaves the rest to the reference, unless the caller named it: then one line says so.
"""

from collections.abc import Sequence
from typing import TypedDict, Unpack

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad

from urzoo.errors import BackendError
from urzoo.recurrence import reference
from urzoo.recurrence.gates import Gating

Tensors = Sequence[Tensor | None]


class ScanOptions(TypedDict):
    """What a scan computes, beside its tensors; the biases of the gating are not used, the bias has them in it."""

    gating: Gating
    mask: Tensor | None
    reverse: bool
    dtype: torch.dtype


def needs_reference(*tensors: Tensor | None) -> str:
    """What is asked of the tensors that only the reference can do; "" for nothing of the kind."""
    given = [tensor for tensor in tensors if tensor is not None]
    if forward_ad._current_level >= 0 and any(map(_has_tangent, given)):
        return "forward derivatives"
    if torch.compiler.is_compiling() or _functorch.peek_interpreter_stack() is None:
        return ""
    levels = {level.key() for level in _functorch.get_interpreter_stack() or ()}
    differentiating = not levels.isdisjoint((_functorch.TransformType.Grad, _functorch.TransformType.Jvp))
    if differentiating and any(map(_functorch.is_functorch_wrapped_tensor, given)):
        return "derivatives by torch.func"
    return ""


def _has_tangent(tensor: Tensor) -> bool:
    return forward_ad.unpack_dual(tensor).tangent is not None  # type: ignore[no-untyped-call]


def refuse(backend: str, what: str) -> BackendError:
    """The error for a back end that was named where only the reference can do what is asked."""
    return BackendError(f"backend {backend!r} cannot compute {what}. Omit backend, or give backend='reference'.")


def differentiable_gradients(
    upstream: Tensors, arguments: Tensors, wanted: Sequence[Tensor], **options: Unpack[ScanOptions]
) -> tuple[Tensor, ...]:
    """The gradients of a scan with a graph of their own: those of the reference, run once more.

    Args:
        upstream: The gradients of outputs, final hidden state and final cell.
        arguments: Inputs, input weight, recurrent weight, complete bias, hidden state and cell.
        wanted: Those of the arguments whose gradients are returned.
        options: What the scan computes.
    """
    inputs, input_weight, recurrent_weight, bias, *state = arguments
    assert inputs is not None
    assert input_weight is not None
    assert recurrent_weight is not None
    with torch.enable_grad():
        outputs, final = reference.scan(
            inputs,
            input_weight,
            recurrent_weight,
            bias,
            None,
            tuple(part for part in state if part is not None),
            save="activations",
            **options,
        )
        given = [(part, grad) for part, grad in zip((outputs, *final), upstream, strict=False) if grad is not None]
        return torch.autograd.grad(
            [part for part, _ in given],
            wanted,
            [grad.to(part.dtype) for part, grad in given],
            create_graph=True,
            materialize_grads=True,
        )


def second_derivatives(
    upstream: Tensors, arguments: Tensors, grads: Tensors, **options: Unpack[ScanOptions]
) -> list[Tensor | None]:
    """The gradients of `upstream`, then of `arguments`, from those of the gradients that a backward pass gave.

    Args:
        upstream: As for `differentiable_gradients`, which the backward pass is replaced by.
        arguments: See there.
        grads: The gradients of the gradients of `arguments`, in that order.
        options: See there.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases, because one may depend on another: that way is differentiated outside.
        upstream, arguments = (
            tuple(None if tensor is None else tensor.view_as(tensor) for tensor in tensors)
            for tensors in (upstream, arguments)
        )
        first = [
            (argument, grad)
            for argument, grad in zip(arguments, grads, strict=True)
            if argument is not None and argument.requires_grad and grad is not None
        ]
        gradients = differentiable_gradients(upstream, arguments, [argument for argument, _ in first], **options)
        wanted = [tensor for tensor in (*upstream, *arguments) if tensor is not None and tensor.requires_grad]
        found = torch.autograd.grad(
            gradients, wanted, [grad for _, grad in first], create_graph=again, allow_unused=True
        )
    by_tensor = {id(tensor): gradient for tensor, gradient in zip(wanted, found, strict=True)}
    return [None if tensor is None else by_tensor.get(id(tensor)) for tensor in (*upstream, *arguments)]
