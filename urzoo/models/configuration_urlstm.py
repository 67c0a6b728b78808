"""The configuration of every urzoo model: sizes, gating, heads.

One class serves images, text and series: what a model lacks (a vocabulary, a hidden layer in the
head) is switched off by its field. Keys that are not fields are refused, because transformers would
keep a misspelt one and silently use the default of the right one.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator"
# (transformers is annotated in part only)

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers.configuration_utils import PreTrainedConfig
from transformers.generation.configuration_utils import GenerationConfig

from urzoo.errors import UsageError, one_line, unknown
from urzoo.recurrence.gates import SUBJECT, Gating

POOLINGS = ("last", "mean", "max")
HEAD_DTYPES = ("float32", "bfloat16")

# Keys that transformers takes out of a config.json or a constructor's arguments although they are not fields of
# PreTrainedConfig: what it writes itself, what it reads from older files, and what `from_pretrained` hands on.
_TRANSFORMERS_KEYS = frozenset(
    {
        "model_type",
        "name_or_path",
        "num_labels",
        "torch_dtype",
        "output_attentions",
        "attn_implementation",
        "experts_implementation",
        "per_layer_config",
        "tie_last_hidden_states",
        "auto_map",
        "custom_pipelines",
        "quantization_config",
        "transformers_weights",
        "tokenizer_class",
        "task_specific_params",
    }
)

# Fields of earlier versions that never had an effect; checkpoints that have them load as they did.
_FORMER_KEYS = ("adaptive_divisor",)

_Config = TypeVar("_Config", bound=type[PreTrainedConfig])


def _one_line_errors(config_class: _Config) -> _Config:
    """Turn the errors of `@strict`, which span lines, into a UsageError of one line at construction."""
    construct: Callable[..., None] = config_class.__init__

    @wraps(construct)
    def __init__(self: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        try:
            construct(self, *args, **kwargs)
        except StrictDataclassError as error:
            cause = error.__cause__
            if isinstance(cause, UsageError):
                raise cause from None
            raise UsageError(f"configuration: {one_line(cause or error)}.") from error

    config_class.__init__ = __init__  # type: ignore[method-assign]
    return config_class


@_one_line_errors
@strict
class URLSTMConfig(PreTrainedConfig):
    """What a URLSTMModel and its heads are built from.

    Args:
        cell: "lstm" or "gru".
        gate: The two letters of the gating mechanism, "UR" for the paper's method; see `urzoo.recurrence.GATINGS`.
        tie_input_gate: Whether the input gate is one minus the forget gate (LSTM only).
        train_gate_bias: Whether the gate bias is trained or stays as drawn.
        refine_offset: Whether the refine gate carries the gate bias with the opposite sign.
        max_time: The longest dependency for chrono initialisation ("C" gatings), in steps.
        input_size: Features per step where the model has no vocabulary.
        hidden_size: Units per layer and direction.
        num_layers: Stacked recurrent layers.
        bidirectional: Whether each layer also reads the sequence backwards; doubles the width of its output.
        layer_dropout: Dropout on the input of each layer but the first.
        weight_dropout: Dropout on the recurrent weights, drawn once per sequence batch.
        residual: Whether a layer adds its input to its output where the two are of one size.
        layer_norm: Whether each layer but the first normalises its input, and the model its last output.
        layer_norm_eps: Added to the variance in those normalisations.
        vocab_size: Number of token ids; None for models of images and series, which take floats.
        embedding_size: Width of the token embedding; `hidden_size` when None.
        embedding_dropout: Dropout on the embedded tokens.
        token_dropout: Probability that a token's whole embedding is zero in training.
        head_hidden_size: Units of the ReLU layer in a classification head; 0 for none.
        head_dropout: Dropout before the last linear map of a head.
        pooling: For classification, any of "last", "mean", "max" of the outputs over the steps; several are
            concatenated.
        head_dtype: "float32" or "bfloat16": the type in which the language model's output product runs.
        adaptive_cutoffs: For very large vocabularies, the ids at which the clusters of an adaptive softmax begin.
        neural_cache_size: How many steps the language model's neural cache looks back on, 0 for none; it acts only
            where it is asked for by name, see `URLSTMForCausalLM.forward`.
        neural_cache_weight: Of the neural cache in the mixture with the model's own scores.
        neural_cache_sharpness: What the likenesses of states, from -1 to 1, are multiplied with before their softmax.
        tie_word_embeddings: Whether the output product uses the embedding's weights.
        use_cache: Whether the language model returns its state.
        initializer_range: Standard deviation of the embedding at initialisation.
        backend: The recurrence's back end in this process, the fastest usable one when None; never saved.

    Raises:
        UsageError: A key is unknown, or a value is of the wrong type or outside its range.
    """

    model_type = "urlstm"
    attribute_map = {"num_hidden_layers": "num_layers"}  # noqa: RUF012

    cell: str = "lstm"
    gate: str = SUBJECT
    tie_input_gate: bool = True
    train_gate_bias: bool = True
    refine_offset: bool = True
    max_time: int | None = None
    input_size: int = 1
    hidden_size: int = 128
    num_layers: int = 1
    bidirectional: bool = False
    layer_dropout: float | int = 0.0
    weight_dropout: float | int = 0.0
    residual: bool = False
    layer_norm: bool = False
    layer_norm_eps: float = 1e-5
    vocab_size: int | None = None
    embedding_size: int | None = None
    embedding_dropout: float | int = 0.0
    token_dropout: float | int = 0.0
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    head_hidden_size: int = 256
    head_dropout: float | int = 0.1
    pooling: list[str] | tuple[str, ...] = ("last",)
    head_dtype: str = "float32"
    adaptive_cutoffs: list[int] | None = None
    neural_cache_size: int = 0
    neural_cache_weight: float | int = 0.2
    neural_cache_sharpness: float | int = 20.0
    tie_word_embeddings: bool = True
    use_cache: bool = True
    initializer_range: float | int = 0.02
    backend: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Refuse unknown keys, then let transformers take its own."""
        for key in _FORMER_KEYS:
            kwargs.pop(key, None)
        self._refuse_unknown(kwargs)
        self.pooling = list(self.pooling)
        super().__post_init__(**kwargs)

    @classmethod
    def _refuse_unknown(cls, keys: dict[str, Any]) -> None:
        accepted = (
            _TRANSFORMERS_KEYS | cls.attribute_map.keys() | GenerationConfig._get_default_generation_params().keys()
        )
        for key in keys:
            # Keys with an underscore are transformers' private ones, which it writes into `to_dict` and reads back.
            if key not in accepted and not key.startswith("_"):
                own = [name for name in cls.__dataclass_fields__ if name not in PreTrainedConfig.__dataclass_fields__]
                raise UsageError(unknown("configuration key", key, own))

    def validate_urlstm(self) -> None:
        """Check each value's range; run by `@strict` after construction and before saving."""
        self.gating()
        sizes = {"input_size": 1, "hidden_size": 1, "num_layers": 1, "head_hidden_size": 0, "num_labels": 1}
        for name, least in (sizes | {"layer_norm_eps": 0, "initializer_range": 0}).items():
            if not getattr(self, name) >= least:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least {least}.")
        if self.neural_cache_size < 0:
            raise UsageError(
                f"neural_cache_size is {self.neural_cache_size}, expected 0 for none, or a number of steps."
            )
        if not 0 < self.neural_cache_weight < 1:
            raise UsageError(f"neural_cache_weight is {self.neural_cache_weight}, expected a share between 0 and 1.")
        if not 0 < self.neural_cache_sharpness < float("inf"):
            raise UsageError(f"neural_cache_sharpness is {self.neural_cache_sharpness}, expected a number above 0.")
        for name in ("vocab_size", "embedding_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1, or null for none.")
        for name in ("layer_dropout", "weight_dropout", "embedding_dropout", "token_dropout", "head_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected a probability from 0 to below 1.")
        if self.head_dtype not in HEAD_DTYPES:
            raise UsageError(unknown("head_dtype", self.head_dtype, HEAD_DTYPES))
        for name in self.pooling:
            if name not in POOLINGS:
                raise UsageError(unknown("pooling", name, POOLINGS))
        if not self.pooling or len(set(self.pooling)) < len(self.pooling):
            raise UsageError(f"pooling is {self.pooling}, expected one or more of {', '.join(POOLINGS)}, each once.")
        self._validate_cutoffs()

    def _validate_cutoffs(self) -> None:
        cutoffs = self.adaptive_cutoffs
        if cutoffs is None:
            return
        increasing = all(a < b for a, b in zip([0, *cutoffs], [*cutoffs, self.vocab_size or 0], strict=True))
        if not cutoffs or not increasing:
            raise UsageError(
                f"adaptive_cutoffs is {cutoffs}, expected increasing ids between 1 and vocab_size - 1 "
                f"(vocab_size is {self.vocab_size})."
            )

    def gating(self) -> Gating:
        """The recurrence this configuration asks for.

        Raises:
            UsageError: `gate` or `cell` is unknown.
        """
        return Gating(self.gate, self.cell, self.tie_input_gate, self.refine_offset)

    @property
    def layer_output_size(self) -> int:
        """Width of what a layer gives per step: both directions side by side."""
        return self.hidden_size * (2 if self.bidirectional else 1)

    @property
    def token_size(self) -> int:
        """Width of an embedded token."""
        return self.embedding_size or self.hidden_size

    def _remove_keys_not_serialized(self, d: dict[str, Any]) -> None:
        super()._remove_keys_not_serialized(d)
        d.pop("backend", None)
