"""For every task a few rows of our own and a small untrained checkpoint: urzoo's, and other libraries' models."""

from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.zoo.conftest import make_checkpoint
from urzoo.data import Split, load_data_set
from urzoo.data.generate import adding_sequences, copy_sequences
from urzoo.evaluation import Result, Settings, load_task
from urzoo.evaluation.runner import Evaluation, Subject
from urzoo.models import (
    PixelSequenceImageProcessor,
    URLSTMConfig,
    URLSTMForCausalLM,
    URLSTMForImageClassification,
    URLSTMForSequenceClassification,
)

BATCH_SIZES = [1, 2, 7, 64]
WORDS = ["the", "film", "was", "good", "bad", "long", "short", "and", "a", "story", "of", "people", "in", "the", "rain"]
WIKI = [
    "",
    " = First Page = \n",
    "",
    " The first <unk> page has some words , and a number : 3 @.@ 5 . \n",
    "",
    " = = A heading = = \n",
    "",
    " It goes on ( as pages do ) and ends . \n",
    "",
    " = Second Page = \n",
    "",
    " This page is the second one ; it is longer than the first , says its author , who 's counted . \n",
    " It has another line . \n",
    "",
]


def split_of(name: str, split: str, **columns: object) -> Split:
    """Rows of our own under the description of a real data set."""
    data_set = load_data_set(name)
    return Split(data_set, split, "0" * 64, "data root", columns)


def run(folder: Path, task: str, split: Split, **settings: object) -> Result:
    return Evaluation(Subject.of(folder), load_task(task), split, Settings(**settings)).run(progress=False).result


def save_tokenizer(folder: Path, texts: list[str], vocabulary: int = 300, **options: object) -> None:
    """A byte-level tokenizer, which can write anything, trained on the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    names = {"pad_token": "<pad>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{**names, **options}).save_pretrained(folder)


def reviews(rows: int = 23) -> Split:
    random = np.random.RandomState(0)
    texts = [" ".join(random.choice(WORDS, random.randint(1, 40))) for _ in range(rows)]
    return split_of("imdb", "test", text=texts, label=np.arange(rows, dtype=np.int64) % 2)


def make_reviewer(folder: Path) -> Path:
    """An untrained text classifier of urzoo's with its tokenizer, which cuts texts at 50 tokens."""
    torch.manual_seed(0)
    config = URLSTMConfig(
        vocab_size=300,
        hidden_size=6,
        bidirectional=True,
        pooling=["mean", "max", "last"],
        pad_token_id=0,
        id2label={0: "neg", 1: "pos"},
        label2id={"neg": 0, "pos": 1},
    )
    URLSTMForSequenceClassification(config).save_pretrained(folder)
    save_tokenizer(folder, reviews().texts, model_max_length=50)
    return folder


def letters(rows: int = 23) -> Split:
    random = np.random.RandomState(0)
    series = [random.normal(size=(random.randint(20, 60), 3)).astype(np.float32) for _ in range(rows)]
    return split_of("character-trajectories", "test", trajectory=series, label=np.arange(rows, dtype=np.int64) % 20)


def make_writer(folder: Path, vocabulary: int = 300, **fields: object) -> Path:
    """An untrained language model of urzoo's, without a tokenizer."""
    torch.manual_seed(0)
    config = URLSTMConfig(vocab_size=vocabulary, hidden_size=8, embedding_size=6, num_layers=2, **fields)
    URLSTMForCausalLM(config).save_pretrained(folder)
    return folder


def wiki(task: str = "wikitext103") -> Split:
    return split_of("wikitext-103-raw" if task.endswith("pages") else "wikitext-103", "test", text=WIKI)


def images(data_set: str, rows: int = 23) -> Split:
    """Random pictures of a data set's size."""
    random, colour = np.random.RandomState(0), data_set == "cifar10"
    shape = (rows, 32, 32, 3) if colour else (rows, 28, 28)
    pictures = random.randint(0, 256, shape, dtype=np.uint8)
    return split_of(
        data_set, "test", **{"img" if colour else "image": pictures}, label=np.arange(rows, dtype=np.int64) % 10
    )


def make_example(task: str, folder: Path) -> tuple[Path, Split]:
    """An untrained checkpoint of urzoo's for a task, in `folder`, and a few rows to evaluate it on."""
    torch.manual_seed(0)
    if task in ("smnist", "pmnist"):
        seed = 0 if task == "pmnist" else None
        return make_checkpoint(folder, permutation_seed=seed), images("mnist")
    if task == "scifar":
        URLSTMForImageClassification(URLSTMConfig(input_size=3, hidden_size=4, num_labels=10)).save_pretrained(folder)
        size = {"height": 32, "width": 32}
        PixelSequenceImageProcessor(size=size, do_grayscale=False).save_pretrained(folder)
        return folder, images("cifar10", 9)
    if task == "imdb":
        return make_reviewer(folder), reviews()
    if task.startswith("character_trajectories"):
        config = URLSTMConfig(input_size=3, hidden_size=6, num_labels=20)
        URLSTMForSequenceClassification(config).save_pretrained(folder)
        return folder, letters()
    random = np.random.RandomState(0)
    if task == "copy":
        sequences = list(copy_sequences(23, 40, random))
        return make_writer(folder, vocabulary=10, tie_word_embeddings=False), split_of(task, "test", sequence=sequences)
    if task == "adding":
        config = URLSTMConfig(input_size=2, hidden_size=4, num_labels=1)
        URLSTMForSequenceClassification(config).save_pretrained(folder)
        return folder, split_of(task, "test", sequence=list(adding_sequences(23, 30, random)))
    make_writer(folder, **({"neural_cache_size": 30} if load_task(task).context else {}))
    save_tokenizer(folder, WIKI)
    return folder, wiki(task)


FOREIGN = {
    "gpt2": "wikitext103",
    "llama": "wikitext103",
    "mamba": "wikitext103",
    "gpt2-pages": "wikitext103_pages",
    "bert": "imdb",
    "distilbert": "imdb",
    "roberta": "imdb",
    "esm": "imdb",
    "gpt2-classifier": "imdb",
    "gpt2-padded": "imdb",
    "xlnet": "imdb",
    "vit": "smnist",
    "resnet": "scifar",
}


def make_foreign(kind: str, folder: Path) -> tuple[Path, Split]:
    """A small untrained model of transformers with a real tokenizer or image processor, and rows to evaluate it on."""
    torch.manual_seed(0)
    task = FOREIGN[kind]
    if task.startswith("wikitext103"):
        _language_model(kind).save_pretrained(folder)
        save_tokenizer(folder, WIKI)
        return folder, wiki(task)
    if task == "imdb":
        if kind in ("bert", "distilbert"):
            _save_word_pieces(folder, reviews().texts, f"{'Distil' * (kind == 'distilbert')}BertTokenizer")
        else:
            options = {
                "gpt2-classifier": {"pad_token": None},
                "gpt2-padded": {"padding_side": "left"},
                "xlnet": {"padding_side": "left", "model_max_length": 32},
            }
            save_tokenizer(folder, reviews().texts, **options.get(kind, {}))
        _text_classifier(kind).save_pretrained(folder)
        return folder, reviews()
    if kind == "vit":
        config = transformers.ViTConfig(image_size=28, patch_size=7, num_labels=10, num_hidden_layers=1, **_SMALL)
        transformers.ViTForImageClassification(config).save_pretrained(folder)
        size = 28
    else:
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
        config = transformers.ResNetConfig(num_labels=10, **sizes)
        transformers.ResNetForImageClassification(config).save_pretrained(folder)
        size = 32
    transformers.ViTImageProcessor(size={"height": size, "width": size}).save_pretrained(folder)
    return folder, images("mnist" if kind == "vit" else "cifar10", 9)


_SMALL = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}


def _language_model(kind: str) -> transformers.PreTrainedModel:
    ends = {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": 1}
    if kind == "llama":
        config = transformers.LlamaConfig(max_position_embeddings=24, num_hidden_layers=2, **_SMALL, **ends)
        return transformers.LlamaForCausalLM(config)
    if kind == "mamba":
        config = transformers.MambaConfig(hidden_size=8, num_hidden_layers=2, state_size=4, **ends)
        return transformers.MambaForCausalLM(config)
    config = transformers.GPT2Config(n_positions=16, n_embd=8, n_layer=1, n_head=2, **ends)
    return transformers.GPT2LMHeadModel(config)


def _text_classifier(kind: str) -> transformers.PreTrainedModel:
    classes = {"id2label": {0: "neg", 1: "pos"}, "label2id": {"neg": 0, "pos": 1}, "vocab_size": 300}
    if kind == "bert":
        config = transformers.BertConfig(max_position_embeddings=32, num_hidden_layers=1, **_SMALL, **classes)
        return transformers.BertForSequenceClassification(config)
    if kind == "distilbert":
        config = transformers.DistilBertConfig(
            max_position_embeddings=32, dim=8, n_layers=1, n_heads=2, hidden_dim=16, **classes
        )
        return transformers.DistilBertForSequenceClassification(config)
    if kind in ("roberta", "esm"):
        # Their positions begin behind the padding token's: 32 tokens fit into 33 + pad_token_id positions.
        name = {"roberta": "Roberta", "esm": "Esm"}[kind]
        config = getattr(transformers, f"{name}Config")(
            max_position_embeddings=33, pad_token_id=0, num_hidden_layers=1, **_SMALL, **classes
        )
        return getattr(transformers, f"{name}ForSequenceClassification")(config)
    if kind == "xlnet":
        # It answers at the last token, with whatever stands there.
        config = transformers.XLNetConfig(d_model=8, n_layer=1, n_head=2, d_inner=16, pad_token_id=0, **classes)
        return transformers.XLNetForSequenceClassification(config)
    pad = 0 if kind == "gpt2-padded" else None
    config = transformers.GPT2Config(n_positions=32, n_embd=8, n_layer=1, n_head=2, pad_token_id=pad, **classes)
    return transformers.GPT2ForSequenceClassification(config)


def _save_word_pieces(folder: Path, texts: list[str], name: str) -> None:
    """A WordPiece tokenizer as BERT has it, trained on the texts."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    getattr(transformers, name)(vocab=tokenizer.get_vocab()).save_pretrained(folder)
