from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from urzoo.data.generate import generate
from urzoo.data.schema import load_data_set
from urzoo.errors import RecipeError
from urzoo.training import load_recipe
from urzoo.training.kinds.synthetic import (
    SyntheticRecipe,
    SyntheticStream,
    answers,
    build_model,
    loss,
    scores,
    validation_batches,
)

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
RECIPES = sorted(path for path in CONFIGS.glob("*/*.yaml") if isinstance(load_recipe(path), SyntheticRecipe))
# Of the comparison: the same but for the gating.
COMPARED = [path for path in RECIPES if not path.stem.endswith("-long")]
EXAMPLES = [CONFIGS / task / "urlstm-128-ur.yaml" for task in ("copy", "adding")]


def training_batch(recipe, step):
    return tuple(SyntheticStream(recipe).batch(step, np.arange(recipe.run.batch_size)).values())


def with_seed(recipe, seed):
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"seed": seed})})


@pytest.mark.parametrize("task", ["copy", "adding"])
def test_each_of_the_papers_gatings_has_a_recipe(task):
    gates = [load_recipe(path).model.gate for path in COMPARED if path.parent.name == task]
    assert sorted(gates) == sorted(map("".join, product("-COU", "-MR")))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_fits_its_place_and_its_model(path):
    recipe = load_recipe(path)
    assert path.parent.name == recipe.task
    assert recipe.name == f"{path.stem}-{recipe.task}"
    model = build_model(recipe)
    assert type(model).__name__ == recipe.architecture
    assert model.config.gate == recipe.model.gate


def test_recipes_of_one_task_differ_in_the_gating_alone():
    for task in ("copy", "adding"):
        recipes = [load_recipe(path).model_dump() for path in COMPARED if path.parent.name == task]
        for recipe in recipes:
            del recipe["name"], recipe["model"]["gate"], recipe["model"]["max_time"]
        assert all(recipe == recipes[0] for recipe in recipes)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            ("  hidden_size: 128", "  hidden_sizes: 128"),
            "unknown recipe key 'hidden_sizes'. Did you mean 'hidden_size'",
        ),
        (("cadence:", "cadense:"), "Did you mean 'cadence'"),
        (('gate: "UR"', 'gate: "UX"'), "unknown gate 'UX'"),
        (("length: 500", "length: 400"), "stream.length is 400"),
        (("head_hidden_size: 0", "head_hidden_size: 8"), "head_hidden_size is 8, expected 0"),
        (("URLSTMForCausalLM", "URLSTMForSequenceClassification"), "architecture is .* expected URLSTMForCausalLM"),
        (("steps: 5000", "steps: 0"), "run.steps"),
    ],
)
def test_an_impossible_recipe_is_refused_in_one_line(tmp_path, change, complaint):
    path = tmp_path / "recipe.yaml"
    text = EXAMPLES[0].read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises((RecipeError, ValueError), match=complaint) as error:
        load_recipe(path).check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_a_batch_is_a_function_of_seed_and_step(path):
    recipe = load_recipe(path)
    first, again = training_batch(recipe, 3), training_batch(recipe, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], training_batch(recipe, 4)[0])
    assert not torch.equal(first[0], training_batch(with_seed(recipe, 1), 3)[0])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_training_validation_and_test_share_no_sequence(path):
    recipe = load_recipe(path)
    generator = load_data_set(recipe.task).generator
    test = {sequence.tobytes() for sequence in generate(generator, 100)["sequence"]}

    def encoded(inputs):
        values = inputs.numpy().astype(np.float32)
        return {row.reshape(len(row), -1).tobytes() for row in values}

    training = encoded(training_batch(recipe, 0)[0]) | encoded(training_batch(recipe, 1)[0])
    validation = set().union(
        *(encoded(inputs) for inputs, _ in (batch.values() for batch in validation_batches(recipe)))
    )
    assert len(validation) == recipe.stream.validation_sequences
    assert not training & validation
    assert not test & (training | validation)


def test_the_targets_of_copy_are_its_first_ten_symbols():
    recipe = load_recipe(EXAMPLES[0])
    inputs, targets = training_batch(recipe, 0)
    assert inputs.shape == (20, 500)
    assert torch.equal(targets, inputs[:, :10])
    assert torch.equal(inputs[:, 489], torch.full((20,), 9))
    assert int(inputs[:, 490:].sum()) == 0


def test_the_target_of_adding_is_the_sum_at_the_marks():
    recipe = load_recipe(EXAMPLES[1])
    inputs, targets = training_batch(recipe, 0)
    assert inputs.shape == (16, 2000, 2)
    assert torch.equal(inputs[:, :1000, 1].sum(1), torch.ones(16))
    assert torch.equal(inputs[:, 1000:, 1].sum(1), torch.ones(16))
    torch.testing.assert_close(targets, (inputs[:, :, 0] * inputs[:, :, 1]).sum(1))


def test_knowing_nothing_scores_as_it_should():
    copy, adding = (load_recipe(path) for path in EXAMPLES)
    scored = torch.zeros(20, 10, 10)
    scored[..., 1:9] = 30.0  # one of the eight symbols
    assert float(loss(copy.task, scored, training_batch(copy, 0)[1])) == pytest.approx(np.log(8), rel=1e-4)
    targets = torch.cat([training_batch(adding, step)[1] for step in range(40)])
    assert float(loss(adding.task, torch.ones_like(targets), targets)) == pytest.approx(1 / 6, rel=0.15)


def test_the_scores_are_those_of_what_the_model_says():
    recipe = load_recipe(EXAMPLES[0])
    recipe = recipe.model_copy(update={"stream": recipe.stream.model_copy(update={"validation_sequences": 3})})
    model = build_model(recipe).eval()
    ((inputs, targets),) = (tuple(batch.values()) for batch in validation_batches(recipe))
    with torch.no_grad():
        outputs = answers(recipe.task, model, inputs)
    assert outputs.shape == (3, 10, 10)
    with torch.no_grad():
        found = scores(model, recipe)
    assert found["accuracy"] == pytest.approx(float((outputs.argmax(-1) == targets).double().mean()))
    assert found["cross_entropy"] == pytest.approx(float(loss(recipe.task, outputs, targets)), rel=1e-5)
