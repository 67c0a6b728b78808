"""The state that a caller carries: copies of it stay as they are, and gradients flow through it."""

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from urzoo.models import URLSTMCache, URLSTMConfig, URLSTMForCausalLM


@pytest.fixture
def model():
    torch.manual_seed(0)
    return URLSTMForCausalLM(
        URLSTMConfig(vocab_size=20, hidden_size=6, num_layers=2, initializer_range=1.0, head_dropout=0.0)
    ).eval()


@pytest.fixture
def ids():
    return torch.randint(20, (2, 6), generator=torch.Generator().manual_seed(0))


def test_a_copy_of_a_cache_that_went_through_a_pytree_keeps_its_length(model, ids):
    cache = tree_unflatten(*tree_flatten(model(ids, use_cache=True).cache))
    kept = cache.clone()
    model(ids[:, :3], cache=cache)
    assert (kept.get_seq_length(), cache.get_seq_length()) == (6, 9)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_checkpointed_model_learns_through_a_carried_state(model, ids, use_reentrant):
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.train()
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        model.zero_grad()
        cache, loss = URLSTMCache(2, 6, 2), torch.zeros(())
        for part in ids.split(3, 1):
            loss = loss + model(part, labels=part, cache=cache, use_cache=True).loss
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, plain)
