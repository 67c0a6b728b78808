"""Heads that give one row of scores a sequence: for images, and for text or series.

Both pool the layers' outputs over the real steps only. A row of nothing but padding has the pooled
value zero, so its scores are those of an empty sequence.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator"
# (transformers is annotated in part only)

from typing import Any

import torch
from torch import Tensor, nn
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention, SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from urzoo.errors import ShapeError, UsageError
from urzoo.models.configuration_urlstm import URLSTMConfig
from urzoo.models.modeling_urlstm import URLSTMModel, URLSTMPreTrainedModel, check_mask, may_be_inspected
from urzoo.models.pooling_urlstm import pool
from urzoo.models.stream_urlstm import ClassifierStream


class ClassificationHead(nn.Module):
    """An optional ReLU layer, dropout, and the linear map to the scores."""

    def __init__(self, config: URLSTMConfig, input_size: int) -> None:
        super().__init__()
        hidden_size, num_labels = config.head_hidden_size, config.num_labels or 2
        self.dense = nn.Linear(input_size, hidden_size) if hidden_size else None
        self.dropout = nn.Dropout(config.head_dropout)
        self.out_proj = nn.Linear(hidden_size or input_size, num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Scores `(batch, labels)` from pooled outputs `(batch, size)`."""
        if self.dense is not None:
            pooled = torch.relu(self.dense(pooled))
        scores: Tensor = self.out_proj(self.dropout(pooled))
        return scores


class URLSTMForImageClassification(URLSTMPreTrainedModel):
    """Classifies an image read as a sequence of pixels, from any of the last state, the mean and the maximum."""

    main_input_name = "pixel_values"
    input_modalities = ["image"]  # noqa: RUF012

    def __init__(self, config: URLSTMConfig) -> None:
        super().__init__(config)
        if config.vocab_size is not None:
            raise UsageError(
                f"vocab_size is {config.vocab_size}, expected null: an image classifier reads pixels, not tokens."
            )
        self.loss_type = "ForImageClassification"  # of a subclass too, whatever it is called
        self.num_labels = config.num_labels
        self.model = URLSTMModel(config)
        self.head = ClassificationHead(config, config.layer_output_size * len(config.pooling))
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor | None = None, labels: Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutputWithNoAttention:
        """Score images.

        Args:
            pixel_values: `(batch, time, channels)`, one pixel a step, as PixelSequenceImageProcessor gives.
            labels: Class indices `(batch,)`; the loss is returned if given.
            kwargs: Handed to the layers and the loss, such as `output_hidden_states`, `num_items_in_batch`.

        Raises:
            ShapeError: `pixel_values` or `labels` has another shape.
            UsageError: `pixel_values` is missing, or a label is not one of the model's.
        """
        if pixel_values is None:
            raise UsageError("pixel_values is missing; give what PixelSequenceImageProcessor returns.")
        kwargs["use_cache"] = False
        outputs = self.model(inputs_embeds=pixel_values, return_dict=True, **kwargs)
        states = outputs.last_hidden_state
        logits = self.head(pool(states, check_mask(kwargs.get("attention_mask"), states), self.config))
        loss = None if labels is None else classification_loss(self, logits, labels, **kwargs)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=outputs.hidden_states)

    def stream(self) -> ClassifierStream:
        """A reader of live input with the model's present weights; see `ClassifierStream`.

        Raises:
            UsageError: The model is bidirectional.
        """
        return ClassifierStream(self)


class URLSTMForSequenceClassification(URLSTMPreTrainedModel):
    """Classifies a text or a series, from any of the last state, the mean and the maximum over the steps."""

    def __init__(self, config: URLSTMConfig) -> None:
        super().__init__(config)
        self.loss_type = "ForSequenceClassification"  # of a subclass too, whatever it is called
        self.num_labels = config.num_labels
        self.model = URLSTMModel(config)
        self.head = ClassificationHead(config, config.layer_output_size * len(config.pooling))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Score sequences.

        Args:
            input_ids: Token ids `(batch, time)`.
            attention_mask: Non-zero where a step is real; all real when omitted. Padding may stand on
                either side, and does not change a row's scores.
            inputs_embeds: In place of `input_ids`: embedded tokens, or the features of a series,
                `(batch, time, size)`.
            labels: Class indices `(batch,)`, or targets `(batch, labels)` for regression and several labels.
            kwargs: Handed to the layers and the loss, such as `output_hidden_states`, `num_items_in_batch`.

        Raises:
            ShapeError: The shapes of inputs, mask and labels do not agree with the model or each other.
            UsageError: The inputs are missing or given twice, or an id or label is not one of the model's.
        """
        kwargs["use_cache"] = False
        given = input_ids if input_ids is not None else inputs_embeds
        if given is not None and given.dim() > 1 and given.shape[1] == 0:
            # An empty text, which a tokenizer gives as no tokens of no type: one step of padding.
            attention_mask = torch.zeros(given.shape[0], 1, dtype=torch.bool, device=given.device)
            padding = given.new_zeros(given.shape[0], 1, *given.shape[2:])
            input_ids, inputs_embeds = (padding.long(), None) if input_ids is not None else (None, padding)
        outputs = self.model(input_ids, attention_mask, inputs_embeds, return_dict=True, **kwargs)
        states = outputs.last_hidden_state
        mask = check_mask(attention_mask, states)
        logits = self.head(pool(states, mask, self.config))
        loss = None if labels is None else classification_loss(self, logits, labels, **kwargs)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)

    def stream(self) -> ClassifierStream:
        """A reader of live input with the model's present weights; see `ClassifierStream`.

        Raises:
            UsageError: The model is bidirectional.
        """
        return ClassifierStream(self)


def classification_loss(
    model: URLSTMPreTrainedModel,
    logits: Tensor,
    labels: Tensor,
    *,
    num_items_in_batch: Tensor | int | None = None,
    **kwargs: Any,
) -> Tensor:
    """The loss of the model's `problem_type`: the mean over the labels, or this batch's part of it.

    Args:
        model: Whose `loss_function` and configuration apply.
        logits: Scores `(batch, labels)`.
        labels: Class indices `(batch,)`, or targets `(batch, labels)`.
        num_items_in_batch: Labels of all the batches over which gradients are accumulated; these alone when omitted.
        kwargs: Handed to the loss function.

    Raises:
        ShapeError: There is not a label for each row, or not a target for each score.
        UsageError: A label is not one of the model's.
    """
    usual = model.loss_function is ForSequenceClassificationLoss
    labels = checked_labels(labels, logits, model.config) if usual else labels
    # A loss in 16 bits would be rounded to a hundredth.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss: Tensor = model.loss_function(labels, logits, model.config, num_items_in_batch=num_items_in_batch, **kwargs)
    if not usual or num_items_in_batch is None or model.config.problem_type == "single_label_classification":
        return loss
    # For these problems transformers' function gives the mean over the batch whatever the number, and its Trainer
    # takes any loss for scaled that was given one: accumulated gradients would be too large by the number of batches.
    items = torch.as_tensor(num_items_in_batch, device=loss.device).clamp(min=1)
    return loss * (labels != -100).sum().to(loss.device) / items


def checked_labels(labels: Tensor, logits: Tensor, config: URLSTMConfig) -> Tensor:
    """Labels in the dtype that transformers' loss takes.

    It reads a problem that is not configured off the labels, and would spread targets of one shape over scores
    of another.

    Raises:
        ShapeError: Their number is not that of the rows, or of the scores.
        UsageError: They are no class indices, or one is outside the range; -100 leaves a row out of the loss.
    """
    rows, scores = logits.shape
    whole = not (labels.is_floating_point() or labels.dtype == torch.bool)
    problem = config.problem_type or (
        "regression" if scores == 1 else f"{'single' if whole else 'multi'}_label_classification"
    )
    one_each = problem == "single_label_classification" or (problem == "regression" and scores == 1)
    if labels.numel() != rows if one_each else labels.shape != logits.shape:
        raise ShapeError(
            f"labels has the shape {tuple(labels.shape)} and holds {labels.dtype}, expected the shape "
            f"{(rows,) if one_each else (rows, scores)} for problem_type {problem!r}, which the model's configuration "
            "sets, or else the first labels: whole numbers are class indices, floats a target for each score."
        )
    if problem != "single_label_classification":
        return labels.to(torch.promote_types(logits.dtype, torch.float32))
    if not whole:
        raise UsageError(f"labels holds {labels.dtype}, expected class indices: whole numbers from 0 to {scores - 1}.")
    if may_be_inspected(labels) and labels.numel():
        low, high = (int(value) for value in torch.aminmax(labels.masked_fill(labels == -100, 0)))
        if low < 0 or high >= scores:
            raise UsageError(
                f"labels holds {low if low < 0 else high}, expected class indices from 0 to {scores - 1}; "
                "num_labels in the model's configuration says how many classes it scores."
            )
    return labels.long()
