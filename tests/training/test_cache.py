"""What can be made again: made once, as a whole, and told in one line where it is damaged."""

import numpy as np
import pytest

from tests.training.lm_tiny import articles, put_in_place, tiny_lm_recipe
from urzoo.errors import DataError
from urzoo.training import train
from urzoo.training.cache import made_once


def test_what_is_a_function_of_its_key_is_made_once(tmp_path):
    made = []

    def found(number):
        def make(folder):
            made.append(number)
            np.save(folder / "number.npy", np.array(number))

        return made_once(tmp_path, {"number": number}, make=make, read=lambda place: int(np.load(place / "number.npy")))

    assert [found(number) for number in (3, 3, 4, 3)] == [3, 3, 4, 3]
    assert made == [3, 4]


def test_what_cannot_be_made_leaves_nothing(tmp_path):
    def make(folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once(tmp_path, {}, make=make, read=lambda _: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["tokens.npy", "words.npy", "tokenizer.json"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_damaged_folder_of_the_cache_is_named_with_the_remedy(tmp_path, monkeypatch, file, gone):
    put_in_place(monkeypatch, articles(30))
    recipe = tiny_lm_recipe(tmp_path, run__steps=1)
    train(recipe, runs=tmp_path, progress=False)
    (damaged,) = (tmp_path / "cache").rglob(file)
    if gone:
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"is damaged .*\. Delete that folder; it is made again\.$") as refused:
        train(recipe, runs=tmp_path, restart=True, progress=False)
    assert str(damaged.parent) in str(refused.value)
    assert "\n" not in str(refused.value)
