import json

import pytest
import safetensors.torch
import torch

from tests.hub.checkpoints import language_checkpoint
from tests.training.lm_tiny import SOURCE, articles, put_in_place, tiny_lm_recipe
from urzoo import zoo
from urzoo.errors import DataError, RecipeError
from urzoo.training import load_recipe, train
from urzoo.training.kinds.language_model import CarriedState, generation_settings
from urzoo.training.log import TrainingLine, ValidationLine, read_log

ROWS = articles(40)


@pytest.fixture(autouse=True)
def reads(monkeypatch):
    return put_in_place(monkeypatch, ROWS)


def weights(checkpoint):
    return safetensors.torch.load_file(checkpoint / "model.safetensors")


def lines_of(checkpoint, kind):
    return [line for line in read_log(checkpoint / "log.jsonl") if isinstance(line, kind)]


def test_a_run_ends_in_a_complete_checkpoint(tmp_path, reads):
    recipe = tiny_lm_recipe(tmp_path)
    place = train(recipe, runs=tmp_path, progress=False)
    summary = json.loads((place / "training.json").read_text())
    assert summary["steps"] == 9
    assert summary["selection_split"] == "validation"
    assert summary["data"]["rows_train"] + summary["data"]["rows_validation"] == 40
    assert summary["data"]["rows_validation"] == 3
    assert summary["initialised_from"] is None
    assert [line.step for line in lines_of(place, TrainingLine)] == [4, 8, 9]
    validations = lines_of(place, ValidationLine)
    assert [line.step for line in validations] == [3, 6, 9]
    assert all(line.weights == "averaged" for line in validations)
    best = min(validations, key=lambda line: line.scores["cross_entropy"])
    assert summary["validation"] == best.scores
    assert zoo.info(place).task == "wikitext103"
    model, tokenizer = zoo.load(place), zoo.load_tokenizer(place)
    assert model.config.vocab_size == len(tokenizer)
    assert (model.config.pad_token_id, model.config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    # The same command finds it done, and reads nothing.
    reads.clear()
    assert train(recipe, runs=tmp_path, progress=False) == place
    assert reads == []


@pytest.mark.parametrize("broken_at", [1, 2, 4, 7, 8])
def test_a_run_that_was_broken_off_ends_with_the_same_bits(tmp_path, monkeypatch, broken_at):
    # Epochs of few steps: that the state is carried and reset at the same steps is seen too.
    recipe = tiny_lm_recipe(tmp_path, run__segment_tokens=150, run__state_reset_probability=0.5)
    whole = train(recipe, runs=tmp_path / "whole", progress=False)

    loss = CarriedState.loss

    def breaking(carried, model, batch, step):
        if step == broken_at:
            raise KeyboardInterrupt
        return loss(carried, model, batch, step)

    monkeypatch.setattr(CarriedState, "loss", breaking)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, runs=tmp_path / "broken", progress=False)
    monkeypatch.undo()
    put_in_place(monkeypatch, ROWS)
    broken = train(recipe, runs=tmp_path / "broken", progress=False)

    one, other = weights(whole), weights(broken)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    for kind, values in ((TrainingLine, ("step", "loss", "gradient_norm")), (ValidationLine, ("step", "scores"))):
        said = [[[getattr(line, key) for key in values] for line in lines_of(run, kind)] for run in (whole, broken)]
        assert said[0] == said[1]


def test_the_carried_state_is_that_of_the_whole_stream(tmp_path, monkeypatch):
    # Without dropout and with a learning rate of next to nothing, segments must score as one long segment does.
    still = dict.fromkeys(
        ["model__token_dropout", "model__embedding_dropout", "model__layer_dropout", "model__weight_dropout"], 0.0
    )
    losses = []
    for tokens, steps in ((12, 8), (96, 1)):
        recipe = tiny_lm_recipe(
            tmp_path,
            name=f"tiny-{tokens}",
            model__head_dropout=0.0,
            optimiser__learning_rate=1e-12,
            run__segment_tokens=tokens,
            run__steps=steps,
            cadence__log_every_steps=steps,
            **still,
        )
        place = train(recipe, runs=tmp_path, progress=False)
        losses.append(lines_of(place, TrainingLine)[-1].loss)
    assert losses[0] == pytest.approx(losses[1], abs=2e-6)


def test_streams_start_over_as_often_as_the_recipe_says(tmp_path, monkeypatch):
    begun = []

    begin_with = CarriedState.state_to_begin_with

    def seen(carried, step, device):
        state = begin_with(carried, step, device)
        if state is not None:
            begun.append([not row.any() for row in state.states[1][0]])
            # Only those: the others go on with what they had.
            for row, empty in enumerate(begun[-1]):
                assert empty or torch.equal(state.states[0][1][row], carried.state.states[0][1][row])
        return state

    monkeypatch.setattr(CarriedState, "state_to_begin_with", seen)
    train(tiny_lm_recipe(tmp_path, run__state_reset_probability=0.3, run__steps=60), runs=tmp_path, progress=False)
    share = torch.tensor(begun).float().mean()
    assert 0.2 < share < 0.4
    assert torch.tensor(begun).any(dim=0).all()


def test_a_neural_cache_changes_the_checkpoint_alone(tmp_path):
    cache = {"model__neural_cache_size": 50, "model__neural_cache_weight": 0.2, "model__neural_cache_sharpness": 10.0}
    options = {"selection__checkpoint": "last"}
    plain = train(tiny_lm_recipe(tmp_path, **options), runs=tmp_path / "plain", progress=False)
    cached = train(tiny_lm_recipe(tmp_path, **options, **cache), runs=tmp_path / "cached", progress=False)
    assert all(torch.equal(value, weights(cached)[name]) for name, value in weights(plain).items())
    assert zoo.load(cached).config.neural_cache_size == 50
    assert zoo.load(plain).config.neural_cache_size == 0
    validated = [lines_of(place, ValidationLine)[-1].scores["cross_entropy"] for place in (plain, cached)]
    assert validated[0] == validated[1]
    with pytest.raises(RecipeError, match=r"neural_cache_sharpness are \(50, None, None\), expected all or none"):
        train(tiny_lm_recipe(tmp_path, model__neural_cache_size=50), runs=tmp_path, progress=False)


def test_training_lowers_the_loss(tmp_path):
    recipe = tiny_lm_recipe(tmp_path, run__steps=150, cadence__validate_every_steps=50, cadence__save_every_steps=150)
    place = train(recipe, runs=tmp_path, progress=False)
    scores = [line.scores["cross_entropy"] for line in lines_of(place, ValidationLine)]
    assert scores[-1] < 0.75 * lines_of(place, TrainingLine)[0].loss
    assert scores[-1] < scores[0]


def test_a_run_goes_on_from_a_checkpoint_and_says_so(tmp_path):
    first = train(tiny_lm_recipe(tmp_path), runs=tmp_path, progress=False)
    options = {
        "name": "second",
        "tokenizer": {"kind": "checkpoint", "checkpoint": str(first)},
        "initialise_from": "tiny-lm",
        "run__weight_average_decay": None,
        "selection__checkpoint": "last",
    }
    second = train(
        tiny_lm_recipe(tmp_path, **options, run__steps=1, optimiser__learning_rate=1e-12), runs=tmp_path, progress=False
    )
    assert all(torch.allclose(weights(first)[name], value, atol=1e-9) for name, value in weights(second).items())
    summary = json.loads((second / "training.json").read_text())
    known = zoo.info(first)
    said = summary["initialised_from"]
    assert (said["name"], said["weights_sha256"]) == (known.name, known.weights_sha256)
    assert said["recipe_sha256"] == json.loads((first / "training.json").read_text())["recipe_sha256"]
    other = tiny_lm_recipe(tmp_path, **options | {"name": "third"}, model__hidden_size=9)
    with pytest.raises(RecipeError, match=r"initialise_from is .* has the shape"):
        train(other, runs=tmp_path, progress=False)


def test_a_trained_language_model_samples_without_loops_and_never_writes_an_unknown_word(tmp_path):
    tokenizer = zoo.load_tokenizer(language_checkpoint(tmp_path / "model"))
    settings = generation_settings(tokenizer)
    assert settings.do_sample
    assert settings.repetition_penalty > 1
    assert settings.bad_words_ids == [[tokenizer.unk_token_id]]
    assert (settings.eos_token_id, settings.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    settings.validate(strict=True)


def test_a_model_is_not_validated_on_what_it_learns_from(tmp_path):
    data = {"train": [{**SOURCE, "times": 1}], "validation": {**SOURCE}, "validation_documents": None}
    with pytest.raises(RecipeError, match=r"validation names wikitext-2 \(train\), which data\.train learns from"):
        load_recipe(tiny_lm_recipe(tmp_path, data=data | {"validation_seed": 0})).check()


@pytest.mark.parametrize("validation_seed", [0, 1])
def test_a_model_is_not_validated_on_what_its_first_weights_have_learnt(tmp_path, monkeypatch, validation_seed):
    train(tiny_lm_recipe(tmp_path), runs=tmp_path, progress=False)
    second = {"name": "second", "initialise_from": "tiny-lm", "data__validation_seed": validation_seed}
    recipe = load_recipe(tiny_lm_recipe(tmp_path, **second))
    if validation_seed == 0:  # the same documents are held out
        assert recipe.parents(tmp_path).initial.name == "tiny-lm"
        summary = tmp_path / "tiny-lm" / "checkpoint" / "training.json"
        content = json.loads(summary.read_text())
        content["data"]["digest"] = "1" * 64
        summary.write_text(json.dumps(content))
        with pytest.raises(
            RecipeError, match=r"which has learnt from wikitext-2 \(train\) as it was before it changed"
        ):
            train(tiny_lm_recipe(tmp_path, **second), runs=tmp_path, progress=False)
    else:
        with pytest.raises(
            RecipeError, match=r"initialise_from is tiny-lm, which has learnt from wikitext-2 \(train\)"
        ):
            recipe.parents(tmp_path)
    aside = SOURCE | {"name": "wikitext-103", "split": "validation"}
    others = {"data__validation": aside, "data__validation_documents": None}
    assert load_recipe(tiny_lm_recipe(tmp_path, **second, **others)).parents(tmp_path).initial.name == "tiny-lm"


def test_the_validation_text_of_both_wikitexts_is_one_text(tmp_path):
    validation = SOURCE | {"split": "validation"}
    learnt = [SOURCE | {"times": 1}, validation | {"times": 1}]
    aside = {"data__validation": validation | {"name": "wikitext-103"}, "data__validation_documents": None}
    with pytest.raises(
        RecipeError, match=r"data\.validation names wikitext-103 \(validation\), which data\.train learns"
    ):
        load_recipe(tiny_lm_recipe(tmp_path, data__train=learnt, **aside)).check()


def test_documents_that_are_held_out_of_a_split_are_not_learnt_from_its_second_mention(tmp_path):
    twice = [{**SOURCE, "times": 1}, {**SOURCE, "surface": "ordinary", "times": 1}]
    with pytest.raises(RecipeError, match=r"data\.train names wikitext-2 \(train\) twice"):
        load_recipe(tiny_lm_recipe(tmp_path, data__train=twice)).check()
    other = {**SOURCE, "name": "wikitext-103", "split": "validation"}
    data = {"train": twice, "validation": other, "validation_documents": None, "validation_seed": 0}
    load_recipe(tiny_lm_recipe(tmp_path, data=data)).check()


def test_a_text_that_figures_are_reported_on_is_not_learnt_from(tmp_path):
    recipe = tiny_lm_recipe(tmp_path, data__train=[{**SOURCE, "split": "test", "times": 1}])
    with pytest.raises(
        RecipeError, match=r"data\.train names wikitext-2 \(test\), which figures are reported on; name"
    ):
        load_recipe(recipe).check()


def test_a_validation_that_leaves_nothing_to_learn_from_or_to_score_is_refused(tmp_path, monkeypatch):
    with pytest.raises(
        DataError, match=r"validation_documents is 40, which leaves no document of wikitext-2 \(train\)"
    ):
        train(tiny_lm_recipe(tmp_path, data__validation_documents=40), runs=tmp_path, progress=False)
    put_in_place(monkeypatch, ["word"] * 40)
    rows = {**SOURCE, "documents": "rows"}
    recipe = tiny_lm_recipe(
        tmp_path,
        tokenizer={"kind": "words", "vocab_size": 9, "texts": [rows]},
        data__train=[{**rows, "times": 1}],
        data__validation_documents=1,
        run__segment_tokens=2,
    )
    with pytest.raises(DataError, match="the validation text has one token, expected at least 2; raise"):
        train(recipe, runs=tmp_path, progress=False)
