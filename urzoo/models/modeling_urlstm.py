"""The bare recurrent model under every head: optional token embedding, layers, masks, state.

Steps that are padding are passed over: the state goes through them unchanged, on either side, so that
a row's result does not depend on the rows it is batched with. All of transformers' contract that the
heads share stands here; what the recurrence computes stands in `urzoo.nn` and `urzoo.recurrence`.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator"
# (transformers is annotated in part only)

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch
from torch.func import functional_call
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.generic import ModelOutput
from transformers.utils.output_capturing import capture_outputs

from urzoo.errors import ShapeError, UsageError
from urzoo.models.cache_urlstm import URLSTMCache
from urzoo.models.card_urlstm import SavedWithCard
from urzoo.models.configuration_urlstm import URLSTMConfig
from urzoo.nn import URGRU, URLSTM

# Held while transformers loads. It exchanges functions of PreTrainedModel meanwhile and puts back what it found; two
# threads that did so at the same time would leave weights untied, from then on and in every model of the process.
LOADING = threading.RLock()


@dataclass
class URLSTMModelOutput(ModelOutput):
    """What URLSTMModel returns.

    Args:
        last_hidden_state: The last layer's output at every step, `(batch, time, size)`, where size is
            `hidden_size`, or twice that if bidirectional. At a padding step it repeats the state,
            to which a residual layer adds its input.
        cache: The state of all layers, if `use_cache`.
        hidden_states: The input of the first layer and the output of each, if `output_hidden_states`.
    """

    last_hidden_state: Tensor | None = None
    cache: URLSTMCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class URLSTMLayer(GradientCheckpointingLayer):
    """One recurrent layer with its normalisation, dropouts and residual connection."""

    def __init__(self, config: URLSTMConfig, layer_idx: int) -> None:
        super().__init__()
        input_size = config.layer_output_size if layer_idx else layer_input_size(config)
        self.layer_idx = layer_idx
        self.weight_dropout = float(config.weight_dropout)
        self.residual = config.residual and input_size == config.layer_output_size
        # Not before the first layer: normalising a single feature, such as a pixel, would leave nothing of it.
        normalised = config.layer_norm and layer_idx > 0
        self.norm = nn.LayerNorm(input_size, eps=config.layer_norm_eps) if normalised else nn.Identity()
        self.dropout = nn.Dropout(config.layer_dropout if layer_idx else 0.0)
        self.recurrence = build_recurrence(config, input_size)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None, *state: Tensor) -> tuple[Tensor, ...]:
        """Run the layer.

        Args:
            hidden_states: Shape `(batch, time, input size)`.
            mask: True where a step is real, `(batch, time)`.
            state: Before the first step, one `(batch, hidden)` tensor a part, of one-directional layers only; zeros
                when omitted.

        Returns:
            The output `(batch, time, output size)` and the parts of the final state, each
            `(directions, batch, hidden)`.
        """
        inputs = self.dropout(self.norm(hidden_states))
        given = tuple(part.unsqueeze(0) for part in state)
        hx = given if len(given) > 1 else next(iter(given), None)
        if self.training and self.weight_dropout:
            outputs, final = functional_call(self.recurrence, self._dropped_weights(), (inputs, hx), {"mask": mask})
        else:
            outputs, final = self.recurrence(inputs, hx, mask=mask)
        if self.residual:
            outputs = outputs + hidden_states
        return (outputs, *(final if isinstance(final, tuple) else (final,)))

    def _dropped_weights(self) -> dict[str, Tensor]:
        # A parametrised or pruned weight goes by a longer name, such as parametrizations.weight_hh_l0.original.
        return {
            name: nn.functional.dropout(weight, self.weight_dropout)
            for name, weight in self.recurrence.named_parameters()
            if "weight_hh" in name
        }


def layer_input_size(config: URLSTMConfig) -> int:
    """Width of what enters the first layer: an embedded token, or `input_size` features."""
    return config.input_size if config.vocab_size is None else config.token_size


def build_recurrence(config: URLSTMConfig, input_size: int) -> URLSTM | URGRU:
    """The recurrent module of one layer."""
    kind = URGRU if config.cell == "gru" else URLSTM
    return kind(
        input_size,
        config.hidden_size,
        batch_first=True,
        bidirectional=config.bidirectional,
        train_gate_bias=config.train_gate_bias,
        max_time=config.max_time,
        backend=config.backend,
        **config.gating().options,
    )


class URLSTMPreTrainedModel(SavedWithCard):
    """What all urzoo models share with transformers: configuration, initialisation, recording of layers."""

    config: URLSTMConfig
    config_class = URLSTMConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["URLSTMLayer"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _is_stateful = True
    _can_record_outputs = {"hidden_states": URLSTMLayer}  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Parameters that came from a checkpoint carry a flag, which transformers' init functions respect; the
        # recurrence writes whole blocks of its parameters by itself, so the loaded ones are put back after it.
        if isinstance(module, URLSTM | URGRU):
            own = dict(module.named_parameters(recurse=False))
            loaded = {name: value.clone() for name, value in own.items() if getattr(value, "_is_hf_initialized", False)}
            if len(loaded) < len(own):
                module.reset_parameters()
                for name, value in loaded.items():
                    own[name].copy_(value)
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint, as transformers does, and freeze again what the configuration says is frozen.

        Threads that load at once take turns: transformers exchanges functions of its base class while it loads.
        """
        with LOADING:
            loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for module in model.modules():
            if isinstance(module, URLSTM | URGRU):
                for name, parameter in module.named_parameters(recurse=False):
                    # Loading puts new parameters in the place of the old ones, all of them to be trained.
                    if name.startswith("forget_bias"):
                        parameter.requires_grad_(module.train_gate_bias)
        return loaded

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False


class URLSTMModel(URLSTMPreTrainedModel):
    """A stack of recurrent layers over token ids, or over float features where there is no vocabulary."""

    def __init__(self, config: URLSTMConfig) -> None:
        super().__init__(config)
        if config.vocab_size is None:
            self.embed_tokens: nn.Module | None = None
        else:
            if config.pad_token_id is not None and not -config.vocab_size <= config.pad_token_id < config.vocab_size:
                raise UsageError(
                    f"pad_token_id is {config.pad_token_id}, expected an id below vocab_size={config.vocab_size}, or "
                    "None for no padding."
                )
            self.embed_tokens = nn.Embedding(config.vocab_size, config.token_size, padding_idx=config.pad_token_id)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(URLSTMLayer(config, index) for index in range(config.num_layers))
        self.norm = (
            nn.LayerNorm(config.layer_output_size, eps=config.layer_norm_eps) if config.layer_norm else nn.Identity()
        )
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module | None:  # type: ignore[override]
        """The token embedding; None for a model without vocabulary."""
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.embed_tokens = value

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    @deprecate_kwarg("cache_params", "5.40.0", new_name="cache")
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: URLSTMCache | None = None,
        use_cache: bool | None = None,  # noqa: FBT001
        **kwargs: Any,
    ) -> URLSTMModelOutput:
        """Run the layers.

        Args:
            input_ids: Token ids, `(batch, time)`.
            attention_mask: Non-zero where a step is real, `(batch, time)`; all real when omitted.
            inputs_embeds: In place of `input_ids`: embedded tokens, or the features of a model without
                vocabulary, `(batch, time, size)`.
            cache: The state to begin with; replaced in place by the state after these inputs.
                Give only the inputs that follow those it has seen.
            use_cache: Whether to return the state; by default as configured, and not in training.
            kwargs: For compatibility with transformers, such as `output_hidden_states`.

        Raises:
            UsageError: Both or neither input was given, an id is outside the vocabulary, or the cache is
                of another model.
            ShapeError: The shapes of inputs, mask and cache do not agree.
        """
        if kwargs.get("output_attentions"):
            raise UsageError("output_attentions is true, but recurrent layers have no attention; omit it.")
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        hidden_states = self._embed(input_ids, inputs_embeds)
        # The cache comes first: one that is meant for attention brings a mask for its own steps along.
        cache = self._prepare_cache(cache, hidden_states, use_cache)
        mask = check_mask(attention_mask, hidden_states)
        check_positions(kwargs, mask)
        if mask is not None:
            # Padding may hold anything: a NaN would not pass the recurrence, but the norms and residuals beside it.
            hidden_states = hidden_states.masked_fill(~mask.unsqueeze(-1), 0.0)

        states: list[tuple[Tensor, ...] | None] = []
        for index, layer in enumerate(self.layers):
            # Part by part: a re-entrant checkpoint cuts tensors off the graph that are arguments of their own.
            state = None if cache is None else cache.states[index]
            hidden_states, *parts = layer(hidden_states, mask, *(state or ()))
            states.append(tuple(part.squeeze(0) for part in parts))
        if cache is not None:  # all at once: a run that is interrupted leaves a state of one point
            cache.states = states
            cache.seen_tokens = cache.seen_tokens + hidden_states.shape[1]  # clones keep theirs, also a tensor
        return URLSTMModelOutput(last_hidden_state=self.norm(hidden_states), cache=cache if use_cache else None)

    def _embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise UsageError("give exactly one of input_ids and inputs_embeds.")
        size = layer_input_size(self.config)
        if input_ids is not None:
            if self.embed_tokens is None:
                raise UsageError(
                    f"input_ids was given, but this model has no vocabulary; give inputs_embeds of shape "
                    f"(batch, time, {size})."
                )
            # An adapter in the place of the embedding need not say how many rows it has.
            check_ids(input_ids, int(getattr(self.embed_tokens, "num_embeddings", self.config.vocab_size or 0)))
            inputs_embeds = self.embed_tokens(input_ids)
        assert inputs_embeds is not None
        if inputs_embeds.dim() != 3 or inputs_embeds.shape[-1] != size:
            raise ShapeError(
                f"the inputs have the shape {tuple(inputs_embeds.shape)}, expected (batch, time, {size}) "
                "as the model's configuration says."
            )
        if not inputs_embeds.is_floating_point():
            raise UsageError(
                f"the inputs hold {inputs_embeds.dtype}, expected floats: pixels as PixelSequenceImageProcessor gives "
                "them, features as the model was trained on them."
            )
        if self.training and self.config.token_dropout:
            kept = inputs_embeds.new_ones((*inputs_embeds.shape[:2], 1))
            inputs_embeds = inputs_embeds * nn.functional.dropout(kept, self.config.token_dropout)
        embedded: Tensor = self.embedding_dropout(inputs_embeds.to(self.dtype))
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled() and not embedded.requires_grad:
            # Re-entrant checkpoints give no gradient to the parameters of a layer whose input needs none.
            embedded = embedded.detach().requires_grad_()
        return embedded

    def _prepare_cache(self, cache: URLSTMCache | None, inputs: Tensor, use_cache: bool) -> URLSTMCache | None:  # noqa: FBT001
        if cache is None and not use_cache:
            return None
        if self.config.bidirectional:
            if cache is not None:
                raise UsageError("cache was given to a bidirectional model, which cannot go on from a state.")
            return None
        shape = (self.config.num_layers, self.config.hidden_size, 1 if self.config.cell == "gru" else 2)
        if cache is None:
            return URLSTMCache(*shape)
        if not isinstance(cache, URLSTMCache):
            raise UsageError(
                f"cache is a {type(cache).__name__}, expected a URLSTMCache; omit it to start afresh. Prefix tuning, "
                "which fills an attention's cache, is not possible; train an adapter of low rank (LoRA)."
            )
        cache.check(*shape, batch_size=inputs.shape[0])
        return cache


def check_mask(attention_mask: Tensor | None, inputs: Tensor) -> Tensor | None:
    """The mask as the recurrence takes it: bool, or None where every step is real.

    Raises:
        ShapeError: Its shape is not the inputs' `(batch, time)`.
        UsageError: It is one that is added to the scores of attention, 0 where a step is real.
    """
    if attention_mask is None:
        return None
    if attention_mask.shape != inputs.shape[:2]:
        raise ShapeError(
            f"attention_mask has the shape {tuple(attention_mask.shape)}, expected {tuple(inputs.shape[:2])}: "
            "(batch, time) as the inputs have."
        )
    if (
        attention_mask.is_floating_point()
        and may_be_inspected(attention_mask)
        and not bool((attention_mask >= 0).all())
    ):
        raise UsageError(
            f"attention_mask holds {float(attention_mask.min()):g}, expected 1 where a step is real and 0 where it is "
            "padding; of a mask that is added to the scores of attention give attention_mask == 0."
        )
    mask = attention_mask.to(device=inputs.device, dtype=torch.bool)
    # Without padding the recurrence takes its faster path; asking a GPU would wait for it.
    if may_be_inspected(mask) and bool(mask.all()):
        return None
    return mask


def check_positions(given: Mapping[str, Any], mask: Tensor | None) -> None:
    """Refuse several texts in one row, as transformers' flattening collator tells attention of them.

    Args:
        given: `position_ids` that begin again with each text, `seq_idx` that count them, or `cu_seq_lens_q` with their
            ends.
        mask: True where a step is real, `(batch, time)`.

    Raises:
        UsageError: A text follows another in its row.
    """
    positions, numbers, ends = (given.get(key) for key in ("position_ids", "seq_idx", "cu_seq_lens_q"))
    packed = "cu_seq_lens_q has several texts" if ends is not None and ends.numel() > 2 else None
    if numbers is not None and may_be_inspected(numbers) and bool((numbers[..., 1:] != numbers[..., :-1]).any()):
        packed = "seq_idx changes"
    if positions is not None and may_be_inspected(positions):
        begins = positions[..., 1:] == 0
        if mask is not None:
            begins = begins & mask[:, :-1] & mask[:, 1:]
        packed = "position_ids begins again" if bool(begins.any()) else packed
    if packed is not None:
        raise UsageError(
            f"{packed} within a row, but texts in one row would share a state; give each text a row of its own, padded "
            "to the longest."
        )


def may_be_inspected(values: Tensor) -> bool:
    """Whether a check may look at the values: where that is cheap, and there are any. On a GPU it would wait.

    A compiler, `torch.func.vmap` and tensors of other kinds have none, and `torch.jit.trace` would keep its example's.
    """
    return (
        values.device.type == "cpu"
        and type(values) is Tensor
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not _functorch.is_functorch_wrapped_tensor(values)
    )


def check_ids(input_ids: Tensor, vocab_size: int) -> None:
    """Refuse ids outside the vocabulary, which on the CPU are cheap to see and else end in an IndexError.

    Raises:
        UsageError: An id is negative or not below `vocab_size`.
        ShapeError: The ids are not `(batch, time)`, or there are none.
    """
    if input_ids.dim() != 2 or 0 in input_ids.shape:
        raise ShapeError(f"input_ids has the shape {tuple(input_ids.shape)}, expected (batch, time), each at least 1.")
    if input_ids.dtype not in (torch.int64, torch.int32):
        floats = "; floats go in as inputs_embeds" if input_ids.is_floating_point() else ""
        raise UsageError(f"input_ids holds {input_ids.dtype}, expected torch.int64 or torch.int32{floats}.")
    if not may_be_inspected(input_ids):
        return
    low, high = (int(value) for value in torch.aminmax(input_ids))
    if low < 0 or high >= vocab_size:
        raise UsageError(
            f"input_ids holds {low if low < 0 else high}, expected ids from 0 to {vocab_size - 1}; "
            "use the tokenizer that belongs to this model."
        )
