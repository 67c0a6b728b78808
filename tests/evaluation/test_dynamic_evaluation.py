"""Dynamic evaluation: what is learned comes from what was scored before, and from nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.examples import WIKI, make_foreign, make_writer, save_tokenizer, split_of, wiki
from urzoo.data.wikitext import lines
from urzoo.errors import UsageError
from urzoo.evaluation import Settings, load_task
from urzoo.evaluation.runner import Evaluation, Subject
from urzoo.evaluation.task import DynamicEvaluation, Task
from urzoo.zoo import load, load_tokenizer

SETTINGS = DynamicEvaluation(learning_rate=0.02, decay=0.1, segment_tokens=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_writer(tmp_path_factory.mktemp("zoo") / "writer", neural_cache_size=30)
    save_tokenizer(folder, WIKI)
    return folder


def task(context: str | None) -> Task:
    return load_task("wikitext103_dynamic").model_copy(update={"dynamic_evaluation": SETTINGS, "context": context})


def stream(folder: Path, texts: list[str] = WIKI, context: str | None = None):
    split = split_of("wikitext-103", "test", text=texts)
    return Evaluation(Subject.of(folder), task(context), split, Settings()).problem


def by_hand(folder: Path, *, neural_cache: bool) -> float:
    """The log-probability of the whole text: segment after segment of tokens, whatever the lines."""
    model, tokenizer = load(folder), load_tokenizer(folder)
    shipped = [weight.detach().clone() for weight in model.parameters()]
    squares = [torch.zeros_like(weight) for weight in shipped]
    ids = [tokenizer.eos_token_id, *(token for line in lines(WIKI) for token in tokenizer(line)["input_ids"])]
    total, state = 0.0, None
    for number, at in enumerate(range(0, len(ids) - 1, 16), 1):
        targets = ids[at + 1 : at + 17]
        inputs = torch.tensor([ids[at : at + len(targets)]])
        output = model(inputs, cache_params=state, use_cache=True, neural_cache=neural_cache)
        state = output.cache_params.detach()
        chosen = output.logits[0].log_softmax(-1)[torch.arange(len(targets)), torch.tensor(targets)].sum()
        total += chosen.item()
        gradients = torch.autograd.grad(-chosen / 16, list(model.parameters()), materialize_grads=True)
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        if len(targets) == 16:
            with torch.no_grad():
                for weight, first, square, gradient in zip(
                    model.parameters(), shipped, squares, gradients, strict=True
                ):
                    gradient = gradient * min(1.0, 1.0 / float(norm))
                    square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                    weight -= 0.02 * gradient / ((square / (1 - 0.999**number)).sqrt() + 1e-8)
                    weight += 0.1 * (first - weight)
    return total


@pytest.mark.parametrize("context", [None, "neural-cache"])
def test_the_weights_move_once_a_segment_by_what_was_scored(folder: Path, context: str | None):
    problem = stream(folder, context=context)
    found = problem.outputs(np.arange(len(WIKI)))["log_probability"].sum()
    assert found == pytest.approx(by_hand(folder, neural_cache=context is not None), rel=1e-4)
    plain = Evaluation(Subject.of(folder), load_task("wikitext103"), wiki(), Settings()).problem
    assert found != pytest.approx(plain.outputs(np.arange(len(WIKI)))["log_probability"].sum(), rel=1e-3)


def test_no_score_depends_on_what_comes_later(folder: Path):
    other = [*WIKI[:-1], " Something else entirely stands here . \n"]
    whole, changed = (stream(folder, texts).outputs(np.arange(len(WIKI)))["log_probability"] for texts in (WIKI, other))
    assert np.array_equal(whole[:-1], changed[:-1])


def test_what_was_learned_is_forgotten_at_the_beginning_and_the_checkpoint_stays(folder: Path):
    problem = stream(folder)
    shipped = {name: weight.clone() for name, weight in problem.scorer.model.state_dict().items()}
    whole = problem.outputs(np.arange(len(WIKI)))["log_probability"]
    assert np.array_equal(problem.outputs(np.arange(3, 9))["log_probability"], whole[3:9])
    assert all(torch.equal(weight, shipped[name]) for name, weight in problem.scorer.model.state_dict().items())


def test_a_row_says_so(folder: Path):
    assert stream(folder, context="neural-cache").data.subset == (
        "with a neural cache of 30 tokens, weight 0.2, sharpness 20; "
        "with dynamic evaluation: a step of 0.02 each 16 tokens, decay 0.1"
    )


def test_a_model_that_reads_in_windows_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(UsageError, match=r"lets a model learn .* reads in windows; name the task without it, wikitext"):
        Evaluation(Subject.of(make_foreign("gpt2", tmp_path / "gpt2")[0]), task(None), wiki(), Settings())
