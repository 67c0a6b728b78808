"""A small data set of our own in a data root of our own, described by a file like those of the package."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import constants
from PIL import Image

from urzoo.data import schema, sources
from urzoo.data.digest import content_digest

ROWS = 12


def images(rows: int = ROWS, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (rows, 4, 5), dtype=np.uint8)


def labels(rows: int = ROWS) -> np.ndarray:
    return np.arange(rows, dtype=np.int64) % 3


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def write_parquet(path: Path, pictures: np.ndarray, classes: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    column = [{"bytes": encoded(picture), "path": None} for picture in pictures]
    pq.write_table(pa.table({"image": column, "label": classes}), path, **options)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No Hub, no cache of it, no data root but those a test names."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.delenv("URZOO_DATA_ROOT", raising=False)
    sources.hub_unreachable.cache_clear()
    yield
    sources.hub_unreachable.cache_clear()


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> Iterator[Path]:
    """The data root; data set `toy` has a split `test`, described but for its files, which a test writes."""
    folder = tmp_path / "sets"
    folder.mkdir()
    description = {
        "name": "toy",
        "title": "Toy",
        "repository": "owner/toy",
        "revision": "0" * 40,
        "obtain": None,
        "config": "plain",
        "licence": "none",
        "citation": "none",
        "columns": {
            "image": {"kind": "image", "height": 4, "width": 5, "channels": 1},
            "label": {"kind": "label", "classes": ["a", "b", "c"]},
        },
        "splits": {"test": {"rows": ROWS, "digest": content_digest({"image": images(), "label": labels()})}},
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(description))
    monkeypatch.setattr(schema, "SETS_FOLDER", folder)
    schema.load_data_set.cache_clear()
    yield tmp_path / "root"
    schema.load_data_set.cache_clear()


@pytest.fixture
def place(toy: Path) -> Callable[[int, int], Path]:
    """Where the parquet files of the toy's split belong."""

    def path(number: int = 0, count: int = 1) -> Path:
        return toy / "owner" / "toy" / "plain" / f"test-{number:05d}-of-{count:05d}.parquet"

    return path
