"""The problems beyond MNIST: right figures, independent of batches, padding and interruptions."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.evaluation.examples import (
    BATCH_SIZES,
    WIKI,
    letters,
    make_example,
    make_reviewer,
    make_writer,
    reviews,
    run,
    save_tokenizer,
    split_of,
    wiki,
)
from urzoo.data.generate import adding_sequences, copy_sequences
from urzoo.data.wikitext import article_lines, detokenised, lines, pages, words_of_page
from urzoo.errors import CheckpointError, DataError, UsageError
from urzoo.evaluation import Settings, load_task
from urzoo.evaluation.intervals import bootstrapped_ratio
from urzoo.evaluation.language_modelling import LanguageModellingStream
from urzoo.evaluation.runner import Evaluation, Subject
from urzoo.evaluation.sequence_classification import resampled
from urzoo.models import (
    PixelSequenceImageProcessor,
    URLSTMConfig,
    URLSTMForImageClassification,
    URLSTMForSequenceClassification,
)
from urzoo.zoo import load, load_tokenizer


@pytest.fixture(scope="module")
def reviewer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reviewer(tmp_path_factory.mktemp("zoo") / "reviewer")


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_texts_are_scored_as_one_by_one(reviewer: Path, batch_size: int):
    split = reviews()
    model, tokenizer = load(reviewer), load_tokenizer(reviewer)
    scores = []
    with torch.inference_mode():
        for text in split.texts:
            ids = tokenizer(text)["input_ids"][:50]
            scores.append(model(input_ids=torch.tensor([ids])).logits[0].double().softmax(-1).numpy())
    result = run(reviewer, "imdb", split, batch_size=batch_size)
    assert result.metrics["accuracy"] == accuracy_score(split.labels, np.argmax(scores, axis=1))
    assert result.metrics["cross_entropy"] == pytest.approx(log_loss(split.labels, np.stack(scores)), rel=1e-6)


def test_a_tokenizer_that_pads_on_the_left_changes_nothing(reviewer: Path, tmp_path: Path):
    import shutil

    left = shutil.copytree(reviewer, tmp_path / "left")
    save_tokenizer(left, reviews().texts, model_max_length=50, padding_side="left")
    assert run(left, "imdb", reviews()).metrics == run(reviewer, "imdb", reviews()).metrics


def test_a_tokenizer_that_gives_no_mask_or_has_no_padding_token_changes_nothing(reviewer: Path, tmp_path: Path):
    import shutil

    for options in ({"model_input_names": ["input_ids"]}, {"pad_token": None}):
        plain = shutil.copytree(reviewer, tmp_path / "plain", dirs_exist_ok=True)
        save_tokenizer(plain, reviews().texts, model_max_length=50, **options)
        assert run(plain, "imdb", reviews()).metrics == run(reviewer, "imdb", reviews()).metrics


def test_a_limit_takes_the_first_rows_whatever_their_length(reviewer: Path):
    few = reviews().select(np.arange(5))
    limited = run(reviewer, "imdb", reviews(), limit=5)
    assert limited.partial
    assert limited.metrics == pytest.approx(run(reviewer, "imdb", few).metrics, rel=1e-6)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize(("task", "scale"), [("character_trajectories", 1.0), ("character_trajectories_double", 2.0)])
def test_series_are_scored_as_one_by_one(tmp_path: Path, batch_size: int, task: str, scale: float):
    torch.manual_seed(0)
    config = URLSTMConfig(input_size=3, hidden_size=6, num_labels=20)
    URLSTMForSequenceClassification(config).save_pretrained(tmp_path / "writer")
    split, model = letters(), load(tmp_path / "writer")
    with torch.inference_mode():
        inputs = [torch.from_numpy(resampled(series, scale))[None] for series in split.sequences]
        scores = [model(inputs_embeds=one).logits[0].double().softmax(-1).numpy() for one in inputs]
    result = run(tmp_path / "writer", task, split, batch_size=batch_size)
    assert result.metrics["accuracy"] == accuracy_score(split.labels, np.argmax(scores, axis=1))
    expected = log_loss(split.labels, np.stack(scores), labels=range(20))
    assert result.metrics["cross_entropy"] == pytest.approx(expected, rel=1e-6)


def test_another_sampling_rate_keeps_the_curve():
    time = np.linspace(0, 1, 101)
    series = np.stack([time, 2 * time - 1], axis=1).astype(np.float32)
    assert resampled(series, 1.0) is series
    for scale, steps in ((2.0, 202), (0.5, 50)):
        other = resampled(series, scale)
        assert other.shape == (steps, 2)
        assert np.allclose(other[:, 0], np.linspace(0, 1, steps), atol=1e-6)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_colour_images_are_scored_as_one_by_one(tmp_path: Path, batch_size: int):
    torch.manual_seed(0)
    folder = tmp_path / "colour"
    config = URLSTMConfig(input_size=3, hidden_size=4, num_labels=10)
    URLSTMForImageClassification(config).save_pretrained(folder)
    processor = PixelSequenceImageProcessor(size={"height": 32, "width": 32}, do_grayscale=False)
    processor.save_pretrained(folder)
    images = np.random.RandomState(0).randint(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    split = split_of("cifar10", "test", img=images, label=np.arange(9, dtype=np.int64))
    model = load(folder)
    with torch.inference_mode():
        singles = [processor(images=Image.fromarray(image), return_tensors="pt") for image in images]
        scores = [model(**single).logits[0].double().softmax(-1).numpy() for single in singles]
    result = run(folder, "scifar", split, batch_size=batch_size)
    assert result.metrics["accuracy"] == accuracy_score(split.labels, np.argmax(scores, axis=1))
    with pytest.raises(UsageError, match="channels 3, the task requires 1"):
        run(folder, "smnist", split)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_writer(tmp_path_factory.mktemp("zoo") / "writer")
    save_tokenizer(folder, WIKI)
    return folder


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_the_stream_is_scored_as_one_long_text(language_model: Path, batch_size: int):
    model, tokenizer = load(language_model), load_tokenizer(language_model)
    ids = [token for line in lines(WIKI) for token in tokenizer(line)["input_ids"]]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[tokenizer.eos_token_id, *ids[:-1]]])).logits[0].double()
    total = float(logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum())
    words = sum(len(line.split()) + 1 for line in lines(WIKI))
    result = run(language_model, "wikitext103", wiki(), batch_size=batch_size)
    assert result.metrics["word_perplexity_stream"] == pytest.approx(np.exp(-total / words), rel=1e-6)
    assert result.metrics["tokens_per_word"] == len(ids) / words
    assert result.samples == len(WIKI)


def test_a_row_is_a_line_whether_its_end_is_written_or_not(language_model: Path):
    """Each line end counts as a word, so that it must be predicted."""
    rows = ["The first line .", "", "The third", "The fourth , and\nthe fifth ."]
    written = [f"{row or ' '}\n" for row in rows]
    bare, whole = (
        run(language_model, "wikitext103", split_of("wikitext-103", "test", text=of)) for of in (rows, written)
    )
    assert bare.metrics == whole.metrics
    ids = sum(len(load_tokenizer(language_model)(line)["input_ids"]) for line in written)
    assert bare.metrics["tokens_per_word"] == ids / 18


def test_float64_figures_are_those_of_float64(tmp_path: Path):
    folder, split = make_example("character_trajectories", tmp_path / "letters")
    model = load(folder, dtype=torch.float64)
    with torch.inference_mode():
        scores = [model(inputs_embeds=torch.from_numpy(one)[None].double()).logits[0] for one in split.sequences]
    expected = -np.mean([float(one.log_softmax(-1)[label]) for one, label in zip(scores, split.labels, strict=True)])
    found = run(folder, "character_trajectories", split, dtype="float64").metrics["cross_entropy"]
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_neural_cache_stands_beside_its_figure(tmp_path: Path):
    folder = make_writer(tmp_path / "plain")
    save_tokenizer(folder, WIKI)
    plain = run(folder, "wikitext103", wiki())
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises(
        UsageError, match=r"config\.json has no neural_cache_size; name the task without it, wikitext103"
    ):
        run(folder, "wikitext103_cache", wiki())
    (folder / "config.json").write_text(json.dumps(config | {"neural_cache_size": 30}))
    cached = run(folder, "wikitext103_cache", wiki())
    assert cached.data.subset == "with a neural cache of 30 tokens, weight 0.2, sharpness 20"
    assert cached.metrics["word_perplexity_stream"] != plain.metrics["word_perplexity_stream"]
    still_plain = run(folder, "wikitext103", wiki())
    assert still_plain.data.subset is None
    assert still_plain.metrics == plain.metrics


def test_the_stream_goes_on_rightly_after_lines_that_others_have_scored(language_model: Path):
    evaluation = Evaluation(Subject.of(language_model), load_task("wikitext103"), wiki(), Settings())
    stream = evaluation.problem
    assert isinstance(stream, LanguageModellingStream)
    whole = stream.outputs(np.arange(len(WIKI)))["log_probability"]
    for rows in (np.arange(9, 12), np.arange(3, 5), np.arange(12, 14)):
        assert np.allclose(stream.outputs(rows)["log_probability"], whole[rows], rtol=1e-6)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_pages_are_scored_as_lm_eval_defines(language_model: Path, batch_size: int):
    model, tokenizer = load(language_model), load_tokenizer(language_model)
    found = pages(WIKI)
    assert len(found) == 2
    total = 0.0
    with torch.inference_mode():
        for page in found:
            ids = tokenizer(detokenised(page))["input_ids"]
            logits = model(input_ids=torch.tensor([[tokenizer.eos_token_id, *ids[:-1]]])).logits[0].double()
            total += float(logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum())
    size = sum(len(page.encode()) for page in found)
    split = split_of("wikitext-103-raw", "test", text=WIKI)
    metrics = run(language_model, "wikitext103_pages", split, batch_size=batch_size).metrics
    assert metrics["word_perplexity"] == pytest.approx(np.exp(-total / sum(map(words_of_page, found))), rel=1e-6)
    assert metrics["bits_per_byte"] == pytest.approx(-total / size / np.log(2), rel=1e-6)
    assert metrics["byte_perplexity"] == pytest.approx(2 ** metrics["bits_per_byte"], rel=1e-9)


def test_pages_are_cut_where_lm_eval_cuts_them():
    """At any line that looks like a title, also in a sum; the line end before it goes."""
    text = [*WIKI[:5], " = 1 rad / s and a nominal impedance k = \n", " It goes on . \n", *WIKI[5:]]
    found = pages(text)
    assert [page.split("\n")[0] for page in found] == [
        " = First Page = ",
        " = 1 rad / s and a nominal impedance k = ",
        " = Second Page = ",
    ]
    assert "\n".join([" ", *found]) == "".join(lines(text))
    assert [len(article) for article in article_lines(text)] == [10, 5]
    assert pages([" no title here \n", " nor = here = \n"]) == []


def test_a_tokenizer_that_hides_words_behind_unknown_is_refused(tmp_path: Path):
    folder = make_writer(tmp_path / "liar")
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "the": 1, "</s>": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    with pytest.raises(CheckpointError, match="would flatter the perplexity"):
        run(folder, "wikitext103", wiki())


def test_the_detokeniser_writes_as_people_do():
    page = ' = X = \n \n He said " it \'s 3 @.@ 5 , well @-@ known ( or not ) " . \n'
    assert detokenised(page) == ' = X =\n\nHe said "it\'s 3.5, well-known (or not)".\n'


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_the_copy_problem_is_scored_over_its_symbols(tmp_path: Path, batch_size: int):
    folder = make_writer(tmp_path / "copier", vocabulary=10, tie_word_embeddings=False)
    sequences = copy_sequences(9, 40, np.random.RandomState(0))
    symbols = sequences[:, :, 0].astype(np.int64)
    with torch.inference_mode():
        logits = load(folder)(input_ids=torch.from_numpy(symbols)).logits[:, -10:].double()
    told, right = logits.softmax(-1).reshape(-1, 10).numpy(), symbols[:, :10].reshape(-1)
    result = run(folder, "copy", split_of("copy", "test", sequence=list(sequences)), batch_size=batch_size)
    assert result.metrics["accuracy"] == accuracy_score(right, told.argmax(axis=1))
    assert result.metrics["cross_entropy"] == pytest.approx(log_loss(right, told, labels=range(10)), rel=1e-6)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_the_adding_problem_is_scored_by_squared_error(tmp_path: Path, batch_size: int):
    torch.manual_seed(0)
    config = URLSTMConfig(input_size=2, hidden_size=8, num_labels=1, problem_type="regression")
    URLSTMForSequenceClassification(config).save_pretrained(tmp_path / "adder")
    sequences = adding_sequences(9, 30, np.random.RandomState(0))
    with torch.inference_mode():
        told = load(tmp_path / "adder")(inputs_embeds=torch.from_numpy(sequences)).logits[:, 0].numpy()
    expected = mean_squared_error((sequences[:, :, 0] * sequences[:, :, 1]).sum(axis=1), told)
    split = split_of("adding", "test", sequence=list(sequences))
    result = run(tmp_path / "adder", "adding", split, batch_size=batch_size)
    assert result.metrics["mean_squared_error"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("task", ["copy", "adding"])
@pytest.mark.parametrize("wrong", ["ragged", "channels", "kind"])
def test_sequences_of_another_problem_are_refused(tmp_path: Path, task: str, wrong: str):
    folder, split = make_example(task, tmp_path / "model")
    sequences = [sequence.copy() for sequence in split.sequences]
    if wrong == "ragged":
        sequences[3] = sequences[3][1:]
    elif wrong == "channels":
        sequences = [np.repeat(sequence[:, :1], 3, axis=1) for sequence in sequences]
    else:
        sequences[3][12, -1] = 0.5
    with pytest.raises(DataError, match=rf"{task} \(test\) holds no sequences of this problem"):
        run(folder, task, split_of(task, "test", sequence=sequences))


def test_every_sequence_of_the_synthetic_problems_is_of_its_kind():
    random = np.random.RandomState(0)
    copies = copy_sequences(50, 500, random)[:, :, 0]
    assert set(np.unique(copies[:, :10])) == set(range(1, 9))
    assert (copies[:, 489] == 9).all()
    assert (np.delete(copies, [*range(10), 489], axis=1) == 0).all()
    numbers, marks = np.moveaxis(adding_sequences(50, 2000, random), 2, 0)
    assert ((numbers >= 0) & (numbers <= 1)).all()
    assert (marks[:, :1000].sum(axis=1) == 1).all()
    assert (marks[:, 1000:].sum(axis=1) == 1).all()


def test_the_bootstrap_covers_the_ratio_and_shrinks_with_the_samples():
    random = np.random.RandomState(0)
    widths = []
    for samples in (100, 10_000):
        above, below = random.normal(-4, 1, samples), np.ones(samples, dtype=np.int64)
        interval = bootstrapped_ratio(above, below, _negated, block=5)
        assert interval.low < 4 < interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 5
    assert widths[0] == pytest.approx(2 * 1.96 / 10, rel=0.3)


def test_of_few_blocks_there_is_no_interval():
    values = np.linspace(-5, -3, 640)
    assert bootstrapped_ratio(values[:576], np.ones(576, dtype=np.int64), _negated, block=64) is None
    assert bootstrapped_ratio(values, np.ones(640, dtype=np.int64), _negated, block=64) is not None


_negated: Callable[[np.ndarray], np.ndarray] = np.negative


@pytest.mark.parametrize("task", ["imdb", "copy", "adding", "wikitext103", "character_trajectories"])
def test_a_model_of_another_kind_is_refused_by_every_task(tmp_path: Path, task: str):
    folder = tmp_path / "images"
    URLSTMForImageClassification(URLSTMConfig(hidden_size=4)).save_pretrained(folder)
    with pytest.raises(UsageError, match=f"task {task} needs a model"):
        run(folder, task, wiki())
