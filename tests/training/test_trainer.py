import pytest
import torch
from transformers import TrainingArguments

from tests.training.tiny import tiny_recipe, train_tiny
from urzoo.errors import UrzooError
from urzoo.training.trainer import RecipeTrainer


def test_the_average_is_of_the_weights_where_the_trainer_has_put_them(tmp_path, monkeypatch):
    made = []

    def seen(trainer):
        made.append(trainer)
        raise KeyboardInterrupt

    # On a GPU the model is moved when the trainer is made; another type stands for another device here.
    monkeypatch.setattr(RecipeTrainer, "_move_model_to_device", lambda self, model, device: model.double())
    monkeypatch.setattr(RecipeTrainer, "train_by_recipe", seen)
    with pytest.raises(KeyboardInterrupt):
        train_tiny("images", tiny_recipe(tmp_path), tmp_path)
    assert {value.dtype for value in made[0].average.average.values()} == {torch.float64}
    with torch.no_grad():
        made[0].average.update()


def test_a_batch_that_cannot_be_shared_evenly_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda arguments: 2))
    with pytest.raises(UrzooError, match=r"run\.batch_size 7 does not divide among 2 processes"):
        train_tiny("images", tiny_recipe(tmp_path, run__batch_size=7), tmp_path)
