import re

import pytest

from tests.training.tiny import TINY, tiny_recipe
from urzoo.errors import RecipeError
from urzoo.models import URLSTMConfig
from urzoo.schema import content_sha256, read_yaml
from urzoo.training.kinds.images import ImageModelRecipe
from urzoo.training.kinds.series import SeriesModelRecipe
from urzoo.training.recipe_file import differences, load_recipe
from urzoo.training.rows import build_model
from urzoo.training.run import train


def complaint(folder, **changes):
    with pytest.raises(RecipeError) as caught:
        load_recipe(tiny_recipe(folder, **changes))
    message = str(caught.value)
    assert "\n" not in message
    assert not message.endswith("..")
    return message


def test_a_misspelt_key_is_refused_with_near_matches_and_its_place(tmp_path):
    message = complaint(tmp_path, optimiser__learning_rat=0.1)
    assert "'learning_rat'" in message
    assert "Did you mean 'learning_rate'" in message
    assert "in optimiser" in message


def test_a_misspelt_section_is_refused_with_near_matches(tmp_path):
    assert "Did you mean 'schedule'" in complaint(tmp_path, shedule={})


def test_a_missing_key_is_named_with_its_path(tmp_path):
    path = tiny_recipe(tmp_path)
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "weight_decay" not in line))
    with pytest.raises(RecipeError, match=r"recipe key optimiser\.weight_decay is missing"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("run__batch_size", 0, "run.batch_size"),
        ("run__epochs", "8", "run.epochs"),
        ("optimiser__learning_rate", -1.0, "optimiser.learning_rate"),
        ("model__gate", "URR", "unknown gate"),
        ("model", TINY["model"] | {"gate": "OM", "cell": "gru"}, "or cell='lstm'."),
        ("model__input_size", 3, "model.input_size is 3, expected 1"),
        ("processor__image_std", [0.3, 0.3, 0.3], "processor.image_std has 3 numbers"),
        ("model__pooling", ["last", "last"], "expected each of them once"),
        ("model__pooling", ["first"], "model.pooling"),
        ("model__pooling", [], "model.pooling"),
        ("name", "../elsewhere", "name"),
        ("architecture", "URLSTMForImageClasification", "Did you mean 'URLSTMForImageClassification'"),
        ("architecture", ["URLSTMForImageClassification"], "unknown architecture"),
        ("task", ["smnist"], "key task is ['smnist']"),
        ("optimiser__learning_rate", float("nan"), "key optimiser.learning_rate is nan"),
        ("run__seed", float("inf"), "key run.seed is inf"),
        ("run__batch_size", 10**30, "key run.batch_size is 1000000000000000000000000000000: Input should be less than"),
        ("augmentation__shift_pixels", 10**30, "key augmentation.shift_pixels is 1"),
        ("optimiser__learning_rate", 10**400, "key optimiser.learning_rate is"),
    ],
)
def test_an_impossible_value_is_refused_with_its_key(tmp_path, key, value, expected):
    assert expected in complaint(tmp_path, **{key: value})


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tiny_recipe(tmp_path)
    path.write_text(path.read_text() + "name: other\n")
    with pytest.raises(RecipeError, match="stands twice"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("data__split", "test", "data.split is 'test', which task smnist is scored on"),
        ("data__name", "cifar10", "task smnist is about 'mnist'"),
        ("processor__permutation_seed", 1, "requires null"),
        ("processor__height", 14, "requires 784"),
    ],
)
def test_a_recipe_that_does_not_fit_its_task_is_refused_before_data_are_read(tmp_path, key, value, expected):
    with pytest.raises(RecipeError, match=expected):
        train(tiny_recipe(tmp_path, **{key: value}), data_root=tmp_path / "absent", runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_comments_do_not_change_a_recipe_and_values_do(tmp_path):
    path = tiny_recipe(tmp_path)
    before = load_recipe(path)
    path.write_text("# measured cost: much\n" + path.read_text())
    assert load_recipe(path).sha256 == before.sha256
    after = load_recipe(tiny_recipe(tmp_path, run__seed=4))
    assert after.sha256 != before.sha256
    assert differences(before, after) == ["run.seed: 3 -> 4"]


def test_the_digest_is_that_of_the_content_as_written(tmp_path):
    path = tiny_recipe(tmp_path, augmentation__rotate_degrees=10, optimiser__gradient_norm_clip=1)
    recipe = load_recipe(path)
    assert recipe.sha256 == content_sha256(read_yaml(path, error=RecipeError))
    same = load_recipe(tiny_recipe(tmp_path, augmentation__rotate_degrees=10.0, optimiser__gradient_norm_clip=1.0))
    assert differences(recipe, same) == []


def test_a_key_that_may_be_left_out_is_not_null(tmp_path):
    with pytest.raises(
        RecipeError, match=r"key augmentation\.rotate_degrees is null, expected a value; or leave the key"
    ):
        load_recipe(tiny_recipe(tmp_path, augmentation__rotate_degrees=None))


@pytest.mark.parametrize(
    ("key", "value"),
    [("shift_pixels", 28), ("erase_pixels", 28), ("elastic", {"alpha_pixels": 4.0, "sigma_pixels": 28})],
)
def test_a_change_as_large_as_the_image_is_refused(tmp_path, key, value):
    said = complaint(tmp_path, **{f"augmentation__{key}": value})
    assert re.search(rf"augmentation\.{key}\S* is 28, expected less than the 28 pixels of a side", said)


def test_a_pooling_that_stands_twice_is_refused_with_its_key(tmp_path):
    with pytest.raises(RecipeError, match=r"key model\.pooling is \['last', 'last'\], expected each of them once"):
        load_recipe(tiny_recipe(tmp_path, model__pooling=["last", "last"]))


@pytest.mark.parametrize("value", ["10", True, [1.0]])
def test_a_number_is_not_text_or_a_boolean(tmp_path, value):
    with pytest.raises(RecipeError, match=r"optimiser\.gradient_norm_clip"):
        load_recipe(tiny_recipe(tmp_path, optimiser__gradient_norm_clip=value))


def test_a_recipe_of_images_without_pooling_is_the_run_it_was(tmp_path):
    before = load_recipe(tiny_recipe(tmp_path))
    assert "pooling" not in before.model_dump()["model"]
    assert load_recipe(tiny_recipe(tmp_path, model__pooling=["last"])).sha256 != before.sha256
    assert build_model(before, ["0", "1"]).config.pooling == ["last"]
    pooled = load_recipe(tiny_recipe(tmp_path, model__pooling=["mean", "max"]))
    assert build_model(pooled, ["0", "1"]).config.pooling == ["mean", "max"]


@pytest.mark.parametrize("section", [ImageModelRecipe, SeriesModelRecipe])
def test_each_model_key_is_one_of_the_configuration(section):
    assert set(section.model_fields) <= set(URLSTMConfig.__dataclass_fields__)
