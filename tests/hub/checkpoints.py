"""Small complete checkpoint folders of every kind that the zoo has, and their logits on fixed inputs."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from urzoo.models import (
    PixelSequenceImageProcessor,
    URLSTMConfig,
    URLSTMForCausalLM,
    URLSTMForImageClassification,
    URLSTMForSequenceClassification,
    URLSTMModel,
    pixel_permutation,
)

CARD = (
    "---\nlibrary_name: transformers\ntags: [urzoo, ur-lstm]\nlicense: apache-2.0\n---\n# A checkpoint of the tests\n"
)
TEXT = "the film was very good, not bad and not long: the film was good and the very long film was not bad"


def image_checkpoint(folder: Path, *, seed: int = 0, hidden_size: int = 8) -> Path:
    """An image classifier that reads 4 x 4 grey images in a permuted order."""
    torch.manual_seed(seed)
    config = URLSTMConfig(hidden_size=hidden_size, head_hidden_size=4, num_labels=10)
    _save(URLSTMForImageClassification(config), folder)
    order = pixel_permutation(16, 1)
    PixelSequenceImageProcessor(size={"height": 4, "width": 4}, pixel_order=order).save_pretrained(folder)
    return folder


def text_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """A text classifier with a tokenizer of its own."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    config = URLSTMConfig(
        hidden_size=8, num_layers=2, bidirectional=True, vocab_size=len(tokenizer), embedding_size=6, pad_token_id=0,
        head_hidden_size=0, num_labels=2, pooling=["mean", "max"],
    )  # fmt: skip
    _save(URLSTMForSequenceClassification(config), folder)
    tokenizer.save_pretrained(folder)
    return folder


def language_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """A language model with the same tokenizer."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    config = URLSTMConfig(
        hidden_size=8, vocab_size=len(tokenizer), embedding_size=8, pad_token_id=0, eos_token_id=2, bos_token_id=2
    )
    _save(URLSTMForCausalLM(config), folder)
    tokenizer.save_pretrained(folder)
    return folder


def series_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """A classifier of series of three numbers a step: neither processor nor tokenizer."""
    torch.manual_seed(seed)
    config = URLSTMConfig(cell="gru", gate="U-", hidden_size=8, input_size=3, head_hidden_size=0, num_labels=4)
    _save(URLSTMForSequenceClassification(config), folder)
    return folder


def bare_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """The recurrent model without a head."""
    torch.manual_seed(seed)
    _save(URLSTMModel(URLSTMConfig(hidden_size=8, num_layers=2)), folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained here, as those of the text checkpoints are on their data."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<unk>", "<eos>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def _save(model: PreTrainedModel, folder: Path) -> None:
    model.eval().save_pretrained(folder)
    (folder / "README.md").write_text(CARD)


# Those with a pipeline, and all.
WITH_PIPELINE: dict[str, Callable[..., Path]] = {
    "image": image_checkpoint, "text": text_checkpoint, "language": language_checkpoint
}  # fmt: skip
KINDS = {**WITH_PIPELINE, "series": series_checkpoint, "bare": bare_checkpoint}


def kind_of(folder: Path) -> str:
    """Which of `KINDS` a checkpoint is; "symbols" for a language model without a tokenizer."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    if architecture.endswith("ForImageClassification"):
        return "image"
    reads_text = (folder / "tokenizer.json").is_file()
    if architecture.endswith("ForSequenceClassification"):
        return "text" if reads_text else "series"
    if architecture.endswith("ForCausalLM"):
        return "language" if reads_text else "symbols"
    return "bare"


# A program that runs another, whose path is the first argument, as if urzoo were not installed.
WITHOUT_URZOO = """
import runpy, sys
class _NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "urzoo":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, _NotInstalled())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
