import pytest
import torch

from tests.training.tiny import tiny_recipe, train_tiny
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
