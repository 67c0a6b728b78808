"""The task files that come with the package."""

import numpy as np
import pytest

from urzoo.data import load_split
from urzoo.evaluation import load_task, tasks


@pytest.mark.parametrize("name", ["smnist", "pmnist"])
def test_chance_is_the_share_of_the_most_frequent_class(name: str):
    task = load_task(name)
    labels = np.array(load_split(task.data.name, task.data.split).to_dataset()["label"])
    assert task.chance == np.bincount(labels).max() / len(labels)


def test_each_task_has_a_place_of_its_own_on_the_board():
    orders = [load_task(name).order for name in tasks()]
    assert len(set(orders)) == len(orders)
