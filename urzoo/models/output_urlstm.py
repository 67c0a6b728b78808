"""From the language model's hidden states to scores over the vocabulary, and to the loss.

The loss can be had without the scores: in chunks of steps, each of whose scores live only until their
gradient is known. With a vocabulary of 8,000 and 8,192 steps a batch that saves half a gigabyte, and the
time to write and read it twice.

With cut-offs the softmax is adaptive: a first choice among the frequent words and one entry for each
cluster of rarer ones, then a choice within the cluster. A step pays for a cluster only if its word is in
it. The rows of the output weights are the words either way, so they can be tied to the embedding.
Source: Grave et al. 2017, arXiv:1609.04309, here without narrower clusters, which tying excludes.
"""

# mypy: disable-error-code="no-untyped-call"
# (torch is annotated in part only)

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch
from torch.autograd import forward_ad
from torch.nn.modules import module as module_hooks

from urzoo.recurrence.held import held_weights

# Scores of one chunk: as many as stay in a processor's last-level cache, twice.
_CHUNK_SCORES = 2 * 1024 * 1024
IGNORED = -100


def vocabulary_scores(hidden: Tensor, words: nn.Module, dtype: torch.dtype | None) -> Tensor:
    """Unnormalised scores `(..., vocabulary)` in float32, the product computed in `dtype`.

    Args:
        hidden: Shape `(..., size)`.
        words: The output map, which is called, so that whatever wraps, hooks or replaces it takes part.
        dtype: The type of the product, as autocast has it; that of the map's weights when None.
    """
    device = hidden.device.type
    typed = None if dtype is None else _held(words, dtype)
    if typed is not None:
        scores: Tensor = nn.functional.linear(hidden.to(typed[0].dtype), *typed)
    elif dtype is None or not torch.amp.is_autocast_available(device):
        scores = words(hidden)
    else:
        # A cached copy of the weights would outlive a write to them.
        with torch.autocast(device, dtype=dtype, cache_enabled=False):
            scores = words(hidden)
    return scores.float()


def _held(words: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Weights and bias in another dtype, kept for as long as the caller holds them; None where they are not held."""
    block = held_weights()
    if block is None or torch.is_grad_enabled() or not may_be_read(words):
        return None
    assert isinstance(words, nn.Linear)
    weight, bias = words.weight, words.bias
    return block.made(dtype, (weight, bias), lambda: (weight.to(dtype), bias.to(dtype)))


def adaptive_scores(
    hidden: Tensor, words: nn.Module, clusters: nn.Module, cutoffs: list[int], dtype: torch.dtype | None
) -> Tensor:
    """Log-probabilities `(..., vocabulary)` of the adaptive softmax, in float32."""
    scores, choices = (vocabulary_scores(hidden, module, dtype) for module in (words, clusters))
    frequent = cutoffs[0]
    first = torch.cat([scores[..., :frequent], choices], dim=-1).log_softmax(-1)
    parts = [first[..., :frequent]]
    for index, (start, end) in enumerate(pairwise([*cutoffs, scores.shape[-1]])):
        parts.append(scores[..., start:end].log_softmax(-1) + first[..., frequent + index, None])
    return torch.cat(parts, dim=-1)


def may_be_read(module: nn.Module) -> bool:
    """Whether a module is a linear map that nothing wraps, hooks, offloads, parametrises or transforms.

    Only then may its weights be read in place of a call, as `cross_entropy` does.
    """
    if not torch.compiler.is_compiling() and (
        forward_ad._current_level >= 0 or _functorch.peek_interpreter_stack() is not None
    ):
        return False
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
        module_hooks._global_forward_hooks,
        module_hooks._global_forward_pre_hooks,
        module_hooks._global_backward_hooks,
        module_hooks._global_backward_pre_hooks,
    )
    return type(module) is nn.Linear and module.bias is not None and "forward" not in vars(module) and not any(hooks)


def cross_entropy(
    hidden: Tensor,
    targets: Tensor,
    words: nn.Linear,
    dtype: torch.dtype | None,
    clusters: nn.Linear | None = None,
    cutoffs: list[int] | None = None,
) -> Tensor:
    """The summed cross-entropy in nats of the targets, without keeping the scores.

    Args:
        hidden: Shape `(steps, size)`.
        targets: Word ids `(steps,)`; steps with -100 do not count.
        words: The output map, whose weights are `(vocabulary, size)`; it `may_be_read`.
        dtype: The type of the products, that of the weights when None; sums and softmax are in float32.
        clusters: Of the adaptive softmax, one row a cluster.
        cutoffs: Of the adaptive softmax, the ids at which its clusters begin.
    """
    counted = targets != IGNORED
    hidden, targets = hidden[counted], targets[counted]
    dtype = dtype or words.weight.dtype
    if clusters is None or not cutoffs:
        return _linear_cross_entropy(hidden, words.weight, words.bias, targets, dtype)
    weights, biases = _split(words, cutoffs)
    cluster = torch.bucketize(targets, torch.tensor(cutoffs, device=targets.device), right=True)
    choices = torch.where(cluster == 0, targets, cutoffs[0] + cluster - 1)
    total = _linear_cross_entropy(hidden, *_first_choice(weights, biases, clusters), choices, dtype)
    for index, (weight, bias) in enumerate(zip(weights[1:], biases[1:], strict=True)):
        inside = cluster == index + 1
        within = targets[inside] - cutoffs[index]
        total = total + _linear_cross_entropy(hidden[inside], weight, bias, within, dtype)
    return total


def _split(words: nn.Linear, cutoffs: list[int]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    edges = [0, *cutoffs, words.weight.shape[0]]
    sizes = [after - before for before, after in pairwise(edges)]
    return words.weight.split(sizes), words.bias.split(sizes)


def _first_choice(
    weights: tuple[Tensor, ...], biases: tuple[Tensor, ...], clusters: nn.Linear
) -> tuple[Tensor, Tensor]:
    return torch.cat([weights[0], clusters.weight]), torch.cat([biases[0], clusters.bias])


def _linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, targets, dtype)
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of a linear map's scores; the gradients are made on the way forward, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        loss = hidden.new_zeros((), dtype=torch.float32)
        gradients = (
            torch.empty_like(hidden, dtype=torch.float32),
            torch.zeros_like(weight, dtype=torch.float32),
            torch.zeros_like(bias, dtype=torch.float32),
        )
        typed = weight.to(dtype)
        rows = max(64, _CHUNK_SCORES // weight.shape[0])
        # Written to again and again: fresh memory of this size costs as much as the arithmetic on it.
        room = hidden.new_empty((min(rows, hidden.shape[0]), weight.shape[0]), dtype=torch.float32)
        typed_room = room if dtype == torch.float32 else torch.empty_like(room, dtype=dtype)
        for start in range(0, hidden.shape[0], rows):
            inputs, chosen_ids = hidden[start : start + rows].to(dtype), targets[start : start + rows, None]
            scores, typed_scores = room[: len(inputs)], typed_room[: len(inputs)]
            torch.mm(inputs, typed.T, out=typed_scores)
            if dtype != torch.float32:
                scores.copy_(typed_scores)
            scores.add_(bias)
            chosen, largest = scores.gather(1, chosen_ids), scores.amax(dim=1, keepdim=True)
            total = scores.sub_(largest).exp_().sum(dim=1, keepdim=True)
            loss += (total.log().add_(largest) - chosen).sum()
            if wanted:
                excess = scores.div_(total)
                excess.scatter_add_(1, chosen_ids, excess.new_full(chosen_ids.shape, -1.0))
                gradients[2].add_(excess.sum(dim=0))
                typed_excess = excess if dtype == torch.float32 else typed_scores.copy_(excess)
                gradients[0][start : start + rows] = typed_excess @ typed
                gradients[1].add_(typed_excess.T @ inputs)
        if wanted:
            ctx.save_for_backward(*gradients, hidden, weight, bias, targets)
            ctx.dtype = dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        gradients, arguments, targets = saved[:3], saved[3:6], saved[6]
        if not torch.is_grad_enabled():
            pairs = zip(gradients, arguments, strict=True)
            return (*(gradient.mul(outer[0]).to(argument.dtype) for gradient, argument in pairs), None, None)
        # The gradients are to be differentiated again, so they must follow from the arguments. Aliases of these, as
        # the states come from the weights where those are tied to the embedding: that way is differentiated outside.
        hidden, weight, bias = aliases = [argument.view_as(argument) for argument in arguments]
        scores = nn.functional.linear(hidden.to(ctx.dtype), weight.to(ctx.dtype)).float() + bias
        loss = nn.functional.cross_entropy(scores, targets, reduction="sum")
        wanted = [alias for alias in aliases if alias.requires_grad]
        found = iter(torch.autograd.grad(loss, wanted, outer[0], create_graph=True))
        return (*(next(found) if alias.requires_grad else None for alias in aliases), None, None)
