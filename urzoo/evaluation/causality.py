"""Whether a language model that is not urzoo's sees the tokens it is to predict.

Classes that transformers counts among the causal ones read in both directions unless their configuration says otherwise
(`BertLMHeadModel` without `is_decoder`, `XLNetLMHeadModel`): their perplexity would mean nothing.
"""

from pathlib import Path
from typing import Any

import torch

from urzoo.errors import CheckpointError

# Of the largest score. What a token adds to those before it is far more; rounding, where tokens are sorted, far less.
_TOLERANCE = 1e-4


def refuse_looking_ahead(model: Any, token: int, length: int, folder: Path) -> None:
    """Refuse a model whose scores at a token change with the token behind it.

    Args:
        model: The model.
        token: A token that it knows.
        length: How many tokens to try it with.
        folder: The checkpoint's, for the message.

    Raises:
        CheckpointError: It looks ahead.
    """
    ids = torch.full((2, length), token, device=model.device)
    ids[1, -1] = 0 if token else 1
    with torch.inference_mode():
        one, other = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    if one.numel() and (one - other).abs().max() > _TOLERANCE * one.abs().max():
        raise CheckpointError(
            f"{folder} is no causal language model: its scores at a token change with the token behind it, which it is "
            "to predict. Set is_decoder in its config.json if it was trained as one."
        )
