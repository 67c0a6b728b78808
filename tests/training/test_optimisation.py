import pytest
import torch
from torch import nn

from urzoo.training.optimisation import WeightAverage, learning_rate_factor
from urzoo.training.recipe import ScheduleRecipe


@pytest.mark.parametrize("kind", ["one-cycle", "warmup-cosine"])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_end(kind):
    schedule = ScheduleRecipe(kind=kind, warmup_fraction=0.25, initial_fraction=0.1, final_fraction=0.01)
    factors = [learning_rate_factor(schedule, step, 101) for step in range(101)]
    peak = factors.index(max(factors))
    assert factors[0] == pytest.approx(0.1)
    assert factors[-1] == pytest.approx(0.01)
    assert peak in (25, 26)
    assert max(factors) == pytest.approx(1.0, abs=0.01)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_average_is_in_place_only_within_the_block():
    module = nn.Linear(2, 1)
    average = WeightAverage(module, 0.5)
    own = module.weight.detach().clone()
    with torch.no_grad():
        module.weight += 1
    average.update()  # the first decay is 1/10
    with average.in_place():
        assert torch.allclose(module.weight, own + 0.9)
    assert torch.equal(module.weight, own + 1)
