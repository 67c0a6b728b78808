"""Dynamic evaluation: what is learned comes from what was scored before, and from nothing else."""

import gc
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.evaluation.examples import WIKI, make_foreign, make_writer, save_tokenizer, split_of, wiki
from urzoo.data.wikitext import lines
from urzoo.errors import CheckpointError, UsageError
from urzoo.evaluation import Settings, load_task
from urzoo.evaluation.runner import Evaluation, Subject
from urzoo.evaluation.task import DynamicEvaluation, Task
from urzoo.zoo import load, load_tokenizer

SEGMENT, RATE, DECAY = 16, 0.02, 0.1
SETTINGS = DynamicEvaluation(learning_rate=RATE, decay=DECAY, segment_tokens=SEGMENT)
CACHE = {"neural_cache_size": 30, "neural_cache_weight": 0.3, "neural_cache_sharpness": 5.0}
ALL_ROWS = np.arange(len(WIKI))


def made(folder: Path, **fields: Any) -> Path:
    make_writer(folder, **fields)
    save_tokenizer(folder, WIKI)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("zoo") / "writer", neural_cache_size=30)


def task(context: str | None = None, **changes: Any) -> Task:
    settings = SETTINGS.model_copy(update=changes)
    return load_task("wikitext103_dynamic").model_copy(update={"dynamic_evaluation": settings, "context": context})


def stream(folder: Path, texts: list[str] = WIKI, context: str | None = None, dtype: str = "float32", **changes: Any):
    split = split_of("wikitext-103", "test", text=texts)
    return Evaluation(Subject.of(folder), task(context, **changes), split, Settings(dtype=dtype)).problem


def scores(problem: Any) -> np.ndarray:
    return problem.outputs(ALL_ROWS)["log_probability"]


class ByHand:
    """The model and the policy once more, from the equations alone: a token after another, in float64."""

    def __init__(self, folder: Path) -> None:
        model = load(folder, dtype=torch.float64)
        self.config = model.config
        self.w = {name: weight.detach().requires_grad_() for name, weight in model.named_parameters()}
        self.learned = [self.w[name] for name, weight in model.named_parameters() if weight.requires_grad]

    def next_scores(self, token: int, state: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """The log-probabilities after one more token, and the vector that they come from; the state moves on."""
        features = self.w["model.embed_tokens.weight"][token]
        for number, (hidden, cell) in enumerate(state):
            layer = f"model.layers.{number}.recurrence."
            blocks = self.w[layer + "weight_ih_l0"] @ features + self.w[layer + "weight_hh_l0"] @ hidden
            forget, refine, candidate, output = (blocks + self.w[layer + "bias_l0"]).chunk(4)
            bias = self.w[layer + "forget_bias_l0"]
            f, r = torch.sigmoid(forget + bias), torch.sigmoid(refine - bias)
            e = r * (1 - (1 - f) ** 2) + (1 - r) * f**2
            cell = e * cell + (1 - e) * torch.tanh(candidate)
            features = torch.sigmoid(output) * torch.tanh(cell)
            state[number] = features, cell
        vector = self.w["projection.weight"] @ features + self.w["projection.bias"]
        words = self.w["model.embed_tokens.weight"] @ vector + self.w["lm_head.bias"]
        cutoffs = self.config.adaptive_cutoffs
        if not cutoffs:
            return words.log_softmax(0), vector
        choices = self.w["clusters.weight"] @ vector + self.w["clusters.bias"]
        first = torch.cat([words[: cutoffs[0]], choices]).log_softmax(0)
        rare = [
            first[cutoffs[0] + number] + words[start:end].log_softmax(0)
            for number, (start, end) in enumerate(pairwise([*cutoffs, len(words)]))
        ]
        return torch.cat([first[: cutoffs[0]], *rare]), vector

    def with_cache(self, own: Tensor, vector: Tensor, seen: list[tuple[Tensor, int]]) -> Tensor:
        """The scores mixed with the tokens that followed the vectors most like this one."""
        seen = seen[-self.config.neural_cache_size :]
        if not seen:
            return own
        alike = torch.stack([torch.cosine_similarity(vector, other, dim=0) for other, _ in seen])
        shares = (self.config.neural_cache_sharpness * alike).softmax(0)
        pointed = torch.zeros_like(own).index_add(0, torch.tensor([token for _, token in seen]), shares)
        weight = self.config.neural_cache_weight
        return torch.log((1 - weight) * own.exp() + weight * pointed)

    def total(self, ids: list[int], *, cache: bool) -> float:
        """The log-probability of the tokens after the first."""
        first = [weight.detach().clone() for weight in self.learned]
        squares = [torch.zeros_like(weight) for weight in self.learned]
        zeros = torch.zeros(self.config.hidden_size, dtype=torch.float64)
        state, seen = [(zeros, zeros)] * self.config.num_layers, []
        total, losses, steps = 0.0, [], 0
        for token, target in pairwise(ids):
            own, vector = self.next_scores(token, state)
            losses.append(-(self.with_cache(own, vector, seen) if cache else own)[target])
            seen.append((vector, target))
            total -= losses[-1].item()
            if len(losses) < SEGMENT:
                continue
            steps += 1
            gradients = torch.autograd.grad(torch.stack(losses).mean(), self.learned)
            norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
            for weight, start, square, gradient in zip(self.learned, first, squares, gradients, strict=True):
                gradient = gradient / max(1.0, norm)
                square.copy_(0.999 * square + 0.001 * gradient**2)
                stepped = weight - RATE * gradient / ((square / (1 - 0.999**steps)).sqrt() + 1e-8)
                weight.data = stepped.detach() + DECAY * (start - stepped.detach())
            losses = []
            state = [(hidden.detach(), cell.detach()) for hidden, cell in state]
            seen = [(vector.detach(), target) for vector, target in seen]
        return total


def ids_of(folder: Path) -> list[int]:
    tokenizer = load_tokenizer(folder)
    return [tokenizer.eos_token_id, *(token for line in lines(WIKI) for token in tokenizer(line)["input_ids"])]


@pytest.mark.parametrize(
    "fields",
    [{}, CACHE, CACHE | {"adaptive_cutoffs": [20, 90]}, {"train_gate_bias": False}],
    ids=["plain", "cache", "adaptive", "frozen"],
)
def test_the_scores_are_those_of_the_policy_written_out_token_by_token(fields: dict[str, Any], tmp_path: Path):
    folder, cache = made(tmp_path / "writer", **fields), "neural_cache_size" in fields
    found = scores(stream(folder, context="neural-cache" if cache else None, dtype="float64")).sum()
    assert found == pytest.approx(ByHand(folder).total(ids_of(folder), cache=cache), rel=1e-5)
    plain = Evaluation(Subject.of(folder), load_task("wikitext103"), wiki(), Settings()).problem
    assert found != pytest.approx(scores(plain).sum(), rel=1e-3)
    assert found == pytest.approx(
        scores(stream(folder, context="neural-cache" if cache else None)).sum(), rel=1e-4
    )  # in float32


def test_no_score_depends_on_what_comes_later(folder: Path):
    other = [*WIKI[:-1], " Something else entirely stands here . \n"]
    whole, changed = (scores(stream(folder, texts)) for texts in (WIKI, other))
    assert np.array_equal(whole[:-1], changed[:-1])


def test_what_was_learned_is_forgotten_at_the_beginning_and_the_checkpoint_stays(folder: Path):
    problem = stream(folder)
    shipped = {name: weight.clone() for name, weight in problem.scorer.model.state_dict().items()}
    whole = scores(problem)
    assert np.array_equal(problem.outputs(np.arange(3, 9))["log_probability"], whole[3:9])
    assert all(torch.equal(weight, shipped[name]) for name, weight in problem.scorer.model.state_dict().items())
    assert np.array_equal(scores(stream(folder)), whole)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_of_gradients_changes_nothing(folder: Path, mode: Callable[[], Any]):
    whole = scores(stream(folder))
    with mode():
        problem = stream(folder)
        assert np.array_equal(scores(problem), whole)
        assert np.array_equal(scores(problem), whole)


def test_a_step_is_as_fine_in_a_checkpoint_of_16_bits(folder: Path, tmp_path: Path):
    load(folder).bfloat16().save_pretrained(tmp_path / "short")
    load(tmp_path / "short").save_pretrained(tmp_path / "long")
    for name in ("short", "long"):
        save_tokenizer(tmp_path / name, WIKI)
    short, long = (scores(stream(tmp_path / name, learning_rate=1e-5)) for name in ("short", "long"))
    assert np.array_equal(short, long)


def test_memory_does_not_grow_with_the_text(folder: Path):
    problem = stream(folder, WIKI * 9, context="neural-cache")
    counts = []
    for start in range(0, 9 * len(WIKI), 3 * len(WIKI)):
        problem.outputs(np.arange(start, start + 3 * len(WIKI)))
        gc.collect()
        counts.append(sum(issubclass(type(one), Tensor) and one.grad_fn is not None for one in gc.get_objects()))
    assert counts[-1] <= max(counts[:-1])


def test_a_row_says_so(folder: Path):
    assert stream(folder, context="neural-cache").data.subset == (
        "with a neural cache of 30 tokens, weight 0.2, sharpness 20; "
        "with dynamic evaluation: a step of 0.02 each 16 tokens, decay 0.1"
    )


def test_a_model_that_reads_in_windows_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(UsageError, match=r"lets a model learn .* reads in windows; name the task without it, wikitext"):
        Evaluation(Subject.of(make_foreign("gpt2", tmp_path / "gpt2")[0]), task(), wiki(), Settings())


def test_a_rate_that_ruins_the_weights_is_named(folder: Path):
    with pytest.raises(CheckpointError, match=r"gives NaN or infinite scores after learning at .*_rate 1e\+30; try"):
        scores(stream(folder, learning_rate=1e30))
    problem = stream(folder, learning_rate=100.0)
    with pytest.raises(CheckpointError, match=r"a perplexity that no number can hold after .*learning_rate 100; try"):
        problem.figures(problem.outputs(ALL_ROWS), ALL_ROWS)
