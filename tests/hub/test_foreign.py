"""Models that are not urzoo's come from the Hub to be evaluated, and for nothing else."""

import json
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from tests.evaluation.examples import make_foreign
from urzoo.errors import CheckpointError
from urzoo.evaluation.schema import plain_name, read_result
from urzoo.hub.pull import pull
from urzoo.zoo import info
from urzoo.zoo.lookup import DECIDING

from .conftest import TOKEN, Run
from .server import HubServer


@pytest.fixture(autouse=True)
def _plain_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the server speaks LFS


def sent(hub: HubServer, folder: Path) -> str:
    """Put a folder into a repository as its author would, and return the commit."""
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    api.create_repo("alice/vit")
    api.upload_folder(repo_id="alice/vit", folder_path=folder)
    return hub.store.model("alice/vit").commit("main").oid


def test_a_model_of_another_library_is_evaluated_from_the_hub(hub: HubServer, client: Run, tmp_path: Path) -> None:
    folder, _ = make_foreign("vit", tmp_path / "vit")
    commit = sent(hub, folder)
    command = (sys.executable, "-m", "urzoo", "eval", "alice/vit", "--task", "smnist", "--limit", "20")
    done = client(*command, "--results", str(tmp_path / "r"), PYTHONPATH=str(Path.cwd()))
    assert done.stdout.startswith("alice/vit+")
    result = read_result(next((tmp_path / "r").glob("alice__vit+*/smnist.json")))
    assert (plain_name(result.model.name), result.model.source, result.model.revision) == ("alice/vit", "Hub", commit)
    assert result.command.startswith(f"urzoo eval alice/vit@{commit} --task smnist")


def test_a_plain_pull_takes_urzoos_models_only_also_after_an_evaluation(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = make_foreign("vit", tmp_path / "vit")
    for name in set(DECIDING) - {path.name for path in folder.iterdir()}:
        if not name.endswith(".json"):
            (folder / name).write_bytes(b"of a tokenizer")
    sent(hub, folder)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="is of model_type 'vit', expected urlstm"):
            pull("alice/vit", token=TOKEN, endpoint=hub.endpoint)
        taken = pull("alice/vit", token=TOKEN, endpoint=hub.endpoint, any_model=True)
        assert info(taken.folder).checkpoint_sha256 == info(folder).checkpoint_sha256
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull("alice/vit", any_model=True).folder == taken.folder
    with pytest.raises(CheckpointError, match="is of model_type 'vit', expected urlstm"):
        pull("alice/vit")


def test_a_model_whose_class_is_code_beside_it_is_refused(hub: HubServer, tmp_path: Path) -> None:
    folder, _ = make_foreign("vit", tmp_path / "vit")
    config = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil", "architectures": ["EvilForCausalLM"]}
    (folder / "config.json").write_text(json.dumps({**config, **code}))
    (folder / "evil.py").write_text("raise SystemExit('run')")
    sent(hub, folder)
    with pytest.raises(CheckpointError, match="is not a checkpoint that urzoo loads"):
        pull("alice/vit", token=TOKEN, endpoint=hub.endpoint, any_model=True)
