"""Tokens of documents on disk: whose they are."""

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from urzoo.data import describe
from urzoo.data import schema as data_schema
from urzoo.data.local import register
from urzoo.training.text.recipe import TextSource, WordTokenizerRecipe
from urzoo.training.text.tokenizer import train_tokenizer
from urzoo.training.text.tokens import tokens_of


def test_lines_in_another_order_are_not_taken_for_the_articles_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(data_schema, "LOCAL", {})
    lines = ["", " = One = \n", "", " a b \n", "", " = Two = \n", "", " c d \n"]
    source = TextSource(name="lines", split="train", documents="pages", surface="as-is", rare_words_below=None)
    tokenizer = train_tokenizer(WordTokenizerRecipe(kind="words", vocab_size=20, texts=[source]), lines)
    (folder := tmp_path / "lines").mkdir()

    def article(rows: list[str]) -> str:
        pq.write_table(pa.table({"text": rows}), folder / "train.parquet")
        (folder / "dataset.yaml").write_text(yaml.safe_dump(describe(folder)))
        register(folder)
        tokens = tokens_of(source, tokenizer, cache=tmp_path / "cache")
        return tokenizer.decode(tokens.ids[: tokens.starts[1]])

    assert "a b" in article(lines)
    assert "c d" in article([*lines[:3], lines[7], *lines[4:7], lines[3]])
    data_schema.load_data_set.cache_clear()
