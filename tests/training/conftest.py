"""The checkpoint of a tiny run, made once for a file of tests."""

from pathlib import Path

import pytest

from tests.training.tiny import KINDS, train_tiny


@pytest.fixture(scope="module")
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of the kind of recipe which the file names as `KIND`; the recipe and the runs are two folders above."""
    kind: str = request.module.KIND
    folder = tmp_path_factory.mktemp(kind)
    return train_tiny(kind, KINDS[kind][0](folder), folder)
