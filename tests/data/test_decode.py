from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from urzoo.data.decode import decode
from urzoo.data.schema import load_data_set
from urzoo.errors import DataError


def write(path: Path, values: list[bytes]) -> Path:
    # Such a file comes about when Latin-1 is written as it is: Arrow does not look at what it is given.
    wrong = pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())
    pq.write_table(pa.table({"text": wrong}), path)
    return path


def test_text_that_is_not_utf8_is_refused_in_one_line(tmp_path):
    file = write(tmp_path / "train-00000-of-00001.parquet", [b"fine", "na\u00efve".encode("latin-1")])
    with pytest.raises(DataError, match="'text' holds text that is not UTF-8") as failure:
        decode([file], load_data_set("wikitext-2"))
    assert "\n" not in str(failure.value)
    assert str(file) in str(failure.value)


def test_text_in_utf8_is_read(tmp_path):
    file = write(tmp_path / "train-00000-of-00001.parquet", ["na\u00efve".encode()])
    assert decode([file], load_data_set("wikitext-2"))["text"] == ["na\u00efve"]
