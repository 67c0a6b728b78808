"""The test Hub serves unmodified clients: huggingface_hub, transformers, datasets and the `hf` command."""

import json
import sys
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from .conftest import OTHER, READER, TOKEN, Run
from .server import HubServer

WEIGHTS = bytes(range(256)) * 64
HF = str(Path(sys.executable).with_name("hf"))


@pytest.fixture
def api(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the server speaks LFS
    return HfApi(endpoint=hub.endpoint, token=TOKEN)


def additions(**files: bytes) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(name.replace("__", "."), content) for name, content in files.items()]


def test_a_commit_of_regular_and_lfs_files_comes_back_whole(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("alice/m")
    info = api.create_commit("alice/m", additions(a__txt=b"hello\n", w__safetensors=WEIGHTS), commit_message="first")
    repository = hub.store.model("alice/m")
    assert repository.commit("main").oid == info.oid
    assert {path: blob.lfs for path, blob in repository.commit("main").tree.items()} == {
        ".gitattributes": False, "a.txt": False, "w.safetensors": True
    }  # fmt: skip
    folder = Path(snapshot_download("alice/m", endpoint=hub.endpoint, token=TOKEN, cache_dir=tmp_path / "cache"))
    assert (folder / "w.safetensors").read_bytes() == WEIGHTS
    assert (folder / "a.txt").read_bytes() == b"hello\n"


def test_the_token_does_not_follow_a_redirect_to_the_storage_host(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    hub.store.write("alice/m", {"w.safetensors": WEIGHTS})
    snapshot_download("alice/m", endpoint=hub.endpoint, token=TOKEN, cache_dir=tmp_path / "cache")
    assert [request for request in hub.faults.log if request.path.startswith("/cdn/")]
    assert all("authorization" not in r.headers for r in hub.faults.log if r.headers["host"].startswith("localhost"))


def test_upload_file_and_delete(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("alice/m")
    path = tmp_path / "b.bin"
    path.write_bytes(WEIGHTS)
    api.upload_file(path_or_fileobj=path, path_in_repo="deep/b.bin", repo_id="alice/m")
    assert hub.store.model("alice/m").files() == {"deep/b.bin": WEIGHTS}
    api.create_commit("alice/m", [CommitOperationDelete("deep/b.bin")], commit_message="gone")
    assert hub.store.model("alice/m").files() == {}


def test_upload_folder(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("alice/m")
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "c.json").write_text("{}")
    (tmp_path / "in" / "w.safetensors").write_bytes(WEIGHTS)
    api.upload_folder(repo_id="alice/m", folder_path=tmp_path / "in")
    assert hub.store.model("alice/m").files() == {"sub/c.json": b"{}", "w.safetensors": WEIGHTS}


def test_a_stale_parent_is_refused_with_412(hub: HubServer, api: HfApi) -> None:
    api.create_repo("alice/m")
    parent = api.model_info("alice/m").sha
    api.create_commit("alice/m", additions(a__txt=b"1"), commit_message="one", parent_commit=parent)
    state = hub.store.model("alice/m").state()
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_commit("alice/m", additions(b__txt=b"2"), commit_message="two", parent_commit=parent)
    assert refused.value.response.status_code == 412
    assert hub.store.model("alice/m").state() == state


def test_branches_tags_pull_requests_and_history(hub: HubServer, api: HfApi) -> None:
    api.create_repo("alice/m")
    first = api.create_commit("alice/m", additions(a__txt=b"1"), commit_message="one").oid
    api.create_tag("alice/m", tag="v1")
    api.create_branch("alice/m", branch="dev", revision="v1")
    second = api.create_commit("alice/m", additions(a__txt=b"2"), commit_message="two", revision="dev").oid
    pull = api.create_commit("alice/m", additions(a__txt=b"3"), commit_message="three", create_pr=True)
    assert pull.pr_num == 1
    refs = api.list_repo_refs("alice/m", include_pull_requests=True)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "dev": second}
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": first}
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1"]
    assert api.model_info("alice/m", revision="refs/pr/1").sha == pull.oid
    assert [commit.title for commit in api.list_repo_commits("alice/m", revision="dev")] == [
        "two", "one", "initial commit"
    ]  # fmt: skip
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag("alice/m", tag="v1")
    api.delete_tag("alice/m", tag="v1")
    api.delete_branch("alice/m", branch="dev")


def test_long_listings_come_in_pages(hub: HubServer, api: HfApi) -> None:
    hub.api.page = 3
    hub.store.write("alice/m", {f"dir/{number}.txt": b"x" for number in range(10)})
    assert len(list(api.list_repo_tree("alice/m", recursive=True))) == 12
    assert [entry.path for entry in api.get_paths_info("alice/m", ["dir/3.txt", "nothing"])] == ["dir/3.txt"]


def test_a_private_repository_is_seen_by_its_owner_alone(hub: HubServer, api: HfApi) -> None:
    api.create_repo("alice/secret", private=True)
    assert api.model_info("alice/secret").private
    for token in (OTHER, False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=hub.endpoint, token=token).model_info("alice/secret")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(endpoint=hub.endpoint, token="hf_wrong").model_info("alice/secret")


def test_a_token_without_write_access_writes_nothing(hub: HubServer) -> None:
    hub.store.create("model", "zoo/m")
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi(endpoint=hub.endpoint, token=READER).create_commit("zoo/m", additions(a__txt=b"1"), commit_message="no")
    assert hub.store.model("zoo/m").files() == {}


def test_listing_by_owner_and_tag(hub: HubServer, api: HfApi) -> None:
    card = b"---\ntags: [urzoo]\nlicense: mit\n---\n# m\n"
    hub.store.write("alice/m", {"README.md": card})
    hub.store.write("alice/other", {"README.md": b"# none\n"})
    hub.store.write("zoo/m", {"README.md": card})
    assert [model.id for model in api.list_models(author="alice", filter="urzoo")] == ["alice/m"]


def test_from_pretrained_and_save_with_an_unmodified_transformers(hub: HubServer, client: Run) -> None:
    code = """
import torch
from transformers import AutoModel, BertConfig, BertModel
config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
torch.manual_seed(0)
model = BertModel(config).eval()
model.push_to_hub("alice/bert")
again = AutoModel.from_pretrained("alice/bert").eval()
for (name, one), (_, two) in zip(model.named_parameters(), again.named_parameters(), strict=True):
    assert torch.equal(one, two), name
print("equal")
"""
    assert client(code=code, HF_HUB_DISABLE_XET="1").stdout.endswith("equal\n")
    assert set(hub.store.model("alice/bert").files()) == {"README.md", "config.json", "model.safetensors"}


def test_load_dataset(hub: HubServer, client: Run) -> None:
    rows = "".join(json.dumps({"text": f"row {number}", "label": number % 2}) + "\n" for number in range(20))
    hub.store.write("alice/data", {"data/train.jsonl": rows.encode()}, kind="dataset")
    code = """
from datasets import load_dataset
data = load_dataset("alice/data", split="train")
print(len(data), data[3]["text"])
"""
    assert client(code=code).stdout.endswith("20 row 3\n")


def test_the_hf_command_uploads_and_downloads(hub: HubServer, client: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "w.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "in" / "config.json").write_text("{}")
    client(HF, "repos", "create", "alice/m", HF_HUB_DISABLE_XET="1")
    client(HF, "upload", "alice/m", "in", ".", HF_HUB_DISABLE_XET="1")
    client(HF, "download", "alice/m", "--local-dir", "out")
    assert (tmp_path / "out" / "w.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("fault", "message"),
    [({"status": 403}, "403"), ({"cut": True}, "disconnected|reset"), ({"keep_bytes": 5}, "peer closed|incomplete")],
)
def test_faults_reach_the_client(hub: HubServer, api: HfApi, fault: dict, message: str) -> None:
    hub.store.write("alice/m", {"a.txt": b"x"})
    hub.fail("GET /api/models/alice/m", **fault)
    with pytest.raises(Exception, match=message):
        api.model_info("alice/m")
    assert api.model_info("alice/m").id == "alice/m"
    assert len(hub.asked("GET /api/models/alice/m")) == 2
