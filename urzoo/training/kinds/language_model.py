"""Training of language models: streams of tokens, the state carried from one segment to the next.

Each step reads the next `segment_tokens` tokens of `batch_size` streams, goes back through them, and hands the state on
to the next step.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from accelerate.utils import gather
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from urzoo.errors import CheckpointError, RecipeError
from urzoo.models import URLSTMCache, URLSTMConfig, URLSTMForCausalLM
from urzoo.processes import Processes
from urzoo.schema import Name, Number, Positive, Strict, read_yaml
from urzoo.training.batches import Batch
from urzoo.training.initial import begin_with
from urzoo.training.job import Job, Parents, Sources
from urzoo.training.recipe import (
    AverageDecay,
    CellRecipe,
    Dropout,
    MayBeLeftOut,
    PositiveNumber,
    StreamRecipe,
    StreamRunRecipe,
)
from urzoo.training.scores import CROSS_ENTROPY, Score
from urzoo.training.text.corpus import Corpus, load_corpus
from urzoo.training.text.documents import refuse_scored, text_of
from urzoo.training.text.recipe import TextData, TokenizerRecipe
from urzoo.training.text.streams import TokenStreams, scored_segments
from urzoo.training.text.surface import UNKNOWN
from urzoo.zoo.schema import TrainingData

WORD_PERPLEXITY = Score("word_perplexity", "perplexity for each word", logarithmic=True)
# Tokens of a validation batch; it changes no score.
_VALIDATION_TOKENS = 1024


class LanguageModelSection(CellRecipe):
    """The fields of `URLSTMConfig` that a recipe decides; the vocabulary comes from the tokenizer.

    `head_dtype` is the type of the product with the vocabulary, whatever `run.precision` is. `adaptive_cutoffs` are
    the ids at which the clusters of an adaptive softmax begin; null for a plain one. The neural cache acts neither in
    training nor on validation; the checkpoint keeps its settings for those who ask for it. Its keys may be left out.
    See `urzoo.models.neural_cache_urlstm`.
    """

    embedding_size: Positive
    residual: bool
    layer_norm: bool
    tie_word_embeddings: bool
    head_dtype: Literal["float32", "bfloat16"]
    adaptive_cutoffs: Annotated[list[Positive], Field(min_length=1)] | None
    initializer_range: Annotated[Number, Field(gt=0)]
    token_dropout: Dropout
    embedding_dropout: Dropout
    layer_dropout: Dropout
    weight_dropout: Dropout
    head_dropout: Dropout
    neural_cache_size: MayBeLeftOut[Positive] = None
    neural_cache_weight: MayBeLeftOut[Annotated[Number, Field(gt=0, lt=1)]] = None
    neural_cache_sharpness: MayBeLeftOut[PositiveNumber] = None

    @model_validator(mode="after")
    def _neural_cache_is_whole(self) -> Self:
        parts = (self.neural_cache_size, self.neural_cache_weight, self.neural_cache_sharpness)
        if None in parts and parts != (None, None, None):
            raise ValueError(
                f"neural_cache_size, neural_cache_weight and neural_cache_sharpness are {parts}, expected all or none"
            )
        return self


class LanguageModelRunRecipe(StreamRunRecipe):
    """Length, precision and randomness.

    `batch_size` is the number of streams of all processes together. `weight_average_decay` keeps an exponential moving
    average of the weights, which is then what is validated and shipped. `state_reset_probability` is that of a stream
    to begin a segment with the empty state in place of the carried one: a model that never sees the empty state after
    its first step reads the beginning of a text badly. The key may be left out, as in recipes that are older than it.
    """

    segment_tokens: Positive
    weight_average_decay: AverageDecay
    state_reset_probability: MayBeLeftOut[Annotated[Number, Field(ge=0, lt=1)]] = None


class LanguageModelSelectionRecipe(Strict):
    """Which weights the checkpoint gets: the last, or those of the validation with the lowest cross-entropy."""

    checkpoint: Literal["best", "last"]


class LanguageModelRecipe(StreamRecipe):
    """One training run of a language model.

    `task` is what the model is evaluated on; or a name of its own for a model that others are made of.
    `initialise_from` names a language model of the same shape with the same tokenizer, in the folder of runs or
    shipped, whose weights the run begins with in place of drawn ones.
    """

    architecture: Literal["URLSTMForCausalLM"]
    model: LanguageModelSection
    tokenizer: TokenizerRecipe
    data: TextData
    run: LanguageModelRunRecipe
    selection: LanguageModelSelectionRecipe
    initialise_from: Name | None

    @model_validator(mode="after")
    def _cutoffs_increase(self) -> Self:
        cutoffs = self.model.adaptive_cutoffs or []
        if any(after <= before for before, after in pairwise(cutoffs)):
            raise ValueError(f"model.adaptive_cutoffs is {cutoffs}, expected increasing ids")
        return self

    @property
    def score(self) -> Score:
        """The perplexity."""
        return WORD_PERPLEXITY

    @property
    def selected_by(self) -> Score | None:
        """The cross entropy where the best weights are kept; None where the last are."""
        return CROSS_ENTROPY if self.selection.checkpoint == "best" else None

    def splits(self) -> set[tuple[str, str]]:
        """Those of the texts to learn from."""
        return {(source.name, source.split) for source in self.data.train}

    def check(self) -> None:
        """Refuse to learn from a split that figures are reported on, or from what the model is validated on."""
        aside, learnt = self.data.validation, [("data.train", source) for source in self.data.train]
        refuse_scored(self.tokenizer, *learnt, *([] if aside is None else [("data.validation", aside)]))
        splits = [(part.name, part.split) for _, part in learnt]
        if aside is None and (twice := next((one for one in splits if splits.count(one) > 1), None)):
            raise RecipeError(
                f"data.train names {twice[0]} ({twice[1]}) twice, so that documents held out of the one are learnt in "
                "the other; name it once, with times, or a split as data.validation."
            )
        if aside is not None and text_of(aside.name, aside.split) in {text_of(*one) for one in splits}:
            raise RecipeError(
                f"data.validation names {aside.name} ({aside.split}), which data.train learns from; name another split."
            )

    def parents(self, runs: Path) -> Parents:
        """The checkpoint to begin with, which has not read what this model is validated on.

        Raises:
            RecipeError: There is none of that name, or it has.
            CheckpointError: A file of it is missing or damaged.
        """
        found, aside = super().parents(runs), self.data.validation
        held_out = {text_of(part.name, part.split) for part in (self.data.train if aside is None else [aside])}
        read = next((data for data in found.data() if text_of(data.name, data.split) in held_out), None)
        if (initial := found.initial) is None or read is None:
            return found
        own = read_yaml(initial.folder / "recipe.yaml", error=CheckpointError)
        if not isinstance(own, dict) or own.get("data") != self.data.model_dump(mode="json"):
            raise RecipeError(
                f"initialise_from is {initial.name}, which has learnt from {read.name} ({read.split}), and this recipe "
                "holds out documents of it, which would be judged as if they were new. Name a split that it has not "
                "read as data.validation, or hold out what it held out: with its section data."
            )
        return found

    def prepare(self, sources: Sources) -> Job:
        """The tokenizer, the tokens, and the model.

        Raises:
            UsageError: The caller gave data.
            RecipeError: The initial checkpoint does not fit, or held other documents out of the same splits.
            DataError: The data cannot be had, or are too few.
        """
        sources.refuse_data("the texts of several sections")
        corpus, run = load_corpus(self.data, self.tokenizer, sources), self.run
        if self.data.validation is None:
            refuse_changed_documents(sources.parents, corpus.data)
        streams = TokenStreams(
            corpus.training,
            steps=run.steps,
            batch_size=run.batch_size,
            segment_tokens=run.segment_tokens,
            seed=run.seed,
        )
        model = build_model(self, corpus.tokenizer)
        model.generation_config = generation_settings(corpus.tokenizer)
        if sources.parents.initial is not None:
            begin_with(sources.parents.initial, model, corpus.tokenizer)
        carried = CarriedState(run, streams.steps_per_epoch, model.config, sources.processes)
        return Job(
            model=model,
            training=streams,
            scores=partial(scores, corpus=corpus),
            data=[*corpus.data, *sources.parents.data()],
            digest=corpus.digest,
            size=(
                f"{streams.tokens:,} tokens an epoch, {run.steps:,} steps of {run.batch_size * run.segment_tokens:,}"
            ),
            loss=carried.loss,
            carried=carried,
            preprocessor=corpus.tokenizer,
        )


def refuse_changed_documents(parents: Parents, now: Sequence[TrainingData]) -> None:
    """Refuse weights to begin with for which a split had other documents, or in another order: it held out others.

    Raises:
        RecipeError: There is such a split.
    """
    for before in parents.data():
        for data in now:
            same = text_of(before.name, before.split) == text_of(data.name, data.split)
            if same and (before.digest != data.digest or before.order_digest not in (None, data.order_digest)):
                name = None if parents.initial is None else parents.initial.name
                raise RecipeError(
                    f"initialise_from is {name}, which has learnt from {data.name} ({data.split}) as it was before it "
                    f"changed, and held out other documents of it. Train {name} again, or name a split that it has not "
                    "read as data.validation."
                )


def build_model(recipe: LanguageModelRecipe, tokenizer: PreTrainedTokenizerFast) -> URLSTMForCausalLM:
    """The model that a recipe describes, with drawn weights.

    A padding token that is also the end of a text is no padding to the model.

    Raises:
        UsageError: The cut-offs lie outside the vocabulary.
    """
    padding, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    config = URLSTMConfig(
        **recipe.model.model_dump(),
        vocab_size=len(tokenizer),
        pad_token_id=None if padding == end else padding,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
    )
    torch.manual_seed(recipe.run.seed)
    return URLSTMForCausalLM(config)


def generation_settings(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """How a checkpoint writes where nothing else is asked for: drawn from the probable words, without repeating itself.

    The most probable word each time makes loops of any language model of this size. What stands for a word that was
    left out of a training text is never written.
    """
    padding, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    unknown = [[one] for one in range(len(tokenizer)) if UNKNOWN in tokenizer.decode([one])]
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True,
        temperature=0.7,
        top_k=0,
        top_p=0.95,
        repetition_penalty=1.15,
        bad_words_ids=unknown or None,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=padding,
    )


class CarriedState:
    """The state at the end of the step before, of this process's streams.

    Args:
        run: The section of the recipe.
        steps_per_epoch: After so many steps the streams start over, so that no state is carried.
        config: That of the model.
        processes: Those of the run, which share the streams.
    """

    def __init__(
        self, run: LanguageModelRunRecipe, steps_per_epoch: int, config: URLSTMConfig, processes: Processes
    ) -> None:
        self.run, self.steps_per_epoch, self.config = run, steps_per_epoch, config
        share = run.batch_size // processes.count
        self.rows = slice(processes.number * share, (processes.number + 1) * share)
        self.state: URLSTMCache | None = None

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        """The mean over the tokens of a step, in nats; what it ends with is carried."""
        device = batch["input_ids"].device
        state = self.state_to_begin_with(step, device)
        outputs = model(**batch, cache=state, use_cache=True, compute_logits=False)
        self.state = outputs.cache.detach()
        loss: Tensor = outputs.loss
        return loss

    def state_to_begin_with(self, step: int, device: torch.device) -> URLSTMCache | None:
        """The state of the last step, but for the streams that start with an empty one; None where all do."""
        if self.state is None or step % self.steps_per_epoch == 0:
            return None
        state, probability = self.state.to(device), self.run.state_reset_probability
        if probability:
            # Drawn for the streams of all processes, so that their number changes nothing.
            draws = np.random.default_rng((self.run.seed, step)).random(self.run.batch_size)
            state.reset_rows(torch.from_numpy(draws < probability)[self.rows].to(device))
        return state

    def tensors(self) -> dict[str, Tensor]:
        """The parts of each layer's state, of the streams of all processes in their order."""
        return {
            f"{part}.{layer}": gather(value)
            for layer, state in enumerate([] if self.state is None else self.state.states)
            for part, value in enumerate(state or ())
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from these.

        Raises:
            CheckpointError: A part is missing.
        """
        count = 1 if self.config.cell == "gru" else 2
        cache = URLSTMCache(self.config.num_layers, self.config.hidden_size, count)
        for layer in range(self.config.num_layers):
            try:
                cache.states[layer] = tuple(tensors[f"{part}.{layer}"][self.rows] for part in range(count))
            except KeyError as missing:
                raise CheckpointError(f"the saved state has no carried {missing}. Pass --restart.") from None
        self.state = cache


def scores(model: PreTrainedModel, corpus: Corpus) -> dict[str, float]:
    """Cross entropy in nats a token, and the perplexity for each word, of the validation text read as one stream.

    Cut into rows it would be read faster, but each row would begin without the state that a stream has by then. Of
    several processes every one scores the whole of it.
    """
    carried: URLSTMCache | None = None
    nats, count = 0.0, 0
    for inputs, targets in scored_segments(corpus.validation, _VALIDATION_TOKENS):
        outputs = model(
            input_ids=inputs.to(model.device),
            shift_labels=targets.to(model.device),
            cache=carried,
            use_cache=True,
            compute_logits=False,
            num_items_in_batch=1,
        )
        carried = outputs.cache
        nats += float(outputs.loss)
        count += targets.numel()
    # No more than a float holds.
    perplexity = math.exp(min(nats / max(corpus.validation_words, 1), 700.0))
    return {"cross_entropy": nats / count, "word_perplexity": perplexity}
