"""The state that a caller carries: copies of it stay as they are, and gradients flow through it."""

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from urzoo.errors import UsageError
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


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        ({"position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]])}, "position_ids begins again"),
        ({"seq_idx": torch.tensor([[0, 0, 0, 1, 1, 1]])}, "seq_idx changes"),
        ({"cu_seq_lens_q": torch.tensor([0, 3, 6])}, "cu_seq_lens_q has several texts"),
    ],
)
def test_texts_packed_in_one_row_are_refused_however_they_are_told(model, ids, packed, said):
    with pytest.raises(UsageError, match=f"^{said} within a row, but texts in one row would share a state; give"):
        model(ids[:1], **packed)
    [(name, value)] = packed.items()
    whole = {"position_ids": torch.arange(6)[None], "seq_idx": value * 0, "cu_seq_lens_q": torch.tensor([0, 6])}
    assert torch.equal(model(ids[:1], **{name: whole[name]}).logits, model(ids[:1]).logits)


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_goes_on_from_a_state_with_and_without_keeping_the_next_one(model, ids, use_cache):
    cache, options = model(ids[:, :4], use_cache=True).cache, {"do_sample": False, "max_new_tokens": 6}
    whole = model.generate(ids, **options)[:, 6:]
    assert torch.equal(model.generate(ids[:, 4:], cache=cache.clone(), use_cache=use_cache, **options)[:, 2:], whole)


def test_a_state_that_is_to_be_cut_says_that_it_cannot(model, ids):
    with pytest.raises(UsageError, match=r"^the cache was to be cut to 3 steps, .* omit assistant_model"):
        model(ids, use_cache=True).cache.crop(3)
