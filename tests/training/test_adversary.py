"""The worse version of a batch that adversarial training also learns from."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.training.tiny import tiny_texts, tiny_texts_recipe
from urzoo.errors import RecipeError
from urzoo.training.adversary import Adversary, virtual_adversarial_loss
from urzoo.training.log import TrainingLine, read_log
from urzoo.training.recipe_file import load_recipe
from urzoo.training.run import train


class Model(nn.Module):
    """The loss of each text is a curved function of its embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 5)
        self.head = nn.Linear(5, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(ids).mean(1)).square().sum()


def test_each_text_moves_by_the_radius_to_where_the_loss_grows():
    model, ids, moved = Model(), torch.tensor([[0, 1, 2], [3, 4, 5]]), []
    clean = model.embedding(ids).detach().flatten(1)
    adversary = Adversary(model.embedding, 0.1)
    with adversary.watching():
        loss = model(ids)
        loss.backward()
    with adversary.disturbing(torch.ones(2, 3)), torch.no_grad():
        # Registered after the adversary's own, so that it sees what that made of the output.
        handle = model.embedding.register_forward_hook(lambda *given: moved.append(given[-1].flatten(1)))
        worse = model(ids)
        handle.remove()
    torch.testing.assert_close((moved[0] - clean).norm(dim=1), 0.1 * clean.norm(dim=1))
    assert float(worse) > float(loss.detach())
    assert torch.equal(model(ids), loss), "nothing is left of the disturbance"


def test_a_text_without_gradient_stays_where_it_is():
    embedding = nn.Embedding(3, 4)
    adversary = Adversary(embedding, 0.5)
    with adversary.watching():
        (0 * embedding(torch.tensor([[1, 2]]))).sum().backward()
    with adversary.disturbing(torch.ones(1, 2)):
        assert torch.equal(embedding(torch.tensor([[1, 2]])), embedding.weight[1:][None])


def test_padding_does_not_lengthen_the_movement_of_a_text():
    model, moved = Classifier(), []
    text, padded = torch.tensor([[4, 5, 6]]), torch.tensor([[4, 5, 6, 0, 0, 0, 0]])

    def movement(ids):
        inputs = {"input_ids": ids, "attention_mask": (ids != 0).float()}
        model.eval()
        adversary, before = Adversary(model.embedding, 0.2), model.embedding(ids).detach()
        with adversary.watching():
            model(**inputs).logits[0, 0].backward()
        with adversary.disturbing(inputs["attention_mask"]):
            moved.append((model.embedding(ids) - before).detach())
        return virtual_adversarial_loss(model, model.embedding, inputs, radius=0.2, seed=1)

    alone, beside_a_longer_one = movement(text), movement(padded)
    torch.testing.assert_close(moved[1][:, :3], moved[0])
    assert not moved[1][:, 3:].any()
    torch.testing.assert_close(beside_a_longer_one, alone)


def test_the_first_loss_is_that_of_the_texts_as_they_are_and_the_second_is_not(tmp_path):
    losses = {}
    for radius in (0.0, 0.2):
        folder = tmp_path / str(radius)
        folder.mkdir()
        path = tiny_texts_recipe(folder, run__adversarial_radius=radius, cadence__log_every_steps=1)
        place = train(path, runs=folder, progress=False, data=tiny_texts())
        losses[radius] = [line.loss for line in read_log(place / "log.jsonl") if isinstance(line, TrainingLine)]
    assert losses[0.0][0] == losses[0.2][0]
    assert losses[0.0][1] != losses[0.2][1]


@pytest.mark.parametrize("radius", [-0.1, 1.0])
def test_a_radius_that_makes_no_sense_is_refused(tmp_path, radius):
    with pytest.raises(RecipeError, match=r"adversarial_radius"):
        load_recipe(tiny_texts_recipe(tmp_path, run__adversarial_radius=radius))


class Classifier(nn.Module):
    """Two classes, from the mean of the embedded tokens, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(50, 6)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        weights = attention_mask / attention_mask.sum(1, keepdim=True)
        states = (torch.tanh(self.dropout(self.embedding(input_ids))) * weights[..., None]).sum(1)
        return SimpleNamespace(logits=3 * self.head(states))


def divergence(model, inputs, movement, seed):
    """Of the answers to the moved texts from those to the texts, computed again from probabilities."""

    def answers():
        torch.manual_seed(seed)
        return model(**inputs).logits.softmax(-1)

    with torch.no_grad():
        plain = answers()
        with model.embedding.register_forward_hook(lambda *given: given[-1] + movement):
            moved = answers()
        return (plain * (plain / moved).log()).sum(-1).mean()


def test_texts_without_labels_move_further_from_their_answers_than_by_chance():
    model, radius = Classifier(), 0.05
    torch.manual_seed(1)
    inputs = {"input_ids": torch.randint(50, (16, 5)), "attention_mask": torch.ones(16, 5)}
    inputs["attention_mask"][:8, 3:] = 0
    found = virtual_adversarial_loss(model, model.embedding, inputs, radius=radius, seed=3)
    embedded = model.embedding(inputs["input_ids"]).detach()
    by_chance = []
    for draw in range(50):
        noise = torch.randn(embedded.shape, generator=torch.Generator().manual_seed(draw))
        noise *= inputs["attention_mask"][..., None]
        length = radius * embedded.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
        by_chance.append(float(divergence(model, inputs, noise * length[:, None, None], 3)))
    # Divergence grows with the square of the movement: the best of some 30 directions is worth much more than the mean.
    assert found.item() > 3 * sum(by_chance) / 50
    assert found.item() > max(by_chance)
    found.backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in model.parameters())
    assert not model.embedding._forward_hooks


def test_the_divergence_is_that_of_the_movement_alone():
    model = Classifier()
    inputs = {"input_ids": torch.arange(12).reshape(3, 4), "attention_mask": torch.ones(3, 4)}
    found = [virtual_adversarial_loss(model, model.embedding, inputs, radius=r, seed=5) for r in (1e-4, 0.1, 0.1)]
    values = [value.item() for value in found]
    # Dropout of half of the embedding would make it far from nothing.
    assert abs(values[0]) < 1e-6 < values[1] == values[2]


def test_of_two_classes_the_direction_is_the_worst_one():
    """For a small movement the divergence is half of its length squared times the largest Fisher information."""
    model, radius = Classifier().double().eval(), 0.01
    ids, mask = torch.randint(50, (4, 5)), torch.ones(4, 5, dtype=torch.float64)
    found = virtual_adversarial_loss(
        model, model.embedding, {"input_ids": ids, "attention_mask": mask}, radius=radius, seed=1
    )
    embedded = model.embedding(ids).detach().requires_grad_()
    with model.embedding.register_forward_hook(lambda *_: embedded):
        logits = model(ids, mask).logits
    (slope,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), embedded)
    information = logits.detach().softmax(-1).prod(-1) * slope.flatten(1).square().sum(1)
    length = radius * embedded.detach().flatten(1).norm(dim=1)
    torch.testing.assert_close(found.detach().float(), (length**2 * information / 2).mean().float(), rtol=0.03, atol=0)


def test_in_sixteen_bits_no_text_stays_where_it_is():
    """What a small random movement does to an answer is lost to rounding there."""
    model, seen = Classifier(), []
    inputs = {"input_ids": torch.randint(50, (64, 5)), "attention_mask": torch.ones(64, 5)}
    model.dropout.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        virtual_adversarial_loss(model, model.embedding, inputs, radius=0.02, seed=1)
    moved = (seen[-1] - seen[0]).flatten(1).norm(dim=1)
    torch.testing.assert_close(moved, 0.02 * seen[0].flatten(1).norm(dim=1), rtol=1e-3, atol=0)
