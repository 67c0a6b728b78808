import os
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from urzoo.data import Split
from urzoo.data.schema import load_data_set
from urzoo.errors import CheckpointError, DataError
from urzoo.training.text import documents, tokenizer
from urzoo.training.text.recipe import (
    ByteLevelTokenizerRecipe,
    CheckpointTokenizerRecipe,
    TextSource,
    TokenizerRecipe,
    WordTokenizerRecipe,
)
from urzoo.training.text.surface import in_wikitext_form, without_rare_words
from urzoo.training.text.tokenizer import encode_lines, load_or_train_tokenizer, train_tokenizer

LINES = [
    " = A Cat = \n",
    " \n",
    " The <unk> cat 's tail , 1 @,@ 200 mm long , was n't seen . \n",
    " \n",
    " The cat 's cat saw the cat . \n",
] * 5
SOURCE = TextSource(name="wikitext-2", split="train", documents="rows", surface="as-is", rare_words_below=None)


def byte_level(**changes):
    fields = {"vocab_size": 320, "minimum_frequency": 2, "pattern": "wikitext", "texts": [SOURCE]}
    return ByteLevelTokenizerRecipe(kind="byte-level-bpe", **fields | changes)


def ids_of(made, text):
    return made(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module", params=["wikitext", "gpt2"])
def loaded(request, tmp_path_factory):
    """A tokenizer as a user gets it: learnt, saved and loaded by transformers."""
    folder = tmp_path_factory.mktemp("tokenizer") / "saved"
    train_tokenizer(byte_level(pattern=request.param), LINES).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def text_split(rows):
    return Split(load_data_set("wikitext-2"), "train", "0" * 64, "data root", {"text": rows})


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@example(text="")
@example(text="  two leading, three trailing   ")
@example(text="\u00e9 e\u0301 \u1e69 s\u0323\u0307")
@example(text="\U0001d538 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0010ffff \ufffe")
@example(text="\x00\x01\x7f\x85\u2028\r\n\t\v\f")
@example(text="<|endoftext|><|pad|> <|endoftext|> <unk>")
@example(text=" \n \n  \n\n x 's'sn't ' s")
def test_every_text_comes_back_exactly_and_holds_no_special_token(loaded, text):
    ids = ids_of(loaded, text)
    assert loaded.decode(ids) == text
    assert loaded.decode(ids, skip_special_tokens=True) == text
    assert not {loaded.pad_token_id, loaded.eos_token_id} & set(ids)
    assert list(encode_lines(loaded, [text])) == [ids]


def test_the_saved_tokenizer_is_what_transformers_loads(loaded):
    assert isinstance(loaded, PreTrainedTokenizerFast)
    assert (loaded.pad_token, loaded.bos_token, loaded.eos_token) == ("<|pad|>", "<|endoftext|>", "<|endoftext|>")
    batch = loaded(["The cat", ""], padding=True)
    assert batch.keys() == {"input_ids", "attention_mask"}
    assert batch["attention_mask"][1] == [0] * len(batch["input_ids"][0])
    assert 258 < len(loaded) <= 320
    assert sorted(loaded.get_vocab().values()) == list(range(len(loaded)))


def test_wikitext_keeps_its_own_words_in_one_piece():
    made = train_tokenizer(byte_level(), LINES)
    # Learnt from few lines, but these are in all of them.
    assert made.tokenize(" The <unk> cat 's") == ["ĠThe", "Ġ<unk>", "Ġcat", "Ġ's"]
    assert made.tokenize(" cat \n") == ["Ġcat", "ĠĊ"]


def test_a_line_has_the_same_tokens_alone_and_within_its_document():
    made = train_tokenizer(byte_level(), LINES)
    assert ids_of(made, "".join(LINES)) == [token for line in encode_lines(made, LINES) for token in line]


def test_the_same_lines_give_the_same_tokenizer_on_any_number_of_threads():
    """Here, and in a process with one thread and another order of sets."""
    program = (
        "import sys; from tests.training.text.test_tokenizer import LINES, byte_level;"
        "from urzoo.training.text.tokenizer import train_tokenizer;"
        "sys.stdout.write(train_tokenizer(byte_level(), LINES).backend_tokenizer.to_str())"
    )
    environment = os.environ | {"RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment, text=True)
    assert there.stdout == train_tokenizer(byte_level(), LINES).backend_tokenizer.to_str()
    assert len(there.stdout) > 1000


def test_words_are_ordered_by_frequency_and_lines_end_in_eos():
    made = train_tokenizer(WordTokenizerRecipe(kind="words", vocab_size=8, texts=[SOURCE]), LINES)
    vocabulary = made.get_vocab()
    assert len(vocabulary) == 8
    assert made.tokenize(" The <unk> cat \n") == ["The", "<unk>", "cat", "<eos>"]
    assert made.tokenize(" \n") == ["<eos>"]
    assert made.tokenize("a dog") == ["<unk>", "<unk>"]
    counts = {word: " ".join(LINES).replace("\n", "<eos>").split().count(word) for word in vocabulary}
    ordered = sorted(vocabulary, key=lambda word: vocabulary[word])
    # <unk> is kept even where it is too rare to be.
    assert [counts[word] for word in ordered[:-1]] == sorted((counts[word] for word in ordered[:-1]), reverse=True)


def test_a_learnt_tokenizer_is_found_again_and_another_recipe_learns_anew(tmp_path, monkeypatch):
    reads, trained = [], []

    def load_split(name, split, *, data_root=None):
        reads.append(name)
        return text_split(LINES)

    def counted(recipe, lines, *, learn=train_tokenizer):
        trained.append(recipe)
        return learn(recipe, lines)

    monkeypatch.setattr(documents, "load_split", load_split)
    monkeypatch.setattr(tokenizer, "train_tokenizer", counted)
    first = load_or_train_tokenizer(byte_level(), cache=tmp_path)
    again = load_or_train_tokenizer(byte_level(), cache=tmp_path)
    assert len(trained) == 1
    assert first.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    assert first.split_special_tokens
    load_or_train_tokenizer(byte_level(vocab_size=300), cache=tmp_path)
    assert len(trained) == 2
    assert len(list((tmp_path / "tokenizers").iterdir())) == 2


def test_a_tokenizer_is_taken_from_a_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    recipe = CheckpointTokenizerRecipe(kind="checkpoint", checkpoint=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        load_or_train_tokenizer(recipe, cache=tmp_path)
    made = train_tokenizer(byte_level(), LINES)
    made.save_pretrained(tmp_path)
    taken = load_or_train_tokenizer(recipe, cache=tmp_path)
    assert taken.backend_tokenizer.to_str() == made.backend_tokenizer.to_str()


@pytest.mark.parametrize("rows", [[""], ["", " \n"], ["no title here\n"]])
def test_an_empty_corpus_is_refused(rows, monkeypatch, tmp_path):
    monkeypatch.setattr(documents, "load_split", lambda *a, **k: text_split(rows))
    pages = TextSource(**SOURCE.model_dump() | {"documents": "pages"})
    with pytest.raises(DataError, match=r"wikitext-2 \(train\) is empty"):
        load_or_train_tokenizer(byte_level(texts=[pages]), cache=tmp_path)
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(byte_level(), ["", " \n"])


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ({"kind": "byte-level-bpe", "vocab_size": 100}, "greater than or equal to 258"),
        ({"kind": "sentencepiece"}, "byte-level-bpe"),
        ({"kind": "checkpoint", "checkpoint": "x", "vocab": 3}, "Extra inputs"),
    ],
)
def test_an_impossible_section_is_refused(section, complaint):
    with pytest.raises(ValueError, match=complaint):
        TypeAdapter(TokenizerRecipe).validate_python(section)


def test_wikitext_form_mends_what_differs_and_nothing_else():
    rows = [" The state ' s 1 @ , @ 2 . . . end . \n", " = = A heading = = \n", "", " ' so it is ' \n"]
    assert in_wikitext_form(rows) == [
        " The state 's 1 @,@ 2 ... end . \n",
        "",
        " = = A heading = = \n",
        "",
        " ' so it is ' \n",
    ]
    assert in_wikitext_form(LINES) == LINES


def test_rare_words_become_unknown_and_blanks_stay():
    assert without_rare_words([" a b a  \n", " b c \n"], 2) == [" a b a  \n", " b <unk> \n"]
