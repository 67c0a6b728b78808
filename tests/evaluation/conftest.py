"""Small untrained checkpoints, a results folder, and few images to evaluate on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.zoo.conftest import make_checkpoint
from urzoo.data import schema, sources
from urzoo.evaluation import evaluate_pairs, result_name, task
from urzoo.evaluation.pairs import Pair
from urzoo.zoo import info


@pytest.fixture(scope="session")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("zoo") / "raster-8")


@pytest.fixture(scope="session")
def permuted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("zoo") / "permuted-8", permutation_seed=0, seed=1)


def name_of(checkpoint: Path) -> str:
    """What results call a checkpoint."""
    return result_name(info(checkpoint))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "hub_unreachable", lambda: "not in a test")
    monkeypatch.delenv("URZOO_DATA_ROOT", raising=False)


def pairs(*arguments: object, **options: object) -> list[Pair]:
    return list(evaluate_pairs(*arguments, **{"progress": False, **options}))


@pytest.fixture
def no_local_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Folders and tasks of a user's own are forgotten before and after."""
    monkeypatch.setattr(schema, "LOCAL", {})
    monkeypatch.setattr(task, "LOCAL", {})
    yield
    schema.load_data_set.cache_clear()
