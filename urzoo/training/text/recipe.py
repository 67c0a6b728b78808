"""The parts of a recipe that are about text: which documents are read, and the tokenizer that is made of them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from urzoo.schema import Line, Name, Positive, Seed, Strict

# 256 bytes and the two special tokens come before the first merge.
SMALLEST_BYTE_LEVEL_VOCABULARY = 258


class TextSource(Strict):
    """Documents of one split.

    Attributes:
        name: The data set, one with a text column.
        split: Never the one that a figure is reported on.
        documents: "rows" where each row is a document; "pages" where the rows are lines of WikiText's files, to be put
            together to articles.
        surface: "as-is", "wikitext" or "ordinary": see `urzoo.training.text.surface`.
        rare_words_below: Words that stand fewer times than this in the split become `<unk>`, as in WikiText, where the
            number is 3; null to keep all. Words are what blanks separate.
    """

    name: Name
    split: Name
    documents: Literal["rows", "pages"]
    surface: Literal["as-is", "wikitext", "ordinary"]
    rare_words_below: Annotated[int, Field(ge=2)] | None


class ByteLevelTokenizerRecipe(Strict):
    """Byte-level BPE: any text is written exactly, and no text gives a special token.

    Attributes:
        vocab_size: Bytes, special tokens and merges together; fewer come out where the texts are too few.
        minimum_frequency: A pair that stands fewer times than this is not merged.
        pattern: How a text is cut before merging: "gpt2" as in GPT-2; "wikitext" also keeps `<unk>` and ` 's`, the
            blank before it included, in one piece.
        texts: What it learns from.
    """

    kind: Literal["byte-level-bpe"]
    vocab_size: Annotated[int, Field(ge=SMALLEST_BYTE_LEVEL_VOCABULARY, le=262144)]
    minimum_frequency: Positive
    pattern: Literal["gpt2", "wikitext"]
    texts: Annotated[list[TextSource], Field(min_length=1)]


class WordTokenizerRecipe(Strict):
    """A word a token, as word-level models of WikiText count them: `<unk>` kept, `<eos>` at each line end.

    Attributes:
        vocab_size: The most frequent words of the texts, `<unk>` and `<eos>` among them; ids go by frequency, as an
            adaptive softmax needs it. WikiText-103 has 267,735.
        texts: What it learns from.
    """

    kind: Literal["words"]
    vocab_size: Annotated[int, Field(ge=3, le=4194304)]
    texts: Annotated[list[TextSource], Field(min_length=1)]


class CheckpointTokenizerRecipe(Strict):
    """The tokenizer of a checkpoint that is there already: its shipped name, or its folder."""

    kind: Literal["checkpoint"]
    checkpoint: Line


TokenizerRecipe = Annotated[
    ByteLevelTokenizerRecipe | WordTokenizerRecipe | CheckpointTokenizerRecipe, Field(discriminator="kind")
]


class WeightedTextSource(TextSource):
    """Documents that are read `times` times an epoch."""

    times: Positive


class TextData(Strict):
    """What a language model learns from, and what it is validated on.

    `validation` names another split, whose documents are read whole; or, where it is null, `validation_documents` are
    drawn from all documents of `train` by `validation_seed` and held out.
    """

    train: Annotated[list[WeightedTextSource], Field(min_length=1)]
    validation: TextSource | None
    validation_documents: Positive | None
    validation_seed: Seed

    @model_validator(mode="after")
    def _one_validation(self) -> Self:
        if (self.validation is None) == (self.validation_documents is None):
            raise ValueError("exactly one of data.validation and data.validation_documents must be given, not null")
        return self
