"""The language model: embedding, recurrent layers, projection, output over the vocabulary, generation.

Its memory is a state of fixed size, so a step of generation costs the same however much was read. To go
on from a state, give `cache` and only the inputs that follow; see `URLSTMCache`. With `neural_cache=True`
the last steps join it, and what followed them is mixed into the scores; nothing else switches that on.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, misc, arg-type, override"
# (transformers is annotated in part only, and GenerationMixin's methods for a protocol of its own)

from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers.generation.configuration_utils import GenerationConfig
from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor
from transformers.generation.utils import GenerationMixin
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.generic import ModelOutput, can_return_tuple

from urzoo.errors import ShapeError, UsageError
from urzoo.models.cache_urlstm import URLSTMCache
from urzoo.models.configuration_urlstm import URLSTMConfig
from urzoo.models.modeling_urlstm import URLSTMModel, URLSTMPreTrainedModel, check_mask, may_be_inspected
from urzoo.models.neural_cache_urlstm import History, keys_of, mixed_scores
from urzoo.models.output_urlstm import IGNORED, adaptive_scores, cross_entropy, may_be_read, vocabulary_scores
from urzoo.recurrence.held import HeldWeights, held_weights


@dataclass
class URLSTMCausalLMOutput(ModelOutput):
    """What URLSTMForCausalLM returns.

    Args:
        loss: Cross-entropy in nats a token, if labels were given.
        logits: Scores `(batch, time, vocabulary)` in float32; log-probabilities with an adaptive softmax or a neural
            cache.
        cache: The state after the inputs, if `use_cache`.
        hidden_states: The input of the first layer and the output of each, if `output_hidden_states`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    cache: URLSTMCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class URLSTMForCausalLM(URLSTMPreTrainedModel, GenerationMixin):
    """Predicts the next token from the state after all before it."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: URLSTMConfig) -> None:
        super().__init__(config)
        if config.vocab_size is None:
            raise UsageError("vocab_size is null, expected the number of token ids of a language model.")
        if config.bidirectional:
            raise UsageError("bidirectional is true, expected false: a language model may not see what follows.")
        self.loss_type = "ForCausalLM"  # of a subclass too, by which the Trainer counts the labels
        self.model = URLSTMModel(config)
        size = config.token_size
        self.projection = nn.Identity() if size == config.hidden_size else nn.Linear(config.hidden_size, size)
        self.dropout = nn.Dropout(config.head_dropout)
        self.lm_head = nn.Linear(size, config.vocab_size)
        cutoffs = config.adaptive_cutoffs
        self.clusters = nn.Linear(size, len(cutoffs)) if cutoffs else None
        self.post_init()

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    @deprecate_kwarg("cache_params", "5.40.0", new_name="cache")
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: URLSTMCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,  # noqa: FBT001
        logits_to_keep: int | Tensor = 0,
        *,
        compute_logits: bool = True,
        neural_cache: bool = False,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> URLSTMCausalLMOutput:
        """Score every next token.

        Args:
            input_ids: Token ids `(batch, time)`.
            attention_mask: Non-zero where a token is real; all real when omitted. Padding on the left
                does not change a row's result; a row of nothing but padding keeps its state.
            inputs_embeds: In place of `input_ids`, `(batch, time, embedding size)`.
            cache: The state to begin with; it is replaced by the state after these inputs.
            labels: The token ids themselves, `(batch, time)`, shifted here; -100 is left out of the loss.
            use_cache: Whether to return the state; by default as configured, and not in training.
            logits_to_keep: Score only the last so many steps, or the steps of this index; 0 for all.
            compute_logits: False with labels: return the loss without the scores, which saves their memory, and with a
                large vocabulary most of the time; a collator may put it into each batch.
            neural_cache: Mix in what followed those of the last `config.neural_cache_size` states that were most like
                the present one, see `urzoo.models.neural_cache_urlstm`; give it with every piece of a text.
            num_items_in_batch: What the summed loss is divided by; the number of targets when omitted.
            kwargs: `shift_labels` in place of `labels`: at each step the id that follows, so that the last step of a
                segment has a target too. All else is handed to the layers, such as `output_hidden_states`.

        Raises:
            UsageError: An id or label is outside the vocabulary, or arguments exclude each other; or `neural_cache` was
                asked of a model that has no settings for it, in training, or with `inputs_embeds`: it must know the
                tokens.
            ShapeError: Shapes of inputs, mask, labels and cache do not agree.
        """
        # Not in the signature, where transformers' Trainer would take it for labels that every batch must have.
        shift_labels = kwargs.pop("shift_labels", None)
        if neural_cache:
            self._check_looking_back(input_ids, inputs_embeds, cache)
        inputs = inputs_embeds if input_ids is None else input_ids
        targets = None
        # Before the layers run, too.
        if inputs is not None and (labels is not None or shift_labels is not None):
            if not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
                raise UsageError("labels and logits_to_keep were both given; a loss needs the scores of all steps.")
            targets = self._targets(labels, shift_labels, inputs)
        outputs = self.model(input_ids, attention_mask, inputs_embeds, cache, use_cache, return_dict=True, **kwargs)
        hidden = self.dropout(self.projection(outputs.last_hidden_state))
        loss = logits = None
        if neural_cache:
            assert input_ids is not None
            looked_at = outputs.cache if cache is None else cache
            logits = self._scores_looking_back(hidden, input_ids, attention_mask, looked_at, logits_to_keep)
        elif compute_logits:
            logits = self._scores(slice_logits_to_keep(hidden, logits_to_keep))
        if cache is not None and not neural_cache:
            # Steps that did not join the history would be missing in its middle.
            cache.history = None
        if targets is not None:
            loss = self._loss(hidden, logits, targets.to(hidden.device), num_items_in_batch)
        return URLSTMCausalLMOutput(
            loss=loss,
            logits=logits if compute_logits else None,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
        )

    @property
    def generation_config(self) -> Any:
        """How `generate` writes, if not told otherwise."""
        return vars(self).get("generation_config")

    @generation_config.setter
    def generation_config(self, settings: Any) -> None:
        # Transformers fills it from our configuration, where max_time is in steps; there it is in seconds.
        if getattr(settings, "_from_model_config", False) and settings.max_time == self.config.max_time:
            settings.max_time = None
        vars(self)["generation_config"] = settings

    @property
    def _head_dtype(self) -> torch.dtype | None:
        # A model that is itself in 16 bits has nothing to gain from a wider product.
        return torch.bfloat16 if self.config.head_dtype == "bfloat16" else None

    @property
    def _words(self) -> int:
        # Of whatever stands in the place of the linear map.
        return int(getattr(self.lm_head, "out_features", self.config.vocab_size))

    def _scores(self, hidden: Tensor) -> Tensor:
        if self.clusters is not None:
            return adaptive_scores(hidden, self.lm_head, self.clusters, self._cutoffs(), self._head_dtype)
        return vocabulary_scores(hidden, self.lm_head, self._head_dtype)

    def _check_looking_back(
        self, input_ids: Tensor | None, inputs_embeds: Tensor | None, cache: URLSTMCache | None
    ) -> None:
        # Before the layers run, which move the state in the cache.
        if self.config.neural_cache_size == 0:
            raise UsageError(
                "neural_cache is true, but config.neural_cache_size is 0: this model has no settings for one; set "
                "neural_cache_size, neural_cache_weight and neural_cache_sharpness, or omit neural_cache."
            )
        if self.training:
            raise UsageError("neural_cache is true in training, where it does not act; call model.eval() first.")
        if input_ids is None and inputs_embeds is not None:
            raise UsageError(
                "inputs_embeds was given with neural_cache, which must know what it looks back on; give input_ids."
            )
        history, size = getattr(cache, "history", None), self.config.token_size
        if history is not None and history.keys.shape[-1] != size:
            raise UsageError(
                f"cache has a history of vectors of {history.keys.shape[-1]} numbers, expected {size}: "
                "it is of another model. Omit it."
            )

    def _scores_looking_back(
        self,
        hidden: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        cache: URLSTMCache | None,
        logits_to_keep: int | Tensor,
    ) -> Tensor:
        """Log-probabilities with the neural cache mixed in; the steps of these inputs join the history in `cache`."""
        config, keys = self.config, keys_of(hidden)
        history = None if cache is None else cache.history
        if history is None:
            history = History.empty(keys.shape[0], keys.shape[-1], keys.device)
        history, places = history.followed_by(keys, input_ids, check_mask(attention_mask, hidden))
        if cache is not None:
            cache.history = history.last(config.neural_cache_size)
        return mixed_scores(
            self._scores(slice_logits_to_keep(hidden, logits_to_keep)),
            history,
            slice_logits_to_keep(places[..., None], logits_to_keep)[..., 0],
            size=config.neural_cache_size,
            weight=config.neural_cache_weight,
            sharpness=config.neural_cache_sharpness,
        )

    def _cutoffs(self) -> list[int]:
        cutoffs = list(self.config.adaptive_cutoffs or [])
        if cutoffs and cutoffs[-1] >= self._words:
            raise UsageError(
                f"the vocabulary was resized to {self._words}, at or below the last of "
                f"adaptive_cutoffs {cutoffs}; it can only grow."
            )
        return cutoffs

    def _targets(self, labels: Tensor | None, shift_labels: Tensor | None, inputs: Tensor) -> Tensor:
        given, name = (labels, "labels") if shift_labels is None else (shift_labels, "shift_labels")
        assert given is not None
        if given.shape != inputs.shape[:2]:
            raise ShapeError(
                f"{name} has the shape {tuple(given.shape)}, expected {tuple(inputs.shape[:2])}: (batch, time) "
                "as the inputs have."
            )
        if given.is_floating_point() or given.dtype == torch.bool:
            raise UsageError(f"{name} holds {given.dtype}, expected token ids: whole numbers.")
        given = given.long()
        if may_be_inspected(given):
            low, high = (int(value) for value in torch.aminmax(given.masked_fill(given == IGNORED, 0)))
            if low < 0 or high >= self._words:
                raise UsageError(
                    f"{name} holds {low if low < 0 else high}, expected ids from 0 to "
                    f"{self._words - 1}, or {IGNORED} for steps that do not count."
                )
        if shift_labels is not None:
            return given
        return nn.functional.pad(given[:, 1:], (0, 1), value=IGNORED)

    def _loss(
        self, hidden: Tensor, logits: Tensor | None, targets: Tensor, num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        head = [self.lm_head] if self.clusters is None else [self.lm_head, self.clusters]
        # A loss of the user's takes the scores.
        if logits is None and not (
            self.loss_function is ForCausalLMLoss and all(may_be_read(module) for module in head)
        ):
            logits = self._scores(hidden)
        if logits is not None:
            loss: Tensor = self.loss_function(
                logits=logits,
                labels=targets,
                vocab_size=logits.shape[-1],
                num_items_in_batch=num_items_in_batch,
                shift_labels=targets,
            )
            return loss
        total = cross_entropy(
            hidden.flatten(0, 1), targets.flatten(), self.lm_head, self._head_dtype, self.clusters, self._cutoffs()
        )
        count = (targets != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return total / (count.to(total.device) if isinstance(count, Tensor) else count)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers' own, with the weights read once for all tokens: see `urzoo.nn.HeldWeights`.

        The state in `cache` that it returns has read the padding after a row that ended before others of its batch: go
        on from it only where no row did, else give the whole text and its mask again.
        """
        with held_weights() or HeldWeights():
            return super().generate(*args, **kwargs)

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002
        """Refused, and `generate_batch` with it.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "continuous batching shares out a key-value cache, which this model does not have; call generate with a "
            "padded batch and its attention_mask."
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: URLSTMCache | None = None,
        use_cache: bool | None = None,  # noqa: FBT001
        is_first_iteration: bool | None = False,  # noqa: FBT001, FBT002
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The inputs of one step of `generate`: all of the prompt first, then only what is new."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            cache=cache,
            use_cache=use_cache,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        mask = inputs.get("attention_mask")
        if use_cache and not is_first_iteration:
            inputs["attention_mask"] = None
            if "prepare_inputs_for_generation" in vars(self):
                # Peft's, which calls this, would put its virtual tokens before each new one, did it see no state; it
                # looks for one by the name of older versions.
                inputs["past_key_values"] = inputs.pop("cache", None)
        elif mask is not None and cache is not None:
            # Going on from a state: a mask may cover what the state has read, as transformers' callers give it.
            embedded = inputs.get("inputs_embeds")
            steps = (inputs["input_ids"] if embedded is None else embedded).shape[1]
            inputs["attention_mask"] = mask[:, -steps:]
        if not use_cache and isinstance(cache, URLSTMCache):
            inputs["cache"] = cache.clone()  # every step reads all that is new, from where the caller's state stands
        return inputs

    def _get_logits_processor(self, generation_config: GenerationConfig, *args: Any, **kwargs: Any) -> Any:
        """Transformers' own; that of `guidance_scale` calls the model with a mask of all that was read."""
        processors = super()._get_logits_processor(generation_config, *args, **kwargs)
        for processor in processors:
            if isinstance(processor, UnbatchedClassifierFreeGuidanceLogitsProcessor):
                if generation_config.num_beams > 1:
                    raise UsageError(
                        f"guidance_scale was given with num_beams={generation_config.num_beams}, whose beams would "
                        "get each other's states without the prompt; omit one of the two."
                    )
                processor.model = self._with_whole_mask
        return processors

    def _with_whole_mask(self, input_ids: Tensor, *, attention_mask: Tensor, **kwargs: Any) -> URLSTMCausalLMOutput:
        outputs: URLSTMCausalLMOutput = self(
            input_ids, attention_mask=attention_mask[:, -input_ids.shape[1] :], return_dict=True, **kwargs
        )
        return outputs

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,  # noqa: FBT001, FBT002
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """One row for each beam or returned sequence; a state to go on from is copied along with its row."""
        cache = model_kwargs.get("cache")
        if expand_size > 1 and isinstance(cache, URLSTMCache):
            cache = cache.clone()
            cache.batch_repeat_interleave(expand_size)
            model_kwargs["cache"] = cache
        return super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **model_kwargs)
